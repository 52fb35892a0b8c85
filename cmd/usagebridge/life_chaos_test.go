package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// blow is one thing that happens to an integration, drawn before the bubble of
// virtual time begins.
type blow struct {
	kind    string
	account int
	service int
	status  int
	chance  float64
	after   bool // the partner takes the value and fails to say so
	wait    time.Duration
}

func drawBlows(t *rapid.T) []blow {
	kinds := []string{
		"figure", "figure", "figure", "figures", "map", "map", "map all", "unmap", "finish", "finish", "reset", "revoke", "issue",
		"anomaly", "no anomaly", "pause", "resume", "resync", "faults", "no faults", "hint",
	}
	blows := make([]blow, rapid.IntRange(1, 20).Draw(t, "blows"))
	for i := range blows {
		blows[i] = blow{
			kind:    rapid.SampledFrom(kinds).Draw(t, "kind"),
			account: rapid.IntRange(0, len(lifeAccounts)-1).Draw(t, "account"),
			service: rapid.IntRange(0, len(lifeServices)-1).Draw(t, "service"),
			status:  rapid.SampledFrom([]int{400, 403, 404, 408, 409, 422, 429, 500, 503}).Draw(t, "status"),
			chance:  rapid.SampledFrom([]float64{0.1, 0.5, 1}).Draw(t, "chance"),
			after:   rapid.Bool().Draw(t, "after"),
			wait: rapid.SampledFrom([]time.Duration{
				0, time.Millisecond, 250 * time.Millisecond, time.Second, time.Minute, 20 * time.Minute, 2 * time.Hour,
			}).Draw(t, "wait"),
		}
	}
	return blows
}

// chaos is a life without a script.
type chaos struct {
	*virtualWorld

	dialect sandbox.Dialect
	tokens  sandbox.Integration
	round   int
}

func TestWhateverHappensToAnIntegrationNoFigureIsLostAndNoStepIsIllegal(t *testing.T) {
	t.Parallel()
	for _, dialect := range []sandbox.Dialect{sandbox.MSPCentric, sandbox.Gradient} {
		t.Run(string(dialect), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				blows := drawBlows(rt)
				failure := ""
				synctest.Test(t, func(t *testing.T) {
					c := &chaos{virtualWorld: newVirtualWorld(t), dialect: dialect}
					defer c.end()
					c.begin()
					for _, b := range blows {
						c.strike(b)
						<-time.After(b.wait)
						synctest.Wait()
					}
					failure = c.calm()
				})
				if failure != "" {
					rt.Fatalf("%s", failure)
				}
			})
		})
	}
}

// begin adds the integration, and publishes its catalog and first figures.
func (c *chaos) begin() {
	in, err := c.partner.AddIntegration(sandbox.Integration{Name: lifeName, Dialect: c.dialect})
	if err != nil {
		c.t.Fatal(err)
	}
	c.tokens = in
	c.add(in)
	c.catalog()
	c.figures()
}

func (c *chaos) catalog() {
	c.round++
	var events []*event.Event
	for _, a := range lifeAccounts {
		events = append(events, c.event("catalog "+a, event.Account{AccountID: a, Name: fmt.Sprint("Account ", c.round)}))
	}
	for _, s := range lifeServices {
		events = append(events, c.event("catalog "+s, event.Service{ServiceID: s, Name: fmt.Sprint("Service ", c.round)}))
	}
	c.publish(events)
}

// figures publishes a figure of every key, or of one: the number of the round.
func (c *chaos) figures(only ...ledger.Key) {
	c.round++
	var events []*event.Event
	for _, a := range lifeAccounts {
		for _, s := range lifeServices {
			if len(only) > 0 && only[0] != ledger.CountKey(lifeOrganization, a, s) {
				continue
			}
			events = append(events, c.event(a+s, event.Count{AccountID: a, ServiceID: s, UnitCount: event.Units(c.round) * event.UnitsScale}))
		}
	}
	c.publish(events)
	<-time.After(time.Millisecond) // the next figure is newer
}

