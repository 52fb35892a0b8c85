package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// mode is how the events are in a request (CloudEvents HTTP binding 1.0.2,
// section 3).
type mode int

const (
	structured mode = iota // the body is one envelope
	batch                  // the body is an array of envelopes
	plainJSON              // structured or batch, as the body is
	binary                 // attributes in headers, the body is the data
)

const rightTypes = event.ContentTypeStructured + ", " + event.ContentTypeBatch + ", " + event.ContentTypeData

// modeOf reads the mode off the headers, or says which would be right.
func modeOf(w http.ResponseWriter, h http.Header) (mode, *problem) {
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		w.Header().Set("Accept-Encoding", "identity")
		return 0, &problem{
			Status: http.StatusUnsupportedMediaType,
			Detail: fmt.Sprintf("Content-Encoding is %.64q: send the body as it is", encoding),
		}
	}
	contentType := h.Get("Content-Type")
	if m, ok := modeOfType(contentType, hasAttributes(h)); ok {
		return m, nil
	}
	w.Header().Set("Accept", rightTypes)
	return 0, &problem{
		Status: http.StatusUnsupportedMediaType,
		Detail: fmt.Sprintf("Content-Type is %.64q: want %s for one event, %s for an array of them, %s for either, all in UTF-8; or ce-… headers and the data as %s",
			contentType, event.ContentTypeStructured, event.ContentTypeBatch, event.ContentTypeData, event.ContentTypeData),
	}
}

func modeOfType(contentType string, attributes bool) (mode, bool) {
	if contentType == "" {
		return binary, attributes
	}
	media, parameters, err := mime.ParseMediaType(contentType)
	if charset, set := parameters["charset"]; err != nil || set && !strings.EqualFold(charset, "utf-8") {
		return 0, false
	}
	switch {
	case media == event.ContentTypeStructured:
		return structured, true
	case media == event.ContentTypeBatch:
		return batch, true
	case strings.HasPrefix(media, "application/cloudevents"): // another format, or another version
		return 0, false
	case attributes:
		return binary, media == event.ContentTypeData || strings.HasSuffix(media, "+json")
	}
	return plainJSON, media == event.ContentTypeData
}

// hasAttributes reports whether there is any ce-… header.
func hasAttributes(h http.Header) bool {
	for name := range h {
		if len(name) >= 3 && strings.EqualFold(name[:3], "ce-") {
			return true
		}
	}
	return false
}

// submission is the events of one request, not checked yet.
type submission struct {
	mode   mode
	header http.Header
	body   []byte
}

// pointer is the place of event i in the body.
func (s *submission) pointer(i int) string {
	if s.mode != batch {
		return ""
	}
	return "/" + strconv.Itoa(i)
}

// decode reads and checks all events, their times against now. It answers
// with either the events or everything that is wrong with any of them.
func (s *submission) decode(now time.Time, limits event.Limits) ([]*event.Event, *problem) {
	if fault := s.settle(); fault != nil {
		return nil, refuse([]event.Result{{Fault: fault}})
	}
	first := s.integration()
	m := event.Message{
		// Under the batch subject of an integration every type is accepted.
		Subject: event.Subject{Kind: event.KindBatch, Vendor: first.Vendor, Organization: first.Organization}.String(),
		Data:    s.body, Stored: now,
	}
	if s.mode == binary {
		m.Header = s.header
	}
	results := event.Decode(m, limits)
	s.judge(results, first)
	events := make([]*event.Event, len(results))
	for i, r := range results {
		if r.Fault != nil {
			return nil, refuse(results)
		}
		events[i] = r.Event
	}
	return events, nil
}

