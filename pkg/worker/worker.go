// Package worker runs the partitions that one process owns. For each it folds
// the partition's events into the ledger, runs the delivery lanes of its
// integrations, and records what came of both before anything is
// acknowledged.
//
// It deliberately knows no NATS and no HTTP: the log, the ledger's store, the
// leases and the partner are handed in as small interfaces. It decides neither
// what an event means (the consumers do) nor what an answer means (delivery
// does).
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Source hands out the messages of one partition.
type Source interface {
	// Receive waits for at least one message and returns what comes together.
	// An error while ctx lasts is final: the source has to be opened again.
	Receive(ctx context.Context) ([]event.Message, error)
	Receipts
	// Drain stops fetching: Receive then gives what was fetched already, and at
	// the end an error.
	Drain()
	// Close hands back what was never received and frees the source.
	Close()
}

// Receipts says what became of messages that were received.
type Receipts interface {
	// Ack says that the messages need not come again.
	Ack(ctx context.Context, messages []event.Message) error
	// Release hands messages back, to come again at once.
	Release(messages []event.Message)
}

// Store keeps the ledger entries of one vendor. Its contract is the suite in
// package ledgertest.
type Store interface {
	// Load yields what is stored; an entry that is written meanwhile may come
	// again, as it is then.
	Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error
	Read(ctx context.Context, partition int, key ledger.Key) (e ledger.Entry, ok bool, err error)
	Write(ctx context.Context, partition int, entries []ledger.Entry) error
}

// Records keeps what is written beside the ledger.
type Records interface {
	// Park stores dead letters; one that is stored already is left as it is.
	Park(ctx context.Context, letters []event.Letter) error
	// AppendCalls adds calls to the sync log.
	AppendCalls(ctx context.Context, vendor string, calls []ledger.Call) error
	// Message reads one message of the vendor's log again.
	Message(ctx context.Context, vendor string, sequence uint64) (event.Message, error)
}

// Lease is the right to work on one partition, for a while.
type Lease interface {
	Renew(ctx context.Context) error
	Release(ctx context.Context) error
}

// ErrLeased says that another worker has the lease: that of a partition, or of
// this worker's name.
var ErrLeased = errors.New("leased to another worker")

// Vendor is a vendor whose events are to be folded.
type Vendor struct {
	Name       string
	Partitions int
}

// Backend is what the worker stands on.
type Backend struct {
	Vendors func(ctx context.Context) ([]Vendor, error)
	// Lease fails with an error that wraps ErrLeased when another worker has it.
	Lease func(ctx context.Context, vendor string, partition int) (Lease, error)
	// Member takes the lease that shows this worker to be alive. It fails with
	// an error that wraps ErrLeased when a worker of the same name is. Nil: no
	// other worker is to know of this one.
	Member func(ctx context.Context) (Lease, error)
	// Watch tells the view of all leases and of every change to one, until ctx
	// ends or with an error that trying again may mend. Nil: there is no other
	// worker.
	Watch   func(ctx context.Context, view View) error
	Source  func(ctx context.Context, vendor string, partition int) (Source, error)
	Store   func(vendor string) Store
	Records Records
	// Partition says where an organization's events lie.
	Partition func(vendor, organization string, partitions int) int
}

// Meaning says what an event does to the ledger. An error is permanent: the
// event is dead. It wraps an *event.Fault when it can say where.
type Meaning func(e *event.Event) ([]ledger.Operation, error)

// Config is what a worker is made of.
type Config struct {
	// ID names the worker in leases, dead letters and the sync log.
	ID       string
	Backend  Backend
	Meanings map[string]Meaning // by event type
	Limits   event.Limits
	Delivery delivery.Config
	// CallTimeout is the longest a call to the partner can take. A worker
	// begins no call when less than this is left on a lease, so it must be
	// less than LeaseTTL: see CheckTimes.
	CallTimeout time.Duration
	// LeaseTTL is how long a lease lasts without renewal.
	LeaseTTL time.Duration
	// SnapshotPatience is how long a snapshot may wait for missing parts (0: 24 h).
	SnapshotPatience time.Duration
	// LagWait is how long the lanes of a partition may wait in one piece while
	// more than a thousand messages wait to be folded; 0: not at all.
	LagWait time.Duration
	// DeadShare, 0 to 1, is the share of dead ones among a vendor's last
	// floodWindow events beyond which its events are not folded any longer; 0:
	// they always are. Flooded is told.
	DeadShare float64
	// Rules hold for a vendor until SetRules says others; nil: none.
	Rules *ledger.Rules
	// Flooded is told that too many events of a vendor are dead. It must have
	// SetStopped called everywhere, must not block, and may be called by several
	// workers.
	Flooded func(vendor string, f Flood)
	// Signal is told what answers say of an integration.
	Signal func(ctx context.Context, vendor string, s delivery.Signal)

	// ShownOrganizations is how many integrations, those furthest behind, have a
	// gauge of their own.
	ShownOrganizations int
	Metrics            *Metrics
	Logger             *slog.Logger
	// Tracer makes spans of messages whose trace is recorded, and of calls. Nil:
	// tracing is off.
	Tracer trace.Tracer
}

