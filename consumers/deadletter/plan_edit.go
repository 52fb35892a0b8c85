package deadletter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Edit changes the events of dead letters before they are replayed: a JSON
// Patch (RFC 6902) of the event's envelope as a structured CloudEvent.
type Edit struct {
	raw        json.RawMessage
	operations []operation
	whole      bool // the first operation replaces the whole document
}

type operation struct {
	patch      jsonpatch.Patch // of this operation alone
	name, path string
}

// ParseEdit reads a JSON Patch of at least one operation. Operations are
// counted from 0 in errors, as JSON Pointers count.
func ParseEdit(patch []byte) (*Edit, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(patch, &list); err != nil {
		return nil, fmt.Errorf("the edit is no JSON Patch: want an array of operations (RFC 6902): %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("the edit has no operation: want at least one (RFC 6902)")
	}
	e := &Edit{}
	for i, raw := range list {
		o, err := parseOperation(raw)
		if err != nil {
			return nil, fmt.Errorf("operation %d of the edit: %w", i, err)
		}
		e.operations = append(e.operations, o)
	}
	first := e.operations[0]
	e.whole = first.path == "" && (first.name == "replace" || first.name == "add")
	var err error
	if e.raw, err = json.Marshal(list); err != nil { // without blanks: it is kept in a record
		return nil, fmt.Errorf("encode the edit: %w", err)
	}
	return e, nil
}

// Replace is the edit that puts a document in place of the whole event.
func Replace(document []byte) (*Edit, error) {
	if !json.Valid(document) {
		return nil, errors.New("the edited event is not JSON")
	}
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "", "value": json.RawMessage(document)}})
	if err != nil {
		return nil, fmt.Errorf("encode the edited event: %w", err)
	}
	return ParseEdit(patch)
}

// Patch is the edit as a JSON Patch.
func (e *Edit) Patch() json.RawMessage { return e.raw }

// parseOperation checks what the library would let pass until it is applied.
func parseOperation(raw json.RawMessage) (operation, error) {
	var o struct {
		Op    string          `json:"op"`
		Path  *string         `json:"path"`
		From  *string         `json:"from"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return operation{}, fmt.Errorf("want an object with op and path: %w", err)
	}
	var wantValue, wantFrom bool
	switch o.Op {
	case "add", "replace", "test":
		wantValue = true
	case "move", "copy":
		wantFrom = true
	case "remove":
	default:
		return operation{}, fmt.Errorf("op is %q: want add, remove, replace, move, copy or test", o.Op)
	}
	switch {
	case o.Path == nil:
		return operation{}, fmt.Errorf("%s has no path: want a JSON Pointer such as /data/unitCount", o.Op)
	case !isPointer(*o.Path):
		return operation{}, fmt.Errorf("path is %q: want a JSON Pointer such as /data/unitCount", *o.Path)
	case wantFrom && (o.From == nil || !isPointer(*o.From)):
		return operation{}, fmt.Errorf("%s to %s needs a from: want a JSON Pointer such as /data/unitCount", o.Op, *o.Path)
	case wantValue && o.Value == nil:
		return operation{}, fmt.Errorf("%s of %s has no value", o.Op, *o.Path)
	}
	patch, err := jsonpatch.DecodePatch([]byte("[" + string(raw) + "]"))
	if err != nil {
		return operation{}, err
	}
	return operation{patch: patch, name: o.Op, path: *o.Path}, nil
}

func isPointer(text string) bool { return text == "" || strings.HasPrefix(text, "/") }

// apply gives the document before and after the edit. An event that cannot be
// written as a document can only be replaced as a whole; before is then empty.
func (e *Edit) apply(l *event.Letter) (before, after []byte, err error) {
	before, err = l.JSON()
	after = before
	if err != nil {
		if !e.whole {
			return nil, nil, fmt.Errorf("it cannot be edited in parts: %w", err)
		}
		before, after = nil, []byte("{}")
	}
	for i, o := range e.operations {
		options := jsonpatch.NewApplyOptions()
		options.SupportNegativeIndices = false // RFC 6902 knows none
		options.EscapeHTML = false
		options.AccumulatedCopySizeLimit = maxRecord
		if after, err = o.patch.ApplyWithOptions(after, options); err != nil {
			return before, nil, fmt.Errorf("operation %d of the edit, %s of %q: %w", i, o.name, o.path, err)
		}
	}
	return before, after, nil
}
