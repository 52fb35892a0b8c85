package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// BasePath is where the Vendor-API begins.
const BasePath = "/api/vendor-api"

// call is a request in the partner's own terms, whatever dialect it came in.
type call struct {
	requestID   string
	dialect     Dialect
	operation   Operation
	credentials string  // vendorToken ":" partnerToken
	denied      *answer // 4xx: nobody knows whom the call is from
	refused     *answer // 4xx: the rest could not be read
	account     string
	service     string
	value       string // exact text of a JSON number
	noBuild     bool
	posted      []item
	batch       []string // ids of what is posted, when more than one
	update      itemUpdate
	status      Status // to be set
	unmappedToo bool   // to be listed

	isOEM        bool
	oem          oemRequest
	organization *organization // whom a call to the OEM-API is about, once it is let in
}

// answer is what the client shall be told.
type answer struct {
	status  int
	message string
	data    any       // goes into the envelope, if any
	bare    any       // goes out instead of the envelope, if any
	header  [2]string // one extra header, if any
}

type statusData struct {
	IntegrationID string `json:"integrationId"`
	Status        string `json:"status"`
}

func refuse(status int, format string, args ...any) answer {
	return answer{status: status, message: fmt.Sprintf(format, args...)}
}

func (a answer) body() []byte {
	v := a.bare
	switch {
	case v != nil:
	case a.status < 300:
		v = struct {
			Status  int    `json:"status"`
			Message string `json:"message"`
			Data    any    `json:"data,omitempty"`
		}{a.status, a.message, a.data}
	default:
		v = struct {
			StatusCode int    `json:"statusCode"`
			Message    string `json:"message"`
		}{a.status, a.message}
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic("sandbox: an answer of texts, numbers and times does not marshal: " + err.Error())
	}
	return text
}

// verdict is what became of a request. answer.status 0 means: tear the connection.
type verdict struct {
	answer   answer
	accepted bool
	rule     *Rule
}

// serveVendorAPI is a request's whole way: read, admit, sleep, judge, answer. Only admit
// and judge hold the lock.
func (s *Sandbox) serveVendorAPI(w http.ResponseWriter, r *http.Request, path, requestID string) {
	c := s.read(w, r, path)
	c.requestID = requestID
	in, rule, latency, v := s.admit(&c)
	if v == nil {
		s.sleep(r.Context(), latency)
		v = s.judge(r.Context(), &c, in, rule)
	}
	s.respond(w, r, v)
}

// admit finds the integration and the fault of a call, or a verdict that needs neither.
func (s *Sandbox) admit(c *call) (*integration, *Rule, time.Duration, *verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	in := s.byToken[c.credentials]
	early := func(a answer) (*integration, *Rule, time.Duration, *verdict) {
		v := &verdict{answer: a}
		s.record(c, in, v, now)
		return nil, nil, 0, v
	}
	switch {
	case s.closed:
		return early(refuse(http.StatusServiceUnavailable, "the sandbox is closed"))
	case c.denied != nil:
		return early(*c.denied)
	case in == nil:
		return early(s.unknownToken(c.credentials))
	case in.dialect != c.dialect:
		return early(refuse(http.StatusUnauthorized, "this integration speaks the %s dialect: send the token as %q",
			in.dialect, wires[in.dialect].tokenHeader))
	}
	if wait := in.window.admit(s.config.RateLimit, now.Sub(s.start)); wait > 0 {
		return early(s.tooFast(wait, in.dialect, now))
	}
	rule, latency := s.faults.choose(c, now, in.name)
	return in, rule, latency, nil
}

func (s *Sandbox) tooFast(wait time.Duration, d Dialect, now time.Time) answer {
	a := refuse(http.StatusTooManyRequests, "more than %d requests within one second", s.config.RateLimit)
	a.header = retryAfter(wait, cmp.Or(s.config.RetryAfterForm, d.retryAfterForm()), now)
	return a
}

// sleep passes a fault's latency, unless the client or the sandbox goes away first.
func (s *Sandbox) sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.done:
	}
}

