package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

const (
	// maxOnboardings is how many onboardings a worker drives at once.
	maxOnboardings = 4
	// onboardLook is how often a worker looks for an onboarding that goes on.
	onboardLook = time.Second
	// onboardRetryMin and onboardRetryMax bound the wait after one that did not.
	onboardRetryMin = time.Second
	onboardRetryMax = 15 * time.Minute
	// onboardSetup is how often a worker on a store of an older version looks
	// whether it has been upgraded.
	onboardSetup = 10 * time.Second
)

// onboardings takes requests for integrations, and drives the open onboardings of
// this worker's partitions, until ctx ends. Nothing that goes wrong here ends the
// worker: figures are delivered all the same. A worker that knows no client of the
// OEM-API leaves all of it to others.
func (e *engine) onboardings(ctx context.Context) {
	if e.app.config.OEMClientID == "" {
		return
	}
	said := false
	for ctx.Err() == nil {
		err := e.onboard(ctx)
		if ctx.Err() != nil {
			return
		}
		old := errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
		if !old || !said {
			e.app.log.Warn("onboardings are not driven", "try", "usagebridge init --vendor NAME", "err", err)
		}
		said = said || old
		select {
		case <-ctx.Done():
		case <-time.After(onboardSetup):
		}
	}
}

// onboard is onboardings until something goes wrong.
func (e *engine) onboard(ctx context.Context) error {
	o, err := e.app.onboarderWith(ctx, e.vault)
	if err != nil {
		return err
	}
	defer o.close()
	c := &onboardCrew{engine: e, onboarder: o, records: map[string]onboarding.Record{}, again: map[string]*onboardAgain{}, working: map[string]bool{}}
	group, ctx := errgroup.WithContext(ctx)
	if e.app.config.OEMAPIURL != "" {
		group.Go(func() error { return e.app.broker.Requests(ctx, o.request) })
	}
	group.Go(func() error { return o.bucket.Watch(ctx, c.learn) })
	group.Go(func() error {
		ticker := time.NewTicker(onboardLook)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				c.running.Wait()
				return ctx.Err()
			case <-ticker.C:
				c.begin(ctx, time.Now())
			}
		}
	})
	return group.Wait()
}

// onboardCrew drives the onboardings of one worker.
type onboardCrew struct {
	engine    *engine
	onboarder *onboarder
	running   sync.WaitGroup

	mu      sync.Mutex
	records map[string]onboarding.Record // as the bucket has them
	again   map[string]*onboardAgain     // of those that did not go on
	working map[string]bool
}

// onboardAgain is when an onboarding is tried again.
type onboardAgain struct {
	at   time.Time
	wait *backoff.ExponentialBackOff
}

// learn keeps the records equal to the bucket.
func (c *onboardCrew) learn(key string, r *onboarding.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r == nil {
		delete(c.records, key)
		delete(c.again, key)
		return nil
	}
	c.records[key] = *r
	return nil
}

// begin takes onboardings that go on and that nobody drives.
func (c *onboardCrew) begin(ctx context.Context, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(c.records)) {
		r := c.records[key]
		waits := c.again[key] != nil && now.Before(c.again[key].at)
		if c.working[key] || waits || len(c.working) == maxOnboardings || !drivable(&r, now) || !c.engine.worker.Owns(r.Vendor, r.Organization) {
			continue
		}
		c.working[key] = true
		c.running.Go(func() { c.drive(ctx, key, &r) })
	}
}

// drivable says whether a worker should go on with an onboarding. What a person is
// at, or was a moment ago, is left to that person; what an event asked for is ours.
func drivable(r *onboarding.Record, now time.Time) bool {
	open := r.State(now) == onboarding.Open || r.Registered() && len(r.Untold()) > 0
	return open && (r.Idle(now) || r.Source == askedByEvent)
}

