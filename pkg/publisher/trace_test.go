package publisher_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

// inTrace is a context that is part of a trace.
func inTrace(t *testing.T, flags trace.TraceFlags, state string) context.Context {
	t.Helper()
	parsed, err := trace.ParseTraceState(state)
	if err != nil {
		t.Fatal(err)
	}
	return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{15: 1}, SpanID: trace.SpanID{7: 2}, TraceFlags: flags, TraceState: parsed,
	}))
}

const traceparent = "00-00000000000000000000000000000001-0000000000000002-01"

func TestAMessageTellsOfTheTraceThatItsPublishingIsPartOf(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{}))
	stream := makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	for name, c := range map[string]struct {
		ctx           context.Context
		parent, state string // as stored
	}{
		"sampled":                      {inTrace(t, trace.FlagsSampled, ""), traceparent, ""},
		"sampled, with a state":        {inTrace(t, trace.FlagsSampled, "a=1,b=2"), traceparent, "a=1,b=2"},
		"sampled, with a long state":   {inTrace(t, trace.FlagsSampled, longState()), traceparent, ""},
		"not sampled: it stores less":  {inTrace(t, 0, "a=1"), "", ""},
		"no trace":                     {t.Context(), "", ""},
		"a trace that is no valid one": {trace.ContextWithSpanContext(t.Context(), trace.SpanContext{}.WithTraceFlags(trace.FlagsSampled)), "", ""},
	} {
		checkStored := func(ack publisher.Ack) {
			t.Helper()
			m, err := stream.GetMsg(t.Context(), ack.Sequence)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Header.Get("traceparent"); got != c.parent {
				t.Errorf("%s: traceparent is %q, want %q", name, got, c.parent)
			}
			if got := m.Header.Get("tracestate"); got != c.state {
				t.Errorf("%s: tracestate is %q, want %q", name, got, c.state)
			}
		}
		ack, err := p.Count(c.ctx, count("a-"+fmt.Sprint(len(name)), "42"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkStored(ack)
		record := publisher.Record{Number: 1, Event: &event.Event{
			Organization: "msp-0042", Time: noon, Data: event.Count{AccountID: "b", ServiceID: "backup", UnitCount: 1},
		}}
		_, err = p.PublishAll(c.ctx, func(yield func(publisher.Record) bool) { yield(record) }, func(r publisher.Result) { ack = r.Ack })
		if err != nil {
			t.Fatalf("%s, with many: %v", name, err)
		}
		checkStored(ack)
	}
}

// longState is a tracestate that is valid and longer than need be passed on.
func longState() string {
	return "a=" + strings.Repeat("x", 256) + ",b=" + strings.Repeat("y", 256)
}

func TestNoEventIsRefusedBecauseItsTraceDoesNotFit(t *testing.T) {
	nc := connect(t, startServer(t, &server.Options{MaxPayload: 1024}))
	stream := makeStream(t, nc, nil)
	p := newPublisher(t, nc, nil)
	service := publisher.Service{Organization: "o", Service: "s", Name: "n", Time: noon}
	traced, untraced := 0, 0
	for size := 300; ; size += 10 {
		service.Description = strings.Repeat("x", size)
		service.ID = fmt.Sprint("a", size)
		_, without := p.Service(t.Context(), service)
		service.ID = fmt.Sprint("b", size)
		ack, with := p.Service(inTrace(t, trace.FlagsSampled, ""), service)
		if (without == nil) != (with == nil) {
			t.Errorf("a description of %d bytes: got %v in a trace, want what it is without: %v", size, with, without)
		}
		if with != nil {
			break
		}
		if header(t, stream, ack.Sequence) != "" {
			traced++
		} else {
			untraced++
		}
	}
	if traced == 0 || untraced == 0 {
		t.Errorf("stored with and without their trace: got %d and %d, want some of either", traced, untraced)
	}
}

func header(t *testing.T, stream jetstream.Stream, sequence uint64) string {
	t.Helper()
	m, err := stream.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	return m.Header.Get("traceparent")
}
