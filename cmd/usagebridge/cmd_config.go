package main

import (
	"fmt"
	"io"
	"strings"

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

// writeConfigTable writes the table of variables for the README.
func writeConfigTable(w io.Writer) {
	_, _ = fmt.Fprintln(w, "| variable | default | meaning |\n| --- | --- | --- |")
	for _, s := range (&Config{}).settings() {
		value := ""
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		_, _ = fmt.Fprintf(w, "| `%s` | %s | %s |\n", strings.TrimPrefix(s.Name, envPrefix+"_"), value, s.Desc)
	}
}
