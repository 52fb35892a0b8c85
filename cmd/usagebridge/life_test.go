package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// lifeWorld is what an integration lives in: the bridge with all that it stands
// on, and how time passes.
type lifeWorld interface {
	lifeSource
	lifeOperator
	lifeView
	lifeClock
}

type lifeSource interface {
	// publish publishes events as one message.
	publish(events []*event.Event)
}

// lifeOperator operates the bridge.
type lifeOperator interface {
	add(in sandbox.Integration)
	setTokens(in sandbox.Integration)
	pause(on bool)
	resync()
}

type lifeView interface {
	record() status.Integration
	lane() delivery.Status
	entry(key ledger.Key) ledger.Entry
	// books gives what STATUS holds, oldest first, and how many dead letters
	// there are.
	books() (transitions []status.Transition, letters int)
}

type lifeClock interface {
	config() Config
	// until waits for what must come by itself.
	until(what string, reached func() bool)
	// quiet lets a good while pass, of days where time is virtual, and asks
	// whether all was well in it.
	quiet(well func() error)
}

// The integration that is lived through, in every world.
const (
	lifeVendor       = "acme"
	lifeOrganization = "m"
	lifeName         = lifeVendor + "/" + lifeOrganization
)

var (
	lifeAccounts = []string{"a-1", "a 2", "a/3", "ä.4"}
	lifeServices = []string{"backup", "EDR > 500", "mail"}
	lifeHalf     = lifeAccounts[:2] // what the person maps at first
)

// lifeMove is a transition as it is expected in STATUS. Who brought it about is
// the worker, or a person.
type lifeMove struct {
	from, to   status.Status
	cause      status.Input
	actor      string
	gates      string
	generation int
}

func (m lifeMove) String() string {
	return fmt.Sprintf("%-9s → %-9s %-19s by the %-8s gates [%s], generation %d", m.from, m.to, m.cause, m.actor, m.gates, m.generation)
}

// lifeExpected is what STATUS holds at the end of a life. Where the partner can be
// read, its mapped accounts show as pending before any count is taken.
var lifeExpected = map[sandbox.Dialect][]lifeMove{
	sandbox.MSPCentric: {
		{"", "inactive", "added", "operator", "integration_not_ready", 0},
		{"inactive", "mapping", "mapping_announced", "worker", "integration_not_ready", 0},
		{"mapping", "connected", "count_accepted", "worker", "", 0},
		{"connected", "connected", "credentials_refused", "worker", "unauthorized", 0},
		{"connected", "connected", "credentials_renewed", "operator", "", 1},
		{"connected", "inactive", "count_refused", "worker", "integration_not_ready", 2},
		{"inactive", "mapping", "mapping_announced", "worker", "integration_not_ready", 2},
		{"mapping", "connected", "count_accepted", "worker", "", 2},
		{"connected", "connected", "paused", "operator", "paused", 2},
		{"connected", "connected", "resumed", "operator", "", 2},
		{"connected", "connected", "usage_suspected", "worker", "anomaly", 2},
		{"connected", "connected", "count_accepted", "worker", "", 2},
		{"connected", "connected", "resynced", "operator", "", 3},
		{"connected", "inactive", "count_refused", "worker", "integration_not_ready", 4},
		{"inactive", "mapping", "mapping_announced", "worker", "integration_not_ready", 4},
		{"mapping", "connected", "count_accepted", "worker", "", 4},
	},
	sandbox.Gradient: {
		{"", "inactive", "added", "operator", "integration_not_ready", 0},
		{"inactive", "mapping", "mapping_announced", "worker", "integration_not_ready", 0},
		{"mapping", "pending", "status_observed", "worker", "", 0},
		{"pending", "connected", "count_accepted", "worker", "", 0},
		{"connected", "connected", "credentials_refused", "worker", "unauthorized", 0},
		{"connected", "connected", "credentials_renewed", "operator", "", 1},
		{"connected", "inactive", "count_refused", "worker", "integration_not_ready", 2},
		{"inactive", "mapping", "mapping_announced", "worker", "integration_not_ready", 2},
		{"mapping", "pending", "status_observed", "worker", "", 2},
		{"pending", "connected", "count_accepted", "worker", "", 2},
		{"connected", "connected", "paused", "operator", "paused", 2},
		{"connected", "connected", "resumed", "operator", "", 2},
		{"connected", "connected", "usage_suspected", "worker", "anomaly", 2},
		{"connected", "connected", "count_accepted", "worker", "", 2},
		{"connected", "connected", "resynced", "operator", "", 3},
		{"connected", "inactive", "count_refused", "worker", "integration_not_ready", 4},
		{"inactive", "mapping", "mapping_announced", "worker", "integration_not_ready", 4},
		{"mapping", "pending", "status_observed", "worker", "", 4},
		{"pending", "connected", "count_accepted", "worker", "", 4},
	},
}

