package onboarding

import (
	"errors"
	"fmt"
	"time"
)

// Action is what is to be done next: mostly one call to the platform.
type Action string

// The actions.
const (
	ActionTakeGiven          Action = "take_given" // a person's; no call
	ActionCreateOrganization Action = "create_organization"
	ActionAddUser            Action = "add_user"
	ActionListVendors        Action = "list_vendors"
	ActionListIntegrations   Action = "list_integrations"
	ActionCreateIntegration  Action = "create_integration"
	ActionRegister           Action = "register" // a record of our own; no call
	ActionOpenSession        Action = "open_session"
)

// makes says whether an action makes something at the platform that it must not
// make twice.
func (a Action) makes() bool { return a == ActionCreateOrganization || a == ActionCreateIntegration }

// Next is what is to be done for a record in which nothing is under way.
//
// An organization that may exist is asked for once more: the platform refuses a
// second one (409), and then the user is added to it, which brings its token
// again. An integration that may exist is looked for in the platform's list before
// it is asked for once more; its partner key is not shown again.
func (r *Record) Next() (Step, Action) {
	s := r.Current()
	switch s {
	case StepOrganization:
		if r.Adopt {
			return s, ActionAddUser
		}
		return s, ActionCreateOrganization
	case StepVendor:
		return s, ActionListVendors
	case StepIntegration:
		given := r.Kind == External && r.PartnerToken != ""
		if r.At(s).Unanswered || r.Lost || given {
			return s, ActionListIntegrations
		}
		return s, ActionCreateIntegration
	case StepRegistered:
		return s, ActionRegister
	case StepSession:
	}
	return StepSession, ActionOpenSession
}

// Actor is who drives an onboarding.
type Actor struct {
	Name string
	Run  string // no other run has it
	// Links says that a link is wanted once all else is done.
	Links bool
}

// ErrDone says that there is nothing to do for an actor who wants no link.
var ErrDone = errors.New("the onboarding is done")

// Begin notes that the actor is at the next step, and says what to do. The error
// is a *BusyError when somebody else is, and ErrDone at the end. What somebody began and never ended is
// taken over after a minute, and one's own at once: the platform may have done it.
func (r *Record) Begin(who Actor, now time.Time) (Step, Action, error) {
	step, action := r.Next()
	if step == StepSession && !who.Links {
		return step, "", ErrDone
	}
	p := r.at(step)
	if p.live(now) && p.Run != who.Run {
		return step, "", &BusyError{Name: r.Name(), Step: step, By: p.By, Since: p.Begun}
	}
	if !p.Begun.IsZero() && p.Action.makes() {
		p.Unanswered = true
		step, action = r.Next()
	}
	p.Begun, p.By, p.Run, p.Action = now.UTC(), who.Name, who.Run, action
	p.Attempts++
	r.Changed = now.UTC()
	return step, action, nil
}

// Answer is what came of an action.
type Answer struct {
	Failure *CallError // nil: it succeeded

	Secret      string // sealed: the OEM token, or the partner key
	Fingerprint string // of the secret
	Vendors     []PlatformVendor
	Listed      []PlatformIntegration
	Integration string // the platform's id of it
	Recorded    bool   // the integration is in our own records
}

// End takes the answer to what the actor began. Its error is an *Error: why the
// step is not done. nil means that it goes on, which may be with another action of
// the same step.
//
// An actor that was taken to be gone may come back late. What it brings is taken
// if nobody has brought it meanwhile, above all a key that is shown once; what it
// did not get says nothing any more.
func (r *Record) End(who Actor, action Action, a Answer, now time.Time) error {
	step := stepOf(action)
	p := r.at(step)
	mine := !p.Begun.IsZero() && p.Run == who.Run
	late := !mine && (a.Failure != nil || action == ActionListIntegrations)
	if step != StepSession && r.done(step) || late {
		return nil
	}
	p.Begun = time.Time{}
	r.Changed = now.UTC()
	err := r.judge(step, action, &a)
	if err != nil {
		r.Problem, r.Message, r.Failed = err.Problem, err.Message, now.UTC()
		return err
	}
	r.Problem, r.Message, r.Failed = "", "", time.Time{}
	if r.brings(action, &a) {
		p.Done, p.Unanswered, p.Audited, p.Fingerprint = now.UTC(), false, false, a.Fingerprint
		p.By = who.Name
	}
	return nil
}

func stepOf(a Action) Step {
	switch a {
	case ActionCreateOrganization, ActionAddUser, ActionTakeGiven:
		return StepOrganization
	case ActionListVendors:
		return StepVendor
	case ActionListIntegrations, ActionCreateIntegration:
		return StepIntegration
	case ActionRegister:
		return StepRegistered
	case ActionOpenSession:
	}
	return StepSession
}

