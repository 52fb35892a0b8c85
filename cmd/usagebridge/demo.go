package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// How the demo differs from a worker in production, where nobody waits.
const (
	demoRate       = 2000                   // calls per second and integration
	demoProbeMin   = 300 * time.Millisecond // probes of a held integration
	demoProbeMax   = 2 * time.Second
	demoRetryMax   = 5 * time.Second
	demoHumanDelay = 1500 * time.Millisecond // until the person at the MSP has mapped
	demoMorning    = 30 * time.Second        // the second half of the day waits for the mapping so long at most
	demoPatience   = 5 * time.Minute         // after the last event, until everything must be delivered
)

type demoOptions struct {
	events int
	seed   uint64
	keep   bool
}

// demo is one run: the whole system in this process, fed by a plan.
type demo struct {
	cli      *cli
	options  demoOptions
	plan     *demoPlan
	config   Config
	app      *app
	partner  *sandbox.Sandbox
	registry *prometheus.Registry
	began    time.Time

	partnerURL string
	httpURL    string
	feed       feed
	afternoon  chan struct{} // closed when the second half of the day may begin

	// Of look alone.
	isAfternoon bool
	quiet       int // looks in a row at which everything was delivered
	held        int // most keys that waited at one time for both integrations to be ready
}

// demo runs a demo in a directory of its own and reports.
func (c *cli) demo(ctx context.Context, o demoOptions, config Config) error {
	dir, err := os.MkdirTemp("", "usagebridge-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d := &demo{cli: c, options: o, config: demoConfig(config, dir), registry: newRegistry(), began: time.Now(), afternoon: make(chan struct{})}
	d.plan = newDemoPlan(o.seed, o.events, d.began)

	c.say("usagebridge demo: seed %d, %s unit counts of %d MSPs, a partner with a bad day", o.seed, thousands(o.events), len(demoOrganizations()))

	log := newLogger(c.stderr, d.config.LogLevel, d.config.LogFormat)
	if d.app, err = openApp(ctx, d.config, log); err != nil {
		return err
	}
	defer d.app.close()
	stop, err := d.furnish(ctx, log)
	if err != nil {
		return err
	}
	defer stop()
	return d.run(ctx)
}

// demoConfig is the environment's configuration where that makes sense for a
// demo. Anything that would reach beyond this process or leave something
// behind is replaced.
func demoConfig(c Config, dir string) Config {
	c.NATSURL, c.NATSCreds, c.NATSListen = "", "", "127.0.0.1:0"
	c.StoreDir, c.StoreKeyFile, c.MasterKeyset = dir, "", ""
	c.Listen, c.WorkerID = "127.0.0.1:0", "demo"
	// The plan has events on both sides of the contract's own limits.
	c.TooFarAhead, c.TooOld = event.DefaultLimits().Ahead, event.DefaultLimits().Lateness
	unless := func(name string, set func()) {
		if _, given := os.LookupEnv(envPrefix + "_" + name); !given {
			set()
		}
	}
	unless("PARTNER_RATE", func() { c.PartnerRate = demoRate })
	unless("PROBE_MIN", func() { c.ProbeMin = min(demoProbeMin, c.ProbeMax) })
	unless("PROBE_MAX", func() { c.ProbeMax = max(demoProbeMax, c.ProbeMin) })
	unless("RETRY_MAX", func() { c.RetryMax = max(demoRetryMax, c.RetryMin) })
	// Dead letters are part of the show and each is a warning.
	unless("LOG_LEVEL", func() { c.LogLevel = "error" })
	return c
}

// furnish sets up the vendor, the partner, and an integration for each MSP.
func (d *demo) furnish(ctx context.Context, log *slog.Logger) (undo func(), err error) {
	if _, err := d.app.broker.Init(ctx, broker.InitConfig{Vendor: demoVendor}); err != nil {
		return nil, err
	}
	var integrations []sandbox.Integration
	for i, name := range demoIntegrations() {
		integrations = append(integrations, sandbox.Integration{Name: name, VendorToken: "demo-vendor-token", PartnerToken: fmt.Sprintf("demo-partner-token-%d", i)}) //nolint:gosec // made up for a partner that is played
	}
	d.partner = sandbox.New(sandbox.Config{Integrations: integrations, HumanDelay: demoHumanDelay, Faults: demoFaults(d.plan.seed)})
	listener, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the sandbox partner: %w", err)
	}
	d.partnerURL = "http://" + listener.Addr().String()
	undo = serveSandbox(d.partner, listener, log)
	for i, organization := range demoOrganizations() {
		err := d.app.addIntegration(ctx, newIntegration{
			vendor: demoVendor, organization: organization,
			dialect: "mspcentric", status: string(status.Inactive), apiURL: d.partnerURL + "/api",
			vendorToken: integrations[i].VendorToken, partnerToken: integrations[i].PartnerToken,
		})
		if err != nil {
			undo()
			return nil, err
		}
	}
	return undo, nil
}

