package sandbox

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of the Go methods and, as 404 and 409, of the control API.
var (
	// ErrUnknown says that the integration, or an account or service named with it, does not exist.
	ErrUnknown = errors.New("unknown")
	// ErrConflict says that the wish contradicts what exists: a name or token pair already
	// taken, or a human who would map before the vendor asked for it.
	ErrConflict = errors.New("conflict")
)

// HumanMode says who plays the person at the MSP who maps accounts and services.
type HumanMode string

const (
	// HumanAuto maps everything posted Config.HumanDelay after PATCH /status/mapping,
	// and again that long after each account or service posted later; not in an organization
	// of which a user was sent a link to the wizard: there a person maps.
	HumanAuto HumanMode = "auto"
	// HumanAPI maps only when told so, by [Sandbox.Map] and [Sandbox.Finish] or over the control API.
	HumanAPI HumanMode = "api"
)

// RetryAfterForm is one of the two forms RFC 9110 gives the Retry-After header, or none.
type RetryAfterForm string

const (
	// RetryAfterSeconds writes whole seconds, rounded up: "Retry-After: 3".
	RetryAfterSeconds RetryAfterForm = "seconds"
	// RetryAfterDate writes an HTTP date of Config.Now, rounded up to the next second.
	RetryAfterDate RetryAfterForm = "date"
	// RetryAfterNone writes no header: the client has to find its pace by itself.
	RetryAfterNone RetryAfterForm = "none"
)

// Config describes a sandbox. The zero value is a partner without customers.
type Config struct {
	// Integrations exist from the start. Each needs its name and both tokens: what
	// AddIntegration makes up for want of them could not be read back from here. An OEM token
	// can, by [Sandbox.OEMToken].
	Integrations []Integration
	// Dialect of integrations that name none; MSPCentric when empty.
	Dialect Dialect
	// Human is HumanAuto when empty.
	Human HumanMode
	// HumanDelay is how long the automatic human takes, 0 or more.
	HumanDelay time.Duration
	// OEM is the client of the OEM-API; an id or a secret that is empty is made up, see [Sandbox.OEM].
	OEM OEM
	// Vendors are those that the OEM-API knows; nil are one external vendor, acme, and one of the
	// credentials kind, Globex Backup. See [Sandbox.Vendors].
	Vendors []Vendor
	// Inform is sent after every form of the wizard that was carried out; none when its URL is
	// empty. {vendor} in the URL is the vendor part of the integration's name.
	Inform Inform
	// PSAs are the pretended programs that an organization may connect in the wizard; nil are
	// three with made-up companies, contracts and prices.
	PSAs []PSA
	// LinkLifetime is how long the link of a session leads into the wizard; 10 minutes when 0.
	LinkLifetime time.Duration
	// PublicURL is what the link of a session begins with, where people reach this server at
	// another address than the OEM-API's client: http://127.0.0.1:9090. Empty: the client's.
	PublicURL string
	// NotReadyStatus answers a count before the status is pending: 409 (when zero), 403 or 400.
	// What the real partner answers is published nowhere.
	NotReadyStatus int
	// RateLimit is how many requests an integration may make within any one second; 0 is no limit.
	// What exceeds it gets 429 and does not count against it. The requests about one organization
	// to the OEM-API have the same limit for themselves.
	RateLimit int
	// RetryAfterForm, when empty, is RetryAfterSeconds; for what exceeds the RateLimit of a
	// Gradient integration RetryAfterNone. A fault rule may differ.
	RetryAfterForm RetryAfterForm
	// Faults is the plan in force at the start.
	Faults Plan
	// TapeLimit is how many of the newest records [Sandbox.Tape] keeps; 0 keeps all.
	// The history of accepted values is complete in either case.
	TapeLimit int
	// BodyLimit is the largest request body in bytes; 1 MiB when 0. More is answered 413.
	BodyLimit int64
	// Now is the clock of tape, human, rate limit and fault windows; time.Now when nil.
	// It must not call the Sandbox. Latencies are slept in real (or testing/synctest) time
	// whatever it says.
	Now func() time.Time
}

const defaultBodyLimit = 1 << 20

// Validate reports everything that is wrong with c at once, or nil.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Human != "" && c.Human != HumanAuto && c.Human != HumanAPI {
		bad("human mode %q: want %q or %q", c.Human, HumanAuto, HumanAPI)
	}
	if c.HumanDelay < 0 {
		bad("human delay %v: want 0 or more", c.HumanDelay)
	}
	switch c.NotReadyStatus {
	case 0, http.StatusConflict, http.StatusForbidden, http.StatusBadRequest:
	default:
		bad("not-ready status %d: want 409, 403 or 400", c.NotReadyStatus)
	}
	if c.RateLimit < 0 {
		bad("rate limit %d: want requests per second, 0 for none", c.RateLimit)
	}
	if err := c.Dialect.validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.RetryAfterForm.validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.OEM.Statuses.validate(); err != nil {
		errs = append(errs, fmt.Errorf("OEM client: %w", err))
	}
	if c.LinkLifetime < 0 {
		bad("link lifetime %v: want more than 0, 0 for %v", c.LinkLifetime, defaultLinkLifetime)
	}
	if err := validatePublicURL(c.PublicURL); err != nil {
		errs = append(errs, err)
	}
	if c.Inform.URL != "" {
		if err := c.Inform.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("inform: %w", err))
		}
	}
	if c.TapeLimit < 0 {
		bad("tape limit %d: want records, 0 to keep all", c.TapeLimit)
	}
	if c.BodyLimit < 0 {
		bad("body limit %d: want bytes, 0 for %d", c.BodyLimit, defaultBodyLimit)
	}
	return errors.Join(append(errs, validateVendors(c.Vendors), validatePSAs(c.PSAs), c.validateIntegrations(), c.Faults.Validate())...)
}

