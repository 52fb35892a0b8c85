package ledger

import (
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"time"
)

// Rules are what people have said beforehand or since of the figures of one
// vendor. A Rules is not changed once it is in use; nil is the zero value.
type Rules struct {
	// Verdicts has, by ApprovalID, what a person has said of figures that
	// wait: true releases them, false refuses them.
	Verdicts map[uint64]bool
	// Reverted has the BackfillDigest of every backfill that was undone.
	Reverted map[uint64]bool
	// Jump is by service the factor, above 1, by which a count may differ from
	// the one before without waiting for approval. A service that is not in it
	// has no such limit.
	Jump map[string]float64
	// ZeroShare (0 to 1) and ZeroKeys are how many keys of a scope, of those
	// that have another figure, a snapshot may set to 0 without approval. Both
	// 0: it may set all.
	ZeroShare float64
	ZeroKeys  int
}

// Silent says that nobody has said anything of figures that were folded before.
func (r *Rules) Silent() bool { return r == nil || len(r.Verdicts) == 0 && len(r.Reverted) == 0 }

func (r *Rules) verdict(id uint64) (released, known bool) {
	if r == nil {
		return false, false
	}
	released, known = r.Verdicts[id]
	return released, known
}

func (r *Rules) refused(id uint64) bool {
	released, known := r.verdict(id)
	return known && !released
}

// RefusedFigure says whether a person has refused the figure that the event had
// for the key.
func (r *Rules) RefusedFigure(key Key, event uint64) bool {
	return r != nil && len(r.Verdicts) > 0 && r.refused(JumpID(key, event))
}

func (r *Rules) reverted(backfill uint64) bool {
	return r != nil && backfill != 0 && r.Reverted[backfill]
}

// tooMany says whether so many zeros, among keys that had another figure,
// need a person's word.
func (r *Rules) tooMany(zeros, keys int) bool {
	if r == nil || zeros == 0 {
		return false
	}
	return r.ZeroShare > 0 && float64(zeros) > r.ZeroShare*float64(keys) || r.ZeroKeys > 0 && zeros > r.ZeroKeys
}

// unit is one unit in millionths.
const unit = 1_000_000

// jumps says whether a count differs too much from the one before. Figures
// below one unit count as one unit: from nothing to a few is no jump.
func (r *Rules) jumps(service string, from, to int64) bool {
	factor := r.Jump[service]
	low, high := float64(max(min(from, to), unit)), float64(max(from, to))
	return factor > 1 && high > factor*low
}

// ApprovalID names, for a person's verdict, what waits: all zeros of a snapshot
// have one, every figure that jumped has its own.
func ApprovalID(key Key, s Seen) uint64 {
	if s.Waits == Vanished {
		return s.Event
	}
	return JumpID(key, s.Event)
}

// JumpID is the ApprovalID of the figure that an event has for the key, if it
// jumped.
func JumpID(key Key, event uint64) uint64 {
	return digest(fmt.Sprintf("%s\x00%s\x00%s\x00%d", key.Organization, key.Account, key.Service, event))
}

// BackfillDigest is what a figure remembers of its backfill's id; 0 for none.
func BackfillDigest(id string) uint64 {
	if id == "" {
		return 0
	}
	return digest(id)
}

func digest(text string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, text)
	return max(h.Sum64(), 1)
}

// Book is the part of the ledger that an event may concern.
type Book interface {
	// Entry is the key's entry; one that does not exist has nothing but its key.
	Entry(key Key) Entry
	// Put replaces an entry.
	Put(e Entry)
	// Counts yields the keys of every count of the scope.
	Counts(scope Key, yield func(Key))
}

// Folded is what became of one event.
type Folded struct {
	Disposition Disposition
	Figures     []Key // to look at: it changed their entries, or had before a crash
	Completed   []Key // scopes of which a snapshot is complete now: Review every count in them
	Lost        int   // snapshots that were given up, because too many had missing parts
}

// Fold folds the operations of one event into the book: all or, with an error
// that wraps ErrConflict, none of them. The newest Version wins whatever the
// order of arrival, also against the zeros of snapshots, and what was reverted
// or refused has no effect.
func Fold(b Book, operations []Operation, rules *Rules, now time.Time) (Folded, error) {
	for _, op := range operations {
		if err := conflict(b, op, rules, now); err != nil {
			return Folded{Disposition: Dead}, err
		}
	}
	f := Folded{Disposition: Duplicate}
	for _, op := range operations {
		f.fold(b, op, rules, now)
	}
	return f, nil
}

