package delivery_test

import (
	"slices"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// gaps are the times between calls.
func gaps(calls []sent) (d []time.Duration) {
	for i := 1; i < len(calls); i++ {
		d = append(d, calls[i].at.Sub(calls[i-1].at))
	}
	return d
}

var growing = []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour,
	8 * time.Hour, 16 * time.Hour, 24 * time.Hour, 24 * time.Hour}

func TestIntegrationThatIsNotReadyIsProbedSlowlyUntilItIs(t *testing.T) {
	virtual(t, delivery.Config{Concurrency: 8}, func(t *testing.T, r *rig) {
		keys := r.counts(100)
		r.took = time.Millisecond
		r.script(always(delivery.NotReady))
		r.set(1, keys...)
		after(5 * 24 * time.Hour)
		calls := r.calls()
		if got := gaps(calls[8:])[:8]; !slices.Equal(got, growing[1:]) {
			t.Errorf("probes after the first come at %v, want %v", got, growing[1:])
		}
		for i, c := range calls {
			if c.Probe != (i >= 8) || c.Attempt != 1 {
				t.Errorf("call %d: probe %t, attempt %d; want %t, 1", i, c.Probe, c.Attempt, i >= 8)
			}
		}
		if got := r.told(delivery.NotReady); got != len(calls) || len(r.signals) != got {
			t.Errorf("%d signals, %d of them not ready; want one for each of %d answers", len(r.signals), got, len(calls))
		}
		if s := r.lane.Status(); s.Hold != ledger.IntegrationNotReady || s.Queued != 100 || s.NextProbe.IsZero() {
			t.Errorf("status = %+v, want held as not ready with 100 queued and a probe planned", s)
		}
		r.set(1, globex) // the catalog does not wait
		r.script(nil)
		after(time.Second)
		r.wantCalls(t, "catalog while not ready", 1, "account")
		after(24 * time.Hour)
		if got := r.states(); got[ledger.Synced] != 202 {
			t.Errorf("states after a good probe = %v, want all synced", got)
		}
	})
}

func TestHoldIsLiftedByTheLink(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		waiting := r.good()
		waiting.Ready = false
		r.lane.SetLink(waiting)
		r.set(1, count)
		after(10 * time.Minute)
		r.wantCalls(t, "while the status takes no counts", 0)
		r.lane.SetLink(r.good())
		after(time.Second)
		r.wantCalls(t, "when it does", 1)
	})
}

func TestHintMakesTheNextProbeDueAtOnce(t *testing.T) {
	virtual(t, delivery.Config{Concurrency: 1}, func(t *testing.T, r *rig) {
		keys := r.counts(5)
		r.script(always(delivery.NotReady))
		r.set(1, keys[0])
		after(time.Minute)
		r.lane.Probe()
		after(time.Second)
		r.wantCalls(t, "after a hint that was wrong", 2)
		r.script(nil)
		r.lane.Probe()
		after(time.Second)
		r.wantCalls(t, "after a hint that was right", 3)

		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted, Existed: true}
		})
		r.set(2, keys...)
		after(time.Minute)
		r.wantCalls(t, "unmapped", 8, "count")
		r.script(nil)
		r.change(keys[0], awaiting)
		r.lane.Probe("a3", "a0")
		after(0)
		got := r.calls("count")[8:]
		if len(got) == 0 || got[0].Key != keys[3] || !got[0].Probe {
			t.Errorf("first call after a hint about a3 and a0 = %+v, want a probe of %s", got, keys[3])
		}
	})
}

func TestBadCredentialsMeanNoCallUntilTheyChange(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.counts(100)
		classes := []delivery.Class{delivery.NotReady, delivery.Unauthorized, delivery.Suspected, delivery.NotReady}
		r.took = time.Second
		r.script(func(task delivery.Task) delivery.Answer { // 16 answers of all kinds come together
			return delivery.Answer{Class: classes[int(task.Figure.Arrival)%len(classes)]}
		})
		r.set(1, keys...)
		after(time.Minute)
		r.wantCalls(t, "before the answers", 16)
		r.lane.Probe("a1")
		r.set(2, keys...)
		r.set(2, globex)
		same := r.good()
		same.Connected = false
		r.lane.SetLink(same)
		after(60 * 24 * time.Hour)
		r.wantCalls(t, "in two months", 16)
		if s := r.lane.Status(); s.Hold != ledger.Unauthorized || !s.NextProbe.IsZero() {
			t.Errorf("hold %q, next probe %v; want unauthorized, none", s.Hold, s.NextProbe)
		}
		r.script(nil)
		link := r.good()
		link.Credentials = "c2"
		r.lane.SetLink(link)
		after(time.Hour)
		if got := r.states(); got[ledger.Synced] != 202 {
			t.Errorf("states with new credentials = %v, want all synced", got)
		}
	})
}

