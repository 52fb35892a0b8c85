package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	about "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Values of USAGEBRIDGE_TRACING.
const (
	tracingNone = "none"
	tracingOTLP = "otlp"
)

// tracerName says in spans by which code they were made.
const tracerName = "github.com/usagebridge/usagebridge"

// flushTime is how long the last spans may take to leave when a worker stops.
// They are not worth more of the time in which it has to be gone.
const flushTime = 2 * time.Second

// startTracing gives the app its tracer, where the configuration asks for it.
// stop, which is never nil, sends what spans are left.
func (a *app) startTracing(ctx context.Context) (stop func(), err error) {
	disabled, _ := strconv.ParseBool(os.Getenv("OTEL_SDK_DISABLED"))
	if a.config.Tracing != tracingOTLP || disabled {
		return func() {}, nil
	}
	root, err := samplerOf(os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG"))
	if err != nil {
		return nil, usageError{err}
	}
	// What the library has to say would go to stderr in a form of its own, with
	// whatever text it could not read.
	otel.SetLogger(logr.New(libraryLog{a.log}))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("start tracing: %w", err)
	}
	process, err := a.resource(ctx)
	if err != nil {
		return nil, err
	}
	provider := newTracerProvider(root, sdktrace.WithResource(process), sdktrace.WithBatcher(loggedExporter{exporter, a.log}))
	a.tracer = provider.Tracer(tracerName, trace.WithInstrumentationVersion(version()))
	a.log.Info("tracing is on", "sampler", root.Description())
	return func() { flushSpans(provider, a.log) }, nil
}

// flushSpans sends what is left, and makes no more of it.
func flushSpans(provider *sdktrace.TracerProvider, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if err := provider.Shutdown(ctx); err != nil {
		log.Warn("spans not sent before the stop", "err", plainly(err))
	}
}

func newTracerProvider(root sdktrace.Sampler, options ...sdktrace.TracerProviderOption) *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(append(options, sdktrace.WithSampler(linkSampler{root}))...)
}

// resource says which process spans are of. The standard variables
// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
func (a *app) resource(ctx context.Context) (*resource.Resource, error) {
	r, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		about.String("service.name", "usagebridge"),
		about.String("service.version", version()),
		about.String("service.instance.id", a.config.WorkerID),
	), resource.WithFromEnv())
	if err != nil {
		return nil, usagef("OTEL_RESOURCE_ATTRIBUTES: want name=value pairs separated by commas, percent-encoded")
	}
	return r, nil
}

// checkTracing lists what is wrong with the switch and, if it is on, with those
// variables of OpenTelemetry that would otherwise be ignored without a word.
func checkTracing(to string) (errs []error) {
	switch to {
	case tracingNone:
		return nil
	case tracingOTLP:
	default:
		return []error{fmt.Errorf("%s_TRACING: %q: want none or otlp", envPrefix, to)}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		u, err := url.Parse(os.Getenv(name))
		if os.Getenv(name) != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			errs = append(errs, fmt.Errorf("%s: want an address such as http://collector.example:4318", name))
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if p := os.Getenv(name); p != "" && p != "http/protobuf" && p != "http/json" {
			errs = append(errs, fmt.Errorf("%s: %.40q: want http/protobuf or http/json: gRPC is not built in", name, p))
		}
	}
	if _, err := samplerOf(os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG")); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// samplerOf is the sampler that OTEL_TRACES_SAMPLER and its argument name, for
// traces that begin here.
func samplerOf(name, argument string) (sdktrace.Sampler, error) {
	share := 1.0
	if strings.HasSuffix(name, "traceidratio") && argument != "" {
		var err error
		if share, err = strconv.ParseFloat(argument, 64); err != nil || !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG: %.40q: want a share from 0 to 1", argument)
		}
	}
	switch name {
	case "", "parentbased_always_on":
		return sdktrace.ParentBased(sdktrace.AlwaysSample()), nil
	case "parentbased_always_off":
		return sdktrace.ParentBased(sdktrace.NeverSample()), nil
	case "parentbased_traceidratio":
		return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share)), nil
	case "always_on":
		return sdktrace.AlwaysSample(), nil
	case "always_off":
		return sdktrace.NeverSample(), nil
	case "traceidratio":
		return sdktrace.TraceIDRatioBased(share), nil
	}
	return nil, fmt.Errorf("OTEL_TRACES_SAMPLER: %.40q: want always_on, always_off, traceidratio, or one of them behind parentbased_", name)
}

