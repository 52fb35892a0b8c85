package broker

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Partition is the partition, 0 to partitions-1, that holds everything of an
// integration. It is what the server computes for a message's subject: FNV-1a
// over the two escaped ids, one after the other.
func Partition(vendor, organization string, partitions int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(event.Escape(vendor)))
	_, _ = h.Write([]byte(event.Escape(organization)))
	return int(h.Sum32() % uint32(partitions))
}

// LedgerKey is the key under which a vendor's ledger bucket keeps an entry:
// {partition}.{organization}.{kind}.{ids…}, each id escaped. The scope that is
// a whole organization has no id.
func LedgerKey(partition int, k ledger.Key) string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(partition))
	b.WriteByte('.')
	b.WriteString(event.Escape(k.Organization))
	b.WriteByte('.')
	b.WriteString(k.Kind.String())
	for _, id := range []string{k.Account, k.Service} {
		if id != "" {
			b.WriteByte('.')
			b.WriteString(event.Escape(id))
		}
	}
	return b.String()
}

// ParseLedgerKey reads what LedgerKey writes.
func ParseLedgerKey(key string) (partition int, k ledger.Key, err error) {
	var t [6]string // one more than any key has
	n := 0
	for rest, more := key, true; more && n < len(t); n++ {
		t[n], rest, more = strings.Cut(rest, ".")
	}
	if n < 3 {
		return 0, k, fmt.Errorf("ledger key %q has %d tokens: want {partition}.{organization}.{kind}.{id}…", key, n)
	}
	if partition, err = strconv.Atoi(t[0]); err != nil || partition < 0 {
		return 0, k, fmt.Errorf("ledger key %q: partition %q is no number", key, t[0])
	}
	var want int
	if k.Kind, want = ledgerKind(t[2], n); want == 0 {
		return 0, k, fmt.Errorf("ledger key %q: kind %q is not account, service, count, scope or backfill", key, t[2])
	}
	if n != want {
		return 0, k, fmt.Errorf("ledger key %q has %d tokens: the key of a %s has %d", key, strings.Count(key, ".")+1, t[2], want)
	}
	read := func(id *string, token string) {
		if err == nil {
			*id, err = event.Unescape(token)
		}
	}
	read(&k.Organization, t[1])
	switch {
	case k.Kind == ledger.Service || k.Kind == ledger.Backfill:
		read(&k.Service, t[3])
	case n > 3:
		read(&k.Account, t[3])
	}
	if k.Kind == ledger.Count {
		read(&k.Service, t[4])
	}
	if err != nil {
		return 0, k, fmt.Errorf("ledger key %q: %w", key, err)
	}
	return partition, k, nil
}

// ledgerKind is the kind that a word names, and how many tokens a key of it has, of
// those that there are; 0 for no kind.
func ledgerKind(word string, tokens int) (kind ledger.Kind, want int) {
	switch word {
	case ledger.Count.String():
		return ledger.Count, 5
	case ledger.Account.String():
		return ledger.Account, 4
	case ledger.Service.String():
		return ledger.Service, 4
	case ledger.Backfill.String():
		return ledger.Backfill, 4
	case ledger.Scope.String():
		return ledger.Scope, min(tokens, 4) // of the whole organization, or of an account
	}
	return 0, 0
}

// IntegrationKey is the key of an integration's record in the bucket
// INTEGRATIONS: {vendor}.{organization}, each id escaped.
func IntegrationKey(vendor, organization string) string {
	return event.Escape(vendor) + "." + event.Escape(organization)
}

// ParseIntegrationKey reads what IntegrationKey writes.
func ParseIntegrationKey(key string) (vendor, organization string, err error) {
	v, o, found := strings.Cut(key, ".")
	if !found {
		return "", "", fmt.Errorf("integration key %q: want {vendor}.{organization}", key)
	}
	if vendor, err = event.Unescape(v); err == nil {
		organization, err = event.Unescape(o)
	}
	if err != nil {
		return "", "", fmt.Errorf("integration key %q: %w", key, err)
	}
	return vendor, organization, nil
}
