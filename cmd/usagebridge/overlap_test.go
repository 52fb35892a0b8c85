package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// doorkeeper answers calls by the credentials with which they come.
type doorkeeper struct {
	*overlap

	answers  map[*vendorapi.Client]delivery.Class
	calls    string // one letter each: n for the new credentials, f for the former ones
	recorded string
	broken   error
}

func newDoorkeeper(until time.Time, used bool) *doorkeeper {
	d := &doorkeeper{answers: map[*vendorapi.Client]delivery.Class{}}
	d.overlap = &overlap{
		present: &vendorapi.Client{}, previous: &vendorapi.Client{}, until: until, timeout: time.Second, used: used, next: time.Now().Add(overlapRetry),
		record: func(_ context.Context, previous bool) error {
			if d.broken == nil {
				d.recorded += d.letter(previous)
			}
			return d.broken
		},
	}
	return d
}

func (*doorkeeper) letter(previous bool) string {
	if previous {
		return "f"
	}
	return "n"
}

// try makes one call and says with which credentials, and what came of it.
func (d *doorkeeper) try(ctx context.Context, present, previous delivery.Class) string {
	d.calls, d.recorded = "", ""
	d.answers[d.present], d.answers[d.previous] = present, previous
	a := d.call(ctx, func(_ context.Context, client *vendorapi.Client) delivery.Answer {
		d.calls += d.letter(client == d.previous)
		return delivery.Answer{Class: d.answers[client], Status: 200}
	})
	return fmt.Sprintf("%s %s %s", d.calls, a.Class, d.recorded)
}

func TestFormerCredentialsAreUsedOnlyWhileTheNewOnesAreRefused(t *testing.T) {
	const (
		good, bad, away   = delivery.Accepted, delivery.Unauthorized, delivery.Unavailable
		suspected, absent = delivery.Suspected, delivery.NotFound
	)
	want := func(class delivery.Class, calls, recorded string) string {
		return fmt.Sprintf("%s %s %s", calls, class, recorded)
	}
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			what              string
			used              bool
			wait              time.Duration
			present, previous delivery.Class
			want              string
		}{
			{"both are good", false, 0, good, good, want(good, "n", "")},
			{"the new ones are refused", false, 0, bad, good, want(good, "nf", "f")},
			{"the former ones find nothing", false, 0, bad, absent, want(absent, "nf", "f")},
			{"the partner is away", false, 0, away, good, want(away, "n", "")},
			{"both are refused", false, 0, bad, bad, want(bad, "nf", "")},
			{"the former ones are suspected", false, 0, bad, suspected, want(bad, "nf", "")},
			{"it goes away in between", false, 0, bad, away, want(away, "nf", "")},
			{"the former ones are in use", true, 0, bad, good, want(good, "f", "")},
			{"the new ones are tried after a minute", true, overlapRetry, bad, good, want(good, "nf", "")},
			{"the new ones are taken then", true, overlapRetry, good, good, want(good, "n", "n")},
			{"the partner is away then", true, overlapRetry, away, good, want(away, "n", "")},
			{"the former ones end", true, 0, good, bad, want(good, "fn", "n")},
			{"both end", true, 0, bad, bad, want(bad, "fn", "")},
			{"the overlap is over", false, time.Hour, bad, good, want(bad, "n", "")},
			{"the overlap is over in use", true, time.Hour, bad, good, want(bad, "n", "")},
		} {
			d := newDoorkeeper(time.Now().Add(time.Hour), test.used)
			<-time.After(test.wait)
			if got := d.try(t.Context(), test.present, test.previous); got != test.want {
				t.Errorf("%s: got %q, want %q", test.what, got, test.want)
			}
		}
		d := newDoorkeeper(time.Now().Add(time.Hour), false)
		for n, step := range []string{want(good, "nf", "f"), want(good, "f", ""), want(good, "f", "")} {
			if got := d.try(t.Context(), bad, good); got != step {
				t.Errorf("call %d: got %q, want %q", n+1, got, step)
			}
		}
	})
}

