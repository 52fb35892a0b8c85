package ledger_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

var (
	key = ledger.CountKey("msp-1", "acme", "backup")
	now = time.Unix(1_800_000_000, 0)
)

// op is an event whose id, time, arrival and value are small numbers.
func op(id, when, arrival, units int) ledger.Operation {
	return ledger.Operation{
		Key:     key,
		Version: ledger.Version{Time: int64(when), Arrival: uint64(arrival)},
		Value:   ledger.Value{Units: int64(units)},
		Event:   uint64(id),
	}
}

// folded is the entry after the operations, which must not conflict.
func folded(t testing.TB, ops ...ledger.Operation) ledger.Entry {
	t.Helper()
	var e ledger.Entry
	for _, o := range ops {
		next, _, err := e.Apply(o, now)
		if err != nil {
			t.Fatalf("Apply(%+v) = %v", o, err)
		}
		e = next
	}
	return e
}

func accepted(e ledger.Entry) ledger.Entry {
	s, _ := e.Desired()
	return e.Accept(s, ledger.Receipt{RequestID: "r-1"}, ledger.Answer{At: now.UnixNano(), Status: 201})
}

// after is the entry after an event that does not conflict.
func after(e ledger.Entry, o ledger.Operation) ledger.Entry {
	next, _, _ := e.Apply(o, now)
	return next
}

func TestApplyGivesEveryEventItsDisposition(t *testing.T) {
	base := []ledger.Operation{op(1, 10, 100, 5), op(2, 20, 200, 7)}
	for _, c := range []struct {
		name  string
		entry ledger.Entry
		op    ledger.Operation
		want  ledger.Disposition
		units int64 // desired afterwards
		err   error
	}{
		{"the first event is applied", ledger.Entry{}, op(1, 10, 100, 5), ledger.Applied, 5, nil},
		{"a first event of zero units is applied", ledger.Entry{}, op(1, 10, 100, 0), ledger.Applied, 0, nil},
		{"a newer time wins", folded(t, base...), op(3, 30, 300, 9), ledger.Applied, 9, nil},
		{"a newer time wins though it arrived earlier", folded(t, base...), op(3, 30, 1, 9), ledger.Applied, 9, nil},
		{"an older time is superseded though it arrived later", folded(t, base...), op(3, 15, 300, 9), ledger.Superseded, 7, nil},
		{"on a tie the later arrival wins", folded(t, base...), op(3, 20, 201, 9), ledger.Applied, 9, nil},
		{"on a tie the earlier arrival is superseded", folded(t, base...), op(3, 20, 199, 9), ledger.Superseded, 7, nil},
		{"a redelivery keeps applied", folded(t, base...), op(2, 20, 200, 7), ledger.Applied, 7, nil},
		{"a redelivery keeps applied when it is no longer the newest", folded(t, base...), op(1, 10, 100, 5), ledger.Applied, 7, nil},
		{"a redelivery keeps superseded", folded(t, append(base, op(3, 15, 300, 9))...), op(3, 15, 300, 9), ledger.Superseded, 7, nil},
		{"a later repeat is a duplicate", folded(t, base...), op(2, 20, 999, 7), ledger.Duplicate, 7, nil},
		{"an earlier repeat is a duplicate", folded(t, base...), op(2, 20, 2, 7), ledger.Duplicate, 7, nil},
		{"an earlier repeat gives way to the event that then came after it", folded(t, op(1, 20, 300, 5), op(2, 20, 200, 7)), op(1, 20, 100, 5), ledger.Duplicate, 7, nil},
		{"a repeat with another value is a conflict", folded(t, base...), op(2, 20, 300, 8), ledger.Dead, 7, ledger.ErrConflict},
		{"a repeat with another time is a conflict", folded(t, base...), op(2, 21, 300, 7), ledger.Dead, 7, ledger.ErrConflict},
		{"the value that the partner has is unchanged", accepted(folded(t, base...)), op(3, 30, 300, 7), ledger.Unchanged, 7, nil},
		{"another value than the partner has is applied", accepted(folded(t, base...)), op(3, 30, 300, 5), ledger.Applied, 5, nil},
		{"an older event with the partner's value is superseded", accepted(folded(t, base...)), op(3, 15, 300, 7), ledger.Superseded, 7, nil},
		{"the delivered value is applied while another may have been sent", after(accepted(folded(t, base...)), op(3, 30, 300, 9)), op(4, 40, 400, 7), ledger.Applied, 7, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, disposition, err := c.entry.Apply(c.op, now)
			if disposition != c.want || !errors.Is(err, c.err) {
				t.Errorf("Apply = %q, %v; want %q, %v", disposition, err, c.want, c.err)
			}
			if s, ok := got.Desired(); !ok || s.Value.Units != c.units {
				t.Errorf("desired = %d, %t; want %d", s.Value.Units, ok, c.units)
			}
			if got.Key != key {
				t.Errorf("key = %v, want %v", got.Key, key)
			}
			if c.err != nil && !reflect.DeepEqual(got, c.entry) {
				t.Errorf("a conflict changed the entry to %+v, want %+v", got, c.entry)
			}
		})
	}
}

