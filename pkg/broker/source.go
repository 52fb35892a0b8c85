package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

const (
	defaultMaxBatch = 500
	defaultMaxWait  = 100 * time.Millisecond
	defaultMaxBytes = 4 << 20

	// maxBatch and mostBuffered leave room, within what the server hands out
	// unacknowledged, for the batch that is being folded, the next one and
	// what is on the way.
	maxBatch     = maxAckPending / 4
	mostBuffered = maxAckPending * 4 / 10
)

// holdTime is how much a source may hold, in time that working on it takes: a
// worker that stops wants to finish all that was fetched. Up to three times as
// much is under way: what is being folded, what is next, and the buffer.
const holdTime = 400 * time.Millisecond

// SourceConfig bounds the batches of a source. Zero values are defaults.
type SourceConfig struct {
	// MaxBatch messages, default 500, are given at once without waiting for
	// more. Whoever asks late, because folding does not keep up, gets up to
	// ten times as many: the more events are folded together, the fewer writes
	// each of them costs. That grows while batches take less than 200 ms each;
	// whoever takes longer than 400 ms gets smaller ones, down to a tenth of MaxBatch.
	MaxBatch int
	MaxWait  time.Duration // from the first message of a batch, default 100 ms
	// MaxBytes ends a batch once it is reached, default 4 MiB. A source holds
	// at most about eleven times MaxBatch messages and three times MaxBytes.
	MaxBytes int
}

// lagging is how many times larger than MaxBatch a batch may be that nobody
// asked for in time.
const lagging = 10

// Source gives the messages of one partition, each until it is acknowledged.
// Receive must be called by one goroutine at a time; the rest is safe for
// concurrent use. A lost connection is mended in the background: a message
// may then come once more.
type Source struct {
	broker   *Broker
	config   SourceConfig
	name     string // of the consumer, as people read it: EVENTS_acme/p3
	consumer jetstream.Consumer
	puller   *puller
	closed   chan struct{}
	drain    sync.Once
	close    sync.Once
	wake     chan struct{} // the buffer has its first message, is a batch, or err is set
	room     chan struct{} // the buffer was emptied

	mu       sync.Mutex
	buffered []event.Message
	bytes    int
	first    time.Time // when buffered[0] came
	err      error
	drained  bool      // nothing more will come
	limit    int       // how many messages the buffer may have
	given    int       // messages of the last batch ...
	since    time.Time // ... and when it was given
}

// Source opens the messages of one partition.
func (b *Broker) Source(ctx context.Context, vendor string, partition int, c SourceConfig) (*Source, error) {
	c.MaxBatch = cmp.Or(c.MaxBatch, defaultMaxBatch)
	c.MaxWait = cmp.Or(c.MaxWait, defaultMaxWait)
	c.MaxBytes = cmp.Or(c.MaxBytes, defaultMaxBytes)
	if c.MaxBatch < 1 || c.MaxBatch > maxBatch || c.MaxBytes < 1 {
		return nil, fmt.Errorf("source of %s partition %d: batches of %d messages and %d bytes: want 1 to %d messages, at least 1 byte",
			vendor, partition, c.MaxBatch, c.MaxBytes, maxBatch)
	}
	consumer, err := b.js.Consumer(ctx, EventsStream(vendor), consumerName(partition))
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, noVendor(vendor)
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, fmt.Errorf("partition %d of vendor %s has no consumer: run `usagebridge init --vendor %s`: %w", partition, vendor, vendor, err)
	case err != nil:
		return nil, fmt.Errorf("open source of %s partition %d: %w", vendor, partition, err)
	}
	s := &Source{
		broker: b, config: c, name: EventsStream(vendor) + "/" + consumerName(partition), consumer: consumer,
		closed: make(chan struct{}), wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		limit: c.MaxBatch,
	}
	// A pull of less bytes than one message would never get it.
	s.puller, err = b.newPuller(EventsStream(vendor), consumerName(partition), max(c.MaxBytes, 2*maxEvent))
	if err != nil {
		return nil, fmt.Errorf("open source of %s partition %d: %w", vendor, partition, err)
	}
	s.puller.take, s.puller.room, s.puller.failed = s.take, s.awaitRoom, s.fail
	go s.puller.run()
	return s, nil
}

// take puts one message into the buffer.
func (s *Source) take(m *nats.Msg) {
	message, err := received(m)
	if err != nil {
		s.broker.log.Error("message has no metadata", "subject", m.Subject, "err", err)
		return
	}
	s.mu.Lock()
	if len(s.buffered) == 0 {
		s.first = time.Now()
	}
	s.buffered = append(s.buffered, message)
	s.bytes += len(message.Data)
	notify := len(s.buffered) == 1 || s.ripe()
	s.mu.Unlock()
	if notify {
		signal(s.wake)
	}
}

// awaitRoom waits until messages may be asked for, and says how many; 0 when
// the source is to be drained.
func (s *Source) awaitRoom() int {
	for {
		s.mu.Lock()
		room := s.limit - len(s.buffered)
		if s.bytes >= s.config.MaxBytes {
			room = 0
		}
		s.mu.Unlock()
		select {
		case <-s.puller.stop:
			return 0
		default:
		}
		if room > 0 {
			return room
		}
		select {
		case <-s.room:
		case <-s.puller.stop:
			return 0
		}
	}
}

// ripe says whether the buffer is a batch. It is called with the lock held.
func (s *Source) ripe() bool {
	return len(s.buffered) >= min(s.config.MaxBatch, s.limit) || s.bytes >= s.config.MaxBytes
}

