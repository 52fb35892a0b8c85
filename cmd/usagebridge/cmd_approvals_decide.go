package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// verbs are what a person types for a decision.
var verbs = map[judgment]string{released: "release", refused: "refuse"}

func (c *cli) approvalsDecide(verdict judgment, short string) *cobra.Command {
	var o syncChoice
	var why string
	var all bool
	verb := verbs[verdict]
	cmd := &cobra.Command{
		Use:   verb + " --integration VENDOR/ORGANIZATION (ID… | --all) --why TEXT",
		Short: short,
		Long: `Decides what waits under the ids, for good: a decision cannot be changed, but a newer
figure always counts. A released figure is sent under the usual limits. A refused one
counts as if it had never come, and the key goes back to the figure before it. When
several counts of one key have jumped, one word decides all of them.

Waits up to 5 seconds until the ledger shows it. If no worker runs, one does it as
soon as it is started.`,
		Example: fmt.Sprintf(`  usagebridge approvals %s --integration acme/msp-0042 3f2a90b1c4d5e6f7 --why "the MSP has confirmed it"`, verb),
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := o.parseIDs(args)
			switch {
			case err != nil:
				return err
			case all && len(ids) > 0:
				return usagef("--all and ids contradict each other: give one of them")
			case !all && len(ids) == 0:
				return usagef("nothing says what to %s: give ids, as `usagebridge approvals ls` shows them, or --all for everything that waits", verb)
			case why == "":
				return usagef("--why is missing: whoever looks at these figures next will want to know")
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				d, err := a.desk(ctx, o)
				if err != nil {
					return err
				}
				if all {
					ids = d.undecided()
				}
				if err := d.check(ids); err != nil {
					return err
				}
				return c.decide(ctx, d, ids, decision{Verdict: verdict, By: operator(), Why: why, At: time.Now().UTC()})
			})
		},
	}
	c.integrationFlag(cmd, &o.integration, "the vendor/organization")
	cmd.Flags().BoolVar(&all, "all", false, "everything that waits in the integration now")
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

// undecided lists the ids that wait and on which nobody has said a word.
func (d *desk) undecided() (ids []uint64) {
	for _, p := range d.order {
		if _, decided := d.words[p.id]; !decided {
			ids = append(ids, p.id)
		}
	}
	return ids
}

// decidedView is what became of a decision, as programs see it.
type decidedView struct {
	Integration string   `json:"integration"`
	Verdict     judgment `json:"verdict"`
	Decided     []string `json:"decided"`           // ids, by this command
	Already     []string `json:"already,omitempty"` // ids that had been decided before
	Keys        int      `json:"keys"`              // whose figure the decision concerns
	Done        int      `json:"done"`              // of them that the ledger shows to follow it
	Nothing     int      `json:"without_a_figure"`  // of them that have no other figure and count as 0
	Again       int      `json:"waiting_again"`     // of them that wait for another approval now
}

// decide writes the word on each id that has none, and waits until it shows.
func (c *cli) decide(ctx context.Context, d *desk, ids []uint64, word decision) error {
	v := decidedView{Integration: d.vendor.Name + "/" + d.organization, Verdict: word.Verdict, Decided: []string{}}
	concerned, otherwise := map[uint64]bool{}, []string{}
	var keys []ledger.Key
	for _, id := range ids {
		p := d.waiting[id]
		err := errAlreadyDecided
		if _, known := d.words[id]; !known {
			err = d.decide(ctx, p, word)
		}
		switch {
		case errors.Is(err, errAlreadyDecided):
			v.Already = append(v.Already, approvalName(id))
			c.say("%s", d.decided(id))
			if d.words[id].Verdict != word.Verdict {
				otherwise = append(otherwise, approvalName(id))
				continue
			}
		case err != nil:
			return c.cutShort(&v, err)
		default:
			v.Decided = append(v.Decided, approvalName(id))
			c.say("%s %s: %s", word.Verdict, approvalName(id), printable(p.what()))
		}
		if p == nil {
			continue // it was carried out long ago
		}
		for _, part := range p.ids() {
			concerned[part] = true
		}
		for i := range p.entries {
			keys = append(keys, p.entries[i].Key)
		}
	}
	if err := c.await(ctx, d, &v, keys, concerned); err != nil {
		return c.cutShort(&v, err)
	}
	return c.showDecided(d, &v, otherwise)
}

var errAlreadyDecided = errors.New("decided already")

// cutShort says how far a decision came that could not be ended.
func (c *cli) cutShort(v *decidedView, err error) error {
	if len(v.Decided) == 0 {
		return err
	}
	return partlyf("%s were %s, then: %w", strings.Join(v.Decided, ", "), v.Verdict, err)
}

