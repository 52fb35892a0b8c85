package sandbox_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const org = "acme/msp-0042"

// partner is a sandbox behind a real server, with the token of one integration.
type partner struct {
	*sandbox.Sandbox
	t      *testing.T
	server *httptest.Server
	header string // of the token
	token  string
}

func start(t *testing.T, c sandbox.Config) *partner {
	t.Helper()
	return startDialect(t, c, "")
}

func startDialect(t *testing.T, c sandbox.Config, d sandbox.Dialect) *partner {
	t.Helper()
	if c.Human == "" {
		c.Human = sandbox.HumanAPI
	}
	c.Integrations = append(c.Integrations, sandbox.Integration{Name: org, VendorToken: "vt", PartnerToken: "pt", Dialect: d})
	sb := sandbox.New(c)
	server := httptest.NewServer(sb.Handler())
	t.Cleanup(func() {
		sb.Close()
		server.Close()
	})
	p := &partner{Sandbox: sb, t: t, server: server, header: "Authorization", token: bearer("vt", "pt")}
	if d == sandbox.Gradient {
		p.header, p.token = "GRADIENT-TOKEN", token64("vt", "pt")
	}
	return p
}

func bearer(vendor, partner string) string { return "Bearer " + token64(vendor, partner) }

func token64(vendor, partner string) string {
	return base64.StdEncoding.EncodeToString([]byte(vendor + ":" + partner))
}

// clock stands still at 2026-11-20 12:00:00 UTC until it is advanced.
type clock struct{ nanoseconds atomic.Int64 }

func (c *clock) Now() time.Time {
	return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC).Add(time.Duration(c.nanoseconds.Load()))
}

func (c *clock) Advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }

// reply is an answer read to its end; err says why there is none.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

func (p *partner) do(method, path, body string) reply {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.server.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatalf("build %s %s: %v", method, path, err)
	}
	if p.token != "" {
		req.Header.Set(p.header, p.token)
	}
	return send(p.server.Client(), req)
}

func send(client *http.Client, req *http.Request) reply {
	res, err := client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(text), err}
}

func (p *partner) call(method, path, body string) reply {
	p.t.Helper()
	return p.do(method, sandbox.BasePath+path, body)
}

func (p *partner) account(id string) reply {
	return p.call("POST", "/organization/accounts", fmt.Sprintf(`{"vendorAccountId":%q,"name":"A","externalId":"x"}`, id))
}

func (p *partner) service(id string) reply {
	return p.call("POST", "/organization/services", fmt.Sprintf(`{"id":%q,"name":"S","description":"d"}`, id))
}

func (p *partner) askForMapping() reply { return p.call("PATCH", "/status/mapping", "") }

func (p *partner) count(account, service, value string) reply {
	return p.call("POST", "/service/"+url.PathEscape(service)+"/count", fmt.Sprintf(`{"unitCount":%s,"accountId":%q}`, value, account))
}

// ready posts and maps one account and one service; counts are accepted from then on.
func (p *partner) ready(account, service string) {
	p.t.Helper()
	p.want(p.account(account), 201)
	p.want(p.service(service), 201)
	p.want(p.askForMapping(), 200)
	if err := errors.Join(p.Map(org, sandbox.All(), sandbox.All()), p.Finish(org)); err != nil {
		p.t.Fatalf("the human cannot map: %v", err)
	}
}

// want checks status and that the body contains every one of the texts.
func (p *partner) want(got reply, status int, texts ...string) {
	p.t.Helper()
	if got.err != nil || got.status != status {
		p.t.Fatalf("got status %d, error %v, body %s; want %d", got.status, got.err, got.body, status)
	}
	for _, text := range texts {
		if !strings.Contains(got.body, text) {
			p.t.Errorf("got body %s; want it to contain %s", got.body, text)
		}
	}
	if got.header.Get("X-Request-Id") == "" {
		p.t.Errorf("got no X-Request-Id with status %d", got.status)
	}
}

func (p *partner) wantStatus(want sandbox.Status) {
	p.t.Helper()
	if in, _ := p.ReportOf(org); in.Status != want {
		p.t.Errorf("got integration status %q; want %q", in.Status, want)
	}
}

