package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// work is one cycle's changes, on copies: nothing of it shows before it is
// recorded.
type work struct {
	now       time.Time
	table     *table
	rules     *ledger.Rules
	changed   map[ledger.Key]*ledger.Entry
	keepers   bool                // some of the changed ones are no figures
	list      []ledger.Entry      // changed, as handed to the store; has the new revisions
	woken     []ledger.Key        // keys that events or people changed
	completed map[ledger.Key]bool // scopes of which a snapshot is complete now
	snapshots map[string]int      // that ended, by how
	letters   []event.Letter
	calls     []ledger.Call
	watch     *floodWatch
	flooded   bool // too many of the vendor's events are dead: no more of them
	tracing   bool
	traced    *traced   // the message that is being folded
	traces    []*traced // of all that were folded

	messages     int                 // folded
	events       int                 // in them, dead ones too
	received     map[string]int      // messages, by family
	dispositions map[disposition]int // events
}

type disposition struct {
	family string
	what   ledger.Disposition
}

func (p *partition) newWork(now time.Time) *work {
	return &work{
		now: now, tracing: p.config.Tracer != nil, table: p.table, rules: p.vendor.currentRules(), watch: p.vendor.watch(), changed: map[ledger.Key]*ledger.Entry{},
		completed: map[ledger.Key]bool{}, received: map[string]int{}, dispositions: map[disposition]int{}, snapshots: map[string]int{},
	}
}

// entries are the changed ones, by kind.
func (w *work) entries() []ledger.Entry {
	list := make([]ledger.Entry, 0, len(w.changed))
	for _, e := range w.changed {
		list = append(list, *e)
	}
	slices.SortFunc(list, func(a, b ledger.Entry) int { return cmp.Compare(a.Key.Kind, b.Key.Kind) })
	return list
}

// Entry is the newest copy of the key's entry, or a new one (ledger.Book).
func (w *work) Entry(key ledger.Key) ledger.Entry {
	if w.keepers || key.Kind.Figure() { // scopes are asked for with every count, and there are few
		if e := w.changed[key]; e != nil {
			return *e
		}
	}
	e, _ := w.table.entry(key)
	return e
}

// Put takes a changed entry (ledger.Book).
func (w *work) Put(e ledger.Entry) {
	if known := w.changed[e.Key]; known != nil {
		*known = e
		return
	}
	w.keepers = w.keepers || !e.Key.Kind.Figure()
	kept := e
	w.changed[e.Key] = &kept
}

// Counts yields every count of the scope (ledger.Book).
func (w *work) Counts(scope ledger.Key, yield func(ledger.Key)) {
	for _, key := range w.table.counts(scope) {
		yield(key)
	}
	for key := range w.changed {
		if !key.In(scope) {
			continue
		}
		if _, recorded := w.table.entry(key); !recorded {
			yield(key)
		}
	}
}

// fold decodes and applies the messages of a batch, until they are all
// folded, or hold as many events as one cycle may have, or too many of them are
// dead.
func (p *partition) fold(batch []event.Message, now time.Time) *work {
	w := p.newWork(now)
	for w.messages < len(batch) && w.events < maxCycle && !w.flooded {
		m := &batch[w.messages]
		w.messages++
		w.received[family(m)]++
		w.follow(m)
		for _, r := range p.decode(m) {
			w.events++
			dead := len(w.letters)
			p.foldResult(w, m, r)
			w.flooded = w.watch.add(len(w.letters) > dead) || w.flooded
		}
	}
	return w
}

// decode reads a message. A panic on the way is a fault of ours, but must not
// stop everybody's figures: the message becomes a dead letter that has the
// stack in it.
func (p *partition) decode(m *event.Message) (results []event.Result) {
	defer func() {
		if caught := recover(); caught != nil {
			results = []event.Result{{Fault: crashed(caught)}}
		}
	}()
	return event.Decode(*m, p.config.Limits)
}

func crashed(caught any) *event.Fault {
	return &event.Fault{
		Reason:  event.ReasonMalformed,
		Problem: fmt.Sprintf("reading it crashed this program: %v\n%s", caught, debug.Stack()),
	}
}

