package main

import (
	"fmt"
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

func TestEveryDispositionBeginsItsSentence(t *testing.T) {
	for _, d := range ledger.Dispositions() {
		x := explanation{Disposition: d}
		if got, want := x.verdict(), fmt.Sprintf("%s: ", d); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want it to begin with %q", got, want)
		}
	}
}
