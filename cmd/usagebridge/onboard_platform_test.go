package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// oemPlayed plays the OEM-API as far as an onboarding needs it, with secrets that
// look different once they are encoded in any way.
type oemPlayed struct {
	mu      sync.Mutex
	vendors []map[string]any
	orgs    map[string]*oemPlayedOrg // by the vendor's id
	faults  map[string][]string      // by call, the next ones: a status, or what happens to the answer
	made    map[string]int           // by call, what succeeded
	calls   []string
	before  func(call string) // nil: nothing; told of every call, without the lock
	serving sync.WaitGroup
}

type oemPlayedOrg struct {
	name, token  string
	users        map[string]string // e-mail by the vendor's id
	integrations map[string]string // partner key by the platform's vendor
}

const oemPlayedSecret = `client"<secret>&`

// The faults that are no status. The platform has done what it was asked.
const (
	oemLosesAnswer = "loses the answer"
	oemGarbles     = "garbles the answer"
)

func newOEMPlayed() *oemPlayed {
	return &oemPlayed{
		vendors: []map[string]any{{"id": "pv-1", "name": "Acme", "integrationType": "external", "integrationCredentialTemplate": map[string]string{}}},
		orgs:    map[string]*oemPlayedOrg{}, faults: map[string][]string{}, made: map[string]int{},
	}
}

type oemPlayedRequest struct {
	ClientID, ClientSecret string
	OrganizationOemToken   string
	IntegrationType        string
	VendorID               string `json:"vendorId"`
	Data                   struct {
		Name, Email, VendorUserID, VendorOrganizationID string
		VendorID                                        string `json:"vendorId"`
		IntegrationCredentials                          map[string]string
	}
}

