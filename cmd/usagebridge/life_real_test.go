package main

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// realWorld is the program with an embedded NATS server in this process, and a
// partner behind HTTP. The operator's commands are processes of their own.
type realWorld struct {
	*crashSite

	engine *engine
	server *httptest.Server
	stream jetstream.JetStream
}

// How real time passes.
const (
	realDeadline = 30 * time.Second
	realQuiet    = 350 * time.Millisecond
)

const realPartitions = 2

func newRealWorld(t *testing.T) *realWorld {
	t.Helper()
	dir := t.TempDir()
	w := &realWorld{crashSite: &crashSite{
		t: t, partner: sandbox.New(sandbox.Config{Human: sandbox.HumanAPI, Faults: slowly(5 * time.Millisecond)}),
	}}
	w.server = httptest.NewServer(w.partner.Handler())
	t.Cleanup(func() {
		w.partner.Close()
		w.server.Close()
	})
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	c.StoreDir, c.NATSListen, c.NATSURL = filepath.Join(dir, "store"), "127.0.0.1:-1", ""
	c.PartnerRate, c.Linger, c.FoldWait, c.ReassertAfter = 0, 0, 20*time.Millisecond, time.Second
	// A partner that can be read is read once in the longest interval of
	// probes, and would show a reset before any count does.
	c.ProbeMin, c.ProbeMax = 200*time.Millisecond, 5*time.Minute
	if w.app, err = openApp(t.Context(), c, newLogger(t.Output(), "warn", "text")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.app.close)
	if _, err := w.app.broker.Init(t.Context(), broker.InitConfig{Vendor: lifeVendor, Partitions: realPartitions}); err != nil {
		t.Fatal(err)
	}
	if w.stream, err = jetstream.New(w.app.broker.Conn()); err != nil {
		t.Fatal(err)
	}
	w.env = append(os.Environ(), "USAGEBRIDGE_NATS_URL="+w.app.embedded.ClientURL(), "USAGEBRIDGE_STORE_DIR="+c.StoreDir,
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")) // else each command of a race build ends with a second of sleep
	w.engine = w.runs()
	return w
}

// runs starts a worker in this process.
func (w *realWorld) runs() *engine {
	w.t.Helper()
	registry := newRegistry()
	e, err := newEngine(w.t.Context(), w.app, registry)
	if err != nil {
		w.t.Fatal(err)
	}
	listener, err := listen(w.t.Context(), "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.runWith(ctx, listener, registry) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Errorf("worker ended with %v, want no error", err)
		}
	})
	return e
}

func (w *realWorld) config() Config { return w.app.config }

func (w *realWorld) publish(events []*event.Event) {
	w.t.Helper()
	body, err := event.EncodeBatch(events)
	if err == nil {
		_, err = w.stream.Publish(w.t.Context(), lifeBatch().String(), body)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// command runs the program as an operator does.
func (w *realWorld) command(args ...string) {
	w.t.Helper()
	path, err := exec.LookPath("usagebridge")
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), path, args...)
	cmd.Env = w.env
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("usagebridge %q: %v\n%s", args, err, out)
	}
}

// tokens writes both tokens to files, and gives the flags that name them.
func (w *realWorld) tokens(in sandbox.Integration) []string {
	w.t.Helper()
	dir := w.t.TempDir()
	var flags []string
	for name, token := range map[string]string{"vendor": in.VendorToken, "partner": in.PartnerToken} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			w.t.Fatal(err)
		}
		flags = append(flags, "--"+name+"-token-file", path)
	}
	return flags
}

func (w *realWorld) add(in sandbox.Integration) {
	w.t.Helper()
	w.command(append(w.tokens(in), "integrations", "add", lifeName, "--dialect", string(in.Dialect), "--api-url", w.server.URL+"/api")...)
}

func (w *realWorld) setTokens(in sandbox.Integration) {
	w.t.Helper()
	w.command(append(w.tokens(in), "integrations", "credentials", "set", lifeName)...)
}

func (w *realWorld) pause(on bool) {
	w.t.Helper()
	word := "resume"
	if on {
		word = "pause"
	}
	w.command("integrations", word, lifeName, "--why", "because")
}

func (w *realWorld) resync() {
	w.t.Helper()
	w.command("integrations", "resync", lifeName, "--why", "because")
}

func (w *realWorld) record() status.Integration {
	w.t.Helper()
	i, _, err := w.engine.integrations.Get(w.t.Context(), broker.IntegrationKey(lifeVendor, lifeOrganization))
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

func (w *realWorld) lane() delivery.Status {
	s, _ := w.engine.worker.Lane(lifeVendor, lifeOrganization)
	return s
}

func (w *realWorld) entry(key ledger.Key) ledger.Entry {
	w.t.Helper()
	e, _, err := w.app.broker.Ledger(lifeVendor).Read(w.t.Context(), broker.Partition(lifeVendor, lifeOrganization, realPartitions), key)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *realWorld) books() (transitions []status.Transition, letters int) {
	w.t.Helper()
	err := w.app.broker.Letters(w.t.Context(), broker.LetterFilter{}, func(broker.StoredLetter) error { letters++; return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := w.stream.Stream(w.t.Context(), broker.StreamStatus)
	if err != nil {
		w.t.Fatal(err)
	}
	for sequence := range s.CachedInfo().State.LastSeq {
		m, err := s.GetMsg(w.t.Context(), sequence+1)
		if err != nil {
			w.t.Fatal(err)
		}
		transitions = append(transitions, transitionOf(w.t, m.Data))
	}
	return transitions, letters
}

func (w *realWorld) until(what string, reached func() bool) {
	w.t.Helper()
	eventuallyTrue(w.t, realDeadline, what, reached)
}

func (w *realWorld) quiet(well func() error) {
	w.t.Helper()
	over := time.After(realQuiet)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := well(); err != nil {
			w.t.Fatal(err)
		}
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
}
