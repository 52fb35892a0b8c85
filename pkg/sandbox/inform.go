package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Inform is an order to send the Inform webhook. The document of the webhook gives it
// neither id nor time nor signature, so repeats and an older snapshot after a newer one are
// what a receiver has to bear: Times and Shuffle make them.
type Inform struct {
	// URL is the receiver's, http or https at a loopback address; others are refused.
	URL string `json:"url"`
	// Header, when set, is sent with the value Secret.
	Header string `json:"header,omitempty"`
	Secret string `json:"secret,omitempty"`
	// Times is how many requests are sent, one after the other: 1 to 100, 1 when 0.
	Times int `json:"times,omitempty"`
	// Spelling of the event type: InformUpdate when empty.
	Spelling InformSpelling `json:"spelling,omitempty"`
	// Active is the form of isIntegrationActive: ActiveBool when empty.
	Active ActiveForm `json:"active,omitempty"`
	// Shuffle sends up to 16 of the newest snapshots, the current one among them, in an
	// order drawn from Seed, instead of the current one over and over.
	Shuffle bool   `json:"shuffle,omitempty"`
	Seed    uint64 `json:"seed,omitempty"`
}

// InformSpelling is an event type of the webhook: the documentation has two.
type InformSpelling string

const (
	// InformUpdate is the type as the documentation means it.
	InformUpdate InformSpelling = "config_update"
	// InformUpate is the type as the documentation misspells it once.
	InformUpate InformSpelling = "config_upate"
)

// ActiveForm is one of two ways to say whether an integration is active: the documentation
// declares a boolean and describes the status.
type ActiveForm string

const (
	// ActiveBool sends true when the status is connected, else false.
	ActiveBool ActiveForm = "bool"
	// ActiveString sends the status in the words of the dialect.
	ActiveString ActiveForm = "string"
)

// informVendor stands for the vendor in the URL of Config.Inform.
const informVendor = "{vendor}"

const (
	maxInforms    = 100
	informTimeout = 30 * time.Second // for all requests of an order together
	answerTimeout = 5 * time.Second  // for each
)

// String is the receiver's host alone: path and header may hold a secret.
func (o Inform) String() string {
	host := "?"
	if u, err := url.Parse(o.URL); err == nil {
		host = u.Host
	}
	return "inform " + host
}

// GoString is String: %#v must not print the secret either.
func (o Inform) GoString() string { return "sandbox.Inform{" + o.String() + "}" }

// Validate reports everything that is wrong with o at once, or nil. It never prints the
// URL, which may hold a secret.
func (o Inform) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		bad("url: want http:// or https:// and a loopback address, such as http://127.0.0.1:8080/inform")
	case !isLoopback(u.Hostname()):
		bad("url: host %.128q is no loopback address; the sandbox sends to 127.0.0.0/8, ::1 and localhost only", u.Hostname())
	}
	if o.Header == "" && o.Secret != "" {
		bad("secret without header: want the name of the header that carries it")
	}
	if o.Times < 0 || o.Times > maxInforms {
		bad("times %d: want 1 to %d", o.Times, maxInforms)
	}
	if !slices.Contains([]InformSpelling{"", InformUpdate, InformUpate}, o.Spelling) {
		bad("spelling %.64q: want %q or %q", string(o.Spelling), InformUpdate, InformUpate)
	}
	if !slices.Contains([]ActiveForm{"", ActiveBool, ActiveString}, o.Active) {
		bad("active %.64q: want %q or %q", string(o.Active), ActiveBool, ActiveString)
	}
	return errors.Join(errs...)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Informed is what became of an order.
type Informed struct {
	// Answers are the HTTP statuses, in the order of sending.
	Answers []int `json:"answers"`
}

// Inform sends the webhook and returns when the last answer is there. The first request
// that gets no answer ends the order: its error comes with the answers before it. Any HTTP
// status is an answer. It returns [ErrUnknown] for an integration that does not exist. It
// takes 30 s at most.
func (s *Sandbox) Inform(ctx context.Context, name string, o Inform) (Informed, error) {
	done := Informed{Answers: []int{}}
	if err := o.Validate(); err != nil {
		return done, fmt.Errorf("inform about integration %q: %w", name, err)
	}
	bodies, err := s.informBodies(name, o)
	if err != nil {
		return done, err
	}
	ctx, cancel := context.WithTimeout(ctx, informTimeout)
	defer cancel()
	client := loopbackClient()
	for i, body := range bodies {
		if s.isClosed() {
			return done, fmt.Errorf("inform about integration %q: the sandbox is closed", name)
		}
		status, err := post(ctx, client, o, body)
		if err != nil {
			return done, fmt.Errorf("inform about integration %q, request %d of %d: %w", name, i+1, len(bodies), err)
		}
		done.Answers = append(done.Answers, status)
	}
	return done, nil
}

