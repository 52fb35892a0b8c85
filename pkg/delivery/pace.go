package delivery

import (
	"time"

	"golang.org/x/time/rate"
)

// Bounds of the pace after the partner has said "too fast".
const (
	paceFloor   = 0.5             // calls per second
	paceUnknown = 50              // the least to start from when no limit was set
	paceRecover = 5 * time.Second // each such time without a 429 ...
	paceStep    = 0.1             // ... gives back this share of the full rate
)

// pace spreads the calls of one lane evenly: in no second do more go out than
// the rate. After a 429 the rate halves, and comes back in small steps.
type pace struct {
	full    float64 // configured rate; 0: no limit
	current float64 // 0: no limit
	changed time.Time
	limiter *rate.Limiter // nil: no limit

	// What goes out while nothing limits it, to know what was too fast.
	second   time.Time // when the second that is being counted began
	calls    int       // since then
	observed float64   // calls per second, of the second before
}

func newPace(perSecond float64) *pace {
	p := &pace{full: max(perSecond, 0)}
	p.set(p.full, time.Now())
	return p
}

func (p *pace) set(perSecond float64, now time.Time) {
	p.current = perSecond
	if perSecond <= 0 {
		p.limiter = nil
		return
	}
	// Above 100 calls a second the runtime's timers are too coarse for one
	// call at a time: 10 ms worth of calls may go together. What a burst can
	// add within a second is taken off the rate.
	burst := max(1, int(perSecond/100))
	limit := rate.Limit(perSecond - float64(burst-1))
	if p.limiter == nil {
		p.limiter = rate.NewLimiter(limit, burst)
		return
	}
	p.limiter.SetLimitAt(now, limit)
	p.limiter.SetBurstAt(now, burst)
}

// wait says how long to wait for the right to make one call; 0: it is there.
func (p *pace) wait(now time.Time) time.Duration {
	p.recover(now)
	if p.limiter == nil {
		return 0
	}
	// Not Reserve: that rounds the wait down to a nanosecond, and the eighth
	// call at seven a second would fall into the first second.
	missing := 1 - p.limiter.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing/float64(p.limiter.Limit())*float64(time.Second)) + 1
}

// take takes the right to make one call, for which nobody has to wait now.
func (p *pace) take(now time.Time) {
	if p.limiter == nil {
		p.observe(now)
		return
	}
	p.limiter.AllowN(now, 1)
}

func (p *pace) observe(now time.Time) {
	if passed := now.Sub(p.second); passed >= time.Second {
		p.observed = float64(p.calls) / passed.Seconds()
		p.second, p.calls = now, 0
	}
	p.calls++
}

// target is the rate to come back to: the configured one, or without any
// what went out before it was too fast.
func (p *pace) target() float64 {
	if p.full > 0 {
		return p.full
	}
	return max(p.observed, float64(p.calls), paceUnknown)
}

// slow halves the rate: the partner said that it is too high.
func (p *pace) slow(now time.Time) {
	from := p.current
	if from <= 0 {
		from = p.target()
	}
	floor := float64(paceFloor)
	if p.full > 0 {
		floor = min(floor, p.full) // never faster than configured
	}
	p.changed = now
	p.set(max(from/2, floor), now)
}

func (p *pace) recover(now time.Time) {
	if p.current == p.full || now.Sub(p.changed) < paceRecover {
		return
	}
	target := p.target()
	p.changed = now
	next := p.current + target*paceStep
	if next >= target {
		next = p.full
	}
	p.set(next, now)
}
