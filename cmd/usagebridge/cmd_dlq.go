package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

func (c *cli) dlqCommand() *cobra.Command {
	return group("dlq", "Dead letters: events that can never be applied, figures that can never be delivered",
		c.dlqList(), c.dlqShow(), c.dlqExport(), c.dlqDrop(), c.dlqReplay(), c.dlqReplays())
}

func (c *cli) dlqList() *cobra.Command {
	var each bool
	var limit int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List dead letters: one line for each problem, or for each letter",
		Long: `Lists what is wrong with the dead letters, the most frequent first: letters with
the same reason and the same fingerprint have the same problem. The example is the
newest letter of its kind. With --each every letter has a line, the newest first.`,
		Example: `  usagebridge dlq ls --since 2h
  usagebridge dlq ls --each --integration acme/msp-1 --fingerprint 1f0c2d3e`,
		Args: cobra.NoArgs,
	}
	choice := c.letterFlags(cmd)
	cmd.Flags().BoolVar(&each, "each", false, "list every letter by itself")
	cmd.Flags().IntVar(&limit, "limit", 100, "list at most so many; 0: all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := choice.filter(time.Now())
		if err != nil {
			return err
		}
		if limit < 0 {
			return usagef("--limit %d: want how many to list, or 0 for all", limit)
		}
		list := c.listGroups
		if each {
			list = c.listLetters
		}
		return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error { return list(ctx, a, filter, limit) })
	}
	return cmd
}

// letterGroup is what letters with the same problem have in common.
type letterGroup struct {
	Reason       event.Reason `json:"reason"`
	Fingerprint  string       `json:"fingerprint"`
	Letters      int          `json:"letters"`
	Integrations int          `json:"integrations"`
	Integration  string       `json:"integration,omitempty"` // if there is but one
	Keys         int          `json:"keys"`                  // as far as letters name them
	First        time.Time    `json:"first"`                 // when it was parked
	Last         time.Time    `json:"last"`
	Problem      string       `json:"problem"` // of the newest letter, as its example
	Example      string       `json:"example"`

	integrations, keys map[string]struct{}
	newest             broker.StoredLetter
}

func (g *letterGroup) add(l *broker.StoredLetter) {
	g.Integration = l.Vendor + "/" + l.Organization
	g.integrations[g.Integration] = struct{}{}
	if key := deadletter.KeyOf(&l.Letter); key != "" {
		g.keys[g.Integration+"/"+key] = struct{}{}
	}
	if g.Letters == 0 || l.Parked.Before(g.First) {
		g.First = l.Parked
	}
	if !l.Parked.Before(g.Last) {
		g.Last, g.newest = l.Parked, *l
	}
	g.Letters++
}

// letterCensus counts letters by what is wrong with them.
type letterCensus struct {
	total   int
	reasons map[event.Reason]int
	groups  map[string]*letterGroup // by reason and fingerprint
}

func (s *letterCensus) add(l *broker.StoredLetter) {
	s.total++
	s.reasons[l.Fault.Reason]++
	fingerprint := l.Fingerprint()
	name := string(l.Fault.Reason) + " " + fingerprint
	g := s.groups[name]
	if g == nil {
		g = &letterGroup{Reason: l.Fault.Reason, Fingerprint: fingerprint, integrations: map[string]struct{}{}, keys: map[string]struct{}{}}
		s.groups[name] = g
	}
	g.add(l)
}

