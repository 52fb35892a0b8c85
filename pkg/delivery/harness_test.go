package delivery_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

const organization = "msp-1"

// sent is one call as the partner saw it.
type sent struct {
	delivery.Task
	at time.Time
}

// partner answers calls by a script and keeps a tape. It fails the test when a
// key has two calls under way.
type partner struct {
	failed func(format string, args ...any)

	mu      sync.Mutex
	answer  func(delivery.Task) delivery.Answer // nil: accepted
	took    time.Duration                       // of a call
	tape    []sent
	under   map[ledger.Key]bool
	holding map[ledger.Key]ledger.Seen
	widest  int
	bulks   []int           // how many accounts each call for several had
	status  string          // as read
	mapped  map[string]bool // accounts as read
}

func (p *partner) script(answer func(delivery.Task) delivery.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *partner) Send(ctx context.Context, t delivery.Task) delivery.Answer {
	p.mu.Lock()
	p.tape = append(p.tape, sent{t, time.Now()})
	p.begin(t)
	answer, took, began := p.answer, p.took, time.Now()
	p.mu.Unlock()

	a := delivery.Answer{Class: delivery.Accepted, Status: 201}
	if answer != nil {
		a = answer(t)
	}
	if took > 0 {
		select {
		case <-time.After(took):
		case <-ctx.Done():
			a = delivery.Answer{Class: delivery.Stopped}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(t, a)
	a.At, a.Duration = time.Now(), time.Since(began)
	return a
}

func (p *partner) SetMapping(ctx context.Context) delivery.Answer {
	return p.Send(ctx, delivery.Task{Key: ledger.Key{Organization: organization}})
}

func (p *partner) ReadStatus(ctx context.Context) delivery.Answer {
	a := p.Send(ctx, delivery.Task{Key: ledger.Key{Organization: organization}, Read: true})
	p.mu.Lock()
	defer p.mu.Unlock()
	a.Observed = p.status
	return a
}

func (p *partner) ReadAccounts(ctx context.Context, status string) (delivery.Sight, delivery.Answer) {
	a := p.Send(ctx, delivery.Task{Key: ledger.Key{Organization: organization}, Read: true, List: true})
	p.mu.Lock()
	defer p.mu.Unlock()
	a.Observed = status
	return delivery.Sight{Mapped: maps.Clone(p.mapped), Announced: status != "inactive"}, a
}

// SendAccounts is one call on the tape, that of its first account, and is
// answered as that one is. Those behind it are taken, too.
func (p *partner) SendAccounts(ctx context.Context, tasks []delivery.Task) delivery.Answer {
	p.mu.Lock()
	p.bulks = append(p.bulks, len(tasks))
	for _, t := range tasks[1:] {
		p.begin(t)
	}
	p.mu.Unlock()
	a := p.Send(ctx, tasks[0])
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range tasks[1:] {
		p.end(t, a)
	}
	return a
}

// begin and end are what every call does to the partner; p is locked.
func (p *partner) begin(t delivery.Task) {
	if p.under[t.Key] && t.Key.Kind != 0 {
		p.failed("two calls under way for %s", t.Key)
	}
	p.under[t.Key] = true
	p.widest = max(p.widest, len(p.under))
}

func (p *partner) end(t delivery.Task, a delivery.Answer) {
	delete(p.under, t.Key)
	if a.Class != delivery.Accepted || t.Key.Kind == 0 {
		return
	}
	if t.Figure.Compare(p.holding[t.Key].Version) < 0 {
		p.failed("%s: version %v after %v", t.Key, t.Figure.Version, p.holding[t.Key].Version)
	}
	p.holding[t.Key] = t.Figure
}

// sees sets what can be read.
func (p *partner) sees(status string, mapped map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.mapped = status, mapped
}

// calls are the calls so far, of the given operations only if there are any.
func (p *partner) calls(operations ...string) []sent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.tape), func(s sent) bool {
		return len(operations) > 0 && !slices.Contains(operations, s.Operation())
	})
}

// book is a ledger in a map. It records outcomes at once, after a delay, or
// not at all while it is stuck.
type book struct {
	lane *delivery.Lane

	mu       sync.Mutex
	looked   func(ledger.Key) // by Entry, nil: nobody listens
	delay    time.Duration
	stuck    bool
	waiting  []delivery.Outcome
	entries  map[ledger.Key]ledger.Entry
	outcomes []delivery.Outcome
	arrival  uint64
}

