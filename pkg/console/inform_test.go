package console_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/console"
)

const informSecret = "kd83-secret-2719"

// informed is a Console with a webhook, and what came through it.
func informed(fail error) (*bench, *[]console.Hint) {
	var hints []console.Hint
	b := newBench(func(b *bench) {
		b.config.InformSecret = informSecret
		b.config.Inform = func(_ context.Context, h console.Hint) error {
			if fail == nil {
				hints = append(hints, h)
			}
			return fail
		}
	})
	return b, &hints
}

func postInform(b *bench, secret, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	b.console.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/inform/v1/acme/"+secret, strings.NewReader(body)))
	return w
}

func TestAnInformMessageBecomesAHint(t *testing.T) {
	tests := []struct{ name, active, want string }{
		{"a boolean", `true`, "true"},
		{"another boolean", `false`, "false"},
		{"a status", `"pending"`, "pending"},
		{"null", `null`, ""},
		{"something else", `{"a":1}`, ""},
	}
	for _, spelling := range []string{"config_update", "config_upate"} {
		for _, test := range tests {
			t.Run(spelling+" "+test.name, func(t *testing.T) {
				b, hints := informed(nil)
				w := postInform(b, informSecret, `{"module":"alerts","eventType":"`+spelling+`","future":[],"payload":{"isAlertsEnabled":true,`+
					`"isIntegrationActive":`+test.active+`,"productGroups":[],"accounts":["a-1","a 2"],"vendorOrganizationId":"msp 1","vendorUserId":"u","integrationId":"i-7"}}`)
				if w.Code != http.StatusAccepted || len(*hints) != 1 {
					t.Fatalf("got %d and %d hints, want 202 and 1: %s", w.Code, len(*hints), w.Body)
				}
				got := (*hints)[0]
				if got.Vendor != "acme" || got.Organization != "msp 1" || got.Integration != "i-7" || got.Active != test.want || !slices.Equal(got.Accounts, []string{"a-1", "a 2"}) {
					t.Errorf("hint: got %+v, want acme, msp 1, i-7, active %q and two accounts", got, test.want)
				}
			})
		}
	}
}

func TestAWrongSecretLooksLikeNothing(t *testing.T) {
	b, hints := informed(nil)
	body := `{"eventType":"config_update","payload":{"vendorOrganizationId":"m"}}`
	for _, secret := range []string{"wrong", informSecret + "x", strings.ToUpper(informSecret)} {
		if w := postInform(b, secret, body); w.Code != http.StatusNotFound {
			t.Errorf("secret %q: got %d, want 404", secret, w.Code)
		}
	}
	none := newBench()
	if w := postInform(none, informSecret, body); w.Code != http.StatusNotFound {
		t.Errorf("without a webhook: got %d, want 404", w.Code)
	}
	if len(*hints) != 0 {
		t.Errorf("hints: got %d, want none", len(*hints))
	}
}

func TestAnInformMessageThatIsNoneIsToldWhy(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"not JSON", `{`, "not the JSON"},
		{"another type", `{"eventType":"usage","payload":{}}`, "eventType"},
		{"no payload", `{"eventType":"config_update"}`, "payload is missing"},
		{"nobody named", `{"eventType":"config_update","payload":{}}`, "neither vendorOrganizationId nor integrationId"},
		{"accounts that are none", `{"eventType":"config_update","payload":{"vendorOrganizationId":"m","accounts":7}}`, "not the JSON"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b, _ := informed(nil)
			if w := postInform(b, informSecret, test.body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), test.want) {
				t.Errorf("got %d %s, want 400 with %q", w.Code, w.Body, test.want)
			}
		})
	}
	b, _ := informed(nil)
	if w := postInform(b, informSecret, strings.Repeat(" ", 1<<20+1)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("more than 1 MiB: got %d, want 413", w.Code)
	}
}

func TestAHintThatCannotBePassedOnIsAskedForAgain(t *testing.T) {
	b, _ := informed(errors.New("no connection"))
	w := postInform(b, informSecret, `{"eventType":"config_update","payload":{"vendorOrganizationId":"m"}}`)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d with Retry-After %q, want 503 with one", w.Code, w.Header().Get("Retry-After"))
	}
	if logged := b.logged.String(); strings.Contains(logged, informSecret) || !strings.Contains(logged, "no connection") {
		t.Errorf("log: got %q, want the cause and never the secret", logged)
	}
}
