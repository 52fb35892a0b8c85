package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/ledger/ledgertest"
)

func TestLedgerKeepsTheContractOfAStore(t *testing.T) {
	keepTheContract(t, map[string]bool{"in atomic batches": true, "pipelined, for servers without them": false})
}

func keepTheContract(t *testing.T, ways map[string]bool) {
	t.Helper()
	b := blank(t)
	for name, atomic := range ways {
		t.Run(name, func(t *testing.T) {
			n := 0
			ledgertest.Run(t, func(t *testing.T) ledgertest.Store {
				t.Helper()
				n++
				vendor := fmt.Sprintf("v%d-%v", n, atomic)
				initVendor(t, b, InitConfig{Vendor: vendor, Partitions: 1})
				if !atomic {
					alter(t, b, bucketPrefix+LedgerBucket(vendor), func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false })
				}
				return b.Ledger(vendor)
			}, ErrStale)
		})
	}
}

func entries(n int) []ledger.Entry {
	all := make([]ledger.Entry, n)
	for i := range all {
		all[i] = ledger.Entry{
			Key:   ledger.CountKey("org-1", fmt.Sprintf("account-%d", i), "backup"),
			Seen:  []ledger.Seen{{Version: ledger.Version{Time: 1, Arrival: uint64(i)}, Value: ledger.Value{Units: 42_000_000}, Event: 7, Disposition: ledger.Applied}},
			State: ledger.Dirty,
		}
	}
	return all
}

