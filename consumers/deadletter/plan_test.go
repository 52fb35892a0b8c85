package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// seen is the ledger's memory of an event other than the letter's, so much
// later than it.
func seen(op ledger.Operation, later time.Duration) ledger.Seen {
	return ledger.Seen{
		Version: ledger.Version{Time: op.Time + int64(later), Arrival: 1}, Value: ledger.Value{Units: 3}, Event: op.Event + 1,
	}
}

func itself(op ledger.Operation) ledger.Seen {
	return ledger.Seen{Version: op.Version, Value: op.Value, Event: op.Event}
}

func TestALetterIsJudgedByWhatTheLedgerHasNow(t *testing.T) {
	other := func(op ledger.Operation) ledger.Seen {
		s := itself(op)
		s.Value.Units++
		return s
	}
	tests := []struct {
		name  string
		entry func(ledger.Operation) *ledger.Entry
		want  Outcome
		why   Obstacle
	}{
		{"an unknown key", func(ledger.Operation) *ledger.Entry { return nil }, Applies, ""},
		{"a key without a figure", func(ledger.Operation) *ledger.Entry { return &ledger.Entry{State: ledger.Dirty} }, Applies, ""},
		{"an older figure", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{seen(op, -1)}}
		}, Applies, ""},
		{"an older figure that has failed", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{seen(op, -1)}}
		}, Applies, ""},
		{"a newer figure", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{seen(op, 1)}}
		}, Superseded, ""},
		{"the same time, arrived earlier", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{seen(op, 0)}}
		}, Applies, ""},
		{"the same time, arrived later", func(op ledger.Operation) *ledger.Entry {
			s := seen(op, 0)
			s.Arrival = op.Arrival + 1
			return &ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{s}}
		}, Superseded, ""},
		{"a newer figure before it", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{seen(op, 1), itself(op)}}
		}, Known, ""},
		{"itself, failed", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{itself(op)}}
		}, Requeued, ""},
		{"itself, delivered", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{itself(op)}}
		}, Known, ""},
		{"its snapshot's figure, failed", func(op ledger.Operation) *ledger.Entry {
			s := itself(op)
			s.Event++
			return &ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{s}}
		}, Requeued, ""},
		{"its snapshot's figure, delivered", func(op ledger.Operation) *ledger.Entry {
			s := itself(op)
			s.Event++
			return &ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{s}}
		}, Known, ""},
		{"another value at the same place", func(op ledger.Operation) *ledger.Entry {
			s := seen(op, 0)
			s.Arrival = op.Arrival
			return &ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{s}}
		}, Applies, ""},
		{"itself with another value", func(op ledger.Operation) *ledger.Entry {
			return &ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{seen(op, 1), other(op)}}
		}, Left, Obstacle(event.ReasonConflict)},
		{"itself at another time", func(op ledger.Operation) *ledger.Entry {
			s := itself(op)
			s.Time++
			return &ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{s}}
		}, Left, Obstacle(event.ReasonConflict)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			l := w.park("o", event.ReasonRejected, figure("o", "1"))
			ops, err := count(decoded(t, &l.Letter))
			if err != nil {
				t.Fatal(err)
			}
			if e := tt.entry(ops[0]); e != nil {
				w.entries[ops[0].Key] = *e
			}
			r, err := w.judge().Judge(t.Context(), &l.Letter, noon)
			if err != nil || r.Outcome != tt.want || r.Obstacle != tt.why || (r.Outcome == Left) != (r.Problem != "") {
				t.Errorf("got %s %s (%s), %v; want %s %s", r.Outcome, r.Obstacle, r.Problem, err, tt.want, tt.why)
			}
		})
	}
}

func TestALetterThatWouldFailAgainSaysWhy(t *testing.T) {
	good := figure("o", "1")
	tests := []struct {
		name, subject, body string
		limits              event.Limits
		want                Obstacle
		problem             string
	}{
		{"no bytes", "", "", event.Limits{}, NoOriginal, "no bytes"},
		{"no JSON", "", "{", event.Limits{}, Obstacle(event.ReasonMalformed), "replayof"},
		{"a wrong figure", "", strings.Replace(good, "7}", "-7}", 1), event.Limits{}, Obstacle(event.ReasonInvalid), "/data/unitCount"},
		{"an unknown type", "", strings.Replace(good, "usage.count.v1", "usage.count.v9", 1), event.Limits{}, Obstacle(event.ReasonUnknownType), "v9"},
		{"another subject", "usage.v1.acme.o.count.b.s", good, event.Limits{}, Obstacle(event.ReasonSubjectMismatch), "account"},
		{"too old by now", "", good, event.Limits{Lateness: 59 * time.Minute}, Obstacle(event.ReasonTooOld), "2026-11-20T12:00:00Z"},
		{"too far ahead still", "", strings.Replace(good, "T11:", "T13:", 1), event.Limits{Ahead: time.Minute}, Obstacle(event.ReasonTooFarAhead), "ahead"},
		{"a type that has no meaning", "usage.v1.acme.o.snapshot", `{"specversion":"1.0","id":"1","source":"//s","type":"usage.snapshot.v1","time":"2026-11-20T11:00:00Z",` +
			`"data":{"vendorId":"acme","organizationId":"o","counts":[]}}`, event.Limits{}, Obstacle(event.ReasonUnknownType), "does not fold"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			l := w.park("o", event.ReasonTooOld, tt.body)
			if tt.subject != "" {
				l.Original.Subject = tt.subject
			}
			judge := w.judge()
			judge.Limits = tt.limits
			r, err := judge.Judge(t.Context(), &l.Letter, noon)
			if err != nil || r.Outcome != Left || r.Obstacle != tt.want || !strings.Contains(r.Problem, tt.problem) {
				t.Errorf("got %s %s (%s), %v; want left, %s with %q", r.Outcome, r.Obstacle, r.Problem, err, tt.want, tt.problem)
			}
		})
	}
}

