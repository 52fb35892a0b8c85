package worker

import (
	"sync"
	"time"
)

// lagging is how many messages must wait behind a batch for its partition to
// lag: fewer are folded before a lane could take notice.
const lagging = 1000

// lag lets the lanes of a partition wait while its fold lags: every event that
// is folded first may save a call. They wait no longer than most in one piece,
// and over time no longer than they run, so that a fold that never catches up
// does not keep figures back for ever.
type lag struct {
	most time.Duration

	mu     sync.Mutex
	behind bool
	since  time.Time     // when behind last changed
	left   time.Duration // how long the lanes might wait from then
}

func newLag(most time.Duration) *lag { return &lag{most: most, left: most} }

// note says whether the fold lags now.
func (l *lag) note(behind bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if behind == l.behind {
		return
	}
	if passed := now.Sub(l.since); l.behind {
		l.left = max(l.left-passed, 0)
	} else if passed < l.most { // or longer than a Duration can tell
		l.left = min(l.left+passed, l.most)
	} else {
		l.left = l.most
	}
	l.behind, l.since = behind, now
}

// waits says whether the lanes are to wait now.
func (l *lag) waits(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.behind && now.Sub(l.since) < l.left
}
