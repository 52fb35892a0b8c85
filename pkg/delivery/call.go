package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// call makes one call and hands on what became of it.
func (l *Lane) call(ctx context.Context, t turn) {
	first := t.tasks[0]
	calling, ended := l.trace(ctx, t.tasks)
	a, sight, made := l.send(calling, t)
	t.leave(a)
	o := Outcome{Task: first, Answer: a, Verdict: Judge(first, a, l.config.Attempts)}
	if len(t.tasks) > 1 && a.Class == Rejected {
		o.Verdict = Verdict{Ruling: Split}
	}
	traceID := ""
	if made {
		traceID = ended(o)
	}
	now := time.Now()
	if o.Verdict.Ruling == Retry || len(t.tasks) > 1 {
		o.Due = now.Add(max(fullJitter(first.Attempt, l.config.RetryMin, l.config.RetryMax), a.RetryAfter))
	}
	l.mu.Lock()
	l.inflight--
	if made && o.Verdict.Ruling == NotCounted {
		l.cut++
	}
	a = l.heeded(t, a)
	news := l.adapt(o, t, now)
	if first.List && o.Verdict.Ruling == Delivered && t.epoch == l.epoch && l.saw(sight, t.look, now) {
		news = append(news, Lost)
	}
	outcomes := l.outcomes(t, o)
	able := l.unable
	earlier, told := l.announces(news)
	l.mu.Unlock()
	defer told()
	l.nudge()
	l.metrics.called(l.vendor, o, able, t.counted, traceID)
	l.report(o, len(t.tasks))
	// The outcomes first: the keeper of the status may take its time.
	if o.Verdict.Ruling != NotCounted {
		for _, o := range outcomes {
			l.book.Settle(o)
		}
	}
	if len(news) > 0 {
		<-earlier
		l.tell(ctx, t, a, news)
	}
}

// tell tells the keeper of the status what an answer says.
func (l *Lane) tell(ctx context.Context, t turn, a Answer, news []Class) {
	for _, class := range news {
		l.signal(ctx, Signal{
			Organization: l.organization, Class: class, Operation: t.tasks[0].Operation(),
			Generation: t.tasks[0].Generation, Credentials: t.link.Credentials, Answer: a,
		})
	}
}

// heeded is the answer without a word on the status that may be older than what a
// count has proved meanwhile.
func (l *Lane) heeded(t turn, a Answer) Answer {
	if t.proven != l.proven && t.tasks[0].Key.Kind == mapping && !t.tasks[0].Read {
		a.Observed = ""
	}
	return a
}

// announces queues for the keeper of the status: it hears of answers in the order
// in which they came, however long it takes for each. earlier is closed when it has
// heard of those before; told is to be called in the end.
func (l *Lane) announces(news []Class) (earlier <-chan struct{}, told func()) {
	if len(news) == 0 {
		return nil, func() {}
	}
	before, after := l.told, make(chan struct{})
	l.told = after
	return before, func() { close(after) }
}

// outcomes puts the keys of a call that is over where they wait for its
// record, and makes the outcome of each.
func (l *Lane) outcomes(t turn, o Outcome) []Outcome {
	outcomes := make([]Outcome, len(t.tasks))
	for i, task := range t.tasks {
		outcomes[i] = o
		outcomes[i].Task = task
		if len(t.tasks) > 1 && o.Verdict.Ruling != Split { // each has a budget of its own
			outcomes[i].Verdict = Judge(task, o.Answer, l.config.Attempts)
		}
		switch {
		case task.Key.Kind == mapping:
			if !task.Read {
				outcomes[i].Due = l.setup.next
			}
		case o.Verdict.Ruling == NotCounted:
			l.queue.drop(task.Key)
			l.place(task.Key)
		default:
			if o.Verdict.Ruling == Split {
				l.alone[task.Key] = true
			}
			l.queue.enter(task.Key, recording)
		}
	}
	return outcomes
}

