package publisher_test

import (
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

var defaults = publisher.Defaults{Vendor: "acme", Organization: "msp-0042", Source: "//billing.acme.example", Time: noon}

type tableReader func(io.Reader, publisher.Defaults) iter.Seq[publisher.Record]

func TestRowsBecomeEvents(t *testing.T) {
	for _, test := range []struct {
		name string
		read tableReader
		text string
		want []event.Data
	}{
		{
			"counts in any column order and case, unknown columns, CRLF, byte order mark", publisher.ReadCounts,
			"\ufeffnote,UNITCOUNT,Service,account\r\nx,42.5,backup,a-17\r\n,0,\"a,\"\"b\"\"\",a 18\r\n",
			[]event.Data{
				event.Count{AccountID: "a-17", ServiceID: "backup", UnitCount: 42_500_000},
				event.Count{AccountID: "a 18", ServiceID: `a,"b"`},
			},
		},
		{
			"ids with blanks around them are kept byte for byte", publisher.ReadServices,
			"id,guid,name\nAAD_PREMIUM_USGOV_GCCHIGH\u00a0,de59,\" Entra \"\n x ,1,X",
			[]event.Data{
				event.Service{ServiceID: "AAD_PREMIUM_USGOV_GCCHIGH\u00a0", Name: " Entra "},
				event.Service{ServiceID: " x ", Name: "X"},
			},
		},
		{
			"accounts with a name over two lines", publisher.ReadAccounts,
			"id,name,externalId,description\n1,\"Two\nlines\",e,d\n\n2,Two,,\n",
			[]event.Data{
				event.Account{AccountID: "1", Name: "Two\nlines", ExternalID: "e", Description: "d"},
				event.Account{AccountID: "2", Name: "Two"},
			},
		},
		{"a header alone", publisher.ReadServices, "id,name\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []event.Data
			for r := range test.read(iotest.OneByteReader(strings.NewReader(test.text)), defaults) {
				if r.Err != nil {
					t.Fatalf("line %d: %v", r.Number, r.Err)
				}
				if r.Event.ID == "" || !r.Event.Time.Equal(noon) || r.Event.Source != defaults.Source || r.Event.Organization != "msp-0042" {
					t.Errorf("line %d: got %+v, want the defaults in it", r.Number, r.Event)
				}
				got = append(got, r.Event.Data)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestARowMayHaveItsOwnTime(t *testing.T) {
	text := "account,service,unitCount,time\na,s,1,2026-11-01T02:00:00+02:00\na,s,2,\n"
	var got []time.Time
	for r := range publisher.ReadCounts(strings.NewReader(text), defaults) {
		got = append(got, r.Event.Time)
	}
	if want := []time.Time{time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), noon}; !slices.Equal(got, want) {
		t.Errorf("times: got %v, want %v", got, want)
	}
}

// A refused line names its place and what would be right, and the lines behind
// it are read.
func TestARefusedRowNamesItsPlaceAndReadingGoesOn(t *testing.T) {
	for name, test := range map[string]struct {
		row  string
		want string
	}{
		"a comma for a point": {`a,s,"4,5",`, `line 3, column unitCount: "4,5" is not a JSON number (want a decimal from 0 to 1e12 with at most 6 decimals, such as 42.5)`},
		"a negative count":    {"a,s,-1,", `line 3, column unitCount: "-1" is negative (want`},
		"no account":          {",s,1,", "line 3, column account: is empty"},
		"a missing field":     {"a,s,1", "line 3: has 3 fields (want 4, as the header row has)"},
		"a date":              {"a,s,1,20.11.2026", `line 3, column time: "20.11.2026" is no RFC 3339 time (want such as 2026-11-20T12:00:00Z)`},
		"bytes of Latin-1":    {"M\xfcller,s,1,", `line 3, column account: "M\xfcller" is not valid UTF-8 (want a file saved as UTF-8)`},
		"a stray quote":       {`a"b,s,1,`, "line 3: a quote is out of place at byte 2 (want quotes around"},
		"an id too long":      {strings.Repeat("x", 257) + ",s,1,", "line 3: is no valid event: invalid at /data/accountId: accountId is 257 bytes long"},
		"a long wrong number": {"a,s," + strings.Repeat("ä", 99) + ",", "ää…\" is not a JSON number"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "account,service,unitCount,time\nfirst,s,1,\n" + test.row + "\nlast,s,1,\n"
			got := slices.Collect(publisher.ReadCounts(strings.NewReader(text), defaults))
			var refused *publisher.LineError
			if len(got) != 3 || got[0].Err != nil || !errors.As(got[1].Err, &refused) || got[2].Err != nil {
				t.Fatalf("got %+v, want the middle one of three refused", got)
			}
			if got[1].Number != 3 || refused.Line != 3 || !strings.Contains(refused.Error(), test.want) {
				t.Errorf("got %v, want %s", refused, test.want)
			}
		})
	}
}

func TestWhatMakesAWholeFileUnreadableEndsTheReading(t *testing.T) {
	open := "id,name\nok,Ok\n1,\"never closed\n" + strings.Repeat("2,Two\n", 10)
	for name, test := range map[string]struct {
		source   io.Reader
		defaults publisher.Defaults
		want     string
	}{
		"an empty file":         {strings.NewReader(""), defaults, "want a header row with the columns id, name and optionally description"},
		"a missing column":      {strings.NewReader("guid,Name\n1,2\n"), defaults, `no column id: found ["guid" "Name"], want id, name and optionally description`},
		"semicolons":            {strings.NewReader("id;name\n1;2\n"), defaults, "separated by commas"},
		"a column twice":        {strings.NewReader("id,name,ID\n"), defaults, "column id occurs twice"},
		"no source":             {strings.NewReader("id,name\n"), publisher.Defaults{Vendor: "acme", Organization: "o"}, "source is empty"},
		"a quote never closed":  {strings.NewReader(open), defaults, "a quote opened on line 3 is not closed properly by line 13, so the rest was not read"},
		"an endless record":     {io.MultiReader(strings.NewReader(open), io.LimitReader(endless{}, 8*publisher.MaxLine)), defaults, "longer than 1048576 bytes"},
		"a disk that gives out": {io.MultiReader(strings.NewReader("id,name\nok,Ok\n1,On"), iotest.ErrReader(errors.New("input/output error"))), defaults, "input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			got := slices.Collect(publisher.ReadServices(test.source, test.defaults))
			if len(got) == 0 {
				t.Fatal("got no record, want one with the error")
			}
			last := got[len(got)-1]
			var refused *publisher.LineError
			if last.Err == nil || errors.As(last.Err, &refused) || !strings.Contains(last.Err.Error(), test.want) {
				t.Errorf("got %v, want an error of the file: %s", last.Err, test.want)
			}
			for _, r := range got[:len(got)-1] {
				if r.Err != nil || r.Event.Data.(event.Service).ServiceID != "ok" {
					t.Errorf("before it: got %+v, want the good row only", r)
				}
			}
		})
	}
}

// endless never ends a line.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

const envelope = `{"specversion":"1.0","id":"1","source":"//billing.acme.example","type":"usage.count.v1","time":"2026-11-20T12:00:00Z",` +
	`"data":{"vendorId":"acme","organizationId":"o/1","accountId":"a","serviceId":"s","unitCount":42}}`

func TestLinesBecomeEventsAndRefusedOnesAreNamed(t *testing.T) {
	text := "\ufeff" + envelope + "\r\n\n \n{\n[" + envelope + "]\n" +
		strings.Replace(envelope, "42", "-42", 1) + "\n" + strings.Repeat(" ", 3*publisher.MaxLine/2) + "\n" +
		strings.Replace(envelope, `"id":"1"`, `"id":"`+"\xff"+`"`, 1) + "\n" + envelope
	wants := map[int]string{
		1: "", 4: "line 4: is no valid event: malformed", 5: "line 5: is a JSON array (want one event on each line)",
		6: "line 6: is no valid event: invalid at /data/unitCount", 7: "line 7: is longer than 1048576 bytes", 8: "not UTF-8", 9: "",
	}
	for r := range publisher.ReadEvents(strings.NewReader(text)) {
		want, expected := wants[r.Number]
		delete(wants, r.Number)
		switch {
		case !expected:
			t.Errorf("line %d: got %+v, want nothing of a blank line", r.Number, r)
		case want == "" && (r.Err != nil || r.Event.Organization != "o/1" || r.Event.Data.(event.Count).UnitCount != 42*event.UnitsScale):
			t.Errorf("line %d: got %+v (%v), want the event", r.Number, r.Event, r.Err)
		case want != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), want)):
			t.Errorf("line %d: got %v, want %s", r.Number, r.Err, want)
		}
	}
	if len(wants) != 0 {
		t.Errorf("lines not read: %v", wants)
	}
}

