package sandbox_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func startGradient(t *testing.T, c sandbox.Config) *partner {
	t.Helper()
	return startDialect(t, c, sandbox.Gradient)
}

// wantJSON compares the whole answer, whatever the order of its fields.
func (p *partner) wantJSON(got reply, status int, want string) {
	p.t.Helper()
	p.want(got, status)
	var g, w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		p.t.Fatalf("the test's own JSON %s: %v", want, err)
	}
	if err := json.Unmarshal([]byte(got.body), &g); err != nil || !reflect.DeepEqual(g, w) {
		p.t.Errorf("got %s, error %v; want %s", got.body, err, want)
	}
}

func (p *partner) gradientCount(account, service, value, query string) reply {
	return p.call("POST", "/service/"+service+"/count"+query, fmt.Sprintf(`{"accountId":%q,"unitCount":%s}`, account, value))
}

// gradientReady posts and maps; counts are accepted from then on.
func (p *partner) gradientReady(accounts, services string) {
	p.t.Helper()
	p.want(p.call("POST", "/organization/accounts", accounts), 201)
	p.want(p.call("POST", "/organization/services", services), 201)
	p.want(p.call("PATCH", "/organization/status/pending", ""), 200)
	if err := p.Map(org, sandbox.All(), sandbox.All()); err != nil {
		p.t.Fatalf("the human cannot map: %v", err)
	}
}

func TestAGradientIntegrationGoesFromInactiveToActive(t *testing.T) {
	var now clock
	p := startGradient(t, sandbox.Config{Now: now.Now})
	p.wantJSON(p.call("GET", "/organization", ""), 200, `{"organizationId":"organization-int-1","name":"msp-0042","vendorId":"vendor-acme",
		"vendorName":"acme","integrationId":"int-1","status":"inactive","lastSyncedAt":null}`)
	p.want(p.do("POST", control+"/human", `{"action":"map","accounts":"all"}`), 409, "PATCH /organization/status/pending first")
	p.wantJSON(p.call("POST", "/organization/accounts", `{"id":"a","name":"A","description":"first"}`), 201,
		`[{"id":"a","name":"A","description":"first"}]`)
	p.wantJSON(p.call("POST", "/organization/services", `[{"id":"s","name":"S"},{"id":"r","name":"R"}]`), 201,
		`[{"id":"s","name":"S","description":""},{"id":"r","name":"R","description":""}]`)
	p.want(p.gradientCount("a", "s", "1", ""), 409, `{"statusCode":409,"message":"integration is not ready: inactive"}`)
	p.wantJSON(p.call("PATCH", "/organization/status/pending", ""), 200,
		`{"status":200,"message":"integration status is pending","data":{"integrationId":"int-1","status":"pending"}}`)
	p.wantStatus(sandbox.Mapping)
	p.want(p.gradientCount("a", "s", "1", ""), 404, `{"statusCode":404,"message":"No account map found with id: a"}`)
	if err := p.Map(org, sandbox.Only("a"), sandbox.Only("s")); err != nil {
		t.Fatal(err)
	}
	p.want(p.call("GET", "/organization", ""), 200, `"status":"pending"`)
	p.want(p.gradientCount("a", "r", "1", ""), 404, "No service map found with id: r")
	now.Advance(time.Hour)
	p.want(p.gradientCount("a", "s", "42.50", ""), 201, `{"status":201,"message":`)
	p.wantStatus(sandbox.Connected)
	p.wantValue("a", "s", "42.50")
	p.want(p.call("GET", "/organization", ""), 200, `"status":"active","lastSyncedAt":"2026-11-20T13:00:00Z"`)
	in, _ := p.ReportOf(org)
	if want := (sandbox.AccountReport{VendorAccountID: "a", Name: "A", Description: "first", Mapped: true}); in.Dialect != sandbox.Gradient || in.Accounts[0] != want {
		t.Errorf("got dialect %q, account %+v; want %q, %+v", in.Dialect, in.Accounts[0], sandbox.Gradient, want)
	}
}

