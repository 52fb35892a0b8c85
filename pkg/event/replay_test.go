package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// letter is a letter of a message, for whatever reason.
func letter(m event.Message, index int) *event.Letter {
	m.Stream, m.Sequence = "EVENTS_acme", 4711
	return &event.Letter{
		Vendor: "acme", Organization: "msp-0042", Original: m, Index: index,
		Fault: event.Fault{Reason: event.ReasonRejected, Problem: "the partner refused it"},
	}
}

// again decodes a replay as if it was stored behind its original.
func again(t interface {
	Helper()
	Fatalf(string, ...any)
}, m event.Message,
) event.Result {
	t.Helper()
	if m.Sequence != 0 || !m.Stored.IsZero() || m.Stream != "" {
		t.Fatalf("the replay is %+v, want nothing that only a stored message has", m)
	}
	m.Sequence = 1 << 41
	results := event.Decode(m, event.Limits{})
	if len(results) != 1 {
		t.Fatalf("the replay has %d results: %s", len(results), m.Data)
	}
	return results[0]
}

func TestAReplayIsTheOriginalWithItsArrival(t *testing.T) {
	own := "usage.v1.acme.msp-0042.count.a-17.backup"
	rest := string(message().Data)[1:]
	for _, test := range []struct {
		name, body string
		index      int
		want       string
	}{
		{"an event", "{" + rest, 0, `{"replayof":"4711",` + rest},
		{"an event of a batch", "{" + rest, 7, `{"replayof":"4711-7",` + rest},
		{"with blanks", " \n{ " + rest + "\t", 0, " \n{" + `"replayof":"4711", ` + rest + "\t"},
		{"without members", "{ }", 0, `{"replayof":"4711" }`},
		{"of a replay", `{"replayof" : "17-3" ,` + rest, 0, `{"replayof" : "17-3" ,` + rest},
		{"of a replay with an escaped name", `{"replay\u006ff":"\u0031",` + rest, 0, `{"replay\u006ff":"1",` + rest},
		{"that names nothing", `{"replayof":null,` + rest, 0, `{"replayof":"4711",` + rest},
		{"that names no arrival", `{"replayof":"yesterday",` + rest, 0, `{"replayof":"4711",` + rest},
		{"that names a later one", `{"replayof":"4712",` + rest, 0, `{"replayof":"4711",` + rest},
		{"that names an object", `{"replayof":{"replayof":"1"},` + rest, 0, `{"replayof":"4711",` + rest},
		{"that names an array", `{"replayof":[ 1, "2" ],` + rest, 0, `{"replayof":"4711",` + rest},
		{"that names itself", `{"replayof":"4711",` + rest, 0, `{"replayof":"4711",` + rest},
		{"with the name in other places", `{"x":{"replayof":"1"},"y":["replayof",{}],"ReplayOf":"2",` + rest, 0, `{"replayof":"4711","x":{"replayof":"1"},"y":["replayof",{}],"ReplayOf":"2",` + rest},
		{"with a member twice", `{"id":"1",` + rest, 0, `{"replayof":"4711","id":"1",` + rest},
	} {
		t.Run(test.name, func(t *testing.T) {
			original := event.Message{Subject: own, Data: []byte(test.body), Deliveries: 3, Handle: "h", Stored: stored}
			got, err := letter(original, test.index).Replay()
			if err != nil || string(got.Data) != test.want || got.Subject != own {
				t.Errorf("got  %s on %s, %v\nwant %s", got.Data, got.Subject, err, test.want)
			}
			if string(original.Data) != test.body {
				t.Errorf("the original is changed to %s", original.Data)
			}
		})
	}
}

