package worker

import (
	"container/list"
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// What spans say. Their backend may be anybody's: no attribute has the name of
// an account, a service or an event, a figure, or words of the partner.
const (
	attrVendor       attribute.Key = "usagebridge.vendor"
	attrOrganization attribute.Key = "usagebridge.organization"
	attrPartition    attribute.Key = "usagebridge.partition"
	attrFamily       attribute.Key = "usagebridge.family"
	attrSequence     attribute.Key = "usagebridge.sequence" // in the vendor's log
	attrMessages     attribute.Key = "usagebridge.messages"
	attrEvents       attribute.Key = "usagebridge.events" // in the message
	attrDisposition  attribute.Key = "usagebridge.disposition"
	attrOperation    attribute.Key = "usagebridge.operation"
	attrKeys         attribute.Key = "usagebridge.keys" // in the call
	attrAttempt      attribute.Key = "usagebridge.attempt"
	attrVerdict      attribute.Key = "usagebridge.verdict"
	attrReason       attribute.Key = "usagebridge.reason" // of a hold or of a dead letter
	attrStatus       attribute.Key = "http.response.status_code"
	attrError        attribute.Key = "error.type"
)

// mixed is the disposition of a message whose events had several.
const mixed = "mixed"

// maxLinks is how many links a span keeps by the default of OpenTelemetry.
const maxLinks = 128

// traced is a message that is part of a trace which is recorded, and what
// became of it. Nil is any other message.
type traced struct {
	parent  trace.SpanContext
	message *event.Message
	events  int
	what    string       // disposition of its events
	reason  event.Reason // of the first one that is dead
}

// follow notes the message that is folded next if its trace is recorded.
func (w *work) follow(m *event.Message) {
	w.traced = nil
	if !w.tracing {
		return
	}
	if parent, ok := parentOf(m.Header); ok {
		w.traced = &traced{parent: parent, message: m}
		w.traces = append(w.traces, w.traced)
	}
}

// became notes the disposition of one event of the message, and why it is dead.
func (t *traced) became(what ledger.Disposition, why event.Reason) {
	if t == nil {
		return
	}
	t.events++
	switch {
	case t.events == 1:
		t.what = string(what)
	case t.what != string(what):
		t.what = mixed
	}
	if t.reason == "" {
		t.reason = why
	}
}

// link is one to the trace, without the state that belongs to those who are part
// of it, and may be long.
func (t *traced) link() trace.Link {
	return trace.Link{SpanContext: t.parent.WithTraceState(trace.TraceState{})}
}

// parentOf is the span that published a message, if it is recorded. Headers
// that are not as W3C Trace Context wants them name none.
func parentOf(header map[string][]string) (parent trace.SpanContext, recorded bool) {
	parents := valuesOf(header, "traceparent")
	if len(parents) != 1 {
		return trace.SpanContext{}, false
	}
	carrier := propagation.MapCarrier{"traceparent": parents[0], "tracestate": strings.Join(valuesOf(header, "tracestate"), ",")}
	parent = trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
	return parent, parent.IsSampled()
}

// valuesOf are those of a header, however its name is spelt: NATS leaves that to
// the publisher, and some write it as HTTP does.
func valuesOf(header map[string][]string, name string) []string {
	if values, ok := header[name]; ok {
		return values
	}
	for other, values := range header {
		if len(other) == len(name) && strings.EqualFold(other, name) {
			return values
		}
	}
	return nil
}

// recordSpans makes the spans of a cycle that is over: one for each message
// whose trace is recorded, in that trace, and one for all that was folded
// together, which is part of no trace but linked to all of them.
func (p *partition) recordSpans(w *work, messages int, started time.Time) {
	if len(w.traces) == 0 {
		return
	}
	ended := time.Now()
	links := make([]trace.Link, min(len(w.traces), maxLinks))
	for i := range links {
		links[i] = w.traces[i].link()
	}
	_, batch := p.config.Tracer.Start(context.Background(), "fold batch", trace.WithTimestamp(started), trace.WithLinks(links...),
		trace.WithAttributes(attrVendor.String(p.vendor.name), attrPartition.Int(p.number), attrMessages.Int(messages)))
	for _, t := range w.traces {
		p.recordSpan(t, batch, started, ended)
	}
	batch.End(trace.WithTimestamp(ended))
}

func (p *partition) recordSpan(t *traced, batch trace.Span, started, ended time.Time) {
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), t.parent)
	_, span := p.config.Tracer.Start(ctx, "fold", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(started),
		trace.WithLinks(trace.Link{SpanContext: batch.SpanContext()}),
		trace.WithAttributes(
			attrVendor.String(p.vendor.name), attrFamily.String(family(t.message)), attrSequence.Int64(int64(t.message.Sequence)),
			attrEvents.Int(t.events), attrDisposition.String(t.what),
		))
	if s, err := event.ParseSubject(t.message.Subject); err == nil {
		span.SetAttributes(attrOrganization.String(s.Organization))
	}
	if t.reason != "" {
		span.SetAttributes(attrReason.String(string(t.reason)), attrError.String(string(t.reason)))
		span.SetStatus(codes.Error, string(t.reason))
	}
	span.End(trace.WithTimestamp(ended))
}

