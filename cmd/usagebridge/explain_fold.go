package main

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// step is what one event did to a key.
type step struct {
	occurrence  occurrence
	operation   ledger.Operation
	disposition ledger.Disposition
	// before is the desired figure when the event was folded, or the newer one
	// that was there first; nil: none.
	before *ledger.Seen
	// zeroedBy names the snapshot that did not name the key; the occurrence is
	// its latest part. Empty for a figure of an event.
	zeroedBy string
	revived  bool // the figure had failed, and an operator had it sent again
}

// took says whether the step made its figure the desired one.
func (s *step) took() bool {
	return s.disposition == ledger.Applied || s.disposition == ledger.Unchanged
}

// word is what a person has said of figures, once.
type word struct {
	key      string // in the bucket DECISIONS
	approval uint64 // what it decides; 0: a backfill
	backfill uint64 // digest of the one that it undoes; 0: none
	decision decision
}

// wordOf reads a decision; ok is false for one that says nothing that we know.
func wordOf(key string, d decision) (w word, ok bool) {
	w = word{key: key, decision: d}
	name := key[strings.LastIndexByte(key, '.')+1:]
	if d.Verdict == reverted {
		id, err := event.Unescape(name)
		w.backfill = ledger.BackfillDigest(id)
		return w, err == nil
	}
	id, err := strconv.ParseUint(name, 16, 64)
	w.approval = id
	return w, err == nil
}

