package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// The crowd: most integrations are good, the others fail in the ways that last.
const (
	crowdGood      = 880
	crowdUnready   = 100 // their human never comes
	crowdRefused   = 10  // their tokens are revoked
	crowdThrottled = 10  // answered 429 whatever they do
	crowdAccounts  = 2   // of each integration
	crowdServices  = 2
	crowdCounts    = crowdAccounts * crowdServices
	crowdRate      = 1500 // calls per second that the partner's server gets, less than two cores make
	crowdPatience  = time.Minute
)

// crowdSite is a thousand integrations with one partner, behind a turnstile,
// and what a worker needs to serve them.
type crowdSite struct {
	b         *testing.B
	app       *app
	partner   *sandbox.Sandbox
	turnstile *turnstile
	publisher *publisher.Publisher
	bucket    *broker.Bucket[status.Integration]
	keys      *vault.Vault

	good, unready, refused, throttled []string // organizations
	round                             int      // that is published: the value of every count
}

// turnstile stands before the partner and counts who calls. The first segment
// of a path, which it takes away, names the organization.
type turnstile struct {
	next http.Handler

	mu       sync.Mutex
	calls    map[string]int // by organization
	wanted   int            // accepted calls of good ones still to come
	finished time.Time      // when none was left
	done     chan struct{}  // closed then
}

func (s *turnstile) expect(wanted int) (done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls, s.wanted, s.done = map[string]int{}, wanted, make(chan struct{})
	return s.done
}

// ServeHTTP passes a call on to the partner.
func (s *turnstile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	organization, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	answer := &overheard{ResponseWriter: w}
	http.StripPrefix("/"+organization, s.next).ServeHTTP(answer, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[organization]++
	if answer.status >= 300 || !strings.HasPrefix(organization, "good-") {
		return
	}
	if s.wanted--; s.wanted == 0 {
		s.finished = time.Now()
		close(s.done)
	}
}

// of is how often each of the organizations has called since expect.
func (s *turnstile) of(organizations []string) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := map[string]int{}
	for _, organization := range organizations {
		calls[organization] = s.calls[organization]
	}
	return calls
}

// overheard keeps the status of an answer in mind.
type overheard struct {
	http.ResponseWriter
	status int
}

// WriteHeader passes the status on.
func (o *overheard) WriteHeader(code int) {
	o.status = code
	o.ResponseWriter.WriteHeader(code)
}

// newCrowdSite makes the integrations as they stand on an ordinary day: the
// catalog of all is posted, the good ones are mapped and connected, and so
// were those once that the partner no longer lets in.
func newCrowdSite(b *testing.B) *crowdSite {
	b.Helper()
	s := &crowdSite{b: b, partner: sandbox.New(sandbox.Config{Human: sandbox.HumanAPI})}
	s.turnstile = &turnstile{next: s.partner.Handler()}
	server := httptest.NewServer(s.turnstile)
	b.Cleanup(func() {
		s.partner.Close()
		server.Close()
	})
	s.open()
	for kind, organizations := range map[string]*[]string{"good": &s.good, "unready": &s.unready, "refused": &s.refused, "throttled": &s.throttled} {
		n := map[string]int{"good": crowdGood, "unready": crowdUnready, "refused": crowdRefused, "throttled": crowdThrottled}[kind]
		for i := range n {
			*organizations = append(*organizations, fmt.Sprintf("%s-%d", kind, i))
		}
	}
	for _, organization := range s.all() {
		s.add(organization, server.URL+"/"+organization+"/api")
	}
	s.settle()
	return s
}

