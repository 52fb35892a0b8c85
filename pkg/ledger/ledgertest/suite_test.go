package ledgertest_test

import (
	"errors"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/ledger/ledgertest"
)

var errStale = errors.New("stale")

func TestMemoryKeepsTheContractOfAStore(t *testing.T) {
	ledgertest.Run(t, func(*testing.T) ledgertest.Store { return ledgertest.NewMemory(errStale) }, errStale)
}

func TestMemoryFailsWhenTold(t *testing.T) {
	e := ledger.Entry{Key: ledger.AccountKey("o", "a"), Seen: []ledger.Seen{{Event: 1}}, State: ledger.Dirty}
	down := errors.New("down")
	for _, test := range []struct {
		name  string
		store bool
	}{
		{"a write fails and stores nothing", false},
		{"a write stores and its answer is lost", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := ledgertest.NewMemory(errStale)
			m.FailWith(func([]ledger.Entry) (bool, error) { return test.store, down })
			batch := []ledger.Entry{e}
			if err := m.Write(t.Context(), 0, batch); !errors.Is(err, down) {
				t.Errorf("got %v, want %v", err, down)
			}
			if batch[0].Revision != 0 {
				t.Errorf("revision %d, want none: nobody answered", batch[0].Revision)
			}
			if _, ok, err := m.Read(t.Context(), 0, e.Key); ok != test.store || err != nil {
				t.Errorf("stored: %v, %v; want %v", ok, err, test.store)
			}
			m.FailWith(nil)
			if _, ok, _ := m.Read(t.Context(), 0, e.Key); !ok {
				if err := m.Write(t.Context(), 0, batch); err != nil {
					t.Errorf("write after the fault is gone: %v", err)
				}
			}
		})
	}
}
