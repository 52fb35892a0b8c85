package status_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
)

// records is one integration in memory, and the log beside it. Like the real
// ones it lets one writer through at a time, and knows an id again.
type records struct {
	mu          sync.Mutex
	integration status.Integration
	updates     int
	rival       func(*status.Integration) // stores something between the first reading and writing
	fail        error
	events      map[string]string // by id
	appended    []string          // ids
	failLog     error
}

func (r *records) Update(_ context.Context, _, _ string, change func(*status.Integration) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	next := r.integration
	if err := change(&next); err != nil {
		return err
	}
	if r.rival != nil {
		r.rival(&r.integration)
		next = r.integration
		if err := change(&next); err != nil {
			return err
		}
	}
	r.integration = next
	r.updates++
	return nil
}

func (r *records) Append(_ context.Context, _, _, id string, cloudEvent []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failLog != nil {
		return r.failLog
	}
	if _, repeated := r.events[id]; !repeated {
		r.appended = append(r.appended, id)
	}
	if r.events == nil {
		r.events = map[string]string{}
	}
	r.events[id] = string(cloudEvent)
	return nil
}

// transitions are the data of the log, in order.
func (r *records) transitions(t *testing.T) []status.Transition {
	t.Helper()
	var all []status.Transition
	for _, id := range r.appended {
		all = append(all, decode(t, r.events[id]).Data)
	}
	return all
}

type cloudEvent struct {
	SpecVersion string            `json:"specversion"`
	ID          string            `json:"id"`
	Type        string            `json:"type"`
	Subject     string            `json:"subject"`
	Time        time.Time         `json:"time"`
	Data        status.Transition `json:"data"`
}

func decode(t *testing.T, text string) cloudEvent {
	t.Helper()
	var e cloudEvent
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func newTracker(r *records) *status.Tracker {
	return status.NewTracker(r, r, "worker w1", status.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
}

// signal is a signal for the integration of connected().
func signal(class delivery.Class, operation string, a delivery.Answer) delivery.Signal {
	if a.At.IsZero() {
		a.At = noon
	}
	return delivery.Signal{Organization: "m", Class: class, Operation: operation, Answer: a}
}

func TestTheWayFromInactiveToConnectedIsRecordedStepByStep(t *testing.T) {
	r := &records{}
	r.integration.Begin(status.Observation{At: noon, Observed: status.Inactive})
	tracker := newTracker(r)
	for _, s := range []delivery.Signal{
		signal(delivery.Accepted, "account", delivery.Answer{}),
		signal(delivery.Accepted, "mapping", delivery.Answer{Observed: "mapping", IntegrationID: "int-1"}),
		signal(delivery.NotReady, "count", delivery.Answer{Message: "integration is not ready: mapping"}),
		signal(delivery.Accepted, "count", delivery.Answer{}),
		signal(delivery.Accepted, "count", delivery.Answer{}),
	} {
		tracker.Observe(t.Context(), "acme", s)
	}
	i := r.integration
	if i.Status != status.Connected || i.Cause != "count_accepted" || !i.Since.Equal(noon) || i.IntegrationID != "int-1" {
		t.Errorf("record: got %+v, want connected by count_accepted at %v, with the partner's id", i, noon)
	}
	if r.updates != 2 || len(r.appended) != 2 {
		t.Fatalf("got %d updates and %d transitions, want 2 of each: an input that changes nothing writes nothing", r.updates, len(r.appended))
	}
	e := decode(t, r.events[r.appended[1]])
	want := status.Transition{From: status.Mapping, To: status.Connected, Cause: "count_accepted", Actor: "worker w1", Gates: []string{}, Number: 3}
	if e.SpecVersion != "1.0" || e.ID != r.appended[1] || e.Type != status.TransitionType || e.Subject != "acme/m" || !e.Time.Equal(noon) || !equal(e.Data, want) {
		t.Errorf("transition: got %+v, want a CloudEvent with %+v", e, want)
	}
	if text := r.events[r.appended[1]]; !strings.Contains(text, `"gates":[]`) {
		t.Errorf("transition: got %s, want an empty list of gates", text)
	}
}

func TestEverySignalIsTakenForWhatItMeans(t *testing.T) {
	tests := []struct {
		name   string
		signal delivery.Signal
		want   status.Standing // of an integration in mapping that is announced, generation 2, held for an anomaly
		cause  string          // of the transition; "" when there is none
	}{
		{
			"a count is accepted", signal(delivery.Accepted, "count", delivery.Answer{Observed: "inactive"}),
			status.Standing{Status: status.Connected, Announced: true, Generation: 2}, "count_accepted",
		},
		{
			"an account is accepted", signal(delivery.Accepted, "account", delivery.Answer{Observed: "inactive"}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2}, "catalog_accepted",
		},
		{
			"a service is accepted", signal(delivery.Accepted, "service", delivery.Answer{}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2}, "catalog_accepted",
		},
		{
			"a read names no status", signal(delivery.Accepted, "read", delivery.Answer{}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Hold: "anomaly"}, "",
		},
		{
			"a read names a status", signal(delivery.Accepted, "read", delivery.Answer{Observed: "Pending"}),
			status.Standing{Status: status.Pending, Announced: true, Generation: 2, Hold: "anomaly"}, "status_observed",
		},
		{
			"a read names an unknown status", signal(delivery.Accepted, "read", delivery.Answer{Observed: "On hold"}),
			status.Standing{Status: "on hold", Announced: true, Generation: 2, Hold: "anomaly"}, "status_observed",
		},
		{
			"the mapping is announced and the partner names a status", signal(delivery.Accepted, "mapping", delivery.Answer{Observed: "pending"}),
			status.Standing{Status: status.Pending, Announced: true, Generation: 2}, "mapping_announced",
		},
		{
			"an unknown operation is accepted", signal(delivery.Accepted, "dance", delivery.Answer{Observed: "pending"}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Hold: "anomaly"}, "",
		},
		{
			"a count is refused with a status", signal(delivery.NotReady, "count", delivery.Answer{Message: "not ready: inactive"}),
			status.Standing{Status: status.Inactive, Generation: 3, Hold: "anomaly"}, "count_refused",
		},
		{
			"a count is refused with a strange word", signal(delivery.NotReady, "count", delivery.Answer{Message: "not ready: archived", Observed: "pending"}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Hold: "anomaly"}, "",
		},
		{
			"the tokens are refused", signal(delivery.Unauthorized, "count", delivery.Answer{}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Hold: "unauthorized"}, "credentials_refused",
		},
		{
			"the usage is suspected again", signal(delivery.Suspected, "count", delivery.Answer{}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Hold: "anomaly"}, "",
		},
		{
			"figures are refused in a row", signal(delivery.Flooded, "count", delivery.Answer{}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Paused: true, Hold: "anomaly"}, "flood_of_refusals",
		},
		{
			"the partner is busy", signal(delivery.Throttled, "count", delivery.Answer{}),
			status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Hold: "anomaly"}, "",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := &records{integration: connected()}
			r.integration.Standing = status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Hold: "anomaly"}
			test.signal.Generation = r.integration.Generation
			newTracker(r).Observe(t.Context(), "acme", test.signal)
			if r.integration.Standing != test.want {
				t.Errorf("got %+v, want %+v", r.integration.Standing, test.want)
			}
			logged := r.transitions(t)
			if test.cause == "" {
				if len(logged) != 0 || r.updates != 0 {
					t.Errorf("got transitions %+v and %d updates, want none", logged, r.updates)
				}
				return
			}
			if len(logged) != 1 || r.updates != 1 || logged[0].Cause != test.cause || logged[0].From != status.Mapping || logged[0].To != test.want.Status {
				t.Errorf("got transitions %+v and %d updates, want one by %s", logged, r.updates, test.cause)
			}
		})
	}
}