// linkSampler decides on a span that begins a trace and has links as if it were
// a child of what it is linked to: the call that delivers the figure of a
// sampled event is sampled, too, however small the share of other calls is.
type linkSampler struct{ sdktrace.Sampler }

// ShouldSample decides whether a span is recorded (sdktrace.Sampler).
func (s linkSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if len(p.Links) == 0 || trace.SpanContextFromContext(p.ParentContext).IsValid() {
		return s.Sampler.ShouldSample(p)
	}
	for _, link := range p.Links {
		child := p
		child.ParentContext = trace.ContextWithRemoteSpanContext(p.ParentContext, link.SpanContext)
		child.TraceID = link.SpanContext.TraceID()
		if r := s.Sampler.ShouldSample(child); r.Decision == sdktrace.RecordAndSample {
			r.Tracestate = trace.TraceState{} // that of another trace
			return r
		}
	}
	return sdktrace.SamplingResult{Decision: sdktrace.Drop}
}

// tracedTransport tells the partner which trace a call is part of, if it is
// recorded.
type tracedTransport struct{ http.RoundTripper }

// RoundTrip makes the call.
func (t tracedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !trace.SpanContextFromContext(r.Context()).IsSampled() {
		return t.RoundTripper.RoundTrip(r)
	}
	told := r.Clone(r.Context()) // a transport must not change what it is given
	propagation.TraceContext{}.Inject(r.Context(), propagation.HeaderCarrier(told.Header))
	return t.RoundTripper.RoundTrip(told)
}

// CloseIdleConnections closes the connections that wait for a next call.
func (t tracedTransport) CloseIdleConnections() {
	(&http.Client{Transport: t.RoundTripper}).CloseIdleConnections()
}

// loggedExporter says in the log of the program what could not be sent. Spans
// are lost then: nothing waits for them.
type loggedExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

// ExportSpans sends spans (sdktrace.SpanExporter).
func (e loggedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("spans lost", "spans", len(spans), "err", plainly(err))
	}
	return nil // or the library would log it once more
}

// maxAnswer is how much is logged of what a collector answers, in bytes.
const maxAnswer = 512

// plainly is an error of the exporter without the address, which may hold a
// secret, and cut: it may have the whole answer in it.
func plainly(err error) string {
	if request, ok := errors.AsType[*url.Error](err); ok {
		err = request.Err
	}
	return cut(err.Error(), maxAnswer)
}

// libraryLog takes what OpenTelemetry has to say of its own settings, and leaves
// out what it quotes: headers of an exporter are secrets (logr.LogSink).
type libraryLog struct{ log *slog.Logger }

// Init does nothing.
func (libraryLog) Init(logr.RuntimeInfo) {}

// Enabled is true for warnings alone (level 1 of that library).
func (libraryLog) Enabled(level int) bool { return level <= 1 }

// Info logs a warning.
func (l libraryLog) Info(_ int, message string, _ ...any) {
	l.log.Warn("opentelemetry", "problem", message)
}

// Error logs an error.
func (l libraryLog) Error(_ error, message string, _ ...any) {
	l.log.Warn("opentelemetry", "problem", message)
}

// WithValues changes nothing.
func (l libraryLog) WithValues(...any) logr.LogSink { return l }

// WithName changes nothing.
func (l libraryLog) WithName(string) logr.LogSink { return l }
