package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

var oem = sandbox.OEM{ClientID: "oc", ClientSecret: "oem-client-secret"}

// startOEM is a partner whose OEM client and organization's token are known.
func startOEM(t *testing.T, c sandbox.Config) *partner {
	t.Helper()
	c.OEM = oem
	return start(t, c)
}

// list asks the OEM-API for integrations, with the fields of the body changed as told.
func (p *partner) list(token string, changed ...any) reply {
	p.t.Helper()
	fields := map[string]any{
		"clientId": oem.ClientID, "clientSecret": oem.ClientSecret, "grantType": "client_credentials", "scope": "vendor_manage",
		"organizationOemToken": token,
	}
	for i := 0; i < len(changed); i += 2 {
		fields[changed[i].(string)] = changed[i+1]
		if changed[i+1] == nil {
			delete(fields, changed[i].(string))
		}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.do("POST", sandbox.OEMBasePath+"/integration/list", string(body))
}

func (p *partner) oemToken(name string) string {
	p.t.Helper()
	token, err := p.OEMToken(name)
	if err != nil || token == "" {
		p.t.Fatalf("got OEM token %q of %s, error %v; want one", token, name, err)
	}
	return token
}

func TestAnOrganizationsIntegrationsAreListed(t *testing.T) {
	p := startOEM(t, sandbox.Config{Integrations: []sandbox.Integration{
		{Name: "zeta/msp-0042", VendorToken: "v", PartnerToken: "1"},
		{Name: "acme/msp-0043", VendorToken: "v", PartnerToken: "2"},
		{Name: "old/msp-0042", VendorToken: "v", PartnerToken: "3", Dialect: sandbox.Gradient},
		{Name: "alone", VendorToken: "v", PartnerToken: "4"},
		{Name: "acme/msp/0042", VendorToken: "v", PartnerToken: "5"},
	}})
	token := p.oemToken(org)
	if other := p.oemToken("zeta/msp-0042"); other != token {
		t.Errorf("got another token for another integration of the organization; want the same")
	}
	if err := p.SetStatus(org, sandbox.Pending); err != nil {
		t.Fatal(err)
	}
	p.wantJSON(p.list(token), 200, `{"integrations":[
		{"id":"int-1","vendorId":"vendor-zeta","integrationCredentialTemplate":[{"Vendor API key":""}],"integrationStatus":"inactive"},
		{"id":"int-6","vendorId":"vendor-acme","integrationCredentialTemplate":[{"Vendor API key":""}],"integrationStatus":"pending"}],
		"status":200,"message":"2 integrations"}`)
	for name, want := range map[string]string{"acme/msp-0043": `"id":"int-2"`, "alone": `"vendorId":"vendor-alone"`, "acme/msp/0042": `"id":"int-5"`} {
		p.want(p.list(p.oemToken(name)), 200, want, "1 integrations")
	}
	for _, name := range []string{"old/msp-0042", "acme/nobody"} {
		if token, err := p.OEMToken(name); !errors.Is(err, sandbox.ErrUnknown) || token != "" {
			t.Errorf("%s: got token %q, error %v; want %v", name, token, err, sandbox.ErrUnknown)
		}
	}
}

func TestStatusesAreToldInTheWordsAskedFor(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.oemToken(org)
	for words, want := range map[sandbox.StatusWords][]string{
		sandbox.FourStatuses:  {"inactive", "mapping", "pending", "connected"},
		sandbox.ThreeStatuses: {"inactive", "pending", "pending", "connected"},
		sandbox.NoStatuses:    {"", "", "", ""},
	} {
		p.want(p.do("PUT", "/sandbox/oem", fmt.Sprintf(`{"statuses":%q}`, words)), 204)
		for i, status := range []sandbox.Status{sandbox.Inactive, sandbox.Mapping, sandbox.Pending, sandbox.Connected} {
			if err := p.SetStatus(org, status); err != nil {
				t.Fatal(err)
			}
			got := p.list(token)
			field := fmt.Sprintf(`"integrationStatus":%q`, want[i])
			if has := strings.Contains(got.body, field); got.status != 200 || has != (want[i] != "") || (words == sandbox.NoStatuses && strings.Contains(got.body, "integrationStatus")) {
				t.Errorf("%s, %s: got %d %s; want %s", words, status, got.status, got.body, field)
			}
		}
	}
}

func TestTheListShowsTheAutomaticHumansVisit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sb := sandbox.New(sandbox.Config{OEM: oem, HumanDelay: time.Minute, Integrations: []sandbox.Integration{{Name: org, VendorToken: "vt", PartnerToken: "pt", OEMToken: "ot"}}})
		wantListed := func(status sandbox.Status) {
			t.Helper()
			got := serveOEM(t, sb, `{"clientId":"oc","clientSecret":"oem-client-secret","grantType":"client_credentials","scope":"vendor_manage","organizationOemToken":"ot"}`)
			if !strings.Contains(got.Body.String(), `"integrationStatus":"`+string(status)+`"`) {
				t.Errorf("got %d %s; want status %s", got.Code, got.Body, status)
			}
		}
		wantListed(sandbox.Inactive)
		serve(t, sb, "PATCH", "/status/mapping", "")
		wantListed(sandbox.Mapping)
		time.Sleep(time.Minute)
		wantListed(sandbox.Pending)
	})
}

