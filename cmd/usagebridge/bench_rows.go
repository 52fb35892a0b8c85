package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// lazySync is the default of nats-server.
const lazySync = 2 * time.Minute

// fold measures what NATS alone can do with the load, and what the fold makes
// of it, with one worker and with two.
func (b *bench) fold(ctx context.Context) error {
	load := b.options.load
	s, err := b.site(ctx, lazySync, load)
	if err != nil {
		return err
	}
	defer s.close()
	vendor, published, err := s.loaded(ctx)
	if err != nil {
		return err
	}
	b.report.add(benchRow{ID: "publish", What: "raw: publish", Figure: ratePerSecond(load.Events, published), Unit: "events/s"})
	used := processorTime()
	fetched, err := s.fetchAndAck(ctx, vendor)
	if err != nil {
		return err
	}
	b.report.add(benchRow{
		ID: "fetch", What: "raw: fetch and acknowledge", Figure: ratePerSecond(load.Events, fetched), Unit: "events/s", CPU: perEvent(processorTime()-used, load.Events),
	})
	for _, workers := range []int{1, 2} {
		row, err := s.foldRow(ctx, workers)
		if err != nil {
			return err
		}
		row.ID, row.What = "fold", "fold: decode, validate, dedupe, record, acknowledge"
		row.Mark = 0.55
		of := "fetch"
		if workers == 2 {
			row.ID, row.What, row.Mark, of = "fold-2", "fold with two workers", 0, "fold"
		}
		b.report.against(of, row)
	}
	return nil
}

// foldRow publishes the load for a vendor of its own and folds it.
func (s *benchSite) foldRow(ctx context.Context, workers int) (benchRow, error) {
	vendor, _, err := s.loaded(ctx)
	if err != nil {
		return benchRow{}, err
	}
	return s.foldVendor(ctx, vendor, workers)
}

// foldVendor folds what is in the vendor's log.
func (s *benchSite) foldVendor(ctx context.Context, vendor string, workers int) (row benchRow, err error) {
	team, err := s.team(ctx, vendor, workers)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, team.stop()) }()
	before, err := s.writes(ctx, vendor)
	if err != nil {
		return row, err
	}
	used := processorTime()
	took, err := team.release(ctx)
	if err != nil {
		return row, err
	}
	row = benchRow{Figure: ratePerSecond(s.load.Events, took), Unit: "events/s", CPU: perEvent(processorTime()-used, s.load.Events)}
	after, err := s.writes(ctx, vendor)
	row.Writes = float64(after-before) / float64(s.load.Events)
	return row, err
}

// writes is how many entries of the vendor's ledger were ever written.
func (s *benchSite) writes(ctx context.Context, vendor string) (uint64, error) {
	js, err := jetstream.New(s.broker.Conn())
	if err != nil {
		return 0, err
	}
	stream, err := js.Stream(ctx, "KV_"+broker.LedgerBucket(vendor))
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// foldSynced measures the same fold where every write is on the disk before it
// is acknowledged.
func (b *bench) foldSynced(ctx context.Context) error {
	s, err := b.site(ctx, 0, b.options.load)
	if err != nil {
		return err
	}
	defer s.close()
	vendor, published, err := s.loaded(ctx)
	if err != nil {
		return err
	}
	b.report.against("publish", benchRow{ID: "publish-synced", What: "raw: publish with sync_interval: always", Figure: ratePerSecond(s.load.Events, published), Unit: "events/s"})
	row, err := s.foldVendor(ctx, vendor, 1)
	if err != nil {
		return err
	}
	row.ID, row.What, row.Mark = "fold-synced", "the same fold with sync_interval: always", 0.60
	b.report.against("fold", row)
	return nil
}

// endToEnd measures until the partner has everything.
func (b *bench) endToEnd(ctx context.Context) error {
	for _, c := range []struct {
		row     benchRow
		latency time.Duration
		of      string
	}{
		{benchRow{ID: "end-to-end", What: "end to end, partner at 0 ms", Mark: 0.30}, 0, "fetch"},
		{benchRow{ID: "end-to-end-20", What: "end to end, partner at 20 ms"}, time.Duration(b.options.partnerMS) * time.Millisecond, "fetch"},
	} {
		s, err := b.site(ctx, lazySync, b.options.load)
		if err != nil {
			return err
		}
		figure, calls, keys, err := s.deliverAll(ctx, c.latency)
		s.close()
		if err != nil {
			return err
		}
		c.row.Figure, c.row.Unit = figure, "events/s"
		b.report.against(c.of, c.row)
		if c.latency == 0 {
			b.report.add(benchRow{
				ID: "calls-per-key", What: fmt.Sprintf("calls for %d keys of the backlog", keys), Figure: float64(calls) / float64(keys),
				Unit: "calls/key", Mark: 1.3, AtMost: true,
			})
		}
	}
	return nil
}

// deliverAll publishes the load and says how many events a second come through
// to the partner, in how many calls, of how many keys.
func (s *benchSite) deliverAll(ctx context.Context, latency time.Duration) (figure float64, calls, keys int, err error) {
	s.config.PartnerRate = 0
	team, partner, err := s.furnished(ctx, latency)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, team.stop(), partner.close()) }()
	if _, err := s.publish(ctx, team.vendor); err != nil {
		return 0, 0, 0, err
	}
	before, catalog := partner.counts.Load(), team.synced()
	started := time.Now()
	if _, err := team.release(ctx); err != nil {
		return 0, 0, 0, err
	}
	if err := until(ctx, "every count is at the partner", func() bool { return team.synced() >= catalog+s.keys }); err != nil {
		return 0, 0, 0, err
	}
	return ratePerSecond(s.load.Events, time.Since(started)), int(partner.counts.Load() - before), s.keys, nil
}

