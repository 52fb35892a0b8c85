package sandbox

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Report is the partner's whole state at one moment.
type Report struct {
	// Integrations are sorted by name.
	Integrations []IntegrationReport `json:"integrations"`
	// Totals cover all integrations, the requests without a good token and the OEM-API.
	Totals Totals `json:"totals"`
}

// IntegrationReport is one integration's state.
type IntegrationReport struct {
	Name    string  `json:"name"`
	ID      string  `json:"integrationId"`
	Dialect Dialect `json:"dialect"`
	Status  Status  `json:"status"`
	// Revoked says that no token is good at present, Anomaly that counts are refused.
	Revoked bool `json:"revoked,omitempty"`
	Anomaly bool `json:"anomaly,omitempty"`
	// Epoch is how often the integration was reset.
	Epoch int `json:"epoch"`
	// Accounts and Services are in the order of posting.
	Accounts []AccountReport `json:"accounts"`
	Services []ServiceReport `json:"services"`
	// Counts holds the current value by account, then service, with the digits as they were
	// sent: 42.50 stays 42.50, so compare numerically. A reset empties it.
	Counts map[string]map[string]json.Number `json:"counts"`
	// Billed is what the billing view shows: Counts without what came with no_build=true
	// since the last count without it.
	Billed map[string]map[string]json.Number `json:"billed"`
	Totals Totals                            `json:"totals"`
}

// AccountReport is one posted account.
type AccountReport struct {
	VendorAccountID string `json:"vendorAccountId"`
	Name            string `json:"name"`
	ExternalID      string `json:"externalId,omitempty"`  // MSPCentric
	Description     string `json:"description,omitempty"` // Gradient
	Mapped          bool   `json:"mapped"`
	// Inactive is what the vendor said by isActive in the Gradient dialect. Counts do not
	// ask for it: what it does to them is published nowhere.
	Inactive bool `json:"inactive,omitempty"`
}

// ServiceReport is one posted service.
type ServiceReport struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Mapped      bool   `json:"mapped"`
}

// Totals count since the sandbox began; resets do not touch them.
type Totals struct {
	// Requests by operation, then answered status, "torn" where there was no answer.
	Requests map[Operation]map[string]int `json:"requests"`
	// AcceptedCounts is how many unit counts took effect, whatever the client was told.
	AcceptedCounts int `json:"acceptedCounts"`
	// MaxCallsPerKey is how many count requests, accepted or not, the busiest pair of
	// account and service got.
	MaxCallsPerKey int `json:"maxCallsPerKey"`
}

// totals are Totals that cost a request no allocation. Sandbox.mu guards them.
type totals struct {
	requests       map[operationStatus]int
	acceptedCounts int
	maxCallsPerKey int
}

type operationStatus struct {
	operation Operation
	status    int
}

func newTotals() totals { return totals{requests: map[operationStatus]int{}} }

func (t *totals) add(r *Record, callsOfKey int) {
	t.requests[operationStatus{r.Operation, r.Status}]++
	if r.Accepted && r.Operation == OperationCount {
		t.acceptedCounts++
	}
	t.maxCallsPerKey = max(t.maxCallsPerKey, callsOfKey)
}

func (t *totals) report() Totals {
	out := Totals{
		Requests:       map[Operation]map[string]int{},
		AcceptedCounts: t.acceptedCounts, MaxCallsPerKey: t.maxCallsPerKey,
	}
	for k, n := range t.requests {
		if out.Requests[k.operation] == nil {
			out.Requests[k.operation] = map[string]int{}
		}
		status := "torn"
		if k.status != 0 {
			status = strconv.Itoa(k.status)
		}
		out.Requests[k.operation][status] = n
	}
	return out
}

// Report describes all integrations. It is a copy; its cost grows with everything posted.
func (s *Sandbox) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	out := Report{Integrations: []IntegrationReport{}, Totals: s.totals.report()}
	for _, in := range s.byName {
		in.settle(now)
		out.Integrations = append(out.Integrations, in.report())
	}
	slices.SortFunc(out.Integrations, func(a, b IntegrationReport) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// ReportOf describes one integration, and false when it does not exist.
func (s *Sandbox) ReportOf(integration string) (IntegrationReport, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.byName[integration]
	if in == nil {
		return IntegrationReport{}, false
	}
	in.settle(s.now())
	return in.report(), true
}

func (in *integration) report() IntegrationReport {
	out := IntegrationReport{
		Name: in.name, ID: in.id, Dialect: in.dialect, Status: in.status, Epoch: in.epoch,
		Revoked: in.partnerToken == "" && !in.credentialsKind(), Anomaly: in.anomaly,
		Accounts: []AccountReport{}, Services: []ServiceReport{},
		Counts: map[string]map[string]json.Number{},
		Billed: map[string]map[string]json.Number{},
		Totals: in.totals.report(),
	}
	for _, a := range in.accounts.order {
		account := AccountReport{VendorAccountID: a.id, Name: a.name, ExternalID: a.note, Mapped: a.mapped, Inactive: a.inactive}
		if in.dialect == Gradient {
			account.ExternalID, account.Description = "", a.note
		}
		out.Accounts = append(out.Accounts, account)
	}
	for _, v := range in.services.order {
		out.Services = append(out.Services, ServiceReport{v.id, v.name, v.note, v.mapped})
	}
	for k := range in.figures {
		if value, ok := in.value(k); ok {
			put(out.Counts, k, value)
		}
		if value, ok := in.billed(k); ok {
			put(out.Billed, k, value)
		}
	}
	return out
}

func put(values map[string]map[string]json.Number, k key, value string) {
	if values[k.account] == nil {
		values[k.account] = map[string]json.Number{}
	}
	values[k.account][k.service] = json.Number(value)
}