func TestEntryRemembersItsNewestFourEvents(t *testing.T) {
	var e ledger.Entry
	for i := 1; i <= 9; i++ {
		e = after(e, op(i, i*10, i, i))
	}
	if got, want := events(e), []uint64{9, 8, 7, 6}; !slices.Equal(got, want) {
		t.Errorf("remembered events = %v, want %v", got, want)
	}
	_, disposition, err := e.Apply(op(5, 50, 5, 5), now)
	if disposition != ledger.Superseded || err != nil {
		t.Errorf("forgotten event = %q, %v; want superseded, without effect", disposition, err)
	}
}

func TestEntryRemembersEveryEventOfTheNewestTimeUpToABound(t *testing.T) {
	e := folded(t, op(1, 10, 1, 1), op(2, 11, 2, 2))
	for i := 10; i < 60; i++ {
		e = after(e, op(i, 20, i, i))
	}
	if got := len(e.Seen); got != 32 {
		t.Fatalf("remembered events of one time = %d, want 32", got)
	}
	if _, d, _ := e.Apply(op(28, 20, 900, 28), now); d != ledger.Duplicate {
		t.Errorf("later repeat of a tied event = %q, want duplicate", d)
	}
	if got := events(after(e, op(99, 21, 99, 99))); len(got) != 4 || got[0] != 99 {
		t.Errorf("after a newer time the entry remembers %v, want 4 events, 99 first", got)
	}
}

func events(e ledger.Entry) (ids []uint64) {
	for _, s := range e.Seen {
		ids = append(ids, s.Event)
	}
	return ids
}

// situation is an entry in a state, as it is while a call for event 1 with 5
// units (time 10, arrival 100) is under way.
type situation struct {
	name  string
	entry ledger.Entry
}

func situations(t *testing.T) []situation {
	dirty := folded(t, op(1, 10, 100, 5))
	synced := accepted(dirty)
	sending, failed := dirty, dirty.Fail(dirty.Seen[0], ledger.Answer{At: 1, Status: 422})
	sending.State = ledger.Sending
	answer := ledger.Answer{At: 1, Status: 503}
	return []situation{
		{"synced", synced},
		{"dirty", dirty},
		{"sending", sending},
		{"retrying", dirty.Retry(now.Add(time.Minute), answer)},
		{"unmapped", dirty.Hold(ledger.Unmapped, answer)},
		{"approval", folded(t, waiting(op(1, 10, 100, 5)))},
		{"failed", failed},
	}
}

// waiting is the operation with a figure that a person must approve.
func waiting(o ledger.Operation) ledger.Operation {
	o.Waits = ledger.Jumped
	return o
}

