package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
)

func (c *cli) dlqExport() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write dead letters as NDJSON, each with its event byte by byte",
		Long: `Writes one line of JSON for each dead letter, the oldest first, with all that is
known of it. The event is as it was published: body is its text, or body_base64 its
bytes when they are no text. Headers that are no text are a query string in
headers_query, and such a subject is percent-encoded in subject_escaped. Nothing
is removed.`,
		Example: `  usagebridge dlq export --reason invalid > invalid.ndjson
  usagebridge dlq export --integration acme/msp-1 --since 7d --out msp-1.ndjson`,
		Args: cobra.NoArgs,
	}
	choice := c.letterFlags(cmd)
	cmd.Flags().StringVar(&out, "out", "", "write to this file instead of stdout; it appears once it is complete")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := choice.filter(time.Now())
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("out") && out == "" {
			return usagef("--out is empty: want the name of a file, or no --out for stdout")
		}
		return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
			exported := 0
			write := func(w io.Writer) (err error) {
				exported, err = a.exportLetters(ctx, filter, w)
				return err
			}
			if out == "" {
				err = write(c.stdout)
			} else {
				err = writeWhole("--out", out, write)
			}
			if err != nil {
				return err
			}
			c.say("%s exported", plural(exported, "dead letter", "dead letters"))
			return nil
		})
	}
	return cmd
}

// letterLine is a dead letter as a line of an export: everything, exactly.
type letterLine struct {
	letterView

	Vendor         string              `json:"vendor"`
	Organization   string              `json:"organization"`
	Stream         string              `json:"stream"`
	Sequence       uint64              `json:"sequence"`
	Index          int                 `json:"index"`
	Figure         string              `json:"figure,omitempty"`
	Deliveries     int                 `json:"deliveries,omitempty"`
	SubjectEscaped string              `json:"subject_escaped,omitempty"` // percent-encoded, if the subject is no text
	Headers        map[string][]string `json:"headers,omitempty"`         // or, if they are no text:
	HeadersQuery   string              `json:"headers_query,omitempty"`   // as a query string
	Body           *string             `json:"body,omitempty"`            // or, if it is no text:
	BodyBase64     []byte              `json:"body_base64,omitempty"`
}

func exportedLetter(l *broker.StoredLetter) letterLine {
	line := letterLine{
		letterView: viewLetter(l), Vendor: l.Vendor, Organization: l.Organization, Stream: l.Original.Stream,
		Sequence: l.Original.Sequence, Index: l.Index, Figure: l.Figure, Deliveries: l.Original.Deliveries, Headers: l.Original.Header,
	}
	if !utf8.ValidString(l.Original.Subject) {
		line.SubjectEscaped = url.PathEscape(l.Original.Subject)
	}
	if !areText(l.Original.Header) {
		line.Headers, line.HeadersQuery = nil, url.Values(l.Original.Header).Encode()
	}
	if utf8.Valid(l.Original.Data) {
		text := string(l.Original.Data)
		line.Body = &text
	} else {
		line.BodyBase64 = l.Original.Data
	}
	return line
}

// areText reports whether JSON can hold the headers exactly.
func areText(headers map[string][]string) bool {
	for name, values := range headers {
		for _, text := range append([]string{name}, values...) {
			if !utf8.ValidString(text) {
				return false
			}
		}
	}
	return true
}

// exportLetters writes the letters and says how many there are.
func (a *app) exportLetters(ctx context.Context, f deadletter.Filter, w io.Writer) (int, error) {
	buffered := bufio.NewWriter(w)
	encoder := json.NewEncoder(buffered)
	encoder.SetEscapeHTML(false)
	n := 0
	err := a.letters(ctx, f, func(l broker.StoredLetter) error {
		n++
		return encoder.Encode(exportedLetter(&l))
	})
	if err != nil {
		return n, fmt.Errorf("export dead letters: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return n, fmt.Errorf("export dead letters: %w", err)
	}
	return n, nil
}
