// Package statement puts in writing what usage was known of one integration at
// one time and what the partner had accepted of it: as CSV for spreadsheets,
// as JSON for programs and for later comparison, and as a page to print. It
// signs the bytes of such a document with ed25519 and verifies them, and says
// what has changed between two statements.
//
// It deliberately knows neither where figures come from nor what they mean:
// counts come in as decimal texts, states and reasons as words. It has no clock
// of its own: the same statement is the same bytes on any day.
package statement

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Format says what a JSON statement is, in its first member.
const Format = "usagebridge statement v1"

// Statement is one document. What New fills in need not be given.
type Statement struct {
	Format       string      `json:"format"`
	Vendor       string      `json:"vendor"`
	Organization string      `json:"organization"`
	AsOf         time.Time   `json:"as_of"`     // what the rows are true of
	MadeAt       time.Time   `json:"made_at"`   // when they were read
	MadeBy       string      `json:"made_by"`   // the person at the terminal
	MadeWith     string      `json:"made_with"` // program and version
	Integration  Integration `json:"integration"`
	// LogSince is where the log of events begins, when that is too late for
	// some rows to be certain; they have Complete false. Zero otherwise.
	LogSince time.Time `json:"log_since,omitzero"`
	Notes    []string  `json:"notes,omitempty"` // sentences for whoever reads the figures

	Keys       int     `json:"keys"`       // rows; New counts them
	Differing  int     `json:"differing"`  // rows with Differs; New counts them
	Incomplete int     `json:"incomplete"` // rows without Complete; New counts them
	Services   []Total `json:"services"`   // by service; New sums them up
	Rows       []Row   `json:"rows"`       // by account, then service
}

// Integration is where the integration stood as of the statement's time.
type Integration struct {
	Status string    `json:"status"` // "" when it is not known
	Since  time.Time `json:"since,omitzero"`
	Gates  []string  `json:"gates"` // what kept everything from being sent; empty: nothing
}

// Total sums the rows of one service up.
type Total struct {
	Service   string `json:"service"`
	Keys      int    `json:"keys"`
	Units     string `json:"units"`    // desired, decimal; rows without units count as 0
	Accepted  string `json:"accepted"` // by the partner, decimal; what it never had counts as 0
	Differing int    `json:"differing"`
}

// Row is one key: the count of one service for one account.
type Row struct {
	Account string `json:"account"`
	Service string `json:"service"`
	// Units is the newest figure as a decimal with up to six decimals; empty
	// when a figure was there, but nobody can say any longer which.
	Units string `json:"units"`

	EventID   string    `json:"event_id,omitempty"` // of the figure's event; empty: the log no longer has it
	Source    string    `json:"source,omitempty"`
	EventTime time.Time `json:"event_time,omitzero"` // when the figure was true
	Place     string    `json:"place,omitempty"`     // the event's in the log, {stream}/{sequence}, with -{index} in a batch
	ArrivedAt time.Time `json:"arrived_at,omitzero"` // when the log stored it; zero: the log no longer has it

	Accepted   string    `json:"accepted,omitempty"` // the last value that the partner took, decimal; empty: none
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	RequestID  string    `json:"request_id,omitempty"` // the partner's name for that call

	FigureAge   *int64 `json:"figure_age_seconds,omitempty"`   // whole seconds from EventTime to AsOf, below 0 for a figure of the future; New counts them
	DeliveryAge *int64 `json:"delivery_age_seconds,omitempty"` // from AcceptedAt to AsOf; nil: never accepted

	State   string   `json:"state"`                 // of a time that has passed: as far as the logs tell
	Reason  string   `json:"hold_reason,omitempty"` // of a held key
	Differs bool     `json:"differs"`               // Units is not what the partner has accepted; New says it
	Notes   []string `json:"notes,omitempty"`       // what else is known, such as "backfill B"
	// Complete is false when it is not certain that Units and Accepted were so
	// as of the statement's time: what would tell has left the logs.
	Complete bool `json:"complete"`
}

// decimal is how counts are written: what event.Units prints.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]{1,6})?$`)

// New completes a statement: it sorts the rows by account and service, and
// counts ages, sums and differences. It fails when a key comes twice or a
// count is no decimal. The rows given are left as they were.
func New(s Statement) (*Statement, error) {
	s.Format = Format
	s.AsOf, s.MadeAt = s.AsOf.UTC(), s.MadeAt.UTC()
	s.Rows = slices.Clone(s.Rows)
	if s.Rows == nil {
		s.Rows = []Row{}
	}
	if s.Integration.Gates == nil {
		s.Integration.Gates = []string{}
	}
	slices.SortStableFunc(s.Rows, compareKeys)
	s.Keys, s.Differing, s.Incomplete = len(s.Rows), 0, 0
	var errs []error
	for i := range s.Rows {
		r := &s.Rows[i]
		if i > 0 && compareKeys(s.Rows[i-1], *r) == 0 {
			errs = append(errs, fmt.Errorf("row %d: %s comes twice", i+1, r.key()))
		}
		errs = append(errs, r.complete(s.AsOf))
		if r.Differs {
			s.Differing++
		}
		if !r.Complete {
			s.Incomplete++
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.Services = totals(s.Rows)
	return &s, nil
}

func compareKeys(a, b Row) int {
	return cmp.Or(strings.Compare(a.Account, b.Account), strings.Compare(a.Service, b.Service))
}

// key names the row for people.
func (r *Row) key() string { return fmt.Sprintf("account %q, service %q", r.Account, r.Service) }

// complete fills in what follows from the rest of the row.
func (r *Row) complete(asOf time.Time) error {
	for _, units := range []string{r.Units, r.Accepted} {
		if units != "" && !decimal.MatchString(units) {
			return fmt.Errorf("%s: count %q: want a decimal such as 42 or 0.5, with at most six decimals", r.key(), units)
		}
	}
	r.Differs = r.Units != "" && r.Units != r.Accepted
	r.FigureAge, r.DeliveryAge = age(r.EventTime, asOf), age(r.AcceptedAt, asOf)
	return nil
}

// age is in whole seconds, rounded down; a time that was never has none.
func age(t, asOf time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	seconds := int64(asOf.Sub(t) / time.Second)
	return &seconds
}

// totals sums exactly: a count may have nineteen digits, and a sum more.
func totals(rows []Row) []Total {
	sums := map[string]*[2]big.Rat{}
	found := map[string]*Total{}
	names := []string{}
	for i := range rows {
		r := &rows[i]
		t := found[r.Service]
		if t == nil {
			t = &Total{Service: r.Service}
			found[r.Service], sums[r.Service] = t, new([2]big.Rat)
			names = append(names, r.Service)
		}
		t.Keys++
		if r.Differs {
			t.Differing++
		}
		for n, units := range []string{r.Units, r.Accepted} {
			if value, ok := new(big.Rat).SetString(units); ok {
				sums[r.Service][n].Add(&sums[r.Service][n], value)
			}
		}
	}
	slices.Sort(names)
	list := make([]Total, len(names))
	for i, name := range names {
		t := found[name]
		t.Units, t.Accepted = sumText(&sums[name][0]), sumText(&sums[name][1])
		list[i] = *t
	}
	return list
}

// sumText is the shortest exact decimal.
func sumText(sum *big.Rat) string {
	text := sum.FloatString(6)
	return strings.TrimRight(strings.TrimRight(text, "0"), ".")
}

// Name is how people read the integration: vendor/organization.
func (s *Statement) Name() string { return s.Vendor + "/" + s.Organization }
