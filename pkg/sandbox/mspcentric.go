package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// readMSPCentric turns a request in the MSPCentric dialect into a call. It judges nothing
// but form; path is the escaped path below BasePath. Another dialect is another such function.
func (s *Sandbox) readMSPCentric(w http.ResponseWriter, r *http.Request, path string) call {
	c := call{operation: OperationUnknown}
	c.credentials, c.denied = bearer(r.Header)
	// Read to the end in any case: net/http notices a client that goes away only after that.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.config.BodyLimit))
	if c.refused = c.route(r.Method, path); c.refused != nil {
		return c
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		a := refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
		c.refused = &a
	case err != nil:
		a := refuse(http.StatusBadRequest, "the body could not be read to its end")
		c.refused = &a
	case c.operation != OperationMapping: // its body is ignored
		c.parse(body)
	}
	return c
}

// bearer returns the decoded token, or a 401 that says why there is none.
func bearer(h http.Header) (credentials string, denied *answer) {
	deny := func(why string) (string, *answer) {
		return "", &answer{status: http.StatusUnauthorized, message: why, header: [2]string{"WWW-Authenticate", "Bearer"}}
	}
	value := h.Get("Authorization")
	if value == "" {
		return deny("the Authorization header is missing")
	}
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return deny(`the Authorization header does not begin with "Bearer "`)
	}
	if strings.Contains(token, ":") {
		return deny("the token is vendorToken:partnerToken in plain text; send base64(vendorToken:partnerToken)")
	}
	text, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return deny("the token is not base64 (standard alphabet with padding) of vendorToken:partnerToken")
	}
	if !strings.Contains(string(text), ":") {
		return deny("the token is base64, but not of vendorToken:partnerToken: the colon is missing")
	}
	return string(text), nil
}

// route sets the operation and, for counts, the service.
func (c *call) route(method, path string) *answer {
	// Split before unescaping: %2F belongs to the id, / ends it.
	segments := strings.Split(path, "/")
	want := http.MethodPost
	switch {
	case path == "organization/accounts":
		c.operation = OperationAccounts
	case path == "organization/services":
		c.operation = OperationServices
	case path == "status/mapping":
		c.operation, want = OperationMapping, http.MethodPatch
	case len(segments) == 3 && segments[0] == "service" && segments[2] == "count":
		c.operation = OperationCount
	default:
		a := refuse(http.StatusNotFound, "Cannot %s %s/%s", method, BasePath, path)
		return &a
	}
	if method != want {
		a := refuse(http.StatusMethodNotAllowed, "Cannot %s %s/%s: want %s", method, BasePath, path, want)
		a.header = [2]string{"Allow", want}
		c.operation = OperationUnknown
		return &a
	}
	if c.operation == OperationCount {
		id, err := url.PathUnescape(segments[1])
		if err != nil || id == "" || !utf8.ValidString(id) {
			a := refuse(http.StatusBadRequest, "serviceId must be a non-empty id in UTF-8, escaped as one path segment")
			return &a
		}
		c.service = id
	}
	return nil
}

// parse reads the fields of the operation; what is wrong with them goes to c.refused,
// what is right is kept for the tape and the fault plan.
func (c *call) parse(body []byte) {
	f, err := parseFields(body)
	if err != nil {
		a := refuse(http.StatusBadRequest, "%v", err)
		c.refused = &a
		return
	}
	switch c.operation {
	case OperationAccounts:
		c.account = f.text("vendorAccountId", true)
		c.posted = item{id: c.account, name: f.text("name", true), note: f.text("externalId", false)}
	case OperationServices:
		c.service = f.text("id", true)
		c.posted = item{id: c.service, name: f.text("name", true), note: f.text("description", false)}
	case OperationCount:
		c.account = f.text("accountId", true)
		c.value = f.number("unitCount")
	default: // no other operation has fields
	}
	if len(f.wrong) > 0 {
		a := refuse(http.StatusBadRequest, "%s", strings.Join(f.wrong, "; "))
		c.refused = &a
	}
}

// fields of a JSON object, names compared exactly: encoding/json would accept "accountID"
// for "accountId", and the partner need not.
type fields struct {
	raw   map[string]json.RawMessage
	wrong []string
}

func parseFields(body []byte) (*fields, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("the body is not UTF-8")
	}
	f := &fields{}
	var object *map[string]json.RawMessage // a pointer tells null from {}
	if err := json.Unmarshal(body, &object); err != nil || object == nil {
		if json.Valid(body) {
			return nil, errors.New("the body must be one JSON object")
		}
		return nil, fmt.Errorf("the body is not JSON: %w", err)
	}
	f.raw = *object
	return f, nil
}

func (f *fields) text(name string, required bool) string {
	raw, ok := f.raw[name]
	if !ok && !required {
		return ""
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil || (required && *s == "") {
		rule := "must be a string"
		if required {
			rule = "must be a non-empty string"
		}
		f.wrong = append(f.wrong, name+" "+rule)
		return ""
	}
	return *s
}

// number returns the exact text of a JSON number that is 0 or more. A number goes to the
// tape even when it is negative.
func (f *fields) number(name string) string {
	text := string(f.raw[name])
	if text == "" || !strings.ContainsRune("-0123456789", rune(text[0])) {
		f.wrong = append(f.wrong, name+" must be a JSON number")
		return ""
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(text), "e")
	if mantissa[0] == '-' && strings.ContainsAny(mantissa, "123456789") {
		f.wrong = append(f.wrong, name+" must not be negative")
	}
	return text
}
