package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// occurrence is one place of the log at which an event stands.
type occurrence struct {
	message event.Message
	index   int          // place in the batch, 0 otherwise
	event   *event.Event // nil when it can never be applied
	fault   *event.Fault
	// operations are what the event does to the ledger.
	operations []ledger.Operation
	id, source string
}

// place is how people name the occurrence; the id of a dead letter too.
func (o *occurrence) place() string {
	return o.message.Stream + "/" + event.ArrivalAt(o.message.Sequence, o.index).String()
}

func (o *occurrence) same(p *occurrence) bool {
	return o.message.Stream == p.message.Stream && o.message.Sequence == p.message.Sequence && o.index == p.index
}

// occurrencesIn reads a message as a worker with these limits does.
func occurrencesIn(m event.Message, limits event.Limits) []occurrence {
	results := event.Decode(m, limits)
	list := make([]occurrence, len(results))
	for i, r := range results {
		o := occurrence{message: m, index: r.Index, event: r.Event, fault: r.Fault}
		if r.Event != nil {
			o.id, o.source = r.Event.ID, r.Event.Source
			o.operate()
		} else {
			body := r.Raw
			if body == nil {
				body = m.Data
			}
			o.id, o.source = identity(m.Header, body)
		}
		list[i] = o
	}
	return list
}

// operate finds what the event does, or why it can do nothing.
func (o *occurrence) operate() {
	meaning := meanings()[o.event.Type]
	if meaning == nil {
		o.fault = &event.Fault{Reason: event.ReasonUnknownType, Problem: "this version does not fold " + o.event.Type}
		return
	}
	operations, err := meaning(o.event)
	if err != nil {
		o.fault = &event.Fault{Reason: event.ReasonInvalid, Problem: err.Error()}
		return
	}
	o.operations = operations
}

// identity reads the id and the source of an event that may be broken
// otherwise, as far as they are there.
func identity(header map[string][]string, body []byte) (id, source string) {
	var envelope struct {
		ID     any `json:"id"`
		Source any `json:"source"`
	}
	for name, values := range header {
		if len(values) == 0 {
			continue
		}
		value, err := url.PathUnescape(values[0])
		if err != nil {
			value = values[0]
		}
		switch strings.ToLower(name) {
		case "ce-id":
			id = value
		case "ce-source":
			source = value
		}
	}
	if id != "" || source != "" || json.Unmarshal(body, &envelope) != nil {
		return id, source
	}
	id, _ = envelope.ID.(string)
	source, _ = envelope.Source.(string)
	return id, source
}

// mayName says whether a message can hold an event with the id, at a fraction
// of the cost of decoding it. Escapes may spell an id in many ways: then it may.
func mayName(m *event.Message, id string) bool {
	if bytes.Contains(m.Data, []byte(id)) || bytes.IndexByte(m.Data, '\\') >= 0 {
		return true
	}
	for name := range m.Header {
		if strings.EqualFold(name, "ce-id") {
			return true
		}
	}
	return false
}

// step is one event folded into its key.
type step struct {
	occurrence  occurrence
	operation   ledger.Operation
	disposition ledger.Disposition
	// before is the desired figure when the event was folded; nil: none.
	before *ledger.Seen
}

// refold folds the log of a key from its beginning, as a worker does, with the
// answers of the partner in between: what the partner had when an event came
// tells unchanged from applied. The clocks of the server and of the workers
// are taken to be one.
func refold(key ledger.Key, log []occurrence, calls []ledger.Call) []step {
	entry := ledger.Entry{Key: key}
	waiting := slices.SortedStableFunc(slices.Values(calls), func(a, b ledger.Call) int { return a.At.Compare(b.At) })
	var steps []step
	for _, o := range log {
		waiting = slices.DeleteFunc(waiting, func(c ledger.Call) bool {
			// No figure is sent before it is folded, whatever the clocks say.
			due := !c.At.After(o.message.Stored) && event.Arrival(c.Arrival).Sequence() < o.message.Sequence
			if due {
				entry = answered(entry, c)
			}
			return due
		})
		for _, op := range o.operations {
			if op.Key != key {
				continue
			}
			s := step{occurrence: o, operation: op}
			if desired, ok := entry.Desired(); ok {
				s.before = &desired
			}
			// The error says the same as the disposition.
			entry, s.disposition, _ = entry.Apply(op, o.message.Stored)
			steps = append(steps, s)
		}
	}
	return steps
}

