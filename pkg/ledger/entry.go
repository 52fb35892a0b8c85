// Package ledger holds, per key, what the partner should have and what it has
// accepted. It is pure: folding an event, or the answer to a call, takes an
// entry and gives the next one.
//
// It deliberately does no I/O and has no clock: times come in as arguments.
// It knows neither how entries are stored nor how they are sent.
package ledger

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// Value is what a key holds at the partner. Values are compared with ==.
type Value struct {
	// Units is a unit count in millionths of a unit (counts only).
	Units int64
	// Properties is the canonical JSON object of an account's or a service's
	// properties (catalog keys only).
	Properties string
}

// Version orders the figures of one key: the greater Time wins, on a tie the
// greater Arrival. It is what "newest" means everywhere in this program.
type Version struct {
	Time    int64  // when the figure was true, nanoseconds since 1970 UTC
	Arrival uint64 // position in the log
}

// Compare is negative when v is older than w, 0 when equal, positive when newer.
func (v Version) Compare(w Version) int {
	if c := cmp.Compare(v.Time, w.Time); c != 0 {
		return c
	}
	return cmp.Compare(v.Arrival, w.Arrival)
}

// Seen is one event that an entry remembers.
type Seen struct {
	Version
	Value       Value
	Event       uint64 // digest of the event's source and id, or of its snapshot's
	Backfill    uint64 // BackfillDigest of the backfill that it belongs to; 0: none
	Disposition Disposition
	Waits       Wait
}

// Wait says why a figure is not to be sent before a person has approved it.
type Wait uint8

// The reasons to wait for approval.
const (
	NoWait   Wait = iota
	Vanished      // a snapshot did not name its key, and too many others
	Jumped        // it differs from the figure before by more than the service's factor
)

// Delivered is the last value that the partner accepted.
type Delivered struct {
	Version
	Receipt

	Value Value
	At    int64 // when the answer came, nanoseconds since 1970 UTC; 0: never
}

// Receipt says how the partner took a value.
type Receipt struct {
	RequestID string // the partner's name for the call, if it gave one
	// Generation of the integration in which it was taken, from 0. When the
	// partner has lost what it had, the integration's generation rises, and
	// what was taken in a lower one is not believed any longer.
	Generation int
	// Unbuilt says that the partner took the value without rebuilding its view
	// of the billing: another one was to follow.
	Unbuilt bool
}

// Answer is the last answer to a call for the key, good or bad.
type Answer struct {
	At      int64  // nanoseconds since 1970 UTC
	Status  int    // HTTP status; 0 when there was no answer
	Message string // cut and redacted by whoever made the call
}

// Entry is the ledger's record of one key. Treat it as a value: methods that
// change something return a new entry and leave the old one as it was, so
// that an entry can be shown while its successor is being written.
type Entry struct {
	Key Key
	// Seen remembers the newest events, newest first: Seen[0] is desired.
	// At least the newest four, and every event that shares the newest time
	// up to maxTied (maxTiedCatalog), so that a repeat of a tied event is known as a repeat.
	Seen      []Seen
	Delivered Delivered
	State     State
	Reason    HoldReason // set when State is Held
	Attempts  int        // calls made for the desired value without success; a newer value starts at 0
	Next      int64      // when the next attempt is due (Retrying), nanoseconds since 1970 UTC
	// Since is when the partner last stopped having the desired value, or 0
	// when it has it: the age of a dirty key counts from here.
	Since    int64
	Answer   Answer
	Revision uint64 // of the stored entry; 0: not stored yet. The store sets it.

	Snapshots []Snapshot // of a Scope alone: the newest first
	Register  *Register  // of a Backfill alone
}

const (
	minSeen = 4  // event contract: "at least its newest 4 events"
	maxTied = 32 // bound on remembered events of one single time
	// maxBases bounds the older figures that are remembered because a person
	// may yet take back all that is above them.
	maxBases = 12
	// maxTiedCatalog is that bound for accounts and services. Their longest
	// properties take 34 KiB each once they are stored, and an entry must fit
	// into a message of 1 MiB or it could never be stored again.
	maxTiedCatalog = 12
)

// Operation is one event's effect on one key.
type Operation struct {
	Key Key
	Version
	Value    Value
	Event    uint64 // digest of the event's source and id, or of its snapshot's
	Backfill string // id of the backfill that the event belongs to; empty: none
	Waits    Wait   // the figure is to be approved by a person first
	// Replay says that an operator wants the event taken once more: if its
	// figure is the desired one and had failed, it is sent again.
	Replay bool
	// Part is set for a Scope alone: a message of a snapshot has come.
	Part *Part
}

// ErrConflict says that the event's id and source came before with other content.
var ErrConflict = errors.New("the same id and source came before with other content")

// Desired is the newest figure; ok is false for an entry that has none.
func (e *Entry) Desired() (s Seen, ok bool) {
	if len(e.Seen) == 0 {
		return Seen{}, false
	}
	return e.Seen[0], true
}

