package event_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// pointers lists where the problems of a Check are.
func pointers(t *testing.T, err error) []string {
	t.Helper()
	var all []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var fault *event.Fault
		if !errors.As(e, &fault) {
			t.Fatalf("got a %T: %v, want faults only", e, e)
		}
		all = append(all, fault.Pointer)
	}
	return all
}

func TestCheckReportsAllProblemsAtOnce(t *testing.T) {
	e := &event.Event{Type: event.TypeAccount, Source: "a\x00b", Data: event.Account{AccountID: strings.Repeat("a", 257), Description: strings.Repeat("ü", 4097)}}
	want := []string{"/id", "/source", "/time", "/data/vendorId", "/data/organizationId", "/data/accountId", "/data/name", "/data/description"}
	if got := pointers(t, e.Check()); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCheckRefusesWhatOnlyAProgramCanMake(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*event.Event)
		pointer string
	}{
		{"no data", func(e *event.Event) { e.Data = nil }, "/data"},
		{"a pointer to data", func(e *event.Event) { e.Data = (*event.Count)(nil) }, "/data"},
		{"no type", func(e *event.Event) { e.Type = "" }, "/type"},
		{"another type than that of the data", func(e *event.Event) { e.Type = event.TypeAccount }, "/type"},
		{"a replay of nothing", func(e *event.Event) { e.ReplayOf = "0" }, "/replayof"},
		{"a backfill with a blank", func(e *event.Event) { e.Backfill = "october 2026" }, "/backfill"},
		{"a year before 1970 in UTC", func(e *event.Event) { e.Time = time.Date(1970, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600)) }, "/time"},
		{"a year of five digits", func(e *event.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "/time"},
		{"negative units", func(e *event.Event) { e.Data = event.Count{AccountID: "a", ServiceID: "s", UnitCount: -1} }, "/data/unitCount"},
		{"too many units", func(e *event.Event) {
			e.Data = event.Count{AccountID: "a", ServiceID: "s", UnitCount: event.MaxUnits + 1}
		}, "/data/unitCount"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := countEvent()
			test.change(e)
			err := e.Check()
			if err == nil {
				t.Fatal("got no error")
			}
			if got := pointers(t, err); len(got) != 1 || got[0] != test.pointer {
				t.Errorf("got %v, want one problem at %s", err, test.pointer)
			}
		})
	}
}

func TestAnUnknownTypeIsItsOnlyProblem(t *testing.T) {
	e := &event.Event{Type: "usage.count.v9"}
	var fault *event.Fault
	if err := e.Check(); !errors.As(err, &fault) || fault.Reason != event.ReasonUnknownType || !strings.Contains(fault.Want, event.TypeCount) {
		t.Errorf("got %v, want unknown_type with the known ones", err)
	}
}

func TestPartsOfASnapshotMakeAWhole(t *testing.T) {
	for _, test := range []struct {
		name     string
		snapshot event.Snapshot
		want     []string
	}{
		{"no parts", event.Snapshot{}, nil},
		{"an id alone", event.Snapshot{SnapshotID: "s"}, nil},
		{"the last part", event.Snapshot{Part: 1000, Parts: 1000, SnapshotID: "s"}, nil},
		{"a part of nothing", event.Snapshot{Part: 1, SnapshotID: "s"}, []string{"/data/parts"}},
		{"no part of something", event.Snapshot{Parts: 2, SnapshotID: "s"}, []string{"/data/part"}},
		{"a part beyond the last", event.Snapshot{Part: 3, Parts: 2, SnapshotID: "s"}, []string{"/data/part"}},
		{"a part before the first", event.Snapshot{Part: -1, Parts: 2, SnapshotID: "s"}, []string{"/data/part"}},
		{"too many parts", event.Snapshot{Part: 1, Parts: 1001, SnapshotID: "s"}, []string{"/data/parts"}},
		{"nothing in common", event.Snapshot{Part: 1, Parts: 2}, []string{"/data/snapshotId"}},
		{"too many counts", event.Snapshot{Counts: make([]event.Count, event.MaxCounts+1)}, []string{"/data/counts"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := countEvent()
			e.Type, e.Data = event.TypeSnapshot, test.snapshot
			err := e.Check()
			if test.want == nil && err == nil {
				return
			}
			if err == nil || !slices.Equal(pointers(t, err), test.want) {
				t.Errorf("got %v, want problems at %v", err, test.want)
			}
		})
	}
}

func TestABackfillIsNamedByWhatACommandLineAndAHeaderCanCarry(t *testing.T) {
	for id, want := range map[string]string{
		"2026-10":                "",
		"!~":                     "",
		strings.Repeat("b", 128): "",
		"":                       "backfill is empty: want 1 to 128 printable ASCII characters without blanks",
		"a b":                    `backfill is "a b": want 1 to 128 printable ASCII characters without blanks`,
		"a\n":                    `backfill is "a\n": want 1 to 128 printable ASCII characters without blanks`,
		"ä":                      `backfill is "ä": want 1 to 128 printable ASCII characters without blanks`,
		"\x7f":                   `backfill is "\x7f": want 1 to 128 printable ASCII characters without blanks`,
		strings.Repeat("b", 129): "backfill is 129 bytes long: want 1 to 128 printable ASCII characters without blanks",
	} {
		got := ""
		if err := event.CheckBackfill(id); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
		quoted, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		fault := decodeOne(t, message(`"data":`, `"backfill":`+string(quoted)+`,"data":`)).Fault
		if (fault == nil) != (want == "") || fault != nil && fault.Pointer != "/backfill" {
			t.Errorf("%q: decode says %v, want %q at /backfill", id, fault, want)
		}
	}
}

// A publisher that checks must never send what a worker refuses, nor be kept
// from sending what it would take.
func TestCheckAgreesWithDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := validEvent(t)
		texts := rapid.SampledFrom([]string{"", "a", "\n", ".", strings.Repeat("é", 128), strings.Repeat("x", 256), strings.Repeat("x", 257), strings.Repeat("é", 513), strings.Repeat("x", 4097)})
		number := rapid.SampledFrom([]int{-1, 0, 1, 2, 1000, 1001})
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			text := texts.Draw(t, "text")
			switch rapid.IntRange(0, 6).Draw(t, "change") {
			case 0:
				e.ID = text
			case 1:
				e.Source = text
			case 2:
				e.Vendor = text
			case 3:
				e.Type, e.Data = event.TypeAccount, event.Account{AccountID: "a", Name: text, ExternalID: text, Description: text}
			case 4:
				e.Type, e.Data = event.TypeService, event.Service{ServiceID: text, Name: "n", Description: text}
			case 5:
				e.Type, e.Data = event.TypeSnapshot, event.Snapshot{
					AccountID: texts.Draw(t, "account"), Counts: []event.Count{{AccountID: "a", ServiceID: text}, {AccountID: "a", ServiceID: texts.Draw(t, "service")}},
					Parts: 1, Part: number.Draw(t, "part"), SnapshotID: "s",
				}
			case 6:
				e.Type, e.Data = event.TypeCount, event.Count{AccountID: "a", ServiceID: "s", UnitCount: event.Units(number.Draw(t, "units"))}
			}
		}
		e.ReplayOf = ""
		fault := event.Decode(event.Message{Subject: e.Subject().String(), Data: e.Structured(), Stored: e.Time}, event.Limits{})[0].Fault
		// An id that no subject can have is found by Check, so by Decode as well.
		if err := e.Check(); (err == nil) != (fault == nil) {
			t.Fatalf("check says %v, decode %v, of %s", err, fault, e.Structured())
		}
	})
}
