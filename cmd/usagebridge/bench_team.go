package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// benchTeam is workers in this process that share the partitions of one vendor.
type benchTeam struct {
	site       *benchSite
	vendor     string
	engines    []*engine
	registries []*prometheus.Registry // of the engines
	cancel     context.CancelFunc
	running    *errgroup.Group
	closing    []func()
	stopped    sync.Once
	fault      error
}

// team starts workers on a vendor whose events are not folded yet, and waits
// until they have shared its partitions.
func (s *benchSite) team(ctx context.Context, vendor string, workers int) (*benchTeam, error) {
	t := &benchTeam{site: s, vendor: vendor}
	if err := t.halt(ctx); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	t.running, running = errgroup.WithContext(running)
	for n := range workers {
		if err := t.hire(running, n); err != nil {
			return nil, errors.Join(err, t.stop())
		}
	}
	if err := until(ctx, "the partitions are shared", t.shared); err != nil {
		return nil, errors.Join(err, t.stop())
	}
	return t, nil
}

// hire starts one worker with a connection of its own.
func (t *benchTeam) hire(ctx context.Context, n int) error {
	b, err := broker.Connect(ctx, broker.Config{URL: t.site.config.NATSURL, Name: "usagebridge bench", Logger: t.site.log})
	if err != nil {
		return err
	}
	t.closing = append(t.closing, b.Close)
	a := &app{config: t.site.config, log: t.site.log, broker: b}
	a.config.WorkerID = "bench-" + strconv.Itoa(n)
	registry := newRegistry()
	e, err := newEngine(ctx, a, registry)
	if err != nil {
		return err
	}
	t.registries = append(t.registries, registry)
	t.engines = append(t.engines, e)
	t.running.Go(func() error { return e.worker.Run(ctx) })
	t.running.Go(func() error { return e.rules.run(ctx) })
	return nil
}

// shared says whether every partition is loaded by its owner, and every worker
// has its share.
func (t *benchTeam) shared() bool {
	total, least := 0, t.site.load.Partitions/len(t.engines)
	for _, registry := range t.registries {
		owned := seriesSum(registry, "usagebridge_partition_owned", t.vendor)
		if owned < least {
			return false
		}
		total += owned
	}
	return total == t.site.load.Partitions
}

// halt has no more events folded.
func (t *benchTeam) halt(ctx context.Context) error {
	err := t.site.changeVendor(ctx, t.vendor, func(r *vendorRecord) error {
		r.Stopped = &stop{By: "bench", Why: "until the clock starts", At: time.Now().UTC()}
		return nil
	})
	if err != nil {
		return err
	}
	return until(ctx, "nothing is folded", func() bool {
		return !slices.ContainsFunc(t.engines, func(e *engine) bool { return !e.worker.Stopped(t.vendor) })
	})
}

// release has the log folded, and says how long that took.
func (t *benchTeam) release(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	if err := t.site.changeVendor(ctx, t.vendor, func(r *vendorRecord) error { r.Stopped = nil; return nil }); err != nil {
		return 0, err
	}
	var failed error
	err := until(ctx, "everything is folded", func() bool {
		left, err := t.site.broker.Backlog(ctx, t.vendor)
		failed = err
		return left == 0 || err != nil
	})
	return time.Since(started), errors.Join(err, failed)
}

// link makes the lanes know their partner, or know none.
func (t *benchTeam) link(ctx context.Context, known bool) error {
	list, err := t.site.listIntegrations(ctx)
	if err != nil {
		return err
	}
	for _, e := range t.engines {
		for i := range list {
			link := delivery.Link{}
			if known {
				link = e.link(&list[i])
			}
			e.worker.SetLink(list[i].Vendor, list[i].Organization, link)
		}
	}
	return nil
}

// synced is how many keys of the first worker the partner has as desired.
func (t *benchTeam) synced() int {
	return seriesSum(t.registries[0], "usagebridge_ledger_keys", string(ledger.Synced))
}

// seriesSum is the sum of a gauge's series that have the label value.
func seriesSum(registry *prometheus.Registry, metric, label string) (sum int) {
	families, err := registry.Gather()
	if err != nil {
		return 0
	}
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
		for _, m := range family.GetMetric() {
			if slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == label }) {
				sum += int(m.GetGauge().GetValue())
			}
		}
	}
	return sum
}

// stop ends the workers; it may be called again.
func (t *benchTeam) stop() error {
	t.stopped.Do(func() {
		t.cancel()
		t.fault = t.running.Wait()
		for _, end := range t.closing {
			end()
		}
	})
	return t.fault
}

