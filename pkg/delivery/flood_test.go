package delivery_test

import (
	"slices"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestAFloodOfRefusalsStopsTheLaneAndAsksForAPause(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1, Flood: 20, Concurrency: 4}, func(t *testing.T, r *rig) {
		keys := r.counts(1000)
		r.script(always(delivery.Rejected))
		r.set(5, keys...)
		after(30 * time.Second)
		if got := len(r.rulings(delivery.Dead)); got < 20 || got > 24 {
			t.Errorf("%d figures are dead, want 20 and those that were under way", got)
		}
		if got := r.told(delivery.Flooded); got < 1 {
			t.Errorf("told of a flood %d times, want at least once", got)
		}
		link := r.good()
		link.Paused = true
		r.lane.SetLink(link)
		after(24 * time.Hour)
		if got := len(r.rulings(delivery.Dead)); got > 24 {
			t.Errorf("%d figures are dead after a day of pause, want no more", got)
		}
		told := r.told(delivery.Flooded)
		one := true
		r.script(func(delivery.Task) delivery.Answer {
			if one {
				one = false
				return delivery.Answer{Class: delivery.Rejected}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		link.Paused = false
		r.lane.SetLink(link)
		after(time.Minute)
		if got := r.told(delivery.Flooded); got != told {
			t.Error("one refusal behind the pause counts as a flood")
		}
		if states := r.states(); states[ledger.Dirty] != 0 || states[ledger.Synced] < 1900 {
			t.Errorf("states once it is resumed: got %v, want all sent that was not dead", states)
		}
	})
}

func TestRefusalsWithAcceptedFiguresBetweenThemAreNoFlood(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1, Flood: 20, Concurrency: 1}, func(t *testing.T, r *rig) {
		n := 0
		r.script(func(delivery.Task) delivery.Answer {
			if n++; n%10 == 0 {
				return delivery.Answer{Class: delivery.Accepted}
			}
			return delivery.Answer{Class: delivery.Rejected}
		})
		r.set(5, r.counts(300)...)
		after(time.Minute)
		if got := r.told(delivery.Flooded); got != 0 {
			t.Errorf("told of a flood %d times, want never", got)
		}
		r.wantCalls(t, "all figures", 300, "count")
	})
}

func TestAFloodThatNobodyRecordsIsToldAgain(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1, Flood: 20, Concurrency: 1}, func(t *testing.T, r *rig) {
		r.script(always(delivery.Rejected))
		r.set(5, r.counts(100)...)
		after(10*time.Minute - time.Second)
		if got := r.told(delivery.Flooded); got != 10 {
			t.Errorf("told of a flood %d times in ten minutes, want once a minute", got)
		}
	})
}

func TestCountsAreSentAgainAfterAWeekWhenThereIsNothingElse(t *testing.T) {
	const week = 7 * 24 * time.Hour
	virtual(t, delivery.Config{Reassert: week, Rate: 10}, func(t *testing.T, r *rig) {
		keys := r.synced(t, 30)
		before := len(r.calls())
		r.lane.Reassert(keys...)
		after(time.Hour)
		r.wantCalls(t, "too early", before)
		after(week)
		r.lane.Reassert(keys...)
		after(time.Second)
		r.set(6, keys[29]) // comes in between, and goes first
		after(time.Second)
		calls := r.calls()[before:]
		at := -1
		for i, c := range calls {
			if c.Figure.Value.Units == 6 {
				at = i
			} else if !c.Again || c.Key.Kind != ledger.Count {
				t.Errorf("%s: again %t; want counts again", c.Key, c.Again)
			}
		}
		if at < 0 || at > 25 {
			t.Errorf("the new figure went as number %d of %d calls, want it before the rest of the old ones", at, len(calls))
		}
		after(time.Hour)
		if got := len(r.calls()) - before; got != 30 {
			t.Errorf("%d calls, want each count once", got)
		}
		if got := r.states()[ledger.Synced]; got != 61 {
			t.Errorf("%d keys are synced, want 61", got)
		}
	})
}

func TestOldCountsAreSentOneAtATimeAndTheLastOneBuilds(t *testing.T) {
	virtual(t, delivery.Config{Reassert: time.Hour}, func(t *testing.T, r *rig) {
		link := r.good()
		link.DefersBuild = true
		r.lane.SetLink(link)
		keys := r.synced(t, 6)
		before := len(r.calls())
		after(2 * time.Hour)
		r.partner.mu.Lock()
		r.partner.widest, r.partner.took = 0, time.Second
		r.partner.mu.Unlock()
		r.lane.Reassert(keys...)
		after(time.Minute)
		calls := r.calls()[before:]
		if got := builds(calls); len(calls) != 6 || len(got) != 1 || got[0] != 5 {
			t.Errorf("of %d calls these build: %v; want the last of six", len(calls), got)
		}
		if r.partner.widest != 1 {
			t.Errorf("%d calls were under way at once, want 1", r.partner.widest)
		}
	})
}

func TestNothingIsAssertedThroughAHold(t *testing.T) {
	virtual(t, delivery.Config{Reassert: time.Hour}, func(t *testing.T, r *rig) {
		keys := r.synced(t, 5)
		before := len(r.calls())
		after(2 * time.Hour)
		link := r.good()
		link.Ready = false
		r.lane.SetLink(link)
		r.lane.Reassert(keys...)
		after(24 * time.Hour)
		r.wantCalls(t, "while not ready", before)
		r.lane.SetLink(r.good())
		after(time.Minute)
		r.wantCalls(t, "when it is ready", before+5)
	})
}

func TestAStatusThatClaimsToBeReadyIsTriedWithOneCall(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Ready = false
		r.lane.SetLink(link)
		r.script(always(delivery.NotReady))
		r.partner.took = time.Second
		r.set(5, r.counts(100)...)
		after(time.Minute)
		r.wantCalls(t, "not ready", 0)
		r.lane.SetLink(r.good()) // an older platform calls "pending" what is not
		after(time.Minute)
		r.wantCalls(t, "said to be ready", 1)
	})
}

func TestAPersonWhoHasMappedOnlyAPartIsFoundOutWithoutWaitingForEachProbe(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Ready, link.Connected = false, false
		r.lane.SetLink(link)
		keys := r.counts(200)
		r.script(func(task delivery.Task) delivery.Answer {
			if slices.Contains(keys[:40], task.Key) {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted, Existed: true}
		})
		for round := range int64(3) { // the platform has it mapped anew each time
			r.lane.SetLink(link)
			r.set(round, keys...)
			after(20 * time.Minute)
			if got := r.states(); got[ledger.Held] != 40 || got[ledger.Dirty] != 0 {
				t.Errorf("states after the first probe of round %d: got %v, want 40 held and the rest sent", round, got)
			}
		}
	})
}

func TestAPartnerThatFindsNothingIsNotAskedForEveryKey(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Ready, link.Connected = false, false
		r.lane.SetLink(link)
		r.script(always(delivery.NotFound))
		r.set(5, r.counts(10_000)...)
		after(2 * time.Hour)
		if got := len(r.calls()); got < 52 || got > 55 {
			t.Errorf("%d calls in two hours, want fifty at the first probe and one at each of the next", got)
		}
		after(30 * 24 * time.Hour)
		if got := len(r.calls()); got > 199 {
			t.Errorf("%d calls in a month, want fifty at first and then the probes", got)
		}
	})
}
