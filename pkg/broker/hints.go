package broker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Hint says that something may have changed at the partner. It goes to every
// worker and is kept nowhere: one that is lost costs the wait until the next
// probe, nothing else.
type Hint struct {
	Vendor       string   `json:"vendor"`
	Organization string   `json:"organization"`
	Accounts     []string `json:"accounts,omitempty"` // that may be mapped now
}

const hintSubjects = "hint.v1.*.*"

// PublishHint hands a hint to all workers that are connected now.
func (b *Broker) PublishHint(ctx context.Context, h Hint) error {
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode hint for %s/%s: %w", h.Vendor, h.Organization, err)
	}
	subject := "hint.v1." + event.Escape(h.Vendor) + "." + event.Escape(h.Organization)
	if err := b.conn.Publish(subject, data); err != nil {
		return fmt.Errorf("publish hint for %s/%s: %w", h.Vendor, h.Organization, err)
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	if err := b.conn.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("publish hint for %s/%s: %w", h.Vendor, h.Organization, err)
	}
	return nil
}

// Hints calls take for every hint until ctx ends, which is no error. What is
// no hint is logged and passed over.
func (b *Broker) Hints(ctx context.Context, take func(Hint)) error {
	messages := make(chan *nats.Msg, 64)
	subscription, err := b.conn.ChanSubscribe(hintSubjects, messages)
	if err != nil {
		return fmt.Errorf("subscribe to hints: %w", err)
	}
	defer func() { _ = subscription.Unsubscribe() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-messages:
			var h Hint
			if err := json.Unmarshal(m.Data, &h); err != nil || h.Vendor == "" || h.Organization == "" {
				b.log.Warn("hint is not understood", "subject", m.Subject, "err", err)
				continue
			}
			take(h)
		}
	}
}
