package broker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestARecordThatIsReplacedWhileAllAreReadIsNotMissed(t *testing.T) {
	b := blank(t)
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 1})
	bucket, err := OpenBucket[int](t.Context(), b, BucketReplays)
	if err != nil {
		t.Fatal(err)
	}
	store := b.Ledger("acme")
	const keys = 300
	var entries []ledger.Entry
	for i := range keys {
		if err := bucket.Create(t.Context(), fmt.Sprint("k", i), 0); err != nil {
			t.Fatal(err)
		}
		e := ledger.Entry{Key: ledger.CountKey("o", fmt.Sprint("a", i), "s"), State: ledger.Dirty}
		e.Seen = []ledger.Seen{{Disposition: ledger.Applied, Event: 1}}
		entries = append(entries, e)
	}
	if err := store.Write(t.Context(), 0, entries); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop.Store(true)
	writers.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if _, err := bucket.Update(t.Context(), fmt.Sprint("k", i%keys), func(n *int) error { *n++; return nil }); err != nil {
				t.Error(err)
				return
			}
		}
	})
	writers.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if err := store.Write(t.Context(), 0, entries[i%keys:][:1]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 100 {
		all, err := bucket.All(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		loaded := map[ledger.Key]int{}
		err = store.Load(t.Context(), 0, func(e ledger.Entry) error {
			loaded[e.Key]++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != keys || len(loaded) != keys {
			t.Fatalf("read while others write: got %d records and %d entries, want %d of each", len(all), len(loaded), keys)
		}
		for key, n := range loaded {
			if n != 1 {
				t.Fatalf("%s was yielded %d times, want once", key, n)
			}
		}
	}
}
