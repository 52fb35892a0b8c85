package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// partition is one partition while this worker owns it: its part of the
// ledger, its lanes, and the single recorder through which both the fold and
// the lanes change entries. One recorder means that an entry is never written
// twice at a time, and that one write carries many changes.
type partition struct {
	config Config
	vendor *vendorState
	number int
	store  Store
	table  *table
	tenure *tenure
	lag    *lag
	log    *slog.Logger
	kick   chan struct{}                   // outcomes are there to be recorded
	cut    atomic.Int64                    // calls that were cut off without an answer
	slow   atomic.Pointer[map[string]bool] // integrations that begin no call: a hand-over waits for them

	origins *origins // nil: tracing is off

	mu       sync.Mutex
	links    map[string]delivery.Link // by organization
	lanes    map[string]*delivery.Lane
	start    func(*delivery.Lane) // nil before the ledger is loaded and after the end
	outcomes []delivery.Outcome
	doubts   []ledger.Key // may have been lost by the partner
	reviews  []ledger.Key // may not be as people or snapshots want them
}

func newPartition(c Config, vendor *vendorState, number int, t *tenure, log *slog.Logger) *partition {
	return &partition{
		config: c,
		vendor: vendor,
		number: number,
		store:  c.Backend.Store(vendor.name),
		table:  newTable(),
		tenure: t,
		lag:    newLag(c.LagWait),
		log:    log,
		kick:   make(chan struct{}, 1),
		links:  map[string]delivery.Link{},
		lanes:  map[string]*delivery.Lane{},

		origins: newOrigins(c.Tracer),
	}
}

// run works on the partition until running ends, and then finishes what is
// under way. Everything that writes stops at once when fenced ends: the
// partition may be another worker's.
func (p *partition) run(running, fenced context.Context) error {
	started := time.Now()
	if err := p.load(running); err != nil {
		return err
	}
	source, err := p.config.Backend.Source(running, p.vendor.name, p.number)
	if err != nil {
		return fmt.Errorf("open source of partition %d: %w", p.number, err)
	}
	defer source.Close()

	var lanes sync.WaitGroup
	sending, stopLanes := context.WithCancelCause(fenced)
	defer stopLanes(nil)
	p.open(func(l *delivery.Lane) { lanes.Go(func() { p.cut.Add(int64(l.Run(sending))) }) })
	// The last calls end while what was fetched is being folded.
	unlink := context.AfterFunc(running, func() {
		p.close()
		stopLanes(context.Cause(fenced))
	})
	defer unlink()
	p.config.Metrics.owned.WithLabelValues(p.vendor.name).Inc()
	defer p.config.Metrics.owned.WithLabelValues(p.vendor.name).Dec()
	p.log.Info("partition taken", "keys", p.table.size(), "duration_seconds", time.Since(started).Seconds())

	ended := p.work(running, fenced, source)
	p.close()
	stopLanes(context.Cause(fenced))
	p.drain(fenced, source, &lanes)
	p.log.Info("partition given up")
	return ended
}

// work records what comes until running ends, and what had been fetched by then,
// or until the source ends: then it says why.
func (p *partition) work(running, fenced context.Context, source Source) error {
	working, end := context.WithCancelCause(running)
	defer end(nil)
	recording, giveUp := context.WithCancel(fenced)
	defer giveUp()
	// A ledger that cannot be written must not keep the process from stopping.
	unlink := context.AfterFunc(working, func() {
		pause(recording, flushGrace)
		giveUp()
	})
	defer unlink()

	asserting := time.NewTicker(p.assertEvery())
	defer asserting.Stop()
	awaiting := time.NewTicker(max(p.config.SnapshotPatience/awaitParts, time.Second))
	defer awaiting.Stop()
	batches := make(chan []event.Message)
	var receiving sync.WaitGroup
	var left []event.Message
	receiving.Go(func() {
		var err error
		left, err = p.receive(working, source, batches)
		end(err)
	})
	for working.Err() == nil {
		select {
		case <-working.Done():
		case batch := <-batches:
			lags := len(batch) > 0 && batch[len(batch)-1].Pending >= lagging
			if lags {
				p.lag.note(true, time.Now())
			}
			p.take(recording, source, batch)
			if !lags { // not before: what this batch changes would be sent twice
				p.lag.note(false, time.Now())
			}
		case <-p.kick:
			p.take(recording, source, nil)
		case <-asserting.C:
			p.reassert(time.Now())
		case <-awaiting.C:
			p.examine(p.table.incomplete())
		}
	}
	receiving.Wait()
	if running.Err() != nil {
		p.finish(recording, source, left)
		return nil
	}
	return context.Cause(working)
}