func TestTheFinishedMappingIsStillPendingForAGradientClient(t *testing.T) {
	p := startGradient(t, sandbox.Config{})
	p.gradientReady(`{"id":"a","name":"A"}`, `{"id":"s","name":"S"}`)
	if err := p.Finish(org); err != nil {
		t.Fatal(err)
	}
	p.wantStatus(sandbox.Pending)
	p.want(p.call("GET", "/organization", ""), 200, `"status":"pending"`)
	p.want(p.call("PATCH", "/organization/status/pending", ""), 200, `"status":"pending"`)
	p.wantStatus(sandbox.Pending)
	p.want(p.gradientCount("a", "s", "1", ""), 201)
	p.want(p.call("GET", "/organization", ""), 200, `"status":"active"`)
}

func TestAGradientVendorSetsTheStatusInLowerCase(t *testing.T) {
	p := startGradient(t, sandbox.Config{})
	p.gradientReady(`{"id":"a","name":"A"}`, `{"id":"s","name":"S"}`)
	for _, tt := range []struct {
		set  string
		want sandbox.Status
	}{
		{"active", sandbox.Connected}, {"pending", sandbox.Pending}, {"inactive", sandbox.Inactive},
		{"pending", sandbox.Mapping}, {"pending", sandbox.Mapping}, {"active", sandbox.Connected},
	} {
		p.want(p.call("PATCH", "/organization/status/"+tt.set, ""), 200, `"status":"`+tt.set+`"`)
		p.wantStatus(tt.want)
	}
	for _, wrong := range []string{"Active", "PENDING", "connected", "mapping", ""} {
		p.want(p.call("PATCH", "/organization/status/"+wrong, ""), 400, "want inactive, pending or active, in lower case")
	}
	p.wantStatus(sandbox.Connected)
	p.want(p.gradientCount("a", "s", "1", ""), 201) // the mapping outlived them all
	operations := map[sandbox.Operation]int{}
	for _, r := range p.Tape() {
		operations[r.Operation]++
	}
	if operations[sandbox.OperationMapping] != 4 || operations[sandbox.OperationStatus] != 8 {
		t.Errorf("got operations %v; want 4 of mapping, 8 of status", operations)
	}
}

func TestAGradientVendorListsAccountsAndSkus(t *testing.T) {
	p := startGradient(t, sandbox.Config{})
	p.wantJSON(p.call("GET", "/organization/accounts", ""), 200, `[]`)
	p.want(p.call("GET", "/", ""), 200, `"skus":[]`)
	p.gradientReady(`[{"id":"a","name":"A"},{"id":"b/1","name":"B"}]`, `{"id":"s","name":"S","description":"d"}`)
	if err := p.Unmap(org, sandbox.Only("a"), sandbox.Selection{}); err != nil {
		t.Fatal(err)
	}
	const a = `{"id":"a","name":"A","description":"","isMapped":false,"mappingId":null}`
	const b = `{"id":"b/1","name":"B","description":"","isMapped":true,"mappingId":"mapping-int-1-0-2"}`
	p.wantJSON(p.call("GET", "/organization/accounts", ""), 200, "["+a+","+b+"]")
	p.wantJSON(p.call("GET", "/organization/accounts?returnUnmapped=true", ""), 200, "["+a+","+b+"]")
	p.wantJSON(p.call("GET", "/organization/accounts?returnUnmapped=false", ""), 200, "["+b+"]")
	p.want(p.call("GET", "/organization/accounts?returnUnmapped=0", ""), 400, "want true or false")
	const vendor = `{"status":200,"message":"vendor","data":{"_id":"vendor-acme","id":"vendor-acme","name":"acme","description":"",
		"organizationId":"organization-int-1","skus":[{"_id":"sku-s","id":"s","name":"S","description":"d","category":"other","subcategory":"other"}]}}`
	p.wantJSON(p.call("GET", "/", ""), 200, vendor)
	p.wantJSON(p.call("GET", "", ""), 200, vendor) // clients leave the slash out
}

