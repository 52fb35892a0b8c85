package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// wayTo is the way to a partner that the record says is connected.
func wayTo(t *testing.T, address string, dialect vendorapi.Dialect) *connection {
	t.Helper()
	w := &connection{
		integration: &status.Integration{
			Vendor: "acme", Organization: "msp-1", Dialect: string(dialect), APIURL: address + "/api", Since: noon,
		},
		transport: vendorapi.NewTransport(1), timeout: 5 * time.Second, skew: 150 * time.Second,
	}
	w.integration.Status = status.Connected
	t.Cleanup(w.transport.CloseIdleConnections)
	var err error
	w.client, err = vendorapi.New(vendorapi.Config{
		BaseURL: w.integration.APIURL, Dialect: dialect, Credentials: vendorapi.NewCredentials("v-token", "p-token"),
		Transport: w.transport, Timeout: w.timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// walked goes the way, and looks that no secret is told on it.
func walked(t *testing.T, w *connection) map[string]connectionStep {
	t.Helper()
	if err := w.walk(t.Context()); err != nil {
		t.Fatalf("walk: %v", err)
	}
	told, err := json.Marshal(w.steps)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"v-token", "p-token", "s3cret", base64.StdEncoding.EncodeToString([]byte("v-token:p-token"))} {
		if bytes.Contains(told, []byte(secret)) {
			t.Errorf("the steps show %q: %s", secret, told)
		}
	}
	steps := map[string]connectionStep{}
	var names []string
	for _, s := range w.steps {
		steps[s.Step] = s
		names = append(names, s.Step)
	}
	if want := []string{"dns", "tcp", "tls", "http", "clock", "token", "status"}; !slices.Equal(names, want) {
		t.Errorf("steps: got %v, want %v", names, want)
	}
	return steps
}

// wants looks for a verdict and for words in what the step says.
func (s connectionStep) wants(t *testing.T, v verdict, words ...string) {
	t.Helper()
	if s.Verdict != v {
		t.Errorf("%s: got %s, want %s (%s)", s.Step, s.Verdict, v, s.Meaning)
	}
	if (s.Mend == "") != (v == stepOK || v == stepSkipped) && s.Verdict == v {
		t.Errorf("%s: %s with the advice %q, want advice for what is not in order and for nothing else", s.Step, v, s.Mend)
	}
	for _, word := range words {
		if !strings.Contains(s.Meaning+" → "+s.Mend, word) {
			t.Errorf("%s: got %q → %q, want %q in it", s.Step, s.Meaning, s.Mend, word)
		}
	}
}

func answering(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// refusing answers every count; what is posted stands for @account and @path.
func refusing(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var count struct {
			Account string `json:"accountId"`
		}
		_ = json.NewDecoder(r.Body).Decode(&count)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, strings.NewReplacer("@account", count.Account, "@path", r.URL.Path).Replace(body))
	}
}

func TestTheAnswerToACountForNobodyTellsOfTokenAndStatus(t *testing.T) {
	for _, c := range []struct {
		name          string
		code          int
		body          string
		record        status.Status
		token, status verdict
		says          []string // of both
	}{
		{"it looked for the account", 404, `{"message":"No account map found with id: @account"}`, "connected", stepOK, stepOK, []string{"good", "takes counts"}},
		{"it takes counts and our record says that it does not", 404, `{"message":"unknown: @account"}`, "mapping", stepOK, stepWarning, []string{"takes counts", "our record says mapping"}},
		{"it does not say what it looked for", 404, `{"message":"not found"}`, "connected", stepWarning, stepSkipped, []string{"not proven", "check the API address"}},
		{"it has no such path", 404, `{"message":"Cannot POST @path"}`, "connected", stepFailed, stepSkipped, []string{"no Vendor-API of the dialect mspcentric at this address"}},
		{"it is not ready, as we know", 409, `{"message":"integration is not ready: mapping"}`, "mapping", stepOK, stepOK, []string{"good", "mapping, as our record does"}},
		{"it is not ready, which we do not know", 409, `{"message":"integration is not ready: inactive"}`, "connected", stepOK, stepWarning, []string{"says inactive", "our record says connected"}},
		{"it is not ready and does not say where it stands", 409, `{}`, "connected", stepOK, stepWarning, []string{"no counts yet", "our record says connected"}},
		{"it is not ready and we know that much", 409, `{}`, "mapping", stepOK, stepOK, nil},
		{"it refuses the token", 401, `{"message":"who are you"}`, "connected", stepFailed, stepSkipped, []string{"bad", "who are you", "credentials set acme/msp-1"}},
		{"it refuses with 403", 403, `{"message":"usage anomaly"}`, "connected", stepWarning, stepFailed, []string{"usage anomaly", "403"}},
		{"it is too busy", 429, ``, "connected", stepFailed, stepSkipped, []string{"takes no calls now", "try again later"}},
		{"it is down", 503, `down`, "connected", stepFailed, stepSkipped, []string{"503 down"}},
		{"it sends us elsewhere", 302, ``, "connected", stepFailed, stepSkipped, []string{"check the API address"}},
		{"it takes what cannot be", 200, `<html>welcome</html>`, "connected", stepFailed, stepSkipped, []string{"not proven", "was taken"}},
		{"it refuses the call as malformed", 400, `{"message":"accountId must be a number"}`, "connected", stepFailed, stepSkipped, []string{"must be a number"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wayTo(t, answering(t, refusing(c.code, c.body)), vendorapi.MSPCentric)
			w.integration.Status = c.record
			steps := walked(t, w)
			steps["http"].wants(t, stepOK, fmt.Sprint(c.code), "a count of 0", "can change nothing")
			steps["token"].wants(t, c.token)
			steps["status"].wants(t, c.status)
			both := steps["token"].Meaning + steps["token"].Mend + steps["status"].Meaning
			for _, words := range c.says {
				if !strings.Contains(both, words) {
					t.Errorf("got %q, want %q in it", both, words)
				}
			}
		})
	}
}

func TestABusyPartnerIsAskedAgainWhenItWantsToBe(t *testing.T) {
	w := wayTo(t, answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
	}), vendorapi.MSPCentric)
	walked(t, w)["token"].wants(t, stepFailed, "try again in 30s")
}