func TestARefusalOfTheOEMAPISaysWhatIsWrong(t *testing.T) {
	p := startOEM(t, sandbox.Config{BodyLimit: 300})
	token := p.oemToken(org)
	const path = sandbox.OEMBasePath + "/integration/list"
	for name, tt := range map[string]struct {
		got    reply
		status int
		want   string
	}{
		"another client":              {p.list(token, "clientId", "oc2"), 401, "clientId is unknown"},
		"another secret":              {p.list(token, "clientSecret", "oc"), 401, "clientSecret is not that of the clientId"},
		"no client":                   {p.list(token, "clientId", nil), 401, "clientId and clientSecret are missing"},
		"no secret":                   {p.list(token, "clientSecret", nil), 401, "clientId and clientSecret are missing"},
		"another grant":               {p.list(token, "grantType", "password"), 401, "grantType must be client_credentials"},
		"no scope":                    {p.list(token, "scope", nil), 401, "scope must be vendor_manage"},
		"another client and no token": {p.list("", "clientId", "oc2"), 401, "clientId is unknown"},
		"another organization":        {p.list("ot2"), 403, "organizationOemToken is that of no organization"},
		"the vendor's token":          {p.list("vt"), 403, "organizationOemToken is that of no organization"},
		"no organization":             {p.list(token, "organizationOemToken", nil), 403, "organizationOemToken is missing"},
		"an empty organization":       {p.list(""), 403, "organizationOemToken is missing"},
		"fields of other types":       {p.list(token, "clientId", 7, "scope", []string{}), 400, "clientId must be a string; scope must be a string"},
		"no JSON":                     {p.do("POST", path, "clientId=oc"), 400, "the body is not JSON"},
		"no body":                     {p.do("POST", path, ""), 400, "the body is not JSON"},
		"an array":                    {p.do("POST", path, "[]"), 400, "one JSON object"},
		"a body too large":            {p.list(token, "x", strings.Repeat("x", 300)), 413, "300 bytes"},
		"another method":              {p.do("GET", path, ""), 405, "Cannot GET /api/oem-api/integration/list: want POST"},
		"another path":                {p.do("POST", sandbox.OEMBasePath+"/integrations/list", ""), 404, "Cannot POST /api/oem-api/integrations/list"},
		"the base path":               {p.do("GET", sandbox.OEMBasePath, ""), 404, "Cannot GET /api/oem-api"},
	} {
		t.Run(name, func(t *testing.T) {
			p.want(tt.got, tt.status, fmt.Sprintf(`{"status":%d,"message":"`, tt.status), tt.want)
		})
	}
	p.want(p.do("GET", "/api/oem-apis", ""), 404, "the OEM-API below /api/oem-api")
	for _, r := range p.Tape() {
		if r.Accepted || r.Integration != "" || r.Organization != "" {
			t.Errorf("got record %+v; want nothing accepted, of nobody", r)
		}
	}
}

func TestTheOEMAPIIsOnTheTapeWithoutASecret(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.oemToken(org)
	p.want(p.askForMapping(), 200)
	p.want(p.list(token), 200)
	p.want(p.list("ot2"), 403)
	p.want(p.list(token, "clientSecret", "guessed"), 401)
	got := p.do("GET", "/sandbox/tape", "")
	p.want(got, 200, `"integration":"","organization":"msp-0042","operation":"oem-integrations","status":200,"accepted":true,"requestId":"sbx-`)
	for _, secret := range []string{token, "ot2", "guessed", oem.ClientSecret} {
		if page := p.do("GET", "/", ""); strings.Contains(got.body+page.body, secret) {
			t.Errorf("got the secret %q in the tape %s or on the page", secret, got.body)
		}
	}
	if got := p.do("GET", "/sandbox/tape?organization=msp-0042", ""); strings.Count(got.body, "\n") != 1 {
		t.Errorf("got records %s of the organization; want one", got.body)
	}
	p.want(p.do("GET", "/", ""), 200, "<td>msp-0042</td>", "/api/oem-api")
	report := p.Report()
	if got := report.Totals.Requests[sandbox.OperationOEMIntegrations]; got["200"] != 1 || got["403"] != 1 || got["401"] != 1 {
		t.Errorf("got totals %v; want one 200, one 403 and one 401", got)
	}
	if got := report.Integrations[0].Totals.Requests; len(got) != 1 {
		t.Errorf("got requests %v of the integration; want those of the Vendor-API alone", got)
	}
}

