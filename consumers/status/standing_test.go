package status_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// A cell says where the status goes and what becomes of the announcement:
//
//	=   the status stays        I M P C   inactive, mapping, pending, connected
//	A   "archived", a word that the program does not know
//	+   announced   -   not announced   neither: as it was
//	!   one generation more
//
// One column for each status before; new is a record that has none yet. The
// row "any" holds whatever the partner named.
//
//nolint:dupword // many cells say the same
const statusGrid = `
input                 named      inactive mapping pending connected archived new

mapping_announced     nothing    M+       =+      =+      =+        =+       =+
mapping_announced     inactive   I+       I-!     I-!     I-!       I-!      I+
mapping_announced     mapping    M+       M+      M+      M+        M+       M+
mapping_announced     pending    P+       P+      P+      P+        P+       P+
mapping_announced     connected  C+       C+      C+      C+        C+       C+
mapping_announced     archived   A+       A+      A+      A+        A+       A+

count_accepted        any        C+       C+      C+      C+        C+       C+
catalog_accepted      any        =        =       =       =         =        =
count_answered        any        =        =       =       =         =        =

count_refused         nothing    =        =       M-      M-        =        =
count_refused         inactive   I        I-!     I-!     I-!       I-!      I
count_refused         mapping    M+       M+      M+      M+        M+       M+
count_refused         pending    P+       P+      P+      P+        P+       P+
count_refused         connected  C+       C+      C+      C+        C+       C+
count_refused         archived   A        A       A       A         A        A

status_observed       nothing    =        =       =       =         =        =
status_observed       inactive   I        I-!     I-!     I-!       I-!      I
status_observed       mapping    M+       M+      M+      M+        M+       M+
status_observed       pending    P+       P+      P+      P+        P+       P+
status_observed       connected  C+       C+      C+      C+        C+       C+
status_observed       archived   A        A       A       A         A        A

catalog_lost          any        =-!      =-!     =-!     =-!       =-!      =-!
credentials_refused   any        =        =       =       =         =        =
usage_suspected       any        =        =       =       =         =        =
flood_of_refusals     any        =        =       =       =         =        =
paused                any        =        =       =       =         =        =
resumed               any        =        =       =       =         =        =
credentials_replaced  any        =        =       =       =         =        =
credentials_renewed   any        =-!      =-!     =-!     =-!       =-!      =-!
resynced              any        =-!      =-!     =-!     =-!       =-!      =-!
`

// The hold and the pause after an input, for each of them before; a dash is
// none.
//
//nolint:dupword // many cells say the same
const gateGrid = `
input                 -             unauthorized  anomaly        running paused

mapping_announced     -             unauthorized  -              running paused
count_accepted        -             unauthorized  -              running paused
catalog_accepted      -             unauthorized  -              running paused
count_answered        -             unauthorized  -              running paused
count_refused         -             unauthorized  anomaly        running paused
status_observed       -             unauthorized  anomaly        running paused
catalog_lost          -             unauthorized  anomaly        running paused
credentials_refused   unauthorized  unauthorized  unauthorized   running paused
usage_suspected       anomaly       unauthorized  anomaly        running paused
flood_of_refusals     -             unauthorized  anomaly        paused  paused
paused                -             unauthorized  anomaly        paused  paused
resumed               -             unauthorized  anomaly        running running
credentials_replaced  -             -             -              running paused
credentials_renewed   -             -             -              running paused
resynced              -             -             -              running paused
`

// rows are the cells of a grid by what its first columns say.
func rows(t *testing.T, grid string, names int) map[string][]string {
	t.Helper()
	read := map[string][]string{}
	for n, line := range strings.Split(strings.TrimSpace(grid), "\n") {
		fields := strings.Fields(line)
		if n == 0 || len(fields) == 0 {
			continue
		}
		name := strings.Join(fields[:names], " ")
		if read[name] != nil {
			t.Fatalf("the grid has row %s twice", name)
		}
		read[name] = fields[names:]
	}
	return read
}