func TestAReplayHasTheHeadersOfTheEventAlone(t *testing.T) {
	for _, test := range []struct {
		name         string
		header, want map[string][]string
	}{
		{
			"structured",
			map[string][]string{"Nats-Msg-Id": {"1"}, "nats-expected-stream": {"x"}, "traceparent": {"00-1"}, "content-type": {"application/cloudevents+json"}},
			map[string][]string{"traceparent": {"00-1"}, "content-type": {"application/cloudevents+json"}},
		},
		{
			"of a batch",
			map[string][]string{"Content-Type": {"application/CloudEvents-batch+json ; charset=utf-8"}},
			map[string][]string{"Content-Type": {"application/cloudevents+json; charset=utf-8"}},
		},
		{"none", nil, map[string][]string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := message()
			m.Header = test.header
			before := fmt.Sprint(test.header)
			got, err := letter(m, 0).Replay()
			if err != nil || !reflect.DeepEqual(got.Header, test.want) {
				t.Errorf("got %v, %v, want %v", got.Header, err, test.want)
			}
			if fmt.Sprint(test.header) != before {
				t.Errorf("the original's headers are changed to %v", test.header)
			}
		})
	}
}

func TestABinaryReplayNamesItsOriginalInAHeader(t *testing.T) {
	for _, test := range []struct {
		name   string
		header map[string][]string
		want   string
	}{
		{"none", nil, "4711-3"},
		{"the original is a replay", map[string][]string{"CE-ReplayOf": {"17-3"}}, "17-3"},
		{"percent-encoded", map[string][]string{"Ce-Replayof": {"%317"}}, "17"},
		{"no arrival", map[string][]string{"ce-replayof": {"%zz"}}, "4711-3"},
		{"a later one", map[string][]string{"ce-replayof": {"4711-4"}}, "4711-3"},
		{"twice", map[string][]string{"ce-replayof": {"1"}, "Ce-Replayof": {"2"}}, "4711-3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := message()
			m.Header, m.Data = countEvent().BinaryHeaders(), countEvent().AppendData(nil)
			maps.Copy(m.Header, test.header)
			got, err := letter(m, 3).Replay()
			if err != nil {
				t.Fatal(err)
			}
			want := countEvent().BinaryHeaders()
			want["ce-replayof"] = []string{test.want}
			if !reflect.DeepEqual(got.Header, want) || !bytes.Equal(got.Data, m.Data) {
				t.Errorf("got %v with %s\nwant %v with %s", got.Header, got.Data, want, m.Data)
			}
			if r := again(t, got); r.Fault != nil || r.Event.Arrival.String() != test.want {
				t.Errorf("got %+v, %v, want arrival %s", r.Event, r.Fault, test.want)
			}
		})
	}
}

func TestAnEventOfABatchIsReplayedOnItsOwnSubjectIfItHasOne(t *testing.T) {
	const batch = "usage.v1.acme.msp-0042.batch"
	for _, test := range []struct{ from, to, want string }{
		{"", "", "usage.v1.acme.msp-0042.count.a-17.backup"},
		{"a-17", "b.c", "usage.v1.acme.msp-0042.count.b=2Ec.backup"},
		{":42", ":-1", batch},
		{"msp-0042", "msp-0043", batch},
		{"usage.count.v1", "usage.count.v2", batch},
	} {
		m := message(test.from, test.to)
		m.Subject = batch
		if got, err := letter(m, 1).Replay(); err != nil || got.Subject != test.want {
			t.Errorf("%s for %s: got %s, %v, want %s", test.to, test.from, got.Subject, err, test.want)
		}
	}
}

