package worker_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// voyage is all that happens to a fleet of workers, drawn before the bubble of
// virtual time begins.
type voyage struct {
	workers       int
	partitions    int
	organizations int
	callTimeout   time.Duration
	linger        time.Duration
	attempts      int
	reassert      time.Duration
	seed          uint64 // of what is not worth drawing: delays, and whom trouble hits
	deeds         []deed
}

// deed is one step of a voyage.
type deed struct {
	what         string
	worker       int
	organization int
	account      int
	service      int
	number       int
	second       int // of the figure
	units        int
	parts        int
	named        int  // keys that a snapshot names, by bit
	scope        bool // the snapshot is of one account; who is killed does not come back
	twin         bool
	chance       float64
	lasts        time.Duration
	wait         time.Duration
}

// Deeds.
const (
	publishFigure   = "figure"
	publishSnapshot = "snapshot"
	publishPart     = "part"
	publishAgain    = "again"
	replayLetters   = "replay"
	killWorker      = "kill"
	freezeWorker    = "freeze"
	stopWorker      = "stop"
	startWorker     = "start"
	startOld        = "start an old version"
	cutWatch        = "cut the watch"
	redeliver       = "redeliver"
	revokeTokens    = "revoke tokens"
	newTokens       = "new tokens"
	pauseClient     = "pause"
	resumeClient    = "resume"
	lull            = "lull"
)

// events are what every voyage has; of the weather each has some.
var (
	eventDeeds   = []string{publishFigure, publishFigure, publishFigure, publishSnapshot, publishPart, publishAgain, replayLetters}
	weatherDeeds = []string{
		killWorker, freezeWorker, stopWorker, startOld, cutWatch, redeliver, revokeTokens, pauseClient,
		leaseTrouble, storeTrouble, recordsTrouble, ackTrouble, sourceTrouble, watchTrouble, writeTrouble,
		down, resets, unmapped, notReady, throttle, rejects, suspects, slow,
	}
	// remedies are what mends the weather.
	remedies = map[string]string{
		killWorker: startWorker, stopWorker: startWorker, startOld: startWorker, revokeTokens: newTokens, pauseClient: resumeClient,
		down: kind, resets: kind, unmapped: kind, notReady: kind, throttle: kind, rejects: kind, suspects: kind, slow: kind,
	}
)

// fleetWeather is for whoever looks for something, the planted faults above all.
var fleetWeather = flag.String("fleet.weather", strings.Join(weatherDeeds, ","), "the kinds of weather that fleets may meet")

func drawVoyage(t *rapid.T) voyage { return drawVoyageIn(t, strings.Split(*fleetWeather, ",")) }

// drawVoyageIn draws a voyage that meets nothing but this weather.
func drawVoyageIn(t *rapid.T, weather []string) voyage {
	v := voyage{
		workers:       rapid.IntRange(2, 4).Draw(t, "workers"),
		partitions:    rapid.IntRange(1, 3).Draw(t, "partitions"),
		organizations: rapid.IntRange(1, 3).Draw(t, "organizations"),
		callTimeout:   rapid.SampledFrom([]time.Duration{10 * time.Second, 3 * time.Second}).Draw(t, "call timeout"),
		linger:        rapid.SampledFrom([]time.Duration{-1, 200 * time.Millisecond}).Draw(t, "linger"),
		attempts:      rapid.SampledFrom([]int{1000, 3}).Draw(t, "attempts"),
		reassert:      rapid.SampledFrom([]time.Duration{0, 0, 0, time.Minute}).Draw(t, "reassert"),
		seed:          rapid.Uint64().Draw(t, "seed"),
	}
	// A few kinds of weather at a time go deeper than a little of everything.
	kinds := append([]string{lull}, eventDeeds...)
	for _, w := range rapid.SliceOfNDistinct(rapid.SampledFrom(weather), 1, min(5, len(weather)), rapid.ID).Draw(t, "weather") {
		kinds = append(kinds, w, w)
		if remedy, ok := remedies[w]; ok {
			kinds = append(kinds, remedy)
		}
	}
	// Lists are drawn short, so what is listed is watches of several deeds.
	watch := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) deed { return drawDeed(t, kinds) }), deedsPerWatch, deedsPerWatch)
	for _, deeds := range rapid.SliceOfN(watch, 1, mostWatches).Draw(t, "deeds") {
		v.deeds = append(v.deeds, deeds...)
	}
	// What goes wrong with one key alone is found sooner when all is about it.
	if rapid.Bool().Draw(t, "one key") {
		for i := range v.deeds {
			v.deeds[i].organization, v.deeds[i].account, v.deeds[i].service = 0, 0, 0
		}
	}
	return v
}

