package oemapi

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestTheListIsAskedForWithCredentialsInTheBodyAlone(t *testing.T) {
	var method, path, body string
	var header http.Header
	client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		method, path, body, header = r.Method, r.RequestURI, string(text), r.Header
		answer(200, `{"integrations":[]}`)(w, r)
	})
	if _, _, err := list(t, client); err != nil {
		t.Fatal(err)
	}
	if method != http.MethodPost || path != "/api/oem-api/integration/list" {
		t.Errorf("got %s %s, want POST /api/oem-api/integration/list", method, path)
	}
	want := `{"clientId":"client-17","clientSecret":"cl/ient+s3c&ret","grantType":"client_credentials","scope":"vendor_manage","organizationOemToken":"oem:t0ken=="}`
	if body != want {
		t.Errorf("got body %s\nwant %s", body, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "usagebridge", "Authorization": "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
}

func TestListsAreReadAsTheyCome(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []Integration
	}{
		"the documentation's sample": {
			`{"integrations":[{"id":"i-1","vendorId":"v-1","integrationCredentialTemplate":[{"API key":""}]}],"status":200,"message":"ok"}`,
			[]Integration{{ID: "i-1", VendorID: "v-1"}},
		},
		"with statuses": {
			`{"status":200,"integrations":[{"id":"b","vendorId":"v","integrationStatus":"connected"},{"id":"a","vendorId":"v","integrationStatus":"pending"}]}`,
			[]Integration{{"b", "v", "connected"}, {"a", "v", "pending"}},
		},
		"ids that are numbers keep every digit": {
			`{"integrations":[{"id":9007199254740993,"vendorId":-7,"integrationStatus":"Mapping"}]}`,
			[]Integration{{"9007199254740993", "-7", "Mapping"}},
		},
		"a word that nobody told us of":   {`{"integrations":[{"id":"a","integrationStatus":"paused\n"}]}`, []Integration{{ID: "a", Status: "paused"}}},
		"a status that is no word":        {`{"integrations":[{"id":"a","vendorId":{},"integrationStatus":["connected"]}]}`, []Integration{{ID: "a"}}},
		"a status of null":                {`{"integrations":[{"id":"a","vendorId":null,"integrationStatus":null}]}`, []Integration{{ID: "a"}}},
		"a status without its full name":  {`{"integrations":[{"id":"a","status":"connected"}]}`, []Integration{{ID: "a"}}},
		"the answer's status as a text":   {`{"integrations":[{"id":"a"}],"status":"200"}`, []Integration{{ID: "a"}}},
		"the answer's status as a word":   {`{"integrations":[{"id":"a"}],"status":"success"}`, []Integration{{ID: "a"}}},
		"the answer's status another 2xx": {`{"integrations":[{"id":"a"}],"status":201}`, []Integration{{ID: "a"}}},
		"unknown fields":                  {`{"page":{"next":null},"integrations":[{"id":"a","x":[[]],"integrationKind":"external"}],"y":1}`, []Integration{{ID: "a"}}},
		"none":                            {` {"integrations":[]} `, []Integration{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, result, err := list(t, newClient(t, answer(200, c.body)))
			if err != nil || !slices.Equal(got, c.want) || got == nil {
				t.Errorf("got %+v and error %v, want %+v", got, err, c.want)
			}
			if result.StatusCode != http.StatusOK || result.Duration <= 0 {
				t.Errorf("got %+v, want status 200 and the time of the call", result)
			}
		})
	}
}

func TestWhatIsNoListIsUnexpected(t *testing.T) {
	long := `{"integrations":[{"id":"a","x":"` + strings.Repeat("x", maxAnswerBytes) + `"}]}`
	for body, want := range map[string]string{
		"":                               "empty or not JSON",
		"<html>sign in</html>":           "empty or not JSON",
		`{"integrations":[{"id":"a"}`:    "empty or not JSON",
		`{"integrations":[{"id":"a"}]}{`: "empty or not JSON",
		"null":                           "has no list",
		`[{"id":"a"}]`:                   "has no list",
		`{"message":"come back later"}`:  "has no list; want an array \"integrations\": come back later",
		`{"integrations":null}`:          "has no list",
		`{"integrations":{"id":"a"}}`:    "has no list",
		`{"integrations":[{"id":"a"},{"vendorId":"v"}]}`:                 "integration 2 of the list has no id",
		`{"integrations":[{"id":""}]}`:                                   "integration 1 of the list has no id",
		`{"integrations":[{"id":" "}]}`:                                  "integration 1 of the list has no id",
		`{"integrations":[{"id":["a"]}]}`:                                "integration 1 of the list has no id",
		`{"integrations":["a"]}`:                                         "integration 1 of the list has no id",
		`{"integrations":[null]}`:                                        "integration 1 of the list has no id",
		`{"integrations":[],"status":403,"message":"token was revoked"}`: "the body says status 403: token was revoked",
		`{"integrations":[],"status":"500"}`:                             "the body says status 500: no reason given",
		long:                                                             "longer than 1 MiB",
	} {
		_, result, err := list(t, newClient(t, answer(200, body)))
		e := failure(t, err)
		if e.Class() != Unexpected || !e.Permanent() || e.StatusCode() != 200 || result.StatusCode != http.StatusOK {
			t.Errorf("%.80s: got %v (class %s, status %d), want %s with status 200", body, e, e.Class(), e.StatusCode(), Unexpected)
		}
		if !strings.Contains(e.Message(), want) || result.Message != e.Message() {
			t.Errorf("%.80s: got message %q and %q, want both to contain %q", body, e.Message(), result.Message, want)
		}
	}
}

func TestAnAnswerJustWithinTheLimitIsRead(t *testing.T) {
	body := `{"integrations":[{"id":"a"}],"x":"`
	body += strings.Repeat("x", maxAnswerBytes-len(body)-2) + `"}`
	got, _, err := list(t, newClient(t, answer(200, body)))
	if err != nil || len(got) != 1 {
		t.Errorf("got %+v and error %v, want one integration of %d bytes", got, err, len(body))
	}
}

func TestATokenThatCannotBeMeantIsNotSent(t *testing.T) {
	client := newClient(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was called, want no call", r.URL) })
	for _, token := range []Secret{{}, NewSecret(""), NewSecret("s3cret\n"), NewSecret(" s3cret"), NewSecret("s3cret\xff")} {
		got, result, err := client.Integrations(t.Context(), token)
		e := failure(t, err)
		if got != nil || e.Class() != Rejected || !e.Permanent() || e.StatusCode() != 0 || result.Message != e.Message() {
			t.Errorf("got %+v, %+v and %v (class %s), want rejected and not sent", got, result, e, e.Class())
		}
		if text := e.Error(); !strings.HasPrefix(text, "list integrations: not sent: organization OEM token: ") || strings.Contains(text, "s3cret") {
			t.Errorf("got %q, want it to name the token and not repeat it", text)
		}
	}
}

func FuzzAListIsReadOrRefused(f *testing.F) {
	f.Add(`{"integrations":[{"id":"a","vendorId":7,"integrationStatus":"pending"}],"status":200}`)
	f.Add(`{"integrations":[{"id":"\u0000"}]}`)
	f.Add(`{"integrations":[[]]}`)
	f.Add("null")
	f.Fuzz(func(t *testing.T, body string) {
		got, err := decodeIntegrations([]byte(body), newRedactor(NewSecret(oemToken)))
		if (err == nil) == (got == nil) {
			t.Errorf("%q: got %+v and error %v, want one of them", body, got, err)
		}
		for _, in := range got {
			for _, text := range []string{in.ID, in.VendorID, in.Status} {
				if in.ID == "" || len(text) > maxMessageBytes || strings.ContainsAny(text, "\x00\n\x1b") || strings.Contains(text, oemToken) {
					t.Errorf("%q: got %+q, want an id and nothing unfit", body, in)
				}
			}
		}
	})
}
