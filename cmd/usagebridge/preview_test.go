package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// minuteEntry is an entry that the partner has been behind with since minute n
// after noon.
func minuteEntry(key ledger.Key, minute int, state ledger.State) ledger.Entry {
	value := ledger.Value{Units: int64(minute) * 1_000_000}
	if key.Kind != ledger.Count {
		value = ledger.Value{Properties: fmt.Sprintf(`{"name":"N%d"}`, minute)}
	}
	since := noon.Add(time.Duration(minute) * time.Minute).UnixNano()
	e := ledger.Entry{Key: key, State: state, Since: since, Seen: []ledger.Seen{{Version: ledger.Version{Time: since}, Value: value}}}
	if state == ledger.Synced {
		e.Since, e.Delivered = 0, ledger.Delivered{Value: value, At: since}
	}
	return e
}

func accountKey(id string) ledger.Key        { return ledger.AccountKey("msp-1", id) }
func serviceKey(id string) ledger.Key        { return ledger.ServiceKey("msp-1", id) }
func countKey(account, id string) ledger.Key { return ledger.CountKey("msp-1", account, id) }

// delivered is the entry after the partner took something else than is desired.
func delivered(e ledger.Entry, v ledger.Value) ledger.Entry {
	e.Delivered = ledger.Delivered{Value: v, At: noon.UnixNano()}
	return e
}

func heldFor(e ledger.Entry, reason ledger.HoldReason) ledger.Entry {
	e.State, e.Reason = ledger.Held, reason
	return e
}

func previewed(i *status.Integration, entries ...ledger.Entry) previewView {
	t := &tally{posted: map[ledger.Key]bool{}}
	for _, e := range entries {
		t.add(e)
	}
	return t.preview("acme/msp-1", i)
}

// standing is the record of an integration that stands so.
func standing(s status.Standing) *status.Integration { return &status.Integration{Standing: s} }

func (v *previewView) lines() []string {
	lines := []string{}
	for _, c := range v.Calls {
		line := c.Operation + " " + strings.TrimPrefix(c.Key, "msp-1/")
		if c.After != nil {
			line += " after " + strings.Join(c.After, " and ")
		}
		lines = append(lines, line)
	}
	return lines
}

