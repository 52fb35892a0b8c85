package console_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/console"
)

const apiToken = "api-t0ken-4711"

var bearer = http.Header{"Authorization": {"Bearer " + apiToken}}

const onboardingBody = `{"vendorId":"acme","organizationId":"msp/1","organizationName":"Contoso","email":"ann@contoso.example","firstName":"Ann","lastName":"Ott",` +
	`"vendorUserId":"u-1","vendorToken":"v-s3cret","credentials":{"API key":"k-s3cret"},"kind":"credentials","adopt":true}`

// onboarding is a Console with the API, and what was asked of it.
func onboarding(done console.Onboarding, fail error) (*bench, *[]console.OnboardingRequest) {
	var asked []console.OnboardingRequest
	b := newBench(func(b *bench) {
		b.config.APIToken = apiToken
		b.config.Onboard = func(_ context.Context, q console.OnboardingRequest) (console.Onboarding, error) {
			asked = append(asked, q)
			return done, fail
		}
		b.config.Onboardings = func(_ context.Context, vendor, organization string) ([]console.Onboarding, error) {
			if vendor == "" || vendor == done.Vendor && organization == done.Organization {
				return []console.Onboarding{done}, fail
			}
			return nil, fail
		}
	})
	return b, &asked
}

func TestAnOnboardingIsTakenAndAnsweredWithItsLinkOnce(t *testing.T) {
	b, asked := onboarding(console.Onboarding{Vendor: "acme", Organization: "msp/1", State: "done", MagicLink: "https://p.example/magic/<1>&"}, nil)
	w := b.do(t, http.MethodPost, "/api/v1/onboardings", bearer, onboardingBody)
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/api/v1/onboardings/acme/msp%2F1" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %d to %q, want 201 with the address of the onboarding, not to be kept by anybody", w.Code, w.Header().Get("Location"))
	}
	if !strings.Contains(w.Body.String(), `"magicLink":"https://p.example/magic/<1>&"`) {
		t.Errorf("got %s, want the link as it is", w.Body)
	}
	q := (*asked)[0]
	if q.OrganizationID != "msp/1" || q.VendorToken != "v-s3cret" || q.Credentials["API key"] != "k-s3cret" || !q.Adopt || q.Kind != "credentials" {
		t.Errorf("got %+v, want what the body has", q)
	}
	waiting, _ := onboarding(console.Onboarding{Vendor: "acme", Organization: "m", State: "open"}, nil)
	if w := waiting.do(t, http.MethodPost, "/api/v1/onboardings", bearer, onboardingBody); w.Code != http.StatusAccepted || strings.Contains(w.Body.String(), "magicLink") {
		t.Errorf("one that has to wait: got %d %s, want 202 and no link", w.Code, w.Body)
	}
}

func TestOnboardingsAreToldToWhoHasTheToken(t *testing.T) {
	b, asked := onboarding(console.Onboarding{Vendor: "acme", Organization: "msp/1", State: "open"}, nil)
	for path, want := range map[string]string{
		"/api/v1/onboardings": `{"onboardings":[{"vendor":"acme","organization":"msp/1","state":"open"`, "/api/v1/onboardings/acme/msp%2F1": `{"vendor":"acme","organization":"msp/1"`,
	} {
		if w := b.do(t, http.MethodGet, path, bearer, ""); w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("%s: got %d %s, want %s", path, w.Code, w.Body, want)
		}
		for name, header := range map[string]http.Header{
			"no token": nil, "another": {"Authorization": {"Bearer x"}}, "no scheme": {"Authorization": {apiToken}}, "another scheme": {"Authorization": {"Basic " + apiToken}}, "longer": {"Authorization": {"Bearer " + apiToken + "x"}},
		} {
			w := b.do(t, http.MethodGet, path, header, "")
			if read(t, w, http.StatusUnauthorized); w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: got no WWW-Authenticate, want one", name)
			}
		}
		read(t, newBench().do(t, http.MethodGet, path, bearer, ""), http.StatusNotFound)
	}
	read(t, b.do(t, http.MethodPost, "/api/v1/onboardings", nil, onboardingBody), http.StatusUnauthorized)
	read(t, b.do(t, http.MethodGet, "/api/v1/onboardings/acme/another", bearer, ""), http.StatusNotFound)
	w := b.do(t, http.MethodDelete, "/api/v1/onboardings", bearer, "")
	if read(t, w, http.StatusMethodNotAllowed); w.Header().Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("Allow: got %q, want GET, HEAD, POST", w.Header().Get("Allow"))
	}
	if len(*asked) != 0 {
		t.Errorf("got %d requests through, want none", len(*asked))
	}
}

