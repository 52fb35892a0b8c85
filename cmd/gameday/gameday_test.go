//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nothing is started before it is known that every alert can be provoked.
func TestWhatCannotBePlayedIsSaidBeforeAnythingIsStarted(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("groups: [{name: a, rules: [{alert: Unheard, expr: up == 0}]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options options
		want    string
	}{
		"no such file":              {options{rules: rules + ".not"}, "no such file"},
		"an alert without scenario": {options{rules: rules}, "Unheard: no scenario provokes it"},
		"no expression":             {options{rules: rules, only: "("}, `-only "("`},
	} {
		var said strings.Builder
		got := gameday(t.Context(), c.options, io.Discard, &said)
		if got != codeUse || !strings.Contains(said.String(), c.want) {
			t.Errorf("%s: exit code %d, %q; want %d and %q", name, got, said.String(), codeUse, c.want)
		}
	}
}
