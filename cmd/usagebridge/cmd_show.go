package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) integrationsShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show VENDOR/ORGANIZATION",
		Short: "Show one integration: status, gates, figures, and what a person must do now",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withIntegration(cmd.Context(), args[0], func(ctx context.Context, a *app, vendor, organization string) error {
				p, err := a.picture(ctx, vendor, organization)
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(p)
				}
				return c.table(nil, p.rows(time.Now()))
			})
		},
	}
}

// picture is everything that is known of one integration.
type picture struct {
	integrationView

	PartnerID       string     `json:"integration_id,omitempty"` // the partner's own
	Generation      int        `json:"generation"`
	GenerationSince *time.Time `json:"generation_since,omitempty"`
	PausedWhy       string     `json:"paused_why,omitempty"`

	Keys       int                       `json:"keys"`
	States     map[ledger.State]int      `json:"states"`
	Held       map[ledger.HoldReason]int `json:"held"`
	Oldest     *keyView                  `json:"oldest,omitempty"`         // not delivered
	LastSynced *keyView                  `json:"last_accepted,omitempty"`  // by the partner
	LastError  *keyView                  `json:"last_error,omitempty"`     // of a key that is not delivered
	Lane       *laneView                 `json:"worker,omitempty"`         // nil: no worker has the integration
	Stopped    *stop                     `json:"vendor_stopped,omitempty"` // its events are not folded
	WhatNow    []string                  `json:"what_now"`

	integration *status.Integration
}

// picture reads the record, the ledger, and asks the worker.
func (a *app) picture(ctx context.Context, vendor, organization string) (*picture, error) {
	i, err := a.integration(ctx, vendor, organization)
	if err != nil {
		return nil, err
	}
	v, err := a.broker.Vendor(ctx, vendor)
	if err != nil {
		return nil, err
	}
	tallies, err := a.tallies(ctx, v, organization, []status.Integration{*i})
	if err != nil {
		return nil, err
	}
	t := tallies[organization]
	if t == nil {
		t = &tally{}
	}
	lane, err := a.lane(ctx, vendor, organization)
	if err != nil {
		return nil, err
	}
	records, err := a.vendorRecords(ctx)
	if err != nil {
		return nil, err
	}
	return draw(i, t, lane, records[vendor].Stopped), nil
}

func draw(i *status.Integration, t *tally, lane *laneView, stopped *stop) *picture {
	sync := t.view(i.Name(), i, 0)
	p := &picture{
		integrationView: view(i), integration: i,
		PartnerID: i.IntegrationID, Generation: i.Generation, PausedWhy: i.PausedWhy,
		Keys: sync.Keys, States: sync.States, Held: sync.Held, Oldest: sync.Oldest, Lane: lane, Stopped: stopped,
	}
	if i.Generation > 0 {
		p.GenerationSince = &i.GenerationSince
	}
	if t.accepted != nil {
		accepted := viewKey(t.accepted, "", true)
		p.LastSynced = &accepted
	}
	if t.refused != nil {
		refused := viewKey(t.refused, "", true)
		refused.At = moment(t.refused.Answer.At)
		p.LastError = &refused
	}
	p.WhatNow = p.whatNow()
	return p
}

// rows is the picture for people.
func (p *picture) rows(now time.Time) [][]string {
	i := p.integration
	rows := [][]string{
		{"integration", printable(i.Name())},
		{"status", fmt.Sprintf("%s, %s (%s)", i.Status, ago(i.Since, now), i.Cause)},
		{"gates", p.Gates},
		{"api", i.Dialect + " " + i.APIURL},
		{"added", ago(i.Created, now)},
		{"tokens", marksOf(i.Marks)},
	}
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if former := i.Previous; former != nil {
		add("former tokens", "%s, %s", marksOf(former.Marks), overlapState(former, now))
	}
	if p.PartnerID != "" {
		add("partner's id", "%s", printable(p.PartnerID))
	}
	if i.Hold != "" {
		add("partner said", "%s, %s", printable(i.HoldMessage), ago(i.HoldSince, now))
	}
	if i.Generation > 0 {
		add("sent again", "everything, %s for the last time; it is number %d", ago(i.GenerationSince, now), i.Generation)
	}
	add("keys", "%d: %s", p.Keys, or(countReasons(p.States), "none"))
	if len(p.Held) > 0 {
		add("held", "%s", countReasons(p.Held))
	}
	if p.Oldest != nil {
		add("oldest", "%s, %s: %s", printable(p.Oldest.Key), ago(p.Oldest.Since, now), p.Oldest.why())
	}
	if k := p.LastSynced; k != nil {
		add("last accepted", "%s = %s, %s", printable(k.Key), printable(cut(k.Delivered, 60)), ago(k.At, now))
	}
	if k := p.LastError; k != nil {
		add("last error", "%s, %s: %s", printable(k.Key), ago(k.At, now), printable(k.Answer))
	}
	add("worker", "%s", p.Lane.line(now))
	for n, what := range p.WhatNow {
		name := ""
		if n == 0 {
			name = "what now"
		}
		rows = append(rows, []string{name, what})
	}
	return rows
}

