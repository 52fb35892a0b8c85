package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func (c *cli) sandboxCommand() *cobra.Command {
	var o sandboxOptions
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Play the billing partner, for tests and demonstrations",
		Long: `Plays the partner's Vendor-API and OEM-API with organizations, integrations, rate
limits and faults, and the wizard in which people at an MSP connect a made-up PSA,
map accounts and services, and approve what is billed. It keeps everything in memory
and forgets it when it stops.

Control it over HTTP: GET /sandbox/report, GET /sandbox/tape, PUT /sandbox/faults,
POST /sandbox/integrations; the page at / shows what it holds and leads into the wizard.

--vendors and --psas take JSON files like what GET /sandbox/vendors and
GET /sandbox/psas show.`,
		Example: `  usagebridge sandbox
  usagebridge sandbox --human api --oem-client-id me --oem-client-secret-file oem.secret
  usagebridge sandbox --public-url http://127.0.0.1:9090   # where browsers reach it, in a container`,
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
			c.say("wizard on http://%s%s: a session's link leads in, or a button on the page at /", listener.Addr(), sandbox.WizardPath)
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
	flags.StringVar(&o.vendorsFile, "vendors", "", "JSON file with the vendors that the OEM-API knows (default: acme and Globex Backup)")
	flags.StringVar(&o.psasFile, "psas", "", "JSON file with the PSAs that the wizard offers (default: three that are made up)")
	flags.StringVar(&o.oemID, "oem-client-id", "", "client of the OEM-API (default: made up, see GET /sandbox/oem)")
	flags.StringVar(&o.oemSecretFile, "oem-client-secret-file", "", "file with its secret (default: made up)")
	flags.DurationVar(&o.linkLifetime, "link-lifetime", 10*time.Minute, "how long a session's link into the wizard is good")
	flags.StringVar(&o.publicURL, "public-url", "", "what these links begin with (default: as the OEM-API's client reaches the sandbox)")
	flags.StringVar(&o.informFile, "inform-url-file", "", "file with the address of the Inform webhook, told of what the wizard changes: http://127.0.0.1:8080/inform/v1/{vendor}/SECRET")
	flags.StringVar(&o.faultFile, "faults", "", "JSON file with a fault plan, as for PUT /sandbox/faults")
	return cmd
}

type sandboxOptions struct {
	listen, human, dialect  string
	integration             string
	vendorFile, partnerFile string
	faultFile               string
	vendorsFile, psasFile   string
	oemID, oemSecretFile    string
	informFile, publicURL   string
	linkLifetime            time.Duration
	humanDelay              time.Duration
	rateLimit               int
}

func (o *sandboxOptions) config() (sandbox.Config, error) {
	config := sandbox.Config{
		Dialect: sandbox.Dialect(o.dialect), HumanDelay: o.humanDelay, RateLimit: o.rateLimit,
		OEM: sandbox.OEM{ClientID: o.oemID}, PublicURL: o.publicURL, LinkLifetime: o.linkLifetime,
	}
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
	if err := o.readFiles(&config); err != nil {
		return config, usageError{err}
	}
	if err := config.Validate(); err != nil {
		return config, usagef("sandbox: %w", err)
	}
	return config, nil
}

// readFiles fills in what flags name files for, and reports all that is wrong with them.
func (o *sandboxOptions) readFiles(config *sandbox.Config) error {
	var oemErr, informErr error
	if o.oemSecretFile != "" {
		config.OEM.ClientSecret, oemErr = tokenFrom("--oem-client-secret-file", o.oemSecretFile)
	}
	if o.informFile != "" {
		config.Inform.URL, informErr = tokenFrom("--inform-url-file", o.informFile)
	}
	return errors.Join(oemErr, informErr,
		readJSON("--faults", o.faultFile, &config.Faults),
		readJSON("--vendors", o.vendorsFile, &config.Vendors),
		readJSON("--psas", o.psasFile, &config.PSAs),
	)
}

// readJSON reads the file that a flag names, if it does, and refuses fields that to does not have.
func readJSON(flag, path string, to any) error {
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return fmt.Errorf("%s %s: %w", flag, path, err)
	}
	return nil
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
