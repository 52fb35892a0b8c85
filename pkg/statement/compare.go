package statement

import (
	"fmt"
	"time"
)

// The kinds of change.
const (
	Added           = "added"            // the key is in the later statement alone
	Gone            = "gone"             // the key is in the earlier statement alone
	ValueChanged    = "value_changed"    // another newest figure
	AcceptedChanged = "accepted_changed" // the partner accepted another value meanwhile
)

// Comparison is what differs between two statements of one integration.
type Comparison struct {
	Vendor       string    `json:"vendor"`
	Organization string    `json:"organization"`
	From         time.Time `json:"from"` // as-of of the earlier statement
	To           time.Time `json:"to"`   // as-of of the later statement
	Same         int       `json:"same"` // keys that have not changed
	Changes      []Change  `json:"changes"`
}

// Change is what became of one key. Its members are empty where a statement
// has no value.
type Change struct {
	Account      string   `json:"account"`
	Service      string   `json:"service"`
	What         []string `json:"what"` // one or two of the kinds of change
	From         string   `json:"from,omitempty"`
	To           string   `json:"to,omitempty"`
	EventID      string   `json:"event_id,omitempty"` // that brought To, or From when the key is gone
	Source       string   `json:"source,omitempty"`
	AcceptedFrom string   `json:"accepted_from,omitempty"`
	AcceptedTo   string   `json:"accepted_to,omitempty"`
	RequestID    string   `json:"request_id,omitempty"` // by which AcceptedTo was accepted
	// Certain is false when one of the two rows was not complete.
	Certain bool `json:"certain"`
}

// Compare lists what has changed from the earlier statement to the later one,
// by account and service. It fails when they are not of one integration or
// come in the wrong order.
func Compare(earlier, later *Statement) (*Comparison, error) {
	if earlier.Vendor != later.Vendor || earlier.Organization != later.Organization {
		return nil, fmt.Errorf("the earlier statement is of %s and not of %s", earlier.Name(), later.Name())
	}
	if earlier.AsOf.After(later.AsOf) {
		return nil, fmt.Errorf("the earlier statement is as of %s, after %s: want one from before", instant(earlier.AsOf), instant(later.AsOf))
	}
	c := &Comparison{Vendor: later.Vendor, Organization: later.Organization, From: earlier.AsOf, To: later.AsOf, Changes: []Change{}}
	before, after := earlier.Rows, later.Rows // both in the order of their keys
	for len(before)+len(after) > 0 {
		switch order := compareFirst(before, after); {
		case order < 0:
			c.Changes = append(c.Changes, gone(&before[0]))
			before = before[1:]
		case order > 0:
			c.Changes = append(c.Changes, added(&after[0]))
			after = after[1:]
		default:
			if change := changed(&before[0], &after[0]); len(change.What) > 0 {
				c.Changes = append(c.Changes, change)
			} else {
				c.Same++
			}
			before, after = before[1:], after[1:]
		}
	}
	return c, nil
}

// compareFirst compares the first keys of two lists of which one may be empty:
// then the other's comes first.
func compareFirst(before, after []Row) int {
	switch {
	case len(before) == 0:
		return 1
	case len(after) == 0:
		return -1
	}
	return compareKeys(before[0], after[0])
}

func gone(r *Row) Change {
	return Change{
		Account: r.Account, Service: r.Service, What: []string{Gone}, From: r.Units, EventID: r.EventID, Source: r.Source,
		AcceptedFrom: r.Accepted, Certain: r.Complete,
	}
}

func added(r *Row) Change {
	return Change{
		Account: r.Account, Service: r.Service, What: []string{Added}, To: r.Units, EventID: r.EventID, Source: r.Source,
		AcceptedTo: r.Accepted, RequestID: r.RequestID, Certain: r.Complete,
	}
}

func changed(before, after *Row) Change {
	change := added(after)
	change.What, change.From, change.AcceptedFrom = nil, before.Units, before.Accepted
	change.Certain = before.Complete && after.Complete
	if before.Units != after.Units {
		change.What = append(change.What, ValueChanged)
	}
	if before.Accepted != after.Accepted {
		change.What = append(change.What, AcceptedChanged)
	}
	return change
}
