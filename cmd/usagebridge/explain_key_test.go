package main

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func expectSentences(t *testing.T, got []string, want ...string) {
	t.Helper()
	text := strings.Join(got, "\n")
	for _, s := range want {
		if !strings.Contains(text, s) {
			t.Errorf("got\n%s\nwant a sentence with %q", text, s)
		}
	}
}

// noteworthy lists the figures of a key as disposition, event and notes.
func noteworthy(x *keyExplanation) (rows []string) {
	for i := range x.Figures {
		f := &x.Figures[i]
		rows = append(rows, strings.Join([]string{f.Value, or(string(f.Disposition), "?"), f.EventID, strings.Join(f.notes(), ", ")}, "|"))
	}
	return rows
}

func TestAKeySaysWhatItsFiguresComeFromAndWhatBecameOfThem(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.call(key, delivery.Delivered)
	w.publish(countOf("e-2", "a1", "s2", 3, 6, "b1"))
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "a1", 4, 1, 1, "", unitsOf("a1", "s1", 1)))
	x := w.history(key).explainKey("", 0)
	expectSentences(t, x.Sentences, "dirty, since 2026-11-21T12:00:02Z: it is to be sent.",
		"Desired is 0, true at 2026-11-20T12:04:00Z: zeroed by snapshot month, which did not name the key and whose last part is event month-1 of //billing, stored as EVENTS_acme/4 on",
		"The partner has 5 since 2026-11-21T12:00:01.001Z, from event e-1 of //billing, stored as EVENTS_acme/1 on")
	want := []string{
		"0|applied|month-1|desired, zeroed by snapshot month",
		"6|applied|e-2|backfill b1",
		"5|duplicate|e-1|",
		"5|applied|e-1|partner has it",
	}
	if got := noteworthy(x); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if x := w.history(key).explainKey("", 3); len(x.Figures) != 3 || x.OlderFigures != 1 {
		t.Errorf("got %d figures and %d older ones, want 3 and 1", len(x.Figures), x.OlderFigures)
	}
	h := w.history(key)
	h.log, h.reachesBack = nil, false // the ledger still knows
	x = h.explainKey("", 0)
	expectSentences(t, x.Sentences, "event that the log no longer has", "The log no longer reaches back")
	if len(x.Figures) != 3 || !x.Figures[0].Desired {
		t.Errorf("got %q, want the three figures that the ledger remembers", noteworthy(x))
	}
}

