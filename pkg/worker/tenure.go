package worker

import (
	"sync/atomic"
	"time"
)

// tenure is how long a lease can be relied on by this process's own clocks.
// It is asked right before anything that must not happen later: a process that
// was stopped for a minute (a signal, a frozen container, a sleeping machine)
// goes on where it was, and nothing has told it yet that its partition may be
// another worker's.
type tenure struct {
	sending time.Duration // since the last renewal: a call that begins later might outlive the lease
	writing time.Duration // since the last renewal: the partition is dropped then
	renewed atomic.Pointer[time.Time]
	ceded   atomic.Bool
}

// newTenure is that of a lease which was asked for at the given time. No call
// may outlive the lease, however seldom that leaves time to begin one.
func newTenure(asked time.Time, ttl, call time.Duration) *tenure {
	t := &tenure{sending: ttl - call, writing: ttl - ttl/renewalsPerLease}
	t.renew(asked)
	return t
}

// renewalInterval is how often leases are renewed: so often that one renewal
// that fails loses no lease, and that there is always time to begin a call.
func renewalInterval(ttl, call time.Duration) time.Duration {
	every := ttl / renewalsPerLease
	if call < ttl {
		every = min(every, (ttl-call)/2)
	}
	return every
}

// renew starts the tenure anew with a renewal that was asked for at that time.
func (t *tenure) renew(asked time.Time) { t.renewed.Store(&asked) }

// ends is when the partition is to be dropped unless the lease is renewed.
func (t *tenure) ends() time.Time { return t.renewed.Load().Add(t.writing) }

// cede lets no further call begin, or lets them again: the partition is about to
// be handed over.
func (t *tenure) cede(ceded bool) { t.ceded.Store(ceded) }

// maySend says whether a call may begin now.
func (t *tenure) maySend() bool { return !t.ceded.Load() && t.age(time.Now()) < t.sending }

// mayWrite says whether the partition may be written to now.
func (t *tenure) mayWrite() bool { return t.age(time.Now()) < t.writing }

// age is the time since the last renewal. The monotonic clock stands still
// while a machine sleeps, and the wall clock can be set: the one that says
// that more time has passed is believed.
func (t *tenure) age(now time.Time) time.Duration {
	renewed := *t.renewed.Load()
	return max(now.Sub(renewed), now.Round(0).Sub(renewed.Round(0)))
}