func TestAGradientAccountIsUpdated(t *testing.T) {
	p := startGradient(t, sandbox.Config{})
	p.want(p.call("POST", "/organization/accounts", `{"id":"b/1","name":"B","description":"x"}`), 201)
	p.wantJSON(p.call("PATCH", "/organization/accounts/b%2F1", `{"name":"B2"}`), 200, `{"id":"b/1","name":"B2","description":"x"}`)
	p.wantJSON(p.call("PATCH", "/organization/accounts/b%2F1", `{"description":"","isActive":false}`), 200, `{"id":"b/1","name":"B2","description":""}`)
	in, _ := p.ReportOf(org)
	if want := (sandbox.AccountReport{VendorAccountID: "b/1", Name: "B2", Inactive: true}); in.Accounts[0] != want {
		t.Errorf("got account %+v; want %+v", in.Accounts[0], want)
	}
	p.want(p.call("PATCH", "/organization/accounts/c", `{"name":"C"}`), 404, "No account found with id: c")
	for body, want := range map[string]string{
		`{}`:                 "want name, description or isActive",
		`{"name":""}`:        "name must be a non-empty string",
		`{"isActive":"yes"}`: "isActive must be true or false",
		`{"isActive":null}`:  "isActive must be true or false",
		`[]`:                 "one JSON object",
	} {
		p.want(p.call("PATCH", "/organization/accounts/b%2F1", body), 400, want)
	}
}

func TestAGradientBatchIsCreatedWholeOrNotAtAll(t *testing.T) {
	p := startGradient(t, sandbox.Config{BodyLimit: 300})
	for _, path := range []string{"/organization/accounts", "/organization/services"} {
		p.want(p.call("POST", path, ` [{"id":"a","name":"A"},{"id":"b","name":"B"}]`), 201)
		p.want(p.call("POST", path, `[{"id":"c","name":"C"},{"id":"b","name":"B"}]`), 409, "already exists with id: b")
		p.want(p.call("POST", path, `{"id":"a","name":"A"}`), 409, "already exists with id: a")
		for body, want := range map[string]string{
			`[]`:         "the array is empty",
			`[1]`:        "[0]: the body must be one JSON object",
			`[{}`:        "the body is not JSON",
			`"a"`:        "one JSON object",
			`{"id":"d"}`: "name must be a non-empty string",
			`[{"id":"d","name":"D"},{"id":"d","name":7}]`: `[1]: name must be a non-empty string; [1]: id \"d\" is there already`,
			`{"vendorAccountId":"d","name":"D"}`:          "id must be a non-empty string",
		} {
			p.want(p.call("POST", path, body), 400, want)
		}
	}
	in, _ := p.ReportOf(org)
	if len(in.Accounts) != 2 || len(in.Services) != 2 {
		t.Errorf("got accounts %v, services %v; want a and b", in.Accounts, in.Services)
	}
	tape := p.Tape()
	if first := tape[0]; !slices.Equal(first.Batch, []string{"a", "b"}) || first.Account != "" || tape[2].Account != "a" || tape[2].Batch != nil {
		t.Errorf("got %+v, then %+v; want the batch of a and b, then the account a", first, tape[2])
	}
}

