package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

const (
	// surveyEvery is how often a worker looks at the streams, and judgeEvery how
	// often at what the doctor looks at.
	surveyEvery = 30 * time.Second
	judgeEvery  = 5 * time.Minute
	// surveyPatience bounds one look: NATS may not answer.
	surveyPatience = 20 * time.Second
)

// survey shows what can only be asked of NATS, as gauges: a scrape must not wait
// for a server that does not answer, so it shows what the last look found. What
// could not be seen then is not shown, rather than shown as it was.
type survey struct {
	app  *app
	owns func(vendor string) []int // partitions of this worker
	// cutoffs has the next billing cut-off of every vendor that has one.
	cutoffs func(now time.Time) map[string]time.Time

	streams  streamDescs
	letters  *prometheus.Desc
	pending  *prometheus.Desc
	cutoff   *prometheus.Desc
	findings *prometheus.Desc

	mu     sync.Mutex
	seen   *broker.Inspection // nil: nothing yet
	judged []reported         // what the doctor found wrong
}

// streamDescs are the gauges of one stream.
type streamDescs struct{ bytes, limit, oldest, maxAge *prometheus.Desc }

func newSurvey(a *app, owns func(string) []int, cutoffs func(time.Time) map[string]time.Time) *survey {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("usagebridge_"+name, help, labels, nil)
	}
	return &survey{
		app: a, owns: owns, cutoffs: cutoffs,
		streams: streamDescs{
			bytes:  desc("stream_bytes", "Size of the stream.", "stream"),
			limit:  desc("stream_limit_bytes", "Size that the stream may have; 0: no limit.", "stream"),
			oldest: desc("stream_oldest_age_seconds", "Age of the stream's oldest message; 0: it is empty.", "stream"),
			maxAge: desc("stream_max_age_seconds", "Age at which the stream drops messages; 0: never.", "stream"),
		},
		letters:  desc("dead_letters", "Dead letters that stand.", "vendor"),
		pending:  desc("consumer_pending", "Messages of the partitions owned that are not acknowledged yet.", "vendor"),
		cutoff:   desc("cutoff_remaining_seconds", "Time until the vendor's next billing cut-off; only of vendors that have one.", "vendor"),
		findings: desc("doctor_findings", "Objects that a check of `usagebridge doctor` finds wrong; nothing for what is in order.", "check", "severity"),
	}
}

// run looks around until ctx ends.
func (s *survey) run(ctx context.Context) {
	tick := time.NewTicker(surveyEvery)
	defer tick.Stop()
	var judged time.Time
	for {
		judge := time.Since(judged) >= judgeEvery
		if judge {
			judged = time.Now()
		}
		s.look(ctx, judge)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look looks at NATS once, and has the doctor judge it if that is wanted.
func (s *survey) look(ctx context.Context, judge bool) {
	ctx, cancel := context.WithTimeout(ctx, surveyPatience)
	defer cancel()
	seen := s.app.broker.Inspect(ctx, "")
	var judged []reported
	if judge {
		r := diagnose(s.evidence(seen), slices.Concat(localChecks(), serverChecks(), streamChecks()))
		judged = slices.DeleteFunc(r.Findings, func(f reported) bool { return f.Verdict != stepFailed && f.Verdict != stepWarning })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = seen
	if judge {
		s.judged = judged
	}
}

// evidence is what the doctor needs to judge the installation: everything that
// does not concern single vendors and integrations, of which there are gauges.
func (s *survey) evidence(seen *broker.Inspection) *evidence {
	e := &evidence{now: time.Now(), offline: true, config: s.app.config, nats: seen}
	e.lookAtStore()
	e.lookAtConfig()
	e.lookAtKeys()
	return e
}

// Describe names the gauges (prometheus.Collector).
func (s *survey) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.streams.bytes, s.streams.limit, s.streams.oldest, s.streams.maxAge, s.letters, s.pending, s.cutoff, s.findings,
	} {
		ch <- d
	}
}

// Collect shows what the last look found (prometheus.Collector).
func (s *survey) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	now := time.Now()
	for vendor, at := range s.cutoffs(now) {
		gauge(s.cutoff, at.Sub(now).Seconds(), vendor)
	}
	s.mu.Lock()
	seen, judged := s.seen, s.judged
	s.mu.Unlock()
	for at, n := range countFindings(judged) {
		gauge(s.findings, float64(n), at.check, at.severity)
	}
	if seen == nil {
		return
	}
	for i := range seen.Streams {
		f := &seen.Streams[i]
		if f.Missing {
			continue // the doctor says so
		}
		age := 0.0
		if !f.First.IsZero() {
			age = now.Sub(f.First).Seconds()
		}
		name := f.StreamName()
		gauge(s.streams.bytes, float64(f.Bytes), name)
		gauge(s.streams.limit, float64(f.MaxBytes), name)
		gauge(s.streams.oldest, max(age, 0), name)
		gauge(s.streams.maxAge, f.MaxAge.Seconds(), name)
	}
	for i := range seen.Vendors {
		v := &seen.Vendors[i]
		if v.Err != nil {
			continue
		}
		gauge(s.letters, float64(v.DeadLetters), v.Name)
		gauge(s.pending, float64(pendingOf(v, s.owns(v.Name))), v.Name)
	}
}

// pendingOf is how many messages of the partitions are not acknowledged.
func pendingOf(v *broker.VendorFacts, owned []int) (n uint64) {
	for _, p := range v.Partitions {
		if slices.Contains(owned, p.Partition) {
			n += p.Pending + uint64(p.AckPending)
		}
	}
	return n
}

// foundKind names the series of a check that found something wrong.
type foundKind struct{ check, severity string }

func countFindings(judged []reported) map[foundKind]int {
	counts := map[foundKind]int{}
	for i := range judged {
		severity := "warning"
		if judged[i].Verdict == stepFailed {
			severity = "error"
		}
		counts[foundKind{judged[i].ID, severity}]++
	}
	return counts
}
