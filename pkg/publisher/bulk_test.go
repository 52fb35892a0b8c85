package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

// figures yields versions of the counts of some accounts in turn, all of one
// time: their order in the stream decides. The id of version v is v.
func figures(total, accounts int) iter.Seq[*event.Event] {
	return func(yield func(*event.Event) bool) {
		for i := range total {
			if !yield(figure(fmt.Sprintf("a-%d", i%accounts), i)) {
				return
			}
		}
	}
}

func figure(account string, version int) *event.Event {
	return &event.Event{
		ID: fmt.Sprintf("%06d", version), Time: noon, Organization: "msp-0042",
		Data: event.Count{AccountID: account, ServiceID: "backup", UnitCount: event.Units(version)},
	}
}

// log is every event of a stream in the order of storage.
func log(t *testing.T, stream jetstream.Stream) []*event.Event {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatalf("stream info: %v", err)
	}
	consumer, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatalf("make consumer: %v", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatalf("read stream: %v", err)
	}
	defer messages.Stop()
	events := make([]*event.Event, info.State.Msgs)
	for i := range events {
		m, err := messages.Next()
		if err != nil {
			t.Fatalf("read message %d: %v", i+1, err)
		}
		events[i] = decoded(t, event.Message{Subject: m.Subject(), Header: m.Headers(), Data: m.Data(), Sequence: uint64(i) + 1, Stored: noon})
	}
	return events
}

func TestResultsComeInTheOrderOfTheRecords(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	p := newPublisher(t, nc, func(c *publisher.Config) { c.InFlight = 64 })
	records := slices.Collect(publisher.Records(figures(1000, 1000)))
	records[10].Event, records[10].Err = nil, &publisher.LineError{Line: 11, Problem: "is wrong"}
	records[20].Event = &event.Event{Organization: "msp-0042", Data: event.Account{AccountID: "nameless"}}
	records[30].Event = records[29].Event
	next := 1
	tally, err := p.PublishAll(t.Context(), slices.Values(records), func(r publisher.Result) {
		if r.Number != next {
			t.Errorf("result: got record %d, want %d", r.Number, next)
		}
		if failed := r.Number == 11 || r.Number == 21; failed != (r.Err != nil) || r.Ack.Duplicate != (r.Number == 31) {
			t.Errorf("record %d: got %+v (%v)", r.Number, r.Ack, r.Err)
		}
		next++
	})
	if want := (publisher.Tally{Acknowledged: 998, Duplicates: 1, Failed: 2}); tally != want {
		t.Errorf("tally: got %+v, want %+v", tally, want)
	}
	if want := "2 of 1000 records not acknowledged; the first, record 11: line 11: is wrong"; err == nil || err.Error() != want {
		t.Errorf("error: got %v, want %s", err, want)
	}
	if got := len(log(t, stream)); got != 997 {
		t.Errorf("stored: got %d, want 997", got)
	}
}

// Regression 1: a repeat after a lost connection must neither double an event
// nor put an older version of a key behind a newer one.
func TestARestartedServerHasEveryEventOnceAndEachKeyInOrder(t *testing.T) {
	const total, accounts = 8_000, 300
	options := &server.Options{}
	s := startServer(t, options)
	options.Port = s.Addr().(*net.TCPAddr).Port
	nc := connect(t, s)
	makeStream(t, nc, nil)
	p := newPublisher(t, nc, func(c *publisher.Config) { c.AckTimeout, c.Patience = time.Second, time.Minute })
	tally, err := p.PublishAll(t.Context(), publisher.Records(figures(total, accounts)), func(r publisher.Result) {
		if r.Number%3000 == 1000 {
			s.Shutdown()
			s.WaitForShutdown()
			s = startServer(t, options)
		}
	})
	if err != nil || tally.Acknowledged != total {
		t.Fatalf("PublishAll: got %+v (%v), want %d acknowledged", tally, err, total)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("jetstream: %v", err)
	}
	stream, err := js.Stream(t.Context(), "EVENTS_acme")
	if err != nil {
		t.Fatalf("stream: %v", err)
	}
	latest := map[string]event.Units{}
	events := log(t, stream)
	for _, e := range events {
		c := e.Data.(event.Count)
		if before, seen := latest[c.AccountID]; seen && c.UnitCount != before+accounts {
			t.Fatalf("account %s: version %d is stored behind version %d, want versions in order and once", c.AccountID, c.UnitCount, before)
		}
		latest[c.AccountID] = c.UnitCount
	}
	if len(events) != total {
		t.Errorf("stored: got %d, want %d", len(events), total)
	}
}

