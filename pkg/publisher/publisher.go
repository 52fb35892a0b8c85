// Package publisher is the client that billing systems import: it turns
// figures and catalog entries into events of the event contract and publishes
// them to JetStream until the server has acknowledged each one. It also reads
// events from files: NDJSON of CloudEvents, and CSV of counts, accounts and
// services.
//
// Nothing invalid is ever sent, and every attempt of one event carries the same
// Nats-Msg-Id, {source}/{id}, so the server drops the repeat of an attempt whose
// acknowledgement was lost.
//
// It deliberately knows nothing of streams, partitions, the ledger or the
// partner: it needs the permission to publish below usage.v1.{vendor} and
// catalog.v1.{vendor} and to subscribe to its own inbox, no more. It opens and
// closes no connection: that is the caller's.
package publisher

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// What a zero field of Config stands for.
const (
	DefaultInFlight   = 1000
	DefaultAckTimeout = 5 * time.Second
	DefaultPatience   = 10 * time.Second
)

// Config says for whom a Publisher publishes. Vendor and Source are required.
type Config struct {
	Vendor string // the vendor's id; events of another vendor are refused
	Source string // CloudEvents source of events that name none, such as //billing.acme.example
	// Backfill, if not empty, names the backfill that every event belongs to
	// (event.CheckBackfill); events that name another one are refused.
	Backfill string

	// InFlight is how many events may await their acknowledgement at one
	// time, over all calls. 0 means DefaultInFlight.
	InFlight int
	// AckTimeout is how long one attempt waits for its acknowledgement
	// before the event is sent again. 0 means DefaultAckTimeout.
	AckTimeout time.Duration
	// Patience is how long one event keeps being tried while servers answer
	// but do not store it: no stream takes the subject, or the stream is full.
	// It has to outlast the election of a stream leader. Lost connections
	// and missing answers do not count: those are retried until the context
	// ends. 0 means DefaultPatience.
	Patience time.Duration
	// OnRetry, if not nil, is told of every attempt that will be repeated.
	// It is called from several goroutines and must not block.
	OnRetry func(Retry)
}

// Retry tells of an attempt that did not get its event acknowledged.
type Retry struct {
	EventID string
	Subject string
	Attempt int // 1 for the first
	Err     error
	Wait    time.Duration // until the next attempt
}

// Ack is the server's word that it has stored an event.
type Ack struct {
	EventID   string // set with an error as well: publishing this id again is safe
	Stream    string
	Sequence  uint64 // position in Stream
	Duplicate bool   // an earlier message with this source and id is the one that is stored
}

// Publisher publishes the events of one vendor over one connection. It is safe
// for concurrent use. Make one per connection and vendor, and keep it: its
// error handler stays on the connection as long as the connection lives.
type Publisher struct {
	config  Config
	nc      *nats.Conn
	js      jetstream.JetStream
	slots   chan struct{} // one per event in flight
	refused *refusals
}

