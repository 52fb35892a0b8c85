package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

func (w *world) failRenewals(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.renewErr = err
}

// calledFor counts the calls that began for the account.
func (p *fakePartner) calledFor(account string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.began[account]
}

func TestTheLongestCallTimeoutLeavesTimeToRenewTheLease(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start(func(c *worker.Config) { c.CallTimeout = 12 * time.Second })
		defer stop()
		settle(time.Minute)
		w.catalog("a", "s")
		settle(10 * time.Second)
		if got := w.partner.accepted(); got != 2 {
			t.Errorf("accepted calls after a minute: got %d, want 2: the first lease is still good", got)
		}
	})
}

func TestNoCallBeginsOnALeaseThatMayEndBeforeIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partner.latency = 7 * time.Second
		stop := w.start()
		defer stop()
		settle(time.Second)
		w.failRenewals(errors.New("no answer"))
		w.send("e1", time.Now(), event.Account{AccountID: "early", Name: "E"})
		settle(4500 * time.Millisecond) // 5.5 s on a lease of 15 s, and a call may take 10 s
		w.send("e2", time.Now(), event.Account{AccountID: "late", Name: "L"})
		settle(5 * time.Second)
		if got := w.entry(ledger.AccountKey(organization, "late")).State; got != ledger.Dirty {
			t.Errorf("state of the late account: got %q, want dirty: folding goes on", got)
		}
		if got := w.partner.calledFor("late"); got != 0 {
			t.Errorf("calls begun too late: got %d, want 0", got)
		}
		if got := w.entry(ledger.AccountKey(organization, "early")).State; got != ledger.Synced {
			t.Errorf("state of the early account: got %q, want synced: its call may end", got)
		}
		w.failRenewals(nil)
		settle(time.Minute)
		if got := w.partner.calledFor("late"); got != 1 {
			t.Errorf("calls once the lease is good again: got %d, want 1", got)
		}
	})
}

// slowStore takes its time over every write, whatever becomes of the context,
// as a process that is stopped does.
type slowStore struct {
	worker.Store
	w    *world
	took time.Duration
}

func (s slowStore) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	time.Sleep(s.took)
	return s.w.store.Write(context.WithoutCancel(ctx), partition, entries)
}

func TestWhatIsRecordedTooLateIsNotAcked(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start(func(c *worker.Config) {
			store := c.Backend.Store
			c.Backend.Store = func(v string) worker.Store { return slowStore{store(v), w, leaseTTL} }
		})
		w.failRenewals(errors.New("no answer"))
		w.count("c1", time.Now(), "a", "s", 5)
		settle(leaseTTL + time.Second)
		if got := w.unacked(); !slices.Equal(got, []uint64{1}) {
			t.Errorf("messages not acked: got %v, want message 1: the next owner has to learn of it", got)
		}
		stop()
	})
}

func TestAWorkerStopsThoughTheLedgerCannotBeWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start()
		w.store.FailWith(func([]ledger.Entry) (bool, error) { return false, errors.New("no space") })
		w.count("c1", time.Now(), "a", "s", 5)
		settle(5 * time.Second)
		stopped := make(chan struct{})
		go func() {
			stop()
			close(stopped)
		}()
		settle(20 * time.Second)
		select {
		case <-stopped:
		default:
			t.Error("the worker has not stopped after 20 s")
			w.store.FailWith(nil)
			<-stopped
		}
		if got := w.unacked(); !slices.Equal(got, []uint64{1}) || w.out[1] {
			t.Errorf("messages not acked: got %v, out %v; want message 1 given back", got, w.out)
		}
	})
}

func TestALeaseIsNotGivenBackWhileThePartnerMayStillTakeACall(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partner.latency = time.Minute
		stop := w.start()
		w.send("acc", time.Now(), event.Account{AccountID: "a", Name: "A"})
		settle(time.Second)
		stop()
		if w.partner.cut != 1 || w.releases != 0 {
			t.Errorf("calls cut off: got %d, want 1; leases given back: got %d, want 0", w.partner.cut, w.releases)
		}
	})
}

// endingSource ends after its first batch.
type endingSource struct {
	fakeSource
	ended *sync.Once
}

func (s endingSource) Receive(ctx context.Context) (batch []event.Message, err error) {
	s.ended.Do(func() { err = errors.New("the consumer is gone") })
	if err != nil {
		return nil, err
	}
	return s.fakeSource.Receive(ctx)
}

func TestASourceThatEndsIsOpenedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		opened, ended := 0, &sync.Once{}
		stop := w.start(func(c *worker.Config) {
			c.Backend.Source = func(context.Context, string, int) (worker.Source, error) {
				opened++
				return endingSource{fakeSource{w, 0, &atomic.Bool{}}, ended}, nil
			}
		})
		defer stop()
		w.count("c1", time.Now(), "a", "s", 5)
		settle(10 * time.Second)
		if got := w.unacked(); len(got) != 0 || opened != 2 {
			t.Errorf("messages not acked: got %v, want none; sources opened: got %d, want 2", got, opened)
		}
	})
}

func TestAnOutageOfTheSyncLogSpendsNoRetryBudget(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partner.answers = func(delivery.Task) delivery.Answer {
			return delivery.Answer{Class: delivery.Unavailable, Status: 503}
		}
		w.callsErr = errors.New("no space")
		stop := w.start()
		defer stop()
		w.send("acc", time.Now(), event.Account{AccountID: "a", Name: "A"})
		settle(10 * time.Minute)
		w.mu.Lock()
		w.callsErr = nil
		w.mu.Unlock()
		settle(10 * time.Second)
		e := w.entry(ledger.AccountKey(organization, "a"))
		if e.State != ledger.Retrying || e.Attempts != w.partner.calledFor("a") {
			t.Errorf("entry: got %s with %d attempts, want retrying with %d, one for each call", e.State, e.Attempts, w.partner.calledFor("a"))
		}
	})
}

