package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
)

// replayChoice is what a person says of a replay beside which letters.
type replayChoice struct {
	plan, yes, detach    bool
	why, edit            string
	share, limit, sample int
}

// inEditor is the value of --edit when it is given none.
const inEditor = "$EDITOR"

func (c *cli) dlqReplay() *cobra.Command {
	var o replayChoice
	cmd := &cobra.Command{
		Use:   "replay [--plan | --yes --why TEXT]",
		Short: "Publish the events of dead letters again, as a planned and paced job",
		Long: `Judges the chosen dead letters again, as a worker would that received their events
now, and says what a replay would come to. With --yes it is stored as a job, which
a worker runs at a share of each integration's rate, so that live figures keep the
rest. Nothing older is ever put over a newer figure: a replay keeps the place of
its original. Letters that would fail again stay where they are.

--edit applies a JSON Patch (RFC 6902) to each event first, and an event that the
ledger may know gets an id of its own, ID-edited-…, unless the edit sets one. A
letter to which it does not apply, such as one whose value a test operation finds
different, stays.
Without a file it opens one letter in $VISUAL or $EDITOR.`,
		Example: "  usagebridge dlq replay --integration acme/msp-0042 --reason rejected --plan\n" +
			"  usagebridge dlq replay --filter fingerprint=1a2b3c4d --edit=fix.json --yes --why \"service was renamed\"",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && o.edit == inEditor {
				return fmt.Errorf("%q is no argument: a patch is given as --edit=%s", args[0], args[0])
			}
			return cobra.NoArgs(cmd, args)
		},
	}
	chosen := c.letterFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := chosen.filter(time.Now())
		if err := errors.Join(o.check(), err); err != nil {
			return usageError{err}
		}
		return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error { return c.replay(ctx, a, filter, o) })
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.plan, "plan", false, "only say what a replay would do")
	flags.BoolVar(&o.yes, "yes", false, "do it")
	flags.StringVar(&o.why, "why", "", "the reason, kept in the audit log")
	flags.StringVar(&o.edit, "edit", "", "apply this `PATCH.json` to each event first")
	flags.Lookup("edit").NoOptDefVal = inEditor
	flags.IntVar(&o.share, "share", 25, "percent of each integration's rate, 1 to 100")
	flags.IntVar(&o.limit, "limit", 0, "only the first so many letters; 0: all")
	flags.IntVar(&o.sample, "sample", 5, "show so many letters, and so many of those that would fail again")
	flags.BoolVar(&o.detach, "detach", false, "do not watch the replay")
	return cmd
}

// check lists everything that is wrong with the flags.
func (o *replayChoice) check() error {
	var errs []error
	complain := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	complain(o.plan && o.yes, "--plan and --yes: give one of them, first the one and then the other")
	complain(o.yes && o.why == "", "--why is missing: whoever is on call next will want to know")
	complain(o.share < 1 || o.share > 100, "--share %d: want percent of each integration's rate, 1 to 100", o.share)
	complain(o.limit < 0, "--limit %d: want how many letters to replay, or 0 for all", o.limit)
	complain(o.sample < 0, "--sample %d: want how many letters to show, or 0 for none", o.sample)
	complain(o.detach && !o.yes, "--detach: there is nothing to watch without --yes")
	return errors.Join(errs...)
}

// lettersToReplay yields dead letters (deadletter.Letters).
func (a *app) lettersToReplay(ctx context.Context, f deadletter.Filter, yield func(deadletter.StoredLetter) error) error {
	return a.letters(ctx, f, func(l broker.StoredLetter) error {
		return yield(deadletter.StoredLetter{Letter: l.Letter, Sequence: l.Sequence})
	})
}

// replay plans a replay, and begins it if that is what was asked for.
func (c *cli) replay(ctx context.Context, a *app, f deadletter.Filter, o replayChoice) error {
	edit, err := c.readEdit(ctx, a, f, o.edit)
	if errors.Is(err, errUnchanged) {
		c.say("the event is unchanged: nothing replayed")
		return nil
	}
	if err != nil {
		return err
	}
	plan, err := deadletter.NewPlan(ctx, a.lettersToReplay, a.judge(edit), deadletter.PlanConfig{
		Filter: f, Limit: o.limit, Sample: o.sample, Share: o.share, Rate: a.config.PartnerRate, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	if plan.Letters == 0 && !c.json {
		c.say("no dead letter matches")
		return nil
	}
	stops := newStopTeller(c, a)
	if !o.yes {
		if err := c.showPlan(plan); err != nil {
			return err
		}
		if err := stops.tell(ctx, plan.Parts, func() {}); err != nil {
			return err
		}
		if !o.plan {
			c.say("nothing replayed: add --yes --why \"…\"")
		}
		return nil
	}
	if plan.Published() == 0 {
		err := c.showPlan(plan)
		if err == nil {
			err = partlyf("nothing replayed: each of the letters would fail again")
		}
		return err
	}
	return c.beginReplay(ctx, stops, plan, edit, o)
}

// beginReplay stores the job and puts it on record, then watches it.
func (c *cli) beginReplay(ctx context.Context, stops *stopTeller, plan *deadletter.Plan, edit *deadletter.Edit, o replayChoice) error {
	a, now, actor := stops.app, time.Now(), operator()
	job, err := deadletter.NewJob(plan, edit, actor, o.why, now)
	if errors.Is(err, deadletter.ErrTooMany) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	bucket, err := a.replays(ctx)
	if err != nil {
		return err
	}
	if err := bucket.Create(ctx, job.ID, job); err != nil {
		return err
	}
	done := action{
		Actor: actor, Action: "replayed", Vendor: plan.Filter.Vendor, Object: job.ID, Why: o.why, Detail: replayDetail(plan, edit), At: now.UTC(),
	}
	if plan.Filter.Organization != "" {
		done.Integration, done.Vendor = plan.Filter.Vendor+"/"+plan.Filter.Organization, ""
	}
	if err := a.audit(ctx, done); err != nil {
		return fmt.Errorf("replay %s was begun, but that is not on record: %w", job.ID, err)
	}
	c.say("replay %s: %s, about %s", job.ID, plural(plan.Letters, "letter", "letters"), roughly(plan.Duration()))
	c.sayFailing(plan)
	if err := stops.tell(ctx, plan.Parts, func() {}); err != nil {
		return fmt.Errorf("replay %s was begun: %w", job.ID, err)
	}
	switch {
	case a.embedded != nil:
		c.say("no worker is running: the replay begins with the next `usagebridge run`")
	case !o.detach:
		return c.followReplay(ctx, stops, bucket, job.ID)
	}
	if c.json {
		return c.printJSON(viewReplay(&job, now))
	}
	return nil
}

// sayFailing names letters of a replay that stay where they are.
func (c *cli) sayFailing(p *deadletter.Plan) {
	for _, s := range p.Failing {
		c.say("%s stays: %s", s.ID, printable(whyLeft(&s)))
	}
	if n := p.Outcomes[deadletter.Left] - len(p.Failing); n > 0 {
		c.say("and %d more that would fail again", n)
	}
}

// whyLeft is what is in the way of a letter. Most problems name it themselves.
func whyLeft(s *deadletter.Specimen) string {
	obstacle := string(s.Obstacle)
	if strings.Contains(s.Problem, obstacle+": ") || strings.Contains(s.Problem, obstacle+" at ") {
		return s.Problem
	}
	return obstacle + ": " + s.Problem
}

// replayDetail says in the audit log what was chosen, and how much it was.
func replayDetail(p *deadletter.Plan, edit *deadletter.Edit) string {
	parts := []string{"filter " + or(p.Filter.String(), "none"), plural(p.Letters, "letter", "letters")}
	if n := p.Outcomes[deadletter.Superseded]; n > 0 {
		parts = append(parts, fmt.Sprintf("superseded %d", n))
	}
	if len(p.Left) > 0 {
		parts = append(parts, "left "+countReasons(p.Left))
	}
	if edit != nil {
		parts = append(parts, "edited by "+cut(string(edit.Patch()), 1000))
	}
	return strings.Join(parts, "; ")
}

// outcomeMeaning says what becomes of a letter with the outcome.
func outcomeMeaning(o deadletter.Outcome) string {
	switch o {
	case deadletter.Applies:
		return "a newer figure than the ledger has"
	case deadletter.Requeued:
		return "still the desired figure of a key that has failed: sent again"
	case deadletter.Superseded:
		return "a newer figure is in the ledger or in this replay"
	case deadletter.Known:
		return "the ledger has this event: the replay changes nothing"
	case deadletter.Left:
		return "would fail again, and stays a dead letter"
	}
	return ""
}

func (c *cli) showPlan(p *deadletter.Plan) error {
	if c.json {
		return c.printJSON(p)
	}
	rows := [][]string{{"letters", fmt.Sprintf("%d of %s, for %s", p.Letters,
		plural(len(p.Parts), "integration", "integrations"), plural(p.Keys, "key", "keys"))}}
	for _, o := range deadletter.Outcomes() {
		if n := p.Outcomes[o]; n > 0 {
			text := fmt.Sprintf("%d: %s", n, outcomeMeaning(o))
			if o == deadletter.Left {
				text += " (" + countReasons(p.Left) + ")"
			}
			rows = append(rows, []string{string(o), text})
		}
	}
	rows = append(rows, []string{"takes", fmt.Sprintf("about %s, at %s letters per second and integration (%d %% of the limit)",
		roughly(p.Duration()), strconv.FormatFloat(p.Pace, 'g', 3, 64), p.Share)})
	if err := c.table(nil, rows); err != nil {
		return err
	}
	if err := c.showSpecimens("Sample", p.Sample); err != nil {
		return err
	}
	shown := func(s deadletter.Specimen) bool {
		return slices.ContainsFunc(p.Sample, func(t deadletter.Specimen) bool { return t.ID == s.ID })
	}
	further := slices.DeleteFunc(slices.Clone(p.Failing), shown)
	if err := c.showSpecimens("Would fail again", further); err != nil {
		return err
	}
	if n := p.Outcomes[deadletter.Left] - len(p.Failing); n > 0 {
		c.say("and %d more would fail again", n)
	}
	return nil
}

// showSpecimens lists letters, each with its edit.
func (c *cli) showSpecimens(title string, list []deadletter.Specimen) error {
	if len(list) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s:\n", title)
	for _, s := range list {
		about := string(s.Outcome)
		if s.Obstacle != "" {
			about = whyLeft(&s)
		}
		fmt.Fprintf(&b, "  %s  %s  %s  %s\n", s.ID, printable(s.Integration), or(printable(s.Key), "-"), printable(cut(about, 200)))
		for _, line := range diffDocuments(s.Before, s.After) {
			b.WriteString("      " + line + "\n")
		}
	}
	_, err := fmt.Fprint(c.stdout, b.String())
	return err
}

// roughly says how long something takes, as people do.
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return "a second"
	case d < 100*time.Second:
		return plural(int(d.Round(time.Second).Seconds()), "second", "seconds")
	case d < 100*time.Minute:
		return plural(int(d.Round(time.Minute).Minutes()), "minute", "minutes")
	}
	return fmt.Sprintf("%.1f hours", d.Hours())
}

