package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Operation is one call of the Vendor-API or of the OEM-API.
type Operation string

// The operations. OperationUnknown is a request that is none of the others.
const (
	OperationAccounts Operation = "accounts" // POST of accounts
	OperationServices Operation = "services" // POST of services
	OperationMapping  Operation = "mapping"  // the vendor asks to be mapped; in the Gradient dialect: sets pending
	OperationCount    Operation = "count"
	OperationUnknown  Operation = "unknown"

	// These exist in the Gradient dialect alone.

	OperationVendor       Operation = "vendor"        // GET of the vendor
	OperationOrganization Operation = "organization"  // GET of the organization
	OperationList         Operation = "list-accounts" // GET of accounts
	OperationUpdate       Operation = "update-account"
	OperationStatus       Operation = "status" // the vendor sets inactive or active

	// These are of the OEM-API.

	OperationOEMOrganization      Operation = "oem-organization"
	OperationOEMUser              Operation = "oem-user"
	OperationOEMUserRemoval       Operation = "oem-user-removal"
	OperationOEMSession           Operation = "oem-session"
	OperationOEMVendors           Operation = "oem-vendors"     // POST that lists the vendors
	OperationOEMIntegration       Operation = "oem-integration" // POST of a new one
	OperationOEMIntegrationUpdate Operation = "oem-integration-update"
	OperationOEMIntegrations      Operation = "oem-integrations" // POST that lists an organization's integrations
)

// operations are those that a fault rule may name.
var operations = []Operation{
	OperationAccounts, OperationServices, OperationMapping, OperationCount,
	OperationVendor, OperationOrganization, OperationList, OperationUpdate, OperationStatus,
	OperationOEMOrganization, OperationOEMUser, OperationOEMUserRemoval, OperationOEMSession, OperationOEMVendors,
	OperationOEMIntegration, OperationOEMIntegrationUpdate, OperationOEMIntegrations,
}

// Effect is what a fault does to a request, after its latency.
type Effect string

const (
	// Delay is latency alone; the request is then judged as ever.
	Delay Effect = "delay"
	// StatusBefore answers Rule.Status; nothing is accepted.
	StatusBefore Effect = "status"
	// StatusAfter judges, then answers Rule.Status all the same: a gateway that gave up
	// on a backend that had not.
	StatusAfter Effect = "status-after"
	// ResetBefore tears the connection without an answer; nothing is accepted.
	ResetBefore Effect = "reset-before"
	// ResetAfter judges, then tears the connection without an answer.
	ResetAfter Effect = "reset-after"
	// SlowBody judges, then answers over Rule.BodyTime.
	SlowBody Effect = "slow-body"
	// GarbageBody judges, then answers the right status with a page of HTML.
	GarbageBody Effect = "garbage-body"
	// EmptyBody judges, then answers the right status without a body.
	EmptyBody Effect = "empty-body"
	// HugeBody judges, then answers the right status with JSON of Rule.BodyBytes.
	HugeBody Effect = "huge-body"
)

// Plan is a list of rules. For each request the first rule that matches it, is within its
// window and wins its throw of the dice applies; the others are not asked.
type Plan struct {
	// Seed of the dice: the same seed and the same sequence of requests give the same faults.
	Seed  uint64 `json:"seed"`
	Rules []Rule `json:"rules"`
}