// drive goes on with one onboarding as far as it goes now.
func (c *onboardCrew) drive(ctx context.Context, key string, r *onboarding.Record) {
	log := c.engine.app.log.With("vendor", r.Vendor, "organization", r.Organization)
	moved, err := c.onboarder.drive(ctx, r.Vendor, r.Organization, driving{
		actor: "worker " + c.engine.app.config.WorkerID,
		moved: func(m onboarding.Moved) {
			log.Info("onboarding went on", "step", string(m.Step), "action", string(m.Action))
		},
		waiting: func(error, time.Duration) {},
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.working, key)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		delete(c.again, key)
		c.records[key] = moved.Record // sooner than the watch tells, or it would be taken again
		return
	}
	again := c.again[key]
	if again == nil {
		again = &onboardAgain{wait: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(onboardRetryMin), backoff.WithMaxInterval(onboardRetryMax), backoff.WithMaxElapsedTime(0))}
		c.again[key] = again
	}
	wait := again.wait.NextBackOff()
	if why, ok := errors.AsType[*onboarding.Error](err); ok {
		wait = max(wait, why.Wait)
	}
	again.at = time.Now().Add(wait)
	log.Warn("onboarding does not go on", "step", string(moved.Step), "wait_seconds", wait.Seconds(), "err", err)
}

// request takes one event that asks for an integration: it is recorded before it
// is acknowledged, and driven by whoever has the integration. What can never be
// done is parked. Who asks by an event brings no secret: the vendor token is that
// of another integration of the vendor, and one without any waits for its first.
func (o *onboarder) request(ctx context.Context, m event.Message) error {
	q, fault := event.DecodeRequest(m, o.app.config.limits())
	if fault != nil {
		return o.park(ctx, &m, nil, fault)
	}
	apiURL := strings.TrimRight(o.app.config.OEMAPIURL, "/")
	asks := &asked{
		Request: onboarding.Request{
			Vendor: q.Vendor, Organization: q.Organization, OrganizationName: q.OrganizationName, Email: q.Email, FirstName: q.FirstName, LastName: q.LastName,
			VendorUserID: q.VendorUserID, PlatformVendor: q.PlatformVendorID, Kind: onboarding.External, APIURL: apiURL,
		},
		source: askedByEvent, actor: "event " + q.ID, event: q.Source + " " + q.ID,
	}
	known, _, err := o.bucket.Get(ctx, broker.IntegrationKey(q.Vendor, q.Organization))
	switch {
	case err == nil && known.Event == asks.event:
		return nil // once more
	case err == nil:
		if err := known.Same(asks.Request); err != nil {
			return o.park(ctx, &m, q, &event.Fault{Reason: event.ReasonConflict, Problem: err.Error(), Want: "the values with which it has begun, or another organization"})
		}
		return nil
	case !errors.Is(err, broker.ErrNotFound):
		return err
	}
	_, err = o.ask(ctx, asks)
	if usage, ok := errors.AsType[usageError](err); ok {
		return o.park(ctx, &m, q, &event.Fault{Reason: event.ReasonInvalid, Problem: usage.Error()})
	}
	return err
}

// park makes a dead letter of a request.
func (o *onboarder) park(ctx context.Context, m *event.Message, q *event.Request, fault *event.Fault) error {
	l := event.Letter{Fault: *fault, Original: *m, Worker: o.app.config.WorkerID, Parked: time.Now()}
	tokens := strings.Split(m.Subject, ".") // the stream takes no others: integration.v1.{vendor}.{organization}.requested
	l.Vendor, l.Organization = tokens[2], event.OrganizationOf(m.Subject)
	if vendor, err := event.Unescape(tokens[2]); err == nil {
		l.Vendor = vendor
	}
	if q != nil {
		l.EventID, l.Source, l.Key = q.ID, q.Source, m.Subject
	}
	o.app.log.Warn("request for an integration parked", "vendor", l.Vendor, "organization", l.Organization, "reason", string(fault.Reason), "pointer", fault.Pointer)
	return o.app.broker.Park(ctx, []event.Letter{l})
}
