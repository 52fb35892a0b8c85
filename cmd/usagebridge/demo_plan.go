package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// The vendor of the demo and its customers. Real ids are not made for
// subjects, paths and file names, so those of the demo are not either.
const (
	demoVendor = "acme"
	demoSource = "//billing.acme.example"
)

func demoOrganizations() []string { return []string{"northwind-it", "Harbour IT (EU)"} }

// Shares of the demo's events, in percent.
const (
	demoRepeats    = 5  // published a second time
	demoLate       = 10 // arrive up to eight hours after their time
	demoTies       = 1  // have the time of another figure of their key
	demoZeros      = 2  // correct a figure to nothing
	demoHeartbeats = 6  // repeat the value before them under a new id and time
	demoLateShare  = 10 // accounts that are announced after their first counts
)

// demoPlan is everything that a demo publishes and everything that must come
// of it. It is a pure function of seed, size and start.
type demoPlan struct {
	seed  uint64
	size  int // count events, repeats included
	start time.Time

	catalog []*event.Event // published first
	singles []*event.Event // one by one, while bulk is published too
	bulk    []demoMessage  // batches, binary mode, and what is broken
	closing []demoMessage  // once all the others are stored
	want    demoWant
}

// demoMessage is one message as it goes to the server.
type demoMessage struct {
	subject string
	header  map[string][]string
	body    []byte
	events  int // dispositions that it must get, 1 for a message that is no event
}

// demoWant is what must come of a plan.
type demoWant struct {
	figures  map[demoKey]demoFigure
	accounts map[string]map[string]string // names by organization and id
	services map[string]map[string]string

	messages int // in the log
	events   int // in those messages: each gets one disposition
	dropped  int // repeats that the server drops by their Nats-Msg-Id
	repeats  int // repeats that the fold has to tell
	recent   int // of those, certain to be remembered: repeats of a key's newest event
	dead     map[event.Reason]int
}

// published is how many events are sent, repeats included.
func (w *demoWant) published() int { return w.events + w.dropped }

// keys is how many entries the ledger must have.
func (w *demoWant) keys() int {
	n := len(w.figures)
	for _, byID := range []map[string]map[string]string{w.accounts, w.services} {
		for _, ids := range byID {
			n += len(ids)
		}
	}
	return n
}

func (w *demoWant) deadLetters() int { return total(w.dead) }

// demoChannel is how the events of a key are published. A key has one: only
// within a channel is the order of arrival known before.
type demoChannel uint8

const (
	viaPublisher demoChannel = iota // structured, one by one
	viaBatch
	viaBinary
)

// planner makes a plan. Everything random comes from one source, and maps are
// never walked, so that a seed has one plan.
type planner struct {
	*rand.Rand
	plan     *demoPlan
	keys     []demoKey
	channels map[demoKey]demoChannel
	open     map[string]*openBatch // by organization
	batches  int
	spoilt   int // batches that got a broken element
}

// newDemoPlan plans size count events (repeats included), broken ones and a
// catalog beside them. Figures are true within the 24 hours before start.
func newDemoPlan(seed uint64, size int, start time.Time) *demoPlan {
	p := &planner{
		Rand: rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // dice that must repeat for a seed, no secret
		plan: &demoPlan{
			seed: seed, size: size, start: start.UTC().Truncate(time.Millisecond),
			want: demoWant{accounts: map[string]map[string]string{}, services: map[string]map[string]string{}, dead: map[event.Reason]int{}},
		},
		channels: map[demoKey]demoChannel{},
		open:     map[string]*openBatch{},
	}
	late := p.planCatalog()
	figures := p.planFigures()
	p.plan.want.figures = newestFigures(figures)
	p.encode(figures)
	p.interleave(late)
	p.planBroken()
	p.planClosing()
	for _, m := range slices.Concat(p.plan.bulk, p.plan.closing) {
		p.plan.want.messages++
		p.plan.want.events += m.events
	}
	stored := len(p.plan.catalog) + len(p.plan.singles) - p.plan.want.dropped
	p.plan.want.messages += stored
	p.plan.want.events += stored
	return p.plan
}

// pickOne picks an element.
func pickOne[T any](p *planner, list []T) T { return list[p.IntN(len(list))] }

// chance is true in so many of a hundred cases.
func (p *planner) chance(percent int) bool { return p.IntN(100) < percent }

