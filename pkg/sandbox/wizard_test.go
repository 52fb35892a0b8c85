package sandbox_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// psa has a company for each account of the tests, and two services.
var psa = sandbox.PSA{
	ID: "kite", Name: "Kite", Currency: "EUR",
	Services: []sandbox.PSAService{{ID: "bk", Name: "Backup", Price: "4.50"}, {ID: "gb", Name: "Storage <GB>", Price: "0.08"}},
	Companies: []sandbox.Company{
		{ID: "miller", Name: "Miller Ltd", Contract: "Gold", Lines: []sandbox.ContractLine{{Service: "bk", Units: "40"}}},
		{ID: "alder", Name: "Alder <Dental>", Contract: "Silver", Lines: []sandbox.ContractLine{{Service: "bk", Units: "12.50"}}},
	},
}

// onboarded is a partner with the organization best-1, the integration acme/best-1 that the
// OEM-API made, and the token with which that posts.
func onboarded(t *testing.T, c sandbox.Config) (p *partner, token string) {
	t.Helper()
	if c.PSAs == nil {
		c.PSAs = []sandbox.PSA{psa, {ID: "other", Name: "Other", Currency: "USD", Companies: []sandbox.Company{{ID: "x", Name: "X"}}, Services: []sandbox.PSAService{{ID: "y", Name: "Y", Price: "1"}}}}
	}
	p = startOEM(t, c)
	token = p.organization(best)
	p.token = bearer(p.Vendors()[0].Token, p.external(token, "best-1"))
	return p, token
}

const bestName = "acme/best-1"

// post posts accounts and services by their names, and asks for the mapping.
func (p *partner) post(accounts, services map[string]string) {
	p.t.Helper()
	for id, name := range accounts {
		p.want(p.call("POST", "/organization/accounts", fmt.Sprintf(`{"vendorAccountId":%q,"name":%q}`, id, name)), 201)
	}
	for id, name := range services {
		p.want(p.call("POST", "/organization/services", fmt.Sprintf(`{"id":%q,"name":%q}`, id, name)), 201)
	}
	p.want(p.askForMapping(), 200)
}

// enters is a visitor in the wizard, as the organization's owner.
func (p *partner) enters(token string) *visitor {
	p.t.Helper()
	v := p.visitor()
	v.open(p.session(token, "u-1").URL, "Welcome, Ann Best")
	return v
}

func TestTheWizardLeadsFromTheLinkToAChangedContract(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	v := p.enters(token)
	v.sees("Best MSP", `data-integration="int-2"`, `href="/wizard/int-2/connect"`, "the vendor prepares its accounts")
	v.open("/wizard/int-2/connect", "The key was exchanged", "acme has not posted any accounts yet.")
	v.open("/wizard/int-2/accounts", "Connect your PSA first")
	v.open("/wizard/int-2/psa", "Kite", "prices in EUR")
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"kite"}}, "Kite is connected", `data-page="accounts"`,
		"acme has not posted any accounts yet.", `http-equiv="refresh"`)

	p.post(map[string]string{"a-17": "miller  LTD", "a-18": "Alder & Sons", "a-19": "Internal"}, map[string]string{"backup": "Backup", "nfr": "Not for resale"})
	v.open("/wizard/int-2/accounts", "1 account has the same name as a company", "Same name: Miller Ltd", "Alder &amp; Sons")
	p.want(p.count("a-17", "backup", "1"), 409, "not ready: mapping")
	v.press(`id="accept-suggestions"`, do("suggest"), "1 account changed. 2 left to decide.")
	v.press(`id="save"`, url.Values{fieldOf("a-18"): {"to:alder"}, fieldOf("a-19"): {"exclude"}}, "2 accounts changed. All accounts are decided.", `data-state="excluded"`)
	v.open("/wizard/int-2/review", "No service is mapped to a service of your PSA")
	v.open("/wizard/int-2/services", "1 service has the same name")
	v.press(`id="save"`, url.Values{fieldOf("backup"): {"to:bk", "to:gb"}, fieldOf("nfr"): {"exclude"}}, "2 services changed. All services are decided.")
	v.open("/wizard/int-2/review", "Backup + Storage <GB>", "&lt;GB&gt;", "account Internal", "service Not for resale")
	v.press(`id="accept"`, do("accept"), "The review is accepted", `data-page="reconcile"`, "acme has not reported any usage yet.")

	p.want(p.count("a-17", "backup", "42.5"), 201)
	p.want(p.count("a-18", "backup", "10"), 201)
	p.want(p.count("a-19", "backup", "1"), 404, "No account map")
	p.want(p.count("a-17", "nfr", "1"), 404, "No service map")
	v.open("/wizard/int-2/reconcile", `<span id="open">4</span>`, `<span data-test="contract">40</span>`, `class="good">+2.5</span>`, "+EUR 11.25",
		`class="bad">−2.5</span>`, "not in the contract", "Miller", "Alder &lt;Dental&gt;")
	if _, values := v.form(`company=miller&amp;service=bk`); len(values["delta"]) != 4 {
		t.Errorf("got %v to approve all at once; want all four", values["delta"])
	}
	v.press(`data-company="miller" data-psa-service="bk"`, do("approve"), "1 line of Kite changed.", "Ann Best", `<strong>42.5</strong>`, `<span id="open">3</span>`)
	v.press(`id="approve-all"`, do("approve"), "3 lines of Kite changed.", "Nothing to approve")
	v.open("/wizard/int-2/psa", "42.5 × Backup", "10 × Storage &lt;GB&gt;")
	got, err := p.ConnectedPSA("best-1")
	if want := []sandbox.ContractLine{{Service: "bk", Units: "42.5"}, {Service: "gb", Units: "42.5"}}; err != nil || fmt.Sprint(got.Companies[0].Lines) != fmt.Sprint(want) {
		t.Errorf("got contract %v, error %v; want %v", got.Companies[0].Lines, err, want)
	}
	v.open("/wizard", `data-step="reconcile" data-state="done"`)
}

