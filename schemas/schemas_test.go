package schemas_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/schemas"
)

// compile compiles every schema, with formats asserted, and returns them by
// name.
func compile(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	ids := map[string]string{}
	for _, name := range schemas.Names() {
		b, err := schemas.Schema(name)
		if err != nil {
			t.Fatal(err)
		}
		doc := parse(t, b)
		ids[name] = doc.(map[string]any)["$id"].(string)
		if err := c.AddResource(ids[name], doc); err != nil {
			t.Fatalf("schema %s: %v", name, err)
		}
	}
	compiled := map[string]*jsonschema.Schema{}
	for name, id := range ids {
		s, err := c.Compile(id)
		if err != nil {
			t.Fatalf("schema %s: %v", name, err)
		}
		compiled[name] = s
	}
	return compiled
}

func parse(t *testing.T, b []byte) any {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("parse %.60s: %v", b, err)
	}
	return doc
}

func examples(t *testing.T) []schemas.Example {
	t.Helper()
	all, err := schemas.Examples()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func decode(e schemas.Example) []event.Result {
	m := event.Message{Subject: e.Subject, Header: e.Header, Data: e.Body, Sequence: schemas.ExampleSequence, Stored: schemas.ExampleStored()}
	if !event.IsRequest(e.Subject) {
		return event.Decode(m, event.DefaultLimits())
	}
	q, fault := event.DecodeRequest(m, event.DefaultLimits())
	if fault != nil {
		return []event.Result{{Fault: fault}}
	}
	return []event.Result{{Event: &q.Event}}
}

// accepts is what the JSON Schemas say about an example in structured or
// batch mode.
func accepts(t *testing.T, compiled map[string]*jsonschema.Schema, e schemas.Example) error {
	t.Helper()
	doc := parse(t, e.Body)
	if _, ok := doc.([]any); ok {
		return compiled["batch"].Validate(doc)
	}
	if e.Header != nil {
		return compiled[e.Header["ce-type"][0]].Validate(doc)
	}
	if event.IsRequest(e.Subject) {
		return compiled["request"].Validate(doc)
	}
	return compiled["envelope"].Validate(doc)
}

func TestEverySchemaCompilesAndNamesItsFile(t *testing.T) {
	compile(t)
	for _, name := range schemas.Names() {
		b, err := schemas.Schema(name)
		if err != nil {
			t.Fatal(err)
		}
		id := parse(t, b).(map[string]any)["$id"].(string)
		if !strings.HasSuffix(id, "/schemas/"+name+".schema.json") {
			t.Errorf("schema %s: $id is %s, want it to end in the file's name", name, id)
		}
	}
	want := []string{"batch", event.TypeAccount, event.TypeService, "envelope", event.TypeRequested, "request", event.TypeCount, event.TypeSnapshot}
	if got := schemas.Names(); !slices.Equal(got, want) {
		t.Errorf("names: got %v, want %v", got, want)
	}
}

func TestAnUnknownSchemaIsRefusedWithTheNamesThereAre(t *testing.T) {
	for _, name := range []string{"nothing", "", "examples/valid/count", "../schemas/envelope"} {
		if _, err := schemas.Schema(name); err == nil || !strings.Contains(err.Error(), "usage.count.v1") {
			t.Errorf("schema %q: got error %v, want one that lists the names", name, err)
		}
	}
}

func TestEveryValidExampleIsAcceptedBySchemaAndDecoder(t *testing.T) {
	compiled := compile(t)
	types := map[string]bool{}
	for _, e := range examples(t) {
		if !e.Valid {
			continue
		}
		t.Run(e.Name, func(t *testing.T) {
			if err := accepts(t, compiled, e); err != nil {
				t.Errorf("schema: %v", err)
			}
			for _, r := range decode(e) {
				if r.Fault != nil {
					t.Fatalf("event %d: got %v, want an event", r.Index, r.Fault)
				}
				types[r.Event.Type] = true
			}
		})
	}
	if len(types) != 5 {
		t.Errorf("types with a valid example: got %v, want all five", types)
	}
}

func TestEveryInvalidExampleFailsForTheReasonInItsName(t *testing.T) {
	compiled := compile(t)
	reasons := map[event.Reason]bool{}
	for _, e := range examples(t) {
		if e.Valid {
			continue
		}
		t.Run(e.Name, func(t *testing.T) {
			results := decode(e)
			bad := slices.IndexFunc(results, func(r event.Result) bool { return r.Fault != nil })
			if bad < 0 {
				t.Fatalf("got %d good events, want a fault", len(results))
			}
			fault := results[bad].Fault
			reasons[fault.Reason] = true
			if string(fault.Reason) != e.Reason {
				t.Errorf("got %v, want reason %s", fault, e.Reason)
			}
			got := strings.ReplaceAll(strings.TrimPrefix(fault.Pointer, "/"), "/", "-")
			if e.Pointer != "" && got != e.Pointer {
				t.Errorf("pointer: got %s of %v, want %s", got, fault, e.Pointer)
			}
			if fault.Next != nil {
				t.Errorf("a second problem: %v, want an example to show one", fault.Next)
			}
			// Binary mode has no envelope that a schema could see.
			judged := e.Header == nil && (fault.Reason == event.ReasonInvalid || fault.Reason == event.ReasonUnknownType)
			if judged {
				if err := accepts(t, compiled, e); (err == nil) != e.BeyondSchema {
					t.Errorf("schema: got %v, want beyondSchema %t", err, e.BeyondSchema)
				}
			}
		})
	}
	for _, want := range []event.Reason{
		event.ReasonMalformed, event.ReasonInvalid, event.ReasonUnknownType, event.ReasonSubjectMismatch, event.ReasonTooFarAhead, event.ReasonTooOld,
	} {
		if !reasons[want] {
			t.Errorf("reason %s: no example shows it", want)
		}
	}
}

// refs lists every $ref of a JSON document.
func refs(doc any) []string {
	var found []string
	switch v := doc.(type) {
	case map[string]any:
		for key, value := range v {
			if ref, ok := value.(string); ok && key == "$ref" {
				found = append(found, ref)
			}
			found = append(found, refs(value)...)
		}
	case []any:
		for _, value := range v {
			found = append(found, refs(value)...)
		}
	}
	return found
}

// resolves reports whether a $ref of doc leads somewhere: into doc itself, or
// to a file of the package.
func resolves(doc any, ref string) bool {
	path, local := strings.CutPrefix(ref, "#/")
	if !local {
		_, err := fs.Stat(schemas.FS(), strings.TrimPrefix(ref, "./"))
		return err == nil
	}
	for key := range strings.SplitSeq(path, "/") {
		object, ok := doc.(map[string]any)
		if !ok || object[key] == nil {
			return false
		}
		doc = object[key]
	}
	return true
}

func TestTheAPIDocumentsReferToWhatExists(t *testing.T) {
	for name, b := range map[string][]byte{"asyncapi": schemas.AsyncAPI(), "vendor-api": schemas.VendorAPI()} {
		var doc any
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all := refs(doc)
		if len(all) == 0 {
			t.Errorf("%s: no $ref at all", name)
		}
		for _, ref := range all {
			if !resolves(doc, ref) {
				t.Errorf("%s: $ref %s leads nowhere", name, ref)
			}
		}
	}
}

func TestTheAsyncAPIChannelsAreTheSubjectsOfTheGrammar(t *testing.T) {
	var doc struct {
		Channels map[string]struct {
			Address    string
			Parameters map[string]any
			Messages   map[string]any
		}
	}
	if err := json.Unmarshal(schemas.AsyncAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Channels) != 6 {
		t.Errorf("channels: got %d, want 6", len(doc.Channels))
	}
	for name, channel := range doc.Channels {
		subject := channel.Address
		for parameter := range channel.Parameters {
			subject = strings.ReplaceAll(subject, "{"+parameter+"}", parameter+"-1")
		}
		if channel.Messages[name] == nil {
			t.Errorf("channel %s: messages are %v, want one of its own name", name, channel.Messages)
		}
		if event.IsRequest(subject) {
			if want := event.RequestSubject("vendor-1", "organization-1"); subject != want {
				t.Errorf("channel %s: got %s, want %s", name, subject, want)
			}
			continue
		}
		s, err := event.ParseSubject(subject)
		if err != nil || string(s.Kind) != name {
			t.Errorf("channel %s at %s: got %+v, %v, want a subject of that kind", name, channel.Address, s, err)
		}
	}
}

func TestEveryCallOfTheVendorAPISaysHowWellItIsKnown(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			Evidence  string `json:"x-evidence"`
			Responses map[string]struct {
				Evidence string `json:"x-evidence"`
			}
		}
	}
	if err := json.Unmarshal(schemas.VendorAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	known := []string{"documented", "observed", "our choice"}
	for path, calls := range doc.Paths {
		for method, call := range calls {
			if !slices.Contains(known, call.Evidence) {
				t.Errorf("%s %s: x-evidence is %q, want one of %v", method, path, call.Evidence, known)
			}
			for code, response := range call.Responses {
				if !slices.Contains(known, response.Evidence) {
					t.Errorf("%s %s %s: x-evidence is %q, want one of %v", method, path, code, response.Evidence, known)
				}
			}
		}
	}
	if len(doc.Paths) != 4 {
		t.Errorf("paths: got %d, want the 4 calls of the dialect", len(doc.Paths))
	}
}
