package worker

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// table is the recorded part of the ledger of one partition, in memory: what
// is in it has been confirmed by the store. Figures are packed and their keys
// are numbers, since there may be a million of them.
type table struct {
	mu      sync.RWMutex
	names   names
	figures map[spot]ledger.Packed
	keepers map[ledger.Key]*ledger.Entry // entries of the kinds that are no figures
	states  map[ledger.State]int
	open    map[spot]int64 // figures that the partner does not have as desired, since when
	// unmapped has those of them that are not mapped.
	unmapped map[spot]struct{}
	// services has, by organization, every service that was ever counted, as
	// spots have it: to find the counts of one account without a look at all.
	services map[uint32]map[uint32]struct{}
	// vacant is what the store expects of keys whose entry somebody has
	// deleted: the revision of the deletion.
	vacant  map[ledger.Key]uint64
	scratch []byte // for packing
}

func newTable() *table {
	return &table{
		names: newNames(), figures: map[spot]ledger.Packed{}, keepers: map[ledger.Key]*ledger.Entry{}, states: map[ledger.State]int{},
		open: map[spot]int64{}, unmapped: map[spot]struct{}{}, vacant: map[ledger.Key]uint64{}, services: map[uint32]map[uint32]struct{}{},
	}
}

// entry is the key's entry. One that does not exist has nothing but the key
// and the revision with which it can be stored.
func (t *table) entry(key ledger.Key) (ledger.Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if !key.Kind.Figure() {
		if e := t.keepers[key]; e != nil {
			return *e, true
		}
	} else if at, known := t.names.find(key); known {
		if packed, ok := t.figures[at]; ok {
			return packed.Unpack(key), true
		}
	}
	return ledger.Entry{Key: key, Revision: t.vacant[key]}, false
}

// size is how many figures there are.
func (t *table) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.figures)
}

func (t *table) put(entries ...ledger.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range entries {
		t.putOne(&entries[i])
	}
}

func (t *table) putOne(e *ledger.Entry) {
	delete(t.vacant, e.Key)
	if !e.Key.Kind.Figure() {
		kept := *e
		t.keepers[e.Key] = &kept
		return
	}
	at := t.names.add(e.Key)
	if old, known := t.figures[at]; known {
		t.states[old.State()]--
	} else if e.Key.Kind == ledger.Count {
		t.serve(at)
	}
	t.states[e.State]++
	t.figures[at], t.scratch = e.Pack(t.scratch)
	if e.Since == 0 {
		delete(t.open, at)
	} else {
		t.open[at] = e.Since
	}
	if e.Reason != ledger.Unmapped {
		delete(t.unmapped, at)
	} else {
		t.unmapped[at] = struct{}{}
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
	at, known := t.names.find(key)
	if !known {
		return
	}
	if old, ok := t.figures[at]; ok {
		t.states[old.State()]--
		delete(t.figures, at)
		delete(t.open, at)
		delete(t.unmapped, at)
	}
}

// interesting lists every key that has something left to do, and every catalog
// key, those first that have been behind for longest.
func (t *table) interesting() []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	type behind struct {
		key   ledger.Key
		since int64
	}
	var all []behind
	for at, e := range t.figures {
		if at.kind() != ledger.Count || e.State() != ledger.Synced {
			all = append(all, behind{t.names.key(at), e.Since()})
		}
	}
	slices.SortFunc(all, func(a, b behind) int { return cmp.Compare(a.since, b.since) })
	keys := make([]ledger.Key, len(all))
	for i := range all {
		keys[i] = all[i].key
	}
	return keys
}

// ofGeneration lists what a new generation of the organization concerns: every
// catalog key, and every key that was delivered in a lower one and is not to
// be sent anyway.
func (t *table) ofGeneration(organization string, generation int) []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	number, known := t.names.numbers[organization]
	if !known {
		return nil
	}
	var keys []ledger.Key
	for at, e := range t.figures {
		if t.names.organization(at) == number && (at.kind() != ledger.Count || e.State() == ledger.Synced && !e.PostedIn(generation)) {
			keys = append(keys, t.names.key(at))
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
	for at, e := range t.figures {
		if at.kind() == ledger.Count && e.State() == ledger.Synced && e.DeliveredAt() < before {
			if keys = append(keys, t.names.key(at)); len(keys) == most {
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
	type delivered struct {
		at      spot
		when    int64
		unbuilt bool
	}
	last := map[uint32]delivered{}
	for at, e := range t.figures {
		organization := t.names.organization(at)
		if when := e.DeliveredAt(); at.kind() == ledger.Count && when > last[organization].when {
			last[organization] = delivered{at, when, e.Unbuilt()}
		}
	}
	var keys []ledger.Key
	for _, d := range last {
		if d.unbuilt {
			keys = append(keys, t.names.key(d.at))
		}
	}
	return keys
}

// sinces has, for each organization that is behind, the earliest time since when
// the partner lacks one of its figures, and the earliest for figures that are not
// mapped; 0: there are none.
func (t *table) sinces() (behind map[string]int64, unmapped int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	numbers := map[uint32]int64{}
	for at, since := range t.open {
		organization := t.names.organization(at)
		numbers[organization] = first(numbers[organization], since)
	}
	behind = make(map[string]int64, len(numbers))
	for organization, since := range numbers {
		behind[t.names.texts[organization]] = since
	}
	for at := range t.unmapped {
		unmapped = first(unmapped, t.open[at])
	}
	return behind, unmapped
}

func (t *table) stateCounts(into map[ledger.State]int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for state, n := range t.states {
		into[state] += n
	}
}

// serve notes the service of a new count.
func (t *table) serve(at spot) {
	organization := t.names.organization(at)
	services := t.services[organization]
	if services == nil {
		services = map[uint32]struct{}{}
		t.services[organization] = services
	}
	services[at.what] = struct{}{}
}

// counts lists the counts in the scope.
func (t *table) counts(scope ledger.Key) []ledger.Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	organization, known := t.names.numbers[scope.Organization]
	if !known {
		return nil
	}
	var keys []ledger.Key
	if scope.Account != "" {
		holder, held := t.names.holder(scope.Organization, scope.Account)
		for what := range t.services[organization] {
			at := spot{holder, what}
			if _, ok := t.figures[at]; ok && held {
				keys = append(keys, t.names.key(at))
			}
		}
		return keys
	}
	for at := range t.figures {
		if at.kind() == ledger.Count && t.names.organization(at) == organization {
			keys = append(keys, t.names.key(at))
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
	for at := range t.figures {
		keys = append(keys, t.names.key(at))
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
