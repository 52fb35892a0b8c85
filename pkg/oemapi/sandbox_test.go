package oemapi

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

const integration = "acme/msp-0042"

// newSandbox plays a platform with two vendors at one organization and one at another.
func newSandbox(t *testing.T) (*sandbox.Sandbox, *Client, Secret) {
	t.Helper()
	platform := sandbox.New(sandbox.Config{
		Human: sandbox.HumanAPI,
		OEM:   sandbox.OEM{ClientID: clientID, ClientSecret: clientSecret},
		Integrations: []sandbox.Integration{
			{Name: integration, VendorToken: "v1", PartnerToken: "p1"},
			{Name: "zeta/msp-0042", VendorToken: "v2", PartnerToken: "p2"},
			{Name: "acme/msp-0043", VendorToken: "v1", PartnerToken: "p3"},
		},
	})
	server := httptest.NewServer(platform.Handler())
	t.Cleanup(func() {
		platform.Close()
		server.Close()
	})
	token, err := platform.OEMToken(integration)
	if err != nil {
		t.Fatal(err)
	}
	return platform, newClientOf(t, server.URL+"/api", nil), NewSecret(token)
}

func TestAnOrganizationsIntegrationsAreFollowedThroughTheirStatuses(t *testing.T) {
	platform, client, token := newSandbox(t)
	for _, status := range []sandbox.Status{sandbox.Inactive, sandbox.Mapping, sandbox.Pending, sandbox.Connected} {
		if err := platform.SetStatus(integration, status); err != nil {
			t.Fatal(err)
		}
		got, result, err := client.Integrations(t.Context(), token)
		want := []Integration{{"int-1", "vendor-acme", string(status)}, {"int-2", "vendor-zeta", "inactive"}}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %+v and error %v, want %+v", got, err, want)
		}
		if result.StatusCode != http.StatusOK || result.RequestID == "" || result.Message != "2 integrations" {
			t.Errorf("got %+v, want status 200, a request id and the platform's sentence", result)
		}
	}
	if err := platform.SetOEM(sandbox.OEM{Statuses: sandbox.NoStatuses}); err != nil {
		t.Fatal(err)
	}
	got, _, err := client.Integrations(t.Context(), token)
	if want := []Integration{{ID: "int-1", VendorID: "vendor-acme"}, {ID: "int-2", VendorID: "vendor-zeta"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v and error %v, want %+v without statuses", got, err, want)
	}
}

func TestThePlatformsRefusalsAreToldApart(t *testing.T) {
	platform, client, token := newSandbox(t)
	address := strings.TrimSuffix(client.address, oemAPISegment)
	_, _, err := client.Integrations(t.Context(), NewSecret("that of nobody"))
	if e := failure(t, err); e.Class() != Forbidden {
		t.Errorf("with a token of nobody: got %v (class %s), want %s", e, e.Class(), Forbidden)
	}
	for name, change := range map[string]func(*Config){
		"another client": func(c *Config) { c.ClientID = "another" },
		"another secret": func(c *Config) { c.ClientSecret = NewSecret("another") },
	} {
		_, _, err := newClientOf(t, address, change).Integrations(t.Context(), token)
		if e := failure(t, err); e.Class() != Unauthorized {
			t.Errorf("with %s: got %v (class %s), want %s", name, e, e.Class(), Unauthorized)
		}
	}
	_, _, err = newClientOf(t, address+"/elsewhere", nil).Integrations(t.Context(), token)
	if e := failure(t, err); e.Class() != NotFound {
		t.Errorf("at another address: got %v (class %s), want %s", e, e.Class(), NotFound)
	}
	platform.Close()
	_, _, err = client.Integrations(t.Context(), token)
	if e := failure(t, err); e.Class() != Unavailable {
		t.Errorf("after the end: got %v (class %s), want %s", e, e.Class(), Unavailable)
	}
}

func TestThePlatformsFaultsAreUnderstood(t *testing.T) {
	platform, client, token := newSandbox(t)
	for _, c := range []struct {
		rule  sandbox.Rule
		want  Class // "" is a success
		after time.Duration
	}{
		{sandbox.Rule{Effect: sandbox.StatusBefore, Status: 429, RetryAfter: 3 * time.Second}, Throttled, 3 * time.Second},
		{sandbox.Rule{Effect: sandbox.StatusBefore, Status: 503}, Unavailable, 0},
		{sandbox.Rule{Effect: sandbox.StatusAfter, Status: 504}, Unavailable, 0},
		{sandbox.Rule{Effect: sandbox.StatusBefore, Status: 403, Message: "token was revoked"}, Forbidden, 0},
		{sandbox.Rule{Effect: sandbox.ResetBefore}, Network, 0},
		{sandbox.Rule{Effect: sandbox.ResetAfter}, Network, 0},
		{sandbox.Rule{Effect: sandbox.GarbageBody}, Unexpected, 0},
		{sandbox.Rule{Effect: sandbox.EmptyBody}, Unexpected, 0},
		{sandbox.Rule{Effect: sandbox.HugeBody, BodyBytes: 1 << 20}, Unexpected, 0},
		{sandbox.Rule{Effect: sandbox.HugeBody, BodyBytes: 2 << 20}, Unexpected, 0},
		{sandbox.Rule{Effect: sandbox.SlowBody, BodyTime: 20 * time.Millisecond}, "", 0},
	} {
		c.rule.Probability, c.rule.Operation = 1, sandbox.OperationOEMIntegrations
		if err := platform.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{c.rule}}); err != nil {
			t.Fatal(err)
		}
		got, _, err := client.Integrations(t.Context(), token)
		if c.want == "" {
			if err != nil || len(got) != 2 {
				t.Errorf("%s: got %+v and error %v, want two integrations", c.rule.Effect, got, err)
			}
			continue
		}
		e := failure(t, err)
		if after, _ := e.RetryAfter(); e.Class() != c.want || after != c.after {
			t.Errorf("%s %d: got %v (class %s, retry after %s), want class %s, retry after %s",
				c.rule.Effect, c.rule.Status, e, e.Class(), after, c.want, c.after)
		}
	}
}
