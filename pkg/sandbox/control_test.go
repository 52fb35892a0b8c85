package sandbox_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

const control = "/sandbox/integrations/acme%2Fmsp-0042"

func TestTheHumanCanBePlayedOverTheControlAPI(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.want(p.do("POST", control+"/human", `{"action":"map","accounts":"all"}`), 409, "PATCH /status/mapping first")
	p.want(p.account("a"), 201)
	p.want(p.account("b"), 201)
	p.want(p.service("s"), 201)
	p.want(p.askForMapping(), 200)
	p.want(p.do("POST", control+"/human", `{"action":"map","accounts":["a","x"],"services":["y"]}`), 404,
		`unknown account \"x\"`, `unknown service \"y\"`)
	p.want(p.do("POST", control+"/human", `{"action":"map","accounts":["a"],"services":"all"}`), 204)
	p.wantStatus(sandbox.Mapping)
	p.want(p.do("POST", control+"/human", `{"action":"finish"}`), 204)
	p.want(p.count("a", "s", "1"), 201)
	p.want(p.count("b", "s", "1"), 404)
	p.want(p.do("POST", control+"/status", `{"status":"mapping"}`), 204)
	p.want(p.count("a", "s", "2"), 409, "not ready: mapping")
	p.want(p.do("POST", control+"/reset", ``), 204)
	p.wantStatus(sandbox.Inactive)
	p.want(p.account("a"), 201)
}

func TestAnIntegrationCanBeAddedAtRunTime(t *testing.T) {
	p := start(t, sandbox.Config{})
	got := p.do("POST", "/sandbox/integrations", `{"name":"acme/new"}`)
	p.want(got, 201, `"name":"acme/new"`, `"integrationId":"int-2"`)
	var in sandbox.Integration
	if err := json.Unmarshal([]byte(got.body), &in); err != nil {
		t.Fatal(err)
	}
	p.token = bearer(in.VendorToken, in.PartnerToken)
	p.want(p.askForMapping(), 200, `"integrationId":"int-2"`)
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"acme/new"}`), 409, "the name is taken")
	p.want(p.do("POST", "/sandbox/integrations", `{"vendorToken":"vt","partnerToken":"pt"}`), 409, "same pair of tokens")
	p.want(p.do("POST", "/sandbox/integrations", `{"vendorToken":"v:t"}`), 400, "contains a colon")
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"*"}`), 400, "wildcard")
	p.want(p.do("POST", "/sandbox/integrations", `{}`), 201, `"name":"sandbox/organization-3"`)
}

func TestControlErrorsSayWhatWouldBeRight(t *testing.T) {
	p := start(t, sandbox.Config{BodyLimit: 300})
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/sandbox/integrations/acme/msp-0042/reset", "", 404, "is written %2F"},
		{"POST", "/sandbox/integrations/acme%2Fnobody/reset", "", 404, `unknown integration \"acme/nobody\"`},
		{"GET", "/sandbox/report?integration=acme%2Fnobody", "", 404, "unknown integration"},
		{"POST", control + "/human", `{"action":"sleep"}`, 400, `want \"map\", \"unmap\" or \"finish\"`},
		{"POST", control + "/human", `{"action":"map","accounts":"some"}`, 400, `want \"all\" or an array`},
		{"POST", control + "/human", ``, 400, "it is empty"},
		{"POST", control + "/status", `{"status":"active"}`, 400, "want inactive, mapping, pending or connected"},
		{"POST", control + "/status", `{"state":"pending"}`, 400, `unknown field \"state\"`},
		{"POST", control + "/status", `[]`, 400, `it is a JSON array; want an object`},
		{"POST", control + "/anomaly", `{"on":"yes"}`, 400, `field \"on\" is a JSON string; want true or false`},
		{"POST", control + "/status", `{"status":7}`, 400, `field \"status\" is a JSON number`},
		{"POST", control + "/status", `{"status":"pending"} {}`, 400, "goes on after"},
		{"POST", control + "/status", `{"status":"` + strings.Repeat("x", 300) + `"}`, 413, "300 bytes"},
		{"POST", "/sandbox/integrations", `{"integrationId":"int-9"}`, 400, "assigned by the partner"},
		{"PUT", "/sandbox/faults", `{"rules":[{"effect":"reset-before"}]}`, 400, "neither probability nor first"},
		{"PUT", "/sandbox/faults", `{"rules":[{"effect":"delay","latency":"5"}]}`, 400, `want a text like`},
		{"PUT", "/sandbox/faults", `{"rules":[{"efect":"delay"}]}`, 400, `unknown field \"efect\"`},
		{"GET", "/sandbox/tape?after=x", "", 400, "want a sequence"},
	} {
		got := p.do(tt.method, tt.path, tt.body)
		p.want(got, tt.status, tt.want, `"detail":`)
		if kind := got.header.Get("Content-Type"); kind != "application/problem+json" {
			t.Errorf("%s: got content type %q; want application/problem+json", tt.path, kind)
		}
	}
}

