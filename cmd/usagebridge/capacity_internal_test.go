//go:build !race

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"pgregory.net/rapid"
)

//go:generate go test -run TestCapacityTheTablesOfTheCapacityDocumentAreCurrent -update .

const capacityDocument = "../../deploy/capacity.md"

// demandOf is the demand of a command line.
func demandOf(t *testing.T, args ...string) capacityDemand {
	t.Helper()
	var f capacityFlags
	cmd := &cobra.Command{}
	f.define(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	d, err := f.read()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func planOf(t *testing.T, args ...string) *capacityReport {
	t.Helper()
	costs, err := loadCosts("")
	if err != nil {
		t.Fatal(err)
	}
	report, err := planCapacity(demandOf(t, args...), costs)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// figure is the figure of a row; infinite: without end.
func figureOf(t *testing.T, r *capacityReport, id string) float64 {
	t.Helper()
	for i := range r.Rows {
		switch {
		case r.Rows[i].ID != id:
		case r.Rows[i].Figure == nil:
			return math.Inf(1)
		default:
			return *r.Rows[i].Figure
		}
	}
	t.Fatalf("no row %q", id)
	return 0
}

func TestCapacityTheSimulationOfAnOutageAgreesWithTheFormulas(t *testing.T) {
	for _, c := range []struct {
		args            string
		partner, bridge float64 // tolerance
	}{
		{"", 0.15, 0.15},
		{"--changes=0.2/h", 0.15, 0.15},
		{"--distribution=even --outage=30m", 0.15, 0.15},
		{"--integrations=100 --keys-per-integration=1000 --events-per-second=500 --rate=10 --outage=1h", 0.15, 0.15},
		{"--integrations=50 --events-per-second=2000 --rate=50 --workers=1 --partitions=16 --sync=2m", 0.15, 0.15},
		{"--skew=0.3 --events-per-second=5000 --linger=5s", 0.3, 0.3},
		{"--cores=1 --workers=16 --partitions=64 --outage=1h", 0.3, 0.3}, // the processor is the limit
		{"--vendors=20 --events-per-second=100000 --workers=20 --sync=2m", 0.3, 0.3},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := planOf(t, strings.Fields(c.args)...)
			for id, tolerance := range map[string]float64{"drain-partner": c.partner, "drain-bridge": c.bridge} {
				simulated, formula := figureOf(t, r, id), figureOf(t, r, id+"-formula")
				if math.IsInf(simulated, 1) || math.Abs(simulated/formula-1) > tolerance {
					t.Errorf("%s: simulated %.0f s, by formula %.0f s: want them within %.0f %%", id, simulated, formula, 100*tolerance)
				}
			}
		})
	}
}

func TestCapacityWhatNeverEndsIsSaidToBeWithoutEnd(t *testing.T) {
	r := planOf(t, "--rate=10", "--events-per-second=50000")
	if got := figureOf(t, r, "integrations-behind"); got != 1000 {
		t.Errorf("50 events/s of different keys, 10 calls/s: %v integrations are behind, want 1000", got)
	}
	for _, id := range []string{"drain-partner", "drain-bridge", "latency"} {
		if got := figureOf(t, r, id); !math.IsInf(got, 1) {
			t.Errorf("%s takes %v s, want it without end", id, got)
		}
	}
	if short := strings.Join(r.short(), " "); !strings.Contains(short, "calls drain-partner drain-bridge") {
		t.Errorf("short are %s, want calls and both drains among them", short)
	}
	r = planOf(t, "--rate=10", "--skew=1", "--events-per-second=2000", "--changes=0.2/h")
	if got := figureOf(t, r, "integrations-behind"); got <= 0 || got >= 50 {
		t.Errorf("of integrations of very different sizes %v are behind, want the few largest ones", got)
	}
}

func TestCapacityMoreOfAnythingNeedsMore(t *testing.T) {
	for _, c := range []struct{ id, less, more string }{
		{"workers", "", "--events-per-second=100000"},
		{"cores", "--changes=0.2/h", ""},
		{"memory", "--workers=8 --partitions=64", "--workers=8 --partitions=64 --keys-per-integration=50000"},
		{"storage-events", "", "--event-bytes=600"},
		{"drain-partner", "--changes=0.2/h --outage=1h", "--changes=0.2/h --outage=4h"},
		{"drain-partner", "--rate=200", ""},
		{"drain-bridge", "--outage=1h", "--outage=8h"},
		{"calls", "--linger=10s", ""},
		{"latency", "", "--linger=10s"},
		{"take-over", "--lease-ttl=5s", ""},
		{"partition-share", "--partitions=64", "--partitions=16"},
		{"partition-share", "", "--skew=0.8"},
		{"publish-limit", "", "--sync=2m"},
	} {
		less, more := figureOf(t, planOf(t, strings.Fields(c.less)...), c.id), figureOf(t, planOf(t, strings.Fields(c.more)...), c.id)
		if less >= more {
			t.Errorf("%s is %v with %q and %v with %q: want it to be less", c.id, less, c.less, more, c.more)
		}
	}
}

func TestCapacityTheSameSeedGivesTheSameReport(t *testing.T) {
	args := []string{"--integrations=200", "--events-per-second=2000"}
	if a, b := mustJSON(t, planOf(t, args...)), mustJSON(t, planOf(t, args...)); a != b {
		t.Errorf("two runs differ:\n%s\n%s", a, b)
	}
	other := planOf(t, append(args, "--seed=2")...)
	if a, b := planOf(t, args...).Spread, other.Spread; a == b {
		t.Errorf("another seed gives the same draws: %+v", a)
	}
}

func mustJSON(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCapacityEventsHitAsManyKeysAsDrawingThemDoes(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	const keys = 5000
	for name, c := range map[string]struct {
		p    popularity
		draw func() uint64
	}{
		"zipf": {zipfPopularity(keys, 1.1), rand.NewZipf(random, 1.1, zipfShift, keys-1).Uint64},
		"even": {evenPopularity(keys), func() uint64 { return random.Uint64N(keys) }},
	} {
		for _, events := range []int{10, 300, 5000, 100_000} {
			sum, rounds := 0, 20
			for range rounds {
				hit := map[uint64]struct{}{}
				for range events {
					hit[c.draw()] = struct{}{}
				}
				sum += len(hit)
			}
			drawn, want := float64(sum)/float64(rounds), c.p.distinct(float64(events))
			if math.Abs(drawn-want) > 0.03*want {
				t.Errorf("%s: %d events hit %.0f keys, reckoned %.0f", name, events, drawn, want)
			}
		}
	}
}

func TestCapacityDistinctKeysAreNoMoreThanEventsAndKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.IntRange(1, 100_000).Draw(t, "keys")
		p := zipfPopularity(keys, rapid.Float64Range(0.1, 4).Draw(t, "s"))
		events := rapid.Float64Range(0, 1e7).Draw(t, "events")
		if got := p.distinct(events); got > events*1.000001 || got > float64(keys)*1.000001 {
			t.Fatalf("%v events hit %v of %d keys", events, got, keys)
		}
	})
}

