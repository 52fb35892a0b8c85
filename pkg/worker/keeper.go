package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// keeper renews all leases of a worker, in one rhythm: an idle worker then
// wakes up seldom, and a log that syncs every write syncs many renewals at once.
type keeper struct {
	every time.Duration

	mu     sync.Mutex
	leases map[*keptLease]struct{}
}

// keptLease is a lease that is renewed until it is dropped or lost.
type keptLease struct {
	keeper *keeper
	tenure *tenure
	lost   func(error) // called once, when the lease is lost or about to end
	log    *slog.Logger

	using chan struct{} // has one token: a Lease serves one goroutine at a time
	lease Lease
	over  bool // dropped or lost
}

func newKeeper(every time.Duration) *keeper {
	return &keeper{every: every, leases: map[*keptLease]struct{}{}}
}

// keep renews the lease from now on.
func (k *keeper) keep(l Lease, t *tenure, lost func(error), log *slog.Logger) *keptLease {
	kept := &keptLease{keeper: k, tenure: t, lost: lost, log: log, using: make(chan struct{}, 1), lease: l}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leases[kept] = struct{}{}
	return kept
}

// run renews until ctx ends.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var renewing sync.WaitGroup
		for _, l := range k.all() {
			renewing.Go(func() { l.renew(ctx) })
		}
		renewing.Wait()
	}
}

func (k *keeper) all() []*keptLease {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]*keptLease, 0, len(k.leases))
	for l := range k.leases {
		list = append(list, l)
	}
	return list
}

// renew tries once. One attempt must not use up the time of the next.
func (l *keptLease) renew(ctx context.Context) {
	l.using <- struct{}{}
	defer l.leave()
	if l.over {
		return
	}
	asked := time.Now()
	attempt, cancel := context.WithTimeout(ctx, l.keeper.every)
	err := l.lease.Renew(attempt)
	cancel()
	switch {
	case err == nil:
		l.tenure.renew(asked)
		return
	case ctx.Err() != nil:
		return
	case !errors.Is(err, ErrLeased) && time.Now().Before(l.tenure.ends()):
		l.log.Warn("lease not renewed, trying again", "err", err)
		return
	}
	l.forget()
	l.lost(err)
}

// drop ends the renewals; the lease then ends by itself unless it is given back.
func (l *keptLease) drop() {
	l.using <- struct{}{}
	defer l.leave()
	l.forget()
}

// release ends the renewals and gives the lease back, unless a renewal takes
// longer than ctx lasts.
func (l *keptLease) release(ctx context.Context) error {
	select {
	case l.using <- struct{}{}:
		defer l.leave()
	case <-ctx.Done():
		return fmt.Errorf("wait for its renewal: %w", ctx.Err())
	}
	if l.over {
		return nil
	}
	l.forget()
	return l.lease.Release(ctx)
}

func (l *keptLease) leave() { <-l.using }

// forget is called while nobody else uses the lease.
func (l *keptLease) forget() {
	l.over = true
	l.keeper.mu.Lock()
	defer l.keeper.mu.Unlock()
	delete(l.keeper.leases, l)
}
