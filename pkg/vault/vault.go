// Package vault keeps secrets at rest: it seals a token into ciphertext that
// can be stored anywhere and opens it again, with a master keyset that lives
// outside the store. A ciphertext is bound to the name it was sealed for; put
// under another name it does not open.
//
// It deliberately does not know what the secrets are for, where ciphertext is
// stored, or who may ask for it. It does not rotate keys by itself; a keyset
// with several keys opens what any of them sealed.
package vault

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// formatTag says how a ciphertext was made, so that another way can be told
// apart later.
const formatTag = "tink1:"

// ErrSealed is in the chain of every error of [Vault.Open]: the ciphertext
// stays closed, and trying again does not help.
var ErrSealed = errors.New("secret cannot be opened")

// Vault seals and opens with one keyset. It is safe for concurrent use and
// holds nothing that needs closing.
type Vault struct {
	aead    tink.AEAD
	primary uint32
	keys    []uint32 // ids of all enabled keys
}

// Seal encrypts a secret for the integration named by aad ("vendor/organization"),
// which is authenticated but not part of the result. The result is printable
// ASCII without blanks, and different every time. Sealing nothing, or for
// nobody, is an error.
func (v *Vault) Seal(s Secret, aad string) (string, error) {
	if s.IsZero() {
		return "", errors.New("seal secret: it is empty; want the token itself")
	}
	if aad == "" {
		return "", errors.New("seal secret: no integration named; want vendor/organization")
	}
	sealed, err := v.aead.Encrypt([]byte(s.Reveal()), []byte(aad))
	if err != nil {
		return "", fmt.Errorf("seal secret of %q: %w", aad, err)
	}
	return formatTag + base64.StdEncoding.EncodeToString(sealed), nil
}

// Open decrypts what [Vault.Seal] made for the same aad. Every error wraps
// [ErrSealed], says which cause is the likely one, and repeats no content.
func (v *Vault) Open(ciphertext, aad string) (Secret, error) {
	encoded, ok := strings.CutPrefix(ciphertext, formatTag)
	if !ok {
		return Secret{}, fmt.Errorf("open secret of %q: %w: the text does not begin with %q; it was not sealed by this program, or by a newer version",
			aad, ErrSealed, formatTag)
	}
	sealed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Secret{}, fmt.Errorf("open secret of %q: %w: the text is damaged, it is not base64; enter the credentials again", aad, ErrSealed)
	}
	text, err := v.aead.Decrypt(sealed, []byte(aad))
	if err != nil {
		return Secret{}, fmt.Errorf("open secret of %q: %w: %s", aad, ErrSealed, v.diagnosis(sealed))
	}
	return NewSecret(string(text)), nil
}

// diagnosis tells a wrong keyset from a wrong record. The library does not, but
// a Tink ciphertext begins with 1 and the id of its key in clear.
func (v *Vault) diagnosis(sealed []byte) string {
	if len(sealed) >= 5 && sealed[0] == 1 {
		id := binary.BigEndian.Uint32(sealed[1:5])
		if !slices.Contains(v.keys, id) {
			return fmt.Sprintf("it names key %d, the keyset has primary key %d and not that one; check that %s is the keyset it was sealed with",
				id, v.primary, EnvMasterKeyset)
		}
	}
	return fmt.Sprintf("the keyset (primary key %d) does not fit; check that the record was not copied from another integration or altered, and that %s is the keyset it was sealed with",
		v.primary, EnvMasterKeyset)
}

// Fingerprint returns the id of the primary key in decimal, as the keyset file
// has it. It is public: two vaults with different fingerprints seal with
// different keys.
func (v *Vault) Fingerprint() string { return strconv.FormatUint(uint64(v.primary), 10) }

// String names the vault by its fingerprint.
func (v *Vault) String() string { return "vault.Vault(key " + v.Fingerprint() + ")" }

// Format prints [Vault.String] whatever the verb, so that no verb can reach the keys.
func (v *Vault) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }
