package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Records keeps the integrations.
type Records interface {
	// Update changes the record of vendor and organization by compare-and-set:
	// change may be called several times. An error of change ends it.
	Update(ctx context.Context, vendor, organization string, change func(*Integration) error) error
}

// Log keeps transitions for good.
type Log interface {
	// Append adds a CloudEvent to the status log of vendor and organization.
	Append(ctx context.Context, vendor, organization, id string, cloudEvent []byte) error
}

// TransitionType is the CloudEvents type of a recorded transition.
const TransitionType = "integration.status.v1"

// Transition is one change of an integration's status, and the data of its
// CloudEvent.
type Transition struct {
	From  Status `json:"from"`
	To    Status `json:"to"`
	Cause string `json:"cause"`
	Actor string `json:"actor"` // who or what brought it about
}

// Tracker records what answers say of integrations.
type Tracker struct {
	records Records
	log     Log
	actor   string
	logger  *slog.Logger
}

// NewTracker makes a tracker that records transitions in the name of actor.
func NewTracker(records Records, log Log, actor string, logger *slog.Logger) *Tracker {
	return &Tracker{records: records, log: log, actor: actor, logger: logger}
}

var errUnchanged = errors.New("nothing changed")

// Observe takes what an answer said of an integration. What cannot be recorded
// now is logged: the next answer of the kind says it again.
func (t *Tracker) Observe(ctx context.Context, vendor string, s delivery.Signal) {
	var transition Transition
	err := t.records.Update(ctx, vendor, s.Organization, func(i *Integration) error {
		before := *i
		apply(i, s)
		if i.Status == before.Status && i.Hold == before.Hold {
			return errUnchanged
		}
		transition = Transition{}
		if i.Status != before.Status {
			transition = Transition{From: before.Status, To: i.Status, Cause: i.Cause, Actor: t.actor}
		}
		return nil
	})
	if err != nil {
		if !errors.Is(err, errUnchanged) {
			t.logger.Error("status not recorded", "vendor", vendor, "organization", s.Organization, "err", err)
		}
		return
	}
	if transition.To == "" {
		return
	}
	t.logger.Info("integration status changed", "vendor", vendor, "organization", s.Organization,
		"from", string(transition.From), "status", string(transition.To), "cause", transition.Cause)
	if err := Record(ctx, t.log, vendor, s.Organization, s.Answer.At, transition); err != nil {
		t.logger.Error("transition not logged", "vendor", vendor, "organization", s.Organization, "err", err)
	}
}

// apply changes the record by what the signal says.
func apply(i *Integration, s delivery.Signal) {
	switch s.Class {
	case delivery.Accepted:
		i.Hold, i.HoldSince, i.HoldMessage = "", time.Time{}, ""
		if s.Operation == ledger.Count.String() {
			move(i, CountAccepted, "", s)
		} else if s.Operation == delivery.OperationMapping {
			observed, _ := Parse(s.Answer.Observed)
			move(i, Announced, observed, s)
		}
	case delivery.NotReady:
		move(i, CountRefused, Observed(s.Answer.Message), s)
	case delivery.Unauthorized, delivery.Suspected, delivery.NotFound:
		reason := ledger.Anomaly
		if s.Class == delivery.Unauthorized {
			reason = ledger.Unauthorized
		}
		i.Hold, i.HoldSince, i.HoldMessage = string(reason), s.Answer.At, s.Answer.Message
	case delivery.Throttled, delivery.Unavailable, delivery.Rejected, delivery.Stopped:
	}
}

func move(i *Integration, in Input, observed Status, s delivery.Signal) {
	to := Next(i.Status, in, observed)
	if to == i.Status {
		return
	}
	i.Status, i.Since, i.Cause = to, s.Answer.At, string(in)
}

// Record appends a transition to the status log as a CloudEvent.
func Record(ctx context.Context, log Log, vendor, organization string, at time.Time, transition Transition) error {
	id := fmt.Sprintf("%s/%s/%d", vendor, organization, at.UnixNano())
	body, err := json.Marshal(map[string]any{
		"specversion":     "1.0",
		"id":              id,
		"source":          "//usagebridge/status",
		"type":            TransitionType,
		"subject":         vendor + "/" + organization,
		"time":            at.UTC().Format(time.RFC3339Nano),
		"datacontenttype": "application/json",
		"data":            transition,
	})
	if err != nil {
		return fmt.Errorf("encode transition of %s/%s: %w", vendor, organization, err)
	}
	return log.Append(ctx, vendor, organization, id, body)
}
