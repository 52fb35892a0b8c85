package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/usagebridge/usagebridge/pkg/worker"
)

// fakeLeases are the leases of all workers of a world. They are guarded by the
// world's lock.
type fakeLeases struct {
	w     *world
	held  map[worker.Claim]*fakeLease // a partition's claim names no worker here
	views map[worker.View]string      // the worker that has it
	deaf  map[string]bool             // workers that nothing reaches any longer
	told  []string                    // "w1 took 3", "w1 left 3", in the order in which it happened
}

// fakeLease is the right of one worker, until its timer ends it.
type fakeLease struct {
	leases *fakeLeases
	key    worker.Claim
	worker string
	ends   *time.Timer
}

var errNoAnswer = errors.New("no answer")

// serve gives the worker, whatever its name will be, leases of this world.
func (l *fakeLeases) serve(c *worker.Config) {
	c.Backend.Lease = func(_ context.Context, vendor string, partition int) (worker.Lease, error) {
		return l.take(c.ID, worker.Claim{Vendor: vendor, Partition: partition})
	}
	c.Backend.Member = func(context.Context) (worker.Lease, error) { return l.take(c.ID, worker.Claim{Worker: c.ID}) }
	c.Backend.Watch = func(ctx context.Context, view worker.View) error { return l.watch(ctx, c.ID, view) }
}

func (l *fakeLeases) take(id string, key worker.Claim) (worker.Lease, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.deaf[id] {
		return nil, errNoAnswer
	}
	if other := l.held[key]; other != nil {
		return nil, fmt.Errorf("%w: %s", worker.ErrLeased, other.worker)
	}
	f := &fakeLease{leases: l, key: key, worker: id}
	f.ends = time.AfterFunc(leaseTTL, func() {
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		l.drop(f)
	})
	l.held[key] = f
	l.tell(f, true)
	if key.Vendor != "" {
		l.told = append(l.told, fmt.Sprintf("%s took %d", id, key.Partition))
	}
	return f, nil
}

// drop ends a lease that has not ended yet; the lock is held.
func (l *fakeLeases) drop(f *fakeLease) {
	if l.held[f.key] != f {
		return
	}
	delete(l.held, f.key)
	f.ends.Stop()
	l.tell(f, false)
	if f.key.Vendor != "" {
		l.told = append(l.told, fmt.Sprintf("%s left %d", f.worker, f.key.Partition))
	}
}

// tell shows a lease to all who watch; the lock is held.
func (l *fakeLeases) tell(f *fakeLease, held bool) {
	c := f.key
	c.Worker = f.worker
	for view, id := range l.views {
		switch {
		case l.deaf[id]:
		case held:
			view.Held(c)
		default:
			view.Gone(c)
		}
	}
}

func (l *fakeLeases) watch(ctx context.Context, id string, view worker.View) error {
	l.w.mu.Lock()
	for key, f := range l.held {
		key.Worker = f.worker
		view.Held(key)
	}
	view.Complete()
	l.views[view] = id
	l.w.mu.Unlock()
	<-ctx.Done()
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	delete(l.views, view)
	return ctx.Err()
}

// Renew fails as the world is told.
func (f *fakeLease) Renew(ctx context.Context) error {
	l := f.leases
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	switch err := l.w.renewErr; {
	case ctx.Err() != nil:
		return ctx.Err()
	case l.deaf[f.worker]:
		return errNoAnswer
	case l.held[f.key] != f:
		return worker.ErrLeased
	case f.key.Vendor != "" && err != nil:
		if errors.Is(err, worker.ErrLeased) {
			l.drop(f)
		}
		return err
	}
	f.ends.Reset(leaseTTL)
	l.tell(f, true)
	return nil
}

// Release gives the lease back.
func (f *fakeLease) Release(context.Context) error {
	l := f.leases
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.deaf[f.worker] {
		return errNoAnswer
	}
	if f.key.Vendor != "" {
		l.w.releases++
	}
	l.drop(f)
	return nil
}

// cutOff lets nothing reach the worker any longer, or reach it again.
func (l *fakeLeases) cutOff(id string, is bool) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.deaf[id] = is
}

// owners is who has each partition.
func (l *fakeLeases) owners() map[int]string {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	owners := map[int]string{}
	for key, f := range l.held {
		if key.Vendor != "" {
			owners[key.Partition] = f.worker
		}
	}
	return owners
}

// load is how many partitions each worker has.
func (l *fakeLeases) load() map[string]int {
	load := map[string]int{}
	for id := range maps.Values(l.owners()) {
		load[id]++
	}
	return load
}