func TestCapacityAShareOfABatchComesOutAsItWentIn(t *testing.T) {
	for _, share := range []float64{0.05, 0.3, 0.9} {
		p, err := parseDistribution(strconv.FormatFloat(share, 'f', -1, 64), 1_000_000, 400)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.distinct(400) / 400; math.Abs(got-share) > 0.01 {
			t.Errorf("of a batch %.2f are the first of their key, want %.2f", got, share)
		}
	}
}

func TestCapacityPartitionsAreAsUnevenAsChanceMakesThem(t *testing.T) {
	d := capacityDemand{Integrations: 1, Vendors: 1, Seed: 1}
	if s := spreadOf(&d, 16, 4); math.Abs(s.Partition-1) > 1e-9 || math.Abs(s.Worker-1) > 1e-9 {
		t.Errorf("one integration gives the busiest partition %v, the busiest worker %v: want all", s.Partition, s.Worker)
	}
	d.Integrations = 1000
	s := spreadOf(&d, 16, 4)
	// Of 1000 balls in 16 boxes the fullest has 77 on average; two of four
	// workers' shares of them hardly differ.
	if s.Partition < 0.074 || s.Partition > 0.081 || s.Worker < 0.25 || s.Worker > 0.29 || s.PartitionHigh < s.Partition {
		t.Errorf("1000 integrations in 16 partitions of 4 workers: %+v, want about 7.7 %% in the busiest partition", s)
	}
	for range 20 {
		l := drawLayout(&d, 16, 5, rand.New(rand.NewPCG(3, 3)))
		each := map[int]int{}
		for _, w := range l.worker {
			each[w]++
		}
		for w := range 5 {
			if each[w] < 3 || each[w] > 4 {
				t.Fatalf("worker %d has %d of 16 partitions, want 3 or 4", w, each[w])
			}
		}
	}
}

