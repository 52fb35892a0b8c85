package delivery_test

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestJudgeRulesOnEveryClassForEveryKind(t *testing.T) {
	const budget = 3
	verdict := func(r delivery.Ruling) delivery.Verdict { return delivery.Verdict{Ruling: r} }
	lane := func(h ledger.HoldReason) delivery.Verdict {
		return delivery.Verdict{Ruling: delivery.HoldLane, Hold: h}
	}
	dead := func(r delivery.DeadReason) delivery.Verdict {
		return delivery.Verdict{Ruling: delivery.Dead, Dead: r}
	}
	retry := verdict(delivery.Retry)
	type row struct{ count, catalog, mapping delivery.Verdict }
	same := func(v delivery.Verdict) row { return row{v, v, v} }
	rows := map[delivery.Class]row{
		delivery.Accepted:     same(verdict(delivery.Delivered)),
		delivery.NotReady:     same(lane(ledger.IntegrationNotReady)),
		delivery.NotFound:     {delivery.Verdict{Ruling: delivery.HoldKey, Hold: ledger.Unmapped}, lane(ledger.Anomaly), lane(ledger.Anomaly)},
		delivery.Unauthorized: same(lane(ledger.Unauthorized)),
		delivery.Suspected:    same(lane(ledger.Anomaly)),
		delivery.Throttled:    same(verdict(delivery.Wait)),
		delivery.Unavailable:  same(retry),
		delivery.Rejected:     {dead(delivery.ReasonRejected), dead(delivery.ReasonRejected), retry},
		delivery.Stopped:      same(verdict(delivery.NotCounted)),
		"unheard of":          same(retry),
	}
	spent := map[delivery.Class]row{ // where the last attempt differs
		delivery.Unavailable: {dead(delivery.ReasonUndeliverable), dead(delivery.ReasonUndeliverable), retry},
		"unheard of":         {dead(delivery.ReasonUndeliverable), dead(delivery.ReasonUndeliverable), retry},
	}
	for class, first := range rows {
		last, differs := spent[class]
		if !differs {
			last = first
		}
		for attempt, want := range map[int]row{1: first, budget - 1: first, budget: last, budget + 1: last} {
			for kind, want := range map[ledger.Kind]delivery.Verdict{
				ledger.Count: want.count, ledger.Account: want.catalog, ledger.Service: want.catalog, 0: want.mapping,
			} {
				task := delivery.Task{Key: ledger.Key{Kind: kind}, Attempt: attempt}
				if got := delivery.Judge(task, delivery.Answer{Class: class}, budget); got != want {
					t.Errorf("Judge(%s, attempt %d, %s) = %+v, want %+v", task.Operation(), attempt, class, got, want)
				}
			}
		}
	}
}

func TestAQuestionThatIsAnsweredBadlyCondemnsNothing(t *testing.T) {
	unanswered := delivery.Verdict{Ruling: delivery.Unanswered}
	anomaly := delivery.Verdict{Ruling: delivery.HoldLane, Hold: ledger.Anomaly}
	type row struct{ read, check delivery.Verdict }
	rows := map[delivery.Class]row{
		delivery.Accepted:     {delivery.Verdict{Ruling: delivery.Delivered}, delivery.Verdict{Ruling: delivery.Delivered}},
		delivery.NotReady:     {unanswered, unanswered},
		delivery.NotFound:     {unanswered, anomaly},
		delivery.Unauthorized: {delivery.Verdict{Ruling: delivery.HoldLane, Hold: ledger.Unauthorized}, delivery.Verdict{Ruling: delivery.HoldLane, Hold: ledger.Unauthorized}},
		delivery.Suspected:    {unanswered, anomaly},
		delivery.Throttled:    {delivery.Verdict{Ruling: delivery.Wait}, delivery.Verdict{Ruling: delivery.Wait}},
		delivery.Unavailable:  {unanswered, unanswered},
		delivery.Rejected:     {unanswered, unanswered},
		delivery.Stopped:      {delivery.Verdict{Ruling: delivery.NotCounted}, delivery.Verdict{Ruling: delivery.NotCounted}},
		"unheard of":          {unanswered, unanswered},
	}
	for class, want := range rows {
		read, check := delivery.Task{Read: true, Attempt: 99}, delivery.Task{Key: ledger.AccountKey("m", "a"), Check: true, Attempt: 99}
		if got := delivery.Judge(read, delivery.Answer{Class: class}, 3); got != want.read {
			t.Errorf("%s to a read: got %+v, want %+v", class, got, want.read)
		}
		if got := delivery.Judge(check, delivery.Answer{Class: class}, 3); got != want.check {
			t.Errorf("%s to a check: got %+v, want %+v", class, got, want.check)
		}
	}
}
