package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A stream is copied as JetStream itself copies it: with the sequence and the
// time of every message, and with what its consumers have acknowledged.
// Published anew, events would come in another order of arrival, and what is
// newest would be another question.

const (
	apiSnapshot = "$JS.API.STREAM.SNAPSHOT."
	apiRestore  = "$JS.API.STREAM.RESTORE."
	apiCreate   = "$JS.API.STREAM.CREATE."
	apiUpdate   = "$JS.API.STREAM.UPDATE."
	apiDelete   = "$JS.API.STREAM.DELETE."
	// snapshotChunk is how many bytes of a snapshot come in one message.
	snapshotChunk = 128 << 10
	// snapshotIdle is how long a snapshot may stand still.
	snapshotIdle = 30 * time.Second
	// restoreEnd is how long a server may take to put a stream in its place
	// once it has all of it.
	restoreEnd = 5 * time.Minute
)

// snapshot is what the server says of a stream before it sends it.
type snapshot struct {
	Config json.RawMessage `json:"config"` // the server's own words: it may know more settings than we do
	State  json.RawMessage `json:"state"`
}

// apiAnswer begins every answer of JetStream.
type apiAnswer struct {
	Error *jetstream.APIError `json:"error,omitempty"`
}

// snapshotStream yields the stream, chunk by chunk; a chunk is valid during the
// call.
func (b *Broker) snapshotStream(ctx context.Context, name string, consumers bool, yield func(chunk []byte) error) (snapshot, error) {
	var s snapshot
	inbox := b.conn.NewInbox()
	chunks, err := b.conn.SubscribeSync(inbox)
	if err != nil {
		return s, err
	}
	defer func() { _ = chunks.Unsubscribe() }()
	request := map[string]any{"deliver_subject": inbox, "no_consumers": !consumers, "chunk_size": snapshotChunk}
	if err := b.ask(ctx, apiSnapshot+name, request, &s); err != nil {
		return s, err
	}
	for received := 1; ; received++ {
		wait, cancel := context.WithTimeout(ctx, snapshotIdle)
		m, err := chunks.NextMsgWithContext(wait)
		cancel()
		if err != nil {
			return s, fmt.Errorf("wait for part %d: %w", received, err)
		}
		if len(m.Data) == 0 {
			return s, snapshotEnd(m)
		}
		if err := yield(m.Data); err != nil {
			return s, err
		}
		if m.Reply == "" { // the last one
			continue
		}
		if !strings.HasSuffix(m.Reply, "."+strconv.Itoa(received)) {
			return s, fmt.Errorf("part %d was lost on the way (%s came)", received, m.Reply)
		}
		if err := m.Respond(nil); err != nil {
			return s, err
		}
	}
}

// snapshotEnd is nil if the server says that this was all.
func snapshotEnd(m *nats.Msg) error {
	switch status := m.Header.Get("Status"); status {
	case "", "204":
		return nil
	default:
		return fmt.Errorf("the server gave up: %s %s", status, m.Header.Get("Description"))
	}
}

// restoring is a stream that is being restored: give it every chunk, then end.
// The stream is there after end, as a whole; before, it is not, and a cluster
// may leave an empty one when end is never reached.
type restoring struct {
	broker *Broker
	to     string
}

func (b *Broker) restoreStream(ctx context.Context, name string, s snapshot) (*restoring, error) {
	var answer struct {
		Subject string `json:"deliver_subject"`
	}
	if err := b.ask(ctx, apiRestore+name, s, &answer); err != nil {
		return nil, err
	}
	return &restoring{broker: b, to: answer.Subject}, nil
}

func (r *restoring) add(ctx context.Context, chunk []byte) error {
	return r.send(ctx, chunk, snapshotIdle)
}

func (r *restoring) end(ctx context.Context) error { return r.send(ctx, nil, restoreEnd) }

func (r *restoring) send(ctx context.Context, chunk []byte, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := r.broker.conn.RequestWithContext(ctx, r.to, chunk)
	// In a cluster it takes a moment until every server knows who listens there.
	for errors.Is(err, nats.ErrNoResponders) && pause(ctx, lastRetry) == nil {
		reply, err = r.broker.conn.RequestWithContext(ctx, r.to, chunk)
	}
	if err != nil {
		return err
	}
	if len(reply.Data) == 0 {
		return nil
	}
	return readAnswer(reply.Data, &struct{}{})
}

// ask asks JetStream's API for what the client has no method for, and for what
// a user may not do, which the client's methods notice only when they time out.
func (b *Broker) ask(ctx context.Context, subject string, request, answer any) error {
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, snapshotIdle)
	defer cancel()
	waiting, denied := context.WithCancelCause(limit)
	defer denied(nil)
	b.waiting.Store(subject, denied)
	defer b.waiting.Delete(subject)
	reply, err := b.conn.RequestWithContext(waiting, subject, data)
	if cause := context.Cause(waiting); errors.Is(cause, nats.ErrPermissionViolation) {
		return fmt.Errorf("this NATS user may not do that: %w: use the operator's (%s, deploy/nats/auth.conf)", cause, settingNKey)
	}
	if err != nil {
		return err
	}
	return readAnswer(reply.Data, answer)
}

// deny ends the request that waits on the subject of a permission violation:
// the server tells of it to the connection, and the request gets no answer.
func (b *Broker) deny(err error) {
	b.waiting.Range(func(subject, denied any) bool {
		name, isName := subject.(string)
		cancel, isCancel := denied.(context.CancelCauseFunc)
		if isName && isCancel && strings.Contains(err.Error(), strconv.Quote(name)) {
			cancel(err)
		}
		return true
	})
}

func readAnswer(data []byte, answer any) error {
	var failed apiAnswer
	if err := json.Unmarshal(data, &failed); err != nil {
		return fmt.Errorf("the server's answer is not understood: %w", err)
	}
	if failed.Error != nil {
		return failed.Error
	}
	return json.Unmarshal(data, answer)
}
