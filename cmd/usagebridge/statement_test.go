package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
	"github.com/usagebridge/usagebridge/pkg/statement"
)

// booksOf are the books as of a time, with whole logs and an open gate.
func booksOf(asOf time.Time, entries ...*ledger.Entry) *books {
	b := &books{
		vendor: "acme", organization: "msp-1", asOf: asOf, events: reach{first: 1}, synclog: reach{first: 1},
		posture: posture{known: true, status: status.Connected}, entries: map[ledger.Key]*ledger.Entry{},
		posted: map[ledger.Key]bool{testKey.AccountKey(): true, testKey.ServiceKey(): true}, backfills: map[uint64]string{},
		rules: &ledger.Rules{Reverted: map[uint64]bool{}},
	}
	for _, e := range entries {
		b.entries[e.Key] = e
	}
	return b
}

// rowsAt folds what the logs have, and shows it.
func rowsAt(b *books, log []occurrence, calls ...ledger.Call) []statement.Row {
	f := newRefolding(b, 5*time.Minute, 4*time.Second)
	for _, c := range calls {
		f.note(c)
	}
	f.begin()
	for i := range log {
		switch o := &log[i]; {
		case o.message.Sequence < b.events.first:
		case o.message.Stored.After(b.asOf):
			f.later(o)
		default:
			f.take(o)
		}
	}
	lines := f.finish()
	for _, l := range lines {
		attribute([]*line{l}, log)
	}
	var s statement.Statement
	b.fill(&s, lines)
	return s.Rows
}

