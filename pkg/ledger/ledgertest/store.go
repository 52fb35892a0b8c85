// Package ledgertest is the contract of a ledger store, as a suite that every
// store must pass, and a store in memory that passes it.
//
// It deliberately knows no storage technology: the store under test is handed
// in.
package ledgertest

import (
	"context"
	"fmt"
	"sync"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Store keeps the entries of one vendor, by partition.
type Store interface {
	// Load yields every entry of the partition, in any order, each with its
	// revision. An error of yield ends it and comes back.
	Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error
	// Read is the stored entry of a key; ok is false when there is none.
	Read(ctx context.Context, partition int, key ledger.Key) (e ledger.Entry, ok bool, err error)
	// Write stores the entries, each only if its Revision is still the stored
	// one (0: the key must not exist), and sets the new revisions in place.
	// An error that wraps the store's stale error means that at least one
	// revision was not the stored one; after any error some, all or none of
	// the entries may be stored. No key may come twice in one call.
	Write(ctx context.Context, partition int, entries []ledger.Entry) error
}

// Memory is a Store in memory. Its zero value is not usable: call NewMemory.
type Memory struct {
	mu       sync.Mutex
	stale    error
	revision uint64
	entries  map[int]map[ledger.Key]ledger.Entry
	fail     func(entries []ledger.Entry) (store bool, err error)
}

// NewMemory makes an empty store that wraps stale when a revision is not the
// stored one.
func NewMemory(stale error) *Memory {
	return &Memory{stale: stale, entries: map[int]map[ledger.Key]ledger.Entry{}}
}

// FailWith makes each Write ask fail first: it says whether the entries are
// stored all the same, and the error to give (nil: none). Nil takes it away.
func (m *Memory) FailWith(fail func([]ledger.Entry) (store bool, err error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

// Load yields the entries of the partition.
func (m *Memory) Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error {
	m.mu.Lock()
	entries := make([]ledger.Entry, 0, len(m.entries[partition]))
	for _, e := range m.entries[partition] {
		entries = append(entries, e)
	}
	m.mu.Unlock()
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

// Read is the stored entry of the key.
func (m *Memory) Read(_ context.Context, partition int, key ledger.Key) (ledger.Entry, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[partition][key]
	return e, ok, nil
}

// Write stores all entries or, when one is stale, none.
func (m *Memory) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var fault error
	if m.fail != nil {
		store, err := m.fail(entries)
		if !store && err != nil {
			return err
		}
		fault = err
	}
	for _, e := range entries {
		if stored := m.entries[partition][e.Key].Revision; stored != e.Revision {
			return fmt.Errorf("write %s at revision %d, stored is %d: %w", e.Key, e.Revision, stored, m.stale)
		}
	}
	if m.entries[partition] == nil {
		m.entries[partition] = map[ledger.Key]ledger.Entry{}
	}
	for i := range entries {
		m.revision++
		stored := entries[i]
		stored.Revision = m.revision
		m.entries[partition][stored.Key] = stored
		if fault == nil {
			entries[i].Revision = m.revision
		}
	}
	return fault
}