func (b *book) Entry(key ledger.Key) (ledger.Entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.looked != nil {
		b.looked(key)
	}
	e, ok := b.entries[key]
	return e, ok
}

func (b *book) Settle(o delivery.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stuck {
		b.waiting = append(b.waiting, o)
		return
	}
	if b.delay == 0 {
		// A timer that is due at once would run on this thread, which the race
		// detector does not survive when many do so in one bubble.
		go b.record(o)
		return
	}
	time.AfterFunc(b.delay, func() { b.record(o) })
}

func (b *book) unstick() {
	b.mu.Lock()
	waiting := b.waiting
	b.stuck, b.waiting = false, nil
	b.mu.Unlock()
	for _, o := range waiting {
		b.record(o)
	}
}

func (b *book) record(o delivery.Outcome) {
	b.mu.Lock()
	b.outcomes = append(b.outcomes, o)
	if e, ok := b.entries[o.Task.Key]; ok {
		a := ledger.Answer{At: o.Answer.At.UnixNano(), Status: o.Answer.Status}
		switch o.Verdict.Ruling {
		case delivery.Delivered:
			e = e.Accept(o.Task.Figure, ledger.Receipt{Generation: o.Task.Generation, Unbuilt: o.Task.NoBuild}, a)
		case delivery.Retry:
			e = e.Retry(o.Due, a)
		case delivery.HoldKey:
			e = e.Hold(o.Verdict.Hold, a)
		case delivery.Dead:
			e = e.Fail(o.Task.Figure, a)
		case delivery.HoldLane, delivery.Wait, delivery.Unanswered, delivery.Split, delivery.NotCounted:
		}
		b.entries[o.Task.Key] = e
	}
	b.mu.Unlock()
	b.lane.Settled(o.Task.Key)
}

// fold folds a new figure into the entry of the key.
func (b *book) fold(key ledger.Key, units int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrival++
	now := time.Now()
	e := b.entries[key]
	e, _, _ = e.Apply(ledger.Operation{
		Key: key, Version: ledger.Version{Time: now.UnixNano(), Arrival: b.arrival},
		Value: ledger.Value{Units: units}, Event: b.arrival,
	}, now)
	b.entries[key] = e
}

// change replaces an entry as the rest of the program would.
func (b *book) change(key ledger.Key, f func(ledger.Entry) ledger.Entry) {
	e, _ := b.Entry(key)
	b.put(f(e))
	b.lane.Wake(key)
}

func (b *book) put(e ledger.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[e.Key] = e
}

func (b *book) states() map[ledger.State]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := map[ledger.State]int{}
	for _, e := range b.entries {
		n[e.State]++
	}
	return n
}

func (b *book) rulings(ruling delivery.Ruling) []delivery.Outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.outcomes), func(o delivery.Outcome) bool { return o.Verdict.Ruling != ruling })
}

// rig is a lane between a book and a partner.
type rig struct {
	*book
	*partner
	lane     *delivery.Lane
	registry *prometheus.Registry
	cancel   context.CancelCauseFunc
	done     chan struct{}
	host     *delivery.Host                        // shared with other rigs, if any
	cut      int                                   // what Run said
	may      atomic.Pointer[func() bool]           // asked before each call; nil: it may begin
	keeper   atomic.Pointer[func(delivery.Signal)] // takes its time with a signal; nil: none

	signalled sync.Mutex
	signals   []delivery.Signal
}

// good is the link of an integration that takes everything.
func (r *rig) good() delivery.Link {
	return delivery.Link{Partner: r.partner, Ready: true, Connected: true, Credentials: "c1"}
}

