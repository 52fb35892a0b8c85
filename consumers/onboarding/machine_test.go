package onboarding_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

var ann = onboarding.Actor{Name: "ann", Run: "run-1", Links: true}

// at is a record whose steps before the given one are done.
func at(step onboarding.Step, change ...func(*onboarding.Record)) onboarding.Record {
	r := onboarding.NewRecord(request(), "command", "ann", noon)
	for _, s := range onboarding.Steps() {
		if s == step {
			break
		}
		r.Steps[s] = &onboarding.Progress{Done: noon, By: "ann"}
	}
	r.OEMToken, r.PlatformVendorID = "sealed-oem", "pv-1"
	for _, c := range change {
		c(&r)
	}
	return r
}

func unanswered(step onboarding.Step) func(*onboarding.Record) {
	return func(r *onboarding.Record) { r.Steps[step] = &onboarding.Progress{Unanswered: true} }
}

func adopting(r *onboarding.Record) { r.Adopt = true }

func lost(r *onboarding.Record) { r.Lost = true }

func ofCredentials(r *onboarding.Record) {
	r.Kind, r.Secrets = onboarding.Credentials, map[string]*string{"API key": new("sealed")}
}

func given(r *onboarding.Record) { r.PartnerToken = "sealed-given" }

func failed(class onboarding.Class, unknown bool) onboarding.Answer {
	return onboarding.Answer{Failure: &onboarding.CallError{Class: class, Unknown: unknown, Err: errors.New("the platform's words")}}
}

