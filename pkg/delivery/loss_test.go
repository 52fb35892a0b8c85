package delivery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// synced makes the partner have n counts of one service for accounts of their own.
func (r *rig) synced(t *testing.T, n int) []ledger.Key {
	t.Helper()
	keys := r.counts(n)
	r.set(5, keys...)
	after(time.Minute)
	if got := r.states()[ledger.Synced]; got != 2*n+1 {
		t.Fatalf("%d keys are synced, want %d", got, 2*n+1)
	}
	return keys
}

func TestACountThatIsNotFoundAnyMoreHasItsAccountPostedAgainToSeeWhetherItWasLost(t *testing.T) {
	tests := map[string]struct {
		account, service bool // existed
		checks           int
		lost             int
	}{
		"account created anew":         {false, false, 1, 1},
		"service created anew":         {true, false, 2, 1},
		"both there: no longer mapped": {true, true, 2, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
				keys := r.synced(t, 3)
				before := len(r.calls())
				r.script(func(task delivery.Task) delivery.Answer {
					if task.Key.Kind == ledger.Count {
						return delivery.Answer{Class: delivery.NotFound}
					}
					existed := task.Key.Kind == ledger.Account && test.account || task.Key.Kind == ledger.Service && test.service
					return delivery.Answer{Class: delivery.Accepted, Existed: existed}
				})
				r.set(6, keys...)
				after(time.Minute)
				checks := r.calls("account", "service")
				if got := len(checks); got != test.checks {
					t.Fatalf("%d checks, want %d for three counts that were not found", got, test.checks)
				}
				for _, c := range checks {
					if !c.Check || !c.Again {
						t.Errorf("%s: check %t, again %t; want both", c.Key, c.Check, c.Again)
					}
				}
				if got := len(r.calls()) - before; got != 3+test.checks {
					t.Errorf("%d calls, want three counts and %d checks", got, test.checks)
				}
				if got := r.told(delivery.Lost); got != test.lost {
					t.Errorf("told of a loss %d times, want %d", got, test.lost)
				}
				if got := r.states()[ledger.Held]; got != 3 {
					t.Errorf("%d keys are held, want the three counts", got)
				}
			})
		})
	}
}

func TestALossThatNobodyBelievesIsToldAgain(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.synced(t, 3)
		created := map[ledger.Key]bool{}
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.NotFound}
			}
			existed := created[task.Key]
			created[task.Key] = true
			return delivery.Answer{Class: delivery.Accepted, Existed: existed}
		})
		r.set(6, keys...)
		after(2 * time.Hour)
		if got := r.told(delivery.Lost); got < 3 || got > 5 {
			t.Errorf("told of a loss %d times in two hours, want at growing intervals", got)
		}
		told := r.told(delivery.Lost)
		r.script(nil)
		r.forget(r.good())
		after(24 * time.Hour)
		if got := r.told(delivery.Lost); got != told {
			t.Errorf("told of a loss %d times more in a new generation, want never", got-told)
		}
	})
}

func TestACountThatWasNeverDeliveredRaisesNoSuspicion(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.script(always(delivery.NotFound))
		r.set(5, r.counts(10)...)
		after(time.Hour)
		r.wantCalls(t, "posts of the catalog", 0, "account", "service")
	})
}

func TestAMappingThatComesAndGoesIsCheckedAtThePaceOfProbes(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.synced(t, 1)
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted, Existed: true}
		})
		for i := range 24 * 30 { // for a month there is a new figure each hour
			r.set(int64(i), keys...)
			r.lane.Probe() // and somebody hopes
			after(time.Hour)
		}
		if got := len(r.calls("account", "service")); got < 60 || got > 100 {
			t.Errorf("%d checks in a month, want about two a day", got)
		}
	})
}

func TestChecksComeAtGrowingIntervals(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.synced(t, 1)
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted, Existed: true}
		})
		begun := time.Now()
		for range 240 {
			r.lane.Probe()
			r.set(6, keys...)
			after(time.Minute)
		}
		var got []time.Duration
		for _, c := range r.calls("account") {
			got = append(got, c.at.Sub(begun).Truncate(5*time.Minute))
		}
		want := []time.Duration{0, 15 * time.Minute, 45 * time.Minute, 105 * time.Minute, 225 * time.Minute}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("accounts were posted again after %v, want %v", got, want)
		}
	})
}

