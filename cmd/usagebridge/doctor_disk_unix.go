//go:build linux || darwin

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// diskOf is the file system of a directory, or of the nearest one above it
// that exists.
func diskOf(dir string) diskFacts {
	for {
		var s syscall.Statfs_t
		err := syscall.Statfs(dir, &s)
		if err == nil {
			block := uint64(s.Bsize)
			return diskFacts{free: s.Bavail * block, size: s.Blocks * block}
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return diskFacts{err: fmt.Errorf("look at the disk of %s: %w", dir, err)}
		}
		dir = up
	}
}
