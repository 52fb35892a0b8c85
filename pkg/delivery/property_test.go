package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

var classes = []delivery.Class{
	delivery.Accepted, delivery.Accepted, delivery.Accepted, delivery.NotReady, delivery.NotFound, delivery.Unauthorized,
	delivery.Suspected, delivery.Throttled, delivery.Unavailable, delivery.Unavailable, delivery.Rejected,
}

// step is one thing that happens to a lane, drawn before it runs: rapid and
// the bubble of virtual time run in goroutines of their own.
type step struct {
	kind   string
	key    ledger.Key
	units  int64
	class  delivery.Class
	link   delivery.Link // its partner is set on use
	took   time.Duration
	record time.Duration
	wait   time.Duration
	lost   bool            // the generation rises with the link
	can    [3]bool         // the partner can be read, takes accounts together, defers builds
	status string          // as read
	mapped map[string]bool // as read
}

func drawSteps(t *rapid.T) []step {
	var keys []ledger.Key
	for a := range 3 {
		keys = append(keys, ledger.AccountKey(organization, account(a)), ledger.ServiceKey(organization, account(a)))
		for s := range 3 {
			keys = append(keys, ledger.CountKey(organization, account(a), account(s)))
		}
	}
	steps := make([]step, rapid.IntRange(1, 60).Draw(t, "steps"))
	for i := range steps {
		steps[i] = step{
			kind:   rapid.SampledFrom([]string{"set", "set", "set", "script", "link", "hint", "settled", "again", "rebuild"}).Draw(t, "kind"),
			key:    rapid.SampledFrom(keys).Draw(t, "key"),
			units:  int64(rapid.IntRange(0, 3).Draw(t, "units")),
			class:  rapid.SampledFrom(classes).Draw(t, "class"),
			took:   time.Duration(rapid.IntRange(0, 3000).Draw(t, "took")) * time.Millisecond,
			record: time.Duration(rapid.IntRange(0, 500).Draw(t, "record")) * time.Millisecond,
			lost:   rapid.Bool().Draw(t, "lost"),
			can:    [3]bool{rapid.Bool().Draw(t, "read"), rapid.Bool().Draw(t, "together"), rapid.Bool().Draw(t, "defers")},
			status: rapid.SampledFrom([]string{"inactive", "mapping", "connected", ""}).Draw(t, "status"),
			mapped: rapid.MapOf(rapid.SampledFrom([]string{account(0), account(1), account(2)}), rapid.Bool()).Draw(t, "mapped"),
			wait:   rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, time.Second, time.Minute, time.Hour}).Draw(t, "wait"),
			link: delivery.Link{
				Ready: rapid.Bool().Draw(t, "ready"), Setup: rapid.Bool().Draw(t, "setup"), Paused: rapid.Bool().Draw(t, "paused"),
				Connected: rapid.Bool().Draw(t, "connected"), Credentials: fmt.Sprint(rapid.IntRange(1, 2).Draw(t, "credentials")),
			},
		}
	}
	return steps
}

func (r *rig) do(w *watch, s step) {
	switch s.kind {
	case "set":
		r.set(s.units, s.key)
	case "script":
		r.partner.mu.Lock()
		r.answer, r.took = always(s.class), s.took
		r.partner.status, r.partner.mapped = s.status, s.mapped
		r.partner.mu.Unlock()
		r.book.mu.Lock()
		r.delay = s.record
		r.book.mu.Unlock()
	case "link":
		w.link(r, s)
	case "again":
		r.lane.Reassert(s.key)
	case "rebuild":
		r.lane.Rebuild(s.key)
	case "hint":
		r.lane.Probe(s.key.Account)
	case "settled":
		r.lane.Settled(s.key)
	}
	after(s.wait)
	w.look(nil)
}

// watch looks at the gate whenever a call comes in. A call that began before
// the gate closed comes in at the same virtual time; one that comes later is
// wrong.
type watch struct {
	*partner
	lane *delivery.Lane

	generation int // of the integration

	mu      sync.Mutex
	linked  time.Time // when the link was last changed
	closed  time.Time // until when the gate was seen to be closed ...
	noticed time.Time // ... and when that was
}

func (w *watch) Send(ctx context.Context, t delivery.Task) delivery.Answer {
	w.look(&t)
	return w.partner.Send(ctx, t)
}