func (p *partition) foldResult(w *work, m *event.Message, r event.Result) {
	fault := r.Fault
	if fault == nil {
		fault = p.apply(w, m, r.Event)
	}
	if fault == nil {
		return
	}
	w.dispositions[disposition{family(m), ledger.Dead}]++
	w.traced.became(ledger.Dead, fault.Reason)
	w.letters = append(w.letters, p.letter(w, m, r, fault))
}

// apply folds one event into the entries it names. A fault is final.
func (p *partition) apply(w *work, m *event.Message, e *event.Event) (fault *event.Fault) {
	defer func() {
		if caught := recover(); caught != nil {
			fault = crashed(caught)
		}
	}()
	meaning := p.config.Meanings[e.Type]
	if meaning == nil {
		return &event.Fault{
			Reason:  event.ReasonUnknownType,
			Problem: fmt.Sprintf("this version does not fold %s", e.Type),
			Want:    "replay the letter after an upgrade",
		}
	}
	operations, err := meaning(e)
	if err != nil {
		if !errors.As(err, &fault) {
			fault = &event.Fault{Reason: event.ReasonInvalid, Problem: err.Error()}
		}
		return fault
	}
	folded, err := ledger.Fold(w, operations, w.rules, w.now)
	if err != nil {
		return &event.Fault{
			Reason:  event.ReasonConflict,
			Problem: fmt.Sprintf("event %q of %s: %v", e.ID, e.Source, err),
			Want:    "a new id for every event whose content differs",
		}
	}
	w.dispositions[disposition{family(m), folded.Disposition}]++
	w.traced.became(folded.Disposition, "")
	p.origins.note(folded.Figures, operations, w.traced)
	w.woken = append(w.woken, folded.Figures...)
	for _, scope := range folded.Completed {
		w.completed[scope] = true
	}
	w.snapshots[snapshotIncomplete] += folded.Lost
	return nil
}

func (p *partition) letter(w *work, m *event.Message, r event.Result, fault *event.Fault) event.Letter {
	l := event.Letter{
		Vendor:   p.vendor.name,
		Fault:    *fault,
		Original: *m,
		Index:    r.Index,
		Worker:   p.config.ID,
		Parked:   w.now,
	}
	if r.Raw != nil {
		l.Original.Data = r.Raw
	}
	if s, err := event.ParseSubject(m.Subject); err == nil {
		l.Organization = s.Organization
	} else {
		l.Organization = event.OrganizationOf(m.Subject)
	}
	if r.Event != nil {
		l.EventID, l.Source = r.Event.ID, r.Event.Source
		l.Key = r.Event.Subject().String()
	}
	return l
}

func family(m *event.Message) string { return event.FamilyOf(m.Subject) }

// settle folds outcomes into the entries they concern.
func (p *partition) settle(ctx context.Context, w *work, outcomes []delivery.Outcome, done *progress) {
	for i := range outcomes {
		o := &outcomes[i]
		if !o.Uncalled {
			w.calls = append(w.calls, p.callRecord(o))
		}
		if o.Task.Key.Kind == 0 {
			continue
		}
		current := w.Entry(o.Task.Key)
		if _, ok := current.Desired(); !ok {
			continue
		}
		if o.Verdict.Ruling == delivery.Dead {
			w.letters = append(w.letters, p.refusal(ctx, w, o, done))
		}
		if next, changed := settleOne(w, &current, o, p.generation(o.Task.Key.Organization)); changed {
			w.Put(next)
		}
	}
}

// doubt makes dirty what the partner has lost of the keys.
func (p *partition) doubt(w *work, keys []ledger.Key) {
	for _, key := range keys {
		current := w.Entry(key)
		if next, changed := current.Doubt(p.generation(key.Organization), w.now); changed {
			w.Put(next)
			w.woken = append(w.woken, key)
		}
	}
}

// review brings keys in line with what people have said and with snapshots.
func (p *partition) review(w *work, keys []ledger.Key) {
	for _, key := range keys {
		if key.Kind == ledger.Scope {
			p.giveUp(w, key)
			continue
		}
		if ledger.Review(w, key, w.rules, w.now) && key.Kind.Figure() {
			w.woken = append(w.woken, key)
		}
	}
}

// giveUp gives up the snapshots of a scope whose parts do not come.
func (p *partition) giveUp(w *work, scope ledger.Key) {
	e := w.Entry(scope)
	next, lost := e.GiveUp(w.now, p.config.SnapshotPatience)
	if lost == 0 {
		return
	}
	w.Put(next)
	w.snapshots[snapshotIncomplete] += lost
	p.log.Warn("snapshots given up, because parts did not come", "organization", scope.Organization, "snapshots", lost,
		"try", "send the whole snapshot again")
}