func TestTheCountOfTheTestNamesWhatCannotExistAndChangesNothing(t *testing.T) {
	played := sandbox.New(sandbox.Config{
		Human:        sandbox.HumanAPI,
		Integrations: []sandbox.Integration{{Name: "acme/msp-1", VendorToken: "v-token", PartnerToken: "p-token"}},
	})
	t.Cleanup(played.Close)
	address := answering(t, played.Handler().ServeHTTP)
	accounts := map[string]bool{}
	for _, s := range []sandbox.Status{sandbox.Inactive, sandbox.Mapping, sandbox.Pending, sandbox.Connected} {
		if err := played.SetStatus("acme/msp-1", s); err != nil {
			t.Fatal(err)
		}
		w := wayTo(t, address, vendorapi.MSPCentric)
		w.integration.Status = status.Status(s)
		steps := walked(t, w)
		steps["token"].wants(t, stepOK, "good")
		steps["status"].wants(t, stepOK)
		if r, _ := played.ReportOf("acme/msp-1"); r.Status != s {
			t.Errorf("the test moved the integration from %s to %s, want no change", s, r.Status)
		}
	}
	for _, call := range played.Tape() {
		accounts[call.Account] = true
		if call.Accepted || call.Operation != sandbox.OperationCount || call.Value != "0" || len(call.Account) != 36 || call.Account == call.Service {
			t.Errorf("got the call %+v, want a refused count of 0 for two random ids", call)
		}
	}
	if len(accounts) != 4 {
		t.Errorf("got %d accounts in 4 tests, want a new one each time", len(accounts))
	}
	if err := played.SetAnomaly("acme/msp-1", true); err != nil {
		t.Fatal(err)
	}
	walked(t, wayTo(t, address, vendorapi.MSPCentric))["status"].wants(t, stepFailed, "403")
}