func (p *partner) wantValue(account, service, want string) {
	p.t.Helper()
	if got, _ := p.Value(org, account, service); got != want {
		p.t.Errorf("got value %q of %q, %q; want %q", got, account, service, want)
	}
}

func TestAnIntegrationGoesFromInactiveToConnected(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.wantStatus(sandbox.Inactive)
	p.want(p.account("a-17"), 201, `"status":201`)
	p.want(p.account("a-17"), 409, `{"statusCode":409,"message":"account already exists with id: a-17"}`)
	p.want(p.service("backup"), 201)
	p.want(p.service("backup"), 409)
	p.want(p.count("a-17", "backup", "1"), 409, `{"statusCode":409,"message":"integration is not ready: inactive"}`)
	p.want(p.askForMapping(), 200, `"status":200`, `"data":{"integrationId":"int-1","status":"mapping"}`)
	p.want(p.count("a-17", "backup", "1"), 409, "not ready: mapping")
	if err := p.Finish(org); err != nil {
		t.Fatal(err)
	}
	p.want(p.askForMapping(), 200, `"status":"pending"}`)
	p.want(p.count("a-17", "backup", "1"), 404, `{"statusCode":404,"message":"No account map found with id: a-17"}`)
	if err := p.Map(org, sandbox.Only("a-17"), sandbox.Selection{}); err != nil {
		t.Fatal(err)
	}
	p.want(p.count("a-17", "backup", "1"), 404, "No service map found with id: backup")
	p.wantStatus(sandbox.Pending)
	if err := p.Map(org, sandbox.Selection{}, sandbox.All()); err != nil {
		t.Fatal(err)
	}
	p.want(p.count("a-17", "backup", "1"), 201, `{"status":201,"message":`)
	p.wantStatus(sandbox.Connected)
	p.want(p.askForMapping(), 200, `"status":"connected"}`)
	p.want(p.count("a-99", "backup", "1"), 404, "No account map found with id: a-99")
}

func TestTheAnswerBeforePendingIsConfigurable(t *testing.T) {
	for _, status := range []int{403, 400} {
		p := start(t, sandbox.Config{NotReadyStatus: status})
		p.want(p.count("a", "s", "1"), status, fmt.Sprintf(`{"statusCode":%d,"message":"integration is not ready: inactive"}`, status))
	}
}

func TestAResetForgetsEverythingButTheHistory(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	p.want(p.count("a", "s", "1"), 201)
	if err := p.Reset(org); err != nil {
		t.Fatal(err)
	}
	p.wantStatus(sandbox.Inactive)
	p.wantValue("a", "s", "")
	p.ready("a", "s")
	p.want(p.count("a", "s", "2"), 201)
	var got []string
	for _, a := range p.History(org, "a", "s") {
		got = append(got, fmt.Sprintf("%s@%d", a.Value, a.Epoch))
	}
	if want := []string{"1@0", "2@1"}; !slices.Equal(got, want) {
		t.Errorf("got history %v; want %v", got, want)
	}
}

