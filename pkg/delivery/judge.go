package delivery

import "github.com/usagebridge/usagebridge/pkg/ledger"

// Ruling is what is to be done after a call.
type Ruling string

// The rulings.
const (
	Delivered  Ruling = "delivered"  // the partner has the value
	Retry      Ruling = "retry"      // again later, counted as an attempt
	HoldKey    Ruling = "hold"       // this key waits until its cause is gone
	HoldLane   Ruling = "hold_all"   // the whole integration waits
	Wait       Ruling = "throttled"  // the gate closes for a while; no attempt
	Dead       Ruling = "dead"       // never; a dead letter says why
	Unanswered Ruling = "unanswered" // a question that told nothing; no attempt
	Split      Ruling = "split"      // refused together with others: to be sent alone; no attempt
	NotCounted Ruling = "stopped"    // we stopped it ourselves: as if never made
)

// DeadReason says why a figure is dead, in the event contract's words.
type DeadReason string

// The dead-letter reasons that only a call can give.
const (
	ReasonRejected      DeadReason = "rejected"
	ReasonUndeliverable DeadReason = "undeliverable"
)

// Verdict is a ruling with its reason.
type Verdict struct {
	Ruling Ruling
	Hold   ledger.HoldReason // for HoldKey and HoldLane
	Dead   DeadReason        // for Dead
}

// Judge says what an answer means for a task; budget is the number of
// attempts a figure has. The rules are those of the design's table "Retry,
// rate, breaker, hold". A class that is not in the list means Unavailable:
// what it says is unknown, and sending the same figure again is harmless.
//
// The call that opens the mapping carries no figure: it is never dead, and
// tried again for as long as it is wanted.
func Judge(t Task, a Answer, budget int) Verdict {
	if t.Read || t.Check {
		return judgeQuestion(t, a)
	}
	isMapping := t.Key.Kind == 0
	switch a.Class {
	case Accepted:
		return Verdict{Ruling: Delivered}
	case NotReady:
		return Verdict{Ruling: HoldLane, Hold: ledger.IntegrationNotReady}
	case Unauthorized:
		return Verdict{Ruling: HoldLane, Hold: ledger.Unauthorized}
	case Suspected:
		return Verdict{Ruling: HoldLane, Hold: ledger.Anomaly}
	case NotFound:
		return judgeNotFound(t)
	case Throttled:
		return Verdict{Ruling: Wait}
	case Stopped:
		return Verdict{Ruling: NotCounted}
	case Rejected:
		if isMapping {
			return Verdict{Ruling: Retry}
		}
		return Verdict{Ruling: Dead, Dead: ReasonRejected}
	case Unavailable, Lost, Flooded:
		if t.Probe && t.Key.Kind != 0 {
			return Verdict{Ruling: Unanswered} // a held key burns no attempts
		}
	}
	if !isMapping && t.Attempt >= budget {
		return Verdict{Ruling: Dead, Dead: ReasonUndeliverable}
	}
	return Verdict{Ruling: Retry}
}

func judgeNotFound(t Task) Verdict {
	if t.Key.Kind == ledger.Count {
		return Verdict{Ruling: HoldKey, Hold: ledger.Unmapped}
	}
	// Posting an account cannot miss one: the address is wrong. Nothing that
	// the vendor sent is at fault, so nothing of it may be dead.
	return Verdict{Ruling: HoldLane, Hold: ledger.Anomaly}
}

// judgeQuestion judges the answer to a call that is made to learn something:
// a read, or a post of what the partner has already. Bad credentials are bad
// for every call, and so is what speaks against a post; else nothing is held
// and nothing dead, because nothing that is desired depends on the answer.
func judgeQuestion(t Task, a Answer) Verdict {
	switch a.Class {
	case Accepted:
		return Verdict{Ruling: Delivered}
	case Unauthorized:
		return Verdict{Ruling: HoldLane, Hold: ledger.Unauthorized}
	case Throttled:
		return Verdict{Ruling: Wait}
	case Stopped:
		return Verdict{Ruling: NotCounted}
	case Suspected, NotFound:
		if t.Check {
			return Verdict{Ruling: HoldLane, Hold: ledger.Anomaly}
		}
	case NotReady, Rejected, Unavailable, Lost, Flooded:
	}
	return Verdict{Ruling: Unanswered}
}