func TestAPlatformThatCanBeReadIsAskedWhoseTokensTheseAre(t *testing.T) {
	played := sandbox.New(sandbox.Config{
		Human:        sandbox.HumanAPI,
		Integrations: []sandbox.Integration{{Name: "acme/Best MSP", Dialect: sandbox.Gradient, VendorToken: "v-token", PartnerToken: "p-token"}},
	})
	t.Cleanup(played.Close)
	address := answering(t, played.Handler().ServeHTTP)
	for _, c := range []struct {
		theirs sandbox.Status
		ours   status.Status
		want   verdict
		says   string
	}{
		{sandbox.Inactive, status.Inactive, stepOK, "says inactive, as our record does"},
		{sandbox.Mapping, status.Mapping, stepOK, "says mapping (the platform's word is pending)"},
		{sandbox.Pending, status.Pending, stepOK, "the platform's word is pending"},
		{sandbox.Connected, status.Connected, stepOK, "says connected (the platform's word is active)"},
		{sandbox.Connected, status.Mapping, stepWarning, "says connected (the platform's word is active), our record says mapping"},
		{sandbox.Inactive, status.Connected, stepWarning, "says inactive, our record says connected (since 2026-11-20T12:00:00Z)"},
	} {
		if err := played.SetStatus("acme/Best MSP", c.theirs); err != nil {
			t.Fatal(err)
		}
		w := wayTo(t, address, vendorapi.Gradient)
		w.integration.Status = c.ours
		steps := walked(t, w)
		steps["http"].wants(t, stepOK, "200", "GET /organization")
		steps["token"].wants(t, stepOK, `those of "Best MSP"`, "is that acme/msp-1?")
		steps["status"].wants(t, c.want, c.says)
	}
	for _, call := range played.Tape() {
		if call.Operation != sandbox.OperationOrganization {
			t.Errorf("got the call %s, want nothing but reads of the organization", call.Operation)
		}
	}
	if err := played.RevokeTokens("acme/Best MSP"); err != nil {
		t.Fatal(err)
	}
	walked(t, wayTo(t, address, vendorapi.Gradient))["token"].wants(t, stepFailed, "bad", "401")
}

func TestAPageInTheWayIsNoOrganization(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a page":         refusing(200, "<html>welcome</html>"),
		"other JSON":     refusing(200, `{"hello":"world"}`),
		"no such path":   refusing(404, "404 page not found"),
		"a gateway's no": refusing(502, "bad gateway"),
	} {
		t.Run(name, func(t *testing.T) {
			steps := walked(t, wayTo(t, answering(t, handler), vendorapi.Gradient))
			steps["token"].wants(t, stepFailed, "not ")
			steps["status"].wants(t, stepSkipped, "not tried: token failed")
		})
	}
	w := wayTo(t, answering(t, refusing(200, `{"organizationId":"o-1","name":"N"}`)), vendorapi.Gradient)
	walked(t, w)["status"].wants(t, stepSkipped, "does not tell; our record says connected")
}

func TestAHoldThatThePartnerNoLongerMeansIsToldWithItsEnd(t *testing.T) {
	for hold, mend := range map[ledger.HoldReason]string{ledger.Unauthorized: "the same ones will do", ledger.Anomaly: "its next probe lifts the hold"} {
		w := wayTo(t, answering(t, refusing(404, `{"message":"unknown: @account"}`)), vendorapi.MSPCentric)
		w.integration.Hold, w.integration.HoldSince, w.integration.HoldMessage = string(hold), noon, "no\x1bway"
		walked(t, w)["status"].wants(t, stepWarning, "takes counts", "holds everything as "+string(hold)+" since 2026-11-20T12:00:00Z (no�way)", mend)
	}
}

func TestClocksThatDifferAreTold(t *testing.T) {
	for _, c := range []struct {
		name string
		off  time.Duration
		want verdict
		says string
	}{
		{"in step", 0, stepOK, "agree"},
		{"a little behind", -4 * time.Second, stepOK, "agree"},
		{"a little ahead", 4 * time.Second, stepOK, "agree"},
		{"behind", -20 * time.Second, stepWarning, "behind ours"},
		{"ahead", 20 * time.Second, stepWarning, "ahead of ours"},
		{"far ahead", 5 * time.Minute, stepFailed, "ahead of ours: events are judged"},
		{"far behind", -5 * time.Minute, stepFailed, "behind ours: events are judged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wayTo(t, answering(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", time.Now().Add(c.off).UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusConflict)
			}), vendorapi.MSPCentric)
			steps := walked(t, w)
			steps["clock"].wants(t, c.want, c.says)
			steps["token"].wants(t, stepOK) // whatever the clock
		})
	}
	w := wayTo(t, answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusConflict)
	}), vendorapi.MSPCentric)
	walked(t, w)["clock"].wants(t, stepSkipped, "no time")
}

