package worker_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// gust is one thing that happens, drawn before the bubble of virtual time
// begins.
type gust struct {
	kind     string
	account  int
	service  int
	second   int // of the figure
	units    int
	backfill string
	parts    int
	named    [4]bool // by a snapshot, of all keys
	scope    bool    // the snapshot is of one account
	chance   float64
	wait     time.Duration
}

var gustKinds = []string{
	"figure", "figure", "figure", "figure", "again", "snapshot", "snapshot", "part", "revert", "release", "replay",
	"reject", "lose", "calm", "broken store", "restart", "old version",
}

func drawGusts(t *rapid.T) []gust {
	gusts := make([]gust, rapid.IntRange(1, 30).Draw(t, "gusts"))
	for i := range gusts {
		g := gust{
			kind:     rapid.SampledFrom(gustKinds).Draw(t, "kind"),
			account:  rapid.IntRange(0, 1).Draw(t, "account"),
			service:  rapid.IntRange(0, 1).Draw(t, "service"),
			second:   rapid.IntRange(1, 8).Draw(t, "second"),
			units:    rapid.SampledFrom([]int{0, 1, 2, 3, 100}).Draw(t, "units"),
			backfill: rapid.SampledFrom([]string{"", "", "b1", "b2"}).Draw(t, "backfill"),
			parts:    rapid.IntRange(1, 3).Draw(t, "parts"),
			scope:    rapid.Bool().Draw(t, "scope"),
			chance:   rapid.SampledFrom([]float64{0.3, 1}).Draw(t, "chance"),
			wait:     rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, time.Minute}).Draw(t, "wait"),
		}
		for k := range g.named {
			g.named[k] = rapid.Bool().Draw(t, "named")
		}
		gusts[i] = g
	}
	return gusts
}

// truth is one published figure or zero, as the model has it.
type truth struct {
	key      ledger.Key
	version  ledger.Version
	units    int64
	backfill string
}

// storm is a world in which gusts happen, and a model beside it.
type storm struct {
	*world

	running *worker.Worker
	stop    func()
	workers int
	start   time.Time
	rules   ledger.Rules
	known   bool // this version folds snapshots

	truths    []truth
	zeros     []func() (truth, bool) // of snapshots, by key; false while parts are missing
	events    []event.Event          // published, to be sent again
	arrivals  []uint64               // of their first messages
	pending   []event.Event          // parts that were held back
	snapshots int
	reverted  map[string]bool
}

func TestWhateverIsPublishedReplayedRevertedAndBrokenTheNewestValidFigureStands(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		gusts := drawGusts(rt)
		failure := ""
		synctest.Test(t, func(t *testing.T) {
			s := &storm{world: newWorld(t), start: time.Now(), known: true, reverted: map[string]bool{}}
			s.rules = ledger.Rules{ZeroKeys: 1, Jump: map[string]float64{"s1": 20}}
			s.restart()
			for i := range 2 {
				s.catalog(fmt.Sprint("a", i), fmt.Sprint("s", i))
			}
			for _, g := range gusts {
				s.blow(g)
				settle(g.wait)
			}
			failure = s.calm()
			s.stop()
		})
		if failure != "" {
			rt.Fatalf("%s", failure)
		}
	})
}

func (s *storm) restart() {
	if s.stop != nil {
		s.stop()
	}
	s.workers++
	s.running, s.stop = s.run(func(c *worker.Config) {
		c.ID = fmt.Sprint("w", s.workers)
		c.Limits = event.Limits{}
		c.Delivery.Attempts = 3
		if !s.known {
			delete(c.Meanings, event.TypeSnapshot)
		}
	})
	s.tell()
}

func (s *storm) tell() {
	rules := s.rules
	rules.Verdicts, rules.Reverted = maps.Clone(s.rules.Verdicts), maps.Clone(s.rules.Reverted)
	s.running.SetRules(vendor, &rules)
}

