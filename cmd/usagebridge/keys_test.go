package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// logged is a log that several workers write.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// named is the site as a worker of another name sees it.
func (s *crashSite) named(name string, log *logged) *crashSite {
	a := *s.app
	a.config.WorkerID, a.config.ProbeMin, a.config.ProbeMax = name, 200*time.Millisecond, time.Second
	a.config.PartnerTimeout, a.config.Linger = time.Second, 10*time.Millisecond
	a.log = newLogger(log, "debug", "json")
	return &crashSite{t: s.t, app: &a, partner: s.partner, env: s.env}
}

// rotation begins a rotation of the site's keyset.
func (s *crashSite) rotation() *rotation {
	s.t.Helper()
	c := &cli{stdout: s.t.Output(), stderr: s.t.Output()}
	r, err := c.rotation(s.t.Context(), s.app, "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = r.file.Close() })
	r.settle = 0
	return r
}

func TestKeysAreRotatedUnderLoadWithoutARefusedCall(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{Seed: 1, Rules: []sandbox.Rule{
		{Operation: sandbox.OperationCount, Probability: 1, Effect: sandbox.Delay, Latency: 2 * time.Millisecond},
	}})
	if _, err := s.app.broker.Init(t.Context(), broker.InitConfig{Vendor: "acme", LeaseTTL: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	log := &logged{}
	for _, name := range []string{"w1", "w2"} {
		s.named(name, log).serve()
	}
	p, err := publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(data event.Data) {
		if _, err := p.Publish(context.WithoutCancel(t.Context()), &event.Event{Organization: "m", Data: data}); err != nil {
			t.Error(err)
		}
	}
	publish(event.Account{AccountID: "a", Name: "A"})
	publish(event.Service{ServiceID: "s", Name: "S"})
	ended, stop := make(chan int), make(chan struct{})
	go func() {
		n := 0
		for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
			n++
			publish(event.Count{AccountID: "a", ServiceID: "s", UnitCount: event.Units(n) * event.UnitsScale})
			select {
			case <-stop:
				ended <- n
				return
			default:
			}
		}
	}()
	eventuallyTrue(t, time.Minute, "counts flow", func() bool { return s.partner.Report().Totals.AcceptedCounts > 10 })

	before := s.partner.Report().Totals.AcceptedCounts
	r := s.rotation()
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.done.Resealed != 2 || !r.done.Promoted || len(r.done.Retired) != 1 {
		t.Errorf("got %+v, want two secrets sealed anew, one key promoted and one retired", r.done)
	}
	if during := s.partner.Report().Totals.AcceptedCounts - before; during < 10 {
		t.Errorf("got %d counts delivered while keys were rotated, want the flow to go on", during)
	}
	close(stop)
	last := fmt.Sprint(<-ended)
	eventuallyTrue(t, time.Minute, "the newest count is delivered", func() bool {
		got, _ := s.partner.Value("acme/m", "a", "s")
		return got == last
	})
	for _, call := range s.partner.Tape() {
		if call.Status == 401 {
			t.Errorf("call %d was answered 401, want none", call.Sequence)
		}
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, vault.ErrSealed.Error()) {
			t.Errorf("a worker complained: %s", line)
		}
	}
}