func TestAHoldIsRecordedAndOnlyTheSuspicionIsLiftedByAnAcceptedCall(t *testing.T) {
	tests := []struct {
		class       delivery.Class
		want, after string
	}{
		{delivery.Unauthorized, "unauthorized", "unauthorized"},
		{delivery.Suspected, "anomaly", ""},
		{delivery.NotFound, "anomaly", ""},
	}
	for _, test := range tests {
		r := &records{integration: connected()}
		tracker := newTracker(r)
		tracker.Observe(t.Context(), "acme", signal(test.class, "account", delivery.Answer{Message: "no"}))
		if i := r.integration; i.Hold != test.want || i.HoldMessage != "no" || i.HoldSince != noon {
			t.Errorf("after %s: got hold %q with %q since %v, want %s with the partner's words", test.class, i.Hold, i.HoldMessage, i.HoldSince, test.want)
		}
		tracker.Observe(t.Context(), "acme", signal(delivery.Accepted, "count", delivery.Answer{}))
		if r.integration.Hold != test.after {
			t.Errorf("after an accepted count: got hold %q, want %q", r.integration.Hold, test.after)
		}
		logged := r.transitions(t)
		if len(logged) == 0 || logged[0].From != logged[0].To || !slices.Equal(logged[0].Gates, []string{test.want}) || logged[0].Message != "no" {
			t.Errorf("after %s: got transitions %+v, want the first to close the gate and move nothing", test.class, logged)
		}
	}
}