// finish records what was fetched already, so that it need not be delivered a
// second time.
func (p *partition) finish(ctx context.Context, source Source, left []event.Message) {
	source.Drain()
	p.take(ctx, source, left)
	for ctx.Err() == nil && !p.vendor.isStopped() {
		batch, err := source.Receive(ctx)
		if err != nil {
			return // there is no more, or no time for it: the source hands the rest back
		}
		p.take(ctx, source, batch)
	}
}

// drain records the outcomes of the last calls while the lanes end.
func (p *partition) drain(fenced context.Context, source Source, lanes *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		lanes.Wait()
		close(ended)
	}()
	flushing, cancel := context.WithTimeout(fenced, flushGrace)
	defer cancel()
	for {
		select {
		case <-p.kick:
			p.take(flushing, source, nil)
		case <-ended:
			for p.unrecorded() > 0 && flushing.Err() == nil {
				p.take(flushing, source, nil)
			}
			return
		}
	}
}

// load reads the partition's entries.
func (p *partition) load(ctx context.Context) error {
	err := p.store.Load(ctx, p.number, func(e ledger.Entry) error {
		p.table.put(e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load ledger partition %d: %w", p.number, err)
	}
	return nil
}

// open starts the lanes of every integration that the ledger or a link names.
func (p *partition) open(start func(*delivery.Lane)) {
	byOrganization := map[string][]ledger.Key{}
	for _, key := range p.table.interesting() {
		byOrganization[key.Organization] = append(byOrganization[key.Organization], key)
	}
	p.mu.Lock()
	p.start = start
	organizations := slices.Collect(maps.Keys(p.links))
	p.mu.Unlock()
	for organization, keys := range byOrganization {
		p.lane(organization).Wake(keys...)
	}
	for _, organization := range organizations {
		p.lane(organization)
		p.renew(organization)
	}
	for _, key := range p.table.unbuilt() {
		p.lane(key.Organization).Rebuild(key)
	}
	// A worker may have died between a person's word, or the last part of a
	// snapshot, and what follows from it.
	p.setRules(p.vendor.currentRules())
}

// doubtLater has the keys doubted soon.
func (p *partition) doubtLater(keys ...ledger.Key) {
	p.mu.Lock()
	p.doubts = append(p.doubts, keys...)
	p.mu.Unlock()
	p.nudge()
}

// renew has what was delivered to the organization before its present
// generation doubted, and its lane look at the catalog again.
func (p *partition) renew(organization string) {
	generation := p.generation(organization)
	if generation == 0 {
		return
	}
	keys := p.table.ofGeneration(organization, generation)
	p.lane(organization).Wake(keys...)
	p.doubtLater(keys...)
}

// generation is the integration's present one.
func (p *partition) generation(organization string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[organization].Generation
}

// Bounds of the search for counts to be sent again.
const (
	assertMost  = 1000 // at a time
	assertParts = 1000 // of the time after which a count is sent again
)

// assertEvery is how often to look for counts that were delivered long ago.
func (p *partition) assertEvery() time.Duration {
	if p.config.Delivery.Reassert <= 0 {
		return time.Hour
	}
	return max(p.config.Delivery.Reassert/assertParts, 10*time.Millisecond)
}

// awaitParts divides the patience with snapshots into the intervals in which
// incomplete ones are looked for.
const awaitParts = 20

// examine has the keys reviewed soon.
func (p *partition) examine(keys []ledger.Key) {
	if len(keys) == 0 {
		return
	}
	p.mu.Lock()
	p.reviews = append(p.reviews, keys...)
	p.mu.Unlock()
	p.nudge()
}

// setRules has what the new rules concern reviewed.
func (p *partition) setRules(rules *ledger.Rules) { p.examine(p.table.suspects(rules)) }

// reassert has counts sent again that were delivered long ago.
func (p *partition) reassert(now time.Time) {
	if p.config.Delivery.Reassert <= 0 {
		return
	}
	byOrganization := map[string][]ledger.Key{}
	for _, key := range p.table.settledBefore(now.Add(-p.config.Delivery.Reassert), assertMost) {
		byOrganization[key.Organization] = append(byOrganization[key.Organization], key)
	}
	for organization, keys := range byOrganization {
		p.lane(organization).Reassert(keys...)
	}
}

func (p *partition) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start = nil
}

// lane is the lane of the organization, started when it is new.
func (p *partition) lane(organization string) *delivery.Lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lanes[organization]; l != nil {
		return l
	}
	options := delivery.Options{
		Vendor:       p.vendor.name,
		Organization: organization,
		Config:       p.config.Delivery,
		Book:         p,
		May:          func() bool { return p.maySend(organization) },
		Signal:       func(ctx context.Context, s delivery.Signal) { p.config.Signal(ctx, p.vendor.name, s) },
		Metrics:      p.config.Metrics.Delivery,
		Logger:       p.config.Logger.With("worker", p.config.ID, "partition", p.number), // the lane adds vendor and organization
	}
	if p.config.Tracer != nil {
		options.Trace = p.traceCall
	}
	l := delivery.New(options)
	l.SetLink(p.links[organization])
	p.lanes[organization] = l
	if p.start != nil {
		p.start(l)
	}
	return l
}

