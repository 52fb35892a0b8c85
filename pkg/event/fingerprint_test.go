package event_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// lettersOf are the dead letters that a worker would make of a message.
func lettersOf(m event.Message) []*event.Letter {
	var letters []*event.Letter
	for _, r := range event.Decode(m, event.DefaultLimits()) {
		if r.Fault == nil {
			continue
		}
		l := &event.Letter{Vendor: "acme", Organization: "msp-0042", Fault: *r.Fault, Original: m, Index: r.Index}
		if r.Raw != nil {
			l.Original.Data = r.Raw
		}
		letters = append(letters, l)
	}
	return letters
}

// wrong is the letter of the contract's example with some texts replaced.
func wrong(t *testing.T, replace ...string) *event.Letter {
	t.Helper()
	return only(t, message(replace...))
}

func only(t *testing.T, m event.Message) *event.Letter {
	t.Helper()
	letters := lettersOf(m)
	if len(letters) != 1 {
		t.Fatalf("got %d letters of %s, want 1", len(letters), m.Data)
	}
	return letters[0]
}

// inBatch is the letter of the only wrong element, the last of a batch.
func inBatch(t *testing.T, before int, replace ...string) *event.Letter {
	t.Helper()
	m := message(replace...)
	m.Data = []byte("[" + strings.Repeat(string(message().Data)+",", before) + string(m.Data) + "]")
	m.Subject = "usage.v1.acme.msp-0042.batch"
	return only(t, m)
}

func snapshotOf(counts ...string) []string {
	return []string{`"accountId":"a-17","serviceId":"backup","unitCount":42`, `"counts":[` + strings.Join(counts, ",") + `]`, "usage.count.v1", "usage.snapshot.v1", "count.a-17.backup", "snapshot"}
}

// snapshotMessage is a snapshot of the counts on its own subject.
func snapshotMessage(counts ...string) event.Message {
	m := message(snapshotOf(counts...)...)
	m.Subject = "usage.v1.acme.msp-0042.snapshot"
	return m
}

// rejected is the letter of a figure that the partner refused.
func rejected(account, service, answer string) *event.Letter {
	return &event.Letter{
		Vendor: "acme", Organization: "msp-0042", EventID: "e-" + account, Source: "//billing", Key: "msp-0042/count/" + account + "/" + service, Answer: answer,
		Fault: event.Fault{Reason: event.ReasonRejected, Problem: "the partner answered 422 to attempt 1: " + answer},
	}
}

// badHeader is the letter of an event whose id is such a header.
func badHeader(id string) *event.Letter {
	m := message()
	m.Header = map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {id}}
	return lettersOf(m)[0]
}

// crashed is the letter of an event that made the worker panic.
func crashed(index int, stack string) *event.Letter {
	return &event.Letter{Original: message(), Fault: event.Fault{
		Reason:  event.ReasonMalformed,
		Problem: fmt.Sprintf("reading it crashed this program: index out of range [%d] with length 3\ngoroutine 7 [running]:\n%s", index, stack),
	}}
}