func TestAServiceThatIsNotMappedCostsNoMoreThanProbesThoughTheAccountIs(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.sees("connected", map[string]bool{"a0": true})
		link := r.read()
		link.Credentials = "fresh"
		r.lane.SetLink(link)
		r.posted("backup", "a0")
		var keys []ledger.Key
		for i := range 100 {
			service := fmt.Sprint("s", i)
			r.posted(service)
			keys = append(keys, ledger.CountKey(organization, "a0", service))
		}
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(5, keys...)
		after(30 * 24 * time.Hour)
		if got := len(r.calls("count")) - 100; got > 60 {
			t.Errorf("%d calls in a month behind the first hundred, want about one a day", got)
		}
	})
}

func TestAnAccountThatIsKnownToExistGoesAlone(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.sees("mapping", map[string]bool{"a0": false, "a3": true})
		link := r.read()
		link.Bulk, link.Credentials = r.partner, "fresh"
		r.lane.SetLink(link)
		keys := make([]ledger.Key, 6)
		for i := range keys {
			keys[i] = ledger.AccountKey(organization, account(i))
		}
		r.set(0, keys...)
		after(time.Minute)
		if got := fmt.Sprint(r.bulks); got != "[4]" {
			t.Errorf("accounts in each call for several: got %s, want the four that are not there", got)
		}
		r.wantCalls(t, "two alone, the others together", 3, "account")
	})
}

func TestANewGenerationSendsCatalogAndCountsAgainInOrder(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.synced(t, 20)
		before := len(r.calls())
		link := r.good()
		link.Setup, link.Ready = true, false // it has to be mapped again
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.NotReady}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		link = r.forget(link)
		after(time.Minute)
		calls := r.calls()[before:]
		if got, want := len(calls), 20+1+1; got != want {
			t.Fatalf("%d calls, want %d: 20 accounts, a service, the mapping", got, want)
		}
		if last := calls[len(calls)-1]; last.Operation() != "mapping" {
			t.Errorf("the last call is for %s, want the mapping", last.Operation())
		}
		for _, c := range calls {
			if c.Operation() != "mapping" && (c.Generation != 1 || !c.Again) {
				t.Errorf("%s: generation %d, again %t; want 1 and again", c.Key, c.Generation, c.Again)
			}
		}
		r.script(nil)
		link.Setup, link.Ready = false, true
		r.lane.SetLink(link)
		after(time.Minute)
		if got := len(r.calls()) - before - len(calls); got != 20 {
			t.Errorf("%d calls once it is ready, want every count once", got)
		}
		if got := r.states()[ledger.Synced]; got != 41 {
			t.Errorf("%d keys are synced, want all 41", got)
		}
	})
}

func TestInANewGenerationNoCountGoesBeforeItsAccountIsTaken(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.synced(t, 5)
		r.partner.took = time.Second
		before := len(r.calls())
		r.forget(r.good())
		after(time.Minute)
		calls := r.calls()[before:]
		began := map[ledger.Key]time.Time{}
		for _, c := range calls {
			began[c.Key] = c.at
		}
		for _, c := range calls {
			if c.Key.Kind == ledger.Count && c.at.Sub(began[c.Key.AccountKey()]) < time.Second {
				t.Errorf("%s went %v after its account, want it to wait for the answer", c.Key, c.at.Sub(began[c.Key.AccountKey()]))
			}
		}
		if len(calls) != 11 {
			t.Errorf("%d calls, want 11", len(calls))
		}
	})
}

func TestANewGenerationLiftsTheHoldForBadCredentials(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.counts(1)
		r.script(always(delivery.Unauthorized))
		r.set(5, keys...)
		after(time.Hour)
		r.wantCalls(t, "while the tokens are bad", 1)
		r.script(nil)
		r.forget(r.good())
		after(time.Minute)
		if got := r.states()[ledger.Synced]; got != 3 {
			t.Errorf("%d keys are synced after an operator's word, want 3", got)
		}
	})
}

// read is a link to a partner that can be read.
func (r *rig) read() delivery.Link {
	link := r.good()
	link.Reader = r.partner
	return link
}

