package sandbox_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// fields are those of a JSON object.
type fields map[string]any

// with returns f with some of its fields replaced; nil takes one out.
func (f fields) with(changed fields) fields {
	out := maps.Clone(f)
	for name, value := range changed {
		out[name] = value
		if value == nil {
			delete(out, name)
		}
	}
	return out
}

// oemCall is a call with the client's good credentials and what else the body has.
func (p *partner) oemCall(method, path string, body fields) reply {
	p.t.Helper()
	all := fields{
		"clientId": oem.ClientID, "clientSecret": oem.ClientSecret, "grantType": "client_credentials", "scope": "vendor_manage",
	}.with(body)
	text, err := json.Marshal(all)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.do(method, sandbox.OEMBasePath+path, string(text))
}

// tokenIn returns the organization's token that an answer carries.
func (p *partner) tokenIn(got reply) string {
	p.t.Helper()
	p.want(got, 201, `{"status":201,"message":"`)
	var answer struct {
		Token string `json:"organizationOemToken"`
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.Token == "" {
		p.t.Fatalf("got answer %s, error %v; want an organizationOemToken", got.body, err)
	}
	return answer.Token
}

// best is an organization as a vendor would make it; ann is its owner.
var best = fields{
	"name": "Best MSP", "email": "ann@best.example", "firstName": "Ann", "lastName": "Best",
	"vendorUserId": "u-1", "vendorOrganizationId": "best-1",
}

// ben is another user of it.
var ben = fields{"email": "ben@best.example", "firstName": "Ben", "lastName": "Noon", "vendorUserId": "u-2"}

func (p *partner) organization(data fields) string {
	p.t.Helper()
	return p.tokenIn(p.oemCall("POST", "/organization", fields{"data": data}))
}

func TestAnOrganizationIsMadeOnceAndItsTokenOpensIt(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.organization(best)
	p.wantJSON(p.list(token), 200, `{"integrations":[],"status":200,"message":"0 integrations"}`)
	for name, again := range map[string]fields{
		"data.name is that of organization":           {"name": "best msp", "email": "x@new.example", "vendorOrganizationId": "new"},
		`data.vendorOrganizationId \"best-1\" is tak`: {"name": "New", "email": "x@new.example"},
		`data.vendorOrganizationId \"org-2\" is take`: {"name": "New", "email": "x@new.example", "vendorOrganizationId": "org-2"},
		"data.email belongs to a user of organizati":  {"name": "New", "email": "ANN@best.example", "vendorOrganizationId": "new"},
	} {
		p.want(p.oemCall("POST", "/organization", fields{"data": best.with(again)}), 409, `{"status":409,`, name)
	}
	other := p.organization(best.with(fields{"name": "Other", "email": "o@other.example", "vendorOrganizationId": nil}))
	if other == token {
		t.Error("got the same token for two organizations")
	}
	got := p.Organizations()
	if len(got) != 3 || got[1].Name != "best-1" || got[1].Title != "Best MSP" || got[2].Name != got[2].ID {
		t.Errorf("got organizations %+v; want that of the integration, best-1, and one that is named by the partner's id", got)
	}
	// An integration of that organization belongs to it, as if the OEM-API had made it.
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"zeta/best-1"}`), 201, token)
	p.want(p.do("POST", "/sandbox/integrations", `{"name":"zeta/org-2"}`), 409, `the partner's own id of organization \"best-1\"`)
}

