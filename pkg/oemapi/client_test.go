package oemapi

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	clientID     = "client-17"
	clientSecret = "cl/ient+s3c&ret"
	oemToken     = "oem:t0ken=="
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newClient makes a client of a platform that answers by handler.
func newClient(t testing.TB, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return newClientOf(t, server.URL+"/api", nil)
}

func newClientOf(t testing.TB, address string, change func(*Config)) *Client {
	t.Helper()
	config := Config{BaseURL: address, ClientID: clientID, ClientSecret: NewSecret(clientSecret), Timeout: 5 * time.Second}
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

// answer is a platform that always says the same.
func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// list asks for the integrations and checks that nothing comes beside an error.
func list(t testing.TB, c *Client) ([]Integration, Result, error) {
	t.Helper()
	got, result, err := c.Integrations(t.Context(), NewSecret(oemToken))
	if err != nil && got != nil {
		t.Errorf("got %+v beside error %v, want nothing beside an error", got, err)
	}
	return got, result, err
}

// failure returns the typed error of a call that had to fail.
func failure(t testing.TB, err error) *Error {
	t.Helper()
	e, ok := err.(*Error) //nolint:errorlint // the client's own error, wrapped in nothing
	if !ok {
		t.Fatalf("got error %v (%T), want an *Error", err, err)
	}
	return e
}

func TestAWrongConfigurationIsRefusedWithAllItsFaults(t *testing.T) {
	const secret = "s3cret"
	const address = "https://sub.mspcentric.app/api"
	with := func(address string) Config {
		return Config{BaseURL: address, ClientID: "id", ClientSecret: NewSecret(secret)}
	}
	for name, c := range map[string]struct {
		config Config
		want   []string
	}{
		"nothing": {Config{}, []string{"base URL: missing", "client id: empty", "client secret: empty"}},
		"everything at once": {Config{BaseURL: "sub.mspcentric.app?key=" + secret, ClientID: "a\nb", ClientSecret: NewSecret(secret + " "), Timeout: -1, UserAgent: "a\nb"},
			[]string{"base URL: not absolute", "carries a query", "client id: contains a line break", "client secret: begins or ends with a blank", "timeout: -1ns is out of range", "user agent:"}},
		"another scheme":                    {with("ftp://x/api"), []string{"want an absolute http or https URL"}},
		"no host":                           {with("https:///api"), []string{"not absolute"}},
		"user info":                         {with("https://me:" + secret + "@x/api"), []string{"carries user info"}},
		"a password that breaks the URL":    {with("https://me:" + secret + "/x@host"), []string{"cannot be parsed"}},
		"an empty query":                    {with(address + "?"), []string{"carries a query"}},
		"a fragment":                        {with(address + "#" + secret), []string{"carries a fragment"}},
		"the client's own segment":          {with(address + "/oem-api/"), []string{"ends in /oem-api"}},
		"a long timeout":                    {Config{BaseURL: address, Timeout: time.Minute + 1}, []string{"at most 1m0s"}},
		"a secret that JSON would not keep": {Config{BaseURL: address, ClientSecret: NewSecret(secret + "\xff")}, []string{"client secret: is not valid UTF-8"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c.config)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got error %v, want it to contain %q", err, want)
				}
			}
			if strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("got %v, which shows a secret", err)
			}
		})
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	client := newClientOf(t, "https://sub.mspcentric.app/api/", func(c *Config) { c.Timeout = 0 })
	want := "oemapi.Client(https://sub.mspcentric.app/api/oem-api)"
	if client.timeout != 10*time.Second || client.userAgent != "usagebridge" || client.String() != want {
		t.Errorf("got timeout %s, user agent %q, %s; want 10s, usagebridge, %s", client.timeout, client.userAgent, client, want)
	}
}

func TestTheAPIAddressIsKeptAsItIs(t *testing.T) {
	for suffix, want := range map[string]string{
		"": "/oem-api/integration/list", "/": "/oem-api/integration/list",
		"/api//": "/api/oem-api/integration/list", "/te%2Fnant/api": "/te%2Fnant/api/oem-api/integration/list",
	} {
		var got string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.URL.EscapedPath()
			answer(200, `{"integrations":[]}`)(w, r)
		}))
		_, _, err := list(t, newClientOf(t, server.URL+suffix, nil))
		server.Close()
		if err != nil || got != want {
			t.Errorf("%q: got path %q and error %v, want %q", suffix, got, err, want)
		}
	}
}

func TestACallThatIsGivenNoTransportDoesNotSpeakOldTLS(t *testing.T) {
	transport, ok := newClientOf(t, "https://sub.mspcentric.app/api", nil).transport.(*http.Transport)
	if !ok || transport.TLSClientConfig.MinVersion != tls.VersionTLS12 {
		t.Errorf("got transport %+v, want one that begins with TLS 1.2", transport)
	}
}
