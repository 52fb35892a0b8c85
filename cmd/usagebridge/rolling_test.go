//go:build unix && !race

package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// rollingSite is a crash site with many partitions, into each of which events
// are published all the time.
type rollingSite struct {
	*crashSite
	partitions    int
	organizations []string // by partition; "m", whose partner takes calls, is one of them
	publisher     *publisher.Publisher
	js            jetstream.JetStream
	consumers     []jetstream.Consumer
	rounds        int // of events published
}

func newRollingSite(t *testing.T, plan sandbox.Plan, partitions int) *rollingSite {
	t.Helper()
	s := &rollingSite{crashSite: newCrashSiteOf(t, plan, partitions), partitions: partitions, organizations: make([]string, partitions)}
	s.organizations[broker.Partition("acme", "m", partitions)] = "m"
	for i := 0; slices.Contains(s.organizations, ""); i++ {
		name := fmt.Sprint("o", i)
		if at := broker.Partition("acme", name, partitions); s.organizations[at] == "" {
			s.organizations[at] = name
		}
	}
	var err error
	s.publisher, err = publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		t.Fatal(err)
	}
	if s.js, err = jetstream.New(s.app.broker.Conn()); err != nil {
		t.Fatal(err)
	}
	for p := range partitions {
		consumer, err := s.js.Consumer(t.Context(), broker.EventsStream("acme"), fmt.Sprint("p", p))
		if err != nil {
			t.Fatal(err)
		}
		s.consumers = append(s.consumers, consumer)
	}
	return s
}

