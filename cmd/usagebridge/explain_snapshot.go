package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// snapshotAccount is where a snapshot stands, as one of its parts sees it or
// as a whole.
type snapshotAccount struct {
	snapshotView

	Part     int         `json:"part,omitempty"`   // that is explained; 0: the whole snapshot is
	Places   []string    `json:"places,omitempty"` // of the parts in the log, for the whole snapshot
	Unknown  bool        `json:"unknown,omitempty"`
	Named    int         `json:"named"`               // keys, by the part or in all parts that the log has
	Figures  figureCount `json:"figures"`             // of these
	ZerosNow int         `json:"zeros_now,omitempty"` // keys that are 0 now because the whole snapshot did not name them
}

// figureCount says what became of the figures of a snapshot.
type figureCount struct {
	Desired   int  `json:"desired"`
	Synced    int  `json:"synced"`         // of the desired ones; the partner has them
	Open      int  `json:"to_be_sent"`     // of the desired ones
	Held      held `json:"held,omitempty"` // of the desired ones
	Failed    int  `json:"failed"`         // of the desired ones
	Overtaken int  `json:"overtaken"`      // a newer figure is desired
	Withdrawn int  `json:"taken_back"`     // by a person
	Absent    int  `json:"not_folded"`     // no worker has taken it yet
	Gone      int  `json:"forgotten"`      // the ledger knows nothing of it, of a whole snapshot
}

// held counts keys by what holds them.
type held map[ledger.HoldReason]int

// snapshotParts is what the log has of a snapshot.
type snapshotParts struct {
	scope  ledger.Key
	first  occurrence
	digest uint64
	places []string
	named  map[int]int // keys by part
	newest event.Arrival
	last   map[ledger.Key]bool // keys that the part with the latest arrival names
}

func isSnapshot(o *occurrence) bool {
	_, ok := o.event.Data.(event.Snapshot)
	return ok
}

// addPart takes a part of a snapshot that is asked for by its name. What it
// names is kept of the latest part only: a snapshot may have a thousand.
func (f *found) addPart(o *occurrence) {
	data, ok := o.event.Data.(event.Snapshot)
	if !ok || len(o.operations) == 0 {
		return
	}
	op := o.operations[len(o.operations)-1]
	at := slices.IndexFunc(f.snapshots, func(p *snapshotParts) bool { return p.digest == op.Event })
	if at < 0 {
		first := *o
		first.operations, first.message.Data = []ledger.Operation{op}, nil
		at = len(f.snapshots)
		f.snapshots = append(f.snapshots, &snapshotParts{scope: op.Key, digest: op.Event, first: first, named: map[int]int{}})
	}
	p := f.snapshots[at]
	p.places = append(p.places, o.place())
	p.named[op.Part.Number] = len(data.Counts)
	if p.last == nil || o.event.Arrival > p.newest {
		p.newest, p.last = o.event.Arrival, namedBy(o)
	}
}

func namedBy(o *occurrence) map[ledger.Key]bool {
	named := map[ledger.Key]bool{}
	for _, op := range o.operations {
		if op.Part == nil {
			named[op.Key] = true
		}
	}
	return named
}

// partOf is the operation by which the scope learns of a part.
func (o *occurrence) partOf() ledger.Operation { return o.operations[len(o.operations)-1] }

// explainPart explains one part of a snapshot, for all keys that it names.
func (s *search) explainPart(ctx context.Context, o *occurrence, letter *broker.StoredLetter) (explanation, error) {
	op := o.partOf()
	h, err := s.history(ctx, op.Key)
	if err != nil {
		return explanation{}, err
	}
	named := namedBy(o)
	tally, err := h.countFigures(s.entriesOf(ctx, op.Key.Organization), op, func(e *ledger.Entry) bool { return named[e.Key] })
	if err != nil {
		return explanation{}, err
	}
	return h.explainPart(o, letter, s.account(h, op), tally), nil
}

// entriesOf yields what the ledger has of an organization.
func (s *search) entriesOf(ctx context.Context, organization string) entries {
	return func(yield func(*ledger.Entry) error) error {
		return s.app.eachEntry(ctx, s.vendor, organization, yield)
	}
}

