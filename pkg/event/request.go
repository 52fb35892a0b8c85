package event

import (
	"fmt"
	"strings"
)

// TypeRequested is the type of an event that asks for an integration. It is no
// event of the ledger: it has a family, a stream and a decoder of its own.
const TypeRequested = "integration.requested.v1"

// FamilyIntegration is the first token of the subjects of requests.
const FamilyIntegration = "integration"

// requestedToken ends the subject of a request.
const requestedToken = "requested"

// MaxEmailChars bounds an e-mail address (RFC 5321, 4.5.3.1).
const MaxEmailChars = 320

const wantEmail = "an e-mail address such as ann@contoso.example, of at most 320 characters"

// Request is a decoded event of TypeRequested: an organization that is to be
// brought to the partner's platform. It never holds a secret.
type Request struct {
	Event // id, source, type, time, vendor and organization; it has no Data

	OrganizationName string
	Email            string
	FirstName        string
	LastName         string
	VendorUserID     string
	PlatformVendorID string // may be empty
}

// RequestSubject is where a request for an organization is published.
func RequestSubject(vendor, organization string) string {
	return strings.Join([]string{FamilyIntegration, "v1", Escape(vendor), Escape(organization), requestedToken}, ".")
}

// IsRequest reports whether a message is one of the family of requests.
func IsRequest(subject string) bool { return strings.HasPrefix(subject, FamilyIntegration+".") }

// DecodeRequest reads the request of one stored message, by the rules by which
// Decode reads events: the envelope, its modes and the reasons are the same. A
// batch is no request.
func DecodeRequest(m Message, limits Limits) (*Request, *Fault) {
	d := decoders.Get().(*decoder) //nolint:errcheck // the pool holds nothing else
	defer d.release()
	d.message, d.limits, d.doc.body = m, limits, m.Data
	p := place{element: -1, count: -1, binary: binaryMode(m.Header)}
	var from envelope
	if p.binary {
		var fault *Fault
		if from, fault = readHeaders(m.Header); fault != nil {
			return nil, fault
		}
	}
	if problem := d.doc.parse(); problem != "" {
		return nil, &Fault{Reason: ReasonMalformed, Problem: problem, Want: "a CloudEvents 1.0 JSON envelope"}
	}
	if k := d.doc.nodes[0].kind; k != kindObject && !p.binary {
		return nil, &Fault{Reason: ReasonMalformed, Problem: "the request is " + k.String(), Want: "a CloudEvents 1.0 JSON envelope; requests come one by one"}
	}
	if fault := d.repeated(0); fault != nil {
		return nil, fault
	}
	if !p.binary {
		from = d.doc.readEnvelope(0)
	}
	return d.request(&from, p)
}

// request judges a request in the order of the reasons.
func (d *decoder) request(from *envelope, p place) (*Request, *Fault) {
	if !from.specVersion.set {
		return nil, &Fault{Reason: ReasonMalformed, Pointer: p.pointer("specversion"), Problem: "specversion is missing", Want: "a CloudEvents 1.0 envelope"}
	}
	if from.typ.text != "" && from.typ.text != TypeRequested {
		return nil, &Fault{Reason: ReasonUnknownType, Pointer: p.pointer("type"), Problem: "type is " + quote(from.typ.text), Want: TypeRequested}
	}
	r := reader{doc: &d.doc, subject: &d.subject}
	q := &Request{Event: Event{Arrival: ArrivalAt(d.message.Sequence, 0)}}
	r.envelope(from, &q.Event, d.message.Sequence, p)
	r.request(from, q, p)
	q.check(&r.findings, p)
	if fault := r.findings.first(); fault != nil {
		return nil, fault
	}
	if want := RequestSubject(q.Vendor, q.Organization); d.message.Subject != want {
		return nil, &Fault{
			Reason: ReasonSubjectMismatch, Problem: fmt.Sprintf("the subject is %s, the request is for vendor %s and organization %s", quote(d.message.Subject), quote(q.Vendor), quote(q.Organization)),
			Want: "subject " + quote(want),
		}
	}
	if fault := d.checkAge(&q.Event, p); fault != nil {
		return nil, fault
	}
	return q, nil
}

// request reads the data as far as it is there.
func (r *reader) request(from *envelope, q *Request, p place) {
	if !r.hasObject(from, p) {
		return
	}
	at, members := p.inData(), map[string]int32{}
	for i := from.data + 1; i < r.doc.nodes[from.data].after; i = r.doc.nodes[i].after {
		members[string(r.doc.name(i))] = i
	}
	q.Vendor = r.text(at, "vendorId", members["vendorId"], wantID)
	q.Organization = r.text(at, "organizationId", members["organizationId"], wantID)
	q.OrganizationName = r.text(at, "organizationName", members["organizationName"], "a text")
	q.Email = r.text(at, "email", members["email"], wantEmail)
	q.FirstName = r.text(at, "firstName", members["firstName"], "a text")
	q.LastName = r.text(at, "lastName", members["lastName"], "a text")
	q.VendorUserID = r.text(at, "vendorUserId", members["vendorUserId"], wantID)
	q.PlatformVendorID = r.optional(at, "platformVendorId", members["platformVendorId"], "a text, or no member")
}

// check finds the violations that are in the values.
func (q *Request) check(f *findings, p place) {
	q.Event.check(f, p)
	p = p.inData()
	f.text(p, "organizationName", q.OrganizationName, 1, MaxNameChars)
	f.text(p, "firstName", q.FirstName, 1, MaxNameChars)
	f.text(p, "lastName", q.LastName, 1, MaxNameChars)
	f.id(p, "vendorUserId", q.VendorUserID)
	f.text(p, "platformVendorId", q.PlatformVendorID, 0, MaxExternalIDChars)
	f.text(p, "email", q.Email, 1, MaxEmailChars)
	name, domain, found := strings.Cut(q.Email, "@")
	if !found || name == "" || domain == "" || strings.Contains(domain, "@") || strings.ContainsFunc(q.Email, func(r rune) bool { return r <= ' ' || r == 0x7F }) {
		f.add(p, "email", "email is "+quote(q.Email), wantEmail)
	}
}
