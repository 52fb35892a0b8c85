package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// everythingOnACluster makes every test that does not need the embedded server
// itself run on a cluster of three servers with three replicas, TLS and the
// permissions of deploy/nats: as the worker's user, with Init as the operator's.
// `make test-cluster` sets it.
var everythingOnACluster = os.Getenv("TEST_CLUSTER") != ""

// onACluster does so for the test that runs now: none here runs beside another.
var onACluster bool

var (
	theCluster *natstest.Cluster // of all tests of this run; nil: not started
	clusterDir string
	operators  sync.Map // *Broker of a worker → *Broker of the operator
)

// startCluster starts the cluster of all tests once: it takes seconds.
func startCluster(tb testing.TB) *natstest.Cluster {
	tb.Helper()
	if theCluster != nil {
		return theCluster
	}
	var err error
	if clusterDir, err = os.MkdirTemp("", "usagebridge-cluster"); err != nil { //nolint:usetesting // it outlives the test
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	if theCluster, err = natstest.Start(ctx, natstest.Config{Dir: clusterDir, Servers: 3, Secure: true, Sync: "1m"}); err != nil {
		tb.Fatalf("start a cluster: %v", err)
	}
	return theCluster
}

// onCluster makes blank and open use the cluster until the test ends.
func onCluster(tb testing.TB) {
	tb.Helper()
	before := onACluster
	onACluster = true
	tb.Cleanup(func() { onACluster = before })
}

func closeCluster() {
	if theCluster != nil {
		theCluster.Close()
		_ = os.RemoveAll(clusterDir)
	}
}

// blankCluster removes every stream from the cluster and connects as a worker.
func blankCluster(tb testing.TB) *Broker {
	tb.Helper()
	cluster := startCluster(tb)
	boss := connectAs(tb, cluster, cluster.Secrets().Operator)
	names := boss.js.StreamNames(within(tb, 30*time.Second))
	for name := range names.Name() {
		if err := boss.js.DeleteStream(within(tb, 30*time.Second), name); err != nil {
			tb.Fatalf("empty the cluster: %v", err)
		}
	}
	if err := names.Err(); err != nil {
		tb.Fatalf("empty the cluster: %v", err)
	}
	b := connectAs(tb, cluster, cluster.Secrets().Worker)
	operators.Store(b, boss)
	return b
}

func connectAs(tb testing.TB, cluster *natstest.Cluster, seed string) *Broker {
	tb.Helper()
	b, err := Connect(tb.Context(), Config{
		URL: cluster.URL(), NKeyFile: seed, CAFile: cluster.Secrets().CA,
		Name: tb.Name(), Logger: slog.New(slog.NewTextHandler(tb.Output(), nil)),
	})
	if err != nil {
		tb.Fatalf("connect to the cluster: %v", err)
	}
	tb.Cleanup(b.Close)
	return b
}

// operator is who may create and alter streams where b is connected.
func operator(b *Broker) *Broker {
	if boss, ok := operators.Load(b); ok {
		if o, isBroker := boss.(*Broker); isBroker {
			return o
		}
	}
	return b
}

// replicas is how many copies initVendor makes.
func replicas(b *Broker) int {
	if operator(b) != b {
		return 3
	}
	return 1
}

// TestTheContractsHoldOnACluster runs on the cluster what wrong numbers would
// come from if a replicated store behaved in another way than one server does.
// `make test-cluster` runs the rest there.
func TestTheContractsHoldOnACluster(t *testing.T) {
	onCluster(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the ledger", func(t *testing.T) { keepTheContract(t, map[string]bool{"in atomic batches": true}) }},
		{"the source", TestSourceGivesMessagesAsPublished},
		{"what is not acknowledged", TestReleasedMessagesComeAgain},
		{"leases", TestPartitionHasOneOwner},
		{"leases that end", TestLeaseExpiresWithoutRenewal},
		{"dead letters", TestEveryElementOfABatchIsParkedOnce},
		{"the log of publishers", TestPublisherCannotWipeTheLog},
	} {
		t.Run(test.name, test.run)
	}
}

// steadily writes one entry of the ledger again and again, each time as a
// worker would that has read it, and gives how often it was stored.
type steadily struct {
	store  *LedgerStore
	entry  ledger.Entry
	stored int64
}

// write tries until the entry is stored with the next figure.
func (s *steadily) write(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	next := s.stored + 1
	for {
		s.entry.Seen = []ledger.Seen{{Version: ledger.Version{Time: next, Arrival: uint64(next)}, Value: ledger.Value{Units: next}, Event: 1, Disposition: ledger.Applied}}
		batch := []ledger.Entry{s.entry}
		err := s.store.Write(within(t, 2*time.Second), 0, batch)
		if err == nil {
			s.entry, s.stored = batch[0], next
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("write %d: %v", next, err)
		}
		// As a worker does after an error: what is stored says what to do.
		e, ok, err := s.store.Read(within(t, 2*time.Second), 0, s.entry.Key)
		if err != nil {
			continue
		}
		if ok && e.Seen[0].Value.Units == next {
			s.entry, s.stored = e, next // stored, and the answer was lost
			return
		}
		if ok && e.Seen[0].Value.Units != s.stored {
			t.Fatalf("the ledger has %d, and %d was acknowledged last", e.Seen[0].Value.Units, s.stored)
		}
		s.entry.Revision = e.Revision
	}
}

func TestNoAcknowledgedWriteIsLostWithAServerOrALeader(t *testing.T) {
	onCluster(t)
	b := open(t, 1)
	boss := operator(b)
	s := steadily{store: b.Ledger("acme"), entry: ledger.Entry{Key: ledger.CountKey("o", "a", "s"), State: ledger.Dirty}}
	subjects := 0
	both := func(n int) {
		t.Helper()
		for range n {
			s.write(t)
			id := fmt.Sprint("id-", subjects)
			deadline := time.Now().Add(40 * time.Second)
			for {
				err := b.Append(within(t, 2*time.Second), "usage.v1.acme.o.count.a.s", nil, []byte(id), id)
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("publish %s: %v", id, err)
				}
			}
			subjects++
		}
	}
	both(20)
	for _, stream := range []string{bucketPrefix + LedgerBucket("acme"), EventsStream("acme")} {
		if err := boss.ask(t.Context(), "$JS.API.STREAM.LEADER.STEPDOWN."+stream, struct{}{}, &struct{}{}); err != nil {
			t.Fatalf("step down: %v", err)
		}
		both(20)
	}
	cluster := startCluster(t)
	leader := cluster.Server(leaderOf(t, b, bucketPrefix+LedgerBucket("acme")))
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	both(20)
	if err := leader.Start(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	both(20)
	if err := cluster.Ready(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	e, ok, err := s.store.Read(t.Context(), 0, s.entry.Key)
	if err != nil || !ok || e.Seen[0].Value.Units != s.stored {
		t.Errorf("the ledger has %+v, %v; want the figure %d", e.Seen, err, s.stored)
	}
	v, err := b.Vendor(t.Context(), "acme")
	if err != nil || v.Messages != uint64(subjects) {
		t.Errorf("the log has %d messages, %v; want each of %d once", v.Messages, err, subjects)
	}
}

// leaderOf is the index of the server that leads the stream.
func leaderOf(t *testing.T, b *Broker, stream string) int {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	leader := s.CachedInfo().Cluster.Leader
	at := slices.IndexFunc(startCluster(t).Servers(), func(s *natstest.Server) bool { return s.Name() == leader })
	if at < 0 {
		t.Fatalf("stream %s is led by %q, which is none of ours", stream, leader)
	}
	return at
}

// TestAWorkerCannotAlterTheStore tries what deploy/nats/auth.conf denies: each
// would take events, or the trace of what was done.
func TestAWorkerCannotAlterTheStore(t *testing.T) {
	onCluster(t)
	b := open(t, 1)
	for _, subject := range []string{
		"$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.UPDATE.EVENTS_acme", "$JS.API.STREAM.DELETE.EVENTS_acme",
		"$JS.API.STREAM.PURGE.KV_LEDGER_acme", "$JS.API.STREAM.MSG.DELETE.AUDIT", "$JS.API.STREAM.SNAPSHOT.KV_INTEGRATIONS",
		"$JS.API.STREAM.RESTORE.EVENTS_acme", "$JS.API.STREAM.PEER.REMOVE.EVENTS_acme", "$JS.API.STREAM.LEADER.STEPDOWN.EVENTS_acme",
	} {
		err := b.ask(t.Context(), subject, struct{}{}, &struct{}{})
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: got %v, want a permission violation", subject, err)
		}
	}
	_, err := b.Init(within(t, 20*time.Second), InitConfig{Vendor: "other"})
	wantError(t, err, "Permissions Violation", "USAGEBRIDGE_NATS_NKEY")
}

func TestAVendorGetsItsReplicasWhileItIsUsed(t *testing.T) {
	onCluster(t)
	b := blank(t)
	boss := operator(b)
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 2, Replicas: 1})
	var using sync.WaitGroup
	stop := make(chan struct{})
	const before = 50
	published := before
	publishCounts(t, b, "o", before)
	using.Go(func() { // a publisher, who tries again
		for {
			select {
			case <-stop:
				return
			default:
			}
			id := fmt.Sprint("more-", published)
			if b.Append(within(t, 5*time.Second), "usage.v1.acme.o.count.a.s", nil, []byte("more"), id) == nil {
				published++
			}
		}
	})
	got := map[uint64]bool{}
	all := make(chan struct{})
	src, err := b.Source(t.Context(), "acme", Partition("acme", "o", 2), SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	received := make(chan []uint64)
	go func() { // a worker
		defer close(received)
		for {
			messages, err := src.Receive(ctx)
			if err != nil {
				return
			}
			var sequences []uint64
			for _, m := range messages {
				sequences = append(sequences, m.Sequence)
			}
			_ = src.Ack(ctx, messages) // what is not acknowledged comes again
			select {
			case received <- sequences:
			case <-all:
				return
			}
		}
	}()
	told := 0
	report, err := boss.Init(ctx, InitConfig{Vendor: "acme", Replicas: 3, Progress: func(string, int, int) { told++ }})
	if err != nil {
		t.Fatalf("init with three replicas: %v", err)
	}
	for _, o := range report.Objects {
		if o.Kind != "consumers" && (o.State != Updated || !slices.Contains(o.Differences, "replicas was 1, is 3")) {
			t.Errorf("%s is %s %v, want its replicas raised", o.Name, o.State, o.Differences)
		}
	}
	if told == 0 {
		t.Error("init told of no progress")
	}
	close(stop)
	using.Wait()
	for len(got) < published && ctx.Err() == nil {
		select {
		case sequences := <-received:
			for _, sequence := range sequences {
				got[sequence] = true
			}
		case <-ctx.Done():
		}
	}
	close(all)
	cancel()
	if len(got) != published {
		t.Errorf("the worker got %d events, want the %d that were acknowledged", len(got), published)
	}
	if v, err := b.Vendor(t.Context(), "acme"); err != nil || v.Replicas != 3 || v.Messages != uint64(published) {
		t.Errorf("vendor %+v, %v; want 3 replicas and %d messages", v, err, published)
	}
	for _, o := range b.objects(InitConfig{Vendor: "acme", Partitions: 2}) {
		if current, want, err := b.copies(t.Context(), o.want.Name, 0); err != nil || current != 3 || want != 3 {
			t.Errorf("%s has %d of %d copies, %v; want 3 of 3, its consumers too", o.name, current, want, err)
		}
	}
	_, err = boss.Init(t.Context(), InitConfig{Vendor: "acme", Replicas: 1})
	wantError(t, err, "acme has 3 replicas", "init never takes copies away")
	if got := states(initVendor(t, b, InitConfig{Vendor: "other", Partitions: 1, Replicas: 1}))["stream DEADLETTERS"]; got != Unchanged {
		t.Errorf("another vendor with one replica: the shared streams are %s, want %s", got, Unchanged)
	}
}

func TestThreeReplicasNeedACluster(t *testing.T) {
	b := connect(t, startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL())
	_, err := b.Init(t.Context(), InitConfig{Vendor: "acme", Replicas: 3})
	wantError(t, err, "3 replicas are asked for", "is in no cluster", "deploy/nats/cluster.conf")
	if infos, err := b.ours(t.Context()); err != nil || len(infos) > 0 {
		t.Errorf("the refused init left %d streams, %v; want none", len(infos), err)
	}
}