// Posted says whether the partner has ever accepted a value for the key.
func (e *Entry) Posted() bool { return e.Delivered.At != 0 }

// PostedIn says whether the partner has accepted a value for the key in the
// integration's present generation: whether it has it, as far as we know.
func (e *Entry) PostedIn(generation int) bool {
	return e.Posted() && e.Delivered.Generation >= generation
}

// Doubt makes a synced key dirty that was delivered in a lower generation than
// the given one: the partner has lost it. It says whether anything changed.
// Keys in any other state need no doubt: what they lack is sent anyway.
func (e *Entry) Doubt(generation int, now time.Time) (next Entry, changed bool) {
	if e.State != Synced || e.PostedIn(generation) {
		return *e, false
	}
	next = *e
	next.settle(Dirty, "")
	next.Since = now.UnixNano()
	return next, true
}

// Apply folds one event into the entry and returns the next entry with the
// event's disposition. The newest Version wins whatever the order of arrival.
// An event that is folded again (a redelivery) gets the disposition it got
// the first time as long as the entry remembers it. The only error is
// ErrConflict, with disposition Dead and the entry unchanged.
// now is the time of folding, for the age of a key that becomes dirty.
func (e *Entry) Apply(op Operation, now time.Time) (Entry, Disposition, error) {
	for i, s := range e.Seen {
		if s.Event == op.Event {
			return e.repeat(i, op, now)
		}
	}
	at, _ := slices.BinarySearchFunc(e.Seen, op.Version, func(s Seen, v Version) int { return v.Compare(s.Version) })
	figure := Seen{Version: op.Version, Value: op.Value, Event: op.Event, Backfill: BackfillDigest(op.Backfill), Waits: op.Waits}
	if at > 0 && !keeps(e.Seen, at, op.Time) && slices.ContainsFunc(e.Seen[:at], figure.standsUnder) {
		return *e, Superseded, nil
	}
	next := *e
	next.Key = op.Key
	disposition := Superseded
	if at == 0 {
		disposition = Applied
		if e.State == Synced && e.Delivered.Value == op.Value {
			disposition = Unchanged
		}
	}
	next.Seen = make([]Seen, 0, len(e.Seen)+1) // a new array: e keeps its own
	next.Seen = append(next.Seen, e.Seen[:at]...)
	figure.Disposition = disposition
	next.Seen = append(next.Seen, figure)
	next.Seen = append(next.Seen, e.Seen[at:]...)
	next.trim()
	if disposition == Applied {
		next.want(now)
	}
	return next, disposition, nil
}

// repeat folds an event whose id and source are remembered at place i.
func (e *Entry) repeat(i int, op Operation, now time.Time) (Entry, Disposition, error) {
	s := e.Seen[i]
	switch {
	case s.Time != op.Time || s.Value != op.Value:
		return *e, Dead, ErrConflict
	case s.Arrival <= op.Arrival:
		next, disposition := *e, Duplicate
		if s.Arrival == op.Arrival {
			disposition = s.Disposition
		}
		if op.Replay && i == 0 && e.State == Failed {
			next.want(now)
		}
		return next, disposition, nil
	}
	// The same event, seen at an earlier place in the log (a replay keeps the
	// arrival of its original): the earlier place counts, whatever came first.
	before := e.Seen[0]
	next := *e
	next.Seen = slices.Clone(e.Seen)
	next.Seen[i].Arrival = op.Arrival
	if e.Delivered.Version == s.Version {
		next.Delivered.Arrival = op.Arrival
	}
	slices.SortFunc(next.Seen, func(a, b Seen) int { return b.Version.Compare(a.Version) })
	if is := next.Seen[0]; is.Value != before.Value || is.Event != before.Event && e.State == Failed {
		next.want(now)
	}
	return next, Duplicate, nil
}

// keeps says whether an event of the given time is remembered at place at.
func keeps(seen []Seen, at int, when int64) bool {
	tied := maxTied
	if seen[0].Value.Properties != "" {
		tied = maxTiedCatalog
	}
	return at < minSeen || when == seen[0].Time && at < tied
}

// trim forgets the oldest events beyond what the entry promises to remember:
// beside the newest, of every backfill the newest figure, of those that wait
// the newest, and the newest of all the others, which nobody can take back.
// What a person takes back must uncover what was there before.
func (e *Entry) trim() {
	n := len(e.Seen)
	for n > minSeen && !keeps(e.Seen, n-1, e.Seen[n-1].Time) {
		n--
	}
	newest, most := e.Seen[0], n+maxBases
	if newest.Value.Properties != "" {
		most = maxTiedCatalog
	}
	kept := e.Seen[:n:n]
	firm := slices.IndexFunc(e.Seen, Seen.stands)
	for i := n; i < len(e.Seen); i++ {
		s := e.Seen[i]
		if firm >= 0 && i > firm && s.Time != e.Seen[firm].Time {
			break // can never be uncovered
		}
		if s.Time != newest.Time && (i == firm || len(kept) < most && !slices.ContainsFunc(kept, s.standsUnder)) {
			kept = append(kept, s)
		}
	}
	e.Seen = kept
}

