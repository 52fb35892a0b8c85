package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// turn is a call whose turn has come, with what the lane knew at that time.
type turn struct {
	tasks  []Task // one, or several accounts
	link   Link
	epoch  int
	look   int          // for a read: its number ...
	status string       // ... and the status that was read before
	build  int          // for a count that builds: how many had begun that do not; negative: some were under way
	leave  func(Answer) // tells the host what came of the call
	// proven is how many calls had proved a status by then: an answer to this
	// one may be older than what they have proved.
	proven int
	// counted says that the delivery counts for the objective.
	counted bool
}

// dispatch starts every call that may start until ctx ends, each with the
// context calling, and says how long nothing more will be due.
func (l *Lane) dispatch(ctx, calling context.Context, calls *sync.WaitGroup) time.Duration {
	for ctx.Err() == nil {
		l.mu.Lock()
		t, wait, ok := l.pick(time.Now())
		foreseen := l.foreseen
		l.foreseen = nil
		l.mu.Unlock()
		for _, o := range foreseen {
			l.book.Settle(o)
		}
		if !ok {
			return wait
		}
		calls.Go(func() { l.call(calling, t) })
	}
	return idle
}

// forbidden is how long a lane waits that may not begin a call.
const forbidden = 100 * time.Millisecond

// pick takes the next call, or says how long to wait for one.
func (l *Lane) pick(now time.Time) (t turn, wait time.Duration, ok bool) {
	wait = until(l.queue.promote(now), now)
	switch {
	case l.link.Partner == nil, l.link.Paused, l.gate.hold == ledger.Unauthorized,
		l.inflight >= l.gate.width(l.config),
		l.queue.count[sending]+l.queue.count[recording] >= l.config.Concurrency*unrecordedPerCall:
		return turn{}, wait, false
	case !l.may():
		return turn{}, forbidden, false
	case now.Before(l.gate.closed):
		return turn{}, l.gate.closed.Sub(now), false
	}
	task, due, ok := l.candidate(now)
	if !ok {
		return turn{}, min(wait, due), false
	}
	leave, pause := l.admit(now)
	if pause > 0 {
		return turn{}, pause, false
	}
	t = turn{
		tasks: l.together(task), link: l.link, epoch: l.epoch, build: l.build.begun, leave: leave, proven: l.proven,
		counted: l.counts(task),
	}
	if l.build.under > 0 {
		t.build = -1
	}
	for i := range t.tasks {
		t.tasks[i].Generation = l.link.Generation
		l.begin(t.tasks[i], now)
	}
	t.look, t.status = l.look.begun, l.look.status
	l.inflight++
	return t, 0, true
}

// admit takes the right to make one call from the lane's own pace and from the
// host, or says how long to wait for it.
func (l *Lane) admit(now time.Time) (leave func(Answer), wait time.Duration) {
	if wait := l.pace.wait(now); wait > 0 {
		return nil, wait
	}
	leave = func(Answer) {}
	if host := l.link.Host; host != nil {
		if l.slot.IsZero() || now.Sub(l.slot) > slotKept {
			l.slot = host.slot(now)
		}
		if now.Before(l.slot) {
			return nil, l.slot.Sub(now)
		}
		if leave, wait = host.enter(); wait > 0 {
			return nil, wait
		}
		l.slot = time.Time{}
	}
	l.pace.take(now)
	return leave, 0
}

// until is how long from now to at; idle when at is zero.
func until(at, now time.Time) time.Duration {
	if at.IsZero() {
		return idle
	}
	return max(at.Sub(now), 0)
}

// mapping is, in an order of kinds, the call that opens the mapping.
const mapping ledger.Kind = 0

// order is the order in which the partner needs things: accounts and services
// before the call that opens the mapping, counts last. While the breaker lets
// only single calls try for all, every kind is first in its turn: an account
// that fails again and again must not be the only one that is tried.
func (l *Lane) order() [4]ledger.Kind {
	kinds := [4]ledger.Kind{ledger.Account, ledger.Service, mapping, ledger.Count}
	var order [4]ledger.Kind
	for i := range order {
		order[i] = kinds[(i+l.gate.trips)%len(kinds)]
	}
	return order
}

