package main

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestMissingPartsAreNamedInRuns(t *testing.T) {
	for want, parts := range map[string][]int{
		"4": {4}, "1-2": {1, 2}, "1,3": {1, 3}, "1-3,5,7-8": {1, 2, 3, 5, 7, 8}, "1,3,5,…": {1, 3, 5, 7, 8},
	} {
		if got := partList(parts); got != want {
			t.Errorf("%v: got %s, want %s", parts, got, want)
		}
	}
}

func TestAnIDIsOneWordOfAShell(t *testing.T) {
	for text, want := range map[string]string{
		"acme/msp-1": "acme/msp-1", "count/a b/s": "'count/a b/s'", "it's": `'it'\''s'`, "a$HOME;*": "'a$HOME;*'", "é": "'é'", "": "''",
	} {
		if got := shellWord(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestAnApprovalSaysWhatWaits(t *testing.T) {
	key := ledger.CountKey("o", "a", "s")
	waits := func(units int64, w ledger.Wait) ledger.Seen {
		return ledger.Seen{Value: ledger.Value{Units: units * 1_000_000}, Waits: w}
	}
	snapshot := &ledger.Snapshot{Name: "november", Keys: 5, Zeros: 1}
	for want, p := range map[string]*approval{
		"a/s: 10 → 200 (jumped)":                           {wait: ledger.Jumped, entries: []ledger.Entry{{Key: key, Seen: []ledger.Seen{waits(200, ledger.Jumped), waits(10, ledger.NoWait)}}}},
		"a/s: nothing → 200 (jumped)":                      {wait: ledger.Jumped, entries: []ledger.Entry{{Key: key, Seen: []ledger.Seen{waits(200, ledger.Jumped)}}}},
		"a/s: 1 → 300 (jumped), and 1 older figure":        {wait: ledger.Jumped, entries: []ledger.Entry{{Key: key, Seen: []ledger.Seen{waits(300, ledger.Jumped), waits(0, ledger.Vanished), waits(200, ledger.Jumped), waits(1, ledger.NoWait)}}}},
		"a snapshot: 1 key to 0":                           {wait: ledger.Vanished, entries: []ledger.Entry{{Key: key, Seen: []ledger.Seen{waits(0, ledger.Vanished)}}}},
		"snapshot november: 1 of 5 keys to 0":              {wait: ledger.Vanished, snapshot: snapshot, entries: []ledger.Entry{{Key: key}}},
		"snapshot november of account a: 1 of 5 keys to 0": {wait: ledger.Vanished, snapshot: snapshot, scope: ledger.ScopeKey("o", "a"), entries: []ledger.Entry{{Key: key}}},
	} {
		if got := p.what(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A snapshot's zeros are one decision for many keys: a word on the jump above
// them must not make it in passing.
func TestAWordOnAJumpDecidesOnlyTheJumpsOfItsKey(t *testing.T) {
	key := ledger.CountKey("o", "a", "s")
	seen := []ledger.Seen{
		{Event: 4, Waits: ledger.Jumped}, {Event: 3, Waits: ledger.Vanished}, {Event: 2, Waits: ledger.Jumped}, {Event: 1},
	}
	p := approval{id: ledger.ApprovalID(key, seen[0]), wait: ledger.Jumped, entries: []ledger.Entry{{Key: key, Seen: seen}}}
	got := p.ids()
	if len(got) != 2 || got[0] != p.id || got[1] != ledger.ApprovalID(key, seen[2]) {
		t.Errorf("got %x, want %x and %x", got, p.id, ledger.ApprovalID(key, seen[2]))
	}
}
