package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

func (c *cli) initCommand() *cobra.Command {
	var config broker.InitConfig
	cmd := &cobra.Command{
		Use:   "init --vendor NAME",
		Short: "Create the streams and buckets of a vendor",
		Long: `Creates everything in JetStream that a vendor needs. It can be run again at any
time: what exists is compared and never altered while it holds data. The number
of partitions is fixed when the vendor is made; it bounds how many workers can
share the vendor's integrations.

On a cluster, --replicas 3 keeps three copies of everything, and makes three of
what has one, while workers and publishers go on: it returns when all are filled.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config.Vendor == "" {
				return usagef("--vendor is missing: want the vendor's id, such as --vendor acme")
			}
			environment, err := loadConfig()
			if err != nil {
				return err
			}
			return c.withNewApp(cmd.Context(), environment, func(ctx context.Context, a *app) error {
				config.Progress = func(stream string, current, replicas int) {
					c.say("%s: %d of %d copies are complete", stream, current, replicas)
				}
				report, err := a.broker.Init(ctx, config)
				if err != nil {
					return err
				}
				return c.showInit(report)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.Vendor, "vendor", "", "the vendor's id: A-Z a-z 0-9 - _, at most 64")
	flags.IntVar(&config.Partitions, "partitions", 0, "partitions of the vendor's log, 1 to 256 (default 16)")
	flags.IntVar(&config.Replicas, "replicas", 0, "copies of every stream: 1, or 3 on a cluster, never fewer than there are (default: as the store has, 1 at first)")
	flags.DurationVar(&config.LeaseTTL, "lease-ttl", 0,
		"how long a worker that died keeps its partitions, 1s to 1m, for all vendors; PARTNER_TIMEOUT is at most 0.8 of it (default 15s)")
	flags.Int64Var(&config.MaxBytes, "max-bytes", 0, "bound of the vendor's log; beyond it publishing is refused (default: none)")
	return cmd
}

func (c *cli) showInit(report broker.InitReport) error {
	if c.json {
		return c.printJSON(report)
	}
	rows := make([][]string, 0, len(report.Objects))
	for _, o := range report.Objects {
		rows = append(rows, []string{o.Kind, o.Name, o.State, strings.Join(o.Differences, "; ")})
	}
	if err := c.table([]string{"KIND", "NAME", "STATE", ""}, rows); err != nil {
		return err
	}
	if drifted := report.Drifted(); len(drifted) > 0 {
		return partlyf("%d objects differ from what this version creates and were left as they are", len(drifted))
	}
	return nil
}
