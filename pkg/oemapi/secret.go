package oemapi

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const masked = "***"

// Secret is a client's secret, an organization's OEM token, a partner key or a magic
// link. Whatever prints, marshals or logs it shows "***". The zero value holds nothing and is refused
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

// Reveal returns the text itself, for who seals it: it belongs nowhere else. It is
// empty for the zero value.
func (s Secret) Reveal() string {
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

// validateToken says what is wrong with an organization's OEM token.
func validateToken(organization Secret) error {
	return validateCredential("organization OEM token", organization.Reveal())
}

// given says that a field of a request is missing.
func given(field, text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New(field + ": empty; the platform wants one")
	}
	return nil
}

// received is a secret of an answer, or what is wrong with it.
func received(field, text string) (Secret, error) {
	if text == "" {
		return Secret{}, fmt.Errorf("the answer has no %s", field)
	}
	if validateCredential(field, text) != nil {
		return Secret{}, fmt.Errorf("%s of the answer is no secret that a request could carry: it has blanks or control characters", field)
	}
	return NewSecret(text), nil
}

// validateLink says what is wrong with an address to which a person is to be sent,
// without repeating any of it.
func validateLink(link string) error {
	u, err := url.Parse(link)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("the answer has no url to send the user to; want an absolute http or https address")
	}
	return nil
}
