package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/ledger/ledgertest"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// virtualWorld is the program without NATS and without sockets, in a bubble of
// virtual time: worker, lanes, tracker, links and the client of the Vendor-API
// are the real ones, with the defaults of the configuration but for one.
type virtualWorld struct {
	t       *testing.T
	engine  *engine
	partner *sandbox.Sandbox
	records *memoryRecords
	status  *memoryStatus
	log     *memoryLog
	store   *ledgertest.Memory
	end     func()
}

func newVirtualWorld(t *testing.T) *virtualWorld {
	t.Helper()
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	c.ReassertAfter = c.ProbeMax / 2 // before a partner that can be read is read again
	keyset, err := vault.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.Open(vault.Source{Inline: vault.NewSecret(string(keyset))})
	if err != nil {
		t.Fatal(err)
	}
	w := &virtualWorld{
		t:       t,
		partner: sandbox.New(sandbox.Config{Human: sandbox.HumanAPI, Faults: slowly(20 * time.Millisecond)}),
		records: &memoryRecords{changes: make(chan status.Integration, 100)},
		status:  &memoryStatus{known: map[string]bool{}},
		log:     &memoryLog{arrived: make(chan struct{}, 1)},
		store:   ledgertest.NewMemory(errors.New("stale")),
	}
	logger := slog.New(slog.DiscardHandler)
	metrics := status.NewMetrics(prometheus.NewRegistry())
	w.engine = &engine{
		app:       &app{config: c, log: logger},
		vault:     keys,
		transport: punctual{inProcess{w.partner.Handler()}},
		tracker:   status.NewTracker(w.records, w.status, "worker "+c.WorkerID, metrics, logger),
		hosts:     map[string]*delivery.Host{},
	}
	w.engine.worker = worker.New(worker.Config{
		ID:          c.WorkerID,
		Backend:     w.backend(),
		Meanings:    meanings(),
		Limits:      c.limits(),
		Delivery:    deliveryConfig(c),
		CallTimeout: c.PartnerTimeout,
		LeaseTTL:    time.Hour, // fewer renewals to wake up for in days of virtual time
		Signal:      w.engine.tracker.Observe,
		Metrics:     worker.NewMetrics(prometheus.NewRegistry()),
		Logger:      logger,
	})
	w.run()
	return w
}

// virtualOperator is the person who operates the bridge.
const virtualOperator = "ada"

// slowly makes every call take its time, as on a network. A count takes ten
// times as long: one that probes while something else changes the status is
// answered last, and so every life goes through the same transitions.
func slowly(latency time.Duration) sandbox.Plan {
	return sandbox.Plan{Rules: []sandbox.Rule{
		{Name: "busy", Operation: sandbox.OperationCount, Probability: 1, Effect: sandbox.Delay, Latency: 10 * latency},
		{Name: "network", Probability: 1, Effect: sandbox.Delay, Latency: latency},
	}}
}

// run starts the worker and what tells it of changed records.
func (w *virtualWorld) run() {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.engine.worker.Run(ctx); err != nil {
			w.t.Errorf("worker ended with %v, want no error", err)
		}
	})
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case i := <-w.records.changes:
				w.engine.worker.SetLink(i.Vendor, i.Organization, w.engine.link(&i))
			}
		}
	})
	w.end = func() {
		stop()
		running.Wait()
		w.partner.Close()
	}
}

func (w *virtualWorld) backend() worker.Backend {
	return worker.Backend{
		Vendors: func(context.Context) ([]worker.Vendor, error) {
			return []worker.Vendor{{Name: lifeVendor, Partitions: 1}}, nil
		},
		Lease:     func(context.Context, string, int) (worker.Lease, error) { return foreverLease{}, nil },
		Source:    func(context.Context, string, int) (worker.Source, error) { return &memorySource{memoryLog: w.log}, nil },
		Store:     func(string) worker.Store { return w.store },
		Records:   w.log,
		Partition: broker.Partition,
	}
}

func (w *virtualWorld) config() Config { return w.engine.app.config }

func (w *virtualWorld) publish(events []*event.Event) {
	w.t.Helper()
	body, err := event.EncodeBatch(events)
	if err != nil {
		w.t.Fatal(err)
	}
	w.log.append(lifeBatch().String(), body)
}