func TestFaultsReachTheOEMAPIByEachIntegrationOfTheOrganization(t *testing.T) {
	p := startOEM(t, sandbox.Config{Integrations: []sandbox.Integration{
		{Name: "zeta/msp-0042", VendorToken: "v", PartnerToken: "1"}, {Name: "acme/other", VendorToken: "v", PartnerToken: "2"},
	}})
	token, other := p.oemToken(org), p.oemToken("acme/other")
	later := sandbox.Rule{Effect: sandbox.StatusBefore, Status: 503, Message: "later", RetryAfter: 2 * time.Second, Operation: sandbox.OperationOEMIntegrations}
	for name, tt := range map[string]struct {
		change        func(*sandbox.Rule)
		status, other int
	}{
		"any":                              {func(*sandbox.Rule) {}, 503, 503},
		"any operation":                    {func(r *sandbox.Rule) { r.Operation = "*" }, 503, 503},
		"the first integration":            {func(r *sandbox.Rule) { r.Integration = org }, 503, 200},
		"the second":                       {func(r *sandbox.Rule) { r.Integration = "zeta/msp-0042" }, 503, 200},
		"another operation":                {func(r *sandbox.Rule) { r.Operation = sandbox.OperationCount }, 200, 200},
		"an account, which no list is for": {func(r *sandbox.Rule) { r.Account = "a" }, 200, 200},
	} {
		t.Run(name, func(t *testing.T) {
			rule := later
			tt.change(&rule)
			p.fault(rule)
			got := p.list(token)
			p.want(got, tt.status)
			if tt.status == 503 && (got.body != `{"status":503,"message":"later"}` || got.header.Get("Retry-After") != "2") {
				t.Errorf("got %s, Retry-After %q; want the rule's answer in the form of this API", got.body, got.header.Get("Retry-After"))
			}
			p.want(p.list(other), tt.other)
			p.want(p.list(token, "scope", nil), 401) // bad credentials meet no fault
		})
	}
	p.fault(sandbox.Rule{Name: "cut", Effect: sandbox.ResetAfter, Operation: sandbox.OperationOEMIntegrations})
	if got := p.list(token); got.err == nil {
		t.Errorf("got status %d; want the connection torn", got.status)
	}
	p.wantLast(0, true, "cut")
}

func TestAnOrganizationHasItsOwnRateLimit(t *testing.T) {
	var now clock
	p := startOEM(t, sandbox.Config{
		RateLimit: 1, Now: now.Now,
		Integrations: []sandbox.Integration{{Name: "acme/other", VendorToken: "v", PartnerToken: "2"}},
	})
	token := p.oemToken(org)
	p.want(p.askForMapping(), 200)
	p.want(p.list(token), 200)
	got := p.list(token)
	p.want(got, 429, `{"status":429,"message":"more than 1 requests`)
	if after := got.header.Get("Retry-After"); after != "1" {
		t.Errorf("got Retry-After %q; want 1", after)
	}
	p.want(p.list(p.oemToken("acme/other")), 200)
	now.Advance(time.Second)
	p.want(p.list(token), 200)
}

func TestAfterCloseTheOEMAPIAnswers503(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.oemToken(org)
	p.Close()
	p.want(p.list(token), 503, `{"status":503,`)
}

func TestTheOEMTokenComesWithTheIntegration(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.oemToken(org)
	p.want(p.do("GET", control+"/oem-token", ""), 200, `{"oemToken":"`+token+`"}`)
	p.want(p.do("POST", control+"/tokens", ""), 201, `"oemToken":"`+token+`"`)
	p.want(p.do("POST", control+"/reset", ""), 204)
	p.want(p.do("DELETE", control+"/tokens", ""), 204)
	p.want(p.list(token), 200) // permanent
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"zeta/msp-0042"}`), 201, `"oemToken":"`+token+`"`)
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"zeta/chosen","oemToken":"chosen-token"}`), 201, `"oemToken":"chosen-token"`)
	p.want(p.list("chosen-token"), 200, `"vendorId":"vendor-zeta"`)
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"omega/msp-0042","oemToken":"another"}`), 409, `organization \"msp-0042\" has another OEM token`)
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"omega/new","oemToken":"chosen-token"}`), 409, `organization \"chosen\" has the same OEM token`)
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"omega/new","dialect":"gradient","oemToken":"t"}`), 400, "no OEM-API")
	if _, found := p.ReportOf("omega/new"); found {
		t.Error("got the integration that was refused; want it not to exist")
	}
	got := p.do("POST", "/sandbox/integrations", `{"name":"omega/new","dialect":"gradient"}`)
	p.want(got, 201)
	if strings.Contains(got.body, "oemToken") {
		t.Errorf("got %s; want no OEM token for the Gradient dialect", got.body)
	}
	p.want(p.do("GET", "/sandbox/integrations/omega%2Fnew/oem-token", ""), 404, "the gradient dialect has no OEM-API")
	p.want(p.do("GET", "/sandbox/integrations/nobody/oem-token", ""), 404, `unknown integration \"nobody\"`)
}

