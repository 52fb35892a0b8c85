package delivery

import (
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// A partner forgets accounts, services and mappings when its user connects
// anew, and says nothing of it: counts are just not found from then on, as
// they are when somebody has taken back their mapping. Which of both it is can
// be found out. Where the partner can be read, its list of accounts tells.
// Elsewhere the account of such a count, and then its service, are posted once
// more: what is created now was not there.

// look is about asking a partner that can be read.
type look struct {
	first   bool // nothing else is sent before it: it shows whether the credentials are good
	wanted  bool
	calling bool
	list    bool            // the status has been read, the accounts come next
	status  string          // as read
	opened  bool            // the partner need not be told that the catalog is posted
	begun   int             // so far
	at      time.Time       // when the last one ended
	next    time.Time       // none before this time
	missed  int             // in a row that told nothing
	proven  int             // the lane's, when the status was read
	there   map[string]bool // the accounts that the partner had, and whether they were mapped; nil: never seen
}

func (k *look) begin() {
	k.calling, k.wanted = true, false
	k.begun++
}

// lookEvery is how fresh a look must be for a probe to be made without
// another one.
func (c Config) lookEvery() time.Duration { return min(time.Minute, c.ProbeMin) }

// lookTask asks the partner what it has, when that is wanted, and once in a
// while anyway: it may have lost everything, and no figure changes.
func (l *Lane) lookTask(now time.Time) (t Task, wait time.Duration, ok bool) {
	if l.link.Reader == nil || l.look.calling || l.setup.calling {
		return Task{}, idle, false
	}
	if again := l.look.at.Add(l.config.ProbeMax); !l.look.wanted && now.Before(again) {
		return Task{}, again.Sub(now), false
	}
	if now.Before(l.look.next) {
		return Task{}, l.look.next.Sub(now), false
	}
	return Task{Key: ledger.Key{Organization: l.organization}, Read: true, List: l.look.list, Attempt: l.look.missed + 1}, 0, true
}

// lookBefore says whether to look before a probe: that may say more, and about
// every key at once.
func (l *Lane) lookBefore(now time.Time) bool {
	if l.link.Reader == nil || now.Sub(l.look.at) < l.config.lookEvery() || now.Before(l.look.next) {
		return false
	}
	l.look.wanted = l.look.wanted || !l.look.calling
	return true
}

// looked takes the end of a look.
func (l *Lane) looked(o Outcome, now time.Time) {
	l.look.calling, l.look.list = false, false
	switch o.Verdict.Ruling {
	case Delivered:
		l.look.missed, l.look.next = 0, time.Time{}
		if !o.Task.List {
			l.look.wanted, l.look.list, l.look.status = true, true, o.Answer.Observed
			return
		}
	case NotCounted, Wait:
		l.look.wanted = true // as if never made
		return
	case Unanswered:
		l.look.missed++
		l.look.wanted = true
		l.look.next = now.Add(max(halfJitter(l.look.missed, l.config.ProbeMin, l.config.ProbeMax), o.Answer.RetryAfter))
	case HoldLane, HoldKey, Retry, Dead, Split:
	}
	l.look.first, l.look.at = false, now
}

// saw takes what the call of that number saw, and says whether the partner has
// lost an account that it had. Counts of accounts that are newly mapped may go;
// after the first look, of which nobody knows what is new, one of each account.
func (l *Lane) saw(s Sight, number int, now time.Time) (lost bool) {
	first := l.look.there == nil
	mapped := map[string]bool{}
	for account, isMapped := range s.Mapped {
		if isMapped && !l.look.there[account] {
			mapped[account] = true
		}
	}
	l.look.there, l.look.opened = s.Mapped, s.Announced
	if l.look.there == nil {
		l.look.there = map[string]bool{}
	}
	l.queue.releaseUnmapped(now, func(key ledger.Key) bool {
		chosen := mapped[key.Account]
		if first {
			delete(mapped, key.Account)
		}
		return chosen
	})
	for key, known := range l.posted {
		if _, there := s.Mapped[key.Account]; key.Kind == ledger.Account && known < number && !there {
			return true
		}
	}
	return false
}

// unmappedAsRead says whether the partner has listed the count's account as one
// that nobody has mapped.
func (l *Lane) unmappedAsRead(key ledger.Key) bool {
	mapped, there := l.look.there[key.Account]
	return there && !mapped
}

// foresee holds a count whose account is not mapped, without a call: one for
// each count of a thousand accounts would only tell what has been read.
func (l *Lane) foresee(e *ledger.Entry) {
	l.foreseen = append(l.foreseen, Outcome{
		Task:     l.taskOf(e),
		Answer:   Answer{Class: NotFound, Message: "not sent: the partner lists the account as not mapped", At: time.Now()},
		Verdict:  Verdict{Ruling: HoldKey, Hold: ledger.Unmapped},
		Uncalled: true,
	})
	l.queue.enter(e.Key, recording)
}

// loss is the suspicion that the partner has lost what it had.
type loss struct {
	suspect ledger.Key // a count that was delivered before and is not found now; none: no suspicion
	asks    ledger.Key // the account or service of it that is posted next
	calling bool
	found   bool // something was created anew; told again until a new generation begins
	checks  schedule
}

func (s *loss) begin(now time.Time, c Config) {
	s.calling = true
	s.checks.later(now, c.ProbeMin, c.ProbeMax)
}

// suspects takes a count that is not found.
func (l *Lane) suspects(t Task, now time.Time) {
	if !t.Known || t.Key.Kind != ledger.Count {
		return
	}
	if l.link.Reader != nil {
		l.look.wanted = l.look.wanted || now.Sub(l.look.at) >= l.config.lookEvery()
		return
	}
	if l.loss.suspect == (ledger.Key{}) {
		l.loss.suspect, l.loss.asks = t.Key, t.Key.AccountKey()
	}
}

// lossTask posts the account of a suspect, and then its service, once more.
func (l *Lane) lossTask(now time.Time) (t Task, wait time.Duration, ok bool) {
	if l.loss.suspect == (ledger.Key{}) || l.loss.calling || l.holds(l.loss.asks.Kind) {
		return Task{}, idle, false
	}
	e, ok := l.book.Entry(l.loss.asks)
	if !ok || e.State != ledger.Synced || !l.has(e.Key) {
		l.loss.suspect = ledger.Key{} // it is to be posted anyway
		return Task{}, idle, false
	}
	if now.Before(l.loss.checks.next) {
		return Task{}, l.loss.checks.next.Sub(now), false
	}
	if l.queue.where(e.Key) != nowhere {
		return Task{}, forbidden, false // the last call for it is being recorded
	}
	t = l.taskOf(&e)
	t.Check = true
	return t, 0, true
}

// checked takes the answer to a check, and says whether the partner has lost
// what it had.
func (l *Lane) checked(o Outcome) (lost bool) {
	l.loss.calling = false
	switch {
	case o.Verdict.Ruling == NotCounted, o.Verdict.Ruling == Wait:
		l.loss.checks.next = time.Time{} // as if never made
	case o.Verdict.Ruling != Delivered:
	case l.loss.found || !o.Answer.Existed:
		l.loss.found = true // what this call has created will exist the next time
		return true
	case o.Task.Key.Kind == ledger.Account:
		l.loss.asks = l.loss.suspect.ServiceKey()
		l.loss.checks.next = time.Time{} // both questions are one check
		l.loss.checks.interval /= 2
	default:
		l.loss.suspect = ledger.Key{} // it is all there: somebody has taken back a mapping
	}
	return false
}
