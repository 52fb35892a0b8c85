//go:build unix

package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// refusal is what the partner does in any weather: it refuses the figures of
// one service for good.
var refusal = sandbox.Rule{
	Name: "refused", Operation: sandbox.OperationCount, Service: serviceRefused, Probability: 1,
	Effect: sandbox.StatusBefore, Status: 422, Message: "this service is not for sale",
}

// calmPlan is the partner without faults but that.
func calmPlan() *sandbox.Plan { return &sandbox.Plan{Rules: []sandbox.Rule{refusal}} }

// drawDeeds draws what goes wrong.
func (d *drawer) drawDeeds() {
	d.deed(deed{kind: partnerPlan, plan: calmPlan()})
	for range 2 + d.IntN(2) {
		d.deed(deed{at: d.between(0, storm-time.Second), kind: partnerPlan, plan: d.drawPlan()})
	}
	for range 2 + d.IntN(4) {
		d.drawAccident()
	}
	d.deed(deed{at: d.between(time.Second, 2*time.Second), lasts: d.between(time.Second, 3*time.Second), kind: revokeTokens, name: orgLocked})
	if d.chance(0.6) {
		d.deed(deed{at: d.between(time.Second/2, time.Second), lasts: d.between(storm, storm+time.Second), kind: pauseOrg, name: orgPaused})
	}
	if d.chance(0.4) {
		d.drawReset(d.between(3*time.Second/2, storm-time.Second))
	}
	d.deed(deed{at: d.between(2*time.Second, storm), kind: mapLate, name: orgLate})
	if d.chance(0.2) {
		d.deed(deed{at: d.between(3*time.Second, storm), kind: replay, name: d.reason()})
	}
	slices.SortStableFunc(d.schedule.deeds, func(a, b deed) int { return cmp.Compare(a.at, b.at) })
}

// drawReset has the partner lose what it has of an integration. The program can
// only learn of it by a figure of a key that had arrived.
func (d *drawer) drawReset(at time.Duration) {
	d.deed(deed{at: at, kind: resetOrg, name: orgReset})
	for _, account := range accounts {
		d.post(at+resetPatience+d.between(0, time.Second), note{
			id: d.id(), source: source, organization: orgReset, typ: "usage.count.v1",
			second: 30 * minute, account: account, service: services[0], units: d.fresh(),
		})
	}
}

func (d *drawer) deed(x deed) { d.schedule.deeds = append(d.schedule.deeds, x) }

func (d *drawer) reason() string {
	reasons := []string{"malformed", "invalid", "unknown_type", "subject_mismatch"}
	return reasons[d.IntN(len(reasons))]
}

// drawAccident draws one thing that happens to a process or a link.
func (d *drawer) drawAccident() {
	x := deed{at: d.between(300*time.Millisecond, storm-500*time.Millisecond), lasts: d.between(100*time.Millisecond, 2*time.Second)}
	x.target = d.IntN(d.schedule.workers)
	kinds := []string{
		killWorker, killWorker, killWorker, stopWorker, endWorker, rollWorkers, jumpWorker, linkNATS, linkNATS, linkPartner, linkPartner,
		killServer, killServer, stopServer, pauseServer, stutter, fullStream,
	}
	if d.schedule.nodes > 1 {
		kinds = append(kinds, stepDown, stepDown, stepDown, killServer)
	}
	switch x.kind = kinds[d.IntN(len(kinds))]; x.kind {
	case killServer, stopServer, pauseServer, stutter:
		x.target = d.IntN(d.schedule.nodes)
	case stopWorker:
		x.lasts = d.between(leaseTTL/2, 2*leaseTTL)
	case jumpWorker:
		x.lasts = [...]time.Duration{-time.Hour, -leaseTTL, leaseTTL, time.Hour}[d.IntN(4)]
	case linkNATS, linkPartner:
		x.weather = d.drawWeather()
		x.lasts = d.between(200*time.Millisecond, 2*leaseTTL)
	case stepDown:
		x.name = d.drawLeader()
	case fullStream:
		x.name = [...]string{"EVENTS_" + vendor, "KV_LEDGER_" + vendor, "DEADLETTERS", "SYNCLOG"}[d.IntN(4)]
	}
	d.deed(x)
}

func (d *drawer) drawWeather() weather {
	return [...]weather{
		{Down: true},
		{StallIn: true, StallOut: true},
		{StallIn: true},
		{StallOut: true},
		{Delay: 50 * time.Millisecond},
		{Delay: 200 * time.Millisecond},
	}[d.IntN(6)]
}

// drawLeader names whose leader steps down: the cluster's, a stream's, or a
// consumer's.
func (d *drawer) drawLeader() string {
	return [...]string{"META", "EVENTS_" + vendor, "KV_LEDGER_" + vendor, "KV_LEASES", "EVENTS_" + vendor + "/p0", "EVENTS_" + vendor + "/p1"}[d.IntN(6)]
}

// drawPlan draws faults of the partner. Nothing of the catalog is refused for
// good: nobody would publish it anew. No answer takes as long as the worker
// waits, but for those that are meant to.
func (d *drawer) drawPlan() *sandbox.Plan {
	plan := calmPlan()
	plan.Seed = d.Uint64()
	bad := []sandbox.Rule{
		{Name: "reset before", Effect: sandbox.ResetBefore},
		{Name: "reset after", Effect: sandbox.ResetAfter},
		{Name: "503 before", Effect: sandbox.StatusBefore, Status: 503},
		{Name: "500 after", Effect: sandbox.StatusAfter, Status: 500},
		{Name: "429", Effect: sandbox.StatusBefore, Status: 429, RetryAfter: time.Second},
		{Name: "408 after", Effect: sandbox.StatusAfter, Status: 408},
		{Name: "garbage", Effect: sandbox.GarbageBody},
		{Name: "empty", Effect: sandbox.EmptyBody},
		{Name: "huge", Effect: sandbox.HugeBody, BodyBytes: 1 << 20},
		{Name: "slow body", Effect: sandbox.SlowBody, BodyTime: 300 * time.Millisecond},
		{Name: "too slow", Effect: sandbox.Delay, Latency: callTimeout + 200*time.Millisecond},
		{Name: "404", Operation: sandbox.OperationCount, Effect: sandbox.StatusBefore, Status: 404},
		{Name: "403", Operation: sandbox.OperationCount, Effect: sandbox.StatusBefore, Status: 403},
	}
	for range 2 + d.IntN(3) {
		rule := bad[d.IntN(len(bad))]
		rule.Probability = 0.02 + 0.2*d.Float64()
		plan.Rules = append(plan.Rules, rule)
	}
	if d.chance(0.2) {
		from := d.between(0, time.Second)
		plan.Rules = append(plan.Rules, sandbox.Rule{
			Name: "outage", Probability: 1, From: from, Until: from + d.between(200*time.Millisecond, time.Second), Effect: sandbox.StatusBefore, Status: 503,
		})
	}
	plan.Rules = append(plan.Rules, sandbox.Rule{
		Name: "slow", Probability: 1, Effect: sandbox.Delay, Latency: d.between(0, 30*time.Millisecond), Jitter: 20 * time.Millisecond,
	})
	return plan
}
