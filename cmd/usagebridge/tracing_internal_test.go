package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
)

// headersOf is a transport that keeps the headers of what passes it.
type headersOf struct {
	http.RoundTripper
	mu   sync.Mutex
	seen []http.Header
}

func (h *headersOf) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	h.seen = append(h.seen, r.Header.Clone())
	h.mu.Unlock()
	return h.RoundTripper.RoundTrip(r)
}

// post sends a body to the ingest endpoint, with a trace.
func (s *crashSite) post(address, body string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+address+"/ingest/v1/events", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", event.ContentTypeBatch)
	request.Header.Set("traceparent", "00-"+clientTrace+"-"+clientSpan+"-01")
	client := &http.Client{}
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	text, _ := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		s.t.Fatalf("ingest answered %d: %s", answer.StatusCode, text)
	}
}

// dayOf is a catalog and a count, as a client posts them.
func dayOf(t *testing.T) string {
	t.Helper()
	var events []*event.Event
	for typ, data := range map[string]event.Data{
		event.TypeAccount: event.Account{AccountID: "hush-account", Name: "hush"},
		event.TypeService: event.Service{ServiceID: "hush-service", Name: "hush"},
		event.TypeCount:   event.Count{AccountID: "hush-account", ServiceID: "hush-service", UnitCount: 4711 * event.UnitsScale},
	} {
		events = append(events, &event.Event{
			ID: "hush " + typ, Source: "//hush", Type: typ, Time: time.Now(), Vendor: "acme", Organization: "m", Data: data,
		})
	}
	body, err := event.EncodeBatch(events)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// tracedSite is a site whose worker makes spans, with the calls that it makes.
func tracedSite(t *testing.T, root sdktrace.Sampler) (*crashSite, *tracetest.InMemoryExporter) {
	t.Helper()
	s := newCrashSite(t, sandbox.Plan{})
	s.app.config.ProbeMin = 100 * time.Millisecond
	spans := tracetest.NewInMemoryExporter()
	if root != nil {
		s.app.tracer = newTracerProvider(root, sdktrace.WithSyncer(spans)).Tracer("test")
	}
	return s, spans
}

func (s *crashSite) untilDelivered() {
	s.t.Helper()
	eventuallyTrue(s.t, time.Minute, "the count is at the partner", func() bool {
		_, ok := s.partner.Value("acme/m", "hush-account", "hush-service")
		return ok
	})
}

func TestATraceGoesFromARequestThroughTheLogToACallThatIsLinkedToIt(t *testing.T) {
	t.Parallel()
	// No trace begins here: what is recorded, is so because the client wants it.
	s, spans := tracedSite(t, sdktrace.ParentBased(sdktrace.NeverSample()))
	if _, ok := s.app.transport().(punctual).RoundTripper.(tracedTransport); !ok {
		t.Error("the transport does not tell the partner of traces, want one that does")
	}
	s.post(s.serve(), dayOf(t))
	s.untilDelivered()
	named := func(name string) (found tracetest.SpanStubs) {
		for _, span := range spans.GetSpans() {
			if span.Name == name {
				found = append(found, span)
			}
		}
		return found
	}
	eventuallyTrue(t, time.Minute, "the call's span has ended", func() bool {
		calls := named("deliver count")
		return len(calls) > 0 && calls[len(calls)-1].Status.Description == ""
	})
	ingest := named("ingest")
	if len(ingest) != 1 || ingest[0].SpanContext.TraceID().String() != clientTrace || ingest[0].Parent.SpanID().String() != clientSpan {
		t.Fatalf("spans of the request: got %+v, want one in the client's trace", ingest)
	}
	folds := named("fold")
	if len(folds) != 3 {
		t.Errorf("spans of messages: got %d, want 3", len(folds))
	}
	for i := range folds {
		if folds[i].Parent.SpanID() != ingest[0].SpanContext.SpanID() {
			t.Errorf("a message's span has parent %v, want that of the request, %v", folds[i].Parent, ingest[0].SpanContext)
		}
	}
	for _, name := range []string{"deliver account", "deliver service", "deliver count"} {
		for _, call := range named(name) {
			if len(call.Links) != 1 || call.Links[0].SpanContext.SpanID() != ingest[0].SpanContext.SpanID() || call.Parent.IsValid() {
				t.Errorf("%s: got links %v and parent %v, want one link, to %v, and no parent", name, call.Links, call.Parent, ingest[0].SpanContext)
			}
		}
	}
	for _, span := range spans.GetSpans() {
		if told := fmt.Sprint(span.Name, span.Attributes, span.Status, span.Events); strings.Contains(told, "hush") || strings.Contains(told, "4711") {
			t.Errorf("a span tells %s", told)
		}
		if got := span.SpanContext.TraceID().String(); got != clientTrace && len(span.Links) == 0 {
			t.Errorf("%s: got a trace of its own, %s, want none that nobody asked for", span.Name, got)
		}
	}
}

func TestWithTracingOffNoHeaderIsSentOn(t *testing.T) {
	t.Parallel()
	s, _ := tracedSite(t, nil)
	if _, ok := s.app.transport().(punctual).RoundTripper.(tracedTransport); ok {
		t.Error("the transport tells the partner of traces, want one that does not")
	}
	s.post(s.serve(), dayOf(t))
	s.untilDelivered()
	for sequence := range uint64(3) {
		m, err := s.app.broker.Message(t.Context(), "acme", sequence+1)
		if err != nil {
			t.Fatal(err)
		}
		if _, told := m.Header["traceparent"]; told {
			t.Errorf("message %d: got headers %v, want no trace", sequence+1, m.Header)
		}
	}
}

func TestThePartnerIsToldOfTheTraceOfACallThatIsRecorded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	passed := &headersOf{RoundTripper: http.DefaultTransport}
	for _, c := range []struct {
		root sdktrace.Sampler
		want bool
	}{{sdktrace.AlwaysSample(), true}, {sdktrace.NeverSample(), false}} {
		ctx, span := newTracerProvider(c.root).Tracer("test").Start(t.Context(), "call")
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := tracedTransport{passed}.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		want := ""
		if c.want {
			want = fmt.Sprintf("00-%s-%s-01", span.SpanContext().TraceID(), span.SpanContext().SpanID())
		}
		if got := passed.seen[len(passed.seen)-1].Get("traceparent"); got != want {
			t.Errorf("%s: traceparent is %q, want %q", c.root.Description(), got, want)
		}
		if len(request.Header) != 0 {
			t.Errorf("%s: the request itself was given %v, want it left alone", c.root.Description(), request.Header)
		}
	}
}

