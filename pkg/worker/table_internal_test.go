package worker

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// awkward are ids that a careless join of two would mix up.
var awkward = rapid.SampledFrom([]string{"", "a", "b", "ab", "a\x00b", "\x01a", "\x01", "aa", "ba"})

func TestKeysComeBackFromTheirNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNames()
		spots := map[spot]ledger.Key{}
		for range rapid.IntRange(1, 50).Draw(t, "keys") {
			key := ledger.Key{
				Organization: awkward.Draw(t, "organization"), Account: awkward.Draw(t, "account"), Service: awkward.Draw(t, "service"),
				Kind: rapid.SampledFrom(ledger.Kinds()).Draw(t, "kind"),
			}
			at := n.add(key)
			if got := n.key(at); got != key {
				t.Fatalf("key %+v came back as %+v", key, got)
			}
			if found, known := n.find(key); !known || found != at {
				t.Fatalf("key %+v: found %v, %t; want %v", key, found, known, at)
			}
			if other, taken := spots[at]; taken && other != key {
				t.Fatalf("keys %+v and %+v have the same numbers", key, other)
			}
			spots[at] = key
		}
	})
}

func TestTheCountsOfAScopeAreThose(t *testing.T) {
	table := newTable()
	for _, key := range []ledger.Key{
		ledger.CountKey("m", "a", "s"), ledger.CountKey("m", "a", "t"), ledger.CountKey("m", "b", "s"), ledger.CountKey("n", "a", "s"),
		ledger.AccountKey("m", "a"), ledger.ServiceKey("m", "s"),
	} {
		table.put(ledger.Entry{Key: key, State: ledger.Dirty, Seen: []ledger.Seen{{Disposition: ledger.Applied}}})
	}
	for _, c := range []struct {
		scope ledger.Key
		want  []string
	}{
		{ledger.ScopeKey("m", "a"), []string{"m/count/a/s", "m/count/a/t"}},
		{ledger.ScopeKey("m", ""), []string{"m/count/a/s", "m/count/a/t", "m/count/b/s"}},
		{ledger.ScopeKey("m", "unheard of"), nil},
		{ledger.ScopeKey("unheard of", ""), nil},
		{ledger.ScopeKey("unheard of", "a"), nil},
	} {
		var got []string
		for _, key := range table.counts(c.scope) {
			got = append(got, key.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("counts of %s: got %q, want %q", c.scope, got, c.want)
		}
	}
}
