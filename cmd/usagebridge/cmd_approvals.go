package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) approvalsCommand() *cobra.Command {
	return group("approvals", "Figures that are not sent before a person has approved them",
		c.approvalsList(), c.approvalsShow(),
		c.approvalsDecide(released, "Send what waits"),
		c.approvalsDecide(refused, "Take back what waits; the figures before it count again"))
}

// approval is what waits for a person's word under one id.
type approval struct {
	vendor   string
	id       uint64
	wait     ledger.Wait
	entries  []ledger.Entry   // whose desired figure waits under the id
	scope    ledger.Key       // of the snapshot
	snapshot *ledger.Snapshot // that did not name the keys; nil when the ledger has forgotten it
}

func (p *approval) integration() string { return p.vendor + "/" + p.entries[0].Key.Organization }

// since is when the first of the keys began to wait.
func (p *approval) since() time.Time {
	if p.snapshot != nil {
		return moment(p.snapshot.Done)
	}
	first := p.entries[0].Since
	for i := range p.entries {
		first = min(first, p.entries[i].Since)
	}
	return moment(first)
}

// what says in one line what is to be approved.
func (p *approval) what() string {
	if e := &p.entries[0]; p.wait == ledger.Jumped {
		text := fmt.Sprintf("%s/%s: %s → %s (jumped)", cut(e.Key.Account, 30), cut(e.Key.Service, 30),
			or(former(e), "nothing"), valueText(ledger.Count, e.Seen[0].Value))
		if more := len(jumped(e)) - 1; more > 0 {
			text += ", and " + plural(more, "older figure", "older figures")
		}
		return text
	}
	if p.snapshot == nil {
		return fmt.Sprintf("a snapshot: %s to 0", plural(len(p.entries), "key", "keys"))
	}
	name := cut(p.snapshot.Name, 40)
	if p.scope.Account != "" {
		name += " of account " + cut(p.scope.Account, 30)
	}
	return fmt.Sprintf("snapshot %s: %d of %s to 0", name, p.snapshot.Zeros, plural(p.snapshot.Keys, "key", "keys"))
}

// former is the newest figure of the entry that needs no approval; empty when
// there is none.
func former(e *ledger.Entry) string {
	for _, s := range e.Seen {
		if s.Waits == ledger.NoWait {
			return valueText(e.Key.Kind, s.Value)
		}
	}
	return ""
}

// jumped lists the figures of the entry that have jumped, the newest first.
func jumped(e *ledger.Entry) (list []ledger.Seen) {
	for _, s := range e.Seen {
		if s.Waits == ledger.Jumped {
			list = append(list, s)
		}
	}
	return list
}

// ids are the approval ids that a word on p decides: its own, and of a key
// whose figure has jumped those of its older ones that have jumped, too. What
// is newest has been looked at; the others must not come up one by one.
func (p *approval) ids() []uint64 {
	if p.wait != ledger.Jumped {
		return []uint64{p.id}
	}
	e := &p.entries[0]
	var ids []uint64
	for _, s := range jumped(e) {
		ids = append(ids, ledger.ApprovalID(e.Key, s))
	}
	return ids
}