func TestTheBillingViewIsBuiltByTheNextCountWithoutNoBuild(t *testing.T) {
	p := startGradient(t, sandbox.Config{})
	p.gradientReady(`[{"id":"a","name":"A"},{"id":"b","name":"B"}]`, `{"id":"s","name":"S"}`)
	wantBilled := func(account, want string) {
		t.Helper()
		if got, _ := p.Billed(org, account, "s"); got != want {
			t.Errorf("got %q billed for %s; want %q", got, account, want)
		}
	}
	p.want(p.gradientCount("a", "s", "1", "?no_build=true"), 201)
	p.want(p.gradientCount("a", "s", "2", "?no_build=true"), 201)
	p.wantValue("a", "s", "2")
	wantBilled("a", "")
	p.want(p.gradientCount("z", "s", "9", ""), 404) // what is refused builds nothing
	wantBilled("a", "")
	p.want(p.gradientCount("b", "s", "3", "?no_build=false"), 201)
	wantBilled("a", "2")
	wantBilled("b", "3")
	p.want(p.gradientCount("a", "s", "4", "?no_build=true"), 201)
	p.want(p.do("GET", "/sandbox/report", ""), 200, `"counts":{"a":{"s":4},"b":{"s":3}},"billed":{"a":{"s":2},"b":{"s":3}}`)
	p.want(p.gradientCount("a", "s", "5", "?no_build=1"), 400, "query no_build")
	if err := p.Reset(org); err != nil {
		t.Fatal(err)
	}
	wantBilled("a", "")
	p.gradientReady(`[{"id":"a","name":"A"},{"id":"b","name":"B"}]`, `{"id":"s","name":"S"}`)
	p.want(p.gradientCount("a", "s", "6", "?no_build=true"), 201)
	wantBilled("a", "")
	p.want(p.gradientCount("b", "s", "7", ""), 201)
	wantBilled("a", "6")
	tape := p.Tape()
	if last, before := tape[len(tape)-1], tape[len(tape)-2]; last.NoBuild || !before.NoBuild {
		t.Errorf("got no_build %v, then %v on the tape; want true, then false", before.NoBuild, last.NoBuild)
	}
}

func TestAGradientRequestThatIsWrongIsRefused(t *testing.T) {
	p := startGradient(t, sandbox.Config{BodyLimit: 100})
	p.gradientReady(`{"id":"a","name":"A"}`, `{"id":"s","name":"S"}`)
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"a count of null":              {"POST", "/service/s/count", `{"accountId":"a","unitCount":null}`, 400, "unitCount must be a JSON number"},
		"a count in quotes":            {"POST", "/service/s/count", `{"accountId":"a","unitCount":"1"}`, 400, "unitCount must be a JSON number"},
		"a count without an account":   {"POST", "/service/s/count", `{"unitCount":1}`, 400, "accountId must be a non-empty string"},
		"an empty service":             {"POST", "/service//count", `{"accountId":"a","unitCount":1}`, 400, "serviceId must be"},
		"an empty account":             {"PATCH", "/organization/accounts/", `{"name":"A"}`, 400, "the account's id must be"},
		"a body too large":             {"POST", "/organization/accounts", `[` + strings.Repeat(" ", 100) + `]`, 413, "100 bytes"},
		"the path of the other":        {"PATCH", "/status/mapping", ``, 404, "Cannot PATCH"},
		"a DELETE, of which is none":   {"DELETE", "/organization/accounts", ``, 405, "want GET or POST"},
		"a POST to the organization":   {"POST", "/organization", `{}`, 405, "want GET"},
		"an unknown path":              {"GET", "/service/s", ``, 404, "Cannot GET"},
		"services, which nobody lists": {"GET", "/organization/services", ``, 405, "want POST"},
	} {
		t.Run(name, func(t *testing.T) {
			p.want(p.call(tt.method, tt.path, tt.body), tt.status, `{"statusCode":`, tt.want)
		})
	}
	if got := p.call("DELETE", "/organization/accounts", ``).header.Get("Allow"); got != "GET, POST" {
		t.Errorf("got Allow %q; want GET, POST", got)
	}
}

func TestATokenInTheOtherDialectsHeaderIsRefused(t *testing.T) {
	p := startGradient(t, sandbox.Config{
		Integrations: []sandbox.Integration{{Name: "acme/old", VendorToken: "vt", PartnerToken: "old"}},
	})
	p.want(p.call("GET", "/organization", ""), 200)
	p.header, p.token = "Authorization", bearer("vt", "pt")
	p.want(p.askForMapping(), 401, `speaks the gradient dialect: send the token as \"GRADIENT-TOKEN: …\"`)
	p.header, p.token = "GRADIENT-TOKEN", token64("vt", "old")
	p.want(p.call("GET", "/organization", ""), 401, `speaks the mspcentric dialect: send the token as \"Authorization: Bearer …\"`)
	p.header, p.token = "Authorization", bearer("vt", "old")
	p.want(p.askForMapping(), 200)
	for token, want := range map[string]string{
		"vt:pt": "in plain text", "!!!": "not base64", "dnQ=": "colon is missing", token64("vt", "zz"): "not one of its integrations",
		bearer("vt", "pt"): "not base64",
	} {
		p.header, p.token = "GRADIENT-TOKEN", token
		p.want(p.call("GET", "/organization", ""), 401, `"statusCode":401`, want)
	}
}