// open starts the server and everything on this side of the partner.
func (s *crowdSite) open() {
	s.b.Helper()
	config, err := loadConfig()
	s.must(err)
	config.StoreDir, config.NATSListen, config.NATSURL = filepath.Join(s.b.TempDir(), "store"), "127.0.0.1:-1", ""
	// What the good ones and the bad ones have to share is the server, by a
	// limit: else the noise of the machine is all that is measured. A held
	// integration is probed much sooner than by default, so that it happens here.
	config.PartnerRate, config.PartnerHostRate, config.ProbeMin = 0, crowdRate, time.Second
	s.app, err = openApp(s.b.Context(), config, newLogger(s.b.Output(), "error", "text"))
	s.must(err)
	s.b.Cleanup(s.app.close)
	_, err = s.app.broker.Init(s.b.Context(), broker.InitConfig{Vendor: "acme"})
	s.must(err)
	s.publisher, err = publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	s.must(err)
	s.bucket, err = s.app.integrations(s.b.Context())
	s.must(err)
	s.keys, err = s.app.vault(s.b.Context())
	s.must(err)
}

func (s *crowdSite) must(err error) {
	s.b.Helper()
	if err != nil {
		s.b.Fatal(err)
	}
}

func (s *crowdSite) bad() []string { return slices.Concat(s.unready, s.refused, s.throttled) }
func (s *crowdSite) all() []string { return slices.Concat(s.good, s.bad()) }

// add makes an integration on both sides. The record is written as the command
// does it, but for the comparison with the tokens of all others.
func (s *crowdSite) add(organization, apiURL string) {
	s.b.Helper()
	made, err := s.partner.AddIntegration(sandbox.Integration{Name: "acme/" + organization})
	s.must(err)
	i := status.Integration{Vendor: "acme", Organization: organization, Dialect: "mspcentric", APIURL: apiURL}
	stands := status.Connected
	if slices.Contains(s.unready, organization) {
		stands = status.Inactive
	} else {
		s.must(s.partner.SetStatus("acme/"+organization, sandbox.Connected))
	}
	i.Begin(status.Observation{At: time.Now().UTC(), Observed: stands, Actor: "test"})
	s.must(seal(&i, s.keys, newIntegration{vendorToken: made.VendorToken, partnerToken: made.PartnerToken}))
	s.must(s.bucket.Create(s.b.Context(), broker.IntegrationKey("acme", organization), i))
}

// settle has the catalog posted, and mapped where a human comes.
func (s *crowdSite) settle() {
	s.b.Helper()
	var events []*event.Event
	for _, organization := range s.all() {
		for i := range crowdAccounts {
			events = append(events, &event.Event{Organization: organization, Data: event.Account{AccountID: fmt.Sprint("a", i), Name: "A"}})
		}
		for i := range crowdServices {
			events = append(events, &event.Event{Organization: organization, Data: event.Service{ServiceID: fmt.Sprint("s", i), Name: "S"}})
		}
	}
	s.publish(events)
	s.turnstile.expect(0)
	w := s.worker()
	w.folds(len(events), event.FamilyCatalog)
	w.follows()
	mapping := func() (n int) {
		records, err := s.bucket.All(s.b.Context())
		s.must(err)
		for _, i := range records {
			if i.Status == status.Mapping && i.Announced {
				n++
			}
		}
		return n
	}
	s.until("every catalog is posted", func() bool { return w.synced() == len(events) })
	s.until("the mapping of those that are not ready is announced", func() bool { return mapping() == crowdUnready })
	w.stop()
	for _, organization := range slices.Concat(s.good, s.refused, s.throttled) {
		s.must(s.partner.Map("acme/"+organization, sandbox.All(), sandbox.All()))
	}
}

func (s *crowdSite) publish(events []*event.Event) {
	s.b.Helper()
	_, err := s.publisher.PublishAll(s.b.Context(), publisher.Records(slices.Values(events)), func(publisher.Result) {})
	s.must(err)
}

func (s *crowdSite) until(what string, condition func() bool) {
	s.b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(crowdPatience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			s.b.Fatalf("not within %v: %s", crowdPatience, what)
		}
	}
}

// crowdWorker is a worker that folds at once and knows no integration until it
// follows them: what takes time from then on is delivery alone.
type crowdWorker struct {
	site     *crowdSite
	engine   *engine
	registry *prometheus.Registry
	ctx      context.Context //nolint:containedctx // of all that the worker does, ended by stop
	cancel   context.CancelFunc
	running  sync.WaitGroup
	started  time.Time
}