const (
	deedsPerWatch = 8
	mostWatches   = 10
)

func drawDeed(t *rapid.T, kinds []string) deed {
	return deed{
		what:         rapid.SampledFrom(kinds).Draw(t, "what"),
		worker:       rapid.IntRange(0, 3).Draw(t, "worker"),
		organization: rapid.IntRange(0, 2).Draw(t, "organization"),
		account:      rapid.IntRange(0, 1).Draw(t, "account"),
		service:      rapid.IntRange(0, 1).Draw(t, "service"),
		number:       rapid.IntRange(0, 9).Draw(t, "number"),
		second:       rapid.IntRange(1, 8).Draw(t, "second"),
		units:        rapid.IntRange(0, 9).Draw(t, "units"),
		parts:        rapid.IntRange(1, 3).Draw(t, "parts"),
		named:        rapid.IntRange(0, 1<<keysEach-1).Draw(t, "named"),
		scope:        rapid.Bool().Draw(t, "scope"),
		twin:         rapid.IntRange(0, 3).Draw(t, "twin") == 3,
		chance:       rapid.SampledFrom([]float64{0.3, 1}).Draw(t, "chance"),
		lasts:        rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 20 * time.Second, 40 * time.Second}).Draw(t, "lasts"),
		wait:         rapid.SampledFrom(waits).Draw(t, "wait"),
	}
}

var waits = []time.Duration{
	0, time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond,
	300 * time.Millisecond, time.Second, 5 * time.Second, 15 * time.Second,
}

// keysEach is how many counts an organization has.
const keysEach = 4

// fleet is a world with several workers and a model beside them.
type fleet struct {
	*world

	voyage  voyage
	plant   planting
	dice    *dice
	began   time.Time
	model   model
	events  int
	sent    []event.Event
	parts   []func() // of snapshots, held back
	clients map[string]*client
	berths  []*berth
	news    chan struct{} // closed when there may be messages; guarded by world.mu
	ended   sync.WaitGroup

	reporting sync.Mutex
	problem   string
}

// berth is a worker's name, and the worker that has it.
type berth struct {
	name    string
	line    *line
	running *worker.Worker // nil: none
	old     bool           // the version does not know counts
	retired bool           // it does not come back by itself
	stop    context.CancelFunc
	ended   chan struct{}
}

// planting puts a fault into what a worker is made of.
type planting func(l *line, c *worker.Config)

// steps counts the deeds of all voyages of this process.
var steps atomic.Int64

// sail makes a voyage and says what was wrong with it; empty: nothing.
func sail(t *testing.T, v voyage, plant planting) (problem string) {
	steps.Add(int64(len(v.deeds)))
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{world: newWorld(t), voyage: v, plant: plant, dice: newDice(v.seed), began: time.Now(), clients: map[string]*client{}, news: make(chan struct{})}
		f.partitions = v.partitions
		f.leaveHarbour()
		for _, d := range v.deeds {
			f.do(d)
			time.Sleep(d.wait)
		}
		f.calm()
		f.enterHarbour()
		problem = f.problem
	})
	return problem
}

// report keeps the first thing that is wrong.
func (f *fleet) report(format string, args ...any) {
	f.reporting.Lock()
	defer f.reporting.Unlock()
	if f.problem == "" {
		f.problem = fmt.Sprintf(format, args...)
	}
}

func (f *fleet) failed() bool {
	f.reporting.Lock()
	defer f.reporting.Unlock()
	return f.problem != ""
}