// conflict says whether the operation belongs to an event that came before
// with other content.
func conflict(b Book, op Operation, rules *Rules, now time.Time) error {
	if rules.reverted(BackfillDigest(op.Backfill)) {
		return nil // it will have no effect
	}
	e := b.Entry(op.Key)
	return e.Contradicts(op, now)
}

// Contradicts gives an error that wraps ErrConflict when the operation belongs
// to an event, or to a part of a snapshot, that came before with other content.
func (e *Entry) Contradicts(op Operation, now time.Time) error {
	if op.Part != nil {
		_, _, _, err := e.take(op, now)
		return err
	}
	for _, s := range e.Seen {
		if s.Event == op.Event && (s.Time != op.Time || s.Value != op.Value) {
			return ErrConflict
		}
	}
	return nil
}

func (f *Folded) fold(b Book, op Operation, rules *Rules, now time.Time) {
	if op.Backfill != "" {
		key := BackfillKey(op.Key.Organization, op.Backfill)
		e := b.Entry(key)
		if next, changed := e.note(key, op.Arrival); changed {
			b.Put(next)
			Review(b, key, rules, now)
		}
		if rules.reverted(BackfillDigest(op.Backfill)) {
			f.Disposition = strongest(f.Disposition, Superseded)
			return
		}
	}
	if op.Part != nil {
		f.takePart(b, op, rules, now)
		return
	}
	before := b.Entry(op.Key)
	next, what := before.foldFigure(b, op, rules, now)
	f.Disposition = strongest(f.Disposition, what)
	changed := !before.equal(&next)
	if changed {
		b.Put(next)
	}
	if changed || what == Applied {
		f.Figures = append(f.Figures, op.Key)
	}
}

// foldFigure is the entry after one figure, with the zeros of snapshots that
// are newer than it.
func (e *Entry) foldFigure(b Book, op Operation, rules *Rules, now time.Time) (Entry, Disposition) {
	current := *e
	current.Key = op.Key
	if op.Key.Kind == Count {
		for _, scope := range op.Key.scopes() {
			keeper := b.Entry(scope)
			current = current.covered(&keeper, rules, &op, now)
		}
		if rules != nil && (len(rules.Jump) > 0 || len(rules.Verdicts) > 0) {
			switch released, known := rules.verdict(JumpID(op.Key, op.Event)); {
			case known && !released:
				return *e, Superseded
			case !known && current.jumps(op.Version, op.Value, rules):
				op.Waits = Jumped
			}
		}
	}
	next, what, err := current.Apply(op, now)
	if err != nil {
		return *e, Dead // cannot be: conflict has looked
	}
	if what == Duplicate && op.Key.Kind == Count { // it may stand at an earlier arrival now
		next = next.coverAll(b, rules, now)
	}
	return next, what
}

// coverAll gives the entry the zeros of the snapshots of its scopes.
func (e *Entry) coverAll(b Book, rules *Rules, now time.Time) Entry {
	next := *e
	for _, scope := range e.Key.scopes() {
		keeper := b.Entry(scope)
		next = next.covered(&keeper, rules, nil, now)
	}
	return next
}

// jumps says whether the count differs too much from the newest before it that
// needs no approval. One that is not the newest is judged, too: it may become
// desired when another is taken back.
func (e *Entry) jumps(v Version, value Value, rules *Rules) bool {
	for _, s := range e.Seen {
		if s.Waits == NoWait && s.Version.Compare(v) < 0 {
			return rules.jumps(e.Key.Service, s.Value.Units, value.Units)
		}
	}
	before := e.Posted() && e.Delivered.Version.Compare(v) < 0
	return before && rules.jumps(e.Key.Service, e.Delivered.Value.Units, value.Units)
}

// wait is what the zeros of the snapshot are to wait for.
func (s *Snapshot) wait(rules *Rules) Wait {
	if released, _ := rules.verdict(s.Event); s.Waits && !released {
		return Vanished
	}
	return NoWait
}

