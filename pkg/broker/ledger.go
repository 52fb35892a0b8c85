package broker

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// LedgerStore is one vendor's ledger in a key-value bucket: the stream that
// is the truth about what the partner should have and has.
type LedgerStore struct {
	broker *Broker
	vendor string
	stream string
	prefix string // of every subject
}

// Ledger is the ledger of a vendor, which Init must have made.
func (b *Broker) Ledger(vendor string) *LedgerStore {
	name := LedgerBucket(vendor)
	return &LedgerStore{broker: b, vendor: vendor, stream: bucketPrefix + name, prefix: subjectPrefix + name + "."}
}

// Load yields every entry of the partition once, as it was at some time of the
// call. An entry that cannot be read ends it:
// going on without it would send wrong figures.
func (s *LedgerStore) Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error {
	all := reading{stream: s.stream, filters: []string{s.prefix + strconv.Itoa(partition) + ".>"}, keys: true}
	err := s.broker.read(ctx, all, func(m *nats.Msg, meta *nats.MsgMetadata) error { return s.entry(m, meta, yield) })
	if err != nil {
		return fmt.Errorf("load ledger %s partition %d: %w", s.vendor, partition, err)
	}
	return nil
}

// entry yields the entry that a message holds, if it is none of a deletion.
func (s *LedgerStore) entry(m *nats.Msg, meta *nats.MsgMetadata, yield func(ledger.Entry) error) error {
	if deleted(m.Header) {
		return nil
	}
	_, key, err := ParseLedgerKey(strings.TrimPrefix(m.Subject, s.prefix))
	if err != nil {
		return err
	}
	e, err := ledger.ParseEntry(key, m.Data)
	if err != nil {
		return err
	}
	e.Revision = meta.Sequence.Stream
	return yield(e)
}

// Read is the stored entry of the key, as the stream's leader has it. When
// somebody has deleted it with a client of the bucket there is none, and its
// Revision is that of the deletion, which is what Write expects then.
func (s *LedgerStore) Read(ctx context.Context, partition int, key ledger.Key) (e ledger.Entry, ok bool, err error) {
	m, err := s.broker.last(ctx, s.stream, s.prefix+LedgerKey(partition, key))
	if err == nil && m != nil {
		if ok = !deleted(m.Header); ok {
			e, err = ledger.ParseEntry(key, m.Data)
		}
		e.Key, e.Revision = key, m.Sequence
	}
	if err != nil {
		return ledger.Entry{}, false, fmt.Errorf("read ledger %s partition %d: %w", s.vendor, partition, err)
	}
	return e, ok, nil
}

// Write stores the entries, each only at its Revision, and sets the new
// revisions in place. Up to 1000 entries are one atomic batch, which costs
// one sync of the disk; an error that wraps ErrStale says that at least one
// revision was not the stored one. After any error some, all or none may be
// stored, and no Revision is to be trusted. No key may come twice.
func (s *LedgerStore) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	messages := make([]*nats.Msg, len(entries))
	for i := range entries {
		m := message(s.prefix+LedgerKey(partition, entries[i].Key), ledger.AppendEntry(nil, &entries[i]))
		expect(m, entries[i].Revision)
		messages[i] = m
	}
	revisions := make([]uint64, len(entries))
	if err := s.broker.publishAll(ctx, s.stream, messages, revisions); err != nil {
		return fmt.Errorf("write %d entries of ledger %s partition %d: %w", len(entries), s.vendor, partition, err)
	}
	for i := range entries {
		entries[i].Revision = revisions[i]
	}
	return nil
}
