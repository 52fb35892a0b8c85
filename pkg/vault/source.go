package vault

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// The environment variables that say where the keyset is and with what it is
// encrypted there; errors point to them.
const (
	EnvMasterKeyset = "USAGEBRIDGE_MASTER_KEYSET"
	EnvMasterKeyURI = "USAGEBRIDGE_MASTER_KEY_URI"
)

const (
	maxKeysetBytes = 1 << 20
	// asidePattern is how files are named that hold a keyset until it is whole.
	asidePattern = ".keyset-*"
)

// Source says where the master keyset is: in a file or, inline, in the
// configuration itself. Exactly one of File and Inline is set.
type Source struct {
	// File is the path of the keyset. Nobody but its owner may read it.
	File string
	// Inline is the keyset's JSON.
	Inline Secret
	// KeyURI names the key of a key management service with which the keyset
	// is encrypted, such as hcvault://vault.example:8200/transit/keys/bridge.
	// A keyset in clear is read all the same, until [File.Wrap] has encrypted
	// it. Empty: the keyset is in clear.
	KeyURI string
	// KMS knows KeyURI; nil: one of those registered with Tink does.
	KMS registry.KMSClient
	// CreateIfMissing makes a new keyset where File does not exist. Only safe
	// where nothing was sealed yet: a lost keyset cannot be made again.
	CreateIfMissing bool
}

// ParseSource reads the value of [EnvMasterKeyset]: one that begins with "{" is
// the keyset itself, any other is a path. Blanks around it are ignored.
func ParseSource(value string) Source {
	value = strings.TrimSpace(value)
	if strings.HasPrefix(value, "{") {
		return Source{Inline: NewSecret(value)}
	}
	return Source{File: value}
}

// Open loads the keyset and returns a vault that uses it. The errors name the
// file and what to do; they never repeat content. A missing file can be told
// by [fs.ErrNotExist].
func Open(source Source) (*Vault, error) {
	switch {
	case source.File == "" && source.Inline.IsZero():
		return nil, errors.New("no master keyset; set " + EnvMasterKeyset + " to its path or to its JSON")
	case source.File != "" && !source.Inline.IsZero():
		return nil, errors.New("two master keysets, a path and an inline one; set " + EnvMasterKeyset + " to one of them")
	}
	if source.File != "" && source.CreateIfMissing {
		if err := source.create(); err != nil {
			return nil, fmt.Errorf("create master keyset %q: %w", source.File, err)
		}
	}
	r, err := source.read([sha256.Size]byte{})
	if err != nil {
		return nil, err
	}
	return &Vault{state: newState(source, r)}, nil
}

// where names the source in errors.
func (s *Source) where() string {
	if s.File == "" {
		return "in " + EnvMasterKeyset
	}
	return strconv.Quote(s.File)
}

// bytes is the keyset as it lies there.
func (s *Source) bytes() ([]byte, error) {
	if s.File == "" {
		return []byte(s.Inline.Reveal()), nil
	}
	data, err := readFile(s.File)
	if err != nil {
		return nil, fmt.Errorf("master keyset %q: %w", s.File, err)
	}
	return data, nil
}

// master is what a keyset that is encrypted is decrypted with.
func (s *Source) master() (tink.AEAD, error) {
	if s.KeyURI == "" {
		return nil, errors.New("is an encrypted Tink keyset; set " + EnvMasterKeyURI + " to the key it is encrypted with, or give one in clear")
	}
	client := s.KMS
	if client == nil {
		var err error
		if client, err = registry.GetKMSClient(s.KeyURI); err != nil {
			return nil, fmt.Errorf("%s: no key management service is known for %q", EnvMasterKeyURI, s.KeyURI)
		}
	}
	key, err := client.GetAEAD(s.KeyURI)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EnvMasterKeyURI, err)
	}
	return key, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; without it nothing sealed can be opened: restore it from the backup, or point %s to it",
			fs.ErrNotExist, EnvMasterKeyset)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // before opening: a pipe would block
		return nil, fmt.Errorf("is not a regular file (%s); want the path of the keyset itself in %s", info.Mode(), EnvMasterKeyset)
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
	if Exposed(info) {
		return nil, fmt.Errorf("may be used by others than its owner (mode %04o); run chmod 600 on it", info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeysetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeysetBytes {
		return nil, fmt.Errorf("is larger than %d bytes, so it is no keyset", maxKeysetBytes)
	}
	return data, nil
}

// Exposed says whether others than those who should may use a secret's file.
// Any right of its group or of others is one too many, with one exception:
// Kubernetes gives the files of a Secret to root, and lets another user read
// them through the group of the pod (fsGroup). A process that is not root takes
// such a file if its group can do nothing but read it.
func Exposed(info fs.FileInfo) bool {
	return exposed(info, os.Geteuid())
}

func exposed(info fs.FileInfo, reader int) bool {
	const groupReads = 0o040
	rights := info.Mode().Perm() & 0o077
	owner, _, known := ownerOf(info)
	if known && owner == 0 && reader > 0 {
		rights &^= groupReads
	}
	return rights != 0
}

// create makes the keyset unless the path exists. It is written aside and
// then linked into place: whoever sees the path sees a whole keyset, and of
// several processes that start at once the first wins and the others read its.
func (s *Source) create() error {
	path := s.File
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var wrap tink.AEAD
	if s.KeyURI != "" {
		var err error
		if wrap, err = s.master(); err != nil {
			return err
		}
	}
	data, err := generateKeyset(wrap)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	aside, err := writeAside(dir, data)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(aside) }()
	if err := os.Link(aside, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also after losing the race: what is sealed next must not outlive the key.
	return syncDir(dir)
}

func writeAside(dir string, data []byte) (path string, err error) {
	file, err := os.CreateTemp(dir, asidePattern) // mode 0600
	if err != nil {
		return "", err
	}
	_, writeErr := file.Write(data)
	err = errors.Join(writeErr, file.Sync(), file.Close())
	if err != nil {
		_ = os.Remove(file.Name())
		return "", err
	}
	return file.Name(), nil
}

func syncDir(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}
