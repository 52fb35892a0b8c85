package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// drain is how an installation comes back after an outage.
type drain struct {
	Fold    float64 // seconds until the log is folded
	All     float64 // seconds until every change is at the partner
	Formula float64 // the same by the closed formula
	Keys    float64 // that were to be called for at the start, or would have been
	Calls   float64 // made until then
}

// drainLane is the lane of one integration.
type drainLane struct {
	keys      popularity
	share     float64 // of its partition's events
	partition int
	resumes   float64 // seconds after the end of the outage
	size      float64 // of an average integration's
	steady    float64 // calls a second when nothing waits
	needs     float64 // calls a second, as events were folded last
	dirty     []float64
	waiting   [][]float64 // dirty keys by class, in the order in which they will be called for
	done      float64     // when nothing waited any more; infinite: not yet
}

// enter makes the keys dirty that so many changes hit.
func (l *drainLane) enter(changes float64) {
	if changes <= 0 {
		return
	}
	fresh := make([]float64, len(l.keys))
	for i, c := range l.keys {
		fresh[i] = c.hit(changes, l.dirty[i])
		l.dirty[i] += fresh[i]
	}
	l.waiting = append(l.waiting, fresh)
}

// length is how many keys wait.
func (l *drainLane) length() float64 {
	return totalOf(l.dirty)
}

// call takes the keys that have waited longest, and says how many calls it has
// not needed.
func (l *drainLane) call(most float64) (left float64) {
	for most > 1e-9 && len(l.waiting) > 0 {
		first := l.waiting[0]
		total := totalOf(first)
		part := 1.0
		if total > most {
			part = most / total
		}
		for i := range first {
			l.dirty[i] = max(l.dirty[i]-first[i]*part, 0)
			first[i] -= first[i] * part
		}
		most -= total * part
		if part == 1 {
			l.waiting = l.waiting[1:]
		}
	}
	return most
}

// drainSim is an installation in virtual time.
type drainSim struct {
	m       *capacityModel
	l       *layout
	random  *rand.Rand
	lanes   []drainLane
	backlog []float64 // events, by partition
	limits  []float64 // events a second that a partition folds
	costs   []float64 // of an event, in µs of its worker
	workers int
	quiet   bool // no events come any more
	step    float64
	now     float64
	fold    float64 // when the log was folded; infinite: not yet
	calls   float64
}

// newDrainSim is the installation at the end of an outage: of the partner, or
// of every worker.
func newDrainSim(m *capacityModel, l *layout, workers int, ofPartner bool) *drainSim {
	s := &drainSim{
		m: m, l: l, workers: workers, random: rand.New(rand.NewPCG(m.d.Seed, 2)), //nolint:gosec // the same every time
		lanes: make([]drainLane, len(l.weights)), backlog: make([]float64, len(l.loads)),
		limits: make([]float64, len(l.loads)), costs: make([]float64, len(l.loads)), fold: math.Inf(1),
	}
	for p, load := range l.loads {
		s.limits[p], s.costs[p] = m.partitionLimit(load), m.foldLag(load)*(1-m.c.NATSShare)
		if !ofPartner {
			s.backlog[p] = s.poisson(m.d.Events * load * m.d.Outage)
		}
	}
	each, notice := m.calls(), m.notice()
	for i, w := range l.weights {
		size := m.size(w)
		lane := drainLane{
			keys: m.dirty.scaled(size), share: w / l.loads[l.partition[i]], partition: l.partition[i],
			size: size, steady: each * size, dirty: make([]float64, len(m.dirty)), done: math.Inf(1), resumes: m.d.Linger,
		}
		if ofPartner {
			// The server's breaker lets one call try in a while; a lane whose
			// tries failed has a wait of its own beside that.
			lane.resumes = modelOpen*m.d.RetryMin*s.random.Float64() + notice*(0.5+s.random.Float64())*s.random.Float64()
			lane.enter(s.poisson(m.change * size * m.d.Outage))
		}
		s.lanes[i] = lane
	}
	return s
}

