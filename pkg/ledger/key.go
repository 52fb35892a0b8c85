package ledger

import "strings"

// Kind says what a key's value is.
type Kind uint8

// The kinds of key. The order is the order of delivery: an account and a
// service must exist at the partner before a count can name them.
const (
	Account Kind = iota + 1
	Service
	Count
	// Scope and Backfill are no figures and are never sent: under them the
	// ledger keeps what it knows of the snapshots of an organization or of an
	// account, and of the backfills of an organization.
	Scope
	Backfill
)

// Kinds lists every kind that the partner holds, in the order of delivery.
func Kinds() []Kind { return []Kind{Account, Service, Count} }

// Figure says whether keys of the kind have figures, which the partner holds.
func (k Kind) Figure() bool { return k == Account || k == Service || k == Count }

// String is the word used in subjects, store keys, logs and metrics.
func (k Kind) String() string {
	switch k {
	case Account:
		return "account"
	case Service:
		return "service"
	case Count:
		return "count"
	case Scope:
		return "scope"
	case Backfill:
		return "backfill"
	}
	return "unknown"
}

// Key names one thing that the partner holds for an integration. The vendor
// is not part of it: a ledger belongs to one vendor. Ids are the vendor's own,
// unescaped.
type Key struct {
	Organization string
	Account      string // empty for a service, and for a scope that is the whole organization
	Service      string // empty for an account and a scope; a backfill's id
	Kind         Kind
}

// AccountKey is the key of an account.
func AccountKey(organization, account string) Key {
	return Key{Organization: organization, Account: account, Kind: Account}
}

// ServiceKey is the key of a service.
func ServiceKey(organization, service string) Key {
	return Key{Organization: organization, Service: service, Kind: Service}
}

// CountKey is the key of the unit count of one service for one account.
func CountKey(organization, account, service string) Key {
	return Key{Organization: organization, Account: account, Service: service, Kind: Count}
}

// ScopeKey is the key of what is known of the snapshots of an organization,
// or of one of its accounts if that is not empty.
func ScopeKey(organization, account string) Key {
	return Key{Organization: organization, Account: account, Kind: Scope}
}

// BackfillKey is the key of what is known of a backfill in an organization.
func BackfillKey(organization, backfill string) Key {
	return Key{Organization: organization, Service: backfill, Kind: Backfill}
}

// In says whether the key is a count in the scope.
func (k Key) In(scope Key) bool {
	return k.Kind == Count && k.Organization == scope.Organization && (scope.Account == "" || scope.Account == k.Account)
}

// scopes are the keys of the scopes that a count lies in.
func (k Key) scopes() [2]Key {
	return [2]Key{ScopeKey(k.Organization, ""), ScopeKey(k.Organization, k.Account)}
}

// AccountKey is the key of the account that a count names.
func (k Key) AccountKey() Key { return AccountKey(k.Organization, k.Account) }

// ServiceKey is the key of the service that a count names.
func (k Key) ServiceKey() Key { return ServiceKey(k.Organization, k.Service) }

// String is for people: organization, kind and ids, quoted by nobody.
func (k Key) String() string {
	parts := []string{k.Organization, k.Kind.String()}
	if k.Account != "" {
		parts = append(parts, k.Account)
	}
	if k.Service != "" {
		parts = append(parts, k.Service)
	}
	return strings.Join(parts, "/")
}
