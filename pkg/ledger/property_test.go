package ledger_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// drawOps draws events with few times, so that ties are common, each perhaps
// repeated at a later arrival and redelivered at the same. No time gets more
// events than an entry promises to remember.
func drawOps(t *rapid.T) []ledger.Operation {
	var ops []ledger.Operation
	n := rapid.IntRange(1, 10).Draw(t, "events")
	for id := 1; id <= n; id++ {
		when := rapid.IntRange(1, 3).Draw(t, "time")
		units := rapid.IntRange(0, 2).Draw(t, "units")
		for range rapid.IntRange(1, 3).Draw(t, "copies") {
			o := op(id, when, rapid.IntRange(0, 40).Draw(t, "arrival")*16+id, units)
			ops = append(ops, o)
			if rapid.Bool().Draw(t, "redelivered") {
				ops = append(ops, o)
			}
		}
	}
	return ops
}

// newest is the definition: the greatest time, then the greatest arrival,
// where an event counts at the earliest place at which it was seen.
func newest(ops []ledger.Operation) (v ledger.Version, value ledger.Value) {
	first := map[uint64]ledger.Operation{}
	for _, o := range ops {
		if f, ok := first[o.Event]; !ok || o.Arrival < f.Arrival {
			first[o.Event] = o
		}
	}
	for _, o := range first {
		if v == (ledger.Version{}) || o.Version.Compare(v) > 0 {
			v, value = o.Version, o.Value
		}
	}
	return v, value
}

func TestFoldDoesNotDependOnTheOrderOfArrival(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ops := drawOps(t)
		version, value := newest(ops)
		var e ledger.Entry
		lowest := map[uint64]uint64{}
		for _, o := range rapid.Permutation(ops).Draw(t, "order") {
			before, had := e.Desired()
			old := slices.Clone(e.Seen)
			next, _, err := e.Apply(o, now)
			if err != nil {
				t.Fatalf("Apply(%+v): %v", o, err)
			}
			if !slices.Equal(e.Seen, old) {
				t.Fatalf("Apply changed the old entry to %v, want %v", e.Seen, old)
			}
			seenAt, repeat := lowest[o.Event]
			earlier := repeat && o.Arrival < seenAt
			if after, _ := next.Desired(); had && after.Version.Compare(before.Version) < 0 && !earlier {
				t.Fatalf("desired went back from %v to %v by %+v", before.Version, after.Version, o)
			}
			if !repeat || earlier {
				lowest[o.Event] = o.Arrival
			}
			e = next
		}
		if s, _ := e.Desired(); s.Version != version || s.Value != value {
			t.Fatalf("desired %v %v, want %v %v", s.Version, s.Value, version, value)
		}
	})
}

// world is one key with its worker and its partner. What is stored outlives a
// crash; the worker sends only what is stored.
type world struct {
	stored  []byte
	memory  ledger.Entry
	sent    *ledger.Seen // a call under way: at most one
	taken   bool         // the partner has taken it, its answer is not here yet
	partner *ledger.Value
	log     []ledger.Operation // every event published
	acked   int                // the first so many are in the stored entry
}

func (w *world) store() {
	if len(w.memory.Seen) > 0 {
		w.stored = ledger.AppendEntry(nil, &w.memory)
	}
}

func (w *world) load(t *rapid.T) ledger.Entry {
	if w.stored == nil {
		return ledger.Entry{}
	}
	e, err := ledger.ParseEntry(key, w.stored)
	if err != nil {
		t.Fatalf("ParseEntry: %v", err)
	}
	return e
}

func (w *world) fold(t *rapid.T, o ledger.Operation) {
	next, _, err := w.memory.Apply(o, now)
	if err != nil {
		t.Fatalf("Apply(%+v): %v", o, err)
	}
	w.memory = next
}

