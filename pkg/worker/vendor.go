package worker

import (
	"context"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Flood says why the events of a vendor are not folded any longer.
type Flood struct {
	Dead, Of  int    // of the last Of events so many were dead
	Partition int    // in which it was noticed
	Worker    string // by which it was noticed
	At        time.Time
}

// floodWindow is how many of a vendor's last events the share of dead ones is
// taken of. Fewer than so many count as if the rest had been good.
const floodWindow = 1000

// vendorState is what all partitions of a vendor on this worker share.
type vendorState struct {
	name  string
	share float64 // Config.DeadShare

	mu      sync.Mutex
	rules   *ledger.Rules
	stopped bool
	resumed chan struct{} // closed when it is not stopped
	window  window
}

func newVendorState(name string, share float64, rules *ledger.Rules) *vendorState {
	s := &vendorState{name: name, share: share, rules: rules, resumed: make(chan struct{})}
	close(s.resumed)
	return s
}

func (s *vendorState) currentRules() *ledger.Rules {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules
}

func (s *vendorState) setRules(rules *ledger.Rules) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = rules
}

func (s *vendorState) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// setStopped stops the fold, or lets it go on with nothing held against it.
func (s *vendorState) setStopped(stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped == stopped {
		return
	}
	s.stopped = stopped
	if stopped {
		s.resumed = make(chan struct{})
		return
	}
	close(s.resumed)
	s.window = window{}
}

// awaitFolding returns when the fold is not stopped, or when ctx ends.
func (s *vendorState) awaitFolding(ctx context.Context) {
	s.mu.Lock()
	resumed := s.resumed
	s.mu.Unlock()
	select {
	case <-resumed:
	case <-ctx.Done():
	}
}

// window is the last events of a vendor.
type window struct {
	recent [floodWindow]bool // whether it was dead
	next   int               // place of the next one
	dead   int
}

func (w *window) add(dead bool) {
	if w.recent[w.next] {
		w.dead--
	}
	w.recent[w.next] = dead
	w.next = (w.next + 1) % floodWindow
	if dead {
		w.dead++
	}
}

// watch begins to watch the events of one attempt to fold a batch.
func (s *vendorState) watch() *floodWatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &floodWatch{window: s.window, most: s.share * floodWindow}
}

// floodWatch is the window as it will be when what is folded is recorded.
type floodWatch struct {
	window window
	most   float64 // dead ones; 0: any number
	events []bool
}

// add notes one event, and says whether too many are dead now.
func (w *floodWatch) add(dead bool) (flooded bool) {
	w.window.add(dead)
	w.events = append(w.events, dead)
	return w.most > 0 && float64(w.window.dead) > w.most
}

// recorded takes over what was folded.
func (s *vendorState) recorded(w *floodWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, dead := range w.events {
		s.window.add(dead)
	}
}

// stopFolding has the fold of the vendor stopped everywhere, here first.
func (p *partition) stopFolding() {
	p.vendor.mu.Lock()
	f := Flood{Dead: p.vendor.window.dead, Of: floodWindow, Partition: p.number, Worker: p.config.ID, At: time.Now().UTC()}
	known := p.vendor.stopped
	p.vendor.mu.Unlock()
	if known {
		return
	}
	p.log.Error("too many of the vendor's last events are dead: its events are not folded any longer", "dead", f.Dead, "of", f.Of,
		"try", "usagebridge dlq ls --vendor "+p.vendor.name)
	if p.config.Flooded != nil {
		p.config.Flooded(p.vendor.name, f)
	}
	p.vendor.setStopped(true)
}
