package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/statement"
)

// books is everything from which the statement of one integration is made.
type books struct {
	vendor, organization string
	asOf                 time.Time
	now                  bool // asOf is the present, and the ledger tells all
	events, synclog      reach
	posture              posture
	entries              map[ledger.Key]*ledger.Entry // counts, as the ledger has them now
	catalog              []ledger.Entry               // accounts and services, likewise
	posted               map[ledger.Key]bool          // those of them that the partner had
	backfills            map[uint64]string            // id by digest
	keepers              []ledger.Entry               // what is known of snapshots and backfills
	rules                *ledger.Rules                // what people had said by then
}

// line is one key as of the statement's time.
type line struct {
	entry    ledger.Entry // without a figure: one was there, but nobody knows which
	complete bool
	origin   *origin // nil: not found
}

// origin is the event behind a figure.
type origin struct {
	id, source string
	stored     time.Time
	place      string // of the event that stands, which may be a replay
	replayOf   string // place of its original; empty: it is no replay
	zeroedBy   string // id of the snapshot that did not name the key; empty: it was named
}

// posture is where the integration stood as of the statement's time.
type posture struct {
	known      bool
	status     status.Status
	since      time.Time
	gates      []string
	generation int
}

// gate is what held all figures, "" when nothing did or nobody knows.
func (p *posture) gate() ledger.HoldReason {
	if len(p.gates) == 0 {
		return ""
	}
	return ledger.HoldReason(p.gates[0])
}

// reach is how far back a log goes.
type reach struct {
	first uint64 // sequence of its first message
	since time.Time
}

// whole says that nothing has been dropped from the log yet.
func (r reach) whole() bool { return r.first <= 1 }

// has says whether the log still has the message that arrived there.
func (r reach) has(arrival uint64) bool { return event.Arrival(arrival).Sequence() >= r.first }

// statementOf reads what was known of an integration as of a time; zero: now.
func (a *app) statementOf(ctx context.Context, vendor, organization string, asOf time.Time) (*statement.Statement, error) {
	v, err := a.broker.Vendor(ctx, vendor)
	if err != nil {
		return nil, usageError{err}
	}
	record, err := a.integration(ctx, vendor, organization)
	if err != nil && !errors.Is(err, broker.ErrNotFound) {
		return nil, err
	}
	b := &books{vendor: vendor, organization: organization, asOf: asOf, now: asOf.IsZero()}
	waiting, err := a.broker.Backlog(ctx, vendor)
	if err != nil {
		return nil, err
	}
	if err := a.readEntries(ctx, b, v); err != nil {
		return nil, err
	}
	if record == nil && len(b.entries) == 0 {
		return nil, usagef("integration %s/%s is unknown: it has not been added, and no figure of it has come", vendor, organization)
	}
	if b.events, err = a.reach(ctx, broker.EventsStream(vendor)); err != nil {
		return nil, err
	}
	s := statement.Statement{Vendor: vendor, Organization: organization, MadeBy: operator(), MadeWith: "usagebridge " + version()}
	var lines map[ledger.Key]*line
	if b.now {
		lines, s.Notes = b.linesNow(record), backlogNotes(vendor, waiting)
		// All that the ledger had was there before.
		b.asOf = time.Now().UTC()
	} else if lines, err = a.linesThen(ctx, b, record); err != nil {
		return nil, err
	}
	if err := a.trace(ctx, b, lines); err != nil {
		return nil, err
	}
	s.AsOf, s.MadeAt = b.asOf, time.Now()
	b.fill(&s, lines)
	return statement.New(s)
}

// backlogNotes says what a statement as of now cannot show.
func backlogNotes(vendor string, waiting uint64) []string {
	if waiting == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s of vendor %s had arrived and was not folded yet; what it says does not show here.",
		plural(int(waiting), "message", "messages"), vendor)}
}

