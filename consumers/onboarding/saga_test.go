package onboarding_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// request is one that nothing is wrong with.
func request() onboarding.Request {
	return onboarding.Request{
		Vendor: "acme", Organization: "msp-0042", OrganizationName: "Contoso", Email: "ann@contoso.example", FirstName: "Ann", LastName: "Ott",
		VendorUserID: "u-1", Kind: onboarding.External, APIURL: "https://sub.mspcentric.example/api",
	}
}

// crash is how a process ends that is killed.
type crash struct{}

// fate decides what goes wrong next: the faults of a run, in their order.
type fate func(at string) string

// The faults that a fate may choose. Those with an effect happen after the
// platform has done, or the store has kept, what it was asked.
const (
	fine         = ""
	dieBefore    = "die before"
	dieAfter     = "die after"
	loseBefore   = "lost request"
	loseAfter    = "lost answer"
	unreadable   = "unreadable answer"
	refuse       = "rejected"
	unauthorized = "unauthorized"
	throttle     = "throttled"
	repeat       = "change once more" // the store did not hear that it has stored
	overtake     = "overtaken"        // another driver comes while this one is at it, a minute later
)

// world is the store, the platform and the clock of a run.
type world struct {
	fate  fate
	now   time.Time
	keys  *vault.Vault
	rival func() // drives as another actor

	record  *onboarding.Record
	stored  []string // every version, as JSON
	audited map[onboarding.Step]int

	tokens     map[string]string // by the organization's id at the vendor
	keyOf      map[string]string // of integrations, by the organization's OEM token
	made       map[string]int    // what was made, by kind
	registered []onboarding.Registration
}

func newWorld(t interface{ Fatal(...any) }, f fate) *world {
	data, err := vault.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.Open(vault.ParseSource(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		fate: f, keys: keys, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), audited: map[onboarding.Step]int{},
		tokens: map[string]string{}, keyOf: map[string]string{}, made: map[string]int{},
	}
	w.ask(t, request(), onboarding.Gift{VendorToken: "v-token"})
	return w
}

// ask records a request, or asks once more.
func (w *world) ask(t interface{ Fatal(...any) }, q onboarding.Request, g onboarding.Gift) {
	if w.record == nil {
		r := onboarding.NewRecord(q, "command", "ann", w.now)
		w.record = &r
	}
	if err := w.record.Ask(q); err != nil {
		t.Fatal(err)
	}
	for _, text := range []*string{&g.VendorToken, &g.OEMToken, &g.PartnerToken} {
		if *text == "" {
			continue
		}
		sealed, err := w.keys.Seal(vault.NewSecret(*text), q.Name())
		if err != nil {
			t.Fatal(err)
		}
		*text = sealed
	}
	w.record.Take(&g, "ann", w.now)
}

func (w *world) driver() *onboarding.Driver { return onboarding.NewDriver(w.config()) }

func (w *world) config() onboarding.Config {
	return onboarding.Config{
		Records: w, Vault: w.keys,
		Platform: func(string) (onboarding.Platform, error) { return w, nil },
		Register: w.register,
		Audit: func(_ context.Context, d onboarding.Deed) error {
			return w.happen("audit", func() error { w.audited[d.Step]++; return nil })
		},
		Fingerprint: func(s vault.Secret, _ string) string { return fmt.Sprint(len(s.Reveal())) },
		Now:         func() time.Time { w.now = w.now.Add(time.Second); return w.now },
	}
}

// happen lets fate have its way with one thing that is done outside.
func (w *world) happen(at string, do func() error) error {
	fault := w.fate(at)
	failure := func(class onboarding.Class, unknown bool) error {
		return fmt.Errorf("%s: %w", at, &onboarding.CallError{Class: class, Unknown: unknown, Err: errors.New(fault)})
	}
	switch fault {
	case dieBefore:
		panic(crash{})
	case dieAfter:
		_ = do()
		panic(crash{})
	case loseBefore:
		return failure(onboarding.Passing, true)
	case loseAfter:
		_ = do()
		return failure(onboarding.Passing, true)
	case unreadable:
		_ = do()
		return failure(onboarding.Unreadable, true)
	case refuse:
		return failure(onboarding.Rejected, false)
	case unauthorized:
		return failure(onboarding.Unauthorized, false)
	case throttle:
		return failure(onboarding.Passing, false)
	case overtake:
		w.now = w.now.Add(2 * time.Minute)
		w.rival()
		err := do()
		w.now = w.now.Add(2 * time.Minute)
		w.rival()
		return err
	}
	return do()
}