// answered is the entry after a call of the sync log, as a worker records it.
func answered(e ledger.Entry, c ledger.Call) ledger.Entry {
	if _, ok := e.Desired(); !ok {
		return e // the log no longer has what was sent
	}
	sent := ledger.Seen{Version: ledger.Version{Time: c.Time, Arrival: c.Arrival}, Value: ledger.Value{Units: c.Units, Properties: c.Properties}}
	answer := ledger.Answer{At: c.At.UnixNano(), Status: c.Status, Message: c.Message}
	switch delivery.Ruling(c.Verdict) {
	case delivery.Delivered:
		if sent.Version.Compare(e.Delivered.Version) < 0 {
			return e.Release()
		}
		return e.Accept(sent, ledger.Receipt{RequestID: c.RequestID, Generation: c.Generation}, answer)
	case delivery.Retry:
		return e.Retry(c.At, answer)
	case delivery.HoldKey:
		return e.Hold(ledger.Unmapped, answer)
	case delivery.Dead:
		return e.Fail(sent, answer)
	case delivery.HoldLane, delivery.Wait, delivery.Unanswered, delivery.Split, delivery.NotCounted:
	}
	return e
}

// history is everything that is known of one key.
type history struct {
	key         ledger.Key
	log         []occurrence // that may concern the key, in the order of the log
	calls       []ledger.Call
	stored      *ledger.Entry // nil: the ledger has none
	reachesBack bool          // the log still has its first message
	gate        ledger.HoldReason
	catalog     bool // account and service are at the partner
}

// explanation is what became of one occurrence of an event, and why.
type explanation struct {
	Integration string    `json:"integration"`
	EventID     string    `json:"event_id"`
	Source      string    `json:"source"`
	Type        string    `json:"type,omitempty"`
	Place       string    `json:"place"` // {stream}/{sequence}, with -{index} in a batch
	Stored      time.Time `json:"stored,omitzero"`
	ReplayOf    string    `json:"replay_of,omitempty"`
	Time        time.Time `json:"time,omitzero"` // when the figure was true
	Key         string    `json:"key,omitempty"`
	Value       string    `json:"value,omitempty"`

	Disposition ledger.Disposition `json:"disposition"` // empty: not folded yet
	// Certain says that the ledger or a dead letter remembers the event.
	// Otherwise the disposition is what folding the log again gives.
	Certain     bool       `json:"certain"`
	ReachesBack bool       `json:"log_reaches_back"`
	Fault       *faultView `json:"fault,omitempty"`
	DeadLetter  string     `json:"dead_letter,omitempty"` // its id

	Before   *figure     `json:"before,omitempty"` // desired when the event came
	After    *figure     `json:"after,omitempty"`  // desired instead of it later
	Accepted *acceptance `json:"accepted,omitempty"`
	Failures int         `json:"failed_calls,omitempty"` // for this figure
	Failure  string      `json:"last_failure,omitempty"`
	Now      *keyView    `json:"key_now,omitempty"`

	Sentences []string `json:"sentences"`
}

// figure is another event of the same key.
type figure struct {
	EventID string    `json:"event_id,omitempty"` // empty: the log no longer has it
	Source  string    `json:"source,omitempty"`
	Value   string    `json:"value"`
	Time    time.Time `json:"time"`
	Arrival string    `json:"arrival"`
}

// acceptance is the call by which the partner took a value.
type acceptance struct {
	At        time.Time `json:"at"`
	RequestID string    `json:"request_id,omitempty"`
	Attempt   int       `json:"attempt,omitempty"`
	Value     string    `json:"value"`
}

// explainDead explains an event that never came near a key.
func explainDead(o *occurrence, letter *broker.StoredLetter) explanation {
	x := begin(o)
	x.Disposition = ledger.Dead
	fault := *o.fault
	if letter != nil {
		fault, x.DeadLetter, x.Certain = letter.Fault, letter.ID, true
	}
	x.Fault = &faultViews(0, &fault)[0]
	x.tell()
	return x
}

func begin(o *occurrence) explanation {
	x := explanation{EventID: o.id, Source: o.source, Place: o.place(), Stored: o.message.Stored}
	s, err := event.ParseSubject(o.message.Subject)
	x.Integration = s.Integration()
	if err != nil {
		x.Integration = "?/" + event.OrganizationOf(o.message.Subject)
	}
	if e := o.event; e != nil {
		x.Type, x.Time, x.ReplayOf = e.Type, e.Time, e.ReplayOf
	}
	return x
}

