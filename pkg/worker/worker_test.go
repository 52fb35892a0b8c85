package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

func TestTheNewestCountReachesThePartnerAfterItsCatalog(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start()
		defer stop()
		now := time.Now()
		w.count("c1", now, "a", "s", 5)
		w.count("c2", now.Add(time.Minute), "a", "s", 7)
		w.count("c3", now.Add(-time.Minute), "a", "s", 9)
		settle(5 * time.Second)
		if got := w.partner.accepted(); got != 0 {
			t.Fatalf("accepted calls before the catalog is known: got %d, want 0", got)
		}
		w.catalog("a", "s")
		settle(5 * time.Second)
		if got := w.partner.units("a", "s"); got != 7 {
			t.Errorf("units at the partner: got %d, want 7, the figure with the newest time", got)
		}
		if got := w.partner.accepted(); got != 3 {
			t.Errorf("calls: got %d, want 3 (account, service, one count)", got)
		}
		if got := w.unacked(); len(got) != 0 {
			t.Errorf("messages not acked: got %v, want none", got)
		}
		e := w.entry(ledger.CountKey(organization, "a", "s"))
		if e.State != ledger.Synced || e.Delivered.Value.Units != 7_000_000 {
			t.Errorf("entry: got state %s and delivered %d, want synced and 7000000", e.State, e.Delivered.Value.Units)
		}
	})
}

func TestNothingIsAckedBeforeItIsRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		failures := 3
		w.store.FailWith(func([]ledger.Entry) (bool, error) {
			if failures == 0 {
				return false, nil
			}
			failures--
			return false, errors.New("no answer")
		})
		stop := w.start()
		defer stop()
		w.count("c1", time.Now(), "a", "s", 5)
		settle(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		if want := []string{"write", "ack 1"}; !slices.Equal(w.acks, want) {
			t.Errorf("order of record and ack: got %v, want %v", w.acks, want)
		}
	})
}

func TestAFigureIsNotSentBeforeItIsRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start()
		defer stop()
		w.catalog("a", "s")
		w.count("c1", time.Now(), "a", "s", 5)
		settle(5 * time.Second)
		w.store.FailWith(func([]ledger.Entry) (bool, error) { return false, errors.New("no answer") })
		w.count("c2", time.Now(), "a", "s", 6)
		settle(time.Minute)
		if got := w.partner.units("a", "s"); got != 5 {
			t.Errorf("units at the partner while the ledger cannot be written: got %d, want 5", got)
		}
		w.store.FailWith(nil)
		settle(time.Minute)
		if got := w.partner.units("a", "s"); got != 6 {
			t.Errorf("units at the partner afterwards: got %d, want 6", got)
		}
	})
}

func TestAWriteThatWasStoredButNotConfirmedIsFoldedAgainToTheSame(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		failures := 2
		w.store.FailWith(func([]ledger.Entry) (bool, error) {
			if failures == 0 {
				return false, nil
			}
			failures--
			return true, errors.New("the answer was lost")
		})
		registry := prometheus.NewRegistry()
		stop := w.start(func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })
		defer stop()
		w.catalog("a", "s")
		w.count("c1", time.Now(), "a", "s", 5)
		settle(time.Minute)
		if got := w.partner.units("a", "s"); got != 5 {
			t.Errorf("units at the partner: got %d, want 5", got)
		}
		want := `
			# HELP usagebridge_events_total Events folded, by disposition.
			# TYPE usagebridge_events_total counter
			usagebridge_events_total{disposition="applied",family="usage",vendor="acme"} 1
		`
		if err := compareSeries(registry, want); err != nil {
			t.Error(err)
		}
	})
}

// compareSeries compares the non-zero usage series of events_total.
func compareSeries(registry *prometheus.Registry, want string) error {
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	var got []string
	for _, f := range families {
		if f.GetName() != "usagebridge_events_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if v := m.GetCounter().GetValue(); v != 0 && m.GetLabel()[1].GetValue() == "usage" {
				got = append(got, fmt.Sprintf("%s %v", m.GetLabel()[0].GetValue(), v))
			}
		}
	}
	if len(got) != 1 || got[0] != "applied 1" {
		return fmt.Errorf("usage events by disposition: got %v, want %s", got, strings.TrimSpace(want))
	}
	return nil
}

