package oemapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// Integration is one vendor at one organization, as the platform lists it. Its
// texts are fit for a log line.
type Integration struct {
	// ID is the platform's id, never empty.
	ID string
	// VendorID is the platform's id of the vendor, empty when the answer did not
	// tell.
	VendorID string
	// Status is the platform's word for the integration's status, as it is; empty
	// when the answer did not tell, which is how the documentation's sample looks.
	// Platforms of different age use different words: today's are inactive, mapping,
	// pending and connected; in the older overview pending is what mapping is today.
	Status string
}

// Integrations lists the integrations of the organization whose OEM token this is,
// in the platform's order. An error is always an [*Error] and comes without any
// integration: half a list would look as if the rest were gone. For the same reason
// an answer without a list, with one that holds something without an id, or of more
// than 1 MiB is [Unexpected]; an empty list is a success. An unusable token is
// refused as [Rejected] and not sent.
func (c *Client) Integrations(ctx context.Context, organizationOemToken Secret) ([]Integration, Result, error) {
	op := operation{name: "list integrations", method: http.MethodPost, path: "/integration/list"}
	if result, err := c.refuse(op, validateToken(organizationOemToken)); err != nil {
		return nil, result, err
	}
	return call(ctx, c, op, c.credentials(organizationOemToken), []Secret{organizationOemToken}, decodeIntegrations)
}

