package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

//go:generate go test -run TestTheTablesOfTheReferenceAreCurrent -update .

var update = flag.Bool("update", false, "write the generated parts of the reference")

const (
	readme    = "../../README.md"
	reference = "../../deploy/reference.md"
)

func TestTheReadmeIsShort(t *testing.T) {
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(text, []byte("\n")); lines > 250 {
		t.Errorf("README.md has %d lines, want at most 250", lines)
	}
}

func TestTheTablesOfTheReferenceAreCurrent(t *testing.T) {
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	var config, metrics bytes.Buffer
	writeConfigTable(&config)
	writeMetricsTable(t, &metrics)
	want := replaceBetween(t, string(text), "config", config.String())
	want = replaceBetween(t, want, "metrics", metrics.String())
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("deploy/reference.md: the tables differ from the code; run `make generate`")
	}
}

// replaceBetween replaces what stands between the markers of a part.
func replaceBetween(t *testing.T, text, part, content string) string {
	t.Helper()
	begin, end := "<!-- "+part+":begin -->\n", "<!-- "+part+":end -->"
	before, rest, found := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("the document has no part between %q and %q", begin, end)
	}
	return before + begin + content + end + after
}

// writeConfigTable writes the table of variables.
func writeConfigTable(w io.Writer) {
	_, _ = fmt.Fprintln(w, "| variable | default | meaning |\n| --- | --- | --- |")
	for _, s := range (&Config{}).settings() {
		value := ""
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		_, _ = fmt.Fprintf(w, "| `%s` | %s | %s |\n", strings.TrimPrefix(s.Name, envPrefix+"_"), value, s.Desc)
	}
}

var descPattern = regexp.MustCompile(`fqName: "([^"]+)", help: "((?:[^"\\]|\\.)*)",(?: unit: "[^"]*",)? constLabels: {.*}, variableLabels: {([^}]*)}`)

// writeMetricsTable lists every metric that a worker registers.
func writeMetricsTable(t *testing.T, w io.Writer) {
	t.Helper()
	registry := newRegistry()
	worker.NewMetrics(registry)
	status.NewMetrics(registry)
	registry.MustRegister(newSurvey(nil, nil, nil))
	console.New(console.Config{
		Gatherer: registry, Registerer: registry, Logger: slog.New(slog.DiscardHandler),
		Ready:   func() error { return nil },
		Publish: func(context.Context, *event.Event) (console.Receipt, error) { return console.Receipt{}, nil },
	})
	descs := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descs)
		close(descs)
	}()
	var rows []string
	for d := range descs {
		m := descPattern.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("metric description %q is not understood", d)
		}
		if !strings.HasPrefix(m[1], "usagebridge_") {
			continue // of the Go runtime and the process, as every Go program has them
		}
		rows = append(rows, "| `"+m[1]+"` | "+strings.ReplaceAll(m[3], ",", ", ")+" | "+m[2]+" |\n")
	}
	slices.Sort(rows)
	_, _ = io.WriteString(w, "| metric | labels | meaning |\n| --- | --- | --- |\n"+strings.Join(rows, ""))
}