var (
	befores = []status.Status{status.Inactive, status.Mapping, status.Pending, status.Connected, "archived", ""}
	nameds  = []status.Status{"", status.Inactive, status.Mapping, status.Pending, status.Connected, "archived"}
	holds   = []string{"", "unauthorized", "anomaly"}
	either  = []bool{false, true}
)

// expected works a cell of each grid into the standing after an input.
func expected(before status.Standing, cell, hold, pause string) status.Standing {
	after := before
	if word, moves := map[byte]status.Status{
		'I': status.Inactive, 'M': status.Mapping, 'P': status.Pending, 'C': status.Connected, 'A': "archived",
	}[cell[0]]; moves {
		after.Status = word
	}
	if strings.Contains(cell, "+") {
		after.Announced = true
	}
	if strings.Contains(cell, "-") {
		after.Announced = false
	}
	after.Generation += strings.Count(cell, "!")
	after.Hold = strings.TrimPrefix(hold, "-")
	after.Paused = pause == "paused"
	return after
}

func TestEveryInputLeadsFromEveryStandingWhereItShould(t *testing.T) {
	statuses, gates := rows(t, statusGrid, 2), rows(t, gateGrid, 1)
	checked := 0
	for _, in := range status.Inputs() {
		for _, named := range nameds {
			word := string(named)
			if word == "" {
				word = "nothing"
			}
			cells := statuses[string(in)+" "+word]
			if cells == nil {
				cells = statuses[string(in)+" any"]
			}
			gate := gates[string(in)]
			if len(cells) != len(befores) || len(gate) != len(holds)+len(either) {
				t.Fatalf("the grids have no whole row for %s with %s", in, word)
			}
			for at, before := range everyStanding() {
				pause := gate[len(holds)]
				if before.Paused {
					pause = gate[len(holds)+1]
				}
				want := expected(before, cells[slices.Index(befores, before.Status)], gate[slices.Index(holds, before.Hold)], pause)
				if got := status.Next(before, in, named); got != want {
					t.Errorf("%d: %+v by %s with %s: got %+v, want %+v", at, before, in, word, got, want)
				}
				checked++
			}
		}
	}
	if want := 15 * 6 * 6 * 3 * 2 * 2; checked != want {
		t.Errorf("checked %d cases, want %d", checked, want)
	}
}

// everyStanding lists every status with every gate, announced or not.
func everyStanding() []status.Standing {
	var all []status.Standing
	for _, s := range befores {
		for _, hold := range holds {
			for _, paused := range either {
				for _, announced := range either {
					all = append(all, status.Standing{Status: s, Announced: announced, Generation: 3, Paused: paused, Hold: hold})
				}
			}
		}
	}
	return all
}

func TestAnInputThatNobodyKnowsChangesNothing(t *testing.T) {
	for _, before := range everyStanding() {
		if got := status.Next(before, "no such input", status.Inactive); got != before {
			t.Errorf("%+v: got %+v, want it as it was", before, got)
		}
	}
}

func TestNoSequenceOfInputsMakesAnIllegalTransition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := status.Standing{Status: rapid.SampledFrom(befores).Draw(t, "status")}
		for range rapid.IntRange(1, 30).Draw(t, "inputs") {
			in := rapid.SampledFrom(status.Inputs()).Draw(t, "input")
			named := rapid.SampledFrom(nameds).Draw(t, "named")
			next := status.Next(s, in, named)
			for _, law := range broken(s, next, in, named) {
				t.Errorf("%+v by %s with %q became %+v: %s", s, in, named, next, law)
			}
			s = next
		}
	})
}

