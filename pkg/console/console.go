// Package console is everything that comes in over HTTP: the ingest endpoint
// for CloudEvents, the partner's Inform webhook, onboardings, metrics, health, and
// a page that lists them. It decides
// whether a request is well formed and which answer it gets, every refusal as
// problem+json (RFC 9457) with all that is wrong and what would be right.
//
// It deliberately knows no NATS, no ledger and no partner: events leave
// through Config.Publish. It does not know who asks either: but for the
// secret in the webhook's path, and the token without which there are no
// onboardings, it authenticates nobody, so what it listens on decides who may
// publish.
package console

import (
	"bytes"
	"context"
	_ "embed"
	"html/template"
	"io"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Config is what a Console works with. All fields but Limits, Inform,
// InformSecret, those of the API and Tracer are required.
type Config struct {
	Gatherer   prometheus.Gatherer   // what /metrics shows
	Registerer prometheus.Registerer // takes the Console's own metrics

	// Ready is nil while the process can do its work. Its error is shown to
	// whoever asks /readyz. It is called for every such request.
	Ready func() error

	// Publish returns when the log has acknowledged the event. It is called
	// for one event of a request after the other, in their order: of two
	// events of the same time the later one wins. Its context ends after 20
	// seconds for the whole request, or when the client goes away.
	//
	// An error that says Permanent() is true blames the event: the client is
	// shown its text and told not to repeat. Any other is logged and blamed on
	// the moment.
	Publish func(ctx context.Context, e *event.Event) (Receipt, error)

	Logger *slog.Logger

	// Limits bound the time of an event against now, as the workers will.
	// The zero value stands for event.DefaultLimits.
	Limits event.Limits

	// Inform takes the hints of the partner's Inform webhook. An error is
	// logged, and the partner is asked to send the hint again.
	Inform func(ctx context.Context, h Hint) error
	// InformSecret is the last part of the webhook's path. Empty: there is no
	// webhook. It is compared in constant time and never logged.
	InformSecret string

	// APIToken lets in who asks for onboardings. Empty: there are no such routes.
	// It is compared in constant time and never logged.
	APIToken string
	// Onboard takes a request for an onboarding and drives it; asked again it goes
	// on. Without a magic link in what it returns it goes on by itself. A
	// *RefusedError is shown to the client, any other is logged and blamed on the
	// moment. Its context ends after 40 seconds.
	Onboard func(ctx context.Context, q OnboardingRequest) (Onboarding, error)
	// Onboardings tells of all onboardings when vendor is empty, else of one; of
	// none when there is none.
	Onboardings func(ctx context.Context, vendor, organization string) ([]Onboarding, error)

	// Tracer makes a span of every ingest request; the context of Publish is
	// part of its trace. Nil: tracing is off.
	Tracer trace.Tracer
}

// Receipt says where an event is stored.
type Receipt struct {
	Stream    string
	Sequence  uint64 // position in Stream
	Duplicate bool   // the log had the event already, at Sequence
}

// Console answers HTTP requests. Make one per process.
type Console struct {
	config  Config
	metrics *metrics
	handler http.Handler
}

// New makes a Console and registers its metrics. It panics when a required
// field of the Config is missing or its metrics are registered already.
func New(config Config) *Console {
	if config.Gatherer == nil || config.Registerer == nil || config.Ready == nil || config.Publish == nil || config.Logger == nil {
		panic("console: New wants Gatherer, Registerer, Ready, Publish and Logger")
	}
	if config.InformSecret != "" && config.Inform == nil {
		panic("console: an InformSecret wants Inform")
	}
	if config.APIToken != "" && (config.Onboard == nil || config.Onboardings == nil) {
		panic("console: an APIToken wants Onboard and Onboardings")
	}
	if config.Limits == (event.Limits{}) {
		config.Limits = event.DefaultLimits()
	}
	c := &Console{config: config, metrics: newMetrics(config.Registerer)}
	mux := http.NewServeMux()
	for _, r := range c.routes() {
		mux.Handle(r.pattern, r)
	}
	c.handler = c.observe(mux)
	return c
}

// Handler answers every route. It is safe for concurrent use.
func (c *Console) Handler() http.Handler { return c.handler }

// route is one path and what answers it. Its pattern is also its label in
// metrics and logs: paths that clients make up get into neither.
type route struct {
	pattern string
	Method  string // GET includes HEAD; empty: any, the answer is the same
	Path    string
	About   string
	answer  http.HandlerFunc
}

const (
	patternPage    = "/{$}"
	patternUnknown = "/"
	ingestPath     = "/ingest/v1/events"
)

func (c *Console) routes() []route {
	metricsAnswer := promhttp.HandlerFor(c.config.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(c.config.Logger.Handler(), slog.LevelError),
		// One broken collector must not blind every alert.
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	})
	listed := []route{
		{ingestPath, http.MethodPost, ingestPath, "takes CloudEvents: one structured, one binary, or a batch of up to 1,000", c.traced("ingest", c.ingest)},
		{informPattern, http.MethodPost, informPattern, "takes the partner's Inform webhook, when a secret is configured", c.inform},
		{"/metrics", http.MethodGet, "/metrics", "metrics for Prometheus", metricsAnswer.ServeHTTP},
		{"/livez", http.MethodGet, "/livez", "200 while the process answers", live},
		{"/readyz", http.MethodGet, "/readyz", "200 while it can do its work, else 503 and the reason", c.ready},
	}
	if c.config.APIToken != "" {
		listed = append(listed,
			route{onboardingsPath, "", onboardingsPath, "takes an onboarding (POST) or lists them (GET), for who has the API's token", c.authorized(c.onboardings)},
			route{onboardingPattern, http.MethodGet, onboardingPattern, "how far an onboarding is, for who has the API's token", c.authorized(c.tellOnboardings)})
	}
	page := route{pattern: patternPage, Method: http.MethodGet, Path: "/", answer: newPage(listed)}
	return append(listed, page, route{pattern: patternUnknown, answer: unknown})
}

// ServeHTTP refuses every method but the route's own.
func (r route) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	allowed := r.Method
	if r.Method == http.MethodGet {
		allowed = "GET, HEAD"
	}
	switch {
	case r.Method == "", request.Method == r.Method, request.Method == http.MethodHead && r.Method == http.MethodGet:
		r.answer(w, request)
	default:
		w.Header().Set("Allow", allowed)
		problem{Status: http.StatusMethodNotAllowed, Detail: r.Path + " takes " + allowed}.write(w)
	}
}

func unknown(w http.ResponseWriter, _ *http.Request) {
	problem{Status: http.StatusNotFound, Detail: "nothing is here: / lists what there is"}.write(w)
}

func live(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

func (c *Console) ready(w http.ResponseWriter, _ *http.Request) {
	if err := c.config.Ready(); err != nil {
		writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		return
	}
	writeText(w, http.StatusOK, "ok")
}

func writeText(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, line+"\n") // a client that is gone is no news
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// newPage renders the list of routes once: it never changes.
func newPage(listed []route) http.HandlerFunc {
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, listed); err != nil {
		panic("console: render the page: " + err.Error())
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		_, _ = w.Write(text.Bytes())
	}
}