func (c *chaos) event(id string, data event.Data) *event.Event {
	e := &event.Event{
		ID: fmt.Sprint(c.round, " ", id), Source: "//test", Time: time.Now().UTC(), Vendor: lifeVendor, Organization: lifeOrganization, Data: data,
	}
	switch data.(type) {
	case event.Account:
		e.Type = event.TypeAccount
	case event.Service:
		e.Type = event.TypeService
	default:
		e.Type = event.TypeCount
	}
	return e
}

// strike makes it happen. What the partner does not let happen now does not.
func (c *chaos) strike(b blow) {
	account, service := lifeAccounts[b.account], lifeServices[b.service]
	switch b.kind {
	case "figure":
		c.figures(ledger.CountKey(lifeOrganization, account, service))
	case "figures":
		c.figures()
	case "map":
		_ = c.partner.Map(lifeName, sandbox.Only(account), sandbox.Only(service))
	case "map all":
		_ = c.partner.Map(lifeName, sandbox.All(), sandbox.All())
	case "unmap":
		_ = c.partner.Unmap(lifeName, sandbox.Only(account), sandbox.Only())
	case "finish":
		_ = c.partner.Finish(lifeName)
	case "reset":
		c.must(c.partner.Reset(lifeName))
	case "revoke":
		c.must(c.partner.RevokeTokens(lifeName))
	case "issue":
		c.renew()
	case "anomaly", "no anomaly":
		c.must(c.partner.SetAnomaly(lifeName, b.kind == "anomaly"))
	case "pause", "resume":
		c.setPaused(b.kind == "pause")
	case "resync":
		c.resync()
	case "faults":
		c.fault(b)
	case "no faults":
		c.must(c.partner.SetFaults(slowly(100 * time.Millisecond)))
	case "hint":
		c.engine.worker.Probe(lifeVendor, lifeOrganization, account)
	}
}

func (c *chaos) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// fault makes the partner answer badly. Nothing of the catalog is refused for
// good: nobody would publish it anew.
func (c *chaos) fault(b blow) {
	plan := slowly(100 * time.Millisecond)
	bad := sandbox.Rule{Name: "bad", Probability: b.chance, Effect: sandbox.StatusBefore, Status: b.status}
	if b.status == 400 || b.status == 422 {
		bad.Operation = sandbox.OperationCount
	}
	if b.after && b.status >= 500 {
		bad.Effect = sandbox.StatusAfter
	}
	plan.Rules = append(plan.Rules, bad)
	c.must(c.partner.SetFaults(plan))
}

// setPaused does what the commands do: nothing, when it is so already.
func (c *chaos) setPaused(on bool) {
	if c.record().Paused != on {
		c.pause(on)
	}
}

func (c *chaos) renew() {
	in, err := c.partner.IssueTokens(lifeName)
	c.must(err)
	c.tokens = in
	c.setTokens(in)
}

// calm ends everything that was bad, publishes last figures, lets the person
// map, and says what is wrong then.
func (c *chaos) calm() string {
	c.must(c.partner.SetFaults(slowly(100 * time.Millisecond)))
	c.must(c.partner.SetAnomaly(lifeName, false))
	c.setPaused(false)
	c.renew()
	c.catalog()
	c.figures()
	right := false
	for range 60 * 24 { // for 60 days
		<-time.After(time.Hour)
		synctest.Wait()
		_ = c.partner.Map(lifeName, sandbox.All(), sandbox.All())
		_ = c.partner.Finish(lifeName)
		if right = c.wrong() == ""; right {
			break
		}
	}
	if !right {
		return c.wrong()
	}
	for _, fault := range []string{c.disorder(), c.illegal(), c.trespass()} {
		if fault != "" {
			return fault
		}
	}
	return ""
}

