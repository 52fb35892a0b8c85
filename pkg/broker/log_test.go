package broker

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestLogIsReadAgainInItsOrder(t *testing.T) {
	b := open(t, 8)
	for i, organization := range []string{"a", "b", "c", "a", "b"} {
		if err := b.Append(t.Context(), "usage.v1.acme."+organization+".count.x.y", nil, fmt.Append(nil, i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Append(t.Context(), "catalog.v1.acme.a.account.x", nil, []byte("5"), ""); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		subjects []string
		want     string
	}{
		{[]string{"usage.v1.acme.>", "catalog.v1.acme.>"}, "012345"},
		{[]string{"usage.v1.acme.a.count.*.y"}, "03"},
		{[]string{"usage.v1.acme.a.>", "usage.v1.acme.b.>", "usage.v1.acme.a.>"}, "0134"},
		{[]string{"usage.v1.acme.nobody.>"}, ""},
		{nil, ""},
	} {
		got := ""
		err := b.ReadLog(t.Context(), "acme", test.subjects, func(m event.Message) error {
			got += string(m.Data)
			if s, err := event.ParseSubject(m.Subject); err != nil || s.Vendor != "acme" || m.Handle != "" || m.Sequence == 0 || m.Stream != "EVENTS_acme" {
				t.Errorf("got %+v, %v; want a public subject and the place in the log", m, err)
			}
			return nil
		})
		if err != nil || got != test.want {
			t.Errorf("%v gives %q, %v; want %q", test.subjects, got, err, test.want)
		}
	}
	enough := errors.New("enough")
	if err := b.ReadLog(t.Context(), "acme", []string{"usage.v1.acme.>"}, func(event.Message) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
	wantError(t, b.ReadLog(t.Context(), "nobody", []string{"usage.v1.nobody.>"}, nil), "EVENTS_nobody", "usagebridge init")
}

func TestReadingEndsThoughItsEndIsDeleted(t *testing.T) {
	b := open(t, 1)
	const n = readMessages + 200 // more than a reader fetches ahead
	var all []event.Letter
	for i := range uint64(n) {
		all = append(all, letter(i+1, 0))
	}
	park(t, b, all...)
	got := 0
	err := b.Letters(within(t, 20*time.Second), LetterFilter{}, func(StoredLetter) error {
		if got++; got == 1 {
			return b.DropLetter(t.Context(), n)
		}
		return nil
	})
	if err != nil || got != n-1 {
		t.Errorf("read %d letters, %v; want %d: the last one was deleted meanwhile", got, err, n-1)
	}
}

func TestReaderNoticesWhatWasLostOnTheWay(t *testing.T) {
	b := open(t, 1)
	park(t, b, letter(1, 0), letter(2, 0))
	r, err := b.openReader(t.Context(), reading{stream: StreamDeadLetters, filters: []string{"deadletter.>"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if _, _, err := r.next(0); err != nil {
		t.Fatal(err)
	}
	r.received = 0 // as if the first had not come
	if _, _, err := r.next(0); !errors.Is(err, errGap) || !interrupted(err) {
		t.Errorf("got %v, want %v, after which reading starts again", err, errGap)
	}
}

func TestReadingGoesOnAfterARestartOfTheServer(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	e := startServer(t, dir, address)
	b := connect(t, e.ClientURL())
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 1})
	const n = 3000 // more than a reader fetches ahead
	publishCounts(t, b, "o", n)
	var sequences []uint64
	err := b.ReadLog(within(t, 60*time.Second), "acme", []string{"usage.v1.acme.>"}, func(m event.Message) error {
		if sequences = append(sequences, m.Sequence); len(sequences) == 10 {
			e.Close()
			startServer(t, dir, address)
			reconnected(t, b)
		}
		return nil
	})
	if err != nil || len(sequences) != n {
		t.Fatalf("read %d messages, %v; want %d", len(sequences), err, n)
	}
	for i, s := range sequences {
		if s != uint64(i+1) {
			t.Fatalf("message %d is %d: want no gap and no repeat", i+1, s)
		}
	}
}

func TestCallsAreReadAsAppended(t *testing.T) {
	b := open(t, 1)
	at := time.Now().UTC().Truncate(time.Millisecond)
	call := func(organization, operation, account string, attempt int) ledger.Call {
		return ledger.Call{Organization: organization, Operation: operation, Account: account, Service: "s", Units: 42, Attempt: attempt, At: at, Status: 200, Verdict: "delivered", Worker: "w"}
	}
	first := []ledger.Call{call("o 1", "count", "a", 1), call("o 1", "account", "a", 2), call("o 2", "count", "b", 3)}
	var many []ledger.Call
	for i := range 1200 {
		many = append(many, call("o 3", "count", fmt.Sprint(i), 1))
	}
	for _, calls := range [][]ledger.Call{first, nil, {call("o 1", "count", "b", 4)}, many} {
		if err := b.AppendCalls(t.Context(), "acme", calls); err != nil {
			t.Fatal(err)
		}
	}
	read := func(organization string, f CallFilter) []ledger.Call {
		var got []ledger.Call
		if err := b.Calls(t.Context(), "acme", organization, f, func(c ledger.Call) error { got = append(got, c); return nil }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := read("o 3", CallFilter{}); !reflect.DeepEqual(got, many) {
		t.Errorf("read %d calls, want the %d that were appended, in their order", len(got), len(many))
	}
	for _, test := range []struct {
		organization string
		f            CallFilter
		want         []int // attempts
	}{
		{"o 1", CallFilter{}, []int{1, 2, 4}},
		{"o 1", CallFilter{Operation: "count"}, []int{1, 4}},
		{"o 1", CallFilter{Account: "b"}, []int{4}},
		{"o 1", CallFilter{Service: "other"}, nil},
		{"o 1", CallFilter{Since: at.Add(-time.Minute)}, []int{1, 2, 4}},
		{"o 1", CallFilter{Since: at.Add(time.Hour)}, nil},
		{"", CallFilter{Account: "b"}, []int{3, 4}},
		{"nobody", CallFilter{}, nil},
	} {
		var got []int
		for _, c := range read(test.organization, test.f) {
			if c.Organization != "o 3" {
				got = append(got, c.Attempt)
			}
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q %+v gives attempts %v, want %v", test.organization, test.f, got, test.want)
		}
	}
	enough := errors.New("enough")
	if err := b.Calls(t.Context(), "acme", "", CallFilter{}, func(ledger.Call) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
}

func TestAppendedTwiceWithOneIdIsThereOnce(t *testing.T) {
	b := open(t, 1)
	for range 2 {
		if err := b.Append(t.Context(), "status.v1.acme.o", map[string][]string{"ce-id": {"1"}}, []byte("x"), "id"); err != nil {
			t.Fatal(err)
		}
	}
	s, err := b.js.Stream(t.Context(), StreamStatus)
	if err != nil || s.CachedInfo().State.Msgs != 1 {
		t.Errorf("%d messages, %v; want 1", s.CachedInfo().State.Msgs, err)
	}
	wantError(t, b.Append(within(t, 5*time.Second), "nowhere.v1", nil, nil, ""), "append to nowhere.v1")
}
