package sandbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// WizardPath is where the wizard is; a magic link leads below it.
	WizardPath = "/wizard"

	defaultLinkLifetime = 10 * time.Minute
	// visitLifetime is how long somebody may work after the link was opened.
	visitLifetime = 8 * time.Hour
	// sessionMemory is how long the page of an ended link can say what it was.
	sessionMemory = 24 * time.Hour
)

// session is a magic link and, once that was opened, a visit. Sandbox.mu guards it.
type session struct {
	token        string // in the link
	organization *organization
	user         *user
	expires      time.Time // of the link
	opened       time.Time // zero: not yet
	cookie       string    // of the visit
	csrf         string    // in every form of the visit
	notice       notice    // for the next page of the visit
}

// ends is when a visit is over.
func (v *session) ends() time.Time { return v.opened.Add(visitLifetime) }

// createSession is POST /session. From then on a person maps: an automatic one would have done
// it all before the person came.
func (s *Sandbox) createSession(c *call, now time.Time) answer {
	o := c.organization
	u := o.userOf(c.oem.user.id)
	if u == nil {
		return refuse(http.StatusNotFound, "organization %q has no user with data.vendorUserId %q", o.name, c.oem.user.id)
	}
	v := s.openSession(o, u, now)
	a := answer{status: http.StatusCreated, message: fmt.Sprintf("session of user %q; its link is good once, for %s", u.id, s.config.LinkLifetime)}
	a.bare = struct {
		oemSaid
		SessionToken string `json:"sessionToken"`
		URL          string `json:"url"`
	}{oemSaid{a.status, a.message}, v.token, c.oem.base + v.path()}
	return a
}

func (s *Sandbox) openSession(o *organization, u *user, now time.Time) *session {
	s.sessions = slices.DeleteFunc(s.sessions, func(v *session) bool {
		return now.Sub(v.expires) > sessionMemory && (v.opened.IsZero() || now.Sub(v.ends()) > sessionMemory)
	})
	v := &session{token: rand.Text(), organization: o, user: u, expires: now.Add(s.config.LinkLifetime)}
	s.sessions = append(s.sessions, v)
	o.attended = true
	for _, in := range o.integrations {
		in.auto, in.visit = false, time.Time{}
	}
	return v
}

// path of the magic link.
func (v *session) path() string { return WizardPath + "/open/" + v.token }

func validatePublicURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return errors.New("public URL: want scheme and host alone, such as http://127.0.0.1:9090")
	}
	return nil
}

// baseURL is how the client of a request reaches this server.
func (s *Sandbox) baseURL(r *http.Request) string {
	switch {
	case s.config.PublicURL != "":
		return strings.TrimSuffix(s.config.PublicURL, "/")
	case r.TLS != nil:
		return "https://" + r.Host
	default:
		return "http://" + r.Host
	}
}