func TestAnEntryThatAnotherWorkerChangedIsFoldedOnWhatIsStored(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start()
		defer stop()
		now := time.Now()
		w.catalog("a", "s")
		w.count("c1", now, "a", "s", 5)
		settle(5 * time.Second)
		other := w.entry(ledger.CountKey(organization, "a", "s"))
		newer, _, err := other.Apply(ledger.Operation{
			Key: other.Key, Version: ledger.Version{Time: now.Add(time.Hour).UnixNano(), Arrival: 1 << 40},
			Value: ledger.Value{Units: 11_000_000}, Event: 99,
		}, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.Write(t.Context(), 0, []ledger.Entry{newer}); err != nil {
			t.Fatal(err)
		}
		w.count("c2", now.Add(time.Minute), "a", "s", 6)
		settle(time.Minute)
		if got := w.partner.units("a", "s"); got != 11 {
			t.Errorf("units at the partner: got %d, want 11: the other worker's figure is newer", got)
		}
	})
}

func TestWhatIsWrongIsParkedAndTheRestApplied(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start(func(c *worker.Config) { delete(c.Meanings, event.TypeSnapshot) })
		defer stop()
		now := time.Now()
		w.catalog("a", "s")
		w.publish("usage.v1.acme.msp-1.count.a.s", []byte("{"))
		w.count("c1", now, "a", "s", 5)
		w.count("c1", now, "a", "s", 6)
		w.count("c2", now.Add(365*24*time.Hour), "a", "s", 7)
		w.send("snap", now, event.Snapshot{Counts: []event.Count{{AccountID: "a", ServiceID: "s"}}})
		settle(10 * time.Second)
		want := []string{"conflicting_duplicate 5", "malformed 3", "too_far_ahead 6", "unknown_type 7"}
		if got := w.letterReasons(); !slices.Equal(got, want) {
			t.Errorf("dead letters: got %v, want %v", got, want)
		}
		if got := w.partner.units("a", "s"); got != 5 {
			t.Errorf("units at the partner: got %d, want 5", got)
		}
		if got := w.unacked(); len(got) != 0 {
			t.Errorf("messages not acked: got %v, want none", got)
		}
	})
}

func TestAPanicWhileFoldingBecomesADeadLetterWithItsStack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start(func(c *worker.Config) {
			c.Meanings[event.TypeCount] = func(*event.Event) ([]ledger.Operation, error) { panic("planted") }
		})
		defer stop()
		w.count("c1", time.Now(), "a", "s", 5)
		w.catalog("a", "s")
		settle(10 * time.Second)
		l := w.letters["malformed 1"]
		if !strings.Contains(l.Fault.Problem, "planted") || !strings.Contains(l.Fault.Problem, "worker_test.go") {
			t.Errorf("letter: got problem %q, want the panic and its stack", l.Fault.Problem)
		}
		if got := w.partner.accepted(); got != 2 {
			t.Errorf("accepted calls: got %d, want 2: the catalog must not suffer", got)
		}
	})
}

func TestAHintMakesAHeldCountGoAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		mapped := false
		w.partner.answers = func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count && !mapped {
				return delivery.Answer{Class: delivery.NotFound, Status: 404}
			}
			return delivery.Answer{Class: delivery.Accepted, Status: 201}
		}
		running, stop := w.run()
		defer stop()
		w.catalog("a", "s")
		w.count("c1", time.Now(), "a", "s", 5)
		settle(5 * time.Second)
		w.partner.mu.Lock()
		mapped = true
		w.partner.mu.Unlock()
		running.Probe(vendor, "somebody else", "a")
		running.Probe("unknown", organization, "a")
		settle(time.Second)
		if got := w.partner.units("a", "s"); got != 0 {
			t.Errorf("units after hints for others: got %d, want 0", got)
		}
		running.Probe(vendor, organization, "a")
		settle(time.Second)
		if got := w.partner.units("a", "s"); got != 5 {
			t.Errorf("units after the hint: got %d, want 5", got)
		}
	})
}

