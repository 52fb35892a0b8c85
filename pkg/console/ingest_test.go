package console_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestAnEventIsAcceptedInEveryForm(t *testing.T) {
	one, many := count("1", 42), "["+count("1", 42)+"]"
	for _, test := range []struct{ name, contentType, body string }{
		{"structured", "application/cloudevents+json", one},
		{"structured, charset", "Application/CloudEvents+JSON; charset=UTF-8", one},
		{"plain JSON, an object", "application/json", one},
		{"batch", "application/cloudevents-batch+json", many},
		{"plain JSON, an array", "application/json; charset=utf-8", " \r\n" + many},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench()
			a := read(t, b.post(t, test.contentType, test.body), http.StatusAccepted)
			accepted(t, b, &a)
		})
	}
	for name, contentType := range map[string][]string{
		"binary": {"application/json"}, "binary of another JSON type": {"application/vnd.acme+json"}, "binary without Content-Type": nil,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			h := binaryHeader("1")
			h["Content-Type"] = contentType
			a := read(t, b.do(t, http.MethodPost, "/ingest/v1/events", h, binaryData), http.StatusAccepted)
			accepted(t, b, &a)
		})
	}
}

const binaryData = `{"vendorId":"acme","organizationId":"msp-0042","accountId":"a-17","serviceId":"backup","unitCount":42}`

func binaryHeader(id string) http.Header {
	return http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {"//billing.acme.example"}, "Ce-Type": {event.TypeCount},
		"Ce-Time": {time.Now().UTC().Format(time.RFC3339)},
	}
}

// accepted checks that one count of 42 was published and receipted.
func accepted(t *testing.T, b *bench, a *answer) {
	t.Helper()
	if len(b.log.events) != 1 {
		t.Fatalf("published %d events, want 1", len(b.log.events))
	}
	e := b.log.events[0]
	want := event.Count{AccountID: "a-17", ServiceID: "backup", UnitCount: 42 * event.UnitsScale}
	if e.ID != "1" || e.Vendor != "acme" || e.Organization != "msp-0042" || e.Data != event.Data(want) {
		t.Errorf("published %+v, want event 1 of acme/msp-0042 with %+v", e, want)
	}
	if got := fmt.Sprint(*a.Accepted, a.Events); got != "1 [{1 EVENTS_acme 1 false}]" {
		t.Errorf("answered %s, want event 1 at EVENTS_acme 1, no duplicate", got)
	}
}

func TestStructuredContentTypeCountsMoreThanAttributeHeaders(t *testing.T) {
	b := newBench()
	h := binaryHeader("of the header")
	h.Set("Content-Type", event.ContentTypeStructured)
	a := read(t, b.do(t, http.MethodPost, "/ingest/v1/events", h, count("1", 42)), http.StatusAccepted)
	accepted(t, b, &a)
}

func TestABatchIsPublishedInItsOrderAndARepeatIsADuplicate(t *testing.T) {
	b := newBench()
	batch := "[" + count("1", 1) + "," + count("2", 2) + "," + count("3", 3) + "]"
	for _, want := range []string{
		"3 [{1 EVENTS_acme 1 false} {2 EVENTS_acme 2 false} {3 EVENTS_acme 3 false}]",
		"3 [{1 EVENTS_acme 1 true} {2 EVENTS_acme 2 true} {3 EVENTS_acme 3 true}]",
	} {
		a := read(t, b.post(t, event.ContentTypeBatch, batch), http.StatusAccepted)
		if got := fmt.Sprint(*a.Accepted, a.Events); got != want {
			t.Errorf("answered %s, want %s", got, want)
		}
	}
}

