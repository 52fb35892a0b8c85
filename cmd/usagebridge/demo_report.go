package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// demoReport is what a demo tells in the end.
type demoReport struct {
	Seed    uint64  `json:"seed"`
	Size    int     `json:"size"` // as --events
	Seconds float64 `json:"seconds"`

	Published    int                        `json:"published"` // events, repeats included
	Dropped      int                        `json:"dropped_by_server"`
	Dispositions map[ledger.Disposition]int `json:"dispositions"`
	DeadLetters  map[event.Reason]int       `json:"dead_letters"`

	Calls         int               `json:"calls"`
	EventsPerCall float64           `json:"events_per_call"`
	ByOperation   []demoCalls       `json:"calls_by_operation"`
	Integrations  []demoIntegrated  `json:"integrations"`
	HeldAtMost    int               `json:"held_at_most"` // figures that waited for the partner to be ready
	Faults        []demoFaultReport `json:"faults"`

	Checks []demoCheck `json:"checks"`
	OK     bool        `json:"ok"`
}

type demoCalls struct {
	Operation sandbox.Operation `json:"operation"`
	Answers   map[string]int    `json:"answers"` // by status; "torn": none
}

type demoIntegrated struct {
	Integration string     `json:"integration"`
	Steps       []demoStep `json:"steps"`
}

type demoFaultReport struct {
	Fault string `json:"fault"`
	Calls int    `json:"calls"`
}

func newDemoReport(d *demo, seen *demoEvidence, journeys map[string][]demoStep, took time.Duration) *demoReport {
	r := &demoReport{
		Seed: d.plan.seed, Size: d.plan.size, Seconds: took.Seconds(),
		Published: int(d.feed.published.Load()), Dropped: seen.dropped, Dispositions: seen.dispositions, DeadLetters: seen.letters,
		Calls: len(seen.tape), HeldAtMost: d.held, Checks: checkDemo(d.plan, seen),
	}
	r.EventsPerCall = float64(r.Published) / float64(max(r.Calls, 1))
	for _, operation := range []sandbox.Operation{sandbox.OperationAccounts, sandbox.OperationServices, sandbox.OperationMapping, sandbox.OperationCount, sandbox.OperationUnknown} {
		if answers := seen.partner.Totals.Requests[operation]; len(answers) > 0 {
			r.ByOperation = append(r.ByOperation, demoCalls{operation, answers})
		}
	}
	for _, name := range demoIntegrations() {
		r.Integrations = append(r.Integrations, demoIntegrated{name, journeys[name]})
	}
	faults := map[string]int{}
	for i := range seen.tape {
		if name := seen.tape[i].Fault; name != "" && name != demoLatency {
			faults[name]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		r.Faults = append(r.Faults, demoFaultReport{name, faults[name]})
	}
	r.OK = !slices.ContainsFunc(r.Checks, func(c demoCheck) bool { return !c.OK })
	return r
}

// verdict is an error unless every check holds.
func (r *demoReport) verdict() error {
	if r.OK {
		return nil
	}
	return fmt.Errorf("the demo failed; the same events again: usagebridge demo --events %d --seed %d", r.Size, r.Seed)
}

// palette puts colour on a terminal and nothing elsewhere.
type palette struct{ bold, dim, good, bad, off string }

func paletteFor(w io.Writer) palette {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return palette{}
	}
	return palette{bold: "\x1b[1m", dim: "\x1b[2m", good: "\x1b[32m", bad: "\x1b[31m", off: "\x1b[0m"}
}

// write tells the report to a person.
func (r *demoReport) write(to io.Writer, p palette) error {
	w := &reportWriter{to: to, palette: p}
	w.line("")
	w.line("  %susagebridge demo%s   seed %d, %s events, %.1f s", p.bold, p.off, r.Seed, thousands(r.Published), r.Seconds)
	w.section("Events")
	w.row("dropped by the server", r.Dropped, "the same Nats-Msg-Id again")
	for _, what := range ledger.Dispositions() {
		w.row(string(what), r.Dispositions[what], demoMeanings[what])
	}
	w.section("Dead letters")
	for _, reason := range event.Reasons() {
		if n := r.DeadLetters[reason]; n > 0 {
			w.row(string(reason), n, "")
		}
	}
	w.section("Calls to the partner")
	for _, o := range r.ByOperation {
		w.row(string(o.Operation), total(o.Answers), answers(o.Answers))
	}
	w.row("all", r.Calls, fmt.Sprintf("one for %.1f events", r.EventsPerCall))
	var faults []string
	for _, f := range r.Faults {
		faults = append(faults, fmt.Sprintf("%s %s", f.Fault, thousands(f.Calls)))
	}
	if len(faults) > 0 {
		w.line("    %sfaults played: %s%s", p.dim, strings.Join(faults, ", "), p.off)
	}
	w.section("Integrations")
	for _, i := range r.Integrations {
		w.line("    %-22s %s", printable(i.Integration), steps(i.Steps))
	}
	w.line("    %s%s keys waited at most until the person had mapped%s", p.dim, thousands(r.HeldAtMost), p.off)
	w.section("Checks")
	for _, c := range r.Checks {
		w.check(c)
	}
	w.line("")
	return w.err
}

// reportWriter writes lines and keeps the first error.
type reportWriter struct {
	palette
	to  io.Writer
	err error
}

func (w *reportWriter) line(format string, args ...any) {
	_, err := fmt.Fprintf(w.to, format+"\n", args...)
	w.err = cmp.Or(w.err, err)
}

func (w *reportWriter) section(title string) { w.line("\n  %s%s%s", w.bold, title, w.off) }

func (w *reportWriter) row(name string, n int, note string) {
	w.line("%s", strings.TrimRight(fmt.Sprintf("    %-22s %9s   %s%s%s", name, thousands(n), w.dim, note, w.off), " "))
}

func (w *reportWriter) check(c demoCheck) {
	mark, colour := "✓", w.good
	if !c.OK {
		mark, colour = "✗", w.bad
	}
	w.line("    %s%s%s %s", colour, mark, w.off, c.Claim)
	w.line("      %s%s%s", w.dim, c.Figures, w.off)
	for _, problem := range c.Problems {
		w.line("      %s%s%s", w.bad, problem, w.off)
	}
}

// demoMeanings are the event contract's words, shortened.
var demoMeanings = map[ledger.Disposition]string{
	ledger.Applied:    "became the desired value of its key",
	ledger.Duplicate:  "seen before",
	ledger.Superseded: "a later time was there first",
	ledger.Unchanged:  "the partner has that value already",
	ledger.Dead:       "can never be applied",
}

// answers writes "1,204 × 201, 3 × 503, 2 torn".
func answers(byStatus map[string]int) string {
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		sign := " × "
		if status == "torn" {
			sign = " "
		}
		parts = append(parts, thousands(byStatus[status])+sign+status)
	}
	return strings.Join(parts, ", ")
}

// steps writes "inactive 0.0 s → mapping 1.2 s → connected 3.0 s".
func steps(list []demoStep) string {
	if len(list) == 0 {
		return "never seen"
	}
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = fmt.Sprintf("%s %.1f s", s.Status, s.Seconds)
	}
	return strings.Join(parts, " → ")
}
