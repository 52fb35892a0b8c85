package main

import (
	"math"
)

// capacityDemand is what an installation is to do, and with what.
type capacityDemand struct {
	Integrations int     `json:"integrations"`
	Keys         int     `json:"keys_per_integration"`
	Events       float64 `json:"events_per_second"` // at the peak
	Mean         float64 `json:"mean_events_per_second"`
	EventBytes   int     `json:"event_bytes"`
	Distribution string  `json:"distribution"`
	Changes      string  `json:"changes,omitempty"`
	Skew         float64 `json:"skew"`

	Rate        float64 `json:"rate"`
	Concurrency int     `json:"concurrency"`
	Latency     float64 `json:"partner_latency_seconds"`
	Hosts       int     `json:"hosts"`
	Outage      float64 `json:"outage_seconds"`

	Vendors    int     `json:"vendors"`
	Partitions int     `json:"partitions"` // of each vendor
	Replicas   int     `json:"replicas"`
	Sync       bool    `json:"sync_always"`
	Workers    int     `json:"workers"`
	Cores      float64 `json:"cores"`        // of each worker
	Memory     int64   `json:"memory_bytes"` // of each worker

	Linger   float64 `json:"linger_seconds"`
	LeaseTTL float64 `json:"lease_ttl_seconds"`
	RetryMin float64 `json:"retry_min_seconds"`
	Seed     uint64  `json:"seed"`
}

// Defaults of the configuration with which the model reckons, in seconds where
// they are times.
const (
	modelFoldBatch = 500
	modelFoldWait  = 0.1
	modelLagWait   = 5.0
	modelRetryMax  = 300.0

	// modelLags is how many events must wait for a partition to lag.
	modelLags = 1000
	// modelLagging is how many events a batch has while its partition lags.
	modelLagging = 4000
	// modelOpen is how often RETRY_MIN the breaker of a partner's server stays
	// open.
	modelOpen = 10.0
)

// capacityModel reckons what a demand costs.
type capacityModel struct {
	d      *capacityDemand
	c      *capacityCosts
	writes popularity // of the average integration: on which keys its events fall
	dirty  popularity // on which of them those that change something fall
	change float64    // events a second of the average integration that change something
}

func newCapacityModel(d *capacityDemand, c *capacityCosts) (*capacityModel, error) {
	events := d.Events / float64(d.Integrations)
	// The events of an integration in one batch of its partition: as many as
	// come while a batch fills.
	writes, err := parseDistribution(d.Distribution, d.Keys, max(events*modelFoldWait, 2))
	if err != nil {
		return nil, err
	}
	m := &capacityModel{d: d, c: c, writes: writes, dirty: writes, change: events}
	perSecond, err := parseChanges(d.Changes)
	if err != nil {
		return nil, err
	}
	if perSecond > 0 {
		m.dirty = evenPopularity(float64(d.Keys))
		m.change = min(perSecond*float64(d.Keys), events)
	}
	return m, nil
}

// ceiling is how many calls a second one integration's lane makes at most: its
// pace, or as many as may be under way (pkg/delivery).
func (m *capacityModel) ceiling() float64 {
	most := math.Inf(1)
	if m.d.Latency > 0 {
		most = float64(m.d.Concurrency) / m.d.Latency
	}
	if m.d.Rate <= 0 {
		return most
	}
	return min(most, m.d.Rate-max(1, math.Floor(m.d.Rate/100))+1)
}

// size is how many average integrations one with this share of all events is.
func (m *capacityModel) size(weight float64) float64 { return weight * float64(m.d.Integrations) }

// calls is how many calls a second the average integration needs.
func (m *capacityModel) calls() float64 { return m.callsFor(m.change) }

// callsFor is how many calls a second so many changes a second of an average
// integration need: a key that changes again before its call costs no other one.
func (m *capacityModel) callsFor(changes float64) float64 {
	window := modelFoldWait/2 + m.d.Linger + m.d.Latency
	return m.dirty.distinct(changes*window) / window
}

