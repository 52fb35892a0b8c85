package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

const (
	// droppedTogether is how many letters one record of the audit log names.
	droppedTogether = 1000
	// auditGrace is how long an interrupted command may take to put on record
	// how far it came.
	auditGrace = 5 * time.Second
)

func (c *cli) dlqDrop() *cobra.Command {
	var o struct {
		why      string
		yes, all bool
	}
	cmd := &cobra.Command{
		Use:   "drop --filter NAME=VALUE [--yes --why TEXT]",
		Short: "Remove dead letters for good",
		Long: `Removes the dead letters that the filters choose, for good: neither the event nor
what was wrong with it can be seen afterwards. Without --yes it says how many would
go, and removes none. The audit log keeps who dropped which letters and why.
"usagebridge dlq export" with the same filters saves them before.`,
		Example: `  usagebridge dlq drop --fingerprint 1f0c2d3e --why "test data of the publisher" --yes
  usagebridge dlq drop --filter id=EVENTS_acme/4711 --why "published again" --yes`,
		Args: cobra.NoArgs,
	}
	choice := c.letterFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.why, "why", "", "the reason, kept in the audit log")
	flags.BoolVar(&o.yes, "yes", false, "drop them; without it, only say how many would go")
	flags.BoolVar(&o.all, "all", false, "drop every dead letter of every vendor")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := choice.filter(time.Now())
		switch {
		case err != nil:
			return err
		case filter.IsZero() && !o.all:
			return usagef("nothing says which dead letters to drop: name at least one filter, such as --fingerprint, or --all for every one of them")
		case !filter.IsZero() && o.all:
			return usagef("--all and %s contradict each other: give the filters alone", filter)
		case o.yes && o.why == "":
			return usagef("--why is missing: whoever looks for these events next will want to know")
		}
		return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
			return c.dropLetters(ctx, a, filter, o.why, o.yes)
		})
	}
	return cmd
}

// dropView is what a drop did, or would do.
type dropView struct {
	Letters int                  `json:"letters"` // that the filter chose
	Reasons map[event.Reason]int `json:"reasons"`
	Dropped int                  `json:"dropped"`
}

func (c *cli) dropLetters(ctx context.Context, a *app, f deadletter.Filter, why string, yes bool) error {
	v := dropView{Reasons: map[event.Reason]int{}}
	d := letterDrop{app: a, filter: f, actor: operator(), why: why}
	err := a.letters(ctx, f, func(l broker.StoredLetter) error {
		d.ids, d.sequences = append(d.ids, l.ID), append(d.sequences, l.Sequence)
		v.Reasons[l.Fault.Reason]++
		return nil
	})
	if err != nil {
		return err
	}
	v.Letters = len(d.ids)
	letters := plural(v.Letters, "dead letter", "dead letters")
	if v.Letters > 0 {
		letters += ": " + countReasons(v.Reasons)
	}
	if yes {
		v.Dropped, err = d.run(ctx)
	}
	switch {
	case err != nil:
		c.say("%d of %s were dropped", v.Dropped, letters)
	case yes:
		c.say("dropped %s", letters)
	case v.Letters == 0:
		c.say("no dead letters")
	default:
		c.say("would drop %s", letters)
		c.say("nothing dropped: add --yes --why \"…\"")
	}
	if c.json {
		err = errors.Join(err, c.printJSON(v))
	}
	if err != nil && v.Dropped > 0 {
		return partlyf("drop dead letters: %w", err)
	}
	return err
}

// letterDrop removes letters, and puts each on record before.
type letterDrop struct {
	app        *app
	filter     deadletter.Filter
	actor, why string
	ids        []string
	sequences  []uint64
}

// run says how many letters are gone.
func (d *letterDrop) run(ctx context.Context) (dropped int, err error) {
	for dropped < len(d.ids) {
		end := min(dropped+droppedTogether, len(d.ids))
		if err = d.record(ctx, "dead letters dropped", dropped, end, ""); err != nil {
			err = fmt.Errorf("put on record what is dropped: %w", err)
		}
		for err == nil && dropped < end {
			if err = d.app.broker.DropLetter(ctx, d.sequences[dropped]); err == nil {
				dropped++
			}
		}
		if err != nil { // even if it was the record: it may be there nevertheless
			return dropped, errors.Join(err, d.correct(ctx, dropped, end))
		}
	}
	return dropped, nil
}

// correct puts on record which letters were announced, and not dropped.
func (d *letterDrop) correct(ctx context.Context, from, to int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditGrace)
	defer cancel()
	if err := d.record(ctx, "dead letters kept", from, to, "the drop was interrupted; the first of these may be gone"); err != nil {
		return fmt.Errorf("put on record what was not dropped: %w", err)
	}
	return nil
}

// record names the letters from one to before another in the audit log.
func (d *letterDrop) record(ctx context.Context, what string, from, to int, note string) error {
	done := action{
		Actor: d.actor, Action: what, Vendor: d.filter.Vendor, Objects: d.ids[from:to], Why: d.why, At: time.Now().UTC(),
		Detail: fmt.Sprintf("letters %d to %d of the %d chosen by %s", from+1, to, len(d.ids), or(d.filter.String(), "--all")),
	}
	if d.filter.Organization != "" {
		done.Integration = d.filter.Vendor + "/" + d.filter.Organization
	}
	if note != "" {
		done.Detail += ": " + note
	}
	return d.app.audit(ctx, done)
}
