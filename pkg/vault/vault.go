// Package vault keeps secrets at rest: it seals a token into ciphertext that
// can be stored anywhere and opens it again, with a master keyset that lives
// outside the store. A ciphertext is bound to the name it was sealed for; put
// under another name it does not open.
//
// Keys are rotated while all this is in use: a [File] changes the keyset, a
// [Vault] that follows its file takes the change without a restart, and
// [Reseal] seals anew what an older key has sealed.
//
// It deliberately does not know what the secrets are for, where ciphertext is
// stored, who may ask for it, or who else has the keyset.
package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// formatTag says how a ciphertext was made, so that another way can be told
// apart later.
const formatTag = "tink1:"

// ErrSealed is in the chain of every error of [Vault.Open]: the ciphertext
// stays closed, and trying again with the same keyset does not help.
var ErrSealed = errors.New("secret cannot be opened")

// Vault seals and opens with one keyset. It is safe for concurrent use and
// holds nothing that needs closing.
type Vault struct {
	// Behind a pointer, of which fmt shows but the address.
	state *state
}

// state is what changes in a vault.
type state struct {
	source    Source
	ring      atomic.Pointer[ring]
	reloading sync.Mutex
	complaint atomic.Pointer[error]
}

// Seal encrypts a secret for the owner named by aad, such as
// "vendor/organization", who is authenticated but not part of the result. The
// result is printable ASCII without blanks, and different every time. Sealing
// nothing, or for nobody, is an error.
func (v *Vault) Seal(s Secret, aad string) (string, error) {
	if s.IsZero() {
		return "", errors.New("seal secret: it is empty; want the token itself")
	}
	if aad == "" {
		return "", errors.New("seal secret: no integration named; want vendor/organization")
	}
	sealed, err := v.ring().aead.Encrypt([]byte(s.Reveal()), []byte(aad))
	if err != nil {
		return "", fmt.Errorf("seal secret of %q: %w", aad, err)
	}
	return formatTag + base64.StdEncoding.EncodeToString(sealed), nil
}

// Open decrypts what [Vault.Seal] made for the same aad. Every error wraps
// [ErrSealed], says which cause is the likely one, and repeats no content.
func (v *Vault) Open(ciphertext, aad string) (Secret, error) {
	r := v.ring()
	encoded, ok := strings.CutPrefix(ciphertext, formatTag)
	if !ok {
		return Secret{}, fmt.Errorf("open secret of %q: %w: the text does not begin with %q; it was not sealed by this program, or by a newer version",
			aad, ErrSealed, formatTag)
	}
	sealed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Secret{}, fmt.Errorf("open secret of %q: %w: the text is damaged, it is not base64; enter the credentials again", aad, ErrSealed)
	}
	text, err := r.aead.Decrypt(sealed, []byte(aad))
	if err != nil {
		return Secret{}, fmt.Errorf("open secret of %q: %w: %s", aad, ErrSealed, r.diagnosis(ciphertext))
	}
	return NewSecret(string(text)), nil
}

// KeyOf is the id of the key that sealed a ciphertext, as the ciphertext has it
// in clear; ok is false for what was not sealed by this program.
func KeyOf(ciphertext string) (id uint32, ok bool) {
	encoded, ok := strings.CutPrefix(ciphertext, formatTag)
	if !ok {
		return 0, false
	}
	// A Tink ciphertext begins with 1 and the id of its key.
	sealed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(sealed) < 5 || sealed[0] != 1 {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:5]), true
}

// diagnosis tells a wrong keyset from a wrong record, which the library does not.
func (r *ring) diagnosis(ciphertext string) string {
	if id, ok := KeyOf(ciphertext); ok {
		if _, known := r.key(id); !known {
			return fmt.Sprintf("it names key %d, the keyset has primary key %d and not that one; check that %s is the keyset it was sealed with",
				id, r.primary, EnvMasterKeyset)
		}
	}
	return fmt.Sprintf("the keyset (primary key %d) does not fit; check that the record was not copied from another integration or altered, and that %s is the keyset it was sealed with",
		r.primary, EnvMasterKeyset)
}

// Mark is a fingerprint of a secret: 16 hexadecimal digits, the same for the
// same secret of the same owner as long as the primary key is the same. It is
// an HMAC-SHA256 with a key derived (HKDF) from the primary key, so that
// nobody without the keyset can find even a short secret by trying.
func (v *Vault) Mark(s Secret, owner string) string {
	mac := hmac.New(sha256.New, v.ring().marks)
	_, _ = fmt.Fprintf(mac, "%d %s %s", len(owner), owner, s.Reveal())
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// Keys lists the keys in the order of the keyset, in which a later one is newer.
func (v *Vault) Keys() []Key { return slices.Clone(v.ring().keys) }

// Primary is the key that seals.
func (v *Vault) Primary() Key {
	r := v.ring()
	k, _ := r.key(r.primary)
	return k
}

// Wrapped says whether the keyset is encrypted where it lies.
func (v *Vault) Wrapped() bool { return v.ring().wrapped }

// Unwraps says whether the vault could decrypt a keyset that is encrypted.
func (v *Vault) Unwraps() bool { return v.state.source.KeyURI != "" }

func (v *Vault) ring() *ring { return v.state.ring.Load() }

// Fingerprint returns the id of the primary key in decimal, as the keyset file
// has it. It is public: two vaults with different fingerprints seal with
// different keys.
func (v *Vault) Fingerprint() string { return strconv.FormatUint(uint64(v.ring().primary), 10) }

// String names the vault by its fingerprint.
func (v *Vault) String() string { return "vault.Vault(key " + v.Fingerprint() + ")" }

// Format prints [Vault.String] whatever the verb, so that no verb can reach the keys.
func (v *Vault) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }
