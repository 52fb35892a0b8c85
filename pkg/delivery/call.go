package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// call makes one call and hands on what became of it.
func (l *Lane) call(ctx context.Context, t turn) {
	a, made := l.send(ctx, t)
	o := Outcome{Task: t.task, Answer: a, Verdict: Judge(t.task, a, l.config.Attempts)}
	now := time.Now()
	if o.Verdict.Ruling == Retry {
		o.Due = now.Add(max(fullJitter(t.task.Attempt, l.config.RetryMin, l.config.RetryMax), a.RetryAfter))
	}
	l.mu.Lock()
	l.inflight--
	if made && o.Verdict.Ruling == NotCounted {
		l.cut++
	}
	signal := l.adapt(o, now, t.epoch != l.epoch)
	switch {
	case t.task.Key.Kind == mapping:
		o.Due = l.setup.next
	case o.Verdict.Ruling == NotCounted:
		l.queue.drop(t.task.Key)
		l.place(t.task.Key)
	default:
		l.queue.enter(t.task.Key, recording)
	}
	l.mu.Unlock()
	l.nudge()
	l.metrics.called(l.vendor, o)
	l.report(o)
	// The outcome first: the keeper of the status may take its time.
	if o.Verdict.Ruling != NotCounted {
		l.book.Settle(o)
	}
	if signal {
		l.signal(ctx, Signal{Organization: l.organization, Class: a.Class, Operation: t.task.Operation(), Answer: a})
	}
}

// send makes the call, if it may still be made: the process may have been
// stopped since its turn came, and be behind its time.
func (l *Lane) send(ctx context.Context, t turn) (a Answer, made bool) {
	switch {
	case !l.may():
		return Answer{Class: Stopped, At: time.Now()}, false
	case t.task.Key.Kind == mapping:
		a = t.partner.SetMapping(ctx)
	default:
		a = t.partner.Send(ctx, t.task)
	}
	if a.Class == Stopped && ctx.Err() == nil {
		a.Class = Unavailable // it was not us: without a backoff it would be made again at once
	}
	return a, true
}

// adapt changes gate and pace by what the answer says, and tells whether the
// keeper of the status must hear of it. A stale answer is one to a call that
// began under a former link: it says nothing of the integration as it is now.
func (l *Lane) adapt(o Outcome, now time.Time, stale bool) (signal bool) {
	if o.Task.Key.Kind == mapping {
		l.adaptSetup(o, now, stale)
	}
	switch o.Verdict.Ruling {
	case Delivered:
		l.gate.answered()
		return !stale && l.accepted(o.Task, now)
	case HoldLane:
		l.gate.answered()
		return !stale && l.hold(o, now)
	case HoldKey:
		l.gate.answered()
	case Wait:
		if l.gate.throttle(o.Answer, now, l.config) {
			l.pace.slow(now)
		}
	case Retry, Dead:
		if o.Answer.Class == Rejected {
			l.gate.answered()
		} else {
			l.gate.fail(o.Task.Key, o.Answer, now, l.config)
		}
	case Unanswered:
		l.gate.fail(o.Task.Key, o.Answer, now, l.config)
	case NotCounted:
	}
	if o.Task.Probe && (o.Verdict.Ruling == Unanswered || o.Verdict.Ruling == Wait) {
		l.probeAgain(now)
	}
	return false
}

// probeAgain plans another probe in place of one that told nothing.
func (l *Lane) probeAgain(now time.Time) {
	probes := &l.probes
	if l.gate.hold != "" {
		probes = &l.gate.probes
	}
	probes.again(now, l.gate.closed, l.config.RetryMin, l.config.RetryMax)
}

// hold begins the hold that the answer asks for, and says whether it is news.
func (l *Lane) hold(o Outcome, now time.Time) bool {
	l.gate.probes.missed = 0
	fresh := l.gate.set(o.Verdict.Hold, o.Answer.Message, now, l.config)
	if kind := o.Task.Key.Kind; kind == ledger.Account || kind == ledger.Service {
		l.gate.catalog = true
	}
	return fresh
}

// accepted lifts the holds that an accepted call disproves.
func (l *Lane) accepted(t Task, now time.Time) (signal bool) {
	if l.gate.hold == ledger.Anomaly {
		l.gate.lift()
		l.expectNotReady(now)
	}
	switch t.Key.Kind {
	case ledger.Count:
		if l.gate.hold == ledger.IntegrationNotReady {
			l.gate.lift()
		}
		if t.Probe {
			l.mapped(t.Key, now)
		}
		return !l.link.Connected
	case ledger.Account, ledger.Service:
		l.gate.catalog = false
		if !l.posted[t.Key] && l.link.Ready {
			l.tryUnmapped(now) // whoever maps the new one may map more
		}
		return false
	}
	return true // the mapping is open
}

// mapped follows up on a count that was not mapped before and now is: so may
// be those that share its account or its service, and the next probe tries
// another one at once. What was tried since the probe began is left alone, so
// that one round tries every key at most once.
func (l *Lane) mapped(key ledger.Key, now time.Time) {
	l.probes.soon(now)
	l.queue.releaseUnmapped(l.round, func(other ledger.Key) bool {
		return other.Account == key.Account || other.Service == key.Service
	})
}

// adaptSetup plans the next try of the call that opens the mapping: soon when
// there was no usable answer, at the pace of probes when the partner refused.
func (l *Lane) adaptSetup(o Outcome, now time.Time, stale bool) {
	l.setup.calling = false
	if stale {
		return
	}
	least, most := l.config.RetryMin, l.config.RetryMax
	switch {
	case o.Verdict.Ruling == Delivered:
		l.setup = setup{done: true}
		return
	case o.Verdict.Ruling == NotCounted:
		return
	case o.Verdict.Ruling == HoldLane, o.Answer.Class == Rejected:
		least, most = l.config.ProbeMin, l.config.ProbeMax
	}
	l.setup.failures++
	l.setup.next = now.Add(max(halfJitter(l.setup.failures, least, most), o.Answer.RetryAfter))
}

// report writes the one line of the log that a call gets.
func (l *Lane) report(o Outcome) {
	level := slog.LevelInfo
	switch o.Verdict.Ruling {
	case NotCounted:
		level = slog.LevelDebug
	case HoldLane, Dead:
		level = slog.LevelWarn
	case Delivered, Retry, HoldKey, Wait, Unanswered:
	}
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	attributes := []slog.Attr{
		slog.String("operation", o.Task.Operation()),
		slog.String("account", o.Task.Key.Account),
		slog.String("service", o.Task.Key.Service),
		slog.Int("attempt", o.Task.Attempt),
		slog.String("verdict", string(o.Verdict.Ruling)),
		slog.Int("http_status", o.Answer.Status),
		slog.Float64("duration_seconds", o.Answer.Duration.Seconds()),
	}
	if reason := string(o.Verdict.Hold) + string(o.Verdict.Dead); reason != "" {
		attributes = append(attributes, slog.String("reason", reason))
	}
	if o.Answer.Class != Accepted {
		attributes = append(attributes, slog.String("answer", o.Answer.Message))
	}
	l.log.LogAttrs(context.Background(), level, "partner called", attributes...)
}
