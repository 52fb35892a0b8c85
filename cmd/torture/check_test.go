//go:build unix

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// handMade is evidence of one key with three figures, a broken event and one
// that the partner refused, in which everything is right.
func handMade(t *testing.T) *evidence {
	t.Helper()
	k := key{"m", "a", "s"}
	e := &evidence{
		log: logOf(t,
			counted("1", 1, "7"), counted("2", 2, "5"), counted("3", 3, "9"), counted("4", 4, "-1"),
			counted("5", 1, "11", ofService(serviceRefused)), counted("6", 0, "-2"), counted("6", 0, "2", replayOf("6"))),
		letters:   []letter{{place{sequence: 4}, "invalid"}, {place{sequence: 5}, "rejected"}},
		values:    map[key]string{k: "9"},
		gates:     &gates{},
		calm:      func(time.Time, time.Time) bool { return true },
		takeovers: map[string][]time.Time{"m": {time.Time{}}},
	}
	e.histories = map[key][]sandbox.Accepted{k: taken("2", "7", "9", "9")}
	return e
}

func taken(values ...string) (all []sandbox.Accepted) {
	for i, v := range values {
		all = append(all, sandbox.Accepted{Sequence: uint64(i + 1), Value: v})
	}
	return all
}

func TestGoodEvidenceIsGood(t *testing.T) {
	e := handMade(t)
	if got := e.judge(e.model()); len(got) > 0 {
		t.Errorf("violations: got %v, want none", got)
	}
}

func TestTheCheckerFindsWhatIsWrong(t *testing.T) {
	k := key{"m", "a", "s"}
	tests := map[string]struct {
		spoil func(e *evidence)
		want  string // part of the first violation
	}{
		"an older figure in the end": {func(e *evidence) { e.values[k], e.histories[k] = "5", taken("7", "5") }, "m/a/s: the partner has 5, want 9"},
		"nothing in the end":         {func(e *evidence) { delete(e.values, k) }, "the partner has nothing, want 9"},
		"a figure of nobody":         {func(e *evidence) { e.values[key{"m", "x", "s"}] = "3" }, "m/x/s: the partner has 3, and nobody published"},
		"what is refused was taken":  {func(e *evidence) { e.values[key{"m", "a", serviceRefused}] = "11" }, "the partner has 11, want nothing"},
		"an older figure on the way": {func(e *evidence) { e.histories[k] = taken("7", "5", "7", "9") }, "took 7 (tape 3): an older figure after 5"},
		"a value of nobody":          {func(e *evidence) { e.histories[k] = taken("7", "3", "9") }, "took 3 (tape 2): a figure that nobody published"},
		"no letter":                  {func(e *evidence) { e.letters = e.letters[1:] }, "event at 4 should be dead of invalid"},
		"two letters":                {func(e *evidence) { e.letters = append(e.letters, e.letters[0]) }, "event at 4 has 2 letters"},
		"a letter of a good event":   {func(e *evidence) { e.letters = append(e.letters, letter{place{sequence: 1}, "invalid"}) }, "event at 1 is dead of invalid, and nothing"},
		"a letter of another reason": {func(e *evidence) { e.letters[0].reason = "too_old" }, "event at 4 is dead of too_old, want invalid"},
		"a letter and a replay":      {func(e *evidence) { e.letters = append(e.letters, letter{place{sequence: 6}, "invalid"}) }, "event at 6 has 1 letters and 1 replays"},
		"two replays":                {func(e *evidence) { e.log = append(e.log, stored{8, at, e.log[6].subject, e.log[6].body}) }, "event at 6 has 0 letters and 2 replays"},
		"no letter of a refusal":     {func(e *evidence) { e.letters = e.letters[:1] }, "and there is no letter of it"},
		"an event that is lost":      {func(e *evidence) { e.acked = []acked{{9, "x"}} }, "acknowledged x at 9"},
		"too many calls":             {func(e *evidence) { calls(e, partnerRate*2, time.Millisecond) }, "calls within a second"},
		"calls while paused": {func(e *evidence) {
			calls(e, 100, 100*time.Millisecond)
			e.gates.paused("m", at, at.Add(learning+time.Second))
		}, "calls while it was paused"},
		"too many probes": {func(e *evidence) {
			calls(e, 60, 100*time.Millisecond)
			e.gates.mapped("m", at.Add(6*time.Second))
		}, "calls while it was not ready"},
		"a call too soon": {func(e *evidence) {
			calls(e, 2, 700*time.Millisecond)
			e.throttled = []arrival{{at, "m", ""}}
		}, "told at 12:00:00.000 to wait for a second"},
		"calls with bad tokens": {func(e *evidence) {
			calls(e, 2*concurrency+1, 100*time.Millisecond)
			e.gates.locked("m", at, at.Add(time.Hour))
		}, "9 calls while it was unauthorized until"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := handMade(t)
			test.spoil(e)
			got := e.judge(e.model())
			if len(got) == 0 || !strings.Contains(got[0].String(), test.want) {
				t.Errorf("violations: got %v, want one with %q", got, test.want)
			}
		})
	}
}

