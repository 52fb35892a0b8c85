package sandbox_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestRevokedTokensAre401UntilThereIsANewOne(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	old := p.token
	p.want(p.do("DELETE", control+"/tokens", ""), 204)
	p.want(p.do("DELETE", control+"/tokens", ""), 204)
	p.want(p.count("a", "s", "1"), 401, "not one of its integrations")
	p.token = bearer("vt", "") // the revoked token is not the empty one
	p.want(p.count("a", "s", "1"), 401)
	if in, _ := p.ReportOf(org); !in.Revoked {
		t.Errorf("got report %+v; want it revoked", in)
	}
	got := p.do("POST", control+"/tokens", "")
	p.want(got, 201, `"name":"acme/msp-0042","integrationId":"int-1","vendorToken":"vt"`, `"dialect":"mspcentric"`)
	var in sandbox.Integration
	if err := json.Unmarshal([]byte(got.body), &in); err != nil {
		t.Fatal(err)
	}
	p.token = bearer("vt", in.PartnerToken)
	p.want(p.count("a", "s", "2"), 201) // the catalog and the mapping are as they were
	p.token = old
	p.want(p.count("a", "s", "3"), 401)
	p.wantValue("a", "s", "2")
	if in, _ := p.ReportOf(org); in.Revoked {
		t.Errorf("got report %+v; want it not revoked", in)
	}
}

func TestANewTokenReplacesTheOneBefore(t *testing.T) {
	p := startGradient(t, sandbox.Config{})
	first, err := p.IssueTokens(org)
	if err != nil || first.Dialect != sandbox.Gradient {
		t.Fatalf("got %#v, error %v; want a Gradient integration", first, err)
	}
	p.want(p.call("GET", "/organization", ""), 401)
	second, err := p.IssueTokens(org)
	if err != nil || first.PartnerToken == second.PartnerToken {
		t.Fatalf("got the same token twice, error %v; want another", err)
	}
	p.token = token64("vt", first.PartnerToken)
	p.want(p.call("GET", "/organization", ""), 401)
	p.token = token64("vt", second.PartnerToken)
	p.want(p.call("GET", "/organization", ""), 200)
}

func TestAnAnomalyRefusesCountsAndNothingElse(t *testing.T) {
	for _, d := range []sandbox.Dialect{sandbox.MSPCentric, sandbox.Gradient} {
		t.Run(string(d), func(t *testing.T) {
			p := startDialect(t, sandbox.Config{}, d)
			p.want(p.do("POST", control+"/anomaly", `{"on":true}`), 204)
			p.want(p.count("a", "s", "1"), 409, "not ready")
			accounts := `{"vendorAccountId":"a","id":"a","name":"A"}` // each dialect takes the id it knows
			p.want(p.call("POST", "/organization/accounts", accounts), 201)
			p.want(p.service("s"), 201)
			if err := errors.Join(p.SetStatus(org, sandbox.Pending), p.Map(org, sandbox.All(), sandbox.All())); err != nil {
				t.Fatal(err)
			}
			p.want(p.count("a", "s", "1"), 403, `{"statusCode":403,"message":"usage anomaly: `)
			p.want(p.count("z", "s", "1"), 403)
			p.want(p.count("a", "s", `"1"`), 400)
			p.wantStatus(sandbox.Pending)
			if in, _ := p.ReportOf(org); !in.Anomaly {
				t.Errorf("got report %+v; want the anomaly in it", in)
			}
			p.want(p.do("POST", control+"/anomaly", `{"on":false}`), 204)
			p.want(p.count("a", "s", "1"), 201)
		})
	}
}

func TestADisconnectedIntegrationStartsAllOver(t *testing.T) {
	for _, d := range []sandbox.Dialect{sandbox.MSPCentric, sandbox.Gradient} {
		t.Run(string(d), func(t *testing.T) {
			p := startDialect(t, sandbox.Config{}, d)
			connect := func() {
				t.Helper()
				p.want(p.call("POST", "/organization/accounts", `{"vendorAccountId":"a","id":"a","name":"A"}`), 201)
				p.want(p.service("s"), 201)
				if err := errors.Join(p.SetStatus(org, sandbox.Pending), p.Map(org, sandbox.All(), sandbox.All())); err != nil {
					t.Fatal(err)
				}
				p.want(p.count("a", "s", "7"), 201)
			}
			connect()
			p.want(p.do("POST", control+"/reset", ""), 204)
			in, _ := p.ReportOf(org)
			if in.Status != sandbox.Inactive || len(in.Accounts)+len(in.Services)+len(in.Counts)+len(in.Billed) != 0 || in.Epoch != 1 {
				t.Errorf("got report %+v; want it inactive and empty in epoch 1", in)
			}
			p.want(p.count("a", "s", "8"), 409)
			if d == sandbox.Gradient {
				p.want(p.call("GET", "/organization", ""), 200, `"status":"inactive","lastSyncedAt":null`)
				p.wantJSON(p.call("GET", "/organization/accounts", ""), 200, `[]`)
			}
			connect()
		})
	}
}

