// Package oemapi speaks the OEM-API of MSPCentric, with which a vendor looks after
// its organizations there: it makes organizations, their users, sessions and
// integrations, and lists integrations with their status. Every answer, or the lack of one, becomes a [Result] or an
// [*Error] that says by its behaviour how it wants to be treated.
//
// It deliberately does not know when to ask, how often, what a status means for
// anybody, or where secrets come from. It never retries by itself, keeps no state
// between calls, writes no logs and no metrics. The API has no tokens to fetch:
// client and organization authenticate in the body of every call, reads too, so no
// part of a request is ever in a result or an error. The rules about the platform
// come from the partner API notes.
package oemapi

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// oemAPISegment stands between the API address and every path.
	oemAPISegment = "/oem-api"

	defaultTimeout   = 10 * time.Second
	maxTimeout       = time.Minute
	defaultUserAgent = "usagebridge"
)

// Config is everything a [Client] needs. BaseURL, ClientID and ClientSecret are
// required.
type Config struct {
	// BaseURL is the API address of the platform, the part above "/oem-api", for
	// instance https://sub.mspcentric.app/api. Absolute, http or https, without
	// user info, query or fragment. A slash at the end is ignored.
	BaseURL string
	// ClientID and ClientSecret are the vendor's, the same for all organizations.
	ClientID     string
	ClientSecret Secret
	// Transport carries the calls and may be shared with other clients; nil makes
	// one for this client alone.
	Transport http.RoundTripper
	// Timeout bounds one whole call, from dialling to the last byte of the
	// answer: more than 0, at most one minute; 0 means 10 seconds.
	Timeout time.Duration
	// UserAgent names this program to the platform, printable ASCII; empty means
	// "usagebridge".
	UserAgent string
}

// Client makes the calls of one vendor. It is safe for concurrent use and never
// prints its secret.
type Client struct {
	address   string // up to and with /oem-api
	id        string
	secret    Secret
	transport http.RoundTripper
	timeout   time.Duration
	userAgent string
}

// New checks the configuration and makes a client; it does not call the platform.
// The error names every fault at once and repeats neither the secret nor the URL,
// which may hold a password by mistake.
func New(config Config) (*Client, error) {
	address, urlErr := apiAddress(config.BaseURL)
	client := &Client{
		address:   address,
		id:        config.ClientID,
		secret:    config.ClientSecret,
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
		validateCredential("client id", client.id),
		validateCredential("client secret", client.secret.Reveal()),
		validateTimeout(client.timeout),
		validateUserAgent(client.userAgent),
	)
	if err != nil {
		return nil, fmt.Errorf("OEM API client: %w", err)
	}
	if client.transport == nil {
		client.transport = newTransport()
	}
	return client, nil
}

// CloseIdleConnections closes the connections that wait for a next call.
func (c *Client) CloseIdleConnections() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// String names the client by the address it calls.
func (c Client) String() string { return "oemapi.Client(" + c.address + ")" }

// Format prints [Client.String] whatever the verb, so that no verb can reach the
// fields, not even of a copied client.
func (c Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// apiAddress checks the base URL and appends the segment of this API. Its errors
// do not quote the input, which may hold a password.
func apiAddress(text string) (string, error) {
	const want = "want an absolute http or https URL such as https://sub.mspcentric.app/api"
	if text == "" {
		return "", errors.New("base URL: missing; " + want)
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("base URL: cannot be parsed; " + want)
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	var faults []error
	for _, fault := range []struct {
		found bool
		what  string
	}{
		{(u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "", "not absolute, or neither http nor https; " + want},
		{u.User != nil, "carries user info; id and secret are given apart, remove everything up to the @"},
		{u.RawQuery != "" || u.ForceQuery, "carries a query; remove everything from the ? on"},
		{u.Fragment != "", "carries a fragment; remove everything from the # on"},
		{strings.HasSuffix(path, oemAPISegment), "ends in " + oemAPISegment + ", which the client appends itself; remove it"},
	} {
		if fault.found {
			faults = append(faults, errors.New("base URL: "+fault.what))
		}
	}
	if len(faults) > 0 {
		return "", errors.Join(faults...)
	}
	address := url.URL{
		Scheme:  u.Scheme,
		Host:    u.Host,
		Path:    strings.TrimRight(u.Path, "/") + oemAPISegment,
		RawPath: path + oemAPISegment,
	}
	return address.String(), nil
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

// newTransport makes the connections of a client that was given none.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // answers are short
	}
}
