package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// The headers of a dead letter. Every value is percent-encoded, so that any
// bytes survive; the body is the original event's own.
const (
	headerVendor       = "Usagebridge-Vendor"
	headerOrganization = "Usagebridge-Organization"
	headerReason       = "Usagebridge-Reason"
	headerPointer      = "Usagebridge-Pointer"
	headerProblem      = "Usagebridge-Problem"
	headerWant         = "Usagebridge-Want"
	headerFingerprint  = "Usagebridge-Fingerprint"
	headerSubject      = "Usagebridge-Original-Subject"
	headerHeaders      = "Usagebridge-Original-Headers" // as a query string
	headerCut          = "Usagebridge-Original-Headers-Left-Out"
	headerStream       = "Usagebridge-Stream"
	headerSequence     = "Usagebridge-Sequence"
	headerStored       = "Usagebridge-Stored"
	headerDeliveries   = "Usagebridge-Deliveries"
	headerIndex        = "Usagebridge-Index"
	headerFigure       = "Usagebridge-Figure"
	headerEventID      = "Usagebridge-Event-Id"
	headerSource       = "Usagebridge-Event-Source"
	headerKey          = "Usagebridge-Key"
	headerAttempts     = "Usagebridge-Attempts"
	headerAnswer       = "Usagebridge-Answer"
	headerWorker       = "Usagebridge-Worker"
	headerParked       = "Usagebridge-Parked"

	// Texts are cut at so many bytes. All of them, encoded, stay below 48 KiB,
	// and the log takes no event above 960 KiB: a letter fits into 1 MiB.
	maxText = 1024
	// maxHeaders bounds the original headers: nobody reads more, and a query
	// string of more than 10,000 is not parsed.
	maxHeaders = 1000

	// noID stands where an id cannot: it is no escaped id.
	noID = "="
)

// ErrNoLetter says that there is no dead letter of an id.
var ErrNoLetter = errors.New("no such dead letter")

// StoredLetter is a dead letter with its place in DEADLETTERS.
type StoredLetter struct {
	event.Letter
	ID       string // the letter's Place
	Sequence uint64
}

// Park stores the letters, each once: a letter whose event is parked already
// is left as it is, and that is no error, and neither is one that was parked
// within the last minutes and is gone again. A figure that the partner refuses
// once more, after a replay, gets a letter of its own: the former one is about
// to be dropped by the replay.
func (b *Broker) Park(ctx context.Context, letters []event.Letter) error {
	for len(letters) > 0 {
		n := min(len(letters), pipelined)
		if err := b.park(ctx, letters[:n]); err != nil {
			return err
		}
		letters = letters[n:]
	}
	return nil
}

func (b *Broker) park(ctx context.Context, letters []event.Letter) error {
	messages := make([]*nats.Msg, len(letters))
	for i := range letters {
		messages[i] = letterMessage(&letters[i], int(b.conn.MaxPayload()))
	}
	var failed []error
	errs := b.pipeline(ctx, messages, make([]uint64, len(messages)))
	for i := range letters {
		if err := errs[i]; err != nil && !errors.Is(err, ErrStale) {
			failed = append(failed, fmt.Errorf("park %s: %w", letters[i].Place(), err))
		}
	}
	if len(failed) > 1 {
		return fmt.Errorf("%w (and %d more)", failed[0], len(failed)-1)
	}
	return errors.Join(failed...)
}

// letterSubject has one letter per event: the last two tokens name its place
// in the log. Ids that could not be read stand as "=".
func letterSubject(l *event.Letter) string {
	return strings.Join([]string{
		"deadletter.v1", letterToken(l.Vendor), letterToken(l.Organization), letterToken(string(l.Fault.Reason)),
		letterToken(l.Original.Stream), l.Spot(),
	}, ".")
}

func letterToken(id string) string {
	if event.CheckID(id) != nil {
		return noID
	}
	return event.Escape(id)
}

