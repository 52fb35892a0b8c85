package delivery

import (
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// schedule is a probe schedule: when the next probe is due, at growing
// intervals.
type schedule struct {
	interval time.Duration
	next     time.Time
	missed   int // probes in a row that got no usable answer
}

// soon starts afresh with a probe at once.
func (s *schedule) soon(now time.Time) {
	*s = schedule{next: now}
}

// later puts the next probe one, grown, interval away.
func (s *schedule) later(now time.Time, least, most time.Duration) {
	s.interval = min(max(s.interval*2, least), most)
	s.next = now.Add(s.interval)
}

// again follows a probe that got no usable answer: it told nothing, so the
// interval does not grow, and the next one is as soon as any retry would be.
func (s *schedule) again(now, open time.Time, least, most time.Duration) {
	s.missed++
	s.interval /= 2
	next := now.Add(halfJitter(s.missed, least, most))
	if next.Before(open) {
		next = open
	}
	if next.Before(s.next) {
		s.next = next
	}
}

// gate is why a lane may not send for now. A hold is over when its cause is;
// a closed gate opens by itself at a known time.
type gate struct {
	hold    ledger.HoldReason // "" when there is none
	since   time.Time
	probes  schedule
	message string // what the partner said
	catalog bool   // an integration that is not ready refused an account or a service, too
	trial   bool   // we were told that the hold is over, and no answer has shown it yet

	closed time.Time  // no call before this time
	cause  Class      // Throttled, Unavailable or Flooded while closed matters
	failed ledger.Key // the last key whose call failed
	streak int        // calls in a row without a usable answer, for changing keys
	trips  int        // times the breaker closed the gate in a row
	waits  int        // times in a row that a 429 closed the gate
}

// set begins a hold. Several calls under way may each bring its reason: only
// the first one counts. The interval of the probes grows as they are made. Nothing that still arrives takes the place of
// bad credentials: only new ones end that hold, and until then there are no
// calls at all.
func (g *gate) set(reason ledger.HoldReason, message string, now time.Time, c Config) {
	if g.hold == ledger.Unauthorized || g.hold == reason {
		return
	}
	g.hold, g.since, g.message, g.catalog, g.probes = reason, now, message, false, schedule{}
	g.probes.later(now, c.ProbeMin, c.ProbeMax)
}

// lift ends the hold.
func (g *gate) lift() { g.hold, g.message, g.catalog = "", "", false }

// answered takes an answer that shows the partner to be there.
func (g *gate) answered() {
	g.failed = ledger.Key{}
	g.trial = false
	g.streak, g.trips, g.waits = 0, 0, 0
}

// fail takes a call without a usable answer. After several in a row the gate
// closes; when it opens again one call tries for all. One key that fails
// again and again has its own backoff, and is no reason to stop the others.
func (g *gate) fail(key ledger.Key, a Answer, now time.Time, c Config) {
	if g.trips == 0 && key == g.failed {
		return
	}
	g.failed = key
	g.streak++
	if g.streak < c.Breaker {
		return
	}
	wait := a.RetryAfter
	if !now.Before(g.closed) { // else the call was under way when it closed
		g.trips++
		wait = max(wait, halfJitter(g.trips, c.RetryMin, c.RetryMax))
	}
	g.close(now.Add(wait), Unavailable)
}

// throttle takes a 429, and says whether it is news: those that were under way
// when the gate closed say the same thing once more.
func (g *gate) throttle(a Answer, now time.Time, c Config) bool {
	fresh := g.cause != Throttled || !now.Before(g.closed)
	wait := a.RetryAfter
	if fresh {
		g.waits++
		if wait <= 0 {
			wait = halfJitter(g.waits, c.RetryMin, c.RetryMax)
		}
	}
	g.close(now.Add(wait), Throttled)
	return fresh
}

// close keeps the gate closed until the given time at least.
func (g *gate) close(until time.Time, cause Class) {
	if until.After(g.closed) {
		g.closed, g.cause = until, cause
	}
}

// width is how many calls may be under way.
func (g *gate) width(c Config) int {
	if g.trips > 0 || g.trial {
		return 1
	}
	return c.Concurrency
}