func (c Config) validateIntegrations() error {
	var errs []error
	names, tokens, oem := map[string]bool{}, map[string]bool{}, newOEMTokens()
	for i, in := range c.Integrations {
		pair := in.VendorToken + ":" + in.PartnerToken
		switch {
		case in.Name == "" || in.VendorToken == "" || in.PartnerToken == "":
			errs = append(errs, fmt.Errorf("integration %d %q: want a name, a vendor token and a partner token", i+1, in.Name))
		case names[in.Name]:
			errs = append(errs, fmt.Errorf("integration %d %q: an earlier one has that name", i+1, in.Name))
		case tokens[pair]:
			errs = append(errs, fmt.Errorf("integration %d %q: an earlier one has the same pair of tokens", i+1, in.Name))
		default:
			errs = append(errs, in.validate(), oem.validate(in))
		}
		names[in.Name], tokens[pair] = true, true
	}
	return errors.Join(errs...)
}

func (f RetryAfterForm) validate() error {
	switch f {
	case "", RetryAfterSeconds, RetryAfterDate, RetryAfterNone:
		return nil
	}
	return fmt.Errorf("form %q of Retry-After: want %q, %q or %q", string(f), RetryAfterSeconds, RetryAfterDate, RetryAfterNone)
}

// Sandbox is one partner. All methods may be called from any goroutine.
type Sandbox struct {
	config   Config
	now      func() time.Time
	start    time.Time
	idPrefix string
	lastID   atomic.Uint64
	control  http.Handler
	vendors  []*Vendor
	done     chan struct{} // closed by Close: wakes requests that sleep in a fault

	mu                   sync.Mutex // guards all below
	closed               bool
	byName               map[string]*integration
	byToken              map[string]*integration // vendorToken ":" partnerToken
	vendorTokens         map[string]bool
	oem                  OEM
	clientWindow         window                   // of requests about no organization
	organizations        map[string]*organization // by name, and by the partner's id
	byOEMToken           map[string]*organization
	sessions             []*session
	created              int             // integrations ever made, for ids
	organizationList     []*organization // in the order of creation
	createdOrganizations int             // ever, for ids
	faults               faults
	tape                 tape
	totals               totals
}

// New builds a sandbox. It panics when c is invalid; a c that comes from outside
// the program goes through [Config.Validate] first.
func New(c Config) *Sandbox {
	if err := c.Validate(); err != nil {
		panic(fmt.Sprintf("sandbox.New: %v", err))
	}
	c = c.withDefaults()
	s := &Sandbox{
		config:        c,
		now:           c.Now,
		start:         c.Now(),
		idPrefix:      "sbx-" + rand.Text()[:8] + "-",
		done:          make(chan struct{}),
		byName:        map[string]*integration{},
		byToken:       map[string]*integration{},
		vendorTokens:  map[string]bool{},
		oem:           c.OEM.or(OEM{"client-" + rand.Text(), "secret-" + rand.Text(), FourStatuses}),
		vendors:       complete(c.Vendors, c.Integrations),
		organizations: map[string]*organization{},
		byOEMToken:    map[string]*organization{},
		tape:          tape{limit: uint64(c.TapeLimit)},
		totals:        newTotals(),
	}
	s.faults.set(c.Faults, s.start)
	s.control = s.controlHandler()
	for _, v := range s.vendors {
		if v.Token != "" {
			s.vendorTokens[v.Token] = true
		}
	}
	for _, in := range c.Integrations {
		if _, err := s.AddIntegration(in); err != nil {
			panic(fmt.Sprintf("sandbox.New: %v", err))
		}
	}
	return s
}

