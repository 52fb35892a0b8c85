package onboarding

import (
	"maps"
	"slices"
	"time"
)

// Step is one part of the way.
type Step string

// The steps, in their order.
const (
	StepOrganization Step = "organization" // brings the OEM token
	StepVendor       Step = "vendor"       // brings the platform's id of the vendor
	StepIntegration  Step = "integration"  // brings its id, and the partner key of an external one
	StepRegistered   Step = "registered"   // the integration is recorded here
	StepSession      Step = "session"      // brings a link, which is not kept
)

// Steps lists the steps in their order.
func Steps() []Step {
	return []Step{StepOrganization, StepVendor, StepIntegration, StepRegistered, StepSession}
}

// Progress is how far one step is.
type Progress struct {
	// Begun is when what is under way began; zero: nothing is.
	Begun  time.Time `json:"begun,omitzero"`
	Action Action    `json:"action,omitempty"` // what began then
	By     string    `json:"by,omitempty"`     // who began it
	Run    string    `json:"run,omitempty"`    // tells apart two runs of the same person or worker

	Attempts int `json:"attempts,omitempty"`
	// Unanswered says that the platform may have made what it was asked for, and
	// that its answer, if there was one, is lost.
	Unanswered bool      `json:"unanswered,omitempty"`
	Done       time.Time `json:"done,omitzero"`
	// Fingerprint is of the secret that the step brought.
	Fingerprint string `json:"fingerprint,omitempty"`
	Audited     bool   `json:"audited,omitempty"` // that it is done is in the audit log
}

// Record is one onboarding as it is kept. Secrets are in it as ciphertext only.
type Record struct {
	Request

	Source  string    `json:"source"`          // how it was asked for: command, api or event
	Event   string    `json:"event,omitempty"` // the source and id of the event that asked for it
	Actor   string    `json:"actor"`           // who asked for it
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"`

	Steps map[Step]*Progress `json:"steps"`

	// Adopt says that what the platform has is to be taken for ours, until the
	// present step is done: by a person's wish, or because it may well be ours.
	Adopt bool `json:"adopt,omitempty"`
	// PlatformVendorID is the vendor that was found.
	PlatformVendorID   string `json:"platform_vendor_id,omitempty"`
	PlatformVendorName string `json:"platform_vendor_name,omitempty"`
	IntegrationID      string `json:"integration_id,omitempty"` // the platform's
	// Lost says that the platform has an integration whose partner key, or whose
	// credentials, nobody here knows.
	Lost bool `json:"lost,omitempty"`
	// Recorded says that the integration is in our own records. One of the
	// credentials kind needs none: the platform calls the vendor.
	Recorded bool `json:"recorded,omitempty"`

	// Sealed for the onboarding's name. All but the OEM token, which every link
	// needs, are removed once the integration is registered.
	VendorToken  string             `json:"vendor_token,omitempty"`
	OEMToken     string             `json:"oem_token,omitempty"`
	PartnerToken string             `json:"partner_token,omitempty"`
	Secrets      map[string]*string `json:"credentials,omitempty"` // by label

	// Problem, Message and Failed say why it did not go on, and since when; empty
	// while nothing is wrong.
	Problem Problem   `json:"problem,omitempty"`
	Message string    `json:"error,omitempty"`
	Failed  time.Time `json:"failed,omitzero"`
}

// State is where an onboarding stands.
type State string

// The states of an onboarding.
const (
	// Open: it goes on as soon as somebody drives it, a worker after a while.
	Open State = "open"
	// Running: somebody is at a step.
	Running State = "running"
	// Stopped: it waits for a person.
	Stopped State = "stopped"
	// Lost is Stopped because the partner key is lost.
	Lost State = "lost"
	// Done: the integration stands and is recorded; links are to be had.
	Done State = "done"
)

// patience is how long what somebody began is taken to be under way. It exceeds
// the longest call by far.
const patience = time.Minute

// NewRecord begins an onboarding.
func NewRecord(q Request, source, actor string, now time.Time) Record {
	return Record{Request: q, Source: source, Actor: actor, Created: now.UTC(), Changed: now.UTC(), Steps: map[Step]*Progress{}}
}

// At is how far a step is.
func (r *Record) At(s Step) Progress {
	if p := r.Steps[s]; p != nil {
		return *p
	}
	return Progress{}
}

func (r *Record) at(s Step) *Progress {
	if r.Steps == nil {
		r.Steps = map[Step]*Progress{}
	}
	if r.Steps[s] == nil {
		r.Steps[s] = &Progress{}
	}
	return r.Steps[s]
}

func (r *Record) done(s Step) bool { return !r.At(s).Done.IsZero() }

// Registered says that all is done but for the link, of which there can be many.
func (r *Record) Registered() bool { return r.done(StepRegistered) }

// Current is the first step that is not done; the session's when all others are.
func (r *Record) Current() Step {
	for _, s := range Steps() {
		if !r.done(s) {
			return s
		}
	}
	return StepSession
}

// Untold lists the steps that are done and not yet in the audit log.
func (r *Record) Untold() []Step {
	var untold []Step
	for _, s := range Steps() {
		if p := r.At(s); !p.Done.IsZero() && !p.Audited {
			untold = append(untold, s)
		}
	}
	return untold
}

