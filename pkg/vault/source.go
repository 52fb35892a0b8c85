package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// EnvMasterKeyset is the environment variable that names the keyset; errors
// point to it.
const EnvMasterKeyset = "USAGEBRIDGE_MASTER_KEYSET"

const maxKeysetBytes = 1 << 20

// Source says where the master keyset is: in a file or, inline, in the
// configuration itself. Exactly one of File and Inline is set.
type Source struct {
	// File is the path of the keyset. Nobody but its owner may read it.
	File string
	// Inline is the keyset's JSON.
	Inline Secret
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
	case source.File == "":
		vault, err := openKeyset([]byte(source.Inline.Reveal()))
		if err != nil {
			return nil, fmt.Errorf("master keyset in %s %w", EnvMasterKeyset, err)
		}
		return vault, nil
	}
	if source.CreateIfMissing {
		if err := createFile(source.File); err != nil {
			return nil, fmt.Errorf("create master keyset %q: %w", source.File, err)
		}
	}
	data, err := readFile(source.File)
	if err != nil {
		return nil, fmt.Errorf("master keyset %q: %w", source.File, err)
	}
	vault, err := openKeyset(data)
	if err != nil {
		return nil, fmt.Errorf("master keyset %q %w", source.File, err)
	}
	return vault, nil
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
	if info.Mode().Perm()&0o077 != 0 {
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

// createFile makes the keyset unless the path exists. It is written aside and
// then linked into place: whoever sees the path sees a whole keyset, and of
// several processes that start at once the first wins and the others read its.
func createFile(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := GenerateKeyset()
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
	file, err := os.CreateTemp(dir, ".keyset-*") // mode 0600
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
