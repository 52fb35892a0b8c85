package console_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestHealthIsPlainText(t *testing.T) {
	why := error(nil)
	b := newBench(func(b *bench) { b.config.Ready = func() error { return why } })
	expect := func(path string, status int, body string) {
		t.Helper()
		w := b.do(t, http.MethodGet, path, nil, "")
		if w.Code != status || w.Body.String() != body || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %q with Cache-Control %q, want %d %q, no-store", path, w.Code, w.Body, w.Header().Get("Cache-Control"), status, body)
		}
	}
	expect("/livez", http.StatusOK, "ok\n")
	expect("/readyz", http.StatusOK, "ok\n")
	why = errors.New("not connected to NATS")
	expect("/readyz", http.StatusServiceUnavailable, "not ready: not connected to NATS\n")
	expect("/livez", http.StatusOK, "ok\n")
}

func TestAnUnknownRouteIsAProblem(t *testing.T) {
	b := newBench()
	for _, path := range []string{"/nothing", "/metrics/", "/ingest/v1/events/x"} {
		read(t, b.do(t, http.MethodGet, path, nil, ""), http.StatusNotFound)
	}
}

func TestAWrongMethodIsToldTheRightOne(t *testing.T) {
	b := newBench()
	for path, allow := range map[string]string{
		"/ingest/v1/events": "POST", "/metrics": "GET, HEAD", "/livez": "GET, HEAD", "/readyz": "GET, HEAD", "/": "GET, HEAD",
	} {
		for _, method := range []string{http.MethodDelete, http.MethodOptions} {
			w := b.do(t, method, path, nil, "")
			read(t, w, http.StatusMethodNotAllowed)
			if got := w.Header().Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allow)
			}
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("%s %s: other origins are let in: %q", method, path, got)
			}
		}
	}
	if w := b.do(t, http.MethodHead, "/livez", nil, ""); w.Code != http.StatusOK {
		t.Errorf("HEAD /livez: status is %d, want 200", w.Code)
	}
}

func TestThePageListsTheRoutes(t *testing.T) {
	w := newBench().do(t, http.MethodGet, "/", nil, "")
	for _, want := range []string{"/ingest/v1/events", `href="/metrics"`, `href="/livez"`, `href="/readyz"`, "light dark"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page has no %s:\n%s", want, w.Body)
		}
	}
	if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		t.Errorf("Content-Security-Policy is %q, want nothing by default", got)
	}
	if strings.Contains(w.Body.String(), "<script") {
		t.Error("the page has a script, which its policy forbids")
	}
}

// broken is a collector that cannot collect.
type broken struct{ desc *prometheus.Desc }

func (b broken) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }
func (b broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(b.desc, errors.New("the disk is gone"))
}

func TestMetricsAreServedEvenIfACollectorIsBroken(t *testing.T) {
	b := newBench()
	b.registry.MustRegister(broken{prometheus.NewDesc("usagebridge_broken", "Never there.", nil, nil)})
	w := b.do(t, http.MethodGet, "/metrics", http.Header{"Accept": {"application/openmetrics-text; version=1.0.0"}}, "")
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || !strings.HasPrefix(got, "application/openmetrics-text") {
		t.Errorf("status %d, Content-Type %q, want 200 and OpenMetrics", w.Code, got)
	}
	if !strings.Contains(w.Body.String(), "usagebridge_http_requests_total{") || !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("the metrics that work are not all there:\n%s", w.Body)
	}
	if !strings.Contains(b.logged.String(), "the disk is gone") {
		t.Errorf("the log does not say which collector is broken: %q", b.logged.String())
	}
}

