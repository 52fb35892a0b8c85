package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

var (
	noon    = time.Date(2026, time.November, 20, 12, 0, 0, 0, time.UTC)
	testKey = ledger.CountKey("msp-1", "a-1", "backup")
)

// told is a count at minute n, stored at the n-th second after noon.
type told struct {
	id     string
	minute int
	units  int
}

func (c told) event() *event.Event {
	return &event.Event{
		ID: c.id, Source: "//billing", Type: event.TypeCount, Time: noon.Add(time.Duration(c.minute) * time.Minute),
		Vendor: "acme", Organization: "msp-1",
		Data: event.Count{AccountID: "a-1", ServiceID: "backup", UnitCount: event.Units(c.units) * event.UnitsScale},
	}
}

func stored(sequence int) time.Time {
	return noon.Add(24*time.Hour + time.Duration(sequence)*time.Second)
}

// logOf stores the counts one after the other, from sequence 1.
func logOf(counts ...told) []occurrence {
	var log []occurrence
	for i, c := range counts {
		e := c.event()
		log = append(log, readTestMessage(i+1, e.Subject().String(), e.Structured())...)
	}
	return log
}

func readTestMessage(sequence int, subject string, body []byte) []occurrence {
	return occurrencesIn(event.Message{
		Subject: subject, Data: body, Stream: "EVENTS_acme", Sequence: uint64(sequence), Stored: stored(sequence), Deliveries: 1,
	}, event.Limits{Ahead: 5 * time.Minute})
}

// accepted is the call that brought the partner the figure stored at sequence,
// half a second after it.
func accepted(o occurrence, request string) ledger.Call {
	op := o.operations[0]
	return ledger.Call{
		Organization: "msp-1", Operation: "count", Account: "a-1", Service: "backup", Units: op.Value.Units, Time: op.Time, Arrival: op.Arrival,
		Attempt: 1, At: o.message.Stored.Add(500 * time.Millisecond), Status: 201, RequestID: request, Verdict: string(delivery.Delivered),
	}
}

// entryOf is the entry that a worker has after the log and the calls.
func entryOf(log []occurrence, calls ...ledger.Call) *ledger.Entry {
	entry := ledger.Entry{Key: testKey}
	for _, o := range log {
		for _, op := range o.operations {
			entry, _, _ = entry.Apply(op, o.message.Stored)
		}
		for _, c := range calls {
			if event.Arrival(c.Arrival).Sequence() == o.message.Sequence {
				entry = answered(entry, c)
			}
		}
	}
	return &entry
}

func (h *history) explainAt(t *testing.T, sequence int) explanation {
	t.Helper()
	for i := range h.log {
		if o := &h.log[i]; o.message.Sequence == uint64(sequence) {
			return h.explain(o, o.operations[0], nil)
		}
	}
	t.Fatalf("the log has no event at %d", sequence)
	return explanation{}
}

func expect(t *testing.T, x explanation, want ledger.Disposition, certain bool, sentences ...string) {
	t.Helper()
	text := strings.Join(x.Sentences, "\n")
	if x.Disposition != want || x.Certain != certain {
		t.Errorf("got %q, certain %v; want %q, certain %v\n%s", x.Disposition, x.Certain, want, certain, text)
	}
	for _, s := range sentences {
		if !strings.Contains(text, s) {
			t.Errorf("got\n%s\nwant a sentence with %q", text, s)
		}
	}
}

func TestAnAppliedEventIsToldWithWhatCameBeforeAndAfterAndItsCall(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-2", 2, 7}, told{"e-3", 3, 9})
	calls := []ledger.Call{accepted(log[1], "req-2")}
	h := &history{key: testKey, log: log, calls: calls, stored: entryOf(log, calls...), reachesBack: true, catalog: true}
	x := h.explainAt(t, 2)
	expect(t, x, ledger.Applied, true,
		"applied: it became the desired value of its key, in place of 5 at 2026-11-20T12:01:00Z (event e-1 of //billing, arrival 1).",
		"The partner accepted 7 on 2026-11-21T12:00:02.5Z (request req-2).",
		"Later 9 at 2026-11-20T12:03:00Z (event e-3 of //billing, arrival 3) took its place.",
		"The key is now dirty: desired is 9, the partner has 7")
	expect(t, h.explainAt(t, 3), ledger.Applied, true, "The partner has not accepted it.")
	expect(t, h.explainAt(t, 1), ledger.Applied, true, "which had none", "No accepted call with this figure is in the sync log.")
}

