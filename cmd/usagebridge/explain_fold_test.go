package main

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// workshop is a worker with its whole ledger in memory (ledger.Book), and what it
// and the operators have done so far.
type workshop struct {
	entries map[ledger.Key]ledger.Entry
	config  Config
	record  *vendorRecord
	words   map[string]decision
	rules   *ledger.Rules
	log     []occurrence
	calls   map[ledger.Key][]ledger.Call
	became  map[string]ledger.Disposition // of events with one figure, by place
	dead    map[string]bool
	ticks   int // of the clock since the last event
}

// now is some time after the last event, later than ever before.
func (w *workshop) now() time.Time {
	w.ticks++
	return stored(len(w.log)).Add(time.Duration(w.ticks) * time.Millisecond)
}

func newWorkshop() *workshop {
	w := &workshop{
		entries: map[ledger.Key]ledger.Entry{}, config: Config{SnapshotZeroKeys: 1, SnapshotPatience: 4 * time.Second},
		record: &vendorRecord{Jump: map[string]float64{"s1": 10}}, words: map[string]decision{},
		calls: map[ledger.Key][]ledger.Call{}, became: map[string]ledger.Disposition{}, dead: map[string]bool{},
	}
	w.rules = w.config.rules(w.record, w.words)
	return w
}

func (w *workshop) Entry(key ledger.Key) ledger.Entry {
	e := w.entries[key]
	e.Key = key
	return e
}

func (w *workshop) Put(e ledger.Entry) { w.entries[e.Key] = e }

func (w *workshop) Counts(scope ledger.Key, yield func(ledger.Key)) {
	for _, key := range slices.Collect(maps.Keys(w.entries)) {
		if key.In(scope) {
			yield(key)
		}
	}
}

// publish stores an event as the next message of the log, and folds it.
func (w *workshop) publish(e *event.Event) {
	sequence := len(w.log) + 1
	now := stored(sequence)
	w.ticks = 0
	for _, o := range readTestMessage(sequence, e.Subject().String(), e.Structured()) {
		w.log = append(w.log, o)
		for key, keeper := range w.entries {
			if key.Kind == ledger.Scope {
				keeper, _ = keeper.GiveUp(now, w.config.SnapshotPatience)
				w.Put(keeper)
			}
		}
		folded, err := ledger.Fold(w, o.operations, w.rules, now)
		if err != nil {
			w.dead[o.place()] = true
		}
		if len(o.operations) == 1 {
			w.became[o.place()] = folded.Disposition
		}
		for _, scope := range folded.Completed {
			w.Counts(scope, func(key ledger.Key) { ledger.Review(w, key, w.rules, now) })
		}
	}
}

// giveUp gives up what lacks parts, as a worker does that the log says nothing of.
func (w *workshop) giveUp() {
	for key, keeper := range w.entries {
		if key.Kind == ledger.Scope {
			keeper, _ = keeper.GiveUp(w.now().Add(2*w.config.SnapshotPatience), w.config.SnapshotPatience)
			w.Put(keeper)
		}
	}
}

// say writes a decision, and carries it out.
func (w *workshop) say(key string, verdict judgment) {
	if _, ok := w.words[key]; ok {
		return
	}
	at := w.now()
	w.words[key] = decision{Verdict: verdict, By: "ann", Why: "checked", At: at}
	w.rules = w.config.rules(w.record, w.words)
	for _, key := range slices.Collect(maps.Keys(w.entries)) {
		ledger.Review(w, key, w.rules, at)
	}
}

// call brings the partner what is desired of the key, or does not.
func (w *workshop) call(key ledger.Key, verdict delivery.Ruling) {
	e := w.Entry(key)
	desired, ok := e.Desired()
	if !ok || e.State == ledger.Synced || e.State == ledger.Failed || desired.Waits != ledger.NoWait || desired.Unfounded() {
		return
	}
	c := ledger.Call{
		Organization: key.Organization, Operation: "count", Account: key.Account, Service: key.Service, Units: desired.Value.Units,
		Time: desired.Time, Arrival: desired.Arrival, At: w.now(), Verdict: string(verdict),
	}
	w.calls[key] = append(w.calls[key], c)
	w.Put(answered(e, c))
}

