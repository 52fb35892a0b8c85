package status

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts transitions, and shows where the integrations of a roster
// stand.
type Metrics struct {
	transitions *prometheus.CounterVec
	collector   *collector
}

// NewMetrics registers the metrics of status.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usagebridge_integration_transitions_total",
			Help: "Changes of an integration's status that this worker recorded.",
		}, []string{"vendor", "from", "to"}),
		collector: &collector{
			statuses: prometheus.NewDesc("usagebridge_integration_status",
				"Integrations of the partitions owned, by status at the partner.", []string{"vendor", "status"}, nil),
			vendors: map[string]bool{},
		},
	}
	r.MustRegister(m.transitions, m.collector)
	return m
}

// Touch makes every series of the vendor exist, so that a rate over them is
// right from the first transition on.
func (m *Metrics) Touch(vendor string) {
	for _, from := range classes() {
		for _, to := range classes() {
			if from != to || from == other { // one unknown word may follow another
				m.transitions.WithLabelValues(vendor, string(from), string(to))
			}
		}
	}
	m.collector.touch(vendor)
}

// moved counts a transition if the status changed with it; one that only
// opened or closed a gate is no move.
func (m *Metrics) moved(vendor string, t Transition) {
	if t.From != t.To {
		m.transitions.WithLabelValues(vendor, string(t.From.class()), string(t.To.class())).Inc()
	}
}

// classes are the values of a label that holds a status.
func classes() []Status { return append(Statuses(), other) }

// collector reads the roster when it is scraped.
type collector struct {
	statuses *prometheus.Desc

	mu      sync.Mutex
	vendors map[string]bool // that were touched
	roster  *Roster
}

func (c *collector) touch(vendor string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vendors[vendor] = true
}

func (c *collector) show(r *Roster) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roster = r
}

// Describe names the gauge (prometheus.Collector).
func (c *collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.statuses }

// Collect reads the gauge (prometheus.Collector).
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for vendor, counts := range c.counts() {
		for _, s := range classes() {
			ch <- prometheus.MustNewConstMetric(c.statuses, prometheus.GaugeValue, float64(counts[s]), vendor, string(s))
		}
	}
}

// counts sums up the integrations of every vendor by the class of their status;
// a vendor without any is there too.
func (c *collector) counts() map[string]map[Status]int {
	c.mu.Lock()
	roster := c.roster
	byVendor := map[string]map[Status]int{}
	for vendor := range c.vendors {
		byVendor[vendor] = map[Status]int{}
	}
	c.mu.Unlock()
	if roster == nil {
		return byVendor
	}
	for at, s := range roster.all() {
		if byVendor[at.vendor] == nil {
			byVendor[at.vendor] = map[Status]int{}
		}
		if roster.owned(at.vendor, at.organization) {
			byVendor[at.vendor][s.class()]++
		}
	}
	return byVendor
}
