package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// vendorRecord is what holds for a whole vendor, by an operator's word or
// because a worker saw a flood: the record of a vendor in the bucket VENDORS.
type vendorRecord struct {
	// Stopped says that the vendor's events are not folded; nil: they are.
	Stopped *stop `json:"stopped,omitempty"`
	// Jump is by service the factor by which a count may differ from the one
	// before without waiting for approval.
	Jump map[string]float64 `json:"jump,omitempty"`
	// Cutoff is when the billing period ends; nil: nobody has said.
	Cutoff *cutoff `json:"cutoff,omitempty"`
}

// stop says who stopped a vendor, and why.
type stop struct {
	By  string    `json:"by"`
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// decision is an operator's word on figures: a record of the bucket DECISIONS.
type decision struct {
	Verdict judgment  `json:"verdict"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
	At      time.Time `json:"at"`
}

type judgment string

const (
	released judgment = "released" // what waited for approval is sent
	refused  judgment = "refused"  // what waited for approval is taken back
	reverted judgment = "reverted" // a backfill counts as if it had never been
)

// allOrganizations stands in a decision's key for the organization when it
// concerns the whole vendor; no escaped id is like it.
const allOrganizations = "="

// approvalKey is the key of the decision on what waits under an approval id.
func approvalKey(vendor, organization string, id uint64) string {
	return event.Escape(vendor) + "." + event.Escape(organization) + "." + approvalName(id)
}

// approvalName writes an approval id as people see it: sixteen hex digits.
func approvalName(id uint64) string { return fmt.Sprintf("%016x", id) }

// backfillKey is the key of the decision on a backfill.
func backfillKey(vendor, backfill string) string {
	return event.Escape(vendor) + "." + allOrganizations + "." + event.Escape(backfill)
}

// rulebook keeps the worker told of what operators say.
type rulebook struct {
	engine    *engine
	vendors   *broker.Bucket[vendorRecord]
	decisions *broker.Bucket[decision]
	changed   chan struct{}
	floods    chan flood

	mu      sync.Mutex
	records map[string]*vendorRecord       // by vendor
	words   map[string]map[string]decision // by vendor, then by key
	told    map[string]*ledger.Rules
}

func newRulebook(ctx context.Context, e *engine) (*rulebook, error) {
	b := &rulebook{
		engine: e, changed: make(chan struct{}, 1), floods: make(chan flood, 64),
		records: map[string]*vendorRecord{}, words: map[string]map[string]decision{}, told: map[string]*ledger.Rules{},
	}
	var err error
	if b.vendors, err = broker.OpenBucket[vendorRecord](ctx, e.app.broker, broker.BucketVendors); err != nil {
		return nil, err
	}
	if b.decisions, err = broker.OpenBucket[decision](ctx, e.app.broker, broker.BucketDecisions); err != nil {
		return nil, err
	}
	return b, b.read(ctx)
}

// read takes in everything before the first event is folded.
func (b *rulebook) read(ctx context.Context) error {
	records, err := b.vendors.All(ctx)
	if err != nil {
		return err
	}
	words, err := b.decisions.All(ctx)
	if err != nil {
		return err
	}
	for key, record := range records {
		b.setRecord(key, &record)
	}
	for key, word := range words {
		b.setWord(key, &word)
	}
	b.tell()
	return nil
}

func (b *rulebook) setRecord(key string, record *vendorRecord) {
	vendor, err := event.Unescape(key)
	if err != nil {
		b.engine.app.log.Warn("vendor with an unreadable key left alone", "key", key, "err", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records[vendor] = record
}

func (b *rulebook) setWord(key string, word *decision) {
	escaped, _, _ := strings.Cut(key, ".")
	vendor, err := event.Unescape(escaped)
	if err != nil {
		b.engine.app.log.Warn("decision with an unreadable key left alone", "key", key, "err", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.words[vendor] == nil {
		b.words[vendor] = map[string]decision{}
	}
	if word == nil {
		delete(b.words[vendor], key)
		return
	}
	b.words[vendor][key] = *word
}

// settling is how long changes are gathered before the worker is told: many
// decisions are often made at one time.
const settling = 50 * time.Millisecond

// run tells the worker of every change until ctx ends.
func (b *rulebook) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return ended(ctx, "follow vendors", b.vendors.Watch(ctx, func(key string, record *vendorRecord) error {
			b.setRecord(key, record)
			b.notify()
			return nil
		}))
	})
	group.Go(func() error {
		return ended(ctx, "follow decisions", b.decisions.Watch(ctx, func(key string, word *decision) error {
			b.setWord(key, word)
			b.notify()
			return nil
		}))
	})
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-b.changed:
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settling):
			}
			b.tell()
		}
	})
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case f := <-b.floods:
				b.record(ctx, f)
			}
		}
	})
	return group.Wait()
}

// ended is nil when ctx has: what a watch says of that is no news.
func ended(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to stop
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (b *rulebook) notify() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// tell gives the worker the rules of every vendor for which they are new.
func (b *rulebook) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for vendor := range b.words {
		if _, ok := b.records[vendor]; !ok {
			b.records[vendor] = nil
		}
	}
	for vendor, record := range b.records {
		rules := b.engine.app.config.rules(record, b.words[vendor])
		if b.told[vendor] == nil || !reflect.DeepEqual(rules, b.told[vendor]) {
			b.told[vendor] = rules
			b.engine.worker.SetRules(vendor, rules)
		}
		b.engine.worker.SetStopped(vendor, record != nil && record.Stopped != nil)
	}
}

// rules puts what is said of a vendor into the words of the ledger; words are
// the decisions on it, by their keys.
func (c *Config) rules(record *vendorRecord, words map[string]decision) *ledger.Rules {
	rules := &ledger.Rules{
		Verdicts: map[uint64]bool{}, Reverted: map[uint64]bool{},
		ZeroShare: c.SnapshotZeroShare, ZeroKeys: c.SnapshotZeroKeys,
	}
	if record != nil {
		rules.Jump = record.Jump
	}
	for key, word := range words {
		parts := strings.Split(key, ".")
		name := parts[len(parts)-1]
		if word.Verdict == reverted {
			if id, err := event.Unescape(name); err == nil {
				rules.Reverted[ledger.BackfillDigest(id)] = true
			}
			continue
		}
		if id, err := strconv.ParseUint(name, 16, 64); err == nil {
			rules.Verdicts[id] = word.Verdict == released
		}
	}
	return rules
}

// flooded stops a vendor everywhere because this worker saw a flood: here at
// once, elsewhere when it is on record.
func (b *rulebook) flooded(vendor string, f worker.Flood) {
	why := fmt.Sprintf("%d of the last %d events were dead (partition %d, worker %s)", f.Dead, f.Of, f.Partition, f.Worker)
	word := stop{By: "worker " + f.Worker, Why: why, At: f.At}
	b.hold(vendor, &word)
	select {
	case b.floods <- flood{vendor, word}:
	default:
		b.engine.app.log.Error("flood not recorded: other workers go on", "vendor", vendor)
	}
}

// flood is a vendor that is to be stopped everywhere.
type flood struct {
	vendor string
	word   stop
}

// record puts a flood on record, however long that takes.
func (b *rulebook) record(ctx context.Context, f flood) {
	forever := backoff.NewExponentialBackOff(backoff.WithMaxElapsedTime(0), backoff.WithMaxInterval(10*time.Second))
	err := backoff.Retry(func() error {
		return b.engine.app.changeVendor(ctx, f.vendor, func(r *vendorRecord) error {
			if r.Stopped == nil {
				r.Stopped = &f.word
			}
			return nil
		})
	}, backoff.WithContext(forever, ctx))
	if err == nil {
		err = b.engine.app.audit(ctx, action{Actor: f.word.By, Action: "stopped", Vendor: f.vendor, Why: f.word.Why, At: f.word.At})
	}
	if err != nil {
		b.engine.app.log.Error("flood not on record", "vendor", f.vendor, "err", err)
	}
}

// hold has the vendor stopped until its record says otherwise.
func (b *rulebook) hold(vendor string, word *stop) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var record vendorRecord
	if known := b.records[vendor]; known != nil {
		record = *known
	}
	record.Stopped = word
	b.records[vendor] = &record
}

// changeVendor changes what holds for a vendor; one without a record gets it.
func (a *app) changeVendor(ctx context.Context, vendor string, change func(*vendorRecord) error) error {
	bucket, err := broker.OpenBucket[vendorRecord](ctx, a.broker, broker.BucketVendors)
	if err != nil {
		return err
	}
	key := event.Escape(vendor)
	for {
		_, err := bucket.Update(ctx, key, change)
		if !errors.Is(err, broker.ErrNotFound) {
			return err
		}
		var record vendorRecord
		if err := change(&record); err != nil {
			return err
		}
		if err = bucket.Create(ctx, key, record); !errors.Is(err, broker.ErrExists) {
			return err
		}
	}
}