// short is what matters most of a row.
func short(rows []statement.Row) string {
	texts := []string{}
	for _, r := range rows {
		text := fmt.Sprintf("%s=%s by %s, accepted %s by %s, %s", r.Service, or(r.Units, "?"), or(r.EventID, "?"), or(r.Accepted, "nothing"), or(r.RequestID, "?"), r.State)
		if r.Reason != "" {
			text += " " + r.Reason
		}
		if !r.Complete {
			text += ", not certain"
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return strings.Join(texts, "; ")
}

func expectRows(t *testing.T, what string, rows []statement.Row, want string) {
	t.Helper()
	if got := short(rows); got != want {
		t.Errorf("%s: got  %s\nwant %s", what, got, want)
	}
}

func TestAStatementOfATimeThatHasPassedSaysWhatWasKnownThen(t *testing.T) {
	// The second event came late: it is older than the first.
	log := logOf(told{"e-1", 5, 5}, told{"e-2", 2, 2}, told{"e-3", 7, 7}, told{"e-4", 8, 7})
	calls := []ledger.Call{accepted(log[0], "req-1"), accepted(log[2], "req-3")}
	entry := entryOf(log, calls...)
	for _, at := range []struct {
		name string
		time time.Time
		want string
	}{
		{"before anything came", stored(0), ""},
		{"when the first came", stored(1), "backup=5 by e-1, accepted nothing by ?, dirty"},
		{"when it was accepted", stored(1).Add(500 * time.Millisecond), "backup=5 by e-1, accepted 5 by req-1, synced"},
		{"when an older one came", stored(2), "backup=5 by e-1, accepted 5 by req-1, synced"},
		{"when a newer one came", stored(3), "backup=7 by e-3, accepted 5 by req-1, dirty"},
		{"when the same value came again", stored(4), "backup=7 by e-4, accepted 7 by req-3, synced"},
		{"later", stored(60), "backup=7 by e-4, accepted 7 by req-3, synced"},
	} {
		expectRows(t, at.name, rowsAt(booksOf(at.time, entry), log, calls...), at.want)
	}
}

func TestAPastStateHasTheHoldsOfItsTime(t *testing.T) {
	log := logOf(told{"e-1", 5, 5})
	b := booksOf(stored(9), entryOf(log))
	b.posture.gates = []string{"paused", "integration_not_ready"}
	expectRows(t, "paused", rowsAt(b, log), "backup=5 by e-1, accepted nothing by ?, held paused")
	b = booksOf(stored(9), entryOf(log))
	b.posted = map[ledger.Key]bool{testKey.AccountKey(): true}
	expectRows(t, "no service", rowsAt(b, log), "backup=5 by e-1, accepted nothing by ?, held awaiting_catalog")
	b = booksOf(stored(9), entryOf(log))
	b.posture.generation = 1
	expectRows(t, "lost", rowsAt(b, log, accepted(log[0], "req-1")), "backup=5 by e-1, accepted 5 by req-1, dirty")
	refused := accepted(log[0], "")
	refused.Verdict, refused.Status = string(delivery.Dead), 422
	expectRows(t, "refused", rowsAt(booksOf(stored(9), entryOf(log)), log, refused), "backup=5 by e-1, accepted nothing by ?, failed")
}

func TestCallsAndEventsAreFoldedInTheOrderOfTheirTimes(t *testing.T) {
	log := logOf(told{"e-1", 1, 5}, told{"e-1", 1, 5})
	log[1].operations[0].Replay = true // what had failed is to be sent again
	log[1].operations[0].Arrival = log[0].operations[0].Arrival
	refused := accepted(log[0], "")
	refused.Verdict, refused.Status = string(delivery.Dead), 422
	expectRows(t, "replayed after it failed", rowsAt(booksOf(stored(9)), log, refused), "backup=5 by e-1, accepted nothing by ?, dirty")
	refused.At = stored(2).Add(time.Millisecond)
	expectRows(t, "failed after it was replayed", rowsAt(booksOf(stored(9)), log, refused), "backup=5 by e-1, accepted nothing by ?, failed")
}

func TestWhatTheLogNoLongerHasIsTakenFromTheEntryAsFarAsItIsCertain(t *testing.T) {
	log := logOf(told{"e-1", 1, 1}, told{"e-2", 2, 2}, told{"e-3", 3, 3}, told{"e-4", 4, 4}, told{"e-5", 5, 5}, told{"e-6", 6, 6})
	entry := entryOf(log) // remembers the last four
	trimmed := func(asOf time.Time, first int) *books {
		b := booksOf(asOf, entry)
		b.events = reach{first: uint64(first), since: stored(first)}
		return b
	}
	for _, at := range []struct {
		name  string
		books *books
		want  string
	}{
		{"the log has it", trimmed(stored(5), 4), "backup=5 by e-5, accepted nothing by ?, dirty"},
		{"the entry has it", trimmed(stored(6), 7), "backup=6 by e-6, accepted nothing by ?, dirty, not certain"}, // the log begins later
		{"the entry has it, and the log begins before", trimmed(stored(8), 7), "backup=6 by e-6, accepted nothing by ?, dirty"},
		{"the log has what the entry has forgotten", trimmed(stored(2), 2), "backup=2 by e-2, accepted nothing by ?, dirty, not certain"},
		{"nobody has it", trimmed(stored(2), 3), "backup=? by ?, accepted nothing by ?, not known, not certain"},
	} {
		if at.name == "the entry has it, and the log begins before" {
			at.books.events.since = stored(7)
		}
		expectRows(t, at.name, rowsAt(at.books, log), at.want)
	}
	few := entryOf(log[:2]) // has forgotten nothing
	b := trimmed(stored(5), 4)
	b.entries = map[ledger.Key]*ledger.Entry{testKey: few}
	expectRows(t, "an entry that has forgotten nothing", rowsAt(b, log[:2]), "backup=2 by e-2, accepted nothing by ?, dirty")
}

func TestAFigureThatWasReplayedLaterIsNotTakenForOneThatWasKnown(t *testing.T) {
	log := logOf(told{"e-1", 1, 1}, told{"e-2", 2, 2})
	replay := *told{"e-1", 1, 1}.event()
	replay.ReplayOf = "1"
	log = append(log, readTestMessage(3, replay.Subject().String(), replay.Structured())...)
	b := booksOf(stored(2), entryOf(log[:1]))
	b.events = reach{first: 2, since: stored(2)}
	expectRows(t, "the replay came after", rowsAt(b, []occurrence{log[2]}), "backup=1 by e-1, accepted nothing by ?, dirty, not certain")
}

func TestAFigureThatAPersonHadRefusedByThenIsNotShown(t *testing.T) {
	log := logOf(told{"e-1", 1, 1}, told{"e-2", 2, 200})
	b := booksOf(stored(9), entryOf(log[:1]))
	b.rules.Jump = map[string]float64{"backup": 10}
	expectRows(t, "before anybody says anything", rowsAt(b, log), "backup=200 by e-2, accepted nothing by ?, held approval")
	jumped := ledger.Seen{Event: log[1].event.Digest(), Waits: ledger.Jumped}
	b.rules.Verdicts = map[uint64]bool{ledger.ApprovalID(testKey, jumped): false}
	expectRows(t, "refused", rowsAt(b, log), "backup=1 by e-1, accepted nothing by ?, dirty")
}

func TestACallThatTheSyncLogHasLostIsTakenFromTheEntry(t *testing.T) {
	log := logOf(told{"e-1", 1, 1}, told{"e-2", 2, 2})
	calls := []ledger.Call{accepted(log[0], "req-1"), accepted(log[1], "req-2")}
	entry := entryOf(log, calls...)
	b := booksOf(stored(9), entry)
	b.synclog = reach{first: 3, since: stored(3)}
	expectRows(t, "it was the last one", rowsAt(b, log), "backup=2 by e-2, accepted 2 by req-2, synced")
	b = booksOf(stored(2), entry)
	b.synclog = reach{first: 3, since: stored(3)}
	expectRows(t, "it was one before", rowsAt(b, log), "backup=2 by e-2, accepted nothing by ?, dirty, not certain")
}

func TestASnapshotZeroesWhatItDoesNotNameAsOfItsTime(t *testing.T) {
	log := logOf(told{"e-1", 1, 5})
	body := &event.Event{
		ID: "s-1", Source: "//billing", Type: event.TypeSnapshot, Time: noon.Add(3 * time.Minute), Vendor: "acme", Organization: "msp-1",
		Data: event.Snapshot{SnapshotID: "daily", Counts: []event.Count{{AccountID: "a-2", ServiceID: "mail", UnitCount: 9 * event.UnitsScale}}}, Arrival: event.ArrivalAt(2, 0),
	}
	version, digest := ledger.Version{Time: body.Time.UnixNano(), Arrival: uint64(body.Arrival)}, body.SnapshotDigest()
	log = append(log, occurrence{
		message: event.Message{Stream: "EVENTS_acme", Sequence: 2, Stored: stored(2)}, event: body, id: body.ID, source: body.Source,
		operations: []ledger.Operation{
			{Key: ledger.CountKey("msp-1", "a-2", "mail"), Version: version, Value: ledger.Value{Units: 9_000_000}, Event: digest},
			{Key: ledger.ScopeKey("msp-1", ""), Version: version, Event: digest, Part: &ledger.Part{Number: 1, Of: 1, Content: 1, Name: "daily"}},
		},
	})
	expectRows(t, "before", rowsAt(booksOf(stored(1)), log), "backup=5 by e-1, accepted nothing by ?, dirty")
	rows := rowsAt(booksOf(stored(2)), log)
	expectRows(t, "after", rows, "backup=0 by s-1, accepted nothing by ?, dirty; mail=9 by s-1, accepted nothing by ?, held awaiting_catalog")
	for _, r := range rows {
		want := []string(nil)
		if r.Service == "backup" {
			want = []string{"zeroed by snapshot daily"}
		}
		if !slices.Equal(r.Notes, want) {
			t.Errorf("%s: got notes %q, want %q", r.Service, r.Notes, want)
		}
	}
}

// books are the books as of a time with what the workshop's ledger has.
func (w *workshop) books(asOf time.Time) *books {
	b := booksOf(asOf)
	for key, e := range w.entries {
		if key.Kind == ledger.Count {
			b.entries[key] = &e
			b.posted[key.AccountKey()], b.posted[key.ServiceKey()] = true, true
		} else {
			b.keepers = append(b.keepers, e)
		}
	}
	return b
}

func TestASnapshotThatTheLedgerGaveUpZeroesNothing(t *testing.T) {
	const five, zero = "s2=5 by e-1, accepted nothing by ?, dirty", "s2=0 by month-2, accepted nothing by ?, dirty"
	w := newWorkshop()
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	w.giveUp()
	expectRows(t, "given up", rowsAt(w.books(stored(9)), w.log), five)
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	expectRows(t, "begun again", rowsAt(w.books(stored(9)), w.log), five)
	w.giveUp()
	expectRows(t, "given up again", rowsAt(w.books(stored(9)), w.log), five)
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	for sequence, want := range map[int]string{3: five, 4: five, 5: zero} {
		expectRows(t, fmt.Sprint("complete at last, as of ", sequence), rowsAt(w.books(stored(sequence)), w.log), want)
	}
}

func TestASnapshotThatTheLedgerHasForgottenMakesItsRowsUncertain(t *testing.T) {
	w := newWorkshop()
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 2, "", unitsOf("a1", "s1", 7)))
	w.publish(countOf("e-2", "a1", "s3", 9, 6, "")) // newer than the snapshot
	rows := func(sequence int) []statement.Row {
		late := slices.Clone(w.log)
		part := snapshotOf("month", "", 2, 2, 2, "")
		late = append(late, readTestMessage(sequence, part.Subject().String(), part.Structured())...)
		b := w.books(stored(60))
		b.keepers = nil
		return rowsAt(b, late)
	}
	for name, c := range map[string]struct {
		sequence int
		want     string
	}{
		"in time":  {4, "s2=0 by month-2, accepted nothing by ?, dirty, not certain"},
		"too late": {40, "s2=5 by e-1, accepted nothing by ?, dirty, not certain"},
	} {
		want := "s1=7 by month-1, accepted nothing by ?, dirty; " + c.want + "; s3=6 by e-2, accepted nothing by ?, dirty"
		expectRows(t, name, rows(c.sequence), want)
	}
}

