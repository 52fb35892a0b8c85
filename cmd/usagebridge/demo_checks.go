package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// demoEvidence is what was seen of a demo from outside: at the partner, in the
// streams and in the metrics.
type demoEvidence struct {
	partner sandbox.Report
	tape    []sandbox.Record

	stored       int                        // messages in the log
	pending      int                        // of them not acknowledged by a worker
	received     int                        // messages that workers recorded; one that came twice counts twice
	dispositions map[ledger.Disposition]int // of events
	letters      map[event.Reason]int       // in the stream of dead letters
	dropped      int                        // repeats that the server dropped
	open         []string                   // keys of the ledger that are not synced

	limit float64 // calls per second and integration; 0: none
}

// demoCheck is one claim and whether it holds.
type demoCheck struct {
	Claim    string   `json:"claim"`
	OK       bool     `json:"ok"`
	Figures  string   `json:"figures"`
	Problems []string `json:"problems,omitempty"`
}

// maxProblems bounds the problems told of one check.
const maxProblems = 8

// demoProblems collects what is wrong with one claim.
type demoProblems struct {
	list []string
	more int
}

func (p *demoProblems) add(format string, args ...any) {
	if len(p.list) == maxProblems {
		p.more++
		return
	}
	p.list = append(p.list, fmt.Sprintf(format, args...))
}

func (p *demoProblems) check(claim, figures string) demoCheck {
	list := p.list
	if p.more > 0 {
		list = append(list, fmt.Sprintf("and %s more", thousands(p.more)))
	}
	return demoCheck{Claim: claim, OK: len(list) == 0, Figures: figures, Problems: list}
}

// checkDemo holds the evidence against the plan: the invariants of the design.
func checkDemo(plan *demoPlan, seen *demoEvidence) []demoCheck {
	return []demoCheck{
		seen.checkFigures(&plan.want),
		seen.checkOrder(&plan.want),
		seen.checkEvents(&plan.want),
		seen.checkRate(),
	}
}

// checkFigures: for every key the partner's last accepted value is the newest
// one, accounts and services are those of the catalog, and there is nothing
// else.
func (seen *demoEvidence) checkFigures(want *demoWant) demoCheck {
	var p demoProblems
	got := map[demoKey]event.Units{}
	for i := range seen.partner.Integrations {
		in := &seen.partner.Integrations[i]
		organization := strings.TrimPrefix(in.Name, demoVendor+"/")
		for account, services := range in.Counts {
			for service, text := range services {
				key := demoKey{organization, account, service}
				units, err := event.ParseUnits(text.String())
				if _, expected := want.figures[key]; !expected || err != nil {
					p.add("%s: the partner has %s, which nobody published", key, text)
					continue
				}
				got[key] = units
			}
		}
		checkCatalog(&p, organization, want, in)
	}
	zero := 0
	for _, key := range sortedKeys(want.figures) {
		wanted := want.figures[key].newest
		if wanted.units == 0 {
			zero++
		}
		units, ok := got[key]
		switch {
		case !ok:
			p.add("%s: the partner has nothing, want %s", key, wanted.units)
		case units != wanted.units:
			p.add("%s: the partner has %s, want %s (event %s)", key, units, wanted.units, wanted.id)
		}
	}
	for _, key := range seen.open {
		p.add("%s: not in step with the partner", key)
	}
	accounts, services := 0, 0
	for _, in := range seen.partner.Integrations {
		accounts += len(in.Accounts)
		services += len(in.Services)
	}
	return p.check("the partner has every figure, the newest one, and no other",
		fmt.Sprintf("%s figures, %s of them zero, %s accounts, %s services", thousands(len(want.figures)), thousands(zero), thousands(accounts), thousands(services)))
}

func checkCatalog(p *demoProblems, organization string, want *demoWant, in *sandbox.IntegrationReport) {
	accounts := make(map[string]string, len(in.Accounts))
	for _, a := range in.Accounts {
		accounts[a.VendorAccountID] = a.Name
	}
	services := make(map[string]string, len(in.Services))
	for _, s := range in.Services {
		services[s.ID] = s.Name
	}
	compare := func(kind string, got, want map[string]string) {
		for _, id := range slices.Sorted(maps.Keys(want)) {
			if name, ok := got[id]; !ok || name != want[id] {
				p.add("%s: %s %q has the name %q at the partner, want %q", printable(organization), kind, id, name, want[id])
			}
		}
		for _, id := range slices.Sorted(maps.Keys(got)) {
			if _, ok := want[id]; !ok {
				p.add("%s: the partner has %s %q, which nobody published", printable(organization), kind, id)
			}
		}
	}
	compare("account", accounts, want.accounts[organization])
	compare("service", services, want.services[organization])
}

func sortedKeys(figures map[demoKey]demoFigure) []demoKey {
	return slices.SortedFunc(maps.Keys(figures), func(a, b demoKey) int {
		return slices.Compare([]string{a.organization, a.account, a.service}, []string{b.organization, b.account, b.service})
	})
}

