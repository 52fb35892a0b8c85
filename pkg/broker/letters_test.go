package broker

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func letter(sequence uint64, index int) event.Letter {
	return event.Letter{
		Vendor: "acme", Organization: "o 1",
		Fault:    event.Fault{Reason: event.ReasonInvalid, Pointer: "/data/unitCount", Problem: "is -1", Want: "a number ≥ 0"},
		Original: event.Message{Subject: "usage.v1.acme.o=201.batch", Stream: "EVENTS_acme", Sequence: sequence, Data: []byte("{}")},
		Index:    index, EventID: "e", Source: "//s", Worker: "w", Parked: time.Unix(1, 5).UTC(),
	}
}

// stamped is the letter as it is read.
func stamped(l event.Letter) event.Letter {
	l.Stamp = l.Fingerprint()
	return l
}

func letters(t *testing.T, b *Broker, f LetterFilter) []StoredLetter {
	t.Helper()
	var all []StoredLetter
	err := b.Letters(t.Context(), f, func(l StoredLetter) error { all = append(all, l); return nil })
	if err != nil {
		t.Fatalf("letters: %v", err)
	}
	return all
}

func park(t *testing.T, b *Broker, all ...event.Letter) {
	t.Helper()
	if err := b.Park(t.Context(), all); err != nil {
		t.Fatalf("park: %v", err)
	}
}

func ids(all []StoredLetter) string {
	var s []string
	for _, l := range all {
		s = append(s, l.ID)
	}
	return strings.Join(s, " ")
}

func TestEveryElementOfABatchIsParkedOnce(t *testing.T) {
	b := open(t, 1)
	park(t, b, letter(7, 0), letter(7, 3), letter(8, 0))
	again := letter(7, 3)
	again.Fault.Problem = "found once more"
	park(t, b, again, letter(9, 999), letter(7, 0))
	park(t, b)
	got := letters(t, b, LetterFilter{})
	if want := "EVENTS_acme/7 EVENTS_acme/7-3 EVENTS_acme/8 EVENTS_acme/9-999"; ids(got) != want {
		t.Errorf("parked %s, want %s", ids(got), want)
	}
	l, err := b.Letter(t.Context(), "EVENTS_acme/7-3")
	if err != nil || !reflect.DeepEqual(l.Letter, stamped(letter(7, 3))) || l.Sequence != got[1].Sequence {
		t.Errorf("got %+v, %v; want the letter as it was parked first", l, err)
	}
	for _, id := range []string{"EVENTS_acme/7-4", "EVENTS_acme/70", "EVENTS_other/7", "", "x", "*/7", "EVENTS_acme/>", "EVENTS_acme/*", "/7"} {
		if l, err := b.Letter(t.Context(), id); !errors.Is(err, ErrNoLetter) {
			t.Errorf("letter %q is %+v, %v; want %v", id, l, err, ErrNoLetter)
		}
	}
	for range 2 {
		if err := b.DropLetter(t.Context(), l.Sequence); err != nil {
			t.Errorf("drop: %v", err)
		}
	}
	if got := letters(t, b, LetterFilter{}); len(got) != 3 {
		t.Errorf("after a drop: %s, want 3 letters", ids(got))
	}
}

// The acknowledgement of a dead event may be lost with its server, and the
// event come again when its letter has been replayed or dropped.
func TestALetterThatIsGoneIsNotParkedAnew(t *testing.T) {
	b := open(t, 1)
	park(t, b, letter(7, 3))
	if err := b.DropLetter(t.Context(), letters(t, b, LetterFilter{})[0].Sequence); err != nil {
		t.Fatal(err)
	}
	park(t, b, letter(7, 3), letter(8, 0))
	if got, want := ids(letters(t, b, LetterFilter{})), "EVENTS_acme/8"; got != want {
		t.Errorf("parked %s, want %s", got, want)
	}
}

