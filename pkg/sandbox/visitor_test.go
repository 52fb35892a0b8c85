package sandbox_test

import (
	"encoding/base64"
	"html"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// visitor is a browser as far as the wizard needs one: it keeps cookies, follows redirects, and
// sends a form with what stands in it.
type visitor struct {
	t      *testing.T
	client *http.Client
	base   string
	last   string // path of the page it is on
	page   string
}

func (p *partner) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	client := &http.Client{Transport: p.server.Client().Transport, Jar: jar}
	return &visitor{t: p.t, client: client, base: p.server.URL}
}

func (v *visitor) send(method, address, body string) reply {
	v.t.Helper()
	to, err := url.Parse(v.base + "/")
	if err == nil {
		to, err = to.Parse(address)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, to.String(), strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	var at string
	client := *v.client
	client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		at = req.URL.Path
		return nil
	}
	at = req.URL.Path
	got := send(&client, req)
	v.last, v.page = at, got.body
	return got
}

func (v *visitor) get(address string) reply { v.t.Helper(); return v.send(http.MethodGet, address, "") }

// open goes to a page that must be there.
func (v *visitor) open(address string, texts ...string) {
	v.t.Helper()
	v.want(v.get(address), 200, texts...)
}

func (v *visitor) want(got reply, status int, texts ...string) {
	v.t.Helper()
	if got.err != nil || got.status != status {
		v.t.Fatalf("%s: got status %d, error %v, page:\n%s\nwant %d", v.last, got.status, got.err, mainOf(got.body), status)
	}
	v.sees(texts...)
	if got.header.Get("Cache-Control") != "no-store" || !strings.Contains(got.header.Get("Content-Security-Policy"), "default-src 'none'") {
		v.t.Errorf("%s: got headers %v; want a page that is not kept and loads nothing", v.last, got.header)
	}
}

// sees checks the page that the visitor is on, as it is written and as it is read.
func (v *visitor) sees(texts ...string) {
	v.t.Helper()
	for _, text := range texts {
		if !strings.Contains(v.page, text) && !strings.Contains(html.UnescapeString(v.page), text) {
			v.t.Errorf("%s: got a page without %q:\n%s", v.last, text, mainOf(v.page))
		}
	}
}

// mainOf is what of a page a failure shows.
func mainOf(page string) string { return page[max(0, strings.Index(page, "<main")):] }

var (
	formPattern   = regexp.MustCompile(`(?s)<form method="post" action="([^"]*)".*?</form>`)
	inputPattern  = regexp.MustCompile(`<input type="(\w+)" name="([^"]*)" value="([^"]*)"([^>]*)>`)
	selectPattern = regexp.MustCompile(`(?s)<select name="([^"]*)"[^>]*>(.*?)</select>`)
	optionPattern = regexp.MustCompile(`<option value="([^"]*)"( selected)?>`)
)

// form returns where the form that contains the text goes, and what stands in it.
func (v *visitor) form(containing string) (action string, values url.Values) {
	v.t.Helper()
	for _, form := range formPattern.FindAllStringSubmatch(v.page, -1) {
		if !strings.Contains(form[0], containing) {
			continue
		}
		values := url.Values{}
		for _, input := range inputPattern.FindAllStringSubmatch(form[0], -1) {
			if input[1] == "hidden" || strings.Contains(input[4], " checked") {
				values.Add(html.UnescapeString(input[2]), html.UnescapeString(input[3]))
			}
		}
		for _, choice := range selectPattern.FindAllStringSubmatch(form[0], -1) {
			options := optionPattern.FindAllStringSubmatch(choice[2], -1)
			chosen := options[0][1]
			for _, option := range options {
				if option[2] != "" {
					chosen = option[1]
				}
			}
			values.Set(html.UnescapeString(choice[1]), html.UnescapeString(chosen))
		}
		return html.UnescapeString(form[1]), values
	}
	v.t.Fatalf("%s: got a page without a form that contains %q:\n%s", v.last, containing, mainOf(v.page))
	return "", nil
}

// submit sends the form that contains the text, with some of it changed.
func (v *visitor) submit(containing string, changed url.Values) reply {
	v.t.Helper()
	action, values := v.form(containing)
	maps.Copy(values, changed)
	return v.send(http.MethodPost, action, values.Encode())
}

// press is submit where the next page must say the text.
func (v *visitor) press(containing string, changed url.Values, texts ...string) {
	v.t.Helper()
	v.want(v.submit(containing, changed), 200, texts...)
}

// fieldOf is the field of an account or service in a form.
func fieldOf(id string) string { return "to." + base64.RawURLEncoding.EncodeToString([]byte(id)) }

// do is the value of a button.
func do(action string) url.Values { return url.Values{"action": {action}} }
