package sandbox

import (
	"cmp"
	"fmt"
	"net/http"
	"time"
)

// OEMBasePath is where the OEM-API begins.
const OEMBasePath = "/api/oem-api"

// What every request to the OEM-API says beside who it is from.
const (
	oemGrantType = "client_credentials"
	oemScope     = "vendor_manage"
)

// OEM is the one client that the OEM-API lets in, and the words in which it tells statuses.
type OEM struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	// Statuses is FourStatuses when empty.
	Statuses StatusWords `json:"statuses"`
}

// String is the id alone: secrets do not belong in logs.
func (o OEM) String() string { return o.ClientID }

// GoString is the id alone: %#v must not print the secret either.
func (o OEM) GoString() string { return fmt.Sprintf("sandbox.OEM{ClientID: %q}", o.ClientID) }

// StatusWords are the words of integrationStatus in the OEM-API: two pages of the
// documentation have two sets of them, and its sample of the answer has none.
type StatusWords string

const (
	// FourStatuses are those of [Status].
	FourStatuses StatusWords = "four"
	// ThreeStatuses are those of the older overview: inactive, pending and connected, where
	// pending means ready to be mapped. What it calls the time between the human's review and
	// the first count is published nowhere; here it is pending as well.
	ThreeStatuses StatusWords = "three"
	// NoStatuses leaves the field out.
	NoStatuses StatusWords = "none"
)

func (w StatusWords) validate() error {
	switch w {
	case "", FourStatuses, ThreeStatuses, NoStatuses:
		return nil
	}
	return fmt.Errorf("statuses %.64q: want %q, %q or %q", string(w), FourStatuses, ThreeStatuses, NoStatuses)
}

func (w StatusWords) of(s Status) string {
	switch {
	case w == NoStatuses:
		return ""
	case w == ThreeStatuses && s == Mapping:
		return string(Pending)
	default:
		return string(s)
	}
}

// OEM returns the client in force, with what was made up for it.
func (s *Sandbox) OEM() OEM {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.oem
}

// SetOEM replaces what o names of the client in force; what is empty stays. A request that
// was let in before lives through its fault.
func (s *Sandbox) SetOEM(o OEM) error {
	if err := o.Statuses.validate(); err != nil {
		return fmt.Errorf("set the OEM client: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oem = o.or(s.oem)
	return nil
}

func (o OEM) or(other OEM) OEM {
	return OEM{
		ClientID:     cmp.Or(o.ClientID, other.ClientID),
		ClientSecret: cmp.Or(o.ClientSecret, other.ClientSecret),
		Statuses:     cmp.Or(o.Statuses, other.Statuses),
	}
}

// oemCredentials are what a request to the OEM-API says about itself, all of it in its body.
type oemCredentials struct {
	clientID, clientSecret, grantType, scope string
	organization                             string // its token
}

// serveOEMAPI is the way of serveVendorAPI for the other API.
func (s *Sandbox) serveOEMAPI(w http.ResponseWriter, r *http.Request, path, requestID string) {
	c, credentials := s.readOEM(w, r, path)
	c.requestID = requestID
	rule, latency, v := s.admitOEM(&c, credentials)
	if v == nil {
		s.sleep(r.Context(), latency)
		v = s.judge(r.Context(), &c, nil, rule)
	}
	v.answer = v.answer.asOEM()
	s.respond(w, r, v)
}

func (s *Sandbox) readOEM(w http.ResponseWriter, r *http.Request, path string) (call, oemCredentials) {
	c := call{operation: OperationUnknown, isOEM: true, oem: oemRequest{base: s.baseURL(r)}}
	body, unread := s.readBody(w, r)
	if c.denied = routeOEM(&c, r, path); c.denied != nil {
		return c, oemCredentials{}
	}
	if c.denied = unread; c.denied != nil {
		return c, oemCredentials{}
	}
	f, err := parseFields(body)
	if err != nil {
		a := refuse(http.StatusBadRequest, "%v", err)
		c.denied = &a
		return c, oemCredentials{}
	}
	credentials := oemCredentials{
		f.text("clientId", false), f.text("clientSecret", false), f.text("grantType", false), f.text("scope", false),
		f.text("organizationOemToken", false),
	}
	c.refuseWrong(f)
	if c.denied, c.refused = c.refused, nil; c.denied == nil {
		c.oem.parse(c.operation, f)
		c.refuseWrong(f)
	}
	return c, credentials
}

// admitOEM finds the organization and the fault of a call, or a verdict that needs neither.
func (s *Sandbox) admitOEM(c *call, credentials oemCredentials) (*Rule, time.Duration, *verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	early := func(a answer) (*Rule, time.Duration, *verdict) {
		v := &verdict{answer: a}
		s.record(c, nil, v, now)
		return nil, 0, v
	}
	switch {
	case s.closed:
		return early(refuse(http.StatusServiceUnavailable, "the sandbox is closed"))
	case c.denied != nil: // without a readable body nobody knows whom it is from
		return early(*c.denied)
	}
	if why := s.oem.denies(credentials); why != "" {
		return early(refuse(http.StatusUnauthorized, "%s", why))
	}
	w := &s.clientWindow
	if c.operation.ofOrganization() {
		o := s.byOEMToken[credentials.organization]
		switch {
		case credentials.organization == "":
			return early(refuse(http.StatusForbidden, "organizationOemToken is missing"))
		case o == nil:
			return early(refuse(http.StatusForbidden, "organizationOemToken is that of no organization"))
		}
		c.organization, w = o, &o.window
	}
	if wait := w.admit(s.config.RateLimit, now.Sub(s.start)); wait > 0 {
		return early(s.tooFast(wait, MSPCentric, now))
	}
	rule, latency := s.faults.choose(c, now, c.organization.integrationNames()...)
	return rule, latency, nil
}

// integrationNames are what fault rules know a call by: a single empty one when there are none,
// which rules of any integration match.
func (o *organization) integrationNames() []string {
	if o == nil || len(o.integrations) == 0 {
		return []string{""}
	}
	names := make([]string, len(o.integrations))
	for i, in := range o.integrations {
		names[i] = in.name
	}
	return names
}

// denies says which part of the client's credentials is wrong, never what it is, or nothing.
func (o OEM) denies(c oemCredentials) string {
	switch {
	case c.clientID == "" || c.clientSecret == "":
		return "clientId and clientSecret are missing; they belong into the body of every request"
	case c.clientID != o.ClientID:
		return "clientId is unknown"
	case c.clientSecret != o.ClientSecret:
		return "clientSecret is not that of the clientId"
	case c.grantType != oemGrantType:
		return "grantType must be " + oemGrantType
	case c.scope != oemScope:
		return "scope must be " + oemScope
	default:
		return ""
	}
}

// oemSaid is what every answer of the OEM-API repeats, a refusal too.
type oemSaid struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

// asOEM gives an answer the form of this API, unless it has one.
func (a answer) asOEM() answer {
	if a.bare == nil {
		a.bare = oemSaid{a.status, a.message}
	}
	return a
}
