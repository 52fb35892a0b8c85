package worker_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

var errBroken = errors.New("broken for a while")

// dice decide what a draw leaves open. They are thrown in another order
// whenever goroutines run in another order.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{rng: rand.New(rand.NewPCG(seed, 1))} }

func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func (d *dice) happens(chance float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64() < chance
}

func (d *dice) upTo(most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.rng.Int64N(int64(most) + 1))
}

func (d *dice) shuffle(list []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// Troubles of a line.
const (
	leaseTrouble   = "leases fail"
	storeTrouble   = "store fails"
	recordsTrouble = "records fail"
	ackTrouble     = "acks are lost"
	sourceTrouble  = "source ends"
	watchTrouble   = "watch lags"
	writeTrouble   = "writes arrive late"
)

// spell is trouble for a while.
type spell struct {
	ends   time.Time
	chance float64
}

// line is all that connects one worker, from its start to its end, with what
// is around it. A worker whose line is cut is as good as killed: whatever it
// still does has no effect. One whose line is frozen is a process that was
// stopped: what it asked for before happens, what it learns of it and what it
// asks for from then on has to wait for the thaw.
type line struct {
	f    *fleet
	name string

	mu       sync.Mutex
	dead     bool
	thaw     chan struct{} // nil: the worker is not frozen
	troubles map[string]spell
	unwatch  func()                // ends the watch of the leases
	stopping chan struct{}         // closed when the worker is told to stop
	sources  map[int]chan struct{} // closed when the partition comes to its end
}

func newLine(f *fleet, name string) *line {
	l := &line{f: f, name: name, troubles: map[string]spell{}, stopping: make(chan struct{}), sources: map[int]chan struct{}{}}
	for p := range f.partitions {
		l.sources[p] = make(chan struct{})
		close(l.sources[p])
	}
	return l
}

// there waits for the thaw. Nothing but death ends that wait: a process that
// is stopped does not notice that its time is up.
func (l *line) there() error {
	for {
		l.mu.Lock()
		dead, thaw := l.dead, l.thaw
		l.mu.Unlock()
		switch {
		case dead:
			return errNoAnswer
		case thaw == nil:
			return nil
		}
		<-thaw
	}
}

func (l *line) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.dead
}

func (l *line) frozen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.thaw != nil
}

func (l *line) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.thaw == nil && !l.dead {
		l.thaw = make(chan struct{})
	}
}

func (l *line) unfreeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.thaw != nil {
		close(l.thaw)
		l.thaw = nil
	}
}

func (l *line) cut() {
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
	l.unfreeze()
}

// trouble begins a spell, or ends all of them.
func (l *line) trouble(what string, s spell) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if what == "" {
		clear(l.troubles)
		return
	}
	l.troubles[what] = s
}

// suffers says whether trouble comes now. lost: what is asked for is done, and
// only the answer does not come. An outage, unlike what fails now and then,
// lets nothing be done.
func (l *line) suffers(what string) (hit, lost bool) {
	l.mu.Lock()
	s, ok := l.troubles[what]
	l.mu.Unlock()
	hit = ok && time.Now().Before(s.ends) && l.f.dice.happens(s.chance)
	return hit, hit && s.chance < 1 && l.f.dice.happens(0.5)
}

// travel is the way to a server or back.
func (l *line) travel() { time.Sleep(l.f.dice.upTo(3 * time.Millisecond)) }

// ask has a server do something. In trouble it does not do it, or does it and
// the answer is lost.
func (l *line) ask(ctx context.Context, what string, do func() error) error {
	if err := errors.Join(l.there(), ctx.Err()); err != nil {
		return err
	}
	l.travel()
	hit, lost := l.suffers(what)
	if hit && !lost {
		return errBroken
	}
	if !l.alive() {
		return errNoAnswer
	}
	err := do()
	l.travel()
	if lost {
		err = errNoAnswer
	}
	if gone := errors.Join(l.there(), ctx.Err()); gone != nil {
		return gone
	}
	return err
}

