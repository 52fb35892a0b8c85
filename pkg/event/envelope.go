package event

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The media types of the CloudEvents JSON format, and that of our data.
const (
	ContentTypeStructured = "application/cloudevents+json"
	ContentTypeBatch      = "application/cloudevents-batch+json"
	ContentTypeData       = "application/json"
)

const (
	specVersion       = "1.0"
	attributePrefix   = "ce-"
	headerSpecVersion = attributePrefix + "specversion"
	headerContentType = "content-type"
)

// attribute is a context attribute as it was found, in a header or a member.
type attribute struct {
	set  bool // there, and not null: CloudEvents takes null for absent
	kind kind // what it is if set; only a string is right
	text string
}

// envelope is what surrounds the data.
type envelope struct {
	specVersion, id, source, typ, time, contentType, replayOf, backfill attribute

	data   int32 // node of the data; -1 when it is missing
	base64 bool  // there is a data_base64
}

// slot is where an attribute of that name is kept; nil for an extension that
// this version does not know.
func (e *envelope) slot(name string) *attribute {
	switch name {
	case "specversion":
		return &e.specVersion
	case "id":
		return &e.id
	case "source":
		return &e.source
	case "type":
		return &e.typ
	case "time":
		return &e.time
	case "datacontenttype":
		return &e.contentType
	case "replayof":
		return &e.replayOf
	case "backfill":
		return &e.backfill
	}
	return nil
}

// readEnvelope reads the structured event that is the object at node at.
func (d *document) readEnvelope(at int32) envelope {
	e := envelope{data: -1}
	for i := at + 1; i < d.nodes[at].after; i = d.nodes[i].after {
		n := &d.nodes[i]
		switch name := string(d.name(i)); name {
		case "data":
			e.data = i
		case "data_base64":
			e.base64 = true
		default:
			slot := e.slot(name)
			if slot == nil || n.kind == kindNull {
				continue
			}
			slot.set, slot.kind = true, n.kind
			if n.kind == kindString {
				slot.text = d.word(n.value)
			}
		}
	}
	return e
}

// word is the text of a span; the words that are in nearly every envelope
// cost no copy.
func (d *document) word(s span) string {
	switch string(d.body[s.start:s.end]) {
	case specVersion:
		return specVersion
	case TypeCount:
		return TypeCount
	case TypeSnapshot:
		return TypeSnapshot
	case ContentTypeData:
		return ContentTypeData
	}
	return d.string(s)
}

// binaryMode reports whether the message has its attributes in headers.
func binaryMode(header map[string][]string) bool {
	if len(header) == 0 {
		return false
	}
	if _, ok := header[headerSpecVersion]; ok {
		return true
	}
	for name := range header {
		if strings.EqualFold(name, headerSpecVersion) {
			return true
		}
	}
	return false
}

// readHeaders reads the attributes of a binary event. A header that occurs
// twice, in whatever case, or that cannot be decoded is malformed.
func readHeaders(header map[string][]string) (envelope, *Fault) {
	var e envelope // the data is node 0, the body
	for name, values := range header {
		lower := strings.ToLower(name)
		attributeName, ok := strings.CutPrefix(lower, attributePrefix)
		if lower == headerContentType {
			attributeName, ok = "datacontenttype", true
		}
		slot := e.slot(attributeName)
		if !ok || slot == nil {
			continue
		}
		if slot.set || len(values) > 1 {
			return e, &Fault{
				Reason: ReasonMalformed, Pointer: attributePrefix + attributeName,
				Problem: attributeName + " occurs twice in the headers", Want: "each attribute once",
			}
		}
		if len(values) == 0 {
			continue
		}
		text, problem := decodeHeader(values[0])
		if problem != "" {
			return e, &Fault{
				Reason: ReasonMalformed, Pointer: attributePrefix + attributeName,
				Problem: fmt.Sprintf("header %s is %s: %s", lower, quote(values[0]), problem),
				Want:    "UTF-8, percent-encoded as the CloudEvents HTTP binding says",
			}
		}
		*slot = attribute{set: true, kind: kindString, text: text}
	}
	return e, nil
}

// decodeHeader undoes the encoding of a header value: double quotes around
// it, then percent signs (CloudEvents HTTP binding 1.0.2, section 3.1.3.2).
func decodeHeader(value string) (text, problem string) {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = unquoteHeader(value[1 : len(value)-1])
	}
	if strings.IndexByte(value, '%') >= 0 {
		out := make([]byte, 0, len(value))
		for i := 0; i < len(value); i++ {
			if value[i] != '%' {
				out = append(out, value[i])
				continue
			}
			if i+2 >= len(value) {
				return "", "% must be followed by two hex digits"
			}
			high, okHigh := hexDigit(value[i+1])
			low, okLow := hexDigit(value[i+2])
			if !okHigh || !okLow {
				return "", "% must be followed by two hex digits"
			}
			out = append(out, high<<4|low)
			i += 2
		}
		value = string(out)
	}
	if !utf8.ValidString(value) {
		return "", "the value is not UTF-8"
	}
	return value, ""
}

// unquoteHeader resolves the backslashes of a quoted string (RFC 7230,
// section 3.2.6).
func unquoteHeader(value string) string {
	if strings.IndexByte(value, '\\') < 0 {
		return value
	}
	out := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		out = append(out, value[i])
	}
	return string(out)
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// encodeHeader percent-encodes blanks, double quotes, percent signs and all
// that is not printable ASCII (CloudEvents HTTP binding 1.0.2, 3.1.3.2).
func encodeHeader(value string) string {
	out := make([]byte, 0, len(value)+8)
	for i := range len(value) {
		if c := value[i]; c > ' ' && c < 0x7F && c != '"' && c != '%' {
			out = append(out, c)
		} else {
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(out)
}

// isJSONType reports whether a media type is application/json or ends in
// +json, with or without parameters.
func isJSONType(mediaType string) bool {
	if mediaType == ContentTypeData {
		return true
	}
	essence, parameters, _ := strings.Cut(mediaType, ";")
	for i := range len(parameters) {
		if c := parameters[i]; c != '\t' && (c < ' ' || c > '~') {
			return false
		}
	}
	essence = strings.ToLower(strings.TrimRight(essence, " \t"))
	if essence == ContentTypeData {
		return true
	}
	kind, subtype, ok := strings.Cut(strings.TrimSuffix(essence, "+json"), "/")
	return ok && strings.HasSuffix(essence, "+json") && isRestrictedName(kind) && isRestrictedName(subtype)
}

// isRestrictedName reports whether s can be half of a media type (RFC 6838,
// section 4.2).
func isRestrictedName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte("!#$&-^_.+", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}
