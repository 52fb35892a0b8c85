package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// What a harness does not find when it is there, it does not find either when
// it is not known to be there. So each fault that this program must not have is
// planted once, and the voyages must come to grief on it.

// mostVoyages is how many a planted fault may survive.
const mostVoyages = 2000

// hasty acks what it hands out.
type hasty struct{ worker.Source }

func (s hasty) Receive(ctx context.Context) ([]event.Message, error) {
	batch, err := s.Source.Receive(ctx)
	if err == nil {
		err = s.Ack(ctx, batch)
	}
	return batch, err
}

// careless stores whatever it gets.
type careless struct{ fleetStore }

func (s careless) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	return s.line.store(ctx, entries, func(sent []ledger.Entry) error {
		stored, _, err := s.line.f.store.Read(ctx, partition, sent[0].Key)
		sent[0].Revision = stored.Revision
		return errors.Join(err, s.line.f.store.Write(context.WithoutCancel(ctx), partition, sent))
	})
}

// lossy says of everything that it was stored, and does not store it.
type lossy struct{ fleetRecords }

func (lossy) Park(context.Context, []event.Letter) error { return nil }

// forEver is a lease that everybody has and nobody loses.
type forEver struct{}

func (forEver) Renew(context.Context) error   { return nil }
func (forEver) Release(context.Context) error { return nil }

func TestAFaultOfWhatAWorkerStandsOnIsFound(t *testing.T) {
	t.Parallel()
	faults := []struct {
		name    string
		weather []string // in which it shows
		plant   planting
	}{
		{"messages are acked before they are recorded", weatherDeeds, func(_ *line, c *worker.Config) {
			open := c.Backend.Source
			c.Backend.Source = func(ctx context.Context, vendor string, partition int) (worker.Source, error) {
				s, err := open(ctx, vendor, partition)
				if err != nil {
					return nil, err
				}
				return hasty{s}, nil
			}
		}},
		{"the store does not compare revisions", []string{writeTrouble, killWorker}, func(l *line, c *worker.Config) {
			c.Backend.Store = func(string) worker.Store { return careless{fleetStore{l}} }
		}},
		{"everybody has every lease", weatherDeeds, func(_ *line, c *worker.Config) {
			c.Backend.Lease = func(context.Context, string, int) (worker.Lease, error) { return forEver{}, nil }
			c.Backend.Watch = nil
		}},
		{"dead letters are lost", weatherDeeds, func(l *line, c *worker.Config) { c.Backend.Records = lossy{fleetRecords{l}} }},
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			voyages := rapid.Custom(func(t *rapid.T) voyage { return drawVoyageIn(t, fault.weather) })
			for seed := range mostVoyages {
				if problem := sail(t, voyages.Example(seed), fault.plant); problem != "" {
					t.Logf("found on voyage %d: %s", seed+1, problem)
					return
				}
			}
			t.Errorf("no voyage of %d found the fault", mostVoyages)
		})
	}
}

// graft is a fault of the program itself: edits of its sources, each of a
// snippet that is there exactly once, so that none can come to do nothing
// without a word. It shows when planted(name) is true.
type graft struct {
	name    string
	weather []string // in which it shows; nil: any
	edits   []edit
	loss    bool // it shows when a lease is lost
}

type edit struct{ file, old, new string }

// $ stands for the fault's own condition.
var grafts = []graft{
	{"mark before work", nil, []edit{{
		"delivery/call.go", "\ta, sight, made := l.send(calling, t)\n", `
	marked, at := t.tasks[0], time.Now()
	if $ && marked.Key.Kind == ledger.Count {
		l.book.Settle(Outcome{Task: marked, Answer: Answer{Class: Accepted, At: at}, Verdict: Verdict{Ruling: Delivered}})
	}
	a, sight, made := l.send(calling, t)
	if $ && marked.Key.Kind == ledger.Count {
		a = Answer{Class: Accepted, At: at}
	}
`,
	}}, false},
	{"a retry carries an old value", nil, []edit{{
		"delivery/turn.go", "\tfigure, _ := e.Desired()\n", `
	figure, _ := e.Desired()
	if $ && e.State == ledger.Retrying && len(e.Seen) > 1 {
		figure.Value = e.Seen[1].Value
	}
`,
	}}, false},
	{"a shutdown is an attempt", []string{stopWorker, slow}, []edit{{
		"delivery/judge.go", "\tcase Stopped:\n\t\treturn Verdict{Ruling: NotCounted}\n\tcase Rejected:\n", `
	case Stopped:
		if $ {
			return Verdict{Ruling: Retry}
		}
		return Verdict{Ruling: NotCounted}
	case Rejected:
`,
	}}, false},
	{"a replay is as new as its message", []string{startOld, killWorker}, []edit{{
		"event/decode.go", "\t\te.ReplayOf, e.Arrival = text, original\n", `
		own := e.Arrival
		e.ReplayOf, e.Arrival = text, original
		if $ {
			e.Arrival = own
		}
`,
	}}, false},
	{"an id alone is an event", nil, []edit{{
		"event/names.go", "\tb := append(small[:0], e.Source...)\n\tb = append(b, 0)\n\tb = append(b, e.ID...)\n", `
	b := append(small[:0], e.Source...)
	b = append(b, 0)
	if $ {
		b = b[:0]
	}
	b = append(b, e.ID...)
`,
	}}, false},
	{"a partition is taken without its ledger", nil, []edit{{
		"worker/partition.go", "\terr := p.store.Load(ctx, p.number, func(e ledger.Entry) error {\n", `
	if $ {
		return nil
	}
	err := p.store.Load(ctx, p.number, func(e ledger.Entry) error {
`,
	}}, false},
	{"a snapshot is complete before all its parts are there", nil, []edit{{
		"ledger/snapshot.go", "if s.Open() && len(s.Parts) == s.Of {", "if s.Open() && (len(s.Parts) == s.Of || $) {",
	}}, false},
	{"a snapshot is recorded before its figures", []string{storeTrouble, killWorker}, []edit{{
		"worker/partition.go", "\tif err := p.store.Write(ctx, p.number, w.list[:keepers]); err != nil {\n", `
	if $ {
		if err := p.store.Write(ctx, p.number, w.list[keepers:]); err != nil {
			return err
		}
		return p.store.Write(ctx, p.number, w.list[:keepers])
	}
	if err := p.store.Write(ctx, p.number, w.list[:keepers]); err != nil {
`,
	}}, false},
	{"a hand-over does not wait for calls", []string{stopWorker, slow}, []edit{
		{"worker/membership.go", "if len(busy) == 0 || limit.Err() != nil {", "if len(busy) == 0 || limit.Err() != nil || $ {"},
		{"worker/worker.go", "if n := p.cut.Load(); n > 0 && context.Cause(fenced) == nil {", "if n := p.cut.Load(); n > 0 && context.Cause(fenced) == nil && !$ {"},
	}, false},
	{"calls begin on a lease that may end before them", nil, []edit{{
		"worker/tenure.go", "return !t.ceded.Load() && t.age(time.Now()) < t.sending", "return !t.ceded.Load() && (t.age(time.Now()) < t.sending || $)",
	}}, true},
	{"what is recorded too late is acked", nil, []edit{{
		"worker/tenure.go", "{ return t.age(time.Now()) < t.writing }", "{ return t.age(time.Now()) < t.writing || $ }",
	}}, true},
}