// judge says why an answer does not do the step, if it does not. What the platform
// may have done is noted, and what it surely has not done is forgotten.
func (r *Record) judge(step Step, action Action, a *Answer) *Error {
	f := a.Failure
	if f == nil {
		return r.judgeList(step, action, a)
	}
	p := r.at(step)
	if action.makes() && f.Unknown {
		p.Unanswered = true
	}
	if f.Class == Exists && action == ActionCreateOrganization && p.Unanswered {
		r.Adopt = true // it may well be ours: the one that has our id of it gives the token
		return nil
	}
	if f.Class == NotFound && action == ActionAddUser {
		r.Adopt, p.Unanswered = false, false
	}
	if f.Class == Exists && action == ActionCreateIntegration {
		return r.lost(step, f)
	}
	problem, message := r.explain(action, f)
	return &Error{Step: step, Problem: problem, Message: message, Wait: f.RetryAfter, cause: f}
}

// explain puts a failure into words that say what it means here.
func (r *Record) explain(action Action, f *CallError) (Problem, string) {
	type meaning struct {
		action Action
		class  Class
	}
	switch (meaning{action, f.Class}) {
	case meaning{ActionCreateOrganization, Exists}:
		return ProblemOrganizationExists, fmt.Sprintf("the platform has an organization of that name or id, and not from this onboarding: %v", f)
	case meaning{ActionAddUser, NotFound}:
		return ProblemNoOrganization, fmt.Sprintf(
			"the platform has no organization with the id %q to which the user could be added (if it refuses to make one, its name is taken by another): %v", r.Organization, f)
	case meaning{ActionAddUser, Exists}:
		return ProblemUserTaken, fmt.Sprintf("vendor user id %q has another e-mail at the platform, or the e-mail belongs to another organization: %v", r.VendorUserID, f)
	case meaning{ActionRegister, Rejected}, meaning{ActionRegister, Exists}:
		return ProblemUnregistered, f.Error()
	}
	return problems[f.Class], f.Error()
}

// judgeList looks for what is wanted in the platform's lists.
func (r *Record) judgeList(step Step, action Action, a *Answer) *Error {
	switch action {
	case ActionListVendors:
		v, err := choose(a.Vendors, &r.Request, r.Labels())
		if err != nil {
			return &Error{Step: step, Problem: ProblemVendor, Message: err.Error()}
		}
		r.PlatformVendorID, r.PlatformVendorName = v.ID, v.Name
	case ActionListIntegrations:
		return r.judgeListed(step, a)
	case ActionTakeGiven, ActionCreateOrganization, ActionAddUser, ActionCreateIntegration, ActionRegister, ActionOpenSession:
	}
	return nil
}

func (r *Record) judgeListed(step Step, a *Answer) *Error {
	p := r.at(step)
	found, ok := listed(a.Listed, r.PlatformVendorID)
	a.Integration = found.ID
	given := r.Kind == External && r.PartnerToken != ""
	ours := r.Kind == Credentials && (p.Unanswered || r.Adopt) // it has our credentials, or a person answers for them
	switch {
	case ok && (given || ours):
		return nil
	case ok:
		r.IntegrationID = found.ID
		return r.lost(step, nil)
	}
	r.Lost, p.Unanswered, r.IntegrationID = false, false, ""
	if given {
		r.PartnerToken = ""
		return &Error{Step: step, Problem: ProblemNotListed, Message: fmt.Sprintf(
			"the platform lists no integration of vendor %s for this organization, so the partner token that was given is for none: leave it out, and one is made", r.PlatformVendorID)}
	}
	return nil
}

// lost notes that the platform has the integration, and we have not its key.
func (r *Record) lost(step Step, f *CallError) *Error {
	r.Lost = true
	r.at(step).Unanswered = false
	text := "the platform has an integration of this vendor and organization, whose partner key nobody here knows; the platform shows it once and never again"
	if r.Kind == Credentials {
		text = "the platform has an integration of this vendor and organization, whose credentials nobody here knows"
	}
	err := &Error{Step: step, Problem: ProblemLost, Message: text}
	if f != nil {
		err.Message, err.cause = fmt.Sprintf("%s: %v", text, f), f
	}
	return err
}

// brings takes what a successful action brought, and says whether its step is done.
func (r *Record) brings(action Action, a *Answer) bool {
	switch action {
	case ActionCreateOrganization, ActionAddUser:
		if a.Failure != nil {
			return false // 409: the user is to be added
		}
		r.OEMToken, r.Adopt = a.Secret, false
	case ActionListIntegrations:
		if a.Integration == "" {
			return false // there is none: it is to be made
		}
		r.IntegrationID, r.Lost, r.Adopt = a.Integration, false, false
	case ActionCreateIntegration:
		r.IntegrationID, r.Lost, r.Adopt = a.Integration, false, false
		if r.Kind == External {
			r.PartnerToken = a.Secret
		}
	case ActionRegister:
		r.Recorded = a.Recorded
		r.VendorToken, r.PartnerToken, r.Secrets = "", "", nil
	case ActionListVendors, ActionTakeGiven, ActionOpenSession:
	}
	return true
}
