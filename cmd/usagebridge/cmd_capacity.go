package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// capacityFlags are the flags as they are typed.
type capacityFlags struct {
	demand                            capacityDemand
	latency, outage, linger, leaseTTL time.Duration
	memory, sync, costs               string
	check                             bool
}

func (c *cli) capacityCommand() *cobra.Command {
	var f capacityFlags
	cmd := &cobra.Command{
		Use:   "capacity",
		Short: "Reckon what an installation needs: workers, memory, storage, time after an outage",
		Long: `Reckons from measured costs what an installation needs, and says in plain words
what suffices and what does not. Outages are simulated in virtual time. Nothing
is connected to, and the environment is not read.

The costs that are built in were measured on two cores. For one's own machine:

  usagebridge bench --json > costs.json
  usagebridge capacity --costs costs.json

deploy/capacity.md says what is assumed and how far off it was.`,
		Example: `  usagebridge capacity
  usagebridge capacity --integrations 200 --keys-per-integration 5000 --events-per-second 2000 --rate 10 --changes 0.2/h
  usagebridge capacity --workers 4 --cores 4 --check`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := f.read()
			if err != nil {
				return err
			}
			costs, err := loadCosts(f.costs)
			if err != nil {
				return err
			}
			report, err := planCapacity(d, costs)
			if err != nil {
				return usageError{err}
			}
			if err := c.showCapacity(report); err != nil {
				return err
			}
			if short := report.short(); f.check && len(short) > 0 {
				return fmt.Errorf("%d verdicts are short: %s", len(short), strings.Join(short, ", "))
			}
			return nil
		},
	}
	f.define(cmd)
	return cmd
}

// define defines the flags. The defaults are the example of deploy/capacity.md.
func (f *capacityFlags) define(cmd *cobra.Command) {
	flags, d := cmd.Flags(), &f.demand
	d.RetryMin = 1 // as the configuration has it by default
	flags.IntVar(&d.Integrations, "integrations", 1000, "integrations, of all vendors")
	flags.IntVar(&d.Keys, "keys-per-integration", 10_000, "accounts times services of an integration that have figures")
	flags.Float64Var(&d.Events, "events-per-second", 50_000, "events at the peak, of all vendors")
	flags.Float64Var(&d.Mean, "mean-events-per-second", 0, "events over a day, for storage (default: a fifth of the peak)")
	flags.IntVar(&d.EventBytes, "event-bytes", 300, "size of an event's body")
	flags.StringVar(&d.Distribution, "distribution", "zipf:1.1", "how events fall on the keys of an integration: zipf:S, even, or the share of a batch's events that are the first of their key")
	flags.StringVar(&d.Changes, "changes", "", "share of the keys whose figure changes in an hour or a day, such as 0.2/h or 0.6/d (default: every event changes its key)")
	flags.Float64Var(&d.Skew, "skew", 0, "Zipf exponent of the integrations' sizes; 0: all are alike")
	flags.Float64Var(&d.Rate, "rate", 100, "calls per second for each integration (PARTNER_RATE); 0: no limit")
	flags.IntVar(&d.Concurrency, "concurrency", 16, "calls under way at once for each integration (PARTNER_CONCURRENCY)")
	flags.DurationVar(&f.latency, "partner-latency", 50*time.Millisecond, "time that the partner takes for a call")
	flags.IntVar(&d.Hosts, "hosts", 1, "servers of the partner that the integrations are spread over")
	flags.DurationVar(&f.outage, "outage", 4*time.Hour, "length of the outage, of the partner and then of the bridge, that is simulated")
	flags.IntVar(&d.Vendors, "vendors", 1, "vendors that the integrations are spread over")
	flags.IntVar(&d.Partitions, "partitions", 0, "partitions of each vendor, 1 to 256 (default: as many as are needed)")
	flags.IntVar(&d.Replicas, "replicas", 1, "copies of every stream: 1 or 3")
	flags.StringVar(&f.sync, "sync", "always", "sync_interval of the NATS servers: always, or a duration")
	flags.IntVar(&d.Workers, "workers", 0, "workers (default: as many as are needed)")
	flags.Float64Var(&d.Cores, "cores", 2, "cores of each worker")
	flags.StringVar(&f.memory, "memory", "4GiB", "memory of each worker, in MiB or GiB")
	flags.DurationVar(&f.linger, "linger", 200*time.Millisecond, "how long a changed figure waits for further changes (LINGER)")
	flags.DurationVar(&f.leaseTTL, "lease-ttl", 15*time.Second, "how long a worker that died keeps its partitions (init --lease-ttl)")
	flags.Uint64Var(&d.Seed, "seed", 1, "of the draws; the same seed gives the same result")
	flags.StringVar(&f.costs, "costs", "", "file with the costs, as `usagebridge bench --json` has written it (default: built in)")
	flags.BoolVar(&f.check, "check", false, "exit with 1 when something is short")
}

