package sandbox

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// oemRequest is what a call to the OEM-API asks for, beside who asks.
type oemRequest struct {
	base                 string // the address at which the client reaches this server
	name                 string // of an organization to be made
	vendorOrganizationID string
	user                 user
	external             bool // the kind of an integration to be made
	organizationID       string
	vendorID             string
	integrationID        string
	credentials          map[string]string // by label
}

// vendorField is where the vendor of an integration stands: the two kinds differ.
func (r *oemRequest) vendorField() string {
	if r.external {
		return "vendorId"
	}
	return "data.vendorId"
}

// oemOperations of a path below OEMBasePath.
func oemOperations(path string) map[string]Operation {
	switch path {
	case "organization":
		return map[string]Operation{http.MethodPost: OperationOEMOrganization}
	case "user":
		return map[string]Operation{http.MethodPost: OperationOEMUser, http.MethodDelete: OperationOEMUserRemoval}
	case "session":
		return map[string]Operation{http.MethodPost: OperationOEMSession}
	case "vendor":
		return map[string]Operation{http.MethodPost: OperationOEMVendors}
	case "integration":
		return map[string]Operation{http.MethodPost: OperationOEMIntegration}
	case "integration/list":
		return map[string]Operation{http.MethodPost: OperationOEMIntegrations}
	}
	if segments := strings.Split(path, "/"); len(segments) == 2 && segments[0] == "integration" {
		return map[string]Operation{http.MethodPatch: OperationOEMIntegrationUpdate}
	}
	return nil
}

// ofOrganization says whether a call is about one organization and carries its token.
func (o Operation) ofOrganization() bool {
	return o != OperationOEMOrganization && o != OperationOEMUser && o != OperationOEMVendors
}

// routeOEM sets the operation and, for an update, the integration.
func routeOEM(c *call, r *http.Request, path string) *answer {
	if refused := c.choose(r.Method, OEMBasePath+"/"+path, oemOperations(path)); refused != nil {
		return refused
	}
	if c.operation == OperationOEMIntegrationUpdate {
		return unescape("integrationId", strings.TrimPrefix(path, "integration/"), &c.oem.integrationID)
	}
	return nil
}

// parse reads what the operation has beside who asks, and refuses what it does not have.
func (r *oemRequest) parse(o Operation, f *fields) {
	known := []string{"clientId", "clientSecret", "grantType", "scope"}
	if o.ofOrganization() {
		known = append(known, "organizationOemToken")
	}
	switch o {
	case OperationOEMVendors, OperationOEMIntegrations: // nothing more
	case OperationOEMIntegration:
		known = append(known, "integrationType", "organizationId", "vendorId", "data")
		r.parseIntegration(f)
	default:
		known = append(known, "data")
		if data := f.object("data"); data != nil {
			r.parseData(o, data)
			f.wrong = append(f.wrong, data.wrong...)
		}
	}
	f.only(known...)
}

func (r *oemRequest) parseData(o Operation, data *fields) {
	person := []string{"email", "firstName", "lastName", "vendorUserId", "vendorOrganizationId"}
	switch o {
	case OperationOEMOrganization:
		r.name = data.text("name", true)
		r.parsePerson(data)
		data.only(append(person, "name")...)
	case OperationOEMUser:
		r.parsePerson(data)
		data.only(person...)
	case OperationOEMUserRemoval:
		r.user = user{id: data.text("vendorUserId", true), email: data.email("email")}
		data.only("vendorUserId", "email")
	case OperationOEMSession:
		r.user.id = data.text("vendorUserId", true)
		data.only("vendorUserId")
	case OperationOEMIntegrationUpdate:
		r.parseCredentials(data, true)
		data.only("integrationCredentials")
	default: // no other operation has data
	}
}

func (r *oemRequest) parsePerson(data *fields) {
	r.user = data.person()
	if id := data.optional("vendorOrganizationId", true); id != nil {
		r.vendorOrganizationID = *id
	}
}

// parseIntegration reads either kind of POST /integration: the documentation has the fields of
// the external kind at the top, those of the other kind in data.
func (r *oemRequest) parseIntegration(f *fields) {
	if kind := f.optional("integrationType", true); kind != nil {
		r.external = *kind == string(ExternalVendor)
		if !r.external && *kind != string(CredentialsVendor) {
			f.wrong = append(f.wrong, `integrationType must be "external" or "credentials"`)
			return
		}
	}
	if r.external {
		r.organizationID, r.vendorID = f.text("organizationId", true), f.text("vendorId", true)
		if _, there := f.raw["data"]; there {
			if data := f.object("data"); data != nil {
				r.parseCredentials(data, false)
				data.only("integrationCredentials")
				f.wrong = append(f.wrong, data.wrong...)
			}
		}
		return
	}
	if data := f.object("data"); data != nil {
		r.vendorID = data.text("vendorId", true)
		r.parseCredentials(data, true)
		data.only("vendorId", "integrationCredentials")
		f.wrong = append(f.wrong, data.wrong...)
	}
	for _, name := range []string{"organizationId", "vendorId"} {
		if _, there := f.raw[name]; there {
			f.wrong = append(f.wrong, name+` belongs to integrationType "external" alone`)
		}
	}
}

func (r *oemRequest) parseCredentials(data *fields, required bool) {
	if _, there := data.raw["integrationCredentials"]; !there && !required {
		return
	}
	labels := data.object("integrationCredentials")
	if labels == nil {
		return
	}
	if len(labels.raw) == 0 && required {
		data.wrong = append(data.wrong, "data.integrationCredentials must have a value under at least one label")
	}
	r.credentials = labels.texts()
	data.wrong = append(data.wrong, labels.wrong...)
}

// applyOEM is the OEM-API without faults.
func (s *Sandbox) applyOEM(c *call, now time.Time) answer {
	if c.refused != nil {
		return *c.refused
	}
	switch c.operation {
	case OperationOEMOrganization:
		return s.createOrganization(c)
	case OperationOEMUser:
		return s.addUser(c)
	case OperationOEMUserRemoval:
		return s.removeUser(c)
	case OperationOEMSession:
		return s.createSession(c, now)
	case OperationOEMVendors:
		return s.listVendors()
	case OperationOEMIntegration:
		return s.createIntegration(c, now)
	case OperationOEMIntegrationUpdate:
		return s.updateIntegration(c)
	case OperationOEMIntegrations:
		return c.organization.listIntegrations(s.oem.Statuses, now)
	default:
		panic("sandbox: operation " + strconv.Quote(string(c.operation)) + " was neither refused nor routed")
	}
}
