package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// healthy is the evidence of a cluster on which nothing is wrong.
func healthy() *evidence {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	stream := func(kind, name string) broker.StreamFacts {
		return broker.StreamFacts{
			Kind: kind, Name: name, Vendor: "acme", Replicas: 3, Cluster: "c", Leader: "n1", Refuses: true,
			Peers: []broker.PeerFacts{{Name: "n2", Current: true}, {Name: "n3", Current: true}},
		}
	}
	events := stream("stream", "EVENTS_acme")
	events.MaxAge, events.Duplicates, events.Last = 35*day, 30*time.Minute, now.Add(-time.Minute)
	events.Bytes, events.MaxBytes = 10<<20, 100<<20
	return &evidence{
		now: now,
		config: Config{
			NATSURL: "nats://n1:4222", PartnerTimeout: 10 * time.Second, TooOld: 35 * day, InformSecretFile: "/inform",
			ProbeMin: time.Minute, ProbeMax: time.Hour,
		},
		files: []fileFacts{{variable: "USAGEBRIDGE_INFORM_SECRET_FILE", path: "/inform", mode: 0o600}},
		nats: &broker.Inspection{
			Address: "nats://n1:4222", RoundTrip: time.Millisecond, Inbox: "_INBOX.x",
			Servers: []broker.ServerFacts{{Name: "n1", Version: "2.15.2"}, {Name: "n2", Version: "2.15.3"}, {Name: "n3", Version: "2.16.0-RC.1"}},
			Syncs:   []broker.SyncFacts{{Server: "n1"}, {Server: "n2"}, {Server: "n3"}},
			Account: broker.AccountFacts{Storage: 20 << 20, MaxStorage: 1 << 30, Streams: 12, Consumers: 16},
			Rights:  broker.Rights{User: "worker", Account: "APP"},
			Streams: []broker.StreamFacts{events, stream("bucket", "LEDGER_acme"), stream("bucket", "LEASES")},
			Vendors: []broker.VendorFacts{{
				Name: "acme", Owners: map[int]string{0: "w1", 1: "w2"}, LastFold: now.Add(-time.Minute), LastCall: now.Add(-30 * time.Second),
				Partitions: []broker.PartitionFacts{{Partition: 0, MaxAckPending: 10000}, {Partition: 1, MaxAckPending: 10000}},
			}},
			Members: []string{"w1", "w2"}, LeaseTTL: 15 * time.Second,
			Clocks: []broker.ClockFacts{{Server: "n1", Ahead: 20 * time.Millisecond, Within: 10 * time.Millisecond}},
		},
		integrations: []status.Integration{{
			Vendor: "acme", Organization: "msp-1", Standing: status.Standing{Status: status.Connected}, Since: now.Add(-day),
		}},
		keyset:    keysetFacts{where: "/keyset"},
		statement: keyFacts{id: "ab12"},
		sync:      []syncView{{Integration: "acme/msp-1", Status: status.Connected, Keys: 3, States: map[ledger.State]int{ledger.Synced: 3}}},
		hosts:     []hostFacts{{address: "https://api.example", users: []string{"acme/msp-1"}, status: 404, took: 80 * time.Millisecond, expires: now.Add(60 * day)}},
	}
}

// local turns the evidence into that of an embedded store.
func local(e *evidence) {
	e.config.NATSURL = ""
	e.store = broker.StoreFacts{Dir: "/store", Exists: true, URL: "nats://127.0.0.1:4222"}
	e.disk = diskFacts{free: 500 << 30, size: 1 << 40}
	for n := range e.nats.Streams {
		s := &e.nats.Streams[n]
		s.Replicas, s.Cluster, s.Leader, s.Peers = 1, "", "", nil
	}
}

func TestNothingIsSaidOfWhatIsInOrder(t *testing.T) {
	for name, alter := range map[string]func(*evidence){"cluster": func(*evidence) {}, "embedded": local} {
		e := healthy()
		alter(e)
		r := diagnose(e, checks())
		for _, f := range r.Findings {
			if f.Verdict != stepOK && f.Verdict != stepSkipped || f.Mend != "" {
				t.Errorf("%s: got %s %s %q, mend %q, want it in order", name, f.ID, f.Verdict, f.Observed, f.Mend)
			}
		}
		if r.Verdict != stepOK {
			t.Errorf("%s: the verdict is %s, want ok", name, r.Verdict)
		}
	}
}

