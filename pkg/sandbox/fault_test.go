package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// fault puts one rule in force, always, for counts.
func (p *partner) fault(r sandbox.Rule) {
	p.t.Helper()
	if r.Probability == 0 && r.First == 0 {
		r.Probability = 1
	}
	if r.Operation == "" {
		r.Operation = sandbox.OperationCount
	}
	if err := p.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{r}}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *partner) wantLast(status int, accepted bool, fault string) {
	p.t.Helper()
	tape := p.Tape()
	got := tape[len(tape)-1]
	if got.Status != status || got.Accepted != accepted || got.Fault != fault {
		p.t.Errorf("got last record %+v; want status %d, accepted %v, fault %q", got, status, accepted, fault)
	}
}

func TestAResetBeforeLosesTheFigureAndAResetAfterKeepsIt(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	p.fault(sandbox.Rule{Name: "cut", Effect: sandbox.ResetBefore})
	if got := p.count("a", "s", "1"); !errors.Is(got.err, syscall.ECONNRESET) {
		t.Errorf("got status %d, error %v; want a connection reset", got.status, got.err)
	}
	p.wantLast(0, false, "cut")
	p.wantValue("a", "s", "")
	p.wantStatus(sandbox.Pending)
	p.fault(sandbox.Rule{Name: "cut", Effect: sandbox.ResetAfter})
	if got := p.count("a", "s", "2"); !errors.Is(got.err, syscall.ECONNRESET) {
		t.Errorf("got status %d, error %v; want a connection reset", got.status, got.err)
	}
	p.wantLast(0, true, "cut")
	p.wantValue("a", "s", "2")
	p.wantStatus(sandbox.Connected)
	if got := p.Report().Totals.Requests[sandbox.OperationCount]["torn"]; got != 2 {
		t.Errorf("got %d torn counts in the report; want 2", got)
	}
}

func TestAResetWithoutAConnectionAborts(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.fault(sandbox.Rule{Operation: "*", Effect: sandbox.ResetAfter})
	defer func() {
		got := recover()
		if err, ok := got.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("got panic %v; want %v", got, http.ErrAbortHandler)
		}
		p.wantLast(0, true, "rule-1")
	}()
	p.Handler().ServeHTTP(httptest.NewRecorder(), mappingRequest(t))
}

func TestAStatusFaultAnswersWhatItIsTold(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	p.fault(sandbox.Rule{Effect: sandbox.StatusBefore, Status: 503, Message: "later", RetryAfter: 2500 * time.Millisecond})
	got := p.count("a", "s", "1")
	p.want(got, 503, `{"statusCode":503,"message":"later"}`)
	if after := got.header.Get("Retry-After"); after != "3" {
		t.Errorf("got Retry-After %q; want 3", after)
	}
	p.wantValue("a", "s", "")
	p.fault(sandbox.Rule{Effect: sandbox.StatusAfter, Status: 504, RetryAfter: time.Hour, RetryAfterForm: sandbox.RetryAfterDate})
	got = p.count("a", "s", "2")
	p.want(got, 504, "fault rule-1")
	if at, err := http.ParseTime(got.header.Get("Retry-After")); err != nil || time.Until(at) < 58*time.Minute || time.Until(at) > 61*time.Minute {
		t.Errorf("got Retry-After %q; want an HTTP date in an hour", got.header.Get("Retry-After"))
	}
	p.wantLast(504, true, "rule-1")
	p.wantValue("a", "s", "2")
}

