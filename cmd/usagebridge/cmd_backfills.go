package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) backfillsCommand() *cobra.Command {
	return group("backfills", "Backfills: events published under one id, which can be taken back together",
		c.backfillsList(), c.backfillsShow(), c.backfillsRevert())
}

// backfill is what the ledger's registers say of one.
type backfill struct {
	vendor    broker.Vendor
	id        string
	registers []ledger.Entry // one for each organization
	word      *decision      // nil: nobody has reverted it
}

// Where a backfill stands.
const (
	backfillStands   = "stands"
	backfillReverted = "reverted"
	backfillPartly   = "partly reverted" // a worker has not got to all of it yet
)

// backfillView is a backfill as programs see it.
type backfillView struct {
	ID           string    `json:"id"`
	Vendor       string    `json:"vendor"`
	Integrations []string  `json:"integrations"`
	First        time.Time `json:"first_published,omitzero"` // zero: the log no longer has the message
	Last         time.Time `json:"last_published,omitzero"`
	State        string    `json:"state"`
	Reverted     int       `json:"integrations_reverted"`
	Decision     *decision `json:"decision,omitempty"`

	Parts  []backfillPart   `json:"parts,omitempty"`  // with show
	Sample []backfilledView `json:"sample,omitempty"` // with show
}

// backfills reads the registers, by vendor and id. With an id only that one.
func (a *app) backfills(ctx context.Context, vendor, id string) ([]*backfill, error) {
	words, err := a.decisions(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]*backfill{}
	err = a.scan(ctx, syncChoice{vendor: vendor}, func(v broker.Vendor, e *ledger.Entry) error {
		if e.Register == nil || id != "" && e.Key.Service != id {
			return nil
		}
		key := backfillKey(v.Name, e.Key.Service)
		b := found[key]
		if b == nil {
			b = &backfill{vendor: v, id: e.Key.Service}
			if word, ok := words[key]; ok {
				b.word = &word
			}
			found[key] = b
		}
		b.registers = append(b.registers, *e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := slices.SortedFunc(maps.Values(found), func(a, b *backfill) int {
		return cmp.Or(strings.Compare(a.vendor.Name, b.vendor.Name), strings.Compare(a.id, b.id))
	})
	for _, b := range list {
		slices.SortFunc(b.registers, func(a, b ledger.Entry) int { return strings.Compare(a.Key.Organization, b.Key.Organization) })
	}
	return list, nil
}

// backfill is the one of that id; an unknown one is a wrong argument.
func (a *app) backfill(ctx context.Context, vendor, id string) (*backfill, error) {
	list, err := a.backfills(ctx, vendor, id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, usagef("backfill %q of vendor %s is unknown; `usagebridge backfills ls --vendor %s` lists the known ones", id, vendor, vendor)
	}
	return list[0], nil
}

func (b *backfill) view(ctx context.Context, a *app) (backfillView, error) {
	v := backfillView{ID: b.id, Vendor: b.vendor.Name, State: backfillStands, Decision: b.word}
	first, last := b.registers[0].Register.First, uint64(0)
	for i := range b.registers {
		r := b.registers[i].Register
		first, last = min(first, r.First), max(last, r.Last)
		if r.Reverted != 0 {
			v.Reverted++
		}
		v.Integrations = append(v.Integrations, b.vendor.Name+"/"+b.registers[i].Key.Organization)
	}
	switch {
	case v.Reverted == len(b.registers):
		v.State = backfillReverted
	case b.word != nil:
		v.State = backfillPartly
	}
	var err error
	if v.First, err = a.published(ctx, b.vendor.Name, first); err == nil {
		v.Last, err = a.published(ctx, b.vendor.Name, last)
	}
	return v, err
}

// published is when the message at the arrival was stored, or zero when the
// log no longer has it.
func (a *app) published(ctx context.Context, vendor string, arrival uint64) (time.Time, error) {
	m, err := a.broker.Message(ctx, vendor, event.Arrival(arrival).Sequence())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil
	}
	return m.Stored, err
}

func publishedText(t time.Time) string {
	if t.IsZero() {
		return "gone"
	}
	return t.UTC().Format(time.RFC3339)
}

// state says where the backfill stands, in a few words.
func (v *backfillView) state() string {
	switch v.State {
	case backfillReverted:
		if v.Decision != nil {
			return "reverted " + v.Decision.At.UTC().Format(time.RFC3339)
		}
	case backfillPartly:
		return fmt.Sprintf("reverted in %d of %d", v.Reverted, len(v.Integrations))
	}
	return v.State
}

func (c *cli) backfillsList() *cobra.Command {
	var vendor string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List backfills, with when they were published and whether they stand",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				list, err := a.backfills(ctx, vendor, "")
				if err != nil {
					return err
				}
				views := make([]backfillView, len(list))
				for i, b := range list {
					if views[i], err = b.view(ctx, a); err != nil {
						return err
					}
				}
				return c.showBackfills(views)
			})
		},
	}
	cmd.Flags().StringVar(&vendor, "vendor", "", "only backfills of this vendor")
	return cmd
}

