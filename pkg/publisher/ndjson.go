package publisher

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// ReadEvents reads NDJSON: one CloudEvents envelope in structured mode on each
// line, as the event contract has it. Blank lines are skipped. A line that is
// no event, or longer than MaxLine, is yielded with a *LineError, and reading
// goes on; an unreadable file ends the reading with one Record that carries the
// error. The age of the events is left to be judged by the server's clock.
func ReadEvents(r io.Reader) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		b := newLineReader(r)
		for number := 1; ; number++ {
			line, long, err := readLine(b)
			if err != nil && !errors.Is(err, io.EOF) {
				yield(Record{Number: number, Err: fmt.Errorf("read NDJSON, line %d: %w", number, err)})
				return
			}
			if record := eventLine(number, line, long); record != (Record{}) && !yield(record) || err != nil {
				return
			}
		}
	}
}

// readLine reads up to the next LF or the end. Of a line longer than MaxLine
// it keeps nothing. err is io.EOF with the last line.
func readLine(b *bufio.Reader) (line []byte, long bool, err error) {
	for {
		part, err := b.ReadSlice('\n')
		if long = long || len(line)+len(bytes.TrimRight(part, "\r\n")) > MaxLine; long {
			line = nil
		} else {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, long, err
		}
	}
}

// eventLine is the record of one line, zero for a blank one.
func eventLine(number int, line []byte, long bool) Record {
	refused := &LineError{Line: number}
	line = bytes.TrimSpace(line)
	switch {
	case long:
		refused.Problem, refused.Want = fmt.Sprintf("is longer than %d bytes", MaxLine), "one event on one line, large snapshots in parts"
	case len(line) == 0:
		return Record{}
	case line[0] == '[':
		refused.Problem, refused.Want = "is a JSON array", "one event on each line"
	default:
		e, err := decode(line)
		if err == nil {
			return Record{Number: number, Event: e}
		}
		refused.Problem, refused.Err = "is no valid event: "+err.Error(), err
	}
	return Record{Number: number, Err: refused}
}

// decode reads one envelope. A stored event has to agree with its subject; a
// line has none yet, so it is held against the subject that its own ids make.
func decode(line []byte) (*event.Event, error) {
	var ids struct {
		Data struct {
			Vendor       string `json:"vendorId"`
			Organization string `json:"organizationId"`
		} `json:"data"`
	}
	// What is wrong with the JSON is Decode's to say, and better.
	_ = json.Unmarshal(line, &ids)
	s := event.Subject{Kind: event.KindBatch, Vendor: ids.Data.Vendor, Organization: ids.Data.Organization}
	m := event.Message{Subject: s.String(), Data: line, Stored: time.Now(), Deliveries: 1}
	result := event.Decode(m, event.Limits{Ahead: math.MaxInt64})[0]
	if result.Fault == nil {
		return result.Event, nil
	}
	var problems []error
	for _, fault := range result.Fault.All() {
		problems = append(problems, fault)
	}
	return nil, inLine(problems...)
}

// inLine joins errors into one whose text is a single line.
func inLine(errs ...error) error {
	err := errors.Join(errs...)
	if err == nil || !strings.Contains(err.Error(), "\n") {
		return err
	}
	return &flatError{err}
}

// flatError is a joined error on one line.
type flatError struct{ error }

func (f *flatError) Error() string { return strings.ReplaceAll(f.error.Error(), "\n", "; ") }
func (f *flatError) Unwrap() error { return f.error }
