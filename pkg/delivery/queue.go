package delivery

import (
	"container/heap"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// place says where a key stands in its lane.
type place uint8

const (
	nowhere   place = iota // nothing to do for it
	timed                  // waits for its time: linger or backoff
	ready                  // may be sent as soon as the lane may send
	waiting                // a count that waits for its account or service
	unmapped               // held; probed now and then
	asserting              // delivered long ago; sent again when there is nothing else
	sending                // a call is under way
	recording              // the call is over, its outcome is being recorded
	places    = iota
)

type item struct {
	key   ledger.Key
	place place
	tried bool      // a call failed before: it no longer keeps others waiting
	late  bool      // a count that waited for an account or a service that nobody had published
	at    time.Time // timed: when it is due; unmapped: since when
	turn  uint64    // timed: of two that are due together, the one that came first goes first
	index int       // timed: in the heap

	line       *line // ready, waiting and unmapped: the line it stands in
	prev, next *item
}

// queue holds the keys of a lane that are not in step with the partner, each
// in one place. It knows nothing of values: those are looked up on sending.
// Every step but a release takes constant or logarithmic time, so that 100,000
// held keys do not slow a lane down.
type queue struct {
	items    map[ledger.Key]*item
	timed    dueHeap
	turns    uint64 // given out so far
	ready    map[ledger.Kind]*line
	unmapped line
	settled  line                 // to be asserted
	waiting  map[ledger.Key]*line // by the catalog key waited for
	count    [places]int          // of items, by place
	fresh    int                  // accounts and services of which no call failed yet
}

func newQueue() *queue {
	q := &queue{items: map[ledger.Key]*item{}, ready: map[ledger.Kind]*line{}, waiting: map[ledger.Key]*line{}}
	for _, kind := range ledger.Kinds() {
		q.ready[kind] = &line{}
	}
	return q
}

// where says where the key stands.
func (q *queue) where(key ledger.Key) place {
	if i := q.items[key]; i != nil {
		return i.place
	}
	return nowhere
}

// leave takes the item out of its place.
func (q *queue) leave(i *item) {
	if i.place == timed {
		heap.Remove(&q.timed, i.index)
	}
	if l := i.line; l != nil {
		l.remove(i)
		if i.place == waiting && l.first == nil {
			delete(q.waiting, l.catalog)
		}
	}
	q.count[i.place]--
	i.place = nowhere
}

func (q *queue) enter(key ledger.Key, to place) *item {
	i := q.items[key]
	if i == nil {
		i = &item{key: key}
		q.items[key] = i
		if key.Kind != ledger.Count {
			q.fresh++
		}
	} else {
		q.leave(i)
	}
	i.place = to
	q.count[to]++
	return i
}

// drop forgets the key.
func (q *queue) drop(key ledger.Key) {
	if i := q.items[key]; i != nil {
		q.leave(i)
		delete(q.items, key)
		if key.Kind != ledger.Count && !i.tried {
			q.fresh--
		}
	}
}

// tried notes that a call for the key has failed before.
func (q *queue) tried(key ledger.Key) {
	if i := q.items[key]; i != nil && !i.tried {
		i.tried = true
		if key.Kind != ledger.Count {
			q.fresh--
		}
	}
}

// at makes the key ready at the given time. A key that stands at an earlier
// time already keeps that.
func (q *queue) at(key ledger.Key, due time.Time) {
	if i := q.items[key]; i != nil && i.place == timed && !due.Before(i.at) {
		return
	}
	i := q.enter(key, timed)
	q.turns++
	i.at, i.turn = due, q.turns
	heap.Push(&q.timed, i)
}

func (q *queue) makeReady(key ledger.Key) { q.ready[key.Kind].push(q.enter(key, ready)) }

// wait makes the count wait until the catalog key is released; known says that
// it was published.
func (q *queue) wait(key, catalog ledger.Key, known bool) {
	i := q.enter(key, waiting)
	i.late = i.late || !known
	l := q.waiting[catalog]
	if l == nil {
		l = &line{catalog: catalog}
		q.waiting[catalog] = l
	}
	l.push(i)
}

// release makes ready what waited for the catalog key.
func (q *queue) release(catalog ledger.Key) {
	if l := q.waiting[catalog]; l != nil {
		for l.first != nil {
			q.makeReady(l.first.key)
		}
	}
}

// hold makes the key wait for a probe, behind those that were held before it.
func (q *queue) hold(key ledger.Key, now time.Time) {
	i := q.enter(key, unmapped)
	i.at = now
	q.unmapped.push(i)
}

// assert makes a key that needs nothing else wait to be sent again.
func (q *queue) assert(key ledger.Key) {
	if q.where(key) == nowhere {
		q.settled.push(q.enter(key, asserting))
	}
}

// more says whether another count than this one may be sent or is to be
// asserted.
func (q *queue) more(key ledger.Key) bool {
	first := q.ready[ledger.Count].first
	return first != nil && (first.key != key || first.next != nil) || q.settled.first != nil
}

// soon is how long until the next key reaches its time.
func (q *queue) soon(now time.Time) time.Duration {
	if len(q.timed) == 0 {
		return idle
	}
	return until(q.timed[0].at, now)
}

// promote makes ready what has reached its time, and says when the next will.
func (q *queue) promote(now time.Time) (next time.Time) {
	for len(q.timed) > 0 {
		i := q.timed[0]
		if i.at.After(now) {
			return i.at
		}
		q.makeReady(i.key)
	}
	return time.Time{}
}

// releaseUnmapped makes ready the unmapped counts held since before the given
// time that are chosen.
func (q *queue) releaseUnmapped(before time.Time, chosen func(ledger.Key) bool) {
	for i := q.unmapped.first; i != nil && i.at.Before(before); {
		next := i.next
		if chosen(i.key) {
			q.makeReady(i.key)
		}
		i = next
	}
}

// line is a first-in first-out line of items that can be left from anywhere.
type line struct {
	catalog     ledger.Key // of a line of waiting counts: what they wait for
	first, last *item
}

func (l *line) push(i *item) {
	i.line, i.prev = l, l.last
	if l.last == nil {
		l.first = i
	} else {
		l.last.next = i
	}
	l.last = i
}

func (l *line) remove(i *item) {
	if i.prev == nil {
		l.first = i.next
	} else {
		i.prev.next = i.next
	}
	if i.next == nil {
		l.last = i.prev
	} else {
		i.next.prev = i.prev
	}
	i.line, i.prev, i.next = nil, nil, nil
}

// dueHeap orders timed items by their time (container/heap).
type dueHeap []*item

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(a, b int) bool {
	if c := h[a].at.Compare(h[b].at); c != 0 {
		return c < 0
	}
	return h[a].turn < h[b].turn
}

func (h dueHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].index, h[b].index = a, b
}

// Push adds an item; only container/heap calls it.
func (h *dueHeap) Push(x any) {
	i := x.(*item) //nolint:errcheck // the queue pushes nothing else
	i.index = len(*h)
	*h = append(*h, i)
}

// Pop takes the last item; only container/heap calls it.
func (h *dueHeap) Pop() any {
	old := *h
	i := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return i
}
