package oemapi

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStatusesBecomeClasses(t *testing.T) {
	for status, want := range map[int]Class{
		301: Unexpected, 304: Unexpected, 307: Unexpected, 308: Unexpected, 600: Unexpected, 999: Unexpected,
		400: Rejected, 401: Unauthorized, 402: Rejected, 403: Forbidden, 404: NotFound, 405: Rejected, 407: Unavailable, 408: Unavailable,
		409: Exists, 410: Rejected, 413: Rejected, 415: Rejected, 422: Rejected, 425: Unavailable, 429: Throttled, 451: Rejected, 499: Rejected,
		500: Unavailable, 501: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable, 599: Unavailable,
	} {
		_, result, err := list(t, newClient(t, answer(status, `{"status":200,"integrations":[],"message":"no"}`)))
		if e := failure(t, err); e.Class() != want || e.StatusCode() != status || result.StatusCode != status {
			t.Errorf("%d: got class %s, status %d and %d, want %s", status, e.Class(), e.StatusCode(), result.StatusCode, want)
		}
	}
}

func TestClassesSayHowTheyWantToBeTreated(t *testing.T) {
	temporary := []Class{Throttled, Unavailable, Network}
	permanent := []Class{Exists, Rejected, Unexpected}
	unknown := []Class{Unavailable, Network, Unexpected, Cancelled}
	for _, class := range Classes() {
		e := &Error{class: class}
		if got, want := e.Temporary(), slices.Contains(temporary, class); got != want {
			t.Errorf("%s: got temporary %t, want %t", class, got, want)
		}
		if got, want := e.Permanent(), slices.Contains(permanent, class); got != want {
			t.Errorf("%s: got permanent %t, want %t", class, got, want)
		}
		if got, want := e.Unknown(), slices.Contains(unknown, class); got != want {
			t.Errorf("%s: got unknown %t, want %t", class, got, want)
		}
	}
	if got := len(Classes()); got != 10 {
		t.Errorf("got %d classes, want 10", got)
	}
}

func TestErrorsSayWhatThePlatformSaid(t *testing.T) {
	const head = "list integrations: platform answered 403 Forbidden"
	for body, want := range map[string]string{
		`{"status":403,"message":"token was revoked"}`: head + ": token was revoked",
		`{"message":["a is short","b\nis\u0000bad"]}`:  head + ": a is short; b is bad",
		`{"message":7,"error":"nope"}`:                 head + ": nope",
		`{"detail":{"clientId":"x"}}`:                  head,
		`{"clientId":"x`:                               head,
		`["x"]`:                                        head,
		"plain words":                                  head + ": plain words",
		"":                                             head,
	} {
		_, result, err := list(t, newClient(t, answer(403, body, "X-Request-Id", "r-1")))
		if err == nil || err.Error() != want {
			t.Errorf("%s: got  %v\nwant %s", body, err, want)
		}
		if e := failure(t, err); result.Message != e.Message() || result.RequestID != "r-1" || result.Duration <= 0 {
			t.Errorf("%s: got %+v, want the message %q of the error, request id r-1 and a duration", body, result, e.Message())
		}
	}
}

func TestRetryAfterIsUnderstoodInBothForms(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	date := func(offset time.Duration) string { return now.Add(offset).Format(http.TimeFormat) }
	for _, c := range []struct {
		value, date string
		want        time.Duration
		ok          bool
	}{
		{"", "", 0, false}, {"soon", "", 0, false}, {"1.5", "", 0, false}, {"-", "", 0, false}, {"-30", "", 0, false}, {"1s", "", 0, false}, {"٣", "", 0, false},
		{"0", "", 0, true}, {"30", "", 30 * time.Second, true}, {" 30 ", "", 30 * time.Second, true}, {"007", "", 7 * time.Second, true},
		{"86400", "", 24 * time.Hour, true}, {"86401", "", 24 * time.Hour, true}, {strings.Repeat("9", 400), "", 24 * time.Hour, true},
		{date(time.Minute), "", time.Minute, true}, {date(-time.Minute), "", 0, true}, {date(48 * time.Hour), "", 24 * time.Hour, true},
		{date(time.Minute), date(time.Minute - 5*time.Second), 5 * time.Second, true},
		{date(time.Hour), date(time.Hour + time.Second), 0, true}, {date(time.Minute), "yesterday", time.Minute, true},
	} {
		header := http.Header{"Retry-After": {c.value}, "Date": {c.date}}
		if got, ok := parseRetryAfter(header, now); got != c.want || ok != c.ok {
			t.Errorf("Retry-After %.40q, Date %q: got %s %t, want %s %t", c.value, c.date, got, ok, c.want, c.ok)
		}
	}
	_, _, err := list(t, newClient(t, answer(429, "", "Retry-After", "7")))
	if got, ok := failure(t, err).RetryAfter(); got != 7*time.Second || !ok {
		t.Errorf("got %s %t from the error, want 7s true", got, ok)
	}
}

func FuzzRetryAfterStaysInRange(f *testing.F) {
	f.Add("30", "")
	f.Add("18446744073709551616", "x")
	f.Add("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT")
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, date string) {
		got, ok := parseRetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, now)
		if got < 0 || got > maxRetryAfter || (!ok && got != 0) {
			t.Errorf("%q, %q: got %s %t, want 0 to %s", value, date, got, ok, maxRetryAfter)
		}
	})
}
