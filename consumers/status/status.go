// Package status follows the status of integrations: a pure machine that says
// where an input leads, a record that takes its word, a tracker that puts
// every transition on record, and metrics of both.
//
// It deliberately knows neither NATS nor the partner's API: records and log
// are handed in, and inputs come as what answers were taken to mean.
package status

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Status is where an integration stands at the partner: one of the four below,
// or any other word that the partner used. Such a word is kept as it was
// heard: partners of different age use different ones, and a partner's word on
// its own status is never argued with. No figures are sent under it but
// probes; the first count that is taken, or the next status heard, moves out.
type Status string

// The statuses, in the order in which an integration goes through them. Every
// one is entered as well when the partner names it.
const (
	// Inactive: the partner has nothing of us. An operator moves in, or the
	// partner by forgetting the integration; announcing the first accounts and
	// services moves out.
	Inactive Status = "inactive"
	// Mapping: accounts and services are posted and a person may map them. We
	// move in by announcing, or the partner by refusing counts that it took
	// before; the partner moves out when the person is done.
	Mapping Status = "mapping"
	// Pending: the person has finished and the partner takes counts. Set by
	// the partner, never by us; an accepted count moves out, a refused one too.
	Pending Status = "pending"
	// Connected: the partner has taken a count, which moves in from wherever
	// the integration stood; a refused count moves out.
	Connected Status = "connected"
)

// other stands for every word that is not one of the four: in the table and
// in metrics.
const other Status = "other"

// maxWordBytes bounds a status in a word of the partner's own.
const maxWordBytes = 64

// Statuses lists the four statuses in order.
func Statuses() []Status { return []Status{Inactive, Mapping, Pending, Connected} }

// Parse reads one of the four statuses by its name; ok is false for any other
// word.
func Parse(name string) (s Status, ok bool) {
	if s = Status(name); s.class() == other {
		return "", false
	}
	return s, true
}

// Heard is a status as the partner spelt it: in lower case, without what
// cannot be printed, at most 64 bytes long. Heard again it stays the same.
func Heard(word string) Status {
	word = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, word)
	word = strings.TrimSpace(word)
	if len(word) > maxWordBytes {
		end := maxWordBytes
		for !utf8.RuneStart(word[end]) {
			end--
		}
		word = strings.TrimSpace(word[:end])
	}
	return Status(word)
}

// FromMessage finds the status that an answer's message names at its end, as
// in "integration is not ready: mapping"; "" when there is none. Messages are
// free text: only the four words are taken for a status there.
func FromMessage(message string) Status {
	fields := strings.FieldsFunc(strings.ToLower(message), func(r rune) bool { return r < 'a' || r > 'z' })
	if len(fields) == 0 {
		return ""
	}
	s, _ := Parse(fields[len(fields)-1])
	return s
}

// Ready says whether the partner takes counts in this status.
func (s Status) Ready() bool { return s == Pending || s == Connected }

// class is the status itself, or other.
func (s Status) class() Status {
	switch s {
	case Inactive, Mapping, Pending, Connected:
		return s
	default:
		return other
	}
}