// A letter that was too far ahead, or too old for stricter limits, may be right
// by now: its age counts from now on.
func TestALetterIsJudgedByTodaysLimits(t *testing.T) {
	w := newWorld()
	l := w.park("o", event.ReasonTooFarAhead, figure("o", "1"))
	l.Original.Stored = noon.AddDate(0, -2, 0) // two months before the time of the event
	judge := w.judge()
	judge.Limits = event.DefaultLimits()
	if r, err := judge.Judge(t.Context(), &l.Letter, noon); err != nil || r.Outcome != Applies {
		t.Errorf("got %s %s (%s), %v; want it to apply", r.Outcome, r.Obstacle, r.Problem, err)
	}
}

func TestAPlanCountsWhatAReplayWouldDo(t *testing.T) {
	w := newWorld()
	for i := range 300 { // more than one chunk
		w.park(fmt.Sprint("o", i%2), event.ReasonInvalid, figure(fmt.Sprint("o", i%2), fmt.Sprint(i)))
	}
	w.park("o2", event.ReasonInvalid, "nonsense")
	w.letters[300].Key = "usage.v1.acme.o2.count.x.s"
	w.park("o2", event.ReasonTooOld, figure("o2", "of another reason"))
	c := PlanConfig{Filter: Filter{Reason: event.ReasonInvalid}, Sample: 2, Share: 25, Rate: 40, Now: noon}
	p, err := NewPlan(t.Context(), w.each, w.judge(), c)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(p.Letters, p.Keys, p.Outcomes, p.Left, p.Published(), p.Upto, p.Pace, p.Duration(), p.Parts)
	want := "301 3 map[applies:300 left:1] map[malformed:1] 300 301 10 15s " +
		"[{acme o0 150 0 0 false} {acme o1 150 0 0 false} {acme o2 1 0 0 false}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(p.Sample) != 2 || p.Sample[0].ID != "EVENTS_acme/101" || len(p.Failing) != 1 || p.Failing[0].ID != "EVENTS_acme/401" {
		t.Errorf("the sample is %v and the failing %v, want the first two letters and 401", p.Sample, p.Failing)
	}
	c.Limit = 130 // within the second chunk
	if p, err = NewPlan(t.Context(), w.each, w.judge(), c); err != nil || p.Letters != 130 || p.Upto != 130 {
		t.Errorf("limited to 130: %d letters up to %d, %v", p.Letters, p.Upto, err)
	}
	if got := PaceOf(0, 25); got != 250 {
		t.Errorf("a quarter of no limit is %v letters a second, want 250", got)
	}
}

type brokenLedger struct{ err error }

func (b brokenLedger) Entry(context.Context, string, ledger.Key) (ledger.Entry, bool, error) {
	return ledger.Entry{}, false, b.err
}

func TestAPlanEndsWithTheErrorOfTheLedger(t *testing.T) {
	w := newWorld()
	w.park("o", event.ReasonInvalid, figure("o", "1"))
	judge, gone := w.judge(), errors.New("gone")
	judge.Ledger = brokenLedger{gone}
	if p, err := NewPlan(t.Context(), w.each, judge, PlanConfig{Now: noon}); !errors.Is(err, gone) {
		t.Errorf("got %v, %v; want %v", p, err, gone)
	}
}

func TestABadEditSaysWhichOperationIsWrong(t *testing.T) {
	for patch, want := range map[string]string{
		`{}`:   "want an array of operations",
		`[]`:   "no operation",
		`nope`: "no JSON Patch",
		`[{"op":"remove","path":"/a"},{"op":"delete","path":"/b"}]`: `operation 1 of the edit: op is "delete": want add, remove`,
		`[{"op":"remove"}]`:            "operation 0 of the edit: remove has no path",
		`[{"op":"remove","path":"a"}]`: `operation 0 of the edit: path is "a": want a JSON Pointer`,
		`[{"op":"add","path":"/a"}]`:   "operation 0 of the edit: add of /a has no value",
		`[{"op":"add","path":"/a","value":1},{"op":"move","path":"/b"}]`: "operation 1 of the edit: move to /b needs a from",
		`[{"op":"add","path":"/a","value":1},7]`:                         "operation 1 of the edit: want an object",
		`[{"op":"copy","path":"/b","from":"a"}]`:                         "needs a from",
	} {
		if _, err := ParseEdit([]byte(patch)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", patch, err, want)
		}
	}
}

