package vault

import (
	"fmt"
	"io"
	"log/slog"
)

const masked = "***"

// Secret is a text that must not be shown: whatever prints, marshals or logs it
// shows "***", even when it is empty. Only [Secret.Reveal] gives it away. The
// zero value is an empty secret. Secrets cannot be compared with ==.
type Secret struct {
	_ [0]func() // == would compare addresses and always lie
	// A pointer, because fmt cannot call our methods on an unexported field
	// of somebody else's struct; it then prints an address, not the text.
	text *string
}

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text: &text} }

// Reveal returns the text itself. Hand it on at once; do not keep it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is nothing to hide.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String returns "***".
func (Secret) String() string { return masked }

// GoString returns "***".
func (Secret) GoString() string { return masked }

// Format prints "***" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// MarshalText returns "***".
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// MarshalJSON returns "***" as a JSON string: what is to be stored is the
// ciphertext made by [Vault.Seal].
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + masked + `"`), nil }

// LogValue returns "***".
func (Secret) LogValue() slog.Value { return slog.StringValue(masked) }