func TestTheGradientRateLimitIsA429WithoutRetryAfter(t *testing.T) {
	for form, want := range map[sandbox.RetryAfterForm]string{"": "", sandbox.RetryAfterSeconds: "1"} {
		var now clock
		p := startGradient(t, sandbox.Config{RateLimit: 100, RetryAfterForm: form, Now: now.Now})
		for range 100 {
			p.want(p.call("GET", "/organization", ""), 200)
		}
		got := p.call("GET", "/organization", "")
		p.want(got, 429, `"statusCode":429`)
		if got.header.Get("Retry-After") != want {
			t.Errorf("form %q: got Retry-After %q; want %q", form, got.header.Get("Retry-After"), want)
		}
		now.Advance(time.Second)
		p.want(p.call("GET", "/organization", ""), 200)
	}
}

func TestFaultsMeetTheGradientOperationsAlso(t *testing.T) {
	p := startGradient(t, sandbox.Config{})
	p.fault(sandbox.Rule{Name: "down", Operation: sandbox.OperationList, Effect: sandbox.StatusBefore, Status: 503, RetryAfter: 2 * time.Second})
	got := p.call("GET", "/organization/accounts", "")
	p.want(got, 503)
	if got.header.Get("Retry-After") != "2" {
		t.Errorf("got Retry-After %q; want 2: the rule asks for it", got.header.Get("Retry-After"))
	}
	p.wantLast(503, false, "down")
	p.want(p.call("POST", "/organization/accounts", `{"id":"a","name":"A"}`), 201)
}

func TestTheAutomaticHumanMapsForGradientUnlessItIsSetInactive(t *testing.T) {
	var now clock
	p := startGradient(t, sandbox.Config{Human: sandbox.HumanAuto, HumanDelay: time.Minute, Now: now.Now})
	p.want(p.call("POST", "/organization/accounts", `{"id":"a","name":"A"}`), 201)
	p.want(p.call("POST", "/organization/services", `{"id":"s","name":"S"}`), 201)
	p.want(p.call("PATCH", "/organization/status/pending", ""), 200, `"status":"pending"`)
	p.want(p.gradientCount("a", "s", "0", ""), 404)
	now.Advance(time.Minute)
	p.want(p.gradientCount("a", "s", "0", ""), 201)
	p.want(p.call("POST", "/organization/accounts", `{"id":"b","name":"B"}`), 201) // he is on the way
	p.want(p.call("PATCH", "/organization/status/inactive", ""), 200)
	p.want(p.call("POST", "/organization/accounts", `{"id":"c","name":"C"}`), 201)
	now.Advance(time.Minute)
	if in, _ := p.ReportOf(org); !in.Accounts[0].Mapped || in.Accounts[1].Mapped || in.Accounts[2].Mapped {
		t.Errorf("got accounts %+v; want a mapped, b and c left alone", in.Accounts)
	}
}

func TestAnIntegrationWithoutADialectHasTheSandboxs(t *testing.T) {
	for configured, want := range map[sandbox.Dialect]sandbox.Dialect{
		"": sandbox.MSPCentric, sandbox.MSPCentric: sandbox.MSPCentric, sandbox.Gradient: sandbox.Gradient,
	} {
		s := sandbox.New(sandbox.Config{Dialect: configured})
		made, err := s.AddIntegration(sandbox.Integration{Name: "acme/m"})
		if err != nil || made.Dialect != want {
			t.Errorf("configured %q: got %q and %v, want %q", configured, made.Dialect, err, want)
		}
		s.Close()
	}
}
