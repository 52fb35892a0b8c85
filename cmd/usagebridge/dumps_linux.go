package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidDumps sets the size that an image may have to nothing. That alone would
// not hold for a program to which the kernel hands images.
func forbidDumps() error {
	err := hideMemory()
	if limitErr := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); limitErr != nil {
		err = errors.Join(err, fmt.Errorf("set RLIMIT_CORE to 0: %w", limitErr))
	}
	return err
}

// hideMemory has no image made at all, and lets nobody but root look into the
// process.
func hideMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set PR_SET_DUMPABLE to 0: %w", err)
	}
	return nil
}
