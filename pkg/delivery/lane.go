package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// ErrFenced is the cause of a lane's context when another worker may own the
// integration from now on: calls under way are then cut off at once instead of
// being given time to finish.
var ErrFenced = errors.New("fenced: the partition may belong to another worker")

// idle is the wait of a lane that only a change from outside can move.
const idle = time.Duration(1<<63 - 1)

// unrecordedPerCall bounds outcomes that wait to be recorded, per call that
// may be under way: when the ledger cannot be written, a lane stops sending.
const unrecordedPerCall = 8

// Lane sends what one integration is due. Its methods may be called from any
// goroutine.
type Lane struct {
	vendor       string
	organization string
	config       Config
	book         Book
	may          func() bool
	signal       func(context.Context, Signal)
	trace        func(context.Context, []Task) (context.Context, func(Outcome) string)
	metrics      *Metrics
	log          *slog.Logger
	kick         chan struct{}

	mu       sync.Mutex
	link     Link
	epoch    int // of the link: answers from before it say nothing of it
	gate     gate
	pace     *pace
	queue    *queue
	posted   map[ledger.Key]int // catalog keys that the partner has; how many looks had begun when we learnt it
	accounts int                // posted accounts
	services int                // posted services
	inflight int
	cut      int // calls that we ended ourselves
	setup    setup
	probes   schedule            // of unmapped keys
	round    time.Time           // when the last round of these probes began
	slot     time.Time           // from when on the host may be called; zero: none was taken
	alone    map[ledger.Key]bool // accounts that were refused together with others
	look     look
	proven   int // counts and mappings accepted so far: each proves a status
	loss     loss
	build    build
	foreseen []Outcome     // of calls that need not be made, to be handed to the book
	misses   int           // counts in a row that were not found, none accepted, while not ready
	refused  int           // figures in a row that were refused for good
	unable   time.Time     // until when the integration could take no figures
	paused   time.Time     // since when, as far as this lane saw
	told     chan struct{} // closed when the keeper of the status has heard of every answer so far
}

// setup is the call that opens the mapping.
type setup struct {
	calling  bool
	done     bool
	failures int       // in a row
	next     time.Time // no call before this time
}

// Options are what a lane is made of.
type Options struct {
	Vendor       string
	Organization string
	Config       Config
	Book         Book
	// May says whether a call may begin now, and is asked right before each
	// one: it must return at once. Nil: always.
	May func() bool
	// Signal is told what answers say of the integration; it may block, and
	// must respect its context. Nil: nobody is told.
	Signal func(context.Context, Signal)
	// Trace follows the call that is about to be made for the tasks, with the
	// context that it gives. What it gives beside that is told what came of the
	// call, if it was made, and says in which trace it is recorded: empty for
	// none. It must return at once. Nil: nobody follows.
	Trace   func(ctx context.Context, tasks []Task) (calling context.Context, ended func(Outcome) (traceID string))
	Metrics *Metrics
	Logger  *slog.Logger
}

// untraced is what is told of a call that nobody follows.
func untraced(Outcome) (traceID string) { return "" }

// New makes a lane that sends nothing until it has a link and runs.
func New(o Options) *Lane {
	if o.Signal == nil {
		o.Signal = func(context.Context, Signal) {}
	}
	if o.Trace == nil {
		o.Trace = func(ctx context.Context, _ []Task) (context.Context, func(Outcome) string) { return ctx, untraced }
	}
	if o.May == nil {
		o.May = func() bool { return true }
	}
	c := o.Config.withDefaults()
	told := make(chan struct{})
	close(told)
	return &Lane{
		vendor:       o.Vendor,
		organization: o.Organization,
		config:       c,
		book:         o.Book,
		may:          o.May,
		signal:       o.Signal,
		trace:        o.Trace,
		metrics:      o.Metrics,
		log:          o.Logger.With("vendor", o.Vendor, "organization", o.Organization),
		kick:         make(chan struct{}, 1),
		pace:         newPace(c.Rate),
		queue:        newQueue(),
		posted:       map[ledger.Key]int{},
		alone:        map[ledger.Key]bool{},
		told:         told,
	}
}

