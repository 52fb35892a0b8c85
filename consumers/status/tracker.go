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
	// One with an id that was there lately is a repeat and changes nothing.
	Append(ctx context.Context, vendor, organization, id string, cloudEvent []byte) error
}

// TransitionType is the CloudEvents type of a recorded transition.
const TransitionType = "integration.status.v1"

// Tracker records what is learnt of integrations.
type Tracker struct {
	records Records
	log     Log
	actor   string
	metrics *Metrics
	logger  *slog.Logger
}

// NewTracker makes a tracker that records transitions in the name of actor.
func NewTracker(records Records, log Log, actor string, metrics *Metrics, logger *slog.Logger) *Tracker {
	return &Tracker{records: records, log: log, actor: actor, metrics: metrics, logger: logger}
}

// Observe takes what an answer said of an integration. What cannot be recorded
// now is logged: the next answer of the kind says it again. An answer under
// credentials or a generation that the integration no longer has says nothing
// of it: new tokens must not be taken for bad ones because of an old answer.
func (t *Tracker) Observe(ctx context.Context, vendor string, s delivery.Signal) {
	o := Observation{
		At: s.Answer.At, Observed: Status(s.Answer.Observed), IntegrationID: s.Answer.IntegrationID,
		Message: s.Answer.Message,
	}
	switch s.Class {
	case delivery.NotReady:
		o.Observed = FromMessage(s.Answer.Message)
	case delivery.Flooded:
		o.Message = floodMessage(vendor, s.Organization, s.Answer.Message)
	default:
	}
	if in := inputOf(s); in != "" {
		t.take(ctx, vendor, s.Organization, o, in, func(i *Integration) bool {
			return i.Generation == s.Generation && i.Credentials == s.Credentials
		})
	}
}

// Learn takes the partner's word on an integration's status from wherever it
// was read; the message should say where. A zero time means now, an empty
// actor the tracker's own.
func (t *Tracker) Learn(ctx context.Context, vendor, organization string, o Observation) {
	t.take(ctx, vendor, organization, o, Observed, func(*Integration) bool { return true })
}

// inputOf is what a signal means, "" for nothing.
func inputOf(s delivery.Signal) Input {
	switch s.Class {
	case delivery.Accepted:
		return accepted[s.Operation]
	case delivery.NotReady:
		return CountRefused
	case delivery.Unauthorized:
		return CredentialsRefused
	case delivery.NotFound:
		if s.Operation == ledger.Count.String() {
			return CountAnswered
		}
		return UsageSuspected
	case delivery.Suspected:
		return UsageSuspected
	case delivery.Lost:
		return CatalogLost
	case delivery.Flooded:
		return Flooded
	case delivery.Throttled, delivery.Unavailable, delivery.Rejected, delivery.Stopped:
	}
	return ""
}

// accepted is what it means that the partner took a call, by operation.
var accepted = map[string]Input{
	ledger.Count.String():     CountAccepted,
	ledger.Account.String():   CatalogAccepted,
	ledger.Service.String():   CatalogAccepted,
	delivery.OperationMapping: Announced,
	delivery.OperationRead:    Observed, // that it can be read says nothing of what it takes
}

// floodMessage says what happened and how to go on.
func floodMessage(vendor, organization, answer string) string {
	return fmt.Sprintf("the partner refused one figure after the other for good, the last one with %q: "+
		"see `usagebridge dlq ls --vendor %s`, mend the cause, then `usagebridge integrations resume %s/%s`",
		answer, vendor, vendor, organization)
}

var errUnchanged = errors.New("nothing changed")

// take records an input: one compare-and-set, then one entry in the status
// log, then the metrics. An integration that it does not concern is left alone.
func (t *Tracker) take(ctx context.Context, vendor, organization string, o Observation, in Input, concerns func(*Integration) bool) {
	if o.At.IsZero() {
		o.At = time.Now()
	}
	if o.Actor == "" {
		o.Actor = t.actor
	}
	var transition Transition
	err := t.records.Update(ctx, vendor, organization, func(i *Integration) error {
		if !concerns(i) {
			return errUnchanged
		}
		var changed bool
		if transition, changed = i.Take(in, o); !changed {
			return errUnchanged
		}
		return nil
	})
	if err != nil {
		if !errors.Is(err, errUnchanged) {
			t.logger.Error("status not recorded", "vendor", vendor, "organization", organization, "err", err)
		}
		return
	}
	if transition.Recorded() {
		t.publish(ctx, vendor, organization, o.At, transition)
	}
}

// publish tells the world of a transition that is recorded.
func (t *Tracker) publish(ctx context.Context, vendor, organization string, at time.Time, transition Transition) {
	t.logger.Info("integration changed", "vendor", vendor, "organization", organization,
		"from", string(transition.From), "status", string(transition.To), "cause", transition.Cause,
		"gates", transition.Gates, "generation", transition.Generation)
	if err := Record(ctx, t.log, vendor, organization, at, transition); err != nil {
		t.logger.Error("transition not logged", "vendor", vendor, "organization", organization, "err", err)
	}
	t.metrics.moved(vendor, transition)
}

// Record appends a transition to the status log as a CloudEvent. Its id is the
// same whenever the same transition is appended, and that of no other: at is
// not enough for that, because one instant may see several transitions.
func Record(ctx context.Context, log Log, vendor, organization string, at time.Time, transition Transition) error {
	if transition.Gates == nil {
		transition.Gates = []string{}
	}
	id := fmt.Sprintf("%s/%s/%d.%d", vendor, organization, at.UnixNano(), transition.Number)
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
