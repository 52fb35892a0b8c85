package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/catalog"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

func (c *cli) syncDrift() *cobra.Command {
	var o syncChoice
	cmd := &cobra.Command{
		Use:   "drift --integration VENDOR/ORGANIZATION",
		Short: "Compare what the partner has with what the ledger takes it to have",
		Long: `Asks a partner that can be read (Gradient) for its status and its accounts, and
compares them with the ledger: accounts that we posted and that are not there,
accounts that no event has named, names, and whether they are mapped. Counts cannot
be read from any partner, and nothing can be read from MSPCentric: then it says what
is not delivered yet and why, and how old the oldest delivery is.

Nothing is changed, here or there. What a worker has still to deliver is no drift.

Ends with 0 if nothing differs or nothing can be read, with 1 if something differs
or the partner did not answer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.integration == "" {
				return usagef("--integration is missing: want vendor/organization, such as acme/msp-0042")
			}
			if err := o.parse(); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				d, err := a.drift(ctx, o)
				if err != nil {
					return err
				}
				if err := c.showDrift(&d.view); err != nil {
					return err
				}
				if err := c.warnOfBacklog(ctx, a, o); err != nil {
					return err
				}
				if n := len(d.view.Drift); n > 0 {
					return fmt.Errorf("integration %s: %s", o.integration, plural(n, "difference", "differences"))
				}
				return nil
			})
		},
	}
	c.integrationFlag(cmd, &o.integration, "the vendor/organization")
	return cmd
}

// The kinds of a difference.
const (
	driftStatus    = "status"
	driftMissing   = "missing"    // posted, and not there
	driftUnknown   = "unknown"    // there, and named by no event
	driftName      = "name"       // there under another name
	driftNotMapped = "not mapped" // there, though counts of it were accepted
	driftMapped    = "mapped"     // there, though counts of it are held as unmapped
)

// difference is one thing that the partner has otherwise than the ledger says.
type difference struct {
	Kind    string `json:"kind"`
	Account string `json:"account,omitempty"`
	Ours    string `json:"ours,omitempty"`
	Theirs  string `json:"theirs,omitempty"`
	Meaning string `json:"meaning"`
}

// driftView is how the partner and the ledger compare.
type driftView struct {
	Integration string       `json:"integration"`
	Dialect     string       `json:"dialect"`
	Readable    bool         `json:"readable"`
	Status      string       `json:"status"`                    // in our record
	Theirs      string       `json:"status_there,omitempty"`    // as the partner says
	Posted      int          `json:"accounts_posted"`           // by us, as far as the ledger knows
	There       int          `json:"accounts_there"`            // that the partner lists
	Unmapped    int          `json:"accounts_to_be_mapped"`     // of ours: both sides agree on that
	Drift       []difference `json:"drift"`                     // empty: nothing differs
	Sync        syncView     `json:"sync"`                      // what is not delivered yet
	Delivered   *keyView     `json:"oldest_delivery,omitempty"` // of the figures that the partner should have
	SentAgain   time.Time    `json:"last_sent_again,omitzero"`  // when a count was last sent though the partner had it
	Reassert    string       `json:"sent_again_after"`          // how old a delivery grows before that; 0s: never
}

// drift compares an integration with its partner.
type drift struct {
	view     driftView
	tally    tally
	accounts map[string]*accountHere
	oldest   *ledger.Entry // of the synced ones that which was delivered first
}

// accountHere is what the ledger has of one account.
type accountHere struct {
	entry              ledger.Entry // without figures if no catalog event has come
	accepted, unmapped int          // counts of it
}

func (a *app) drift(ctx context.Context, o syncChoice) (*drift, error) {
	v, err := a.knownVendor(ctx, o.vendor)
	if err != nil {
		return nil, err
	}
	t, err := a.connection(ctx, o.vendor, o.organization)
	if errors.Is(err, broker.ErrNotFound) {
		return nil, usageError{err}
	}
	if err != nil {
		return nil, err
	}
	defer t.transport.CloseIdleConnections()
	i := t.integration
	d := &drift{
		tally:    tally{generation: i.Generation, posted: map[ledger.Key]bool{}},
		accounts: map[string]*accountHere{},
		view: driftView{
			Integration: o.integration, Dialect: i.Dialect, Readable: t.client.Can(vendorapi.Reading), Status: string(i.Status),
			Drift: []difference{}, Reassert: a.config.ReassertAfter.String(),
		},
	}
	// The ledger is read first: what is delivered meanwhile is there, and no difference.
	err = a.eachEntry(ctx, v, o.organization, func(e *ledger.Entry) error {
		d.add(e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if d.view.Readable {
		there, err := d.ask(ctx, t)
		if err == nil {
			err = d.compare(there)
		}
		if err != nil {
			return nil, err
		}
	}
	d.view.Sync = d.tally.view(o.integration, i, 0)
	if d.oldest != nil {
		oldest := viewKey(d.oldest, "", true)
		d.view.Delivered = &oldest
	}
	d.view.SentAgain, err = a.sentAgain(ctx, o)
	return d, err
}

// ask reads the partner's status and accounts.
func (d *drift) ask(ctx context.Context, t *connection) ([]vendorapi.ListedAccount, error) {
	r := t.call(ctx)
	if r.failure != nil {
		return nil, fmt.Errorf("ask the partner of %s for its status (see `usagebridge integrations test %s`): %w", d.view.Integration, d.view.Integration, r.failure)
	}
	theirs, agree := t.theirs(&r)
	if d.view.Theirs = theirs; !agree {
		d.differ(driftStatus, "", d.view.Status, theirs, "a worker takes the partner's word over with its next call or probe")
	}
	there, _, err := t.client.ListAccounts(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("ask the partner of %s for its accounts: %w", d.view.Integration, err)
	}
	return there, nil
}

func (d *drift) differ(kind, account, ours, theirs, meaning string) {
	d.view.Drift = append(d.view.Drift, difference{Kind: kind, Account: account, Ours: ours, Theirs: theirs, Meaning: meaning})
}

// account is what the ledger has of the account.
func (d *drift) account(id string) *accountHere {
	if d.accounts[id] == nil {
		d.accounts[id] = &accountHere{}
	}
	return d.accounts[id]
}

func (d *drift) add(e *ledger.Entry) {
	d.tally.add(*e)
	if !e.Key.Kind.Figure() {
		return
	}
	if e.State == ledger.Synced && (d.oldest == nil || e.Delivered.At < d.oldest.Delivered.At) {
		d.oldest = e
	}
	switch {
	case e.Key.Kind == ledger.Account:
		d.account(e.Key.Account).entry = *e
		if e.PostedIn(d.tally.generation) {
			d.view.Posted++
		}
	case e.Key.Kind != ledger.Count:
	case e.State == ledger.Held && e.Reason == ledger.Unmapped:
		d.account(e.Key.Account).unmapped++
	case e.State == ledger.Synced:
		d.account(e.Key.Account).accepted++
	}
}

// compare finds what differs of the accounts, by their ids.
func (d *drift) compare(there []vendorapi.ListedAccount) error {
	d.view.There = len(there)
	listed := map[string]*vendorapi.ListedAccount{}
	for n := range there {
		listed[there[n].ID] = &there[n]
	}
	for _, id := range slices.Sorted(maps.Keys(d.accounts)) {
		here := d.accounts[id]
		posted := here.entry.PostedIn(d.tally.generation)
		theirs := listed[id]
		delete(listed, id)
		if theirs == nil {
			if posted {
				d.differ(driftMissing, id, "posted "+moment(here.entry.Delivered.At).Format(time.RFC3339), "",
					"if no worker posts it again, `usagebridge integrations resync` does")
			}
			continue
		}
		if err := d.compareAccount(id, here, theirs, posted); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(listed)) {
		d.differ(driftUnknown, id, "", listed[id].Name, "no event has named this account: is its id right?")
	}
	slices.SortStableFunc(d.view.Drift, func(a, b difference) int { return strings.Compare(a.Account, b.Account) }) // that of the status is first
	return nil
}

// compareAccount compares an account that both sides have.
func (d *drift) compareAccount(id string, here *accountHere, theirs *vendorapi.ListedAccount, posted bool) error {
	if posted && here.entry.State == ledger.Synced {
		properties, err := catalog.ParseProperties(here.entry.Delivered.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", here.entry.Key, err)
		}
		if theirs.Name != "" && theirs.Name != properties.Name {
			d.differ(driftName, id, properties.Name, theirs.Name, "whoever looks for it there finds the other name")
		}
	}
	switch {
	case here.accepted > 0 && !theirs.Mapped:
		d.differ(driftNotMapped, id, plural(here.accepted, "count accepted", "counts accepted"), "not mapped",
			"counts of it are refused until somebody maps it again")
	case here.unmapped > 0 && here.accepted == 0 && theirs.Mapped:
		d.differ(driftMapped, id, plural(here.unmapped, "count held as unmapped", "counts held as unmapped"), "mapped",
			"it is the service that is not mapped, or the next probe delivers them")
	case !theirs.Mapped:
		d.view.Unmapped++
	}
	return nil
}

// sentAgain is when a count was last sent that the partner had taken before.
func (a *app) sentAgain(ctx context.Context, o syncChoice) (last time.Time, err error) {
	type figure struct {
		time       int64
		arrival    uint64
		generation int
	}
	taken := map[ledger.Key]figure{}
	filter := broker.CallFilter{Operation: ledger.Count.String()}
	err = a.broker.Calls(ctx, o.vendor, o.organization, filter, func(call ledger.Call) error {
		if call.Verdict != string(delivery.Delivered) {
			return nil
		}
		key, is := ledger.CountKey(call.Organization, call.Account, call.Service), figure{call.Time, call.Arrival, call.Generation}
		if was, known := taken[key]; known && was == is && call.At.After(last) {
			last = call.At
		}
		taken[key] = is
		return nil
	})
	return last, err
}

func (c *cli) showDrift(v *driftView) error {
	if c.json {
		return c.printJSON(v)
	}
	now := time.Now()
	if err := c.table(nil, v.rows(now)); err != nil {
		return err
	}
	switch {
	case !v.Readable:
		c.say("the partner cannot be asked what it has: this is what the ledger says")
	case len(v.Drift) == 0:
		c.say("no drift: accounts and status are there as they are here; counts cannot be read")
	default:
		_, _ = fmt.Fprintln(c.stdout)
		rows := make([][]string, len(v.Drift))
		for n, d := range v.Drift {
			rows[n] = []string{
				d.Kind, or(printable(cut(d.Account, 30)), "-"), or(printable(cut(d.Ours, 40)), "-"), or(printable(cut(d.Theirs, 40)), "-"), d.Meaning,
			}
		}
		return c.table([]string{"DRIFT", "ACCOUNT", "HERE", "THERE", "WHAT IT MEANS"}, rows)
	}
	return nil
}

// rows is the comparison for people, without what differs.
func (v *driftView) rows(now time.Time) [][]string {
	rows := [][]string{{"integration", fmt.Sprintf("%s, dialect %s", printable(v.Integration), v.Dialect)}}
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if v.Readable {
		add("status", "%s here, %s there", v.Status, or(printable(v.Theirs), "not told"))
		add("accounts", "%d posted, %d there, %d of ours not mapped there yet", v.Posted, v.There, v.Unmapped)
	} else {
		add("status", "%s here", v.Status)
	}
	open := v.Sync.Keys - v.Sync.States[ledger.Synced]
	if oldest := v.Sync.Oldest; oldest == nil {
		add("not delivered", "0 of %s", plural(v.Sync.Keys, "key", "keys"))
	} else {
		states := maps.Clone(v.Sync.States)
		delete(states, ledger.Synced)
		add("not delivered", "%d of %s: %s", open, plural(v.Sync.Keys, "key", "keys"), countReasons(states))
		if len(v.Sync.Held) > 0 {
			add("held", "%s", countReasons(v.Sync.Held))
		}
		add("oldest", "%s, %s: %s", printable(oldest.Key), ago(oldest.Since, now), oldest.why())
	}
	if k := v.Delivered; k != nil {
		add("oldest delivery", "%s = %s, %s", printable(k.Key), printable(cut(k.Delivered, 40)), ago(k.At, now))
	}
	again := "no count in the sync log was sent again"
	if !v.SentAgain.IsZero() {
		again = ago(v.SentAgain, now)
	}
	if v.Reassert == "0s" {
		again += "; counts are never sent again by themselves (USAGEBRIDGE_REASSERT_AFTER)"
	} else {
		again += "; counts are sent again " + v.Reassert + " after their delivery"
	}
	add("sent again", "%s", again)
	return rows
}