// furnished is a worker whose integrations have a partner that has their
// catalog; nothing more is folded until it is released.
func (s *benchSite) furnished(ctx context.Context, latency time.Duration) (t *benchTeam, partner *benchPartner, err error) {
	if partner, err = startBenchPartner(ctx, latency); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = partner.close()
		}
	}()
	vendor, err := s.vendor(ctx)
	if err != nil {
		return nil, nil, err
	}
	events, err := s.integrate(ctx, vendor, partner.url)
	if err != nil {
		return nil, nil, err
	}
	if t, err = s.team(ctx, vendor, 1); err != nil {
		return nil, nil, err
	}
	if err = t.post(ctx, events); err != nil {
		return nil, nil, errors.Join(err, t.stop())
	}
	return t, partner, nil
}

// integrate adds the integrations of the load, and makes their catalog.
func (s *benchSite) integrate(ctx context.Context, vendor, url string) (catalog []*event.Event, err error) {
	known := map[ledger.Key]bool{}
	integrations := map[string]bool{}
	for n := range s.load.Keys {
		key := s.load.key(n)
		if !integrations[key.Organization] {
			integrations[key.Organization] = true
			err := s.addIntegration(ctx, newIntegration{
				vendor: vendor, organization: key.Organization, dialect: string(vendorapi.MSPCentric), status: "connected", apiURL: url + "/api",
				vendorToken: "bench-vendor-token-" + vendor + key.Organization, partnerToken: "bench-partner-token-" + vendor + key.Organization,
			})
			if err != nil {
				return nil, err
			}
		}
		if account := key.AccountKey(); !known[account] {
			known[account] = true
			catalog = append(catalog, &event.Event{Organization: key.Organization, Data: event.Account{AccountID: key.Account, Name: key.Account}})
		}
		if service := key.ServiceKey(); !known[service] {
			known[service] = true
			catalog = append(catalog, &event.Event{Organization: key.Organization, Data: event.Service{ServiceID: key.Service, Name: key.Service}})
		}
	}
	return catalog, nil
}

// post publishes the catalog, waits until the partner has it, and stops folding.
func (t *benchTeam) post(ctx context.Context, catalog []*event.Event) error {
	p, err := publisher.New(t.site.broker.Conn(), publisher.Config{Vendor: t.vendor, Source: "//bench"})
	if err != nil {
		return err
	}
	if _, err := p.PublishAll(ctx, publisher.Records(slices.Values(catalog)), func(publisher.Result) {}); err != nil {
		return err
	}
	if err := t.link(ctx, true); err != nil {
		return err
	}
	if _, err := t.release(ctx); err != nil {
		return err
	}
	if err := until(ctx, "the partner has the catalog", func() bool { return t.synced() >= len(catalog) }); err != nil {
		return err
	}
	return t.halt(ctx)
}

// benchPartner takes everything after its latency.
type benchPartner struct {
	url     string
	counts  atomic.Int64
	server  *http.Server
	latency time.Duration
}

func startBenchPartner(ctx context.Context, latency time.Duration) (*benchPartner, error) {
	listener, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the partner: %w", err)
	}
	p := &benchPartner{url: "http://" + listener.Addr().String(), latency: latency}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = p.server.Serve(listener) }()
	return p, nil
}

// ServeHTTP accepts whatever is sent.
func (p *benchPartner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if p.latency > 0 {
		<-time.After(p.latency)
	}
	if strings.Contains(r.URL.Path, "count") {
		p.counts.Add(1)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

func (p *benchPartner) close() error { return p.server.Close() }

// bareCalls is how long so many calls to such a partner take with a client that
// does nothing else.
func bareCalls(ctx context.Context, latency time.Duration, calls, inFlight int) (took time.Duration, err error) {
	partner, err := startBenchPartner(ctx, latency)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, partner.close()) }()
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConns: inFlight, MaxIdleConnsPerHost: inFlight, DialContext: (&net.Dialer{}).DialContext, DisableCompression: true,
	}}
	defer client.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(calls))
	group, ctx := errgroup.WithContext(ctx)
	started := time.Now()
	for range inFlight {
		group.Go(func() error {
			for left.Add(-1) >= 0 {
				if err := bareCall(ctx, client, partner.url); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = group.Wait()
	return time.Since(started), err
}

func bareCall(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/vendor-api/count/service-01", strings.NewReader(`{"accountId":"account-00001","unitCount":42}`))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer bench-vendor-token bench-partner-token")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}