func TestAnIntegrationIsServedThroughItsWholeLife(t *testing.T) {
	t.Parallel()
	for _, dialect := range []sandbox.Dialect{sandbox.MSPCentric, sandbox.Gradient} {
		t.Run(string(dialect)+" in virtual time", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newVirtualWorld(t)
				defer w.end()
				live(t, w, w.partner, dialect)
			})
		})
		t.Run(string(dialect)+" in real time", func(t *testing.T) {
			t.Parallel()
			w := newRealWorld(t)
			live(t, w, w.partner, dialect)
		})
	}
}

// live is the script, the same in every world.
func live(t *testing.T, w lifeWorld, played *sandbox.Sandbox, dialect sandbox.Dialect) {
	l := &life{lifeWorld: w, t: t, played: played, dialect: dialect, published: map[ledger.Key][]string{}}
	l.begins()
	l.waitsForAPerson()
	l.isMappedByHalves()
	l.losesItsTokens()
	l.getsNewTokens()
	l.isReset(func() { l.figures() })
	l.isPaused()
	l.isSuspected()
	l.isSentAgain()
	l.isReset(func() {}) // found when the figures are sent again that were delivered long ago
	l.ends()
}

// life is one integration, with what was published for it.
type life struct {
	lifeWorld

	t         *testing.T
	played    *sandbox.Sandbox
	dialect   sandbox.Dialect
	round     int
	published map[ledger.Key][]string // figures as the partner spells them, oldest first
}

// begins adds the integration and publishes its catalog with first counts.
// The partner gets the catalog, and the mapping is opened once.
func (l *life) begins() {
	in, err := l.played.AddIntegration(sandbox.Integration{Name: lifeName, Dialect: l.dialect})
	if err != nil {
		l.t.Fatal(err)
	}
	l.add(in)
	l.quiet(func() error { return nil }) // it may take long until there is a catalog
	var catalog []*event.Event
	for _, a := range lifeAccounts {
		catalog = append(catalog, l.event("catalog", event.TypeAccount, event.Account{AccountID: a, Name: "Account " + a}))
	}
	for _, s := range lifeServices {
		catalog = append(catalog, l.event("catalog", event.TypeService, event.Service{ServiceID: s, Name: "Service " + s}))
	}
	l.figures(catalog...)
	l.until("the catalog is posted and announced", func() bool { return l.record().Status == status.Mapping })
	l.wantCatalog(0)
}

// wantCatalog checks that since the mark every account and service was created
// once, before the mapping was opened once. Where the partner takes several
// accounts in one call, they go together.
func (l *life) wantCatalog(mark uint64) {
	l.t.Helper()
	var posted []string
	for _, r := range l.played.TapeAfter(mark) {
		switch r.Operation {
		case sandbox.OperationMapping:
			posted = append(posted, "mapping")
		case sandbox.OperationAccounts, sandbox.OperationServices:
			if r.Status != http.StatusCreated {
				l.t.Errorf("%s of %q: answered %d, want 201", r.Operation, idsOf(r), r.Status)
			}
			if l.dialect == sandbox.Gradient && r.Operation == sandbox.OperationAccounts && len(r.Batch) != len(lifeAccounts) {
				l.t.Errorf("accounts in one call: got %q, want all %d", idsOf(r), len(lifeAccounts))
			}
			posted = append(posted, idsOf(r)...)
		default:
		}
	}
	if n := len(posted); n == 0 || posted[n-1] != "mapping" {
		l.t.Errorf("posted %q: want the mapping opened at the end", posted)
	}
	want := slices.Sorted(slices.Values(slices.Concat(lifeAccounts, lifeServices, []string{"mapping"})))
	if slices.Sort(posted); !slices.Equal(posted, want) {
		l.t.Errorf("posted, sorted: got %q, want each once: %q", posted, want)
	}
}

