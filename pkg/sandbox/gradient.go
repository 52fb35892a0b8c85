package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// gradientHeader is the header of the token in the Gradient dialect.
const gradientHeader = "GRADIENT-TOKEN"

// The statuses of the Gradient dialect; their case matters.
const (
	gradientInactive = "inactive"
	gradientPending  = "pending"
	gradientActive   = "active"
)

// gradientCredentials is only asked when the header is there.
func gradientCredentials(h http.Header) (credentials string, denied *answer) {
	credentials, why := decodeToken(h.Get(gradientHeader))
	if why != "" {
		return "", &answer{status: http.StatusUnauthorized, message: why}
	}
	return credentials, nil
}

// routeGradient sets the operation, the ids of the path and the query's wishes.
func routeGradient(c *call, r *http.Request, path string) *answer {
	// Split before unescaping: %2F belongs to the id, / ends it.
	segments := strings.Split(path, "/")
	var operations map[string]Operation
	switch {
	case path == "":
		operations = map[string]Operation{http.MethodGet: OperationVendor}
	case path == "organization":
		operations = map[string]Operation{http.MethodGet: OperationOrganization}
	case path == "organization/accounts":
		operations = map[string]Operation{http.MethodGet: OperationList, http.MethodPost: OperationAccounts}
	case path == "organization/services":
		operations = map[string]Operation{http.MethodPost: OperationServices}
	case fitsAll(segments, "organization", "accounts", "*"):
		operations = map[string]Operation{http.MethodPatch: OperationUpdate}
	case fitsAll(segments, "organization", "status", "*"):
		operations = map[string]Operation{http.MethodPatch: OperationStatus}
	case fitsAll(segments, "service", "*", "count"):
		operations = map[string]Operation{http.MethodPost: OperationCount}
	}
	if refused := c.choose(r.Method, BasePath+"/"+path, operations); refused != nil {
		return refused
	}
	switch c.operation {
	case OperationUpdate:
		return unescape("the account's id", segments[2], &c.account)
	case OperationStatus:
		return c.readStatus(segments[2])
	case OperationList:
		return queryFlag(r.URL.Query(), "returnUnmapped", &c.unmappedToo, true)
	case OperationCount:
		if refused := unescape("serviceId", segments[1], &c.service); refused != nil {
			return refused
		}
		return queryFlag(r.URL.Query(), "no_build", &c.noBuild, false)
	default: // no more in the path
		return nil
	}
}

func fitsAll(segments []string, patterns ...string) bool {
	return slices.EqualFunc(patterns, segments, fits)
}

// readStatus translates the wish. To set pending is what MSPCentric calls to ask for the
// mapping, and is called so on the tape of either.
func (c *call) readStatus(segment string) *answer {
	switch segment {
	case gradientInactive:
		c.status = Inactive
	case gradientPending:
		c.operation, c.status = OperationMapping, Mapping
	case gradientActive:
		c.status = Connected
	default:
		a := refuse(http.StatusBadRequest, "status %.64q: want %s, %s or %s, in lower case",
			segment, gradientInactive, gradientPending, gradientActive)
		return &a
	}
	return nil
}

func queryFlag(q url.Values, name string, flag *bool, otherwise bool) *answer {
	switch text := q.Get(name); {
	case !q.Has(name):
		*flag = otherwise
	case text == "true" || text == "false":
		*flag = text == "true"
	default:
		a := refuse(http.StatusBadRequest, "query %s=%.64q: want true or false", name, text)
		return &a
	}
	return nil
}

func parseGradient(c *call, body []byte) {
	switch c.operation {
	case OperationAccounts, OperationServices:
		c.parseItems(body)
	case OperationUpdate, OperationCount:
		f, err := parseFields(body)
		if err != nil {
			c.refuse("%v", err)
			return
		}
		if c.operation == OperationCount {
			c.account = f.text("accountId", true)
			c.value = f.number("unitCount")
		} else {
			c.update = itemUpdate{f.optional("name", true), f.optional("description", false), f.boolean("isActive")}
			if c.update == (itemUpdate{}) {
				f.wrong = append(f.wrong, "want name, description or isActive")
			}
		}
		c.refuseWrong(f)
	default: // the others have no body, or one that nobody reads
	}
}

// parseItems reads one object, or an array of them. What is wrong in an array says where.
func (c *call) parseItems(body []byte) {
	objects, isArray := []json.RawMessage{body}, bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("["))
	if isArray {
		if err := json.Unmarshal(body, &objects); err != nil {
			c.refuse("the body is not JSON: %v", err)
			return
		}
	}
	all := &fields{}
	seen := map[string]bool{}
	for i, object := range objects {
		where := ""
		if isArray {
			where = fmt.Sprintf("[%d]: ", i)
		}
		f, err := parseFields(object)
		if err != nil {
			all.wrong = append(all.wrong, where+err.Error())
			continue
		}
		it := item{id: f.text("id", true), name: f.text("name", true), note: f.text("description", false)}
		if it.id != "" && seen[it.id] {
			f.wrong = append(f.wrong, fmt.Sprintf("id %q is there already", it.id))
		}
		seen[it.id] = true
		for _, wrong := range f.wrong {
			all.wrong = append(all.wrong, where+wrong)
		}
		c.posted = append(c.posted, it)
	}
	if len(objects) == 0 {
		all.wrong = append(all.wrong, "the array is empty; want at least one object")
	}
	c.nameItems()
	c.refuseWrong(all)
}

