package publisher

import (
	"context"
	"fmt"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Count is one unit count: how many units of a service an account uses.
// Organization, Account and Service are the vendor's own ids.
type Count struct {
	Organization string
	Account      string
	Service      string
	// Units is a decimal from 0 to 1e12 with at most 6 decimals, "42" or
	// "42.5". It is text because invoices are exact and floats are not; of a
	// whole number strconv.Itoa makes one.
	Units string
	Time  time.Time // when the figure was true; zero means now
	ID    string    // of the event; empty means a new UUIDv7
}

// Snapshot is every count of one organization, or of one account when Account
// is not empty: each known key that it does not name becomes 0.
type Snapshot struct {
	Organization string
	Account      string // empty: the whole organization
	Figures      []Figure
	// Part (1-based), Parts and SnapshotID are for a snapshot too large for
	// one message: publish all parts with one SnapshotID and one Time. Split
	// makes them.
	Part, Parts int
	SnapshotID  string
	Time        time.Time // when the figures were true; zero means now
	ID          string    // of the event; empty means a new UUIDv7
}

// Figure is one line of a Snapshot; Units as in Count.
type Figure struct {
	Account string
	Service string
	Units   string
}

// Account says that an account exists with these properties.
type Account struct {
	Organization string
	Account      string // the vendor's own id
	Name         string
	ExternalID   string    // may be empty
	Description  string    // may be empty
	Time         time.Time // when this was so; zero means now
	ID           string    // of the event; empty means a new UUIDv7
}

// Service says that a service exists with these properties.
type Service struct {
	Organization string
	Service      string // the vendor's own id
	Name         string
	Description  string    // may be empty
	Time         time.Time // when this was so; zero means now
	ID           string    // of the event; empty means a new UUIDv7
}

// Count publishes a usage.count.v1 event; see Publish.
func (p *Publisher) Count(ctx context.Context, c Count) (Ack, error) {
	units, err := event.ParseUnits(c.Units)
	if err != nil {
		return Ack{}, fmt.Errorf("publish count of account %q, service %q: units %q: %w", c.Account, c.Service, cut(c.Units), err)
	}
	return p.Publish(ctx, &event.Event{
		ID: c.ID, Time: c.Time, Organization: c.Organization,
		Data: event.Count{AccountID: c.Account, ServiceID: c.Service, UnitCount: units},
	})
}

// Snapshot publishes a usage.snapshot.v1 event; see Publish.
func (p *Publisher) Snapshot(ctx context.Context, s Snapshot) (Ack, error) {
	counts := make([]event.Count, len(s.Figures))
	for i, f := range s.Figures {
		units, err := event.ParseUnits(f.Units)
		if err != nil {
			return Ack{}, fmt.Errorf("publish snapshot: figure %d, account %q, service %q: units %q: %w", i, f.Account, f.Service, cut(f.Units), err)
		}
		counts[i] = event.Count{AccountID: f.Account, ServiceID: f.Service, UnitCount: units}
	}
	return p.Publish(ctx, &event.Event{
		ID: s.ID, Time: s.Time, Organization: s.Organization,
		Data: event.Snapshot{AccountID: s.Account, Counts: counts, Part: s.Part, Parts: s.Parts, SnapshotID: s.SnapshotID},
	})
}

// Account publishes a catalog.account.v1 event; see Publish.
func (p *Publisher) Account(ctx context.Context, a Account) (Ack, error) {
	return p.Publish(ctx, &event.Event{
		ID: a.ID, Time: a.Time, Organization: a.Organization,
		Data: event.Account{AccountID: a.Account, Name: a.Name, ExternalID: a.ExternalID, Description: a.Description},
	})
}

// Service publishes a catalog.service.v1 event; see Publish.
func (p *Publisher) Service(ctx context.Context, s Service) (Ack, error) {
	return p.Publish(ctx, &event.Event{
		ID: s.ID, Time: s.Time, Organization: s.Organization,
		Data: event.Service{ServiceID: s.Service, Name: s.Name, Description: s.Description},
	})
}

// typeOf is the event type of a payload, empty for one the contract does not have.
func typeOf(data event.Data) string {
	switch data.(type) {
	case event.Count:
		return event.TypeCount
	case event.Snapshot:
		return event.TypeSnapshot
	case event.Account:
		return event.TypeAccount
	case event.Service:
		return event.TypeService
	}
	return ""
}