func TestCapacityTheModelReckonsWithTheDefaultsOfTheConfiguration(t *testing.T) {
	want := map[string]string{
		"FOLD_BATCH": strconv.Itoa(modelFoldBatch), "FOLD_WAIT": seconds(modelFoldWait), "LAG_WAIT": seconds(modelLagWait),
		"RETRY_MIN": seconds(demandOf(t).RetryMin), "RETRY_MAX": seconds(modelRetryMax),
		"LINGER": seconds(demandOf(t).Linger), "PARTNER_CONCURRENCY": strconv.Itoa(demandOf(t).Concurrency),
	}
	for _, s := range (&Config{}).settings() {
		name := strings.TrimPrefix(s.Name, envPrefix+"_")
		if d, err := time.ParseDuration(s.Default); err == nil && want[name] != "" {
			s.Default = d.String()
		}
		if want[name] != "" && s.Default != want[name] {
			t.Errorf("%s is %s by default, the model has %s", name, s.Default, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("the configuration has no %v", want)
	}
}

func seconds(x float64) string { return time.Duration(x * float64(time.Second)).String() }

func TestCapacityCostsThatAreNoReportAreRefused(t *testing.T) {
	change := func(edit func(*benchReport)) string {
		var r benchReport
		if err := json.Unmarshal(builtInCosts, &r); err != nil {
			t.Fatal(err)
		}
		edit(&r)
		return mustJSON(t, r)
	}
	for want, data := range map[string]string{
		"want what `usagebridge bench --json` prints": "publish 10000",
		"no row publish, fetch, fold, fold-synced":    "{}",
		"row calls lacks cpu_us, keys or writes_per":  change(func(r *benchReport) { r.row("calls").CPU = 0 }),
		"row memory lacks cpu_us, keys or writes_per": change(func(r *benchReport) { r.row("memory").Keys = 0 }),
		"row cost-spread lacks cpu_us, keys or":       change(func(r *benchReport) { r.row("cost-spread").Writes = 0.01 }),
	} {
		path := filepath.Join(t.TempDir(), "costs.json")
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadCosts(path)
		if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("costs %.40q…: %v, want a usage error that says %q", data, err, want)
		}
	}
	if _, err := loadCosts(filepath.Join(t.TempDir(), "none")); exitCode(err) != exitUsage {
		t.Errorf("a file that is not there: %v, want a usage error", err)
	}
}

func TestCapacityCostsAreWhatTheReportSays(t *testing.T) {
	c, err := loadCosts("")
	if err != nil {
		t.Fatal(err)
	}
	var r benchReport
	if err := json.Unmarshal(builtInCosts, &r); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"cost-few", "cost-spread"} {
		if row := r.row(id); math.Abs(c.fold(row.Writes)-row.Figure) > 0.01*row.Figure {
			t.Errorf("%s: the costs give %.1f µs, measured %.1f", id, c.fold(row.Writes), row.Figure)
		}
	}
	memory := r.row("memory")
	if got := (workerBase + c.Key*float64(memory.Keys)) / float64(memory.Keys); math.Abs(got-memory.Figure) > 1 {
		t.Errorf("memory: the costs give %.0f bytes/key, measured %.0f", got, memory.Figure)
	}
	// A row that was in neither equation: what the load of the row fold costs.
	if row := r.row("fold"); math.Abs(c.fold(row.Writes)-row.CPU) > 0.35*row.CPU {
		t.Errorf("fold: the costs give %.1f µs, measured %.1f", c.fold(row.Writes), row.CPU)
	}
}

// capacityExample runs the command.
func capacityExample(t *testing.T, args ...string) string {
	t.Helper()
	var out, talk bytes.Buffer
	if code := run(t.Context(), append([]string{"capacity"}, args...), strings.NewReader(""), &out, &talk); code != exitDone {
		t.Fatalf("capacity %s exits %d: %s", args, code, talk.String())
	}
	return out.String()
}

func TestCapacityTheTablesOfTheCapacityDocumentAreCurrent(t *testing.T) {
	text, err := os.ReadFile(capacityDocument)
	if err != nil {
		t.Fatal(err)
	}
	want := replaceBetween(t, string(text), "example", "```\n$ usagebridge capacity\n"+capacityExample(t)+"```\n")
	want = replaceBetween(t, want, "variants", capacityVariants(t))
	if *update {
		if err := os.WriteFile(capacityDocument, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("deploy/capacity.md: the tables differ from what the command prints; run `make generate`")
	}
}

// capacityVariants is the table of what changes the example, and how.
func capacityVariants(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| the example with | workers | cores | calls/s | a log takes | partner back after 4 h | bridge back after 4 h | latency |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, args := range []string{
		"", "--linger 30s", "--changes 0.2/h --rate 10", "--sync 2m --vendors 4", "--skew 0.5",
	} {
		r := planOf(t, strings.Fields(args)...)
		if args = "`" + args + "`"; args == "``" {
			args = "nothing changed"
		}
		fmt.Fprintf(&b, "| %s |", args)
		for _, id := range []string{"workers", "cores", "calls", "publish-limit", "drain-partner", "drain-bridge", "latency"} {
			for i := range r.Rows {
				if row := &r.Rows[i]; row.ID == id {
					fmt.Fprintf(&b, " %s |", strings.TrimSuffix(row.figure(), " "+row.Unit))
				}
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
