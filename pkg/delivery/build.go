package delivery

import (
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// build is about a partner that rebuilds its view of the billing with every
// count unless it is told that more will follow: only the last count of a
// burst builds, and goes when the others have been answered.
type build struct {
	begun    int        // calls so far that do not build
	under    int        // of them under way
	building int        // calls under way that build
	pending  ledger.Key // the last count that was accepted and not built; none: the view is up to date
}

// defers sets whether the count is to be taken without a build, and says
// whether it must wait because it is the last one and others are under way.
func (l *Lane) defers(t *Task) bool {
	if !l.link.DefersBuild || t.Key.Kind != ledger.Count || t.Probe {
		return false
	}
	t.NoBuild = l.queue.more(t.Key)
	return !t.NoBuild && l.build.under > 0
}

// rebuildTask sends the last accepted count once more, to have it built, when
// the call that should have done so has failed.
func (l *Lane) rebuildTask(now time.Time) (t Task, wait time.Duration, ok bool) {
	if !l.link.DefersBuild || l.build.pending == (ledger.Key{}) || l.build.under > 0 || l.build.building > 0 {
		return Task{}, idle, false
	}
	if wait := l.queue.soon(now); wait <= l.config.Linger {
		return Task{}, wait, false // a count is about to go that builds
	}
	e, ok := l.book.Entry(l.build.pending)
	if !ok || e.State != ledger.Synced || l.queue.where(e.Key) != nowhere && l.queue.where(e.Key) != asserting {
		return Task{}, idle, false // it is sent for a reason of its own
	}
	return l.taskOf(&e), 0, true
}

// begins and ends count the calls under way.
func (b *build) begins(t Task) {
	if t.NoBuild {
		b.begun++
		b.under++
	} else if t.Key.Kind == ledger.Count {
		b.building++
	}
}

// ends takes what became of a count, begun when so many calls that do not
// build had begun.
func (b *build) ends(o Outcome, begun int) {
	accepted := o.Verdict.Ruling == Delivered
	if o.Task.NoBuild {
		b.under--
		if accepted {
			b.pending = o.Task.Key
		}
		return
	}
	b.building--
	// What began meanwhile may have reached the partner after the build.
	if accepted && b.under == 0 && b.begun == begun {
		b.pending = ledger.Key{}
	}
}
