package publisher

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// MaxLine is the longest line of a file, in bytes, without its line end. In
// CSV it bounds a record, whose quoted fields may span lines, to within 64 KiB.
const MaxLine = 1 << 20

// Defaults says what the rows of a CSV do not. Vendor, Organization and Source
// are required.
type Defaults struct {
	Vendor       string
	Organization string
	Source       string
	// Time is when figures without a time of their own were true. Zero
	// means the moment reading starts: one time for the whole file.
	Time time.Time
	// Backfill is the backfill that all rows belong to (event.CheckBackfill);
	// empty for none.
	Backfill string
}

// LineError is why a line of a file is no event. Reading goes on after it. Any
// other error that a reader yields ended the reading: the rest of the file was
// not looked at.
type LineError struct {
	Line    int    // from 1
	Column  string // of a CSV; empty for the whole line
	Value   string // the offending one, cut; empty when Problem says enough
	Problem string
	Want    string // what would be right; may be empty
	Err     error  // the cause; may be nil
}

// Error writes `line 7, column unitCount: "x" problem (want …)`.
func (e *LineError) Error() string {
	text := fmt.Sprintf("line %d", e.Line)
	if e.Column != "" {
		text += ", column " + e.Column
	}
	text += ": "
	if e.Value != "" {
		text += fmt.Sprintf("%q ", e.Value)
	}
	text += e.Problem
	if e.Want != "" {
		text += " (want " + e.Want + ")"
	}
	return text
}

// Unwrap is the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Permanent is true: the line stays wrong until somebody corrects it.
func (e *LineError) Permanent() bool { return true }

// cut shortens a value for an error message.
func cut(value string) string {
	const most = 60
	if len(value) <= most {
		return value
	}
	end := most
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end] + "…"
}

func (d Defaults) check() error {
	var problems []error
	if err := event.CheckID(d.Vendor); err != nil {
		problems = append(problems, fmt.Errorf("vendor id %w", err))
	}
	if err := event.CheckID(d.Organization); err != nil {
		problems = append(problems, fmt.Errorf("organization id %w", err))
	}
	if d.Source == "" {
		problems = append(problems, errors.New("source is empty"))
	}
	if d.Backfill != "" {
		problems = append(problems, event.CheckBackfill(d.Backfill))
	}
	err := inLine(problems...)
	if err == nil {
		return nil
	}
	return fmt.Errorf("defaults: %w: the rows do not name it", err)
}

// event makes a checked event of a row's data.
func (d Defaults) event(data event.Data, at time.Time) (*event.Event, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an event id: %w", err)
	}
	e := &event.Event{
		ID: id.String(), Source: d.Source, Type: typeOf(data), Time: at,
		Vendor: d.Vendor, Organization: d.Organization, Data: data, Backfill: d.Backfill,
	}
	if err := inLine(e.Check()); err != nil {
		return nil, err
	}
	return e, nil
}

// newLineReader reads text, skipping a UTF-8 byte order mark.
func newLineReader(r io.Reader) *bufio.Reader {
	b := bufio.NewReaderSize(r, 64<<10)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = b.Discard(len(mark)) // peeked: it is there
	}
	return b
}
