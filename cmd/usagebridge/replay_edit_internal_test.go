package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
)

func TestAnEditIsShownAsTheLinesThatDiffer(t *testing.T) {
	tests := []struct {
		name, before, after string
		want                []string
	}{
		{"a value", `{"a":1,"b":-2,"c":3}`, `{"a":1,"b":2,"c":3}`, []string{`-   "b": -2,`, `+   "b": 2,`}},
		{"nothing but blanks", `{"a":1}`, `{ "a" : 1 }`, nil},
		{"two places", `{"a":1,"b":2,"c":3}`, `{"a":0,"b":2,"c":0}`, []string{`-   "a": 1,`, `+   "a": 0,`, `-   "c": 3`, `+   "c": 0`}},
		{"no JSON before", "\x1b[31mnonsense", `{}`, []string{"- �[31mnonsense", "+ {}"}},
		{"nothing before", "", `7`, []string{"+ 7"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var before []byte
			if tt.before != "" {
				before = []byte(tt.before)
			}
			if got := diffDocuments(before, []byte(tt.after)); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
	if got := diffDocuments([]byte("{}"), nil); got != nil {
		t.Errorf("without an edit: %q, want nothing", got)
	}
	long := diffDocuments([]byte(strings.Repeat("a\n", 2000)), []byte(strings.Repeat("b\n", 2000)))
	if len(long) != maxDiff+1 || long[maxDiff] != "… and 3960 more lines" {
		t.Errorf("a long one has %d lines and ends with %q, want %d and how many more", len(long), long[len(long)-1], maxDiff+1)
	}
}

func TestTheLinesThatDifferMakeOneTextOutOfTheOther(t *testing.T) {
	lines := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 12)
	rapid.Check(t, func(t *rapid.T) {
		a, b := lines.Draw(t, "a"), lines.Draw(t, "b")
		diff := diffLines(a, b)
		surplus := map[string]int{} // of each line in b over a
		for _, line := range b {
			surplus[line]++
		}
		for _, line := range a {
			surplus[line]--
		}
		for _, line := range diff {
			sign, text, _ := strings.Cut(line, " ")
			surplus[text] -= map[string]int{"+": 1, "-": -1}[sign]
		}
		for line, n := range surplus {
			if n != 0 {
				t.Fatalf("%q to %q: %q leaves %d of %q too few", a, b, diff, n, line)
			}
		}
		if slices.Equal(a, b) != (len(diff) == 0) {
			t.Fatalf("%q to %q: %q", a, b, diff)
		}
	})
}

func TestADurationIsSaidRoughly(t *testing.T) {
	for seconds, want := range map[float64]string{0: "a second", 1: "1 second", 90: "90 seconds", 150: "3 minutes", 5000: "83 minutes", 7200: "2.0 hours"} {
		if got := roughly(time.Duration(seconds * float64(time.Second))); got != want {
			t.Errorf("%v s: %q, want %q", seconds, got, want)
		}
	}
}

func TestATextIsCutAtTheBorderOfACharacter(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc…"},
		{"aäb", 2, "a…"},
		{"aäb", 3, "aä…"},
		{"🧾🧾", 7, "🧾…"},
		{"🧾🧾", 3, "…"},
		{"", 0, ""},
		{"a", 0, "…"},
	} {
		if got := cut(tt.text, tt.n); got != tt.want {
			t.Errorf("%q, at most %d bytes: got %q, want %q", tt.text, tt.n, got, tt.want)
		}
	}
}

func TestWhatIsInTheWayOfALetterIsSaidOnce(t *testing.T) {
	for _, tt := range []struct {
		obstacle deadletter.Obstacle
		problem  string
		want     string
	}{
		{"too_far_ahead", "too_far_ahead at /time: it is ahead", "too_far_ahead at /time: it is ahead"},
		{"malformed", "malformed: not JSON", "malformed: not JSON"},
		{"invalid", "the edited event: invalid at /id: it is empty", "the edited event: invalid at /id: it is empty"},
		{"edit_fails", "it cannot be edited in parts: malformed: not JSON", "edit_fails: it cannot be edited in parts: malformed: not JSON"},
		{"invalid", "it has 2 events: want one", "invalid: it has 2 events: want one"},
	} {
		if got := whyLeft(&deadletter.Specimen{Obstacle: tt.obstacle, Problem: tt.problem}); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
