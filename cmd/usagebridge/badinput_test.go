package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// oddIDs are ids that real vendors have.
var oddIDs = []string{"with blank", "with.dot", "a>b", "a*b", "MCOCAP_FACULTY\u00a0", "trailing ", "😀", "[500 seats]", "a/b", "=20", "%2F", "..", "ÄÖ"}

func TestBadInputIsParkedWithItsReasonAndNothingValidIsLost(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	stop := s.worker()
	defer stop()

	count := func(id, organization, account, units, when string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"//test","type":"usage.count.v1","time":%q,`+
			`"data":{"vendorId":"acme","organizationId":%q,"accountId":%q,"serviceId":"s","unitCount":%s}}`, id, when, organization, account, units)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	bad := []struct {
		name, subject, body string
		reason              event.Reason
		where               string
	}{
		{"bytes that are no JSON", "count.a.s", "\x00\xff\xfe", event.ReasonMalformed, ""},
		{"half an event", "count.a.s", `{"specversion":"1.0",`, event.ReasonMalformed, ""},
		{"not CloudEvents", "count.a.s", `{"hello":"world"}`, event.ReasonMalformed, ""},
		{"a count that is text", "count.a.s", count("1", "m", "a", `"5"`, now), event.ReasonInvalid, "/data/unitCount"},
		{"a count that is null", "count.a.s", count("2", "m", "a", `null`, now), event.ReasonInvalid, "/data/unitCount"},
		{"a negative count", "count.a.s", count("3", "m", "a", `-1`, now), event.ReasonInvalid, "/data/unitCount"},
		{"NaN", "count.a.s", count("4", "m", "a", `NaN`, now), event.ReasonMalformed, ""},
		{"a huge count", "count.a.s", count("5", "m", "a", `1e13`, now), event.ReasonInvalid, "/data/unitCount"},
		{"seven decimals", "count.a.s", count("6", "m", "a", `0.0000001`, now), event.ReasonInvalid, "/data/unitCount"},
		{"a time that is none", "count.a.s", count("7", "m", "a", `1`, "yesterday"), event.ReasonInvalid, "/time"},
		{"an account that the subject does not name", "count.a.s", count("8", "m", "b", `1`, now), event.ReasonSubjectMismatch, "/data/accountId"},
		{"another organization", "count.a.s", count("9", "other", "a", `1`, now), event.ReasonSubjectMismatch, "/data/organizationId"},
		{"a year ahead", "count.a.s", count("10", "m", "a", `1`, time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339)), event.ReasonTooFarAhead, "/time"},
		{"a year old", "count.a.s", count("11", "m", "a", `1`, time.Now().AddDate(-1, 0, 0).UTC().Format(time.RFC3339)), event.ReasonTooOld, "/time"},
		{"a type nobody knows", "count.a.s", strings.Replace(count("12", "m", "a", `1`, now), "usage.count.v1", "usage.count.v9", 1), event.ReasonUnknownType, "/type"},
		{"a channel nobody knows", "gauge.a.s", count("13", "m", "a", `1`, now), event.ReasonSubjectMismatch, ""},
		{"an empty batch", "batch", `[]`, event.ReasonInvalid, ""},
		{
			"a batch of two integrations", "batch", "[" + count("14", "m", "in batch", `7`, now) + "," + count("15", "other", "a", `1`, now) + "]",
			event.ReasonSubjectMismatch, "/1/data/organizationId",
		},
	}
	conn := s.app.broker.Conn()
	for _, b := range bad {
		if err := s.app.broker.Append(t.Context(), "usage.v1.acme.m."+b.subject, nil, []byte(b.body), ""); err != nil {
			t.Fatalf("%s: %v", b.name, err)
		}
	}
	if err := conn.Publish("usage.v1.acme.m.count.a.s", make([]byte, 10<<20)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("10 MB past the client's own check: got %v, want %v", err, nats.ErrMaxPayload)
	}
	s.publishOddIDs()

	letters := s.letters(len(bad))
	for _, b := range bad {
		found := false
		for _, l := range letters {
			if l.Fault.Reason == b.reason && strings.HasPrefix(l.Fault.Pointer, b.where) && strings.Contains(b.body, strings.TrimRight(string(l.Original.Data), "]")) && l.Fault.Problem != "" {
				found = true
			}
		}
		if !found {
			t.Errorf("%s: no dead letter with reason %s at %q and the original bytes", b.name, b.reason, b.where)
		}
	}
	eventuallyTrue(t, time.Minute, "every valid figure is at the partner", func() bool {
		for _, id := range oddIDs {
			if got, _ := s.partner.Value("acme/m", id, id); got != "1.5" {
				return false
			}
		}
		got, _ := s.partner.Value("acme/m", "in batch", "s")
		return got == "7"
	})
}

// publishOddIDs publishes accounts, services and counts with odd ids, and what
// the good element of the mixed batch needs.
func (s *crashSite) publishOddIDs() {
	s.t.Helper()
	p, err := publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		s.t.Fatal(err)
	}
	events := []event.Data{event.Account{AccountID: "in batch", Name: "B"}, event.Service{ServiceID: "s", Name: "S"}}
	for _, id := range oddIDs {
		events = append(events, event.Account{AccountID: id, Name: id}, event.Service{ServiceID: id, Name: id},
			event.Count{AccountID: id, ServiceID: id, UnitCount: event.UnitsScale * 3 / 2})
	}
	for _, data := range events {
		if _, err := p.Publish(s.t.Context(), &event.Event{Organization: "m", Data: data}); err != nil {
			s.t.Fatalf("publish %+v: %v", data, err)
		}
	}
	huge := &event.Event{Organization: "m", Data: event.Account{AccountID: "a", Name: strings.Repeat("x", 10<<20)}}
	if _, err := p.Publish(s.t.Context(), huge); err == nil {
		s.t.Error("an event of 10 MB: got no error")
	}
}

// letters waits for n dead letters and returns them.
func (s *crashSite) letters(n int) (letters []broker.StoredLetter) {
	s.t.Helper()
	eventuallyTrue(s.t, time.Minute, fmt.Sprintf("there are %d dead letters", n), func() bool {
		letters = nil
		err := s.app.broker.Letters(s.t.Context(), broker.LetterFilter{}, func(l broker.StoredLetter) error {
			letters = append(letters, l)
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
		return len(letters) >= n
	})
	if len(letters) != n {
		s.t.Errorf("dead letters: got %d, want %d", len(letters), n)
	}
	return letters
}
