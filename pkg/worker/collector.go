package worker

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// collector reads gauges off the worker when it is scraped.
type collector struct {
	worker *Worker

	keys, oldest, gates, stopped, faults, workers *prometheus.Desc
	whole, holds, rate, drain, behind             *prometheus.Desc
}

// Describe names the gauges (prometheus.Collector).
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.keys, c.oldest, c.gates, c.faults, c.stopped, c.workers, c.whole, c.holds, c.rate, c.drain, c.behind,
	} {
		ch <- d
	}
}

// Collect reads the gauges (prometheus.Collector).
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	if c.worker == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(c.workers, float64(c.worker.members.living()))
	now, faulty, whole := time.Now(), c.worker.faulty(), c.worker.members.list()
	var behind []laggard
	for vendor, partitions := range c.worker.owned() {
		v := look(partitions, now)
		stopped := 0.0
		if c.worker.Stopped(vendor) {
			stopped = 1
		}
		gauge(c.stopped, stopped, vendor)
		gauge(c.faults, float64(faulty[vendor]), vendor)
		gauge(c.whole, float64(whole[vendor]), vendor)
		gauge(c.oldest, v.age(v.oldest), vendor)
		gauge(c.rate, v.rate, vendor)
		gauge(c.drain, v.drain, vendor)
		for _, state := range ledger.States() {
			gauge(c.keys, float64(v.states[state]), vendor, string(state))
		}
		for _, reason := range gateReasons() {
			gauge(c.gates, float64(v.gates[reason]), vendor, reason)
		}
		for _, reason := range holdReasons() {
			gauge(c.holds, v.age(v.holds[reason]), vendor, string(reason))
		}
		for organization, since := range v.behind {
			behind = append(behind, laggard{vendor, organization, since})
		}
	}
	for _, l := range furthest(behind, c.worker.config.ShownOrganizations) {
		gauge(c.behind, max(now.Sub(time.Unix(0, l.since)).Seconds(), 0), l.vendor, l.organization)
	}
}

// laggard is an integration that is behind since the given time.
type laggard struct {
	vendor, organization string
	since                int64
}

// furthest are those that are furthest behind: no more organizations than that
// ever stand in the exposition.
func furthest(all []laggard, most int) []laggard {
	slices.SortFunc(all, func(a, b laggard) int {
		return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.vendor, b.vendor), cmp.Compare(a.organization, b.organization))
	})
	return all[:min(len(all), max(most, 0))]
}

// view is what the partitions of one vendor show. Times are in nanoseconds
// since 1970; 0: none.
type view struct {
	now    time.Time
	states map[ledger.State]int
	gates  map[string]int
	oldest int64
	holds  map[ledger.HoldReason]int64
	behind map[string]int64 // by organization
	rate   float64          // calls per second; 0: no limit
	drain  float64          // seconds
}

func look(partitions []*partition, now time.Time) *view {
	v := &view{
		now: now, states: map[ledger.State]int{}, gates: map[string]int{},
		holds: map[ledger.HoldReason]int64{}, behind: map[string]int64{},
	}
	for _, p := range partitions {
		p.table.stateCounts(v.states)
		open, unmapped := p.table.sinces()
		maps.Copy(v.behind, open) // an organization is in one partition
		for _, since := range open {
			v.oldest = first(v.oldest, since)
		}
		v.holds[ledger.Unmapped] = first(v.holds[ledger.Unmapped], unmapped)
		p.eachLane(func(_ string, s delivery.Status) { v.lane(&s) })
	}
	return v
}

// lane takes in what one integration is doing.
func (v *view) lane(s *delivery.Status) {
	waiting := s.Queued + s.Waiting + s.Unmapped + s.Sending + s.Recording
	if s.Rate > 0 && (v.rate == 0 || s.Rate < v.rate) {
		v.rate = s.Rate
	}
	switch {
	case s.Hold != "":
		v.gates[string(s.Hold)]++
		if waiting > 0 && !s.Since.IsZero() {
			v.holds[s.Hold] = first(v.holds[s.Hold], s.Since.UnixNano())
		}
	case !s.Closed.IsZero():
		v.gates[string(s.Cause)]++
	case s.Rate > 0:
		v.drain = max(v.drain, float64(s.Queued+s.Waiting+s.Sending)/s.Rate)
	}
}

// age is how long ago that was, in seconds; 0 for none.
func (v *view) age(since int64) float64 {
	if since == 0 {
		return 0
	}
	return max(v.now.Sub(time.Unix(0, since)).Seconds(), 0)
}

// first is the earlier of two times that are not 0.
func first(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// holdReasons are those of holds whose ages are shown.
func holdReasons() []ledger.HoldReason {
	return []ledger.HoldReason{ledger.IntegrationNotReady, ledger.Unauthorized, ledger.Paused, ledger.Anomaly, ledger.Unmapped}
}

// gateReasons are the reasons for which a whole integration may be waiting.
func gateReasons() []string {
	return []string{
		string(ledger.IntegrationNotReady), string(ledger.Unauthorized), string(ledger.Paused), string(ledger.Anomaly),
		string(delivery.Throttled), string(delivery.Unavailable), string(delivery.Flooded),
	}
}

// owned lists the partitions by vendor; a vendor without any is there too.
func (w *Worker) owned() map[string][]*partition {
	byVendor := map[string][]*partition{}
	for vendor := range w.members.list() {
		byVendor[vendor] = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, p := range w.partitions {
		byVendor[at.vendor] = append(byVendor[at.vendor], p)
	}
	return byVendor
}
