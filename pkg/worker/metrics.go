package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Metrics measures one worker and its lanes.
type Metrics struct {
	Delivery *delivery.Metrics

	received  *prometheus.CounterVec
	events    *prometheus.CounterVec
	letters   *prometheus.CounterVec
	batch     prometheus.Histogram
	duration  prometheus.Histogram
	conflicts *prometheus.CounterVec
	owned     *prometheus.GaugeVec
	lost      *prometheus.CounterVec
	handovers *prometheus.CounterVec
	takeover  prometheus.Histogram
	snapshots *prometheus.CounterVec
	collector *collector
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "usagebridge_" + name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "usagebridge_" + name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
	})
}

// NewMetrics registers the metrics of a worker and of its lanes.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Delivery:  delivery.NewMetrics(r),
		received:  counter("events_received_total", "Messages received from the log and recorded; redeliveries count again.", "vendor", "family"),
		events:    counter("events_total", "Events folded, by disposition.", "vendor", "family", "disposition"),
		letters:   counter("dead_letters_total", "Dead letters parked, by reason.", "vendor", "reason"),
		batch:     histogram("fold_batch_size", "Messages folded together.", []float64{1, 5, 10, 50, 100, 250, 500, 1000}),
		duration:  histogram("fold_duration_seconds", "From taking a batch to its record being confirmed.", []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}),
		conflicts: counter("ledger_write_conflicts_total", "Ledger writes that were not confirmed and folded again.", "vendor"),
		owned:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "usagebridge_partition_owned", Help: "Partitions that this worker owns."}, []string{"vendor"}),
		lost:      counter("lease_lost_total", "Leases lost while the partition was being worked on.", "vendor"),
		handovers: counter("partition_handovers_total", "Partitions that this worker began to hand over to the worker that they are assigned to.", "vendor"),
		takeover:  histogram("partition_takeover_seconds", "From a partition being without a worker, as far as this one saw, to this one having its lease.", []float64{.005, .025, .1, .5, 1, 2, 5, 15, 60}),
		snapshots: counter("snapshots_total", "Snapshots that ended: complete, complete with zeros that wait for approval, incomplete.", "vendor", "result"),
		collector: &collector{
			keys:    prometheus.NewDesc("usagebridge_ledger_keys", "Keys of the partitions owned, by stored state.", []string{"vendor", "state"}, nil),
			oldest:  prometheus.NewDesc("usagebridge_oldest_dirty_age_seconds", "Age of the oldest key that the partner does not have as desired, for whatever reason.", []string{"vendor"}, nil),
			faults:  prometheus.NewDesc("usagebridge_partition_faults", "Partitions that this worker cannot work on although nobody else does.", []string{"vendor"}, nil),
			stopped: prometheus.NewDesc("usagebridge_vendor_stopped", "Whether the vendor's events are not folded, because too many are dead or by an operator's word.", []string{"vendor"}, nil),
			workers: prometheus.NewDesc("usagebridge_workers", "Workers that are alive, as far as this one sees, itself included.", nil, nil),
			gates:   prometheus.NewDesc("usagebridge_partner_gate_closed", "Integrations to which nothing is sent, by reason.", []string{"vendor", "reason"}, nil),
			whole:   prometheus.NewDesc("usagebridge_partitions", "Partitions that the vendor has; those without a worker are missing in the sum of partition_owned.", []string{"vendor"}, nil),
			holds:   prometheus.NewDesc("usagebridge_oldest_hold_age_seconds", "Age of the oldest hold by its reason, of whole integrations that have something to send and of figures that are not mapped.", []string{"vendor", "reason"}, nil),
			rate:    prometheus.NewDesc("usagebridge_partner_rate_limit", "Lowest number of calls per second that an integration is allowed now; 0: no limit.", []string{"vendor"}, nil),
			drain:   prometheus.NewDesc("usagebridge_time_to_drain_seconds", "Longest time that an integration which takes calls needs for what it has to send, at the calls per second it is allowed.", []string{"vendor"}, nil),
			behind:  prometheus.NewDesc("usagebridge_integration_behind_age_seconds", "Age of the oldest figure that the partner does not have as desired, of the integrations that are furthest behind.", []string{"vendor", "organization"}, nil),
		},
	}
	r.MustRegister(m.received, m.events, m.letters, m.batch, m.duration, m.conflicts, m.owned, m.lost, m.handovers, m.takeover, m.snapshots, m.collector)
	return m
}

// touch makes every series of the vendor exist.
func (m *Metrics) touch(vendor string) {
	m.Delivery.Touch(vendor)
	for _, family := range []string{event.FamilyUsage, event.FamilyCatalog} {
		m.received.WithLabelValues(vendor, family)
		for _, what := range ledger.Dispositions() {
			m.events.WithLabelValues(vendor, family, string(what))
		}
	}
	for _, reason := range event.Reasons() {
		m.letters.WithLabelValues(vendor, string(reason))
	}
	m.conflicts.WithLabelValues(vendor)
	m.owned.WithLabelValues(vendor)
	m.lost.WithLabelValues(vendor)
	m.handovers.WithLabelValues(vendor)
	for _, result := range []string{snapshotComplete, snapshotApproval, snapshotIncomplete} {
		m.snapshots.WithLabelValues(vendor, result)
	}
}

func (m *Metrics) folded(vendor string, messages int, w *work, took time.Duration) {
	for family, n := range w.received {
		m.received.WithLabelValues(vendor, family).Add(float64(n))
	}
	for d, n := range w.dispositions {
		m.events.WithLabelValues(vendor, d.family, string(d.what)).Add(float64(n))
	}
	for i := range w.letters {
		m.letters.WithLabelValues(vendor, string(w.letters[i].Fault.Reason)).Inc()
	}
	for result, n := range w.snapshots {
		m.snapshots.WithLabelValues(vendor, result).Add(float64(n))
	}
	if messages > 0 {
		m.batch.Observe(float64(messages))
		m.duration.Observe(took.Seconds())
	}
}

func (m *Metrics) watch(w *Worker) { m.collector.worker = w }
