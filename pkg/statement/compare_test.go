package statement_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/statement"
)

func of(t *testing.T, asOf time.Time, rows ...statement.Row) *statement.Statement {
	t.Helper()
	return made(t, statement.Statement{Vendor: "acme", Organization: "msp-1", AsOf: asOf, Rows: rows})
}

func TestAComparisonNamesEveryKeyThatChangedAndHow(t *testing.T) {
	row := func(account, units, id, accepted string) statement.Row {
		return statement.Row{Account: account, Service: "s", Units: units, EventID: id, Source: "//b", Accepted: accepted, Complete: true}
	}
	earlier := of(t, noon, row("a", "1", "e-1", "1"), row("b", "1", "e-2", ""), row("c", "1", "e-3", "1"), row("d", "1", "e-4", "1"), row("f", "1", "e-5", ""))
	unsure := row("f", "2", "e-9", "1")
	unsure.Complete = false
	later := of(t, noon.Add(time.Hour), row("a", "1", "e-6", "1"), row("b", "1", "e-2", "1"), row("d", "7", "e-7", "1"), row("e", "5", "e-8", "4"), unsure)
	got, err := statement.Compare(earlier, later)
	if err != nil {
		t.Fatal(err)
	}
	want := &statement.Comparison{
		Vendor: "acme", Organization: "msp-1", From: noon, To: noon.Add(time.Hour), Same: 1,
		Changes: []statement.Change{
			{Account: "b", Service: "s", What: []string{"accepted_changed"}, From: "1", To: "1", EventID: "e-2", Source: "//b", AcceptedTo: "1", Certain: true},
			{Account: "c", Service: "s", What: []string{"gone"}, From: "1", EventID: "e-3", Source: "//b", AcceptedFrom: "1", Certain: true},
			{Account: "d", Service: "s", What: []string{"value_changed"}, From: "1", To: "7", EventID: "e-7", Source: "//b", AcceptedFrom: "1", AcceptedTo: "1", Certain: true},
			{Account: "e", Service: "s", What: []string{"added"}, To: "5", EventID: "e-8", Source: "//b", AcceptedTo: "4", Certain: true},
			{Account: "f", Service: "s", What: []string{"value_changed", "accepted_changed"}, From: "1", To: "2", EventID: "e-9", Source: "//b", AcceptedTo: "1"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAStatementDoesNotDifferFromItself(t *testing.T) {
	s := made(t, sample())
	got, err := statement.Compare(s, s)
	if err != nil || len(got.Changes) > 0 || got.Same != s.Keys {
		t.Errorf("got %+v, %v; want %d the same and no change", got, err, s.Keys)
	}
}

func TestOnlyAnEarlierStatementOfTheSameIntegrationIsCompared(t *testing.T) {
	later := of(t, noon)
	other := made(t, statement.Statement{Vendor: "acme", Organization: "msp-2", AsOf: noon})
	if _, err := statement.Compare(other, later); err == nil || !strings.Contains(err.Error(), "of acme/msp-2 and not of acme/msp-1") {
		t.Errorf("another integration: got %v", err)
	}
	if _, err := statement.Compare(of(t, noon.Add(time.Second)), later); err == nil || !strings.Contains(err.Error(), "want one from before") {
		t.Errorf("the wrong order: got %v", err)
	}
}
