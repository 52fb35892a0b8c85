package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (c *cli) doctorCommand() *cobra.Command {
	var vendor string
	var offline bool
	cmd := &cobra.Command{
		Use:   "doctor [--vendor VENDOR] [--offline]",
		Short: "Look at everything that can be wrong, and say what mends it",
		Long: `Looks at the configuration, the store and its keys, NATS and every stream, the
workers and what waits for them, the integrations, and whether the partner can be
reached. Nothing is changed, and the partner's hosts are called without tokens.

It works beside a running worker, on a store that is not open, and on an external
NATS. Findings go to stdout, with --json with an id for each check that stays the
same. Exit codes: 0 nothing is wrong, 1 a check failed, 3 warnings alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := diagnose(gather(cmd.Context(), vendor, offline), checks())
			if err := cmd.Context().Err(); err != nil {
				return err // what was found is the interruption
			}
			return c.showReport(&r)
		},
	}
	cmd.Flags().StringVar(&vendor, "vendor", "", "look at this vendor alone (default: all)")
	cmd.Flags().BoolVar(&offline, "offline", false, "call none of the partner's hosts")
	return cmd
}

func (c *cli) showReport(r *report) error {
	if c.json {
		if err := c.printJSON(r); err != nil {
			return err
		}
	} else if _, err := fmt.Fprint(c.stdout, r.text()); err != nil {
		return err
	}
	failures, warnings := r.Counts[stepFailed], r.Counts[stepWarning]
	switch {
	case failures > 0 && warnings > 0:
		return fmt.Errorf("%s failed, %s", plural(failures, "check", "checks"), plural(warnings, "warning", "warnings"))
	case failures > 0:
		return fmt.Errorf("%s failed", plural(failures, "check", "checks"))
	case warnings > 0:
		return partlyf("nothing failed, %s", plural(warnings, "warning", "warnings"))
	}
	c.say("nothing is wrong: %d ok, %d skipped", r.Counts[stepOK], r.Counts[stepSkipped])
	return nil
}

// Columns of the report, for a terminal of 100.
const (
	reportWidth   = 100
	verdictColumn = 9
	titleColumn   = 22
)

// text is the report for people: one line for what is in order, and below what
// is not why it matters and what mends it. What was skipped comes last, by its
// reason.
func (r *report) text() string {
	var b strings.Builder
	area := ""
	for n := range r.Findings {
		f := &r.Findings[n]
		if f.Verdict == stepSkipped {
			continue
		}
		if f.area != area {
			if area != "" {
				b.WriteByte('\n')
			}
			area = f.area
			b.WriteString(area + "\n")
		}
		f.write(&b)
	}
	r.writeSkipped(&b)
	return b.String()
}

func (f *reported) write(b *strings.Builder) {
	observed := f.Observed
	if f.Object != "" {
		observed = f.Object + ": " + observed
	}
	wrap(b, fmt.Sprintf("  %-*s%-*s", verdictColumn, f.Verdict, titleColumn, f.Title), observed)
	if f.Verdict == stepOK {
		return
	}
	margin := strings.Repeat(" ", 2+verdictColumn)
	wrap(b, margin+"why   ", f.Why)
	if f.Mend != "" {
		wrap(b, margin+"mend  ", f.Mend)
	}
}

// writeSkipped has a line for each reason.
func (r *report) writeSkipped(b *strings.Builder) {
	var reasons []string
	titles := map[string][]string{}
	for n := range r.Findings {
		f := &r.Findings[n]
		if f.Verdict != stepSkipped {
			continue
		}
		if titles[f.Observed] == nil {
			reasons = append(reasons, f.Observed)
		}
		titles[f.Observed] = append(titles[f.Observed], f.Title)
	}
	if len(reasons) == 0 {
		return
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	b.WriteString("skipped\n")
	for _, reason := range reasons {
		wrap(b, "  ", strings.Join(slices.Compact(titles[reason]), ", ")+": "+reason)
	}
}

// wrap writes a text behind a margin, in lines of at most reportWidth. What
// stands in backquotes is for a shell and stays in one piece.
func wrap(b *strings.Builder, margin, text string) {
	b.WriteString(margin)
	indent := len([]rune(margin))
	at := indent
	for n, word := range words(text) {
		width := len([]rune(word))
		switch {
		case n > 0 && at+1+width > reportWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		case n > 0:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += width
	}
	b.WriteByte('\n')
}

// words are divided by blanks, apart from those between backquotes.
func words(text string) []string {
	var list []string
	for word := range strings.FieldsSeq(text) {
		if last := len(list) - 1; last >= 0 && strings.Count(list[last], "`")%2 == 1 {
			list[last] += " " + word
			continue
		}
		list = append(list, word)
	}
	return list
}
