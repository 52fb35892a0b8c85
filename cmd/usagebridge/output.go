package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// printJSON writes one value as indented JSON to stdout.
func (c *cli) printJSON(value any) error {
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// table writes rows in aligned columns to stdout.
func (c *cli) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	if len(header) > 0 {
		_, _ = fmt.Fprintln(w, strings.Join(header, "\t"))
	}
	for _, row := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// printable keeps control characters of other people's ids off a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '�'
		}
		return r
	}, text)
}

// ago says how long ago a time was, roughly, as people do.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// parseIntegration reads vendor/organization. The organization may contain
// slashes: it is the vendor's own id.
func parseIntegration(name string) (vendor, organization string, err error) {
	vendor, organization, found := strings.Cut(name, "/")
	if !found || vendor == "" || organization == "" {
		return "", "", usagef("integration %q: want vendor/organization, such as acme/msp-0042", name)
	}
	return vendor, organization, nil
}
