package console_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/event"
)

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	traceparent = "00-" + clientTrace + "-b7ad6b7169203331-01"
)

// tracedBench is a bench that says in which trace each event was published.
func tracedBench(tracer trace.Tracer) (*bench, *[]trace.SpanContext) {
	var published []trace.SpanContext
	b := newBench(func(b *bench) {
		b.config.Tracer = tracer
		b.config.Publish = func(ctx context.Context, e *event.Event) (console.Receipt, error) {
			published = append(published, trace.SpanContextFromContext(ctx))
			return b.log.publish(ctx, e)
		}
	})
	return b, &published
}

func posted(parent string) http.Header {
	return http.Header{"Content-Type": {event.ContentTypeStructured}, "Traceparent": {parent}, "Authorization": {"Bearer hush"}}
}

func TestEventsArePublishedInTheTraceOfTheirRequest(t *testing.T) {
	for name, c := range map[string]struct {
		parent string
		trace  string // "": one of its own
	}{
		"named in a header":          {traceparent, clientTrace},
		"garbage in the header":      {"garbage", ""},
		"no trace in the header":     {"00-00000000000000000000000000000000-b7ad6b7169203331-01", ""},
		"a header without any value": {"", ""},
	} {
		spans := tracetest.NewInMemoryExporter()
		b, published := tracedBench(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)).Tracer("test"))
		w := b.do(t, http.MethodPost, "/ingest/v1/events", posted(c.parent), count("1", 42))
		if w.Code != http.StatusAccepted || len(*published) != 1 || len(spans.GetSpans()) != 1 {
			t.Fatalf("%s: status %d, %d events and %d spans, want 202, 1 and 1", name, w.Code, len(*published), len(spans.GetSpans()))
		}
		span := spans.GetSpans()[0]
		if got := (*published)[0]; got.TraceID() != span.SpanContext.TraceID() || got.SpanID() != span.SpanContext.SpanID() {
			t.Errorf("%s: published in %v, want in the span of the request, %v", name, got, span.SpanContext)
		}
		if got := span.SpanContext.TraceID().String(); c.trace != "" && got != c.trace || c.trace == "" && (got == clientTrace || span.Parent.IsValid()) {
			t.Errorf("%s: trace %s with parent %v, want trace %q", name, got, span.Parent, c.trace)
		}
		got := fmt.Sprint(span.Name, span.Attributes, span.Status, span.Events)
		want := `ingest[{"usagebridge.vendor":"acme"} {"usagebridge.organization":"msp-0042"} {"usagebridge.events":1} {"http.response.status_code":202}]{Unset }[]`
		if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("%s: the span tells %s, want %s and no more", name, got, want)
		}
	}
}

func TestARequestThatIsRefusedIsNoFaultAndOneThatCannotBeServedIs(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	b, _ := tracedBench(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)).Tracer("test"))
	b.do(t, http.MethodPost, "/ingest/v1/events", posted(traceparent), "hush")
	b.log.fail = func(*event.Event) error { return context.DeadlineExceeded }
	b.do(t, http.MethodPost, "/ingest/v1/events", posted(traceparent), count("1", 42))
	var got []string
	for _, span := range spans.GetSpans() {
		got = append(got, span.Status.Code.String()+" "+span.Status.Description)
		if text := fmt.Sprint(span.Attributes, span.Events); strings.Contains(text, "hush") {
			t.Errorf("a span tells %s", text)
		}
	}
	if want := "[Unset  Error 503]"; fmt.Sprint(got) != want {
		t.Errorf("statuses: got %v, want %s: the first request was the client's mistake", got, want)
	}
}

func TestAPanicLeavesNothingInTheSpan(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	b := newBench(func(b *bench) {
		b.config.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)).Tracer("test")
		b.config.Publish = func(context.Context, *event.Event) (console.Receipt, error) { panic("hush") }
	})
	if w := b.do(t, http.MethodPost, "/ingest/v1/events", posted(traceparent), count("1", 42)); w.Code != http.StatusInternalServerError {
		t.Errorf("status: got %d, want 500", w.Code)
	}
	if got := spans.GetSpans(); len(got) != 1 || len(got[0].Events) != 0 {
		t.Errorf("spans: got %+v, want one without events", got)
	}
}

func TestWithTracingOffNothingIsPublishedInATrace(t *testing.T) {
	b, published := tracedBench(nil)
	w := b.do(t, http.MethodPost, "/ingest/v1/events", posted(traceparent), count("1", 42))
	if w.Code != http.StatusAccepted || len(*published) != 1 || (*published)[0].IsValid() {
		t.Errorf("status %d, published in %v, want 202 and no trace", w.Code, *published)
	}
}

func TestExemplarsAreServedToWhoeverAsksForOpenMetrics(t *testing.T) {
	b := newBench()
	lag := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lag_seconds", Help: "Lag.", Buckets: []float64{1}})
	b.registry.MustRegister(lag)
	lag.(prometheus.ExemplarObserver).ObserveWithExemplar(0.5, prometheus.Labels{"trace_id": clientTrace})
	for accept, want := range map[string]bool{"application/openmetrics-text;version=1.0.0": true, "text/plain": false} {
		w := b.do(t, http.MethodGet, "/metrics", http.Header{"Accept": {accept}}, "")
		if got := strings.Contains(w.Body.String(), `# {trace_id="`+clientTrace+`"}`); got != want {
			t.Errorf("%s has the exemplar: got %t, want %t", accept, got, want)
		}
	}
}
