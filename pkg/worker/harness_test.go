package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/ledger/ledgertest"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	vendor       = "acme"
	organization = "msp-1"
	leaseTTL     = 15 * time.Second
)

var (
	errStale   = errors.New("stale")
	errDrained = errors.New("drained")
)

// world is everything around a worker, in memory and in virtual time. It
// outlives the workers that run in it, as the real one does.
type world struct {
	t       *testing.T
	store   *ledgertest.Memory
	partner *fakePartner

	mu       sync.Mutex
	log      []event.Message
	acked    map[uint64]bool
	out      map[uint64]bool       // delivered to a source, not acked
	bells    map[int]chan struct{} // by partition: there may be messages
	acks     []string              // "write" and "ack N", in the order in which they happened
	letters  map[string]event.Letter
	calls    []ledger.Call
	signals  []delivery.Signal
	widest   int // most letters parked at one time
	callsErr error
	renewErr error
	releases int // of partitions
	leases   *fakeLeases
	// partitions is how many the vendor has. With more than one the
	// organization msp-N lies in partition N.
	partitions int
}

func newWorld(t *testing.T) *world {
	w := &world{
		t:       t,
		store:   ledgertest.NewMemory(errStale),
		partner: &fakePartner{holds: map[ledger.Key]ledger.Seen{}, began: map[string]int{}},
		acked:   map[uint64]bool{},
		out:     map[uint64]bool{},
		bells:   map[int]chan struct{}{},
		letters: map[string]event.Letter{},

		partitions: 1,
	}
	w.leases = &fakeLeases{w: w, held: map[worker.Claim]*fakeLease{}, views: map[worker.View]string{}, deaf: map[string]bool{}}
	return w
}

// partition is where the organization's events lie.
func (w *world) partition(organization string) int {
	number, _ := strconv.Atoi(organization[strings.LastIndexByte(organization, '-')+1:])
	return number % w.partitions
}

func (w *world) partitionOf(m *event.Message) int {
	return w.partition(strings.Split(m.Subject, ".")[3])
}

// bell is called with the lock held.
func (w *world) bell(partition int) chan struct{} {
	if w.bells[partition] == nil {
		w.bells[partition] = make(chan struct{}, 1)
	}
	return w.bells[partition]
}

// publish stores raw bytes on a subject and says at which sequence.
func (w *world) publish(subject string, data []byte) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	sequence := uint64(len(w.log) + 1)
	w.log = append(w.log, event.Message{Subject: subject, Data: data, Stream: event.Stream(vendor), Sequence: sequence, Stored: time.Now(), Deliveries: 1})
	w.notify(sequence)
	return sequence
}

// notify is called with the lock held.
func (w *world) notify(sequence uint64) {
	select {
	case w.bell(w.partitionOf(&w.log[sequence-1])) <- struct{}{}:
	default:
	}
}

// send publishes an event, in structured mode.
func (w *world) send(id string, at time.Time, data event.Data, change ...func(*event.Event)) uint64 {
	e := event.Event{ID: id, Source: "//test", Time: at.UTC(), Vendor: vendor, Organization: organization, Data: data}
	for _, f := range change {
		f(&e)
	}
	switch data.(type) {
	case event.Count:
		e.Type = event.TypeCount
	case event.Account:
		e.Type = event.TypeAccount
	case event.Service:
		e.Type = event.TypeService
	case event.Snapshot:
		e.Type = event.TypeSnapshot
	}
	return w.publish(e.Subject().String(), e.Structured())
}

func (w *world) count(id string, at time.Time, account, service string, units int64) uint64 {
	return w.send(id, at, event.Count{AccountID: account, ServiceID: service, UnitCount: event.Units(units) * event.UnitsScale})
}

// catalog publishes one account and one service.
func (w *world) catalog(account, service string) {
	w.send("account "+account, time.Now(), event.Account{AccountID: account, Name: "A " + account})
	w.send("service "+service, time.Now(), event.Service{ServiceID: service, Name: "S " + service})
}

// fakeSource hands out what is neither acked nor out of one partition.
type fakeSource struct {
	w         *world
	partition int
	drained   *atomic.Bool
}

