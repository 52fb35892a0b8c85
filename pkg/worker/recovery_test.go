package worker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// link is a good link of the generation.
func (w *world) link(generation int) delivery.Link {
	return delivery.Link{Partner: w.partner, Ready: true, Connected: true, Credentials: "c1", Generation: generation}
}

// furnished publishes a catalog and a count of each of n accounts, and waits
// until the partner has them.
func (w *world) furnished(t *testing.T, accounts ...string) {
	t.Helper()
	for _, account := range accounts {
		w.catalog(account, "s")
		w.count("count "+account, time.Now(), account, "s", 5)
	}
	settle(time.Minute)
	if got, want := w.partner.accepted(), 2*len(accounts)+1; got != want {
		t.Fatalf("the partner has accepted %d values, want %d", got, want)
	}
}

// again are the calls accepted since the given number of them.
func (p *fakePartner) again(since int) []delivery.Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]delivery.Task(nil), p.tape[since:]...)
}

func TestANewGenerationSendsEverythingAgainOnceAndIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		running, stop := w.run()
		w.furnished(t, "a", "b", "c")
		before := w.partner.accepted()
		running.SetLink(vendor, organization, w.link(1))
		settle(time.Minute)
		tape := w.partner.again(before)
		if len(tape) != 7 {
			t.Fatalf("%d values were sent again, want 7", len(tape))
		}
		for i, task := range tape {
			if count := task.Key.Kind == ledger.Count; count != (i >= 4) || task.Generation != 1 || !task.Again {
				t.Errorf("call %d: %s, generation %d, again %t; want the catalog first, in generation 1", i, task.Key, task.Generation, task.Again)
			}
		}
		for _, key := range []ledger.Key{ledger.AccountKey(organization, "a"), ledger.CountKey(organization, "b", "s")} {
			if e := w.entry(key); e.State != ledger.Synced || !e.PostedIn(1) {
				t.Errorf("%s is stored as %s of generation %d, want synced of 1", key, e.State, e.Delivered.Generation)
			}
		}
		stop()

		// After a restart nobody has to think of it any more.
		before = w.partner.accepted()
		running, stop = w.run()
		running.SetLink(vendor, organization, w.link(1))
		settle(time.Hour)
		stop()
		if got := w.partner.accepted() - before; got != 0 {
			t.Errorf("%d values were sent again after a restart, want none", got)
		}
	})
}

// Regression: what was accepted in the generation before, and was just being
// recorded when the new one began, was not among what the partner had lost.
func TestAGenerationThatBeginsWhileAnAcceptedCountIsRecordedLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		running, stop := w.run(func(c *worker.Config) {
			store := c.Backend.Store
			c.Backend.Store = func(v string) worker.Store { return slowStore{store(v), w, 3 * time.Second} }
		})
		defer stop()
		w.furnished(t, "a")
		w.count("later", time.Now(), "a", "s", 6)
		before := w.partner.accepted()
		for w.partner.accepted() == before {
			settle(10 * time.Millisecond)
		}
		settle(time.Second) // in the middle of the record
		running.SetLink(vendor, organization, w.link(1))
		settle(time.Minute)
		key := ledger.CountKey(organization, "a", "s")
		if e := w.entry(key); e.State != ledger.Synced || !e.PostedIn(1) {
			t.Errorf("the count is %s of generation %d, want synced of 1: the partner had lost it", e.State, e.Delivered.Generation)
		}
	})
}

func TestAGenerationThatBeganWhileNobodyWorkedIsSeenToAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.start()
		w.furnished(t, "a")
		stop()
		before := w.partner.accepted()
		running, stop := w.run()
		defer stop()
		running.SetLink(vendor, organization, w.link(2)) // before the partition is loaded
		settle(time.Minute)
		if got := w.partner.accepted() - before; got != 3 {
			t.Errorf("%d values were sent again, want all 3", got)
		}
	})
}

func TestWhatThePartnerTakesWhileItIsTakenToHaveLostEverythingIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		running, stop := w.run()
		defer stop()
		w.furnished(t, "a")
		w.partner.mu.Lock()
		w.partner.latency = 5 * time.Second
		w.partner.mu.Unlock()
		w.count("newer", time.Now(), "a", "s", 6)
		settle(2 * time.Second) // its call is under way
		before := w.partner.accepted()
		running.SetLink(vendor, organization, w.link(1))
		settle(time.Minute)
		counts := 0
		for _, task := range w.partner.again(before) {
			if task.Key.Kind == ledger.Count {
				counts++
			}
		}
		if counts != 2 {
			t.Errorf("the count was taken %d times, want once in either generation", counts)
		}
		if e := w.entry(ledger.CountKey(organization, "a", "s")); e.State != ledger.Synced || !e.PostedIn(1) || e.Delivered.Value.Units != 6_000_000 {
			t.Errorf("the count is stored as %s, %d of generation %d; want synced, 6 units of generation 1", e.State, e.Delivered.Value.Units, e.Delivered.Generation)
		}
	})
}