func TestASnapshotOfWhichTheLogHasLostAPartIsCompleteWhenTheLastOneComes(t *testing.T) {
	w := newWorkshop()
	w.publish(snapshotOf("month", "", 2, 1, 2, ""))
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 2, 2, ""))
	for sequence, want := range map[int]string{2: "s2=5 by e-1, accepted nothing by ?, dirty", 3: "s2=0 by month-2, accepted nothing by ?, dirty"} {
		b := w.books(stored(sequence))
		b.events = reach{first: 2, since: stored(2)}
		expectRows(t, fmt.Sprint("as of ", sequence), rowsAt(b, w.log), want)
	}
}

func TestARowOfAnEditedReplayStandsWhereTheReplayDoes(t *testing.T) {
	w := newWorkshop()
	w.publish(countOf("e-1", "a1", "s2", 1, 9020, ""))
	w.call(ledger.CountKey("msp-1", "a1", "s2"), delivery.Dead)
	edited := countOf("e-1-edited", "a1", "s2", 1, 20, "")
	edited.ReplayOf = "1"
	w.publish(edited)
	w.publish(snapshotOf("wrong", "a2", 1, 1, 1, "", unitsOf("a2", "s2", 7)))
	again := snapshotOf("right", "a2", 1, 1, 1, "", unitsOf("a2", "s2", 8))
	again.ReplayOf = "3"
	w.publish(again)
	rows := rowsAt(w.books(stored(9)), w.log, w.calls[ledger.CountKey("msp-1", "a1", "s2")]...)
	slices.SortFunc(rows, func(x, y statement.Row) int { return strings.Compare(x.Account, y.Account) })
	for i, want := range []string{"20 e-1-edited EVENTS_acme/2 replay of EVENTS_acme/1", "8 right-1 EVENTS_acme/4 replay of EVENTS_acme/3"} {
		r := rows[i]
		if got := fmt.Sprint(r.Units, " ", r.EventID, " ", r.Place, " ", strings.Join(r.Notes, "; ")); got != want || !r.ArrivedAt.Equal(stored(2+2*i)) {
			t.Errorf("got %s, arrived at %s; want %s at %s", got, r.ArrivedAt, want, stored(2+2*i))
		}
	}
}