// demoFaults is a partner with a bad day: a few milliseconds for every call,
// and now and then an error, a torn connection or a "too fast".
func demoFaults(seed uint64) sandbox.Plan {
	const latency = 3 * time.Millisecond
	plan := sandbox.Plan{Seed: seed}
	for _, name := range demoIntegrations() {
		plan.Rules = append(plan.Rules,
			sandbox.Rule{Name: "too fast", Integration: name, Operation: sandbox.OperationServices, First: 1, Effect: sandbox.StatusBefore, Status: 429, RetryAfter: time.Second, Latency: latency},
			sandbox.Rule{Name: "busy", Integration: name, Operation: sandbox.OperationAccounts, First: 1, Effect: sandbox.StatusBefore, Status: 503, Latency: latency},
			sandbox.Rule{Name: "too fast", Integration: name, Operation: sandbox.OperationCount, From: 8 * time.Second, First: 1, Effect: sandbox.StatusBefore, Status: 429, RetryAfter: time.Second, Latency: latency},
		)
	}
	plan.Rules = append(plan.Rules,
		sandbox.Rule{Name: "busy", Probability: 0.006, Effect: sandbox.StatusBefore, Status: 503, Latency: latency},
		sandbox.Rule{Name: "gateway gave up", Probability: 0.003, Effect: sandbox.StatusAfter, Status: 504, Latency: latency},
		sandbox.Rule{Name: "torn before", Probability: 0.004, Effect: sandbox.ResetBefore, Latency: latency},
		sandbox.Rule{Name: "torn after", Probability: 0.004, Effect: sandbox.ResetAfter, Latency: latency},
		sandbox.Rule{Name: demoLatency, Probability: 1, Effect: sandbox.Delay, Latency: latency},
	)
	return plan
}

// demoLatency is the rule that makes no trouble: the partner takes its time.
const demoLatency = "latency"

// errShown ends the system once everything has been shown.
var errShown = errors.New("the demo is over")

// run works like `usagebridge run`, is fed from the plan meanwhile, and ends
// with the report.
func (d *demo) run(ctx context.Context) error {
	e, err := newEngine(ctx, d.app, d.registry)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, d.config.Listen)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	d.httpURL = "http://" + listener.Addr().String()
	var verdict error
	group, working := errgroup.WithContext(ctx)
	group.Go(func() error { return e.runWith(working, listener, d.registry) })
	group.Go(func() error {
		report, err := d.show(working)
		if err != nil {
			return err
		}
		verdict = report.verdict()
		if d.options.keep {
			d.invite()
			<-working.Done()
		}
		return errShown
	})
	if err := group.Wait(); !errors.Is(err, errShown) {
		return err
	}
	if ctx.Err() != nil && !d.options.keep {
		return ctx.Err()
	}
	return verdict
}

// show feeds the system, waits until it is quiet, and reports what came of it.
func (d *demo) show(ctx context.Context) (*demoReport, error) {
	if err := d.play(ctx); err != nil {
		return nil, err
	}
	took := time.Since(d.began)
	seen, err := d.witness(ctx)
	if err != nil {
		return nil, err
	}
	journeys, err := d.journeys(ctx)
	if err != nil {
		return nil, err
	}
	report := newDemoReport(d, seen, journeys, took)
	if d.cli.json {
		return report, d.cli.printJSON(report)
	}
	return report, report.write(d.cli.stdout, paletteFor(d.cli.stdout))
}

// play publishes everything and waits until it is delivered, or until that
// takes too long: then the checks will say what is missing.
func (d *demo) play(ctx context.Context) error {
	shown := newProgress(d.cli.stderr, d)
	defer shown.end()
	feeding, stop := context.WithCancel(ctx)
	defer stop()
	fed := make(chan error, 1)
	go func() { fed <- d.feed.run(feeding, d.app.embedded.ClientURL(), d.plan, d.afternoon) }()
	defer func() {
		if fed != nil { // on the way out by an error
			stop()
			<-fed //nolint:errcheck // another error is on its way already
		}
	}()
	var deadline <-chan time.Time
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-fed:
			if fed = nil; err != nil {
				return err
			}
			deadline = time.After(demoPatience)
		case <-deadline:
			return nil
		case <-tick.C:
			done, err := d.look(ctx, shown, fed == nil)
			if done || err != nil {
				return err
			}
		}
	}
}

// look takes one look at the metrics, and says whether there is nothing more
// to wait for.
func (d *demo) look(ctx context.Context, shown progress, fed bool) (done bool, err error) {
	r, err := readMetrics(d.registry)
	if err != nil {
		return false, err
	}
	shown.update(r)
	if r.notReady == len(demoOrganizations()) {
		d.held = max(d.held, r.open())
	}
	ready := d.held > 0 && r.notReady == 0
	if !d.isAfternoon && (ready || time.Since(d.began) > demoMorning) {
		d.isAfternoon = true
		close(d.afternoon)
	}
	if !fed || !d.finished(ctx, r) {
		d.quiet = 0
		return false, nil
	}
	d.quiet++
	return d.quiet == 2, nil // the readings are not of one moment; two are enough
}

// finished says whether every event is folded and every key delivered.
func (d *demo) finished(ctx context.Context, r readings) bool {
	if total(r.dispositions) < d.plan.want.events || r.open() > 0 || total(r.keys) < d.plan.want.keys() {
		return false
	}
	pending, err := d.pending(ctx)
	return err == nil && pending == 0
}

// invite tells what can be done with a demo that is left running.
func (d *demo) invite() {
	d.cli.say(`
Everything is left running until Ctrl-C:
  partner    %[1]s/
  metrics    %[2]s/metrics
  NATS       %[3]s

Try, in another terminal:
  export USAGEBRIDGE_NATS_URL=%[3]s
  export USAGEBRIDGE_STORE_DIR=%[4]s
  usagebridge integrations ls
  usagebridge sync status
  usagebridge dlq ls
  printf 'account,service,unitCount\na-1,%[5]s,42.5\n' |
    usagebridge publish - --integration %[6]s
  curl -s '%[1]s/sandbox/tape?account=a-1' | tail -1`,
		d.partnerURL, d.httpURL, d.app.embedded.ClientURL(), d.config.StoreDir, demoServices()[0].id, demoIntegrations()[0])
}
