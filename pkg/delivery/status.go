package delivery

import (
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Status is what a lane is doing, for people.
type Status struct {
	Hold      ledger.HoldReason // "" when the lane sends
	Since     time.Time         // of the hold; zero: not known
	Message   string            // what the partner said when the hold began
	NextProbe time.Time         // of a held integration or an unmapped key; zero when none is planned
	Closed    time.Time         // the gate opens by itself then; zero when open
	Cause     Class             // Throttled, Unavailable or Flooded when closed
	Down      bool              // the server answers nobody, and is tried with one call now and then
	Sending   int               // calls under way
	Queued    int               // keys that wait for their turn or their time
	Recording int               // outcomes that wait to be recorded
	Waiting   int               // counts that wait for their account or service
	Unmapped  int               // keys held one by one
	Rate      float64           // calls per second allowed now; 0: no limit
}

// Status says what the lane is doing now.
func (l *Lane) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		Hold:      l.held(),
		Sending:   l.inflight,
		Queued:    l.queue.count[timed] + l.queue.count[ready],
		Recording: l.queue.count[recording],
		Waiting:   l.queue.count[waiting],
		Unmapped:  l.queue.count[unmapped],
		Rate:      l.pace.current,
		Down:      l.link.Host.Down(),
	}
	switch {
	case s.Hold == ledger.Paused:
		s.Since = l.paused
	case s.Hold == ledger.IntegrationNotReady && !l.link.Ready:
		s.Since = l.link.StatusSince
	}
	if s.Hold != "" && s.Hold == l.gate.hold {
		s.Since, s.Message = earliest(l.gate.since, s.Since, l.heldBefore()), l.gate.message
		if s.Hold != ledger.Unauthorized {
			s.NextProbe = l.gate.probes.next
		}
	}
	if s.Hold == "" && s.Unmapped > 0 {
		s.NextProbe = l.probes.next
	}
	if l.gate.closed.After(time.Now()) {
		s.Closed, s.Cause = l.gate.closed, l.gate.cause
	}
	return s
}

// heldBefore is since when the hold is known, from before this lane began; zero:
// it is not.
func (l *Lane) heldBefore() time.Time {
	if l.gate.hold == ledger.Unauthorized || l.gate.hold == ledger.Anomaly {
		return l.link.HoldSince
	}
	return time.Time{}
}

// earliest is the first of the times that are known.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// held is why the lane as a whole does not send, whatever the reason.
func (l *Lane) held() ledger.HoldReason {
	switch {
	case l.link.Partner == nil:
		return ledger.IntegrationNotReady
	case l.link.Paused:
		return ledger.Paused
	}
	return l.gate.hold
}
