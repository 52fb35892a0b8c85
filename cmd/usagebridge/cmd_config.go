package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Show the effective configuration, secrets masked",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, err := loadConfig()
			if err != nil {
				return err
			}
			settings := config.settings()
			if c.json {
				return c.printJSON(settings)
			}
			rows := make([][]string, 0, len(settings))
			for _, s := range settings {
				rows = append(rows, []string{s.Name, s.Value, s.Source})
			}
			return c.table([]string{"VARIABLE", "VALUE", "FROM"}, rows)
		},
	}
}
