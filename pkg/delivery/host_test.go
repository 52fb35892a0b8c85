package delivery_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// sharing runs a test in virtual time with n lanes on one host.
func sharing(t *testing.T, n int, h delivery.HostConfig, c delivery.Config, test func(t *testing.T, rigs []*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		host := delivery.NewHost(h)
		rigs := make([]*rig, n)
		for i := range rigs {
			rigs[i] = newRig(t, t.Errorf, c)
			link := rigs[i].good()
			link.Host, rigs[i].host = host, host
			rigs[i].lane.SetLink(link)
		}
		defer func() {
			for _, r := range rigs {
				r.stop(nil)
			}
		}()
		test(t, rigs)
	})
}

func TestAHundredThousandKeysDoNotStarveThree(t *testing.T) {
	sharing(t, 2, delivery.HostConfig{Rate: 10}, delivery.Config{Linger: -1}, func(t *testing.T, rigs []*rig) {
		large, small := rigs[0], rigs[1]
		large.set(5, large.counts(100_000)...)
		after(10 * time.Second)
		small.set(5, small.counts(3)...)
		began := time.Now()
		after(2 * time.Second)
		calls := small.calls()
		if len(calls) != 3 {
			t.Fatalf("%d calls of the small integration in two seconds, want its three", len(calls))
		}
		// Half of ten calls a second is one in 200 ms.
		if took := calls[2].at.Sub(began); took > 800*time.Millisecond {
			t.Errorf("its last call went after %v, want within four turns of 200 ms", took)
		}
	})
}

func TestAllLanesTogetherKeepTheLimitOfTheHost(t *testing.T) {
	for _, rate := range []float64{7, 40, 250} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			sharing(t, 5, delivery.HostConfig{Rate: rate}, delivery.Config{Linger: -1}, func(t *testing.T, rigs []*rig) {
				for _, r := range rigs {
					r.set(5, r.counts(int(rate)*3)...)
				}
				after(10 * time.Second)
				perSecond := map[int64]int{}
				total, least, most := 0, 1<<30, 0
				for _, r := range rigs {
					calls := r.calls()
					total += len(calls)
					least, most = min(least, len(calls)), max(most, len(calls))
					for _, c := range calls {
						perSecond[c.at.Unix()]++
					}
				}
				for second, n := range perSecond {
					if float64(n) > rate {
						t.Errorf("%d calls in second %d, want at most %v", n, second, rate)
					}
				}
				if float64(total) < 9*rate {
					t.Errorf("%d calls in ten seconds, want nearly %v", total, 10*rate)
				}
				if most-least > 2 {
					t.Errorf("between %d and %d calls for each integration, want equal shares", least, most)
				}
			})
		})
	}
}

func TestTurnsThatWereNotTakenAreNotSavedUp(t *testing.T) {
	const rate = 10
	sharing(t, 50, delivery.HostConfig{Rate: rate}, delivery.Config{Linger: -1}, func(t *testing.T, rigs []*rig) {
		for _, r := range rigs {
			r.set(5, r.counts(5)...)
		}
		after(time.Second / 2) // every lane waits for its turn now
		pause := func(paused bool) {
			for _, r := range rigs {
				link := r.good()
				link.Paused, link.Host = paused, r.host
				r.lane.SetLink(link)
			}
		}
		pause(true)
		after(10 * time.Minute)
		before := time.Now()
		pause(false)
		after(10 * time.Second)
		perSecond := map[time.Duration]int{}
		for _, r := range rigs {
			for _, c := range r.calls() {
				if c.at.After(before) {
					perSecond[c.at.Sub(before).Truncate(time.Second)]++
				}
			}
		}
		for second, n := range perSecond {
			if n > rate+1 { // one may be on the edge
				t.Errorf("%d calls %v after the pause, want %d a second", n, second, rate)
			}
		}
	})
}

func TestAHostThatIsDownIsTriedByOneLaneForAll(t *testing.T) {
	config := delivery.Config{Linger: -1, RetryMax: 10 * time.Second}
	sharing(t, 100, delivery.HostConfig{}, config, func(t *testing.T, rigs []*rig) {
		for _, r := range rigs {
			r.script(always(delivery.Unavailable))
			r.set(5, r.counts(50)...)
		}
		after(time.Minute)
		total := func() (n int) {
			for _, r := range rigs {
				n += len(r.calls())
			}
			return n
		}
		before := total()
		after(10 * time.Minute)
		if got := total() - before; got < 50 || got > 70 {
			t.Errorf("%d calls in ten minutes, want one every ten seconds from all lanes together", got)
		}
		if s := rigs[7].lane.Status(); !s.Down {
			t.Errorf("status: %+v, want it to say that the server is down", s)
		}
		for _, r := range rigs {
			r.script(nil)
		}
		after(time.Minute)
		for i, r := range rigs {
			if got := r.states()[ledger.Synced]; got != 101 {
				t.Fatalf("lane %d has %d keys synced a minute after the end, want 101", i, got)
			}
		}
	})
}

func TestCallsThatAreCutOffSayNothingOfTheHost(t *testing.T) {
	sharing(t, 40, delivery.HostConfig{}, delivery.Config{Linger: -1}, func(t *testing.T, rigs []*rig) {
		for _, r := range rigs[1:] {
			r.partner.took = time.Minute
			r.set(5, r.counts(3)...)
		}
		after(time.Second)
		for _, r := range rigs[1:] {
			r.stop(delivery.ErrFenced)
		}
		rigs[0].set(5, rigs[0].counts(1)...)
		after(time.Millisecond)
		rigs[0].wantCalls(t, "right behind calls that were cut off", 1)
	})
}

func TestOneIntegrationThatFailsDoesNotStopTheOthersOnItsHost(t *testing.T) {
	sharing(t, 2, delivery.HostConfig{}, delivery.Config{Linger: -1, Rate: 5}, func(t *testing.T, rigs []*rig) {
		rigs[0].script(always(delivery.Unavailable))
		rigs[0].set(5, rigs[0].counts(1000)...)
		rigs[1].set(5, rigs[1].counts(100)...)
		after(21 * time.Second)
		if got := rigs[1].states()[ledger.Synced]; got != 201 {
			t.Errorf("%d keys of the good integration are synced after the time that its own limit takes, want 201", got)
		}
	})
}