func TestWhatWentWithFormerCredentialsIsNotDeliveredUntilThatIsOnRecord(t *testing.T) {
	d := newDoorkeeper(time.Now().Add(time.Hour), false)
	d.broken = errors.New("NATS is away")
	if got := d.try(t.Context(), delivery.Unauthorized, delivery.Accepted); !strings.Contains(got, string(delivery.Unavailable)) {
		t.Errorf("got %q, want the call repeated", got)
	}
	d.broken = nil
	if got, want := d.try(t.Context(), delivery.Unauthorized, delivery.Accepted), "nf "+string(delivery.Accepted)+" f"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBothCallsTogetherTakeNoLongerThanOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorkeeper(time.Now().Add(time.Hour), false)
		begun := time.Now()
		a := d.call(t.Context(), func(ctx context.Context, client *vendorapi.Client) delivery.Answer {
			if client == d.present {
				<-time.After(900 * time.Millisecond)
				return delivery.Answer{Class: delivery.Unauthorized, Status: 401}
			}
			<-ctx.Done()
			return delivery.Answer{Class: delivery.Stopped}
		})
		if took := time.Since(begun); took != time.Second || a.Class != delivery.Stopped {
			t.Errorf("got %s after %v, want stopped after the second that a call may take", a.Class, took)
		}
	})
}

// overlapSite is a worker whose integration gets the tokens of another one, acme/n, which the partner
// refuses so far.
type overlapSite struct {
	*crashSite

	engine    *engine
	publisher *publisher.Publisher
	other     sandbox.Integration
}

