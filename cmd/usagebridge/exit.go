package main

import (
	"errors"
	"fmt"
)

// Exit codes, the same for every command.
const (
	exitDone   = 0 // everything asked for was done
	exitFailed = 1 // it could not be done; trying again may help
	exitUsage  = 2 // wrong flags, environment or input; trying again does not help
	exitPartly = 3 // done in part: what was refused or is missing has been listed
)

// usageError is an error that only the caller can mend.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// partlyError is the end of a command that did a part of what was asked.
type partlyError struct{ error }

func (e partlyError) Unwrap() error { return e.error }

func partlyf(format string, args ...any) error { return partlyError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	var usage usageError
	var partly partlyError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &partly):
		return exitPartly
	}
	return exitFailed
}