func letterMessage(l *event.Letter, maxPayload int) *nats.Msg {
	m := message(letterSubject(l), l.Original.Data)
	text := func(name, value string) {
		if value != "" {
			m.Header.Set(name, url.PathEscape(cut(value, maxText)))
		}
	}
	number := func(name string, n uint64) {
		if n != 0 {
			m.Header.Set(name, strconv.FormatUint(n, 10))
		}
	}
	moment := func(name string, t time.Time) {
		if !t.IsZero() {
			m.Header.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	text(headerVendor, l.Vendor)
	text(headerOrganization, l.Organization)
	text(headerReason, string(l.Fault.Reason))
	text(headerPointer, l.Fault.Pointer)
	text(headerProblem, l.Fault.Problem)
	text(headerWant, l.Fault.Want)
	text(headerFingerprint, l.Fingerprint())
	text(headerStream, l.Original.Stream)
	number(headerSequence, l.Original.Sequence)
	moment(headerStored, l.Original.Stored)
	number(headerDeliveries, uint64(max(l.Original.Deliveries, 0)))
	number(headerIndex, uint64(max(l.Index, 0)))
	text(headerFigure, l.Figure)
	text(headerEventID, l.EventID)
	text(headerSource, l.Source)
	text(headerKey, l.Key)
	number(headerAttempts, uint64(max(l.Attempts, 0)))
	text(headerAnswer, l.Answer)
	text(headerWorker, l.Worker)
	moment(headerParked, l.Parked)
	// A subject is no text of ours: it cannot be longer than the protocol's line.
	m.Header.Set(headerSubject, url.PathEscape(l.Original.Subject))
	kept, left := encodeHeaders(l.Original.Header, maxPayload-m.Size()-maxText)
	if kept != "" {
		m.Header.Set(headerHeaders, kept)
	}
	number(headerCut, uint64(left))
	if l.Fault.Reason == event.ReasonRejected || l.Fault.Reason == event.ReasonUndeliverable {
		m.Header.Set(jetstream.MsgIDHeader, "park/"+l.Place()+"/"+url.PathEscape(l.Key)+"/"+strconv.FormatInt(l.Parked.UnixNano(), 10))
		return m
	}
	// The second is for a letter that was replayed or dropped before the server
	// gave the event out once more, because its acknowledgement was lost.
	expect(m, 0)
	m.Header.Set(jetstream.MsgIDHeader, "park/"+l.Place())
	return m
}

// cut shortens a text to at most n bytes, at the border of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// encodeHeaders writes headers as one query string of at most room bytes. What
// does not fit is left out, the CloudEvents attributes last, and counted.
func encodeHeaders(h map[string][]string, room int) (kept string, left int) {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	attribute := func(name string) int {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "ce-") || lower == "content-type" {
			return 0
		}
		return 1
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(attribute(a), attribute(b)), len(h[a])-len(h[b]), strings.Compare(a, b))
	})
	var b strings.Builder
	values := 0
	for _, name := range names {
		part := url.Values{name: h[name]}.Encode()
		values += len(h[name])
		if b.Len()+len(part)+1 > room || values > maxHeaders {
			left++
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(part)
	}
	return b.String(), left
}

// LetterFilter chooses dead letters. Zero values choose everything.
type LetterFilter struct {
	Vendor       string
	Organization string
	Reason       event.Reason
	After        uint64 // letters behind this StoredLetter.Sequence
	Limit        int    // at most so many
}

var errEnough = errors.New("enough")