func TestARefusedFigureIsParkedWithItsOriginalAndANewerOneStartsAfresh(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partner.answers = func(task delivery.Task) delivery.Answer {
			if task.Figure.Value.Units == 5_000_000 {
				return delivery.Answer{Class: delivery.Rejected, Status: 422, Message: "no fives"}
			}
			return delivery.Answer{Class: delivery.Accepted, Status: 201}
		}
		stop := w.start()
		defer stop()
		now := time.Now()
		w.catalog("a", "s")
		sequence := w.count("c1", now, "a", "s", 5)
		settle(5 * time.Second)
		key := ledger.CountKey(organization, "a", "s")
		if got := w.entry(key).State; got != ledger.Failed {
			t.Fatalf("state after the refusal: got %s, want failed", got)
		}
		l := w.letters[fmt.Sprintf("rejected %d", sequence)]
		if l.EventID != "c1" || l.Answer != "no fives" || len(l.Original.Data) == 0 {
			t.Errorf("letter: got id %q, answer %q and %d bytes, want c1, the partner's words and the original", l.EventID, l.Answer, len(l.Original.Data))
		}
		w.count("c2", now.Add(time.Minute), "a", "s", 6)
		settle(5 * time.Second)
		if got := w.partner.units("a", "s"); got != 6 {
			t.Errorf("units at the partner: got %d, want 6", got)
		}
	})
}

func TestARestartSendsOnlyWhatIsNotDelivered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start()
		w.catalog("a", "s")
		w.count("c1", time.Now(), "a", "s", 5)
		settle(5 * time.Second)
		stop()
		before := w.partner.accepted()
		w.count("c2", time.Now(), "a", "t", 6)
		w.catalog("a", "t")
		stop = w.start()
		defer stop()
		settle(10 * time.Second)
		if got := w.partner.accepted() - before; got != 2 {
			t.Errorf("calls after the restart: got %d, want 2 (service t and its count; account a is unchanged)", got)
		}
	})
}

func TestAGracefulStopRecordsTheCallsUnderWayAndGivesTheLeaseBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partner.latency = 2 * time.Second
		stop := w.start()
		w.send("acc", time.Now(), event.Account{AccountID: "a", Name: "A"})
		settle(time.Second)
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("the stop took %v, want at most what the call still needed", took)
		}
		e := w.entry(ledger.AccountKey(organization, "a"))
		if e.State != ledger.Synced {
			t.Errorf("entry after the stop: got %s, want synced: the call had been accepted", e.State)
		}
		if w.releases != 1 {
			t.Errorf("leases given back: got %d, want 1", w.releases)
		}
	})
}

func TestALostLeaseCutsCallsOffAndDropsThePartition(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partner.latency = time.Hour
		stop := w.start()
		defer stop()
		w.send("acc", time.Now(), event.Account{AccountID: "a", Name: "A"})
		settle(time.Second)
		w.mu.Lock()
		w.renewErr = worker.ErrLeased
		w.mu.Unlock()
		settle(leaseTTL)
		if w.partner.cut == 0 {
			t.Error("calls cut off: got 0, want 1")
		}
		e := w.entry(ledger.AccountKey(organization, "a"))
		if e.Attempts != 0 || e.State != ledger.Dirty {
			t.Errorf("entry: got %s with %d attempts, want dirty with none: a fenced call is no attempt", e.State, e.Attempts)
		}
	})
}

func TestAWorkerThatCannotGetItsLeasesSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		fail := errors.New("no space left on device")
		var mu sync.Mutex
		running, stop := w.run(func(c *worker.Config) {
			lease := c.Backend.Lease
			c.Backend.Lease = func(ctx context.Context, vendor string, partition int) (worker.Lease, error) {
				mu.Lock()
				defer mu.Unlock()
				if fail != nil {
					return nil, fail
				}
				return lease(ctx, vendor, partition)
			}
		})
		defer stop()
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			fail = err
		}
		settle(10 * time.Second)
		if err := running.Ready(); err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("readiness without a lease: got %v, want the cause", err)
		}
		set(worker.ErrLeased)
		settle(10 * time.Second)
		if err := running.Ready(); err != nil {
			t.Errorf("readiness while standing by: got %v, want none", err)
		}
		set(nil)
		settle(10 * time.Second)
		if err := running.Ready(); err != nil {
			t.Errorf("readiness at work: got %v, want none", err)
		}
	})
}

func TestALeaseThatCannotBeRenewedInTimeFencesTheWorkerBeforeItEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partner.latency = time.Hour
		stop := w.start()
		defer stop()
		w.send("acc", time.Now(), event.Account{AccountID: "a", Name: "A"})
		settle(time.Second)
		w.mu.Lock()
		w.renewErr = errors.New("no answer")
		w.mu.Unlock()
		settle(leaseTTL - 2*time.Second)
		if w.partner.cut == 0 {
			t.Error("calls cut off before the lease can end: got 0, want 1")
		}
	})
}

