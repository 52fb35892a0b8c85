package publisher_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// startServer runs a nats-server with JetStream until the test ends. Port and
// StoreDir are set in options, so that the same options start it again.
func startServer(t testing.TB, options *server.Options) *server.Server {
	t.Helper()
	options.Host, options.JetStream, options.NoSigs = "127.0.0.1", true, true
	if options.Port == 0 {
		options.Port = server.RANDOM_PORT
	}
	if options.StoreDir == "" {
		options.StoreDir = t.TempDir()
	}
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatalf("make server: %v", err)
	}
	s.Start()
	stop := func() { s.Shutdown(); s.WaitForShutdown() }
	t.Cleanup(stop)
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("server not ready within 10 s")
	}
	return s
}

func connect(t testing.TB, s *server.Server, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond), nats.ReconnectJitter(0, 0),
	}, options...)...)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// makeStream makes a stream like the one of vendor acme.
func makeStream(t testing.TB, nc *nats.Conn, change func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("jetstream: %v", err)
	}
	config := jetstream.StreamConfig{
		Name: "EVENTS_acme", Subjects: []string{"usage.v1.acme.*.>", "catalog.v1.acme.*.>"},
		Discard: jetstream.DiscardNew, Duplicates: 30 * time.Minute,
	}
	if change != nil {
		change(&config)
	}
	stream, err := js.CreateStream(t.Context(), config)
	if err != nil {
		t.Fatalf("create stream: %v", err)
	}
	return stream
}

func newPublisher(t testing.TB, nc *nats.Conn, change func(*publisher.Config)) *publisher.Publisher {
	t.Helper()
	config := publisher.Config{Vendor: "acme", Source: "//billing.acme.example", Patience: 200 * time.Millisecond}
	if change != nil {
		change(&config)
	}
	p, err := publisher.New(nc, config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return p
}

func count(account, units string) publisher.Count {
	return publisher.Count{Organization: "msp-0042", Account: account, Service: "backup", Units: units, Time: noon}
}

func wantError(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error: got %v, want %v", err, kind)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("error: got %v, want it to say %q", err, word)
		}
	}
}

func TestEveryKindOfEventIsStoredAsTheContractSays(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	for _, test := range []struct {
		publish func() (publisher.Ack, error)
		subject string
		data    event.Data
	}{
		{
			func() (publisher.Ack, error) { return p.Count(t.Context(), count("acme corp/1", "42.5")) },
			"usage.v1.acme.msp-0042.count.acme=20corp=2F1.backup",
			event.Count{AccountID: "acme corp/1", ServiceID: "backup", UnitCount: 42_500_000},
		},
		{
			func() (publisher.Ack, error) {
				return p.Account(t.Context(), publisher.Account{Organization: "msp-0042", Account: "a-17", Name: "Änne & Co", ExternalID: "x", Time: noon})
			},
			"catalog.v1.acme.msp-0042.account.a-17", event.Account{AccountID: "a-17", Name: "Änne & Co", ExternalID: "x"},
		},
		{
			func() (publisher.Ack, error) {
				return p.Service(t.Context(), publisher.Service{Organization: "msp-0042", Service: "backup", Name: "Backup", Description: "d", Time: noon})
			},
			"catalog.v1.acme.msp-0042.service.backup", event.Service{ServiceID: "backup", Name: "Backup", Description: "d"},
		},
	} {
		ack, err := test.publish()
		if err != nil {
			t.Fatalf("publish on %s: %v", test.subject, err)
		}
		got := stored(t, stream, ack.Sequence)
		if got.ID != ack.EventID || got.Data != test.data || !got.Time.Equal(noon) || got.Source != "//billing.acme.example" {
			t.Errorf("stored: got %+v, want %+v with id %s at %s", got, test.data, ack.EventID, noon)
		}
		raw, err := stream.GetMsg(t.Context(), ack.Sequence)
		if err != nil || raw.Subject != test.subject || raw.Header.Get("Nats-Msg-Id") != got.Source+"/"+got.ID ||
			raw.Header.Get("content-type") != "application/cloudevents+json" {
			t.Errorf("message: got %+v (%v), want it on %s with Nats-Msg-Id and content-type", raw, err, test.subject)
		}
	}
}

