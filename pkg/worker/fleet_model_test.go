package worker_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// model knows what was published, and nothing of the program: neither its
// ledger nor the order in which anything was folded.
type model struct {
	figures   []modelFigure
	snapshots []*modelSnapshot
}

// rank orders the figures of a key: by time, then by place in the log.
type rank struct {
	second   int
	sequence uint64
}

func (r rank) compare(other rank) int {
	return cmp.Or(cmp.Compare(r.second, other.second), cmp.Compare(r.sequence, other.sequence))
}

type modelFigure struct {
	key   ledger.Key
	rank  rank
	units int64
	known time.Time // when it was published
}

// modelSnapshot makes 0 of every key in its scope that none of its parts
// names, once all parts are there.
type modelSnapshot struct {
	organization string
	account      string // empty: all
	second       int
	named        map[ledger.Key]bool
	missing      int
	last         uint64
	complete     time.Time
}

// candidates are all figures of the key, oldest first.
func (m *model) candidates(key ledger.Key) []modelFigure {
	var all []modelFigure
	for _, f := range m.figures {
		if f.key == key {
			all = append(all, f)
		}
	}
	for _, s := range m.snapshots {
		inScope := s.organization == key.Organization && (s.account == "" || s.account == key.Account)
		if inScope && s.missing == 0 && !s.named[key] {
			all = append(all, modelFigure{key, rank{s.second, s.last}, 0, s.complete})
		}
	}
	slices.SortFunc(all, func(a, b modelFigure) int { return a.rank.compare(b.rank) })
	return all
}

// judge compares what the partner took of a key with what it should have
// taken: nothing that was not published by then, never an older figure after a
// newer one, and with settled the newest in the end. A key of which it was
// never told counts as 0.
func (m *model) judge(key ledger.Key, tape []taken, settled bool) string {
	all := m.candidates(key)
	last := -1
	for n, t := range tape {
		// Figures may be alike: the oldest that explains what came forbids least.
		at := slices.IndexFunc(all[max(last, 0):], func(f modelFigure) bool { return f.units == t.units && !f.known.After(t.at) })
		if at < 0 {
			return fmt.Sprintf("%s: the partner took %d from %s at %v, after %v; published are %v",
				key, t.units, t.worker, t.at.Format(time.TimeOnly), units(tape[:n]), ranked(all))
		}
		last = max(last, 0) + at
	}
	if !settled {
		return ""
	}
	got, want := int64(0), int64(0)
	if len(tape) > 0 {
		got = tape[len(tape)-1].units
	}
	if len(all) > 0 {
		want = all[len(all)-1].units
	}
	if got != want {
		return fmt.Sprintf("%s: the partner has %d in the end after %v, want %d; published are %v", key, got, units(tape), want, ranked(all))
	}
	return ""
}

func units(tape []taken) (list []string) {
	for _, t := range tape {
		list = append(list, fmt.Sprintf("%d (%s %s)", t.units, t.worker, t.at.Format("04:05.000")))
	}
	return list
}

func ranked(all []modelFigure) (list []string) {
	for _, f := range all {
		list = append(list, fmt.Sprintf("%d@%d/%d", f.units, f.rank.second, f.rank.sequence))
	}
	return list
}

// figure publishes a count.
func (f *fleet) figure(d deed) {
	key := f.key(d)
	f.events++
	// Figures that are like no other show which of them came; those that are
	// alike, and 0, show what is easily taken for another.
	amount := int64(d.units)
	if amount > 3 {
		amount = int64(1000 + f.events)
	}
	id := fmt.Sprint("f", f.events)
	source := "//test"
	if d.twin && len(f.sent) > 0 { // the id of another event, from another system
		twin := f.sent[d.number%len(f.sent)]
		if _, ok := twin.Data.(event.Count); ok && twin.Source == source {
			id, source = twin.ID, fmt.Sprint("//test/", f.events)
		}
	}
	e := f.newEvent(id, d, figure(key.Account, key.Service, amount))
	e.Source = source
	sequence := f.post(e)
	f.model.figures = append(f.model.figures, modelFigure{key, rank{d.second, sequence}, amount, time.Now()})
}