func expectPreview(t *testing.T, v previewView, held map[ledger.HoldReason]int, lines ...string) {
	t.Helper()
	if got := v.lines(); !slices.Equal(got, lines) {
		t.Errorf("calls: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
	if !maps.Equal(v.Held, held) {
		t.Errorf("held: got %v, want %v", v.Held, held)
	}
	due, kept := 0, 0
	for operation, n := range v.Due {
		due += n
		if operation == "mapping" {
			due -= n
		}
	}
	for _, n := range v.Held {
		kept += n
	}
	if sum := due + kept + v.Failed + v.Synced; sum != v.Keys {
		t.Errorf("%d due, %d held, %d failed and %d synced make %d, want all %d keys", due, kept, v.Failed, v.Synced, sum, v.Keys)
	}
}

// everything is a ledger with a key for each case, newest first.
func everything() []ledger.Entry {
	retrying := minuteEntry(accountKey("b"), 1, ledger.Retrying)
	retrying.Attempts, retrying.Next = 3, noon.Add(time.Hour).UnixNano()
	return []ledger.Entry{
		minuteEntry(countKey("a", "s"), 9, ledger.Dirty),
		delivered(minuteEntry(countKey("old", "s"), 8, ledger.Dirty), ledger.Value{Units: 0}),
		minuteEntry(countKey("old", "r"), 7, ledger.Dirty),
		minuteEntry(countKey("b", "r"), 7, ledger.Dirty),
		minuteEntry(countKey("nobody", "s"), 6, ledger.Dirty),
		minuteEntry(countKey("broken", "s"), 6, ledger.Dirty),
		heldFor(minuteEntry(countKey("old", "u"), 5, ledger.Dirty), ledger.Unmapped),
		heldFor(minuteEntry(countKey("old", "v"), 5, ledger.Dirty), ledger.Approval),
		minuteEntry(countKey("old", "w"), 5, ledger.Synced),
		minuteEntry(accountKey("broken"), 4, ledger.Failed),
		minuteEntry(accountKey("a"), 4, ledger.Dirty),
		minuteEntry(accountKey("old"), 4, ledger.Synced),
		retrying,
		minuteEntry(serviceKey("s"), 3, ledger.Synced),
		minuteEntry(serviceKey("r"), 2, ledger.Dirty),
	}
}

func TestAPreviewIsInTheOrderInWhichALaneSends(t *testing.T) {
	v := previewed(standing(status.Standing{Status: status.Connected}), everything()...)
	expectPreview(t, v, map[ledger.HoldReason]int{ledger.AwaitingCatalog: 2, ledger.Unmapped: 1, ledger.Approval: 1},
		"account account/b", "account account/a",
		"service service/r",
		"count count/b/r after account b and service r", "count count/old/r after service r",
		"count count/old/s", "count count/a/s after account a",
	)
	if v.Synced != 3 || v.Failed != 1 || v.Gates != "open" {
		t.Errorf("got %d synced, %d failed, gates %s; want 3, 1, open", v.Synced, v.Failed, v.Gates)
	}
	if c := v.Calls[0]; c.Attempt != 4 || !c.NotBefore.Equal(noon.Add(time.Hour)) || c.Value != `{"name":"N1"}` || c.Delivered != "" {
		t.Errorf("a retry: got %+v, want attempt 4 of N1, not before %v", c, noon.Add(time.Hour))
	}
	if c := v.Calls[5]; c.Attempt != 1 || !c.NotBefore.IsZero() || c.Value != "8" || c.Delivered != "0" {
		t.Errorf("a changed count: got %+v, want 8 in place of 0, at once", c)
	}
}

func TestWhatClosesTheGateIsHeldInAPreviewToo(t *testing.T) {
	all := map[ledger.HoldReason]int{ledger.Unmapped: 1, ledger.Approval: 1}
	with := func(reason ledger.HoldReason, n int) map[ledger.HoldReason]int {
		held := maps.Clone(all)
		held[reason] = n
		return held
	}
	catalog := []string{"account account/b", "account account/a", "service service/r"}
	for _, c := range []struct {
		name  string
		i     *status.Integration
		gates string
		held  map[ledger.HoldReason]int
		lines []string
	}{
		{"paused", standing(status.Standing{Status: status.Connected, Paused: true}), "paused", with(ledger.Paused, 9), nil},
		{"bad credentials", standing(status.Standing{Status: status.Connected, Hold: "unauthorized"}), "unauthorized", with(ledger.Unauthorized, 9), nil},
		{"nobody has added it", nil, "integration_not_ready", with(ledger.IntegrationNotReady, 9), nil},
		{"nobody has mapped", standing(status.Standing{Status: status.Mapping, Announced: true}), "integration_not_ready", with(ledger.IntegrationNotReady, 6), catalog},
		{
			"the mapping is not open", standing(status.Standing{Status: status.Inactive}), "integration_not_ready", with(ledger.IntegrationNotReady, 6),
			append(slices.Clone(catalog), "mapping  after the accounts and services above"),
		},
		{"the mapping is not open and it is paused", standing(status.Standing{Status: status.Inactive, Paused: true}), "paused,integration_not_ready", with(ledger.Paused, 9), nil},
		{"the mapping is not open and it is held", standing(status.Standing{Status: status.Inactive, Hold: "anomaly"}), "anomaly,integration_not_ready", with(ledger.Anomaly, 9), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := previewed(c.i, everything()...)
			expectPreview(t, v, c.held, c.lines...)
			if v.Gates != c.gates {
				t.Errorf("gates: got %s, want %s", v.Gates, c.gates)
			}
		})
	}
}

func TestTheMappingIsDueOnceThereIsSomethingToMap(t *testing.T) {
	retrying := minuteEntry(accountKey("a"), 1, ledger.Retrying)
	retrying.Attempts = 1
	for _, c := range []struct {
		name    string
		entries []ledger.Entry
		want    []string
	}{
		{"nothing", nil, nil},
		{"an account alone", []ledger.Entry{minuteEntry(accountKey("a"), 1, ledger.Dirty)}, []string{"account account/a"}},
		{"a service alone", []ledger.Entry{minuteEntry(serviceKey("s"), 1, ledger.Synced)}, nil},
		{"both posted", []ledger.Entry{minuteEntry(accountKey("a"), 1, ledger.Synced), minuteEntry(serviceKey("s"), 1, ledger.Synced)}, []string{"mapping "}},
		{"one failed before", []ledger.Entry{retrying, minuteEntry(serviceKey("s"), 1, ledger.Synced)}, []string{"account account/a", "mapping "}},
		{"refused for good", []ledger.Entry{minuteEntry(accountKey("a"), 1, ledger.Failed), minuteEntry(serviceKey("s"), 1, ledger.Synced)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			expectPreview(t, previewed(standing(status.Standing{Status: status.Inactive}), c.entries...), map[ledger.HoldReason]int{}, c.want...)
		})
	}
}

func TestARowSaysWhenTheCallIsDue(t *testing.T) {
	for _, c := range []struct {
		call plannedCall
		want string
	}{
		{plannedCall{Operation: "count", Key: "k", Value: "8", Delivered: "0", Attempt: 1}, "7 count k 8 0 1 now -"},
		{plannedCall{Operation: "account", Key: "k\x1b", Value: "{}", Attempt: 4, NotBefore: noon.Add(90 * time.Second)}, "7 account k� {} - 4 in 1m30s -"},
		{plannedCall{Operation: "service", Key: "k", Value: "{}", Attempt: 2, NotBefore: noon.Add(-time.Hour)}, "7 service k {} - 2 now -"},
		{plannedCall{Operation: "mapping", After: []string{"a", "b"}}, "7 mapping - - - - now a, b"},
	} {
		if got := strings.Join(c.call.row(7, noon), " "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestWhatIsMissingIsGuessedFromWhatIsAccepted(t *testing.T) {
	m := &mapping{mapped: map[ledger.Key]bool{}, names: map[ledger.Key]string{}}
	for _, e := range []ledger.Entry{
		heldFor(minuteEntry(countKey("new", "backup"), 4, ledger.Dirty), ledger.Unmapped),
		heldFor(minuteEntry(countKey("old", "edr"), 2, ledger.Dirty), ledger.Unmapped),
		heldFor(minuteEntry(countKey("new", "edr"), 3, ledger.Dirty), ledger.Unmapped),
		heldFor(minuteEntry(countKey("other", "backup"), 1, ledger.Dirty), ledger.Unmapped),
		heldFor(minuteEntry(countKey("big", "backup"), 1, ledger.Dirty), ledger.Approval), // nobody has to map that
		// Accepted once and unmapped since: that proves nothing.
		heldFor(delivered(minuteEntry(countKey("lost", "edr"), 5, ledger.Dirty), ledger.Value{}), ledger.Unmapped),
		minuteEntry(countKey("old", "backup"), 1, ledger.Synced),
		delivered(minuteEntry(countKey("other", "mail"), 1, ledger.Dirty), ledger.Value{}), // a newer one is on its way
		minuteEntry(countKey("unsent", "edr"), 1, ledger.Dirty),
		minuteEntry(accountKey("new"), 1, ledger.Synced),
		minuteEntry(serviceKey("edr"), 7, ledger.Synced),
		minuteEntry(accountKey("old"), 8, ledger.Synced),
	} {
		if err := m.add(&e, 0); err != nil {
			t.Fatal(err)
		}
	}
	v := m.view("acme/msp-1", standing(status.Standing{Status: status.Connected}), 4)
	var got []string
	for _, u := range v.Unmapped {
		got = append(got, fmt.Sprintf("%s %s %s %s: %s", u.Account, u.Service, u.Units, u.Since.Format("15:04"), u.Missing))
	}
	want := []string{
		"other backup 1 12:01: neither",
		"N8 (old) N7 (edr) 2 12:02: service",
		"N1 (new) N7 (edr) 3 12:03: account or service",
		"N1 (new) backup 4 12:04: account",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if v.Keys != 5 || v.Certain || v.Gates != "open" {
		t.Errorf("got %d keys, certain %t, gates %s; want 5, false, open", v.Keys, v.Certain, v.Gates)
	}
	if got, want := v.summary(), "at most 2 accounts and 1 service to map: accounts N1 (new), lost; service N7 (edr)"; got != want {
		t.Errorf("summary: got %q, want %q", got, want)
	}
}

func TestWhatWasAcceptedBeforeALossProvesNothing(t *testing.T) {
	m := &mapping{mapped: map[ledger.Key]bool{}, names: map[ledger.Key]string{}}
	before, after := minuteEntry(countKey("a", "before"), 1, ledger.Synced), minuteEntry(countKey("a", "after"), 1, ledger.Synced)
	after.Delivered.Generation = 1
	for _, e := range []ledger.Entry{before, after} {
		if err := m.add(&e, 1); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]string{"before": missingEither, "after": missingAccount} {
		if got := m.missing(countKey("other", id)); got != want {
			t.Errorf("%s the loss: got %s, want %s", id, got, want)
		}
	}
}

func TestALongSummaryNamesTheFirstTen(t *testing.T) {
	v := mappingView{Certain: true}
	for n := range 12 {
		v.Accounts = append(v.Accounts, mappable{ID: fmt.Sprintf("a%02d", n)})
	}
	if got, want := v.summary(), "12 accounts to map: accounts a00, a01, a02, a03, a04, a05, a06, a07, a08, a09, and 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (&mappingView{Certain: true}).summary(); !strings.Contains(got, "nothing left to map") {
		t.Errorf("nothing to map: got %q", got)
	}
}

func TestAnEntryThatIsNoCatalogIsTold(t *testing.T) {
	m := &mapping{names: map[ledger.Key]string{}}
	e := minuteEntry(accountKey("a"), 1, ledger.Dirty)
	e.Seen[0].Value.Properties = "{"
	if err := m.add(&e, 0); err == nil || !strings.Contains(err.Error(), "msp-1/account/a") {
		t.Errorf("got %v, want an error that names the key", err)
	}
}
