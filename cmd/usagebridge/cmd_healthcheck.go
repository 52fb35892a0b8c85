package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// healthPatience bounds one question: container runtimes give a check less
	// than their own limit, which is rarely above 5 s.
	healthPatience = 3 * time.Second
	// healthText is how much of an answer is repeated.
	healthText = 512
)

func (c *cli) healthcheckCommand() *cobra.Command {
	var live bool
	var address string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the worker on this machine whether it can do its work",
		Long: `Asks GET /readyz of the listener that USAGEBRIDGE_LISTEN names, on the loopback
where it listens on every address, and waits at most 3 s. It is what the health
checks of containers call: the image has no shell and no HTTP client.

Ready means that the worker is connected to NATS and takes part in the work; a
worker that waits for NATS or for its first vendor is not. Restarting it for that
does not help: whatever restarts workers should ask --live instead, which is
GET /livez and fails only when the process does not answer.

Exit codes: 0 the answer was 200, 1 it was another or none, with the reason on
stderr, 2 wrong use or configuration.`,
		Example: `  HEALTHCHECK CMD ["/usagebridge", "healthcheck"]
  usagebridge healthcheck --live
  usagebridge healthcheck --url http://127.0.0.1:9090/sandbox/faults`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if address != "" {
				if u, err := url.Parse(address); err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || live {
					return usagef("--url %q: want http://host:port/path, without a user and without --live", printable(address))
				}
				return c.askHealth(cmd.Context(), address)
			}
			config, err := loadConfig()
			if err != nil {
				return err
			}
			if address, err = healthURL(config.Listen, live); err != nil {
				return err
			}
			return c.askHealth(cmd.Context(), address)
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "ask /livez: does the process answer at all?")
	cmd.Flags().StringVar(&address, "url", "", "ask this address instead, such as one of the sandbox")
	return cmd
}

// healthURL is where the listener is asked. One on every address is asked on
// the loopback of its kind.
func healthURL(listen string, live bool) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", usagef("%s_LISTEN: %q: want host:port", envPrefix, listen)
	}
	if port == "0" || port == "" {
		return "", usagef("%s_LISTEN: %q: only the worker knows which port it got: want one that is fixed", envPrefix, listen)
	}
	switch ip := net.ParseIP(host); {
	case host == "", ip != nil && ip.IsUnspecified() && ip.To4() != nil:
		host = "127.0.0.1"
	case ip != nil && ip.IsUnspecified():
		host = "::1"
	}
	path := "/readyz"
	if live {
		path = "/livez"
	}
	return (&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: path}).String(), nil
}

// askHealth is done when the answer is 200.
func (c *cli) askHealth(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return usagef("--url: %w", err)
	}
	client := http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, // and no proxy: it would answer for itself
		// A redirection is not the answer that was asked for.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(request)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s did not answer within %s", address, healthPatience)
	}
	if err != nil {
		return fmt.Errorf("health: %w", err) // names the address
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, healthText))
	text := printable(strings.TrimSpace(string(body)))
	switch {
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answered %d: %s", address, answer.StatusCode, text)
	case err != nil:
		return fmt.Errorf("%s answered 200 and then broke off: %w", address, err)
	}
	if c.json {
		return c.printJSON(map[string]any{"url": address, "status": answer.StatusCode, "answer": text})
	}
	_, err = fmt.Fprintln(c.stdout, text)
	return err
}
