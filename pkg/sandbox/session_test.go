package sandbox_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

type sessionAnswer struct {
	Token string `json:"sessionToken"`
	URL   string `json:"url"`
}

// session makes a link for the user.
func (p *partner) session(token, vendorUserID string) sessionAnswer {
	p.t.Helper()
	got := p.oemCall("POST", "/session", fields{"organizationOemToken": token, "data": fields{"vendorUserId": vendorUserID}})
	p.want(got, 201, `{"status":201,"message":"session of user`)
	var answer sessionAnswer
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.Token == "" || !strings.HasSuffix(answer.URL, answer.Token) {
		p.t.Fatalf("got %s, error %v; want a sessionToken, and a url that ends in it", got.body, err)
	}
	return answer
}

func TestASessionIsALinkToWhereTheClientReachesThePlatform(t *testing.T) {
	for configured, want := range map[string]string{"": "", "https://sandbox.example:9090/": "https://sandbox.example:9090"} {
		p := startOEM(t, sandbox.Config{PublicURL: configured})
		token := p.organization(best)
		if want == "" {
			want = p.server.URL
		}
		one, other := p.session(token, "u-1"), p.session(token, "u-1")
		if one.URL != want+sandbox.WizardPath+"/open/"+one.Token || one.Token == other.Token {
			t.Errorf("got link %s and token %s; want one below %s, and another token each time", one.URL, other.Token, want)
		}
		p.want(p.oemCall("POST", "/session", fields{"organizationOemToken": token, "data": fields{"vendorUserId": "u-9"}}), 404,
			`organization \"best-1\" has no user with data.vendorUserId \"u-9\"`)
	}
	for _, wrong := range []string{"sandbox:9090", "ftp://sandbox", "https://u@sandbox", "https://sandbox/api", "https://sandbox?x", "http://[::1"} {
		err := sandbox.Config{PublicURL: wrong, LinkLifetime: -1}.Validate()
		if err == nil || !strings.Contains(err.Error(), "public URL: want scheme and host alone") || !strings.Contains(err.Error(), "link lifetime -1ns") {
			t.Errorf("%s: got error %v; want the URL and the lifetime refused", wrong, err)
		}
	}
}
