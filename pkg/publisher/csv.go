package publisher

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// ReadCounts reads a CSV of unit counts as usage.count.v1 events: columns
// account, service, unitCount and, if there, time (RFC 3339).
//
// For all three CSV readers: the first row names the columns, in any order and
// case; unknown columns are ignored. Ids and names are kept byte for byte,
// surrounding blanks included. The file is UTF-8, with or without a byte order
// mark, its lines end in LF or CRLF, its separator is the comma, and fields may
// be quoted (RFC 4180). It is read as it is consumed, never as a whole. When a
// key occurs twice, both events are yielded, and publishing keeps their order,
// so of two rows of one time the later wins.
//
// A row that is no event is yielded with a *LineError. A wrong header, wrong
// Defaults, an unreadable file, a record longer than MaxLine and a quote that
// swallows lines end the reading with one Record that carries the error.
func ReadCounts(r io.Reader, d Defaults) iter.Seq[Record] {
	return readTable(r, d, table{"counts", []string{"account", "service", "unitCount"}, []string{"time"}, countOf})
}

// ReadAccounts reads a CSV of accounts as catalog.account.v1 events: columns
// id, name and, if there, externalId and description. See ReadCounts.
func ReadAccounts(r io.Reader, d Defaults) iter.Seq[Record] {
	return readTable(r, d, table{"accounts", []string{"id", "name"}, []string{"externalId", "description"}, accountOf})
}

// ReadServices reads a CSV of services as catalog.service.v1 events: columns
// id, name and, if there, description. See ReadCounts.
func ReadServices(r io.Reader, d Defaults) iter.Seq[Record] {
	return readTable(r, d, table{"services", []string{"id", "name"}, []string{"description"}, serviceOf})
}

// table is a kind of CSV.
type table struct {
	name     string
	required []string
	optional []string
	parse    func(row) (event.Data, error)
}

// row is one record of a table by column name; absent columns read as empty.
type row map[string]string

func countOf(r row) (event.Data, error) {
	units, err := event.ParseUnits(r["unitCount"])
	if err != nil {
		return nil, &LineError{
			Column: "unitCount", Value: r["unitCount"], Problem: err.Error(),
			Want: "a decimal from 0 to 1e12 with at most 6 decimals, such as 42.5", Err: err,
		}
	}
	return event.Count{AccountID: r["account"], ServiceID: r["service"], UnitCount: units}, nil
}

func accountOf(r row) (event.Data, error) {
	return event.Account{AccountID: r["id"], Name: r["name"], ExternalID: r["externalId"], Description: r["description"]}, nil
}

func serviceOf(r row) (event.Data, error) {
	return event.Service{ServiceID: r["id"], Name: r["name"], Description: r["description"]}, nil
}

func readTable(r io.Reader, d Defaults, t table) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		if err := d.check(); err != nil {
			yield(Record{Number: 1, Err: fmt.Errorf("read CSV of %s: %w", t.name, err)})
			return
		}
		if d.Time.IsZero() {
			d.Time = time.Now()
		}
		s := &sheet{table: t, defaults: d, source: &bounded{reader: newLineReader(r)}}
		s.csv = csv.NewReader(s.source)
		s.csv.ReuseRecord, s.csv.FieldsPerRecord = true, -1
		if err := s.readHeader(); err != nil {
			yield(Record{Number: 1, Err: fmt.Errorf("read CSV of %s: %w", t.name, err)})
			return
		}
		for {
			record, more := s.next()
			if record != (Record{}) && !yield(record) || !more {
				return
			}
		}
	}
}

// sheet is a CSV being read.
type sheet struct {
	table    table
	defaults Defaults
	source   *bounded
	csv      *csv.Reader
	width    int            // columns of the header
	at       map[string]int // column name to its place
	line     int            // of the record read last
}

