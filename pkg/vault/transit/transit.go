// Package transit encrypts with a key that never leaves HashiCorp Vault: it
// makes the two calls of Vault's transit engine that Tink needs of a key
// management service (registry.KMSClient).
//
// It deliberately does not know what it encrypts, and does not log in: the
// token is in a file, which Vault Agent or whoever else keeps fresh.
package transit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	scheme = "hcvault://"
	// WantURI says what the URI of a key looks like.
	WantURI = scheme + "HOST[:PORT]/MOUNT/keys/NAME, such as hcvault://vault.example:8200/transit/keys/usagebridge"

	callTimeout = 10 * time.Second
	maxAnswer   = 4 << 20
	maxToken    = 64 << 10
)

// keyURI has host, mount and name of a key.
var keyURI = regexp.MustCompile(`^hcvault://([A-Za-z0-9.\-]+(?::\d{1,5})?|\[[0-9a-fA-F:.]+\](?::\d{1,5})?)/([A-Za-z0-9_\-]+(?:/[A-Za-z0-9_\-]+)*)/keys/([A-Za-z0-9_][A-Za-z0-9_.\-]*)$`)

// Supports says whether a URI names a key of Vault.
func Supports(uri string) bool { return keyURI.MatchString(uri) }

// Config says how to reach Vault.
type Config struct {
	// TokenFile has the token. It is read for every call.
	TokenFile string
	// Transport carries the calls; nil: http.DefaultTransport, with the
	// system's authorities.
	Transport http.RoundTripper
}

// Client knows keys of Vault by their URI (registry.KMSClient). It holds
// nothing that needs closing.
type Client struct {
	tokenFile string
	http      *http.Client
}

// New makes a client; it calls nobody.
func New(c Config) *Client {
	return &Client{tokenFile: c.TokenFile, http: &http.Client{
		Transport: c.Transport,
		Timeout:   callTimeout,
		// The token goes to the host that was named and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Supported says whether a URI names a key of Vault.
func (c *Client) Supported(uri string) bool { return Supports(uri) }

// GetAEAD returns the key that the URI names; it calls nobody. Its errors name
// the host and what it answered, never what was to be encrypted.
func (c *Client) GetAEAD(uri string) (tink.AEAD, error) {
	parts := keyURI.FindStringSubmatch(uri)
	if parts == nil {
		return nil, fmt.Errorf("key URI %q: want %s", uri, WantURI)
	}
	return &key{client: c, host: parts[1], mount: parts[2], name: parts[3]}, nil
}

// key is one key of the transit engine (tink.AEAD).
type key struct {
	client            *Client
	host, mount, name string
}

// exchanged is what the calls take and give; only ciphertext is in clear.
type exchanged struct {
	Plaintext  string `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Associated string `json:"associated_data,omitempty"`
}

// Encrypt has Vault encrypt a text.
func (k *key) Encrypt(plaintext, associated []byte) ([]byte, error) {
	got, err := k.call("encrypt", exchanged{Plaintext: encode(plaintext), Associated: encode(associated)})
	if err == nil && got.Ciphertext == "" {
		err = fmt.Errorf("vault %s: the answer has no ciphertext", k.host)
	}
	return []byte(got.Ciphertext), err
}

// Decrypt has Vault decrypt what Encrypt made.
func (k *key) Decrypt(ciphertext, associated []byte) ([]byte, error) {
	got, err := k.call("decrypt", exchanged{Ciphertext: string(ciphertext), Associated: encode(associated)})
	if err != nil {
		return nil, err
	}
	plaintext, err := base64.StdEncoding.DecodeString(got.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("vault %s: the plaintext in the answer is not base64", k.host)
	}
	return plaintext, nil
}

func encode(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

func (k *key) call(verb string, body exchanged) (exchanged, error) {
	none := exchanged{}
	token, err := k.client.token()
	if err != nil {
		return none, err
	}
	payload, err := json.Marshal(body)
	if err != nil {
		return none, fmt.Errorf("vault %s: %s: %w", k.host, verb, err)
	}
	address := url.URL{Scheme: "https", Host: k.host, Path: "/v1/" + k.mount + "/" + verb + "/" + k.name}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, address.String(), bytes.NewReader(payload))
	if err != nil {
		return none, fmt.Errorf("vault %s: %s: %w", k.host, verb, err)
	}
	request.Header.Set("X-Vault-Token", token)
	request.Header.Set("X-Vault-Request", "true") // asked for by its agents and proxies
	request.Header.Set("Content-Type", "application/json")
	answer, err := k.client.http.Do(request)
	if err != nil {
		return none, fmt.Errorf("vault %s: %w", k.host, err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return none, fmt.Errorf("vault %s: %w", k.host, err)
	}
	if answer.StatusCode != http.StatusOK {
		return none, fmt.Errorf("vault %s: %s with the key %s/keys/%s was answered %d%s", k.host, verb, k.mount, k.name, answer.StatusCode, reasons(text))
	}
	var got struct {
		Data exchanged `json:"data"`
	}
	if json.Unmarshal(text, &got) != nil {
		return none, fmt.Errorf("vault %s: the answer is not JSON", k.host)
	}
	return got.Data, nil
}

// reasons is why Vault refuses, in its own words.
func reasons(text []byte) string {
	var said struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(text, &said) != nil || len(said.Errors) == 0 {
		return ""
	}
	words := strings.Join(strings.Fields(strings.Join(said.Errors, "; ")), " ")
	return ": " + words[:min(len(words), 200)]
}

func (c *Client) token() (string, error) {
	file, err := os.Open(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("token of vault: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return "", fmt.Errorf("token of vault: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", errors.New("token of vault: file " + c.tokenFile + " does not hold one word, the token")
	}
	return token, nil
}