func (p *partition) setLink(organization string, link delivery.Link) {
	p.mu.Lock()
	former := p.links[organization]
	p.links[organization] = link
	running := p.start != nil
	p.mu.Unlock()
	if !running {
		return
	}
	p.lane(organization).SetLink(link)
	if link.Generation != former.Generation {
		p.renew(organization)
	}
}

// probe is for a lane that exists: who has nothing to deliver has nothing to probe.
func (p *partition) probe(organization string, accounts ...string) {
	p.mu.Lock()
	l := p.lanes[organization]
	p.mu.Unlock()
	if l != nil {
		l.Probe(accounts...)
	}
}

func (p *partition) laneStatus(organization string) (s delivery.Status, ok bool) {
	p.mu.Lock()
	l := p.lanes[organization]
	p.mu.Unlock()
	if l == nil {
		return delivery.Status{}, false
	}
	return l.Status(), true
}

func (p *partition) eachLane(visit func(organization string, s delivery.Status)) {
	p.mu.Lock()
	lanes := maps.Clone(p.lanes)
	p.mu.Unlock()
	for organization, l := range lanes {
		visit(organization, l.Status())
	}
}

// Entry is the recorded entry of the key (delivery.Book).
func (p *partition) Entry(key ledger.Key) (ledger.Entry, bool) { return p.table.entry(key) }

// Settle takes the outcome of a call, to be recorded soon (delivery.Book).
func (p *partition) Settle(o delivery.Outcome) {
	p.mu.Lock()
	p.outcomes = append(p.outcomes, o)
	p.mu.Unlock()
	p.nudge()
}

func (p *partition) nudge() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// takeWaiting takes the oldest outcomes, doubts and reviews, as many of each as
// one cycle may have.
func (p *partition) takeWaiting() (outcomes []delivery.Outcome, doubts, reviews []ledger.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return takeFirst(&p.outcomes), takeFirst(&p.doubts), takeFirst(&p.reviews)
}

func takeFirst[T any](list *[]T) []T {
	n := min(len(*list), maxCycle)
	taken := (*list)[:n:n]
	if *list = (*list)[n:]; len(*list) == 0 {
		*list = nil
	}
	return taken
}

func (p *partition) unrecorded() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.outcomes) + len(p.doubts) + len(p.reviews)
}

// receive hands batches to the recorder until ctx ends, or until the source
// does: then it says why. What it received and could not hand over is left.
func (p *partition) receive(ctx context.Context, source Source, batches chan<- []event.Message) (left []event.Message, err error) {
	for {
		p.vendor.awaitFolding(ctx)
		batch, err := source.Receive(ctx)
		if ctx.Err() != nil {
			return batch, nil //nolint:nilerr // we are stopping: whatever it says is no news
		}
		if err != nil {
			return nil, fmt.Errorf("receive from partition %d: %w", p.number, err)
		}
		select {
		case batches <- batch:
		case <-ctx.Done():
			return batch, nil
		}
	}
}