// Letters yields the dead letters, oldest first, up to the newest at the time
// of the call. An error of yield ends it and comes back.
func (b *Broker) Letters(ctx context.Context, f LetterFilter, yield func(StoredLetter) error) error {
	subject := "deadletter.v1." + token(f.Vendor) + "." + token(f.Organization) + "." + token(string(f.Reason)) + ".*.*"
	n := 0
	r := reading{stream: StreamDeadLetters, filters: []string{subject}, after: f.After}
	err := b.read(ctx, r, func(m *nats.Msg, meta *nats.MsgMetadata) error {
		l, err := parseLetter(m.Header, m.Data, meta.Sequence.Stream)
		if err != nil { // not written by Park: it must not hide the others
			b.log.Error("dead letter cannot be read", "sequence", meta.Sequence.Stream, "err", err)
			return nil
		}
		if err := yield(l); err != nil {
			return err
		}
		if n++; n == f.Limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

// Letter is the dead letter of an id, or an error that wraps ErrNoLetter.
func (b *Broker) Letter(ctx context.Context, id string) (StoredLetter, error) {
	stream, place, found := strings.Cut(id, "/")
	if !found || letterToken(stream) == noID || letterToken(place) != place {
		return StoredLetter{}, fmt.Errorf("dead letter %q: want {stream}/{sequence}, with -{index} or _{figure} where `usagebridge dlq ls --each` shows it: %w", id, ErrNoLetter)
	}
	m, err := b.last(ctx, StreamDeadLetters, "deadletter.v1.*.*.*."+letterToken(stream)+"."+place)
	switch {
	case err != nil:
		return StoredLetter{}, fmt.Errorf("read dead letter %s: %w", id, err)
	case m == nil:
		return StoredLetter{}, fmt.Errorf("dead letter %s: %w", id, ErrNoLetter)
	}
	return parseLetter(m.Header, m.Data, m.Sequence)
}

// DropLetter removes a dead letter by its sequence; one that is gone already
// is no error.
func (b *Broker) DropLetter(ctx context.Context, sequence uint64) error {
	s, err := b.stream(ctx, StreamDeadLetters)
	if err != nil {
		return err
	}
	if err := s.DeleteMsg(ctx, sequence); err != nil {
		if _, gone := s.GetMsg(ctx, sequence); errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil
		}
		return fmt.Errorf("drop dead letter at %d: %w", sequence, err)
	}
	return nil
}

func parseLetter(h nats.Header, data []byte, sequence uint64) (StoredLetter, error) {
	p := letterParser{header: h}
	l := event.Letter{
		Vendor:       p.text(headerVendor),
		Organization: p.text(headerOrganization),
		Fault: event.Fault{
			Reason:  event.Reason(p.text(headerReason)),
			Pointer: p.text(headerPointer),
			Problem: p.text(headerProblem),
			Want:    p.text(headerWant),
		},
		Original: event.Message{
			Subject:    p.text(headerSubject),
			Header:     p.headers(),
			Data:       data,
			Stream:     p.text(headerStream),
			Sequence:   p.number(headerSequence),
			Stored:     p.moment(headerStored),
			Deliveries: int(p.number(headerDeliveries)),
		},
		Index:    int(p.number(headerIndex)),
		Figure:   p.text(headerFigure),
		EventID:  p.text(headerEventID),
		Source:   p.text(headerSource),
		Key:      p.text(headerKey),
		Attempts: int(p.number(headerAttempts)),
		Answer:   p.text(headerAnswer),
		Worker:   p.text(headerWorker),
		Parked:   p.moment(headerParked),
	}
	if stamp := p.header.Get(headerFingerprint); event.IsFingerprint(stamp) {
		l.Stamp = stamp // an earlier version parked letters without
	}
	if l.Index < 0 || l.Index >= event.MaxBatch {
		p.errs = append(p.errs, fmt.Errorf("header %s is %d: want 0 to %d", headerIndex, l.Index, event.MaxBatch-1))
		l.Index = 0
	}
	if len(p.errs) > 0 {
		return StoredLetter{}, fmt.Errorf("dead letter at %d: %w", sequence, errors.Join(p.errs...))
	}
	return StoredLetter{Letter: l, ID: l.Place(), Sequence: sequence}, nil
}

type letterParser struct {
	header nats.Header
	errs   []error
}

func (p *letterParser) failed(name string, err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("header %s: %w", name, err))
	}
}

func (p *letterParser) text(name string) string {
	s, err := url.PathUnescape(p.header.Get(name))
	p.failed(name, err)
	return s
}

func (p *letterParser) number(name string) uint64 {
	text := p.header.Get(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	p.failed(name, err)
	return n
}

func (p *letterParser) moment(name string) time.Time {
	text := p.header.Get(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	p.failed(name, err)
	return t
}

func (p *letterParser) headers() map[string][]string {
	text := p.header.Get(headerHeaders)
	if text == "" {
		return nil
	}
	values, err := url.ParseQuery(text)
	p.failed(headerHeaders, err)
	return values
}
