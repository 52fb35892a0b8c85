package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// surveyed is a survey that has seen that.
func surveyed(seen *broker.Inspection, judged ...reported) *prometheus.Registry {
	s := newSurvey(nil, func(string) []int { return []int{1, 2} }, func(now time.Time) map[string]time.Time {
		return map[string]time.Time{"acme": now.Add(90 * time.Second)}
	})
	s.seen, s.judged = seen, judged
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	return registry
}

func TestASurveyShowsWhatTheLastLookFound(t *testing.T) {
	seen := &broker.Inspection{
		Streams: []broker.StreamFacts{
			{Kind: "stream", Name: "gone", Missing: true},
			{Kind: "stream", Name: "AUDIT", Bytes: 12, MaxAge: time.Hour},
		},
		Vendors: []broker.VendorFacts{
			{Name: "acme", DeadLetters: 3, Partitions: []broker.PartitionFacts{
				{Partition: 0, Pending: 1000}, {Partition: 1, Pending: 10, AckPending: 1}, {Partition: 2, AckPending: 5},
			}},
			{Name: "unseen", Err: errNotConnected},
		},
	}
	registry := surveyed(seen, reported{ID: "server.sync", Verdict: stepFailed}, reported{ID: "streams.replicas", Verdict: stepWarning}, reported{ID: "streams.replicas", Verdict: stepWarning})
	want := `
		# HELP usagebridge_consumer_pending Messages of the partitions owned that are not acknowledged yet.
		# TYPE usagebridge_consumer_pending gauge
		usagebridge_consumer_pending{vendor="acme"} 16
		# HELP usagebridge_dead_letters Dead letters that stand.
		# TYPE usagebridge_dead_letters gauge
		usagebridge_dead_letters{vendor="acme"} 3
		# HELP usagebridge_doctor_findings Objects that a check of ` + "`usagebridge doctor`" + ` finds wrong; nothing for what is in order.
		# TYPE usagebridge_doctor_findings gauge
		usagebridge_doctor_findings{check="server.sync",severity="error"} 1
		usagebridge_doctor_findings{check="streams.replicas",severity="warning"} 2
	`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "usagebridge_consumer_pending", "usagebridge_dead_letters", "usagebridge_doctor_findings"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(registry, "usagebridge_stream_bytes", "usagebridge_cutoff_remaining_seconds"); err != nil || n != 2 {
		t.Errorf("got %d series of streams and cut-offs, %v; want one of each", n, err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func TestASurveyThatHasSeenNothingShowsNothingOfNATS(t *testing.T) {
	for name, seen := range map[string]*broker.Inspection{"not yet": nil, "no answer": {TopologyErr: errNotConnected}} {
		if n, err := testutil.GatherAndCount(surveyed(seen)); err != nil || n != 1 {
			t.Errorf("%s: got %d series, %v; want the cut-off alone", name, n, err)
		}
	}
}

func TestASurveyLooksAtARealServer(t *testing.T) {
	site := replaySite(t)
	s := newSurvey(site, func(string) []int { return []int{0, 1, 2, 3} }, func(time.Time) map[string]time.Time { return nil })
	s.look(t.Context(), true)
	if s.seen == nil || len(s.seen.Vendors) != 1 || s.seen.Vendors[0].Err != nil {
		t.Fatalf("saw %+v, want one vendor", s.seen)
	}
	names := []string{}
	for i := range s.seen.Streams {
		names = append(names, s.seen.Streams[i].StreamName())
	}
	for _, want := range []string{"EVENTS_acme", "KV_LEDGER_acme", "DEADLETTERS"} {
		if !slices.Contains(names, want) {
			t.Errorf("saw the streams %v, want %s among them", names, want)
		}
	}
	for _, f := range s.judged {
		t.Errorf("found wrong in a store that was just made: %s: %s", f.ID, f.Observed)
	}
}
