package console

import (
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// traced makes a span of every request, in the trace that its headers name (W3C
// Trace Context), else in one of its own. Headers that name none are no reason
// to refuse anything.
func (c *Console) traced(name string, next http.HandlerFunc) http.HandlerFunc {
	if c.config.Tracer == nil {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := c.config.Tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
		// Not End itself: deferred, it would put the text of a panic into the span.
		defer func() { span.End() }()
		answer := &recorder{ResponseWriter: w}
		next(answer, r.WithContext(ctx))
		status := answer.code()
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusBadRequest {
			span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
		}
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, strconv.Itoa(status))
		}
	}
}

// describe tells the span of a request, if it has one that is recorded, of which
// integration the events are, and how many.
func describe(r *http.Request, events []*event.Event) {
	span := trace.SpanFromContext(r.Context())
	if !span.IsRecording() || len(events) == 0 {
		return
	}
	span.SetAttributes(
		attribute.String("usagebridge.vendor", events[0].Vendor),
		attribute.String("usagebridge.organization", events[0].Organization),
		attribute.Int("usagebridge.events", len(events)),
	)
}