// Worker owns partitions. Build it with New, then Run it.
type Worker struct {
	config Config
	log    *slog.Logger

	members *members
	keeper  *keeper

	mu         sync.Mutex
	links      map[integration]delivery.Link
	partitions map[place]*partition
	handing    map[place]func() // hands a partition over
	failures   map[place]int    // in a row, soon after a partition was taken
	states     map[string]*vendorState
	faults     map[place]error // what keeps a partition from being worked on; no place: all of them
	outside    error           // why this worker is no member
}

type integration struct{ vendor, organization string }

type place struct {
	vendor string
	number int
}

// How often a worker looks for new vendors, and how many renewals fit into the
// life of a lease.
const (
	lookAround       = 2 * time.Second
	renewalsPerLease = 5
	flushGrace       = 3 * time.Second
	resignGrace      = time.Second
	defaultPatience  = 24 * time.Hour
)

// CheckTimes says what is wrong with a timeout of calls under leases of the
// given life. A call must end while its lease lasts, and a fifth of that life
// has to be left for renewing it.
func CheckTimes(call, ttl time.Duration) error {
	if most := ttl * 4 / 5; call > most {
		return fmt.Errorf("calls may take %v, but a lease lasts %v: want calls of at most %v, or leases of at least %v", call, ttl, most, call*5/4)
	}
	return nil
}

// New makes a worker that owns nothing until it runs.
func New(c Config) *Worker {
	if c.SnapshotPatience == 0 {
		c.SnapshotPatience = defaultPatience
	}
	w := &Worker{
		config:     c,
		log:        c.Logger.With("worker", c.ID),
		links:      map[integration]delivery.Link{},
		partitions: map[place]*partition{},
		handing:    map[place]func(){},
		failures:   map[place]int{},
		members:    newMembers(c.ID, c.LeaseTTL),
		keeper:     newKeeper(renewalInterval(c.LeaseTTL, c.CallTimeout)),
		states:     map[string]*vendorState{},
		faults:     map[place]error{},
	}
	c.Metrics.watch(w)
	return w
}

// SetLink tells the worker of an integration: that it exists, or that its
// status, tokens or gates have changed. It may come before, while and after
// the worker owns the integration's partition.
func (w *Worker) SetLink(vendor, organization string, link delivery.Link) {
	w.mu.Lock()
	w.links[integration{vendor, organization}] = link
	w.mu.Unlock()
	// A partition that is entered from now on takes the link with it.
	if owner := w.owner(vendor, organization); owner != nil {
		owner.setLink(organization, link)
	}
}

// SetRules tells the worker what people have said of the vendor's figures. It
// is to be called before Run with what is known then.
func (w *Worker) SetRules(vendor string, rules *ledger.Rules) {
	w.state(vendor).setRules(rules)
	w.mu.Lock()
	var owned []*partition
	for at, p := range w.partitions {
		if at.vendor == vendor {
			owned = append(owned, p)
		}
	}
	w.mu.Unlock()
	for _, p := range owned {
		p.setRules(rules)
	}
}

// SetStopped says whether the vendor's events are to be folded. Deliveries go
// on either way.
func (w *Worker) SetStopped(vendor string, stopped bool) { w.state(vendor).setStopped(stopped) }

// Stopped says whether the vendor's events are not folded now.
func (w *Worker) Stopped(vendor string) bool { return w.state(vendor).isStopped() }

// state is what the worker knows of the vendor beside its partitions.
func (w *Worker) state(vendor string) *vendorState {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.states[vendor]
	if s == nil {
		s = newVendorState(vendor, w.config.DeadShare, w.config.Rules)
		w.states[vendor] = s
	}
	return s
}

// Probe tells the integration's lane, if this worker runs it, that something
// may have changed at the partner: probes are due at once, and what is not
// mapped of the accounts named is tried.
func (w *Worker) Probe(vendor, organization string, accounts ...string) {
	if owner := w.owner(vendor, organization); owner != nil {
		owner.probe(organization, accounts...)
	}
}

// Keys is how many figures the partitions have that this worker owns.
func (w *Worker) Keys() (n int) {
	for _, partitions := range w.owned() {
		for _, p := range partitions {
			n += p.table.size()
		}
	}
	return n
}