func TestWhatIsMalformedInACallOfTheOEMAPIIsNamed(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.organization(best)
	globex := fields{"vendorId": "vendor-globex-backup", "integrationCredentials": fields{"Account number": "1", "Globex API key": "k"}}
	for name, tt := range map[string]struct {
		method, path string
		body         fields
		want         string
	}{
		"no data":                    {"POST", "/organization", fields{}, "data must be an object"},
		"data is a list":             {"POST", "/user", fields{"data": []string{}}, "data must be an object"},
		"data is null":               {"POST", "/user", fields{"data": json.RawMessage("null")}, "data must be an object"},
		"all fields of organization": {"POST", "/organization", fields{"data": fields{}}, "data.name must be a non-empty string; data.email must be a non-empty string; data.firstName must be a non-empty string; data.lastName must be a non-empty string; data.vendorUserId must be a non-empty string"},
		"a number for a name":        {"POST", "/organization", fields{"data": best.with(fields{"name": 7})}, "data.name must be a non-empty string"},
		"an empty vendor's id":       {"POST", "/organization", fields{"data": best.with(fields{"vendorOrganizationId": ""})}, "data.vendorOrganizationId must be a non-empty string"},
		"an e-mail without domain":   {"POST", "/organization", fields{"data": best.with(fields{"email": "ann"})}, "data.email must be an e-mail address"},
		"an e-mail with a name":      {"POST", "/user", fields{"data": ben.with(fields{"email": "Ben <b@best.example>"})}, "data.email must be an e-mail address"},
		"a misspelt field":           {"POST", "/user", fields{"data": ben.with(fields{"vendorOrganisationId": "best-1"})}, "data.vendorOrganisationId is no field of this call"},
		"an organization's name":     {"POST", "/user", fields{"data": ben.with(fields{"name": "x"})}, "data.name is no field of this call"},
		"a token without use":        {"POST", "/user", fields{"organizationOemToken": token, "data": ben}, "organizationOemToken is no field of this call"},
		"nobody to remove":           {"DELETE", "/user", fields{"organizationOemToken": token, "data": fields{}}, "data.vendorUserId must be a non-empty string; data.email must be a non-empty string"},
		"nobody to let in":           {"POST", "/session", fields{"organizationOemToken": token, "data": fields{"email": "ann@best.example"}}, "data.vendorUserId must be a non-empty string; data.email is no field"},
		"vendors with data":          {"POST", "/vendor", fields{"data": fields{}}, "data is no field of this call"},
		"a list with more":           {"POST", "/integration/list", fields{"organizationOemToken": token, "x": 1}, "x is no field of this call"},
		"an unknown kind":            {"POST", "/integration", fields{"organizationOemToken": token, "integrationType": "oauth"}, `integrationType must be \"external\" or \"credentials\"`},
		"external without ids":       {"POST", "/integration", fields{"organizationOemToken": token, "integrationType": "external"}, "organizationId must be a non-empty string; vendorId must be a non-empty string"},
		"external, ids in data":      {"POST", "/integration", fields{"organizationOemToken": token, "integrationType": "external", "data": fields{"vendorId": "vendor-acme"}}, "data.vendorId is no field"},
		"no vendor":                  {"POST", "/integration", fields{"organizationOemToken": token, "data": globex.with(fields{"vendorId": nil})}, "data.vendorId must be a non-empty string"},
		"no credentials":             {"POST", "/integration", fields{"organizationOemToken": token, "data": globex.with(fields{"integrationCredentials": nil})}, "data.integrationCredentials must be an object"},
		"no label":                   {"POST", "/integration", fields{"organizationOemToken": token, "data": globex.with(fields{"integrationCredentials": fields{}})}, "a value under at least one label"},
		"a number for a secret":      {"POST", "/integration", fields{"organizationOemToken": token, "data": globex.with(fields{"integrationCredentials": fields{"Globex API key": 7}})}, "data.integrationCredentials.Globex API key must be a non-empty string"},
		"ids of the other kind":      {"POST", "/integration", fields{"organizationOemToken": token, "organizationId": "x", "vendorId": "x", "data": globex}, `organizationId belongs to integrationType \"external\" alone; vendorId belongs`},
		"no secret to replace":       {"PATCH", "/integration/int-1", fields{"organizationOemToken": token, "data": fields{}}, "data.integrationCredentials must be an object"},
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			p.want(p.oemCall(tt.method, tt.path, tt.body), 400, `{"status":400,"message":"`, tt.want)
		})
	}
	if got := p.Organizations(); len(got) != 2 || len(got[1].Users) != 1 || len(got[1].Integrations) != 0 {
		t.Errorf("got organizations %+v; want nothing changed by what was refused", got)
	}
}

func TestEveryCallOfTheOEMAPIChecksWhoAsks(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.organization(best)
	globex := fields{"vendorId": "vendor-globex-backup", "integrationCredentials": fields{"Account number": "1", "Globex API key": "k"}}
	for _, call := range []struct {
		method, path string
		data         fields
		token        bool // it is about one organization
	}{
		{"POST", "/organization", best.with(fields{"name": "N", "vendorOrganizationId": "n", "email": "n@n.example"}), false},
		{"POST", "/user", ben, false},
		{"POST", "/vendor", nil, false},
		{"DELETE", "/user", fields{"vendorUserId": "u-1", "email": "ann@best.example"}, true},
		{"POST", "/session", fields{"vendorUserId": "u-1"}, true},
		{"POST", "/integration", globex, true},
		{"POST", "/integration/list", nil, true},
		{"PATCH", "/integration/int-9", fields{"integrationCredentials": fields{"Globex API key": "k"}}, true},
	} {
		body := fields{}
		if call.data != nil {
			body["data"] = call.data
		}
		if call.token {
			body["organizationOemToken"] = token
			p.want(p.oemCall(call.method, call.path, body.with(fields{"organizationOemToken": nil})), 403, "organizationOemToken is missing")
			p.want(p.oemCall(call.method, call.path, body.with(fields{"organizationOemToken": token + "x"})), 403, "that of no organization")
		}
		for field, want := range map[string]string{"clientId": "clientId is unknown", "clientSecret": "not that of", "grantType": "client_credentials", "scope": "vendor_manage"} {
			p.want(p.oemCall(call.method, call.path, body.with(fields{field: "guessed"})), 401, `{"status":401,`, want)
		}
		p.want(p.oemCall("PUT", call.path, body), 405, "Cannot PUT")
	}
	for _, r := range p.Tape()[1:] {
		if r.Accepted {
			t.Errorf("got record %+v; want nothing accepted", r)
		}
	}
}

