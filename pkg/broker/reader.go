package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	readMessages = 8000
	readBytes    = 8 * maxEvent
	// readIdle is after how long without a message a finite read asks again
	// where the end is: the message that was the end may have been deleted.
	readIdle = 500 * time.Millisecond
	// readIdles is how often a reader may be idle, one time after the other,
	// while there is something to read. In a cluster the request for messages
	// may reach the server of a new consumer too early, and is lost then.
	readIdles = 4
	// readForget is when the server drops a reader that is gone.
	readForget = time.Minute
)

var (
	errDisconnected = errors.New("disconnected")
	errGap          = errors.New("messages were lost on the way")
	errIdle         = errors.New("no message")
	errStalled      = fmt.Errorf("%w: nothing comes, and there is something to come", errDisconnected)
)

// reading says what to read of a stream.
type reading struct {
	stream  string
	filters []string // stored subjects, wildcards allowed; none may cover another
	newest  bool     // the newest message of each subject only
	after   uint64   // start behind this sequence
	since   time.Time
	// keys says that the stream keeps the newest messages of each subject
	// alone, as a bucket does. A message that is replaced while others are read
	// would otherwise be missed: its old place is empty, its new one behind the
	// end. Each subject is then yielded once, as it was at some time of the
	// reading.
	keys bool
	// repeats, with keys: whoever asks takes the newest, and needs no memory of
	// who has been yielded.
	repeats bool
	once    *once // with keys: who has been yielded
}

// reader is one temporary consumer on the server. Unlike the client's ordered
// consumer it does not outlive a disconnect: whoever reads starts another
// one, and can stop waiting at any time.
type reader struct {
	broker   *Broker
	stream   string
	name     string
	puller   *puller
	ctx      context.Context // the reader's own life, ended by close or by a disconnect
	end      func()
	received uint64
	pending  uint64      // messages when it was opened
	idle     int         // how often no message came, one time after the other
	batch    []*nats.Msg // being given out

	ready   chan struct{} // there are messages, or a fault
	taken   chan struct{} // there is room
	mu      sync.Mutex
	arrived []*nats.Msg
	fault   error
}

func (b *Broker) openReader(ctx context.Context, r reading) (*reader, error) {
	life, end := b.whileConnected(ctx)
	request, done := limited(life)
	defer done()
	consumer, err := b.js.CreateConsumer(request, r.stream, r.consumer())
	if err != nil {
		end()
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s is missing: run `usagebridge init`: %w", r.stream, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", r.stream, causeOr(life, err))
	}
	open := &reader{
		broker: b, stream: r.stream, name: consumer.CachedInfo().Name, pending: consumer.CachedInfo().NumPending, ready: make(chan struct{}, 1), taken: make(chan struct{}, 1),
		ctx: life, end: end,
	}
	if open.puller, err = b.newPuller(r.stream, open.name, readBytes); err != nil {
		end()
		return nil, fmt.Errorf("read stream %s: %w", r.stream, err)
	}
	open.puller.reading = true
	open.puller.take, open.puller.room, open.puller.failed = open.take, open.awaitRoom, open.fail
	go open.puller.run()
	return open, nil
}

// whileConnected gives a context that ends, with errDisconnected as its cause, when
// the connection is lost. The server that was asked then never answers, and the
// client does not say so: whoever watched what operators say would be blind for as
// long as a request may take.
func (b *Broker) whileConnected(ctx context.Context) (connected context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	status := b.conn.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	go func() {
		select {
		case <-status:
			cancel(errDisconnected)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		b.conn.RemoveStatusListener(status)
	}
}

// causeOr is the lost connection, if that is why a request ended, or the error.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errDisconnected) {
		return cause
	}
	return err
}

func (r reading) consumer() jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: readForget,
		FilterSubjects:    r.filters,
	}
	switch {
	case r.newest:
		c.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	case r.after > 0:
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, r.after+1
	case !r.since.IsZero():
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &r.since
	}
	return c
}

// take takes what comes, until next asks for it.
func (r *reader) take(m *nats.Msg) {
	r.mu.Lock()
	r.arrived = append(r.arrived, m)
	r.mu.Unlock()
	signal(r.ready)
}

// awaitRoom waits until less than half of what may lie here does.
func (r *reader) awaitRoom() int {
	for {
		r.mu.Lock()
		room := readMessages - len(r.arrived)
		r.mu.Unlock()
		if room >= readMessages/2 {
			return room
		}
		select {
		case <-r.taken:
		case <-r.puller.stop:
			return 0
		}
	}
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	r.fault = err
	r.mu.Unlock()
	signal(r.ready)
}

// fill moves what has come to the batch, and says what has gone wrong if there
// is nothing.
func (r *reader) fill() error {
	r.mu.Lock()
	r.batch, r.arrived = r.arrived, nil
	fault := r.fault
	r.mu.Unlock()
	if len(r.batch) > 0 {
		signal(r.taken)
		return nil
	}
	return fault
}

// next waits for one message, for ever when wait is 0. Who goes on after
// errIdle knows that there is one.
func (r *reader) next(wait time.Duration) (*nats.Msg, *nats.MsgMetadata, error) {
	if err := r.await(wait); err != nil {
		return nil, nil, err
	}
	m := r.batch[0]
	r.batch[0] = nil
	r.batch = r.batch[1:]
	meta, err := m.Metadata()
	if err != nil {
		return nil, nil, err
	}
	r.idle = 0
	r.received++
	if meta.Sequence.Consumer != r.received {
		return nil, nil, errGap
	}
	return m, meta, nil
}

