package publisher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Record is one event of a file or another sequence, or why there is none.
type Record struct {
	Number int          // line in the file, or place in the sequence, from 1
	Event  *event.Event // nil when Err is set
	Err    error
}

// Records numbers the events of a sequence: Records(slices.Values(events)).
func Records(events iter.Seq[*event.Event]) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		number := 0
		for e := range events {
			number++
			if !yield(Record{Number: number, Event: e}) {
				return
			}
		}
	}
}

// Result is what became of one Record. Exactly when Err is nil, Ack is the
// server's acknowledgement.
type Result struct {
	Number int          // of the record
	Event  *event.Event // as sent; the record's own when it was not
	Ack    Ack
	Err    error
}

// Tally counts what became of the records read.
type Tally struct {
	Acknowledged int // Duplicates included
	Duplicates   int
	Failed       int // refused lines and unacknowledged events
}

// PublishAll publishes many events with up to Config.InFlight awaiting their
// acknowledgement at one time, each completed, checked and retried as Publish
// does it. The error is nil only if every record was acknowledged.
//
// each (may be nil) gets the result of every record read, one at a time and in
// the order of the records, from one goroutine that is not the one that
// consumes records. A record with an Err is passed on as a failed result.
//
// Events of one call that touch a common key (a count and a snapshot of its
// organization, two versions of one account) are stored in the order given:
// the later is sent when the earlier is acknowledged or given up. Other events
// may be stored in any order; nothing holds between two calls.
//
// Reading stops early when no event can go through: at ErrNoStream,
// ErrStreamFull, ErrInboxDenied or ErrClosed, and when ctx ends.
func (p *Publisher) PublishAll(ctx context.Context, records iter.Seq[Record], each func(Result)) (Tally, error) {
	b := &bulk{publisher: p, order: newOrder(), flights: make(chan *flight, p.config.InFlight)}
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		b.collect(each)
	}()
	b.feed(ctx, records)
	<-collected
	return b.tally, b.err()
}

// bulk is one call of PublishAll: feed starts flights, each lands on its own
// goroutine, collect takes their results in the order of their start.
type bulk struct {
	publisher *Publisher
	order     *order
	flights   chan *flight
	stopped   atomic.Pointer[error] // why no further record is sent
	unread    bool                  // reading stopped early; set by feed

	// Owned by collect.
	tally Tally
	first Result // that failed
}

// flight is one record under way; result belongs to the reader of landed once
// that is closed.
type flight struct {
	result Result
	landed chan struct{}
}

func (b *bulk) feed(ctx context.Context, records iter.Seq[Record]) {
	defer close(b.flights)
	for record := range records {
		f := &flight{result: Result{Number: record.Number, Event: record.Event, Err: record.Err}, landed: make(chan struct{})}
		stop := b.start(ctx, f)
		b.flights <- f
		if stop {
			b.unread = true
			return
		}
	}
}

// start sends f on its way, or lands it at once when it cannot be sent. It
// reports whether no further record needs to be read.
func (b *bulk) start(ctx context.Context, f *flight) (stop bool) {
	if f.result.Err != nil {
		close(f.landed)
		return false
	}
	m, err := b.publisher.message(f.result.Event)
	if err != nil {
		f.result.Err = err
		close(f.landed)
		return false
	}
	f.result.Event = m.event
	s := scopeOf(m.event)
	b.order.hold(s)
	if err := b.ready(ctx); err != nil {
		b.order.let(s)
		f.result.Err = m.failed(fmt.Errorf("not sent: %w", err))
		close(f.landed)
		return true
	}
	go func() {
		f.result.Ack, f.result.Err = b.publisher.deliver(ctx, m)
		b.publisher.release()
		b.order.let(s)
		if err := f.result.Err; err != nil && hopeless(ctx, err) {
			b.stopped.CompareAndSwap(nil, &err)
		}
		close(f.landed)
	}()
	return false
}

// ready waits for a slot. After an error no slot is taken.
func (b *bulk) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.publisher.acquire(ctx); err != nil {
		return err
	}
	if cause := b.stopped.Load(); cause != nil {
		b.publisher.release()
		return *cause
	}
	return nil
}

// hopeless holds for errors that the next event would meet too.
func hopeless(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, ErrNoStream) || errors.Is(err, ErrStreamFull) ||
		errors.Is(err, ErrInboxDenied) || errors.Is(err, ErrClosed)
}

func (b *bulk) collect(each func(Result)) {
	for f := range b.flights {
		<-f.landed
		switch r := f.result; {
		case r.Err != nil:
			if b.tally.Failed == 0 {
				b.first = r
			}
			b.tally.Failed++
		case r.Ack.Duplicate:
			b.tally.Duplicates++
			fallthrough
		default:
			b.tally.Acknowledged++
		}
		if each != nil {
			each(f.result)
		}
	}
}

// err sums up. It may be called once feed and collect have returned.
func (b *bulk) err() error {
	t := b.tally
	if t.Failed == 0 {
		return nil
	}
	read := ""
	if b.unread {
		read = ", and the rest was not read"
	}
	return fmt.Errorf("%d of %d records not acknowledged%s; the first, record %d: %w",
		t.Failed, t.Failed+t.Acknowledged, read, b.first.Number, b.first.Err)
}