// explain says what one operation of an event did to its key. letter is the
// dead letter at the event's place in the log, or nil.
func (h *history) explain(o *occurrence, op ledger.Operation, letter *broker.StoredLetter) explanation {
	x := begin(o)
	x.Key, x.Value = op.Key.String(), valueText(op.Key.Kind, op.Value)
	x.ReachesBack = h.reachesBack
	steps := refold(h.key, h.log, h.calls)
	at := slices.IndexFunc(steps, func(s step) bool { return s.occurrence.same(o) && s.operation.Key == op.Key })
	if at >= 0 {
		x.Disposition = steps[at].disposition
		x.Before = h.name(steps[at].before, steps)
	}
	switch remembered, ok := h.remembered(op); {
	case letter != nil && !ofCall(letter.Fault.Reason):
		x.Disposition, x.Certain = ledger.Dead, true
	case ok:
		x.Disposition, x.Certain = remembered, true
	case h.pending(op):
		x.Disposition, x.Before = "", nil
	}
	if letter != nil {
		x.DeadLetter = letter.ID
		x.Fault = &faultViews(0, &letter.Fault)[0]
	} else if x.Disposition == ledger.Dead {
		x.Fault = &faultView{Reason: event.ReasonConflict, Problem: ledger.ErrConflict.Error(), Want: "a new id for every event whose content differs"}
	}
	if x.Disposition == ledger.Applied || x.Disposition == ledger.Unchanged {
		x.After = h.after(steps, at)
		h.delivery(&x, op)
	}
	if h.stored != nil {
		now := viewKey(h.stored, h.gate, h.catalog)
		x.Now = &now
	}
	x.tell()
	return x
}

// ofCall says that a letter tells of calls that failed, not of the event.
func ofCall(r event.Reason) bool { return r == event.ReasonRejected || r == event.ReasonUndeliverable }

// remembered is the disposition that the stored entry knows, or implies.
func (h *history) remembered(op ledger.Operation) (ledger.Disposition, bool) {
	if h.stored == nil {
		return "", false
	}
	for _, s := range h.stored.Seen {
		switch {
		case s.Event != op.Event || s.Arrival > op.Arrival:
		case s.Time != op.Time || s.Value != op.Value:
			return ledger.Dead, true
		case s.Arrival == op.Arrival:
			return s.Disposition, true
		default:
			return ledger.Duplicate, true
		}
	}
	return "", false
}

// pending says that no worker has folded the event yet: it would be newer than
// everything that the ledger has.
func (h *history) pending(op ledger.Operation) bool {
	if h.stored == nil {
		return true
	}
	newest, ok := h.stored.Desired()
	return !ok || op.Version.Compare(newest.Version) > 0
}

// after is the figure that took the event's place as the desired one.
func (h *history) after(steps []step, at int) *figure {
	for i := at + 1; at >= 0 && i < len(steps); i++ {
		s := &steps[i]
		if (s.disposition == ledger.Applied || s.disposition == ledger.Unchanged) && !h.pending(s.operation) {
			return h.name(&ledger.Seen{Version: s.operation.Version, Value: s.operation.Value, Event: s.operation.Event}, steps)
		}
	}
	return nil
}

// name finds the event behind a figure.
func (h *history) name(s *ledger.Seen, steps []step) *figure {
	if s == nil {
		return nil
	}
	f := &figure{Value: valueText(h.key.Kind, s.Value), Time: moment(s.Time), Arrival: event.Arrival(s.Arrival).String()}
	for i := range steps {
		if o := &steps[i].occurrence; steps[i].operation.Event == s.Event {
			f.EventID, f.Source = o.id, o.source
			break
		}
	}
	return f
}

// delivery finds the calls that carried the figure, and for one that needed no
// call the one that had brought the same value before.
func (h *history) delivery(x *explanation, op ledger.Operation) {
	for _, c := range h.calls {
		carried := c.Time == op.Time && c.Arrival == op.Arrival
		same := x.Disposition == ledger.Unchanged && !c.At.After(x.Stored) && (ledger.Value{Units: c.Units, Properties: c.Properties}) == op.Value
		switch {
		case c.Verdict == string(delivery.Delivered) && (carried && x.Accepted == nil || same):
			x.Accepted = &acceptance{At: c.At.UTC(), RequestID: c.RequestID, Attempt: c.Attempt, Value: x.Value}
		case carried && c.Verdict != string(delivery.Delivered):
			x.Failures++
			x.Failure = strings.TrimSpace(fmt.Sprintf("%d %s", c.Status, c.Message))
		}
	}
	if x.Accepted == nil && h.stored != nil && h.stored.Posted() && h.stored.Delivered.Version == op.Version {
		d := h.stored.Delivered
		x.Accepted = &acceptance{At: moment(d.At), RequestID: d.RequestID, Value: x.Value}
	}
}