func (s *Sandbox) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// informBodies draws the snapshots of an order.
func (s *Sandbox) informBodies(name string, o Inform) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.byName[name]
	if in == nil {
		return nil, fmt.Errorf("inform: %w integration %q", ErrUnknown, name)
	}
	in.settle(s.now())
	in.remember()
	times := max(1, o.Times)
	// The newest first: whatever Times is, the current snapshot is among them.
	order := make([]int, times)
	if o.Shuffle {
		for i := range order {
			order[i] = i % len(in.moments)
		}
		dice := rand.New(rand.NewPCG(o.Seed, 0)) //nolint:gosec // dice that must repeat for a seed, no secret
		dice.Shuffle(times, func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	texts := map[int][]byte{}
	bodies := make([][]byte, times)
	for i, back := range order {
		if texts[back] == nil {
			texts[back] = in.informBody(in.moments[len(in.moments)-1-back], o)
		}
		bodies[i] = texts[back]
	}
	return bodies, nil
}

// informMessage is the webhook's body, as its document has it.
type informMessage struct {
	Module    string         `json:"module"`
	EventType InformSpelling `json:"eventType"`
	Payload   informPayload  `json:"payload"`
}

type informPayload struct {
	IsAlertsEnabled      bool     `json:"isAlertsEnabled"`
	IsIntegrationActive  any      `json:"isIntegrationActive"`
	ProductGroups        []string `json:"productGroups"`
	Accounts             []string `json:"accounts"`
	VendorOrganizationID string   `json:"vendorOrganizationId"`
	VendorUserID         string   `json:"vendorUserId"`
	IntegrationID        string   `json:"integrationId"`
}

func (in *integration) informBody(m moment, o Inform) []byte {
	_, organizationName := in.names()
	message := informMessage{Module: "alerts", EventType: InformUpdate, Payload: informPayload{
		IsAlertsEnabled: true, IsIntegrationActive: m.status == Connected,
		ProductGroups: []string{}, Accounts: m.mapped(),
		VendorOrganizationID: organizationName, VendorUserID: in.informUser(organizationName), IntegrationID: in.id,
	}}
	if o.Spelling != "" {
		message.EventType = o.Spelling
	}
	if o.Active == ActiveString {
		message.Payload.IsIntegrationActive = in.dialect.statusName(m.status)
	}
	text, err := json.Marshal(message)
	if err != nil {
		panic("sandbox: a message of texts and booleans does not marshal: " + err.Error())
	}
	return text
}

// informUser is the vendor's id of the person whom a webhook names: the organization's first.
func (in *integration) informUser(organizationName string) string {
	if in.organization != nil && len(in.organization.users) > 0 {
		return in.organization.users[0].id
	}
	return "user-" + organizationName
}

// post sends one request and returns the status of its answer. Errors leave the URL out.
func post(ctx context.Context, client *http.Client, o Inform, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("the url cannot be used in a request")
	}
	req.Header.Set("Content-Type", "application/json")
	if o.Header != "" {
		req.Header.Set(o.Header, o.Secret)
	}
	res, err := client.Do(req)
	if withURL, ok := errors.AsType[*url.Error](err); ok {
		err = withURL.Err
	}
	if err != nil {
		return 0, fmt.Errorf("post to %s: %w", req.URL.Host, err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // an answer is its status; the rest may be torn
	return res.StatusCode, nil
}

// loopbackClient connects to nothing but this machine, whatever a name resolves to and
// wherever an answer redirects, and keeps no connection.
func loopbackClient() *http.Client {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().Unmap().IsLoopback() {
			return fmt.Errorf("%s is no loopback address", address)
		}
		return nil
	}}
	return &http.Client{
		Timeout:       answerTimeout,
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// moment is an integration as a webhook of that time would have told it.
type moment struct {
	steps  []step // of the accounts, so far
	status Status
}

// moments are the newest, oldest first, never none.
type moments []moment

// keptMoments bounds them.
const keptMoments = 16

// remember keeps the present as a moment, unless it is the last one still.
func (in *integration) remember() {
	now := moment{steps: in.accounts.steps, status: in.status}
	if n := len(in.moments); n > 0 && in.moments[n-1].same(now) {
		return
	}
	if len(in.moments) == keptMoments {
		in.moments = append(in.moments[:0], in.moments[1:]...)
	}
	in.moments = append(in.moments, now)
}

// same compares lengths alone: steps are only appended to, and a reset, which begins them
// anew, is remembered with none.
func (m moment) same(other moment) bool {
	return len(m.steps) == len(other.steps) && m.status == other.status
}

// mapped lists the accounts that were mapped then, in the order of their first mapping.
func (m moment) mapped() []string {
	now := map[string]bool{}
	order := []string{}
	for _, s := range m.steps {
		if _, seen := now[s.id]; !seen {
			order = append(order, s.id)
		}
		now[s.id] = s.mapped
	}
	kept := order[:0]
	for _, id := range order {
		if now[id] {
			kept = append(kept, id)
		}
	}
	return kept
}