// candidate finds what may be sent now. When there is nothing it says when
// something will be due of itself.
func (l *Lane) candidate(now time.Time) (t Task, due time.Duration, ok bool) {
	t, due, ok = l.lookTask(now)
	if ok || l.look.first {
		return t, due, ok
	}
	t, wait, ok := l.lossTask(now)
	if ok {
		return t, 0, true
	}
	due = min(due, wait)
	for _, kind := range l.order() {
		held := l.holds(kind)
		if held {
			if wait := until(l.gate.probes.next, now); wait > 0 {
				due = min(due, wait)
				continue
			}
		}
		t, wait, ok := l.next(kind, now)
		if !ok {
			due = min(due, wait)
			continue
		}
		t.Probe = t.Probe || held
		if (t.Probe || kind == mapping) && l.lookBefore(now) {
			return l.lookTask(now)
		}
		if l.defers(&t) {
			continue // the calls it waits for nudge the lane
		}
		return t, 0, true
	}
	t, wait, ok = l.leisure(now)
	return t, min(due, wait), ok
}

// leisure finds what is sent only when there is nothing else: counts that were
// delivered long ago, and the rebuild that a failed call has left undone.
func (l *Lane) leisure(now time.Time) (t Task, wait time.Duration, ok bool) {
	if l.holds(ledger.Count) {
		return Task{}, idle, false
	}
	for l.queue.settled.first != nil {
		if l.inflight > 0 {
			return Task{}, idle, false // one at a time
		}
		i := l.queue.settled.first
		e, ok := l.book.Entry(i.key)
		old := ok && e.State == ledger.Synced && now.Sub(time.Unix(0, e.Delivered.At)) >= l.config.Reassert
		if old && l.config.Reassert > 0 && l.has(i.key.AccountKey()) && l.has(i.key.ServiceKey()) {
			t := l.taskOf(&e)
			t.NoBuild = l.link.DefersBuild && i.next != nil
			return t, 0, true
		}
		l.queue.drop(i.key)
	}
	return l.rebuildTask(now)
}

// holds says whether the hold of the lane concerns the kind. An integration
// that is not ready is expected to take everything but counts, until it says
// otherwise.
func (l *Lane) holds(kind ledger.Kind) bool {
	if l.gate.hold == ledger.IntegrationNotReady && kind != ledger.Count {
		return l.gate.catalog && kind != mapping
	}
	return l.gate.hold != ""
}

// next finds what may be sent of one kind, holds aside, or says when it may.
func (l *Lane) next(kind ledger.Kind, now time.Time) (t Task, wait time.Duration, ok bool) {
	if kind == mapping {
		return l.mappingTask(now)
	}
	t, ok = l.head(kind)
	if !ok && kind == ledger.Count {
		return l.unmappedProbe(now)
	}
	return t, idle, ok
}

// mappingTask tells the partner that a person may map now, when it has not
// been told and the catalog that we know of is posted. What failed once does
// not keep it waiting: it may fail for weeks.
func (l *Lane) mappingTask(now time.Time) (t Task, wait time.Duration, ok bool) {
	wanted := l.link.Setup && !l.setup.calling && !l.look.calling && !l.setup.done && !l.look.opened &&
		l.accounts > 0 && l.services > 0 && l.queue.fresh == 0
	if !wanted {
		return Task{}, idle, false
	}
	if now.Before(l.setup.next) {
		return Task{}, l.setup.next.Sub(now), false
	}
	return Task{Key: ledger.Key{Organization: l.organization}, Attempt: l.setup.failures + 1}, 0, true
}

// unmappedProbe takes the key that has waited longest for its mapping.
func (l *Lane) unmappedProbe(now time.Time) (t Task, wait time.Duration, ok bool) {
	for {
		i := l.queue.unmapped.first
		if i == nil {
			return Task{}, idle, false
		}
		if wait := until(l.probes.next, now); wait > 0 {
			return Task{}, wait, false
		}
		if e, ok := l.book.Entry(i.key); ok && wants(&e) {
			t = l.taskOf(&e)
			t.Probe = true
			return t, 0, true
		}
		l.queue.drop(i.key)
	}
}

