package event_test

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// message is the contract's example as a stored message, with one text of its
// body replaced by another.
func message(replace ...string) event.Message {
	e := countEvent()
	body := strings.NewReplacer(replace...).Replace(string(e.Structured()))
	return event.Message{Subject: e.Subject().String(), Data: []byte(body), Stream: "EVENTS_acme", Sequence: 4711, Stored: stored}
}

func decodeOne(t *testing.T, m event.Message) event.Result {
	t.Helper()
	results := event.Decode(m, event.DefaultLimits())
	if len(results) != 1 {
		t.Fatalf("got %d results, want 1", len(results))
	}
	return results[0]
}

// Every reason but the last is hidden by the one in front of it.
func TestTheFirstReasonThatHoldsIsGiven(t *testing.T) {
	const (
		old      = "2026-11-20T12:00:00Z|2020-01-01T00:00:00Z"
		ahead    = "2026-11-20T12:00:00Z|2027-01-01T00:00:00Z"
		mismatch = "a-17|a-18"
		invalid  = ":42|:-42"
		unknown  = "usage.count.v1|usage.count.v2"
		twice    = `"id":|"id":"x","id":`
	)
	for _, test := range []struct {
		want    event.Reason
		changes []string
	}{
		{event.ReasonTooOld, []string{old}},
		{event.ReasonTooFarAhead, []string{ahead}},
		{event.ReasonSubjectMismatch, []string{mismatch, ahead}},
		{event.ReasonInvalid, []string{invalid, mismatch, old}},
		{event.ReasonUnknownType, []string{unknown, invalid, mismatch, ahead}},
		{event.ReasonMalformed, []string{twice, unknown, invalid, mismatch, old}},
	} {
		t.Run(string(test.want), func(t *testing.T) {
			var replace []string
			for _, change := range test.changes {
				from, to, _ := strings.Cut(change, "|")
				replace = append(replace, from, to)
			}
			m := message(replace...)
			got := decodeOne(t, m)
			if got.Fault == nil || got.Fault.Reason != test.want || got.Event != nil {
				t.Errorf("got %+v, %v, want %s for %s", got.Event, got.Fault, test.want, m.Data)
			}
		})
	}
}

func TestTheAgeIsJudgedAgainstWhenTheMessageWasStored(t *testing.T) {
	limits := event.Limits{Ahead: time.Minute, Lateness: time.Hour}
	for _, test := range []struct {
		name   string
		stored time.Duration // after the event's time
		limits event.Limits
		want   event.Reason
	}{
		{"as far ahead as may be", -time.Minute, limits, ""},
		{"a nanosecond too far ahead", -time.Minute - 1, limits, event.ReasonTooFarAhead},
		{"as late as may be", time.Hour, limits, ""},
		{"a nanosecond too late", time.Hour + 1, limits, event.ReasonTooOld},
		{"late without a limit", 100 * 365 * 24 * time.Hour, event.Limits{}, ""},
		{"ahead without a limit", -100 * 365 * 24 * time.Hour, event.Limits{}, ""},
		{"centuries ahead", -math.MaxInt64, limits, event.ReasonTooFarAhead},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := message()
			m.Stored = countEvent().Time.Add(test.stored)
			got := event.Decode(m, test.limits)[0]
			if test.want == "" && got.Fault != nil || test.want != "" && (got.Fault == nil || got.Fault.Reason != test.want) {
				t.Errorf("got %v, want reason %q", got.Fault, test.want)
			}
		})
	}
}

