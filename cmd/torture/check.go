//go:build unix

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// violation is an invariant that did not hold.
type violation struct {
	what    string
	history []string // of the key that it is about
}

func (v violation) String() string {
	return strings.Join(append([]string{v.what}, v.history...), "\n    ")
}

// letter is a dead letter as far as it matters here.
type letter struct {
	place  place
	reason string
}

// evidence is everything that a run left behind.
type evidence struct {
	log       []stored
	acked     []acked
	letters   []letter
	histories map[key][]sandbox.Accepted
	values    map[key]string // what the partner has now
	arrivals  []arrival
	gates     *gates
	// throttled are the times at which the partner said "too fast", with a
	// second to wait; calm says whether nothing was done then to anything
	// between a worker and the partner, so that the worker heard it.
	throttled []arrival
	// unanswered are the calls that got no usable answer: a probe that told
	// nothing is made again as soon as any other call would be.
	unanswered []arrival
	calm       func(from, to time.Time) bool
	takeovers  map[string][]time.Time // when a worker took the integration's partition
}

// check gathers what the run left behind and says what is wrong with it.
func (p *play) check(ctx context.Context, o *outcome) ([]violation, error) {
	e, err := p.gather(ctx)
	if err != nil {
		return nil, err
	}
	m := e.model()
	o.events, o.calls, o.letters = m.events, len(e.arrivals), len(e.letters)
	violations := e.judge(m)
	if len(violations) > 0 {
		return violations, nil
	}
	return p.checkExplain(ctx, m)
}

