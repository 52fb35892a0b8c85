package worker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLanesWaitForAFoldThatLagsButNoLongerThanTheyMay(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := newLag(5 * time.Second)
	for i, c := range []struct {
		after  time.Duration
		behind bool
		waits  bool
	}{
		{0, false, false},
		{time.Hour, true, true},
		{4 * time.Second, true, true},
		{999 * time.Millisecond, true, true},
		{time.Millisecond, true, false}, // five seconds are over
		{time.Minute, true, false},
		{time.Second, false, false},
		{2 * time.Second, true, true}, // two seconds are saved up
		{1999 * time.Millisecond, true, true},
		{time.Millisecond, true, false},
		{0, false, false},
		{time.Hour, true, true},
		{4999 * time.Millisecond, true, true},
		{0, false, false}, // it has caught up
	} {
		now = now.Add(c.after)
		l.note(c.behind, now)
		if got := l.waits(now); got != c.waits {
			t.Errorf("step %d: the lanes wait: got %t, want %t", i, got, c.waits)
		}
	}
}

func TestLanesRunAtLeastAsLongAsTheyWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := time.Duration(rapid.IntRange(0, 100).Draw(t, "most"))
		l, now := newLag(most), time.Unix(0, 0)
		var waited, ran time.Duration
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			l.note(rapid.Bool().Draw(t, "behind"), now)
			if l.waits(now) {
				waited++
			} else {
				ran++
			}
			if waited > ran+most {
				t.Fatalf("after %v the lanes have waited for %v and run for %v; want at most %v more of waiting", now, waited, ran, most)
			}
			now = now.Add(1)
		}
	})
}
