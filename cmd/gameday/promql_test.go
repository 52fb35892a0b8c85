//go:build unix

package main

import (
	"strings"
	"testing"
	"time"
)

func TestEveryTimeInAnExpressionIsScaledAndNothingElse(t *testing.T) {
	for name, c := range map[string]struct {
		expr   string
		factor float64
		bounds bool
		want   string
	}{
		"a range":                       {`increase(x_total[1h]) > 0`, 1. / 360, true, `increase(x_total[10s]) > 0`},
		"a window has a floor":          {`rate(x_total[5m])`, 1. / 360, true, `rate(x_total[5s])`},
		"a duration of two units":       {`rate(x_total[1h30m])`, 1. / 540, true, `rate(x_total[10s])`},
		"milliseconds":                  {`rate(x_total[2h])`, 1. / 960, true, `rate(x_total[7500ms])`},
		"an offset":                     {`x_total offset 1h > 0`, 1. / 360, true, `x_total offset 10s > 0`},
		"an offset into the future":     {`x_total offset -1h > 0`, 1. / 360, true, `x_total offset -10s > 0`},
		"a subquery and its step":       {`avg_over_time((a:b_c:sum > bool 0)[1h:1m]) > 0.5`, 1. / 360, true, `avg_over_time((a:b_c:sum > bool 0)[10s:1s]) > 0.5`},
		"a subquery without a step":     {`max_over_time(x_total[1h:])`, 1. / 360, true, `max_over_time(x_total[10s:])`},
		"a bound in seconds":            {`max(x_age_seconds) > 3600`, 1. / 360, true, `max(x_age_seconds) > 10`},
		"a bound of a record":           {`vendor:x_age_seconds:max > 3600`, 1. / 360, true, `vendor:x_age_seconds:max > 10`},
		"a bound that is a product":     {`x_age_seconds > 3 * 86400`, 1. / 25920, true, `x_age_seconds > 3 * 3.33333`},
		"a bound behind labels":         {`x_age_seconds{code_class="5xx"} > 3600`, 1. / 360, true, `x_age_seconds{code_class="5xx"} > 10`},
		"a bound that is kept":          {`x_age_seconds > 3600`, 1. / 360, false, `x_age_seconds > 3600`},
		"a bound of what is set":        {`v:usagebridge_cutoff_remaining_seconds:min < 12 * 3600`, 0.1, true, `v:usagebridge_cutoff_remaining_seconds:min < 12 * 3600`},
		"a bound of bytes":              {`x_stream_bytes > 1000`, 0.1, true, `x_stream_bytes > 1000`},
		"a count of what took seconds":  {`increase(x_seconds_count[1h]) > 100`, 1. / 360, true, `increase(x_seconds_count[10s]) > 100`},
		"a few seconds":                 {`x_age_seconds > 10`, 0.1, true, `x_age_seconds > 10`},
		"a share":                       {`x_ratio > 14.4 * 0.01`, 0.1, true, `x_ratio > 14.4 * 0.01`},
		"a time in a text":              {`x_total{le="60",range="[1h]"} > 0 # [1h]`, 1. / 360, true, `x_total{le="60",range="[1h]"} > 0 # [1h]`},
		"a text with a quote in it":     {`x_total{a="\"[1h]",b='[1h]'} > 0`, 1. / 360, true, `x_total{a="\"[1h]",b='[1h]'} > 0`},
		"a name with a number in it":    {`vendor:x:late_ratio_rate1h > 0`, 1. / 360, true, `vendor:x:late_ratio_rate1h > 0`},
		"a bound of an argument, a sum": {`histogram_fraction(0, 60, sum(rate(x_seconds[1h])))`, 1. / 360, true, `histogram_fraction(0, 60, sum(rate(x_seconds[10s])))`},
	} {
		if got := scaled(c.expr, c.factor, c.bounds); got != c.want {
			t.Errorf("%s: scaled(%s)\n got %s\nwant %s", name, c.expr, got, c.want)
		}
	}
}

func TestTheLongestTimeOfAnExpressionIsFound(t *testing.T) {
	for expr, want := range map[string]time.Duration{
		`up == 0`:               0,
		`rate(x_total[5m]) > 0`: 5 * time.Minute,
		`x_total offset 7d > increase(x_total[1h])`:     7 * 24 * time.Hour,
		`x_age_seconds > 7 * 86400`:                     7 * 24 * time.Hour,
		`x_age_seconds > 3600 and y_age_seconds > 7200`: 2 * time.Hour,
		`a_cutoff_remaining_seconds < 3 * 86400`:        0,
		`avg_over_time(x_total[15m:1h])`:                15 * time.Minute,
		`increase(x_total[1w])`:                         7 * 24 * time.Hour,
	} {
		if got := longest(expr); got != want {
			t.Errorf("longest(%s): got %v, want %v", expr, got, want)
		}
	}
}

func TestTheTokensOfAnExpressionMakeItUpAgain(t *testing.T) {
	for _, expr := range []string{
		"sum by (vendor) (increase(x_total{a=~\"b[.]c\"}[1h:1m] offset -5m)) >= 1e3 # so\n  or on () vector(.5)",
		"a:b{c=`\"`} @ 1609746000 ^ 2 % -3", "", "\"unfinished", "[1h", "µ",
	} {
		var b strings.Builder
		for _, piece := range tokens(expr) {
			b.WriteString(piece.text)
		}
		if b.String() != expr {
			t.Errorf("tokens of %q make up %q", expr, b.String())
		}
	}
}

func TestADurationIsReadAsPrometheusWritesIt(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "1w": 168 * time.Hour, "250ms": 250 * time.Millisecond, "1y": 8760 * time.Hour,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%q): got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "m", "5 m", "1.5h", "5mx", "x5m"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q): got %v, want an error", text, got)
		}
	}
}