func TestEachCheckKnowsWhatIsWrong(t *testing.T) {
	events := func(e *evidence) *broker.StreamFacts { return &e.nats.Streams[0] }
	vendor := func(e *evidence) *broker.VendorFacts { return &e.nats.Vendors[0] }
	integration := func(e *evidence) *status.Integration { return &e.integrations[0] }
	tests := []struct {
		name  string
		alter func(*evidence)
		id    string
		want  verdict
		says  string // in what was observed
		mend  string
	}{
		{"a setting is not understood", func(e *evidence) { e.configErr = errors.New("USAGEBRIDGE_LINGER: want 0 or more") },
			"configuration.valid", stepFailed, "USAGEBRIDGE_LINGER", "usagebridge config"},
		{"a file is missing", func(e *evidence) { e.files[0].err = fs.ErrNotExist },
			"configuration.files", stepFailed, "/inform does not exist", "USAGEBRIDGE_INFORM_SECRET_FILE"},
		{"a file is not readable", func(e *evidence) { e.files[0].err = fs.ErrPermission },
			"configuration.files", stepFailed, "permission denied", "/inform"},
		{"a file is empty", func(e *evidence) { e.files[0].empty = true },
			"configuration.files", stepFailed, "/inform is empty", "write the secret"},
		{"others may read a secret", func(e *evidence) { e.files[0].mode, e.files[0].exposed = 0o640, true },
			"configuration.files", stepWarning, "mode 0640", "`chmod 600 /inform`"},
		{"there is no webhook", func(e *evidence) { e.config.InformSecretFile = "" },
			"configuration.inform", stepSkipped, "probes alone, every 1m to 1h", ""},
		{"nothing was set up", func(e *evidence) { local(e); e.store = broker.StoreFacts{Dir: "/store"} },
			"store.present", stepFailed, "/store", "`usagebridge init --vendor NAME`"},
		{"the key is another", func(e *evidence) { local(e); e.store.KeyErr = errors.New("another store key") },
			"store.key", stepFailed, "another store key", "USAGEBRIDGE_STORE_KEY_FILE"},
		{"the key cannot be read", func(e *evidence) { local(e); e.storeErr = errors.New("no such file") },
			"store.key", stepFailed, "no such file", "USAGEBRIDGE_STORE_KEY_FILE"},
		{"the disk fills", func(e *evidence) { local(e); e.disk = diskFacts{free: 10 << 30, size: 100 << 30} },
			"store.disk", stepWarning, "90 % used", "make room"},
		{"the disk is full", func(e *evidence) { local(e); e.disk = diskFacts{free: 1 << 30, size: 100 << 30} },
			"store.disk", stepFailed, "99 % used", "make room"},
		{"a huge disk has enough left", func(e *evidence) { local(e); e.disk = diskFacts{free: 500 << 30, size: 10 << 40} },
			"store.disk", stepOK, "95 % used", ""},
		{"a disk is small", func(e *evidence) { local(e); e.disk = diskFacts{free: 100 << 20, size: 200 << 20} },
			"store.disk", stepFailed, "100.0 MiB free", "make room"},
		{"the disk cannot be seen", func(e *evidence) { local(e); e.disk = diskFacts{err: errors.New("not known on plan9")} },
			"store.disk", stepSkipped, "plan9", ""},
		{"the keyset is gone", func(e *evidence) { e.keyset.err = fs.ErrNotExist },
			"store.keyset", stepFailed, "not exist", "USAGEBRIDGE_MASTER_KEYSET"},
		{"no keyset is needed yet", func(e *evidence) { e.keyset.err = fs.ErrNotExist; e.integrations = nil },
			"store.keyset", stepSkipped, "none yet", ""},
		{"the keyset is another", func(e *evidence) { e.keyset.closed = map[string]error{"acme/msp-1": errors.New("key 1 is not in it")} },
			"store.keyset", stepFailed, "key 1 is not in it", "credentials set acme/msp-1"},
		{"a rotation was broken off", func(e *evidence) {
			e.keyset.keys = []vault.Key{{ID: 7, State: vault.Old}, {ID: 8, State: vault.Primary}}
		},
			"store.keyset", stepWarning, "key 7 (old), key 8 (primary)", "`usagebridge keys rotate`"},
		{"the keyset is not encrypted yet", func(e *evidence) { e.keyset.inClear = true },
			"store.keyset", stepWarning, "in clear", "`usagebridge keys wrap`"},
		{"a worker cannot use its file", func(e *evidence) { e.keyset.workers = map[string]*keyNote{"w1": {Complaint: "is not JSON"}} },
			"store.keyset", stepWarning, "is not JSON", "right keyset into its file"},
		{"a worker is of an older version", func(e *evidence) { e.keyset.workers = map[string]*keyNote{"w1": nil} },
			"store.keyset", stepWarning, "does not tell which keys", "update it"},
		{"the statement key is gone", func(e *evidence) { e.statement = keyFacts{err: fs.ErrNotExist} },
			"store.statement_key", stepFailed, "not exist", "USAGEBRIDGE_STATEMENT_KEY_FILE"},
		{"the statement key is not made yet", func(e *evidence) { e.statement = keyFacts{err: fs.ErrNotExist, made: true} },
			"store.statement_key", stepSkipped, "none yet", ""},

		{"NATS is away", func(e *evidence) { e.nats, e.natsErr = nil, errors.New("no servers available") },
			"nats.reachable", stepFailed, "no servers available", "USAGEBRIDGE_NATS_URL"},
		{"a server is old", func(e *evidence) { e.nats.Servers[1].Version = "2.15.1" },
			"nats.version", stepFailed, "n2: nats-server 2.15.1", "2.15.2 or newer"},
		{"a server is very old", func(e *evidence) { e.nats.Servers[1].Version = "1.99.99" },
			"nats.version", stepFailed, "1.99.99", "upgrade"},
		{"a server is built by hand", func(e *evidence) { e.nats.Servers[1].Version = "dev" },
			"nats.version", stepWarning, `"dev" says nothing`, "released"},
		{"a server is away", func(e *evidence) { e.nats.Servers[1].Err = errors.New("connection refused") },
			"nats.version", stepWarning, "connection refused", "start the server"},
		{"JetStream is off", func(e *evidence) { e.nats.AccountErr = errors.New("jetstream not enabled") },
			"nats.jetstream", stepFailed, "not enabled", "jetstream {}"},
		{"the account fills", func(e *evidence) { e.nats.Account.Storage = 850 << 20 },
			"nats.jetstream", stepWarning, "storage: 850.0 MiB of 1.0 GiB used", "max_storage"},
		{"the account has no consumers left", func(e *evidence) { e.nats.Account.MaxConsumers = 16 },
			"nats.jetstream", stepFailed, "consumers: 16 of 16 used", "max_consumers"},
		{"a right is missing", func(e *evidence) { e.nats.Rights.Publish.Deny = []string{"$KV.LEDGER_acme.>"} },
			"nats.rights", stepFailed, "may not publish to $KV.LEDGER_acme", "permissions"},
		{"answers cannot come", func(e *evidence) { e.nats.Rights.Subscribe.Allow = []string{"hint.>", "lane.>"} },
			"nats.rights", stepFailed, "may not subscribe to _INBOX.x", "permissions"},
		{"rights are not told", func(e *evidence) { e.nats.RightsErr = errors.New("timeout") },
			"nats.rights", stepSkipped, "timeout", ""},
		{"a server syncs now and then", func(e *evidence) { e.nats.Syncs[0].Interval = 2 * time.Minute },
			"nats.sync", stepWarning, "up to 2m0s", "sync_interval: always"},
		{"nobody else has a copy", func(e *evidence) { e.nats.Syncs[0].Interval, e.nats.Streams[1].Replicas = 2*time.Minute, 1 },
			"nats.sync", stepFailed, "up to 2m0s", "sync_interval: always"},
		{"syncing cannot be seen", func(e *evidence) { e.nats.Syncs = nil },
			"nats.sync", stepSkipped, "sync_interval: always", ""},
		{"a server's certificate ends soon", func(e *evidence) { e.nats.Servers[2].CertificateEnds = e.now.Add(36 * time.Hour) },
			"nats.certificates", stepWarning, "n3: the certificate ends on 2026-11-22, in 1 day", "reload"},
		{"our certificate has ended", func(e *evidence) { e.clientCertificateEnds = e.now.Add(-time.Hour) },
			"nats.certificates", stepFailed, "our own: the certificate ended on 2026-11-20", "USAGEBRIDGE_NATS_CERT"},
		{"a clock is ahead", func(e *evidence) { e.nats.Clocks[0].Ahead = 2 * time.Second },
			"nats.clock", stepWarning, "n1: 2s ahead of", "chrony"},
		{"a clock is far behind", func(e *evidence) { e.nats.Clocks[0].Ahead = -6 * time.Second },
			"nats.clock", stepFailed, "6s behind", "chrony"},
		{"the way explains it", func(e *evidence) {
			e.nats.Clocks[0] = broker.ClockFacts{Ahead: 2 * time.Second, Within: 1500 * time.Millisecond}
		},
			"nats.clock", stepOK, "within 500ms", ""},

		{"no vendor is set up", func(e *evidence) { e.nats.Vendors, e.nats.Streams = nil, nil },
			"streams.present", stepFailed, "no vendor", "`usagebridge init --vendor NAME`"},
		{"the vendor is unknown", func(e *evidence) {
			e.vendor, e.nats.Vendors, e.nats.Streams, e.nats.TopologyErr = "beta", nil, nil, broker.ErrNoVendor
		}, "streams.present", stepFailed, "not set up", "usagebridge init --vendor beta"},
		{"a bucket is missing", func(e *evidence) { e.nats.Streams[2].Missing = true },
			"streams.present", stepFailed, "LEASES: bucket is missing", "`usagebridge init --vendor acme`"},
		{"a log is gone", func(e *evidence) { e.nats.Orphans = []string{"beta"} },
			"streams.present", stepFailed, "EVENTS_beta: the vendor has a ledger", "restore"},
		{"init mends a setting", func(e *evidence) {
			events(e).Differences = []broker.Difference{{Text: "max_age is 1h, want 840h", Mendable: true}}
		},
			"streams.settings", stepFailed, "EVENTS_acme: max_age", "`usagebridge init --vendor acme`"},
		{"init leaves a setting", func(e *evidence) {
			e.nats.Streams[1].Differences = []broker.Difference{{Text: "max_msgs is 10, want 0"}}
		},
			"streams.settings", stepFailed, "LEDGER_acme: max_msgs", "`nats stream edit KV_LEDGER_acme`"},
		{"nobody can mend a setting", func(e *evidence) { events(e).Differences = []broker.Difference{{Text: "partitions is 4, want 8"}} },
			"streams.settings", stepFailed, "partitions", "set up another vendor"},
		{"a consumer differs", func(e *evidence) { vendor(e).Consumers = []broker.Difference{{Text: "p1: max_deliver is 3, want -1"}} },
			"streams.settings", stepFailed, "p1: max_deliver", "`nats consumer edit EVENTS_acme`"},
		{"the log fills", func(e *evidence) { events(e).Bytes = 80 << 20 },
			"streams.room", stepWarning, "80.0 MiB of 100.0 MiB used (80 %)", "--max-bytes 209715200"},
		{"the log is full", func(e *evidence) { events(e).Bytes = 95 << 20 },
			"streams.room", stepFailed, "(95 %)", "`usagebridge init --vendor acme --max-bytes"},
		{"a full log that drops the oldest is in order", func(e *evidence) { events(e).Bytes, events(e).Refuses = 100<<20, false },
			"streams.room", stepOK, "no stream", ""},
		{"a ledger is full", func(e *evidence) { e.nats.Streams[1].Bytes, e.nats.Streams[1].MaxBytes = 10, 10 },
			"streams.room", stepFailed, "LEDGER_acme", "`nats stream edit KV_LEDGER_acme --max-bytes 20`"},
		{"a cluster has one copy", func(e *evidence) { events(e).Replicas, events(e).Peers = 1, nil },
			"streams.replicas", stepWarning, "1 replica, on a cluster, of EVENTS_acme", "--replicas 3"},
		{"there is no leader", func(e *evidence) { events(e).Leader = "" },
			"streams.replicas", stepFailed, "no leader", "report jetstream"},
		{"a follower is offline", func(e *evidence) { events(e).Peers[0] = broker.PeerFacts{Name: "n2", Offline: true} },
			"streams.replicas", stepWarning, "offline: n2", "bring the servers"},
		{"the majority is offline", func(e *evidence) {
			events(e).Peers = []broker.PeerFacts{{Name: "n2", Offline: true}, {Name: "n3", Offline: true}}
		}, "streams.replicas", stepFailed, "offline: n2, n3", "bring the servers"},
		{"a follower lags", func(e *evidence) { events(e).Peers[0].Lag = 5000 },
			"streams.replicas", stepWarning, "n2 (5000 behind)", "bring the servers"},
		{"events may come later than they are kept", func(e *evidence) { e.config.TooOld = 0 },
			"streams.retention", stepWarning, "without limit", "USAGEBRIDGE_TOO_OLD to 840h or less"},
		{"repeats are forgotten", func(e *evidence) { events(e).Duplicates = 2 * time.Minute },
			"streams.duplicates", stepWarning, "known for 2m", "usagebridge init"},

		{"no worker is alive", func(e *evidence) { e.nats.Members = nil },
			"workers.alive", stepFailed, "none is alive", "`usagebridge run`"},
		{"the store was not open", func(e *evidence) { e.nats.Members, e.own = nil, true },
			"workers.alive", stepWarning, "not open", "`usagebridge run`"},
		{"calls outlive leases", func(e *evidence) { e.nats.LeaseTTL = 10 * time.Second },
			"workers.lease", stepFailed, "no call could ever begin", "PARTNER_TIMEOUT to 8s"},
		{"calls nearly outlive leases", func(e *evidence) { e.nats.LeaseTTL = 12 * time.Second },
			"workers.lease", stepWarning, "little time", "PARTNER_TIMEOUT"},
		{"a partition has no worker", func(e *evidence) { delete(vendor(e).Owners, 1) },
			"workers.partitions", stepWarning, "acme: no worker has 1", "look again after 30s"},
		{"a vendor is stopped", func(e *evidence) { e.stopped = map[string]stop{"acme": {By: "eve", Why: "bad file", At: e.now}} },
			"vendors.folded", stepWarning, "by eve: bad file", "vendors resume acme"},
		{"events wait", func(e *evidence) {
			vendor(e).Partitions[0].Pending, vendor(e).Partitions[0].Oldest = 5, e.now.Add(-2*time.Minute)
		},
			"vendors.lag", stepWarning, "5 events wait, the oldest for 2m0s", "workers' logs"},
		{"events wait long", func(e *evidence) {
			vendor(e).Partitions[1].AckPending, vendor(e).Partitions[1].Oldest = 1, e.now.Add(-time.Hour)
		},
			"vendors.lag", stepFailed, "1 event waits", "workers' logs"},
		{"events wait because somebody said so", func(e *evidence) {
			e.stopped = map[string]stop{"acme": {}}
			vendor(e).Partitions[0].Pending, vendor(e).Partitions[0].Oldest = 5, e.now.Add(-time.Hour)
		}, "vendors.lag", stepWarning, "5 events wait", "vendors resume acme"},
		{"events are about to be lost", func(e *evidence) {
			e.stopped = map[string]stop{"acme": {}}
			vendor(e).Partitions[0].Pending, vendor(e).Partitions[0].Oldest = 5, e.now.Add(-30*24*time.Hour)
		}, "vendors.lag", stepFailed, "the log keeps events for 35 days alone", "vendors resume acme"},
		{"just folded", func(e *evidence) {
			vendor(e).Partitions[0].Pending, vendor(e).Partitions[0].Oldest = 5, e.now.Add(-time.Second)
		},
			"vendors.lag", stepOK, "5 events wait", ""},
		{"events come again", func(e *evidence) { vendor(e).Partitions[0].Redelivered = 3 },
			"vendors.redelivered", stepWarning, "3 events", "look again"},
		{"no more are delivered", func(e *evidence) { vendor(e).Partitions[1].AckPending = 9000 },
			"vendors.redelivered", stepFailed, "p1 (9000 of 10000)", "workers' logs"},
		{"the ledger is of a newer version", func(e *evidence) { vendor(e).LedgerErr = errors.New("format 2: this version reads format 1") },
			"vendors.ledger", stepFailed, "format 2", "run the version"},
		{"an entry is damaged", func(e *evidence) { e.syncErr = errors.New("entry is no JSON") },
			"vendors.ledger", stepFailed, "no JSON", "run the version"},
		{"the ledgers are too many to read", func(e *evidence) { e.syncErr = context.DeadlineExceeded },
			"vendors.ledger", stepWarning, "within 1m", "--vendor"},
		{"there are dead letters", func(e *evidence) { vendor(e).DeadLetters = 2 },
			"vendors.dead_letters", stepWarning, "acme: 2 dead letters", "`usagebridge dlq ls --vendor acme`"},

		{"an integration is paused", func(e *evidence) { integration(e).Paused, integration(e).PausedWhy = true, "moving" },
			"integrations.gates", stepWarning, "paused: moving", "integrations resume acme/msp-1"},
		{"tokens are refused", func(e *evidence) { integration(e).Hold = string(ledger.Unauthorized) },
			"integrations.gates", stepFailed, "refused the tokens", "credentials set acme/msp-1"},
		{"new tokens are not known yet", func(e *evidence) {
			integration(e).Previous = &status.Previous{Until: e.now.Add(time.Hour), Used: e.now}
		},
			"integrations.gates", stepWarning, "former ones until", "credentials set acme/msp-1"},
		{"something else answers", func(e *evidence) {
			integration(e).Hold, integration(e).HoldMessage = string(ledger.Anomaly), "a login page"
		},
			"integrations.gates", stepFailed, "a login page", "integrations test acme/msp-1"},
		{"it is not mapped", func(e *evidence) { integration(e).Status = status.Mapping },
			"integrations.gates", stepWarning, "status mapping", "integrations show acme/msp-1"},
		{"records cannot be read", func(e *evidence) { e.recordsErr = errors.New("bucket VENDORS is missing") },
			"integrations.gates", stepFailed, "VENDORS is missing", "streams first"},
		{"counts are unmapped", func(e *evidence) { e.sync[0].Held = map[ledger.HoldReason]int{ledger.Unmapped: 2} },
			"integrations.figures", stepWarning, "2 counts are unmapped", "integrations mapping acme/msp-1"},
		{"figures wait for approval", func(e *evidence) { e.sync[0].Held = map[ledger.HoldReason]int{ledger.Approval: 1} },
			"integrations.figures", stepWarning, "1 figure waits", "approvals ls --integration acme/msp-1"},
		{"figures were refused", func(e *evidence) { e.sync[0].States[ledger.Failed] = 1 },
			"integrations.figures", stepWarning, "1 figure was refused", "dlq ls"},
		{"nobody has added the organization", func(e *evidence) { e.sync[0].Status = "" },
			"integrations.figures", stepWarning, "3 figures came", "integrations add acme/msp-1"},
		{"the partner is away", func(e *evidence) { e.hosts[0].err = errors.New("connection refused") },
			"partner.reachable", stepFailed, "connection refused (needed by acme/msp-1)", "curl"},
		{"a certificate ends soon", func(e *evidence) { e.hosts[0].expires = e.now.Add(13*24*time.Hour + time.Hour) },
			"partner.encrypted", stepWarning, "on 2026-12-03, in 13 days", "whoever runs the host"},
		{"tokens travel in clear", func(e *evidence) { e.hosts[0].address, e.hosts[0].expires = "http://api.example", time.Time{} },
			"partner.encrypted", stepWarning, "plain HTTP", "credentials set"},
		{"a sandbox on this machine", func(e *evidence) { e.hosts[0].address, e.hosts[0].expires = "http://127.0.0.1:9090", time.Time{} },
			"partner.encrypted", stepSkipped, "no host", ""},
		{"no partner is to be called", func(e *evidence) { e.offline = true },
			"partner.reachable", stepSkipped, "--offline", ""},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := healthy()
			tt.alter(e)
			r := diagnose(e, checks())
			seen[tt.id] = true
			at := slices.IndexFunc(r.Findings, func(f reported) bool {
				return f.ID == tt.id && f.Verdict == tt.want && strings.Contains(f.Object+": "+f.Observed, tt.says)
			})
			if at < 0 {
				t.Fatalf("want %s %s with %q, got:\n%s", tt.id, tt.want, tt.says, r.text())
			}
			f := r.Findings[at]
			if !strings.Contains(f.Mend, tt.mend) || (f.Mend == "") != (tt.mend == "") {
				t.Errorf("got the mend %q, want %q in it", f.Mend, tt.mend)
			}
		})
	}
	for _, c := range checks() {
		if !seen[c.id] && c.id != "vendors.activity" { // which has nothing to complain of
			t.Errorf("no case makes %s find anything", c.id)
		}
	}
}