func TestWhateverDiesThePartnerEndsWithTheNewestFigures(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) { torture(t, w, seed) })
		})
	}
}

// torture publishes random figures to a few keys while store and partner fail
// at random and the worker is stopped or fenced, and then compares.
func torture(t *testing.T, w *world, seed uint64) {
	r, faults := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
	var mu sync.Mutex // faults are drawn by partner and store
	chance := func(p float64) bool {
		mu.Lock()
		defer mu.Unlock()
		return faults.Float64() < p
	}
	w.store.FailWith(func([]ledger.Entry) (bool, error) {
		if chance(0.1) {
			return chance(0.5), errors.New("no answer")
		}
		return false, nil
	})
	w.partner.latency = 50 * time.Millisecond
	w.partner.answers = func(delivery.Task) delivery.Answer {
		switch {
		case chance(0.1):
			return delivery.Answer{Class: delivery.Unavailable, Status: 503}
		case chance(0.12):
			return delivery.Answer{Class: delivery.Unavailable, Message: "accepted, answer lost"}
		case chance(0.02):
			return delivery.Answer{Class: delivery.Throttled, Status: 429, RetryAfter: time.Second}
		}
		return delivery.Answer{Class: delivery.Accepted, Status: 201}
	}
	accounts := []string{"a", "b", "c"}
	for _, account := range accounts {
		w.catalog(account, "s")
	}
	type figure struct {
		at       time.Time
		sequence uint64
		units    int64
	}
	newest := map[string]figure{}
	stop := w.start()
	begun := time.Now()
	for i := range 60 {
		account := accounts[r.IntN(len(accounts))]
		f := figure{at: begun.Add(time.Duration(r.IntN(20)) * time.Second), units: int64(r.IntN(4))}
		f.sequence = w.count(fmt.Sprint("e", i), f.at, account, "s", f.units)
		if old, ok := newest[account]; !ok || !f.at.Before(old.at) {
			newest[account] = f
		}
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		if r.IntN(15) == 0 {
			w.mu.Lock()
			w.renewErr = worker.ErrLeased
			w.mu.Unlock()
			time.Sleep(4 * time.Second)
			w.mu.Lock()
			w.renewErr = nil
			w.mu.Unlock()
		}
		if r.IntN(15) == 0 {
			stop()
			stop = w.start()
		}
	}
	settle(10 * time.Minute)
	stop()
	for account, want := range newest {
		if got := w.partner.units(account, "s"); got != want.units {
			t.Errorf("units of account %s: got %d, want %d (time %v, sequence %d)", account, got, want.units, want.at, want.sequence)
		}
		if e := w.entry(ledger.CountKey(organization, account, "s")); e.State != ledger.Synced {
			t.Errorf("account %s: got state %s, want synced", account, e.State)
		}
	}
	last := map[ledger.Key]ledger.Version{}
	for _, task := range w.partner.tape {
		if task.Figure.Compare(last[task.Key]) < 0 {
			t.Errorf("key %s: the partner took version %v after %v", task.Key, task.Figure.Version, last[task.Key])
		}
		last[task.Key] = task.Figure.Version
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		registry := prometheus.NewRegistry()
		stop := w.start(func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })
		defer stop()
		w.catalog("a", "s")
		w.count("c1", time.Now(), "a", "u", 5)
		settle(5 * time.Second)
		problems, err := testutil.GatherAndLint(registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("metric %s: %s", p.Metric, p.Text)
		}
		want := `
			# HELP usagebridge_ledger_keys Keys of the partitions owned, by stored state.
			# TYPE usagebridge_ledger_keys gauge
			usagebridge_ledger_keys{state="dirty",vendor="acme"} 1
			usagebridge_ledger_keys{state="failed",vendor="acme"} 0
			usagebridge_ledger_keys{state="held",vendor="acme"} 0
			usagebridge_ledger_keys{state="retrying",vendor="acme"} 0
			usagebridge_ledger_keys{state="sending",vendor="acme"} 0
			usagebridge_ledger_keys{state="synced",vendor="acme"} 2
		`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "usagebridge_ledger_keys"); err != nil {
			t.Error(err)
		}
	})
}