// send makes the call, if it may still be made: the process may have been
// stopped since its turn came, and be behind its time.
func (l *Lane) send(ctx context.Context, t turn) (a Answer, s Sight, made bool) {
	task := t.tasks[0]
	switch {
	case !l.may():
		return Answer{Class: Stopped, At: time.Now()}, s, false
	case task.List:
		s, a = t.link.Reader.ReadAccounts(ctx, t.status)
	case task.Read:
		a = t.link.Reader.ReadStatus(ctx)
	case task.Key.Kind == mapping:
		a = t.link.Partner.SetMapping(ctx)
	case len(t.tasks) > 1:
		a = t.link.Bulk.SendAccounts(ctx, t.tasks)
	default:
		a = t.link.Partner.Send(ctx, task)
	}
	if a.Class == Stopped && ctx.Err() == nil {
		a.Class = Unavailable // it was not us: without a backoff it would be made again at once
	}
	return a, s, true
}

// adapt changes gate and pace by what the answer says, and tells what the
// keeper of the status must hear. A stale answer is one to a call that began
// under a former link: it says nothing of the integration as it is now.
func (l *Lane) adapt(o Outcome, t turn, now time.Time) (news []Class) {
	lost := l.over(o, t, now)
	l.regulate(o, now)
	if o.Verdict.Ruling == Dead && o.Answer.Class == Rejected && l.floods(now) {
		news = append(news, Flooded)
	}
	if t.epoch != l.epoch && !l.provesStill(o, t) {
		return news
	}
	if l.learn(o, t, now) {
		news = append(news, o.Answer.Class)
	}
	if lost {
		news = append(news, Lost)
	}
	return news
}

// provesStill says that the answer proves as much under the link of now: a count
// that the partner took while it was recorded that the mapping is open, or that the
// integration is ready. It may be the last one for days, and nothing else would say
// that the integration is connected.
func (l *Lane) provesStill(o Outcome, t turn) bool {
	same := t.link.Credentials == l.link.Credentials && t.link.Generation == l.link.Generation
	return same && !l.link.Setup && o.Verdict.Ruling == Delivered && o.Task.Key.Kind == ledger.Count
}

// regulate changes gate and pace by what the answer says of the partner.
func (l *Lane) regulate(o Outcome, now time.Time) {
	switch o.Verdict.Ruling {
	case Delivered, HoldLane, HoldKey:
		l.gate.answered()
	case Wait:
		if l.gate.throttle(o.Answer, now, l.config) {
			l.pace.slow(now)
		}
	case Dead, Retry, Split, Unanswered:
		switch o.Answer.Class {
		case Rejected:
			l.gate.answered()
		case NotReady, NotFound, Suspected: // to a question
		default:
			l.gate.fail(o.Task.Key, o.Answer, now, l.config)
		}
	case NotCounted:
	}
	if o.Task.Probe && (o.Verdict.Ruling == Unanswered || o.Verdict.Ruling == Wait) {
		l.probeAgain(now)
	}
}

// learn takes what the answer says of the integration, and says whether the
// keeper of the status must hear of it.
func (l *Lane) learn(o Outcome, t turn, now time.Time) (tell bool) {
	switch o.Verdict.Ruling {
	case Delivered:
		return l.accepted(o.Task, now)
	case HoldLane:
		if o.Verdict.Hold == ledger.IntegrationNotReady && t.proven != l.proven {
			return false // the partner has opened meanwhile: the key is tried again
		}
		l.hold(o, now)
		return true
	case HoldKey:
		tell = l.dealtWith(now)
		l.notFound(o.Task, now)
		return tell
	case Dead, Retry, Split, Unanswered, Wait, NotCounted:
	}
	return false
}

// over ends what the call was for, and says whether it has shown that the
// partner lost what it had.
func (l *Lane) over(o Outcome, t turn, now time.Time) (lost bool) {
	switch {
	case o.Task.Read:
		if t.epoch == l.epoch {
			l.looked(o, now)
		} else {
			l.look.calling, l.look.list, l.look.wanted = false, false, true // it begins anew
		}
	case o.Task.Key.Kind == mapping:
		l.adaptSetup(o, now, t.epoch != l.epoch)
	case o.Task.Check:
		return l.checked(o)
	case o.Task.Key.Kind == ledger.Count:
		l.build.ends(o, t.build)
	}
	return false
}

// tries is how many counts in a row may turn out not to be mapped, while the
// integration is taken to be not ready, until the next is left to a later
// probe: the person may be done, and have left these out.
const tries = 50