func TestAnswersToCallsUnderAFormerLinkHoldNothing(t *testing.T) {
	for name, c := range map[string]struct {
		class  delivery.Class
		before func(*delivery.Link)
	}{
		"old credentials": {delivery.Unauthorized, func(l *delivery.Link) { l.Credentials = "c0" }},
		"old status":      {delivery.NotReady, func(l *delivery.Link) { l.Ready = false }},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
				r.posted("backup", "acme")
				old := r.good()
				c.before(&old)
				r.lane.SetLink(old)
				r.took = time.Minute
				r.script(always(c.class))
				r.set(1, count)
				r.lane.Probe()
				after(time.Second)
				r.wantCalls(t, "under the old link", 1)
				r.lane.SetLink(r.good())
				r.script(nil)
				after(3 * time.Minute)
				if e, _ := r.Entry(count); e.State != ledger.Synced {
					t.Errorf("state %s, hold %q; want synced: the new link was not to blame", e.State, r.lane.Status().Hold)
				}
			})
		})
	}
}

func TestSuspectedUsageHoldsEverythingButProbes(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.counts(20)
		link := r.good()
		link.Ready = false
		r.script(always(delivery.Suspected))
		r.set(1, keys[0])
		after(time.Second)
		r.lane.SetLink(link)
		r.set(1, globex)
		r.set(1, keys...)
		after(10 * time.Minute)
		r.wantCalls(t, "before the first probe", 1)
		r.script(nil)
		after(10 * time.Minute)
		r.wantCalls(t, "the probe, an account", 2)
		if got := r.told(delivery.Accepted); got != 1 {
			t.Errorf("told %d times that the anomaly is over, want once", got)
		}
		if s := r.lane.Status(); s.Hold != ledger.IntegrationNotReady {
			t.Errorf("hold after the anomaly = %q, want integration_not_ready as the link says", s.Hold)
		}
		r.lane.SetLink(r.good())
		after(time.Minute)
		if got := r.states(); got[ledger.Synced] != 42 {
			t.Errorf("states = %v, want all synced", got)
		}
	})
}

// Regression: a partner that suspects, and then loses the catalog, answers every
// probe with "not found", and nothing was ever posted again.
func TestASuspicionEndsWhenThePartnerSaysThatACountIsNotMapped(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		keys := r.counts(1)
		r.script(always(delivery.Suspected))
		r.set(1, keys...)
		after(time.Minute)
		if s := r.lane.Status(); s.Hold != ledger.Anomaly {
			t.Fatalf("hold = %q, want anomaly", s.Hold)
		}
		r.script(always(delivery.NotFound))
		after(48 * time.Hour)
		if s := r.lane.Status(); s.Hold == ledger.Anomaly {
			t.Error("the lane is held for an anomaly although the partner deals with its counts")
		}
		if r.told(delivery.NotFound) == 0 {
			t.Error("nobody was told that the suspicion is over")
		}
	})
}

func TestCatalogThatIsNotFoundHoldsTheLaneAndIsNotDead(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.script(always(delivery.NotFound))
		r.set(1, acme)
		after(time.Minute)
		if s := r.lane.Status(); s.Hold != ledger.Anomaly {
			t.Errorf("hold = %q, want anomaly: the address is wrong", s.Hold)
		}
		if e, _ := r.Entry(acme); e.State != ledger.Dirty {
			t.Errorf("state %s, want dirty", e.State)
		}
	})
}

func TestCatalogThatIsNotReadyIsProbedSlowlyToo(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Ready = false
		r.lane.SetLink(link)
		r.script(always(delivery.NotReady))
		r.set(1, acme, globex, backup)
		after(30 * 24 * time.Hour)
		if got := len(r.calls()); got < 30 || got > 99 {
			t.Errorf("%d calls in a month, want one a day and a few", got)
		}
		r.script(nil)
		after(24 * time.Hour)
		if got := r.states(); got[ledger.Synced] != 3 {
			t.Errorf("states after a good probe = %v, want all synced", got)
		}
	})
}

