// Package schemas holds the event contract in the form that other programs
// read: JSON Schemas (2020-12) of the envelope, the batch and the data of each
// type, an AsyncAPI 3 document of the channels, an OpenAPI 3.1 document of the
// partner's Vendor-API as far as it is known, and examples of messages, valid
// and invalid. All of it is embedded in the binary.
//
// It deliberately judges nothing: it has no validator and does not know how
// events are decoded. What JSON Schema cannot say is in each schema's $comment.
package schemas

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

//go:embed *.json examples
var files embed.FS

const schemaSuffix = ".schema.json"

// FS is every file of the package, by its path below schemas/.
func FS() fs.FS { return files }

// Names lists the JSON Schemas in alphabetical order: batch, envelope, request, and
// one for the data of each event type, by the type's name.
func Names() []string {
	var names []string
	for _, path := range glob("*" + schemaSuffix) {
		names = append(names, strings.TrimSuffix(path, schemaSuffix))
	}
	return names
}

// Schema is the JSON Schema of that name. The error of an unknown name lists
// those there are.
func Schema(name string) ([]byte, error) {
	b, err := files.ReadFile(name + schemaSuffix)
	if err != nil || strings.Contains(name, "/") {
		return nil, fmt.Errorf("schema %q is unknown: want one of %s", name, strings.Join(Names(), ", "))
	}
	return b, nil
}

// AsyncAPI is the AsyncAPI 3 document of the channels, as JSON.
func AsyncAPI() []byte { return document("asyncapi.json") }

// VendorAPI is the OpenAPI 3.1 document of the partner's Vendor-API in the
// MSPCentric dialect, as JSON. Its x-evidence members say how well each part is
// known: documented, observed, or our choice.
func VendorAPI() []byte { return document("vendor-api.openapi.json") }

// Example is one message, with what becomes of it.
type Example struct {
	Name    string              // the file's name without .json
	Valid   bool                // every event in it is accepted
	Reason  string              // the dead-letter reason if it is not valid
	Pointer string              // where the fault is, if the name says so: data-unitCount for /data/unitCount
	Note    string              // why, where it is not plain; may be empty
	Subject string              // where it is published
	Header  map[string][]string // nil unless it is in binary mode
	Body    []byte
	// BeyondSchema marks an invalid example that the JSON Schemas accept.
	BeyondSchema bool
}

// ExampleSequence is the stream sequence at which the examples are taken to
// be stored: replays name earlier ones.
const ExampleSequence = 100_000

// ExampleStored is when the server is taken to have stored the examples: by it
// their age is judged.
func ExampleStored() time.Time { return time.Date(2026, time.November, 20, 12, 0, 1, 0, time.UTC) }

// Examples lists the examples, the valid ones first, each group in
// alphabetical order. An invalid one is named reason--title, or
// reason--pointer--title.
func Examples() ([]Example, error) {
	var examples []Example
	for _, path := range append(glob("examples/valid/*.json"), glob("examples/invalid/*.json")...) {
		b, err := files.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read example %s: %w", path, err)
		}
		e, err := parseExample(path, b)
		if err != nil {
			return nil, fmt.Errorf("read example %s: %w", path, err)
		}
		examples = append(examples, e)
	}
	return examples, nil
}

func parseExample(path string, b []byte) (Example, error) {
	var file struct {
		Subject      string              `json:"subject"`
		Note         string              `json:"note"`
		BeyondSchema bool                `json:"beyondSchema"`
		Headers      map[string][]string `json:"headers"`
		Body         json.RawMessage     `json:"body"`
		Raw          *string             `json:"raw"` // a body that is not JSON, or must be byte for byte
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return Example{}, err
	}
	if (file.Body == nil) == (file.Raw == nil) {
		return Example{}, fmt.Errorf("want either body or raw")
	}
	if file.Raw != nil {
		file.Body = []byte(*file.Raw)
	}
	folder, name, _ := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(path, ".json"), "examples/"), "/")
	e := Example{
		Name: name, Valid: folder == "valid", Note: file.Note, Subject: file.Subject,
		Header: file.Headers, Body: file.Body, BeyondSchema: file.BeyondSchema,
	}
	if parts := strings.Split(name, "--"); !e.Valid {
		e.Reason = parts[0]
		if len(parts) == 3 {
			e.Pointer = parts[1]
		}
	}
	return e, nil
}

// glob and document read the embedded files. Their patterns and paths are
// constants of this file, so an error is a programmer's mistake.
func glob(pattern string) []string {
	paths, err := fs.Glob(files, pattern)
	if err != nil {
		panic(fmt.Sprintf("schemas: pattern %q: %v", pattern, err))
	}
	return paths
}

func document(path string) []byte {
	b, err := files.ReadFile(path)
	if err != nil {
		panic(fmt.Sprintf("schemas: %v", err))
	}
	return b
}
