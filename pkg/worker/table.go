package worker

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// table is the recorded part of the ledger of one partition, in memory. An
// entry in it is never changed, only replaced: what is in the table has been
// confirmed by the store.
type table struct {
	mu      sync.RWMutex
	entries map[ledger.Key]*ledger.Entry
	keepers map[ledger.Key]*ledger.Entry // of the kinds that are no figures
	states  map[ledger.State]int
	open    map[ledger.Key]int64 // keys that the partner does not have as desired, since when
	// services has, by organization, every service that was ever counted: to
	// find the counts of one account without a look at all of them.
	services map[string]map[string]struct{}
	// vacant is what the store expects of keys whose entry somebody has
	// deleted: the revision of the deletion.
	vacant map[ledger.Key]uint64
}

func newTable() *table {
	return &table{
		entries: map[ledger.Key]*ledger.Entry{}, keepers: map[ledger.Key]*ledger.Entry{}, states: map[ledger.State]int{},
		open: map[ledger.Key]int64{}, vacant: map[ledger.Key]uint64{}, services: map[string]map[string]struct{}{},
	}
}

// entry is the key's entry. One that does not exist has nothing but the key
// and the revision with which it can be stored.
func (t *table) entry(key ledger.Key) (ledger.Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.entries[key]
	if !key.Kind.Figure() {
		e = t.keepers[key]
	}
	if e == nil {
		return ledger.Entry{Key: key, Revision: t.vacant[key]}, false
	}
	return *e, true
}

func (t *table) put(entries ...ledger.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range entries {
		e := entries[i]
		delete(t.vacant, e.Key)
		if !e.Key.Kind.Figure() {
			t.keepers[e.Key] = &e
			continue
		}
		if old := t.entries[e.Key]; old != nil {
			t.states[old.State]--
		}
		t.states[e.State]++
		if t.entries[e.Key] == nil && e.Key.Kind == ledger.Count {
			t.serve(e.Key)
		}
		t.entries[e.Key] = &e
		if e.Since == 0 {
			delete(t.open, e.Key)
		} else {
			t.open[e.Key] = e.Since
		}
	}
}

// forget takes out a key that the store has no entry of; revision is the one
// with which a new entry can be stored.
func (t *table) forget(key ledger.Key, revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if revision != 0 {
		t.vacant[key] = revision
	}
	delete(t.keepers, key)
	if old := t.entries[key]; old != nil {
		t.states[old.State]--
		delete(t.entries, key)
		delete(t.open, key)
	}
}

// interesting lists every key that has something left to do, and every catalog
// key, those first that have been behind for longest.
func (t *table) interesting() []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var keys []ledger.Key
	for key, e := range t.entries {
		if key.Kind != ledger.Count || e.State != ledger.Synced {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b ledger.Key) int { return cmp.Compare(t.entries[a].Since, t.entries[b].Since) })
	return keys
}

// ofGeneration lists what a new generation of the organization concerns: every
// catalog key, and every key that was delivered in a lower one and is not to
// be sent anyway.
func (t *table) ofGeneration(organization string, generation int) []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var keys []ledger.Key
	for key, e := range t.entries {
		if key.Organization == organization && (key.Kind != ledger.Count || e.State == ledger.Synced && !e.PostedIn(generation)) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b ledger.Key) int { return cmp.Compare(a.Kind, b.Kind) })
	return keys
}

// settledBefore lists counts, at most so many, that the partner has as desired
// and took before the given time.
func (t *table) settledBefore(limit time.Time, most int) []ledger.Key {
	before := limit.UnixNano()
	t.mu.RLock()
	defer t.mu.RUnlock()
	var keys []ledger.Key
	for key, e := range t.entries {
		if key.Kind == ledger.Count && e.State == ledger.Synced && e.Delivered.At < before {
			if keys = append(keys, key); len(keys) == most {
				break
			}
		}
	}
	return keys
}

// unbuilt lists, of every organization whose last accepted count went out
// without a rebuild of the partner's billing view, that count.
func (t *table) unbuilt() []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	last := map[string]*ledger.Entry{}
	for key, e := range t.entries {
		if key.Kind == ledger.Count && e.Posted() && (last[key.Organization] == nil || e.Delivered.At > last[key.Organization].Delivered.At) {
			last[key.Organization] = e
		}
	}
	var keys []ledger.Key
	for _, e := range last {
		if e.Delivered.Unbuilt {
			keys = append(keys, e.Key)
		}
	}
	return keys
}

// oldest is the earliest time since when a key has not been as desired, 0 when
// all are.
func (t *table) oldest() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var oldest int64
	for _, since := range t.open {
		if oldest == 0 || since < oldest {
			oldest = since
		}
	}
	return oldest
}

func (t *table) stateCounts(into map[ledger.State]int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for state, n := range t.states {
		into[state] += n
	}
}

// serve notes the service of a new count.
func (t *table) serve(key ledger.Key) {
	services := t.services[key.Organization]
	if services == nil {
		services = map[string]struct{}{}
		t.services[key.Organization] = services
	}
	services[key.Service] = struct{}{}
}

// counts lists the counts in the scope.
func (t *table) counts(scope ledger.Key) []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var keys []ledger.Key
	if scope.Account != "" {
		for service := range t.services[scope.Organization] {
			if key := ledger.CountKey(scope.Organization, scope.Account, service); t.entries[key] != nil {
				keys = append(keys, key)
			}
		}
		return keys
	}
	for key := range t.entries {
		if key.In(scope) {
			keys = append(keys, key)
		}
	}
	return keys
}

// suspects lists what may not be as the rules and the snapshots want it.
func (t *table) suspects(rules *ledger.Rules) []ledger.Key {
	var keys []ledger.Key
	t.mu.RLock()
	if len(t.keepers) == 0 && rules.Silent() {
		t.mu.RUnlock()
		return nil // as at most starts: no need to look at a million keys
	}
	for key := range t.keepers {
		keys = append(keys, key)
	}
	for key := range t.entries {
		keys = append(keys, key)
	}
	t.mu.RUnlock()
	return t.misfits(keys, rules)
}

// misfits lists those of the keys that a review would change.
func (t *table) misfits(keys []ledger.Key, rules *ledger.Rules) []ledger.Key {
	draft := draft{t}
	return slices.DeleteFunc(keys, func(key ledger.Key) bool {
		return !ledger.Review(draft, key, rules, time.Now())
	})
}

// draft is the table for a review of which nothing is kept.
type draft struct{ *table }

// Entry is the recorded entry (ledger.Book).
func (d draft) Entry(key ledger.Key) ledger.Entry {
	e, _ := d.entry(key)
	return e
}

// Put forgets the entry (ledger.Book).
func (draft) Put(ledger.Entry) {}

// Counts yields nothing: a review asks for none (ledger.Book).
func (draft) Counts(ledger.Key, func(ledger.Key)) {}

// incomplete lists the scopes with snapshots whose parts are missing.
func (t *table) incomplete() []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var keys []ledger.Key
	for key, e := range t.keepers {
		if slices.ContainsFunc(e.Snapshots, func(s ledger.Snapshot) bool { return s.Open() }) {
			keys = append(keys, key)
		}
	}
	return keys
}

// backfill is the id of the organization's backfill that has the digest; empty
// for none.
func (t *table) backfill(organization string, digest uint64) string {
	if digest == 0 {
		return ""
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for key := range t.keepers {
		if key.Kind == ledger.Backfill && key.Organization == organization && ledger.BackfillDigest(key.Service) == digest {
			return key.Service
		}
	}
	return ""
}
