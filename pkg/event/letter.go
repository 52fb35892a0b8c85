package event

import "time"

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

	// EventID and Source name the event as far as it could be read.
	EventID string
	Source  string
	// Key names the figure, as kind/account/service, when it is known.
	Key string

	Attempts int    // calls made for the figure, 0 when it never came to one
	Answer   string // the partner's last answer, when it gave one
	Worker   string
	Parked   time.Time
}

// Arrival is the letter's original place in the log.
func (l *Letter) Arrival() Arrival { return ArrivalAt(l.Original.Sequence, l.Index) }
