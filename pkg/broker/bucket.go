package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrNotFound says that a bucket has no record under a key.
	ErrNotFound = errors.New("no such record")
	// ErrExists says that a bucket has a record under a key already.
	ErrExists = errors.New("record exists already")
)

// Bucket keeps records of one type as JSON, each with a revision. It is safe
// for concurrent use.
type Bucket[T any] struct {
	broker *Broker
	name   string
	kv     jetstream.KeyValue
}

// OpenBucket opens a bucket that Init has made.
func OpenBucket[T any](ctx context.Context, b *Broker, name string) (*Bucket[T], error) {
	kv, err := b.bucket(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Bucket[T]{broker: b, name: name, kv: kv}, nil
}

func (b *Broker) bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	kv, err := b.js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("bucket %s is missing: run `usagebridge init`: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return kv, nil
}

// Get is the record under the key and its revision, or an error that wraps
// ErrNotFound.
func (b *Bucket[T]) Get(ctx context.Context, key string) (T, uint64, error) {
	var record T
	e, err := b.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) { // a deleted key too
		return record, 0, fmt.Errorf("%s in bucket %s: %w", key, b.name, ErrNotFound)
	}
	if err == nil {
		err = json.Unmarshal(e.Value(), &record)
	}
	if err != nil {
		return record, 0, fmt.Errorf("read %s in bucket %s: %w", key, b.name, err)
	}
	return record, e.Revision(), nil
}

// Create stores a new record, or gives an error that wraps ErrExists.
func (b *Bucket[T]) Create(ctx context.Context, key string, record T) error {
	data, err := json.Marshal(record)
	if err == nil {
		_, err = b.kv.Create(ctx, key, data)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || stale(err) {
		return fmt.Errorf("%s in bucket %s: %w", key, b.name, ErrExists)
	}
	if err != nil {
		return fmt.Errorf("create %s in bucket %s: %w", key, b.name, err)
	}
	return nil
}

// Update reads the record, lets change edit it, and stores it if nobody else
// has stored another meanwhile; otherwise it starts again, so change may
// be called more than once. An error of change ends it and comes back. The
// result is the record as stored.
func (b *Bucket[T]) Update(ctx context.Context, key string, change func(*T) error) (T, error) {
	for {
		record, revision, err := b.Get(ctx, key)
		if err != nil {
			return record, err
		}
		if err := change(&record); err != nil {
			return record, err
		}
		data, err := json.Marshal(record)
		if err == nil {
			_, err = b.kv.Update(ctx, key, data, revision)
		}
		switch {
		case stale(err):
			continue
		case err != nil:
			return record, fmt.Errorf("update %s in bucket %s: %w", key, b.name, err)
		}
		return record, nil
	}
}

// Delete removes the record; a key without one is no error.
func (b *Bucket[T]) Delete(ctx context.Context, key string) error {
	if err := b.kv.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s in bucket %s: %w", key, b.name, err)
	}
	return nil
}

// All is every record by its key.
func (b *Bucket[T]) All(ctx context.Context) (map[string]T, error) {
	all := map[string]T{}
	err := b.broker.read(ctx, b.newest(), func(m *nats.Msg, _ *nats.MsgMetadata) error {
		key, record, err := b.decode(m)
		if err != nil {
			return err
		}
		delete(all, key)
		if record != nil {
			all[key] = *record
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read bucket %s: %w", b.name, err)
	}
	return all, nil
}

func (b *Bucket[T]) prefix() string { return subjectPrefix + b.name + "." }

func (b *Bucket[T]) newest() reading {
	return reading{stream: bucketPrefix + b.name, filters: []string{b.prefix() + ">"}, newest: true, keys: true}
}

// decode gives nil for a record that marks its key as gone.
func (b *Bucket[T]) decode(m *nats.Msg) (string, *T, error) {
	key := strings.TrimPrefix(m.Subject, b.prefix())
	if deleted(m.Header) {
		return key, nil, nil
	}
	record := new(T)
	if err := json.Unmarshal(m.Data, record); err != nil {
		return key, nil, fmt.Errorf("%s: %w", key, err)
	}
	return key, record, nil
}

// Watch yields every record, then every change until the context ends; nil
// means that the key is gone. After a lost connection all records are yielded
// once more, and what has gone meanwhile as nil. An error of yield ends it
// and comes back; a record that cannot be read ends it too.
func (b *Bucket[T]) Watch(ctx context.Context, yield func(key string, record *T) error) error {
	return b.watch(ctx, yield, func() {})
}

// watch is Watch; complete is called, too, whenever every record has been
// yielded.
func (b *Bucket[T]) watch(ctx context.Context, yield func(key string, record *T) error, complete func()) error {
	w := watching[T]{bucket: b, yield: yield, complete: complete, known: map[string]bool{}}
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case w.final:
			return fmt.Errorf("watch bucket %s: %w", b.name, err)
		case w.started:
			wait = firstRetry
		}
		b.broker.log.Warn("watch was interrupted, starting it again", "bucket", b.name, "err", err)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// watching is the state of one Watch over all its connections.
type watching[T any] struct {
	bucket   *Bucket[T]
	yield    func(string, *T) error
	complete func()
	known    map[string]bool // keys whose record was yielded
	seen     map[string]bool // keys of this connection, until the first pass is over; then nil
	started  bool            // this connection got so far as to read
	final    bool            // the error is not the connection's
}

// once watches until the connection is lost.
func (w *watching[T]) once(ctx context.Context) error {
	w.started, w.seen = false, map[string]bool{}
	b, all := w.bucket.broker, w.bucket.newest()
	end, err := b.end(ctx, all)
	if err != nil {
		return err
	}
	open, err := b.openReader(ctx, all)
	if err != nil {
		return err
	}
	defer open.close()
	w.started = true
	for at := uint64(0); ; {
		wait := time.Duration(0)
		if w.seen != nil {
			wait = readIdle
			if at >= end {
				if err := w.passed(); err != nil {
					return err
				}
				wait = 0
			}
		}
		m, meta, err := open.next(wait)
		if errors.Is(err, errIdle) { // the record that was the end may be gone
			if end, err = b.end(ctx, all); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		at = meta.Sequence.Stream
		if err := w.take(m); err != nil {
			w.final = true
			return err
		}
	}
}

// passed ends the first pass: what was known and not seen again has gone.
func (w *watching[T]) passed() error {
	for key := range w.known {
		if w.seen[key] {
			continue
		}
		delete(w.known, key)
		if err := w.yield(key, nil); err != nil {
			w.final = true
			return err
		}
	}
	w.seen = nil
	w.complete()
	return nil
}

func (w *watching[T]) take(m *nats.Msg) error {
	key, record, err := w.bucket.decode(m)
	if err != nil {
		return err
	}
	if w.seen != nil {
		w.seen[key] = record != nil
	}
	if record == nil {
		if !w.known[key] {
			return nil
		}
		delete(w.known, key)
		return w.yield(key, nil)
	}
	w.known[key] = true
	return w.yield(key, record)
}
