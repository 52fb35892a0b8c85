package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// OnboardingRequest asks for an organization to be brought to the partner's
// platform. Its secrets are in the body of the request alone.
type OnboardingRequest struct {
	VendorID         string
	OrganizationID   string
	OrganizationName string
	Email            string
	FirstName        string
	LastName         string
	VendorUserID     string
	PlatformVendorID string // may be empty
	Kind             string // may be empty
	// VendorToken is the vendor's token; empty: that of the vendor's integration
	// with the organization VendorTokenOf.
	VendorToken   string
	VendorTokenOf string
	OEMToken      string            // may be empty
	PartnerToken  string            // may be empty
	Credentials   map[string]string // by label; may be nil
	Adopt         bool
}

// Onboarding is where an onboarding stands, without secrets.
type Onboarding struct {
	Vendor       string    `json:"vendor"`
	Organization string    `json:"organization"`
	State        string    `json:"state"` // open, running, stopped, lost or done
	Step         string    `json:"step"`
	Since        time.Time `json:"since"`
	Problem      string    `json:"problem,omitempty"`
	Error        string    `json:"error,omitempty"`
	// MagicLink lets the user in. Only the answer to who asked for it has it.
	MagicLink string `json:"magicLink,omitempty"`
}

// RefusedError is why a request is refused, with the status of the answer.
type RefusedError struct {
	Status  int
	Detail  string
	Members []RefusedMember // of the body, if it is they that are wrong
}

// RefusedMember is one member of the body, and what is wrong with it. An empty name
// is the whole body.
type RefusedMember struct{ Name, Problem string }

// Error is the detail.
func (e *RefusedError) Error() string { return e.Detail }

const (
	onboardingsPath   = "/api/v1/onboardings"
	onboardingPattern = onboardingsPath + "/{vendor}/{organization}"
	maxOnboardingBody = 64 << 10
	// onboardingTime ends well within writeTime, so that the answer says how far
	// it is.
	onboardingTime = 40 * time.Second
)