func TestALineOfTheLargestSizeIsRead(t *testing.T) {
	line := envelope + strings.Repeat(" ", publisher.MaxLine-len(envelope)) + "\r\n"
	got := slices.Collect(publisher.ReadEvents(strings.NewReader(line + line)))
	if len(got) != 2 || got[0].Err != nil || got[1].Err != nil {
		t.Errorf("got %+v, want two events", got)
	}
}

func TestABrokenSourceEndsTheEvents(t *testing.T) {
	source := io.MultiReader(strings.NewReader(envelope+"\n"+envelope[:50]), iotest.ErrReader(errors.New("connection reset")))
	got := slices.Collect(publisher.ReadEvents(source))
	if len(got) != 2 || got[0].Err != nil || got[1].Err == nil || !strings.Contains(got[1].Err.Error(), "line 2: connection reset") {
		t.Errorf("got %+v, want one event and the error at line 2", got)
	}
}

func FuzzTables(f *testing.F) {
	f.Add("account,service,unitCount,time\na,s,1,\n\"a\n\",s,2,2026-11-20T12:00:00Z\n,,,\n")
	f.Add("id,name,externalId,description\n1,\"x\"\"\n\xff,\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []tableReader{publisher.ReadCounts, publisher.ReadAccounts, publisher.ReadServices} {
			checkRecords(t, text, read(strings.NewReader(text), defaults))
		}
	})
}

