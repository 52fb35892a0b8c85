//go:build unix

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// transcript is what was done and seen, for people.
type transcript struct{ chapters []*chapter }

// chapter is that of one scenario.
type chapter struct {
	title string
	text  strings.Builder
}

func (t *transcript) chapter(s *scenario) *chapter {
	c := &chapter{title: s.title}
	t.chapters = append(t.chapters, c)
	return c
}

// note adds a paragraph.
func (c *chapter) note(format string, args ...any) {
	say(&c.text, strings.ReplaceAll(format, "\n", " ")+"\n\n", args...)
}

// command adds a command with what it printed.
func (c *chapter) command(args []string, output string) {
	say(&c.text, "```console\n$ usagebridge %s\n%s\n```\n\n", quoted(args), strings.TrimRight(output, "\n"))
}

// quoted writes arguments as a shell reads them.
func quoted(args []string) string {
	words := slices.Clone(args)
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\"'*$&|;<>()`\\") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// fired adds an alert as Prometheus has rendered it.
func (c *chapter) fired(id string, after time.Duration, f firing) {
	say(&c.text, "**%s** fired after %.0f s:\n\n", id, after.Seconds())
	for _, name := range []string{"summary", "description"} {
		if text := f.Annotations[name]; text != "" {
			say(&c.text, "> %s: %s\n>\n", name, text)
		}
	}
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(f.Labels)) {
		labels = append(labels, name+"="+f.Labels[name])
	}
	say(&c.text, "> labels: %s\n\n", strings.Join(labels, " "))
}

// write writes the transcript; no path: it is not wanted.
func (t *transcript) write(path string) error {
	if path == "" {
		return nil
	}
	var b strings.Builder
	b.WriteString("# Every alert, provoked\n\nThe times in the rules were scaled down to seconds for this, hence the ages that the alerts tell.\n")
	for _, c := range t.chapters {
		say(&b, "\n## %s\n\n%s", c.title, strings.TrimRight(c.text.String(), "\n")+"\n")
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the transcript: %w", err)
	}
	return nil
}
