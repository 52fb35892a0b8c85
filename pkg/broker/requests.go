package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

const (
	// requestsConsumer hands each request out to one of all workers.
	requestsConsumer = "onboarding"
	// requestWait is how long a worker may take for a request.
	requestWait = 30 * time.Second
	// requestRetry is the wait before a request that could not be taken comes
	// again, and before the next question after a failed one.
	requestRetry = 5 * time.Second
)

// Requests calls take for every event that asks for an integration, one after the
// other, until ctx ends, which is no error. What take returns nil for is
// acknowledged; anything else comes again, to this worker or another. Each comes
// at least once; after a restored backup all of them may come once more.
func (b *Broker) Requests(ctx context.Context, take func(context.Context, event.Message) error) error {
	for {
		err := b.requests(ctx, take)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("stream %s is missing: run `usagebridge init`: %w", StreamRequests, err)
		}
		b.log.Warn("requests for integrations were interrupted", "err", err)
		if err := pause(ctx, requestRetry); err != nil {
			return nil //nolint:nilerr // told to stop
		}
	}
}

// requests is Requests until something goes wrong.
func (b *Broker) requests(ctx context.Context, take func(context.Context, event.Message) error) error {
	opening, cancel := limited(ctx)
	defer cancel()
	consumer, err := b.js.CreateOrUpdateConsumer(opening, StreamRequests, jetstream.ConsumerConfig{
		Durable: requestsConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: requestWait, MaxDeliver: -1,
	})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := b.nextRequest(ctx, consumer, take); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// nextRequest waits for a request, for a while.
func (b *Broker) nextRequest(ctx context.Context, consumer jetstream.Consumer, take func(context.Context, event.Message) error) error {
	waiting, cancel := context.WithTimeout(ctx, idleExpiry)
	defer cancel()
	batch, err := consumer.Fetch(1, jetstream.FetchContext(waiting))
	if err != nil {
		return err
	}
	for m := range batch.Messages() {
		if err := b.takeRequest(ctx, m, take); err != nil {
			return err
		}
	}
	if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) && waiting.Err() == nil {
		return err
	}
	return nil
}

func (b *Broker) takeRequest(ctx context.Context, m jetstream.Msg, take func(context.Context, event.Message) error) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	work, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	err = take(work, event.Message{
		Subject: m.Subject(), Header: header(m.Headers()), Data: m.Data(),
		Stream: meta.Stream, Sequence: meta.Sequence.Stream, Stored: meta.Timestamp.UTC(), Deliveries: int(meta.NumDelivered),
	})
	if err != nil {
		b.log.Warn("request for an integration not taken, it comes again", "subject", m.Subject(), "sequence", meta.Sequence.Stream, "err", err)
		return m.NakWithDelay(requestRetry)
	}
	return m.DoubleAck(work)
}
