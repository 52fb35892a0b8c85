package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

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
	further := furtherProblems(l)
	pointers := []string{l.Fault.Pointer}
	for _, f := range further {
		pointers = append(pointers, f.Pointer)
	}
	rows := letterRows(l, further)
	for _, name := range slices.Sorted(maps.Keys(l.Original.Header)) {
		row := []string{"header", name + ": " + strings.Join(l.Original.Header[name], ", ")}
		if slices.ContainsFunc(pointers, func(p string) bool { return strings.EqualFold(p, name) }) {
			row[1] += problemMark
		}
		rows = append(rows, row)
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
	if _, err := fmt.Fprintf(c.stdout, "\n%s\n", markedBody(l.Original.Data, l.Index, pointers)); err != nil {
		return err
	}
	c.say("%s", mending(l.Fault.Reason, l.ID))
	return nil
}

// letterRows is what is known of a letter, apart from headers and body.
func letterRows(l *broker.StoredLetter, further []faultView) [][]string {
	v, now := viewLetter(l), time.Now()
	rows := [][]string{
		{"id", v.ID},
		{"integration", v.Integration},
		{"reason", string(v.Reason) + ": " + reasonMeaning(v.Reason)},
		{"fingerprint", v.Fingerprint},
		{"event", eventName(v.EventID, v.Source)},
		{"where", v.Pointer},
		{"problem", v.Problem},
		{"want", v.Want},
	}
	for _, f := range further {
		rows = append(rows, []string{"also", strings.TrimPrefix((&event.Fault{Pointer: f.Pointer, Problem: f.Problem, Want: f.Want}).Error(), " ")})
	}
	rows = append(rows, []string{"key", v.Key})
	if v.Attempts > 0 {
		rows = append(rows, []string{"partner", fmt.Sprintf("answered after %s: %s", plural(v.Attempts, "attempt", "attempts"), or(v.Answer, "nothing that says why"))})
	}
	rows = append(rows, []string{"subject", v.Subject})
	if !v.Stored.IsZero() {
		rows = append(rows, []string{"stored", instant(v.Stored) + ", " + ago(v.Stored, now)})
	}
	return append(rows, []string{"parked", instant(v.Parked) + ", " + ago(v.Parked, now) + ", by " + v.Worker})
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

// mending says in one sentence how to mend a letter with the reason.
func mending(r event.Reason, id string) string {
	replay := "`usagebridge dlq replay --filter id=" + id + "`"
	edit := "`usagebridge dlq replay --filter id=" + id + " --edit`"
	switch r {
	case event.ReasonMalformed:
		return "To mend it, let its publisher send the event again as the contract wants it, then drop this letter: `usagebridge dlq drop --filter id=" + id + " --why TEXT`."
	case event.ReasonInvalid:
		return "To mend it, correct the event and replay it: " + edit + "."
	case event.ReasonUnknownType:
		return "To mend it, run a version that knows the type and replay it: " + replay + "; or correct the type: " + edit + "."
	case event.ReasonSubjectMismatch:
		return "To mend it, find out which ids are right, make the event name them, and replay it: " + edit + "."
	case event.ReasonTooFarAhead:
		return "To mend it, replay it once its time has come: " + replay + "; or correct the time, which gives the event an id of its own: " + edit + "."
	case event.ReasonTooOld:
		return "To mend it, let the workers accept older events by " + envPrefix + "_TOO_OLD and replay it: " + replay + "."
	case event.ReasonConflict:
		return "To mend it, if this figure is the right one, give the event an id of its own and replay it: " + edit + "."
	case event.ReasonRejected:
		return "To mend it, remove at the partner what its answer complains of, then replay it: " + replay + "; or correct the event, which gives it an id of its own: " + edit + "."
	case event.ReasonUndeliverable:
		return "To mend it, wait until the partner answers well again, then replay it: " + replay + "."
	}
	return "To mend it, run a version that knows the reason."
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
