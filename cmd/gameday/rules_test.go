//go:build unix

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const sample = `
groups:
  - name: records
    rules:
      - record: vendor:late:rate3d
        expr: rate(x_seconds_count{le="60"}[3d]) / rate(x_seconds_count[5m])
  - name: alerts
    rules:
      - alert: Late
        expr: vendor:late:rate3d > 0.01
        for: 1h
        labels: {severity: page, window: 3d}
      - alert: Late
        expr: x_age_seconds > 3600
        for: 2m
        keep_firing_for: 10m
        labels: {severity: ticket}
        annotations: {summary: "{{ $labels.vendor }} is late"}
      - alert: Down
        expr: up == 0
`

func read(t *testing.T, text string) (*ruleFile, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return readRules(path)
}

func mustRead(t *testing.T, text string) *ruleFile {
	t.Helper()
	f, err := read(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAnAlertIsKnownByItsNameAndItsLabels(t *testing.T) {
	got, err := mustRead(t, sample).alerts()
	if want := []string{"Late page 3d", "Late ticket", "Down"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("alerts: got %q, %v, want %q", got, err, want)
	}
	twice := mustRead(t, sample+"      - alert: Down\n        expr: up == 1\n")
	if got, err := twice.alerts(); err == nil || !strings.Contains(err.Error(), `"Down"`) {
		t.Errorf("two rules alike: got %q, %v, want an error that names them", got, err)
	}
}

func TestAFieldThatWouldBeLostInTheCopyIsRefused(t *testing.T) {
	if _, err := read(t, sample+"        query_offset: 5s\n"); err == nil || !strings.Contains(err.Error(), "query_offset") {
		t.Errorf("got %v, want an error that names the field", err)
	}
}

func TestRulesAreScaledAlertByAlertAndRecordsTogether(t *testing.T) {
	out, told, err := mustRead(t, sample).scaledDown(10*time.Second, map[string]time.Duration{"Late ticket": 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	rules := slices.Concat(out.Groups[0].Rules, out.Groups[1].Rules)
	for i, want := range []rule{
		{Record: "vendor:late:rate3d", Expr: `rate(x_seconds_count{le="60"}[10s]) / rate(x_seconds_count[5s])`},
		{Alert: "Late", Expr: "vendor:late:rate3d > 0.01", For: "10s", Labels: map[string]string{"severity": "page", "window": "3d"}},
		{
			Alert: "Late", Expr: "x_age_seconds > 20", For: "1s", KeepFiringFor: "3333ms", Labels: map[string]string{"severity": "ticket"},
			Annotations: map[string]string{"summary": "{{ $labels.vendor }} is late"},
		},
		{Alert: "Down", Expr: "up == 0"},
	} {
		if !reflect.DeepEqual(rules[i], want) {
			t.Errorf("rule %d\n got %+v\nwant %+v", i, rules[i], want)
		}
	}
	var factors []float64
	for _, s := range told {
		factors = append(factors, s.factor)
	}
	if want := []float64{10. / 259200, 10. / 3600, 20. / 3600, 1}; !reflect.DeepEqual(factors, want) {
		t.Errorf("factors: got %v, want %v", factors, want)
	}
	for _, g := range out.Groups {
		if g.Interval != "1s" {
			t.Errorf("group %s is evaluated every %q, want 1s", g.Name, g.Interval)
		}
	}
}

func TestAnAlertWithoutAScenarioIsSaidAndAScenarioWithoutAnAlertToo(t *testing.T) {
	for name, c := range map[string]struct {
		scenarios []scenario
		want      []string
	}{
		"each has one":       {[]scenario{{title: "a", alerts: []string{"A", "B page"}}}, nil},
		"one has none":       {[]scenario{{title: "a", alerts: []string{"A"}}}, []string{"B page: no scenario provokes it"}},
		"one is not there":   {[]scenario{{title: "a", alerts: []string{"A", "B page", "C"}}}, []string{"C: there is no such alert"}},
		"one has two":        {[]scenario{{title: "a", alerts: []string{"A", "B page"}}, {title: "b", alerts: []string{"A"}}}, []string{`A: two scenarios provoke it, "a" and "b"`}},
		"two with labels":    {[]scenario{{title: "a", alerts: []string{"A", "B page"}}, {title: "b", alerts: []string{"A"}, where: map[string]string{"check": "c"}}}, nil},
		"everything at once": {nil, []string{"A: no scenario", "B page: no scenario"}},
	} {
		err := unmatched([]string{"A", "B page"}, c.scenarios)
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		for _, want := range c.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q in it", name, err, want)
			}
		}
	}
}

// Whoever adds an alert adds what provokes it.
func TestEveryAlertThatIsDeployedHasAScenario(t *testing.T) {
	files, err := filepath.Glob("../../deploy/prometheus/*.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		rules, err := readRules(file)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := rules.alerts()
		if err != nil {
			t.Fatal(err)
		}
		if err := unmatched(ids, scenarios()); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
