package sandbox

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

//go:embed pages/*.html
var pageFiles embed.FS

// pages are the templates of all pages by name; each has the frame and the style of all.
var pages = parsePages("sandbox", "message", "welcome", "connect", "psa", "accounts", "services", "review", "reconcile")

func parsePages(names ...string) map[string]*template.Template {
	frame := template.Must(template.ParseFS(pageFiles, "pages/style.html", "pages/frame.html", "pages/parts.html"))
	all := map[string]*template.Template{}
	for _, name := range names {
		all[name] = template.Must(template.Must(frame.Clone()).ParseFS(pageFiles, "pages/"+name+".html"))
	}
	return all
}

// wizardPage is what every page of the wizard shows.
type wizardPage struct {
	Slug, Title        string
	Organization, User string
	CSRF               string
	Notice             notice
	Waits              bool // for somebody else: the page looks again by itself
	Progress           []progress
	Number             int // of the page, from 1
	Vendor             string
	Status             Status
	Base               string // address of the steps, empty when there is no integration
	Self               string // address of the form, with its query
	Previous, Next     string // addresses
	Body               any

	session *session
	in      *integration
}

// notice is what came of a form: "done" or "refused".
type notice struct{ Kind, Text string }

// progress is a step in the bar at the top.
type progress struct {
	Slug, Title, Path string
	Done, Current     bool
}

// message is a page that only says something.
type message struct {
	Status      int
	Kind        string // what tests know it by
	Title, Text string
	Command     string // who gets a link where; empty: no word of it
	Continue    string // address
}

// newWizardPage begins a page of a visit. The notice goes to this page and to no other.
func (s *Sandbox) newWizardPage(v *session, in *integration, slug, title string) *wizardPage {
	p := &wizardPage{
		Slug: slug, Title: title, Organization: v.organization.title, User: v.user.name(), CSRF: v.csrf, Notice: v.notice,
		session: v, in: in,
	}
	v.notice = notice{}
	if in == nil && len(v.organization.integrations) == 1 {
		in = v.organization.integrations[0] // the bar may lead on
	}
	if in != nil {
		p.Base, p.Vendor, p.Status, p.Self = WizardPath+"/"+in.id, in.vendorName(), in.status, in.page(slug)
	}
	p.Progress = append(p.Progress, progress{Slug: "welcome", Title: "Welcome", Path: WizardPath, Done: slug != "welcome"})
	for _, step := range wizardSteps {
		next := progress{Slug: step.slug, Title: step.title}
		if in != nil {
			next.Path, next.Done = in.page(step.slug), in.finished(step.slug)
		}
		p.Progress = append(p.Progress, next)
	}
	for i := range p.Progress {
		if p.Progress[i].Slug != slug {
			continue
		}
		p.Progress[i].Current, p.Number = true, i+1
		if i > 0 {
			p.Previous = p.Progress[i-1].Path
		}
		if i+1 < len(p.Progress) {
			p.Next = p.Progress[i+1].Path
		}
	}
	return p
}

// finished says whether a step has nothing left to do.
func (in *integration) finished(slug string) bool {
	o := in.organization
	whole := func(c *catalog) bool { t := c.tally(); return t.All > 0 && t.Undecided == 0 }
	switch slug {
	case "connect":
		return true // it is by being there
	case "psa":
		return o.psa != nil
	case "accounts":
		return whole(&in.accounts)
	case "services":
		return whole(&in.services)
	case "review":
		return in.status == Pending || in.status == Connected
	default:
		deltas, err := o.deltas()
		reported := false
		for i := range deltas {
			reported = reported || deltas[i].reported != nil
			if deltas[i].Open() || deltas[i].Problem != "" {
				return false
			}
		}
		return err == nil && reported
	}
}

// vendorName is how people call the vendor.
func (in *integration) vendorName() string {
	if in.vendor != nil {
		return in.vendor.Name
	}
	name, _ := in.names()
	return name
}

// waiting says what the vendor has not done yet, or nothing.
func (in *integration) waiting() string {
	vendor := in.vendorName()
	accounts, services := len(in.accounts.order), len(in.services.order)
	switch {
	case in.credentialsKind():
		return "The platform would now fetch accounts and services from " + vendor + " with the credentials it was given. This sandbox calls nobody, so there are none."
	case in.status == Inactive && accounts+services > 0:
		return fmt.Sprintf("%s has posted %s and %s, but has not yet said that it is ready to be mapped.",
			vendor, several(accounts, "account"), several(services, "service"))
	case accounts == 0:
		return vendor + " has not posted any accounts yet."
	case services == 0:
		return vendor + " has not posted any services yet."
	default:
		return ""
	}
}

// several is a number of things as people say it.
func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (s *Sandbox) showPage(w http.ResponseWriter, name string, p *wizardPage, m *message) {
	if m != nil {
		s.showMessage(w, m)
		return
	}
	render(w, http.StatusOK, name, p)
}

func (s *Sandbox) showMessage(w http.ResponseWriter, m *message) {
	render(w, m.Status, "message", m)
}

// render sends a page. Nobody else may frame it, keep it or be told its address.
func render(w http.ResponseWriter, status int, name string, data any) {
	var text bytes.Buffer
	if err := pages[name].ExecuteTemplate(&text, "page", data); err != nil {
		problem(w, http.StatusInternalServerError, "render the page: "+err.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", strings.Join([]string{
		"default-src 'none'", "style-src 'unsafe-inline'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'",
	}, "; "))
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = text.WriteTo(w) // who is gone needs no page
}
