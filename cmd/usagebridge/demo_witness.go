package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// readings are the worker's metrics at about one moment.
type readings struct {
	received     int
	dispositions map[ledger.Disposition]int
	keys         map[ledger.State]int
	letters      int
	notReady     int // integrations that take no counts yet
}

// open is how many keys the partner does not have as desired.
func (r *readings) open() int { return total(r.keys) - r.keys[ledger.Synced] }

// readMetrics gathers the metrics as a scrape would.
func readMetrics(gatherer prometheus.Gatherer) (readings, error) {
	r := readings{dispositions: map[ledger.Disposition]int{}, keys: map[ledger.State]int{}}
	families, err := gatherer.Gather()
	if err != nil {
		return r, fmt.Errorf("gather metrics: %w", err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			n := int(metric.GetCounter().GetValue() + metric.GetGauge().GetValue())
			switch family.GetName() {
			case "usagebridge_events_received_total":
				r.received += n
			case "usagebridge_events_total":
				r.dispositions[ledger.Disposition(labels["disposition"])] += n
			case "usagebridge_ledger_keys":
				r.keys[ledger.State(labels["state"])] += n
			case "usagebridge_dead_letters_total":
				r.letters += n
			case "usagebridge_partner_gate_closed":
				if labels["reason"] == string(ledger.IntegrationNotReady) {
					r.notReady += n
				}
			}
		}
	}
	return r, nil
}

// pending is how many messages of the log no worker has acknowledged.
func (d *demo) pending(ctx context.Context) (int, error) {
	js, err := jetstream.New(d.app.broker.Conn())
	if err != nil {
		return 0, fmt.Errorf("use JetStream: %w", err)
	}
	stream, err := js.Stream(ctx, broker.EventsStream(demoVendor))
	if err != nil {
		return 0, fmt.Errorf("look up the log: %w", err)
	}
	n := 0
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		n += int(info.NumPending) + info.NumAckPending
	}
	if err := list.Err(); err != nil {
		return 0, fmt.Errorf("list the consumers of the log: %w", err)
	}
	return n, nil
}

// witness collects the evidence for the checks.
func (d *demo) witness(ctx context.Context) (*demoEvidence, error) {
	seen := &demoEvidence{
		partner: d.partner.Report(), tape: d.partner.Tape(),
		dropped: int(d.feed.dropped.Load()), letters: map[event.Reason]int{}, limit: d.config.PartnerRate,
	}
	r, err := readMetrics(d.registry)
	if err != nil {
		return nil, err
	}
	seen.received, seen.dispositions = r.received, r.dispositions
	log, err := d.app.broker.Vendor(ctx, demoVendor)
	if err != nil {
		return nil, err
	}
	seen.stored = int(log.Messages)
	if seen.pending, err = d.pending(ctx); err != nil {
		return nil, err
	}
	err = d.app.broker.Letters(ctx, broker.LetterFilter{Vendor: demoVendor}, func(l broker.StoredLetter) error {
		seen.letters[l.Fault.Reason]++
		return nil
	})
	if err != nil {
		return nil, err
	}
	if r.open() > 0 {
		seen.open, err = d.unsynced(ctx, log.Partitions)
	}
	return seen, err
}

// unsynced lists the keys of the ledger that the partner does not have as
// desired, and why.
func (d *demo) unsynced(ctx context.Context, partitions int) ([]string, error) {
	var open []string
	for partition := range partitions {
		err := d.app.broker.Ledger(demoVendor).Load(ctx, partition, func(e ledger.Entry) error {
			if e.Key.Kind.Figure() && e.State != ledger.Synced {
				open = append(open, printable(strings.TrimSpace(fmt.Sprintf("%s is %s %s", e.Key, e.State, e.Reason))))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(open)
	return open, nil
}

// demoStep is one status of an integration.
type demoStep struct {
	Status  status.Status `json:"status"`
	Cause   string        `json:"cause"`
	Seconds float64       `json:"after_seconds"` // since the demo began
}

// journeys reads the way of every integration's status from the status log.
func (d *demo) journeys(ctx context.Context) (map[string][]demoStep, error) {
	js, err := jetstream.New(d.app.broker.Conn())
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	stream, err := js.Stream(ctx, broker.StreamStatus)
	if err != nil {
		return nil, fmt.Errorf("look up the status log: %w", err)
	}
	state := stream.CachedInfo().State
	ways := map[string][]demoStep{}
	for sequence := state.FirstSeq; sequence <= state.LastSeq; sequence++ {
		m, err := stream.GetMsg(ctx, sequence)
		if err != nil {
			return nil, fmt.Errorf("read the status log at %d: %w", sequence, err)
		}
		var e struct {
			Subject string            `json:"subject"`
			Time    time.Time         `json:"time"`
			Data    status.Transition `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &e); err != nil {
			return nil, fmt.Errorf("read the status log at %d: %w", sequence, err)
		}
		ways[e.Subject] = append(ways[e.Subject], demoStep{Status: e.Data.To, Cause: e.Data.Cause, Seconds: e.Time.Sub(d.began).Seconds()})
	}
	for _, name := range slices.Collect(maps.Keys(ways)) {
		slices.SortStableFunc(ways[name], func(a, b demoStep) int { return int(1000 * (a.Seconds - b.Seconds)) })
	}
	return ways, nil
}
