package vendorapi

import (
	"bytes"
	"encoding/base64"
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
	"time"
	"unicode"
	"unicode/utf8"
)

func TestMessagesAreOneShortLine(t *testing.T) {
	cases := []struct {
		name, text, want string
	}{
		{"nothing", "", ""},
		{"blanks around", " \r\n ok \t", "ok"},
		{"line breaks and escapes", "a\r\nb\x1b[31mc\x00d\x7f\u0085e", "a  b [31mc d  e"},
		{"marks that turn the direction", "a\u202eb\u2028c\u200bd", "a b c d"},
		{"invalid UTF-8", "a\xffb", "a\ufffdb"},
		{"just fits", strings.Repeat("x", 512), strings.Repeat("x", 512)},
		{"one too many", strings.Repeat("x", 513), strings.Repeat("x", 509) + "…"},
		{"cut between runes", strings.Repeat("ü", 300), strings.Repeat("ü", 254) + "…"},
		{"cut within a rune of four bytes", "x" + strings.Repeat("🚀", 200), "x" + strings.Repeat("🚀", 127) + "…"},
	}
	for _, c := range cases {
		if got := cutMessage(c.text, maxMessageBytes); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzMessagesAreFitForALogLine(f *testing.F) {
	f.Add("ok", 3)
	f.Add(strings.Repeat("🚀\x00", 200), 512)
	f.Add("\xff\xfe\u202e", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = 3 + int(uint(limit)%1024)
		got := cutMessage(text, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q cut at %d: got %q", text, limit, got)
		}
	})
}

func TestRequestIDsAreShortAndPrintable(t *testing.T) {
	for header, want := range map[string]string{
		"":                       "",
		"r-1":                    "r-1",
		"r\xc3\xbc1":             "r?1",
		strings.Repeat("i", 200): strings.Repeat("i", 128),
		"for " + wireToken:       "for ***",
	} {
		result, err := newClient(t, answer(201, "", "X-Request-Id", header)).PostCount(t.Context(), aCount)
		if err != nil || result.RequestID != want {
			t.Errorf("%q: got %q and error %v, want %q", header, result.RequestID, err, want)
		}
	}
}

func TestTheDateIsThatOfThePartnersClock(t *testing.T) {
	noon := time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Time{
		"":                                 {},
		"yesterday":                        {},
		"2026-11-21T12:00:00Z":             {},
		"Sat, 21 Nov 2026 12:00:00 GMT":    noon,
		"Saturday, 21-Nov-26 12:00:00 GMT": noon,
		"Sat Nov 21 12:00:00 2026":         noon,
	} {
		for _, status := range []int{201, 401} {
			result, _ := newClient(t, answer(status, "", "Date", header)).PostCount(t.Context(), aCount)
			if result.StatusCode != status || !result.Date.Equal(want) {
				t.Errorf("%q with %d: got %v with %d, want %v", header, status, result.Date, result.StatusCode, want)
			}
		}
	}
}

// spellings are ways in which a server may echo what it was sent.
var spellings = map[string]func(string) string{
	"plain":        func(s string) string { return s },
	"JSON":         func(s string) string { b, _ := json.Marshal(s); return string(b) },
	"PHP's JSON":   func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
	"query":        url.QueryEscape,
	"path":         url.PathEscape,
	"HTML":         html.EscapeString,
	"Go quotes":    func(s string) string { return fmt.Sprintf("%q", s) },
	"at the edge":  func(s string) string { return strings.Repeat("x", maxMessageBytes-20) + s },
	"broken JSON":  func(s string) string { return `{"message":"` + s },
	"with control": func(s string) string { return "\x00" + s + "\x1b" },
}

func TestEchoedCredentialsAreMasked(t *testing.T) {
	vendor, partner := `ve/nd<o>r"t0ken\+`, "par/tner&'t0ken'=="
	bearer := base64.StdEncoding.EncodeToString([]byte(vendor + ":" + partner))
	for name, spell := range spellings {
		for what, secret := range map[string]string{"bearer": bearer, "vendor": vendor, "partner": partner, "unpadded": strings.TrimRight(bearer, "=")} {
			echo := spell(secret)
			wrapped, _ := json.Marshal(map[string]string{"message": "got " + echo})
			for _, body := range []string{echo, string(wrapped)} {
				server := newClient(t, answer(400, body, "X-Request-Id", secret))
				client := newClientOf(t, server.base.String(), func(c *Config) { c.Credentials = NewCredentials(vendor, partner) })
				result, err := client.PostCount(t.Context(), aCount)
				for _, text := range []string{err.Error(), fmt.Sprintf("%#v", err), result.Message, result.RequestID} {
					for _, part := range []string{secret, echo, secret[:8]} {
						if strings.Contains(text, part) {
							t.Errorf("%s in %s: got %q, which shows %q", what, name, text, part)
						}
					}
				}
			}
		}
	}
}

func TestMaskingLeavesNoRestAndHarmlessWordsAlone(t *testing.T) {
	c := NewCredentials("abcd", "abcdefgh")
	if got, want := newSecrets(c).message("abcdefgh abcd"), "*** ***"; got != want {
		t.Errorf("got %q, want %q though one token begins like the other", got, want)
	}
	short := NewCredentials("v", "p")
	if got, want := newSecrets(short).message("give up"), "give up"; got != want {
		t.Errorf("got %q, want %q: tokens of a letter are no secrets", got, want)
	}
}

func TestNothingPrintsACredential(t *testing.T) {
	client := newClient(t, answer(401, `{"message":"bad token `+wireToken+`"}`))
	_, answered := client.PostCount(t.Context(), aCount)
	_, unanswered := newClientOf(t, "http://127.0.0.1:1/api", nil).PostCount(t.Context(), aCount)
	_, echoed := newClientOf(t, "http://partner.test", func(c *Config) {
		c.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Post", URL: "http://user:" + partnerToken + "@partner.test",
				Err: fmt.Errorf("malformed HTTP response %q", r.Header.Get("Authorization"))}
		})
	}).PostCount(t.Context(), aCount)
	credentials := NewCredentials(vendorToken, partnerToken)
	// fmt looks into unexported fields, so this one must have nothing running.
	still := newClientOf(t, "http://partner.test", nil)
	values := []any{
		credentials, &credentials, Config{Credentials: credentials}, struct{ c Credentials }{credentials},
		client, *client, struct{ c *Client }{still}, struct{ c Client }{*still}, answered, unanswered, echoed, errors.Unwrap(echoed), fmt.Errorf("wrapped: %w", answered),
	}
	for _, value := range values {
		printed := []string{}
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			printed = append(printed, fmt.Sprintf(format, value))
		}
		encoded, _ := json.Marshal(value)
		printed = append(printed, string(encoded))
		for _, handler := range []func(io.Writer, *slog.HandlerOptions) slog.Handler{
			func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) },
			func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(w, o) },
		} {
			var log bytes.Buffer
			slog.New(handler(&log, nil)).Info("call", "value", value)
			printed = append(printed, log.String())
		}
		for _, text := range printed {
			for _, secret := range []string{vendorToken, partnerToken, wireToken} {
				if strings.Contains(text, secret) || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", secret)) {
					t.Errorf("%T: got %s, which shows %q", value, text, secret)
				}
			}
		}
	}
	if got := fmt.Sprintf("%v %+v %#v %d", credentials, credentials, credentials, credentials); got != "*** *** *** ***" {
		t.Errorf("got %q, want stars", got)
	}
	if got, want := fmt.Sprintf("%#v", client), "vendorapi.Client("+client.base.String()+")"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := failure(t, echoed).Message(); got != `malformed HTTP response "Bearer ***"` {
		t.Errorf("got %q, want the cause without the URL and the token", got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
