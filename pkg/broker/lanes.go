package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// What a worker knows of an integration beside what is stored, such as when it
// will probe next, is asked for over core NATS: the worker that has it answers,
// the others are silent.

const lanePrefix = "lane.v1."

// ErrNoLane says that no worker answered for an integration.
var ErrNoLane = errors.New("no worker has the integration now")

// laneWait is how long to wait for the worker that has an integration.
const laneWait = time.Second

// AskLane asks the worker that has the integration what it is doing for it, in
// whatever form [Broker.AnswerLanes] gives. ErrNoLane means that nobody
// answered within a second.
func (b *Broker) AskLane(ctx context.Context, vendor, organization string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, laneWait)
	defer cancel()
	reply, err := b.conn.RequestWithContext(ctx, lanePrefix+IntegrationKey(vendor, organization), nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return nil, ErrNoLane
	case err != nil:
		return nil, fmt.Errorf("ask for the lane of %s/%s: %w", vendor, organization, err)
	}
	return reply.Data, nil
}

// AnswerLanes answers until ctx ends, which is no error. An answer of nil
// means that somebody else has the integration.
func (b *Broker) AnswerLanes(ctx context.Context, answer func(vendor, organization string) []byte) error {
	questions := make(chan *nats.Msg, 64)
	subscription, err := b.conn.ChanSubscribe(lanePrefix+"*.*", questions)
	if err != nil {
		return fmt.Errorf("subscribe to questions about lanes: %w", err)
	}
	defer func() { _ = subscription.Unsubscribe() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-questions:
			vendor, organization, err := ParseIntegrationKey(strings.TrimPrefix(m.Subject, lanePrefix))
			if err != nil {
				b.log.Warn("question about a lane is not understood", "subject", m.Subject, "err", err)
				continue
			}
			if a := answer(vendor, organization); a != nil {
				if err := m.Respond(a); err != nil {
					b.log.Warn("question about a lane not answered", "subject", m.Subject, "err", err)
				}
			}
		}
	}
}
