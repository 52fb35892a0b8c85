package delivery_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// crowd is many lanes on one host, some of them of integrations that fail in
// the ways that last.
type crowd struct {
	good      []*rig
	unready   []*rig // never; every other one has a status that claims to be ready
	refused   []*rig // their tokens
	throttled []*rig // whatever they do
}

// sizes say how many integrations of each kind a crowd has, and how many counts
// each of them: the first good one has the largest number.
type sizes struct{ good, unready, refused, throttled, counts, largest int }

// thousand is the crowd that the product must bear.
var thousand = sizes{good: 880, unready: 100, refused: 10, throttled: 10}

func (s sizes) onlyGood() sizes { return sizes{good: s.good} }

const (
	crowdConcurrency = 4
	crowdRetryMin    = time.Second
	crowdRetryMax    = 5 * time.Minute
	crowdProbeMin    = 15 * time.Minute
	crowdProbeMax    = 24 * time.Hour
	crowdTook        = 5 * time.Millisecond // each call
)

// crowded runs a test in virtual time with a crowd that shares a host.
func crowded(t *testing.T, n sizes, h delivery.HostConfig, test func(t *testing.T, c *crowd)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{
			good:      join(t, n.good, n.counts, nil),
			unready:   join(t, n.unready, n.counts, always(delivery.NotReady)),
			refused:   join(t, n.refused, n.counts, always(delivery.Unauthorized)),
			throttled: join(t, n.throttled, n.counts, always(delivery.Throttled)),
		}
		defer func() {
			for _, r := range c.all() {
				r.stop(nil)
			}
		}()
		c.good[0].set(5, c.good[0].counts(n.largest)...)
		host := delivery.NewHost(h)
		for i, r := range c.all() {
			link := r.good()
			link.Host = host
			link.Ready = !slices.Contains(c.unready, r) || i%2 == 0
			r.lane.SetLink(link)
		}
		test(t, c)
	})
}

// join makes integrations that are all answered alike.
func join(t *testing.T, n, counts int, answer func(delivery.Task) delivery.Answer) []*rig {
	t.Helper()
	rigs := make([]*rig, n)
	for i := range rigs {
		rigs[i] = newRig(t, t.Errorf, delivery.Config{
			Linger: -1, Concurrency: crowdConcurrency,
			RetryMin: crowdRetryMin, RetryMax: crowdRetryMax, ProbeMin: crowdProbeMin, ProbeMax: crowdProbeMax,
		})
		// Recording takes its time, too. Timers that are due at once would run on
		// many threads, which the race detector does not survive in a bubble.
		rigs[i].took, rigs[i].delay = crowdTook, time.Millisecond
		rigs[i].script(answer)
		rigs[i].set(5, rigs[i].counts(counts)...)
	}
	return rigs
}

func (c *crowd) all() []*rig { return slices.Concat(c.good, c.unready, c.refused, c.throttled) }

// synced is how long after began the integrations were synced; all must be by
// now.
func synced(t *testing.T, began time.Time, rigs []*rig) (took time.Duration) {
	t.Helper()
	for i, r := range rigs {
		states := r.states()
		if len(states) != 1 || states[ledger.Synced] == 0 {
			t.Fatalf("good integration %d: got %v, want everything synced", i, states)
		}
		calls := r.calls()
		took = max(took, calls[len(calls)-1].at.Sub(began)+crowdTook)
	}
	return took
}

// pass is how long the good ones of a crowd needed: all of them, and those that
// have no more than a dozen counts.
type pass struct{ all, small time.Duration }

func TestGoodIntegrationsAreSyncedInACrowdAsFastAsAlone(t *testing.T) {
	for name, test := range map[string]struct {
		host            delivery.HostConfig
		counts, largest int
		within          time.Duration
	}{
		"with a limit of the host":    {delivery.HostConfig{Rate: 400}, 12, 5_000, 2 * time.Minute},
		"without a limit of the host": {delivery.HostConfig{}, 6, 1_000, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var passes [2]pass // alone, in the crowd
			for i, n := range []sizes{thousand.onlyGood(), thousand} {
				n.counts, n.largest = test.counts, test.largest
				crowded(t, n, test.host, func(t *testing.T, c *crowd) {
					began := time.Now()
					after(test.within)
					passes[i] = pass{synced(t, began, c.good), synced(t, began, c.good[1:])}
					after(time.Hour - test.within)
					c.checkBudgets(t, time.Hour, test.host)
				})
			}
			alone, inCrowd := passes[0], passes[1]
			for what, took := range map[string][2]time.Duration{"all": {alone.all, inCrowd.all}, "small": {alone.small, inCrowd.small}} {
				if ratio := took[0].Seconds() / took[1].Seconds(); !(ratio >= 0.9) {
					t.Errorf("%s good ones: synced after %v alone and %v in the crowd, ratio %.3f, want at least 0.9", what, took[0], took[1], ratio)
				}
			}
		})
	}
}

