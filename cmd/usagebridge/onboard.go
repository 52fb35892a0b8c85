package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/google/uuid"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// onboarder asks for onboardings and drives them.
type onboarder struct {
	app       *app
	bucket    *broker.Bucket[onboarding.Record]
	vault     *vault.Vault
	transport *http.Transport
	driver    *onboarding.Driver
}

// onboardConnections is how many connections to the platform wait for a next call.
const onboardConnections = 2

// onboarder opens what onboardings need for a while; it is to be closed.
func (a *app) onboarder(ctx context.Context) (*onboarder, error) {
	keys, err := a.sealer(ctx)
	if err != nil {
		return nil, err
	}
	return a.onboarderWith(ctx, keys)
}

// onboarderWith is onboarder with a vault that follows the keyset.
func (a *app) onboarderWith(ctx context.Context, keys *vault.Vault) (*onboarder, error) {
	bucket, err := a.onboardings(ctx)
	if err != nil {
		return nil, err
	}
	o := &onboarder{app: a, bucket: bucket, vault: keys, transport: vendorapi.NewTransport(onboardConnections)}
	o.driver = onboarding.NewDriver(o.config())
	return o, nil
}

// config is what the driver works with.
func (o *onboarder) config() onboarding.Config {
	return onboarding.Config{
		Records:     onboardRecords{o.bucket},
		Platform:    func(apiURL string) (onboarding.Platform, error) { return o.app.onboardingAt(apiURL, o.transport) },
		Vault:       o.vault,
		Register:    o.register,
		Audit:       o.app.auditOnboarding,
		Fingerprint: o.vault.Mark,
		Now:         time.Now,
	}
}

func (o *onboarder) close() { o.transport.CloseIdleConnections() }

func (a *app) onboardings(ctx context.Context) (*broker.Bucket[onboarding.Record], error) {
	bucket, err := broker.OpenBucket[onboarding.Record](ctx, a.broker, broker.BucketOnboardings)
	if err != nil {
		return nil, fmt.Errorf("open the onboardings (was the store set up by an older version? run `usagebridge init --vendor NAME`): %w", err)
	}
	return bucket, nil
}

// onboardRecords keeps onboardings in their bucket (onboarding.Records).
type onboardRecords struct {
	bucket *broker.Bucket[onboarding.Record]
}

// Update changes one record by compare-and-set.
func (r onboardRecords) Update(ctx context.Context, vendor, organization string, change func(*onboarding.Record) error) (onboarding.Record, error) {
	return changePatiently(ctx, r.bucket, broker.IntegrationKey(vendor, organization), change)
}

// auditOnboarding puts a step on record. The id is the step's own, so that one that
// is told twice soon after another is there once.
func (a *app) auditOnboarding(ctx context.Context, d onboarding.Deed) error {
	done := action{Actor: d.Actor, Action: "onboarding: " + string(d.Step), Integration: d.Name, Object: string(d.Action), At: d.At}
	if d.Fingerprint != "" {
		done.Detail = "fingerprint " + d.Fingerprint
	}
	return a.auditOnce(ctx, done, fmt.Sprintf("onboarding/%s/%s/%d", d.Name, d.Step, d.At.UnixNano()))
}