// serve connects a worker that is about to be started.
func (l *line) serve(c *worker.Config) {
	b := &c.Backend
	b.Vendors = func(context.Context) ([]worker.Vendor, error) {
		return []worker.Vendor{{Name: vendor, Partitions: l.f.partitions}}, l.there()
	}
	b.Lease = func(ctx context.Context, vendor string, partition int) (worker.Lease, error) {
		return l.lease(ctx, worker.Claim{Vendor: vendor, Partition: partition})
	}
	b.Member = func(ctx context.Context) (worker.Lease, error) { return l.lease(ctx, worker.Claim{Worker: l.name}) }
	b.Watch = l.watch
	b.Source = func(ctx context.Context, _ string, partition int) (worker.Source, error) {
		if err := l.ask(ctx, sourceTrouble, func() error { return nil }); err != nil {
			return nil, err
		}
		s := &fleetSource{line: l, partition: partition, drained: make(chan struct{})}
		l.mu.Lock()
		l.sources[partition] = s.drained
		l.mu.Unlock()
		return s, nil
	}
	b.Store = func(string) worker.Store { return fleetStore{l} }
	b.Records = fleetRecords{l}
	b.Partition = func(_, organization string, _ int) int { return l.f.partition(organization) }
}

// fleetLease is a lease at the end of a line. The worker holds a lock while it
// uses the lease, and while somebody waits for a lock virtual time does not go
// on: so nothing here takes any time, and what is frozen ends before somebody
// wants the lock.
type fleetLease struct {
	line  *line
	inner worker.Lease
	key   worker.Claim
}

