package status_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/status"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestTheCheckOfARecordNamesEverythingThatIsWrong(t *testing.T) {
	err := (&status.Integration{APIURL: "ftp://x", Standing: status.Standing{Status: "active"}}).Check()
	for _, want := range []string{"vendor/organization", "api url", `status "active"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error: got %v, want it to name %s", err, want)
		}
	}
	good := connected()
	if err := good.Check(); err != nil || good.Name() != "acme/m" {
		t.Errorf("a good record: got %v for %s, want no error for acme/m", err, good.Name())
	}
}

func TestOnlyThePartnerMayUseAWordOfItsOwn(t *testing.T) {
	i := connected()
	i.Begin(status.Observation{At: noon, Observed: "archived"})
	if err := i.Check(); err == nil || !strings.Contains(err.Error(), `status "archived"`) {
		t.Errorf("an operator's word: got %v, want it refused", err)
	}
	i.Begin(status.Observation{At: noon, Observed: status.Connected})
	i.Take(status.Observed, status.Observation{At: noon, Observed: "Archived"})
	if err := i.Check(); i.Status != "archived" || err != nil {
		t.Errorf("the partner's word: got %q and %v, want archived and no error", i.Status, err)
	}
}

func TestANewRecordBeginsWhereTheOperatorSays(t *testing.T) {
	tests := []struct {
		given     status.Status
		announced bool
		gates     []string
	}{
		{status.Inactive, false, []string{"integration_not_ready"}},
		{status.Mapping, true, []string{"integration_not_ready"}},
		{status.Connected, true, []string{}},
	}
	for _, test := range tests {
		i := status.Integration{Vendor: "acme", Organization: "m"}
		got := i.Begin(status.Observation{At: noon, Observed: test.given, Actor: "ann", IntegrationID: "int-1"})
		want := status.Transition{To: test.given, Cause: "added", Actor: "ann", Gates: test.gates, Number: 1}
		if !equal(got, want) || !got.Recorded() {
			t.Errorf("%s: got transition %+v, want %+v", test.given, got, want)
		}
		if want := (status.Standing{Status: test.given, Announced: test.announced}); i.Standing != want {
			t.Errorf("%s: got %+v, want %+v", test.given, i.Standing, want)
		}
		if i.Cause != "added" || i.Since != noon || i.Created != noon || i.IntegrationID != "int-1" || !i.GenerationSince.IsZero() {
			t.Errorf("%s: got %+v, want it added and created at noon in generation 0", test.given, i)
		}
	}
}

func TestTakingAnInputDatesWhatItChanged(t *testing.T) {
	i := connected()
	why := func(message string) status.Observation {
		return status.Observation{At: noon, Message: message, Actor: "ann"}
	}
	take(t, &i, status.CredentialsRefused, why("bad token"))
	take(t, &i, status.Flooded, why("too many"))
	if i.HoldSince != noon || i.HoldMessage != "bad token" || !i.Paused || i.PausedWhy != "too many" {
		t.Errorf("gates: got %+v, want both with their reasons", i)
	}
	if i.Cause != "count_accepted" || i.Since.Equal(noon) {
		t.Errorf("status: got %s since %v, want both as they were: no gate moves it", i.Cause, i.Since)
	}
	take(t, &i, status.CredentialsReplaced, why(""))
	take(t, &i, status.ResumedByOperator, why("mended"))
	if !i.HoldSince.IsZero() || i.HoldMessage != "" || i.PausedWhy != "" {
		t.Errorf("gates: got %+v, want nothing left of them", i)
	}
	got := take(t, &i, status.Observed, status.Observation{At: noon, Observed: " INACTIVE", Actor: "poll", Message: "from the list", IntegrationID: "int-9"})
	want := status.Transition{
		From: status.Connected, To: status.Inactive, Cause: "status_observed", Actor: "poll",
		Gates: []string{"integration_not_ready"}, Generation: 1, Message: "from the list", Number: 5,
	}
	if !equal(got, want) {
		t.Errorf("transition: got %+v, want %+v", got, want)
	}
	if i.Since != noon || i.Cause != "status_observed" || i.GenerationSince != noon || i.IntegrationID != "int-9" {
		t.Errorf("record: got %+v, want it inactive, in a new generation, both since noon", i)
	}
}

func TestWhatNobodyCaresAboutIsStoredAndNotRecorded(t *testing.T) {
	i := connected()
	i.Status, i.Announced = status.Mapping, false
	tests := []struct {
		what string
		in   status.Input
		o    status.Observation
		want bool
	}{
		{"the announcement", status.Announced, status.Observation{At: noon}, true},
		{"the announcement again", status.Announced, status.Observation{At: noon}, false},
		{"the partner's id", status.CatalogAccepted, status.Observation{At: noon, IntegrationID: "int-1"}, true},
		{"the partner's id again", status.CatalogAccepted, status.Observation{At: noon, IntegrationID: "int-1"}, false},
		{"no id", status.CatalogAccepted, status.Observation{At: noon}, false},
	}
	for _, test := range tests {
		transition, changed := i.Take(test.in, test.o)
		if changed != test.want || transition.Recorded() {
			t.Errorf("%s: got changed %t and transition %+v, want %t and none", test.what, changed, transition, test.want)
		}
	}
	if !i.Announced || i.IntegrationID != "int-1" || i.Transitions != 0 {
		t.Errorf("record: got %+v, want it announced, with its id, and no transition", i)
	}
}

func TestALossIsBelievedOnceAnHour(t *testing.T) {
	i := connected()
	i.Generation, i.GenerationSince = 4, noon
	tests := []struct {
		what  string
		after time.Duration
		want  bool
	}{
		{"by a clock behind ours", -time.Second, false},
		{"too soon", time.Hour - time.Nanosecond, false},
		{"in time", time.Hour, true},
	}
	for _, test := range tests {
		before := i
		transition, changed := i.Take(status.CatalogLost, status.Observation{
			At: noon.Add(test.after), IntegrationID: "int-1", Actor: "w1",
		})
		if changed != test.want || transition.Recorded() != test.want || i != before != test.want {
			t.Errorf("%s: got changed %t, %+v and %+v, want %t", test.what, changed, transition, i, test.want)
		}
	}
	if i.Generation != 5 || i.GenerationSince != noon.Add(time.Hour) || i.Announced || i.Status != status.Connected {
		t.Errorf("record: got %+v, want generation 5 of a connected integration that is not announced", i)
	}
	for _, in := range []status.Input{status.Resynced, status.CredentialsRenewed} {
		if take(t, &i, in, status.Observation{At: noon.Add(time.Hour)}); i.GenerationSince != noon.Add(time.Hour) {
			t.Errorf("%s: got %+v, want an operator's word taken at any time", in, i)
		}
	}
	if i.Generation != 7 {
		t.Errorf("generation: got %d, want 7", i.Generation)
	}
}

func TestAGenerationDatedFarAheadBlocksNoLoss(t *testing.T) {
	i := connected()
	i.Generation, i.GenerationSince = 1, noon.AddDate(10, 0, 0) // by a clock that was wrong
	if _, changed := i.Take(status.CatalogLost, status.Observation{At: noon}); !changed {
		t.Errorf("record: got %+v, want a new generation", i)
	}
}

func TestARecordIsAlwaysTrueToItsTransitions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := connected()
		last := i.Begin(status.Observation{At: noon, Observed: status.Inactive})
		at, lostAt := noon, time.Time{}
		for range rapid.IntRange(1, 40).Draw(t, "inputs") {
			at = at.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute)
			in := rapid.SampledFrom(status.Inputs()).Draw(t, "input")
			before := i
			transition, changed := i.Take(in, status.Observation{
				At: at, Observed: rapid.SampledFrom(nameds).Draw(t, "named"), Message: "why",
			})
			if changed != (i != before) {
				t.Fatalf("%s: got changed %t from %+v to %+v", in, changed, before, i)
			}
			if i.Generation != before.Generation {
				if in == status.CatalogLost && at.Sub(lostAt) < time.Hour {
					t.Fatalf("a loss at %v was believed after one at %v", at, lostAt)
				}
				lostAt = at
			}
			if !i.GenerationSince.Equal(lostAt) || (i.HoldMessage == "") != (i.Hold == "") || (i.PausedWhy == "") != !i.Paused || i.HoldSince.IsZero() != (i.Hold == "") {
				t.Fatalf("%s: got %+v, want every date and reason with what it belongs to, and no other", in, i)
			}
			if !transition.Recorded() {
				if i.Status != before.Status || i.Hold != before.Hold || i.Paused != before.Paused || i.Generation != before.Generation {
					t.Fatalf("%s: got no transition from %+v to %+v", in, before, i)
				}
				continue
			}
			if transition.From != last.To || transition.To != i.Status || transition.Generation != i.Generation || transition.Gates == nil {
				t.Fatalf("%s: got %+v after %+v, want them to follow and to tell of %+v", in, transition, last, i)
			}
			last = transition
		}
	})
}

func TestARecordIsFlatAndReadsBackTheSame(t *testing.T) {
	want := status.Integration{
		Vendor: "acme", Organization: "m", Dialect: "gradient", APIURL: "https://x.example/api", IntegrationID: "int-1",
		Standing: status.Standing{Status: status.Mapping, Announced: true, Generation: 2, Paused: true, Hold: "anomaly"},
		Since:    noon, Cause: "mapping_announced", GenerationSince: noon, PausedWhy: "tea", HoldSince: noon, HoldMessage: "no",
		Transitions: 7, VendorToken: "v", PartnerToken: "p", OEMToken: "o", Credentials: "c", Created: noon,
		Marks:    status.Marks{Vendor: "mv", Partner: "mp", OEM: "mo"},
		Previous: &status.Previous{APIURL: "https://y.example/api", VendorToken: "v0", PartnerToken: "p0", Until: noon, Elsewhere: true, Used: noon},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got status.Integration
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back: got %+v and %v, want %+v", got, err, want)
	}
	keys := fields(t, text)
	all := []string{
		"announced", "api_url", "cause", "created", "credentials", "dialect", "generation", "generation_since", "hold", "hold_message", "hold_since",
		"integration_id", "marks", "oem_token", "organization", "partner_token", "paused", "paused_why", "previous", "since", "status", "transitions", "vendor", "vendor_token",
	}
	if !slices.Equal(keys, all) {
		t.Errorf("fields: got %v, want %v", keys, all)
	}
	if n := reflect.TypeFor[status.Integration]().NumField() - 1 + reflect.TypeFor[status.Standing]().NumField(); n != len(all) {
		t.Errorf("the record has %d fields, and %d are checked", n, len(all))
	}
	text, err = json.Marshal(status.Integration{})
	if err != nil {
		t.Fatal(err)
	}
	least := []string{
		"announced", "api_url", "cause", "created", "credentials", "dialect", "generation", "organization", "partner_token", "since", "status", "vendor", "vendor_token",
	}
	if keys := fields(t, text); !slices.Equal(keys, least) {
		t.Errorf("fields of an empty record: got %v, want %v", keys, least)
	}
}

func TestARecordFromBeforeTheGenerationsReads(t *testing.T) {
	const old = `{"vendor":"acme","organization":"m","status":"connected","since":"2026-11-20T12:00:00Z","cause":"count_accepted","paused":true,"hold":"anomaly"}`
	var i status.Integration
	if err := json.Unmarshal([]byte(old), &i); err != nil {
		t.Fatal(err)
	}
	if want := (status.Standing{Status: status.Connected, Paused: true, Hold: "anomaly"}); i.Standing != want || i.Setup() {
		t.Errorf("got %+v, want %+v and nothing to announce", i.Standing, want)
	}
}

// fields are the names at the top of a JSON object, sorted.
func fields(t *testing.T, text []byte) []string {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func connected() status.Integration {
	return status.Integration{
		Vendor: "acme", Organization: "m", APIURL: "https://x.example/api",
		Standing: status.Standing{Status: status.Connected, Announced: true},
		Since:    noon.Add(-time.Hour), Cause: "count_accepted",
	}
}

// take takes an input that is to change the record visibly.
func take(t *testing.T, i *status.Integration, in status.Input, o status.Observation) status.Transition {
	t.Helper()
	transition, changed := i.Take(in, o)
	if !changed || !transition.Recorded() {
		t.Errorf("%s: got changed %t and %+v, want a transition", in, changed, transition)
	}
	return transition
}

// equal compares what two transitions tell.
func equal(got, want status.Transition) bool {
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	return string(a) == string(b)
}
