package onboarding

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usagebridge/usagebridge/pkg/vault"
)

// Records keeps the onboardings.
type Records interface {
	// Update changes the record of vendor and organization by compare-and-set:
	// change may be called several times. An error of change ends it and comes
	// back. The result is the record as stored.
	Update(ctx context.Context, vendor, organization string, change func(*Record) error) (Record, error)
}

// Organizations is what of the platform is about organizations and their users.
// Errors are, or wrap, a *CallError.
type Organizations interface {
	// CreateOrganization makes the organization with its first user.
	CreateOrganization(ctx context.Context, q *Request) (oemToken vault.Secret, err error)
	// AddUser adds the user to the organization that has the request's id.
	AddUser(ctx context.Context, q *Request) (oemToken vault.Secret, err error)
	// OpenSession asks for a link that lets the user in.
	OpenSession(ctx context.Context, oemToken vault.Secret, vendorUserID string) (link vault.Secret, err error)
}

// Integrations is what of the platform is about integrations. Errors are, or wrap,
// a *CallError.
type Integrations interface {
	Vendors(ctx context.Context) ([]PlatformVendor, error)
	// CreateIntegration integrates the vendor with the organization. An external
	// one brings its partner key.
	CreateIntegration(ctx context.Context, oemToken vault.Secret, n NewIntegration) (id string, partnerKey vault.Secret, err error)
	Integrations(ctx context.Context, oemToken vault.Secret) ([]PlatformIntegration, error)
}

// Platform is the partner's platform.
type Platform interface {
	Organizations
	Integrations
}

// NewIntegration is an integration to be made.
type NewIntegration struct {
	Vendor       string // the platform's id
	Organization string // the vendor's id
	Kind         Kind
	Credentials  map[string]vault.Secret // by label
}

// Registration is an integration as it is to be recorded here.
type Registration struct {
	Vendor, Organization string
	APIURL, ID           string
	VendorToken          vault.Secret // zero: that of another integration of the vendor
	PartnerToken         vault.Secret
	OEMToken             vault.Secret
	Actor                string
}

// Sealer is the vault.
type Sealer interface {
	Seal(s vault.Secret, aad string) (string, error)
	Open(ciphertext, aad string) (vault.Secret, error)
}

// Deed is a step that was done, for the audit log.
type Deed struct {
	Name        string // of the onboarding
	Step        Step
	Action      Action
	Actor       string
	Fingerprint string // of the secret that it brought; may be empty
	At          time.Time
}

// Config is what a Driver works with. All of it is required.
type Config struct {
	Records Records
	// Platform is the platform at an address.
	Platform func(apiURL string) (Platform, error)
	Vault    Sealer
	// Register records the integration here. One that is there with the same
	// partner token is a success.
	Register func(ctx context.Context, r Registration) error
	// Audit puts a step on record; repeated for the same deed it may do so again.
	Audit func(ctx context.Context, d Deed) error
	// Fingerprint names a secret of an integration without giving it away.
	Fingerprint func(secret vault.Secret, name string) string
	Now         func() time.Time
}

// Driver does what the machine says, one action at a time.
type Driver struct{ config Config }

// NewDriver makes a driver.
func NewDriver(c Config) *Driver { return &Driver{config: c} }

// Moved is what one action came to.
type Moved struct {
	Record Record // as stored
	Step   Step
	Action Action
	// Link is what opening a session brought. It is nowhere else.
	Link vault.Secret
}

// Advance does the next action of an onboarding for the actor. An error is an
// *Error when the platform's answer is why it does not go on, and a *BusyError when
// somebody else is at it, and ErrDone at the end; Moved tells then what it was about. Whatever it returns,
// calling it again goes on.
//
// The end of ctx ends a call to the platform, but none whose answer holds what is
// shown once: that one is waited for. What came of a call is recorded all the same.
func (d *Driver) Advance(ctx context.Context, vendor, organization string, who Actor) (Moved, error) {
	var m Moved
	if err := ctx.Err(); err != nil {
		return m, err
	}
	// A change that was stored although nobody was told is offered to change once
	// more: the moment tells it from somebody else's.
	var stamp time.Time
	var err error
	m.Record, err = d.config.Records.Update(ctx, vendor, organization, func(r *Record) (err error) {
		if !stamp.IsZero() && r.Changed.Equal(stamp) {
			return nil
		}
		m.Step, m.Action, err = r.Begin(who, d.config.Now())
		stamp = r.Changed
		return err
	})
	if err != nil {
		return m, err
	}
	kept := context.WithoutCancel(ctx)
	if m.Action.makes() {
		ctx = kept
	}
	answer, link := d.do(ctx, &m.Record, m.Action)
	var verdict error
	ctx = kept
	m.Record, err = d.config.Records.Update(ctx, vendor, organization, func(r *Record) error {
		if !r.Changed.Equal(stamp) || verdict == nil {
			verdict = r.End(who, m.Action, answer, d.config.Now())
			stamp = r.Changed
		}
		return nil
	})
	if err != nil {
		return m, fmt.Errorf("what came of %s is not recorded: %w", m.Action, err)
	}
	if m.Record, err = d.Settle(ctx, m.Record); err != nil {
		return m, err
	}
	if verdict == nil {
		m.Link = link
	}
	return m, verdict
}

