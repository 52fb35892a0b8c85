//go:build unix

package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is scaled down: a window must hold some scrapes, and nothing
// lasts shorter than the time between two.
const (
	windowFloor = 5 * time.Second
	stepFloor   = time.Second
)

// secondsFloor is the least number that is taken for a time in seconds: those
// below are counts and shares.
const secondsFloor = 60

// tokenKind says what a piece of an expression is, as far as scaling cares.
type tokenKind int

const (
	tokenOther    tokenKind = iota // names, operators, strings, comments, blanks
	tokenNumber                    // 86400, 0.95
	tokenWindow                    // a range, or an offset: the two go together
	tokenStep                      // the step of a subquery, after the colon
	tokenDuration                  // any other duration, for, keep_firing_for
)

type token struct {
	kind tokenKind
	text string
}

var (
	// One after the other, the first that fits: strings and comments first, so that
	// nothing within them is taken for a time.
	pieces = regexp.MustCompile(`^(?:` + strings.Join([]string{
		`"(?:[^"\\]|\\.)*"`, `'(?:[^'\\]|\\.)*'`, "`[^`]*`", `#[^\n]*`, // texts
		`(?:[0-9]+(?:ms|[smhdwy]))+`,              // durations
		`(?:[0-9]*\.)?[0-9]+(?:[eE][-+]?[0-9]+)?`, // numbers
		`[a-zA-Z_][a-zA-Z0-9_:]*`,                 // names
		`\s+`, `(?s:.)`,
	}, ")|(?:") + `)`)
	durationParts = regexp.MustCompile(`([0-9]+)(ms|[smhdwy])`)
	metricName    = regexp.MustCompile(`^[a-zA-Z_:]+_[a-zA-Z0-9_:]+$`) // all of ours have an underscore
	secondsMetric = regexp.MustCompile(`_seconds(?::[a-z]+)?$`)
)

// asItIs are the metrics whose bounds are not scaled although they are in
// seconds: an operator sets what they show, so nobody has to wait for it.
var asItIs = regexp.MustCompile(`_cutoff_remaining_seconds|_stream_max_age_seconds`)

// tokens cuts an expression into pieces that make it up again when joined.
func tokens(expr string) []token {
	var all []token
	brackets, afterColon, offset := 0, false, false
	for expr != "" {
		text := pieces.FindString(expr)
		expr = expr[len(text):]
		t := token{text: text}
		switch {
		case text == "[":
			brackets, afterColon = brackets+1, false
		case text == "]":
			brackets--
		case text == ":":
			afterColon = brackets > 0
		case strings.TrimSpace(text) == "" || text == "-" && offset: // of "offset -1h"
		case text == "offset":
			offset = true
			all = append(all, t)
			continue
		case isDuration(text):
			t.kind = tokenDuration
			if brackets > 0 && afterColon {
				t.kind = tokenStep
			} else if brackets > 0 || offset {
				t.kind = tokenWindow
			}
		case isNumber(text):
			t.kind = tokenNumber
		}
		if strings.TrimSpace(text) != "" && text != "-" {
			offset = false
		}
		all = append(all, t)
	}
	return all
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil && text[0] >= '.' && text[0] <= '9'
}

func isDuration(text string) bool {
	_, err := parseDuration(text)
	return err == nil
}

var units = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
	"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour,
}

// parseDuration reads a duration as Prometheus writes it, such as 1h30m or 7d.
func parseDuration(text string) (d time.Duration, err error) {
	rest := text
	for _, m := range durationParts.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil || !strings.HasPrefix(rest, m[0]) {
			break
		}
		d, rest = d+time.Duration(n)*units[m[2]], rest[len(m[0]):]
	}
	if text == "" || rest != "" {
		return 0, fmt.Errorf("duration %q: want one such as 1h30m or 7d", text)
	}
	return d, nil
}

// formatDuration writes a duration for Prometheus, which knows no fractions.
func formatDuration(d time.Duration) string {
	if d = d.Round(time.Millisecond); d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// span is a time that an expression names, in seconds: how it is written, or
// what a product such as 3 * 86400 comes to.
type span struct {
	at    int // of the token that is to be scaled
	value float64
}

// secondsIn finds the numbers that stand for a time: those from 60 up that are
// held against a metric in seconds, as a product if they are written as one.
func secondsIn(all []token) (found []span) {
	metric, braces := "", 0
	for i := 0; i < len(all); i++ {
		switch text := all[i].text; {
		case text == "{":
			braces++
		case text == "}":
			braces--
		case braces == 0 && metricName.MatchString(text):
			metric = text
		}
		if all[i].kind != tokenNumber {
			continue
		}
		largest, product, last := product(all, i)
		i = last
		if product.value >= secondsFloor && secondsMetric.MatchString(metric) && !asItIs.MatchString(metric) {
			found = append(found, span{largest, product.value})
		}
	}
	return found
}

// product reads the numbers that are multiplied from the i-th token on. It gives
// the largest of them, what they come to, and the last token.
func product(all []token, i int) (largest int, whole span, last int) {
	value := number(all[i])
	largest, last = i, i
	for next := last + 1; ; {
		operator := skipBlanks(all, next)
		factor := skipBlanks(all, operator+1)
		if factor >= len(all) || all[operator].text != "*" || all[factor].kind != tokenNumber {
			return largest, span{i, value}, last
		}
		value *= number(all[factor])
		if number(all[factor]) > number(all[largest]) {
			largest = factor
		}
		last, next = factor, factor+1
	}
}

func skipBlanks(all []token, i int) int {
	for i < len(all) && strings.TrimSpace(all[i].text) == "" {
		i++
	}
	return i
}

func number(t token) float64 {
	value, _ := strconv.ParseFloat(t.text, 64) // it is a number: tokens says so
	return value
}

// longest is the longest time that an expression names: in a range, an offset or
// a bound in seconds.
func longest(expr string) (d time.Duration) {
	all := tokens(expr)
	for _, t := range all {
		if t.kind == tokenWindow || t.kind == tokenDuration {
			if w, err := parseDuration(t.text); err == nil {
				d = max(d, w)
			}
		}
	}
	for _, s := range secondsIn(all) {
		d = max(d, time.Duration(s.value*float64(time.Second)))
	}
	return d
}

// scaled multiplies every time that an expression names by the factor. Windows
// are never below their floor; with bounds, bounds in seconds are scaled, too.
func scaled(expr string, factor float64, bounds bool) string {
	all := tokens(expr)
	for i := range all {
		switch all[i].kind {
		case tokenWindow, tokenDuration:
			all[i].text = scaledDuration(all[i].text, factor, windowFloor)
		case tokenStep:
			all[i].text = scaledDuration(all[i].text, factor, stepFloor)
		case tokenOther, tokenNumber:
		}
	}
	if bounds {
		for _, s := range secondsIn(tokens(expr)) {
			all[s.at].text = strconv.FormatFloat(number(all[s.at])*factor, 'g', 6, 64)
		}
	}
	var b strings.Builder
	for _, t := range all {
		b.WriteString(t.text)
	}
	return b.String()
}

func scaledDuration(text string, factor float64, floor time.Duration) string {
	d, err := parseDuration(text)
	if err != nil {
		return text // it is one: tokens says so
	}
	return formatDuration(max(time.Duration(float64(d)*factor), floor))
}