func TestWhatAnAnswerMeansAndWhatComesNext(t *testing.T) {
	org, vendor, integration, registered, session := onboarding.StepOrganization, onboarding.StepVendor, onboarding.StepIntegration, onboarding.StepRegistered, onboarding.StepSession
	create, add, list := onboarding.ActionCreateOrganization, onboarding.ActionAddUser, onboarding.ActionListIntegrations
	there := onboarding.Answer{Listed: []onboarding.PlatformIntegration{{ID: "int-9", Vendor: "pv-1"}}}
	for _, test := range []struct {
		name    string
		record  onboarding.Record
		action  onboarding.Action // what has to come
		answer  onboarding.Answer
		problem onboarding.Problem // "": it goes on
		next    onboarding.Action
	}{
		{"an organization is made", at(org), create, onboarding.Answer{Secret: "s"}, "", onboarding.ActionListVendors},
		{"it exists, and not by us", at(org), create, failed(onboarding.Exists, false), onboarding.ProblemOrganizationExists, create},
		{"it exists, and may be ours", at(org, unanswered(org)), create, failed(onboarding.Exists, false), "", add},
		{"no answer", at(org), create, failed(onboarding.Passing, true), onboarding.ProblemPassing, create},
		{"refused values", at(org), create, failed(onboarding.Rejected, false), onboarding.ProblemRejected, create},
		{"the client is refused", at(org), create, failed(onboarding.Unauthorized, false), onboarding.ProblemUnauthorized, create},
		{"a wrong address", at(org), create, failed(onboarding.NotFound, false), onboarding.ProblemNotFound, create},
		{"our own wish", at(org), create, failed(onboarding.Cancelled, true), onboarding.ProblemPassing, create},
		{"the user is added", at(org, adopting), add, onboarding.Answer{Secret: "s"}, "", onboarding.ActionListVendors},
		{"there is nothing to add the user to", at(org, adopting, unanswered(org)), add, failed(onboarding.NotFound, false), onboarding.ProblemNoOrganization, create},
		{"the user is somebody else's", at(org, adopting), add, failed(onboarding.Exists, false), onboarding.ProblemUserTaken, add},

		{"the vendor is found", at(vendor), onboarding.ActionListVendors, onboarding.Answer{Vendors: []onboarding.PlatformVendor{{ID: "pv-1", Kind: onboarding.External}}}, "", onboarding.ActionCreateIntegration},
		{"no vendor", at(vendor), onboarding.ActionListVendors, onboarding.Answer{}, onboarding.ProblemVendor, onboarding.ActionListVendors},

		{"an integration is made", at(integration), onboarding.ActionCreateIntegration, onboarding.Answer{Integration: "int-1", Secret: "s"}, "", onboarding.ActionRegister},
		{"no answer: the list will tell", at(integration), onboarding.ActionCreateIntegration, failed(onboarding.Unreadable, true), onboarding.ProblemUnreadable, list},
		{"too fast: nothing was made", at(integration), onboarding.ActionCreateIntegration, failed(onboarding.Passing, false), onboarding.ProblemPassing, onboarding.ActionCreateIntegration},
		{"the OEM token is refused", at(integration), onboarding.ActionCreateIntegration, failed(onboarding.Forbidden, false), onboarding.ProblemForbidden, onboarding.ActionCreateIntegration},
		{"it exists: the key is lost", at(integration), onboarding.ActionCreateIntegration, failed(onboarding.Exists, false), onboarding.ProblemLost, list},
		{"it is listed: the key is lost", at(integration, unanswered(integration)), list, there, onboarding.ProblemLost, list},
		{"it is not listed", at(integration, unanswered(integration)), list, onboarding.Answer{}, "", onboarding.ActionCreateIntegration},
		{"the lost one was removed", at(integration, lost), list, onboarding.Answer{}, "", onboarding.ActionCreateIntegration},
		{"the key of the lost one is given", at(integration, lost, given), list, there, "", onboarding.ActionRegister},
		{"the only one listed, of a platform that tells no vendor", at(integration, given), list, onboarding.Answer{Listed: []onboarding.PlatformIntegration{{ID: "int-9"}}}, "", onboarding.ActionRegister},
		{"a key is given for none", at(integration, given), list, onboarding.Answer{Listed: []onboarding.PlatformIntegration{{ID: "int-9", Vendor: "pv-2"}}}, onboarding.ProblemNotListed, onboarding.ActionCreateIntegration},
		{"credentials: an integration is made", at(integration, ofCredentials), onboarding.ActionCreateIntegration, onboarding.Answer{Integration: "int-1"}, "", onboarding.ActionRegister},
		{"credentials: it is listed, and may be ours", at(integration, ofCredentials, unanswered(integration)), list, there, "", onboarding.ActionRegister},
		{"credentials: it exists, and not by us", at(integration, ofCredentials), onboarding.ActionCreateIntegration, failed(onboarding.Exists, false), onboarding.ProblemLost, list},
		{"credentials: a person takes it as it is", at(integration, ofCredentials, lost, adopting), list, there, "", onboarding.ActionRegister},
		{"credentials: a partner token is no integration", at(integration, ofCredentials, given), onboarding.ActionCreateIntegration, onboarding.Answer{Integration: "int-1"}, "", onboarding.ActionRegister},

		{"it is recorded", at(registered, given), onboarding.ActionRegister, onboarding.Answer{Recorded: true}, "", onboarding.ActionOpenSession},
		{"it cannot be recorded", at(registered, given), onboarding.ActionRegister, failed(onboarding.Rejected, false), onboarding.ProblemUnregistered, onboarding.ActionRegister},
		{"there is no vendor token yet", at(registered, given), onboarding.ActionRegister, failed(onboarding.NotFound, false), onboarding.ProblemNotFound, onboarding.ActionRegister},
		{"a link", at(session), onboarding.ActionOpenSession, onboarding.Answer{}, "", onboarding.ActionOpenSession},
		{"no link", at(session), onboarding.ActionOpenSession, failed(onboarding.Forbidden, false), onboarding.ProblemForbidden, onboarding.ActionOpenSession},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := test.record
			_, action, err := r.Begin(ann, noon)
			if err != nil || action != test.action {
				t.Fatalf("got action %s, %v; want %s", action, err, test.action)
			}
			err = r.End(ann, action, test.answer, noon)
			problem := onboarding.Problem("")
			if stopped, ok := errors.AsType[*onboarding.Error](err); ok {
				problem = stopped.Problem
			}
			if problem != test.problem || r.Problem != test.problem || (err == nil) != (test.problem == "") {
				t.Errorf("got problem %q (recorded %q, %v), want %q", problem, r.Problem, err, test.problem)
			}
			if _, next := r.Next(); next != test.next {
				t.Errorf("next: got %s, want %s", next, test.next)
			}
		})
	}
}