func TestReadingStopsWhenNoEventCanGoThrough(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	p := newPublisher(t, nc, func(c *publisher.Config) { c.InFlight = 10 })
	results := 0
	tally, err := p.PublishAll(t.Context(), publisher.Records(figures(200, 200)), func(publisher.Result) { results++ })
	wantError(t, err, publisher.ErrNoStream, "the rest was not read", "usagebridge init --vendor acme")
	if tally.Failed != results || tally.Acknowledged != 0 || results < 10 || results > 30 {
		t.Errorf("got %+v and %d results, want one result for each of the few records read", tally, results)
	}
}

func TestACancelledLoadEndsWithAResultForEveryRecordRead(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	p := newPublisher(t, nc, func(c *publisher.Config) { c.InFlight = 10 })
	ctx, cancel := context.WithCancel(t.Context())
	read, results, acknowledged := 0, 0, 0
	records := func(yield func(publisher.Record) bool) {
		for r := range publisher.Records(figures(1<<40, 1<<30)) {
			if read = r.Number; !yield(r) {
				return
			}
		}
	}
	_, err := p.PublishAll(ctx, records, func(r publisher.Result) {
		results++
		if r.Err == nil {
			acknowledged++
		}
		if results == 100 {
			cancel()
		}
	})
	wantError(t, err, context.Canceled, "the rest was not read")
	if results != read {
		t.Errorf("results: got %d, want %d as records were read", results, read)
	}
	if got := len(log(t, stream)); got < acknowledged {
		t.Errorf("stored: got %d, want at least the %d acknowledged", got, acknowledged)
	}
}

func TestALoadFromAFileIsPublished(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	file := strings.NewReader("account,service,unitCount\na,backup,1\n,backup,2\na,backup,3\n")
	tally, err := newPublisher(t, nc, nil).PublishAll(t.Context(), publisher.ReadCounts(file, defaults), nil)
	if tally.Acknowledged != 2 || tally.Failed != 1 {
		t.Errorf("tally: got %+v (%v), want 2 acknowledged and 1 failed", tally, err)
	}
	var line *publisher.LineError
	if !errors.As(err, &line) || line.Line != 3 || line.Column != "account" {
		t.Errorf("error: got %v, want line 3, column account", err)
	}
	if events := log(t, stream); events[len(events)-1].Data.(event.Count).UnitCount != 3*event.UnitsScale {
		t.Errorf("stored last: got %+v, want the later row", events[len(events)-1])
	}
}

func BenchmarkPublishAll(b *testing.B) {
	nc := connect(b, startServer(b, &server.Options{}))
	makeStream(b, nc, nil)
	b.Run("PublishAll", func(b *testing.B) {
		p := newPublisher(b, nc, nil)
		events := func(yield func(*event.Event) bool) {
			for e := range figures(b.N, 1<<30) {
				e.ID = "" // a new one for each: no duplicates
				if !yield(e) {
					return
				}
			}
		}
		if _, err := p.PublishAll(b.Context(), publisher.Records(events), nil); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("raw PublishMsgAsync", func(b *testing.B) {
		js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(publisher.DefaultInFlight))
		if err != nil {
			b.Fatal(err)
		}
		run := nuid.Next()
		for e := range figures(b.N, 1<<30) {
			e.Vendor, e.Source, e.Type = "acme", "//billing.acme.example", event.TypeCount
			m := nats.NewMsg(e.Subject().String())
			m.Data = e.Structured()
			m.Header.Set("Nats-Msg-Id", run+e.ID)
			if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
				b.Fatal(err)
			}
		}
		<-js.PublishAsyncComplete()
	})
}
