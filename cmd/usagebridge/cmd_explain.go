package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) explainCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "explain (ID | --integration VENDOR/ORGANIZATION --key ACCOUNT/SERVICE)",
		Short: "Say what became of an event, of a snapshot or of a key, and why",
		Long: `Finds every event with this id in the log, in batches too, and says of each what
became of it: its disposition, its key and value, which figure was there before
and which came after, whether and when the partner accepted it, and where the key
stands now. Of a part of a snapshot it says where the whole snapshot stands. If no
event has the id, the snapshot with this snapshotId is explained.

With --key it explains a key instead: what is desired and where that comes from, what
the partner has, what keeps the one from being the other, and the last figures. Give
--account and --service instead of --key if an id has a slash in it, and one of them
alone for an account or a service.

Without --integration the logs of all vendors are read, which takes a few seconds
for a million events.`,
		Example: `  usagebridge explain 01J9Z3K8
  usagebridge explain --integration acme/msp-0042 --key a-17/backup`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := q.parse(args); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				if q.aboutKey() {
					found, err := a.explainKey(ctx, q)
					if err != nil {
						return err
					}
					return c.showKeyExplanation(found)
				}
				found, err := a.explain(ctx, q)
				if err != nil {
					return err
				}
				return c.showExplanations(found)
			})
		},
	}
	flags := cmd.Flags()
	c.integrationFlag(cmd, &q.integration, "only events of this vendor/organization; the integration of --key")
	flags.StringVar(&q.source, "source", "", "only events of this CloudEvents source")
	flags.StringVar(&q.key, "key", "", "explain the count of this ACCOUNT/SERVICE")
	flags.StringVar(&q.account, "account", "", "the account of the key to explain")
	flags.StringVar(&q.service, "service", "", "the service of the key to explain")
	flags.IntVar(&q.figures, "figures", 10, "with --key, list at most so many figures, the newest first; 0: all")
	return cmd
}

// question is what to explain: an event, a snapshot or a key.
type question struct {
	id, source, integration string
	key, account, service   string
	figures                 int

	vendor, organization string
}

// aboutKey says whether a key is asked for.
func (q *question) aboutKey() bool { return q.key != "" || q.account != "" || q.service != "" }

func (q *question) parse(args []string) error {
	var errs []error
	add := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	asked := len(args) > 0
	if asked {
		q.id = args[0]
	}
	add(asked && q.id == "", "the event id is empty")
	add(asked && q.aboutKey(), "the id %q and a key contradict each other: ask for one of them", q.id)
	add(!asked && !q.aboutKey(), "nothing says what to explain: give the id of an event or of a snapshot, or --integration and --key")
	add(q.aboutKey() && q.integration == "", "--integration is missing: a key belongs to one vendor/organization, such as acme/msp-0042")
	add(q.aboutKey() && q.source != "", "--source is about events: leave it out with a key")
	add(q.figures < 0, "--figures %d: want how many to list, or 0 for all", q.figures)
	if q.key != "" {
		errs = append(errs, q.parseKey())
	}
	if q.integration != "" {
		var err error
		if q.vendor, q.organization, err = parseIntegration(q.integration); err != nil {
			errs = append(errs, fmt.Errorf("--%w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

// parseKey takes --key apart.
func (q *question) parseKey() error {
	if q.account != "" || q.service != "" {
		return errors.New("--key contradicts --account and --service: give it, or them")
	}
	account, service, _ := strings.Cut(q.key, "/")
	if account == "" || service == "" || strings.Contains(service, "/") {
		return fmt.Errorf("--key %q: want ACCOUNT/SERVICE with one slash; give --account and --service if an id has a slash in it, "+
			"and one of them alone for an account or a service", q.key)
	}
	q.account, q.service = account, service
	return nil
}

// ledgerKey is the key that is asked for.
func (q *question) ledgerKey() ledger.Key {
	switch {
	case q.service == "":
		return ledger.AccountKey(q.organization, q.account)
	case q.account == "":
		return ledger.ServiceKey(q.organization, q.service)
	}
	return ledger.CountKey(q.organization, q.account, q.service)
}

func (q *question) asks(id, source string) bool {
	return id == q.id && (q.source == "" || source == q.source)
}

// asksSnapshot says whether the event is a part of the snapshot that is asked for.
func (q *question) asksSnapshot(o *occurrence) bool {
	if o.event == nil {
		return false
	}
	s, ok := o.event.Data.(event.Snapshot)
	return ok && q.asks(s.SnapshotID, o.source)
}

// explain answers the question, oldest occurrence first.
func (a *app) explain(ctx context.Context, q question) ([]explanation, error) {
	vendors, err := a.vendorsOf(ctx, q.vendor)
	if err != nil {
		return nil, err
	}
	var events, snapshots []explanation
	messages := 0
	for _, vendor := range vendors {
		s, err := a.search(ctx, vendor)
		if err != nil {
			return nil, err
		}
		found, err := s.find(ctx, q)
		if err != nil {
			return nil, err
		}
		messages += s.messages
		of, err := s.explainAll(ctx, q, found)
		if err != nil {
			return nil, err
		}
		events = append(events, of...)
		if len(events) > 0 {
			continue // an id of an event is meant
		}
		of, err = s.explainSnapshots(ctx, q, found)
		if err != nil {
			return nil, err
		}
		snapshots = append(snapshots, of...)
	}
	switch {
	case len(events) > 0:
		return events, nil
	case len(snapshots) > 0:
		return snapshots, nil
	}
	return nil, fmt.Errorf("%s was not found: searched %s, and their dead letters", q.String(), searched(q, vendors, messages))
}

func (q *question) String() string { return "event " + eventName(q.id, q.source) }

func searched(q question, vendors []broker.Vendor, messages int) string {
	if q.integration != "" {
		return fmt.Sprintf("%s of %s", plural(messages, "message", "messages"), q.integration)
	}
	names := make([]string, len(vendors))
	for i, v := range vendors {
		names[i] = v.Name
	}
	if len(names) == 0 {
		return "no vendor, since none is set up"
	}
	return fmt.Sprintf("%s of all integrations of %s", plural(messages, "message", "messages"), strings.Join(names, ", "))
}

func (c *cli) showExplanations(list []explanation) error {
	if c.json {
		return c.printJSON(list)
	}
	for n := range list {
		var b strings.Builder
		if n > 0 {
			b.WriteString("\n")
		}
		list[n].write(&b, lineWidth(c.stdout))
		if _, err := fmt.Fprint(c.stdout, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// write writes the explanation for people.
func (x *explanation) write(b *strings.Builder, width int) {
	if x.EventID == "" && x.Snapshot != nil {
		b.WriteString("snapshot " + printable(x.Snapshot.Name) + "\n")
	} else {
		b.WriteString("event " + printable(eventName(x.EventID, x.Source)) + "\n")
	}
	about := "integration " + x.Integration
	switch {
	case x.Key != "":
		about += ", " + x.Type + ": " + x.Key + " is " + x.Value + " at " + instant(x.Time)
	case x.Type != "":
		about += ", " + x.Type + " at " + instant(x.Time)
	}
	b.WriteString(paragraph(printable(about), width))
	if x.Place != "" {
		where := "stored as " + x.Place
		if !x.Stored.IsZero() {
			where += " on " + instant(x.Stored)
		}
		if x.ReplayOf != "" {
			where += ", a replay of " + x.ReplayOf
		}
		b.WriteString(paragraph(printable(where), width))
	}
	b.WriteString("\n")
	for _, sentence := range x.Sentences {
		b.WriteString(paragraph(printable(sentence), width))
	}
}