func TestWhatStandsOnSomethingBrokenIsSkipped(t *testing.T) {
	tests := []struct {
		name  string
		alter func(*evidence)
		only  []string // checks that are not skipped
	}{
		{"configuration", func(e *evidence) { e.configErr = errors.New("bad") }, []string{"configuration.valid"}},
		{"NATS", func(e *evidence) { e.nats, e.natsErr = nil, errors.New("away"); e.integrations = nil }, []string{
			"configuration.valid", "configuration.files", "configuration.inform", "store.present", "store.keyset", "store.statement_key", "nats.reachable",
		}},
		{"store", func(e *evidence) {
			local(e)
			e.nats, e.natsErr, e.integrations, e.store = nil, errors.New("none"), nil, broker.StoreFacts{}
		}, []string{"configuration.valid", "configuration.files", "configuration.inform", "store.present", "store.disk", "store.keyset", "store.statement_key"}},
	}
	for _, tt := range tests {
		e := healthy()
		tt.alter(e)
		var got []string
		for _, f := range diagnose(e, checks()).Findings {
			if f.Verdict != stepSkipped {
				got = append(got, f.ID)
			}
		}
		if !slices.Equal(got, tt.only) {
			t.Errorf("%s: judged %q, want %q", tt.name, got, tt.only)
		}
	}
}