// checkTokens opens everything that is stored.
func checkTokens(t *testing.T, when string, keys *vault.Vault, places []vault.Place, want int) {
	t.Helper()
	opened := 0
	for _, place := range places {
		err := place.Each(t.Context(), func(_ string, fields []vault.Field) error {
			for _, f := range fields {
				if _, err := keys.Open(*f.Text, f.Owner); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				opened++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if opened != want {
		t.Errorf("%s: got %d secrets stored, want %d", when, opened, want)
	}
}

// A rotation ends after every one of its steps in turn, and is run again. At each of them a worker
// that has not yet looked at the file opens everything, and so does one that has just started.
func TestARotationThatIsBrokenOffAnywhereGoesOn(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	for _, name := range []string{"n", "o"} {
		s.addNamed(name)
	}
	worker, err := s.app.vault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{app: s.app, vault: worker}
	member, err := s.app.broker.Member(t.Context(), "w", e.note)
	if err != nil {
		t.Fatal(err)
	}
	errCrash := errors.New("killed")
	for crashAt := 1; ; crashAt++ {
		first := worker.Primary()
		steps, seen := 0, []string(nil)
		crashing := func(step string) error {
			steps++
			seen = append(seen, step)
			places, err := s.app.places(t.Context())
			if err != nil {
				return err
			}
			when := fmt.Sprintf("rotation %d after %q", crashAt, seen)
			checkTokens(t, when+", worker", worker, places, 6)
			if _, err := worker.Reload(t.Context(), e.accept); err != nil {
				t.Errorf("%s: the worker complains: %v", when, err)
			}
			started, err := s.app.vault(t.Context())
			if err != nil {
				return err
			}
			checkTokens(t, when+", started", started, places, 6)
			if steps == crashAt {
				return errCrash
			}
			return member.Renew(t.Context())
		}
		err := s.rotate(crashing)
		crashed := errors.Is(err, errCrash)
		if err != nil && !crashed {
			t.Fatalf("rotation %d, broken off after %q: %v", crashAt, seen, err)
		}
		if crashed { // what it left is what the next one finds
			crashAt := crashAt
			steps = crashAt + 1
			if err := member.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.rotate(crashing); err != nil {
				t.Fatalf("rotation %d, run again after %q: %v", crashAt, seen, err)
			}
		}
		s.checkRotated(first, seen)
		if !crashed {
			if crashAt < 12 {
				t.Errorf("got %d steps %q, want all of them broken off once", steps, seen)
			}
			return
		}
	}
}

// rotate is one run of a rotation in a process of its own.
func (s *crashSite) rotate(after func(string) error) error {
	r := s.rotation()
	defer func() { _ = r.file.Close() }()
	r.wait, r.after = time.Second, after
	return r.run(s.t.Context())
}

// addNamed adds an integration of that name.
func (s *crashSite) addNamed(organization string) {
	s.t.Helper()
	i, err := s.app.integration(s.t.Context(), "acme", "m")
	if err != nil {
		s.t.Fatal(err)
	}
	err = s.app.addIntegration(s.t.Context(), newIntegration{
		vendor: "acme", organization: organization, dialect: "mspcentric", status: "inactive", apiURL: i.APIURL,
		vendorToken: "v-" + organization, partnerToken: "p-" + organization,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// checkRotated looks at what a rotation must leave behind.
func (s *crashSite) checkRotated(former vault.Key, seen []string) {
	s.t.Helper()
	keys, err := s.app.vault(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	list := keys.Keys()
	if len(list) != 1 || list[0].State != vault.Primary || list[0].ID == former.ID {
		s.t.Errorf("after %q: got %s, want one other primary key than %d", seen, keyList(list), former.ID)
	}
	places, err := s.app.places(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	sealed, err := vault.Count(s.t.Context(), places...)
	if want := (vault.Tally{list[0].ID: 6}); err != nil || !reflect.DeepEqual(sealed, want) {
		s.t.Errorf("after %q: got %v sealed and error %v, want %v", seen, sealed, err, want)
	}
	for what, key := range map[string]vault.Key{keyAdded: list[0], keyPromoted: list[0], keySealedAnew: list[0], keyRetired: former} {
		found := false
		err := s.app.actions(s.t.Context(), time.Time{}, func(done action) bool {
			found = done.Action == what && done.Object == keyName(key.ID) && strings.Contains(done.Detail, key.Print)
			return !found
		})
		if err != nil || !found {
			s.t.Errorf("after %q: key %d is not on record as %q (error %v)", seen, key.ID, what, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(s.app.config.StoreDir, ".keyset-*"))
	if err != nil || len(left) > 0 {
		s.t.Errorf("after %q: got %q left behind, want no copy of the keyset", seen, left)
	}
}

func TestTwoRotationsAtOnceAreOneTooMany(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	s.rotation()
	_, err := (&cli{}).rotation(t.Context(), s.app, "")
	if !errors.Is(err, vault.ErrLocked) || exitCode(err) != exitFailed {
		t.Errorf("got error %v, want %v, which passes by itself", err, vault.ErrLocked)
	}
}

func TestAWorkerThatStartsWithoutTheKeyStopsTheSealing(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	s.addNamed("n")
	former, err := s.app.vault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sealings := 0
	err = s.rotate(func(step string) error {
		if step != "sealing" {
			return nil
		}
		if sealings++; sealings == 1 {
			_, err := s.app.broker.Member(t.Context(), "late", (&engine{app: s.app, vault: former}).note)
			return err
		}
		return nil
	})
	if exitCode(err) != exitPartly || !strings.Contains(err.Error(), "late has key") || sealings != 1 {
		t.Errorf("got error %v after %d records, want the worker late named before the first", err, sealings)
	}
}

func TestAWorkerThatMeetsANewKeyReadsTheKeysetAtOnce(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	e, err := newEngine(t.Context(), s.app, newRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.rotate(nil); err != nil { // it is no member: nobody waits for it
		t.Fatal(err)
	}
	i, err := s.app.integration(t.Context(), "acme", "m")
	if err != nil {
		t.Fatal(err)
	}
	if e.link(i).Partner != nil {
		t.Fatal("the token opens with the former key, want one that is sealed with the new one")
	}
	e.learn(t.Context(), broker.IntegrationKey("acme", "m"), i)
	if e.link(i).Partner == nil || len(e.closed) != 0 {
		t.Errorf("got a link without a partner, and %v closed, want the token opened with the keyset in the file", e.closed)
	}
}

func TestAnIntegrationThatDidNotOpenIsUsedOnceTheKeysetFits(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	e, err := newEngine(t.Context(), s.app, newRegistry())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.app.config.StoreDir, "master-keyset.json")
	right, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e.vault = foreignVault(t) // as if it had started before the record came
	i, err := s.app.integration(t.Context(), "acme", "m")
	if err != nil {
		t.Fatal(err)
	}
	key := broker.IntegrationKey("acme", "m")
	e.learn(t.Context(), key, i)
	if !e.closed[key] {
		t.Fatal("a token that does not open is not noted")
	}
	if e.vault, err = vault.Open(vault.ParseSource(string(right))); err != nil {
		t.Fatal(err)
	}
	e.reopen(t.Context())
	if len(e.closed) != 0 {
		t.Errorf("got %v still closed, want it opened with the right keyset", e.closed)
	}
}

func foreignVault(t *testing.T) *vault.Vault {
	t.Helper()
	keyset, err := vault.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.Open(vault.ParseSource(string(keyset)))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestAStoreIsNotOpenedWithAnotherKeysetAndStaysAsItIs(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	right, err := s.app.vault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := vault.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.app.config.StoreDir, "master-keyset.json")
	replace := func(data []byte) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if data == nil {
			return
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := s.everything()
	missing := fmt.Sprintf("sealed with key %d (2 secrets)", right.Primary().ID)
	for _, keyset := range [][]byte{foreign, nil} {
		replace(keyset)
		for what, use := range map[string]func() error{
			"a worker":        func() error { _, err := newEngine(t.Context(), s.app, newRegistry()); return err },
			"add":             func() error { return s.app.addIntegration(t.Context(), s.another()) },
			"credentials set": s.setTokens,
		} {
			if err := use(); exitCode(err) != exitUsage || !strings.Contains(err.Error(), missing) {
				t.Errorf("%s with the keyset %q: got error %v, want it refused with %q", what, keyset, err, missing)
			}
		}
		if found, _ := os.ReadFile(path); !bytes.Equal(found, keyset) {
			t.Errorf("got the keyset %q made, want it left alone", found)
		}
	}
	if after := s.everything(); !reflect.DeepEqual(before, after) {
		t.Errorf("the store has changed: got %v\nwant %v", after, before)
	}
}

func (s *crashSite) another() newIntegration {
	return newIntegration{
		vendor: "acme", organization: "new", dialect: "mspcentric", status: "inactive",
		apiURL: "http://partner.example/api", vendorToken: "v", partnerToken: "p",
	}
}

func (s *crashSite) setTokens() error {
	return statusRecordsOf(s).Update(s.t.Context(), "acme", "m", func(i *status.Integration) error {
		_, _, err := s.app.setCredentials(s.t.Context(), i, newIntegration{vendorToken: "v", partnerToken: "p"})
		return err
	})
}

// everything is every message of every stream, but for the leases.
func (s *crashSite) everything() map[string][]string {
	s.t.Helper()
	all := map[string][]string{}
	for _, name := range []string{broker.BucketIntegrations, broker.BucketVendors, broker.BucketDecisions, broker.BucketReplays} {
		bucket, err := broker.OpenBucket[json.RawMessage](s.t.Context(), s.app.broker, name)
		if err != nil {
			s.t.Fatal(err)
		}
		records, err := bucket.All(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		for key, text := range records {
			_, revision, err := bucket.Get(s.t.Context(), key)
			if err != nil {
				s.t.Fatal(err)
			}
			all[name] = append(all[name], fmt.Sprintf("%s %d %s", key, revision, text))
		}
		slices.Sort(all[name])
	}
	err := s.app.actions(s.t.Context(), time.Time{}, func(done action) bool {
		all[broker.StreamAudit] = append(all[broker.StreamAudit], fmt.Sprintf("%+v", done))
		return true
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func TestASecretIsGivenUpOnlyWhenItsKeyIsLost(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	keys, err := s.app.vault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := keys.Primary().ID
	forget := func(want string) {
		t.Helper()
		if n, err := s.app.forgetKey(t.Context(), id, "lost"); exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) || n != 0 {
			t.Errorf("got %d given up and error %v, want it refused: %s", n, err, want)
		}
	}
	forget("the keyset has it")
	if err := os.Remove(filepath.Join(s.app.config.StoreDir, "master-keyset.json")); err != nil {
		t.Fatal(err)
	}
	member, err := s.app.broker.Member(t.Context(), "w1", (&engine{app: s.app, vault: keys}).note)
	if err != nil {
		t.Fatal(err)
	}
	forget("worker w1 has it")
	if err := member.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.app.forgetKey(t.Context(), id, "lost"); n != 2 || err != nil {
		t.Fatalf("got %d given up and error %v, want both tokens", n, err)
	}
	forget("nothing is sealed with key")
	if err := s.setTokens(); err != nil { // with a keyset that is made anew
		t.Fatal(err)
	}
	e, err := newEngine(t.Context(), s.app, newRegistry())
	if err != nil {
		t.Fatal(err)
	}
	i, err := s.app.integration(t.Context(), "acme", "m")
	if err != nil || e.link(i).Partner == nil {
		t.Errorf("got error %v, want the integration in use again with its new tokens", err)
	}
}

func TestDamagedRecordsDoNotMakeAKeysetTheWrongOne(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	err := statusRecordsOf(s).Update(t.Context(), "acme", "m", func(i *status.Integration) error {
		i.VendorToken, i.PartnerToken = i.VendorToken[:20]+"AAAA", i.PartnerToken[:20]+"AAAA"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.setTokens(); err != nil {
		t.Errorf("got error %v, want new tokens taken in place of damaged ones", err)
	}
}

func TestNothingIsSealedThatAWorkerCouldNotOpen(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	e := &engine{app: s.app, vault: foreignVault(t)}
	if _, err := s.app.broker.Member(t.Context(), "w9", e.note); err != nil {
		t.Fatal(err)
	}
	err := s.app.addIntegration(t.Context(), s.another())
	if exitCode(err) != exitUsage || !strings.Contains(err.Error(), "worker w9 could not open what this command would seal") {
		t.Errorf("got error %v, want the worker w9 named, which has another keyset", err)
	}
}
