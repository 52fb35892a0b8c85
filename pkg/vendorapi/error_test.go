package vendorapi

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAnswersAreClassified(t *testing.T) {
	const notReady = `{"statusCode":400,"message":"integration is not ready: mapping"}`
	cases := []struct {
		status int
		body   string
		want   Class
	}{
		{301, "", Unexpected}, {304, "", Unexpected}, {307, "", Unexpected}, {308, "", Unexpected}, {600, "", Unexpected}, {999, "", Unexpected},
		{400, `{"message":"unitCount must be a number"}`, Rejected}, {400, notReady, NotReady}, {400, "", Rejected},
		{401, "", Unauthorized}, {401, notReady, Unauthorized}, {402, "", Rejected},
		{403, `{"message":"usage anomaly"}`, Anomaly}, {403, `{"message":"Integration is NOT in pending or connected"}`, NotReady}, {403, "", Anomaly},
		{404, `{"message":"No account map found with id: a-17"}`, NotFound}, {404, notReady, NotFound},
		{405, "", Rejected}, {407, "", Unavailable}, {408, "", Unavailable}, {409, "", NotReady}, {409, notReady, NotReady},
		{410, "", Rejected}, {413, "", Rejected}, {415, "", Rejected}, {422, "", Rejected}, {422, notReady, Rejected},
		{425, "", Unavailable}, {429, "", Throttled}, {451, "", Rejected}, {499, "", Rejected},
		{500, "", Unavailable}, {501, "", Unavailable}, {502, "", Unavailable}, {503, "", Unavailable}, {504, "", Unavailable}, {599, "", Unavailable},
	}
	for _, c := range cases {
		result, err := newClient(t, answer(c.status, c.body)).PostCount(t.Context(), aCount)
		e := failure(t, err)
		if e.Class() != c.want || e.StatusCode() != c.status || result.StatusCode != c.status {
			t.Errorf("%d %s: got class %s, status %d and %d, want %s", c.status, c.body, e.Class(), e.StatusCode(), result.StatusCode, c.want)
		}
		if !e.Sent() || e.Unknown() {
			t.Errorf("%d: got sent %t unknown %t, want an answered call to be sent and known", c.status, e.Sent(), e.Unknown())
		}
		if result.Existed {
			t.Errorf("%d: got Existed for a count", c.status)
		}
	}
}

func TestClassesSayHowTheyWantToBeTreated(t *testing.T) {
	temporary := []Class{Throttled, Unavailable, Network}
	permanent := []Class{Rejected, Unexpected}
	for _, class := range Classes() {
		e := &Error{class: class}
		if got, want := e.Temporary(), slices.Contains(temporary, class); got != want {
			t.Errorf("%s: got temporary %t, want %t", class, got, want)
		}
		if got, want := e.Permanent(), slices.Contains(permanent, class); got != want {
			t.Errorf("%s: got permanent %t, want %t", class, got, want)
		}
	}
	if got := len(Classes()); got != 10 {
		t.Errorf("got %d classes, want 10", got)
	}
}

func TestWhatExistsAlreadyIsASuccess(t *testing.T) {
	client := newClient(t, answer(409, `{"statusCode":409,"message":"exists"}`))
	account, accountErr := client.PostAccount(t.Context(), Account{ID: "a"})
	service, serviceErr := client.PostService(t.Context(), Service{ID: "s"})
	if accountErr != nil || serviceErr != nil || !account.Existed || !service.Existed || account.Message != "exists" {
		t.Errorf("got %+v and %+v, errors %v and %v, want both to exist", account, service, accountErr, serviceErr)
	}
	labelled, err := newClient(t, answer(409, `{"error":"exists"}`)).PostService(t.Context(), Service{ID: "s"})
	if err != nil || labelled.Message != "exists" {
		t.Errorf("got %+v and error %v, want the sentence under its other label", labelled, err)
	}
	_, err = client.SetMapping(t.Context())
	if e := failure(t, err); e.Class() != NotReady {
		t.Errorf("set mapping: got class %s, want %s", e.Class(), NotReady)
	}
}

func TestEvery2xxIsASuccess(t *testing.T) {
	for _, status := range []int{200, 201, 202, 203, 204, 205, 226, 299} {
		for _, body := range []string{"", "null", "[1]", `{"message":7}`, "<html>", "\xff\x00", strings.Repeat("x", 3*maxBodyBytes)} {
			if status == 204 {
				body = ""
			}
			result, err := newClient(t, answer(status, body)).SetMapping(t.Context())
			if err != nil || result.StatusCode != status || result.Existed || result.Status != "" || len(result.Message) > maxMessageBytes {
				t.Errorf("%d %.20q: got %+v and error %v, want a success", status, body, result, err)
			}
		}
	}
}

