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
	Vendor       string    `json:"vendor"`
	Organization string    `json:"organization"`
	Dialect      string    `json:"dialect"`
	APIURL       string    `json:"api_url"` // the API's address; the client appends /vendor-api
	Status       Status    `json:"status"`
	Since        time.Time `json:"since"` // of the status
	Cause        string    `json:"cause"` // of the last transition
	Paused       bool      `json:"paused,omitempty"`
	VendorToken  string    `json:"vendor_token"`  // sealed
	PartnerToken string    `json:"partner_token"` // sealed
	// Credentials changes whenever tokens or address do.
	Credentials string    `json:"credentials"`
	Created     time.Time `json:"created"`
	// Hold is a hold of the whole integration, as last heard of from a
	// partner's answer: "", unauthorized or anomaly.
	Hold        string    `json:"hold,omitempty"`
	HoldSince   time.Time `json:"hold_since,omitzero"`
	HoldMessage string    `json:"hold_message,omitempty"`
}

// Name is how people read an integration: vendor/organization.
func (i *Integration) Name() string { return i.Vendor + "/" + i.Organization }

// Check reports everything that is wrong with the record.
func (i *Integration) Check() error {
	var errs []error
	if i.Vendor == "" || i.Organization == "" {
		errs = append(errs, errors.New("an integration is named vendor/organization"))
	}
	if u, err := url.Parse(i.APIURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, errors.New("api url: want an absolute http or https address such as https://sub.mspcentric.app/api"))
	}
	if _, ok := Parse(string(i.Status)); !ok {
		errs = append(errs, fmt.Errorf("status %q: want one of inactive, mapping, pending, connected", i.Status))
	}
	return errors.Join(errs...)
}