// judge decides a call and makes it take effect. A call to the OEM-API is about no integration.
func (s *Sandbox) judge(ctx context.Context, c *call, in *integration, rule *Rule) *verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	v := &verdict{rule: rule}
	effect := Delay
	if rule != nil {
		effect = rule.Effect
	}
	switch {
	case s.closed:
		v.answer.message = "torn: the sandbox was closed"
	case ctx.Err() != nil:
		// The client gave up during the latency and may have sent a newer figure since: to
		// accept this one now would put an older figure over a newer one, and make every
		// test of that rule blame the client for what the sandbox did.
		v.answer.message = "torn: the client went away"
	case effect == ResetBefore:
		v.answer.message = "torn before anything was accepted"
	case effect == StatusBefore:
		v.answer = s.ruleAnswer(rule, now)
	default:
		v.answer = s.apply(c, in, now)
		v.accepted = v.answer.status < 300
		if effect == StatusAfter {
			v.answer = s.ruleAnswer(rule, now)
		}
		if effect == ResetAfter {
			v.answer = answer{message: "torn after: " + v.answer.message}
		}
	}
	s.record(c, in, v, now)
	return v
}

// apply is the partner without faults.
func (s *Sandbox) apply(c *call, in *integration, now time.Time) answer {
	if c.isOEM {
		return s.applyOEM(c, now)
	}
	in.settle(now)
	defer in.remember()
	if c.refused != nil {
		return *c.refused
	}
	switch c.operation {
	case OperationAccounts:
		return in.postTo(&in.accounts, "account", c.posted, now)
	case OperationServices:
		return in.postTo(&in.services, "service", c.posted, now)
	case OperationMapping:
		if in.dialect == Gradient {
			return in.set(c.status, now)
		}
		return in.askForMapping(now)
	case OperationStatus:
		return in.set(c.status, now)
	case OperationVendor:
		return in.showVendor()
	case OperationOrganization:
		return in.showOrganization()
	case OperationList:
		return in.listAccounts(c.unmappedToo)
	case OperationUpdate:
		return in.updateAccount(c.account, c.update)
	case OperationCount:
		accepted := Accepted{Sequence: s.tape.next(), Time: now, Value: c.value}
		return in.count(key{c.account, c.service}, accepted, c.noBuild, s.config.NotReadyStatus)
	default:
		panic("sandbox: operation " + strconv.Quote(string(c.operation)) + " was neither refused nor routed")
	}
}

func (s *Sandbox) record(c *call, in *integration, v *verdict, now time.Time) {
	r := Record{
		Time: now, Operation: c.operation, Account: c.account, Service: c.service, Batch: c.batch, Value: c.value, NoBuild: c.noBuild,
		Status: v.answer.status, Accepted: v.accepted, RequestID: c.requestID, Message: v.answer.message,
	}
	if v.rule != nil {
		r.Fault = v.rule.Name
	}
	if c.organization != nil {
		r.Organization = c.organization.name
	}
	callsOfKey := 0
	if in != nil {
		r.Integration = in.name
		if c.operation == OperationCount && c.account != "" && c.service != "" {
			f := in.figure(key{c.account, c.service})
			f.calls++
			callsOfKey = f.calls
		}
		in.totals.add(&r, callsOfKey)
	}
	s.totals.add(&r, callsOfKey)
	s.tape.add(r)
}

// unknownToken says which half is wrong, and never what either half is.
func (s *Sandbox) unknownToken(credentials string) answer {
	if vendor, _, _ := strings.Cut(credentials, ":"); s.vendorTokens[vendor] {
		return refuse(http.StatusUnauthorized, "the vendor token is known, the partner token is not one of its integrations")
	}
	return refuse(http.StatusUnauthorized, "the vendor token is unknown")
}

func (s *Sandbox) ruleAnswer(r *Rule, now time.Time) answer {
	a := answer{status: r.Status, message: r.Message}
	if a.message == "" {
		a.message = "fault " + r.Name
	}
	if r.RetryAfter > 0 {
		a.header = retryAfter(r.RetryAfter, cmp.Or(r.RetryAfterForm, s.config.RetryAfterForm, RetryAfterSeconds), now)
	}
	return a
}

// retryAfter rounds up: who obeys it must not be too early by the rounding.
func retryAfter(wait time.Duration, form RetryAfterForm, now time.Time) [2]string {
	switch form {
	case RetryAfterNone:
		return [2]string{}
	case RetryAfterDate:
		return [2]string{"Retry-After", now.Add(wait + time.Second - 1).UTC().Format(http.TimeFormat)}
	default:
		return [2]string{"Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)}
	}
}
