package main

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// perfect is what is seen of a demo in which everything went well: every key
// got its oldest value first, if it had several, and its newest at last.
func perfect(plan *demoPlan) *demoEvidence {
	want := &plan.want
	seen := &demoEvidence{stored: want.messages, received: want.messages, dropped: want.dropped, letters: map[event.Reason]int{}, limit: 50}
	reports := map[string]*sandbox.IntegrationReport{}
	for _, organization := range demoOrganizations() {
		in := &sandbox.IntegrationReport{Name: demoIntegration(organization), Counts: map[string]map[string]json.Number{}}
		for id, name := range want.accounts[organization] {
			in.Accounts = append(in.Accounts, sandbox.AccountReport{VendorAccountID: id, Name: name})
		}
		for id, name := range want.services[organization] {
			in.Services = append(in.Services, sandbox.ServiceReport{ID: id, Name: name})
		}
		reports[organization] = in
	}
	accept := func(key demoKey, units event.Units) {
		seen.tape = append(seen.tape, sandbox.Record{
			Sequence: uint64(len(seen.tape) + 1), Time: demoDay.Add(time.Duration(len(seen.tape)) * 30 * time.Millisecond),
			Integration: demoIntegration(key.organization), Operation: sandbox.OperationCount,
			Account: key.account, Service: key.service, Value: units.String(), Status: 201, Accepted: true,
		})
		counts := reports[key.organization].Counts
		if counts[key.account] == nil {
			counts[key.account] = map[string]json.Number{}
		}
		counts[key.account][key.service] = json.Number(units.String())
	}
	for _, key := range sortedKeys(want.figures) {
		figure := want.figures[key]
		for units, rank := range figure.ranks {
			if rank == 0 && len(figure.ranks) > 1 {
				accept(key, units)
			}
		}
		accept(key, figure.newest.units)
	}
	for _, organization := range demoOrganizations() {
		seen.partner.Integrations = append(seen.partner.Integrations, *reports[organization])
	}
	maps.Copy(seen.letters, want.dead)
	seen.dispositions = map[ledger.Disposition]int{
		ledger.Applied: want.keys(), ledger.Duplicate: want.recent, ledger.Dead: want.deadLetters(),
		ledger.Superseded: want.events - want.keys() - want.recent - want.deadLetters(),
	}
	return seen
}

func TestADemoThatWentWellHoldsEveryCheck(t *testing.T) {
	plan := newDemoPlan(1, 2000, demoDay)
	for _, c := range checkDemo(plan, perfect(plan)) {
		if !c.OK {
			t.Errorf("%s: got %q, want no problem", c.Claim, c.Problems)
		}
	}
}