func (s *storm) blow(g gust) {
	switch g.kind {
	case "figure":
		s.figure(g)
	case "again":
		if n := len(s.events); n > 0 {
			// The repeat of an event that lies dead would be its first arrival
			// until the letter is replayed, and all that is of the very same time
			// would change places then.
			if e := s.events[g.second%n]; !s.dead(e.ID) {
				s.publish(e.Subject().String(), e.Structured())
			}
		}
	case "snapshot":
		s.snapshotOf(g)
	case "part":
		if n := len(s.pending); n > 0 {
			e := s.pending[g.second%n]
			s.pending = slices.Delete(s.pending, g.second%n, g.second%n+1)
			s.tellEvent(e)
		}
	case "revert":
		id := []string{"b1", "b2"}[g.account]
		s.reverted[id] = true
		if s.rules.Reverted == nil {
			s.rules.Reverted = map[uint64]bool{}
		}
		s.rules.Reverted[ledger.BackfillDigest(id)] = true
		s.tell()
	case "release":
		s.release()
	case "replay":
		s.replay()
	case "reject", "lose":
		s.spoil(g)
	case "calm":
		s.answer(nil)
	case "broken store":
		failures := g.second
		s.store.FailWith(func([]ledger.Entry) (bool, error) {
			failures--
			if failures < 0 {
				return false, nil
			}
			return g.scope, errors.New("the store is broken")
		})
	case "restart":
		s.restart()
	case "old version":
		s.known = !s.known
		s.restart()
	}
}

// dead says whether an event has a dead letter, or may be about to have one.
func (s *storm) dead(id string) bool {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.letters {
		if l.EventID == id || l.Fault.Reason == event.ReasonUnknownType && strings.Contains(string(l.Original.Data), `"`+id+`"`) {
			return true
		}
	}
	return !s.known
}

func (s *storm) at(second int) time.Time { return s.start.Add(time.Duration(second) * time.Second) }

func keyOf(account, service int) ledger.Key {
	return ledger.CountKey(organization, fmt.Sprint("a", account), fmt.Sprint("s", service))
}

// tellEvent publishes an event for the first time and says where it arrived.
func (s *storm) tellEvent(e event.Event) uint64 {
	arrival := uint64(event.ArrivalAt(s.publish(e.Subject().String(), e.Structured()), 0))
	s.events = append(s.events, e)
	s.arrivals = append(s.arrivals, arrival)
	return arrival
}

func (s *storm) newEvent(id string, g gust, data event.Data) event.Event {
	e := event.Event{
		ID: id, Source: "//test", Type: event.TypeCount, Time: s.at(g.second).UTC(), Vendor: vendor, Organization: organization,
		Backfill: g.backfill, Data: data,
	}
	if _, ok := data.(event.Snapshot); ok {
		e.Type = event.TypeSnapshot
	}
	return e
}

func (s *storm) figure(g gust) {
	key := keyOf(g.account, g.service)
	e := s.newEvent(fmt.Sprint("f", len(s.events)), g, figure(key.Account, key.Service, int64(g.units)))
	arrival := s.tellEvent(e)
	s.truths = append(s.truths, truth{key, ledger.Version{Time: e.Time.UnixNano(), Arrival: arrival}, int64(g.units), g.backfill})
}

// snapshotOf publishes the first part of a snapshot and holds back the others.
func (s *storm) snapshotOf(g gust) {
	s.snapshots++
	id := fmt.Sprint("m", s.snapshots)
	scope := ledger.ScopeKey(organization, "")
	if g.scope {
		scope.Account = fmt.Sprint("a", g.account)
	}
	named := map[ledger.Key]int{} // part, by key
	list := make([]event.Snapshot, g.parts)
	for i := range list {
		list[i] = event.Snapshot{AccountID: scope.Account, Counts: []event.Count{}, Part: i + 1, Parts: g.parts, SnapshotID: id}
	}
	for i := range g.named {
		if key := keyOf(i/2, i%2); g.named[i] && key.In(scope) {
			part := &list[i%g.parts]
			part.Counts = append(part.Counts, figure(key.Account, key.Service, int64(g.units+i)))
			named[key] = i % g.parts
		}
	}
	arrivals := make([]func() (uint64, bool), g.parts)
	for i, part := range list {
		e := s.newEvent(fmt.Sprint(id, "/", i), g, part)
		arrivals[i] = func() (uint64, bool) { return s.arrivalOf(e.ID) }
		if s.pending = append(s.pending, e); i == 0 {
			s.pending = s.pending[:len(s.pending)-1]
			s.tellEvent(e)
		}
	}
	for i := range g.named {
		key := keyOf(i/2, i%2)
		if !key.In(scope) {
			continue
		}
		at, isNamed := named[key]
		s.zeros = append(s.zeros, func() (truth, bool) {
			figures := truth{key: key, version: ledger.Version{Time: s.at(g.second).UnixNano()}, backfill: g.backfill}
			if isNamed {
				arrival, there := arrivals[at]()
				figures.version.Arrival, figures.units = arrival, int64(g.units+i)
				return figures, there
			}
			for _, f := range arrivals {
				arrival, there := f()
				if !there {
					return truth{}, false
				}
				figures.version.Arrival = max(figures.version.Arrival, arrival)
			}
			return figures, true
		})
	}
}

