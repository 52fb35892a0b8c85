package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// named starts a worker of the name.
func (w *world) named(id string, change ...func(*worker.Config)) (stop func()) {
	return w.start(append([]func(*worker.Config){func(c *worker.Config) { c.ID = id }}, change...)...)
}

func (w *world) wantLoad(when string, want map[string]int) {
	w.t.Helper()
	if got := w.leases.load(); !maps.Equal(got, want) {
		w.t.Errorf("partitions %s: got %v, want %v", when, got, want)
	}
}

// history is what happened to the partitions since it was asked last.
func (l *fakeLeases) history() []string {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	told := l.told
	l.told = nil
	return told
}

func count(told []string, word string) (n int) {
	for _, t := range told {
		if strings.Contains(t, word) {
			n++
		}
	}
	return n
}

func TestWorkersThatComeGetTheirShareAndThoseThatGoLeaveItAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 16
		stops := map[string]func(){"w1": w.named("w1")}
		settle(100 * time.Millisecond)
		w.wantLoad("with one worker", map[string]int{"w1": 16})
		w.leases.history()
		stops["w2"] = w.named("w2")
		settle(900 * time.Millisecond)
		w.wantLoad("while the second worker may be flapping", map[string]int{"w1": 16})
		settle(time.Second)
		w.wantLoad("with two workers", map[string]int{"w1": 8, "w2": 8})
		stops["w3"] = w.named("w3")
		stops["w4"] = w.named("w4")
		settle(2 * time.Second)
		w.wantLoad("with four workers", map[string]int{"w1": 4, "w2": 4, "w3": 4, "w4": 4})
		if got := count(w.leases.history(), "left"); got > 20 {
			t.Errorf("partitions that changed hands: got %d, want at most 20 (16 must)", got)
		}
		stops["w2"]()
		delete(stops, "w2")
		settle(10 * time.Millisecond)
		if got := w.leases.owners(); len(got) != 16 || slices.Contains(slices.Collect(maps.Values(got)), "w2") {
			t.Errorf("owners after one has stopped: got %v, want 16 partitions with the other three", got)
		}
		settle(10 * time.Second)
		if got := w.leases.load(); got["w1"] < 5 || got["w3"] < 5 || got["w4"] < 5 {
			t.Errorf("partitions of three workers: got %v, want 5 or 6 each", got)
		}
		for _, stop := range stops {
			stop()
		}
		w.wantLoad("when all have stopped", map[string]int{})
	})
}

func TestRestartsInQuickSuccessionLeaveTheLoadEven(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 16
		names, even, stops := []string{"w1", "w2", "w3", "w4"}, map[string]int{}, map[string]func(){}
		slow := func(c *worker.Config) {
			lease := c.Backend.Lease
			c.Backend.Lease = func(ctx context.Context, v string, p int) (worker.Lease, error) {
				time.Sleep(time.Duration(1+len(c.ID)*p%7) * 10 * time.Millisecond)
				return lease(ctx, v, p)
			}
		}
		for _, name := range names {
			stops[name], even[name] = w.named(name, slow), 4
		}
		settle(10 * time.Second)
		for range 5 {
			for _, name := range names {
				stops[name]()
				settle(300 * time.Millisecond)
				stops[name] = w.named(name, slow)
				settle(2 * time.Second)
				w.wantLoad("after a restart of "+name, even)
			}
		}
		for _, stop := range stops {
			stop()
		}
	})
}

func TestPartitionsOfAKilledWorkerAreTakenAsSoonAsItsLeasesEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 8
		defer w.named("w1")()
		killed := w.named("w2")
		settle(10 * time.Second)
		w.wantLoad("before", map[string]int{"w1": 4, "w2": 4})
		w.leases.cutOff("w2", true)
		settle(leaseTTL - 4*time.Second)
		w.wantLoad("while the leases last", map[string]int{"w1": 4, "w2": 4})
		settle(4*time.Second + time.Millisecond)
		w.wantLoad("once they have ended", map[string]int{"w1": 8})
		killed()
	})
}

func TestAPartitionIsHandedOverWithoutCuttingACallOrRepeatingAMessage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 2
		w.partner.latency = 5 * time.Second // longer than a lane that stops waits for its calls
		defer w.named("w1")()
		settle(time.Second)
		for _, partition := range []string{"msp-0", "msp-1"} {
			w.send("acc", time.Now(), event.Account{AccountID: "a", Name: "A"}, func(e *event.Event) { e.Organization = partition })
		}
		settle(time.Second)
		w.leases.history()
		defer w.named("w2")()
		settle(2 * time.Second)
		w.wantLoad("while a call is under way", map[string]int{"w1": 2})
		w.count("c1", time.Now(), "a", "s", 5)
		settle(500 * time.Millisecond)
		if got := w.unacked(); len(got) != 0 {
			t.Errorf("messages not acked while a call is waited for: got %v, want none: the fold goes on", got)
		}
		settle(5 * time.Second)
		w.wantLoad("when the call has ended", map[string]int{"w1": 1, "w2": 1})
		if w.partner.cut != 0 {
			t.Errorf("calls cut off: got %d, want none", w.partner.cut)
		}
		if got := w.partner.calledFor("a"); got != 1 {
			t.Errorf("calls for the account of the integration that is known: got %d, want 1", got)
		}
		for _, m := range w.log {
			if m.Deliveries != 1 {
				t.Errorf("message %d was delivered %d times, want once", m.Sequence, m.Deliveries)
			}
		}
	})
}