func TestALetterThatCannotBeReplayedSaysWhatToDo(t *testing.T) {
	lost := letter(message(), 0)
	lost.Original.Sequence = 0
	for _, test := range []struct {
		name   string
		letter *event.Letter
		want   string
		reason event.Reason
	}{
		{"no bytes", letter(event.Message{}, 0), "publish the figure anew", ""},
		{"no place in the log", lost, "publish the figure anew", ""},
		{"not JSON", letter(event.Message{Data: []byte("{")}, 0), "edit the letter", event.ReasonMalformed},
		{"an array", letter(event.Message{Data: []byte("[]")}, 0), "the body is an array", event.ReasonMalformed},
		{"a string", letter(event.Message{Data: []byte(`"{}"`)}, 0), "the body is a string", event.ReasonMalformed},
		{"replayof twice", letter(event.Message{Data: []byte(`{"replayof":"1","replayof":"1"}`)}, 0), "replayof occurs twice", event.ReasonMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, err := test.letter.Replay()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %+v, %v, want an error with %q", m, err, test.want)
			}
			if fault, ok := errors.AsType[*event.Fault](err); ok != (test.reason != "") || ok && fault.Reason != test.reason {
				t.Errorf("got %v, want reason %q", err, test.reason)
			}
		})
	}
}

// modes are the ways in which an event may have been published: the message
// of its letter, and its place in the batch.
func modes(t *rapid.T, e *event.Event) map[string]*event.Letter {
	subject := e.Subject().String()
	batch := event.Subject{Kind: event.KindBatch, Vendor: e.Vendor, Organization: e.Organization}.String()
	index := rapid.IntRange(0, event.MaxBatch-1).Draw(t, "place")
	sequence := rapid.Uint64Range(1<<40, 1<<40+9).Draw(t, "sequence")
	of := func(m event.Message, index int) *event.Letter {
		m.Sequence = sequence
		return &event.Letter{Vendor: e.Vendor, Organization: e.Organization, Original: m, Index: index}
	}
	return map[string]*event.Letter{
		"structured":                 of(event.Message{Subject: subject, Data: oddly(t, e.Structured())}, 0),
		"binary":                     of(event.Message{Subject: subject, Header: e.BinaryHeaders(), Data: oddly(t, e.AppendData(nil))}, 0),
		"batch":                      of(event.Message{Subject: batch, Data: oddly(t, e.Structured())}, index),
		"binary on the batch itself": of(event.Message{Subject: batch, Header: e.BinaryHeaders(), Data: e.AppendData(nil)}, 0),
	}
}

// oddly writes a JSON object in another way that says the same: with blanks,
// with escapes for letters, and with members that nobody knows, which have the
// names of others in them.
func oddly(t *rapid.T, object []byte) []byte {
	dice := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "spelling"), 0))
	blank := func() string { return [...]string{"", "", " ", "\n\t", "\r\n "}[dice.IntN(5)] }
	var b strings.Builder
	b.WriteString(blank())
	text := false
	for i := 0; i < len(object); i++ {
		c := object[i]
		switch {
		case text && c == '\\':
			size := 2
			if object[i+1] == 'u' {
				size = 6
			}
			b.Write(object[i : i+size])
			i += size - 1
			continue
		case c == '"':
			text = !text
			b.WriteByte(c)
			continue
		case text && c < 0x80 && dice.IntN(16) == 0:
			fmt.Fprintf(&b, `\u%04x`, c)
			continue
		case text:
			b.WriteByte(c)
			continue
		}
		b.WriteByte(c)
		if strings.IndexByte("{}[]:,", c) >= 0 {
			b.WriteString(blank())
		}
		if i == 0 {
			b.WriteString(rapid.SampledFrom([]string{
				"", `"later":{"replayof":"1","id":[{"replayof":null}]},`, `"ReplayOf":"{\"replayof\":1}",`, `"replayof ":"]}",`, `"later":[[],{},"\\",-0.0e1],`,
			}).Draw(t, "later"))
		}
	}
	return []byte(b.String())
}