// await returns when there is a message in the batch.
func (r *reader) await(wait time.Duration) error {
	if len(r.batch) > 0 && r.ctx.Err() == nil {
		return nil
	}
	var late <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		late = timer.C
	}
	for {
		switch err := r.fill(); {
		case r.ctx.Err() != nil:
			return context.Cause(r.ctx)
		case err != nil:
			return errors.Join(errDisconnected, err)
		case len(r.batch) > 0:
			return nil
		}
		select {
		case <-r.ready:
		case <-r.ctx.Done():
		case <-late:
			if r.idle >= readIdles {
				return errStalled
			}
			r.idle++
			return errIdle
		}
	}
}

func (r *reader) close() {
	r.end()
	close(r.puller.stop)
	if !r.broker.conn.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	_ = r.broker.js.DeleteConsumer(ctx, r.stream, r.name) // or the server forgets it by itself
}

// interrupted says that a new reader may do better.
func interrupted(err error) bool { return errors.Is(err, errDisconnected) || errors.Is(err, errGap) }

// read yields the messages up to what is the end of the stream now, and goes
// on where it was when the connection was lost in between.
func (b *Broker) read(ctx context.Context, r reading, yield func(*nats.Msg, *nats.MsgMetadata) error) error {
	if r.keys && !r.repeats {
		r.once = &once{seed: maphash.MakeSeed(), yield: yield}
		yield = r.once.take
	}
	end, err := b.end(ctx, r)
	for err == nil && r.after < end {
		if r.after, err = b.readOnce(ctx, r, end, yield); !interrupted(err) {
			return err
		}
		b.log.Warn("reading was interrupted, reading on", "stream", r.stream, "sequence", r.after, "err", err)
		if err = pause(ctx, lastRetry); err == nil {
			end, err = b.end(ctx, r)
		}
	}
	return err
}

// once yields the first message of each subject. Subjects are told apart by a
// hash of 64 bits: a million of them must not cost a hundred megabytes.
type once struct {
	seed  maphash.Seed
	seen  map[uint64]struct{}
	yield func(*nats.Msg, *nats.MsgMetadata) error
}

// expect makes room for so many subjects.
func (o *once) expect(subjects uint64) {
	if o.seen == nil {
		o.seen = make(map[uint64]struct{}, min(subjects, maxExpected))
	}
}

// maxExpected bounds the room that is made beforehand.
const maxExpected = 1 << 20

func (o *once) take(m *nats.Msg, meta *nats.MsgMetadata) error {
	hash := maphash.String(o.seed, m.Subject)
	before := len(o.seen)
	if o.seen[hash] = struct{}{}; len(o.seen) == before {
		return nil
	}
	return o.yield(m, meta)
}

// maxChase is how often the end of a bucket is looked for again after it was
// reached. The reader is much faster than writers are: each time less is left,
// and who is missed all the same was replaced as often, within milliseconds.
const maxChase = 8

// end is the sequence of the last message to read, 0 when there is none. The
// stream's leader says it: the reader may sit on a follower that lags.
func (b *Broker) end(ctx context.Context, r reading) (uint64, error) {
	connected, done := b.whileConnected(ctx)
	defer done()
	var end uint64
	for _, filter := range r.filters {
		request, cancel := limited(connected)
		m, err := b.last(request, r.stream, filter)
		cancel()
		if err != nil {
			return 0, fmt.Errorf("find the end of stream %s: %w", r.stream, causeOr(connected, err))
		}
		if m != nil && !m.Time.Before(r.since) {
			end = max(end, m.Sequence)
		}
	}
	return end, nil
}

// readOnce reads up to end with one reader and says how far it came. Without
// an error that is all there is, even if end is gone.
func (b *Broker) readOnce(ctx context.Context, r reading, end uint64, yield func(*nats.Msg, *nats.MsgMetadata) error) (uint64, error) {
	open, err := b.openReader(ctx, r)
	if err != nil {
		return r.after, err
	}
	defer open.close()
	if r.once != nil {
		r.once.expect(open.pending)
	}
	chased := 0
	for at := r.after; ; {
		m, meta, err := open.next(readIdle)
		if errors.Is(err, errIdle) {
			if end, err = b.end(ctx, r); err == nil && end <= at {
				return at, nil
			}
		}
		if err != nil {
			return at, err
		}
		if m == nil {
			continue
		}
		if err := yield(m, meta); err != nil {
			return at, err
		}
		if at = meta.Sequence.Stream; at < end {
			continue
		}
		if r.keys && chased < maxChase {
			chased++
			if end, err = b.end(ctx, r); err != nil {
				return at, err
			}
		}
		if at >= end {
			return at, nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deleted says that a message of a bucket marks its key as gone.
func deleted(header nats.Header) bool {
	return header.Get("KV-Operation") != "" || header.Get(jetstream.MarkerReasonHeader) != ""
}

// filters drops repeated filters, which the server refuses.
func filters(subjects []string) []string {
	all := slices.Clone(subjects)
	slices.Sort(all)
	return slices.Compact(all)
}