func TestCallsThatFailedAreCounted(t *testing.T) {
	log := logOf(told{"e-1", 1, 5})
	call := accepted(log[0], "")
	call.Verdict, call.Status, call.Message = string(delivery.Retry), 503, "try later"
	h := &history{key: testKey, log: log, calls: []ledger.Call{call, call}, stored: entryOf(log, call, call), reachesBack: true, catalog: true}
	expect(t, h.explainAt(t, 1), ledger.Applied, true, "The partner has not accepted it. 2 calls were without success", "503 try later",
		"The key is now retrying (503 try later)")
}

func TestAnEventOfAHeldKeySaysWhatItWaitsFor(t *testing.T) {
	log := logOf(told{"e-1", 1, 5})
	h := &history{key: testKey, log: log, stored: entryOf(log), reachesBack: true}
	expect(t, h.explainAt(t, 1), ledger.Applied, true, "The key is now held, awaiting_catalog: desired is 5, the partner has nothing yet.")
	h.gate = ledger.Paused
	expect(t, h.explainAt(t, 1), ledger.Applied, true, "The key is now held, paused")
}

func TestARepeatedEventIsADuplicateWhereverItStandsAgain(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-1", 1, 5})
	h := &history{key: testKey, log: log, stored: entryOf(log), reachesBack: true, catalog: true}
	expect(t, h.explainAt(t, 1), ledger.Applied, true)
	expect(t, h.explainAt(t, 2), ledger.Duplicate, true, "duplicate: the same event had come before")
}

func TestASupersededEventNamesTheNewerOneThatWasThereFirst(t *testing.T) {
	log := logOf(told{"e-2", 2, 7}, told{"e-1", 1, 5})
	h := &history{key: testKey, log: log, stored: entryOf(log), reachesBack: true, catalog: true}
	expect(t, h.explainAt(t, 2), ledger.Superseded, true,
		"superseded: 7 at 2026-11-20T12:02:00Z (event e-2 of //billing, arrival 1) was there first and is newer")
}

func TestTheSyncLogTellsUnchangedFromApplied(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-2", 2, 5}, told{"e-3", 3, 6}, told{"e-4", 4, 6}, told{"e-5", 5, 1}, told{"e-6", 6, 2}, told{"e-7", 7, 3})
	calls := []ledger.Call{accepted(log[0], "req-1")}
	h := &history{key: testKey, log: log, calls: calls, stored: entryOf(log, calls...), reachesBack: true, catalog: true}
	// Neither is among the four events that the ledger remembers.
	expect(t, h.explainAt(t, 2), ledger.Unchanged, false,
		"unchanged: it is newer than what was there, but the partner already had this value, so no call was made.",
		"The partner accepted 5 on 2026-11-21T12:00:01.5Z (request req-1).",
		"The ledger no longer remembers this event; this is what folding its log again gives.")
	h.calls = nil
	expect(t, h.explainAt(t, 2), ledger.Applied, false)
	h.reachesBack = false
	expect(t, h.explainAt(t, 2), ledger.Applied, false, "as far as the log can tell")
}

func TestACallIsNotTakenToComeBeforeItsFigure(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-2", 2, 5})
	early := accepted(log[0], "req-1")
	early.At = stored(-60) // a worker whose clock is a minute behind
	steps := (&history{key: testKey, log: log, calls: []ledger.Call{early}}).refold().steps
	if got := []ledger.Disposition{steps[0].disposition, steps[1].disposition}; got[0] != ledger.Applied || got[1] != ledger.Unchanged {
		t.Errorf("got %q, want applied and unchanged", got)
	}
}

