package delivery_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

var (
	acme   = ledger.AccountKey(organization, "acme")
	globex = ledger.AccountKey(organization, "globex")
	backup = ledger.ServiceKey(organization, "backup")
	count  = ledger.CountKey(organization, "acme", "backup")
)

func TestAccountsAndServicesGoBeforeTheCountsThatNameThem(t *testing.T) {
	virtual(t, delivery.Config{Concurrency: 1}, func(t *testing.T, r *rig) {
		r.set(1, count, ledger.CountKey(organization, "globex", "backup"), backup, globex, acme)
		after(time.Second)
		var order []string
		for _, c := range r.calls() {
			order = append(order, c.Operation())
		}
		if want := []string{"account", "account", "service", "count", "count"}; !slices.Equal(order, want) {
			t.Errorf("calls = %v, want %v", order, want)
		}
	})
}

func TestCountWaitsForItsAccountAndService(t *testing.T) {
	other := ledger.CountKey(organization, "globex", "backup")
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.set(1, count)
		after(time.Hour)
		r.wantCalls(t, "without account and service", 0)
		r.set(1, acme)
		after(time.Hour)
		r.wantCalls(t, "without the service", 0, "count")
		if s := r.lane.Status(); s.Waiting != 1 || s.Queued != 0 {
			t.Errorf("waiting %d, queued %d; want 1, 0", s.Waiting, s.Queued)
		}
		r.set(1, backup, other)
		after(time.Hour)
		r.wantCalls(t, "with both", 1, "count")
		r.set(1, globex)
		after(time.Second)
		r.wantCalls(t, "with the account of the other", 2, "count")

		for _, key := range []ledger.Key{acme, backup} { // the partner lost its catalog
			r.change(key, func(e ledger.Entry) ledger.Entry {
				e.Delivered = ledger.Delivered{}
				return awaiting(e)
			})
		}
		r.set(2, count)
		after(time.Hour)
		r.wantCalls(t, "when the catalog is lost", 2, "count")
		r.change(acme, approved)
		r.change(backup, approved)
		after(time.Second)
		r.wantCalls(t, "when it is posted again", 3, "count")
	})
}

func TestManyChangesWithinLingerAreOneCallWithTheNewestValue(t *testing.T) {
	virtual(t, delivery.Config{Linger: time.Second}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		for i := range 9 {
			r.set(int64(i), count)
			after(100 * time.Millisecond)
		}
		r.wantCalls(t, "while lingering", 0)
		after(100 * time.Millisecond) // the linger counts from the first change
		r.wantCalls(t, "after the linger", 1)
		if got := r.calls()[0].Figure.Value.Units; got != 8 {
			t.Errorf("sent %d units, want the newest 8", got)
		}
	})
}

func TestKeyThatChangesWhileItsCallIsUnderWayWaitsForTheRecord(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		r.took, r.delay = 10*time.Second, 5*time.Second
		r.set(1, count)
		after(time.Second)
		r.set(2, count)
		r.lane.Settled(count) // neither a late word on an earlier call nor a hold and its end may free it
		r.change(count, awaiting)
		r.change(count, approved)
		after(10 * time.Second)
		r.wantCalls(t, "while the outcome is not recorded", 1)
		after(20 * time.Second)
		r.wantCalls(t, "afterwards", 2)
		if e, _ := r.Entry(count); e.State != ledger.Synced || e.Delivered.Value.Units != 2 {
			t.Errorf("state %s with %d units, want synced with 2", e.State, e.Delivered.Value.Units)
		}
	})
}

func TestNoMoreCallsAreUnderWayThanAllowed(t *testing.T) {
	virtual(t, delivery.Config{Concurrency: 3}, func(t *testing.T, r *rig) {
		keys := r.counts(50)
		r.took = time.Second
		r.set(1, keys...)
		after(time.Minute)
		r.wantCalls(t, "in the end", 50)
		if r.widest != 3 {
			t.Errorf("%d calls under way at once, want 3", r.widest)
		}
	})
}

func TestLaneStopsSendingWhileOutcomesAreNotRecorded(t *testing.T) {
	virtual(t, delivery.Config{Concurrency: 2}, func(t *testing.T, r *rig) {
		keys := r.counts(100)
		r.book.stuck = true
		r.set(1, keys...)
		after(time.Hour)
		r.wantCalls(t, "while nothing is recorded", 16)
		if s := r.lane.Status(); s.Recording != 16 || s.Sending != 0 {
			t.Errorf("recording %d, sending %d; want 16, 0", s.Recording, s.Sending)
		}
		r.unstick()
		after(time.Minute)
		r.wantCalls(t, "when it is recorded again", 100)
	})
}