func TestAFaultSaysWhereWhatAndWhatWouldBeRight(t *testing.T) {
	for _, test := range []struct{ replace, with, want string }{
		{":42", ":-3", "invalid at /data/unitCount: unitCount is -3, which is negative (want a number ≥ 0 with at most 6 decimals, at most 1e12)"},
		{":42", ":1" + strings.Repeat("0", 99), "invalid at /data/unitCount: unitCount is 1" + strings.Repeat("0", 63) + "… (100 characters), which is more than 1e12 (want a number ≥ 0 with at most 6 decimals, at most 1e12)"},
		{":42", `:"42"`, "invalid at /data/unitCount: unitCount is a string (want a number ≥ 0 with at most 6 decimals, at most 1e12)"},
		{"unitCount", "UNITCOUNT", "invalid at /data/unitCount: unitCount is missing (want a number ≥ 0 with at most 6 decimals, at most 1e12)"},
		{`"a-17"`, `""`, "invalid at /data/accountId: accountId is empty (want an id of 1 to 256 bytes once escaped for a subject)"},
		{"T12", " 12", `invalid at /time: time is "2026-11-20 12:00:00Z", which is not a date and time of RFC 3339 (want a time such as 2026-11-20T12:00:00Z (RFC 3339, with T and zone, no leap second))`},
		{"a-17", "a-18", `subject_mismatch at /data/accountId: the subject has account "a-17", the event has "a-18" (want subject "usage.v1.acme.msp-0042.count.a-18.backup")`},
		{"usage.count.v1", "usage.count.v2", `unknown_type at /type: type is "usage.count.v2" (want one of usage.count.v1, usage.snapshot.v1, catalog.account.v1, catalog.service.v1)`},
		{"2026-11-20", "2027-11-20", "too_far_ahead at /time: time is 2027-11-20T12:00:00Z, stored at 2026-11-20T12:00:01Z (want a time at most 5m0s ahead)"},
		{`"id":"01J9Z3K8"`, `"id":"1","id":"2"`, `malformed at /id: member "id" occurs twice (want each member once)`},
	} {
		got := decodeOne(t, message(test.replace, test.with))
		if got.Fault == nil || got.Fault.Error() != test.want {
			t.Errorf("%s for %s:\ngot  %v\nwant %s", test.with, test.replace, got.Fault, test.want)
		}
	}
}

func TestAllProblemsOfAnEventAreChainedToTheFirst(t *testing.T) {
	fault := decodeOne(t, message(`"a-17"`, "17", `"backup"`, `""`, ":42", ":1e13", `"01J9Z3K8"`, "null")).Fault
	var got []string
	for _, f := range fault.All() {
		got = append(got, f.Pointer)
		if !f.Permanent() || f.Reason != event.ReasonInvalid {
			t.Errorf("%v: want a permanent fault of reason invalid", f)
		}
	}
	if want := "/id /data/accountId /data/unitCount /data/serviceId"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	var counts []string
	for range 100 {
		counts = append(counts, `{"accountId":1}`)
	}
	snapshot := message(`"accountId":"a-17","serviceId":"backup","unitCount":42`, `"counts":[`+strings.Join(counts, ",")+`]`, "usage.count.v1", "usage.snapshot.v1")
	if all := decodeOne(t, snapshot).Fault.All(); len(all) != 16 || all[3].Pointer != "/data/counts/1/accountId" {
		t.Errorf("a snapshot of 100 wrong counts: got %d problems, the fourth %v, want 16 and the account of entry 1", len(all), all[3])
	}
}

func TestAReplayKeepsTheArrivalOfItsOriginal(t *testing.T) {
	for _, test := range []struct {
		replayOf string
		sequence uint64
		want     string // arrival; empty if refused
	}{
		{`"17-3"`, 4711, "17-3"},
		{`"4711"`, 4711, "4711"},
		{`"4711-1"`, 4711, ""},
		{`"4712"`, 4711, ""},
		{`"4712"`, 0, "4712"}, // not stored yet
		{`17`, 4711, ""},
		{`""`, 4711, ""},
		{`null`, 4711, "4711"},
	} {
		m := message(`"data":`, `"replayof":`+test.replayOf+`,"data":`)
		m.Sequence = test.sequence
		got := decodeOne(t, m)
		if test.want == "" {
			if got.Fault == nil || got.Fault.Pointer != "/replayof" {
				t.Errorf("replayof %s at %d: got %+v, %v, want it refused", test.replayOf, test.sequence, got.Event, got.Fault)
			}
			continue
		}
		if got.Fault != nil || got.Event.Arrival.String() != test.want {
			t.Errorf("replayof %s at %d: got %+v, %v, want arrival %s", test.replayOf, test.sequence, got.Event, got.Fault, test.want)
		}
	}
}