func TestWhatTheLedgerRemembersIsTakenOverWhatTheLogSuggests(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-2", 2, 5})
	h := &history{key: testKey, log: log, stored: entryOf(log, accepted(log[0], "req-1")), reachesBack: true, catalog: true}
	h.calls = nil // the sync log has been trimmed: by the log alone e-2 was applied
	expect(t, h.explainAt(t, 2), ledger.Unchanged, true, "The sync log no longer has the call")
}

func TestARedeliveredOrReplayedEventKeepsItsFirstDisposition(t *testing.T) {
	original := told{"e-1", 1, 5}.event()
	replay := *original
	replay.ReplayOf = "1"
	log := append(logOf(told{"e-1", 1, 5}, told{"e-2", 2, 7}), readTestMessage(3, replay.Subject().String(), replay.Structured())...)
	h := &history{key: testKey, log: log, stored: entryOf(append(log, log[0])), reachesBack: true, catalog: true}
	for _, sequence := range []int{1, 3} {
		expect(t, h.explainAt(t, sequence), ledger.Applied, true)
	}
}

func TestAConflictingDuplicateIsDead(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-1", 1, 6})
	h := &history{key: testKey, log: log, stored: entryOf(log), reachesBack: true, catalog: true}
	expect(t, h.explainAt(t, 1), ledger.Applied, true)
	expect(t, h.explainAt(t, 2), ledger.Dead, true, "The reason is conflicting_duplicate", "a new id for every event", "No dead letter is stored")
	letter := &broker.StoredLetter{ID: "EVENTS_acme/2", Letter: event.Letter{Fault: event.Fault{Reason: event.ReasonConflict, Problem: "came before"}}}
	x := h.explain(&log[1], log[1].operations[0], letter)
	expect(t, x, ledger.Dead, true, "Dead letter EVENTS_acme/2 keeps it; see `usagebridge dlq show EVENTS_acme/2`.")
}

func TestAFigureThatWasGivenUpWasAppliedFirst(t *testing.T) {
	log := logOf(told{"e-1", 1, 5})
	refused := accepted(log[0], "")
	refused.Verdict, refused.Status, refused.Message = string(delivery.Dead), 422, "no such unit"
	h := &history{key: testKey, log: log, calls: []ledger.Call{refused}, stored: entryOf(log, refused), reachesBack: true, catalog: true}
	letter := &broker.StoredLetter{ID: "EVENTS_acme/1", Letter: event.Letter{Fault: event.Fault{Reason: event.ReasonRejected, Problem: "the partner answered 422"}}}
	expect(t, h.explain(&log[0], log[0].operations[0], letter), ledger.Applied, true,
		"Then its figure was given up (rejected): the partner answered 422", "Dead letter EVENTS_acme/1 keeps it", "The key is now failed (422 no such unit)")
}

func TestAnEventThatNoWorkerHasTakenIsNotSaidToBeApplied(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-2", 2, 7})
	h := &history{key: testKey, log: log, reachesBack: true, catalog: true}
	expect(t, h.explainAt(t, 1), "", false, "not folded yet")
	h.stored = entryOf(log[:1])
	expect(t, h.explainAt(t, 2), "", false, "not folded yet", "The key is now dirty: desired is 5")
	if x := h.explainAt(t, 1); x.After != nil {
		t.Errorf("got %v in its place, want nothing before it is folded", x.After)
	}
}

func TestEventsOfABatchAreFoundByTheirPlace(t *testing.T) {
	broken := told{"e-2", 2, 6}.event()
	broken.Data = event.Count{AccountID: "a-1", ServiceID: "backup", UnitCount: -1}
	body, err := event.EncodeBatch([]*event.Event{told{"e-1", 1, 5}.event(), broken, told{"e-3", 3, 7}.event()})
	if err != nil {
		t.Fatal(err)
	}
	log := readTestMessage(4, "usage.v1.acme.msp-1.batch", body)
	h := &history{key: testKey, log: log, stored: entryOf(log), reachesBack: true, catalog: true}
	x := h.explain(&log[2], log[2].operations[0], nil)
	expect(t, x, ledger.Applied, true, "in place of 5")
	if want := "EVENTS_acme/4-2"; x.Place != want || x.EventID != "e-3" {
		t.Errorf("got %s at %s, want e-3 at %s", x.EventID, x.Place, want)
	}
	letter := &broker.StoredLetter{ID: "EVENTS_acme/4-1", Letter: event.Letter{Fault: *log[1].fault}}
	x = explainDead(&log[1], letter)
	expect(t, x, ledger.Dead, true, "The reason is invalid at /1/data/unitCount: unitCount is", "Dead letter EVENTS_acme/4-1 keeps it")
	if x.EventID != "e-2" || x.Source != "//billing" {
		t.Errorf("got %q of %q, want the name that the broken event has all the same", x.EventID, x.Source)
	}
}

