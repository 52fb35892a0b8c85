// Package status follows the status of integrations: a pure machine that says
// where an input leads, and a tracker that records every transition.
//
// It deliberately knows neither NATS nor the partner's API: records and log
// are handed in, and inputs come as what answers were taken to mean.
package status

import "strings"

// Status is where an integration stands at the partner.
type Status string

// The statuses, in the order in which an integration goes through them.
const (
	// Inactive: credentials exist, nothing has been announced. An operator
	// moves in, or the partner by forgetting the integration; the first
	// accounts and services, announced by us, move out.
	Inactive Status = "inactive"
	// Mapping: accounts and services are posted and a person may map them. We
	// move in by announcing; the partner moves out when the person is done.
	Mapping Status = "mapping"
	// Pending: the person has finished and the partner takes counts. Set by
	// the partner, never by us, and seen when it takes one.
	Pending Status = "pending"
	// Connected: the partner has taken a count. Set by the partner itself.
	Connected Status = "connected"
)

// Statuses lists every status in order.
func Statuses() []Status { return []Status{Inactive, Mapping, Pending, Connected} }

// Parse reads a status by its name; ok is false for an unknown one.
func Parse(name string) (s Status, ok bool) {
	for _, s := range Statuses() {
		if string(s) == name {
			return s, true
		}
	}
	return "", false
}

// Ready says whether the partner takes counts in this status.
func (s Status) Ready() bool { return s == Pending || s == Connected }

// Input is something that was learnt about an integration's status.
type Input string

// The inputs of the machine.
const (
	// Announced: the partner was told that the catalog is posted.
	Announced Input = "mapping_announced"
	// CountAccepted: the partner took a count, which proves it connected.
	CountAccepted Input = "count_accepted"
	// CountRefused: the partner said that it takes no counts yet.
	CountRefused Input = "count_refused"
)

// Next is the status after an input. observed is the status that the partner
// itself named, "" when it named none: it is taken as it is, because the
// partner's word on its own status is never argued with.
func Next(from Status, in Input, observed Status) Status {
	switch in {
	case CountAccepted:
		return Connected
	case Announced:
		if observed != "" {
			return observed
		}
		if from == Inactive {
			return Mapping
		}
		return from
	case CountRefused:
		if observed != "" {
			return observed
		}
		if from.Ready() {
			return Mapping
		}
		return from
	}
	return from
}

// Observed finds the status that an answer's message names at its end, as in
// "integration is not ready: mapping"; "" when there is none.
func Observed(message string) Status {
	fields := strings.FieldsFunc(strings.ToLower(message), func(r rune) bool { return r < 'a' || r > 'z' })
	if len(fields) == 0 {
		return ""
	}
	s, _ := Parse(fields[len(fields)-1])
	return s
}
