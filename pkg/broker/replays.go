package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// NextLetter is the first dead letter of an integration behind a place in
// DEADLETTERS; ok is false when there is none. Ids that cannot be ids choose
// the letters whose integration could not be told. An empty reason means any.
// It costs one request to the server and keeps nothing open there: to read many
// letters of all integrations, Letters is cheaper.
func (b *Broker) NextLetter(ctx context.Context, vendor, organization string, reason event.Reason, after uint64) (l StoredLetter, ok bool, err error) {
	s, err := b.stream(ctx, StreamDeadLetters)
	if err != nil {
		return StoredLetter{}, false, err
	}
	subject := "deadletter.v1." + letterToken(vendor) + "." + letterToken(organization) + "." + token(string(reason)) + ".*.*"
	for {
		m, err := s.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return StoredLetter{}, false, nil
		}
		if err != nil {
			return StoredLetter{}, false, fmt.Errorf("read the dead letter behind %d: %w", after, err)
		}
		l, err := parseLetter(m.Header, m.Data, m.Sequence)
		if err == nil {
			return l, true, nil
		}
		// Not written by Park: it must not hide the others.
		b.log.Error("dead letter cannot be read", "sequence", m.Sequence, "err", err)
		after = m.Sequence
	}
}

// codeTooLarge is the server's answer to a message larger than the stream takes.
const codeTooLarge jetstream.ErrorCode = 10054

// refusedError marks a message that the log never takes.
type refusedError struct{ error }

// Permanent is true: trying again does not mend it.
func (refusedError) Permanent() bool { return true }

func (e refusedError) Unwrap() error { return e.error }

// Republish stores an event on its public subject under a message id of ours,
// and returns when it is stored. duplicate says that the log has a message of
// that id, from within its duplicate window, and has not stored another.
// Headers that tell the server what to do with a message are not the event's
// and are left out. An error whose Permanent is true comes again with every
// further try.
func (b *Broker) Republish(ctx context.Context, e event.Message, msgID string) (duplicate bool, err error) {
	m := message(e.Subject, e.Data)
	for name, values := range e.Header {
		if !strings.HasPrefix(strings.ToLower(name), "nats-") {
			m.Header[name] = values
		}
	}
	m.Header.Set(jetstream.MsgIDHeader, msgID)
	ack, err := b.js.PublishMsg(ctx, m)
	switch {
	case err == nil:
		return ack.Duplicate, nil
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errorCode(err) == codeTooLarge:
		err = refusedError{err}
	}
	return false, fmt.Errorf("publish on %s: %w", e.Subject, err)
}