func (w *world) Update(_ context.Context, _, _ string, change func(*onboarding.Record) error) (r onboarding.Record, err error) {
	data, err := json.Marshal(w.record)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil {
		err = change(&r)
	}
	if err != nil {
		return r, err
	}
	switch w.fate("write") {
	case dieBefore:
		panic(crash{})
	case loseBefore, refuse, unauthorized:
		return r, errors.New("the store does not answer")
	case dieAfter:
		defer func() { panic(crash{}) }()
	case loseAfter, unreadable:
		defer func() { err = errors.New("the store's answer is lost") }()
	case repeat:
		if err := change(&r); err != nil {
			return r, err
		}
	}
	data, err = json.Marshal(&r)
	w.record = new(onboarding.Record)
	w.stored = append(w.stored, string(data))
	return r, errors.Join(err, json.Unmarshal(data, w.record))
}

func exists(what string) error {
	return &onboarding.CallError{Class: onboarding.Exists, Err: errors.New(what + " exists")}
}

func (w *world) CreateOrganization(_ context.Context, q *onboarding.Request) (token vault.Secret, err error) {
	err = w.happen("organization", func() error {
		if w.tokens[q.Organization] != "" {
			return exists("organization")
		}
		w.made["organization"]++
		w.tokens[q.Organization] = fmt.Sprintf("secret-oem-%d", w.made["organization"])
		token = vault.NewSecret(w.tokens[q.Organization])
		return nil
	})
	return token, err
}

func (w *world) AddUser(_ context.Context, q *onboarding.Request) (token vault.Secret, err error) {
	err = w.happen("user", func() error {
		if w.tokens[q.Organization] == "" {
			return &onboarding.CallError{Class: onboarding.NotFound, Err: errors.New("no such organization")}
		}
		token = vault.NewSecret(w.tokens[q.Organization])
		return nil
	})
	return token, err
}

func (w *world) OpenSession(_ context.Context, oemToken vault.Secret, user string) (link vault.Secret, err error) {
	err = w.happen("session", func() error {
		w.made["session"]++
		link = vault.NewSecret("https://platform.example/secret-link/" + user + oemToken.Reveal())
		return nil
	})
	return link, err
}

func (w *world) Vendors(context.Context) (list []onboarding.PlatformVendor, err error) {
	err = w.happen("vendors", func() error {
		list = []onboarding.PlatformVendor{{ID: "pv-1", Name: "Acme", Kind: onboarding.External}}
		return nil
	})
	return list, err
}

func (w *world) CreateIntegration(_ context.Context, oemToken vault.Secret, n onboarding.NewIntegration) (id string, key vault.Secret, err error) {
	err = w.happen("integration", func() error {
		if w.keyOf[oemToken.Reveal()] != "" {
			return exists("integration")
		}
		w.made["integration"]++
		w.keyOf[oemToken.Reveal()] = fmt.Sprintf("secret-key-%d", w.made["integration"])
		id, key = "int-1", vault.NewSecret(w.keyOf[oemToken.Reveal()])
		return nil
	})
	return id, key, err
}

func (w *world) Integrations(_ context.Context, oemToken vault.Secret) (list []onboarding.PlatformIntegration, err error) {
	err = w.happen("list", func() error {
		if w.keyOf[oemToken.Reveal()] != "" {
			list = []onboarding.PlatformIntegration{{ID: "int-1", Vendor: "pv-1"}}
		}
		return nil
	})
	return list, err
}

func (w *world) register(_ context.Context, g onboarding.Registration) error {
	return w.happen("register", func() error {
		if len(w.registered) > 0 {
			if w.registered[0].PartnerToken.Reveal() == g.PartnerToken.Reveal() {
				return nil // as it is
			}
			return exists("another integration")
		}
		w.registered = append(w.registered, g)
		return nil
	})
}

