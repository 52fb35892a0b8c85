package publisher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Why an event was not acknowledged. Test with errors.Is; the errors returned
// say which subject, what the server answered and what would be right.
var (
	// ErrNoStream: for longer than Config.Patience no stream took the subject.
	ErrNoStream = errors.New("no stream takes the subject")
	// ErrStreamFull: for longer than Config.Patience the stream was at a limit
	// and did not take new messages.
	ErrStreamFull = errors.New("the stream is full")
	// ErrDenied: this NATS user may not publish on the subject. The event is
	// not stored.
	ErrDenied = errors.New("publishing is not permitted")
	// ErrInboxDenied: this NATS user may not subscribe to its inbox, so that
	// no acknowledgement can arrive.
	ErrInboxDenied = errors.New("subscribing to the inbox is not permitted")
	// ErrTooLarge: the event is larger than the server or the stream accepts.
	ErrTooLarge = errors.New("the event is too large")
	// ErrClosed: the connection is closed or draining.
	ErrClosed = errors.New("the connection is closed")
)

// publishError is one of the Err… values told with its circumstances.
type publishError struct {
	kind error
	text string
}

func (p *publishError) Error() string { return p.text }
func (p *publishError) Unwrap() error { return p.kind }

func tooLarge(size, limit int64) error {
	return &publishError{ErrTooLarge, fmt.Sprintf("it is %d bytes with its headers, and the server takes %d (max_payload): split a snapshot into parts", size, limit)}
}

// The pause between two attempts grows from firstPause to longestPause.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// JetStream's numbers for a refused message that jetstream does not name.
const (
	codeAccountLimits  jetstream.ErrorCode = 10002
	codeNoResources    jetstream.ErrorCode = 10023
	codeMemoryFull     jetstream.ErrorCode = 10028
	codeStorageFull    jetstream.ErrorCode = 10047
	codeStoreFailed    jetstream.ErrorCode = 10077
	codeHeaderTooLarge jetstream.ErrorCode = 10097
)

// delivery is the attempts of one event.
type delivery struct {
	publisher *Publisher
	message   message
	denied    *denial
	attempts  int
	// unwanted is since when every answer was that the event is not stored;
	// zero after an attempt that got no answer.
	unwanted time.Time
	last     error // of the latest attempt
}

// deliver sends m until it is acknowledged, refused for good, or ctx ends.
func (p *Publisher) deliver(ctx context.Context, m message) (Ack, error) {
	p.carryTrace(ctx, m.wire)
	d := delivery{publisher: p, message: m, denied: p.refused.expect(m.wire.Subject)}
	defer p.refused.forget(m.wire.Subject, d.denied)
	pause := backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstPause),
		backoff.WithMultiplier(2), backoff.WithMaxInterval(longestPause), backoff.WithMaxElapsedTime(0))
	attempt := func() (Ack, error) {
		d.attempts++
		ack, err := d.attempt(ctx)
		if err == nil {
			return ack, nil
		}
		return Ack{}, d.judge(err, time.Now())
	}
	ack, err := backoff.RetryNotifyWithData(attempt, backoff.WithContext(pause, ctx), d.notify)
	ack.EventID = m.event.ID
	if err == nil {
		return ack, nil
	}
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) && d.last != nil {
		err = fmt.Errorf("not acknowledged after %d attempts (the latest: %w): %w", d.attempts, d.last, ended)
	}
	return ack, m.failed(err)
}

func (d *delivery) notify(err error, wait time.Duration) {
	if told := d.publisher.config.OnRetry; told != nil {
		told(Retry{EventID: d.message.event.ID, Subject: d.message.wire.Subject, Attempt: d.attempts, Err: err, Wait: wait})
	}
}

// attempt sends the event once. Nothing is sent without a connection: the
// client would keep the message and every repeat of it for the reconnect.
func (d *delivery) attempt(ctx context.Context) (Ack, error) {
	p := d.publisher
	switch p.nc.Status() {
	case nats.CLOSED:
		return Ack{}, nats.ErrConnectionClosed
	case nats.RECONNECTING, nats.DISCONNECTED, nats.CONNECTING:
		return Ack{}, nats.ErrDisconnected
	default:
	}
	future, err := p.js.PublishMsgAsync(d.message.wire, jetstream.WithRetryAttempts(0))
	if err != nil {
		return Ack{}, err
	}
	select {
	case ack := <-future.Ok():
		p.refused.heard()
		return Ack{Stream: ack.Stream, Sequence: ack.Sequence, Duplicate: ack.Duplicate}, nil
	case err := <-future.Err():
		return Ack{}, err
	case <-d.denied.told:
		return Ack{}, d.denied.err
	case <-ctx.Done():
		return Ack{}, ctx.Err()
	}
}

// judge says what an attempt's error means: as it is for one more attempt, as
// backoff.Permanent when no more will be made.
func (d *delivery) judge(err error, now time.Time) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrDenied):
		return backoff.Permanent(err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return backoff.Permanent(&publishError{ErrClosed, err.Error() + ": want a connection that stays open until every event is acknowledged"})
	case errors.Is(err, nats.ErrMaxPayload):
		return backoff.Permanent(tooLarge(wireSize(d.message.wire), d.publisher.nc.MaxPayload()))
	}
	d.last = err
	if unanswered(err) {
		d.unwanted = time.Time{}
		if inbox := d.publisher.refused.inboxDenied(); inbox != nil {
			return backoff.Permanent(inbox)
		}
		return err
	}
	if d.unwanted.IsZero() {
		d.unwanted = now
	}
	final, said := d.verdict(err)
	if final || now.Sub(d.unwanted) >= d.publisher.config.Patience {
		return backoff.Permanent(said)
	}
	return said
}

// unanswered holds for attempts of which nobody knows whether the event is
// stored.
func unanswered(err error) bool {
	return errors.Is(err, jetstream.ErrAsyncPublishTimeout) || errors.Is(err, nats.ErrDisconnected) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrTimeout)
}

// verdict says whether the server's answer is its last, and puts it into words.
func (d *delivery) verdict(err error) (final bool, said error) {
	subject, vendor := d.message.wire.Subject, d.publisher.config.Vendor
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		return false, &publishError{ErrNoStream, fmt.Sprintf("no stream takes %s: is the vendor initialised (usagebridge init --vendor %s) and may this user publish?", subject, vendor)}
	}
	var answer *jetstream.APIError
	if !errors.As(err, &answer) {
		return false, err
	}
	switch answer.ErrorCode {
	case jetstream.JSErrCodeStreamMessageExceedsMaximum, codeHeaderTooLarge:
		return true, &publishError{ErrTooLarge, fmt.Sprintf("it is %d bytes with its headers, more than the stream takes (%s): split a snapshot into parts", wireSize(d.message.wire), answer.Description)}
	case codeAccountLimits, codeNoResources, codeMemoryFull, codeStorageFull:
		return false, full(subject, answer)
	case codeStoreFailed:
		if strings.HasPrefix(answer.Description, "maximum ") {
			return false, full(subject, answer)
		}
	}
	// A conflict (409) is an earlier attempt of this event still being
	// stored; 429 and 5xx pass as well. Other answers repeat themselves.
	said = fmt.Errorf("the server does not store %s: %s (JetStream error %d)", subject, answer.Description, answer.ErrorCode)
	return answer.Code < 500 && answer.Code != 409 && answer.Code != 429, said
}

func full(subject string, answer *jetstream.APIError) error {
	return &publishError{ErrStreamFull, fmt.Sprintf("the stream that takes %s is full: %s (JetStream error %d): raise its limits or let it age out", subject, answer.Description, answer.ErrorCode)}
}