func TestTheAutomaticHumanMapsAfterHisDelayAndAgainForWhatIsPostedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sb := sandbox.New(sandbox.Config{
			HumanDelay:   time.Minute,
			Integrations: []sandbox.Integration{{Name: org, VendorToken: "vt", PartnerToken: "pt"}},
		})
		call := func(method, path, body string, want int) {
			t.Helper()
			if rec := serve(t, sb, method, path, body); rec.Code != want {
				t.Errorf("%v: %s %s: got %d %s; want %d", time.Now(), method, path, rec.Code, rec.Body, want)
			}
		}
		call("POST", "/organization/accounts", `{"vendorAccountId":"a","name":"A"}`, 201)
		call("POST", "/organization/services", `{"id":"s","name":"S"}`, 201)
		time.Sleep(time.Hour) // nobody called the human yet
		call("POST", "/service/s/count", `{"unitCount":1,"accountId":"a"}`, 409)
		call("PATCH", "/status/mapping", ``, 200)
		time.Sleep(time.Minute - 1)
		call("POST", "/service/s/count", `{"unitCount":1,"accountId":"a"}`, 409)
		time.Sleep(time.Nanosecond)
		call("POST", "/service/s/count", `{"unitCount":1,"accountId":"a"}`, 201)
		call("POST", "/organization/accounts", `{"vendorAccountId":"b","name":"B"}`, 201)
		time.Sleep(time.Minute - 1)
		call("POST", "/service/s/count", `{"unitCount":1,"accountId":"b"}`, 404)
		time.Sleep(time.Nanosecond)
		call("POST", "/service/s/count", `{"unitCount":1,"accountId":"b"}`, 201)
		if in, _ := sb.ReportOf(org); in.Status != sandbox.Connected {
			t.Errorf("got status %s after the human's second visit; want %s", in.Status, sandbox.Connected)
		}
		call("POST", "/organization/accounts", `{"vendorAccountId":"c","name":"C"}`, 201)
		time.Sleep(time.Minute)
		// Forcing a status sends a human home who is on the way, not one who has been.
		if err := sb.SetStatus(org, sandbox.Pending); err != nil {
			t.Fatal(err)
		}
		call("POST", "/service/s/count", `{"unitCount":1,"accountId":"c"}`, 201)
	})
}

func TestTheRateLimitHoldsInEverySecondAndSaysWhenToComeBack(t *testing.T) {
	for form, want := range map[sandbox.RetryAfterForm]string{
		sandbox.RetryAfterSeconds: "1",
		sandbox.RetryAfterDate:    "Fri, 20 Nov 2026 12:00:02 GMT", // 12:00:01.3 rounded up
	} {
		t.Run(string(form), func(t *testing.T) {
			var now clock
			now.Advance(300 * time.Millisecond)
			p := start(t, sandbox.Config{RateLimit: 2, RetryAfterForm: form, Now: now.Now})
			p.want(p.askForMapping(), 200)
			now.Advance(600 * time.Millisecond)
			p.want(p.askForMapping(), 200)
			got := p.askForMapping()
			p.want(got, 429, `"statusCode":429`)
			if got.header.Get("Retry-After") != want {
				t.Errorf("got Retry-After %q; want %q", got.header.Get("Retry-After"), want)
			}
			now.Advance(400 * time.Millisecond)
			p.want(p.askForMapping(), 200)
			p.want(p.askForMapping(), 429) // the second one is only 400 ms old
			now.Advance(600 * time.Millisecond)
			p.want(p.askForMapping(), 200)
		})
	}
}

func TestManyClientsAtOnceAreAllRecorded(t *testing.T) {
	p := start(t, sandbox.Config{TapeLimit: 100})
	p.ready("a", "s")
	before := p.Report().Totals
	const clients, each = 8, 50
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			for i := range each {
				if got := p.count("a", "s", fmt.Sprint(client*each+i)); got.status != 201 {
					t.Errorf("got status %d, error %v; want 201", got.status, got.err)
				}
				_ = p.Report()
			}
		})
	}
	group.Wait()
	history, totals := p.History(org, "a", "s"), p.Report().Totals
	if len(history) != clients*each || totals.AcceptedCounts-before.AcceptedCounts != clients*each || totals.MaxCallsPerKey != clients*each {
		t.Errorf("got %d in the history, totals %+v; want %d everywhere", len(history), totals, clients*each)
	}
	sorted := slices.IsSortedFunc(history, func(a, b sandbox.Accepted) int { return int(a.Sequence) - int(b.Sequence) })
	tape := p.Tape()
	if !sorted || len(tape) != 100 || tape[99].Value != history[len(history)-1].Value {
		t.Errorf("got a history in order: %v, %d records; want true, the newest 100, the last of them the last accepted", sorted, len(tape))
	}
}

func TestAfterCloseThePartnerAnswers503AndTheTapeStaysReadable(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.want(p.askForMapping(), 200)
	p.Close()
	p.Close()
	p.want(p.askForMapping(), 503, `"statusCode":503`)
	if got := len(p.Tape()); got != 2 {
		t.Errorf("got %d records; want 2", got)
	}
}