// approvals reads what waits, by integration, the oldest first.
func (a *app) approvals(ctx context.Context, o syncChoice) ([]*approval, error) {
	type place struct {
		vendor, organization string
		id                   uint64
	}
	type snapshot struct {
		scope ledger.Key
		is    ledger.Snapshot
	}
	found, snapshots := map[place]*approval{}, map[place]snapshot{}
	err := a.scan(ctx, o, func(v broker.Vendor, e *ledger.Entry) error {
		at := place{vendor: v.Name, organization: e.Key.Organization}
		for _, s := range e.Snapshots {
			at.id = s.Event
			snapshots[at] = snapshot{e.Key, s}
		}
		desired, ok := e.Desired()
		if !ok || desired.Waits == ledger.NoWait {
			return nil
		}
		at.id = ledger.ApprovalID(e.Key, desired)
		p := found[at]
		if p == nil {
			p = &approval{vendor: v.Name, id: at.id, wait: desired.Waits}
			found[at] = p
		}
		p.entries = append(p.entries, *e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := make([]*approval, 0, len(found))
	for at, p := range found {
		if s, ok := snapshots[at]; ok && p.wait == ledger.Vanished {
			p.scope, p.snapshot = s.scope, &s.is
		}
		slices.SortFunc(p.entries, func(a, b ledger.Entry) int { return strings.Compare(a.Key.String(), b.Key.String()) })
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *approval) int {
		return cmp.Or(strings.Compare(a.integration(), b.integration()), a.since().Compare(b.since()), cmp.Compare(a.id, b.id))
	})
	return list, nil
}

// scan yields every entry that the choice names. A vendor or an integration
// that nobody knows is a wrong argument.
func (a *app) scan(ctx context.Context, o syncChoice, yield func(broker.Vendor, *ledger.Entry) error) error {
	if o.vendor != "" {
		if _, err := a.knownVendor(ctx, o.vendor); err != nil {
			return err
		}
	}
	vendors, err := a.vendorsOf(ctx, o.vendor)
	if err != nil {
		return err
	}
	entries := 0
	for _, v := range vendors {
		err := a.eachEntry(ctx, v, o.organization, func(e *ledger.Entry) error {
			entries++
			return yield(v, e)
		})
		if err != nil {
			return err
		}
	}
	if o.organization == "" || entries > 0 {
		return nil
	}
	if _, err = a.integration(ctx, o.vendor, o.organization); errors.Is(err, broker.ErrNotFound) {
		return usageError{err}
	}
	return err
}

// approvalView is what waits, as programs see it.
type approvalView struct {
	ID          string        `json:"id"`
	Integration string        `json:"integration"`
	Kind        string        `json:"kind"` // vanished (a snapshot did not name the keys) or jumped
	What        string        `json:"what"`
	Since       time.Time     `json:"since"`
	Keys        int           `json:"keys"`
	Snapshot    string        `json:"snapshot,omitempty"` // its name
	Waiting     []waitingView `json:"waiting,omitempty"`  // with show, up to the limit
	Decision    *decision     `json:"decision,omitempty"` // with show: somebody has said it, and workers may not have done it yet
}

// waitingView is one key that waits.
type waitingView struct {
	Key       string            `json:"key"`
	State     ledger.State      `json:"state"`
	Reason    ledger.HoldReason `json:"reason"`
	Approval  string            `json:"approval"`         // the id under which it waits
	Before    string            `json:"before,omitempty"` // the figure that counts if this one is refused
	Waits     string            `json:"waits"`
	Time      time.Time         `json:"time"`            // when it was true
	Older     []string          `json:"older,omitempty"` // figures that wait below it
	Delivered string            `json:"delivered,omitempty"`
	Since     time.Time         `json:"since"`
}

func (p *approval) view() approvalView {
	v := approvalView{
		ID: approvalName(p.id), Integration: p.integration(), Kind: "vanished", What: p.what(), Since: p.since(), Keys: len(p.entries),
	}
	if p.wait == ledger.Jumped {
		v.Kind = "jumped"
	}
	if p.snapshot != nil {
		v.Snapshot = p.snapshot.Name
	}
	return v
}

func viewWaiting(e *ledger.Entry) waitingView {
	key := viewKey(e, "", true)
	v := waitingView{
		Key: key.Key, State: key.State, Reason: key.Reason, Approval: approvalName(ledger.ApprovalID(e.Key, e.Seen[0])),
		Before: former(e), Waits: key.Desired, Time: key.Time, Delivered: key.Delivered, Since: key.Since,
	}
	for _, s := range e.Seen[1:] {
		if s.Waits != ledger.NoWait {
			v.Older = append(v.Older, valueText(e.Key.Kind, s.Value))
		}
	}
	return v
}

func (c *cli) approvalsList() *cobra.Command {
	var o syncChoice
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what waits for a person's word",
		Long: `Lists what is not sent before a person has approved it: the zeros of a snapshot that
leaves out too many keys (USAGEBRIDGE_SNAPSHOT_ZERO_SHARE, _ZERO_KEYS), and counts
that differ too much from the one before (usagebridge vendors guard). Until then the
partner keeps what it has.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				list, err := a.approvals(ctx, o)
				if err != nil {
					return err
				}
				return c.showApprovals(list)
			})
		},
	}
	c.choiceFlags(cmd, &o)
	return cmd
}

// choiceFlags add the flags that name a vendor or an integration.
func (c *cli) choiceFlags(cmd *cobra.Command, o *syncChoice) {
	c.integrationFlag(cmd, &o.integration, "only this vendor/organization")
	cmd.Flags().StringVar(&o.vendor, "vendor", "", "only integrations of this vendor")
}

func (c *cli) showApprovals(list []*approval) error {
	views := make([]approvalView, len(list))
	for i, p := range list {
		views[i] = p.view()
	}
	if c.json {
		return c.printJSON(views)
	}
	if len(list) == 0 {
		c.say("nothing waits for approval")
		return nil
	}
	now, keys := time.Now(), 0
	rows := make([][]string, len(views))
	for i, v := range views {
		keys += v.Keys
		rows[i] = []string{v.ID, printable(v.Integration), printable(v.What), ago(v.Since, now), strconv.Itoa(v.Keys)}
	}
	if err := c.table([]string{"ID", "INTEGRATION", "WHAT", "SINCE", "KEYS"}, rows); err != nil {
		return err
	}
	c.say("%s: look with `usagebridge approvals show %s --integration %s`, then release or refuse",
		plural(keys, "key waits for approval", "keys wait for approval"), views[0].ID, shellWord(views[0].Integration))
	return nil
}

func (c *cli) approvalsShow() *cobra.Command {
	var o syncChoice
	var limit int
	cmd := &cobra.Command{
		Use:   "show ID --integration VENDOR/ORGANIZATION",
		Short: "Show the keys that wait under an id: the figure before, the one that waits, what the partner has",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := o.parseIDs(args)
			if err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit %d: want how many keys to list, or 0 for all", limit)
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				d, err := a.desk(ctx, o)
				if err != nil {
					return err
				}
				if err := d.check(ids); err != nil {
					return err
				}
				return c.showApproval(d, ids[0], limit)
			})
		},
	}
	c.integrationFlag(cmd, &o.integration, "the vendor/organization")
	cmd.Flags().IntVar(&limit, "limit", 50, "list at most so many keys; 0: all")
	return cmd
}

// parseIDs reads the integration and approval ids of it.
func (o *syncChoice) parseIDs(args []string) ([]uint64, error) {
	var errs []error
	if o.integration == "" {
		errs = append(errs, errors.New("--integration is missing: want vendor/organization, such as acme/msp-0042"))
	} else if err := o.parse(); err != nil {
		errs = append(errs, err)
	}
	var ids []uint64
	for _, text := range args {
		id, err := strconv.ParseUint(text, 16, 64)
		if err != nil || len(text) != len(approvalName(0)) {
			errs = append(errs, fmt.Errorf("approval id %q: want 16 hex digits, as `usagebridge approvals ls` shows them", cut(text, 40)))
			continue
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	return ids, nil
}

func (c *cli) showApproval(d *desk, id uint64, limit int) error {
	p := d.waiting[id]
	word, decided := d.words[id]
	if p == nil {
		c.say("%s", d.decided(id))
		if c.json {
			return c.printJSON(map[string]any{"id": approvalName(id), "integration": d.vendor.Name + "/" + d.organization, "decision": word})
		}
		return nil
	}
	v := p.view()
	if decided {
		v.Decision = &word
	}
	for i := range p.entries {
		if limit == 0 || i < limit {
			v.Waiting = append(v.Waiting, viewWaiting(&p.entries[i]))
		}
	}
	if c.json {
		return c.printJSON(v)
	}
	if _, err := fmt.Fprintf(c.stdout, "%s, waits since %s\n\n", printable(v.What), instant(v.Since)); err != nil {
		return err
	}
	rows := make([][]string, len(v.Waiting))
	for i, w := range v.Waiting {
		rows[i] = []string{
			printable(w.Key), or(w.Before, "-"), w.Waits, or(strings.Join(w.Older, ", "), "-"), or(w.Delivered, "-"), w.Time.UTC().Format(time.RFC3339),
		}
	}
	if err := c.table([]string{"KEY", "BEFORE", "WAITS", "OLDER THAT WAIT", "PARTNER HAS", "TRUE AT"}, rows); err != nil {
		return err
	}
	if decided {
		c.say("%s; no worker has carried that out yet", word.line())
		return nil
	}
	c.say("%s, %d listed: `usagebridge approvals release` sends what waits, `refuse` goes back to what was before",
		plural(v.Keys, "key", "keys"), len(rows))
	return nil
}

// desk is what an integration has for a person to decide, and what has been decided.
type desk struct {
	app          *app
	vendor       broker.Vendor
	organization string
	record       *status.Integration // nil: nobody has added it
	waiting      map[uint64]*approval
	order        []*approval
	words        map[uint64]decision
	bucket       *broker.Bucket[decision]
}

// desk reads what waits before the decisions: what is decided meanwhile shows
// in both.
func (a *app) desk(ctx context.Context, o syncChoice) (*desk, error) {
	v, err := a.knownVendor(ctx, o.vendor)
	if err != nil {
		return nil, err
	}
	d := &desk{app: a, vendor: v, organization: o.organization, waiting: map[uint64]*approval{}, words: map[uint64]decision{}}
	if d.order, err = a.approvals(ctx, o); err != nil {
		return nil, err
	}
	for _, p := range d.order {
		d.waiting[p.id] = p
	}
	if d.record, err = a.integration(ctx, o.vendor, o.organization); err != nil && !errors.Is(err, broker.ErrNotFound) {
		return nil, err
	}
	if d.bucket, err = broker.OpenBucket[decision](ctx, a.broker, broker.BucketDecisions); err != nil {
		return nil, err
	}
	all, err := d.bucket.All(ctx)
	if err != nil {
		return nil, err
	}
	prefix := event.Escape(o.vendor) + "." + event.Escape(o.organization) + "."
	for key, word := range all {
		name, ours := strings.CutPrefix(key, prefix)
		if id, err := strconv.ParseUint(name, 16, 64); ours && err == nil {
			d.words[id] = word
		}
	}
	return d, nil
}

// check refuses ids under which nothing waits and nothing was decided.
func (d *desk) check(ids []uint64) error {
	var errs []error
	for _, id := range ids {
		if _, decided := d.words[id]; !decided && d.waiting[id] == nil {
			name := d.vendor.Name + "/" + d.organization
			errs = append(errs, fmt.Errorf("nothing waits under %s in %s: `usagebridge approvals ls --integration %s` lists what does",
				approvalName(id), name, name))
		}
	}
	if errs == nil {
		return nil
	}
	return usageError{errors.Join(errs...)}
}

// decided says how an id was decided.
func (d *desk) decided(id uint64) string {
	word := d.words[id]
	return approvalName(id) + " " + word.line()
}

// line says who has decided what, and why.
func (d *decision) line() string {
	return fmt.Sprintf("was %s already, %s by %s: %s", d.Verdict, d.At.UTC().Format(time.RFC3339), printable(d.By), printable(d.Why))
}
