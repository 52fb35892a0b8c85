package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// oddIDs are ids that a careless store would take for something else.
var oddIDs = []string{
	"plain", "with blank", "dots.in.it", ".", "..", ">", "*", "a.>", "a.*", "$KV", "=20", "a/b", `a\b`, `"quoted"`, "%25",
	"no\u00a0break", "emoji 🧾", "Ünï", "tab\tnewline\n", "Case", "case", "-", "_", "0",
}

// Run is the contract of a ledger store. open gives an empty store with at
// least 16 partitions; stale is the error that its Write wraps when a
// revision is not the stored one.
func Run(t *testing.T, open func(t *testing.T) Store, stale error) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, s Store, stale error)
	}{
		{"an empty partition loads nothing", loadsNothing},
		{"what was written is loaded and read", keepsEntries},
		{"a second write replaces the first", replaces},
		{"a write at the wrong revision is refused", refusesStale},
		{"after a refusal a read and a write work", recovers},
		{"one stale entry among fresh ones is refused", refusesMixed},
		{"of concurrent writers of one key exactly one wins", oneWriterWins},
		{"concurrent writers of other keys do not disturb each other", writersApart},
		{"2,500 entries are one write", keepsMany},
		{"writing nothing is nothing", writesNothing},
		{"odd ids are kept apart", keepsOddIDs},
		{"partitions are kept apart", keepsPartitions},
		{"an error of yield ends the load", loadEnds},
		{"a cancelled context is an error", heedsContext},
		{"entries survive byte for byte", keepsEveryByte},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t), stale) })
	}
}

func loadsNothing(t *testing.T, s Store, _ error) {
	if got := load(t, s, 3); len(got) != 0 {
		t.Errorf("loaded %v, want nothing", got)
	}
	if e, ok, err := s.Read(t.Context(), 3, key(0)); ok || err != nil {
		t.Errorf("read %v, %v, %v; want nothing", e, ok, err)
	}
}

func keepsEntries(t *testing.T, s Store, _ error) {
	written := write(t, s, 3, entry(key(0), 1), entry(key(1), 2), entry(key(2), 3))
	seen := map[uint64]bool{}
	for _, e := range written {
		if e.Revision == 0 || seen[e.Revision] {
			t.Errorf("%s has revision %d: want one of its own", e.Key, e.Revision)
		}
		seen[e.Revision] = true
	}
	wantStored(t, s, 3, written)
}

func replaces(t *testing.T, s Store, _ error) {
	first := write(t, s, 3, entry(key(0), 1), entry(key(1), 1))
	second := write(t, s, 3, at(entry(key(0), 2), first[0].Revision))
	if second[0].Revision <= first[0].Revision {
		t.Errorf("revision %d after %d: want it to grow", second[0].Revision, first[0].Revision)
	}
	wantStored(t, s, 3, []ledger.Entry{second[0], first[1]})
}

func refusesStale(t *testing.T, s Store, stale error) {
	written := write(t, s, 3, entry(key(0), 1), entry(key(1), 1))
	revision := written[0].Revision
	newer := write(t, s, 3, at(entry(key(0), 2), revision))
	refused := []struct {
		name string
		e    ledger.Entry
	}{
		{"a new entry whose key exists", entry(key(0), 3)},
		{"an entry at the revision before", at(entry(key(0), 3), revision)},
		{"an entry at another entry's revision", at(entry(key(0), 3), written[1].Revision)},
		{"an entry at a revision to come", at(entry(key(0), 3), newer[0].Revision+100)},
		{"an entry at a revision whose key does not exist", at(entry(key(7), 3), revision)},
	}
	for _, r := range refused {
		if err := s.Write(t.Context(), 3, []ledger.Entry{r.e}); !errors.Is(err, stale) {
			t.Errorf("%s: got %v, want %v", r.name, err, stale)
		}
	}
	wantStored(t, s, 3, []ledger.Entry{newer[0], written[1]})
}

func recovers(t *testing.T, s Store, stale error) {
	write(t, s, 3, entry(key(0), 1))
	if err := s.Write(t.Context(), 3, []ledger.Entry{entry(key(0), 2)}); !errors.Is(err, stale) {
		t.Fatalf("got %v, want %v", err, stale)
	}
	e, ok, err := s.Read(t.Context(), 3, key(0))
	if err != nil || !ok {
		t.Fatalf("read: %v, %v", ok, err)
	}
	wantStored(t, s, 3, write(t, s, 3, at(entry(key(0), 2), e.Revision)))
}

