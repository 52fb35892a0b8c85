package prometheus_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// promtool says whether the rules work (make rules). What it cannot know is held here, for
// everybody who has Go: that rules, their tests, the metrics and the runbook fit together.

const (
	rulesFile = "usagebridge.rules.yaml"
	runbook   = "../runbook.md"
	reference = "../reference.md"

	// runbookURL is where people on call read the runbook; the anchor follows.
	runbookURL = "https://github.com/usagebridge/usagebridge/blob/main/deploy/runbook.md#"
)

// rule is a recording rule or an alert.
type rule struct {
	Record      string            `yaml:"record"`
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// title tells an alert from others of its name.
func (r *rule) title() string { return fmt.Sprintf("%s with %v", r.Alert, r.Labels) }

// group is a group of rules, which are evaluated one after the other.
type group struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

// expectation is what a unit test of promtool expects of one alert at one time.
type expectation struct {
	Alert  string `yaml:"alertname"`
	Alerts []struct {
		Labels map[string]string `yaml:"exp_labels"`
	} `yaml:"exp_alerts"`
}

// fires says whether the alert with the labels of r is expected to fire.
func (e *expectation) fires(r *rule) bool {
	for _, firing := range e.Alerts {
		found := true
		for name, value := range r.Labels {
			found = found && firing.Labels[name] == value
		}
		if found {
			return true
		}
	}
	return false
}

// suite is a file of unit tests for promtool.
type suite struct {
	Order []string `yaml:"group_eval_order"`
	Tests []struct {
		Expectations []expectation `yaml:"alert_rule_test"`
	} `yaml:"tests"`
}

func TestEveryAlertSaysWhatAPersonOnCallNeeds(t *testing.T) {
	anchors := anchorsOf(t, runbook)
	for _, r := range alerts(t) {
		for _, problem := range alertProblems(&r, anchors) {
			t.Errorf("%s: %s", r.title(), problem)
		}
	}
}

func TestAnAlertThatSaysTooLittleIsFound(t *testing.T) {
	anchors := map[string]bool{"usagebridgegood": true, "usagebridgeother": true}
	good := func() rule {
		return rule{
			Alert: "UsagebridgeGood", Labels: map[string]string{"severity": "page"},
			Annotations: map[string]string{"summary": "it burns", "runbook_url": runbookURL + "usagebridgegood"},
		}
	}
	for name, test := range map[string]struct {
		spoil func(*rule)
		want  []string
	}{
		"nothing":              {func(*rule) {}, nil},
		"another severity":     {func(r *rule) { r.Labels["severity"] = "critical" }, []string{`severity is "critical", want page or ticket`}},
		"no summary":           {func(r *rule) { r.Annotations["summary"] = " " }, []string{"it has no summary"}},
		"a name of its own":    {func(r *rule) { r.Alert = "Good" }, []string{`its name does not begin with "Usagebridge"`, `runbook_url is "` + runbookURL + `usagebridgegood", want "` + runbookURL + `good"`, "the runbook has no heading Good"}},
		"another's heading":    {func(r *rule) { r.Annotations["runbook_url"] = runbookURL + "usagebridgeother" }, []string{`runbook_url is "` + runbookURL + `usagebridgeother", want "` + runbookURL + `usagebridgegood"`}},
		"an unknown word":      {func(r *rule) { r.Annotations["sumary"] = "x" }, []string{"annotation sumary is none of description, runbook_url, summary"}},
		"an empty description": {func(r *rule) { r.Annotations["description"] = "" }, []string{"its description is empty: say something, or leave it out"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			test.spoil(&r)
			if got := alertProblems(&r, anchors); !slices.Equal(got, test.want) {
				t.Errorf("got problems %q\nwant %q", got, test.want)
			}
		})
	}
}

// alertProblems says what a person on call would miss in an alert.
func alertProblems(r *rule, anchors map[string]bool) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !strings.HasPrefix(r.Alert, "Usagebridge") {
		add("its name does not begin with %q", "Usagebridge")
	}
	if s := r.Labels["severity"]; s != "page" && s != "ticket" {
		add("severity is %q, want page or ticket", s)
	}
	if strings.TrimSpace(r.Annotations["summary"]) == "" {
		add("it has no summary")
	}
	if text, given := r.Annotations["description"]; given && strings.TrimSpace(text) == "" {
		add("its description is empty: say something, or leave it out")
	}
	known := []string{"description", "runbook_url", "summary"}
	for _, name := range slices.Sorted(maps.Keys(r.Annotations)) {
		if !slices.Contains(known, name) {
			add("annotation %s is none of %s", name, strings.Join(known, ", "))
		}
	}
	anchor := anchorOf(r.Alert)
	if got, want := r.Annotations["runbook_url"], runbookURL+anchor; got != want {
		add("runbook_url is %q, want %q", got, want)
	}
	if !anchors[anchor] {
		add("the runbook has no heading %s", r.Alert)
	}
	return problems
}

