package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) backfillsRevert() *cobra.Command {
	var vendor, why string
	var yes bool
	cmd := &cobra.Command{
		Use:   "revert ID --vendor VENDOR [--yes --why TEXT]",
		Short: "Take back all events of a backfill, as if they had never come",
		Long: `Every key whose figure came with the backfill goes back to the newest figure of
another origin, and the partner is sent that. A key with a newer figure keeps it. A
count of which nothing else is known becomes 0; an account or a service stays as it
is. Events of the backfill that come later have no effect. A revert cannot be undone:
to get the figures back, publish them again under another backfill id and new event
ids.

Without --yes it says what would become of how many keys, and does nothing.`,
		Example: `  usagebridge backfills revert correction-2026-10 --vendor acme
  usagebridge backfills revert correction-2026-10 --vendor acme --yes --why "the export had the wrong month"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkBackfill(args[0], vendor); err != nil {
				return err
			}
			if yes && why == "" {
				return usagef("--why is missing: whoever looks at these figures next will want to know")
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				b, err := a.backfill(ctx, vendor, args[0])
				if err != nil {
					return err
				}
				return c.revert(ctx, a, b, decision{Verdict: reverted, By: operator(), Why: why, At: time.Now().UTC()}, yes)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&vendor, "vendor", "", "the vendor whose backfill it is")
	flags.StringVar(&why, "why", "", "the reason, kept in the audit log")
	flags.BoolVar(&yes, "yes", false, "revert it; without it, only say what would happen")
	return cmd
}

// revertView is what a revert does, or would do.
type revertView struct {
	ID           string    `json:"id"`
	Vendor       string    `json:"vendor"`
	Integrations int       `json:"integrations"`
	Earlier      int       `json:"earlier"` // keys that go back to an earlier figure
	Nothing      int       `json:"nothing"` // counts that have no other figure and become 0
	Stay         int       `json:"stay"`    // accounts and services of which nothing else is known
	Waits        int       `json:"waits"`   // of the earlier ones, keys whose figure then waits for approval
	Newer        int       `json:"newer"`   // keys that have a newer figure and keep it
	Decision     *decision `json:"decision,omitempty"`
	Done         int       `json:"integrations_reverted"`
}

// effects counts what becomes of the keys.
func (u *undoing) effects() revertView {
	v := revertView{ID: u.backfill.id, Vendor: u.backfill.vendor.Name, Integrations: len(u.parts), Decision: u.backfill.word}
	now := time.Now()
	for i := range u.stands {
		next := u.after(&u.stands[i], now)
		switch desired, _ := next.Desired(); {
		case !desired.Unfounded():
			v.Earlier++
			if desired.Waits != ledger.NoWait {
				v.Waits++
			}
		case next.Key.Kind == ledger.Count:
			v.Nothing++
		default:
			v.Stay++
		}
	}
	for _, part := range u.parts {
		v.Newer += part.Newer
		if !part.Reverted.IsZero() {
			v.Done++
		}
	}
	return v
}

// tell says what becomes of the keys.
func (c *cli) tell(v *revertView) {
	c.say("  back to an earlier figure: %s", plural(v.Earlier, "key", "keys"))
	c.say("  to 0, because nothing else is known: %s", plural(v.Nothing, "key", "keys"))
	c.say("  as they are, because a newer figure stands: %s", plural(v.Newer, "key", "keys"))
	if v.Stay > 0 {
		c.say("  as they are, because the partner removes nothing: %s", plural(v.Stay, "account or service", "accounts and services"))
	}
	if v.Waits > 0 {
		c.say("  of those with an earlier figure, waiting for approval then (`usagebridge approvals ls --vendor %s`): %s",
			v.Vendor, plural(v.Waits, "key", "keys"))
	}
}

// revert takes a backfill back, or says what that would do.
func (c *cli) revert(ctx context.Context, a *app, b *backfill, word decision, yes bool) error {
	u, err := a.undoing(ctx, b)
	if err != nil {
		return err
	}
	v := u.effects()
	name := fmt.Sprintf("backfill %s of %s", printable(b.id), b.vendor.Name)
	switch {
	case b.word != nil:
		c.say("%s %s", name, b.word.line())
	case !yes:
		c.say("%s: reverting it would put, in %s,", name, plural(v.Integrations, "integration", "integrations"))
		c.tell(&v)
		c.say("nothing done: add --yes --why \"…\"")
	default:
		if err := a.revert(ctx, b, &word, &v); err != nil {
			return err
		}
		c.say("%s: reverted; that puts, in %s,", name, plural(v.Integrations, "integration", "integrations"))
		c.tell(&v)
	}
	if v.Decision = b.word; v.Decision != nil {
		if err := c.awaitRevert(ctx, a, b, &v); err != nil {
			return fmt.Errorf("%s is reverted, but whether workers have done so is unknown: %w", name, err)
		}
	}
	if c.json {
		return c.printJSON(v)
	}
	return nil
}

// revert writes the decision. Somebody else may have been faster.
func (a *app) revert(ctx context.Context, b *backfill, word *decision, v *revertView) error {
	bucket, err := broker.OpenBucket[decision](ctx, a.broker, broker.BucketDecisions)
	if err != nil {
		return err
	}
	b.word = word
	err = bucket.Create(ctx, backfillKey(b.vendor.Name, b.id), *word)
	if errors.Is(err, broker.ErrExists) {
		return nil // it is what was asked for
	}
	if err != nil {
		return err
	}
	err = a.audit(ctx, action{
		Actor: word.By, Action: "backfill reverted", Vendor: b.vendor.Name, Object: b.id, Why: word.Why, At: word.At,
		Detail: fmt.Sprintf("%s: %d keys back to an earlier figure, %d to 0, %d with a newer one",
			plural(v.Integrations, "integration", "integrations"), v.Earlier, v.Nothing, v.Newer),
	})
	if err != nil {
		return fmt.Errorf("backfill %s was reverted, but that is not on record: %w", b.id, err)
	}
	return nil
}

// awaitRevert waits until every register shows that the backfill is reverted.
func (c *cli) awaitRevert(ctx context.Context, a *app, b *backfill, v *revertView) error {
	keys := make([]ledger.Key, len(b.registers))
	for i := range b.registers {
		keys[i] = b.registers[i].Key
	}
	left, err := a.followThrough(ctx, b.vendor, keys, func(e *ledger.Entry) bool { return e.Register != nil && e.Register.Reverted != 0 })
	if err != nil {
		return err
	}
	v.Done = len(keys) - left
	if left > 0 {
		c.say("no worker has carried it out in %d of %s yet; it is done as soon as one runs", left, plural(len(keys), "integration", "integrations"))
		return nil
	}
	c.say("done in %s; what changed is sent now", plural(len(keys), "integration", "integrations"))
	return nil
}