// drive advances until nothing goes on, as a process of its own that may die.
func (w *world) drive(name string) (link string, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			err = errors.New("died")
		}
	}()
	d, who := w.driver(), onboarding.Actor{Name: name, Run: fmt.Sprint(name, w.now.UnixNano()), Links: true}
	for {
		m, err := d.Advance(context.Background(), "acme", "msp-0042", who)
		if err != nil {
			return "", err
		}
		if m.Action == onboarding.ActionOpenSession {
			return m.Link.Reveal(), nil
		}
	}
}

// Whatever goes wrong, and whenever, in the end there is one organization, one
// integration whose key we have, and one record; and nothing was made twice.
func TestAnOnboardingSurvivesWhateverHappens(t *testing.T) {
	faults := []string{fine, fine, fine, dieBefore, dieAfter, loseBefore, loseAfter, unreadable, refuse, unauthorized, throttle, overtake, repeat}
	met := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		left, nested := rapid.IntRange(0, 8).Draw(t, "faults"), false
		var w *world
		w = newWorld(t, func(at string) string {
			if left <= 0 || nested || w == nil {
				return fine
			}
			fault := rapid.SampledFrom(faults).Draw(t, at)
			if fault != fine {
				left--
				met[fault]++
			}
			return fault
		})
		w.rival = func() {
			nested = true
			_, _ = w.drive("rival")
			nested = false
		}
		removed, link := 0, ""
		for range 40 {
			var err error
			if link, err = w.drive("ann"); err == nil {
				break
			}
			w.now = w.now.Add(2 * time.Minute)
			if w.record.State(w.now) == onboarding.Lost { // the platform removes it, as it is asked to
				clear(w.keyOf)
				removed++
			}
			w.ask(t, request(), onboarding.Gift{})
		}
		w.settled(t, link, removed)
	})
	for _, fault := range faults {
		if fault != fine && met[fault] == 0 {
			t.Errorf("no run met %q: the property says nothing about it", fault)
		}
	}
}

// settled checks how a run has to end.
func (w *world) settled(t *rapid.T, link string, removed int) {
	if link == "" || w.record.State(w.now) != onboarding.Done {
		t.Fatalf("got link %q and state %s (%s), want a link and done", link, w.record.State(w.now), w.record.Message)
	}
	if w.made["organization"] != 1 || w.made["integration"] != 1+removed || len(w.registered) != 1 {
		t.Fatalf("got %v made and %d registered, with %d removed; want one of each and what was removed", w.made, len(w.registered), removed)
	}
	g := w.registered[0]
	if oem := w.tokens["msp-0042"]; g.OEMToken.Reveal() != oem || g.PartnerToken.Reveal() != w.keyOf[oem] || g.VendorToken.Reveal() != "v-token" || g.ID != "int-1" {
		t.Fatalf("registered with other tokens than the platform gave")
	}
	for _, s := range onboarding.Steps() {
		if w.audited[s] == 0 {
			t.Fatalf("step %s is not in the audit log", s)
		}
	}
	for _, version := range w.stored {
		if strings.Contains(version, "secret-") || strings.Contains(version, "v-token") {
			t.Fatalf("a secret is stored in clear: %s", version)
		}
	}
	if w.record.PartnerToken != "" || w.record.VendorToken != "" || w.record.OEMToken == "" {
		t.Fatalf("got a finished record %+v, want the OEM token alone in it", w.record)
	}
}

func TestAStoreThatForgetsToSayThatItHasStoredChangesNothing(t *testing.T) {
	w := newWorld(t, func(at string) string {
		if at == "write" {
			return repeat
		}
		return fine
	})
	w.tokens["msp-0042"] = "somebody else's"
	_, err := w.drive("ann")
	if stopped, ok := errors.AsType[*onboarding.Error](err); !ok || stopped.Problem != onboarding.ProblemOrganizationExists {
		t.Errorf("got %v, want the organization not to be taken for ours", err)
	}
	if w.record.Problem != onboarding.ProblemOrganizationExists {
		t.Errorf("recorded: got %q, want what was told", w.record.Problem)
	}
}

