package onboarding

import (
	"errors"
	"time"
)

// Class sorts the ways in which a call to the platform can fail.
type Class string

// The classes of failure.
const (
	Exists       Class = "exists"       // what was to be made is there, or something else has its name
	NotFound     Class = "not_found"    // what the call is about is not there
	Unauthorized Class = "unauthorized" // the client's id or secret are refused
	Forbidden    Class = "forbidden"    // the organization's OEM token is refused
	Rejected     Class = "rejected"     // the request is refused, and will be every time
	Passing      Class = "passing"      // the same call may succeed after some time
	Unreadable   Class = "unreadable"   // an answer outside the protocol
	Cancelled    Class = "cancelled"    // our own wish; not an attempt
	Sealed       Class = "sealed"       // no call: a secret of the record cannot be opened
)

// CallError is a call that did not succeed, in the words of this package.
type CallError struct {
	Class Class
	// Unknown says that the platform may have done what it was asked; a secret in
	// its answer is lost then.
	Unknown    bool
	RetryAfter time.Duration // as the platform asked; 0: it did not
	Err        error         // without any secret
}

// Error is the cause's text.
func (f *CallError) Error() string { return f.Err.Error() }

// Unwrap is the cause.
func (f *CallError) Unwrap() error { return f.Err }

// failureOf is the failure in an error of a call; one that is none may have
// happened anywhere.
func failureOf(err error) *CallError {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*CallError](err); ok {
		return f
	}
	return &CallError{Class: Unreadable, Unknown: true, Err: err}
}

// Problem says why an onboarding does not go on. The list is closed.
type Problem string

// The problems. Whether a person has to do something is [Problem.Stops].
const (
	ProblemOrganizationExists Problem = "organization_exists" // and we have no reason to believe that we made it
	ProblemNoOrganization     Problem = "no_organization"     // there is none to add the user to
	ProblemUserTaken          Problem = "user_taken"          // the user belongs to somebody else
	ProblemVendor             Problem = "vendor"              // none that could be integrated as it was asked for
	ProblemLost               Problem = "lost"                // the integration is there, and its partner key is not known
	ProblemNotListed          Problem = "not_listed"          // a partner key was given, and there is no integration
	ProblemRejected           Problem = "rejected"            // the platform refuses the request
	ProblemUnregistered       Problem = "unregistered"        // the integration cannot be recorded here
	ProblemUnauthorized       Problem = "unauthorized"        // the platform refuses the client
	ProblemForbidden          Problem = "forbidden"           // the platform refuses the OEM token
	ProblemPassing            Problem = "passing"             // no usable answer now
	ProblemUnreadable         Problem = "unreadable"          // an answer outside the protocol
	ProblemNotFound           Problem = "not_found"           // perhaps the address is wrong
	ProblemSealed             Problem = "sealed"              // another keyset sealed the record
)

// Stops says whether another value, or a deed of a person, is needed: trying
// again with the same changes nothing.
func (p Problem) Stops() bool {
	switch p {
	case ProblemOrganizationExists, ProblemNoOrganization, ProblemUserTaken, ProblemVendor, ProblemLost, ProblemNotListed, ProblemRejected, ProblemUnregistered:
		return true
	case ProblemUnauthorized, ProblemForbidden, ProblemPassing, ProblemUnreadable, ProblemNotFound, ProblemSealed:
	}
	return false
}

var problems = map[Class]Problem{
	Exists: ProblemRejected, NotFound: ProblemNotFound, Unauthorized: ProblemUnauthorized, Forbidden: ProblemForbidden,
	Rejected: ProblemRejected, Passing: ProblemPassing, Unreadable: ProblemUnreadable, Cancelled: ProblemPassing, Sealed: ProblemSealed,
}

// Error is why a step was not done.
type Error struct {
	Step    Step
	Problem Problem
	Message string
	// Wait is how long the platform asked to wait; 0: it did not.
	Wait  time.Duration
	cause error
}

// Error says what is wrong.
func (e *Error) Error() string { return e.Message }

// Unwrap is the failure of the call, if one failed.
func (e *Error) Unwrap() error { return e.cause }

// Temporary says whether the same may succeed soon, with nothing else changed.
func (e *Error) Temporary() bool { return e.Problem == ProblemPassing }

// RetryAfter is how long the platform asked to wait, and whether it asked.
func (e *Error) RetryAfter() (time.Duration, bool) { return e.Wait, e.Wait > 0 }

// BusyError says that somebody else is at a step.
type BusyError struct {
	Name  string // of the onboarding
	Step  Step
	By    string
	Since time.Time
}

// Error says who is at it, and since when.
func (e *BusyError) Error() string {
	return "the onboarding of " + e.Name + " is under way: " + e.By + " is at step " + string(e.Step) + " since " + e.Since.UTC().Format(time.RFC3339)
}

// Temporary is true: it ends, or can be taken over.
func (*BusyError) Temporary() bool { return true }

// Until is when it can be taken over.
func (e *BusyError) Until() time.Time { return e.Since.Add(patience) }