func TestWhoWantsNoLinkIsDoneWhenAllElseIs(t *testing.T) {
	r := at(onboarding.StepSession)
	if _, action, err := r.Begin(onboarding.Actor{Name: "worker w", Run: "run-2"}, noon); !errors.Is(err, onboarding.ErrDone) || action != "" {
		t.Errorf("got %s and %v, want nothing to do", action, err)
	}
	if p := r.At(onboarding.StepSession); !p.Begun.IsZero() {
		t.Errorf("got %+v, want no session begun", p)
	}
}

func TestAnOrganizationThatIsTakenForOursSaysNothingOfTheIntegration(t *testing.T) {
	r := at(onboarding.StepOrganization, ofCredentials, adopting)
	for _, step := range []struct {
		action onboarding.Action
		answer onboarding.Answer
	}{
		{onboarding.ActionAddUser, onboarding.Answer{Secret: "s"}},
		{onboarding.ActionListVendors, onboarding.Answer{Vendors: []onboarding.PlatformVendor{{ID: "pv-1", Kind: onboarding.Credentials, Labels: []string{"API key"}}}}},
		{onboarding.ActionCreateIntegration, failed(onboarding.Exists, false)},
		{onboarding.ActionListIntegrations, onboarding.Answer{Listed: []onboarding.PlatformIntegration{{ID: "int-1", Vendor: "pv-1"}}}},
	} {
		_, action, err := r.Begin(ann, noon)
		if err != nil || action != step.action {
			t.Fatalf("got %s, %v; want %s", action, err, step.action)
		}
		_ = r.End(ann, action, step.answer, noon)
	}
	if r.Problem != onboarding.ProblemLost {
		t.Errorf("got problem %q, want the integration not to be taken for ours", r.Problem)
	}
}

func TestWhoComesBackLateBringsAndDoesNotTake(t *testing.T) {
	bob := onboarding.Actor{Name: "bob", Run: "run-2"}
	later := noon.Add(2 * time.Minute)
	overtaken := func() onboarding.Record {
		r := at(onboarding.StepIntegration)
		for who, when := range map[onboarding.Actor]time.Time{ann: noon} {
			if _, _, err := r.Begin(who, when); err != nil {
				t.Fatal(err)
			}
		}
		if _, action, err := r.Begin(bob, later); err != nil || action != onboarding.ActionListIntegrations {
			t.Fatalf("got %s, %v; want bob to look at the list first", action, err)
		}
		return r
	}
	r := overtaken()
	if err := r.End(ann, onboarding.ActionCreateIntegration, failed(onboarding.Rejected, false), later); err != nil || r.Problem != "" || r.At(onboarding.StepIntegration).By != "bob" {
		t.Errorf("a late failure: got %v and problem %q, want it to say nothing", err, r.Problem)
	}
	if err := r.End(ann, onboarding.ActionCreateIntegration, onboarding.Answer{Integration: "int-1", Secret: "sealed-key"}, later); err != nil || r.PartnerToken != "sealed-key" {
		t.Errorf("a late key: got %v and token %q, want it kept", err, r.PartnerToken)
	}
	if err := r.End(bob, onboarding.ActionListIntegrations, onboarding.Answer{Listed: []onboarding.PlatformIntegration{{ID: "int-1", Vendor: "pv-1"}}}, later); err != nil || r.Lost {
		t.Errorf("bob's list then: got %v and lost %t, want the key that has come to count", err, r.Lost)
	}
	r = overtaken()
	_ = r.End(bob, onboarding.ActionListIntegrations, onboarding.Answer{Listed: []onboarding.PlatformIntegration{{ID: "int-1", Vendor: "pv-1"}}}, later)
	if r.State(later) != onboarding.Lost {
		t.Fatalf("got state %s, want lost", r.State(later))
	}
	if err := r.End(ann, onboarding.ActionCreateIntegration, onboarding.Answer{Integration: "int-1", Secret: "sealed-key"}, later); err != nil || r.Lost || r.PartnerToken != "sealed-key" {
		t.Errorf("a key that was thought to be lost: got %v, lost %t, token %q; want it kept", err, r.Lost, r.PartnerToken)
	}
}

