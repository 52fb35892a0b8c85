package sandbox

import (
	"fmt"
	"net/http"
	"net/mail"
	"slices"
	"strings"
)

// user is somebody at an organization who may use the platform.
type user struct {
	id                  string // the vendor's own
	email               string // empty for who came with an integration and not over the OEM-API
	firstName, lastName string
}

// name is what people are greeted by.
func (u *user) name() string {
	if name := strings.TrimSpace(u.firstName + " " + u.lastName); name != "" {
		return name
	}
	return u.id
}

// domain of an e-mail address, by which users find their organization.
func domain(email string) string {
	return strings.ToLower(email[strings.LastIndexByte(email, '@')+1:])
}

// email reads a field that must be an e-mail address and nothing else.
func (f *fields) email(name string) string {
	text := f.text(name, true)
	if text == "" {
		return ""
	}
	if parsed, err := mail.ParseAddress(text); err != nil || parsed.Address != text {
		f.wrong = append(f.wrong, f.prefix+name+` must be an e-mail address such as "ann@msp.example"`)
		return ""
	}
	return text
}

// person reads the fields of a user.
func (f *fields) person() user {
	return user{
		email: f.email("email"), firstName: f.text("firstName", true), lastName: f.text("lastName", true),
		id: f.text("vendorUserId", true),
	}
}

func (o *organization) userBy(fits func(*user) bool) *user {
	if i := slices.IndexFunc(o.users, fits); i >= 0 {
		return o.users[i]
	}
	return nil
}

func (o *organization) userOf(id string) *user {
	return o.userBy(func(u *user) bool { return u.id == id })
}

// userElsewhere says which other organization has a user with the e-mail address.
func (s *Sandbox) userElsewhere(email string, here *organization) *organization {
	for _, o := range s.organizationList {
		if o != here && o.userBy(func(u *user) bool { return strings.EqualFold(u.email, email) }) != nil {
			return o
		}
	}
	return nil
}

// addUser is POST /user. The same user again gets the same answer: who lost the answer gets
// the organization's token by asking once more.
func (s *Sandbox) addUser(c *call) answer {
	wish := c.oem.user
	o, refused := s.organizationFor(&c.oem)
	if refused != nil {
		return *refused
	}
	c.organization = o
	if other := s.userElsewhere(wish.email, o); other != nil {
		return refuse(http.StatusConflict, "data.email belongs to a user of organization %q", other.name)
	}
	known := o.userOf(wish.id)
	switch {
	case known != nil && !strings.EqualFold(known.email, wish.email):
		return refuse(http.StatusConflict, "data.vendorUserId %q is a user with another e-mail address", wish.id)
	case known != nil:
		return o.welcome(fmt.Sprintf("user %q is in organization %q", wish.id, o.name))
	case o.userBy(func(u *user) bool { return strings.EqualFold(u.email, wish.email) }) != nil:
		return refuse(http.StatusConflict, "data.email is that of a user with another vendorUserId")
	}
	o.users = append(o.users, &wish)
	return o.welcome(fmt.Sprintf("user %q added to organization %q", wish.id, o.name))
}

// organizationFor finds the organization that a user is to join.
func (s *Sandbox) organizationFor(r *oemRequest) (*organization, *answer) {
	if id := r.vendorOrganizationID; id != "" {
		if o := s.organizations[id]; o != nil && o.name == id {
			return o, nil
		}
		a := refuse(http.StatusNotFound, "data.vendorOrganizationId %q is that of no organization", id)
		return nil, &a
	}
	var found []*organization
	for _, o := range s.organizationList {
		if o.userBy(func(u *user) bool { return domain(u.email) == domain(r.user.email) }) != nil {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		a := refuse(http.StatusNotFound, "no organization has users with e-mail addresses of %q; name it by data.vendorOrganizationId", domain(r.user.email))
		return nil, &a
	default:
		a := refuse(http.StatusConflict, "%d organizations have users with e-mail addresses of %q; name one by data.vendorOrganizationId",
			len(found), domain(r.user.email))
		return nil, &a
	}
}

// removeUser is DELETE /user. Links and sessions of the user end with it.
func (s *Sandbox) removeUser(c *call) answer {
	o, wish := c.organization, c.oem.user
	u := o.userOf(wish.id)
	if u == nil || !strings.EqualFold(u.email, wish.email) {
		return refuse(http.StatusNotFound, "organization %q has no user with that vendorUserId and e-mail address", o.name)
	}
	o.users = slices.DeleteFunc(o.users, func(other *user) bool { return other == u })
	s.sessions = slices.DeleteFunc(s.sessions, func(v *session) bool { return v.user == u })
	return answer{status: http.StatusCreated, message: fmt.Sprintf("user %q removed from organization %q", u.id, o.name)}
}
