package broker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

const (
	// scanWait is how long a scan waits for further partitions.
	scanWait = 25 * time.Millisecond
	// scanWorth is how many partitions are worth a scan. For each consumer the
	// server looks at every message of the stream: that costs about a fifth of
	// sending it, and dropping it here.
	scanWorth = 6
	// scanChunk is how many messages go to a partition at a time, and
	// scanChunks how many such chunks may wait for all of them together: those
	// of one partition often stand behind each other.
	scanChunk, scanChunks = 128, 64
)

// scans are those that wait for further partitions, by stream.
type scans struct {
	mu   sync.Mutex
	open map[string]*scan
}

// scan reads several partitions of a ledger at once, all of it with a single
// consumer, and understands what it reads in one goroutine for each partition.
type scan struct {
	store *LedgerStore
	parts map[string]*scanned // by the partition's number, as keys have it
	left  atomic.Int64        // parts that somebody still wants
	room  chan struct{}       // for chunks
	err   error               // of reading, when there are no more chunks
}

// scanned is one partition of a scan.
type scanned struct {
	ctx    context.Context
	number int
	yield  func(ledger.Entry) error
	chunk  []placed      // being filled
	chunks chan []placed // to be understood
	err    error         // when done is closed
	done   chan struct{}
}

// placed is a message as it stands in the stream.
type placed struct {
	message *nats.Msg
	meta    *nats.MsgMetadata
}

// LoadTogether is Load for partitions that are wanted at the same time: when many
// ask within a moment, the stream is read once for all of them. An entry that is
// written meanwhile may be yielded again, as it is then.
func (s *LedgerStore) LoadTogether(ctx context.Context, partition int, yield func(ledger.Entry) error) error {
	part := &scanned{ctx: ctx, number: partition, yield: yield, chunks: make(chan []placed, scanChunks), done: make(chan struct{})}
	if !s.broker.scans.join(s, part) {
		return s.Load(ctx, partition, yield)
	}
	<-part.done // not earlier when ctx ends: nothing may be yielded after this
	return part.err
}

// join adds the partition to a scan that has not begun. It is false when that
// has the partition already.
func (o *scans) join(s *LedgerStore, part *scanned) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	open := o.open[s.stream]
	if open == nil {
		open = &scan{store: s, parts: map[string]*scanned{}, room: make(chan struct{}, scanChunks)}
		if o.open == nil {
			o.open = map[string]*scan{}
		}
		o.open[s.stream] = open
		time.AfterFunc(scanWait, func() {
			o.mu.Lock()
			delete(o.open, s.stream)
			o.mu.Unlock()
			open.run()
		})
	}
	token := strconv.Itoa(part.number)
	if open.parts[token] != nil {
		return false
	}
	open.parts[token] = part
	return true
}

// run reads until every partition has what there is of it, or has failed.
func (c *scan) run() {
	if len(c.parts) < scanWorth {
		for _, part := range c.parts {
			go func() {
				part.err = c.store.Load(part.ctx, part.number, part.yield)
				close(part.done)
			}()
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.left.Store(int64(len(c.parts)))
	for _, part := range c.parts {
		go c.understand(part, cancel)
	}
	all := reading{stream: c.store.stream, filters: []string{c.store.prefix + ">"}, keys: true, repeats: true}
	c.err = c.store.broker.read(ctx, all, c.take)
	for _, part := range c.parts {
		c.give(part)
		close(part.chunks)
	}
}

// take gives a message to its partition.
func (c *scan) take(m *nats.Msg, meta *nats.MsgMetadata) error {
	token, _, _ := strings.Cut(m.Subject[len(c.store.prefix):], ".")
	part := c.parts[token]
	if part == nil {
		return nil
	}
	if part.chunk == nil {
		part.chunk = make([]placed, 0, scanChunk)
	}
	if part.chunk = append(part.chunk, placed{m, meta}); len(part.chunk) == scanChunk {
		c.give(part)
	}
	return nil
}

// give hands over what has been gathered for the partition.
func (c *scan) give(part *scanned) {
	c.room <- struct{}{}
	part.chunks <- part.chunk
	part.chunk = nil
}

// understand yields the entries of a partition. What is wrong with one is not
// the others' fault; when nobody wants the scan any longer it ends.
func (c *scan) understand(part *scanned, enough func()) {
	if err := c.entries(part); err != nil {
		part.err = fmt.Errorf("load ledger %s partition %d: %w", c.store.vendor, part.number, err)
	}
	close(part.done)
	if c.left.Add(-1) == 0 {
		enough()
	}
	for range part.chunks {
		<-c.room
	}
}

// entries yields the entries of a partition until there are no more.
func (c *scan) entries(part *scanned) error {
	for {
		select {
		case <-part.ctx.Done():
			return part.ctx.Err()
		case chunk, more := <-part.chunks:
			if !more {
				return c.err
			}
			<-c.room
			for _, s := range chunk {
				if err := c.store.entry(s.message, s.meta, part.yield); err != nil {
					return err
				}
			}
		}
	}
}