// traceCall makes the span of a call (delivery.Options.Trace). A call is part of
// no event's trace, since it carries what many events have made of a key: it is
// linked to the trace of the event that set the figure.
func (p *partition) traceCall(ctx context.Context, tasks []delivery.Task) (context.Context, func(delivery.Outcome) string) {
	first := &tasks[0]
	operation := first.Operation()
	ctx, span := p.config.Tracer.Start(ctx, "deliver "+operation, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithLinks(p.origins.links(tasks)...),
		trace.WithAttributes(
			attrVendor.String(p.vendor.name), attrOrganization.String(first.Key.Organization), attrOperation.String(operation),
			attrAttempt.Int(first.Attempt), attrKeys.Int(len(tasks)),
		))
	return ctx, func(o delivery.Outcome) (traceID string) {
		defer span.End()
		if !span.IsRecording() {
			return ""
		}
		span.SetAttributes(attrVerdict.String(string(o.Verdict.Ruling)))
		if o.Answer.Status != 0 {
			span.SetAttributes(attrStatus.Int(o.Answer.Status))
		}
		if reason := string(o.Verdict.Hold) + string(o.Verdict.Dead); reason != "" {
			span.SetAttributes(attrReason.String(reason))
		}
		if o.Answer.Class != delivery.Accepted {
			span.SetAttributes(attrError.String(string(o.Answer.Class)))
			span.SetStatus(codes.Error, string(o.Answer.Class))
		}
		if !span.SpanContext().IsSampled() {
			return ""
		}
		return span.SpanContext().TraceID().String()
	}
}

// maxOrigins bounds, for each partition, the figures of which is known in which
// trace they were published: about half a megabyte.
const maxOrigins = 4096

// origins knows which traces the figures come from that wait to be delivered.
// It is kept in memory alone and forgets the oldest when there are too many: a
// trace is a help, and never worth a byte of the ledger. Nil: tracing is off.
type origins struct {
	mu    sync.Mutex
	byKey map[ledger.Key]*list.Element // of *origin
	byAge *list.List                   // the oldest first
}

type origin struct {
	key     ledger.Key
	version ledger.Version
	link    trace.Link
}

func newOrigins(tracer trace.Tracer) *origins {
	if tracer == nil {
		return nil
	}
	return &origins{byKey: map[ledger.Key]*list.Element{}, byAge: list.New()}
}

// note keeps in mind that an event of a message, by its operations, has set the
// figures of the keys. What is not stored in the end does no harm: nobody asks
// for its version.
func (s *origins) note(keys []ledger.Key, operations []ledger.Operation, from *traced) {
	if s == nil || from == nil || len(operations) == 0 {
		return
	}
	version := operations[0].Version // all operations of an event have the same
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if known, ok := s.byKey[key]; ok {
			if s.at(known).version.Compare(version) > 0 {
				continue
			}
			s.remove(known)
		}
		if s.byAge.Len() >= maxOrigins {
			s.remove(s.byAge.Front())
		}
		s.byKey[key] = s.byAge.PushBack(&origin{key, version, from.link()})
	}
}

// links are those of a call to the traces of its figures.
func (s *origins) links(tasks []delivery.Task) []trace.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	var links []trace.Link
	for i := range tasks {
		known, ok := s.byKey[tasks[i].Key]
		if ok && s.at(known).version == tasks[i].Figure.Version && len(links) < maxLinks {
			links = append(links, s.at(known).link)
		}
	}
	return links
}

// settled forgets what the outcome has made an end of.
func (s *origins) settled(o *delivery.Outcome) {
	if s == nil || o.Verdict.Ruling != delivery.Delivered && o.Verdict.Ruling != delivery.Dead {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.byKey[o.Task.Key]; ok && s.at(known).version.Compare(o.Task.Figure.Version) <= 0 {
		s.remove(known)
	}
}

func (s *origins) at(e *list.Element) *origin {
	return e.Value.(*origin) //nolint:errcheck // nothing else is ever put there
}

func (s *origins) remove(e *list.Element) {
	delete(s.byKey, s.at(e).key)
	s.byAge.Remove(e)
}
