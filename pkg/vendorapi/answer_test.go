package vendorapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestAccountsAreListedHoweverTheyAreSpelt(t *testing.T) {
	mapped := ListedAccount{ID: "a", Name: "Acme", Description: "d", Mapped: true, MappingID: "m-1"}
	cases := []struct {
		name, body string
		want       []ListedAccount
	}{
		{"none", `[]`, []ListedAccount{}},
		{"none, wrapped", `{"status":200,"message":"ok","data":[]}`, []ListedAccount{}},
		{"one", `[{"id":"a","name":"Acme","description":"d","isMapped":true,"mappingId":"m-1"}]`, []ListedAccount{mapped}},
		{"one, wrapped", ` {"data":[{"id":"a","name":"Acme","description":"d","isMapped":true,"mappingId":"m-1"}]}` + "\n", []ListedAccount{mapped}},
		{"unknown fields", `[{"id":"a","isActive":{"x":[1]},"tags":null}]`, []ListedAccount{{ID: "a"}}},
		{"the old name of the id", `[{"_id":"a"},{"_id":"old","id":"b"},{"_id":"c","id":null},{"_id":"d","id":""}]`,
			[]ListedAccount{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}}},
		{"numbers as ids, digit by digit", `[{"id":9007199254740993,"mappingId":1.50},{"id":-1}]`,
			[]ListedAccount{{ID: "9007199254740993", MappingID: "1.50", Mapped: true}, {ID: "-1"}}},
		{"nulls", `[{"id":"a","name":null,"description":null,"isMapped":null,"mappingId":null}]`, []ListedAccount{{ID: "a"}}},
		{"mapped by the id alone", `[{"id":"a","mappingId":"m"},{"id":"b","isMapped":false,"mappingId":"m"}]`,
			[]ListedAccount{{ID: "a", Mapped: true, MappingID: "m"}, {ID: "b", MappingID: "m"}}},
		{"texts as they are", `[{"id":"a\u0000/\ud83d\ude80","name":"` + strings.Repeat("n", 600) + `"}]`,
			[]ListedAccount{{ID: "a\x00/🚀", Name: strings.Repeat("n", 600)}}},
		{"an object as a name", `[{"id":"a","name":{"de":"A"}}]`, []ListedAccount{{ID: "a"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, result, err := newGradient(t, answer(200, c.body)).ListAccounts(t.Context(), true)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v and error %v\nwant %+v", got, err, c.want)
			}
			if strings.Contains(result.Message, "Acme") {
				t.Errorf("got message %q, want no data in it", result.Message)
			}
		})
	}
}

func TestTheOrganizationIsReadWrappedOrNot(t *testing.T) {
	const body = `{"organizationId":"o-1","name":"MSP\u001b[31m","vendorId":7,"vendorName":"V","integrationId":9007199254740993,` +
		`"status":"active","lastSyncedAt":"2026-11-20T12:00:00.5Z"}`
	want := Organization{
		OrganizationID: "o-1", Name: "MSP [31m", IntegrationID: "9007199254740993", Status: "connected", RawStatus: "active",
		LastSyncedAt: time.Date(2026, 11, 20, 12, 0, 0, 5e8, time.UTC),
	}
	for _, b := range []string{body, `{"status":200,"message":"ok","data":` + body + `}`} {
		got, _, err := newGradient(t, answer(200, b)).Organization(t.Context())
		if err != nil || got != want {
			t.Errorf("%s: got  %+v and error %v\nwant %+v", b, got, err, want)
		}
	}
	for _, synced := range []string{"null", `""`, `"yesterday"`, "1732104000", "{}"} {
		got, _, err := newGradient(t, answer(200, `{"organizationId":"o","lastSyncedAt":`+synced+`}`)).Organization(t.Context())
		if err != nil || !got.LastSyncedAt.IsZero() {
			t.Errorf("synced %s: got %s and error %v, want the zero time", synced, got.LastSyncedAt, err)
		}
	}
}

