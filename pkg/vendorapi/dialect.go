package vendorapi

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// vendorAPISegment stands between the API address and every path of the
// Vendor-API, on every platform that offers it.
const vendorAPISegment = "/vendor-api"

// Dialect names a platform's variant of the Vendor-API.
type Dialect string

const (
	// MSPCentric is the dialect of mspcentric.app: it posts, and reads nothing.
	MSPCentric Dialect = "mspcentric"
	// Gradient is the dialect of app.usegradient.com (Synthesize): the same
	// posts under other paths, and it can be read.
	Gradient Dialect = "gradient"
)

// Capability is what one dialect can and another cannot; see [Client.Can].
type Capability string

const (
	// Reading: [Client.Organization], [Client.ListAccounts], [Client.Catalog].
	Reading Capability = "reading"
	// BulkAccounts: [Client.PostAccounts].
	BulkAccounts Capability = "bulk_accounts"
	// DeferredBuild: [Count.NoBuild] is heeded.
	DeferredBuild Capability = "deferred_build"
)

// dialect is what differs from platform to platform on the wire: the header
// that carries the token, the paths, the spelling of bodies, the words for an
// integration's status.
type dialect struct {
	name         Dialect
	header       string
	headerPrefix string
	accounts     []string
	services     []string
	mapping      []string
	mappingBody  any // nil sends none
	account      func(Account) any
	noBuild      url.Values // the query of a count that shall not rebuild; nil where there is no such thing
	statuses     map[string]string
	can          []Capability
}

func dialectNamed(name Dialect) (dialect, error) {
	switch name {
	case MSPCentric, "":
		return mspcentric(), nil
	case Gradient:
		return gradient(), nil
	default:
		return dialect{}, fmt.Errorf("dialect: %q is not spoken by this version; want %q or %q", name, MSPCentric, Gradient)
	}
}

func mspcentric() dialect {
	return dialect{
		name:         MSPCentric,
		header:       "Authorization",
		headerPrefix: "Bearer ",
		accounts:     []string{"organization", "accounts"},
		services:     []string{"organization", "services"},
		mapping:      []string{"status", "mapping"},
		mappingBody:  struct{}{},
		account: func(a Account) any {
			return struct {
				ID   string `json:"vendorAccountId"`
				Name string `json:"name"`
				// Left out when empty: were the platform to keep it unique, the second
				// account without one would be a 409 and pass for existing.
				ExternalID string `json:"externalId,omitempty"`
			}{a.ID, a.Name, a.ExternalID}
		},
	}
}

func gradient() dialect {
	return dialect{
		name:     Gradient,
		header:   "GRADIENT-TOKEN",
		accounts: []string{"organization", "accounts"},
		services: []string{"organization", "services"},
		mapping:  []string{"organization", "status", "pending"},
		account: func(a Account) any {
			return struct {
				ID          string `json:"id"`
				Name        string `json:"name"`
				Description string `json:"description"`
			}{a.ID, a.Name, a.Description}
		},
		noBuild: url.Values{"no_build": {"true"}},
		// Gradient's pending is the moment before a human maps, MSPCentric's the
		// moment after. One word for both would open the gate too early.
		statuses: map[string]string{"inactive": "inactive", "pending": "mapping", "active": "connected"},
		can:      []Capability{Reading, BulkAccounts, DeferredBuild},
	}
}

// status returns the platform's word in the words of MSPCentric; a word nobody
// told us of stays as it is.
func (d dialect) status(word string) string {
	return cmp.Or(d.statuses[strings.ToLower(word)], word)
}

// refusal says that the dialect has no such call, or nothing.
func (d dialect) refusal(needed Capability) string {
	if needed == "" || slices.Contains(d.can, needed) {
		return ""
	}
	return fmt.Sprintf("the dialect %s has no such call; ask Can(%q) first", d.name, needed)
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