func TestAPartnerThatCanBeReadIsAskedBeforeAnythingIsSent(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.sees("connected", map[string]bool{"a0": true})
		link := r.read()
		link.Credentials = "fresh"
		r.script(always(delivery.Unauthorized))
		r.lane.SetLink(link)
		r.set(5, r.counts(1)...)
		after(time.Hour)
		r.wantCalls(t, "with bad tokens", 1)
		r.wantCalls(t, "with bad tokens", 1, "read")
		r.script(nil)
		link.Credentials = "good"
		r.lane.SetLink(link)
		after(time.Minute)
		r.wantCalls(t, "with good tokens", 3, "read")
		r.wantCalls(t, "with good tokens", 1, "count")
		if first := r.calls()[1]; !first.Read || first.List {
			t.Errorf("the first call with good tokens is for %+v, want the status", first.Task)
		}
	})
}

// Regression: a look whose second half was left over began with old news.
func TestALookThatIsOvertakenByANewLinkBeginsAnew(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.sees("inactive", nil)
		r.partner.took = time.Second
		link := r.read()
		link.Credentials = "fresh"
		r.lane.SetLink(link)
		after(1500 * time.Millisecond) // the accounts are being read
		link.Setup, link.Ready = true, false
		r.lane.SetLink(link)
		link.Setup = false
		r.lane.SetLink(link)
		after(10 * time.Second)
		r.lane.Probe()
		after(time.Minute)
		reads := r.calls("read")
		for i, c := range reads {
			if c.List && (i == 0 || reads[i-1].List) {
				t.Errorf("read %d is of the accounts, without the status before it", i)
			}
		}
		if len(reads) < 3 {
			t.Errorf("%d reads, want the one that was overtaken and a whole look", len(reads))
		}
	})
}

func TestOneLookComesBeforeEachProbe(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		r.sees("mapping", map[string]bool{"a0": false, "a1": false, "a2": false})
		r.partner.took = time.Second
		link := r.read()
		link.Credentials, link.Ready, link.Connected = "fresh", false, false
		r.lane.SetLink(link)
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count {
				return delivery.Answer{Class: delivery.NotReady}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(5, r.counts(3)...)
		after(20 * time.Hour)
		looks, probes := len(r.calls("read"))/2, len(r.calls("count"))
		if looks != probes+1 {
			t.Errorf("%d looks and %d probes, want one look at first and one before each probe", looks, probes)
		}
	})
}

// Regression: a status that was read before a count was accepted undid the
// connection that it proved.
func TestAStatusThatWasReadBeforeALaterOneWasProvedIsNotTold(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		keys := r.counts(2)
		r.sees("pending", map[string]bool{"a0": true, "a1": true})
		link := r.read()
		link.Connected = false
		r.lane.SetLink(link)
		after(time.Minute)
		told := len(r.signals)
		r.partner.took = 10 * time.Second
		r.lane.Probe()
		after(15 * time.Second) // the accounts are being read
		r.partner.took = 0
		r.set(5, keys...)
		after(time.Minute)
		for _, s := range r.signals[told:] {
			if s.Operation == delivery.OperationRead {
				t.Errorf("told of a read: %+v, want nothing that is older than the counts", s)
			}
		}
		if got := len(r.calls("count")); got != 2 {
			t.Errorf("%d counts, want 2", got)
		}
	})
}

