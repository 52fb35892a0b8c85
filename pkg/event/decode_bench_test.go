package event_test

import (
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// BenchmarkDecode is the hot path of a worker: what one core can decode.
func BenchmarkDecode(b *testing.B) {
	stored := time.Date(2026, 11, 20, 12, 0, 1, 0, time.UTC)
	count := &event.Event{
		ID: "01J9Z3K8", Source: "//billing.acme.example", Type: event.TypeCount, Time: stored.Add(-time.Second),
		Vendor: "acme", Organization: "msp-0042",
		Data: event.Count{AccountID: "a-17", ServiceID: "backup", UnitCount: 42 * event.UnitsScale},
	}
	events := make([]*event.Event, 100)
	for i := range events {
		events[i] = count
	}
	batch, err := event.EncodeBatch(events)
	if err != nil {
		b.Fatal(err)
	}
	subject := count.Subject().String()
	for _, bench := range []struct {
		name    string
		events  int
		message event.Message
	}{
		{"structured count", 1, event.Message{Subject: subject, Data: count.Structured()}},
		{"binary count", 1, event.Message{Subject: subject, Header: count.BinaryHeaders(), Data: count.AppendData(nil)}},
		{"batch of 100", 100, event.Message{Subject: "usage.v1.acme.msp-0042.batch", Data: batch}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			bench.message.Stored, bench.message.Sequence = stored, 4711
			b.SetBytes(int64(len(bench.message.Data)))
			b.ReportAllocs()
			for b.Loop() {
				for _, r := range event.Decode(bench.message, event.DefaultLimits()) {
					if r.Fault != nil {
						b.Fatal(r.Fault)
					}
				}
			}
			b.ReportMetric(float64(b.N*bench.events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