func TestAnEditLeavesEverythingElseAsItWas(t *testing.T) {
	edit, err := ParseEdit([]byte(`[{"op":"replace","path":"/data/unitCount","value":0.000001},{"op":"add","path":"/data/x","value":"<a>"}]`))
	if err != nil {
		t.Fatal(err)
	}
	l := newWorld().park("o", event.ReasonInvalid, `{"big":123456789012345678901234567890,"ö":1.50,"list":[1],"data":{"unitCount":-1}}`)
	before, after, err := edit.apply(&l.Letter)
	if want := `{"big":123456789012345678901234567890,"ö":1.50,"list":[1],"data":{"unitCount":0.000001,"x":"<a>"}}`; err != nil || string(after) != want {
		t.Errorf("got %s, %v; want %s", after, err, want)
	}
	if string(before) != string(l.Original.Data) {
		t.Errorf("before is %s, want the original", before)
	}
	for patch, want := range map[string]string{
		`[{"op":"test","path":"/data/unitCount","value":-1},{"op":"remove","path":"/data/none"}]`: `operation 1 of the edit, remove of "/data/none"`,
		`[{"op":"test","path":"/data/unitCount","value":5}]`:                                      `operation 0 of the edit, test of "/data/unitCount"`,
		`[{"op":"remove","path":"/list/-1"}]`:                                                     "operation 0 of the edit",
	} {
		edit, err := ParseEdit([]byte(patch))
		if err != nil {
			t.Fatal(err)
		}
		if _, after, err = edit.apply(&l.Letter); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %s, %v; want %q", patch, after, err, want)
		}
	}
}

func TestAnEventThatIsNoJSONCanBeReplacedAsAWhole(t *testing.T) {
	w := newWorld()
	l := w.park("o", event.ReasonMalformed, "nonsense")
	edit, err := Replace([]byte(figure("o", "1")))
	if err != nil {
		t.Fatal(err)
	}
	if edit, err = ParseEdit(edit.Patch()); err != nil { // as it comes out of a record
		t.Fatal(err)
	}
	judge := w.judge()
	judge.Edit = edit
	r, err := judge.Judge(t.Context(), &l.Letter, noon)
	if err != nil || r.Outcome != Applies || r.Before != nil || string(r.After) != figure("o", "1") {
		t.Errorf("got %s (%s), before %s, after %s, %v; want it to apply", r.Outcome, r.Problem, r.Before, r.After, err)
	}
	if judge.Edit, err = ParseEdit([]byte(`[{"op":"replace","path":"/id","value":"2"}]`)); err != nil {
		t.Fatal(err)
	}
	if r, err = judge.Judge(t.Context(), &l.Letter, noon); err != nil || r.Obstacle != EditFails || !strings.Contains(r.Problem, "in parts") {
		t.Errorf("edited in parts: %s %s, %v; want %s", r.Obstacle, r.Problem, err, EditFails)
	}
	if _, err := Replace([]byte("still nonsense")); err == nil {
		t.Error("nonsense was taken for an event")
	}
}

func TestADocumentThatIsNoJSONIsShownAsText(t *testing.T) {
	for document, want := range map[string]string{`{"a": 1}`: `{"a":1}`, "nonsense": `"nonsense"`} {
		if got, err := json.Marshal(RawDocument(document)); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v; want %s", document, got, err, want)
		}
	}
}

// What a snapshot does not name becomes 0: that its figures are superseded says
// little.
func TestASnapshotWhoseFiguresAreSupersededMayStillApply(t *testing.T) {
	w := newWorld()
	l := w.park("o", event.ReasonTooFarAhead, figure("o", "1"))
	ops, err := count(decoded(t, &l.Letter))
	if err != nil {
		t.Fatal(err)
	}
	w.entries[ops[0].Key] = ledger.Entry{State: ledger.Synced, Seen: []ledger.Seen{seen(ops[0], 1)}}
	for _, tt := range []struct {
		further []ledger.Operation
		want    Outcome
	}{{nil, Superseded}, {[]ledger.Operation{{Key: ledger.ScopeKey("o", "")}}, Applies}} {
		judge := w.judge()
		judge.Meaning = func(*event.Event) ([]ledger.Operation, error) { return append(ops, tt.further...), nil }
		if r, err := judge.Judge(t.Context(), &l.Letter, noon); err != nil || r.Outcome != tt.want || len(r.Keys) != 1 {
			t.Errorf("with %d further operations: %s, keys %v, %v; want %s, one key", len(tt.further), r.Outcome, r.Keys, err, tt.want)
		}
	}
}
