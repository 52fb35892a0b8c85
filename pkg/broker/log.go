package broker

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// ReadLog yields the vendor's stored messages on the given public subjects,
// wildcards allowed, in the order of the log, up to the newest one at the
// time of the call. Of two subjects none may cover the other. An error of
// yield ends it and comes back.
func (b *Broker) ReadLog(ctx context.Context, vendor string, subjects []string, yield func(event.Message) error) error {
	everywhere := make([]string, len(subjects))
	for i, s := range subjects {
		everywhere[i] = "*." + s // whatever the partition
	}
	r := reading{stream: EventsStream(vendor), filters: filters(everywhere)}
	err := b.read(ctx, r, func(m *nats.Msg, meta *nats.MsgMetadata) error {
		message := stored(m.Subject, m.Header, m.Data)
		message.Stream, message.Sequence, message.Stored = meta.Stream, meta.Sequence.Stream, meta.Timestamp.UTC()
		message.Deliveries = int(meta.NumDelivered)
		return yield(message)
	})
	if err != nil {
		return fmt.Errorf("read log of %s: %w", vendor, err)
	}
	return nil
}
