//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// at is when the messages of hand-made logs were stored.
var at = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// logOf makes a log of events written as {id minute account/service units},
// with changes to their envelopes.
func logOf(t *testing.T, events ...envelope) []stored {
	t.Helper()
	var log []stored
	for i, e := range events {
		body, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, stored{sequence: uint64(i + 1), at: at, subject: "usage.v1.acme.m.count.a.s", body: body})
	}
	return log
}

func counted(id string, minute int, units string, change ...func(*envelope)) envelope {
	e := envelope{
		SpecVersion: "1.0", ID: id, Source: "//b", Type: "usage.count.v1", Time: at.Add(time.Duration(minute-100) * time.Minute).Format(time.RFC3339),
		Data: payload{VendorID: vendor, OrganizationID: "m", AccountID: "a", ServiceID: "s", UnitCount: json.Number(units)},
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func snapshotPart(id string, minute, part, of int, lines ...snapshotLine) envelope {
	return counted(id, minute, "", func(e *envelope) {
		e.Type, e.Data.AccountID, e.Data.ServiceID = "usage.snapshot.v1", "", ""
		e.Data.Counts, e.Data.Part, e.Data.Parts, e.Data.SnapshotID = lines, part, of, "month"
	})
}

func from(source string) func(*envelope)    { return func(e *envelope) { e.Source = source } }
func replayOf(place string) func(*envelope) { return func(e *envelope) { e.ReplayOf = place } }
func ofService(service string) func(*envelope) {
	return func(e *envelope) { e.Data.ServiceID = service }
}

func none(place) bool { return false }

func TestTheNewestValidFigureCounts(t *testing.T) {
	tests := map[string]struct {
		log  []envelope
		want string // units of a/s
	}{
		"by time, not by arrival":                  {[]envelope{counted("1", 2, "7"), counted("2", 1, "5")}, "7"},
		"of one time by arrival":                   {[]envelope{counted("1", 1, "7"), counted("2", 1, "5")}, "5"},
		"a repeat keeps its first arrival":         {[]envelope{counted("1", 1, "7"), counted("2", 1, "5"), counted("1", 1, "7")}, "5"},
		"one id of two sources is two events":      {[]envelope{counted("1", 1, "7"), counted("1", 2, "5", from("//c"))}, "5"},
		"a replay keeps the arrival of its event":  {[]envelope{counted("1", 1, "-7"), counted("2", 1, "5"), counted("1", 1, "7", replayOf("1"))}, "5"},
		"a replay of what is newer by time counts": {[]envelope{counted("1", 2, "-7"), counted("2", 1, "5"), counted("1", 2, "7", replayOf("1"))}, "7"},
		"a snapshot that names it": {[]envelope{counted("1", 1, "7"),
			snapshotPart("2", 2, 1, 1, snapshotLine{"a", "s", "5"})}, "5"},
		"a snapshot that does not":             {[]envelope{counted("1", 1, "7"), snapshotPart("2", 2, 1, 1)}, "0"},
		"a snapshot that does not, in advance": {[]envelope{snapshotPart("2", 2, 1, 1), counted("1", 1, "7")}, "0"},
		"an older snapshot":                    {[]envelope{counted("1", 3, "7"), snapshotPart("2", 2, 1, 1)}, "7"},
		"an incomplete snapshot":               {[]envelope{counted("1", 1, "7"), snapshotPart("2", 2, 1, 2)}, "7"},
		"one part twice is not two":            {[]envelope{counted("1", 1, "7"), snapshotPart("2", 2, 1, 2), snapshotPart("2", 2, 1, 2)}, "7"},
		"all parts":                            {[]envelope{counted("1", 1, "7"), snapshotPart("2", 2, 1, 2), snapshotPart("3", 2, 2, 2)}, "0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newModel(logOf(t, test.log...), none)
			if got := m.newest(key{"m", "a", "s"}).units; got != test.want {
				t.Errorf("newest figure: got %s units, want %s; all: %v", got, test.want, m.figures)
			}
		})
	}
}

func TestTheModelKnowsWhatIsDead(t *testing.T) {
	change := func(f func(*envelope)) envelope { return counted("1", 1, "7", f) }
	tests := map[string]struct {
		event envelope
		want  string
	}{
		"good":                   {counted("1", 1, "7"), ""},
		brokenNoVersion:          {change(func(e *envelope) { e.SpecVersion = "" }), "malformed"},
		brokenVersion:            {change(func(e *envelope) { e.SpecVersion = "0.9" }), "invalid"},
		brokenType:               {change(func(e *envelope) { e.Type = "usage.count.v0" }), "unknown_type"},
		brokenVendor:             {change(func(e *envelope) { e.Data.VendorID = "acme-old" }), "subject_mismatch"},
		brokenNegative:           {counted("1", 1, "-7"), "invalid"},
		brokenOld:                {change(func(e *envelope) { e.Time = at.Add(-36 * 24 * time.Hour).Format(time.RFC3339) }), "too_old"},
		"as old as may be":       {change(func(e *envelope) { e.Time = at.Add(-35 * 24 * time.Hour).Format(time.RFC3339) }), ""},
		brokenAhead:              {change(func(e *envelope) { e.Time = at.Add(6 * time.Minute).Format(time.RFC3339) }), "too_far_ahead"},
		"as far as it may be":    {change(func(e *envelope) { e.Time = at.Add(5 * time.Minute).Format(time.RFC3339) }), ""},
		"of another integration": {change(func(e *envelope) { e.Data.OrganizationID = "n" }), "subject_mismatch"},
	}
	for name, test := range tests {
		m := newModel(logOf(t, test.event), none)
		if got := m.dead[place{sequence: 1}]; got != test.want {
			t.Errorf("%s: dead of %q, want %q", name, got, test.want)
		}
	}
	m := newModel([]stored{{sequence: 1, at: at, body: []byte(`{"}`)}}, none)
	if got := m.dead[place{sequence: 1}]; got != "malformed" {
		t.Errorf("no JSON: dead of %q, want malformed", got)
	}
}

func TestOfTwoEventsThatContradictEachOtherTheRefusedOneIsDead(t *testing.T) {
	log := logOf(t, counted("1", 1, "7"), counted("1", 1, "5"))
	for _, refused := range []uint64{1, 2} {
		m := newModel(log, func(p place) bool { return p.sequence == refused })
		want := map[uint64]string{1: "5", 2: "7"}[refused]
		if got := m.newest(key{"m", "a", "s"}).units; got != want || len(m.dead) != 1 || m.dead[place{sequence: refused}] == "" {
			t.Errorf("with the letter of %d: %s units, dead %v; want %s, and that one", refused, got, m.dead, want)
		}
	}
}

func TestEventsOfABatchStandInTheirOrder(t *testing.T) {
	body, err := json.Marshal([]envelope{counted("1", 1, "7"), counted("2", 1, "-1"), counted("3", 1, "5")})
	if err != nil {
		t.Fatal(err)
	}
	m := newModel([]stored{{sequence: 9, at: at, subject: "usage.v1.acme.m.batch", body: body}}, none)
	if got := m.newest(key{"m", "a", "s"}).units; got != "5" || m.events != 3 || m.dead[place{9, 1}] != "invalid" {
		t.Errorf("a batch: newest %s of %d events, dead %v; want 5 of 3, and 9-1 dead", got, m.events, m.dead)
	}
}

func TestPlacesAreReadAsTheyAreWritten(t *testing.T) {
	for _, p := range []place{{7, 0}, {7, 3}} {
		if got, err := parsePlace(p.String()); err != nil || got != p {
			t.Errorf("place %v read as %v, %v", p, got, err)
		}
	}
	if _, err := parsePlace("x"); err == nil {
		t.Error("place x was read, want an error")
	}
}

func TestAScheduleFollowsFromItsSeed(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		a, b, c := draw(7, nodes), draw(7, nodes), draw(8, nodes)
		if a.String() != b.String() || fmt.Sprint(a.posts) != fmt.Sprint(b.posts) {
			t.Errorf("%d servers: seed 7 gave two schedules:\n%v\n%v", nodes, a, b)
		}
		if a.String() == c.String() || fmt.Sprint(a.posts) == fmt.Sprint(c.posts) {
			t.Errorf("%d servers: seeds 7 and 8 gave one schedule", nodes)
		}
	}
}