// leaveHarbour starts all workers and publishes the catalogs.
func (f *fleet) leaveHarbour() {
	for i := range f.voyage.organizations {
		c := &client{
			organization: fmt.Sprint("msp-", i), had: map[ledger.Key]bool{}, tape: map[ledger.Key][]taken{},
			failed: map[ledger.Key]int{}, refused: map[ledger.Key]int{},
		}
		f.clients[c.organization] = c
	}
	for i := range f.voyage.workers {
		f.berths = append(f.berths, &berth{name: fmt.Sprint("w", i)})
		f.launch(f.berths[i], false)
	}
	for i := range f.voyage.organizations {
		d := deed{organization: i, second: 1}
		for n := range 2 {
			account := f.newEvent(fmt.Sprint("account ", n), d, event.Account{AccountID: fmt.Sprint("a", n), Name: "A"})
			account.Type = event.TypeAccount
			service := f.newEvent(fmt.Sprint("service ", n), d, event.Service{ServiceID: fmt.Sprint("s", n), Name: "S"})
			service.Type = event.TypeService
			f.store1(account.Subject().String(), account.Structured())
			f.store1(service.Subject().String(), service.Structured())
		}
	}
}

func (f *fleet) organization(d deed) string {
	return fmt.Sprint("msp-", d.organization%f.voyage.organizations)
}

func (f *fleet) key(d deed) ledger.Key {
	return ledger.CountKey(f.organization(d), fmt.Sprint("a", d.account), fmt.Sprint("s", d.service))
}

func (f *fleet) newEvent(id string, d deed, data event.Data) event.Event {
	e := event.Event{
		ID: id, Source: "//test", Type: event.TypeCount, Time: f.began.Add(time.Duration(d.second) * time.Second).UTC(),
		Vendor: vendor, Organization: f.organization(d), Data: data,
	}
	if _, ok := data.(event.Snapshot); ok {
		e.Type = event.TypeSnapshot
	}
	return e
}

// post publishes an event for the first time.
func (f *fleet) post(e event.Event) uint64 {
	f.sent = append(f.sent, e)
	return f.store1(e.Subject().String(), e.Structured())
}

func (f *fleet) store1(subject string, data []byte) uint64 {
	sequence := f.publish(subject, data)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring()
	return sequence
}

