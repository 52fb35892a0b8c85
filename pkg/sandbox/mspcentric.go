package sandbox

import (
	"net/http"
	"strings"
)

// bearer returns the decoded token, or a 401 that says why there is none.
func bearer(h http.Header) (credentials string, denied *answer) {
	deny := func(why string) (string, *answer) {
		return "", &answer{status: http.StatusUnauthorized, message: why, header: [2]string{"WWW-Authenticate", "Bearer"}}
	}
	value := h.Get("Authorization")
	if value == "" {
		return deny("the Authorization header is missing (in the Gradient dialect: " + gradientHeader + ")")
	}
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return deny(`the Authorization header does not begin with "Bearer "`)
	}
	credentials, why := decodeToken(token)
	if why != "" {
		return deny(why)
	}
	return credentials, nil
}

// routeMSPCentric sets the operation and, for counts, the service.
func routeMSPCentric(c *call, r *http.Request, path string) *answer {
	// Split before unescaping: %2F belongs to the id, / ends it.
	segments := strings.Split(path, "/")
	var operations map[string]Operation
	switch {
	case path == "organization/accounts":
		operations = map[string]Operation{http.MethodPost: OperationAccounts}
	case path == "organization/services":
		operations = map[string]Operation{http.MethodPost: OperationServices}
	case path == "status/mapping":
		operations = map[string]Operation{http.MethodPatch: OperationMapping}
	case len(segments) == 3 && segments[0] == "service" && segments[2] == "count":
		operations = map[string]Operation{http.MethodPost: OperationCount}
	}
	if refused := c.choose(r.Method, BasePath+"/"+path, operations); refused != nil {
		return refused
	}
	if c.operation == OperationCount {
		return unescape("serviceId", segments[1], &c.service)
	}
	return nil
}

func parseMSPCentric(c *call, body []byte) {
	if c.operation == OperationMapping { // its body is ignored
		return
	}
	f, err := parseFields(body)
	if err != nil {
		c.refuse("%v", err)
		return
	}
	switch c.operation {
	case OperationAccounts:
		c.account = f.text("vendorAccountId", true)
		c.posted = []item{{id: c.account, name: f.text("name", true), note: f.text("externalId", false)}}
	case OperationServices:
		c.service = f.text("id", true)
		c.posted = []item{{id: c.service, name: f.text("name", true), note: f.text("description", false)}}
	case OperationCount:
		c.account = f.text("accountId", true)
		c.value = f.number("unitCount")
	default: // no other operation has fields
	}
	c.refuseWrong(f)
}