// notice is how long a lane waits between tries at the end of an outage of the
// partner: one lane of a server tries in 10 times RETRY_MIN, and one whose tries fail waits
// twice as long each time.
func (m *capacityModel) notice() float64 {
	lanes := max(float64(m.d.Integrations)/float64(m.d.Hosts), 1)
	tries := min(m.d.Outage/(modelOpen*m.d.RetryMin*lanes), math.Log2(m.d.Outage/m.d.RetryMin+1))
	return min(m.d.RetryMin*math.Exp2(max(tries-1, 0)), modelRetryMax)
}

// poisson draws how many of so many expected things happen.
func (s *drainSim) poisson(mean float64) float64 {
	if mean > 30 {
		return max(math.Round(mean+math.Sqrt(mean)*s.random.NormFloat64()), 0)
	}
	n, left := 0.0, math.Exp(-mean)
	for p := s.random.Float64(); p > left; p *= s.random.Float64() {
		n++
	}
	return n
}

// run lets time pass until everything is at the partner, which should take
// about so long, and at most many times that.
func (s *drainSim) run(about float64) {
	s.step = max(about/drainSteps, leastStep)
	for s.now < about*mostFactor && math.IsInf(s.ended(), 1) {
		s.now += s.step
		folds, calls := s.demands()
		s.share(folds, calls)
		s.turn(folds, calls)
	}
}

// demands is what each partition could fold in this step, and what each lane
// could call.
func (s *drainSim) demands() (folds, calls []float64) {
	folds, calls = make([]float64, len(s.backlog)), make([]float64, len(s.lanes))
	for p, load := range s.l.loads {
		if !s.quiet {
			s.backlog[p] += s.poisson(s.m.d.Events * load * s.step)
		}
		folds[p] = min(s.backlog[p], s.limits[p]*s.step)
	}
	ceiling := s.m.ceiling()
	for i := range s.lanes {
		l := &s.lanes[i]
		lasts := min(s.now-l.resumes, s.step) // the lane may begin within the step
		if lasts > 0 && (s.now > modelLagWait || s.backlog[l.partition] < modelLags) {
			calls[i] = min(l.length()+l.needs*lasts, ceiling*lasts)
		}
	}
	return folds, calls
}

// share cuts the demands down to what the servers hand out and the workers'
// processors can do, each to the same part.
func (s *drainSim) share(folds, calls []float64) {
	_, out := s.m.storeLimits()
	per := len(s.backlog) / s.m.d.Vendors
	for v := range s.m.d.Vendors {
		own := folds[v*per : (v+1)*per]
		scale(own, out*s.step/totalOf(own))
	}
	used := make([]float64, s.workers)
	for p, f := range folds {
		used[s.l.worker[p]] += f * s.costs[p]
	}
	for i, c := range calls {
		used[s.l.worker[s.lanes[i].partition]] += c * s.m.c.Call
	}
	budget := s.m.d.Cores * 1e6 * s.step
	for p := range folds {
		folds[p] *= min(budget/max(used[s.l.worker[p]], 1e-9), 1)
	}
	for i := range calls {
		calls[i] *= min(budget/max(used[s.l.worker[s.lanes[i].partition]], 1e-9), 1)
	}
}

// scale makes every number smaller by the factor, never larger.
func scale(list []float64, by float64) {
	if by >= 1 || math.IsNaN(by) {
		return
	}
	for i := range list {
		list[i] *= by
	}
}

