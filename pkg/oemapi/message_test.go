package oemapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestMessagesAreOneShortLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                          {"", ""},
		"blanks around":                    {" \r\n ok \t", "ok"},
		"line breaks and escapes":          {"a\r\nb\x1b[31mc\x00d\x7f\u0085e", "a  b [31mc d  e"},
		"marks that turn the direction":    {"a\u202eb\u2028c\u200bd", "a b c d"},
		"invalid UTF-8":                    {"a\xffb", "a\ufffdb"},
		"just fits":                        {strings.Repeat("x", 512), strings.Repeat("x", 512)},
		"one too many":                     {strings.Repeat("x", 513), strings.Repeat("x", 509) + "…"},
		"cut within a rune of four bytes":  {"x" + strings.Repeat("🚀", 200), "x" + strings.Repeat("🚀", 127) + "…"},
		"a secret in the middle":           {"got " + clientSecret + " from us", "got *** from us"},
		"a secret that would be cut apart": {strings.Repeat("x", 505) + clientSecret, strings.Repeat("x", 505) + "***"},
	} {
		if got := newRedactor(NewSecret(clientSecret)).message(c.text); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func FuzzMessagesAreFitForALogLine(f *testing.F) {
	f.Add("ok", 3)
	f.Add(strings.Repeat("🚀\x00", 200), 512)
	f.Add("\xff\xfe\u202e", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = 3 + int(uint(limit)%1024)
		got := cut(text, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q cut at %d: got %q", text, limit, got)
		}
	})
}

// echoes are ways in which a server may repeat what it was sent.
var echoes = map[string]func(string) string{
	"plain":         func(s string) string { return s },
	"JSON":          func(s string) string { b, _ := json.Marshal(s); return string(b) },
	"JSON in JSON":  func(s string) string { b, _ := json.Marshal(s); b, _ = json.Marshal(string(b)); return string(b) },
	"PHP's JSON":    func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
	"query":         url.QueryEscape,
	"path":          url.PathEscape,
	"small query":   func(s string) string { return smallDigits(url.QueryEscape(s)) },
	"HTML":          html.EscapeString,
	"Go quotes":     func(s string) string { return fmt.Sprintf("%q", s) },
	"at the edge":   func(s string) string { return strings.Repeat("x", maxMessageBytes-20) + s },
	"broken JSON":   func(s string) string { return `{"message":"` + s },
	"with controls": func(s string) string { return "\x00" + s + "\x1b" },
}

// smallDigits writes %2F as %2f.
func smallDigits(escaped string) string {
	parts := strings.Split(escaped, "%")
	for i := range parts[1:] {
		digits := parts[i+1]
		parts[i+1] = strings.ToLower(digits[:2]) + digits[2:]
	}
	return strings.Join(parts, "%")
}

func TestEchoedSecretsAreMasked(t *testing.T) {
	secret, token := `cl/nt<se>c"r3t\/+`, "oem/t0k+en&'x'/=="
	for spelling, spell := range echoes {
		for _, hidden := range []string{secret, token} {
			echo := spell(hidden)
			wrapped, _ := json.Marshal(map[string]any{"message": "got " + echo, "status": 400})
			asList, _ := json.Marshal(map[string]any{"message": "ok " + echo, "integrations": []any{map[string]any{"id": "i " + echo, "vendorId": echo, "integrationStatus": echo}}})
			for body, status := range map[string]int{echo: 400, string(wrapped): 400, "ok " + echo: 200, string(asList): 200} {
				server := newClient(t, answer(status, body, "X-Request-Id", hidden))
				client := newClientOf(t, strings.TrimSuffix(server.address, oemAPISegment), func(c *Config) { c.ClientSecret = NewSecret(secret) })
				got, result, err := client.Integrations(t.Context(), NewSecret(token))
				for _, text := range []string{fmt.Sprintf("%v %#v %+v", err, err, result), fmt.Sprintf("%q", got)} {
					for _, part := range []string{hidden, echo, hidden[:6]} {
						if strings.Contains(text, part) {
							t.Errorf("%s of %s, %d: got %q, which shows %q", spelling, hidden, status, text, part)
						}
					}
				}
			}
		}
	}
}