// decide writes a word on everything that waits under p. The id that people
// see comes last: as long as it is undecided, the command can be repeated.
func (d *desk) decide(ctx context.Context, p *approval, word decision) error {
	ids := p.ids()
	names := make([]string, len(ids))
	for i, id := range slices.Backward(ids) {
		names[i] = approvalName(id)
		key := approvalKey(d.vendor.Name, d.organization, id)
		err := d.bucket.Create(ctx, key, word)
		if errors.Is(err, broker.ErrExists) && id == p.id {
			if d.words[id], _, err = d.bucket.Get(ctx, key); err == nil {
				return errAlreadyDecided
			}
		}
		if err != nil && !errors.Is(err, broker.ErrExists) {
			return fmt.Errorf("%s %s: %w", verbs[word.Verdict], names[i], err)
		}
	}
	done := action{
		Actor: word.By, Action: "figures " + string(word.Verdict), Integration: p.integration(), Object: names[0], Why: word.Why,
		Detail: fmt.Sprintf("%s; %s", p.what(), plural(len(p.entries), "key", "keys")), At: word.At,
	}
	if len(names) > 1 {
		done.Objects = names
	}
	if err := d.app.audit(ctx, done); err != nil {
		return fmt.Errorf("%s was %s, but that is not on record: %w", names[0], word.Verdict, err)
	}
	return nil
}

// await waits until none of the keys waits under an id that is concerned.
func (c *cli) await(ctx context.Context, d *desk, v *decidedView, keys []ledger.Key, concerned map[uint64]bool) error {
	v.Keys = len(keys)
	left, err := d.app.followThrough(ctx, d.vendor, keys, func(e *ledger.Entry) bool {
		for _, s := range e.Seen {
			if s.Waits != ledger.NoWait && concerned[ledger.ApprovalID(e.Key, s)] {
				return false
			}
		}
		if desired, ok := e.Desired(); ok {
			switch {
			case desired.Waits != ledger.NoWait:
				v.Again++
			case desired.Unfounded():
				v.Nothing++
			}
		}
		return true
	})
	v.Done = v.Keys - left
	return err
}

func (c *cli) showDecided(d *desk, v *decidedView, otherwise []string) error {
	if c.json {
		if err := c.printJSON(v); err != nil {
			return err
		}
	}
	name := printable(v.Integration)
	if len(v.Decided)+len(v.Already) == 0 {
		c.say("%s: nothing waits for approval", name)
	}
	if n := v.Done - v.Again; n > 0 && v.Verdict == released {
		c.say("%s: %s %s", name, plural(n, "key is", "keys are"), sentWhen(d.record))
	} else if n > 0 {
		c.say("%s: %s former figure", name, plural(n, "key went back to its", "keys went back to their"))
	}
	if v.Nothing > 0 {
		c.say("%s: without any other figure, and therefore 0 now: %s", name, plural(v.Nothing, "key", "keys"))
	}
	if v.Again > 0 {
		c.say("%s: %s approval now: see `usagebridge approvals ls --integration %s`",
			name, plural(v.Again, "key waits for another", "keys wait for another"), name)
	}
	if left := v.Keys - v.Done; left > 0 {
		c.say("%s: no worker has carried it out for %d of %s yet; it is done as soon as one runs", name, left, plural(v.Keys, "key", "keys"))
	}
	if len(otherwise) == 0 {
		return nil
	}
	err := fmt.Errorf("%s cannot be %s: the word above stands; publish a newer figure to change what is sent", strings.Join(otherwise, ", "), v.Verdict)
	if len(v.Decided) > 0 {
		return partlyError{err}
	}
	return usageError{err}
}

// sentWhen says when what was released goes.
func sentWhen(i *status.Integration) string {
	switch open := gates(i); {
	case i == nil:
		return "to be sent once the integration is added"
	case open != "open":
		return "to be sent once its gates are open (" + open + ")"
	}
	return "to be sent now"
}

const (
	// decisionWait is how long a command waits for workers to carry out a decision.
	decisionWait = 5 * time.Second
	// firstLook and lastLook are how long it waits between two looks at the ledger.
	firstLook = 100 * time.Millisecond
	lastLook  = time.Second
)

// followThrough waits until the stored entry of every key shows what was
// decided, but not for workers that do not run. left is for how many it does
// not; shows is true for each other key once.
func (a *app) followThrough(ctx context.Context, v broker.Vendor, keys []ledger.Key, shows func(*ledger.Entry) bool) (left int, err error) {
	open := map[int]map[ledger.Key]bool{} // by partition
	for _, key := range keys {
		partition := broker.Partition(v.Name, key.Organization, v.Partitions)
		if open[partition] == nil {
			open[partition] = map[ledger.Key]bool{}
		}
		open[partition][key] = true
	}
	deadline := time.Now().Add(decisionWait)
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		left = 0
		for partition, of := range open {
			err := a.broker.Ledger(v.Name).Load(ctx, partition, func(e ledger.Entry) error {
				if of[e.Key] && shows(&e) {
					delete(of, e.Key)
				}
				return nil
			})
			if err != nil {
				return len(keys), err
			}
			if left += len(of); len(of) == 0 {
				delete(open, partition)
			}
		}
		owners, err := a.broker.Owners(ctx, v.Name)
		if err != nil {
			return left, err
		}
		owned := false
		for partition := range open {
			owned = owned || owners[partition] != ""
		}
		if !owned || time.Now().After(deadline) {
			return left, nil
		}
		select {
		case <-ctx.Done():
			return left, ctx.Err()
		case <-time.After(wait):
		}
	}
}