// most is how many messages the buffer may have at most.
func (s *Source) most() int { return min(lagging*s.config.MaxBatch, mostBuffered) }

// pace sets how many messages the buffer may have by how long the last batch
// took before the next one was asked for.
func (s *Source) pace(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given == 0 {
		return
	}
	switch took := now.Sub(s.since); {
	case took <= holdTime/2: // twice as many are not too many
		s.limit = min(2*s.limit, s.most())
	case took > holdTime:
		s.limit = max(int(time.Duration(s.given)*holdTime/took), s.config.MaxBatch/lagging, 1)
	}
	s.given = 0
}

// fail takes what goes wrong in the background. It is pulled again after nearly
// everything; that the consumer is gone has to be asked for when it was deleted
// while no pull was waiting.
func (s *Source) fail(err error) {
	final := errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrBadRequest) || errors.Is(err, nats.ErrConnectionClosed)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, errNoPulse) {
		ctx, cancel := limited(context.Background())
		defer cancel()
		go func() { // a source that ends does not wait for it
			select {
			case <-s.puller.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		if _, gone := s.consumer.Info(ctx); errors.Is(gone, jetstream.ErrConsumerNotFound) {
			err, final = gone, true
		}
	}
	if !final {
		s.broker.log.Warn("source was interrupted", "consumer", s.name, "err", err)
		return
	}
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	signal(s.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ErrClosed says that a source was closed, or drained and is empty.
var ErrClosed = errors.New("source is closed")

// Receive waits for a message and gives what has come when the batch is full
// or MaxWait has passed since its first message. While it waits one request in
// 30 seconds and one heartbeat in 2 go over the wire. Every message is to be
// given to Ack or Release.
func (s *Source) Receive(ctx context.Context) ([]event.Message, error) {
	s.pace(time.Now())
	var expired <-chan time.Time
	for {
		batch, wait, err := s.batch()
		if batch != nil || err != nil {
			return batch, err
		}
		if wait > 0 && expired == nil {
			expired = time.After(wait)
		}
		select {
		case <-s.wake:
		case <-expired:
		case <-s.closed:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// batch is the buffer if it is ready, else how long until it will be (0: not
// known, it is empty).
func (s *Source) batch() ([]event.Message, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buffered) == 0 {
		switch {
		case s.drained:
			return nil, 0, ErrClosed
		case s.err != nil:
			return nil, 0, fmt.Errorf("consumer %s has ended: %w", s.name, s.err)
		}
		return nil, 0, nil
	}
	if wait := s.config.MaxWait - time.Since(s.first); wait > 0 && !s.ripe() && s.err == nil && !s.drained {
		return nil, wait, nil
	}
	batch := s.buffered
	s.buffered, s.bytes = nil, 0
	s.given, s.since = len(batch), time.Now()
	signal(s.room)
	return batch, 0, nil
}

// Ack acknowledges the messages: they never come again. It returns when the
// server has got the acknowledgements; one that is lost all the same makes
// its message come once more.
func (s *Source) Ack(ctx context.Context, messages []event.Message) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	for _, m := range messages {
		if err := s.broker.conn.Publish(m.Handle, ack); err != nil {
			return fmt.Errorf("acknowledge %d messages: %w", len(messages), err)
		}
	}
	if err := s.broker.conn.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("acknowledge %d messages: %w", len(messages), err)
	}
	return nil
}

var (
	ack = []byte("+ACK")
	nak = []byte("-NAK")
)

// Release gives the messages back: they come again at once, to whoever owns
// the partition then.
func (s *Source) Release(messages []event.Message) {
	for _, m := range messages {
		if err := s.broker.conn.Publish(m.Handle, nak); err != nil {
			s.broker.log.Warn("messages were not released and come again after the acknowledgement timeout", "messages", len(messages), "err", err)
			return
		}
	}
}

// Pending is how many messages of the partition are not acknowledged yet.
func (s *Source) Pending(ctx context.Context) (uint64, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("count pending messages of consumer %s: %w", s.name, err)
	}
	return pending(info), nil
}

// Drain stops fetching. Receive then gives what was fetched already, and at the
// end, within busyExpiry, ErrClosed: nothing need be delivered a second time.
func (s *Source) Drain() {
	s.drain.Do(func() {
		close(s.puller.stop)
		go func() {
			<-s.puller.ended
			s.mu.Lock()
			s.drained = true
			s.mu.Unlock()
			signal(s.wake)
		}()
	})
}

// Close stops fetching and releases what was fetched and not received.
func (s *Source) Close() {
	s.close.Do(func() {
		s.Drain()
		close(s.closed)
		<-s.puller.ended
		s.mu.Lock()
		rest := s.buffered
		s.buffered = nil
		s.mu.Unlock()
		s.Release(rest)
	})
}

// received is the message as the program sees it.
func received(m *nats.Msg) (event.Message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return event.Message{}, err
	}
	e := stored(m.Subject, m.Header, m.Data)
	e.Stream, e.Sequence, e.Stored = meta.Stream, meta.Sequence.Stream, meta.Timestamp.UTC()
	e.Deliveries, e.Pending = int(meta.NumDelivered), meta.NumPending
	e.Handle = m.Reply
	return e, nil
}

// stored is a message of a log with its public subject, without the partition
// that the stream puts in front.
func stored(subject string, h nats.Header, data []byte) event.Message {
	_, subject, _ = strings.Cut(subject, ".")
	return event.Message{Subject: subject, Header: header(h), Data: data}
}

// header is nil when there are none, as event.Message has it.
func header(h nats.Header) map[string][]string {
	if len(h) == 0 {
		return nil
	}
	return h
}
