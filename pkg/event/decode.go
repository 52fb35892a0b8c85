package event

import (
	"cmp"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// Limits bound an event's time against Message.Stored. The zero value judges
// no time: that is for reading a message again that was judged before.
type Limits struct {
	Ahead    time.Duration // how far the time may be ahead of Stored; 0: no limit
	Lateness time.Duration // how far it may be behind; 0: no limit
}

// DefaultLimits are those of the event contract: 5 minutes ahead, 35 days
// behind.
func DefaultLimits() Limits {
	return Limits{Ahead: 5 * time.Minute, Lateness: 35 * 24 * time.Hour}
}

// Decode reads the events of one stored message: one result for a single
// event, one for each element of a batch, in their order. An array that is no
// batch (not JSON, empty, longer than MaxBatch) has one result, with a fault.
//
// The message is binary when it has the header ce-specversion, a batch when
// its body is an array, and structured otherwise. A fault has the first of
// the reasons malformed, unknown_type, invalid, subject_mismatch,
// too_far_ahead, too_old that holds. Member names are case-sensitive, a
// member that occurs twice makes its event malformed, and attributes and
// members that this version does not know are ignored.
//
// A message that is not stored yet has Sequence 0: the arrival that a replay
// names is then not compared with it.
func Decode(m Message, limits Limits) []Result {
	d := decoders.Get().(*decoder) //nolint:errcheck // the pool holds nothing else
	defer d.release()
	d.message, d.limits, d.doc.body = m, limits, m.Data
	d.subject, d.subjectErr = ParseSubject(m.Subject)
	if binaryMode(m.Header) {
		return []Result{d.binary()}
	}
	if problem := d.doc.parse(); problem != "" {
		return []Result{{Fault: &Fault{Reason: ReasonMalformed, Problem: problem, Want: "a CloudEvents 1.0 JSON envelope, or an array of them"}}}
	}
	if d.doc.nodes[0].kind == kindArray {
		return d.batch()
	}
	return []Result{d.structured(0, 0, place{element: -1, count: -1})}
}

// decoder reads the events of one message.
type decoder struct {
	message    Message
	limits     Limits
	doc        document
	subject    Subject
	subjectErr error
	// unaddressed: the message has no subject yet, it will get the event's own.
	unaddressed bool
}

// decoders keeps the nodes of documents for the next message. Events hold
// copies of what they were read from, so nothing of a message stays.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

// keptNodes is what a large batch needs; a larger room is left to the
// garbage collector.
const keptNodes = 20_000

func (d *decoder) release() {
	nodes := d.doc.nodes[:0]
	if cap(nodes) > keptNodes {
		nodes = nil
	}
	*d = decoder{doc: document{nodes: nodes}}
	decoders.Put(d)
}

func (d *decoder) batch() []Result {
	size := d.doc.nodes[0].size
	if size == 0 || size > MaxBatch {
		return []Result{{Fault: &Fault{
			Reason: ReasonInvalid, Problem: fmt.Sprintf("the batch has %d events", size), Want: fmt.Sprintf("1 to %d events", MaxBatch),
		}}}
	}
	results := make([]Result, size)
	at := int32(1)
	for i := range results {
		results[i] = d.structured(at, i, place{element: i, count: -1})
		results[i].Raw = d.doc.raw(at)
		at = d.doc.nodes[at].after
	}
	return results
}

// structured reads the event whose envelope is node at.
func (d *decoder) structured(at int32, index int, p place) Result {
	if k := d.doc.nodes[at].kind; k != kindObject {
		return Result{Index: index, Fault: &Fault{
			Reason: ReasonMalformed, Pointer: p.pointer(""), Problem: "the event is " + k.String(), Want: "a CloudEvents 1.0 JSON envelope",
		}}
	}
	if fault := d.repeated(at); fault != nil {
		return Result{Index: index, Fault: fault}
	}
	envelope := d.doc.readEnvelope(at)
	return d.event(&envelope, index, p)
}

// binary reads the event whose attributes are headers.
func (d *decoder) binary() Result {
	envelope, fault := readHeaders(d.message.Header)
	if fault != nil {
		return Result{Fault: fault}
	}
	if problem := d.doc.parse(); problem != "" {
		return Result{Fault: &Fault{Reason: ReasonMalformed, Problem: problem, Want: "the event's data as a JSON object"}}
	}
	if fault := d.repeated(0); fault != nil {
		return Result{Fault: fault}
	}
	return d.event(&envelope, 0, place{element: -1, binary: true, count: -1})
}

// repeated refuses an event in which a member occurs twice: nobody could say
// which of two figures goes on the invoice.
func (d *decoder) repeated(at int32) *Fault {
	member := d.doc.repeatedBelow(at)
	if member == 0 {
		return nil
	}
	return &Fault{
		Reason: ReasonMalformed, Pointer: d.doc.pointer(member),
		Problem: "member " + quote(d.doc.string(d.doc.nodes[member].name)) + " occurs twice", Want: "each member once",
	}
}

// event judges an event in the order of the reasons.
func (d *decoder) event(envelope *envelope, index int, p place) Result {
	if !envelope.specVersion.set {
		return Result{Index: index, Fault: &Fault{
			Reason: ReasonMalformed, Pointer: p.pointer("specversion"), Problem: "specversion is missing", Want: "a CloudEvents 1.0 envelope",
		}}
	}
	if typ := envelope.typ; typ.text != "" && !knownType(typ.text) {
		return Result{Index: index, Fault: unknownType(p, typ.text)}
	}
	r := reader{doc: &d.doc, subject: &d.subject}
	e := &Event{Arrival: ArrivalAt(d.message.Sequence, index)}
	r.envelope(envelope, e, d.message.Sequence, p)
	r.data(envelope, e, p)
	e.check(&r.findings, p)
	if fault := r.findings.first(); fault != nil {
		return Result{Index: index, Fault: fault}
	}
	if fault := d.checkSubject(e, p); fault != nil && !d.unaddressed {
		return Result{Index: index, Fault: fault}
	}
	if fault := d.checkAge(e, p); fault != nil {
		return Result{Index: index, Fault: fault}
	}
	return Result{Index: index, Event: e}
}

// checkSubject compares what the subject names with what the event names.
func (d *decoder) checkSubject(e *Event, p place) *Fault {
	if d.subjectErr != nil {
		return &Fault{
			Reason: ReasonSubjectMismatch, Problem: d.subjectErr.Error(), Want: "subject " + quote(e.Subject().String()),
		}
	}
	got, want := d.subject, e.Subject()
	if got == want {
		return nil
	}
	data := p.inData()
	differs := func(p place, member, name, subject, event string) *Fault {
		if subject == event {
			return nil
		}
		return &Fault{
			Reason: ReasonSubjectMismatch, Pointer: p.pointer(member),
			Problem: fmt.Sprintf("the subject has %s %s, the event has %s", name, quote(subject), quote(event)),
			Want:    "subject " + quote(want.String()),
		}
	}
	fault := cmp.Or(
		differs(data, "vendorId", "vendor", got.Vendor, want.Vendor),
		differs(data, "organizationId", "organization", got.Organization, want.Organization),
	)
	if fault != nil || got.Kind == KindBatch {
		return fault
	}
	return cmp.Or(
		differs(p, "type", "kind", string(got.Kind), string(want.Kind)),
		differs(data, "accountId", "account", got.Account, want.Account),
		differs(data, "serviceId", "service", got.Service, want.Service),
	)
}

// checkAge compares the time of the event with when the message was stored.
func (d *decoder) checkAge(e *Event, p place) *Fault {
	age := d.message.Stored.Sub(e.Time)
	var reason Reason
	var want string
	switch {
	case d.limits.Ahead > 0 && age < -d.limits.Ahead:
		reason, want = ReasonTooFarAhead, "a time at most "+d.limits.Ahead.String()+" ahead"
	case d.limits.Lateness > 0 && age > d.limits.Lateness:
		reason, want = ReasonTooOld, "a time at most "+d.limits.Lateness.String()+" ago"
	default:
		return nil
	}
	return &Fault{
		Reason: reason, Pointer: p.pointer("time"), Want: want,
		Problem: fmt.Sprintf("time is %s, stored at %s",
			e.Time.Format(time.RFC3339Nano), d.message.Stored.UTC().Format(time.RFC3339Nano)),
	}
}

// reader moves what a document says into an event and notes what is missing
// or of the wrong kind. What the values must be like is Event.check's work.
type reader struct {
	doc      *document
	subject  *Subject // to share its ids: the same text is kept once
	findings findings
}

// envelope reads the attributes.
func (r *reader) envelope(from *envelope, e *Event, sequence uint64, p place) {
	if version := r.attribute(p, "specversion", from.specVersion, "1.0"); version != specVersion {
		r.findings.add(p, "specversion", "specversion is "+quote(version), "1.0")
	}
	e.ID = r.required(p, "id", from.id, wantAttribute)
	e.Source = r.required(p, "source", from.source, wantAttribute)
	e.Type = r.required(p, "type", from.typ, wantType)
	if text := r.required(p, "time", from.time, wantTime); from.time.set {
		var err error
		if e.Time, err = parseTime(text); err != nil {
			r.findings.add(p, "time", "time is "+quote(text)+", which "+err.Error(), wantTime)
		}
	}
	if media := r.attribute(p, "datacontenttype", from.contentType, ContentTypeData); from.contentType.set && !isJSONType(media) {
		r.findings.add(p, "datacontenttype", "datacontenttype is "+quote(media), "application/json, or a type that ends in +json")
	}
	if text := r.attribute(p, "replayof", from.replayOf, "the arrival of the original, as a string"); from.replayOf.set {
		r.replay(p, text, e, sequence)
	}
	if e.Backfill = r.attribute(p, "backfill", from.backfill, wantBackfill); from.backfill.set && e.Backfill == "" {
		r.findings.add(p, "backfill", "backfill is empty", wantBackfill)
	}
}

// replay gives the event the arrival of its original.
func (r *reader) replay(p place, text string, e *Event, sequence uint64) {
	original, err := ParseArrival(text)
	switch {
	case err != nil:
		r.findings.add(p, "replayof", "replayof is "+quote(text), "a stream sequence such as 4711, or 4711-3 for event 3 of a batch")
	case sequence != 0 && original > e.Arrival:
		r.findings.add(p, "replayof", fmt.Sprintf("replayof is %s, the message itself arrived at %s", original, e.Arrival),
			"the arrival of an earlier message")
	default:
		e.ReplayOf, e.Arrival = text, original
	}
}

// attribute is the text of an attribute; empty when it is not set or, which
// is noted, no string.
func (r *reader) attribute(p place, name string, a attribute, want string) string {
	if a.set && a.kind != kindString {
		r.findings.add(p, name, name+" is "+a.kind.String(), want)
	}
	return a.text
}

func (r *reader) required(p place, name string, a attribute, want string) string {
	if !a.set {
		r.findings.add(p, name, name+" is missing", want)
	}
	return r.attribute(p, name, a, want)
}

// hasObject says whether there are data that can be read, and notes what is wrong
// with them if not.
func (r *reader) hasObject(from *envelope, p place) bool {
	if from.base64 {
		r.findings.add(p, "data_base64", "data_base64 is present", "data, a JSON object, and no data_base64")
	}
	if from.data < 0 {
		r.findings.add(p.inData(), "", "data is missing", "a JSON object")
		return false
	}
	if k := r.doc.nodes[from.data].kind; k != kindObject {
		r.findings.add(p.inData(), "", "data is "+k.String(), "a JSON object")
		return false
	}
	return true
}

// data reads the data of an event whose type is known, as far as it is there.
func (r *reader) data(from *envelope, e *Event, p place) {
	if !r.hasObject(from, p) {
		return
	}
	at, m := p.inData(), r.doc.members(from.data)
	e.Vendor = r.id(at, "vendorId", m.vendorID, r.subject.Vendor)
	e.Organization = r.id(at, "organizationId", m.organizationID, r.subject.Organization)
	switch e.Type {
	case TypeCount:
		e.Data = r.count(at, &m)
	case TypeSnapshot:
		e.Data = r.snapshot(at, &m)
	case TypeAccount:
		e.Data = Account{
			AccountID:   r.id(at, "accountId", m.accountID, r.subject.Account),
			Name:        r.text(at, "name", m.name, "a text"),
			ExternalID:  r.optional(at, "externalId", m.externalID, "a text, or no member"),
			Description: r.optional(at, "description", m.description, "a text, or no member"),
		}
	case TypeService:
		e.Data = Service{
			ServiceID:   r.id(at, "serviceId", m.serviceID, r.subject.Service),
			Name:        r.text(at, "name", m.name, "a text"),
			Description: r.optional(at, "description", m.description, "a text, or no member"),
		}
	}
}

func (r *reader) count(p place, m *members) Count {
	return Count{
		AccountID: r.id(p, "accountId", m.accountID, r.subject.Account),
		ServiceID: r.id(p, "serviceId", m.serviceID, r.subject.Service),
		UnitCount: r.units(p, "unitCount", m.unitCount),
	}
}

func (r *reader) snapshot(p place, m *members) Snapshot {
	s := Snapshot{
		AccountID:  r.optionalID(p, "accountId", m.accountID),
		Part:       r.part(p, "part", m.part),
		Parts:      r.part(p, "parts", m.parts),
		SnapshotID: r.optionalID(p, "snapshotId", m.snapshotID),
	}
	if m.counts == 0 {
		r.findings.add(p, "counts", "counts is missing", "an array, empty if nothing is used")
		return s
	}
	counts := r.doc.nodes[m.counts]
	if counts.kind != kindArray {
		r.findings.add(p, "counts", "counts is "+counts.kind.String(), "an array, empty if nothing is used")
		return s
	}
	s.Counts = make([]Count, 0, counts.size)
	for i := m.counts + 1; i < counts.after; i = r.doc.nodes[i].after {
		at := p.inCount(len(s.Counts))
		if k := r.doc.nodes[i].kind; k != kindObject {
			r.findings.add(at, "", "the entry is "+k.String(), "an object with accountId, serviceId and unitCount")
		}
		entry := r.doc.members(i)
		s.Counts = append(s.Counts, r.count(at, &entry))
	}
	return s
}

// id reads an id that must be there. Nearly always it is the one that the
// subject has.
func (r *reader) id(p place, name string, at int32, expected string) string {
	if n := r.doc.nodes[at]; at != 0 && n.kind == kindString && !n.value.escaped && string(r.doc.body[n.value.start:n.value.end]) == expected {
		return expected
	}
	return r.text(p, name, at, wantID)
}

// text reads a string that must be there.
func (r *reader) text(p place, name string, at int32, want string) string {
	if at == 0 {
		r.findings.add(p, name, name+" is missing", want)
		return ""
	}
	return r.optional(p, name, at, want)
}

// optional reads a string that may be missing.
func (r *reader) optional(p place, name string, at int32, want string) string {
	if at == 0 {
		return ""
	}
	n := &r.doc.nodes[at]
	if n.kind != kindString {
		r.findings.add(p, name, name+" is "+n.kind.String(), want)
		return ""
	}
	return r.doc.string(n.value)
}

// optionalID reads an id that may be missing but not empty: a snapshot whose
// accountId is empty by mistake must not set every account of the
// organization to zero.
func (r *reader) optionalID(p place, name string, at int32) string {
	id := r.optional(p, name, at, wantID)
	if at != 0 && id == "" {
		r.findings.add(p, name, name+" is empty", wantID+", or no member")
	}
	return id
}

func (r *reader) units(p place, name string, at int32) Units {
	if at == 0 {
		r.findings.add(p, name, name+" is missing", wantUnits)
		return 0
	}
	n := &r.doc.nodes[at]
	if n.kind != kindNumber {
		r.findings.add(p, name, name+" is "+n.kind.String(), wantUnits)
		return 0
	}
	text := r.doc.body[n.value.start:n.value.end]
	units, err := parseUnits(text)
	if err != nil {
		r.findings.add(p, name, name+" is "+clip(text)+", which "+err.Error(), wantUnits)
	}
	return units
}

// part reads a number of 1 to MaxParts that may be missing; 0 when it is.
func (r *reader) part(p place, name string, at int32) int {
	if at == 0 {
		return 0
	}
	n := &r.doc.nodes[at]
	if n.kind != kindNumber {
		r.findings.add(p, name, name+" is "+n.kind.String(), wantPart)
		return 0
	}
	text := r.doc.body[n.value.start:n.value.end]
	units, err := parseUnits(text)
	if err != nil || units%UnitsScale != 0 || units < UnitsScale || units > MaxParts*UnitsScale {
		r.findings.add(p, name, name+" is "+clip(text), wantPart)
		return 0
	}
	return int(units / UnitsScale)
}

// members are the nodes of the members that data may have; 0 for those that
// it does not have.
type members struct {
	vendorID, organizationID, accountID, serviceID, unitCount int32
	counts, part, parts, snapshotID                           int32
	name, externalID, description                             int32
}

// members finds the members of the object at node at. Their names are
// case-sensitive: UNITCOUNT is an unknown member and no unitCount.
func (d *document) members(at int32) members {
	var m members
	if d.nodes[at].kind != kindObject {
		return m
	}
	for i := at + 1; i < d.nodes[at].after; i = d.nodes[i].after {
		switch string(d.name(i)) {
		case "vendorId":
			m.vendorID = i
		case "organizationId":
			m.organizationID = i
		case "accountId":
			m.accountID = i
		case "serviceId":
			m.serviceID = i
		case "unitCount":
			m.unitCount = i
		case "counts":
			m.counts = i
		case "part":
			m.part = i
		case "parts":
			m.parts = i
		case "snapshotId":
			m.snapshotID = i
		case "name":
			m.name = i
		case "externalId":
			m.externalID = i
		case "description":
			m.description = i
		}
	}
	return m
}

// clip repeats a number of the body in a problem, cut if it is long.
func clip(text []byte) string {
	if len(text) > maxQuoted {
		return string(text[:maxQuoted]) + "… (" + strconv.Itoa(len(text)) + " characters)"
	}
	return string(text)
}
