package broker

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// ReadLog yields the vendor's stored messages on the given public subjects,
// wildcards allowed, in the order of the log, up to the newest one at the
// time of the call. Of two subjects none may cover the other. An error of
// yield ends it and comes back.
func (b *Broker) ReadLog(ctx context.Context, vendor string, subjects []string, yield func(event.Message) error) error {
	stored := make([]string, len(subjects))
	for i, s := range subjects {
		stored[i] = "*." + s // whatever the partition
	}
	r := reading{stream: EventsStream(vendor), filters: filters(stored)}
	err := b.read(ctx, r, func(m jetstream.Msg, _ *jetstream.MsgMetadata) error {
		message, err := received(m)
		if err != nil {
			return err
		}
		message.Handle = "" // there is nothing to acknowledge
		return yield(message)
	})
	if err != nil {
		return fmt.Errorf("read log of %s: %w", vendor, err)
	}
	return nil
}