// largest lists the groups, the largest first.
func (s *letterCensus) largest() []letterGroup {
	list := make([]letterGroup, 0, len(s.groups))
	for _, g := range s.groups {
		if g.Integrations, g.Keys = len(g.integrations), len(g.keys); g.Integrations > 1 {
			g.Integration = ""
		}
		g.Problem, g.Example = g.newest.Title(), g.newest.ID
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b letterGroup) int {
		return cmp.Or(b.Letters-a.Letters, b.Last.Compare(a.Last), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return list
}

func (c *cli) listGroups(ctx context.Context, a *app, f deadletter.Filter, limit int) error {
	s := letterCensus{reasons: map[event.Reason]int{}, groups: map[string]*letterGroup{}}
	err := a.letters(ctx, f, func(l broker.StoredLetter) error {
		s.add(&l)
		return nil
	})
	if err != nil {
		return err
	}
	list := s.largest()
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	if c.json {
		return c.printJSON(list)
	}
	if s.total == 0 {
		c.say("no dead letters")
		return nil
	}
	now := time.Now()
	rows := make([][]string, len(list))
	for i, g := range list {
		rows[i] = []string{
			string(g.Reason), g.Fingerprint, strconv.Itoa(g.Letters), printable(or(cut(g.Integration, 40), strconv.Itoa(g.Integrations))),
			strconv.Itoa(g.Keys), ago(g.First, now), ago(g.Last, now), printable(cut(g.Problem, 60)), g.Example,
		}
	}
	header := []string{"REASON", "FINGERPRINT", "LETTERS", "INTEGRATIONS", "KEYS", "FIRST", "LAST", "PROBLEM", "EXAMPLE"}
	if err := c.table(header, rows); err != nil {
		return err
	}
	c.say("%s: %s", plural(s.total, "dead letter", "dead letters"), countReasons(s.reasons))
	if len(list) < len(s.groups) {
		c.say("the %d most frequent of %d problems are listed; --limit 0 lists all", len(list), len(s.groups))
	}
	return nil
}

// letterView is a dead letter without the event itself.
type letterView struct {
	ID          string       `json:"id"`
	Integration string       `json:"integration"`
	Reason      event.Reason `json:"reason"`
	Fingerprint string       `json:"fingerprint"`
	Pointer     string       `json:"pointer,omitempty"`
	Problem     string       `json:"problem"`
	Want        string       `json:"want,omitempty"`
	EventID     string       `json:"event_id,omitempty"`
	Source      string       `json:"source,omitempty"`
	Key         string       `json:"key,omitempty"`
	Attempts    int          `json:"attempts,omitempty"`
	Answer      string       `json:"answer,omitempty"`
	Subject     string       `json:"subject,omitempty"`
	Stored      time.Time    `json:"stored,omitzero"`
	Parked      time.Time    `json:"parked"`
	Worker      string       `json:"worker,omitempty"`
}

func viewLetter(l *broker.StoredLetter) letterView {
	v := letterView{
		ID: l.ID, Integration: l.Vendor + "/" + l.Organization, Reason: l.Fault.Reason, Fingerprint: l.Fingerprint(),
		Pointer: l.Fault.Pointer, Problem: l.Fault.Problem, Want: l.Fault.Want, Key: deadletter.KeyOf(&l.Letter),
		Attempts: l.Attempts, Answer: l.Answer, Subject: l.Original.Subject, Stored: l.Original.Stored, Parked: l.Parked, Worker: l.Worker,
	}
	v.EventID, v.Source = deadletter.Identity(&l.Letter)
	return v
}

// listLetters lists the newest letters and counts all of them.
func (c *cli) listLetters(ctx context.Context, a *app, f deadletter.Filter, limit int) error {
	list := []letterView{}
	reasons := map[event.Reason]int{}
	total := 0
	err := a.letters(ctx, f, func(l broker.StoredLetter) error {
		total++
		reasons[l.Fault.Reason]++
		list = append(list, viewLetter(&l))
		if limit > 0 && len(list) >= 2*limit { // the oldest go, now and then
			list = append(list[:0], list[len(list)-limit:]...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if limit > 0 && len(list) > limit {
		list = list[len(list)-limit:]
	}
	slices.Reverse(list)
	if c.json {
		return c.printJSON(list)
	}
	if total == 0 {
		c.say("no dead letters")
		return nil
	}
	now := time.Now()
	rows := make([][]string, len(list))
	for i, l := range list {
		rows[i] = []string{
			l.ID, printable(l.Integration), string(l.Reason), or(printable(cut(l.EventID, 40)), "-"),
			or(printable(cut(l.Pointer, 40)), "-"), printable(cut(l.Problem, 60)), ago(l.Parked, now),
		}
	}
	if err := c.table([]string{"ID", "INTEGRATION", "REASON", "EVENT", "WHERE", "PROBLEM", "PARKED"}, rows); err != nil {
		return err
	}
	c.say("%s: %s", plural(total, "dead letter", "dead letters"), countReasons(reasons))
	if len(list) < total {
		c.say("the newest %d are listed; --limit 0 lists all", len(list))
	}
	return nil
}

// countReasons writes "invalid 7, rejected 2", the most frequent first.
func countReasons[T ~string](reasons map[T]int) string {
	order := slices.SortedFunc(maps.Keys(reasons), func(a, b T) int {
		if reasons[a] != reasons[b] {
			return reasons[b] - reasons[a]
		}
		return strings.Compare(string(a), string(b))
	})
	parts := make([]string, len(order))
	for i, reason := range order {
		parts[i] = string(reason) + " " + strconv.Itoa(reasons[reason])
	}
	return strings.Join(parts, ", ")
}