func TestTheSamplerIsTheOneThatTheEnvironmentNames(t *testing.T) {
	for _, c := range []struct{ name, argument, want, wrong string }{
		{"", "", "ParentBased{root:AlwaysOnSampler", ""},
		{"parentbased_always_on", "x", "ParentBased{root:AlwaysOnSampler", ""},
		{"parentbased_always_off", "", "ParentBased{root:AlwaysOffSampler", ""},
		{"parentbased_traceidratio", "0.01", "ParentBased{root:TraceIDRatioBased{0.01}", ""},
		{"traceidratio", "", "TraceIDRatioBased{1}", ""},
		{"always_on", "", "AlwaysOnSampler", ""},
		{"always_off", "", "AlwaysOffSampler", ""},
		{"jaeger_remote", "", "", "OTEL_TRACES_SAMPLER: \"jaeger_remote\": want always_on"},
		{"traceidratio", "2", "", "OTEL_TRACES_SAMPLER_ARG: \"2\": want a share from 0 to 1"},
		{"parentbased_traceidratio", "NaN", "", "OTEL_TRACES_SAMPLER_ARG: \"NaN\": want a share"},
	} {
		s, err := samplerOf(c.name, c.argument)
		if c.wrong != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.wrong) {
				t.Errorf("%q %q: got %v, want an error that begins %s", c.name, c.argument, err, c.wrong)
			}
			continue
		}
		if err != nil || !strings.HasPrefix(s.Description(), c.want) {
			t.Errorf("%q %q: got %v and %v, want %s", c.name, c.argument, s, err, c.want)
		}
	}
}

