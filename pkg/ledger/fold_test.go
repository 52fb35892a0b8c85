package ledger_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// shelf is a ledger in memory.
type shelf struct{ ledger.Shelf }

func newShelf() shelf { return shelf{ledger.Shelf{}} }

func (s shelf) reviewAll(rules *ledger.Rules) {
	for _, key := range slices.Collect(maps.Keys(s.Shelf)) {
		ledger.Review(s.Shelf, key, rules, now)
	}
}

// fold folds an event and does what a worker does when a snapshot is complete.
func (s shelf) fold(ops []ledger.Operation, rules *ledger.Rules) (ledger.Disposition, error) {
	f, err := ledger.Fold(s.Shelf, ops, rules, now)
	for _, scope := range f.Completed {
		s.Counts(scope, func(key ledger.Key) { ledger.Review(s.Shelf, key, rules, now) })
	}
	return f.Disposition, err
}

// story is a set of events as publishers would have made them: single counts
// and the parts of snapshots, some of them of a backfill.
type story struct {
	events    [][]ledger.Operation
	snapshots map[uint64]*told
}

// told is a snapshot of the story.
type told struct {
	scope    ledger.Key
	version  ledger.Version // with the arrival of its latest part
	names    map[ledger.Key]bool
	backfill string
}

func count(account, service int) ledger.Key {
	return ledger.CountKey("o", fmt.Sprint("a", account), fmt.Sprint("s", service))
}

// drawStory draws few keys and few times, so that everything meets everything.
// Each arrival is used once.
func drawStory(t *rapid.T) *story {
	s := &story{snapshots: map[uint64]*told{}}
	arrival := uint64(0)
	next := func() uint64 { arrival++; return arrival }
	backfill := rapid.SampledFrom([]string{"", "", "", "b1", "b2"})
	units := rapid.SampledFrom([]int64{0, 1, 2, 3, 500, 900})
	when := rapid.IntRange(1, 6)
	for i := range rapid.IntRange(1, 9).Draw(t, "counts") {
		s.events = append(s.events, []ledger.Operation{{
			Key:      count(rapid.IntRange(1, 2).Draw(t, "account"), rapid.IntRange(1, 2).Draw(t, "service")),
			Version:  ledger.Version{Time: int64(when.Draw(t, "time")), Arrival: next()},
			Value:    ledger.Value{Units: units.Draw(t, "units") * 1_000_000},
			Event:    uint64(1000 + i),
			Backfill: backfill.Draw(t, "backfill"),
		}})
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "snapshots") {
		s.drawSnapshot(t, uint64(1+i), int64(when.Draw(t, "time")), backfill.Draw(t, "backfill"), units, next)
	}
	return s
}

func (s *story) drawSnapshot(t *rapid.T, id uint64, when int64, backfill string, units *rapid.Generator[int64], next func() uint64) {
	account := rapid.SampledFrom([]string{"", "a1"}).Draw(t, "account")
	snapshot := &told{scope: ledger.ScopeKey("o", account), names: map[ledger.Key]bool{}, backfill: backfill}
	parts := rapid.IntRange(1, 3).Draw(t, "parts")
	all := []ledger.Key{count(1, 1), count(1, 2), count(2, 1), count(2, 2)}
	for number := 1; number <= parts; number++ {
		version := ledger.Version{Time: when, Arrival: next()}
		snapshot.version = version
		var ops []ledger.Operation
		for _, key := range all {
			if !key.In(snapshot.scope) || snapshot.names[key] || !rapid.Bool().Draw(t, "named") {
				continue
			}
			snapshot.names[key] = true
			ops = append(ops, ledger.Operation{
				Key: key, Version: version, Event: id, Backfill: backfill, Value: ledger.Value{Units: units.Draw(t, "units") * 1_000_000},
			})
		}
		ops = append(ops, ledger.Operation{
			Key: snapshot.scope, Version: version, Event: id, Backfill: backfill,
			Part: &ledger.Part{Number: number, Of: parts, Content: uint64(number), Name: fmt.Sprint("s", id)},
		})
		s.events = append(s.events, ops)
	}
	s.snapshots[id] = snapshot
}

