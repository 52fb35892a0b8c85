package event

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	attributeReplayOf = "replayof"
	headerReplayOf    = attributePrefix + attributeReplayOf
	transportPrefix   = "nats-" // of headers that speak to the server, in lower case
)

// errNoOriginal says what to do about a letter that has no event.
var errNoOriginal = errors.New("the letter has no bytes of its event, because they were empty or gone from the log when it was parked: publish the figure anew")

// Replay is the message that brings the letter's event to the log again:
// Subject, Header and Data are to be published, nothing else is set. It is the
// message as published, byte for byte, with these exceptions: replayof names
// the first original, so that the event keeps its place among those of equal
// time; headers that speak to the server (Nats-…) are gone; and an event of a
// batch is alone, on its own subject if the contract accepts the event, else
// on the batch subject. Whether the event is accepted this time is not judged.
//
// The error is a *Fault when the body cannot carry replayof; then the letter
// can only be edited.
func (l *Letter) Replay() (Message, error) {
	if len(l.Original.Data) == 0 {
		return Message{}, errNoOriginal
	}
	original, err := l.firstArrival()
	if err != nil {
		return Message{}, err
	}
	m := Message{Subject: l.Original.Subject, Header: l.headers(), Data: slices.Clone(l.Original.Data)}
	if binaryMode(m.Header) {
		m.Header[headerReplayOf] = []string{original}
	} else {
		if m.Data, err = withReplayOf(m.Data, original); err != nil {
			return Message{}, err
		}
		retype(m.Header)
	}
	if s, err := ParseSubject(m.Subject); err == nil && s.Kind == KindBatch {
		if r := Decode(m, Limits{}); len(r) == 1 && r[0].Event != nil {
			m.Subject = r[0].Event.Subject().String()
		}
	}
	return m, nil
}

// firstArrival is what a replay of the letter names: the arrival that the
// original itself names if it may, else the original's own.
func (l *Letter) firstArrival() (string, error) {
	own := l.Arrival()
	if own.Sequence() == 0 {
		return "", errors.New("the letter does not say where in the log its event arrived: publish the figure anew")
	}
	first, err := ParseArrival(l.replayOf())
	if err != nil || first > own {
		first = own
	}
	return first.String(), nil
}

// replayOf is the attribute of the original as far as it can be read.
func (l *Letter) replayOf() string {
	if binaryMode(l.Original.Header) {
		var texts []string
		for name, values := range l.Original.Header {
			if strings.EqualFold(name, headerReplayOf) {
				texts = append(texts, values...)
			}
		}
		if len(texts) != 1 {
			return ""
		}
		text, _ := decodeHeader(texts[0])
		return text
	}
	doc := document{body: l.Original.Data}
	if doc.parse() != "" || doc.nodes[0].kind != kindObject {
		return ""
	}
	return doc.readEnvelope(0).replayOf.text
}

// headers are the original's that belong to the event.
func (l *Letter) headers() map[string][]string {
	header := map[string][]string{}
	for name, values := range l.Original.Header {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, transportPrefix) && lower != headerReplayOf {
			header[name] = slices.Clone(values)
		}
	}
	return header
}

// retype makes headers say that the body is one event and no batch.
func retype(header map[string][]string) {
	for name, values := range header {
		for i, value := range values {
			media, parameters, _ := strings.Cut(value, ";")
			if strings.EqualFold(name, headerContentType) && strings.EqualFold(strings.TrimSpace(media), ContentTypeBatch) {
				values[i] = strings.TrimSuffix(ContentTypeStructured+";"+parameters, ";")
			}
		}
	}
}