// gather reads the log, the letters and the partner's books.
func (p *play) gather(ctx context.Context) (*evidence, error) {
	e := &evidence{
		acked: p.press.acked, histories: map[key][]sandbox.Accepted{}, values: map[key]string{}, gates: p.grace, calm: p.calm,
	}
	for _, r := range p.partner.Tape() {
		_, organization, _ := strings.Cut(r.Integration, "/")
		switch {
		case r.Status == http.StatusTooManyRequests:
			e.throttled = append(e.throttled, arrival{r.Time, organization, ""})
		case r.Status == 0, r.Status == http.StatusRequestTimeout, r.Status >= http.StatusInternalServerError:
			e.unanswered = append(e.unanswered, arrival{r.Time, organization, ""})
		}
	}
	var err error
	if e.takeovers, err = p.takeovers(); err != nil {
		return nil, err
	}
	if e.log, err = p.messages(ctx, broker.EventsStream(vendor)); err != nil {
		return nil, err
	}
	err = p.broker.Letters(ctx, broker.LetterFilter{Vendor: vendor}, func(l broker.StoredLetter) error {
		e.letters = append(e.letters, letter{place{l.Original.Sequence, l.Index}, string(l.Fault.Reason)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, organization := range organizations {
		for _, account := range accounts {
			for _, service := range allServices() {
				k := key{organization, account, service}
				if history := p.partner.History(name(organization), account, service); len(history) > 0 {
					e.histories[k] = history
				}
				if value, ok := p.partner.Value(name(organization), account, service); ok {
					e.values[k] = value
				}
			}
		}
	}
	p.front.mu.Lock()
	defer p.front.mu.Unlock()
	e.arrivals = slices.Clone(p.front.arrivals)
	return e, nil
}

func (e *evidence) model() *model {
	conflicts := map[place]bool{}
	for _, l := range e.letters {
		if l.reason == "conflicting_duplicate" {
			conflicts[l.place] = true
		}
	}
	return newModel(e.log, func(p place) bool { return conflicts[p] })
}

// judge holds the evidence against the model.
func (e *evidence) judge(m *model) []violation {
	var all []violation
	for _, check := range []func(*model) []violation{
		e.checkStored, e.checkValues, e.checkOrder, e.checkLetters, e.checkPace, e.checkGates, e.checkThrottle,
	} {
		all = append(all, check(m)...)
	}
	return all
}

// checkStored says which acknowledged messages are not in the log.
func (e *evidence) checkStored(*model) (all []violation) {
	bySequence := map[uint64]string{}
	for _, s := range e.log {
		bySequence[s.sequence] = string(s.body)
	}
	for _, a := range e.acked {
		if bySequence[a.sequence] != a.body {
			all = append(all, violation{what: fmt.Sprintf("the servers acknowledged %s at %d and have %q there", a.body, a.sequence, bySequence[a.sequence])})
		}
	}
	return all
}

// history is what is known of a key, for people.
func (e *evidence) history(m *model, k key) []string {
	var lines []string
	for _, f := range m.figures[k] {
		lines = append(lines, "published "+f.String())
	}
	for _, a := range e.histories[k] {
		lines = append(lines, fmt.Sprintf("accepted %s at %s (tape %d, epoch %d)", a.Value, a.Time.Format("15:04:05.000"), a.Sequence, a.Epoch))
	}
	return lines
}

func keysOf[V any](m map[key]V) []key {
	return slices.SortedFunc(maps.Keys(m), func(a, b key) int { return cmp.Compare(a.String(), b.String()) })
}

// checkValues: the partner has the newest figure of every key (invariant 1).
func (e *evidence) checkValues(m *model) (all []violation) {
	for _, k := range keysOf(m.figures) {
		want, got := m.newest(k).units, cmp.Or(e.values[k], "nothing")
		if k.service == serviceRefused {
			want = "nothing"
		}
		if got != want {
			all = append(all, violation{fmt.Sprintf("%v: the partner has %s, want %s", k, got, want), e.history(m, k)})
		}
	}
	for _, k := range keysOf(e.values) {
		if m.figures[k] == nil {
			all = append(all, violation{fmt.Sprintf("%v: the partner has %s, and nobody published a figure", k, e.values[k]), nil})
		}
	}
	return all
}

// checkOrder: no figure was taken after a newer one (invariant 2). Every
// figure has its own value but the zeros of snapshots, of which there may be
// several: such a call is taken to carry the oldest zero that is in order.
func (e *evidence) checkOrder(m *model) (all []violation) {
	for _, k := range keysOf(e.histories) {
		at := 0 // in figures, of the newest so far
		figures := m.figures[k]
		for _, a := range e.histories[k] {
			next := slices.IndexFunc(figures[min(at, len(figures)):], func(f figure) bool { return f.units == a.Value })
			if next >= 0 {
				at += next
				continue
			}
			what := "a figure that nobody published"
			if slices.ContainsFunc(figures, func(f figure) bool { return f.units == a.Value }) {
				what = "an older figure after " + figures[at].units
			}
			all = append(all, violation{fmt.Sprintf("%v: the partner took %s (tape %d): %s", k, a.Value, a.Sequence, what), e.history(m, k)})
			break
		}
	}
	return all
}

// checkLetters: the dead letters are those of the events that are dead, each
// once; each that was replayed was so once and has no letter left (invariant 3).
func (e *evidence) checkLetters(m *model) (all []violation) {
	bad := func(format string, args ...any) { all = append(all, violation{what: fmt.Sprintf(format, args...)}) }
	got := map[place]int{}
	refused := map[place]bool{}
	for _, l := range e.letters {
		if l.reason == "rejected" {
			refused[l.place] = true // a crash may make it be refused once more
			continue
		}
		if got[l.place]++; got[l.place] > 1 {
			bad("the event at %v has %d letters, want 1", l.place, got[l.place])
		}
		switch want := m.dead[l.place]; want {
		case l.reason:
		case "":
			bad("the event at %v is dead of %s, and nothing is wrong with it", l.place, l.reason)
		default:
			bad("the event at %v is dead of %s, want %s", l.place, l.reason, want)
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(m.dead), place.compare) {
		switch letters, replays := got[at], m.replayed[at]; {
		case letters == 0 && replays == 0:
			bad("the event at %v should be dead of %s, and has neither a letter nor a replay", at, m.dead[at])
		case letters > 0 && replays > 0 || replays > 1:
			bad("the event at %v has %d letters and %d replays, want one of them", at, letters, replays)
		}
	}
	for _, k := range keysOf(m.figures) {
		if want := m.newest(k); k.service == serviceRefused && !refused[want.place] {
			bad("%v: the partner refuses %v, and there is no letter of it", k, want)
		}
	}
	return all
}

// gates are the times in which no call may be made to an integration.
type gates struct {
	mu     sync.Mutex
	closed []gate
}

type gate struct {
	organization, why string
	from, to          time.Time
}

func (g *gates) add(x gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = append(g.closed, x)
}

func (g *gates) paused(organization string, from, to time.Time) {
	g.add(gate{organization, "paused", from, to})
}

func (g *gates) locked(organization string, from, to time.Time) {
	g.add(gate{organization, "unauthorized", from, to})
}

func (g *gates) mapped(organization string, at time.Time) {
	g.add(gate{organization, "not ready", time.Time{}, at})
}

// learning is how long a worker may take to learn that a gate is closed: when
// it is cut off, until its lease ends, and then for as long as a call takes.
const learning = leaseTTL + callTimeout + 500*time.Millisecond

// checkGates: no call goes to an integration whose gate is closed (invariant 4).
func (e *evidence) checkGates(*model) (all []violation) {
	for _, g := range e.gates.closed {
		calls := slices.DeleteFunc(slices.Clone(e.arrivals), func(a arrival) bool {
			return a.organization != g.organization || a.at.After(g.to) || a.at.Before(g.from)
		})
		most := 0
		switch g.why {
		case "paused":
			calls = slices.DeleteFunc(calls, func(a arrival) bool { return a.at.Before(g.from.Add(learning)) })
		case "unauthorized":
			// Those that were under way, and as many of each worker that takes
			// over before the first has recorded what it learned.
			most = concurrency * (1 + len(e.takeovers[g.organization]))
		case "not ready":
			// Probes, at intervals that begin afresh with each worker.
			calls = slices.DeleteFunc(calls, func(a arrival) bool { return !strings.HasSuffix(a.call, "/count") })
			most = concurrency * len(e.takeovers[g.organization])
			if len(calls) > 0 {
				most += openings(g.to.Sub(calls[0].at))
			}
			for _, a := range e.unanswered {
				if a.organization == g.organization && a.at.Before(g.to) {
					most++
				}
			}
		}
		if len(calls) > most {
			all = append(all, violation{what: fmt.Sprintf("%s: %d calls while it was %s until %s, want at most %d", g.organization, len(calls),
				g.why, g.to.Format("15:04:05.000"), most)})
		}
	}
	return all
}

// openings is how many probes fit into a time when their interval doubles.
func openings(d time.Duration) (n int) {
	for interval := probeMin; d > 0; interval = min(2*interval, probeMax) {
		d -= interval
		n++
	}
	return n
}

// hearing is how long an answer may be on its way.
const hearing = 200 * time.Millisecond

// checkThrottle: after "too fast, wait for a second" no call arrives within
// that second (invariant 4).
func (e *evidence) checkThrottle(*model) (all []violation) {
	for _, t := range e.throttled {
		from, to := t.at.Add(hearing), t.at.Add(time.Second-hearing/4)
		if !e.calm(t.at.Add(-time.Second), to) {
			continue
		}
		for _, a := range e.arrivals {
			// Who takes a partition over has not heard what the partner told the one
			// before.
			taken := slices.ContainsFunc(e.takeovers[t.organization], func(at time.Time) bool { return at.After(t.at.Add(-hearing)) && at.Before(a.at) })
			if a.organization == t.organization && a.at.After(from) && a.at.Before(to) && !taken {
				all = append(all, violation{what: fmt.Sprintf("%s: %s at %s, although it was told at %s to wait for a second", a.organization, a.call,
					a.at.Format("15:04:05.000"), t.at.Format("15:04:05.000"))})
				break
			}
		}
	}
	return all
}

// checkPace: no integration gets more calls in a second than the limit
// (invariant 4). Calls that left a worker in time may arrive together, and a
// new owner begins afresh.
func (e *evidence) checkPace(*model) (all []violation) {
	const most = partnerRate * 3 / 2
	byOrganization := map[string][]time.Time{}
	for _, a := range e.arrivals {
		byOrganization[a.organization] = append(byOrganization[a.organization], a.at)
	}
	for _, organization := range slices.Sorted(maps.Keys(byOrganization)) {
		times := byOrganization[organization]
		first := 0
		for last := range times {
			for times[last].Sub(times[first]) >= time.Second {
				first++
			}
			if n := last - first + 1; n > most {
				all = append(all, violation{what: fmt.Sprintf("%s: %d calls within a second at %s, want at most %d, and at most %d at bad times",
					cmp.Or(organization, "nobody"), n, times[last].Format("15:04:05.000"), partnerRate, most)})
				break
			}
		}
	}
	return all
}

// checkExplain asks the program what became of some events (invariant 3).
func (p *play) checkExplain(ctx context.Context, m *model) (all []violation, err error) {
	for _, o := range sample(m, 4) {
		text, err := p.command(ctx, "explain", o.ID, "--source", o.Source, "--json")
		if err != nil {
			return nil, err
		}
		if why := explained(text, m, o); why != "" {
			all = append(all, violation{what: fmt.Sprintf("explain %s: %s", o.ID, why)})
		}
	}
	return all, nil
}

// sample takes a few events from all over the log.
func sample(m *model, n int) (some []occurrence) {
	counts := slices.DeleteFunc(slices.Clone(m.occurred), func(o occurrence) bool { return o.Type != "usage.count.v1" })
	for i := range min(n, len(counts)) {
		some = append(some, counts[i*len(counts)/n])
	}
	return some
}

// explained says what is wrong with an explanation of an event that is alive.
func explained(text string, m *model, o occurrence) string {
	var found []struct {
		Place       string `json:"place"`
		Disposition string `json:"disposition"`
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return err.Error() + ": " + text
	}
	newest := m.newest(key{o.Data.OrganizationID, o.Data.AccountID, o.Data.ServiceID}).from == o.identity
	for _, f := range found {
		at, err := parsePlace(f.Place[strings.LastIndexByte(f.Place, '/')+1:])
		switch {
		case err != nil:
			return err.Error()
		case at != o.place:
		case newest && f.Disposition != "applied" && f.Disposition != "unchanged",
			!slices.Contains([]string{"applied", "unchanged", "superseded", "duplicate"}, f.Disposition):
			return fmt.Sprintf("it is %q, newest figure of its key: %t", f.Disposition, newest)
		default:
			return ""
		}
	}
	return fmt.Sprintf("nothing of %v in %s", o.place, text)
}