func newOverlapSite(t *testing.T) *overlapSite {
	t.Helper()
	s := &overlapSite{crashSite: newCrashSite(t, sandbox.Plan{})}
	s.app.config.ProbeMin, s.app.config.ProbeMax, s.app.config.Linger = 100*time.Millisecond, 200*time.Millisecond, 0
	var err error
	if s.other, err = s.partner.AddIntegration(sandbox.Integration{Name: "acme/n"}); err != nil {
		t.Fatal(err)
	}
	if s.publisher, err = publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"}); err != nil {
		t.Fatal(err)
	}
	if s.engine, err = newEngine(t.Context(), s.app, newRegistry()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.engine.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("worker ended with %v, want no error", err)
		}
	})
	s.publish(event.Account{AccountID: "a", Name: "A"}, event.Service{ServiceID: "s", Name: "S"}, event.Service{ServiceID: "still", Name: "S"},
		event.Count{AccountID: "a", ServiceID: "still", UnitCount: event.UnitsScale})
	s.counts(1)
	s.awaits("acme/m", "1")
	err = s.partner.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{
		{Integration: "acme/n", Probability: 1, Effect: sandbox.StatusBefore, Status: 401, Message: "not known yet"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *overlapSite) publish(all ...event.Data) {
	s.t.Helper()
	for _, data := range all {
		if _, err := s.publisher.Publish(s.t.Context(), &event.Event{Organization: "m", Data: data}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *overlapSite) counts(n event.Units) {
	s.t.Helper()
	s.publish(event.Count{AccountID: "a", ServiceID: "s", UnitCount: n * event.UnitsScale})
}

func (s *overlapSite) awaits(integration, value string) {
	s.t.Helper()
	eventuallyTrue(s.t, time.Minute, integration+" has "+value, func() bool {
		got, _ := s.partner.Value(integration, "a", "s")
		still, _ := s.partner.Value(integration, "a", "still")
		return got == value && still == "1"
	})
}

// change gives the integration the other tokens, as the command does.
func (s *overlapSite) change(overlap time.Duration) {
	s.t.Helper()
	err := statusRecordsOf(s.crashSite).Update(s.t.Context(), "acme", "m", func(i *status.Integration) error {
		in, _, err := s.app.setCredentials(s.t.Context(), i, newIntegration{
			vendorToken: s.other.VendorToken, partnerToken: s.other.PartnerToken, overlap: overlap,
		})
		i.Take(in, status.Observation{At: time.Now()})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *overlapSite) record() *status.Integration {
	s.t.Helper()
	i, err := s.app.integration(s.t.Context(), "acme", "m")
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// recorded is what the audit log has of credentials, the oldest first.
func (s *overlapSite) recorded() (list []string) {
	s.t.Helper()
	err := s.app.actions(s.t.Context(), time.Time{}, func(done action) bool {
		if strings.HasPrefix(done.Actor, "worker ") {
			list = append(list, done.Action)
		}
		return true
	})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

func TestNewTokensThatThePartnerDoesNotKnowYetStopNothingAndThenGetEverything(t *testing.T) {
	t.Parallel()
	s := newOverlapSite(t)
	s.change(time.Hour)
	s.counts(2)
	s.awaits("acme/m", "2")
	i := s.record()
	if i.Previous == nil || i.Previous.Used.IsZero() || i.Hold != "" {
		t.Fatalf("got hold %q and previous %+v, want the former tokens in use", i.Hold, i.Previous)
	}
	if rows := fmt.Sprint((&picture{integration: i}).rows(time.Now())); !strings.Contains(rows, "in use, ") || strings.Contains(rows, s.other.PartnerToken) {
		t.Errorf("got %s, want it to say that the former tokens are in use", rows)
	}
	s.partner.ClearFaults()
	if err := s.partner.RevokeTokens("acme/m"); err != nil {
		t.Fatal(err)
	}
	s.counts(3)
	s.awaits("acme/n", "3") // with what had gone to the former one, too
	if i := s.record(); i.Previous == nil || !i.Previous.Used.IsZero() || i.Hold != "" {
		t.Errorf("got hold %q and previous %+v, want the new tokens in use", i.Hold, i.Previous)
	}
	if got, want := s.recorded(), []string{previousUsed, presentUsed}; !slices.Equal(got, want) {
		t.Errorf("on record: got %q, want %q", got, want)
	}
}

func TestAnOverlapThatIsOverDropsTheFormerTokensAndSendsEverythingAgain(t *testing.T) {
	t.Parallel()
	s := newOverlapSite(t)
	s.change(time.Hour)
	s.counts(2)
	s.awaits("acme/m", "2")
	if err := s.engine.endOverlapsNow(t.Context()); err != nil || s.record().Previous == nil {
		t.Fatalf("got error %v and previous %+v, want them kept until their time is over", err, s.record().Previous)
	}
	_, err := s.engine.integrations.Update(t.Context(), broker.IntegrationKey("acme", "m"), func(i *status.Integration) error {
		i.Previous.Until = time.Now().Add(-time.Second)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.counts(3)
	eventuallyTrue(t, time.Minute, "the new tokens are refused", func() bool { return s.record().Hold != "" })
	s.partner.ClearFaults()
	if err := s.engine.endOverlapsNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaits("acme/n", "3")
	if got, want := s.recorded(), []string{previousUsed, previousDropped}; s.record().Previous != nil || !slices.Equal(got, want) {
		t.Errorf("got previous %+v and %q on record, want none and %q", s.record().Previous, got, want)
	}
}

// What the former tokens took is not where the new ones lead, whatever comes after them.
func TestTokensSetWhileFiguresGoElsewhereHaveEverythingSentAgain(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	set := func(vendorToken, partnerToken string) (in status.Input) {
		t.Helper()
		err := statusRecordsOf(s).Update(t.Context(), "acme", "m", func(i *status.Integration) (err error) {
			in, _, err = s.app.setCredentials(t.Context(), i, newIntegration{vendorToken: vendorToken, partnerToken: partnerToken, overlap: time.Hour})
			i.UsePrevious(status.Observation{At: time.Now()})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	for n, step := range []struct {
		vendorToken, partnerToken string
		want                      status.Input
	}{
		{"v1", "p1", status.CredentialsRenewed}, // another partner token than at first
		{"v2", "p1", status.CredentialsRenewed}, // the same, but the first ones have been used
		{"v2", "p1", status.CredentialsRenewed}, // even if nothing changes: they may have been used again
	} {
		if got := set(step.vendorToken, step.partnerToken); got != step.want {
			t.Errorf("step %d: got %s, want %s", n+1, got, step.want)
		}
	}
}

func TestWithoutAnOverlapRefusedTokensHoldAtOnce(t *testing.T) {
	t.Parallel()
	s := newOverlapSite(t)
	s.change(0)
	s.counts(2)
	eventuallyTrue(t, time.Minute, "the integration is held", func() bool { return s.record().Hold == "unauthorized" })
	if i := s.record(); i.Previous != nil {
		t.Errorf("got %+v kept, want nothing", i.Previous)
	}
	if got, _ := s.partner.Value("acme/m", "a", "s"); got != "1" {
		t.Errorf("the former integration has %s, want 1: no call goes there any more", got)
	}
}
