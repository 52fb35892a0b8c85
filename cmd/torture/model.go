//go:build unix

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The model says what the partner must have in the end, of nothing but what
// the log holds. It is written from the event contract, and shares no code
// with the program.

// stored is one message of the log.
type stored struct {
	sequence uint64
	at       time.Time // when the server took it
	subject  string    // as published
	body     []byte
}

// envelope is an event as it is written and read here.
type envelope struct {
	SpecVersion string  `json:"specversion,omitempty"`
	ID          string  `json:"id"`
	Source      string  `json:"source"`
	Type        string  `json:"type"`
	Time        string  `json:"time"`
	ReplayOf    string  `json:"replayof,omitempty"`
	Data        payload `json:"data"`
}

type payload struct {
	VendorID       string         `json:"vendorId"`
	OrganizationID string         `json:"organizationId"`
	AccountID      string         `json:"accountId,omitempty"`
	ServiceID      string         `json:"serviceId,omitempty"`
	Name           string         `json:"name,omitempty"`
	UnitCount      json.Number    `json:"unitCount,omitempty"`
	Counts         []snapshotLine `json:"counts,omitzero"`
	Part           int            `json:"part,omitempty"`
	Parts          int            `json:"parts,omitempty"`
	SnapshotID     string         `json:"snapshotId,omitempty"`
}

// snapshotLine is a line of a snapshot.
type snapshotLine struct {
	AccountID string      `json:"accountId"`
	ServiceID string      `json:"serviceId"`
	UnitCount json.Number `json:"unitCount"`
}

// key names a figure.
type key struct{ organization, account, service string }

func (k key) String() string { return k.organization + "/" + k.account + "/" + k.service }

// place is where in the log an event stands; later is greater.
type place struct {
	sequence uint64
	index    int
}

func (p place) String() string {
	if p.index == 0 {
		return strconv.FormatUint(p.sequence, 10)
	}
	return fmt.Sprintf("%d-%d", p.sequence, p.index)
}

func parsePlace(text string) (p place, err error) {
	first, second, batch := strings.Cut(text, "-")
	if p.sequence, err = strconv.ParseUint(first, 10, 64); err == nil && batch {
		p.index, err = strconv.Atoi(second)
	}
	return p, err
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.sequence, q.sequence), cmp.Compare(p.index, q.index))
}

// figure is one value that a key had at a time.
type figure struct {
	at    time.Time
	place place
	units string
	from  string // the event's source and id, or the snapshot that did not name the key
}

func (f figure) compare(g figure) int { return cmp.Or(f.at.Compare(g.at), f.place.compare(g.place)) }

func (f figure) String() string {
	return fmt.Sprintf("%s units of %s at %s by %s", f.units, f.at.Format("01-02 15:04:05"), f.place, f.from)
}

// model is what follows from a log.
type model struct {
	events    int
	occurred  []occurrence
	figures   map[key][]figure // oldest first
	dead      map[place]string // reason, by where it stands
	conflicts []conflict
	replayed  map[place]int // how often an event at a place was replayed
}

// conflict is two events of one id: the one that is folded first stands, and
// the other is dead. After a crash their order is not that of the log.
type conflict struct{ first, second place }

// occurrence is an event at its place.
type occurrence struct {
	envelope
	place    place // own
	rank     place // own, or the original's
	at       time.Time
	identity string
}

type modelLimits struct{ ahead, lateness time.Duration }

// Limits of the contract.
var contractLimits = modelLimits{ahead: 5 * time.Minute, lateness: 35 * 24 * time.Hour}

// newModel judges every event of the log; isDead says which of two events that
// contradict each other was refused.
func newModel(log []stored, isDead func(place) bool) *model {
	m := &model{figures: map[key][]figure{}, dead: map[place]string{}, replayed: map[place]int{}}
	var valid []occurrence
	for _, s := range log {
		for _, o := range m.read(s) {
			m.events++
			if reason := m.fault(&o, s); reason != "" {
				m.dead[o.place] = reason
				continue
			}
			valid = append(valid, o)
		}
	}
	m.occurred = m.settle(valid, isDead)
	m.fold()
	return m
}

// read splits a message into its events. What is no JSON is one event of which
// nothing is known.
func (m *model) read(s stored) []occurrence {
	var one envelope
	if err := json.Unmarshal(s.body, &one); err == nil {
		return []occurrence{{envelope: one, place: place{sequence: s.sequence}}}
	}
	var many []envelope
	if err := json.Unmarshal(s.body, &many); err != nil {
		return []occurrence{{place: place{sequence: s.sequence}}}
	}
	all := make([]occurrence, len(many))
	for i, e := range many {
		all[i] = occurrence{envelope: e, place: place{s.sequence, i}}
	}
	return all
}

