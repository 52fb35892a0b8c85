package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// onboardSite is a store and a platform.
type onboardSite struct {
	t        *testing.T
	app      *app
	platform *oemPlayed
	log      *bytes.Buffer // of everything
	lost     int           // integrations that were removed at the platform because their key was lost
}

const onboardVendorToken = `vendor"<token>&`

func newOnboardSite(t *testing.T) *onboardSite {
	t.Helper()
	s := &onboardSite{t: t, platform: newOEMPlayed(), log: &bytes.Buffer{}}
	server := httptest.NewServer(s.platform)
	t.Cleanup(server.Close)
	config, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config.StoreDir, config.NATSListen, config.NATSURL = filepath.Join(dir, "store"), "127.0.0.1:-1", ""
	config.OEMAPIURL, config.OEMClientID, config.OEMClientSecretFile = server.URL+"/api", "client", filepath.Join(dir, "secret")
	if err := os.WriteFile(config.OEMClientSecretFile, []byte(oemPlayedSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.app, err = openApp(t.Context(), config, newLogger(s.log, "debug", "json")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.app.close)
	if _, err := s.app.broker.Init(t.Context(), broker.InitConfig{Vendor: "acme", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	return s
}

// asks is a request for the organization of an id.
func (s *onboardSite) asks(organization string) *asked {
	return &asked{
		Request: onboarding.Request{
			Vendor: "acme", Organization: organization, OrganizationName: "Name of " + organization, Email: "ann@contoso.example",
			FirstName: "Ann", LastName: "Ott", VendorUserID: "u-" + organization, Kind: onboarding.External, APIURL: s.app.config.OEMAPIURL,
		},
		source: askedByCommand, actor: "ann", vendorToken: vault.NewSecret(onboardVendorToken),
	}
}

// diesAt is what ends a run, as a crash of the process would.
type diesAt struct{}

// mortal lets the process die at a write.
type mortal struct {
	onboarding.Records
	left  int  // writes until then
	after bool // the write is done
}

func (m *mortal) Update(ctx context.Context, vendor, organization string, change func(*onboarding.Record) error) (onboarding.Record, error) {
	m.left--
	if m.left == 0 && !m.after {
		panic(diesAt{})
	}
	r, err := m.Records.Update(ctx, vendor, organization, change)
	if m.left == 0 {
		panic(diesAt{})
	}
	return r, err
}

// run asks for the organization and drives it, in a process of its own that may
// die at a write: 0 is none. later is how much time has passed for it.
func (s *onboardSite) run(organization string, write int, after bool, later time.Duration) (link string, died bool, err error) {
	s.t.Helper()
	o, err := s.app.onboarder(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer o.close()
	config := o.config()
	config.Records = &mortal{config.Records, write, after}
	config.Now = func() time.Time { return time.Now().Add(later) }
	o.driver = onboarding.NewDriver(config)
	defer func() {
		if r := recover(); r != nil {
			if _, died = r.(diesAt); !died {
				panic(r)
			}
		}
	}()
	if _, err := o.ask(s.t.Context(), s.asks(organization)); err != nil {
		return "", false, err
	}
	moved, err := o.drive(s.t.Context(), "acme", organization, driving{
		actor: "ann", link: true, moved: func(onboarding.Moved) {}, waiting: func(error, time.Duration) {},
	})
	return moved.Link.Reveal(), false, err
}

// finish runs until there is a link, whatever a person has to do for it.
func (s *onboardSite) finish(organization string) {
	s.t.Helper()
	for n := range 4 {
		link, _, err := s.run(organization, 0, false, time.Duration(n+1)*2*time.Minute)
		if err == nil {
			if !strings.HasPrefix(link, "https://platform.example/magic/u-"+organization) {
				s.t.Errorf("%s: got link %q, want one for u-%s", organization, link, organization)
			}
			return
		}
		s.remove(organization, err)
	}
	s.t.Fatalf("%s: four runs brought no link", organization)
}

// remove has the platform remove an integration whose key is lost.
func (s *onboardSite) remove(organization string, err error) {
	s.t.Helper()
	if why, ok := errors.AsType[*onboarding.Error](err); !ok || why.Problem != onboarding.ProblemLost {
		s.t.Fatalf("%s: %v", organization, err)
	}
	s.platform.mu.Lock()
	defer s.platform.mu.Unlock()
	clear(s.platform.orgs[organization].integrations)
	s.lost++
}

// settled checks one finished onboarding.
func (s *onboardSite) settled(organization string) {
	s.t.Helper()
	s.settledAt(organization, onboarding.Steps())
}

// settledButForTheLink is settled for one that no person has driven to its end.
func (s *onboardSite) settledButForTheLink(organization string) {
	s.t.Helper()
	s.settledAt(organization, onboarding.Steps()[:4])
}

func (s *onboardSite) settledAt(organization string, steps []onboarding.Step) {
	s.t.Helper()
	i, err := s.app.integration(s.t.Context(), "acme", organization)
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := s.app.vault(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	oemToken, key := s.platform.org(organization)
	for what, token := range map[string][2]string{
		"vendor token": {i.VendorToken, onboardVendorToken}, "partner token": {i.PartnerToken, key}, "OEM token": {i.OEMToken, oemToken},
	} {
		if got, err := keys.Open(token[0], i.Name()); err != nil || got.Reveal() != token[1] {
			s.t.Errorf("%s: the %s on record is not the platform's (%v)", organization, what, err)
		}
	}
	if i.IntegrationID != "int-pv-1" || i.Status != "inactive" {
		s.t.Errorf("%s: got integration %q and status %s, want int-pv-1 and inactive", organization, i.IntegrationID, i.Status)
	}
	told := map[string]bool{}
	err = s.app.actions(s.t.Context(), time.Time{}, func(done action) bool {
		if done.Integration == i.Name() {
			told[done.Action] = true
		}
		return true
	})
	for _, step := range steps {
		if err != nil || !told["onboarding: "+string(step)] {
			s.t.Errorf("%s: step %s is not in the audit log (%v)", organization, step, err)
		}
	}
}

// hidden checks that no secret is anywhere in the store, nor in the texts.
func (s *onboardSite) hidden(texts ...string) {
	s.t.Helper()
	s.app.close()
	s.app.broker, s.app.embedded = nil, nil
	all := map[string]string{"the log": s.log.String()}
	for i, text := range texts {
		all[fmt.Sprint("text ", i)] = text
	}
	size := 0
	err := filepath.WalkDir(s.app.config.StoreDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		size += len(data)
		return err
	})
	if err != nil || size == 0 {
		s.t.Fatalf("read the store: %d bytes, %v", size, err)
	}
	for _, secret := range append(s.platform.secrets(), onboardVendorToken) {
		for how, form := range forms(secret) {
			for where, text := range all {
				if strings.Contains(text, form) {
					s.t.Errorf("%s shows %s, %s", where, secret, how)
				}
			}
		}
	}
}

// forms is a secret as it could be found.
func forms(secret string) map[string]string {
	quoted, _ := json.Marshal(secret)
	var plain bytes.Buffer
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(secret)
	return map[string]string{
		"plain":          secret,
		"in base64":      strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "="),
		"in base64url":   base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"in JSON":        string(quoted[1 : len(quoted)-1]),
		"in JSON for us": strings.Trim(strings.TrimSpace(plain.String()), `"`),
	}
}

func TestAnOnboardingThatDiesAtAnyWriteGoesOnAndMakesNothingTwice(t *testing.T) {
	t.Parallel()
	s := newOnboardSite(t)
	runs := 0
	for _, after := range []bool{false, true} {
		for write := 1; ; write++ {
			organization := fmt.Sprintf("msp-%t-%d", after, write)
			_, died, err := s.run(organization, write, after, 0)
			if !died {
				if err != nil {
					t.Fatal(err)
				}
				break // it has no more writes
			}
			runs++
			s.finish(organization)
			s.settled(organization)
		}
	}
	if runs < 20 {
		t.Errorf("died %d times, want at least 20: two writes and one for the audit log for each step", runs)
	}
	if made := s.platform.counts(); made["/organization"] != runs+2 || made["/integration"] != runs+2+s.lost || s.lost == 0 {
		t.Errorf("got %v made, with %d removed; want one of each for %d organizations and what was removed", made, s.lost, runs+2)
	}
	s.hidden()
}

// The command is killed while the platform works on a call, which it does or not.
func TestAKilledCommandGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	s := newOnboardSite(t)
	path, err := exec.LookPath("usagebridge")
	if err != nil {
		t.Fatal(err)
	}
	vendorFile := filepath.Join(t.TempDir(), "vendor.token")
	if err := os.WriteFile(vendorFile, []byte(onboardVendorToken), 0o600); err != nil {
		t.Fatal(err)
	}
	var talk, said bytes.Buffer
	command := func(organization string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), path, "integrations", "onboard", "--vendor", "acme", "--vendor-organization-id", organization, "--org-name", "Name of "+organization,
			"--email", "ann@contoso.example", "--first-name", "Ann", "--last-name", "Ott", "--vendor-user-id", "u-"+organization, "--vendor-token-file", vendorFile, "--timeout", "0s")
		cmd.Env = append(os.Environ(), "USAGEBRIDGE_NATS_URL="+s.app.embedded.ClientURL(), "USAGEBRIDGE_STORE_DIR="+s.app.config.StoreDir, "USAGEBRIDGE_OEM_API_URL="+s.app.config.OEMAPIURL,
			"USAGEBRIDGE_OEM_CLIENT_ID=client", "USAGEBRIDGE_OEM_CLIENT_SECRET_FILE="+s.app.config.OEMClientSecretFile, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
		cmd.Stderr, cmd.Stdout = &talk, &said
		return cmd
	}
	for _, call := range []string{"/organization", "/vendor", "/integration", "/session"} {
		for _, effect := range []bool{false, true} {
			organization := fmt.Sprintf("msp-%s-%t", call[1:], effect)
			cmd := command(organization)
			started := make(chan *os.Process, 1)
			s.platform.tells(func(now string) {
				if now == call {
					_ = (<-started).Kill()
				}
			})
			s.platform.fails(call, map[bool]string{false: "503"}[effect])
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			started <- cmd.Process
			if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
				t.Fatalf("%s: got %v, want it killed", organization, err)
			}
			s.platform.tells(nil)
			s.platform.counts() // what it was at is over
			s.calm(organization)
			for {
				err := command(organization).Run()
				if err == nil {
					break
				}
				if code := (&exec.ExitError{}); !errors.As(err, &code) || code.ExitCode() != exitUsage {
					t.Fatalf("%s: got %v, want it to go on: %s", organization, err, talk.String())
				}
				s.remove(organization, &onboarding.Error{Problem: s.record(organization).Problem})
			}
			s.settled(organization)
		}
	}
	if made := s.platform.counts(); made["/organization"] != 8 || made["/integration"] != 8+s.lost || s.lost != 1 {
		t.Errorf("got %v made, with %d removed; want one of each for 8 organizations, and one key lost", made, s.lost)
	}
	links := strings.Split(strings.TrimSpace(said.String()), "\n")
	if len(links) != 8 || slices.ContainsFunc(links, func(l string) bool { return !strings.HasPrefix(l, "https://platform.example/magic/u-msp-") }) {
		t.Errorf("stdout: got %q, want 8 links and nothing else", links)
	}
	s.hidden(talk.String())
}

func (s *onboardSite) record(organization string) onboarding.Record {
	s.t.Helper()
	bucket, err := s.app.onboardings(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	r, _, err := bucket.Get(s.t.Context(), broker.IntegrationKey("acme", organization))
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// calm lets the minute pass in which nobody takes over what another has begun.
func (s *onboardSite) calm(organization string) {
	s.t.Helper()
	bucket, err := s.app.onboardings(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = bucket.Update(s.t.Context(), broker.IntegrationKey("acme", organization), func(r *onboarding.Record) error {
		begun := false
		for _, p := range r.Steps {
			if !p.Begun.IsZero() {
				p.Begun, begun = p.Begun.Add(-2*time.Minute), true
			}
		}
		if !begun {
			return errors.New("nothing is under way: it was not killed within a step")
		}
		r.Changed = r.Changed.Add(-2 * time.Minute)
		return nil
	})
	if err != nil {
		s.t.Fatalf("%s: %v", organization, err)
	}
}

func TestTwoWhoOnboardAtTheSameTimeMakeOneOfEach(t *testing.T) {
	t.Parallel()
	s := newOnboardSite(t)
	ended := make(chan error, 2)
	for _, who := range []string{"ann", "worker w"} {
		go func() {
			o, err := s.app.onboarder(t.Context())
			if err != nil {
				ended <- err
				return
			}
			defer o.close()
			if _, err = o.ask(t.Context(), s.asks("msp-1")); err == nil {
				_, err = o.drive(t.Context(), "acme", "msp-1", driving{
					actor: who, link: true, timeout: time.Minute, moved: func(onboarding.Moved) {}, waiting: func(error, time.Duration) {},
				})
			}
			ended <- err
		}()
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Errorf("got %v, want both to come to an end", err)
		}
	}
	if made := s.platform.counts(); made["/organization"] != 1 || made["/integration"] != 1 || made["/session"] != 2 {
		t.Errorf("got %v made, want one organization, one integration and a link for each", made)
	}
	s.settled("msp-1")
}

// post sends an onboarding to a worker's API.
func (s *onboardSite) post(address, token, body string) (int, string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+address+"/api/v1/onboardings", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{}
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestAnOnboardingOverHTTPGivesItsLinkOnceAndSaysWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	s := newOnboardSite(t)
	s.app.config.APITokenFile = filepath.Join(t.TempDir(), "api.token")
	if err := os.WriteFile(s.app.config.APITokenFile, []byte("api-s3cret-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, stop := serveApp(t, s.app)
	token, _ := json.Marshal(onboardVendorToken)
	own := `,"vendorToken":` + string(token)
	body := func(organization, more string) string {
		return `{"vendorId":"acme","organizationId":"` + organization + `","organizationName":"Name of ` + organization + `","email":"ann@contoso.example","firstName":"Ann","lastName":"Ott",` +
			`"vendorUserId":"u-` + organization + `"` + more + `}`
	}
	var said []string
	for _, test := range []struct {
		name, token, body string
		fault             [2]string
		status            int
		want              string
	}{
		{"another token", "wrong", body("msp-1", own), [2]string{}, http.StatusUnauthorized, "Bearer"},
		{"a new one", "api-s3cret-token", body("msp-1", own), [2]string{}, http.StatusCreated, `"state":"done","step":"session"`},
		{"a new link", "api-s3cret-token", body("msp-1", own), [2]string{}, http.StatusCreated, `"magicLink":"https://platform.example/magic/u-msp-1-2"`},
		{"other values", "api-s3cret-token", body("msp-1", own+`,"platformVendorId":"pv-2"`), [2]string{}, http.StatusConflict, `"pointer":"/platformVendorId","reason":"invalid","problem":"is \"pv-2\", recorded is \"pv-1\""`},
		{"credentials of an external one", "api-s3cret-token", body("msp-2", own+`,"kind":"external","credentials":{"API key":"x"}`), [2]string{}, http.StatusUnprocessableEntity, `"pointer":"/credentials"`},
		{"another vendor", "api-s3cret-token", strings.Replace(body("msp-2", own), `"acme"`, `"other"`, 1), [2]string{}, http.StatusConflict, `usagebridge init --vendor other`},
		{"its answer is lost", "api-s3cret-token", body("msp-3", own), [2]string{"/integration", oemGarbles}, http.StatusAccepted, `"state":"open","step":"integration"`},
		{"the key is lost", "api-s3cret-token", body("msp-3", own), [2]string{}, http.StatusConflict, `send the same request again with partnerToken`},
		{"the client is refused", "api-s3cret-token", body("msp-4", own), [2]string{"/organization", "401"}, http.StatusBadGateway, "does not let this client in"},
		{"the vendor token of another", "api-s3cret-token", body("msp-5", `,"vendorTokenOf":"msp-1"`), [2]string{}, http.StatusCreated, `"magicLink"`},
		{"the vendor token of nobody", "api-s3cret-token", body("msp-6", `,"vendorTokenOf":"msp-9"`), [2]string{}, http.StatusUnprocessableEntity, `"pointer":"/vendorTokenOf"`},
	} {
		s.platform.fails(test.fault[0], test.fault[1])
		status, text := s.post(address, test.token, test.body)
		if status != test.status || !strings.Contains(text, test.want) {
			t.Errorf("%s: got %d %s, want %d with %s", test.name, status, text, test.status, test.want)
		}
		if !strings.Contains(text, "magicLink") {
			said = append(said, text)
		}
	}
	s.settled("msp-1")
	s.settled("msp-5")
	list, err := s.app.tellOnboardings(t.Context(), "", "")
	if err != nil || len(list) != 4 || list[1].State != "lost" || list[0].MagicLink != "" {
		t.Errorf("got %+v, %v; want four onboardings without links, the second of them lost", list, err)
	}
	stop()
	s.hidden(append(said, fmt.Sprint(list))...)
}

// serveApp runs a worker until the test ends, or stop is called.
func serveApp(t *testing.T, a *app) (address string, stop func()) {
	t.Helper()
	registry := newRegistry()
	e, err := newEngine(t.Context(), a, registry)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.runWith(ctx, listener, registry) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("worker ended with %v, want no error", err)
		}
	})
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}