// idsOf is what a call posts.
func idsOf(r sandbox.Record) []string {
	return slices.DeleteFunc(append(slices.Clone(r.Batch), r.Account, r.Service), func(id string) bool { return id == "" })
}

// wantCatalogAgain checks that since the mark every account and service was
// posted again to a partner that has it, and that no mapping was opened.
func (l *life) wantCatalogAgain(mark uint64) {
	l.t.Helper()
	posted := map[string]bool{}
	for _, r := range l.played.TapeAfter(mark) {
		switch r.Operation {
		case sandbox.OperationMapping:
			l.t.Errorf("the mapping was opened again, for a catalog that is mapped")
		case sandbox.OperationAccounts, sandbox.OperationServices:
			if r.Status != http.StatusConflict {
				l.t.Errorf("%s of %q: answered %d, want 409", r.Operation, idsOf(r), r.Status)
			}
			for _, id := range idsOf(r) {
				posted[id] = true
			}
		default:
		}
	}
	for _, id := range slices.Concat(lifeAccounts, lifeServices) {
		if !posted[id] {
			l.t.Errorf("%q was not posted again", id)
		}
	}
}

// waitsForAPerson changes figures while nobody maps: nothing arrives, and
// there are no calls but probes.
func (l *life) waitsForAPerson() {
	mark, began := l.mark(), time.Now()
	for range 3 {
		l.figures()
		l.quiet(func() error {
			if hold := l.lane().Hold; hold != ledger.IntegrationNotReady {
				return fmt.Errorf("hold of the lane: got %q, want %s", hold, ledger.IntegrationNotReady)
			}
			return l.onlyProbes(mark, began)
		})
	}
}

// onlyProbes says what speaks against it that since the mark the partner got
// nothing but probes: single counts that it refuses. Where it can be read, it
// is read before each where the integration stands, and what is not mapped may
// be tried key by key, once.
func (l *life) onlyProbes(mark uint64, began time.Time) error {
	counts, looks := 0, 0
	for _, r := range l.played.TapeAfter(mark) {
		switch r.Operation {
		case sandbox.OperationCount:
			counts++
			if r.Accepted {
				return fmt.Errorf("count %q/%q accepted: %s", r.Account, r.Service, r.Value)
			}
		case sandbox.OperationOrganization:
			looks++
		case sandbox.OperationList: // the other half of a look
		default:
			return fmt.Errorf("%s of %q, want nothing but probes", r.Operation, idsOf(r))
		}
	}
	mostCounts, mostLooks := l.probesSince(began), 0
	if l.dialect == sandbox.Gradient {
		mostLooks = mostCounts + 2 // one more a day, and one that was cut short
		mostCounts += len(l.keys(lifeAccounts))
	}
	if counts > mostCounts || looks > mostLooks {
		return fmt.Errorf("in %v: got %d counts and %d looks, want at most %d and %d", time.Since(began), counts, looks, mostCounts, mostLooks)
	}
	return nil
}

// probesSince is how many probes are due at most from then to now, at
// intervals that double.
func (l *life) probesSince(began time.Time) (n int) {
	c := l.config()
	passed, interval := time.Since(began), c.ProbeMin
	for n = 1; passed >= interval; n++ {
		passed -= interval
		interval = min(2*interval, c.ProbeMax)
	}
	return n
}

