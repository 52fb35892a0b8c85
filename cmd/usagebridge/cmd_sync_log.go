package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// followPoll is how often --follow looks for new calls.
const followPoll = time.Second

// callChoice says which calls are wanted.
type callChoice struct {
	syncChoice

	filter  broker.CallFilter
	since   time.Duration
	verdict string
	follow  bool
}

// verdicts are the words for what became of a call, as the log has them.
var verdicts = []string{"delivered", "retry", "hold", "hold_all", "throttled", "unanswered", "split", "dead"}

func (o *callChoice) parse(now time.Time) error {
	if err := o.syncChoice.parse(); err != nil {
		return err
	}
	if o.since < 0 {
		return usagef("--since %v: want how far to look back, such as 1h", o.since)
	}
	if o.verdict != "" && !slices.Contains(verdicts, o.verdict) {
		return usagef("--verdict %q: want one of %v", o.verdict, verdicts)
	}
	if o.since > 0 {
		o.filter.Since = now.Add(-o.since)
	}
	return nil
}

func (c *cli) syncLog() *cobra.Command {
	var o callChoice
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Show the calls made to the partner, each with its answer",
		Long: `Shows one line for each call to the partner, oldest first: what was sent, which
attempt it was, what the partner answered, and what that was taken to mean. The
log reaches back 30 days, or as far as its size allows.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(time.Now()); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error { return c.showCalls(ctx, a, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.vendor, "vendor", "", "only calls of this vendor")
	flags.StringVar(&o.integration, "integration", "", "only calls of this vendor/organization")
	flags.StringVar(&o.filter.Operation, "operation", "", "only account, service, count, mapping or read")
	flags.StringVar(&o.filter.Account, "account", "", "only calls that name this account")
	flags.StringVar(&o.filter.Service, "service", "", "only calls that name this service")
	flags.StringVar(&o.verdict, "verdict", "", "only calls that were taken for this: delivered, retry, hold, hold_all, throttled, unanswered, split or dead")
	flags.DurationVar(&o.since, "since", time.Hour, "how far to look back; 0: as far as the log reaches")
	flags.BoolVar(&o.follow, "follow", false, "go on with what comes, until interrupted")
	return cmd
}

// showCalls writes calls as they are read: a log can be long.
func (c *cli) showCalls(ctx context.Context, a *app, o callChoice) error {
	vendors := []string{o.vendor}
	if o.vendor == "" {
		known, err := a.broker.Vendors(ctx)
		if err != nil {
			return err
		}
		vendors = vendors[:0]
		for _, v := range known {
			vendors = append(vendors, v.Name)
		}
	}
	logs := make([]callLog, len(vendors))
	for i, vendor := range vendors {
		logs[i] = callLog{vendor: vendor, choice: o, seen: map[ledger.Call]bool{}}
	}
	shown := 0
	for {
		for i := range logs {
			err := logs[i].read(ctx, a.broker, func(call ledger.Call) error {
				shown++
				return c.showCall(logs[i].vendor, call)
			})
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		if !o.follow {
			c.say("%d calls", shown)
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPoll):
		}
	}
}

// callOverlap is how far each reading of a followed log looks back: calls that
// end together are not recorded in the order in which they ended.
const callOverlap = 30 * time.Second

// callLog is the log of one vendor, read from where the last reading ended.
type callLog struct {
	vendor string
	choice callChoice
	newest time.Time
	seen   map[ledger.Call]bool // recent ones, when the log is followed
}

func (l *callLog) read(ctx context.Context, b *broker.Broker, yield func(ledger.Call) error) error {
	filter := l.choice.filter
	if !l.newest.IsZero() {
		filter.Since = l.newest.Add(-callOverlap)
	}
	err := b.Calls(ctx, l.vendor, l.choice.organization, filter, func(call ledger.Call) error {
		if l.choice.verdict != "" && call.Verdict != l.choice.verdict || l.seen[call] {
			return nil
		}
		if l.choice.follow {
			l.seen[call] = true
		}
		if call.At.After(l.newest) {
			l.newest = call.At
		}
		return yield(call)
	})
	maps.DeleteFunc(l.seen, func(call ledger.Call, _ bool) bool { return call.At.Before(l.newest.Add(-2 * callOverlap)) })
	return err
}

// callView is a call as programs read it.
type callView struct {
	Integration string `json:"integration"`
	ledger.Call

	UnitCount string `json:"unit_count,omitempty"`
}

func (c *cli) showCall(vendor string, call ledger.Call) error {
	value := call.Properties
	if call.Operation == ledger.Count.String() {
		value = event.Units(call.Units).String()
	}
	if c.json {
		v := callView{Integration: vendor + "/" + call.Organization, Call: call}
		if call.Operation == ledger.Count.String() {
			v.UnitCount = value
		}
		return json.NewEncoder(c.stdout).Encode(v)
	}
	status := "no answer"
	if call.Status != 0 {
		status = strconv.Itoa(call.Status)
	}
	what := target(call)
	if value != "" {
		what += " = " + value
	}
	_, err := fmt.Fprintf(c.stdout, "%s  %s  %-7s  %s  attempt %d  %s  %s  %s\n",
		call.At.UTC().Format("2006-01-02T15:04:05.000Z"), printable(vendor+"/"+call.Organization), call.Operation,
		printable(what), call.Attempt, status, call.Verdict, printable(call.Message))
	return err
}

// target is what the call names.
func target(call ledger.Call) string {
	switch {
	case call.Account != "" && call.Service != "":
		return call.Account + "/" + call.Service
	case call.Operation == delivery.OperationMapping:
		return "catalog"
	case call.Operation == delivery.OperationRead:
		return "status and accounts"
	}
	return call.Account + call.Service
}
