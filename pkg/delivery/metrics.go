package delivery

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Metrics counts the calls of every lane that shares it.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	lag      *prometheus.HistogramVec
}

// NewMetrics registers the metrics of delivery.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usagebridge_partner_requests_total",
			Help: "Calls to the partner, by operation and class of answer (2xx to 5xx, none).",
		}, []string{"vendor", "operation", "code_class"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                           "usagebridge_partner_request_duration_seconds",
			Help:                           "How long a call to the partner took.",
			Buckets:                        []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 100,
		}, []string{"operation"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usagebridge_retries_total",
			Help: "Calls that got no usable answer and will be made again.",
		}, []string{"vendor"}),
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                           "usagebridge_delivery_lag_seconds",
			Help:                           "From the event's time to the partner's acceptance of its figure.",
			Buckets:                        []float64{1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 86400},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 100,
		}, []string{"vendor"}),
	}
	r.MustRegister(m.requests, m.duration, m.retries, m.lag)
	return m
}

var codeClasses = []string{"2xx", "3xx", "4xx", "5xx", "none"}

// Touch makes every series of the vendor exist, so that a rate over them is
// right from the first call on.
func (m *Metrics) Touch(vendor string) {
	for _, operation := range operations() {
		for _, class := range codeClasses {
			m.requests.WithLabelValues(vendor, operation, class)
		}
		m.duration.WithLabelValues(operation)
	}
	m.retries.WithLabelValues(vendor)
	m.lag.WithLabelValues(vendor)
}

func operations() []string {
	names := []string{OperationMapping, OperationRead}
	for _, kind := range ledger.Kinds() {
		names = append(names, kind.String())
	}
	return names
}

func (m *Metrics) called(vendor string, o Outcome) {
	if o.Verdict.Ruling == NotCounted {
		return
	}
	operation := o.Task.Operation()
	m.requests.WithLabelValues(vendor, operation, codeClass(o.Answer.Status)).Inc()
	m.duration.WithLabelValues(operation).Observe(o.Answer.Duration.Seconds())
	switch o.Verdict.Ruling {
	case Retry:
		m.retries.WithLabelValues(vendor).Inc()
	case Delivered:
		if o.Task.Key.Kind == ledger.Count && !o.Task.Again {
			lag := o.Answer.At.Sub(time.Unix(0, o.Task.Figure.Time))
			m.lag.WithLabelValues(vendor).Observe(max(lag.Seconds(), 0))
		}
	case HoldKey, HoldLane, Wait, Unanswered, Split, Dead, NotCounted:
	}
}

func codeClass(status int) string {
	if status < 200 || status > 599 {
		return "none"
	}
	return strconv.Itoa(status/100) + "xx"
}
