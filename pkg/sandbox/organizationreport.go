package sandbox

// OrganizationReport is one organization. Its token is not in it.
type OrganizationReport struct {
	// Name is the vendor's id of the organization, or ID where the vendor gave none: the second
	// part of the names of its integrations.
	Name string `json:"name"`
	// ID is the partner's own.
	ID string `json:"organizationId"`
	// Title is what people read.
	Title string       `json:"title"`
	Users []UserReport `json:"users"`
	// Integrations are their names, in the order of creation.
	Integrations []string `json:"integrations"`
}

// UserReport is one user of an organization.
type UserReport struct {
	VendorUserID string `json:"vendorUserId"`
	Email        string `json:"email"`
	FirstName    string `json:"firstName"`
	LastName     string `json:"lastName"`
}

// Organizations describes all organizations, in the order of creation. Those of the Gradient
// dialect are none: that platform has no OEM-API.
func (s *Sandbox) Organizations() []OrganizationReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]OrganizationReport, len(s.organizationList))
	for i, o := range s.organizationList {
		all[i] = o.report()
	}
	return all
}

func (o *organization) report() OrganizationReport {
	out := OrganizationReport{
		Name: o.name, ID: o.id, Title: o.title,
		Users: make([]UserReport, len(o.users)), Integrations: make([]string, len(o.integrations)),
	}
	for i, u := range o.users {
		out.Users[i] = UserReport{u.id, u.email, u.firstName, u.lastName}
	}
	for i, in := range o.integrations {
		out.Integrations[i] = in.name
	}
	return out
}
