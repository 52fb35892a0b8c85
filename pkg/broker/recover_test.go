package broker

import (
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestAnEntryThatSomebodyDeletedCanBeWrittenAgain(t *testing.T) {
	b := open(t, 1)
	store := b.Ledger("acme")
	key := ledger.CountKey("msp-1", "acme", "backup")
	e, _, err := (&ledger.Entry{}).Apply(ledger.Operation{Key: key, Version: ledger.Version{Time: 1, Arrival: 1}, Event: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Write(t.Context(), 0, []ledger.Entry{e}); err != nil {
		t.Fatal(err)
	}
	bucket, err := b.bucket(t.Context(), LedgerBucket("acme"))
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Delete(t.Context(), LedgerKey(0, key)); err != nil {
		t.Fatal(err)
	}
	gone, ok, err := store.Read(t.Context(), 0, key)
	if err != nil || ok {
		t.Fatalf("read the deleted entry: got ok %t and %v, want neither", ok, err)
	}
	e.Revision = gone.Revision
	if err := store.Write(t.Context(), 0, []ledger.Entry{e}); err != nil {
		t.Errorf("write at revision %d, which Read gave: %v", e.Revision, err)
	}
}

func TestMoreLettersThanOneTimeLimitHoldsAreParkedOnce(t *testing.T) {
	b := open(t, 1)
	letters := make([]event.Letter, 2*pipelined+1)
	for i := range letters {
		letters[i] = event.Letter{Vendor: "acme", Organization: "msp-1", Fault: event.Fault{Reason: event.ReasonMalformed}, Index: i}
		letters[i].Original.Stream, letters[i].Original.Sequence = EventsStream("acme"), 1
	}
	for range 2 {
		if err := b.Park(t.Context(), letters); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err := b.Letters(t.Context(), LetterFilter{}, func(StoredLetter) error {
		n++
		return nil
	})
	if err != nil || n != len(letters) {
		t.Errorf("letters: got %d and error %v, want %d", n, err, len(letters))
	}
}
