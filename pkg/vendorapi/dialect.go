package vendorapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// vendorAPISegment stands between the API address and every path of the
// Vendor-API, on every platform that offers it.
const vendorAPISegment = "/vendor-api"

// Dialect names a platform's variant of the Vendor-API.
type Dialect string

// MSPCentric is the dialect of mspcentric.app, the only one this version speaks.
const MSPCentric Dialect = "mspcentric"

// dialect is what differs from platform to platform on the wire: the header
// that carries the token, and the paths.
type dialect struct {
	header       string
	headerPrefix string
	accounts     []string
	services     []string
	mapping      []string
	count        func(serviceID string) []string
}

func dialectNamed(name Dialect) (dialect, error) {
	switch name {
	case MSPCentric, "":
		return dialect{
			header:       "Authorization",
			headerPrefix: "Bearer ",
			accounts:     []string{"organization", "accounts"},
			services:     []string{"organization", "services"},
			mapping:      []string{"status", "mapping"},
			count:        func(serviceID string) []string { return []string{"service", serviceID, "count"} },
		}, nil
	default:
		return dialect{}, fmt.Errorf("dialect: %q is not spoken by this version; want %q", name, MSPCentric)
	}
}

func (d dialect) authorize(header http.Header, token string) {
	header.Set(d.header, d.headerPrefix+token)
}

// below returns the address of the path made of segments. Each segment, however
// odd, stays one segment on the wire.
func below(base url.URL, segments []string) *url.URL {
	var plain, escaped strings.Builder
	plain.WriteString(base.Path + vendorAPISegment)
	escaped.WriteString(base.EscapedPath() + vendorAPISegment)
	for _, segment := range segments {
		plain.WriteString("/" + segment)
		escaped.WriteString("/" + escapeSegment(segment))
	}
	base.Path, base.RawPath = plain.String(), escaped.String()
	return &base
}

// escapeSegment percent-encodes an id for a path. The ids "." and ".." need
// their dots encoded as well: bare, every hop may resolve them as "here" and
// "one up" and the count would land on another path.
func escapeSegment(segment string) string {
	if segment == "." || segment == ".." {
		return strings.Repeat("%2E", len(segment))
	}
	return url.PathEscape(segment)
}
