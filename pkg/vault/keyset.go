package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// GenerateKeyset returns a new keyset with one AES256-GCM key as JSON, ending
// in a line break. It is the secret that protects all others.
//
// The keyset is written in clear ("insecure" in the library's words): what
// protects it is the permissions of its file or of the variable that holds it.
// [File.Wrap] encrypts it with a key of a key management service.
func GenerateKeyset() ([]byte, error) { return generateKeyset(nil) }

// generateKeyset encrypts the keyset with wrap, unless that is nil.
func generateKeyset(wrap tink.AEAD) ([]byte, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("generate master keyset: %w", err)
	}
	return writeKeyset(handle, wrap)
}

// writeKeyset is the keyset as its file has it.
func writeKeyset(handle *keyset.Handle, wrap tink.AEAD) ([]byte, error) {
	var buffer bytes.Buffer
	var err error
	if writer := keyset.NewJSONWriter(&buffer); wrap == nil {
		err = insecurecleartextkeyset.Write(handle, writer)
	} else {
		err = handle.Write(writer, wrap)
	}
	if err != nil {
		return nil, fmt.Errorf("write master keyset: %w", err)
	}
	buffer.WriteByte('\n')
	return buffer.Bytes(), nil
}

// readKeyset reads a keyset in clear or, with unwrap, one that is encrypted;
// wrapped says which it was. The library's errors are not passed on: parsers
// quote what they could not read, and this is key material.
func readKeyset(data []byte, unwrap func() (tink.AEAD, error)) (handle *keyset.Handle, wrapped bool, err error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, false, errors.New("is empty; restore it from the backup")
	}
	if !json.Valid(data) {
		return nil, false, errors.New("is not JSON; want a Tink keyset in JSON")
	}
	if wrapped, err = checkOutline(data); err != nil {
		return nil, wrapped, err
	}
	reader := keyset.NewJSONReader(bytes.NewReader(data))
	if wrapped {
		master, err := unwrap()
		if err != nil {
			return nil, wrapped, err
		}
		if handle, err = keyset.Read(reader, master); err != nil {
			return nil, wrapped, fmt.Errorf("cannot be decrypted with the key that %s names: %w", EnvMasterKeyURI, err)
		}
		return handle, wrapped, nil
	}
	if handle, err = insecurecleartextkeyset.Read(reader); err != nil {
		return nil, wrapped, errors.New("is not a Tink keyset; want the fields primaryKeyId and key, with one enabled key of that id")
	}
	return handle, wrapped, nil
}

// checkOutline finds the faults that deserve a better word than "not a keyset".
func checkOutline(data []byte) (wrapped bool, err error) {
	var outline struct {
		EncryptedKeyset json.RawMessage `json:"encryptedKeyset"`
		PrimaryKeyID    json.RawMessage `json:"primaryKeyId"`
		Key             []struct {
			KeyID  json.RawMessage `json:"keyId"`
			Status string          `json:"status"`
		} `json:"key"`
	}
	if json.Unmarshal(data, &outline) != nil {
		return false, errors.New("is not a Tink keyset; want a JSON object with the fields primaryKeyId and key")
	}
	if outline.EncryptedKeyset != nil {
		return true, nil
	}
	if len(outline.Key) == 0 {
		return false, errors.New("holds no key; want the field key with at least one")
	}
	for _, key := range outline.Key {
		if key.Status == "ENABLED" && bytes.Equal(key.KeyID, outline.PrimaryKeyID) {
			return false, nil
		}
	}
	return false, errors.New("has no primary key; want primaryKeyId to be the keyId of an ENABLED key")
}
