package broker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// alone gives a broker on a server of its own, with the vendor acme set up.
func alone(tb testing.TB, partitions int) *Broker {
	tb.Helper()
	b := connect(tb, startServer(tb, tb.TempDir(), "127.0.0.1:0").ClientURL())
	initAlone(tb, b, InitConfig{Vendor: "acme", Partitions: partitions})
	return b
}

func initAlone(tb testing.TB, b *Broker, c InitConfig) {
	tb.Helper()
	if _, err := b.Init(tb.Context(), c); err != nil {
		tb.Fatalf("init: %v", err)
	}
}

func inspect(tb testing.TB, b *Broker) *Inspection {
	tb.Helper()
	return b.Inspect(within(tb, 20*time.Second), "")
}

// differencesOf lists what differs, by the object it is of: "EVENTS_acme max_age is …".
func differencesOf(i *Inspection) (mendable, not []string) {
	note := func(name string, all []Difference) {
		for _, d := range all {
			if d.Mendable {
				mendable = append(mendable, name+" "+d.Text)
			} else {
				not = append(not, name+" "+d.Text)
			}
		}
	}
	for _, s := range i.Streams {
		if s.Missing {
			mendable = append(mendable, s.Name+" is missing")
		}
		note(s.Name, s.Differences)
	}
	for _, v := range i.Vendors {
		note(v.Name, v.Consumers)
	}
	return mendable, not
}

func TestWhatInitMadeHasNoDifference(t *testing.T) {
	b := alone(t, 2)
	initAlone(t, b, InitConfig{Vendor: "beta", Partitions: 3, MaxBytes: 1 << 20})
	i := inspect(t, b)
	for _, err := range []error{i.AccountErr, i.RightsErr, i.TopologyErr, i.MembersErr, i.Vendors[0].Err, i.Vendors[1].Err} {
		if err != nil {
			t.Errorf("got the error %v, want none", err)
		}
	}
	mendable, not := differencesOf(i)
	if len(mendable)+len(not) > 0 {
		t.Errorf("got differences %q and %q, want none", mendable, not)
	}
	if want := len(b.objects(InitConfig{Vendor: "acme"})) + 2; len(i.Streams) != want {
		t.Errorf("got %d streams, want %d: those of acme, and log and ledger of beta", len(i.Streams), want)
	}
	if len(i.Servers) != 1 || i.Servers[0].Version != server.VERSION || i.Servers[0].Err != nil {
		t.Errorf("got servers %+v, want one of version %s", i.Servers, server.VERSION)
	}
	if len(i.Clocks) != 1 || i.Clocks[0].Ahead.Abs() > i.Clocks[0].Within+time.Second {
		t.Errorf("got clocks %+v, want one that is that of this machine", i.Clocks)
	}
	if i.LeaseTTL != LeaseTTL {
		t.Errorf("leases live %v, want %v", i.LeaseTTL, LeaseTTL)
	}
	if beta := b.Inspect(within(t, 20*time.Second), "beta"); len(beta.Vendors) != 1 || beta.Vendors[0].Name != "beta" || len(beta.Vendors[0].Partitions) != 3 {
		t.Errorf("got vendors %+v, want beta alone with 3 partitions", beta.Vendors)
	}
}

