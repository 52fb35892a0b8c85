package vendorapi

import (
	"context"
	"errors"
	"time"
)

// Organization is the integration as the platform has it: whose credentials
// these are and how far the mapping is.
type Organization struct {
	OrganizationID string
	Name           string
	IntegrationID  string
	// Status is the integration's status in MSPCentric's words (see
	// [MappingResult]), empty when the answer did not tell.
	Status string
	// RawStatus is the same in the platform's own word.
	RawStatus string
	// LastSyncedAt is the time of the last usage the platform took, zero when
	// there was none yet or the answer did not tell it as RFC 3339.
	LastSyncedAt time.Time
}

// Organization asks whose integration this is. The platform recommends the call
// to check credentials: a success proves both tokens. It needs [Reading]. An
// error is always an [*Error]; [Unexpected] where the answer names neither an
// organization nor an integration, so that a friendly page in the way is not
// taken for good credentials.
func (c *Client) Organization(ctx context.Context) (Organization, Result, error) {
	op := operation{name: "read organization", segments: []string{"organization"}}
	return read(ctx, c, op, c.decodeOrganization)
}

func (c *Client) decodeOrganization(body []byte) (Organization, error) {
	answer, err := decodeObject[struct {
		OrganizationID text `json:"organizationId"`
		Name           text `json:"name"`
		IntegrationID  text `json:"integrationId"`
		Status         any  `json:"status"`
		LastSyncedAt   text `json:"lastSyncedAt"`
	}](body)
	if err != nil {
		return Organization{}, err
	}
	if answer.OrganizationID == "" && answer.IntegrationID == "" {
		return Organization{}, errors.New("the answer names neither an organization nor an integration")
	}
	status := sentence(answer.Status)
	syncedAt, err := time.Parse(time.RFC3339, string(answer.LastSyncedAt))
	if err != nil {
		syncedAt = time.Time{}
	}
	clean := c.secrets().message
	return Organization{
		OrganizationID: clean(string(answer.OrganizationID)),
		Name:           clean(string(answer.Name)),
		IntegrationID:  clean(string(answer.IntegrationID)),
		Status:         clean(c.dialect.status(status)),
		RawStatus:      clean(status),
		LastSyncedAt:   syncedAt,
	}, nil
}
