package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// reconciled is an onboarded partner whose accounts a-17 and a-18 are Miller's, and whose backup is
// sold as both services of the PSA.
func reconciled(t *testing.T) *partner {
	t.Helper()
	p, _ := onboarded(t, sandbox.Config{})
	p.post(map[string]string{"a-17": "Miller Ltd", "a-18": "Miller Shop", "a-19": "Alder"}, map[string]string{"backup": "Backup", "extra": "Extra"})
	p.want(p.do("POST", "/sandbox/organizations/best-1/psa", `{"id":"kite"}`), 204)
	p.want(p.do("POST", "/sandbox/integrations/acme%2Fbest-1/mapping",
		`{"accounts":{"a-17":"miller","a-18":"miller"},"services":{"backup":["gb","bk","bk"],"extra":["bk"]},"excludeAccounts":"all"}`), 204)
	p.want(p.do("POST", "/sandbox/integrations/acme%2Fbest-1/human", `{"action":"finish"}`), 204)
	return p
}

// deltas of best-1 in short: company, service, contract, reported and delta.
func (p *partner) deltas() []string {
	p.t.Helper()
	got, err := p.Deltas("best-1")
	if err != nil {
		p.t.Fatal(err)
	}
	text := func(n *json.Number) string {
		if n == nil {
			return "-"
		}
		return n.String()
	}
	var all []string
	for i := range got {
		d := &got[i]
		all = append(all, fmt.Sprintf("%s %s %s %s %s open=%v", d.Company, d.Service, text(d.Contract), text(d.Reported), text(d.Delta), d.Open()))
	}
	return all
}

func (p *partner) wantDeltas(want ...string) {
	p.t.Helper()
	if got := p.deltas(); !slices.Equal(got, want) {
		p.t.Errorf("got deltas %q; want %q", got, want)
	}
}

func TestAServiceThatIsMappedToTwoCountsInBoth(t *testing.T) {
	p := reconciled(t)
	p.wantDeltas("miller bk 40 - - open=false") // what nobody reported yet is not 0
	p.want(p.count("a-17", "backup", "30"), 201)
	p.want(p.count("a-18", "backup", "1.250"), 201)
	p.want(p.count("a-18", "extra", "1e1"), 201)
	p.want(p.count("a-19", "backup", "99"), 404)
	p.wantDeltas("miller bk 40 41.25 1.25 open=true", "miller gb - 31.25 31.25 open=true")
	p.want(p.count("a-17", "backup", "28.75"), 201)
	p.wantDeltas("miller bk 40 40 0 open=false", "miller gb - 30 30 open=true")
	// What is not mapped any more is not in a contract either.
	p.want(p.do("POST", "/sandbox/integrations/acme%2Fbest-1/mapping", `{"excludeServices":["extra"]}`), 204)
	p.wantDeltas("miller bk 40 30 -10 open=true", "miller gb - 30 30 open=true")
	if err := p.Unmap(bestName, sandbox.Only("a-18"), sandbox.Selection{}); err != nil {
		t.Fatal(err)
	}
	p.wantDeltas("miller bk 40 28.75 -11.25 open=true", "miller gb - 28.75 28.75 open=true")
}

func TestVendorsAreAddedUp(t *testing.T) {
	p := reconciled(t)
	p.want(p.count("a-17", "backup", "30"), 201)
	made, err := p.AddIntegration(sandbox.Integration{Name: "zeta/best-1"})
	if err != nil {
		t.Fatal(err)
	}
	p.token = bearer(made.VendorToken, made.PartnerToken)
	p.post(map[string]string{"z": "MILLER  ltd"}, map[string]string{"zs": "backup"})
	p.want(p.do("POST", "/sandbox/integrations/zeta%2Fbest-1/suggestions", ""), 200, `{"accounts":1,"services":1}`)
	p.want(p.do("POST", "/sandbox/integrations/zeta%2Fbest-1/suggestions", ""), 200, `{"accounts":0,"services":0}`)
	if err := p.Finish("zeta/best-1"); err != nil {
		t.Fatal(err)
	}
	p.want(p.count("z", "zs", "12"), 201)
	p.wantDeltas("miller bk 40 42 2 open=true", "miller gb - 30 30 open=true")
	p.want(p.do("GET", "/sandbox/organizations/best-1/deltas", ""), 200,
		`"company":"miller","companyName":"Miller Ltd","service":"bk","serviceName":"Backup","contract":40,"reported":42,"delta":2,"sources":[`+
			`{"integration":"acme/best-1","account":"a-17","accountName":"Miller Ltd","service":"backup","serviceName":"Backup","units":30},`+
			`{"integration":"zeta/best-1","account":"z"`, `"contract":null`)
}