func TestWhatWentWrongIsFound(t *testing.T) {
	plan := newDemoPlan(1, 2000, demoDay)
	key := sortedKeys(plan.want.figures)[0]
	// lastCall is the one that brought the newest value of the key.
	lastCall := func(seen *demoEvidence) *sandbox.Record {
		for i := len(seen.tape) - 1; i >= 0; i-- {
			if r := &seen.tape[i]; r.Account == key.account && r.Service == key.service && strings.HasSuffix(r.Integration, key.organization) {
				return r
			}
		}
		t.Fatalf("no call for %s", key)
		return nil
	}
	counts := func(seen *demoEvidence) map[string]json.Number {
		for _, in := range seen.partner.Integrations {
			if in.Name == demoIntegration(key.organization) {
				return in.Counts[key.account]
			}
		}
		t.Fatalf("no counts of %s", key.organization)
		return nil
	}
	const figures, order, events, rate = 0, 1, 2, 3
	tests := []struct {
		name  string
		spoil func(*demoEvidence)
		check int
		want  string
	}{
		{"another value", func(s *demoEvidence) { counts(s)[key.service] = "12345678" }, figures, "the partner has 12345678, want "},
		{"a missing value", func(s *demoEvidence) { delete(counts(s), key.service) }, figures, "the partner has nothing, want "},
		{"a value that nobody published", func(s *demoEvidence) { counts(s)["alien"] = "1" }, figures, "which nobody published"},
		{"a missing account", func(s *demoEvidence) { s.partner.Integrations[0].Accounts = s.partner.Integrations[0].Accounts[1:] }, figures, `has the name "" at the partner`},
		{"an outdated name", func(s *demoEvidence) { s.partner.Integrations[0].Accounts[0].Name = "Old" }, figures, `has the name "Old" at the partner`},
		{"an alien service", func(s *demoEvidence) {
			s.partner.Integrations[1].Services = append(s.partner.Integrations[1].Services, sandbox.ServiceReport{ID: "alien"})
		}, figures, `the partner has service "alien", which nobody published`},
		{"a key that is not delivered", func(s *demoEvidence) { s.open = []string{"o/count/a/s is held unmapped"} }, figures, "not in step with the partner"},
		{"an older value after the newest", func(s *demoEvidence) {
			older := *lastCall(s)
			for units, rank := range plan.want.figures[key].ranks {
				if rank == 0 {
					older.Value = units.String()
				}
			}
			older.Sequence = 9999
			s.tape = append(s.tape, older)
		}, order, "call 9999 brought"},
		{"a value that was never the key's", func(s *demoEvidence) { lastCall(s).Value = wrongUnits.String() }, order, "which was never its figure"},
		{"a lost message", func(s *demoEvidence) { s.stored-- }, events, "messages, want"},
		{"a message that nobody took", func(s *demoEvidence) { s.pending = 1 }, events, "1 messages are not acknowledged"},
		{"an event without a disposition", func(s *demoEvidence) { s.dispositions[ledger.Superseded]-- }, events, "events are known, want"},
		{"an event with two dispositions", func(s *demoEvidence) { s.dispositions[ledger.Superseded]++ }, events, "events are known, want"},
		{"a repeat that was applied", func(s *demoEvidence) {
			s.dispositions[ledger.Duplicate]--
			s.dispositions[ledger.Applied]++
		}, events, "repeats of a newest event"},
		{"a missing dead letter", func(s *demoEvidence) { s.letters[event.ReasonConflict]-- }, events, "dead letters are conflicting_duplicate, want"},
		{"a dead letter that should not be", func(s *demoEvidence) { s.letters[event.ReasonRejected]++ }, events, "1 dead letters are rejected, want 0"},
		{"a repeat that the server let through", func(s *demoEvidence) { s.dropped-- }, events, "the server dropped"},
		{"too many calls in a second", func(s *demoEvidence) { s.limit = 10 }, rate, "calls within one second, the limit is 10"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := perfect(plan)
			tt.spoil(seen)
			for i, c := range checkDemo(plan, seen) {
				if c.OK != (i != tt.check) {
					t.Errorf("%s: got %v with %q, want %v", c.Claim, c.OK, c.Problems, i != tt.check)
				}
				if got := strings.Join(c.Problems, "\n"); i == tt.check && !strings.Contains(got, tt.want) {
					t.Errorf("got problems %q, want one with %q", got, tt.want)
				}
			}
		})
	}
}

func TestAMessageThatCameTwiceIsNoLostEvent(t *testing.T) {
	plan := newDemoPlan(1, 2000, demoDay)
	seen := perfect(plan)
	seen.received += 2
	seen.dispositions[ledger.Superseded] += 60
	if c := seen.checkEvents(&plan.want); !c.OK {
		t.Errorf("got %q, want no problem", c.Problems)
	}
}

func TestTheBusiestSecondIsAnySecond(t *testing.T) {
	at := func(ms ...int) (times []time.Time) {
		for _, m := range ms {
			times = append(times, demoDay.Add(time.Duration(m)*time.Millisecond))
		}
		return times
	}
	for _, tt := range []struct {
		times []time.Time
		want  int
	}{
		{nil, 0}, {at(0), 1}, {at(0, 1000, 2000), 1}, {at(0, 999, 1000, 1998), 3}, {at(700, 900, 1100, 1699, 1700), 4},
	} {
		if got := busiestSecond(tt.times); got != tt.want {
			t.Errorf("busiestSecond(%v) = %d, want %d", tt.times, got, tt.want)
		}
	}
}

func TestManyProblemsAreCounted(t *testing.T) {
	var p demoProblems
	for i := range 1500 {
		p.add("problem %d", i)
	}
	got := p.check("", "").Problems
	if len(got) != maxProblems+1 || got[maxProblems] != "and 1,492 more" {
		t.Errorf("got %q, want %d and a line that counts 1,492", got, maxProblems)
	}
}