// stored reads an event back as a worker does.
func stored(t *testing.T, stream jetstream.Stream, sequence uint64) *event.Event {
	t.Helper()
	raw, err := stream.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatalf("read message %d: %v", sequence, err)
	}
	return decoded(t, event.Message{Subject: raw.Subject, Header: raw.Header, Data: raw.Data, Sequence: sequence, Stored: noon})
}

func decoded(t *testing.T, m event.Message) *event.Event {
	t.Helper()
	result := event.Decode(m, event.DefaultLimits())[0]
	if result.Fault != nil {
		t.Fatalf("message %d is no event: %v\n%s", m.Sequence, result.Fault, m.Data)
	}
	return result.Event
}

func TestASnapshotIsStoredWithAllItsFigures(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	ack, err := newPublisher(t, nc, nil).Snapshot(t.Context(), publisher.Snapshot{
		Organization: "msp-0042", Part: 1, Parts: 2, SnapshotID: "nightly", Time: noon,
		Figures: []publisher.Figure{{Account: "a-1", Service: "backup", Units: "1"}, {Account: "a-2", Service: "backup", Units: "0.000001"}},
	})
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	got, _ := stored(t, stream, ack.Sequence).Data.(event.Snapshot)
	if got.Part != 1 || got.Parts != 2 || got.SnapshotID != "nightly" || len(got.Counts) != 2 || got.Counts[1].UnitCount != 1 {
		t.Errorf("snapshot: got %+v", got)
	}
}

func TestARepeatIsFlaggedAsDuplicate(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	c := count("a-17", "42")
	c.ID = "01J9Z3K8"
	for _, want := range []publisher.Ack{
		{EventID: c.ID, Stream: "EVENTS_acme", Sequence: 1},
		{EventID: c.ID, Stream: "EVENTS_acme", Sequence: 1, Duplicate: true},
	} {
		if got, err := p.Count(t.Context(), c); err != nil || got != want {
			t.Errorf("ack: got %+v (%v), want %+v", got, err, want)
		}
	}
}

func TestIdsThatDifferByABlankAreTwoEvents(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	for _, id := range []string{"1", "1 "} {
		c := count("a-17", "42")
		c.ID = id
		if ack, err := p.Count(t.Context(), c); err != nil || ack.Duplicate {
			t.Errorf("id %q: got %+v (%v), want it stored", id, ack, err)
		}
	}
}

func TestNothingInvalidIsSent(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	before := nc.Stats().OutMsgs
	for name, test := range map[string]struct {
		event *event.Event
		want  string
	}{
		"an event of another vendor": {&event.Event{Vendor: "other", Organization: "o", Data: event.Service{ServiceID: "s", Name: "n"}}, `publishes for "acme"`},
		"an account without a name":  {&event.Event{Organization: "o", Data: event.Account{AccountID: "a"}}, "/data/name"},
		"a negative count":           {&event.Event{Organization: "o", Data: event.Count{AccountID: "a", ServiceID: "s", UnitCount: -1}}, "/data/unitCount"},
		"a type that is not the data's": {&event.Event{Type: event.TypeCount, Organization: "o", Data: event.Service{ServiceID: "s", Name: "n"}},
			"type is"},
		"no data":  {&event.Event{Organization: "o"}, "type is empty"},
		"no event": {nil, "nil"},
	} {
		if _, err := p.Publish(t.Context(), test.event); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", name, err, test.want)
		}
	}
	if _, err := p.Count(t.Context(), count("a", "4,5")); err == nil || !strings.Contains(err.Error(), `"4,5"`) {
		t.Errorf("units that are no number: got %v, want an error naming them", err)
	}
	if after := nc.Stats().OutMsgs; after != before {
		t.Errorf("messages sent: got %d, want none", after-before)
	}
}

func TestNoStreamBecomesAClearErrorAfterTheBudget(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	var retries atomic.Int64
	p := newPublisher(t, nc, func(c *publisher.Config) { c.OnRetry = func(publisher.Retry) { retries.Add(1) } })
	_, err := p.Count(t.Context(), count("a-17", "42"))
	wantError(t, err, publisher.ErrNoStream, "usage.v1.acme.msp-0042.count.a-17.backup", "usagebridge init --vendor acme", "may this user publish?")
	if retries.Load() == 0 {
		t.Error("retries: got none, want some before giving up")
	}
}

