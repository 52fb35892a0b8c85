package vendorapi

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Class sorts the ways in which a call can fail. The list is closed; see
// [Classes].
type Class string

const (
	// Unauthorized: 401. No call of this integration will pass until its
	// credentials change.
	Unauthorized Class = "unauthorized"
	// Anomaly: 403. The platform distrusts the figures.
	Anomaly Class = "anomaly"
	// NotFound: 404. The account or service is unknown, or nobody mapped it
	// yet; the platform does not say which.
	NotFound Class = "not_found"
	// NotReady: 409, or a 400 or 403 whose message says that the integration
	// is not ready. What a count gets before the mapping is done is published
	// nowhere, so all three are understood.
	NotReady Class = "not_ready"
	// Throttled: 429.
	Throttled Class = "throttled"
	// Rejected: 400, 422 and other 4xx, and what this client refuses to send
	// at all (then [Error.StatusCode] is 0 and nothing was sent).
	Rejected Class = "rejected"
	// Unavailable: 5xx, 408, 425, and 407, which our own proxy says.
	Unavailable Class = "unavailable"
	// Network: no answer. Name resolution, TLS, refused, reset, timed out; also
	// a read whose answer began and broke off.
	Network Class = "network"
	// Unexpected: an answer outside the protocol, such as a redirect or a read
	// that cannot be understood; and a call the dialect does not have (then
	// [Error.StatusCode] is 0 and nothing was sent).
	Unexpected Class = "unexpected"
	// Cancelled: the caller's context ended the call, by cancel or by a
	// deadline of its own. Not an attempt.
	Cancelled Class = "cancelled"
)

// Classes returns every class there is, in a fixed order.
func Classes() []Class {
	return []Class{
		Unauthorized, Anomaly, NotFound, NotReady, Throttled, Rejected, Unavailable, Network, Unexpected, Cancelled,
	}
}

// Error is a call that did not succeed. It holds no token, no header, no part
// of the request and no raw bytes of the answer; what the partner said is cut
// at 512 bytes and free of control characters and of our credentials.
type Error struct {
	operation     string
	class         Class
	status        int
	message       string
	retryAfter    time.Duration
	hasRetryAfter bool
	sent          bool
	cause         error // of package context, or nil: other causes may quote the wire
}

// Error says what was called and what came of it.
func (e *Error) Error() string {
	switch {
	case e.status != 0:
		text := strings.TrimSpace(fmt.Sprintf("%s: partner answered %d %s", e.operation, e.status, http.StatusText(e.status)))
		if e.message != "" {
			text += ": " + e.message
		}
		return text
	case e.class == Rejected, e.class == Unexpected:
		return e.operation + ": not sent: " + e.message
	case e.class == Cancelled:
		return e.operation + ": " + e.message
	default:
		return e.operation + ": no answer: " + e.message
	}
}

// Class returns what kind of failure this is.
func (e *Error) Class() Class { return e.class }

// StatusCode returns the HTTP status of the answer, 0 without an answer.
func (e *Error) StatusCode() int { return e.status }

// Message returns the partner's own words or, without an answer, the reason;
// one line, at most 512 bytes, perhaps empty.
func (e *Error) Message() string { return e.message }

// RetryAfter returns how long the partner asked us to wait, 0 to 24 hours, and
// whether it asked at all.
func (e *Error) RetryAfter() (time.Duration, bool) { return e.retryAfter, e.hasRetryAfter }

// Temporary reports whether the same call may succeed after some time, with
// nothing else changed: [Throttled], [Unavailable], [Network].
//
// The classes that are neither temporary nor permanent wait for something:
// for new credentials, for a human, for the catalog; [Cancelled] for nothing.
func (e *Error) Temporary() bool {
	return e.class == Throttled || e.class == Unavailable || e.class == Network
}

// Permanent reports whether the same call will fail every time: [Rejected],
// [Unexpected].
func (e *Error) Permanent() bool {
	return e.class == Rejected || e.class == Unexpected
}

// Sent reports whether the request may have reached the partner. It errs on
// the side of true: a connection was there, how far the bytes got is unknown.
func (e *Error) Sent() bool { return e.sent }

// Unknown reports whether the partner may have acted on a request whose answer
// we never saw. Counts are absolute and creations refuse a repeat, so sending
// again is safe.
func (e *Error) Unknown() bool { return e.sent && e.status == 0 }

// Unwrap returns [context.Canceled] or [context.DeadlineExceeded] where one of
// them ended the call, else nil.
func (e *Error) Unwrap() error { return e.cause }

// classOf judges an answer that is no success by its status and message.
func classOf(status int, message string) Class {
	switch {
	case status == http.StatusConflict,
		(status == http.StatusBadRequest || status == http.StatusForbidden) && saysNotReady(message):
		return NotReady
	case status == http.StatusUnauthorized:
		return Unauthorized
	case status == http.StatusForbidden:
		return Anomaly
	case status == http.StatusNotFound:
		return NotFound
	case status == http.StatusTooManyRequests:
		return Throttled
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusProxyAuthRequired, status >= 500 && status <= 599:
		return Unavailable
	case status >= 400 && status <= 499:
		return Rejected
	default:
		return Unexpected
	}
}

// saysNotReady is generous: a figure that is held by mistake comes back with
// the next probe, one that is refused by mistake is lost to the invoice.
func saysNotReady(message string) bool {
	message = strings.ToLower(message)
	return strings.Contains(message, "not ready") ||
		strings.Contains(message, "not in pending") ||
		strings.Contains(message, "not pending")
}

// cancelled makes the error for a call that the caller ended; cause is the
// context's own error.
func cancelled(operation string, cause error, sent bool) *Error {
	return &Error{operation: operation, class: Cancelled, message: "cancelled by the caller", sent: sent, cause: cause}
}