func TestAPastStatementSaysThatTheGuardsAreThoseOfToday(t *testing.T) {
	const note = "Figures that waited for approval then are shown by the guards of today."
	for _, c := range []struct {
		jump map[string]float64
		now  bool
		want bool
	}{{map[string]float64{"backup": 10}, false, true}, {map[string]float64{"backup": 10}, true, false}, {nil, false, false}} {
		b := booksOf(stored(9))
		b.rules.Jump, b.now = c.jump, c.now
		var s statement.Statement
		b.fill(&s, nil)
		if got := slices.Contains(s.Notes, note); got != c.want {
			t.Errorf("factors %v, now %v: got notes %q, want the note on guards: %v", c.jump, c.now, s.Notes, c.want)
		}
	}
}

func TestRowsSayWhatElseIsKnown(t *testing.T) {
	log := logOf(told{"e-1", 1, 5})
	entry := entryOf(log)
	entry.State, entry.Reason = ledger.Held, ledger.Approval
	entry.Seen[0].Backfill = ledger.BackfillDigest("2026-10")
	taken := &ledger.Entry{Key: countKey("a-1", "mail"), State: ledger.Dirty, Seen: []ledger.Seen{{}}}
	b := booksOf(stored(9), entry, taken)
	b.now = true
	b.backfills[ledger.BackfillDigest("2026-10")] = "2026-10"
	lines := b.linesNow(&status.Integration{Standing: status.Standing{Status: status.Connected}})
	var s statement.Statement
	b.fill(&s, lines)
	slices.SortFunc(s.Rows, func(x, y statement.Row) int { return strings.Compare(x.Service, y.Service) })
	for i, want := range []string{
		"backfill 2026-10; the log no longer has the event; waits for approval", "every event that stood for it was taken back: nothing is left",
	} {
		if got := strings.Join(s.Rows[i].Notes, "; "); got != want {
			t.Errorf("row %d: got notes %q, want %q", i, got, want)
		}
	}
	if !s.Rows[1].EventTime.IsZero() || s.Rows[1].Place != "" || s.Rows[1].Units != "0" {
		t.Errorf("got %+v, want no event", s.Rows[1])
	}
}