func TestEntriesOfOneWriteFollowEachOtherAmongOtherWriters(t *testing.T) {
	b := open(t, 4)
	s := b.Ledger("acme")
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			batch := entries(200)
			for range 5 {
				if err := s.Write(t.Context(), p, batch); err != nil {
					t.Errorf("partition %d: %v", p, err)
					return
				}
				for i := range batch {
					if want := batch[0].Revision + uint64(i); batch[i].Revision != want {
						t.Errorf("partition %d entry %d has revision %d, want %d", p, i, batch[i].Revision, want)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestLedgerIsAnOrdinaryBucket(t *testing.T) {
	b := open(t, 4)
	s := b.Ledger("acme")
	batch := entries(3)
	if err := s.Write(t.Context(), 2, batch); err != nil {
		t.Fatal(err)
	}
	kv, err := b.js.KeyValue(t.Context(), LedgerBucket("acme"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range batch {
		got, err := kv.Get(t.Context(), LedgerKey(2, e.Key))
		if err != nil || got.Revision() != e.Revision || string(got.Value()) != string(ledger.AppendEntry(nil, &e)) {
			t.Errorf("%s: %v, %v; want the entry at revision %d", e.Key, got, err, e.Revision)
		}
	}
	keys, err := kv.Keys(t.Context())
	if err != nil || len(keys) != 3 {
		t.Errorf("keys %v, %v; want 3", keys, err)
	}
	if err := kv.Delete(t.Context(), LedgerKey(2, batch[1].Key)); err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(t.Context(), LedgerKey(2, batch[2].Key)); err != nil {
		t.Fatal(err)
	}
	var left []ledger.Key
	err = s.Load(t.Context(), 2, func(e ledger.Entry) error { left = append(left, e.Key); return nil })
	if err != nil || !slices.Equal(left, []ledger.Key{batch[0].Key}) {
		t.Errorf("loaded %v, %v; want only %v: the others are deleted", left, err, batch[0].Key)
	}
	if _, ok, err := s.Read(t.Context(), 2, batch[1].Key); ok || err != nil {
		t.Errorf("read a deleted entry: %v, %v", ok, err)
	}
}

func TestEntryThatCannotBeReadEndsTheLoad(t *testing.T) {
	b := open(t, 4)
	s := b.Ledger("acme")
	if err := s.Write(t.Context(), 1, entries(2)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ key, value string }{{"1.o.account.a", `{"v":99}`}, {"1.o.strange.a", `{}`}} {
		if err := rawPublish(t, b, s.prefix+test.key, nil, []byte(test.value)); err != nil {
			t.Fatal(err)
		}
		err := s.Load(t.Context(), 1, func(ledger.Entry) error { return nil })
		wantError(t, err, "load ledger acme partition 1")
	}
	_, _, err := s.Read(t.Context(), 1, ledger.AccountKey("o", "a"))
	wantError(t, err, "read ledger acme partition 1", "format 99")
}

func TestLedgerOfAnUnknownVendorSaysWhatToDo(t *testing.T) {
	s := open(t, 1).Ledger("nobody")
	wantError(t, s.Load(t.Context(), 0, nil), "KV_LEDGER_nobody", "usagebridge init")
	wantError(t, s.Write(t.Context(), 0, entries(2)), "KV_LEDGER_nobody", "usagebridge init")
	_, _, err := s.Read(t.Context(), 0, ledger.AccountKey("o", "a"))
	wantError(t, err, "KV_LEDGER_nobody", "usagebridge init")
}

func TestMoreBatchesThanTheServerTakesAllGetThrough(t *testing.T) {
	b := openEmbedded(t, 1)
	prefix := b.Ledger("acme").prefix
	// Somebody else has 50 batches under way, as many as the server takes.
	part := func(i int, sequence string) *nats.Msg {
		m := message(fmt.Sprintf("%s0.other.account.a-%d", prefix, i), []byte("x"))
		m.Header.Set(jetstreamext.BatchIDHeader, fmt.Sprintf("other-%d", i))
		m.Header.Set(jetstreamext.BatchSeqHeader, sequence)
		return m
	}
	for i := range 50 {
		if _, err := b.conn.RequestMsgWithContext(within(t, 5*time.Second), part(i, "1")); err != nil {
			t.Fatal(err)
		}
	}
	attempts := make(chan *nats.Msg, 1000)
	sub, err := b.conn.ChanSubscribe(prefix+"0.org-1.>", attempts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	written := make(chan error, 1)
	go func() { written <- b.Ledger("acme").Write(within(t, 20*time.Second), 0, entries(10)) }()
	for range 30 { // the third attempt: two were refused
		<-attempts
	}
	for i := range 50 { // part 3 before part 2 is the end of a batch
		if err := b.conn.PublishMsg(part(i, "3")); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-written; err != nil {
		t.Errorf("write: %v", err)
	}
}

func TestBatchesAreCutByNumberAndSize(t *testing.T) {
	big := func(n, size int) []*nats.Msg {
		all := make([]*nats.Msg, n)
		for i := range all {
			all[i] = message("s", make([]byte, size))
		}
		return all
	}
	for _, test := range []struct {
		messages []*nats.Msg
		want     int
	}{{big(1, 1), 1}, {big(1000, 1), 1000}, {big(1001, 1), 1000}, {big(20, 1<<20), 7}, {big(3, 9<<20), 1}} {
		if got := chunk(test.messages); got != test.want {
			t.Errorf("%d messages of %d bytes: the first batch has %d, want %d", len(test.messages), len(test.messages[0].Data), got, test.want)
		}
	}
}

func TestOneErrorStandsForAll(t *testing.T) {
	other, stale := errors.New("other"), fmt.Errorf("x: %w", ErrStale)
	if got := worst([]error{nil, other, stale, nil}); !errors.Is(got, ErrStale) {
		t.Errorf("got %v, want the stale one", got)
	}
	if got := worst([]error{nil, other, nil}); !errors.Is(got, other) {
		t.Errorf("got %v, want %v", got, other)
	}
	if got := worst([]error{nil, nil}); got != nil {
		t.Errorf("got %v, want none", got)
	}
	for code, want := range map[jetstream.ErrorCode]bool{10071: true, 10164: true, 10176: false, 10077: false} {
		err := staleOr(fmt.Errorf("publish: %w", &jetstream.APIError{ErrorCode: code}))
		if got := errors.Is(err, ErrStale); got != want {
			t.Errorf("code %d is stale: %v, want %v", code, got, want)
		}
	}
}

// openSynced gives a broker on a server that syncs every write.
func openSynced(b *testing.B) *Broker {
	b.Helper()
	e, err := StartEmbedded(EmbeddedConfig{StoreDir: b.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Close)
	c := connect(b, e.ClientURL())
	initVendor(b, c, InitConfig{Vendor: "acme", Partitions: 1})
	return c
}

func BenchmarkLedgerWrite(b *testing.B) {
	const size = 500
	for _, test := range []struct {
		name   string
		atomic bool
		write  func(*Broker) error
	}{
		{"atomic", true, nil},
		{"pipelined", false, nil},
		{"raw atomic publish", true, func(c *Broker) error { return rawBatch(b.Context(), c, size) }},
		{"raw pipelined publish", true, func(c *Broker) error { return rawPipeline(c, size) }},
	} {
		b.Run(test.name, func(b *testing.B) {
			c := openSynced(b)
			if !test.atomic {
				alter(b, c, bucketPrefix+LedgerBucket("acme"), func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false })
			}
			batch, write := entries(size), test.write
			if write == nil {
				write = func(c *Broker) error { return c.Ledger("acme").Write(b.Context(), 0, batch) }
			}
			for b.Loop() {
				if err := write(c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

var rawBody = []byte(strings.Repeat("x", 120)) // as long as a small entry

func rawBatch(ctx context.Context, c *Broker, size int) error {
	messages := make([]*nats.Msg, size)
	for i := range messages {
		messages[i] = message(fmt.Sprintf("$KV.LEDGER_acme.0.o.account.%d", i), rawBody)
	}
	_, err := jetstreamext.PublishMsgBatch(ctx, c.js, messages)
	return err
}

func rawPipeline(c *Broker, size int) error {
	futures := make([]jetstream.PubAckFuture, size)
	for i := range futures {
		f, err := c.js.PublishAsync(fmt.Sprintf("$KV.LEDGER_acme.0.o.account.%d", i), rawBody)
		if err != nil {
			return err
		}
		futures[i] = f
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return err
		}
	}
	return nil
}

func BenchmarkLedgerLoad(b *testing.B) {
	const n = 20_000
	c := open(b, 1)
	if err := c.Ledger("acme").Write(b.Context(), 0, entries(n)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		got := 0
		if err := c.Ledger("acme").Load(b.Context(), 0, func(ledger.Entry) error { got++; return nil }); err != nil || got != n {
			b.Fatalf("loaded %d, %v", got, err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "entries/s")
}
