package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

func (c *cli) dlqCommand() *cobra.Command {
	return group("dlq", "Dead letters: events that can never be applied, figures that can never be delivered",
		c.dlqList(), c.dlqShow())
}

// letterChoice says which dead letters a person wants to see.
type letterChoice struct {
	vendor, integration, reason string
	limit                       int
}

func (o letterChoice) filter() (broker.LetterFilter, error) {
	f := broker.LetterFilter{Vendor: o.vendor, Reason: event.Reason(o.reason)}
	if o.reason != "" && !slices.Contains(event.Reasons(), f.Reason) {
		return f, usagef("--reason %q: want one of %s", o.reason, join(event.Reasons()))
	}
	if o.limit < 0 {
		return f, usagef("--limit %d: want how many to list, or 0 for all", o.limit)
	}
	if o.integration == "" {
		return f, nil
	}
	var err error
	if f.Vendor, f.Organization, err = parseIntegration(o.integration); err != nil {
		return f, usagef("--%w", err)
	}
	if o.vendor != "" && o.vendor != f.Vendor {
		return f, usagef("--vendor %s and --integration %s name different vendors: give one of them", o.vendor, o.integration)
	}
	return f, nil
}

func join[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = string(item)
	}
	return strings.Join(texts, ", ")
}

func (c *cli) dlqList() *cobra.Command {
	var o letterChoice
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List dead letters, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := o.filter()
			if err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				return c.listLetters(ctx, a, filter, o.limit)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.vendor, "vendor", "", "only letters of this vendor")
	c.integrationFlag(cmd, &o.integration, "only letters of this vendor/organization")
	flags.StringVar(&o.reason, "reason", "", "only letters with this reason: "+join(event.Reasons()))
	flags.IntVar(&o.limit, "limit", 100, "list at most so many; 0: all")
	return cmd
}

// letterView is a dead letter without the event itself.
type letterView struct {
	ID          string       `json:"id"`
	Integration string       `json:"integration"`
	Reason      event.Reason `json:"reason"`
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
		ID: l.ID, Integration: l.Vendor + "/" + l.Organization, Reason: l.Fault.Reason, Pointer: l.Fault.Pointer,
		Problem: l.Fault.Problem, Want: l.Fault.Want, EventID: l.EventID, Source: l.Source, Key: l.Key, Attempts: l.Attempts,
		Answer: l.Answer, Subject: l.Original.Subject, Stored: l.Original.Stored, Parked: l.Parked, Worker: l.Worker,
	}
	if v.EventID == "" { // an event that breaks the contract may still have a name
		v.EventID, v.Source = identity(l.Original.Header, l.Original.Data)
	}
	return v
}

// listLetters lists the newest letters and counts all of them.
func (c *cli) listLetters(ctx context.Context, a *app, f broker.LetterFilter, limit int) error {
	list := []letterView{}
	reasons := map[event.Reason]int{}
	total := 0
	err := a.broker.Letters(ctx, f, func(l broker.StoredLetter) error {
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

func (c *cli) dlqShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show one dead letter: the event, what is wrong with it, what would be right",
		Example: "  usagebridge dlq show EVENTS_acme/4711",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				l, err := a.broker.Letter(ctx, args[0])
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(fullLetter(&l))
				}
				return c.showLetter(&l)
			})
		},
	}
}

// letterDetail is a dead letter with the event as it was published.
type letterDetail struct {
	letterView

	Further    []faultView         `json:"further_problems,omitempty"`
	Deliveries int                 `json:"deliveries,omitempty"`
	Headers    map[string][]string `json:"headers,omitempty"`
	Body       any                 `json:"body"` // JSON if it is, else text
}

func fullLetter(l *broker.StoredLetter) letterDetail {
	d := letterDetail{
		letterView: viewLetter(l), Further: furtherProblems(l), Deliveries: l.Original.Deliveries,
		Headers: l.Original.Header, Body: string(l.Original.Data),
	}
	if json.Valid(l.Original.Data) {
		d.Body = json.RawMessage(l.Original.Data)
	}
	return d
}

// furtherProblems are those beside the one that the letter carries: whoever
// mends an event wants to know all of them at once.
func furtherProblems(l *broker.StoredLetter) []faultView {
	for _, r := range event.Decode(l.Original, event.Limits{Ahead: math.MaxInt64}) {
		if r.Fault != nil && r.Fault.Reason == l.Fault.Reason {
			return faultViews(0, r.Fault.Next)
		}
	}
	return nil
}

func (c *cli) showLetter(l *broker.StoredLetter) error {
	v := viewLetter(l)
	now := time.Now()
	rows := [][]string{
		{"id", v.ID},
		{"integration", v.Integration},
		{"reason", string(v.Reason) + ": " + reasonMeaning(v.Reason)},
		{"event", eventName(v.EventID, v.Source)},
		{"where", v.Pointer},
		{"problem", v.Problem},
		{"want", v.Want},
	}
	for _, f := range furtherProblems(l) {
		rows = append(rows, []string{"also", strings.TrimPrefix((&event.Fault{Pointer: f.Pointer, Problem: f.Problem, Want: f.Want}).Error(), " ")})
	}
	rows = append(rows, []string{"key", v.Key})
	if v.Attempts > 0 {
		rows = append(rows, []string{"partner", fmt.Sprintf("answered after %s: %s", plural(v.Attempts, "attempt", "attempts"), v.Answer)})
	}
	rows = append(rows, []string{"subject", v.Subject})
	if !v.Stored.IsZero() {
		rows = append(rows, []string{"stored", instant(v.Stored) + ", " + ago(v.Stored, now)})
	}
	rows = append(rows, []string{"parked", instant(v.Parked) + ", " + ago(v.Parked, now) + ", by " + v.Worker})
	for _, name := range slices.Sorted(maps.Keys(l.Original.Header)) {
		rows = append(rows, []string{"header", name + ": " + strings.Join(l.Original.Header[name], ", ")})
	}
	shown := rows[:0]
	for _, row := range rows {
		if row[1] != "" {
			shown = append(shown, []string{row[0], printable(row[1])})
		}
	}
	if err := c.table(nil, shown); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "\n%s\n", prettyBody(l.Original.Data))
	return err
}

// reasonMeaning is what the event contract says of a reason.
func reasonMeaning(r event.Reason) string {
	switch r {
	case event.ReasonMalformed:
		return "it is not JSON or not a CloudEvent"
	case event.ReasonInvalid:
		return "it violates the schema"
	case event.ReasonUnknownType:
		return "this version does not know its type"
	case event.ReasonSubjectMismatch:
		return "its subject and its data name different ids"
	case event.ReasonTooFarAhead:
		return "its time is in the future, where it would block every honest later value"
	case event.ReasonTooOld:
		return "it is older than the accepted lateness"
	case event.ReasonConflict:
		return "the same id and source came before with other content"
	case event.ReasonRejected:
		return "the partner refuses this value for good"
	case event.ReasonUndeliverable:
		return "the retry budget is spent"
	}
	return "this version does not know the reason"
}

// prettyBody indents JSON and keeps everything else as it is, apart from what
// would reach into the terminal.
func prettyBody(body []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, body, "", "  ") == nil {
		body = b.Bytes()
	}
	lines := strings.Split(strings.TrimRight(string(body), "\n"), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// instant writes a time exactly, in UTC.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// eventName names an event for people.
func eventName(id, source string) string {
	switch {
	case id == "":
		return ""
	case source == "":
		return id
	}
	return id + " of " + source
}