func TestRequestsAreCountedUnderClosedLabels(t *testing.T) {
	b := newBench()
	before := series(t, b.registry)
	b.do(t, http.MethodGet, "/", nil, "")
	b.do(t, http.MethodGet, "/livez", nil, "")
	b.do(t, http.MethodGet, "/metrics", nil, "")
	b.do(t, http.MethodGet, "/readyz", nil, "")
	b.do(t, http.MethodGet, "/made/up?by=a+client", nil, "")
	b.do(t, http.MethodGet, "//livez", nil, "")
	b.post(t, "text/plain", "")
	after := series(t, b.registry)
	for name, want := range map[string]float64{
		"/ 2xx": 1, "/livez 2xx": 1, "/metrics 2xx": 1, "/readyz 2xx": 1, "unknown 4xx": 1, "/ingest/v1/events 4xx": 1,
	} {
		if after[name] != want {
			t.Errorf("requests counted for %s: %v, want %v", name, after[name], want)
		}
	}
	if len(after) != len(before) || len(before) != 9*4 {
		t.Errorf("series: %d before and %d after requests, want 36 at any time", len(before), len(after))
	}
	if problems, err := testutil.GatherAndLint(b.registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics lint: %v %v, want none", problems, err)
	}
}

// series are the values of the request counter by its labels.
func series(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatalf("gather: %v", err)
	}
	at := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "usagebridge_http_requests_total" })
	if at < 0 {
		t.Fatal("usagebridge_http_requests_total is missing")
	}
	values := map[string]float64{}
	for _, m := range families[at].GetMetric() { // labels are sorted: code_class, route
		values[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	return values
}

func TestAPanicIsAProblemAndOneLogLine(t *testing.T) {
	b := newBench(func(b *bench) {
		b.config.Publish = func(context.Context, *event.Event) (console.Receipt, error) { panic("a mistake") }
	})
	read(t, b.post(t, event.ContentTypeStructured, count("secret-of-the-body", 1)), http.StatusInternalServerError)
	logged := b.logged.String()
	if strings.Count(logged, "\n") != 1 || !strings.Contains(logged, "level=ERROR") {
		t.Errorf("logged %q, want one error", logged)
	}
	if !regexp.MustCompile(`route=/ingest/v1/events panic="a mistake" stack=.*console_test\.go`).MatchString(logged) {
		t.Errorf("logged %q, want the route, the panic and its stack", logged)
	}
	if strings.Contains(logged, "secret-of-the-body") {
		t.Errorf("the body is in the log: %q", logged)
	}
	if got := series(t, b.registry)["/ingest/v1/events 5xx"]; got != 1 {
		t.Errorf("5xx counted: %v, want 1", got)
	}
}

// brittle is a connection on which writing the body panics.
type brittle struct{ *httptest.ResponseRecorder }

func (brittle) Write([]byte) (int, error) { panic("in the middle") }

func (brittle) WriteString(string) (int, error) { panic("in the middle") }

func TestAPanicInTheMiddleOfAnAnswerCutsTheConnection(t *testing.T) {
	b := newBench()
	w := brittle{httptest.NewRecorder()}
	aborted := recovered(func() {
		b.console.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/livez", http.NoBody))
	})
	if aborted != any(http.ErrAbortHandler) || !strings.Contains(b.logged.String(), `panic="in the middle"`) {
		t.Errorf("recovered %v, logged %q, want http.ErrAbortHandler and the panic", aborted, b.logged.String())
	}
	if got := series(t, b.registry)["/livez 5xx"]; got != 1 {
		t.Errorf("5xx counted: %v, want 1", got)
	}
}

func TestAnAbortIsPassedOnInSilence(t *testing.T) {
	b := newBench(func(b *bench) {
		b.config.Publish = func(context.Context, *event.Event) (console.Receipt, error) { panic(http.ErrAbortHandler) }
	})
	aborted := recovered(func() { b.post(t, event.ContentTypeStructured, count("1", 1)) })
	if aborted != any(http.ErrAbortHandler) || b.logged.Len() != 0 {
		t.Errorf("recovered %v, logged %q, want http.ErrAbortHandler and nothing: it was meant", aborted, b.logged.String())
	}
}

// recovered is what f panics with; nil when it does not.
func recovered(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	for name, remove := range map[string]func(*console.Config){
		"Gatherer":   func(c *console.Config) { c.Gatherer = nil },
		"Registerer": func(c *console.Config) { c.Registerer = nil },
		"Ready":      func(c *console.Config) { c.Ready = nil },
		"Publish":    func(c *console.Config) { c.Publish = nil },
		"Logger":     func(c *console.Config) { c.Logger = nil },
	} {
		if recovered(func() { newBench(func(b *bench) { remove(&b.config) }) }) == nil {
			t.Errorf("New without %s did not panic", name)
		}
	}
}
