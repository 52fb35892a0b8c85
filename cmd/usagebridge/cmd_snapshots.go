package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func (c *cli) snapshotsCommand() *cobra.Command {
	return group("snapshots", "Snapshots: all counts of an organization or an account at one time", c.snapshotsList())
}

func (c *cli) snapshotsList() *cobra.Command {
	var o syncChoice
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the last snapshots of each organization and account, the newest first",
		Long: `Lists what the ledger remembers: the last snapshots that are complete, those whose
parts have not all come, and those that were given up (USAGEBRIDGE_SNAPSHOT_PATIENCE).
KEYS is how many keys of the scope had a figure other than 0 when the last part came,
ZEROS how many of them the snapshot did not name and set to 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				list, err := a.snapshots(ctx, o)
				if err != nil {
					return err
				}
				return c.showSnapshots(list)
			})
		},
	}
	c.choiceFlags(cmd, &o)
	return cmd
}

// Where a snapshot stands. Released and refused are the words of a decision.
const (
	snapshotComplete   = "complete"
	snapshotIncomplete = "incomplete" // parts are awaited
	snapshotWaits      = "waits for approval"
	snapshotGivenUp    = "given up" // parts did not come in time
)

// snapshotView is a snapshot as programs see it.
type snapshotView struct {
	Name        string    `json:"name"`
	Integration string    `json:"integration"`
	Account     string    `json:"account,omitempty"` // empty: it is of the whole organization
	Time        time.Time `json:"time"`              // of its figures
	Parts       int       `json:"parts"`
	Come        int       `json:"parts_come"` // 0 for one that was given up: they are forgotten
	Missing     []int     `json:"missing,omitempty"`
	State       string    `json:"state"`
	Keys        int       `json:"keys"`
	Zeros       int       `json:"zeros"`
	Approval    string    `json:"approval,omitempty"` // id under which its zeros wait or waited
	Decision    *decision `json:"decision,omitempty"`
	Backfill    string    `json:"backfill,omitempty"`
	Since       time.Time `json:"since"` // when its first part was folded
	Done        time.Time `json:"done,omitzero"`
}

// snapshots reads what the ledger knows of snapshots, and what people have said.
func (a *app) snapshots(ctx context.Context, o syncChoice) ([]snapshotView, error) {
	list := []snapshotView{}
	err := a.scan(ctx, o, func(v broker.Vendor, e *ledger.Entry) error {
		for i := range e.Snapshots {
			list = append(list, viewSnapshot(v.Name, e.Key, &e.Snapshots[i]))
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		return list, err
	}
	words, err := a.decisions(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].judge(words)
	}
	slices.SortFunc(list, func(a, b snapshotView) int {
		return cmp.Or(strings.Compare(a.Integration, b.Integration), b.Time.Compare(a.Time), b.Since.Compare(a.Since), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// decisions is every word of a person on figures, by its key.
func (a *app) decisions(ctx context.Context) (map[string]decision, error) {
	bucket, err := broker.OpenBucket[decision](ctx, a.broker, broker.BucketDecisions)
	if err != nil {
		return nil, err
	}
	return bucket.All(ctx)
}

func viewSnapshot(vendor string, scope ledger.Key, s *ledger.Snapshot) snapshotView {
	v := snapshotView{
		Name: s.Name, Integration: vendor + "/" + scope.Organization, Account: scope.Account, Time: moment(s.Time),
		Parts: s.Of, Come: len(s.Parts), State: snapshotComplete, Keys: s.Keys, Zeros: s.Zeros, Backfill: s.Backfill, Since: moment(s.Since),
	}
	if s.Done != 0 {
		v.Done = moment(s.Done)
	}
	switch {
	case s.Lost:
		v.State = snapshotGivenUp
	case s.Open():
		v.State, v.Missing = snapshotIncomplete, missingParts(s)
	case s.Waits:
		v.State, v.Approval = snapshotWaits, approvalName(s.Event)
	}
	return v
}

// judge takes in what people have said of the snapshot.
func (v *snapshotView) judge(words map[string]decision) {
	vendor, organization, _ := strings.Cut(v.Integration, "/")
	key := event.Escape(vendor) + "." + event.Escape(organization) + "." + v.Approval
	if v.Backfill != "" {
		if _, undone := words[backfillKey(vendor, v.Backfill)]; undone {
			key = backfillKey(vendor, v.Backfill)
		}
	}
	if word, ok := words[key]; ok {
		v.State, v.Decision = string(word.Verdict), &word
	}
}

func missingParts(s *ledger.Snapshot) (missing []int) {
	for n := 1; n <= s.Of; n++ {
		if !slices.ContainsFunc(s.Parts, func(p ledger.SeenPart) bool { return p.Number == n }) {
			missing = append(missing, n)
		}
	}
	return missing
}

// shownParts is how many runs of missing parts a line names.
const shownParts = 3

// partList writes missing parts as people do: 2,4-7,9.
func partList(missing []int) string {
	var runs []string
	for i := 0; i < len(missing); {
		last := i
		for last+1 < len(missing) && missing[last+1] == missing[last]+1 {
			last++
		}
		if len(runs) == shownParts {
			return strings.Join(runs, ",") + ",…"
		}
		run := strconv.Itoa(missing[i])
		if last > i {
			run += "-" + strconv.Itoa(missing[last])
		}
		runs = append(runs, run)
		i = last + 1
	}
	return strings.Join(runs, ",")
}

// line says where the snapshot stands.
func (v *snapshotView) line() string {
	switch len(v.Missing) {
	case 0:
		return v.State
	case 1:
		return "part " + partList(v.Missing) + " is missing"
	}
	return "parts " + partList(v.Missing) + " are missing"
}

func (c *cli) showSnapshots(list []snapshotView) error {
	if c.json {
		return c.printJSON(list)
	}
	if len(list) == 0 {
		c.say("no snapshots")
		return nil
	}
	now := time.Now()
	rows, states := make([][]string, len(list)), map[string]int{}
	waiting := ""
	for i, v := range list {
		states[v.State]++
		if v.State == snapshotWaits {
			waiting = or(waiting, v.Integration)
		}
		scope, parts, keys, zeros := "organization", fmt.Sprintf("%d/%d", v.Come, v.Parts), "-", "-"
		if v.Account != "" {
			scope = "account " + v.Account
		}
		if v.State == snapshotGivenUp {
			parts = "?/" + strconv.Itoa(v.Parts)
		} else if v.Missing == nil {
			keys, zeros = strconv.Itoa(v.Keys), strconv.Itoa(v.Zeros)
		}
		rows[i] = []string{
			printable(cut(v.Name, 30)), printable(v.Integration), printable(scope), v.Time.Format(time.RFC3339), parts,
			v.line(), keys, zeros, ago(v.Since, now),
		}
	}
	if err := c.table([]string{"SNAPSHOT", "INTEGRATION", "SCOPE", "TIME", "PARTS", "STATE", "KEYS", "ZEROS", "AGE"}, rows); err != nil {
		return err
	}
	c.say("%s: %s", plural(len(list), "snapshot", "snapshots"), countReasons(states))
	if waiting != "" {
		c.say("see what waits with `usagebridge approvals ls --integration %s`", printable(waiting))
	}
	return nil
}
