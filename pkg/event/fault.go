package event

import (
	"errors"
	"strconv"
	"strings"
)

// Reason says why an event is dead: the event contract's closed list.
type Reason string

// The dead-letter reasons that need no partner.
const (
	ReasonMalformed       Reason = "malformed"             // not JSON, not CloudEvents
	ReasonInvalid         Reason = "invalid"               // violates the schema
	ReasonUnknownType     Reason = "unknown_type"          // a type this version does not know
	ReasonSubjectMismatch Reason = "subject_mismatch"      // subject and data name different ids
	ReasonTooFarAhead     Reason = "too_far_ahead"         // would block every honest later value
	ReasonTooOld          Reason = "too_old"               // older than the accepted lateness
	ReasonConflict        Reason = "conflicting_duplicate" // same id and source, other content
	ReasonRejected        Reason = "rejected"              // the partner refuses this value for good
	ReasonUndeliverable   Reason = "undeliverable"         // the retry budget is spent
)

// Reasons lists every reason, in the order of the event contract.
func Reasons() []Reason {
	return []Reason{
		ReasonMalformed, ReasonInvalid, ReasonUnknownType, ReasonSubjectMismatch, ReasonTooFarAhead,
		ReasonTooOld, ReasonConflict, ReasonRejected, ReasonUndeliverable,
	}
}

// Fault is why an event can never be applied. It is an error, and permanent:
// trying again changes nothing.
type Fault struct {
	Reason  Reason
	Pointer string // JSON Pointer (RFC 6901) into the body; empty for the whole
	Problem string // what is wrong
	Want    string // what would be right; may be empty
	// Next is a further problem of the same event, of the same reason; nil at
	// the last one. A dead letter keeps the first; an answer to a person shows
	// All of them. At most sixteen are kept.
	Next *Fault
}

// All lists the fault and every further problem of the same event.
func (f *Fault) All() []*Fault {
	var all []*Fault
	for ; f != nil; f = f.Next {
		all = append(all, f)
	}
	return all
}

// Error writes "reason at pointer: problem (want …)", of this problem alone.
func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString(string(f.Reason))
	if f.Pointer != "" {
		b.WriteString(" at " + f.Pointer)
	}
	b.WriteString(": " + f.Problem)
	if f.Want != "" {
		b.WriteString(" (want " + f.Want + ")")
	}
	return b.String()
}

// Permanent is true: a fault does not go away by trying again.
func (f *Fault) Permanent() bool { return true }

// Result is what became of one event of a message: exactly one of Event and
// Fault is set. Index is its place in a batch, 0 otherwise.
type Result struct {
	Index int
	Event *Event
	Fault *Fault
	// Raw is the event's own bytes in a batch, a part of Message.Data; nil when
	// it is the whole message.
	Raw []byte
}

// maxFindings bounds the problems kept of one event: a snapshot of ten
// thousand wrong counts is explained well enough by the first few.
const maxFindings = 16

// findings collects the problems of one event.
type findings struct{ faults []*Fault }

// add keeps a violation of the schema at a member. A member has one problem,
// and none below one that has: what is missing is not reported again as too
// short.
func (f *findings) add(p place, member, problem, want string) {
	if len(f.faults) == maxFindings {
		return
	}
	pointer := p.pointer(member)
	for _, known := range f.faults {
		if known.Pointer == pointer || strings.HasPrefix(pointer, known.Pointer+"/") {
			return
		}
	}
	f.faults = append(f.faults, &Fault{Reason: ReasonInvalid, Pointer: pointer, Problem: problem, Want: want})
}

// first is the first problem with the others chained to it; nil when none.
func (f *findings) first() *Fault {
	for i := 1; i < len(f.faults); i++ {
		f.faults[i-1].Next = f.faults[i]
	}
	if len(f.faults) == 0 {
		return nil
	}
	return f.faults[0]
}

// err joins all problems; nil when none.
func (f *findings) err() error {
	errs := make([]error, len(f.faults))
	for i, fault := range f.faults {
		errs[i] = fault
	}
	return errors.Join(errs...)
}

// place is where a member sits in a body. It costs nothing until a pointer to
// it is needed.
type place struct {
	element int  // place in a batch; -1 in a message that is no batch
	binary  bool // attributes are headers, the body is the data
	data    bool // in the data, not an attribute
	count   int  // place in counts; -1 outside of it
}

func (p place) inData() place {
	p.data = true
	return p
}

func (p place) inCount(i int) place {
	p.count = i
	return p
}

// pointer is the JSON Pointer to a member, or the header of an attribute in
// binary mode. An empty member is the place itself.
func (p place) pointer(member string) string {
	if p.binary && !p.data {
		return attributePrefix + member
	}
	var b strings.Builder
	if p.element >= 0 {
		b.WriteString("/" + strconv.Itoa(p.element))
	}
	if p.data && !p.binary {
		b.WriteString("/data")
	}
	if p.count >= 0 {
		b.WriteString("/counts/" + strconv.Itoa(p.count))
	}
	if member != "" {
		b.WriteString("/" + member)
	}
	return b.String()
}

// maxQuoted is how much of a value is repeated in a problem.
const maxQuoted = 64

// quote repeats a value in a problem, cut and without control characters.
func quote(value string) string {
	if len(value) > maxQuoted {
		return strconv.Quote(strings.ToValidUTF8(value[:maxQuoted], "")) + "…"
	}
	return strconv.Quote(value)
}
