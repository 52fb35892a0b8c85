package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"
)

func (c *cli) configCommand() *cobra.Command {
	var diff bool
	cmd := &cobra.Command{
		Use:   "config [--diff]",
		Short: "Show the effective configuration, secrets masked",
		Long: `Shows every variable with the value that is in force, and where that comes from:
the environment, the default, or derived from other settings or the machine.
Secrets are masked.

Everything that would keep a worker from starting is told at once, with exit code
2: values that are no such value, and files that are named and cannot be read.
Variables that begin with USAGEBRIDGE_ and mean nothing to this version are
warnings, with the name that is probably meant.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, u := range unknownVariables() {
				c.warnOf(u)
			}
			config, err := loadConfig()
			problems := errors.Join(append([]error{err}, config.checkFiles()...)...)
			if err != nil {
				return usageError{problems}
			}
			settings := config.settings()
			if diff {
				settings = slices.DeleteFunc(settings, func(s setting) bool { return !s.differs() })
			}
			if err := c.showSettings(settings, diff); err != nil {
				return err
			}
			if problems != nil {
				return usageError{problems}
			}
			return nil
		},
	}
	cmd.AddCommand(c.copySecretsCommand())
	cmd.Flags().BoolVar(&diff, "diff", false, "only what is set to something else than its default")
	return cmd
}

func (c *cli) warnOf(u unknownVariable) {
	if u.nearest == "" {
		c.say("usagebridge: warning: %s is no variable of this version", printable(u.name))
		return
	}
	c.say("usagebridge: warning: %s is no variable of this version: is %s meant?", printable(u.name), u.nearest)
}

// showSettings has a column for the defaults where all rows differ from theirs.
func (c *cli) showSettings(settings []setting, defaults bool) error {
	if c.json {
		return c.printJSON(append([]setting{}, settings...)) // [], not null
	}
	header := []string{"VARIABLE", "VALUE", "FROM"}
	if defaults {
		header = append(header, "DEFAULT")
	}
	rows := make([][]string, 0, len(settings))
	for _, s := range settings {
		row := []string{s.Name, printable(s.Value), s.Source}
		if defaults {
			row = append(row, s.Default)
		}
		rows = append(rows, row)
	}
	return c.table(header, rows)
}
