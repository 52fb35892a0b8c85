package status_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/status"
)

func TestTheStatusIsReadOutOfTheEndOfAMessage(t *testing.T) {
	tests := map[string]status.Status{
		"integration is not ready: mapping":   status.Mapping,
		"Integration is not ready: INACTIVE.": status.Inactive,
		"mapping is not done":                 "",
		"integration is not ready: archived":  "",
		"other":                               "",
		"":                                    "",
		"…":                                   "",
	}
	for message, want := range tests {
		if got := status.FromMessage(message); got != want {
			t.Errorf("%q: got %q, want %q", message, got, want)
		}
	}
}

func TestAStatusIsHeardInPlainLowerCase(t *testing.T) {
	tests := map[string]status.Status{
		"connected":                     status.Connected,
		" Mapping\r\n":                  status.Mapping,
		"Ready for mapping":             "ready for mapping",
		"on\x00 ho\u202eld":             "on hold",
		"\xffpending":                   status.Pending,
		strings.Repeat("x", 65):         status.Status(strings.Repeat("x", 64)),
		strings.Repeat("x", 63) + "é":   status.Status(strings.Repeat("x", 63)),
		strings.Repeat("x", 63) + " yz": status.Status(strings.Repeat("x", 63)),
		"\t \n":                         "",
		"":                              "",
	}
	for word, want := range tests {
		if got := status.Heard(word); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestWhateverIsHeardIsShortAndPrintableAndStaysTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "word")
		got := status.Heard(word)
		if len(got) > 64 || !utf8.ValidString(string(got)) || strings.ContainsFunc(string(got), unicode.IsControl) {
			t.Fatalf("%q: got %q, want at most 64 printable bytes", word, got)
		}
		if again := status.Heard(string(got)); again != got {
			t.Fatalf("%q: heard again got %q, want %q as before", word, again, got)
		}
	})
}

func TestOnlyTheFourStatusesAreParsed(t *testing.T) {
	for _, s := range status.Statuses() {
		if got, ok := status.Parse(string(s)); got != s || !ok {
			t.Errorf("%s: got %q %t, want itself", s, got, ok)
		}
	}
	for _, word := range []string{"", "other", "active", "Mapping"} {
		if got, ok := status.Parse(word); got != "" || ok {
			t.Errorf("%q: got %q %t, want nothing", word, got, ok)
		}
	}
}

func TestOnlyPendingAndConnectedAreReady(t *testing.T) {
	for s, want := range map[status.Status]bool{
		status.Inactive: false, status.Mapping: false, status.Pending: true, status.Connected: true, "active": false, "": false,
	} {
		if got := s.Ready(); got != want {
			t.Errorf("%q: got ready %t, want %t", s, got, want)
		}
	}
}
