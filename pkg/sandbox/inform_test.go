package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// receiver of the webhook, which keeps what it got.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
	paths  []string
}

func receive(t *testing.T, status int) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil || req.Method != http.MethodPost {
			t.Errorf("got a %s, error %v; want a whole POST", req.Method, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodies, r.heads = append(r.bodies, string(body)), append(r.heads, req.Header)
		r.paths = append(r.paths, req.URL.Path)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

// accounts of each body, in order of arrival.
func (r *receiver) accounts(t *testing.T) []string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, body := range r.bodies {
		var m struct{ Payload struct{ Accounts []string } }
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatalf("body %s: %v", body, err)
		}
		all = append(all, strings.Join(m.Payload.Accounts, ""))
	}
	return all
}

func TestTheWebhookIsTheDocumentedOne(t *testing.T) {
	p, r := start(t, sandbox.Config{}), receive(t, 202)
	p.ready("a", "s")
	p.want(p.account("b"), 201) // not mapped: not in it
	p.want(p.do("POST", control+"/inform", fmt.Sprintf(`{"url":%q,"header":"X-Secret","secret":"s3"}`, r.URL+"/inform/v1/acme/s3")), 200, `{"answers":[202]}`)
	p.want(p.count("a", "s", "1"), 201)
	p.want(p.do("POST", control+"/inform", fmt.Sprintf(`{"url":%q,"times":2,"spelling":"config_upate"}`, r.URL)), 200, `{"answers":[202,202]}`)
	p.want(p.do("POST", control+"/inform", fmt.Sprintf(`{"url":%q,"active":"string"}`, r.URL)), 200)
	message := func(kind, active string) string {
		return `{"module":"alerts","eventType":"` + kind + `","payload":{"isAlertsEnabled":true,"isIntegrationActive":` + active +
			`,"productGroups":[],"accounts":["a"],"vendorOrganizationId":"msp-0042","vendorUserId":"user-msp-0042","integrationId":"int-1"}}`
	}
	want := []string{
		message("config_update", "false"), message("config_upate", "true"), message("config_upate", "true"),
		message("config_update", `"connected"`),
	}
	if !slices.Equal(r.bodies, want) {
		t.Errorf("got bodies\n%s\nwant\n%s", strings.Join(r.bodies, "\n"), strings.Join(want, "\n"))
	}
	if h := r.heads[0]; h.Get("X-Secret") != "s3" || h.Get("Content-Type") != "application/json" || r.heads[1].Get("X-Secret") != "" {
		t.Errorf("got headers %v; want X-Secret only where it was asked for, and JSON", r.heads[:2])
	}
}

func TestAGradientWebhookHasTheStatusOfItsDialect(t *testing.T) {
	p, r := startGradient(t, sandbox.Config{}), receive(t, 200)
	p.gradientReady(`{"id":"a","name":"A"}`, `{"id":"s","name":"S"}`)
	for _, status := range []sandbox.Status{sandbox.Mapping, sandbox.Pending, sandbox.Connected} {
		if err := p.SetStatus(org, status); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Inform(t.Context(), org, sandbox.Inform{URL: r.URL, Active: sandbox.ActiveString}); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"pending", "pending", "active"} {
		if !strings.Contains(r.bodies[i], `"isIntegrationActive":"`+want+`"`) {
			t.Errorf("got %s; want it %s", r.bodies[i], want)
		}
	}
}

