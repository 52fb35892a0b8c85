package event_test

import (
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestASubjectIsReadAsItIsWritten(t *testing.T) {
	for text, want := range map[string]event.Subject{
		"usage.v1.acme.msp-0042.count.a-17.backup":    {Kind: event.KindCount, Vendor: "acme", Organization: "msp-0042", Account: "a-17", Service: "backup"},
		"usage.v1.acme.msp=2E1.snapshot":              {Kind: event.KindSnapshot, Vendor: "acme", Organization: "msp.1"},
		"usage.v1.acme.msp-0042.batch":                {Kind: event.KindBatch, Vendor: "acme", Organization: "msp-0042"},
		"catalog.v1.acme.msp-0042.account.a=2017":     {Kind: event.KindAccount, Vendor: "acme", Organization: "msp-0042", Account: "a 17"},
		"catalog.v1.acme.msp-0042.service.=E2=98=81":  {Kind: event.KindService, Vendor: "acme", Organization: "msp-0042", Service: "☁"},
		"usage.v1.snapshot.count.count.batch.account": {Kind: event.KindCount, Vendor: "snapshot", Organization: "count", Account: "batch", Service: "account"},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := event.ParseSubject(text)
			if err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			if got.String() != text {
				t.Errorf("written: got %s", got)
			}
			if err := got.Check(); err != nil {
				t.Errorf("check: %v", err)
			}
		})
	}
}

func TestASubjectOutsideOfTheGrammarIsRefusedWithWhatIsWrong(t *testing.T) {
	for _, test := range []struct{ name, subject, want string }{
		{"empty", "", "1 tokens"},
		{"too short", "usage.v1.acme.msp", "4 tokens"},
		{"another version", "usage.v2.acme.msp.snapshot", `"v2"`},
		{"a kind of the other family", "catalog.v1.acme.msp.count.a.s", "no channel"},
		{"an unknown kind", "usage.v1.acme.msp.Count.a.s", "no channel"},
		{"a token too many", "usage.v1.acme.msp.count.a.s.x", "8 tokens"},
		{"a token too few", "usage.v1.acme.msp.count.a", "6 tokens"},
		{"an empty token", "usage.v1.acme..snapshot", "token 4"},
		{"a wildcard", "usage.v1.acme.msp.count.*.s", "token 6"},
		{"a second spelling of an id", "usage.v1.acme.msp.count.a.=73", "token 7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := event.ParseSubject(test.subject)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v, want an error with %s", s, err, test.want)
			}
		})
	}
}

func TestASubjectWithAnIDThatCannotBeUsedSaysWhich(t *testing.T) {
	for _, test := range []struct {
		subject event.Subject
		want    string
	}{
		{event.Subject{Kind: event.KindSnapshot, Organization: "o"}, "vendor id"},
		{event.Subject{Kind: event.KindBatch, Vendor: "v"}, "organization id"},
		{event.Subject{Kind: event.KindAccount, Vendor: "v", Organization: "o"}, "account id"},
		{event.Subject{Kind: event.KindService, Vendor: "v", Organization: "o", Service: strings.Repeat("s", 257)}, "service id"},
		{event.Subject{Kind: event.KindCount, Vendor: "v", Organization: "o", Account: "a"}, "service id"},
		{event.Subject{Vendor: "v", Organization: "o"}, "kind"},
	} {
		if err := test.subject.Check(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want an error about the %s", test.subject, err, test.want)
		}
	}
}

func FuzzParseSubject(f *testing.F) {
	for _, seed := range []string{
		"usage.v1.acme.msp.count.a.s", "usage.v1.acme.msp.snapshot", "catalog.v1.a=20.o.service.=C3=A4", "usage.v1....batch", "a.b.c.d.e.f.g.h",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := event.ParseSubject(text)
		if err != nil {
			return
		}
		if got := s.String(); got != text {
			t.Errorf("%q is read as %+v, whose subject is %q", text, s, got)
		}
		if err := s.Check(); err != nil {
			t.Errorf("%q is read as %+v: %v", text, s, err)
		}
	})
}
