package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// writeWhole writes the file that a flag names. It is never seen half written,
// and stays once it is there. Nobody but its owner may read it: it is about
// people's customers.
func writeWhole(flag, path string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return usagef("%s %s: %w", flag, path, err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // it is gone already if all went well
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return usagef("%s %s: %w", flag, path, err)
	}
	return nil
}

// writing writes what is in memory already.
func writing(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}