// Each row is one kind of fault, in letters that differ in everything else.
func TestLettersOfTheSameKindOfFaultHaveOneFingerprint(t *testing.T) {
	good := `{"accountId":"a","serviceId":"b","unitCount":1}`
	bad := `{"accountId":"c","serviceId":"d","unitCount":-1}`
	conflict := func(id, source string) *event.Letter {
		l := &event.Letter{EventID: id, Source: source, Original: message(`01J9Z3K8`, id)}
		l.Fault = event.Fault{Reason: event.ReasonConflict, Problem: fmt.Sprintf("event %q of %s: the same id", id, source), Want: "a new id for every event whose content differs"}
		return l
	}
	kinds := []struct {
		title   string
		letters []*event.Letter
	}{
		{
			"unitCount is …, which is negative: want a number ≥ 0 with at most 6 decimals, at most 1e12",
			[]*event.Letter{
				wrong(t, ":42", ":-42"), wrong(t, ":42", ":-3.5e-1", "a-17", "b-18", "01J9Z3K8", "x y"), inBatch(t, 0, ":42", ":-1"),
				inBatch(t, 7, ":42", ":-1", "2026-11-20T12:00:00Z", "2026-11-20T11:00:00+01:00"), wrong(t, ":42", ":-1"+strings.Repeat("0", 99)),
			},
		},
		{
			"unitCount is …, which is negative: want a number ≥ 0 with at most 6 decimals, at most 1e12", // of a snapshot
			[]*event.Letter{only(t, snapshotMessage(bad)), only(t, snapshotMessage(good, strings.Replace(bad, "-1", "-7", 1))), inBatch(t, 3, snapshotOf(good, good, bad)...)},
		},
		{
			"unitCount is …, which is more than …: want a number ≥ 0 with at most 6 decimals, at most 1e12",
			[]*event.Letter{wrong(t, ":42", ":1e13"), wrong(t, ":42", ":1000000000001"), wrong(t, ":42", ":1"+strings.Repeat("0", 99))},
		},
		{
			"unitCount is …, which has more than … decimals: want a number ≥ 0 with at most 6 decimals, at most 1e12",
			[]*event.Letter{wrong(t, ":42", ":0.1234567"), wrong(t, ":42", ":1e-7")},
		},
		{
			"unitCount is a string: want a number ≥ 0 with at most 6 decimals, at most 1e12",
			[]*event.Letter{wrong(t, ":42", `:"42"`), inBatch(t, 1, ":42", `:"forty two"`)},
		},
		{
			"unitCount is missing: want a number ≥ 0 with at most 6 decimals, at most 1e12",
			[]*event.Letter{wrong(t, "unitCount", "UNITCOUNT"), wrong(t, "unitCount", "count")},
		},
		{
			"time is …, which is not a date and time of RFC …: want a time such as 2026-11-20T12:00:00Z (RFC 3339, with T and zone, no leap second)",
			[]*event.Letter{wrong(t, "T12", " 12"), wrong(t, "2026-11-20T12:00:00Z", "yesterday"), wrong(t, "2026-11-20T12:00:00Z", `a \" \\\" b`), wrong(t, "2026-11-20T12:00:00Z", strings.Repeat("long ", 50))},
		},
		{
			"the subject has account …, the event has …: want subject …",
			[]*event.Letter{wrong(t, "a-17", "a-18"), wrong(t, "a-17", "my own account")},
		},
		{
			"the subject has organization …, the event has …: want subject …",
			[]*event.Letter{wrong(t, "msp-0042", "msp-0043"), inBatch(t, 5, "msp-0042", "x")},
		},
		{
			"time is …, stored at …: want a time at most 5m0s ahead",
			[]*event.Letter{wrong(t, "2026-11-20T12", "2027-11-20T12"), wrong(t, "2026-11-20T12:00:00Z", "2031-01-01T00:00:00.123456789+02:00")},
		},
		{
			"account … and service … are counted twice, first in entry …: want one figure for each account and service",
			[]*event.Letter{only(t, snapshotMessage(good, good)), only(t, snapshotMessage(strings.Replace(good, `"a"`, `"x"`, 1), good, good))},
		},
		{
			"accountId is … bytes long once escaped: want an id of 1 to 256 bytes once escaped for a subject",
			[]*event.Letter{wrong(t, "a-17", strings.Repeat("a", 257)), wrong(t, "a-17", strings.Repeat("ä", 200))},
		},
		{"type is …: want one of usage.count.v1, usage.snapshot.v1, catalog.account.v1, catalog.service.v1", []*event.Letter{wrong(t, "usage.count.v1", "usage.count.v2"), inBatch(t, 2, "usage.count.v1", "usage.count.v2")}},
		{"member … occurs twice: want each member once", []*event.Letter{wrong(t, `"id":`, `"id":"1","id":`), inBatch(t, 2, `"id":`, `"id":"2","id":`)}},
		{
			"not JSON: want , or } in an object at byte …: want a CloudEvents 1.0 JSON envelope, or an array of them",
			[]*event.Letter{wrong(t, ":42", ":42x"), wrong(t, `"specversion":"1.0"`, `"specversion":"1.0"x`)},
		},
		{"the batch has … events: want 1 to 1000 events", []*event.Letter{only(t, event.Message{Data: []byte("[]")}), only(t, event.Message{Data: []byte("[" + strings.Repeat("1,", 1000) + "1]")})}},
		{"header ce-id is …: the value is not UTF-8: want UTF-8, percent-encoded as the CloudEvents HTTP binding says", []*event.Letter{badHeader("%ff"), badHeader("%E4%20x")}},
		{"reading it crashed this program: index out of range […] with length …", []*event.Letter{crashed(5, "main.go:17"), crashed(12, "other.go:4")}},
		{"the same id and source came before with other content", []*event.Letter{conflict("1", "//a b"), conflict("x y", "//other")}},
		{"Account … has no service … (max … units)", []*event.Letter{
			rejected("miller", "backup", "Account miller has no service backup (max 5 units)"), rejected("a-17", "mail", "Account a-17 has no service 'mail' (max 1,000.5 units)"),
		}},
		{"unit count … doesn't fit, can't be", []*event.Letter{rejected("a", "b", "unit count 42 doesn't fit, can't be"), rejected("x", "y", "unit  count -7.5 doesn't fit, can't be")}},
		{"{title:Bad request,detail:the count … is too large,trace:…}", []*event.Letter{
			rejected("a", "b", `{"title":"Bad request","detail":"the count 17 is too large","trace":"ab-1"}`),
			rejected("a", "b", `{"title":"Bad request","detail":"the count 2e6 is too large","trace":"\"x\""}`),
		}},
		{"see … for the list", []*event.Letter{rejected("a", "b", "see https://help.example/errors for the list"), rejected("a", "b", "see //other.example for the list")}},
		{"the partner answered … to attempt …:", []*event.Letter{rejected("a", "b", ""), func() *event.Letter {
			l := rejected("a", "b", "")
			l.Fault.Problem = "the partner answered 400 to attempt 3: "
			return l
		}()}},
	}
	groups := map[string]string{}
	for i, kind := range kinds {
		name := fmt.Sprintf("%d: %s", i, kind.title)
		fingerprint := kind.letters[0].Fingerprint()
		if other, taken := groups[fingerprint]; taken {
			t.Errorf("%s\nhas the fingerprint of\n%s", name, other)
		}
		groups[fingerprint] = name
		for j, l := range kind.letters {
			if got := l.Fingerprint(); got != fingerprint || !regexp.MustCompile("^[0-9a-f]{8}$").MatchString(got) {
				t.Errorf("letter %d, %v: got fingerprint %s, want %s as letter 0 has", j, &l.Fault, got, fingerprint)
			}
			if got := l.Title(); got != kind.title {
				t.Errorf("letter %d, %v:\ngot  %s\nwant %s", j, &l.Fault, got, kind.title)
			}
		}
	}
}

