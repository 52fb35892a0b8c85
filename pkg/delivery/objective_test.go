package delivery_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// within says how many figures were delivered, as the objective counts them, and
// how many of those within a minute.
func (r *rig) within(t *testing.T) (all, soon uint64) {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "usagebridge_ready_delivery_lag_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		for _, b := range h.GetBucket() {
			if b.GetUpperBound() == 60 {
				soon = b.GetCumulativeCount()
			}
		}
		return h.GetSampleCount(), soon
	}
	t.Fatal("there is no usagebridge_ready_delivery_lag_seconds")
	return 0, 0
}

// backfilled folds a figure of the past.
func (r *rig) backfilled(key ledger.Key) {
	e, _ := r.Entry(key)
	e, _, _ = e.Apply(ledger.Operation{
		Key: key, Version: ledger.Version{Time: time.Now().Add(-time.Hour).UnixNano(), Arrival: 1000}, Event: 1000, Backfill: "may",
	}, time.Now())
	r.put(e)
	r.lane.Wake(key)
}

func TestTheObjectiveCountsFromWhenTheIntegrationCouldTakeTheFigure(t *testing.T) {
	tests := map[string]struct {
		play      func(r *rig, keys []ledger.Key)
		all, soon uint64
	}{
		"at once": {func(r *rig, keys []ledger.Key) {
			r.set(1, keys...)
		}, 3, 3},
		"the partner was down for an hour": {func(r *rig, keys []ledger.Key) {
			r.script(func(delivery.Task) delivery.Answer { return delivery.Answer{Class: delivery.Unavailable, Status: 503} })
			r.set(1, keys...)
			after(time.Hour)
			r.script(nil)
		}, 3, 0},
		"its status allowed none for an hour": {func(r *rig, keys []ledger.Key) {
			r.lane.SetLink(delivery.Link{Partner: r.partner, Credentials: "c1"})
			r.script(always(delivery.NotReady))
			r.set(1, keys...)
			after(time.Hour)
			r.script(nil)
			r.lane.SetLink(r.good())
		}, 3, 3},
		"an operator paused it for an hour": {func(r *rig, keys []ledger.Key) {
			link := r.good()
			link.Paused = true
			r.lane.SetLink(link)
			r.set(1, keys...)
			after(time.Hour)
			r.lane.SetLink(r.good())
		}, 3, 3},
		"its credentials were bad for an hour": {func(r *rig, keys []ledger.Key) {
			r.script(always(delivery.Unauthorized))
			r.set(1, keys...)
			after(time.Hour)
			r.script(nil)
			link := r.good()
			link.Credentials = "c2"
			r.lane.SetLink(link)
		}, 3, 3},
		"they were not mapped for an hour": {func(r *rig, keys []ledger.Key) {
			r.script(always(delivery.NotFound))
			r.set(1, keys...)
			after(time.Hour)
			r.script(nil)
			r.lane.Probe(account(0), account(1))
		}, 0, 0},
		"their accounts were published an hour later": {func(r *rig, keys []ledger.Key) {
			late := []ledger.Key{ledger.CountKey(organization, "later", "backup"), ledger.CountKey(organization, "later", "other")}
			r.set(1, late...)
			after(time.Hour)
			r.set(1, ledger.AccountKey(organization, "later"), ledger.ServiceKey(organization, "other"))
			after(time.Minute)
			r.set(2, late...) // from now on they are as others are
			r.set(1, keys...)
		}, 5, 5},
		"a backfill": {func(r *rig, keys []ledger.Key) {
			for _, key := range keys {
				r.backfilled(key)
			}
		}, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			virtual(t, delivery.Config{ProbeMin: time.Minute, ProbeMax: time.Minute, RetryMax: time.Minute}, func(t *testing.T, r *rig) {
				keys := r.counts(3)
				after(time.Second)
				test.play(r, keys)
				after(30 * time.Minute)
				if states := r.states(); states[ledger.Synced] < 7 || len(states) > 1 {
					t.Fatalf("keys are %v, want all of them synced", states)
				}
				if all, soon := r.within(t); all != test.all || soon != test.soon {
					t.Errorf("counted %d figures, %d of them within a minute; want %d and %d", all, soon, test.all, test.soon)
				}
			})
		})
	}
}

func TestAFloodIsCountedOnce(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1, Flood: 3, Concurrency: 4}, func(t *testing.T, r *rig) {
		r.script(always(delivery.Rejected))
		r.set(1, r.counts(40)...)
		after(time.Hour)
		if got := testutil.CollectAndCount(r.registry, "usagebridge_integration_floods_total"); got != 1 {
			t.Fatalf("got %d series of floods, want one of the vendor", got)
		}
		families, err := r.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "usagebridge_integration_floods_total" {
				if got := f.GetMetric()[0].GetCounter().GetValue(); got != 1 {
					t.Errorf("counted %v floods while nobody paused the integration, want 1", got)
				}
			}
		}
	})
}

func TestAHoldIsAsOldAsItIsKnownToBe(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		long := time.Now().Add(-72 * time.Hour)
		for name, test := range map[string]struct {
			link delivery.Link
			want time.Time
		}{
			"a status of three days":             {delivery.Link{Partner: r.partner, StatusSince: long, HoldSince: time.Now()}, long},
			"no tokens that can be opened":       {delivery.Link{StatusSince: long}, long},
			"credentials refused three days ago": {delivery.Link{Partner: r.partner, Ready: true, Unauthorized: true, Credentials: "x", HoldSince: long}, long},
			"paused now":                         {delivery.Link{Partner: r.partner, Ready: true, Paused: true, StatusSince: long, HoldSince: long}, time.Now()},
		} {
			r.lane.SetLink(r.good())
			r.lane.SetLink(test.link)
			if got := r.lane.Status(); !got.Since.Equal(test.want) {
				t.Errorf("%s: held for %s since %v, want since %v", name, got.Hold, got.Since, test.want)
			}
		}
	})
}
