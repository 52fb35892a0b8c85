package main

import (
	"fmt"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (w *workshop) search() *search {
	return &search{vendor: broker.Vendor{Name: "acme"}, words: w.words}
}

func (w *workshop) each(yield func(*ledger.Entry) error) error {
	for _, e := range w.entries {
		if err := yield(&e); err != nil {
			return err
		}
	}
	return nil
}

// part explains the part that is stored at the sequence.
func (w *workshop) part(t *testing.T, sequence int, letter *broker.StoredLetter) explanation {
	t.Helper()
	o := &w.log[sequence-1]
	op, named := o.partOf(), namedBy(o)
	h := w.history(op.Key)
	tally, err := h.countFigures(w.each, op, func(e *ledger.Entry) bool { return named[e.Key] })
	if err != nil {
		t.Fatal(err)
	}
	return h.explainPart(o, letter, w.search().account(h, op), tally)
}

// whole explains the snapshots of that name.
func (w *workshop) whole(t *testing.T, name string) []explanation {
	t.Helper()
	f, q := &found{}, question{id: name}
	for i := range w.log {
		if q.asksSnapshot(&w.log[i]) {
			f.addPart(&w.log[i])
		}
	}
	var all []explanation
	for _, p := range f.snapshots {
		h := w.history(p.scope)
		x, err := h.explainSnapshot(p, w.search().account(h, p.first.partOf()), w.each)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	return all
}

// month is a snapshot in three parts that leaves out a1/s3 and a1/s4.
func month(w *workshop, parts ...int) {
	named := [][]event.Count{{unitsOf("a1", "s1", 6), unitsOf("a2", "s2", 0)}, {unitsOf("a1", "s2", 7)}, nil}
	for _, part := range parts {
		w.publish(snapshotOf("month", "", 10, part, 3, "", named[part-1]...))
	}
}

func withCounts() *workshop {
	w := newWorkshop()
	for i := range 4 {
		w.publish(countOf(fmt.Sprint("e-", i), "a1", fmt.Sprint("s", i+1), 1, 5, ""))
	}
	return w
}

func TestAPartOfASnapshotIsExplainedOnceForAllItsKeys(t *testing.T) {
	w := withCounts()
	month(w, 1, 3)
	expect(t, w.part(t, 5, nil), ledger.Applied, true, "applied: it is part 1 of 3 of snapshot month of the whole organization.",
		"The snapshot is incomplete: it waits for 1 part, 2. Until then no key becomes 0 by it.", "The part names 2 keys: 2 still desired, and held (awaiting_catalog).")
	expect(t, w.part(t, 6, nil), ledger.Applied, true, "The part names no key.")

	for _, key := range w.counts() { // what the partner knows is posted
		for _, of := range []ledger.Key{key.AccountKey(), key.ServiceKey()} {
			w.Put(ledger.Entry{Key: of, State: ledger.Synced, Delivered: ledger.Delivered{At: 1}})
		}
	}
	month(w, 2)
	w.publish(countOf("newer", "a1", "s1", 11, 8, ""))
	w.call(ledger.CountKey("msp-1", "a2", "s2"), delivery.Delivered)
	x := w.part(t, 5, nil)
	id := w.whole(t, "month")[0].Snapshot.Approval
	expect(t, x, ledger.Applied, true, "The snapshot was complete on 2026-11-21T12:00:07Z.",
		"The part names 2 keys: 1 still desired, and the partner has it; 1 overtaken by a newer figure.",
		"it did not name 2. That they become 0 waits for approval "+id+".", "`usagebridge approvals release "+id+" --integration acme/msp-1 --why …` sends the zeros, `refuse` takes them back.")
	w.call(ledger.CountKey("msp-1", "a1", "s2"), delivery.Dead)
	expect(t, w.part(t, 7, nil), ledger.Applied, true, "The part names 1 key: 1 still desired, and failed.")

	month(w, 2)
	expect(t, w.part(t, 9, nil), ledger.Duplicate, true, "duplicate: part 2 of 3 of snapshot month of the whole organization had come before, so it changed nothing.")
	w.publish(snapshotOf("month", "", 10, 2, 3, "", unitsOf("a1", "s2", 8)))
	expect(t, w.part(t, 10, nil), ledger.Dead, true, "dead: it can never be applied. It says that it is part 2 of 3", "The reason is conflicting_duplicate", "a new snapshotId")
	letter := &broker.StoredLetter{ID: "EVENTS_acme/10", Letter: event.Letter{Fault: event.Fault{Reason: event.ReasonConflict, Problem: "came before"}}}
	expect(t, w.part(t, 10, letter), ledger.Dead, true, "came before", "Dead letter EVENTS_acme/10 keeps it")
	w.publish(snapshotOf("old", "", 9, 1, 1, "", unitsOf("a1", "s1", 1)))
	expect(t, w.part(t, 11, nil), ledger.Superseded, true, "superseded: it is part 1 of 1 of snapshot old of the whole organization. A newer snapshot was complete before it came",
		"The part names 1 key: 1 overtaken by a newer figure.")
	w.publish(snapshotOf("old-2", "", 9, 1, 1, "", unitsOf("a9", "s1", 1)))
	expect(t, w.part(t, 12, nil), ledger.Superseded, true, "The part names 1 key: 1 overtaken")
}

func TestAPartThatNoWorkerHasTakenIsNotFolded(t *testing.T) {
	w := withCounts()
	month(w, 1)
	without := w.Entry(ledger.ScopeKey("msp-1", ""))
	without.Snapshots = nil
	w.Put(without)
	delete(w.entries, ledger.CountKey("msp-1", "a2", "s2"))
	expect(t, w.part(t, 5, nil), "", false, "not folded yet: it is part 1 of 3", "The part names 2 keys: 1 still desired, and held (awaiting_catalog); 1 not folded yet.")
	for i := range 5 { // newer ones push it out
		w.publish(snapshotOf(fmt.Sprint("newer-", i), "", 11+i, 1, 1, ""))
	}
	expect(t, w.part(t, 5, nil), ledger.Applied, false, "applied: it is part 1 of 3", "The ledger no longer remembers the snapshot: newer ones have come since.")
}

func TestASnapshotThatWasGivenUpOrUndoneSaysSo(t *testing.T) {
	w := withCounts()
	month(w, 1)
	for i := range 5 {
		w.publish(countOf(fmt.Sprint("x-", i), "a9", "s9", i, 1, ""))
	}
	expect(t, w.part(t, 5, nil), ledger.Applied, false, "The snapshot was given up on 2026-11-21T12:00:10Z, because parts of it did not come in time: its figures stand, its zeros never come.")

	w = withCounts()
	w.publish(snapshotOf("filled", "a1", 10, 1, 1, "b1", unitsOf("a1", "s1", 6)))
	expect(t, w.part(t, 5, nil), ledger.Applied, true, "part 1 of 1 of snapshot filled of account a1.", "It belongs to backfill b1.")
	w.say(backfillKey("acme", "b1"), reverted)
	expect(t, w.part(t, 5, nil), ledger.Applied, true, "which was undone by ann", "The part names 1 key: 1 taken back by a person.", "those zeros are undone with the backfill")
	w.publish(snapshotOf("filled-2", "a1", 11, 1, 1, "b1", unitsOf("a1", "s1", 6)))
	expect(t, w.part(t, 6, nil), ledger.Superseded, false, "Its backfill had been undone before it was folded, so it changed nothing.")
}

func TestAWholeSnapshotSaysWhatItSetToZero(t *testing.T) {
	w := withCounts()
	month(w, 1, 2, 3)
	x := w.whole(t, "month")[0]
	expectSentences(t, x.Sentences, "Snapshot month of the whole organization, with 3 parts.", "The log has EVENTS_acme/5, EVENTS_acme/6, EVENTS_acme/7.",
		"Its parts name 3 keys: 3 still desired, and held (awaiting_catalog).", "Of 4 keys of its scope that had another figure than 0 when it was complete, it did not name 2. That they become 0 waits for approval")
	w.say("acme.msp-1."+x.Snapshot.Approval, released)
	x = w.whole(t, "month")[0]
	expectSentences(t, x.Sentences, "That they become 0 was released by ann on", "By it 2 keys are 0 now.")
	if s := x.Snapshot; s.Named != 3 || s.ZerosNow != 2 || s.Figures.Desired != 3 {
		t.Errorf("got %+v, want 3 named keys, all desired, and 2 zeros", s)
	}
	w = withCounts()
	month(w, 1, 2, 3)
	w.say("acme.msp-1."+x.Snapshot.Approval, refused)
	expectSentences(t, w.whole(t, "month")[0].Sentences, "Those zeros were refused by ann on")

	w = newWorkshop()
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("one", "", 2, 1, 1, "", unitsOf("a1", "s1", 1)))
	w.publish(snapshotOf("one", "a1", 2, 1, 1, "", unitsOf("a1", "s1", 1), unitsOf("a1", "s2", 1)))
	all := w.whole(t, "one")
	if len(all) != 2 {
		t.Fatalf("got %d snapshots, want that of the organization and that of the account", len(all))
	}
	expectSentences(t, all[0].Sentences, "it did not name 1: these became 0.")
	expectSentences(t, all[1].Sentences, "Snapshot one of account a1, with 1 part.", "It named every key of its scope")
}

func TestAHeldSnapshotCountsItsKeysByReason(t *testing.T) {
	w := withCounts()
	month(w, 1, 2)
	h := w.history(ledger.ScopeKey("msp-1", ""))
	h.gate = ledger.Paused
	tally, err := h.countFigures(w.each, w.log[5].partOf(), func(e *ledger.Entry) bool { return e.Key.Service == "s1" })
	if err != nil || tally.figures.Held[ledger.Paused] != 1 || tally.keys != 1 {
		t.Errorf("got %+v, %v; want one held key, paused", tally, err)
	}
	if _, err := h.countFigures(func(func(*ledger.Entry) error) error { return errEnough }, w.log[5].partOf(), nil); err == nil {
		t.Error("got no error, want that of the ledger")
	}
}