// stream publishes so many events into each partition again and again, each for
// a key of its own, until stop is called, which says how many there were.
func (s *rollingSite) stream(each int, every time.Duration) (stop func() uint64) {
	done, ended := make(chan struct{}), make(chan uint64, 1)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		begun, sent := time.Now().Add(-time.Hour), uint64(0)
		for ; ; s.rounds++ {
			var events []*event.Event
			for _, organization := range s.organizations {
				for i := range each {
					events = append(events, &event.Event{Organization: organization, Time: begun, Data: event.Count{
						AccountID: fmt.Sprint("a", s.rounds), ServiceID: fmt.Sprint("s", i), UnitCount: event.UnitsScale,
					}})
				}
			}
			if _, err := s.publisher.PublishAll(context.WithoutCancel(s.t.Context()), publisher.Records(slices.Values(events)), func(publisher.Result) {}); err != nil {
				s.t.Errorf("publish: %v", err)
			}
			sent += uint64(len(events))
			select {
			case <-done:
				s.rounds++
				ended <- sent
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 {
		close(done)
		return <-ended
	}
}

// named starts a worker of the name in a process of its own.
func (s *rollingSite) named(name string, env ...string) *exec.Cmd {
	s.t.Helper()
	path, err := exec.LookPath("usagebridge")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), path, "run")
	cmd.Env = append(append(slices.Clone(s.env), "USAGEBRIDGE_WORKER_ID="+name), env...)
	cmd.Stderr = s.t.Output()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// stop ends a worker as whoever restarts it does.
func (s *rollingSite) stop(cmd *exec.Cmd) {
	s.t.Helper()
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("a worker that was stopped ended with %v, want no error", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		s.t.Errorf("a worker took %v to stop, want less than 5 s", took)
	}
}

// load is how many partitions each worker has.
func (s *rollingSite) load() map[string]int {
	s.t.Helper()
	owners, err := s.app.broker.Owners(s.t.Context(), "acme")
	if err != nil {
		s.t.Fatal(err)
	}
	load := map[string]int{}
	for _, name := range owners {
		load[name]++
	}
	return load
}

func (s *rollingSite) info(partition int) *jetstream.ConsumerInfo {
	s.t.Helper()
	info, err := s.consumers[partition].Info(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return info
}

// folded is how many messages of the partition are acknowledged, and how many
// are in the ledger.
func (s *rollingSite) folded(partition int) (acked, recorded int) {
	s.t.Helper()
	events, err := s.js.Stream(s.t.Context(), broker.EventsStream("acme"))
	if err != nil {
		s.t.Fatal(err)
	}
	info := s.info(partition)
	all, err := events.Info(s.t.Context(), jetstream.WithSubjectFilter(info.Config.FilterSubject))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range all.State.Subjects {
		acked += int(n)
	}
	acked -= int(info.NumPending) + info.NumAckPending
	err = s.app.broker.Ledger("acme").Load(s.t.Context(), partition, func(e ledger.Entry) error {
		if e.Key.Kind == ledger.Count {
			recorded++
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return acked, recorded
}

// progress is how many messages are acknowledged, of all partitions.
func (s *rollingSite) progress() (acked uint64) {
	for p := range s.consumers {
		acked += s.info(p).AckFloor.Consumer
	}
	return acked
}

// pauses measures, for each partition, the longest time for which it had events
// waiting and none of them was folded.
type pauses struct {
	mu      sync.Mutex
	longest []time.Duration
}

func (s *rollingSite) measure() (p *pauses, stop func()) {
	p = &pauses{longest: make([]time.Duration, s.partitions)}
	done := make(chan struct{})
	var measuring sync.WaitGroup
	measuring.Go(func() {
		moved, floor := make([]time.Time, s.partitions), make([]uint64, s.partitions)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			for at := range s.consumers {
				info, now := s.info(at), time.Now()
				if waiting := info.NumPending + uint64(info.NumAckPending); waiting == 0 || info.AckFloor.Stream != floor[at] || moved[at].IsZero() {
					moved[at], floor[at] = now, info.AckFloor.Stream
					continue
				}
				p.mu.Lock()
				p.longest[at] = max(p.longest[at], now.Sub(moved[at]))
				p.mu.Unlock()
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return p, func() {
		close(done)
		measuring.Wait()
	}
}

func TestARollingRestartPausesNoPartitionForLong(t *testing.T) {
	t.Parallel()
	const workers, most = 4, 2 * time.Second
	s := newRollingSite(t, sandbox.Plan{}, 16)
	running := map[string]*exec.Cmd{}
	even := map[string]int{}
	for i := range workers {
		name := fmt.Sprint("w", i)
		running[name], even[name] = s.named(name), s.partitions/workers
	}
	balanced := func() bool { return maps.Equal(s.load(), even) }
	eventuallyTrue(t, time.Minute, "every worker has its share", balanced)
	stop := s.stream(1, 20*time.Millisecond)
	measured, done := s.measure()
	begun := time.Now()
	for _, name := range slices.Sorted(maps.Keys(running)) {
		s.stop(running[name])
		running[name] = s.named(name)
		eventuallyTrue(t, time.Minute, "every worker has its share again", balanced)
	}
	t.Logf("four workers restarted in %v", time.Since(begun).Round(time.Millisecond))
	published := stop()
	eventuallyTrue(t, time.Minute, "everything is folded", func() bool { return s.total() == published })
	done()
	for p, longest := range measured.longest {
		if longest > most {
			t.Errorf("partition %d: nothing was folded for %v, want at most %v", p, longest, most)
		}
	}
	t.Logf("longest pause of a partition: %v", slices.Max(measured.longest).Round(time.Millisecond))
}

// total is how many messages are acknowledged, and in the ledger, in all.
func (s *rollingSite) total() (n uint64) {
	for p := range s.consumers {
		acked, recorded := s.folded(p)
		n += uint64(min(acked, recorded))
	}
	return n
}

func TestAStopUnderLoadLeavesNothingToBeDeliveredAgain(t *testing.T) {
	t.Parallel()
	s := newRollingSite(t, sandbox.Plan{}, 4)
	for range 3 {
		stream, before := s.stream(500, time.Millisecond), s.progress()
		worker := s.named("w1", "USAGEBRIDGE_LOG_LEVEL=info")
		eventuallyTrue(t, time.Minute, "the worker is in the midst of it", func() bool { return s.progress() > before+2000 })
		s.stop(worker)
		stream()
		for p := range s.consumers {
			if info := s.info(p); info.NumAckPending != 0 || info.NumRedelivered != 0 {
				t.Errorf("partition %d: %d messages were delivered and not acknowledged, %d are to come again; want none", p, info.NumAckPending, info.NumRedelivered)
			}
			if acked, recorded := s.folded(p); acked != recorded {
				t.Errorf("partition %d: %d messages are recorded and %d acknowledged: want as many", p, recorded, acked)
			}
		}
	}
}

func TestAStopDoesNotWaitForAPartnerThatHangs(t *testing.T) {
	t.Parallel()
	s := newRollingSite(t, sandbox.Plan{Rules: []sandbox.Rule{
		{Probability: 1, Effect: sandbox.Delay, Latency: time.Minute},
	}}, 4)
	worker := s.named("w1")
	s.publishRound(s.publisher, time.Now().Add(-time.Hour), 1)
	eventuallyTrue(t, time.Minute, "a call hangs", func() bool { return s.hanging("w1") })
	s.stop(worker)
	if got := s.load(); got["w1"] != 1 {
		t.Errorf("partitions kept by a worker that cut off calls to one partner: got %d, want its one: the partner may still take them", got["w1"])
	}
}

// hanging says whether calls to the partner are under way.
func (s *rollingSite) hanging(worker string) bool {
	s.t.Helper()
	v, err := s.app.lane(s.t.Context(), "acme", "m")
	if err != nil {
		s.t.Fatal(err)
	}
	return v != nil && v.Worker == worker && v.Sending > 0
}
