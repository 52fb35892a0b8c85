package event_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestAnIDHasOneEscapedForm(t *testing.T) {
	for _, test := range []struct{ name, id, token string }{
		{"plain bytes stand", "aZ09-_", "aZ09-_"},
		{"a blank and a slash", "acme corp/1", "acme=20corp=2F1"},
		{"a full stop", "a.b", "a=2Eb"},
		{"wildcards", "*>", "=2A=3E"},
		{"the escape itself", "a=20", "a=3D20"},
		{"a no-break space", "a\u00a0b", "a=C2=A0b"},
		{"an emoji", "🧾", "=F0=9F=A7=BE"},
		{"NUL", "\x00", "=00"},
		{"a leading dollar", "$SYS", "=24SYS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := event.Escape(test.id); got != test.token {
				t.Errorf("escape %q: got %s, want %s", test.id, got, test.token)
			}
			if got, err := event.Unescape(test.token); got != test.id || err != nil {
				t.Errorf("unescape %s: got %q, %v, want %q", test.token, got, err, test.id)
			}
			if got := event.EscapedLen(test.id); got != len(test.token) {
				t.Errorf("escaped length of %q: got %d, want %d", test.id, got, len(test.token))
			}
		})
	}
}

func TestATokenThatEscapeNeverWritesIsRefused(t *testing.T) {
	for name, token := range map[string]string{
		"empty":                  "",
		"lower-case digits":      "=c3=a4",
		"an escaped plain byte":  "=41",
		"an escape cut short":    "a=2",
		"an escape of one byte":  "a=",
		"no hex digits":          "=ZZ",
		"a byte to be escaped":   "a b",
		"the same beside escape": "=20 ",
		"bytes that no UTF-8 is": "=FF",
		"257 bytes":              strings.Repeat("a", 257),
		"a raw multi-byte char":  "ä",
	} {
		t.Run(name, func(t *testing.T) {
			if id, err := event.Unescape(token); err == nil {
				t.Errorf("unescape %q: got %q, want an error", token, id)
			}
		})
	}
}

func TestAnIDIsMeasuredOnceEscaped(t *testing.T) {
	for _, test := range []struct {
		name, id string
		ok       bool
	}{
		{"256 plain bytes", strings.Repeat("a", 256), true},
		{"257 plain bytes", strings.Repeat("a", 257), false},
		{"85 full stops and one byte", strings.Repeat(".", 85) + "a", true},
		{"85 full stops and two bytes", strings.Repeat(".", 85) + "aa", false},
		{"empty", "", false},
		{"not UTF-8", "\xff", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := event.CheckID(test.id); (err == nil) != test.ok {
				t.Errorf("got %v, want ok %t", err, test.ok)
			}
		})
	}
}

func FuzzUnescape(f *testing.F) {
	for _, seed := range []string{"a", "=20", "acme=20corp=2F1", "=c3", "=41", "=", "=F0=9F=A7=BE", "ä"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := event.Unescape(text); err == nil {
			if token := event.Escape(id); token != text {
				t.Errorf("token %q is read as %q, whose token is %q: want one spelling", text, id, token)
			}
			if err := event.CheckID(id); err != nil {
				t.Errorf("token %q is read as %q, which cannot be used: %v", text, id, err)
			}
		}
		if !utf8.ValidString(text) || event.CheckID(text) != nil {
			return
		}
		if id, err := event.Unescape(event.Escape(text)); id != text || err != nil {
			t.Errorf("id %q comes back as %q, %v", text, id, err)
		}
	})
}
