package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func (c *cli) sandboxCommand() *cobra.Command {
	var o sandboxOptions
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Play the billing partner, for tests and demonstrations",
		Long: `Plays the partner's Vendor-API with integrations, a person who maps, rate limits
and faults. It keeps everything in memory and forgets it when it stops.

Control it over HTTP: GET /sandbox/report, GET /sandbox/tape, PUT /sandbox/faults,
POST /sandbox/integrations; the page at / shows what it holds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := o.config()
			if err != nil {
				return err
			}
			listener, err := listen(cmd.Context(), o.listen)
			if err != nil {
				return fmt.Errorf("listen for the sandbox: %w", err)
			}
			stop := serveSandbox(sandbox.New(config), listener, newLogger(c.stderr, "warn", "auto"))
			defer stop()
			c.say("sandbox partner on http://%s (API address http://%s/api)", listener.Addr(), listener.Addr())
			<-cmd.Context().Done()
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", "127.0.0.1:9090", "address to serve on")
	flags.StringVar(&o.integration, "integration", "", "vendor/organization that exists from the start; POST /sandbox/integrations makes more")
	flags.StringVar(&o.dialect, "dialect", string(sandbox.MSPCentric), "its dialect: mspcentric or gradient")
	flags.StringVar(&o.vendorFile, "vendor-token-file", "", "file with its vendor token")
	flags.StringVar(&o.partnerFile, "partner-token-file", "", "file with its partner token")
	flags.StringVar(&o.human, "human", "auto", "who maps: auto (by itself, soon) or api (only when told over HTTP)")
	flags.DurationVar(&o.humanDelay, "human-delay", time.Second, "how long the automatic person takes")
	flags.IntVar(&o.rateLimit, "rate-limit", 0, "calls per second and integration before 429; 0: no limit")
	flags.StringVar(&o.faultFile, "faults", "", "JSON file with a fault plan, as for PUT /sandbox/faults")
	return cmd
}

type sandboxOptions struct {
	listen, human, dialect  string
	integration             string
	vendorFile, partnerFile string
	faultFile               string
	humanDelay              time.Duration
	rateLimit               int
}

func (o *sandboxOptions) config() (sandbox.Config, error) {
	config := sandbox.Config{Dialect: sandbox.Dialect(o.dialect), HumanDelay: o.humanDelay, RateLimit: o.rateLimit}
	switch o.human {
	case "auto":
		config.Human = sandbox.HumanAuto
	case "api":
		config.Human = sandbox.HumanAPI
	default:
		return config, usagef("--human %q: want auto or api", o.human)
	}
	if name := o.integration; name != "" {
		if _, _, err := parseIntegration(name); err != nil {
			return config, err
		}
		vendorToken, vendorErr := tokenFrom("--vendor-token-file", o.vendorFile)
		partnerToken, partnerErr := tokenFrom("--partner-token-file", o.partnerFile)
		if err := errors.Join(vendorErr, partnerErr); err != nil {
			return config, usageError{err}
		}
		config.Integrations = append(config.Integrations, sandbox.Integration{Name: name, VendorToken: vendorToken, PartnerToken: partnerToken})
	}
	if o.faultFile != "" {
		data, err := os.ReadFile(o.faultFile)
		if err != nil {
			return config, usagef("--faults: %w", err)
		}
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&config.Faults); err != nil {
			return config, usagef("--faults %s: %w", o.faultFile, err)
		}
	}
	if err := config.Validate(); err != nil {
		return config, usagef("sandbox: %w", err)
	}
	return config, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// serveSandbox serves the sandbox until stop is called.
func serveSandbox(played *sandbox.Sandbox, listener net.Listener, log *slog.Logger) (stop func()) {
	server := &http.Server{
		Handler:           played.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("sandbox stopped serving", "err", err)
		}
	}()
	return func() {
		played.Close()
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := server.Shutdown(closing); err != nil {
			_ = server.Close()
		}
		<-ended
	}
}