// newRig runs a lane, without a link yet, until the test ends.
func newRig(t testing.TB, failed func(string, ...any), c delivery.Config) *rig {
	t.Helper()
	r := &rig{
		book:     &book{entries: map[ledger.Key]ledger.Entry{}},
		partner:  &partner{failed: failed, under: map[ledger.Key]bool{}, holding: map[ledger.Key]ledger.Seen{}},
		registry: prometheus.NewRegistry(),
		done:     make(chan struct{}),
	}
	metrics := delivery.NewMetrics(r.registry)
	metrics.Touch("acme")
	r.lane = delivery.New(delivery.Options{
		Vendor: "acme", Organization: organization, Config: c, Book: r.book, Metrics: metrics, Logger: slog.New(slog.DiscardHandler),
		May: func() bool {
			may := r.may.Load()
			return may == nil || (*may)()
		},
		Signal: func(_ context.Context, s delivery.Signal) {
			if keeper := r.keeper.Load(); keeper != nil {
				(*keeper)(s)
			}
			r.signalled.Lock()
			defer r.signalled.Unlock()
			r.signals = append(r.signals, s)
		},
	})
	r.book.lane = r.lane
	var ctx context.Context
	ctx, r.cancel = context.WithCancelCause(context.Background())
	go func() {
		defer close(r.done)
		r.cut = r.lane.Run(ctx)
	}()
	return r
}

// stop ends the lane and waits for it.
func (r *rig) stop(cause error) {
	r.cancel(cause)
	<-r.done
}

// virtual runs a test in virtual time with a lane that has a good link.
func virtual(t *testing.T, c delivery.Config, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.Errorf, c)
		defer r.stop(nil)
		r.lane.SetLink(r.good())
		test(t, r)
	})
}

// after lets virtual time pass and everything that is due then happen.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// set folds figures into keys and wakes the lane.
func (r *rig) set(units int64, keys ...ledger.Key) {
	for _, key := range keys {
		r.fold(key, units)
	}
	r.lane.Wake(keys...)
}

// told counts what the keeper of the status was told of a class.
func (r *rig) told(class delivery.Class) int {
	r.signalled.Lock()
	defer r.signalled.Unlock()
	n := 0
	for _, s := range r.signals {
		if s.Class == class {
			n++
		}
	}
	return n
}

// forget raises the generation, as the keeper of the status and the worker do.
func (r *rig) forget(link delivery.Link) delivery.Link {
	link.Generation++
	r.lane.SetLink(link)
	r.book.mu.Lock()
	keys := make([]ledger.Key, 0, len(r.entries))
	for key, e := range r.entries {
		keys = append(keys, key)
		if next, changed := e.Doubt(link.Generation, time.Now()); changed {
			r.entries[key] = next
		}
	}
	r.book.mu.Unlock()
	r.lane.Wake(keys...)
	return link
}

// posted makes the partner have the accounts and the service named.
func (r *rig) posted(service string, accounts ...string) {
	keys := []ledger.Key{ledger.ServiceKey(organization, service)}
	for _, a := range accounts {
		keys = append(keys, ledger.AccountKey(organization, a))
	}
	for _, key := range keys {
		r.fold(key, 0)
		e, _ := r.Entry(key)
		r.put(e.Accept(e.Seen[0], ledger.Receipt{}, ledger.Answer{At: 1}))
	}
	r.lane.Wake(keys...)
}

// counts are n counts of one service for accounts of their own, all posted.
func (r *rig) counts(n int) []ledger.Key {
	keys, accounts := make([]ledger.Key, n), make([]string, n)
	for i := range keys {
		accounts[i] = account(i)
		keys[i] = ledger.CountKey(organization, accounts[i], "backup")
	}
	r.posted("backup", accounts...)
	return keys
}

func account(i int) string { return "a" + strconv.Itoa(i) }

// always answers every call alike.
func always(class delivery.Class) func(delivery.Task) delivery.Answer {
	return func(delivery.Task) delivery.Answer { return delivery.Answer{Class: class} }
}

// wantCalls fails the test unless the partner saw so many calls.
func (r *rig) wantCalls(t *testing.T, when string, want int, operations ...string) {
	t.Helper()
	if got := len(r.calls(operations...)); got != want {
		t.Fatalf("%s: %d calls, want %d", when, got, want)
	}
}

// awaiting is the entry when a person must approve its figure, and approved
// the same when that has been done.
func awaiting(e ledger.Entry) ledger.Entry {
	e.Seen = slices.Clone(e.Seen)
	e.Seen[0].Waits = ledger.Jumped
	return e.Release()
}

func approved(e ledger.Entry) ledger.Entry {
	e.Seen = slices.Clone(e.Seen)
	e.Seen[0].Waits = ledger.NoWait
	return e.Release()
}