func TestALinkWorksOnceAndForAWhile(t *testing.T) {
	var now clock
	p, token := onboarded(t, sandbox.Config{Now: now.Now, LinkLifetime: 5 * time.Minute})
	used, unused, last := p.session(token, "u-1").URL, p.session(token, "u-1").URL, p.session(token, "u-1").URL
	v, other := p.visitor(), p.visitor()
	v.t, other.t = t, t
	if got := v.send(http.MethodHead, used, ""); got.status != 405 {
		t.Errorf("HEAD of a link: got status %d; want 405 and the link as good as before", got.status)
	}
	v.open(used, "Welcome, Ann Best")
	v.want(v.get(used), 410, "This link was used already", "It was opened at 20 November 2026, 12:00 UTC", "usagebridge integrations onboard", `href="/wizard"`)
	other.want(other.get(used), 410, `data-kind="used"`)
	if strings.Contains(other.page, `id="continue"`) {
		t.Errorf("got a way on for who has not opened the link: %s", other.page)
	}
	other.want(other.get("/wizard"), 401, "You are not signed in", "usagebridge integrations onboard")
	other.want(other.get("/wizard/int-2/connect"), 401)
	other.want(other.get("/wizard/open/guessed"), 404, "This link is unknown")
	now.Advance(5*time.Minute - 1)
	other.open(last, "Welcome")
	now.Advance(1)
	other.want(other.get(unused), 410, "This link has expired", "A link works for 5 minutes. This one ended at 20 November 2026, 12:05 UTC")
	now.Advance(8*time.Hour - 5*time.Minute - 1)
	v.open("/wizard", "Welcome")
	now.Advance(1)
	v.want(v.get("/wizard"), 401, "Your visit has ended", "A visit lasts 8 hours")
	now.Advance(33 * time.Hour)
	p.session(token, "u-1")
	v.want(v.get(used), 404, "This link is unknown")
}

func TestAVisitIsCarriedByACookieThatNobodyElseSends(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	for public, secure := range map[string]bool{"": false, "https://sandbox.example": true} {
		q, qToken := p, token
		if public != "" {
			q, qToken = onboarded(t, sandbox.Config{PublicURL: public})
		}
		link := q.session(qToken, "u-1")
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, q.server.URL+"/wizard/open/"+link.Token, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		client.CloseIdleConnections()
		cookies := res.Cookies()
		if res.StatusCode != http.StatusSeeOther || len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Path != "/wizard" || cookies[0].Secure != secure {
			t.Errorf("%q: got status %d, cookies %v; want 303 and one that is HttpOnly, SameSite=Lax, of /wizard, secure: %v", public, res.StatusCode, cookies, secure)
		}
		if len(cookies) == 1 && link.Token == cookies[0].Value {
			t.Error("got the secret of the link in the cookie; want another one")
		}
	}
}