// takePart folds a part, and looks what the snapshot sets to 0 if it is the
// last one.
func (f *Folded) takePart(b Book, op Operation, rules *Rules, now time.Time) {
	e := b.Entry(op.Key)
	next, what, completed, err := e.take(op, now)
	if err != nil {
		return // cannot be: conflict has looked
	}
	newer := func(s Snapshot) bool { return s.counts(rules) && s.Version.Compare(op.Version) > 0 }
	if what == Applied && slices.ContainsFunc(e.Snapshots, newer) {
		what = Superseded
	}
	f.Disposition = strongest(f.Disposition, what)
	at := slices.IndexFunc(next.Snapshots, func(s Snapshot) bool { return s.Event == op.Event })
	if at >= 0 && next.Snapshots[at].Complete() { // if it is gone, newer ones have pushed it out
		if completed {
			next.Snapshots[at].weigh(b, op.Key, rules)
		}
		f.Completed = append(f.Completed, op.Key) // also after a crash between this and the review
	}
	f.Lost += max(next.lost()-e.lost(), 0)
	b.Put(next)
}

// weigh counts what the snapshot sets to 0, and whether a person must approve.
func (s *Snapshot) weigh(b Book, scope Key, rules *Rules) {
	b.Counts(scope, func(key Key) {
		e := b.Entry(key)
		// Zeros that wait are no figures yet: were they refused, this snapshot
		// would set to 0 what they had hidden.
		at := slices.IndexFunc(e.Seen, func(f Seen) bool { return f.Waits == NoWait })
		if at < 0 || e.Seen[at].Value == (Value{}) {
			return
		}
		s.Keys++
		named := slices.ContainsFunc(e.Seen, func(f Seen) bool { return f.Event == s.Event })
		if !named && e.Seen[at].Version.Compare(s.Version) < 0 {
			s.Zeros++
		}
	})
	s.Waits = rules.tooMany(s.Zeros, s.Keys)
}

// Review brings the key's entry in line with the rules and with the snapshots
// of its scopes, and says whether anything changed. It may be called at any
// time and as often as anybody likes: what the ledger wants of a key is a
// function of its figures, the snapshots and the rules.
func Review(b Book, key Key, rules *Rules, now time.Time) (changed bool) {
	before := b.Entry(key)
	next := before
	switch {
	case key.Kind == Backfill && before.Register != nil:
		r := *before.Register
		if r.Reverted == 0 && rules.reverted(BackfillDigest(key.Service)) {
			r.Reverted = now.UnixNano()
			next.Register = &r
			b.Put(next)
			return true
		}
		return false
	case !key.Kind.Figure() || len(before.Seen) == 0:
		return false
	}
	if before.needsReview(rules) {
		next.judge(rules, now)
	}
	if key.Kind == Count {
		next = next.coverAll(b, rules, now)
	}
	if before.equal(&next) {
		return false
	}
	b.Put(next)
	return true
}

// judge carries out what people have said of the entry's figures since they
// were folded.
func (e *Entry) judge(rules *Rules, now time.Time) {
	was := e.Seen[0]
	seen := make([]Seen, 0, len(e.Seen))
	for _, s := range e.Seen {
		if s.Waits != NoWait {
			switch released, known := rules.verdict(ApprovalID(e.Key, s)); {
			case known && released:
				s.Waits = NoWait
			case known:
				continue
			}
		}
		if !rules.reverted(s.Backfill) {
			seen = append(seen, s)
		}
	}
	if len(seen) == 0 {
		// Nothing is left of what the key was known by. The partner may have
		// got it, so it is told that there is nothing.
		seen = append(seen, Seen{Value: e.nothing(), Disposition: Applied})
	}
	e.Seen = seen
	if is := e.Seen[0]; is.Value != was.Value || is.Waits != was.Waits || is.Event != was.Event && e.State == Failed {
		e.want(now) // what failed may be of no more account
	}
}

// nothing is the value of a key that no event stands for: no units; an account
// or a service cannot be taken back and stays as it was.
func (e *Entry) nothing() Value {
	if e.Key.Kind == Count {
		return Value{}
	}
	return e.Seen[0].Value
}

// Unfounded says that no event stands for the figure: all that did were
// reverted or refused.
func (s Seen) Unfounded() bool { return s.Event == 0 && s.Version == Version{} }

// needsReview says whether what people can say may concern a figure.
func (e *Entry) needsReview(rules *Rules) bool {
	return slices.ContainsFunc(e.Seen, func(s Seen) bool { return s.Waits != NoWait || rules.reverted(s.Backfill) })
}

// equal says whether nothing differs that is stored.
func (e *Entry) equal(f *Entry) bool {
	return e.State == f.State && e.Reason == f.Reason && e.Attempts == f.Attempts && e.Next == f.Next && e.Since == f.Since &&
		e.Delivered == f.Delivered && e.Answer == f.Answer && slices.Equal(e.Seen, f.Seen)
}
