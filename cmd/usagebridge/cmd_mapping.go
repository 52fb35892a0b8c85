package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/catalog"
	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) integrationsMapping() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "mapping VENDOR/ORGANIZATION",
		Short: "List what the partner refuses as unmapped, with what is likely to be missing",
		Long: `Lists the figures that wait for a person at the MSP to map their account or their
service in the platform's wizard, those that have waited longest first. The
platform does not say which of the two is missing; but when another figure of the
same account has been accepted it must be the service, and the other way round.

The stored ledger is read; the partner is not asked.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("--limit %d: want how many figures to list, or 0 for all", limit)
			}
			return c.withIntegration(cmd.Context(), args[0], func(ctx context.Context, a *app, vendor, organization string) error {
				i, m, err := a.mappingOf(ctx, vendor, organization)
				if err != nil {
					return err
				}
				return c.showMapping(m.view(args[0], i, limit))
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "list at most so many figures; 0: all")
	return cmd
}

// What is likely to be missing when the partner refuses a figure as unmapped.
const (
	missingAccount = "account"
	missingService = "service"
	missingEither  = "account or service"
	// missingNeither: figures of both are accepted elsewhere. Most likely a
	// person has mapped them since the last try.
	missingNeither = "neither"
)

// mappable is an account or a service with the name that the vendor gave it.
type mappable struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // empty: its catalog event has not come
}

func (n mappable) String() string {
	if n.Name == "" || n.Name == n.ID {
		return n.ID
	}
	return n.Name + " (" + n.ID + ")"
}

// unmappedView is a figure that waits for its mapping.
type unmappedView struct {
	Account mappable  `json:"account"`
	Service mappable  `json:"service"`
	Units   string    `json:"units"` // waiting
	Since   time.Time `json:"since"`
	Answer  string    `json:"answer,omitempty"` // the partner's last one
	Missing string    `json:"likely_missing"`
}

// mappingView is what a person at the MSP has to map.
type mappingView struct {
	Integration string         `json:"integration"`
	Gates       string         `json:"gates"`    // where they are closed more may be unmapped than is known
	Keys        int            `json:"keys"`     // unmapped, in all
	Accounts    []mappable     `json:"accounts"` // to map
	Services    []mappable     `json:"services"` // to map
	Certain     bool           `json:"certain"`  // false: some of the above may be mapped
	Unmapped    []unmappedView `json:"unmapped"` // up to the limit
}

// mapping collects what the ledger tells of an integration's mapping.
type mapping struct {
	counts   int
	unmapped []ledger.Entry
	mapped   map[ledger.Key]bool // accounts and services of which a figure is accepted
	names    map[ledger.Key]string
}

// add takes an entry of an integration that is in the given generation.
func (m *mapping) add(e *ledger.Entry, generation int) error {
	switch {
	case !e.Key.Kind.Figure():
		return nil
	case e.Key.Kind != ledger.Count:
		desired, _ := e.Desired()
		properties, err := catalog.ParseProperties(desired.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		m.names[e.Key] = properties.Name
		return nil
	case e.State == ledger.Held && e.Reason == ledger.Unmapped:
		m.unmapped = append(m.unmapped, *e)
	case e.PostedIn(generation):
		m.mapped[e.Key.AccountKey()], m.mapped[e.Key.ServiceKey()] = true, true
	}
	m.counts++
	return nil
}

// missing is what is likely to be missing for an unmapped figure.
func (m *mapping) missing(k ledger.Key) string {
	account, service := m.mapped[k.AccountKey()], m.mapped[k.ServiceKey()]
	switch {
	case account && service:
		return missingNeither
	case account:
		return missingService
	case service:
		return missingAccount
	}
	return missingEither
}

func (m *mapping) view(name string, i *status.Integration, limit int) mappingView {
	v := mappingView{Integration: name, Gates: gates(i), Keys: len(m.unmapped), Certain: true, Unmapped: []unmappedView{}}
	slices.SortFunc(m.unmapped, func(a, b ledger.Entry) int {
		return cmp.Or(cmp.Compare(a.Since, b.Since), strings.Compare(a.Key.String(), b.Key.String()))
	})
	accounts, services := map[mappable]bool{}, map[mappable]bool{}
	for n := range m.unmapped {
		e := &m.unmapped[n]
		key := viewKey(e, "", true)
		u := unmappedView{
			Account: mappable{e.Key.Account, m.names[e.Key.AccountKey()]},
			Service: mappable{e.Key.Service, m.names[e.Key.ServiceKey()]},
			Units:   key.Desired, Since: key.Since, Answer: key.Answer, Missing: m.missing(e.Key),
		}
		if u.Missing == missingAccount || u.Missing == missingEither {
			accounts[u.Account] = true
		}
		if u.Missing == missingService || u.Missing == missingEither {
			services[u.Service] = true
		}
		v.Certain = v.Certain && u.Missing != missingEither
		if limit == 0 || n < limit {
			v.Unmapped = append(v.Unmapped, u)
		}
	}
	v.Accounts, v.Services = inOrder(accounts), inOrder(services)
	return v
}

// inOrder sorts by name, as the platform's wizard lists them.
func inOrder(set map[mappable]bool) []mappable {
	list := slices.AppendSeq(make([]mappable, 0, len(set)), maps.Keys(set))
	slices.SortFunc(list, func(a, b mappable) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// mappingOf reads the part of the ledger that belongs to an integration, and
// its record; nil when nobody has added it.
func (a *app) mappingOf(ctx context.Context, vendor, organization string) (*status.Integration, *mapping, error) {
	i, err := a.integration(ctx, vendor, organization)
	if err != nil && !errors.Is(err, broker.ErrNotFound) {
		return nil, nil, err
	}
	v, vendorErr := a.broker.Vendor(ctx, vendor)
	if vendorErr != nil {
		return nil, nil, vendorErr
	}
	generation := 0
	if i != nil {
		generation = i.Generation
	}
	m := &mapping{mapped: map[ledger.Key]bool{}, names: map[ledger.Key]string{}}
	loadErr := a.eachEntry(ctx, v, organization, func(e *ledger.Entry) error { return m.add(e, generation) })
	if loadErr != nil {
		return nil, nil, loadErr
	}
	if i == nil && m.counts == 0 && len(m.names) == 0 {
		return nil, nil, err
	}
	return i, m, nil
}

// shownNames is how many accounts and services the summary names of each.
const shownNames = 10

// summary says what to do in the platform's wizard.
func (v *mappingView) summary() string {
	atMost := ""
	if !v.Certain {
		atMost = "at most "
	}
	var counts, lists []string
	add := func(list []mappable, one, many string) {
		if len(list) == 0 {
			return
		}
		counts = append(counts, plural(len(list), one, many))
		var names []string
		for n, item := range list {
			if n == shownNames {
				names = append(names, fmt.Sprintf("and %d more", len(list)-n))
				break
			}
			names = append(names, item.String())
		}
		word := many
		if len(list) == 1 {
			word = one
		}
		lists = append(lists, word+" "+strings.Join(names, ", "))
	}
	add(v.Accounts, "account", "accounts")
	add(v.Services, "service", "services")
	if counts == nil {
		return "nothing left to map, as far as is known: figures of each of these accounts and services are accepted elsewhere"
	}
	return atMost + strings.Join(counts, " and ") + " to map: " + strings.Join(lists, "; ")
}

func (c *cli) showMapping(v mappingView) error {
	if c.json {
		return c.printJSON(v)
	}
	if v.Keys == 0 {
		c.say("%s: nothing is unmapped", printable(v.Integration))
	} else if err := c.showUnmapped(v); err != nil {
		return err
	}
	if v.Gates != "open" {
		c.say("counts are not sent now (%s): what else may be unmapped is not known yet", v.Gates)
	}
	return nil
}

func (c *cli) showUnmapped(v mappingView) error {
	now := time.Now()
	if _, err := fmt.Fprintf(c.stdout, "%s\n\n", printable(v.summary())); err != nil {
		return err
	}
	rows := make([][]string, len(v.Unmapped))
	for n, u := range v.Unmapped {
		rows[n] = []string{
			printable(u.Account.ID), or(printable(cut(u.Account.Name, 40)), "-"),
			printable(u.Service.ID), or(printable(cut(u.Service.Name, 40)), "-"),
			u.Units, ago(u.Since, now), u.Missing,
		}
		if u.Missing == missingNeither {
			rows[n][6] = "neither: mapped meanwhile?"
		}
	}
	if err := c.table([]string{"ACCOUNT", "NAME", "SERVICE", "NAME", "UNITS", "WAITS SINCE", "LIKELY MISSING"}, rows); err != nil {
		return err
	}
	c.say("%s: %s, %d listed", printable(v.Integration), plural(v.Keys, "figure is unmapped", "figures are unmapped"), len(rows))
	return nil
}
