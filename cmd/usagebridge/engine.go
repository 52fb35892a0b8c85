package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/consumers/catalog"
	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/consumers/usage"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// engine is one worker with everything it needs: this is where the packages
// are put together.
type engine struct {
	app          *app
	worker       *worker.Worker
	integrations *broker.Bucket[status.Integration]
	vault        *vault.Vault
	transport    http.RoundTripper
	tracker      *status.Tracker
	statuses     *status.Metrics
	roster       *status.Roster
	rules        *rulebook
	survey       *survey

	linking sync.Mutex                // guards what follows, and the order of links
	hosts   map[string]*delivery.Host // by scheme and host
	closed  map[string]bool           // keys of the records whose tokens cannot be opened
	ends    map[string]time.Time      // of the overlaps of credentials, by the record's key
}

// idleConnections is how many connections to one server wait for a next call:
// enough for the lanes of a thousand integrations, which take turns. With fewer
// nearly every call would dial.
const idleConnections = 1024

func newEngine(ctx context.Context, a *app, registry prometheus.Registerer) (*engine, error) {
	integrations, err := a.integrations(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := a.vault(ctx)
	if err != nil {
		return nil, err
	}
	ttl, err := a.leaseTTL(ctx)
	if err != nil {
		return nil, err
	}
	e := &engine{app: a, integrations: integrations, vault: keys, transport: a.transport()}
	if err := e.checkKeys(ctx); err != nil {
		return nil, err
	}
	e.hosts, e.closed, e.ends = map[string]*delivery.Host{}, map[string]bool{}, map[string]time.Time{}
	e.statuses = status.NewMetrics(registry)
	e.roster = status.NewRoster(e.statuses, func(vendor, organization string) bool { return e.worker.Owns(vendor, organization) })
	e.tracker = status.NewTracker(statusRecords{integrations}, statusLog{a.broker}, "worker "+a.config.WorkerID, e.statuses, a.log)
	e.worker = worker.New(worker.Config{
		ID:          a.config.WorkerID,
		Backend:     backend(a, e.note),
		Meanings:    meanings(),
		Limits:      a.config.limits(),
		Delivery:    deliveryConfig(a.config),
		CallTimeout: a.config.PartnerTimeout,
		LeaseTTL:    ttl,
		Signal:      e.tracker.Observe,
		Metrics:     worker.NewMetrics(registry),

		ShownOrganizations: a.config.MetricsOrganizations,
		Logger:             a.log,
		Tracer:             a.tracer,

		SnapshotPatience: a.config.SnapshotPatience,
		DeadShare:        a.config.DeadLetterShare,
		LagWait:          a.config.LagWait,
		Rules:            a.config.rules(nil, nil),
		Flooded:          func(vendor string, f worker.Flood) { e.rules.flooded(vendor, f) },
	})
	if e.rules, err = newRulebook(ctx, e); err != nil {
		return nil, err
	}
	e.survey = newSurvey(a, e.worker.Owned, e.rules.cutoffs)
	if err := registry.Register(e.survey); err != nil {
		return nil, fmt.Errorf("register the gauges of NATS: %w", err)
	}
	return e, nil
}

// transport carries the calls of all integrations.
func (a *app) transport() http.RoundTripper {
	if a.tracer == nil {
		return punctual{vendorapi.NewTransport(idleConnections)}
	}
	return punctual{tracedTransport{vendorapi.NewTransport(idleConnections)}}
}

// leaseTTL is how long leases live in this store, which the configuration has
// to fit.
func (a *app) leaseTTL(ctx context.Context) (time.Duration, error) {
	ttl, err := a.broker.LeaseTTL(ctx)
	if err != nil {
		return 0, err
	}
	if err := worker.CheckTimes(a.config.PartnerTimeout, ttl); err != nil {
		return 0, usagef("%s_PARTNER_TIMEOUT: %w (`usagebridge init --lease-ttl`)", envPrefix, err)
	}
	return ttl, nil
}

func deliveryConfig(c Config) delivery.Config {
	d := delivery.Config{
		Rate:        c.PartnerRate,
		Concurrency: c.PartnerConcurrency,
		Linger:      c.Linger,
		RetryMin:    c.RetryMin,
		RetryMax:    c.RetryMax,
		Attempts:    c.PartnerAttempts,
		ProbeMin:    c.ProbeMin,
		ProbeMax:    c.ProbeMax,
		Flood:       c.FloodLimit,
		Reassert:    c.ReassertAfter,
	}
	if c.FloodLimit == 0 {
		d.Flood = -1 // never, where 0 means the default
	}
	if c.Linger == 0 {
		d.Linger = -1 // none, where 0 means the default
	}
	return d
}

// meanings is what each type of event does to the ledger.
func meanings() map[string]worker.Meaning {
	return map[string]worker.Meaning{
		event.TypeCount:    usage.Count,
		event.TypeSnapshot: usage.Snapshot,
		event.TypeAccount:  catalog.Account,
		event.TypeService:  catalog.Service,
	}
}

// backend fits the broker to what a worker stands on; note is what the worker
// tells the others of itself.
func backend(a *app, note func() json.RawMessage) worker.Backend {
	return worker.Backend{
		Vendors: func(ctx context.Context) ([]worker.Vendor, error) {
			found, err := a.broker.Vendors(ctx)
			if err != nil {
				return nil, err
			}
			vendors := make([]worker.Vendor, len(found))
			for i, v := range found {
				vendors[i] = worker.Vendor{Name: v.Name, Partitions: v.Partitions}
			}
			return vendors, nil
		},
		Lease: func(ctx context.Context, vendor string, partition int) (worker.Lease, error) {
			l, err := a.broker.Lease(ctx, vendor, partition, a.config.WorkerID)
			if err != nil {
				return nil, leased(err)
			}
			return lease{l}, nil
		},
		Member: func(ctx context.Context) (worker.Lease, error) {
			l, err := a.broker.Member(ctx, a.config.WorkerID, note)
			if err != nil {
				return nil, leased(err)
			}
			return lease{l}, nil
		},
		Watch: func(ctx context.Context, view worker.View) error {
			claim := func(vendor string, partition int, id string) worker.Claim {
				return worker.Claim{Vendor: vendor, Partition: partition, Worker: id}
			}
			return a.broker.WatchLeases(ctx, broker.LeaseWatch{
				Held:     func(vendor string, partition int, id string) { view.Held(claim(vendor, partition, id)) },
				Gone:     func(vendor string, partition int, id string) { view.Gone(claim(vendor, partition, id)) },
				Complete: view.Complete,
			})
		},
		Source: func(ctx context.Context, vendor string, partition int) (worker.Source, error) {
			return a.broker.Source(ctx, vendor, partition, broker.SourceConfig{MaxBatch: a.config.FoldBatch, MaxWait: a.config.FoldWait})
		},
		Store:     func(vendor string) worker.Store { return together{a.broker.Ledger(vendor)} },
		Records:   a.broker,
		Partition: broker.Partition,
	}
}

// together loads the partitions that a worker takes at the same time at once.
type together struct{ *broker.LedgerStore }

// Load reads a partition (worker.Store).
func (t together) Load(ctx context.Context, partition int, yield func(ledger.Entry) error) error {
	return t.LoadTogether(ctx, partition, yield)
}

// lease puts the broker's errors into the worker's words.
type lease struct{ *broker.Lease }

// Renew keeps the lease for another while.
func (l lease) Renew(ctx context.Context) error { return leased(l.Lease.Renew(ctx)) }

func leased(err error) error {
	if errors.Is(err, broker.ErrLeased) || errors.Is(err, broker.ErrLeaseLost) {
		return fmt.Errorf("%w: %w", worker.ErrLeased, err)
	}
	return err
}

// run works until ctx ends, then stops gracefully.
func (e *engine) run(ctx context.Context) error {
	statuses, err := newPoll(e)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.worker.Run(ctx) })
	group.Go(func() error { return e.follow(ctx) })
	group.Go(func() error { return e.rules.run(ctx) })
	group.Go(func() error {
		return e.app.broker.Hints(ctx, func(h broker.Hint) { e.worker.Probe(h.Vendor, h.Organization, h.Accounts...) })
	})
	group.Go(func() error { return e.app.broker.AnswerLanes(ctx, e.describeLane) })
	group.Go(func() error { return e.replays(ctx) })
	group.Go(func() error { e.onboardings(ctx); return nil })
	group.Go(func() error { e.survey.run(ctx); return nil })
	group.Go(func() error { e.followKeys(ctx); return nil })
	group.Go(func() error { e.endOverlaps(ctx); return nil })
	group.Go(func() error { tidyAfterTakeOver(ctx, e.worker.Keys, debug.FreeOSMemory); return nil })
	if statuses != nil {
		group.Go(func() error { return statuses.run(ctx) })
	}
	if e.app.embedded != nil {
		group.Go(func() error { return endWhenStuck(ctx, e.ready) })
	}
	return group.Wait()
}

