package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// brokenMessage is a message that can never be applied, and why.
type brokenMessage struct {
	reason  event.Reason
	message demoMessage
}

// spoiler spoils copies of one good event. Its figure would be the newest of
// its key, and is one that no key of the plan has: whatever is applied in spite
// of being broken shows at the partner.
type spoiler struct {
	good   event.Event
	list   []brokenMessage
	figure string
}

const wrongUnits = event.Units(987_654_321_123_456)

func newSpoiler(key demoKey, start time.Time) *spoiler {
	good := sentFigure{key: key, id: "broken", time: start.Add(-time.Millisecond), units: wrongUnits}.event()
	return &spoiler{good: *good, figure: wrongUnits.String()}
}

func (b *spoiler) add(reason event.Reason, subject string, body []byte) {
	b.list = append(b.list, brokenMessage{reason, demoMessage{subject: subject, body: body, events: 1}})
}

// with adds a copy of the good event with a change.
func (b *spoiler) with(reason event.Reason, change func(e *event.Event)) {
	e := b.good
	change(&e)
	b.add(reason, b.good.Subject().String(), e.Structured())
}

// text adds the good event with a piece of its text replaced.
func (b *spoiler) text(reason event.Reason, old, replacement string) {
	body := b.good.Structured()
	if !bytes.Contains(body, []byte(old)) {
		panic(fmt.Sprintf("demo: %s has no %s to be replaced", body, old))
	}
	b.add(reason, b.good.Subject().String(), bytes.Replace(body, []byte(old), []byte(replacement), 1))
}

// at adds the good event on another subject.
func (b *spoiler) at(subject string) {
	b.add(event.ReasonSubjectMismatch, subject, b.good.Structured())
}

// brokenMessages has every way to be dead that needs neither a partner nor an
// earlier event, for one key. other is another organization of the vendor.
func brokenMessages(key demoKey, other string, start time.Time) []brokenMessage {
	b := newSpoiler(key, start)
	b.malformed()
	b.invalid()
	for _, name := range []string{"usage.count.v9", "com.example.invoice", "usage.counts.v1"} {
		b.with(event.ReasonUnknownType, func(e *event.Event) { e.Type = name })
	}
	subject := b.good.Subject()
	subject.Account = "somebody-else"
	b.at(subject.String())
	subject = b.good.Subject()
	subject.Organization = other
	b.at(subject.String())
	b.at(fmt.Sprintf("usage.v1.%s.%s.counts", demoVendor, event.Escape(key.organization)))
	b.at(event.Subject{Kind: event.KindAccount, Vendor: demoVendor, Organization: key.organization, Account: key.account}.String())
	for _, ahead := range []time.Duration{365 * 24 * time.Hour, 2 * time.Hour} {
		b.with(event.ReasonTooFarAhead, func(e *event.Event) { e.Time = start.Add(ahead) })
	}
	for _, ago := range []time.Duration{40 * 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
		b.with(event.ReasonTooOld, func(e *event.Event) { e.Time = start.Add(-ago) })
	}
	return b.list
}

func (b *spoiler) malformed() {
	subject := b.good.Subject().String()
	whole := b.good.Structured()
	b.add(event.ReasonMalformed, subject, []byte("unit count for today: 42"))
	b.add(event.ReasonMalformed, subject, whole[:len(whole)/2])
	b.add(event.ReasonMalformed, subject, []byte("null"))
	b.add(event.ReasonMalformed, subject, nil)
	b.text(event.ReasonMalformed, `"specversion":"1.0",`, ``)
	b.text(event.ReasonMalformed, `"unitCount":`, `"unitCount":1,"unitCount":`)
	b.text(event.ReasonMalformed, `"id":"broken"`, "\"id\":\"bro\xffken\"")
	m := binaryMessage(&b.good, false)
	m.header["ce-id"] = []string{"100%"}
	b.list = append(b.list, brokenMessage{event.ReasonMalformed, m})
}

func (b *spoiler) invalid() {
	for _, units := range []string{"-1", "0.1234567", "1e13", `"42"`, "null", "[1]"} {
		b.text(event.ReasonInvalid, `"unitCount":`+b.figure, `"unitCount":`+units)
	}
	b.text(event.ReasonInvalid, `"accountId":`, `"account":`)
	b.text(event.ReasonInvalid, `"id":"broken"`, `"id":""`)
	b.text(event.ReasonInvalid, `Z","datacontenttype"`, `","datacontenttype"`) // no zone
	b.text(event.ReasonInvalid, `"application/json"`, `"text/csv"`)
	b.text(event.ReasonInvalid, `"specversion":"1.0"`, `"specversion":"0.3"`)
	b.text(event.ReasonInvalid, `"data":`, `"payload":`)
	batch := event.Subject{Kind: event.KindBatch, Vendor: demoVendor, Organization: b.good.Organization}.String()
	b.add(event.ReasonInvalid, batch, []byte("[]"))
	tooMany := bytes.TrimSuffix(bytes.Repeat([]byte("{},"), event.MaxBatch+1), []byte(","))
	b.add(event.ReasonInvalid, batch, append(append([]byte{'['}, tooMany...), ']'))
}

// brokenElements are broken events of an organization for batches of good
// ones.
func brokenElements(organization string, start time.Time) []brokenMessage {
	b := newSpoiler(demoKey{organization, "a-1", "backup"}, start)
	b.text(event.ReasonInvalid, `"unitCount":`+b.figure, `"unitCount":-7`)
	b.with(event.ReasonTooFarAhead, func(e *event.Event) { e.Time = start.Add(365 * 24 * time.Hour) })
	b.with(event.ReasonUnknownType, func(e *event.Event) { e.Type = "usage.count.v9" })
	b.with(event.ReasonSubjectMismatch, func(e *event.Event) { e.Organization = "somebody-else" })
	b.add(event.ReasonMalformed, "", json.RawMessage("42"))
	return b.list
}
