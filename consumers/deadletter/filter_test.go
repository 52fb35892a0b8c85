package deadletter

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// negative is a letter of the fold, about an event in a batch.
func negative() *event.Letter {
	return &event.Letter{
		Vendor: "acme", Organization: "msp/1",
		Fault: event.Fault{Reason: event.ReasonInvalid, Pointer: "/data/unitCount", Problem: "unitCount is -1", Want: "a number ≥ 0"},
		Original: event.Message{
			Stream: "EVENTS_acme", Sequence: 7, Data: []byte(`{"id":"e-1","source":"//s","data":{"accountId":"Größe"}}`),
		},
		Index: 3, Key: "usage.v1.acme.msp=2F1.count.a-17.backup", Answer: "No such unit", Parked: noon,
	}
}

func parse(t *testing.T, terms ...string) Filter {
	t.Helper()
	f, err := ParseFilter(terms, noon)
	if err != nil {
		t.Fatalf("%q: %v", terms, err)
	}
	return f
}

func TestAFilterChoosesByEveryPropertyOfALetter(t *testing.T) {
	l := negative()
	for _, test := range []struct{ is, isNot string }{
		{"vendor=acme", "vendor=acm"},
		{"organization=msp/1", "organization=msp"},
		{"integration=acme/msp/1", "integration=acme/msp"},
		{"reason=invalid", "reason=rejected"},
		{"fingerprint=" + l.Fingerprint(), "fingerprint=00000000"},
		{"key=count/a-17/backup", "key=count/a-17"},
		{"key=count/a-17/*", "key=count/a-18/*"},
		{"key=co*", "key=account/*"},
		{"event=e-1", "event=e-"},
		{"id=EVENTS_acme/7-3", "id=EVENTS_acme/7"},
		{"since=2026-11-20T12:00:00Z", "since=2026-11-20T12:00:00.000000001Z"},
		{"since=0s", "until=0s"},
		{"until=2026-11-20T13:00:00.1+01:00", "until=2026-11-20T13:00:00+01:00"},
		{"since=7d", "until=1h30m"},
		{"text=COUNT IS -", "text=count was"},
		{"text=no SUCH unit", "text=other unit"},
		{"text=E-1", "text=e-2"},
		{"text=a-17/BACK", "text=msp"},
		{`text="accountid":"GRÖ`, "text=a number"},
	} {
		if f := parse(t, test.is); !f.Match(l) {
			t.Errorf("%s does not choose %+v", test.is, l)
		}
		if f := parse(t, test.isNot); f.Match(l) {
			t.Errorf("%s chooses %+v", test.isNot, l)
		}
		half := parse(t, test.is)
		if half.EventID != "" {
			half.Reason = event.ReasonRejected
		} else {
			half.EventID = "e-2"
		}
		if half.Match(l) {
			t.Errorf("%s chooses a letter for which half of it holds", half)
		}
	}
	figure := *l
	figure.Figure = "0a1b2c3d"
	if f := parse(t, "id=EVENTS_acme/7-3_0a1b2c3d"); f.Match(l) || !f.Match(&figure) {
		t.Errorf("%s does not choose the one figure alone", f)
	}
	if f := parse(t, "id=EVENTS_acme/8", "id=EVENTS_acme/9"); f.Match(l) {
		t.Errorf("%s chooses a letter that has none of the ids", f)
	}
	if f := parse(t, "id=EVENTS_acme/8", "id=EVENTS_acme/7-3", "vendor=acme", "integration=acme/msp/1"); !f.Match(l) {
		t.Errorf("%s does not choose the letter that has one of the ids", f)
	}
	if f := parse(t); !f.Match(l) || !f.Match(&event.Letter{}) || !f.IsZero() {
		t.Errorf("the filter of no terms is %+v, want one that chooses everything", f)
	}
}

