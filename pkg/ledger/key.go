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
)

// Kinds lists every kind in the order of delivery.
func Kinds() []Kind { return []Kind{Account, Service, Count} }

// String is the word used in subjects, store keys, logs and metrics.
func (k Kind) String() string {
	switch k {
	case Account:
		return "account"
	case Service:
		return "service"
	case Count:
		return "count"
	}
	return "unknown"
}

// Key names one thing that the partner holds for an integration. The vendor
// is not part of it: a ledger belongs to one vendor. Ids are the vendor's own,
// unescaped.
type Key struct {
	Organization string
	Account      string // empty for a service
	Service      string // empty for an account
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