func TestASpanWithLinksIsSampledAsWhatItIsLinkedTo(t *testing.T) {
	linked := func(flags trace.TraceFlags, id byte) trace.Link {
		return trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{8: id, 15: 1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true,
		})}
	}
	for name, c := range map[string]struct {
		root  sdktrace.Sampler
		links []trace.Link
		want  bool
	}{
		"no link, none of its own":       {sdktrace.ParentBased(sdktrace.NeverSample()), nil, false},
		"no link, all of its own":        {sdktrace.ParentBased(sdktrace.AlwaysSample()), nil, true},
		"linked to what is sampled":      {sdktrace.ParentBased(sdktrace.NeverSample()), []trace.Link{linked(trace.FlagsSampled, 0)}, true},
		"linked to what is not":          {sdktrace.ParentBased(sdktrace.AlwaysSample()), []trace.Link{linked(0, 0)}, false},
		"one of two is sampled":          {sdktrace.ParentBased(sdktrace.NeverSample()), []trace.Link{linked(0, 0), linked(trace.FlagsSampled, 0)}, true},
		"off is off":                     {sdktrace.NeverSample(), []trace.Link{linked(trace.FlagsSampled, 0)}, false},
		"a share that has the link":      {sdktrace.TraceIDRatioBased(0.5), []trace.Link{linked(trace.FlagsSampled, 0)}, true},
		"a share that has it not":        {sdktrace.TraceIDRatioBased(0.5), []trace.Link{linked(trace.FlagsSampled, 0xff)}, false},
		"a share, and one of two has it": {sdktrace.TraceIDRatioBased(0.5), []trace.Link{linked(trace.FlagsSampled, 0xff), linked(trace.FlagsSampled, 0)}, true},
	} {
		_, span := newTracerProvider(c.root).Tracer("test").Start(t.Context(), "call", trace.WithLinks(c.links...))
		if got := span.SpanContext().IsSampled(); got != c.want {
			t.Errorf("%s: sampled %t, want %t", name, got, c.want)
		}
	}
}

func TestTracingRefusesWhatItWouldOtherwiseIgnore(t *testing.T) {
	t.Setenv("USAGEBRIDGE_TRACING", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
	t.Setenv("OTEL_TRACES_SAMPLER", "some")
	_, err := loadConfig()
	for _, want := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_TRACES_SAMPLER"} {
		if err == nil || !strings.Contains(err.Error(), want+": ") {
			t.Errorf("error: got %v, want it to name %s", err, want)
		}
	}
	t.Setenv("USAGEBRIDGE_TRACING", "none")
	if _, err := loadConfig(); err != nil {
		t.Errorf("tracing is off: got %v, want no error", err)
	}
	t.Setenv("USAGEBRIDGE_TRACING", "jaeger")
	if _, err := loadConfig(); err == nil || !strings.Contains(err.Error(), "USAGEBRIDGE_TRACING: \"jaeger\": want none or otlp") {
		t.Errorf("error: got %v, want it to say none or otlp", err)
	}
}

// collected is a collector that keeps what it is sent.
type collected struct {
	mu       sync.Mutex
	requests []*collector.ExportTraceServiceRequest
	keys     []string
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	request := &collector.ExportTraceServiceRequest{}
	if err := proto.Unmarshal(body, request); err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, "no traces", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, request)
	c.keys = append(c.keys, r.Header.Get("Api-Key"))
}

func TestSpansReachACollectorBeforeTheWorkerHasStopped(t *testing.T) {
	received := &collected{}
	server := httptest.NewServer(received)
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hush,no equals sign")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	t.Setenv("OTEL_SERVICE_NAME", "bridge")
	var logged bytes.Buffer
	a := &app{config: Config{Tracing: tracingOTLP, WorkerID: "w1"}, log: slog.New(slog.NewJSONHandler(&logged, nil))}
	stop, err := a.startTracing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, span := a.tracer.Start(t.Context(), "deliver count")
	span.End()
	stop()
	if len(received.requests) != 1 || !slices.Equal(received.keys, []string{"hush"}) {
		t.Fatalf("requests: got %d with keys %q, want 1 with the key of the environment\n%s", len(received.requests), received.keys, logged.String())
	}
	spans := received.requests[0].GetResourceSpans()[0]
	said := map[string]string{}
	for _, attribute := range spans.GetResource().GetAttributes() {
		said[attribute.GetKey()] = attribute.GetValue().GetStringValue()
	}
	for key, want := range map[string]string{"service.name": "bridge", "service.instance.id": "w1", "deployment.environment": "test"} {
		if said[key] != want {
			t.Errorf("resource: got %v, want %s to be %s", said, key, want)
		}
	}
	if got := spans.GetScopeSpans()[0].GetSpans()[0].GetName(); got != "deliver count" {
		t.Errorf("span: got %q, want deliver count", got)
	}
	if text := logged.String(); strings.Contains(text, "hush") || !strings.Contains(text, "parse headers") {
		t.Errorf("the log: got %s, want it to name the header that cannot be read, and no secret", text)
	}
}