// Run sends until ctx ends. It then lets the calls under way finish (at most
// Config.Grace, not at all when the cause is ErrFenced), and returns when
// their outcomes have been handed to the book. It says how many calls it cut
// off: what the partner made of those, or still will, is not known.
func (l *Lane) Run(ctx context.Context) (cut int) {
	calling, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	var calls sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-l.kick:
		case <-timer.C:
		}
		if ctx.Err() == nil {
			timer.Reset(l.dispatch(ctx, calling, &calls))
		}
	}
	grace := l.config.Grace
	if errors.Is(context.Cause(ctx), ErrFenced) {
		grace = 0
	}
	stop := time.AfterFunc(grace, abort)
	defer stop.Stop()
	calls.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// Wake tells the lane that entries may have changed. A new lane is to be woken
// with every key of its integration, synced ones too: accounts and services
// tell it what the partner has.
func (l *Lane) Wake(keys ...ledger.Key) {
	l.mu.Lock()
	for _, key := range keys {
		l.place(key)
	}
	l.mu.Unlock()
	l.nudge()
}

// Settled tells the lane that the outcomes of these keys are recorded. Said
// twice of one outcome it does no harm: a call that is under way again by then
// stays the only one.
func (l *Lane) Settled(keys ...ledger.Key) {
	l.mu.Lock()
	for _, key := range keys {
		if l.queue.where(key) == recording {
			l.queue.drop(key)
		}
		l.place(key)
	}
	l.mu.Unlock()
	l.nudge()
}

// SetLink replaces what the lane knows of its integration. When the generation
// changes, the lane is to be woken with every account and service, and with
// every key that is doubted.
func (l *Lane) SetLink(link Link) {
	now := time.Now()
	l.mu.Lock()
	old := l.link
	l.noteHolds(&link, now)
	l.link = link
	forgotten := link.Generation != old.Generation
	anew := forgotten || link.Credentials != old.Credentials
	opened := link.Ready && !old.Ready
	if forgotten {
		l.forget()
	}
	if anew {
		l.meet(now)
	}
	if opened && l.gate.hold == ledger.IntegrationNotReady {
		l.lift(now)
		l.gate.trial = true
	}
	if anew || link.Setup != old.Setup {
		l.setup = setup{calling: l.setup.calling}
		l.gate.catalog = false
	}
	if anew || link.Setup != old.Setup || opened {
		l.epoch++
	}
	if old.Paused && !link.Paused {
		l.refused = 0
		l.gate.closed = time.Time{}
	}
	if link.Host != old.Host {
		l.slot = time.Time{}
	}
	if link.Unauthorized {
		l.gate.set(ledger.Unauthorized, "the partner has refused these credentials before", now, l.config)
	}
	l.expectNotReady(now)
	l.mu.Unlock()
	l.nudge()
}

// noteHolds notes what only this lane knows of the times of holds, before it gets
// the link.
func (l *Lane) noteHolds(link *Link, now time.Time) {
	if l.held() != "" {
		l.unable = now
	}
	if link.Paused && !l.link.Paused {
		l.paused = now
	}
}

// forget drops what was known of a partner that has lost everything.
func (l *Lane) forget() {
	clear(l.posted)
	clear(l.alone)
	l.accounts, l.services = 0, 0
	l.loss = loss{}
	l.build.pending = ledger.Key{}
}

// meet begins with a partner of which, with new credentials or after a loss,
// nothing is known.
func (l *Lane) meet(now time.Time) {
	if l.gate.hold == ledger.Unauthorized || l.gate.hold == ledger.Anomaly {
		l.lift(now)
	}
	l.gate.answered()
	l.gate.closed = time.Time{}
	l.look = look{calling: l.look.calling, begun: l.look.begun, wanted: true, first: l.link.Reader != nil}
}

// lift ends the hold: from now on the integration can take figures.
func (l *Lane) lift(now time.Time) {
	l.unable = now
	l.gate.lift()
}

// expectNotReady holds the lane when nothing else does and the link says that
// no count would be taken.
func (l *Lane) expectNotReady(now time.Time) {
	if !l.link.Ready && l.gate.hold == "" {
		l.gate.set(ledger.IntegrationNotReady, "the integration's status does not allow counts yet", now, l.config)
	}
}