// behind is how many integrations need more calls than their lane may make,
// and what all of them together get.
func (m *capacityModel) behind() (never int, total float64) {
	each, ceiling := m.calls(), m.ceiling()
	for _, w := range integrationWeights(m.d.Integrations, m.d.Skew) {
		need := each * m.size(w)
		if need > ceiling {
			never++
		}
		total += min(need, ceiling)
	}
	return never, total
}

// batch is how many events a partition with this share of all folds together
// while it keeps up.
func (m *capacityModel) batch(share float64) float64 {
	return max(min(m.d.Events*share*modelFoldWait, modelFoldBatch), 1)
}

// written is how many entries are written for an event of a batch, in a
// partition with this share of all events.
func (m *capacityModel) written(batch, share float64) float64 {
	integrations := max(m.size(share), 1)
	return integrations * m.writes.distinct(batch/integrations) / batch
}

// foldLag is the processor time of an event, in µs, while its partition lags.
func (m *capacityModel) foldLag(share float64) float64 {
	return m.c.fold(m.written(modelLagging, share))
}

// synced is what is left of the fold's speed where every write goes to the disk.
func (m *capacityModel) synced() float64 {
	if m.d.Sync {
		return m.c.Synced
	}
	return 1
}

// partitionLimit is how many events a second one partition folds: one batch
// after the other, of which one thread decodes, the server writes, and nothing
// overlaps.
func (m *capacityModel) partitionLimit(share float64) float64 {
	return 1e6 / m.foldLag(share) * m.synced()
}

// storeLimits is how many events a second a server like the measured one
// stores in one log, and hands out of it; math.Inf(1): not known.
func (m *capacityModel) storeLimits() (in, out float64) {
	in, out = m.c.Publish, m.c.Fetch*m.synced()
	if m.d.Sync {
		if in *= m.c.Published; in == 0 {
			in = math.Inf(1)
		}
	}
	return in, out
}

// busy is how many cores a worker with these shares needs at the peak.
func (m *capacityModel) busy(workerShare, partitionShare, partitions float64) float64 {
	_, calls := m.behind()
	event := m.c.fold(m.written(m.batch(partitionShare), partitionShare)) * (1 - m.c.NATSShare)
	return (workerShare*(m.d.Events*event+calls*m.c.Call) + partitions*m.c.Idle) / 1e6
}

// serverCores is how many cores one NATS server needs that leads every stream.
func (m *capacityModel) serverCores(partitionShare float64) float64 {
	event := m.c.fold(m.written(m.batch(partitionShare), partitionShare)) * m.c.NATSShare
	publish := float64(m.c.CPUs) * 1e6 / m.c.Publish / 2 // the other half is the publisher's
	_, calls := m.behind()
	records := 2 * calls * m.c.Write * m.c.NATSShare // an entry, and a line of the sync log
	return (m.d.Events*(event+publish) + records) / 1e6
}

// memory is what a worker with this share of all keys takes, with the buffers
// of as many partitions that all lag.
func (m *capacityModel) memory(workerShare, partitions float64) float64 {
	const mostBuffer = 12 << 20 // three times the bytes of a batch (pkg/broker)
	buffer := min(mostBuffer, 11*modelFoldBatch*(float64(m.d.EventBytes)+500))
	integrations := workerShare * float64(m.d.Integrations)
	return workerBase + integrations*(laneBytes+float64(m.d.Keys)*m.c.Key) + partitions*buffer
}

// latency is how long a change takes to reach the partner in the steady state,
// typically and at most, as long as nothing lags.
func (m *capacityModel) latency(partitionShare float64) (typical, most float64) {
	rate := m.d.Events * partitionShare
	fill := min(modelFoldWait, modelFoldBatch/max(rate, 1e-9))
	batch := m.batch(partitionShare)
	fold := batch * m.c.fold(m.written(batch, partitionShare)) / 1e6
	load := m.calls() / m.ceiling()
	if load >= 1 {
		return math.Inf(1), math.Inf(1)
	}
	queue := load / (2 * m.ceiling() * (1 - load)) // M/D/1
	base := fold + m.d.Linger + m.d.Latency
	return base + fill/2 + queue, base + fill + math.Log(1000)*2*queue
}
