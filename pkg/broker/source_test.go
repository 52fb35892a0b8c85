package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func openSource(tb testing.TB, b *Broker, c SourceConfig) *Source {
	tb.Helper()
	s, err := b.Source(tb.Context(), "acme", 0, c)
	if err != nil {
		tb.Fatalf("open source: %v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

// receive gets n messages, in as many batches as they come.
func receive(tb testing.TB, s *Source, n int) []event.Message {
	tb.Helper()
	var all []event.Message
	for len(all) < n {
		batch, err := s.Receive(within(tb, 20*time.Second))
		if err != nil {
			tb.Fatalf("receive after %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, batch...)
	}
	return all
}

// holds is how many messages lie in the buffer.
func (s *Source) holds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.buffered)
}

// quiet waits until nothing more is fetched.
func quiet(t *testing.T, s *Source) {
	t.Helper()
	before := -1
	eventually(t, "nothing more is fetched", func() bool {
		was := before
		before = s.holds()
		return was == before
	})
}

func bodies(messages []event.Message) []string {
	all := make([]string, len(messages))
	for i, m := range messages {
		all[i] = string(m.Data)
	}
	slices.Sort(all)
	return all
}

func wantPending(tb testing.TB, s *Source, want uint64) {
	tb.Helper()
	eventually(tb, fmt.Sprintf("%d messages are pending", want), func() bool {
		got, err := s.Pending(tb.Context())
		if err != nil {
			tb.Fatalf("pending: %v", err)
		}
		return got == want
	})
}

func TestSourceGivesMessagesAsPublished(t *testing.T) {
	b := open(t, 1)
	subject := "usage.v1.acme.o=20x.count.a.s"
	before := time.Now().Add(-time.Second)
	if err := b.Append(t.Context(), subject, map[string][]string{"ce-id": {"1"}}, []byte("body"), "id-1"); err != nil {
		t.Fatal(err)
	}
	s := openSource(t, b, SourceConfig{})
	m := receive(t, s, 1)[0]
	if m.Subject != subject || string(m.Data) != "body" || m.Header["ce-id"][0] != "1" || m.Stream != "EVENTS_acme" ||
		m.Sequence != 1 || m.Deliveries != 1 || m.Stored.Before(before) || m.Stored.Location() != time.UTC || m.Handle == "" {
		t.Errorf("got %+v, want the message as published, at sequence 1 of EVENTS_acme, delivered once", m)
	}
	wantPending(t, s, 1)
	if err := s.Ack(t.Context(), []event.Message{m}); err != nil {
		t.Fatal(err)
	}
	wantPending(t, s, 0)
}

func TestSourceGivesAFullBatchAtOnce(t *testing.T) {
	b := open(t, 1)
	publishCounts(t, b, "o", 10)
	s := openSource(t, b, SourceConfig{MaxBatch: 10, MaxWait: time.Hour})
	receive(t, s, 10)
	publishCounts(t, b, "p", 5)
	if batch, err := s.Receive(within(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %d messages, %v; want to wait for the batch to fill", len(batch), err)
	}
	publishCounts(t, b, "q", 5)
	if batch, err := s.Receive(within(t, 20*time.Second)); err != nil || len(batch) != 10 {
		t.Errorf("got %d messages, %v; want the 5 that were there and 5 more", len(batch), err)
	}
}

// keepUp lets the source's buffer grow as after batches that took no time.
func keepUp(s *Source) {
	for range 10 {
		s.mu.Lock()
		s.given, s.since = 1, time.Now()
		s.mu.Unlock()
		s.pace(time.Now())
	}
	signal(s.room)
}

func TestASourceHoldsWhatCanBeWorkedOnSoon(t *testing.T) {
	s := &Source{config: SourceConfig{MaxBatch: 500, MaxBytes: 1}, limit: 500}
	now := time.Now()
	for i, step := range []struct {
		given int
		took  time.Duration
		want  int
	}{
		{500, 200 * time.Millisecond, 1000},
		{1000, 100 * time.Millisecond, 2000},
		{2000, 300 * time.Millisecond, 2000}, // twice as many would be too many
		{1, time.Millisecond, 4000},
		{4000, 200 * time.Millisecond, 4000}, // the most
		{4000, 800 * time.Millisecond, 2000},
		{2000, 4 * time.Second, 200},
		{1, time.Minute, 50}, // a tenth of MaxBatch, at least
		{0, time.Hour, 50},   // nothing was given: that is not work
		{50, 10 * time.Millisecond, 100},
	} {
		s.given, s.since = step.given, now.Add(-step.took)
		if s.pace(now); s.limit != step.want {
			t.Errorf("step %d: a batch of %d that took %v: may hold %d, want %d", i, step.given, step.took, s.limit, step.want)
		}
	}
}

func TestWhoAsksLateGetsALargerBatch(t *testing.T) {
	b := open(t, 1)
	publishCounts(t, b, "o", 120)
	s := openSource(t, b, SourceConfig{MaxBatch: 10})
	keepUp(s)
	eventually(t, "the buffer is full", func() bool { return s.holds() == 100 })
	batch, err := s.Receive(within(t, 20*time.Second))
	if err != nil || len(batch) != 100 {
		t.Fatalf("got %d messages, %v; want ten batches at once", len(batch), err)
	}
	if got := batch[99].Pending; got != 20 {
		t.Errorf("behind them: got %d, want 20", got)
	}
	if rest := receive(t, s, 20); rest[19].Pending != 0 {
		t.Errorf("behind the last one: got %d, want none", rest[19].Pending)
	}
}

func TestADrainedSourceGivesAllThatWasFetchedAndLeavesNothingToComeTwice(t *testing.T) {
	b := open(t, 1)
	publishing, stop := context.WithCancel(t.Context())
	var published sync.WaitGroup
	published.Go(func() {
		for n := 0; publishing.Err() == nil; n++ {
			publishCounts(t, b, fmt.Sprint("o", n), 50)
		}
	})
	for range 5 {
		s := openSource(t, b, SourceConfig{})
		got := receive(t, s, 500)
		s.Drain()
		for {
			batch, err := s.Receive(within(t, 20*time.Second))
			if errors.Is(err, ErrClosed) {
				break
			}
			if err != nil {
				t.Fatalf("receive while draining: %v", err)
			}
			got = append(got, batch...)
		}
		for _, m := range got {
			if m.Deliveries != 1 {
				t.Fatalf("message %d was delivered %d times, want once: the owner before had drained its source", m.Sequence, m.Deliveries)
			}
		}
		if err := s.Ack(t.Context(), got); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	stop()
	published.Wait()
}

func TestSourceGivesWhatItHasAfterTheWait(t *testing.T) {
	b := open(t, 1)
	s := openSource(t, b, SourceConfig{MaxWait: 200 * time.Millisecond})
	if _, err := s.Receive(within(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v from an empty partition, want %v", err, context.DeadlineExceeded)
	}
	start := time.Now()
	publishCounts(t, b, "o", 3)
	batch, err := s.Receive(within(t, 20*time.Second))
	if took := time.Since(start); err != nil || len(batch) != 3 || took < 200*time.Millisecond {
		t.Errorf("got %d messages after %v, %v; want 3 after 200 ms", len(batch), took, err)
	}
}

func TestReleasedMessagesComeAgain(t *testing.T) {
	b := open(t, 1)
	publishCounts(t, b, "o", 5)
	s := openSource(t, b, SourceConfig{MaxBatch: 5})
	first := receive(t, s, 5)
	s.Release(first)
	again := receive(t, s, 5)
	if !slices.Equal(bodies(first), bodies(again)) {
		t.Errorf("got %v again, want %v", bodies(again), bodies(first))
	}
	for _, m := range again {
		if m.Deliveries != 2 {
			t.Errorf("%s was delivered %d times, want 2", m.Data, m.Deliveries)
		}
	}
}

func TestClosedSourceReleasesWhatItHeld(t *testing.T) {
	b := open(t, 1)
	publishCounts(t, b, "o", 30)
	s := openSource(t, b, SourceConfig{MaxBatch: 10})
	keepUp(s)
	got := receive(t, s, 10)
	eventually(t, "the rest is fetched", func() bool { return s.holds()+len(got) == 30 })
	if err := s.Ack(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close() // twice is once
	if _, err := s.Receive(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v from a closed source, want %v", err, ErrClosed)
	}
	next := openSource(t, b, SourceConfig{MaxBatch: 10})
	rest := receive(t, next, 30-len(got))
	all := append(bodies(got), bodies(rest)...)
	slices.Sort(all)
	if len(slices.Compact(all)) != 30 {
		t.Errorf("the next owner got %v, want the messages that were not acknowledged", bodies(rest))
	}
}

// Regression: what the server had sent to a pull that was given up was dropped,
// and came again only after the acknowledgement timeout.
func TestWhatIsOnTheWayToAPullThatIsGivenUpIsTaken(t *testing.T) {
	b := open(t, 1)
	publishCounts(t, b, "o", 2)
	p, err := b.newPuller(EventsStream("acme"), consumerName(0), defaultMaxBytes)
	if err != nil {
		t.Fatal(err)
	}
	came, further := make(chan *nats.Msg, 2), make(chan struct{})
	p.take = func(m *nats.Msg) {
		came <- m
		<-further
	}
	ended := make(chan error, 1)
	go func() {
		_, err := p.pull(pull{Batch: 3, Expires: idleExpiry, Heartbeat: idleHeartbeat}, nil)
		p.leave()
		ended <- err
	}()
	eventually(t, "one is being taken and one lies behind it", func() bool {
		waiting, _, err := p.sub.Pending()
		return err == nil && waiting == 2 && len(came) == 1
	})
	close(p.stop)
	eventually(t, "the pull is given up", func() bool { return !p.sub.IsValid() || p.sub.IsDraining() })
	close(further)
	if err := <-ended; !errors.Is(err, errStopped) || len(came) != 2 {
		t.Errorf("got %d messages, %v; want 2, %v", len(came), err, errStopped)
	}
}

// Regression: the server says nothing when a pull has used up its bytes to the
// last one.
func TestAPullThatUsesUpItsBytesIsOver(t *testing.T) {
	b := open(t, 1)
	publishCounts(t, b, "o", 9)
	p, err := b.newPuller(EventsStream("acme"), consumerName(0), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.leave()
	var size int
	p.take = func(m *nats.Msg) { size = len(m.Subject) + len(m.Reply) + len(m.Data) }
	if _, err := p.pull(pull{Batch: 1, Expires: busyExpiry}, nil); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got, err := p.pull(pull{Batch: 5, MaxBytes: 2 * size, Expires: busyExpiry}, nil)
	if took := time.Since(began); got != 2 || err != nil || took > busyExpiry+pullGrace/2 {
		t.Errorf("a pull of the bytes of two messages: got %d, %v after %v; want 2 at once", got, err, took)
	}
}

func TestSourceBuffersLittle(t *testing.T) {
	for _, test := range []struct {
		name           string
		c              SourceConfig
		batch, fetched int
	}{
		{"in number", SourceConfig{MaxBatch: 5}, 50, 50},
		{"in bytes", SourceConfig{MaxBytes: 1 << 20}, 11 + 20, 11 + 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := open(t, 1)
			for range 60 {
				if err := b.Append(t.Context(), "usage.v1.acme.o.snapshot", nil, make([]byte, 100<<10), ""); err != nil {
					t.Fatal(err)
				}
			}
			s := openSource(t, b, test.c)
			defer s.Close()
			keepUp(s)
			eventually(t, "the buffer is full", func() bool { return s.holds() >= 11 })
			quiet(t, s)
			info, err := s.consumer.Info(t.Context())
			if err != nil || info.NumAckPending > test.fetched {
				t.Errorf("fetched %d messages, %v; want at most %d", info.NumAckPending, err, test.fetched)
			}
			batch, err := s.Receive(within(t, 20*time.Second))
			if err != nil || len(batch) > test.batch {
				t.Errorf("got a batch of %d, %v; want at most %d", len(batch), err, test.batch)
			}
			s.Release(batch)
		})
	}
}

func TestSourceTakesTheLargestEvent(t *testing.T) {
	b := open(t, 1)
	if err := b.Append(t.Context(), "usage.v1.acme.o.snapshot", nil, make([]byte, maxEvent), ""); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, openSource(t, b, SourceConfig{MaxBytes: 1}), 1); len(got[0].Data) != maxEvent {
		t.Errorf("got %d bytes, want %d", len(got[0].Data), maxEvent)
	}
}

func TestSourceSurvivesARestartOfTheServer(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	e := startServer(t, dir, address)
	b := connect(t, e.ClientURL())
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 1})
	publishCounts(t, b, "o", 4)
	s := openSource(t, b, SourceConfig{})
	first := receive(t, s, 4)
	if err := s.Ack(t.Context(), first[:2]); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan []event.Message, 1)
	go func() {
		batch, err := s.Receive(within(t, 30*time.Second))
		if err != nil {
			t.Errorf("receive over the restart: %v", err)
		}
		waiting <- batch
	}()
	e.Close()
	startServer(t, dir, address)
	reconnected(t, b)
	publishCounts(t, b, "p", 1)
	got := <-waiting
	if len(got) == 0 {
		t.Fatal("got nothing after the restart")
	}
	// What was not acknowledged is still owed: the old acknowledgement works too.
	if err := s.Ack(t.Context(), append(first[2:], got...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is acknowledged", func() bool {
		n, err := s.Pending(t.Context())
		return err == nil && n == 0
	})
}

func TestSourceWithoutItsConsumerSaysWhatToDo(t *testing.T) {
	b := open(t, 2)
	_, err := b.Source(t.Context(), "nobody", 0, SourceConfig{})
	if !errors.Is(err, ErrNoVendor) {
		t.Errorf("got %v, want %v", err, ErrNoVendor)
	}
	_, err = b.Source(t.Context(), "acme", 2, SourceConfig{})
	wantError(t, err, "partition 2 of vendor acme has no consumer", "usagebridge init --vendor acme")
	_, err = b.Source(t.Context(), "acme", 0, SourceConfig{MaxBatch: 5000})
	wantError(t, err, "batches of 5000", "want 1 to 2500")
}

func TestSourceEndsWhenItsConsumerIsDeleted(t *testing.T) {
	b := open(t, 1)
	publishCounts(t, b, "o", 20)
	for _, pulling := range []bool{true, false} {
		t.Run(fmt.Sprintf("while a pull is waiting: %v", pulling), func(t *testing.T) {
			initVendor(t, b, InitConfig{Vendor: "acme"}) // makes the consumer again
			c, n := SourceConfig{}, 20
			if !pulling { // there is no room for more
				c, n = SourceConfig{MaxBatch: 1}, 1
			}
			s := openSource(t, b, c)
			eventually(t, "the buffer has them", func() bool { return s.holds() == n })
			if err := b.js.DeleteConsumer(t.Context(), EventsStream("acme"), "p0"); err != nil {
				t.Fatal(err)
			}
			receive(t, s, n)
			_, err := s.Receive(within(t, 20*time.Second))
			wantError(t, err, "consumer EVENTS_acme/p0 has ended")
		})
	}
}

const benchmarked = 20_000 // messages

func fill(b *testing.B) *Broker {
	b.Helper()
	c := open(b, 1)
	messages := make([]*nats.Msg, benchmarked)
	for i := range messages {
		messages[i] = message(fmt.Sprintf("usage.v1.acme.o.count.a-%d.s", i), make([]byte, 200))
	}
	if err := worst(c.pipeline(b.Context(), messages, make([]uint64, len(messages)))); err != nil {
		b.Fatal(err)
	}
	return c
}

// again makes every message come once more.
func again(b *testing.B, c *Broker) {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	if err := c.js.DeleteConsumer(b.Context(), EventsStream("acme"), "p0"); err != nil {
		b.Fatal(err)
	}
	initVendor(b, c, InitConfig{Vendor: "acme"})
}

func BenchmarkSourceReceiveAndAck(b *testing.B) {
	c := fill(b)
	for b.Loop() {
		again(b, c)
		s, err := c.Source(b.Context(), "acme", 0, SourceConfig{})
		if err != nil {
			b.Fatal(err)
		}
		for got := 0; got < benchmarked; {
			batch, err := s.Receive(b.Context())
			if err == nil {
				err = s.Ack(b.Context(), batch)
			}
			if err != nil {
				b.Fatal(err)
			}
			got += len(batch)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N*benchmarked)/b.Elapsed().Seconds(), "messages/s")
}

// The measure for the one above: what the client does without a source.
func BenchmarkSourceRawFetchAndAck(b *testing.B) {
	c := fill(b)
	for b.Loop() {
		again(b, c)
		consumer, err := c.js.Consumer(b.Context(), EventsStream("acme"), "p0")
		if err != nil {
			b.Fatal(err)
		}
		for got := 0; got < benchmarked; {
			batch, err := consumer.Fetch(500)
			if err != nil {
				b.Fatal(err)
			}
			for m := range batch.Messages() {
				if err := m.Ack(); err != nil {
					b.Fatal(err)
				}
				got++
			}
		}
	}
	b.ReportMetric(float64(b.N*benchmarked)/b.Elapsed().Seconds(), "messages/s")
}
