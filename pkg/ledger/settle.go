package ledger

import "time"

// Take records that the partner took the sent figure by a call that began when
// Delivered.At was before. When Delivered has changed since, somebody else has
// delivered a figure while the call was under way: which of the two the partner
// took last is unknown, and the newest is sent again. A call that is recorded
// once more (Delivered is its own answer) is no such case. now is the time of
// recording.
func (e *Entry) Take(sent Seen, before int64, r Receipt, a Answer, now time.Time) Entry {
	if e.Delivered.At != before && e.Delivered.At != a.At {
		next := e.Release()
		next.Since = now.UnixNano()
		return next
	}
	return e.Accept(sent, r, a)
}
