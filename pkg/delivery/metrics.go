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
	ready    *prometheus.HistogramVec
	floods   *prometheus.CounterVec
}

// lagBuckets are those of times until a figure is accepted. One minute is the
// bound of the objective that 99 % of figures keep.
var lagBuckets = []float64{1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 86400}

// histogram is a native one, with classic buckets for who cannot read it.
func histogram(name, help string, buckets []float64, label string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "usagebridge_" + name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
	}, []string{label})
}

// NewMetrics registers the metrics of delivery.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usagebridge_partner_requests_total",
			Help: "Calls to the partner, by operation and class of answer (2xx to 5xx, none).",
		}, []string{"vendor", "operation", "code_class"}),
		duration: histogram("partner_request_duration_seconds", "How long a call to the partner took.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, "operation"),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usagebridge_retries_total",
			Help: "Calls that got no usable answer and will be made again.",
		}, []string{"vendor"}),
		lag: histogram("delivery_lag_seconds", "From the event's time to the partner's acceptance of its figure.", lagBuckets, "vendor"),
		ready: histogram("ready_delivery_lag_seconds",
			"From the event's time, or the time from which on the integration could take its figure if that is later, to the partner's acceptance. "+
				"Not counted: backfills, and figures that were not mapped or whose account or service was not published.", lagBuckets, "vendor"),
		floods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usagebridge_integration_floods_total",
			Help: "Integrations that were to be paused because so many figures in a row were refused for good.",
		}, []string{"vendor"}),
	}
	r.MustRegister(m.requests, m.duration, m.retries, m.lag, m.ready, m.floods)
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
	m.ready.WithLabelValues(vendor)
	m.floods.WithLabelValues(vendor)
}

func operations() []string {
	names := []string{OperationMapping, OperationRead}
	for _, kind := range ledger.Kinds() {
		names = append(names, kind.String())
	}
	return names
}

// called counts a call. able is until when the integration could take nothing;
// counted says whether its outcome counts for the objective. traceID names the
// trace in which the call is recorded; empty: none.
func (m *Metrics) called(vendor string, o Outcome, able time.Time, counted bool, traceID string) {
	if o.Verdict.Ruling == NotCounted {
		return
	}
	operation := o.Task.Operation()
	m.requests.WithLabelValues(vendor, operation, codeClass(o.Answer.Status)).Inc()
	observe(m.duration.WithLabelValues(operation), o.Answer.Duration.Seconds(), traceID)
	switch o.Verdict.Ruling {
	case Retry:
		m.retries.WithLabelValues(vendor).Inc()
	case Delivered:
		if o.Task.Key.Kind == ledger.Count && !o.Task.Again {
			from := time.Unix(0, o.Task.Figure.Time)
			observe(m.lag.WithLabelValues(vendor), max(o.Answer.At.Sub(from).Seconds(), 0), traceID)
			if counted {
				observe(m.ready.WithLabelValues(vendor), max(o.Answer.At.Sub(later(from, able)).Seconds(), 0), traceID)
			}
		}
	case HoldKey, HoldLane, Wait, Unanswered, Split, Dead, NotCounted:
	}
}

// observe takes a value, with the trace that shows how it came about, if any,
// as its exemplar.
func observe(o prometheus.Observer, value float64, traceID string) {
	if exemplars, ok := o.(prometheus.ExemplarObserver); ok && traceID != "" {
		exemplars.ObserveWithExemplar(value, prometheus.Labels{"trace_id": traceID})
		return
	}
	o.Observe(value)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func codeClass(status int) string {
	if status < 200 || status > 599 {
		return "none"
	}
	return strconv.Itoa(status/100) + "xx"
}