// Settle puts every step on record that is done and not yet there, be it because
// whoever did it died before, and gives the record back as it is stored then.
func (d *Driver) Settle(ctx context.Context, r Record) (Record, error) {
	var told []Step
	for _, s := range r.Untold() {
		p := r.At(s)
		deed := Deed{Name: r.Name(), Step: s, Action: p.Action, Actor: p.By, Fingerprint: p.Fingerprint, At: p.Done}
		if err := d.config.Audit(ctx, deed); err != nil {
			return r, fmt.Errorf("step %s is done, but that is not in the audit log: %w", s, err)
		}
		told = append(told, s)
	}
	if told == nil {
		return r, nil
	}
	return d.config.Records.Update(ctx, r.Vendor, r.Organization, func(stored *Record) error {
		for _, s := range told {
			if p := stored.at(s); p.Done.Equal(r.At(s).Done) {
				p.Audited = true
			}
		}
		return nil
	})
}

// do makes the call of an action. Secrets are sealed before anything else.
func (d *Driver) do(ctx context.Context, r *Record, action Action) (a Answer, link vault.Secret) {
	platform, err := d.config.Platform(r.APIURL)
	if err != nil {
		return Answer{Failure: &CallError{Class: NotFound, Err: err}}, link
	}
	switch action {
	case ActionCreateOrganization:
		token, err := platform.CreateOrganization(ctx, &r.Request)
		return d.sealed(r, token, err), link
	case ActionAddUser:
		token, err := platform.AddUser(ctx, &r.Request)
		return d.sealed(r, token, err), link
	case ActionListVendors:
		a.Vendors, err = platform.Vendors(ctx)
		a.Failure = failureOf(err)
		return a, link
	case ActionRegister:
		return d.register(ctx, r), link
	case ActionTakeGiven, ActionListIntegrations, ActionCreateIntegration, ActionOpenSession:
	}
	token, err := d.config.Vault.Open(r.OEMToken, r.Name())
	if err != nil {
		return unopened("the OEM token", err), link
	}
	switch action {
	case ActionListIntegrations:
		a.Listed, err = platform.Integrations(ctx, token)
		a.Failure = failureOf(err)
	case ActionCreateIntegration:
		a = d.integrate(ctx, platform, r, token)
	case ActionOpenSession:
		link, err = platform.OpenSession(ctx, token, r.VendorUserID)
		a.Failure = failureOf(err)
	case ActionTakeGiven, ActionCreateOrganization, ActionAddUser, ActionListVendors, ActionRegister:
	}
	return a, link
}

// sealed is the answer that brought a secret, or should have.
func (d *Driver) sealed(r *Record, secret vault.Secret, err error) (a Answer) {
	if err != nil {
		return Answer{Failure: failureOf(err)}
	}
	if a.Secret, err = d.config.Vault.Seal(secret, r.Name()); err != nil {
		// It is lost, as if the answer had never come.
		a.Failure = &CallError{Class: Unreadable, Unknown: true, Err: err}
		return a
	}
	a.Fingerprint = d.config.Fingerprint(secret, r.Name())
	return a
}

func (d *Driver) integrate(ctx context.Context, platform Platform, r *Record, token vault.Secret) (a Answer) {
	n := NewIntegration{Vendor: r.PlatformVendorID, Organization: r.Organization, Kind: r.Kind, Credentials: map[string]vault.Secret{}}
	for label, ciphertext := range r.Secrets {
		secret, err := d.config.Vault.Open(*ciphertext, r.Name())
		if err != nil {
			return unopened(fmt.Sprintf("credential %q", label), err)
		}
		n.Credentials[label] = secret
	}
	id, key, err := platform.CreateIntegration(ctx, token, n)
	if err == nil && r.Kind == External {
		a = d.sealed(r, key, nil)
	} else {
		a.Failure = failureOf(err)
	}
	a.Integration = id
	return a
}

func (d *Driver) register(ctx context.Context, r *Record) Answer {
	if r.PartnerToken == "" {
		return Answer{} // the platform calls the vendor: we have nothing to send
	}
	g := Registration{Vendor: r.Vendor, Organization: r.Organization, APIURL: r.APIURL, ID: r.IntegrationID, Actor: r.Actor}
	var errs []error
	open := func(what, ciphertext string) (s vault.Secret) {
		if ciphertext == "" {
			return s
		}
		s, err := d.config.Vault.Open(ciphertext, r.Name())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
		return s
	}
	g.VendorToken = open("the vendor token", r.VendorToken)
	g.PartnerToken = open("the partner token", r.PartnerToken)
	g.OEMToken = open("the OEM token", r.OEMToken)
	if err := errors.Join(errs...); err != nil {
		return unopened("what was sealed", err)
	}
	if err := d.config.Register(ctx, g); err != nil {
		return Answer{Failure: failureOf(err)}
	}
	return Answer{Recorded: true}
}

// unopened is the answer to a call that could not be made: the record is sealed
// with another keyset.
func unopened(what string, err error) Answer {
	return Answer{Failure: &CallError{Class: Sealed, Err: fmt.Errorf("%s cannot be opened: %w", what, err)}}
}
