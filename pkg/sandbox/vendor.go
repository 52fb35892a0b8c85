package sandbox

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Vendor is one that the platform knows: organizations may be integrated with it over the
// OEM-API.
type Vendor struct {
	// ID is the platform's own; vendor- and the name in lower case when empty.
	ID string `json:"id,omitempty"`
	// Name is what people read, and the first part of the names of its integrations: any text
	// without a slash.
	Name string `json:"name"`
	// Type says who calls whom.
	Type VendorType `json:"type"`
	// CredentialLabels are what an integration of [CredentialsVendor] wants a value for each;
	// labels contain spaces. An external vendor has none.
	CredentialLabels []string `json:"credentialLabels,omitempty"`
	// Token is the vendor's half of the bearer token of its integrations, of an external vendor
	// alone. When empty it is that of the first of Config.Integrations of this vendor, else made up.
	Token string `json:"token,omitempty"`
}

// VendorType says who calls whom.
type VendorType string

const (
	// ExternalVendor calls the platform: an integration gives it a partner key.
	ExternalVendor VendorType = "external"
	// CredentialsVendor is called by the platform, with credentials that an integration leaves
	// there. This sandbox calls nobody: such an integration stays without accounts and services.
	CredentialsVendor VendorType = "credentials"
)

// String is the name alone: tokens do not belong in logs.
func (v Vendor) String() string { return v.Name }

// GoString is the name alone: %#v must not print the token either.
func (v Vendor) GoString() string { return fmt.Sprintf("sandbox.Vendor{Name: %q}", v.Name) }

// defaultVendors are those of a Config that names none.
func defaultVendors() []Vendor {
	return []Vendor{
		{ID: "vendor-acme", Name: "acme", Type: ExternalVendor},
		{ID: "vendor-globex-backup", Name: "Globex Backup", Type: CredentialsVendor, CredentialLabels: []string{"Account number", "Globex API key"}},
	}
}

func (v Vendor) id() string {
	return cmp.Or(v.ID, "vendor-"+strings.ReplaceAll(strings.ToLower(v.Name), " ", "-"))
}

// validateVendors reports everything that is wrong with the vendors of a configuration.
func validateVendors(vendors []Vendor) error {
	var errs []error
	ids, names := map[string]bool{}, map[string]bool{}
	for i, v := range vendors {
		if err := v.validate(); err != nil {
			errs = append(errs, fmt.Errorf("vendor %d %q: %w", i+1, v.Name, err))
		}
		if ids[v.id()] || names[v.Name] {
			errs = append(errs, fmt.Errorf("vendor %d %q: an earlier one has that name or the id %q", i+1, v.Name, v.id()))
		}
		ids[v.id()], names[v.Name] = true, true
	}
	return errors.Join(errs...)
}

func (v Vendor) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if v.Name == "" || strings.Contains(v.Name, "/") {
		bad("name: want a text without a slash, which separates vendor and organization")
	}
	switch v.Type {
	case ExternalVendor:
		if len(v.CredentialLabels) > 0 {
			bad("credentialLabels: an %s vendor has none", v.Type)
		}
		if strings.Contains(v.Token, ":") {
			bad("token: it contains a colon, which separates the two tokens")
		}
	case CredentialsVendor:
		if len(v.CredentialLabels) == 0 || slices.Contains(v.CredentialLabels, "") {
			bad("credentialLabels: want at least one, and none that is empty")
		}
		if labels := slices.Sorted(slices.Values(v.CredentialLabels)); len(slices.Compact(labels)) < len(v.CredentialLabels) {
			bad("credentialLabels: one is named twice")
		}
		if v.Token != "" {
			bad("token: a %s vendor has none, it never calls", v.Type)
		}
	default:
		bad("type %.64q: want %q or %q", string(v.Type), ExternalVendor, CredentialsVendor)
	}
	return errors.Join(errs...)
}

// complete fills in the id and the token of each vendor.
func complete(vendors []Vendor, integrations []Integration) []*Vendor {
	all := make([]*Vendor, len(vendors))
	for i, v := range vendors {
		v.ID, v.CredentialLabels = v.id(), slices.Clone(v.CredentialLabels)
		for _, in := range integrations {
			if name, _ := cutName(in.Name); name == v.Name && v.Type == ExternalVendor && v.Token == "" {
				v.Token = in.VendorToken
			}
		}
		if v.Type == ExternalVendor && v.Token == "" {
			v.Token = "vendor-" + rand.Text()
		}
		all[i] = &v
	}
	return all
}

// Vendors returns the vendors that the platform knows, with what was made up for them.
func (s *Sandbox) Vendors() []Vendor {
	out := make([]Vendor, len(s.vendors))
	for i, v := range s.vendors {
		out[i] = *v
		out[i].CredentialLabels = slices.Clone(v.CredentialLabels)
	}
	return out
}

func (s *Sandbox) vendorBy(fits func(*Vendor) bool) *Vendor {
	if i := slices.IndexFunc(s.vendors, fits); i >= 0 {
		return s.vendors[i]
	}
	return nil
}

// vendorReady is integrationStatus in the list of vendors, where it can only be about the
// vendor itself: the request names no organization. Its words are published nowhere.
const vendorReady = "active"

// oemVendor is a vendor as the OEM-API lists it.
type oemVendor struct {
	ID     string     `json:"id"`
	Name   string     `json:"name"`
	Status string     `json:"integrationStatus,omitempty"`
	Type   VendorType `json:"integrationType"`
	// CredentialTemplate has an empty value under each label.
	CredentialTemplate map[string]string `json:"integrationCredentialTemplate"`
}

// listVendors is POST /vendor.
func (s *Sandbox) listVendors() answer {
	list := make([]oemVendor, len(s.vendors))
	for i, v := range s.vendors {
		list[i] = oemVendor{ID: v.ID, Name: v.Name, Status: vendorReady, Type: v.Type, CredentialTemplate: v.template()}
		if s.oem.Statuses == NoStatuses {
			list[i].Status = ""
		}
	}
	a := answer{status: http.StatusOK, message: fmt.Sprintf("%d vendors", len(list))}
	a.bare = struct {
		Vendors []oemVendor `json:"vendors"`
		oemSaid
	}{list, oemSaid{a.status, a.message}}
	return a
}

func (v *Vendor) template() map[string]string {
	template := make(map[string]string, len(v.CredentialLabels))
	for _, label := range v.CredentialLabels {
		template[label] = ""
	}
	return template
}
