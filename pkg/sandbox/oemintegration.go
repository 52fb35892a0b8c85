package sandbox

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// oemIntegration is an integration as the OEM-API lists it.
type oemIntegration struct {
	ID       string `json:"id"`
	VendorID string `json:"vendorId"`
	// CredentialTemplate has one empty value under each label, and labels contain spaces.
	CredentialTemplate []map[string]string `json:"integrationCredentialTemplate"`
	Status             string              `json:"integrationStatus,omitempty"`
}

// listIntegrations is POST /integration/list.
func (o *organization) listIntegrations(words StatusWords, now time.Time) answer {
	list := make([]oemIntegration, len(o.integrations))
	for i, in := range o.integrations {
		in.settle(now)
		list[i] = oemIntegration{
			ID: in.id, VendorID: in.vendorID(), CredentialTemplate: []map[string]string{{"Vendor API key": ""}},
			Status: words.of(in.status),
		}
		if in.credentialsKind() {
			list[i].CredentialTemplate[0] = in.vendor.template()
		}
	}
	a := answer{status: http.StatusOK, message: fmt.Sprintf("%d integrations", len(list))}
	a.bare = struct {
		Integrations []oemIntegration `json:"integrations"`
		oemSaid
	}{list, oemSaid{a.status, a.message}}
	return a
}

// credentialsKind says that the platform would call the vendor, and the vendor has no key.
func (in *integration) credentialsKind() bool { return in.kept != nil }

// createIntegration is POST /integration of either kind.
func (s *Sandbox) createIntegration(c *call, now time.Time) answer {
	o, wish := c.organization, &c.oem
	v := s.vendorBy(func(v *Vendor) bool { return v.ID == wish.vendorID })
	switch {
	case wish.external && wish.organizationID != o.name && wish.organizationID != o.id:
		return refuse(http.StatusNotFound, "organizationId %q is not that of the organization whose token this is", wish.organizationID)
	case v == nil:
		return refuse(http.StatusNotFound, "%s %q is that of no vendor", wish.vendorField(), wish.vendorID)
	case wish.external && v.Type != ExternalVendor:
		return refuse(http.StatusBadRequest, "integrationType must not be external: vendor %q is of type %s", v.ID, v.Type)
	case !wish.external && v.Type == ExternalVendor:
		return refuse(http.StatusBadRequest, "integrationType must be external: vendor %q is of that type", v.ID)
	}
	for _, in := range o.integrations {
		if in.vendorID() == v.ID {
			return refuse(http.StatusConflict, "organization %q has integration %s of vendor %q", o.name, in.id, v.ID)
		}
	}
	if refused := v.checkCredentials(wish.credentials, true); refused != nil {
		return *refused
	}
	return s.integrate(o, v, wish, now)
}

// integrate makes the integration, which nothing speaks against but its name.
func (s *Sandbox) integrate(o *organization, v *Vendor, wish *oemRequest, now time.Time) answer {
	in := Integration{
		Name: v.Name + "/" + o.name, ID: fmt.Sprintf("int-%d", s.created+1), Dialect: MSPCentric, OEMToken: o.token,
		VendorToken: v.Token,
	}
	if wish.external {
		in.PartnerToken = "partner-" + rand.Text()
	}
	it, err := s.add(&in)
	if err != nil {
		return refuse(http.StatusConflict, "%v", err)
	}
	s.created++
	it.exchanged = now
	if !wish.external {
		it.kept = maps.Clone(wish.credentials)
	}
	a := answer{status: http.StatusCreated, message: fmt.Sprintf("integration %s of vendor %q created", it.id, v.ID)}
	said := oemMade{Integration: oemMadeIntegration{ID: it.id, VendorID: v.ID}, PartnerAPIKey: in.PartnerToken, oemSaid: oemSaid{a.status, a.message}}
	if wish.external {
		said.Integration.Kind = string(ExternalVendor)
	}
	a.bare = said
	return a
}

// oemMade answers who made or changed an integration.
type oemMade struct {
	Integration   oemMadeIntegration `json:"integration"`
	PartnerAPIKey string             `json:"partnerApiKey,omitempty"`
	oemSaid
}

type oemMadeIntegration struct {
	ID       string `json:"id"`
	VendorID string `json:"vendorId"`
	Kind     string `json:"integrationKind,omitempty"`
}

// updateIntegration is PATCH /integration/{id}: what is not named stays.
func (s *Sandbox) updateIntegration(c *call) answer {
	o, wish := c.organization, &c.oem
	i := slices.IndexFunc(o.integrations, func(in *integration) bool { return in.id == wish.integrationID })
	if i < 0 {
		return refuse(http.StatusNotFound, "organization %q has no integration with id: %s", o.name, wish.integrationID)
	}
	in := o.integrations[i]
	if !in.credentialsKind() {
		return refuse(http.StatusBadRequest, "integration %s is external: it has no credentials", in.id)
	}
	if refused := in.vendor.checkCredentials(wish.credentials, false); refused != nil {
		return *refused
	}
	maps.Copy(in.kept, wish.credentials)
	a := answer{status: http.StatusOK, message: fmt.Sprintf("credentials of integration %s replaced", in.id)}
	a.bare = oemMade{Integration: oemMadeIntegration{ID: in.id, VendorID: in.vendorID()}, oemSaid: oemSaid{a.status, a.message}}
	return a
}

// checkCredentials compares labels with the vendor's template. It never says a value.
func (v *Vendor) checkCredentials(given map[string]string, all bool) *answer {
	var wrong []string
	template := v.template()
	for label := range given {
		if _, known := template[label]; !known {
			// Not which one: where label and value are swapped it is the secret.
			wrong = append(wrong, fmt.Sprintf("data.integrationCredentials has a label that vendor %q does not; want %q", v.ID, v.CredentialLabels))
			break
		}
	}
	for _, label := range slices.Sorted(maps.Keys(template)) {
		if _, there := given[label]; all && !there {
			wrong = append(wrong, fmt.Sprintf("data.integrationCredentials: %q is missing", label))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	a := refuse(http.StatusBadRequest, "%s", strings.Join(wrong, "; "))
	return &a
}
