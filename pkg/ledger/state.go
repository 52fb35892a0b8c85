package ledger

// State is where a key stands between what is desired and what the partner
// has: the event contract's closed list. Never to be mixed with the
// disposition of an event or the status of an integration.
type State string

// The states of a key.
const (
	// Synced: the partner has accepted the desired value. Fold moves out
	// (a newer, different value); an accepted call moves in.
	Synced State = "synced"
	// Dirty: the desired value is to be sent. Fold moves in; a lane moves out.
	Dirty State = "dirty"
	// Sending: a call is under way. Known to the lane alone and never stored:
	// after a crash the key is simply dirty, and the same absolute value is
	// sent again.
	Sending State = "sending"
	// Retrying: the last attempt got no usable answer; the next one is due at
	// Entry.Next. A lane moves in and out.
	Retrying State = "retrying"
	// Held: nothing is sent until the cause named by a HoldReason is gone.
	// A lane or an operator moves in and out. It keeps the newest value only.
	Held State = "held"
	// Failed: the partner refused the value for good and a dead letter
	// exists. A lane moves in; the next newer event moves out.
	Failed State = "failed"
)

// States lists every state in the order of the event contract.
func States() []State { return []State{Synced, Dirty, Sending, Retrying, Held, Failed} }

// HoldReason says why a key is held: the event contract's closed list.
type HoldReason string

// The reasons for a hold. Unmapped and Approval belong to a single key and are
// stored with it, Approval exactly while its newest figure waits; the others belong to the integration or follow from other
// entries, and are derived by View, so that closing a gate on 100,000 keys
// writes nothing.
const (
	IntegrationNotReady HoldReason = "integration_not_ready"
	Unmapped            HoldReason = "unmapped"
	Unauthorized        HoldReason = "unauthorized"
	AwaitingCatalog     HoldReason = "awaiting_catalog"
	Paused              HoldReason = "paused"
	Anomaly             HoldReason = "anomaly"
	Approval            HoldReason = "approval"
)

// HoldReasons lists every reason in the order of the event contract.
func HoldReasons() []HoldReason {
	return []HoldReason{IntegrationNotReady, Unmapped, Unauthorized, AwaitingCatalog, Paused, Anomaly, Approval}
}

// Disposition is what became of an event: the event contract's closed list.
type Disposition string

// The dispositions of an event.
const (
	Applied    Disposition = "applied"    // now the desired value of its key
	Duplicate  Disposition = "duplicate"  // seen before
	Superseded Disposition = "superseded" // a newer event was there first
	Unchanged  Disposition = "unchanged"  // newer, but the partner has that value: no call
	Dead       Disposition = "dead"       // can never be applied
)

// Dispositions lists every disposition in the order of the event contract.
func Dispositions() []Disposition {
	return []Disposition{Applied, Duplicate, Superseded, Unchanged, Dead}
}