func refusesMixed(t *testing.T, s Store, stale error) {
	written := write(t, s, 3, entry(key(0), 1))
	mixed := []ledger.Entry{entry(key(1), 1), entry(key(0), 2), entry(key(2), 1)}
	if err := s.Write(t.Context(), 3, mixed); !errors.Is(err, stale) {
		t.Fatalf("got %v, want %v", err, stale)
	}
	e, _, err := s.Read(t.Context(), 3, key(0))
	if err != nil || !same(e, written[0]) {
		t.Errorf("read %+v, %v; want it untouched: %+v", e, err, written[0])
	}
}

func oneWriterWins(t *testing.T, s Store, stale error) {
	const writers = 8
	for round := range 5 {
		k := key(round)
		before := write(t, s, 3, entry(k, 1))
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				batch := []ledger.Entry{entry(key(1000+w), round), at(entry(k, 10+w), before[0].Revision)}
				if old, ok, err := s.Read(t.Context(), 3, batch[0].Key); err == nil && ok {
					batch[0].Revision = old.Revision
				}
				errs[w] = s.Write(t.Context(), 3, batch[w%2:]) // alone and in a batch
			})
		}
		wg.Wait()
		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = w
			case err == nil:
				t.Errorf("writers %d and %d both won", winner, w)
			case !errors.Is(err, stale):
				t.Errorf("writer %d: got %v, want %v", w, err, stale)
			}
		}
		if winner < 0 {
			t.Fatal("no writer won")
		}
		e, _, err := s.Read(t.Context(), 3, k)
		if err != nil || e.Seen[0].Value.Units != int64(10+winner) {
			t.Errorf("stored %+v, %v; want the figure %d of the winner", e, err, 10+winner)
		}
	}
}

