package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/schemas"
)

func (c *cli) schemasCommand() *cobra.Command {
	return group("schemas", "The event contract: schemas, and a check against them",
		&cobra.Command{
			Use:   "ls",
			Short: "List the schemas and documents in this program",
			Args:  cobra.NoArgs,
			RunE:  func(*cobra.Command, []string) error { return c.listSchemas() },
		},
		&cobra.Command{
			Use:       "show NAME",
			Short:     "Write a schema or document to stdout",
			Args:      cobra.ExactArgs(1),
			ValidArgs: append(schemas.Names(), documentAsyncAPI, documentVendorAPI),
			RunE: func(_ *cobra.Command, args []string) error {
				content, err := schemaContent(args[0])
				if err != nil {
					return usageError{err}
				}
				_, err = c.stdout.Write(content)
				return err
			},
		},
		&cobra.Command{
			Use:   "validate FILE|-",
			Short: "Check an event, a batch, or NDJSON of events",
			Long: `Checks one event or one batch in structured mode, or NDJSON with one event on
each line, as the fold would: the same rules by the same code. Two things are not
judged, because a file has neither: the subject, and the age of the event.

Every problem is one line of output; exit code 2 if there is any.`,
			Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return c.validate(args[0]) },
		})
}

// The documents that are no JSON Schemas.
const (
	documentAsyncAPI  = "asyncapi"
	documentVendorAPI = "vendor-api"
)

func schemaContent(name string) ([]byte, error) {
	switch name {
	case documentAsyncAPI:
		return schemas.AsyncAPI(), nil
	case documentVendorAPI:
		return schemas.VendorAPI(), nil
	}
	content, err := schemas.Schema(name)
	if err != nil {
		return nil, fmt.Errorf("%w, %s, %s", err, documentAsyncAPI, documentVendorAPI)
	}
	return content, nil
}

// schemaView is a line of the list.
type schemaView struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

func (c *cli) listSchemas() error {
	var list []schemaView
	var rows [][]string
	for _, name := range slices.Concat(schemas.Names(), []string{documentAsyncAPI, documentVendorAPI}) {
		content, err := schemaContent(name)
		if err != nil {
			return err
		}
		var document struct {
			Title string `json:"title"`
			Info  struct {
				Title string `json:"title"`
			} `json:"info"`
		}
		if err := json.Unmarshal(content, &document); err != nil {
			return fmt.Errorf("read schema %s: %w", name, err)
		}
		title := or(document.Title, document.Info.Title)
		list = append(list, schemaView{name, title})
		rows = append(rows, []string{name, title})
	}
	if c.json {
		return c.printJSON(list)
	}
	return c.table([]string{"NAME", "TITLE"}, rows)
}

// faultView is one problem of one event, for people and programs.
type faultView struct {
	Line    int          `json:"line,omitempty"`
	Reason  event.Reason `json:"reason"`
	Pointer string       `json:"pointer"`
	Problem string       `json:"problem"`
	Want    string       `json:"want,omitempty"`
}

func faultViews(line int, f *event.Fault) []faultView {
	var list []faultView
	for _, f := range f.All() {
		list = append(list, faultView{Line: line, Reason: f.Reason, Pointer: f.Pointer, Problem: f.Problem, Want: f.Want})
	}
	return list
}

func (c *cli) validate(path string) error {
	content, err := c.readAll(path)
	if err != nil {
		return err
	}
	var faults []faultView
	valid, invalid := 0, 0
	for _, f := range checkEvents(content) {
		if f == nil {
			valid++
			continue
		}
		invalid++
		faults = append(faults, f...)
	}
	if c.json {
		err = c.printJSON(append([]faultView{}, faults...))
	} else if len(faults) > 0 {
		rows := make([][]string, len(faults))
		for i, f := range faults {
			rows[i] = []string{strconv.Itoa(f.Line), or(printable(f.Pointer), "-"), string(f.Reason), printable(f.Problem), printable(f.Want)}
		}
		err = c.table([]string{"LINE", "WHERE", "REASON", "PROBLEM", "WANT"}, rows)
	}
	switch {
	case err != nil:
		return err
	case invalid > 0:
		return usagef("%s wrong, %d valid", plural(invalid, "event is", "events are"), valid)
	case valid == 0:
		return usagef("%s has no event in it: want an event, a batch, or NDJSON of events", path)
	}
	c.say("%s valid", plural(valid, "event is", "events are"))
	return nil
}

// readAll reads a file, or stdin for "-".
func (c *cli) readAll(path string) ([]byte, error) {
	if path == "-" {
		content, err := io.ReadAll(c.stdin)
		if err != nil {
			return nil, fmt.Errorf("read stdin: %w", err)
		}
		return content, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{err}
	}
	return content, nil
}

// checkEvents judges every event of a file: nil for a valid one.
func checkEvents(content []byte) [][]faultView {
	var verdicts [][]faultView
	if isNDJSON(content) {
		for r := range publisher.ReadEvents(bytes.NewReader(content)) {
			verdicts = append(verdicts, lineFaults(r))
		}
		return verdicts
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil
	}
	m := event.Message{Subject: ownSubject(content), Data: content, Stored: time.Now()}
	if isRequest(content) {
		_, fault := event.DecodeRequest(m, event.Limits{Ahead: math.MaxInt64})
		return append(verdicts, faultViews(1, fault))
	}
	for _, r := range event.Decode(m, event.Limits{Ahead: math.MaxInt64}) {
		verdicts = append(verdicts, faultViews(1, r.Fault))
	}
	return verdicts
}

func lineFaults(r publisher.Record) []faultView {
	var fault *event.Fault
	var line *publisher.LineError
	switch {
	case r.Err == nil:
		return nil
	case errors.As(r.Err, &fault):
		return faultViews(r.Number, fault)
	case errors.As(r.Err, &line):
		return []faultView{{Line: r.Number, Reason: event.ReasonMalformed, Problem: line.Problem, Want: line.Want}}
	}
	return []faultView{{Line: r.Number, Reason: event.ReasonMalformed, Problem: r.Err.Error()}}
}

// isNDJSON says whether the file has an object on its first line and more
// behind it. A single document may be spread over lines, and be broken.
func isNDJSON(content []byte) bool {
	content = bytes.TrimSpace(content)
	first, rest, several := bytes.Cut(content, []byte("\n"))
	first = bytes.TrimSpace(first)
	return several && len(rest) > 0 && bytes.HasPrefix(first, []byte("{")) && bytes.HasSuffix(first, []byte("}"))
}

// isRequest says whether a document asks for an integration, as far as it can be
// read.
func isRequest(content []byte) bool {
	var envelope struct {
		Type string `json:"type"`
	}
	return json.Unmarshal(content, &envelope) == nil && envelope.Type == event.TypeRequested
}

// ownSubject is the subject that the ids in a document make, since a document
// without one has nothing to disagree with. In a batch the first event decides.
func ownSubject(content []byte) string {
	type envelope struct {
		Type string `json:"type"`
		Data struct {
			Vendor       string `json:"vendorId"`
			Organization string `json:"organizationId"`
		} `json:"data"`
	}
	var one envelope
	var batch []envelope
	if json.Unmarshal(content, &batch) == nil && len(batch) > 0 {
		one = batch[0]
	} else {
		// What is wrong with the JSON is the decoder's to say.
		_ = json.Unmarshal(content, &one)
	}
	if one.Type == event.TypeRequested {
		return event.RequestSubject(one.Data.Vendor, one.Data.Organization)
	}
	return event.Subject{Kind: event.KindBatch, Vendor: one.Data.Vendor, Organization: one.Data.Organization}.String()
}