// history of one key as it may be: events in any order, and some of the
// newest figures accepted.
func drawHistory(t *rapid.T) (log []occurrence, calls []ledger.Call) {
	n := rapid.IntRange(1, 12).Draw(t, "events")
	var counts []told
	for i := range n {
		counts = append(counts, told{fmt.Sprint("e-", i+1), rapid.IntRange(0, 8).Draw(t, "minute"), rapid.IntRange(0, 3).Draw(t, "units")})
	}
	log = logOf(counts...)
	for i := range log {
		if rapid.Bool().Draw(t, "accepted") {
			figure, _ := entryOf(log[:i+1], calls...).Desired()
			c := accepted(log[event.Arrival(figure.Arrival).Sequence()-1], fmt.Sprint("req-", i+1))
			c.At = log[i].message.Stored.Add(500 * time.Millisecond)
			calls = append(calls, c)
		}
	}
	return log, calls
}

func TestARowThatSaysItIsCompleteIsRightWhateverTheLogsHaveLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log, calls := drawHistory(t)
		known := rapid.IntRange(1, len(log)).Draw(t, "known")
		asOf := stored(known).Add(900 * time.Millisecond)
		before := slices.DeleteFunc(slices.Clone(calls), func(c ledger.Call) bool { return c.At.After(asOf) })
		truth := rowsAt(booksOf(asOf, entryInTime(log, calls)), log, calls...)
		want := entryInTime(log[:known], before)
		figure, _ := want.Desired()
		if units := valueText(ledger.Count, figure.Value); len(truth) != 1 || truth[0].Units != units || !truth[0].Complete ||
			want.Posted() != (truth[0].Accepted != "") || want.Delivered.RequestID != truth[0].RequestID || truth[0].State != string(want.State) {
			t.Fatalf("whole logs: got %s, want %s and %+v, complete", short(truth), units, want.Delivered)
		}

		b := booksOf(asOf, entryInTime(log, calls))
		first := rapid.IntRange(1, len(log)+1).Draw(t, "first")
		b.events = reach{first: uint64(first), since: stored(first)}
		lost := rapid.IntRange(0, len(calls)).Draw(t, "lost")
		b.synclog = reach{first: uint64(lost + 1)}
		rows := rowsAt(b, log, calls[lost:]...)
		for i := range rows {
			rows[i].State, rows[i].Reason = truth[0].State, truth[0].Reason // complete says nothing of them
			if rows[i].Complete && short(rows[i:i+1]) != short(truth) {
				t.Fatalf("the log from %d, the sync log from %d: got %s, want %s", first, lost, short(rows), short(truth))
			}
		}
		if len(rows) == 0 {
			t.Fatalf("the log from %d: got no row, want %s or one that is not certain", first, short(truth))
		}
	})
}

