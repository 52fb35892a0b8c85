package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// ErrLocked says that somebody else is changing the keyset.
var ErrLocked = errors.New("another command is changing it")

// File is a keyset's file that is being changed, by nobody else meanwhile.
// Every change replaces the file as a whole: it is written aside, read back,
// and renamed, so that whoever reads the path finds the former keyset or the
// new one. Owner and mode stay.
type File struct {
	source Source
	path   string // of the file itself, where the source names a link
	lock   *flock.Flock
}

// asideAge is how old a file must be that was written aside, until it is what a
// crash has left behind.
const asideAge = time.Minute

// Edit opens the keyset's file to change it. The lock is a file beside it.
func Edit(source Source) (*File, error) {
	if source.File == "" {
		return nil, errors.New("the keyset is given inline: nobody but whoever sets the variable can change it")
	}
	path, err := filepath.EvalSymlinks(source.File)
	if err != nil {
		return nil, fmt.Errorf("master keyset %q: %w", source.File, err)
	}
	f := &File{source: source, path: path, lock: flock.New(path+".lock", flock.SetPermissions(0o600))}
	got, err := f.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("master keyset %q: lock it: %w", source.File, err)
	}
	if !got {
		return nil, fmt.Errorf("master keyset %q: %w", source.File, ErrLocked)
	}
	f.tidy()
	return f, nil
}

// Close ends the change.
func (f *File) Close() error { return f.lock.Close() }

// tidy removes what a crash has left behind: it is a keyset as well.
func (f *File) tidy() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.path), asidePattern))
	for _, path := range left {
		if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > asideAge {
			_ = os.Remove(path)
		}
	}
}

// Path is where the keyset is.
func (f *File) Path() string { return f.source.File }

// Vault opens the keyset as it is now.
func (f *File) Vault() (*Vault, error) {
	source := f.source
	source.CreateIfMissing = false
	return Open(source)
}

// Add puts a new key behind the others. It seals nothing until it is promoted.
func (f *File) Add() (Key, error) {
	var id uint32
	err := f.change(func(m *keyset.Manager) (err error) {
		id, err = m.Add(aead.AES256GCMKeyTemplate())
		return err
	})
	if err != nil {
		return Key{}, fmt.Errorf("master keyset %q: add a key: %w", f.source.File, err)
	}
	v, err := f.Vault()
	if err != nil {
		return Key{}, err
	}
	k, _ := v.ring().key(id)
	return k, nil
}

// Promote makes a key the one that seals.
func (f *File) Promote(id uint32) error {
	if err := f.change(func(m *keyset.Manager) error { return m.SetPrimary(id) }); err != nil {
		return fmt.Errorf("master keyset %q: promote key %d: %w", f.source.File, id, err)
	}
	return nil
}

// Retire removes a key. What it has sealed cannot be opened by anybody then:
// it is for the caller to know that there is nothing. The primary key is
// refused.
func (f *File) Retire(id uint32) error {
	if err := f.change(func(m *keyset.Manager) error { return m.Delete(id) }); err != nil {
		return fmt.Errorf("master keyset %q: retire key %d: %w", f.source.File, id, err)
	}
	return nil
}

// Wrap encrypts the keyset with the key that the source names.
func (f *File) Wrap() error {
	data, err := readFile(f.path)
	if err == nil {
		var handle *keyset.Handle
		if handle, _, err = readKeyset(data, f.source.master); err == nil {
			var master tink.AEAD
			if master, err = f.source.master(); err == nil {
				err = f.replace(handle, master)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("master keyset %q: encrypt it: %w", f.source.File, err)
	}
	return nil
}

// change replaces the keyset by what edit makes of it. One that is encrypted
// stays so.
func (f *File) change(edit func(*keyset.Manager) error) error {
	data, err := readFile(f.path)
	if err != nil {
		return err
	}
	handle, wrapped, err := readKeyset(data, f.source.master)
	if err != nil {
		return err
	}
	manager := keyset.NewManagerFromHandle(handle)
	if err := edit(manager); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "keyset.Manager: "))
	}
	if handle, err = manager.Handle(); err != nil {
		return err
	}
	var wrap tink.AEAD
	if wrapped {
		if wrap, err = f.source.master(); err != nil {
			return err
		}
	}
	return f.replace(handle, wrap)
}

// replace puts a keyset in the place of the file.
func (f *File) replace(handle *keyset.Handle, wrap tink.AEAD) error {
	data, err := writeKeyset(handle, wrap)
	if err != nil {
		return err
	}
	if _, err := openRing(data, f.source.master); err != nil {
		return fmt.Errorf("what would be written %w", err)
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(f.path)
	aside, err := writeAside(dir, data)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(aside) }() // gone already if all went well
	if err := likeFormer(aside, info); err != nil {
		return err
	}
	if err := os.Rename(aside, f.path); err != nil {
		return err
	}
	return syncDir(dir)
}

// likeFormer gives the new file the owner and the mode of the one that it
// replaces: a worker that runs as another user must be able to read it.
func likeFormer(aside string, former fs.FileInfo) error {
	if uid, gid, known := ownerOf(former); known {
		mine, err := os.Stat(aside)
		if err != nil {
			return err
		}
		if u, g, _ := ownerOf(mine); u != uid || g != gid {
			if err := os.Chown(aside, uid, gid); err != nil {
				return fmt.Errorf("keep its owner: %w; run the command as root, or as the owner of the file", err)
			}
		}
	}
	return os.Chmod(aside, former.Mode().Perm())
}