// said is what people have said, in the words of the model.
type said struct {
	reverted map[string]bool
	figures  map[figureName]bool // refused ones that jumped
	zeros    map[uint64]bool     // refused snapshots
}

type figureName struct {
	key   ledger.Key
	event uint64
}

// want is the definition of what a key is worth: of all valid figures, the
// zeros of complete snapshots among them, that with the newest version.
func (s *story) want(key ledger.Key, people said) (units int64, known bool) {
	best := ledger.Version{Time: -1}
	take := func(v ledger.Version, value int64) {
		if v.Compare(best) > 0 {
			best, units = v, value
		}
	}
	for _, ops := range s.events {
		for _, op := range ops {
			if op.Key != key {
				continue
			}
			known = known || !people.reverted[op.Backfill]
			if !people.reverted[op.Backfill] && !people.figures[figureName{key, op.Event}] {
				take(op.Version, op.Value.Units)
			}
		}
	}
	for id, snapshot := range s.snapshots {
		refused := people.zeros[id] || people.figures[figureName{key, id}]
		if key.In(snapshot.scope) && !snapshot.names[key] && !refused && !people.reverted[snapshot.backfill] {
			take(snapshot.version, 0)
		}
	}
	return units, known
}

// about tells what the story says of a key.
func (s *story) about(key ledger.Key) string {
	var lines []string
	for _, ops := range s.events {
		for _, op := range ops {
			if op.Key == key {
				lines = append(lines, fmt.Sprintf("%d at %v (event %d, backfill %q)", op.Value.Units, op.Version, op.Event, op.Backfill))
			}
		}
	}
	for id, snapshot := range s.snapshots {
		lines = append(lines, fmt.Sprintf("snapshot %d of %s at %v names it: %t (backfill %q)", id, snapshot.scope, snapshot.version, snapshot.names[key], snapshot.backfill))
	}
	return strings.Join(lines, "\n")
}

func TestAnyOrderOfEventsSnapshotsRevertsAndApprovalsEndsWithTheNewestValidFigures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStory(t)
		var order [][]ledger.Operation
		for _, ops := range s.events {
			for range rapid.IntRange(1, 2).Draw(t, "deliveries") {
				order = append(order, ops)
			}
		}
		order = rapid.Permutation(order).Draw(t, "order")
		p := &people{
			t: t, book: newShelf(), said: said{reverted: map[string]bool{}, figures: map[figureName]bool{}, zeros: map[uint64]bool{}},
			rules: &ledger.Rules{Jump: map[string]float64{"s1": 100}},
			tape:  map[ledger.Key]ledger.Seen{},
		}
		if rapid.Bool().Draw(t, "strict") {
			p.rules.ZeroKeys = 1
		}
		for _, ops := range order {
			if _, err := p.book.fold(ops, p.rules); err != nil {
				t.Fatalf("fold %+v: %v", ops, err)
			}
			p.act(s)
		}
		for p.approveAll() {
		}
		for _, ops := range s.events {
			key := ops[0].Key
			if key.Kind != ledger.Count {
				continue
			}
			want, known := s.want(key, p.said)
			e := p.book.Entry(key)
			got, has := e.Desired()
			if known && !has || got.Value.Units != want {
				t.Fatalf("%s is worth %d (%+v), want %d; people said %+v of\n%s", key, got.Value.Units, e.Seen, want, p.said, s.about(key))
			}
		}
	})
}

// people are those who say things while events are folded, and a partner who
// takes what it is sent.
type people struct {
	t     *rapid.T
	book  shelf
	rules *ledger.Rules
	said  said
	tape  map[ledger.Key]ledger.Seen // last sent, by key
}