// wrong names a figure that the partner does not have as published last.
func (c *chaos) wrong() string {
	want := strconv.Itoa(c.round)
	for _, a := range lifeAccounts {
		for _, s := range lifeServices {
			if got, _ := c.partner.Value(lifeName, a, s); got != want {
				e := c.entry(ledger.CountKey(lifeOrganization, a, s))
				return fmt.Sprintf("%s/%s: the partner has %q, want %s; it is %s (%s), the record %+v, the lane %+v",
					a, s, got, want, e.State, e.Reason, c.record().Standing, c.lane())
			}
			if got, _ := c.partner.Billed(lifeName, a, s); got != want {
				return fmt.Sprintf("%s/%s: the partner bills %q, want %s", a, s, got, want)
			}
		}
	}
	return ""
}

// disorder names a key for which an older figure came after a newer one.
func (c *chaos) disorder() string {
	for _, a := range lifeAccounts {
		for _, s := range lifeServices {
			history := c.partner.History(lifeName, a, s)
			sorted := slices.IsSortedFunc(history, func(x, y sandbox.Accepted) int {
				older, _ := strconv.Atoi(x.Value)
				newer, _ := strconv.Atoi(y.Value)
				return older - newer
			})
			if !sorted {
				return fmt.Sprintf("%s/%s: the partner took an older figure after a newer one: %v", a, s, history)
			}
		}
	}
	return ""
}

// illegal names a transition that the table of the status machine does not have.
func (c *chaos) illegal() string {
	transitions, _ := c.books()
	slices.SortFunc(transitions, func(a, b status.Transition) int { return a.Number - b.Number })
	for i, now := range transitions[1:] {
		before := transitions[i]
		if now.Number != before.Number+1 || now.From != before.To || now.Generation < before.Generation {
			return fmt.Sprintf("transition %d is %+v, but the one before it %+v", i+1, now, before)
		}
		reached := slices.ContainsFunc(append(status.Statuses(), ""), func(observed status.Status) bool {
			standing := status.Standing{
				Status: before.To, Generation: before.Generation,
				Paused: slices.Contains(before.Gates, string(ledger.Paused)),
			}
			for _, hold := range []ledger.HoldReason{ledger.Unauthorized, ledger.Anomaly} {
				if slices.Contains(before.Gates, string(hold)) {
					standing.Hold = string(hold)
				}
			}
			next := status.Next(standing, status.Input(now.Cause), observed)
			return next.Status == now.To && next.Generation == now.Generation && fmt.Sprint(next.Gates()) == fmt.Sprint(now.Gates)
		})
		if !reached {
			return fmt.Sprintf("transition %d is %+v, to which nothing leads from %+v; all of them: %+v", i+1, now, before, transitions)
		}
	}
	return ""
}

// trespass names a call that was made while the integration was paused or its
// tokens were known to be bad. One that was under way then may still come in.
func (c *chaos) trespass() string {
	const underWay = time.Second
	type moment struct {
		Time time.Time         `json:"time"`
		Data status.Transition `json:"data"`
	}
	c.status.mu.Lock()
	moments := make([]moment, len(c.status.bodies))
	for i, body := range c.status.bodies {
		c.must(json.Unmarshal(body, &moments[i]))
	}
	c.status.mu.Unlock()
	slices.SortFunc(moments, func(a, b moment) int { return a.Data.Number - b.Data.Number })
	tape := c.partner.Tape()
	for i, m := range moments[:len(moments)-1] {
		closed := slices.Contains(m.Data.Gates, string(ledger.Paused)) || slices.Contains(m.Data.Gates, string(ledger.Unauthorized))
		if !closed {
			continue
		}
		for _, r := range tape {
			if r.Time.After(m.Time.Add(underWay)) && r.Time.Before(moments[i+1].Time) {
				return fmt.Sprintf("%s of %s/%s at %s, but %v since %s", r.Operation, r.Account, r.Service, r.Time, m.Data.Gates, m.Time)
			}
		}
	}
	return ""
}