func TestBinaryHeadersAreFoundInAnyCaseAndDecoded(t *testing.T) {
	e := countEvent()
	for _, test := range []struct {
		name   string
		header map[string][]string
		want   string // the id that is read, or the fault
	}{
		{"as HTTP writes them", map[string][]string{"Ce-Specversion": {"1.0"}, "Ce-Id": {"a%20b%C3%bc"}, "Content-Type": {"application/json; charset=utf-8"}}, "a bü"},
		{"in capitals", map[string][]string{"CE-SPECVERSION": {"1.0"}, "CE-ID": {"x"}}, "x"},
		{"in double quotes", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {`"a\"b\\%41"`}}, `a"b\A`},
		{"with others beside them", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"x"}, "ce-traceparent": {"%"}, "Nats-Msg-Id": {"%"}}, "x"},
		{"with no value", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {}}, "invalid at ce-id: id is missing"},
		{"twice in two cases", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"x"}, "Ce-Id": {"x"}}, "malformed at ce-id: id occurs twice"},
		{"twice in one", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"x", "x"}}, "malformed at ce-id: id occurs twice"},
		{"with a % alone", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"100%"}}, "malformed at ce-id"},
		{"with no hex digits", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"%4g"}}, "malformed at ce-id"},
		{"that are no UTF-8", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"%ff"}}, "malformed at ce-id"},
		{"of another version", map[string][]string{"ce-specversion": {"0.3"}, "ce-id": {"x"}}, "invalid at ce-specversion"},
		{"of another content type", map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"x"}, "content-type": {"text/plain"}}, "invalid at ce-datacontenttype"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := message()
			m.Header, m.Data = map[string][]string{"ce-source": {"//s"}, "ce-type": {e.Type}, "ce-time": {"2026-11-20T12:00:00Z"}}, e.AppendData(nil)
			maps.Copy(m.Header, test.header)
			got := decodeOne(t, m)
			if got.Fault == nil && got.Event.ID != test.want {
				t.Errorf("id: got %q, want %q", got.Event.ID, test.want)
			}
			if got.Fault != nil && !strings.HasPrefix(got.Fault.Error(), test.want) {
				t.Errorf("got %v, want %s", got.Fault, test.want)
			}
		})
	}
}

func TestDataThatIsNoObjectIsNamedInBinaryModeToo(t *testing.T) {
	for body, want := range map[string]string{
		`[]`:                      "invalid: data is an array (want a JSON object)",
		`null`:                    "invalid: data is null (want a JSON object)",
		`"{}"`:                    "invalid: data is a string (want a JSON object)",
		`{"a":1,"a":1}`:           "malformed at /a",
		``:                        "malformed: not JSON",
		`{"vendorId":"acme"} bye`: "malformed: not JSON",
	} {
		m := message()
		m.Header, m.Data = countEvent().BinaryHeaders(), []byte(body)
		if got := decodeOne(t, m); got.Fault == nil || !strings.HasPrefix(got.Fault.Error(), want) || got.Fault.Next != nil {
			t.Errorf("%q: got %v, want %s and nothing else", body, got.Fault, want)
		}
	}
}

func TestNamesAndTextsMayBeEscapedAsJSONAllows(t *testing.T) {
	got := decodeOne(t, message(`"unitCount"`, `"unit\u0043ount"`, `"id"`, `"\u0069d"`, `"a-17"`, `"\u0061-17"`, "01J9Z3K8", `\"\\\/\u00E4\ud83e\uDDFE`))
	if got.Fault != nil {
		t.Fatal(got.Fault)
	}
	if want := `"\/ä🧾`; got.Event.ID != want || got.Event.Data != countEvent().Data {
		t.Errorf("got id %s, data %+v, want %s, %+v", got.Event.ID, got.Event.Data, want, countEvent().Data)
	}
}

func TestTheContentTypeOfTheDataIsJSON(t *testing.T) {
	for media, ok := range map[string]bool{
		"application/json": true, "Application/JSON": true, "application/json; charset=utf-8": true, "application/json;": true,
		"application/vnd.acme.usage+json": true, "text/x+JSON\t;q=1": true,
		"": false, "json": false, "text/json": false, "application/": false, "/x+json": false, "application/+json": false, "application/json+xml": false,
		"application/jsonx": false, "a/b/c+json": false, " application/json": false, "application/json; \u00fc": false, "-a/b+json": false,
	} {
		got := decodeOne(t, message(`"application/json"`, fmt.Sprintf("%q", media)))
		if (got.Fault == nil) != ok {
			t.Errorf("%q: got %v, want ok %t", media, got.Fault, ok)
		}
	}
}

