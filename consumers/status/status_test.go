package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
)

func TestEveryInputLeadsFromEveryStatusWhereItShould(t *testing.T) {
	const none = status.Status("")
	tests := []struct {
		in       status.Input
		observed status.Status
		want     [4]status.Status // from inactive, mapping, pending, connected
	}{
		{status.CountAccepted, none, [4]status.Status{status.Connected, status.Connected, status.Connected, status.Connected}},
		{status.Announced, none, [4]status.Status{status.Mapping, status.Mapping, status.Pending, status.Connected}},
		{status.Announced, status.Mapping, [4]status.Status{status.Mapping, status.Mapping, status.Mapping, status.Mapping}},
		{status.Announced, status.Pending, [4]status.Status{status.Pending, status.Pending, status.Pending, status.Pending}},
		{status.CountRefused, none, [4]status.Status{status.Inactive, status.Mapping, status.Mapping, status.Mapping}},
		{status.CountRefused, status.Inactive, [4]status.Status{status.Inactive, status.Inactive, status.Inactive, status.Inactive}},
		{status.CountRefused, status.Mapping, [4]status.Status{status.Mapping, status.Mapping, status.Mapping, status.Mapping}},
	}
	for _, test := range tests {
		for i, from := range status.Statuses() {
			if got := status.Next(from, test.in, test.observed); got != test.want[i] {
				t.Errorf("from %s by %s, observed %q: got %s, want %s", from, test.in, test.observed, got, test.want[i])
			}
		}
	}
}

func TestTheStatusIsReadOutOfTheEndOfAMessage(t *testing.T) {
	tests := map[string]status.Status{
		"integration is not ready: mapping":   status.Mapping,
		"Integration is not ready: INACTIVE.": status.Inactive,
		"mapping is not done":                 "",
		"":                                    "",
		"…":                                   "",
	}
	for message, want := range tests {
		if got := status.Observed(message); got != want {
			t.Errorf("%q: got %q, want %q", message, got, want)
		}
	}
}

func TestTheCheckOfARecordNamesEverythingThatIsWrong(t *testing.T) {
	err := (&status.Integration{APIURL: "ftp://x", Status: "active"}).Check()
	for _, want := range []string{"vendor/organization", "api url", `status "active"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error: got %v, want it to name %s", err, want)
		}
	}
	good := &status.Integration{Vendor: "v", Organization: "o", APIURL: "https://x.example/api", Status: status.Pending}
	if err := good.Check(); err != nil {
		t.Errorf("a good record: got %v, want no error", err)
	}
}

// records is one integration in memory, and the log beside it.
type records struct {
	integration status.Integration
	updates     int
	fail        error
	events      []string
}

func (r *records) Update(_ context.Context, _, _ string, change func(*status.Integration) error) error {
	if r.fail != nil {
		return r.fail
	}
	next := r.integration
	if err := change(&next); err != nil {
		return err
	}
	r.integration = next
	r.updates++
	return nil
}

func (r *records) Append(_ context.Context, _, _, _ string, cloudEvent []byte) error {
	r.events = append(r.events, string(cloudEvent))
	return nil
}

func newTracker(r *records) *status.Tracker {
	return status.NewTracker(r, r, "worker w1", slog.New(slog.DiscardHandler))
}

func TestTheWayFromInactiveToConnectedIsRecordedStepByStep(t *testing.T) {
	r := &records{integration: status.Integration{Vendor: "acme", Organization: "m", Status: status.Inactive}}
	tracker := newTracker(r)
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	observe := func(class delivery.Class, operation string, answer delivery.Answer) {
		answer.At = at
		tracker.Observe(t.Context(), "acme", delivery.Signal{Organization: "m", Class: class, Operation: operation, Answer: answer})
	}
	observe(delivery.Accepted, "account", delivery.Answer{})
	observe(delivery.Accepted, "mapping", delivery.Answer{Observed: "mapping"})
	observe(delivery.NotReady, "count", delivery.Answer{Message: "integration is not ready: mapping"})
	observe(delivery.Accepted, "count", delivery.Answer{})
	observe(delivery.Accepted, "count", delivery.Answer{})
	if r.integration.Status != status.Connected || r.integration.Cause != "count_accepted" || !r.integration.Since.Equal(at) {
		t.Errorf("record: got %+v, want connected by count_accepted at %v", r.integration, at)
	}
	if r.updates != 2 || len(r.events) != 2 {
		t.Fatalf("got %d updates and %d transitions, want 2 of each: an input that changes nothing writes nothing", r.updates, len(r.events))
	}
	var e struct {
		SpecVersion string            `json:"specversion"`
		Type        string            `json:"type"`
		Subject     string            `json:"subject"`
		Data        status.Transition `json:"data"`
	}
	if err := json.Unmarshal([]byte(r.events[1]), &e); err != nil {
		t.Fatal(err)
	}
	want := status.Transition{From: status.Mapping, To: status.Connected, Cause: "count_accepted", Actor: "worker w1"}
	if e.SpecVersion != "1.0" || e.Type != status.TransitionType || e.Subject != "acme/m" || e.Data != want {
		t.Errorf("transition: got %+v, want a CloudEvent with %+v", e, want)
	}
}

func TestAHoldIsRecordedAndLiftedWithoutATransition(t *testing.T) {
	tests := []struct {
		class delivery.Class
		want  string
	}{{delivery.Unauthorized, "unauthorized"}, {delivery.Suspected, "anomaly"}, {delivery.NotFound, "anomaly"}}
	for _, test := range tests {
		r := &records{integration: status.Integration{Status: status.Connected}}
		tracker := newTracker(r)
		tracker.Observe(t.Context(), "acme", delivery.Signal{Class: test.class, Operation: "count", Answer: delivery.Answer{Message: "no", At: time.Unix(1, 0)}})
		if r.integration.Hold != test.want || r.integration.HoldMessage != "no" {
			t.Errorf("after %s: got hold %q with %q, want %s with the partner's words", test.class, r.integration.Hold, r.integration.HoldMessage, test.want)
		}
		tracker.Observe(t.Context(), "acme", delivery.Signal{Class: delivery.Accepted, Operation: "count"})
		if r.integration.Hold != "" || len(r.events) != 0 {
			t.Errorf("after an accepted count: got hold %q and %d transitions, want none", r.integration.Hold, len(r.events))
		}
	}
}

func TestARecordThatCannotBeWrittenLogsNoTransition(t *testing.T) {
	r := &records{integration: status.Integration{Status: status.Pending}, fail: errors.New("no answer")}
	newTracker(r).Observe(t.Context(), "acme", delivery.Signal{Class: delivery.Accepted, Operation: "count"})
	if len(r.events) != 0 {
		t.Errorf("transitions: got %d, want 0", len(r.events))
	}
}
