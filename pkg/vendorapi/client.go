// Package vendorapi speaks the Vendor-API of a partner platform: it posts
// accounts, services and unit counts, asks for the mapping, reads what the
// platform lets it read, and turns every answer (or the lack of one) into a
// [Result] or an [*Error] that says by its behaviour how it wants to be treated.
// Two platforms, two [Dialect]s, the same typed calls; what only one of them has
// is a [Capability].
//
// It deliberately does not know when to call, how often, in which order, what
// to do after a failure, where credentials come from, or what a unit count
// means. It never retries by itself, keeps no state between calls, writes no
// logs and no metrics. The rules about the platform come from the partner API
// notes; where those say "published nowhere", so does the comment here.
package vendorapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultTimeout     = 10 * time.Second
	maxTimeout         = time.Minute
	defaultConcurrency = 16
	defaultUserAgent   = "usagebridge"
)

// Config is everything a [Client] needs. BaseURL and Credentials are required.
type Config struct {
	// BaseURL is the API address of the integration, the part above
	// "/vendor-api", for instance https://sub.mspcentric.app/api or
	// https://app.usegradient.com/api. Absolute, http or https, without user
	// info, query or fragment. A slash at the end is ignored.
	BaseURL string
	// Dialect is the platform's variant of the API; empty means [MSPCentric].
	Dialect Dialect
	// Credentials are the two tokens of the integration.
	Credentials Credentials
	// Transport carries the calls. All clients of a process should share one
	// made by [NewTransport]; nil makes a new one for this client alone.
	Transport http.RoundTripper
	// Timeout bounds one whole call, from dialling to the last byte of the
	// answer: more than 0, at most one minute; 0 means 10 seconds.
	Timeout time.Duration
	// UserAgent names this program to the partner, printable ASCII; empty
	// means "usagebridge".
	UserAgent string
}

// Client makes the calls of one integration. It is safe for concurrent use and
// never prints its credentials.
type Client struct {
	base      url.URL
	dialect   dialect
	secrets   func() *secrets // a function, of which fmt shows but the address
	transport http.RoundTripper
	timeout   time.Duration
	userAgent string
}

// New checks the configuration and makes a client; it does not call the
// partner. The error names every fault at once and repeats neither a token nor
// the URL, which may hold a password by mistake.
func New(config Config) (*Client, error) {
	base, urlErr := parseBaseURL(config.BaseURL)
	spoken, dialectErr := dialectNamed(config.Dialect)
	client := &Client{
		base:      base,
		dialect:   spoken,
		transport: config.Transport,
		timeout:   config.Timeout,
		userAgent: config.UserAgent,
	}
	if client.timeout == 0 {
		client.timeout = defaultTimeout
	}
	if client.userAgent == "" {
		client.userAgent = defaultUserAgent
	}
	err := errors.Join(
		urlErr,
		dialectErr,
		config.Credentials.validate(),
		validateTimeout(client.timeout),
		validateUserAgent(client.userAgent),
	)
	if err != nil {
		return nil, fmt.Errorf("vendor API client: %w", err)
	}
	derived := newSecrets(config.Credentials)
	client.secrets = func() *secrets { return derived }
	if client.transport == nil {
		client.transport = NewTransport(defaultConcurrency)
	}
	return client, nil
}

// Can reports whether the dialect of the integration has the calls of a
// capability. Without it they fail as [Unexpected] and nothing is sent.
func (c *Client) Can(capability Capability) bool {
	return c.dialect.refusal(capability) == ""
}

// CloseIdleConnections closes the connections that wait for a next call. On a
// shared transport it closes those of every client; they only have to dial anew.
func (c *Client) CloseIdleConnections() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// String names the client by the address it calls.
func (c Client) String() string {
	return "vendorapi.Client(" + c.base.String() + ")"
}

// Format prints [Client.String] whatever the verb, so that no verb can reach
// the fields, not even of a copied client: they are in use.
func (c Client) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, c.String())
}

func parseBaseURL(text string) (url.URL, error) {
	const want = "want an absolute http or https URL such as https://sub.mspcentric.app/api"
	if text == "" {
		return url.URL{}, errors.New("base URL: missing; " + want)
	}
	u, err := url.Parse(text)
	if err != nil {
		// The parser's own words quote the input, password and all.
		return url.URL{}, errors.New("base URL: cannot be parsed; " + want)
	}
	var faults []error
	fault := func(message string) { faults = append(faults, errors.New("base URL: "+message)) }
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		fault("not absolute, or neither http nor https; " + want)
	}
	if u.User != nil {
		fault("carries user info; the tokens are given apart, remove everything up to the @")
	}
	if u.RawQuery != "" || u.ForceQuery {
		fault("carries a query; remove everything from the ? on")
	}
	if u.Fragment != "" {
		fault("carries a fragment; remove everything from the # on")
	}
	escaped := strings.TrimRight(u.EscapedPath(), "/")
	if strings.HasSuffix(escaped, vendorAPISegment) {
		fault("ends in " + vendorAPISegment + ", which the client appends itself; remove it")
	}
	if err := errors.Join(faults...); err != nil {
		return url.URL{}, err
	}
	return url.URL{
		Scheme:  u.Scheme,
		Host:    u.Host,
		Path:    strings.TrimRight(u.Path, "/"),
		RawPath: escaped,
	}, nil
}

func validateTimeout(timeout time.Duration) error {
	if timeout < 0 || timeout > maxTimeout {
		return fmt.Errorf("timeout: %s is out of range; want more than 0 and at most %s", timeout, maxTimeout)
	}
	return nil
}

func validateUserAgent(agent string) error {
	if strings.ContainsFunc(agent, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("user agent: %q holds characters a header cannot carry; want printable ASCII", agent)
	}
	return nil
}