func TestAProcessIsNamedUsagebridgeUnlessTheEnvironmentSaysOtherwise(t *testing.T) {
	a := &app{config: Config{WorkerID: "w1"}}
	r, err := a.resource(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := r.Set().Value("service.name"); got.AsString() != "usagebridge" {
		t.Errorf("service.name: got %q, want usagebridge", got.AsString())
	}
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "hush")
	if _, err := a.resource(t.Context()); err == nil || !strings.Contains(err.Error(), "OTEL_RESOURCE_ATTRIBUTES") || strings.Contains(err.Error(), "hush") {
		t.Errorf("attributes that cannot be read: got %v, want an error that names the variable and does not quote it", err)
	}
}

func TestTracingIsOffUnlessItIsAskedFor(t *testing.T) {
	for _, c := range []struct{ tracing, disabled string }{{tracingNone, ""}, {"", ""}, {tracingOTLP, "true"}} {
		t.Setenv("OTEL_SDK_DISABLED", c.disabled)
		a := &app{config: Config{Tracing: c.tracing}, log: slog.New(slog.DiscardHandler)}
		stop, err := a.startTracing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stop()
		if a.tracer != nil {
			t.Errorf("tracing %q, disabled %q: there is a tracer, want none", c.tracing, c.disabled)
		}
	}
}

// deaf is an exporter whose collector does not answer before the channel is closed.
type deaf chan struct{}

func (d deaf) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	<-d
	return nil
}
func (deaf) Shutdown(context.Context) error { return nil }

func TestACollectorThatDoesNotAnswerKeepsNobodyFromStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		log := slog.New(slog.NewTextHandler(&logged, nil))
		exporter := make(deaf)
		provider := newTracerProvider(sdktrace.AlwaysSample(), sdktrace.WithBatcher(loggedExporter{exporter, log}))
		_, span := provider.Tracer("test").Start(t.Context(), "call")
		span.End()
		began := time.Now()
		flushSpans(provider, log)
		took := time.Since(began)
		close(exporter)
		synctest.Wait()
		if took != flushTime {
			t.Errorf("it took %v to stop, want %v", took, flushTime)
		}
		if !strings.Contains(logged.String(), "spans not sent before the stop") {
			t.Errorf("the log: got %q, want it to say that spans are lost", logged.String())
		}
	})
}

func TestWhatACollectorSaysIsLoggedWithoutSecrets(t *testing.T) {
	long := strings.Repeat("x", 2*maxAnswer)
	failing := &failure{&url.Error{Op: "Post", URL: "https://user:hush@collector.example/", Err: errors.New("refused " + long)}}
	var logged bytes.Buffer
	e := loggedExporter{failing, slog.New(slog.NewTextHandler(&logged, nil))}
	if err := e.ExportSpans(t.Context(), make([]sdktrace.ReadOnlySpan, 3)); err != nil {
		t.Errorf("got %v, want nothing: it is logged here", err)
	}
	text := logged.String()
	if strings.Contains(text, "hush") || !strings.Contains(text, "refused") || !strings.Contains(text, "spans=3") || len(text) > maxAnswer+200 {
		t.Errorf("the log: got %d bytes, %s", len(text), text)
	}
}

// failure is an exporter that fails.
type failure struct{ err error }

func (f *failure) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	return fmt.Errorf("traces export: %w", f.err)
}
func (f *failure) Shutdown(context.Context) error { return nil }