// calls measures calls to a partner that takes its time, with as many in flight
// by a lane as by a bare client.
func (b *bench) calls(ctx context.Context) error {
	o := b.options
	load := benchLoad{Events: o.calls, Keys: o.calls, Integrations: 1, EventBytes: o.load.EventBytes, Partitions: 1, Each: true}
	s, err := b.site(ctx, lazySync, load)
	if err != nil {
		return err
	}
	defer s.close()
	s.config.PartnerRate, s.config.PartnerConcurrency, s.config.Linger = 0, o.inFlight, 0
	latency := time.Duration(o.partnerMS) * time.Millisecond
	used := processorTime()
	bare, err := bareCalls(ctx, latency, o.calls, o.inFlight)
	if err != nil {
		return err
	}
	b.report.add(benchRow{ID: "http", CPU: perEvent(processorTime()-used, o.calls), What: fmt.Sprintf("raw: bare net/http client, partner at %d ms, %d in flight", o.partnerMS, o.inFlight), Figure: ratePerSecond(o.calls, bare), Unit: "calls/s"})
	took, used, err := s.laneCalls(ctx, latency)
	if err != nil {
		return err
	}
	b.report.against("http", benchRow{
		ID: "calls", What: "calls of one lane, recorded", Figure: ratePerSecond(o.calls, took), Unit: "calls/s", Mark: 0.85, CPU: perEvent(used, o.calls),
	})
	return nil
}

// laneCalls is how long one lane takes for one call of each key, and the
// processor time of all this, the partner's part included.
func (s *benchSite) laneCalls(ctx context.Context, latency time.Duration) (took, used time.Duration, err error) {
	team, partner, err := s.furnished(ctx, latency)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, team.stop(), partner.close()) }()
	if err := team.link(ctx, false); err != nil { // until everything is folded
		return 0, 0, err
	}
	if _, err := s.publish(ctx, team.vendor); err != nil {
		return 0, 0, err
	}
	if _, err := team.release(ctx); err != nil {
		return 0, 0, err
	}
	before := partner.counts.Load()
	used = processorTime()
	started := time.Now()
	if err := team.link(ctx, true); err != nil {
		return 0, 0, err
	}
	err = until(ctx, "every call is made", func() bool { return int(partner.counts.Load()-before) >= s.keys })
	return time.Since(started), processorTime() - used, err
}

// growth measures what an event costs with a small ledger and with a large one,
// and what it costs when nearly every event is of another key.
func (b *bench) growth(ctx context.Context) error {
	few, many := b.options.fewKeys, b.options.manyKeys
	for _, c := range []struct {
		keys, active int
		row          benchRow
	}{
		{few, few, benchRow{ID: "cost-few", What: fmt.Sprintf("processor time of an event, %d keys in the ledger", few)}},
		{many, few, benchRow{ID: "cost-many", What: fmt.Sprintf("the same with %d keys in the ledger", many), Mark: 1.5, AtMost: true}},
		{many, many, benchRow{ID: "cost-spread", What: fmt.Sprintf("the same with events of all %d", many)}},
	} {
		measured, err := b.foldSeeded(ctx, c.keys, c.active)
		if err != nil {
			return err
		}
		c.row.Figure, c.row.Unit, c.row.Keys, c.row.Writes = measured.CPU, "µs", c.active, measured.Writes
		b.report.against("cost-few", c.row)
	}
	return nil
}

// foldSeeded folds the load into a ledger that has the keys, of which only the
// active ones have events.
func (b *bench) foldSeeded(ctx context.Context, keys, active int) (benchRow, error) {
	s, err := b.settled(ctx, keys)
	if err != nil {
		return benchRow{}, err
	}
	defer s.close()
	s.load.Active = active
	vendor := s.name()
	if _, err := s.publish(ctx, vendor); err != nil {
		return benchRow{}, err
	}
	return s.foldVendor(ctx, vendor, 1)
}

func ratePerSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

func perEvent(d time.Duration, events int) float64 { return d.Seconds() * 1e6 / float64(events) }

// benchPatience bounds every wait of the benchmark.
const benchPatience = 5 * time.Minute

// until waits until the condition holds.
func until(ctx context.Context, what string, condition func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, benchPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
