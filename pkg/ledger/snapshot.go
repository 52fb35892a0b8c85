package ledger

import (
	"fmt"
	"slices"
	"time"
)

// Part is one message of a snapshot.
type Part struct {
	Number, Of int    // 1 to Of; Of is 1 to 1000
	Content    uint64 // digest of all that it says
	Name       string // of the snapshot, for people
}

// Snapshot is what a scope knows of one snapshot. Its Time is that of its
// figures, its Arrival that of its latest part.
type Snapshot struct {
	Version

	Event    uint64 // digest by which its parts and its figures are known
	Name     string // for people
	Backfill string // that it belongs to; empty: none
	Of       int    // parts that it has
	Parts    []SeenPart
	Since    int64 // when its first part was folded, nanoseconds since 1970 UTC
	Done     int64 // when its last part was folded, or it was given up; 0: parts are missing
	Lost     bool  // it was given up: parts were missing for too long
	// Of a complete one, when it was completed: how many keys of the scope had
	// a figure other than 0, and how many of them it set to 0.
	Keys, Zeros int
	// Waits says that those zeros are to be approved by a person first.
	Waits bool
}

// SeenPart is a part that has come.
type SeenPart struct {
	Number  int
	Arrival uint64
	Content uint64
}

// Bounds of what a scope remembers.
const (
	maxOpen = 8 // snapshots with missing parts
	maxDone = 4 // complete ones, and as many that were given up
)

// Complete says whether all parts have come.
func (s *Snapshot) Complete() bool { return s.Done != 0 && !s.Lost }

// Open says whether parts are awaited.
func (s *Snapshot) Open() bool { return s.Done == 0 }

// counts says whether what the snapshot did not name is 0: it is complete, and
// neither refused nor reverted.
func (s *Snapshot) counts(rules *Rules) bool {
	refused := s.Waits && rules.refused(s.Event)
	return s.Complete() && !refused && !rules.reverted(BackfillDigest(s.Backfill))
}

// covered gives the entry the zeros of the scope's snapshots that count. With
// before set, an older figure is about to come: see cover. The newest one is
// not enough: of two of the same time the newer may have named the key at an
// arrival before that of the older.
func (e *Entry) covered(scope *Entry, rules *Rules, before *Operation, now time.Time) Entry {
	next := *e
	for i := range scope.Snapshots {
		s := &scope.Snapshots[i]
		switch {
		case !s.counts(rules), rules.RefusedFigure(e.Key, s.Event):
			// The latter did name the key, with a figure that a person refused.
		case before == nil:
			next = next.cover(s, s.wait(rules), false, now)
		case s.Event != before.Event && before.Version.Compare(s.Version) < 0:
			// The snapshot that a figure is of did name the key, even if that
			// was not recorded when the snapshot was.
			next = next.cover(s, s.wait(rules), true, now)
		}
	}
	return next
}

// take notes a part of a snapshot. completed says that it was the last one
// that was missing. The only error is one that wraps ErrConflict.
func (e *Entry) take(op Operation, now time.Time) (next Entry, what Disposition, completed bool, err error) {
	next = *e
	next.Key = op.Key
	next.Snapshots = slices.DeleteFunc(slices.Clone(e.Snapshots), func(s Snapshot) bool { return s.Lost && s.Event == op.Event })
	at := slices.IndexFunc(next.Snapshots, func(s Snapshot) bool { return s.Event == op.Event })
	if at < 0 {
		next.Snapshots = append(next.Snapshots, Snapshot{
			Version: Version{Time: op.Time}, Event: op.Event, Name: op.Part.Name, Backfill: op.Backfill,
			Of: op.Part.Of, Since: now.UnixNano(),
		})
		at = len(next.Snapshots) - 1
	}
	s := &next.Snapshots[at]
	if what, err = s.take(op); err != nil {
		return *e, Dead, false, err
	}
	if s.Open() && len(s.Parts) == s.Of {
		s.Done, completed = now.UnixNano(), true
	}
	next.forget(now)
	return next, what, completed, nil
}