func TestAWrongContentTypeIsToldTheRightOnes(t *testing.T) {
	ce := binaryHeader("1")
	for name, h := range map[string]http.Header{
		"none":                       {},
		"another type":               {"Content-Type": {"text/plain"}},
		"JSON of something else":     {"Content-Type": {"application/vnd.acme+json"}},
		"CloudEvents in XML":         {"Content-Type": {"application/cloudevents+xml"}, "Ce-Specversion": ce["Ce-Specversion"]},
		"another charset":            {"Content-Type": {"application/json; charset=iso-8859-1"}},
		"a malformed one":            {"Content-Type": {"application/json; ="}},
		"binary, another type":       {"Content-Type": {"text/xml"}, "Ce-Specversion": ce["Ce-Specversion"], "Ce-Id": ce["Ce-Id"]},
		"form, as a browser sends":   {"Content-Type": {"application/x-www-form-urlencoded"}},
		"compressed, right type":     {"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}},
		"text, as a browser may too": {"Content-Type": {"text/plain;charset=UTF-8"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			w := b.do(t, http.MethodPost, "/ingest/v1/events", h, count("1", 1))
			a := read(t, w, http.StatusUnsupportedMediaType)
			if h.Get("Content-Encoding") != "" {
				if got := w.Header().Get("Accept-Encoding"); got != "identity" {
					t.Errorf("Accept-Encoding is %q, want identity", got)
				}
				return
			}
			for _, right := range []string{event.ContentTypeStructured, event.ContentTypeBatch, event.ContentTypeData} {
				if !strings.Contains(a.Detail, right) || !strings.Contains(w.Header().Get("Accept"), right) {
					t.Errorf("detail %q and Accept %q, want %s in both", a.Detail, w.Header().Get("Accept"), right)
				}
			}
			if len(b.log.events) != 0 {
				t.Errorf("published %s, want nothing", b.log.ids())
			}
		})
	}
}

func TestWhatIsWrongIsAnsweredWithItsPlace(t *testing.T) {
	now := time.Now()
	ok := count("ok", 1)
	data := func(vendor string) string {
		return `{"vendorId":"` + vendor + `","organizationId":"o","accountId":"a","serviceId":"s","unitCount":1}`
	}
	at := func(d time.Duration) string { return envelope("1", now.Add(d), data("acme")) }
	replay := strings.Replace(ok, `"id"`, `"replayof":"4711","id"`, 1)
	for _, test := range []struct {
		name, contentType, body string
		status                  int
		places                  string
	}{
		{"an empty body", event.ContentTypeStructured, "", 400, " malformed"},
		{"no JSON", event.ContentTypeData, "{", 400, " malformed"},
		{"an array as one event", event.ContentTypeStructured, "[" + ok + "]", 400, " malformed"},
		{"one event as a batch", event.ContentTypeBatch, ok, 400, " malformed"},
		{"an envelope without version", event.ContentTypeStructured, "{}", 400, "/specversion malformed"},
		{"a member twice", event.ContentTypeStructured, strings.Replace(ok, `"id"`, `"id":"0","id"`, 1), 400, "/id malformed"},
		{"an unknown type", event.ContentTypeStructured, strings.Replace(ok, "count", "guess", 1), 422, "/type unknown_type"},
		{"all problems of an event", event.ContentTypeStructured, envelope("", now, `{"vendorId":7,"organizationId":"o","accountId":"","serviceId":"s","unitCount":-1}`),
			422, "/data/vendorId invalid, /data/unitCount invalid, /id invalid, /data/accountId invalid"},
		{"too far ahead of now", event.ContentTypeStructured, at(6 * time.Minute), 422, "/time too_far_ahead"},
		{"too old by now", event.ContentTypeStructured, at(-36 * 24 * time.Hour), 422, "/time too_old"},
		{"a replay", event.ContentTypeStructured, replay, 422, "/replayof invalid"},
		{"an empty batch", event.ContentTypeBatch, "[]", 422, " invalid"},
		{"a batch of 1001", event.ContentTypeBatch, "[0" + strings.Repeat(",0", 1000) + "]", 422, " invalid"},
		{"problems of several events", event.ContentTypeBatch, "[" + ok + "," + envelope("2", now, `{"organizationId":"o","accountId":"a","serviceId":"s","unitCount":"1"}`) + "," + replay + "]",
			422, "/1/data/vendorId invalid, /1/data/unitCount invalid, /2/replayof invalid"},
		{"two integrations", event.ContentTypeBatch, "[" + envelope("1", now, data("acme")) + "," + envelope("2", now, data("other")) + "]", 422, "/1/data/vendorId subject_mismatch"},
		{"an id twice for different figures", event.ContentTypeBatch, "[" + count("1", 1) + "," + count("1", 2) + "]", 422, "/1/id conflicting_duplicate"},
		{"malformed and invalid", event.ContentTypeBatch, "[7," + at(-1000*time.Hour) + "]", 400, "/0 malformed, /1/time too_old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench()
			a := read(t, b.post(t, test.contentType, test.body), test.status)
			if got := a.places(); got != test.places {
				t.Errorf("errors are %q, want %q", got, test.places)
			}
			for _, e := range a.Errors {
				if e.Problem == "" || e.Want == "" || strings.Contains(e.Problem+e.Want, "the subject") {
					t.Errorf("error is %+v, want a problem and what would be right, in words of a request", e)
				}
			}
			if len(b.log.events) != 0 || a.Accepted != nil {
				t.Errorf("published %q, accepted %v, want nothing", b.log.ids(), a.Accepted)
			}
		})
	}
}