func TestEveryAlertHasATestInWhichItFiresAndOneInWhichItDoesNot(t *testing.T) {
	expectations := map[string][]expectation{}
	for name, s := range suites(t) {
		for _, test := range s.Tests {
			for _, e := range test.Expectations {
				expectations[e.Alert] = append(expectations[e.Alert], e)
			}
		}
		want := []string{}
		for _, g := range groups(t) {
			want = append(want, g.Name)
		}
		// Else promtool evaluates them in any order, and the tests hold now and then.
		if !slices.Equal(s.Order, want) {
			t.Errorf("%s: group_eval_order is %q, want all groups as they stand in the rules, %q", name, s.Order, want)
		}
	}
	for _, r := range alerts(t) {
		firing, silent := 0, 0
		for _, e := range expectations[r.Alert] {
			if e.fires(&r) {
				firing++
			} else {
				silent++
			}
		}
		if firing == 0 || silent == 0 {
			t.Errorf("%s: the tests have %d times at which it fires and %d at which it does not, want at least one of each", r.title(), firing, silent)
		}
	}
	known := names(t)
	for _, name := range slices.Sorted(maps.Keys(expectations)) {
		if !known[name] {
			t.Errorf("the tests expect something of %s, and there is no such alert", name)
		}
	}
}

func TestEveryHeadingOfTheRunbookHasItsAlertAndAnswersTheSameQuestions(t *testing.T) {
	for _, problem := range runbookProblems(string(read(t, runbook)), names(t)) {
		t.Error(problem)
	}
}

func TestARunbookThatLeavesAQuestionOpenIsFound(t *testing.T) {
	text := "# Runbook\n\n## UsagebridgeGood\n\n**For invoices.** a\n\n**Look.** b\n\n**Do**, in this order: c\n\n**Over when** d\n" +
		"\n## UsagebridgeGone\n\n**For invoices.** a\n\n**Look.** b\n\n**Over when** d\n\n```sh\n## no heading\n```\n"
	want := []string{
		"the runbook has the heading UsagebridgeGone, and there is no such alert",
		"the runbook says nothing of **Do under UsagebridgeGone",
	}
	if got := runbookProblems(text, map[string]bool{"UsagebridgeGood": true}); !slices.Equal(got, want) {
		t.Errorf("got problems %q\nwant %q", got, want)
	}
}

// questions are what somebody who was woken up asks, in the words with which the runbook answers.
var questions = []string{"**For invoices.**", "**Look.**", "**Do", "**Over when**"}

// runbookProblems says where a runbook speaks of no alert, or says too little of one.
func runbookProblems(text string, known map[string]bool) []string {
	var problems []string
	for _, heading := range headings(text)[1:] { // the first is its title
		if !known[heading] {
			problems = append(problems, fmt.Sprintf("the runbook has the heading %s, and there is no such alert", heading))
		}
		_, part, _ := strings.Cut(text, "\n## "+heading+"\n")
		part, _, _ = strings.Cut(part, "\n## Usagebridge")
		for _, question := range questions {
			if !strings.Contains(part, "\n"+question) {
				problems = append(problems, fmt.Sprintf("the runbook says nothing of %s under %s", question, heading))
			}
		}
	}
	return problems
}

// An alert on a metric that nobody exports never fires, which looks like peace.
func TestRulesAndRunbookKnowOnlyMetricsThatExist(t *testing.T) {
	exported := metricsOf(t, reference)
	recorded := map[string]bool{}
	for _, g := range groups(t) {
		for _, r := range g.Rules {
			recorded[r.Record] = true
		}
	}
	if len(exported) < 10 || len(recorded) < 2 {
		t.Fatalf("%s has %d metrics and %s records %d series: they are not read as they should be", reference, len(exported), rulesFile, len(recorded))
	}
	for _, file := range []string{rulesFile, runbook} {
		for _, name := range metricNames(read(t, file)) {
			if !exists(name, exported, recorded) {
				t.Errorf("%s names %s, which is neither in the table of %s nor recorded by a rule", file, name, reference)
			}
		}
	}
}