func TestEverySettingThatDriftsIsFoundAndInitMendsWhatItSays(t *testing.T) {
	alterStream := func(name string, change func(*jetstream.StreamConfig)) func(*testing.T, *Broker) {
		return func(t *testing.T, b *Broker) {
			s, err := b.js.Stream(t.Context(), name)
			if err == nil {
				c := s.CachedInfo().Config
				change(&c)
				_, err = b.js.UpdateStream(t.Context(), c)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	alterConsumer := func(change func(*jetstream.ConsumerConfig)) func(*testing.T, *Broker) {
		return func(t *testing.T, b *Broker) {
			c, err := b.js.Consumer(t.Context(), "EVENTS_acme", "p1")
			if err == nil {
				config := c.CachedInfo().Config
				change(&config)
				_, err = b.js.UpdateConsumer(t.Context(), "EVENTS_acme", config)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name     string
		alter    func(*testing.T, *Broker)
		mendable string
		not      string
	}{
		{"events are kept too short", alterStream("EVENTS_acme", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }),
			"EVENTS_acme max_age is 1h0m0s, want 840h0m0s", ""},
		{"events are kept too long", alterStream("EVENTS_acme", func(c *jetstream.StreamConfig) { c.MaxAge = 9000 * time.Hour }),
			"", "EVENTS_acme max_age is 9000h0m0s, want 840h0m0s"},
		{"the duplicate window is short", alterStream("EVENTS_acme", func(c *jetstream.StreamConfig) { c.Duplicates = time.Minute }),
			"EVENTS_acme duplicate_window is 1m0s, want 30m0s", ""},
		{"a ledger is bounded", alterStream("KV_LEDGER_acme", func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }),
			"", "LEDGER_acme max_msgs is 10, want 0"},
		{"a ledger drops the oldest", alterStream("KV_LEDGER_acme", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }),
			"", "LEDGER_acme discard is DiscardOld, want DiscardNew"},
		{"a follower may answer", alterStream("KV_INTEGRATIONS", func(c *jetstream.StreamConfig) { c.AllowDirect = true }),
			"INTEGRATIONS allow_direct is true, want false", ""},
		{"a bucket of a later version is missing", func(t *testing.T, b *Broker) {
			if err := b.js.DeleteStream(t.Context(), "KV_REPLAYS"); err != nil {
				t.Fatal(err)
			}
		}, "REPLAYS is missing", ""},
		{"a consumer is missing", func(t *testing.T, b *Broker) {
			if err := b.js.DeleteConsumer(t.Context(), "EVENTS_acme", "p1"); err != nil {
				t.Fatal(err)
			}
		}, "acme p1: is missing", ""},
		{"messages come back too early", alterConsumer(func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second }),
			"acme p1: ack_wait is 1s, want 15s", ""},
		{"messages are given up", alterConsumer(func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 3 }),
			"", "acme p1: max_deliver is 3, want -1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := alone(t, 2)
			tt.alter(t, b)
			mendable, not := differencesOf(inspect(t, b))
			if got := strings.Join(mendable, "; "); got != tt.mendable {
				t.Errorf("init is said to mend %q, want %q", got, tt.mendable)
			}
			if got := strings.Join(not, "; "); got != tt.not {
				t.Errorf("init is said to leave %q, want %q", got, tt.not)
			}
			// Looking has mended nothing, and init mends what it is said to.
			if again, _ := differencesOf(inspect(t, b)); len(again) != len(mendable) {
				t.Errorf("after a look %q is left, want %q", again, mendable)
			}
			initAlone(t, b, InitConfig{Vendor: "acme"})
			mendable, not = differencesOf(inspect(t, b))
			if len(mendable) > 0 || strings.Join(not, "; ") != tt.not {
				t.Errorf("after init %q and %q are left, want nothing and %q", mendable, not, tt.not)
			}
		})
	}
}

func TestALogThatIsGoneIsNotTakenForAVendorThatNeverWas(t *testing.T) {
	b := alone(t, 1)
	initAlone(t, b, InitConfig{Vendor: "beta"})
	if err := b.js.DeleteStream(t.Context(), "EVENTS_acme"); err != nil {
		t.Fatal(err)
	}
	i := inspect(t, b)
	if len(i.Orphans) != 1 || i.Orphans[0] != "acme" || len(i.Vendors) != 1 || i.TopologyErr != nil {
		t.Errorf("got orphans %q, vendors %+v and error %v, want acme, beta alone and none", i.Orphans, i.Vendors, i.TopologyErr)
	}
	i = b.Inspect(within(t, 20*time.Second), "acme")
	if len(i.Orphans) != 1 || len(i.Vendors) != 0 {
		t.Errorf("got orphans %q and vendors %+v, want acme and none", i.Orphans, i.Vendors)
	}
	i = b.Inspect(within(t, 20*time.Second), "nobody")
	wantError(t, i.TopologyErr, "vendor is not set up", "usagebridge init --vendor nobody")
}

