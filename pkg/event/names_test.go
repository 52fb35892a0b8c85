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