func TestNobodyApprovesAFigureUnseen(t *testing.T) {
	p := reconciled(t)
	p.want(p.count("a-17", "backup", "42"), 201)
	const path = "/sandbox/organizations/best-1/approvals"
	for body, want := range map[string]struct {
		status int
		text   string
	}{
		`{"deltas":[{"company":"miller","service":"bk","units":41}]}`:                                                {409, "Miller Ltd, Backup: conflict: 42 units are reported by now, not 41"},
		`{"deltas":[{"company":"alder","service":"bk","units":1}]}`:                                                  {404, `unknown line: company \"alder\", service \"bk\"`},
		`{"deltas":[{"company":"miller","service":"bk"}]}`:                                                           {400, "want a decimal"},
		`{"deltas":[{"company":"miller","service":"gb","units":42},{"company":"miller","service":"bk","units":7}]}`:  {409, "not 7"},
		`{"deltas":[{"company":"miller","service":"bk","units":42},{"company":"miller","service":"bk","units":42}]}`: {409, "the contract has 42 units already"},
		`{}`:                         {400, `want either {\"all\":true} or`},
		`{"all":true,"deltas":[{}]}`: {400, "want either"},
		`{"company":"miller"}`:       {400, "unknown field"},
	} {
		p.want(p.do("POST", path, body), want.status, want.text)
	}
	p.wantDeltas("miller bk 40 42 2 open=true", "miller gb - 42 42 open=true")
	p.want(p.do("POST", path, `{"by":"Ann","deltas":[{"company":"miller","service":"bk","units":42.0}]}`), 200,
		`"by":"Ann","psa":"kite","company":"miller","companyName":"Miller Ltd","service":"bk","serviceName":"Backup","from":40,"to":42`)
	p.wantDeltas("miller bk 42 42 0 open=false", "miller gb - 42 42 open=true")
	p.want(p.do("POST", path, `{"deltas":[{"company":"miller","service":"bk","units":42}]}`), 409, "has 42 units already")
	p.want(p.do("POST", path, `{"all":true}`), 200, `"by":"control API"`, `"service":"gb","serviceName":"Storage \u003cGB\u003e","from":0,"to":42`)
	p.want(p.do("POST", path, `{"all":true}`), 200, "[]")
	p.want(p.do("GET", path, ""), 200, `"by":"Ann"`, `"by":"control API"`)
	p.want(p.do("GET", "/sandbox/organizations/best-1/psa", ""), 200, `"lines":[{"service":"bk","units":42},{"service":"gb","units":42}]`)
}

func TestAFigureThatCannotBeReckonedWithIsAProblemAndNotANumber(t *testing.T) {
	p := reconciled(t)
	for _, odd := range []string{"1e41", "1e-31", "1e999999999", "0." + strings.Repeat("3", 40), strings.Repeat("9", 200)} {
		p.want(p.count("a-17", "backup", odd), 201)
		got, err := p.Deltas("best-1")
		if err != nil || got[0].Problem == "" || got[0].Reported != nil || got[0].Open() {
			t.Errorf("%s: got %+v, error %v; want a problem, and nothing to approve", odd, got, err)
		}
	}
	p.want(p.do("POST", "/sandbox/organizations/best-1/approvals", `{"all":true}`), 200, "[]")
	v := p.visitor()
	p.want(p.do("POST", "/sandbox/organizations/best-1/sessions", `{"vendorUserId":"nobody"}`), 404, `unknown user \"nobody\"`)
	var made struct{ URL string }
	if err := json.Unmarshal([]byte(p.do("POST", "/sandbox/organizations/best-1/sessions", `{"vendorUserId":"u-1"}`).body), &made); err != nil {
		t.Fatal(err)
	}
	v.open(made.URL, "Welcome, Ann Best")
	v.open("/wizard/int-2/reconcile", `data-state="problem"`, "want a decimal of at most 128 characters")
	p.want(p.count("a-17", "backup", "1e2"), 201)
	p.wantDeltas("miller bk 40 100 60 open=true", "miller gb - 100 100 open=true")
}