// How a snapshot ends.
const (
	snapshotComplete   = "complete"
	snapshotApproval   = "approval"
	snapshotIncomplete = "incomplete"
)

// settleOne is the entry after the call, in an integration of the generation.
func settleOne(w *work, e *ledger.Entry, o *delivery.Outcome, generation int) (next ledger.Entry, changed bool) {
	answer := ledger.Answer{At: o.Answer.At.UnixNano(), Status: o.Answer.Status, Message: o.Answer.Message}
	switch o.Verdict.Ruling {
	case delivery.Delivered:
		next = e.Take(o.Task.Figure, o.Task.Before, ledger.Receipt{
			RequestID: o.Answer.RequestID, Generation: o.Task.Generation, Unbuilt: o.Task.NoBuild,
		}, answer, w.now)
		if doubted, changed := next.Doubt(generation, w.now); changed {
			return doubted, true // the partner has lost it while the call was under way
		}
		return next, true
	case delivery.Retry:
		if e.State == ledger.Retrying && e.Next == o.Due.UnixNano() {
			// This outcome was stored when the cycle was tried before. To
			// count it again would spend the retry budget without a call.
			return *e, false
		}
		return e.Retry(o.Due, answer), true
	case delivery.HoldKey:
		return e.Hold(o.Verdict.Hold, answer), true
	case delivery.Dead:
		if e.State == ledger.Failed && e.Answer == answer {
			return *e, false // stored when the cycle was tried before
		}
		return e.Fail(o.Task.Figure, answer), true
	case delivery.HoldLane, delivery.Wait, delivery.Unanswered, delivery.Split, delivery.NotCounted:
	}
	return *e, false
}

// refusal is the dead letter of a figure that cannot be delivered. It carries
// the event as it was published, as long as the log still has it.
func (p *partition) refusal(ctx context.Context, w *work, o *delivery.Outcome, done *progress) event.Letter {
	figure := o.Task.Figure
	arrival := event.Arrival(figure.Arrival)
	l := event.Letter{
		Vendor:       p.vendor.name,
		Organization: o.Task.Key.Organization,
		Fault: event.Fault{
			Reason:  event.Reason(o.Verdict.Dead),
			Problem: fmt.Sprintf("the partner answered %d to attempt %d: %s", o.Answer.Status, o.Task.Attempt, o.Answer.Message),
		},
		Index:    arrival.Index(),
		Key:      o.Task.Key.String(),
		Attempts: o.Task.Attempt,
		Answer:   o.Answer.Message,
		Worker:   p.config.ID,
		Parked:   w.now,
	}
	l.Original.Stream, l.Original.Sequence = event.Stream(p.vendor.name), arrival.Sequence()
	m, err := p.original(ctx, arrival.Sequence(), done)
	for _, r := range event.Decode(m, event.Limits{}) {
		if err != nil || r.Index != arrival.Index() || r.Event == nil {
			continue
		}
		_, many := r.Event.Data.(event.Snapshot)
		switch {
		case many && r.Event.SnapshotDigest() == figure.Event:
			p.extract(&l, m, r.Event, o.Task)
			return l
		case r.Event.Digest() == figure.Event:
			l.Original, l.EventID, l.Source = m, r.Event.ID, r.Event.Source
			if r.Raw != nil {
				l.Original.Data = r.Raw
			}
			return l
		}
	}
	// The log no longer has the event, or it came by an edited replay, or no
	// event stands for the figure any more.
	of := &event.Event{
		ID: fmt.Sprintf("%016x", figure.Event), Source: "//usagebridge", Time: time.Unix(0, figure.Time).UTC(),
		Backfill: p.table.backfill(o.Task.Key.Organization, figure.Backfill),
	}
	if figure.Unfounded() {
		of.Time = w.now
	}
	p.extract(&l, l.Original, of, o.Task)
	return l
}

