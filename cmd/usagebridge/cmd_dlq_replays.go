package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
)

func (c *cli) dlqReplays() *cobra.Command {
	return group("replays", "Replays of dead letters: how far they are, and what to do with them",
		c.replaysList(), c.replaysShow(),
		c.replaysChange("pause", "paused", "Let a replay rest", func(j *deadletter.Job) error { return j.Pause() }),
		c.replaysChange("resume", "resumed", "Let a replay go on", func(j *deadletter.Job) error { return j.Resume() }),
		c.replaysChange("cancel", "cancelled", "End a replay; what it has not replayed stays a dead letter",
			func(j *deadletter.Job) error { return j.Cancel(time.Now()) }),
	)
}

// replayView is a replay as it is shown.
type replayView struct {
	deadletter.Job

	Live         bool    `json:"live"` // a worker works on it
	Kept         int     `json:"kept"` // the sum of left
	Gone         int     `json:"gone"`
	SecondsLeft  float64 `json:"seconds_left,omitempty"`
	SecondsTaken float64 `json:"seconds_taken,omitempty"`
}

func viewReplay(j *deadletter.Job, now time.Time) replayView {
	return replayView{
		Job: *j, Live: j.State == deadletter.Running && j.Live(now), Kept: j.Kept(), Gone: j.Gone(),
		SecondsLeft: j.Remaining().Seconds(), SecondsTaken: j.Took(now).Seconds(),
	}
}

// replayState is the state in a word: a replay that should run waits until a
// worker takes it, and one that should rest does so when its worker has seen it.
func replayState(j *deadletter.Job, now time.Time) string {
	switch {
	case j.Free(now):
		return "waiting"
	case j.State == deadletter.Paused && j.Live(now):
		return "pausing"
	}
	return string(j.State)
}

func (c *cli) replaysList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List replays, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				bucket, err := a.replays(ctx)
				if err != nil {
					return err
				}
				all, err := bucket.All(ctx)
				if err != nil {
					return err
				}
				return c.listReplays(all, time.Now())
			})
		},
	}
}

func (c *cli) listReplays(all map[string]deadletter.Job, now time.Time) error {
	views := []replayView{}
	rows := [][]string{}
	waiting := []string{}
	ids := slices.Sorted(maps.Keys(all))
	slices.Reverse(ids)
	for _, id := range ids {
		j := all[id]
		views = append(views, viewReplay(&j, now))
		rows = append(rows, []string{
			id, replayState(&j, now), strconv.Itoa(j.Letters), strconv.Itoa(j.Replayed), strconv.Itoa(j.Kept()),
			ago(j.Created, now), printable(cut(j.Actor, 20)), printable(cut(j.Why, 60)),
		})
		if j.Free(now) {
			waiting = append(waiting, id)
		}
	}
	if c.json {
		return c.printJSON(views)
	}
	if len(rows) == 0 {
		c.say("no replays")
		return nil
	}
	if err := c.table([]string{"ID", "STATE", "LETTERS", "REPLAYED", "LEFT", "BEGUN", "BY", "WHY"}, rows); err != nil {
		return err
	}
	if len(waiting) > 0 {
		c.say("no worker runs %s: is one running (`usagebridge run`)?", strings.Join(waiting, ", "))
	}
	return nil
}

func (c *cli) replaysShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one replay: what it replays, and how far it is",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				bucket, err := a.replays(ctx)
				if err != nil {
					return err
				}
				j, _, err := bucket.Get(ctx, args[0])
				if err != nil {
					return unknownReplay(args[0], err)
				}
				return c.showReplay(&j, time.Now())
			})
		},
	}
}

func unknownReplay(id string, err error) error {
	if errors.Is(err, broker.ErrNotFound) {
		return usagef("replay %q is unknown; `usagebridge dlq replays ls` lists the known ones", id)
	}
	return err
}

func (c *cli) showReplay(j *deadletter.Job, now time.Time) error {
	if c.json {
		return c.printJSON(viewReplay(j, now))
	}
	rows := [][]string{
		{"id", j.ID},
		{"state", replayState(j, now)},
		{"filter", or(j.Filter.String(), "none: all letters")},
		{"edit", cut(string(j.Edit), 200)},
		{"why", j.Why},
		{"begun", instant(j.Created) + ", " + ago(j.Created, now) + ", by " + j.Actor},
		{"letters", fmt.Sprintf("%d of %s", j.Letters, plural(len(j.Parts), "integration", "integrations"))},
	}
	for _, line := range replayResult(j) {
		rows = append(rows, line[:])
	}
	switch {
	case j.Over() && !j.Started.IsZero():
		rows = append(rows, []string{"took", roughly(j.Took(now))})
	case j.Live(now):
		rows = append(rows, []string{"runner", j.Runner}, []string{"remaining", "about " + roughly(j.Remaining())})
	}
	rows = append(rows, []string{"trouble", j.Trouble})
	rows = slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" })
	for _, row := range rows {
		row[1] = printable(row[1])
	}
	if err := c.table(nil, rows); err != nil {
		return err
	}
	if j.Free(now) {
		c.say("no worker runs it: is one running (`usagebridge run`)?")
	}
	return nil
}

// replayResult says what has become of the letters so far.
func replayResult(j *deadletter.Job) [][2]string {
	rows := [][2]string{{"replayed", strconv.Itoa(j.Replayed)}}
	if j.Superseded > 0 {
		rows = append(rows, [2]string{"superseded", fmt.Sprintf("%d when it was planned: newer figures were in the ledger, or are in this replay", j.Superseded)})
	}
	if n := j.Kept(); n > 0 {
		rows = append(rows, [2]string{"left", fmt.Sprintf("%d: %s", n, countReasons(j.Left))})
	}
	if n := j.Gone(); n > 0 {
		text := fmt.Sprintf("%d: dropped or replayed by somebody else meanwhile", n)
		if j.Takeovers > 0 {
			text += ", or replayed just before a worker was lost"
		}
		rows = append(rows, [2]string{"gone", text})
	}
	return rows
}