func TestAnAnswerOfTheOEMAPICanBeLostAfterTheWorkWasDone(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	lose := func(o sandbox.Operation, e sandbox.Effect) {
		rule := sandbox.Rule{Name: "lost", Operation: o, First: 1, Effect: e}
		if e == sandbox.StatusAfter {
			rule.Status = 504
		}
		p.fault(rule)
	}
	lose(sandbox.OperationOEMOrganization, sandbox.ResetAfter)
	if got := p.oemCall("POST", "/organization", fields{"data": best}); got.err == nil {
		t.Errorf("got %d %s; want the connection torn", got.status, got.body)
	}
	p.wantLast(0, true, "lost")
	p.want(p.oemCall("POST", "/organization", fields{"data": best}), 409, "data.name is that")
	ann := best.with(fields{"name": nil})
	lose(sandbox.OperationOEMUser, sandbox.StatusAfter)
	p.want(p.oemCall("POST", "/user", fields{"data": ann}), 504, `{"status":504,"message":"fault lost"}`)
	token := p.tokenIn(p.oemCall("POST", "/user", fields{"data": ann}))
	external := fields{"organizationOemToken": token, "integrationType": "external", "organizationId": "best-1", "vendorId": "vendor-acme"}
	lose(sandbox.OperationOEMIntegration, sandbox.EmptyBody)
	if got := p.oemCall("POST", "/integration", external); got.status != 201 || got.body != "" {
		t.Errorf("got %d %q; want 201 without a body", got.status, got.body)
	}
	p.want(p.oemCall("POST", "/integration", external), 409, `has integration int-2 of vendor`)
	lose(sandbox.OperationOEMSession, sandbox.ResetBefore)
	if got := p.oemCall("POST", "/session", fields{"organizationOemToken": token, "data": fields{"vendorUserId": "u-1"}}); got.err == nil {
		t.Errorf("got %d %s; want the connection torn", got.status, got.body)
	}
	p.wantLast(0, false, "lost")
}

func TestAFaultOfOneIntegrationLeavesCallsAboutNoOrganizationAlone(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	p.fault(sandbox.Rule{Operation: "*", Integration: org, Effect: sandbox.StatusBefore, Status: 503})
	token := p.organization(best)
	p.want(p.oemCall("POST", "/vendor", nil), 200)
	p.want(p.list(token), 200)
	p.want(p.list(p.oemToken(org)), 503)
}

func TestCallsAboutNoOrganizationHaveARateLimitOfTheirOwn(t *testing.T) {
	var now clock
	p := startOEM(t, sandbox.Config{RateLimit: 1, Now: now.Now})
	token := p.organization(best)
	p.want(p.oemCall("POST", "/vendor", nil), 429, `{"status":429,`)
	p.want(p.list(token), 200)
	now.Advance(time.Second)
	p.want(p.oemCall("POST", "/vendor", nil), 200)
}

func TestNoSecretOfTheOEMAPIIsOnTheTapeOrOnThePage(t *testing.T) {
	p := startOEM(t, sandbox.Config{Vendors: []sandbox.Vendor{
		{Name: "acme", Type: sandbox.ExternalVendor, Token: "acme-secret"},
		{ID: "g", Name: "Globex Backup", Type: sandbox.CredentialsVendor, CredentialLabels: []string{"API key"}},
	}})
	token := p.organization(best)
	p.tokenIn(p.oemCall("POST", "/user", fields{"data": ben}))
	key := p.external(token, "best-1")
	made := p.oemCall("POST", "/integration", fields{"organizationOemToken": token, "data": fields{"vendorId": "g", "integrationCredentials": fields{"API key": "globex-secret"}}})
	p.want(made, 201)
	p.want(p.oemCall("PATCH", "/integration/int-3", fields{"organizationOemToken": token, "data": fields{"integrationCredentials": fields{"globex-swapped": "API key"}}}), 400, `want [\"API key\"]`)
	p.want(p.oemCall("PATCH", "/integration/int-3", fields{"organizationOemToken": token, "data": fields{"integrationCredentials": fields{"API key": "globex-new"}}}), 200)
	session := p.session(token, "u-1")
	told := p.do("GET", "/sandbox/tape", "").body + p.do("GET", "/", "").body + p.do("GET", "/sandbox/report", "").body + p.do("GET", "/sandbox/organizations", "").body
	for _, secret := range []string{token, key, session.Token, "globex-secret", "globex-new", "globex-swapped", "acme-secret", oem.ClientSecret} {
		if strings.Contains(told, secret) {
			t.Errorf("got the secret %q in tape, page, report or list of organizations: %s", secret, told)
		}
	}
	p.want(p.do("GET", "/sandbox/tape", ""), 200, `"organization":"best-1","operation":"oem-organization","status":201,"accepted":true`,
		`"operation":"oem-user"`, `"operation":"oem-integration"`, `"operation":"oem-integration-update"`, `"operation":"oem-session"`)
}
