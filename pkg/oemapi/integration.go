package oemapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	x := c.newExchange(op, organizationOemToken)
	if err := validateCredential("organization OEM token", organizationOemToken.reveal()); err != nil {
		failure := x.refused(err)
		return nil, x.result, failure
	}
	body, failure := x.do(ctx, c.credentials(organizationOemToken))
	if failure != nil {
		return nil, x.result, failure
	}
	list, err := decodeIntegrations(body, x.hide)
	if err != nil {
		if said := x.result.Message; said != "" && json.Valid(body) {
			err = fmt.Errorf("%w: %s", err, said)
		}
		failure := x.unreadable(err)
		return nil, x.result, failure
	}
	return list, x.result, nil
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