func TestTheSameEventTwiceInABatchIsNoConflict(t *testing.T) {
	b := newBench()
	one := count("1", 1)
	a := read(t, b.post(t, event.ContentTypeBatch, "["+one+","+one+"]"), http.StatusAccepted)
	if got := fmt.Sprint(a.Events); got != "[{1 EVENTS_acme 1 false} {1 EVENTS_acme 1 true}]" {
		t.Errorf("answered %s, want the second as a duplicate of the first", got)
	}
}

func TestProblemsOfABinaryEventNameTheirHeader(t *testing.T) {
	for _, test := range []struct{ name, header, value, body, places string }{
		{"attribute", "Ce-Time", "yesterday", binaryData, "ce-time invalid"},
		{"encoding", "Ce-Id", "%zz", binaryData, "ce-id malformed"},
		{"version", "Ce-Specversion", "", binaryData, "ce-specversion malformed"},
		{"replay", "Ce-Replayof", "4711", binaryData, "ce-replayof invalid"},
		{"data", "Ce-Id", "1", strings.Replace(binaryData, "42}", "-1}", 1), "/unitCount invalid"},
		{"array", "Ce-Id", "1", "[" + binaryData + "]", " invalid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := binaryHeader("1")
			h.Set(test.header, test.value)
			if test.value == "" {
				h.Del(test.header)
			}
			w := newBench().do(t, http.MethodPost, "/ingest/v1/events", h, test.body)
			status := http.StatusUnprocessableEntity
			if strings.Contains(test.places, "malformed") {
				status = http.StatusBadRequest
			}
			a := read(t, w, status)
			if got := a.places(); got != test.places {
				t.Errorf("errors are %q, want %q", got, test.places)
			}
		})
	}
}

func TestTwoContentTypesOfABinaryEventAreAProblemOfThatHeader(t *testing.T) {
	h := binaryHeader("1")
	h["Content-Type"] = []string{"application/json", "application/json"}
	a := read(t, newBench().do(t, http.MethodPost, "/ingest/v1/events", h, binaryData), http.StatusBadRequest)
	if got := a.places(); got != "content-type malformed" {
		t.Errorf("errors are %q, want that of content-type", got)
	}
}

func TestTheLimitsOfTheConfigHold(t *testing.T) {
	b := newBench(func(b *bench) { b.config.Limits = event.Limits{Ahead: time.Hour} })
	ahead := envelope("1", time.Now().Add(30*time.Minute), binaryData)
	old := envelope("2", time.Now().Add(-1000*24*time.Hour), binaryData)
	read(t, b.post(t, event.ContentTypeBatch, "["+ahead+","+old+"]"), http.StatusAccepted)
}

func TestABodyOf960KiBIsTakenAndOneByteMoreIsNot(t *testing.T) {
	b := newBench()
	one := count("1", 1)
	full := one + strings.Repeat(" ", 960<<10-len(one))
	read(t, b.post(t, event.ContentTypeStructured, full), http.StatusAccepted)
	w := b.post(t, event.ContentTypeStructured, full+" ")
	a := read(t, w, http.StatusRequestEntityTooLarge)
	if !strings.Contains(a.Detail, "983040 bytes") || w.Header().Get("Connection") != "close" {
		t.Errorf("detail %q, Connection %q, want the limit in bytes and close", a.Detail, w.Header().Get("Connection"))
	}
	if got := b.log.ids(); got != "1" {
		t.Errorf("published %q, want 1 only", got)
	}
}

// failAt makes publishing the event with that id fail.
func failAt(id string, err error) func(*bench) {
	return func(b *bench) {
		b.log.fail = func(e *event.Event) error {
			if e.ID == id {
				return err
			}
			return nil
		}
	}
}