// within is a random part of d, in whole milliseconds.
func (p *planner) within(d time.Duration) time.Duration {
	return time.Duration(p.Int64N(max(d.Milliseconds(), 1))) * time.Millisecond
}

// planFigures makes the figures in the order in which they arrive, repeats
// included.
func (p *planner) planFigures() []sentFigure {
	repeats := p.plan.size * demoRepeats / 100
	figures := p.moments(p.plan.size - repeats)
	arrivals := make(map[string]time.Time, len(figures))
	for _, f := range figures {
		lag := p.within(2 * time.Minute)
		if p.chance(demoLate) {
			lag = p.within(8 * time.Hour)
		}
		arrivals[f.id] = f.time.Add(lag)
	}
	byArrival := func(a, b sentFigure) int {
		return arrivals[a.id].Compare(arrivals[b.id])
	}
	slices.SortStableFunc(figures, byArrival)
	for i := range figures {
		figures[i].order = i
	}
	p.value(figures)
	distinct := len(figures)
	for range repeats {
		f := figures[p.IntN(distinct-1)]
		f.order = min(f.order+1+p.IntN(distinct/8+1), distinct-1)
		figures = append(figures, f)
	}
	// Stable: a repeat stays behind what has its order already.
	slices.SortStableFunc(figures, func(a, b sentFigure) int { return a.order - b.order })
	for i := range figures {
		figures[i].order = i
	}
	return figures
}

// moments spreads n figures over the keys and the day. Popularity follows
// Zipf's law, and every key has at least one figure.
func (p *planner) moments(n int) []sentFigure {
	zipf := rand.NewZipf(p.Rand, 1.1, 12, uint64(len(p.keys)-1))
	last := make(map[demoKey]time.Time, len(p.keys))
	figures := make([]sentFigure, n)
	for i := range figures {
		at := i
		if i >= len(p.keys) {
			at = int(zipf.Uint64())
		}
		key := p.keys[at]
		when := p.plan.start.Add(-time.Second - p.within(24*time.Hour))
		if tied, ok := last[key]; ok && p.chance(demoTies) {
			when = tied
		}
		last[key] = when
		figures[i] = sentFigure{key: key, id: eventID(i), time: when}
	}
	return figures
}

// eventID is now and then one that headers and logs must not stumble over.
func eventID(n int) string {
	if n%97 == 0 {
		return fmt.Sprintf("évt %06d/%%", n)
	}
	return fmt.Sprintf("evt-%06d", n)
}

// value gives every figure its units. The values of a key differ, but for
// heartbeats, so that the partner's history shows in which order it got them.
func (p *planner) value(figures []sentFigure) {
	byKey := map[demoKey][]int{}
	for i := range figures {
		byKey[figures[i].key] = append(byKey[figures[i].key], i)
	}
	for _, key := range p.keys {
		places := byKey[key]
		slices.SortFunc(places, func(a, b int) int { return byTimeAndOrder(figures[a], figures[b]) })
		used := map[event.Units]bool{}
		fractional := p.chance(30)
		var before event.Units
		for n, i := range places {
			units := before
			if n == 0 || !p.chance(demoHeartbeats) {
				units = p.fresh(used, fractional)
			}
			figures[i].units, before = units, units
		}
	}
}

// fresh is a value that the key has not had.
func (p *planner) fresh(used map[event.Units]bool, fractional bool) event.Units {
	if !used[0] && p.chance(demoZeros) {
		used[0] = true
		return 0
	}
	for room := 500 + 4*len(used); ; room++ {
		units := event.Units(1+p.IntN(room)) * event.UnitsScale
		if fractional {
			units += event.Units(p.IntN(int(event.UnitsScale)))
		}
		if !used[units] {
			used[units] = true
			return units
		}
	}
}

// encode puts the figures into the channels of their keys.
func (p *planner) encode(figures []sentFigure) {
	known := make(map[string]bool, len(figures))
	for _, f := range figures {
		e := f.event()
		again := known[f.id]
		known[f.id] = true
		switch p.channels[f.key] {
		case viaPublisher:
			if again {
				p.plan.want.dropped++
			}
			p.plan.singles = append(p.plan.singles, e)
			continue
		case viaBatch:
			p.addToBatch(f.key.organization, e.Structured(), 1)
		case viaBinary:
			p.plan.bulk = append(p.plan.bulk, binaryMessage(e, !again))
		}
		if again {
			p.plan.want.repeats++
		}
	}
	for _, organization := range demoOrganizations() {
		p.flush(organization)
	}
}

