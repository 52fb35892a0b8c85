package console

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts requests. Both labels are closed: routes are those of the
// Console, "/" its page, "unknown" everything else.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usagebridge_http_requests_total",
			Help: "HTTP requests answered, by route and class of answer (2xx to 5xx).",
		}, []string{"route", "code_class"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                           "usagebridge_http_request_duration_seconds",
			Help:                           "How long HTTP requests took to answer.",
			Buckets:                        []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 100,
		}, []string{"route"}),
	}
	r.MustRegister(m.requests, m.duration)
	for _, label := range []string{"/", ingestPath, informPattern, onboardingsPath, onboardingPattern, "/metrics", "/livez", "/readyz", labelUnknown} {
		for _, class := range []string{"2xx", "3xx", "4xx", "5xx"} {
			m.requests.WithLabelValues(label, class)
		}
		m.duration.WithLabelValues(label)
	}
	return m
}

const labelUnknown = "unknown"

// labelOf is the label of a pattern that the mux has matched.
func labelOf(pattern string) string {
	switch pattern {
	case patternPage:
		return "/"
	case patternUnknown, "":
		return labelUnknown
	}
	return pattern
}

func (m *metrics) answered(label string, status int, took time.Duration) {
	m.requests.WithLabelValues(label, strconv.Itoa(status/100)+"xx").Inc()
	m.duration.WithLabelValues(label).Observe(took.Seconds())
}