func (c Config) withDefaults() Config {
	c.Human = cmp.Or(c.Human, HumanAuto)
	c.NotReadyStatus = cmp.Or(c.NotReadyStatus, http.StatusConflict)
	c.BodyLimit = cmp.Or(c.BodyLimit, defaultBodyLimit)
	c.LinkLifetime = cmp.Or(c.LinkLifetime, defaultLinkLifetime)
	if c.Vendors == nil {
		c.Vendors = defaultVendors()
	}
	if c.PSAs == nil {
		c.PSAs = defaultPSAs()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Close ends the partner's side: requests that sleep in a fault are torn at once and
// not accepted, later ones are answered 503. What was recorded stays readable.
// Closing twice is harmless. Close before httptest.Server.Close, which waits for requests.
func (s *Sandbox) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
}

// Handler serves the partner's APIs below [BasePath] and [OEMBasePath], the wizard
// below [WizardPath], the control API below /sandbox/ and the page. A request to be torn (see [ResetBefore]) panics with http.ErrAbortHandler
// when its ResponseWriter cannot be hijacked, as with httptest.ResponseRecorder and HTTP/2.
func (s *Sandbox) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := s.idPrefix + strconv.FormatUint(s.lastID.Add(1), 10)
		w.Header().Set("X-Request-Id", id)
		// Not by a ServeMux: it would redirect ids like "a//b" instead of judging them.
		if path, ok := below(BasePath, r); ok {
			s.serveVendorAPI(w, r, path, id)
			return
		}
		if path, ok := below(OEMBasePath, r); ok {
			s.serveOEMAPI(w, r, path, id)
			return
		}
		s.control.ServeHTTP(w, r)
	})
}

// below returns the escaped path of the request below base, and whether it is there at all.
func below(base string, r *http.Request) (string, bool) {
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), base)
	return strings.TrimPrefix(path, "/"), ok && (path == "" || path[0] == '/')
}

// AddIntegration makes the integration exist, in status inactive, and returns it with what
// was made up for it. It returns [ErrConflict] when the name, the token pair or the OEM token
// is taken, or the organization has another OEM token.
func (s *Sandbox) AddIntegration(in Integration) (Integration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.created + 1
	if in.Name == "" {
		in.Name = fmt.Sprintf("sandbox/organization-%d", n)
	}
	if in.VendorToken == "" {
		in.VendorToken = "vendor-" + rand.Text()
	}
	if in.PartnerToken == "" {
		in.PartnerToken = "partner-" + rand.Text()
	}
	in.Dialect = cmp.Or(in.Dialect, s.config.Dialect, MSPCentric)
	if err := in.validate(); err != nil {
		return Integration{}, err
	}
	in.ID = fmt.Sprintf("int-%d", n)
	if _, err := s.add(&in); err != nil {
		return Integration{}, err
	}
	s.created = n
	return in, nil
}

// SetFaults puts p in force instead of the plan before; its windows and counters start now.
func (s *Sandbox) SetFaults(p Plan) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("set faults: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.set(p, s.now())
	return nil
}

// Faults returns the plan in force, with its defaults filled in.
func (s *Sandbox) Faults() Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Plan{Seed: s.faults.plan.Seed, Rules: slices.Clone(s.faults.plan.Rules)}
}

// ClearFaults ends all faults; requests already in one live through it.
func (s *Sandbox) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.set(Plan{}, s.now())
}

// Map lets the human map accounts and services, whatever Config.Human says. It returns
// [ErrConflict] while the integration is inactive, and [ErrUnknown] naming every id that
// was not posted; then nothing is mapped.
func (s *Sandbox) Map(name string, accounts, services Selection) error {
	return s.change("map", name, func(in *integration) error { return in.mapSelected(accounts, services) })
}

// Unmap lets the human take mappings back. An automatic human does not map again what was
// unmapped; Map does. Values and status stay. It returns [ErrUnknown] naming every id that
// was not posted; then nothing is unmapped.
func (s *Sandbox) Unmap(name string, accounts, services Selection) error {
	return s.change("unmap", name, func(in *integration) error { return in.setSelected(accounts, services, false) })
}

// Finish lets the human accept the review: mapping becomes pending; pending and connected
// stay. It returns [ErrConflict] while the integration is inactive.
func (s *Sandbox) Finish(name string) error {
	return s.change("finish the mapping", name, (*integration).finish)
}

// SetStatus forces a status, whatever the machine allows, and sends an automatic human
// who is on the way home until something new is posted or PATCH /status/mapping comes.
func (s *Sandbox) SetStatus(name string, status Status) error {
	if err := status.validate(); err != nil {
		return fmt.Errorf("set status of integration %q: %w", name, err)
	}
	return s.change("set status", name, func(in *integration) error {
		in.status, in.visit = status, time.Time{}
		return nil
	})
}

// Reset is a user who disconnects the integration or presses Authenticate again: accounts,
// services, mappings, the current values and the billing view are gone and the status is
// inactive. Tokens, an anomaly, tape and history stay.
func (s *Sandbox) Reset(name string) error {
	return s.change("reset", name, func(in *integration) error {
		in.reset()
		return nil
	})
}

func (s *Sandbox) change(what, name string, do func(*integration) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.byName[name]
	if in == nil {
		return fmt.Errorf("%s: %w integration %q", what, ErrUnknown, name)
	}
	in.settle(s.now())
	if err := do(in); err != nil {
		return fmt.Errorf("%s of integration %q: %w", what, name, err)
	}
	in.remember()
	return nil
}
