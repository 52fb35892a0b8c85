package publisher_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

func manyFigures(n int) []publisher.Figure {
	all := make([]publisher.Figure, n)
	for i := range all {
		all[i] = publisher.Figure{Account: fmt.Sprintf("a-%d", i/3), Service: fmt.Sprintf("s-%d", i%3), Units: "0.5"}
	}
	return all
}

func TestASplitSnapshotNamesEveryFigureOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringN(1, 80, 240).Filter(func(s string) bool { return event.CheckID(s) == nil })
		key := rapid.Custom(func(t *rapid.T) publisher.Figure {
			return publisher.Figure{Account: id.Draw(t, "account"), Service: id.Draw(t, "service"), Units: "7"}
		})
		s := publisher.Snapshot{
			Organization: "msp-0042", SnapshotID: "2026-11", Time: noon,
			Figures: rapid.SliceOfNDistinct(key, 0, 40, func(f publisher.Figure) publisher.Figure { return f }).Draw(t, "figures"),
		}
		size := rapid.IntRange(1, 50).Draw(t, "size")
		parts, err := s.Split(size)
		if err != nil {
			t.Fatal(err)
		}
		var got []publisher.Figure
		for i, e := range parts {
			part := e.Data.(event.Snapshot)
			if part.Part != i+1 || part.Parts != len(parts) || part.SnapshotID != "2026-11" || !e.Time.Equal(noon) || e.ID != fmt.Sprintf("msp-0042/2026-11/%d", i+1) {
				t.Fatalf("part %d of %d: got %+v", i+1, len(parts), e)
			}
			if n := len(part.Counts); n > size || n < size && i < len(parts)-1 || n == 0 && len(parts) > 1 {
				t.Fatalf("part %d of %d has %d figures, want %d in each but the last", i+1, len(parts), n, size)
			}
			for _, c := range part.Counts {
				got = append(got, publisher.Figure{Account: c.AccountID, Service: c.ServiceID, Units: c.UnitCount.String()})
			}
		}
		if !slices.Equal(got, s.Figures) {
			t.Fatalf("got %v\nwant %v", got, s.Figures)
		}
		if again, err := s.Split(size); err != nil || !reflect.DeepEqual(again, parts) {
			t.Fatalf("split again: got %v, %v\nwant %v", again, err, parts)
		}
	})
}

// Two snapshots with one message id would be one to the server: it would drop
// the second, and nobody would be told.
func TestPartsOfDifferentSnapshotsHaveDifferentIDs(t *testing.T) {
	seen := map[string]publisher.Snapshot{}
	for _, s := range []publisher.Snapshot{
		{Organization: "o", SnapshotID: "s"},
		{Organization: "o", SnapshotID: "t"},
		{Organization: "p", SnapshotID: "s"},
		{Organization: "o", Account: "a", SnapshotID: "s"},
		{Organization: "o", SnapshotID: "a/s"},
		{Organization: "o/a", SnapshotID: "s"},
		{Organization: "o", SnapshotID: "s/1"},
	} {
		parts, err := s.Split(0)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[parts[0].ID]; taken {
			t.Errorf("%+v and %+v have one id, %s", s, other, parts[0].ID)
		}
		seen[parts[0].ID] = s
	}
}

func TestASnapshotOfNothingIsOnePart(t *testing.T) {
	parts, err := publisher.Snapshot{Organization: "o", Account: "a"}.Split(0)
	if err != nil || len(parts) != 1 {
		t.Fatalf("got %d parts, %v, want 1", len(parts), err)
	}
	s := parts[0].Data.(event.Snapshot)
	if s.Part != 1 || s.Parts != 1 || s.SnapshotID == "" || len(s.Counts) != 0 || s.AccountID != "a" || parts[0].Time.IsZero() {
		t.Errorf("got %+v at %v, want part 1 of 1 of account a, with an id and a time", s, parts[0].Time)
	}
}

func TestNoPartIsTooLargeForAServer(t *testing.T) {
	var all []publisher.Figure
	for i := range 5000 {
		// 130 bytes of an id are 130 in JSON, or 780 if JSON escapes each.
		all = append(all, publisher.Figure{Account: strings.Repeat("\x01", 80) + fmt.Sprint(i), Service: strings.Repeat("s", 200), Units: "1"})
	}
	parts, err := publisher.Snapshot{Organization: strings.Repeat(".", 85), Figures: all}.Split(event.MaxCounts)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, e := range parts {
		n += len(e.Data.(event.Snapshot).Counts)
		if size := len(e.Structured()); size > 920_000 || size < 800_000 && i < len(parts)-1 {
			t.Errorf("part %d of %d is %d bytes, want about 900,000", i+1, len(parts), size)
		}
	}
	if n != len(all) || len(parts) < 2 {
		t.Errorf("got %d figures in %d parts, want %d in several", n, len(parts), len(all))
	}
}

func TestASnapshotThatLacksAFigureIsNotSplit(t *testing.T) {
	with := func(f ...publisher.Figure) publisher.Snapshot {
		return publisher.Snapshot{Organization: "o", Figures: append(manyFigures(2), f...)}
	}
	ofAccount := with()
	ofAccount.Account = "a-1"
	numbered := with()
	numbered.Part = 1
	foreign := with()
	foreign.Organization = ""
	long := with()
	long.SnapshotID = strings.Repeat("s", 257)
	for _, test := range []struct {
		name     string
		snapshot publisher.Snapshot
		size     int
		want     []string
	}{
		{"two wrong figures", with(publisher.Figure{Account: "a", Service: "s", Units: "-1"}, publisher.Figure{Service: "s", Units: "1"}), 0, []string{
			`figure 2, account "a", service "s": units "-1": is negative`, `figure 3, account "", service "s": account id is empty`,
		}},
		{"a long service", with(publisher.Figure{Account: "a", Service: strings.Repeat("ä", 99), Units: "1"}), 0, []string{"service id is 594 bytes long"}},
		{"a key twice, parts apart", with(manyFigures(1)...), 1, []string{`figure 2, account "a-0", service "s-0": is counted before, in figure 0: want one figure for each key`}},
		{"another account", ofAccount, 0, []string{`account "a-0", service "s-0": the snapshot is of account "a-1" alone`}},
		{"a part already", numbered, 0, []string{"it is part 1 of 0"}},
		{"no organization", foreign, 0, []string{"/data/organizationId"}},
		{"a long id", long, 0, []string{"/data/snapshotId"}},
		{"a size below 1", with(), -1, []string{"a part size of -1: want 1 to 10000"}},
		{"a size above the contract's", with(), 10_001, []string{"a part size of 10001: want 1 to 10000"}},
		{"too many parts", publisher.Snapshot{Organization: "o", Figures: manyFigures(1001)}, 1, []string{"1001 figures make 1001 parts: want at most 1000"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			parts, err := test.snapshot.Split(test.size)
			if err == nil {
				t.Fatalf("got %d parts, want an error", len(parts))
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %s", err, want)
				}
			}
		})
	}
}

func TestOfManyWrongFiguresTheFirstAreTold(t *testing.T) {
	s := publisher.Snapshot{Organization: "o", Figures: make([]publisher.Figure, 100)}
	if _, err := s.Split(0); err == nil || strings.Count(err.Error(), "figure ") != 16 {
		t.Errorf("got %v, want sixteen figures", err)
	}
}