func TestTheMappingAnswerTellsTheStatus(t *testing.T) {
	body := `{"status":200,"message":"ok","data":{"integrationId":"i-9","status":"mapping"}}`
	got, err := newClient(t, answer(200, body, "X-Request-Id", "r-1", "Date", "Sat, 21 Nov 2026 12:00:00 GMT")).SetMapping(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Duration <= 0 || got.Duration > 5*time.Second {
		t.Errorf("got duration %s, want the time of the call", got.Duration)
	}
	got.Duration = 0
	want := MappingResult{
		Result:        Result{StatusCode: 200, RequestID: "r-1", Date: time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC), Message: "ok"},
		IntegrationID: "i-9", Status: "mapping",
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestErrorsSayWhatThePartnerSaid(t *testing.T) {
	for body, want := range map[string]string{
		`{"message":"No account map found"}`:          "post count: partner answered 404 Not Found: No account map found",
		`{"message":["a is short","b\nis\u0000bad"]}`: "post count: partner answered 404 Not Found: a is short; b is bad",
		`{"error":"nope"}`:                            "post count: partner answered 404 Not Found: nope",
		`{"detail":"nope"}`:                           `post count: partner answered 404 Not Found: {"detail":"nope"}`,
		"plain words":                                 "post count: partner answered 404 Not Found: plain words",
		"":                                            "post count: partner answered 404 Not Found",
	} {
		result, err := newClient(t, answer(404, body)).PostCount(t.Context(), aCount)
		if err == nil || err.Error() != want {
			t.Errorf("%s: got  %v\nwant %s", body, err, want)
		}
		if e := failure(t, err); result.Message != e.Message() {
			t.Errorf("%s: got message %q in the result, want %q as in the error", body, result.Message, e.Message())
		}
	}
}

func TestRetryAfterIsUnderstoodInBothForms(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	date := func(offset time.Duration) string { return now.Add(offset).Format(http.TimeFormat) }
	cases := []struct {
		value, date string
		want        time.Duration
		ok          bool
	}{
		{"", "", 0, false}, {"soon", "", 0, false}, {"1.5", "", 0, false}, {"-", "", 0, false}, {"1s", "", 0, false}, {"٣", "", 0, false},
		{"0", "", 0, true}, {"30", "", 30 * time.Second, true}, {" 30 ", "", 30 * time.Second, true}, {"-30", "", 0, true}, {"007", "", 7 * time.Second, true},
		{"86400", "", 24 * time.Hour, true}, {"86401", "", 24 * time.Hour, true}, {strings.Repeat("9", 400), "", 24 * time.Hour, true},
		{date(time.Minute), "", time.Minute, true}, {date(-time.Minute), "", 0, true}, {date(48 * time.Hour), "", 24 * time.Hour, true},
		{date(time.Minute), date(time.Minute - 5*time.Second), 5 * time.Second, true},
		{date(time.Hour), date(time.Hour + time.Second), 0, true}, {date(time.Minute), "yesterday", time.Minute, true},
		{"Friday, 20-Nov-26 12:00:10 GMT", "", 10 * time.Second, true}, {"Fri Nov 20 12:00:10 2026", "", 10 * time.Second, true},
	}
	for _, c := range cases {
		header := http.Header{"Retry-After": {c.value}, "Date": {c.date}}
		if got, ok := parseRetryAfter(header, now); got != c.want || ok != c.ok {
			t.Errorf("Retry-After %.40q, Date %q: got %s %t, want %s %t", c.value, c.date, got, ok, c.want, c.ok)
		}
	}
	_, err := newClient(t, answer(429, "", "Retry-After", "7")).PostCount(t.Context(), aCount)
	if got, ok := failure(t, err).RetryAfter(); got != 7*time.Second || !ok {
		t.Errorf("got %s %t from the error, want 7s true", got, ok)
	}
}

func FuzzRetryAfterStaysInRange(f *testing.F) {
	f.Add("30", "")
	f.Add("-1", "x")
	f.Add("Fri, 20 Nov 2026 12:00:00 GMT", "Fri, 20 Nov 2026 11:00:00 GMT")
	f.Add("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT")
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, date string) {
		got, ok := parseRetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, now)
		if got < 0 || got > maxRetryAfter || (!ok && got != 0) {
			t.Errorf("%q, %q: got %s %t, want 0 to %s", value, date, got, ok, maxRetryAfter)
		}
	})
}
