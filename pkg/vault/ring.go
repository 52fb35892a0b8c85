package vault

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KeyState is where a key of a keyset stands on its way.
type KeyState string

// The states of a key. The order of the keys in the keyset tells new from old,
// since a key that is added comes last.
const (
	// Fresh: it opens, and seals nothing yet. [File.Add] moves in,
	// [File.Promote] moves out.
	Fresh KeyState = "new"
	// Primary: it seals, and opens. [File.Promote] moves in, and out when it
	// promotes another.
	Primary KeyState = "primary"
	// Old: it only opens what it sealed before. [File.Retire] removes it.
	Old KeyState = "old"
	// Disabled: another program has switched it off. It neither seals nor
	// opens.
	Disabled KeyState = "disabled"
)

// Key is what may be known of a key.
type Key struct {
	ID    uint32   `json:"id"`
	State KeyState `json:"state"`
	// Print tells this key from any other, also from one of the same id. It
	// says nothing of the key itself.
	Print string `json:"fingerprint"`
}

// ring is a keyset in use. It never changes.
type ring struct {
	aead    tink.AEAD
	keys    []Key // in the order of the keyset
	primary uint32
	marks   []byte // key of what [Vault.Mark] returns
	digest  [sha256.Size]byte
	wrapped bool
}

// openRing makes a ring of a keyset's file.
func openRing(data []byte, unwrap func() (tink.AEAD, error)) (*ring, error) {
	handle, wrapped, err := readKeyset(data, unwrap)
	if err != nil {
		return nil, err
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("cannot encrypt: it holds a key that is not for AEAD; want AES256-GCM")
	}
	r := &ring{aead: primitive, digest: sha256.Sum256(data), wrapped: wrapped}
	return r, r.take(handle)
}

// take notes what may be known of the keys.
func (r *ring) take(handle *keyset.Handle) error {
	material := insecurecleartextkeyset.KeysetMaterial(handle).GetKey()
	state := Old
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil || i >= len(material) {
			return fmt.Errorf("has an unreadable key at place %d", i+1)
		}
		secret := material[i].GetKeyData().GetValue()
		key := Key{ID: entry.KeyID(), State: state, Print: printOf(secret)}
		switch {
		case entry.IsPrimary():
			key.State, state = Primary, Fresh
			r.primary = key.ID
			if r.marks, err = hkdf.Key(sha256.New, secret, nil, "usagebridge: marks of secrets", sha256.Size); err != nil {
				return fmt.Errorf("has an unreadable key at place %d", i+1)
			}
		case entry.KeyStatus() != keyset.Enabled:
			key.State = Disabled
		}
		r.keys = append(r.keys, key)
	}
	return nil
}

// printOf needs no key of its own: what it is made of is long and random, and
// cannot be found by trying.
func printOf(secret []byte) string {
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte("usagebridge: print of a key"))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// key finds a key that opens.
func (r *ring) key(id uint32) (Key, bool) {
	for _, k := range r.keys {
		if k.ID == id && k.State != Disabled {
			return k, true
		}
	}
	return Key{}, false
}