func TestAFailingLogIsA503WithWhatWasStored(t *testing.T) {
	b := newBench(failAt("2", errors.New("no answer from nats://10.0.0.7:4222")))
	batch := "[" + count("1", 1) + "," + count("2", 2) + "," + count("3", 3) + "]"
	w := b.post(t, event.ContentTypeBatch, batch)
	a := read(t, w, http.StatusServiceUnavailable)
	if got := fmt.Sprint(*a.Accepted, a.Events); got != "1 [{1 EVENTS_acme 1 false}]" {
		t.Errorf("answered %s, want event 1 alone", got)
	}
	if got := b.log.ids(); got != "1" {
		t.Errorf("published %q, want 1 and nothing behind what failed", got)
	}
	if w.Header().Get("Retry-After") != "5" || strings.Contains(w.Body.String(), "10.0.0.7") {
		t.Errorf("Retry-After %q and body %s, want 5 seconds and no word of our network", w.Header().Get("Retry-After"), w.Body)
	}
	logged := b.logged.String()
	if strings.Count(logged, "\n") != 1 || !strings.Contains(logged, `event_id=2 accepted=1 events=3 err="no answer`) {
		t.Errorf("logged %q, want one line with the event and the error", logged)
	}
	b.log.fail = nil
	a = read(t, b.post(t, event.ContentTypeBatch, batch), http.StatusAccepted)
	if got := fmt.Sprint(a.Events); got != "[{1 EVENTS_acme 1 true} {2 EVENTS_acme 2 false} {3 EVENTS_acme 3 false}]" {
		t.Errorf("the repeat was answered with %s, want the first as a duplicate", got)
	}
}

func TestAnEventThatTheLogRefusesForGoodIsNotToBeRepeated(t *testing.T) {
	b := newBench(failAt("2", fmt.Errorf("publish: %w", permanent("the event is too large"))))
	w := b.post(t, event.ContentTypeBatch, "["+count("1", 1)+","+count("2", 2)+","+count("3", 3)+"]")
	a := read(t, w, http.StatusUnprocessableEntity)
	if a.places() != "/1 refused" || a.Errors[0].Problem != "publish: the event is too large" {
		t.Errorf("errors are %+v, want /1 refused with the words of the log", a.Errors)
	}
	if *a.Accepted != 1 || b.log.ids() != "1" || w.Header().Get("Retry-After") != "" {
		t.Errorf("accepted %d, published %q, Retry-After %q, want 1, 1 and none", *a.Accepted, b.log.ids(), w.Header().Get("Retry-After"))
	}
}

func TestPublishingHasADeadline(t *testing.T) {
	var left time.Duration
	b := newBench(func(b *bench) {
		b.config.Publish = func(ctx context.Context, _ *event.Event) (console.Receipt, error) {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return console.Receipt{}, context.DeadlineExceeded
		}
	})
	a := read(t, b.post(t, event.ContentTypeStructured, count("1", 1)), http.StatusServiceUnavailable)
	if *a.Accepted != 0 || a.Events == nil {
		t.Errorf("accepted %v, events %v, want 0 and an empty list", *a.Accepted, a.Events)
	}
	if left <= 0 || left > 20*time.Second {
		t.Errorf("publishing has %v, want up to 20s", left)
	}
}

func FuzzIngestNeverPublishesWhatItRefuses(f *testing.F) {
	for _, contentType := range []string{event.ContentTypeStructured, event.ContentTypeBatch, event.ContentTypeData} {
		f.Add(contentType, count("1", 1))
		f.Add(contentType, "["+count("1", 1)+","+count("2", 1)+"]")
		f.Add(contentType, `[{"data":{"vendorId":"=\ud800","organizationId":"."}},null]`)
	}
	f.Fuzz(func(t *testing.T, contentType, body string) {
		b := newBench()
		w := b.post(t, contentType, body)
		switch {
		case w.Code == http.StatusAccepted && len(b.log.events) > 0:
			for _, e := range b.log.events {
				if err := e.Check(); err != nil {
					t.Errorf("published %+v, which the contract forbids: %v", e, err)
				}
			}
		case w.Code >= 400 && w.Code < 500 && len(b.log.events) == 0:
			a := read(t, w, w.Code)
			if strings.Contains(a.places(), "subject_mismatch") && !strings.HasPrefix(strings.TrimSpace(body), "[") {
				t.Errorf("one event is refused as of another integration than itself: %s", w.Body)
			}
		default:
			t.Errorf("status %d with %d events published", w.Code, len(b.log.events))
		}
	})
}
