package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

var demoDay = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestASeedHasOnePlan(t *testing.T) {
	a, b := newDemoPlan(7, 2000, demoDay), newDemoPlan(7, 2000, demoDay)
	if !reflect.DeepEqual(a, b) {
		t.Error("two plans of seed 7 differ")
	}
	if c := newDemoPlan(8, 2000, demoDay); reflect.DeepEqual(a.singles, c.singles) {
		t.Error("the plans of seeds 7 and 8 have the same events")
	}
}

func TestAPlanHasWhatADemoIsToShow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(minDemoEvents, 3000).Draw(t, "size")
		plan := newDemoPlan(rapid.Uint64().Draw(t, "seed"), size, demoDay)
		want := &plan.want
		// The catalog, what is broken, and the closing repeats come on top.
		catalog := len(plan.catalog)
		for _, e := range plan.singles {
			if e.Type != event.TypeCount {
				catalog++
			}
		}
		if got := want.published() - catalog - want.deadLetters() - want.recent; got != size {
			t.Errorf("got %d counts, want %d", got, size)
		}
		if got := len(want.figures); got != max(size/20, 8) {
			t.Errorf("got %d keys, want %d", got, max(size/20, 8))
		}
		for _, reason := range event.Reasons() {
			partners := reason == event.ReasonRejected || reason == event.ReasonUndeliverable
			if got := want.dead[reason] > 0; got == partners {
				t.Errorf("dead letters for %s: got %d", reason, want.dead[reason])
			}
		}
		if want.recent == 0 || want.repeats <= want.recent || size >= 1000 && want.dropped == 0 {
			t.Errorf("got %d repeats for the fold, %d of them recent, and %d for the server: want some of each", want.repeats, want.recent, want.dropped)
		}
	})
}

// foldedPlan is a plan as the product reads and folds it when all is stored in
// the order of publishing.
type foldedPlan struct {
	entries      map[ledger.Key]ledger.Entry
	dispositions map[ledger.Disposition]int
	dead         map[event.Reason]int
	messages     int
}

func foldPlan(t *rapid.T, plan *demoPlan) foldedPlan {
	f := foldedPlan{map[ledger.Key]ledger.Entry{}, map[ledger.Disposition]int{}, map[event.Reason]int{}, 0}
	sent := map[string]bool{}
	store := func(subject string, header map[string][]string, body []byte, id string) {
		if id != "" && sent[id] {
			return
		}
		sent[id] = true
		f.messages++
		m := event.Message{Subject: subject, Header: header, Data: body, Sequence: uint64(f.messages), Stored: plan.start.Add(time.Minute)}
		for _, r := range event.Decode(m, event.DefaultLimits()) {
			if r.Fault != nil {
				f.dead[r.Fault.Reason]++
				f.dispositions[ledger.Dead]++
				continue
			}
			op, err := meanings()[r.Event.Type](r.Event)
			if err != nil {
				t.Fatalf("event %q: %v", r.Event.ID, err)
			}
			entry := f.entries[op[0].Key]
			next, what, err := entry.Apply(op[0], plan.start)
			if err != nil {
				f.dead[event.ReasonConflict]++
			}
			f.dispositions[what]++
			f.entries[op[0].Key] = next
		}
	}
	for _, e := range slices.Concat(plan.catalog, plan.singles) {
		store(e.Subject().String(), nil, e.Structured(), e.Source+"/"+e.ID)
	}
	for _, m := range slices.Concat(plan.bulk, plan.closing) {
		store(m.subject, m.header, m.body, strings.Join(m.header["Nats-Msg-Id"], ""))
	}
	return f
}

func TestWhatAPlanWantsIsWhatDecodingAndFoldingItGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := newDemoPlan(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(minDemoEvents, 4000).Draw(t, "size"), demoDay)
		got, want := foldPlan(t, plan), &plan.want
		if !maps.Equal(got.dead, want.dead) {
			t.Errorf("got dead %v\nwant %v", got.dead, want.dead)
		}
		if got.messages != want.messages || total(got.dispositions) != want.events {
			t.Errorf("got %d messages and %d events, want %d and %d", got.messages, total(got.dispositions), want.messages, want.events)
		}
		if d := got.dispositions[ledger.Duplicate]; d < want.recent || d > want.repeats {
			t.Errorf("got %d duplicates, want %d to %d", d, want.recent, want.repeats)
		}
		if len(got.entries) != want.keys() {
			t.Errorf("got %d keys, want %d", len(got.entries), want.keys())
		}
		for key, figure := range want.figures {
			entry := got.entries[ledger.CountKey(key.organization, key.account, key.service)]
			desired, _ := entry.Desired()
			if desired.Value.Units != int64(figure.newest.units) {
				t.Errorf("%s: got %d, want %d", key, desired.Value.Units, figure.newest.units)
			}
		}
	})
}

func TestTheModelFindsTheNewestFigure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sent []sentFigure
		for i := range rapid.IntRange(1, 60).Draw(t, "events") {
			if len(sent) > 0 && rapid.IntRange(0, 5).Draw(t, "repeat") == 0 {
				again := rapid.SampledFrom(sent).Draw(t, "of")
				again.order = i
				sent = append(sent, again)
				continue
			}
			sent = append(sent, sentFigure{
				key:   demoKey{"o", "a", fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "key"))},
				id:    fmt.Sprint(i),
				time:  demoDay.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "time")) * time.Second),
				order: i, units: event.Units(i),
			})
		}
		want := map[demoKey]sentFigure{}
		for _, f := range sent { // in the order of arrival, one after the other
			if best, ok := want[f.key]; f.units == event.Units(f.order) && (!ok || !f.time.Before(best.time)) {
				want[f.key] = f
			}
		}
		shuffled := rapid.Permutation(sent).Draw(t, "order")
		got := newestFigures(shuffled)
		if len(got) != len(want) {
			t.Fatalf("got %d keys, want %d", len(got), len(want))
		}
		for key, figure := range got {
			if figure.newest != want[key] {
				t.Errorf("%s: got %v, want %v", key, figure.newest, want[key])
			}
			if rank := figure.ranks[figure.newest.units]; rank != len(figure.ranks)-1 {
				t.Errorf("%s: the newest value has rank %d of %d", key, rank, len(figure.ranks))
			}
		}
	})
}

func TestAPlanLetsTheOrderOfValuesBeJudged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := newDemoPlan(rapid.Uint64().Draw(t, "seed"), 2000, demoDay)
		for key, figure := range plan.want.figures {
			if got, want := figure.ranks[figure.newest.units], len(figure.ranks)-1; got != want {
				t.Errorf("%s: the newest value has rank %d, want %d: it was there before, with others between", key, got, want)
			}
			seen := make([]bool, len(figure.ranks))
			for _, rank := range figure.ranks {
				if rank >= len(seen) || seen[rank] {
					t.Fatalf("%s: rank %d of %d occurs twice or is too high", key, rank, len(seen))
				}
				seen[rank] = true
			}
		}
	})
}