func TestOnlyADifferenceBeyondTheSecondAndTheCallCounts(t *testing.T) {
	at := noon.Add(20 * time.Second)
	for _, c := range []struct {
		date time.Time
		took time.Duration
		want verdict
	}{
		{at.Add(5 * time.Second), 0, stepOK},
		{at.Add(6 * time.Second), 0, stepWarning},
		{at.Add(150 * time.Second), 0, stepWarning},
		{at.Add(151 * time.Second), 0, stepFailed},
		{at.Add(-6 * time.Second), 0, stepOK}, // its clock may show 5.0 s less
		{at.Add(-7 * time.Second), 0, stepWarning},
		{at.Add(-12 * time.Second), 6 * time.Second, stepOK}, // written when the call began
		{at.Add(-13 * time.Second), 6 * time.Second, stepWarning},
		{at.Add(-152 * time.Second), 0, stepFailed},
	} {
		w := &connection{skew: 150 * time.Second}
		got := w.clock(&reply{at: at, result: vendorapi.Result{Date: c.date, Duration: c.took}})
		if got.verdict != c.want {
			t.Errorf("%v after a call of %v: got %s (%s), want %s", c.date.Sub(at), c.took, got.verdict, got.meaning, c.want)
		}
	}
}

// certified serves a refusal under a certificate, and gives the authority that
// signed it.
func certified(t *testing.T, change func(*x509.Certificate)) (address string, authority *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA", Organization: []string{"Trust Me"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100*24*time.Hour + time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"partner.example"},
		IsCA: true, BasicConstraintsValid: true,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(refusing(404, `{"message":"unknown: @account"}`))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	authority = x509.NewCertPool()
	authority.AddCert(parsed)
	return server.URL, authority
}

func TestACertificateIsJudgedBeforeAnyTokenIsSent(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name    string
		change  func(*x509.Certificate)
		trusted bool
		want    verdict
		says    []string
	}{
		{"good", func(*x509.Certificate) {}, true, stepOK, []string{"TLS 1.3, certificate of partner.example by Trust Me Test CA, expires in 100 days"}},
		{"expires in two weeks", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(14*day + time.Hour) }, true, stepOK, []string{"expires in 14 days"}},
		{"expires soon", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(14*day - time.Hour) }, true, stepWarning, []string{"expires in 13 days", "must renew it"}},
		{"expires tomorrow", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(day + time.Hour) }, true, stepWarning, []string{"expires in 1 day"}},
		{"expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, true, stepFailed, []string{"expired on", "must renew it"}},
		{"not valid yet", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, true, stepFailed, []string{"is good only from", "clock of this machine"}},
		{"of another host", func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = nil, []string{"a.example", "b.example", "c.example", "d.example"}
		}, true, stepFailed, []string{"a.example, b.example, c.example, 1 more", "is not one for 127.0.0.1"}},
		{"of an authority that nobody knows", func(*x509.Certificate) {}, false, stepFailed, []string{"is not trusted here", "unknown authority", "SSL_CERT_FILE"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, authority := certified(t, c.change)
			w := wayTo(t, address, vendorapi.MSPCentric)
			w.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
			if c.trusted {
				w.transport.TLSClientConfig.RootCAs = authority
			}
			steps := walked(t, w)
			steps["tls"].wants(t, c.want, c.says...)
			if c.want == stepFailed {
				steps["http"].wants(t, stepSkipped, "not tried: tls failed")
				return
			}
			steps["token"].wants(t, stepOK)
		})
	}
}

func TestAServerThatSpeaksNoTLSIsTold(t *testing.T) {
	plain := strings.Replace(answering(t, func(http.ResponseWriter, *http.Request) {}), "http:", "https:", 1)
	walked(t, wayTo(t, plain, vendorapi.MSPCentric))["tls"].wants(t, stepFailed, "does not speak TLS", "check scheme and port")

	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	w := wayTo(t, "https://"+silent.Addr().String(), vendorapi.MSPCentric)
	w.timeout = 50 * time.Millisecond
	walked(t, w)["tls"].wants(t, stepFailed, "no answer in time")
}

func TestAServerThatTearsTheConnectionGivesNoAnswer(t *testing.T) {
	w := wayTo(t, answering(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), vendorapi.MSPCentric)
	steps := walked(t, w)
	steps["http"].wants(t, stepFailed, "no whole answer (EOF)")
	for _, name := range []string{"clock", "token", "status"} {
		steps[name].wants(t, stepSkipped, "not tried: http failed")
	}
}

