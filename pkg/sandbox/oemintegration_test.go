package sandbox_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// external makes an integration of the external kind with acme and returns its partner key.
func (p *partner) external(token, organization string) string {
	p.t.Helper()
	got := p.oemCall("POST", "/integration", fields{
		"organizationOemToken": token, "integrationType": "external", "organizationId": organization, "vendorId": "vendor-acme",
	})
	p.want(got, 201, `"status":201`)
	var answer struct {
		Key string `json:"partnerApiKey"`
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.Key == "" {
		p.t.Fatalf("got %s, error %v; want a partnerApiKey", got.body, err)
	}
	return answer.Key
}

func TestAnExternalIntegrationIsOneOfTheVendorAPI(t *testing.T) {
	p := startOEM(t, sandbox.Config{Dialect: sandbox.Gradient})
	token := p.organization(best)
	key := p.external(token, "best-1")
	p.wantJSON(p.list(token), 200, `{"integrations":[{"id":"int-2","vendorId":"vendor-acme","integrationCredentialTemplate":[{"Vendor API key":""}],
		"integrationStatus":"inactive"}],"status":200,"message":"1 integrations"}`)
	p.header, p.token = "Authorization", bearer(p.Vendors()[0].Token, key)
	p.want(p.account("a"), 201)
	p.want(p.askForMapping(), 200, `"data":{"integrationId":"int-2","status":"mapping"}`)
	p.want(p.list(token), 200, `"integrationStatus":"mapping"`)
	if got, ok := p.ReportOf("acme/best-1"); !ok || got.ID != "int-2" || got.Dialect != sandbox.MSPCentric || len(got.Accounts) != 1 {
		t.Errorf("got report %+v, %v; want int-2 of the mspcentric dialect with one account", got, ok)
	}
	p.token = bearer(p.Vendors()[0].Token, "guessed")
	p.want(p.account("a"), 401, "the vendor token is known")
}

func TestAnIntegrationIsRefusedWithAReason(t *testing.T) {
	p := startOEM(t, sandbox.Config{Integrations: []sandbox.Integration{{Name: "acme/taken", VendorToken: "v", PartnerToken: "2", Dialect: sandbox.Gradient}}})
	token := p.organization(best)
	taken := p.organization(fields{"name": "T", "email": "t@t.example", "firstName": "T", "lastName": "T", "vendorUserId": "t", "vendorOrganizationId": "taken"})
	external := fields{"organizationOemToken": token, "integrationType": "external", "organizationId": "best-1", "vendorId": "vendor-acme"}
	values := fields{"Account number": "17", "Globex API key": "k"}
	credentials := func(vendor string, values fields) fields {
		return fields{"organizationOemToken": token, "data": fields{"vendorId": vendor, "integrationCredentials": values}}
	}
	for _, tt := range []struct {
		name   string
		body   fields
		status int
		want   string
	}{
		{"another organization's id", external.with(fields{"organizationId": "msp-0042"}), 404, `organizationId \"msp-0042\" is not that of the organization whose token`},
		{"an unknown vendor", external.with(fields{"vendorId": "v"}), 404, `vendorId \"v\" is that of no vendor`},
		{"an unknown vendor of the other kind", credentials("v", values), 404, `data.vendorId \"v\" is that of no vendor`},
		{"a vendor that is not external", external.with(fields{"vendorId": "vendor-globex-backup"}), 400, `integrationType must not be external: vendor \"vendor-globex-backup\" is of type credentials`},
		{"an external vendor as the other kind", credentials("vendor-acme", values), 400, "integrationType must be external"},
		{"credentials for an external vendor", external.with(fields{"data": fields{"integrationCredentials": values}}), 400, `label that vendor \"vendor-acme\" does not`},
		{"a missing label", credentials("vendor-globex-backup", values.with(fields{"Globex API key": nil})), 400, `data.integrationCredentials: \"Globex API key\" is missing`},
		{"an unknown label", credentials("vendor-globex-backup", values.with(fields{"Globex API Key": "k"})), 400, `want [\"Account number\" \"Globex API key\"]`},
		{"a name that the control API gave away", external.with(fields{"organizationOemToken": taken, "organizationId": "taken"}), 409, "the name is taken"},
		{"all is well, by the partner's id", external.with(fields{"organizationId": "org-2"}), 201, `{"integration":{"id":"int-3","vendorId":"vendor-acme","integrationKind":"external"},"partnerApiKey":"partner-`},
		{"the same vendor again", external, 409, `organization \"best-1\" has integration int-3 of vendor \"vendor-acme\"`},
		{"the other kind", credentials("vendor-globex-backup", values), 201, `{"integration":{"id":"int-4","vendorId":"vendor-globex-backup"},"status":201,"message":"integration int-4`},
		{"the other kind again", credentials("vendor-globex-backup", values), 409, "has integration int-4"},
		{"an integration that came otherwise", external.with(fields{"organizationOemToken": p.oemToken(org), "organizationId": "msp-0042"}), 409, "has integration int-2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.t = t
			p.want(p.oemCall("POST", "/integration", tt.body), tt.status, tt.want)
		})
	}
}

func TestCredentialsAreReplacedByTheirLabels(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.organization(best)
	p.want(p.oemCall("POST", "/integration", fields{"organizationOemToken": token, "integrationType": "credentials", "data": fields{
		"vendorId": "vendor-globex-backup", "integrationCredentials": fields{"Account number": "17", "Globex API key": "k"},
	}}), 201)
	p.external(token, "best-1")
	patch := func(id string, values fields) reply {
		return p.oemCall("PATCH", "/integration/"+id, fields{"organizationOemToken": token, "data": fields{"integrationCredentials": values}})
	}
	p.wantJSON(patch("int-2", fields{"Globex API key": "new"}), 200, `{"integration":{"id":"int-2","vendorId":"vendor-globex-backup"},"status":200,"message":"credentials of integration int-2 replaced"}`)
	p.want(patch("int-2", fields{"Key": "new"}), 400, "has a label that vendor")
	p.want(patch("int-3", fields{"Globex API key": "new"}), 400, "integration int-3 is external: it has no credentials")
	p.want(patch("int-1", fields{"Globex API key": "new"}), 404, `organization \"best-1\" has no integration with id: int-1`)
	p.want(patch("int-9", fields{"Globex API key": "new"}), 404)
	p.want(p.list(token), 200, `"integrationCredentialTemplate":[{"Account number":"","Globex API key":""}]`)
	in, _ := p.ReportOf("Globex Backup/best-1")
	if in.Revoked || in.Status != sandbox.Inactive {
		t.Errorf("got report %+v; want an inactive integration that nobody revoked", in)
	}
	if _, err := p.IssueTokens("Globex Backup/best-1"); err == nil || !strings.Contains(err.Error(), "credentials kind") {
		t.Errorf("got error %v; want tokens refused to an integration that has none", err)
	}
}
