package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// wizardStep is one page of the wizard, and what its forms do. Both run while the lock is held.
type wizardStep struct {
	slug, title string
	show        func(s *Sandbox, p *wizardPage, query url.Values)
	actions     map[string]action
}

// action carries a form out. What it returns is said on the next page, which is the one that the
// outcome names, or the one that the form was on.
type action func(s *Sandbox, v *session, in *integration, form url.Values) (outcome, error)

type outcome struct {
	said string
	next string // slug of a step
}

// wizardSteps are in the order of the way. The welcome page, which has no integration, comes before.
var wizardSteps = []wizardStep{
	{"connect", "Connect", showConnect, map[string]action{"authenticate": authenticate}},
	{"psa", "Your PSA", showPSA, map[string]action{"connect": choosePSA}},
	{"accounts", "Accounts", showAccounts, map[string]action{"save": saveAccounts, "suggest": suggestAccounts, "exclude": excludeAccounts}},
	{"services", "Services", showServices, map[string]action{"save": saveServices, "suggest": suggestServices, "exclude": excludeServices}},
	{"review", "Review", showReview, map[string]action{"accept": acceptReview}},
	{"reconcile", "Reconcile", showReconcile, map[string]action{"approve": approveSeen}},
}

func stepOf(slug string) *wizardStep {
	if i := slices.IndexFunc(wizardSteps, func(st wizardStep) bool { return st.slug == slug }); i >= 0 {
		return &wizardSteps[i]
	}
	return nil
}

func (s *Sandbox) handleWizard(mux *http.ServeMux) {
	mux.HandleFunc("GET "+WizardPath+"/open/{token}", s.openLink)
	mux.Handle("POST "+WizardPath+"/enter", http.NewCrossOriginProtection().Handler(http.HandlerFunc(s.enterFromPage)))
	mux.HandleFunc("POST "+WizardPath+"/leave", s.leave)
	mux.HandleFunc("GET "+WizardPath, s.getWelcome)
	mux.HandleFunc("GET "+WizardPath+"/{integration}/{step}", s.getStep)
	mux.HandleFunc("POST "+WizardPath+"/{integration}/{step}", s.postStep)
	mux.HandleFunc("GET "+WizardPath+"/", func(w http.ResponseWriter, _ *http.Request) { s.showMessage(w, noSuchPage()) })
}

func noSuchPage() *message {
	return &message{
		Status: http.StatusNotFound, Kind: "no-page", Title: "There is no such page",
		Text: "The wizard has no page at this address, or not for your organization.", Continue: WizardPath,
	}
}

func (s *Sandbox) getWelcome(w http.ResponseWriter, r *http.Request) {
	p, m := func() (*wizardPage, *message) {
		s.mu.Lock()
		defer s.mu.Unlock()
		v, m := s.visitOf(r)
		if m != nil {
			return nil, m
		}
		p := s.newWizardPage(v, nil, "welcome", "Welcome")
		showWelcome(s, p)
		return p, nil
	}()
	s.showPage(w, "welcome", p, m)
}

func (s *Sandbox) getStep(w http.ResponseWriter, r *http.Request) {
	step := stepOf(r.PathValue("step"))
	p, m := func() (*wizardPage, *message) {
		s.mu.Lock()
		defer s.mu.Unlock()
		v, in, m := s.visitTo(r, step)
		if m != nil {
			return nil, m
		}
		p := s.newWizardPage(v, in, step.slug, step.title)
		step.show(s, p, r.URL.Query())
		return p, nil
	}()
	name := ""
	if m == nil {
		name = step.slug
	}
	s.showPage(w, name, p, m)
}

// visitTo returns whose page of which integration a request is about.
func (s *Sandbox) visitTo(r *http.Request, step *wizardStep) (*session, *integration, *message) {
	v, m := s.visitOf(r)
	if m != nil {
		return nil, nil, m
	}
	i := slices.IndexFunc(v.organization.integrations, func(in *integration) bool { return in.id == r.PathValue("integration") })
	if i < 0 || step == nil {
		return nil, nil, noSuchPage()
	}
	in := v.organization.integrations[i]
	in.settle(s.now())
	return v, in, nil
}

