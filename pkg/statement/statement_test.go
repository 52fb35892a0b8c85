package statement_test

import (
	"bytes"
	"encoding/csv"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/statement"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, time.November, 20, 12, 0, 0, 0, time.UTC)

// sample has a row of every sort, in no order, with ids that are hostile to
// spreadsheets and to pages.
func sample() statement.Statement {
	return statement.Statement{
		Vendor: "acme", Organization: "msp-1", AsOf: noon, MadeAt: noon.Add(1500 * time.Millisecond), MadeBy: "ada", MadeWith: "usagebridge v1.0.0",
		Integration: statement.Integration{Status: "connected", Since: noon.Add(-48 * time.Hour), Gates: []string{"paused"}},
		LogSince:    noon.Add(-time.Hour),
		Notes:       []string{"Rows that are not complete are not certain: the log of events goes back to 2026-11-20T11:00:00Z."},
		Rows: []statement.Row{
			{
				Account: "contoso", Service: "backup", Units: "42.5", EventID: "e-7", Source: "//billing", EventTime: noon.Add(-50 * time.Hour),
				Place: "EVENTS_acme/7", ArrivedAt: noon.Add(-50*time.Hour + time.Second), Accepted: "42.5", AcceptedAt: noon.Add(-49 * time.Hour), RequestID: "req-7",
				State: "synced", Complete: true,
			},
			{
				Account: "contoso", Service: "antivirus", Units: "0", EventID: "s-9", Source: "//billing", EventTime: noon.Add(-90 * time.Minute),
				Place: "EVENTS_acme/9-3", ArrivedAt: noon.Add(-89 * time.Minute), Accepted: "13", AcceptedAt: noon.Add(-26 * time.Hour), RequestID: "req-2",
				State: "held", Reason: "approval", Notes: []string{"zeroed by snapshot daily; late", "waits for approval"}, Complete: true,
			},
			{
				Account: "=HYPERLINK(\"http://x\")", Service: "@backup", Units: "1000000000000", EventID: "<script>alert(1)</script>", Source: "+1",
				EventTime: noon.Add(3 * time.Second), Place: "EVENTS_acme/11", ArrivedAt: noon, State: "dirty", Notes: []string{"-1"}, Complete: true,
			},
			{Account: "b,\"c\"\nd", Service: "backup", State: "not known", Accepted: "0.000001", AcceptedAt: noon.Add(-30 * time.Second)},
		},
	}
}

func made(t *testing.T, s statement.Statement) *statement.Statement {
	t.Helper()
	made, err := statement.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestEveryFormatIsWrittenAsItAlwaysWas(t *testing.T) {
	s := made(t, sample())
	for name, write := range map[string]func() ([]byte, error){"csv": s.CSV, "json": s.JSON, "html": s.HTML} {
		got, err := write()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "statement."+name)
		if *update {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s\n(go test -update writes it anew)", name, got, want)
		}
	}
}

func TestTheSameStatementIsTheSameBytesWhateverTheOrderOfItsRows(t *testing.T) {
	forwards, backwards := sample(), sample()
	slices.Reverse(backwards.Rows)
	a, b := made(t, forwards), made(t, backwards)
	for name, write := range map[string]func(*statement.Statement) ([]byte, error){
		"csv": (*statement.Statement).CSV, "json": (*statement.Statement).JSON, "html": (*statement.Statement).HTML,
	} {
		x, errX := write(a)
		y, errY := write(b)
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			t.Errorf("%s: got two documents (%v, %v), want one\n%s\n%s", name, errX, errY, x, y)
		}
	}
	if got := forwards.Rows[0].Service; got != "backup" {
		t.Errorf("got %q first in the rows given, want them left as they were", got)
	}
}

func TestSumsAreExactAndDifferencesAreCounted(t *testing.T) {
	huge := "999999999999.999999"
	var rows []statement.Row
	for account := range strings.SplitSeq("abcdefghijkl", "") { // twelve of them are more than 64 bits of millionths
		rows = append(rows, statement.Row{Account: account, Service: "s", Units: huge, Accepted: "0.1", Complete: true})
	}
	rows = append(rows,
		statement.Row{Account: "a", Service: "none", Units: "0"},
		statement.Row{Account: "a", Service: "lost", Accepted: "3"},
		statement.Row{Account: "a", Service: "same", Units: "10", Accepted: "10", Complete: true})
	s := made(t, statement.Statement{Rows: rows})
	want := []statement.Total{
		{Service: "lost", Keys: 1, Units: "0", Accepted: "3"},
		{Service: "none", Keys: 1, Units: "0", Accepted: "0", Differing: 1},
		{Service: "s", Keys: 12, Units: "11999999999999.999988", Accepted: "1.2", Differing: 12},
		{Service: "same", Keys: 1, Units: "10", Accepted: "10"},
	}
	if !slices.Equal(s.Services, want) {
		t.Errorf("got %+v\nwant %+v", s.Services, want)
	}
	if s.Keys != 15 || s.Differing != 13 || s.Incomplete != 2 {
		t.Errorf("got %d keys, %d differing, %d incomplete; want 15, 13, 2", s.Keys, s.Differing, s.Incomplete)
	}
}