func TestARefusalFromBeforeThePartnerOpenedHoldsNothing(t *testing.T) {
	virtual(t, delivery.Config{Linger: -1}, func(t *testing.T, r *rig) {
		keys := r.counts(2)
		slow, first := keys[0], true
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key == slow && first {
				first = false
				return delivery.Answer{Class: delivery.NotReady} // judged now, told late
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.partner.took = 10 * time.Second
		r.set(5, slow)
		after(time.Second)
		r.partner.took = time.Second
		r.set(5, keys[1])
		after(time.Minute)
		if got := r.told(delivery.NotReady); got != 0 {
			t.Errorf("told %d times that it is not ready, want never: it took a count meanwhile", got)
		}
		if s := r.states(); s[ledger.Synced] != 5 {
			t.Errorf("states: got %v, want all synced without a probe", s)
		}
	})
}

func TestAReadThatFailsKeepsNothingFromBeingSent(t *testing.T) {
	for _, class := range []delivery.Class{delivery.Unavailable, delivery.NotFound, delivery.Suspected, delivery.Rejected} {
		t.Run(string(class), func(t *testing.T) {
			virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
				r.script(func(task delivery.Task) delivery.Answer {
					if task.Read {
						return delivery.Answer{Class: class}
					}
					return delivery.Answer{Class: delivery.Accepted}
				})
				link := r.read()
				link.Credentials = "fresh"
				r.lane.SetLink(link)
				r.set(5, r.counts(3)...)
				after(30 * 24 * time.Hour)
				r.wantCalls(t, "counts", 3, "count")
				if got := len(r.calls("read")); got < 20 || got > 60 {
					t.Errorf("%d reads in a month, want about one a day", got)
				}
			})
		})
	}
}

func TestAReadThatComesTooFastIsMadeAgain(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.sees("connected", map[string]bool{"a0": true})
		first := true
		r.script(func(delivery.Task) delivery.Answer {
			if first {
				first = false
				return delivery.Answer{Class: delivery.Throttled, RetryAfter: time.Minute}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		link := r.read()
		link.Credentials = "fresh"
		r.lane.SetLink(link)
		r.set(5, r.counts(1)...)
		after(30 * time.Second)
		r.wantCalls(t, "while the gate is closed", 1)
		after(time.Minute)
		r.wantCalls(t, "reads", 3, "read")
		r.wantCalls(t, "counts", 1, "count")
	})
}

func TestAnAccountThatIsNotListedAnyMoreShowsTheLoss(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		keys := r.synced(t, 3)
		r.sees("connected", map[string]bool{"a0": true, "a1": true, "a2": true})
		r.lane.SetLink(r.read())
		r.lane.Probe()
		after(time.Hour)
		if got := r.told(delivery.Lost); got != 0 {
			t.Fatalf("told of a loss %d times while all are listed, want never", got)
		}
		r.sees("connected", map[string]bool{"a0": true, "a1": true})
		r.script(always(delivery.NotFound))
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Read {
				return delivery.Answer{Class: delivery.Accepted}
			}
			return delivery.Answer{Class: delivery.NotFound}
		})
		r.set(6, keys[2])
		after(time.Minute)
		if got := r.told(delivery.Lost); got != 1 {
			t.Errorf("told of a loss %d times, want once", got)
		}
		r.wantCalls(t, "posts", 0, "account", "service")
	})
}

func TestALossIsFoundOutThoughNoFigureChanges(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		r.sees("connected", map[string]bool{"a0": true, "a1": true})
		link := r.read()
		link.Credentials = "fresh"
		r.lane.SetLink(link)
		r.synced(t, 2)
		before := len(r.calls())
		after(10 * 24 * time.Hour)
		if got := len(r.calls()) - before; got != 20 || r.told(delivery.Lost) != 0 {
			t.Errorf("%d calls in ten days and %d losses, want to look once a day and no loss", got, r.told(delivery.Lost))
		}
		r.sees("inactive", nil)
		after(25 * time.Hour)
		if got := r.told(delivery.Lost); got != 1 {
			t.Errorf("told of a loss %d times within a day of it, want once", got)
		}
	})
}

