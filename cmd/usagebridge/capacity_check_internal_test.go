//go:build !race

package main

import (
	"context"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// The size of the installation with which the model is compared; deploy/capacity.md
// says with which one it was compared in earnest.
var (
	installationIntegrations = flag.Int("capacity-integrations", 10, "integrations of the installation that is compared with the model")
	installationKeys         = flag.Int("capacity-keys", 60, "keys of each of them")
	installationEvents       = flag.Float64("capacity-events", 1500, "events per second of the outage of the partner")
	installationOutage       = flag.Duration("capacity-outage", 2*time.Second, "how long the partner is away")
	installationBacklog      = flag.Int("capacity-backlog", 3000, "events that come while nothing is folded")
	installationRate         = flag.Float64("capacity-rate", 30, "calls per second for each integration")
)

// installation is a real one: server, worker, partner.
type installation struct {
	*benchSite

	t       *testing.T
	team    *benchTeam
	random  *rand.Rand
	zipf    *rand.Zipf
	down    atomic.Bool
	counts  atomic.Int64 // that the partner took
	events  int          // published so far
	touched map[int]bool // keys that had events
	catalog int          // keys that are no counts
}

// ServeHTTP plays the partner: it takes everything after 20 ms, or nothing.
func (i *installation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	answer := time.NewTimer(20 * time.Millisecond)
	defer answer.Stop()
	select {
	case <-answer.C:
	case <-r.Context().Done():
		return
	}
	if i.down.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if path := r.URL.Path; strings.Contains(path, "count") && !strings.Contains(path, "account") {
		i.counts.Add(1)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

// install starts the installation; its partner has the catalog.
func install(ctx context.Context, t *testing.T) *installation {
	t.Helper()
	config, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.PartnerRate, config.PartnerConcurrency, config.RetryMin, config.LogLevel = *installationRate, 16, 100*time.Millisecond, "error"
	load := benchLoad{Keys: *installationIntegrations * *installationKeys, Integrations: *installationIntegrations, EventBytes: 300, Partitions: 8}
	s, err := openBenchSite(ctx, t.TempDir(), config, lazySync, load)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	random := rand.New(rand.NewPCG(1, 1))
	i := &installation{benchSite: s, t: t, random: random, zipf: rand.NewZipf(random, 1.1, zipfShift, uint64(*installationKeys-1)), touched: map[int]bool{}}
	partner := httptest.NewServer(i)
	t.Cleanup(partner.Close)
	vendor, err := s.vendor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := s.integrate(ctx, vendor, partner.URL)
	if err != nil {
		t.Fatal(err)
	}
	if i.team, err = s.team(ctx, vendor, 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.team.stop(); err != nil {
			t.Error(err)
		}
	})
	if i.catalog = len(catalog); i.team.post(ctx, catalog) != nil {
		t.Fatal("the partner did not get the catalog")
	}
	return i
}

// publish publishes so many events in so much time, evenly.
func (i *installation) publish(ctx context.Context, events int, within time.Duration) {
	i.t.Helper()
	js, err := jetstream.New(i.broker.Conn(), jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		i.t.Fatal(err)
	}
	begun, started := time.Now().Add(-time.Hour), time.Now()
	for n := range events {
		if due := time.Duration(float64(n) / float64(events) * float64(within)); n%50 == 0 {
			select {
			case <-time.After(due - time.Since(started)):
			case <-ctx.Done():
				i.t.Fatal(ctx.Err())
			}
		}
		key := i.random.IntN(*installationIntegrations)**installationKeys + int(i.zipf.Uint64())
		i.events++
		i.touched[key] = true
		e := i.load.event(i.team.vendor, key, i.events, begun)
		if _, err := js.PublishAsync(e.Subject().String(), e.Structured(), jetstream.WithStallWait(10*time.Second)); err != nil {
			i.t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		i.t.Fatal(ctx.Err())
	}
}

// folded waits until the log is folded: what is folded later would be called for
// a second time.
func (i *installation) folded(ctx context.Context) {
	i.t.Helper()
	err := until(ctx, "everything is folded", func() bool {
		left, err := i.broker.Backlog(ctx, i.team.vendor)
		return err == nil && left == 0
	})
	if err != nil {
		i.t.Fatal(err)
	}
}

// arrives is how long it takes until the partner has every figure.
func (i *installation) arrives(ctx context.Context) time.Duration {
	i.t.Helper()
	started := time.Now()
	err := until(ctx, "every count is at the partner", func() bool {
		left, err := i.broker.Backlog(ctx, i.team.vendor)
		return err == nil && left == 0 && i.team.synced() >= i.catalog+len(i.touched)
	})
	if err != nil {
		i.t.Fatalf("%v: %d of %d keys are there", err, i.team.synced()-i.catalog, len(i.touched))
	}
	return time.Since(started)
}

// model is the model of the installation. The built-in costs are another
// machine's, but what is compared is not up to them.
func (i *installation) model(events float64, outage time.Duration) *capacityModel {
	i.t.Helper()
	costs, err := loadCosts("")
	if err != nil {
		i.t.Fatal(err)
	}
	costs.NATSShare = 0 // all of it is in this process
	d := &capacityDemand{
		Integrations: *installationIntegrations, Keys: *installationKeys, Events: events, EventBytes: 300, Distribution: "zipf:1.1",
		Rate: *installationRate, Concurrency: 16, Latency: 0.02, Hosts: 1, Outage: outage.Seconds(), Vendors: 1, Partitions: 8, Replicas: 1,
		Workers: 1, Cores: float64(runtime.GOMAXPROCS(0)), Linger: 0.2, LeaseTTL: 15, RetryMin: 0.1, Seed: 1,
	}
	m, err := newCapacityModel(d, &costs)
	if err != nil {
		i.t.Fatal(err)
	}
	return m
}

// reckon simulates the outage, after which no events come any more, with the
// layout that the installation has.
func (i *installation) reckon(m *capacityModel, ofPartner bool) (fold, seconds, calls float64) {
	s := newDrainSim(m, drawLayout(m.d, 8, 1, i.random), 1, ofPartner)
	s.quiet = true
	_, about := m.drainFormula(s.l, 1, ofPartner)
	if math.IsInf(about, 1) { // as it would be if events went on coming
		about = m.d.Outage + 60
	}
	s.run(about)
	return s.fold, s.ended(), s.calls
}

// near complains when what was measured is below or above what was reckoned by
// more than these shares of it. Other programs on the machine can only make
// things slower: so much more is allowed.
func near(t *testing.T, what string, measured, reckoned, below, above, slack float64) {
	t.Helper()
	t.Logf("%-28s reckoned %9.2f   measured %9.2f   deviation %+.0f %%", what, reckoned, measured, 100*(measured/reckoned-1))
	if measured < reckoned*(1-below) || measured > reckoned*(1+above)+slack {
		t.Errorf("%s: measured %.2f, reckoned %.2f: want it no more than %.0f %% below, %.0f %% and %.1f above", what, measured, reckoned, 100*below, 100*above, slack)
	}
}

func TestCapacityAnInstallationComesBackFromOutagesAsReckoned(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	i := install(ctx, t)

	// The partner is away; events go on, and are folded.
	if _, err := i.team.release(ctx); err != nil {
		t.Fatal(err)
	}
	i.down.Store(true)
	events := int(*installationEvents * installationOutage.Seconds())
	i.publish(ctx, events, *installationOutage)
	i.folded(ctx)
	i.down.Store(false)
	took := i.arrives(ctx)
	m := i.model(*installationEvents, *installationOutage)
	_, seconds, calls := i.reckon(m, true)
	near(t, "partner: seconds", took.Seconds(), seconds, 0.25, 1, 3)
	near(t, "partner: keys", float64(len(i.touched)), m.dirty.distinct(m.change*m.d.Outage)*float64(m.d.Integrations), 0.1, 0.1, 5)
	near(t, "partner: calls", float64(i.counts.Load()), calls, 0.15, 0.15, 10)

	// Nothing is folded for a while.
	if err := i.team.halt(ctx); err != nil {
		t.Fatal(err)
	}
	before := i.counts.Load()
	i.publish(ctx, *installationBacklog, 0)
	released := time.Now()
	folded, err := i.team.release(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i.arrives(ctx)
	m = i.model(float64(*installationBacklog), time.Second)
	back := time.Since(released).Seconds()
	fold, seconds, calls := i.reckon(m, false)
	t.Logf("of that the fold              reckoned %9.2f   measured %9.2f", fold, folded.Seconds()) // on a processor that is not the built-in costs'
	near(t, "bridge: seconds", back, seconds, 0.25, 1, 3)
	near(t, "bridge: calls", float64(i.counts.Load()-before), calls, 0.3, 0.3, 10)

	vendors, err := i.broker.Vendors(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v := vendors[slices.IndexFunc(vendors, func(v broker.Vendor) bool { return v.Name == i.team.vendor })]
	near(t, "log: bytes of an event", float64(v.Bytes)/float64(v.Messages), 300+92, 0.1, 0.1, 0)
}
