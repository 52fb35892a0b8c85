package worker

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// BenchmarkFoldBatch folds a batch of 500 counts with the headers that
// publishers set, into keys that the table has.
func BenchmarkFoldBatch(b *testing.B) {
	b.Run("tracing off", func(b *testing.B) { benchmarkFold(b, foldingPartition(), foldableBatch()) })
	on := func(c *Config) { c.Tracer = sdktrace.NewTracerProvider().Tracer("test") }
	b.Run("tracing on, no trace", func(b *testing.B) { benchmarkFold(b, foldingPartition(on), foldableBatch()) })
	b.Run("tracing on, all sampled", func(b *testing.B) {
		batch := foldableBatch()
		for i := range batch {
			batch[i].Header["traceparent"] = []string{fmt.Sprintf("00-%032x-%016x-01", i+1, i+1)}
		}
		benchmarkFold(b, foldingPartition(on), batch)
	})
}

func benchmarkFold(b *testing.B, p *partition, batch []event.Message) {
	b.Helper()
	now := batch[0].Stored
	b.ReportAllocs()
	for b.Loop() {
		w := p.fold(batch, now)
		if w.messages != len(batch) || len(w.letters) != 0 {
			b.Fatalf("folded %d messages, %d of them dead: want %d and none", w.messages, len(w.letters), len(batch))
		}
		p.recordSpans(w, w.messages, now)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/event")
}

// foldingPartition is a partition that knows counts, and neither a store nor a partner.
func foldingPartition(change ...func(*Config)) *partition {
	c := Config{
		ID: "w1", Limits: event.DefaultLimits(), Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
		Backend: Backend{Store: func(string) Store { return nil }},
		Meanings: map[string]Meaning{event.TypeCount: func(e *event.Event) ([]ledger.Operation, error) {
			data := e.Data.(event.Count)
			return []ledger.Operation{{
				Key:     ledger.CountKey(e.Organization, data.AccountID, data.ServiceID),
				Version: ledger.Version{Time: e.Time.UnixNano(), Arrival: uint64(e.Arrival)},
				Value:   ledger.Value{Units: int64(data.UnitCount)}, Event: e.Digest(),
			}}, nil
		}},
	}
	for _, f := range change {
		f(&c)
	}
	return newPartition(c, newVendorState("acme", 0, nil), 0, nil, c.Logger)
}

// foldableBatch is 500 counts as a publisher sends them.
func foldableBatch() []event.Message {
	at := time.Unix(1_800_000_000, 0).UTC()
	batch := make([]event.Message, 500)
	for i := range batch {
		e := event.Event{
			ID: fmt.Sprintf("0198a6a0-0000-7000-8000-%012d", i), Source: "//billing.acme.example", Type: event.TypeCount, Time: at,
			Vendor: "acme", Organization: "msp-1",
			Data: event.Count{AccountID: fmt.Sprintf("a-%d", i), ServiceID: "backup", UnitCount: event.Units(i) * event.UnitsScale},
		}
		batch[i] = event.Message{
			Subject: e.Subject().String(), Data: e.Structured(), Stream: event.Stream("acme"), Sequence: uint64(i + 1), Stored: at, Deliveries: 1,
			Header: map[string][]string{"content-type": {event.ContentTypeStructured}, "Nats-Msg-Id": {e.Source + "/" + e.ID}},
		}
	}
	return batch
}