func (s fakeSource) Receive(ctx context.Context) ([]event.Message, error) {
	s.w.mu.Lock()
	bell := s.w.bell(s.partition)
	s.w.mu.Unlock()
	for {
		if s.drained.Load() { // nothing is ever fetched before it is asked for
			return nil, errDrained
		}
		if batch := s.take(); len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-bell:
		}
	}
}

func (s fakeSource) take() (batch []event.Message) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for i := range s.w.log {
		m := &s.w.log[i]
		if s.w.partitionOf(m) == s.partition && !s.w.acked[m.Sequence] && !s.w.out[m.Sequence] && len(batch) < 50 {
			s.w.out[m.Sequence] = true
			batch = append(batch, *m)
		}
	}
	return batch
}

func (s fakeSource) Ack(_ context.Context, messages []event.Message) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, m := range messages {
		s.w.acked[m.Sequence] = true
		s.w.acks = append(s.w.acks, fmt.Sprintf("ack %d", m.Sequence))
	}
	return nil
}

func (s fakeSource) Release(messages []event.Message) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, m := range messages {
		s.w.release(m.Sequence)
	}
}

func (s fakeSource) Drain() { s.drained.Store(true) }

func (s fakeSource) Close() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, sequence := range slices.Collect(maps.Keys(s.w.out)) {
		if s.w.partitionOf(&s.w.log[sequence-1]) == s.partition {
			s.w.release(sequence)
		}
	}
}

func (w *world) release(sequence uint64) {
	if w.out[sequence] && !w.acked[sequence] {
		w.log[sequence-1].Deliveries++
		w.notify(sequence)
	}
	delete(w.out, sequence)
}

// noting writes down when the store is written.
type noting struct {
	*ledgertest.Memory
	w *world
}

func (n noting) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	err := n.Memory.Write(ctx, partition, entries)
	if err == nil {
		n.w.mu.Lock()
		n.w.acks = append(n.w.acks, "write")
		n.w.mu.Unlock()
	}
	return err
}

func (w *world) Park(_ context.Context, letters []event.Letter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.widest = max(w.widest, len(letters))
	for _, l := range letters {
		w.letters[fmt.Sprintf("%s %s", l.Fault.Reason, l.Spot())] = l
	}
	return nil
}

func (w *world) AppendCalls(_ context.Context, _ string, calls []ledger.Call) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.callsErr != nil {
		return w.callsErr
	}
	w.calls = append(w.calls, calls...)
	return nil
}

func (w *world) Message(_ context.Context, _ string, sequence uint64) (event.Message, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log[sequence-1], nil
}

// fakePartner answers as told and remembers what it accepted.
type fakePartner struct {
	mu      sync.Mutex
	holds   map[ledger.Key]ledger.Seen
	tape    []delivery.Task // of accepted calls
	answers func(delivery.Task) delivery.Answer
	latency time.Duration
	cut     int            // calls whose context ended
	began   map[string]int // calls, by account
}

func (p *fakePartner) Send(ctx context.Context, t delivery.Task) delivery.Answer {
	p.mu.Lock()
	p.began[t.Key.Account]++
	p.mu.Unlock()
	if p.latency > 0 {
		timer := time.NewTimer(p.latency)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			p.mu.Lock()
			defer p.mu.Unlock()
			p.cut++
			return delivery.Answer{Class: delivery.Stopped, At: time.Now()}
		case <-timer.C:
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := delivery.Answer{Class: delivery.Accepted, Status: 201}
	if p.answers != nil {
		a = p.answers(t)
	}
	a.At = time.Now()
	if a.Class == delivery.Accepted || a.Message == "accepted, answer lost" {
		p.holds[t.Key] = t.Figure
		p.tape = append(p.tape, t)
	}
	return a
}

func (p *fakePartner) SetMapping(context.Context) delivery.Answer {
	return delivery.Answer{Class: delivery.Accepted, Status: 200, Observed: "mapping", At: time.Now()}
}

func (p *fakePartner) units(account, service string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holds[ledger.CountKey(organization, account, service)].Value.Units / int64(event.UnitsScale)
}

func (p *fakePartner) accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tape)
}

