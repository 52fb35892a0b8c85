package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// capacityReport is what an installation needs.
type capacityReport struct {
	Demand   capacityDemand    `json:"demand"` // with what was left to the model
	Costs    capacityCosts     `json:"costs"`
	Spread   spread            `json:"spread"`
	Rows     []capacityRow     `json:"rows"`
	Verdicts []capacityVerdict `json:"verdicts"`
}

// capacityRow is one figure. A figure that no number tells, such as the time
// of what never ends, is left out.
type capacityRow struct {
	ID     string   `json:"id"`
	What   string   `json:"what"`
	Figure *float64 `json:"figure"` // null: without end
	Unit   string   `json:"unit"`   // s, bytes, %, cores or what is counted
}

// Levels of a verdict: of what is allowed at most 70 % is used, all of it at
// most, or more than there is.
const (
	levelFine  = "fine"
	levelTight = "tight"
	levelShort = "short"
)

// capacityVerdict says in plain words whether something suffices.
type capacityVerdict struct {
	ID    string `json:"id"`
	Level string `json:"level"`
	Text  string `json:"text"`
}

// mostBusy is how much of its processor a worker is to use at the peak.
const mostBusy = 0.7

// What the topology keeps (pkg/broker).
const (
	keptEvents    = 35 * 24 * time.Hour
	keptCalls     = 30 * 24 * time.Hour
	syncLogBound  = 1 << 30
	mostVendor    = 256 // partitions
	someVendor    = 16  // partitions, when nobody says
	partsOfWorker = 4   // partitions that each worker should have at least, so that shares are even
)

// capacityPlan is a model with everything decided.
type capacityPlan struct {
	*capacityModel

	spread   spread
	survived spread // when one worker is missing
	report   *capacityReport
}

// planCapacity decides what the demand leaves open and says what it comes to.
func planCapacity(d capacityDemand, c capacityCosts) (*capacityReport, error) {
	report := &capacityReport{Demand: d, Costs: c}
	if report.Demand.Mean == 0 {
		report.Demand.Mean = d.Events / 5
	}
	m, err := newCapacityModel(&report.Demand, &report.Costs)
	if err != nil {
		return nil, err
	}
	p := &capacityPlan{capacityModel: m, report: report}
	p.decide()
	p.tellWorkers()
	p.tellStore()
	p.tellCalls()
	p.tellDrains()
	p.tellTimes()
	p.tellHeadroom()
	return report, nil
}

// decide chooses partitions and workers where the demand does not: as few
// workers as keep within their processor at the peak and within their memory,
// also when one of them is missing.
func (p *capacityPlan) decide() {
	given := p.d.Partitions
	workers := p.d.Workers
	if workers == 0 {
		workers = max(int(p.busy(1, 1/float64(someVendor*p.d.Vendors), 0)/(mostBusy*p.d.Cores)), 2)
	}
	for ; ; workers++ {
		p.d.Partitions = given
		if given == 0 {
			p.d.Partitions = p.choosePartitions(workers)
		}
		p.spread = spreadOf(p.d, p.d.Partitions, workers)
		p.survived = spreadOf(p.d, p.d.Partitions, max(workers-1, 1))
		if p.d.Workers > 0 || workers >= p.d.Partitions*p.d.Vendors || p.suffices(workers) {
			break
		}
	}
	p.d.Workers, p.report.Spread = workers, p.spread
}

// choosePartitions takes the smallest power of two from 16 on with which every
// worker has a few, and the busiest partition is not too much for one thread.
func (p *capacityPlan) choosePartitions(workers int) int {
	n := someVendor
	for n < mostVendor {
		s := spreadOf(p.d, n, 1)
		even := n*p.d.Vendors >= partsOfWorker*workers
		if even && s.PartitionHigh*p.d.Events <= mostBusy*p.partitionLimit(s.PartitionHigh) {
			break
		}
		n *= 2
	}
	return n
}

func (p *capacityPlan) suffices(workers int) bool {
	return p.load(p.spread, workers) <= mostBusy && p.load(p.survived, workers-1) <= 1 && p.need(p.survived, workers-1) <= float64(p.d.Memory)
}

// load is the part of its processor that the busiest worker uses.
func (p *capacityPlan) load(s spread, workers int) float64 {
	return p.busy(s.WorkerHigh, s.Partition, p.partitionsEach(workers)) / p.d.Cores
}

// need is the memory of the largest worker.
func (p *capacityPlan) need(s spread, workers int) float64 {
	return p.memory(s.WorkerHigh, p.partitionsEach(workers))
}

func (p *capacityPlan) partitionsEach(workers int) float64 {
	return math.Ceil(float64(p.d.Partitions*p.d.Vendors) / float64(max(workers, 1)))
}

// add adds a row; an infinite figure is null.
func (p *capacityPlan) add(id, what, unit string, figure float64) {
	row := capacityRow{ID: id, What: what, Unit: unit}
	if f := significant(figure, 3); !math.IsInf(figure, 0) && !math.IsNaN(figure) {
		row.Figure = &f
	}
	p.report.Rows = append(p.report.Rows, row)
}

// say adds a verdict: used is the part of what is allowed that is used.
func (p *capacityPlan) say(id string, used float64, text string) {
	level := levelShort
	switch {
	case used <= mostBusy:
		level = levelFine
	case used <= 1:
		level = levelTight
	}
	p.report.Verdicts = append(p.report.Verdicts, capacityVerdict{id, level, text})
}

// storedBytes is what an event, an entry of the ledger and a line of the sync
// log take in their streams.
func (p *capacityPlan) storedBytes() (event, entry, call float64) {
	load := benchLoad{Keys: 1000, Integrations: 1}
	sample := benchEntry(load.key(1), 1, time.Unix(1_800_000_000, 123_456_789)) // as long as most times are
	line, err := json.Marshal(ledger.Call{
		Organization: sample.Key.Organization, Operation: "count", Account: sample.Key.Account, Service: sample.Key.Service,
		Units: 42_000_000, Time: sample.Delivered.At, Arrival: 1_000_000, Attempt: 1, At: time.Unix(0, sample.Delivered.At).UTC(), Duration: 50 * time.Millisecond,
		Status: 201, RequestID: sample.Delivered.Receipt.RequestID, Verdict: "delivered", Worker: "worker-01",
	})
	if err != nil {
		return 0, 0, 0 // a Call can always be encoded
	}
	subject := len(broker.LedgerKey(1, sample.Key))
	return float64(p.d.EventBytes) + storedEvent, float64(len(ledger.AppendEntry(nil, &sample))+subject) + storedRecord, float64(len(line)) + storedRecord
}

// draw is one layout for the simulations.
func (p *capacityPlan) draw() *layout {
	return drawLayout(p.d, p.d.Partitions, p.d.Workers, rand.New(rand.NewPCG(p.d.Seed, 3))) //nolint:gosec // the same every time
}