func TestTheCatalogIsReadWrappedOrNot(t *testing.T) {
	const body = `{"_id":"old","id":"v-1","name":"Vendor","skus":[{"_id":"k-0","id":"k-1","name":"Backup","category":"x"},{"_id":2,"name":"Mail"}]}`
	want := Vendor{ID: "v-1", Name: "Vendor", SKUs: []SKU{{"k-1", "Backup"}, {"2", "Mail"}}}
	for _, b := range []string{body, `{"status":200,"message":"ok","data":` + body + `}`} {
		got, _, err := newGradient(t, answer(200, b)).Catalog(t.Context())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v and error %v\nwant %+v", b, got, err, want)
		}
	}
	got, _, err := newGradient(t, answer(200, `{"data":{"skus":[]}}`)).Catalog(t.Context())
	if err != nil || got.SKUs == nil || len(got.SKUs) != 0 {
		t.Errorf("got %+v and error %v, want an empty catalog", got, err)
	}
}

func TestAReadThatCannotBeUnderstoodIsUnexpected(t *testing.T) {
	everywhere := map[string]string{
		"":                              "the answer is empty",
		" \n":                           "the answer is empty",
		"<html>log in</html>":           "the answer is not JSON",
		`[{"id":"a"}`:                   "the answer is not JSON",
		"null":                          "JSON of another kind",
		`"ok"`:                          "JSON of another kind",
		strings.Repeat("[", 20_000):     "the answer is not JSON", // deeper than the decoder goes
		`{"message":` + `"` + wireToken: "the answer is not JSON",
	}
	cases := map[string]map[string]string{
		"accounts": {
			`{}`:                  "want an array, alone or as data",
			`{"data":null}`:       "want an array",
			`{"data":{"id":"a"}}`: "want an array",
			`{"statusCode":401,"message":"bad token ` + wireToken + `"}`: "want an array, alone or as data: bad token ***",
			`[{"id":"a"},{}]`:    "account 1: has no id",
			`[{"id":{}}]`:        "account 0: has no id",
			`[{"id":true}]`:      "account 0: has no id",
			`[{"id":"a"},null]`:  "account 1: is no object",
			`[{"id":"a"},["b"]]`: "account 1: is no object",
			`{"data":["a"]}`:     "account 0: is no object",
		},
		"organization": {
			`[]`:                             "want one object",
			`{"data":[]}`:                    "want one object",
			`{}`:                             "names neither an organization nor an integration",
			`{"name":"x","status":"active"}`: "names neither",
			`{"statusCode":401,"message":"Unauthorized"}`: "names neither an organization nor an integration: Unauthorized",
		},
		"catalog": {
			`[]`:                      "want one object",
			`{"data":{"id":"v"}}`:     "the answer has no skus",
			`{"skus":null}`:           "skus: ",
			`{"skus":[{"name":"x"}]}`: "skus: sku 0: has no id",
		},
	}
	for name, bodies := range cases {
		maps.Copy(bodies, everywhere)
		for body, want := range bodies {
			result, err := reads[name](t.Context(), newGradient(t, answer(200, body, "X-Request-Id", "r-1")))
			e := failure(t, err)
			if e.Class() != Unexpected || e.StatusCode() != 200 || !e.Sent() || e.Unknown() || !e.Permanent() || result.StatusCode != http.StatusOK || result.RequestID != "r-1" {
				t.Errorf("%s %.40q: got %v (class %s, status %d), want %s with 200", name, body, e, e.Class(), e.StatusCode(), Unexpected)
			}
			if !strings.Contains(e.Message(), want) || result.Message != e.Message() || strings.Contains(e.Error(), wireToken) {
				t.Errorf("%s %.40q: got message %q, want %q in it and no secret", name, body, e.Message(), want)
			}
		}
	}
}