func TestTheAgeOfABacklogIsThatOfTheOldestUnacknowledgedEvent(t *testing.T) {
	b := alone(t, 1)
	publishCounts(t, b, "org", 3)
	stored := func(sequence uint64) time.Time {
		m, err := b.Message(t.Context(), "acme", sequence)
		if err != nil {
			t.Fatal(err)
		}
		return m.Stored
	}
	consumer, err := b.js.Consumer(t.Context(), "EVENTS_acme", "p0")
	if err != nil {
		t.Fatal(err)
	}
	partition := func() PartitionFacts { return inspect(t, b).Vendors[0].Partitions[0] }
	if p := partition(); p.Pending != 3 || p.AckPending != 0 || !p.Oldest.Equal(stored(1)) {
		t.Errorf("got %+v, want 3 pending, the oldest of %v", p, stored(1))
	}
	batch, err := consumer.Fetch(2)
	if err != nil {
		t.Fatal(err)
	}
	first := true
	for m := range batch.Messages() {
		if first {
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		first = false
	}
	if p := partition(); p.Pending != 1 || p.AckPending != 1 || !p.Oldest.Equal(stored(2)) {
		t.Errorf("got %+v, want 1 pending and 1 delivered, the oldest of %v", p, stored(2))
	}
}

// configured runs a server as a configuration file has it.
func configured(t *testing.T, text string) *server.Server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, []byte("listen: 127.0.0.1:-1\njetstream { store_dir: "+t.TempDir()+", sync_interval: \"3m\" }\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	options.NoSigs, options.NoLog = true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready after 10 s")
	}
	return s
}

func TestRightsAndSyncAreWhatTheServerSays(t *testing.T) {
	s := configured(t, `
accounts {
  APP { jetstream: enabled, users: [ { user: worker, password: secret, permissions: { publish: { deny: ["audit.>"] } } } ] }
  SYS { users: [ { user: admin, password: secret } ] }
}
system_account: SYS
`)
	address := func(user string) string { return "nats://" + user + ":secret@" + s.Addr().String() }
	i := inspect(t, connect(t, address("worker")))
	if i.RightsErr != nil || i.Rights.User != "worker" || i.Rights.Account != "APP" {
		t.Fatalf("got rights %+v and error %v, want those of worker in APP", i.Rights, i.RightsErr)
	}
	if i.Rights.Publish.Permits("audit.v1.me") || !i.Rights.Publish.Permits("status.v1.v.o") {
		t.Errorf("got rights %+v, want all but audit", i.Rights)
	}
	if len(i.Syncs) != 0 {
		t.Errorf("got syncs %+v, want none: worker is not of the system account", i.Syncs)
	}
	if len(i.Servers) != 1 || i.Servers[0].Err != nil {
		t.Errorf("got servers %+v, want the one that asks for a password", i.Servers)
	}
	if strings.Contains(i.Address+i.Servers[0].Address, "secret") {
		t.Errorf("addresses %q and %q tell the password", i.Address, i.Servers[0].Address)
	}
	i = inspect(t, connect(t, address("admin")))
	if len(i.Syncs) != 1 || i.Syncs[0].Interval != 3*time.Minute {
		t.Errorf("got syncs %+v, want one of 3m", i.Syncs)
	}
	if i.AccountErr == nil {
		t.Error("got no error for JetStream, want one: the system account has none")
	}
}

func TestAQuestionThatIsNotPermittedEndsAtOnceAndIsNoNews(t *testing.T) {
	s := configured(t, `authorization { users: [ { user: worker, password: secret, permissions: { publish: { deny: ["$SYS.>"] } } } ] }`)
	began := time.Now()
	i := inspect(t, connect(t, "nats://worker:secret@"+s.Addr().String()))
	wantError(t, i.RightsErr, "permissions violation", rightsQuestion)
	if i.AccountErr != nil || i.TopologyErr != nil {
		t.Errorf("got errors %v and %v, want the rest to be seen", i.AccountErr, i.TopologyErr)
	}
	if took := time.Since(began); took >= serverLook {
		t.Errorf("it took %v, want less than %v", took, serverLook)
	}
}

