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
	want := "301 3 map[applies:2 left:1 superseded:298] map[malformed:1] 300 301 10 15s " +
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

// Each of many letters about a key has a newer figure than the ledger, and all
// but one of them are without effect in the end.
func TestLettersOfOneKeySupersedeOneAnotherInAPlan(t *testing.T) {
	at := func(account string, minute int) string {
		return strings.NewReplacer(`"a"`, fmt.Sprintf("%q", account), "T11:00", fmt.Sprintf("T11:%02d", minute)).Replace(figure("o", fmt.Sprint(account, minute)))
	}
	for _, tt := range []struct {
		name    string
		figures []string
		failed  int // index of the figure that the ledger has, failed; -1: none
		want    string
	}{
		{"oldest first", []string{at("a", 1), at("a", 2), at("a", 3)}, -1, "superseded,superseded,applies map[applies:1 superseded:2]"},
		{"newest first", []string{at("a", 3), at("a", 2), at("a", 1)}, -1, "applies,superseded,superseded map[applies:1 superseded:2]"},
		{"in between", []string{at("a", 2), at("a", 3), at("a", 1)}, -1, "superseded,applies,superseded map[applies:1 superseded:2]"},
		{"of one time", []string{at("a", 2), at("a", 2)}, -1, "superseded,applies map[applies:1 superseded:1]"},
		{"of one place in the log", []string{`{"replayof":"50",` + at("a", 2)[1:], `{"replayof":"50",` + at("a", 2)[1:]}, -1, "superseded,applies map[applies:1 superseded:1]"},
		{"of two keys", []string{at("a", 1), at("b", 2), at("a", 3)}, -1, "superseded,applies,applies map[applies:2 superseded:1]"},
		{"one that is sent again, and a newer", []string{at("a", 1), at("a", 2)}, 0, "superseded,applies map[applies:1 superseded:1]"},
		{"one that is sent again, and an older", []string{at("a", 2), at("a", 1)}, 0, "requeued,superseded map[requeued:1 superseded:1]"},
		{"one that stays", []string{at("a", 1), strings.Replace(at("a", 2), ":7}", ":-7}", 1)}, -1, "applies,left map[applies:1 left:1]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			for i, body := range tt.figures {
				l := w.park("o", event.ReasonInvalid, body)
				w.letters[i].Original.Subject = "usage.v1.acme.o.batch"
				if i != tt.failed {
					continue
				}
				ops, err := count(decoded(t, &l.Letter))
				if err != nil {
					t.Fatal(err)
				}
				w.entries[ops[0].Key] = ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{itself(ops[0])}}
			}
			p, err := NewPlan(t.Context(), w.each, w.judge(), PlanConfig{Sample: 3, Now: noon})
			if err != nil {
				t.Fatal(err)
			}
			outcomes := make([]string, len(p.Sample))
			for i, s := range p.Sample {
				outcomes[i] = string(s.Outcome)
			}
			if got := strings.Join(outcomes, ",") + " " + fmt.Sprint(p.Outcomes); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A letter with many figures counts for as long as one of them does.
func TestALetterIsSupersededInAPlanWhenAllItsFiguresAre(t *testing.T) {
	w := newWorld()
	for _, id := range []string{"ab", "a", "b", "ba"} {
		w.park("o", event.ReasonInvalid, figure("o", id))
	}
	judge := w.judge()
	judge.Meaning = func(e *event.Event) (ops []ledger.Operation, err error) {
		for _, account := range e.ID {
			one, err := count(e)
			if err != nil {
				return nil, err
			}
			one[0].Key.Account = string(account)
			ops = append(ops, one...)
		}
		return ops, nil
	}
	for limit, want := range []string{1: "map[applies:1]", 2: "map[applies:2]", 3: "map[applies:2 superseded:1]", 4: "map[applies:1 superseded:3]"} {
		if limit == 0 {
			continue
		}
		p, err := NewPlan(t.Context(), w.each, judge, PlanConfig{Limit: limit, Now: noon})
		if got := fmt.Sprint(p.Outcomes); err != nil || got != want {
			t.Errorf("the first %d letters: got %s, %v; want %s", limit, got, err, want)
		}
	}
}

// A snapshot does something to keys that it does not name, whatever becomes of
// its figures.
func TestASnapshotIsNotSupersededInAPlanByAFigure(t *testing.T) {
	for _, tt := range []struct {
		times []string // of the snapshot and of a figure
		want  string
	}{{[]string{"T11:00", "T11:01"}, "map[applies:2]"}, {[]string{"T11:01", "T11:00"}, "map[applies:1 superseded:1]"}} {
		for _, first := range []int{0, 1} {
			w := newWorld()
			for i := range 2 {
				which := (first + i) % 2
				w.park("o", event.ReasonInvalid, strings.Replace(figure("o", fmt.Sprint(which)), "T11:00", tt.times[which], 1))
			}
			judge := w.judge()
			judge.Meaning = func(e *event.Event) ([]ledger.Operation, error) {
				ops, err := count(e)
				if e.ID == "0" {
					ops = append(ops, ledger.Operation{Key: ledger.ScopeKey("o", "")})
				}
				return ops, err
			}
			p, err := NewPlan(t.Context(), w.each, judge, PlanConfig{Now: noon})
			if got := fmt.Sprint(p.Outcomes); err != nil || got != tt.want {
				t.Errorf("times %v, letter %d first: got %s, %v; want %s", tt.times, first, got, err, tt.want)
			}
		}
	}
}

func TestAPlanShowsNoMoreFailingLettersThanAskedFor(t *testing.T) {
	w := newWorld()
	for range 30 {
		w.park("o", event.ReasonInvalid, "nonsense")
	}
	for sample, want := range map[int]int{0: 0, 2: 2, 25: 20} {
		p, err := NewPlan(t.Context(), w.each, w.judge(), PlanConfig{Sample: sample, Now: noon})
		if err != nil || len(p.Failing) != want || p.Outcomes[Left] != 30 {
			t.Errorf("asked for %d: got %d of %d, %v; want %d of 30", sample, len(p.Failing), p.Outcomes[Left], err, want)
		}
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

func TestAnEditOfWhatTheLedgerKnowsIsJudgedAndShownUnderAnIDOfItsOwn(t *testing.T) {
	w := newWorld()
	l := w.park("o", event.ReasonRejected, figure("o", "1"))
	ops, err := count(decoded(t, &l.Letter))
	if err != nil {
		t.Fatal(err)
	}
	w.entries[ops[0].Key] = ledger.Entry{State: ledger.Failed, Seen: []ledger.Seen{itself(ops[0])}}
	judge := w.judge()
	if judge.Edit, err = ParseEdit([]byte(`[{"op":"replace","path":"/data/unitCount","value":8}]`)); err != nil {
		t.Fatal(err)
	}
	r, err := judge.Judge(t.Context(), &l.Letter, noon)
	if err != nil || r.Outcome != Applies {
		t.Fatalf("got %s %s (%s), %v; want it to apply", r.Outcome, r.Obstacle, r.Problem, err)
	}
	shown := event.Event{}
	for _, document := range [][]byte{r.After, r.Message.Data} {
		var envelope struct{ ID string }
		if err := json.Unmarshal(document, &envelope); err != nil || !strings.HasPrefix(envelope.ID, "1-edited-") || shown.ID != "" && shown.ID != envelope.ID {
			t.Errorf("%s: got id %q, %v; want 1-edited-…, the same in both", document, envelope.ID, err)
		}
		shown.ID = envelope.ID
	}
}

// What a worker would find dead is not published, although no figure tells.
func TestAPartThatContradictsItsSnapshotStays(t *testing.T) {
	scope := ledger.ScopeKey("o", "")
	part := func(number, of int, content uint64, when int64) ledger.Operation {
		return ledger.Operation{
			Key: scope, Version: ledger.Version{Time: when, Arrival: uint64(number)}, Event: 5,
			Part: &ledger.Part{Name: "month", Number: number, Of: of, Content: content},
		}
	}
	for _, tt := range []struct {
		name string
		op   ledger.Operation
		want Outcome
		why  Obstacle
	}{
		{"the other part", part(2, 2, 8, noon.UnixNano()), Applies, ""},
		{"the same part", part(1, 2, 7, noon.UnixNano()), Applies, ""},
		{"other content", part(1, 2, 8, noon.UnixNano()), Left, Obstacle(event.ReasonConflict)},
		{"another number of parts", part(2, 3, 8, noon.UnixNano()), Left, Obstacle(event.ReasonConflict)},
		{"another time", part(2, 2, 8, noon.UnixNano()+1), Left, Obstacle(event.ReasonConflict)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			book := ledger.Shelf{}
			if _, err := ledger.Fold(book, []ledger.Operation{part(1, 2, 7, noon.UnixNano())}, nil, noon); err != nil {
				t.Fatal(err)
			}
			w.entries[scope] = book[scope]
			l := w.park("o", event.ReasonTooFarAhead, figure("o", "1"))
			judge := w.judge()
			judge.Meaning = func(e *event.Event) ([]ledger.Operation, error) {
				ops, err := count(e)
				return append(ops, tt.op), err
			}
			r, err := judge.Judge(t.Context(), &l.Letter, noon)
			if err != nil || r.Outcome != tt.want || r.Obstacle != tt.why || (r.Outcome == Left) != strings.Contains(r.Problem, `snapshot "month"`) || r.Outcome == Left && len(r.news) > 0 {
				t.Errorf("got %s %s (%s), %v; want %s %s", r.Outcome, r.Obstacle, r.Problem, err, tt.want, tt.why)
			}
		})
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
