package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// demoService is a product of the demo's vendor.
type demoService struct{ id, name string }

func demoServices() []demoService {
	return []demoService{
		{"backup", "Cloud Backup"}, {"m365 backup", "Microsoft 365 Backup"}, {"edr+", "Endpoint Detection and Response"},
		{"rmm.agent", "Remote Monitoring, per Agent"}, {"mail[archive]", "Mail Archive"}, {"spam/filter", "Mail Filter"},
		{"dns-filter", "DNS Filter"}, {"sécurité", "Security Awareness Training"}, {"gb\u00a0stored", "Storage, per GB"},
		{"SOC (24×7)", "Security Operations Centre"}, {"voip_seats", "Telephony, per Seat"}, {"100%-sla", "Premium Support"},
	}
}

// accountStyles make ids of accounts as vendors really have them.
var accountStyles = []string{
	"a-%d", "Contoso Ltd. #%d", "tenant[%04d]", "x.y.z-%d", "Müller & Söhne\u00a0%d", "acct/%05d", "%d%%", "日本支店 %d", "<%d>", "_%d_",
}

var (
	accountFirst  = []string{"Alder", "Birch", "Cedar", "Dune", "Elm", "Fjord", "Grove", "Heath", "Iris", "Juniper", "Kestrel", "Linden", "Maple", "North", "Oak", "Pine"}
	accountSecond = []string{"Dental", "Logistics", "Legal", "Bakery", "Architects", "Clinic", "Motors", "Accounting", "Schools", "Foods", "Media", "Optics"}
)

// planCatalog makes the accounts and services of every organization and the
// keys that will have figures, in the order of their popularity. It gives back
// the events that are to arrive late: accounts whose counts are there before
// them, and outdated names.
func (p *planner) planCatalog() (late []*event.Event) {
	wanted := max(p.plan.size/20, 8)
	for i, organization := range demoOrganizations() {
		n := wanted * 3 / 5 // the first has more of them
		if i > 0 {
			n = wanted - len(p.keys)
		}
		services := p.planServices(organization)
		accounts, after := p.planAccounts(organization, n/4+2)
		late = append(late, after...)
		var pairs []demoKey
		for _, account := range accounts {
			for _, service := range services {
				pairs = append(pairs, demoKey{organization, account, service})
			}
		}
		p.Shuffle(len(pairs), func(a, b int) { pairs[a], pairs[b] = pairs[b], pairs[a] })
		p.keys = append(p.keys, pairs[:n]...)
	}
	p.Shuffle(len(p.keys), func(a, b int) { p.keys[a], p.keys[b] = p.keys[b], p.keys[a] })
	for i, key := range p.keys {
		dice := p.IntN(100)
		switch {
		case i <= len(p.keys)/20 || dice < 55: // what changes all the time comes in batches
			p.channels[key] = viaBatch
		case dice < 85:
			p.channels[key] = viaPublisher
		default:
			p.channels[key] = viaBinary
		}
	}
	return late
}

func (p *planner) planServices(organization string) (ids []string) {
	services := demoServices()
	others := services[1:] // everybody has the first
	p.Shuffle(len(others), func(a, b int) { others[a], others[b] = others[b], others[a] })
	names := map[string]string{}
	for i, s := range services[:6+p.IntN(len(services)-5)] {
		names[s.id] = s.name
		ids = append(ids, s.id)
		p.plan.catalog = append(p.plan.catalog, p.catalogEvent(organization, fmt.Sprintf("service-%d", i), event.Service{
			ServiceID: s.id, Name: s.name, Description: "Billed by " + demoVendor,
		}))
	}
	p.plan.want.services[organization] = names
	return ids
}

func (p *planner) planAccounts(organization string, n int) (ids []string, late []*event.Event) {
	names := map[string]string{}
	for i := range n {
		id := fmt.Sprintf(accountStyles[i%len(accountStyles)], i+1)
		name := fmt.Sprintf("%s %s %d", pickOne(p, accountFirst), pickOne(p, accountSecond), i+1)
		names[id] = name
		ids = append(ids, id)
		account := event.Account{AccountID: id, Name: name, ExternalID: fmt.Sprintf("crm-%d", 1000+i)}
		e := p.catalogEvent(organization, fmt.Sprintf("account-%d", i), account)
		if i > 0 && p.chance(demoLateShare) {
			late = append(late, e)
			continue
		}
		p.plan.catalog = append(p.plan.catalog, e)
		if p.chance(demoLateShare) {
			account.Name += " (before the merger)"
			outdated := p.catalogEvent(organization, fmt.Sprintf("account-%d-outdated", i), account)
			outdated.Time = e.Time.Add(-24 * time.Hour)
			late = append(late, outdated)
		}
	}
	p.plan.want.accounts[organization] = names
	return ids, late
}

func (p *planner) catalogEvent(organization, id string, data event.Data) *event.Event {
	e := &event.Event{
		ID: organization + "/" + id, Source: demoSource, Type: event.TypeAccount,
		Time:   p.plan.start.Add(-24*time.Hour - p.within(20*24*time.Hour)),
		Vendor: demoVendor, Organization: organization, Data: data,
	}
	if _, ok := data.(event.Service); ok {
		e.Type = event.TypeService
	}
	return e
}

// demoIntegration is how people and the sandbox name an organization.
func demoIntegration(organization string) string { return demoVendor + "/" + organization }

// demoIntegrations lists them all.
func demoIntegrations() []string {
	names := slices.Clone(demoOrganizations())
	for i := range names {
		names[i] = demoIntegration(names[i])
	}
	return names
}
