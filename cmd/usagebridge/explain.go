package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/consumers/status"
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
		if !errors.As(err, &o.fault) {
			o.fault = &event.Fault{Reason: event.ReasonInvalid, Problem: err.Error()}
		}
		return
	}
	o.operations = operations
}

// identity reads the id and the source of an event that may be broken
// otherwise, as far as they are there.
func identity(header map[string][]string, body []byte) (id, source string) {
	return deadletter.Identity(&event.Letter{Original: event.Message{Header: header, Data: body}})
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

// history is everything that is known of one key.
type history struct {
	integration string
	key         ledger.Key
	log         []occurrence // that may concern the key, in the order of the log
	calls       []ledger.Call
	stored      *ledger.Entry               // nil: the ledger has none
	keepers     map[ledger.Key]ledger.Entry // what it has of the snapshots of its scopes, and of backfills
	words       []word                      // of people, in the order of time
	record      *vendorRecord               // nil: nobody has said anything of the vendor
	dead        map[string]bool             // places whose events could not be folded
	patience    time.Duration               // with snapshots whose parts do not come; 0: without end
	first       uint64                      // sequence with which the log begins; 0: not known
	reachesBack bool                        // the log still has its first message
	gate        ledger.HoldReason
	catalog     bool                // account and service are at the partner
	missing     []ledger.Key        // those of them that are not
	owner       *status.Integration // nil: nobody has added the integration
}

// explanation is what became of one occurrence of an event, and why; without
// an event, what became of a snapshot.
type explanation struct {
	Integration string    `json:"integration"`
	EventID     string    `json:"event_id,omitempty"`
	Source      string    `json:"source,omitempty"`
	Type        string    `json:"type,omitempty"`
	Place       string    `json:"place,omitempty"` // {stream}/{sequence}, with -{index} in a batch
	Stored      time.Time `json:"stored,omitzero"`
	ReplayOf    string    `json:"replay_of,omitempty"`
	Original    *original `json:"original,omitempty"` // of a replay
	Time        time.Time `json:"time,omitzero"`      // when the figure was true
	Key         string    `json:"key,omitempty"`
	Value       string    `json:"value,omitempty"`

	Disposition ledger.Disposition `json:"disposition"` // empty: not folded yet
	// Certain says that the ledger or a dead letter remembers the event.
	// Otherwise the disposition is what folding the log again gives.
	Certain     bool       `json:"certain"`
	ReachesBack bool       `json:"log_reaches_back"`
	Fault       *faultView `json:"fault,omitempty"`
	DeadLetter  string     `json:"dead_letter,omitempty"` // its id
	ReplayedAs  []string   `json:"replayed_as,omitempty"` // places of its replays
	Dropped     *deed      `json:"dropped,omitempty"`     // its dead letter, by an operator
	Revived     bool       `json:"sent_again,omitempty"`  // a replay, of a figure that had failed

	Backfill string           `json:"backfill,omitempty"`
	Undone   *decision        `json:"undone,omitempty"` // the backfill
	Approval *approvalAccount `json:"approval,omitempty"`
	Snapshot *snapshotAccount `json:"snapshot,omitempty"`

	Before   *figure     `json:"before,omitempty"` // desired when the event came
	After    *figure     `json:"after,omitempty"`  // desired instead of it later
	Accepted *acceptance `json:"accepted,omitempty"`
	Failures int         `json:"failed_calls,omitempty"` // for this figure
	Failure  string      `json:"last_failure,omitempty"`
	Now      *keyView    `json:"key_now,omitempty"`

	Sentences []string `json:"sentences"`

	barred bool  // superseded by a person's word, not by a newer figure
	waits  *stop // nothing of the vendor is folded, by whom and why
}

// deed is something that an operator did.
type deed struct {
	By  string    `json:"by"`
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

func (d *deed) String() string { return fmt.Sprintf("by %s on %s: %s", d.By, instant(d.At), d.Why) }

// original is the event that was replayed.
type original struct {
	Place   string    `json:"place"`
	EventID string    `json:"event_id,omitempty"` // empty: the log no longer has it
	Source  string    `json:"source,omitempty"`
	Stored  time.Time `json:"stored,omitzero"`
	Fault   string    `json:"fault,omitempty"` // why it could not be folded
}

// approvalAccount is what was, or is, to be approved.
type approvalAccount struct {
	ID       string    `json:"id"`
	Waits    bool      `json:"waits"`            // still
	From     string    `json:"from,omitempty"`   // the figure before, if that is known
	To       string    `json:"to,omitempty"`     // of a figure that jumped
	Factor   float64   `json:"factor,omitempty"` // of the service, today
	Snapshot string    `json:"snapshot,omitempty"`
	Decision *decision `json:"decision,omitempty"`
}

// figure is another event of the same key.
type figure struct {
	EventID   string    `json:"event_id,omitempty"` // empty: no event, or the log no longer has it
	Source    string    `json:"source,omitempty"`
	Snapshot  string    `json:"snapshot,omitempty"` // that did not name the key, and set it to 0
	Value     string    `json:"value"`
	Time      time.Time `json:"time,omitzero"`
	Arrival   string    `json:"arrival,omitempty"`
	Unfounded bool      `json:"unfounded,omitempty"` // all events that stood for the key were taken back
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
		x.Type, x.Time, x.ReplayOf, x.Backfill = e.Type, e.Time, e.ReplayOf, e.Backfill
	}
	return x
}

// explain says what one operation of an event did to its key. letter is the
// dead letter at the event's place in the log, or nil.
func (h *history) explain(o *occurrence, op ledger.Operation, letter *broker.StoredLetter) explanation {
	x := begin(o)
	x.Key, x.Value = op.Key.String(), valueText(op.Key.Kind, op.Value)
	x.ReachesBack = h.reachesBack
	steps := h.refold().steps
	at := slices.IndexFunc(steps, func(s step) bool { return s.occurrence.same(o) && s.zeroedBy == "" })
	if at >= 0 {
		s := &steps[at]
		x.Disposition, x.Before, x.Revived = s.disposition, h.name(s.before, steps), s.revived
		x.barred = s.disposition == ledger.Superseded && (s.before == nil || s.before.Version.Compare(op.Version) < 0)
	}
	remembered, ok := h.remembered(op)
	switch {
	case letter != nil && !ofCall(letter.Fault.Reason):
		x.Disposition, x.Certain = ledger.Dead, true
	case ok:
		x.Disposition, x.Certain = remembered, true
	case h.pending(op):
		x.Disposition, x.Before, x.barred = "", nil, false
	}
	if letter != nil {
		x.DeadLetter = letter.ID
		x.Fault = &faultViews(0, &letter.Fault)[0]
	} else if x.Disposition == ledger.Dead {
		x.Fault = &faultView{Reason: event.ReasonConflict, Problem: ledger.ErrConflict.Error(), Want: "a new id for every event whose content differs"}
	}
	x.Undone = h.undone(ledger.BackfillDigest(op.Backfill))
	if x.Disposition != ledger.Dead && x.Disposition != ledger.Duplicate {
		x.Approval = h.jump(op, steps)
	}
	x.ReplayedAs = h.replays(o)
	if x.Disposition == ledger.Applied || x.Disposition == ledger.Unchanged {
		x.After = h.after(steps, at, op)
		h.delivery(&x, op)
	}
	h.present(&x)
	x.tell()
	return x
}

// present says where the key stands now.
func (h *history) present(x *explanation) {
	if h.stored != nil {
		now := viewKey(h.stored, h.gate, h.catalog)
		x.Now = &now
	}
	if h.record != nil {
		x.waits = h.record.Stopped
	}
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
// everything that the ledger has, and nobody has taken it back.
func (h *history) pending(op ledger.Operation) bool {
	if h.undone(ledger.BackfillDigest(op.Backfill)) != nil {
		register := h.keepers[ledger.BackfillKey(op.Key.Organization, op.Backfill)].Register
		return register == nil || register.Last < op.Arrival
	}
	if word := h.verdict(approvalOf(op)); word != nil && word.Verdict == refused {
		return false
	}
	if h.stored == nil {
		return true
	}
	newest, ok := h.stored.Desired()
	if edited := op.Replay && op.Version == newest.Version && op.Event != newest.Event; !ok || edited {
		return true
	}
	return op.Version.Compare(newest.Version) > 0
}

// approvalOf is under which id the figure waits if it has jumped.
func approvalOf(op ledger.Operation) uint64 {
	return ledger.JumpID(op.Key, op.Event)
}

// jump says what a person has to say, or has said, of a figure that differs
// too much from the one before; nil if it does not.
func (h *history) jump(op ledger.Operation, steps []step) *approvalAccount {
	a := &approvalAccount{ID: approvalName(approvalOf(op)), To: valueText(op.Key.Kind, op.Value), Decision: h.verdict(approvalOf(op))}
	if h.stored != nil {
		a.Waits = slices.ContainsFunc(h.stored.Seen, func(s ledger.Seen) bool { return s.Event == op.Event && s.Waits == ledger.Jumped })
	}
	if !a.Waits && a.Decision == nil {
		return nil
	}
	if h.record != nil {
		a.Factor = h.record.Jump[op.Key.Service]
	}
	if at := slices.IndexFunc(steps, func(s step) bool { return s.operation.Event == op.Event }); at >= 0 && steps[at].before != nil {
		a.From = valueText(op.Key.Kind, steps[at].before.Value)
	}
	return a
}

// replays are the places at which the log has the occurrence once more.
func (h *history) replays(o *occurrence) (places []string) {
	for i := range h.log {
		if r := &h.log[i]; r.event != nil && r.event.ReplayOf == event.ArrivalAt(o.message.Sequence, o.index).String() && !r.same(o) {
			places = append(places, r.place())
		}
	}
	return places
}

// after is the figure that took the event's place as the desired one.
func (h *history) after(steps []step, at int, op ledger.Operation) *figure {
	for i := at + 1; at >= 0 && i < len(steps); i++ {
		s := &steps[i]
		if !s.took() || s.zeroedBy == "" && h.pending(s.operation) {
			continue
		}
		for _, word := range []*decision{h.undone(ledger.BackfillDigest(op.Backfill)), h.verdict(approvalOf(op))} {
			if word != nil && word.Verdict != released && s.occurrence.message.Stored.After(word.At) {
				return nil // the event had been taken back before
			}
		}
		return h.name(&ledger.Seen{Version: s.operation.Version, Value: s.operation.Value, Event: s.operation.Event}, steps)
	}
	return nil
}

// name finds the event behind a figure.
func (h *history) name(s *ledger.Seen, steps []step) *figure {
	if s == nil {
		return nil
	}
	f := &figure{Value: valueText(h.key.Kind, s.Value)}
	if f.Unfounded = s.Unfounded(); f.Unfounded {
		return f
	}
	f.Time, f.Arrival = moment(s.Time), event.Arrival(s.Arrival).String()
	for i := range steps {
		if o := &steps[i].occurrence; steps[i].operation.Event == s.Event {
			f.EventID, f.Source, f.Snapshot = o.id, o.source, steps[i].zeroedBy
			break
		}
	}
	return f
}

// delivery finds the calls that carried the figure, and for one that needed no
// call the one that had brought the same value before.
func (h *history) delivery(x *explanation, op ledger.Operation) {
	for _, c := range h.calls {
		equal := (ledger.Value{Units: c.Units, Properties: c.Properties}) == op.Value
		// An edited replay shares time and arrival with its original.
		carried := equal && c.Time == op.Time && c.Arrival == op.Arrival
		same := equal && x.Disposition == ledger.Unchanged && !c.At.After(x.Stored)
		switch {
		case c.Verdict == string(delivery.Delivered) && (carried && x.Accepted == nil || same):
			x.Accepted = &acceptance{At: c.At.UTC(), RequestID: c.RequestID, Attempt: c.Attempt, Value: x.Value}
		case carried && c.Verdict != string(delivery.Delivered):
			x.Failures++
			x.Failure = strings.TrimSpace(fmt.Sprintf("%d %s", c.Status, c.Message))
		}
	}
	if is, ok := h.delivered(); x.Accepted == nil && ok && is.Version == op.Version && is.Value == op.Value {
		d := h.stored.Delivered
		x.Accepted = &acceptance{At: moment(d.At), RequestID: d.RequestID, Value: x.Value}
	}
}

// delivered is the figure that the partner has: of those that look the same to
// it the newest that the ledger remembers. Its Event is 0 if there is none.
func (h *history) delivered() (s ledger.Seen, ok bool) {
	if h.stored == nil || !h.stored.Posted() {
		return ledger.Seen{}, false
	}
	d := h.stored.Delivered
	for _, s := range h.stored.Seen {
		if s.Version == d.Version && s.Value == d.Value {
			return s, true
		}
	}
	return ledger.Seen{Version: d.Version, Value: d.Value}, true
}
