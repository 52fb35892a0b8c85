package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode"
)

// PSA is the program in which an MSP keeps its customers, contracts and prices, pretended:
// what the wizard maps to, and what an approved delta changes.
type PSA struct {
	// ID is what the control API and forms call it.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Currency of all prices, such as EUR.
	Currency  string       `json:"currency"`
	Services  []PSAService `json:"services"`
	Companies []Company    `json:"companies"`
}

// PSAService is what an MSP sells: a line of its contracts.
type PSAService struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Price of a unit in a month, a decimal.
	Price json.Number `json:"price"`
}

// Company is a customer of an MSP, with its contract.
type Company struct {
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	Contract string         `json:"contract"`
	Lines    []ContractLine `json:"lines"`
}

// ContractLine is how many units of a service a company pays for.
type ContractLine struct {
	// Service is the id of a [PSAService].
	Service string `json:"service"`
	// Units are a decimal, 0 or more.
	Units json.Number `json:"units"`
}

// validatePSAs reports everything that is wrong with the PSAs of a configuration.
func validatePSAs(psas []PSA) error {
	var errs []error
	ids := map[string]bool{}
	for i := range psas {
		p := &psas[i]
		if err := p.validate(); err != nil {
			errs = append(errs, fmt.Errorf("PSA %d %q: %w", i+1, p.ID, err))
		}
		if ids[p.ID] {
			errs = append(errs, fmt.Errorf("PSA %d %q: an earlier one has that id", i+1, p.ID))
		}
		ids[p.ID] = true
	}
	return errors.Join(errs...)
}

func (p *PSA) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	named := func(what, id, name string, seen map[string]bool) {
		switch {
		case id == "" || name == "" || strings.ContainsFunc(id, unicode.IsControl):
			bad("%s %q: want an id of printable characters, and a name", what, id)
		case seen[id]:
			bad("%s %q: an earlier one has that id", what, id)
		}
		seen[id] = true
	}
	figure := func(what string, n json.Number) {
		if value, err := parseUnits(n.String()); err != nil {
			bad("%s: %w", what, err)
		} else if value.Sign() < 0 {
			bad("%s: %s is negative", what, n)
		}
	}
	named("PSA", p.ID, p.Name, map[string]bool{})
	if p.Currency == "" {
		bad("currency: want one such as EUR")
	}
	services, companies := map[string]bool{}, map[string]bool{}
	for _, v := range p.Services {
		named("service", v.ID, v.Name, services)
		figure(fmt.Sprintf("price of service %q", v.ID), v.Price)
	}
	for _, c := range p.Companies {
		named("company", c.ID, c.Name, companies)
		lines := map[string]bool{}
		for _, line := range c.Lines {
			if !services[line.Service] || lines[line.Service] {
				bad("contract of company %q: service %q is none of the PSA, or is named twice", c.ID, line.Service)
			}
			lines[line.Service] = true
			figure(fmt.Sprintf("contract of company %q, service %q", c.ID, line.Service), line.Units)
		}
	}
	return errors.Join(errs...)
}

// books are a PSA as one organization uses it. Sandbox.mu guards them.
type books struct {
	*PSA

	contracts map[string]map[string]*big.Rat // units by company, then service
}

func newBooks(p *PSA) *books {
	b := &books{PSA: p, contracts: map[string]map[string]*big.Rat{}}
	for _, c := range p.Companies {
		b.contracts[c.ID] = map[string]*big.Rat{}
		for _, line := range c.Lines {
			b.contracts[c.ID][line.Service] = mustUnits(line.Units)
		}
	}
	return b
}

func (b *books) company(id string) *Company {
	if i := slices.IndexFunc(b.Companies, func(c Company) bool { return c.ID == id }); i >= 0 {
		return &b.Companies[i]
	}
	return nil
}

func (b *books) service(id string) *PSAService {
	if i := slices.IndexFunc(b.Services, func(v PSAService) bool { return v.ID == id }); i >= 0 {
		return &b.Services[i]
	}
	return nil
}

// present is the PSA with the contracts as they are now.
func (b *books) present() PSA {
	out := *b.PSA
	out.Services, out.Companies = slices.Clone(b.Services), slices.Clone(b.Companies)
	for i := range out.Companies {
		c := &out.Companies[i]
		c.Lines = []ContractLine{}
		for _, v := range b.Services {
			if units := b.contracts[c.ID][v.ID]; units != nil {
				c.Lines = append(c.Lines, ContractLine{v.ID, json.Number(unitsText(units))})
			}
		}
	}
	return out
}

// PSAs returns the pretended PSAs that an organization may connect.
func (s *Sandbox) PSAs() []PSA {
	out := make([]PSA, len(s.config.PSAs))
	for i := range out {
		out[i] = newBooks(&s.config.PSAs[i]).present()
	}
	return out
}

// ConnectPSA connects the organization to a PSA. To another one than before takes all mappings
// back, of every integration: they led into the PSA that is left. Its contracts stay as they are
// until it is connected again. It returns [ErrUnknown] for an unknown organization or PSA.
func (s *Sandbox) ConnectPSA(name, psa string) error {
	return s.changeOrganization("connect a PSA", name, func(o *organization) error { return s.connectPSA(o, psa) })
}

// ConnectedPSA returns the PSA of the organization with the contracts as they are now.
func (s *Sandbox) ConnectedPSA(name string) (PSA, error) {
	var out PSA
	err := s.changeOrganization("show the PSA", name, func(o *organization) error {
		if o.psa == nil {
			return fmt.Errorf("%w: no PSA is connected", ErrConflict)
		}
		out = o.psa.present()
		return nil
	})
	return out, err
}

func (s *Sandbox) connectPSA(o *organization, id string) error {
	i := slices.IndexFunc(s.config.PSAs, func(p PSA) bool { return p.ID == id })
	if i < 0 {
		known := make([]string, len(s.config.PSAs))
		for i := range known {
			known[i] = s.config.PSAs[i].ID
		}
		return fmt.Errorf("%w PSA %q: want one of %q", ErrUnknown, id, known)
	}
	if o.psa != nil && o.psa.ID == id {
		return nil
	}
	if o.psa != nil {
		for _, in := range o.integrations {
			in.accounts.forget()
			in.services.forget()
			in.remember()
		}
	}
	if o.books[id] == nil {
		o.books[id] = newBooks(&s.config.PSAs[i])
	}
	o.psa = o.books[id]
	return nil
}