func (l *line) lease(ctx context.Context, key worker.Claim) (lease worker.Lease, err error) {
	err = l.ask(ctx, leaseTrouble, func() error {
		lease, err = l.f.leases.take(l.name, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return fleetLease{l, lease, key}, nil
}

// Renew waits for the thaw in vain: it was asked for too long ago by then. That
// is noticed a little later, when the rest of the worker goes on already.
func (f fleetLease) Renew(ctx context.Context) error {
	l := f.line
	l.mu.Lock()
	thaw, wanted := l.thaw, l.stopping
	if f.key.Vendor != "" {
		wanted = l.sources[f.key.Partition]
	}
	l.mu.Unlock()
	if thaw == nil {
		return f.atOnce(func() error { return f.inner.Renew(ctx) })
	}
	select {
	case <-thaw:
	case <-wanted:
	}
	select {
	case <-time.After(l.f.dice.upTo(20 * time.Millisecond)):
	case <-wanted:
	}
	return errNoAnswer
}

// Release gives the lease back, unless the worker is frozen: as long as it
// would wait then, leases do not live.
func (f fleetLease) Release(ctx context.Context) error {
	if f.line.frozen() {
		return errNoAnswer
	}
	return f.atOnce(func() error { return f.inner.Release(ctx) })
}

// atOnce is what ask does, in no time.
func (f fleetLease) atOnce(do func() error) error {
	l := f.line
	hit, lost := l.suffers(leaseTrouble)
	if hit && !lost {
		return errBroken
	}
	if !l.alive() {
		return errNoAnswer
	}
	if err := do(); err != nil || !lost {
		return err
	}
	return errNoAnswer
}

// lateView hands on what is seen when its time has come.
type lateView struct {
	line *line
	bell chan struct{}

	mu    sync.Mutex
	queue []sight
}

type sight struct {
	at   time.Time
	tell func(worker.View)
}

func (v *lateView) add(tell func(worker.View)) {
	at := time.Now()
	if late, _ := v.line.suffers(watchTrouble); late {
		at = at.Add(v.line.f.dice.upTo(2 * leaseTTL))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.queue); n > 0 && at.Before(v.queue[n-1].at) {
		at = v.queue[n-1].at // nothing overtakes
	}
	v.queue = append(v.queue, sight{at, tell})
	select {
	case v.bell <- struct{}{}:
	default:
	}
}

func (v *lateView) Held(c worker.Claim) { v.add(func(to worker.View) { to.Held(c) }) }
func (v *lateView) Gone(c worker.Claim) { v.add(func(to worker.View) { to.Gone(c) }) }
func (v *lateView) Complete()           { v.add(worker.View.Complete) }

func (v *lateView) next() (s sight, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.queue) == 0 {
		return sight{}, false
	}
	s = v.queue[0]
	v.queue = v.queue[1:]
	return s, true
}

// watch shows the leases until ctx or the line ends, or until it is cut: what
// happens before the next watch is then never told.
func (l *line) watch(ctx context.Context, view worker.View) error {
	if err := l.there(); err != nil {
		return err
	}
	watching, end := context.WithCancel(ctx)
	defer end()
	l.mu.Lock()
	l.unwatch = end
	l.mu.Unlock()
	late := &lateView{line: l, bell: make(chan struct{}, 1)}
	var inner sync.WaitGroup
	inner.Go(func() { _ = l.f.leases.watch(watching, l.name, late) })
	defer inner.Wait()
	defer end()
	for watching.Err() == nil {
		s, ok := late.next()
		if !ok {
			select {
			case <-watching.Done():
			case <-late.bell:
			}
			continue
		}
		if wait := time.Until(s.at); wait > 0 {
			select {
			case <-watching.Done():
			case <-time.After(wait):
			}
		}
		if err := l.there(); err != nil || watching.Err() != nil {
			break
		}
		s.tell(view)
	}
	return errNoAnswer
}

// fleetSource hands out messages of one partition. A message that is out comes
// again after ackWait, whoever had it.
type fleetSource struct {
	line      *line
	partition int
	once      sync.Once
	drained   chan struct{}
}

const (
	ackWait   = 30 * time.Second
	mostAtOne = 3 // messages: batches are to be many
)

func (s *fleetSource) Receive(ctx context.Context) ([]event.Message, error) {
	f := s.line.f
	for {
		select {
		case <-s.drained:
			return nil, errDrained
		default:
		}
		if err := s.line.there(); err != nil {
			return nil, err
		}
		if ends, _ := s.line.suffers(sourceTrouble); ends {
			return nil, errBroken
		}
		batch, news := f.take(s.partition)
		if len(batch) > 0 {
			s.line.travel()
			return batch, s.line.there()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.drained:
		case <-news:
		}
	}
}

func (s *fleetSource) Ack(ctx context.Context, messages []event.Message) error {
	return s.line.ask(ctx, ackTrouble, func() error {
		f := s.line.f
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range messages {
			f.acked[m.Sequence] = true
		}
		return nil
	})
}

func (s *fleetSource) Release(messages []event.Message) {
	if s.line.there() != nil {
		return
	}
	for _, m := range messages {
		s.line.f.comeAgain(m.Sequence, m.Deliveries)
	}
}

func (s *fleetSource) Drain() { s.once.Do(func() { close(s.drained) }) }
func (s *fleetSource) Close() { s.Drain() }

// take hands out what is neither acked nor out; news is closed when there may
// be more.
func (f *fleet) take(partition int) (batch []event.Message, news <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.log {
		m := &f.log[i]
		if f.partitionOf(m) == partition && !f.acked[m.Sequence] && !f.out[m.Sequence] && len(batch) < mostAtOne {
			f.out[m.Sequence] = true
			taken := *m
			batch = append(batch, taken)
		}
	}
	if len(batch) > 0 {
		time.AfterFunc(ackWait, func() {
			for _, m := range batch {
				f.comeAgain(m.Sequence, m.Deliveries)
			}
		})
	}
	return batch, f.news
}

// comeAgain has a message delivered once more that is out since that delivery
// of it.
func (f *fleet) comeAgain(sequence uint64, delivery int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &f.log[sequence-1]
	if !f.out[sequence] || m.Deliveries != delivery {
		return
	}
	m.Deliveries++
	delete(f.out, sequence)
	f.ring()
}

// ring is called with the lock held.
func (f *fleet) ring() {
	close(f.news)
	f.news = make(chan struct{})
}

// fleetStore is the ledger at the end of a line. As with the real one, some
// entries of a write may be stored when others are not.
type fleetStore struct{ line *line }

func (s fleetStore) Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error {
	var entries []ledger.Entry
	err := s.line.ask(ctx, storeTrouble, func() error {
		return s.line.f.store.Load(ctx, partition, func(e ledger.Entry) error {
			entries = append(entries, e)
			return nil
		})
	})
	for _, e := range entries {
		if err == nil {
			err = yield(e)
		}
	}
	return err
}

func (s fleetStore) Read(ctx context.Context, partition int, key ledger.Key) (e ledger.Entry, ok bool, err error) {
	err = s.line.ask(ctx, storeTrouble, func() error {
		e, ok, err = s.line.f.store.Read(ctx, partition, key)
		return err
	})
	return e, ok, err
}

func (s fleetStore) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	return s.line.store(ctx, entries, func(stored []ledger.Entry) error {
		return s.line.f.store.Write(context.WithoutCancel(ctx), partition, stored)
	})
}

// store has entries written, one at a time. Those that arrive late do so
// whatever has become of the worker meanwhile.
func (l *line) store(ctx context.Context, entries []ledger.Entry, write func([]ledger.Entry) error) error {
	torn, _ := l.suffers(storeTrouble)
	sent := slices.Clone(entries)
	arrive := func() error {
		err := l.f.storeAll(sent, torn, write)
		if err == nil {
			copy(entries, sent)
		}
		return err
	}
	if late, _ := l.suffers(writeTrouble); !late {
		return l.ask(ctx, storeTrouble, arrive)
	}
	if err := errors.Join(l.there(), ctx.Err()); err != nil {
		return err
	}
	arrived := make(chan error, 1)
	time.AfterFunc(l.f.dice.upTo(2*leaseTTL), func() { arrived <- l.f.storeAll(sent, torn, write) })
	select {
	case err := <-arrived:
		copy(entries, sent)
		return errors.Join(l.there(), ctx.Err(), err)
	case <-ctx.Done():
		return errors.Join(l.there(), ctx.Err())
	}
}

// storeAll writes all entries, or with torn some of them: pipelined writes come
// to the store in any order.
func (f *fleet) storeAll(entries []ledger.Entry, torn bool, write func([]ledger.Entry) error) (faults error) {
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	if torn {
		f.dice.shuffle(order)
		order, faults = order[:f.dice.below(len(order)+1)], errBroken
	}
	for _, i := range order {
		f.checkEntry(&entries[i])
		faults = errors.Join(faults, write(entries[i:i+1]))
	}
	return faults
}

// fleetRecords are the records at the end of a line.
type fleetRecords struct{ line *line }

func (r fleetRecords) Park(ctx context.Context, letters []event.Letter) error {
	return r.line.ask(ctx, recordsTrouble, func() error {
		for i := range letters {
			r.line.f.checkLetter(&letters[i])
		}
		return r.line.f.world.Park(ctx, slices.Clone(letters))
	})
}

func (r fleetRecords) AppendCalls(ctx context.Context, vendor string, calls []ledger.Call) error {
	return r.line.ask(ctx, recordsTrouble, func() error { return nil })
}

func (r fleetRecords) Message(ctx context.Context, vendor string, sequence uint64) (m event.Message, err error) {
	err = r.line.ask(ctx, recordsTrouble, func() error {
		m, err = r.line.f.world.Message(ctx, vendor, sequence)
		return err
	})
	return m, err
}