func TestTheVerdictOfAReportIsTheWorstOfItsFindings(t *testing.T) {
	warn := func(e *evidence) { e.nats.Vendors[0].DeadLetters = 1 }
	fail := func(e *evidence) { e.nats.Members = nil }
	tests := []struct {
		name    string
		alter   []func(*evidence)
		verdict verdict
		exit    int
	}{
		{"nothing", nil, stepOK, exitDone},
		{"a warning", []func(*evidence){warn}, stepWarning, exitPartly},
		{"a failure", []func(*evidence){fail}, stepFailed, exitFailed},
		{"both", []func(*evidence){warn, fail}, stepFailed, exitFailed},
	}
	for _, tt := range tests {
		e := healthy()
		for _, alter := range tt.alter {
			alter(e)
		}
		r := diagnose(e, checks())
		counted := 0
		for _, n := range r.Counts {
			counted += n
		}
		err := (&cli{stdout: io.Discard, stderr: io.Discard}).showReport(&r)
		if r.Verdict != tt.verdict || exitCode(err) != tt.exit || counted != len(r.Findings) {
			t.Errorf("%s: got %s, exit code %d (%v) and %d counted, want %s, %d and %d",
				tt.name, r.Verdict, exitCode(err), err, counted, tt.verdict, tt.exit, len(r.Findings))
		}
	}
}