func TestNoSecondHasMoreCallsThanTheRate(t *testing.T) {
	for _, rate := range []int{1, 7, 50, 500, 5000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			virtual(t, delivery.Config{Rate: float64(rate), Linger: -1}, func(t *testing.T, r *rig) {
				n := rate * 3 / 2
				r.set(1, r.counts(n)...)
				after(1500 * time.Millisecond) // the pace is below the rate by less than a burst, about 1 %
				if got := len(r.calls()); got < n*97/100 {
					t.Errorf("%d calls in a second and a half, want nearly %d", got, n)
				}
				tape := r.calls()
				for i := rate; i < len(tape); i++ {
					if d := tape[i].at.Sub(tape[i-rate].at); d < time.Second {
						t.Fatalf("calls %d to %d took %s, want a second at least", i-rate, i, d)
					}
				}
			})
		})
	}
}

func TestRateZeroIsNoLimit(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		r.set(1, r.counts(2000)...)
		after(time.Nanosecond)
		r.wantCalls(t, "at once", 2000)
	})
}

func TestFailedCallsAreRetriedWithFullJitterAndAttempts(t *testing.T) {
	config := delivery.Config{RetryMin: time.Second, RetryMax: 20 * time.Second, Attempts: 100}
	var low, high int
	virtual(t, config, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		r.script(always(delivery.Unavailable))
		r.set(1, count)
		after(time.Hour)
		for i, o := range r.rulings(delivery.Retry) {
			ceiling := config.RetryMax
			if i < 4 {
				ceiling = config.RetryMin << i
			}
			wait := o.Due.Sub(o.Answer.At)
			if wait < 0 || wait > ceiling+1 {
				t.Errorf("wait after attempt %d = %s, want 0 to %s", i+1, wait, ceiling)
			}
			if wait < ceiling/4 {
				low++
			} else if wait > ceiling*3/4 {
				high++
			}
			if o.Task.Attempt != i+1 {
				t.Errorf("call %d is attempt %d, want %d", i+1, o.Task.Attempt, i+1)
			}
		}
		if low < 5 || high < 5 {
			t.Errorf("of 99 waits %d are in the first and %d in the last quarter of their range: want the whole range drawn from", low, high)
		}
		dead := r.rulings(delivery.Dead)
		if len(dead) != 1 || dead[0].Task.Attempt != 100 || dead[0].Verdict.Dead != delivery.ReasonUndeliverable {
			t.Errorf("dead = %+v, want one, undeliverable after attempt 100", dead)
		}
		r.wantCalls(t, "in all", 100)
	})
}

func TestReleasedKeyDoesNotWaitForItsRetry(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		r.script(func(delivery.Task) delivery.Answer {
			return delivery.Answer{Class: delivery.Unavailable, RetryAfter: time.Hour}
		})
		r.set(1, count)
		after(time.Minute)
		r.change(count, func(e ledger.Entry) ledger.Entry { return e.Release() })
		after(time.Second)
		r.wantCalls(t, "after the release", 2)
	})
}

func TestRetryAfterIsRespected(t *testing.T) {
	for _, class := range []delivery.Class{delivery.Throttled, delivery.Unavailable} {
		t.Run(string(class), func(t *testing.T) {
			virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
				r.posted("backup", "acme")
				r.script(func(delivery.Task) delivery.Answer {
					return delivery.Answer{Class: class, RetryAfter: 10 * time.Minute}
				})
				r.set(1, count)
				after(time.Second)
				r.script(nil)
				after(10*time.Minute - 2*time.Second)
				r.wantCalls(t, "before the time", 1)
				after(5 * time.Second)
				r.wantCalls(t, "after it", 2)
			})
		})
	}
}

func TestTooFastIsNoAttemptHalvesThePaceAndRecovers(t *testing.T) {
	virtual(t, delivery.Config{Rate: 100, Concurrency: 8}, func(t *testing.T, r *rig) {
		keys := r.counts(2000)
		r.took = 200 * time.Millisecond // eight under way get the same answer
		r.script(func(delivery.Task) delivery.Answer {
			return delivery.Answer{Class: delivery.Throttled, RetryAfter: 30 * time.Second}
		})
		r.set(1, keys...)
		after(time.Second)
		r.wantCalls(t, "before the gate closed", 8)
		s := r.lane.Status()
		if s.Rate != 50 || s.Cause != delivery.Throttled || time.Until(s.Closed) > 30*time.Second {
			t.Errorf("rate %v, closed for %s by %s; want 50, at most 30s, throttled", s.Rate, time.Until(s.Closed), s.Cause)
		}
		r.script(nil)
		after(28 * time.Second)
		r.wantCalls(t, "while closed", 8)
		after(3 * time.Minute)
		if s := r.lane.Status(); s.Rate != 100 || !s.Closed.IsZero() {
			t.Errorf("rate %v, closed %v; want 100 again and open", s.Rate, s.Closed)
		}
		for _, c := range r.calls() {
			if c.Attempt != 1 {
				t.Fatalf("attempt %d after a 429, want 1", c.Attempt)
			}
		}
		if got := r.states()[ledger.Synced]; got != 4001 {
			t.Errorf("%d keys synced, want 4001", got)
		}
	})
}