func (s *sheet) readHeader() error {
	header, err := s.csv.Read()
	columns := strings.Join(s.table.required, ", ") + " and optionally " + strings.Join(s.table.optional, ", ")
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it is empty: want a header row with the columns %s", columns)
	}
	if err != nil {
		return fmt.Errorf("header row: %w", err)
	}
	s.width, s.at = len(header), map[string]int{}
	s.line, _ = s.csv.FieldPos(0)
	var missing []string
	for _, name := range slices.Concat(s.table.required, s.table.optional) {
		for i, found := range header {
			if !strings.EqualFold(found, name) {
				continue
			}
			if _, twice := s.at[name]; twice {
				return fmt.Errorf("header row: column %s occurs twice: keep the one that counts", name)
			}
			s.at[name] = i
		}
		if _, found := s.at[name]; !found && slices.Contains(s.table.required, name) {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	hint := ""
	if len(header) == 1 && strings.ContainsAny(header[0], ";\t") {
		hint = ", separated by commas"
	}
	return fmt.Errorf("header row: no column %s: found %s, want %s%s", strings.Join(missing, ", "), cut(fmt.Sprintf("%q", header)), columns, hint)
}

// next is the next record; more is false when it is the last, or when there is
// none and record is zero.
func (s *sheet) next() (record Record, more bool) {
	s.source.spent = 0
	fields, err := s.csv.Read()
	if errors.Is(err, io.EOF) {
		return Record{}, false
	}
	if err != nil {
		return s.unreadable(err)
	}
	s.line, _ = s.csv.FieldPos(0)
	e, err := s.event(fields)
	if err != nil {
		return s.refuse(err), true
	}
	return Record{Number: s.line, Event: e}, true
}

// unreadable sorts the errors of the CSV reader: a quote that is out of place
// on one line spoils that line; one that reached into other lines leaves it
// unknown where a record begins.
func (s *sheet) unreadable(err error) (record Record, more bool) {
	var syntax *csv.ParseError
	if errors.As(err, &syntax) && syntax.StartLine == syntax.Line {
		s.line = syntax.Line
		return s.refuse(&LineError{
			Problem: fmt.Sprintf("a quote is out of place at byte %d", syntax.Column),
			Want:    `quotes around a whole field, and "" for a quote inside it`, Err: err,
		}), true
	}
	line := s.line + 1
	if syntax != nil {
		line = syntax.StartLine
		err = fmt.Errorf("a quote opened on line %d is not closed properly by line %d, so the rest was not read: %w", line, syntax.Line, syntax.Err)
	}
	return Record{Number: line, Err: fmt.Errorf("read CSV of %s from line %d: %w", s.table.name, line, err)}, false
}

// refuse puts the line to an error of one record.
func (s *sheet) refuse(err error) Record {
	var refused *LineError
	if !errors.As(err, &refused) {
		refused = &LineError{Problem: "is no valid event: " + err.Error(), Err: err}
	}
	refused.Line, refused.Value = s.line, cut(refused.Value)
	return Record{Number: s.line, Err: refused}
}

func (s *sheet) event(fields []string) (*event.Event, error) {
	if len(fields) != s.width {
		return nil, &LineError{Problem: fmt.Sprintf("has %d fields", len(fields)), Want: fmt.Sprintf("%d, as the header row has", s.width)}
	}
	r := make(row, len(s.at))
	for name, i := range s.at {
		r[name] = fields[i]
		if !utf8.ValidString(fields[i]) {
			return nil, &LineError{Column: name, Value: fields[i], Problem: "is not valid UTF-8", Want: "a file saved as UTF-8"}
		}
	}
	for _, name := range s.table.required {
		if r[name] == "" {
			return nil, &LineError{Column: name, Problem: "is empty"}
		}
	}
	at := s.defaults.Time
	if text := r["time"]; text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, &LineError{Column: "time", Value: text, Problem: "is no RFC 3339 time", Want: "such as 2026-11-20T12:00:00Z", Err: err}
		}
	}
	data, err := s.table.parse(r)
	if err != nil {
		return nil, err
	}
	return s.defaults.event(data, at.UTC())
}

// bounded ends the reading of a record that is too long to be one, so that a
// quote that is never closed does not pull the whole file into memory.
type bounded struct {
	reader io.Reader
	spent  int // bytes read for the current record
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.spent > MaxLine {
		return 0, fmt.Errorf("a record is longer than %d bytes: a quote may be open", MaxLine)
	}
	n, err := b.reader.Read(p)
	b.spent += n
	return n, err
}