// register records an integration that the platform has made, as `integrations
// add` does. One that is there with the same partner token stays as it is.
func (o *onboarder) register(ctx context.Context, g onboarding.Registration) error {
	name := g.Vendor + "/" + g.Organization
	refuse := func(class onboarding.Class, err error) error { return &onboarding.CallError{Class: class, Err: err} }
	if g.VendorToken.IsZero() {
		var err error
		if g.VendorToken, err = o.vendorToken(ctx, g.Vendor, "", g.APIURL); err != nil {
			return refuse(onboarding.NotFound, err)
		}
	}
	err := o.app.addIntegration(ctx, newIntegration{
		vendor: g.Vendor, organization: g.Organization, dialect: string(vendorapi.MSPCentric), apiURL: g.APIURL, status: string(status.Inactive),
		vendorToken: g.VendorToken.Reveal(), partnerToken: g.PartnerToken.Reveal(), oemToken: g.OEMToken.Reveal(),
		integrationID: g.ID, actor: g.Actor,
	})
	var usage usageError
	switch {
	case errors.Is(err, broker.ErrExists):
		i, err := o.app.integration(ctx, g.Vendor, g.Organization)
		if err != nil {
			return refuse(onboarding.Passing, err)
		}
		if token, err := o.vault.Open(i.PartnerToken, name); err == nil && token.Reveal() == g.PartnerToken.Reveal() {
			return nil
		}
		return refuse(onboarding.Rejected, fmt.Errorf("integration %[1]s is recorded already, with another partner token than the platform's: "+
			"see `usagebridge integrations show %[1]s`", name))
	case errors.As(err, &usage):
		return refuse(onboarding.Rejected, err)
	case err != nil:
		return refuse(onboarding.Passing, err)
	}
	return nil
}

// vendorToken is the token of the vendor at the platform of that address, as an
// integration of its has it: the organization's that is named, or the newest.
func (o *onboarder) vendorToken(ctx context.Context, vendor, organization, apiURL string) (vault.Secret, error) {
	list, err := o.app.listIntegrations(ctx)
	if err != nil {
		return vault.Secret{}, err
	}
	list = slices.DeleteFunc(list, func(i status.Integration) bool {
		return i.Vendor != vendor || organization != "" && i.Organization != organization || i.Dialect != string(vendorapi.MSPCentric) || i.APIURL != apiURL
	})
	if len(list) == 0 {
		who := "no integration of vendor " + vendor
		if organization != "" {
			who = "no integration " + vendor + "/" + organization
		}
		return vault.Secret{}, fmt.Errorf("the vendor token is not known: %s at %s is recorded from which it could be taken; "+
			"the first one is onboarded by `usagebridge integrations onboard --vendor-token-file`", who, apiURL)
	}
	newest := slices.MaxFunc(list, func(a, b status.Integration) int { return a.Created.Compare(b.Created) })
	return o.vault.Open(newest.VendorToken, newest.Name())
}

// asked is an onboarding as somebody asks for it.
type asked struct {
	onboarding.Request

	source, actor string
	event         string       // that asks, if one does
	vendorToken   vault.Secret // zero: that of another integration of the vendor
	oemToken      vault.Secret // zero: the platform is asked
	partnerToken  vault.Secret // zero: the platform is asked
	credentials   map[string]vault.Secret
	adopt         bool
}

// The ways in which an onboarding is asked for.
const (
	askedByCommand = "command"
	askedByAPI     = "api"
	askedByEvent   = "event"
)

