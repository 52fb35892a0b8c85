// Package event reads and writes the event contract: CloudEvents envelopes in
// structured, binary and batch mode, the subject grammar with its id escaping,
// the four event types, and the reasons for which an event can never be
// applied. It decides whether bytes are an event; it never decides what an
// event does.
//
// It deliberately knows no NATS client, no HTTP, no ledger and no clock: an
// event's age is judged against the time at which the server stored it, so
// that reading the log again gives the same answer on any day.
package event

import "time"

// The event types of the contract.
const (
	TypeCount    = "usage.count.v1"
	TypeSnapshot = "usage.snapshot.v1"
	TypeAccount  = "catalog.account.v1"
	TypeService  = "catalog.service.v1"
)

// Message is one message as it was stored: nothing in it has been checked.
type Message struct {
	Subject    string              // public subject, without the stream's partition token
	Header     map[string][]string // as published; may be nil
	Data       []byte
	Stream     string
	Sequence   uint64    // position in Stream; decides ties of time
	Stored     time.Time // when the server took it; ages are judged against it
	Deliveries int       // 1 at the first delivery
	Pending    uint64    // messages of its partition that were still to be handed out then
	Handle     string    // opaque: by it the source acknowledges the message
}

// Event is one decoded event that the contract accepts.
type Event struct {
	ID     string
	Source string
	Type   string
	Time   time.Time // when the figure was true, UTC
	// ReplayOf is the arrival of the original when an operator replays an
	// event; empty otherwise. A replay keeps the arrival of its original.
	ReplayOf string
	// Backfill groups the events of one backfill, which is looked at, approved
	// and undone as a whole; empty otherwise. See CheckBackfill.
	Backfill string

	Vendor       string
	Organization string
	Data         Data // Count, Snapshot, Account or Service, as Type says

	// Arrival orders events of equal Time: later arrivals win.
	Arrival Arrival
}

// Data is the payload of an event: one of Count, Snapshot, Account, Service.
type Data interface{ eventType() string }

// Count is the data of usage.count.v1.
type Count struct {
	AccountID string
	ServiceID string
	UnitCount Units
}

// Snapshot is the data of usage.snapshot.v1: every count of one organization,
// or of one account when AccountID is not empty.
type Snapshot struct {
	AccountID  string
	Counts     []Count
	Part       int // 1-based; 0 when the snapshot has no parts
	Parts      int // 0 when the snapshot has no parts
	SnapshotID string
}

// Account is the data of catalog.account.v1.
type Account struct {
	AccountID   string
	Name        string
	ExternalID  string
	Description string
}

// Service is the data of catalog.service.v1.
type Service struct {
	ServiceID   string
	Name        string
	Description string
}

func (Count) eventType() string    { return TypeCount }
func (Snapshot) eventType() string { return TypeSnapshot }
func (Account) eventType() string  { return TypeAccount }
func (Service) eventType() string  { return TypeService }