// hear keeps those of a vendor's decisions that concern the key.
func (h *history) hear(words map[string]decision) {
	approvals, backfills := map[uint64]bool{}, map[uint64]bool{}
	for i := range h.log {
		for _, op := range h.log[i].operations {
			approvals[op.Event] = op.Part != nil || approvals[op.Event]
			approvals[approvalOf(op)] = true
			backfills[ledger.BackfillDigest(op.Backfill)] = true
		}
	}
	if h.stored != nil {
		for _, s := range h.stored.Seen {
			approvals[ledger.JumpID(h.key, s.Event)] = true
			backfills[s.Backfill] = true
		}
	}
	for _, keeper := range h.keepers {
		for _, s := range keeper.Snapshots {
			approvals[s.Event] = true
			backfills[ledger.BackfillDigest(s.Backfill)] = true
		}
	}
	for key, d := range words {
		if w, ok := wordOf(key, d); ok && (w.approval != 0 && approvals[w.approval] || w.backfill != 0 && backfills[w.backfill]) {
			h.words = append(h.words, w)
		}
	}
	slices.SortFunc(h.words, func(a, b word) int {
		if c := a.decision.At.Compare(b.decision.At); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
}

// verdict is what a person has said of what waits, or waited, under the id.
func (h *history) verdict(approval uint64) *decision {
	for i := range h.words {
		if w := &h.words[i]; w.approval != 0 && w.approval == approval {
			return &w.decision
		}
	}
	return nil
}

// undone is the word by which a backfill was undone.
func (h *history) undone(backfill uint64) *decision {
	for i := range h.words {
		if w := &h.words[i]; w.backfill != 0 && w.backfill == backfill {
			return &w.decision
		}
	}
	return nil
}

// refused says whether somebody has refused the figure that an event had for
// the key.
func (h *history) refused(key ledger.Key, digest uint64) bool {
	said := h.verdict(ledger.JumpID(key, digest))
	return said != nil && said.Verdict == refused
}

// course is the life of one key, told again: the part of the ledger that it
// needs (ledger.Book), and what every event did to it.
type course struct {
	history *history
	steps   []step
	entries map[ledger.Key]ledger.Entry
	rules   *ledger.Rules
	said    map[string]decision // by now
	words   []word              // not said yet
	calls   []ledger.Call       // not answered yet
	late    []ledger.Call       // answered by the clock, before their figures were folded
	waited  map[uint64]bool     // snapshots whose zeros waited for approval
	told    map[uint64]bool     // digests of figures that have a step, or came before the log's beginning
}

// refold folds the log of a key from its beginning, as a worker does, with the
// answers of the partner and the words of people in between: what the partner
// had when an event came tells unchanged from applied. The clocks of the
// server, of the workers and of the operators are taken to be one.
func (h *history) refold() *course {
	c := h.begin()
	for i := range h.log {
		o := &h.log[i]
		c.until(o)
		c.fold(o)
	}
	c.late = append(c.late, c.calls...)
	for _, call := range c.late {
		c.say(call.At)
		c.answer(call)
	}
	c.say(endOfTime)
	return c
}

var endOfTime = time.Unix(1<<40, 0)

// begin starts with what the ledger remembers from before the log's beginning.
func (h *history) begin() *course {
	c := &course{
		history: h, entries: map[ledger.Key]ledger.Entry{}, said: map[string]decision{}, words: h.words,
		calls:  slices.SortedStableFunc(slices.Values(h.calls), func(a, b ledger.Call) int { return a.At.Compare(b.At) }),
		waited: map[uint64]bool{}, told: map[uint64]bool{},
	}
	c.rules = (&Config{}).rules(h.record, c.said)
	for _, w := range h.words {
		c.waited[w.approval] = true
	}
	gone := func(arrival uint64) bool { return arrival != 0 && event.Arrival(arrival).Sequence() < h.first }
	if h.stored != nil {
		entry := ledger.Entry{Key: h.key, State: ledger.Dirty}
		for _, s := range h.stored.Seen {
			if gone(s.Arrival) {
				entry.Seen = append(entry.Seen, s)
				c.told[s.Event] = true
			}
			if s.Waits == ledger.Vanished {
				c.waited[s.Event] = true
			}
		}
		if len(entry.Seen) > 0 {
			c.entries[h.key] = entry
		}
	}
	for key, stored := range h.keepers {
		keeper := ledger.Entry{Key: key}
		for _, s := range stored.Snapshots {
			c.waited[s.Event] = c.waited[s.Event] || s.Waits
			if s, ok := partly(s, func(p ledger.SeenPart) bool { return gone(p.Arrival) }); ok {
				keeper.Snapshots = append(keeper.Snapshots, s)
			}
		}
		c.entries[key] = keeper
	}
	return c
}

// partly is the snapshot with those of its parts alone that had come; ok is
// false if there are none.
func partly(s ledger.Snapshot, come func(ledger.SeenPart) bool) (was ledger.Snapshot, ok bool) {
	was = s
	was.Parts, was.Arrival = nil, 0
	for _, p := range s.Parts {
		if come(p) {
			was.Parts = append(was.Parts, p)
			was.Arrival = max(was.Arrival, p.Arrival)
		}
	}
	if len(was.Parts) < len(s.Parts) {
		was.Done, was.Keys, was.Zeros, was.Waits = 0, 0, 0, false
	}
	return was, len(was.Parts) > 0
}

// asKept is the entry of a scope without those parts that the ledger, which
// knows the snapshot, did not count: they had been given up before the others
// came. When a worker gave up is not in the log.
func asKept(e ledger.Entry, kept []ledger.Snapshot) ledger.Entry {
	e.Snapshots = slices.Clone(e.Snapshots)
	for i := range e.Snapshots {
		s := &e.Snapshots[i]
		k := knownAs(kept, s.Event)
		if k == nil {
			continue
		}
		was, ok := partly(*s, func(p ledger.SeenPart) bool { return counted(k, p) })
		if ok {
			*s = was
		} else {
			s.Parts, s.Lost, s.Done = nil, true, max(s.Done, s.Since)
		}
	}
	return e
}

// counted says whether the ledger counts a part that came to the snapshot, or
// a repeat of it.
func counted(k *ledger.Snapshot, p ledger.SeenPart) bool {
	at := slices.IndexFunc(k.Parts, func(q ledger.SeenPart) bool { return q.Number == p.Number })
	if at < 0 {
		return k.Complete()
	}
	return k.Parts[at].Arrival <= p.Arrival
}

func knownAs(kept []ledger.Snapshot, snapshot uint64) *ledger.Snapshot {
	at := slices.IndexFunc(kept, func(k ledger.Snapshot) bool { return k.Event == snapshot })
	if at < 0 {
		return nil
	}
	return &kept[at]
}

// givenUp is the entry of a scope after it gave up what had waited for too long
// by the clock of the log. The ledger's word on the snapshots that it still
// knows is better.
func givenUp(e ledger.Entry, kept []ledger.Snapshot, now time.Time, patience time.Duration) ledger.Entry {
	var known, forgotten []ledger.Snapshot
	for _, s := range e.Snapshots {
		if knownAs(kept, s.Event) != nil {
			known = append(known, s)
		} else {
			forgotten = append(forgotten, s)
		}
	}
	e.Snapshots = forgotten
	if patience > 0 {
		e, _ = e.GiveUp(now, patience)
	}
	e.Snapshots = append(e.Snapshots, known...)
	slices.SortStableFunc(e.Snapshots, func(a, b ledger.Snapshot) int { return b.Version.Compare(a.Version) })
	return e
}

// until takes in what the partner and people had said when the event came.
func (c *course) until(o *occurrence) {
	for len(c.calls) > 0 && !c.calls[0].At.After(o.message.Stored) {
		c.late, c.calls = append(c.late, c.calls[0]), c.calls[1:]
	}
	c.late = slices.DeleteFunc(c.late, func(call ledger.Call) bool {
		// No figure is sent before it is folded, whatever the clocks say.
		if event.Arrival(call.Arrival).Sequence() >= o.message.Sequence {
			return false
		}
		c.say(call.At)
		c.answer(call)
		return true
	})
	c.say(o.message.Stored)
}

// say carries out what people had said by then.
func (c *course) say(by time.Time) {
	for len(c.words) > 0 && !c.words[0].decision.At.After(by) {
		w := c.words[0]
		c.words = c.words[1:]
		c.said[w.key] = w.decision
		c.rules = (&Config{}).rules(c.history.record, c.said)
		c.review(w.decision.At)
	}
}

func (c *course) answer(call ledger.Call) { c.Put(answered(c.Entry(c.history.key), call)) }

// review brings the key in line with what people have said and with snapshots.
func (c *course) review(now time.Time) {
	before := c.desired()
	ledger.Review(c, c.history.key, c.rules, now)
	c.noteZeros(before)
}

func (c *course) desired() *ledger.Seen {
	e := c.entries[c.history.key]
	if desired, ok := e.Desired(); ok {
		return &desired
	}
	return nil
}

// fold folds one event.
func (c *course) fold(o *occurrence) {
	now, key := o.message.Stored, c.history.key
	for scope, e := range c.entries {
		if scope.Kind == ledger.Scope {
			c.Put(givenUp(e, c.history.keepers[scope].Snapshots, now, c.history.patience))
		}
	}
	dead := c.history.dead[o.place()]
	if !dead {
		_, err := ledger.Fold(c.draft(), o.operations, c.rules, now)
		dead = err != nil
	}
	for _, op := range o.operations {
		s := step{occurrence: *o, operation: op, disposition: ledger.Dead, before: c.desired()}
		c.told[op.Event] = c.told[op.Event] || op.Key == key
		if !dead {
			c.foldOne(&s)
		}
		if op.Key == key {
			c.steps = append(c.steps, s)
		}
		if scope := c.entries[op.Key]; op.Part != nil && !dead && key.In(op.Key) && completed(&scope, op.Event) {
			c.review(now)
		}
	}
}

// foldOne folds one operation. Each by itself says what became of it.
func (c *course) foldOne(s *step) {
	failed := c.entries[c.history.key].State == ledger.Failed
	// An event without a conflict has none in its operations.
	folded, _ := ledger.Fold(c, []ledger.Operation{s.operation}, c.rules, s.occurrence.message.Stored)
	s.disposition = folded.Disposition
	c.noteZeros(s.before)
	if s.operation.Key != c.history.key {
		return
	}
	s.revived = failed && s.operation.Replay && c.entries[c.history.key].State != ledger.Failed
	older := func(f *ledger.Seen) bool { return f == nil || f.Version.Compare(s.operation.Version) < 0 }
	if s.disposition == ledger.Superseded && older(s.before) {
		if now := c.desired(); !older(now) {
			s.before = now // a snapshot's zero, which comes with an older figure
		}
	}
}

func completed(scope *ledger.Entry, snapshot uint64) bool {
	return slices.ContainsFunc(scope.Snapshots, func(s ledger.Snapshot) bool { return s.Event == snapshot && s.Complete() })
}

// noteZeros makes a step of every figure that no event has brought: snapshots
// that did not name the key have.
func (c *course) noteZeros(before *ledger.Seen) {
	for _, s := range c.entries[c.history.key].Seen {
		if s.Unfounded() || c.told[s.Event] {
			continue
		}
		c.told[s.Event] = true
		zero := step{
			operation:   ledger.Operation{Key: c.history.key, Version: s.Version, Value: s.Value, Event: s.Event, Waits: s.Waits},
			disposition: s.Disposition, before: before,
		}
		for key, keeper := range c.entries {
			for _, snapshot := range keeper.Snapshots {
				if key.Kind == ledger.Scope && snapshot.Event == s.Event {
					zero.zeroedBy, zero.operation.Backfill = snapshot.Name, snapshot.Backfill
				}
			}
		}
		if i := slices.IndexFunc(c.history.log, func(o occurrence) bool { return o.event != nil && uint64(o.event.Arrival) == s.Arrival }); i >= 0 {
			zero.occurrence = c.history.log[i]
		}
		c.steps = append(c.steps, zero)
	}
}

// draft is the course for an attempt of which nothing is kept.
func (c *course) draft() *course {
	d := *c
	d.entries = maps.Clone(c.entries)
	return &d
}

// Entry is the key's entry (ledger.Book).
func (c *course) Entry(key ledger.Key) ledger.Entry {
	e := c.entries[key]
	e.Key = key
	return e
}

// Put takes a changed entry (ledger.Book). What a snapshot sets to 0 cannot be
// weighed here, where one key is known: whether it waited is known otherwise.
func (c *course) Put(e ledger.Entry) {
	e = asKept(e, c.history.keepers[e.Key].Snapshots)
	for i := range e.Snapshots {
		if s := &e.Snapshots[i]; s.Complete() {
			s.Waits = c.waited[s.Event]
		}
	}
	c.entries[e.Key] = e
}

// Counts yields nothing (ledger.Book): the one key is reviewed anyway.
func (c *course) Counts(ledger.Key, func(ledger.Key)) {}

// answered is the entry after a call of the sync log, as a worker records it.
func answered(e ledger.Entry, c ledger.Call) ledger.Entry {
	if _, ok := e.Desired(); !ok {
		return e // the log no longer has what was sent
	}
	sent := ledger.Seen{
		Version: ledger.Version{Time: c.Time, Arrival: c.Arrival}, Value: ledger.Value{Units: c.Units, Properties: c.Properties},
		Event: math.MaxUint64, // taken back since, or forgotten: 0 would be a figure without an event
	}
	// An edited replay shares time and arrival with its original.
	if i := slices.IndexFunc(e.Seen, func(s ledger.Seen) bool { return s.Version == sent.Version && s.Value == sent.Value }); i >= 0 {
		sent.Event = e.Seen[i].Event
	}
	answer := ledger.Answer{At: c.At.UnixNano(), Status: c.Status, Message: c.Message}
	switch delivery.Ruling(c.Verdict) {
	case delivery.Delivered:
		before := e.Delivered.At
		if before > c.At.Add(-c.Duration).UnixNano() {
			before = 0 // it came while the call was under way
		}
		return e.Take(sent, before, ledger.Receipt{RequestID: c.RequestID, Generation: c.Generation}, answer, c.At)
	case delivery.Retry:
		return e.Retry(c.At, answer)
	case delivery.HoldKey:
		return e.Hold(ledger.Unmapped, answer)
	case delivery.Dead:
		return e.Fail(sent, answer)
	case delivery.HoldLane, delivery.Wait, delivery.Unanswered, delivery.Split, delivery.NotCounted:
	}
	return e
}