func (s *crowdSite) worker() *crowdWorker {
	s.b.Helper()
	w := &crowdWorker{site: s, registry: newRegistry(), started: time.Now()}
	var err error
	w.engine, err = newEngine(s.b.Context(), s.app, w.registry)
	s.must(err)
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(s.b.Context()))
	s.b.Cleanup(w.stop)
	w.runs("worker", w.engine.worker.Run)
	return w
}

func (w *crowdWorker) runs(what string, run func(context.Context) error) {
	w.running.Go(func() {
		if err := run(w.ctx); err != nil {
			w.site.b.Errorf("%s ended with %v, want no error", what, err)
		}
	})
}

func (w *crowdWorker) follows() { w.runs("follow", w.engine.follow) }

func (w *crowdWorker) stop() {
	w.cancel()
	w.running.Wait()
}

// folds waits until so many events of the family are folded.
func (w *crowdWorker) folds(n int, family string) {
	w.site.b.Helper()
	w.site.until("the events are folded", func() bool { return w.gauge("usagebridge_events_received_total", family) >= n })
}

func (w *crowdWorker) synced() int { return w.gauge("usagebridge_ledger_keys", string(ledger.Synced)) }

// gauge is the sum of a metric's series that have the label value.
func (w *crowdWorker) gauge(name, value string) (sum int) {
	families, err := w.registry.Gather()
	w.site.must(err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetValue() == value {
					sum += int(m.GetGauge().GetValue() + m.GetCounter().GetValue())
				}
			}
		}
	}
	return sum
}

// pass publishes a count for every key of the organizations, has a worker fold
// them, lets it loose on the partner, and says how long the good ones took.
func (s *crowdSite) pass(organizations []string, check func(w *crowdWorker)) time.Duration {
	s.b.Helper()
	s.round++
	var events []*event.Event
	for i := range crowdCounts {
		for _, organization := range organizations {
			events = append(events, &event.Event{Organization: organization, Data: event.Count{
				AccountID: fmt.Sprint("a", i%crowdAccounts), ServiceID: fmt.Sprint("s", i/crowdAccounts), UnitCount: event.Units(s.round) * event.UnitsScale,
			}})
		}
	}
	s.publish(events)
	done := s.turnstile.expect(crowdGood * crowdCounts)
	w := s.worker()
	w.folds(len(events), event.FamilyUsage)
	began := time.Now()
	w.follows()
	select {
	case <-done:
	case <-time.After(crowdPatience):
		s.b.Fatalf("the good ones are not synced within %v", crowdPatience)
	}
	took := s.turnstile.finished.Sub(began)
	if check != nil {
		check(w)
	}
	want := len(s.all())*(crowdAccounts+crowdServices) + crowdGood*crowdCounts
	s.until("the answers are recorded", func() bool { return w.synced() == want })
	w.stop()
	s.checkFigures()
	return took
}

// checkFigures checks that the partner has the newest figures of the good ones,
// each sent once, and no figure of the bad ones.
func (s *crowdSite) checkFigures() {
	s.b.Helper()
	report := s.partner.Report()
	for _, i := range report.Integrations {
		right, others := 0, 0
		for _, services := range i.Counts {
			for _, value := range services {
				if value.String() == fmt.Sprint(s.round) {
					right++
				} else {
					others++
				}
			}
		}
		want := 0
		if strings.HasPrefix(i.Name, "acme/good-") {
			want = crowdCounts
		}
		if right != want || others != 0 {
			s.b.Fatalf("%s: the partner has the newest figure of %d keys and others of %d, want %d and 0", i.Name, right, others, want)
		}
	}
	for organization, n := range s.turnstile.of(s.good) {
		if n != crowdCounts {
			s.b.Fatalf("%s: %d calls, want %d", organization, n, crowdCounts)
		}
	}
}

