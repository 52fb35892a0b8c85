package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// layout is where one draw of integrations has come to lie: chance decides how
// many share a partition, because their ids do.
type layout struct {
	weights   []float64 // of the integrations: share of all events and keys
	vendor    []int     // of the integrations
	partition []int     // of the integrations, counted over all vendors
	worker    []int     // of the partitions
	loads     []float64 // of the partitions: share of all events
}

// drawLayout draws ids, sizes and workers. A vendor's partitions are dealt
// evenly: no worker has more than one more than another (pkg/worker).
func drawLayout(d *capacityDemand, partitions, workers int, random *rand.Rand) *layout {
	n := d.Integrations
	l := &layout{
		weights: integrationWeights(n, d.Skew), vendor: make([]int, n), partition: make([]int, n),
		worker: make([]int, partitions*d.Vendors), loads: make([]float64, partitions*d.Vendors),
	}
	random.Shuffle(n, func(i, j int) { l.weights[i], l.weights[j] = l.weights[j], l.weights[i] })
	for i := range n {
		v := i % d.Vendors
		p := broker.Partition("vendor-"+strconv.Itoa(v), fmt.Sprintf("msp-%016x", random.Uint64()), partitions)
		l.vendor[i], l.partition[i] = v, v*partitions+p
		l.loads[l.partition[i]] += l.weights[i]
	}
	for v := range d.Vendors {
		order, first := random.Perm(partitions), random.IntN(workers)
		for i, p := range order {
			l.worker[v*partitions+p] = (first + i) % workers
		}
	}
	return l
}

// integrationWeights are shares of integrations, Zipf's with the exponent; 0:
// all are alike.
func integrationWeights(n int, skew float64) []float64 {
	w, sum := make([]float64, n), 0.0
	for i := range w {
		w[i] = math.Pow(float64(i+1), -skew)
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

// busiest is the largest share that a partition has, and a worker.
func (l *layout) busiest(workers int) (partition, worker float64) {
	shares := make([]float64, workers)
	for p, load := range l.loads {
		shares[l.worker[p]] += load
	}
	return slices.Max(l.loads), slices.Max(shares)
}

// spread is how unevenly chance spreads integrations: the busiest partition's
// and the busiest worker's share of all events, the mean of many draws, and
// what 19 of 20 stay below.
type spread struct {
	Partition     float64 `json:"partition"`
	PartitionHigh float64 `json:"partition_p95"`
	Worker        float64 `json:"worker"`
	WorkerHigh    float64 `json:"worker_p95"`
}

// spreadDraws is how many layouts are drawn for a spread, fewer where each has
// many integrations.
const spreadDraws = 100

// spreadOf draws many layouts.
func spreadOf(d *capacityDemand, partitions, workers int) (s spread) {
	random := rand.New(rand.NewPCG(d.Seed, 1)) //nolint:gosec // the same every time
	draws := max(min(spreadDraws, 1_000_000/d.Integrations), 10)
	ps, ws := make([]float64, draws), make([]float64, draws)
	for i := range draws {
		ps[i], ws[i] = drawLayout(d, partitions, workers, random).busiest(workers)
		s.Partition += ps[i] / float64(draws)
		s.Worker += ws[i] / float64(draws)
	}
	slices.Sort(ps)
	slices.Sort(ws)
	s.PartitionHigh, s.WorkerHigh = ps[draws*19/20], ws[draws*19/20]
	return s
}