func TestTheOEMClientIsMadeUpOrSet(t *testing.T) {
	first, second := sandbox.New(sandbox.Config{}).OEM(), sandbox.New(sandbox.Config{}).OEM()
	if first.ClientID == "" || first.ClientSecret == "" || first.Statuses != sandbox.FourStatuses || first == second {
		t.Errorf("got %#v and %#v with secrets of %d and %d bytes; want two different ones", first, second, len(first.ClientSecret), len(second.ClientSecret))
	}
	p := startOEM(t, sandbox.Config{})
	token := p.oemToken(org)
	p.want(p.do("PUT", "/sandbox/oem", `{"clientSecret":"rotated"}`), 204)
	p.want(p.list(token), 401)
	p.want(p.list(token, "clientSecret", "rotated"), 200)
	got := p.do("GET", "/sandbox/oem", "")
	p.want(got, 200, `{"clientId":"oc","clientSecret":"rotated","statuses":"four"}`)
	p.want(p.do("PUT", "/sandbox/oem", got.body), 204)
	p.want(p.do("PUT", "/sandbox/oem", `{"statuses":"five","clientId":"x"}`), 400, `want \"four\", \"three\" or \"none\"`)
	p.want(p.do("PUT", "/sandbox/oem", `{"client":"x"}`), 400, `unknown field \"client\"`)
	if got := p.OEM().ClientID; got != "oc" {
		t.Errorf("got client id %q after a refused change; want it as before", got)
	}
	if got := fmt.Sprintf("%v %+v %#v %v", oem, oem, oem, sandbox.Config{OEM: oem}); strings.Contains(got, oem.ClientSecret) {
		t.Errorf("got %s; want the secret left out", got)
	}
	tokened := sandbox.Integration{Name: org, OEMToken: "s3cret"}
	if got := fmt.Sprintf("%v %+v %#v", tokened, tokened, tokened); strings.Contains(got, "s3cret") {
		t.Errorf("got %s; want the OEM token left out", got)
	}
}

func TestOEMTokensThatContradictEachOtherAreRefusedBeforeAnythingExists(t *testing.T) {
	in := func(name, oemToken string) sandbox.Integration {
		return sandbox.Integration{Name: name, VendorToken: "v", PartnerToken: name, OEMToken: oemToken}
	}
	old := in("old/1", "t")
	old.Dialect = sandbox.Gradient
	for name, tt := range map[string]struct {
		integrations []sandbox.Integration
		want         string // empty: it is fine
	}{
		"one for all":                   {[]sandbox.Integration{in("a/1", "t"), in("b/1", "t"), in("c/1", "")}, ""},
		"each its own":                  {[]sandbox.Integration{in("a/1", "t"), in("a/2", "u"), in("a/3", ""), in("b/3", "")}, ""},
		"two for one organization":      {[]sandbox.Integration{in("a/1", "t"), in("b/1", "u")}, `"b/1": an earlier one of organization "1" has another OEM token or none`},
		"a late one":                    {[]sandbox.Integration{in("a/1", ""), in("b/1", "t")}, `"b/1": an earlier one of organization "1"`},
		"one for two organizations":     {[]sandbox.Integration{in("a/1", "t"), in("a/2", "t")}, `"a/2": organization "1" has the same OEM token`},
		"one where there is no OEM-API": {[]sandbox.Integration{old}, `"old/1": the gradient dialect has no OEM-API`},
	} {
		t.Run(name, func(t *testing.T) {
			c := sandbox.Config{Integrations: tt.integrations}
			err := c.Validate()
			if tt.want == "" {
				if err != nil {
					t.Fatalf("got error %v; want none", err)
				}
				sandbox.New(c)
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v; want it to mention %s", err, tt.want)
			}
		})
	}
	if err := (sandbox.Config{OEM: sandbox.OEM{Statuses: "five"}}).Validate(); err == nil || !strings.Contains(err.Error(), "five") {
		t.Errorf("got error %v; want it to mention the words", err)
	}
}