// follow tells the worker of every integration and of every change to one.
func (e *engine) follow(ctx context.Context) error {
	err := e.integrations.Watch(ctx, func(key string, i *status.Integration) error {
		e.linking.Lock()
		defer e.linking.Unlock()
		e.learn(ctx, key, i)
		return nil
	})
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to stop: what Watch says of it is no news
	}
	return fmt.Errorf("follow integrations: %w", err)
}

// learn tells the worker of one integration as it is now; nil: it is gone.
func (e *engine) learn(ctx context.Context, key string, i *status.Integration) {
	vendor, organization, err := broker.ParseIntegrationKey(key)
	if err != nil {
		e.app.log.Warn("integration with an unreadable key left alone", "key", key, "err", err)
		return // one bad record must not stop the others
	}
	e.statuses.Touch(vendor)
	link := delivery.Link{}
	delete(e.closed, key)
	delete(e.ends, key)
	if i != nil && i.Previous != nil {
		e.ends[key] = i.Previous.Until
	}
	if i == nil {
		e.roster.Remove(vendor, organization)
	} else {
		e.roster.Set(vendor, organization, i.Status)
		e.refresh(ctx, i)
		if link = e.link(i); link.Partner == nil {
			e.closed[key] = true
		}
	}
	e.worker.SetLink(vendor, organization, link)
}