// methods are all ways in which an entry changes. The sent figure is event 1.
func methods(t *testing.T) ([]string, map[string]func(ledger.Entry) ledger.Entry) {
	sent := folded(t, op(1, 10, 100, 5)).Seen[0]
	answer := ledger.Answer{At: now.UnixNano(), Status: 299}
	newer := func(f func(e ledger.Entry) ledger.Entry) func(ledger.Entry) ledger.Entry {
		return func(e ledger.Entry) ledger.Entry { return f(after(e, op(2, 20, 200, 7))) }
	}
	accept := func(e ledger.Entry) ledger.Entry { return e.Accept(sent, ledger.Receipt{RequestID: "r"}, answer) }
	fail := func(e ledger.Entry) ledger.Entry { return e.Fail(sent, answer) }
	return []string{"same", "other", "accept", "acceptOld", "retry", "hold", "release", "fail", "failOld", "waits", "acceptWaits"},
		map[string]func(ledger.Entry) ledger.Entry{
			"same":      func(e ledger.Entry) ledger.Entry { return after(e, op(2, 20, 200, 5)) },
			"other":     func(e ledger.Entry) ledger.Entry { return after(e, op(2, 20, 200, 7)) },
			"accept":    accept,
			"acceptOld": newer(accept),
			"retry":     func(e ledger.Entry) ledger.Entry { return e.Retry(now.Add(time.Hour), answer) },
			"hold":      func(e ledger.Entry) ledger.Entry { return e.Hold(ledger.Unmapped, answer) },
			"release":   func(e ledger.Entry) ledger.Entry { return e.Release() },
			"fail":      fail,
			"failOld":   newer(fail),
			"waits":     func(e ledger.Entry) ledger.Entry { return after(e, waiting(op(2, 20, 200, 7))) },
			"acceptWaits": func(e ledger.Entry) ledger.Entry {
				return accept(after(e, waiting(op(2, 20, 200, 7))))
			},
		}
}

func TestEveryMethodMovesEveryStateWhereItShould(t *testing.T) {
	names, method := methods(t)
	// Columns as in names; acceptOld and failOld: a newer event came meanwhile.
	// A held state is written as its reason.
	want := map[string][]string{
		"synced":   {"synced", "dirty", "synced", "dirty", "retrying", "unmapped", "dirty", "failed", "dirty", "approval", "approval"},
		"dirty":    {"dirty", "dirty", "synced", "dirty", "retrying", "unmapped", "dirty", "failed", "dirty", "approval", "approval"},
		"sending":  {"dirty", "dirty", "synced", "dirty", "retrying", "unmapped", "dirty", "failed", "dirty", "approval", "approval"},
		"retrying": {"retrying", "retrying", "synced", "dirty", "retrying", "unmapped", "dirty", "failed", "dirty", "approval", "approval"},
		"unmapped": {"unmapped", "unmapped", "synced", "dirty", "retrying", "unmapped", "dirty", "failed", "dirty", "approval", "approval"},
		"approval": {"dirty", "dirty", "synced", "dirty", "approval", "approval", "approval", "failed", "dirty", "approval", "approval"},
		"failed":   {"dirty", "dirty", "synced", "dirty", "retrying", "unmapped", "dirty", "failed", "dirty", "approval", "approval"},
	}
	for _, s := range situations(t) {
		for i, name := range names {
			e := method[name](s.entry)
			got := string(e.State)
			if e.State == ledger.Held {
				got = string(e.Reason)
			}
			if got != want[s.name][i] {
				t.Errorf("%s after %s = %s, want %s", s.name, name, got, want[s.name][i])
			}
			if (e.State == ledger.Held) != (e.Reason != "") {
				t.Errorf("%s after %s: state %s with reason %q", s.name, name, e.State, e.Reason)
			}
			if (e.Since == 0) != (e.State == ledger.Synced) && (s.name != "synced" || name != "release") {
				t.Errorf("%s after %s: state %s with since %d; want 0 when synced and only then", s.name, name, e.State, e.Since)
			}
			if e.State != ledger.Retrying && e.Next != 0 {
				t.Errorf("%s after %s: state %s with a next attempt at %d, want none", s.name, name, e.State, e.Next)
			}
		}
	}
}

func TestNoMethodChangesTheEntryItIsCalledOn(t *testing.T) {
	names, method := methods(t)
	for _, s := range situations(t) {
		for _, name := range names {
			before := s.entry
			before.Seen = slices.Clone(s.entry.Seen)
			next := method[name](s.entry)
			after(next, op(3, 15, 150, 6)) // whatever the next one shares, it must not write
			if !reflect.DeepEqual(s.entry, before) {
				t.Errorf("%s changed a %s entry to %+v, want %+v", name, s.name, s.entry, before)
			}
		}
	}
}