func TestAnEchoedRequestIsNotReturned(t *testing.T) {
	client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.Copy(w, r.Body)
	})
	_, result, err := list(t, client)
	if want := "list integrations: platform answered 400 Bad Request"; err == nil || err.Error() != want || result.Message != "" {
		t.Errorf("got %v and message %q, want %s alone", err, result.Message, want)
	}
}

func TestMaskingLeavesNoRestAndHarmlessWordsAlone(t *testing.T) {
	if got, want := newRedactor(NewSecret("abcd"), NewSecret("abcdefgh")).message("abcdefgh abcd"), "*** ***"; got != want {
		t.Errorf("got %q, want %q though one secret begins like the other", got, want)
	}
	if got, want := newRedactor(NewSecret("v"), Secret{}).message("give up"), "give up"; got != want {
		t.Errorf("got %q, want %q: a secret of a letter is none", got, want)
	}
}

func TestNothingPrintsASecret(t *testing.T) {
	client := newClient(t, answer(401, `{"message":"bad secret `+clientSecret+`"}`))
	_, refused, answered := list(t, client)
	_, _, unanswered := list(t, newClientOf(t, "http://127.0.0.1:1/api", nil))
	_, _, echoed := list(t, newClientOf(t, "http://platform.test", func(c *Config) {
		c.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			return nil, &url.Error{Op: "Post", URL: "http://user:hunter2@platform.test", Err: fmt.Errorf("cannot send %s", body)}
		})
	}))
	// fmt looks into unexported fields, so this one must have nothing running.
	still := newClientOf(t, "http://platform.test", nil)
	secret := NewSecret(clientSecret)
	values := []any{
		secret, &secret, Config{ClientSecret: secret}, struct{ s Secret }{secret}, struct{ s *Secret }{&secret},
		client, *client, struct{ c *Client }{still}, struct{ c Client }{*still},
		refused, answered, unanswered, echoed, errors.Unwrap(echoed), fmt.Errorf("wrapped: %w", answered),
	}
	for _, value := range values {
		printed := []string{}
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			printed = append(printed, fmt.Sprintf(format, value))
		}
		encoded, _ := json.Marshal(value)
		var text, structured bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("call", "value", value)
		slog.New(slog.NewJSONHandler(&structured, nil)).Info("call", "value", value)
		for _, text := range append(printed, string(encoded), text.String(), structured.String()) {
			for _, hidden := range []string{clientSecret, oemToken, "hunter2"} {
				if strings.Contains(text, hidden) || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", hidden)) {
					t.Errorf("%T: got %s, which shows %q", value, text, hidden)
				}
			}
		}
	}
	if got := fmt.Sprintf("%v %+v %#v %d %s", secret, secret, secret, secret, Secret{}); got != "*** *** *** *** ***" {
		t.Errorf("got %q, want stars", got)
	}
	if got, want := fmt.Sprintf("%#v %d", still, *still), strings.Repeat(" "+still.String(), 2)[1:]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := `cannot send {"clientId":"client-17","clientSecret":"***","grantType":"client_credentials","scope":"vendor_manage","organizationOemToken":"***"}`
	if got := failure(t, echoed).Message(); got != want {
		t.Errorf("got  %q\nwant %q, the cause without the URL and the secrets", got, want)
	}
}

func TestRequestIDsAreShortAndOneLine(t *testing.T) {
	for header, want := range map[string]string{
		"":                       "",
		"r-1":                    "r-1",
		strings.Repeat("i", 200): strings.Repeat("i", 125) + "…",
		"for " + oemToken:        "for ***",
	} {
		_, result, err := list(t, newClient(t, answer(200, `{"integrations":[]}`, "X-Request-Id", header)))
		if err != nil || result.RequestID != want {
			t.Errorf("%q: got %q and error %v, want %q", header, result.RequestID, err, want)
		}
	}
}
