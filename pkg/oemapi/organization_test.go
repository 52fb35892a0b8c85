package oemapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const sender = `"clientId":"client-17","clientSecret":"cl/ient+s3c&ret","grantType":"client_credentials","scope":"vendor_manage"`

var ada = Person{Email: "ada@msp.test", FirstName: "Ada", LastName: "L", VendorUserID: "u-1"}

// operations are the calls that change something, each with a request that is whole.
var operations = []struct {
	name, request, body string // as it is to be sent
	answer              string // a good one
	call                func(context.Context, *Client) (any, Result, error)
	want                any
	secret              string // of the answer
}{
	{
		"create organization", "POST /api/oem-api/organization",
		`{` + sender + `,"data":{"name":"MSP One","email":"ada@msp.test","firstName":"Ada","lastName":"L","vendorUserId":"u-1","vendorOrganizationId":"msp-1"}}`,
		`{"status":201,"message":"made, with fresh-token","organizationOemToken":"fresh-token"}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			o, r, err := c.CreateOrganization(ctx, NewOrganization{Name: "MSP One", VendorOrganizationID: "msp-1", Owner: ada})
			return o.Token.Reveal(), r, err
		}, "fresh-token", "fresh-token",
	},
	{
		"add user", "POST /api/oem-api/user",
		`{` + sender + `,"data":{"email":"ada@msp.test","firstName":"Ada","lastName":"L","vendorUserId":"u-1"}}`,
		`{"status":"201","organizationOemToken":"fresh-token"}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			o, r, err := c.AddUser(ctx, ada, "")
			return o.Token.Reveal(), r, err
		}, "fresh-token", "fresh-token",
	},
	{
		"remove user", "DELETE /api/oem-api/user",
		`{` + sender + `,"organizationOemToken":"oem:t0ken==","data":{"vendorUserId":"u-1","email":"ada@msp.test"}}`,
		`{"status":201,"message":"gone"}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			r, err := c.RemoveUser(ctx, NewSecret(oemToken), "u-1", "ada@msp.test")
			return "", r, err
		}, "", "",
	},
	{
		"open session", "POST /api/oem-api/session",
		`{` + sender + `,"organizationOemToken":"oem:t0ken==","data":{"vendorUserId":"u-1"}}`,
		`{"status":201,"message":"go to https://platform.test/in?t=magic","sessionToken":"magic","url":"https://platform.test/in?t=magic"}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			s, r, err := c.OpenSession(ctx, NewSecret(oemToken), "u-1")
			return s.Link.Reveal(), r, err
		}, "https://platform.test/in?t=magic", "magic",
	},
	{
		"list vendors", "POST /api/oem-api/vendor", `{` + sender + `}`,
		`{"vendors":[{"id":7,"name":"Acme\n","integrationStatus":"active","integrationType":"external","integrationCredentialTemplate":{"Partner Key":"","API url":""}},` +
			`{"id":"v-8","integrationCredentialTemplate":[{"b":""},{"a":""}]},{"id":"v-9","integrationCredentialTemplate":"none"}],"status":200}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			v, r, err := c.Vendors(ctx)
			return v, r, err
		}, []Vendor{
			{ID: "7", Name: "Acme", Status: "active", Kind: "external", Labels: []string{"API url", "Partner Key"}},
			{ID: "v-8", Labels: []string{"a", "b"}}, {ID: "v-9"},
		}, "",
	},
	{
		"create integration", "POST /api/oem-api/integration",
		`{` + sender + `,"organizationOemToken":"oem:t0ken==","integrationType":"external","organizationId":"msp-1","vendorId":"v-1","data":{"integrationCredentials":{"API key":"k<1>"}}}`,
		`{"integration":{"id":"i-1","vendorId":"v-1","integrationKind":"external"},"partnerApiKey":"p-key","status":201,"message":"key p-key"}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			i, r, err := c.CreateIntegration(ctx, NewSecret(oemToken), NewIntegration{
				VendorID: "v-1", External: true, OrganizationID: "msp-1", Credentials: map[string]Secret{"API key": NewSecret("k<1>")},
			})
			return []any{i.ID, i.VendorID, i.PartnerKey.Reveal()}, r, err
		}, []any{"i-1", "v-1", "p-key"}, "p-key",
	},
	{
		"create integration", "POST /api/oem-api/integration",
		`{` + sender + `,"organizationOemToken":"oem:t0ken==","data":{"vendorId":"v-1","integrationCredentials":{"API key":"k-one","Secret of it":"s-one"}}}`,
		`{"integration":{"id":9007199254740993,"vendorId":"v-1"},"status":201,"message":"ok"}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			i, r, err := c.CreateIntegration(ctx, NewSecret(oemToken), NewIntegration{
				VendorID: "v-1", Credentials: map[string]Secret{"API key": NewSecret("k-one"), "Secret of it": NewSecret("s-one")},
			})
			return []any{i.ID, i.PartnerKey.Reveal()}, r, err
		}, []any{"9007199254740993", ""}, "",
	},
	{
		"update credentials", "PATCH /api/oem-api/integration/i%2F1",
		`{` + sender + `,"organizationOemToken":"oem:t0ken==","data":{"integrationCredentials":{"API key":"k-two"}}}`,
		`{"integration":{"id":"i/1","vendorId":"v-1"},"status":200}`,
		func(ctx context.Context, c *Client) (any, Result, error) {
			i, r, err := c.UpdateCredentials(ctx, NewSecret(oemToken), "i/1", map[string]Secret{"API key": NewSecret("k-two")})
			return i, r, err
		}, Integration{ID: "i/1", VendorID: "v-1"}, "",
	},
}

func TestEveryCallSaysWhatThePlatformWants(t *testing.T) {
	for _, o := range operations {
		t.Run(o.name, func(t *testing.T) {
			var request, body string
			client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				request, body = r.Method+" "+r.RequestURI, string(text)
				answer(201, o.answer)(w, r)
			})
			got, result, err := o.call(t.Context(), client)
			if err != nil || !reflect.DeepEqual(got, o.want) {
				t.Errorf("got %+v and error %v, want %+v", got, err, o.want)
			}
			if request != o.request || body != o.body {
				t.Errorf("got  %s %s\nwant %s %s", request, body, o.request, o.body)
			}
			if o.secret != "" && strings.Contains(fmt.Sprintf("%+v", result), o.secret) {
				t.Errorf("got %+v, want it without the secret of the answer", result)
			}
		})
	}
}

func TestAnAnswerWithoutWhatItMustHaveIsUnexpected(t *testing.T) {
	for _, o := range operations {
		if o.name == "remove user" { // has nothing to read
			continue
		}
		for _, body := range []string{"", "null", "[]", "{}", `{"status":201`, `{"integration":7,"vendors":7,"organizationOemToken":7,"url":7}`, emptied(t, o.answer)} {
			got, _, err := o.call(t.Context(), newClient(t, answer(201, body)))
			if e := failure(t, err); e.Class() != Unexpected || !e.Unknown() || e.StatusCode() != 201 {
				t.Errorf("%s answered %q: got %v and %v (class %s), want %s", o.name, body, got, e, e.Class(), Unexpected)
			}
		}
	}
}

// emptied is the answer with every text and number in it gone.
func emptied(t *testing.T, text string) string {
	t.Helper()
	var strip func(any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for key := range v {
				v[key] = strip(v[key])
			}
			return v
		case []any:
			for i := range v {
				v[i] = strip(v[i])
			}
			return v
		}
		return ""
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	empty, err := json.Marshal(strip(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(empty)
}

func TestEveryRefusalOfACallIsToldByItsName(t *testing.T) {
	for _, o := range operations {
		for status, want := range map[int]Class{400: Rejected, 401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Exists, 503: Unavailable} {
			_, _, err := o.call(t.Context(), newClient(t, answer(status, fmt.Sprintf(`{"status":%d,"message":"no: %s"}`, status, clientSecret))))
			e := failure(t, err)
			if e.Class() != want || !strings.HasPrefix(e.Error(), o.name+": platform answered ") || strings.Contains(e.Error(), clientSecret) {
				t.Errorf("got %v (class %s), want %s of %q without the secret", e, e.Class(), want, o.name)
			}
		}
	}
}

func TestWhatCannotBeMeantIsNotSent(t *testing.T) {
	client := newClient(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was called, want no call", r.URL) })
	token, ctx := NewSecret(oemToken), t.Context()
	for want, call := range map[string]func() error{
		"create organization: not sent: e-mail: empty; the platform wants one; first name: empty; the platform wants one; " +
			"last name: empty; the platform wants one; vendor user id: empty; the platform wants one; organization name: empty; the platform wants one": func() error {
			_, _, err := client.CreateOrganization(ctx, NewOrganization{Owner: Person{Email: " "}})
			return err
		},
		"add user: not sent: last name: empty; the platform wants one": func() error {
			_, _, err := client.AddUser(ctx, Person{Email: "a", FirstName: "b", VendorUserID: "c"}, "")
			return err
		},
		"remove user: not sent: organization OEM token: empty; copy it from the platform; e-mail: empty; the platform wants one": func() error {
			_, err := client.RemoveUser(ctx, Secret{}, "u", "")
			return err
		},
		"open session: not sent: vendor user id: empty; the platform wants one": func() error {
			_, _, err := client.OpenSession(ctx, token, "")
			return err
		},
		`create integration: not sent: credential "API key": begins or ends with a blank; want it alone; organization id: empty; the platform wants one`: func() error {
			_, _, err := client.CreateIntegration(ctx, token, NewIntegration{VendorID: "v", External: true, Credentials: map[string]Secret{"API key": NewSecret("s3cret ")}})
			return err
		},
		"create integration: not sent: vendor id: empty; the platform wants one; credentials: none; want one by each label of the vendor's template": func() error {
			_, _, err := client.CreateIntegration(ctx, token, NewIntegration{})
			return err
		},
		`update credentials: not sent: integration id "..": cannot stand in a path; credentials: none; want those that change, by their labels`: func() error {
			_, _, err := client.UpdateCredentials(ctx, token, "..", nil)
			return err
		},
	} {
		e := failure(t, call())
		if e.Error() != want || e.Class() != Rejected || e.StatusCode() != 0 {
			t.Errorf("got  %v (class %s)\nwant %s", e, e.Class(), want)
		}
	}
}

func TestALinkThatLeadsNowhereIsNoSession(t *testing.T) {
	for _, link := range []string{"", "/in?t=x", "javascript:alert(1)", "https://", "ftp://platform.test/x", "https://a b/"} {
		text, _ := json.Marshal(map[string]any{"sessionToken": "s3cret", "url": link})
		_, _, err := newClient(t, answer(201, string(text))).OpenSession(t.Context(), NewSecret(oemToken), "u")
		if e := failure(t, err); e.Class() != Unexpected || !strings.Contains(e.Error(), "no url to send the user to") {
			t.Errorf("%q: got %v (class %s), want %s", link, e, e.Class(), Unexpected)
		}
	}
}

func FuzzAnswersAreReadOrRefused(f *testing.F) {
	for _, o := range operations {
		f.Add(o.answer)
	}
	f.Fuzz(func(t *testing.T, body string) {
		hide := newRedactor(NewSecret(oemToken))
		if o, err := decodeOrganization([]byte(body), hide); (err == nil) == (o.Token.Reveal() == "") {
			t.Errorf("%q: got a token %t and error %v, want one of them", body, o.Token.Reveal() != "", err)
		}
		if s, err := decodeSession([]byte(body), hide); (err == nil) == (s.Link.Reveal() == "") {
			t.Errorf("%q: got a link %t and error %v, want one of them", body, s.Link.Reveal() != "", err)
		}
		if i, err := decodeCreated([]byte(body), hide, true); err == nil && (i.ID == "" || i.PartnerKey.Reveal() == "") {
			t.Errorf("%q: got %+v, want an id and a key", body, i)
		}
		vendors, err := decodeVendors([]byte(body), hide)
		if (err == nil) == (vendors == nil) || slices.ContainsFunc(vendors, func(v Vendor) bool { return v.ID == "" }) {
			t.Errorf("%q: got %+v and error %v, want vendors with ids, or an error", body, vendors, err)
		}
	})
}
