package main

import (
	"math/rand/v2"

	"github.com/spf13/cobra"
)

// The bounds of --events: fewer show nothing, more do not fit into memory.
const (
	minDemoEvents = 200
	maxDemoEvents = 500_000
)

func (c *cli) demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show and check the whole journey: a day of events, a flaky partner, every figure compared",
		Long: `Runs NATS, a worker and a sandbox partner in this process, on a temporary
directory and free ports. Two MSPs are set up, their accounts and services
posted, and a person maps them. A day of usage is published: repeats, late
events, corrections, broken messages. The partner fails now and then.

In the end every figure at the partner is compared with what the events say.
Exit code 0: every check holds; 1: one does not, and --seed repeats the events.

USAGEBRIDGE_PARTNER_RATE, USAGEBRIDGE_LINGER and the other settings of a worker
are obeyed; addresses and directories are not.`,
		Example: `  usagebridge demo
  usagebridge demo --events 100000
  usagebridge demo --keep   # then look around with the other commands`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.events < minDemoEvents || o.events > maxDemoEvents {
				return usagef("--events %d: want %d to %d", o.events, minDemoEvents, maxDemoEvents)
			}
			if !cmd.Flags().Changed("seed") {
				o.seed = rand.Uint64N(1_000_000) //nolint:gosec // dice, no secret
			}
			config, err := loadConfig()
			if err != nil {
				return err
			}
			return c.demo(cmd.Context(), o, config)
		},
	}
	cmd.Flags().IntVar(&o.events, "events", 20_000, "unit counts to publish, repeats included")
	cmd.Flags().Uint64Var(&o.seed, "seed", 0, "seed of the events and the faults (default: a random one, printed)")
	cmd.Flags().BoolVar(&o.keep, "keep", false, "leave everything running after the report, until Ctrl-C")
	return cmd
}