// isMappedByHalves lets the person map half of the accounts, and later the rest.
func (l *life) isMappedByHalves() {
	mark := l.mark()
	l.maps(lifeHalf...)
	l.untilArrived(lifeHalf...)
	l.until("the rest is held one by one", func() bool { return l.all(l.unmapped, lifeAccounts[len(lifeHalf):]...) })
	l.figures()
	l.untilArrived(lifeHalf...)
	for _, key := range l.keys(lifeAccounts[len(lifeHalf):]) {
		if history := l.played.History(lifeName, key.Account, key.Service); len(history) > 0 || !l.unmapped(key) {
			e := l.entry(key)
			l.t.Errorf("%s, which nobody has mapped: got %v accepted, %s %s; want nothing, held unmapped", key, history, e.State, e.Reason)
		}
	}
	l.wantFirst(mark, 2, lifeHalf...)
	mark = l.mark()
	l.human("map the rest", l.played.Map(lifeName, sandbox.Only(lifeAccounts[len(lifeHalf):]...), sandbox.Only()))
	l.untilArrived(lifeAccounts...)
	l.wantFirst(mark, 1, lifeAccounts[len(lifeHalf):]...)
	if r := l.record(); r.Status != status.Connected || r.Generation != 0 {
		l.t.Errorf("record: got %s in generation %d, want connected in 0", r.Status, r.Generation)
	}
}

// maps lets the person map the accounts and then all services, and finish
// where there is something to finish. In between the bridge may look.
func (l *life) maps(accounts ...string) {
	l.t.Helper()
	l.human("map accounts", l.played.Map(lifeName, sandbox.Only(accounts...), sandbox.Only()))
	if l.dialect == sandbox.Gradient {
		l.until("the mapped accounts are seen", func() bool { return l.record().Status == status.Pending })
	}
	l.human("map services", l.played.Map(lifeName, sandbox.Only(), sandbox.All()))
	if l.dialect == sandbox.MSPCentric {
		l.human("finish", l.played.Finish(lifeName))
	}
}

func (l *life) human(what string, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("the person cannot %s: %v", what, err)
	}
}

// losesItsTokens takes the tokens back: it is found out once, and then there
// are no calls at all.
func (l *life) losesItsTokens() {
	l.rests()
	mark := l.mark()
	l.human("revoke the tokens", l.played.RevokeTokens(lifeName))
	l.figures()
	l.until("the refusal is on record", func() bool {
		lane := l.lane()
		return l.record().Hold == string(ledger.Unauthorized) && lane.Hold == ledger.Unauthorized && lane.Sending == 0
	})
	refused := 0
	for _, r := range l.played.TapeAfter(mark) {
		key := ledger.CountKey(lifeOrganization, r.Account, r.Service)
		switch {
		case r.Status == http.StatusUnauthorized:
			refused++
		case r.Operation != sandbox.OperationCount || r.Value == l.newest(key): // else it was under way already
			l.t.Errorf("%s of %q: got %d %s, want 401", r.Operation, idsOf(r), r.Status, r.Message)
		}
	}
	if most := l.config().PartnerConcurrency; refused < 1 || refused > most {
		l.t.Errorf("calls with revoked tokens: got %d, want 1 to %d, as many as may be under way", refused, most)
	}
	l.wantSilence(3)
}

// wantSilence changes figures so many times, and checks that there are no
// calls.
func (l *life) wantSilence(times int) {
	l.t.Helper()
	mark := l.mark()
	for range times {
		l.figures()
		l.quiet(func() error {
			if calls := l.played.TapeAfter(mark); len(calls) > 0 {
				return fmt.Errorf("%d calls, want none: %+v", len(calls), calls)
			}
			return nil
		})
	}
}

// getsNewTokens sets new tokens, behind which everything may be new and empty:
// the catalog is posted again, and then every current figure.
func (l *life) getsNewTokens() {
	mark := l.mark()
	in, err := l.played.IssueTokens(lifeName)
	l.human("issue tokens", err)
	l.setTokens(in)
	l.untilArrived(lifeAccounts...)
	l.wantCatalogAgain(mark)
	l.wantFirst(mark, 1, lifeAccounts...)
}

// isReset lets the user press Authenticate: the partner has nothing of us any
// more, and says so when figures are sent. Everything begins anew.
func (l *life) isReset(meanwhile func()) {
	l.rests()
	generation := l.record().Generation
	mark := l.mark()
	l.human("press Authenticate", l.played.Reset(lifeName))
	meanwhile()
	l.until("the catalog is posted and announced again", func() bool { return l.record().Status == status.Mapping })
	l.wantCatalog(mark)
	l.maps(lifeAccounts...)
	l.untilArrived(lifeAccounts...)
	l.wantFirst(mark, 1, lifeAccounts...)
	if got := l.record().Generation; got != generation+1 {
		l.t.Errorf("generation after the reset: got %d, want %d", got, generation+1)
	}
}