func TestBadIntegrationsKeepToTheirBudgetForAMonthAndThenLoseNothing(t *testing.T) {
	const month = 30 * 24 * time.Hour
	n := sizes{good: 20, unready: 100, refused: 10, throttled: 1, counts: 12, largest: 12}
	host := delivery.HostConfig{Rate: 400}
	crowded(t, n, host, func(t *testing.T, c *crowd) {
		after(month)
		c.checkBudgets(t, month, host)
		for _, r := range c.all() {
			r.script(nil)
		}
		before := len(c.refused[0].calls())
		after(crowdProbeMax)
		c.refused[0].wantCalls(t, "a day after the partner would take the old tokens again", before)
		for _, r := range c.refused {
			link := r.good()
			link.Credentials = "c2"
			r.lane.SetLink(link)
		}
		after(time.Minute)
		synced(t, time.Now(), c.all())
	})
}

// checkBudgets checks how often the bad ones were called within so long.
func (c *crowd) checkBudgets(t *testing.T, within time.Duration, h delivery.HostConfig) {
	t.Helper()
	// What is under way when the first answer comes. With a limit that is one
	// call, for the next turn comes later, but for whoever meets an idle host.
	refused := 0
	for i, r := range c.refused {
		refused += len(r.calls())
		if got := len(r.calls()); got < 1 || got > crowdConcurrency {
			t.Errorf("refused %d: %d calls in %v, want 1 to %d", i, got, within, crowdConcurrency)
		}
	}
	if most := len(c.refused) + crowdConcurrency - 1; h.Rate > 0 && refused > most {
		t.Errorf("refused: %d calls in all, want at most %d", refused, most)
	}
	// A probe may be due in the very last moment, and still wait for its turn.
	planned := probes(within)
	for i, r := range c.unready {
		if got := len(r.calls()); got < planned-1 || got > planned+crowdConcurrency {
			t.Errorf("never ready %d: %d calls in %v, want %d probes and at most %d calls before", i, got, within, planned, crowdConcurrency)
		}
	}
	if most := planned + crowdConcurrency; within <= time.Hour && most > 6 || most >= 100 {
		t.Errorf("never ready: the plan allows %d calls in %v, want a handful in an hour and fewer than 100 in a month", most, within)
	}
	least, most := openings(within, 1.5, 5*time.Second), openings(within, 0.5, 0)+crowdConcurrency
	for i, r := range c.throttled {
		calls := r.calls()
		if got := len(calls); got < least || got > most {
			t.Errorf("throttled %d: %d calls in %v, want %d to %d", i, got, within, least, most)
		}
		first := slices.IndexFunc(calls, func(s sent) bool { return s.at.Sub(calls[0].at) >= crowdTook }) // to meet a closed gate
		for n, gap := range gaps(calls[max(first, 1)-1:]) {
			// Half of a wait that doubles: what jitter leaves of it at least.
			if least := min(crowdRetryMin<<min(n, 30), crowdRetryMax) / 2; gap < least {
				t.Errorf("throttled %d: call %d came %v after the one before, want at least %v", i, first+n, gap, least)
			}
		}
	}
}

// probes is how many probes of a hold are due within d: the first one after
// the least interval, which then doubles up to the most.
func probes(d time.Duration) (n int) {
	for interval := crowdProbeMin; d >= interval; interval = min(2*interval, crowdProbeMax) {
		d -= interval
		n++
	}
	return n
}

// openings is how often a gate opens within d while every call is answered
// 429 without a word on when to come back: the wait doubles from RetryMin to
// RetryMax, and is taken times a factor between 0.5 and 1.5. Each time one
// call tries: the pace has halved with every 429 so far, and a second one
// would go after the answer to the first. A turn is how long a call may have
// to wait for its turn once the gate is open.
func openings(d time.Duration, factor float64, turn time.Duration) (n int) {
	wait := crowdRetryMin
	for {
		if d -= time.Duration(float64(wait)*factor) + turn; d < 0 {
			return n
		}
		n++
		wait = min(2*wait, crowdRetryMax)
	}
}
