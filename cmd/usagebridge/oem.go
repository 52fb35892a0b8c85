package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// oemClient makes the client of the platform's OEM-API. Whoever can do without
// it looks first whether OEM_API_URL is set.
func (c *Config) oemClient() (*oemapi.Client, error) {
	if c.OEMAPIURL == "" {
		return nil, usagef("%[1]s_OEM_API_URL is not set: to call the platform's OEM-API set it, %[1]s_OEM_CLIENT_ID and %[1]s_OEM_CLIENT_SECRET_FILE", envPrefix)
	}
	return c.oemClientAt(c.OEMAPIURL, nil)
}

// oemClientAt is oemClient for a platform at another address. The secret's file is
// read each time: it may have been replaced. Without a transport it gets its own.
func (c *Config) oemClientAt(apiURL string, transport http.RoundTripper) (*oemapi.Client, error) {
	if c.OEMClientID == "" || c.OEMClientSecretFile == "" {
		return nil, usagef("%[1]s_OEM_CLIENT_ID and %[1]s_OEM_CLIENT_SECRET_FILE: want both, the vendor's at the platform's OEM-API", envPrefix)
	}
	secret, err := readSecretFile(c.OEMClientSecretFile)
	if err != nil {
		return nil, usagef("%s_OEM_CLIENT_SECRET_FILE: %w", envPrefix, err)
	}
	client, err := oemapi.New(oemapi.Config{
		BaseURL: apiURL, ClientID: c.OEMClientID, ClientSecret: oemapi.NewSecret(secret), Transport: transport, Timeout: c.PartnerTimeout,
	})
	if err != nil {
		return nil, usagef("base URL of %[1]s_OEM_API_URL, client id of %[1]s_OEM_CLIENT_ID, client secret in the file of %[1]s_OEM_CLIENT_SECRET_FILE: %[2]w", envPrefix, err)
	}
	return client, nil
}

// tenant is one integration of ours together with the means to speak with the
// platform about its organization.
type tenant struct {
	app         *app
	client      *oemapi.Client
	vault       *vault.Vault
	integration *status.Integration
	token       oemapi.Secret // the organization's; the zero Secret when the record has none
}

// withOEM is withApp for a command that calls the OEM-API.
func (c *cli) withOEM(ctx context.Context, do func(context.Context, *app, *oemapi.Client) error) error {
	return c.withApp(ctx, func(ctx context.Context, a *app) error {
		client, err := a.config.oemClient()
		if err != nil {
			return err
		}
		defer client.CloseIdleConnections()
		return do(ctx, a, client)
	})
}

// withTenant is withOEM for a command about one integration. Everything that
// can be wrong on our side is found before the platform is called.
func (c *cli) withTenant(ctx context.Context, name string, do func(context.Context, *tenant) error) error {
	vendor, organization, err := parseIntegration(name)
	if err != nil {
		return err
	}
	return c.withOEM(ctx, func(ctx context.Context, a *app, client *oemapi.Client) error {
		i, err := a.integration(ctx, vendor, organization)
		if err != nil {
			return err
		}
		if i.Dialect != string(vendorapi.MSPCentric) {
			return usagef("integration %s: a platform of the dialect %s has no OEM-API", name, i.Dialect)
		}
		keys, err := a.sealer(ctx)
		if err != nil {
			return err
		}
		t := &tenant{app: a, client: client, vault: keys, integration: i}
		if t.token, err = openOEMToken(keys, i); err != nil {
			return err
		}
		return do(ctx, t)
	})
}

// openOEMToken is the OEM token of the integration's organization, the zero
// Secret when the record has none.
func openOEMToken(keys *vault.Vault, i *status.Integration) (oemapi.Secret, error) {
	if i.OEMToken == "" {
		return oemapi.Secret{}, nil
	}
	token, err := keys.Open(i.OEMToken, i.Name())
	if err != nil {
		return oemapi.Secret{}, fmt.Errorf("open the OEM token of %s; is %s_MASTER_KEYSET the keyset with which it was stored? %w", i.Name(), envPrefix, err)
	}
	return oemapi.NewSecret(token.Reveal()), nil
}

// needToken refuses to go on without the organization's token.
func (t *tenant) needToken() error {
	if t.token.Reveal() != "" {
		return nil
	}
	return usagef("integration %[1]s: the OEM token of its organization is not known: `usagebridge users add %[1]s …` learns it, "+
		"`usagebridge integrations credentials set %[1]s --oem-token-file …` stores one", t.integration.Name())
}