func TestOddBodiesDoNotChangeWhatIsAccepted(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	for i, tt := range []struct {
		rule sandbox.Rule
		good func(reply) bool
	}{
		{sandbox.Rule{Effect: sandbox.GarbageBody}, func(r reply) bool { return !json.Valid([]byte(r.body)) && r.body != "" }},
		{sandbox.Rule{Effect: sandbox.EmptyBody}, func(r reply) bool { return r.body == "" }},
		{sandbox.Rule{Effect: sandbox.HugeBody, BodyBytes: 3 << 20}, func(r reply) bool { return len(r.body) == 3<<20 && json.Valid([]byte(r.body)) }},
		{sandbox.Rule{Effect: sandbox.SlowBody, BodyTime: 20 * time.Millisecond}, func(r reply) bool { return json.Valid([]byte(r.body)) }},
		{sandbox.Rule{Effect: sandbox.Delay, Latency: time.Millisecond, Jitter: time.Millisecond}, func(r reply) bool { return json.Valid([]byte(r.body)) }},
	} {
		t.Run(string(tt.rule.Effect), func(t *testing.T) {
			p.fault(tt.rule)
			got, value := p.count("a", "s", fmt.Sprint(i)), fmt.Sprint(i)
			if got.err != nil || got.status != 201 || !tt.good(got) {
				t.Errorf("got status %d, error %v, body of %d bytes %.80s; want 201 with the body of %s", got.status, got.err, len(got.body), got.body, tt.rule.Effect)
			}
			p.wantValue("a", "s", value)
			p.wantLast(201, true, "rule-1")
		})
	}
}

func TestLatencyAndSlowBodiesTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sb := sandbox.New(sandbox.Config{Integrations: []sandbox.Integration{{Name: org, VendorToken: "vt", PartnerToken: "pt"}}})
		for _, rule := range []sandbox.Rule{
			{Probability: 1, Effect: sandbox.Delay, Latency: 3 * time.Second},
			{Probability: 1, Effect: sandbox.SlowBody, BodyTime: 3 * time.Second},
		} {
			if err := sb.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{rule}}); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			sb.Handler().ServeHTTP(httptest.NewRecorder(), mappingRequest(t))
			if got := time.Since(begin); got != 3*time.Second {
				t.Errorf("%s took %v; want 3s", rule.Effect, got)
			}
		}
	})
}

// startAdmitting is start, and a function that makes the channel it returns close once the
// next request was read and admitted: from then on it sleeps in its fault.
func startAdmitting(t *testing.T) (*partner, func() <-chan struct{}) {
	t.Helper()
	var next atomic.Pointer[chan struct{}]
	p := start(t, sandbox.Config{Now: func() time.Time {
		if c := next.Swap(nil); c != nil {
			close(*c)
		}
		return time.Now()
	}})
	return p, func() <-chan struct{} {
		c := make(chan struct{})
		next.Store(&c)
		return c
	}
}

func (p *partner) countLater(ctx context.Context) <-chan reply {
	p.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.server.URL+sandbox.BasePath+"/service/s/count",
		strings.NewReader(`{"unitCount":1,"accountId":"a"}`))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", p.token)
	done := make(chan reply, 1)
	go func() { done <- send(p.server.Client(), req) }()
	return done
}

func TestAClientThatGoesAwayDuringTheLatencyIsNotServed(t *testing.T) {
	p, admitted := startAdmitting(t)
	p.ready("a", "s")
	p.fault(sandbox.Rule{Name: "slow", Effect: sandbox.Delay, Latency: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	sleeping := admitted()
	done := p.countLater(ctx)
	<-sleeping
	cancel()
	if got := <-done; !errors.Is(got.err, context.Canceled) {
		t.Fatalf("got status %d, error %v; want a cancelled request", got.status, got.err)
	}
	p.waitForRecords(4) // the server learns of it a moment later than the client
	p.wantLast(0, false, "slow")
	p.wantValue("a", "s", "")
}

func TestCloseTearsRequestsThatSleep(t *testing.T) {
	p, admitted := startAdmitting(t)
	p.ready("a", "s")
	p.fault(sandbox.Rule{Name: "slow", Effect: sandbox.Delay, Latency: time.Hour})
	sleeping := admitted()
	done := p.countLater(t.Context())
	<-sleeping
	p.Close()
	if got := <-done; !errors.Is(got.err, syscall.ECONNRESET) {
		t.Errorf("got status %d, error %v; want a connection reset", got.status, got.err)
	}
	p.wantLast(0, false, "slow")
	p.wantValue("a", "s", "")
}

func (p *partner) waitForRecords(n int) {
	p.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); len(p.Tape()) < n; <-tick.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("got %d records after 10s; want %d", len(p.Tape()), n)
		}
	}
}