// maxCycle bounds the events and the outcomes of one cycle. A batch of 500
// messages may hold half a million events: recorded at once they would take
// more memory and more time than a worker has until the server gives the
// messages to it again.
const maxCycle = 5000

// take folds and records a batch, in as many cycles as it needs, and with it
// the outcomes that are there. What is not recorded when ctx ends goes back,
// and the calls will be made again with the same absolute values.
func (p *partition) take(ctx context.Context, source Source, batch []event.Message) {
	for len(batch) > 0 || p.unrecorded() > 0 {
		if len(batch) > 0 && p.vendor.isStopped() {
			source.Release(batch)
			batch = nil
			continue
		}
		n, ok := p.cycle(ctx, source, batch)
		if !ok {
			source.Release(batch)
			return
		}
		if batch = batch[n:]; len(batch) == 0 {
			break // outcomes that are left must not keep the next batch waiting
		}
	}
	if p.unrecorded() > 0 {
		p.nudge()
	}
}

// cycle folds the first messages of a batch and some outcomes, records both,
// and only then acknowledges. It tries until it is done, and says how many
// messages that are, or until ctx ends; then it is not ok.
func (p *partition) cycle(ctx context.Context, source Source, batch []event.Message) (n int, ok bool) {
	started := time.Now()
	outcomes, doubts, reviews := p.takeWaiting()
	wait := writeBackoff()
	done := progress{originals: map[uint64]event.Message{}}
	for ctx.Err() == nil {
		w := p.fold(batch, started)
		p.settle(ctx, w, outcomes, &done)
		p.doubt(w, doubts)
		p.review(w, reviews)
		err := p.record(ctx, w, &done)
		if err == nil {
			folded := batch[:w.messages]
			w.woken = append(w.woken, done.tried...)
			p.commit(w, outcomes)
			p.acknowledge(ctx, source, folded)
			p.config.Metrics.folded(p.vendor.name, len(folded), w, time.Since(started))
			p.report(w, len(folded), time.Since(started))
			p.recordSpans(w, len(folded), started)
			p.vendor.recorded(w.watch)
			if w.flooded {
				p.stopFolding()
			}
			return len(folded), true
		}
		if ctx.Err() != nil {
			break
		}
		p.config.Metrics.conflicts.WithLabelValues(p.vendor.name).Inc()
		done.attempted(w)
		p.log.Warn("ledger not written, folding again on what is stored", "err", err)
		pause(ctx, wait.NextBackOff())
		if err := p.reload(ctx, w); err != nil && ctx.Err() == nil {
			p.log.Warn("entries not read, trying again", "err", err)
		}
	}
	return 0, false
}

// progress is what of a cycle is recorded for good and need not be repeated
// when the rest is tried again.
type progress struct {
	calls     bool
	originals map[uint64]event.Message // read again for dead letters, by sequence
	// tried has the figures of attempts that failed and may yet have stored
	// them: the next attempt finds nothing left to change, and still their lanes
	// must hear of them.
	tried []ledger.Key
}

func (d *progress) attempted(w *work) {
	for key := range w.changed {
		if key.Kind.Figure() {
			d.tried = append(d.tried, key)
		}
	}
}

var errOverdue = errors.New("the lease was not renewed in time, the partition may be another worker's")

// record writes dead letters first, because a letter that stands is harmless
// if the rest fails, while an entry that says "failed" without its letter is
// not; then the entries, and beside them the sync log.
func (p *partition) record(ctx context.Context, w *work, done *progress) error {
	if !p.tenure.mayWrite() {
		return errOverdue
	}
	if len(w.letters) > 0 {
		if err := p.config.Backend.Records.Park(ctx, w.letters); err != nil {
			return fmt.Errorf("park %d dead letters: %w", len(w.letters), err)
		}
	}
	var logging sync.WaitGroup
	var logged error
	if len(w.calls) > 0 && !done.calls {
		logging.Go(func() {
			logged = p.config.Backend.Records.AppendCalls(ctx, p.vendor.name, w.calls)
			done.calls = logged == nil
		})
	}
	var written error
	if len(w.changed) > 0 {
		written = p.write(ctx, w)
	}
	logging.Wait()
	return errors.Join(written, logged)
}

