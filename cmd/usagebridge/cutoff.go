package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	_ "time/tzdata" // the image has no time zones of its own

	"github.com/spf13/cobra"
)

// cutoff is when a vendor's billing period ends, every month: figures that the
// partner does not have by then are missing in the invoices.
type cutoff struct {
	Day  int    `json:"day"`  // of the month, 1 to 31; the last day where a month has fewer
	At   string `json:"at"`   // such as 18:00
	Zone string `json:"zone"` // such as Europe/Berlin
}

// clock is how times of day are written.
const clock = "15:04"

// moment is the time of day and the zone, or everything that is wrong.
func (c *cutoff) moment() (day time.Time, zone *time.Location, err error) {
	var errs []error
	if c.Day < 1 || c.Day > 31 {
		errs = append(errs, fmt.Errorf("--day %d: want a day of the month, 1 to 31; 31 is the last one of every month", c.Day))
	}
	if day, err = time.Parse(clock, c.At); err != nil {
		errs = append(errs, fmt.Errorf("--at %q: want a time of day such as 18:00", c.At))
	}
	if zone, err = time.LoadLocation(c.Zone); err != nil || c.Zone == "" || c.Zone == "Local" {
		errs = append(errs, fmt.Errorf("--zone %q: want a time zone such as UTC or Europe/Berlin", c.Zone))
	}
	return day, zone, errors.Join(errs...)
}

// check reports everything that is wrong with what an operator gave.
func (c *cutoff) check() error {
	_, _, err := c.moment()
	return err
}

// next is the first cut-off after now.
func (c *cutoff) next(now time.Time) (time.Time, error) {
	day, zone, err := c.moment()
	if err != nil {
		return time.Time{}, err
	}
	local := now.In(zone)
	for month := local.Month(); ; month++ {
		last := time.Date(local.Year(), month+1, 0, 0, 0, 0, 0, zone).Day()
		at := time.Date(local.Year(), month, min(c.Day, last), day.Hour(), day.Minute(), 0, 0, zone)
		if at.After(now) {
			return at, nil
		}
	}
}

func (c *cutoff) String() string {
	day := strconv.Itoa(c.Day)
	if c.Day == 31 {
		day = "the last day"
	}
	return fmt.Sprintf("%s of every month at %s, %s", day, c.At, c.Zone)
}

func (c *cli) vendorsCutoff() *cobra.Command {
	var to cutoff
	var off bool
	var why string
	cmd := &cobra.Command{
		Use:   "cutoff VENDOR (--day N --at HH:MM --zone ZONE | --off) --why TEXT",
		Short: "Say when a vendor's billing period ends, so that an alert comes before it",
		Long: `Sets the day and the time of every month at which the partner bills what it has of
a vendor. Nothing is sent otherwise for it: it is what the metric
usagebridge_cutoff_remaining_seconds and the alerts on it go by. In a month without
that day it is the month's last one.`,
		Example: `  usagebridge vendors cutoff acme --day 31 --at 23:30 --zone Europe/Berlin --why "invoices are made at midnight"
  usagebridge vendors cutoff acme --off --why "billed by hand from now on"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			given := cmd.Flags().Changed("day") || cmd.Flags().Changed("at") || cmd.Flags().Changed("zone")
			var errs []error
			switch {
			case given == off:
				errs = append(errs, errors.New("want either --day, --at and --zone, or --off"))
			case given:
				errs = append(errs, to.check())
			}
			if why == "" {
				errs = append(errs, errors.New("--why is missing: whoever is on call next will want to know"))
			}
			if err := errors.Join(errs...); err != nil {
				return usageError{err}
			}
			if off {
				return c.setCutoff(cmd.Context(), args[0], nil, why)
			}
			return c.setCutoff(cmd.Context(), args[0], &to, why)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&to.Day, "day", 0, "day of the month, 1 to 31")
	flags.StringVar(&to.At, "at", "", "time of day, such as 18:00")
	flags.StringVar(&to.Zone, "zone", "", "time zone, such as UTC or Europe/Berlin")
	flags.BoolVar(&off, "off", false, "remove the cut-off")
	flags.StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

// setCutoff sets the cut-off of a vendor; nil removes it.
func (c *cli) setCutoff(ctx context.Context, vendor string, to *cutoff, why string) error {
	done := action{Action: "cut-off removed", Why: why}
	if to != nil {
		done.Action, done.Detail = "cut-off set", to.String()
	}
	return c.ruleVendor(ctx, vendor, done, func(r *vendorRecord) error {
		if to == nil && r.Cutoff == nil || to != nil && r.Cutoff != nil && *to == *r.Cutoff {
			return errNothingToDo
		}
		r.Cutoff = to
		return nil
	})
}

// cutoffs has the next cut-off of every vendor that has one.
func (b *rulebook) cutoffs(now time.Time) map[string]time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := map[string]time.Time{}
	for vendor, r := range b.records {
		if r.Cutoff == nil {
			continue
		}
		if at, err := r.Cutoff.next(now); err == nil { // what is no cut-off was never set by a command
			next[vendor] = at
		}
	}
	return next
}