// Rule is one fault. Only requests with good credentials and within the rate limit meet it.
// In JSON durations are texts like "250ms".
type Rule struct {
	// Name appears on the tape; "rule-1" and so on when empty.
	Name string `json:"name,omitempty"`
	// Operation, Integration, Account and Service say which requests match: "" or "*" is any.
	// A request to the OEM-API matches by each integration that its organization has by then; one
	// about no organization, or one without integrations, only where any integration will do.
	Operation   Operation `json:"operation,omitempty"`
	Integration string    `json:"integration,omitempty"`
	Account     string    `json:"account,omitempty"`
	Service     string    `json:"service,omitempty"`
	// Probability (0 to 1) of a matching request to be hit. 0 is 1 when First is set, else
	// refused: write 1 for always.
	Probability float64 `json:"probability,omitempty"`
	// First, when above 0, lets only the first so many matching requests throw the dice.
	First int `json:"first,omitempty"`
	// From and Until bound the window in which the rule is alive, counted from the moment
	// the plan comes into force; an Until of 0 is for ever.
	From  time.Duration `json:"-"`
	Until time.Duration `json:"-"`
	// Effect must be set.
	Effect Effect `json:"effect"`
	// Latency passes before the request is judged, plus a random part of Jitter. A client
	// that goes away meanwhile is not served: nothing is accepted.
	Latency time.Duration `json:"-"`
	Jitter  time.Duration `json:"-"`
	// Status (300 to 599), Message and RetryAfter (0: no header) are the answer of
	// StatusBefore and StatusAfter. RetryAfterForm is Config.RetryAfterForm when empty.
	Status         int            `json:"status,omitempty"`
	Message        string         `json:"message,omitempty"`
	RetryAfter     time.Duration  `json:"-"`
	RetryAfterForm RetryAfterForm `json:"retryAfterForm,omitempty"`
	// BodyTime is how long a SlowBody takes; 1 s when 0.
	BodyTime time.Duration `json:"-"`
	// BodyBytes is the size of a HugeBody; 10 MiB when 0, at most 1 GiB.
	BodyBytes int `json:"bodyBytes,omitempty"`
}

const (
	defaultBodyTime  = time.Second
	defaultBodyBytes = 10 << 20
	maxBodyBytes     = 1 << 30
)

// durationText is a time.Duration written as people write it.
type durationText time.Duration

func (d durationText) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *durationText) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`duration %.64q: want a text like "250ms"`, text)
	}
	*d = durationText(v)
	return nil
}

type plainRule Rule

// ruleJSON is a Rule with readable durations.
type ruleJSON struct {
	plainRule
	From       durationText `json:"from,omitempty"`
	Until      durationText `json:"until,omitempty"`
	Latency    durationText `json:"latency,omitempty"`
	Jitter     durationText `json:"jitter,omitempty"`
	RetryAfter durationText `json:"retryAfter,omitempty"`
	BodyTime   durationText `json:"bodyTime,omitempty"`
}

// MarshalJSON writes durations as texts.
func (r Rule) MarshalJSON() ([]byte, error) {
	return json.Marshal(ruleJSON{
		plainRule: plainRule(r),
		From:      durationText(r.From), Until: durationText(r.Until),
		Latency: durationText(r.Latency), Jitter: durationText(r.Jitter),
		RetryAfter: durationText(r.RetryAfter), BodyTime: durationText(r.BodyTime),
	})
}

// UnmarshalJSON refuses fields that a Rule does not have: a misspelt fault would
// otherwise be a test that tests nothing.
func (r *Rule) UnmarshalJSON(text []byte) error {
	var v ruleJSON
	if err := decodeStrict(text, &v); err != nil {
		return err
	}
	*r = Rule(v.plainRule)
	r.From, r.Until = time.Duration(v.From), time.Duration(v.Until)
	r.Latency, r.Jitter = time.Duration(v.Latency), time.Duration(v.Jitter)
	r.RetryAfter, r.BodyTime = time.Duration(v.RetryAfter), time.Duration(v.BodyTime)
	return nil
}