func TestAMappingThatCannotBeIsRefusedWhole(t *testing.T) {
	p, _ := onboarded(t, sandbox.Config{})
	const path = "/sandbox/integrations/acme%2Fbest-1/mapping"
	p.want(p.account("a"), 201)
	p.want(p.service("s"), 201)
	p.want(p.do("POST", path, `{"accounts":{"a":"miller"}}`), 409, "PATCH /status/mapping first")
	p.want(p.askForMapping(), 200)
	p.want(p.do("POST", path, `{"accounts":{"a":"miller"}}`), 409, "no PSA is connected")
	p.want(p.do("POST", "/sandbox/integrations/acme%2Fbest-1/suggestions", ""), 409, "no PSA is connected")
	p.want(p.do("GET", "/sandbox/organizations/best-1/deltas", ""), 409, "no PSA is connected")
	p.want(p.do("POST", "/sandbox/organizations/best-1/psa", `{"id":"nope"}`), 404, `unknown PSA \"nope\": want one of [\"kite\" \"other\"]`)
	p.want(p.do("POST", "/sandbox/organizations/nobody/psa", `{"id":"kite"}`), 404, `unknown organization \"nobody\"`)
	p.want(p.do("POST", "/sandbox/organizations/best-1/psa", `{"id":"kite"}`), 204)
	for body, want := range map[string]struct {
		status int
		text   string
	}{
		`{"accounts":{"a":"miller","b":"miller"},"services":{"s":["bk"]}}`:    {404, `unknown account \"b\": it was never posted`},
		`{"accounts":{"a":"miller"},"services":{"s":["bk","zz"],"t":["bk"]}}`: {404, `unknown service of the PSA \"zz\", for service \"s\"`},
		`{"accounts":{"a":"nobody"}}`:                                         {404, `unknown company \"nobody\", for account \"a\"`},
		`{"accounts":{"a":"miller"},"excludeAccounts":["a"]}`:                 {400, `account \"a\" is both mapped and excluded`},
		`{"services":{"s":"bk"}}`:                                             {400, "want an array"},
	} {
		p.want(p.do("POST", path, body), want.status, want.text)
	}
	in, _ := p.ReportOf(bestName)
	if in.Accounts[0].Mapped || in.Services[0].Mapped {
		t.Errorf("got %+v; want nothing mapped", in)
	}
	// To the control API as well, an empty list of services is nothing decided.
	p.want(p.do("POST", path, `{"accounts":{"a":"miller"},"services":{"s":["bk"]}}`), 204)
	p.want(p.do("POST", path, `{"services":{"s":[]}}`), 204)
	if in, _ := p.ReportOf(bestName); !in.Accounts[0].Mapped || in.Services[0].Mapped {
		t.Errorf("got %+v; want the account mapped and the service not", in)
	}
	if _, err := p.AddIntegration(sandbox.Integration{Name: "old/best-1", Dialect: sandbox.Gradient}); err != nil {
		t.Fatal(err)
	}
	if err := p.SetStatus("old/best-1", sandbox.Mapping); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.AcceptSuggestions("old/best-1"); !errors.Is(err, sandbox.ErrConflict) {
		t.Errorf("got error %v of the Gradient dialect; want %v", err, sandbox.ErrConflict)
	}
}

func TestANameThatTwoShareIsNoSuggestion(t *testing.T) {
	twins := sandbox.PSA{ID: "twins", Name: "Twins", Currency: "EUR", Companies: []sandbox.Company{{ID: "1", Name: "Acme"}, {ID: "2", Name: "ACME "}, {ID: "3", Name: "Solo"}}}
	p, _ := onboarded(t, sandbox.Config{PSAs: []sandbox.PSA{twins}})
	p.post(map[string]string{"a": "acme", "b": "solo"}, nil)
	if err := p.ConnectPSA("best-1", "twins"); err != nil {
		t.Fatal(err)
	}
	if accounts, _, err := p.AcceptSuggestions(bestName); err != nil || accounts != 1 {
		t.Errorf("got %d suggestions accepted, error %v; want 1", accounts, err)
	}
}

func TestAMappingMadeInTheWizardIsToldByTheWebhook(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	p.post(map[string]string{"a": "Miller Ltd", "b": "B"}, map[string]string{"s": "Backup"})
	v, r := p.enters(token), receive(t, 202)
	if err := p.ConnectPSA("best-1", "kite"); err != nil {
		t.Fatal(err)
	}
	v.open("/wizard/int-2/accounts")
	v.press(`id="accept-suggestions"`, do("suggest"), "1 account changed")
	if _, err := p.Inform(t.Context(), bestName, sandbox.Inform{URL: r.URL}); err != nil {
		t.Fatal(err)
	}
	if got := r.accounts(t); !slices.Equal(got, []string{"a"}) || !strings.Contains(r.bodies[0], `"vendorUserId":"u-1"`) {
		t.Errorf("got accounts %v in %v; want a, told with the user's id", got, r.bodies)
	}
	// Each form is a moment of its own, which a late webhook may still tell.
	v.press(`id="save"`, url.Values{fieldOf("b"): {"to:alder"}}, "1 account changed")
	v.press(`id="save"`, url.Values{fieldOf("a"): {"exclude"}}, "1 account changed")
	if _, err := p.Inform(t.Context(), bestName, sandbox.Inform{URL: r.URL, Shuffle: true, Times: 16}); err != nil {
		t.Fatal(err)
	}
	if got := r.accounts(t); !slices.Contains(got, "ab") || !slices.Contains(got, "b") {
		t.Errorf("got accounts %q; want ab, and b, among them", got)
	}
}

