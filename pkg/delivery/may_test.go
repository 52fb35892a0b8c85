package delivery_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestNoCallBeginsWhileNoneMay(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		never := func() bool { return false }
		r.may.Store(&never)
		r.set(1, acme)
		after(time.Minute)
		r.wantCalls(t, "while none may begin", 0)
		r.may.Store(nil)
		after(time.Second)
		r.wantCalls(t, "once they may", 1)
	})
}

func TestACallWhoseTimeIsOverIsNotMade(t *testing.T) {
	// With one call at a time nobody asks for another one meanwhile.
	virtual(t, delivery.Config{Concurrency: 1}, func(t *testing.T, r *rig) {
		var chosen, refused atomic.Bool
		may := func() bool { // but not any more when the chosen call is to be made, once
			return !chosen.Load() || len(r.calls()) > 0 || !refused.CompareAndSwap(false, true)
		}
		r.set(1, acme)
		r.may.Store(&may)
		r.book.mu.Lock()
		r.looked = func(ledger.Key) { chosen.Store(true) } // from here on only to choose it
		r.book.mu.Unlock()
		after(time.Second)
		r.wantCalls(t, "in all", 1)
		if !refused.Load() {
			t.Error("nobody asked between the choice of a call and the call")
		}
		if e, _ := r.Entry(acme); e.State != ledger.Synced || len(r.rulings(delivery.Delivered)) != 1 || len(r.outcomes) != 1 {
			t.Errorf("entry %s with %d outcomes, want synced with one: what was not made has no outcome", e.State, len(r.outcomes))
		}
		r.stop(nil)
		if r.cut != 0 {
			t.Errorf("%d calls cut off, want 0: it was not made", r.cut)
		}
	})
}

func TestCallsThatAreCutOffAreCounted(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.took = time.Minute
		r.set(1, acme, globex)
		after(time.Second)
		r.stop(nil)
		if r.cut != 2 {
			t.Errorf("%d calls cut off, want 2", r.cut)
		}
	})
}

func TestARetryStoredByAWrongClockWaitsNoLongerThanADay(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.fold(acme, 1)
		r.change(acme, func(e ledger.Entry) ledger.Entry {
			return e.Retry(time.Now().AddDate(10, 0, 0), ledger.Answer{})
		})
		r.lane.Wake(acme)
		after(23 * time.Hour)
		r.wantCalls(t, "before a day has passed", 0)
		after(2 * time.Hour)
		r.wantCalls(t, "after a day", 1)
	})
}

// Regression: a worker whose clock was an hour behind waited for an hour before it
// tried again what another one had put off for ten seconds.
func TestARetryIsMadeAfterTheWaitThatWasPlannedWhateverTheClocks(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ours is behind": time.Hour, "they agree": 0, "ours is ahead": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
				r.fold(acme, 1)
				r.change(acme, func(e ledger.Entry) ledger.Entry {
					answered := time.Now().Add(ahead)
					return e.Retry(answered.Add(10*time.Second), ledger.Answer{At: answered.UnixNano(), Status: 503})
				})
				after(10*time.Second - time.Millisecond)
				if ahead >= 0 {
					r.wantCalls(t, "before it is due", 0)
				}
				after(time.Second)
				r.wantCalls(t, "when it is due", 1)
			})
		})
	}
}