// settle makes plainJSON what the body is and holds the other modes against
// the body and the headers.
func (s *submission) settle() *event.Fault {
	array := bytes.HasPrefix(bytes.TrimLeft(s.body, " \t\r\n"), []byte("["))
	object := bytes.HasPrefix(bytes.TrimLeft(s.body, " \t\r\n"), []byte("{"))
	switch {
	case s.mode == plainJSON && array:
		s.mode = batch
	case s.mode == plainJSON:
		s.mode = structured
	case s.mode == structured && array:
		return &event.Fault{Reason: event.ReasonMalformed, Problem: "the body is an array", Want: "one event, or Content-Type " + event.ContentTypeBatch}
	case s.mode == batch && object:
		return &event.Fault{Reason: event.ReasonMalformed, Problem: "the body is an object", Want: "an array of events, or Content-Type " + event.ContentTypeStructured}
	case s.mode == binary && s.header.Get("ce-specversion") == "":
		return &event.Fault{Reason: event.ReasonMalformed, Pointer: "ce-specversion", Problem: "ce-specversion is missing beside other ce-… headers", Want: "1.0"}
	}
	return nil
}

// integration is that of the first event that names one. Whatever it misreads
// is refused by event.Decode: it is stricter, and compares.
func (s *submission) integration() event.Subject {
	var envelopes []json.RawMessage
	switch s.mode {
	case batch:
		_ = json.Unmarshal(s.body, &envelopes)
	case binary:
		return integrationOf(s.body)
	default:
		envelopes = []json.RawMessage{s.body}
	}
	for _, envelope := range envelopes {
		var members map[string]json.RawMessage // a map, because member names are case-sensitive
		_ = json.Unmarshal(envelope, &members)
		if named := integrationOf(members["data"]); named.Vendor != "" {
			return named
		}
	}
	return event.Subject{}
}

// integrationOf reads the integration off the data of an event; the zero value
// when it names none.
func integrationOf(data []byte) event.Subject {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(data, &members)
	named := event.Subject{Kind: event.KindBatch}
	_ = json.Unmarshal(members["vendorId"], &named.Vendor)
	_ = json.Unmarshal(members["organizationId"], &named.Organization)
	if named.Check() != nil {
		return event.Subject{}
	}
	return named
}

// judge adds what the log does not look at, and says what Decode says of the
// subject in words that fit a request, which has none.
func (s *submission) judge(results []event.Result, first event.Subject) {
	type name struct{ source, id string }
	seen := make(map[name]int, len(results))
	for i := range results {
		r := &results[i]
		if r.Fault != nil {
			if r.Fault.Reason == event.ReasonSubjectMismatch {
				r.Fault.Problem = "the event is of another integration than " + strconv.Quote(first.Integration()) + ", which is that of the first"
				r.Fault.Want = "events of one integration in a request"
			}
			continue
		}
		earlier, repeated := seen[name{r.Event.Source, r.Event.ID}]
		switch {
		case r.Event.ReplayOf != "":
			r.Event, r.Fault = nil, s.replayed(i)
		case !repeated:
			seen[name{r.Event.Source, r.Event.ID}] = i
		case !bytes.Equal(results[earlier].Event.Structured(), r.Event.Structured()):
			r.Event, r.Fault = nil, &event.Fault{
				Reason: event.ReasonConflict, Pointer: s.pointer(i) + "/id",
				Problem: fmt.Sprintf("event %d has the same id and source, and other content", earlier), Want: "an id of its own",
			}
		}
	}
}

// replayed refuses an event that claims the place of an earlier one in the
// log. Only an operator replays, and what is claimed here could not be
// compared with the log before it is too late to refuse.
func (s *submission) replayed(i int) *event.Fault {
	f := &event.Fault{
		Reason: event.ReasonInvalid, Pointer: s.pointer(i) + "/replayof",
		Problem: "replayof is set", Want: "no replayof: operators replay with usagebridge dlq replay",
	}
	if s.mode == binary {
		f.Pointer = "ce-replayof"
	}
	return f
}

// refuse lists every problem of every event: 400 when something could not be
// read, 422 when all could and the contract forbids it.
func refuse(results []event.Result) *problem {
	p := &problem{Status: http.StatusUnprocessableEntity}
	bad := 0
	for _, r := range results {
		if r.Fault == nil {
			continue
		}
		bad++
		if r.Fault.Reason == event.ReasonMalformed {
			p.Status = http.StatusBadRequest
		}
		for _, f := range r.Fault.All() {
			p.Errors = append(p.Errors, findingOf(f))
		}
	}
	p.Detail = fmt.Sprintf("nothing was published: errors has what is wrong with %d of %d events", bad, len(results))
	return p
}
