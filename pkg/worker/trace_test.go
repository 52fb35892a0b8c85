package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// witness collects the spans of a worker.
type witness struct{ *tracetest.InMemoryExporter }

// tracing switches tracing on.
func (s witness) tracing(c *worker.Config) {
	c.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.InMemoryExporter)).Tracer("test")
}

func newWitness() witness { return witness{tracetest.NewInMemoryExporter()} }

// named are the spans of a name, in the order of their end.
func (s witness) named(name string) tracetest.SpanStubs {
	return slices.DeleteFunc(s.GetSpans(), func(span tracetest.SpanStub) bool { return span.Name != name })
}

// attribute is what the span says under the key, as text.
func attribute(span *tracetest.SpanStub, key string) string {
	for _, a := range span.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// parent is a header that names span n of trace n.
func parent(n int, flags string) map[string][]string {
	return map[string][]string{"traceparent": {fmt.Sprintf("00-%032x-%016x-%s", n, n, flags)}}
}

func linkedTo(span *tracetest.SpanStub) (traces []string) {
	for _, l := range span.Links {
		traces = append(traces, l.SpanContext.TraceID().String())
	}
	return traces
}

// withHeader gives a message of the log headers, before a worker has it.
func (w *world) withHeader(sequence uint64, header map[string][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log[sequence-1].Header = header
}

func traceID(n int) string { return fmt.Sprintf("%032x", n) }

func TestACallIsLinkedToTheTraceOfTheEventThatSetItsFigure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		seen := newWitness()
		w.catalog("a", "s")
		now := time.Now()
		w.withHeader(w.count("c1", now, "a", "s", 5), parent(1, "01"))
		w.withHeader(w.count("c2", now.Add(time.Second), "a", "s", 7), parent(2, "01"))
		w.withHeader(w.count("c3", now.Add(-time.Second), "a", "s", 9), parent(3, "01"))
		w.withHeader(w.count("c4", now, "a", "t", 1), parent(4, "00"))
		defer w.start(seen.tracing)()
		settle(5 * time.Second)

		folds := seen.named("fold")
		var got []string
		for _, span := range folds {
			got = append(got, fmt.Sprint(span.SpanContext.TraceID(), " ", span.Parent.SpanID(), " ", attribute(&span, "usagebridge.disposition")))
		}
		slices.Sort(got)
		want := []string{traceID(1) + " 0000000000000001 applied", traceID(2) + " 0000000000000002 applied", traceID(3) + " 0000000000000003 superseded"}
		if !slices.Equal(got, want) {
			t.Fatalf("spans of messages: got %q, want one for each that is sampled, in its publisher's trace: %q", got, want)
		}
		batches := seen.named("fold batch")
		if len(batches) != 1 || !slices.Equal(linkedTo(&batches[0]), []string{traceID(1), traceID(2), traceID(3)}) {
			t.Errorf("spans of batches: got %+v, want one, linked to the three traces", batches)
		} else if own := batches[0].SpanContext.TraceID(); folds[0].Links[0].SpanContext.TraceID() != own {
			t.Errorf("a message's span is linked to %v, want to that of its batch, of trace %s", folds[0].Links, own)
		}
		calls := seen.named("deliver count")
		if len(calls) != 1 || !slices.Equal(linkedTo(&calls[0]), []string{traceID(2)}) || calls[0].Parent.IsValid() {
			t.Fatalf("spans of counts: got %+v, want one, without a parent, linked to the trace of the newest event alone", calls)
		}
		for key, value := range map[string]string{
			"usagebridge.vendor": vendor, "usagebridge.organization": organization, "usagebridge.operation": "count",
			"usagebridge.attempt": "1", "usagebridge.verdict": "delivered", "http.response.status_code": "201",
		} {
			if got := attribute(&calls[0], key); got != value {
				t.Errorf("%s of the call: got %q, want %q", key, got, value)
			}
		}
		if got := seen.named("deliver account"); len(got) != 1 || len(got[0].Links) != 0 {
			t.Errorf("span of the account, whose event has no trace: got %+v, want one without links", got)
		}
	})
}

func TestACallIsNotLinkedToATraceWhoseFigureWasReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		seen := newWitness()
		now := time.Now()
		w.withHeader(w.count("c1", now, "a", "s", 5), parent(1, "01"))
		defer w.start(seen.tracing)()
		settle(time.Second)
		w.count("c2", now.Add(time.Second), "a", "s", 7)
		settle(time.Second)
		w.catalog("a", "s")
		settle(5 * time.Second)
		calls := seen.named("deliver count")
		if len(calls) != 1 || len(calls[0].Links) != 0 {
			t.Errorf("spans of counts: got %+v, want one without links: nobody traced the event that set the figure", calls)
		}
	})
}

