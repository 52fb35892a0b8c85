package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// onboardAPITime is how long a request over HTTP tries again what passes.
const onboardAPITime = 20 * time.Second

// actorAPI is who does what is asked for over HTTP: whoever has the token.
const actorAPI = "api"

// onboardByAPI takes an onboarding over HTTP, and drives it.
func (a *app) onboardByAPI(ctx context.Context, asks console.OnboardingRequest) (console.Onboarding, error) {
	if a.config.OEMAPIURL == "" {
		return console.Onboarding{}, &console.RefusedError{Status: http.StatusServiceUnavailable, Detail: envPrefix + "_OEM_API_URL is not set: this worker knows no platform"}
	}
	o, err := a.onboarder(ctx)
	if err != nil {
		return console.Onboarding{}, err
	}
	defer o.close()
	q, err := o.askedByAPI(ctx, &asks)
	if err != nil {
		return console.Onboarding{}, err
	}
	if _, err := o.ask(ctx, q); err != nil {
		return console.Onboarding{}, refusedByAPI(err)
	}
	moved, err := o.drive(ctx, q.Vendor, q.Organization, driving{
		actor: actorAPI, timeout: onboardAPITime, link: true, moved: func(onboarding.Moved) {}, waiting: func(error, time.Duration) {},
	})
	why, isWhy := errors.AsType[*onboarding.Error](err)
	busy, _ := errors.AsType[*onboarding.BusyError](err)
	switch {
	case isWhy && (why.Problem.Stops() || why.Problem == onboarding.ProblemUnauthorized || why.Problem == onboarding.ProblemForbidden):
		return console.Onboarding{}, refusedByAPI(err)
	case err != nil && !isWhy && busy == nil:
		return console.Onboarding{}, err
	}
	record := moved.Record
	if busy != nil { // then there was no step of ours
		if record, _, err = o.bucket.Get(ctx, broker.IntegrationKey(q.Vendor, q.Organization)); err != nil {
			return console.Onboarding{}, err
		}
	}
	told := onboardingTold(&record)
	told.MagicLink = moved.Link.Reveal()
	return told, nil
}

// askedByAPI puts a request into our own words.
func (o *onboarder) askedByAPI(ctx context.Context, asks *console.OnboardingRequest) (*asked, error) {
	q := &asked{
		Request: onboarding.Request{
			Vendor: asks.VendorID, Organization: asks.OrganizationID, OrganizationName: asks.OrganizationName, Email: asks.Email, FirstName: asks.FirstName,
			LastName: asks.LastName, VendorUserID: asks.VendorUserID, PlatformVendor: asks.PlatformVendorID, Kind: onboarding.Kind(asks.Kind),
			APIURL: strings.TrimRight(o.app.config.OEMAPIURL, "/"),
		},
		source: askedByAPI, actor: actorAPI, adopt: asks.Adopt, credentials: map[string]vault.Secret{},
		vendorToken: vault.NewSecret(asks.VendorToken), oemToken: vault.NewSecret(asks.OEMToken), partnerToken: vault.NewSecret(asks.PartnerToken),
	}
	for label, value := range asks.Credentials {
		q.credentials[label] = vault.NewSecret(value)
	}
	if asks.VendorToken != "" {
		return q, nil
	}
	var err error
	if q.vendorToken, err = o.vendorToken(ctx, q.Vendor, asks.VendorTokenOf, q.APIURL); err != nil {
		return nil, &console.RefusedError{
			Status: http.StatusUnprocessableEntity, Detail: "the request is not taken: nothing was done",
			Members: []console.RefusedMember{{Name: "vendorTokenOf", Problem: fmt.Sprintf("the vendor token of an integration with %q is not known here", asks.VendorTokenOf)}},
		}
	}
	return q, nil
}

// membersOf puts advice about flags into the words of who sends JSON.
var membersOf = strings.NewReplacer(
	"--vendor-organization-id", "organizationId", "--org-name", "organizationName", "--vendor-user-id", "vendorUserId", "--platform-vendor", "platformVendorId",
	"--oem-token-file", "oemToken", "--partner-token-file", "partnerToken", "--credential", "credentials", "--adopt", "adopt: true", "--email", "email",
	"--kind", "kind", "run the same command again", "send the same request again", "run it again", "send it again",
)

// refusedByAPI is the refusal of what only the client, or a person, can mend; any
// other error comes back as it is.
func refusedByAPI(err error) error {
	if why, ok := errors.AsType[*onboarding.Error](err); ok {
		status := http.StatusConflict
		switch why.Problem {
		case onboarding.ProblemUnauthorized, onboarding.ProblemForbidden:
			status = http.StatusBadGateway
		case onboarding.ProblemRejected, onboarding.ProblemVendor, onboarding.ProblemNoOrganization:
			status = http.StatusUnprocessableEntity
		default:
		}
		return &console.RefusedError{Status: status, Detail: membersOf.Replace(onboardAdvice(why).Error())}
	}
	if differ, ok := errors.AsType[*onboarding.DifferError](err); ok {
		refused := &console.RefusedError{Status: http.StatusConflict, Detail: "the onboarding of " + differ.Name + " has begun with other values, and goes on with those"}
		for _, d := range differ.Differences {
			refused.Members = append(refused.Members, console.RefusedMember{Name: string(d.Field), Problem: fmt.Sprintf("is %q, recorded is %q", d.Given, d.Recorded)})
		}
		return refused
	}
	var usage usageError
	if !errors.As(err, &usage) {
		return err
	}
	refused := &console.RefusedError{Status: http.StatusConflict, Detail: usage.Error()}
	for _, e := range joined(usage.error) {
		if f, ok := errors.AsType[fieldError](e); ok {
			refused.Status, refused.Detail = http.StatusUnprocessableEntity, "the request is not taken: nothing was done"
			refused.Members = append(refused.Members, console.RefusedMember{Name: string(f.field), Problem: f.what})
		}
	}
	return refused
}

// tellOnboardings tells of all onboardings, or of one.
func (a *app) tellOnboardings(ctx context.Context, vendor, organization string) ([]console.Onboarding, error) {
	bucket, err := a.onboardings(ctx)
	if err != nil {
		return nil, err
	}
	if vendor != "" {
		r, _, err := bucket.Get(ctx, broker.IntegrationKey(vendor, organization))
		if errors.Is(err, broker.ErrNotFound) {
			return nil, nil
		}
		return []console.Onboarding{onboardingTold(&r)}, err
	}
	all, err := bucket.All(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]console.Onboarding, 0, len(all))
	for _, r := range all {
		list = append(list, onboardingTold(&r))
	}
	slices.SortFunc(list, func(a, b console.Onboarding) int {
		return strings.Compare(a.Vendor+"/"+a.Organization, b.Vendor+"/"+b.Organization)
	})
	return list, nil
}

func onboardingTold(r *onboarding.Record) console.Onboarding {
	v := onboardingViewOf(r, time.Now())
	return console.Onboarding{
		Vendor: r.Vendor, Organization: r.Organization, State: string(v.State), Step: string(v.Step), Since: v.Since, Problem: string(v.Problem), Error: v.Error,
	}
}