// withReplayOf is the envelope with that replayof and every other byte as it
// was. The error is a *Fault.
func withReplayOf(body []byte, original string) ([]byte, error) {
	const pointer = "/" + attributeReplayOf
	doc := document{body: body}
	if problem := doc.parse(); problem != "" {
		return nil, &Fault{Reason: ReasonMalformed, Problem: problem, Want: "a JSON envelope, which can carry replayof: edit the letter"}
	}
	root := &doc.nodes[0]
	if root.kind != kindObject {
		return nil, &Fault{Reason: ReasonMalformed, Problem: "the body is " + root.kind.String(), Want: "a JSON envelope, which can carry replayof: edit the letter"}
	}
	found := int32(0)
	for i := int32(1); i < root.after; i = doc.nodes[i].after {
		if string(doc.name(i)) != attributeReplayOf {
			continue
		}
		if found != 0 {
			return nil, &Fault{Reason: ReasonMalformed, Pointer: pointer, Problem: "replayof occurs twice", Want: "it once, or not at all: edit the letter"}
		}
		found = i
	}
	open := int(root.value.start) + 1
	if found == 0 {
		member := appendMember(nil, `"`+attributeReplayOf+`":`, original)
		if root.size > 0 {
			member = append(member, ',')
		}
		return slices.Concat(body[:open], member, body[open:]), nil
	}
	value := doc.nodes[found].value
	if doc.nodes[found].kind == kindString { // its span is without the quotes
		value.start, value.end = value.start-1, value.end+1
	}
	return slices.Concat(body[:value.start], appendString(nil, original), body[value.end:]), nil
}

// Renamed is an edited envelope of the letter's event, under another id if it
// needs one: the ledger may know the original under its source and id, and
// what comes under them with other content contradicts it and is dead. So, if
// the original is an event, and the edited one differs from it and has its
// source and id, the id becomes {id}-edited-{eight hex digits of a digest of
// the edited event}. The same edit gives the same id, and no other byte is
// changed. Of an id that is too long for that the end is left out.
func (l *Letter) Renamed(body []byte) []byte {
	first, err := l.firstArrival()
	if err != nil {
		return body
	}
	data, err := withReplayOf(body, first)
	if err != nil {
		return body
	}
	edited, err := readAlone(data)
	if err != nil {
		return body
	}
	original := l.event()
	if original == nil || original.ID != edited.ID || original.Source != edited.Source {
		return body
	}
	content := edited.content()
	if bytes.Equal(content, original.content()) {
		return body
	}
	return withID(body, editedID(edited.ID, digest(content)))
}

// event is the letter's event, nil when the contract does not accept it.
func (l *Letter) event() *Event {
	m, err := l.Replay()
	if err != nil {
		return nil
	}
	if r := Decode(m, Limits{}); len(r) == 1 {
		return r[0].Event
	}
	return nil
}

// content is the event apart from its place in the log.
func (e *Event) content() []byte {
	anew := *e
	anew.ReplayOf = ""
	return anew.Structured()
}

// editedID is the id of an edited event, by its id so far and what it is now.
func editedID(id string, content uint64) string {
	suffix := fmt.Sprintf("-edited-%08x", content>>32)
	end := min(len(id), MaxAttributeBytes-len(suffix))
	for end < len(id) && !utf8.RuneStart(id[end]) {
		end--
	}
	return id[:end] + suffix
}

// withID is the envelope of an event with another id.
func withID(body []byte, id string) []byte {
	doc := document{body: body}
	if doc.parse() != "" {
		return body
	}
	for i := int32(1); i < doc.nodes[0].after; i = doc.nodes[i].after {
		if string(doc.name(i)) == "id" {
			value := doc.nodes[i].value // without the quotes
			return slices.Concat(body[:value.start-1], appendString(nil, id), body[value.end+1:])
		}
	}
	return body
}