// meaning is what an event means here: one key gets one value, or a snapshot
// gives many keys theirs.
func meaning(e *event.Event) ([]ledger.Operation, error) {
	op := ledger.Operation{
		Version: ledger.Version{Time: e.Time.UnixNano(), Arrival: uint64(e.Arrival)}, Event: e.Digest(),
		Backfill: e.Backfill, Replay: e.ReplayOf != "",
	}
	switch data := e.Data.(type) {
	case event.Snapshot:
		return snapshotMeaning(e, data, op), nil
	case event.Count:
		op.Key, op.Value.Units = ledger.CountKey(e.Organization, data.AccountID, data.ServiceID), int64(data.UnitCount)
	case event.Account:
		op.Key, op.Value.Properties = ledger.AccountKey(e.Organization, data.AccountID), data.Name
	case event.Service:
		op.Key, op.Value.Properties = ledger.ServiceKey(e.Organization, data.ServiceID), data.Name
	}
	return []ledger.Operation{op}, nil
}

func snapshotMeaning(e *event.Event, data event.Snapshot, op ledger.Operation) (ops []ledger.Operation) {
	op.Event = e.SnapshotDigest()
	for _, c := range data.Counts {
		figure := op
		figure.Key, figure.Value.Units = ledger.CountKey(e.Organization, c.AccountID, c.ServiceID), int64(c.UnitCount)
		ops = append(ops, figure)
	}
	op.Key = ledger.ScopeKey(e.Organization, data.AccountID)
	op.Part = &ledger.Part{Number: max(data.Part, 1), Of: max(data.Parts, 1), Content: data.ContentDigest(), Name: data.SnapshotID}
	return append(ops, op)
}

// start runs a worker in the world until stop is called; stop returns when it
// has ended.
func (w *world) start(change ...func(*worker.Config)) (stop func()) {
	_, stop = w.run(change...)
	return stop
}

func (w *world) run(change ...func(*worker.Config)) (running *worker.Worker, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c := worker.Config{
		ID: "w1",
		Backend: worker.Backend{
			Vendors: func(context.Context) ([]worker.Vendor, error) {
				return []worker.Vendor{{Name: vendor, Partitions: w.partitions}}, nil
			},
			Source: func(_ context.Context, _ string, p int) (worker.Source, error) {
				return fakeSource{w, p, &atomic.Bool{}}, nil
			},
			Store:     func(string) worker.Store { return noting{w.store, w} },
			Records:   w,
			Partition: func(_, organization string, _ int) int { return w.partition(organization) },
		},
		Meanings: map[string]worker.Meaning{
			event.TypeCount: meaning, event.TypeSnapshot: meaning, event.TypeAccount: meaning, event.TypeService: meaning,
		},
		Limits:      event.DefaultLimits(),
		Delivery:    delivery.Config{RetryMin: time.Second, RetryMax: 10 * time.Second},
		CallTimeout: 10 * time.Second,
		LeaseTTL:    leaseTTL,
		Signal: func(_ context.Context, _ string, s delivery.Signal) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.signals = append(w.signals, s)
		},
		Metrics: worker.NewMetrics(prometheus.NewRegistry()),
		Logger:  slog.New(slog.DiscardHandler),
	}
	w.leases.serve(&c)
	for _, f := range change {
		f(&c)
	}
	running = worker.New(c)
	running.SetLink(vendor, organization, delivery.Link{Partner: w.partner, Ready: true, Connected: true, Credentials: "c1"})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := running.Run(ctx); err != nil {
			w.t.Errorf("worker ended with %v, want no error", err)
		}
	}()
	return running, func() {
		cancel()
		<-ended
	}
}

// settle lets virtual time pass and everything that is due happen.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) entry(key ledger.Key) ledger.Entry {
	e, _, err := w.store.Read(context.Background(), 0, key)
	if err != nil {
		w.t.Fatalf("read %s: %v", key, err)
	}
	return e
}

func (w *world) letterReasons() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.letters))
}

func (w *world) unacked() (sequences []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.log {
		if !w.acked[m.Sequence] {
			sequences = append(sequences, m.Sequence)
		}
	}
	return sequences
}
