package sandbox

import (
	"cmp"
	"crypto/rand"
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

// OEMToken returns the permanent token of the organization that the integration belongs to.
// It returns [ErrUnknown] for an integration that does not exist, and for one of the Gradient
// dialect: that platform has no OEM-API.
func (s *Sandbox) OEMToken(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch in := s.byName[name]; {
	case in == nil:
		return "", fmt.Errorf("OEM token: %w integration %q", ErrUnknown, name)
	case in.organization == nil:
		return "", fmt.Errorf("OEM token of integration %q: %w: the %s dialect has no OEM-API", name, ErrUnknown, in.dialect)
	default:
		return in.organization.token, nil
	}
}

// oemOrganization is what an OEM token opens. Sandbox.mu guards it.
type oemOrganization struct {
	name, token  string
	integrations []*integration // of the MSPCentric dialect, in the order of creation
	window       window
}

// join puts a new integration into its organization, which exists from then on, and tells
// the integration the organization's token.
func (s *Sandbox) join(in *Integration, it *integration) error {
	if in.Dialect != MSPCentric {
		return nil
	}
	_, name := it.names()
	o, owner := s.organizations[name], s.byOEMToken[in.OEMToken]
	switch {
	case o != nil && in.OEMToken != "" && in.OEMToken != o.token:
		return fmt.Errorf("%w: organization %q has another OEM token", ErrConflict, name)
	case owner != o && owner != nil:
		return fmt.Errorf("%w: organization %q has the same OEM token", ErrConflict, owner.name)
	}
	if o == nil {
		o = &oemOrganization{name: name, token: cmp.Or(in.OEMToken, "oem-"+rand.Text())}
		s.organizations[name], s.byOEMToken[o.token] = o, o
	}
	o.integrations = append(o.integrations, it)
	it.organization, in.OEMToken = o, o.token
	return nil
}

// oemTokens are the organizations' tokens as far as a configuration was read: what join
// would refuse one after the other is found before any of it exists.
type oemTokens struct {
	of    map[string]string // organization: token, empty when it is to be made up
	owner map[string]string // token: organization
}

func newOEMTokens() oemTokens { return oemTokens{map[string]string{}, map[string]string{}} }

func (t oemTokens) validate(in Integration) error {
	if in.Dialect == Gradient {
		return nil
	}
	_, name := cutName(in.Name)
	token, known := t.of[name]
	if !known {
		t.of[name] = in.OEMToken
	}
	if in.OEMToken == "" {
		return nil
	}
	if known && token != in.OEMToken {
		return fmt.Errorf("integration %q: an earlier one of organization %q has another OEM token or none", in.Name, name)
	}
	if owner, taken := t.owner[in.OEMToken]; taken && owner != name {
		return fmt.Errorf("integration %q: organization %q has the same OEM token", in.Name, owner)
	}
	t.owner[in.OEMToken] = name
	return nil
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
	c := call{operation: OperationUnknown}
	body, unread := s.readBody(w, r)
	var operations map[string]Operation
	if path == "integration/list" {
		operations = map[string]Operation{http.MethodPost: OperationOEMIntegrations}
	}
	if c.refused = c.choose(r.Method, OEMBasePath+"/"+path, operations); c.refused != nil {
		return c, oemCredentials{}
	}
	if c.refused = unread; c.refused != nil {
		return c, oemCredentials{}
	}
	f, err := parseFields(body)
	if err != nil {
		c.refuse("%v", err)
		return c, oemCredentials{}
	}
	credentials := oemCredentials{
		f.text("clientId", false), f.text("clientSecret", false), f.text("grantType", false), f.text("scope", false),
		f.text("organizationOemToken", false),
	}
	c.refuseWrong(f)
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
	case c.refused != nil: // without a readable body nobody knows whom it is from
		return early(*c.refused)
	}
	if why := s.oem.denies(credentials); why != "" {
		return early(refuse(http.StatusUnauthorized, "%s", why))
	}
	o := s.byOEMToken[credentials.organization]
	switch {
	case credentials.organization == "":
		return early(refuse(http.StatusForbidden, "organizationOemToken is missing"))
	case o == nil:
		return early(refuse(http.StatusForbidden, "organizationOemToken is that of no organization"))
	}
	c.organization = o
	if wait := o.window.admit(s.config.RateLimit, now.Sub(s.start)); wait > 0 {
		return early(s.tooFast(wait, MSPCentric, now))
	}
	names := make([]string, len(o.integrations))
	for i, in := range o.integrations {
		names[i] = in.name
	}
	rule, latency := s.faults.choose(c, now, names...)
	return rule, latency, nil
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

// oemIntegration is an integration as the OEM-API lists it.
type oemIntegration struct {
	ID       string `json:"id"`
	VendorID string `json:"vendorId"`
	// CredentialTemplate has one empty value under each label, and labels contain spaces.
	CredentialTemplate []map[string]string `json:"integrationCredentialTemplate"`
	Status             string              `json:"integrationStatus,omitempty"`
}

// listIntegrations is POST /integration/list.
func (o *oemOrganization) listIntegrations(words StatusWords, now time.Time) answer {
	list := make([]oemIntegration, len(o.integrations))
	for i, in := range o.integrations {
		in.settle(now)
		list[i] = oemIntegration{
			ID: in.id, VendorID: in.vendorID(), CredentialTemplate: []map[string]string{{"Vendor API key": ""}},
			Status: words.of(in.status),
		}
	}
	a := answer{status: http.StatusOK, message: fmt.Sprintf("%d integrations", len(list))}
	a.bare = struct {
		Integrations []oemIntegration `json:"integrations"`
		oemSaid
	}{list, oemSaid{a.status, a.message}}
	return a
}