func TestAStreamThatAppearsWithinTheBudgetTakesTheEvent(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	retried := make(chan struct{}, 100)
	p := newPublisher(t, nc, func(c *publisher.Config) {
		c.Patience = time.Minute
		c.OnRetry = func(publisher.Retry) { retried <- struct{}{} }
	})
	done := make(chan error, 1)
	go func() {
		_, err := p.Count(t.Context(), count("a-17", "42"))
		done <- err
	}()
	<-retried
	makeStream(t, nc, nil)
	if err := <-done; err != nil {
		t.Errorf("got %v, want it acknowledged", err)
	}
}

func TestAFullStreamIsRetriedThenReported(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	var retries atomic.Int64
	p := newPublisher(t, nc, func(c *publisher.Config) { c.OnRetry = func(publisher.Retry) { retries.Add(1) } })
	if _, err := p.Count(t.Context(), count("a-17", "42")); err != nil {
		t.Fatalf("first event: %v", err)
	}
	_, err := p.Count(t.Context(), count("a-17", "43"))
	wantError(t, err, publisher.ErrStreamFull, "maximum messages exceeded", "raise its limits")
	if retries.Load() == 0 {
		t.Error("retries: got none, want some before giving up")
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatalf("purge: %v", err)
	}
	if _, err := p.Count(t.Context(), count("a-17", "43")); err != nil {
		t.Errorf("after room was made: got %v, want it acknowledged", err)
	}
}

func TestAnOversizedEventIsRefusedWithBothSizes(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{MaxPayload: 1024}))
	makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	before := nc.Stats().OutMsgs
	service := publisher.Service{Organization: "o", Service: "s", Name: "n", ID: "1", Time: noon}
	// Down to the largest description that fits: the one before it was one
	// byte too long.
	var last error
	for size := 1024; ; size-- {
		service.Description = strings.Repeat("x", size)
		_, err := p.Service(t.Context(), service)
		if err == nil {
			break
		}
		if last = err; size == 1 {
			t.Fatalf("no size is accepted: %v", err)
		}
	}
	wantError(t, last, publisher.ErrTooLarge, "it is 1025 bytes with its headers", "the server takes 1024")
	if sent := nc.Stats().OutMsgs - before; sent != 1 {
		t.Errorf("messages sent: got %d, want only the one that fits", sent)
	}
}

func TestTheLimitOfTheStreamIsReportedAtOnce(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	makeStream(t, nc, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 200 })
	p := newPublisher(t, nc, func(c *publisher.Config) { c.Patience = time.Hour })
	_, err := p.Count(t.Context(), count("a-17", "42"))
	wantError(t, err, publisher.ErrTooLarge, "message size exceeds maximum allowed")
}

// user is a NATS user who may publish below vendor acme only.
func user(subscribe ...string) *server.Options {
	return &server.Options{Users: []*server.User{
		{Username: "admin", Password: "a"},
		{Username: "acme", Password: "a", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"usage.v1.acme.>", "catalog.v1.acme.>"}},
			Subscribe: &server.SubjectPermission{Allow: subscribe},
		}},
	}}
}