func TestABadFilterSaysEverythingThatIsWrong(t *testing.T) {
	for _, test := range []struct{ terms, want []string }{
		{[]string{"reason"}, []string{`"reason"`, "NAME=VALUE", "fingerprint"}},
		{[]string{"=x"}, []string{`"" is no name`, "vendor, integration, organization, reason"}},
		{[]string{"Reason=invalid"}, []string{`"Reason" is no name`, "want one of vendor"}},
		{[]string{"reason=nonsense"}, []string{"malformed, invalid, unknown_type"}},
		{[]string{"reason=invalid", "reason=invalid"}, []string{"reason is given more than once"}},
		{[]string{"vendor="}, []string{"the value is empty"}},
		{[]string{"vendor=" + strings.Repeat("v", 257)}, []string{"257 bytes"}},
		{[]string{"organization=\xff"}, []string{"not valid UTF-8"}},
		{[]string{"integration=acme"}, []string{"vendor/organization"}},
		{[]string{"integration=/msp"}, []string{"vendor/organization"}},
		{[]string{"integration=acme/"}, []string{"vendor/organization"}},
		{[]string{"integration=acme/msp", "vendor=other"}, []string{`vendor "other" and integration "acme/msp"`}},
		{[]string{"organization=x", "integration=acme/msp"}, []string{`organization "x" and integration "acme/msp"`}},
		{[]string{"fingerprint=ABCDEF01"}, []string{"8 hex digits"}},
		{[]string{"fingerprint=abcdef0"}, []string{"8 hex digits"}},
		{[]string{"key=msp-1/count/a/s"}, []string{"without the organization"}},
		{[]string{"key=msp-1/count/*"}, []string{"without the organization"}},
		{[]string{"key=count"}, []string{"kind/account/service"}},
		{[]string{"key=*"}, []string{"kind/account/service"}},
		{[]string{"id=4711"}, []string{"EVENTS_acme/4711-3"}},
		{[]string{"id=/4711"}, []string{"EVENTS_acme/4711-3"}},
		{[]string{"id=EVENTS_acme/4711-0"}, []string{"EVENTS_acme/4711-3"}},
		{[]string{"id=EVENTS_acme/4711_"}, []string{"EVENTS_acme/4711_0a1b2c3d"}},
		{[]string{"id=EVENTS_acme/4711_0A1B2C3D"}, []string{"EVENTS_acme/4711_0a1b2c3d"}},
		{[]string{"since=yesterday"}, []string{"2h or 7d"}},
		{[]string{"since=-2h"}, []string{"2h or 7d"}},
		{[]string{"since=-2d"}, []string{"2h or 7d"}},
		{[]string{"since=60000d"}, []string{"2h or 7d"}},
		{[]string{"until=1969-12-31T23:59:59Z"}, []string{"2h or 7d"}},
		{[]string{"since=1h", "until=1h"}, []string{"no letter is parked in between"}},
		{[]string{"since=1h", "until=2h"}, []string{"no letter is parked in between"}},
		{[]string{"reason=x", "colour=red", "text="}, []string{"reason=x", "colour", "the value is empty"}},
	} {
		f, err := ParseFilter(test.terms, noon)
		if err == nil || !f.IsZero() {
			t.Errorf("%q gives %+v, %v; want an error alone", test.terms, f, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q says %q, want %q in it", test.terms, err, want)
			}
		}
	}
}

// anyFilter draws a filter that ParseFilter can give.
func anyFilter(t *rapid.T) Filter {
	id := rapid.OneOf(rapid.StringN(0, 20, 60), rapid.SampledFrom([]string{"", `a "b"`, "a=b", " ", "\x1b[31m", "\\", `"`, "ä\u00a0"}))
	times := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "unset") {
			return time.Time{}
		}
		return time.Unix(0, rapid.Int64Min(1).Draw(t, "nanoseconds")).UTC()
	})
	f := Filter{
		Vendor: id.Draw(t, "vendor"), Organization: id.Draw(t, "organization"),
		Reason:      rapid.SampledFrom(append(event.Reasons(), "")).Draw(t, "reason"),
		Fingerprint: rapid.StringMatching(`([0-9a-f]{8})?`).Draw(t, "fingerprint"),
		EventID:     id.Draw(t, "event"),
		IDs:         rapid.SliceOfN(rapid.StringMatching(`[A-Za-z_]{1,8}/[1-9][0-9]{0,15}(-[1-9][0-9]{0,2})?(_[0-9a-f]{8})?`), 0, 4).Draw(t, "ids"),
		Since:       times.Draw(t, "since"), Until: times.Draw(t, "until"), Text: id.Draw(t, "text"),
	}
	if rapid.Bool().Draw(t, "keyed") {
		f.Key = "count/" + id.Draw(t, "account") + "/" + id.Draw(t, "service")
	}
	slices.Sort(f.IDs)
	if f.IDs = slices.Compact(f.IDs); len(f.IDs) == 0 {
		f.IDs = nil
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		f.Until = time.Time{}
	}
	return f
}

func TestAFilterIsReadBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := anyFilter(r)
		terms, err := SplitTerms(f.String())
		if err != nil || !slices.Equal(terms, f.Terms()) {
			r.Fatalf("%s is cut into %q, %v; want %q", f, terms, err, f.Terms())
		}
		if got, err := ParseFilter(terms, noon); err != nil || !reflect.DeepEqual(got, f) {
			r.Fatalf("%s is read as %+v, %v; want %+v", f, got, err, f)
		}
		stored, err := json.Marshal(f)
		if err != nil {
			r.Fatal(err)
		}
		var got Filter
		if err := json.Unmarshal(stored, &got); err != nil || !reflect.DeepEqual(got, f) {
			r.Fatalf("%s is loaded as %+v, %v; want %+v", stored, got, err, f)
		}
	})
	f := parse(t, "text=no such unit", "id=EVENTS_acme/9", "id=EVENTS_acme/10", "id=EVENTS_acme/9", "since=1h", "integration=acme/msp")
	want := `vendor=acme organization=msp id=EVENTS_acme/10 id=EVENTS_acme/9 since=2026-11-20T11:00:00Z text="no such unit"`
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTermsWithBadQuotesAreRefused(t *testing.T) {
	for _, text := range []string{`text="a"b`, `text="a"text="b"`} {
		if terms, err := SplitTerms(text); err == nil {
			t.Errorf("%s is cut into %q, want an error", text, terms)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{
		"", "vendor=acme integration=acme/msp-1", "reason=invalid since=2h until=7d", `text="a \"b\"" key=count/a/*`,
		"id=EVENTS_acme/1 id=EVENTS_acme/2-999", "since=2026-11-20T12:00:00.5+01:00", "fingerprint=0a1b2c3d event=x colour=red", `text="`, "=", "  ",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		terms, err := SplitTerms(text)
		if err != nil {
			return
		}
		first, err := ParseFilter(terms, noon)
		if err != nil {
			return
		}
		if terms, err = SplitTerms(first.String()); err != nil {
			t.Fatalf("%s cannot be cut: %v", first, err)
		}
		if again, err := ParseFilter(terms, noon); err != nil || !reflect.DeepEqual(again, first) {
			t.Fatalf("%q is read as %+v, written, and read as %+v, %v", text, first, again, err)
		}
	})
}

func TestAKeyHasOneSpellingWhoeverParkedTheLetter(t *testing.T) {
	for _, test := range []struct{ organization, key, want string }{
		{"msp-1", "usage.v1.acme.msp-1.count.a=2F1.s", "count/a/1/s"},
		{"msp-1", "usage.v1.acme.msp-1.snapshot", "snapshot"},
		{"msp-1", "catalog.v1.acme.msp-1.account.a", "account/a"},
		{"msp-1", "catalog.v1.acme.msp-1.service.s", "service/s"},
		{"msp-1", ledger.CountKey("msp-1", "a", "s").String(), "count/a/s"},
		{"count", ledger.CountKey("count", "a", "s").String(), "count/a/s"},
		{"a/b", ledger.ServiceKey("a/b", "s").String(), "service/s"},
		{"msp-1", "count/a/s", "count/a/s"},
		{"count", "count/a/s", "count/a/s"},
		{"msp-1", "", ""},
		{"", "strange", "strange"},
	} {
		if got := KeyOf(&event.Letter{Organization: test.organization, Key: test.key}); got != test.want {
			t.Errorf("%q of %q is %q, want %q", test.key, test.organization, got, test.want)
		}
	}
	for subject, want := range map[string]string{
		"usage.v1.acme.msp-1.count.a.s": "count/a/s",
		"usage.v1.acme.msp-1.batch":     "",
		"nonsense":                      "",
	} {
		if got := KeyOf(&event.Letter{Original: event.Message{Subject: subject}}); got != want {
			t.Errorf("a letter without a key that came on %s is about %q, want %q", subject, got, want)
		}
	}
}

func TestABrokenEventIsNamedAsFarAsItCanBe(t *testing.T) {
	for _, test := range []struct {
		letter     event.Letter
		id, source string
	}{
		{event.Letter{EventID: "e", Source: "//s", Original: event.Message{Data: []byte(`{"id":"other"}`)}}, "e", "//s"},
		{event.Letter{Original: event.Message{Data: []byte(`{"id":"e","source":7}`)}}, "e", ""},
		{event.Letter{Original: event.Message{Data: []byte(`{"id":["e"],"source":"//s"}`)}}, "", "//s"},
		{event.Letter{Original: event.Message{Header: map[string][]string{"CE-Id": {"e%201"}, "ce-source": {"%zz"}, "ce-type": {}}}}, "e 1", "%zz"},
		{event.Letter{Original: event.Message{Data: []byte(`{"id":`)}}, "", ""},
		{event.Letter{Original: event.Message{Data: []byte(`[]`)}}, "", ""},
	} {
		if id, source := Identity(&test.letter); id != test.id || source != test.source {
			t.Errorf("%+v is named %q of %q, want %q of %q", test.letter, id, source, test.id, test.source)
		}
	}
}
