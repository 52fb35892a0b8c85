package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// fields of a JSON object, names compared exactly: encoding/json would accept "accountID"
// for "accountId", and the partner need not.
type fields struct {
	prefix string // of the names in what is said about them
	raw    map[string]json.RawMessage
	wrong  []string
}

func parseFields(body []byte) (*fields, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("the body is not UTF-8")
	}
	f := &fields{}
	var object *map[string]json.RawMessage // a pointer tells null from {}
	if err := json.Unmarshal(body, &object); err != nil || object == nil {
		if json.Valid(body) {
			return nil, errors.New("the body must be one JSON object")
		}
		return nil, fmt.Errorf("the body is not JSON: %w", err)
	}
	f.raw = *object
	return f, nil
}

func (f *fields) text(name string, required bool) string {
	raw, ok := f.raw[name]
	if !ok && !required {
		return ""
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil || (required && *s == "") {
		rule := "must be a string"
		if required {
			rule = "must be a non-empty string"
		}
		f.wrong = append(f.wrong, f.prefix+name+" "+rule)
		return ""
	}
	return *s
}

// number returns the exact text of a JSON number that is 0 or more. A number goes to the
// tape even when it is negative.
func (f *fields) number(name string) string {
	text := string(f.raw[name])
	if text == "" || !strings.ContainsRune("-0123456789", rune(text[0])) {
		f.wrong = append(f.wrong, f.prefix+name+" must be a JSON number")
		return ""
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(text), "e")
	if mantissa[0] == '-' && strings.ContainsAny(mantissa, "123456789") {
		f.wrong = append(f.wrong, f.prefix+name+" must not be negative")
	}
	return text
}

// boolean returns nil when the field is absent.
func (f *fields) boolean(name string) *bool {
	raw, ok := f.raw[name]
	if !ok {
		return nil
	}
	var b *bool
	if err := json.Unmarshal(raw, &b); err != nil || b == nil {
		f.wrong = append(f.wrong, f.prefix+name+" must be true or false")
	}
	return b
}

// optional returns nil when the field is absent.
func (f *fields) optional(name string, required bool) *string {
	if _, ok := f.raw[name]; !ok {
		return nil
	}
	s := f.text(name, required)
	return &s
}

// object returns the fields of a field that must be an object; what is wrong with them is for
// the caller to take over.
func (f *fields) object(name string) *fields {
	inner := &fields{prefix: f.prefix + name + "."}
	var object *map[string]json.RawMessage // a pointer tells null from {}
	if err := json.Unmarshal(f.raw[name], &object); err != nil || object == nil {
		f.wrong = append(f.wrong, f.prefix+name+" must be an object")
		return nil
	}
	inner.raw = *object
	return inner
}

// only refuses what is none of the names: a misspelt field that is optional would else be
// taken for one left out.
func (f *fields) only(names ...string) {
	for _, name := range slices.Sorted(maps.Keys(f.raw)) {
		if !slices.Contains(names, name) {
			f.wrong = append(f.wrong, fmt.Sprintf("%s%.64s is no field of this call", f.prefix, name))
		}
	}
}

// texts returns all fields, each of which must be a string that is not empty.
func (f *fields) texts() map[string]string {
	all := make(map[string]string, len(f.raw))
	for _, name := range slices.Sorted(maps.Keys(f.raw)) {
		all[name] = f.text(name, true)
	}
	return all
}

// refuseWrong refuses the call for all its wrong fields at once.
func (c *call) refuseWrong(f *fields) {
	if len(f.wrong) > 0 {
		c.refuse("%s", strings.Join(f.wrong, "; "))
	}
}
