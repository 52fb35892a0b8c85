package event

import (
	"errors"
	"time"
)

// The years that a time may be written with: what a figure of this world has.
const (
	minYear = 1970
	maxYear = 9999
)

var (
	errNotTime   = errors.New("is not a date and time of RFC 3339")
	errDay       = errors.New("is a day that the calendar does not have")
	errClock     = errors.New("is a time of day that no clock shows")
	errYearRange = errors.New("is outside of the years 1970 to 9999")
)

// parseTime reads a date and time of RFC 3339, more strictly than package
// time does: T and the zone are required, a fraction has one to nine digits
// and a full stop. A leap second (:60) is refused: it has no place of its own
// between two other times, and times decide which figure is newer.
func parseTime(s string) (time.Time, error) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[4] != '-' || s[7] != '-' || s[10]|' ' != 't' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, errNotTime
	}
	var f [6]int // year, month, day, hour, minute, second
	for i, at := range [...][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}} {
		var ok bool
		if f[i], ok = decimal(s[at[0]:at[1]]); !ok {
			return time.Time{}, errNotTime
		}
	}
	nanos, rest, ok := parseFraction(s[19:])
	if !ok {
		return time.Time{}, errNotTime
	}
	offset, ok := parseZone(rest)
	if !ok {
		return time.Time{}, errNotTime
	}
	if f[0] < minYear {
		return time.Time{}, errYearRange
	}
	if f[3] > 23 || f[4] > 59 || f[5] > 59 {
		return time.Time{}, errClock
	}
	t := time.Date(f[0], time.Month(f[1]), f[2], f[3], f[4], f[5], nanos, time.UTC)
	if int(t.Month()) != f[1] || t.Day() != f[2] {
		return time.Time{}, errDay
	}
	return t.Add(-offset), nil
}

// decimal reads a run of digits.
func decimal(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// parseFraction reads the optional fraction of a second at the start of s.
func parseFraction(s string) (nanos int, rest string, ok bool) {
	if s == "" || s[0] != '.' {
		return 0, s, true
	}
	end := digitsEnd(s, 1)
	if end == 1 || end > 10 {
		return 0, "", false
	}
	nanos, _ = decimal(s[1:end])
	for range 10 - end {
		nanos *= 10
	}
	return nanos, s[end:], true
}

// parseZone reads Z or ±hh:mm, and nothing behind it.
func parseZone(s string) (time.Duration, bool) {
	if s == "Z" || s == "z" {
		return 0, true
	}
	if len(s) != len("+00:00") || s[0] != '+' && s[0] != '-' || s[3] != ':' {
		return 0, false
	}
	hours, okHours := decimal(s[1:3])
	minutes, okMinutes := decimal(s[4:6])
	if !okHours || !okMinutes || hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}