func TestSyncedKeyIsSentAgainWhenAnEarlierRepeatChangesWhatIsDesired(t *testing.T) {
	e := accepted(folded(t, op(1, 20, 300, 5), op(2, 20, 200, 7)))
	if e = after(e, op(1, 20, 100, 5)); e.State != ledger.Dirty || e.Since == 0 {
		t.Errorf("5 was delivered and 7 is desired now: state %s, since %d; want dirty since now", e.State, e.Since)
	}
}

// A delivered version that stood after what is desired would look like another
// worker's newer delivery, and the key would be sent for ever.
func TestDeliveredVersionFollowsItsEventToAnEarlierArrival(t *testing.T) {
	first := folded(t, op(1, 20, 300, 5))
	late, sent := op(1, 20, 100, 5), first.Seen[0]
	sentBefore := after(first, late)
	for name, e := range map[string]ledger.Entry{
		"repeat after the answer":  after(accepted(first), late),
		"repeat before the answer": sentBefore.Accept(sent, ledger.Receipt{RequestID: "r"}, ledger.Answer{At: 1}),
	} {
		if want := (ledger.Version{Time: 20, Arrival: 100}); e.Delivered.Version != want || e.State != ledger.Synced {
			t.Errorf("%s: delivered %+v, state %s; want %+v, synced", name, e.Delivered.Version, e.State, want)
		}
	}
	if sentBefore.Fail(sent, ledger.Answer{At: 1}).State != ledger.Failed {
		t.Error("a refused event that moved to an earlier arrival is to be sent again, want failed")
	}
}

func TestAttemptsAreCountedForOneFigureOnly(t *testing.T) {
	e := folded(t, op(1, 10, 100, 5))
	due := now.Add(time.Hour)
	e = e.Retry(due, ledger.Answer{At: 1})
	e = e.Retry(due, ledger.Answer{At: 2})
	if e.Attempts != 2 || e.Next != due.UnixNano() || e.Answer.At != 2 {
		t.Errorf("after two retries: attempts %d, next %d, answer %+v; want 2, %d and the last", e.Attempts, e.Next, e.Answer, due.UnixNano())
	}
	newer := after(e, op(2, 20, 200, 6))
	if newer.Attempts != 0 || newer.State != ledger.Retrying || newer.Next != e.Next {
		t.Errorf("a newer figure: attempts %d, state %s, next %d; want its own budget at the same time: 0, retrying, %d",
			newer.Attempts, newer.State, newer.Next, e.Next)
	}
	if late := after(e, op(2, 5, 200, 6)); late.Attempts != 2 {
		t.Errorf("after a superseded event: attempts %d, want 2", late.Attempts)
	}
}

func TestAgeCountsFromWhenThePartnerFellBehind(t *testing.T) {
	e := folded(t, op(1, 10, 100, 5))
	if e.Since != now.UnixNano() {
		t.Fatalf("since = %d, want the time of folding %d", e.Since, now.UnixNano())
	}
	sent := e.Seen[0]
	e, _, _ = e.Apply(op(2, 20, 200, 7), now.Add(time.Minute))
	if e.Since != now.UnixNano() {
		t.Errorf("since = %d after a second event, want still %d", e.Since, now.UnixNano())
	}
	at := now.Add(time.Hour).UnixNano()
	if e = e.Accept(sent, ledger.Receipt{}, ledger.Answer{At: at}); e.Since != at || !e.Posted() || e.Delivered.Value.Units != 5 {
		t.Errorf("since = %d, delivered %+v; want %d and 5 units", e.Since, e.Delivered, at)
	}
}

