package console

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Hint is what the partner's Inform webhook says. It has neither id nor time
// nor signature, and comes repeated and out of order: it may start a probe,
// and proves nothing.
type Hint struct {
	Vendor       string
	Organization string   // the vendor's own id of it; may be empty
	Integration  string   // the platform's id; may be empty
	Accounts     []string // the vendor's ids of the accounts that are mapped
	// Active is the integration's status in the platform's words, "true" or
	// "false" where it sends a boolean, empty where it sends nothing.
	Active string
}

const (
	informPattern = "/inform/v1/{vendor}/{secret}"
	maxInformBody = 1 << 20
	informTime    = 10 * time.Second
)

// inform takes the webhook. A wrong secret gets what every unknown address
// gets, so that nobody learns that there is one to be guessed.
func (c *Console) inform(w http.ResponseWriter, r *http.Request) {
	if c.config.InformSecret == "" || !sameSecret(r.PathValue("secret"), c.config.InformSecret) {
		unknown(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxInformBody))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		problem{Status: http.StatusRequestEntityTooLarge, Detail: "the body is larger than " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes"}.write(w)
		return
	}
	if err != nil {
		problem{Status: http.StatusBadRequest, Detail: "the body could not be read to its end"}.write(w)
		return
	}
	hint, fault := readHint(body)
	if fault != "" {
		problem{Status: http.StatusBadRequest, Detail: fault}.write(w)
		return
	}
	hint.Vendor = r.PathValue("vendor")
	ctx, cancel := context.WithTimeout(r.Context(), informTime)
	defer cancel()
	if err := c.config.Inform(ctx, hint); err != nil {
		c.config.Logger.WarnContext(ctx, "inform hint not passed on", "vendor", hint.Vendor, "organization", hint.Organization, "err", err)
		w.Header().Set("Retry-After", "5")
		problem{Status: http.StatusServiceUnavailable, Detail: "the hint could not be passed on now: send it again"}.write(w)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// sameSecret compares in a time that tells nothing, not even a length.
func sameSecret(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// readHint reads the webhook's body; fault says what is wrong with it. Members
// that it does not know are left alone. The event type is spelt in two ways in
// the platform's own documentation, and isIntegrationActive is described as a
// boolean and as a status.
func readHint(body []byte) (h Hint, fault string) {
	var message struct {
		EventType string `json:"eventType"`
		Payload   *struct {
			Active       json.RawMessage `json:"isIntegrationActive"`
			Accounts     []string        `json:"accounts"`
			Organization string          `json:"vendorOrganizationId"`
			Integration  string          `json:"integrationId"`
		} `json:"payload"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		return h, "the body is not the JSON of an Inform message: " + err.Error()
	}
	if message.EventType != "config_update" && message.EventType != "config_upate" {
		return h, `eventType is not "config_update"`
	}
	p := message.Payload
	if p == nil {
		return h, "payload is missing"
	}
	if p.Organization == "" && p.Integration == "" {
		return h, "payload names neither vendorOrganizationId nor integrationId: one is needed to know whom it is about"
	}
	return Hint{Organization: p.Organization, Integration: p.Integration, Accounts: p.Accounts, Active: activeText(p.Active)}, ""
}

// activeText is a boolean or a string as text, anything else as nothing.
func activeText(raw json.RawMessage) string {
	var status string
	if json.Unmarshal(raw, &status) == nil {
		return status
	}
	var active bool
	if len(raw) > 0 && json.Unmarshal(raw, &active) == nil && string(raw) != "null" {
		return strconv.FormatBool(active)
	}
	return ""
}