// entries yields entries of the ledger; an error of yield ends it and comes back.
type entries func(yield func(*ledger.Entry) error) error

// explainPart says what became of a part, and of what it names.
func (h *history) explainPart(o *occurrence, letter *broker.StoredLetter, a *snapshotAccount, tally snapshotTally) explanation {
	x, op := begin(o), o.partOf()
	x.ReachesBack = h.reachesBack
	h.judgePart(&x, o, letter)
	if x.Disposition == ledger.Superseded && tally.took {
		x.Disposition = ledger.Applied // some of its figures were newer than what was there
	}
	a.Part, a.Named, a.Figures = op.Part.Number, len(namedBy(o)), tally.figures
	a.Figures.Absent += a.Named - tally.keys
	x.Snapshot, x.ReplayedAs = a, h.replays(o)
	h.present(&x)
	x.Now = nil // of a scope
	x.tell()
	return x
}

// judgePart says what became of the part.
func (h *history) judgePart(x *explanation, o *occurrence, letter *broker.StoredLetter) {
	op := o.partOf()
	steps := h.refold().steps
	if at := slices.IndexFunc(steps, func(s step) bool { return s.occurrence.same(o) }); at >= 0 {
		x.Disposition = steps[at].disposition
	}
	x.Undone = h.undone(ledger.BackfillDigest(op.Backfill))
	x.barred = x.Undone != nil
	snapshot, known := h.snapshot(op.Event)
	at := slices.IndexFunc(snapshot.Parts, func(p ledger.SeenPart) bool { return p.Number == op.Part.Number })
	switch {
	case letter != nil && !ofCall(letter.Fault.Reason):
		x.Disposition, x.Certain = ledger.Dead, true
	case at >= 0:
		switch part := snapshot.Parts[at]; {
		case part.Content != op.Part.Content:
			x.Disposition = ledger.Dead
		case part.Arrival < op.Arrival:
			x.Disposition = ledger.Duplicate
		}
		x.Certain = true
	case !known && h.pendingPart(op), known && snapshot.Open() && (o.event.ReplayOf != "" || op.Arrival > snapshot.Arrival): // an earlier one was given up
		x.Disposition = ""
	}
	if letter != nil && !ofCall(letter.Fault.Reason) {
		x.DeadLetter = letter.ID
		x.Fault = &faultViews(0, &letter.Fault)[0]
	} else if x.Disposition == ledger.Dead {
		x.Fault = &faultView{
			Reason: event.ReasonConflict, Problem: "it contradicts a part of the same snapshot, or a figure of it, that came before",
			Want: "a new snapshotId for every snapshot",
		}
	}
}

// snapshot is what the ledger knows of a snapshot of the scope.
func (h *history) snapshot(digest uint64) (ledger.Snapshot, bool) {
	keeper := h.keepers[h.key]
	for i := range keeper.Snapshots {
		if keeper.Snapshots[i].Event == digest {
			return keeper.Snapshots[i], true
		}
	}
	return ledger.Snapshot{}, false
}

// remembered snapshots: so many complete ones, and as many that were given up,
// push an older one out of the ledger.
const pushedOut = 4

// pendingPart says that no worker has folded a part of a snapshot that the
// ledger does not know: else newer snapshots have pushed it out, or it had no
// effect because its backfill was undone.
func (h *history) pendingPart(op ledger.Operation) bool {
	if op.Backfill != "" && h.undone(ledger.BackfillDigest(op.Backfill)) != nil {
		register := h.keepers[ledger.BackfillKey(op.Key.Organization, op.Backfill)].Register
		return register == nil || register.Last < op.Arrival
	}
	done, lost := 0, 0
	keeper := h.keepers[h.key]
	for i := range keeper.Snapshots {
		switch s := &keeper.Snapshots[i]; {
		case s.Version.Compare(op.Version) < 0:
		case s.Complete():
			done++
		case s.Lost:
			lost++
		}
	}
	return done < pushedOut && lost < pushedOut
}