// turn folds and calls, and notes who is done.
func (s *drainSim) turn(folds, calls []float64) {
	behind := false
	for p, f := range folds {
		s.backlog[p] -= f
		behind = behind || s.backlog[p] > max(1000, 2*s.step*s.m.d.Events*s.l.loads[p])
	}
	if !behind {
		s.fold = min(s.fold, s.now)
	}
	changing := s.m.change * float64(s.m.d.Integrations) / s.m.d.Events // share of events that change something
	for i := range s.lanes {
		l := &s.lanes[i]
		left := l.call(calls[i])
		s.calls += calls[i]
		changes := s.poisson(folds[l.partition] * l.share * changing)
		l.enter(changes)
		l.call(left) // for what has come meanwhile
		l.needs = s.m.callsFor(changes/s.step/l.size) * l.size
		if !behind && s.now > l.resumes && l.length() <= s.usual(l) {
			l.done = min(l.done, s.now)
		}
	}
}

// usual is how many keys may wait when nothing is wrong.
func (s *drainSim) usual(l *drainLane) float64 {
	if s.quiet {
		return 0.5
	}
	return 2*l.steady*s.step + 1
}

// Bounds of the simulation.
const (
	drainSteps = 400 // in the time that the closed formula says
	leastStep  = 0.02
	mostFactor = 20 // times as long as the formula says is for ever
)

// drain simulates what follows an outage.
func (m *capacityModel) drain(l *layout, workers int, ofPartner bool) drain {
	result := drain{Fold: math.Inf(1), All: math.Inf(1), Keys: m.dirty.distinct(m.change*m.d.Outage) * float64(m.d.Integrations)}
	fold, all := m.drainFormula(l, workers, ofPartner)
	if result.Formula = all; math.IsInf(all, 1) {
		result.Fold = fold
		return result
	}
	s := newDrainSim(m, l, workers, ofPartner)
	s.run(all)
	result.All, result.Fold, result.Calls = s.ended(), s.fold, s.calls
	return result
}

// ended is when the partner has answered the last of everything; infinite: it
// has not.
func (s *drainSim) ended() float64 {
	end := s.fold
	for i := range s.lanes {
		end = max(end, s.lanes[i].done)
	}
	return end + s.m.d.Latency
}

// drainFormula reckons the same without a simulation: the busiest partition,
// worker and vendor for the fold; for the calls the largest integration at its
// limit, or an average one with what the processor has left for each.
func (m *capacityModel) drainFormula(l *layout, workers int, ofPartner bool) (fold, all float64) {
	if !ofPartner {
		fold = m.foldFormula(l, workers)
	}
	largest := m.callFormula(m.size(slices.Max(l.weights)), m.ceiling(), fold, ofPartner)
	average := m.callFormula(1, min(m.ceiling(), m.processorCeiling(l, workers)), fold, ofPartner)
	return fold, max(largest, average)
}

// callFormula is how long it takes until an integration of this size has made
// its calls, so many a second, when the log takes so long to be folded.
func (m *capacityModel) callFormula(size, ceiling, fold float64, ofPartner bool) float64 {
	if ofPartner {
		return modelOpen*m.d.RetryMin + 1.5*m.notice() + m.passes(size, ceiling, m.dirtied(size, m.d.Outage))
	}
	if math.IsInf(fold, 1) {
		return fold
	}
	left := m.dirtied(size, m.d.Outage+fold)
	if called := max(fold-modelLagWait, 0) * ceiling; called > 0 {
		// What the calls have taken by then, or what they cannot get below
		// while events are folded that much faster than they came.
		least, total := m.balance(size, ceiling, (m.d.Outage+fold)/fold), totalOf(left)
		for i := range left {
			left[i] = max(left[i]*(1-min(called/total, 1)), least[i])
		}
	}
	return fold + m.d.Linger + m.passes(size, ceiling, left)
}

// dirtied is how many keys of each class of an integration of this size so
// many seconds make dirty.
func (m *capacityModel) dirtied(size, outage float64) []float64 {
	keys := m.dirty.scaled(size)
	dirty := make([]float64, len(keys))
	for i, c := range keys {
		dirty[i] = c.hit(m.change*size*outage, 0)
	}
	return dirty
}

