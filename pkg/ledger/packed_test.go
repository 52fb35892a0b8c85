package ledger_test

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestAPackedEntryIsTheEntry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		e.Revision = rapid.Uint64().Draw(t, "revision")
		for i := range e.Seen {
			e.Seen[i].Waits = rapid.SampledFrom([]ledger.Wait{ledger.NoWait, ledger.Vanished, ledger.Jumped}).Draw(t, "waits")
			e.Seen[i].Backfill = rapid.SampledFrom([]uint64{0, 1, 1 << 63}).Draw(t, "backfill")
		}
		if rapid.Bool().Draw(t, "as delivered") && e.Delivered.At != 0 {
			s := rapid.SampledFrom(e.Seen).Draw(t, "figure")
			e.Delivered.Version, e.Delivered.Value, e.Answer.At = s.Version, s.Value, e.Delivered.At
		}
		if e.Delivered.At != 0 {
			e.Delivered.RequestID = rapid.SampledFrom([]string{
				e.Delivered.RequestID, "0198a6a0-0000-7000-8000-00000000000f", "0198A6A0-0000-7000-8000-00000000000F", "0198a6a0-0000-7000-8000-00000000000g",
			}).Draw(t, "request id")
		}
		packed, _ := e.Pack(nil)
		if got := packed.Unpack(e.Key); !reflect.DeepEqual(got, e) {
			t.Fatalf("unpacked %+v\nwant %+v", got, e)
		}
		generation := rapid.IntMin(0).Draw(t, "generation asked for")
		if packed.State() != e.State || packed.Since() != e.Since || packed.DeliveredAt() != e.Delivered.At ||
			packed.Unbuilt() != e.Delivered.Unbuilt || packed.PostedIn(generation) != e.PostedIn(generation) {
			t.Fatalf("header: got %q %d %d %t %t, want that of %+v", packed.State(), packed.Since(), packed.DeliveredAt(), packed.Unbuilt(), packed.PostedIn(generation), e)
		}
	})
}

func TestPackingDoesNotAllocateMoreThanThePackedEntry(t *testing.T) {
	e := accepted(folded(t, op(1, 10, 100, 5), op(2, 20, 200, 7)))
	scratch := make([]byte, 0, 1024)
	if got := testing.AllocsPerRun(100, func() { _, scratch = e.Pack(scratch) }); got > 1 {
		t.Errorf("Pack allocates %v times, want once", got)
	}
	packed, _ := e.Pack(nil)
	if got := testing.AllocsPerRun(100, func() { _ = packed.Unpack(e.Key) }); got > 1 {
		t.Errorf("Unpack allocates %v times, want once", got)
	}
	if len(packed) > 120 {
		t.Errorf("an entry of two figures takes %d bytes packed, want at most 120", len(packed))
	}
}