func TestAMetricThatDoesNotExistIsFound(t *testing.T) {
	exported := map[string]bool{"usagebridge_lag_seconds": true, "usagebridge_count": true}
	recorded := map[string]bool{"vendor:usagebridge_lag_seconds:max": true}
	text := `max by (vendor) (usagebridge_lag_seconds_bucket{le="60"}) - vendor:usagebridge_lag_seconds:max
		> usagebridge_lags_seconds or vendor:usagebridge_lag_seconds:min / usagebridge_count + up{job="usagebridge"}`
	var got []string
	for _, name := range metricNames([]byte(text)) {
		if !exists(name, exported, recorded) {
			got = append(got, name)
		}
	}
	if want := []string{"usagebridge_lags_seconds", "vendor:usagebridge_lag_seconds:min"}; !slices.Equal(got, want) {
		t.Errorf("got %q as unknown, want %q", got, want)
	}
}

var metricPattern = regexp.MustCompile(`[a-z_]+:usagebridge_[a-z0-9_]+:[a-z0-9_]+|\busagebridge_[a-z0-9_]+`)

// metricNames are the names of exported and recorded series in a text, each once.
func metricNames(text []byte) []string {
	found := map[string]bool{}
	for _, name := range metricPattern.FindAll(text, -1) {
		found[string(name)] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// exists knows the series that a histogram consists of.
func exists(name string, exported, recorded map[string]bool) bool {
	if exported[name] || recorded[name] {
		return true
	}
	for _, part := range []string{"_bucket", "_count", "_sum"} {
		if whole, is := strings.CutSuffix(name, part); is && exported[whole] {
			return true
		}
	}
	return false
}

func metricsOf(t *testing.T, file string) map[string]bool {
	t.Helper()
	_, table, begins := strings.Cut(string(read(t, file)), "<!-- metrics:begin -->")
	table, _, ends := strings.Cut(table, "<!-- metrics:end -->")
	if !begins || !ends {
		t.Fatalf("%s has no table of metrics", file)
	}
	found := map[string]bool{}
	for line := range strings.Lines(table) {
		if name, _, isRow := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); isRow {
			found[name] = true
		}
	}
	return found
}

func groups(t *testing.T) []group {
	t.Helper()
	var file struct {
		Groups []group `yaml:"groups"`
	}
	decode(t, rulesFile, true, &file)
	return file.Groups
}

func alerts(t *testing.T) []rule {
	t.Helper()
	var found []rule
	for _, g := range groups(t) {
		for _, r := range g.Rules {
			if r.Alert != "" {
				found = append(found, r)
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no alert", rulesFile)
	}
	return found
}

// names are those of the alerts.
func names(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, r := range alerts(t) {
		found[r.Alert] = true
	}
	return found
}

func suites(t *testing.T) map[string]suite {
	t.Helper()
	files, err := filepath.Glob("*.test.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d files of unit tests and error %v, want at least one", len(files), err)
	}
	found := map[string]suite{}
	for _, name := range files {
		var s suite
		decode(t, name, false, &s)
		found[name] = s
	}
	return found
}

// decode reads a YAML file; if it is strict every field has to be known.
func decode(t *testing.T, file string, strict bool, into any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(read(t, file)))
	d.KnownFields(strict)
	if err := d.Decode(into); err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// headings are those of a Markdown document outside of its blocks of code.
func headings(text string) []string {
	var found []string
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if hashes, title, is := strings.Cut(line, " "); is && !code && hashes != "" && strings.Trim(hashes, "#") == "" {
			found = append(found, strings.TrimSpace(title))
		}
	}
	return found
}

func anchorsOf(t *testing.T, file string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, heading := range headings(string(read(t, file))) {
		found[anchorOf(heading)] = true
	}
	return found
}

// anchorOf is the anchor that GitHub gives a heading of letters, digits, spaces and hyphens.
func anchorOf(heading string) string {
	return strings.ReplaceAll(strings.ToLower(heading), " ", "-")
}