// JSON is the letter's event as one structured envelope, whatever its mode:
// what a person edits. A structured event comes as it was published. Of a
// binary one, a header that cannot be decoded comes as it is, and an attribute
// that the headers give more than once is left out, because nobody could say
// which value is right. The error, a *Fault unless the letter has no event,
// says why there is nothing that could be edited in parts.
func (l *Letter) JSON() ([]byte, error) {
	if len(l.Original.Data) == 0 {
		return nil, errNoOriginal
	}
	binary := binaryMode(l.Original.Header)
	doc := document{body: l.Original.Data}
	if problem := doc.parse(); problem != "" {
		return nil, &Fault{Reason: ReasonMalformed, Problem: problem, Want: "JSON, which can be edited in parts"}
	}
	if k := doc.nodes[0].kind; k != kindObject && !binary {
		return nil, &Fault{Reason: ReasonMalformed, Problem: "the body is " + k.String(), Want: "one JSON envelope, which can be edited in parts"}
	}
	if !binary {
		return slices.Clone(l.Original.Data), nil
	}
	attributes := l.attributes()
	names := slices.SortedFunc(maps.Keys(attributes), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	dst := []byte{'{'}
	for _, name := range names {
		dst = appendString(dst, name)
		dst = append(appendMember(dst, ":", attributes[name]), ',')
	}
	dst = append(dst, `"data":`...)
	return append(append(dst, l.Original.Data...), '}'), nil
}

// rank puts the attributes in the order in which AppendStructured writes them,
// and those that this version does not know behind them.
func rank(name string) int {
	order := [...]string{"specversion", "id", "source", "type", "time", attributeReplayOf, "backfill", "datacontenttype"}
	if i := slices.Index(order[:], name); i >= 0 {
		return i
	}
	return len(order)
}

// attributes are those of the headers, decoded, without those that occur more
// than once.
func (l *Letter) attributes() map[string]string {
	texts := map[string][]string{}
	for header, values := range l.Original.Header {
		name, ok := strings.CutPrefix(strings.ToLower(header), attributePrefix)
		if strings.EqualFold(header, headerContentType) {
			name, ok = "datacontenttype", true
		}
		if ok && name != "" && name != "data" && name != "data_base64" {
			texts[name] = append(texts[name], values...)
		}
	}
	attributes := map[string]string{}
	for name, values := range texts {
		if len(values) != 1 {
			continue
		}
		text, problem := decodeHeader(values[0])
		if problem != "" {
			text = values[0]
		}
		attributes[name] = strings.ToValidUTF8(text, "�")
	}
	return attributes
}

// Edited is the message that brings the letter's event to the log again as a
// person mended it, and that event. The body is one structured envelope; what
// Replay sets is set in it, whatever it says, its id is that of Renamed, and
// the subject is the event's own, so that ids may be mended too. The vendor must
// stay. The age is not judged. An error joins everything that is wrong with the envelope, each a
// *Fault.
func (l *Letter) Edited(body []byte) (Message, *Event, error) {
	original, err := l.firstArrival()
	if err != nil {
		return Message{}, nil, err
	}
	data, err := withReplayOf(l.Renamed(body), original)
	if err != nil {
		return Message{}, nil, fmt.Errorf("the edited event: %w", err)
	}
	e, err := readAlone(data)
	if err != nil {
		return Message{}, nil, fmt.Errorf("the edited event: %w", err)
	}
	if e.Vendor != l.Vendor {
		return Message{}, nil, fmt.Errorf("the edited event: %w", &Fault{
			Reason: ReasonInvalid, Pointer: "/data/vendorId", Problem: "vendorId is " + quote(e.Vendor) + ", the letter is one of " + quote(l.Vendor), Want: quote(l.Vendor),
		})
	}
	m := Message{Subject: e.Subject().String(), Header: l.headers(), Data: data}
	for name := range m.Header {
		if lower := strings.ToLower(name); lower == headerContentType || strings.HasPrefix(lower, attributePrefix) {
			delete(m.Header, name)
		}
	}
	m.Header[headerContentType] = []string{ContentTypeStructured}
	return m, e, nil
}

// readAlone reads a structured event that has no subject yet. The error joins
// all its faults.
func readAlone(body []byte) (*Event, error) {
	d := decoder{doc: document{body: body}, unaddressed: true}
	if problem := d.doc.parse(); problem != "" {
		return nil, &Fault{Reason: ReasonMalformed, Problem: problem}
	}
	r := d.structured(0, 0, place{element: -1, count: -1})
	if r.Fault == nil {
		return r.Event, nil
	}
	var errs []error
	for _, fault := range r.Fault.All() {
		errs = append(errs, fault)
	}
	return nil, errors.Join(errs...)
}