func TestUnmappedKeyIsProbedSlowlyThoughItIsTheOnlyOne(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme", "globex")
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key == count {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(1, count, ledger.CountKey(organization, "globex", "backup"))
		after(4 * 24 * time.Hour)
		r.set(2, count)
		after(time.Hour)
		r.wantCalls(t, "in all", 1+1+9)
		var probes []sent
		for _, c := range r.calls() {
			if c.Key == count {
				probes = append(probes, c)
			}
		}
		if got := gaps(probes); !slices.Equal(got, growing) {
			t.Errorf("probes at %v, want %v", got, growing)
		}
		if s := r.lane.Status(); s.Unmapped != 1 || s.Hold != "" {
			t.Errorf("unmapped %d, hold %q; want 1, none", s.Unmapped, s.Hold)
		}
	})
}

// A person maps accounts and services; what was mapped must be found by one
// probe that happens to hit it, without trying what was not again and again.
func TestOneMappedProbeFindsEverythingThatWasMappedWithIt(t *testing.T) {
	virtual(t, delivery.Config{Concurrency: 1}, func(t *testing.T, r *rig) {
		const accounts, services, mapped = 100, 10, 50
		var keys []ledger.Key
		for s := range services {
			service := "s" + account(s)
			for a := range accounts {
				keys = append(keys, ledger.CountKey(organization, account(a), service))
			}
			r.posted(service)
		}
		for a := range accounts {
			r.posted("sa0", account(a))
		}
		r.script(always(delivery.NotFound))
		r.set(1, keys...)
		after(time.Minute)
		r.wantCalls(t, "before anybody maps", len(keys))
		var isMapped []string
		for a := range mapped {
			isMapped = append(isMapped, account(a))
		}
		r.script(func(task delivery.Task) delivery.Answer {
			if slices.Contains(isMapped, task.Key.Account) {
				return delivery.Answer{Class: delivery.Accepted}
			}
			return delivery.Answer{Class: delivery.NotFound}
		})
		after(20 * time.Minute)
		if got := r.states(); got[ledger.Held] != (accounts-mapped)*services {
			t.Errorf("states after the probe = %v, want %d held and the rest synced", got, (accounts-mapped)*services)
		}
		if got := len(r.calls()) - len(keys); got > len(keys)+1 {
			t.Errorf("%d calls to find them, want each key tried once and one probe more at most", got)
		}
	})
}

func TestRoundOfProbesGoesOnUntilOneFailsAndTriesEveryKeyOnce(t *testing.T) {
	virtual(t, delivery.Config{Rate: 0.1}, func(t *testing.T, r *rig) {
		r.posted("s0", "a0", "a2")
		r.posted("s1")
		first, second := ledger.CountKey(organization, "a0", "s0"), ledger.CountKey(organization, "a2", "s1")
		keys := []ledger.Key{first, ledger.CountKey(organization, "a2", "s0"), ledger.CountKey(organization, "a0", "s1"), second}
		r.script(always(delivery.NotFound))
		for _, key := range keys { // the middle ones share something with both others, which share nothing
			r.set(1, key)
			after(10 * time.Second)
		}
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key == first || task.Key == second {
				return delivery.Answer{Class: delivery.Accepted}
			}
			return delivery.Answer{Class: delivery.NotFound}
		})
		after(20 * time.Minute)
		if got := r.states(); got[ledger.Held] != 2 {
			t.Errorf("states = %v, want only the two held that are not mapped", got)
		}
		r.wantCalls(t, "four at first, each tried once, and a last probe", 4+4+1)
	})
}

func TestNewAccountIsAReasonToProbe(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		r.script(always(delivery.NotFound))
		r.set(1, count)
		after(time.Minute)
		r.script(nil)
		r.set(1, globex)
		after(time.Second)
		r.wantCalls(t, "after a new account", 2, "count")
	})
}

// Of two answers, the status must become what the later one shows, even if what
// keeps it takes longer to record the earlier one.
func TestStatusHearsOfAnswersInTheOrderInWhichTheyCame(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keeper := func(s delivery.Signal) {
			if s.Operation == delivery.OperationMapping {
				time.Sleep(time.Hour)
			}
		}
		r.keeper.Store(&keeper)
		link := r.good()
		link.Ready, link.Connected, link.Setup = false, false, true
		r.lane.SetLink(link)
		r.set(1, acme, backup, count)
		after(30 * time.Minute)
		r.wantCalls(t, "counted before the opening is recorded", 1, "count")
		after(time.Hour)
		var told []string
		for _, s := range r.signals {
			told = append(told, s.Operation)
		}
		if want := []string{delivery.OperationMapping, "count"}; !slices.Equal(told, want) {
			t.Errorf("told of %v, want %v", told, want)
		}
	})
}