// say changes the rules, which are never changed in place.
func (p *people) say(change func(*ledger.Rules)) {
	next := *p.rules
	next.Verdicts, next.Reverted = maps.Clone(p.rules.Verdicts), maps.Clone(p.rules.Reverted)
	if next.Verdicts == nil {
		next.Verdicts, next.Reverted = map[uint64]bool{}, map[uint64]bool{}
	}
	change(&next)
	p.rules = &next
	p.book.reviewAll(p.rules)
}

func (p *people) act(s *story) {
	switch rapid.SampledFrom([]string{"nothing", "send", "send", "revert", "release", "refuse", "crash"}).Draw(p.t, "then") {
	case "send":
		for _, key := range p.keys() {
			p.send(s, key)
		}
	case "revert":
		id := rapid.SampledFrom([]string{"b1", "b2"}).Draw(p.t, "reverted")
		p.said.reverted[id] = true
		p.say(func(r *ledger.Rules) { r.Reverted[ledger.BackfillDigest(id)] = true })
	case "release":
		p.decide(true)
	case "refuse":
		if len(p.said.figures) < 3 { // an entry does not remember for ever
			p.decide(false)
		}
	case "crash":
		for key, e := range p.book.Shelf {
			stored, err := ledger.ParseEntry(key, ledger.AppendEntry(nil, &e))
			if err != nil {
				p.t.Fatal(err)
			}
			p.book.Shelf[key] = stored
		}
		p.book.reviewAll(p.rules)
	}
}

func (p *people) keys() []ledger.Key {
	return slices.SortedFunc(maps.Keys(p.book.Shelf), func(a, b ledger.Key) int { return cmp.Compare(a.String(), b.String()) })
}

// decide releases or refuses everything that waits at some key.
func (p *people) decide(release bool) bool {
	var waiting []ledger.Key
	for _, key := range p.keys() {
		e := p.book.Shelf[key]
		if e.State == ledger.Held && e.Reason == ledger.Approval {
			waiting = append(waiting, key)
		}
	}
	if len(waiting) == 0 {
		return false
	}
	key := rapid.SampledFrom(waiting).Draw(p.t, "decided")
	p.say(func(r *ledger.Rules) {
		for _, s := range p.book.Shelf[key].Seen {
			switch id := ledger.ApprovalID(key, s); {
			case s.Waits == ledger.NoWait:
				continue
			case release:
				r.Verdicts[id] = true
			case s.Waits == ledger.Vanished:
				r.Verdicts[id] = false
				p.said.zeros[s.Event] = true
			default:
				r.Verdicts[id] = false
				p.said.figures[figureName{key, s.Event}] = true
			}
		}
	})
	if e := p.book.Shelf[key]; release && e.State == ledger.Held && e.Reason == ledger.Approval {
		p.t.Fatalf("%s is still held for approval after all that waited was released: %+v", key, e.Seen)
	}
	return true
}

func (p *people) approveAll() bool { return p.decide(true) }

// send delivers a key, and checks that no older figure follows a newer one
// that still counts.
func (p *people) send(s *story, key ledger.Key) {
	e := p.book.Shelf[key]
	if e.State != ledger.Dirty {
		return
	}
	figure, _ := e.Desired()
	if figure.Waits != ledger.NoWait {
		p.t.Fatalf("%s would be sent, and waits for approval: %+v", key, e)
	}
	last, sent := p.tape[key]
	if sent && figure.Version.Compare(last.Version) < 0 && p.valid(s, key, last) {
		p.t.Fatalf("%s: %+v was sent after %+v, which is newer and valid", key, figure, last)
	}
	p.tape[key] = figure
	p.book.Shelf[key] = e.Accept(figure, ledger.Receipt{}, ledger.Answer{At: now.Add(time.Second).UnixNano(), Status: 200})
}