func TestAVendorIsChosenOrAPersonToldWhich(t *testing.T) {
	external := func(id, name string) onboarding.PlatformVendor {
		return onboarding.PlatformVendor{ID: id, Name: name, Kind: onboarding.External}
	}
	keyed := onboarding.PlatformVendor{ID: "pv-3", Name: "Keyed", Kind: onboarding.Credentials, Labels: []string{"API key", "Tenant ID"}}
	for _, test := range []struct {
		name   string
		list   []onboarding.PlatformVendor
		wish   string
		labels []string // of the credentials kind
		want   string   // id, or a part of the problem
	}{
		{"the only one", []onboarding.PlatformVendor{external("pv-1", "Another")}, "", nil, "pv-1"},
		{"the one of that name", []onboarding.PlatformVendor{external("pv-1", "Another"), external("pv-2", "ACME")}, "", nil, "pv-2"},
		{"the one that is named", []onboarding.PlatformVendor{external("pv-1", "acme"), external("pv-2", "Other")}, "pv-2", nil, "pv-2"},
		{"none", nil, "", nil, "lists no vendor for this client"},
		{"none of that id", []onboarding.PlatformVendor{external("pv-1", "acme")}, "pv-7", nil, `no vendor "pv-7"; it has pv-1 (acme)`},
		{"several", []onboarding.PlatformVendor{external("pv-1", "A"), external("pv-2", "B")}, "", nil, "which of the platform's vendors is acme? name one by its id: pv-1 (A), pv-2 (B)"},
		{"two of that name", []onboarding.PlatformVendor{external("pv-1", "acme"), external("pv-2", "Acme")}, "", nil, "which of"},
		{"another kind", []onboarding.PlatformVendor{keyed}, "", nil, `vendor pv-3 (Keyed) as "credentials", and "external" is asked for`},
		{"all labels", []onboarding.PlatformVendor{keyed}, "", []string{"Tenant ID", "API key"}, "pv-3"},
		{"other labels", []onboarding.PlatformVendor{keyed}, "", []string{"Api key", "Tenant ID"}, `missing "API key", unknown "Api key"`},
		{"credentials for an external one", []onboarding.PlatformVendor{external("pv-1", "acme")}, "", []string{"API key"}, `as "external", and "credentials" is asked for`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := at(onboarding.StepVendor)
			r.PlatformVendor = test.wish
			if test.labels != nil {
				r.Kind, r.Secrets = onboarding.Credentials, map[string]*string{}
				for _, label := range test.labels {
					r.Secrets[label] = new("sealed")
				}
			}
			_, action, err := r.Begin(ann, noon)
			if err != nil {
				t.Fatal(err)
			}
			err = r.End(ann, action, onboarding.Answer{Vendors: test.list}, noon)
			if got := fmt.Sprint(err); err != nil && !strings.Contains(got, test.want) || err == nil && r.PlatformVendorID != test.want {
				t.Errorf("got %s and vendor %q, want %s", got, r.PlatformVendorID, test.want)
			}
		})
	}
}

