package status

import (
	"cmp"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Standing is the state of the machine: the status of an integration, what
// the partner is taken to have of us, and the two gates that close whatever
// the status is.
type Standing struct {
	// Status is the partner's. Its word moves it, or an answer that proves it.
	Status Status `json:"status"`
	// Announced says that the partner has been told that the catalog is posted
	// since it last had nothing of us. Announcing it moves in, and so does a
	// partner that names a later status than inactive; a loss, or a ready
	// integration that turns out not to be, moves out.
	Announced bool `json:"announced"`
	// Generation counts, from 0, how often the partner is taken to have lost
	// everything that it had accepted: what was accepted under a lower
	// generation is sent again. It never falls.
	Generation int `json:"generation"`
	// Paused holds everything. An operator moves in, or a flood of refusals;
	// only an operator moves out.
	Paused bool `json:"paused,omitempty"`
	// Hold is a hold of the whole integration in the words of
	// [ledger.HoldReason]: "", unauthorized or anomaly. Refused credentials
	// and suspected usage move in. Any call that the partner takes, a read apart,
	// and word that a count is not mapped move out of anomaly;
	// out of unauthorized moves only an operator, with other credentials or a
	// resync, because an answer that was under way proves nothing of them.
	Hold string `json:"hold,omitempty"`
}

// The holds of a whole integration.
const (
	open         = ""
	unauthorized = string(ledger.Unauthorized)
	anomaly      = string(ledger.Anomaly)
)

// Setup says that the partner still has to be told, once, that the catalog is
// posted.
func (s Standing) Setup() bool { return !s.Status.Ready() && !s.Announced }

// Gates lists what keeps the integration from being sent to, an operator's
// word first; it is empty, not nil, when nothing does.
func (s Standing) Gates() []ledger.HoldReason {
	closed := []ledger.HoldReason{}
	if s.Paused {
		closed = append(closed, ledger.Paused)
	}
	if s.Hold != open {
		closed = append(closed, ledger.HoldReason(s.Hold))
	}
	if !s.Status.Ready() {
		closed = append(closed, ledger.IntegrationNotReady)
	}
	return closed
}

// Input is something that was learnt about an integration or done to it. It
// is the cause in records and in the status log.
type Input string

// The inputs of the machine. Every comment says who brings it.
const (
	// Announced: the partner took our word that the catalog is posted.
	Announced Input = "mapping_announced"
	// CountAccepted: the partner took a count, which proves it connected.
	CountAccepted Input = "count_accepted"
	// CatalogAccepted: the partner took an account or a service, which proves
	// nothing but that it deals with us.
	CatalogAccepted Input = "catalog_accepted"
	// CountRefused: the partner said that it takes no counts yet.
	CountRefused Input = "count_refused"
	// Observed: the partner's word on the status was read somewhere, such as
	// in its own API or in the OEM-API's list.
	Observed Input = "status_observed"
	// CatalogLost: a lane found that the partner no longer has what it had
	// accepted.
	CatalogLost Input = "catalog_lost"
	// CredentialsRefused: the partner refused the tokens.
	CredentialsRefused Input = "credentials_refused"
	// CountAnswered: the partner said of a count that it is not mapped, which
	// proves that it deals with the integration.
	CountAnswered Input = "count_answered"
	// UsageSuspected: the partner refused to deal with the integration, or
	// what answers is not the partner.
	UsageSuspected Input = "usage_suspected"
	// Flooded: a lane had so many figures refused for good, one after the
	// other, that sending more would only make more dead letters.
	Flooded Input = "flood_of_refusals"
	// PausedByOperator: an operator closed the gate.
	PausedByOperator Input = "paused"
	// ResumedByOperator: an operator opened the gate, whoever had closed it.
	ResumedByOperator Input = "resumed"
	// CredentialsReplaced: an operator gave credentials for the same
	// integration at the partner: same partner token, same address.
	CredentialsReplaced Input = "credentials_replaced"
	// CredentialsRenewed: an operator gave another partner token or another
	// address. What is there may be new and empty.
	CredentialsRenewed Input = "credentials_renewed"
	// Resynced: an operator wants everything sent again.
	Resynced Input = "resynced"
)

// Inputs lists every input.
func Inputs() []Input {
	return []Input{
		Announced, CountAccepted, CatalogAccepted, CountAnswered, CountRefused, Observed, CatalogLost, CredentialsRefused,
		UsageSuspected, Flooded, PausedByOperator, ResumedByOperator, CredentialsReplaced, CredentialsRenewed, Resynced,
	}
}

// flag is what becomes of a yes or no.
type flag int8

const (
	kept flag = iota
	set
	cleared
)

func (f flag) of(before bool) bool { return f == set || f == kept && before }

// step is one move of the status, with what it says of the announcement.
type step struct {
	to        Status // "": stays
	announced flag
}

// rule is a row of the table: what an input does to each part of a standing.
// What a rule leaves out stays as it is.
type rule struct {
	steps     map[Status]step   // by the status before
	heeded    bool              // a status that the partner named goes before the steps
	announced flag              // whatever the step
	paused    flag              //
	hold      map[string]string // by the hold before
	lost      bool              // the partner has nothing of us any more
}

// table is the whole machine, but for one law that holds in every row: who
// enters inactive has lost everything (see [Next]).
var table = map[Input]rule{
	Announced: {
		heeded:    true,
		steps:     map[Status]step{Inactive: {to: Mapping}},
		announced: set,
		hold:      map[string]string{anomaly: open},
	},
	CountAccepted: {
		steps: map[Status]step{
			Inactive: {to: Connected}, Mapping: {to: Connected}, Pending: {to: Connected}, other: {to: Connected},
		},
		announced: set,
		hold:      map[string]string{anomaly: open},
	},
	CatalogAccepted: {
		hold: map[string]string{anomaly: open},
	},
	CountAnswered: {
		hold: map[string]string{anomaly: open},
	},
	// Why a partner that took counts takes them no longer is unknown: it is
	// told once more that the catalog is posted, and says where it stands.
	CountRefused: {
		heeded: true,
		steps:  map[Status]step{Pending: {Mapping, cleared}, Connected: {Mapping, cleared}},
	},
	Observed:           {heeded: true},
	CatalogLost:        {lost: true},
	CredentialsRefused: {hold: map[string]string{open: unauthorized, anomaly: unauthorized}},
	UsageSuspected:     {hold: map[string]string{open: anomaly}},
	Flooded:            {paused: set},
	PausedByOperator:   {paused: set},
	ResumedByOperator:  {paused: cleared},
	CredentialsReplaced: {
		hold: map[string]string{unauthorized: open, anomaly: open},
	},
	CredentialsRenewed: {
		hold: map[string]string{unauthorized: open, anomaly: open},
		lost: true,
	},
	Resynced: {
		hold: map[string]string{unauthorized: open, anomaly: open},
		lost: true,
	},
}

// heard says where each status leads when the partner names it: to itself, and
// those behind inactive are not reached without an announcement.
func heard(s Status) step {
	if s.class() == other || s == Inactive {
		return step{to: s}
	}
	return step{s, set}
}

// Next is the standing after an input. observed is the status that the partner
// itself named with it, as [Heard] gives it, "" when it named none.
//
// An integration that enters inactive from any other status has been forgotten
// by the partner: the catalog is posted and announced again, and all figures
// are sent again. A new integration, which had no status, has nothing to lose.
func Next(s Standing, in Input, observed Status) Standing {
	row := table[in]
	move := row.steps[s.Status.class()]
	if row.heeded && observed != "" {
		move = heard(observed)
	}
	next := s
	next.Status = cmp.Or(move.to, s.Status)
	next.Announced = row.announced.of(move.announced.of(s.Announced))
	next.Paused = row.paused.of(s.Paused)
	if hold, changes := row.hold[s.Hold]; changes {
		next.Hold = hold
	}
	forgotten := next.Status == Inactive && s.Status != Inactive && s.Status != ""
	if row.lost || forgotten {
		next.Generation++
		next.Announced = false
	}
	return next
}
