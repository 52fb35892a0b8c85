package status_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
)

const (
	transitionsTotal = "usagebridge_integration_transitions_total"
	statusGauge      = "usagebridge_integration_status"
)

func everything(string, string) bool { return true }

func TestTheMetricsFollowTheConventions(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := status.NewMetrics(registry)
	m.Touch("acme")
	status.NewRoster(m, everything).Set("acme", "m", status.Mapping)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: got %v, %v, want no problems", problems, err)
	}
}

func TestTouchMakesEverySeriesOfAVendorExist(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := status.NewMetrics(registry)
	m.Touch("acme")
	m.Touch("acme")
	for name, want := range map[string]int{transitionsTotal: 5*5 - 4, statusGauge: 5} {
		if got, err := testutil.GatherAndCount(registry, name); err != nil || got != want {
			t.Errorf("%s: got %d series and %v, want %d", name, got, err, want)
		}
	}
	if got := moves(t, registry); got != 0 {
		t.Errorf("got %v transitions, want 0", got)
	}
}

func TestOnlyMovesOfTheStatusAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := status.NewMetrics(registry)
	r := &records{integration: connected()}
	tracker := status.NewTracker(r, r, "w1", m, slog.New(slog.DiscardHandler))
	for _, s := range []delivery.Signal{
		signal(delivery.Suspected, "count", delivery.Answer{}),
		signal(delivery.Flooded, "count", delivery.Answer{}),
		signal(delivery.Lost, "count", delivery.Answer{}),
		signal(delivery.NotReady, "count", delivery.Answer{}),
		signal(delivery.Accepted, "read", delivery.Answer{Observed: "on hold"}),
		signal(delivery.Accepted, "read", delivery.Answer{Observed: "archived"}),
		signal(delivery.Accepted, "count", delivery.Answer{}),
	} {
		s.Generation = r.integration.Generation
		tracker.Observe(t.Context(), "acme", s)
	}
	want := `
		# HELP usagebridge_integration_transitions_total Changes of an integration's status that this worker recorded.
		# TYPE usagebridge_integration_transitions_total counter
		usagebridge_integration_transitions_total{from="connected",to="mapping",vendor="acme"} 1
		usagebridge_integration_transitions_total{from="mapping",to="other",vendor="acme"} 1
		usagebridge_integration_transitions_total{from="other",to="other",vendor="acme"} 1
		usagebridge_integration_transitions_total{from="other",to="connected",vendor="acme"} 1
	`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), transitionsTotal); err != nil {
		t.Error(err)
	}
}

func TestEveryIntegrationIsCountedByTheWorkerThatOwnsIt(t *testing.T) {
	registries := map[string]*prometheus.Registry{}
	for _, worker := range []string{"w1", "w2"} {
		registries[worker] = prometheus.NewRegistry()
		roster := status.NewRoster(status.NewMetrics(registries[worker]), func(_, organization string) bool {
			return strings.HasPrefix(organization, worker)
		})
		roster.Set("acme", "w1-a", status.Mapping)
		roster.Set("acme", "w1-a", status.Connected)
		roster.Set("acme", "w1-b", status.Connected)
		roster.Set("acme", "w1-c", "archived")
		roster.Set("acme", "w1-gone", status.Inactive)
		roster.Remove("acme", "w1-gone")
		roster.Remove("acme", "w1-gone")
		roster.Set("acme", "w2-a", status.Pending)
	}
	for worker, want := range map[string]string{
		"w1": `
			# HELP usagebridge_integration_status Integrations of the partitions owned, by status at the partner.
			# TYPE usagebridge_integration_status gauge
			usagebridge_integration_status{status="inactive",vendor="acme"} 0
			usagebridge_integration_status{status="mapping",vendor="acme"} 0
			usagebridge_integration_status{status="pending",vendor="acme"} 0
			usagebridge_integration_status{status="connected",vendor="acme"} 2
			usagebridge_integration_status{status="other",vendor="acme"} 1
		`,
		"w2": `
			# HELP usagebridge_integration_status Integrations of the partitions owned, by status at the partner.
			# TYPE usagebridge_integration_status gauge
			usagebridge_integration_status{status="inactive",vendor="acme"} 0
			usagebridge_integration_status{status="mapping",vendor="acme"} 0
			usagebridge_integration_status{status="pending",vendor="acme"} 1
			usagebridge_integration_status{status="connected",vendor="acme"} 0
			usagebridge_integration_status{status="other",vendor="acme"} 0
		`,
	} {
		if err := testutil.GatherAndCompare(registries[worker], strings.NewReader(want), statusGauge); err != nil {
			t.Errorf("%s: %v", worker, err)
		}
	}
}

func TestARosterMayChangeWhileItIsScraped(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := status.NewMetrics(registry)
	var roster *status.Roster
	roster = status.NewRoster(m, func(vendor, organization string) bool {
		roster.Set(vendor, organization, status.Connected) // no lock may be held here
		m.Touch(vendor)
		return true
	})
	roster.Set("acme", "m", status.Mapping)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			roster.Set("acme", "m", status.Pending)
			m.Touch("acme")
			if _, err := registry.Gather(); err != nil {
				t.Errorf("gather: %v", err)
			}
		})
	}
	wait.Wait()
}
