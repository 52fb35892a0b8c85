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
	// Name is vendor/organization where people read it; any text but "" and "*". Without a
	// slash it names both.
	Name string `json:"name"`
	// ID is the partner's own id; AddIntegration assigns it.
	ID string `json:"integrationId,omitempty"`
	// VendorToken must not contain a colon, which separates it from the PartnerToken.
	VendorToken  string `json:"vendorToken"`
	PartnerToken string `json:"partnerToken"`
	// Dialect is that of [Config.Dialect] when empty.
	Dialect Dialect `json:"dialect,omitempty"`
	// OEMToken opens the organization, the part of the Name after the first slash, in the
	// OEM-API: all its integrations share it. AddIntegration makes one up when the first of them
	// names none. The Gradient dialect has none.
	OEMToken string `json:"oemToken,omitempty"`
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
	if err := in.Dialect.validate(); err != nil {
		return fmt.Errorf("integration %q: %w", in.Name, err)
	}
	if in.Dialect == Gradient && in.OEMToken != "" {
		return fmt.Errorf("integration %q: the %s dialect has no OEM-API: leave the OEM token out", in.Name, Gradient)
	}
	return nil
}

// Status of an integration, as the partner's quick start has it:
// inactive → mapping → pending → connected. Reports and controls use these words for
// either dialect; on the wire of the Gradient dialect mapping and pending are pending,
// and connected is active.
type Status string

const (
	// Inactive: credentials exist. PATCH /status/mapping leads out, Reset leads in. In the
	// Gradient dialect the vendor sets inactive, pending and active as it likes.
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

// key of a figure within an integration.
type key struct{ account, service string }

// figure is everything that happened to one key.
type figure struct {
	calls    int // accepted or not
	accepted []Accepted
	built    int // how many of the accepted the billing view knows
}

// at returns the last of the first n accepted values, if it is of this epoch.
func (f *figure) at(n, epoch int) (string, bool) {
	if n == 0 {
		return "", false
	}
	last := f.accepted[n-1]
	return last.Value, last.Epoch == epoch
}

// integration is the partner's state of one integration. Sandbox.mu guards it.
type integration struct {
	name, id     string
	dialect      Dialect
	vendorToken  string
	partnerToken string            // empty: revoked, or never there
	organization *organization     // nil in the Gradient dialect
	vendor       *Vendor           // nil: none that the platform knows
	kept         map[string]string // credentials by label; nil: the vendor has a key instead
	exchanged    time.Time         // when the OEM-API made it; zero: it did not
	auto         bool
	humanDelay   time.Duration

	status   Status
	visit    time.Time // when the automatic human comes; zero: not called
	epoch    int       // resets so far
	anomaly  bool
	accounts catalog
	services catalog
	figures  map[key]*figure
	unbuilt  []*figure // with values the billing view does not know yet
	synced   time.Time // last accepted count; zero: none
	moments  moments
	window   window
	totals   totals
}

func newIntegration(in Integration, auto bool, humanDelay time.Duration) *integration {
	it := &integration{
		name: in.Name, id: in.ID, dialect: in.Dialect,
		vendorToken: in.VendorToken, partnerToken: in.PartnerToken,
		auto: auto, humanDelay: humanDelay,
		status:   Inactive,
		accounts: newCatalog(), services: newCatalog(),
		figures: map[key]*figure{},
		totals:  newTotals(),
	}
	it.remember()
	return it
}

func (in *integration) credentials() string { return in.vendorToken + ":" + in.partnerToken }

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
	in.accounts.mapNew()
	in.services.mapNew()
	if in.status == Mapping {
		in.status = Pending
	}
}

// needsAsking is the error of a human who would map before the vendor asked for it.
func (in *integration) needsAsking() error {
	if in.status != Inactive {
		return nil
	}
	call := "PATCH /status/mapping"
	if in.dialect == Gradient {
		call = "PATCH /organization/status/" + gradientPending
	}
	return fmt.Errorf("%w: it is inactive; the vendor has to %s first", ErrConflict, call)
}