func TestAReplayOfAnyEventInAnyModeIsThatEvent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := validEvent(t)
		for mode, l := range modes(t, e) {
			want := *e
			want.Arrival = l.Arrival()
			if e.ReplayOf != "" {
				want.Arrival, _ = event.ParseArrival(e.ReplayOf)
			}
			want.ReplayOf = want.Arrival.String()
			m, err := l.Replay()
			if err != nil {
				t.Fatalf("%s: %v of %s", mode, err, l.Original.Data)
			}
			if r := again(t, m); r.Fault != nil || !reflect.DeepEqual(r.Event, &want) {
				t.Fatalf("%s: got %+v, %v\nwant %+v\nof   %s\nis   %s", mode, r.Event, r.Fault, &want, l.Original.Data, m.Data)
			}
			if m.Subject != e.Subject().String() {
				t.Fatalf("%s: got subject %s, want %s", mode, m.Subject, e.Subject())
			}
			if e.ReplayOf == "" {
				checkBytes(t, l, m)
			}
			checkEdited(t, l, &want)
		}
	})
}

// checkBytes checks that all that a replay adds to the body is the member that
// names the original.
func checkBytes(t *rapid.T, l *event.Letter, m event.Message) {
	member := ""
	if l.Original.Header == nil {
		member = `"replayof":"` + l.Arrival().String() + `",`
	}
	if before, after := string(l.Original.Data), string(m.Data); strings.Replace(after, member, "", 1) != before {
		t.Fatalf("got  %s\nof   %s\nwant it with %s and no other byte changed", after, before, member)
	}
}

// checkEdited checks that an edit that changes nothing is a replay.
func checkEdited(t *rapid.T, l *event.Letter, want *event.Event) {
	body, err := l.JSON()
	if err != nil {
		t.Fatalf("%v of %s", err, l.Original.Data)
	}
	m, got, err := l.Edited(body)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("edited: got %+v, %v\nwant %+v\nof   %s", got, err, want, body)
	}
	if r := again(t, m); r.Fault != nil || !reflect.DeepEqual(r.Event, want) {
		t.Fatalf("edited: got %+v, %v\nwant %+v", r.Event, r.Fault, want)
	}
}