func TestLettersAreChosenByIntegrationAndReason(t *testing.T) {
	b := open(t, 1)
	other := letter(2, 0)
	other.Vendor = "other"
	old := letter(3, 0)
	old.Fault.Reason = event.ReasonTooOld
	elsewhere := letter(4, 0)
	elsewhere.Organization = "*"
	nowhere := letter(5, 0)
	nowhere.Organization = ""
	park(t, b, letter(1, 0), other, old, elsewhere, nowhere)
	all := letters(t, b, LetterFilter{})
	for _, test := range []struct {
		f    LetterFilter
		want string
	}{
		{LetterFilter{Vendor: "acme"}, "1 3 4 5"},
		{LetterFilter{Vendor: "acme", Organization: "o 1"}, "1 3"},
		{LetterFilter{Organization: "*"}, "4"},
		{LetterFilter{Reason: event.ReasonTooOld}, "3"},
		{LetterFilter{Limit: 2}, "1 2"},
		{LetterFilter{After: all[1].Sequence, Limit: 2}, "3 4"},
		{LetterFilter{Vendor: "nobody"}, ""},
		{LetterFilter{After: all[4].Sequence}, ""},
	} {
		if got := strings.ReplaceAll(ids(letters(t, b, test.f)), "EVENTS_acme/", ""); got != test.want {
			t.Errorf("%+v gives %q, want %q", test.f, got, test.want)
		}
	}
	enough := errors.New("enough")
	if err := b.Letters(t.Context(), LetterFilter{}, func(StoredLetter) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
}

func TestLetterThatCannotBeReadHidesNoOther(t *testing.T) {
	b := open(t, 1)
	for _, h := range []nats.Header{{headerSequence: {"x"}}, {headerProblem: {"%zz"}}, {headerParked: {"noon"}}, {headerHeaders: {"%zz"}}, {headerIndex: {"1000"}}} {
		if err := rawPublish(t, b, fmt.Sprintf("deadletter.v1.v.o.r.S.%d", len(h.Get(headerIndex))+len(fmt.Sprint(h))), h, nil); err != nil {
			t.Fatal(err)
		}
	}
	park(t, b, letter(1, 0))
	if got := letters(t, b, LetterFilter{}); ids(got) != "EVENTS_acme/1" {
		t.Errorf("got %q, want EVENTS_acme/1", ids(got))
	}
}

func TestLetterKeepsEveryByte(t *testing.T) {
	b := open(t, 1)
	text := rapid.OneOf(rapid.String(), rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "bytes")) }),
		rapid.SampledFrom([]string{"", " ", " a ", "\r\nNats-Msg-Id: evil", "a\nb", "\x00", "%41", "a+b", "a;b", "ä"}))
	moment := rapid.Custom(func(t *rapid.T) time.Time { return time.Unix(0, rapid.Int64Min(1).Draw(t, "time")).UTC() })
	n := uint64(0)
	rapid.Check(t, func(r *rapid.T) {
		n++
		l := event.Letter{
			Vendor: text.Draw(r, "vendor"), Organization: text.Draw(r, "organization"),
			Fault: event.Fault{
				Reason:  rapid.SampledFrom(event.Reasons()).Draw(r, "reason"),
				Pointer: text.Draw(r, "pointer"), Problem: text.Draw(r, "problem"), Want: text.Draw(r, "want"),
			},
			Original: event.Message{
				Subject: text.Draw(r, "subject"), Data: rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(r, "data"), Stream: "EVENTS_acme",
				Header:   rapid.MapOfN(text, rapid.SliceOfN(text, 1, 3), 0, 5).Draw(r, "header"),
				Sequence: n, Stored: moment.Draw(r, "stored"), Deliveries: rapid.IntRange(0, 99).Draw(r, "deliveries"),
			},
			Index: rapid.IntRange(0, 999).Draw(r, "index"), EventID: text.Draw(r, "id"), Source: text.Draw(r, "source"), Key: text.Draw(r, "key"),
			Attempts: rapid.IntRange(0, 99).Draw(r, "attempts"), Answer: text.Draw(r, "answer"), Worker: text.Draw(r, "worker"), Parked: moment.Draw(r, "parked"),
		}
		if len(l.Original.Header) == 0 {
			l.Original.Header = nil
		}
		if err := b.Park(t.Context(), []event.Letter{l}); err != nil {
			r.Fatalf("park: %v", err)
		}
		got, err := b.Letter(t.Context(), l.Place())
		if want := stamped(l); err != nil || !reflect.DeepEqual(got.Letter, want) {
			r.Fatalf("got %+v, %v\nwant %+v", got.Letter, err, want)
		}
	})
}