// check lists everything that is wrong with what is asked for, before the platform
// hears of it. Of an onboarding that is known, only its name is required.
func (q *asked) check(known bool) error {
	var errs []error
	for _, f := range q.Missing() {
		if !known || f == onboarding.FieldVendor || f == onboarding.FieldOrganization {
			errs = append(errs, fieldError{f, "is missing"})
		}
	}
	for field, id := range map[onboarding.Field]string{onboarding.FieldVendor: q.Vendor, onboarding.FieldOrganization: q.Organization} {
		if err := event.CheckID(id); id != "" && err != nil {
			errs = append(errs, fieldError{field, err.Error()})
		}
	}
	if q.Kind != onboarding.External && q.Kind != onboarding.Credentials && q.Kind != "" {
		errs = append(errs, fieldError{onboarding.FieldKind, fmt.Sprintf("%q is none: want external or credentials", q.Kind)})
	}
	errs = append(errs, q.checkLabels()...)
	if q.APIURL != "" {
		// What is not known yet is taken for good here.
		tokens := vendorapi.NewCredentials(or(q.vendorToken.Reveal(), "unknown"), or(q.partnerToken.Reveal(), "unknown"))
		if _, err := vendorapi.New(vendorapi.Config{BaseURL: q.APIURL, Dialect: vendorapi.MSPCentric, Credentials: tokens}); err != nil {
			errs = append(errs, fieldError{"", err.Error()})
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// checkLabels lists what is wrong with the credentials.
func (q *asked) checkLabels() (errs []error) {
	if q.Kind == onboarding.External && len(q.credentials) > 0 {
		errs = append(errs, fieldError{fieldLabels, "are of the kind credentials; one of the kind external gets its key from the platform"})
	}
	for label, secret := range q.credentials {
		if secret.IsZero() || strings.TrimSpace(label) == "" {
			errs = append(errs, fieldError{fieldLabels, fmt.Sprintf("%q: want a label and a value", label)})
		}
	}
	return errs
}

// fieldLabels is a field of what is asked for that the Request has not.
const fieldLabels onboarding.Field = "credentials"

// fieldError is what is wrong with one field; an empty one is the whole.
type fieldError struct {
	field onboarding.Field
	what  string
}

func (e fieldError) Error() string { return strings.TrimSpace(string(e.field) + " " + e.what) }

// ask records what is asked for; asked for once more it goes on, if nothing differs.
func (o *onboarder) ask(ctx context.Context, q *asked) (onboarding.Record, error) {
	_, _, unknown := o.bucket.Get(ctx, broker.IntegrationKey(q.Vendor, q.Organization))
	if err := q.check(unknown == nil); err != nil {
		return onboarding.Record{}, usageError{err}
	}
	if _, err := o.app.broker.Vendor(ctx, q.Vendor); err != nil {
		return onboarding.Record{}, usageError{err}
	}
	gift, err := o.gift(q)
	if err != nil {
		return onboarding.Record{}, err
	}
	for {
		record, err := onboardRecords{o.bucket}.Update(ctx, q.Vendor, q.Organization, func(r *onboarding.Record) error {
			if err := r.Ask(q.Request); err != nil {
				return usageError{err}
			}
			if err := o.same(r, q); err != nil {
				return err
			}
			r.Take(gift, q.actor, time.Now())
			return nil
		})
		if !errors.Is(err, broker.ErrNotFound) {
			return record, err
		}
		if record, err = o.begin(ctx, q, gift); !errors.Is(err, broker.ErrExists) {
			return record, err
		}
	}
}

// begin records a new onboarding.
func (o *onboarder) begin(ctx context.Context, q *asked, gift *onboarding.Gift) (onboarding.Record, error) {
	request := q.Request
	request.Kind = onboarding.Kind(or(string(request.Kind), string(onboarding.External)))
	if request.Kind == onboarding.Credentials && len(q.credentials) == 0 {
		return onboarding.Record{}, usageError{fieldError{fieldLabels, "are missing: want one for each label of the vendor's template"}}
	}
	if err := o.unrecorded(ctx, q); err != nil {
		return onboarding.Record{}, err
	}
	if request.Kind == onboarding.External && gift.VendorToken == "" && q.source != askedByEvent {
		if _, err := o.vendorToken(ctx, q.Vendor, "", q.APIURL); err != nil {
			return onboarding.Record{}, usageError{err}
		}
	}
	record := onboarding.NewRecord(request, q.source, q.actor, time.Now())
	record.Event = q.event
	record.Take(gift, q.actor, time.Now())
	return record, o.bucket.Create(ctx, broker.IntegrationKey(q.Vendor, q.Organization), record)
}

// unrecorded refuses to onboard what is an integration already, unless its partner
// token is brought.
func (o *onboarder) unrecorded(ctx context.Context, q *asked) error {
	i, err := o.app.integration(ctx, q.Vendor, q.Organization)
	if errors.Is(err, broker.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if token, err := o.vault.Open(i.PartnerToken, i.Name()); err == nil && token.Reveal() == q.partnerToken.Reveal() {
		return nil
	}
	return usagef("integration %[1]s is recorded already, and was not onboarded: see `usagebridge integrations show %[1]s`", i.Name())
}

// gift seals what is brought.
func (o *onboarder) gift(q *asked) (*onboarding.Gift, error) {
	g := &onboarding.Gift{Adopt: q.adopt, Credentials: map[string]string{}}
	seal := func(what string, s vault.Secret) (string, error) {
		if s.IsZero() {
			return "", nil
		}
		sealed, err := o.vault.Seal(s, q.Name())
		if err != nil {
			return "", fmt.Errorf("seal %s: %w", what, err)
		}
		return sealed, nil
	}
	var errs [3]error
	g.VendorToken, errs[0] = seal("the vendor token", q.vendorToken)
	g.OEMToken, errs[1] = seal("the OEM token", q.oemToken)
	g.PartnerToken, errs[2] = seal("the partner token", q.partnerToken)
	all := errs[:]
	for _, label := range slices.Sorted(maps.Keys(q.credentials)) {
		sealed, err := seal("credential "+label, q.credentials[label])
		g.Credentials[label], all = sealed, append(all, err)
	}
	if g.OEMToken != "" {
		g.Fingerprint = o.vault.Mark(q.oemToken, q.Name())
	}
	return g, errors.Join(all...)
}

// same refuses a token other than the one that the platform has shown.
func (o *onboarder) same(r *onboarding.Record, q *asked) error {
	var errs []error
	for _, t := range []struct {
		what   string
		given  vault.Secret
		shown  string // sealed
		settle onboarding.Step
	}{
		{"the OEM token", q.oemToken, r.OEMToken, onboarding.StepOrganization},
		{"the partner token", q.partnerToken, r.PartnerToken, onboarding.StepIntegration},
	} {
		refused := t.settle == onboarding.StepOrganization && r.Problem == onboarding.ProblemForbidden
		if t.given.IsZero() || t.shown == "" || r.At(t.settle).Done.IsZero() || refused {
			continue
		}
		known, err := o.vault.Open(t.shown, r.Name())
		switch {
		case err != nil:
			errs = append(errs, err)
		case known.Reveal() != t.given.Reveal():
			errs = append(errs, usagef("the onboarding of %s has begun with other values, and goes on with those: %s differs from the one on record", r.Name(), t.what))
		}
	}
	return errors.Join(errs...)
}

// driving is how an onboarding is driven.
type driving struct {
	actor   string
	timeout time.Duration
	link    bool // open a session, too, when all else is done
	// moved is told of every action that was done, waiting of every wait.
	moved   func(onboarding.Moved)
	waiting func(err error, wait time.Duration)
}

// drive goes on with an onboarding until it is done, or something is in the way
// for longer than the timeout or for good. No call is cut off by the timeout: what
// came of it would not be known.
func (o *onboarder) drive(ctx context.Context, vendor, organization string, d driving) (onboarding.Moved, error) {
	who := onboarding.Actor{Name: d.actor, Run: uuid.NewString(), Links: d.link}
	deadline := time.Now().Add(d.timeout)
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(500*time.Millisecond), backoff.WithMaxInterval(10*time.Second), backoff.WithMaxElapsedTime(0))
	for {
		moved, err := o.driver.Advance(ctx, vendor, organization, who)
		switch {
		case ctx.Err() != nil:
			return moved, ctx.Err()
		case errors.Is(err, onboarding.ErrDone):
			moved.Record, err = o.driver.Settle(ctx, moved.Record)
			return moved, err
		case err == nil:
			wait.Reset()
			d.moved(moved)
			if moved.Action == onboarding.ActionOpenSession {
				return moved, nil
			}
			continue
		}
		pause := wait.NextBackOff()
		if asks, ok := errors.AsType[*onboarding.Error](err); ok {
			pause = max(pause, asks.Wait)
		}
		if busy, ok := errors.AsType[*onboarding.BusyError](err); ok {
			pause = min(pause, max(time.Until(busy.Until()), 10*time.Millisecond))
		}
		var passing interface{ Temporary() bool }
		if !errors.As(err, &passing) || !passing.Temporary() || time.Now().Add(pause).After(deadline) {
			return moved, err
		}
		d.waiting(err, pause)
		select {
		case <-ctx.Done():
			return moved, ctx.Err()
		case <-time.After(pause):
		}
	}
}