func (s *Snapshot) take(op Operation) (Disposition, error) {
	part := op.Part
	switch {
	case s.Time != op.Time:
		return Dead, fmt.Errorf("part %d of snapshot %q has another time than the parts before it: %w", part.Number, part.Name, ErrConflict)
	case s.Backfill != op.Backfill:
		return Dead, fmt.Errorf("part %d of snapshot %q names another backfill than the parts before it: %w", part.Number, part.Name, ErrConflict)
	case s.Of != part.Of:
		return Dead, fmt.Errorf("part %d of snapshot %q says that it has %d parts, the parts before it say %d: %w", part.Number, part.Name, part.Of, s.Of, ErrConflict)
	}
	what := Applied
	s.Parts = slices.Clone(s.Parts)
	at := slices.IndexFunc(s.Parts, func(p SeenPart) bool { return p.Number == part.Number })
	switch {
	case at < 0:
		s.Parts = append(s.Parts, SeenPart{Number: part.Number, Arrival: op.Arrival, Content: part.Content})
	case s.Parts[at].Content != part.Content:
		return Dead, fmt.Errorf("part %d of snapshot %q came before with other content: %w", part.Number, part.Name, ErrConflict)
	case s.Parts[at].Arrival != op.Arrival:
		what = Duplicate
		s.Parts[at].Arrival = min(s.Parts[at].Arrival, op.Arrival)
	}
	s.Arrival = 0
	for _, p := range s.Parts {
		s.Arrival = max(s.Arrival, p.Arrival)
	}
	return what, nil
}

// GiveUp gives up the snapshots of the scope that have waited for parts for
// longer than patience, and says how many.
func (e *Entry) GiveUp(now time.Time, patience time.Duration) (next Entry, lost int) {
	next = *e
	next.Snapshots = slices.Clone(e.Snapshots)
	for i := range next.Snapshots {
		if s := &next.Snapshots[i]; s.Open() && now.Sub(time.Unix(0, s.Since)) > patience {
			s.giveUp(now)
			lost++
		}
	}
	next.forget(now)
	return next, lost
}

// lost is how many snapshots of the scope are known to have been given up.
func (e *Entry) lost() (n int) {
	for i := range e.Snapshots {
		if e.Snapshots[i].Lost {
			n++
		}
	}
	return n
}

func (s *Snapshot) giveUp(now time.Time) { s.Done, s.Lost, s.Parts = now.UnixNano(), true, nil }

// forget puts the newest snapshot first and drops what is beyond the bounds. Of
// too many with missing parts the oldest is given up: once a newer one is
// complete, it says nothing any more.
func (e *Entry) forget(now time.Time) {
	slices.SortStableFunc(e.Snapshots, func(a, b Snapshot) int { return b.Version.Compare(a.Version) })
	open := 0
	for i := range e.Snapshots {
		if s := &e.Snapshots[i]; s.Open() {
			if open++; open > maxOpen {
				s.giveUp(now)
			}
		}
	}
	done, lost := 0, 0
	kept := e.Snapshots[:0]
	for _, s := range e.Snapshots {
		switch {
		case s.Lost:
			lost++
		case s.Complete():
			done++
		}
		if s.Open() || s.Lost && lost <= maxDone || s.Complete() && done <= maxDone {
			kept = append(kept, s)
		}
	}
	e.Snapshots = kept
}

// cover gives the entry the figure 0 of a snapshot that did not name its key,
// unless it has a newer figure. With always it remembers the zero even when it
// changes nothing now, because an older figure is about to come.
func (e *Entry) cover(mark *Snapshot, wait Wait, always bool, now time.Time) Entry {
	zero := Operation{Key: e.Key, Version: mark.Version, Event: mark.Event, Backfill: mark.Backfill, Waits: wait}
	late := false // the zero is there, of when its parts were known at later arrivals only
	for _, s := range e.Seen {
		if s.Event == mark.Event && s.Arrival <= mark.Arrival {
			return *e // it did name the key, or the zero is there
		}
		late = late || s.Event == mark.Event
	}
	if desired, ok := e.Desired(); ok && !late && !desired.Unfounded() &&
		(desired.Version.Compare(mark.Version) > 0 || desired.Value == Value{} && !always) {
		return *e
	}
	next, _, err := e.Apply(zero, now)
	if err != nil {
		return *e // it named the key at a later arrival: the figure stands
	}
	return next
}

// Register is what the ledger knows of a backfill in one organization.
type Register struct {
	First, Last uint64 // arrivals of its events
	Reverted    int64  // when it was undone, nanoseconds since 1970 UTC; 0: it stands
}

// note widens the register to an event of the backfill.
func (e *Entry) note(key Key, arrival uint64) (next Entry, changed bool) {
	next = *e
	next.Key = key
	r := Register{First: arrival, Last: arrival}
	if e.Register != nil {
		r = *e.Register
		r.First, r.Last = min(r.First, arrival), max(r.Last, arrival)
		if r == *e.Register {
			return next, false
		}
	}
	next.Register = &r
	return next, true
}

// strongest is the disposition of an event that has several effects: what most of
// all says that something became of it.
func strongest(a, b Disposition) Disposition {
	for _, d := range [...]Disposition{Applied, Unchanged, Superseded} {
		if a == d || b == d {
			return d
		}
	}
	return Duplicate
}
