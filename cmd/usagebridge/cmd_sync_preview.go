package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) syncPreview() *cobra.Command {
	var o syncChoice
	var limit int
	cmd := &cobra.Command{
		Use:   "preview --integration VENDOR/ORGANIZATION",
		Short: "Show what would be sent next, in order; nothing is sent",
		Long: `Reads the stored ledger and the record of an integration, and lists the calls that
a worker would make next: accounts, services, the call that opens the mapping,
counts. Each has the value that would go and the value that the partner has now.

What is held is counted, not listed, except what waits for approval: a person
decides on that (usagebridge approvals). Of other holds one figure is sent now and
then all the same, to find out whether the hold is over (USAGEBRIDGE_PROBE_MIN).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.integration == "" {
				return usagef("--integration is missing: want vendor/organization, such as acme/msp-0042")
			}
			if limit < 0 {
				return usagef("--limit %d: want how many calls to list, or 0 for all", limit)
			}
			if err := o.parse(); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				v, err := a.preview(ctx, o)
				if err != nil {
					return err
				}
				if limit > 0 && len(v.Calls) > limit {
					v.Calls = v.Calls[:limit]
				}
				if limit > 0 && len(v.Approvals) > limit {
					v.Approvals = v.Approvals[:limit]
				}
				if err := c.showPreview(v); err != nil {
					return err
				}
				return c.warnOfBacklog(ctx, a, o)
			})
		},
	}
	c.integrationFlag(cmd, &o.integration, "the vendor/organization")
	cmd.Flags().IntVar(&limit, "limit", 20, "list at most so many calls; 0: all")
	return cmd
}

// plannedCall is a call that a worker would make.
type plannedCall struct {
	Operation string    `json:"operation"`           // account, service, mapping or count
	Key       string    `json:"key,omitempty"`       // empty for the mapping
	Value     string    `json:"value,omitempty"`     // that would go
	Delivered string    `json:"delivered,omitempty"` // that the partner has now
	Attempt   int       `json:"attempt,omitempty"`   // 1-based; of the mapping only the worker knows it
	NotBefore time.Time `json:"not_before,omitzero"` // zero: at once
	Since     time.Time `json:"since,omitzero"`      // when the partner last had what was desired
	After     []string  `json:"after,omitempty"`     // what must be accepted first
}

// previewView is what would be sent to one integration.
type previewView struct {
	Integration string                    `json:"integration"`
	Status      status.Status             `json:"status"` // empty: nobody has added the integration
	Gates       string                    `json:"gates"`
	Keys        int                       `json:"keys"`
	Due         map[string]int            `json:"due"`                 // calls by operation, in all
	Calls       []plannedCall             `json:"calls"`               // up to the limit, in order
	Approvals   []waitingView             `json:"approvals,omitempty"` // held for approval, up to the limit
	Held        map[ledger.HoldReason]int `json:"held"`
	Failed      int                       `json:"failed"`
	Synced      int                       `json:"synced"`
}

func (a *app) preview(ctx context.Context, o syncChoice) (previewView, error) {
	vendors, err := a.vendorsOf(ctx, o.vendor)
	if err != nil {
		return previewView{}, err
	}
	list, err := a.listIntegrations(ctx)
	if err != nil {
		return previewView{}, err
	}
	tallies, err := a.tallies(ctx, vendors[0], o.organization, list)
	if err != nil {
		return previewView{}, err
	}
	var record *status.Integration
	if n := slices.IndexFunc(list, func(i status.Integration) bool { return i.Name() == o.integration }); n >= 0 {
		record = &list[n]
	}
	t := tallies[o.organization]
	if t == nil && record == nil {
		return previewView{}, fmt.Errorf("integration %s is unknown: it has not been added, and no figure of it has come", o.integration)
	}
	if t == nil {
		t = &tally{}
	}
	return t.preview(o.integration, record), nil
}

// preview plans the calls for the entries of one organization.
func (t *tally) preview(name string, i *status.Integration) previewView {
	p := preview{tally: t, integration: i, due: map[ledger.Key]bool{}, view: previewView{
		Integration: name, Gates: gates(i), Keys: t.keys, Due: map[string]int{}, Calls: []plannedCall{},
		Held: map[ledger.HoldReason]int{}, Synced: t.synced,
	}}
	if i != nil {
		p.view.Status = i.Status
	}
	slices.SortFunc(t.open, func(a, b ledger.Entry) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Since, b.Since), strings.Compare(a.Key.String(), b.Key.String()))
	})
	counts := len(t.open)
	for n := range t.open {
		if t.open[n].Key.Kind == ledger.Count {
			counts = n
			break
		}
		p.plan(&t.open[n])
	}
	p.planMapping()
	for n := range t.open[counts:] {
		p.plan(&t.open[counts+n])
	}
	slices.SortFunc(p.view.Approvals, func(a, b waitingView) int { return strings.Compare(a.Key, b.Key) })
	return p.view
}

// preview goes through entries in the order in which they would be sent.
type preview struct {
	tally       *tally
	integration *status.Integration // nil: nobody has added it
	due         map[ledger.Key]bool // accounts and services planned so far
	untried     bool                // of one of them no call has failed yet
	view        previewView
}

// plan adds the call that an entry is due, or says why there is none.
func (p *preview) plan(e *ledger.Entry) {
	key := viewKey(e, gateOf(p.integration), true)
	waiting := key.State == ledger.Dirty || key.State == ledger.Retrying
	if waiting && p.integration == nil {
		key.State, key.Reason = ledger.Held, ledger.IntegrationNotReady // there is no address to send it to
	}
	var after []string
	if waiting && e.Key.Kind == ledger.Count {
		for _, needed := range []ledger.Key{e.Key.AccountKey(), e.Key.ServiceKey()} {
			switch {
			case p.tally.posted[needed]:
			case p.due[needed]:
				after = append(after, needed.Kind.String()+" "+needed.Account+needed.Service)
			default:
				key.State, key.Reason = ledger.Held, ledger.AwaitingCatalog
			}
		}
	}
	switch key.State {
	case ledger.Held:
		p.view.Held[key.Reason]++
		if key.Reason == ledger.Approval {
			p.view.Approvals = append(p.view.Approvals, viewWaiting(e))
		}
		return
	case ledger.Failed:
		p.view.Failed++
		return
	case ledger.Synced:
		p.view.Synced++
		return
	case ledger.Dirty, ledger.Sending, ledger.Retrying:
	}
	if e.Key.Kind != ledger.Count {
		p.due[e.Key] = true
		p.untried = p.untried || e.Attempts == 0
	}
	p.add(plannedCall{
		Operation: e.Key.Kind.String(), Key: key.Key, Value: key.Desired, Delivered: key.Delivered,
		Attempt: e.Attempts + 1, NotBefore: key.Next, Since: key.Since, After: after,
	})
}

// planMapping adds the call that opens the mapping: once there are an account
// and a service, and every one has been tried.
func (p *preview) planMapping() {
	i := p.integration
	if i == nil || !i.Setup() || i.Paused || i.Hold != "" {
		return
	}
	if !p.has(ledger.Account) || !p.has(ledger.Service) {
		return
	}
	call := plannedCall{Operation: delivery.OperationMapping}
	if p.untried {
		call.After = []string{"the accounts and services above"}
	}
	p.add(call)
}

// has says whether the partner has something of the kind, or will have.
func (p *preview) has(kind ledger.Kind) bool {
	for key := range p.due {
		if key.Kind == kind {
			return true
		}
	}
	for key := range p.tally.posted {
		if key.Kind == kind {
			return true
		}
	}
	return false
}

func (p *preview) add(call plannedCall) {
	p.view.Due[call.Operation]++
	p.view.Calls = append(p.view.Calls, call)
}

func (c *cli) showPreview(v previewView) error {
	if c.json {
		return c.printJSON(v)
	}
	if _, err := fmt.Fprintf(c.stdout, "%s is %s, gates: %s\n", printable(v.Integration), or(string(v.Status), "not added"), v.Gates); err != nil {
		return err
	}
	if len(v.Calls) > 0 {
		_, _ = fmt.Fprintln(c.stdout)
		now := time.Now()
		rows := make([][]string, len(v.Calls))
		for n, call := range v.Calls {
			rows[n] = call.row(n+1, now)
		}
		if err := c.table([]string{"#", "OPERATION", "KEY", "VALUE", "HAS NOW", "ATTEMPT", "DUE", "AFTER"}, rows); err != nil {
			return err
		}
	}
	if err := c.previewApprovals(v.Approvals); err != nil {
		return err
	}
	due := 0
	for _, n := range v.Due {
		due += n
	}
	if due == 0 {
		c.say("nothing would be sent now")
	} else {
		c.say("%s would be made, %d listed: %s", plural(due, "call", "calls"), len(v.Calls), countReasons(v.Due))
	}
	if len(v.Held) > 0 {
		c.say("held: %s", countReasons(v.Held))
	}
	if n := v.Held[ledger.Approval]; n > 0 {
		c.say("%s for approval, %d listed: see `usagebridge approvals ls --integration %s`",
			plural(n, "figure waits", "figures wait"), len(v.Approvals), shellWord(v.Integration))
	}
	c.say("%s: synced %d, failed %d", plural(v.Keys, "key", "keys"), v.Synced, v.Failed)
	return nil
}

// previewApprovals lists what would be sent if a person approved it.
func (c *cli) previewApprovals(list []waitingView) error {
	if len(list) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(c.stdout)
	rows := make([][]string, len(list))
	for n, w := range list {
		rows[n] = []string{
			string(w.State) + ", " + string(w.Reason), printable(w.Key),
			or(printable(cut(w.Delivered, 40)), "-") + " → " + printable(cut(w.Waits, 40)), w.Approval,
		}
	}
	return c.table([]string{"STATE", "KEY", "HAS NOW → WAITS", "APPROVAL"}, rows)
}

func (p *plannedCall) row(n int, now time.Time) []string {
	attempt, due := "-", "now"
	if p.Attempt > 0 {
		attempt = strconv.Itoa(p.Attempt)
	}
	if wait := p.NotBefore.Sub(now); !p.NotBefore.IsZero() && wait > 0 {
		due = "in " + wait.Round(time.Second).String()
	}
	return []string{
		strconv.Itoa(n), p.Operation, printable(or(p.Key, "-")), or(printable(cut(p.Value, 40)), "-"), or(printable(cut(p.Delivered, 40)), "-"),
		attempt, due, or(printable(strings.Join(p.After, ", ")), "-"),
	}
}
