package vendorapi

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAWrongConfigurationIsRefused(t *testing.T) {
	const secret = "s3cret"
	good := NewCredentials(vendorToken, partnerToken)
	const address = "https://sub.mspcentric.app/api"
	cases := []struct {
		name   string
		config Config
		want   []string
	}{
		{"nothing", Config{}, []string{"base URL: missing", "credentials: missing"}},
		{"everything at once", Config{BaseURL: "sub.mspcentric.app", Dialect: "esperanto", Timeout: -1, UserAgent: "a\nb", Credentials: NewCredentials("", "")},
			[]string{"base URL: not absolute", `dialect: "esperanto" is not spoken by this version; want "mspcentric" or "gradient"`, "timeout: -1ns is out of range", "user agent:", "vendor token: empty", "partner token: empty"}},
		{"another scheme", Config{BaseURL: "ftp://x/api", Credentials: good}, []string{"want an absolute http or https URL"}},
		{"no host", Config{BaseURL: "https:///api", Credentials: good}, []string{"not absolute"}},
		{"only a port", Config{BaseURL: "https://:80/api", Credentials: good}, []string{"not absolute"}},
		{"user info", Config{BaseURL: "https://me:" + secret + "@x/api", Credentials: good}, []string{"carries user info"}},
		{"a password that breaks the URL", Config{BaseURL: "https://me:" + secret + "/x@host", Credentials: good}, []string{"cannot be parsed"}},
		{"a query", Config{BaseURL: address + "?key=" + secret, Credentials: good}, []string{"carries a query"}},
		{"an empty query", Config{BaseURL: address + "?", Credentials: good}, []string{"carries a query"}},
		{"a fragment", Config{BaseURL: address + "#" + secret, Credentials: good}, []string{"carries a fragment"}},
		{"the client's own segment", Config{BaseURL: address + "/vendor-api/", Credentials: good}, []string{"ends in /vendor-api"}},
		{"a long timeout", Config{BaseURL: address, Credentials: good, Timeout: time.Minute + 1}, []string{"at most 1m0s"}},
		{"a colon in the vendor token", Config{BaseURL: address, Credentials: NewCredentials("a:"+secret, "b")}, []string{`vendor token: contains ":"`}},
		{"a line break", Config{BaseURL: address, Credentials: NewCredentials(secret+"\n", secret+"\r\n")},
			[]string{"vendor token: contains a line break", "partner token: contains a line break"}},
		{"blanks around", Config{BaseURL: address, Credentials: NewCredentials(" "+secret, secret+"\u00a0")},
			[]string{"vendor token: begins or ends with a blank", "partner token: begins or ends with a blank"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.config)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("got %q, which shows a secret", err)
			}
		})
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	client := newClientOf(t, "https://sub.mspcentric.app/api/", func(c *Config) { c.Timeout, c.Dialect = 0, MSPCentric })
	if client.timeout != 10*time.Second || client.userAgent != "usagebridge" || client.base.String() != "https://sub.mspcentric.app/api" {
		t.Errorf("got timeout %s, user agent %q, base %s", client.timeout, client.userAgent, client.base.String())
	}
}

func TestTheTransportRefusesOldTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(answer(201, ""))
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	_, err := newClientOf(t, server.URL, nil).PostCount(t.Context(), aCount)
	if e := failure(t, err); e.Class() != Network || !strings.Contains(e.Message(), "protocol version") {
		t.Errorf("got %v, want a refusal of the protocol version", e)
	}
}

func TestTheTransportSpeaksHTTP2(t *testing.T) {
	var proto string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto = r.Proto
		w.WriteHeader(http.StatusCreated)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	transport := NewTransport(0)
	transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if _, err := newClientOf(t, server.URL, func(c *Config) { c.Transport = transport }).PostCount(t.Context(), aCount); err != nil {
		t.Fatal(err)
	}
	if proto != "HTTP/2.0" || transport.MaxIdleConnsPerHost != 1 {
		t.Errorf("got %s and %d idle connections, want HTTP/2.0 and 1", proto, transport.MaxIdleConnsPerHost)
	}
}

// BenchmarkPostCount compares a call with the bare library's, on one partner.
func BenchmarkPostCount(b *testing.B) {
	server := httptest.NewServer(answer(201, `{"status":201,"message":"created"}`))
	defer server.Close()
	transport := NewTransport(defaultConcurrency)
	defer transport.CloseIdleConnections()

	b.Run("client", func(b *testing.B) {
		client := newClientOf(b, server.URL, func(c *Config) { c.Transport = transport })
		b.ReportAllocs()
		for b.Loop() {
			if _, err := client.PostCount(b.Context(), aCount); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("net/http", func(b *testing.B) {
		client := &http.Client{Transport: transport, Timeout: defaultTimeout}
		b.ReportAllocs()
		for b.Loop() {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL+"/vendor-api/service/backup/count",
				strings.NewReader(`{"accountId":"a-17","unitCount":42}`))
			if err != nil {
				b.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				b.Fatal(err)
			}
			_ = response.Body.Close()
		}
	})
}
