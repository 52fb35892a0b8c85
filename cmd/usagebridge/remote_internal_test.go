package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// ours is a record of ours as a comparison looks at it.
func ours(name, id string, s status.Status) status.Integration {
	vendor, organization, _ := strings.Cut(name, "/")
	return status.Integration{
		Vendor: vendor, Organization: organization, Dialect: "mspcentric", IntegrationID: id, Standing: status.Standing{Status: s}, OEMToken: "sealed",
	}
}

func TestAnIntegrationIsTakenForThePlatformsOnlyWhereNoOtherCanBeMeant(t *testing.T) {
	one, two := oemapi.Integration{ID: "i-1", VendorID: "pv", Status: "Pending"}, oemapi.Integration{ID: "i-2", VendorID: "pw", Status: "mapping"}
	for _, tt := range []struct {
		name  string
		all   []status.Integration
		asked int // how many of all have the token that the list was asked with
		list  []oemapi.Integration
		want  []string
	}{
		{
			"by its id", []status.Integration{ours("a/m", "i-2", "mapping")}, 1, []oemapi.Integration{one, two},
			[]string{"a/m i-2: same", "?/m i-1: unknown here"},
		},
		{"as the only one", []status.Integration{ours("a/m", "", "pending")}, 1, []oemapi.Integration{one}, []string{"a/m i-1: same"}},
		{"as none of several", []status.Integration{ours("a/m", "", "pending")}, 1, []oemapi.Integration{one, two}, []string{"a/m : not known which"}},
		{"an empty list", []status.Integration{ours("a/m", "", "pending")}, 1, nil, []string{"a/m : missing there"}},
		{
			"another vendor's is the only one", []status.Integration{ours("a/m", "", "pending"), ours("b/m", "i-1", "pending")}, 2, []oemapi.Integration{one},
			[]string{"a/m : missing there", "b/m i-1: same"},
		},
		{
			"another vendor's without a token", []status.Integration{ours("a/m", "i-2", "mapping"), ours("b/m", "i-1", "pending")}, 1, []oemapi.Integration{one, two},
			[]string{"a/m i-2: same"},
		},
		{
			"two without an id and one listed", []status.Integration{ours("a/m", "", "pending"), ours("b/m", "", "pending")}, 2, []oemapi.Integration{one},
			[]string{"a/m : not known which", "b/m : not known which"},
		},
		{
			"two organizations with one token", []status.Integration{ours("a/m", "i-1", "pending"), ours("a/n", "", "pending")}, 2, []oemapi.Integration{one},
			[]string{"a/m i-1: same", "a/n : missing there"},
		},
		{
			"the id of another organization", []status.Integration{ours("a/m", "i-2", "mapping"), ours("a/n", "i-1", "pending")}, 1, []oemapi.Integration{one, two},
			[]string{"a/m i-2: same", "?/m i-1: unknown here"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &sides{list: tt.list}
			for at := range tt.all[:tt.asked] {
				s.ours = append(s.ours, &tt.all[at])
			}
			var got []string
			for _, r := range s.compare(tt.all) {
				got = append(got, fmt.Sprintf("%s %s: %s", r.shown(), r.PlatformID, r.Verdict))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// clientOf is a client of the platform that the handler plays.
func clientOf(t *testing.T, handler http.HandlerFunc) *oemapi.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := oemapi.New(oemapi.Config{BaseURL: server.URL + "/api", ClientID: "client", ClientSecret: oemapi.NewSecret("c-secret")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func TestFourOrganizationsAreAskedForAtATime(t *testing.T) {
	var mu sync.Mutex
	under, most := 0, 0 // calls under way, and the most of them
	waiting, full := 0, make(chan struct{})
	client := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		under++
		waiting++
		most = max(most, under)
		mine := full
		if waiting == 4 { // only so many together are let go
			close(full)
			full, waiting = make(chan struct{}), 0
		}
		mu.Unlock()
		<-mine
		mu.Lock()
		under-- // before the caller can make the next
		mu.Unlock()
		_, _ = io.WriteString(w, `{"integrations":[]}`)
	})
	var list []*sides
	for n := range 3 * 4 {
		list = append(list, &sides{token: oemapi.NewSecret(fmt.Sprint("token-", n))})
	}
	if err := askRemote(t.Context(), client, list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.err != nil || s.list == nil {
			t.Errorf("got %v and %v, want an empty list", s.list, s.err)
		}
	}
	if most != 4 {
		t.Errorf("got %d at a time, want 4", most)
	}
}

func TestAnInterruptEndsTheComparisonWithoutAVerdict(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := clientOf(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the server would not see the caller go
		cancel()
		<-r.Context().Done()
	})
	if err := askRemote(ctx, client, []*sides{{token: oemapi.NewSecret("token")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestATokenThatCannotBeOpenedKeepsNoOtherFromBeingAskedFor(t *testing.T) {
	keys, other := newKeys(t), newKeys(t)
	all := []status.Integration{ours("a/1", "", "pending"), ours("a/2", "", "pending"), ours("b/2", "", "pending"), ours("a/3", "", "pending")}
	for at, by := range []*vault.Vault{other, keys, keys} {
		sealed, err := by.Seal(vault.NewSecret("t0ken"), all[at].Name())
		if err != nil {
			t.Fatal(err)
		}
		all[at].OEMToken = sealed
	}
	all[3].OEMToken = ""
	list, left := bothSides(keys, all, "")
	if len(list) != 2 || left != 1 || list[0].err == nil || len(list[1].ours) != 2 {
		t.Fatalf("got %d organizations and %d without a token; want that of a/1 with an error, that of a/2 and b/2 once, and 1 without", len(list), left)
	}
	if rows := list[0].compare(all); len(rows) != 1 || rows[0].Verdict != remoteNotAsked || !strings.Contains(rows[0].Note, "MASTER_KEYSET") {
		t.Errorf("got %+v, want one that was not asked, because of the keyset", rows)
	}
}

func newKeys(t *testing.T) *vault.Vault {
	t.Helper()
	keys, err := vault.Open(vault.Source{File: filepath.Join(t.TempDir(), "keyset.json"), CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// interrupting cancels as soon as a whole answer has been read.
type interrupting struct{ cancel context.CancelFunc }

func (i interrupting) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		response.Body = interruptingBody{response.Body, i.cancel}
	}
	return response, err
}

type interruptingBody struct {
	io.ReadCloser

	cancel context.CancelFunc
}

func (b interruptingBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

func TestAnInterruptLosesNoTokenThatThePlatformHasAnswered(t *testing.T) {
	a := letterApp(t)
	if err := a.addIntegration(t.Context(), newIntegration{
		vendor: "acme", organization: "msp-1", dialect: "mspcentric", apiURL: "https://platform.example/api", status: "connected", vendorToken: "v", partnerToken: "p",
	}); err != nil {
		t.Fatal(err)
	}
	i, err := a.integration(t.Context(), "acme", "msp-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := a.vault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&platform{Organizations: map[string]*platformOrganization{"msp-1": {Token: "t0ken"}}})
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client, err := oemapi.New(oemapi.Config{
		BaseURL: server.URL + "/api", ClientID: "client", ClientSecret: oemapi.NewSecret("c-secret"), Transport: interrupting{cancel},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	c, _, _ := talker()
	u := &platformUser{email: "ann@msp.example", first: "Ann", last: "E", id: "u-1"}
	if err := c.addUser(ctx, &tenant{app: a, client: client, vault: keys, integration: i}, u); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil {
		t.Fatal("nothing was interrupted: this test proves nothing")
	}
	if i, err = a.integration(t.Context(), "acme", "msp-1"); err != nil {
		t.Fatal(err)
	}
	if token, err := openOEMToken(keys, i); err != nil || token.Reveal() != "t0ken" {
		t.Errorf("got a token of %d bytes and %v, want the one that was answered", len(token.Reveal()), err)
	}
	found := 0
	if err := a.actions(t.Context(), noon.AddDate(-99, 0, 0), func(done action) bool {
		if done.Action == "user added" {
			found++
		}
		return true
	}); err != nil || found != 1 {
		t.Errorf("got %d actions on record and %v, want 1", found, err)
	}
}

func TestATokenThatSomebodyElseStoredMeanwhileStays(t *testing.T) {
	a := letterApp(t)
	if err := a.addIntegration(t.Context(), newIntegration{
		vendor: "acme", organization: "msp-1", dialect: "mspcentric", apiURL: "https://platform.example/api", status: "connected",
		vendorToken: "v", partnerToken: "p", oemToken: "first",
	}); err != nil {
		t.Fatal(err)
	}
	keys, err := a.vault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := ours("acme/msp-1", "", "connected") // as it was read: without a token
	tenant := &tenant{app: a, vault: keys, integration: &before}
	if err := tenant.storeOEMToken(t.Context(), oemapi.NewSecret("second")); err == nil || !strings.Contains(err.Error(), "stored at the same time") {
		t.Errorf("got %v, want a refusal", err)
	}
	i, err := a.integration(t.Context(), "acme", "msp-1")
	if err != nil {
		t.Fatal(err)
	}
	if token, err := openOEMToken(keys, i); err != nil || token.Reveal() != "first" {
		t.Errorf("got another token than the first, or %v", err)
	}
}

func TestAValueFromStandardInputIsBoundedAndLosesItsLineEnd(t *testing.T) {
	for _, tt := range []struct{ stdin, want, problem string }{
		{"value\r\n", "value", ""},
		{strings.Repeat("x", maxCredentialBytes), strings.Repeat("x", maxCredentialBytes), ""},
		{strings.Repeat("x", maxCredentialBytes+1), "", "standard input is longer than 64 KiB"},
		{"\n", "", "standard input is empty"},
	} {
		values, err := readCredentials([]string{"a b=-"}, strings.NewReader(tt.stdin))
		if got := values["a b"].Reveal(); got != tt.want || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%.10q: got %d bytes and %v, want %d bytes and %q", tt.stdin, len(got), err, len(tt.want), tt.problem)
		}
	}
}