// Validate reports everything that is wrong with p at once, or nil.
func (p Plan) Validate() error {
	var errs []error
	for i := range p.Rules {
		if err := p.Rules[i].validate(); err != nil {
			errs = append(errs, fmt.Errorf("fault rule %d %q: %w", i+1, p.Rules[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Rule) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.Operation != "" && r.Operation != "*" && !slices.Contains(operations, r.Operation) {
		bad("operation %.64q: want * or one of %q", string(r.Operation), operations)
	}
	if !(r.Probability >= 0 && r.Probability <= 1) { // so written, it refuses NaN
		bad("probability %v: want 0 to 1", r.Probability)
	}
	if r.First < 0 {
		bad("first %d: want 1 or more", r.First)
	}
	if r.Probability == 0 && r.First == 0 {
		bad("neither probability nor first is set; want probability 1 for always")
	}
	if r.Until != 0 && r.Until <= r.From {
		bad("until %v is not after from %v", r.Until, r.From)
	}
	for _, d := range []time.Duration{r.From, r.Until, r.Latency, r.Jitter, r.RetryAfter, r.BodyTime} {
		if d < 0 {
			bad("duration %v: want 0 or more", d)
		}
	}
	if err := r.RetryAfterForm.validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, r.validateEffect())...)
}

func (r *Rule) validateEffect() error {
	switch r.Effect {
	case StatusBefore, StatusAfter:
		if r.Status < 300 || r.Status > 599 {
			return fmt.Errorf("status %d: effect %q wants 300 to 599", r.Status, r.Effect)
		}
		return nil
	case Delay:
		if r.Latency+r.Jitter <= 0 {
			return fmt.Errorf("effect %q wants latency or jitter", Delay)
		}
	case ResetBefore, ResetAfter, SlowBody, GarbageBody, EmptyBody:
	case HugeBody:
		if r.BodyBytes < 0 || r.BodyBytes > maxBodyBytes {
			return fmt.Errorf("body of %d bytes: want 0 to %d", r.BodyBytes, maxBodyBytes)
		}
	default:
		return fmt.Errorf("effect %q: want %q, %q, %q, %q, %q, %q, %q, %q or %q", string(r.Effect), Delay,
			StatusBefore, StatusAfter, ResetBefore, ResetAfter, SlowBody, GarbageBody, EmptyBody, HugeBody)
	}
	if r.Status != 0 {
		return fmt.Errorf("status %d does not go with effect %q; want effect %q or %q", r.Status, r.Effect, StatusBefore, StatusAfter)
	}
	return nil
}

// faults is a Plan at work. Sandbox.mu guards it.
type faults struct {
	plan  Plan
	since time.Time
	seen  []int // matching requests per rule
	dice  *rand.Rand
}

func (f *faults) set(p Plan, now time.Time) {
	rules := make([]Rule, len(p.Rules))
	for i, r := range p.Rules {
		if r.Name == "" {
			r.Name = fmt.Sprintf("rule-%d", i+1)
		}
		if r.Probability == 0 {
			r.Probability = 1
		}
		if r.BodyTime == 0 && r.Effect == SlowBody {
			r.BodyTime = defaultBodyTime
		}
		if r.BodyBytes == 0 && r.Effect == HugeBody {
			r.BodyBytes = defaultBodyBytes
		}
		rules[i] = r
	}
	*f = faults{
		plan:  Plan{Seed: p.Seed, Rules: rules},
		since: now,
		seen:  make([]int, len(rules)),
		dice:  rand.New(rand.NewPCG(p.Seed, 0)), //nolint:gosec // dice that must repeat for a seed, no secret
	}
}

// choose returns the rule that hits a call about the integrations, nil for none, and the
// latency it costs.
func (f *faults) choose(c *call, now time.Time, integrations ...string) (*Rule, time.Duration) {
	age := now.Sub(f.since)
	for i := range f.plan.Rules {
		r := &f.plan.Rules[i]
		if age < r.From || (r.Until != 0 && age >= r.Until) || !r.matches(c, integrations) {
			continue
		}
		f.seen[i]++
		if r.First > 0 && f.seen[i] > r.First {
			continue
		}
		if r.Probability < 1 && f.dice.Float64() >= r.Probability {
			continue
		}
		latency := r.Latency
		if r.Jitter > 0 {
			latency += time.Duration(f.dice.Int64N(int64(r.Jitter)))
		}
		return r, latency
	}
	return nil, 0
}

func (r *Rule) matches(c *call, integrations []string) bool {
	return fits(string(r.Operation), string(c.operation)) &&
		slices.ContainsFunc(integrations, func(name string) bool { return fits(r.Integration, name) }) &&
		fits(r.Account, c.account) && fits(r.Service, c.service)
}

func fits(pattern, text string) bool { return pattern == "" || pattern == "*" || pattern == text }
