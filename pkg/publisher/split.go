package publisher

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// DefaultPartSize is how many figures Split puts into one part.
const DefaultPartSize = 1000

// maxPartBytes bounds the figures of a part as JSON, so that the message fits
// the 1 MiB that a NATS server takes if it is told nothing else.
const maxPartBytes = 900_000

// maxProblems is how many wrong figures are told of.
const maxProblems = 16

// Split makes the events of a whole snapshot, however large: parts of at most
// partSize figures (1 to event.MaxCounts; 0 means DefaultPartSize) and of some
// 900 kB, in the order of the figures, all of one time. A snapshot without
// figures is one part: nothing is used. Publish them with PublishAll and
// Records; until the last part is stored, no key becomes 0.
//
// The event of a part has the id {organization}[/{account}]/{snapshotId}/{part},
// each escaped as in a subject: the same snapshot split again has the same ids,
// so publishing it again does no harm. Figures that were corrected are another
// snapshot and need another SnapshotID. An empty one becomes a new UUIDv7, a
// zero Time now; keep both for a retry.
//
// Part, Parts and ID must be unset, because Split sets them. The error joins
// what is wrong with the figures, the first sixteen: nothing must be published
// of a snapshot that lacks some, for the keys of those would become 0. Vendor
// and Source are left for the Publisher to complete.
func (s Snapshot) Split(partSize int) ([]*event.Event, error) {
	if partSize == 0 {
		partSize = DefaultPartSize
	}
	switch {
	case partSize < 1 || partSize > event.MaxCounts:
		return nil, fmt.Errorf("split snapshot: a part size of %d: want 1 to %d", partSize, event.MaxCounts)
	case s.Part != 0 || s.Parts != 0 || s.ID != "":
		return nil, fmt.Errorf("split snapshot: it is part %d of %d with id %q: want none of them, the parts get theirs", s.Part, s.Parts, s.ID)
	}
	counts, err := s.counts()
	if err != nil {
		return nil, fmt.Errorf("split snapshot: %w", err)
	}
	if err := s.complete(); err != nil {
		return nil, fmt.Errorf("split snapshot: %w", err)
	}
	parts := cutParts(counts, partSize)
	if len(parts) > event.MaxParts {
		return nil, fmt.Errorf("split snapshot: %d figures make %d parts: want at most %d, with a part size of %d at most, or by a snapshot for each account",
			len(counts), len(parts), event.MaxParts, event.MaxCounts)
	}
	events := make([]*event.Event, len(parts))
	for i, part := range parts {
		events[i] = s.part(part, i+1, len(parts))
	}
	// What a figure cannot be blamed for is the same in all parts.
	whole := *events[0]
	whole.Vendor, whole.Source = "vendor", "source"
	if err := inLine(whole.Check()); err != nil {
		return nil, fmt.Errorf("split snapshot: %w", err)
	}
	return events, nil
}

func (s *Snapshot) complete() error {
	if s.SnapshotID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make a snapshot id: %w", err)
		}
		s.SnapshotID = id.String()
	}
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	s.Time = s.Time.UTC()
	return nil
}

// counts reads the figures. Each key may have one only: of two in two parts,
// the part that came last would win.
func (s *Snapshot) counts() ([]event.Count, error) {
	counts := make([]event.Count, len(s.Figures))
	first := make(map[[2]string]int, len(s.Figures))
	var problems []error
	for i, f := range s.Figures {
		if len(problems) == maxProblems {
			break
		}
		if err := s.check(f); err != nil {
			problems = append(problems, fmt.Errorf("figure %d, account %q, service %q: %w", i, cut(f.Account), cut(f.Service), err))
			continue
		}
		key := [2]string{f.Account, f.Service}
		if at, twice := first[key]; twice {
			problems = append(problems, fmt.Errorf("figure %d, account %q, service %q: is counted before, in figure %d: want one figure for each key", i, cut(f.Account), cut(f.Service), at))
			continue
		}
		first[key] = i
		units, err := event.ParseUnits(f.Units)
		if err != nil {
			problems = append(problems, fmt.Errorf("figure %d, account %q, service %q: units %q: %w", i, cut(f.Account), cut(f.Service), cut(f.Units), err))
			continue
		}
		counts[i] = event.Count{AccountID: f.Account, ServiceID: f.Service, UnitCount: units}
	}
	return counts, errors.Join(problems...)
}

// check finds what is wrong with the ids of a figure.
func (s *Snapshot) check(f Figure) error {
	if err := event.CheckID(f.Account); err != nil {
		return fmt.Errorf("account id %w", err)
	}
	if err := event.CheckID(f.Service); err != nil {
		return fmt.Errorf("service id %w", err)
	}
	if s.Account != "" && f.Account != s.Account {
		return fmt.Errorf("the snapshot is of account %q alone: want its figures only", s.Account)
	}
	return nil
}

// cutParts cuts the counts into pieces that fit a message: one at least.
func cutParts(counts []event.Count, size int) [][]event.Count {
	var parts [][]event.Count
	var room []byte
	from, bytes := 0, 0
	for i, c := range counts {
		// As an event of its own it is a little longer than in a snapshot.
		room = (&event.Event{Data: c}).AppendData(room[:0])
		if i-from == size || bytes+len(room) > maxPartBytes { // never at the first: it is far smaller
			parts = append(parts, counts[from:i])
			from, bytes = i, 0
		}
		bytes += len(room)
	}
	return append(parts, counts[from:])
}

func (s *Snapshot) part(counts []event.Count, number, of int) *event.Event {
	id := []string{event.Escape(s.Organization), event.Escape(s.SnapshotID), strconv.Itoa(number)}
	if s.Account != "" {
		id = []string{id[0], event.Escape(s.Account), id[1], id[2]}
	}
	return &event.Event{
		ID: strings.Join(id, "/"), Type: event.TypeSnapshot, Time: s.Time, Organization: s.Organization,
		Data: event.Snapshot{AccountID: s.Account, Counts: counts, Part: number, Parts: of, SnapshotID: s.SnapshotID},
	}
}