// lifeBatch is the subject of several events in one message.
func lifeBatch() event.Subject {
	return event.Subject{Vendor: lifeVendor, Organization: lifeOrganization, Kind: event.KindBatch}
}

func (w *virtualWorld) add(in sandbox.Integration) {
	w.t.Helper()
	n := newIntegration{
		vendor: lifeVendor, organization: lifeOrganization, dialect: string(in.Dialect), apiURL: "http://partner.example/api",
		vendorToken: in.VendorToken, partnerToken: in.PartnerToken,
	}
	i := status.Integration{Vendor: n.vendor, Organization: n.organization, Dialect: n.dialect, APIURL: n.apiURL}
	begun := i.Begin(status.Observation{At: time.Now(), Observed: status.Inactive, Actor: virtualOperator})
	if err := errors.Join(n.check(&i), seal(&i, w.engine.vault, n)); err != nil {
		w.t.Fatal(err)
	}
	w.records.swap(i, 0)
	if err := status.Record(w.t.Context(), w.status, lifeVendor, lifeOrganization, i.Since, begun); err != nil {
		w.t.Fatal(err)
	}
}

func (w *virtualWorld) setTokens(in sandbox.Integration) {
	w.t.Helper()
	w.act(status.CredentialsRenewed, func(i *status.Integration) error {
		return seal(i, w.engine.vault, newIntegration{vendorToken: in.VendorToken, partnerToken: in.PartnerToken})
	})
}

func (w *virtualWorld) pause(on bool) {
	w.t.Helper()
	in := status.ResumedByOperator
	if on {
		in = status.PausedByOperator
	}
	w.act(in, func(*status.Integration) error { return nil })
}

func (w *virtualWorld) resync() {
	w.t.Helper()
	w.act(status.Resynced, func(*status.Integration) error { return nil })
}

// act is what the commands do, on the records in memory.
func (w *virtualWorld) act(in status.Input, change func(*status.Integration) error) {
	w.t.Helper()
	now := time.Now()
	var transition status.Transition
	err := w.records.Update(w.t.Context(), lifeVendor, lifeOrganization, func(i *status.Integration) error {
		transition, _ = i.Take(in, status.Observation{At: now, Actor: virtualOperator, Message: "because"})
		return change(i)
	})
	if err == nil {
		err = status.Record(w.t.Context(), w.status, lifeVendor, lifeOrganization, now, transition)
	}
	if err != nil {
		w.t.Fatalf("operator: %s: %v", in, err)
	}
}

func (w *virtualWorld) record() status.Integration { return w.records.get() }

func (w *virtualWorld) lane() delivery.Status {
	s, _ := w.engine.worker.Lane(lifeVendor, lifeOrganization)
	return s
}

