package publisher

import (
	"sync"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// order keeps two events that touch a common key from being in flight at the
// same time. Of two figures with equal time the one stored later wins, so a
// repeat of the first, stored after the second, would turn the result around.
//
// Keys form a tree: organization, account, service. A count holds a leaf; a
// snapshot holds everything below its organization or account. Accounts and
// services of the catalog are trees of one leaf each.
type order struct {
	mu     sync.Mutex
	freed  *sync.Cond
	held   map[string]struct{} // nodes in flight
	within map[string]int      // nodes in flight at or below a node
}

func newOrder() *order {
	o := &order{held: map[string]struct{}{}, within: map[string]int{}}
	o.freed = sync.NewCond(&o.mu)
	return o
}

// scope is a node and its ancestors, the root first.
type scope []string

// scopeOf is what a checked event touches.
func scopeOf(e *event.Event) scope {
	organization := "usage." + event.Escape(e.Organization)
	switch d := e.Data.(type) {
	case event.Count:
		account := organization + "." + event.Escape(d.AccountID)
		return scope{organization, account, account + "." + event.Escape(d.ServiceID)}
	case event.Snapshot:
		if d.AccountID == "" {
			return scope{organization}
		}
		return scope{organization, organization + "." + event.Escape(d.AccountID)}
	}
	return scope{e.Subject().String()}
}

// hold waits until nothing in flight touches s, then holds it.
func (o *order) hold(s scope) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.free(s) {
		o.freed.Wait()
	}
	o.held[s[len(s)-1]] = struct{}{}
	for _, node := range s {
		o.within[node]++
	}
}

// free holds when neither s nor anything above or below it is in flight.
func (o *order) free(s scope) bool {
	for _, node := range s {
		if _, taken := o.held[node]; taken {
			return false
		}
	}
	return o.within[s[len(s)-1]] == 0
}

// let releases what hold took.
func (o *order) let(s scope) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.held, s[len(s)-1])
	for _, node := range s {
		if o.within[node]--; o.within[node] == 0 {
			delete(o.within, node)
		}
	}
	o.freed.Broadcast()
}