// authorized lets in who has the token. It is compared in constant time, and never
// logged.
func (c *Console) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || !sameSecret(strings.TrimSpace(token), c.config.APIToken) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="usagebridge"`)
			problem{Status: http.StatusUnauthorized, Detail: "want the header Authorization: Bearer with the token of this API"}.write(w)
			return
		}
		next(w, r)
	}
}

// onboardings lists onboardings, or takes a new one.
func (c *Console) onboardings(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		c.onboard(w, r)
	case http.MethodGet, http.MethodHead:
		c.tellOnboardings(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		problem{Status: http.StatusMethodNotAllowed, Detail: onboardingsPath + " takes GET, HEAD, POST"}.write(w)
	}
}

// tellOnboardings tells of all, or of the one that the path names.
func (c *Console) tellOnboardings(w http.ResponseWriter, r *http.Request) {
	vendor, organization := r.PathValue("vendor"), r.PathValue("organization")
	ctx, cancel := context.WithTimeout(r.Context(), publishTime)
	defer cancel()
	list, err := c.config.Onboardings(ctx, vendor, organization)
	switch {
	case err != nil:
		c.refuseOnboarding(w, r, err)
	case vendor == "":
		writeJSON(w, http.StatusOK, "application/json", struct {
			Onboardings []Onboarding `json:"onboardings"`
		}{append([]Onboarding{}, list...)})
	case len(list) == 0:
		problem{Status: http.StatusNotFound, Detail: "there is no onboarding of that vendor and organization"}.write(w)
	default:
		writeJSON(w, http.StatusOK, "application/json", list[0])
	}
}

// onboard takes a request, and answers when it is done or has to wait.
func (c *Console) onboard(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOnboardingBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		problem{Status: http.StatusRequestEntityTooLarge, Detail: "the body is larger than 64 KiB: that is no onboarding"}.write(w)
		return
	}
	if err != nil {
		problem{Status: http.StatusBadRequest, Detail: "the body could not be read to its end"}.write(w)
		return
	}
	q, refusal := readOnboarding(body)
	if refusal != nil {
		refusal.write(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), onboardingTime)
	defer cancel()
	done, err := c.config.Onboard(ctx, q)
	if err != nil {
		c.refuseOnboarding(w, r, err)
		return
	}
	w.Header().Set("Location", onboardingsPath+"/"+url.PathEscape(done.Vendor)+"/"+url.PathEscape(done.Organization))
	status := http.StatusCreated
	if done.MagicLink == "" { // recorded; it goes on without who asked
		status = http.StatusAccepted
	}
	writeJSON(w, status, "application/json", done)
}

// refuseOnboarding answers for what went wrong behind the console.
func (c *Console) refuseOnboarding(w http.ResponseWriter, r *http.Request, err error) {
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok {
		c.config.Logger.WarnContext(r.Context(), "onboarding not answered", "err", err)
		w.Header().Set("Retry-After", retryAfter)
		problem{Status: http.StatusServiceUnavailable, Detail: "it cannot be told now how far that is: send the same request again later"}.write(w)
		return
	}
	p := problem{Status: refused.Status, Detail: refused.Detail}
	for _, m := range refused.Members {
		p.Errors = append(p.Errors, memberFinding(m.Name, m.Problem, ""))
	}
	p.write(w)
}

func memberFinding(name, what, want string) finding {
	pointer := ""
	if name != "" {
		pointer = "/" + name
	}
	return finding{Pointer: &pointer, Reason: event.ReasonInvalid, Problem: what, Want: want}
}

// readOnboarding reads the body of a request. Whatever is wrong is said at once,
// and no value is repeated: it may be a secret.
func readOnboarding(body []byte) (q OnboardingRequest, refusal *problem) {
	var members map[string]json.RawMessage
	if body = bytes.TrimSpace(body); !json.Valid(body) || json.Unmarshal(body, &members) != nil || members == nil {
		return q, &problem{Status: http.StatusBadRequest, Detail: "the body is no JSON object"}
	}
	r := onboardingReader{members: members}
	take := r.take
	const text = "a text"
	take("vendorId", &q.VendorID, true, text)
	take("organizationId", &q.OrganizationID, true, "a text: the vendor's own id")
	take("organizationName", &q.OrganizationName, true, text)
	take("email", &q.Email, true, text)
	take("firstName", &q.FirstName, true, text)
	take("lastName", &q.LastName, true, text)
	take("vendorUserId", &q.VendorUserID, true, "a text: the vendor's own id of the user")
	take("platformVendorId", &q.PlatformVendorID, false, text)
	take("kind", &q.Kind, false, "external or credentials")
	take("vendorToken", &q.VendorToken, false, text)
	take("vendorTokenOf", &q.VendorTokenOf, false, "the organization id of another integration of the vendor")
	take("oemToken", &q.OEMToken, false, text)
	take("partnerToken", &q.PartnerToken, false, text)
	take("credentials", &q.Credentials, false, "an object with a text for each label")
	take("adopt", &q.Adopt, false, "true or false")
	if q.Kind != "" && q.Kind != "external" && q.Kind != "credentials" {
		r.wrong = append(r.wrong, memberFinding("kind", "kind is neither", "external or credentials"))
	}
	if q.VendorToken == "" && q.VendorTokenOf == "" {
		r.wrong = append(r.wrong, memberFinding("vendorToken", "vendorToken is missing", "the vendor token, or vendorTokenOf: the organization id of an integration of the vendor that has it"))
	}
	wrong := r.wrong
	for name := range members {
		wrong = append(wrong, memberFinding(name, "there is no such member", "one of those documented, spelt so"))
	}
	if len(wrong) == 0 {
		return q, nil
	}
	slices.SortStableFunc(wrong, func(a, b finding) int { return strings.Compare(*a.Pointer, *b.Pointer) })
	return q, &problem{Status: http.StatusUnprocessableEntity, Detail: "the request is not taken: nothing was done", Errors: wrong}
}

// onboardingReader takes members out of a body, and notes what is wrong with them.
type onboardingReader struct {
	members map[string]json.RawMessage
	wrong   []finding
}

func (r *onboardingReader) take(name string, to any, required bool, want string) {
	raw, given := r.members[name]
	delete(r.members, name)
	switch {
	case !given && required:
		r.wrong = append(r.wrong, memberFinding(name, name+" is missing", want))
	case given && (string(raw) == "null" || json.Unmarshal(raw, to) != nil):
		r.wrong = append(r.wrong, memberFinding(name, name+" is of another type", want))
	case required && *to.(*string) == "": //nolint:errcheck,forcetypeassert // what is required is a text
		r.wrong = append(r.wrong, memberFinding(name, name+" is empty", want))
	}
}
