package sandbox

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
)

// OEMToken returns the permanent token of the organization that the integration belongs to.
// It returns [ErrUnknown] for an integration that does not exist, and for one of the Gradient
// dialect: that platform has no OEM-API.
func (s *Sandbox) OEMToken(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch in := s.byName[name]; {
	case in == nil:
		return "", fmt.Errorf("OEM token: %w integration %q", ErrUnknown, name)
	case in.organization == nil:
		return "", fmt.Errorf("OEM token of integration %q: %w: the %s dialect has no OEM-API", name, ErrUnknown, in.dialect)
	default:
		return in.organization.token, nil
	}
}

// organization is an MSP, and what its OEM token opens. Sandbox.mu guards it.
type organization struct {
	// id is the partner's own. name is the vendor's id of it, or the partner's where the vendor
	// gave none; integrations, tape and control API call it so. title is what people read.
	id, name, title string
	token           string
	users           []*user
	integrations    []*integration // of the MSPCentric dialect, in the order of creation
	attended        bool           // a person was sent a link: the automatic human stays away
	window          window
	psa             *books            // connected; nil: none yet
	books           map[string]*books // of every PSA that was ever connected, by its id
	approvals       []Approval        // oldest first
}

// newOrganization makes an organization whose name and token are free; an empty token is made up.
func (s *Sandbox) newOrganization(id, name, title, token string) *organization {
	o := &organization{id: id, name: name, title: title, token: cmp.Or(token, "oem-"+rand.Text()), books: map[string]*books{}}
	s.organizations[o.id], s.organizations[o.name] = o, o
	s.organizationList = append(s.organizationList, o)
	s.byOEMToken[o.token] = o
	return o
}

// newOrganizationID makes up the partner's id of an organization of that name.
func (s *Sandbox) newOrganizationID(name string) string {
	for {
		s.createdOrganizations++
		id := fmt.Sprintf("org-%d", s.createdOrganizations)
		if s.organizations[id] == nil && id != name {
			return id
		}
	}
}

// join puts a new integration into its organization, which exists from then on, and tells
// the integration the organization's token.
func (s *Sandbox) join(in *Integration, it *integration) error {
	if in.Dialect != MSPCentric {
		return nil
	}
	vendorName, name := it.names()
	o, owner := s.organizations[name], s.byOEMToken[in.OEMToken]
	switch {
	case o != nil && o.name != name:
		return fmt.Errorf("%w: %q is the partner's own id of organization %q", ErrConflict, name, o.name)
	case o != nil && in.OEMToken != "" && in.OEMToken != o.token:
		return fmt.Errorf("%w: organization %q has another OEM token", ErrConflict, name)
	case owner != o && owner != nil:
		return fmt.Errorf("%w: organization %q has the same OEM token", ErrConflict, owner.name)
	}
	if o == nil {
		o = s.newOrganization(s.newOrganizationID(name), name, name, in.OEMToken)
	}
	o.integrations = append(o.integrations, it)
	it.organization, in.OEMToken = o, o.token
	it.vendor = s.vendorBy(func(v *Vendor) bool { return v.Name == vendorName })
	it.auto = it.auto && !o.attended
	return nil
}

// changeOrganization looks at an organization, or changes it, as it is now.
func (s *Sandbox) changeOrganization(what, name string, do func(*organization) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.organizations[name]
	if o == nil {
		return fmt.Errorf("%s: %w organization %q", what, ErrUnknown, name)
	}
	now := s.now()
	for _, in := range o.integrations {
		in.settle(now)
	}
	if err := do(o); err != nil {
		return fmt.Errorf("%s of organization %q: %w", what, name, err)
	}
	return nil
}

// createOrganization is POST /organization.
func (s *Sandbox) createOrganization(c *call) answer {
	wish := &c.oem
	for _, o := range s.organizationList {
		if strings.EqualFold(o.title, wish.name) {
			return refuse(http.StatusConflict, "data.name is that of organization %q", o.name)
		}
	}
	if wish.vendorOrganizationID != "" && s.organizations[wish.vendorOrganizationID] != nil {
		return refuse(http.StatusConflict, "data.vendorOrganizationId %q is taken", wish.vendorOrganizationID)
	}
	if o := s.userElsewhere(wish.user.email, nil); o != nil {
		return refuse(http.StatusConflict, "data.email belongs to a user of organization %q", o.name)
	}
	id := s.newOrganizationID(wish.vendorOrganizationID)
	o := s.newOrganization(id, cmp.Or(wish.vendorOrganizationID, id), wish.name, "")
	owner := wish.user
	o.users = append(o.users, &owner)
	c.organization = o
	return o.welcome(fmt.Sprintf("organization %q created", o.name))
}

// welcome is the answer that carries the organization's token.
func (o *organization) welcome(message string) answer {
	a := answer{status: http.StatusCreated, message: message}
	a.bare = struct {
		oemSaid
		Token string `json:"organizationOemToken"`
	}{oemSaid{a.status, a.message}, o.token}
	return a
}

// oemTokens are the organizations' tokens as far as a configuration was read: what join
// would refuse one after the other is found before any of it exists.
type oemTokens struct {
	of    map[string]string // organization: token, empty when it is to be made up
	owner map[string]string // token: organization
}

func newOEMTokens() oemTokens { return oemTokens{map[string]string{}, map[string]string{}} }

func (t oemTokens) validate(in Integration) error {
	if in.Dialect == Gradient {
		return nil
	}
	_, name := cutName(in.Name)
	token, known := t.of[name]
	if !known {
		t.of[name] = in.OEMToken
	}
	if in.OEMToken == "" {
		return nil
	}
	if known && token != in.OEMToken {
		return fmt.Errorf("integration %q: an earlier one of organization %q has another OEM token or none", in.Name, name)
	}
	if owner, taken := t.owner[in.OEMToken]; taken && owner != name {
		return fmt.Errorf("integration %q: organization %q has the same OEM token", in.Name, owner)
	}
	t.owner[in.OEMToken] = name
	return nil
}