func TestAnEventThatBreaksTheContractIsFoundByItsName(t *testing.T) {
	for name, c := range map[string]struct {
		header map[string][]string
		body   string
	}{
		"structured":             {body: `{"specversion":"1.0","id":"e 1","source":"//billing","data":null}`},
		"binary":                 {header: map[string][]string{"Ce-Id": {"e%201"}, "ce-source": {"//billing"}}, body: `{`},
		"with an id in disguise": {body: `{"id":"e\u00201","source":"//billing"}`},
	} {
		t.Run(name, func(t *testing.T) {
			m := event.Message{Header: c.header, Data: []byte(c.body)}
			if id, source := identity(m.Header, m.Data); id != "e 1" || source != "//billing" {
				t.Errorf("got %q of %q, want \"e 1\" of \"//billing\"", id, source)
			}
			if !mayName(&m, "e 1") {
				t.Error("got false, want true: the message may hold the event")
			}
		})
	}
	other := event.Message{Data: []byte(`{"id":"e-2"}`)}
	if mayName(&other, "e 1") {
		t.Error("got true, want false: the message cannot hold the event")
	}
}

// last explains the newest occurrence of an event of the log.
func (w *workshop) last(t *testing.T, id string) explanation {
	t.Helper()
	for _, o := range slices.Backward(w.log) {
		if o.id == id {
			h := w.history(o.operations[0].Key)
			return h.explain(&o, o.operations[0], nil)
		}
	}
	t.Fatalf("the log has no event %q", id)
	return explanation{}
}

func TestAnEventSaysWhichSnapshotSetItsKeyToZero(t *testing.T) {
	w := newWorkshop()
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 2, "", unitsOf("a2", "s2", 7)))
	expect(t, w.last(t, "e-1"), ledger.Applied, true, "The key is now dirty: desired is 5")
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	expect(t, w.last(t, "e-1"), ledger.Applied, true,
		"Later 0 at 2026-11-20T12:02:00Z (snapshot month, which did not name the key, arrival 3) took its place.", "The key is now dirty: desired is 0")
	w.publish(countOf("late", "a1", "s2", 1, 6, ""))
	expect(t, w.last(t, "late"), ledger.Superseded, true, "superseded: 0 at 2026-11-20T12:02:00Z (snapshot month, which did not name the key, arrival 3) was there first")
	w.publish(countOf("new", "a3", "s2", 1, 6, ""))
	expect(t, w.last(t, "new"), ledger.Superseded, true, "superseded: 0 at 2026-11-20T12:02:00Z (snapshot month, which did not name the key, arrival 3) was there first")
}

func TestAnEventOfABackfillSaysThatItWasUndone(t *testing.T) {
	w := newWorkshop()
	w.publish(countOf("before", "a1", "s2", 1, 5, ""))
	w.publish(countOf("e-1", "a1", "s2", 2, 6, "b1"))
	w.call(ledger.CountKey("msp-1", "a1", "s2"), delivery.Delivered)
	expect(t, w.last(t, "e-1"), ledger.Applied, true, "It belongs to backfill b1.", "The partner accepted 6")
	w.say(backfillKey("acme", "b1"), reverted)
	w.call(ledger.CountKey("msp-1", "a1", "s2"), delivery.Delivered) // an older figure after a newer one is no conflict
	w.publish(countOf("after", "a1", "s2", 3, 7, ""))
	w.publish(countOf("e-2", "a1", "s2", 9, 9, "b1"))
	x := w.last(t, "e-1")
	expect(t, x, ledger.Applied, false, "It belongs to backfill b1, which was undone by ann on 2026-11-21T12:00:02.002Z: checked. It counts as if it had never been.",
		"The partner accepted 6", "The key is now dirty: desired is 7, the partner has 5")
	if x.After != nil {
		t.Errorf("got %v in its place, want nothing: it had been undone before", x.After)
	}
	expect(t, w.last(t, "e-2"), ledger.Superseded, false, "superseded: its backfill had been undone before it was folded, so it changed nothing.")
	expect(t, w.last(t, "before"), ledger.Applied, true, "Later 6 at 2026-11-20T12:02:00Z (event e-1 of //billing, arrival 2) took its place.")
}