func TestAFormFromElsewhereChangesNothing(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	p.post(map[string]string{"a": "Miller Ltd"}, map[string]string{"s": "Backup"})
	v, stranger := p.enters(token), p.enters(token)
	stranger.open("/wizard/int-2/psa")
	_, values := stranger.form(`id="connect-psa"`)
	for name, csrf := range map[string][]string{"none": nil, "an empty one": {""}, "that of another visit": values["csrf"], "the right one, cut": nil} {
		v.open("/wizard/int-2/psa")
		if name == "the right one, cut" {
			_, own := v.form(`id="connect-psa"`)
			csrf = []string{own.Get("csrf")[1:]}
		}
		v.want(v.submit(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"kite"}, "csrf": csrf}), 403, "This form is not from your visit", "Nothing was changed.")
		v.open("/wizard")
		v.want(v.submit(`id="leave"`, url.Values{"csrf": csrf}), 403)
	}
	if _, err := p.ConnectedPSA("best-1"); !errors.Is(err, sandbox.ErrConflict) {
		t.Errorf("got error %v of the PSA; want none connected", err)
	}
	v.open("/wizard/int-2/psa")
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"kite"}}, "Kite is connected")
	v.open("/wizard")
	v.want(v.submit(`id="leave"`, nil), 200, "You have left the wizard")
	v.want(v.get("/wizard"), 401)
	stranger.open("/wizard")
}

func TestAVisitorSeesNoOtherOrganization(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	v := p.enters(token)
	for _, path := range []string{"/wizard/int-1/connect", "/wizard/int-2/steal", "/wizard/int-2", "/wizard/int-2/"} {
		v.want(v.get(path), 404, "There is no such page")
	}
	v.open("/wizard/int-2/psa")
	_, values := v.form(`id="connect-psa"`)
	values.Set("action", "connect")
	values.Set("psa", "kite")
	v.want(v.send("POST", "/wizard/int-1/psa", values.Encode()), 404)
	values.Set("action", "steal")
	v.want(v.send("POST", "/wizard/int-2/psa", values.Encode()), 404)
	v.want(v.send("POST", "/wizard/int-2/psa", "csrf=%zz"), 400, "This form could not be read")
	p.want(p.do("GET", "/sandbox/organizations/msp-0042/psa", ""), 409, "no PSA is connected")
}

func TestAuthenticatingAgainClearsTheMappingAndNotTheContracts(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	v := p.enters(token)
	ready := func() {
		t.Helper()
		p.post(map[string]string{"a": "Miller Ltd"}, map[string]string{"s": "Backup"})
		if _, _, err := p.AcceptSuggestions(bestName); err != nil {
			t.Fatal(err)
		}
		if err := p.Finish(bestName); err != nil {
			t.Fatal(err)
		}
		p.want(p.count("a", "s", "7"), 201)
	}
	if err := p.ConnectPSA("best-1", "kite"); err != nil {
		t.Fatal(err)
	}
	ready()
	if _, err := p.ApproveAll("best-1", "test"); err != nil {
		t.Fatal(err)
	}
	v.open("/wizard/int-2/connect", "This clears all accounts, services and mappings of acme.")
	v.press(`id="authenticate"`, do("authenticate"), "Tick the box that says you know what this does. Nothing was changed.")
	p.want(p.count("a", "s", "8"), 201)
	v.press(`id="authenticate"`, url.Values{"action": {"authenticate"}, "confirm": {"yes"}}, "Authenticated again.", "acme has not posted any accounts yet.")
	p.want(p.count("a", "s", "9"), 409, "not ready: inactive")
	if deltas, err := p.Deltas("best-1"); err != nil || len(deltas) != 0 {
		t.Errorf("got deltas %+v, error %v; want none without a mapping", deltas, err)
	}
	if got, err := p.ConnectedPSA("best-1"); err != nil || got.Companies[0].Lines[0].Units != "7" {
		t.Errorf("got %v, error %v; want the contract as it was approved", got.Companies, err)
	}
	ready()
}

func TestAnotherPSATakesTheMappingBack(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	p.post(map[string]string{"a": "Miller Ltd"}, map[string]string{"s": "Backup"})
	v := p.enters(token)
	v.open("/wizard/int-2/psa")
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"none"}}, `Unknown PSA &#34;none&#34;: want one of [&#34;kite&#34; &#34;other&#34;]. Nothing was changed.`)
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"kite"}}, "Kite is connected")
	v.want(v.submit(`data-test="accept"`, url.Values{"accept": {fieldOf("a")}}), 200, "1 account changed. All accounts are decided")
	v.open("/wizard/int-2/psa", "All your mappings lead into Kite")
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"other"}}, "Tick the box")
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"other"}, "confirm": {"yes"}}, "Other is connected", `<b id="undecided" class="wait">1</b>`)
	if err := p.Finish(bestName); err != nil {
		t.Fatal(err)
	}
	p.want(p.count("a", "s", "1"), 404, "No account map")
}

