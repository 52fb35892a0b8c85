package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

const (
	// maxBody is the largest request: what fits the 1 MiB that a NATS server
	// takes by default, with headers.
	maxBody = 960 << 10
	// publishTime is for all events of one request. It ends before a client
	// or a proxy between would give up, so that the answer says what is stored.
	publishTime = 20 * time.Second
	// retryAfter is in seconds, for a log that does not answer.
	retryAfter = "5"
)

// stored is what was published of a request, in its order.
type stored struct {
	Accepted int           `json:"accepted"`
	Events   []storedEvent `json:"events"`
}

type storedEvent struct {
	ID        string `json:"id"`
	Stream    string `json:"stream"`
	Sequence  uint64 `json:"sequence"`
	Duplicate bool   `json:"duplicate"`
}

// ingest publishes the events of a request: all of them have been checked
// before the first one is published.
func (c *Console) ingest(w http.ResponseWriter, r *http.Request) {
	mode, refusal := modeOf(w, r.Header)
	if refusal != nil {
		refusal.write(w)
		return
	}
	body, refusal := readBody(w, r)
	if refusal != nil {
		refusal.write(w)
		return
	}
	s := submission{mode: mode, header: r.Header, body: body}
	events, refusal := s.decode(time.Now(), c.config.Limits)
	if refusal != nil {
		refusal.write(w)
		return
	}
	describe(r, events)
	done, refusal := c.publish(r.Context(), &s, events)
	if refusal != nil {
		if refusal.Status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", retryAfter)
		}
		refusal.write(w)
		return
	}
	writeJSON(w, http.StatusAccepted, "application/json", done)
}

// readBody reads at most maxBody bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	var body bytes.Buffer
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		return body.Bytes(), nil
	}
	// What is left of the body is not worth reading.
	w.Header().Set("Connection", "close")
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, &problem{
			Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("the body is longer than %d bytes: send smaller batches, or split a snapshot into parts", maxBody),
		}
	}
	return nil, &problem{
		Status: http.StatusBadRequest,
		Detail: fmt.Sprintf("the body did not arrive whole within %v", readTime),
	}
}

// publish stops at the first event that is not acknowledged: what comes behind
// it must not be stored before it.
func (c *Console) publish(ctx context.Context, s *submission, events []*event.Event) (*stored, *problem) {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	done := &stored{Events: make([]storedEvent, 0, len(events))}
	for i, e := range events {
		receipt, err := c.config.Publish(ctx, e)
		if err != nil {
			return nil, c.unpublished(ctx, s, events, i, done, err)
		}
		done.Accepted++
		done.Events = append(done.Events, storedEvent{e.ID, receipt.Stream, receipt.Sequence, receipt.Duplicate})
	}
	return done, nil
}

// unpublished is the answer when event i was not acknowledged.
func (c *Console) unpublished(ctx context.Context, s *submission, events []*event.Event, i int, done *stored, err error) *problem {
	var permanent interface{ Permanent() bool }
	if errors.As(err, &permanent) && permanent.Permanent() {
		return &problem{
			Status: http.StatusUnprocessableEntity,
			Detail: fmt.Sprintf("%d of %d events were published, the next is refused; none behind it was tried", i, len(events)),
			Errors: []finding{findingOf(&event.Fault{
				Reason: reasonRefused, Pointer: s.pointer(i), Problem: err.Error(), Want: "this event corrected or left out; repeating the others does no harm",
			})},
			stored: done,
		}
	}
	e := events[i]
	c.config.Logger.WarnContext(ctx, "event not published", "vendor", e.Vendor, "organization", e.Organization,
		"event_id", e.ID, "accepted", i, "events", len(events), "err", err)
	return &problem{
		Status: http.StatusServiceUnavailable,
		Detail: fmt.Sprintf("%d of %d events were published: repeat the whole request later, with the same ids; what is stored already is a duplicate then and has no effect", i, len(events)),
		stored: done,
	}
}