// broken names the laws that a transition breaks.
func broken(before, after status.Standing, in status.Input, named status.Status) []string {
	operator := in == status.CredentialsReplaced || in == status.CredentialsRenewed || in == status.Resynced
	gateInputs := []status.Input{
		status.CatalogAccepted, status.CountAnswered, status.CatalogLost, status.CredentialsRefused, status.UsageSuspected, status.Flooded, status.PausedByOperator,
		status.ResumedByOperator, status.CredentialsReplaced, status.CredentialsRenewed, status.Resynced,
	}
	moved := after.Status != before.Status
	lost := after.Generation != before.Generation
	var laws []string
	for law, holds := range map[string]bool{
		"the generation grows by one at most and never falls":         after.Generation == before.Generation || after.Generation == before.Generation+1,
		"who has lost everything is not announced":                    !lost || !after.Announced,
		"who enters inactive has lost everything":                     !moved || after.Status != status.Inactive || before.Status == "" || lost,
		"unauthorized ends by an operator's word alone":               before.Hold != "unauthorized" || after.Hold == "unauthorized" || operator,
		"unauthorized begins with refused credentials alone":          before.Hold == "unauthorized" || after.Hold != "unauthorized" || in == status.CredentialsRefused,
		"a pause ends by an operator's word alone":                    !before.Paused || after.Paused || in == status.ResumedByOperator,
		"a pause begins with an operator or a flood":                  before.Paused || !after.Paused || in == status.PausedByOperator || in == status.Flooded,
		"connected comes of an accepted count or the partner's word":  !moved || after.Status != status.Connected || in == status.CountAccepted || named == status.Connected,
		"pending comes of the partner's word alone":                   !moved || after.Status != status.Pending || named == status.Pending,
		"an unknown word comes of the partner alone":                  !moved || after.Status != "archived" || named == "archived",
		"gates never move the status":                                 !moved || !slices.Contains(gateInputs, in),
		"a hold is one of the two":                                    slices.Contains(holds, after.Hold),
		"a partner that names a status past inactive has heard of us": !moved || after.Status != named || named == status.Inactive || named == "archived" || after.Announced,
		"whoever is forgotten and not ready is told of the catalog":   !lost || after.Status.Ready() || after.Setup(),
	} {
		if !holds {
			laws = append(laws, law)
		}
	}
	return laws
}

func TestTheCatalogIsAnnouncedOnceUntilThePartnerForgetsIt(t *testing.T) {
	s := status.Standing{Status: status.Inactive}
	steps := []struct {
		in    status.Input
		named status.Status
		want  bool
	}{
		{status.CatalogAccepted, "", true},
		{status.Announced, status.Inactive, false}, // it keeps its status, and is not told again and again
		{status.CountRefused, status.Inactive, false},
		{status.CatalogLost, "", true},
		{status.Announced, status.Mapping, false},
		{status.CountAccepted, "", false},
		{status.CatalogLost, "", false}, // ready: the next refusal will tell
		{status.CountRefused, "", true},
		{status.Announced, status.Mapping, false},
		{status.Observed, status.Inactive, true},
		{status.Announced, "", false},
	}
	for at, step := range steps {
		s = status.Next(s, step.in, step.named)
		if s.Setup() != step.want {
			t.Fatalf("after step %d, %s with %q: got %+v, to be announced %t, want %t", at+1, step.in, step.named, s, s.Setup(), step.want)
		}
	}
}

func TestTheClosedGatesAreListedInAFixedOrder(t *testing.T) {
	tests := []struct {
		standing status.Standing
		want     []ledger.HoldReason
	}{
		{status.Standing{Status: status.Connected}, []ledger.HoldReason{}},
		{status.Standing{Status: status.Pending, Hold: "anomaly"}, []ledger.HoldReason{ledger.Anomaly}},
		{status.Standing{Status: "archived"}, []ledger.HoldReason{ledger.IntegrationNotReady}},
		{
			status.Standing{Status: status.Mapping, Paused: true, Hold: "unauthorized"},
			[]ledger.HoldReason{ledger.Paused, ledger.Unauthorized, ledger.IntegrationNotReady},
		},
	}
	for _, test := range tests {
		if got := test.standing.Gates(); got == nil || !slices.Equal(got, test.want) {
			t.Errorf("%+v: got %#v, want %#v", test.standing, got, test.want)
		}
	}
}