func TestAnInspectionShowsTheServersOfACluster(t *testing.T) {
	onCluster(t)
	b := open(t, 2)
	i := inspect(t, b)
	for _, err := range []error{i.AccountErr, i.RightsErr, i.TopologyErr, i.MembersErr, i.Vendors[0].Err, i.Vendors[0].LedgerErr} {
		if err != nil {
			t.Errorf("got the error %v, want none", err)
		}
	}
	if mendable, not := differencesOf(i); len(mendable)+len(not) > 0 {
		t.Errorf("got differences %q and %q, want none", mendable, not)
	}
	for _, s := range i.Streams {
		if s.Replicas != 3 || s.Cluster == "" || s.Leader == "" || len(s.Peers) != 2 {
			t.Errorf("got %+v, want 3 replicas with a leader and 2 followers", s)
		}
	}
	if len(i.Servers) != 3 {
		t.Errorf("got %d servers, want 3: %+v", len(i.Servers), i.Servers)
	}
	for _, s := range i.Servers {
		if s.Err != nil || s.Version != server.VERSION || s.CertificateEnds.Before(time.Now()) {
			t.Errorf("got %+v, want version %s and a certificate", s, server.VERSION)
		}
	}
	publish, subscribe := Needs([]string{"acme"})
	for _, subject := range append(publish, i.Inbox) {
		if !i.Rights.Publish.Permits(subject) {
			t.Errorf("deploy/nats does not let a worker publish to %s", subject)
		}
	}
	for _, subject := range append(subscribe, i.Inbox) {
		if !i.Rights.Subscribe.Permits(subject) {
			t.Errorf("deploy/nats does not let a worker subscribe to %s", subject)
		}
	}
}

func TestAServerThatDoesNotSyncAtOnceIsToldFromOneThatDoes(t *testing.T) {
	const frame = `{"server":{"name":"n1"},"data":{"jetstream":{"config":{"sync_interval":120000000000,"sync_always":%s}}}}`
	for always, want := range map[string]time.Duration{"true": 0, "false": 2 * time.Minute} {
		s, ok := parseSync([]byte(strings.Replace(frame, "%s", always, 1)))
		if !ok || s.Server != "n1" || s.Interval != want {
			t.Errorf("always %s: got %+v, %v, want n1 with %v", always, s, ok, want)
		}
	}
	for _, other := range []string{`{"server":{"name":"n1"},"data":{"jetstream":{}}}`, `no`} {
		if s, ok := parseSync([]byte(other)); ok {
			t.Errorf("%s: got %+v, want nothing", other, s)
		}
	}
}

func TestRightsFollowTheRulesOfSubjects(t *testing.T) {
	tests := []struct {
		allow, deny []string
		subject     string
		want        bool
	}{
		{nil, nil, "a.b", true},
		{[]string{"a.>"}, nil, "a.b.c", true},
		{[]string{"a.>"}, nil, "a", false},
		{[]string{"a.*"}, nil, "a.b", true},
		{[]string{"a.*"}, nil, "a.b.c", false},
		{[]string{"a.*"}, nil, "a.>", false},
		{[]string{"a.b"}, nil, "a.*", false},
		{[]string{"x", "a.b queue"}, nil, "a.b", true},
		{nil, []string{"a.b"}, "a.b", false},
		{[]string{">"}, []string{"a.>"}, "a.b", false},
		{[]string{">"}, []string{"a.>"}, "b", true},
	}
	for _, tt := range tests {
		if got := (SubjectRights{Allow: tt.allow, Deny: tt.deny}).Permits(tt.subject); got != tt.want {
			t.Errorf("allowed %q, denied %q: %q is permitted: %v, want %v", tt.allow, tt.deny, tt.subject, got, tt.want)
		}
	}
}

func TestAStoreIsLookedAtWithoutBeingOpened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if f := InspectStore(dir, "key"); f.Exists || f.KeyErr != nil || f.Err != nil {
		t.Errorf("got %+v, want nothing", f)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a look made the directory")
	}
	e, err := StartEmbedded(EmbeddedConfig{StoreDir: dir, Listen: "127.0.0.1:0", StoreKey: "key", SyncInterval: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if f := InspectStore(dir, "key"); !f.Exists || f.URL != e.ClientURL() || f.KeyErr != nil {
		t.Errorf("got %+v, want the server at %s", f, e.ClientURL())
	}
	e.Close()
	if f := InspectStore(dir, "key"); !f.Exists || f.URL != "" || f.KeyErr != nil || f.Err != nil {
		t.Errorf("got %+v, want a store that is not open", f)
	}
	wantError(t, InspectStore(dir, "other").KeyErr, "encrypted with another store key")
	wantError(t, InspectStore(dir, "").KeyErr, "no store key is given")
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	f := InspectStore(dir, "key")
	wantError(t, f.KeyErr, "holds data but not "+keyFile)
	if _, err := os.Stat(filepath.Join(dir, keyFile)); err == nil {
		t.Error("a look made a record of the key")
	}
}