func TestAMappingThatIsReadReleasesTheCountsOfTheAccount(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		mapped := map[string]bool{"a0": false, "a1": false}
		r.sees("mapping", mapped)
		link := r.read()
		link.Credentials = "fresh" // looks at once
		r.lane.SetLink(link)
		r.posted("backup", "a0", "a1")
		r.posted("mail")
		var keys []ledger.Key
		for _, a := range []string{"a0", "a1"} {
			for _, s := range []string{"backup", "mail"} {
				keys = append(keys, ledger.CountKey(organization, a, s))
			}
		}
		r.script(func(task delivery.Task) delivery.Answer {
			if task.Key.Kind == ledger.Count && !mapped[task.Key.Account] {
				return delivery.Answer{Class: delivery.NotFound}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		r.set(5, keys...)
		after(time.Minute)
		if got := r.states()[ledger.Held]; got != 4 {
			t.Fatalf("%d keys are held, want 4", got)
		}
		r.wantCalls(t, "counts of accounts that are read as not mapped", 0, "count")
		before := 0
		mapped = map[string]bool{"a0": false, "a1": true}
		r.sees("pending", mapped)
		after(20 * time.Minute) // the next probe looks first
		if got := len(r.calls("count")) - before; got < 2 || got > 5 {
			t.Errorf("%d counts were sent, want the two of the mapped account and at most three probes", got)
		}
		if got := r.states()[ledger.Held]; got != 2 {
			t.Errorf("%d keys are held, want the 2 of the other account", got)
		}
	})
}

func TestAnIntegrationThatIsOpenAlreadyIsNotSetBack(t *testing.T) {
	for status, want := range map[string]int{"inactive": 1, "mapping": 0, "connected": 0} {
		t.Run(status, func(t *testing.T) {
			virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
				r.sees(status, map[string]bool{"a0": true, "a1": true})
				link := r.read()
				link.Setup, link.Ready = true, false
				r.lane.SetLink(link)
				r.counts(2)
				after(24 * time.Hour)
				r.wantCalls(t, "calls that open the mapping", want, "mapping")
			})
		})
	}
}

func TestAccountsGoTogetherWhereThePartnerTakesSeveral(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Bulk = r.partner
		r.lane.SetLink(link)
		keys := make([]ledger.Key, 1200)
		for i := range keys {
			keys[i] = ledger.AccountKey(organization, account(i))
		}
		r.set(0, keys...)
		after(time.Minute)
		if got := fmt.Sprint(r.bulks); got != "[500 500 200]" {
			t.Errorf("accounts in each call: got %s, want [500 500 200]", got)
		}
		if got := r.states()[ledger.Synced]; got != 1200 {
			t.Errorf("%d accounts are synced, want 1200", got)
		}
	})
}

func TestAccountsThatAreRefusedTogetherGoAlone(t *testing.T) {
	virtual(t, delivery.Config{}, func(t *testing.T, r *rig) {
		link := r.good()
		link.Bulk = r.partner
		r.lane.SetLink(link)
		together := true
		r.script(func(task delivery.Task) delivery.Answer {
			if together || task.Key.Account == "a3" {
				together = false
				return delivery.Answer{Class: delivery.Rejected}
			}
			return delivery.Answer{Class: delivery.Accepted}
		})
		keys := make([]ledger.Key, 10)
		for i := range keys {
			keys[i] = ledger.AccountKey(organization, account(i))
		}
		r.set(0, keys...)
		after(time.Minute)
		if states := r.states(); states[ledger.Synced] != 9 || states[ledger.Failed] != 1 {
			t.Errorf("states: got %v, want nine synced and the bad one failed", states)
		}
		r.wantCalls(t, "one together and ten alone", 11)
		if got := len(r.rulings(delivery.Dead)); got != 1 {
			t.Errorf("%d are dead, want the bad one", got)
		}
		r.script(nil)
		r.forget(link)
		after(time.Minute)
		if got := fmt.Sprint(r.bulks); got != "[10 9]" {
			t.Errorf("accounts in each call for several: got %s, want those that were good together again in a new generation", got)
		}
	})
}

func TestEachAccountOfACallForSeveralHasARetryBudgetOfItsOwn(t *testing.T) {
	virtual(t, delivery.Config{Attempts: 2, RetryMax: time.Second, Linger: -1}, func(t *testing.T, r *rig) {
		old, fresh := ledger.AccountKey(organization, "old"), ledger.AccountKey(organization, "fresh")
		r.script(always(delivery.Unavailable))
		r.set(0, old)
		after(0) // its first attempt
		link := r.good()
		link.Bulk, link.Paused = r.partner, true
		r.lane.SetLink(link)
		r.set(0, fresh)
		after(time.Minute)
		link.Paused = false
		r.lane.SetLink(link)
		after(time.Millisecond)
		if states := fmt.Sprint(r.states(), r.bulks); states != fmt.Sprint(map[ledger.State]int{ledger.Failed: 1, ledger.Retrying: 1}, []int{2}) {
			t.Errorf("states and calls for several: got %s, want the old one failed and the fresh one retrying", states)
		}
	})
}
