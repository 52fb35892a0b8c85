package worker

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Claim is a lease that somebody holds.
type Claim struct {
	Vendor    string // empty: the lease shows that the worker is alive
	Partition int
	Worker    string
}

// View takes what a watch of the leases sees. Its methods return at once.
type View interface {
	// Held is told of every lease, and again whenever it is renewed.
	Held(c Claim)
	// Gone is told of a lease that was given back or has expired. The worker
	// need not be known, unless it is the worker's sign of life.
	Gone(c Claim)
	// Complete is told once every lease that there is has been told.
	Complete()
}

// How partitions go from one worker to another.
const (
	// steadyAfter is how long a member has to be there before others hand
	// partitions over to it: one that comes and goes must not set all in motion.
	steadyAfter = time.Second
	// mostCeded is how many partitions a worker hands over at a time, so that
	// never all of them pause at once.
	mostCeded = 4
	// gracesPerLease is how many times the life of a lease has room for the
	// time for which a free partition is left to the member that it is assigned to.
	gracesPerLease = 3
	// reluctantLeases is for how many lives of a lease a partition is kept that
	// its member left lying: it may not be able to work on it.
	reluctantLeases = 4
	// lateLeases, in quarters of its life, is after how long without a renewal
	// a lease is taken to be gone although the watch did not say so.
	lateLeases = 6
)

// members is what a worker knows of all leases, and what follows from it:
// which partitions it is to take, and which to hand over. It does neither.
type members struct {
	self string
	ttl  time.Duration
	kick chan struct{} // something has changed

	mu       sync.Mutex
	complete bool
	joined   bool // this worker is a member itself
	alive    map[string]*sighting
	claims   map[place]*sighting
	vendors  map[string]int
	vacant   map[place]vacancy
	mine     map[place]*stay
	barred   map[place]time.Time // not to be tried before

	assigned map[string]map[string][]string // owners by vendor, by the names of the members
}

// sighting is a lease of somebody else, as far as it was seen.
type sighting struct{ since, last time.Time }

// vacancy is a partition that nobody has, or had until recently.
type vacancy struct {
	since time.Time     // zero: somebody has it
	grace time.Duration // that is left to the member that it is assigned to
}

// stay is a partition from when this worker asks for it until it is given back.
type stay struct {
	since      time.Time
	unassigned bool // its member had left it lying
	ceding     bool
}

// plan is what is to be done now.
type plan struct {
	take []taking
	cede []place
	next time.Time // when to look again, if nothing changes before
}

// taking is a partition to be taken, and since when nobody has had it.
type taking struct {
	place
	vacant time.Time
}

func newMembers(self string, ttl time.Duration) *members {
	return &members{
		self: self, ttl: ttl, kick: make(chan struct{}, 1),
		alive: map[string]*sighting{}, claims: map[place]*sighting{}, vendors: map[string]int{},
		vacant: map[place]vacancy{}, mine: map[place]*stay{}, barred: map[place]time.Time{},
		assigned: map[string]map[string][]string{},
	}
}

func (m *members) nudge() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Held notes a lease (View).
func (m *members) Held(c Claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if c.Vendor == "" {
		m.see(m.alive[c.Worker], now, func(s *sighting) { m.alive[c.Worker] = s })
		return
	}
	at := place{c.Vendor, c.Partition}
	m.see(m.claims[at], now, func(s *sighting) {
		m.claims[at] = s
		if v, known := m.vacant[at]; known && !v.since.IsZero() {
			m.vacant[at] = vacancy{grace: v.grace - now.Sub(v.since)}
		}
	})
}

// see is called with the lock held.
func (m *members) see(known *sighting, now time.Time, add func(*sighting)) {
	if known != nil {
		known.last = now // renewed: nothing follows from it
		return
	}
	add(&sighting{now, now})
	m.nudge()
}

// Gone notes that a lease has ended (View).
func (m *members) Gone(c Claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Vendor == "" {
		delete(m.alive, c.Worker)
	} else {
		at := place{c.Vendor, c.Partition}
		if s := m.claims[at]; s != nil {
			m.fill(at, s.since)
		}
		delete(m.claims, at)
	}
	m.nudge()
}

// fill says that somebody had the partition since then. For less than a grace
// he may not have been able to work on it: his member has only what was left
// of the grace before. It is called with the lock held.
func (m *members) fill(at place, since time.Time) {
	if time.Since(since) >= m.grace() {
		delete(m.vacant, at)
	}
}

// grace is how long a partition is left to the member that it is assigned to.
func (m *members) grace() time.Duration { return m.ttl / gracesPerLease }

// Complete says that all leases are known (View).
func (m *members) Complete() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.complete = true
	m.nudge()
}