// isPaused pauses the integration, and resumes it.
func (l *life) isPaused() {
	l.rests()
	l.pause(true)
	l.until("the lane is paused", func() bool { lane := l.lane(); return lane.Hold == ledger.Paused && lane.Sending == 0 })
	l.wantSilence(1)
	mark := l.mark()
	l.pause(false)
	l.untilArrived(lifeAccounts...)
	l.wantFirst(mark, 1, lifeAccounts...)
}

// isSuspected lets the partner see an anomaly in the usage, and take it back:
// a probe finds out.
func (l *life) isSuspected() {
	l.rests()
	l.human("set the anomaly", l.played.SetAnomaly(lifeName, true))
	l.figures()
	suspected := func() bool {
		return l.record().Hold == string(ledger.Anomaly) && l.lane().Hold == ledger.Anomaly
	}
	l.until("the anomaly is on record", func() bool { return suspected() && l.lane().Sending == 0 })
	mark, began := l.mark(), time.Now()
	l.figures()
	l.quiet(func() error {
		if !suspected() {
			return fmt.Errorf("hold: got %q on record and %q of the lane, want %s", l.record().Hold, l.lane().Hold, ledger.Anomaly)
		}
		return l.onlyProbes(mark, began)
	})
	mark = l.mark()
	l.human("take the anomaly back", l.played.SetAnomaly(lifeName, false))
	l.untilArrived(lifeAccounts...)
	l.until("the anomaly is over on record", func() bool { return l.record().Hold == "" && l.lane().Hold == "" })
	l.wantFirst(mark, 1, lifeAccounts...)
}

// isSentAgain has an operator send everything once more.
func (l *life) isSentAgain() {
	l.rests()
	mark := l.mark()
	l.resync()
	l.until("every figure is sent again", func() bool {
		return len(l.accepted(mark)) == len(l.keys(lifeAccounts))
	})
	l.wantCatalogAgain(mark)
	l.wantFirst(mark, 1, lifeAccounts...)
}

// ends checks what holds over the whole life.
func (l *life) ends() {
	l.rests()
	l.figures()
	l.untilArrived(lifeAccounts...)
	l.rests()
	for _, key := range l.keys(lifeAccounts) {
		last := -1
		for _, took := range l.played.History(lifeName, key.Account, key.Service) {
			at := slices.Index(l.published[key], took.Value)
			if at < last || at < 0 {
				l.t.Errorf("%s: the partner took %s after %s; published were %q", key, took.Value, l.published[key][max(last, 0)], l.published[key])
			}
			last = max(last, at)
		}
	}
	if l.dialect == sandbox.Gradient {
		l.until("the billing view shows every figure", func() bool {
			return l.all(func(key ledger.Key) bool {
				billed, _ := l.played.Billed(lifeName, key.Account, key.Service)
				return billed == l.newest(key)
			}, lifeAccounts...)
		})
	}
	transitions, letters := l.books()
	if letters != 0 {
		l.t.Errorf("dead letters: got %d, want none", letters)
	}
	l.wantTransitions(transitions)
}

