package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

// setupPoll is how often a worker looks whether anything has been set up.
const setupPoll = 2 * time.Second

// runWith works until ctx ends and serves HTTP on the listener meanwhile.
func (e *engine) runWith(ctx context.Context, listener net.Listener, registry *prometheus.Registry) error {
	secret, err := e.app.listenerSecret("INFORM_SECRET_FILE", e.app.config.InformSecretFile)
	if err != nil {
		return err
	}
	token, err := e.app.listenerSecret("API_TOKEN_FILE", e.app.config.APITokenFile)
	if err != nil {
		return err
	}
	served := console.New(console.Config{
		Gatherer:   registry,
		Registerer: registry,
		Ready:      e.ready,
		Publish:    (&ingest{app: e.app, publishers: map[string]*publisher.Publisher{}}).publish,
		Limits:     e.app.config.limits(),
		Logger:     e.app.log,

		Inform:       e.app.inform,
		InformSecret: secret,
		APIToken:     token,
		Onboard:      e.app.onboardByAPI,
		Onboardings:  e.app.tellOnboardings,
		Tracer:       e.app.tracer,
	})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.run(ctx) })
	group.Go(func() error { return served.Serve(ctx, listener) })
	return group.Wait()
}

// ready says why the worker cannot do its work now, if so.
func (e *engine) ready() error {
	if !e.app.broker.Conn().IsConnected() {
		return errNotConnected
	}
	return e.worker.Ready()
}

var errNotConnected = errors.New("not connected to NATS")

// listenerSecret is the secret in the file that a variable names, "" when there is
// none: of the webhook's address, or of the API.
func (a *app) listenerSecret(variable, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	secret, err := readSecretFile(path)
	if err != nil {
		return "", usagef("%s_%s: %w", envPrefix, variable, err)
	}
	return secret, nil
}

// inform passes a hint of the partner on to whichever worker it concerns. It
// is not believed: it only makes probes due.
func (a *app) inform(ctx context.Context, h console.Hint) error {
	a.log.Info("inform hint", "vendor", h.Vendor, "organization", h.Organization, "accounts", len(h.Accounts), "active", h.Active)
	if h.Organization == "" {
		// Only the platform's id, which we know once an answer has named it.
		list, err := a.listIntegrations(ctx)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(list, func(i status.Integration) bool { return i.Vendor == h.Vendor && i.IntegrationID == h.Integration })
		if at < 0 {
			return nil // none of ours, as far as anybody knows
		}
		h.Organization = list[at].Organization
	}
	return a.broker.PublishHint(ctx, broker.Hint{Vendor: h.Vendor, Organization: h.Organization, Accounts: h.Accounts})
}

// ingest publishes what comes over HTTP, as any publisher would.
type ingest struct {
	app        *app
	mu         sync.Mutex
	publishers map[string]*publisher.Publisher // by vendor
}

func (i *ingest) publish(ctx context.Context, e *event.Event) (console.Receipt, error) {
	if !i.app.broker.Conn().IsConnected() {
		return console.Receipt{}, errNotConnected // at once: the client can decide what to do meanwhile
	}
	p, err := i.publisher(ctx, e.Vendor)
	if err != nil {
		return console.Receipt{}, err
	}
	ack, err := p.Publish(ctx, e)
	if errors.Is(err, publisher.ErrTooLarge) || errors.Is(err, publisher.ErrDenied) {
		err = permanent{err}
	}
	return console.Receipt{Stream: ack.Stream, Sequence: ack.Sequence, Duplicate: ack.Duplicate}, err
}

// permanent marks what trying again does not mend.
type permanent struct{ error }

// Permanent is true.
func (permanent) Permanent() bool { return true }

func (p permanent) Unwrap() error { return p.error }

// publisher is the publisher of a vendor that is set up; one that anybody
// makes up gets none.
func (i *ingest) publisher(ctx context.Context, vendor string) (*publisher.Publisher, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.publishers[vendor]; p != nil {
		return p, nil
	}
	if _, err := i.app.broker.Vendor(ctx, vendor); err != nil {
		if errors.Is(err, broker.ErrNoVendor) {
			err = permanent{err}
		}
		return nil, err
	}
	p, err := publisher.New(i.app.broker.Conn(), publisher.Config{Vendor: vendor, Source: "//usagebridge/ingest"})
	if err != nil {
		return nil, err
	}
	i.publishers[vendor] = p
	return p, nil
}

// waitForSetup waits until `usagebridge init` has been run once, saying so:
// a worker may well be started first.
func (a *app) waitForSetup(ctx context.Context) error {
	said := false
	for {
		err := a.setUp(ctx)
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			return err
		}
		if !said {
			a.log.Warn("nothing is set up yet, waiting", "try", "usagebridge init --vendor NAME", "err", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the first vendor: %w", ctx.Err())
		case <-time.After(setupPoll):
		}
	}
}

// engineOnceUp makes the engine when everything is set up and NATS answers: a
// worker may well be started while a cluster elects its leaders.
func (a *app) engineOnceUp(ctx context.Context) (*engine, *prometheus.Registry, error) {
	for {
		registry := newRegistry() // one that was half made cannot be used again
		var e *engine
		err := a.waitForSetup(ctx)
		if err == nil {
			e, err = newEngine(ctx, a, registry)
		}
		if err == nil || ctx.Err() != nil || !passing(err) {
			return e, registry, err
		}
		a.log.Warn("NATS does not answer, trying again", "err", err)
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("wait for NATS: %w", ctx.Err())
		case <-time.After(setupPoll):
		}
	}
}

// passing says whether an error of NATS passes by itself.
func passing(err error) bool {
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return false
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.Code == http.StatusServiceUnavailable ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders)
}

// setUp says whether `usagebridge init` has made everything that a worker needs.
func (a *app) setUp(ctx context.Context) error {
	if _, err := a.integrations(ctx); err != nil {
		return err
	}
	if _, err := broker.OpenBucket[vendorRecord](ctx, a.broker, broker.BucketVendors); err != nil {
		return err
	}
	if _, err := broker.OpenBucket[decision](ctx, a.broker, broker.BucketDecisions); err != nil {
		return err
	}
	_, err := broker.OpenBucket[struct{}](ctx, a.broker, broker.BucketReplays)
	return err
}
