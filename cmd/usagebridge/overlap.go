package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

const (
	// overlapRetry is how often the present credentials are tried while calls
	// go with the previous ones.
	overlapRetry = time.Minute
	// overlapLook is how often a worker looks for overlaps that have ended.
	overlapLook = time.Minute
	// overlapGrace bounds the recording of which credentials are in use.
	overlapGrace = 5 * time.Second
)

// overlap makes calls with the credentials of an integration that the partner
// takes: the present ones or, while these are refused and for a while only, the
// previous ones. Those are tried at once that were taken last, and the others
// if they are refused, within the time of one call: a lease counts on that.
//
// At the rate limit of the lane such a pair is one call. It is made once by
// every call that is under way when the partner changes its mind, and once a
// minute while it takes the previous ones.
type overlap struct {
	present, previous *vendorapi.Client
	until             time.Time
	timeout           time.Duration // of one call
	// record stores which credentials are in use, before anybody hears of an
	// answer that came with them.
	record func(ctx context.Context, previous bool) error

	mu   sync.Mutex
	used bool      // calls go with the previous ones
	next time.Time // when the present ones are tried again
}

// call makes a call with the first credentials that the partner takes.
func (o *overlap) call(ctx context.Context, do func(context.Context, *vendorapi.Client) delivery.Answer) delivery.Answer {
	previous, alone := o.first(time.Now())
	if alone {
		return do(ctx, o.present)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	a := do(ctx, o.client(previous))
	if a.Class != delivery.Unauthorized {
		if previous {
			return a // as before; whoever has changed that meanwhile sends it again
		}
		return o.taken(ctx, a, previous)
	}
	b := do(ctx, o.client(!previous))
	if b.Class != delivery.Unauthorized && b.Class != delivery.Suspected {
		return o.taken(ctx, b, !previous)
	}
	if previous { // of the present ones the lane has to hear
		return b
	}
	return a
}

func (o *overlap) client(previous bool) *vendorapi.Client {
	if previous {
		return o.previous
	}
	return o.present
}

// first says with which credentials to begin, and whether there are no others
// any more. Of the calls that are under way one alone tries the present ones.
func (o *overlap) first(now time.Time) (previous, alone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !now.Before(o.until) {
		return false, true
	}
	if o.used && !now.Before(o.next) {
		o.next = now.Add(overlapRetry)
		return false, false
	}
	return o.used, false
}

// taken notes which credentials an answer proves good. What cannot be recorded
// must not count as delivered: the figure is sent again.
func (o *overlap) taken(ctx context.Context, a delivery.Answer, previous bool) delivery.Answer {
	proven := a.Class == delivery.Accepted || a.Class == delivery.NotFound || a.Class == delivery.NotReady
	if !proven || a.Status == 0 {
		return a
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.used == previous {
		return a
	}
	recording, cancel := context.WithTimeout(context.WithoutCancel(ctx), overlapGrace)
	defer cancel()
	if err := o.record(recording, previous); err != nil {
		return delivery.Answer{Class: delivery.Unavailable, Message: "which credentials are in use could not be recorded: " + err.Error(), At: a.At, Duration: a.Duration}
	}
	o.used, o.next = previous, time.Now().Add(overlapRetry)
	return a
}

// overlap is nil when the record has no previous credentials that may be used.
func (e *engine) overlap(i *status.Integration, present *vendorapi.Client) *overlap {
	if !i.Overlapping(time.Now()) {
		return nil
	}
	p := i.Previous
	previous, err := e.clientOf(i, p.APIURL, p.VendorToken, p.PartnerToken)
	if err != nil {
		e.app.log.Warn("previous credentials cannot be used", "vendor", i.Vendor, "organization", i.Organization, "err", err)
		return nil
	}
	under := *i // as the link has it
	return &overlap{
		present: present, previous: previous, until: p.Until, timeout: e.app.config.PartnerTimeout,
		used: !p.Used.IsZero(), next: time.Now().Add(overlapRetry),
		record: func(ctx context.Context, previous bool) error {
			return e.inUse(ctx, &under, previous)
		},
	}
}

// What the audit log calls the ways of an overlap.
const (
	previousUsed    = "previous credentials in use"
	presentUsed     = "new credentials in use"
	previousDropped = "previous credentials dropped"
)

// inUse records which credentials of an integration the partner takes, by an
// answer to a call that was made under a record.
func (e *engine) inUse(ctx context.Context, under *status.Integration, previous bool) error {
	what, why := presentUsed, "the partner takes the new credentials"
	if previous {
		what, why = previousUsed, "the partner refuses the new credentials, and takes the previous ones"
	}
	return e.changeCredentials(ctx, under.Vendor, under.Organization, what, why, func(i *status.Integration, o status.Observation) (t status.Transition, changed bool) {
		switch {
		case i.Credentials != under.Credentials || i.Generation != under.Generation:
			return t, false // what went with that call is sent again anyway
		case previous:
			return t, i.UsePrevious(o)
		}
		return i.UsePresent(o)
	})
}

var errNoChange = errors.New("nothing to change")

// changeCredentials changes the credentials of a record in the name of this
// worker, and puts that on record.
func (e *engine) changeCredentials(ctx context.Context, vendor, organization, what, why string,
	change func(*status.Integration, status.Observation) (status.Transition, bool),
) error {
	o := status.Observation{At: time.Now().UTC(), Message: why, Actor: "worker " + e.app.config.WorkerID}
	var transition status.Transition
	var detail string
	_, err := e.integrations.Update(ctx, broker.IntegrationKey(vendor, organization), func(i *status.Integration) error {
		previous := i.Previous
		var changed bool
		if transition, changed = change(i, o); !changed {
			return errNoChange
		}
		detail = "present " + marksOf(i.Marks) + "; previous " + marksOf(previous.Marks)
		return nil
	})
	if errors.Is(err, errNoChange) {
		return nil
	}
	if err != nil {
		return err
	}
	e.app.log.Info("credentials changed", "vendor", vendor, "organization", organization, "what", what, "why", why)
	recorded := e.app.audit(ctx, action{Actor: o.Actor, Action: what, Integration: vendor + "/" + organization, Why: why, Detail: detail, At: o.At})
	if transition.Recorded() {
		recorded = errors.Join(recorded, status.Record(ctx, statusLog{e.app.broker}, vendor, organization, o.At, transition))
	}
	if recorded != nil {
		e.app.log.Error("credentials changed, and that is not on record", "vendor", vendor, "organization", organization, "what", what, "err", recorded)
	}
	return nil
}

// endOverlaps drops previous credentials whose time is over, until ctx ends.
func (e *engine) endOverlaps(ctx context.Context) {
	tick := time.NewTicker(overlapLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.endOverlapsNow(ctx); err != nil && ctx.Err() == nil {
			e.app.log.Warn("previous credentials not dropped, trying again", "err", err)
		}
	}
}

// endOverlapsNow is one round, over the integrations of this worker.
func (e *engine) endOverlapsNow(ctx context.Context) error {
	var errs []error
	for _, key := range e.overlapsOver(time.Now()) {
		vendor, organization, err := broker.ParseIntegrationKey(key)
		if err != nil || !e.worker.Owns(vendor, organization) {
			continue // one that cannot be read was never learnt
		}
		errs = append(errs, e.changeCredentials(ctx, vendor, organization, previousDropped, "their overlap is over",
			func(i *status.Integration, o status.Observation) (status.Transition, bool) { return i.EndOverlap(o) }))
	}
	return errors.Join(errs...)
}

// overlapsOver are the keys of the records whose overlap is over.
func (e *engine) overlapsOver(now time.Time) (keys []string) {
	e.linking.Lock()
	defer e.linking.Unlock()
	for key, end := range e.ends {
		if !now.Before(end) {
			keys = append(keys, key)
		}
	}
	return keys
}
