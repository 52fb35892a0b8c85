package sandbox_test

import (
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestA401SaysWhatIsWrongWithTheToken(t *testing.T) {
	p := start(t, sandbox.Config{})
	for name, tt := range map[string]struct{ header, want string }{
		"a missing header":           {"", "header is missing"},
		"another scheme":             {"Basic dnQ6cHQ=", `does not begin with \"Bearer \"`},
		"the unencoded form":         {"Bearer vt:pt", "in plain text; send base64(vendorToken:partnerToken)"},
		"what is not base64":         {"Bearer !!!", "not base64"},
		"base64 without its padding": {"Bearer " + base64.RawStdEncoding.EncodeToString([]byte("vt:pt")), "with padding"},
		"base64 without a colon":     {"Bearer dnQ=", "colon is missing"},
		"an unknown vendor":          {bearer("zz", "pt"), "vendor token is unknown"},
		"an unknown partner":         {bearer("vt", "zz"), "partner token is not one of its integrations"},
	} {
		t.Run(name, func(t *testing.T) {
			p.token = tt.header
			p.want(p.askForMapping(), 401, `"statusCode":401`, tt.want)
		})
	}
	for _, r := range p.Tape() {
		if r.Integration != "" || r.Status != 401 || r.Accepted {
			t.Errorf("got record %+v; want a 401 of no integration", r)
		}
	}
}

func TestA400NamesTheField(t *testing.T) {
	p := start(t, sandbox.Config{BodyLimit: 200})
	p.ready("a", "s")
	const accounts, services, count = "/organization/accounts", "/organization/services", "/service/s/count"
	for name, tt := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"no JSON":                         {count, `{`, 400, "the body is not JSON"},
		"nothing":                         {count, ``, 400, "the body is not JSON"},
		"an array":                        {accounts, `[{"vendorAccountId":"b","name":"B"}]`, 400, "one JSON object"},
		"null":                            {accounts, `null`, 400, "one JSON object"},
		"not UTF-8":                       {accounts, "{\"vendorAccountId\":\"\xff\",\"name\":\"B\"}", 400, "not UTF-8"},
		"an account without id and name":  {accounts, `{}`, 400, "vendorAccountId must be a non-empty string; name must be"},
		"an account with another's field": {accounts, `{"id":"b","name":"B"}`, 400, "vendorAccountId must be"},
		"an externalId that is a number":  {accounts, `{"vendorAccountId":"b","name":"B","externalId":7}`, 400, "externalId must be a string"},
		"a service id that is a number":   {services, `{"id":7,"name":"S"}`, 400, "id must be a non-empty string"},
		"a description that is null":      {services, `{"id":"t","name":"S","description":null}`, 400, "description must be a string"},
		"a count in quotes":               {count, `{"unitCount":"42","accountId":"a"}`, 400, "unitCount must be a JSON number"},
		"a count of null":                 {count, `{"unitCount":null,"accountId":"a"}`, 400, "unitCount must be a JSON number"},
		"no count":                        {count, `{"accountId":"a"}`, 400, "unitCount must be a JSON number"},
		"a count with a wrong letter":     {count, `{"UnitCount":1,"accountId":"a"}`, 400, "unitCount must be a JSON number"},
		"a negative count":                {count, `{"unitCount":-0.01,"accountId":"a"}`, 400, "unitCount must not be negative"},
		"an account that is a number":     {count, `{"unitCount":1,"accountId":17}`, 400, "accountId must be a non-empty string"},
		"an empty service":                {"/service//count", `{"unitCount":1,"accountId":"a"}`, 400, "serviceId must be"},
		"a service that is not UTF-8":     {"/service/%FF/count", `{"unitCount":1,"accountId":"a"}`, 400, "serviceId must be"},
		"a body too large":                {count, `{"unitCount":1,"accountId":"` + strings.Repeat("a", 200) + `"}`, 413, "200 bytes"},
		"an unknown path":                 {"/organization", `{}`, 404, "Cannot POST"},
		"an unescaped slash in a service": {"/service/a/b/count", `{"unitCount":1,"accountId":"a"}`, 404, "Cannot POST"},
		"another method":                  {"/status/mapping", ``, 405, "want PATCH"},
	} {
		t.Run(name, func(t *testing.T) {
			p.want(p.call("POST", tt.path, tt.body), tt.status, `"statusCode":`, tt.want)
		})
	}
	if got := p.Report().Totals.AcceptedCounts; got != 0 {
		t.Errorf("got %d accepted counts; want 0", got)
	}
}

func TestIdsOfAllSortsSurviveThePath(t *testing.T) {
	for _, id := range []string{"a b", "a/b", "a//b", "/", "[x](y)", "a\u00a0b", "☁️ backup", "100%", "%2F", "a+b", "a?b#c", "..x", `"q"`} {
		t.Run(id, func(t *testing.T) {
			p := start(t, sandbox.Config{})
			p.ready(id, id)
			p.want(p.count(id, id, "7"), 201)
			p.wantValue(id, id, "7")
			if last := p.Tape()[3]; last.Account != id || last.Service != id {
				t.Errorf("got account %q and service %q on the tape; want %q", last.Account, last.Service, id)
			}
		})
	}
}

func TestNumbersAreKeptExactly(t *testing.T) {
	p := start(t, sandbox.Config{})
	p.ready("a", "s")
	for _, text := range []string{"0", "-0", "0.000001", "1e12", "1E+2", "42.50", "9007199254740993", "999999999999.999999", "0.1000000000000000055511151231257827"} {
		p.want(p.count("a", "s", text), 201)
		p.wantValue("a", "s", text)
		got := p.do("GET", "/sandbox/report?integration=acme%2Fmsp-0042", "")
		p.want(got, 200, `"counts":{"a":{"s":`+text+`}}`, `"billed":{"a":{"s":`+text+`}}`)
		var report sandbox.Report
		if err := json.Unmarshal([]byte(got.body), &report); err != nil {
			t.Fatal(err)
		}
		want, _ := new(big.Rat).SetString(text)
		if number, ok := new(big.Rat).SetString(report.Integrations[0].Counts["a"]["s"].String()); !ok || number.Cmp(want) != 0 {
			t.Errorf("got %v from the report; want %s", number, text)
		}
	}
}
