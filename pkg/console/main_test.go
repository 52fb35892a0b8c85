package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// log is a log of events that knows repeats, as JetStream does.
type log struct {
	mu     sync.Mutex
	events []*event.Event
	fail   func(*event.Event) error // nil: never
}

func (l *log) publish(_ context.Context, e *event.Event) (console.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		if err := l.fail(e); err != nil {
			return console.Receipt{}, err
		}
	}
	for i, stored := range l.events {
		if stored.Source == e.Source && stored.ID == e.ID {
			return console.Receipt{Stream: event.Stream(e.Vendor), Sequence: uint64(i + 1), Duplicate: true}, nil
		}
	}
	l.events = append(l.events, e)
	return console.Receipt{Stream: event.Stream(e.Vendor), Sequence: uint64(len(l.events))}, nil
}

func (l *log) ids() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]string, len(l.events))
	for i, e := range l.events {
		ids[i] = e.ID
	}
	return strings.Join(ids, " ")
}

// bench is a Console with everything around it.
type bench struct {
	log      log
	logged   strings.Builder
	registry *prometheus.Registry
	config   console.Config
	console  *console.Console
}

func newBench(adjust ...func(*bench)) *bench {
	b := &bench{registry: prometheus.NewPedanticRegistry()}
	b.config = console.Config{
		Gatherer:   b.registry,
		Registerer: b.registry,
		Ready:      func() error { return nil },
		Publish:    b.log.publish,
		Logger:     slog.New(slog.NewTextHandler(&b.logged, nil)),
	}
	for _, a := range adjust {
		a(b)
	}
	b.console = console.New(b.config)
	return b
}

func (b *bench) do(t *testing.T, method, path string, header http.Header, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	b.console.Handler().ServeHTTP(w, r)
	if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("%s %s: X-Content-Type-Options is %q, want nosniff", method, path, got)
	}
	return w
}

// post ingests a body of that type.
func (b *bench) post(t *testing.T, contentType, body string) *httptest.ResponseRecorder {
	t.Helper()
	return b.do(t, http.MethodPost, "/ingest/v1/events", http.Header{"Content-Type": {contentType}}, body)
}

// count is a valid event as an envelope.
func count(id string, units int) string {
	return envelope(id, time.Now(), fmt.Sprintf(
		`{"vendorId":"acme","organizationId":"msp-0042","accountId":"a-17","serviceId":"backup","unitCount":%d}`, units))
}

func envelope(id string, at time.Time, data string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"//billing.acme.example","type":"usage.count.v1","time":%q,"data":%s}`,
		id, at.UTC().Format(time.RFC3339Nano), data)
}

// answer is what a client reads, of an acceptance and of a problem.
type answer struct {
	Type   string
	Title  string
	Status int
	Detail string
	Errors []struct{ Pointer, Header, Reason, Problem, Want string }

	Accepted *int
	Events   []struct {
		ID, Stream string
		Sequence   uint64
		Duplicate  bool
	}
}

// read checks the status and the form of an answer.
func read(t *testing.T, w *httptest.ResponseRecorder, status int) answer {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status is %d, want %d\n%s", w.Code, status, w.Body)
	}
	wantType := "application/json"
	if status >= 400 {
		wantType = "application/problem+json"
	}
	if got := w.Header().Get("Content-Type"); got != wantType {
		t.Errorf("Content-Type is %q, want %q", got, wantType)
	}
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("answer is no JSON: %v\n%s", err, w.Body)
	}
	if status >= 400 && (a.Type != "about:blank" || a.Status != status || a.Title != http.StatusText(status) || a.Detail == "") {
		t.Errorf("problem is %+v, want type about:blank, status %d, its title and a detail", a, status)
	}
	return a
}

// places lists where the problems are, with their reasons.
func (a *answer) places() string {
	var all []string
	for _, e := range a.Errors {
		all = append(all, e.Pointer+e.Header+" "+e.Reason)
	}
	return strings.Join(all, ", ")
}

// permanent is an error for which an event is to blame.
type permanent string

func (p permanent) Error() string { return string(p) }
func (permanent) Permanent() bool { return true }
