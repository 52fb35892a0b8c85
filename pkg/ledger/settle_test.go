package ledger_test

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestAFigureDeliveredWhileTheCallWasUnderWayIsSentAgain(t *testing.T) {
	const first, second = int64(100), int64(200)
	for name, c := range map[string]struct {
		delivered, before int64
		want              ledger.State
		since             int64
	}{
		"nobody else delivered":           {first, first, ledger.Synced, 0},
		"nothing was delivered before":    {0, 0, ledger.Synced, 0},
		"the same call is recorded twice": {second, first, ledger.Synced, 0},
		"another worker delivered":        {first + 1, first, ledger.Dirty, now.UnixNano()},
		"another worker was the first":    {first, 0, ledger.Dirty, now.UnixNano()},
	} {
		t.Run(name, func(t *testing.T) {
			// An older figure after a newer one, as when a backfill is undone.
			e := folded(t, op(1, 10, 1, 5))
			e.Delivered = ledger.Delivered{Version: ledger.Version{Time: 90, Arrival: 9}, Value: ledger.Value{Units: 9}, At: c.delivered}
			next := e.Take(e.Seen[0], c.before, ledger.Receipt{RequestID: "r"}, ledger.Answer{At: second}, now)
			if next.State != c.want || next.Since != c.since {
				t.Errorf("got %s since %d, want %s since %d", next.State, next.Since, c.want, c.since)
			}
			if taken := next.Delivered.At == second; taken != (c.want == ledger.Synced) {
				t.Errorf("got delivered at %d, want the call's answer recorded only if the key is synced", next.Delivered.At)
			}
		})
	}
}

func TestARefusalOfTheOriginalDoesNotFailItsEditedReplay(t *testing.T) {
	e := folded(t, op(1, 10, 100, 5))
	sent := e.Seen[0]
	e = after(e, op(2, 10, 100, 7)) // edited while the call was under way: the same place, another value
	if e = e.Fail(sent, ledger.Answer{At: 1, Status: 422}); e.State != ledger.Dirty {
		t.Errorf("state of the edited figure: got %s, want dirty", e.State)
	}
}