// notFound takes a count whose account or service is not mapped.
func (l *Lane) notFound(t Task, now time.Time) {
	l.suspects(t, now)
	if l.gate.hold != ledger.IntegrationNotReady {
		return
	}
	if l.misses++; l.misses <= tries {
		l.gate.probes.interval /= 2 // which the probe has doubled
		l.gate.probes.next = now
	}
}

// floodPause is how long a lane that asks to be paused waits for that, before
// it goes on and asks again.
const floodPause = time.Minute

// floods counts a figure that was refused for good, and says whether there
// were too many in a row.
func (l *Lane) floods(now time.Time) bool {
	if l.refused++; l.config.Flood < 0 || l.refused < l.config.Flood {
		return false
	}
	if l.refused == l.config.Flood {
		l.metrics.floods.WithLabelValues(l.vendor).Inc()
	}
	l.gate.close(now.Add(floodPause), Flooded)
	return true
}

// probeAgain plans another probe in place of one that told nothing.
func (l *Lane) probeAgain(now time.Time) {
	probes := &l.probes
	if l.gate.hold != "" {
		probes = &l.gate.probes
	}
	probes.again(now, l.gate.closed, l.config.RetryMin, l.config.RetryMax)
}

// hold begins the hold that the answer asks for. The keeper of the status hears
// of each such answer, because it may have missed the one before.
func (l *Lane) hold(o Outcome, now time.Time) {
	l.gate.probes.missed = 0
	l.gate.set(o.Verdict.Hold, o.Answer.Message, now, l.config)
	if kind := o.Task.Key.Kind; kind == ledger.Account || kind == ledger.Service {
		l.gate.catalog = true
	}
}

// accepted lifts the holds that an accepted call disproves.
func (l *Lane) accepted(t Task, now time.Time) (signal bool) {
	if t.Read {
		// The status is known with the accounts, unless a call has proved a
		// later one since it was read.
		return t.List && l.look.proven == l.proven
	}
	l.refused = 0
	if k := t.Key.Kind; k == mapping || k == ledger.Count {
		l.proven++
	}
	signal = l.dealtWith(now)
	switch t.Key.Kind {
	case ledger.Count:
		l.misses = 0
		if l.gate.hold == ledger.IntegrationNotReady {
			l.lift(now)
		}
		if t.Probe {
			l.mapped(t.Key, now)
		}
		return signal || !l.link.Connected
	case ledger.Account, ledger.Service:
		l.gate.catalog = false
		if !l.has(t.Key) && l.link.Ready {
			l.tryUnmapped(now) // whoever maps the new one may map more
		}
		return signal
	case ledger.Scope, ledger.Backfill: // are never sent
	}
	return true // the mapping is open
}

// dealtWith lifts a suspicion: the partner deals with the integration again,
// whatever it says of the one count. It says whether there was one.
func (l *Lane) dealtWith(now time.Time) (lifted bool) {
	if l.gate.hold != ledger.Anomaly {
		return false
	}
	l.lift(now)
	l.expectNotReady(now)
	return true
}

// mapped follows up on a count that was not mapped before and now is: so may
// be those that share its account or its service, and the next probe tries
// another one at once. What was tried since the probe began is left alone, so
// that one round tries every key at most once.
func (l *Lane) mapped(key ledger.Key, now time.Time) {
	l.probes.soon(now)
	l.queue.releaseUnmapped(l.round, func(other ledger.Key) bool {
		if l.unmappedAsRead(other) {
			return false // the next look will tell
		}
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
func (l *Lane) report(o Outcome, keys int) {
	level := slog.LevelInfo
	switch o.Verdict.Ruling {
	case NotCounted:
		level = slog.LevelDebug
	case HoldLane, Dead:
		level = slog.LevelWarn
	case Delivered, Retry, HoldKey, Wait, Unanswered, Split:
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
	if keys > 1 {
		attributes = append(attributes, slog.Int("keys", keys))
	}
	if reason := string(o.Verdict.Hold) + string(o.Verdict.Dead); reason != "" {
		attributes = append(attributes, slog.String("reason", reason))
	}
	if o.Answer.Class != Accepted {
		attributes = append(attributes, slog.String("answer", o.Answer.Message))
	}
	l.log.LogAttrs(context.Background(), level, "partner called", attributes...)
}