func TestTheCheckerBearsWhatIsRight(t *testing.T) {
	k := key{"m", "a", "s"}
	tests := map[string]func(e *evidence){
		"one figure twice":   func(e *evidence) { e.histories[k] = taken("7", "7", "9", "9") },
		"calls at the limit": func(e *evidence) { calls(e, 10*partnerRate, time.Second/partnerRate) },
		"calls before and after a gate": func(e *evidence) {
			calls(e, 2, time.Hour)
			e.gates.paused("m", at.Add(time.Minute), at.Add(59*time.Minute))
		},
		"a call after the wait": func(e *evidence) {
			calls(e, 2, time.Second)
			e.throttled = []arrival{{at, "m", ""}}
		},
		"a call too soon of one who was cut off": func(e *evidence) {
			calls(e, 2, 700*time.Millisecond)
			e.throttled, e.calm = []arrival{{at, "m", ""}}, func(time.Time, time.Time) bool { return false }
		},
		"as many probes as are due": func(e *evidence) {
			calls(e, openings(10*time.Second), 900*time.Millisecond)
			e.gates.mapped("m", at.Add(10*time.Second))
		},
		"probes that got no usable answer and are made again": func(e *evidence) {
			calls(e, openings(time.Second)+concurrency+3, 50*time.Millisecond)
			e.gates.mapped("m", at.Add(time.Second))
			e.unanswered = []arrival{{at, "m", ""}, {at, "m", ""}, {at, "m", ""}}
		},
		"a call that was under way": func(e *evidence) {
			calls(e, 1, 0)
			e.gates.paused("m", at.Add(-learning/2), at.Add(time.Hour))
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			e := handMade(t)
			change(e)
			if got := e.judge(e.model()); len(got) > 0 {
				t.Errorf("violations: got %v, want none", got)
			}
		})
	}
}

func calls(e *evidence, n int, apart time.Duration) {
	for i := range n {
		e.arrivals = append(e.arrivals, arrival{at.Add(time.Duration(i) * apart), "m", "POST /service/s/count"})
	}
}

// Zeros of several snapshots look alike: the oldest that is in order is meant.
func TestZerosAreTakenInAnyOrderThatIsPossible(t *testing.T) {
	k := key{"m", "a", "s"}
	e := &evidence{
		log: logOf(t, counted("1", 1, "7"), snapshotPart("2", 2, 1, 1), counted("3", 3, "9"),
			snapshotPart("4", 4, 1, 1, snapshotLine{"a", "t", "1"})),
		gates: &gates{}, values: map[key]string{},
	}
	last := e.log[3].body
	e.log[3].body = []byte(strings.Replace(string(last), `"snapshotId":"month"`, `"snapshotId":"next"`, 1))
	for _, test := range []struct {
		history []string
		good    bool
	}{
		{[]string{"7", "0", "9", "0"}, true},
		{[]string{"0", "0"}, true},
		{[]string{"7", "0", "0", "9"}, true},
		{[]string{"7", "9", "0", "9"}, false},
		{[]string{"0", "7"}, false},
	} {
		e.histories = map[key][]sandbox.Accepted{k: taken(test.history...)}
		if got := e.checkOrder(e.model()); len(got) == 0 != test.good {
			t.Errorf("%v: got %v, want good: %t", test.history, got, test.good)
		}
	}
}
