package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Targets say where the accounts and services of an integration belong in the PSA. What they
// do not name stays as it is.
type Targets struct {
	// Accounts are companies of the PSA by the vendor's ids of accounts.
	Accounts map[string]string `json:"accounts"`
	// Services are one or several services of the PSA by the vendor's ids of services.
	Services map[string][]string `json:"services"`
	// ExcludeAccounts and ExcludeServices are not billed: as if unmapped by [Sandbox.Unmap].
	ExcludeAccounts Selection `json:"excludeAccounts"`
	ExcludeServices Selection `json:"excludeServices"`
}

// decision is what somebody said about one account or service.
type decision struct {
	targets  []string // of the PSA
	excluded bool     // with targets none; with neither it is undecided
}

// decided says that a person need not look at the item. What the control API mapped has no
// target: its counts are accepted, and nobody knows whose contract they belong into.
func (it *item) decided() bool { return len(it.targets) > 0 || (it.unmapped && !it.mapped) }

func (it *item) excluded() bool { return it.unmapped && !it.mapped }

func (c *catalog) decide(it *item, d decision) {
	c.set(it, len(d.targets) > 0)
	it.targets, it.unmapped = d.targets, d.excluded
}

// forget makes everything undecided.
func (c *catalog) forget() {
	for _, it := range c.order {
		c.decide(it, decision{})
	}
}

// MapTo maps accounts and services to companies and services of the PSA, or excludes them; that
// decides which counts are accepted, as [Sandbox.Map] and [Sandbox.Unmap] do. It returns
// [ErrConflict] while the integration is inactive or no PSA is connected, and [ErrUnknown] naming
// every id that was not posted or that the PSA does not have; then nothing is changed.
func (s *Sandbox) MapTo(name string, t Targets) error {
	return s.change("map", name, func(in *integration) error {
		accounts, services, err := in.decisions(t)
		if err != nil {
			return err
		}
		return in.decide(accounts, services)
	})
}

// decisions that targets are, by the vendor's ids.
func (in *integration) decisions(t Targets) (accounts, services map[string]decision, err error) {
	accounts, services = map[string]decision{}, map[string]decision{}
	for id, company := range t.Accounts {
		accounts[id] = decision{targets: []string{company}}
	}
	for id, targets := range t.Services {
		services[id] = decision{targets: slices.Compact(slices.Sorted(slices.Values(targets)))}
	}
	return accounts, services, errors.Join(
		t.ExcludeAccounts.exclude("account", &in.accounts, accounts), t.ExcludeServices.exclude("service", &in.services, services))
}

// exclude adds what the selection names; "all" is all that has no target.
func (s Selection) exclude(kind string, c *catalog, to map[string]decision) error {
	for _, id := range s.ids {
		if _, mapped := to[id]; mapped {
			return fmt.Errorf("%s %q is both mapped and excluded: want one of them", kind, id)
		}
		to[id] = decision{excluded: true}
	}
	if s.all {
		for _, it := range c.order {
			if _, mapped := to[it.id]; !mapped && len(it.targets) == 0 {
				to[it.id] = decision{excluded: true}
			}
		}
	}
	return nil
}

// decide carries all decisions out, or none.
func (in *integration) decide(accounts, services map[string]decision) error {
	if err := in.needsAsking(); err != nil {
		return err
	}
	if in.organization == nil || in.organization.psa == nil {
		return fmt.Errorf("%w: no PSA is connected to map to", ErrConflict)
	}
	b := in.organization.psa
	err := errors.Join(
		in.accounts.check("account", accounts, "company", func(id string) bool { return b.company(id) != nil }),
		in.services.check("service", services, "service of the PSA", func(id string) bool { return b.service(id) != nil }),
	)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		catalog   *catalog
		decisions map[string]decision
	}{{&in.accounts, accounts}, {&in.services, services}} {
		for _, id := range slices.Sorted(maps.Keys(c.decisions)) {
			c.catalog.decide(c.catalog.byID[id], c.decisions[id])
		}
	}
	return nil
}

func (c *catalog) check(kind string, decisions map[string]decision, target string, known func(id string) bool) error {
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(decisions)) {
		if c.byID[id] == nil {
			errs = append(errs, fmt.Errorf("%w %s %q: it was never posted", ErrUnknown, kind, id))
		}
		for _, to := range decisions[id].targets {
			if !known(to) {
				errs = append(errs, fmt.Errorf("%w %s %q, for %s %q", ErrUnknown, target, to, kind, id))
			}
		}
	}
	return errors.Join(errs...)
}

// AcceptSuggestions maps every undecided account and service whose name is that of exactly one
// company or service of the PSA, and returns how many those were. Its errors are those of MapTo.
func (s *Sandbox) AcceptSuggestions(name string) (accounts, services int, err error) {
	err = s.change("accept the suggestions", name, func(in *integration) error {
		var b *books
		if in.organization != nil {
			b = in.organization.psa
		}
		a, v := in.accounts.suggestions(b.companyNames()), in.services.suggestions(b.serviceNames())
		accounts, services = len(a), len(v)
		return in.decide(a, v)
	})
	if err != nil {
		return 0, 0, err
	}
	return accounts, services, nil
}

// names are ids by what a name looks like; empty where several share it.
type names map[string]string

// look of a name: neither case nor blanks make a difference.
func look(name string) string { return strings.ToLower(strings.Join(strings.Fields(name), " ")) }

func (n names) add(id, name string) {
	if _, shared := n[look(name)]; shared {
		id = ""
	}
	n[look(name)] = id
}

func (b *books) companyNames() names {
	all := names{}
	if b != nil {
		for _, c := range b.Companies {
			all.add(c.ID, c.Name)
		}
	}
	return all
}

func (b *books) serviceNames() names {
	all := names{}
	if b != nil {
		for _, v := range b.Services {
			all.add(v.ID, v.Name)
		}
	}
	return all
}

// suggestions for what is undecided.
func (c *catalog) suggestions(known names) map[string]decision {
	found := map[string]decision{}
	for _, it := range c.order {
		if target := known[look(it.name)]; target != "" && !it.decided() {
			found[it.id] = decision{targets: []string{target}}
		}
	}
	return found
}

// tally counts the decisions of a catalog.
type tally struct{ All, Mapped, Excluded, Undecided int }

func (c *catalog) tally() tally {
	t := tally{All: len(c.order)}
	for _, it := range c.order {
		switch {
		case len(it.targets) > 0:
			t.Mapped++
		case it.excluded():
			t.Excluded++
		default:
			t.Undecided++
		}
	}
	return t
}