func TestOtherValuesAreTakenUntilThePlatformMayKnowThem(t *testing.T) {
	other := request()
	other.Email, other.OrganizationName = "bob@contoso.example", "Contoso Ltd"
	begun := func(r *onboarding.Record) { r.Steps[onboarding.StepOrganization] = &onboarding.Progress{Begun: noon} }
	refused := func(r *onboarding.Record) { r.Problem = onboarding.ProblemRejected }
	for _, test := range []struct {
		name   string
		record onboarding.Record
		differ bool
	}{
		{"nothing was asked for", at(onboarding.StepOrganization), false},
		{"a call is under way, or never ended", at(onboarding.StepOrganization, begun), true},
		{"an answer was lost", at(onboarding.StepOrganization, unanswered(onboarding.StepOrganization)), true},
		{"the platform refused them", at(onboarding.StepOrganization, unanswered(onboarding.StepOrganization), refused), false},
		{"the organization stands", at(onboarding.StepVendor), true},
		{"another thing was refused", at(onboarding.StepVendor, refused), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := test.record
			err := r.Ask(other)
			differ, ok := errors.AsType[*onboarding.DifferError](err)
			if ok != test.differ || ok == (r.Request == other) {
				t.Fatalf("got %v and request %+v, want a difference: %t", err, r.Request, test.differ)
			}
			if ok && (len(differ.Differences) != 2 || !strings.Contains(err.Error(), `email is "bob@contoso.example", recorded is "ann@contoso.example"`)) {
				t.Errorf("got %v, want what differs", err)
			}
		})
	}
	r := at(onboarding.StepIntegration)
	if err := r.Ask(onboarding.Request{PlatformVendor: "pv-1"}); err != nil {
		t.Errorf("the vendor that was found, named: got %v, want no difference", err)
	}
	if err := r.Ask(onboarding.Request{PlatformVendor: "pv-2"}); err == nil {
		t.Error("another vendor than the one that was found: got no error, want a difference")
	}
	if err := r.Ask(onboarding.Request{Kind: onboarding.Credentials}); err == nil {
		t.Error("another kind: got no error, want a difference")
	}
}

func TestWhatAPersonBringsReplacesNothingThatThePlatformHasShown(t *testing.T) {
	gift := onboarding.Gift{VendorToken: "gift-v", OEMToken: "gift-oem", PartnerToken: "gift-p", Fingerprint: "f"}
	forbidden := func(r *onboarding.Record) { r.Problem = onboarding.ProblemForbidden }
	shown := func(r *onboarding.Record) { r.PartnerToken = "sealed-key" }
	for _, test := range []struct {
		name                 string
		record               onboarding.Record
		vendor, oem, partner string
	}{
		{"at the beginning", at(onboarding.StepOrganization), "gift-v", "gift-oem", "gift-p"},
		{"the organization stands", at(onboarding.StepVendor), "gift-v", "sealed-oem", "gift-p"},
		{"its token is refused", at(onboarding.StepIntegration, forbidden), "gift-v", "gift-oem", "gift-p"},
		{"the integration stands", at(onboarding.StepRegistered, shown), "gift-v", "sealed-oem", "sealed-key"},
		{"finished", at(onboarding.StepSession), "", "sealed-oem", ""},
		{"finished, and its token is refused", at(onboarding.StepSession, forbidden), "", "gift-oem", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := test.record
			r.Take(&gift, "bob", noon)
			if r.VendorToken != test.vendor || r.OEMToken != test.oem || r.PartnerToken != test.partner {
				t.Errorf("got vendor token %q, OEM token %q, partner token %q; want %q, %q, %q", r.VendorToken, r.OEMToken, r.PartnerToken, test.vendor, test.oem, test.partner)
			}
			if r.Problem != "" {
				t.Errorf("got problem %q, want it gone: somebody has come back", r.Problem)
			}
			p := r.At(onboarding.StepOrganization)
			if took := test.oem == "gift-oem"; took != (p.Fingerprint == "f") || took && (p.Done.IsZero() || p.By != "bob") {
				t.Errorf("got organization %+v, want it done by bob: %t", p, took)
			}
		})
	}
}

func TestAnEmptyFieldIsNamed(t *testing.T) {
	q := request()
	if got := q.Missing(); got != nil {
		t.Errorf("got %v, want nothing missing", got)
	}
	q.Email, q.APIURL = " ", ""
	if got, want := fmt.Sprint(q.Missing()), "[email apiUrl]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
