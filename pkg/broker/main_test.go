package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

// tests are all tests, and then the end of what they share.
type tests struct{ *testing.M }

func (t tests) Run() int {
	defer closeCluster()
	return t.M.Run()
}

// startServer runs an embedded server that does not sync: a test loses no power.
func startServer(tb testing.TB, dir, listen string) *Embedded {
	tb.Helper()
	e, err := StartEmbedded(EmbeddedConfig{StoreDir: dir, Listen: listen, SyncInterval: time.Minute})
	if err != nil {
		tb.Fatalf("start server: %v", err)
	}
	tb.Cleanup(e.Close)
	return e
}

func connect(tb testing.TB, url string) *Broker {
	tb.Helper()
	b, err := Connect(tb.Context(), Config{URL: url, Name: tb.Name(), Logger: slog.New(slog.NewTextHandler(tb.Output(), nil))})
	if err != nil {
		tb.Fatalf("connect: %v", err)
	}
	tb.Cleanup(b.Close)
	return b
}

// blank gives a broker on a store that has nothing: on a new server, or on the
// cluster for tests that run there.
func blank(tb testing.TB) *Broker {
	tb.Helper()
	if everythingOnACluster || onACluster {
		return blankCluster(tb)
	}
	return connect(tb, startServer(tb, tb.TempDir(), "127.0.0.1:0").ClientURL())
}

// open gives a broker on a store where only the vendor acme is set up.
func open(tb testing.TB, partitions int) *Broker {
	tb.Helper()
	b := blank(tb)
	initVendor(tb, b, InitConfig{Vendor: "acme", Partitions: partitions})
	return b
}

// openEmbedded is open for tests of what only one server does, or of what
// needs more than a worker is permitted.
func openEmbedded(tb testing.TB, partitions int) *Broker {
	tb.Helper()
	b := connect(tb, startServer(tb, tb.TempDir(), "127.0.0.1:0").ClientURL())
	initVendor(tb, b, InitConfig{Vendor: "acme", Partitions: partitions})
	return b
}

func initVendor(tb testing.TB, b *Broker, c InitConfig) InitReport {
	tb.Helper()
	boss := operator(b)
	if c.Replicas == 0 {
		c.Replicas = replicas(b)
	}
	report, err := boss.Init(tb.Context(), c)
	if err != nil {
		tb.Fatalf("init: %v", err)
	}
	return report
}

// freeAddress is an address for a server that is to be started more than once.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// publishCounts publishes n counts of one organization and gives their subjects.
func publishCounts(tb testing.TB, b *Broker, organization string, n int) []string {
	tb.Helper()
	subjects := make([]string, n)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("usage.v1.acme.%s.count.a-%d.backup", organization, i)
		if err := b.Append(tb.Context(), subjects[i], nil, fmt.Appendf(nil, "body %d", i), ""); err != nil {
			tb.Fatalf("publish: %v", err)
		}
	}
	return subjects
}

func within(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	tb.Cleanup(cancel)
	return ctx
}

// eventually polls until the condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("waited 20 s in vain: %s", what)
		}
	}
}

func wantError(tb testing.TB, err error, parts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("got no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			tb.Errorf("error %q, want it to say %q", err, p)
		}
	}
}

func rawPublish(tb testing.TB, b *Broker, subject string, header nats.Header, data []byte) error {
	tb.Helper()
	_, err := b.js.PublishMsg(tb.Context(), &nats.Msg{Subject: subject, Header: header, Data: data})
	return err
}

// reconnected waits until the client has noticed that its server was started again.
func reconnected(tb testing.TB, b *Broker) {
	tb.Helper()
	eventually(tb, "the connection is back", func() bool { return b.conn.IsConnected() && b.conn.Stats().Reconnects > 0 })
}
