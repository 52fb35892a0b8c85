package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Integration is one vendor at one organization, and the two halves of its bearer token.
type Integration struct {
	// Name is vendor/organization where people read it; any text but "" and "*".
	Name string `json:"name"`
	// ID is the partner's own id; AddIntegration assigns it.
	ID string `json:"integrationId,omitempty"`
	// VendorToken must not contain a colon, which separates it from the PartnerToken.
	VendorToken  string `json:"vendorToken"`
	PartnerToken string `json:"partnerToken"`
}

// String is the name alone: tokens do not belong in logs.
func (in Integration) String() string { return in.Name }

// GoString is the name alone: %#v must not print the tokens either.
func (in Integration) GoString() string { return fmt.Sprintf("sandbox.Integration{Name: %q}", in.Name) }

func (in Integration) validate() error {
	if in.Name == "*" {
		return errors.New(`integration name "*": that is the wildcard of fault rules; want vendor/organization`)
	}
	if strings.Contains(in.VendorToken, ":") {
		return fmt.Errorf("integration %q: the vendor token contains a colon, which separates the two tokens", in.Name)
	}
	return nil
}

// Status of an integration, as the partner's quick start has it:
// inactive → mapping → pending → connected.
type Status string

const (
	// Inactive: credentials exist. PATCH /status/mapping leads out, Reset leads in.
	Inactive Status = "inactive"
	// Mapping: the vendor posted its catalog; a human may map and, with Finish, lead out.
	Mapping Status = "mapping"
	// Pending: the human accepted the review. The first accepted count leads out.
	Pending Status = "pending"
	// Connected: a count was accepted. Only Reset leads out.
	Connected Status = "connected"
)

func (s Status) validate() error {
	switch s {
	case Inactive, Mapping, Pending, Connected:
		return nil
	}
	return fmt.Errorf("status %q: want %s, %s, %s or %s", string(s), Inactive, Mapping, Pending, Connected)
}

// Selection names accounts or services. The zero value is none; in JSON "all" or a list of ids.
type Selection struct {
	all bool
	ids []string
}

// All selects everything posted so far.
func All() Selection { return Selection{all: true} }

// Only selects the ids given.
func Only(ids ...string) Selection { return Selection{ids: ids} }

// UnmarshalJSON accepts "all" or an array of strings.
func (s *Selection) UnmarshalJSON(text []byte) error {
	if string(text) == `"all"` {
		*s = All()
		return nil
	}
	var ids []string
	if err := json.Unmarshal(text, &ids); err != nil {
		return fmt.Errorf(`selection %.64s: want "all" or an array of ids`, text)
	}
	*s = Only(ids...)
	return nil
}

// item is a posted account or service; note is its externalId or description.
type item struct {
	id, name, note string
	mapped         bool
}

// catalog holds what was posted, in the order of posting.
type catalog struct {
	byID  map[string]*item
	order []*item
	// settled items at the front of order are mapped, so that an automatic human who
	// comes after every single post does not walk through all of them each time.
	settled int
}

func newCatalog() catalog { return catalog{byID: map[string]*item{}} }

func (c *catalog) post(it item) bool {
	if c.byID[it.id] != nil {
		return false
	}
	c.byID[it.id] = &it
	c.order = append(c.order, &it)
	return true
}

func (c *catalog) isMapped(id string) bool {
	it := c.byID[id]
	return it != nil && it.mapped
}

func (c *catalog) mapAll() {
	for _, it := range c.order[c.settled:] {
		it.mapped = true
	}
	c.settled = len(c.order)
}

func (c *catalog) mapSelected(s Selection) {
	if s.all {
		c.mapAll()
	}
	for _, id := range s.ids {
		c.byID[id].mapped = true
	}
}

func (c *catalog) missing(kind string, s Selection) error {
	var errs []error
	for _, id := range s.ids {
		if c.byID[id] == nil {
			errs = append(errs, fmt.Errorf("%w %s %q: it was never posted", ErrUnknown, kind, id))
		}
	}
	return errors.Join(errs...)
}

// key of a figure within an integration.
type key struct{ account, service string }

// figure is everything that happened to one key.
type figure struct {
	calls    int // accepted or not
	accepted []Accepted
}

// integration is the partner's state of one integration. Sandbox.mu guards it.
type integration struct {
	name, id   string
	auto       bool
	humanDelay time.Duration

	status   Status
	visit    time.Time // when the automatic human comes; zero: not called
	epoch    int       // resets so far
	accounts catalog
	services catalog
	figures  map[key]*figure
	window   window
	totals   totals
}