func FuzzReadEvents(f *testing.F) {
	f.Add(envelope + "\n\n[1]\n{}\r\n" + envelope)
	f.Fuzz(func(t *testing.T, text string) { checkRecords(t, text, publisher.ReadEvents(strings.NewReader(text))) })
}

// checkRecords holds what is true of every file.
func checkRecords(t *testing.T, text string, records iter.Seq[publisher.Record]) {
	before := 0
	for r := range records {
		if r.Number <= before || r.Number > strings.Count(text, "\n")+1 {
			t.Fatalf("line %d comes behind line %d, of %d line ends", r.Number, before, strings.Count(text, "\n"))
		}
		before = r.Number
		if (r.Event == nil) == (r.Err == nil) {
			t.Fatalf("line %d: got %+v, want an event or an error", r.Number, r)
		}
		if r.Err != nil {
			if said := r.Err.Error(); !utf8.ValidString(said) || strings.Contains(said, "\n") {
				t.Fatalf("line %d: error is not one line of UTF-8: %q", r.Number, said)
			}
			continue
		}
		if err := r.Event.Check(); err != nil {
			t.Fatalf("line %d: yielded an invalid event: %v", r.Number, err)
		}
	}
}

func BenchmarkReadCounts(b *testing.B) {
	line := "0b2f9c52-6f0e-4c55-9a52-3c1f5f3e7f10,AAD_PREMIUM_P2,42.5\n"
	text := "account,service,unitCount\n" + strings.Repeat(line, 10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		for r := range publisher.ReadCounts(strings.NewReader(text), defaults) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}

func TestRowsOfABackfillNameIt(t *testing.T) {
	d := defaults
	d.Backfill = "2026-10"
	for r := range publisher.ReadCounts(strings.NewReader("account,service,unitCount\na,s,1\n"), d) {
		if r.Err != nil || r.Event.Backfill != "2026-10" {
			t.Errorf("got %+v, %v, want backfill 2026-10", r.Event, r.Err)
		}
	}
	d.Backfill = "\n"
	got := slices.Collect(publisher.ReadCounts(strings.NewReader("account,service,unitCount\na,s,1\n"), d))
	if len(got) != 1 || got[0].Err == nil || !strings.Contains(got[0].Err.Error(), "defaults: backfill is") {
		t.Errorf("got %+v, want the file refused for its backfill", got)
	}
}
