package sandbox_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestTheVendorsThatThePlatformKnowsAreListed(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	const globex = `{"id":"vendor-globex-backup","name":"Globex Backup","integrationStatus":"active","integrationType":"credentials","integrationCredentialTemplate":{"Account number":"","Globex API key":""}}`
	p.wantJSON(p.oemCall("POST", "/vendor", nil), 200, `{"vendors":[
		{"id":"vendor-acme","name":"acme","integrationStatus":"active","integrationType":"external","integrationCredentialTemplate":{}},
		`+globex+`],"status":200,"message":"2 vendors"}`)
	p.want(p.do("PUT", "/sandbox/oem", `{"statuses":"none"}`), 204)
	if got := p.oemCall("POST", "/vendor", nil); strings.Contains(got.body, "integrationStatus") {
		t.Errorf("got %s; want no status", got.body)
	}
	none := startOEM(t, sandbox.Config{Vendors: []sandbox.Vendor{}})
	none.wantJSON(none.oemCall("POST", "/vendor", nil), 200, `{"vendors":[],"status":200,"message":"0 vendors"}`)
}

func TestAVendorsTokenIsGivenTakenFromAnIntegrationOrMadeUp(t *testing.T) {
	p := startOEM(t, sandbox.Config{Vendors: []sandbox.Vendor{
		{Name: "Big Corp", Type: sandbox.ExternalVendor, Token: "given"}, {Name: "acme", Type: sandbox.ExternalVendor},
		{Name: "zeta", Type: sandbox.ExternalVendor}, {Name: "old", Type: sandbox.CredentialsVendor, CredentialLabels: []string{"API key"}},
	}})
	got := p.Vendors()
	if got[0].Token != "given" || got[0].ID != "vendor-big-corp" || got[1].Token != "vt" || !strings.HasPrefix(got[2].Token, "vendor-") || got[3].Token != "" {
		t.Errorf("got vendors %+v with tokens of %d, %d, %d and %d bytes; want the one given, that of the integration, one made up, none",
			got, len(got[0].Token), len(got[1].Token), len(got[2].Token), len(got[3].Token))
	}
	var told []sandbox.Vendor
	if err := json.Unmarshal([]byte(p.do("GET", "/sandbox/vendors", "").body), &told); err != nil || fmt.Sprint(told) != fmt.Sprint(got) || told[2].Token != got[2].Token {
		t.Errorf("got vendors %v, error %v over the control API; want %v with their tokens", told, err, got)
	}
	if text := fmt.Sprintf("%v %+v %#v", got[0], got[0], got[0]); strings.Contains(text, "given") {
		t.Errorf("got %s; want the token left out", text)
	}
}

func TestVendorsThatContradictThemselvesAreRefused(t *testing.T) {
	for want, vendors := range map[string][]sandbox.Vendor{
		"name: want a text without a slash":           {{Name: "a/b", Type: sandbox.ExternalVendor}},
		"vendor 1 \"\": name":                         {{Type: sandbox.ExternalVendor}},
		`type "oauth": want "external" or`:            {{Name: "a", Type: "oauth"}},
		`2 "a b": an earlier one has that name or`:    {{Name: "A b", Type: sandbox.ExternalVendor}, {Name: "a b", Type: sandbox.ExternalVendor}},
		"credentialLabels: an external vendor has":    {{Name: "a", Type: sandbox.ExternalVendor, CredentialLabels: []string{"k"}}},
		"token: it contains a colon":                  {{Name: "a", Type: sandbox.ExternalVendor, Token: "a:b"}},
		"credentialLabels: want at least one":         {{Name: "a", Type: sandbox.CredentialsVendor}},
		"credentialLabels: one is named twice":        {{Name: "a", Type: sandbox.CredentialsVendor, CredentialLabels: []string{"k", "k"}}},
		"token: a credentials vendor has none":        {{Name: "a", Type: sandbox.CredentialsVendor, CredentialLabels: []string{"k"}, Token: "t"}},
		"credentialLabels: want at least one, and no": {{Name: "a", Type: sandbox.CredentialsVendor, CredentialLabels: []string{""}}},
	} {
		if err := (sandbox.Config{Vendors: vendors}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got error %v; want it to contain %s", vendors, err, want)
		}
	}
}