// fault is the reason for which the event is dead, of those that its own bytes
// give. It completes the occurrence otherwise.
func (m *model) fault(o *occurrence, s stored) string {
	o.rank = o.place
	if o.ReplayOf != "" {
		original, err := parsePlace(o.ReplayOf)
		if err != nil {
			return "invalid"
		}
		m.replayed[original]++
		o.rank = original
	}
	at, err := time.Parse(time.RFC3339, o.Time)
	switch {
	case o.SpecVersion == "" || o.ID == "":
		return "malformed"
	case !slices.Contains([]string{"usage.count.v1", "usage.snapshot.v1", "catalog.account.v1", "catalog.service.v1"}, o.Type):
		return "unknown_type"
	case o.SpecVersion != "1.0" || err != nil || strings.HasPrefix(o.Data.UnitCount.String(), "-"):
		return "invalid"
	case o.Data.VendorID != vendor || !slices.Contains(strings.Split(s.subject, "."), o.Data.OrganizationID):
		return "subject_mismatch"
	case at.After(s.at.Add(contractLimits.ahead)):
		return "too_far_ahead"
	case at.Before(s.at.Add(-contractLimits.lateness)):
		return "too_old"
	}
	o.at, o.identity = at, o.Source+" "+o.ID
	return ""
}

// content is all of an event that a repeat must have in common with it.
func (o *occurrence) content() string {
	text, err := json.Marshal(o.Data)
	if err != nil {
		panic(err) // texts and numbers marshal
	}
	return o.Type + o.Time + string(text)
}

// settle merges repeats into the earliest, and takes out what contradicts.
func (m *model) settle(valid []occurrence, isDead func(place) bool) []occurrence {
	byIdentity := map[string][]occurrence{}
	for _, o := range valid {
		byIdentity[o.identity] = append(byIdentity[o.identity], o)
	}
	var settled []occurrence
	for _, identity := range slices.Sorted(maps.Keys(byIdentity)) {
		copies := byIdentity[identity]
		stands := copies[0]
		for _, c := range copies[1:] {
			if c.content() == copies[0].content() {
				if c.rank.compare(stands.rank) < 0 {
					stands.rank = c.rank
				}
				continue
			}
			m.conflicts = append(m.conflicts, conflict{copies[0].place, c.place})
			refused, accepted := c, stands
			if isDead(copies[0].place) {
				refused, accepted = copies[0], c
			}
			m.dead[refused.place], stands = "conflicting_duplicate", accepted
		}
		settled = append(settled, stands)
	}
	return settled
}

// scope is what a snapshot is all of.
type scope struct{ source, organization, account, id string }

type snapshot struct {
	at    time.Time
	of    int
	parts map[int]place
	names map[key]bool
}

// fold gives every key its figures.
func (m *model) fold() {
	snapshots := map[scope]*snapshot{}
	for _, o := range m.occurred {
		d := o.Data
		switch o.Type {
		case "usage.count.v1":
			m.add(key{d.OrganizationID, d.AccountID, d.ServiceID}, figure{o.at, o.rank, string(d.UnitCount), o.identity})
		case "usage.snapshot.v1":
			m.foldPart(snapshots, o)
		}
	}
	for id, s := range snapshots {
		if len(s.parts) == s.of {
			m.zero(id, s)
		}
	}
	for _, figures := range m.figures {
		slices.SortFunc(figures, figure.compare)
	}
}

func (m *model) add(k key, f figure) { m.figures[k] = append(m.figures[k], f) }

func (m *model) foldPart(snapshots map[scope]*snapshot, o occurrence) {
	d := o.Data
	id := scope{o.Source, d.OrganizationID, d.AccountID, cmp.Or(d.SnapshotID, o.ID)}
	s := snapshots[id]
	if s == nil {
		s = &snapshot{at: o.at, of: max(d.Parts, 1), parts: map[int]place{}, names: map[key]bool{}}
		snapshots[id] = s
	}
	s.parts[max(d.Part, 1)] = o.rank
	for _, c := range d.Counts {
		k := key{d.OrganizationID, c.AccountID, c.ServiceID}
		s.names[k] = true
		m.add(k, figure{o.at, o.rank, string(c.UnitCount), o.identity})
	}
}

// zero gives every key that a complete snapshot is about and does not name the
// figure 0, as of the latest of its parts.
func (m *model) zero(id scope, s *snapshot) {
	last := slices.MaxFunc(slices.Collect(maps.Values(s.parts)), place.compare)
	for k := range m.figures {
		if k.organization == id.organization && (id.account == "" || id.account == k.account) && !s.names[k] {
			m.add(k, figure{s.at, last, "0", "snapshot " + id.id})
		}
	}
}

// newest is what the partner must have of a key.
func (m *model) newest(k key) figure {
	figures := m.figures[k]
	return figures[len(figures)-1]
}
