package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A question is what the boards are asked about: a Prometheus, and the values of
// the variables that Grafana would put in.
type question struct {
	server       string
	vendor       string
	organization string
	span         string
}

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

// series is one of a vector, with the time and the text of its value.
type series struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
}

// isNothing says whether it is 0/0: a quantile of no calls, a share of none.
func (s series) isNothing() bool { return s.Value[1] == "NaN" }

// ask runs every query of every board, and says which find data. A panel that
// says what no data means may be empty; any other must not be.
func ask(ctx context.Context, out io.Writer, q question) error {
	if err := q.choose(ctx); err != nil {
		return err
	}
	missing, broken := 0, 0
	for _, b := range boards() {
		found, all := 0, 0
		for _, r := range b.rows {
			for i := range r.panels {
				for _, one := range r.panels[i].queries {
					verdict := q.judge(ctx, &r.panels[i], one)
					all++
					switch verdict.kind {
					case "data":
						found++
					case "EMPTY":
						missing++
					case "ERROR":
						broken++
					}
					if _, err := fmt.Fprintf(out, "%-5s  %s: %s: %s\n", verdict.kind, b.name, r.panels[i].title, verdict.text); err != nil {
						return err
					}
				}
			}
		}
		if _, err := fmt.Fprintf(out, "%s: %d of %d queries find data\n\n", b.name, found, all); err != nil {
			return err
		}
	}
	if missing+broken > 0 {
		return fmt.Errorf("%d queries find nothing although there must be data, and %d fail", missing, broken)
	}
	return nil
}

// A verdict on a query: data, empty as it may be, EMPTY as it may not, or ERROR.
type verdict struct{ kind, text string }

func (q *question) judge(ctx context.Context, p *panel, one query) verdict {
	expr := q.fill(one.expr)
	found, err := q.query(ctx, expr)
	found = slices.DeleteFunc(found, series.isNothing)
	switch {
	case err != nil:
		return verdict{"ERROR", err.Error()}
	case len(found) > 0:
		return verdict{"data", fmt.Sprintf("%d series, the first %v", len(found), found[0].Value[1])}
	case p.empty != "":
		return verdict{"empty", p.empty}
	}
	return verdict{"EMPTY", expr}
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
		"$__rate_interval", "1m", "$__range", q.span,
	).Replace(expr)
}

// query asks for the value now.
func (q *question) query(ctx context.Context, expr string) ([]series, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	address := strings.TrimSuffix(q.server, "/") + "/api/v1/query?" + url.Values{"query": {expr}}.Encode()
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
		return nil, fmt.Errorf("%s: its value is no vector: %w", expr, err)
	}
	return found, nil
}