// overlapState says what former tokens are there for.
func overlapState(p *status.Previous, now time.Time) string {
	if !now.Before(p.Until) {
		return "to be dropped"
	}
	left := span(p.Until.Sub(now).Round(time.Minute))
	if p.Used.IsZero() {
		return "not in use, kept for another " + left
	}
	return "in use, " + ago(p.Used, now) + " for the first time, for another " + left
}

// line says what the worker is doing.
func (v *laneView) line(now time.Time) string {
	if v == nil {
		return "none has it now"
	}
	parts := []string{v.Worker}
	if v.Sending+v.Queued > 0 {
		parts = append(parts, fmt.Sprintf("%d under way, %d queued", v.Sending, v.Queued))
	}
	if v.Rate > 0 {
		parts = append(parts, fmt.Sprintf("at most %.3g calls/s now", v.Rate))
	}
	if v.Closed.After(now) {
		parts = append(parts, fmt.Sprintf("waits %s (%s)", v.Closed.Sub(now).Round(time.Second), v.Cause))
	}
	if v.NextProbe.After(now) {
		parts = append(parts, fmt.Sprintf("probes in %s", v.NextProbe.Sub(now).Round(time.Second)))
	}
	return printable(strings.Join(parts, ", "))
}

// whatNow is what a person has to do next, the most urgent first.
func (p *picture) whatNow() (list []string) {
	i := p.integration
	add := func(when bool, format string, args ...any) {
		if when {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	if by := p.Stopped; by != nil {
		add(true, "events of vendor %s are not folded (%s): nothing new shows here until `usagebridge vendors resume %s --why …`",
			i.Vendor, printable(by.Why), i.Vendor)
	}
	add(i.Paused, "paused (%s): nothing is sent until `usagebridge integrations resume %s`", or(printable(i.PausedWhy), "no reason given"), i.Name())
	add(i.Hold == string(ledger.Unauthorized), "the partner refuses the tokens: get new ones and give them with "+
		"`usagebridge integrations credentials set %s …`; nothing is sent until then and no figure is lost", i.Name())
	add(i.Previous != nil && !i.Previous.Used.IsZero(), "the partner refuses the new tokens and still takes the former ones: ask when it will know the new ones, or set others with "+
		"`usagebridge integrations credentials set %s …`", i.Name())
	add(i.Hold == string(ledger.Anomaly), "the partner refuses with the words above: check the API address, or ask the platform; it is probed now and then")
	if v := p.Lane; v != nil {
		add(v.Down || v.Cause == delivery.Unavailable, "the partner's server does not answer; it is tried with single calls until it does: tell the platform if it lasts")
		add(v.Cause == delivery.Throttled, "the partner answers that there are too many calls; nothing to do unless it lasts")
	}
	list = append(list, p.aboutStatus()...)
	add(p.Held[ledger.Unmapped] > 0, "someone at the MSP must map what `usagebridge integrations mapping %s` lists", i.Name())
	add(p.Held[ledger.AwaitingCatalog] > 0, "%s an account or a service that the partner does not have: publish it, if nobody has",
		plural(p.Held[ledger.AwaitingCatalog], "count waits for", "counts wait for"))
	add(p.Held[ledger.Approval] > 0, "%s for a person's word: see `usagebridge approvals ls --integration %s`",
		plural(p.Held[ledger.Approval], "figure waits", "figures wait"), i.Name())
	add(p.States[ledger.Failed] > 0, "%s for good: see `usagebridge dlq ls --vendor %s`; a newer figure starts afresh",
		plural(p.States[ledger.Failed], "figure was refused", "figures were refused"), i.Vendor)
	add(p.Lane == nil, "no worker looks after this integration: is one running?")
	if len(list) == 0 {
		list = append(list, "nothing")
	}
	return list
}

// aboutStatus is what the status asks of people.
func (p *picture) aboutStatus() []string {
	switch s := p.integration.Status; s {
	case status.Inactive:
		return []string{"publish at least one account and one service; the partner is then told that mapping can begin"}
	case status.Mapping:
		return []string{"someone at the MSP must map accounts and services in the platform's wizard; counts are kept meanwhile"}
	case status.Pending, status.Connected:
		return nil
	default:
		return []string{fmt.Sprintf("the partner calls its status %q, which is none that we know: ask the platform; it is probed now and then", s)}
	}
}
