package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// CallFilter chooses lines of the sync log. Zero values choose everything.
type CallFilter struct {
	Operation string // account, service, count, mapping or read
	Account   string
	Service   string
	Since     time.Time // recorded at or after it
}

func (f CallFilter) match(c ledger.Call) bool {
	return (f.Account == "" || f.Account == c.Account) && (f.Service == "" || f.Service == c.Service)
}

// AppendCalls stores the calls in the sync log, in their order: up to 1000
// cost one sync of the disk.
func (b *Broker) AppendCalls(ctx context.Context, vendor string, calls []ledger.Call) error {
	if len(calls) == 0 {
		return nil
	}
	messages := make([]*nats.Msg, len(calls))
	for i, c := range calls {
		data, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("append %d calls of %s to the sync log: %w", len(calls), vendor, err)
		}
		messages[i] = message(callSubject(vendor, c.Organization, c.Operation), data)
	}
	if err := b.publishAll(ctx, StreamSyncLog, messages, make([]uint64, len(messages))); err != nil {
		return fmt.Errorf("append %d calls of %s to the sync log: %w", len(calls), vendor, err)
	}
	return nil
}

func callSubject(vendor, organization, operation string) string {
	return "synclog.v1." + token(vendor) + "." + token(organization) + "." + token(operation)
}

// token is the id as a subject token, or * for every one.
func token(id string) string {
	if id == "" {
		return "*"
	}
	return event.Escape(id)
}

// Calls yields the calls of an integration, or of all of the vendor's when
// organization is empty, oldest first, up to the newest at the time of the
// call. An error of yield ends it and comes back.
func (b *Broker) Calls(ctx context.Context, vendor, organization string, f CallFilter, yield func(ledger.Call) error) error {
	r := reading{stream: StreamSyncLog, filters: []string{callSubject(vendor, organization, f.Operation)}, since: f.Since}
	err := b.read(ctx, r, func(m *nats.Msg, meta *nats.MsgMetadata) error {
		var c ledger.Call
		if err := json.Unmarshal(m.Data, &c); err != nil {
			return fmt.Errorf("line %d: %w", meta.Sequence.Stream, err)
		}
		if !f.match(c) {
			return nil
		}
		return yield(c)
	})
	if err != nil {
		return fmt.Errorf("read sync log of %s: %w", vendor, err)
	}
	return nil
}
