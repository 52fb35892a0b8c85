package oemapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Class sorts the ways in which a call can fail. The list is closed; see
// [Classes].
type Class string

const (
	// Unauthorized: 401. The platform refuses the client: no call for any
	// organization will pass until id or secret change.
	Unauthorized Class = "unauthorized"
	// Forbidden: 403. The platform refuses the organization's token: the client
	// and its other organizations are not concerned.
	Forbidden Class = "forbidden"
	// NotFound: 404. What the call is about does not exist, or the API is not at
	// this address; the platform does not say which.
	NotFound Class = "not_found"
	// Throttled: 429.
	Throttled Class = "throttled"
	// Exists: 409. What was to be made is there already, or something else has its
	// name.
	Exists Class = "exists"
	// Rejected: 400, 422 and other 4xx, and what this client refuses to send
	// at all (then [Error.StatusCode] is 0).
	Rejected Class = "rejected"
	// Unavailable: 5xx, 408, 425, and 407, which our own proxy says.
	Unavailable Class = "unavailable"
	// Network: no answer. Name resolution, TLS, refused, reset, timed out; also an
	// answer that began and broke off.
	Network Class = "network"
	// Unexpected: an answer outside the protocol, such as a redirect, a success
	// that is not what was asked for, or one whose body says another status.
	Unexpected Class = "unexpected"
	// Cancelled: the caller's context ended the call, by cancel or by a deadline
	// of its own. Not an attempt.
	Cancelled Class = "cancelled"
)

// Classes returns every class there is, in a fixed order.
func Classes() []Class {
	return []Class{
		Unauthorized, Forbidden, NotFound, Throttled, Exists, Rejected, Unavailable, Network, Unexpected, Cancelled,
	}
}

// Error is a call that did not succeed. It holds no secret, no header, no part of
// the request and no raw bytes of the answer; what the platform said is cut at 512
// bytes and free of control characters and of our secrets.
type Error struct {
	operation     string
	class         Class
	status        int
	message       string
	retryAfter    time.Duration
	hasRetryAfter bool
	cause         error // of package context, or nil: other causes may quote the wire
}

// Error says what was called and what came of it.
func (e *Error) Error() string {
	switch {
	case e.class == Cancelled:
		return e.operation + ": " + e.message
	case e.status != 0:
		text := strings.TrimSpace(fmt.Sprintf("%s: platform answered %d %s", e.operation, e.status, http.StatusText(e.status)))
		if e.message != "" {
			text += ": " + e.message
		}
		return text
	case e.class == Rejected:
		return e.operation + ": not sent: " + e.message
	default:
		return e.operation + ": no answer: " + e.message
	}
}

// Class returns what kind of failure this is.
func (e *Error) Class() Class { return e.class }

// StatusCode returns the HTTP status of the answer, 0 without an answer.
func (e *Error) StatusCode() int { return e.status }

// Message returns the platform's own words or, without an answer, the reason; one
// line, at most 512 bytes, perhaps empty.
func (e *Error) Message() string { return e.message }

// RetryAfter returns how long the platform asked us to wait, 0 to 24 hours, and
// whether it asked at all.
func (e *Error) RetryAfter() (time.Duration, bool) { return e.retryAfter, e.hasRetryAfter }

// Temporary reports whether the same call may succeed after some time, with
// nothing else changed: [Throttled], [Unavailable], [Network].
//
// The classes that are neither temporary nor permanent wait for somebody:
// [Unauthorized] and [Forbidden] for another secret, [NotFound] for what is
// missing; [Cancelled] waits for nothing.
func (e *Error) Temporary() bool {
	return e.class == Throttled || e.class == Unavailable || e.class == Network
}

// Permanent reports whether the same call will fail every time: [Exists],
// [Rejected], [Unexpected].
func (e *Error) Permanent() bool {
	return e.class == Exists || e.class == Rejected || e.class == Unexpected
}

// Unknown reports whether the platform may have done what it was asked, although it
// did not say so in words that we understand: [Unavailable], [Network],
// [Unexpected], [Cancelled]. Secrets that it gave in that answer are lost.
func (e *Error) Unknown() bool {
	return e.class == Unavailable || e.class == Network || e.class == Unexpected || e.class == Cancelled
}

// Unwrap returns [context.Canceled] or [context.DeadlineExceeded] where one of
// them ended the call, else nil.
func (e *Error) Unwrap() error { return e.cause }

// classOf judges an answer that is no success.
func classOf(status int) Class {
	switch {
	case status == http.StatusUnauthorized:
		return Unauthorized
	case status == http.StatusForbidden:
		return Forbidden
	case status == http.StatusNotFound:
		return NotFound
	case status == http.StatusTooManyRequests:
		return Throttled
	case status == http.StatusConflict:
		return Exists
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusProxyAuthRequired, status >= 500 && status <= 599:
		return Unavailable
	case status >= 400 && status <= 499:
		return Rejected
	default:
		return Unexpected
	}
}

// maxRetryAfter bounds what we believe: a typo must not stop the calls for a year.
const maxRetryAfter = 24 * time.Hour

// parseRetryAfter reads both forms of the header Retry-After (RFC 9110, 10.2.3). A
// date is measured against the answer's own Date where there is one, so that a
// wrong clock on either side does not matter, else against now. A moment in the
// past is 0, one beyond 24 hours is 24 hours; anything else is no advice.
func parseRetryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(header.Get("Retry-After"))
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // out of range is the largest there is
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), maxRetryAfter), true
}