// State is where it stands at a moment.
func (r *Record) State(now time.Time) State {
	p := r.At(r.Current())
	switch {
	case r.Registered():
		return Done
	case p.live(now):
		return Running
	case r.Problem == ProblemLost:
		return Lost
	case r.Problem.Stops():
		return Stopped
	}
	return Open
}

// live says whether what was begun is to be taken for under way.
func (p *Progress) live(now time.Time) bool {
	return !p.Begun.IsZero() && now.Sub(p.Begun).Abs() < patience
}

// Labels lists those of the credentials.
func (r *Record) Labels() []string { return slices.Sorted(maps.Keys(r.Secrets)) }

// Same lists in what another request differs, whatever the platform knows. What that
// leaves out does not differ.
func (r *Record) Same(again Request) error {
	settled := *r
	settled.Steps = map[Step]*Progress{StepOrganization: {Done: r.Created}, StepVendor: {Done: r.Created}}
	settled.PlatformVendorID = r.PlatformVendorID
	if !r.done(StepVendor) {
		settled.PlatformVendorID = r.PlatformVendor
	}
	return settled.Ask(again)
}

// Idle says that nobody has touched it for so long that a worker may drive it.
func (r *Record) Idle(now time.Time) bool { return now.Sub(r.Changed).Abs() >= patience }

// told says that the platform knows the request, or may. It makes nothing of values
// that it has refused.
func (r *Record) told() bool {
	p := r.At(StepOrganization)
	refused := p.Begun.IsZero() && p.Done.IsZero() && r.Problem == ProblemRejected
	return !refused && (!p.Begun.IsZero() || p.Unanswered || !p.Done.IsZero())
}

// Ask takes the request once more. It may have other values for whatever the
// platform has not been told yet, and leave out what is optional; else the error
// is a *DifferError, and nothing is changed.
func (r *Record) Ask(again Request) error {
	settled := r.told()
	var differ []Difference
	next := r.Request
	take := func(name Field, recorded *string, given string, fixed bool) {
		if given == "" || given == *recorded {
			return
		}
		if fixed {
			differ = append(differ, Difference{name, *recorded, given})
			return
		}
		*recorded = given
	}
	take(FieldOrganizationName, &next.OrganizationName, again.OrganizationName, settled)
	take(FieldEmail, &next.Email, again.Email, settled)
	take(FieldFirstName, &next.FirstName, again.FirstName, settled)
	take(FieldLastName, &next.LastName, again.LastName, settled)
	take(FieldVendorUserID, &next.VendorUserID, again.VendorUserID, settled)
	take(FieldAPIURL, &next.APIURL, again.APIURL, settled)
	kind := string(next.Kind)
	take(FieldKind, &kind, string(again.Kind), r.done(StepVendor))
	next.Kind = Kind(kind)
	found := next.PlatformVendor
	if r.done(StepVendor) {
		found = r.PlatformVendorID
	}
	take(FieldPlatformVendor, &found, again.PlatformVendor, r.done(StepVendor))
	if !r.done(StepVendor) {
		next.PlatformVendor = found
	}
	if len(differ) > 0 {
		return &DifferError{Name: r.Name(), Differences: differ}
	}
	r.Request = next
	return nil
}

// Gift is what a person brings beside the request, sealed.
type Gift struct {
	VendorToken  string
	Credentials  map[string]string
	OEMToken     string // instead of having the organization made
	PartnerToken string // instead of having the integration made
	// The fingerprint of OEMToken, for the audit log.
	Fingerprint string
	Adopt       bool
}

// Take adds what a person brings. What the platform has shown is never replaced
// by it, except an OEM token that it refuses.
func (r *Record) Take(g *Gift, actor string, now time.Time) {
	if g.OEMToken != "" && (!r.done(StepOrganization) || r.Problem == ProblemForbidden) {
		r.OEMToken = g.OEMToken
		attempts := r.At(StepOrganization).Attempts
		*r.at(StepOrganization) = Progress{By: actor, Attempts: attempts, Done: now.UTC(), Fingerprint: g.Fingerprint, Action: ActionTakeGiven}
	}
	// What a person does about a problem is to come back.
	r.Problem, r.Message, r.Failed = "", "", time.Time{}
	r.Changed = now.UTC()
	if r.Registered() {
		return
	}
	if g.VendorToken != "" {
		r.VendorToken = g.VendorToken
	}
	if !r.done(StepIntegration) {
		if len(g.Credentials) > 0 {
			r.Secrets = map[string]*string{}
			for label, ciphertext := range g.Credentials {
				r.Secrets[label] = &ciphertext
			}
		}
		r.Adopt = r.Adopt || g.Adopt
	}
	if g.PartnerToken != "" && (r.Kind == Credentials || !r.done(StepIntegration)) {
		r.PartnerToken = g.PartnerToken
	}
}

// Sealed are the ciphertexts of the record, none of them empty, for whoever seals
// them anew. All are sealed for its name.
func (r *Record) Sealed() []*string {
	all := []*string{&r.VendorToken, &r.OEMToken, &r.PartnerToken}
	for _, label := range r.Labels() {
		all = append(all, r.Secrets[label])
	}
	return slices.DeleteFunc(all, func(ciphertext *string) bool { return *ciphertext == "" })
}
