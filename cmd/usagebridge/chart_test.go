package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

//go:generate go test -run TestTheChartHasTheRulesAndBoardsOfDeploy -update .

const (
	deploy = "../../deploy"
	chart  = deploy + "/helm/usagebridge"
)

// chartCopies says which file of the chart is a copy of which: Helm packs only
// what is below a chart, and people without Kubernetes need the originals.
func chartCopies(t *testing.T) map[string]string {
	t.Helper()
	copies := map[string]string{}
	for pattern, dir := range map[string]string{
		deploy + "/prometheus/usagebridge.rules.yaml": chart + "/files",
		deploy + "/grafana/*.json":                    chart + "/files/dashboards",
	} {
		originals, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, original := range originals {
			copies[filepath.Join(dir, filepath.Base(original))] = original
		}
	}
	return copies
}

func TestTheChartHasTheRulesAndBoardsOfDeploy(t *testing.T) {
	copies := chartCopies(t)
	var present []string
	for _, pattern := range []string{chart + "/files/*.yaml", chart + "/files/dashboards/*.json"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		present = append(present, found...)
	}
	for _, path := range present {
		if copies[filepath.Clean(path)] != "" {
			continue
		}
		if *update {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Errorf("%s is a copy of nothing; run `make generate`", path)
	}
	for _, path := range slices.Sorted(maps.Keys(copies)) {
		want, err := os.ReadFile(copies[path])
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, want, 0o600)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from %s (%v); run `make generate`", path, copies[path], err)
		}
	}
}

func TestTheChartSetsOnlyVariablesThatThereAre(t *testing.T) {
	known := map[string]bool{}
	for _, s := range (&Config{}).settings() {
		known[s.Name] = true
	}
	templates, err := filepath.Glob(chart + "/templates/*")
	if err != nil || len(templates) == 0 {
		t.Fatalf("templates of the chart: got %v and %v, want some", templates, err)
	}
	named := 0
	for _, path := range templates {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:name: |"variable" ")(?:USAGEBRIDGE_)?([A-Z][A-Z_]+[A-Z])\b`).FindAllSubmatch(text, -1) {
			name := string(m[1])
			if name == "GOMEMLIMIT" {
				continue // Go's own
			}
			if named++; !known[envPrefix+"_"+name] {
				t.Errorf("%s sets %s_%s, which is no variable of this version", path, envPrefix, name)
			}
		}
	}
	if named < 10 {
		t.Errorf("variables in the templates: got %d, want 10 or more: does the pattern still find them?", named)
	}
}
