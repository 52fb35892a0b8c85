package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	// batchMessages is the server's own limit for an atomic batch.
	batchMessages = 1000
	// batchBytes keeps a batch, which the server stages before it commits,
	// within reason.
	batchBytes = 8 << 20
	// pipelined is how many messages are stored one by one within one time
	// limit. Each may cost a sync of the disk, 10 ms on a slow one.
	pipelined = 250

	firstRetry = 2 * time.Millisecond
	lastRetry  = 250 * time.Millisecond
)

// ErrStale says that at least one record was not at the expected revision:
// somebody else has written it. Read it again, or give it up.
var ErrStale = errors.New("stale revision")

func message(subject string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{}, Data: data}
}

// expect makes the message valid only if the newest message of its subject
// has this sequence; 0: if there is none.
func expect(m *nats.Msg, sequence uint64) {
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(sequence, 10))
}

// publish stores one message and gives its sequence.
func (b *Broker) publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	ack, err := b.js.PublishMsg(ctx, m)
	if err != nil {
		return 0, staleOr(err)
	}
	return ack.Sequence, nil
}

// publishAll stores the messages in order and sets sequences, which is as
// long as messages. Where the stream takes atomic batches, up to 1000
// messages cost one sync of the disk, and all or none of them are stored.
// Each batch has its own time: how many there are says nothing of the server.
func (b *Broker) publishAll(ctx context.Context, stream string, messages []*nats.Msg, sequences []uint64) error {
	if len(messages) == 1 {
		ctx, cancel := limited(ctx)
		defer cancel()
		sequence, err := b.publish(ctx, messages[0])
		sequences[0] = sequence
		return err
	}
	s, err := b.stream(ctx, stream)
	if err != nil {
		return err
	}
	// A server that knows no atomic batches does not echo the setting.
	if !s.CachedInfo().Config.AllowAtomicPublish {
		return b.pipelineAll(ctx, messages, sequences)
	}
	for len(messages) > 0 {
		n := chunk(messages)
		last, err := b.publishBatch(ctx, messages[:n])
		if err != nil {
			return err
		}
		for i := range n {
			sequences[i] = last - uint64(n-1-i)
		}
		messages, sequences = messages[n:], sequences[n:]
	}
	return nil
}

// chunk is how many of the messages go into one batch, at least 1.
func chunk(messages []*nats.Msg) int {
	size := 0
	for n, m := range messages {
		size += len(m.Subject) + len(m.Data)
		if n == batchMessages || n > 0 && size > batchBytes {
			return n
		}
	}
	return len(messages)
}

// publishBatch stores all messages or none and gives the sequence of the
// last one; the others precede it without a gap.
func (b *Broker) publishBatch(ctx context.Context, messages []*nats.Msg) (uint64, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	select {
	case b.batches <- struct{}{}:
		defer func() { <-b.batches }()
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for one of %d batches to end: %w", maxBatches, ctx.Err())
	}
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		// Waiting for the first message's own acknowledgement would cost a
		// round trip and tell nothing that the commit does not tell.
		ack, err := jetstreamext.PublishMsgBatch(ctx, b.js, messages, jetstreamext.BatchFlowControl{})
		if err == nil {
			return ack.Sequence, nil
		}
		if !abandoned(err) {
			return 0, staleOr(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, err
		}
	}
}

// abandoned says that the server stored nothing of a batch: other processes
// have too many under way, or a part was lost on a bad connection.
func abandoned(err error) bool {
	switch errorCode(err) {
	case jetstreamext.JSErrCodeBatchPublishIncomplete, jetstreamext.JSErrCodeAtomicPublishTooManyInflight:
		return true
	}
	return false
}

// pipelineAll stores the messages in order, or says what was worst.
func (b *Broker) pipelineAll(ctx context.Context, messages []*nats.Msg, sequences []uint64) error {
	for len(messages) > 0 {
		n := min(len(messages), pipelined)
		if err := worst(b.pipeline(ctx, messages[:n], sequences[:n])); err != nil {
			return err
		}
		messages, sequences = messages[n:], sequences[n:]
	}
	return nil
}

// pipeline stores the messages without waiting for one before sending the
// next. The result has one error, or nil, for each message.
func (b *Broker) pipeline(ctx context.Context, messages []*nats.Msg, sequences []uint64) []error {
	ctx, cancel := limited(ctx)
	defer cancel()
	errs := make([]error, len(messages))
	futures := make([]jetstream.PubAckFuture, len(messages))
	for i, m := range messages {
		futures[i], errs[i] = b.js.PublishMsgAsync(m, jetstream.WithStallWait(requestTimeout))
		if errs[i] != nil {
			break // the connection is gone or the server has stalled
		}
	}
	for i, f := range futures {
		if f == nil {
			errs[i] = errors.Join(errs[i], errNotSent)
			continue
		}
		select {
		case ack := <-f.Ok():
			sequences[i] = ack.Sequence
		case err := <-f.Err():
			errs[i] = staleOr(err)
		case <-ctx.Done():
			errs[i] = ctx.Err()
		}
	}
	return errs
}

// worst is one error for all: a stale one, since it asks for something else
// than trying again, or the first.
func worst(errs []error) error {
	var first error
	for _, err := range errs {
		if errors.Is(err, ErrStale) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

var errNotSent = errors.New("not sent")

// staleOr makes the server's words for a lost compare-and-set wrap ErrStale:
// the second code is what replicated streams and batches use.
func staleOr(err error) error {
	switch errorCode(err) {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return err
}

func errorCode(err error) jetstream.ErrorCode {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode
	}
	return 0
}

// Append stores one record on a subject of STATUS or AUDIT, or an event on
// its public subject, and returns when it is stored. A msgID that the stream
// has seen within its duplicate window makes it a no-op; empty: none.
func (b *Broker) Append(ctx context.Context, subject string, header map[string][]string, data []byte, msgID string) error {
	m := message(subject, data)
	maps.Copy(m.Header, header)
	if msgID != "" {
		m.Header.Set(jetstream.MsgIDHeader, msgID)
	}
	if _, err := b.publish(ctx, m); err != nil {
		return fmt.Errorf("append to %s: %w", subject, err)
	}
	return nil
}
