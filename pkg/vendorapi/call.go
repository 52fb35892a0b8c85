package vendorapi

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"unicode/utf8"
)

// Account is an end customer of the MSP, as the vendor knows it.
type Account struct {
	ID         string // the vendor's own id, required
	Name       string
	ExternalID string // MSPCentric only; optional, left out when empty
	// Description is sent to Gradient only, which has no external id.
	Description string
}

// Service is a product of the vendor.
type Service struct {
	ID          string // the vendor's own id, required
	Name        string
	Description string
}

// Count is how many units of a service an account uses now: an absolute
// figure, the last one posted wins.
type Count struct {
	AccountID string
	ServiceID string
	// Units is the exact decimal text that goes on the wire, such as "42" or
	// "0.125": no sign, no exponent. How many decimals and how large it may
	// be is settled by the event contract before it comes here.
	Units json.Number
	// NoBuild asks Gradient to take the figure without rebuilding the view of
	// the billing, for all but the last of many counts. MSPCentric has no such
	// thing: ignored.
	NoBuild bool
}

// MappingResult is what the partner said to [Client.SetMapping].
type MappingResult struct {
	Result
	// IntegrationID is the platform's id of the integration, empty when the
	// answer did not tell.
	IntegrationID string
	// Status is the integration's status in MSPCentric's words, usually
	// "mapping", empty when the answer did not tell. Gradient's three words are
	// translated ("pending" is "mapping", "active" is "connected"); any other
	// word is handed on: platforms of different age use different ones.
	Status string
}

var plainDecimal = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`)

// PostAccount creates an account. One that exists already is a success with
// [Result.Existed]; its name and external id then stay as the platform has
// them. An error is always an [*Error].
func (c *Client) PostAccount(ctx context.Context, account Account) (Result, error) {
	op := operation{name: "post account", method: http.MethodPost, segments: c.dialect.accounts, creates: true}
	op.fault = idFault("account id", account.ID)
	result, _, err := c.exchange(ctx, op, c.dialect.account(account))
	return result, err
}

// PostService creates a service. One that exists already is a success with
// [Result.Existed]; its name and description then stay as the platform has
// them. An error is always an [*Error].
func (c *Client) PostService(ctx context.Context, service Service) (Result, error) {
	op := operation{name: "post service", method: http.MethodPost, segments: c.dialect.services, creates: true}
	op.fault = idFault("service id", service.ID)
	result, _, err := c.exchange(ctx, op, struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		Description string `json:"description"`
	}(service))
	return result, err
}

// SetMapping tells the platform that accounts and services are posted and that
// a human may map them now. On Gradient it sets the status whatever that was:
// what it does to an integration that is active already is published nowhere,
// so ask [Client.Organization] first. An error is always an [*Error].
func (c *Client) SetMapping(ctx context.Context) (MappingResult, error) {
	op := operation{name: "set mapping", method: http.MethodPatch, segments: c.dialect.mapping}
	result, body, err := c.exchange(ctx, op, c.dialect.mappingBody)
	if err != nil {
		return MappingResult{Result: result}, err
	}
	// An answer that cannot be read leaves both empty: the call succeeded.
	var answer struct {
		Data struct {
			IntegrationID text `json:"integrationId"`
			Status        any  `json:"status"`
		} `json:"data"`
	}
	_ = json.Unmarshal(body, &answer)
	return MappingResult{
		Result:        result,
		IntegrationID: c.secrets().message(string(answer.Data.IntegrationID)),
		Status:        c.secrets().message(c.dialect.status(sentence(answer.Data.Status))),
	}, nil
}

// PostCount sets the unit count of one account and service. An error is always
// an [*Error]; a count without ids or with units that are no plain decimal is
// refused here, as [Rejected] and not sent.
func (c *Client) PostCount(ctx context.Context, count Count) (Result, error) {
	op := operation{name: "post count", method: http.MethodPost, segments: []string{"service", count.ServiceID, "count"}}
	if count.NoBuild {
		op.query = c.dialect.noBuild
	}
	op.fault = cmp.Or(idFault("service id", count.ServiceID), idFault("account id", count.AccountID), unitsFault(count.Units))
	result, _, err := c.exchange(ctx, op, struct {
		AccountID string      `json:"accountId"`
		Units     json.Number `json:"unitCount"`
	}{count.AccountID, count.Units})
	return result, err
}

// idFault says what is wrong with an id, or nothing. Invalid UTF-8 is refused
// because JSON would carry another id in its place.
func idFault(what, id string) string {
	switch {
	case id == "":
		return what + " is empty; want the vendor's own id"
	case !utf8.ValidString(id):
		return what + " is not valid UTF-8; want the vendor's own id"
	default:
		return ""
	}
}

// unitsFault guards the figure: an empty json.Number would be encoded as 0.
func unitsFault(units json.Number) string {
	if plainDecimal.MatchString(string(units)) {
		return ""
	}
	return "unit count is no plain decimal number; want digits such as 42 or 0.125"
}