// replaysChange is a command that changes what is wanted of a replay.
func (c *cli) replaysChange(word, done, short string, change func(*deadletter.Job) error) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   word + " ID --why TEXT",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return usagef("--why is missing: whoever is on call next will want to know")
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				return c.changeReplay(ctx, a, args[0], done, why, change)
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

func (c *cli) changeReplay(ctx context.Context, a *app, id, done, why string, change func(*deadletter.Job) error) error {
	bucket, err := a.replays(ctx)
	if err != nil {
		return err
	}
	before := deadletter.JobState("")
	job, err := bucket.Update(ctx, id, func(j *deadletter.Job) error {
		before = j.State
		if err := change(j); err != nil {
			return err
		}
		if j.State == before {
			return errNothingToDo
		}
		return nil
	})
	switch {
	case errors.Is(err, errNothingToDo):
		c.say("replay %s is %s already", id, before)
		return nil
	case errors.Is(err, deadletter.ErrEnded):
		return usagef("replay %s cannot be %s: %w", id, done, err)
	case err != nil:
		return unknownReplay(id, err)
	}
	detail := fmt.Sprintf("was %s; %d of %s replayed", before, job.Replayed, plural(job.Letters, "letter", "letters"))
	err = a.audit(ctx, action{Actor: operator(), Action: "replay " + done, Object: id, Why: why, Detail: detail, At: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("replay %s was %s, but that is not on record: %w", id, done, err)
	}
	c.say("replay %s: %s", id, done)
	return nil
}

const (
	followEvery = 500 * time.Millisecond
	followLines = 5 * time.Second // between lines, where stderr is no terminal
)

// follower shows how far a replay is.
type follower struct {
	to       io.Writer
	live     bool
	shown    time.Time
	noWorker bool // it has been said
	begun    time.Time
	replayed int // letters done when it was looked at first
	first    bool
}

// followReplay watches a replay until it ends or rests. An interrupt ends the
// watching alone. A flood of dead letters may stop a vendor meanwhile.
func (c *cli) followReplay(ctx context.Context, stops *stopTeller, bucket *broker.Bucket[deadletter.Job], id string) error {
	f := &follower{to: c.stderr, live: isTerminal(c.stderr), begun: time.Now(), shown: time.Now(), first: true}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	looked := time.Now() // at the vendors
	for {
		j, _, err := bucket.Get(ctx, id)
		over := j.State != deadletter.Running && !j.Live(time.Now())
		if err == nil && !over && time.Since(looked) >= followLines {
			looked, err = time.Now(), stops.tell(ctx, j.Parts, f.clear)
		}
		switch {
		case ctx.Err() != nil:
			f.clear()
			c.say("the replay goes on: look with `usagebridge dlq replays show %s`, stop it with `usagebridge dlq replays pause %s --why …`", id, id)
			return nil
		case err != nil:
			f.clear()
			return fmt.Errorf("watch replay %s, which goes on: %w", id, err)
		}
		if over {
			f.clear()
			return errors.Join(c.endReplay(&j, time.Now()), stops.tell(ctx, j.Parts, f.clear))
		}
		f.show(&j, time.Now())
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// endReplay prints what came of a replay that has ended or rests.
func (c *cli) endReplay(j *deadletter.Job, now time.Time) error {
	if err := c.showReplay(j, now); err != nil {
		return err
	}
	if j.State != deadletter.Done || j.Kept() > 0 {
		return partlyf("replay %s is %s: %d of %s replayed", j.ID, j.State, j.Replayed, plural(j.Letters, "letter", "letters"))
	}
	return nil
}

func (f *follower) clear() {
	if f.live {
		_, _ = io.WriteString(f.to, "\r\x1b[K")
	}
}

func (f *follower) show(j *deadletter.Job, now time.Time) {
	done := j.Replayed + j.Kept()
	if f.first {
		f.first, f.replayed = false, done
	}
	switch {
	case j.Free(now) && now.Sub(f.begun) > followLines && !f.noWorker:
		f.clear()
		_, _ = io.WriteString(f.to, "no worker has taken the replay: is one running (`usagebridge run`)?\n")
		f.noWorker = true
		return
	case f.live:
		_, _ = io.WriteString(f.to, "\r\x1b[K"+f.line(j, done, now))
	case now.Sub(f.shown) >= followLines:
		f.shown = now
		_, _ = io.WriteString(f.to, f.line(j, done, now)+"\n")
	}
}

func (f *follower) line(j *deadletter.Job, done int, now time.Time) string {
	text := fmt.Sprintf("%d of %d", done, j.Letters)
	if n := j.Kept(); n > 0 {
		text += fmt.Sprintf(" (%d left)", n)
	}
	if j.Free(now) {
		return text + ", waiting for a worker"
	}
	perSecond := float64(done-f.replayed) / max(now.Sub(f.begun).Seconds(), 1)
	text += fmt.Sprintf(", %.1f/s, about %s left", perSecond, roughly(f.remaining(j, done, perSecond)))
	if j.Trouble != "" {
		text += ", trying again: " + printable(cut(j.Trouble, 80))
	}
	return text
}

// remaining is what the pace promises, or more if it does not come true.
func (f *follower) remaining(j *deadletter.Job, done int, perSecond float64) time.Duration {
	paced := j.Remaining()
	if perSecond <= 0 || done == f.replayed {
		return paced
	}
	return max(paced, time.Duration(float64(j.Letters-done)/perSecond*float64(time.Second)))
}