func (w *virtualWorld) entry(key ledger.Key) ledger.Entry {
	w.t.Helper()
	e, _, err := w.store.Read(w.t.Context(), 0, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *virtualWorld) books() (transitions []status.Transition, letters int) {
	w.t.Helper()
	w.status.mu.Lock()
	defer w.status.mu.Unlock()
	for _, body := range w.status.bodies {
		transitions = append(transitions, transitionOf(w.t, body))
	}
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return transitions, w.log.letters
}

// transitionOf reads a CloudEvent of the status log.
func transitionOf(t *testing.T, body []byte) status.Transition {
	t.Helper()
	var e struct {
		Type string            `json:"type"`
		Data status.Transition `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil || e.Type != status.TransitionType {
		t.Fatalf("status log: got %s, %v; want an event of the type %s", body, err, status.TransitionType)
	}
	return e.Data
}

// How virtual time passes.
const (
	virtualStep     = 10 * time.Minute
	virtualDeadline = 60 * 24 * time.Hour
	virtualQuiet    = 24 * time.Hour
)

func (w *virtualWorld) until(what string, reached func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(virtualDeadline)
	for synctest.Wait(); !reached(); synctest.Wait() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %v: %s; the lane is %+v, the record %+v", virtualDeadline, what, w.lane(), w.record())
		}
		<-time.After(virtualStep)
	}
}

func (w *virtualWorld) quiet(well func() error) {
	w.t.Helper()
	<-time.After(virtualQuiet)
	synctest.Wait()
	if err := well(); err != nil {
		w.t.Fatal(err)
	}
}

// inProcess hands requests to a handler without a connection between.
type inProcess struct{ handler http.Handler }

// RoundTrip makes one call; a torn one has no answer.
func (p inProcess) RoundTrip(r *http.Request) (response *http.Response, err error) {
	defer func() {
		if caught := recover(); caught == http.ErrAbortHandler { //nolint:errorlint // the very value
			response, err = nil, io.ErrUnexpectedEOF
		} else if caught != nil {
			panic(caught)
		}
	}()
	recorder := httptest.NewRecorder()
	p.handler.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// memoryRecords keeps the one integration, and says what it becomes.
type memoryRecords struct {
	changes chan status.Integration

	mu       sync.Mutex
	revision int
	record   status.Integration
}

func (r *memoryRecords) get() status.Integration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record
}

// Update changes the record by compare-and-set (status.Records).
func (r *memoryRecords) Update(_ context.Context, _, _ string, change func(*status.Integration) error) error {
	for {
		r.mu.Lock()
		i, revision := r.record, r.revision
		r.mu.Unlock()
		if err := change(&i); err != nil {
			return err
		}
		if r.swap(i, revision) {
			return nil
		}
	}
}

// swap stores the record unless somebody has stored another since the revision.
func (r *memoryRecords) swap(i status.Integration, revision int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.revision != revision {
		return false
	}
	r.revision++
	r.record = i
	r.changes <- i
	return true
}

// memoryStatus keeps transitions (status.Log).
type memoryStatus struct {
	mu     sync.Mutex
	known  map[string]bool
	bodies [][]byte
}

// Append adds one that is not there.
func (m *memoryStatus) Append(_ context.Context, _, _, id string, body []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known[id] {
		m.known[id] = true
		m.bodies = append(m.bodies, body)
	}
	return nil
}

// memoryLog is the vendor's log of events, and counts what is
// written beside the ledger (worker.Records).
type memoryLog struct {
	arrived chan struct{}

	mu       sync.Mutex
	messages []event.Message
	next     int // to be received
	letters  int
}

func (l *memoryLog) append(subject string, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, event.Message{
		Subject: subject, Data: data, Stream: event.Stream(lifeVendor), Sequence: uint64(len(l.messages) + 1), Stored: time.Now(), Deliveries: 1,
	})
	select {
	case l.arrived <- struct{}{}:
	default:
	}
}

// Receive waits for messages.
func (l *memoryLog) Receive(ctx context.Context) ([]event.Message, error) {
	for {
		l.mu.Lock()
		batch := l.messages[l.next:]
		l.next = len(l.messages)
		l.mu.Unlock()
		if len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.arrived:
		}
	}
}

// Ack needs nothing: what was received does not come again.
func (l *memoryLog) Ack(context.Context, []event.Message) error { return nil }

// Release is for a worker that stops, after which nobody receives.
func (l *memoryLog) Release([]event.Message) {}

// memorySource is the log as it is read by one worker (worker.Source).
type memorySource struct {
	*memoryLog
	drained atomic.Bool
}

// Receive waits for messages.
func (s *memorySource) Receive(ctx context.Context) ([]event.Message, error) {
	if s.drained.Load() {
		return nil, errors.New("drained")
	}
	return s.memoryLog.Receive(ctx)
}

// Drain ends it: nothing is fetched before it is asked for.
func (s *memorySource) Drain() { s.drained.Store(true) }

// Close frees nothing.
func (s *memorySource) Close() {}

// Park counts letters.
func (l *memoryLog) Park(_ context.Context, letters []event.Letter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.letters += len(letters)
	return nil
}

// AppendCalls drops them: the partner's tape has more.
func (l *memoryLog) AppendCalls(context.Context, string, []ledger.Call) error { return nil }

// Message reads one again.
func (l *memoryLog) Message(_ context.Context, _ string, sequence uint64) (event.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.messages[sequence-1], nil
}

// foreverLease is never lost.
type foreverLease struct{}

// Renew always works.
func (foreverLease) Renew(context.Context) error { return nil }

// Release frees nothing.
func (foreverLease) Release(context.Context) error { return nil }