// spoil makes the bad ones bad.
func (s *crowdSite) spoil() {
	s.b.Helper()
	for _, organization := range s.refused {
		s.must(s.partner.RevokeTokens("acme/" + organization))
	}
	plan := sandbox.Plan{Seed: 1}
	for _, organization := range s.throttled {
		plan.Rules = append(plan.Rules, sandbox.Rule{Integration: "acme/" + organization, Probability: 1, Effect: sandbox.StatusBefore, Status: http.StatusTooManyRequests})
	}
	s.must(s.partner.SetFaults(plan))
}

// leave takes the integrations out of the records, join puts them back.
func (s *crowdSite) leave(organizations []string) (join func()) {
	s.b.Helper()
	records := map[string]status.Integration{}
	for _, organization := range organizations {
		key := broker.IntegrationKey("acme", organization)
		record, _, err := s.bucket.Get(s.b.Context(), key)
		s.must(err)
		s.must(s.bucket.Delete(s.b.Context(), key))
		records[key] = record
	}
	return func() {
		for key, record := range records {
			s.must(s.bucket.Create(s.b.Context(), key, record))
		}
	}
}

// checkBudgets waits until every gate but that of bad tokens has opened twice,
// and gives the calls to all bad ones.
func (s *crowdSite) checkBudgets(w *crowdWorker, refused int) (calls int) {
	s.b.Helper()
	s.until("those that are never ready are probed twice, and so are those that are throttled", func() bool {
		for _, n := range s.turnstile.of(slices.Concat(s.unready, s.throttled)) {
			if n < 2 {
				return false
			}
		}
		return true
	})
	c := s.app.config
	ran := time.Since(w.started)
	for _, kind := range []struct {
		organizations []string
		least, most   int
	}{
		// A gate opens again after a wait that doubles: a probe's is exact, that
		// after a 429 half as long at least. A lane begins with a single call.
		{s.unready, 2, openings(ran, c.ProbeMin, c.ProbeMax)},
		{s.throttled, 2, 1 + openings(ran, c.RetryMin/2, c.RetryMax/2)},
		{s.refused, refused, refused},
	} {
		for organization, n := range s.turnstile.of(kind.organizations) {
			calls += n
			if n < kind.least || n > kind.most {
				s.b.Errorf("%s: %d calls in %v, want %d to %d", organization, n, ran, kind.least, kind.most)
			}
		}
	}
	return calls
}

// openings is how often a gate opens within d when its wait doubles each time.
func openings(d, least, most time.Duration) (n int) {
	for wait := least; d >= wait; wait = min(2*wait, most) {
		d -= wait
		n++
	}
	return n
}

// BenchmarkAThousandIntegrations compares how fast 880 good integrations are
// synced alone and beside 120 bad ones. The passes in the crowd come between
// those alone, so that what only grows or warms up speaks for neither.
func BenchmarkAThousandIntegrations(b *testing.B) {
	for b.Loop() {
		s := newCrowdSite(b)
		s.spoil()
		join := s.leave(s.bad())
		alone := s.pass(s.good, nil)
		join()
		calls := 0
		crowd := s.pass(s.all(), func(w *crowdWorker) { calls += s.checkBudgets(w, 1) })
		// The next worker knows of the bad tokens and does not try them.
		crowd += s.pass(s.all(), func(w *crowdWorker) { calls += s.checkBudgets(w, 0) })
		s.leave(s.bad())
		alone += s.pass(s.good, nil)

		ratio := alone.Seconds() / crowd.Seconds()
		b.ReportMetric(alone.Seconds()/2, "good_alone_s")
		b.ReportMetric(crowd.Seconds()/2, "good_in_crowd_s")
		b.ReportMetric(ratio, "ratio")
		b.ReportMetric(float64(calls), "calls_to_bad")
		if ratio < 0.5 {
			b.Fatalf("good integrations were synced after %v alone and %v in the crowd: ratio %.2f, want about 1", alone/2, crowd/2, ratio)
		}
	}
}