func TestAHandoverThatWaitsForASlowIntegrationHoldsUpNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 2
		w.partner.latency = 8 * time.Second
		quick := &fakePartner{holds: map[ledger.Key]ledger.Seen{}, began: map[string]int{}, latency: 50 * time.Millisecond}
		start := func(id string) (stop func()) {
			running, stop := w.run(func(c *worker.Config) { c.ID = id })
			link := delivery.Link{Partner: w.partner, Ready: true, Connected: true, Credentials: "c1"}
			running.SetLink(vendor, "msp-0", link)
			link.Partner = quick
			running.SetLink(vendor, "msp-2", link)
			running.SetLink(vendor, "msp-3", link)
			return stop
		}
		defer start("w1")()
		settle(time.Second)
		account := func(organization, account string) {
			w.send(organization+account, time.Now(), event.Account{AccountID: account, Name: "A"}, func(e *event.Event) { e.Organization = organization })
		}
		account("msp-0", "slow")
		account("msp-1", "slow")
		settle(time.Second)
		defer start("w2")()
		for n := range 10 {
			settle(500 * time.Millisecond)
			account("msp-2", fmt.Sprintf("a%d", n))
			account("msp-3", fmt.Sprintf("a%d", n))
			settle(500 * time.Millisecond) // 300 ms of a look, 100 ms until the lane looks again, 50 ms of the call
			if got := quick.accepted(); got != 2*(n+1) {
				t.Errorf("accounts of quick integrations that the partner has beside a slow call, after %d s: got %d, want %d", n+1, got, 2*(n+1))
			}
		}
		w.wantLoad("in the end", map[string]int{"w1": 1, "w2": 1})
		if w.partner.cut+quick.cut != 0 {
			t.Errorf("calls cut off: got %d and %d, want none", w.partner.cut, quick.cut)
		}
	})
}

func TestOnlyFewPartitionsPauseAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const pauseOfAHandover = 300 * time.Millisecond
		w.partitions = 32
		closing := &atMost{}
		slow := func(c *worker.Config) {
			source := c.Backend.Source
			c.Backend.Source = func(ctx context.Context, v string, p int) (worker.Source, error) {
				s, err := source(ctx, v, p)
				return lingeringSource{s, pauseOfAHandover, closing}, err
			}
		}
		registry := prometheus.NewRegistry()
		stop := w.named("w1", slow, func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })
		defer stop()
		settle(time.Second)
		defer w.named("w2")()
		settle(time.Second + 5*pauseOfAHandover)
		w.wantLoad("in the end", map[string]int{"w1": 16, "w2": 16})
		if closing.most != 4 {
			t.Errorf("partitions handed over at a time: got %d, want 4", closing.most)
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP usagebridge_partition_handovers_total Partitions that this worker began to hand over to the worker that they are assigned to.
# TYPE usagebridge_partition_handovers_total counter
usagebridge_partition_handovers_total{vendor="acme"} 16
# HELP usagebridge_workers Workers that are alive, as far as this one sees, itself included.
# TYPE usagebridge_workers gauge
usagebridge_workers 2
`), "usagebridge_partition_handovers_total", "usagebridge_workers"); err != nil {
			t.Error(err)
		}
	})
}

// lingeringSource takes its time to close.
type lingeringSource struct {
	worker.Source
	took    time.Duration
	closing *atMost
}

func (s lingeringSource) Close() {
	s.closing.add(1)
	defer s.closing.add(-1)
	time.Sleep(s.took)
	s.Source.Close()
}

// atMost counts what goes on at one time.
type atMost struct {
	mu        sync.Mutex
	now, most int
}

func (a *atMost) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now += n
	a.most = max(a.most, a.now)
}

// lines collects what a worker logs.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), message)
}

func (l *lines) log(c *worker.Config) { c.Logger = slog.New(slog.NewJSONHandler(l, nil)) }

func TestASecondWorkerOfOneNameSaysWhatIsWrongAndDoesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 4
		first := w.named("w1")
		settle(time.Second)
		w.leases.history()
		said := &lines{}
		namesake, stop := w.run(said.log)
		defer stop()
		settle(time.Second)
		if err := namesake.Ready(); err == nil || !strings.Contains(err.Error(), "another worker named w1 is alive") {
			t.Errorf("readiness of the second: got %v, want the cause", err)
		}
		settle(10 * time.Minute)
		const wrong = "another worker that is alive has this one's name"
		if got := said.count(wrong); got < 5 || got > 12 {
			t.Errorf("said %d times in ten minutes that %s, want about 10\n%s", got, wrong, said.text.String())
		}
		if got := w.leases.history(); len(got) != 0 {
			t.Errorf("partitions that changed hands: got %v, want none", got)
		}
		first()
		settle(3 * time.Second)
		w.wantLoad("when the first has stopped", map[string]int{"w1": 4})
		if err := namesake.Ready(); err != nil {
			t.Errorf("readiness of the second by then: got %v, want none", err)
		}
	})
}

func TestALostMembershipIsLoggedAndTakenAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 4
		said := &lines{}
		defer w.named("w1", said.log)()
		settle(time.Second)
		w.mu.Lock()
		w.leases.drop(w.leases.held[worker.Claim{Worker: "w1"}])
		w.mu.Unlock()
		settle(leaseTTL)
		if got := said.count("membership lost, joining again"); got != 1 {
			t.Errorf("said %d times that the membership was lost, want once", got)
		}
		w.mu.Lock()
		_, again := w.leases.held[worker.Claim{Worker: "w1"}]
		w.mu.Unlock()
		if !again {
			t.Error("the membership was not taken again")
		}
		if got := count(w.leases.history(), "left"); got != 0 {
			t.Errorf("partitions given up meanwhile: got %d, want none", got)
		}
	})
}

func TestAFlappingMemberMovesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 16
		defer w.named("w1")()
		defer w.named("w2")()
		settle(10 * time.Second)
		w.leases.history()
		for range 20 {
			l, err := w.leases.take("w3", worker.Claim{Worker: "w3"})
			if err != nil {
				t.Fatal(err)
			}
			settle(800 * time.Millisecond)
			if err := l.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			settle(100 * time.Millisecond)
		}
		if got := w.leases.history(); len(got) != 0 {
			t.Errorf("partitions that changed hands: got %v, want none", got)
		}
	})
}

func TestNoPartitionStaysWithoutAWorkerThoughItsMemberDoesNotTakeIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 4
		// One that is alive and cannot work on anything.
		defer w.named("w2", func(c *worker.Config) {
			c.Backend.Source = func(context.Context, string, int) (worker.Source, error) { return nil, errNoAnswer }
		})()
		settle(time.Second)
		w.leases.history()
		defer w.named("w1")()
		settle(2 * leaseTTL)
		owners := w.leases.owners()
		for p := range w.partitions {
			if owners[p] != "w1" {
				t.Errorf("partition %d: got worker %q, want w1, whoever it is assigned to", p, owners[p])
			}
		}
		w.leases.history()
		settle(leaseTTL)
		if got := count(w.leases.history(), "w1 left"); got != 0 {
			t.Errorf("partitions handed to a worker that has just left them lying: got %d, want none", got)
		}
	})
}

// frozenStore does not come back from a write, once, until it is let go.
type frozenStore struct {
	worker.Store
	froze *sync.Once
	thaw  chan struct{}
}

func (s frozenStore) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	s.froze.Do(func() { <-s.thaw })
	return s.Store.Write(context.WithoutCancel(ctx), partition, entries)
}

func TestAFrozenWorkerNeverWritesOverItsSuccessor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		froze, thaw := &sync.Once{}, make(chan struct{})
		froze.Do(func() {}) // not yet
		frozen := w.named("w1", func(c *worker.Config) {
			store := c.Backend.Store
			c.Backend.Store = func(v string) worker.Store { return frozenStore{store(v), froze, thaw} }
		})
		begun := time.Now()
		w.catalog("a", "s")
		w.count("c1", begun, "a", "s", 5)
		settle(5 * time.Second)
		*froze = sync.Once{}
		w.leases.cutOff("w1", true)
		w.count("c2", begun.Add(time.Second), "a", "s", 6)
		settle(time.Second)
		defer w.named("w2")()
		settle(leaseTTL + 5*time.Second)
		w.wantLoad("after the lease has ended", map[string]int{"w2": 1})
		w.mu.Lock()
		clear(w.out) // what the frozen one had comes again
		w.notify(1)
		w.mu.Unlock()
		w.count("c3", begun.Add(2*time.Second), "a", "s", 7)
		settle(5 * time.Second)
		before := w.entry(ledger.CountKey(organization, "a", "s"))
		close(thaw)
		settle(time.Minute)
		after := w.entry(ledger.CountKey(organization, "a", "s"))
		if after.Revision != before.Revision || w.partner.units("a", "s") != 7 {
			t.Errorf("entry: got revision %d and %d units at the partner, want %d and 7, as the successor left them",
				after.Revision, w.partner.units("a", "s"), before.Revision)
		}
		frozen()
	})
}

func TestAWorkerThatMissesWhatHappensTriesByItself(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 4
		blind := func(c *worker.Config) {
			watch := c.Backend.Watch
			c.Backend.Watch = func(ctx context.Context, view worker.View) error {
				return watch(ctx, blindView{view})
			}
		}
		first := w.named("w1")
		settle(time.Second)
		defer w.named("w2", blind)()
		settle(time.Second)
		w.leases.cutOff("w1", true)
		settle(2 * leaseTTL)
		w.wantLoad("once nothing was heard for long", map[string]int{"w2": 4})
		first()
	})
}

// blindView never sees a lease end.
type blindView struct{ worker.View }

func (blindView) Gone(worker.Claim) {}