func TestMappingsCanBeTakenBackInPart(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	p.want(p.account("b"), 201)
	p.want(p.do("POST", control+"/human", `{"action":"map","accounts":["b"]}`), 204)
	p.want(p.count("a", "s", "1"), 201)
	p.want(p.do("POST", control+"/human", `{"action":"unmap","accounts":["a","x"],"services":["s"]}`), 404, `unknown account \"x\"`)
	p.want(p.count("a", "s", "2"), 201) // nothing was unmapped
	p.want(p.do("POST", control+"/human", `{"action":"unmap","accounts":["a"]}`), 204)
	p.want(p.count("a", "s", "3"), 404, "No account map found with id: a")
	p.want(p.count("b", "s", "3"), 201)
	p.wantStatus(sandbox.Connected)
	p.wantValue("a", "s", "2")
	p.want(p.do("POST", control+"/human", `{"action":"unmap","services":"all"}`), 204)
	p.want(p.count("b", "s", "4"), 404, "No service map found with id: s")
	p.want(p.do("POST", control+"/human", `{"action":"map","accounts":"all","services":"all"}`), 204)
	p.want(p.count("a", "s", "5"), 201)
}

func TestTheAutomaticHumanLeavesAloneWhatWasUnmapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sb := sandbox.New(sandbox.Config{HumanDelay: time.Minute, Integrations: []sandbox.Integration{{Name: org, VendorToken: "vt", PartnerToken: "pt"}}})
		call := func(method, path, body string, want int) {
			t.Helper()
			if got := serve(t, sb, method, path, body); got.Code != want {
				t.Errorf("%s %s: got %d %s; want %d", method, path, got.Code, got.Body, want)
			}
		}
		call("PATCH", "/status/mapping", "", 200)
		for id := range strings.SplitSeq("abc", "") {
			call("POST", "/organization/accounts", `{"vendorAccountId":"`+id+`","name":"A"}`, 201)
		}
		if err := sb.Unmap(org, sandbox.Only("b"), sandbox.Selection{}); err != nil { // before his visit
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := sb.Unmap(org, sandbox.Only("c"), sandbox.Selection{}); err != nil { // after it
			t.Fatal(err)
		}
		call("POST", "/organization/accounts", `{"vendorAccountId":"d","name":"A"}`, 201)
		time.Sleep(time.Minute)
		in, _ := sb.ReportOf(org)
		mapped := ""
		for _, a := range in.Accounts {
			if a.Mapped {
				mapped += a.VendorAccountID
			}
		}
		if mapped != "ad" {
			t.Errorf("got %q mapped; want %q", mapped, "ad")
		}
	})
}

func TestControlsOfAnUnknownIntegrationAre404(t *testing.T) {
	p := start(t, sandbox.Config{})
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "tokens", ""}, {"DELETE", "tokens", ""}, {"POST", "anomaly", `{"on":true}`},
		{"POST", "human", `{"action":"unmap"}`}, {"POST", "inform", `{"url":"http://127.0.0.1:1"}`},
	} {
		p.want(p.do(tt.method, "/sandbox/integrations/acme%2Fnobody/"+tt.path, tt.body), 404, `unknown integration \"acme/nobody\"`)
	}
	p.want(p.do("POST", control+"/anomaly", `{}`), 400, `want {\"on\":true}`)
	p.want(p.do("POST", "/sandbox/integrations", `{"dialect":"Gradient"}`), 400, `want \"mspcentric\" or \"gradient\"`)
	p.want(p.do("POST", "/sandbox/integrations", `{"dialect":"gradient"}`), 201, `"dialect":"gradient"`)
}
