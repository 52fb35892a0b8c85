package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// GenerateKeyset returns a new keyset with one AES256-GCM key as JSON, ending
// in a line break. It is the secret that protects all others.
//
// The keyset is written in clear ("insecure" in the library's words): it has to
// lie somewhere, and what protects it is the permissions of its file or of the
// variable that holds it. A key management service can be put behind [Open]
// and [Vault] without a change for those who seal and open.
func GenerateKeyset() ([]byte, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("generate master keyset: %w", err)
	}
	var buffer bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buffer)); err != nil {
		return nil, fmt.Errorf("write master keyset: %w", err)
	}
	buffer.WriteByte('\n')
	return buffer.Bytes(), nil
}

// openKeyset makes a vault of a keyset's JSON. The library's errors are not
// passed on: parsers quote what they could not read, and this is key material.
func openKeyset(data []byte) (*Vault, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty; restore it from the backup")
	}
	if !json.Valid(data) {
		return nil, errors.New("is not JSON; want a Tink keyset in JSON")
	}
	if err := checkOutline(data); err != nil {
		return nil, err
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		return nil, errors.New("is not a Tink keyset; want the fields primaryKeyId and key, with one enabled key of that id")
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("cannot encrypt: it holds a key that is not for AEAD; want AES256-GCM")
	}
	vault := &Vault{aead: primitive}
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("has an unreadable key at place %d", i+1)
		}
		if entry.KeyStatus() == keyset.Enabled {
			vault.keys = append(vault.keys, entry.KeyID())
		}
		if entry.IsPrimary() {
			vault.primary = entry.KeyID()
		}
	}
	return vault, nil
}

// checkOutline finds the faults that deserve a better word than "not a keyset".
func checkOutline(data []byte) error {
	var outline struct {
		EncryptedKeyset json.RawMessage `json:"encryptedKeyset"`
		PrimaryKeyID    json.RawMessage `json:"primaryKeyId"`
		Key             []struct {
			KeyID  json.RawMessage `json:"keyId"`
			Status string          `json:"status"`
		} `json:"key"`
	}
	if json.Unmarshal(data, &outline) != nil {
		return errors.New("is not a Tink keyset; want a JSON object with the fields primaryKeyId and key")
	}
	if outline.EncryptedKeyset != nil {
		return errors.New("is an encrypted Tink keyset; want one in clear")
	}
	if len(outline.Key) == 0 {
		return errors.New("holds no key; want the field key with at least one")
	}
	for _, key := range outline.Key {
		if key.Status == "ENABLED" && bytes.Equal(key.KeyID, outline.PrimaryKeyID) {
			return nil
		}
	}
	return errors.New("has no primary key; want primaryKeyId to be the keyId of an ENABLED key")
}
