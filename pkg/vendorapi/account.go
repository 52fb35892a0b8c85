package vendorapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// MaxAccountsPerCall bounds [Client.PostAccounts]. The platform publishes no
// limit; so many stay far below what a server or proxy refuses as too large.
const MaxAccountsPerCall = 500

// ListedAccount is an account as the platform has it. Its texts are what the
// platform said, for comparing: of any length, and not made fit for a terminal.
type ListedAccount struct {
	ID          string // the vendor's own id, never empty
	Name        string
	Description string
	// Mapped says that a human has mapped it: counts for it are accepted.
	Mapped bool
	// MappingID is the platform's id of the mapping, empty without one.
	MappingID string
}

// PostAccounts creates 1 to [MaxAccountsPerCall] accounts, each id once, in one
// call. It needs [BulkAccounts]. An error is always an [*Error].
//
// A 409 is a failure here, as [Rejected] with [Result.Existed]: at least one of
// them exists, and whether the platform then created the others is published
// nowhere. Nor does a success say which of them existed before. Who wants to know
// calls [Client.ListAccounts] before and after, or [Client.PostAccount] for each.
func (c *Client) PostAccounts(ctx context.Context, accounts []Account) (Result, error) {
	op := operation{name: "post accounts", method: http.MethodPost, segments: c.dialect.accounts, bulk: true, needs: BulkAccounts}
	op.fault = accountsFault(accounts)
	bodies := make([]any, len(accounts))
	for i, account := range accounts {
		bodies[i] = c.dialect.account(account)
	}
	result, _, err := c.exchange(ctx, op, bodies)
	return result, err
}

// accountsFault says what is wrong with a list of accounts, or nothing.
func accountsFault(accounts []Account) string {
	if len(accounts) < 1 || len(accounts) > MaxAccountsPerCall {
		return fmt.Sprintf("%d accounts; want 1 to %d in one call", len(accounts), MaxAccountsPerCall)
	}
	seen := make(map[string]int, len(accounts))
	for i, account := range accounts {
		if fault := idFault(fmt.Sprintf("id of account %d", i), account.ID); fault != "" {
			return fault
		}
		if first, twice := seen[account.ID]; twice {
			return fmt.Sprintf("accounts %d and %d have the same id; want each id once", first, i)
		}
		seen[account.ID] = i
	}
	return ""
}

// ListAccounts returns the accounts of the organization in the platform's order,
// those that nobody mapped yet only if unmappedToo. It needs [Reading]. An error
// is always an [*Error] and comes without any account: half a list would look as
// if the rest were missing. An answer of more than 32 MiB is [Unexpected].
func (c *Client) ListAccounts(ctx context.Context, unmappedToo bool) ([]ListedAccount, Result, error) {
	op := operation{name: "list accounts", segments: c.dialect.accounts}
	if !unmappedToo { // the platform's default is true
		op.query = url.Values{"returnUnmapped": {"false"}}
	}
	return read(ctx, c, op, decodeAccounts)
}

// decodeAccounts reads an array of accounts.
func decodeAccounts(body []byte) ([]ListedAccount, error) {
	return decodeArray(body, "account", func(a struct {
		identity
		Name        text `json:"name"`
		Description text `json:"description"`
		IsMapped    any  `json:"isMapped"`
		MappingID   text `json:"mappingId"`
	},
	) (ListedAccount, error) {
		mapped, told := a.IsMapped.(bool)
		return ListedAccount{
			ID:          a.id(),
			Name:        string(a.Name),
			Description: string(a.Description),
			Mapped:      mapped || (!told && a.MappingID != ""),
			MappingID:   string(a.MappingID),
		}, a.fault()
	})
}
