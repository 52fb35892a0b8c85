// Package onboarding brings an organization to the partner's platform: it has the
// organization made, finds the vendor, has the two integrated, records the
// integration here, and asks for the link that lets a person in. Five calls with
// secrets in their answers that are shown once, so it is a saga that can stop
// anywhere: every step is recorded as begun before its call and as done, with what
// it brought, before the next one begins. What an answer that was lost means is
// decided here, by a pure machine over one [Record]; a [Driver] does what it says.
//
// It deliberately does not know HTTP, NATS, a clock, how often something is tried
// or how long anybody waits. It knows secrets as ciphertext, but for the moment
// between an answer and the vault.
package onboarding

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind says who calls whom once the integration stands.
type Kind string

// The kinds of integration.
const (
	// External: we call the platform, with a partner key that it makes and shows
	// once.
	External Kind = "external"
	// Credentials: the platform calls the vendor, with credentials by the labels of
	// the vendor's template.
	Credentials Kind = "credentials"
)

// Request is what is asked for.
type Request struct {
	Vendor string `json:"vendor"`
	// Organization is the vendor's own id of it, under which the platform knows it
	// as vendorOrganizationId.
	Organization     string `json:"organization"`
	OrganizationName string `json:"organization_name"`
	Email            string `json:"email"`
	FirstName        string `json:"first_name"`
	LastName         string `json:"last_name"`
	VendorUserID     string `json:"vendor_user_id"`
	// PlatformVendor is the platform's id of the vendor; empty: the only one there,
	// or the one of the vendor's name.
	PlatformVendor string `json:"platform_vendor,omitempty"`
	Kind           Kind   `json:"kind"`
	// APIURL is the platform's address, for these calls and for the integration.
	APIURL string `json:"api_url"`
}

// Field names one field of a Request, as the event and the HTTP API spell it.
type Field string

// The fields of a Request.
const (
	FieldVendor           Field = "vendorId"
	FieldOrganization     Field = "organizationId"
	FieldOrganizationName Field = "organizationName"
	FieldEmail            Field = "email"
	FieldFirstName        Field = "firstName"
	FieldLastName         Field = "lastName"
	FieldVendorUserID     Field = "vendorUserId"
	FieldPlatformVendor   Field = "platformVendorId"
	FieldKind             Field = "kind"
	FieldAPIURL           Field = "apiUrl"
)

// Name is how people read an onboarding: vendor/organization.
func (q *Request) Name() string { return q.Vendor + "/" + q.Organization }

// Missing lists the required fields that are empty.
func (q *Request) Missing() []Field {
	var missing []Field
	for _, f := range []struct {
		name  Field
		value string
	}{
		{FieldVendor, q.Vendor},
		{FieldOrganization, q.Organization},
		{FieldOrganizationName, q.OrganizationName},
		{FieldEmail, q.Email},
		{FieldFirstName, q.FirstName},
		{FieldLastName, q.LastName},
		{FieldVendorUserID, q.VendorUserID},
		{FieldAPIURL, q.APIURL},
	} {
		if strings.TrimSpace(f.value) == "" {
			missing = append(missing, f.name)
		}
	}
	return missing
}

// Difference is a field that two requests have different values of.
type Difference struct {
	Field           Field
	Recorded, Given string
}

// DifferError says that an onboarding goes on with the values with which it
// began: the platform has been told of them, or may have been.
type DifferError struct {
	Name        string // of the onboarding
	Differences []Difference
}

// Error lists what differs.
func (e *DifferError) Error() string {
	texts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		texts[i] = fmt.Sprintf("%s is %q, recorded is %q", d.Field, d.Given, d.Recorded)
	}
	return fmt.Sprintf("the onboarding of %s has begun with other values, and goes on with those: %s", e.Name, strings.Join(texts, "; "))
}

// Permanent is true: the same values differ the next time, too.
func (*DifferError) Permanent() bool { return true }

// PlatformVendor is a vendor as the platform lists it.
type PlatformVendor struct {
	ID, Name string
	Kind     Kind     // or a word that we do not know
	Labels   []string // of the template's credentials, sorted
}

// choose finds the vendor that is meant and checks that it can be integrated in
// that way, with credentials of those labels.
func choose(list []PlatformVendor, q *Request, labels []string) (PlatformVendor, error) {
	v, err := named(list, q)
	if err != nil {
		return v, err
	}
	if v.Kind != q.Kind {
		return v, fmt.Errorf("the platform integrates vendor %s (%s) as %q, and %q is asked for: want the kind that the platform has, or have it changed there",
			v.ID, v.Name, v.Kind, q.Kind)
	}
	if q.Kind == Credentials {
		return v, fit(&v, labels)
	}
	return v, nil
}

func named(list []PlatformVendor, q *Request) (PlatformVendor, error) {
	var found []PlatformVendor
	for _, v := range list {
		if q.PlatformVendor != "" && v.ID == q.PlatformVendor || q.PlatformVendor == "" && strings.EqualFold(v.Name, q.Vendor) {
			found = append(found, v)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case q.PlatformVendor == "" && len(list) == 1:
		return list[0], nil
	case len(list) == 0:
		return PlatformVendor{}, errors.New("the platform lists no vendor for this client: have the vendor set up there")
	case q.PlatformVendor != "":
		return PlatformVendor{}, fmt.Errorf("the platform lists no vendor %q; it has %s", q.PlatformVendor, told(list))
	}
	return PlatformVendor{}, fmt.Errorf("which of the platform's vendors is %s? name one by its id: %s", q.Vendor, told(list))
}

// toldVendors is how many vendors an error names.
const toldVendors = 10

func told(list []PlatformVendor) string {
	texts := make([]string, 0, toldVendors+1)
	for i, v := range list {
		if i == toldVendors {
			texts = append(texts, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		texts = append(texts, fmt.Sprintf("%s (%s)", v.ID, v.Name))
	}
	return strings.Join(texts, ", ")
}

// fit compares labels with those of the vendor's template.
func fit(v *PlatformVendor, labels []string) error {
	var texts []string
	say := func(word string, of, in []string) {
		for _, label := range of {
			if !slices.Contains(in, label) {
				texts = append(texts, fmt.Sprintf("%s %q", word, label))
			}
		}
	}
	say("missing", v.Labels, labels)
	say("unknown", labels, v.Labels)
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("the credentials are not those of the template of vendor %s (%s): %s", v.ID, v.Name, strings.Join(texts, ", "))
}

// PlatformIntegration is an integration as the platform lists it.
type PlatformIntegration struct {
	ID     string
	Vendor string // the platform's id of it; empty when the list does not tell
}

// listed finds the integration of the vendor. A platform that does not tell the
// vendor leaves no doubt about the only one.
func listed(list []PlatformIntegration, vendor string) (PlatformIntegration, bool) {
	for _, i := range list {
		if i.Vendor == vendor {
			return i, true
		}
	}
	if len(list) == 1 && list[0].Vendor == "" {
		return list[0], true
	}
	return PlatformIntegration{}, false
}
