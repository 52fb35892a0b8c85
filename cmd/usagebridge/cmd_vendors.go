package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) vendorsCommand() *cobra.Command {
	return group("vendors", "Vendors that are set up, and what holds for all figures of one",
		c.vendorsList(), c.vendorsShow(), c.vendorsStop(), c.vendorsResume(), c.vendorsGuard(), c.vendorsCutoff(),
		c.vendorsTemplate())
}

func (c *cli) vendorsList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List vendors with the size of their logs, and whether their events are folded",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withApp(cmd.Context(), c.listVendors)
		},
	}
}

func (c *cli) vendorsShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show VENDOR",
		Short: "Show one vendor: its log, whether its events are folded, guards, and what waits for a person",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withVendor(cmd.Context(), args[0], func(ctx context.Context, a *app, v broker.Vendor) error {
				view, err := a.describeVendor(ctx, v)
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(view)
				}
				return c.table(nil, view.rows(time.Now()))
			})
		},
	}
}

func (c *cli) vendorsStop() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "stop VENDOR --why TEXT",
		Short: "Fold none of a vendor's events until it is resumed; they wait in the log",
		Long: `Stops the folding of a vendor's events on every worker. What publishers send is
kept in the log and folded once somebody resumes the vendor; no event is lost and
none becomes a dead letter meanwhile. Figures that are in the ledger already go on
to be delivered: pause an integration to stop that.

A worker does the same by itself when too many of a vendor's events are dead
(USAGEBRIDGE_DEAD_LETTER_SHARE).`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return usagef("--why is missing: whoever is on call next will want to know")
			}
			word := stop{By: operator(), Why: why, At: time.Now().UTC()}
			return c.ruleVendor(cmd.Context(), args[0], action{Action: "stopped", Why: why}, func(r *vendorRecord) error {
				if r.Stopped != nil {
					return errNothingToDo
				}
				r.Stopped = &word
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

func (c *cli) vendorsResume() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "resume VENDOR --why TEXT",
		Short: "Fold a vendor's events again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return usagef("--why is missing: say what has been mended")
			}
			return c.ruleVendor(cmd.Context(), args[0], action{Action: "resumed", Why: why}, func(r *vendorRecord) error {
				if r.Stopped == nil {
					return errNothingToDo
				}
				r.Stopped = nil
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

// maxJump is the largest factor of a guard. What is greater guards nothing.
const maxJump = 1e9

func (c *cli) vendorsGuard() *cobra.Command {
	var service, why string
	var factor float64
	var off bool
	cmd := &cobra.Command{
		Use:   "guard VENDOR --service SERVICE (--factor F | --off) --why TEXT",
		Short: "Have counts of a service wait for approval when they jump",
		Long: `With a factor F, a count of the service that is more than F times the count before
it, or less than 1/F of it, waits for a person (usagebridge approvals). Counts
below one unit are taken as one unit: from nothing to a few is no jump. The guard
is for counts that come from now on; --off removes it, and what waits goes on
waiting. What a snapshot sets to 0 by not naming it is no count: for that there are
the limits SNAPSHOT_ZERO_SHARE and SNAPSHOT_ZERO_KEYS.`,
		Example: `  usagebridge vendors guard acme --service backup --factor 10 --why "500 seats became 50000 in May"
  usagebridge vendors guard acme --service backup --off --why "seats are sold in thousands now"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			given := cmd.Flags().Changed("factor")
			var errs []error
			if service == "" {
				errs = append(errs, errors.New("--service is missing: want the id of the service to guard"))
			}
			if given == off {
				errs = append(errs, errors.New("want either --factor F or --off"))
			} else if given && !(factor > 1 && factor <= maxJump) {
				errs = append(errs, fmt.Errorf("--factor %v: want a number greater than 1, such as 10, at most %g", factor, maxJump))
			}
			if why == "" {
				errs = append(errs, errors.New("--why is missing: whoever is on call next will want to know"))
			}
			if err := errors.Join(errs...); err != nil {
				return usageError{err}
			}
			return c.setGuard(cmd.Context(), args[0], service, factor, why)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&service, "service", "", "id of the service")
	flags.Float64Var(&factor, "factor", 0, "by how much a count may differ from the one before, greater than 1")
	flags.BoolVar(&off, "off", false, "remove the guard of the service")
	flags.StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

// setGuard sets the factor of a service; 0 removes it.
func (c *cli) setGuard(ctx context.Context, vendor, service string, factor float64, why string) error {
	done := action{Action: "guard removed", Object: service, Why: why}
	if factor > 0 {
		done.Action, done.Detail = "guarded", "factor "+factorText(factor)
	}
	return c.withVendor(ctx, vendor, func(ctx context.Context, a *app, v broker.Vendor) error {
		if factor > 0 {
			if err := c.noteUnknownService(ctx, a, v, service); err != nil {
				return err
			}
		}
		return c.rule(ctx, a, v, done, func(r *vendorRecord) error {
			if r.Jump[service] == factor {
				return errNothingToDo
			}
			jump := maps.Clone(r.Jump)
			if jump == nil {
				jump = map[string]float64{}
			}
			if jump[service] = factor; factor == 0 {
				delete(jump, service)
			}
			r.Jump = jump
			return nil
		})
	})
}

// noteUnknownService says that a guard may be for a service with a mistyped id.
func (c *cli) noteUnknownService(ctx context.Context, a *app, v broker.Vendor, service string) error {
	known := errors.New("known")
	err := a.eachEntry(ctx, v, "", func(e *ledger.Entry) error {
		if e.Key.Kind.Figure() && e.Key.Service == service {
			return known
		}
		return nil
	})
	if errors.Is(err, known) {
		return nil
	}
	if err == nil {
		c.say("note: no event of vendor %s has named the service %s yet", v.Name, printable(service))
	}
	return err
}

func factorText(factor float64) string { return strconv.FormatFloat(factor, 'f', -1, 64) }

// ruleVendor changes what holds for a vendor that is set up.
func (c *cli) ruleVendor(ctx context.Context, name string, done action, change func(*vendorRecord) error) error {
	return c.withVendor(ctx, name, func(ctx context.Context, a *app, v broker.Vendor) error {
		return c.rule(ctx, a, v, done, change)
	})
}

// rule changes what holds for a vendor in the name of the person at the
// terminal, and puts it on record.
func (c *cli) rule(ctx context.Context, a *app, v broker.Vendor, done action, change func(*vendorRecord) error) error {
	what := done.Action
	if done.Object != "" {
		what = fmt.Sprintf("service %s: %s", printable(done.Object), done.Action)
	}
	err := a.changeVendor(ctx, v.Name, change)
	if errors.Is(err, errNothingToDo) {
		c.say("vendor %s: %s already", v.Name, what)
		return nil
	}
	if err != nil {
		return fmt.Errorf("vendor %s: %w", v.Name, err)
	}
	done.Actor, done.Vendor, done.At = operator(), v.Name, time.Now().UTC()
	if err := a.audit(ctx, done); err != nil {
		return fmt.Errorf("vendor %s: %s, but that is not on record: %w", v.Name, what, err)
	}
	if done.Detail != "" {
		what += ", " + done.Detail
	}
	c.say("vendor %s: %s", v.Name, what)
	return nil
}

// withVendor does something with a vendor that is set up.
func (c *cli) withVendor(ctx context.Context, name string, do func(context.Context, *app, broker.Vendor) error) error {
	return c.withApp(ctx, func(ctx context.Context, a *app) error {
		v, err := a.knownVendor(ctx, name)
		if err != nil {
			return err
		}
		return do(ctx, a, v)
	})
}

// knownVendor is the vendor of that name; an unknown one is a wrong argument.
func (a *app) knownVendor(ctx context.Context, name string) (broker.Vendor, error) {
	v, err := a.broker.Vendor(ctx, name)
	if errors.Is(err, broker.ErrNoVendor) {
		return v, usagef("vendor %q is not set up; `usagebridge vendors ls` lists those that are", name)
	}
	return v, err
}

// vendorRecords is what holds for vendors, by their names.
func (a *app) vendorRecords(ctx context.Context) (map[string]vendorRecord, error) {
	bucket, err := broker.OpenBucket[vendorRecord](ctx, a.broker, broker.BucketVendors)
	if err != nil {
		return nil, err
	}
	all, err := bucket.All(ctx)
	if err != nil {
		return nil, err
	}
	records := make(map[string]vendorRecord, len(all))
	for key, record := range all {
		if name, err := event.Unescape(key); err == nil {
			records[name] = record
		}
	}
	return records, nil
}

// What a vendor's events do.
const (
	vendorFolded  = "folded"  // they change the ledger
	vendorStopped = "stopped" // they wait in the log
)

// vendorView is a vendor as programs see it.
type vendorView struct {
	Name       string             `json:"name"`
	Partitions int                `json:"partitions"`
	Replicas   int                `json:"replicas"`
	Created    time.Time          `json:"created"`
	Messages   uint64             `json:"messages"` // in the log
	Bytes      uint64             `json:"bytes"`    // of the log
	State      string             `json:"state"`
	Stopped    *stop              `json:"stopped,omitempty"` // by whom and why, if it is
	Guards     map[string]float64 `json:"guards,omitempty"`  // by service the factor from which on a count has jumped
	Cutoff     *cutoff            `json:"cutoff,omitempty"`
}

func viewVendor(v broker.Vendor, record vendorRecord) vendorView {
	view := vendorView{
		Name: v.Name, Partitions: v.Partitions, Replicas: v.Replicas, Created: v.Created, Messages: v.Messages, Bytes: v.Bytes,
		State: vendorFolded, Stopped: record.Stopped, Guards: record.Jump, Cutoff: record.Cutoff,
	}
	if view.Stopped != nil {
		view.State = vendorStopped
	}
	return view
}

// line says what the vendor's events do, and if they do nothing why.
func (v *vendorView) line(now time.Time, most int) string {
	if v.Stopped == nil {
		return v.State
	}
	return fmt.Sprintf("%s %s: %s", v.State, ago(v.Stopped.At, now), printable(cut(v.Stopped.Why, most)))
}

func (c *cli) listVendors(ctx context.Context, a *app) error {
	found, err := a.broker.Vendors(ctx)
	if err != nil {
		return err
	}
	list := make([]vendorView, len(found))
	if len(found) > 0 {
		records, err := a.vendorRecords(ctx)
		if err != nil {
			return err
		}
		for i, v := range found {
			list[i] = viewVendor(v, records[v.Name])
		}
	}
	if c.json {
		return c.printJSON(list)
	}
	if len(list) == 0 {
		c.say("no vendor is set up: run `usagebridge init --vendor NAME`")
		return nil
	}
	now := time.Now()
	rows := make([][]string, len(list))
	for i, v := range list {
		rows[i] = []string{
			v.Name, strconv.Itoa(v.Partitions), strconv.Itoa(v.Replicas),
			strconv.FormatUint(v.Messages, 10), byteSize(v.Bytes), ago(v.Created, now), v.line(now, 36),
		}
	}
	return c.table([]string{"VENDOR", "PARTITIONS", "REPLICAS", "MESSAGES", "SIZE", "CREATED", "STATE"}, rows)
}

// vendorPicture is everything that is known of a vendor as a whole.
type vendorPicture struct {
	vendorView

	Owned       int              `json:"partitions_owned"` // by a worker
	Workers     map[string][]int `json:"workers"`          // that are alive, or have partitions: which
	NotFolded   uint64           `json:"messages_not_folded"`
	DeadLetters int              `json:"dead_letters"`
	Approvals   int              `json:"approvals"` // that wait for a person
}

func (a *app) describeVendor(ctx context.Context, v broker.Vendor) (*vendorPicture, error) {
	records, err := a.vendorRecords(ctx)
	if err != nil {
		return nil, err
	}
	p := &vendorPicture{vendorView: viewVendor(v, records[v.Name])}
	owners, err := a.broker.Owners(ctx, v.Name)
	if err != nil {
		return nil, err
	}
	p.Owned = len(owners)
	if p.Workers, err = a.workers(ctx, owners); err != nil {
		return nil, err
	}
	if p.NotFolded, err = a.broker.Backlog(ctx, v.Name); err != nil {
		return nil, err
	}
	err = a.letters(ctx, deadletter.Filter{Vendor: v.Name}, func(broker.StoredLetter) error {
		p.DeadLetters++
		return nil
	})
	if err != nil {
		return nil, err
	}
	waiting, err := a.approvals(ctx, syncChoice{vendor: v.Name})
	p.Approvals = len(waiting)
	return p, err
}

// workers says of every worker that is alive, and of every one that has a
// partition, which it has.
func (a *app) workers(ctx context.Context, owners map[int]string) (map[string][]int, error) {
	alive, err := a.broker.Members(ctx)
	if err != nil {
		return nil, err
	}
	workers := map[string][]int{}
	for _, id := range alive {
		workers[id] = []int{}
	}
	for _, partition := range slices.Sorted(maps.Keys(owners)) {
		id := owners[partition]
		workers[id] = append(workers[id], partition)
	}
	return workers, nil
}

// rows is the picture for people.
func (p *vendorPicture) rows(now time.Time) [][]string {
	rows := [][]string{
		{"vendor", p.Name},
		{"state", p.line(now, math.MaxInt)},
	}
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if s := p.Stopped; s != nil {
		add("stopped by", "%s at %s", printable(s.By), s.At.UTC().Format(time.RFC3339))
		add("resume", "`usagebridge vendors resume %s --why …` once that is mended", p.Name)
	}
	add("partitions", "%d, %d of them with a worker", p.Partitions, p.Owned)
	for _, id := range slices.Sorted(maps.Keys(p.Workers)) {
		if has := p.Workers[id]; len(has) > 0 {
			add("worker", "%s has %d: %s", printable(id), len(has), strings.Trim(fmt.Sprint(has), "[]"))
		} else {
			add("worker", "%s has none of them", printable(id))
		}
	}
	add("log", "%s, %s, %s, created %s", plural(int(p.Messages), "message", "messages"), byteSize(p.Bytes),
		plural(p.Replicas, "replica", "replicas"), ago(p.Created, now))
	add("not folded", "%s", plural(int(p.NotFolded), "message", "messages"))
	for _, service := range slices.Sorted(maps.Keys(p.Guards)) {
		factor := factorText(p.Guards[service])
		add("guard", "service %s: more than %s times the count before, or less than 1/%s of it, waits for approval", printable(service), factor, factor)
	}
	if p.Cutoff != nil {
		if at, err := p.Cutoff.next(now); err == nil {
			add("billing cut-off", "%s: next in %s", p.Cutoff, briefly(at.Sub(now)))
		}
	}
	if p.DeadLetters > 0 {
		add("dead letters", "%d: see `usagebridge dlq ls --vendor %s`", p.DeadLetters, p.Name)
	} else {
		add("dead letters", "none")
	}
	if p.Approvals > 0 {
		add("approvals", "%d: see `usagebridge approvals ls --vendor %s`", p.Approvals, p.Name)
	} else {
		add("approvals", "none")
	}
	return rows
}

// byteSize writes a size as people read it, in powers of 1024.
func byteSize(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
