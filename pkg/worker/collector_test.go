package worker_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// exposition is what a scrape gets as text.
func exposition(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

func TestTenThousandIntegrationsDoNotSwellTheExposition(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const integrations, shown = 10_000, 100
		named := func(n int) string { return fmt.Sprintf("an-organization-with-a-rather-long-id-%d", n) }
		registry := prometheus.NewRegistry()
		stored := make([]ledger.Entry, integrations)
		for n := range stored {
			since := time.Now().Add(time.Duration(n) * time.Second).UnixNano()
			stored[n] = ledger.Entry{
				Key: ledger.AccountKey(named(n), "a"), State: ledger.Dirty, Since: since,
				Seen: []ledger.Seen{{Version: ledger.Version{Time: since, Arrival: uint64(n)}, Event: uint64(n), Disposition: ledger.Applied}},
			}
		}
		if err := w.store.Write(t.Context(), 0, stored); err != nil {
			t.Fatal(err)
		}
		running, stop := w.run(func(c *worker.Config) { c.Metrics, c.ShownOrganizations = worker.NewMetrics(registry), shown })
		defer stop()
		for n := range integrations {
			running.SetLink(vendor, named(n), delivery.Link{Partner: w.partner, Ready: true, Paused: true, Credentials: "c1"})
		}
		settle(time.Second)
		text := exposition(t, registry)
		if len(text) > 1<<20 {
			t.Errorf("the exposition of %d integrations has %d bytes, want at most 1 MiB", integrations, len(text))
		}
		var series []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "usagebridge_integration_behind_age_seconds{") {
				series = append(series, line)
			}
		}
		if len(series) != shown {
			t.Fatalf("%d integrations have a gauge of their own, want %d", len(series), shown)
		}
		for _, n := range []int{0, shown - 1} {
			want := fmt.Sprintf("organization=%q", named(n))
			if !slices.ContainsFunc(series, func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("no gauge of %s, which is among those furthest behind", want)
			}
		}
	})
}

func TestGaugesSayWhatKeepsFiguresBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.partitions = 4
		registry := prometheus.NewRegistry()
		running, stop := w.run(func(c *worker.Config) {
			c.Metrics, c.ShownOrganizations = worker.NewMetrics(registry), 10
			c.Delivery.Rate = 0.1
		})
		defer stop()
		began := time.Now()
		running.SetLink(vendor, "msp-2", delivery.Link{Partner: w.partner, Credentials: "c1", StatusSince: began.Add(-50 * time.Second)}) // not ready
		running.SetLink(vendor, "msp-3", delivery.Link{Partner: w.partner, Ready: true, Unauthorized: true, Credentials: "c1", HoldSince: began.Add(-20 * time.Second)})
		settle(time.Second)
		for _, organization := range []string{"msp-1", "msp-2", "msp-3"} {
			for n := range 5 {
				w.send(fmt.Sprint(organization, n), time.Now(), event.Account{AccountID: fmt.Sprint("a", n), Name: "A"}, func(e *event.Event) { e.Organization = organization })
			}
		}
		settle(9 * time.Second)
		want := `
			# HELP usagebridge_oldest_hold_age_seconds Age of the oldest hold by its reason, of whole integrations that have something to send and of figures that are not mapped.
			# TYPE usagebridge_oldest_hold_age_seconds gauge
			usagebridge_oldest_hold_age_seconds{reason="anomaly",vendor="acme"} 0
			usagebridge_oldest_hold_age_seconds{reason="integration_not_ready",vendor="acme"} 60
			usagebridge_oldest_hold_age_seconds{reason="paused",vendor="acme"} 0
			usagebridge_oldest_hold_age_seconds{reason="unauthorized",vendor="acme"} 30
			usagebridge_oldest_hold_age_seconds{reason="unmapped",vendor="acme"} 0
			# HELP usagebridge_partitions Partitions that the vendor has; those without a worker are missing in the sum of partition_owned.
			# TYPE usagebridge_partitions gauge
			usagebridge_partitions{vendor="acme"} 4
			# HELP usagebridge_partner_rate_limit Lowest number of calls per second that an integration is allowed now; 0: no limit.
			# TYPE usagebridge_partner_rate_limit gauge
			usagebridge_partner_rate_limit{vendor="acme"} 0.1
			# HELP usagebridge_time_to_drain_seconds Longest time that an integration which takes calls needs for what it has to send, at the calls per second it is allowed.
			# TYPE usagebridge_time_to_drain_seconds gauge
			usagebridge_time_to_drain_seconds{vendor="acme"} 40
		`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want),
			"usagebridge_oldest_hold_age_seconds", "usagebridge_partitions", "usagebridge_partner_rate_limit", "usagebridge_time_to_drain_seconds"); err != nil {
			t.Error(err)
		}
		for _, organization := range []string{"msp-1", "msp-2", "msp-3"} {
			if series := fmt.Sprintf(`usagebridge_integration_behind_age_seconds{organization=%q,vendor="acme"} 9`, organization); !strings.Contains(exposition(t, registry), series) {
				t.Errorf("the exposition has no %s", series)
			}
		}
		settle(50 * time.Second)
		if text := exposition(t, registry); strings.Contains(text, `behind_age_seconds{organization="msp-1"`) {
			t.Error("msp-1 has a gauge of its own although the partner has all of its figures")
		}
	})
}

func TestFiguresThatAreNotMappedAreAsOldAsTheOldestOfThem(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		registry := prometheus.NewRegistry()
		stop := w.start(func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })
		defer stop()
		w.catalog("a", "s")
		w.partner.answers = func(task delivery.Task) delivery.Answer {
			if task.Key.Service == "s" && task.Key.Account == "a" {
				return delivery.Answer{Class: delivery.NotFound, Status: 404}
			}
			return delivery.Answer{Class: delivery.Accepted, Status: 201}
		}
		w.count("c1", time.Now(), "a", "s", 5)
		settle(100 * time.Second)
		if text := exposition(t, registry); !strings.Contains(text, `usagebridge_oldest_hold_age_seconds{reason="unmapped",vendor="acme"} 100`) {
			t.Errorf("no figure that has not been mapped for 100 s in\n%s", text)
		}
	})
}