func (w *watch) SetMapping(ctx context.Context) delivery.Answer {
	w.look(&delivery.Task{Key: ledger.Key{Organization: organization}, Probe: true}) // how a probe is marked it cannot see
	return w.partner.SetMapping(ctx)
}

// look notes the state of the gate, and fails the test if the call, unless
// nil, should not have begun.
func (w *watch) look(t *delivery.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, now := w.lane.Status(), time.Now()
	if t != nil {
		since := s.Since
		if s.Hold == ledger.Paused {
			since = w.linked
		}
		catalog := s.Hold == ledger.IntegrationNotReady && t.Key.Kind != ledger.Count
		probe := t.Probe && s.Hold != ledger.Unauthorized && s.Hold != ledger.Paused
		if s.Hold != "" && now.After(since) && !catalog && !probe {
			w.failed("a call for %s (probe %t) while held: %s since %s", t.Key, t.Probe, s.Hold, since)
		}
		if now.After(w.noticed) && now.Before(w.closed) {
			w.failed("a call for %s at %s while the gate is closed until %s", t.Key, now, w.closed)
		}
	}
	w.closed, w.noticed = s.Closed, now
}

func (w *watch) ReadStatus(ctx context.Context) delivery.Answer {
	w.look(&delivery.Task{Key: ledger.Key{Organization: organization}, Probe: true})
	return w.partner.ReadStatus(ctx)
}

func (w *watch) ReadAccounts(ctx context.Context, status string) (delivery.Sight, delivery.Answer) {
	w.look(&delivery.Task{Key: ledger.Key{Organization: organization}, Probe: true})
	return w.partner.ReadAccounts(ctx, status)
}

func (w *watch) SendAccounts(ctx context.Context, tasks []delivery.Task) delivery.Answer {
	w.look(&tasks[0])
	return w.partner.SendAccounts(ctx, tasks)
}

// link replaces the link as the step has it; a partner that has lost everything
// forgets what it held.
func (w *watch) link(r *rig, s step) {
	l := s.link
	l.Partner, l.DefersBuild, l.Generation = w, s.can[2], w.generation
	if s.can[0] {
		l.Reader = w
	}
	if s.can[1] {
		l.Bulk = w
	}
	if s.lost {
		w.generation++
		r.forget(l)
	} else {
		w.lane.SetLink(l)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.linked, w.closed = time.Now(), time.Time{}
}

// TestNoFigureIsLostWhateverThePartnerAnswers checks at the end that every key
// has its newest value; that a key has never two calls under way and never an
// older version after a newer one is checked by the partner itself.
func TestNoFigureIsLostWhateverThePartnerAnswers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := drawSteps(rt)
		var failure string
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(format string, args ...any) { failure = fmt.Sprintf(format, args...) },
				delivery.Config{Rate: 20, RetryMax: time.Minute, Attempts: 1000, Flood: 4, Reassert: time.Hour})
			defer r.stop(nil)
			w := &watch{partner: r.partner, lane: r.lane}
			w.link(r, step{link: r.good()})
			for _, s := range steps {
				r.do(w, s)
			}
			r.partner.mu.Lock()
			r.answer = nil
			r.partner.mu.Unlock()
			last := step{link: r.good()}
			last.link.Credentials = "fresh"
			w.link(r, last)
			r.book.mu.Lock()
			keys := make([]ledger.Key, 0, len(r.entries))
			for key := range r.entries {
				keys = append(keys, key)
			}
			r.book.mu.Unlock()
			after(time.Minute)
			for a := range 3 { // what was refused is wanted anew, and its account and service too
				r.set(9, ledger.AccountKey(organization, account(a)), ledger.ServiceKey(organization, account(a)))
			}
			r.set(9, keys...)
			after(30 * 24 * time.Hour)
			if failure == "" {
				failure = r.behind(keys)
			}
		})
		if failure != "" {
			rt.Fatalf("%s", failure)
		}
	})
}

// behind names a key that the partner does not hold as desired, if there is one.
func (r *rig) behind(keys []ledger.Key) string {
	for _, key := range keys {
		e, _ := r.Entry(key)
		if got := r.holding[key]; e.State != ledger.Synced || got.Value != e.Seen[0].Value {
			return fmt.Sprintf("%s is %s, the partner holds %v; want synced and %v (lane: %+v)", key, e.State, got.Value, e.Seen[0].Value, r.lane.Status())
		}
	}
	return ""
}