// valid says whether nobody has taken the figure back.
func (p *people) valid(s *story, key ledger.Key, figure ledger.Seen) bool {
	if p.said.figures[figureName{key, figure.Event}] || figure.Unfounded() {
		return false
	}
	for id := range p.said.reverted {
		if figure.Backfill == ledger.BackfillDigest(id) {
			return false
		}
	}
	snapshot := s.snapshots[figure.Event]
	return snapshot == nil || snapshot.names[key] || !p.said.zeros[figure.Event]
}

// figureAt is a plain count of a1/s1.
func figureAt(event, when, units int) []ledger.Operation {
	return []ledger.Operation{{
		Key: count(1, 1), Version: ledger.Version{Time: int64(when), Arrival: uint64(event)}, Event: uint64(event),
		Value: ledger.Value{Units: int64(units) * 1_000_000},
	}}
}

func TestWhatARefusedFigureHadHiddenIsJudgedInItsTurn(t *testing.T) {
	s, rules := newShelf(), &ledger.Rules{Jump: map[string]float64{"s1": 10}}
	for _, ops := range [][]ledger.Operation{figureAt(1, 10, 5), figureAt(2, 30, 9000), figureAt(3, 20, 8000)} {
		if _, err := s.fold(ops, rules); err != nil {
			t.Fatal(err)
		}
	}
	e := s.Entry(count(1, 1))
	next := *rules
	next.Verdicts = map[uint64]bool{ledger.ApprovalID(e.Key, e.Seen[0]): false}
	s.reviewAll(&next)
	e = s.Entry(count(1, 1))
	if e.Seen[0].Value.Units != 8000_000_000 || e.State != ledger.Held || e.Reason != ledger.Approval {
		t.Errorf("after 9000 is refused: got %+v, %s %s; want 8000 held for approval", e.Seen[0], e.State, e.Reason)
	}
	next.Verdicts[ledger.ApprovalID(e.Key, e.Seen[0])] = false
	s.reviewAll(&next)
	if e = s.Entry(count(1, 1)); e.Seen[0].Value.Units != 5_000_000 || e.State != ledger.Dirty {
		t.Errorf("after 8000 is refused, too: got %+v, %s; want 5, to be sent", e.Seen[0], e.State)
	}
	if what, _ := s.fold(figureAt(2, 30, 9000), &next); what != ledger.Superseded {
		t.Errorf("the refused event once more: got %s, want superseded", what)
	}
}

func TestANamedFigureThatIsForgottenIsNoConflictWhenItsPartComesAgain(t *testing.T) {
	s := newShelf()
	part := append(figureAt(1, 10, 5), ledger.Operation{
		Key: ledger.ScopeKey("o", ""), Version: ledger.Version{Time: 10, Arrival: 1}, Event: 1, Part: &ledger.Part{Number: 1, Of: 1},
	})
	all := [][]ledger.Operation{part}
	for i := 2; i < 8; i++ {
		all = append(all, figureAt(i, 10*i, i))
	}
	for _, ops := range append(all, figureAt(9, 5, 1), part) { // an older one in between
		if _, err := s.fold(ops, nil); err != nil {
			t.Fatalf("fold %+v: %v", ops, err)
		}
	}
	if e := s.Entry(count(1, 1)); e.Seen[0].Value.Units != 7_000_000 {
		t.Errorf("desired: got %+v, want 7", e.Seen[0])
	}
}