// nameItems puts what is posted where the tape and the fault plan look for it.
func (c *call) nameItems() {
	switch {
	case len(c.posted) > 1:
		for _, it := range c.posted {
			c.batch = append(c.batch, it.id)
		}
	case len(c.posted) == 1 && c.operation == OperationAccounts:
		c.account = c.posted[0].id
	case len(c.posted) == 1:
		c.service = c.posted[0].id
	}
}

// property is an account or a service as the answers to a change show it.
type property struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// listedAccount is an account as the list shows it.
type listedAccount struct {
	property
	IsMapped bool `json:"isMapped"`
	// MappingID is null while there is no mapping.
	MappingID *string `json:"mappingId"`
}

// sku is a service as the vendor shows it. Its other id is the platform's own: a client that
// takes it for the vendor's posts counts for what nobody knows.
type sku struct {
	OldID string `json:"_id"`
	property
	Category    string `json:"category"`
	Subcategory string `json:"subcategory"`
}

type gradientVendor struct {
	OldID          string `json:"_id"`
	ID             string `json:"id"`
	Name           string `json:"name"`
	Description    string `json:"description"`
	OrganizationID string `json:"organizationId"`
	SKUs           []sku  `json:"skus"`
}

type gradientOrganization struct {
	OrganizationID string `json:"organizationId"`
	Name           string `json:"name"`
	VendorID       string `json:"vendorId"`
	VendorName     string `json:"vendorName"`
	IntegrationID  string `json:"integrationId"`
	Status         string `json:"status"`
	// LastSyncedAt is when the last count was accepted, null before the first.
	LastSyncedAt *time.Time `json:"lastSyncedAt"`
}

func (it *item) property() property { return property{it.id, it.name, it.note} }

func (in *integration) names() (vendorName, organizationName string) { return cutName(in.name) }

// cutName cuts vendor/organization; a name without a slash serves for both.
func cutName(name string) (vendorName, organizationName string) {
	vendorName, organizationName, ok := strings.Cut(name, "/")
	if !ok {
		organizationName = vendorName
	}
	return vendorName, organizationName
}

// The ids that the platform gave to the vendor and the organization.
func (in *integration) organizationID() string { return "organization-" + in.id }
func (in *integration) vendorID() string {
	if in.vendor != nil {
		return in.vendor.ID
	}
	name, _ := in.names()
	return "vendor-" + name
}

// showVendor is GET of the base path.
func (in *integration) showVendor() answer {
	name, _ := in.names()
	v := gradientVendor{OldID: in.vendorID(), ID: in.vendorID(), Name: name, OrganizationID: in.organizationID(), SKUs: []sku{}}
	for _, it := range in.services.order {
		v.SKUs = append(v.SKUs, sku{OldID: "sku-" + it.id, property: it.property(), Category: "other", Subcategory: "other"})
	}
	return answer{status: http.StatusOK, message: "vendor", data: v}
}

// showOrganization is GET /organization: the one answer without an envelope.
func (in *integration) showOrganization() answer {
	vendorName, name := in.names()
	o := gradientOrganization{
		OrganizationID: in.organizationID(), Name: name, VendorID: in.vendorID(), VendorName: vendorName,
		IntegrationID: in.id, Status: in.dialect.statusName(in.status),
	}
	if !in.synced.IsZero() {
		at := in.synced.UTC()
		o.LastSyncedAt = &at
	}
	return answer{status: http.StatusOK, message: "organization", bare: o}
}

// listAccounts is GET /organization/accounts.
func (in *integration) listAccounts(unmappedToo bool) answer {
	list := []listedAccount{}
	for i, it := range in.accounts.order {
		if !it.mapped && !unmappedToo {
			continue
		}
		a := listedAccount{property: it.property(), IsMapped: it.mapped}
		if it.mapped {
			id := fmt.Sprintf("mapping-%s-%d-%d", in.id, in.epoch, i+1)
			a.MappingID = &id
		}
		list = append(list, a)
	}
	return answer{status: http.StatusOK, message: fmt.Sprintf("%d accounts", len(list)), bare: list}
}

// itemUpdate changes what is not nil.
type itemUpdate struct {
	name, description *string
	active            *bool
}

// updateAccount is PATCH /organization/accounts/{id}.
func (in *integration) updateAccount(id string, u itemUpdate) answer {
	it := in.accounts.byID[id]
	if it == nil {
		return refuse(http.StatusNotFound, "No account found with id: %s", id)
	}
	if u.name != nil {
		it.name = *u.name
	}
	if u.description != nil {
		it.note = *u.description
	}
	if u.active != nil {
		it.inactive = !*u.active
	}
	return answer{status: http.StatusOK, message: "account updated", bare: it.property()}
}

// set is PATCH /organization/status/{status}: the platform takes the vendor's word for it,
// and an integration that is active already becomes pending when the vendor says so. Accounts
// and mappings stay.
func (in *integration) set(status Status, now time.Time) answer {
	if status == Mapping && (in.status == Pending || in.status == Connected) {
		status = Pending // the human is through already
	}
	in.status = status
	if status == Inactive {
		in.visit = time.Time{}
	}
	in.callHuman(now)
	return in.tellStatus()
}