var errUnchanged = errors.New("unchanged")

// readEdit is the edit of --edit: nil for none, a patch from a file, or what a
// person made of one letter in an editor.
func (c *cli) readEdit(ctx context.Context, a *app, f deadletter.Filter, from string) (*deadletter.Edit, error) {
	switch from {
	case "":
		return nil, nil //nolint:nilnil // no edit is no mistake
	case inEditor:
		return c.editOne(ctx, a, f)
	}
	patch, err := os.ReadFile(from)
	if err != nil {
		return nil, usagef("--edit: %w", err)
	}
	edit, err := deadletter.ParseEdit(patch)
	if err != nil {
		return nil, usagef("--edit=%s: %w", from, err)
	}
	return edit, nil
}

// editOne opens the only letter that the filter chooses in an editor.
func (c *cli) editOne(ctx context.Context, a *app, f deadletter.Filter) (*deadletter.Edit, error) {
	var only broker.StoredLetter
	matching := 0
	err := a.letters(ctx, f, func(l broker.StoredLetter) error {
		only = l
		matching++
		return nil
	})
	if err != nil {
		return nil, err
	}
	if matching != 1 {
		return nil, usagef("--edit without a file edits one letter, and %d match: choose one with --filter id=…, or give a JSON Patch for all with --edit=FILE", matching)
	}
	text, err := only.JSON()
	if err != nil {
		text = only.Original.Data // nobody can read it: that is what is to be mended
	}
	before := []byte(prettyDocument(text) + "\n")
	after, path, err := c.openEditor(ctx, before)
	if err != nil {
		return nil, err
	}
	if string(after) == string(before) {
		_ = os.Remove(path)
		return nil, errUnchanged
	}
	edit, err := deadletter.Replace(after)
	if err != nil {
		return nil, usagef("%w: nothing replayed; what you wrote is kept in %s", err, path)
	}
	_ = os.Remove(path)
	return edit, nil
}