func TestABinaryEventIsEditedAsAnEnvelope(t *testing.T) {
	m := message()
	m.Data = []byte(` {"unitCount":-1} `)
	m.Header = map[string][]string{
		"Ce-Specversion": {"1.0"}, "ce-id": {`50%25 "ü"`}, "ce-source": {"100%"}, "ce-type": {"usage.count.v1"}, "ce-time": {"a", "b"},
		"ce-zone": {"z"}, "ce-area": {"\xff"}, "ce-replayof": {"17"}, "ce-backfill": {"b"}, "Content-Type": {"application/json"}, "Nats-Msg-Id": {"1"}, "ce-data": {"x"}, "ce-": {"x"},
	}
	want := `{"specversion":"1.0","id":"50% \"ü\"","source":"100%","type":"usage.count.v1","replayof":"17","backfill":"b","datacontenttype":"application/json","area":"�","zone":"z","data": {"unitCount":-1} }`
	got, err := letter(m, 0).JSON()
	if err != nil || string(got) != want || !json.Valid(got) {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	for body, want := range map[string]string{"": "no bytes of its event", "{": "not JSON", "[]": "the body is an array"} {
		if got, err := letter(event.Message{Data: []byte(body)}, 0).JSON(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %s, %v, want an error with %q", body, got, err, want)
		}
	}
}

func TestAnEditedEventGoesToItsOwnSubjectAsAReplay(t *testing.T) {
	m := message(":42", ":-42")
	m.Header = map[string][]string{"Ce-Id": {"x"}, "Content-Type": {"text/plain"}, "traceparent": {"00-1"}, "Nats-Msg-Id": {"1"}}
	l := letter(m, 2)
	body := strings.NewReplacer("msp-0042", "msp-0043", "{", ` { `).Replace(string(message().Data))
	got, e, err := l.Edited([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	wantHeader := map[string][]string{"content-type": {"application/cloudevents+json"}, "traceparent": {"00-1"}}
	wantBody := strings.Replace(body, "{ ", `{"replayof":"4711-2", `, 1)
	if got.Subject != "usage.v1.acme.msp-0043.count.a-17.backup" || string(got.Data) != wantBody || !reflect.DeepEqual(got.Header, wantHeader) {
		t.Errorf("got %s with %v and %s\nwant msp-0043's with %v and %s", got.Subject, got.Header, got.Data, wantHeader, wantBody)
	}
	if e.Arrival.String() != "4711-2" || e.ReplayOf != "4711-2" {
		t.Errorf("got %+v, want the arrival of the original", e)
	}
	// A letter whose original is gone can be written anew.
	l.Original.Data = nil
	if _, e, err := l.Edited([]byte(body)); err != nil || e.Arrival.String() != "4711-2" {
		t.Errorf("without an original: got %+v, %v", e, err)
	}
	// Nobody but the log says where the original arrived.
	if _, e, err := l.Edited([]byte(`{"replayof":"1",` + string(message().Data)[1:])); err != nil || e.ReplayOf != "4711-2" {
		t.Errorf("replayof of the edit: got %+v, %v", e, err)
	}
}

// An event that was folded stands in the ledger under its source and id: with
// other content under them it would be dead.
func TestAnEditedEventThatTheLedgerMayKnowGetsAnIDOfItsOwn(t *testing.T) {
	valid, edited := string(message().Data), string(message(":42", ":41").Data)
	id := countEvent().ID
	for _, test := range []struct {
		name, original, subject, body, want string // want: a regular expression of the new id
	}{
		{"another figure", valid, "", edited, `^` + id + `-edited-[0-9a-f]{8}$`},
		{"another time", valid, "", strings.Replace(valid, "T12:", "T11:", 1), `^` + id + `-edited-[0-9a-f]{8}$`},
		{"of a replay", `{"replayof":"17",` + valid[1:], "", edited, `^` + id + `-edited-[0-9a-f]{8}$`},
		{"that names a nonsensical original", valid, "", `{"replayof":"x",` + edited[1:], `^` + id + `-edited-[0-9a-f]{8}$`},
		{"the same content", valid, "", strings.Replace(valid, "{", " {\n ", 2), "^" + id + "$"},
		{"another id", valid, "", strings.Replace(edited, `"id":"`, `"id":"my-`, 1), "^my-" + id + "$"},
		{"another source", valid, "", strings.Replace(edited, `"source":"`, `"source":"/`, 1), "^" + id + "$"},
		{"of what was never valid", string(message(":42", ":-42").Data), "", edited, "^" + id + "$"},
		{"of what came on another's subject", valid, "usage.v1.acme.msp-0042.count.other.backup", edited, "^" + id + "$"},
		{"of what is gone", "", "", edited, "^" + id + "$"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := message()
			m.Data = []byte(test.original)
			if test.subject != "" {
				m.Subject = test.subject
			}
			l := letter(m, 0)
			got, e, err := l.Edited([]byte(test.body))
			if err != nil || !regexp.MustCompile(test.want).MatchString(e.ID) {
				t.Fatalf("got %+v, %v; want an id like %s", e, err, test.want)
			}
			if r := again(t, got); r.Fault != nil || !reflect.DeepEqual(r.Event, e) {
				t.Errorf("the message has %+v, %v; want %+v", r.Event, r.Fault, e)
			}
			renamed := l.Renamed([]byte(test.body))
			if want := strings.Replace(test.body, `"`+id+`"`, `"`+e.ID+`"`, 1); string(renamed) != want {
				t.Errorf("renamed: got  %s\nwant %s", renamed, want)
			}
			if twice := l.Renamed(renamed); !bytes.Equal(twice, renamed) {
				t.Errorf("renamed twice: got %s, want it to stay %s", twice, renamed)
			}
		})
	}
}

func TestTheIDOfAnEditedEventTellsItsContentsApartAndIsNotTooLong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := validEvent(t)
		e.ID = rapid.SampledFrom([]string{"", "x"}).Draw(t, "odd") + strings.Repeat("ä", rapid.IntRange(495, 511).Draw(t, "half"))
		seen := map[string]bool{}
		for mode, l := range modes(t, e) {
			for second := range 3 {
				edited := *e
				edited.Time = e.Time.Add(time.Duration(second+1) * time.Second)
				_, got, err := l.Edited(edited.Structured())
				if err != nil {
					t.Fatalf("%s: %v", mode, err)
				}
				prefix, _, found := strings.Cut(got.ID, "-edited-")
				if !found || !strings.HasPrefix(e.ID, prefix) || len(got.ID) > event.MaxAttributeBytes || len(got.ID) < event.MaxAttributeBytes-2 && prefix != e.ID {
					t.Fatalf("%s: got id %q of %d bytes from one of %d", mode, got.ID, len(got.ID), len(e.ID))
				}
				seen[got.ID] = true
			}
		}
		if len(seen) != 3 {
			t.Fatalf("three edits have %d ids in all modes: %v", len(seen), seen)
		}
	})
}

