package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// laneView is what a worker says of an integration that it looks after: the
// part that is nowhere stored.
type laneView struct {
	Worker    string            `json:"worker"`
	Hold      ledger.HoldReason `json:"hold,omitempty"`
	Since     time.Time         `json:"since,omitzero"` // of the hold
	Message   string            `json:"message,omitempty"`
	NextProbe time.Time         `json:"next_probe,omitzero"`
	Closed    time.Time         `json:"closed_until,omitzero"`
	Cause     delivery.Class    `json:"cause,omitempty"` // of the closed gate
	Down      bool              `json:"server_down,omitempty"`
	Sending   int               `json:"sending"`
	Queued    int               `json:"queued"`
	Waiting   int               `json:"waiting_for_catalog"`
	Unmapped  int               `json:"unmapped"`
	Rate      float64           `json:"calls_per_second"` // allowed now; 0: no limit
}

// describeLane answers for an integration, nil when another worker has it.
func (e *engine) describeLane(vendor, organization string) []byte {
	s, ok := e.worker.Lane(vendor, organization)
	if !ok {
		return nil
	}
	text, err := json.Marshal(laneView{
		Worker: e.app.config.WorkerID, Hold: s.Hold, Since: s.Since, Message: s.Message, NextProbe: s.NextProbe,
		Closed: s.Closed, Cause: s.Cause, Down: s.Down, Sending: s.Sending, Queued: s.Queued + s.Recording,
		Waiting: s.Waiting, Unmapped: s.Unmapped, Rate: s.Rate,
	})
	if err != nil {
		e.app.log.Error("lane not described", "vendor", vendor, "organization", organization, "err", err)
		return nil
	}
	return text
}

// lane asks the worker that has the integration; nil when there is none.
func (a *app) lane(ctx context.Context, vendor, organization string) (*laneView, error) {
	text, err := a.broker.AskLane(ctx, vendor, organization)
	if errors.Is(err, broker.ErrNoLane) {
		return nil, nil //nolint:nilnil // nobody has it: that is an answer
	}
	if err != nil {
		return nil, err
	}
	var v laneView
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, fmt.Errorf("answer of the worker that has %s/%s: %w", vendor, organization, err)
	}
	return &v, nil
}