// readEntries reads the organization's part of the ledger.
func (a *app) readEntries(ctx context.Context, b *books, v broker.Vendor) error {
	b.entries, b.posted, b.backfills = map[ledger.Key]*ledger.Entry{}, map[ledger.Key]bool{}, map[uint64]string{}
	return a.eachEntry(ctx, v, b.organization, func(e *ledger.Entry) error {
		switch e.Key.Kind {
		case ledger.Count:
			b.entries[e.Key] = e
		case ledger.Account, ledger.Service:
			b.catalog = append(b.catalog, *e)
		case ledger.Backfill:
			b.backfills[ledger.BackfillDigest(e.Key.Service)] = e.Key.Service
			b.keepers = append(b.keepers, *e)
		case ledger.Scope:
			b.keepers = append(b.keepers, *e)
		}
		return nil
	})
}

// reach asks how far back a stream goes.
func (a *app) reach(ctx context.Context, name string) (reach, error) {
	stream, err := a.jetStream(ctx, name)
	if err != nil {
		return reach{}, err
	}
	state := stream.CachedInfo().State
	r := reach{first: state.FirstSeq, since: state.FirstTime.UTC()}
	if state.Msgs == 0 { // all that there was has gone
		r.since = time.Now().UTC()
	}
	return r, nil
}

func (a *app) jetStream(ctx context.Context, name string) (jetstream.Stream, error) {
	js, err := jetstream.New(a.broker.Conn())
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", name, err)
	}
	return stream, nil
}

// linesNow takes the ledger's word: it is exact.
func (b *books) linesNow(record *status.Integration) map[ledger.Key]*line {
	b.posture = posture{known: true, status: "not added", gates: []string{string(ledger.IntegrationNotReady)}}
	if i := record; i != nil {
		b.posture = posture{known: true, status: i.Status, since: i.Since, generation: i.Generation, gates: gateNames(i.Gates())}
	}
	for i := range b.catalog {
		b.posted[b.catalog[i].Key] = b.catalog[i].PostedIn(b.posture.generation)
	}
	lines := make(map[ledger.Key]*line, len(b.entries))
	for key, e := range b.entries {
		if len(e.Seen) > 0 {
			lines[key] = &line{entry: *e, complete: true}
		}
	}
	return lines
}

func gateNames(gates []ledger.HoldReason) []string {
	names := make([]string, len(gates))
	for i, gate := range gates {
		names[i] = string(gate)
	}
	return names
}