func (s *storm) arrivalOf(id string) (uint64, bool) {
	at := slices.IndexFunc(s.events, func(e event.Event) bool { return e.ID == id })
	if at < 0 {
		return 0, false
	}
	return s.arrivals[at], true
}

// release approves whatever waits.
func (s *storm) release() (found bool) {
	if s.rules.Verdicts == nil {
		s.rules.Verdicts = map[uint64]bool{}
	}
	for a := range 2 {
		for v := range 2 {
			e := s.entry(keyOf(a, v))
			for _, seen := range e.Seen {
				if seen.Waits != ledger.NoWait {
					s.rules.Verdicts[ledger.ApprovalID(e.Key, seen)] = true
					found = true
				}
			}
		}
	}
	if found {
		s.tell()
	}
	return found
}

// replay publishes every dead letter again and drops it.
func (s *storm) replay() (replayed int) {
	s.mu.Lock()
	letters := slices.SortedFunc(maps.Values(s.letters), func(a, b event.Letter) int { return strings.Compare(a.Place(), b.Place()) })
	clear(s.letters)
	s.mu.Unlock()
	for _, l := range letters {
		if l.Original.Sequence == 0 {
			continue // no event stands for it: only a new one can help
		}
		m, err := l.Replay()
		if err != nil {
			s.t.Fatalf("replay %s: %v", l.Place(), err)
		}
		s.publish(m.Subject, m.Data)
		replayed++
	}
	return replayed
}

func (s *storm) answer(f func(delivery.Task) delivery.Answer) {
	s.partner.mu.Lock()
	defer s.partner.mu.Unlock()
	s.partner.answers = f
}

// spoil has the partner refuse counts, or take them and lose the answer.
func (s *storm) spoil(g gust) {
	calls := 0
	s.answer(func(t delivery.Task) delivery.Answer {
		calls++
		switch {
		case t.Key.Kind != ledger.Count || g.chance < 1 && calls%3 != 0:
			return delivery.Answer{Class: delivery.Accepted, Status: 201}
		case g.kind == "reject":
			return delivery.Answer{Class: delivery.Rejected, Status: 422, Message: "no"}
		}
		return delivery.Answer{Class: delivery.Unavailable, Message: "accepted, answer lost"}
	})
}

// calm ends everything that is bad, and compares.
func (s *storm) calm() string {
	s.store.FailWith(nil)
	s.answer(nil)
	s.known = true
	s.restart()
	settle(time.Hour)
	for range 20 {
		released, replayed := s.release(), s.replay()
		settle(time.Hour)
		if !released && replayed == 0 {
			break
		}
	}
	if left := s.letterReasons(); len(left) > 0 {
		return fmt.Sprintf("dead letters in the end: got %v, want none", left)
	}
	if left := s.unacked(); len(left) > 0 {
		return fmt.Sprintf("messages not acked in the end: got %v, want none", left)
	}
	for a := range 2 {
		for v := range 2 {
			if problem := s.compare(keyOf(a, v)); problem != "" {
				return problem
			}
		}
	}
	return ""
}

func (s *storm) compare(key ledger.Key) string {
	best, want := ledger.Version{Time: -1}, int64(0)
	take := func(f truth) {
		if f.key == key && !s.reverted[f.backfill] && f.version.Compare(best) > 0 {
			best, want = f.version, f.units
		}
	}
	for _, f := range s.truths {
		take(f)
	}
	for _, f := range s.zeros {
		if figures, ok := f(); ok {
			take(figures)
		}
	}
	e := s.entry(key)
	if best.Time < 0 && e.State == ledger.Failed {
		return "" // nothing is known of it any more, and the partner refused to hear that
	}
	if got := s.partner.units(key.Account, key.Service); got != want {
		return fmt.Sprintf("%s: got %d units at the partner, want %d of %v; entry %+v", key, got, want, best, e)
	}
	return s.checkTape(key)
}

// checkTape looks for an older figure that went out after a newer one which
// nobody has taken back.
func (s *storm) checkTape(key ledger.Key) string {
	s.partner.mu.Lock()
	defer s.partner.mu.Unlock()
	var last ledger.Seen
	for _, task := range s.partner.tape {
		if task.Key != key {
			continue
		}
		takenBack := s.reverted["b1"] && last.Backfill == ledger.BackfillDigest("b1") || s.reverted["b2"] && last.Backfill == ledger.BackfillDigest("b2")
		if task.Figure.Version.Compare(last.Version) < 0 && !takenBack {
			return fmt.Sprintf("%s: %+v was sent after %+v", key, task.Figure, last)
		}
		last = task.Figure
	}
	return ""
}
