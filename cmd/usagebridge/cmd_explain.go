package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) explainCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "explain EVENT-ID",
		Short: "Say what became of an event, and why",
		Long: `Finds every event with this id in the log, in batches too, and says of each what
became of it: its disposition, its key and value, which figure was there before
and which came after, whether and when the partner accepted it, and where the key
stands now.

Without --integration the logs of all vendors are read, which takes a few seconds
for a million events.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.id = args[0]
			if err := q.parse(); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				found, err := a.explain(ctx, q)
				if err != nil {
					return err
				}
				return c.showExplanations(found)
			})
		},
	}
	c.integrationFlag(cmd, &q.integration, "only events of this vendor/organization")
	cmd.Flags().StringVar(&q.source, "source", "", "only events of this CloudEvents source")
	return cmd
}

// question is which event to explain.
type question struct {
	id, source, integration string

	vendor, organization string
}

func (q *question) parse() (err error) {
	if q.id == "" {
		return usagef("the event id is empty")
	}
	if q.integration == "" {
		return nil
	}
	if q.vendor, q.organization, err = parseIntegration(q.integration); err != nil {
		return usagef("--%w", err)
	}
	return nil
}

func (q *question) asks(id, source string) bool {
	return id == q.id && (q.source == "" || source == q.source)
}

// explain answers the question, oldest occurrence first.
func (a *app) explain(ctx context.Context, q question) ([]explanation, error) {
	vendors, err := a.vendorsOf(ctx, q.vendor)
	if err != nil {
		return nil, err
	}
	var all []explanation
	messages := 0
	for _, vendor := range vendors {
		s := search{app: a, vendor: vendor, limits: a.config.limits(), histories: map[ledger.Key]*history{}}
		found, err := s.find(ctx, q)
		if err != nil {
			return nil, err
		}
		messages += s.messages
		for i := range found {
			explained, err := s.explain(ctx, &found[i])
			if err != nil {
				return nil, err
			}
			all = append(all, explained...)
		}
		letters, err := s.lettersOf(ctx, q, found)
		if err != nil {
			return nil, err
		}
		all = append(all, letters...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s was not found: searched %s, and their dead letters", q.String(), searched(q, vendors, messages))
	}
	return all, nil
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

// search reads what is stored of one vendor.
type search struct {
	app       *app
	vendor    broker.Vendor
	limits    event.Limits
	messages  int // looked at
	histories map[ledger.Key]*history
}

// find lists every event of the log that the question asks for.
func (s *search) find(ctx context.Context, q question) ([]occurrence, error) {
	vendor, organization := event.Escape(s.vendor.Name), "*"
	if q.organization != "" {
		organization = event.Escape(q.organization)
	}
	var found []occurrence
	subjects := []string{
		event.FamilyUsage + ".v1." + vendor + "." + organization + ".>",
		event.FamilyCatalog + ".v1." + vendor + "." + organization + ".>",
	}
	err := s.app.broker.ReadLog(ctx, s.vendor.Name, subjects, func(m event.Message) error {
		s.messages++
		if !mayName(&m, q.id) {
			return nil
		}
		for _, o := range occurrencesIn(m, s.limits) {
			if q.asks(o.id, o.source) {
				found = append(found, o)
			}
		}
		return nil
	})
	return found, err
}

// explain says what became of one occurrence, for each key that it concerns.
func (s *search) explain(ctx context.Context, o *occurrence) ([]explanation, error) {
	letter, err := s.letter(ctx, o.place())
	if err != nil {
		return nil, err
	}
	if o.fault != nil {
		return []explanation{explainDead(o, letter)}, nil //nolint:nilerr // the fault is what is explained
	}
	if place := o.message.Stream + "/" + o.event.Arrival.String(); letter == nil && place != o.place() {
		// A figure that was given up is parked where its original arrived.
		if letter, err = s.letter(ctx, place); err != nil {
			return nil, err
		}
		if letter != nil && !ofCall(letter.Fault.Reason) {
			letter = nil
		}
	}
	var all []explanation
	for _, op := range o.operations {
		h, err := s.history(ctx, op.Key)
		if err != nil {
			return nil, err
		}
		all = append(all, h.explain(o, op, letter))
	}
	return all, nil
}

// letter is the dead letter of an id, nil when there is none.
func (s *search) letter(ctx context.Context, id string) (*broker.StoredLetter, error) {
	l, err := s.app.broker.Letter(ctx, id)
	if errors.Is(err, broker.ErrNoLetter) {
		return nil, nil // the absence of a letter is no error
	}
	if err != nil {
		return nil, err
	}
	return &l, nil
}

// lettersOf explains the dead letters of events that the log no longer has.
func (s *search) lettersOf(ctx context.Context, q question, found []occurrence) ([]explanation, error) {
	var all []explanation
	f := broker.LetterFilter{Vendor: s.vendor.Name, Organization: q.organization}
	err := s.app.broker.Letters(ctx, f, func(l broker.StoredLetter) error {
		v := viewLetter(&l)
		known := slices.ContainsFunc(found, func(o occurrence) bool { return o.place() == l.ID })
		if known || !q.asks(v.EventID, v.Source) {
			return nil
		}
		o := occurrence{message: l.Original, index: l.Index, fault: &l.Fault, id: v.EventID, source: v.Source}
		x := explainDead(&o, &l)
		x.say("The log no longer has the event itself.")
		all = append(all, x)
		return nil
	})
	return all, err
}

// history reads everything that is known of a key.
func (s *search) history(ctx context.Context, key ledger.Key) (*history, error) {
	if h := s.histories[key]; h != nil {
		return h, nil
	}
	h := &history{key: key}
	s.histories[key] = h
	if err := s.readLog(ctx, h); err != nil {
		return nil, err
	}
	calls := broker.CallFilter{Operation: key.Kind.String(), Account: key.Account, Service: key.Service}
	err := s.app.broker.Calls(ctx, s.vendor.Name, key.Organization, calls, func(c ledger.Call) error {
		h.calls = append(h.calls, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if h.stored, err = s.entry(ctx, key); err != nil {
		return nil, err
	}
	return h, s.readGates(ctx, h)
}

// readLog reads the events that concern the key, and looks whether the log has
// lost any.
func (s *search) readLog(ctx context.Context, h *history) error {
	subject := event.Subject{Vendor: s.vendor.Name, Organization: h.key.Organization, Account: h.key.Account, Service: h.key.Service}
	batch := subject
	subject.Kind, batch.Kind = event.Kind(h.key.Kind.String()), event.KindBatch
	err := s.app.broker.ReadLog(ctx, s.vendor.Name, []string{subject.String(), batch.String()}, func(m event.Message) error {
		for _, o := range occurrencesIn(m, s.limits) {
			if slices.ContainsFunc(o.operations, func(op ledger.Operation) bool { return op.Key == h.key }) {
				o.message.Data, o.message.Header = nil, nil // a key may have many
				h.log = append(h.log, o)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	everything := []string{event.FamilyUsage + ".v1.>", event.FamilyCatalog + ".v1.>"}
	err = s.app.broker.ReadLog(ctx, s.vendor.Name, everything, func(m event.Message) error {
		h.reachesBack = m.Sequence == 1
		return errEnough
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

var errEnough = errors.New("enough")

func (s *search) entry(ctx context.Context, key ledger.Key) (*ledger.Entry, error) {
	partition := broker.Partition(s.vendor.Name, key.Organization, s.vendor.Partitions)
	e, ok, err := s.app.broker.Ledger(s.vendor.Name).Read(ctx, partition, key)
	if err != nil || !ok {
		return nil, err
	}
	return &e, nil
}

// readGates finds what else keeps the key from being sent.
func (s *search) readGates(ctx context.Context, h *history) error {
	h.catalog = true
	if h.key.Kind == ledger.Count {
		for _, key := range []ledger.Key{h.key.AccountKey(), h.key.ServiceKey()} {
			e, err := s.entry(ctx, key)
			if err != nil {
				return err
			}
			h.catalog = h.catalog && e != nil && e.Posted()
		}
	}
	i, err := s.app.integration(ctx, s.vendor.Name, h.key.Organization)
	if err != nil && !errors.Is(err, broker.ErrNotFound) {
		return err
	}
	h.gate = gateOf(i) // of none at all if there is no record
	return nil
}

func (c *cli) showExplanations(list []explanation) error {
	if c.json {
		return c.printJSON(list)
	}
	for n, x := range list {
		var b strings.Builder
		if n > 0 {
			b.WriteString("\n")
		}
		b.WriteString("event " + printable(eventName(x.EventID, x.Source)) + "\n")
		b.WriteString("  integration " + printable(x.Integration))
		if x.Key != "" {
			b.WriteString(printable(", " + x.Type + ": " + x.Key + " is " + x.Value + " at " + instant(x.Time)))
		}
		b.WriteString("\n  stored as " + printable(x.Place))
		if !x.Stored.IsZero() {
			b.WriteString(" on " + instant(x.Stored))
		}
		if x.ReplayOf != "" {
			b.WriteString(", a replay of " + x.ReplayOf)
		}
		b.WriteString("\n\n")
		for _, sentence := range x.Sentences {
			b.WriteString("  " + printable(sentence) + "\n")
		}
		if _, err := fmt.Fprint(c.stdout, b.String()); err != nil {
			return err
		}
	}
	return nil
}
