// Package usage says what a usage event means: which keys of the ledger get
// which unit counts.
//
// It deliberately knows neither how events arrive nor how counts are sent.
package usage

import (
	"cmp"
	"fmt"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Count is the meaning of usage.count.v1: one key gets one figure.
func Count(e *event.Event) ([]ledger.Operation, error) {
	data, ok := e.Data.(event.Count)
	if !ok {
		return nil, fmt.Errorf("event %q of type %s carries %T: want a count", e.ID, e.Type, e.Data)
	}
	return []ledger.Operation{figure(e, data, e.Digest())}, nil
}

// Snapshot is the meaning of usage.snapshot.v1: every key that it names gets
// its figure, and the scope learns of the part. What is not named becomes 0
// once all parts are there, which is the ledger's work.
func Snapshot(e *event.Event) ([]ledger.Operation, error) {
	data, ok := e.Data.(event.Snapshot)
	if !ok {
		return nil, fmt.Errorf("event %q of type %s carries %T: want a snapshot", e.ID, e.Type, e.Data)
	}
	digest := e.SnapshotDigest()
	operations := make([]ledger.Operation, 0, len(data.Counts)+1)
	for _, count := range data.Counts {
		operations = append(operations, figure(e, count, digest))
	}
	part := ledger.Part{
		Number: max(data.Part, 1), Of: max(data.Parts, 1), Content: data.ContentDigest(), Name: cmp.Or(data.SnapshotID, e.ID),
	}
	return append(operations, ledger.Operation{
		Key: ledger.ScopeKey(e.Organization, data.AccountID), Version: version(e), Event: digest, Backfill: e.Backfill, Part: &part,
	}), nil
}

func figure(e *event.Event, count event.Count, digest uint64) ledger.Operation {
	return ledger.Operation{
		Key:      ledger.CountKey(e.Organization, count.AccountID, count.ServiceID),
		Version:  version(e),
		Value:    ledger.Value{Units: int64(count.UnitCount)},
		Event:    digest,
		Backfill: e.Backfill,
		Replay:   e.ReplayOf != "",
	}
}

func version(e *event.Event) ledger.Version {
	return ledger.Version{Time: e.Time.UnixNano(), Arrival: uint64(e.Arrival)}
}
