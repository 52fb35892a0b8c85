package worker_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// client is an organization, as the partner has it, and what people have done
// to its integration.
type client struct {
	organization string

	mu      sync.Mutex
	mood    string // of the partner
	chance  float64
	valid   int // the credentials that the partner takes
	had     map[ledger.Key]bool
	tape    map[ledger.Key][]taken // of counts
	failed  map[ledger.Key]int     // answers that say nothing, or to try again
	refused map[ledger.Key]int     // answers that say never

	credentials  int // the ones that we have
	paused       bool
	pausedAt     time.Time
	unauthorized bool
	markedAt     time.Time
}

// taken is a count that the partner took.
type taken struct {
	units  int64
	at     time.Time
	worker string
}

// Moods of the partner.
const (
	kind     = ""
	down     = "503"
	resets   = "reset after acceptance"
	unmapped = "404"
	notReady = "409"
	throttle = "429"
	rejects  = "422"
	suspects = "403"
	slow     = "slow"
)

// counter is the partner as one worker reaches it, with the credentials of
// one organization.
type counter struct {
	line        *line
	client      *client
	credentials int
}

func (f *fleet) link(l *line, c *client) delivery.Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return delivery.Link{
		Partner: &counter{l, c, c.credentials}, Ready: true, Connected: true, Paused: c.paused,
		Unauthorized: c.unauthorized, Credentials: fmt.Sprint("c", c.credentials),
	}
}

// Send makes a call: it is on its way for a while, arrives whatever becomes of
// the worker, and its answer comes when the worker can hear it.
func (c *counter) Send(ctx context.Context, task delivery.Task) delivery.Answer {
	if c.line.frozen() || !c.line.alive() {
		// A process that is stopped does not begin a call, and one that goes on
		// asks first whether it still may: this one was never made.
		_ = c.line.there()
		c.client.count(task, delivery.Unavailable)
		return delivery.Answer{Class: delivery.Unavailable, At: time.Now()}
	}
	c.line.f.checkGate(c, task)
	there, back := c.client.way(c.line.f)
	answers := make(chan delivery.Answer, 1)
	time.AfterFunc(there, func() { answers <- c.arrive(task) })
	var a delivery.Answer
	select {
	case a = <-answers:
		select {
		case <-ctx.Done():
			a = delivery.Answer{Class: delivery.Stopped}
		case <-time.After(back):
		}
	case <-ctx.Done():
		a = delivery.Answer{Class: delivery.Stopped}
	}
	_ = c.line.there()
	a.At = time.Now()
	return a
}

// way is how long a call and its answer are on the way, together less than a
// call may take.
func (c *client) way(f *fleet) (there, back time.Duration) {
	most := 10 * time.Millisecond
	c.mu.Lock()
	if c.mood == slow && f.dice.happens(c.chance) {
		most = f.voyage.callTimeout - time.Millisecond
	}
	c.mu.Unlock()
	there = f.dice.upTo(most)
	return there, f.dice.upTo(most - there)
}

// count notes an answer that a retry budget may be spent on.
func (c *client) count(t delivery.Task, class delivery.Class) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch class {
	case delivery.Unavailable:
		c.failed[t.Key]++
	case delivery.Rejected:
		c.refused[t.Key]++
	default:
	}
}

// arrive is the partner's own part.
func (c *counter) arrive(t delivery.Task) delivery.Answer {
	a := c.judge(t)
	c.client.count(t, a.Class)
	if a.Class == delivery.Accepted || a.Message == resets {
		c.accept(t, &a)
	}
	return a
}

func (c *counter) accept(t delivery.Task, a *delivery.Answer) {
	p := c.client
	p.mu.Lock()
	defer p.mu.Unlock()
	a.Existed = p.had[t.Key]
	p.had[t.Key] = true
	if t.Key.Kind != ledger.Count {
		return
	}
	if !p.had[t.Key.AccountKey()] || !p.had[t.Key.ServiceKey()] {
		c.line.f.report("%s: a count came before its account or its service", t.Key)
	}
	p.tape[t.Key] = append(p.tape[t.Key], taken{t.Figure.Value.Units / int64(event.UnitsScale), time.Now(), c.line.name})
}

