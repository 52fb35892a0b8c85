package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
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

func (c *cli) syncCommand() *cobra.Command {
	return group("sync", "What the partner has, and what it does not have yet", c.syncStatus(), c.syncPreview(), c.syncLog(), c.syncDrift())
}

// syncChoice says of what the status is wanted.
type syncChoice struct {
	vendor, integration string
	organization        string // of integration
	keys                int
}

func (o *syncChoice) parse() error {
	if o.keys < 0 {
		return usagef("--keys %d: want how many keys to list of each integration", o.keys)
	}
	if o.integration == "" {
		return nil
	}
	vendor, organization, err := parseIntegration(o.integration)
	if err != nil {
		return usagef("--%w", err)
	}
	if o.vendor != "" && o.vendor != vendor {
		return usagef("--vendor %s and --integration %s name different vendors: give one of them", o.vendor, o.integration)
	}
	o.vendor, o.organization = vendor, organization
	return nil
}

func (c *cli) syncStatus() *cobra.Command {
	var o syncChoice
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Count the keys of each integration by state, with the oldest that is not delivered",
		Long: `Reads the whole ledger of the vendors asked for, as it is stored now, and says for
each integration how many keys are in which state, and which key the partner has
been missing for longest, and why. Below it stands what else keeps figures from the
partner: what waits for approval, what was refused for good, snapshots whose parts
have not all come, and events that are not folded yet.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				list, err := a.syncOf(ctx, o)
				if err != nil {
					return err
				}
				if err := c.showSync(list); err != nil {
					return err
				}
				return c.warnOfBacklog(ctx, a, o)
			})
		},
	}
	c.choiceFlags(cmd, &o)
	cmd.Flags().IntVar(&o.keys, "keys", 0, "list so many keys of each integration that are not delivered, the oldest first")
	return cmd
}

// warnOfBacklog says what the ledger cannot show: events that no worker has
// folded yet, and whether there is one to do it.
func (c *cli) warnOfBacklog(ctx context.Context, a *app, o syncChoice) error {
	vendors, err := a.vendorsOf(ctx, o.vendor)
	if err != nil || len(vendors) == 0 {
		return err
	}
	records, err := a.vendorRecords(ctx)
	if err != nil {
		return err
	}
	for _, v := range vendors {
		waiting, err := a.broker.Backlog(ctx, v.Name)
		if err != nil {
			return err
		}
		owners, err := a.broker.Owners(ctx, v.Name)
		if err != nil {
			return err
		}
		if s := records[v.Name].Stopped; s != nil {
			c.say("%s: stopped %s by %s (%s): %s not folded; `usagebridge vendors resume %s --why …` goes on", v.Name, ago(s.At, time.Now()),
				printable(s.By), printable(cut(s.Why, 80)), plural(int(waiting), "message waits and is", "messages wait and are"), v.Name)
		} else if waiting > 0 {
			c.say("%s: %d messages are not folded yet and do not show here", v.Name, waiting)
		}
		if idle := v.Partitions - len(owners); idle > 0 {
			c.say("%s: no worker has %d of %d partitions: is one running?", v.Name, idle, v.Partitions)
		}
	}
	return nil
}

// syncView is where one integration stands.
type syncView struct {
	Integration string                    `json:"integration"`
	Status      status.Status             `json:"status"` // empty: nobody has added the integration
	Gates       string                    `json:"gates"`
	Keys        int                       `json:"keys"`
	States      map[ledger.State]int      `json:"states"`
	Held        map[ledger.HoldReason]int `json:"held"`
	Oldest      *keyView                  `json:"oldest,omitempty"`      // not delivered
	Undelivered []keyView                 `json:"undelivered,omitempty"` // with --keys
	Snapshots   []snapshotView            `json:"snapshots_with_missing_parts,omitempty"`
	Stopped     *stop                     `json:"vendor_stopped,omitempty"` // events of the vendor are not folded

	refused string // the oldest key that was refused for good, as dead letters name it
}

// keyView is where one key stands.
type keyView struct {
	Key       string            `json:"key"`
	State     ledger.State      `json:"state"`
	Reason    ledger.HoldReason `json:"reason,omitempty"`
	Desired   string            `json:"desired"`
	Time      time.Time         `json:"time"` // of the desired figure
	Delivered string            `json:"delivered,omitempty"`
	At        time.Time         `json:"delivered_at,omitzero"`
	RequestID string            `json:"request_id,omitempty"`
	Since     time.Time         `json:"since,omitzero"` // when the partner last had what was desired
	Attempts  int               `json:"attempts,omitempty"`
	Next      time.Time         `json:"next_attempt,omitzero"`
	Answer    string            `json:"answer,omitempty"` // the partner's last one
}

// gateOf is what holds all figures of an integration, as its record has it; ""
// when nothing does. Nothing is sent to one that nobody has added.
func gateOf(i *status.Integration) ledger.HoldReason {
	switch {
	case i == nil:
		return ledger.IntegrationNotReady
	case i.Paused:
		return ledger.Paused
	case i.Hold != "":
		return ledger.HoldReason(i.Hold)
	case !i.Status.Ready():
		return ledger.IntegrationNotReady
	}
	return ""
}

// viewKey shows an entry as people should see it.
func viewKey(e *ledger.Entry, gate ledger.HoldReason, catalog bool) keyView {
	v := keyView{Key: e.Key.String(), Attempts: e.Attempts}
	v.State, v.Reason = e.View(gate, catalog)
	if desired, ok := e.Desired(); ok {
		v.Desired, v.Time = valueText(e.Key.Kind, desired.Value), moment(desired.Time)
	}
	if e.Posted() {
		v.Delivered, v.At, v.RequestID = valueText(e.Key.Kind, e.Delivered.Value), moment(e.Delivered.At), e.Delivered.RequestID
	}
	if e.Since != 0 {
		v.Since = moment(e.Since)
	}
	if e.Next != 0 {
		v.Next = moment(e.Next)
	}
	if a := e.Answer; a.At != 0 {
		v.Answer = strings.TrimSpace(fmt.Sprintf("%d %s", a.Status, a.Message))
		if a.Status == 0 {
			v.Answer = a.Message
		}
	}
	return v
}

// valueText is a value as people write it: a number of units, or properties.
func valueText(kind ledger.Kind, v ledger.Value) string {
	if kind == ledger.Count {
		return event.Units(v.Units).String()
	}
	return v.Properties
}

func moment(nanoseconds int64) time.Time { return time.Unix(0, nanoseconds).UTC() }

// tally collects the entries of one organization. Which of them wait for their
// catalog is known only when all have been read.
type tally struct {
	generation int // of the integration
	keys       int
	synced     int
	posted     map[ledger.Key]bool // catalog keys that the partner has
	open       []ledger.Entry      // not synced
	accepted   *ledger.Entry       // the one that the partner took last
	refused    *ledger.Entry       // the open one with the last answer that was no success
	scopes     []ledger.Entry      // what is known of snapshots
}

func (t *tally) add(e ledger.Entry) {
	if e.Key.Kind == ledger.Scope {
		t.scopes = append(t.scopes, e)
	}
	if !e.Key.Kind.Figure() {
		return
	}
	t.keys++
	if e.Key.Kind != ledger.Count && e.PostedIn(t.generation) {
		t.posted[e.Key] = true
	}
	if e.Posted() && (t.accepted == nil || e.Delivered.At > t.accepted.Delivered.At) {
		t.accepted = &e
	}
	failed := e.State != ledger.Synced && e.Answer.At != 0 && e.Answer.At != e.Delivered.At
	if failed && (t.refused == nil || e.Answer.At > t.refused.Answer.At) {
		t.refused = &e
	}
	if e.State == ledger.Synced {
		t.synced++
		return
	}
	t.open = append(t.open, e)
}

// view sums the entries up.
func (t *tally) view(name string, i *status.Integration, keys int) syncView {
	v := syncView{
		Integration: name, Gates: gates(i), Keys: t.keys,
		States: map[ledger.State]int{}, Held: map[ledger.HoldReason]int{},
	}
	if i != nil {
		v.Status = i.Status
	}
	if t.synced > 0 {
		v.States[ledger.Synced] = t.synced
	}
	slices.SortFunc(t.open, func(a, b ledger.Entry) int {
		return cmp.Or(cmp.Compare(a.Since, b.Since), strings.Compare(a.Key.String(), b.Key.String()))
	})
	for n := range t.open {
		e := &t.open[n]
		catalog := e.Key.Kind != ledger.Count || t.posted[e.Key.AccountKey()] && t.posted[e.Key.ServiceKey()]
		key := viewKey(e, gateOf(i), catalog)
		v.States[key.State]++
		if key.Reason != "" {
			v.Held[key.Reason]++
		}
		if n == 0 {
			v.Oldest = &key
		}
		if key.State == ledger.Failed && v.refused == "" {
			v.refused = strings.TrimPrefix(e.Key.String(), e.Key.Organization+"/")
		}
		if n < keys {
			v.Undelivered = append(v.Undelivered, key)
		}
	}
	vendor, _, _ := strings.Cut(name, "/")
	for n := range t.scopes {
		for i := range t.scopes[n].Snapshots {
			if s := &t.scopes[n].Snapshots[i]; s.Open() {
				v.Snapshots = append(v.Snapshots, viewSnapshot(vendor, t.scopes[n].Key, s))
			}
		}
	}
	slices.SortFunc(v.Snapshots, func(a, b snapshotView) int { return a.Since.Compare(b.Since) })
	return v
}

// syncOf reads the ledgers and the integrations that the choice names.
func (a *app) syncOf(ctx context.Context, o syncChoice) ([]syncView, error) {
	vendors, err := a.vendorsOf(ctx, o.vendor)
	if err != nil {
		return nil, err
	}
	records, err := a.listIntegrations(ctx)
	if err != nil {
		return nil, err
	}
	list := []syncView{}
	stopped := map[string]vendorRecord{}
	if len(vendors) > 0 {
		if stopped, err = a.vendorRecords(ctx); err != nil {
			return nil, err
		}
	}
	for _, vendor := range vendors {
		tallies, err := a.tallies(ctx, vendor, o.organization, records)
		if err != nil {
			return nil, err
		}
		known := map[string]*status.Integration{}
		for n := range records {
			if i := &records[n]; i.Vendor == vendor.Name && (o.organization == "" || i.Organization == o.organization) {
				known[i.Organization] = i
				if tallies[i.Organization] == nil {
					tallies[i.Organization] = &tally{}
				}
			}
		}
		for organization, t := range tallies {
			v := t.view(vendor.Name+"/"+organization, known[organization], o.keys)
			v.Stopped = stopped[vendor.Name].Stopped
			list = append(list, v)
		}
	}
	if o.organization != "" && len(list) == 0 {
		return nil, fmt.Errorf("integration %s is unknown: it has not been added, and no figure of it has come", o.integration)
	}
	slices.SortFunc(list, func(a, b syncView) int { return strings.Compare(a.Integration, b.Integration) })
	return list, nil
}

// vendorsOf is the vendor of that name, or every one.
func (a *app) vendorsOf(ctx context.Context, name string) ([]broker.Vendor, error) {
	if name == "" {
		return a.broker.Vendors(ctx)
	}
	vendor, err := a.broker.Vendor(ctx, name)
	if err != nil {
		return nil, err
	}
	return []broker.Vendor{vendor}, nil
}

// tallies reads a vendor's ledger, or the part of it that has the organization.
// The records say in which generation each integration is.
func (a *app) tallies(ctx context.Context, vendor broker.Vendor, organization string, records []status.Integration) (map[string]*tally, error) {
	tallies := map[string]*tally{}
	generations := map[string]int{}
	for i := range records {
		if records[i].Vendor == vendor.Name {
			generations[records[i].Organization] = records[i].Generation
		}
	}
	err := a.eachEntry(ctx, vendor, organization, func(e *ledger.Entry) error {
		t := tallies[e.Key.Organization]
		if t == nil {
			t = &tally{generation: generations[e.Key.Organization], posted: map[ledger.Key]bool{}}
			tallies[e.Key.Organization] = t
		}
		t.add(*e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tallies, nil
}

// eachEntry yields a vendor's ledger, or the part of it that has the organization.
func (a *app) eachEntry(ctx context.Context, vendor broker.Vendor, organization string, yield func(*ledger.Entry) error) error {
	store := a.broker.Ledger(vendor.Name)
	first, end := 0, vendor.Partitions
	if organization != "" {
		first = broker.Partition(vendor.Name, organization, vendor.Partitions)
		end = first + 1
	}
	for partition := first; partition < end; partition++ {
		err := store.Load(ctx, partition, func(e ledger.Entry) error {
			if organization != "" && e.Key.Organization != organization {
				return nil
			}
			return yield(&e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) showSync(list []syncView) error {
	if c.json {
		return c.printJSON(list)
	}
	if len(list) == 0 {
		c.say("no integrations: add one with `usagebridge integrations add`")
		return nil
	}
	now := time.Now()
	rows := make([][]string, len(list))
	total := syncView{States: map[ledger.State]int{}, Held: map[ledger.HoldReason]int{}}
	for i, v := range list {
		rows[i] = syncRow(v, now)
		total.Keys += v.Keys
		for state, n := range v.States {
			total.States[state] += n
		}
		for reason, n := range v.Held {
			total.Held[reason] += n
		}
	}
	header := []string{"INTEGRATION", "STATUS", "GATES", "KEYS", "SYNCED", "DIRTY", "RETRYING", "HELD", "FAILED", "OLDEST", "WHY"}
	if err := c.table(header, rows); err != nil {
		return err
	}
	if err := c.showKeys(list, now); err != nil {
		return err
	}
	c.say("%s, %s: %s", plural(len(list), "integration", "integrations"), plural(total.Keys, "key", "keys"), or(countReasons(total.States), "none"))
	if len(total.Held) > 0 {
		c.say("held: %s", countReasons(total.Held))
	}
	c.sayWhatHelps(list, now)
	return nil
}

// sayWhatHelps names what keeps figures from the partner until a person does
// something, and the command that shows more of it.
func (c *cli) sayWhatHelps(list []syncView, now time.Time) {
	var approvals, failures, snapshots []*syncView
	waiting, failed, open := 0, 0, 0
	for i := range list {
		v := &list[i]
		if n := v.Held[ledger.Approval]; n > 0 {
			waiting, approvals = waiting+n, append(approvals, v)
		}
		if n := v.States[ledger.Failed]; n > 0 {
			failed, failures = failed+n, append(failures, v)
		}
		if n := len(v.Snapshots); n > 0 {
			open, snapshots = open+n, append(snapshots, v)
		}
	}
	if waiting > 0 {
		c.say("%s for approval: see `usagebridge approvals ls%s`", plural(waiting, "figure waits", "figures wait"), flagFor(approvals))
	}
	if failed > 0 {
		v := failures[0]
		c.say("%s for good, such as %s: see `usagebridge dlq ls --each --integration %s --key %s`", plural(failed, "figure was refused", "figures were refused"),
			printable(v.refused), shellWord(v.Integration), shellWord(v.refused))
	}
	if open > 0 {
		oldest := snapshots[0].Snapshots[0]
		for _, v := range snapshots[1:] {
			if v.Snapshots[0].Since.Before(oldest.Since) {
				oldest = v.Snapshots[0]
			}
		}
		c.say("%s parts, such as %s of %s (%s, since %s): see `usagebridge snapshots ls%s`", plural(open, "snapshot lacks", "snapshots lack"),
			printable(cut(oldest.Name, 40)), printable(oldest.Integration), oldest.line(), ago(oldest.Since, now), flagFor(snapshots))
	}
}

// flagFor is the flag with which a command shows the integrations listed.
func flagFor(list []*syncView) string {
	first, _, _ := strings.Cut(list[0].Integration, "/")
	if len(list) == 1 {
		return " --integration " + shellWord(list[0].Integration)
	}
	for _, v := range list {
		if vendor, _, _ := strings.Cut(v.Integration, "/"); vendor != first {
			return ""
		}
	}
	return " --vendor " + first
}

// shellWord writes other people's ids as one word of a shell.
func shellWord(text string) string {
	text = printable(text)
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@=+,", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func syncRow(v syncView, now time.Time) []string {
	row := []string{printable(v.Integration), or(string(v.Status), "not added"), v.Gates, strconv.Itoa(v.Keys)}
	for _, state := range []ledger.State{ledger.Synced, ledger.Dirty, ledger.Retrying, ledger.Held, ledger.Failed} {
		row = append(row, strconv.Itoa(v.States[state]))
	}
	if v.Oldest == nil {
		return append(row, "-", "")
	}
	return append(row, ago(v.Oldest.Since, now), printable(v.Oldest.Key)+": "+v.Oldest.why())
}

// why says why a key is not delivered.
func (v keyView) why() string {
	why := string(v.State)
	if v.Reason != "" {
		why += ", " + string(v.Reason)
	}
	if v.State != ledger.Dirty && v.State != ledger.Synced && v.Reason != ledger.Approval && v.Answer != "" {
		why += " (" + printable(cut(v.Answer, 60)) + ")"
	}
	return why
}

// showKeys lists the keys that --keys asked for.
func (c *cli) showKeys(list []syncView, now time.Time) error {
	var rows [][]string
	for _, v := range list {
		for _, key := range v.Undelivered {
			rows = append(rows, []string{
				printable(v.Integration), printable(key.Key), printable(cut(key.Desired, 40)), or(printable(cut(key.Delivered, 40)), "-"),
				ago(key.Since, now), strconv.Itoa(key.Attempts), key.why(),
			})
		}
	}
	if rows == nil {
		return nil
	}
	_, _ = fmt.Fprintln(c.stdout)
	return c.table([]string{"INTEGRATION", "KEY", "DESIRED", "DELIVERED", "SINCE", "ATTEMPTS", "WHY"}, rows)
}

// completionWait is how long a shell waits for names at most.
const completionWait = time.Second

// integrationFlag adds --integration, with the names that exist for the shell
// to complete.
func (c *cli) integrationFlag(cmd *cobra.Command, value *string, usage string) {
	cmd.Flags().StringVar(value, "integration", "", usage)
	err := cmd.RegisterFlagCompletionFunc("integration", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
		defer cancel()
		found := make(chan []string, 1)
		go func() { found <- integrationNames(ctx) }()
		select {
		case names := <-found:
			return names, cobra.ShellCompDirectiveNoFileComp
		case <-ctx.Done(): // a connection that hangs is left behind: the process ends
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	})
	if err != nil {
		panic("register the completion of --integration: " + err.Error()) // only if it is registered twice
	}
}

// integrationNames lists the integrations of a server that runs. It starts
// none: looking for names must not make a store directory.
func integrationNames(ctx context.Context) []string {
	config, err := loadConfig()
	if err != nil {
		return nil
	}
	if config.NATSURL == "" {
		if _, running, err := broker.FindEmbedded(config.StoreDir); err != nil || !running {
			return nil
		}
	}
	a, err := openApp(ctx, config, newLogger(io.Discard, "error", "json"))
	if err != nil {
		return nil
	}
	defer a.close()
	list, err := a.listIntegrations(ctx)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name()
	}
	return names
}
