package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// onboardPlatform makes the calls of an onboarding through the OEM-API
// (onboarding.Platform).
type onboardPlatform struct{ client *oemapi.Client }

// onboardingAt is the platform at an address.
func (a *app) onboardingAt(apiURL string, transport http.RoundTripper) (onboarding.Platform, error) {
	client, err := a.config.oemClientAt(apiURL, transport)
	if err != nil {
		return nil, err
	}
	return onboardPlatform{client}, nil
}

func onboardPerson(q *onboarding.Request) oemapi.Person {
	return oemapi.Person{Email: q.Email, FirstName: q.FirstName, LastName: q.LastName, VendorUserID: q.VendorUserID}
}

// CreateOrganization makes the organization with its first user.
func (p onboardPlatform) CreateOrganization(ctx context.Context, q *onboarding.Request) (vault.Secret, error) {
	o, _, err := p.client.CreateOrganization(ctx, oemapi.NewOrganization{
		Name: q.OrganizationName, VendorOrganizationID: q.Organization, Owner: onboardPerson(q),
	})
	return vault.NewSecret(o.Token.Reveal()), onboardFailure(err)
}

// AddUser adds the user to the organization that has the request's id.
func (p onboardPlatform) AddUser(ctx context.Context, q *onboarding.Request) (vault.Secret, error) {
	o, _, err := p.client.AddUser(ctx, onboardPerson(q), q.Organization)
	return vault.NewSecret(o.Token.Reveal()), onboardFailure(err)
}

// OpenSession asks for a link that lets the user in.
func (p onboardPlatform) OpenSession(ctx context.Context, oemToken vault.Secret, vendorUserID string) (vault.Secret, error) {
	s, _, err := p.client.OpenSession(ctx, oemapi.NewSecret(oemToken.Reveal()), vendorUserID)
	return vault.NewSecret(s.Link.Reveal()), onboardFailure(err)
}

// Vendors lists the vendors that can be integrated.
func (p onboardPlatform) Vendors(ctx context.Context) ([]onboarding.PlatformVendor, error) {
	list, _, err := p.client.Vendors(ctx)
	vendors := make([]onboarding.PlatformVendor, len(list))
	for i, v := range list {
		vendors[i] = onboarding.PlatformVendor{ID: v.ID, Name: v.Name, Kind: onboarding.Kind(v.Kind), Labels: v.Labels}
	}
	return vendors, onboardFailure(err)
}

// CreateIntegration integrates the vendor with the organization.
func (p onboardPlatform) CreateIntegration(ctx context.Context, oemToken vault.Secret, n onboarding.NewIntegration) (string, vault.Secret, error) {
	credentials := make(map[string]oemapi.Secret, len(n.Credentials))
	for label, secret := range n.Credentials {
		credentials[label] = oemapi.NewSecret(secret.Reveal())
	}
	made, _, err := p.client.CreateIntegration(ctx, oemapi.NewSecret(oemToken.Reveal()), oemapi.NewIntegration{
		VendorID: n.Vendor, External: n.Kind == onboarding.External, OrganizationID: n.Organization, Credentials: credentials,
	})
	return made.ID, vault.NewSecret(made.PartnerKey.Reveal()), onboardFailure(err)
}

// Integrations lists those of the organization.
func (p onboardPlatform) Integrations(ctx context.Context, oemToken vault.Secret) ([]onboarding.PlatformIntegration, error) {
	list, _, err := p.client.Integrations(ctx, oemapi.NewSecret(oemToken.Reveal()))
	integrations := make([]onboarding.PlatformIntegration, len(list))
	for i, listed := range list {
		integrations[i] = onboarding.PlatformIntegration{ID: listed.ID, Vendor: listed.VendorID}
	}
	return integrations, onboardFailure(err)
}

// onboardFailure puts what the client says into the words of an onboarding.
func onboardFailure(err error) error {
	if err == nil {
		return nil
	}
	failure, ok := errors.AsType[*oemapi.Error](err)
	if !ok {
		return &onboarding.CallError{Class: onboarding.Unreadable, Unknown: true, Err: err}
	}
	f := &onboarding.CallError{Class: onboardClasses[failure.Class()], Unknown: failure.Unknown(), Err: err}
	f.RetryAfter, _ = failure.RetryAfter()
	return f
}

var onboardClasses = map[oemapi.Class]onboarding.Class{
	oemapi.Unauthorized: onboarding.Unauthorized,
	oemapi.Forbidden:    onboarding.Forbidden,
	oemapi.NotFound:     onboarding.NotFound,
	oemapi.Throttled:    onboarding.Passing,
	oemapi.Exists:       onboarding.Exists,
	oemapi.Rejected:     onboarding.Rejected,
	oemapi.Unavailable:  onboarding.Passing,
	oemapi.Network:      onboarding.Passing,
	oemapi.Unexpected:   onboarding.Unreadable,
	oemapi.Cancelled:    onboarding.Cancelled,
}