// bounds of what can be asked for.
const (
	mostIntegrations = 100_000
	mostKeys         = 1_000_000
	mostEventRate    = 1e8
	mostSeconds      = 35 * 24 * 3600
)

// read checks all flags at once.
func (f *capacityFlags) read() (d capacityDemand, err error) {
	d = f.demand
	d.Latency, d.Outage, d.Linger, d.LeaseTTL = f.latency.Seconds(), f.outage.Seconds(), f.linger.Seconds(), f.leaseTTL.Seconds()
	var errs []error
	within := func(flag string, x, least, most float64) {
		if !(x >= least && x <= most) { // as NaN is not
			errs = append(errs, fmt.Errorf("--%s %v: want %s to %s", flag, x, plain(least), plain(most)))
		}
	}
	within("integrations", float64(d.Integrations), 1, mostIntegrations)
	within("keys-per-integration", float64(d.Keys), 1, mostKeys)
	within("events-per-second", d.Events, 0.001, mostEventRate)
	within("mean-events-per-second", d.Mean, 0, d.Events)
	within("event-bytes", float64(d.EventBytes), 100, 960<<10)
	within("skew", d.Skew, 0, 3)
	within("rate", d.Rate, 0, 1e6)
	within("concurrency", float64(d.Concurrency), 1, 1024)
	within("hosts", float64(d.Hosts), 1, mostIntegrations)
	within("vendors", float64(d.Vendors), 1, float64(max(min(d.Integrations, 1000), 1)))
	within("partitions", float64(d.Partitions), 0, mostVendor)
	within("workers", float64(d.Workers), 0, mostVendor*1000)
	within("cores", d.Cores, 0.1, 256)
	for _, t := range []struct {
		flag        string
		x           time.Duration
		least, most time.Duration
	}{
		{"partner-latency", f.latency, 0, 12 * time.Second}, {"outage", f.outage, time.Second, mostSeconds * time.Second},
		{"linger", f.linger, 0, time.Hour}, {"lease-ttl", f.leaseTTL, time.Second, time.Minute},
	} {
		if t.x < t.least || t.x > t.most {
			errs = append(errs, fmt.Errorf("--%s %v: want %v to %v", t.flag, t.x, t.least, t.most))
		}
	}
	if d.Replicas != 1 && d.Replicas != 3 {
		errs = append(errs, fmt.Errorf("--replicas %d: want 1 or 3", d.Replicas))
	}
	if interval, err := time.ParseDuration(f.sync); f.sync != "always" && (err != nil || interval <= 0) {
		errs = append(errs, fmt.Errorf("--sync %q: want always, or a duration such as 2m", cut(f.sync, 40)))
	}
	d.Sync = f.sync == "always"
	if d.Memory, err = parseMemory(f.memory); err != nil {
		errs = append(errs, err)
	}
	_, err = parseDistribution(d.Distribution, 2, 2)
	_, changes := parseChanges(d.Changes)
	if err := errors.Join(append(errs, err, changes)...); err != nil {
		return d, usageError{err}
	}
	return d, nil
}

// plain is a number without an exponent.
func plain(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// parseMemory reads a size such as 512MiB or 4GiB.
func parseMemory(text string) (int64, error) {
	for unit, size := range map[string]float64{"MiB": 1 << 20, "GiB": 1 << 30} {
		if number, found := strings.CutSuffix(text, unit); found {
			if x, err := strconv.ParseFloat(number, 64); err == nil && x*size >= 1<<20 && x*size <= 1<<50 {
				return int64(math.Round(x * size)), nil
			}
		}
	}
	return 0, fmt.Errorf("--memory %q: want a size such as 512MiB or 4GiB", cut(text, 40))
}

// short lists the verdicts that say that something does not suffice.
func (r *capacityReport) short() (ids []string) {
	for _, v := range r.Verdicts {
		if v.Level == levelShort {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

func (c *cli) showCapacity(report *capacityReport) error {
	if c.json {
		return c.printJSON(report)
	}
	return report.write(c.stdout)
}

// write prints the figures, then the verdicts.
func (r *capacityReport) write(w io.Writer) error {
	d := &r.Demand
	sync := "sync_interval: always"
	if !d.Sync {
		sync = "flushed later"
	}
	_, err := fmt.Fprintf(w, "%s integrations × %s keys, %s events/s at the peak (%s), %s calls/s and integration, %s, %s; costs: %s\n\n",
		count(float64(d.Integrations)), count(float64(d.Keys)), count(d.Events), d.Distribution, count(d.Rate), copies(d.Replicas), sync, r.Costs.Source)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i := range r.Rows {
		row := &r.Rows[i]
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", row.ID, row.figure(), row.What)
	}
	_, _ = fmt.Fprintln(table)
	for _, v := range r.Verdicts {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", v.ID, v.Level, v.Text)
	}
	return errors.Join(err, table.Flush())
}
