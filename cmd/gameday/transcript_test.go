//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAnAlertIsAboutTheLabelsThatAScenarioNames(t *testing.T) {
	for name, c := range map[string]struct {
		labels, where map[string]string
		want          bool
	}{
		"none are named":   {map[string]string{"vendor": "acme"}, nil, true},
		"all are there":    {map[string]string{"vendor": "acme", "check": "a"}, map[string]string{"check": "a"}, true},
		"one is different": {map[string]string{"vendor": "acme", "check": "b"}, map[string]string{"check": "a", "vendor": "acme"}, false},
		"one is missing":   {map[string]string{"vendor": "acme"}, map[string]string{"check": "a"}, false},
	} {
		s := scenario{where: c.where}
		if got := s.about(c.labels); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}

func TestATranscriptShowsCommandsAsTheyAreTypedAndAlertsAsTheyAreRendered(t *testing.T) {
	var all transcript
	c := all.chapter(&scenario{title: "It breaks"})
	c.note("It breaks at %d %%.", 100)
	c.fired("Late page", 12*time.Second, firing{
		Labels: map[string]string{"vendor": "acme", "alertname": "Late"}, Annotations: map[string]string{"summary": "acme: late"},
	})
	c.command([]string{"integrations", "resume", "acme/msp-1", "--why", "it's mended", ""}, "resumed\n\n")
	path := filepath.Join(t.TempDir(), "transcript.md")
	if err := all.write(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `# Every alert, provoked

The times in the rules were scaled down to seconds for this, hence the ages that the alerts tell.

## It breaks

It breaks at 100 %.

**Late page** fired after 12 s:

> summary: acme: late
>
> labels: alertname=Late vendor=acme

` + "```console\n$ usagebridge integrations resume acme/msp-1 --why 'it'\\''s mended' ''\nresumed\n```\n"
	if string(got) != want {
		t.Errorf("transcript\n got %s\nwant %s", got, want)
	}
}
