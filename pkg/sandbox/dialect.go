package sandbox

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Dialect is a platform's variant of the Vendor-API: the header of the token, the paths,
// the shapes of the answers and the names of the statuses. All else is the same partner.
type Dialect string

const (
	// MSPCentric is the dialect of mspcentric.app, and of an Integration that names none.
	MSPCentric Dialect = "mspcentric"
	// Gradient is the dialect of Gradient MSP (Synthesize).
	Gradient Dialect = "gradient"
)

func (d Dialect) validate() error {
	if d == "" || d == MSPCentric || d == Gradient {
		return nil
	}
	return fmt.Errorf("dialect %q: want %q or %q", string(d), MSPCentric, Gradient)
}

// statusName is the dialect's word for a status. Gradient has three: its pending is both
// MSPCentric's mapping and MSPCentric's pending, its active is connected.
func (d Dialect) statusName(s Status) string {
	if d == Gradient {
		switch s {
		case Mapping, Pending:
			return gradientPending
		case Connected:
			return gradientActive
		default: // inactive is the same word
		}
	}
	return string(s)
}

// retryAfterForm is what a rate limit says when the configuration does not: Gradient's
// documentation promises a 429 and no header with it.
func (d Dialect) retryAfterForm() RetryAfterForm {
	if d == Gradient {
		return RetryAfterNone
	}
	return RetryAfterSeconds
}

// wire is how a dialect's requests are read. It judges nothing but form.
type wire struct {
	// tokenHeader as a person who has to change a client would write it.
	tokenHeader string
	credentials func(http.Header) (credentials string, denied *answer)
	// route sets the operation and the ids of the escaped path below BasePath.
	route func(c *call, r *http.Request, path string) *answer
	// parse reads the fields of the operation; what is wrong with them goes to c.refused,
	// what is right is kept for the tape and the fault plan.
	parse func(c *call, body []byte)
}

var wires = map[Dialect]wire{
	MSPCentric: {"Authorization: Bearer …", bearer, routeMSPCentric, parseMSPCentric},
	Gradient:   {gradientHeader + ": …", gradientCredentials, routeGradient, parseGradient},
}

// dialectOf goes by the header of the token: who the client is comes out of it later.
func dialectOf(h http.Header) Dialect {
	if h.Get(gradientHeader) != "" {
		return Gradient
	}
	return MSPCentric
}

// read turns a request into a call.
func (s *Sandbox) read(w http.ResponseWriter, r *http.Request, path string) call {
	c := call{operation: OperationUnknown, dialect: dialectOf(r.Header)}
	with := wires[c.dialect]
	c.credentials, c.denied = with.credentials(r.Header)
	body, unread := s.readBody(w, r)
	if c.refused = with.route(&c, r, path); c.refused != nil {
		return c
	}
	if c.refused = unread; c.refused == nil {
		with.parse(&c, body)
	}
	return c
}

// readBody reads the body whatever the rest of the request is: net/http notices a client
// that goes away only after that.
func (s *Sandbox) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *answer) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.config.BodyLimit))
	if err == nil {
		return body, nil
	}
	a := refuse(http.StatusBadRequest, "the body could not be read to its end")
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		a = refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	return nil, &a
}

// refuse makes the answer a 400: the request has the wrong form.
func (c *call) refuse(format string, args ...any) {
	a := refuse(http.StatusBadRequest, format, args...)
	c.refused = &a
}

// choose sets the operation that the method has on an escaped path.
func (c *call) choose(method, path string, operations map[string]Operation) *answer {
	if len(operations) == 0 {
		a := refuse(http.StatusNotFound, "Cannot %s %s", method, path)
		return &a
	}
	operation, ok := operations[method]
	if !ok {
		allowed := slices.Sorted(maps.Keys(operations))
		a := refuse(http.StatusMethodNotAllowed, "Cannot %s %s: want %s", method, path, strings.Join(allowed, " or "))
		a.header = [2]string{"Allow", strings.Join(allowed, ", ")}
		return &a
	}
	c.operation = operation
	return nil
}

// unescape reads an id from one segment of a path.
func unescape(what, segment string, id *string) *answer {
	text, err := url.PathUnescape(segment)
	if err != nil || text == "" || !utf8.ValidString(text) {
		a := refuse(http.StatusBadRequest, "%s must be a non-empty id in UTF-8, escaped as one path segment", what)
		return &a
	}
	*id = text
	return nil
}

// decodeToken returns vendorToken:partnerToken, or why the token is not that.
func decodeToken(token string) (credentials, why string) {
	if strings.Contains(token, ":") {
		return "", "the token is vendorToken:partnerToken in plain text; send base64(vendorToken:partnerToken)"
	}
	text, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return "", "the token is not base64 (standard alphabet with padding) of vendorToken:partnerToken"
	}
	if !strings.Contains(string(text), ":") {
		return "", "the token is base64, but not of vendorToken:partnerToken: the colon is missing"
	}
	return string(text), ""
}