func TestWordThatACountIsNotMappedLiftsASuspicion(t *testing.T) {
	r := &records{integration: connected()}
	tracker := newTracker(r)
	tracker.Observe(t.Context(), "acme", signal(delivery.Suspected, "count", delivery.Answer{Message: "no"}))
	tracker.Observe(t.Context(), "acme", signal(delivery.NotFound, "count", delivery.Answer{Message: "no such service"}))
	if r.integration.Hold != "" {
		t.Errorf("got hold %q, want none: the partner deals with the integration", r.integration.Hold)
	}
}

// Regression: the answer to a call with tokens that had just been replaced was
// taken for one with the new ones, which were then never tried.
func TestAnAnswerCountsOnlyForTheGenerationAndTheCredentialsOfItsCall(t *testing.T) {
	signals := []delivery.Signal{
		signal(delivery.Lost, "account", delivery.Answer{}),
		signal(delivery.Unauthorized, "count", delivery.Answer{}),
		signal(delivery.Suspected, "count", delivery.Answer{}),
		signal(delivery.NotReady, "count", delivery.Answer{Message: "not ready: inactive"}),
		signal(delivery.Flooded, "count", delivery.Answer{}),
		signal(delivery.Accepted, "read", delivery.Answer{Observed: "mapping"}),
	}
	for _, s := range signals {
		for _, call := range []struct {
			generation  int
			credentials string
			counts      bool
		}{{1, "new", false}, {3, "new", false}, {2, "old", false}, {2, "new", true}} {
			r := &records{integration: connected()}
			r.integration.Generation, r.integration.Credentials = 2, "new"
			before := r.integration
			s.Generation, s.Credentials = call.generation, call.credentials
			newTracker(r).Observe(t.Context(), "acme", s)
			if changed := r.integration != before; changed != call.counts || (len(r.transitions(t)) == 1) != call.counts {
				t.Errorf("%s to a %s of generation %d with %s credentials: changed %t with %d transitions, want %t",
					s.Class, s.Operation, call.generation, call.credentials, changed, len(r.transitions(t)), call.counts)
			}
		}
	}
}

func TestALossIsHeldAgainstTheRecordThatIsReplaced(t *testing.T) {
	r := &records{integration: connected()}
	r.rival = func(i *status.Integration) { i.Generation = 1 }
	newTracker(r).Observe(t.Context(), "acme", signal(delivery.Lost, "account", delivery.Answer{}))
	if r.integration.Generation != 1 || len(r.appended) != 0 {
		t.Errorf("got generation %d and %d transitions, want 1 and none: somebody else was first", r.integration.Generation, len(r.appended))
	}
}

func TestATransitionStartsWhereTheRecordThatIsReplacedStood(t *testing.T) {
	r := &records{integration: connected()}
	r.integration.Status = status.Mapping
	r.rival = func(i *status.Integration) { i.Status = status.Pending }
	newTracker(r).Observe(t.Context(), "acme", signal(delivery.Accepted, "count", delivery.Answer{}))
	if logged := r.transitions(t); len(logged) != 1 || logged[0].From != status.Pending {
		t.Errorf("transitions: got %+v, want one from pending", logged)
	}
}

func TestAChangeThatSomebodyElseMadeFirstIsNotRecordedAgain(t *testing.T) {
	r := &records{integration: connected()}
	r.integration.Standing = status.Standing{Status: status.Inactive}
	r.rival = func(i *status.Integration) { i.Status = status.Mapping }
	newTracker(r).Observe(t.Context(), "acme", signal(delivery.Accepted, "mapping", delivery.Answer{}))
	if !r.integration.Announced || r.updates != 1 || len(r.appended) != 0 {
		t.Errorf("got %+v and %d transitions, want it announced and none: it was in mapping already", r.integration, len(r.appended))
	}
}

func TestAFloodPausesAndSaysHowToGoOn(t *testing.T) {
	r := &records{integration: connected()}
	newTracker(r).Observe(t.Context(), "acme", signal(delivery.Flooded, "count", delivery.Answer{Message: "unitCount is not a number"}))
	i := r.integration
	if !i.Paused || i.Status != status.Connected {
		t.Errorf("record: got %+v, want it paused and connected", i)
	}
	for _, want := range []string{"unitCount is not a number", "usagebridge dlq ls --vendor acme", "usagebridge integrations resume acme/m"} {
		if !strings.Contains(i.PausedWhy, want) {
			t.Errorf("reason: got %q, want it to contain %q", i.PausedWhy, want)
		}
	}
}

func TestWhatIsReadElsewhereIsTakenAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &records{integration: connected()}
		tracker := newTracker(r)
		tracker.Learn(t.Context(), "acme", "m", status.Observation{Observed: "Suspended", IntegrationID: "int-1", Message: "list of the OEM-API"})
		tracker.Learn(t.Context(), "acme", "m", status.Observation{Observed: "suspended", IntegrationID: "int-1"})
		tracker.Learn(t.Context(), "acme", "m", status.Observation{})
		if i := r.integration; i.Status != "suspended" || i.Since != time.Now() || i.IntegrationID != "int-1" {
			t.Errorf("record: got %+v, want suspended since now, with the partner's id", i)
		}
		want := status.Transition{
			From: status.Connected, To: "suspended", Cause: "status_observed", Actor: "worker w1",
			Gates: []string{"integration_not_ready"}, Message: "list of the OEM-API", Number: 1,
		}
		if logged := r.transitions(t); len(logged) != 1 || !equal(logged[0], want) {
			t.Errorf("transitions: got %+v, want %+v alone", logged, want)
		}
	})
}

func TestWhatIsOnlyStoredWritesNoTransition(t *testing.T) {
	r := &records{integration: connected()}
	newTracker(r).Observe(t.Context(), "acme", signal(delivery.Accepted, "mapping", delivery.Answer{IntegrationID: "int-1"}))
	if r.updates != 1 || len(r.appended) != 0 || r.integration.IntegrationID != "int-1" {
		t.Errorf("got %d updates, %d transitions and id %q, want the id stored and nothing logged", r.updates, len(r.appended), r.integration.IntegrationID)
	}
}

func TestTransitionsOfOneInstantAreAllKept(t *testing.T) {
	r := &records{integration: connected()}
	tracker := newTracker(r)
	var wait sync.WaitGroup
	for _, class := range []delivery.Class{delivery.Flooded, delivery.Suspected, delivery.Unauthorized, delivery.NotReady} {
		wait.Go(func() { tracker.Observe(t.Context(), "acme", signal(class, "count", delivery.Answer{})) })
	}
	wait.Wait()
	// Suspicion is not recorded when the tokens were refused before.
	if r.updates < 3 || len(r.appended) != r.updates {
		t.Errorf("got %d transitions for %d updates, want one for each: %v", len(r.appended), r.updates, r.appended)
	}
}

func TestEqualTransitionsOfOneInstantAreTwoAndARepeatedAppendIsOne(t *testing.T) {
	r := &records{}
	i := connected()
	o := status.Observation{At: noon, Actor: "ann"}
	var all []status.Transition
	for _, in := range []status.Input{status.PausedByOperator, status.ResumedByOperator, status.PausedByOperator} {
		all = append(all, take(t, &i, in, o))
	}
	for _, transition := range slices.Concat(all, all) {
		if err := status.Record(t.Context(), r, "acme", "m", noon, transition); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.appended) != 3 {
		t.Errorf("got ids %v, want 3 for 3 transitions appended twice", r.appended)
	}
}

func TestATransitionThatWasPutTogetherByHandHasAListOfGates(t *testing.T) {
	r := &records{}
	if err := status.Record(t.Context(), r, "acme", "m", noon, status.Transition{Cause: "x"}); err != nil {
		t.Fatal(err)
	}
	for text := range maps.Values(r.events) {
		if !strings.Contains(text, `"gates":[]`) {
			t.Errorf("got %s, want an empty list of gates", text)
		}
	}
}

func TestARecordThatCannotBeWrittenIsLoggedAndNothingElse(t *testing.T) {
	r := &records{integration: connected(), fail: errors.New("no answer")}
	r.integration.Status = status.Pending
	registry := prometheus.NewRegistry()
	var lines bytes.Buffer
	tracker := status.NewTracker(r, r, "w1", status.NewMetrics(registry), slog.New(slog.NewTextHandler(&lines, nil)))
	tracker.Observe(t.Context(), "acme", signal(delivery.Accepted, "count", delivery.Answer{}))
	if len(r.appended) != 0 || moves(t, registry) != 0 {
		t.Errorf("got %d transitions and %v counted, want none", len(r.appended), moves(t, registry))
	}
	if got := lines.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "status not recorded") || !strings.Contains(got, "no answer") {
		t.Errorf("log: got %q, want one line that says why", got)
	}
}

func TestATransitionThatCannotBeLoggedIsCountedAllTheSame(t *testing.T) {
	r := &records{integration: connected(), failLog: errors.New("stream is full")}
	r.integration.Status = status.Pending
	registry := prometheus.NewRegistry()
	var lines bytes.Buffer
	tracker := status.NewTracker(r, r, "w1", status.NewMetrics(registry), slog.New(slog.NewTextHandler(&lines, nil)))
	tracker.Observe(t.Context(), "acme", signal(delivery.Accepted, "count", delivery.Answer{}))
	if r.integration.Status != status.Connected || moves(t, registry) != 1 {
		t.Errorf("got %s and %v counted, want connected and 1", r.integration.Status, moves(t, registry))
	}
	if got := lines.String(); !strings.Contains(got, "stream is full") {
		t.Errorf("log: got %q, want it to say why", got)
	}
}

// moves is how many transitions are counted in all.
func moves(t *testing.T, g prometheus.Gatherer) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}
