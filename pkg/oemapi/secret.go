package oemapi

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

const masked = "***"

// Secret is a client's secret or an organization's OEM token. Whatever prints,
// marshals or logs it shows "***". The zero value holds nothing and is refused
// wherever a secret is asked for.
type Secret struct {
	// A function, because fmt cannot call our methods on an unexported field of
	// somebody else's struct: it would print a plain field. Of a function it has
	// the address.
	text func() string
}

// NewSecret holds the text as it is; the caller trims what a file or a form added.
func NewSecret(text string) Secret { return Secret{text: func() string { return text }} }

// String returns "***".
func (Secret) String() string { return masked }

// GoString returns "***".
func (Secret) GoString() string { return masked }

// Format prints "***" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// MarshalText returns "***", in JSON too: secrets are not meant to be stored in
// this form.
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// LogValue returns "***".
func (Secret) LogValue() slog.Value { return slog.StringValue(masked) }

func (s Secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return s.text()
}

// validateCredential says what is wrong with an id, a secret or a token, without
// repeating any of it.
func validateCredential(name, text string) error {
	switch {
	case text == "":
		return errors.New(name + ": empty; copy it from the platform")
	case !utf8.ValidString(text):
		// JSON would carry another one in its place.
		return errors.New(name + ": is not valid UTF-8; copy it again from the platform")
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New(name + ": contains a line break or another control character; want it alone")
	case strings.TrimSpace(text) != text:
		return errors.New(name + ": begins or ends with a blank; want it alone")
	default:
		return nil
	}
}
