package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

// demoInFlight bounds the raw messages that wait for their acknowledgement.
const demoInFlight = 1000

// feed publishes a plan, as billing systems would: over connections of their
// own. Its counts may be read while it runs.
type feed struct {
	published atomic.Int64 // events acknowledged, repeats included
	dropped   atomic.Int64 // of them repeats that the server dropped
}

// run publishes the catalog, the first half of the day, and the second half
// when afternoon is closed: single events and bulk side by side. What closes
// the plan comes when all of that is stored.
func (f *feed) run(ctx context.Context, url string, plan *demoPlan, afternoon <-chan struct{}) error {
	conn, err := nats.Connect(url, nats.Name("usagebridge demo publisher"))
	if err != nil {
		return fmt.Errorf("connect a publisher: %w", err)
	}
	defer conn.Close()
	client, err := publisher.New(conn, publisher.Config{Vendor: demoVendor, Source: demoSource})
	if err != nil {
		return err
	}
	if err := f.events(ctx, client, plan.catalog); err != nil {
		return fmt.Errorf("publish the catalog: %w", err)
	}
	singles, bulk := len(plan.singles)/2, len(plan.bulk)/2
	if err := f.half(ctx, client, url, plan.singles[:singles], plan.bulk[:bulk]); err != nil {
		return err
	}
	select {
	case <-afternoon:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f.half(ctx, client, url, plan.singles[singles:], plan.bulk[bulk:]); err != nil {
		return err
	}
	return f.messages(ctx, url, plan.closing)
}

func (f *feed) half(ctx context.Context, client *publisher.Publisher, url string, singles []*event.Event, bulk []demoMessage) error {
	group, working := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := f.events(working, client, singles); err != nil {
			return fmt.Errorf("publish events: %w", err)
		}
		return nil
	})
	group.Go(func() error { return f.messages(working, url, bulk) })
	return group.Wait()
}

func (f *feed) events(ctx context.Context, client *publisher.Publisher, events []*event.Event) error {
	_, err := client.PublishAll(ctx, publisher.Records(slices.Values(events)), func(r publisher.Result) {
		if r.Err != nil {
			return
		}
		f.published.Add(1)
		if r.Ack.Duplicate {
			f.dropped.Add(1)
		}
	})
	return err
}

// messages publishes messages as they are, in their order: what is broken gets
// past no publisher that checks.
func (f *feed) messages(ctx context.Context, url string, messages []demoMessage) error {
	conn, err := nats.Connect(url, nats.Name("usagebridge demo bulk"))
	if err != nil {
		return fmt.Errorf("connect for bulk: %w", err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(2*demoInFlight))
	if err != nil {
		return fmt.Errorf("use JetStream for bulk: %w", err)
	}
	group, working := errgroup.WithContext(ctx)
	sent := make(chan sentMessage, demoInFlight)
	group.Go(func() error {
		defer close(sent)
		for i := range messages {
			m := &messages[i]
			wire := &nats.Msg{Subject: m.subject, Header: m.header, Data: m.body}
			future, err := js.PublishMsgAsync(wire, jetstream.WithStallWait(time.Minute), jetstream.WithRetryAttempts(0))
			if err != nil {
				return fmt.Errorf("publish on %s: %w", m.subject, err)
			}
			select {
			case sent <- sentMessage{m, future}:
			case <-working.Done():
				return working.Err()
			}
		}
		return nil
	})
	group.Go(func() error { return f.acknowledged(working, sent) })
	return group.Wait()
}

type sentMessage struct {
	message *demoMessage
	future  jetstream.PubAckFuture
}

// acknowledged waits for every message to be stored. A message is not sent
// again: a second copy would change the order that the plan counts on.
func (f *feed) acknowledged(ctx context.Context, sent <-chan sentMessage) error {
	for s := range sent {
		select {
		case ack := <-s.future.Ok():
			if ack.Duplicate {
				return fmt.Errorf("publish on %s: %w", s.message.subject, errTakenForRepeat)
			}
			f.published.Add(int64(s.message.events))
		case err := <-s.future.Err():
			return fmt.Errorf("publish on %s: %w", s.message.subject, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

var errTakenForRepeat = errors.New("the server took it for a repeat")
