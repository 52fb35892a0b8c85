package status

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Integration is the record of one integration. Tokens are in it as
// ciphertext only.
type Integration struct {
	Vendor       string `json:"vendor"`
	Organization string `json:"organization"`
	Dialect      string `json:"dialect"`
	APIURL       string `json:"api_url"` // the API's address; the client appends /vendor-api
	// IntegrationID is the partner's own id of the integration, learnt from
	// its answers; empty until one names it.
	IntegrationID string `json:"integration_id,omitempty"`

	Standing
	Since time.Time `json:"since"` // of the status
	// Cause of the status: the input that brought it, or added.
	Cause string `json:"cause"`
	// GenerationSince is when the generation last grew; zero while it is 0.
	GenerationSince time.Time `json:"generation_since,omitzero"`
	PausedWhy       string    `json:"paused_why,omitempty"` // an operator's words, or ours after a flood
	HoldSince       time.Time `json:"hold_since,omitzero"`
	HoldMessage     string    `json:"hold_message,omitempty"` // the partner's words
	// Transitions counts those that were to be put on record, so that no two
	// of them are taken for one.
	Transitions int `json:"transitions,omitempty"`

	VendorToken  string `json:"vendor_token"`        // sealed
	PartnerToken string `json:"partner_token"`       // sealed
	OEMToken     string `json:"oem_token,omitempty"` // sealed; of the organization at the OEM-API
	// Marks are fingerprints of the tokens, for people to tell them by.
	Marks Marks `json:"marks,omitzero"`
	// Credentials changes whenever tokens or address do.
	Credentials string `json:"credentials"`
	// Previous are the credentials before these; nil when there are none any
	// more.
	Previous *Previous `json:"previous,omitempty"`
	Created  time.Time `json:"created"`
}

// causeAdded is the cause of a status that an operator gave with a new record.
const causeAdded = "added"

// lossInterval is the least time between two losses that lanes found: a
// partner that answers "created" for what exists must not make us send
// everything over and over.
const lossInterval = time.Hour

// Name is how people read an integration: vendor/organization.
func (i *Integration) Name() string { return i.Vendor + "/" + i.Organization }

// Check reports everything that is wrong with what an operator gave. A status
// that was learnt from the partner may be any word; an operator's is one of
// the four.
func (i *Integration) Check() error {
	var errs []error
	if i.Vendor == "" || i.Organization == "" {
		errs = append(errs, errors.New("an integration is named vendor/organization"))
	}
	if u, err := url.Parse(i.APIURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, errors.New("api url: want an absolute http or https address such as https://sub.mspcentric.app/api"))
	}
	given := i.Cause == "" || i.Cause == causeAdded
	if _, ok := Parse(string(i.Status)); given && !ok {
		errs = append(errs, fmt.Errorf("status %q: want one of inactive, mapping, pending, connected", i.Status))
	}
	return errors.Join(errs...)
}

// Observation is an input's circumstances.
type Observation struct {
	At time.Time
	// Observed is the status that the partner named, spelt as it was; "" when
	// it named none.
	Observed Status
	// IntegrationID is the partner's own id of the integration, if it came up.
	IntegrationID string
	// Message says why, in the words of the partner, an operator or a lane.
	Message string
	Actor   string // who or what brings the input
}

// Transition is one change that people care about, of status, gates or
// generation, and the data of its CloudEvent.
type Transition struct {
	From       Status   `json:"from"` // "" for a new integration
	To         Status   `json:"to"`
	Cause      string   `json:"cause"`
	Actor      string   `json:"actor"`      // who or what brought it about
	Gates      []string `json:"gates"`      // closed after it, as [Standing.Gates] has them
	Generation int      `json:"generation"` // after it
	Message    string   `json:"message,omitempty"`
	// Number counts the transitions of one integration from 1, in the order in
	// which they happened. The log may have two in the other order.
	Number int `json:"number"`
}

// Recorded says whether there is anything to put on record.
func (t Transition) Recorded() bool { return t.Cause != "" }

// Begin gives a new record the status that an operator names, and returns the
// transition to put on record once the record is stored.
func (i *Integration) Begin(o Observation) Transition {
	i.Standing = Next(Standing{}, Observed, Heard(string(o.Observed)))
	i.Created, i.Since, i.Cause, i.IntegrationID = o.At, o.At, causeAdded, o.IntegrationID
	return i.transition("", causeAdded, o)
}

// Take changes the record by what was learnt. changed says that it is to be
// stored; t is to be put on record then if it has anything to record. What an
// operator changes besides, such as tokens, is for the caller to store. A
// CatalogLost within an hour of the last loss changes nothing.
func (i *Integration) Take(in Input, o Observation) (t Transition, changed bool) {
	if in == CatalogLost && o.At.Sub(i.GenerationSince).Abs() < lossInterval {
		return Transition{}, false
	}
	before := i.Standing
	i.Standing = Next(before, in, Heard(string(o.Observed)))
	if o.IntegrationID != "" && o.IntegrationID != i.IntegrationID {
		i.IntegrationID, changed = o.IntegrationID, true
	}
	if i.Standing == before {
		return Transition{}, changed
	}
	i.date(before, in, o)
	visible := i.Standing
	visible.Announced = before.Announced
	if visible != before {
		t = i.transition(before.Status, string(in), o)
	}
	return t, true
}

// date notes since when and why each part of the standing is as it is.
func (i *Integration) date(before Standing, in Input, o Observation) {
	if i.Status != before.Status {
		i.Since, i.Cause = o.At, string(in)
	}
	if i.Generation != before.Generation {
		i.GenerationSince = o.At
	}
	if i.Hold != before.Hold {
		i.HoldSince, i.HoldMessage = time.Time{}, ""
		if i.Hold != open {
			i.HoldSince, i.HoldMessage = o.At, o.Message
		}
	}
	if i.Paused != before.Paused {
		i.PausedWhy = ""
		if i.Paused {
			i.PausedWhy = o.Message
		}
	}
}

// transition is the next one of the record, as it stands after it.
func (i *Integration) transition(from Status, cause string, o Observation) Transition {
	gates := []string{}
	for _, reason := range i.Gates() {
		gates = append(gates, string(reason))
	}
	i.Transitions++
	return Transition{
		From: from, To: i.Status, Cause: cause, Actor: o.Actor,
		Gates: gates, Generation: i.Generation, Message: o.Message,
		Number: i.Transitions,
	}
}
