package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

// requests publishes an event that asks for an organization, with some of it replaced.
func (s *onboardSite) requests(id, organization string, replace ...string) {
	s.t.Helper()
	body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"//billing.acme.example","type":"integration.requested.v1","time":%q,"data":{"vendorId":"acme","organizationId":%q,`+
		`"organizationName":"Name of %[3]s","email":"ann@contoso.example","firstName":"Ann","lastName":"Ott","vendorUserId":"u-%[3]s"}}`, id, time.Now().UTC().Format(time.RFC3339), organization)
	body = strings.NewReplacer(replace...).Replace(body)
	if err := s.app.broker.Append(s.t.Context(), event.RequestSubject("acme", organization), nil, []byte(body), ""); err != nil {
		s.t.Fatal(err)
	}
}

// awaits waits until an onboarding is in a state.
func (s *onboardSite) awaits(organization string, state onboarding.State) onboarding.Record {
	s.t.Helper()
	var last onboarding.Record
	eventuallyTrue(s.t, time.Minute, organization+" is "+string(state), func() bool {
		bucket, err := s.app.onboardings(s.t.Context())
		if err == nil {
			last, _, err = bucket.Get(s.t.Context(), broker.IntegrationKey("acme", organization))
		}
		return err == nil && last.State(time.Now()) == state && (state != onboarding.Done || len(last.Untold()) == 0)
	})
	return last
}

func TestAnEventAsksForAnIntegrationAndTheWorkerMakesIt(t *testing.T) {
	t.Parallel()
	s := newOnboardSite(t)
	s.finish("msp-1") // whose vendor token the others get
	s.requests("a", "msp-2")
	_, stop := serveApp(t, s.app)
	s.requests("a", "msp-2")                                       // the same event
	s.requests("b", "msp-2", "Name of", "Name  of")                // another one with other values
	s.requests("c", "msp-2")                                       // another one with the same
	s.requests("d", "msp-3", `"email":"ann@contoso.example",`, "") // the rest is dead
	s.requests("e", "msp-3", `"data":{"vendorId":"acme"`, `"data":{"vendorId":"other"`)
	s.requests("f", "msp-3", `"specversion":"1.0",`, "")
	s.requests("g", "msp-3", "requested.v1", "requested.v2")
	s.requests("h", "msp-3", time.Now().UTC().Format("2006"), "2019")
	s.platform.fails("/integration", "429")
	s.requests("i", "msp-4")
	r := s.awaits("msp-2", onboarding.Done)
	if p := r.At(onboarding.StepSession); r.Source != askedByEvent || p.Attempts != 0 || r.OrganizationName != "Name of msp-2" {
		t.Errorf("got %+v, want what the event asked for, and no link", r)
	}
	s.awaits("msp-4", onboarding.Done) // although the platform said no at first
	var got []string
	eventuallyTrue(t, time.Minute, "six dead letters", func() bool {
		got = nil
		err := s.app.broker.Letters(t.Context(), broker.LetterFilter{}, func(l broker.StoredLetter) error {
			got = append(got, l.Organization+" "+string(l.Fault.Reason)+" "+l.Fault.Pointer)
			return nil
		})
		return err == nil && len(got) == 6
	})
	slices.Sort(got)
	want := []string{
		"msp-2 conflicting_duplicate ", "msp-3 invalid /data/email", "msp-3 malformed /specversion", "msp-3 subject_mismatch ", "msp-3 too_old /time", "msp-3 unknown_type /type",
	}
	if !slices.Equal(got, want) {
		t.Errorf("dead letters: got %q, want %q", got, want)
	}
	if made := s.platform.counts(); made["/organization"] != 3 || made["/integration"] != 3 || made["/session"] != 1 {
		t.Errorf("got %v made, want one of each for three organizations, and the link of the first", made)
	}
	stop()
	s.settledButForTheLink("msp-2")
	s.hidden()
}

func TestAWorkerGoesOnWithWhatACommandHasLeft(t *testing.T) {
	t.Parallel()
	s := newOnboardSite(t)
	if _, died, err := s.run("msp-1", 4, true, 0); !died {
		t.Fatalf("got %v, want the command dead", err)
	}
	address, stop := serveApp(t, s.app)
	if r := s.record("msp-1"); r.Registered() || r.At(onboarding.StepOrganization).By != "ann" {
		t.Errorf("got %+v, want it left to the person for a minute", r)
	}
	s.calm("msp-1")
	s.awaits("msp-1", onboarding.Done)
	if n := s.platform.counts()["/session"]; n != 0 {
		t.Errorf("got %d links, want none: nobody has asked the worker for one", n)
	}
	// No token is configured, so there is no API.
	if status, text := s.post(address, "", "{}"); status != http.StatusNotFound {
		t.Errorf("got %d %s, want 404", status, text)
	}
	stop()
	s.settledButForTheLink("msp-1")
}

func TestAWorkerLeavesToAPersonWhatAPersonIsAt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	record := func(source string, age time.Duration, change func(*onboarding.Record)) onboarding.Record {
		r := onboarding.NewRecord(onboarding.Request{Vendor: "acme", Organization: "m"}, source, "ann", now.Add(-age))
		if change != nil {
			change(&r)
		}
		return r
	}
	step := func(p onboarding.Progress, s onboarding.Step) func(*onboarding.Record) {
		return func(r *onboarding.Record) {
			for _, before := range onboarding.Steps() {
				if before == s {
					break
				}
				r.Steps[before] = &onboarding.Progress{Done: now, Audited: true}
			}
			r.Steps[s] = &p
		}
	}
	stopped := func(r *onboarding.Record) { r.Problem = onboarding.ProblemOrganizationExists }
	for name, test := range map[string]struct {
		record onboarding.Record
		want   bool
	}{
		"a person's, a moment ago":       {record(askedByCommand, time.Second, nil), false},
		"a person's, a minute ago":       {record(askedByCommand, time.Minute, nil), true},
		"the API's, a moment ago":        {record(askedByAPI, time.Second, nil), false},
		"an event's, a moment ago":       {record(askedByEvent, time.Second, nil), true},
		"somebody is at it":              {record(askedByEvent, time.Hour, step(onboarding.Progress{Begun: now}, onboarding.StepVendor)), false},
		"somebody was, and never ended":  {record(askedByEvent, time.Hour, step(onboarding.Progress{Begun: now.Add(-time.Minute)}, onboarding.StepVendor)), true},
		"it waits for a person":          {record(askedByEvent, time.Hour, stopped), false},
		"all is done":                    {record(askedByEvent, time.Hour, step(onboarding.Progress{}, onboarding.StepSession)), false},
		"all is done, and not on record": {record(askedByEvent, time.Hour, step(onboarding.Progress{Done: now}, onboarding.StepRegistered)), true},
	} {
		if got := drivable(&test.record, now); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}

func TestAnEventThatComesOnceMoreChangesNothing(t *testing.T) {
	t.Parallel()
	s := newOnboardSite(t)
	o, err := s.app.onboarder(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	m := event.Message{
		Subject: event.RequestSubject("acme", "msp-1"), Stream: broker.StreamRequests, Sequence: 1, Stored: time.Now(),
		Data: fmt.Appendf(nil, `{"specversion":"1.0","id":"a","source":"//t","type":"integration.requested.v1","time":%q,"data":{"vendorId":"acme","organizationId":"msp-1","organizationName":"Contoso",`+
			`"email":"ann@contoso.example","firstName":"Ann","lastName":"Ott","vendorUserId":"u-1"}}`, time.Now().UTC().Format(time.RFC3339)),
	}
	if err := o.request(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	again := s.asks("msp-1") // a person corrects what the platform has not been told
	again.VendorUserID = "u-1"
	again.OrganizationName = "Contoso Ltd"
	if _, err := o.ask(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if err := o.request(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if r := s.record("msp-1"); r.OrganizationName != "Contoso Ltd" || r.Source != askedByEvent {
		t.Errorf("got %q by %s, want what the person said of what the event asked for", r.OrganizationName, r.Source)
	}
	if n := lettersLeft(t, s.app); n != 0 {
		t.Errorf("got %d dead letters, want none", n)
	}
}