// balance is how many keys of each class wait when changes come so many times
// faster than they do, for ever: a key that was called for waits for its next
// change, and then for its turn.
func (m *capacityModel) balance(size, ceiling, faster float64) []float64 {
	keys := m.dirty.scaled(size)
	waiting := make([]float64, len(keys))
	low, high := 0.0, float64(m.d.Keys)*size/ceiling // of the turn
	for range 60 {
		turn := (low + high) / 2
		for i, c := range keys {
			change := m.change * size * faster * c.share / c.keys
			waiting[i] = c.keys * turn / (turn + 1/change)
		}
		if totalOf(waiting) > ceiling*turn {
			low = turn
		} else {
			high = turn
		}
	}
	return waiting
}

func totalOf(list []float64) (sum float64) {
	for _, x := range list {
		sum += x
	}
	return sum
}

// processorCeiling is how many calls a second the processor of the busiest
// worker has left for each of its integrations.
func (m *capacityModel) processorCeiling(l *layout, workers int) float64 {
	left, lanes := make([]float64, workers), make([]float64, workers)
	for w := range left {
		left[w] = m.d.Cores * 1e6
	}
	for p, load := range l.loads {
		left[l.worker[p]] -= m.d.Events * load * m.foldLag(load) * (1 - m.c.NATSShare)
	}
	for _, p := range l.partition {
		lanes[l.worker[p]]++
	}
	least := math.Inf(1)
	for w := range left {
		if lanes[w] > 0 {
			least = min(least, max(left[w], 1e-9)/lanes[w]/m.c.Call)
		}
	}
	return least
}

// foldFormula is how long the backlog of an outage of all workers takes:
// events that wait, by what is folded beyond those that come.
func (m *capacityModel) foldFormula(l *layout, workers int) float64 {
	shares, rates, longest := make([]float64, workers), make([]float64, workers), 0.0
	time := func(share, rate float64) float64 {
		arrives := m.d.Events * share
		if rate <= arrives {
			return math.Inf(1)
		}
		return arrives * m.d.Outage / (rate - arrives)
	}
	calls, demand := make([]float64, workers), make([]float64, workers)
	for p, load := range l.loads {
		limit, w := m.partitionLimit(load), l.worker[p]
		longest = max(longest, time(load, limit))
		shares[w] += load
		rates[w] += limit
		demand[w] += limit * m.foldLag(load) * (1 - m.c.NATSShare)
	}
	_, out := m.storeLimits()
	out *= float64(m.d.Vendors)
	for i, w := range l.weights {
		// Changes come as much faster as the store lets the log be folded.
		changes := m.callsFor(m.change*out/m.d.Events) * m.size(w)
		calls[l.worker[l.partition[i]]] += min(m.ceiling(), changes) * m.c.Call
	}
	together := 0.0
	for w, share := range shares {
		// The last worker has the store for itself; all of them share it.
		alone := min(m.d.Cores*1e6/max(demand[w]+calls[w], 1e-9), 1)
		longest = max(longest, time(share, rates[w]*alone))
		stored := min(out*share/max(rates[w], 1e-9), 1)
		together += rates[w] * stored * min(m.d.Cores*1e6/max(demand[w]*stored+calls[w], 1e-9), 1)
	}
	return max(longest, time(1, together))
}

// passes is how long the lane of an integration of this size, with so many
// calls a second, takes for the keys of each class that are dirty: one pass
// over all of them, one over what has changed meanwhile, and so on.
func (m *capacityModel) passes(size, ceiling float64, dirty []float64) (sum float64) {
	keys, change := m.dirty.scaled(size), m.change*size
	if m.calls()*size >= ceiling {
		return math.Inf(1)
	}
	for range 1000 {
		total := totalOf(dirty)
		if total < 1 {
			break
		}
		pass := total / ceiling
		sum += pass
		for i, c := range keys {
			x := change * pass * c.share / c.keys
			hit := -math.Expm1(-x)
			// A key that waits is called for at any time of the pass, and
			// changes again after that.
			dirty[i] = dirty[i]*(1-hit/max(x, 1e-12)) + (c.keys-dirty[i])*hit
		}
	}
	return sum
}