func TestTheVendorsStateIsSaidClearly(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	if err := p.ConnectPSA("best-1", "kite"); err != nil {
		t.Fatal(err)
	}
	v := p.enters(token)
	p.want(p.account("a"), 201)
	v.open("/wizard/int-2/accounts", "acme has posted 1 account and 0 services, but has not yet said that it is ready to be mapped.")
	v.open("/wizard/int-2/review", "It is inactive; the vendor has to PATCH /status/mapping first")
	p.want(p.askForMapping(), 200)
	v.open("/wizard/int-2/services", "acme has not posted any services yet.")
	v.open("/wizard/int-2/review", "No account is mapped to a company")
	v.open("/wizard/int-2/reconcile", "The mapping was not reviewed and accepted yet.")
	// Nothing can be sent that the page did not offer.
	_, own := v.form(`id="leave"`)
	post := func(step string, form url.Values) {
		t.Helper()
		form.Set("csrf", own.Get("csrf"))
		v.want(v.send("POST", "/wizard/int-2/"+step, form.Encode()), 200, `data-kind="refused"`, "Nothing was changed.")
	}
	post("review", do("accept"))
	post("reconcile", do("approve"))
	post("reconcile", url.Values{"action": {"approve"}, "delta": {"company=miller&service=bk&units=1"}})
	post("accounts", url.Values{"action": {"save"}, "row": {fieldOf("a")}, fieldOf("a"): {"to:nobody"}})
	post("accounts", url.Values{"action": {"save"}, "row": {fieldOf("a"), fieldOf("gone")}, fieldOf("a"): {"to:miller"}})
	post("services", url.Values{"action": {"save"}, "row": {fieldOf("gone")}})
	p.want(p.service("s"), 201)
	post("services", url.Values{"action": {"save"}, "row": {fieldOf("s")}, fieldOf("s"): {"to:bk", "exclude"}})
	if err := p.Reset(bestName); err != nil {
		t.Fatal(err)
	}
	p.want(p.account("a"), 201)
	post("accounts", url.Values{"action": {"save"}, "row": {fieldOf("a")}, fieldOf("a"): {"to:miller"}})
	if in, _ := p.ReportOf(bestName); in.Accounts[0].Mapped || in.Status != sandbox.Inactive {
		t.Errorf("got %+v; want nothing mapped by what was refused", in)
	}
}

func TestAnIntegrationOfCredentialsShowsItsLabelsAndNoValues(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	p.want(p.oemCall("POST", "/integration", fields{"organizationOemToken": token, "data": fields{
		"vendorId": "vendor-globex-backup", "integrationCredentials": fields{"Account number": "kept-secret", "Globex API key": "k"},
	}}), 201)
	v := p.enters(token)
	v.open("/wizard/int-3/connect", "The platform holds credentials for Globex Backup", "Globex API key: ", "This sandbox calls nobody")
	if strings.Contains(v.page, "kept-secret") {
		t.Errorf("got a page with a value of the credentials: %s", v.page)
	}
	v.open("/wizard/int-3/psa")
	v.press(`id="connect-psa"`, url.Values{"action": {"connect"}, "psa": {"kite"}}, "This sandbox calls nobody")
}

func TestALongListIsDecidedInParts(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	accounts := map[string]string{}
	for i := range 120 {
		accounts[fmt.Sprintf("a-%d", i)] = fmt.Sprintf("Account %d", i)
	}
	p.post(accounts, map[string]string{"s": "Backup"})
	if err := p.ConnectPSA("best-1", "kite"); err != nil {
		t.Fatal(err)
	}
	v := p.enters(token)
	v.open("/wizard/int-2/accounts", "1 to 50 of 120", `id="later" href="/wizard/int-2/accounts?page=1"`)
	v.open("/wizard/int-2/accounts?page=2", "101 to 120 of 120", `id="earlier" href="/wizard/int-2/accounts?page=1"`)
	_, values := v.form(`id="save"`)
	first := values["row"][0]
	v.press(`id="save"`, url.Values{first: {"to:miller"}}, "1 account changed. 119 left to decide.", "101 to 120 of 120")
	v.open("/wizard/int-2/accounts?show=undecided&page=99", "101 to 119 of 119")
	v.press(`id="save"`, nil, "0 accounts changed. 119 left to decide.", "101 to 119 of 119")
	v.press(`id="exclude-rest"`, do("exclude"), "119 accounts changed. All accounts are decided.", "Nothing is left to decide.")
	v.open("/wizard/int-2/accounts?page=x", "1 to 50 of 120")
	in, _ := p.ReportOf(bestName)
	mapped := 0
	for _, a := range in.Accounts {
		if a.Mapped {
			mapped++
		}
	}
	if mapped != 1 {
		t.Errorf("got %d accounts mapped; want 1", mapped)
	}
}