// account says where the snapshot stands that the part belongs to.
func (s *search) account(h *history, op ledger.Operation) *snapshotAccount {
	snapshot, known := h.snapshot(op.Event)
	if !known {
		snapshot = ledger.Snapshot{Version: op.Version, Event: op.Event, Name: op.Part.Name, Backfill: op.Backfill, Of: op.Part.Of}
	}
	a := &snapshotAccount{snapshotView: viewSnapshot(s.vendor.Name, h.key, &snapshot), Unknown: !known}
	if !known {
		a.State, a.Missing = "", nil
	}
	a.judge(s.words)
	return a
}

// snapshotTally is what the ledger says of a snapshot's figures.
type snapshotTally struct {
	figures figureCount
	keys    int  // that were looked at
	took    bool // one of them was applied when it came
}

// countFigures looks at the entries of the scope that are wanted.
func (h *history) countFigures(each entries, op ledger.Operation, wanted func(*ledger.Entry) bool) (t snapshotTally, err error) {
	generation := 0
	if h.owner != nil {
		generation = h.owner.Generation
	}
	posted := map[ledger.Key]bool{}
	var open []ledger.Entry // whose state depends on whether their catalog is posted
	t.figures.Held = held{}
	undone := h.undone(ledger.BackfillDigest(op.Backfill)) != nil
	err = each(func(e *ledger.Entry) error {
		if e.Key.Kind != ledger.Count {
			posted[e.Key] = e.Key.Kind.Figure() && e.PostedIn(generation)
			return nil
		}
		if e.Key.In(h.key) && wanted(e) {
			t.keys++
			if t.add(e, op, undone || h.refused(e.Key, op.Event)) {
				open = append(open, ledger.Entry{Key: e.Key, State: e.State, Reason: e.Reason})
			}
		}
		return nil
	})
	for i := range open {
		e := &open[i]
		state, reason := e.View(h.gate, posted[e.Key.AccountKey()] && posted[e.Key.ServiceKey()])
		switch state {
		case ledger.Synced:
			t.figures.Synced++
		case ledger.Failed:
			t.figures.Failed++
		case ledger.Held:
			t.figures.Held[reason]++
		case ledger.Dirty, ledger.Sending, ledger.Retrying:
			t.figures.Open++
		}
	}
	return t, err
}

// add says whether the snapshot's figure is the desired one.
func (t *snapshotTally) add(e *ledger.Entry, op ledger.Operation, withdrawn bool) (desired bool) {
	at := slices.IndexFunc(e.Seen, func(s ledger.Seen) bool { return s.Event == op.Event })
	if at >= 0 {
		what := e.Seen[at].Disposition
		t.took = t.took || what == ledger.Applied || what == ledger.Unchanged
	}
	switch newest, ok := e.Desired(); {
	case at == 0:
		t.figures.Desired++
		return true
	case withdrawn:
		t.figures.Withdrawn++
	case ok && newest.Version.Compare(op.Version) > 0:
		t.figures.Overtaken++
	case at > 0:
		t.figures.Overtaken++ // of the same time
	default:
		t.figures.Absent++
	}
	return false
}