// checkOrder: at no time did the partner take an older value after a newer one.
func (seen *demoEvidence) checkOrder(want *demoWant) demoCheck {
	var p demoProblems
	type place struct {
		rank  int
		value string
	}
	last := map[demoKey]place{}
	accepted := 0
	for i := range seen.tape {
		r := &seen.tape[i]
		if r.Operation != sandbox.OperationCount || !r.Accepted {
			continue
		}
		accepted++
		key := demoKey{strings.TrimPrefix(r.Integration, demoVendor+"/"), r.Account, r.Service}
		units, err := event.ParseUnits(r.Value)
		rank, known := want.figures[key].ranks[units]
		if err != nil || !known {
			p.add("%s: call %d brought %s, which was never its figure", key, r.Sequence, r.Value)
			continue
		}
		if before, ok := last[key]; ok && rank < before.rank {
			p.add("%s: call %d brought %s after the newer %s", key, r.Sequence, r.Value, before.value)
		}
		last[key] = place{rank, r.Value}
	}
	return p.check("no figure ever went back to an older one", thousands(accepted)+" accepted calls")
}

// checkEvents: every event has one disposition, and what is dead is in the
// stream of dead letters for the reason it should be.
//
// How many of the living were applied, superseded or unchanged depends on when
// they met the partner, but not without bounds: each key had a first event, and
// no repeat counted as anything new.
func (seen *demoEvidence) checkEvents(want *demoWant) demoCheck {
	var p demoProblems
	if seen.stored != want.messages {
		p.add("the log has %d messages, want %d", seen.stored, want.messages)
	}
	if seen.pending != 0 {
		p.add("%d messages are not acknowledged", seen.pending)
	}
	if seen.dropped != want.dropped {
		p.add("the server dropped %d repeats, want %d", seen.dropped, want.dropped)
	}
	sum := 0
	for _, n := range seen.dispositions {
		sum += n
	}
	// A message that comes a second time is folded a second time, to no
	// effect; it may be a batch.
	most := want.events
	if again := seen.received - seen.stored; again > 0 {
		most += again * event.MaxBatch
	}
	if sum < want.events || sum > most {
		p.add("the dispositions of %d events are known, want %d", sum, want.events)
	}
	d := seen.dispositions
	if d[ledger.Applied] < want.keys() {
		p.add("%d events were applied, fewer than the %d keys", d[ledger.Applied], want.keys())
	}
	if d[ledger.Duplicate] < want.recent {
		p.add("%d events were duplicates, want at least the %d repeats of a newest event", d[ledger.Duplicate], want.recent)
	}
	if d[ledger.Duplicate]+d[ledger.Superseded] < want.repeats {
		p.add("%d events were duplicate or superseded, fewer than the %d repeats", d[ledger.Duplicate]+d[ledger.Superseded], want.repeats)
	}
	for _, reason := range event.Reasons() {
		if seen.letters[reason] != want.dead[reason] {
			p.add("%d dead letters are %s, want %d", seen.letters[reason], reason, want.dead[reason])
		}
	}
	return p.check("no event is lost: each has its disposition, each dead one its letter",
		fmt.Sprintf("%s events stored, %s dispositions, %s dead letters", thousands(want.events), thousands(sum), thousands(total(seen.letters))))
}

// rateTolerance is what the tape may show above the limit. It has the times at
// which calls were judged, not those at which they were sent: a pause of this
// process, for the garbage collector or by a busy machine, moves some of them
// into the next second.
const rateTolerance = 0.05

// checkRate: in no second did an integration get more calls than allowed.
func (seen *demoEvidence) checkRate() demoCheck {
	var p demoProblems
	times := map[string][]time.Time{}
	for i := range seen.tape {
		r := &seen.tape[i]
		times[r.Integration] = append(times[r.Integration], r.Time)
	}
	busiest := 0
	allowed := int(math.Ceil(seen.limit * (1 + rateTolerance)))
	for _, name := range slices.Sorted(maps.Keys(times)) {
		n := busiestSecond(times[name])
		busiest = max(busiest, n)
		if seen.limit > 0 && n > allowed {
			p.add("%s got %d calls within one second, the limit is %s", printable(name), n, perSecond(seen.limit))
		}
	}
	limit := "no limit set"
	if seen.limit > 0 {
		limit = "limit " + perSecond(seen.limit) + " per integration"
		if len(p.list) == 0 && float64(busiest) > seen.limit {
			limit += ", as far as the partner's clock can tell"
		}
	}
	return p.check("the partner was never called too fast", fmt.Sprintf("%s calls in the busiest second, %s", thousands(busiest), limit))
}

func perSecond(limit float64) string {
	if limit == math.Trunc(limit) {
		return thousands(int(limit))
	}
	return fmt.Sprint(limit)
}

// busiestSecond is the most of the times, which are in order, within any one
// second.
func busiestSecond(times []time.Time) int {
	most, from := 0, 0
	for to := range times {
		for times[to].Sub(times[from]) >= time.Second {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

func total[K comparable](counts map[K]int) int {
	n := 0
	for _, count := range counts {
		n += count
	}
	return n
}

// thousands writes 20000 as 20,000.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
