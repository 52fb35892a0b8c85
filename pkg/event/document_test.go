package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTextThatIsNotJSONIsRefusedWithItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"":                 "a value is missing at byte 0",
		" ":                "a value is missing at byte 1",
		"{":                "want a member name in quotes at byte 1",
		`{"a"`:             "want : behind a member name at byte 4",
		`{"a":1,}`:         "want a member name in quotes at byte 7",
		`{"a":1 "b":2}`:    "want , or } in an object at byte 7",
		"[1,]":             "a value is malformed at byte 3",
		"[1 2]":            "want , or ] in an array at byte 3",
		"01":               "a number is malformed at byte 0",
		"[1.]":             "a number is malformed at byte 1",
		"nul":              "a value is malformed at byte 0",
		"1 2":              "more text behind the value at byte 2",
		`"a`:               "does not end at byte 0",
		"\"a\nb\"":         "a control character in a string at byte 2",
		`"\x"`:             "an escape is malformed or half of a surrogate pair at byte 1",
		`"\u12"`:           "half of a surrogate pair at byte 1",
		`"\ud83d"`:         "half of a surrogate pair at byte 1",
		`"\ud83d\u0041"`:   "half of a surrogate pair at byte 1",
		`"\ude00"`:         "half of a surrogate pair at byte 1",
		"\ufeff{}":         "a value is malformed at byte 0",
		"\"\ufffd\xff\"":   "the text is not UTF-8 at byte 4",
		"\"\xed\xa0\x80\"": "the text is not UTF-8 at byte 1",
		strings.Repeat("[", 66) + strings.Repeat("]", 66): "values nest deeper than 64 at byte 65",
	} {
		d := document{body: []byte(text)}
		if got := d.parse(); !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want it to say %q", text, got, want)
		}
	}
	large := document{body: bytes.Repeat([]byte(" "), maxBody+1)}
	if got := large.parse(); !strings.Contains(got, "at most 67108864") {
		t.Errorf("a body of 64 MiB and a byte: got %q, want it refused", got)
	}
}

func TestAMemberThatOccursTwiceIsFoundWhereverItIs(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, `"`+strings.Repeat("m", i)+`":0`)
	}
	wide := strings.Join(many, ",")
	for text, want := range map[string]string{
		`{"a":1,"a":2}`:                           "/a",
		`{"a":1,"A":2,"aa":3}`:                    "",
		`{"a":1,"\u0061":2}`:                      "/a",
		`{"x":[{"a":{}},{"a":[],"b":1,"b":1}]}`:   "/x/1/b",
		`{"a/b~c":1,"a/b~c":2}`:                   "/a~1b~0c",
		`{"x":{"a":1},"y":{"a":1}}`:               "",
		`{` + wide + `}`:                          "",
		`{` + wide + `,"\u006d\u006d":0,"x":[0]}`: "/mm",
	} {
		d := document{body: []byte(text)}
		if problem := d.parse(); problem != "" {
			t.Fatalf("%s: %s", text, problem)
		}
		got := ""
		if at := d.repeatedBelow(0); at != 0 {
			got = d.pointer(at)
		}
		if got != want {
			t.Errorf("%s: got member %q, want %q", text, got, want)
		}
	}
}

// FuzzDocument holds the parser to encoding/json, except where it is meant to
// be stricter.
func FuzzDocument(f *testing.F) {
	for _, seed := range []string{
		`{"specversion":"1.0","data":{"unitCount":4.2e1}}`, `[1,-0.5,true,false,null,"\u00e4\ud83e\uddfe\n",{}]`, `{"a":[[],{}],"a":"b"}`, `"\ud800"`, "\xff", "01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := document{body: text}
		problem := d.parse()
		if problem == "" && !json.Valid(text) {
			t.Fatalf("%q: accepted, encoding/json refuses it", text)
		}
		stricter := strings.Contains(problem, "surrogate") || strings.Contains(problem, "deeper") || !utf8.Valid(text)
		if problem != "" && json.Valid(text) && !stricter {
			t.Fatalf("%q: %s, encoding/json accepts it", text, problem)
		}
		if problem != "" {
			return
		}
		for i := range d.nodes {
			n := d.nodes[i]
			if n.kind != kindString {
				continue
			}
			var want string
			if err := json.Unmarshal(text[n.value.start-1:n.value.end+1], &want); err != nil || d.string(n.value) != want {
				t.Fatalf("%q: string %d is read as %q, encoding/json reads %q, %v", text, i, d.string(n.value), want, err)
			}
		}
	})
}