func (in *integration) mapSelected(accounts, services Selection) error {
	if err := in.needsAsking(); err != nil {
		return err
	}
	return in.setSelected(accounts, services, true)
}

// setSelected maps or unmaps all that is named, or nothing when an id is unknown.
func (in *integration) setSelected(accounts, services Selection, mapped bool) error {
	if err := errors.Join(in.accounts.missing("account", accounts), in.services.missing("service", services)); err != nil {
		return err
	}
	in.accounts.setSelected(accounts, mapped)
	in.services.setSelected(services, mapped)
	return nil
}

func (in *integration) finish() error {
	if err := in.needsAsking(); err != nil {
		return err
	}
	if in.status == Mapping {
		in.status = Pending
	}
	return nil
}

func (in *integration) reset() {
	in.status, in.visit, in.synced = Inactive, time.Time{}, time.Time{}
	in.accounts, in.services = newCatalog(), newCatalog()
	in.build()
	in.epoch++
}

// postTo is POST of accounts or services: all of them, or none when one exists.
func (in *integration) postTo(c *catalog, kind string, items []item, now time.Time) answer {
	var existing []string
	for i := range items {
		if c.byID[items[i].id] != nil {
			existing = append(existing, items[i].id)
		}
	}
	if len(existing) > 0 {
		return refuse(http.StatusConflict, "%s already exists with id: %s", kind, strings.Join(existing, ", "))
	}
	created := make([]property, len(items))
	for i := range items {
		c.post(items[i])
		created[i] = items[i].property()
	}
	in.callHuman(now)
	a := answer{status: http.StatusCreated, message: kind + " created"}
	if in.dialect == Gradient {
		a.bare = created
	}
	return a
}

// askForMapping is PATCH /status/mapping.
func (in *integration) askForMapping(now time.Time) answer {
	if in.status == Inactive {
		in.status = Mapping
	}
	in.callHuman(now)
	return in.tellStatus()
}

// tellStatus answers a call that may have changed the status.
func (in *integration) tellStatus() answer {
	name := in.dialect.statusName(in.status)
	return answer{
		status: http.StatusOK, message: "integration status is " + name,
		data: statusData{IntegrationID: in.id, Status: name},
	}
}

// takesCounts says whether the status lets counts in. No document of the Gradient dialect
// knows a review to accept: there a mapped account and service are enough.
func (in *integration) takesCounts() bool {
	switch in.status {
	case Pending, Connected:
		return true
	case Mapping:
		return in.dialect == Gradient
	default:
		return false
	}
}

// count is POST of a unit count that is well-formed; a is remembered when it is accepted.
// noBuild leaves the billing view as it is.
func (in *integration) count(k key, a Accepted, noBuild bool, notReady int) answer {
	switch {
	case !in.takesCounts():
		return refuse(notReady, "integration is not ready: %s", in.dialect.statusName(in.status))
	case in.anomaly:
		return refuse(http.StatusForbidden, "usage anomaly: counts are refused until the usage was reviewed")
	case !in.accounts.isMapped(k.account):
		return refuse(http.StatusNotFound, "No account map found with id: %s", k.account)
	case !in.services.isMapped(k.service):
		return refuse(http.StatusNotFound, "No service map found with id: %s", k.service)
	}
	f := in.figure(k)
	if f.built == len(f.accepted) {
		in.unbuilt = append(in.unbuilt, f)
	}
	a.Epoch = in.epoch
	f.accepted = append(f.accepted, a)
	if !noBuild {
		in.build()
	}
	in.status, in.synced = Connected, a.Time
	return answer{status: http.StatusCreated, message: "unit count accepted"}
}

// build makes the billing view show every accepted value.
func (in *integration) build() {
	for _, f := range in.unbuilt {
		f.built = len(f.accepted)
	}
	in.unbuilt = in.unbuilt[:0]
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
	if f == nil {
		return "", false
	}
	return f.at(len(f.accepted), in.epoch)
}

// billed is the figure the billing view shows.
func (in *integration) billed(k key) (string, bool) {
	f := in.figures[k]
	if f == nil {
		return "", false
	}
	return f.at(f.built, in.epoch)
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
