package event

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep values may nest. The contract's own nesting is five;
// the rest is for members of later versions.
const maxDepth = 64

// maxBody is the longest text in bytes: the largest payload a NATS server can
// be told to take.
const maxBody = 64 << 20

// kind is the JSON type of a value.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// String names the kind as problems do: "a number".
func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}[k]
}

// span is a piece of the body. Strings and names are without their quotes;
// escaped says that there is a backslash in them.
type span struct {
	start, end int32
	escaped    bool
}

// node is one value. The nodes of a document are in the order of the text, so
// the first child of a node is the next one.
type node struct {
	kind  kind
	name  span // when the parent is an object
	value span
	size  int32 // number of children
	after int32 // index of the first node behind this one and all below it
}

// document is a parsed JSON text. It is stricter than encoding/json where the
// difference could change an invoice: member names are case-sensitive, a
// member that occurs twice is remembered, and text that is not Unicode is
// refused instead of replaced.
type document struct {
	body     []byte
	pos      int
	nodes    []node
	repeated []int32 // members whose name occurred before in the same object
	problem  string
}

// parse reads the body, which must be one JSON value. It returns what is
// wrong with it, empty when nothing is.
func (d *document) parse() string {
	if len(d.body) > maxBody {
		return fmt.Sprintf("the text is %d bytes long: at most %d can be read", len(d.body), maxBody)
	}
	if !utf8.Valid(d.body) {
		for r, size := utf8.DecodeRune(d.body); r != utf8.RuneError || size > 1; r, size = utf8.DecodeRune(d.body[d.pos:]) {
			d.pos += size
		}
		d.fail("the text is not UTF-8")
		return d.problem
	}
	if d.value(0, span{}) {
		d.space()
		if d.pos < len(d.body) {
			d.fail("more text behind the value")
		}
	}
	return d.problem
}

// fail notes the problem at the present position. It returns false, for the
// caller to hand on.
func (d *document) fail(problem string) bool {
	d.problem = fmt.Sprintf("not JSON: %s at byte %d", problem, d.pos)
	return false
}