func TestARuleMatchesOnlyWhatItNames(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	for name, tt := range map[string]struct {
		rule sandbox.Rule
		hit  bool
	}{
		"everything":          {sandbox.Rule{Operation: "*", Integration: "*", Account: "*", Service: "*"}, true},
		"exactly this":        {sandbox.Rule{Operation: "count", Integration: org, Account: "a", Service: "s"}, true},
		"another operation":   {sandbox.Rule{Operation: "accounts"}, false},
		"another integration": {sandbox.Rule{Integration: "acme/other"}, false},
		"another account":     {sandbox.Rule{Account: "b"}, false},
		"another service":     {sandbox.Rule{Service: "t"}, false},
		"a later window":      {sandbox.Rule{From: time.Hour}, false},
	} {
		t.Run(name, func(t *testing.T) {
			tt.rule.Effect, tt.rule.Status = sandbox.StatusBefore, 500
			p.fault(tt.rule)
			want := map[bool]int{true: 500, false: 201}[tt.hit]
			p.want(p.count("a", "s", "1"), want)
		})
	}
	p.ClearFaults()
	p.want(p.count("a", "s", "1"), 201)
}

func TestTheFirstRuleThatHitsWinsAndFirstNIsCounted(t *testing.T) {
	var now clock
	p := start(t, sandbox.Config{Now: now.Now})
	p.ready("a", "s")
	err := p.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{
		{First: 2, Effect: sandbox.StatusBefore, Status: 500},
		{Probability: 1, From: time.Second, Until: time.Minute, Effect: sandbox.StatusBefore, Status: 502},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 500}, {0, 500}, {0, 201}, {time.Second, 502}, {59 * time.Second, 201}} {
		now.Advance(step.after)
		p.want(p.count("a", "s", "1"), step.want)
	}
}

func TestTheSameSeedGivesTheSameFaults(t *testing.T) {
	run := func(seed uint64) (outcome string, hits int) {
		p := start(t, sandbox.Config{Faults: sandbox.Plan{Seed: seed, Rules: []sandbox.Rule{
			{Probability: 0.3, Effect: sandbox.StatusBefore, Status: 500},
		}}})
		for range 100 {
			status := p.askForMapping().status
			outcome += fmt.Sprint(status, " ")
			if status == 500 {
				hits++
			}
		}
		return outcome, hits
	}
	first, hits := run(7)
	if again, _ := run(7); first != again {
		t.Errorf("got for the same seed\n%s\nand\n%s", first, again)
	}
	if other, _ := run(8); first == other {
		t.Errorf("got for two seeds the same faults %s", first)
	}
	if hits < 15 || hits > 45 {
		t.Errorf("got %d hits of 100; want about 30", hits)
	}
}

func TestAMeaninglessRuleIsRefused(t *testing.T) {
	ok := sandbox.Rule{Probability: 1, Effect: sandbox.ResetBefore}
	for want, change := range map[string]func(*sandbox.Rule){
		`operation "counts"`:            func(r *sandbox.Rule) { r.Operation = "counts" },
		"probability 1.5":               func(r *sandbox.Rule) { r.Probability = 1.5 },
		"neither probability nor first": func(r *sandbox.Rule) { r.Probability = 0 },
		"first -1":                      func(r *sandbox.Rule) { r.First = -1 },
		"until 1s is not after":         func(r *sandbox.Rule) { r.From, r.Until = 2*time.Second, time.Second },
		"duration -1ns":                 func(r *sandbox.Rule) { r.Latency = -1 },
		`form "x" of Retry-After`:       func(r *sandbox.Rule) { r.RetryAfterForm = "x" },
		`effect ""`:                     func(r *sandbox.Rule) { r.Effect = "" },
		"wants latency or jitter":       func(r *sandbox.Rule) { r.Effect = sandbox.Delay },
		"wants 300 to 599":              func(r *sandbox.Rule) { r.Effect, r.Status = sandbox.StatusBefore, 200 },
		"does not go with effect":       func(r *sandbox.Rule) { r.Status = 500 },
		"want 0 to 1073741824":          func(r *sandbox.Rule) { r.Effect, r.BodyBytes = sandbox.HugeBody, 1<<30+1 },
	} {
		rule := ok
		change(&rule)
		if err := (sandbox.Plan{Rules: []sandbox.Rule{rule}}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v; want it to contain %q", err, want)
		}
	}
}