func TestAWrongConfigurationIsRefusedWithAllItsMistakes(t *testing.T) {
	c := sandbox.Config{
		Human: "robot", HumanDelay: -1, NotReadyStatus: 404, RateLimit: -1, RetryAfterForm: "soon", TapeLimit: -1, BodyLimit: -1,
		Faults: sandbox.Plan{Rules: []sandbox.Rule{{}}},
		Integrations: []sandbox.Integration{
			{Name: "x/1", VendorToken: "v", PartnerToken: "p"}, {Name: "x/1", VendorToken: "v", PartnerToken: "q"},
			{Name: "x/2", VendorToken: "v", PartnerToken: "p"}, {Name: "x/3", VendorToken: "v"}, {Name: "x/4", VendorToken: "v:", PartnerToken: "p"},
			{Name: "x/5", VendorToken: "w", PartnerToken: "p", Dialect: "klingon"},
		},
	}
	err := c.Validate()
	for _, want := range []string{"robot", "human delay", "404", "rate limit", "soon", "tape limit", "body limit", "fault rule 1",
		`2 "x/1": an earlier one has that name`, `3 "x/2": an earlier one has the same pair`, `4 "x/3": want a name`, `"x/4": the vendor token contains a colon`,
		`"x/5": dialect "klingon": want "mspcentric" or "gradient"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v; want it to mention %q", err, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("New did not panic on a configuration that Validate refuses")
		}
	}()
	sandbox.New(c)
}

func TestTokensAreNotPrinted(t *testing.T) {
	in := sandbox.Integration{Name: org, VendorToken: "secret-v", PartnerToken: "secret-p"}
	if got := fmt.Sprintf("%v %+v %#v %v", in, in, in, sandbox.Config{Integrations: []sandbox.Integration{in}}); strings.Contains(got, "secret") {
		t.Errorf("got %s; want the tokens left out", got)
	}
}

func BenchmarkCount(b *testing.B) {
	sb := sandbox.New(sandbox.Config{TapeLimit: 1000, Integrations: []sandbox.Integration{{Name: org, VendorToken: "vt", PartnerToken: "pt"}}})
	handler := sb.Handler()
	post := func(method, path, body string) int {
		req := httptest.NewRequestWithContext(b.Context(), method, sandbox.BasePath+path, strings.NewReader(body))
		req.Header.Set("Authorization", bearer("vt", "pt"))
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		return rec.Code
	}
	post("POST", "/organization/accounts", `{"vendorAccountId":"a","name":"A"}`)
	post("POST", "/organization/services", `{"id":"s","name":"S"}`)
	post("PATCH", "/status/mapping", "")
	b.ReportAllocs()
	for b.Loop() {
		if got := post("POST", "/service/s/count", `{"unitCount":1,"accountId":"a"}`); got != 201 {
			b.Fatalf("got status %d; want 201", got)
		}
	}
}

// serve is a request of the integration org without a server, for synctest bubbles.
func serve(t *testing.T, sb *sandbox.Sandbox, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, sandbox.BasePath+path, strings.NewReader(body))
	req.Header.Set("Authorization", bearer("vt", "pt"))
	rec := httptest.NewRecorder()
	sb.Handler().ServeHTTP(rec, req)
	return rec
}

// serveOEM lists integrations without a server.
func serveOEM(t *testing.T, sb *sandbox.Sandbox, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, sandbox.OEMBasePath+"/integration/list", strings.NewReader(body))
	rec := httptest.NewRecorder()
	sb.Handler().ServeHTTP(rec, req)
	return rec
}

// record makes n records as cheaply as a request can.
func record(t *testing.T, sb *sandbox.Sandbox, n int) {
	t.Helper()
	for range n {
		sb.Handler().ServeHTTP(httptest.NewRecorder(), mappingRequest(t))
	}
}

func mappingRequest(t *testing.T) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, sandbox.BasePath+"/status/mapping", http.NoBody)
	req.Header.Set("Authorization", bearer("vt", "pt"))
	return req
}
