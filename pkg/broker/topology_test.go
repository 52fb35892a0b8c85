package broker

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

var oddIDs = []string{
	"plain", "with blank", "dots.in.it", ">", "*", "a.>", "$KV", "=20", "a/b", "no\u00a0break", "emoji 🧾", "Ünï", "Case", "case", "-", "0",
	strings.Repeat("x", 256), strings.Repeat(" ", 85),
}

func states(r InitReport) map[string]string {
	all := map[string]string{}
	for _, o := range r.Objects {
		all[o.Kind+" "+o.Name] = o.State
	}
	return all
}

func TestInitCreatesEveryObjectOnce(t *testing.T) {
	b := blank(t)
	want := []string{
		"stream EVENTS_acme", "bucket LEDGER_acme", "bucket INTEGRATIONS", "bucket VENDORS", "bucket DECISIONS", "bucket REPLAYS", "bucket ONBOARDINGS", "stream DEADLETTERS", "stream SYNCLOG",
		"stream STATUS", "stream REQUESTS", "stream AUDIT", "bucket LEASES", "consumers EVENTS_acme p0…p15",
	}
	for _, state := range []string{Created, Unchanged, Unchanged} {
		report := initVendor(t, b, InitConfig{Vendor: "acme"})
		got := states(report)
		for _, name := range want {
			if got[name] != state {
				t.Errorf("%s is %s, want %s", name, got[name], state)
			}
		}
		if len(got) != len(want) {
			t.Errorf("reported %v, want %v", got, want)
		}
		for _, o := range report.Objects {
			if len(o.Differences) > 0 {
				t.Errorf("%s differs: %v", o.Name, o.Differences)
			}
		}
	}
	report := initVendor(t, b, InitConfig{Vendor: "other-1", Partitions: 2})
	if got := states(report); got["stream EVENTS_other-1"] != Created || got["stream DEADLETTERS"] != Unchanged {
		t.Errorf("second vendor: %v, want its own objects made and the common ones unchanged", got)
	}
	vendors, err := b.Vendors(t.Context())
	if err != nil || len(vendors) != 2 || vendors[0].Name != "acme" || vendors[0].Partitions != 16 || vendors[1].Name != "other-1" ||
		vendors[1].Partitions != 2 || vendors[1].Replicas != replicas(b) || time.Since(vendors[1].Created) > time.Hour {
		t.Errorf("vendors %+v, %v; want acme with 16 partitions and other-1 with 2", vendors, err)
	}
}

func TestInitRefusesWhatCannotBe(t *testing.T) {
	b := open(t, 4)
	for _, test := range []struct {
		name string
		c    InitConfig
		want []string
	}{
		{"another number of partitions", InitConfig{Vendor: "acme", Partitions: 8}, []string{"acme has 4 partitions", "8"}},
		{"no vendor", InitConfig{}, []string{"vendor", "1 to 64 characters"}},
		{"a vendor with a blank", InitConfig{Vendor: "a b"}, []string{`"a b"`, "A-Z"}},
		{"a vendor with a dot", InitConfig{Vendor: "a.b"}, []string{"A-Z"}},
		{"a vendor that is too long", InitConfig{Vendor: strings.Repeat("x", 65)}, []string{"64"}},
		{"the word that leases use", InitConfig{Vendor: "member"}, []string{"taken"}},
		{"everything at once", InitConfig{Vendor: "*", Partitions: 257, Replicas: 2, MaxBytes: -1}, []string{`"*"`, "257", "2 replicas", "-1 bytes"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := b.Init(t.Context(), test.c)
			wantError(t, err, test.want...)
		})
	}
	_, err := b.Vendor(t.Context(), "nobody")
	if !errors.Is(err, ErrNoVendor) {
		t.Errorf("got %v, want %v", err, ErrNoVendor)
	}
	wantError(t, err, "usagebridge init --vendor nobody")
}

func TestInitReportsWhatDrifted(t *testing.T) {
	b := open(t, 2)
	publishCounts(t, b, "o", 3)
	alter(t, b, EventsStream("acme"), func(c *jetstream.StreamConfig) { c.DenyPurge = true; c.AllowDirect = true; c.MaxAge = time.Hour })
	alter(t, b, StreamDeadLetters, func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew; c.MaxAge = 365 * day })
	s, err := b.js.Stream(t.Context(), EventsStream("acme"))
	if err != nil {
		t.Fatal(err)
	}
	c := consumerConfig(1)
	c.MaxAckPending = 7
	if _, err := s.UpdateConsumer(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteConsumer(t.Context(), "p0"); err != nil {
		t.Fatal(err)
	}
	report := initVendor(t, b, InitConfig{Vendor: "acme"})
	got := fmt.Sprint(report.Objects)
	for _, want := range []string{
		"{stream EVENTS_acme updated [max_age was 1h0m0s, is 840h0m0s allow_direct was true, is false]}",
		"{stream DEADLETTERS drifted [discard is DiscardNew, want DiscardOld max_age is 8760h0m0s, want 2160h0m0s]}",
		"{consumers EVENTS_acme p0…p1 drifted [p1: max_ack_pending is 7, want 10000]}",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("report %s\nwant %s", got, want)
		}
	}
	if drifted := report.Drifted(); len(drifted) != 2 {
		t.Errorf("%d objects drifted, want 2: %v", len(drifted), drifted)
	}
	if v, err := b.Vendor(t.Context(), "acme"); err != nil || v.Messages != 3 {
		t.Errorf("%+v, %v; want 3 messages left", v, err)
	}
	if _, err := s.Consumer(t.Context(), "p0"); err != nil {
		t.Errorf("missing consumer was not made again: %v", err)
	}
}

