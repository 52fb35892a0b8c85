package worker

import (
	"testing"
	"time"
)

func TestTenureEndsByWhicheverClockSaysSoFirst(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name    string
		renewed time.Time
		want    time.Duration
	}{
		{"both clocks", now.Add(-4 * time.Second), 4 * time.Second},
		// A time without a monotonic reading is compared by the wall clock.
		{"the wall clock", now.Round(0).Add(-time.Hour), time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newTenure(c.renewed, 15*time.Second, 10*time.Second).age(now); got != c.want {
				t.Errorf("age = %v, want %v", got, c.want)
			}
		})
	}
}

func TestCallsEndWithinTheTenureAndTheTenureWithinTheLease(t *testing.T) {
	const ttl = 15 * time.Second
	for _, c := range []struct{ call, sending time.Duration }{
		{time.Second, 14 * time.Second},
		{10 * time.Second, 5 * time.Second},
		{12 * time.Second, 3 * time.Second},
		{14 * time.Second, 3 * time.Second}, // up to the next renewal at least
	} {
		got := newTenure(time.Now(), ttl, c.call)
		if got.sending != c.sending || got.writing != 12*time.Second {
			t.Errorf("calls of %v: sending %v, writing %v; want %v, 12s", c.call, got.sending, got.writing, c.sending)
		}
	}
}