// The count may be the only one for days: if it did not say that the integration is
// connected, nothing would.
func TestCountTakenWhileTheOpeningIsRecordedProvesTheStatus(t *testing.T) {
	for _, c := range []struct {
		name           string
		before, change func(*delivery.Link)
		want           int // signals of the count
	}{
		{"the mapping is open", func(l *delivery.Link) { l.Setup = true }, func(l *delivery.Link) { l.Setup = false }, 1},
		{"the integration is ready", func(*delivery.Link) {}, func(l *delivery.Link) { l.Ready = true }, 1},
		{"the partner is to be told again", func(*delivery.Link) {}, func(l *delivery.Link) { l.Setup = true }, 0},
		{"the tokens are others", func(*delivery.Link) {}, func(l *delivery.Link) { l.Credentials = "c2" }, 0},
		{"the partner has lost everything", func(*delivery.Link) {}, func(l *delivery.Link) { l.Generation++ }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
				r.script(func(task delivery.Task) delivery.Answer {
					if task.Operation() == "count" {
						time.Sleep(time.Minute)
					}
					return delivery.Answer{Class: delivery.Accepted}
				})
				link := r.good()
				link.Ready, link.Connected = false, false
				c.before(&link)
				r.lane.SetLink(link)
				r.set(1, acme, backup, count)
				for len(r.calls("count")) == 0 {
					after(time.Second)
				}
				signals := len(r.signals)
				c.change(&link)
				r.lane.SetLink(link)
				after(time.Minute)
				told := 0
				for _, s := range r.signals[signals:] {
					if s.Operation == "count" && s.Credentials == "c1" && s.Generation == 0 {
						told++
					}
				}
				if told != c.want {
					t.Errorf("told %d times of the count, want %d", told, c.want)
				}
				if hold := r.lane.Status().Hold; (hold == "") != (c.want == 1 || link.Ready) {
					t.Errorf("the lane is held for %q", hold)
				}
			})
		})
	}
}

func TestCountTakenWhileTheMappingIsOpenedSaysMoreThanThatAnswer(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Ready, link.Connected, link.Setup = false, false, true
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Operation() == delivery.OperationMapping {
				time.Sleep(time.Hour)
				return delivery.Answer{Class: delivery.Accepted, Observed: "mapping"}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.lane.SetLink(link)
		r.set(1, acme, backup, count)
		after(30 * time.Minute)
		r.wantCalls(t, "counted while the opening is under way", 1, "count")
		after(time.Hour)
		if n := len(r.signals); n != 2 || r.signals[1].Operation != delivery.OperationMapping {
			t.Fatalf("signals = %+v, want the count, then the mapping", r.signals)
		}
		if got := r.signals[1].Answer.Observed; got != "" {
			t.Errorf("the mapping's answer says %q, want nothing: the count has proved more", got)
		}
	})
}