// extract makes the letter one of a single figure: of an event that has many, or
// that cannot be had. A snapshot may have thousands, and each needs a letter and
// a replay of its own; the snapshot's message stays in the log.
func (p *partition) extract(l *event.Letter, from event.Message, of *event.Event, task delivery.Task) {
	digest := fnv.New32a()
	_, _ = io.WriteString(digest, task.Key.String())
	l.Figure = fmt.Sprintf("%08x", digest.Sum32())
	e := event.Event{
		ID: "figure " + l.Figure + " of " + of.ID, Source: of.Source, Time: of.Time,
		Vendor: p.vendor.name, Organization: task.Key.Organization, Backfill: of.Backfill,
	}
	if len(e.ID) > event.MaxAttributeBytes {
		e.ID = fmt.Sprintf("figure %s at %d", l.Figure, task.Figure.Arrival)
	}
	e.Type, e.Data = dataOf(task)
	l.EventID, l.Source = e.ID, e.Source
	l.Original.Stream, l.Original.Sequence, l.Original.Stored = event.Stream(p.vendor.name), event.Arrival(task.Figure.Arrival).Sequence(), from.Stored
	l.Original.Subject, l.Original.Header, l.Original.Data = e.Subject().String(), nil, e.Structured()
}

// dataOf is what an event would say that has the task's figure and no other.
func dataOf(task delivery.Task) (typ string, data event.Data) {
	key, value := task.Key, task.Figure.Value
	if key.Kind == ledger.Count {
		return event.TypeCount, event.Count{AccountID: key.Account, ServiceID: key.Service, UnitCount: event.Units(value.Units)}
	}
	var properties struct {
		Name        string `json:"name"`
		ExternalID  string `json:"externalId"`
		Description string `json:"description"`
	}
	_ = json.Unmarshal([]byte(value.Properties), &properties) // the ledger has no others
	if key.Kind == ledger.Service {
		return event.TypeService, event.Service{ServiceID: key.Service, Name: properties.Name, Description: properties.Description}
	}
	return event.TypeAccount, event.Account{
		AccountID: key.Account, Name: properties.Name, ExternalID: properties.ExternalID, Description: properties.Description,
	}
}

// original reads a message of the log again, once in a cycle. One that cannot be
// had is empty.
func (p *partition) original(ctx context.Context, sequence uint64, done *progress) (event.Message, error) {
	if m, ok := done.originals[sequence]; ok {
		return m, nil
	}
	if sequence == 0 {
		return event.Message{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, originalTimeout)
	defer cancel()
	m, err := p.config.Backend.Records.Message(ctx, p.vendor.name, sequence)
	if err != nil {
		p.log.Warn("dead letter without its original", "err", err, "sequence", sequence)
	}
	done.originals[sequence] = m
	return m, err
}

// originalTimeout bounds the look back into the log for a dead letter.
const originalTimeout = 5 * time.Second

func (p *partition) callRecord(o *delivery.Outcome) ledger.Call {
	f := o.Task.Figure
	return ledger.Call{
		Organization: o.Task.Key.Organization,
		Operation:    o.Task.Operation(),
		Account:      o.Task.Key.Account,
		Service:      o.Task.Key.Service,
		Units:        f.Value.Units,
		Properties:   f.Value.Properties,
		Time:         f.Time,
		Arrival:      f.Arrival,
		Generation:   o.Task.Generation,
		Attempt:      o.Task.Attempt,
		At:           o.Answer.At,
		Duration:     o.Answer.Duration,
		Status:       o.Answer.Status,
		RequestID:    o.Answer.RequestID,
		Verdict:      string(o.Verdict.Ruling),
		Message:      o.Answer.Message,
		Worker:       p.config.ID,
	}
}

// report writes the one line of the log that a batch gets.
func (p *partition) report(w *work, messages int, took time.Duration) {
	if messages == 0 {
		return
	}
	counts := map[ledger.Disposition]int{}
	for d, n := range w.dispositions {
		counts[d.what] += n
	}
	attributes := []slog.Attr{slog.Int("messages", messages), slog.Float64("duration_seconds", took.Seconds())}
	for _, what := range ledger.Dispositions() {
		if counts[what] > 0 {
			attributes = append(attributes, slog.Int(string(what), counts[what]))
		}
	}
	for i := range w.letters {
		l := &w.letters[i]
		p.log.Warn("dead letter parked", "organization", l.Organization, "reason", string(l.Fault.Reason),
			"event_id", l.EventID, "sequence", l.Original.Sequence, "err", l.Fault.Problem)
	}
	p.log.LogAttrs(context.Background(), slog.LevelInfo, "batch folded", attributes...)
}
