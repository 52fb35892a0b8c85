package broker

import (
	"context"
	"fmt"
	"strings"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Message reads one message of the vendor's log again. It fails when the log
// no longer holds that sequence.
func (b *Broker) Message(ctx context.Context, vendor string, sequence uint64) (event.Message, error) {
	s, err := b.stream(ctx, EventsStream(vendor))
	if err != nil {
		return event.Message{}, err
	}
	m, err := s.GetMsg(ctx, sequence)
	if err != nil {
		return event.Message{}, fmt.Errorf("read message %d of %s: %w", sequence, EventsStream(vendor), err)
	}
	_, subject, _ := strings.Cut(m.Subject, ".")
	return event.Message{
		Subject:    subject,
		Header:     header(m.Header),
		Data:       m.Data,
		Stream:     EventsStream(vendor),
		Sequence:   m.Sequence,
		Stored:     m.Time.UTC(),
		Deliveries: 1,
	}, nil
}

// StatusSubject is where the transitions of an integration are kept.
func StatusSubject(vendor, organization string) string {
	return "status.v1." + event.Escape(vendor) + "." + event.Escape(organization)
}
