//go:build unix

package main

import (
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// planted is a fault of the program that the harness must find: an edit of a
// source, for one build alone, and what is done to bring it to light.
type planted struct {
	name  string
	edits []edit
	deeds []deed
	// rounds are when a figure of every key is published, in one batch for each
	// integration, instead of most of what a schedule has.
	rounds []time.Duration
}

// plan is the partner with rules for counts beside its refusal.
func plan(rules ...sandbox.Rule) *sandbox.Plan {
	p := calmPlan()
	for _, r := range rules {
		r.Operation = sandbox.OperationCount
		p.Rules = append(p.Rules, r)
	}
	return p
}

func slowly(d time.Duration) *sandbox.Plan {
	return plan(sandbox.Rule{Name: "slow", Probability: 1, Effect: sandbox.Delay, Latency: d})
}

const (
	ms    = time.Millisecond
	books = "KV_LEDGER_" + vendor
)

// unguarded drops the compare-and-set of every ledger entry.
var unguarded = edit{"pkg/broker/ledger.go", "\t\texpect(m, entries[i].Revision)\n", ""}

var plantedFaults = []planted{
	{
		name: "ack before record",
		edits: []edit{{
			"pkg/worker/partition.go", "\t\terr := p.record(ctx, w, &done)\n",
			"\t\tp.acknowledge(ctx, source, batch[:w.messages])\n\t\terr := p.record(ctx, w, &done)\n",
		}},
		rounds: []time.Duration{2000 * ms},
		deeds: []deed{
			{at: 1900 * ms, lasts: 2 * time.Second, kind: fullStream, name: books},
			{at: 3200 * ms, lasts: 100 * ms, kind: killWorker, target: 0}, {at: 3200 * ms, lasts: 100 * ms, kind: killWorker, target: 1},
		},
	},
	{
		name:  "no compare-and-set",
		edits: []edit{unguarded},
		// Writes of the first round arrive when another worker has written
		// those of the second.
		rounds: []time.Duration{1600 * ms, 4200 * ms},
		deeds: []deed{
			{at: 1500 * ms, lasts: 3500 * ms, kind: linkNATS, target: 0, weather: weather{StallOut: true}},
			{at: 4900 * ms, lasts: 100 * ms, kind: killWorker, target: 1},
		},
	},
	{
		name: "leases ignored",
		edits: []edit{
			unguarded,
			{"pkg/broker/lease.go", "\treturn nil, fmt.Errorf(\"lease %s: %w by %s\", key, ErrLeased, owner)\n", "\t_ = owner\n\treturn l, nil\n"},
			{"pkg/broker/lease.go", "\t\treturn fmt.Errorf(\"renew lease %s: %w\", l.key, ErrLeaseLost)\n", "\t\treturn nil\n"},
			{"pkg/worker/members.go", "if claim := m.claims[at]; claim != nil && !m.late(claim, now) {", "if false {"},
			{"pkg/worker/members.go", "if late := v.since.Add(v.grace); owner != m.self && late.After(due) {", "if late := due; false {"},
			{"pkg/worker/members.go", "case ceding < mostCeded && !s.ceding &&", "case false && settled == nil &&"},
		},
	},
	{
		name: "mark before work",
		edits: []edit{{
			"pkg/delivery/call.go", "\ta, sight, made := l.send(calling, t)\n",
			"\tif k := t.tasks[0]; k.Key.Kind == ledger.Count {\n" +
				"\t\tl.book.Settle(Outcome{Task: k, Answer: Answer{Class: Accepted, At: time.Now()}, Verdict: Verdict{Ruling: Delivered}})\n\t}\n" +
				"\ta, sight, made := l.send(calling, t)\n",
		}},
		deeds: []deed{
			{at: 50 * ms, kind: partnerPlan, plan: slowly(500 * ms)},
			{at: 4800 * ms, lasts: 100 * ms, kind: killWorker, target: 0}, {at: 4800 * ms, lasts: 100 * ms, kind: killWorker, target: 1},
		},
	},
	{
		name: "an old value in a retry",
		edits: []edit{{
			"pkg/delivery/turn.go", "\tfigure, _ := e.Desired()\n",
			"\tfigure, _ := e.Desired()\n\tif e.State == ledger.Retrying && len(e.Seen) > 1 {\n\t\tfigure.Value = e.Seen[1].Value\n\t}\n",
		}},
		deeds: []deed{{at: 50 * ms, kind: partnerPlan, plan: plan(sandbox.Rule{Name: "500 after", Probability: 0.5, Effect: sandbox.StatusAfter, Status: 500})}},
	},
	{
		name: "shutdown counted",
		edits: []edit{
			{"pkg/delivery/lane.go", "\tgrace := l.config.Grace\n", "\tgrace := time.Duration(0)\n"},
			{"pkg/delivery/judge.go", "\tcase Stopped:\n\t\treturn Verdict{Ruling: NotCounted}\n\tcase Rejected:\n",
				"\tcase Stopped:\n\t\treturn Verdict{Ruling: Dead, Dead: ReasonUndeliverable}\n\tcase Rejected:\n"},
		},
		deeds: []deed{{at: 50 * ms, kind: partnerPlan, plan: slowly(500 * ms)}, {at: 2 * time.Second, kind: rollWorkers}, {at: 4 * time.Second, kind: rollWorkers}},
	},
	{
		name:  "replay without order",
		edits: []edit{{"pkg/event/decode.go", "\t\te.ReplayOf, e.Arrival = text, original\n", "\t\te.ReplayOf = text\n"}},
	},
	{
		name:  "an id alone is an event",
		edits: []edit{{"pkg/event/names.go", "\tb := append(small[:0], e.Source...)\n\tb = append(b, 0)\n\tb = append(b, e.ID...)\n", "\tb := append(small[:0], e.ID...)\n"}},
	},
	{
		name:  "zeros of incomplete snapshots",
		edits: []edit{{"pkg/ledger/snapshot.go", "if s.Open() && len(s.Parts) == s.Of {", "if s.Open() {"}},
	},
	{
		name:  "a limit that does not limit",
		edits: []edit{{"pkg/delivery/pace.go", "\tif missing <= 0 {\n", "\tif missing <= 1e6 {\n"}},
		deeds: []deed{{at: 2 * time.Second, lasts: 0, kind: resetOrg, name: orgReset}, {at: 4 * time.Second, lasts: 0, kind: resetOrg, name: orgReset}},
	},
	{
		name:  "a wait that is not waited for",
		edits: []edit{{"pkg/delivery/hold.go", "\twait := a.RetryAfter\n\tif fresh {\n", "\twait := time.Duration(0)\n\tif fresh {\n"}},
		deeds: []deed{{at: 50 * ms, kind: partnerPlan, plan: plan(sandbox.Rule{
			Name: "429", Probability: 0.1, Effect: sandbox.StatusBefore, Status: 429, RetryAfter: time.Second,
		})}},
	},
	{
		name: "bad tokens are tried again",
		edits: []edit{{
			"pkg/delivery/judge.go", "\tcase Unauthorized:\n\t\treturn Verdict{Ruling: HoldLane, Hold: ledger.Unauthorized}\n\tcase Suspected:\n\t\treturn",
			"\tcase Unauthorized:\n\t\treturn Verdict{Ruling: Retry}\n\tcase Suspected:\n\t\treturn",
		}},
		deeds: []deed{{at: time.Second, lasts: 3 * time.Second, kind: revokeTokens, name: orgLocked}},
	},
	{
		name:  "a pause that does not pause",
		edits: []edit{{"pkg/delivery/turn.go", "case l.link.Partner == nil, l.link.Paused,", "case l.link.Partner == nil,"}},
		deeds: []deed{{at: 200 * ms, lasts: 5 * time.Second, kind: pauseOrg, name: orgPaused}},
	},
}

// The faults themselves are run by make torture-faults; that there is still
// something to plant them into is seen here.
func TestThereIsAPlaceToPlantEveryFault(t *testing.T) {
	for _, f := range plantedFaults {
		if _, err := overlay(t.Context(), t.TempDir(), f.edits...); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
	goroot, err := goEnv(t.Context(), "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := overlay(t.Context(), t.TempDir(), clockEdits(goroot)...); err != nil {
		t.Errorf("a clock that jumps: %v", err)
	}
}

func TestAnEditThatFitsNowhereOrTwiceIsRefused(t *testing.T) {
	for _, old := range []string{"this is nowhere", "return"} {
		if _, err := overlay(t.Context(), t.TempDir(), edit{"pkg/broker/ledger.go", old, ""}); err == nil {
			t.Errorf("an edit of %q: got no error, want one", old)
		}
	}
}
