package broker

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Backlog is how many messages of the vendor's log no worker has acknowledged
// yet: what no reading of the ledger can show.
func (b *Broker) Backlog(ctx context.Context, vendor string) (uint64, error) {
	s, err := b.stream(ctx, EventsStream(vendor))
	if err != nil {
		return 0, err
	}
	var waiting uint64
	consumers := s.ListConsumers(ctx)
	for info := range consumers.Info() {
		waiting += pending(info)
	}
	if err := consumers.Err(); err != nil {
		return 0, fmt.Errorf("count what waits in the log of %s: %w", vendor, err)
	}
	return waiting, nil
}

func pending(info *jetstream.ConsumerInfo) uint64 {
	return info.NumPending + uint64(max(info.NumAckPending, 0))
}