func TestABatchOfManyEventsIsRecordedInPortions(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const messages, limit = 20, 6000
		subject := fmt.Sprintf("usage.v1.%s.%s.batch", vendor, organization)
		for range messages {
			w.publish(subject, []byte("["+strings.Repeat("1,", event.MaxBatch-1)+"1]"))
		}
		stop := w.start()
		defer stop()
		settle(time.Minute)
		if got := len(w.letters); got != messages*event.MaxBatch {
			t.Errorf("letters: got %d, want %d, one for each element", got, messages*event.MaxBatch)
		}
		if w.widest > limit {
			t.Errorf("letters parked at one time: got %d, want at most %d", w.widest, limit)
		}
		if got := w.unacked(); len(got) != 0 {
			t.Errorf("messages not acked: got %v, want none", got)
		}
	})
}

// deletedStore is a store in which somebody has deleted a key: the first entry
// of it must come at the deletion's revision.
type deletedStore struct {
	worker.Store
	revision uint64
}

func (s deletedStore) Read(ctx context.Context, partition int, key ledger.Key) (ledger.Entry, bool, error) {
	e, ok, err := s.Store.Read(ctx, partition, key)
	if !ok {
		e.Revision = s.revision
	}
	return e, ok, err
}

func (s deletedStore) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	for i, e := range entries {
		if _, ok, _ := s.Store.Read(ctx, partition, e.Key); ok {
			continue
		}
		if e.Revision != s.revision {
			return errStale
		}
		entries[i].Revision = 0
	}
	return s.Store.Write(ctx, partition, entries)
}

func TestAKeyThatSomebodyDeletedIsStoredAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start(func(c *worker.Config) {
			store := c.Backend.Store
			c.Backend.Store = func(v string) worker.Store { return deletedStore{store(v), 7} }
		})
		defer stop()
		w.count("c1", time.Now(), "a", "s", 5)
		settle(10 * time.Second)
		if got := w.unacked(); len(got) != 0 {
			t.Errorf("messages not acked: got %v, want none", got)
		}
		if got := w.entry(ledger.CountKey(organization, "a", "s")).State; got != ledger.Dirty {
			t.Errorf("state: got %q, want dirty", got)
		}
	})
}

// sickStore cannot load one partition.
type sickStore struct {
	worker.Store
	bad   int
	loads *atomic.Int64
}

func (s sickStore) Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error {
	if partition == s.bad {
		s.loads.Add(1)
		return errors.New("poisoned entry")
	}
	return s.Store.Load(ctx, partition, yield)
}

// sick makes a worker unable to load the partition.
func sick(id string, bad int, loads *atomic.Int64) func(*worker.Config) {
	return func(c *worker.Config) {
		store := c.Backend.Store
		c.ID = id
		c.Backend.Store = func(v string) worker.Store { return sickStore{store(v), bad, loads} }
	}
}

// Regression: whoever could not work on a partition once was not ready for ever,
// although another did.
func TestAWorkerIsReadyWhenAnotherWorksOnWhatItCannot(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 1
		var loads atomic.Int64
		one, stopOne := w.run(sick("w1", 0, &loads))
		defer stopOne()
		settle(3 * time.Second)
		if one.Ready() == nil {
			t.Error("the only worker is ready although it cannot work on the only partition")
		}
		_, stopTwo := w.run(func(c *worker.Config) { c.ID = "w2" })
		defer stopTwo()
		settle(3 * time.Minute)
		if err := one.Ready(); err != nil {
			t.Errorf("with another that works on it: %v, want ready", err)
		}
	})
}

// Regression: each of the workers tried it every two seconds, for ever, and none
// was ready.
func TestAPartitionThatNobodyCanLoadIsTriedSeldomAndLeavesTheOthersInPeace(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 16
		var loads atomic.Int64
		workers := map[string]*worker.Worker{}
		var stops []func()
		for _, id := range []string{"w1", "w2", "w3", "w4"} {
			running, stop := w.run(sick(id, 0, &loads))
			workers[id], stops = running, append(stops, stop)
		}
		settle(time.Minute)
		loads.Store(0)
		settle(10 * time.Minute)
		if got := loads.Load(); got < 5 || got > 80 {
			t.Errorf("tried %d times in ten minutes, want a few", got)
		}
		for id, running := range workers {
			if err := running.Ready(); err != nil {
				t.Errorf("%s works on other partitions, and yet: %v", id, err)
			}
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// slowLoads takes its time to load.
type slowLoads struct{ worker.Store }

func (s slowLoads) Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error {
	time.Sleep(20 * time.Millisecond)
	return s.Store.Load(ctx, partition, yield)
}

// Regression: a partition that went to one member while a third did not count
// yet, and to this worker as soon as that did, was handed over and taken back a
// hundred times a second.
func TestAPartitionIsNotHandedOverToBeTakenBackAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 16
		slow := func(c *worker.Config) {
			store := c.Backend.Store
			c.Backend.Store = func(v string) worker.Store { return slowLoads{store(v)} }
		}
		defer w.named("w0-0", slow)()
		settle(3 * time.Second)
		w.leases.history()
		defer w.named("w0-1", slow)()
		settle(900 * time.Millisecond)
		defer w.named("w0-2", slow)()
		settle(5 * time.Second)
		if told := w.leases.history(); len(told) > 40 {
			t.Errorf("leases changed %d times when two workers joined one, want about 22: %v", len(told), told)
		}
	})
}