// add notes a vendor; it is false for one that is known.
func (m *members) add(v Vendor) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.vendors[v.Name] != 0 {
		return false
	}
	m.vendors[v.Name] = v.Partitions
	return true
}

// partitions is how many the vendor has, 0 for one that is not known.
func (m *members) partitions(vendor string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.vendors[vendor]
}

// list is every vendor's number of partitions.
func (m *members) list() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.vendors)
}

// join says whether this worker is a member now.
func (m *members) join(is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined = is
	m.nudge()
}

// left says that this worker does not have the partition any longer, and how
// long it is not to try again.
func (m *members) left(at place, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fill(at, m.mine[at].since)
	delete(m.mine, at)
	m.barred[at] = time.Now().Add(wait)
	m.nudge()
}

// living is how many members there are, as far as this worker knows.
func (m *members) living() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.names(time.Now(), 0))
}

// names lists the members that have been there for so long, this one included.
// It is called with the lock held.
func (m *members) names(now time.Time, least time.Duration) []string {
	var list []string
	if m.joined {
		list = append(list, m.self)
	}
	for name, s := range m.alive {
		if name != m.self && now.Sub(s.since) >= least && !m.late(s, now) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// late says that a lease must have expired, whatever the watch has missed.
func (m *members) late(s *sighting, now time.Time) bool {
	return now.Sub(s.last) > m.ttl/4*lateLeases
}

// owners is the assignment of the vendor's partitions to the members. It is
// called with the lock held.
func (m *members) owners(names []string, vendor string) []string {
	key := strings.Join(names, "\x00")
	if m.assigned[key] == nil {
		if len(m.assigned) >= 2 { // all members, and those that are steady
			clear(m.assigned)
		}
		m.assigned[key] = map[string][]string{}
	}
	byVendor := m.assigned[key]
	if byVendor[vendor] == nil {
		byVendor[vendor] = assign(names, vendor, m.vendors[vendor])
	}
	return byVendor[vendor]
}

// plan says what to do now. What it says is to be taken counts as this
// worker's from then on, what it says is to be handed over as being handed
// over, until left is told.
func (m *members) plan(now time.Time) plan {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := plan{next: now.Add(lookAround)}
	if !m.complete || !m.joined {
		return p
	}
	all, steady := m.names(now, 0), m.names(now, steadyAfter)
	for _, s := range m.alive {
		p.again(now, s.since.Add(steadyAfter))
	}
	ceding := 0
	for _, s := range m.mine {
		if s.ceding {
			ceding++
		}
	}
	for vendor, partitions := range m.vendors {
		owners, settled := m.owners(all, vendor), m.owners(steady, vendor)
		for number := range partitions {
			at := place{vendor, number}
			s := m.mine[at]
			switch {
			case s == nil:
				m.consider(&p, at, owners[number], now)
			case ceding < mostCeded && !s.ceding && m.another(settled[number], owners[number]) && m.willing(s, settled[number], now):
				s.ceding = true
				ceding++
				p.cede = append(p.cede, at)
			}
		}
	}
	return p
}

// another says that a partition is another member's, whether those count that
// have only just come or not: one that is this worker's by either would be taken
// back at once.
func (m *members) another(settled, owner string) bool { return settled != m.self && owner != m.self }

// elsewhere says that another member has had the partition for a while.
func (m *members) elsewhere(at place) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, claim := time.Now(), m.claims[at]
	return m.mine[at] == nil && claim != nil && now.Sub(claim.since) >= m.grace() && !m.late(claim, now)
}

// again has the next look no later than at, if that is still to come.
func (p *plan) again(now, at time.Time) {
	if at.After(now) && at.Before(p.next) {
		p.next = at
	}
}

// consider takes the partition if it is free and this worker's turn.
func (m *members) consider(p *plan, at place, owner string, now time.Time) {
	if claim := m.claims[at]; claim != nil && !m.late(claim, now) {
		return
	}
	v, known := m.vacant[at]
	if !known {
		v.grace = m.grace() + rand.N(m.grace()/2+1) //nolint:gosec // spreads the workers, guards nothing
	}
	if v.since.IsZero() {
		v.since = now
		m.vacant[at] = v
	}
	due := m.barred[at]
	if late := v.since.Add(v.grace); owner != m.self && late.After(due) {
		due = late
	}
	if due.After(now) {
		p.again(now, due)
		return
	}
	delete(m.barred, at)
	m.mine[at] = &stay{since: now, unassigned: owner != m.self}
	p.take = append(p.take, taking{at, v.since})
}

// willing says whether to hand the partition over to the member that it is
// assigned to: one that has left it lying before gets it later, or when it has
// been started again.
func (m *members) willing(s *stay, to string, now time.Time) bool {
	if !s.unassigned || now.Sub(s.since) >= reluctantLeases*m.ttl {
		return true
	}
	return m.alive[to].since.After(s.since)
}