func (c *cli) showBackfills(list []backfillView) error {
	if c.json {
		return c.printJSON(list)
	}
	if len(list) == 0 {
		c.say("no backfills")
		return nil
	}
	rows := make([][]string, len(list))
	for i, v := range list {
		integrations := strconv.Itoa(len(v.Integrations))
		if len(v.Integrations) == 1 {
			integrations = printable(cut(v.Integrations[0], 30))
		}
		rows[i] = []string{printable(cut(v.ID, 40)), v.Vendor, integrations, publishedText(v.First), publishedText(v.Last), v.state()}
	}
	return c.table([]string{"BACKFILL", "VENDOR", "INTEGRATIONS", "FIRST", "LAST", "STATE"}, rows)
}

// backfillPart is what a backfill is in one integration now.
type backfillPart struct {
	Integration string    `json:"integration"`
	First       string    `json:"first"` // place in the log
	Last        string    `json:"last"`
	Keys        int       `json:"keys"`   // that remember a figure of it
	Stands      int       `json:"stands"` // of them whose desired figure is one of it
	Newer       int       `json:"newer"`  // of them that have a newer figure
	Reverted    time.Time `json:"reverted,omitzero"`
}

// backfilledView is a key whose desired figure is one of a backfill.
type backfilledView struct {
	Key       string    `json:"key"`
	Before    string    `json:"before,omitempty"` // what counts if it is reverted; empty: it becomes 0
	Is        string    `json:"is"`
	Time      time.Time `json:"time"`
	Delivered string    `json:"delivered,omitempty"`
}

func (c *cli) backfillsShow() *cobra.Command {
	var vendor string
	var limit int
	cmd := &cobra.Command{
		Use:   "show ID --vendor VENDOR",
		Short: "Show what a backfill is now: the keys that it stands for, and what they had before",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkBackfill(args[0], vendor); err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit %d: want how many keys to list, or 0 for all", limit)
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				b, err := a.backfill(ctx, vendor, args[0])
				if err != nil {
					return err
				}
				v, err := b.view(ctx, a)
				if err != nil {
					return err
				}
				u, err := a.undoing(ctx, b)
				if err != nil {
					return err
				}
				u.fill(&v, limit)
				return c.showBackfill(v, u)
			})
		},
	}
	cmd.Flags().StringVar(&vendor, "vendor", "", "the vendor whose backfill it is")
	cmd.Flags().IntVar(&limit, "limit", 20, "list at most so many keys; 0: all")
	return cmd
}

