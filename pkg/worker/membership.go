package worker

import (
	"context"
	"errors"
	"fmt"
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

// quietLook is how often a partition that is to be handed over looks whether
// its calls have ended.
const quietLook = 20 * time.Millisecond

// quiesce begins no further call and waits for those under way, while events
// are still folded: with a slow partner the partition pauses no longer than it
// takes to hand it over, and no call is cut off. It returns at once when owning
// or fenced ends.
func (p *partition) quiesce(owning, fenced context.Context) {
	if owning.Err() != nil {
		return
	}
	p.tenure.cede()
	limit, cancel := context.WithTimeout(owning, p.config.CallTimeout)
	defer cancel()
	unlink := context.AfterFunc(fenced, cancel)
	defer unlink()
	for limit.Err() == nil && p.sending() > 0 {
		pause(limit, quietLook)
	}
}

// sending is how many calls are under way.
func (p *partition) sending() (n int) {
	p.eachLane(func(_ string, s delivery.Status) { n += s.Sending })
	return n
}
