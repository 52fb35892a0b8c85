package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Labels that the scrape adds, and the metrics of every process that is scraped.
var (
	scraped = []string{"instance", "job"}
	foreign = map[string][]string{"up": {}, "process_cpu_seconds_total": {}, "process_resident_memory_bytes": {}}
)

var (
	functions = []string{"clamp_min", "count", "histogram_quantile", "increase", "max", "min", "rate", "round", "scalar", "sum", "topk"}
	operators = []string{"bool", "or"}
	builtin   = []string{"__rate_interval", "__range", "__url_time_range"}
)

func TestEveryQueryAsksForWhatTheProgramExposes(t *testing.T) {
	metrics := exposed(t)
	declared := func(p *page) []string {
		names := slices.Clone(builtin)
		for _, c := range p.Templating.List {
			names = append(names, c.Name)
		}
		return names
	}
	variable := regexp.MustCompile(`\$(\w+)`)
	for file, p := range readPages(t) {
		for i := range p.Panels {
			s := &p.Panels[i]
			for _, target := range s.Targets {
				for _, problem := range judge(target.Expr, metrics) {
					t.Errorf("%s: %s: %s", file, s.Title, problem)
				}
				for _, m := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.Legend, -1) {
					by := regexp.MustCompile(`by \([^)]*\b` + m[1] + `\b`)
					if !by.MatchString(target.Expr) && !slices.Contains(scraped, m[1]) {
						t.Errorf("%s: %s: got the legend %q of %s, which has no %s", file, s.Title, target.Legend, target.Expr, m[1])
					}
				}
				for _, text := range []string{target.Expr, target.Legend, s.Title, s.Description, s.Options.Content} {
					for _, m := range variable.FindAllStringSubmatch(text, -1) {
						if !slices.Contains(declared(p), m[1]) {
							t.Errorf("%s: %s: got $%s in %q, want one of %q", file, s.Title, m[1], text, declared(p))
						}
					}
				}
			}
		}
	}
}

func TestAQueryForWhatIsNotExposedIsFound(t *testing.T) {
	metrics := map[string][]string{
		"usagebridge_a":         {"vendor"},
		"usagebridge_b":         {"vendor", "reason"},
		"usagebridge_c_seconds": {"vendor"},
	}
	tests := []struct{ name, expr, want string }{
		{"all is well", `sum by (vendor) (rate(usagebridge_a{vendor=~"$vendor"}[5m])) / 2`, ""},
		{"a bucket has its bound", `histogram_quantile(0.99, sum by (le) (rate(usagebridge_c_seconds_bucket[$__rate_interval])))`, ""},
		{"the scrape's labels", `sum by (instance) (usagebridge_a{job="usagebridge"})`, ""},
		{"a metric that is not there", `sum(usagebridge_z)`, "usagebridge_z is neither exposed nor a function known here"},
		{"a bucket has no other label", `usagebridge_a_bucket{code="1"}`, "usagebridge_a_bucket has no label code"},
		{"a label that is not there", `usagebridge_a{reason="x"}`, "usagebridge_a has no label reason"},
		{"grouped by a label that is not there", `sum by (reason) (usagebridge_a)`, "usagebridge_a has no label reason"},
		{"one of two grouped by it", `sum by (vendor, reason) (usagebridge_b * usagebridge_a)`, "usagebridge_a has no label reason"},
		{"grouped behind", `sum(usagebridge_a) by (vendor)`, "want by (LABELS) before what is grouped"},
		{"a count has no bound", `sum by (le) (usagebridge_c_seconds_count)`, "usagebridge_c_seconds_count has no label le"},
		{"a bracket too few", `sum(usagebridge_a`, "brackets do not match"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(judge(tt.expr, metrics), "; ")
			if got == "" && tt.want == "" {
				return
			}
			if tt.want == "" || !strings.Contains(got, tt.want) {
				t.Errorf("judge(%s) says %q, want %q", tt.expr, got, tt.want)
			}
		})
	}
}

// exposed are the metrics of the generated table, with their labels.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../reference.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(usagebridge_[a-z_]+)` \\| ([a-z_, ]*) \\|").FindAllStringSubmatch(string(text), -1) {
		metrics[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(metrics) < 20 {
		t.Fatalf("got %d metrics from deploy/reference.md, want its whole table", len(metrics))
	}
	return metrics
}

var tokens = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\[[^]]*\]|\$?[a-zA-Z_]\w*|[0-9.]+|[-+*/%^]|[<>=!~]+|[(){},]`)

// judge says what is wrong with the names in a query: metrics that are not
// exposed, and labels that theirs do not have. It knows the PromQL that the
// boards are written in, and nothing of types: Prometheus knows those.
func judge(expr string, metrics map[string][]string) []string {
	var problems []string
	list := tokens.FindAllString(expr, -1)
	for i := 0; i < len(list); i++ {
		switch token := list[i]; {
		case token == "by":
			labels, after := names(list, i+1)
			end := closing(list, after)
			if end < 0 || i == 0 || !slices.Contains(functions, list[i-1]) {
				problems = append(problems, "want by (LABELS) before what is grouped: "+expr)
				continue
			}
			for _, metric := range list[after:end] {
				problems = append(problems, lacking(metric, labels, metrics)...)
			}
			i = after - 1
		case token == "{":
			end := slices.Index(list[i:], "}") + i
			if end < i || i == 0 {
				return append(problems, "brackets do not match: "+expr)
			}
			for j := i + 1; j < end; j += 4 { // label, operator, value, comma
				problems = append(problems, lacking(list[i-1], list[j:j+1], metrics)...)
			}
			i = end
		case token == "(" && closing(list, i) < 0:
			return append(problems, "brackets do not match: "+expr)
		case isName(token) && labelsOf(token, metrics) == nil && !slices.Contains(functions, token) && !slices.Contains(operators, token):
			problems = append(problems, token+" is neither exposed nor a function known here: "+expr)
		}
	}
	return problems
}

func isName(token string) bool { return regexp.MustCompile(`^[a-zA-Z_]`).MatchString(token) }

// names reads a list of labels in brackets, and says where it ends.
func names(list []string, from int) (labels []string, after int) {
	end := closing(list, from)
	if end < 0 {
		return nil, len(list)
	}
	for _, token := range list[from+1 : end] {
		if token != "," {
			labels = append(labels, token)
		}
	}
	return labels, end + 1
}

// closing is where the bracket that opens there closes, or less than 0.
func closing(list []string, from int) int {
	depth := 0
	for i := from; i < len(list); i++ {
		switch list[i] {
		case "(":
			depth++
		case ")":
			depth--
		}
		if depth == 0 {
			if i == from {
				return -1
			}
			return i
		}
	}
	return -1
}

// labelsOf are the labels of a metric, or of a part of a histogram; nil: there is none.
func labelsOf(metric string, metrics map[string][]string) []string {
	for _, known := range []map[string][]string{metrics, foreign} {
		if labels, found := known[metric]; found {
			return slices.Concat(labels, scraped)
		}
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, found := strings.CutSuffix(metric, suffix); found && metrics[base] != nil {
			labels := slices.Concat(metrics[base], scraped)
			if suffix == "_bucket" {
				labels = append(labels, "le")
			}
			return labels
		}
	}
	return nil
}

func lacking(metric string, labels []string, metrics map[string][]string) []string {
	has := labelsOf(metric, metrics)
	if has == nil {
		return nil
	}
	var problems []string
	for _, label := range labels {
		if !slices.Contains(has, label) {
			problems = append(problems, fmt.Sprintf("%s has no label %s; it has %s", metric, label, strings.Join(has, ", ")))
		}
	}
	return problems
}