// write stores the changed entries, figures first: a scope that knows a snapshot
// to be complete makes 0 of what it did not name, so it must never be stored
// before the figures that it did name.
func (p *partition) write(ctx context.Context, w *work) error {
	w.list = w.entries()
	keepers := slices.IndexFunc(w.list, func(e ledger.Entry) bool { return !e.Key.Kind.Figure() })
	if keepers <= 0 {
		return p.store.Write(ctx, p.number, w.list)
	}
	if err := p.store.Write(ctx, p.number, w.list[:keepers]); err != nil {
		return err
	}
	return p.store.Write(ctx, p.number, w.list[keepers:])
}

// reload reads the stored entries of a cycle that could not be recorded: some
// of them may have been written all the same, or by another worker.
func (p *partition) reload(ctx context.Context, w *work) error {
	for key := range w.changed {
		e, ok, err := p.store.Read(ctx, p.number, key)
		if err != nil {
			return fmt.Errorf("read entry %s: %w", key, err)
		}
		if ok {
			p.table.put(e)
		} else {
			p.table.forget(key, e.Revision)
		}
	}
	return nil
}

// commit shows what is recorded and wakes the lanes it concerns.
func (p *partition) commit(w *work, outcomes []delivery.Outcome) {
	p.table.put(w.list...)
	if rules := p.vendor.currentRules(); rules != w.rules {
		// They came while this was being recorded, and saw what was there before.
		p.examine(p.table.misfits(slices.Collect(maps.Keys(w.changed)), rules))
	}
	settled := map[string][]ledger.Key{}
	for _, o := range outcomes {
		p.origins.settled(&o)
		if o.Task.Generation < p.generation(o.Task.Key.Organization) {
			// It rose while this was being recorded, and saw what was there before.
			p.doubtLater(o.Task.Key)
		}
		if o.Task.Key.Kind != 0 {
			settled[o.Task.Key.Organization] = append(settled[o.Task.Key.Organization], o.Task.Key)
		}
	}
	woken := map[string][]ledger.Key{}
	for _, key := range w.woken {
		woken[key.Organization] = append(woken[key.Organization], key)
	}
	for organization, keys := range settled {
		p.lane(organization).Settled(keys...)
	}
	for organization, keys := range woken {
		p.lane(organization).Wake(keys...)
	}
	for scope := range w.completed {
		p.examine(p.table.misfits(p.table.counts(scope), w.rules))
		p.tellSnapshot(w, scope)
	}
}

// tellSnapshot counts and logs a snapshot that is complete now.
func (p *partition) tellSnapshot(w *work, scope ledger.Key) {
	e := w.Entry(scope)
	for _, s := range e.Snapshots {
		if !s.Complete() || s.Done != w.now.UnixNano() {
			continue
		}
		how, level := snapshotComplete, slog.LevelInfo
		if s.Waits {
			how, level = snapshotApproval, slog.LevelWarn
		}
		p.config.Metrics.snapshots.WithLabelValues(p.vendor.name, how).Inc()
		p.log.Log(context.Background(), level, "snapshot complete", "organization", scope.Organization, "account", scope.Account,
			"snapshot", s.Name, "parts", s.Of, "keys", s.Keys, "zeros", s.Zeros, "approval", s.Waits)
	}
}

func (p *partition) acknowledge(ctx context.Context, source Source, batch []event.Message) {
	if len(batch) == 0 {
		return
	}
	if !p.tenure.mayWrite() {
		// The next owner may have read the ledger before this write: only if
		// the messages come to it, too, does it learn of them.
		p.log.Warn("recorded, but too late to acknowledge", "messages", len(batch))
		return
	}
	if err := source.Ack(ctx, batch); err != nil {
		// They come again and fold to nothing new.
		p.log.Warn("recorded but not acknowledged", "err", err, "messages", len(batch))
	}
}

func writeBackoff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}