func TestBreakerSparesAPartnerThatIsDown(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		keys := r.counts(30_000)
		r.script(always(delivery.Unavailable))
		r.set(1, keys...)
		after(time.Minute)
		if got := len(r.calls()); got > 16+12 {
			t.Errorf("%d calls in a minute of outage, want those under way and a dozen", got)
		}
		if s := r.lane.Status(); s.Cause != delivery.Unavailable || s.Closed.IsZero() {
			t.Errorf("cause %q until %v, want unavailable for a while", s.Cause, s.Closed)
		}
		r.script(nil)
		after(10 * time.Minute)
		if got := r.states(); got[ledger.Synced] != 60_001 {
			t.Errorf("states = %v, want all synced", got)
		}
	})
}

func TestOneKeyThatKeepsFailingDoesNotStopTheOthers(t *testing.T) {
	for name, poison := range map[string]ledger.Key{"account": globex, "service": ledger.ServiceKey(organization, "odd"), "count": count} {
		t.Run(name, func(t *testing.T) {
			virtual(t, delivery.Config{RetryMax: time.Minute}, func(t *testing.T, r *rig) {
				r.posted("backup", "acme")
				bad := []ledger.Key{poison}
				for i := range 6 { // enough of them to trip the breaker
					k := poison
					k.Account += fmt.Sprint(i)
					bad = append(bad, k)
				}
				keys := r.counts(20)
				r.script(func(task delivery.Task) delivery.Answer {
					if slices.Contains(bad, task.Key) {
						return delivery.Answer{Class: delivery.Unavailable}
					}
					return delivery.Answer{Class: delivery.Accepted}
				})
				for i := range 30 {
					r.set(1, bad...)
					after(time.Minute)
					r.set(int64(i), keys...)
					after(4 * time.Minute)
				}
				for _, key := range keys {
					if e, _ := r.Entry(key); e.State != ledger.Synced {
						t.Fatalf("%s is %s after hours beside keys that fail, want synced", key, e.State)
					}
				}
			})
		})
	}
}

func TestKeyThatFailsAloneDoesNotCloseTheGate(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.counts(2)
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key == keys[0] {
				return delivery.Answer{Class: delivery.Unavailable}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(1, keys[0])
		after(time.Hour)
		r.set(1, keys[1])
		after(time.Second)
		if e, _ := r.Entry(keys[1]); e.State != ledger.Synced {
			t.Errorf("another key is %s after a second, want synced (lane: %+v)", e.State, r.lane.Status())
		}
	})
}

func TestRefusedFigureIsDeadAndANewerOneStartsAfresh(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		r.script(always(delivery.Rejected))
		r.set(1, count)
		after(time.Hour)
		r.wantCalls(t, "after a refusal", 1)
		if dead := r.rulings(delivery.Dead); len(dead) != 1 || dead[0].Verdict.Dead != delivery.ReasonRejected {
			t.Errorf("dead = %+v, want one, rejected", dead)
		}
		r.script(nil)
		r.set(2, count)
		after(time.Second)
		r.wantCalls(t, "after a newer figure", 2)
	})
}

func TestPausedLaneSendsNothingUntilItIsResumed(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		paused := r.good()
		paused.Paused = true
		r.lane.SetLink(paused)
		r.set(1, acme, backup, count)
		after(time.Hour)
		r.wantCalls(t, "while paused", 0)
		if s := r.lane.Status(); s.Hold != ledger.Paused || s.Queued != 3 {
			t.Errorf("hold %q, queued %d; want paused, 3", s.Hold, s.Queued)
		}
		r.lane.SetLink(r.good())
		after(time.Second)
		r.wantCalls(t, "when resumed", 3)
		r.lane.SetLink(delivery.Link{})
		r.set(2, count)
		after(time.Hour)
		r.wantCalls(t, "without a partner", 3)
		if s := r.lane.Status(); s.Hold != ledger.IntegrationNotReady {
			t.Errorf("hold %q without a partner, want integration_not_ready", s.Hold)
		}
	})
}