func TestTheIdsOfChecksAreTheirContract(t *testing.T) {
	want := []string{
		"configuration.valid", "configuration.files", "configuration.inform",
		"store.present", "store.key", "store.disk", "store.keyset", "store.statement_key",
		"nats.reachable", "nats.version", "nats.jetstream", "nats.rights", "nats.sync", "nats.certificates", "nats.clock",
		"streams.present", "streams.settings", "streams.room", "streams.replicas", "streams.retention", "streams.duplicates",
		"workers.alive", "workers.lease", "workers.partitions",
		"vendors.folded", "vendors.lag", "vendors.redelivered", "vendors.ledger", "vendors.dead_letters", "vendors.activity",
		"integrations.gates", "integrations.figures", "partner.reachable", "partner.encrypted",
	}
	var got []string
	for _, c := range checks() {
		got = append(got, c.id)
		if strings.Count(c.why, ".") != 1 || !strings.HasSuffix(c.why, ".") {
			t.Errorf("%s says why with %q, want one sentence", c.id, c.why)
		}
		if len(c.title) >= titleColumn {
			t.Errorf("%s has the title %q, want one that fits into %d characters", c.id, c.title, titleColumn-1)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got the ids\n%q, want\n%q", got, want)
	}
}

func TestReportsForPeople(t *testing.T) {
	cases := map[string]func(*evidence){
		"healthy": func(*evidence) {},
		"ill": func(e *evidence) {
			e.nats.Clocks[0].Ahead = -7 * time.Second
			e.nats.Streams[0].Bytes = 96 << 20
			e.nats.Streams[0].Differences = []broker.Difference{{Text: "max_age is 1h0m0s, want 840h0m0s", Mendable: true}}
			e.nats.Streams[1].Replicas, e.nats.Streams[1].Peers = 1, nil
			e.nats.Servers[1].Version = "2.12.1"
			e.integrations[0].Hold, e.integrations[0].HoldSince = string(ledger.Unauthorized), e.now.Add(-5*time.Hour)
			e.hosts[0].err = errors.New("lookup api.example: no such host")
		},
		"away": func(e *evidence) {
			e.nats, e.natsErr = nil, errors.New("connect to NATS at nats://n1:4222: nats: no servers available for connection")
		},
	}
	for name, alter := range cases {
		e := healthy()
		alter(e)
		r := diagnose(e, checks())
		got := r.text()
		path := filepath.Join("testdata", "doctor", name+".golden")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%v; it should hold:\n%s", err, got)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
		}
		for line := range strings.Lines(got) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > reportWidth && !strings.Contains(line, "`") {
				t.Errorf("%s: a line has %d characters, want at most %d: %s", name, n, reportWidth, line)
			}
		}
	}
}