func decodeIntegrations(body []byte, hide redactor) ([]Integration, error) {
	if body = bytes.TrimSpace(body); !json.Valid(body) {
		return nil, errors.New(`the answer is empty or not JSON; want an object with "integrations"`)
	}
	var answer struct {
		Integrations json.RawMessage `json:"integrations"`
	}
	if !begins(body, '{') || json.Unmarshal(body, &answer) != nil || !begins(answer.Integrations, '[') {
		return nil, errors.New(`the answer has no list; want an array "integrations"`)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(answer.Integrations, &raw); err != nil {
		return nil, err
	}
	list := make([]Integration, len(raw))
	for i := range raw {
		var from struct {
			ID       id  `json:"id"`
			VendorID id  `json:"vendorId"`
			Status   any `json:"integrationStatus"`
		}
		_ = json.Unmarshal(raw[i], &from) // what is no object has no id
		status, _ := from.Status.(string)
		list[i] = Integration{
			ID:       hide.message(string(from.ID)),
			VendorID: hide.message(string(from.VendorID)),
			Status:   hide.message(status),
		}
		if list[i].ID == "" {
			return nil, fmt.Errorf("integration %d of the list has no id", i+1)
		}
	}
	return list, nil
}

// NewIntegration is what the platform is told of an integration to be made.
type NewIntegration struct {
	// VendorID is the platform's id of the vendor.
	VendorID string
	// External asks for an integration of [KindExternal].
	External bool
	// OrganizationID is the id of the organization; only an external integration
	// names it.
	OrganizationID string
	// Credentials are by the labels of the vendor's template. One of
	// [KindExternal] may have none.
	Credentials map[string]Secret
}

// CreatedIntegration is an integration that has just been made.
type CreatedIntegration struct {
	Integration

	// PartnerKey comes with an external integration, and never again: store it
	// before anything else.
	PartnerKey Secret
}

func (i CreatedIntegration) secrets() []Secret { return []Secret{i.PartnerKey} }

// newIntegration is a request in the platform's words, which differ with the kind.
type newIntegration struct {
	credentials

	Kind           string           `json:"integrationType,omitempty"`
	OrganizationID string           `json:"organizationId,omitempty"`
	VendorID       string           `json:"vendorId,omitempty"`
	Data           *integrationData `json:"data,omitempty"`
}

type integrationData struct {
	VendorID    string            `json:"vendorId,omitempty"`
	Credentials map[string]string `json:"integrationCredentials,omitempty"`
}

// CreateIntegration connects a vendor with the organization. [Exists] says that the
// two are connected. An answer without an id or, for an external integration,
// without a partner key is [Unexpected]: the integration exists by then.
func (c *Client) CreateIntegration(ctx context.Context, organizationOemToken Secret, n NewIntegration) (CreatedIntegration, Result, error) {
	op := operation{name: "create integration", method: http.MethodPost, path: "/integration"}
	reasons := append(validateLabelled(n.Credentials), validateToken(organizationOemToken), given("vendor id", n.VendorID))
	if n.External {
		reasons = append(reasons, given("organization id", n.OrganizationID))
	} else if len(n.Credentials) == 0 {
		reasons = append(reasons, errors.New("credentials: none; want one by each label of the vendor's template"))
	}
	if result, err := c.refuse(op, reasons...); err != nil {
		return CreatedIntegration{}, result, err
	}
	body := newIntegration{credentials: c.credentials(organizationOemToken)}
	if n.External {
		body.Kind, body.OrganizationID, body.VendorID = KindExternal, n.OrganizationID, n.VendorID
		if len(n.Credentials) > 0 {
			body.Data = &integrationData{Credentials: revealed(n.Credentials)}
		}
	} else {
		body.Data = &integrationData{VendorID: n.VendorID, Credentials: revealed(n.Credentials)}
	}
	secrets := append(slices.Collect(maps.Values(n.Credentials)), organizationOemToken)
	return call(ctx, c, op, body, secrets, func(answer []byte, hide redactor) (CreatedIntegration, error) {
		return decodeCreated(answer, hide, n.External)
	})
}

// UpdateCredentials gives an integration other credentials, by the labels of the
// vendor's template. The same ones again change nothing.
func (c *Client) UpdateCredentials(
	ctx context.Context, organizationOemToken Secret, integrationID string, to map[string]Secret,
) (Integration, Result, error) {
	op := operation{name: "update credentials", method: http.MethodPatch, path: "/integration/" + url.PathEscape(integrationID)}
	reasons := append(validateLabelled(to), validateToken(organizationOemToken), given("integration id", integrationID))
	if integrationID == "." || integrationID == ".." {
		reasons = append(reasons, fmt.Errorf("integration id %q: cannot stand in a path", integrationID))
	}
	if len(to) == 0 {
		reasons = append(reasons, errors.New("credentials: none; want those that change, by their labels"))
	}
	if result, err := c.refuse(op, reasons...); err != nil {
		return Integration{}, result, err
	}
	body := newIntegration{credentials: c.credentials(organizationOemToken), Data: &integrationData{Credentials: revealed(to)}}
	secrets := append(slices.Collect(maps.Values(to)), organizationOemToken)
	created, result, err := call(ctx, c, op, body, secrets, func(answer []byte, hide redactor) (CreatedIntegration, error) {
		return decodeCreated(answer, hide, false)
	})
	return created.Integration, result, err
}

func decodeCreated(body []byte, hide redactor, external bool) (CreatedIntegration, error) {
	var answer struct {
		Integration struct {
			ID       id `json:"id"`
			VendorID id `json:"vendorId"`
		} `json:"integration"`
		PartnerKey string `json:"partnerApiKey"`
	}
	if err := decode(body, &answer); err != nil {
		return CreatedIntegration{}, err
	}
	created := CreatedIntegration{Integration: Integration{
		ID: hide.message(string(answer.Integration.ID)), VendorID: hide.message(string(answer.Integration.VendorID)),
	}}
	if created.ID == "" {
		return CreatedIntegration{}, errors.New("the answer has no integration with an id")
	}
	if !external {
		return created, nil
	}
	var err error
	created.PartnerKey, err = received("partnerApiKey", answer.PartnerKey)
	return created, err
}

// validateLabelled says what is wrong with credentials, by their labels.
func validateLabelled(by map[string]Secret) []error {
	var reasons []error
	for _, label := range slices.Sorted(maps.Keys(by)) {
		if err := validateCredential(fmt.Sprintf("credential %q", label), by[label].Reveal()); err != nil {
			reasons = append(reasons, err)
		}
	}
	return reasons
}

func revealed(by map[string]Secret) map[string]string {
	text := make(map[string]string, len(by))
	for label, secret := range by {
		text[label] = secret.Reveal()
	}
	return text
}

// id is a text or a number of an answer, with every digit; what is neither is
// empty.
type id string

// UnmarshalJSON never fails.
func (i *id) UnmarshalJSON(raw []byte) error {
	*i = ""
	switch {
	case raw[0] == '"':
		return json.Unmarshal(raw, (*string)(i))
	case raw[0] == '-' || (raw[0] >= '0' && raw[0] <= '9'):
		*i = id(raw)
	}
	return nil
}
