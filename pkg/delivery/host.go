package delivery

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// HostConfig bounds what goes to one server, whatever integration it is for.
type HostConfig struct {
	// Rate is the calls per second to the server; 0: no limit.
	Rate float64
	// Breaker is how many calls in a row may get no usable answer, whatever
	// integration they are for, before nobody calls for a while (default 20).
	Breaker int
	// Open is how long that while is; then one call tries for all (default 10 s).
	Open time.Duration
}

// Host is what the lanes of all integrations on one server share: a limit,
// which they get in turn so that a lane with 100,000 keys takes no more of it
// than one with three, and a breaker, which spares a server that is down the
// tries of a thousand lanes.
type Host struct {
	limiter *rate.Limiter // nil: no limit
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	open    time.Duration
}

var (
	errUnusable = errors.New("no usable answer")
	errNoNews   = errors.New("says nothing of the server")
)

// NewHost makes the shared part of the lanes of one server.
func NewHost(c HostConfig) *Host {
	setDefault(&c.Breaker, 20)
	setDefault(&c.Open, 10*time.Second)
	h := &Host{open: c.Open}
	if c.Rate > 0 {
		burst := max(1, int(c.Rate/100)) // as for a lane's pace
		h.limiter = rate.NewLimiter(rate.Limit(c.Rate-float64(burst-1)), burst)
	}
	h.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     c.Open,
		ReadyToTrip: func(n gobreaker.Counts) bool { return int64(n.ConsecutiveFailures) >= int64(c.Breaker) },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNoNews) },
	})
	return h
}

// Down says whether the breaker keeps calls from the server now.
func (h *Host) Down() bool { return h != nil && h.breaker.State() != gobreaker.StateClosed }

// slotKept is how long a slot may be used after its time: a lane that had
// something else to wait for must not save up what others could have used.
const slotKept = time.Second

// slot is the next time at which the server may be called. Whoever holds a
// slot asks for no other: so everybody gets the same share.
func (h *Host) slot(now time.Time) time.Time {
	if h.limiter == nil {
		return now
	}
	wait := h.limiter.ReserveN(now, 1).DelayFrom(now)
	if wait > 0 {
		wait++ // it is rounded down, and must not be too early
	}
	return now.Add(wait)
}

// crowded is how long a lane waits while another one's call tries for all.
const crowded = 500 * time.Millisecond

// enter lets a call begin, or says how long to wait. leave is to be called
// with its answer.
func (h *Host) enter() (leave func(Answer), wait time.Duration) {
	done, err := h.breaker.Allow()
	switch {
	case errors.Is(err, gobreaker.ErrOpenState):
		return nil, min(h.open, crowded)
	case err != nil:
		return nil, crowded
	}
	return func(a Answer) {
		switch a.Class {
		case Unavailable:
			done(errUnusable)
		case Stopped:
			done(errNoNews)
		default:
			done(nil)
		}
	}, 0
}
