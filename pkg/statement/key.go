package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The types of PEM block that keys are kept in.
const (
	privateBlock = "PRIVATE KEY" // PKCS #8
	publicBlock  = "PUBLIC KEY"  // SubjectPublicKeyInfo
)

// maxKeyBytes bounds a key file: an ed25519 key in PEM has about 120 bytes.
const maxKeyBytes = 16 << 10

// keyIDBytes is how much of a public key's hash names it.
const keyIDBytes = 16

// Key signs statements. It prints as its id, whatever the verb.
type Key struct {
	private ed25519.PrivateKey
	id      string
}

// KeyID names a public key: the first 16 bytes, in hex, of the SHA-256 of its
// SubjectPublicKeyInfo in DER.
func KeyID(key ed25519.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return "", fmt.Errorf("a public key of %d bytes is no ed25519 key: want %d", len(key), ed25519.PublicKeySize)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:keyIDBytes]), nil
}

// ID is the public name of the key; see [KeyID].
func (k *Key) ID() string { return k.id }

// Public is the half of the key that verifies.
func (k *Key) Public() ed25519.PublicKey {
	public, _ := k.private.Public().(ed25519.PublicKey) // it is one, by the library's word
	return public
}

// PublicPEM is the public half as a PEM block, to hand to whoever verifies.
func (k *Key) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, fmt.Errorf("write public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// String names the key by its id.
func (k *Key) String() string { return "statement.Key(" + k.id + ")" }

// Format prints [Key.String] whatever the verb, so that no verb can reach the key.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// OpenKey reads the private key of a file: one PEM block with an ed25519 key
// in PKCS #8. exposed says whether others than those who should may use the
// file; nil: who is not its owner may have no right to it at all. With create a
// new key is made where the path does not exist. The errors never repeat
// content; a missing file can be told by [fs.ErrNotExist].
func OpenKey(path string, create bool, exposed func(fs.FileInfo) bool) (*Key, error) {
	if create {
		if err := createKey(path); err != nil {
			return nil, fmt.Errorf("create statement key %q: %w", path, err)
		}
	}
	if exposed == nil {
		exposed = func(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
	}
	data, err := readKey(path, exposed)
	if err != nil {
		return nil, fmt.Errorf("statement key %q: %w", path, err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("statement key %q %w", path, err)
	}
	return key, nil
}

func readKey(path string, exposed func(fs.FileInfo) bool) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; restore it from the backup, or make one with `openssl genpkey -algorithm ed25519`", fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // before opening: a pipe would block
		return nil, fmt.Errorf("is not a regular file (%s); want the path of the key itself", info.Mode())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	// The permissions of what is read, not of what the path named before.
	if info, err = file.Stat(); err != nil {
		return nil, err
	}
	if exposed(info) {
		return nil, fmt.Errorf("may be used by others than its owner (mode %04o); run chmod 600 on it", info.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(file, maxKeyBytes))
}

func parseKey(data []byte) (*Key, error) {
	if block, _ := pem.Decode(data); block != nil && block.Type == publicBlock {
		return nil, errors.New("is a public key; signing wants the private one")
	}
	der, err := onlyBlock(data, privateBlock)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("is no ed25519 key in PKCS #8; want one, such as `openssl genpkey -algorithm ed25519` makes")
	}
	key := &Key{private: private}
	key.id, err = KeyID(key.Public())
	return key, err
}

// ParsePublicKey reads a public key as [Key.PublicPEM] writes it.
func ParsePublicKey(data []byte) (ed25519.PublicKey, error) {
	if block, _ := pem.Decode(data); block != nil && block.Type == privateBlock {
		return nil, errors.New("is a private key; want the public one, which `usagebridge statement key` prints")
	}
	der, err := onlyBlock(data, publicBlock)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	public, ok := parsed.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, errors.New("is no ed25519 public key; want what `usagebridge statement key` prints")
	}
	return public, nil
}

// onlyBlock is the content of the one PEM block of that type.
func onlyBlock(data []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("is not one PEM block; want one that begins with -----BEGIN %s-----", kind)
	}
	return block.Bytes, nil
}

// createKey makes a key unless the path exists. It is written aside and then
// linked into place: of several processes that start at once the first wins
// and the others read its.
func createKey(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	aside, err := writeAside(dir, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}))
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(aside) }()
	if err := os.Link(aside, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// What is signed next must not outlive the key.
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}

func writeAside(dir string, data []byte) (path string, err error) {
	file, err := os.CreateTemp(dir, ".statement-key-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, writeErr := file.Write(data)
	if err = errors.Join(writeErr, file.Sync(), file.Close()); err != nil {
		_ = os.Remove(file.Name())
		return "", err
	}
	return file.Name(), nil
}