func TestAReadThatBreaksOffIsTemporary(t *testing.T) {
	const cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{\"id\":\"a\"}]"
	const badChunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n[{\"id\":\"a\"}]\r\nzz\r\n"
	for _, c := range []struct {
		name, address, message string
		timeout                bool
	}{
		{"cut", newRawPartner(t, true, saysAndCloses(cut)), "the answer broke off: unexpected EOF", false},
		{"a bad chunk", newRawPartner(t, true, saysAndCloses(badChunk)), "the answer broke off: invalid byte in chunk length", false},
		{"stalled", newRawPartner(t, true, says(cut)), "the answer broke off: timed out after 500ms", true},
	} {
		client := newClientOf(t, c.address, func(config *Config) { config.Dialect, config.Timeout = Gradient, 500*time.Millisecond })
		for name, call := range reads {
			result, err := call(t.Context(), client)
			e := failure(t, err)
			if e.Class() != Network || !e.Temporary() || e.StatusCode() != 200 || result.StatusCode != http.StatusOK || !strings.Contains(e.Error(), c.message) {
				t.Errorf("%s %s: got %v (class %s), want %s and %q", c.name, name, e, e.Class(), Network, c.message)
			}
			if got := errors.Is(err, context.DeadlineExceeded); got != c.timeout {
				t.Errorf("%s %s: got deadline exceeded %t, want %t", c.name, name, got, c.timeout)
			}
		}
	}
}

func TestAReadThatTheCallerEndsIsNoAttempt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := newGradient(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "[")
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	_, _, err := client.ListAccounts(ctx, true)
	if e := failure(t, err); e.Class() != Cancelled || !errors.Is(err, context.Canceled) || !e.Sent() {
		t.Errorf("got %v (class %s), want %s", e, e.Class(), Cancelled)
	}
}

func TestListsAreBounded(t *testing.T) {
	row := []byte(`{"id":"a","name":"` + strings.Repeat("n", 1000) + `"},`)
	list := func(size int) []byte {
		body := append([]byte("["), bytes.Repeat(row, size/len(row)-1)...)
		body = append(body, `{"id":"last"}`...)
		return append(append(body, bytes.Repeat([]byte(" "), size-len(body)-1)...), ']')
	}
	for size, fits := range map[int]bool{maxBodyBytes + 1: true, maxReadBytes: true, maxReadBytes + 1: false} {
		body := list(size)
		got, _, err := newClientOf(t, "http://partner.test", func(c *Config) {
			c.Dialect = Gradient
			c.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body))}, nil
			})
		}).ListAccounts(t.Context(), true)
		if fits {
			if err != nil || len(got) < 2 || got[len(got)-1].ID != "last" {
				t.Errorf("%d bytes: got %d accounts and error %v, want all", size, len(got), err)
			}
			continue
		}
		if e := failure(t, err); e.Class() != Unexpected || e.Message() != "the answer is longer than 32 MiB" || got != nil {
			t.Errorf("%d bytes: got %v (class %s) and %d accounts, want %s", size, e, e.Class(), len(got), Unexpected)
		}
	}
}

func TestReadsShowNoCredential(t *testing.T) {
	for name, spell := range spellings {
		for _, secret := range []string{vendorToken, partnerToken, wireToken} {
			wrapped, _ := json.Marshal(map[string]any{"message": spell(secret), "data": map[string]string{"name": spell(secret)}})
			for _, body := range []string{spell(secret), string(wrapped)} {
				for _, status := range []int{200, 400} {
					for call, read := range reads {
						result, err := read(t.Context(), newGradient(t, answer(status, body, "X-Request-Id", secret)))
						for _, text := range []string{err.Error(), fmt.Sprintf("%#v", err), result.Message, result.RequestID} {
							if strings.Contains(text, secret) || strings.Contains(text, spell(secret)) {
								t.Errorf("%s %s %d: got %q, which shows %q", call, name, status, text, secret)
							}
						}
					}
				}
			}
		}
	}
}

func FuzzAccountListsAreUnderstoodOrRefused(f *testing.F) {
	for _, seed := range []string{
		`[]`, `null`, ``, `[{"id":"a","name":"n","description":"d","isMapped":true,"mappingId":"m"}]`, `{"data":[{"_id":1}]}`,
		`[{"id":1e9},{"id":-0.0}]`, `[{}]`, `[null]`, `{"data":{"data":[]}}`, "[{\"id\":\"\xff\"}]", `[{"ID":"a","iD":7}]`, `[{"id":"\ud800"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		accounts, err := decodeAccounts(body)
		if (err == nil) != (accounts != nil) {
			t.Fatalf("%q: got %d accounts and error %v, want one or the other", body, len(accounts), err)
		}
		type row struct {
			ID          string `json:"id"`
			Name        string `json:"name"`
			Description string `json:"description"`
			Mapped      bool   `json:"isMapped"`
			MappingID   string `json:"mappingId"`
		}
		rows := make([]row, len(accounts))
		for i, a := range accounts {
			if a.ID == "" {
				t.Fatalf("%q: account %d has no id", body, i)
			}
			rows[i] = row(a)
		}
		if err != nil {
			return
		}
		again, err := json.Marshal(map[string]any{"data": rows})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeAccounts(again); err != nil || !reflect.DeepEqual(got, accounts) {
			t.Fatalf("%q: got  %+v and error %v on a second reading\nwant %+v", body, got, err, accounts)
		}
	})
}
