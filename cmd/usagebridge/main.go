// Command usagebridge takes usage and catalog events from NATS JetStream and
// makes the billing partner's API equal to them. It is one binary: the worker,
// the sandbox partner, and the commands of the people who run them.
//
// This package only puts the others together and talks to people; it decides
// nothing about figures.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	if err := keepSecretsInMemory(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "usagebridge: warning: %v\n", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: data goes to stdout, talk to stderr.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		c.complain(err)
	}
	return exitCode(err)
}

// cli is what every command shares.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool // --json: machine-readable output on stdout
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "usagebridge",
		Short: "Usage events in, exact counts at the billing partner",
		Long: `usagebridge folds usage and catalog events from NATS JetStream into a ledger of
desired values and makes the billing partner's API equal to it.

Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed (trying again
may help), 2 wrong use or input, 3 done in part. Configuration comes from the
environment: see "usagebridge config".`,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().BoolVar(&c.json, "json", false, "write data as JSON")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\nSee \"%s --help\".", err, cmd.CommandPath())
	})
	root.AddCommand(
		c.demoCommand(),
		c.devCommand(),
		c.runCommand(),
		c.initCommand(),
		c.sandboxCommand(),
		c.publishCommand(),
		c.vendorsCommand(),
		c.integrationsCommand(),
		c.usersCommand(),
		c.syncCommand(),
		c.dlqCommand(),
		c.keysCommand(),
		c.approvalsCommand(), c.backfillsCommand(), c.snapshotsCommand(),
		c.auditCommand(),
		c.explainCommand(),
		c.statementCommand(),
		c.storeCommand(),
		c.schemasCommand(),
		c.doctorCommand(),
		c.healthcheckCommand(),
		c.configCommand(),
		c.benchCommand(),
		c.capacityCommand(),
		c.versionCommand(),
	)
	checkArguments(root)
	return root
}

// checkArguments makes a wrong number of arguments a usage error of every
// command, with the line that shows the right use.
func checkArguments(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		checkArguments(sub)
	}
	if cmd.Args == nil {
		return
	}
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%w\nUse: %s", err, cmd.UseLine())
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// complain tells a person what went wrong.
func (c *cli) complain(err error) {
	if errors.Is(err, context.Canceled) {
		_, _ = fmt.Fprintln(c.stderr, "usagebridge: interrupted")
		return
	}
	_, _ = fmt.Fprintf(c.stderr, "usagebridge: %v\n", err)
}

// say is for people: it goes to stderr.
func (c *cli) say(format string, args ...any) { _, _ = fmt.Fprintf(c.stderr, format+"\n", args...) }

// withApp loads the configuration, opens the world that is there, and closes
// it after do. Only warnings are logged: commands talk for themselves.
func (c *cli) withApp(ctx context.Context, do func(context.Context, *app) error) error {
	config, err := loadConfig()
	if err != nil {
		return err
	}
	if err := config.checkWorld(); err != nil {
		return err
	}
	return c.withNewApp(ctx, config, do)
}

// withNewApp is withApp for a world that may have to be made.
func (c *cli) withNewApp(ctx context.Context, config Config, do func(context.Context, *app) error) error {
	a, err := openApp(ctx, config, newLogger(c.stderr, "warn", config.LogFormat))
	if err != nil {
		return err
	}
	defer a.close()
	return do(ctx, a)
}