func TestAFormOfTheWizardIsToldToTheWebhookThatIsConfigured(t *testing.T) {
	r := receive(t, 202)
	p, token := onboarded(t, sandbox.Config{Inform: sandbox.Inform{URL: r.URL + "/inform/v1/{vendor}/s3cret", Header: "X-Secret", Secret: "s"}})
	p.post(map[string]string{"a": "Miller Ltd", "b": "B"}, map[string]string{"s": "Backup"})
	v := p.enters(token)
	v.open("/wizard/int-2/psa")
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"kite"}}, "Kite is connected. Nothing of it exists: it is made up. The vendor's webhook was told, and answered 202.")
	v.press(`id="accept-suggestions"`, do("suggest"), "answered 202")
	v.press(`id="save"`, url.Values{fieldOf("b"): {"to:nobody"}}, "Nothing was changed.")
	if got := r.accounts(t); !slices.Equal(got, []string{"", "a"}) || r.paths[1] != "/inform/v1/acme/s3cret" {
		t.Errorf("got accounts %q at %q; want none and then a, at the vendor's address, and nothing of what was refused", got, r.paths)
	}
	r.Close()
	v.press(`id="save"`, url.Values{fieldOf("b"): {"exclude"}}, "All accounts are decided. The vendor's webhook was not reached.")
	if strings.Contains(v.page, "s3cret") {
		t.Errorf("got a page with the secret of the webhook: %s", v.page)
	}
	if err := (sandbox.Config{Inform: sandbox.Inform{URL: "http://example.com"}}).Validate(); err == nil || !strings.Contains(err.Error(), "inform: url: host") {
		t.Errorf("got error %v; want an address that is no loopback refused", err)
	}
}

func TestPSAsThatContradictThemselvesAreRefused(t *testing.T) {
	line := func(service, units string) []sandbox.Company {
		return []sandbox.Company{{ID: "c", Name: "C", Lines: []sandbox.ContractLine{{Service: service, Units: json.Number(units)}}}}
	}
	services := []sandbox.PSAService{{ID: "s", Name: "S", Price: "1"}}
	for want, p := range map[string]sandbox.PSA{
		`PSA 1 "": PSA "": want an id`:                                      {Name: "P", Currency: "EUR"},
		"currency: want one":                                                {ID: "p", Name: "P"},
		`service "s": an earlier one has that id`:                           {ID: "p", Name: "P", Currency: "EUR", Services: append(services, services...)},
		`price of service "s": figure ""`:                                   {ID: "p", Name: "P", Currency: "EUR", Services: []sandbox.PSAService{{ID: "s", Name: "S"}}},
		`price of service "s": -1 is negative`:                              {ID: "p", Name: "P", Currency: "EUR", Services: []sandbox.PSAService{{ID: "s", Name: "S", Price: "-1"}}},
		`contract of company "c": service "t" is none of the PSA`:           {ID: "p", Name: "P", Currency: "EUR", Services: services, Companies: line("t", "1")},
		`contract of company "c", service "s": figure "many": want a decim`: {ID: "p", Name: "P", Currency: "EUR", Services: services, Companies: line("s", "many")},
		`company "a\nb": want an id of printable characters`:                {ID: "p", Name: "P", Currency: "EUR", Companies: []sandbox.Company{{ID: "a\nb", Name: "C"}}},
	} {
		if err := (sandbox.Config{PSAs: []sandbox.PSA{p}}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got error %v; want it to contain %s", p, err, want)
		}
	}
	if err := (sandbox.Config{PSAs: []sandbox.PSA{psa, psa}}).Validate(); err == nil || !strings.Contains(err.Error(), `PSA 2 "kite": an earlier one`) {
		t.Errorf("got error %v; want the second of the same id refused", err)
	}
	if got := sandbox.New(sandbox.Config{}).PSAs(); len(got) != 3 || len(got[0].Companies) == 0 {
		t.Errorf("got %+v; want three PSAs without a configuration", got)
	}
}