func TestAnEditThatIsNoEventIsRefusedWithAllItsFaults(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       []string
	}{
		{"two problems", string(message(":42", ":-42", `"a-17"`, `""`).Data), []string{"/data/accountId: accountId is empty", "/data/unitCount: unitCount is -42"}},
		{"another vendor", string(message("acme", "umbra").Data), []string{`/data/vendorId: vendorId is "umbra", the letter is one of "acme"`}},
		{"an unknown type", string(message("usage.count.v1", "usage.count.v2").Data), []string{"unknown_type"}},
		{"a member twice", string(message(`"id":`, `"id":"1","id":`).Data), []string{"malformed at /id"}},
		{"a batch", "[" + string(message().Data) + "]", []string{"the body is an array"}},
		{"nothing", "", []string{"malformed: not JSON"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, e, err := letter(message(), 0).Edited([]byte(test.body))
			if _, ok := errors.AsType[*event.Fault](err); !ok {
				t.Fatalf("got %+v, %+v, %v, want a fault", m, e, err)
			}
			if slices.ContainsFunc(test.want, func(want string) bool { return !strings.Contains(err.Error(), want) }) {
				t.Errorf("got %v\nwant %v", err, test.want)
			}
		})
	}
}

// Whatever was parked, what people and programs ask of a letter has an answer.
func FuzzLetter(f *testing.F) {
	f.Add([]byte(`{"replayof":"1","id":"x"}`), "", "unitCount is -1, which is negative", `{"title":"no \"unit\" 7"}`)
	f.Add([]byte(`[{}]`), "%31", `it's "a`, "'x' … (7 characters) `y")
	f.Fuzz(func(t *testing.T, body []byte, id, problem, answer string) {
		m := event.Message{Subject: "usage.v1.acme.msp-0042.batch", Data: body}
		if id != "" {
			m.Header = map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {id}}
		}
		l := letter(m, 3)
		l.EventID, l.Source, l.Key, l.Answer, l.Fault.Problem = id, problem, "msp-0042/count/"+id, answer, problem
		for _, reason := range event.Reasons() {
			l.Fault.Reason = reason
			if title := l.Title(); strings.ContainsAny(title, "\n\r") || len(l.Fingerprint()) != 8 {
				t.Fatalf("got title %q and fingerprint %s", title, l.Fingerprint())
			}
		}
		if replay, err := l.Replay(); err == nil && id == "" && !json.Valid(replay.Data) {
			t.Fatalf("the replay is %s", replay.Data)
		}
		envelope, err := l.JSON()
		if err != nil {
			return
		}
		if !json.Valid(envelope) {
			t.Fatalf("the envelope is %s", envelope)
		}
		if _, e, err := l.Edited(envelope); err == nil && e.Arrival > l.Arrival() {
			t.Fatalf("edited: got %+v, want no later arrival than %s", e, l.Arrival())
		}
	})
}