// entryInTime is the entry after events and calls in the order of their times.
func entryInTime(log []occurrence, calls []ledger.Call) *ledger.Entry {
	entry := ledger.Entry{Key: testKey}
	for i, o := range log {
		entry, _, _ = entry.Apply(o.operations[0], o.message.Stored)
		for _, c := range calls {
			if c.At.After(o.message.Stored) && (i+1 == len(log) || c.At.Before(log[i+1].message.Stored)) {
				entry = answered(entry, c)
			}
		}
	}
	return &entry
}

func TestStatementsOfThreeTimesOfARealStore(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	added := time.Now()
	stop := s.worker()
	defer stop()
	p, err := publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now().Add(-time.Hour)
	publish := func(events ...*event.Event) {
		t.Helper()
		for _, e := range events {
			e.Organization = "m"
			if e.Time.IsZero() {
				e.Time = begun
			}
		}
		if _, err := p.PublishAll(t.Context(), publisher.Records(slices.Values(events)), func(publisher.Result) {}); err != nil {
			t.Fatal(err)
		}
	}
	figure := func(id, account string, minute, units int) *event.Event {
		return &event.Event{ID: id, Time: begun.Add(time.Duration(minute) * time.Minute), Data: event.Count{
			AccountID: account, ServiceID: "s", UnitCount: event.Units(units) * event.UnitsScale,
		}}
	}
	synced := func(units ...string) (now time.Time) {
		t.Helper()
		eventuallyTrue(t, 20*time.Second, fmt.Sprint(units, " are accepted"), func() bool {
			made, err := s.app.statementOf(t.Context(), "acme", "m", time.Time{})
			now = time.Now()
			var got []string
			for i := 0; err == nil && i < len(made.Rows); i++ {
				got = append(got, made.Rows[i].Accepted)
			}
			return slices.Equal(got, units)
		})
		return now
	}
	at := func(asOf time.Time) *statement.Statement {
		t.Helper()
		made, err := s.app.statementOf(t.Context(), "acme", "m", asOf)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}

	publish(&event.Event{Data: event.Account{AccountID: "a", Name: "A"}}, &event.Event{Data: event.Account{AccountID: "b", Name: "B"}},
		&event.Event{Data: event.Service{ServiceID: "s", Name: "S"}}, figure("e-1", "a", 1, 1))
	first := synced("1")
	publish(figure("e-2", "a", 5, 2), figure("late", "a", 3, 9), figure("e-3", "b", 1, 4))
	second := synced("2", "4")
	publish(figure("e-4", "b", 2, 0))
	third := synced("2", "0")
	for _, c := range []struct {
		name string
		asOf time.Time
		want string
	}{
		{"before", begun, ""},
		{"first", first, "a=1 e-1 true"},
		{"second", second, "a=2 e-2 true, b=4 e-3 true"},
		{"third", third, "a=2 e-2 true, b=0 e-4 true"},
		{"now", time.Time{}, "a=2 e-2 true, b=0 e-4 true"},
	} {
		var got []string
		for _, r := range at(c.asOf).Rows {
			got = append(got, fmt.Sprintf("%s=%s %s %v", r.Account, r.Units, r.EventID, r.Complete && r.Accepted == r.Units && r.RequestID != "" && r.State == "synced"))
		}
		if got := strings.Join(got, ", "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	changes, err := statement.Compare(at(first), at(third))
	if err != nil || len(changes.Changes) != 2 || changes.Changes[0].To != "2" || changes.Changes[0].EventID != "e-2" || changes.Changes[1].What[0] != statement.Added {
		t.Errorf("got %+v, %v; want a changed by e-2 and b added", changes, err)
	}
	if got := at(begun).Integration.Status; got != "not added" {
		t.Errorf("got status %q before the integration was added, want %q", got, "not added")
	}
	if got := at(added).Integration; got.Status != "inactive" || !slices.Equal(got.Gates, []string{"integration_not_ready"}) {
		t.Errorf("got %+v when the integration had been added, want it inactive and not ready", got)
	}
	if now, then := at(time.Time{}), at(third); now.Integration.Status != "connected" || then.Integration.Status != "connected" {
		t.Errorf("got status %q now and %q then, want connected", now.Integration.Status, then.Integration.Status)
	}
}