func (c *counter) judge(t delivery.Task) delivery.Answer {
	p := c.client
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.credentials != p.valid {
		return delivery.Answer{Class: delivery.Unauthorized, Status: 401}
	}
	if p.mood == kind || !c.line.f.dice.happens(p.chance) {
		return delivery.Answer{Class: delivery.Accepted, Status: 201}
	}
	isCount := t.Key.Kind == ledger.Count
	switch {
	case p.mood == down:
		return delivery.Answer{Class: delivery.Unavailable, Status: 503}
	case p.mood == resets:
		return delivery.Answer{Class: delivery.Unavailable, Message: resets}
	case p.mood == throttle:
		return delivery.Answer{Class: delivery.Throttled, Status: 429, RetryAfter: time.Second}
	case p.mood == unmapped && isCount:
		return delivery.Answer{Class: delivery.NotFound, Status: 404}
	case p.mood == notReady && isCount:
		return delivery.Answer{Class: delivery.NotReady, Status: 409}
	case p.mood == rejects && isCount:
		return delivery.Answer{Class: delivery.Rejected, Status: 422}
	case p.mood == suspects && isCount:
		return delivery.Answer{Class: delivery.Suspected, Status: 403}
	}
	return delivery.Answer{Class: delivery.Accepted, Status: 201}
}

// SetMapping is never asked for: no link wants it.
func (c *counter) SetMapping(context.Context) delivery.Answer {
	c.line.f.report("%s: the mapping was opened, and nobody wanted it", c.client.organization)
	return delivery.Answer{Class: delivery.Accepted, At: time.Now()}
}

// checkGate looks at a call that begins: nothing goes to an integration that
// is paused, or with credentials that the partner is known to refuse.
func (f *fleet) checkGate(c *counter, t delivery.Task) {
	p, now := c.client, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.paused && now.After(p.pausedAt):
		f.report("%s: %s called for it %v after it was paused", t.Key, c.line.name, now.Sub(p.pausedAt))
	case p.unauthorized && now.After(p.markedAt):
		f.report("%s: %s called with credentials that were known to be bad for %v", t.Key, c.line.name, now.Sub(p.markedAt))
	}
}

// checkEntry looks at an entry that is about to be stored: as long as its budget
// counts, it may have no more attempts than the partner gave bad answers.
func (f *fleet) checkEntry(e *ledger.Entry) {
	if !e.Key.Kind.Figure() || e.State == ledger.Failed {
		return
	}
	p := f.clients[e.Key.Organization]
	p.mu.Lock()
	defer p.mu.Unlock()
	if most := p.failed[e.Key] + p.refused[e.Key]; e.Attempts > most {
		f.report("%s: %d attempts are counted, but the partner failed only %d times", e.Key, e.Attempts, most)
	}
}

// checkLetter looks at a dead letter: that of a figure needs an answer that
// refused it, or as many as the budget has.
func (f *fleet) checkLetter(l *event.Letter) {
	reason := delivery.DeadReason(l.Fault.Reason)
	if reason != delivery.ReasonRejected && reason != delivery.ReasonUndeliverable {
		return
	}
	p := f.clients[l.Organization]
	p.mu.Lock()
	defer p.mu.Unlock()
	failed, refused := 0, 0
	for key := range p.failed {
		if key.String() == l.Key {
			failed = p.failed[key]
		}
	}
	for key := range p.refused {
		if key.String() == l.Key {
			refused = p.refused[key]
		}
	}
	switch {
	case l.Key == "":
		f.report("letter of a call without a key: %+v", l)
	case reason == delivery.ReasonRejected && refused == 0:
		f.report("%s: parked as rejected, which the partner never said", l.Key)
	case reason == delivery.ReasonUndeliverable && failed < f.voyage.attempts:
		f.report("%s: parked as undeliverable after %d bad answers, want %d", l.Key, failed, f.voyage.attempts)
	}
}

// signal is the keeper of the integrations' status, as far as it is needed
// here: bad credentials are not to be tried by anybody.
func (f *fleet) signal(l *line, s delivery.Signal) {
	if s.Class != delivery.Unauthorized || !l.alive() {
		return
	}
	c := f.clients[s.Organization]
	c.mu.Lock()
	news := s.Credentials == fmt.Sprint("c", c.credentials) && !c.unauthorized
	if news {
		c.unauthorized, c.markedAt = true, time.Now()
	}
	c.mu.Unlock()
	if news {
		f.tellAll(c)
	}
}

// tellAll has every worker that can hear it know of the integration.
func (f *fleet) tellAll(c *client) {
	f.mu.Lock()
	var hear []*berth
	for _, b := range f.berths {
		if b.running != nil && !b.line.frozen() {
			hear = append(hear, b)
		}
	}
	f.mu.Unlock()
	for _, b := range hear {
		b.running.SetLink(vendor, c.organization, f.link(b.line, c))
	}
}

var (
	_ worker.Source    = (*fleetSource)(nil)
	_ delivery.Partner = (*counter)(nil)
)
