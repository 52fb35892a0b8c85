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

func TestAnOrganizationIsOnboardedByTheCallsOfTheDocumentation(t *testing.T) {
	_, client, _ := newSandbox(t)
	ctx := t.Context()
	want := func(what string, err error, class Class) {
		t.Helper()
		if class == "" && err == nil {
			return
		}
		if e := failure(t, err); e.Class() != class {
			t.Errorf("%s: got %v (class %s), want class %q", what, e, e.Class(), class)
		}
	}
	northwind := NewOrganization{Name: "Northwind", VendorOrganizationID: "nw", Owner: ada}
	made, _, err := client.CreateOrganization(ctx, northwind)
	want("a new organization", err, "")
	_, _, err = client.CreateOrganization(ctx, northwind)
	want("the organization again", err, Exists)
	again, _, err := client.AddUser(ctx, ada, "nw")
	want("its user again", err, "")
	if made.Token.Reveal() == "" || made.Token.Reveal() != again.Token.Reveal() {
		t.Error("the token of the organization is not the one that its user gets, want the same")
	}
	_, _, err = client.AddUser(ctx, Person{Email: "ada@elsewhere.test", FirstName: "Ada", LastName: "L", VendorUserID: ada.VendorUserID}, "nw")
	want("the user's id with another address", err, Exists)

	vendors, _, err := client.Vendors(ctx)
	want("the vendors", err, "")
	byKind := map[string]Vendor{}
	for _, v := range vendors {
		byKind[v.Kind] = v
	}
	external, credentials := byKind[KindExternal], byKind[KindCredentials]
	if external.ID == "" || len(credentials.Labels) == 0 {
		t.Fatalf("got vendors %+v, want one that is external and one with labels", vendors)
	}
	key, _, err := client.CreateIntegration(ctx, made.Token, NewIntegration{VendorID: external.ID, External: true, OrganizationID: "nw"})
	want("an external integration", err, "")
	if key.PartnerKey.Reveal() == "" {
		t.Error("the external integration came without a partner key")
	}
	_, _, err = client.CreateIntegration(ctx, made.Token, NewIntegration{VendorID: external.ID, External: true, OrganizationID: "nw"})
	want("the integration again", err, Exists)
	_, _, err = client.CreateIntegration(ctx, made.Token, NewIntegration{VendorID: credentials.ID, External: true, OrganizationID: "nw"})
	want("an external integration of who is not external", err, Rejected)

	labelled := map[string]Secret{}
	for _, label := range credentials.Labels {
		labelled[label] = NewSecret("value of " + label)
	}
	kept, _, err := client.CreateIntegration(ctx, made.Token, NewIntegration{VendorID: credentials.ID, Credentials: labelled})
	want("an integration with credentials", err, "")
	_, _, err = client.UpdateCredentials(ctx, made.Token, kept.ID, labelled)
	want("the same credentials", err, "")
	_, _, err = client.UpdateCredentials(ctx, made.Token, kept.ID, map[string]Secret{"no such label": NewSecret("x")})
	want("a label that the template has not", err, Rejected)
	_, _, err = client.UpdateCredentials(ctx, made.Token, "int-0", labelled)
	want("an integration that is not there", err, NotFound)
	list, _, err := client.Integrations(ctx, made.Token)
	want("the list", err, "")
	if len(list) != 2 || list[0].ID != key.ID || list[1].ID != kept.ID {
		t.Errorf("got the list %+v, want %s and %s", list, key.ID, kept.ID)
	}

	session, _, err := client.OpenSession(ctx, made.Token, ada.VendorUserID)
	want("a session", err, "")
	if !strings.HasPrefix(session.Link.Reveal(), strings.TrimSuffix(client.address, "/api"+oemAPISegment)) {
		t.Error("the session's link does not lead to the sandbox")
	}
	_, _, err = client.OpenSession(ctx, made.Token, "nobody")
	want("a session of nobody", err, NotFound)
	_, err = client.RemoveUser(ctx, made.Token, ada.VendorUserID, ada.Email)
	want("the user's end", err, "")
	_, err = client.RemoveUser(ctx, made.Token, ada.VendorUserID, ada.Email)
	want("the user's end once more", err, NotFound)
	_, err = client.RemoveUser(ctx, NewSecret("that of nobody"), ada.VendorUserID, ada.Email)
	want("with a token of nobody", err, Forbidden)
}
