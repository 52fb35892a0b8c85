package vendorapi

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
)

const masked = "***"

// Credentials are the Vendor token and the Partner token of one integration.
// Whatever prints, marshals or logs them shows "***". The zero value holds
// none and is refused by [New].
type Credentials struct {
	// A function, because fmt cannot call our methods on an unexported field
	// of somebody else's struct: it would print plain fields, and follow a
	// pointer on a verb that does not fit. Of a function it has the address.
	tokens func() (vendor, partner string)
}

// NewCredentials holds the two tokens as they are; the caller trims what a file
// or a form added. [New] checks them.
func NewCredentials(vendorToken, partnerToken string) Credentials {
	return Credentials{tokens: func() (string, string) { return vendorToken, partnerToken }}
}

// String returns "***".
func (Credentials) String() string { return masked }

// GoString returns "***".
func (Credentials) GoString() string { return masked }

// Format prints "***" whatever the verb.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// MarshalText returns "***", in JSON too: credentials are not meant to be
// stored in this form.
func (Credentials) MarshalText() ([]byte, error) { return []byte(masked), nil }

// LogValue returns "***".
func (Credentials) LogValue() slog.Value { return slog.StringValue(masked) }

func (c Credentials) validate() error {
	if c.tokens == nil {
		return errors.New("credentials: missing; want a vendor token and a partner token")
	}
	vendor, partner := c.tokens()
	err := errors.Join(validateToken("vendor token", vendor), validateToken("partner token", partner))
	if strings.Contains(vendor, ":") {
		// The platform splits the decoded pair at the first colon.
		err = errors.Join(err, errors.New(`vendor token: contains ":", which separates the two tokens on the wire; copy it again from the platform`))
	}
	return err
}

func validateToken(name, token string) error {
	switch {
	case token == "":
		return fmt.Errorf("%s: empty; copy it from the platform", name)
	case strings.ContainsFunc(token, unicode.IsControl):
		return fmt.Errorf("%s: contains a line break or another control character; want the token alone", name)
	case strings.TrimSpace(token) != token:
		return fmt.Errorf("%s: begins or ends with a blank; want the token alone", name)
	}
	return nil
}

// secrets is what a client derives from its credentials: the token it sends and
// the means to find any of it in what comes back.
type secrets struct {
	bearer   string
	redactor *strings.Replacer
}

// newSecrets encodes T = base64(vendorToken ":" partnerToken), standard
// alphabet with padding, as the platform's sample code has it.
func newSecrets(c Credentials) *secrets {
	vendor, partner := c.tokens()
	bearer := base64.StdEncoding.EncodeToString([]byte(vendor + ":" + partner))
	return &secrets{
		bearer:   bearer,
		redactor: newRedactor(bearer, strings.TrimRight(bearer, "="), vendor, partner),
	}
}
