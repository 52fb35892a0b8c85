package vendorapi

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

const integration = "acme/msp-0042"

// newSandbox plays a partner whose human waits to be told.
func newSandbox(t *testing.T) (*sandbox.Sandbox, *Client) {
	t.Helper()
	partner := sandbox.New(sandbox.Config{
		Human:        sandbox.HumanAPI,
		Integrations: []sandbox.Integration{{Name: integration, VendorToken: vendorToken, PartnerToken: partnerToken}},
	})
	server := httptest.NewServer(partner.Handler())
	t.Cleanup(func() {
		partner.Close()
		server.Close()
	})
	return partner, newClientOf(t, server.URL+"/api", nil)
}

func TestAnIntegrationIsBroughtFromNothingToItsFirstCount(t *testing.T) {
	partner, client := newSandbox(t)
	ctx := t.Context()
	account, service := Account{ID: "a/17", Name: "Acme & Söhne", ExternalID: "x"}, Service{ID: "..", Name: "Backup"}
	count := Count{AccountID: account.ID, ServiceID: service.ID, Units: "42.125000"}
	step := func(what string, result Result, err error, status int, existed bool) {
		t.Helper()
		if err != nil || result.StatusCode != status || result.Existed != existed || result.RequestID == "" || result.Message == "" {
			t.Fatalf("%s: got %+v and error %v, want status %d, existed %t", what, result, err, status, existed)
		}
	}
	fails := func(what string, err error, want Class) {
		t.Helper()
		if e := failure(t, err); e.Class() != want {
			t.Fatalf("%s: got %v (class %s), want class %s", what, e, e.Class(), want)
		}
	}

	_, err := client.PostCount(ctx, count)
	fails("a count before anything", err, NotReady)
	result, err := client.PostAccount(ctx, account)
	step("an account", result, err, 201, false)
	result, err = client.PostAccount(ctx, account)
	step("the account again", result, err, 409, true)
	result, err = client.PostAccount(ctx, Account{ID: "a-18", Name: "Without external id"})
	step("an account without an external id", result, err, 201, false)
	result, err = client.PostService(ctx, service)
	step("a service", result, err, 201, false)
	result, err = client.PostService(ctx, service)
	step("the service again", result, err, 409, true)
	mapping, err := client.SetMapping(ctx)
	step("the mapping", mapping.Result, err, 200, false)
	if mapping.Status != "mapping" || mapping.IntegrationID == "" {
		t.Fatalf("got %+v, want the status mapping and an integration id", mapping)
	}
	_, err = client.PostCount(ctx, count)
	fails("a count before the human mapped", err, NotReady)

	if err := partner.Map(integration, sandbox.Only(account.ID), sandbox.All()); err != nil {
		t.Fatal(err)
	}
	if err := partner.Finish(integration); err != nil {
		t.Fatal(err)
	}
	result, err = client.PostCount(ctx, count)
	step("a count", result, err, 201, false)
	if got, _ := partner.Value(integration, account.ID, service.ID); got != "42.125000" {
		t.Errorf("the partner has %q, want 42.125000 digit by digit", got)
	}
	_, err = client.PostCount(ctx, Count{AccountID: "a-18", ServiceID: service.ID, Units: "1"})
	fails("a count for an unmapped account", err, NotFound)
}

func TestThePartnersFaultsAreUnderstood(t *testing.T) {
	partner, client := newSandbox(t)
	cases := []struct {
		rule  sandbox.Rule
		want  Class // "" is a success
		after time.Duration
	}{
		{sandbox.Rule{Effect: sandbox.StatusBefore, Status: 429, RetryAfter: 3 * time.Second}, Throttled, 3 * time.Second},
		{sandbox.Rule{Effect: sandbox.StatusBefore, Status: 503}, Unavailable, 0},
		{sandbox.Rule{Effect: sandbox.StatusAfter, Status: 504}, Unavailable, 0},
		{sandbox.Rule{Effect: sandbox.StatusBefore, Status: 403, Message: "integration is not ready: mapping"}, NotReady, 0},
		{sandbox.Rule{Effect: sandbox.ResetBefore}, Network, 0},
		{sandbox.Rule{Effect: sandbox.ResetAfter}, Network, 0},
		{sandbox.Rule{Effect: sandbox.GarbageBody}, "", 0},
		{sandbox.Rule{Effect: sandbox.EmptyBody}, "", 0},
		{sandbox.Rule{Effect: sandbox.HugeBody, BodyBytes: 1 << 20}, "", 0},
	}
	for _, c := range cases {
		c.rule.Probability = 1
		if err := partner.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{c.rule}}); err != nil {
			t.Fatal(err)
		}
		_, err := client.SetMapping(t.Context())
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: got error %v, want a success", c.rule.Effect, err)
			}
			continue
		}
		e := failure(t, err)
		if after, _ := e.RetryAfter(); e.Class() != c.want || after != c.after {
			t.Errorf("%s %d: got %v (class %s, retry after %s), want class %s, retry after %s",
				c.rule.Effect, c.rule.Status, e, e.Class(), after, c.want, c.after)
		}
	}
	stranger := newClientOf(t, client.base.String(), func(config *Config) {
		config.Credentials = NewCredentials(vendorToken, "other")
	})
	_, err := stranger.SetMapping(t.Context())
	if e := failure(t, err); e.Class() != Unauthorized {
		t.Errorf("with another token: got %v (class %s), want %s", e, e.Class(), Unauthorized)
	}
}