func (p *oemPlayed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := strings.TrimPrefix(r.URL.Path, "/api/oem-api")
	p.serving.Add(1)
	defer p.serving.Done()
	p.mu.Lock()
	before := p.before
	p.mu.Unlock()
	if before != nil {
		before(call)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
	var q oemPlayedRequest
	err := json.NewDecoder(r.Body).Decode(&q)
	fault := ""
	if next := p.faults[call]; len(next) > 0 {
		fault, p.faults[call] = next[0], next[1:]
	}
	code, answer := http.StatusBadRequest, map[string]any{}
	status, isStatus := strconv.Atoi(fault)
	switch {
	case err != nil:
		answer["message"] = err.Error()
	case q.ClientID != "client" || q.ClientSecret != oemPlayedSecret:
		code, answer["message"] = http.StatusUnauthorized, "client credentials"
	case isStatus == nil:
		code, answer["message"] = status, "told to fail"
	default:
		code, answer = p.answer(call, &q)
	}
	if code/100 == 2 {
		p.made[call]++
	}
	switch fault {
	case oemLosesAnswer:
		panic(http.ErrAbortHandler)
	case oemGarbles:
		answer = map[string]any{"message": "made"}
	}
	answer["status"] = code
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

func (p *oemPlayed) answer(call string, q *oemPlayedRequest) (int, map[string]any) {
	no := func(code int, text string) (int, map[string]any) { return code, map[string]any{"message": text} }
	d := &q.Data
	switch o := p.orgs[d.VendorOrganizationID]; call {
	case "/organization":
		for _, other := range p.orgs {
			if o != nil || other.name == d.Name {
				return no(http.StatusConflict, "organization exists")
			}
		}
		o = &oemPlayedOrg{name: d.Name, token: `oem"<token>&` + d.VendorOrganizationID, users: map[string]string{d.VendorUserID: d.Email}, integrations: map[string]string{}}
		p.orgs[d.VendorOrganizationID] = o
		return http.StatusCreated, map[string]any{"organizationOemToken": o.token}
	case "/user":
		if o == nil {
			return no(http.StatusNotFound, "no such organization")
		}
		if had := o.users[d.VendorUserID]; had != "" && had != d.Email {
			return no(http.StatusConflict, "the user has another e-mail")
		}
		o.users[d.VendorUserID] = d.Email
		return http.StatusCreated, map[string]any{"organizationOemToken": o.token}
	case "/vendor":
		return http.StatusOK, map[string]any{"vendors": p.vendors}
	}
	for _, o := range p.orgs {
		if o.token == q.OrganizationOemToken {
			return p.answerOf(o, call, q)
		}
	}
	return no(http.StatusForbidden, "organization token")
}

// answerOf is the answer to a call about one organization.
func (p *oemPlayed) answerOf(o *oemPlayedOrg, call string, q *oemPlayedRequest) (int, map[string]any) {
	vendor := q.VendorID + q.Data.VendorID
	switch call {
	case "/session":
		return http.StatusCreated, map[string]any{"sessionToken": "s", "url": fmt.Sprintf("https://platform.example/magic/%s-%d", q.Data.VendorUserID, p.made[call]+1)}
	case "/integration/list":
		list := []map[string]any{}
		for v := range o.integrations {
			list = append(list, map[string]any{"id": "int-" + v, "vendorId": v})
		}
		return http.StatusOK, map[string]any{"integrations": list}
	case "/integration":
		if o.integrations[vendor] != "" {
			return http.StatusConflict, map[string]any{"message": "integration exists"}
		}
		o.integrations[vendor] = fmt.Sprintf(`partner"<key>&%d`, p.made[call]+1)
		answer := map[string]any{"integration": map[string]any{"id": "int-" + vendor, "vendorId": vendor}}
		if q.IntegrationType == "external" {
			answer["partnerApiKey"] = o.integrations[vendor]
		}
		return http.StatusCreated, answer
	}
	return http.StatusNotFound, map[string]any{"message": "no such call"}
}

type oemPlayedKey struct{}

// playOEM is the command oem, in one of these forms:
//
//	oem fails CALL FAULT…         has the next calls fail so: a status, lost or garbled
//	oem vendors FILE              has the platform these vendors
//	oem removes ORGANIZATION      removes its integrations at the platform
//	oem made CALL N               says that so many calls have succeeded
func playOEM(ts *testscript.TestScript, neg bool, args []string) {
	p, ok := ts.Value(oemPlayedKey{}).(*oemPlayed)
	if !ok || neg || len(args) < 2 {
		ts.Fatalf("usage: oem fails CALL FAULT… | vendors FILE | removes ORGANIZATION | made CALL N")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch args[0] {
	case "fails":
		for _, fault := range args[2:] {
			words := map[string]string{"lost": oemLosesAnswer, "garbled": oemGarbles}
			p.faults[args[1]] = append(p.faults[args[1]], or(words[fault], fault))
		}
	case "vendors":
		p.vendors = nil
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &p.vendors))
	case "removes":
		clear(p.orgs[args[1]].integrations)
	case "made":
		if got := strconv.Itoa(p.made[args[1]]); got != args[2] {
			ts.Fatalf("%s succeeded %s times, want %s; calls: %v", args[1], got, args[2], p.calls)
		}
	}
}

// furnishOEM plays the OEM-API to a script.
func furnishOEM(env *testscript.Env) error {
	p := newOEMPlayed()
	server := httptest.NewServer(p)
	env.Defer(server.Close)
	env.Values[oemPlayedKey{}] = p
	env.Setenv("OEM", server.URL+"/api")
	return os.WriteFile(env.WorkDir+"/oem.secret", []byte(oemPlayedSecret+"\n"), 0o600)
}

// fails has the next call fail so; an empty fault is none.
func (p *oemPlayed) fails(call, fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fault != "" {
		p.faults[call] = append(p.faults[call], fault)
	}
}

// tells has before told of every call from now on.
func (p *oemPlayed) tells(before func(call string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

// counts is what was made, by call, once nothing is on its way any more.
func (p *oemPlayed) counts() map[string]int {
	p.serving.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.made)
}

// org is an organization as it stands.
func (p *oemPlayed) org(id string) (token, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.orgs[id].token, p.orgs[id].integrations["pv-1"]
}

// secrets lists every secret that the platform has shown or was shown.
func (p *oemPlayed) secrets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []string{oemPlayedSecret, "https://platform.example/magic/"}
	for _, o := range p.orgs {
		all = append(all, o.token)
		for _, key := range o.integrations {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	return all
}