func TestFaultsGoThroughTheControlAPIAndBack(t *testing.T) {
	p := start(t, sandbox.Config{})
	want := sandbox.Rule{
		Name: "flaky", Operation: "count", Integration: org, Account: "a", Service: "s", Probability: 0.5, First: 9,
		From: time.Second, Until: time.Hour, Effect: sandbox.StatusBefore, Latency: 250 * time.Millisecond, Jitter: time.Millisecond,
		Status: 503, Message: "later", RetryAfter: 2 * time.Second, RetryAfterForm: sandbox.RetryAfterDate,
	}
	p.want(p.do("PUT", "/sandbox/faults", `{"seed":7,"rules":[{"name":"flaky","operation":"count","integration":"acme/msp-0042",
		"account":"a","service":"s","probability":0.5,"first":9,"from":"1s","until":"1h","effect":"status","latency":"250ms",
		"jitter":"1ms","status":503,"message":"later","retryAfter":"2s","retryAfterForm":"date"}]}`), 204)
	if got := p.Faults(); got.Seed != 7 || len(got.Rules) != 1 || got.Rules[0] != want {
		t.Errorf("got plan %+v; want seed 7 and %+v", got, want)
	}
	got := p.do("GET", "/sandbox/faults", "")
	p.want(got, 200, `"latency":"250ms"`)
	p.want(p.do("DELETE", "/sandbox/faults", ""), 204)
	if n := len(p.Faults().Rules); n != 0 {
		t.Errorf("got %d rules after DELETE; want 0", n)
	}
	p.want(p.do("PUT", "/sandbox/faults", got.body), 204)
	if again := p.Faults().Rules[0]; again != want {
		t.Errorf("got rule %+v from what GET said; want %+v", again, want)
	}
}

func TestTheReportCountsRequestsByOperationAndStatus(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	p.want(p.count("a", "s", "1"), 201)
	p.want(p.count("a", "s", "2.0"), 201)
	p.want(p.count("b", "s", "3"), 404)
	p.token = "Bearer none"
	p.want(p.askForMapping(), 401)
	p.want(p.do("GET", "/sandbox/report", ""), 200,
		`"name":"acme/msp-0042","integrationId":"int-1","dialect":"mspcentric","status":"connected","epoch":0,"accounts":[{"vendorAccountId":"a","name":"A","externalId":"x","mapped":true}],`+
			`"services":[{"id":"s","name":"S","description":"d","mapped":true}],"counts":{"a":{"s":2.0}},"billed":{"a":{"s":2.0}},`+
			`"totals":{"requests":{"accounts":{"201":1},"count":{"201":2,"404":1},"mapping":{"200":1},"services":{"201":1}},"acceptedCounts":2,"maxCallsPerKey":2}}`,
		`"mapping":{"200":1,"401":1}`)
}

func TestTheTapeIsFilteredAndContinued(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	p.want(p.count("a", "s", "1"), 201)
	p.want(p.count("b", "s", "2"), 404)
	p.want(p.count("a", "s", "3"), 201)
	for query, want := range map[string]string{
		"?integration=acme%2Fmsp-0042&account=a&service=s": "[4 6]",
		"?account=b":            "[5]",
		"?integration=acme%2Fx": "[]",
		"?after=4":              "[5 6]",
		"?after=6":              "[]",
		"":                      "[1 2 3 4 5 6]",
	} {
		got := p.do("GET", "/sandbox/tape"+query, "")
		sequences := []uint64{}
		for line := range strings.Lines(got.body) {
			var r sandbox.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			sequences = append(sequences, r.Sequence)
		}
		if fmt.Sprint(sequences) != want {
			t.Errorf("%s: got sequences %v; want %s", query, sequences, want)
		}
	}
	p.want(p.do("GET", "/sandbox/tape?after=5", ""), 200, `"operation":"count","account":"a","service":"s","value":"3","status":201,"accepted":true,"requestId":"sbx-`)
}

func TestABoundedTapeKeepsTheNewestAndALongOneIsComplete(t *testing.T) {
	const requests = 3*4096 + 10
	for _, limit := range []int{0, 1, 5000} {
		sb := sandbox.New(sandbox.Config{TapeLimit: limit})
		record(t, sb, requests)
		tape := sb.Tape()
		want := requests
		if limit > 0 {
			want = limit
		}
		if len(tape) != want {
			t.Fatalf("limit %d: got %d records; want %d", limit, len(tape), want)
		}
		for i, r := range tape {
			if r.Sequence != uint64(requests-want+i+1) {
				t.Fatalf("limit %d: got sequence %d at %d; want %d", limit, r.Sequence, i, requests-want+i+1)
			}
		}
	}
}

func TestThePageShowsTheStateAndEscapesIt(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "<b>s</b>")
	p.want(p.count("a", "<b>s</b>", "42.50"), 201)
	got := p.do("GET", "/", "")
	p.want(got, 200, org, `class="connected"`, "1 of 1", "&lt;b&gt;s&lt;/b&gt;", "42.50")
	for _, bad := range []string{"<b>s", "ZgotmplZ", "pt" + `"`, p.token} {
		if strings.Contains(got.body, bad) {
			t.Errorf("got a page with %q in it", bad)
		}
	}
}