func TestWhatContradictsAPartIsAConflict(t *testing.T) {
	scope := ledger.Operation{
		Key: ledger.ScopeKey("o", ""), Version: ledger.Version{Time: 10, Arrival: 1}, Event: 1, Part: &ledger.Part{Number: 1, Of: 2, Content: 7},
	}
	tests := []struct {
		name   string
		change func(*ledger.Operation)
	}{
		{"another time", func(op *ledger.Operation) { op.Time = 11; op.Part.Number = 2 }},
		{"another number of parts", func(op *ledger.Operation) { op.Part.Number, op.Part.Of = 2, 3 }},
		{"other content", func(op *ledger.Operation) { op.Part.Content = 8 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newShelf()
			if _, err := s.fold([]ledger.Operation{scope}, nil); err != nil {
				t.Fatal(err)
			}
			other, part := scope, *scope.Part
			other.Part = &part
			tt.change(&other)
			figure := figureAt(1, int(other.Time), 5)
			what, err := s.fold(append(figure, other), nil)
			if what != ledger.Dead || !errors.Is(err, ledger.ErrConflict) {
				t.Errorf("got %s, %v; want dead, a conflict", what, err)
			}
			if _, folded := s.Shelf[count(1, 1)]; folded {
				t.Error("a figure of the part that conflicts was folded")
			}
		})
	}
}

// snapshotAt is a snapshot of the organization in one part, with the figures
// given.
func snapshotAt(event, when int, figures ...ledger.Operation) []ledger.Operation {
	version := ledger.Version{Time: int64(when), Arrival: uint64(event)}
	for i := range figures {
		figures[i].Version, figures[i].Event = version, uint64(event)
	}
	return append(figures, ledger.Operation{
		Key: ledger.ScopeKey("o", ""), Version: version, Event: uint64(event), Part: &ledger.Part{Number: 1, Of: 1},
	})
}

// tell folds events one after the other, and reviews all in between.
func tell(t *testing.T, rules *ledger.Rules, events ...[]ledger.Operation) shelf {
	t.Helper()
	s := newShelf()
	for _, ops := range events {
		if _, err := s.fold(ops, rules); err != nil {
			t.Fatalf("fold %+v: %v", ops, err)
		}
	}
	return s
}

// verdict is the rules with one more word: on what waits at the key.
func (s shelf) verdict(rules *ledger.Rules, key ledger.Key, release bool) *ledger.Rules {
	next := *rules
	next.Verdicts = maps.Clone(rules.Verdicts)
	if next.Verdicts == nil {
		next.Verdicts = map[uint64]bool{}
	}
	next.Verdicts[ledger.ApprovalID(key, s.Entry(key).Seen[0])] = release
	s.reviewAll(&next)
	return &next
}

func (s shelf) expect(t *testing.T, key ledger.Key, units int, state ledger.State) {
	t.Helper()
	e := s.Entry(key)
	if desired, _ := e.Desired(); desired.Value.Units != int64(units)*1_000_000 || e.State != state {
		t.Errorf("%s: got %+v, %s %s; want %d units, %s", key, desired, e.State, e.Reason, units, state)
	}
}

func TestZerosOfASnapshotAreWeighedAgainstWhatOthersHideOnlyForNow(t *testing.T) {
	rules := &ledger.Rules{ZeroKeys: 1}
	key, other := count(1, 1), count(2, 2)
	figure := func(key ledger.Key, event int) []ledger.Operation {
		ops := figureAt(event, 1, 5)
		ops[0].Key = key
		return ops
	}
	s := tell(t, rules, figure(key, 1), figure(count(1, 2), 2), figure(other, 3), figure(count(2, 1), 4),
		snapshotAt(5, 10, figureAt(5, 10, 6)...), snapshotAt(6, 20, figureAt(6, 20, 6)...)) // both forget three keys
	s.expect(t, other, 0, ledger.Held)
	next := s.verdict(rules, other, false)
	s.expect(t, other, 0, ledger.Held) // by the other snapshot now
	s.verdict(next, other, false)
	s.expect(t, other, 5, ledger.Dirty)
	s.expect(t, key, 6, ledger.Dirty)
}

