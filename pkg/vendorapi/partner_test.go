package vendorapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	vendorToken  = "vendor/t0ken+key"
	partnerToken = "partner:t0ken"
	// The two above as the platform wants them, worked out by hand.
	wireToken = "dmVuZG9yL3Qwa2VuK2tleTpwYXJ0bmVyOnQwa2Vu"
)

var aCount = Count{AccountID: "a-17", ServiceID: "backup", Units: "42"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newClient makes a client of a partner that answers by handler.
func newClient(t testing.TB, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return newClientOf(t, server.URL+"/api", nil)
}

func newClientOf(t testing.TB, address string, change func(*Config)) *Client {
	t.Helper()
	config := Config{BaseURL: address, Credentials: NewCredentials(vendorToken, partnerToken), Timeout: 5 * time.Second}
	if change != nil {
		change(&config)
	}
	client, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// answer is a partner that always says the same.
func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// failure returns the typed error of a call that had to fail.
func failure(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := err.(*Error) //nolint:errorlint // the client's own error, wrapped in nothing
	if !ok {
		t.Fatalf("got error %v (%T), want an *Error", err, err)
	}
	return e
}

// wire is what a partner sees of a call.
type wire struct {
	method, path, query, body                                    string
	authorization, gradientToken, contentType, accept, userAgent string
}

func record(into *wire, status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*into = wire{
			method: r.Method, path: r.URL.EscapedPath(), query: r.URL.RawQuery, body: string(body),
			authorization: r.Header.Get("Authorization"), gradientToken: r.Header.Get("Gradient-Token"),
			contentType: r.Header.Get("Content-Type"), accept: r.Header.Get("Accept"), userAgent: r.UserAgent(),
		}
		w.WriteHeader(status)
	}
}

func TestCallsOnTheWire(t *testing.T) {
	ctx := t.Context()
	cases := []struct {
		name string
		call func(*Client) error
		want wire
	}{
		{"an account", func(c *Client) error {
			_, err := c.PostAccount(ctx, Account{ID: "a-17", Name: "Müller & <Söhne>", ExternalID: "X 1", Description: "not sent"})
			return err
		}, wire{method: "POST", path: "/api/vendor-api/organization/accounts",
			body: `{"vendorAccountId":"a-17","name":"Müller & <Söhne>","externalId":"X 1"}`}},
		{"an account without an external id", func(c *Client) error {
			_, err := c.PostAccount(ctx, Account{ID: "a-17", Name: "Acme"})
			return err
		}, wire{method: "POST", path: "/api/vendor-api/organization/accounts",
			body: `{"vendorAccountId":"a-17","name":"Acme"}`}},
		{"a service", func(c *Client) error {
			_, err := c.PostService(ctx, Service{ID: "backup", Name: "Backup", Description: ""})
			return err
		}, wire{method: "POST", path: "/api/vendor-api/organization/services",
			body: `{"id":"backup","name":"Backup","description":""}`}},
		{"the mapping", func(c *Client) error {
			_, err := c.SetMapping(ctx)
			return err
		}, wire{method: "PATCH", path: "/api/vendor-api/status/mapping", body: `{}`}},
		{"a count", func(c *Client) error {
			_, err := c.PostCount(ctx, Count{AccountID: "a/17", ServiceID: "backup", Units: "1000000000000.000001"})
			return err
		}, wire{method: "POST", path: "/api/vendor-api/service/backup/count",
			body: `{"accountId":"a/17","unitCount":1000000000000.000001}`}},
		{"a count of zero that shall not rebuild", func(c *Client) error {
			_, err := c.PostCount(ctx, Count{AccountID: "a-17", ServiceID: "backup", Units: "0", NoBuild: true})
			return err
		}, wire{method: "POST", path: "/api/vendor-api/service/backup/count",
			body: `{"accountId":"a-17","unitCount":0}`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got wire
			if err := c.call(newClient(t, record(&got, 201))); err != nil {
				t.Fatal(err)
			}
			c.want.authorization, c.want.contentType, c.want.userAgent = "Bearer "+wireToken, "application/json", "usagebridge"
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestAnyServiceIDIsOneSegmentOfThePath(t *testing.T) {
	for id, want := range map[string]string{
		"backup":      "backup",
		"a/b":         "a%2Fb",
		"two words":   "two%20words",
		"50%":         "50%25",
		"%2F":         "%252F",
		"why?":        "why%3F",
		"#1":          "%231",
		"nb\u00a0sp":  "nb%C2%A0sp",
		"🚀":           "%F0%9F%9A%80",
		".":           "%2E",
		"..":          "%2E%2E",
		"...":         "...",
		"../accounts": "..%2Faccounts",
		"a;b,c":       "a%3Bb%2Cc",
		`back\slash`:  "back%5Cslash",
		"line\nbreak": "line%0Abreak",
		"a+b=c&d:e@f": "a+b=c&d:e@f",
	} {
		t.Run(fmt.Sprintf("%q", id), func(t *testing.T) {
			var got wire
			_, err := newClient(t, record(&got, 201)).PostCount(t.Context(), Count{AccountID: "a", ServiceID: id, Units: "1"})
			if err != nil {
				t.Fatal(err)
			}
			if want := "/api/vendor-api/service/" + want + "/count"; got.path != want {
				t.Errorf("got path %s, want %s", got.path, want)
			}
			if back, err := url.PathUnescape(want); err != nil || back != id {
				t.Errorf("got %q back (error %v), want %q", back, err, id)
			}
		})
	}
}

func TestTheAPIAddressIsKeptAsItIs(t *testing.T) {
	for suffix, want := range map[string]string{
		"": "/vendor-api/status/mapping", "/": "/vendor-api/status/mapping",
		"/api//": "/api/vendor-api/status/mapping", "/te%2Fnant/api": "/te%2Fnant/api/vendor-api/status/mapping",
	} {
		var got wire
		server := httptest.NewServer(record(&got, 200))
		_, err := newClientOf(t, server.URL+suffix, nil).SetMapping(t.Context())
		server.Close()
		if err != nil || got.path != want {
			t.Errorf("%q: got path %q and error %v, want %q", suffix, got.path, err, want)
		}
	}
}

func TestWhatCannotBeMeantIsNotSent(t *testing.T) {
	client := newClient(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was called, want no call", r.URL) })
	ctx := t.Context()
	count := func(account, service, units string) error {
		_, err := client.PostCount(ctx, Count{AccountID: account, ServiceID: service, Units: json.Number(units)})
		return err
	}
	_, emptyAccount := client.PostAccount(ctx, Account{Name: "Acme"})
	_, brokenService := client.PostService(ctx, Service{ID: "a\xff"})
	errs := map[string]error{
		"an account without id":     emptyAccount,
		"a service with broken id":  brokenService,
		"a count without account":   count("", "s", "1"),
		"a count without service":   count("a", "", "1"),
		"a count of broken account": count("a\xff", "s", "1"),
	}
	for _, units := range []string{"", " ", "-1", "+1", "1e3", "01", ".5", "1.", "NaN", "null", "1,5", "1\n", `"1"`, "0x1"} {
		errs[fmt.Sprintf("units %q", units)] = count("a", "s", units)
	}
	for name, err := range errs {
		e := failure(t, err)
		if e.Class() != Rejected || !e.Permanent() || e.Sent() || e.Unknown() || e.StatusCode() != 0 {
			t.Errorf("%s: got %v (class %s, sent %t), want rejected and not sent", name, e, e.Class(), e.Sent())
		}
	}
}