func TestTokensInClearAreAWarningUnlessTheyStayOnThisMachine(t *testing.T) {
	for address, want := range map[string]verdict{
		"http://127.0.0.1": stepSkipped, "http://[::1]": stepSkipped, "http://localhost": stepSkipped,
		"http://10.0.0.1": stepWarning, "http://partner.example": stepWarning,
	} {
		api, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		w := wayTo(t, address, vendorapi.MSPCentric)
		if got := w.secure(t.Context(), nil, api, farEnd{}); got.verdict != want {
			t.Errorf("%s: got %s (%s), want %s", address, got.verdict, got.meaning, want)
		}
	}
}

func TestWithAProxyTheWayLeadsToTheProxy(t *testing.T) {
	played := sandbox.New(sandbox.Config{Integrations: []sandbox.Integration{{Name: "acme/msp-1", VendorToken: "v-token", PartnerToken: "p-token"}}})
	t.Cleanup(played.Close)
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.Host
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		played.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	proxy := &url.URL{Scheme: "http", Host: server.Listener.Addr().String(), User: url.UserPassword("me", "s3cret")}

	w := wayTo(t, "http://partner.example", vendorapi.MSPCentric)
	w.transport.Proxy = http.ProxyURL(proxy)
	w.integration.Status = status.Inactive
	steps := walked(t, w)
	steps["tcp"].wants(t, stepOK, "connected to the proxy "+proxy.Host)
	steps["tls"].wants(t, stepWarning, "the tokens travel in clear")
	steps["token"].wants(t, stepOK)
	if asked != "POST partner.example" {
		t.Errorf("the proxy was asked for %q, want POST partner.example", asked)
	}

	w = wayTo(t, "https://partner.example", vendorapi.MSPCentric)
	w.transport.Proxy = http.ProxyURL(proxy)
	steps = walked(t, w)
	steps["tls"].wants(t, stepSkipped, "carries it through")
	steps["http"].wants(t, stepFailed, "no whole answer (Forbidden)")
	if asked != "CONNECT partner.example:443" {
		t.Errorf("the proxy was asked for %q, want CONNECT partner.example:443", asked)
	}

	w.transport.Proxy = func(*http.Request) (*url.URL, error) { return nil, fmt.Errorf("invalid proxy %s", proxy) }
	if err := w.walk(t.Context()); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "HTTPS_PROXY") {
		t.Errorf("a proxy that cannot be used: got %v, want an error that names HTTPS_PROXY and no password", err)
	}
}

func TestAProxyThatWantsAPasswordIsTold(t *testing.T) {
	w := wayTo(t, "http://partner.example", vendorapi.MSPCentric)
	proxy, err := url.Parse(answering(t, refusing(http.StatusProxyAuthRequired, "")))
	if err != nil {
		t.Fatal(err)
	}
	w.transport.Proxy = http.ProxyURL(proxy)
	walked(t, w)["http"].wants(t, stepFailed, "the proxy wants to know who is calling")
}

func TestPortsThatNobodyNamedAreThoseOfTheScheme(t *testing.T) {
	for _, c := range []struct{ api, proxy, want string }{
		{"https://partner.example", "", "partner.example:443"},
		{"http://partner.example", "", "partner.example:80"},
		{"https://partner.example:8443", "", "partner.example:8443"},
		{"https://[::1]", "", "[::1]:443"},
		{"https://partner.example", "http://gate.example", "the proxy gate.example:80"},
		{"https://partner.example", "https://gate.example", "the proxy gate.example:443"},
		{"https://partner.example", "socks5://me:s3cret@gate.example", "the proxy gate.example:1080"},
	} {
		w := wayTo(t, c.api, vendorapi.MSPCentric)
		w.transport.Proxy = nil
		if c.proxy != "" {
			proxy, err := url.Parse(c.proxy)
			if err != nil {
				t.Fatal(err)
			}
			w.transport.Proxy = http.ProxyURL(proxy)
		}
		if _, far, err := w.farEnd(); err != nil || far.String() != c.want {
			t.Errorf("%s by way of %q: got %q and error %v, want %q", c.api, c.proxy, far, err, c.want)
		}
	}
}

func TestAWalkThatIsInterruptedIsNoFinding(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := wayTo(t, answering(t, func(http.ResponseWriter, *http.Request) { cancel() }), vendorapi.MSPCentric)
	if err := w.walk(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