func TestAnEventOfAnUndoneBackfillThatNoWorkerHasTakenIsNotFolded(t *testing.T) {
	w := newWorkshop()
	w.say(backfillKey("acme", "b1"), reverted)
	w.publish(countOf("e-1", "a1", "s2", 2, 6, "b1"))
	expect(t, w.last(t, "e-1"), ledger.Superseded, false, "its backfill had been undone")
	w.publish(countOf("e-2", "a1", "s2", 3, 7, "b1"))
	delete(w.entries, ledger.CountKey("msp-1", "a1", "s2"))
	first := w.log[0].operations[0].Arrival
	w.Put(ledger.Entry{Key: ledger.BackfillKey("msp-1", "b1"), Register: &ledger.Register{First: first, Last: first}})
	expect(t, w.last(t, "e-1"), ledger.Superseded, false, "its backfill had been undone")
	expect(t, w.last(t, "e-2"), "", false, "not folded yet")
	delete(w.entries, ledger.BackfillKey("msp-1", "b1"))
	expect(t, w.last(t, "e-1"), "", false, "not folded yet")
	w.record.Stopped = &stop{By: "ann", Why: "flood.", At: noon}
	expect(t, w.last(t, "e-1"), "", false, "not folded yet: it stands in the log. Nothing of this vendor is folded since it was stopped by ann on 2026-11-20T12:00:00Z: flood.")
}

func TestAFigureThatJumpedSaysWhatWasSaidOfIt(t *testing.T) {
	jump := func() (*workshop, string) {
		w := newWorkshop()
		w.publish(countOf("e-1", "a1", "s1", 1, 5, ""))
		w.publish(countOf("e-2", "a1", "s1", 2, 900, ""))
		e := w.Entry(ledger.CountKey("msp-1", "a1", "s1"))
		return w, approvalName(ledger.ApprovalID(e.Key, e.Seen[0]))
	}
	w, id := jump()
	expect(t, w.last(t, "e-2"), ledger.Applied, true,
		"Its figure jumped from 5 to 900 (the service may change by a factor of 10): it waits for approval "+id+".",
		"`usagebridge approvals release "+id+" --integration acme/msp-1 --why …` sends it, `refuse` takes it back.", "The key is now held, approval")
	w.say("acme.msp-1."+id, released)
	expect(t, w.last(t, "e-2"), ledger.Applied, true, "Its figure jumped from 5 to 900 (the service may change by a factor of 10), and was released by ann on 2026-11-21T12:00:02.001Z: checked.")
	w, id = jump()
	w.words["acme.msp-1."+id] = decision{Verdict: released, By: "ann", Why: "checked", At: w.now()} // by no worker yet
	expect(t, w.last(t, "e-2"), ledger.Applied, true, "was released by ann", "No worker has carried that out yet.")
	w, id = jump()
	w.say("acme.msp-1."+id, refused)
	w.publish(countOf("e-2", "a1", "s1", 2, 900, ""))
	expect(t, w.last(t, "e-2"), ledger.Superseded, false, "superseded: its figure had been refused before it was folded", "was refused by ann", "It counts as if it had never been.")
	w.publish(countOf("e-3", "a1", "s1", 3, 6, ""))
	w.log = w.log[1:2]
	if x := w.last(t, "e-2"); x.After != nil || x.Disposition != ledger.Applied {
		t.Errorf("got %q with %v in its place, want applied, and nothing in place of a figure that was refused before", x.Disposition, x.After)
	}
}