// crash forgets what is not stored; the log delivers again what was not
// acknowledged, in any order.
func (w *world) crash(t *rapid.T) {
	w.memory, w.sent = w.load(t), nil
	if again := w.log[w.acked:]; len(again) > 0 {
		for _, o := range rapid.Permutation(slices.Clone(again)).Draw(t, "redelivered") {
			w.fold(t, o)
		}
	}
}

// send begins a call with the stored value, if that is to be sent.
func (w *world) send(t *rapid.T) {
	e := w.load(t)
	if w.sent == nil && len(e.Seen) > 0 && e.State != ledger.Synced && e.State != ledger.Failed {
		w.sent, w.taken = &e.Seen[0], false
	}
}

func (w *world) take() {
	if w.sent != nil && !w.taken {
		w.taken, w.partner = true, &w.sent.Value
	}
}

// answer ends the call, well or badly: a bad answer may come though the
// partner has taken the value, except that it never refuses what it took.
func (w *world) answer(t *rapid.T) {
	if w.sent == nil {
		return
	}
	a := ledger.Answer{At: now.UnixNano()}
	switch kind := rapid.IntRange(0, 3).Draw(t, "answer"); {
	case kind == 0:
		w.take()
		w.memory = w.memory.Accept(*w.sent, ledger.Receipt{}, a)
	case kind == 1 || w.taken:
		w.memory = w.memory.Retry(now.Add(time.Second), a)
	case kind == 2:
		w.memory = w.memory.Hold(ledger.Unmapped, a)
	default:
		w.memory = w.memory.Fail(*w.sent, a)
	}
	w.sent = nil
	w.store()
}

func (w *world) publish(o ledger.Operation) { w.log = append(w.log, o) }

func TestPartnerHoldsTheNewestValueWheneverAllIsQuiet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{}
		id := 0
		t.Repeat(map[string]func(*rapid.T){
			"event": func(t *rapid.T) {
				id++
				o := op(id, rapid.IntRange(1, 6).Draw(t, "time"), id, rapid.SampledFrom([]int{5, 7}).Draw(t, "units"))
				w.publish(o)
				w.fold(t, o)
			},
			"record": func(*rapid.T) { w.store(); w.acked = len(w.log) },
			"send":   w.send,
			"take":   func(*rapid.T) { w.take() },
			"answer": w.answer,
			"crash":  w.crash,
			"": func(t *rapid.T) {
				if w.memory.State != ledger.Synced || w.sent != nil {
					return
				}
				if s, _ := w.memory.Desired(); w.partner == nil || *w.partner != s.Value {
					t.Fatalf("the key is synced with %v, the partner holds %v", s.Value, w.partner)
				}
			},
		})
		w.store()
		w.quiet(t)
	})
}

// quiet lets a good partner take whatever is left and compares.
func (w *world) quiet(t *rapid.T) {
	w.sent = nil
	if len(w.log) == 0 || w.memory.State == ledger.Failed {
		return // a dead letter says so; the partner keeps what it has
	}
	_, value := newest(w.log)
	w.send(t)
	if w.sent != nil {
		w.take()
		w.memory = w.memory.Accept(*w.sent, ledger.Receipt{}, ledger.Answer{At: now.UnixNano()})
	}
	if w.memory.State != ledger.Synced || w.partner == nil || *w.partner != value {
		t.Fatalf("at quiet: state %s, partner %v; want synced and %v", w.memory.State, w.partner, value)
	}
}

func TestValueDeliveredBeforeAnUnknownCallIsSentAgain(t *testing.T) {
	e := accepted(folded(t, op(1, 10, 1, 5)))
	e = after(e, op(2, 20, 2, 7)) // sent, no answer, and the process dies
	e, err := ledger.ParseEntry(key, ledger.AppendEntry(nil, &e))
	if err != nil {
		t.Fatal(err)
	}
	e, disposition, _ := e.Apply(op(3, 30, 3, 5), now)
	if disposition != ledger.Applied || e.State != ledger.Dirty {
		t.Errorf("5 after an unknown 7 = %q, %s; want applied, dirty: the partner may hold 7", disposition, e.State)
	}
}