func TestALetterKeepsTheFingerprintThatItWasParkedWith(t *testing.T) {
	b := open(t, 1)
	long := letter(1, 0)
	long.Fault.Problem = strings.Repeat("wrong ", maxText) + "in the end" // cut when it is parked
	earlier := letter(2, 0)
	earlier.Stamp = "0123abcd" // of a version that saw another problem in it
	park(t, b, long, earlier)
	unstamped := letter(3, 0)
	for i, stamp := range []string{"", "nonsense", "0123ABCD", "0123abcd0"} { // of a version without, or of nobody
		m := letterMessage(&unstamped, 1<<20)
		m.Header.Del(jetstream.MsgIDHeader) // one place, four letters: Park would store the first alone
		m.Header.Set(headerFingerprint, stamp)
		if stamp == "" {
			m.Header.Del(headerFingerprint)
		}
		if err := rawPublish(t, b, fmt.Sprintf("deadletter.v1.v.o.r.S.%d", i+3), m.Header, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{long.Fingerprint(), "0123abcd", unstamped.Fingerprint(), unstamped.Fingerprint(), unstamped.Fingerprint(), unstamped.Fingerprint()}
	var got []string
	for _, l := range letters(t, b, LetterFilter{}) {
		got = append(got, l.Fingerprint())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the fingerprints are %q, want %q", got, want)
	}
}

func TestOriginalsIdIsNoHeaderOfItsLetter(t *testing.T) {
	b := open(t, 1)
	for i := range uint64(2) { // with the same Nats-Msg-Id the second would be swallowed
		l := letter(i+1, 0)
		l.Original.Header = map[string][]string{"Nats-Msg-Id": {"//s/e"}, "Nats-Rollup": {"all"}}
		park(t, b, l)
	}
	if got := letters(t, b, LetterFilter{}); len(got) != 2 || got[1].Original.Header["Nats-Msg-Id"][0] != "//s/e" {
		t.Errorf("got %+v, want 2 letters, each with the id among its original headers", got)
	}
}

func TestLargestEventFitsIntoALetter(t *testing.T) {
	b := open(t, 1)
	huge := strings.Repeat("é", 100_000)
	l := letter(1, 999)
	l.Vendor, l.Organization = huge, huge
	l.Fault = event.Fault{Reason: event.ReasonInvalid, Pointer: huge, Problem: huge, Want: huge}
	l.EventID, l.Source, l.Key, l.Answer, l.Worker = huge, huge, huge, huge, huge
	l.Original.Subject = strings.Repeat("é", 2000)
	many := map[string][]string{"ce-id": {"1"}, "Content-Type": {"application/json"}, "Big": {huge}, "Nats-Msg-Id": {"x"}}
	for i := range 3000 {
		many[fmt.Sprint("h", i)] = []string{""}
	}
	l.Original.Header = many
	l.Original.Data = make([]byte, maxEvent-1000)
	park(t, b, l)
	got, err := b.Letter(t.Context(), l.Place())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Original.Data) != len(l.Original.Data) || got.Original.Subject != l.Original.Subject {
		t.Errorf("got %d bytes of %q, want the whole event", len(got.Original.Data), got.Original.Subject)
	}
	if h := got.Original.Header; h["ce-id"] == nil || h["Content-Type"] == nil || h["Big"] != nil || len(h) > maxHeaders {
		t.Errorf("kept %d headers, want the CloudEvents attributes and no huge one", len(h))
	}
	if p := got.Fault.Problem; len(p) != maxText || !strings.HasPrefix(huge, p) {
		t.Errorf("kept %d bytes of the problem, want its first %d", len(p), maxText)
	}
	if got := cut("aé", 2); got != "a" {
		t.Errorf("cut inside a character gives %q, want %q", got, "a")
	}
	l.Original.Data = make([]byte, 2<<20)
	l.Index = 0
	wantError(t, b.Park(t.Context(), []event.Letter{l, l}), "park EVENTS_acme/1: ", "payload", "and 1 more")
}