func TestCountsAreSentAgainWhenTheirDeliveryIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.start(func(c *worker.Config) { c.Delivery.Reassert = 7 * time.Hour })
		defer stop()
		w.furnished(t, "a", "b")
		before := w.partner.accepted()
		settle(6 * time.Hour)
		if got := w.partner.accepted() - before; got != 0 {
			t.Fatalf("%d values were sent again within six hours, want none", got)
		}
		settle(7 * time.Hour)
		tape := w.partner.again(before)
		if len(tape) != 2 || tape[0].Key.Kind != ledger.Count || tape[1].Key.Kind != ledger.Count {
			t.Errorf("sent again within 13 hours: %+v, want each count once", tape)
		}
	})
}

func TestAViewOfTheBillingThatACrashLeftUnbuiltIsBuiltAtTheStart(t *testing.T) {
	for _, unbuilt := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			stop := w.start()
			w.furnished(t, "a", "b")
			stop()
			newest := w.entry(ledger.CountKey(organization, "b", "s"))
			if other := w.entry(ledger.CountKey(organization, "a", "s")); other.Delivered.At > newest.Delivered.At {
				newest = other
			}
			newest.Delivered.Unbuilt = unbuilt
			newest.Delivered.At++
			if err := w.store.Write(t.Context(), 0, []ledger.Entry{newest}); err != nil {
				t.Fatal(err)
			}
			before := w.partner.accepted()
			running, stop := w.run()
			defer stop()
			link := w.link(0)
			link.DefersBuild = true
			running.SetLink(vendor, organization, link)
			settle(time.Hour)
			tape := w.partner.again(before)
			if !unbuilt {
				if len(tape) != 0 {
					t.Errorf("built: %+v was sent, want nothing", tape)
				}
				return
			}
			if len(tape) != 1 || tape[0].Key != newest.Key || tape[0].NoBuild {
				t.Errorf("unbuilt: %+v was sent, want %s once more, building", tape, newest.Key)
			}
			if e := w.entry(newest.Key); e.Delivered.Unbuilt {
				t.Errorf("%s is stored as unbuilt, want it built", newest.Key)
			}
		})
	}
}

func TestAWorkerTellsWhatItsLaneIsDoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		running, stop := w.run()
		defer stop()
		if _, ok := running.Lane(vendor, organization); ok {
			t.Error("a lane is known before the partition is taken, want none")
		}
		w.partner.answers = func(delivery.Task) delivery.Answer { return delivery.Answer{Class: delivery.Unauthorized} }
		w.catalog("a", "s")
		settle(time.Minute)
		if s, ok := running.Lane(vendor, organization); !ok || s.Hold != ledger.Unauthorized {
			t.Errorf("lane: got %+v and %t, want one that is held as unauthorized", s, ok)
		}
		if !running.Owns(vendor, organization) || running.Owns("other", organization) {
			t.Errorf("owns: got %t and %t of another vendor, want true and false", running.Owns(vendor, organization), running.Owns("other", organization))
		}
	})
}

// listing is a partner that lists its accounts.
type listing struct{ mapped map[string]bool }

func (listing) ReadStatus(context.Context) delivery.Answer {
	return delivery.Answer{Class: delivery.Accepted, Status: 200, Observed: "connected", At: time.Now()}
}

func (l listing) ReadAccounts(_ context.Context, status string) (delivery.Sight, delivery.Answer) {
	return delivery.Sight{Mapped: l.mapped, Announced: true}, delivery.Answer{Class: delivery.Accepted, Status: 200, Observed: status, At: time.Now()}
}

func TestACountWhoseAccountIsListedAsNotMappedIsHeldWithoutACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		running, stop := w.run()
		defer stop()
		link := w.link(0)
		link.Credentials, link.Reader = "c2", listing{map[string]bool{"a": true, "b": false}}
		running.SetLink(vendor, organization, link)
		w.catalog("a", "s")
		w.catalog("b", "s")
		w.count("of a", time.Now(), "a", "s", 5)
		w.count("of b", time.Now(), "b", "s", 6)
		settle(time.Minute)
		if got := w.partner.units("a", "s"); got != 5 {
			t.Errorf("the partner has %d units of the mapped account, want 5", got)
		}
		if e := w.entry(ledger.CountKey(organization, "b", "s")); e.State != ledger.Held || e.Reason != ledger.Unmapped || e.Answer.Message == "" {
			t.Errorf("the count of the other is %s (%s), answer %q; want it held as unmapped, and why", e.State, e.Reason, e.Answer.Message)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.calls {
			if c.Account == "b" && c.Operation == "count" {
				t.Errorf("the log has the call %+v, want none that was not made", c)
			}
		}
	})
}