// linesThen folds the log up to the statement's time again, with the answers
// of the partner in between.
func (a *app) linesThen(ctx context.Context, b *books, record *status.Integration) (map[ledger.Key]*line, error) {
	var err error
	if b.synclog, err = a.reach(ctx, broker.StreamSyncLog); err != nil {
		return nil, err
	}
	if b.posture, err = a.postureAt(ctx, b, record); err != nil {
		return nil, err
	}
	limits := a.config.limits()
	if b.rules, err = a.rulesOf(ctx, b.vendor, b.asOf); err != nil {
		return nil, err
	}
	f := newRefolding(b, limits.Ahead, a.config.SnapshotPatience)
	if err := a.broker.Calls(ctx, b.vendor, b.organization, broker.CallFilter{}, func(c ledger.Call) error {
		f.note(c)
		return nil
	}); err != nil {
		return nil, err
	}
	f.begin()
	if err := a.broker.ReadLog(ctx, b.vendor, b.subjects(), func(m event.Message) error {
		late := m.Stored.After(b.asOf)
		if late && !mayReplay(&m) {
			return nil
		}
		for _, o := range occurrencesIn(m, limits) {
			if late {
				f.later(&o)
			} else {
				f.take(&o)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return f.finish(), nil
}

// subjects are where the log has the integration's counts.
func (b *books) subjects() []string {
	return []string{event.FamilyUsage + ".v1." + event.Escape(b.vendor) + "." + event.Escape(b.organization) + ".>"}
}

// mayReplay says whether a message can hold a replayed event, at a fraction of
// the cost of decoding it. Escapes may spell the attribute in many ways.
func mayReplay(m *event.Message) bool {
	if bytes.Contains(m.Data, []byte("replayof")) || bytes.IndexByte(m.Data, '\\') >= 0 {
		return true
	}
	for name := range m.Header {
		if strings.EqualFold(name, "ce-replayof") {
			return true
		}
	}
	return false
}

// postureAt is where the integration stood, by the record of today if that is
// old enough and by the status log otherwise.
func (a *app) postureAt(ctx context.Context, b *books, record *status.Integration) (posture, error) {
	if record == nil || record.Created.After(b.asOf) {
		return posture{known: true, status: "not added", gates: []string{string(ledger.IntegrationNotReady)}}, nil
	}
	stream, err := a.jetStream(ctx, broker.StreamStatus)
	if err != nil {
		return posture{}, err
	}
	var p posture
	newest := 0
	for sequence := uint64(1); ; sequence++ {
		m, err := stream.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject(broker.StatusSubject(b.vendor, b.organization)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return p, nil
		}
		if err != nil {
			return p, fmt.Errorf("read the status log of %s/%s: %w", b.vendor, b.organization, err)
		}
		sequence = m.Sequence
		var told struct {
			Time time.Time         `json:"time"`
			Data status.Transition `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &told); err != nil {
			return p, fmt.Errorf("read the status log of %s/%s, line %d: %w", b.vendor, b.organization, m.Sequence, err)
		}
		if t := told.Data; !told.Time.After(b.asOf) && t.Number > newest { // two may stand in the other order
			newest = t.Number
			if !p.known || t.To != p.status {
				p.since = told.Time.UTC()
			}
			p.known, p.status, p.gates, p.generation = true, t.To, t.Gates, t.Generation
		}
	}
}

// refolding makes the lines of a time that has passed. It is the ledger's book
// of that time (ledger.Book).
type refolding struct {
	books    *books
	ahead    time.Duration // how far an event's time may be after its arrival
	patience time.Duration // with snapshots whose parts do not come; 0: without end
	lines    map[ledger.Key]*line
	keepers  map[ledger.Key]ledger.Entry      // of snapshots and backfills
	known    map[ledger.Key][]ledger.Snapshot // those of a scope that the ledger has now
	unknown  map[ledger.Key][]ledger.Snapshot // those in parts that it has no more, with all that came
	calls    map[ledger.Key][]ledger.Call     // not folded yet
	accepted map[ledger.Key]ledger.Call       // the last one that was folded
	replayed map[uint64]bool                  // digests of events that were replayed after the statement's time
	at       *event.Message                   // that is folded now
}

func newRefolding(b *books, ahead, patience time.Duration) *refolding {
	return &refolding{
		books: b, ahead: ahead, patience: patience, lines: map[ledger.Key]*line{}, keepers: map[ledger.Key]ledger.Entry{},
		known: map[ledger.Key][]ledger.Snapshot{}, unknown: map[ledger.Key][]ledger.Snapshot{},
		calls: map[ledger.Key][]ledger.Call{}, accepted: map[ledger.Key]ledger.Call{}, replayed: map[uint64]bool{},
	}
}

// note takes a call of the sync log.
func (f *refolding) note(c ledger.Call) {
	if c.At.After(f.books.asOf) {
		return
	}
	posted := c.Verdict == string(delivery.Delivered) && c.Generation >= f.books.posture.generation
	switch {
	case c.Operation == ledger.Count.String():
		key := ledger.CountKey(c.Organization, c.Account, c.Service)
		f.calls[key] = append(f.calls[key], c)
	case c.Operation == ledger.Account.String() && posted:
		f.books.posted[ledger.AccountKey(c.Organization, c.Account)] = true
	case c.Operation == ledger.Service.String() && posted:
		f.books.posted[ledger.ServiceKey(c.Organization, c.Service)] = true
	}
}

// begin starts every key with what the log no longer has: the figures, the
// accepted call and the snapshots that the ledger remembers.
func (f *refolding) begin() {
	b := f.books
	for i := range b.catalog {
		if e := &b.catalog[i]; e.PostedIn(b.posture.generation) && !moment(e.Delivered.At).After(b.asOf) {
			b.posted[e.Key] = true
		}
	}
	for i := range b.keepers {
		f.beginKeeper(&b.keepers[i])
	}
	for key, stored := range b.entries {
		entry := ledger.Entry{Key: key}
		for _, s := range stored.Seen {
			if s.Arrival != 0 && !b.events.has(s.Arrival) && !moment(s.Time).After(b.asOf.Add(f.ahead)) {
				entry.Seen, entry.State = append(entry.Seen, s), ledger.Dirty
			}
		}
		if len(entry.Seen) > 0 {
			f.lines[key] = &line{entry: entry}
		}
		if c, ok := f.unrecorded(stored); ok {
			f.calls[key] = append(f.calls[key], c)
		}
	}
	for _, calls := range f.calls {
		slices.SortStableFunc(calls, func(a, b ledger.Call) int { return a.At.Compare(b.At) })
	}
}

// beginKeeper takes what is known of snapshots that came before the log's
// beginning, and of backfills that were undone by the statement's time.
func (f *refolding) beginKeeper(stored *ledger.Entry) {
	if r := stored.Register; r != nil && r.Reverted != 0 && !moment(r.Reverted).After(f.books.asOf) {
		f.books.rules.Reverted[ledger.BackfillDigest(stored.Key.Service)] = true
	}
	keeper := ledger.Entry{Key: stored.Key}
	for _, s := range stored.Snapshots {
		if s, ok := partly(s, func(p ledger.SeenPart) bool { return !f.books.events.has(p.Arrival) }); ok {
			keeper.Snapshots = append(keeper.Snapshots, s)
		}
	}
	f.keepers[stored.Key], f.known[stored.Key] = keeper, stored.Snapshots
}

// unrecorded is the call by which the partner has what it has, when the sync
// log has lost it.
func (f *refolding) unrecorded(stored *ledger.Entry) (c ledger.Call, ok bool) {
	d, key := stored.Delivered, stored.Key
	if !stored.Posted() || moment(d.At).After(f.books.asOf) {
		return c, false
	}
	recorded := slices.ContainsFunc(f.calls[key], func(c ledger.Call) bool {
		return c.Verdict == string(delivery.Delivered) && c.At.UnixNano() == d.At
	})
	return ledger.Call{
		Organization: key.Organization, Account: key.Account, Service: key.Service, Operation: key.Kind.String(), Units: d.Value.Units,
		Time: d.Time, Arrival: d.Arrival, At: moment(d.At), RequestID: d.RequestID, Generation: d.Generation, Verdict: string(delivery.Delivered),
	}, !recorded
}

// take folds one event. Events come in the order of the log.
func (f *refolding) take(o *occurrence) {
	f.at = &o.message
	f.expect(o)
	folded, err := ledger.Fold(f, o.operations, f.books.rules, o.message.Stored)
	if err != nil {
		return // a conflict changes nothing
	}
	for _, scope := range folded.Completed {
		f.Counts(scope, func(key ledger.Key) { ledger.Review(f, key, f.books.rules, o.message.Stored) })
	}
}

// expect gives up what a part comes too late for, and keeps in mind the
// snapshots of which the ledger no longer says whether they were given up.
func (f *refolding) expect(o *occurrence) {
	for _, op := range o.operations {
		if op.Part == nil {
			continue
		}
		known := f.known[op.Key]
		f.keepers[op.Key] = givenUp(f.Entry(op.Key), known, o.message.Stored, f.patience)
		if op.Part.Of == 1 || knownAs(known, op.Event) != nil {
			continue // nothing is awaited, or the ledger knows
		}
		s := knownAs(f.unknown[op.Key], op.Event)
		if s == nil {
			f.unknown[op.Key] = append(f.unknown[op.Key], ledger.Snapshot{Version: ledger.Version{Time: op.Time}, Event: op.Event, Of: op.Part.Of})
			s = &f.unknown[op.Key][len(f.unknown[op.Key])-1]
		}
		s.Arrival = max(s.Arrival, op.Arrival)
		if !slices.ContainsFunc(s.Parts, func(p ledger.SeenPart) bool { return p.Number == op.Part.Number }) {
			s.Parts = append(s.Parts, ledger.SeenPart{Number: op.Part.Number, Arrival: op.Arrival})
		}
	}
}

// Entry is the key's entry with the answers that had come by then.
func (f *refolding) Entry(key ledger.Key) ledger.Entry {
	if key.Kind != ledger.Count {
		e := f.keepers[key]
		e.Key = key
		return e
	}
	l := f.lines[key]
	if l == nil {
		return ledger.Entry{Key: key}
	}
	f.settle(l, func(c ledger.Call) bool {
		// No figure is sent before it is folded, whatever the clocks say.
		return !c.At.After(f.at.Stored) && event.Arrival(c.Arrival).Sequence() < f.at.Sequence
	})
	return l.entry
}

// Put takes a changed entry.
func (f *refolding) Put(e ledger.Entry) {
	switch l := f.lines[e.Key]; {
	case e.Key.Kind != ledger.Count:
		f.keepers[e.Key] = asKept(e, f.known[e.Key])
	case l == nil:
		f.lines[e.Key] = &line{entry: e}
	default:
		l.entry = e
	}
}

// Counts yields every count of the scope.
func (f *refolding) Counts(scope ledger.Key, yield func(ledger.Key)) {
	for key := range f.lines {
		if key.In(scope) {
			yield(key)
		}
	}
}

// settle folds the calls of a key that are due.
func (f *refolding) settle(l *line, due func(ledger.Call) bool) {
	key := l.entry.Key
	f.calls[key] = slices.DeleteFunc(f.calls[key], func(c ledger.Call) bool {
		if !due(c) {
			return false
		}
		l.entry = answered(l.entry, c)
		if c.Verdict == string(delivery.Delivered) {
			f.accepted[key] = c
		}
		return true
	})
}

// later looks at an event that came after the statement's time: a replay
// keeps the arrival of its original, and may look as if it had come by then.
func (f *refolding) later(o *occurrence) {
	for _, op := range o.operations {
		if event.Arrival(op.Arrival).Sequence() != o.message.Sequence {
			f.replayed[op.Event] = true
		}
	}
}

// finish gives the lines, with those of which only that they were there is known.
func (f *refolding) finish() map[ledger.Key]*line {
	b := f.books
	for key, stored := range b.entries {
		if f.lines[key] == nil && f.forgotten(stored, ledger.Version{}) {
			f.lines[key] = &line{entry: ledger.Entry{Key: key}}
		}
	}
	for key, l := range f.lines {
		f.settle(l, func(ledger.Call) bool { return true })
		if c, ok := f.accepted[key]; ok && len(l.entry.Seen) == 0 {
			l.entry.Delivered = ledger.Delivered{
				Version: ledger.Version{Time: c.Time, Arrival: c.Arrival}, Value: ledger.Value{Units: c.Units},
				Receipt: ledger.Receipt{RequestID: c.RequestID, Generation: c.Generation}, At: c.At.UnixNano(),
			}
		}
		l.entry, _ = l.entry.Doubt(b.posture.generation, b.asOf)
		l.complete = f.certainFigure(l) && f.certainAnswer(l)
	}
	return f.lines
}

// remembered is how many figures an entry remembers whatever happens (event
// contract: "at least its newest 4 events").
const remembered = 4

// forgotten says whether there may have been a figure newer than v that
// neither the log has nor the entry remembers.
func (f *refolding) forgotten(stored *ledger.Entry, v ledger.Version) bool {
	if f.books.events.whole() || stored == nil || len(stored.Seen) < remembered {
		return false
	}
	return v.Compare(stored.Seen[remembered-1].Version) < 0
}

// certainFigure says whether no other figure can have been the newest.
func (f *refolding) certainFigure(l *line) bool {
	b := f.books
	figure, ok := l.entry.Desired()
	switch {
	case !ok, !b.events.whole() && b.asOf.Before(b.events.since):
		return false
	case !b.events.has(figure.Arrival) && f.replayed[figure.Event]:
		return false // its own message has gone, and it may have come with the replay
	case f.doubtful(l.entry.Key, figure):
		return false
	}
	return !f.forgotten(b.entries[l.entry.Key], figure.Version)
}

// doubtful says whether the figure is a zero of a snapshot that may have been
// given up, or would be one if it was not.
func (f *refolding) doubtful(key ledger.Key, figure ledger.Seen) bool {
	for scope, snapshots := range f.unknown {
		if key.In(scope) && slices.ContainsFunc(snapshots, func(s ledger.Snapshot) bool {
			zero := figure.Value == ledger.Value{}
			covers := s.Event == figure.Event && zero || s.Event != figure.Event && !zero && figure.Version.Compare(s.Version) < 0
			return covers && len(s.Parts) == s.Of
		}) {
			return true
		}
	}
	return false
}

// certainAnswer says whether no other call can have been the last accepted.
func (f *refolding) certainAnswer(l *line) bool {
	stored := f.books.entries[l.entry.Key]
	return l.entry.Posted() || f.books.synclog.whole() || stored == nil || !stored.Posted()
}

// fewMessages is up to how many messages are fetched one by one: more are
// found faster by reading the log.
const fewMessages = 64

// trace finds the events behind the figures.
func (a *app) trace(ctx context.Context, b *books, lines map[ledger.Key]*line) error {
	wanted := map[uint64][]*line{} // by the sequence of the message
	for _, l := range lines {
		if s, ok := l.entry.Desired(); ok && s.Arrival != 0 {
			sequence := event.Arrival(s.Arrival).Sequence()
			wanted[sequence] = append(wanted[sequence], l)
		}
	}
	limits := a.config.limits()
	if len(wanted) <= fewMessages {
		for sequence, list := range wanted {
			m, err := a.broker.Message(ctx, b.vendor, sequence)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if attribute(list, occurrencesIn(m, limits)) {
				delete(wanted, sequence)
			}
		}
		if len(wanted) == 0 {
			return nil
		}
	}
	return a.broker.ReadLog(ctx, b.vendor, b.subjects(), func(m event.Message) error {
		if wanted[m.Sequence] == nil && !mayReplay(&m) {
			return nil
		}
		for _, o := range occurrencesIn(m, limits) {
			if o.event != nil && !o.message.Stored.After(b.asOf) {
				attribute(wanted[o.event.Arrival.Sequence()], []occurrence{o})
			}
		}
		return nil
	})
}

// attribute gives the lines the events that they are figures of, and says
// whether all have theirs.
func attribute(lines []*line, events []occurrence) (all bool) {
	all = true
	for _, l := range lines {
		for i := range events {
			if o := &events[i]; l.origin == nil && o.stands(&l.entry) {
				l.origin = &origin{id: o.id, source: o.source, stored: o.message.Stored, place: o.place(), zeroedBy: o.zeroes(&l.entry)}
				if o.event.ReplayOf != "" {
					l.origin.replayOf = o.message.Stream + "/" + o.event.ReplayOf
				}
			}
		}
		all = all && l.origin != nil
	}
	return all
}

// stands says whether the entry's newest figure is the event's.
func (o *occurrence) stands(e *ledger.Entry) bool {
	figure, ok := e.Desired()
	if !ok || o.event == nil || uint64(o.event.Arrival) != figure.Arrival {
		return false
	}
	return o.event.SnapshotDigest() == figure.Event
}

// zeroes names the snapshot if the event is one that does not name the entry's
// key: not to be named there means 0.
func (o *occurrence) zeroes(e *ledger.Entry) string {
	s, ok := o.event.Data.(event.Snapshot)
	named := slices.ContainsFunc(s.Counts, func(c event.Count) bool {
		return or(c.AccountID, s.AccountID) == e.Key.Account && c.ServiceID == e.Key.Service
	})
	if !ok || named {
		return ""
	}
	return or(s.SnapshotID, o.id)
}

// fill puts the lines and what surrounds them into the statement.
func (b *books) fill(s *statement.Statement, lines map[ledger.Key]*line) {
	s.Integration = statement.Integration{Status: string(b.posture.status), Since: b.posture.since, Gates: b.posture.gates}
	if !b.posture.known {
		s.Notes = append(s.Notes, "Where the integration stood is not known: the status log no longer reaches back; states are shown as if nothing had held it.")
	}
	if !b.now && b.rules != nil && len(b.rules.Jump) > 0 {
		s.Notes = append(s.Notes, "Figures that waited for approval then are shown by the guards of today.")
	}
	for _, l := range lines {
		s.Rows = append(s.Rows, b.row(l))
	}
	if !slices.ContainsFunc(s.Rows, func(r statement.Row) bool { return !r.Complete }) {
		return
	}
	s.LogSince = b.synclog.since
	if !b.events.whole() {
		s.LogSince = b.events.since
	}
	s.Notes = append(s.Notes, fmt.Sprintf("Rows that are not complete are not certain: the log of events %s, the sync log %s.", b.events, b.synclog))
}

// String says how far back the log goes.
func (r reach) String() string {
	if r.whole() {
		return "goes back to its beginning"
	}
	return "goes back to " + instant(r.since)
}

// row shows a line.
func (b *books) row(l *line) statement.Row {
	e := &l.entry
	row := statement.Row{Account: e.Key.Account, Service: e.Key.Service, Complete: l.complete, State: "not known"}
	if e.Posted() {
		row.Accepted, row.AcceptedAt, row.RequestID = valueText(ledger.Count, e.Delivered.Value), moment(e.Delivered.At), e.Delivered.RequestID
		if !e.PostedIn(b.posture.generation) {
			row.Notes = append(row.Notes, "accepted before the partner lost what it had")
		}
	}
	figure, ok := e.Desired()
	if !ok {
		row.Notes = append(row.Notes, "a figure may have been there: the log no longer says which")
		return row
	}
	// Who took a count has its account and its service, too.
	catalog := b.posted[e.Key.AccountKey()] && b.posted[e.Key.ServiceKey()] || !b.now && e.PostedIn(b.posture.generation)
	state, reason := e.View(b.posture.gate(), catalog)
	row.Units, row.State, row.Reason = valueText(ledger.Count, figure.Value), string(state), string(reason)
	if figure.Arrival != 0 {
		row.EventTime, row.Place = moment(figure.Time), broker.EventsStream(b.vendor)+"/"+event.Arrival(figure.Arrival).String()
	}
	row.Notes = append(row.Notes, b.disposition(l, figure)...)
	if reason == ledger.Approval {
		row.Notes = append(row.Notes, "waits for approval")
	}
	if o := l.origin; o != nil {
		row.EventID, row.Source, row.ArrivedAt, row.Place = o.id, o.source, o.stored, o.place
	}
	return row
}

// disposition says how the figure came about, where it is no plain count.
func (b *books) disposition(l *line, figure ledger.Seen) (notes []string) {
	if l.origin != nil && l.origin.zeroedBy != "" {
		notes = append(notes, "zeroed by snapshot "+l.origin.zeroedBy)
	}
	if l.origin != nil && l.origin.replayOf != "" {
		notes = append(notes, "replay of "+l.origin.replayOf)
	}
	if figure.Backfill != 0 {
		notes = append(notes, strings.TrimSpace("backfill "+b.backfills[figure.Backfill]))
	}
	switch {
	case figure.Arrival == 0:
		notes = append(notes, "every event that stood for it was taken back: nothing is left")
	case l.origin == nil:
		notes = append(notes, "the log no longer has the event")
	}
	return notes
}
