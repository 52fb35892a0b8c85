package usage_test

import (
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/usage"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestACountGivesItsKeyOneFigure(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	e := &event.Event{
		ID: "1", Source: "//test", Type: event.TypeCount, Time: at, Vendor: "acme", Organization: "msp-1",
		Data:    event.Count{AccountID: "a 1", ServiceID: "s.1", UnitCount: 42_500_000},
		Arrival: event.ArrivalAt(7, 3),
	}
	got, err := usage.Count(e)
	if err != nil {
		t.Fatal(err)
	}
	want := ledger.Operation{
		Key:     ledger.CountKey("msp-1", "a 1", "s.1"),
		Version: ledger.Version{Time: at.UnixNano(), Arrival: uint64(event.ArrivalAt(7, 3))},
		Value:   ledger.Value{Units: 42_500_000},
		Event:   e.Digest(),
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("operations: got %+v, want only %+v", got, want)
	}
}

func TestDataOfAnotherTypeIsAnErrorThatNamesIt(t *testing.T) {
	_, err := usage.Count(&event.Event{ID: "1", Type: event.TypeCount, Data: event.Account{}})
	if err == nil || err.Error() != `event "1" of type usage.count.v1 carries event.Account: want a count` {
		t.Errorf("error: got %v, want one that names both types", err)
	}
}
