package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
)

// platform plays the OEM-API for scripts: what of it a person's commands use.
type platform struct {
	mu            sync.Mutex
	Organizations map[string]*platformOrganization `json:"organizations"` // by the vendor's id
	Vendors       []map[string]any                 `json:"vendors"`
	Domains       map[string]string                `json:"domains"` // of e-mail addresses that lead to an organization
	Fails         map[string]int                   `json:"fails"`   // statuses by method and path
}

type platformOrganization struct {
	Token        string            `json:"token"`
	Users        map[string]string `json:"users"` // their addresses by the vendor's id
	Integrations []map[string]any  `json:"integrations"`
	Credentials  map[string]string `json:"credentials"` // of its integrations, together
	Listed       int               `json:"listed"`      // how many times
}

// platformRequest is what any of the calls says.
type platformRequest struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	Token        string `json:"organizationOemToken"`
	Data         struct {
		Email        string            `json:"email"`
		UserID       string            `json:"vendorUserId"`
		Organization string            `json:"vendorOrganizationId"`
		Credentials  map[string]string `json:"integrationCredentials"`
	} `json:"data"`
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var request platformRequest
	call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/oem-api")
	code, answer := p.Fails[call], map[string]any{"message": "told to fail"}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		code, answer["message"] = http.StatusBadRequest, err.Error()
	} else if request.ClientID != "client" || request.ClientSecret != "c-secret" {
		code, answer["message"] = http.StatusUnauthorized, "client credentials"
	} else if code == 0 {
		code, answer = p.answer(call, &request)
	}
	answer["status"] = code
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

func (p *platform) answer(call string, request *platformRequest) (int, map[string]any) {
	no := func(code int, format string, args ...any) (int, map[string]any) {
		return code, map[string]any{"message": fmt.Sprintf(format, args...)}
	}
	switch call {
	case "POST /user":
		return p.addUser(request)
	case "POST /vendor":
		return http.StatusOK, map[string]any{"vendors": p.Vendors}
	}
	var o *platformOrganization
	for _, candidate := range p.Organizations {
		if candidate.Token == request.Token {
			o = candidate
		}
	}
	id, isPatch := strings.CutPrefix(call, "PATCH /integration/")
	switch {
	case o == nil:
		return no(http.StatusForbidden, "organization token %s", request.Token)
	case call == "POST /integration/list":
		o.Listed++
		return http.StatusOK, map[string]any{"integrations": o.Integrations}
	case call == "DELETE /user" && o.Users[request.Data.UserID] == request.Data.Email:
		delete(o.Users, request.Data.UserID)
		return http.StatusCreated, map[string]any{}
	case isPatch:
		if o.Credentials == nil {
			o.Credentials = map[string]string{}
		}
		maps.Copy(o.Credentials, request.Data.Credentials)
		return http.StatusOK, map[string]any{"integration": map[string]any{"id": id}}
	}
	return no(http.StatusNotFound, "not found")
}

func (p *platform) addUser(request *platformRequest) (int, map[string]any) {
	_, domain, _ := strings.Cut(request.Data.Email, "@")
	name, led := p.Domains[domain]
	if !led {
		name = request.Data.Organization
	}
	o := p.Organizations[name]
	switch {
	case o == nil:
		return http.StatusNotFound, map[string]any{"message": "no such organization"}
	case o.Users == nil:
		o.Users = map[string]string{}
	case o.Users[request.Data.UserID] != "" && o.Users[request.Data.UserID] != request.Data.Email:
		return http.StatusConflict, map[string]any{"message": "the id has another e-mail"}
	}
	o.Users[request.Data.UserID] = request.Data.Email
	return http.StatusCreated, map[string]any{"organizationOemToken": o.Token}
}

// playPlatform is the command platform, which takes one of these forms:
//
//	platform start FILE           plays the platform that the file describes
//	platform fails CALL STATUS    has a call such as "POST /user" fail; 0: no more
//	platform holds PATTERN        says whether what the platform holds matches
func playPlatform(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg && args[0] != "holds" {
		ts.Fatalf("usage: platform start FILE | fails CALL STATUS | [!] holds PATTERN")
	}
	if args[0] == "start" {
		p := &platform{Fails: map[string]int{}}
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), p))
		server := httptest.NewServer(p)
		ts.Defer(server.Close)
		ts.Value(platformKey{}).(*platformOf).p = p
		ts.Check(os.WriteFile(ts.MkAbs("oem.secret"), []byte("c-secret\n"), 0o600))
		ts.Setenv("USAGEBRIDGE_OEM_API_URL", server.URL+"/api")
		ts.Setenv("USAGEBRIDGE_OEM_CLIENT_ID", "client")
		ts.Setenv("USAGEBRIDGE_OEM_CLIENT_SECRET_FILE", ts.MkAbs("oem.secret"))
		return
	}
	p := ts.Value(platformKey{}).(*platformOf).p
	p.mu.Lock()
	defer p.mu.Unlock()
	if args[0] == "fails" {
		code, err := strconv.Atoi(args[2])
		ts.Check(err)
		p.Fails[args[1]] = code
		return
	}
	held, err := json.Marshal(p)
	ts.Check(err)
	if regexp.MustCompile(args[1]).Match(held) == neg {
		ts.Fatalf("the platform holds %s; want it to match %q: %t", held, args[1], !neg)
	}
}

// platformOf is the platform of one script.
type platformOf struct{ p *platform }

type platformKey struct{}

// learns VENDOR/ORGANIZATION ID STATUS writes into the record what the platform
// tells otherwise over time. A worker must be running.
func learns(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: learns VENDOR/ORGANIZATION ID STATUS")
	}
	vendor, organization, err := parseIntegration(args[0])
	ts.Check(err)
	url, _, err := broker.FindEmbedded(ts.Getenv("USAGEBRIDGE_STORE_DIR"))
	ts.Check(err)
	b, err := broker.Connect(context.Background(), broker.Config{URL: url})
	ts.Check(err)
	defer b.Close()
	bucket, err := broker.OpenBucket[status.Integration](context.Background(), b, broker.BucketIntegrations)
	ts.Check(err)
	_, err = bucket.Update(context.Background(), broker.IntegrationKey(vendor, organization), func(i *status.Integration) error {
		i.IntegrationID, i.Status = args[1], status.Status(args[2])
		return nil
	})
	ts.Check(err)
}
