package publisher

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// The headers of W3C Trace Context.
const (
	headerParent = "traceparent"
	headerState  = "tracestate"
	// maxState is how much of a tracestate must be passed on (3.3.1.5). A longer
	// one is left out: every event would store it.
	maxState = 512
	// maxTraced is the size, with headers, beyond which a message tells of no
	// trace: the streams of usagebridge take 960 KiB.
	maxTraced = 970_000
)

// carryTrace tells in headers which trace ctx is part of, if that is recorded.
// No event is refused because they do not fit any more.
func (p *Publisher) carryTrace(ctx context.Context, m *nats.Msg) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	if p.addHeader(m, headerParent, carrier[headerParent]) && len(carrier[headerState]) <= maxState {
		p.addHeader(m, headerState, carrier[headerState])
	}
}

// addHeader adds a header with a value, unless the message could then be too
// large for its stream or for the server.
func (p *Publisher) addHeader(m *nats.Msg, name, value string) bool {
	if value == "" {
		return false
	}
	m.Header.Set(name, value)
	if size, limit := wireSize(m), p.nc.MaxPayload(); size > maxTraced || limit > 0 && size > limit {
		m.Header.Del(name)
		return false
	}
	return true
}