// snapshot publishes a snapshot, or its first part.
func (f *fleet) snapshot(d deed) {
	if len(f.model.snapshots) >= mostSnapshots {
		return
	}
	f.events++
	id := fmt.Sprint("m", f.events)
	s := &modelSnapshot{organization: f.organization(d), second: d.second, named: map[ledger.Key]bool{}, missing: d.parts}
	if d.scope {
		s.account = fmt.Sprint("a", d.account)
	}
	list := make([]event.Snapshot, d.parts)
	for i := range list {
		list[i] = event.Snapshot{AccountID: s.account, Counts: []event.Count{}, Part: i + 1, Parts: d.parts, SnapshotID: id}
	}
	named := make([][]modelFigure, d.parts)
	for i := range keysEach {
		key := ledger.CountKey(s.organization, fmt.Sprint("a", i/2), fmt.Sprint("s", i%2))
		if d.named&(1<<i) == 0 || s.account != "" && s.account != key.Account {
			continue
		}
		at, amount := i%d.parts, int64(5000+10*f.events+i)
		s.named[key] = true
		list[at].Counts = append(list[at].Counts, figure(key.Account, key.Service, amount))
		named[at] = append(named[at], modelFigure{key: key, rank: rank{second: d.second}, units: amount})
	}
	f.model.snapshots = append(f.model.snapshots, s)
	for i, part := range list {
		e := f.newEvent(fmt.Sprint(id, "/", i), d, part)
		f.parts = append(f.parts, func() { f.part(s, e, named[i]) })
	}
	f.nextPart(len(f.parts) - d.parts)
}

// mostSnapshots is less than a scope remembers.
const mostSnapshots = 4

func (f *fleet) nextPart(i int) {
	if len(f.parts) == 0 {
		return
	}
	i %= len(f.parts)
	publish := f.parts[i]
	f.parts = slices.Delete(f.parts, i, i+1)
	publish()
}

func (f *fleet) part(s *modelSnapshot, e event.Event, named []modelFigure) {
	sequence := f.post(e)
	for _, figure := range named {
		figure.rank.sequence, figure.known = sequence, time.Now()
		f.model.figures = append(f.model.figures, figure)
	}
	s.last = max(s.last, sequence)
	if s.missing--; s.missing == 0 {
		s.complete = time.Now()
	}
}

// again publishes an event once more, if the first one is recorded for good:
// of a repeat that is folded before its first nobody could know the place.
func (f *fleet) again(d deed) {
	if len(f.sent) == 0 || f.anyOld() {
		return
	}
	e := f.sent[d.number%len(f.sent)]
	f.mu.Lock()
	open := len(f.letters) > 0
	for i := range f.log {
		open = open || f.partitionOf(&f.log[i]) == f.partition(e.Organization) && !f.acked[f.log[i].Sequence]
	}
	f.mu.Unlock()
	if !open {
		f.store1(e.Subject().String(), e.Structured())
	}
}

// replay publishes dead letters again and drops them.
func (f *fleet) replay() (replayed int) {
	f.mu.Lock()
	letters := make([]event.Letter, 0, len(f.letters))
	for place, l := range f.letters {
		letters = append(letters, l)
		delete(f.letters, place)
	}
	f.mu.Unlock()
	slices.SortFunc(letters, func(a, b event.Letter) int { return cmp.Compare(a.Place(), b.Place()) })
	for _, l := range letters {
		m, err := l.Replay()
		if err != nil {
			f.report("replay %s: %v", l.Place(), err)
			continue
		}
		f.store1(m.Subject, m.Data)
		replayed++
	}
	return replayed
}