// head is the first key of the kind that may be sent. Keys that turn out to
// need nothing, or to need something else first, are put where they belong.
func (l *Lane) head(kind ledger.Kind) (Task, bool) {
	for {
		i := l.queue.ready[kind].first
		if i == nil {
			return Task{}, false
		}
		e, ok := l.book.Entry(i.key)
		switch {
		case !ok || !wants(&e):
			l.queue.drop(i.key)
		case kind == ledger.Count && !l.has(i.key.AccountKey()):
			l.await(i.key, i.key.AccountKey())
		case kind == ledger.Count && !l.has(i.key.ServiceKey()):
			l.await(i.key, i.key.ServiceKey())
		case kind == ledger.Count && l.gate.hold == "" && l.unmappedAsRead(i.key):
			l.foresee(&e)
		default:
			return l.taskOf(&e), true
		}
	}
}

// await makes a count wait for its account or its service.
func (l *Lane) await(key, catalog ledger.Key) {
	_, known := l.book.Entry(catalog)
	l.queue.wait(key, catalog, known)
}

// counts says whether the delivery of the figure counts for the objective: not
// when it was not mapped, or its account or service not published, or when it is
// told long after its time.
func (l *Lane) counts(t Task) bool {
	i := l.queue.items[t.Key]
	if t.Key.Kind != ledger.Count || i == nil {
		return false
	}
	return !i.late && !t.Probe && t.Figure.Backfill == 0
}

// together adds to an account, where the partner takes several in one call,
// those that may go with it. What is known to exist goes alone, because one
// that exists makes the partner refuse them all.
func (l *Lane) together(t Task) []Task {
	tasks := []Task{t}
	if l.link.Bulk == nil || t.Key.Kind != ledger.Account || t.Probe || t.Check || l.single(t.Key) {
		return tasks
	}
	for i := l.queue.ready[ledger.Account].first; i != nil && len(tasks) < MaxBulk; i = i.next {
		if i.key == t.Key || l.single(i.key) {
			continue
		}
		if e, ok := l.book.Entry(i.key); ok && wants(&e) {
			tasks = append(tasks, l.taskOf(&e))
		}
	}
	return tasks
}

// single says whether the account is to be sent by itself.
func (l *Lane) single(key ledger.Key) bool {
	_, there := l.look.there[key.Account]
	return there || l.alone[key]
}

// wants says whether the entry has something to send once its turn has come.
func wants(e *ledger.Entry) bool {
	return e.State == ledger.Dirty || e.State == ledger.Retrying || e.State == ledger.Held && e.Reason == ledger.Unmapped
}

// taskOf is the call for the entry. One for a key that is still held is a
// probe, wherever the key stands in the queue.
func (l *Lane) taskOf(e *ledger.Entry) Task {
	figure, _ := e.Desired()
	return Task{
		Key:     e.Key,
		Figure:  figure,
		Attempt: e.Attempts + 1,
		Before:  e.Delivered.At,
		Probe:   e.State == ledger.Held,
		Again:   e.Posted() && e.Delivered.Version == figure.Version,
		Known:   e.PostedIn(l.link.Generation),
	}
}

// begin marks the task as under way.
func (l *Lane) begin(t Task, now time.Time) {
	if t.Read {
		l.look.begin()
		if !t.List {
			l.look.proven = l.proven
		}
		return
	}
	if l.holds(t.Key.Kind) {
		l.gate.probes.later(now, l.config.ProbeMin, l.config.ProbeMax)
	}
	if t.Key.Kind == mapping {
		l.setup.calling = true
		return
	}
	if t.Check {
		l.loss.begin(now, l.config)
	}
	l.build.begins(t)
	if l.queue.where(t.Key) == unmapped {
		if l.probes.interval > 0 { // else it goes on with the round of a good one
			l.round = now
		}
		l.probes.later(now, l.config.ProbeMin, l.config.ProbeMax)
	}
	l.queue.enter(t.Key, sending)
}