func TestShuffledWebhooksKnowTheMomentsThatTheVendorsCallsMade(t *testing.T) {
	p, r := start(t, sandbox.Config{}), receive(t, 200)
	p.want(p.askForMapping(), 200)
	if err := p.Finish(org); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Inform(t.Context(), org, sandbox.Inform{URL: r.URL, Active: sandbox.ActiveString, Times: 3, Shuffle: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"inactive", "mapping", "pending"} {
		if !strings.Contains(strings.Join(r.bodies, ""), `"isIntegrationActive":"`+want+`"`) {
			t.Errorf("got %q; want one that is %s", r.bodies, want)
		}
	}
}

func TestShuffledWebhooksRepeatAndReorderSnapshotsAsTheSeedSays(t *testing.T) {
	p := start(t, sandbox.Config{})
	for id := range strings.SplitSeq("abc", "") {
		p.want(p.account(id), 201)
	}
	p.want(p.askForMapping(), 200)
	err := errors.Join(
		p.Map(org, sandbox.Only("b"), sandbox.Selection{}), p.Map(org, sandbox.Only("a", "c"), sandbox.Selection{}),
		p.Unmap(org, sandbox.Only("b"), sandbox.Selection{}))
	if err != nil {
		t.Fatal(err)
	}
	send := func(o sandbox.Inform) []string {
		t.Helper()
		r := receive(t, 200)
		o.URL = r.URL
		if got, err := p.Inform(t.Context(), org, o); err != nil || len(got.Answers) != max(1, o.Times) {
			t.Fatalf("got %v, error %v; want %d answers", got, err, o.Times)
		}
		return r.accounts(t)
	}
	if got := send(sandbox.Inform{Times: 3}); !slices.Equal(got, []string{"ac", "ac", "ac"}) {
		t.Errorf("got %q; want the current snapshot three times", got)
	}
	got := send(sandbox.Inform{Times: 20, Shuffle: true, Seed: 1})
	for _, snapshot := range []string{"", "b", "bac", "ac"} {
		if !slices.Contains(got, snapshot) {
			t.Errorf("got %q; want %q among them", got, snapshot)
		}
	}
	if again := send(sandbox.Inform{Times: 20, Shuffle: true, Seed: 1}); !slices.Equal(got, again) {
		t.Errorf("got %q, then %q for the same seed; want the same", got, again)
	}
	if other := send(sandbox.Inform{Times: 20, Shuffle: true, Seed: 2}); slices.Equal(got, other) {
		t.Errorf("got %q for two seeds; want two orders", got)
	}
	if one := send(sandbox.Inform{Shuffle: true, Seed: 3}); one[0] != "ac" {
		t.Errorf("got %q; want the current snapshot when there is one request", one)
	}
	if err := p.Reset(org); err != nil {
		t.Fatal(err)
	}
	if got := send(sandbox.Inform{}); got[0] != "" {
		t.Errorf("got accounts %q after a reset; want none", got)
	}
	for range 40 { // more moments than are kept
		_ = errors.Join(p.SetStatus(org, sandbox.Mapping), p.SetStatus(org, sandbox.Pending))
	}
	if got := send(sandbox.Inform{Times: 100, Shuffle: true}); slices.Contains(got, "ac") {
		t.Errorf("got %q; want the oldest snapshots forgotten", got)
	}
}

func TestTheWebhookGoesToLoopbackAddressesOnly(t *testing.T) {
	p := start(t, sandbox.Config{})
	for _, host := range []string{
		"example.com", "10.0.0.1", "169.254.169.254", "0.0.0.0", "[::]", "localhost.example.com", "127.0.0.1.example.com", "2130706433",
	} {
		p.want(p.do("POST", control+"/inform", `{"url":"http://`+host+`:8080/secret-path"}`), 400, "is no loopback address", "127.0.0.0/8, ::1 and localhost only")
	}
	for _, wrong := range []string{"", "127.0.0.1:80", "ftp://127.0.0.1", "http://", "http://\\u0000secret", "//localhost"} {
		got := p.do("POST", control+"/inform", `{"url":"`+wrong+`"}`)
		p.want(got, 400, "want http:// or https:// and a loopback address")
		if strings.Contains(got.body, "secret") {
			t.Errorf("got %s; want the url left out", got.body)
		}
	}
	for body, want := range map[string]string{
		`"times":101`:         "want 1 to 100",
		`"times":-1`:          "want 1 to 100",
		`"spelling":"update"`: `want \"config_update\" or \"config_upate\"`,
		`"active":"yes"`:      `want \"bool\" or \"string\"`,
		`"secret":"s3"`:       "secret without header",
	} {
		p.want(p.do("POST", control+"/inform", `{"url":"http://127.0.0.1:1",`+body+`}`), 400, want)
	}
}

func TestARedirectIsAnAnswerAndIsNotFollowed(t *testing.T) {
	p, r := start(t, sandbox.Config{}), receive(t, 307)
	got, err := p.Inform(t.Context(), org, sandbox.Inform{URL: strings.Replace(r.URL, "127.0.0.1", "localhost", 1)})
	if err != nil || !slices.Equal(got.Answers, []int{307}) || len(r.bodies) != 1 {
		t.Errorf("got %v, error %v, %d requests; want one 307", got, err, len(r.bodies))
	}
}

func TestAWebhookWithoutAnAnswerEndsTheOrderWithoutTellingTheSecret(t *testing.T) {
	p, r := start(t, sandbox.Config{}), receive(t, 200)
	r.Close()
	got := p.do("POST", control+"/inform", fmt.Sprintf(`{"url":%q,"header":"X-Secret","secret":"s3cret","times":9}`, r.URL+"/s3cret"))
	p.want(got, 502, `request 1 of 9: post to 127.0.0.1`, "refused")
	if strings.Contains(got.body, "s3cret") {
		t.Errorf("got %s; want the secret left out", got.body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Inform(ctx, org, sandbox.Inform{URL: "http://127.0.0.1:1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v; want %v", err, context.Canceled)
	}
	p.Close()
	if _, err := p.Inform(t.Context(), org, sandbox.Inform{URL: r.URL}); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got error %v; want that the sandbox is closed", err)
	}
	o := sandbox.Inform{URL: "http://127.0.0.1:1/s3cret", Header: "X", Secret: "s3cret"}
	if text := fmt.Sprintf("%v %+v %#v", o, o, o); strings.Contains(text, "s3cret") {
		t.Errorf("got %s; want the secret left out", text)
	}
}