// Owns says whether this worker runs the integration's partition.
func (w *Worker) Owns(vendor, organization string) bool { return w.owner(vendor, organization) != nil }

// Owned lists the partitions of the vendor that this worker has now.
func (w *Worker) Owned(vendor string) (partitions []int) {
	for _, p := range w.owned()[vendor] {
		partitions = append(partitions, p.number)
	}
	return partitions
}

// Lane says what the integration's lane is doing; ok is false when another
// worker runs it, or nobody.
func (w *Worker) Lane(vendor, organization string) (s delivery.Status, ok bool) {
	owner := w.owner(vendor, organization)
	if owner == nil {
		return delivery.Status{}, false
	}
	return owner.laneStatus(organization)
}

// owner is the partition that the integration lies in, nil when another worker
// has it.
func (w *Worker) owner(vendor, organization string) *partition {
	n := w.members.partitions(vendor)
	if n == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.partitions[place{vendor, w.config.Backend.Partition(vendor, organization, n)}]
}

// Run works until ctx ends, then stops gracefully: it tells the other workers,
// receives no more, lets calls finish, records their outcomes and gives its
// leases back.
func (w *Worker) Run(ctx context.Context) error {
	// Leases are kept until the last partition is given back.
	keeping, endKeeping := context.WithCancel(context.WithoutCancel(ctx))
	var background, owners sync.WaitGroup
	defer background.Wait()
	defer endKeeping()
	background.Go(func() { w.keeper.run(keeping) })
	background.Go(func() { w.watch(keeping) })
	resigned := make(chan struct{})
	background.Go(func() {
		defer close(resigned)
		w.join(ctx)
	})
	owning, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	background.Go(func() { w.findVendors(ctx) })
	w.share(ctx, owning, &owners)
	select {
	case <-resigned: // from now on nobody leaves anything to this worker
	case <-time.After(resignGrace):
	}
	stop()
	owners.Wait()
	return nil
}

