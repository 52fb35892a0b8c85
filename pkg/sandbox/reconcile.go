package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Delta is a line of a company's contract beside what the vendors report for it. Figures are
// decimals, exactly.
type Delta struct {
	// Company and Service are the PSA's ids.
	Company     string `json:"company"`
	CompanyName string `json:"companyName"`
	Service     string `json:"service"`
	ServiceName string `json:"serviceName"`
	// Contract is how many units the contract has, nil when it has no such line.
	Contract *json.Number `json:"contract"`
	// Reported is how many units the vendors reported, nil when none did yet: that is not 0.
	Reported *json.Number `json:"reported"`
	// Delta is Reported without Contract, nil when nothing was reported.
	Delta *json.Number `json:"delta"`
	// Sources are the accepted counts that Reported is the sum of.
	Sources []Source `json:"sources"`
	// Problem says why the figures cannot be compared.
	Problem string `json:"problem,omitempty"`

	contract, reported *big.Rat // reported is nil as Reported is
	price              *big.Rat
}

// Source is one accepted count.
type Source struct {
	Integration string `json:"integration"`
	// Account and Service are the vendor's ids.
	Account     string      `json:"account"`
	AccountName string      `json:"accountName"`
	Service     string      `json:"service"`
	ServiceName string      `json:"serviceName"`
	Units       json.Number `json:"units"`
}

// Open says that there is something to approve.
func (d *Delta) Open() bool { return d.reported != nil && d.reported.Cmp(d.contract) != 0 }

// Approval is a contract that was changed.
type Approval struct {
	Time time.Time `json:"time"`
	// By is who approved, as people read it.
	By          string `json:"by"`
	PSA         string `json:"psa"`
	Company     string `json:"company"`
	CompanyName string `json:"companyName"`
	Service     string `json:"service"`
	ServiceName string `json:"serviceName"`
	// From and To are the units in the contract before and after.
	From json.Number `json:"from"`
	To   json.Number `json:"to"`

	to *big.Rat
}

// Deltas compares the contracts of the organization with what is reported for them: every
// company and service of the PSA that something is mapped to and that has units on either side, in
// the order of the PSA. A service that is mapped to several of the PSA counts in each. It returns
// [ErrConflict] when no PSA is connected.
func (s *Sandbox) Deltas(name string) ([]Delta, error) {
	var out []Delta
	err := s.changeOrganization("deltas", name, func(o *organization) (err error) {
		out, err = o.deltas()
		return err
	})
	return out, err
}

// line of a contract: a company and a service of the PSA.
type line struct{ company, service string }

func (o *organization) deltas() ([]Delta, error) {
	if o.psa == nil {
		return nil, fmt.Errorf("%w: no PSA is connected", ErrConflict)
	}
	mapped, sources := map[line]bool{}, map[line][]Source{}
	for _, in := range o.integrations {
		in.lines(mapped, sources)
	}
	out := []Delta{}
	for _, c := range o.psa.Companies {
		for _, v := range o.psa.Services {
			at := line{c.ID, v.ID}
			if units := o.psa.contracts[c.ID][v.ID]; mapped[at] && (units != nil || len(sources[at]) > 0) {
				out = append(out, newDelta(&c, &v, units, sources[at]))
			}
		}
	}
	return out, nil
}

// lines adds where the integration is mapped to, and what was accepted for it there.
func (in *integration) lines(mapped map[line]bool, sources map[line][]Source) {
	for _, account := range in.accounts.order {
		for _, service := range in.services.order {
			if len(account.targets) == 0 || len(service.targets) == 0 {
				continue
			}
			value, reported := in.value(key{account.id, service.id})
			for _, company := range account.targets {
				for _, to := range service.targets {
					at := line{company, to}
					mapped[at] = true
					if reported {
						sources[at] = append(sources[at], Source{in.name, account.id, account.name, service.id, service.name, json.Number(value)})
					}
				}
			}
		}
	}
}

func newDelta(c *Company, v *PSAService, contract *big.Rat, sources []Source) Delta {
	d := Delta{
		Company: c.ID, CompanyName: c.Name, Service: v.ID, ServiceName: v.Name, Sources: slices.Clone(sources),
		contract: cmp.Or(contract, new(big.Rat)), price: mustUnits(v.Price),
	}
	if d.Sources == nil {
		d.Sources = []Source{}
	}
	if contract != nil {
		d.Contract = number(contract)
	}
	sum := new(big.Rat)
	for _, source := range sources {
		units, err := parseUnits(source.Units.String())
		if err != nil {
			d.Problem = err.Error()
			return d
		}
		sum.Add(sum, units)
	}
	if len(sources) > 0 {
		d.reported = sum
		d.Reported, d.Delta = number(sum), number(new(big.Rat).Sub(sum, d.contract))
	}
	return d
}

func number(value *big.Rat) *json.Number {
	n := json.Number(unitsText(value))
	return &n
}