func TestWhatWasDeliveredInALowerGenerationIsDoubted(t *testing.T) {
	accepted := func(generation int) ledger.Entry {
		e := folded(t, op(1, 10, 100, 5))
		return e.Accept(e.Seen[0], ledger.Receipt{Generation: generation}, ledger.Answer{At: now.UnixNano()})
	}
	synced := accepted(1)
	retrying := synced.Retry(now, ledger.Answer{At: 1})
	unmapped := synced.Hold(ledger.Unmapped, ledger.Answer{At: 1})
	never := folded(t, op(1, 10, 100, 5))
	tests := map[string]struct {
		entry   ledger.Entry
		doubted bool
		posted  bool
	}{
		"synced, same generation":  {accepted(2), false, true},
		"synced, later generation": {accepted(3), false, true},
		"synced, lower generation": {synced, true, false},
		"retrying":                 {retrying, false, false},
		"held":                     {unmapped, false, false},
		"never delivered":          {never, false, false},
	}
	later := now.Add(time.Hour)
	for name, test := range tests {
		if got := test.entry.PostedIn(2); got != test.posted {
			t.Errorf("%s: posted in generation 2: got %t, want %t", name, got, test.posted)
		}
		next, changed := test.entry.Doubt(2, later)
		if changed != test.doubted {
			t.Errorf("%s: changed: got %t, want %t", name, changed, test.doubted)
		}
		if want := ledger.Dirty; test.doubted && (next.State != want || next.Since != later.UnixNano() || !next.Posted()) {
			t.Errorf("%s: got %s since %d, posted %t; want %s since %d, still known as posted once",
				name, next.State, next.Since, next.Posted(), want, later.UnixNano())
		}
		if _, again := next.Doubt(2, later); again {
			t.Errorf("%s: doubted twice", name)
		}
	}
}

func TestViewShowsWhatKeepsAKeyFromBeingSent(t *testing.T) {
	dirty := folded(t, op(1, 10, 100, 5))
	account := dirty
	account.Key = ledger.AccountKey("msp-1", "acme")
	retrying := dirty.Retry(now, ledger.Answer{})
	for _, c := range []struct {
		name    string
		entry   ledger.Entry
		hold    ledger.HoldReason
		catalog bool
		want    string
	}{
		{"nothing in the way", dirty, "", true, "dirty/"},
		{"nothing in the way of a retry", retrying, "", true, "retrying/"},
		{"the catalog is missing", dirty, "", false, "held/awaiting_catalog"},
		{"the gate comes before the catalog", dirty, ledger.Unauthorized, false, "held/unauthorized"},
		{"a count waits for the integration", dirty, ledger.IntegrationNotReady, true, "held/integration_not_ready"},
		{"a retry waits for the integration", retrying, ledger.Paused, true, "held/paused"},
		{"an account does not wait for the integration", account, ledger.IntegrationNotReady, true, "dirty/"},
		{"an account waits while paused", account, ledger.Paused, true, "held/paused"},
		{"a key's own hold is shown", dirty.Hold(ledger.Unmapped, ledger.Answer{}), ledger.Paused, true, "held/unmapped"},
		{"synced stays synced", accepted(dirty), ledger.Anomaly, false, "synced/"},
		{"failed stays failed", dirty.Fail(dirty.Seen[0], ledger.Answer{}), ledger.Anomaly, false, "failed/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			state, reason := c.entry.View(c.hold, c.catalog)
			if got := fmt.Sprintf("%s/%s", state, reason); got != c.want {
				t.Errorf("View(%q, %t) = %s, want %s", c.hold, c.catalog, got, c.want)
			}
		})
	}
}

func TestKeysAreNamedForPeople(t *testing.T) {
	for want, k := range map[string]ledger.Key{
		"msp-1/count/acme/backup": key,
		"msp-1/account/acme":      key.AccountKey(),
		"msp-1/service/backup":    key.ServiceKey(),
		"msp-1/unknown":           {Organization: "msp-1"},
	} {
		if got := k.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
	if _, ok := new(ledger.Entry).Desired(); ok {
		t.Error("an entry without events has a desired figure, want none")
	}
}

func BenchmarkApply(b *testing.B) {
	e := folded(b, op(1, 10, 1, 1), op(2, 20, 2, 2), op(3, 30, 3, 3), op(4, 40, 4, 4))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e = after(e, op(100+i, 100+i, 100+i, i))
	}
}
