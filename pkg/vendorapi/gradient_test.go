package vendorapi

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// newGradient makes a client of a partner that speaks Gradient.
func newGradient(t testing.TB, handler http.HandlerFunc) *Client {
	t.Helper()
	return newClientOf(t, newClient(t, handler).base.String(), func(c *Config) { c.Dialect = Gradient })
}

// reads are the calls whose answer is what was asked for.
var reads = map[string]func(context.Context, *Client) (Result, error){
	"organization": func(ctx context.Context, c *Client) (Result, error) {
		got, result, err := c.Organization(ctx)
		return result, nothingBeside(err, got == Organization{})
	},
	"accounts": func(ctx context.Context, c *Client) (Result, error) {
		got, result, err := c.ListAccounts(ctx, true)
		return result, nothingBeside(err, got == nil)
	},
	"catalog": func(ctx context.Context, c *Client) (Result, error) {
		got, result, err := c.Catalog(ctx)
		return result, nothingBeside(err, got.ID == "" && got.Name == "" && got.SKUs == nil)
	},
}

func nothingBeside(err error, nothing bool) error {
	if err != nil && !nothing {
		return fmt.Errorf("something came beside the error: %w", err)
	}
	return err
}

func TestGradientCallsOnTheWire(t *testing.T) {
	ctx := t.Context()
	const base = "/api/vendor-api"
	account := Account{ID: "a-17", Name: "Müller & <Söhne>", ExternalID: "not sent", Description: "d"}
	cases := []struct {
		name string
		call func(*Client) (Result, error)
		want wire
	}{
		{"an account", func(c *Client) (Result, error) { return c.PostAccount(ctx, account) },
			wire{method: "POST", path: base + "/organization/accounts", body: `{"id":"a-17","name":"Müller & <Söhne>","description":"d"}`}},
		{"two accounts", func(c *Client) (Result, error) { return c.PostAccounts(ctx, []Account{account, {ID: "b", Name: "B"}}) },
			wire{method: "POST", path: base + "/organization/accounts",
				body: `[{"id":"a-17","name":"Müller & <Söhne>","description":"d"},{"id":"b","name":"B","description":""}]`}},
		{"one account in bulk", func(c *Client) (Result, error) { return c.PostAccounts(ctx, []Account{{ID: "b"}}) },
			wire{method: "POST", path: base + "/organization/accounts", body: `[{"id":"b","name":"","description":""}]`}},
		{"a service", func(c *Client) (Result, error) { return c.PostService(ctx, Service{ID: "backup", Name: "Backup"}) },
			wire{method: "POST", path: base + "/organization/services", body: `{"id":"backup","name":"Backup","description":""}`}},
		{"the mapping", func(c *Client) (Result, error) {
			mapping, err := c.SetMapping(ctx)
			return mapping.Result, err
		}, wire{method: "PATCH", path: base + "/organization/status/pending"}},
		{"a count", func(c *Client) (Result, error) {
			return c.PostCount(ctx, Count{AccountID: "a-17", ServiceID: "a/b", Units: "0.125"})
		}, wire{method: "POST", path: base + "/service/a%2Fb/count", body: `{"accountId":"a-17","unitCount":0.125}`}},
		{"a count that shall not rebuild", func(c *Client) (Result, error) {
			return c.PostCount(ctx, Count{AccountID: "a-17", ServiceID: "s?", Units: "0", NoBuild: true})
		}, wire{method: "POST", path: base + "/service/s%3F/count", query: "no_build=true", body: `{"accountId":"a-17","unitCount":0}`}},
		{"the organization", func(c *Client) (Result, error) { return reads["organization"](ctx, c) },
			wire{method: "GET", path: base + "/organization"}},
		{"all accounts", func(c *Client) (Result, error) { return reads["accounts"](ctx, c) },
			wire{method: "GET", path: base + "/organization/accounts"}},
		{"the mapped accounts", func(c *Client) (Result, error) {
			_, result, err := c.ListAccounts(ctx, false)
			return result, err
		}, wire{method: "GET", path: base + "/organization/accounts", query: "returnUnmapped=false"}},
		{"the catalog", func(c *Client) (Result, error) { return reads["catalog"](ctx, c) }, wire{method: "GET", path: base}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got wire
			result, err := c.call(newGradient(t, record(&got, 201)))
			if result.StatusCode != http.StatusCreated || (c.want.method != "GET" && err != nil) {
				t.Fatalf("got status %d and error %v, want 201", result.StatusCode, err)
			}
			c.want.gradientToken, c.want.userAgent = wireToken, "usagebridge"
			if c.want.body != "" {
				c.want.contentType = "application/json"
			}
			if c.want.method == "GET" {
				c.want.accept = "application/json"
			}
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestStatusesAreTranslatedToTheWordsOfMSPCentric(t *testing.T) {
	cases := []struct{ raw, gradient, mspcentric string }{
		{"inactive", "inactive", "inactive"},
		{"pending", "mapping", "pending"}, // before and after the human mapped
		{"active", "connected", "active"},
		{"Active", "connected", "Active"},
		{"mapping", "mapping", "mapping"},
		{"connected", "connected", "connected"},
		{"paused by " + partnerToken, "paused by ***", "paused by ***"},
		{"", "", ""},
	}
	for _, c := range cases {
		handler := answer(200, fmt.Sprintf(`{"status":200,"message":"ok","data":{"integrationId":9007199254740993,"status":%q}}`, c.raw))
		for _, spoken := range []struct {
			client *Client
			want   string
		}{{newGradient(t, handler), c.gradient}, {newClient(t, handler), c.mspcentric}} {
			got, err := spoken.client.SetMapping(t.Context())
			if err != nil || got.Status != spoken.want || got.IntegrationID != "9007199254740993" || got.Message != "ok" {
				t.Errorf("%s %q: got %+v and error %v, want status %q", spoken.client.dialect.name, c.raw, got, err, spoken.want)
			}
		}
		got, _, err := newGradient(t, handler).Organization(t.Context())
		if masked := strings.ReplaceAll(c.raw, partnerToken, "***"); err != nil || got.Status != c.gradient || got.RawStatus != masked {
			t.Errorf("organization %q: got %+v and error %v, want status %q", c.raw, got, err, c.gradient)
		}
	}
}

func TestADialectWithoutACallSendsNothing(t *testing.T) {
	client := newClient(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was called, want no call", r.URL) })
	calls := map[string]func(context.Context, *Client) (Result, error){
		"bulk": func(ctx context.Context, c *Client) (Result, error) { return c.PostAccounts(ctx, []Account{{ID: "a"}}) },
	}
	maps.Copy(calls, reads)
	for name, call := range calls {
		result, err := call(t.Context(), client)
		e := failure(t, err)
		if e.Class() != Unexpected || e.Sent() || e.Unknown() || e.StatusCode() != 0 || result.Message != e.Message() ||
			!strings.Contains(e.Error(), ": not sent: the dialect mspcentric has no such call") {
			t.Errorf("%s: got %v (class %s, sent %t), want %s and nothing sent", name, e, e.Class(), e.Sent(), Unexpected)
		}
	}
	gradient := newGradient(t, answer(200, ""))
	for _, capability := range []Capability{Reading, BulkAccounts, DeferredBuild} {
		if client.Can(capability) || !gradient.Can(capability) {
			t.Errorf("%s: got %t and %t, want Gradient alone", capability, client.Can(capability), gradient.Can(capability))
		}
	}
	if gradient.Can("flying") {
		t.Error("got a capability nobody has")
	}
}

func TestAccountsInBulkAreCheckedBeforeTheyAreSent(t *testing.T) {
	client := newGradient(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was called, want no call", r.URL) })
	many := make([]Account, MaxAccountsPerCall+1)
	for i := range many {
		many[i].ID = fmt.Sprint(i)
	}
	for want, accounts := range map[string][]Account{
		"0 accounts; want 1 to 500":                 nil,
		"501 accounts; want 1 to 500":               many,
		"id of account 1 is empty":                  {{ID: "a"}, {Name: "B"}},
		"id of account 0 is not valid UTF-8":        {{ID: "\xff"}},
		"accounts 0 and 2 have the same id":         {{ID: "a"}, {ID: "b"}, {ID: "a"}},
		"accounts 1 and 3 have the same id; want e": slices.Insert(slices.Clone(many[:3]), 3, many[1]),
	} {
		_, err := client.PostAccounts(t.Context(), accounts)
		if e := failure(t, err); e.Class() != Rejected || e.Sent() || !strings.Contains(e.Message(), want) {
			t.Errorf("got %v (class %s), want %s because of %q", e, e.Class(), Rejected, want)
		}
	}
	if result, err := newGradient(t, answer(201, "[]")).PostAccounts(t.Context(), many[:MaxAccountsPerCall]); err != nil {
		t.Errorf("%d accounts: got %+v and error %v, want a success", MaxAccountsPerCall, result, err)
	}
}

func TestAConflictInBulkIsNoSuccess(t *testing.T) {
	cases := []struct {
		body    string
		want    Class
		existed bool
	}{
		{`{"message":"account exists"}`, Rejected, true},
		{"", Rejected, true},
		{`{"message":"integration is not ready: inactive"}`, NotReady, false},
	}
	for _, c := range cases {
		client := newGradient(t, answer(409, c.body))
		result, err := client.PostAccounts(t.Context(), []Account{{ID: "a"}, {ID: "b"}})
		if e := failure(t, err); e.Class() != c.want || result.Existed != c.existed || result.StatusCode != http.StatusConflict {
			t.Errorf("%s: got %v (class %s, existed %t), want %s, %t", c.body, e, e.Class(), result.Existed, c.want, c.existed)
		}
		single, err := client.PostAccount(t.Context(), Account{ID: "a"})
		if c.existed && (err != nil || !single.Existed) {
			t.Errorf("%s: one account: got %+v and error %v, want it to exist", c.body, single, err)
		}
	}
}

func TestEvery2xxIsASuccessOfABulkPost(t *testing.T) {
	for _, body := range []string{"", "<html>", `[{"id":"a"}]`, `[{"id":"a`, `{"data":[]}`, strings.Repeat("[", 3*maxBodyBytes)} {
		result, err := newGradient(t, answer(201, body)).PostAccounts(t.Context(), []Account{{ID: "a"}})
		if err != nil || result.Existed {
			t.Errorf("%.20q: got %+v and error %v, want a success", body, result, err)
		}
		if data := body != "<html>"; data && result.Message != "" {
			t.Errorf("%.20q: got message %q, want none: data is no sentence", body, result.Message)
		}
	}
}

func TestGradientRefusalsAreClassified(t *testing.T) {
	for status, want := range map[int]Class{
		401: Unauthorized, 403: Anomaly, 404: NotFound, 409: NotReady, 429: Throttled, 400: Rejected, 503: Unavailable, 302: Unexpected,
	} {
		body := map[int]string{404: `{"statusCode":404,"message":"No account map found with id: a-17"}`}[status]
		client := newGradient(t, answer(status, body, "Retry-After", "3", "Location", "https://elsewhere.test/?"+wireToken))
		calls := map[string]func(context.Context, *Client) (Result, error){
			"count": func(ctx context.Context, c *Client) (Result, error) { return c.PostCount(ctx, aCount) },
		}
		maps.Copy(calls, reads)
		for name, call := range calls {
			result, err := call(t.Context(), client)
			e := failure(t, err)
			after, _ := e.RetryAfter()
			if e.Class() != want || e.StatusCode() != status || result.StatusCode != status || after != 3*time.Second || strings.Contains(e.Error(), wireToken) {
				t.Errorf("%s %d: got %v (class %s, retry after %s), want %s", name, status, e, e.Class(), after, want)
			}
		}
	}
}