// stands says whether nobody can take the figure back.
func (s Seen) stands() bool { return s.Backfill == 0 && s.Waits == NoWait }

// standsUnder says whether s, which is older than t or as old, can never be
// uncovered by a person who takes something back: what takes back t takes back
// s, too. Figures that nobody can take back have one fate.
func (s Seen) standsUnder(t Seen) bool {
	return s.Backfill == t.Backfill && (s.Waits == NoWait) == (t.Waits == NoWait) && s.Time != t.Time
}

// want makes the entry ask for its desired value, with a retry budget of its
// own. A key that is retrying or unmapped stays so: a newer value does not
// mend the partner, and it will be the newest value that goes out in the end.
func (e *Entry) want(now time.Time) {
	if e.Since == 0 {
		e.Since = now.UnixNano()
	}
	e.Attempts = 0
	switch {
	case e.waits():
		e.settle(Held, Approval)
	case e.State == Retrying, e.State == Held && e.Reason != Approval:
	default:
		e.settle(Dirty, "")
	}
}

// waits says whether a person must approve the desired figure.
func (e *Entry) waits() bool { return len(e.Seen) > 0 && e.Seen[0].Waits != NoWait }

// Accept records that the partner took the value of version v. When a newer
// event has come meanwhile the key stays dirty, or held for approval.
func (e *Entry) Accept(sent Seen, r Receipt, a Answer) Entry {
	next := e.answered(a)
	next.Delivered = Delivered{Version: e.placeOf(sent), Receipt: r, Value: sent.Value, At: a.At}
	if next.Seen[0].Value == sent.Value {
		next.settle(Synced, "")
		next.Since = 0
		return next
	}
	// What the key waits for came while the call was under way: its age
	// counts from now, or a key that never rests would grow old for ever.
	next.Since = a.At
	next.resume(Dirty, "")
	return next
}

// Retry records an attempt without a usable answer; the next one is due at
// the given time.
func (e *Entry) Retry(due time.Time, a Answer) Entry {
	next := e.answered(a)
	if next.resume(Retrying, "") {
		next.Attempts = e.Attempts + 1
		next.Next = due.UnixNano()
	}
	return next
}

// Hold records that nothing more is to be sent for the key until its cause
// is gone.
func (e *Entry) Hold(reason HoldReason, a Answer) Entry {
	next := e.answered(a)
	next.resume(Held, reason)
	return next
}

// Release makes the key dirty again, whatever its state, its attempts
// forgotten: a person or another part of the program wants it sent. A figure
// that waits for approval goes on waiting.
func (e *Entry) Release() Entry {
	next := *e
	next.resume(Dirty, "")
	return next
}

// Fail records that the sent value can never be delivered. When a newer event
// has come meanwhile the key starts afresh with it, or stays held for
// approval.
func (e *Entry) Fail(sent Seen, a Answer) Entry {
	next := e.answered(a)
	// An edited replay has the version of its original, and another value.
	if desired := next.Seen[0]; desired.Version == e.placeOf(sent) && desired.Value == sent.Value {
		next.settle(Failed, "")
		next.Attempts = e.Attempts + 1
		return next
	}
	next.resume(Dirty, "")
	return next
}

// placeOf is the version of a figure that was sent, as it stands now: while
// the call was under way its event may have been seen at an earlier arrival.
func (e *Entry) placeOf(sent Seen) Version {
	for _, s := range e.Seen {
		if s.Event == sent.Event {
			return s.Version
		}
	}
	return sent.Version
}

// answered is the entry with the answer noted. An answer other than a success
// to a value that was synced (one sent again to make sure) means that the
// partner may not have it after all: its age counts from here.
func (e *Entry) answered(a Answer) Entry {
	next := *e
	next.Answer = a
	if next.Since == 0 {
		next.Since = a.At
	}
	return next
}

// resume moves the key to the state that the answer asks for, unless the figure
// that has become desired meanwhile waits for approval. It says whether the key
// moved there.
func (e *Entry) resume(state State, reason HoldReason) bool {
	if e.waits() {
		e.settle(Held, Approval)
		return false
	}
	e.settle(state, reason)
	return true
}

// settle moves the key to the state and clears what belonged to the former.
func (e *Entry) settle(state State, reason HoldReason) {
	e.State, e.Reason = state, reason
	e.Attempts, e.Next = 0, 0
}

// View is the state as people should see it: hold is the integration's own
// gate ("" when open), and catalog says whether the account and the service
// that a count names are at the partner (true for catalog keys).
func (e *Entry) View(hold HoldReason, catalog bool) (State, HoldReason) {
	switch {
	case e.State != Dirty && e.State != Retrying:
		return e.State, e.Reason
	case hold == IntegrationNotReady && e.Key.Kind != Count:
		return e.State, ""
	case hold != "":
		return Held, hold
	case !catalog:
		return Held, AwaitingCatalog
	}
	return e.State, ""
}