func writersApart(t *testing.T, s Store, _ error) {
	const writers, size = 6, 120
	written := make([][]ledger.Entry, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range size {
				written[w] = append(written[w], entry(key(w*size+i), i))
			}
			for range 3 { // each time at the revisions that the last write gave
				if err := s.Write(t.Context(), w, written[w]); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		wantStored(t, s, w, written[w])
	}
}

func keepsMany(t *testing.T, s Store, _ error) {
	many := make([]ledger.Entry, 2500)
	for i := range many {
		many[i] = entry(key(i), i)
	}
	wantStored(t, s, 3, write(t, s, 3, many...))
}

func writesNothing(t *testing.T, s Store, _ error) {
	if err := s.Write(t.Context(), 3, nil); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func keepsOddIDs(t *testing.T, s Store, _ error) {
	var all []ledger.Entry
	for i, id := range oddIDs {
		all = append(all,
			entry(ledger.AccountKey(id, id), i), entry(ledger.ServiceKey(id, id), i),
			entry(ledger.CountKey(id, id, "s"), i), entry(ledger.CountKey(id, "s", id), i))
	}
	written := write(t, s, 3, all...)
	wantStored(t, s, 3, written)
	for _, w := range written {
		if e, ok, err := s.Read(t.Context(), 3, w.Key); err != nil || !ok || !same(e, w) {
			t.Errorf("read %q: %+v, %v, %v; want %+v", w.Key, e, ok, err, w)
		}
	}
}

func keepsPartitions(t *testing.T, s Store, _ error) {
	one := write(t, s, 1, entry(key(0), 1))
	ten := write(t, s, 10, entry(key(0), 10), entry(key(1), 11))
	wantStored(t, s, 1, one)
	wantStored(t, s, 10, ten)
	wantStored(t, s, 0, nil)
	if _, ok, err := s.Read(t.Context(), 1, key(1)); ok || err != nil {
		t.Errorf("read from another partition: %v, %v; want nothing", ok, err)
	}
}

func loadEnds(t *testing.T, s Store, _ error) {
	write(t, s, 3, entry(key(0), 1), entry(key(1), 1))
	enough, n := errors.New("enough"), 0
	err := s.Load(t.Context(), 3, func(ledger.Entry) error { n++; return enough })
	if !errors.Is(err, enough) || n != 1 {
		t.Errorf("got %v after %d entries, want %v after 1", err, n, enough)
	}
}

func heedsContext(t *testing.T, s Store, _ error) {
	write(t, s, 3, entry(key(0), 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Write(ctx, 3, []ledger.Entry{entry(key(1), 1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("write: got %v, want %v", err, context.Canceled)
	}
	if err := s.Load(ctx, 3, func(ledger.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("load: got %v, want %v", err, context.Canceled)
	}
}

func keepsEveryByte(t *testing.T, s Store, _ error) {
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		e := Entries().Draw(r, "entry")
		e.Key.Organization += strconv.Itoa(round) // every draw is a new key
		batch := []ledger.Entry{e}
		if err := s.Write(t.Context(), 3, batch); err != nil {
			r.Fatalf("write: %v", err)
		}
		got, ok, err := s.Read(t.Context(), 3, e.Key)
		if err != nil || !ok || !same(got, batch[0]) {
			r.Fatalf("read %+v, %v, %v; want %+v", got, ok, err, batch[0])
		}
	})
}

// Entries draws any entry that a store must keep.
func Entries() *rapid.Generator[ledger.Entry] {
	text := rapid.OneOf(rapid.SampledFrom(oddIDs), rapid.StringN(1, 12, 48))
	value := rapid.Custom(func(t *rapid.T) ledger.Value {
		return ledger.Value{Units: rapid.Int64Min(0).Draw(t, "units"), Properties: rapid.String().Draw(t, "properties")}
	})
	version := rapid.Custom(func(t *rapid.T) ledger.Version {
		return ledger.Version{Time: rapid.Int64().Draw(t, "time"), Arrival: rapid.Uint64().Draw(t, "arrival")}
	})
	seen := rapid.Custom(func(t *rapid.T) ledger.Seen {
		return ledger.Seen{
			Version: version.Draw(t, "version"), Value: value.Draw(t, "value"),
			Event: rapid.Uint64().Draw(t, "event"), Disposition: rapid.SampledFrom(ledger.Dispositions()).Draw(t, "disposition"),
		}
	})
	return rapid.Custom(func(t *rapid.T) ledger.Entry {
		e := ledger.Entry{
			Key:      ledger.CountKey(text.Draw(t, "organization"), text.Draw(t, "account"), text.Draw(t, "service")),
			Seen:     rapid.SliceOfN(seen, 1, 32).Draw(t, "seen"),
			State:    rapid.SampledFrom([]ledger.State{ledger.Synced, ledger.Dirty, ledger.Retrying, ledger.Held, ledger.Failed}).Draw(t, "state"),
			Attempts: rapid.IntRange(0, 1000).Draw(t, "attempts"),
			Next:     rapid.Int64().Draw(t, "next"),
			Since:    rapid.Int64().Draw(t, "since"),
		}
		slices.SortFunc(e.Seen, func(a, b ledger.Seen) int { return b.Version.Compare(a.Version) })
		if e.State == ledger.Held {
			e.Reason = rapid.SampledFrom(ledger.HoldReasons()).Draw(t, "reason")
		}
		if rapid.Bool().Draw(t, "posted") {
			e.Delivered = ledger.Delivered{
				Version: version.Draw(t, "delivered"), Value: value.Draw(t, "delivered value"),
				At: rapid.Int64Min(1).Draw(t, "at"), Receipt: ledger.Receipt{RequestID: rapid.String().Draw(t, "request")},
			}
		}
		if rapid.Bool().Draw(t, "answered") {
			e.Answer = ledger.Answer{
				At: rapid.Int64Min(1).Draw(t, "answer at"), Status: rapid.IntRange(0, 999).Draw(t, "status"),
				Message: rapid.String().Draw(t, "message"),
			}
		}
		return e
	})
}

func key(i int) ledger.Key {
	return ledger.CountKey("org-1", fmt.Sprintf("account-%d", i), "backup")
}

// entry is a small entry whose figure tells it apart.
func entry(k ledger.Key, units int) ledger.Entry {
	return ledger.Entry{
		Key:   k,
		Seen:  []ledger.Seen{{Version: ledger.Version{Time: 1, Arrival: 1}, Value: ledger.Value{Units: int64(units)}, Event: 1, Disposition: ledger.Applied}},
		State: ledger.Dirty,
	}
}

func at(e ledger.Entry, revision uint64) ledger.Entry {
	e.Revision = revision
	return e
}

func write(t *testing.T, s Store, partition int, entries ...ledger.Entry) []ledger.Entry {
	t.Helper()
	if err := s.Write(t.Context(), partition, entries); err != nil {
		t.Fatalf("write %d entries: %v", len(entries), err)
	}
	return entries
}

func load(t *testing.T, s Store, partition int) map[ledger.Key]ledger.Entry {
	t.Helper()
	all := map[ledger.Key]ledger.Entry{}
	err := s.Load(t.Context(), partition, func(e ledger.Entry) error {
		if _, twice := all[e.Key]; twice {
			t.Errorf("%q was loaded twice", e.Key)
		}
		all[e.Key] = e
		return nil
	})
	if err != nil {
		t.Fatalf("load partition %d: %v", partition, err)
	}
	return all
}

// wantStored checks that a load of the partition gives exactly these entries.
func wantStored(t *testing.T, s Store, partition int, want []ledger.Entry) {
	t.Helper()
	got := load(t, s, partition)
	if len(got) != len(want) {
		t.Errorf("loaded %d entries, want %d", len(got), len(want))
	}
	for _, w := range want {
		if g := got[w.Key]; !same(g, w) {
			t.Errorf("%q: loaded %+v, want %+v", w.Key, g, w)
		}
	}
}

func same(a, b ledger.Entry) bool { return reflect.DeepEqual(a, b) }