func TestAnEditedReplayIsNotTakenForItsOriginal(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	w.publish(countOf("e-1", "a1", "s2", 1, 9020, ""))
	w.call(key, delivery.Dead)
	edited := countOf("e-1-edited", "a1", "s2", 1, 20, "")
	edited.ReplayOf = "1"
	before := w.Entry(key)
	w.publish(edited)
	after := w.Entry(key)
	w.Put(before)
	expect(t, w.last(t, "e-1-edited"), "", false, "not folded yet")
	w.Put(after)
	w.call(key, delivery.Delivered)
	expect(t, w.last(t, "e-1-edited"), ledger.Applied, true, "The partner accepted 20 on 2026-11-21T12:00:02.001Z.", "The key is now synced")
	x := w.last(t, "e-1")
	expect(t, x, ledger.Applied, true, "No accepted call with this figure is in the sync log. 1 call was without success", "Later 20 at 2026-11-20T12:01:00Z (event e-1-edited of //billing, arrival 1) took its place.")
	if x.Accepted != nil {
		t.Errorf("got %+v, want no call by which the partner took what it refused", x.Accepted)
	}
	h := w.history(key)
	check := func(h *history, from string) {
		t.Helper()
		k := h.explainKey("", 0)
		expectSentences(t, k.Sentences, from)
		if got, want := noteworthy(k), []string{"20|applied|e-1-edited|desired, partner has it, replay of 1", "9020|applied|e-1|"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check(h, "Desired is 20, true at 2026-11-20T12:01:00Z: event e-1-edited of //billing, stored as EVENTS_acme/2 on 2026-11-21T12:00:02Z, a replay of dead letter EVENTS_acme/1.")
	if x := w.last(t, "e-1-edited"); x.Failures != 0 {
		t.Errorf("got %d calls without success for the replay, want none: that was the original's", x.Failures)
	}
	h.calls = nil // the sync log has been trimmed
	if x := h.explain(&h.log[0], h.log[0].operations[0], nil); x.Accepted != nil {
		t.Errorf("got %+v by the ledger's word, want nothing: the partner has another value", x.Accepted)
	}
}

func TestWhatThePartnerHasIsSaidToBeAZeroInGoodWords(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(snapshotOf("month", "", 2, 1, 1, ""))
	w.call(key, delivery.Delivered)
	w.publish(countOf("e-2", "a1", "s2", 3, 5, ""))
	expectSentences(t, w.history(key).explainKey("", 0).Sentences,
		"The partner has 0 since 2026-11-21T12:00:02.001Z, zeroed by snapshot month, which did not name the key")
}

func TestAFigureBelowAnotherIsNotNotedToWait(t *testing.T) {
	w := newWorkshop()
	w.publish(countOf("e-1", "a1", "s1", 1, 5, ""))
	w.publish(countOf("e-2", "a1", "s1", 2, 900, ""))
	w.publish(countOf("e-3", "a1", "s1", 3, 6, ""))
	want := []string{"6|applied|e-3|desired", "900|applied|e-2|", "5|applied|e-1|"}
	if got := noteworthy(w.history(ledger.CountKey("msp-1", "a1", "s1")).explainKey("", 0)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAKeyOfWhichAllWasTakenBackSaysSo(t *testing.T) {
	w := newWorkshop()
	w.publish(countOf("e-1", "a1", "s2", 1, 5, "b1"))
	w.say(backfillKey("acme", "b1"), reverted)
	x := w.history(ledger.CountKey("msp-1", "a1", "s2")).explainKey("", 0)
	expectSentences(t, x.Sentences, "Desired is 0: no event stands for another value, since all that did were taken back.", "The partner has nothing yet.")
	if got := noteworthy(x); len(got) != 1 || got[0] != "5|applied|e-1|backfill b1 (undone)" {
		t.Errorf("got %q, want the one event, undone", got)
	}
	w.publish(countOf("e-2", "a1", "s2", 2, 6, ""))
	expect(t, w.last(t, "e-2"), ledger.Applied, true, "in place of 0, for which no event stands: all that did were taken back.")
}

func TestAKeySaysWhatItWaitsFor(t *testing.T) {
	key := ledger.CountKey("msp-1", "a1", "s1")
	zeroed := newWorkshop()
	for _, service := range []string{"s1", "s2", "s3"} {
		zeroed.publish(countOf("e-"+service, "a1", service, 1, 5, ""))
	}
	zeroed.publish(snapshotOf("month", "", 2, 1, 1, ""))
	e := zeroed.Entry(key)
	id := approvalName(ledger.ApprovalID(key, e.Seen[0]))
	x := zeroed.history(key).explainKey("", 0)
	expectSentences(t, x.Sentences, "held, since 2026-11-21T12:00:01Z, approval: a person must approve its figure.",
		"It is a zero of snapshot month, which did not name the key: it waits for approval "+id+".")
	if got, want := noteworthy(x)[0], "0|applied|month-1|desired, zeroed by snapshot month, waits for approval"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	zeroed.say("acme.msp-1."+id, refused)
	x = zeroed.history(key).explainKey("", 0)
	expectSentences(t, x.Sentences, "Desired is 5")
	if got, want := noteworthy(x)[0], "0|applied|month-1|zeroed by snapshot month, refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	jumped := newWorkshop()
	jumped.publish(countOf("e-1", "a1", "s1", 1, 5, ""))
	jumped.publish(countOf("e-2", "a1", "s1", 2, 900, ""))
	expectSentences(t, jumped.history(key).explainKey("", 0).Sentences, "Its figure jumped from 5 to 900 (the service may change by a factor of 10): it waits for approval")
}

func TestAKeySaysWhyThePartnerDoesNotHaveIt(t *testing.T) {
	w := newWorkshop()
	key := ledger.CountKey("msp-1", "a1", "s2")
	w.publish(countOf("e-1", "a1", "s2", 1, 5, ""))
	w.publish(countOf("e-2", "a1", "s2", 2, 6, ""))
	owner := &status.Integration{Vendor: "acme", Organization: "msp-1", PausedWhy: "month end"}
	owner.Status = status.Mapping
	refusal := ledger.Answer{At: noon.UnixNano(), Status: 422, Message: "no such unit"}
	for name, c := range map[string]struct {
		change func(*history)
		letter string
		want   []string
	}{
		"to be sent":  {func(*history) {}, "", []string{"dirty, since 2026-11-21T12:00:01Z: it is to be sent."}},
		"has it":      {func(h *history) { h.stored.State = ledger.Synced }, "", []string{"synced: the partner has what is desired."}},
		"nothing yet": {func(h *history) { h.stored = nil }, "", []string{"not folded yet: 2 events name it, and no worker has taken what the log has."}},
		"is stopped": {func(h *history) {
			h.stored, h.record = nil, &vendorRecord{Stopped: &stop{By: "ann", Why: "flood", At: noon}}
		}, "",
			[]string{"Nothing of this vendor is folded since it was stopped by ann on 2026-11-20T12:00:00Z: flood."}},
		"one is to be folded": {func(h *history) { h.stored.Seen = h.stored.Seen[1:] }, "", []string{"1 event that names it is not folded yet"}},
		"retrying": {func(h *history) { *h.stored = h.stored.Retry(noon, refusal) }, "",
			[]string{"retrying, since", "1 call was without success, the last answer was: 422 no such unit. The next attempt is due on 2026-11-20T12:00:00Z."}},
		"failed": {func(h *history) { *h.stored = h.stored.Fail(h.stored.Seen[0], refusal) }, "EVENTS_acme/1",
			[]string{"failed, since", "given up after 1 call, the last answer was: 422 no such unit.", "Dead letter EVENTS_acme/1 keeps it; see `usagebridge dlq show EVENTS_acme/1`."}},
		"failed, without a letter": {func(h *history) { *h.stored = h.stored.Fail(h.stored.Seen[0], refusal) }, "", []string{"Its dead letter has gone."}},
		"unmapped": {func(h *history) {
			*h.stored = h.stored.Hold(ledger.Unmapped, ledger.Answer{At: 1, Status: 404, Message: "unknown"})
		}, "",
			[]string{"unmapped: the partner does not know where to bill it (404 unknown).", "`usagebridge integrations mapping acme/msp-1` lists"}},
		"awaiting catalog": {func(h *history) { h.catalog, h.missing = false, []ledger.Key{key.AccountKey(), key.ServiceKey()} }, "",
			[]string{"awaiting_catalog: the partner does not have account/a1 nor service/s2 yet."}},
		"paused":       {func(h *history) { h.gate = ledger.Paused }, "", []string{"paused: the integration is paused (month end). `usagebridge integrations resume acme/msp-1` sends it."}},
		"unauthorized": {func(h *history) { h.gate = ledger.Unauthorized }, "", []string{"unauthorized: the partner refuses the tokens of the integration"}},
		"anomaly":      {func(h *history) { h.gate = ledger.Anomaly }, "", []string{"anomaly: the partner refuses every call of the integration"}},
		"not ready":    {func(h *history) { h.gate = ledger.IntegrationNotReady }, "", []string{"integration_not_ready: the status of the integration is mapping"}},
		"not added":    {func(h *history) { h.gate, h.owner = ledger.IntegrationNotReady, nil }, "", []string{"integration_not_ready: nobody has added the integration"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := w.history(key)
			stored := *h.stored
			h.stored, h.owner = &stored, owner
			c.change(h)
			expectSentences(t, h.explainKey(c.letter, 0).Sentences, c.want...)
		})
	}
}

func TestAFigureThatWasReplayedNamesItsDeadLetter(t *testing.T) {
	w := newWorkshop()
	e := countOf("e-1", "a1", "s2", 1, 5, "")
	w.publish(countOf("e-0", "a1", "s2", 0, 1, ""))
	w.publish(countOf("e-0", "a1", "s2", 0, 2, "")) // dead
	e.ReplayOf = "2"
	w.publish(e)
	x := w.history(ledger.CountKey("msp-1", "a1", "s2")).explainKey("", 0)
	expectSentences(t, x.Sentences, "event e-1 of //billing, stored as EVENTS_acme/3 on 2026-11-21T12:00:03Z, a replay of dead letter EVENTS_acme/2.")
	want := []string{"5|applied|e-1|desired, replay of 2", "2|dead|e-0|", "1|applied|e-0|"}
	if got := noteworthy(x); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestASentenceFitsATerminalAndItsCommandsStayInOnePiece(t *testing.T) {
	const sentence = "It waits: `usagebridge approvals release 00 --integration a/b` sends it, `refuse` takes it back."
	if got, want := paragraph(sentence, math.MaxInt), "  "+sentence+"\n"; got != want {
		t.Errorf("got %q, want it in one line", got)
	}
	want := "  It waits:\n    `usagebridge approvals release 00 --integration a/b`\n    sends it, `refuse` takes it back.\n"
	if got := paragraph(sentence, 40); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAQuestionSaysAllThatIsWrongWithIt(t *testing.T) {
	for name, c := range map[string]struct {
		question question
		args     []string
		want     []string
		key      ledger.Key
	}{
		"nothing":       {want: []string{"nothing says what to explain"}},
		"empty":         {args: []string{""}, want: []string{"the event id is empty"}},
		"both":          {question{key: "a/s", integration: "acme/o"}, []string{"e"}, []string{"contradict each other"}, ledger.Key{}},
		"several":       {question{key: "a", source: "//x", figures: -1}, nil, []string{"--integration is missing", "--source is about events", "--figures -1", "want ACCOUNT/SERVICE"}, ledger.Key{}},
		"two slashes":   {question{key: "a/b/c", integration: "acme/o"}, nil, []string{"with one slash"}, ledger.Key{}},
		"a key":         {question{key: "a/s", integration: "acme/o/p"}, nil, nil, ledger.CountKey("o/p", "a", "s")},
		"with slashes":  {question{account: "a/b", service: "c/d", integration: "acme/o"}, nil, nil, ledger.CountKey("o", "a/b", "c/d")},
		"of an account": {question{account: "a", integration: "acme/o"}, nil, nil, ledger.AccountKey("o", "a")},
		"of a service":  {question{service: "s", integration: "acme/o"}, nil, nil, ledger.ServiceKey("o", "s")},
	} {
		t.Run(name, func(t *testing.T) {
			q := c.question
			err := q.parse(c.args)
			if err == nil {
				if got := q.ledgerKey(); c.want != nil || got != c.key {
					t.Errorf("got %v and no error, want %v and %q", got, c.key, c.want)
				}
				return
			}
			if got := exitCode(err); got != exitUsage || c.want == nil {
				t.Errorf("got %v with exit code %d, want %q with %d", err, got, c.want, exitUsage)
			}
			expectSentences(t, []string{err.Error()}, c.want...)
		})
	}
}
