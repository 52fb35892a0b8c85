package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

func (c *cli) auditCommand() *cobra.Command {
	return group("audit", "The audit log: what people did, and what workers did in their place", c.auditList())
}

// auditChoice says which actions are wanted. Zero fields choose everything.
type auditChoice struct {
	vendor, actor, action, object string

	since time.Time
	limit int
}

func (c *cli) auditList() *cobra.Command {
	var o auditChoice
	var since string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List who did what and why, the newest first",
		Long: `Lists what is on record in the audit log, the newest first: who did what to what,
and why. All flags that are given must hold. With --json each action has its
details, too, such as the filter of a replay and every dead letter of a drop.`,
		Example: `  usagebridge audit ls --vendor acme --since 7d
  usagebridge audit ls --object EVENTS_acme/4711`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&o.vendor, "vendor", "", "only actions that concern this vendor or an integration of it")
	flags.StringVar(&o.actor, "actor", "", "only actions of this person or worker")
	flags.StringVar(&o.action, "action", "", "only actions with this text in their name, such as stopped or dropped")
	flags.StringVar(&o.object, "object", "", "only what was done to this: a dead letter, a replay, an approval, a backfill, a service, or vendor/organization")
	flags.StringVar(&since, "since", "", "only actions since then: a time such as 2026-11-20T12:00:00Z, or how long ago, such as 2h or 7d")
	flags.IntVar(&o.limit, "limit", 100, "list at most so many; 0: all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.parse(cmd, since, time.Now()); err != nil {
			return usageError{err}
		}
		return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error { return c.listActions(ctx, a, &o) })
	}
	return cmd
}

// parse lists everything that is wrong with the flags. One that is given and
// empty is a mistake, most likely of a shell variable.
func (o *auditChoice) parse(cmd *cobra.Command, since string, now time.Time) error {
	var errs []error
	for _, name := range []string{"vendor", "actor", "action", "object", "since"} {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			errs = append(errs, fmt.Errorf("--%s is empty: leave it out to choose everything", name))
		}
	}
	if o.vendor != "" {
		if err := event.CheckID(o.vendor); err != nil {
			errs = append(errs, fmt.Errorf("--vendor %q: %w", o.vendor, err))
		}
	}
	if since != "" {
		var err error
		if o.since, err = deadletter.ParseMoment(since, now); err != nil {
			errs = append(errs, fmt.Errorf("--since %q: %w", since, err))
		}
	}
	if o.limit < 0 {
		errs = append(errs, fmt.Errorf("--limit %d: want how many to list, or 0 for all", o.limit))
	}
	return errors.Join(errs...)
}

// match says whether an action is wanted.
func (o *auditChoice) match(done *action) bool {
	integration := strings.HasPrefix(done.Integration, o.vendor+"/")
	object := done.Object == o.object || done.Integration == o.object || slices.Contains(done.Objects, o.object)
	return (o.vendor == "" || done.Vendor == o.vendor || integration) &&
		(o.actor == "" || done.Actor == o.actor) &&
		strings.Contains(strings.ToLower(done.Action), strings.ToLower(o.action)) &&
		(o.object == "" || object) &&
		!done.At.Before(o.since)
}

// listActions lists actions, and says what is not listed.
func (c *cli) listActions(ctx context.Context, a *app, o *auditChoice) error {
	list, more := []action{}, false
	err := a.actions(ctx, o.since, func(done action) (further bool) {
		if !o.match(&done) {
			return true
		}
		if more = o.limit > 0 && len(list) == o.limit; !more {
			list = append(list, done)
		}
		return !more
	})
	if err != nil {
		return err
	}
	if len(list) == 0 && o.vendor != "" {
		if _, err := a.knownVendor(ctx, o.vendor); err != nil {
			return err
		}
	}
	if c.json {
		return c.printJSON(list)
	}
	if len(list) == 0 {
		c.say("no such action is on record")
		return nil
	}
	rows := make([][]string, len(list))
	for i := range list {
		done := &list[i]
		rows[i] = []string{
			done.At.UTC().Format(time.RFC3339), printable(cut(done.Actor, 40)), printable(done.Action), printable(cut(done.what(), 80)), or(printable(cut(done.Why, 100)), "-"),
		}
	}
	if err := c.table([]string{"TIME", "ACTOR", "ACTION", "WHAT", "WHY"}, rows); err != nil {
		return err
	}
	if more {
		c.say("the newest %d are listed; --limit 0 lists all", len(list))
	}
	return nil
}

// what is what the action was done to.
func (done *action) what() string {
	parts := []string{or(done.Integration, done.Vendor)}
	switch n := len(done.Objects); {
	case done.Object != "":
		parts = append(parts, done.Object)
	case n == 1:
		parts = append(parts, done.Objects[0])
	case n > 1:
		parts = append(parts, fmt.Sprintf("%s and %d more", done.Objects[0], n-1))
	}
	return or(strings.TrimSpace(strings.Join(parts, " ")), "-")
}

const (
	// actionsTogether is how many actions are read at a time, actionLookups how
	// many of them at once: each costs a round trip.
	actionsTogether = 128
	actionLookups   = 16
)

// actions yields what is on record, the newest first, until yield wants no
// further ones. It may leave out what came before since.
func (a *app) actions(ctx context.Context, since time.Time, yield func(action) (further bool)) error {
	stream, err := a.jetStream(ctx, broker.StreamAudit)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // nothing was ever set up
	}
	if err != nil {
		return err
	}
	state := stream.CachedInfo().State
	for last := state.LastSeq; last >= max(state.FirstSeq, 1); {
		first := max(state.FirstSeq, 1, last-min(last, actionsTogether)+1)
		messages := make([]*jetstream.RawStreamMsg, last-first+1)
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(actionLookups)
		for i := range messages {
			group.Go(func() (err error) {
				messages[i], err = stream.GetMsg(ctx, last-uint64(i))
				if errors.Is(err, jetstream.ErrMsgNotFound) {
					return nil
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		for _, m := range messages {
			if m == nil {
				continue
			}
			var done action
			if err := json.Unmarshal(m.Data, &done); err != nil {
				a.log.Warn("action on record cannot be read", "sequence", m.Sequence, "err", err)
				continue
			}
			if m.Time.Before(since) || !yield(done) { // it is on record after it was done
				return nil
			}
		}
		last = first - 1
	}
	return nil
}