// link makes what a lane must know out of the record. When the tokens cannot
// be opened the lane gets no partner, and holds everything.
func (e *engine) link(i *status.Integration) delivery.Link {
	link := delivery.Link{
		Ready:       i.Status.Ready(),
		Connected:   i.Status == status.Connected && i.Hold == "",
		Setup:       i.Setup(),
		Paused:      i.Paused,
		Credentials: i.Credentials,
		Generation:  i.Generation,
		Host:        e.host(i.APIURL),
		StatusSince: i.Since,
		HoldSince:   i.HoldSince,
		// Known from before a restart or from another worker.
		Unauthorized: i.Hold == string(ledger.Unauthorized),
	}
	client, err := e.client(i)
	if err != nil {
		e.app.log.Error("integration cannot be used", "vendor", i.Vendor, "organization", i.Organization, "err", err)
		return link
	}
	p := partner{client: client, overlap: e.overlap(i, client)}
	link.Partner = p
	if client.Can(vendorapi.Reading) {
		link.Reader = p
	}
	if client.Can(vendorapi.BulkAccounts) {
		link.Bulk = p
	}
	link.DefersBuild = client.Can(vendorapi.DeferredBuild)
	return link
}

// host is what all integrations on the server of an address share.
func (e *engine) host(address string) *delivery.Host {
	u, err := url.Parse(address)
	if err != nil {
		return nil // the client will say what is wrong with it
	}
	name := u.Scheme + "://" + u.Host
	if e.hosts[name] == nil {
		e.hosts[name] = delivery.NewHost(delivery.HostConfig{Rate: e.app.config.PartnerHostRate, Open: 10 * e.app.config.RetryMin})
	}
	return e.hosts[name]
}

func (e *engine) client(i *status.Integration) (*vendorapi.Client, error) {
	return e.clientOf(i, i.APIURL, i.VendorToken, i.PartnerToken)
}

// clientOf makes a client of sealed tokens and the address to which they go.
func (e *engine) clientOf(i *status.Integration, address, sealedVendor, sealedPartner string) (*vendorapi.Client, error) {
	vendorToken, err := e.vault.Open(sealedVendor, i.Name())
	if err != nil {
		return nil, fmt.Errorf("open the vendor token of %s: %w", i.Name(), err)
	}
	partnerToken, err := e.vault.Open(sealedPartner, i.Name())
	if err != nil {
		return nil, fmt.Errorf("open the partner token of %s: %w", i.Name(), err)
	}
	return vendorapi.New(vendorapi.Config{
		BaseURL:     address,
		Dialect:     vendorapi.Dialect(i.Dialect),
		Credentials: vendorapi.NewCredentials(vendorToken.Reveal(), partnerToken.Reveal()),
		Transport:   e.transport,
		Timeout:     e.app.config.PartnerTimeout,
	})
}

// checkKeys refuses to start with a keyset that opens none of the tokens: it
// is the wrong one, and going on would hold every figure without a word.
func (e *engine) checkKeys(ctx context.Context) error {
	all, err := e.integrations.All(ctx)
	if err != nil {
		return fmt.Errorf("list integrations: %w", err)
	}
	var failures []error
	for _, i := range all {
		if _, err := e.client(&i); err != nil {
			failures = append(failures, err)
		}
	}
	if len(all) > 0 && len(failures) == len(all) {
		return usagef("no integration can be used; is %s_MASTER_KEYSET the keyset with which they were added? %w", envPrefix, errors.Join(failures...))
	}
	return nil
}