func TestEveryAttemptIsLinkedAndSaysByClassWhatWentWrong(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		seen, registry := newWitness(), prometheus.NewRegistry()
		w.catalog("a", "s")
		w.withHeader(w.count("c1", time.Now(), "a", "s", 5), parent(1, "01"))
		failures := 1
		w.partner.answers = func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count && failures > 0 {
				failures--
				return delivery.Answer{Class: delivery.Unavailable, Status: 503}
			}
			return delivery.Answer{Class: delivery.Accepted, Status: 201}
		}
		defer w.start(seen.tracing, func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })()
		settle(time.Minute)
		calls := seen.named("deliver count")
		if len(calls) != 2 {
			t.Fatalf("spans of counts: got %d, want 2: one failed, one did not", len(calls))
		}
		if got := fmt.Sprint(calls[0].Status.Code, calls[0].Status.Description, " ", attribute(&calls[0], "error.type")); got != "Errorunavailable unavailable" {
			t.Errorf("the first attempt: got %s, want an error of class unavailable", got)
		}
		for i := range calls {
			if got := linkedTo(&calls[i]); !slices.Equal(got, []string{traceID(1)}) {
				t.Errorf("attempt %d is linked to %q, want to the event's trace", i+1, got)
			}
		}
		for _, name := range []string{"delivery_lag_seconds", "ready_delivery_lag_seconds", "partner_request_duration_seconds"} {
			want := calls[1].SpanContext.TraceID().String()
			if got := exemplars(t, registry, "usagebridge_"+name); !slices.Contains(got, want) {
				t.Errorf("exemplars of %s: got %q, want the trace %s of the call among them", name, got, want)
			}
		}
	})
}

// exemplars are the traces that a histogram names.
func exemplars(t *testing.T, registry *prometheus.Registry, name string) (traces []string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name })
	if at < 0 {
		t.Fatalf("there is no metric %s", name)
	}
	for _, m := range families[at].GetMetric() {
		for _, bucket := range m.GetHistogram().GetBucket() {
			for _, label := range bucket.GetExemplar().GetLabel() {
				traces = append(traces, label.GetValue())
			}
		}
	}
	return traces
}

func TestATracedEventThatIsDeadSaysWhyByItsReason(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		seen := newWitness()
		w.withHeader(w.publish("usage.v1.acme.msp-1.count.a.s", []byte(`{`)), parent(1, "01"))
		defer w.start(seen.tracing)()
		settle(time.Second)
		folds := seen.named("fold")
		if len(folds) != 1 {
			t.Fatalf("spans of messages: got %d, want 1", len(folds))
		}
		got := fmt.Sprint(attribute(&folds[0], "usagebridge.disposition"), " ", folds[0].Status.Code, " ", folds[0].Status.Description)
		if want := "dead Error " + string(event.ReasonMalformed); got != want {
			t.Errorf("the span: got %q, want %q", got, want)
		}
	})
}

func TestSpansTellNothingThatIsTheVendorsOrThePartners(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		seen := newWitness()
		w.send("hush-event", time.Now(), event.Account{AccountID: "hush-account", Name: "hush name"})
		w.send("hush-service", time.Now(), event.Service{ServiceID: "hush-service", Name: "hush"})
		last := w.count("hush-count", time.Now(), "hush-account", "hush-service", 4711)
		w.publish("usage.v1.acme.msp-1.count.hush-account.hush-service", []byte(`{"hush":`))
		for sequence := range last + 1 {
			w.withHeader(sequence+1, map[string][]string{
				"traceparent": parent(int(sequence)+1, "01")["traceparent"], "tracestate": {"hush=1"}, "Nats-Msg-Id": {"hush"},
			})
		}
		w.partner.answers = func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.Rejected, Status: 422, Message: "hush: the bearer token hush", RequestID: "hush"}
			}
			return delivery.Answer{Class: delivery.Accepted, Status: 201, Message: "hush"}
		}
		defer w.start(seen.tracing)()
		settle(time.Minute)
		spans := seen.GetSpans()
		if len(spans) < 8 {
			t.Fatalf("spans: got %d, want at least 4 of messages, 1 of a batch and 3 of calls", len(spans))
		}
		for _, span := range spans {
			told := fmt.Sprint(span.Name, span.Attributes, span.Status, span.Events)
			for _, l := range span.Links {
				told += fmt.Sprint(l.Attributes, l.SpanContext.TraceState())
			}
			if span.Name != "fold" { // which goes on with the publisher's trace
				told += span.SpanContext.TraceState().String()
			}
			if strings.Contains(told, "hush") || strings.Contains(told, "4711") {
				t.Errorf("span tells %s", told)
			}
		}
	})
}

func TestWithTracingOffThereAreNoExemplars(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		registry := prometheus.NewRegistry()
		w.catalog("a", "s")
		w.withHeader(w.count("c1", time.Now(), "a", "s", 5), parent(1, "01"))
		defer w.start(func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })()
		settle(time.Minute)
		if got := exemplars(t, registry, "usagebridge_delivery_lag_seconds"); len(got) != 0 {
			t.Errorf("exemplars: got %q, want none", got)
		}
		if got := w.partner.units("a", "s"); got != 5 {
			t.Errorf("units at the partner: got %d, want 5", got)
		}
	})
}