func TestMappingIsOpenedOnceWhenTheCatalogIsPosted(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Ready, link.Connected, link.Setup = false, false, true
		r.lane.SetLink(link)
		r.set(1, acme)
		after(time.Minute)
		r.wantCalls(t, "without a service", 0, "mapping")
		r.took = time.Second
		failures := 3
		r.script(func(task delivery.Task) delivery.Answer {
			if failures > 0 && task.Operation() == delivery.OperationMapping {
				failures--
				return delivery.Answer{Class: delivery.Unavailable}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(1, backup, globex)
		after(time.Hour)
		r.lane.SetLink(link)
		r.set(2, acme)
		after(time.Hour)
		r.wantCalls(t, "three failures and a success", 4, "mapping")
		calls := r.calls("mapping", "account", "service")
		if i := slices.IndexFunc(calls, func(s sent) bool { return s.Operation() == "mapping" }); i != 3 {
			t.Errorf("mapping opened after %d catalog calls, want 3", i)
		}
		if len(r.signals) != 1 || r.signals[0].Operation != delivery.OperationMapping || r.signals[0].Class != delivery.Accepted {
			t.Errorf("signals = %+v, want one: mapping accepted", r.signals)
		}
		link.Setup = false
		r.lane.SetLink(link)
		r.set(3, acme)
		after(time.Hour)
		r.wantCalls(t, "when it is open", 4, "mapping")
		link.Setup = true // the partner cleared everything
		r.lane.SetLink(link)
		after(time.Hour)
		r.wantCalls(t, "when it is to be opened again", 5, "mapping")
	})
}

func TestRefusedMappingIsTriedAtThePaceOfProbes(t *testing.T) {
	for _, class := range []delivery.Class{delivery.Rejected, delivery.NotReady} {
		t.Run(string(class), func(t *testing.T) {
			virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
				r.posted("backup", "acme")
				link := r.good()
				link.Setup, link.Ready = true, false
				r.script(always(class))
				r.lane.SetLink(link)
				after(30 * 24 * time.Hour)
				if got := len(r.calls()); got < 10 || got > 99 {
					t.Errorf("%d calls in a month, want one a day or two", got)
				}
				if dead := r.rulings(delivery.Dead); len(dead) != 0 {
					t.Errorf("dead = %+v, want none: no figure is at fault", dead)
				}
			})
		})
	}
}

func TestCatalogKeyThatKeepsFailingDoesNotKeepTheMappingClosed(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.posted("backup", "acme")
		link := r.good()
		link.Setup, link.Ready = true, false
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key == globex {
				return delivery.Answer{Class: delivery.Unavailable}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.took = 3 * time.Second
		r.set(1, globex)
		after(time.Second)
		r.lane.SetLink(link)
		after(time.Second)
		r.wantCalls(t, "while an account is posted for the first time", 0, "mapping")
		after(2 * time.Second)
		r.wantCalls(t, "beside an account that fails", 1, "mapping")
	})
}

func TestAcceptedCountsAreToldUntilTheLinkIsConnected(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.counts(3)
		link := r.good()
		link.Connected = false
		r.lane.SetLink(link)
		r.set(1, keys[:2]...)
		after(time.Second)
		r.lane.SetLink(r.good())
		r.set(1, keys[2])
		after(time.Second)
		if len(r.signals) != 2 || r.signals[0].Class != delivery.Accepted || r.signals[0].Operation != "count" {
			t.Errorf("signals = %+v, want two accepted counts", r.signals)
		}
	})
}

// An outage during a probe tells nothing of the hold: neither does the interval
// grow, nor does the key that happened to be the probe use up its attempts.
func TestProbeWithoutAnAnswerIsSoonMadeAgainAndCostsNoAttempt(t *testing.T) {
	for _, class := range []delivery.Class{delivery.Unavailable, delivery.Throttled} {
		t.Run(string(class), func(t *testing.T) {
			virtual(t, delivery.Config{Attempts: 3}, func(t *testing.T, r *rig) {
				r.script(always(delivery.NotReady))
				r.set(1, r.counts(10)...)
				after(10 * time.Minute)
				r.script(always(class))
				after(3 * time.Hour) // the first probe of the hold, and many in its place
				for _, c := range r.calls() {
					if c.Attempt != 1 {
						t.Fatalf("attempt %d of %s, want every call to be a first one", c.Attempt, c.Key)
					}
				}
				if got := len(r.calls()); got > 10+60 {
					t.Errorf("%d calls in three hours, want few", got)
				}
				r.script(nil)
				after(11 * time.Minute)
				if got := r.states(); got[ledger.Synced] != 20+1 {
					t.Errorf("states soon after the outage = %v, want all synced", got)
				}
			})
		})
	}
}

// A restart must not cost a call for every integration with bad credentials.
func TestCredentialsThatWereRefusedBeforeAreNotTriedAgain(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		known := r.good()
		known.Unauthorized = true
		r.lane.SetLink(known)
		r.set(1, r.counts(3)...)
		after(30 * 24 * time.Hour)
		r.wantCalls(t, "with credentials known to be bad", 0)
		if s := r.lane.Status(); s.Hold != ledger.Unauthorized || !s.NextProbe.IsZero() {
			t.Errorf("status = %+v, want unauthorized and no probe planned", s)
		}
		fresh := r.good()
		fresh.Credentials = "others"
		r.lane.SetLink(fresh)
		after(time.Second)
		r.wantCalls(t, "with new credentials", 3)
	})
}
