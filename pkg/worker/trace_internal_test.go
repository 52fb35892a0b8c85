package worker

import (
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

const (
	traceA = "0af7651916cd43dd8448eb211c80319c"
	spanA  = "b7ad6b7169203331"
)

func TestOnlyASampledParentThatIsWellFormedIsFollowed(t *testing.T) {
	good := "00-" + traceA + "-" + spanA + "-01"
	for name, c := range map[string]struct {
		header map[string][]string
		want   string // trace, "" for none
	}{
		"sampled":                   {map[string][]string{"traceparent": {good}}, traceA},
		"spelt as HTTP does":        {map[string][]string{"Traceparent": {good}}, traceA},
		"of a later version":        {map[string][]string{"traceparent": {"01-" + traceA + "-" + spanA + "-01-more"}}, traceA},
		"with a state":              {map[string][]string{"traceparent": {good}, "tracestate": {"a=1", "b=2"}}, traceA},
		"with a garbled state":      {map[string][]string{"traceparent": {good}, "tracestate": {"=;,"}}, traceA},
		"not sampled":               {map[string][]string{"traceparent": {"00-" + traceA + "-" + spanA + "-00"}}, ""},
		"two of them":               {map[string][]string{"traceparent": {good, good}}, ""},
		"no headers":                {nil, ""},
		"others":                    {map[string][]string{"content-type": {"application/json"}}, ""},
		"garbage":                   {map[string][]string{"traceparent": {"garbage"}}, ""},
		"empty":                     {map[string][]string{"traceparent": {""}}, ""},
		"no value":                  {map[string][]string{"traceparent": {}}, ""},
		"no trace":                  {map[string][]string{"traceparent": {"00-00000000000000000000000000000000-" + spanA + "-01"}}, ""},
		"no span":                   {map[string][]string{"traceparent": {"00-" + traceA + "-0000000000000000-01"}}, ""},
		"upper case":                {map[string][]string{"traceparent": {"00-0AF7651916CD43DD8448EB211C80319C-" + spanA + "-01"}}, ""},
		"the version that is never": {map[string][]string{"traceparent": {"ff-" + traceA + "-" + spanA + "-01"}}, ""},
	} {
		parent, recorded := parentOf(c.header)
		if recorded != (c.want != "") || recorded && parent.TraceID().String() != c.want {
			t.Errorf("%s: got %v of trace %s, want trace %q", name, recorded, parent.TraceID(), c.want)
		}
	}
}

func TestWhatWaitsForItsTraceIsBounded(t *testing.T) {
	s := newOrigins(noTracer{})
	key := func(n int) ledger.Key { return ledger.CountKey("m", fmt.Sprint("a", n), "s") }
	version := func(n int) ledger.Version { return ledger.Version{Time: int64(n), Arrival: uint64(n)} }
	note := func(n, v int) {
		s.note([]ledger.Key{key(n)}, []ledger.Operation{{Version: version(v)}}, &traced{parent: spanOf(byte(v%255 + 1))})
	}
	linked := func(n, v int) int {
		return len(s.links([]delivery.Task{{Key: key(n), Figure: ledger.Seen{Version: version(v)}}}))
	}
	expect := func(what string, n, v, want int) {
		t.Helper()
		if got := linked(n, v); got != want {
			t.Errorf("%s: got %d links, want %d", what, got, want)
		}
	}
	for n := range maxOrigins + 10 {
		note(n, 1)
	}
	if len(s.byKey) != maxOrigins || s.byAge.Len() != maxOrigins {
		t.Errorf("kept: got %d keys and %d in line, want %d", len(s.byKey), s.byAge.Len(), maxOrigins)
	}
	expect("one of the oldest", 9, 1, 0)
	expect("the oldest that is kept", 10, 1, 1)

	note(10, 3)
	note(10, 2)
	expect("an older event does not push out a newer one", 10, 3, 1)
	expect("of the older event nothing is known", 10, 2, 0)
	expect("a figure of an event that is not traced", 10, 4, 0)

	outcome := delivery.Outcome{Task: delivery.Task{Key: key(10), Figure: ledger.Seen{Version: version(2)}}, Verdict: delivery.Verdict{Ruling: delivery.Delivered}}
	s.settled(&outcome)
	expect("an older figure was delivered", 10, 3, 1)
	outcome.Task.Figure.Version, outcome.Verdict.Ruling = version(4), delivery.Retry
	s.settled(&outcome)
	expect("the next figure is tried again", 10, 3, 1)
	outcome.Verdict.Ruling = delivery.Delivered
	s.settled(&outcome)
	expect("the next figure was delivered", 10, 3, 0)
	if len(s.byKey) != maxOrigins-1 || s.byAge.Len() != maxOrigins-1 {
		t.Errorf("kept in the end: got %d keys and %d in line, want %d", len(s.byKey), s.byAge.Len(), maxOrigins-1)
	}
}

func TestACallForManyKeysHasAsManyLinksAsASpanKeeps(t *testing.T) {
	s := newOrigins(noTracer{})
	var tasks []delivery.Task
	for n := range 2 * maxLinks {
		key := ledger.AccountKey("m", fmt.Sprint("a", n))
		s.note([]ledger.Key{key}, []ledger.Operation{{}}, &traced{parent: spanOf(1)})
		tasks = append(tasks, delivery.Task{Key: key})
	}
	if got := len(s.links(tasks)); got != maxLinks {
		t.Errorf("links: got %d, want %d", got, maxLinks)
	}
}

// noTracer stands for one that is never asked for a span.
type noTracer struct{ trace.Tracer }

func spanOf(n byte) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
}

func TestTracingThatIsOffAllocatesNothing(t *testing.T) {
	p, batch := foldingPartition(), foldableBatch()
	w := p.newWork(batch[0].Stored)
	operations := []ledger.Operation{{Key: ledger.CountKey("m", "a", "s")}}
	keys := []ledger.Key{operations[0].Key}
	outcome := delivery.Outcome{Verdict: delivery.Verdict{Ruling: delivery.Delivered}}
	got := testing.AllocsPerRun(1000, func() {
		w.follow(&batch[0])
		w.traced.became(ledger.Applied, "")
		p.origins.note(keys, operations, w.traced)
		p.origins.settled(&outcome)
		p.recordSpans(w, 1, w.now)
	})
	if got != 0 {
		t.Errorf("allocations for a message: got %v, want 0", got)
	}
}

func TestTheDispositionOfAMessageIsThatOfAllItsEvents(t *testing.T) {
	for name, c := range map[string]struct {
		events []ledger.Disposition
		want   string
	}{
		"one":      {[]ledger.Disposition{ledger.Applied}, "applied"},
		"the same": {[]ledger.Disposition{ledger.Dead, ledger.Dead}, "dead"},
		"several":  {[]ledger.Disposition{ledger.Applied, ledger.Applied, ledger.Dead, ledger.Applied}, "mixed"},
	} {
		m := &traced{}
		for _, what := range c.events {
			why := event.Reason("")
			if what == ledger.Dead {
				why = event.ReasonInvalid
			}
			m.became(what, why)
		}
		if m.what != c.want || m.events != len(c.events) {
			t.Errorf("%s: got %s of %d events, want %s of %d", name, m.what, m.events, c.want, len(c.events))
		}
	}
}
