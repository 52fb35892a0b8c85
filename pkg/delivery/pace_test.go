package delivery

import (
	"testing"
	"time"
)

func TestWithoutALimitAThrottledPaceStartsFromWhatWentOut(t *testing.T) {
	p := newPace(0)
	now := time.Unix(1000, 0)
	for range 3000 { // 1,000 calls a second, for three seconds
		if wait := p.wait(now); wait != 0 {
			t.Fatalf("wait without a limit: got %v, want none", wait)
		}
		p.take(now)
		now = now.Add(time.Millisecond)
	}
	p.slow(now)
	if p.current < 499 || p.current > 501 {
		t.Errorf("pace after a 429 at 1,000 calls a second: got %v, want half of them", p.current)
	}
	for range 5 {
		now = now.Add(paceRecover)
		p.recover(now)
	}
	if p.current != 0 {
		t.Errorf("pace after five quiet spells: got %v, want no limit again", p.current)
	}
}

func TestWithoutALimitAThrottledPaceIsNotSlowedToACrawl(t *testing.T) {
	p := newPace(0)
	p.slow(time.Unix(1000, 0))
	if p.current != paceUnknown/2 {
		t.Errorf("pace after a 429 to the first call: got %v, want %v", p.current, paceUnknown/2)
	}
}