func TestSchedulesHaveEverythingInThem(t *testing.T) {
	deeds, broken := map[string]bool{}, map[string]bool{}
	batches, copies, parts := 0, 0, 0
	for seed := range uint64(200) {
		s := draw(seed, 3)
		seen := map[string]bool{}
		for _, d := range s.deeds {
			deeds[d.kind] = true
		}
		for _, p := range s.posts {
			if len(p.notes) > 1 {
				batches++
			}
			for _, n := range p.notes {
				broken[n.broken] = true
				if seen[n.id] {
					copies++
				}
				seen[n.id] = true
				if n.of > 1 {
					parts++
				}
			}
		}
	}
	for _, want := range []string{
		killWorker, stopWorker, endWorker, rollWorkers, jumpWorker, killServer, stopServer, pauseServer, stutter, stepDown, linkNATS, linkPartner,
		fullStream, partnerPlan, revokeTokens, pauseOrg, resetOrg, mapLate, replay,
	} {
		if !deeds[want] {
			t.Errorf("in 200 schedules nothing does %q", want)
		}
	}
	if got, want := len(broken), len(breaks)+1; got != want {
		t.Errorf("events are broken in %d ways, want %d: %v", got-1, want-1, slices.Collect(maps.Keys(broken)))
	}
	if batches == 0 || copies == 0 || parts == 0 {
		t.Errorf("in 200 schedules: %d batches, %d repeats, %d parts of snapshots; want some of each", batches, copies, parts)
	}
}