// tell puts the explanation into sentences.
func (x *explanation) tell() {
	x.say("%s", x.verdict())
	if x.Disposition == ledger.Dead || x.Fault != nil {
		x.tellFault()
	}
	if x.Disposition != "" && !x.Certain {
		switch {
		case x.Fault != nil && x.Disposition == ledger.Dead:
		case x.ReachesBack:
			x.say("The ledger no longer remembers this event; this is what folding its log again gives.")
		default:
			x.say("This is so as far as the log can tell: the ledger no longer remembers the event, and the log no longer reaches back to its beginning.")
		}
	}
	x.tellDelivery()
	x.tellNow()
}

func (x *explanation) say(format string, args ...any) {
	x.Sentences = append(x.Sentences, fmt.Sprintf(format, args...))
}

// verdict is the sentence that begins with the disposition.
func (x *explanation) verdict() string {
	switch x.Disposition {
	case ledger.Applied:
		if x.Before == nil {
			return "applied: it became the desired value of its key, which had none that is known."
		}
		return "applied: it became the desired value of its key, in place of " + x.Before.String() + "."
	case ledger.Duplicate:
		if x.Before == nil {
			return "duplicate: the same event had come before, so it changed nothing."
		}
		return "duplicate: the same event had come before, so it changed nothing; the desired value was " + x.Before.String() + "."
	case ledger.Superseded:
		if x.Before == nil {
			return "superseded: a newer event was there first, so it changed nothing."
		}
		return "superseded: " + x.Before.String() + " was there first and is newer, so it changed nothing."
	case ledger.Unchanged:
		return "unchanged: it is newer than what was there, but the partner already had this value, so no call was made."
	case ledger.Dead:
		return "dead: it can never be applied."
	}
	return "not folded yet: it stands in the log, and no worker has taken it."
}

func (f *figure) String() string {
	text := fmt.Sprintf("%s at %s", f.Value, instant(f.Time))
	if f.EventID == "" {
		return text + " (arrival " + f.Arrival + ", no longer in the log)"
	}
	return text + " (event " + eventName(f.EventID, f.Source) + ", arrival " + f.Arrival + ")"
}

// tellFault says what is wrong and what would be right.
func (x *explanation) tellFault() {
	f := x.Fault
	if f == nil {
		return
	}
	if x.Disposition != ledger.Dead {
		x.say("Then its figure was given up (%s): %s", f.Reason, f.Problem)
	} else {
		fault := event.Fault{Reason: f.Reason, Pointer: f.Pointer, Problem: f.Problem, Want: f.Want}
		x.say("The reason is %s", fault.Error())
	}
	if x.DeadLetter != "" {
		x.say("Dead letter %s keeps it; see `usagebridge dlq show %s`.", x.DeadLetter, x.DeadLetter)
		return
	}
	x.say("No dead letter is stored for it: no worker has taken it yet, or the letter has gone.")
}

func (x *explanation) tellDelivery() {
	if x.Disposition != ledger.Applied && x.Disposition != ledger.Unchanged {
		return
	}
	failures := ""
	if x.Failures > 0 {
		failures = fmt.Sprintf(" %s without success before or since, the last: %s.", plural(x.Failures, "call was", "calls were"), x.Failure)
	}
	switch {
	case x.Accepted != nil:
		request := ""
		if x.Accepted.RequestID != "" {
			request = " (request " + x.Accepted.RequestID + ")"
		}
		x.say("The partner accepted %s on %s%s.%s", x.Accepted.Value, instant(x.Accepted.At), request, failures)
	case x.Disposition == ledger.Unchanged:
		x.say("The sync log no longer has the call by which the partner got it.")
	case x.After != nil:
		x.say("No accepted call with this figure is in the sync log.%s", failures)
	default:
		x.say("The partner has not accepted it.%s", failures)
	}
	if x.After != nil {
		x.say("Later %s took its place.", x.After)
	}
}

func (x *explanation) tellNow() {
	k := x.Now
	if k == nil {
		return
	}
	has := "nothing yet"
	if k.Delivered != "" {
		has = k.Delivered + " since " + instant(k.At)
	}
	x.say("The key is now %s: desired is %s, the partner has %s.", k.why(), k.Desired, has)
}