func (f sentFigure) event() *event.Event {
	return &event.Event{
		ID: f.id, Source: demoSource, Type: event.TypeCount, Time: f.time,
		Vendor: demoVendor, Organization: f.key.organization,
		Data: event.Count{AccountID: f.key.account, ServiceID: f.key.service, UnitCount: f.units},
	}
}

// binaryMessage is the event in binary mode. Without an id for the server the
// repeat of an event reaches the fold.
func binaryMessage(e *event.Event, identified bool) demoMessage {
	m := demoMessage{subject: e.Subject().String(), header: e.BinaryHeaders(), body: e.AppendData(nil), events: 1}
	if identified {
		m.header[jetstream.MsgIDHeader] = []string{e.Source + "/" + strings.ReplaceAll(e.ID, " ", "%20")}
	}
	return m
}

// openBatch is a batch that is being filled.
type openBatch struct {
	elements [][]byte
	events   int
	full     int
}

func (p *planner) addToBatch(organization string, element []byte, events int) {
	b := p.open[organization]
	if b == nil {
		b = &openBatch{full: 20 + p.IntN(180)}
		p.open[organization] = b
	}
	b.elements = append(b.elements, element)
	b.events += events
	if len(b.elements) >= b.full {
		p.flush(organization)
	}
}

// flush ends the batch. Some get an element that is broken: it must die alone.
func (p *planner) flush(organization string) {
	b := p.open[organization]
	if b == nil {
		return
	}
	delete(p.open, organization)
	if broken := brokenElements(organization, p.plan.start); p.spoilt < 2*len(broken) && len(b.elements) > 1 {
		bad := broken[p.spoilt%len(broken)]
		p.spoilt++
		p.plan.want.dead[bad.reason]++
		b.elements = slices.Insert(b.elements, p.IntN(len(b.elements)), bad.message.body)
		b.events++
	}
	body := []byte{'['}
	for i, element := range b.elements {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, element...)
	}
	p.batches++
	p.plan.bulk = append(p.plan.bulk, demoMessage{
		subject: event.Subject{Kind: event.KindBatch, Vendor: demoVendor, Organization: organization}.String(),
		header: map[string][]string{
			"content-type":        {event.ContentTypeBatch},
			jetstream.MsgIDHeader: {fmt.Sprintf("%s/batch-%06d", demoSource, p.batches)},
		},
		body: append(body, ']'), events: b.events,
	})
}

// interleave puts the catalog's late events among the first half of the
// singles.
func (p *planner) interleave(late []*event.Event) {
	for _, e := range late {
		p.plan.singles = slices.Insert(p.plan.singles, p.IntN(len(p.plan.singles)/2+1), e)
	}
}

// planBroken puts every kind of broken message somewhere into the bulk.
func (p *planner) planBroken() {
	for i, organization := range demoOrganizations() {
		other := demoOrganizations()[1-i]
		for _, b := range brokenMessages(pickOne(p, p.keysOf(organization)), other, p.plan.start) {
			p.plan.want.dead[b.reason] += b.message.events
			p.plan.bulk = slices.Insert(p.plan.bulk, p.IntN(len(p.plan.bulk)+1), b.message)
		}
	}
}

func (p *planner) keysOf(organization string) []demoKey {
	return slices.DeleteFunc(slices.Clone(p.keys), func(k demoKey) bool { return k.organization != organization })
}

// planClosing repeats the newest event of some keys, and has others come with
// the same id and another content. Both follow when everything else is stored:
// only then is it certain that the ledger remembers what they repeat.
func (p *planner) planClosing() {
	for i := range min(24, len(p.keys)) {
		newest := p.plan.want.figures[pickOne(p, p.keys)].newest
		e := newest.event()
		switch i % 4 {
		case 0:
			e.Data = event.Count{AccountID: newest.key.account, ServiceID: newest.key.service, UnitCount: newest.units + event.UnitsScale}
		case 1:
			e.Time = e.Time.Add(time.Millisecond)
		default:
			p.plan.want.repeats++
			p.plan.want.recent++
			p.plan.closing = append(p.plan.closing, binaryMessage(e, false))
			continue
		}
		p.plan.want.dead[event.ReasonConflict]++
		p.plan.closing = append(p.plan.closing, demoMessage{subject: e.Subject().String(), body: e.Structured(), events: 1})
	}
}