func TestALateFigureNeitherHidesAJumpNorEscapesJudgment(t *testing.T) {
	rules := &ledger.Rules{Jump: map[string]float64{"s1": 10}}
	s := tell(t, rules, figureAt(1, 10, 5), figureAt(2, 30, 9000), figureAt(3, 20, 8000), figureAt(4, 40, 9000))
	s.expect(t, count(1, 1), 9000, ledger.Held)

	backfilled := figureAt(2, 30, 6)
	backfilled[0].Backfill = "b"
	s = tell(t, rules, figureAt(1, 10, 5), backfilled, figureAt(3, 20, 8000))
	s.expect(t, count(1, 1), 6, ledger.Dirty)
	next := *rules
	next.Reverted = map[uint64]bool{ledger.BackfillDigest("b"): true}
	s.reviewAll(&next)
	s.expect(t, count(1, 1), 8000, ledger.Held)
}

func TestASnapshotNeverZeroesAKeyThatItNamedHoweverManyFiguresAreRefused(t *testing.T) {
	rules := &ledger.Rules{Jump: map[string]float64{"s1": 10}}
	key := count(1, 1)
	s := tell(t, rules, figureAt(1, 1, 5), snapshotAt(2, 10, figureAt(2, 10, 9000)...))
	for i := range 12 {
		s.expect(t, key, 9000, ledger.Held)
		rules = s.verdict(rules, key, false)
		if _, err := s.fold(figureAt(10+i, 20+i, 9000), rules); err != nil {
			t.Fatal(err)
		}
	}
	s.verdict(rules, key, false)
	s.expect(t, key, 5, ledger.Dirty)
}

func TestWhatThePartnerHasIsNotHeldBecauseWhatCameAfterWasRefused(t *testing.T) {
	key := count(1, 1)
	s := tell(t, nil, figureAt(1, 1, 5), figureAt(2, 2, 100))
	e := s.Entry(key)
	s.Put(e.Accept(e.Seen[0], ledger.Receipt{}, ledger.Answer{At: 1, Status: 200}))
	rules := &ledger.Rules{Jump: map[string]float64{"s1": 10}} // from now on
	if _, err := s.fold(figureAt(3, 3, 9000), rules); err != nil {
		t.Fatal(err)
	}
	s.verdict(rules, key, false)
	s.expect(t, key, 100, ledger.Dirty)
}

func TestASnapshotSeenAtAnEarlierArrivalLetsATiedFigureWin(t *testing.T) {
	scope := func(arrival int) []ledger.Operation {
		ops := snapshotAt(1, 10)
		ops[0].Arrival = uint64(arrival)
		return ops
	}
	for name, order := range map[string][][]ledger.Operation{
		"in order":     {scope(12), figureAt(15, 10, 9), scope(20)},
		"out of order": {scope(20), figureAt(15, 10, 9), scope(12)},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, nil, append([][]ledger.Operation{figureAt(2, 1, 5)}, order...)...).expect(t, count(1, 1), 9, ledger.Dirty)
		})
	}
}

func TestHoweverManyBackfillsAreUndoneTheFigureBelowThemStands(t *testing.T) {
	rules := &ledger.Rules{Reverted: map[uint64]bool{}}
	events := [][]ledger.Operation{figureAt(1, 1, 5)}
	for i := range 40 {
		ops := figureAt(10+i, 10+i, 100)
		ops[0].Backfill = fmt.Sprint("b", i)
		rules.Reverted[ledger.BackfillDigest(ops[0].Backfill)] = true
		events = append(events, ops)
	}
	s := tell(t, nil, events...)
	s.reviewAll(rules)
	s.expect(t, count(1, 1), 5, ledger.Dirty)
	if _, err := s.fold(events[1], rules); err != nil {
		t.Fatal(err)
	}
	late := figureAt(99, 99, 100)
	late[0].Backfill = "b7" // in an organization that had not heard of it
	late[0].Key.Organization = "other"
	if _, err := s.fold(late, rules); err != nil {
		t.Fatal(err)
	}
	if r := s.Entry(ledger.BackfillKey("other", "b7")).Register; r == nil || r.Reverted == 0 {
		t.Errorf("register of a backfill that was undone before: got %+v, want it undone", r)
	}
}