func TestHostsAreCalledOnceEachAndWithoutTokens(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+r.URL.RawQuery)
		http.Redirect(w, r, "/login", http.StatusFound)
	}))
	defer plain.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	defer untrusted.Close()
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()

	integration := func(organization, api string) status.Integration {
		return status.Integration{Vendor: "acme", Organization: organization, APIURL: api}
	}
	hosts := hostsOf(&Config{OEMAPIURL: away.URL + "/oem"}, []status.Integration{
		integration("a", plain.URL+"/api"), integration("b", plain.URL+"/other?x=y"), integration("c", untrusted.URL), integration("d", "no address"),
	})
	if len(hosts) != 3 || !slices.Equal(hosts[0].users, []string{"acme/a", "acme/b"}) || !slices.Equal(hosts[2].users, []string{"the OEM-API"}) {
		t.Fatalf("got hosts %+v, want one for a and b, one for c and that of the OEM-API", hosts)
	}
	callHosts(t.Context(), hosts)
	if h := hosts[0]; h.err != nil || h.status != http.StatusFound || !h.expires.IsZero() {
		t.Errorf("got %+v, want the redirect itself as an answer", h)
	}
	if want := []string{"HEAD / "}; !slices.Equal(asked, want) {
		t.Errorf("the host was asked %q, want %q", asked, want)
	}
	if h := hosts[1]; h.err == nil || !strings.Contains(h.err.Error(), "certificate") {
		t.Errorf("got the error %v, want one about the certificate", h.err)
	}
	if h := hosts[2]; h.err == nil || strings.Contains(h.err.Error(), "Head") {
		t.Errorf("got the error %v, want one that does not repeat the address", h.err)
	}
}

func TestGatheringEvidenceMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	t.Setenv("USAGEBRIDGE_STORE_DIR", dir)
	t.Setenv("USAGEBRIDGE_NATS_LISTEN", "127.0.0.1:0")
	e := gather(t.Context(), "", true)
	if e.nats != nil || e.natsErr == nil || e.store.Exists || !errors.Is(e.keyset.err, fs.ErrNotExist) {
		t.Errorf("got %+v, want no store, no NATS and no keyset", e)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking for the store gave %v, want that it does not exist", err)
	}
	if d := diskOf(dir); d.err != nil || d.size == 0 || d.free > d.size {
		t.Errorf("got the disk %+v, want that of the directory above", d)
	}
}

func TestLengthsOfTimeAreWrittenAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		35 * 24 * time.Hour: "35 days", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s",
		15 * time.Second: "15s", 10 * time.Minute: "10m", 0: "0s",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) is %q, want %q", d, got, want)
		}
		if back, err := time.ParseDuration(durationSetting(d)); err != nil || back != d {
			t.Errorf("a variable would read %q as %v (%v), want %v", durationSetting(d), back, err, d)
		}
	}
}

func TestWhatIsForAShellStaysInOnePiece(t *testing.T) {
	var b strings.Builder
	command := "`usagebridge " + strings.Repeat("word ", 30) + "end`"
	wrap(&b, "  mend  ", strings.Repeat("text ", 15)+command+" and after")
	lines := strings.Split(b.String(), "\n")
	if len(lines) != 4 || lines[1] != "        "+command || lines[2] != "        and after" {
		t.Errorf("got the lines %q, want the command on one of its own", lines)
	}
}