func TestAKeyThatComesTwiceAndACountThatIsNoneAreRefused(t *testing.T) {
	row := statement.Row{Account: "a", Service: "s", Units: "1"}
	_, err := statement.New(statement.Statement{Rows: []statement.Row{row, row}})
	if err == nil || !strings.Contains(err.Error(), `account "a", service "s" comes twice`) {
		t.Errorf("got %v, want one that names the key", err)
	}
	for _, units := range []string{"1e3", "1/3", " 1", "01", "0x10", "1.0000000", ".5", "1.", "+1", "NaN"} {
		if _, err := statement.New(statement.Statement{Rows: []statement.Row{{Units: units}}}); err == nil {
			t.Errorf("units %q: got no error, want one", units)
		}
		if _, err := statement.New(statement.Statement{Rows: []statement.Row{{Accepted: units}}}); err == nil {
			t.Errorf("accepted %q: got no error, want one", units)
		}
	}
}

func TestNoTextOfOthersIsAFormulaInASpreadsheetAndEachCanBeReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.OneOf(rapid.String(), rapid.StringMatching(`[=+\-@\t'].{0,5}`))
		row := statement.Row{
			Account: texts.Draw(t, "account"), Service: texts.Draw(t, "service"), EventID: texts.Draw(t, "id"), Source: texts.Draw(t, "source"),
			RequestID: texts.Draw(t, "request"), Notes: []string{texts.Draw(t, "note")},
		}
		s, err := statement.New(statement.Statement{Rows: []statement.Row{row}})
		if err != nil {
			t.Fatal(err)
		}
		document, err := s.CSV()
		if err != nil {
			t.Fatal(err)
		}
		records, err := csv.NewReader(bytes.NewReader(document)).ReadAll()
		if err != nil || len(records) != 2 {
			t.Fatalf("got %q (%v), want two records", records, err)
		}
		for i, text := range map[int]string{0: row.Account, 1: row.Service, 3: row.EventID, 4: row.Source, 10: row.RequestID, 17: row.Notes[0]} {
			got := records[1][i]
			if got != "" && strings.ContainsAny(got[:1], "=+-@\t\r") {
				t.Fatalf("cell %d is %q: a spreadsheet may run it", i, got)
			}
			// The reader takes CRLF for LF, as RFC 4180 lets it.
			if back, want := strings.TrimPrefix(got, "'"), strings.ReplaceAll(text, "\r\n", "\n"); back != want && "'"+back != want {
				t.Fatalf("cell %d is %q, which reads back as %q, want %q", i, got, back, want)
			}
		}
	})
}

func TestAPageRunsNothingAndNeedsNothingElse(t *testing.T) {
	document, err := made(t, sample()).HTML()
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`(?i)<script|<link|<img|src=|href=|url\(|@import`).FindString(string(document)); found != "" {
		t.Errorf("got %q in the page, want none of it", found)
	}
	for _, want := range []string{"&lt;script&gt;", `<tr class="differs">`, "zeroed by snapshot daily; late", "closed: paused", "not certain", "2 differ"} {
		if !strings.Contains(string(document), want) {
			t.Errorf("the page does not contain %q", want)
		}
	}
}

func TestAStatementOfNothingCanBeWritten(t *testing.T) {
	s := made(t, statement.Statement{Vendor: "v", Organization: "o", AsOf: noon})
	for name, write := range map[string]func() ([]byte, error){"csv": s.CSV, "json": s.JSON, "html": s.HTML} {
		if document, err := write(); err != nil || len(document) == 0 {
			t.Errorf("%s: got %q, %v", name, document, err)
		}
	}
}

func TestAJSONStatementIsReadAsItWasWritten(t *testing.T) {
	s := made(t, sample())
	document, err := s.JSON()
	if err != nil {
		t.Fatal(err)
	}
	read, err := statement.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	again, err := read.JSON()
	if err != nil || !bytes.Equal(again, document) || !reflect.DeepEqual(read, s) {
		t.Errorf("got (%v)\n%s\nwant\n%s", err, again, document)
	}
}

func TestWhatIsNoStatementIsRefusedWithWhatWouldBe(t *testing.T) {
	s := made(t, sample())
	good, _ := s.JSON()
	table, _ := s.CSV()
	for _, bad := range []struct{ name, document, want string }{
		{"a CSV", string(table), "it is no JSON"},
		{"nothing", "", "it is no JSON"},
		{"half of one", string(good[:len(good)/2]), "it is no JSON"},
		{"two of them", string(good) + string(good), "something stands behind"},
		{"other JSON", `{"format":"x"}`, `of the format "x": want "usagebridge statement v1"`},
		{"an array", `[]`, "it is no JSON"},
		{"one of nobody", `{"format":"usagebridge statement v1","rows":[]}`, "does not say of which integration"},
		{"other units", strings.Replace(string(good), `"units": "42.5"`, `"units": "43.5"`, 1), "its sums are not those of its rows"},
		{"a row less", strings.Replace(string(good), `"keys": 4`, `"keys": 5`, 1), "its sums are not those of its rows"},
	} {
		if _, err := statement.Parse([]byte(bad.document)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want an error with %q", bad.name, err, bad.want)
		}
	}
}

func TestReadingAnythingNeverPanics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		_, _ = statement.Parse(data)
		_, _ = statement.ParseSignature(data)
		_, _ = statement.ParsePublicKey(data)
	})
}
