package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// verdict is what came of one step of the way to a partner.
type verdict string

const (
	stepOK      verdict = "ok"
	stepWarning verdict = "warning"
	stepFailed  verdict = "failed"
	stepSkipped verdict = "skipped"
)

// finding is what one step has shown, in words, and what would mend it.
type finding struct {
	verdict       verdict
	meaning, mend string
}

func fine(format string, args ...any) finding {
	return finding{verdict: stepOK, meaning: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) finding {
	return finding{verdict: stepSkipped, meaning: fmt.Sprintf(format, args...)}
}

func warned(mend, format string, args ...any) finding {
	return finding{verdict: stepWarning, mend: mend, meaning: fmt.Sprintf(format, args...)}
}

func failed(mend, format string, args ...any) finding {
	return finding{verdict: stepFailed, mend: mend, meaning: fmt.Sprintf(format, args...)}
}

// connectionStep is a step as programs read it.
type connectionStep struct {
	Step    string  `json:"step"`
	Verdict verdict `json:"verdict"`
	Seconds float64 `json:"duration_seconds,omitempty"` // nothing was done where it is missing
	Meaning string  `json:"meaning"`
	Mend    string  `json:"mend,omitempty"`
}

// connection is the way to one partner, walked by the means of the worker
// itself: its transport, its client, its timeout.
type connection struct {
	integration *status.Integration
	client      *vendorapi.Client
	transport   *http.Transport
	timeout     time.Duration // of one step
	skew        time.Duration // clocks that differ by more are a failure

	steps  []connectionStep
	broken string // the step where the way ends; empty while it goes on
}

func (c *cli) integrationsTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test VENDOR/ORGANIZATION",
		Short: "Test the way to the partner, step by step, with the stored tokens",
		Long: `Tries what every call needs, one step after the other: the name, the connection,
the certificate, an answer, the clocks, the tokens, and whether the partner and
our record agree on the integration's status. Each step may take as long as a
call may (USAGEBRIDGE_PARTNER_TIMEOUT).

Nothing is changed. Where the platform can be read (Gradient) it is asked for
the organization. Where it cannot (MSPCentric) a count of 0 is posted for an
account and a service that cannot exist: the refusal tells what is to be known.

Ends with 1 if a step failed; warnings do not count as failures.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withIntegration(cmd.Context(), args[0], func(ctx context.Context, a *app, vendor, organization string) error {
				t, err := a.connection(ctx, vendor, organization)
				if err != nil {
					return err
				}
				defer t.transport.CloseIdleConnections()
				if err := t.walk(ctx); err != nil {
					return err
				}
				return c.showConnection(t)
			})
		},
	}
}

// connection prepares the test of an integration as a worker would use it.
func (a *app) connection(ctx context.Context, vendor, organization string) (*connection, error) {
	i, err := a.integration(ctx, vendor, organization)
	if err != nil {
		return nil, err
	}
	keys, err := a.vault(ctx)
	if err != nil {
		return nil, err
	}
	transport := vendorapi.NewTransport(1)
	e := engine{app: a, vault: keys, transport: transport}
	client, err := e.client(i)
	if err != nil {
		return nil, fmt.Errorf("integration %s cannot be used; is %s_MASTER_KEYSET the keyset with which it was added? %w", i.Name(), envPrefix, err)
	}
	return &connection{
		integration: i, client: client, transport: transport,
		timeout: a.config.PartnerTimeout, skew: a.config.TooFarAhead / 2,
	}, nil
}

// walk goes the whole way. Its error is no finding: only that of a walk which
// was ended from outside.
func (t *connection) walk(ctx context.Context) error {
	api, far, err := t.farEnd()
	if err != nil {
		return err
	}
	var conn net.Conn
	t.try("dns", func() finding { return t.resolve(ctx, far) })
	t.try("tcp", func() (f finding) {
		conn, f = t.dial(ctx, far)
		return f
	})
	if conn != nil {
		defer func() { _ = conn.Close() }()
	}
	t.try("tls", func() finding { return t.secure(ctx, conn, api, far) })
	var r reply
	t.try("http", func() finding {
		r = t.call(ctx)
		return r.arrived()
	})
	t.note("clock", func() finding { return t.clock(&r) })
	t.note("token", func() finding { return t.token(&r) })
	t.note("status", func() finding { return t.status(&r) })
	return ctx.Err()
}

// try makes one step, unless the way has ended before it.
func (t *connection) try(name string, do func() finding) {
	begun := time.Now()
	if t.note(name, do) {
		t.steps[len(t.steps)-1].Seconds = time.Since(begun).Seconds()
	}
}

// note is a step that takes no time of its own: an answer is looked at. It
// says whether anything was done.
func (t *connection) note(name string, do func() finding) bool {
	f := skipped("not tried: %s failed", t.broken)
	if t.broken == "" {
		f = do()
	}
	if f.verdict == stepFailed && name != "clock" { // a wrong clock is in nobody's way
		t.broken = name
	}
	t.steps = append(t.steps, connectionStep{Step: name, Verdict: f.verdict, Meaning: printable(f.meaning), Mend: printable(f.mend)})
	return f.verdict != stepSkipped
}

// farEnd is the other end of the connection: the partner, or the proxy that
// stands before it.
type farEnd struct {
	host, port string
	proxy      bool
}

func (f farEnd) String() string {
	if f.proxy {
		return "the proxy " + net.JoinHostPort(f.host, f.port)
	}
	return net.JoinHostPort(f.host, f.port)
}

// farEnd finds out where calls connect to. Errors of either address are not
// repeated: they would quote it, with whatever secret stands in it.
func (t *connection) farEnd() (api *url.URL, far farEnd, err error) {
	if api, err = url.Parse(t.integration.APIURL); err != nil {
		return nil, far, fmt.Errorf("integration %s: the API address cannot be read; %s", t.integration.Name(), t.otherAddress())
	}
	end := api
	if t.transport.Proxy != nil {
		proxy, err := t.transport.Proxy(&http.Request{URL: api})
		if err != nil {
			return nil, far, errors.New("the proxy that the environment names cannot be used: look at HTTP_PROXY, HTTPS_PROXY and NO_PROXY")
		}
		if proxy != nil {
			end, far.proxy = proxy, true
		}
	}
	far.host, far.port = end.Hostname(), end.Port()
	if far.port == "" {
		far.port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[end.Scheme]
	}
	far.port = or(far.port, "80")
	return api, far, nil
}

// address is the advice to look at something of the API address.
func (t *connection) address(advice string) string {
	return fmt.Sprintf("%s: `usagebridge integrations credentials set %s --api-url …` sets another", advice, t.integration.Name())
}

func (t *connection) otherAddress() string { return t.address("check the API address") }

func (t *connection) resolve(ctx context.Context, far farEnd) finding {
	if net.ParseIP(far.host) != nil {
		return skipped("%s is an address already", far.host)
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, far.host)
	if err == nil {
		slices.Sort(found)
		means := far.host + " is " + strings.Join(found, ", ")
		if far.proxy {
			means = "calls go through a proxy, which looks the partner up; " + means
		}
		return fine("%s", means)
	}
	mend := t.otherAddress()
	if far.proxy {
		mend = "look at HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
	}
	if absent, ok := errors.AsType[*net.DNSError](err); ok && absent.IsNotFound {
		return failed(mend, "the name %s does not exist", far.host)
	}
	return failed("look at the name servers of this machine, and "+mend, "the name %s could not be looked up: %s", far.host, because(err))
}

func (t *connection) dial(ctx context.Context, far farEnd) (net.Conn, finding) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	conn, err := t.transport.DialContext(ctx, "tcp", net.JoinHostPort(far.host, far.port))
	if err == nil {
		if net.ParseIP(far.host) != nil {
			return conn, fine("connected to %s", far)
		}
		return conn, fine("connected to %s as %s", far, conn.RemoteAddr())
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, failed("check the port of the address, and whether the server runs", "%s refuses connections: nothing listens there", far)
	}
	return nil, failed("look for a firewall between here and there", "no connection to %s: %s", far, because(err))
}

// because is why something failed, in few words and without any address.
func because(err error) string {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer in time"
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	if lookup, ok := err.(*net.DNSError); ok { //nolint:errorlint // the innermost error
		return lookup.Err
	}
	return err.Error()
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// warnDays is how many days before its end a certificate is to be renewed at
// the latest: those of today are renewed a month before.
const warnDays = 14

func (t *connection) secure(ctx context.Context, conn net.Conn, api *url.URL, far farEnd) finding {
	switch {
	case api.Scheme == "http" && isLoopback(api.Hostname()):
		return skipped("plain http, which does not leave this machine")
	case api.Scheme == "http":
		return warned(t.address("use an https address"), "plain http: the tokens travel in clear, and everybody on the way can read them")
	case far.proxy:
		return skipped("%s carries it through: a certificate that is not trusted shows as no answer", far)
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	config := t.transport.TLSClientConfig.Clone()
	config.ServerName = api.Hostname()
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return t.distrusted(err, api.Hostname())
	}
	state := secured.ConnectionState()
	leaf := state.PeerCertificates[0]
	days := int(time.Until(leaf.NotAfter).Hours() / 24)
	means := fmt.Sprintf("%s, certificate of %s by %s, expires in %s", tls.VersionName(state.Version),
		owner(leaf), issuer(leaf), plural(days, "day", "days"))
	if days < warnDays {
		return warned("whoever runs "+api.Hostname()+" must renew it; when it has expired no call will pass", "%s", means)
	}
	return fine("%s", means)
}

// distrusted says in words why there is no trusted connection.
func (t *connection) distrusted(err error, host string) finding {
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return failed(t.address("check scheme and port of the API address"), "%s does not speak TLS on this port (%s)", host, plain.Msg)
	}
	refused, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(refused.UnverifiedCertificates) == 0 {
		return failed("compare the TLS versions of both sides, and look for something in between", "no TLS with %s: %s", host, because(err))
	}
	leaf := refused.UnverifiedCertificates[0]
	what := fmt.Sprintf("the certificate of %s by %s ", owner(leaf), issuer(leaf))
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case isInvalid && invalid.Reason == x509.Expired && time.Now().Before(leaf.NotBefore):
		return failed("check the clock of this machine", "%sis good only from %s on", what, instant(leaf.NotBefore))
	case isInvalid && invalid.Reason == x509.Expired:
		return failed("whoever runs "+host+" must renew it; check the clock of this machine, too", "%sexpired on %s", what, instant(leaf.NotAfter))
	}
	if _, other := errors.AsType[x509.HostnameError](err); other {
		return failed(t.otherAddress(), "%sis not one for %s", what, host)
	}
	return failed("if a gateway of yours stands in between, add its authority to those of this machine (SSL_CERT_FILE); if not, ask the platform",
		"%sis not trusted here: %s", what, refused.Err)
}

// owner is whose certificate it is; some are for very many.
func owner(c *x509.Certificate) string {
	names := c.DNSNames
	if more := len(names) - 3; more > 0 {
		names = append(slices.Clone(names[:3]), fmt.Sprintf("%d more", more))
	}
	return or(or(strings.Join(names, ", "), c.Subject.CommonName), "nobody")
}

func issuer(c *x509.Certificate) string {
	return or(strings.TrimSpace(strings.Join(c.Issuer.Organization, ", ")+" "+c.Issuer.CommonName), "nobody")
}

// reply is what came of the one call of the test.
type reply struct {
	result       vendorapi.Result
	failure      *vendorapi.Error // nil: a success
	at           time.Time
	organization *vendorapi.Organization // what a platform said that can be read
	account      string                  // of the count that was posted to one that cannot
	service      string
}

// call asks the partner something that changes nothing.
func (t *connection) call(ctx context.Context) (r reply) {
	var err error
	if t.client.Can(vendorapi.Reading) {
		var o vendorapi.Organization
		o, r.result, err = t.client.Organization(ctx)
		r.organization = &o
	} else {
		r.account, r.service = uuid.NewString(), uuid.NewString()
		r.result, err = t.client.PostCount(ctx, vendorapi.Count{AccountID: r.account, ServiceID: r.service, Units: "0"})
	}
	r.failure, _ = errors.AsType[*vendorapi.Error](err)
	r.at = time.Now()
	return r
}

// class is that of the failure, empty after a success.
func (r *reply) class() vendorapi.Class {
	if r.failure == nil {
		return ""
	}
	return r.failure.Class()
}

// said is the answer as people quote it.
func (r *reply) said() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.result.StatusCode, cut(r.result.Message, 200)))
}

func (r *reply) arrived() finding {
	asked := "the question whose tokens these are (GET /organization)"
	if r.organization == nil {
		asked = "a count of 0 for a random account and service; that call can change nothing"
	}
	switch {
	case r.class() == vendorapi.Cancelled:
		return failed("", "interrupted")
	case r.class() == vendorapi.Network:
		return failed("look at what stands between: a proxy, a gateway, the partner's own server", "no whole answer (%s) to %s", r.result.Message, asked)
	case r.result.StatusCode == http.StatusProxyAuthRequired:
		return failed("give HTTPS_PROXY or HTTP_PROXY a user and a password", "the proxy wants to know who is calling (%s)", r.said())
	}
	return fine("the partner answered %d to %s", r.result.StatusCode, asked)
}

// warnSkew is from which difference of the clocks on somebody should look.
const warnSkew = 5 * time.Second

// clock compares our clock with the partner's. Its Date says the second only,
// and was written at some time during the call: what differs by that alone
// does not count.
func (t *connection) clock(r *reply) finding {
	date := r.result.Date
	if date.IsZero() {
		return skipped("the answer says no time")
	}
	skew, word := date.Sub(r.at), "ahead of"
	if behind := r.at.Add(-r.result.Duration).Sub(date.Add(time.Second)); behind > 0 {
		skew, word = behind, "behind"
	}
	mend := "let a time service (NTP) set the clock of this machine; if it does, the partner's is wrong"
	differ := fmt.Sprintf("the partner's clock is %v %s ours", skew.Round(time.Second), word)
	switch {
	case skew > t.skew:
		return failed(mend, "%s: events are judged by their time, and one that seems too far ahead is dead", differ)
	case skew > warnSkew:
		return warned(mend, "%s", differ)
	}
	return fine("our clock and the partner's agree")
}

// token says what the answer tells of the tokens.
func (t *connection) token(r *reply) finding {
	switch r.class() {
	case "":
		if o := r.organization; o != nil {
			return fine("good: they are those of %q (%s); is that %s?", o.Name, or(o.OrganizationID, o.IntegrationID), t.integration.Name())
		}
		return failed(t.otherAddress(), "not proven: a count for an account that cannot exist was taken (%s), which no Vendor-API does", r.said())
	case vendorapi.NotReady:
		return fine("good: the partner let us in (%s)", r.said())
	case vendorapi.NotFound:
		if r.lookedFor() {
			return fine("good: the partner let us in, and looked for what was named (%s)", r.said())
		}
		if r.organization != nil || strings.Contains(r.result.Message, r.path()) {
			return failed(t.otherAddress(), "not proven: there is no Vendor-API of the dialect %s at this address (%s)", t.integration.Dialect, r.said())
		}
		return warned(t.otherAddress()+"; if it is right, the tokens are good",
			"not proven: the answer names neither account nor service, and may mean a wrong address as well (%s)", r.said())
	case vendorapi.Unauthorized:
		return failed(fmt.Sprintf("get new ones from the platform: `usagebridge integrations credentials set %s …`", t.integration.Name()),
			"bad: the partner does not know them (%s)", r.said())
	case vendorapi.Anomaly:
		return warned("see the status below", "not proven: a refusal like this may come before the tokens are looked at (%s)", r.said())
	case vendorapi.Throttled, vendorapi.Unavailable:
		mend := "try again later"
		if wait, asked := r.failure.RetryAfter(); asked {
			mend = fmt.Sprintf("try again in %v: the partner asks for that", wait)
		}
		return failed(mend, "not tested: the partner takes no calls now (%s)", r.said())
	default:
		return failed(t.otherAddress(), "not proven: this is not how a Vendor-API answers (%s)", r.said())
	}
}

// path is a part of the path of the count that was posted: a server that does
// not know it often repeats it.
func (r *reply) path() string { return "/service/" + r.service + "/" }

// lookedFor says whether the answer names what was asked for, as only a server
// does that has read the count.
func (r *reply) lookedFor() bool {
	if r.organization != nil {
		return false
	}
	message := strings.ReplaceAll(r.result.Message, r.path(), "")
	return strings.Contains(message, r.account) || strings.Contains(message, r.service)
}

// status holds what the partner says of the integration against our record.
func (t *connection) status(r *reply) finding {
	if r.class() == vendorapi.Anomaly {
		return failed("check the API address; if it is right, ask the platform what it objects to", "the partner refuses with 403, as for usage that it finds odd")
	}
	theirs, agree := t.theirs(r)
	i := t.integration
	switch {
	case theirs == "":
		return skipped("the answer does not tell; our record says %s", i.Status)
	case !agree:
		return warned("nothing, if a worker runs: it takes the partner's word over with its next call, at the latest with its next probe",
			"the partner says %s, our record says %s (since %s)", theirs, i.Status, instant(i.Since))
	case i.Hold != "":
		mend := "nothing, if a worker runs: its next probe lifts the hold"
		if i.Hold == string(vendorapi.Unauthorized) {
			mend = fmt.Sprintf("set the tokens again, the same ones will do: `usagebridge integrations credentials set %s …`", i.Name())
		}
		return warned(mend, "the partner says %s, our record says that it holds everything as %s since %s (%s)",
			theirs, i.Hold, instant(i.HoldSince), cut(i.HoldMessage, 100))
	}
	return fine("the partner says %s, as our record does", theirs)
}

// theirs is the integration's status as the partner tells it, in words, and
// whether our record agrees; empty when the answer does not tell.
func (t *connection) theirs(r *reply) (words string, agree bool) {
	record := t.integration.Status
	switch {
	case r.organization != nil && r.organization.Status != "":
		o := r.organization
		words = o.Status
		if o.RawStatus != o.Status {
			words += " (the platform's word is " + o.RawStatus + ")"
		}
		// Before and after a person has mapped, this platform says the same.
		heard := status.Heard(o.Status)
		return words, heard == record || heard == status.Mapping && record == status.Pending
	case r.organization != nil:
		return "", true
	case r.class() == vendorapi.NotReady:
		if s := status.FromMessage(r.result.Message); s != "" {
			return string(s), s == record
		}
		return "that it takes no counts yet", !record.Ready()
	case r.class() == vendorapi.NotFound && r.lookedFor():
		return "that it takes counts (pending or connected)", record.Ready()
	}
	return "", true
}

func (c *cli) showConnection(t *connection) error {
	count := map[verdict]int{}
	var wrong []string
	for _, s := range t.steps {
		count[s.Verdict]++
		if s.Verdict == stepFailed {
			wrong = append(wrong, s.Step)
		}
	}
	if err := c.showSteps(t.steps); err != nil {
		return err
	}
	name := t.integration.Name()
	if len(wrong) > 0 {
		return fmt.Errorf("integration %s: failed: %s", name, strings.Join(wrong, ", "))
	}
	c.say("integration %s: nothing failed: %s; gates: %s", name, countReasons(count), gates(t.integration))
	return nil
}

func (c *cli) showSteps(steps []connectionStep) error {
	if c.json {
		return c.printJSON(steps)
	}
	var rows [][]string
	for _, s := range steps {
		took := "-"
		if d := time.Duration(s.Seconds * float64(time.Second)).Round(100 * time.Microsecond); d > 0 {
			took = d.String()
		}
		rows = append(rows, []string{s.Step, string(s.Verdict), took, s.Meaning})
		if s.Mend != "" {
			rows = append(rows, []string{"", "", "", "→ " + s.Mend})
		}
	}
	return c.table([]string{"STEP", "VERDICT", "TOOK", "WHAT IT MEANS"}, rows)
}