// findVendors looks for new vendors until ctx ends.
func (w *Worker) findVendors(ctx context.Context) {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	for ctx.Err() == nil {
		vendors, err := w.config.Backend.Vendors(ctx)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("vendors not listed, trying again", "err", err)
		}
		w.note(place{}, err)
		for _, v := range vendors {
			if w.members.add(v) {
				w.config.Metrics.touch(v.Name)
				w.log.Info("vendor found", "vendor", v.Name, "partitions", v.Partitions)
				w.members.nudge()
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// share takes the partitions that are this worker's share, each until owning
// ends, and hands over what is another's, until ctx ends.
func (w *Worker) share(ctx, owning context.Context, owners *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.members.kick:
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		todo := w.members.plan(now)
		for _, t := range todo.take {
			handed, hand := context.WithCancel(owning)
			w.mu.Lock()
			w.handing[t.place] = hand
			w.mu.Unlock()
			owners.Go(func() {
				defer hand()
				w.own(owning, handed, t)
			})
		}
		for _, at := range todo.cede {
			w.handOver(at)
		}
		timer.Reset(todo.next.Sub(now))
	}
}

// handOver begins to hand the partition over, unless it has just come to its
// end by itself.
func (w *Worker) handOver(at place) {
	w.mu.Lock()
	hand := w.handing[at]
	w.mu.Unlock()
	if hand != nil {
		hand()
		w.config.Metrics.handovers.WithLabelValues(at.vendor).Inc()
	}
}

// note keeps in mind what keeps a partition from being worked on; nil: nothing.
func (w *Worker) note(at place, fault error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fault == nil {
		delete(w.faults, at)
		return
	}
	w.faults[at] = fault
}

// Ready says why there are partitions that this worker cannot work on although
// nobody else does; nil when it does its work or stands by for others. A
// partition that cannot be worked on does not make a worker useless that has
// others: the metric partition_faults tells of it.
func (w *Worker) Ready() error {
	w.forgetFaults()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.outside != nil {
		return w.outside
	}
	if fault := w.faults[place{}]; fault != nil {
		return fmt.Errorf("list vendors: %w", fault)
	}
	if len(w.partitions) > 0 {
		return nil
	}
	for at, fault := range w.faults { // any of them will do: they rarely differ
		return fmt.Errorf("%d partitions cannot be worked on, among them %d of %s: %w", len(w.faults), at.number, at.vendor, fault)
	}
	return nil
}

// forgetFaults forgets what kept this worker from partitions on which others
// work by now.
func (w *Worker) forgetFaults() {
	w.mu.Lock()
	places := slices.Collect(maps.Keys(w.faults))
	w.mu.Unlock()
	for _, at := range places {
		if at.vendor != "" && w.members.elsewhere(at) {
			w.note(at, nil)
		}
	}
}

// faulty counts, by vendor, the partitions that this worker cannot work on.
func (w *Worker) faulty() map[string]int {
	w.forgetFaults()
	w.mu.Lock()
	defer w.mu.Unlock()
	n := map[string]int{}
	for at := range w.faults {
		n[at.vendor]++
	}
	return n
}

// again is how long to wait before a partition is tried again: longer after each
// failure, since every attempt reads what there is of it.
func (w *Worker) again(at place, failed bool) time.Duration {
	wait := lookAround/2 + rand.N(lookAround) //nolint:gosec // spreads the workers, guards nothing
	w.mu.Lock()
	defer w.mu.Unlock()
	if !failed {
		delete(w.failures, at)
		return wait
	}
	wait <<= min(w.failures[at], maxDoublings)
	w.failures[at]++
	return wait
}

// steadyTenure is after how long a partition that fails is not taken to be
// unfit from the beginning.
const steadyTenure = time.Minute

// maxDoublings bounds the wait after failures: to about a minute.
const maxDoublings = 5

// own works on the partition if its lease is free, until it is handed over,
// owning ends, or the lease is lost.
func (w *Worker) own(owning, handed context.Context, t taking) {
	log := w.log.With("vendor", t.vendor, "partition", t.number)
	failed, handedOver := false, false
	asked := time.Now() // the answer may take its time
	lease, err := w.config.Backend.Lease(owning, t.vendor, t.number)
	switch {
	case err == nil:
		w.note(t.place, nil)
		w.config.Metrics.takeover.Observe(time.Since(t.vacant).Seconds())
		tenure := newTenure(asked, w.config.LeaseTTL, w.config.CallTimeout)
		p := newPartition(w.config, w.state(t.vendor), t.number, tenure, log)
		switch err = w.hold(owning, handed, p, lease, log); {
		case handed.Err() != nil: // or the worker stops: it may have been loading still
			handedOver = true
		case err != nil:
			failed = time.Since(asked) < steadyTenure
			log.Error("partition stopped, taking it again", "err", err)
			w.note(t.place, err)
		}
	case errors.Is(err, ErrLeased):
		log.Debug("partition is another worker's", "err", err)
		w.note(t.place, nil)
	case owning.Err() == nil:
		log.Warn("lease not taken, trying again", "err", err)
		w.note(t.place, err)
	}
	w.mu.Lock()
	delete(w.handing, t.place)
	w.mu.Unlock()
	wait := w.again(t.place, failed)
	if handedOver {
		wait = 0
	}
	w.members.left(t.place, wait)
}

// hold runs the partition while the lease lasts, until it is handed over or
// owning ends.
func (w *Worker) hold(owning, handed context.Context, p *partition, lease Lease, log *slog.Logger) error {
	fenced, fence := context.WithCancelCause(context.WithoutCancel(owning))
	defer fence(nil)
	running, stop := context.WithCancelCause(fenced)
	defer stop(nil)
	unlink := context.AfterFunc(handed, func() { // when owning ends, too
		p.quiesce(owning, fenced)
		stop(nil)
	})
	defer unlink()

	w.enter(p)
	defer w.leave(p)

	kept := w.keeper.keep(lease, p.tenure, func(err error) {
		w.config.Metrics.lost.WithLabelValues(p.vendor.name).Inc()
		log.Error("lease lost, partition dropped", "err", err)
		fence(fmt.Errorf("%w: %w", delivery.ErrFenced, err))
	}, log)
	err := p.run(running, fenced)
	if n := p.cut.Load(); n > 0 && context.Cause(fenced) == nil {
		kept.drop()
		// The partner may still be busy with them. Another worker that sends a
		// newer figure at once could be overtaken by the older one.
		log.Warn("lease left to end by itself: calls were cut off, and the partner may still take them", "calls", n)
		return err
	}
	releasing, cancel := context.WithTimeout(context.WithoutCancel(owning), flushGrace)
	defer cancel()
	releaseErr := kept.release(releasing) // nothing when it was lost
	if cause := context.Cause(fenced); cause != nil {
		return cause
	}
	if releaseErr != nil {
		log.Warn("lease not given back; it ends by itself", "err", releaseErr)
	}
	return err
}

func (w *Worker) enter(p *partition) {
	partitions := w.members.partitions(p.vendor.name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partitions[place{p.vendor.name, p.number}] = p
	for id, link := range w.links {
		if id.vendor == p.vendor.name && w.config.Backend.Partition(id.vendor, id.organization, partitions) == p.number {
			p.links[id.organization] = link
		}
	}
}

func (w *Worker) leave(p *partition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.partitions, place{p.vendor.name, p.number})
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