// history is what explain finds of the key.
func (w *workshop) history(key ledger.Key) *history {
	h := &history{
		integration: "acme/msp-1", key: key, calls: w.calls[key], keepers: map[ledger.Key]ledger.Entry{}, record: w.record,
		dead: w.dead, patience: w.config.SnapshotPatience, reachesBack: true, catalog: true,
	}
	for _, o := range w.log {
		if o.narrow(key) {
			h.log = append(h.log, o)
		}
	}
	for is, e := range w.entries {
		switch {
		case is == key:
			h.stored = &e
		case !is.Kind.Figure():
			h.keepers[is] = e
		}
	}
	if !key.Kind.Figure() {
		h.keepers[key] = w.Entry(key)
	}
	h.hear(w.words)
	return h
}

func (w *workshop) counts() []ledger.Key {
	var keys []ledger.Key
	for key := range w.entries {
		if key.Kind == ledger.Count {
			keys = append(keys, key)
		}
	}
	return keys
}

func at(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }

func countOf(id, account, service string, minute, units int, backfill string) *event.Event {
	return &event.Event{
		ID: id, Source: "//billing", Type: event.TypeCount, Time: at(minute), Backfill: backfill, Vendor: "acme", Organization: "msp-1",
		Data: event.Count{AccountID: account, ServiceID: service, UnitCount: event.Units(units) * event.UnitsScale},
	}
}

// snapshotOf is one part of a snapshot of the organization, or of the account
// if that is not empty.
func snapshotOf(name, account string, minute, part, parts int, backfill string, counts ...event.Count) *event.Event {
	return &event.Event{
		ID: fmt.Sprintf("%s-%d", name, part), Source: "//billing", Type: event.TypeSnapshot, Time: at(minute), Backfill: backfill,
		Vendor: "acme", Organization: "msp-1",
		Data: event.Snapshot{AccountID: account, Counts: counts, Part: part, Parts: parts, SnapshotID: name},
	}
}

func unitsOf(account, service string, units int) event.Count {
	return event.Count{AccountID: account, ServiceID: service, UnitCount: event.Units(units) * event.UnitsScale}
}

// act draws what happens next.
func (w *workshop) act(t *rapid.T, n int) {
	backfill := rapid.SampledFrom([]string{"", "", "b1", "b2"})
	units := rapid.SampledFrom([]int{0, 1, 2, 50, 900})
	minute := rapid.IntRange(1, 6)
	account, service := rapid.SampledFrom([]string{"a1", "a2"}), rapid.SampledFrom([]string{"s1", "s2"})
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0, 1, 2, 3:
		id := fmt.Sprint("e-", rapid.IntRange(max(n-3, 0), n).Draw(t, "id")) // some conflict, or come again
		w.publish(countOf(id, account.Draw(t, "account"), service.Draw(t, "service"), minute.Draw(t, "minute"), units.Draw(t, "units"), backfill.Draw(t, "backfill")))
	case 4, 5:
		w.publishPart(t, n)
	case 6:
		if len(w.log) > 0 { // the same event again
			if o := rapid.SampledFrom(w.log).Draw(t, "again"); o.event != nil {
				w.publish(o.event)
			}
		}
	case 7:
		w.say(backfillKey("acme", rapid.SampledFrom([]string{"b1", "b2"}).Draw(t, "undone")), reverted)
	case 8:
		for _, key := range w.counts() {
			e := w.Entry(key)
			if desired, ok := e.Desired(); ok && desired.Waits != ledger.NoWait && rapid.Bool().Draw(t, "decided") {
				w.say(approvalKey("acme", "msp-1", ledger.ApprovalID(key, desired)), rapid.SampledFrom([]judgment{released, refused}).Draw(t, "verdict"))
			}
		}
	case 9:
		for _, key := range w.counts() {
			w.call(key, rapid.SampledFrom([]delivery.Ruling{delivery.Delivered, delivery.Delivered, delivery.Retry, delivery.Dead}).Draw(t, "answer"))
		}
	}
}