// Probe makes the next probes due at once, and tries every unmapped count of
// the accounts named: something has been heard of the partner (an Inform hint,
// an operator's word) that may end a hold. It lifts no hold by itself, and
// bad credentials stay bad until they change.
func (l *Lane) Probe(accounts ...string) {
	now := time.Now()
	named := make(map[string]bool, len(accounts))
	for _, account := range accounts {
		named[account] = true
	}
	l.mu.Lock()
	l.gate.probes.soon(now)
	l.tryUnmapped(now)
	l.setup.next = time.Time{}
	l.look.wanted, l.look.next = true, time.Time{}
	if len(named) > 0 {
		l.queue.releaseUnmapped(now, func(key ledger.Key) bool { return named[key.Account] })
	}
	l.mu.Unlock()
	l.nudge()
}

// Reassert has counts that the partner took long ago sent again, when there is
// nothing else to send.
func (l *Lane) Reassert(keys ...ledger.Key) {
	l.mu.Lock()
	for _, key := range keys {
		l.queue.assert(key)
	}
	l.mu.Unlock()
	l.nudge()
}

// Rebuild tells a new lane that the last figure which the partner took, the
// one of key, went out without a rebuild of the billing view.
func (l *Lane) Rebuild(key ledger.Key) {
	l.mu.Lock()
	l.build.pending = key
	l.mu.Unlock()
	l.nudge()
}

func (l *Lane) nudge() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// place puts the key where its entry says it belongs.
func (l *Lane) place(key ledger.Key) {
	at := l.queue.where(key)
	if key.Kind == 0 || at == sending || at == recording {
		return // Settled looks again
	}
	e, ok := l.book.Entry(key)
	if key.Kind != ledger.Count {
		l.note(key, ok && e.PostedIn(l.link.Generation))
	}
	if at == asserting {
		l.queue.drop(key) // whatever is to be done now comes first
		at = nowhere
	}
	switch {
	case !ok, e.State == ledger.Synced, e.State == ledger.Failed, e.State == ledger.Held && e.Reason != ledger.Unmapped:
		l.queue.drop(key)
	case e.State == ledger.Held:
		l.holdUnmapped(key, at)
	case e.State == ledger.Retrying:
		if at == nowhere {
			l.queue.at(key, l.due(&e, time.Now()))
			l.queue.tried(key)
		}
	case at == nowhere, at == unmapped, at == timed:
		// One that waits out a backoff has been released since: it is due sooner.
		l.queue.at(key, time.Now().Add(l.config.Linger))
	}
}

// maxAhead is the longest wait that a partner may ask for: Retry-After is
// believed up to a day.
const maxAhead = 24 * time.Hour

// due is when a stored retry is to be made. The clock that stored it may have
// been another worker's, and wrong, or ours may be: it is waited for no longer
// than was planned when it was stored, and not for years. From here on the
// monotonic clock counts.
func (l *Lane) due(e *ledger.Entry, now time.Time) time.Time {
	wait := min(time.Unix(0, e.Next).Sub(now), max(maxAhead, l.config.RetryMax))
	if e.Answer.At != 0 {
		wait = min(wait, time.Duration(max(e.Next-e.Answer.At, 0)))
	}
	return now.Add(wait)
}

func (l *Lane) holdUnmapped(key ledger.Key, at place) {
	if at != nowhere {
		return // there already, or released for a try of its own
	}
	now := time.Now()
	// The first one starts the schedule, unless it is the one that was just
	// probed: its interval grows.
	if l.queue.count[unmapped] == 0 && !l.probes.next.After(now) {
		l.probes = schedule{}
		l.probes.later(now, l.config.ProbeMin, l.config.ProbeMax)
	}
	l.queue.hold(key, now)
}

// tryUnmapped begins a round of probes of unmapped keys at once.
func (l *Lane) tryUnmapped(now time.Time) {
	l.probes.soon(now)
	l.round = now
}

// note keeps in mind whether the partner has an account or a service; what
// waited for it may go. That can end, too: a partner may lose its catalog.
func (l *Lane) note(key ledger.Key, posted bool) {
	if _, known := l.posted[key]; known == posted {
		return
	}
	number := &l.accounts
	if key.Kind == ledger.Service {
		number = &l.services
	}
	if !posted {
		delete(l.posted, key)
		*number--
		return
	}
	l.posted[key] = l.look.begun
	*number++
	l.queue.release(key)
}

// has says whether the partner has the account or the service.
func (l *Lane) has(key ledger.Key) bool {
	_, known := l.posted[key]
	return known
}
