// Package usage says what a usage event means: which keys of the ledger get
// which unit counts.
//
// It deliberately knows neither how events arrive nor how counts are sent.
package usage

import (
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
	return []ledger.Operation{{
		Key:     ledger.CountKey(e.Organization, data.AccountID, data.ServiceID),
		Version: ledger.Version{Time: e.Time.UnixNano(), Arrival: uint64(e.Arrival)},
		Value:   ledger.Value{Units: int64(data.UnitCount)},
		Event:   e.Digest(),
	}}, nil
}
