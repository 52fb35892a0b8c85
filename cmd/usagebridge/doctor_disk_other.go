//go:build !linux && !darwin

package main

import (
	"errors"
	"runtime"
)

// diskOf knows nothing of disks on other systems.
func diskOf(string) diskFacts {
	return diskFacts{err: errors.New("the free space of a disk is not known on " + runtime.GOOS)}
}