// wantTransitions compares STATUS with the table.
func (l *life) wantTransitions(transitions []status.Transition) {
	l.t.Helper()
	got, want := make([]string, len(transitions)), make([]string, len(lifeExpected[l.dialect]))
	for at, t := range transitions {
		actor := "operator"
		if strings.HasPrefix(t.Actor, "worker ") {
			actor = "worker"
		}
		got[at] = lifeMove{t.From, t.To, status.Input(t.Cause), actor, strings.Join(t.Gates, ","), t.Generation}.String()
	}
	for at, m := range lifeExpected[l.dialect] {
		want[at] = m.String()
	}
	if !slices.Equal(got, want) {
		l.t.Errorf("STATUS: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// event is one of now.
func (l *life) event(id, kind string, data event.Data) *event.Event {
	e := &event.Event{
		Source: "//test", Type: kind, Time: time.Now().UTC(),
		Vendor: lifeVendor, Organization: lifeOrganization, Data: data,
	}
	e.ID = id + " " + e.Subject().String()
	return e
}

// figures publishes a new figure of every key, behind the given events in the
// same message, and waits until the ledger has them. No two figures are alike.
func (l *life) figures(before ...*event.Event) {
	l.t.Helper()
	l.round++
	keys, units := l.keys(lifeAccounts), map[ledger.Key]event.Units{}
	for at, key := range keys {
		units[key] = event.Units(l.round)*event.UnitsScale + event.Units(at+1)*event.UnitsScale/100
		l.published[key] = append(l.published[key], units[key].String())
		before = append(before, l.event(fmt.Sprint("round ", l.round), event.TypeCount,
			event.Count{AccountID: key.Account, ServiceID: key.Service, UnitCount: units[key]}))
	}
	l.publish(before)
	l.until("the ledger has the new figures", func() bool {
		return l.all(func(key ledger.Key) bool {
			e := l.entry(key)
			desired, _ := e.Desired()
			return desired.Value.Units == int64(units[key])
		}, lifeAccounts...)
	})
}

// keys are the counts of the accounts.
func (l *life) keys(accounts []string) (keys []ledger.Key) {
	for _, a := range accounts {
		for _, s := range lifeServices {
			keys = append(keys, ledger.CountKey(lifeOrganization, a, s))
		}
	}
	return keys
}

// all says whether something holds for every count of the accounts.
func (l *life) all(holds func(ledger.Key) bool, accounts ...string) bool {
	return !slices.ContainsFunc(l.keys(accounts), func(key ledger.Key) bool { return !holds(key) })
}

func (l *life) newest(key ledger.Key) string { return l.published[key][len(l.published[key])-1] }

func (l *life) unmapped(key ledger.Key) bool {
	e := l.entry(key)
	return e.State == ledger.Held && e.Reason == ledger.Unmapped
}

// untilArrived waits until the partner has the newest figure of every count of
// the accounts.
func (l *life) untilArrived(accounts ...string) {
	l.t.Helper()
	l.until(fmt.Sprintf("the newest figures of %q arrive", accounts), func() bool {
		return l.all(func(key ledger.Key) bool {
			value, _ := l.played.Value(lifeName, key.Account, key.Service)
			return value == l.newest(key)
		}, accounts...)
	})
}

// rests waits until all is delivered and recorded, and nothing is under way.
func (l *life) rests() {
	l.t.Helper()
	l.until("all is delivered and at rest", func() bool {
		lane := l.lane()
		return lane.Hold == "" && lane.Sending+lane.Queued+lane.Recording+lane.Waiting+lane.Unmapped == 0 &&
			l.all(func(key ledger.Key) bool { e := l.entry(key); return e.State == ledger.Synced }, lifeAccounts...)
	})
}

func (l *life) mark() uint64 { return uint64(len(l.played.Tape())) }

// accepted lists what the partner took since the mark, by key.
func (l *life) accepted(mark uint64) map[ledger.Key][]string {
	took := map[ledger.Key][]string{}
	for _, r := range l.played.TapeAfter(mark) {
		if r.Operation == sandbox.OperationCount && r.Accepted {
			key := ledger.CountKey(lifeOrganization, r.Account, r.Service)
			took[key] = append(took[key], r.Value)
		}
	}
	return took
}

// wantFirst checks that what the partner took since the mark were counts of
// the accounts, all of them, and none of an older figure than the newest of so
// many rounds.
func (l *life) wantFirst(mark uint64, rounds int, accounts ...string) {
	l.t.Helper()
	took := l.accepted(mark)
	for _, key := range l.keys(accounts) {
		if len(took[key]) == 0 {
			l.t.Errorf("%s: nothing was accepted, want %s", key, l.newest(key))
		}
	}
	for _, key := range slices.Collect(maps.Keys(took)) {
		known := l.published[key][len(l.published[key])-rounds:]
		for _, value := range took[key] {
			if !slices.Contains(known, value) {
				l.t.Errorf("%s: the partner took %q, want nothing but %q", key, took[key], known)
				break
			}
		}
	}
}
