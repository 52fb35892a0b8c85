package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func (c *cli) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run a worker: fold events, deliver figures, serve metrics and health",
		Long: `Runs a worker until SIGTERM or SIGINT, then stops gracefully: it receives no
more, lets calls finish, records their outcomes and gives its leases back.

Nothing is created: "usagebridge init --vendor NAME" sets a vendor up, before or
while a worker runs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := loadConfig()
			if err := errors.Join(append([]error{err}, config.checkFiles()...)...); err != nil {
				return usageError{err}
			}
			return c.serve(cmd.Context(), config, nil)
		},
	}
}

func (c *cli) devCommand() *cobra.Command {
	var vendor, sandboxListen string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process: embedded NATS, sandbox partner, worker",
		Long: `Sets up a vendor and an integration with the sandbox partner, and runs a worker
on an embedded NATS server. Publish to it from another terminal: every command
finds it by itself. The sandbox keeps nothing, so each start begins with an
empty store (the directory "dev" in USAGEBRIDGE_STORE_DIR, nothing else).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := loadConfig()
			if err != nil {
				return err
			}
			if err := forDevelopment(&config); err != nil {
				return err
			}
			return c.serve(cmd.Context(), config, func(ctx context.Context, a *app) (func(), error) {
				return c.furnish(ctx, a, vendor, sandboxListen)
			})
		},
	}
	cmd.Flags().StringVar(&vendor, "vendor", "acme", "vendor to set up")
	cmd.Flags().StringVar(&sandboxListen, "sandbox-listen", "127.0.0.1:9090", "address of the sandbox partner")
	return cmd
}

// forDevelopment gives dev a fresh store of its own, and probes that suit a
// person who is waiting.
func forDevelopment(config *Config) error {
	config.NATSURL = ""
	config.StoreDir = devDir(config.StoreDir)
	_, running, err := broker.FindEmbedded(config.StoreDir)
	if err != nil {
		return err
	}
	if running {
		return fmt.Errorf("dev is running already on %s", config.StoreDir)
	}
	if err := os.RemoveAll(config.StoreDir); err != nil {
		return fmt.Errorf("empty the store of dev: %w", err)
	}
	if _, set := os.LookupEnv(envPrefix + "_PROBE_MIN"); !set {
		config.ProbeMin = time.Second
	}
	if _, set := os.LookupEnv(envPrefix + "_PROBE_MAX"); !set {
		config.ProbeMax = max(5*time.Second, config.ProbeMin)
	}
	return nil
}

func devDir(storeDir string) string { return filepath.Join(storeDir, "dev") }

// serve runs a worker and its HTTP listener until ctx ends. prepare, if any,
// comes before the worker and gives back how to undo it.
func (c *cli) serve(ctx context.Context, config Config, prepare func(context.Context, *app) (func(), error)) error {
	log := newLogger(c.stderr, config.LogLevel, config.LogFormat)
	for _, u := range unknownVariables() {
		log.Warn("unknown environment variable", "variable", u.name, "nearest", u.nearest)
	}
	a, err := openApp(ctx, config, log)
	if err != nil {
		return err
	}
	defer a.close()
	stopTracing, err := a.startTracing(ctx)
	if err != nil {
		return err
	}
	defer stopTracing()
	if prepare != nil {
		undo, err := prepare(ctx, a)
		if err != nil {
			return err
		}
		defer undo()
	}
	paceCollector()
	e, registry, err := a.engineOnceUp(ctx)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, config.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s_LISTEN: %w", envPrefix, err)
	}
	log.Info("worker started", "worker", config.WorkerID, "version", version(), "http", listener.Addr().String())
	err = e.runWith(ctx, listener, registry)
	log.Info("worker stopped", "worker", config.WorkerID)
	return err
}

// furnish sets up a vendor, a sandbox partner and an integration between them.
func (c *cli) furnish(ctx context.Context, a *app, vendor, address string) (undo func(), err error) {
	if _, err := a.broker.Init(ctx, broker.InitConfig{Vendor: vendor}); err != nil {
		return nil, err
	}
	listener, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen for the sandbox partner: %w", err)
	}
	token := "v-" + rand.Text()
	played := sandbox.New(sandbox.Config{
		HumanDelay: time.Second,
		OEM:        sandbox.OEM{ClientID: "dev", ClientSecret: rand.Text()},
		Vendors:    []sandbox.Vendor{{Name: vendor, Type: sandbox.ExternalVendor, Token: token}},
	})
	undo = serveSandbox(played, listener, a.log)
	made, err := played.AddIntegration(sandbox.Integration{Name: vendor + "/demo-msp", VendorToken: token})
	if err == nil {
		err = a.config.announceSandbox("http://"+listener.Addr().String()+"/api", played.OEM())
	}
	if err == nil {
		err = a.addIntegration(ctx, newIntegration{
			vendor: vendor, organization: "demo-msp", dialect: "mspcentric", status: "inactive",
			apiURL:      "http://" + listener.Addr().String() + "/api",
			vendorToken: made.VendorToken, partnerToken: made.PartnerToken,
		})
	}
	if err != nil {
		undo()
		return nil, err
	}
	c.say("sandbox partner on http://%s, integration %s/demo-msp", listener.Addr(), vendor)
	c.say("try, in another terminal:")
	for _, line := range []string{
		`printf 'id,name\nbackup,Backup\n' | usagebridge publish - --kind services`,
		`printf 'id,name\na-17,Miller Ltd\n' | usagebridge publish - --kind accounts`,
		`printf 'account,service,unitCount\na-17,backup,42\n' | usagebridge publish -`,
	} {
		c.say("  %s --integration %s/demo-msp", line, vendor)
	}
	c.say("or onboard another organization: `usagebridge integrations onboard --help`")
	return undo, nil
}

func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(buildInfo(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
