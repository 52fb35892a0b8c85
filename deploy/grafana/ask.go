package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A question is what the boards are asked about: a Prometheus, and the values of
// the variables that Grafana would put in.
type question struct {
	server       string
	vendor       string
	organization string
	span         time.Duration
	strict       bool   // a panel that may be empty must not be, either
	draw         string // a directory for pages of what was found; empty: none
}

// steps is how many values of a series are asked for.
const steps = 240

// patience is for one query: a board that is slower is no help at night.
const patience = 30 * time.Second

// answer is the part of Prometheus' that is read here.
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

// series is one of a matrix.
type series struct {
	Metric map[string]string `json:"metric"`
	Values []sample          `json:"values"`
}

// sample is a value at a time, in seconds since 1970.
type sample struct{ at, value float64 }

// UnmarshalJSON reads Prometheus' pair of a number and a text.
func (s *sample) UnmarshalJSON(text []byte) error {
	var value string
	if err := json.Unmarshal(text, &[]any{&s.at, &value}); err != nil {
		return err
	}
	var err error
	s.value, err = strconv.ParseFloat(value, 64)
	return err
}

// isNothing says whether it is 0/0: a quantile of no calls, a share of none.
func (s sample) isNothing() bool { return math.IsNaN(s.value) }

func (s series) last() sample { return s.Values[len(s.Values)-1] }

// A finding is what a query found.
type finding struct {
	query

	series []series // each has a value
	err    error
}

// ask runs every query of every board, and says which find data within the time
// range. A panel that says what no data means may be empty, unless the question is
// strict; any other must not be.
func ask(ctx context.Context, out io.Writer, q question) error {
	if err := q.choose(ctx); err != nil {
		return err
	}
	missing, broken := 0, 0
	for _, b := range boards() {
		found, all := 0, 0
		picture := drawing{Board: b, Span: q.span, End: time.Now()}
		for _, r := range b.rows {
			picture.Rows = append(picture.Rows, drawnRow{Title: r.title})
			for i := range r.panels {
				p := &r.panels[i]
				findings := q.findings(ctx, p)
				for _, f := range findings {
					kind, text := q.judge(p, f)
					all++
					switch kind {
					case "data":
						found++
					case "EMPTY":
						missing++
					case "ERROR":
						broken++
					}
					if _, err := fmt.Fprintf(out, "%-5s  %s: %s: %s\n", kind, b.name, p.title, text); err != nil {
						return err
					}
				}
				picture.add(p, findings)
			}
		}
		if _, err := fmt.Fprintf(out, "%s: %d of %d queries find data\n\n", b.name, found, all); err != nil {
			return err
		}
		if err := picture.write(q.draw); err != nil {
			return err
		}
	}
	if missing+broken > 0 {
		return fmt.Errorf("%d queries find nothing although there must be data, and %d fail", missing, broken)
	}
	return nil
}

// findings runs the queries of a panel.
func (q *question) findings(ctx context.Context, p *panel) []finding {
	var findings []finding
	for _, one := range p.queries {
		f := finding{query: query{q.fill(one.expr), one.legend}}
		f.series, f.err = q.query(ctx, f.expr)
		findings = append(findings, f)
	}
	return findings
}

// judge says data, empty as it may be, EMPTY as it may not, or ERROR.
func (q *question) judge(p *panel, f finding) (kind, text string) {
	switch {
	case f.err != nil:
		return "ERROR", f.err.Error()
	case len(f.series) > 0:
		return "data", fmt.Sprintf("%d series, the first %v", len(f.series), f.series[0].last().value)
	case p.empty != "" && !q.strict:
		return "empty", p.empty
	}
	return "EMPTY", f.expr
}

// choose takes any integration that is behind, if none was named, so that the
// board of one integration has one.
func (q *question) choose(ctx context.Context) error {
	named := q.vendor != "" || q.organization != ""
	expr := "usagebridge_integration_behind_age_seconds"
	found, err := q.query(ctx, expr)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		found, err = q.query(ctx, "usagebridge_partition_owned")
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s has no series of usagebridge; want a Prometheus that scrapes its workers", q.server)
	}
	if err == nil && !named {
		q.vendor, q.organization = found[0].Metric["vendor"], found[0].Metric["organization"]
	}
	return err
}

// fill puts values where Grafana would. A board that has many vendors shows all.
func (q *question) fill(expr string) string {
	return strings.NewReplacer(
		`=~"$vendor"`, `=~".*"`, `=~"$stream"`, `=~".*"`,
		"$vendor", q.vendor, "$organization", q.organization,
		"$__rate_interval", "1m", "$__range", fmt.Sprintf("%ds", int(q.span.Seconds())),
	).Replace(expr)
}

// query asks for the values within the time range.
func (q *question) query(ctx context.Context, expr string) ([]series, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	address := strings.TrimSuffix(q.server, "/") + "/api/v1/query_range?" + url.Values{
		"query": {expr}, "step": {fmt.Sprintf("%.3f", max(q.span.Seconds()/steps, 1))},
		"start": {stamp(time.Now().Add(-q.span))}, "end": {stamp(time.Now())},
	}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w; want a URL such as http://127.0.0.1:9090", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return nil, fmt.Errorf("ask Prometheus: %s, and what it says is not understood: %w", response.Status, err)
	}
	if a.Status != "success" {
		return nil, errors.New(a.Error + ": " + expr)
	}
	var found []series
	if err := json.Unmarshal(a.Data.Result, &found); err != nil {
		return nil, fmt.Errorf("%s: its value is no matrix: %w", expr, err)
	}
	for i := range found {
		found[i].Values = slices.DeleteFunc(found[i].Values, sample.isNothing)
	}
	return slices.DeleteFunc(found, func(s series) bool { return len(s.Values) == 0 }), nil
}

func stamp(t time.Time) string { return fmt.Sprintf("%.3f", float64(t.UnixMilli())/1000) }
