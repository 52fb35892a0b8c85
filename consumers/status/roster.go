package status

import (
	"maps"
	"sync"
)

// Roster is where every known integration stands, for the gauge that counts
// them. It is safe for concurrent use.
type Roster struct {
	owned func(vendor, organization string) bool

	mu           sync.Mutex
	integrations map[name]Status
}

type name struct{ vendor, organization string }

// NewRoster makes an empty roster, which m shows from now on. Every worker
// knows every integration: owned says, at each scrape, which ones this worker
// counts, so that none is counted twice. It may be called from any goroutine.
func NewRoster(m *Metrics, owned func(vendor, organization string) bool) *Roster {
	r := &Roster{owned: owned, integrations: map[name]Status{}}
	m.collector.show(r)
	return r
}

// Set says where an integration stands.
func (r *Roster) Set(vendor, organization string, s Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.integrations[name{vendor, organization}] = s
}

// Remove strikes out an integration; one that is not there is no error.
func (r *Roster) Remove(vendor, organization string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.integrations, name{vendor, organization})
}

// all is a copy: owned must not be called with the lock held.
func (r *Roster) all() map[name]Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.integrations)
}