// postStep carries a form out and leads to a page that says what came of it, so that reloading
// that page repeats nothing.
func (s *Sandbox) postStep(w http.ResponseWriter, r *http.Request) {
	if m := s.readForm(w, r); m != nil {
		s.showMessage(w, m)
		return
	}
	next, in, m := s.act(r)
	if m != nil {
		s.showMessage(w, m)
		return
	}
	s.tellVendor(r, in)
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // a step of the wizard, whose id is ours
}

// act returns where to go on; the name of the integration when something was done to it.
func (s *Sandbox) act(r *http.Request) (next, name string, refused *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	step := stepOf(r.PathValue("step"))
	v, in, m := s.visitTo(r, step)
	if m != nil {
		return "", "", m
	}
	if m := v.forged(r); m != nil {
		return "", "", m
	}
	do := step.actions[r.PostForm.Get("action")]
	if do == nil {
		return "", "", noSuchPage()
	}
	done, err := do(s, v, in, r.PostForm)
	in.remember()
	slug := step.slug
	if err != nil {
		v.notice = notice{"refused", told(err)}
	} else {
		v.notice, name, slug = notice{"done", done.said}, in.name, cmp.Or(done.next, slug)
	}
	next = in.page(slug)
	if query := r.URL.RawQuery; query != "" && slug == step.slug {
		next += "?" + query
	}
	return next, name, nil
}

// tellVendor sends the webhook that Config.Inform orders, after a form that was carried out; what
// came of it stands on the next page.
func (s *Sandbox) tellVendor(r *http.Request, name string) {
	if name == "" || s.config.Inform.URL == "" {
		return
	}
	vendor, _ := cutName(name)
	order := s.config.Inform
	order.URL = strings.ReplaceAll(order.URL, informVendor, url.PathEscape(vendor))
	told, err := s.Inform(r.Context(), name, order)
	said := "The vendor's webhook was not reached."
	if err == nil {
		said = fmt.Sprintf("The vendor's webhook was told, and answered %d.", told.Answers[len(told.Answers)-1])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, m := s.visitOf(r); m == nil {
		v.notice.Text += " " + said
	}
}

// page is the address of a step.
func (in *integration) page(slug string) string {
	return WizardPath + "/" + url.PathEscape(in.id) + "/" + slug
}

// told is an error as a sentence for a page.
func told(err error) string {
	text := strings.ReplaceAll(err.Error(), ErrConflict.Error()+": ", "")
	text = strings.ReplaceAll(text, "\n", "; ")
	return strings.ToUpper(text[:1]) + text[1:] + ". Nothing was changed."
}

// enterFromPage is the button of the sandbox's own page: a session of a user, and right into it.
func (s *Sandbox) enterFromPage(w http.ResponseWriter, r *http.Request) {
	if m := s.readForm(w, r); m != nil {
		s.showMessage(w, m)
		return
	}
	path, err := s.NewSession(r.PostForm.Get("organization"), r.PostForm.Get("user"))
	if err != nil {
		s.showMessage(w, &message{
			Status: http.StatusNotFound, Kind: "nobody", Title: "There is no such user",
			Text: "The sandbox was restarted, or the user was removed since the page was loaded.", Continue: "/",
		})
		return
	}
	http.Redirect(w, r, path, http.StatusSeeOther) //nolint:gosec // a link that was made here
}

// NewSession makes the link of a session, without scheme and host. An organization without users
// lets in who is called nothing, or user- and the name of the organization. It returns [ErrUnknown]
// for an unknown organization or user.
func (s *Sandbox) NewSession(name, vendorUserID string) (link string, err error) {
	err = s.changeOrganization("open a session", name, func(o *organization) error {
		if len(o.users) == 0 {
			o.users = append(o.users, &user{id: "user-" + o.name})
			vendorUserID = o.users[0].id
		}
		u := o.userOf(vendorUserID)
		if u == nil {
			return fmt.Errorf("%w user %q", ErrUnknown, vendorUserID)
		}
		link = s.openSession(o, u, s.now()).path()
		return nil
	})
	return link, err
}

var errConfirm = errors.New("tick the box that says you know what this does")