func TestAReplayNamesItsOriginalAndSaysThatAFigureWasSentAgain(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.call(key, delivery.Dead)
	replay := countOf("e-1", "a1", "s2", 1, 5, "")
	replay.ReplayOf = "1"
	w.publish(replay)
	x := w.last(t, "e-1")
	x.Original = &original{Place: "EVENTS_acme/1", EventID: "e-0", Source: "//billing", Stored: noon, Fault: "invalid at /data: no."}
	x.tell()
	expect(t, x, ledger.Applied, true, "It is a replay of EVENTS_acme/1, event e-0 of //billing, stored on 2026-11-20T12:00:00Z, which was dead: invalid at /data: no.",
		"Its figure had failed, and by the replay it was sent again.", "The key is now dirty")
	x.Original = &original{Place: "EVENTS_acme/1"}
	x.tell()
	expect(t, x, ledger.Applied, true, "It is a replay of EVENTS_acme/1, which the log no longer has.")
	h := w.history(key)
	expect(t, h.explain(&h.log[0], h.log[0].operations[0], nil), ledger.Applied, true, "It was replayed as EVENTS_acme/2.")
}

func TestADeadLetterThatIsGoneSaysHow(t *testing.T) {
	log := readTestMessage(4, "usage.v1.acme.msp-1.count.a.s", []byte("{"))
	for want, change := range map[string]func(*explanation){
		"No dead letter is stored for it: no worker has taken it yet, or the letter has gone.": func(*explanation) {},
		"It was replayed as EVENTS_acme/9.":                                                    func(x *explanation) { x.ReplayedAs = []string{"EVENTS_acme/9"} },
		"Its dead letter went when it was replayed.":                                           func(x *explanation) { x.ReplayedAs = []string{"EVENTS_acme/9"} },
		"Its dead letter was dropped by ann on 2026-11-20T12:00:00Z: test data.":               func(x *explanation) { x.Dropped = &deed{By: "ann", Why: "test data", At: noon} },
	} {
		x := explainDead(&log[0], nil)
		change(&x)
		x.tell()
		expect(t, x, ledger.Dead, false, want)
	}
}

func TestWhatTheLogHasLostIsTakenFromTheLedger(t *testing.T) {
	w := newWorkshop()
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	w.publish(countOf("late", "a1", "s2", 1, 6, ""))
	h := w.history(ledger.CountKey("msp-1", "a1", "s2"))
	h.log, h.first, h.reachesBack = h.log[2:], 3, false // the first part of the snapshot has gone, too
	h.stored.Seen = slices.Delete(h.stored.Seen, 1, 2)
	expect(t, h.explainAt(t, 4), ledger.Superseded, false, "superseded: 0 at 2026-11-20T12:02:00Z (snapshot month, which did not name the key, arrival 3) was there first")
	steps := h.refold().steps
	if got := h.name(steps[0].before, steps); got == nil || got.String() != "5 at 2026-11-20T12:01:00Z (arrival 1, no longer in the log)" {
		t.Errorf("got %v before the zero, want what the ledger remembers", got)
	}
}

func TestACallThatOverlappedAnotherLeavesTheKeyToBeSent(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-2", 2, 7})
	first, second := accepted(log[0], "req-1"), accepted(log[1], "req-2")
	second.At = first.At.Add(2 * time.Second)
	for _, c := range []struct {
		took time.Duration
		want ledger.State
	}{{time.Second, ledger.Synced}, {3 * time.Second, ledger.Dirty}} {
		second.Duration = c.took
		h := &history{key: testKey, log: log, calls: []ledger.Call{second, first}}
		if e := h.refold().Entry(testKey); e.State != c.want {
			t.Errorf("a call of %s: got %s, want %s", c.took, e.State, c.want)
		}
	}
}

func TestEveryDispositionBeginsItsSentence(t *testing.T) {
	for _, d := range ledger.Dispositions() {
		x := explanation{Disposition: d}
		if got, want := x.verdict(), fmt.Sprintf("%s: ", d); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want it to begin with %q", got, want)
		}
	}
}