func (d *document) space() {
	for d.pos < len(d.body) {
		switch d.body[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// next skips space and consumes c if it is there.
func (d *document) next(c byte) bool {
	d.space()
	if d.pos < len(d.body) && d.body[d.pos] == c {
		d.pos++
		return true
	}
	return false
}

// value reads one value and everything below it.
func (d *document) value(depth int, name span) bool {
	d.space()
	if d.pos == len(d.body) {
		return d.fail("a value is missing")
	}
	if depth > maxDepth {
		return d.fail("values nest deeper than " + strconv.Itoa(maxDepth))
	}
	at := int32(len(d.nodes))
	d.nodes = append(d.nodes, node{name: name, value: span{start: int32(d.pos)}, after: at + 1})
	n := &d.nodes[at]
	var ok bool
	switch c := d.body[d.pos]; {
	case c == '"':
		n.kind = kindString
		n.value, ok = d.text()
		return ok
	case c == '{':
		n.kind = kindObject
		return d.object(at, depth)
	case c == '[':
		n.kind = kindArray
		return d.array(at, depth)
	case c == '-' || c >= '0' && c <= '9':
		n.kind = kindNumber
		ok = d.number()
	default:
		n.kind, ok = d.literal()
	}
	n.value.end = int32(d.pos)
	return ok
}

// close ends the array or object at node at, with that many children.
func (d *document) close(at, size int32) bool {
	n := &d.nodes[at]
	n.size, n.value.end, n.after = size, int32(d.pos), int32(len(d.nodes))
	return true
}

func (d *document) number() bool {
	end := numberEnd(d.body, d.pos)
	if end < 0 {
		return d.fail("a number is malformed")
	}
	d.pos = end
	return true
}

func (d *document) literal() (kind, bool) {
	for _, l := range [...]struct {
		text string
		kind kind
	}{{"true", kindBool}, {"false", kindBool}, {"null", kindNull}} {
		if rest := d.body[d.pos:]; len(rest) >= len(l.text) && string(rest[:len(l.text)]) == l.text {
			d.pos += len(l.text)
			return l.kind, true
		}
	}
	return kindNull, d.fail("a value is malformed")
}

// array reads the array that is node at.
func (d *document) array(at int32, depth int) bool {
	d.pos++
	if d.next(']') {
		return d.close(at, 0)
	}
	for size := int32(1); ; size++ {
		if !d.value(depth+1, span{}) {
			return false
		}
		if d.next(',') {
			continue
		}
		if d.next(']') {
			return d.close(at, size)
		}
		return d.fail("want , or ] in an array")
	}
}

// object reads the object that is node at.
func (d *document) object(at int32, depth int) bool {
	d.pos++
	if d.next('}') {
		return d.close(at, 0)
	}
	for size := int32(1); ; size++ {
		d.space()
		if d.pos == len(d.body) || d.body[d.pos] != '"' {
			return d.fail("want a member name in quotes")
		}
		name, ok := d.text()
		if !ok {
			return false
		}
		if !d.next(':') {
			return d.fail("want : behind a member name")
		}
		if !d.value(depth+1, name) {
			return false
		}
		if d.next(',') {
			continue
		}
		if d.next('}') {
			d.findRepeated(at, size)
			return d.close(at, size)
		}
		return d.fail("want , or } in an object")
	}
}

// fewMembers is up to where comparing all pairs is cheaper than a map.
const fewMembers = 16

// findRepeated remembers the members of the object at node at whose name
// occurred before.
func (d *document) findRepeated(at, size int32) {
	end := int32(len(d.nodes))
	if size > fewMembers {
		seen := make(map[string]struct{}, size)
		for i := at + 1; i < end; i = d.nodes[i].after {
			name := d.string(d.nodes[i].name)
			if _, ok := seen[name]; ok {
				d.repeated = append(d.repeated, i)
			}
			seen[name] = struct{}{}
		}
		return
	}
	for i := at + 1; i < end; i = d.nodes[i].after {
		a := &d.nodes[i].name
		for j := at + 1; j < i; j = d.nodes[j].after {
			b := &d.nodes[j].name
			if a.end-a.start != b.end-b.start && !a.escaped && !b.escaped {
				continue
			}
			if d.sameText(*a, *b) {
				d.repeated = append(d.repeated, i)
				break
			}
		}
	}
}

func (d *document) sameText(a, b span) bool {
	if a.escaped || b.escaped {
		return d.string(a) == d.string(b)
	}
	return string(d.body[a.start:a.end]) == string(d.body[b.start:b.end])
}

// specialInText are the bytes that mean something in a string: the quote, the
// backslash, and control characters, which are not allowed.
var specialInText = func() (special [256]bool) {
	for c := range ' ' {
		special[c] = true
	}
	special['"'], special['\\'] = true, true
	return special
}()

// text reads the string that starts at the present position.
func (d *document) text() (span, bool) {
	s := span{start: int32(d.pos) + 1}
	for i := d.pos + 1; i < len(d.body); i++ {
		c := d.body[i]
		if !specialInText[c] {
			continue
		}
		switch c {
		case '"':
			s.end = int32(i)
			d.pos = i + 1
			return s, true
		case '\\':
			s.escaped = true
			_, size := readEscape(d.body[i:])
			if size == 0 {
				d.pos = i
				return s, d.fail("an escape is malformed or half of a surrogate pair")
			}
			i += size - 1
		default:
			d.pos = i
			return s, d.fail("a control character in a string")
		}
	}
	return s, d.fail("the string that begins here does not end")
}

// readEscape reads the escape at the start of text, and how long it is: 0 when
// it is none. A surrogate pair is one escape.
func readEscape(text []byte) (rune, int) {
	if len(text) < 2 {
		return 0, 0
	}
	switch text[1] {
	case '"', '\\', '/':
		return rune(text[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := readHex(text)
		if !ok {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		low, ok := readHex(text[6:])
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return 0, 0
		}
		return r, 12
	}
	return 0, 0
}

// readHex reads \uXXXX at the start of text.
func readHex(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range text[2:6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// name is the name of a member with its escapes resolved.
func (d *document) name(at int32) []byte {
	s := d.nodes[at].name
	if s.escaped {
		return []byte(d.string(s))
	}
	return d.body[s.start:s.end]
}

// raw is the text of a value as it stands in the body.
func (d *document) raw(at int32) []byte {
	n := &d.nodes[at]
	if n.kind == kindString {
		return d.body[n.value.start-1 : n.value.end+1]
	}
	return d.body[n.value.start:n.value.end]
}

// string is the text of a span with its escapes resolved.
func (d *document) string(s span) string {
	raw := d.body[s.start:s.end]
	if !s.escaped {
		return string(raw)
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			i++
			continue
		}
		r, size := readEscape(raw[i:])
		out = utf8.AppendRune(out, r)
		i += size
	}
	return string(out)
}

// repeatedBelow is the first member at or below node at that its object
// already had; 0, which is no member, when there is none.
func (d *document) repeatedBelow(at int32) int32 {
	for _, i := range d.repeated {
		if i > at && i < d.nodes[at].after {
			return i
		}
	}
	return 0
}

// pointer is the JSON Pointer (RFC 6901) to a node.
func (d *document) pointer(target int32) string {
	var b strings.Builder
	for at := int32(0); at != target; {
		place, child := 0, at+1
		for d.nodes[child].after <= target {
			child = d.nodes[child].after
			place++
		}
		b.WriteByte('/')
		if d.nodes[at].kind == kindObject {
			name := d.string(d.nodes[child].name)
			b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
		} else {
			b.WriteString(strconv.Itoa(place))
		}
		at = child
	}
	return b.String()
}
