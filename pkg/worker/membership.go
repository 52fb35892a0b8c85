package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
)

// complainEvery is how often a worker says that its name is taken.
const complainEvery = time.Minute

// join makes this worker a member whenever it is none, until ctx ends; then it
// resigns.
func (w *Worker) join(ctx context.Context) {
	if w.config.Backend.Member == nil {
		w.members.join(true)
		return
	}
	refused := refusals{worker: w}
	for ctx.Err() == nil {
		asked := time.Now()
		lease, err := w.config.Backend.Member(ctx)
		if err == nil {
			refused = refusals{worker: w}
			w.serve(ctx, lease, asked)
			continue
		}
		if ctx.Err() == nil {
			refused.add(err, asked)
		}
		pause(ctx, lookAround/2)
	}
}

// serve keeps the membership until it is lost or ctx ends.
func (w *Worker) serve(ctx context.Context, lease Lease, asked time.Time) {
	lost := make(chan error, 1)
	kept := w.keeper.keep(lease, newTenure(asked, w.config.LeaseTTL, 0), func(err error) { lost <- err }, w.log)
	w.setOutside(nil)
	w.members.join(true)
	select {
	case err := <-lost:
		w.members.join(false)
		w.log.Error("membership lost, joining again", "err", err)
	case <-ctx.Done():
		releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignGrace)
		defer cancel()
		if err := kept.release(releasing); err != nil {
			w.log.Warn("membership not given back; it ends by itself", "err", err)
		}
	}
}

// refusals are the attempts to join since the worker was a member last.
type refusals struct {
	worker *Worker
	first  time.Time // that the name was taken
	said   time.Time
}

// add says clearly what is wrong, now and then: a name is taken at first by a
// predecessor that died, and its lease ends by itself.
func (r *refusals) add(err error, now time.Time) {
	w := r.worker
	if !errors.Is(err, ErrLeased) {
		w.log.Warn("not joined the other workers, trying again", "err", err)
		w.setOutside(fmt.Errorf("join the other workers: %w", err))
		return
	}
	w.setOutside(fmt.Errorf("another worker named %s is alive: each needs a name of its own: %w", w.config.ID, err))
	if r.first.IsZero() {
		r.first, r.said = now, now
		w.log.Warn("another worker has this one's name: waiting for its lease to end, if it was this one's predecessor", "err", err)
	}
	if now.Sub(r.first) > w.config.LeaseTTL && (r.first.Equal(r.said) || now.Sub(r.said) >= complainEvery) {
		r.said = now
		w.log.Error("another worker that is alive has this one's name: this one does nothing until it has a name of its own", "err", err)
	}
}

func (w *Worker) setOutside(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outside = err
}

// watch keeps the view of all leases up to date until ctx ends.
func (w *Worker) watch(ctx context.Context) {
	if w.config.Backend.Watch == nil {
		w.members.Complete()
		return
	}
	for ctx.Err() == nil {
		err := w.config.Backend.Watch(ctx, w.members)
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("leases are not watched, trying again", "err", err)
		pause(ctx, lookAround/2)
	}
}

// Of a hand-over.
const (
	// quietLook is how often a partition looks whether its calls have ended.
	quietLook = 20 * time.Millisecond
	// quickCalls is how long the calls of an integration take at most that goes on
	// while the partition waits for a slow one.
	quickCalls = 300 * time.Millisecond
)

// quiesce waits until no call is under way and no further one begins, while
// events are still folded: then the partition can be handed over, and no call is
// cut off. An integration whose calls take long keeps the others waiting only for
// as long as theirs take. It returns when owning or fenced ends, or when no call
// can last longer.
func (p *partition) quiesce(owning, fenced context.Context) {
	if owning.Err() != nil {
		return
	}
	limit, cancel := context.WithTimeout(owning, p.config.CallTimeout+quickCalls)
	defer cancel()
	unlink := context.AfterFunc(fenced, cancel)
	defer unlink()
	slow := map[string]bool{}
	for {
		p.tenure.cede(true)
		busy := p.quieten(limit, quickCalls, p.sending)
		if len(busy) == 0 || limit.Err() != nil {
			return
		}
		maps.Copy(busy, slow)
		slow = busy
		p.slow.Store(&slow)
		p.tenure.cede(false)
		p.quieten(limit, p.config.CallTimeout-2*quickCalls, func() map[string]bool {
			now := p.sending()
			maps.DeleteFunc(now, func(organization string, _ bool) bool { return !slow[organization] })
			return now
		})
	}
}

// quieten waits, at most so long, until no integration has calls under way, and
// says which ones still have.
func (p *partition) quieten(ctx context.Context, most time.Duration, sending func() map[string]bool) map[string]bool {
	for until := time.Now().Add(most); ; pause(ctx, quietLook) {
		if busy := sending(); len(busy) == 0 || ctx.Err() != nil || !time.Now().Before(until) {
			return busy
		}
	}
}

// sending has the integrations with calls under way.
func (p *partition) sending() map[string]bool {
	busy := map[string]bool{}
	p.eachLane(func(organization string, s delivery.Status) {
		if s.Sending > 0 {
			busy[organization] = true
		}
	})
	return busy
}

// maySend says whether a call of the organization may begin now.
func (p *partition) maySend(organization string) bool {
	if slow := p.slow.Load(); slow != nil && (*slow)[organization] {
		return false
	}
	return p.tenure.maySend() && !p.lag.waits(time.Now())
}