// leaving is a platform that answers after whoever asked has given up.
type leaving struct {
	*world
	leave func()
}

func (l leaving) CreateOrganization(ctx context.Context, q *onboarding.Request) (vault.Secret, error) {
	l.leave()
	if ctx.Err() != nil {
		return vault.Secret{}, &onboarding.CallError{Class: onboarding.Cancelled, Unknown: true, Err: ctx.Err()}
	}
	return l.world.CreateOrganization(ctx, q)
}

func TestAnAnswerThatIsGivenOnceIsWaitedForByWhoGivesUp(t *testing.T) {
	w := newWorld(t, func(string) string { return fine })
	ctx, leave := context.WithCancel(t.Context())
	config := w.config()
	config.Platform = func(string) (onboarding.Platform, error) { return leaving{w, leave}, nil }
	m, err := onboarding.NewDriver(config).Advance(ctx, "acme", "msp-0042", ann)
	if err != nil || m.Record.OEMToken == "" || w.record.OEMToken == "" {
		t.Errorf("got %v and %+v, want the token kept", err, w.record)
	}
	if _, err := onboarding.NewDriver(config).Advance(ctx, "acme", "msp-0042", ann); !errors.Is(err, context.Canceled) {
		t.Errorf("after that: got %v, want nothing begun", err)
	}
}

func TestAFinishedOnboardingGivesANewLinkAndNothingElse(t *testing.T) {
	w := newWorld(t, func(string) string { return fine })
	for n := 1; n <= 3; n++ {
		w.ask(t, request(), onboarding.Gift{VendorToken: "another"})
		link, err := w.drive("ann")
		if err != nil || !strings.HasPrefix(link, "https://platform.example/secret-link/u-1") {
			t.Fatalf("got %q, %v; want a link", link, err)
		}
		if w.made["session"] != n || w.made["organization"] != 1 || w.made["integration"] != 1 || len(w.registered) != 1 {
			t.Errorf("after %d runs: got %v made, want %d sessions and one of the rest", n, w.made, n)
		}
		if w.record.VendorToken != "" {
			t.Errorf("got a vendor token kept in a finished record, want none")
		}
	}
}

func TestAnotherDriverIsNotDisturbedForAMinute(t *testing.T) {
	w := newWorld(t, func(at string) string {
		if at == "vendors" {
			return dieBefore
		}
		return fine
	})
	if _, err := w.drive("ann"); err == nil {
		t.Fatal("got no error, want the end of the process")
	}
	begun := w.now
	w.fate = func(string) string { return fine }
	_, err := w.drive("worker w")
	busy, ok := errors.AsType[*onboarding.BusyError](err)
	if !ok || busy.By != "ann" || busy.Step != onboarding.StepVendor || !busy.Temporary() || !strings.Contains(err.Error(), "ann is at step vendor since 2026-11-20T12:00") {
		t.Errorf("got %v, want one that says who is at which step since when", err)
	}
	if got := w.record.State(w.now); got != onboarding.Running {
		t.Errorf("state: got %s, want running", got)
	}
	w.now = begun.Add(time.Minute)
	if got := w.record.State(w.now); got != onboarding.Open {
		t.Errorf("state a minute later: got %s, want open", got)
	}
	if _, err := w.drive("worker w"); err != nil {
		t.Errorf("a minute later: got %v, want it taken over", err)
	}
}

func TestTheDriversErrorsTellSecretsToNobody(t *testing.T) {
	for _, at := range []string{"organization", "integration", "session", "list", "user", "register"} {
		for _, fault := range []string{loseAfter, unreadable} {
			w := newWorld(t, func(what string) string {
				if what == at {
					return fault
				}
				return fine
			})
			_, err := w.drive("ann")
			if text := fmt.Sprintf("%v %+v", err, w.record); strings.Contains(text, "secret-") || strings.Contains(text, "v-token") {
				t.Errorf("%s at %s: %s tells a secret", fault, at, text)
			}
		}
	}
}