func (w *workshop) publishPart(t *rapid.T, n int) {
	id := rapid.IntRange(max(n-4, 0), n).Draw(t, "snapshot")
	parts := id%2 + 1
	scope := []string{"", "", "a1"}[id%3]
	var counts []event.Count
	part := rapid.IntRange(1, parts).Draw(t, "part")
	for i, key := range [][2]string{{"a1", "s1"}, {"a1", "s2"}, {"a2", "s1"}, {"a2", "s2"}} {
		// What a part says is a function of its number, or it would conflict.
		if (scope == "" || scope == key[0]) && i%parts+1 == part && (id+i)%3 > 0 {
			counts = append(counts, unitsOf(key[0], key[1], (id+i)%4))
		}
	}
	w.publish(snapshotOf(fmt.Sprint("s-", id), scope, id%6+1, part, parts, []string{"", "b1"}[id%5/4], counts...))
}

func TestToldAgainAKeyEndsWhereTheWorkerHasIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorkshop()
		for n := range rapid.IntRange(1, 25).Draw(t, "acts") {
			w.act(t, n)
		}
		for _, key := range w.counts() {
			h := w.history(key)
			course := h.refold()
			want, got := w.Entry(key), course.Entry(key)
			is, _ := want.Desired()
			if told, ok := got.Desired(); !ok || told.Version != is.Version || told.Value != is.Value || told.Waits != is.Waits {
				t.Fatalf("%s: told again %+v is desired, and the worker has %+v", key, got.Seen, want.Seen)
			}
			if got.State != want.State || got.Delivered != want.Delivered {
				t.Fatalf("%s: told again it is %s with %+v, and the worker has %s with %+v", key, got.State, got.Delivered, want.State, want.Delivered)
			}
			for _, s := range course.steps {
				if became, ok := w.became[s.occurrence.place()]; ok && s.zeroedBy == "" && s.disposition != became {
					t.Fatalf("%s: told again %s was %q, the worker found %q", key, s.occurrence.id, s.disposition, became)
				}
			}
		}
	})
}

func TestToldAgainASnapshotThatWasGivenUpZeroesNothing(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	for i := range 5 { // longer than the patience
		w.publish(countOf(fmt.Sprint("x-", i), "a1", "s2", 1, 5, ""))
	}
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	if e := w.history(key).refold().Entry(key); e.Seen[0].Value.Units == 0 {
		t.Errorf("got 0 desired, want 5: the first part had been given up before the second came")
	}
}

func TestToldAgainTheLedgerKnowsBestWhichPartsCount(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	expectDesired := func(what, want string) {
		t.Helper()
		is, told := w.Entry(key), w.history(key).refold().Entry(key)
		got, has := valueText(ledger.Count, told.Seen[0].Value), valueText(ledger.Count, is.Seen[0].Value)
		if got != want || has != want {
			t.Errorf("%s: told again %s is desired and the worker has %s, want %s", what, got, has, want)
		}
	}
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	w.giveUp()
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	expectDesired("begun again", "5")
	expect(t, w.part(t, 2, nil), ledger.Applied, false, "applied: it is part 1 of 2", "it waits for 1 part, 1.")
	w.giveUp()
	expectDesired("given up again", "5")
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	expectDesired("one part again", "5")
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	expectDesired("both parts again", "0")

	// The worker stood still for longer than the patience, and then took both.
	w = newWorkshop()
	w.config.SnapshotPatience = time.Hour
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	w.publish(countOf("x-1", "a1", "s3", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	w.config.SnapshotPatience = time.Second
	expectDesired("both parts together", "0")
}

func TestToldAgainAContradictionChangesNothingEvenIfItsLetterHasGone(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	w.publish(snapshotOf("month", "", 2, 1, 2, "", unitsOf("a1", "s1", 1)))
	w.publish(snapshotOf("month", "", 2, 1, 2, "", unitsOf("a1", "s2", 7)))
	w.dead = nil
	course := w.history(key).refold()
	if e := course.Entry(key); len(e.Seen) > 0 || len(course.steps) != 1 || course.steps[0].disposition != ledger.Dead {
		t.Errorf("got %+v after %+v, want no figure and one dead event", e.Seen, course.steps)
	}
}
