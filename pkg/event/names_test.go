package event_test

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestASubjectThatIsWrongStillNamesItsFamilyAndOrganization(t *testing.T) {
	for subject, want := range map[string][2]string{
		"catalog.v1.acme.msp=2E1.account.a": {event.FamilyCatalog, "msp.1"},
		"usage.v9.acme.msp-1":               {event.FamilyUsage, "msp-1"},
		"usage.v1.acme.=zz.x":               {event.FamilyUsage, "=zz"},
		"catalog":                           {event.FamilyUsage, ""},
		"":                                  {event.FamilyUsage, ""},
	} {
		if family, organization := event.FamilyOf(subject), event.OrganizationOf(subject); family != want[0] || organization != want[1] {
			t.Errorf("%q: got %q and %q, want %q", subject, family, organization, want)
		}
	}
}

// The digest is kept in the ledger: another value would forget every event.
func TestTheDigestOfAnEventNeverChanges(t *testing.T) {
	e := event.Event{Source: "//billing.acme.example", ID: "01J9Z3K8"}
	if got, want := e.Digest(), uint64(0x6C9D57B634EFA05B); got != want {
		t.Errorf("got %#x, want %#x", got, want)
	}
	a, b := event.Event{Source: "s", ID: "1x"}, event.Event{Source: "s1", ID: "x"}
	if a.Digest() == b.Digest() {
		t.Errorf("got %#x for both, want source and id kept apart", a.Digest())
	}
}

func TestALetterKnowsWhereItsOriginalArrived(t *testing.T) {
	l := event.Letter{Original: event.Message{Sequence: 4711}, Index: 3}
	if got := l.Arrival().String(); got != "4711-3" {
		t.Errorf("got %s, want 4711-3", got)
	}
}

// part is a part of the same snapshot as every other part.
func part(change func(*event.Event, *event.Snapshot)) *event.Event {
	e := &event.Event{ID: "s-1/1", Source: "//billing.acme.example", Type: event.TypeSnapshot, Vendor: "acme", Organization: "msp-0042"}
	s := event.Snapshot{Part: 1, Parts: 2, SnapshotID: "s-1"}
	if change != nil {
		change(e, &s)
	}
	e.Data = s
	return e
}

func TestAllPartsOfASnapshotHaveOneDigestAndNothingElseHasIt(t *testing.T) {
	whole := part(nil).SnapshotDigest()
	if want := uint64(0x5798F7E9758F5B64); whole != want {
		t.Errorf("the digest that the ledger keeps: got %#x, want %#x", whole, want)
	}
	same := part(func(e *event.Event, s *event.Snapshot) {
		e.ID, s.Part, s.Counts = "s-1/2", 2, []event.Count{{AccountID: "a", ServiceID: "s", UnitCount: 1}}
	})
	if got := same.SnapshotDigest(); got != whole {
		t.Errorf("another part: got %#x, want %#x", got, whole)
	}
	for name, change := range map[string]func(*event.Event, *event.Snapshot){
		"another source":                   func(e *event.Event, _ *event.Snapshot) { e.Source += "/" },
		"another vendor":                   func(e *event.Event, _ *event.Snapshot) { e.Vendor = "acm" },
		"another organization":             func(e *event.Event, _ *event.Snapshot) { e.Organization = "msp-0043" },
		"one account":                      func(_ *event.Event, s *event.Snapshot) { s.AccountID = "a" },
		"another snapshot":                 func(_ *event.Event, s *event.Snapshot) { s.SnapshotID = "s-2" },
		"an event with the snapshot's id":  func(e *event.Event, s *event.Snapshot) { e.ID, *s = "s-1", event.Snapshot{} },
		"the border between two ids moved": func(e *event.Event, _ *event.Snapshot) { e.Vendor, e.Organization = "acmem", "sp-0042" },
	} {
		if got := part(change).SnapshotDigest(); got == whole {
			t.Errorf("%s: got the same digest %#x", name, got)
		}
	}
	alone := part(func(e *event.Event, s *event.Snapshot) { *s = event.Snapshot{} })
	if alone.SnapshotDigest() == alone.Digest() {
		t.Errorf("a snapshot of one message has the digest %#x of its event", alone.Digest())
	}
	if e := countEvent(); e.SnapshotDigest() != e.Digest() {
		t.Errorf("a count: got %#x, want its own digest %#x", e.SnapshotDigest(), e.Digest())
	}
}

func TestTheContentOfASnapshotHasNoOrder(t *testing.T) {
	a, b, c := event.Count{AccountID: "a", ServiceID: "s", UnitCount: 1}, event.Count{AccountID: "a", ServiceID: "t", UnitCount: 2}, event.Count{AccountID: "b", ServiceID: "s", UnitCount: 3}
	counts := []event.Count{c, a, b}
	whole := event.Snapshot{Counts: counts, Part: 1, Parts: 2, SnapshotID: "s-1"}
	want := whole.ContentDigest()
	if counts[0] != c || want != 0x46F174ADCE9BE060 {
		t.Errorf("got %#x and counts %v, want 0x46F174ADCE9BE060 and the counts in their order", want, counts)
	}
	for _, order := range [][]event.Count{{a, b, c}, {b, c, a}, {c, b, a}} {
		if got := (event.Snapshot{Counts: order, Part: 1, Parts: 2}).ContentDigest(); got != want {
			t.Errorf("%v: got %#x, want %#x", order, got, want)
		}
	}
	more, other := a, a
	more.UnitCount++
	other.AccountID, other.ServiceID = "", "as"
	for name, s := range map[string]event.Snapshot{
		"another figure":     {Counts: []event.Count{more, b, c}, Part: 1, Parts: 2},
		"a count less":       {Counts: []event.Count{a, b}, Part: 1, Parts: 2},
		"a border moved":     {Counts: []event.Count{other, b, c}, Part: 1, Parts: 2},
		"figures exchanged":  {Counts: []event.Count{{AccountID: "a", ServiceID: "s", UnitCount: 2}, {AccountID: "a", ServiceID: "t", UnitCount: 1}, c}, Part: 1, Parts: 2},
		"another part":       {Counts: counts, Part: 2, Parts: 2},
		"another whole":      {Counts: counts, Part: 1, Parts: 3},
		"of one account":     {AccountID: "a", Counts: counts, Part: 1, Parts: 2},
		"parts of no counts": {Part: 1, Parts: 2},
	} {
		if got := s.ContentDigest(); got == want {
			t.Errorf("%s: got the same digest %#x", name, got)
		}
	}
}
