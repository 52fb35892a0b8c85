package broker

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// of is a letter of another integration.
func of(vendor, organization string, sequence uint64) event.Letter {
	l := letter(sequence, 0)
	l.Vendor, l.Organization = vendor, organization
	return l
}

func TestLettersOfAnIntegrationAreFoundOneByOne(t *testing.T) {
	b := open(t, 1)
	other := letter(9, 0)
	other.Fault.Reason = event.ReasonTooOld
	park(t, b, letter(7, 0), of("acme", "other", 1), of("acme", "", 2), letter(8, 3), other)
	if err := b.Append(t.Context(), "deadletter.v1.acme.o=201.invalid.EVENTS_acme.70", map[string][]string{headerSequence: {"x"}}, nil, ""); err != nil {
		t.Fatal(err)
	}
	park(t, b, letter(10, 0), of("", "o 1", 3))

	walk := func(vendor, organization string, reason event.Reason) (found string) {
		for after := uint64(0); ; {
			l, ok, err := b.NextLetter(t.Context(), vendor, organization, reason, after)
			if err != nil {
				t.Fatalf("next of %q/%q behind %d: %v", vendor, organization, after, err)
			}
			if !ok {
				return found
			}
			found += fmt.Sprintf("%d:%s ", l.Sequence, l.ID)
			after = l.Sequence
		}
	}
	for _, tt := range []struct {
		vendor, organization string
		reason               event.Reason
		want                 string
	}{
		{"acme", "o 1", "", "1:EVENTS_acme/7 4:EVENTS_acme/8-3 5:EVENTS_acme/9 7:EVENTS_acme/10 "}, // 6 cannot be read
		{"acme", "o 1", event.ReasonTooOld, "5:EVENTS_acme/9 "},
		{"acme", "other", "", "2:EVENTS_acme/1 "},
		{"acme", "", "", "3:EVENTS_acme/2 "},
		{"", "o 1", "", "8:EVENTS_acme/3 "},
		{"acme", "o", "", ""},
		{"nobody", "o 1", "", ""},
	} {
		if got := walk(tt.vendor, tt.organization, tt.reason); got != tt.want {
			t.Errorf("letters of %q/%q %s: %q, want %q", tt.vendor, tt.organization, tt.reason, got, tt.want)
		}
	}
	if err := b.DropLetter(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if l, ok, err := b.NextLetter(t.Context(), "acme", "o 1", "", 1); err != nil || !ok || l.Sequence != 5 {
		t.Errorf("behind 1 after 4 was dropped: %d, %v, %v; want 5", l.Sequence, ok, err)
	}
}

func TestAnEventIsPublishedAgainOnceForEachID(t *testing.T) {
	b := open(t, 1)
	m := event.Message{
		Subject: "usage.v1.acme.o.count.a.s", Data: []byte("{}"),
		Header: map[string][]string{"content-type": {"application/cloudevents+json"}, "Nats-Msg-Id": {"its own"}, "Nats-Expected-Last-Sequence": {"99"}},
	}
	for i, want := range []bool{false, true} {
		if duplicate, err := b.Republish(t.Context(), m, "replay/r/EVENTS_acme/7"); err != nil || duplicate != want {
			t.Errorf("time %d: duplicate %v, %v; want %v", i+1, duplicate, err, want)
		}
	}
	if duplicate, err := b.Republish(t.Context(), m, "replay/another/EVENTS_acme/7"); err != nil || duplicate {
		t.Errorf("under another id: duplicate %v, %v; want it stored", duplicate, err)
	}
	v, err := b.Vendor(t.Context(), "acme")
	if err != nil || v.Messages != 2 {
		t.Errorf("the log has %d messages, %v; want 2", v.Messages, err)
	}
	stored, err := b.Message(t.Context(), "acme", 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(stored.Subject, stored.Header); got != "usage.v1.acme.o.count.a.smap[Nats-Msg-Id:[replay/r/EVENTS_acme/7] content-type:[application/cloudevents+json]]" {
		t.Errorf("stored %s, want its subject, its own header and our id", got)
	}
	if m.Header["Nats-Msg-Id"][0] != "its own" {
		t.Errorf("the message was changed: %v", m.Header)
	}
}

func TestAMessageThatTheLogNeverTakesIsRefusedForGood(t *testing.T) {
	b := open(t, 1)
	var permanent interface{ Permanent() bool }
	for name, m := range map[string]event.Message{
		"larger than the stream takes": {Subject: "usage.v1.acme.o.count.a.s", Data: bytes.Repeat([]byte(" "), maxEvent+1)},
		"larger than the server takes": {Subject: "usage.v1.acme.o.count.a.s", Data: bytes.Repeat([]byte(" "), 2<<20)},
		"no subject":                   {Data: []byte("{}")},
	} {
		if _, err := b.Republish(t.Context(), m, name); !errors.As(err, &permanent) || !permanent.Permanent() {
			t.Errorf("%s: %v, want an error that is permanent", name, err)
		}
	}
	_, err := b.Republish(t.Context(), event.Message{Subject: "usage.v1.nobody.o.count.a.s"}, "x")
	if err == nil || errors.As(err, &permanent) {
		t.Errorf("a vendor that is not set up yet: %v, want an error that is not permanent", err)
	}
}