func TestEveryFigureHasItsOwnValue(t *testing.T) {
	for seed := range uint64(20) {
		owner := map[string]string{}
		note := func(units, by string) {
			if before, ok := owner[units]; ok && before != by && units != "" {
				t.Errorf("seed %d: %s and %s have both %s units", seed, before, by, units)
			}
			owner[units] = by
		}
		for _, p := range draw(seed, 1).posts {
			for _, n := range p.notes {
				note(n.units, n.source+n.id+n.units)
				for _, c := range n.counts {
					note(string(c.UnitCount), n.id+c.AccountID+c.ServiceID)
				}
			}
		}
	}
}

func TestWhatIsPublishedIsWhatTheModelReads(t *testing.T) {
	p := &press{day: at.Add(-24 * time.Hour)}
	var log []stored
	want := map[string]int{}
	for i, x := range draw(3, 1).posts {
		subject, body := p.encode(x)
		log = append(log, stored{sequence: uint64(i + 1), at: at, subject: subject, body: body})
		for _, n := range x.notes {
			want[n.broken]++
		}
	}
	m := newModel(log, none)
	got := map[string]int{}
	for _, reason := range m.dead {
		got[reason]++
	}
	delete(got, "conflicting_duplicate")
	wanted := map[string]int{}
	for how, n := range want {
		switch how {
		case brokenNoVersion, brokenBytes:
			wanted["malformed"] += n
		case brokenVersion, brokenNegative:
			wanted["invalid"] += n
		case brokenType:
			wanted["unknown_type"] += n
		case brokenVendor:
			wanted["subject_mismatch"] += n
		case brokenOld:
			wanted["too_old"] += n
		case brokenAhead:
			wanted["too_far_ahead"] += n
		}
	}
	if !maps.Equal(got, wanted) {
		t.Errorf("dead by reason: got %v, want %v", got, wanted)
	}
	if len(m.conflicts) != len(organizations) {
		t.Errorf("contradictions: got %d, want one for each of %d integrations", len(m.conflicts), len(organizations))
	}
	if !strings.Contains(fmt.Sprint(m.figures), "snapshot snapshot-") {
		t.Error("no snapshot sets anything to 0, want some that do")
	}
}