// plantedEnv names the fault that shows.
const plantedEnv = "USAGEBRIDGE_PLANTED_FAULT"

func TestAFaultOfTheProgramIsFound(t *testing.T) {
	t.Parallel()
	binary := buildWithGrafts(t)
	t.Run("without a fault nothing is found", func(t *testing.T) {
		t.Parallel()
		if out, found := sailGrafted(t, binary, graft{}, 50); found {
			t.Errorf("the program with all faults asleep: got\n%s\nwant nothing", out)
		}
	})
	for _, g := range grafts {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			out, found := sailGrafted(t, binary, g, mostVoyages)
			if !found {
				t.Fatalf("no voyage of %d found the fault:\n%s", mostVoyages, out)
			}
			t.Log(out)
		})
	}
}

// rapidFound is what rapid says of a property that does not hold.
var rapidFound = regexp.MustCompile(`\[rapid\] (?:failed|panic|flaky).*`)

// sailGrafted makes voyages with the program in which the fault shows.
func sailGrafted(t *testing.T, binary string, g graft, voyages int) (out string, found bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	test := "^TestTheNewestFigureStandsWhateverBecomesOfTheWorkers$"
	if g.loss {
		test = "^TestAWorkerThatLosesItsLeaseDisturbsNobody$"
	}
	run := exec.CommandContext(ctx, binary, "-test.run="+test,
		"-rapid.nofailfile", "-rapid.shrinktime=1ms", fmt.Sprint("-rapid.checks=", voyages))
	if len(g.weather) > 0 {
		run.Args = append(run.Args, "-fleet.weather="+strings.Join(g.weather, ","))
	}
	run.Env = append(os.Environ(), plantedEnv+"="+g.name)
	text, err := run.CombinedOutput()
	said := rapidFound.FindString(string(text))
	if err != nil && said == "" {
		t.Fatalf("voyages with the fault: %v\n%s", err, text)
	}
	if said == "" {
		said = string(text)
	}
	return said, err != nil
}

// buildWithGrafts builds this package's tests with every fault in it, asleep.
func buildWithGrafts(t *testing.T) (binary string) {
	t.Helper()
	dir, texts, replace := t.TempDir(), map[string]string{}, map[string]string{}
	for _, g := range grafts {
		for _, e := range g.edits {
			path, err := filepath.Abs(filepath.Join("..", e.file))
			if err != nil {
				t.Fatal(err)
			}
			if texts[path] == "" {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				texts[path] = string(text)
			}
			if n := strings.Count(texts[path], e.old); n != 1 {
				t.Fatalf("%s, %s: the snippet is there %d times, want once:\n%s", g.name, e.file, n, e.old)
			}
			woken := strings.ReplaceAll(e.new, "$", fmt.Sprintf("planted(%q)", g.name))
			texts[path] = strings.Replace(texts[path], e.old, woken, 1)
			switchFile := filepath.Join(filepath.Dir(path), "planted.go")
			texts[switchFile] = "package " + filepath.Base(filepath.Dir(path)) + "\n\nimport \"os\"\n\n" +
				"func planted(fault string) bool { return fault == plantedFault }\n\nvar plantedFault = os.Getenv(\"" + plantedEnv + "\")\n"
		}
	}
	for path, text := range texts {
		replace[path] = filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	table, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, table, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "planted.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay="+overlay, "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with the faults: %v\n%s", err, out)
	}
	return binary
}
