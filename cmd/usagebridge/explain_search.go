package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// search reads what is stored of one vendor. What it has read it keeps.
type search struct {
	app      *app
	vendor   broker.Vendor
	limits   event.Limits
	messages int // looked at
	record   *vendorRecord
	words    map[string]decision // of all vendors
	first    uint64              // sequence with which the log begins; 0: it is empty

	histories map[ledger.Key]*history
	dead      map[string]map[string]bool     // by organization: places whose events could not be folded
	replays   map[string]map[string][]string // by organization and arrival: places of the replays
}

func (a *app) search(ctx context.Context, vendor broker.Vendor) (*search, error) {
	s := &search{
		app: a, vendor: vendor, limits: a.config.limits(), histories: map[ledger.Key]*history{},
		dead: map[string]map[string]bool{}, replays: map[string]map[string][]string{},
	}
	var err error
	// Who set up the store with an earlier version has no decisions yet.
	if s.words, err = a.decisions(ctx); err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, err
	}
	records, err := a.vendorRecords(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, err
	}
	if record, ok := records[vendor.Name]; ok {
		s.record = &record
	}
	everything := []string{event.FamilyUsage + ".v1.>", event.FamilyCatalog + ".v1.>"}
	err = a.broker.ReadLog(ctx, vendor.Name, everything, func(m event.Message) error {
		s.first = m.Sequence
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return s, nil
}

var errEnough = errors.New("enough")

// vendorWords are the decisions on the vendor and on the organization.
func (s *search) vendorWords(organization string) map[string]decision {
	words := map[string]decision{}
	for key, d := range s.words {
		for _, of := range []string{event.Escape(organization), allOrganizations} {
			if strings.HasPrefix(key, event.Escape(s.vendor.Name)+"."+of+".") {
				words[key] = d
			}
		}
	}
	return words
}

// found is what the log has of what is asked for.
type found struct {
	events    []occurrence
	snapshots []*snapshotParts // with that snapshotId
}

// find lists every event of the log that the question asks for.
func (s *search) find(ctx context.Context, q question) (*found, error) {
	f := &found{}
	err := s.app.broker.ReadLog(ctx, s.vendor.Name, s.subjects(q.organization), func(m event.Message) error {
		s.messages++
		if !mayName(&m, q.id) {
			return nil
		}
		for _, o := range occurrencesIn(m, s.limits) {
			o.message.Data, o.message.Header = nil, nil
			if q.asks(o.id, o.source) {
				f.events = append(f.events, o)
			} else if q.asksSnapshot(&o) {
				f.addPart(&o)
			}
		}
		return nil
	})
	return f, err
}

// subjects are where the log has the events of an organization, or of all.
func (s *search) subjects(organization string) []string {
	token := "*"
	if organization != "" {
		token = event.Escape(organization)
	}
	below := ".v1." + event.Escape(s.vendor.Name) + "." + token + ".>"
	return []string{event.FamilyUsage + below, event.FamilyCatalog + below}
}

// explainAll explains the events that were found, and the letters of those
// that the log no longer has.
func (s *search) explainAll(ctx context.Context, q question, f *found) ([]explanation, error) {
	var all []explanation
	for i := range f.events {
		explained, err := s.explain(ctx, &f.events[i])
		if err != nil {
			return nil, err
		}
		all = append(all, explained...)
	}
	letters, err := s.lettersOf(ctx, q, f.events)
	return append(all, letters...), err
}

// explain says what became of one occurrence: of a snapshot as a whole, else
// for each key that it concerns.
func (s *search) explain(ctx context.Context, o *occurrence) ([]explanation, error) {
	letter, err := s.letterOf(ctx, o)
	if err != nil {
		return nil, err
	}
	var all []explanation
	switch {
	case o.fault != nil:
		all = append(all, explainDead(o, letter))
	case isSnapshot(o):
		x, err := s.explainPart(ctx, o, letter)
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	default:
		for _, op := range o.operations {
			h, err := s.history(ctx, op.Key)
			if err != nil {
				return nil, err
			}
			all = append(all, h.explain(o, op, letter))
		}
	}
	for i := range all {
		if err := s.surround(ctx, &all[i], o); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// surround adds what the operators did with the event.
func (s *search) surround(ctx context.Context, x *explanation, o *occurrence) (err error) {
	if x.ReplayOf != "" {
		if x.Original, err = s.original(ctx, x.ReplayOf); err != nil {
			return err
		}
	}
	if x.Disposition == ledger.Dead && x.DeadLetter == "" {
		if x.ReplayedAs, err = s.replaysOf(ctx, o); err != nil {
			return err
		}
		if len(x.ReplayedAs) == 0 {
			if x.Dropped, err = s.dropped(ctx, o.place()); err != nil {
				return err
			}
		}
	}
	x.tell()
	return nil
}

// original looks up the event that was replayed.
func (s *search) original(ctx context.Context, replayOf string) (*original, error) {
	arrival, err := event.ParseArrival(replayOf)
	if err != nil {
		return nil, nil //nolint:nilerr // it names none
	}
	first := &original{Place: broker.EventsStream(s.vendor.Name) + "/" + arrival.String()}
	m, err := s.app.broker.Message(ctx, s.vendor.Name, arrival.Sequence())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return first, nil
	}
	if err != nil {
		return nil, err
	}
	first.Stored = m.Stored
	for _, o := range occurrencesIn(m, s.limits) {
		if o.index == arrival.Index() {
			first.EventID, first.Source = o.id, o.source
			if o.fault != nil {
				first.Fault = o.fault.Error()
			}
		}
	}
	return first, nil
}

// replaysOf finds the places at which a dead event came again.
func (s *search) replaysOf(ctx context.Context, o *occurrence) ([]string, error) {
	organization := event.OrganizationOf(o.message.Subject)
	if event.CheckID(organization) != nil {
		return nil, nil //nolint:nilerr // nobody knows whose it is, and nothing of nobody is replayed
	}
	of := s.replays[organization]
	if of == nil {
		of = map[string][]string{}
		err := s.app.broker.ReadLog(ctx, s.vendor.Name, s.subjects(organization), func(m event.Message) error {
			if !mayReplay(&m) {
				return nil
			}
			for _, r := range occurrencesIn(m, s.limits) {
				if r.event != nil && r.event.ReplayOf != "" {
					of[r.event.ReplayOf] = append(of[r.event.ReplayOf], r.place())
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.replays[organization] = of
	}
	return of[event.ArrivalAt(o.message.Sequence, o.index).String()], nil
}

// dropped looks in the audit log for whoever dropped a dead letter.
func (s *search) dropped(ctx context.Context, letter string) (*deed, error) {
	stream, err := s.app.jetStream(ctx, broker.StreamAudit)
	if err != nil {
		return nil, err
	}
	var by *deed
	for sequence := uint64(1); ; sequence++ {
		m, err := stream.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject("audit.v1.*"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return by, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		sequence = m.Sequence
		var done action
		if json.Unmarshal(m.Data, &done) != nil || !slices.Contains(done.Objects, letter) {
			continue
		}
		switch done.Action {
		case lettersDropped:
			by = &deed{By: done.Actor, Why: done.Why, At: done.At}
		case lettersKept:
			by = nil // the drop was interrupted before it came to the letter
		}
	}
}

// What the audit log says of dead letters.
const (
	lettersDropped = "dead letters dropped"
	lettersKept    = "dead letters kept"
)

// letterOf is the dead letter of an occurrence, nil when there is none.
func (s *search) letterOf(ctx context.Context, o *occurrence) (*broker.StoredLetter, error) {
	letter, err := s.letter(ctx, o.place())
	if err != nil || letter != nil || o.event == nil {
		return letter, err
	}
	place := o.message.Stream + "/" + o.event.Arrival.String()
	if place == o.place() {
		return nil, nil // the absence of a letter is no error
	}
	// A figure that was given up is parked where its original arrived.
	letter, err = s.letter(ctx, place)
	if letter != nil && !ofCall(letter.Fault.Reason) {
		letter = nil
	}
	return letter, err
}

// letter is the dead letter of an id, nil when there is none.
func (s *search) letter(ctx context.Context, id string) (*broker.StoredLetter, error) {
	l, err := s.app.broker.Letter(ctx, id)
	if errors.Is(err, broker.ErrNoLetter) {
		return nil, nil // the absence of a letter is no error
	}
	if err != nil {
		return nil, err
	}
	return &l, nil
}

// lettersOf explains the dead letters of events that the log no longer has.
func (s *search) lettersOf(ctx context.Context, q question, events []occurrence) ([]explanation, error) {
	var all []explanation
	f := broker.LetterFilter{Vendor: s.vendor.Name, Organization: q.organization}
	err := s.app.broker.Letters(ctx, f, func(l broker.StoredLetter) error {
		id, source := deadletter.Identity(&l.Letter)
		known := slices.ContainsFunc(events, func(o occurrence) bool {
			at := event.ArrivalAt(o.message.Sequence, o.index)
			return o.message.Stream == l.Original.Stream && (at == l.Arrival() || o.event != nil && o.event.Arrival == l.Arrival())
		})
		if known || !q.asks(id, source) {
			return nil
		}
		o := occurrence{message: l.Original, index: l.Index, fault: &l.Fault, id: id, source: source}
		x := explainDead(&o, &l)
		if ofCall(l.Fault.Reason) { // the event was good, and its figure was not
			x.Disposition = ledger.Applied
			x.tell()
		}
		x.say("The log no longer has the event itself.")
		all = append(all, x)
		return nil
	})
	return all, err
}

// deadIn lists the places of the organization's events that could not be folded.
func (s *search) deadIn(ctx context.Context, organization string) (map[string]bool, error) {
	if dead := s.dead[organization]; dead != nil {
		return dead, nil
	}
	dead := map[string]bool{}
	f := broker.LetterFilter{Vendor: s.vendor.Name, Organization: organization}
	err := s.app.broker.Letters(ctx, f, func(l broker.StoredLetter) error {
		if !ofCall(l.Fault.Reason) {
			dead[l.ID] = true
		}
		return nil
	})
	s.dead[organization] = dead
	return dead, err
}

// history reads everything that is known of a key.
func (s *search) history(ctx context.Context, key ledger.Key) (*history, error) {
	if h := s.histories[key]; h != nil {
		return h, nil
	}
	h := &history{
		integration: s.vendor.Name + "/" + key.Organization, key: key, keepers: map[ledger.Key]ledger.Entry{}, record: s.record,
		patience: s.app.config.SnapshotPatience, first: s.first, reachesBack: s.first == 1,
	}
	s.histories[key] = h
	if err := s.readLog(ctx, h); err != nil {
		return nil, err
	}
	if key.Kind.Figure() {
		calls := broker.CallFilter{Operation: key.Kind.String(), Account: key.Account, Service: key.Service}
		err := s.app.broker.Calls(ctx, s.vendor.Name, key.Organization, calls, func(c ledger.Call) error {
			h.calls = append(h.calls, c)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if err := s.readEntries(ctx, h); err != nil {
		return nil, err
	}
	h.hear(s.vendorWords(key.Organization))
	var err error
	if h.dead, err = s.deadIn(ctx, key.Organization); err != nil {
		return nil, err
	}
	return h, s.readGates(ctx, h)
}

// readLog reads the events that concern the key: its own, and of snapshots
// whose scope it lies in what they say of it.
func (s *search) readLog(ctx context.Context, h *history) error {
	subject := event.Subject{Vendor: s.vendor.Name, Organization: h.key.Organization, Account: h.key.Account, Service: h.key.Service}
	batch, snapshot := subject, subject
	batch.Kind, snapshot.Kind = event.KindBatch, event.KindSnapshot
	subjects := []string{batch.String()}
	if h.key.Kind.Figure() {
		subject.Kind = event.Kind(h.key.Kind.String())
		subjects = append(subjects, subject.String())
	}
	if h.key.Kind == ledger.Count || h.key.Kind == ledger.Scope {
		subjects = append(subjects, snapshot.String())
	}
	return s.app.broker.ReadLog(ctx, s.vendor.Name, subjects, func(m event.Message) error {
		for _, o := range occurrencesIn(m, s.limits) {
			if o.narrow(h.key) {
				h.log = append(h.log, o)
			}
		}
		return nil
	})
}

// narrow leaves of an occurrence what concerns the key, since a key may have
// many and a snapshot many keys; it says whether anything does.
func (o *occurrence) narrow(key ledger.Key) bool {
	var of []ledger.Operation
	for _, op := range o.operations {
		if op.Key == key || op.Part != nil && key.In(op.Key) {
			of = append(of, op)
		}
	}
	if of == nil {
		return false
	}
	e := *o.event
	e.Data = nil
	o.event, o.operations, o.message.Data, o.message.Header = &e, of, nil, nil
	return true
}

// readEntries reads what the ledger has of the key, of the snapshots of its
// scopes, and of the backfills that its events belong to.
func (s *search) readEntries(ctx context.Context, h *history) (err error) {
	if h.stored, err = s.entry(ctx, h.key); err != nil {
		return err
	}
	keys := map[ledger.Key]bool{}
	switch h.key.Kind {
	case ledger.Count:
		keys[ledger.ScopeKey(h.key.Organization, "")] = true
		keys[ledger.ScopeKey(h.key.Organization, h.key.Account)] = true
	case ledger.Scope:
		keys[h.key] = true
	case ledger.Account, ledger.Service, ledger.Backfill:
	}
	for i := range h.log {
		if id := h.log[i].event.Backfill; id != "" {
			keys[ledger.BackfillKey(h.key.Organization, id)] = true
		}
	}
	for key := range keys {
		e, err := s.entry(ctx, key)
		if err != nil {
			return err
		}
		if e != nil {
			h.keepers[key] = *e
		}
	}
	return nil
}

func (s *search) entry(ctx context.Context, key ledger.Key) (*ledger.Entry, error) {
	partition := broker.Partition(s.vendor.Name, key.Organization, s.vendor.Partitions)
	e, ok, err := s.app.broker.Ledger(s.vendor.Name).Read(ctx, partition, key)
	if err != nil || !ok {
		return nil, err
	}
	return &e, nil
}

// readGates finds what else keeps the key from being sent.
func (s *search) readGates(ctx context.Context, h *history) error {
	i, err := s.app.integration(ctx, s.vendor.Name, h.key.Organization)
	if err != nil && !errors.Is(err, broker.ErrNotFound) {
		return err
	}
	h.owner, h.gate, h.catalog = i, gateOf(i), true // i is nil if there is no record
	if h.key.Kind != ledger.Count {
		return nil
	}
	generation := 0
	if i != nil {
		generation = i.Generation
	}
	for _, key := range []ledger.Key{h.key.AccountKey(), h.key.ServiceKey()} {
		e, err := s.entry(ctx, key)
		if err != nil {
			return err
		}
		if e == nil || !e.PostedIn(generation) {
			h.catalog, h.missing = false, append(h.missing, key)
		}
	}
	return nil
}
