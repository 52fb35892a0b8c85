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
		{14 * time.Second, time.Second},
		{20 * time.Second, -5 * time.Second}, // never
	} {
		got := newTenure(time.Now(), ttl, c.call)
		if got.sending != c.sending || got.writing != 12*time.Second {
			t.Errorf("calls of %v: sending %v, writing %v; want %v, 12s", c.call, got.sending, got.writing, c.sending)
		}
	}
}

func TestThereIsAlwaysTimeToBeginACall(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 2 * time.Second, 15 * time.Second, time.Minute} {
		for share := 1; share <= 8; share++ {
			call := ttl * time.Duration(share) / 10
			if err := CheckTimes(call, ttl); err != nil {
				t.Errorf("calls of %v, leases of %v: got %v, want no error", call, ttl, err)
			}
			now := time.Now()
			every, sending := renewalInterval(ttl, call), newTenure(now, ttl, call).sending
			if sending < 2*every || every > ttl/renewalsPerLease {
				t.Errorf("calls of %v, leases of %v: renewed every %v and sending for %v: want at least two renewals meanwhile, and %d in all",
					call, ttl, every, sending, renewalsPerLease)
			}
		}
	}
}

func TestACallThatOutlivesItsLeaseIsRefused(t *testing.T) {
	err := CheckTimes(10*time.Second, 2*time.Second)
	const want = "calls may take 10s, but a lease lasts 2s: want calls of at most 1.6s, or leases of at least 12.5s"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