func TestOneWrongElementDoesNotSpoilItsBatch(t *testing.T) {
	good := string(countEvent().Structured())
	elements := []string{
		good,
		`"null"`,
		strings.Replace(good, "msp-0042", "msp-0043", 1),
		strings.Replace(good, ":42", ":42,\"unitCount\":43", 1),
		strings.Replace(good, "usage.count.v1", "usage.count.v2", 1),
		strings.Replace(good, ":42", ":-1", 1),
		good,
	}
	m := message()
	m.Subject, m.Data = "usage.v1.acme.msp-0042.batch", []byte(" \n["+strings.Join(elements, ",")+"]")
	want := []string{
		"", "malformed at /1: the event is a string", "subject_mismatch at /2/data/organizationId", `malformed at /3/data/unitCount: member "unitCount" occurs twice`,
		"unknown_type at /4/type", "invalid at /5/data/unitCount", "",
	}
	results := event.Decode(m, event.DefaultLimits())
	if len(results) != len(want) {
		t.Fatalf("got %d results, want %d", len(results), len(want))
	}
	for i, r := range results {
		if r.Index != i || string(r.Raw) != elements[i] {
			t.Errorf("result %d: got index %d and text %s, want its own", i, r.Index, r.Raw)
		}
		if want[i] == "" {
			if r.Fault != nil || r.Event.Arrival != event.ArrivalAt(4711, i) {
				t.Errorf("element %d: got %+v, %v, want an event that arrived at 4711-%d", i, r.Event, r.Fault, i)
			}
		} else if r.Fault == nil || !strings.HasPrefix(r.Fault.Error(), want[i]) {
			t.Errorf("element %d: got %v, want %s", i, r.Fault, want[i])
		}
	}
}

func TestAnArrayThatIsNoBatchHasOneFault(t *testing.T) {
	good := string(countEvent().Structured())
	for _, test := range []struct{ name, body, want string }{
		{"empty", "[]", "invalid: the batch has 0 events (want 1 to 1000 events)"},
		{"too long", "[" + strings.Repeat(good+",", event.MaxBatch) + good + "]", "invalid: the batch has 1001 events (want 1 to 1000 events)"},
		{"not JSON", "[" + good + ",]", "malformed: not JSON"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := message()
			m.Data = []byte(test.body)
			if got := decodeOne(t, m); got.Fault == nil || !strings.HasPrefix(got.Fault.Error(), test.want) {
				t.Errorf("got %v, want %s", got.Fault, test.want)
			}
		})
	}
}

func TestAnArrayOnAnotherSubjectMustMatchIt(t *testing.T) {
	other := countEvent()
	other.Type, other.Data = event.TypeService, event.Service{ServiceID: "backup", Name: "Backup"}
	body, err := event.EncodeBatch([]*event.Event{countEvent(), other})
	if err != nil {
		t.Fatal(err)
	}
	m := message()
	m.Data = body
	got := event.Decode(m, event.DefaultLimits())
	if got[0].Fault != nil || got[1].Fault == nil || got[1].Fault.Reason != event.ReasonSubjectMismatch || got[1].Fault.Pointer != "/1/type" {
		t.Errorf("got %v and %v, want an event and a subject_mismatch at /1/type", got[0].Fault, got[1].Fault)
	}
}

func FuzzDecode(f *testing.F) {
	e := countEvent()
	batch, err := event.EncodeBatch([]*event.Event{e, e})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Subject().String(), "", e.Structured())
	f.Add(e.Subject().String(), "%31", e.AppendData(nil))
	f.Add("usage.v1.acme.msp-0042.batch", "", batch)
	f.Add("usage.v1.acme.msp-0042.batch", "", []byte(`[null,{"specversion":"1.0"},[]]`))
	f.Fuzz(func(t *testing.T, subject, id string, body []byte) {
		m := event.Message{Subject: subject, Data: body, Sequence: 1, Stored: stored}
		if id != "" {
			m.Header = e.BinaryHeaders()
			m.Header["ce-id"] = []string{id}
		}
		results := event.Decode(m, event.DefaultLimits())
		if len(results) == 0 {
			t.Fatal("got no result")
		}
		for i, r := range results {
			if r.Index != i || (r.Event == nil) == (r.Fault == nil) {
				t.Fatalf("result %d: got %+v, want its index and either an event or a fault", i, r)
			}
			if r.Fault != nil {
				if r.Fault.Reason == "" || r.Fault.Problem == "" {
					t.Fatalf("result %d: got %+v, want a reason and a problem", i, r.Fault)
				}
				continue
			}
			if err := r.Event.Check(); err != nil {
				t.Fatalf("result %d: the event is accepted and then wrong: %v", i, err)
			}
		}
	})
}
