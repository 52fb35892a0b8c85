package event

import (
	"strings"
	"time"
)

// Letter is a dead letter: an event that can never be applied, or a figure
// that can never be delivered, with everything needed to understand it and to
// replay it.
type Letter struct {
	Vendor       string
	Organization string
	Fault        Fault

	// Original is the message as published. In Data stands the single event
	// when the message was a batch.
	Original Message
	Index    int // place in the batch, 0 otherwise

	// Figure tells apart the letters of one event with many figures: eight hex
	// digits; empty for an event with one. The Original of such a letter is not
	// the whole event but that figure alone, as a count.
	Figure string

	// EventID and Source name the event as far as it could be read.
	EventID string
	Source  string
	// Key names the figure, as kind/account/service, when it is known.
	Key string

	Attempts int    // calls made for the figure, 0 when it never came to one
	Answer   string // the partner's last answer, when it gave one
	Worker   string
	Parked   time.Time
	// Stamp is the Fingerprint with which the letter was parked: it stays the
	// same whatever a later version makes of the problem. Empty before.
	Stamp string
}

// Arrival is the letter's original place in the log.
func (l *Letter) Arrival() Arrival { return ArrivalAt(l.Original.Sequence, l.Index) }

// Place names the letter as people do, by the place of its event in the log:
// {stream}/{seq}, or {stream}/{seq}-{index} for a later event of a batch, with
// _{figure} for one figure of a snapshot.
func (l *Letter) Place() string { return l.Original.Stream + "/" + l.Spot() }

// Spot is the Place within the stream.
func (l *Letter) Spot() string {
	if l.Figure == "" {
		return l.Arrival().String()
	}
	return l.Arrival().String() + "_" + l.Figure
}

// IsFingerprint reports whether a text can be a Fingerprint: eight hex digits
// in lower case.
func IsFingerprint(text string) bool {
	return len(text) == 8 && strings.Trim(text, "0123456789abcdef") == ""
}
