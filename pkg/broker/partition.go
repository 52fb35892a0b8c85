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
	t := strings.Split(key, ".")
	if len(t) < 3 {
		return 0, k, fmt.Errorf("ledger key %q has %d tokens: want {partition}.{organization}.{kind}.{id}…", key, len(t))
	}
	if partition, err = strconv.Atoi(t[0]); err != nil || partition < 0 {
		return 0, k, fmt.Errorf("ledger key %q: partition %q is no number", key, t[0])
	}
	var targets []*string
	switch t[2] {
	case ledger.Count.String():
		k.Kind, targets = ledger.Count, []*string{&k.Account, &k.Service}
	case ledger.Account.String():
		k.Kind, targets = ledger.Account, []*string{&k.Account}
	case ledger.Service.String():
		k.Kind, targets = ledger.Service, []*string{&k.Service}
	case ledger.Backfill.String():
		k.Kind, targets = ledger.Backfill, []*string{&k.Service}
	case ledger.Scope.String():
		if k.Kind = ledger.Scope; len(t) > 3 {
			targets = []*string{&k.Account}
		}
	default:
		return 0, k, fmt.Errorf("ledger key %q: kind %q is not account, service, count, scope or backfill", key, t[2])
	}
	if len(t) != 3+len(targets) {
		return 0, k, fmt.Errorf("ledger key %q has %d tokens: the key of a %s has %d", key, len(t), t[2], 3+len(targets))
	}
	ids := append([]string{t[1]}, t[3:]...)
	for i, target := range append([]*string{&k.Organization}, targets...) {
		if *target, err = event.Unescape(ids[i]); err != nil {
			return 0, k, fmt.Errorf("ledger key %q: %w", key, err)
		}
	}
	return partition, k, nil
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