// after is a context for what must still happen once the platform has done
// something: to keep what it answered, and to put it on record. Whoever
// interrupts the command then waits for that.
func after(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// record puts on record what the platform was asked to do. A call whose outcome
// nobody knows is on record as well: it may have been done.
func (t *tenant) record(ctx context.Context, done action, failure error) error {
	if failure != nil {
		e, ok := errors.AsType[*oemapi.Error](failure)
		if !ok || !e.Unknown() {
			return failure
		}
		done.Action += " (unconfirmed)"
	}
	done.Actor, done.Integration, done.At = operator(), t.integration.Name(), time.Now().UTC()
	ctx, cancel := after(ctx)
	defer cancel()
	if err := t.app.audit(ctx, done); err != nil {
		return errors.Join(failure, fmt.Errorf("integration %s: %s, but that is not on record: %w", t.integration.Name(), done.Action, err))
	}
	return failure
}

// advise adds to a refusal of the OEM-API what can be done about it: in the
// words of who asked, by class, or in those that hold for every call. What the
// platform calls malformed is wrong input.
func advise(err error, words map[oemapi.Class]string) error {
	failure, ok := errors.AsType[*oemapi.Error](err)
	if !ok {
		return err
	}
	way := or(words[failure.Class()], advice(failure))
	if way != "" {
		err = fmt.Errorf("%w\n→ %s", err, way)
	}
	if failure.Class() == oemapi.Rejected {
		return usageError{err}
	}
	return err
}

// advice is what holds whatever was asked.
func advice(failure *oemapi.Error) string {
	switch failure.Class() {
	case oemapi.Unauthorized:
		return fmt.Sprintf("the platform does not let this client in: compare %[1]s_OEM_CLIENT_ID and the file of %[1]s_OEM_CLIENT_SECRET_FILE with what it gave the vendor", envPrefix)
	case oemapi.Forbidden:
		return "the platform refuses the OEM token of this organization: it may be out of date, or another client's; " +
			"`usagebridge integrations credentials set VENDOR/ORGANIZATION --oem-token-file …` stores another"
	case oemapi.NotFound, oemapi.Unexpected:
		return fmt.Sprintf("is %s_OEM_API_URL the API address of the platform, the part above /oem-api?", envPrefix)
	case oemapi.Throttled:
		if wait, ok := failure.RetryAfter(); ok {
			return fmt.Sprintf("too many calls: try again in %s", wait)
		}
		return "too many calls: try again in a minute"
	case oemapi.Unavailable, oemapi.Network:
		return fmt.Sprintf("try again; if it stays so, look at %s_OEM_API_URL and at what stands between", envPrefix)
	case oemapi.Exists, oemapi.Rejected, oemapi.Cancelled:
	}
	return ""
}

// describeListed names integrations of the platform as people choose among them.
func describeListed(list []oemapi.Integration) string {
	words := make([]string, len(list))
	for at, i := range list {
		words[at] = fmt.Sprintf("%s (platform's vendor %s, %s)", printable(i.ID), or(printable(i.VendorID), "not told"), or(printable(i.Status), "no status told"))
	}
	return strings.Join(words, ", ")
}

// storeOEMToken seals the token into the record. Another process may have
// stored one meanwhile: that one stays, and must be the same.
func (t *tenant) storeOEMToken(ctx context.Context, token oemapi.Secret) error {
	bucket, err := t.app.integrations(ctx)
	if err != nil {
		return err
	}
	_, err = bucket.Update(ctx, broker.IntegrationKey(t.integration.Vendor, t.integration.Organization), func(i *status.Integration) error {
		if stored, err := openOEMToken(t.vault, i); err != nil {
			return err
		} else if stored.Reveal() != "" && stored.Reveal() != token.Reveal() {
			return errors.New("another OEM token was stored at the same time, and stays")
		}
		secret := vault.NewSecret(token.Reveal())
		i.Marks.OEM = t.vault.Mark(secret, i.Name())
		i.OEMToken, err = t.vault.Seal(secret, i.Name())
		return err
	})
	if err != nil {
		return fmt.Errorf("store the OEM token: %w", err)
	}
	return nil
}