// explainSnapshots explains the snapshots of that name: those of the log, and
// those that only the ledger still knows.
func (s *search) explainSnapshots(ctx context.Context, q question, f *found) ([]explanation, error) {
	var all []explanation
	for _, p := range f.snapshots {
		x, err := s.explainSnapshot(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	if len(all) > 0 || q.source != "" {
		return all, nil
	}
	err := s.app.eachEntry(ctx, s.vendor, q.organization, func(e *ledger.Entry) error {
		for i := range e.Snapshots {
			snapshot := &e.Snapshots[i]
			if snapshot.Name != q.id {
				continue
			}
			view := viewSnapshot(s.vendor.Name, e.Key, snapshot)
			view.judge(s.words)
			x := explanation{
				Integration: view.Integration, Type: event.TypeSnapshot, Time: view.Time, Certain: true,
				Snapshot: &snapshotAccount{snapshotView: view},
			}
			x.tellSnapshot()
			x.say("The log no longer has its parts.")
			all = append(all, x)
		}
		return nil
	})
	return all, err
}

// explainSnapshot explains a whole snapshot.
func (s *search) explainSnapshot(ctx context.Context, p *snapshotParts) (explanation, error) {
	h, err := s.history(ctx, p.scope)
	if err != nil {
		return explanation{}, err
	}
	return h.explainSnapshot(p, s.account(h, p.first.partOf()), s.entriesOf(ctx, p.scope.Organization))
}

// explainSnapshot says where the snapshot stands, and what became of what its
// parts name and of what they do not.
func (h *history) explainSnapshot(p *snapshotParts, a *snapshotAccount, each entries) (explanation, error) {
	x, op := begin(&p.first), p.first.partOf()
	x.EventID, x.Place, x.ReplayOf, x.Stored = "", "", "", time.Time{}
	x.ReachesBack, x.Certain = h.reachesBack, !a.Unknown
	x.Undone = h.undone(ledger.BackfillDigest(op.Backfill))
	a.Places = p.places
	for _, named := range p.named {
		a.Named += named
	}
	tally, err := h.countFigures(each, op, func(e *ledger.Entry) bool {
		at := slices.IndexFunc(e.Seen, func(s ledger.Seen) bool { return s.Event == op.Event })
		if at < 0 {
			return false
		}
		// Where a key that the latest part does not name has a 0 as late as
		// it, no part named it.
		f := e.Seen[at]
		zero := f.Value == (ledger.Value{}) && f.Arrival == uint64(p.newest) && !p.last[e.Key]
		if zero && at == 0 {
			a.ZerosNow++
		}
		return !zero
	})
	a.Figures = tally.figures
	if x.Undone != nil {
		a.Figures.Withdrawn += max(a.Named-tally.keys, 0)
	} else {
		a.Figures.Gone = max(a.Named-tally.keys, 0)
	}
	x.Snapshot = a
	h.present(&x)
	x.Now = nil
	x.tellSnapshot()
	return x, err
}

// partVerdict is the sentence that begins with the disposition of a part.
func (x *explanation) partVerdict() string {
	s := x.Snapshot
	part := fmt.Sprintf("part %d of %d of %s", s.Part, s.Parts, s.title())
	switch x.Disposition {
	case ledger.Applied:
		return "applied: it is " + part + "."
	case ledger.Unchanged:
		return "unchanged: it is " + part + ", and the partner had its figures already."
	case ledger.Duplicate:
		return "duplicate: " + part + " had come before, so it changed nothing."
	case ledger.Superseded:
		if x.barred {
			return "superseded: it is " + part + ". Its backfill had been undone before it was folded, so it changed nothing."
		}
		return "superseded: it is " + part + ". A newer snapshot was complete before it came, and no figure of it was new."
	case ledger.Dead:
		return "dead: it can never be applied. It says that it is " + part + "."
	}
	if x.waits != nil {
		return "not folded yet: it is " + part + ". " + x.waits.sentence()
	}
	return "not folded yet: it is " + part + ". It stands in the log, and no worker has taken it."
}

// title names a snapshot with its scope.
func (a *snapshotAccount) title() string {
	scope := "the whole organization"
	if a.Account != "" {
		scope = "account " + a.Account
	}
	return fmt.Sprintf("snapshot %s of %s", a.Name, scope)
}

// tellSnapshot puts a whole snapshot into sentences.
func (x *explanation) tellSnapshot() {
	x.Sentences = nil
	s := x.Snapshot
	x.say("%s, with %s.", strings.ToUpper(s.title()[:1])+s.title()[1:], plural(s.Parts, "part", "parts"))
	if len(s.Places) > 0 {
		places := s.Places
		if len(places) > shownPlaces {
			places = append(slices.Clone(places[:shownPlaces]), fmt.Sprintf("and %d more", len(places)-shownPlaces))
		}
		x.say("The log has %s.", strings.Join(places, ", "))
	}
	x.tellStanding()
}

const shownPlaces = 12

// tellStanding says where a snapshot stands, and what became of its figures.
func (x *explanation) tellStanding() {
	s := x.Snapshot
	if x.Backfill != "" || s.Backfill != "" {
		x.Backfill = cmp.Or(x.Backfill, s.Backfill)
		x.tellPeople()
	}
	switch {
	case s.Unknown && x.Disposition == "":
	case s.Unknown && x.Undone != nil:
	case s.Unknown:
		x.say("The ledger no longer remembers the snapshot: newer ones have come since.")
	case s.State == snapshotIncomplete:
		x.say("The snapshot is incomplete: it waits for %s, %s. Until then no key becomes 0 by it.",
			plural(len(s.Missing), "part", "parts"), partList(s.Missing))
	case s.State == snapshotGivenUp:
		x.say("The snapshot was given up on %s, because parts of it did not come in time: its figures stand, its zeros never come.", instant(s.Done))
	default:
		x.say("The snapshot was complete on %s.", instant(s.Done))
	}
	if s.Part > 0 || len(s.Places) > 0 {
		x.tellFigures()
	}
	if !s.Unknown && s.State != snapshotIncomplete && s.State != snapshotGivenUp {
		x.tellZeros()
	}
}

// tellFigures says what became of what was named.
func (x *explanation) tellFigures() {
	s, f := x.Snapshot, x.Snapshot.Figures
	what := "The part names"
	if s.Part == 0 {
		what = "Its parts name"
	}
	if s.Named == 0 {
		x.say("%s no key.", what)
		return
	}
	if x.Disposition == ledger.Dead {
		x.say("%s %s.", what, plural(s.Named, "key", "keys"))
		return
	}
	var fates []string
	add := func(n int, fate string) {
		if n > 0 {
			fates = append(fates, fmt.Sprintf("%d %s", n, fate))
		}
	}
	add(f.Synced, "still desired, and the partner has it")
	add(f.Open, "still desired, and to be sent")
	for _, reason := range slices.Sorted(maps.Keys(f.Held)) {
		add(f.Held[reason], "still desired, and held ("+string(reason)+")")
	}
	add(f.Failed, "still desired, and failed")
	add(f.Overtaken, "overtaken by a newer figure")
	add(f.Withdrawn, "taken back by a person")
	add(f.Absent, "not folded yet")
	add(f.Gone, "no longer remembered, because newer figures came, or not folded yet")
	x.say("%s %s: %s.", what, plural(s.Named, "key", "keys"), strings.Join(fates, "; "))
}

// tellZeros says what the whole snapshot set to 0.
func (x *explanation) tellZeros() {
	s := x.Snapshot
	if s.Keys == 0 {
		x.say("No key of its scope had another figure than 0 when it was complete: it set none to 0.")
		return
	}
	what := fmt.Sprintf("Of %s of its scope that had another figure than 0 when it was complete, it did not name %d", plural(s.Keys, "key", "keys"), s.Zeros)
	switch d := s.Decision; {
	case s.Zeros == 0:
		x.say("It named every key of its scope that had another figure than 0 when it was complete: it set none to 0.")
		return
	case d != nil && d.Verdict == reverted:
		x.say("%s; those zeros are undone with the backfill.", what)
	case d != nil && d.Verdict == refused:
		x.say("%s. Those zeros were refused %s.", what, d.deed())
	case d != nil:
		x.say("%s. That they become 0 was %s %s.", what, d.Verdict, d.deed())
	case s.Approval != "":
		x.say("%s. That they become 0 waits for approval %s.", what, s.Approval)
		x.say("`usagebridge approvals release %s --integration %s --why …` sends the zeros, `refuse` takes them back.", s.Approval, x.Integration)
	default:
		x.say("%s: these became 0.", what)
	}
	if s.Part == 0 && (s.Decision == nil && s.Approval == "" || s.Decision != nil && s.Decision.Verdict == released) {
		x.say("By it %s 0 now.", plural(s.ZerosNow, "key is", "keys are"))
	}
}