func TestTheReasonIsPartOfTheFingerprint(t *testing.T) {
	spent := rejected("a", "b", "no such unit")
	spent.Fault.Reason = event.ReasonUndeliverable
	if a, b := rejected("a", "b", "no such unit").Fingerprint(), spent.Fingerprint(); a == b {
		t.Errorf("rejected and undeliverable with the same answer: got %s for both", a)
	}
}

func TestWhereTheProblemIsIsPartOfTheFingerprint(t *testing.T) {
	a, b := wrong(t, `"id":`, `"id":"1","id":`), wrong(t, `"time":`, `"time":"1","time":`)
	if a.Fingerprint() == b.Fingerprint() || a.Title() != b.Title() {
		t.Errorf("a member twice in two places: got %s and %s, want two fingerprints of one title %q", a.Fingerprint(), b.Fingerprint(), a.Title())
	}
}

// The event's type is found in every mode, so that the mend is the same for all
// letters of a group.
func TestTheTypeOfTheEventIsPartOfTheFingerprint(t *testing.T) {
	binary := func(typ string) *event.Letter {
		m := message()
		m.Header, m.Data = map[string][]string{"Ce-Specversion": {"1.0"}, "CE-TYPE": {typ}}, []byte("{")
		return only(t, m)
	}
	same, other := binary("usage.count.v1"), binary("catalog.account.v1")
	if same.Fingerprint() == other.Fingerprint() || same.Title() != other.Title() {
		t.Errorf("got %s and %s, want two fingerprints of one title %q", same.Fingerprint(), other.Fingerprint(), same.Title())
	}
	if a, b := wrong(t, `"id":"01J9Z3K8"`, `"id":""`), wrong(t, `"id":"01J9Z3K8"`, `"id":""`, `"usage.count.v1"`, `"catalog.service.v1"`, `"backup"`, `"s","name":"n"`); a.Fingerprint() == b.Fingerprint() {
		t.Errorf("an empty id of a count and of a service: got %s for both", a.Fingerprint())
	}
}