func alter(tb testing.TB, b *Broker, stream string, change func(*jetstream.StreamConfig)) {
	tb.Helper()
	b = operator(b)
	s, err := b.js.Stream(tb.Context(), stream)
	if err != nil {
		tb.Fatal(err)
	}
	c := s.CachedInfo().Config
	change(&c)
	if _, err := b.js.UpdateStream(tb.Context(), c); err != nil {
		tb.Fatal(err)
	}
}

func TestInitBoundsTheLogWhenAsked(t *testing.T) {
	b := open(t, 1)
	report := initVendor(t, b, InitConfig{Vendor: "acme", MaxBytes: 1 << 20})
	if got := states(report)["stream EVENTS_acme"]; got != Updated {
		t.Errorf("stream is %s, want %s", got, Updated)
	}
	if got := states(initVendor(t, b, InitConfig{Vendor: "acme"}))["stream EVENTS_acme"]; got != Unchanged {
		t.Errorf("without a wish the stream is %s, want %s", got, Unchanged)
	}
	body := make([]byte, 512<<10)
	var err error
	for range 4 {
		if err = b.Append(t.Context(), "usage.v1.acme.o.snapshot", nil, body, ""); err != nil {
			break
		}
	}
	wantError(t, err, "append to usage.v1.acme.o.snapshot", "maximum bytes")
}

func TestServerAndProgramAgreeOnPartitions(t *testing.T) {
	for _, partitions := range []int{1, 7, 16, 256} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			b := blank(t)
			vendors := []string{"acme", "A-_9", strings.Repeat("v", 64)}
			organizations := oddIDs
			if partitions == 256 { // as many consumers cost time
				vendors, organizations = vendors[:1], organizations[:6]
			}
			for _, vendor := range vendors {
				initVendor(t, b, InitConfig{Vendor: vendor, Partitions: partitions})
				for i, organization := range organizations {
					s := event.Subject{Kind: event.KindAccount, Vendor: vendor, Organization: organization, Account: "a"}
					if i%2 == 0 {
						s = event.Subject{Kind: event.KindBatch, Vendor: vendor, Organization: organization}
					}
					if err := b.Append(t.Context(), s.String(), nil, []byte("x"), ""); err != nil {
						t.Fatalf("publish on %s: %v", s, err)
					}
					m, err := b.last(t.Context(), EventsStream(vendor), "*."+s.String())
					if err != nil || m == nil {
						t.Fatalf("read %s: %v", s, err)
					}
					want := fmt.Sprintf("%d.%s", Partition(vendor, organization, partitions), s)
					if m.Subject != want {
						t.Errorf("stored under %q, want %q", m.Subject, want)
					}
				}
			}
		})
	}
}

func TestPublisherCannotWipeTheLog(t *testing.T) {
	b := open(t, 4)
	subject := publishCounts(t, b, "o", 3)[0]
	for _, header := range []nats.Header{
		{"Nats-Rollup": {"all"}}, {"Nats-Rollup": {"sub"}}, {"Nats-TTL": {"1s"}},
		{"Nats-Schedule": {"@every 1s"}, "Nats-Schedule-Target": {subject}},
	} {
		if err := rawPublish(t, b, subject, header, []byte("evil")); err == nil {
			t.Errorf("a message with %v was taken", header)
		}
	}
	s, err := operator(b).js.Stream(t.Context(), EventsStream("acme")) // not even the operator can
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err == nil {
		t.Error("the log was purged")
	}
	if err := s.DeleteMsg(t.Context(), 1); err == nil {
		t.Error("a message of the log was deleted")
	}
	if err := rawPublish(t, b, subject, nil, make([]byte, maxEvent+1)); err == nil {
		t.Error("an event was taken that no dead letter could hold")
	}
	if v, err := b.Vendor(t.Context(), "acme"); err != nil || v.Messages != 3 {
		t.Errorf("%+v, %v; want 3 messages", v, err)
	}
}

func TestKeysOfTheLedgerAreReadAsWritten(t *testing.T) {
	ids := rapid.OneOf(rapid.SampledFrom(oddIDs[:16]), rapid.StringN(1, 20, 80))
	rapid.Check(t, func(r *rapid.T) {
		k := ledger.CountKey(ids.Draw(r, "organization"), ids.Draw(r, "account"), ids.Draw(r, "service"))
		k = rapid.SampledFrom([]ledger.Key{k, k.AccountKey(), k.ServiceKey()}).Draw(r, "key")
		p := rapid.IntRange(0, 255).Draw(r, "partition")
		if gotP, got, err := ParseLedgerKey(LedgerKey(p, k)); err != nil || got != k || gotP != p {
			r.Errorf("%q is read as %d %+v, %v; want %d %+v", LedgerKey(p, k), gotP, got, err, p, k)
		}
		v, o, err := ParseIntegrationKey(IntegrationKey(k.Organization, "o"))
		if err != nil || v != k.Organization || o != "o" {
			r.Errorf("integration key is read as %q %q, %v", v, o, err)
		}
	})
	for _, key := range []string{"", "1.o", "x.o.account.a", "-1.o.account.a", "1.o.other.a", "1.o.account.a.b", "1.o.count.a", "1.o.account.=2", "1..account.a"} {
		if _, k, err := ParseLedgerKey(key); err == nil {
			t.Errorf("%q is read as %+v, want an error", key, k)
		}
	}
	for _, key := range []string{"", "a", "a.b.c", ".o"} {
		if v, o, err := ParseIntegrationKey(key); err == nil {
			t.Errorf("%q is read as %q %q, want an error", key, v, o)
		}
	}
}
