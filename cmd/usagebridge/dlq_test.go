package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

// letterApp is a world with a store of its own and the letters in it.
func letterApp(t *testing.T, letters ...event.Letter) *app {
	t.Helper()
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	c.StoreDir, c.NATSListen, c.NATSURL = filepath.Join(t.TempDir(), "store"), "127.0.0.1:-1", ""
	a, err := openApp(t.Context(), c, newLogger(t.Output(), "warn", "text"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	if _, err := a.broker.Init(t.Context(), broker.InitConfig{Vendor: "acme", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	if err := a.broker.Park(t.Context(), letters); err != nil {
		t.Fatal(err)
	}
	return a
}

func deadLetter(sequence uint64, reason event.Reason) event.Letter {
	return event.Letter{
		Vendor: "acme", Organization: "msp-1", Fault: event.Fault{Reason: reason, Problem: "unitCount is -1"},
		Original: event.Message{Subject: "usage.v1.acme.msp-1.batch", Stream: "EVENTS_acme", Sequence: sequence, Data: []byte("{}")},
		Worker:   "w", Parked: noon.Add(time.Duration(sequence) * time.Second),
	}
}

// talker is a cli of which a test reads what it writes.
func talker() (c *cli, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &cli{stdout: stdout, stderr: stderr}, stdout, stderr
}

func lettersLeft(t *testing.T, a *app) int {
	t.Helper()
	n := 0
	if err := a.letters(t.Context(), deadletter.Filter{}, func(broker.StoredLetter) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// audited reads the audit log.
func audited(t *testing.T, a *app) []action {
	t.Helper()
	stream, err := jetstream.New(a.broker.Conn())
	if err != nil {
		t.Fatal(err)
	}
	log, err := stream.Stream(t.Context(), broker.StreamAudit)
	if err != nil {
		t.Fatal(err)
	}
	records := make([]action, log.CachedInfo().State.Msgs)
	for i := range records {
		m, err := log.GetMsg(t.Context(), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, &records[i]); err != nil {
			t.Fatal(err)
		}
	}
	return records
}

func TestADropIsOnRecordWithEveryLetterItRemoves(t *testing.T) {
	const invalid, rejected = 2005, 3
	letters := make([]event.Letter, invalid+rejected)
	for i := range letters {
		letters[i] = deadLetter(uint64(i+1), event.ReasonInvalid)
		if i >= invalid {
			letters[i].Fault.Reason = event.ReasonRejected
		}
	}
	a := letterApp(t, letters...)
	f := deadletter.Filter{Vendor: "acme", Organization: "msp-1", Reason: event.ReasonInvalid}

	c, _, stderr := talker()
	if err := c.dropLetters(t.Context(), a, f, "test data", false); err != nil {
		t.Fatal(err)
	}
	if said := stderr.String(); !strings.Contains(said, "would drop 2005 dead letters: invalid 2005\nnothing dropped: add --yes") {
		t.Errorf("it said %q, want how many would go", said)
	}
	if left, records := lettersLeft(t, a), audited(t, a); left != invalid+rejected || len(records) != 0 {
		t.Fatalf("without --yes %d letters are left and %d actions on record, want all and none", left, len(records))
	}

	if err := c.dropLetters(t.Context(), a, f, "test data", true); err != nil {
		t.Fatal(err)
	}
	if left := lettersLeft(t, a); left != rejected {
		t.Errorf("%d letters are left, want the %d others", left, rejected)
	}
	named := map[string]bool{}
	records := audited(t, a)
	for _, r := range records {
		if r.Action != "dead letters dropped" || r.Why != "test data" || r.Actor != operator() || r.Vendor != "acme" || r.Integration != "acme/msp-1" {
			t.Errorf("on record is %+v, want who dropped what and why", r)
		}
		for _, id := range r.Objects {
			named[id] = true
		}
	}
	if len(records) != 3 || len(named) != invalid {
		t.Errorf("%d records name %d letters, want 3 that name %d", len(records), len(named), invalid)
	}
	if want := "letters 2001 to 2005 of the 2005 chosen by vendor=acme organization=msp-1 reason=invalid"; records[2].Detail != want {
		t.Errorf("the last record says %q, want %q", records[2].Detail, want)
	}
}

func TestAnInterruptedDropSaysHowFarItCame(t *testing.T) {
	const all = 2000
	letters := make([]event.Letter, all)
	for i := range letters {
		letters[i] = deadLetter(uint64(i+1), event.ReasonInvalid)
	}
	a := letterApp(t, letters...)
	ctx, cancel := context.WithCancel(t.Context())
	announced := 0
	subscription, err := a.broker.Conn().Subscribe("audit.v1.>", func(*nats.Msg) {
		if announced++; announced == 2 { // the first thousand is gone
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = subscription.Unsubscribe() })

	c, stdout, stderr := talker()
	c.json = true
	err = c.dropLetters(ctx, a, deadletter.Filter{Vendor: "acme"}, "test data", true)
	if !errors.Is(err, context.Canceled) || exitCode(err) != exitPartly {
		t.Fatalf("got %v with exit code %d, want an interruption with %d", err, exitCode(err), exitPartly)
	}
	var v dropView
	if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	gone := all - lettersLeft(t, a)
	if v.Dropped < 1000 || v.Dropped > gone || v.Dropped < gone-1 || v.Letters != all {
		t.Errorf("it says that %d of %d letters were dropped, want the %d that are gone, or one less", v.Dropped, v.Letters, gone)
	}
	if want := fmt.Sprintf("%d of 2000 dead letters: invalid 2000 were dropped", v.Dropped); !strings.Contains(stderr.String(), want) {
		t.Errorf("it said %q, want %q", stderr, want)
	}
	records := audited(t, a)
	last := records[len(records)-1]
	if len(records) != 3 || last.Action != "dead letters kept" || len(last.Objects) != all-v.Dropped || last.Objects[0] != letters[v.Dropped].Place() {
		t.Errorf("the last of %d records is %q with %d letters, want the third to name the %d that were kept",
			len(records), last.Action, len(last.Objects), all-v.Dropped)
	}
}

func TestNothingIsDroppedThatCannotBePutOnRecord(t *testing.T) {
	a := letterApp(t, deadLetter(1, event.ReasonInvalid), deadLetter(2, event.ReasonInvalid))
	stream, err := jetstream.New(a.broker.Conn())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteStream(t.Context(), broker.StreamAudit); err != nil {
		t.Fatal(err)
	}
	c, _, stderr := talker()
	err = c.dropLetters(t.Context(), a, deadletter.Filter{Vendor: "acme"}, "test data", true)
	if err == nil || exitCode(err) != exitFailed || !strings.Contains(err.Error(), "put on record") {
		t.Errorf("got %v with exit code %d, want an error of the audit log with %d", err, exitCode(err), exitFailed)
	}
	if left := lettersLeft(t, a); left != 2 || !strings.Contains(stderr.String(), "0 of 2 dead letters") {
		t.Errorf("%d letters are left, and it said %q; want both and that none was dropped", left, stderr)
	}
}

// imported reads a line of an export back.
func imported(t *rapid.T, line []byte) event.Letter {
	var x letterLine
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&x); err != nil {
		t.Fatalf("line %s: %v", line, err)
	}
	l := event.Letter{
		Vendor: x.Vendor, Organization: x.Organization, Index: x.Index, Figure: x.Figure, EventID: x.EventID, Source: x.Source, Key: x.Key,
		Fault:    event.Fault{Reason: x.Reason, Pointer: x.Pointer, Problem: x.Problem, Want: x.Want},
		Original: event.Message{Stream: x.Stream, Sequence: x.Sequence, Stored: x.Stored, Deliveries: x.Deliveries, Subject: x.Subject, Header: x.Headers},
		Attempts: x.Attempts, Answer: x.Answer, Worker: x.Worker, Parked: x.Parked,
	}
	if x.SubjectEscaped != "" {
		subject, err := url.PathUnescape(x.SubjectEscaped)
		if err != nil {
			t.Fatalf("subject %s: %v", x.SubjectEscaped, err)
		}
		l.Original.Subject = subject
	}
	if x.HeadersQuery != "" {
		values, err := url.ParseQuery(x.HeadersQuery)
		if err != nil {
			t.Fatalf("headers %s: %v", x.HeadersQuery, err)
		}
		l.Original.Header = values
	}
	if x.Body != nil {
		l.Original.Data = []byte(*x.Body)
	} else {
		l.Original.Data = x.BodyBase64
	}
	if want := l.Fingerprint(); x.Fingerprint != want {
		t.Fatalf("line %s: the fingerprint is %s, want %s", line, x.Fingerprint, want)
	}
	return l
}

func TestAnExportHasEveryByteOfALetter(t *testing.T) {
	text := rapid.String()
	body := rapid.OneOf(
		rapid.SliceOfN(rapid.Byte(), 0, 60),
		rapid.Map(text, func(s string) []byte { return []byte(s) }),
		rapid.Map(rapid.SampledFrom([]string{"", `{"a" : 1.00,"a":<&>}`, "{}\n", "\u2028\ufffd\x00", "\xff"}), func(s string) []byte { return []byte(s) }))
	value := rapid.Map(body, func(b []byte) string { return string(b) })
	rapid.Check(t, func(r *rapid.T) {
		l := deadLetter(rapid.Uint64Range(1, 1<<40).Draw(r, "sequence"), rapid.SampledFrom(event.Reasons()).Draw(r, "reason"))
		l.EventID, l.Source, l.Key = "e"+text.Draw(r, "id"), text.Draw(r, "source"), "count/a/"+text.Draw(r, "key")
		l.Fault.Pointer, l.Fault.Problem, l.Fault.Want = text.Draw(r, "pointer"), text.Draw(r, "problem"), text.Draw(r, "want")
		l.Index, l.Attempts, l.Answer = rapid.IntRange(0, 999).Draw(r, "index"), rapid.IntRange(0, 9).Draw(r, "attempts"), text.Draw(r, "answer")
		l.Original.Stored, l.Original.Deliveries = noon, rapid.IntRange(0, 9).Draw(r, "deliveries")
		l.Figure = rapid.SampledFrom([]string{"", "0a1b2c3d"}).Draw(r, "figure")
		l.Original.Subject, l.Original.Data = value.Draw(r, "subject"), body.Draw(r, "body")
		if h := rapid.MapOfN(value, rapid.SliceOfN(value, 1, 2), 0, 3).Draw(r, "headers"); len(h) > 0 {
			l.Original.Header = h
		}
		line, err := json.Marshal(exportedLetter(&broker.StoredLetter{Letter: l, ID: l.Place(), Sequence: 1}))
		if err != nil {
			r.Fatal(err)
		}
		got := imported(r, line)
		if !bytes.Equal(got.Original.Data, l.Original.Data) {
			r.Fatalf("the body came back as %q, want %q", got.Original.Data, l.Original.Data)
		}
		got.Original.Data = l.Original.Data // none and empty are one
		if !reflect.DeepEqual(got, l) {
			r.Fatalf("%s\nis read as %+v\nwant       %+v", line, got, l)
		}
	})
}

func TestAnExportHasALineForEachLetterOldestFirst(t *testing.T) {
	a := letterApp(t, deadLetter(1, event.ReasonInvalid), deadLetter(2, event.ReasonRejected), deadLetter(3, event.ReasonInvalid))
	var out bytes.Buffer
	n, err := a.exportLetters(t.Context(), deadletter.Filter{Reason: event.ReasonInvalid}, &out)
	if err != nil || n != 2 {
		t.Fatalf("exported %d, %v; want 2", n, err)
	}
	var ids []string
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var x letterLine
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, x.ID)
	}
	if want := []string{"EVENTS_acme/1", "EVENTS_acme/3"}; !reflect.DeepEqual(ids, want) {
		t.Errorf("exported %v, want %v", ids, want)
	}
}

func TestHalfAnExportReplacesNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letters.ndjson")
	broken := errors.New("broken")
	if err := writeWhole("--out", path, func(w io.Writer) error { _, err := w.Write([]byte("whole")); return err }); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole("--out", path, func(w io.Writer) error { _, _ = w.Write([]byte("half")); return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "whole" {
		t.Errorf("the file has %q, %v; want %q", content, err, "whole")
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("left behind are %v, %v; want the file alone", files, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; want it for its owner alone", info.Mode(), err)
	}
}

func TestLettersWithTheSameProblemAreOneGroup(t *testing.T) {
	far := deadLetter(4, event.ReasonInvalid)
	far.Organization, far.Key = "msp-2", "usage.v1.acme.msp-2.count.a.s"
	near := deadLetter(5, event.ReasonInvalid)
	near.Key = "msp-1/count/a/s"
	again := deadLetter(6, event.ReasonInvalid)
	again.Key = "usage.v1.acme.msp-1.count.a.s"
	s := letterCensus{reasons: map[event.Reason]int{}, groups: map[string]*letterGroup{}}
	for _, l := range []event.Letter{deadLetter(9, event.ReasonRejected), far, again, near, deadLetter(8, event.ReasonTooOld)} {
		s.add(&broker.StoredLetter{Letter: l, ID: l.Place()})
	}
	list := s.largest()
	var got []string
	for _, g := range list {
		got = append(got, fmt.Sprint(g.Reason, " ", g.Letters, " ", g.Integrations, g.Integration, " ", g.Keys, " ",
			g.First.Sub(noon), " ", g.Last.Sub(noon), " ", g.Example))
	}
	want := []string{
		"invalid 3 2 2 4s 6s EVENTS_acme/6",
		"rejected 1 1acme/msp-1 0 9s 9s EVENTS_acme/9",
		"too_old 1 1acme/msp-1 0 8s 8s EVENTS_acme/8",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the groups are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if first := deadLetter(9, event.ReasonRejected); list[1].Fingerprint != first.Fingerprint() || list[1].Problem != first.Title() {
		t.Errorf("the group has fingerprint %s and title %q, want %s and %q", list[1].Fingerprint, list[1].Problem, first.Fingerprint(), first.Title())
	}
}

func TestTheOffendingMemberIsMarked(t *testing.T) {
	const count = `{"id":"e","big":1e999,"data":{"unitCount":-1,"counts":[{"a":1},{"b/c":"x\u001b"}]}}`
	for _, test := range []struct {
		body     string
		index    int
		pointers []string
		want     []string // the marked lines
	}{
		{count, 0, []string{"/data/unitCount"}, []string{`"unitCount": -1,  ← problem`}},
		{count, 3, []string{"/3/data/unitCount"}, []string{`"unitCount": -1,  ← problem`}},
		{count, 0, []string{"/data/counts/1/b~1c", "/id"}, []string{`"id": "e",  ← problem`, `"b/c": "x\u001b"  ← problem`}},
		{count, 0, []string{"/data/counts"}, []string{`"counts": [  ← problem`}},
		{count, 0, []string{"/data/counts/2/a"}, []string{`"counts": [  ← problem: 2 is missing`}},
		{count, 0, []string{"/data/accountId", "/data/serviceId", "/data"}, []string{`"data": {  ← problem: accountId is missing  ← problem: serviceId is missing`}},
		{count, 0, []string{"/source"}, []string{`{  ← problem: source is missing`}},
		{count, 0, []string{"/id/x"}, []string{`"id": "e",  ← problem: x is missing`}},
		{count, 0, []string{"/id", "/id"}, []string{`"id": "e",  ← problem`}},
		{count, 0, []string{"", "ce-id", "/", "/0"}, []string{`{  ← problem`}},
		{count, 0, []string{"/big"}, []string{`"big": 1e999,  ← problem`}},
		{`{"unitCount":"x"}`, 0, []string{"/unitCount"}, []string{`"unitCount": "x"  ← problem`}},
		{`[1]`, 0, []string{"/0"}, []string{`1  ← problem`}},
		{"not JSON\x1b", 0, []string{"/data"}, nil},
		{"", 0, []string{"/data"}, nil},
	} {
		shown := markedBody([]byte(test.body), test.index, test.pointers)
		var got []string
		for line := range strings.Lines(shown) {
			if strings.Contains(line, "←") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s with %q is marked at %q, want %q", test.body, test.pointers, got, test.want)
		}
		if strings.Contains(shown, "\x1b") {
			t.Errorf("%q is shown as %q, want nothing that reaches into the terminal", test.body, shown)
		}
	}
}

func TestEveryReasonSaysHowToMendALetter(t *testing.T) {
	for _, r := range event.Reasons() {
		says := mending(r, "EVENTS_acme/7")
		if !strings.HasPrefix(says, "To mend it, ") || !strings.Contains(says, "--filter id=EVENTS_acme/7") || strings.ContainsAny(says, "\n") {
			t.Errorf("%s says %q, want one line with a command for the letter", r, says)
		}
	}
}