func newIntegration(name, id string, auto bool, humanDelay time.Duration) *integration {
	return &integration{
		name: name, id: id, auto: auto, humanDelay: humanDelay,
		status:   Inactive,
		accounts: newCatalog(), services: newCatalog(),
		figures: map[key]*figure{},
		totals:  newTotals(),
	}
}

// callHuman appoints the automatic human's next visit, unless one is appointed.
func (in *integration) callHuman(now time.Time) {
	if in.auto && in.status != Inactive && in.visit.IsZero() {
		in.visit = now.Add(in.humanDelay)
	}
}

// settle lets a visit that is due take place. The human has neither goroutine nor timer:
// whoever looks at an integration settles it first, so nobody can tell the difference.
func (in *integration) settle(now time.Time) {
	if in.visit.IsZero() || now.Before(in.visit) {
		return
	}
	in.visit = time.Time{}
	in.accounts.mapAll()
	in.services.mapAll()
	if in.status == Mapping {
		in.status = Pending
	}
}

var errInactive = fmt.Errorf("%w: it is inactive; the vendor has to PATCH /status/mapping first", ErrConflict)

func (in *integration) mapSelected(accounts, services Selection) error {
	if in.status == Inactive {
		return errInactive
	}
	if err := errors.Join(in.accounts.missing("account", accounts), in.services.missing("service", services)); err != nil {
		return err
	}
	in.accounts.mapSelected(accounts)
	in.services.mapSelected(services)
	return nil
}

func (in *integration) finish() error {
	if in.status == Inactive {
		return errInactive
	}
	if in.status == Mapping {
		in.status = Pending
	}
	return nil
}

func (in *integration) reset() {
	in.status, in.visit = Inactive, time.Time{}
	in.accounts, in.services = newCatalog(), newCatalog()
	in.epoch++
}

// postTo is POST of an account or a service.
func (in *integration) postTo(c *catalog, kind string, it item, now time.Time) answer {
	if !c.post(it) {
		return refuse(http.StatusConflict, "%s already exists with id: %s", kind, it.id)
	}
	in.callHuman(now)
	return answer{status: http.StatusCreated, message: kind + " created"}
}

// askForMapping is PATCH /status/mapping.
func (in *integration) askForMapping(now time.Time) answer {
	if in.status == Inactive {
		in.status = Mapping
	}
	in.callHuman(now)
	return answer{
		status: http.StatusOK, message: "integration status is " + string(in.status),
		data: &mappingData{IntegrationID: in.id, Status: in.status},
	}
}

// count is POST of a unit count that is well-formed; a is remembered when it is accepted.
func (in *integration) count(k key, a Accepted, notReady int) answer {
	switch {
	case in.status != Pending && in.status != Connected:
		return refuse(notReady, "integration is not ready: %s", in.status)
	case !in.accounts.isMapped(k.account):
		return refuse(http.StatusNotFound, "No account map found with id: %s", k.account)
	case !in.services.isMapped(k.service):
		return refuse(http.StatusNotFound, "No service map found with id: %s", k.service)
	}
	f := in.figure(k)
	a.Epoch = in.epoch
	f.accepted = append(f.accepted, a)
	in.status = Connected
	return answer{status: http.StatusCreated, message: "unit count accepted"}
}

func (in *integration) figure(k key) *figure {
	f := in.figures[k]
	if f == nil {
		f = &figure{}
		in.figures[k] = f
	}
	return f
}

// value is the figure the partner would bill now; a reset makes it forget.
func (in *integration) value(k key) (string, bool) {
	f := in.figures[k]
	if f == nil || len(f.accepted) == 0 {
		return "", false
	}
	last := f.accepted[len(f.accepted)-1]
	return last.Value, last.Epoch == in.epoch
}

// window admits at most limit requests within any one second. Refused ones do not count.
type window struct {
	at   []time.Duration // ring of the last admitted, since the sandbox's start
	next int             // the oldest, once the ring is full
}

// admit returns 0, or how long to wait until a request would be admitted.
func (w *window) admit(limit int, now time.Duration) time.Duration {
	if limit == 0 {
		return 0
	}
	if len(w.at) < limit {
		w.at = append(w.at, now)
		return 0
	}
	if wait := w.at[w.next] + time.Second - now; wait > 0 {
		return wait
	}
	w.at[w.next] = now
	w.next = (w.next + 1) % limit
	return 0
}