func TestPeopleAndVendorsWorkAtTheSameTime(t *testing.T) {
	p, token := onboarded(t, sandbox.Config{})
	p.post(map[string]string{"a": "Miller Ltd", "b": "B"}, map[string]string{"s": "Backup"})
	if err := errors.Join(p.ConnectPSA("best-1", "kite"), p.MapTo(bestName, sandbox.Targets{Accounts: map[string]string{"a": "miller"}, Services: map[string][]string{"s": {"bk"}}}), p.Finish(bestName)); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for worker := range 4 {
		v := p.enters(token)
		v.open("/wizard/int-2/accounts")
		_, mapping := v.form(`id="save"`)
		mapping[fieldOf("b")] = []string{[]string{"to:alder", "exclude"}[worker%2]}
		group.Go(func() {
			for i := range 10 {
				for _, step := range []string{"connect", "psa", "services", "review", "reconcile"} {
					if got := v.get("/wizard/int-2/" + step); got.status != 200 {
						t.Errorf("%s: got status %d, error %v; want 200", step, got.status, got.err)
					}
				}
				if got := v.send("POST", "/wizard/int-2/accounts", mapping.Encode()); got.status != 200 {
					t.Errorf("got status %d, error %v of a form; want 200", got.status, got.err)
				}
				if got := p.count("a", "s", fmt.Sprint(10*worker+i)); got.status != 201 {
					t.Errorf("got status %d, error %v of a count; want 201", got.status, got.err)
				}
				if _, err := p.ApproveAll("best-1", "test"); err != nil {
					t.Errorf("got error %v of an approval; want none", err)
				}
			}
		})
	}
	group.Wait()
	value, _ := p.Value(bestName, "a", "s")
	if _, err := p.ApproveAll("best-1", "test"); err != nil {
		t.Fatal(err)
	}
	if got, err := p.ConnectedPSA("best-1"); err != nil || got.Companies[0].Lines[0].Units.String() != value {
		t.Errorf("got contract %v, error %v; want the last accepted count, %s", got.Companies[0].Lines, err, value)
	}
}

func TestTheSandboxsPageLeadsIntoTheWizard(t *testing.T) {
	p, _ := onboarded(t, sandbox.Config{})
	v := p.visitor()
	v.open("/", "Best MSP", "Ann Best", "acme/best-1", "Globex Backup", `href="/wizard"`)
	v.press(`value="best-1"`, nil, "Welcome, Ann Best", `data-page="welcome"`)
	v.open("/")
	v.press(`value="msp-0042"`, nil, "Welcome, user-msp-0042", `data-integration="int-1"`)
	v.open("/", "user-msp-0042")
	v.want(v.submit(`value="best-1"`, url.Values{"user": {"gone"}}), 404, "There is no such user")
	v.open("/")
	action, values := v.form(`value="best-1"`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.server.URL+action, strings.NewReader(values.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if got := send(v.client, req); got.status != 403 {
		t.Errorf("got status %d from another site; want 403", got.status)
	}
}

func TestWherePeopleWereSentALinkTheAutomaticHumanStaysAway(t *testing.T) {
	var now clock
	p, token := onboarded(t, sandbox.Config{Human: sandbox.HumanAuto, HumanDelay: time.Minute, Now: now.Now})
	p.post(map[string]string{"a": "Miller Ltd"}, map[string]string{"s": "Backup"})
	p.session(token, "u-1")
	now.Advance(time.Hour)
	p.want(p.account("b"), 201)
	now.Advance(time.Hour)
	if in, _ := p.ReportOf(bestName); in.Status != sandbox.Mapping || in.Accounts[0].Mapped {
		t.Errorf("got %+v; want it left to the person", in)
	}
	made, err := p.AddIntegration(sandbox.Integration{Name: "zeta/best-1"})
	if err != nil {
		t.Fatal(err)
	}
	p.token = bearer(made.VendorToken, made.PartnerToken)
	p.post(map[string]string{"a": "Miller Ltd"}, nil)
	now.Advance(time.Hour)
	if in, _ := p.ReportOf("zeta/best-1"); in.Status != sandbox.Mapping {
		t.Errorf("got status %s of an integration that came later; want %s", in.Status, sandbox.Mapping)
	}
}
