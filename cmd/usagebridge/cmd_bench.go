package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// benchOptions is how large a benchmark is. The marks are meant for the
// defaults.
type benchOptions struct {
	load      benchLoad
	calls     int // to the partner that takes its time
	inFlight  int
	idleKeys  int
	fewKeys   int
	manyKeys  int
	idleFor   time.Duration
	dir       string
	partnerMS int
	only      []string // parts; empty: all
}

// benchParts are what can be measured alone.
var benchParts = []string{"fold", "fold-synced", "end-to-end", "calls", "idle", "growth", "take-over"}

func (c *cli) benchCommand() *cobra.Command {
	o := benchOptions{
		load:  benchLoad{Events: 200_000, Keys: 20_000, Integrations: 20, Duplicates: 0.1, EventBytes: 300, Partitions: 16},
		calls: 20_000, inFlight: 256, idleKeys: 100_000, fewKeys: 10_000, manyKeys: 1_000_000, idleFor: 20 * time.Second, partnerMS: 20,
	}
	var scale float64
	var check bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what this machine can do, against what NATS and HTTP alone can",
		Long: `Measures, one after the other on an embedded NATS server in a temporary
directory, how fast events are stored, fetched, folded and delivered, what keys
cost in memory, and how long a take-over takes. What counts are the ratios: all
figures come from the same run on the same machine, with nothing else running.

Every row that has a mark says whether it is met. It takes a few minutes and
about 2 GB of disk; --scale 0.05 looks whether it works at all. "usagebridge
capacity" reckons with what it measures: usagebridge bench --json > costs.json.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if scale <= 0 || scale > 10 {
				return usagef("--scale %v: want more than 0, at most 10", scale)
			}
			for _, name := range o.only {
				if !slices.Contains(benchParts, name) {
					return usagef("--only %s: want some of %s", name, strings.Join(benchParts, ", "))
				}
			}
			o.scale(scale)
			report, err := c.bench(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := c.showBench(report); err != nil {
				return err
			}
			if missed := report.missed(); check && len(missed) > 0 {
				return fmt.Errorf("%d marks are missed: %s", len(missed), strings.Join(missed, ", "))
			}
			return nil
		},
	}
	cmd.Flags().Float64Var(&scale, "scale", 1, "size of the whole, 1 being what the marks are meant for")
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 when a mark is missed")
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "measure only these: "+strings.Join(benchParts, ", "))
	cmd.Flags().StringVar(&o.dir, "dir", "", "directory for the temporary stores (default: that of the system)")
	return cmd
}

func (o *benchOptions) scale(by float64) {
	for _, n := range []*int{&o.load.Events, &o.load.Keys, &o.calls, &o.idleKeys, &o.fewKeys, &o.manyKeys} {
		*n = max(int(float64(*n)*by), 200)
	}
	o.idleFor = max(time.Duration(float64(o.idleFor)*min(by, 1)), time.Second)
}

// benchReport is what a benchmark has measured.
type benchReport struct {
	Version string     `json:"version"`
	Go      string     `json:"go"`
	CPUs    int        `json:"cpus"`
	Load    benchLoad  `json:"load"`
	Rows    []benchRow `json:"rows"`
}

// benchRow is one figure, and its ratio to another one of the same run.
type benchRow struct {
	ID     string  `json:"id"`
	What   string  `json:"what"`
	Figure float64 `json:"figure"`
	Unit   string  `json:"unit"`
	// Ratio to the row Of; 0: the figure stands for itself.
	Ratio float64 `json:"ratio,omitempty"`
	Of    string  `json:"of,omitempty"`
	// Mark is what the ratio, or the figure if there is none, should be at
	// least, or at most if AtMost is set; 0: none.
	Mark   float64 `json:"mark,omitempty"`
	AtMost bool    `json:"at_most,omitempty"`
	// CPU is the processor time for one event, of NATS and the worker
	// together, or for one call, of the partner as well; 0: not measured.
	CPU float64 `json:"cpu_us,omitempty"`
	// Keys is how many the ledger, or the load, had where that is what matters.
	Keys int `json:"keys,omitempty"`
	// Writes is how many entries of the ledger were written for one event.
	Writes float64 `json:"writes_per_event,omitempty"`
}

// judged is what the mark is compared with.
func (r *benchRow) judged() float64 {
	if r.Of != "" {
		return r.Ratio
	}
	return r.Figure
}

func (r *benchRow) met() bool {
	if r.AtMost {
		return r.judged() <= r.Mark
	}
	return r.judged() >= r.Mark
}

func (r *benchReport) missed() (ids []string) {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Mark != 0 && !row.met() {
			ids = append(ids, row.ID)
		}
	}
	return ids
}

func (r *benchReport) row(id string) *benchRow {
	for i := range r.Rows {
		if r.Rows[i].ID == id {
			return &r.Rows[i]
		}
	}
	return nil
}

// against adds a row whose figure is compared with that of another one.
func (r *benchReport) against(of string, row benchRow) {
	if other := r.row(of); other != nil && other.Figure != 0 {
		row.Of, row.Ratio = of, row.Figure/other.Figure
	}
	r.Rows = append(r.Rows, row)
}

func (r *benchReport) add(row benchRow) { r.Rows = append(r.Rows, row) }

// showBench prints the table, in the form of Markdown, as it stands in the README.
func (c *cli) showBench(report *benchReport) error {
	if c.json {
		return c.printJSON(report)
	}
	l := report.Load
	_, err := fmt.Fprintf(c.stdout, "%d events of %d bytes, %d keys, %.0f %% duplicates, %d partitions; %d CPUs, %s\n\n| what | measured | ratio | mark |  |\n| --- | ---: | --- | --- | --- |\n",
		l.Events, l.EventBytes, l.Keys, 100*l.Duplicates, l.Partitions, report.CPUs, report.Go)
	for i := range report.Rows {
		r := &report.Rows[i]
		ratio, mark, met := "", "", ""
		if r.Of != "" {
			ratio = fmt.Sprintf("%.2f of %s", r.Ratio, r.Of)
		}
		if r.Mark != 0 {
			mark, met = "≥ "+trimmed(r.Mark), "met"
			if r.AtMost {
				mark = "≤ " + trimmed(r.Mark)
			}
			if !r.met() {
				met = "**missed**"
			}
		}
		figure := trimmed(r.Figure)
		if r.Figure >= 1000 {
			figure = strconv.Itoa(int(r.Figure))
		}
		if err == nil {
			_, err = fmt.Fprintf(c.stdout, "| %s (%s) | %s %s | %s | %s | %s |\n", r.What, r.ID, figure, r.Unit, ratio, mark, met)
		}
	}
	return err
}

// trimmed is the number with at most two decimals.
func trimmed(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(f, 'f', 2, 64), "0"), ".")
}

// bench measures everything, each with nothing else running.
func (c *cli) bench(ctx context.Context, o benchOptions) (*benchReport, error) {
	config, err := loadConfig()
	if err != nil {
		return nil, err
	}
	if o.dir, err = os.MkdirTemp(o.dir, "usagebridge-bench-"); err != nil {
		return nil, fmt.Errorf("make a directory for the stores: %w", err)
	}
	defer func() { _ = os.RemoveAll(o.dir) }()
	paceCollector()
	b := &bench{cli: c, options: o, config: config, report: &benchReport{Version: version(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Load: o.load}}
	measures := []func(context.Context) error{b.fold, b.foldSynced, b.endToEnd, b.calls, b.idle, b.growth, b.takeOver}
	for i, part := range benchParts {
		if len(o.only) > 0 && !slices.Contains(o.only, part) {
			continue
		}
		c.say("measuring %s…", part)
		if err := measures[i](ctx); err != nil {
			return nil, fmt.Errorf("measure %s: %w", part, err)
		}
	}
	return b.report, nil
}

// bench is one run of the benchmark.
type bench struct {
	cli     *cli
	options benchOptions
	config  Config
	report  *benchReport
	sites   int
}

// site opens a server on a directory of its own.
func (b *bench) site(ctx context.Context, sync time.Duration, load benchLoad) (*benchSite, error) {
	b.sites++
	return openBenchSite(ctx, filepath.Join(b.options.dir, strconv.Itoa(b.sites)), b.config, sync, load)
}