// New makes a Publisher on an open connection. It puts an error handler before
// the connection's own (which still gets every error that no call is waiting
// for), because a server reports a refused publish in no other way: set your
// own handler before calling New.
func New(nc *nats.Conn, config Config) (*Publisher, error) {
	var problems []error
	if nc == nil {
		problems = append(problems, errors.New("no connection: want an open *nats.Conn"))
	}
	if err := event.CheckID(config.Vendor); err != nil {
		problems = append(problems, fmt.Errorf("vendor id %w", err))
	}
	if config.Source == "" {
		problems = append(problems, errors.New("source is empty: want a URI reference such as //billing.acme.example"))
	}
	if config.Backfill != "" {
		problems = append(problems, event.CheckBackfill(config.Backfill))
	}
	if config.InFlight < 0 || config.AckTimeout < 0 || config.Patience < 0 {
		problems = append(problems, errors.New("a negative InFlight, AckTimeout or Patience: want 0 for the default, or more"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("make publisher: %w", err)
	}
	config.InFlight = or(config.InFlight, DefaultInFlight)
	config.AckTimeout = or(config.AckTimeout, DefaultAckTimeout)
	config.Patience = or(config.Patience, DefaultPatience)
	// The slots bound what is in flight. The client's own bound must never
	// be met: it fails a publish after a short stall instead of waiting.
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(math.MaxInt32),
		jetstream.WithPublishAsyncTimeout(config.AckTimeout))
	if err != nil {
		return nil, fmt.Errorf("make publisher: %w", err)
	}
	return &Publisher{config: config, nc: nc, js: js, slots: make(chan struct{}, config.InFlight), refused: listen(nc)}, nil
}

func or[T int | time.Duration](value, standard T) T {
	if value == 0 {
		return standard
	}
	return value
}

// Publish sends one event and returns when the server has acknowledged it. An
// empty ID becomes a UUIDv7, an empty Source, Vendor and Backfill those of the
// Config, an empty Type that of the Data, a zero Time now; e itself is not
// changed.
//
// An event that violates the contract is not sent: the error then wraps an
// *event.Fault. Otherwise the error wraps one of this package's Err… values or
// the context's error. After ErrInboxDenied or a context's error the event may
// be stored all the same; publishing it again under the same id and time is
// safe. Lost connections and missing answers are retried until ctx ends, so
// give it a deadline.
//
// When ctx is part of an OpenTelemetry trace that is recorded, the message tells
// so, and a worker with tracing on goes on with the trace.
func (p *Publisher) Publish(ctx context.Context, e *event.Event) (Ack, error) {
	m, err := p.message(e)
	if err != nil {
		return Ack{}, err
	}
	if err := p.acquire(ctx); err != nil {
		return Ack{EventID: m.event.ID}, m.failed(err)
	}
	defer p.release()
	return p.deliver(ctx, m)
}

func (p *Publisher) acquire(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Publisher) release() { <-p.slots }

// message is one event, ready to be sent as often as it takes.
type message struct {
	event *event.Event // as sent
	wire  *nats.Msg
}

// failed says what we were doing when err happened.
func (m message) failed(err error) error {
	return fmt.Errorf("publish event %s: %w", m.event.ID, err)
}

// message completes and checks an event and encodes it.
func (p *Publisher) message(given *event.Event) (message, error) {
	if given == nil {
		return message{}, errors.New("publish event: it is nil")
	}
	e := *given
	if err := p.complete(&e); err != nil {
		return message{}, err
	}
	m := message{event: &e}
	if e.Vendor != p.config.Vendor {
		return message{}, m.failed(fmt.Errorf("its vendor is %q: this publisher publishes for %q", e.Vendor, p.config.Vendor))
	}
	if want := p.config.Backfill; want != "" && e.Backfill != want {
		return message{}, m.failed(fmt.Errorf("it belongs to backfill %q: this publisher publishes backfill %q", e.Backfill, want))
	}
	if err := inLine(e.Check()); err != nil {
		return message{}, m.failed(err)
	}
	m.wire = nats.NewMsg(e.Subject().String())
	m.wire.Data = e.Structured()
	m.wire.Header.Set("content-type", event.ContentTypeStructured)
	m.wire.Header.Set(jetstream.MsgIDHeader, messageID(&e))
	if size, limit := wireSize(m.wire), p.nc.MaxPayload(); limit > 0 && size > limit {
		return message{}, m.failed(tooLarge(size, limit))
	}
	return m, nil
}

func (p *Publisher) complete(e *event.Event) error {
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make an event id: %w", err)
		}
		e.ID = id.String()
	}
	if e.Source == "" {
		e.Source = p.config.Source
	}
	if e.Vendor == "" {
		e.Vendor = p.config.Vendor
	}
	if e.Backfill == "" {
		e.Backfill = p.config.Backfill
	}
	if e.Type == "" {
		e.Type = typeOf(e.Data)
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	return nil
}

// messageID is {source}/{id} (event contract, "Envelope"). The client trims
// blanks around a header, which would make two ids one: they are escaped then.
func messageID(e *event.Event) string {
	id := e.Source + "/" + e.ID
	if strings.TrimSpace(id) != id {
		return strings.ReplaceAll(id, " ", "%20")
	}
	return id
}

// wireSize is what the server holds against its maximum payload: the encoded
// headers and the body, in bytes.
func wireSize(m *nats.Msg) int64 {
	size := len("NATS/1.0\r\n") + len("\r\n") + len(m.Data)
	for name, values := range m.Header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return int64(size)
}
