package vendorapi

import (
	"net/http"
	"strings"
	"time"
)

// maxRetryAfter bounds what we believe: a lane that a typo closes for a year
// would look like one that lost its figures.
const maxRetryAfter = 24 * time.Hour

// parseRetryAfter reads both forms of the header Retry-After (RFC 9110, 10.2.3).
// A date is measured against the answer's own Date where there is one, so that
// a wrong clock on either side does not matter, else against now. A moment in
// the past is 0, one beyond 24 hours is 24 hours; anything else is no advice.
func parseRetryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if wait, ok := parseSeconds(value); ok {
		return wait, true
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

// parseSeconds reads an integer, perhaps negative, of any length.
func parseSeconds(value string) (time.Duration, bool) {
	digits, negative := strings.CutPrefix(value, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	if negative {
		return 0, true
	}
	var wait time.Duration
	for _, digit := range digits {
		wait = min(wait*10+time.Duration(digit-'0')*time.Second, maxRetryAfter)
	}
	return wait, true
}
