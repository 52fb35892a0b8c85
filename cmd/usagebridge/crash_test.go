package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// crashSite is a NATS server and a partner that outlive workers in processes
// of their own.
type crashSite struct {
	t       *testing.T
	app     *app
	partner *sandbox.Sandbox
	env     []string
}

const (
	crashAccounts = 20
	crashServices = 25
	crashRounds   = 6
)

func newCrashSite(t *testing.T, plan sandbox.Plan) *crashSite {
	t.Helper()
	return newCrashSiteOf(t, plan, 2)
}

func newCrashSiteOf(t *testing.T, plan sandbox.Plan, partitions int) *crashSite {
	t.Helper()
	dir := t.TempDir()
	s := &crashSite{t: t, partner: sandbox.New(sandbox.Config{Faults: plan})}
	server := httptest.NewServer(s.partner.Handler())
	t.Cleanup(func() {
		s.partner.Close()
		server.Close()
	})
	config, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.StoreDir, config.NATSListen, config.NATSURL = filepath.Join(dir, "store"), "127.0.0.1:-1", ""
	if s.app, err = openApp(t.Context(), config, newLogger(t.Output(), "warn", "text")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.app.close)
	if _, err := s.app.broker.Init(t.Context(), broker.InitConfig{Vendor: "acme", Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	made, err := s.partner.AddIntegration(sandbox.Integration{Name: "acme/m"})
	if err != nil {
		t.Fatal(err)
	}
	err = s.app.addIntegration(t.Context(), newIntegration{
		vendor: "acme", organization: "m", dialect: "mspcentric", status: "inactive", apiURL: server.URL + "/api",
		vendorToken: made.VendorToken, partnerToken: made.PartnerToken,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(os.Environ(),
		"USAGEBRIDGE_NATS_URL="+s.app.embedded.ClientURL(), "USAGEBRIDGE_STORE_DIR="+config.StoreDir,
		"USAGEBRIDGE_LISTEN=127.0.0.1:0", "USAGEBRIDGE_PARTNER_RATE=0", "USAGEBRIDGE_PROBE_MIN=200ms", "USAGEBRIDGE_PROBE_MAX=1s",
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"), "USAGEBRIDGE_LINGER=20ms", "USAGEBRIDGE_LOG_LEVEL=warn", "USAGEBRIDGE_RETRY_MAX=2s")
	return s
}

// worker starts a worker in a process of its own; kill ends it without a word.
func (s *crashSite) worker() (kill func()) {
	s.t.Helper()
	path, err := exec.LookPath("usagebridge")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), path, "run")
	cmd.Env = s.env
	cmd.Stderr = s.t.Output()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s.freeLeases()
	}
}

// freeLeases ends the leases of a worker that is known to be dead, instead of
// waiting until they end by themselves.
func (s *crashSite) freeLeases() {
	s.t.Helper()
	bucket, err := broker.OpenBucket[json.RawMessage](s.t.Context(), s.app.broker, broker.BucketLeases)
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := bucket.All(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for key := range all {
		if err := bucket.Delete(s.t.Context(), key); err != nil {
			s.t.Fatal(err)
		}
	}
}

// publish publishes a catalog and rounds of figures whose value is their round
// number: the newest figure of every key is the last round's.
func (s *crashSite) publish() error {
	p, err := publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		return err
	}
	var events []*event.Event
	begun := time.Now().Add(-time.Hour)
	add := func(at time.Time, data event.Data) {
		events = append(events, &event.Event{Organization: "m", Time: at, Data: data})
	}
	for a := range crashAccounts {
		add(begun, event.Account{AccountID: fmt.Sprint("a", a), Name: "A"})
	}
	for v := range crashServices {
		add(begun, event.Service{ServiceID: fmt.Sprint("s", v), Name: "S"})
	}
	for round := range crashRounds {
		for key := range crashAccounts * crashServices {
			add(begun.Add(time.Duration(round)*time.Minute), event.Count{
				AccountID: fmt.Sprint("a", key%crashAccounts), ServiceID: fmt.Sprint("s", key/crashAccounts),
				UnitCount: event.Units(round) * event.UnitsScale,
			})
		}
	}
	_, err = p.PublishAll(s.t.Context(), publisher.Records(slices.Values(events)), func(publisher.Result) {})
	return err
}

// right counts the keys that have the last round's figure at the partner.
func (s *crashSite) right() (n int) {
	report, _ := s.partner.ReportOf("acme/m")
	for _, services := range report.Counts {
		for _, value := range services {
			if value.String() == fmt.Sprint(crashRounds-1) {
				n++
			}
		}
	}
	return n
}

func (s *crashSite) checkOrder() {
	s.t.Helper()
	for a := range crashAccounts {
		for v := range crashServices {
			history := s.partner.History("acme/m", fmt.Sprint("a", a), fmt.Sprint("s", v))
			if !slices.IsSortedFunc(history, func(x, y sandbox.Accepted) int { return compareText(x.Value, y.Value) }) {
				s.t.Errorf("key a%d/s%d: the partner took %v: an older figure after a newer one", a, v, history)
			}
		}
	}
}

func compareText(x, y string) int {
	if len(x) != len(y) {
		return len(x) - len(y)
	}
	return slices.Compare([]byte(x), []byte(y))
}

func eventuallyTrue(t *testing.T, within time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-tick.C
	}
}

func TestAKilledWorkerChangesNothingInTheEnd(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{Seed: 1, Rules: []sandbox.Rule{
		{Operation: sandbox.OperationCount, Probability: 0.02, Effect: sandbox.ResetAfter},
		{Operation: sandbox.OperationCount, Probability: 0.02, Effect: sandbox.ResetBefore},
		{Operation: sandbox.OperationCount, Probability: 0.02, Effect: sandbox.StatusBefore, Status: 503},
		{Operation: sandbox.OperationCount, Probability: 1, Effect: sandbox.Delay, Latency: 2 * time.Millisecond, Jitter: 5 * time.Millisecond},
	}})
	published := make(chan error, 1)
	go func() { published <- s.publish() }()
	for range 5 {
		kill := s.worker()
		before := s.partner.Report().Totals.AcceptedCounts
		progress := before + rand.IntN(100)
		eventuallyTrue(t, time.Minute, "a worker makes progress", func() bool {
			return s.partner.Report().Totals.AcceptedCounts >= progress || s.right() == crashAccounts*crashServices
		})
		kill()
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	kill := s.worker()
	defer kill()
	eventuallyTrue(t, 2*time.Minute, "every key has the newest figure", func() bool {
		return s.right() == crashAccounts*crashServices
	})
	s.checkOrder()
}

func TestBadWeatherEndsExactWithFewCalls(t *testing.T) {
	t.Parallel()
	const outage = 6 * time.Second
	s := newCrashSite(t, sandbox.Plan{Seed: 2, Rules: []sandbox.Rule{
		{Name: "outage", Operation: sandbox.OperationCount, Probability: 1, Until: outage, Effect: sandbox.StatusBefore, Status: 503},
		{Name: "too fast", Operation: sandbox.OperationCount, First: 3, Effect: sandbox.StatusBefore, Status: 429, RetryAfter: time.Second},
		{Name: "torn", Operation: sandbox.OperationCount, Probability: 0.05, Effect: sandbox.ResetAfter},
	}})
	kill := s.worker()
	defer kill()
	if err := s.publish(); err != nil {
		t.Fatal(err)
	}
	const keys = crashAccounts * crashServices
	eventuallyTrue(t, time.Minute, "every key has the newest figure", func() bool { return s.right() == keys })
	s.checkOrder()
	calls := map[string]int{}
	for _, r := range s.partner.Tape() {
		calls[r.Fault]++
	}
	// Sixteen calls may be under way when the outage begins, and single ones
	// find out whether it is over.
	if got := calls["outage"]; got == 0 || got > 16+20 {
		t.Errorf("calls during the outage: got %d, want 1 to 36 for %d keys", got, keys)
	}
	if got := calls["too fast"]; got != 3 {
		t.Errorf("calls answered 429: got %d, want 3", got)
	}
	if got := len(s.partner.Tape()); got > 3*keys {
		t.Errorf("calls in all: got %d, want at most 3 a key", got)
	}
}