func TestEverythingWrongWithAnOnboardingIsSaidAtOnceAndNoValueRepeated(t *testing.T) {
	b, asked := onboarding(console.Onboarding{}, nil)
	for _, test := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"nothing", ``, http.StatusBadRequest, ""},
		{"no object", `["v-s3cret"]`, http.StatusBadRequest, ""},
		{"null", `null`, http.StatusBadRequest, ""},
		{"all missing", `{}`, http.StatusUnprocessableEntity, "/email invalid, /firstName invalid, /lastName invalid, /organizationId invalid, /organizationName invalid, /vendorId invalid, /vendorToken invalid, /vendorUserId invalid"},
		{"other types", strings.NewReplacer(`"Ann"`, `7`, `true`, `"v-s3cret"`, `{"API key":"k-s3cret"}`, `["k-s3cret"]`, `"Ott"`, `""`).Replace(onboardingBody), http.StatusUnprocessableEntity,
			"/adopt invalid, /credentials invalid, /firstName invalid, /lastName invalid"},
		{"another kind", strings.Replace(onboardingBody, `"kind":"credentials"`, `"kind":"v-s3cret"`, 1), http.StatusUnprocessableEntity, "/kind invalid"},
		{"an unknown member", strings.Replace(onboardingBody, `"adopt"`, `"apiUrl":"https://evil.example/v-s3cret","adopt"`, 1), http.StatusUnprocessableEntity, "/apiUrl invalid"},
		{"too long", strings.Repeat(" ", 64<<10) + onboardingBody, http.StatusRequestEntityTooLarge, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := b.do(t, http.MethodPost, "/api/v1/onboardings", bearer, test.body)
			a := read(t, w, test.status)
			if got := a.places(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if strings.Contains(w.Body.String(), "s3cret") {
				t.Errorf("got %s, which repeats a value", w.Body)
			}
		})
	}
	if len(*asked) != 0 {
		t.Errorf("got %d requests through, want none", len(*asked))
	}
}

func TestWhatStandsInTheWayOfAnOnboardingIsShownOrLogged(t *testing.T) {
	b, _ := onboarding(console.Onboarding{}, &console.RefusedError{Status: http.StatusConflict, Detail: "it is there", Members: []console.RefusedMember{{Name: "email", Problem: "differs"}, {Problem: "whole"}}})
	a := read(t, b.do(t, http.MethodPost, "/api/v1/onboardings", bearer, onboardingBody), http.StatusConflict)
	if a.Detail != "it is there" || a.places() != "/email invalid,  invalid" {
		t.Errorf("got %q at %q, want the refusal as it is", a.Detail, a.places())
	}
	b, _ = onboarding(console.Onboarding{}, errors.New("no connection"))
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		w := b.do(t, method, "/api/v1/onboardings", bearer, onboardingBody)
		if read(t, w, http.StatusServiceUnavailable); w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "connection") {
			t.Errorf("got %s, want to be asked again, and the cause in the log alone", w.Body)
		}
	}
	if logged := b.logged.String(); !strings.Contains(logged, "no connection") || strings.Contains(logged, "s3cret") || strings.Contains(logged, apiToken) {
		t.Errorf("log: got %q, want the cause and no secret", logged)
	}
}
