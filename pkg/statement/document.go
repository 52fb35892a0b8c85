package statement

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// columns are the names in the first line of a CSV statement.
var columns = []string{
	"account", "service", "units", "event_id", "event_source", "event_time", "event_place", "event_arrived_at",
	"accepted_units", "accepted_at", "request_id", "differs", "figure_age_seconds", "delivery_age_seconds",
	"state", "hold_reason", "complete", "notes",
}

// CSV writes the rows as a plain table (RFC 4180: commas, CRLF, a header
// line). What is known of the whole stands in the other formats and in the
// signature. Texts that a spreadsheet would take for a formula, those that
// begin with = + - @ or a tab or carriage return, get a ' in front; so does a
// text that begins with ' itself, so that the first ' can always be taken off.
func (s *Statement) CSV() ([]byte, error) {
	var b bytes.Buffer
	err := writeLine(&b, columns)
	for i := range s.Rows {
		err = errors.Join(err, writeLine(&b, s.Rows[i].record()))
	}
	if err != nil {
		return nil, fmt.Errorf("write statement as CSV: %w", err)
	}
	return b.Bytes(), nil
}

// writeLine ends the line itself: a csv.Writer that does so takes every
// carriage return out of the texts, too.
func writeLine(b *bytes.Buffer, record []string) error {
	w := csv.NewWriter(b)
	if err := w.Write(record); err != nil {
		return err
	}
	w.Flush()
	b.Truncate(b.Len() - len("\n"))
	b.WriteString("\r\n")
	return w.Error()
}

func (r *Row) record() []string {
	return []string{
		harmless(r.Account), harmless(r.Service), r.Units, harmless(r.EventID), harmless(r.Source), instant(r.EventTime), r.Place, instant(r.ArrivedAt),
		r.Accepted, instant(r.AcceptedAt), harmless(r.RequestID), strconv.FormatBool(r.Differs), seconds(r.FigureAge), seconds(r.DeliveryAge),
		r.State, r.Reason, strconv.FormatBool(r.Complete), harmless(strings.Join(r.Notes, "; ")),
	}
}

// harmless keeps a text from being run as a formula.
func harmless(text string) string {
	if text != "" && strings.IndexByte("=+-@\t\r'", text[0]) >= 0 {
		return "'" + text
	}
	return text
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func seconds(age *int64) string {
	if age == nil {
		return ""
	}
	return strconv.FormatInt(*age, 10)
}

// JSON writes the whole statement as one indented document.
func (s *Statement) JSON() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(s); err != nil {
		return nil, fmt.Errorf("write statement as JSON: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads what [Statement.JSON] writes. It trusts no sum: they are counted
// again, and a document whose own are others is refused.
func Parse(document []byte) (*Statement, error) {
	var read Statement
	decoder := json.NewDecoder(bytes.NewReader(document))
	if err := decoder.Decode(&read); err != nil {
		return nil, fmt.Errorf("it is no JSON (%w): want a statement that was made with --format json", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind the JSON document: want a statement alone")
	}
	if read.Format != Format {
		return nil, fmt.Errorf("it is JSON of the format %q: want %q", read.Format, Format)
	}
	if read.Vendor == "" || read.Organization == "" || read.AsOf.IsZero() {
		return nil, errors.New("it does not say of which integration or as of when it is: want vendor, organization and as_of")
	}
	s, err := New(read)
	if err != nil {
		return nil, err
	}
	if s.Keys != read.Keys || s.Differing != read.Differing || s.Incomplete != read.Incomplete || !slices.Equal(s.Services, read.Services) {
		return nil, errors.New("its sums are not those of its rows: it was altered")
	}
	return s, nil
}