// checkBackfill says what is wrong with the names that a person gives.
func checkBackfill(id, vendor string) error {
	var errs []error
	if id == "" {
		errs = append(errs, errors.New("the id of the backfill is empty"))
	}
	if vendor == "" {
		errs = append(errs, errors.New("--vendor is missing: want the vendor whose backfill it is"))
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

func (c *cli) showBackfill(v backfillView, u *undoing) error {
	if c.json {
		return c.printJSON(v)
	}
	if _, err := fmt.Fprintf(c.stdout, "backfill %s of %s: %s, published %s to %s\n\n", printable(v.ID), v.Vendor, v.state(),
		publishedText(v.First), publishedText(v.Last)); err != nil {
		return err
	}
	var rows [][]string
	for _, p := range v.Parts {
		state := "stands"
		if !p.Reverted.IsZero() {
			state = "reverted " + p.Reverted.Format(time.RFC3339)
		}
		rows = append(rows, []string{
			printable(p.Integration), p.First, p.Last, strconv.Itoa(p.Keys), strconv.Itoa(p.Stands), strconv.Itoa(p.Newer), state,
		})
	}
	if err := c.table([]string{"INTEGRATION", "FIRST MESSAGE", "LAST MESSAGE", "KEYS", "DESIRED NOW", "NEWER FIGURE", "STATE"}, rows); err != nil {
		return err
	}
	if len(v.Sample) > 0 {
		_, _ = fmt.Fprintln(c.stdout)
		rows = rows[:0]
		for _, s := range v.Sample {
			rows = append(rows, []string{
				printable(s.Key), or(printable(cut(s.Before, 30)), "-"), printable(cut(s.Is, 30)), or(printable(cut(s.Delivered, 30)), "-"),
				s.Time.Format(time.RFC3339),
			})
		}
		if err := c.table([]string{"KEY", "BEFORE", "BACKFILLED", "PARTNER HAS", "TRUE AT"}, rows); err != nil {
			return err
		}
	}
	if v.Decision != nil {
		c.say("%s %s", printable(v.ID), v.Decision.line())
		return nil
	}
	c.say("%s, %d listed", plural(len(u.stands), "key has no newer figure", "keys have no newer figure"), len(v.Sample))
	return nil
}

// undoing is what becomes of a vendor's keys if a backfill is reverted. The
// ledger itself is asked, with the decision made in advance.
type undoing struct {
	backfill *backfill
	parts    []backfillPart
	stands   []ledger.Entry          // whose desired figure is one of the backfill
	books    map[string]ledger.Shelf // by organization: to try the decision out on them
	rules    *ledger.Rules
}

// undoing reads what the backfill concerns.
func (a *app) undoing(ctx context.Context, b *backfill) (*undoing, error) {
	u := &undoing{backfill: b, books: map[string]ledger.Shelf{}}
	at := map[string]int{}
	for i := range b.registers {
		e := &b.registers[i]
		part := backfillPart{
			Integration: b.vendor.Name + "/" + e.Key.Organization,
			First:       event.Arrival(e.Register.First).String(), Last: event.Arrival(e.Register.Last).String(),
		}
		if e.Register.Reverted != 0 {
			part.Reverted = moment(e.Register.Reverted)
		}
		at[e.Key.Organization] = len(u.parts)
		u.parts = append(u.parts, part)
		u.books[e.Key.Organization] = ledger.Shelf{}
	}
	digest := ledger.BackfillDigest(b.id)
	err := a.eachEntry(ctx, b.vendor, "", func(e *ledger.Entry) error {
		held := u.books[e.Key.Organization]
		remembers := slices.ContainsFunc(e.Seen, func(s ledger.Seen) bool { return s.Backfill == digest })
		if held == nil || !remembers && e.Key.Kind != ledger.Scope {
			return nil
		}
		held[e.Key] = *e
		if remembers {
			u.count(&u.parts[at[e.Key.Organization]], e, digest)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(u.stands, func(a, b ledger.Entry) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	u.rules, err = a.rulesOf(ctx, b.vendor.Name, time.Time{})
	if err != nil {
		return nil, err
	}
	u.rules.Reverted[digest] = true
	return u, nil
}

func (u *undoing) count(part *backfillPart, e *ledger.Entry, digest uint64) {
	part.Keys++
	if e.Seen[0].Backfill != digest {
		part.Newer++
		return
	}
	part.Stands++
	u.stands = append(u.stands, *e)
}

// rulesOf is what people have said of a vendor's figures until a time, or with
// zero until now, as its workers know it. Jump factors and limits are today's:
// those that held before are not kept.
func (a *app) rulesOf(ctx context.Context, vendor string, until time.Time) (*ledger.Rules, error) {
	records, err := a.vendorRecords(ctx)
	if err != nil {
		return nil, err
	}
	words, err := a.decisions(ctx)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(words, func(key string, word decision) bool {
		later := !until.IsZero() && word.At.After(until)
		return later || !strings.HasPrefix(key, event.Escape(vendor)+".")
	})
	record := records[vendor]
	return a.config.rules(&record, words), nil
}

// after is what a key has once the backfill is reverted.
func (u *undoing) after(e *ledger.Entry, now time.Time) ledger.Entry {
	held := u.books[e.Key.Organization]
	ledger.Review(held, e.Key, u.rules, now)
	next := held[e.Key]
	held[e.Key] = *e
	return next
}

// fill adds what show says of the backfill to its view.
func (u *undoing) fill(v *backfillView, limit int) {
	v.Parts = u.parts
	now := time.Now()
	for i := range u.stands {
		if limit > 0 && i == limit {
			return
		}
		e := &u.stands[i]
		key := viewKey(e, "", true)
		s := backfilledView{Key: key.Key, Is: key.Desired, Time: key.Time, Delivered: key.Delivered}
		next := u.after(e, now)
		if desired, ok := next.Desired(); ok && !desired.Unfounded() {
			s.Before = valueText(e.Key.Kind, desired.Value)
		}
		v.Sample = append(v.Sample, s)
	}
}
