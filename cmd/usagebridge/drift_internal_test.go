package main

import (
	"slices"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// acceptedEntry is an entry with one figure that the partner has taken.
func acceptedEntry(t *testing.T, key ledger.Key, v ledger.Value) ledger.Entry {
	t.Helper()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	e, _, err := (&ledger.Entry{}).Apply(ledger.Operation{Key: key, Version: ledger.Version{Time: at.UnixNano(), Arrival: 1}, Value: v, Event: 1}, at)
	if err != nil {
		t.Fatal(err)
	}
	return e.Accept(e.Seen[0], ledger.Receipt{}, ledger.Answer{At: at.UnixNano(), Status: 201})
}

func TestDriftIsWhatThePartnerHasOtherwiseThanTheLedgerSays(t *testing.T) {
	named := func(name string) ledger.Value { return ledger.Value{Properties: `{"name":"` + name + `"}`} }
	account := func(id string) ledger.Entry { return acceptedEntry(t, ledger.AccountKey("o", id), named("A")) }
	count := func(id, service string) ledger.Entry {
		return acceptedEntry(t, ledger.CountKey("o", id, service), ledger.Value{Units: 1})
	}
	unmapped := func(id, service string) ledger.Entry {
		e := count(id, service)
		return e.Hold(ledger.Unmapped, ledger.Answer{Status: 404})
	}
	unposted := account("a")
	unposted.Delivered, unposted.State = ledger.Delivered{}, ledger.Dirty
	renamed := account("a")
	renamed, _, _ = renamed.Apply(ledger.Operation{
		Key: renamed.Key, Version: ledger.Version{Time: renamed.Seen[0].Time + 1, Arrival: 2}, Value: named("New"), Event: 2,
	}, time.Now())
	is := func(mapped bool) []vendorapi.ListedAccount {
		return []vendorapi.ListedAccount{{ID: "a", Name: "A", Mapped: mapped}}
	}
	for name, test := range map[string]struct {
		here  []ledger.Entry
		there []vendorapi.ListedAccount
		want  []string
	}{
		"both have it":                       {[]ledger.Entry{account("a"), count("a", "s")}, is(true), nil},
		"it is lost":                         {[]ledger.Entry{account("a")}, nil, []string{"missing a"}},
		"it is not posted yet":               {[]ledger.Entry{unposted}, nil, nil},
		"it was there before we posted it":   {[]ledger.Entry{unposted}, is(false), nil},
		"nobody has named it":                {nil, is(true), []string{"unknown a"}},
		"only a count has named it":          {[]ledger.Entry{unmapped("a", "s")}, is(false), nil},
		"its name differs":                   {[]ledger.Entry{account("a")}, []vendorapi.ListedAccount{{ID: "a", Name: "B"}}, []string{"name a"}},
		"its name is not told":               {[]ledger.Entry{account("a")}, []vendorapi.ListedAccount{{ID: "a"}}, nil},
		"its new name is on the way":         {[]ledger.Entry{renamed}, []vendorapi.ListedAccount{{ID: "a", Name: "B"}}, nil},
		"it was unmapped":                    {[]ledger.Entry{account("a"), count("a", "s")}, is(false), []string{"not mapped a"}},
		"it waits to be mapped":              {[]ledger.Entry{account("a"), unmapped("a", "s")}, is(false), nil},
		"it was mapped meanwhile":            {[]ledger.Entry{account("a"), unmapped("a", "s")}, is(true), []string{"mapped a"}},
		"only one of its services is mapped": {[]ledger.Entry{account("a"), count("a", "s"), unmapped("a", "t")}, is(true), nil},
		"what else the ledger keeps":         {[]ledger.Entry{{Key: ledger.ScopeKey("o", "b")}, {Key: ledger.BackfillKey("o", "c")}}, nil, nil},
	} {
		d := drift{tally: tally{posted: map[ledger.Key]bool{}}, accounts: map[string]*accountHere{}}
		for i := range test.here {
			d.add(&test.here[i])
		}
		if err := d.compare(test.there); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, difference := range d.view.Drift {
			got = append(got, difference.Kind+" "+difference.Account)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestAnAccountOfALowerGenerationIsNotTakenToBeThere(t *testing.T) {
	d := drift{tally: tally{generation: 1, posted: map[ledger.Key]bool{}}, accounts: map[string]*accountHere{}}
	e := acceptedEntry(t, ledger.AccountKey("o", "a"), ledger.Value{Properties: `{"name":"A"}`})
	d.add(&e)
	if err := d.compare(nil); err != nil || len(d.view.Drift) > 0 {
		t.Errorf("got %+v, %v; want no difference: it is posted again anyway", d.view.Drift, err)
	}
}