func TestARefusedPublishIsAnErrorAtOnceAndOtherErrorsReachTheOwner(t *testing.T) {
	s := startServer(t, user("_INBOX.>"))
	others := make(chan error, 10)
	nc := connect(t, s, nats.UserInfo("acme", "a"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { others <- err }))
	// Only the server's refusal can end this publish before its context does.
	p := newPublisher(t, nc, func(c *publisher.Config) { c.Vendor, c.AckTimeout = "other", time.Hour })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := p.Count(ctx, count("a-17", "42"))
	wantError(t, err, publisher.ErrDenied, "usage.v1.other.msp-0042.count.a-17.backup")
	if err := nc.Publish("elsewhere", nil); err != nil {
		t.Fatalf("publish elsewhere: %v", err)
	}
	select {
	case got := <-others:
		if !strings.Contains(got.Error(), "elsewhere") {
			t.Errorf("owner's handler: got %v, want only the refusal of elsewhere", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("owner's handler: heard nothing within 10 s, want the refusal of elsewhere")
	}
}

func TestAVendorsUserNeedsNoMoreThanItsSubjectsAndItsInbox(t *testing.T) {
	s := startServer(t, user("_INBOX_acme.>"))
	makeStream(t, connect(t, s, nats.UserInfo("admin", "a")), nil)
	nc := connect(t, s, nats.UserInfo("acme", "a"), nats.CustomInboxPrefix("_INBOX_acme"))
	if _, err := newPublisher(t, nc, nil).Count(t.Context(), count("a-17", "42")); err != nil {
		t.Errorf("got %v, want it acknowledged", err)
	}
}

func TestARefusedInboxIsNamed(t *testing.T) {
	s := startServer(t, user("_INBOX_acme.>"))
	makeStream(t, connect(t, s, nats.UserInfo("admin", "a")), nil)
	nc := connect(t, s, nats.UserInfo("acme", "a"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	p := newPublisher(t, nc, func(c *publisher.Config) { c.AckTimeout = 100 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := p.Count(ctx, count("a-17", "42"))
	wantError(t, err, publisher.ErrInboxDenied, "_INBOX.", "CustomInboxPrefix")
}

func TestTheContextEndsTheWaitForALostServer(t *testing.T) {
	s := startServer(t, &server.Options{})
	nc := connect(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	p := newPublisher(t, nc, func(c *publisher.Config) {
		c.OnRetry = func(r publisher.Retry) {
			if r.Attempt == 2 {
				cancel()
			}
		}
	})
	s.Shutdown()
	s.WaitForShutdown()
	ack, err := p.Count(ctx, publisher.Count{ID: "known", Organization: "o", Account: "a", Service: "s", Units: "1"})
	wantError(t, err, context.Canceled, "not acknowledged after 2 attempts")
	if ack.EventID != "known" {
		t.Errorf("event id with the error: got %q, want it for publishing again", ack.EventID)
	}
}

func TestAClosedConnectionIsAnErrorAtOnce(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	p := newPublisher(t, nc, nil)
	nc.Close()
	_, err := p.Count(t.Context(), count("a-17", "42"))
	wantError(t, err, publisher.ErrClosed)
}

func TestNewNamesEveryProblemOfItsConfig(t *testing.T) {
	_, err := publisher.New(nil, publisher.Config{InFlight: -1})
	for _, want := range []string{"no connection", "vendor id is empty", "source is empty", "negative InFlight"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}

func TestASnapshotPublishedTwiceIsStoredOnce(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	parts, err := publisher.Snapshot{Organization: "msp-0042", Figures: manyFigures(5), SnapshotID: "2026-11", Time: noon}.Split(2)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		tally, err := p.PublishAll(t.Context(), publisher.Records(slices.Values(parts)), nil)
		if want := (publisher.Tally{Acknowledged: 3, Duplicates: 3 * round}); err != nil || tally != want {
			t.Errorf("round %d: got %+v, %v, want %+v", round, tally, err, want)
		}
	}
	for i := range parts {
		m, err := stream.GetMsg(t.Context(), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		e := event.Decode(event.Message{Subject: m.Subject, Data: m.Data}, event.Limits{})[0].Event
		if e == nil || e.Data.(event.Snapshot).Part != i+1 || e.Source != "//billing.acme.example" {
			t.Errorf("stored at %d: got %s, want part %d", i+1, m.Data, i+1)
		}
	}
}

func TestEveryEventOfABackfillNamesIt(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	p := newPublisher(t, nc, func(c *publisher.Config) { c.Backfill = "2026-10" })
	if _, err := p.Count(t.Context(), count("a-17", "42")); err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if e := event.Decode(event.Message{Subject: m.Subject, Data: m.Data}, event.Limits{})[0].Event; e == nil || e.Backfill != "2026-10" {
		t.Errorf("stored: got %s, want backfill 2026-10", m.Data)
	}
	named := &event.Event{Organization: "o", Time: noon, Data: event.Service{ServiceID: "s", Name: "n"}, Backfill: "2026-10"}
	if _, err := p.Publish(t.Context(), named); err != nil {
		t.Errorf("an event that names the same: got %v, want it published", err)
	}
	named.Backfill = "2026-09"
	if _, err := p.Publish(t.Context(), named); err == nil || !strings.Contains(err.Error(), `it belongs to backfill "2026-09": this publisher publishes backfill "2026-10"`) {
		t.Errorf("an event of another backfill: got %v, want it refused", err)
	}
	if _, err := publisher.New(nc, publisher.Config{Vendor: "acme", Source: "s", Backfill: "a b"}); err == nil || !strings.Contains(err.Error(), `backfill is "a b"`) {
		t.Errorf("a backfill with a blank: got %v, want it refused", err)
	}
}
