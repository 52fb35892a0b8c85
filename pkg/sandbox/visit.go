package sandbox

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"time"
)

// visitCookie carries a visit. It is HttpOnly and goes with links from elsewhere, as a magic link
// is one, but not with forms from elsewhere.
const visitCookie = "sandbox_visit"

// askForLink is what somebody without a visit can do.
const askForLink = "Ask your vendor for a new link. Who runs usagebridge there gets one from"

// openLink is a magic link: it works once. What only looks at it, such as a preview that asks for
// the head, does not use it up.
func (s *Sandbox) openLink(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	cookie, m := s.enter(r.PathValue("token"), cookieOf(r))
	if m != nil {
		s.showMessage(w, m)
		return
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // it is Secure wherever the sandbox is reached by TLS
		Name: visitCookie, Value: cookie, Path: WizardPath, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || strings.HasPrefix(s.config.PublicURL, "https:"),
	})
	http.Redirect(w, r, WizardPath, http.StatusSeeOther)
}

// enter begins the visit that a link leads to, or says why not.
func (s *Sandbox) enter(token, cookie string) (string, *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	i := slices.IndexFunc(s.sessions, func(v *session) bool { return same(v.token, token) })
	if i < 0 {
		return "", &message{
			Status: http.StatusNotFound, Kind: "unknown", Title: "This link is unknown",
			Text: "It may be cut off, very old, or of somebody who has no access any more.", Command: askForLink,
		}
	}
	v := s.sessions[i]
	switch {
	case !v.opened.IsZero():
		m := &message{
			Status: http.StatusGone, Kind: "used", Title: "This link was used already",
			Text:    "A link works once, so that nobody who finds it later gets in. It was opened at " + onPage(v.opened) + ".",
			Command: askForLink,
		}
		if now.Before(v.ends()) && same(v.cookie, cookie) {
			m.Continue = WizardPath
		}
		return "", m
	case !now.Before(v.expires):
		return "", &message{
			Status: http.StatusGone, Kind: "expired", Title: "This link has expired",
			Text:    "A link works for " + lifetime(s.config.LinkLifetime) + ". This one ended at " + onPage(v.expires) + ".",
			Command: askForLink,
		}
	}
	v.opened, v.cookie, v.csrf = now, rand.Text(), rand.Text()
	return v.cookie, nil
}

// same compares secrets without telling by the time it takes how far they agree.
func same(a, b string) bool { return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func cookieOf(r *http.Request) string {
	if c, err := r.Cookie(visitCookie); err == nil {
		return c.Value
	}
	return ""
}

// visitOf returns the visit of a request; a message when there is none, or none any more.
func (s *Sandbox) visitOf(r *http.Request) (*session, *message) {
	cookie := cookieOf(r)
	i := slices.IndexFunc(s.sessions, func(v *session) bool { return same(v.cookie, cookie) })
	if i < 0 {
		return nil, &message{
			Status: http.StatusUnauthorized, Kind: "signed-out", Title: "You are not signed in",
			Text: "The wizard is entered by a link that your vendor gives you.", Command: askForLink,
		}
	}
	v := s.sessions[i]
	if !s.now().Before(v.ends()) {
		return nil, &message{
			Status: http.StatusUnauthorized, Kind: "ended", Title: "Your visit has ended",
			Text: "A visit lasts " + lifetime(visitLifetime) + ". What you saved is kept.", Command: askForLink,
		}
	}
	return v, nil
}

// leave ends a visit.
func (s *Sandbox) leave(w http.ResponseWriter, r *http.Request) {
	m := &message{
		Status: http.StatusOK, Kind: "left", Title: "You have left the wizard",
		Text: "What you saved is kept.", Command: "To come back, ask your vendor for a new link. Who runs usagebridge there gets one from",
	}
	if refused := s.endVisit(w, r); refused != nil {
		m = refused
	}
	s.showMessage(w, m)
}

func (s *Sandbox) endVisit(w http.ResponseWriter, r *http.Request) *message {
	if m := s.readForm(w, r); m != nil {
		return m
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, m := s.visitOf(r)
	if m == nil {
		m = v.forged(r)
	}
	if m == nil {
		v.cookie, v.csrf = "", ""
	}
	return m
}

// readForm reads the fields of a form, at most Config.BodyLimit of them.
func (s *Sandbox) readForm(w http.ResponseWriter, r *http.Request) *message {
	r.Body = http.MaxBytesReader(w, r.Body, s.config.BodyLimit)
	if err := r.ParseForm(); err != nil {
		return &message{
			Status: http.StatusBadRequest, Kind: "unreadable", Title: "This form could not be read",
			Text: "It is broken off or too large. Nothing was changed.", Continue: WizardPath,
		}
	}
	return nil
}

// forged refuses a form that does not come from a page of this visit.
func (v *session) forged(r *http.Request) *message {
	if same(v.csrf, r.PostForm.Get("csrf")) {
		return nil
	}
	return &message{
		Status: http.StatusForbidden, Kind: "forged", Title: "This form is not from your visit",
		Text:     "It comes from another site, or from a page of an earlier visit. Nothing was changed.",
		Continue: WizardPath,
	}
}

// onPage is a moment as pages show it.
func onPage(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// lifetime is a duration as people say it.
func lifetime(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return several(int(d/time.Hour), "hour")
	case d >= time.Minute && d%time.Minute == 0:
		return several(int(d/time.Minute), "minute")
	default:
		return d.String()
	}
}