// launch starts a worker of the name, unless there is one.
func (f *fleet) launch(b *berth, old bool) {
	if b.running != nil {
		return
	}
	l := newLine(f, b.name)
	c := worker.Config{
		ID: b.name,
		Meanings: map[string]worker.Meaning{
			event.TypeCount: meaning, event.TypeSnapshot: meaning, event.TypeAccount: catalogMeaning, event.TypeService: catalogMeaning,
		},
		Delivery: delivery.Config{
			Linger: f.voyage.linger, Attempts: f.voyage.attempts, Reassert: f.voyage.reassert,
			RetryMin: 200 * time.Millisecond, RetryMax: 5 * time.Second, ProbeMin: 2 * time.Second, ProbeMax: 10 * time.Second,
			Flood: -1, Grace: time.Second,
		},
		CallTimeout: f.voyage.callTimeout,
		LeaseTTL:    leaseTTL,
		Signal:      func(_ context.Context, _ string, s delivery.Signal) { f.signal(l, s) },
		Metrics:     worker.NewMetrics(prometheus.NewRegistry()),
		Logger:      slog.New(slog.DiscardHandler),
	}
	if old {
		delete(c.Meanings, event.TypeCount)
	}
	l.serve(&c)
	if f.plant != nil {
		f.plant(l, &c)
	}
	running := worker.New(c)
	for _, client := range f.clients {
		running.SetLink(vendor, client.organization, f.link(l, client))
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	f.mu.Lock()
	b.line, b.running, b.old, b.stop, b.ended = l, running, old, stop, ended
	f.mu.Unlock()
	f.ended.Go(func() {
		defer close(ended)
		if err := running.Run(ctx); err != nil {
			f.report("worker %s ended with %v, want no error", b.name, err)
		}
	})
}

// catalogMeaning keeps properties in the form from which a letter can be made
// when the log cannot be read.
func catalogMeaning(e *event.Event) ([]ledger.Operation, error) {
	ops, err := meaning(e)
	for i := range ops {
		ops[i].Value.Properties = fmt.Sprintf(`{"name":%q}`, ops[i].Value.Properties)
	}
	return ops, err
}

// leave has the berth empty from now on; the worker may go on for a while.
func (f *fleet) leave(b *berth) {
	close(b.line.stopping)
	b.stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	b.running, b.line, b.old = nil, nil, false
}

func (f *fleet) anyOld() bool {
	for _, b := range f.berths {
		if b.old {
			return true
		}
	}
	return false
}

// anyOther says whether somebody is left when b does not come back.
func (f *fleet) anyOther(b *berth) bool {
	for _, other := range f.berths {
		if other != b && !other.retired {
			return true
		}
	}
	return false
}

// thaw lets the worker go on, if it still lies frozen on that line, and tells
// it what it has missed.
func (f *fleet) thaw(b *berth, l *line) {
	f.mu.Lock()
	running := b.running
	same := b.line == l
	f.mu.Unlock()
	if same && running != nil && l.frozen() {
		for _, c := range f.clients {
			running.SetLink(vendor, c.organization, f.link(l, c))
		}
	}
	l.unfreeze()
}

func (f *fleet) do(d deed) {
	b, c := f.berths[d.worker%len(f.berths)], f.clients[f.organization(d)]
	switch d.what {
	case publishFigure:
		f.figure(d)
	case publishSnapshot:
		f.snapshot(d)
	case publishPart:
		f.nextPart(d.number)
	case publishAgain:
		f.again(d)
	case replayLetters:
		f.replay()
	case redeliver:
		f.redeliver()
	case revokeTokens:
		c.mu.Lock()
		c.valid++
		c.mu.Unlock()
	case newTokens:
		f.renewTokens(c)
	case pauseClient, resumeClient:
		c.mu.Lock()
		c.paused, c.pausedAt = d.what == pauseClient, time.Now()
		c.mu.Unlock()
		f.tellAll(c)
	case kind, down, resets, unmapped, notReady, throttle, rejects, suspects, slow:
		c.mu.Lock()
		c.mood, c.chance = d.what, d.chance
		c.mu.Unlock()
	case startWorker, startOld:
		b.retired = false
		f.launch(b, d.what == startOld)
	default:
		if b.running != nil {
			f.harm(b, d)
		}
	}
}

// harm does something to a worker that runs.
func (f *fleet) harm(b *berth, d deed) {
	switch l := b.line; d.what {
	case killWorker:
		l.cut()
		f.leave(b)
		b.retired = d.scope && f.anyOther(b)
	case stopWorker:
		if !l.frozen() { // else it cannot hear
			f.leave(b)
		}
	case freezeWorker:
		l.freeze()
		time.AfterFunc(d.lasts, func() { f.thaw(b, l) })
	case cutWatch:
		l.mu.Lock()
		if l.unwatch != nil {
			l.unwatch()
		}
		l.mu.Unlock()
	case leaseTrouble, storeTrouble, recordsTrouble, ackTrouble, sourceTrouble, watchTrouble, writeTrouble:
		l.trouble(d.what, spell{time.Now().Add(d.lasts), d.chance})
	}
}

// redeliver has everything that is out come again at once.
func (f *fleet) redeliver() {
	f.mu.Lock()
	out := map[uint64]int{}
	for sequence := range f.out {
		out[sequence] = f.log[sequence-1].Deliveries
	}
	f.mu.Unlock()
	for sequence, delivery := range out {
		f.comeAgain(sequence, delivery)
	}
}

func (f *fleet) renewTokens(c *client) {
	c.mu.Lock()
	c.credentials, c.unauthorized = c.valid, false
	c.mu.Unlock()
	f.tellAll(c)
}

// calm ends everything that is bad, waits until all is quiet, and compares.
func (f *fleet) calm() {
	for _, b := range f.berths {
		if b.running != nil {
			f.thaw(b, b.line)
			b.line.trouble("", spell{})
		}
		if b.old {
			f.leave(b)
		}
		if !b.retired {
			f.launch(b, false)
		}
	}
	for _, c := range f.clients {
		c.mu.Lock()
		c.mood, c.paused = kind, false
		c.mu.Unlock()
		f.renewTokens(c)
	}
	wrong := ""
	for range 40 {
		settle(10 * time.Second)
		f.replay()
		if wrong = f.wrong(); wrong == "" || f.failed() {
			break
		}
	}
	if wrong == "" { // and it stays so, whatever still comes late
		settle(20 * time.Second)
		wrong = f.wrong()
	}
	if wrong != "" {
		f.report("%s", wrong)
	}
}

// wrong says what is not as it should be once all is quiet.
func (f *fleet) wrong() string {
	if left := f.letterReasons(); len(left) > 0 {
		return fmt.Sprintf("dead letters in the end: got %v, want none", left)
	}
	if left := f.unacked(); len(left) > 0 {
		return fmt.Sprintf("messages not acked in the end: got %v, want none; the first is %s", left, f.log[left[0]-1].Data)
	}
	for i := range f.voyage.organizations {
		for k := range keysEach {
			key := f.key(deed{organization: i, account: k / 2, service: k % 2})
			c := f.clients[key.Organization]
			c.mu.Lock()
			problem := f.model.judge(key, c.tape[key], true)
			c.mu.Unlock()
			if problem != "" {
				e, _, _ := f.store.Read(context.Background(), f.partition(key.Organization), key)
				return fmt.Sprintf("%s; stored is %+v", problem, e)
			}
		}
	}
	return ""
}

// enterHarbour stops all workers, and waits for those that were killed, too.
func (f *fleet) enterHarbour() {
	for _, b := range f.berths {
		if b.running != nil {
			f.leave(b)
		}
	}
	f.ended.Wait()
}

// For millions of steps: go test ./pkg/worker -run TestTheNewestFigureStands -rapid.checks=50000 -timeout 0 -v
func TestTheNewestFigureStandsWhateverBecomesOfTheWorkers(t *testing.T) {
	t.Parallel()
	embark(t, drawVoyage)
	t.Logf("%d steps", steps.Load())
}

func TestAWorkerThatLosesItsLeaseDisturbsNobody(t *testing.T) {
	t.Parallel()
	embark(t, drawLoss)
}

// drawLoss draws a voyage on which a worker loses its lease with a call or a
// write under way, and others go on with the same key.
func drawLoss(t *rapid.T) voyage {
	v := voyage{workers: 2, partitions: 1, organizations: 1, callTimeout: 10 * time.Second, linger: -1, attempts: 1000, seed: rapid.Uint64().Draw(t, "seed")}
	next := 0
	figure := func(wait time.Duration) deed {
		next++
		return deed{what: publishFigure, second: next, units: 9, wait: wait}
	}
	victim := rapid.IntRange(0, 1).Draw(t, "victim")
	before := rapid.SampledFrom(waits).Draw(t, "before")
	v.deeds = []deed{{what: lull, wait: 5 * time.Second}, {what: slow, chance: 0.3}}
	if rapid.Bool().Draw(t, "frozen") {
		v.deeds = append(v.deeds,
			deed{what: writeTrouble, worker: victim, lasts: 40 * time.Second, chance: 1}, figure(before),
			deed{what: freezeWorker, worker: victim, lasts: 20 * time.Second, wait: 20*time.Second + 15*time.Millisecond},
			// For good, and before it is a member again: who took the partition next
			// would see what is recorded.
			deed{what: killWorker, worker: victim, scope: true})
	} else {
		v.deeds = append(v.deeds, deed{what: leaseTrouble, worker: victim, lasts: 40 * time.Second, chance: 1, wait: before})
		for range 20 {
			v.deeds = append(v.deeds, figure(time.Second))
		}
	}
	return v
}

// embark makes voyages.
func embark(t *testing.T, draw func(*rapid.T) voyage) {
	// What the program draws for itself, its jitter above all, no seed repeats.
	// Once a voyage has failed, each is made several times: so it shrinks.
	tries := 1
	rapid.Check(t, func(rt *rapid.T) {
		v := draw(rt)
		for range tries {
			if problem := sail(t, v, nil); problem != "" {
				tries = 10
				rt.Fatalf("%s", problem)
			}
		}
	})
}
