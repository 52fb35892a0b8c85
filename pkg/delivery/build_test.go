package delivery_test

import (
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// deferring runs a test with a partner that rebuilds its view only when asked.
func deferring(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	virtual(t, delivery.Config{Concurrency: 4}, func(t *testing.T, r *rig) {
		link := r.good()
		link.DefersBuild = true
		r.lane.SetLink(link)
		r.partner.took = 100 * time.Millisecond
		test(t, r)
	})
}

// builds says of each count in turn whether it builds.
func builds(calls []sent) (yes []int) {
	for i, c := range calls {
		if !c.NoBuild {
			yes = append(yes, i)
		}
	}
	return yes
}

func TestOnlyTheLastCountOfABurstBuildsAndGoesWhenTheOthersAreAnswered(t *testing.T) {
	deferring(t, func(t *testing.T, r *rig) {
		r.set(5, r.counts(10)...)
		after(time.Minute)
		calls := r.calls("count")
		if got := builds(calls); len(calls) != 10 || len(got) != 1 || got[0] != 9 {
			t.Fatalf("of %d counts these build: %v; want the last of ten", len(calls), got)
		}
		if waited := calls[9].at.Sub(calls[8].at); waited < 100*time.Millisecond {
			t.Errorf("the last count went %v after the one before it, want after its answer", waited)
		}
		r.set(6, ledger.CountKey(organization, "a0", "backup"))
		after(time.Minute)
		if got := builds(r.calls("count")[10:]); len(got) != 1 {
			t.Errorf("a single count: %d build, want it to", len(got))
		}
	})
}

func TestWhenTheLastCountOfABurstFailsAnotherOneBuilds(t *testing.T) {
	for _, class := range []delivery.Class{delivery.NotFound, delivery.Rejected, delivery.Unavailable} {
		t.Run(string(class), func(t *testing.T) {
			deferring(t, func(t *testing.T, r *rig) {
				keys := r.counts(10)
				r.script(func(task delivery.Task) delivery.Answer {
					if task.Key == keys[9] {
						return delivery.Answer{Class: class}
					}
					return delivery.Answer{Class: delivery.Accepted}
				})
				r.set(5, keys...)
				after(10 * time.Minute)
				calls := r.calls("count")
				rebuilds := 0
				for _, c := range calls[10:] {
					if c.Key == keys[9] {
						continue // is tried again
					}
					rebuilds++
					if c.NoBuild || !c.Again {
						t.Errorf("behind the burst came %+v, want one of the accepted figures again, building", c.Task)
					}
				}
				if rebuilds != 1 {
					t.Errorf("%d rebuilds behind the burst, want one", rebuilds)
				}
			})
		})
	}
}

func TestABuildThatACrashHasPreventedIsMadeUpFor(t *testing.T) {
	deferring(t, func(t *testing.T, r *rig) {
		keys := r.synced(t, 3)
		before := len(r.calls())
		r.lane.Rebuild(keys[1])
		after(time.Minute)
		calls := r.calls()[before:]
		if len(calls) != 1 || calls[0].Key != keys[1] || calls[0].NoBuild || !calls[0].Again {
			t.Errorf("calls: got %+v, want %s once more, building", calls, keys[1])
		}
	})
}

func TestAPartnerThatAlwaysBuildsIsAskedForNothing(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.set(5, r.counts(10)...)
		after(time.Minute)
		if got := builds(r.calls("count")); len(got) != 10 {
			t.Errorf("%d counts build, want all ten", len(got))
		}
	})
}

func TestNothingIsRebuiltWhenACountIsAboutToGo(t *testing.T) {
	deferring(t, func(t *testing.T, r *rig) {
		keys := r.synced(t, 3)
		before := len(r.calls())
		r.fold(keys[0], 6)
		r.lane.Wake(keys[0])
		r.lane.Rebuild(keys[1])
		after(time.Minute)
		calls := r.calls()[before:]
		if len(calls) != 1 || calls[0].Key != keys[0] || calls[0].NoBuild {
			t.Errorf("calls: got %+v, want the new figure alone, building", calls)
		}
	})
}

func TestABuildThatOthersMayHaveOvertakenIsMadeAgain(t *testing.T) {
	deferring(t, func(t *testing.T, r *rig) {
		keys := r.counts(3)
		probed, burst, last := keys[0], keys[1], keys[2]
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key == probed || task.Key == last {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(5, probed)
		after(time.Minute)
		// The probe is a long call that builds; while it is under way another
		// count is taken without a build, and the one behind it fails.
		r.partner.took = 10 * time.Second
		r.lane.Probe(probed.Account)
		after(time.Second)
		r.partner.took = 100 * time.Millisecond
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key == last {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(5, burst, last)
		after(time.Minute)
		calls := r.calls("count")
		if final := calls[len(calls)-1]; final.NoBuild || final.Key != burst || !final.Again {
			t.Errorf("the last call is %+v, want the one that was taken without a build once more", final.Task)
		}
	})
}