func TestStoppedLaneLetsItsCallsFinish(t *testing.T) {
	for name, c := range map[string]struct {
		cause  error
		took   time.Duration
		ends   time.Duration
		synced int
	}{
		"within the grace":        {nil, 3 * time.Second, 3 * time.Second, 2},
		"cut off after the grace": {nil, time.Minute, 3 * time.Second, 0},
		"cut off when fenced":     {fmt.Errorf("lease lost: %w", delivery.ErrFenced), 3 * time.Second, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, t.Errorf, delivery.Config{Concurrency: 2, Linger: -1})
				r.lane.SetLink(r.good())
				keys := r.counts(10)
				r.took = c.took
				r.set(1, keys...)
				synctest.Wait()
				began := time.Now()
				r.stop(c.cause)
				synctest.Wait()
				if d := time.Since(began); d != c.ends {
					t.Errorf("the lane ended after %s, want %s", d, c.ends)
				}
				r.wantCalls(t, "in all", 2)
				if got := len(r.rulings(delivery.Delivered)); got != c.synced || len(r.rulings(delivery.NotCounted)) != 0 {
					t.Errorf("%d delivered, %d stopped calls recorded; want %d, 0", got, len(r.rulings(delivery.NotCounted)), c.synced)
				}
				for _, key := range keys {
					if e, _ := r.Entry(key); e.Attempts != 0 || e.State != ledger.Dirty && e.State != ledger.Synced {
						t.Errorf("%s is %s after %d attempts, want dirty or synced after none", key, e.State, e.Attempts)
					}
				}
			})
		})
	}
}

func TestCallThatEndsOfItselfAsStoppedIsRetriedWithABackoff(t *testing.T) {
	virtual(t, delivery.Config{Attempts: 1000}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		r.script(always(delivery.Stopped))
		r.set(1, count)
		after(time.Hour)
		if got := len(r.calls()); got > 100 {
			t.Errorf("%d calls in an hour, want a backoff between them", got)
		}
	})
}

func TestStoppedLaneBeginsNoFurtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.Errorf, delivery.Config{Linger: time.Second, Concurrency: 1000})
		r.lane.SetLink(r.good())
		keys := r.counts(1000)
		r.set(1, keys...)
		after(time.Millisecond)
		lookups := 0
		r.book.mu.Lock()
		r.took = time.Second          // no outcome in between
		r.looked = func(ledger.Key) { // stopped while it begins one call after the other
			if lookups++; lookups == 10 {
				r.cancel(nil)
			}
		}
		r.book.mu.Unlock()
		<-r.done
		synctest.Wait()
		r.wantCalls(t, "when it was stopped at the tenth", 10)
	})
}

func TestHundredThousandHeldKeysCostNextToNothing(t *testing.T) {
	for name, class := range map[string]delivery.Class{"not ready": delivery.NotReady, "unmapped": delivery.NotFound} {
		t.Run(name, func(t *testing.T) {
			virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
				const n = 100_000
				keys := make([]ledger.Key, n)
				for i := range keys {
					keys[i] = ledger.CountKey(organization, "acme", fmt.Sprint(i))
					e := ledger.Entry{}
					e, _, _ = e.Apply(ledger.Operation{Key: keys[i], Version: ledger.Version{Time: 1}, Event: uint64(i)}, time.Now())
					if class == delivery.NotFound {
						e = e.Hold(ledger.Unmapped, ledger.Answer{At: 1})
					}
					service := e
					service.Key = keys[i].ServiceKey()
					r.entries[keys[i]], r.entries[service.Key] = e, service.Accept(service.Seen[0], ledger.Receipt{}, ledger.Answer{At: 1})
					r.lane.Wake(service.Key)
				}
				r.posted("backup", "acme")
				r.script(always(class))
				r.lane.Wake(keys...)
				after(time.Hour)
				before := heap()
				after(30 * 24 * time.Hour)
				if got := len(r.calls()); got < 30 || got > 99 {
					t.Errorf("%d calls in a month, want one a day and a few, fewer than 100", got)
				}
				if grown := heap() - before; grown > 1<<20 {
					t.Errorf("the heap grew by %d bytes in a month, want it steady", grown)
				}
				runtime.KeepAlive(r)
			})
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMetricsAreWellFormedAndCountCalls(t *testing.T) {
	virtual(t, delivery.Config{Attempts: 2}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		r.script(func(delivery.Task) delivery.Answer { return delivery.Answer{Class: delivery.Unavailable, Status: 503} })
		r.set(1, count)
		after(time.Minute)
		r.script(nil)
		r.set(2, count)
		after(time.Second)
		r.change(count, func(e ledger.Entry) ledger.Entry { return e.Release() })
		after(time.Second)
		problems, err := testutil.GatherAndLint(r.registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		families, err := r.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				got[f.GetName()] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		for name, want := range map[string]float64{
			"usagebridge_partner_requests_total":           4,
			"usagebridge_partner_request_duration_seconds": 4,
			"usagebridge_retries_total":                    1,
			"usagebridge_delivery_lag_seconds":             1, // sending again to make sure is no lag
		} {
			if got[name] != want {
				t.Errorf("%s = %v, want %v", name, got[name], want)
			}
		}
	})
}
