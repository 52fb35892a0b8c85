package event

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// The limits of the contract beside those of ids, units and batches.
const (
	MaxAttributeBytes   = 1024   // id, source
	MaxBackfillBytes    = 128    // backfill
	MaxCounts           = 10_000 // entries of one snapshot message
	MaxParts            = 1000   // parts of one snapshot
	MaxNameChars        = 512    // name, in characters
	MaxExternalIDChars  = 256
	MaxDescriptionChars = 4096
)

// What would be right, in the words that a publisher's engineer reads.
const (
	wantID        = "an id of 1 to 256 bytes once escaped for a subject"
	wantUnits     = "a number ≥ 0 with at most 6 decimals, at most 1e12"
	wantTime      = "a time such as 2026-11-20T12:00:00Z (RFC 3339, with T and zone, no leap second)"
	wantAttribute = "1 to 1024 bytes of UTF-8 without control characters"
	wantBackfill  = "1 to 128 printable ASCII characters without blanks"
	wantPart      = "a whole number from 1 to 1000"
	wantParts     = "part, parts and snapshotId together, with part from 1 to parts"
)

// wantType names the types that this version knows.
var wantType = "one of " + strings.Join([]string{TypeCount, TypeSnapshot, TypeAccount, TypeService}, ", ")

func knownType(typ string) bool {
	return typ == TypeCount || typ == TypeSnapshot || typ == TypeAccount || typ == TypeService
}

// Subject is the channel that the event belongs on.
func (e *Event) Subject() Subject {
	s := Subject{Vendor: e.Vendor, Organization: e.Organization}
	switch data := e.Data.(type) {
	case Count:
		s.Kind, s.Account, s.Service = KindCount, data.AccountID, data.ServiceID
	case Snapshot:
		s.Kind = KindSnapshot
	case Account:
		s.Kind, s.Account = KindAccount, data.AccountID
	case Service:
		s.Kind, s.Service = KindService, data.ServiceID
	}
	return s
}

// Check reports what Decode would refuse about the event, all problems at
// once: each of the joined errors is a *Fault. A publisher checks before it
// sends. The age of the event is not judged: only the server's clock counts.
func (e *Event) Check() error {
	if e.Type != "" && !knownType(e.Type) {
		return unknownType(place{element: -1, count: -1}, e.Type)
	}
	var f findings
	e.check(&f, place{element: -1, count: -1})
	switch e.Data.(type) {
	case Count, Snapshot, Account, Service:
		if t := e.Data.eventType(); t != e.Type {
			f.add(place{element: -1, count: -1}, "type", fmt.Sprintf("type is %s, the data is that of %s", quote(e.Type), t), t)
		}
	default:
		f.add(place{element: -1, count: -1}, "data", fmt.Sprintf("data is a %T", e.Data), "a Count, Snapshot, Account or Service")
	}
	if e.ReplayOf != "" {
		if _, err := ParseArrival(e.ReplayOf); err != nil {
			f.add(place{element: -1, count: -1}, "replayof", err.Error(), "")
		}
	}
	return f.err()
}

func unknownType(p place, typ string) *Fault {
	return &Fault{Reason: ReasonUnknownType, Pointer: p.pointer("type"), Problem: "type is " + quote(typ), Want: wantType}
}

// check finds the violations that are in the values of an event, whether it
// was read or made by a program.
func (e *Event) check(f *findings, p place) {
	f.attribute(p, "id", e.ID)
	f.attribute(p, "source", e.Source)
	if e.Type == "" {
		f.add(p, "type", "type is empty", wantType)
	}
	if year := e.Time.UTC().Year(); e.Time.IsZero() {
		f.add(p, "time", "time is missing", wantTime)
	} else if year < minYear || year > maxYear {
		f.add(p, "time", fmt.Sprintf("time is %s, which %v in UTC", e.Time.Format(time.RFC3339), errYearRange), wantTime)
	}
	if e.Backfill != "" {
		f.backfill(p, e.Backfill)
	}
	p = p.inData()
	f.id(p, "vendorId", e.Vendor)
	f.id(p, "organizationId", e.Organization)
	switch data := e.Data.(type) {
	case Count:
		f.count(p, data)
	case Snapshot:
		f.snapshot(p, data)
	case Account:
		f.id(p, "accountId", data.AccountID)
		f.text(p, "name", data.Name, 1, MaxNameChars)
		f.text(p, "externalId", data.ExternalID, 0, MaxExternalIDChars)
		f.text(p, "description", data.Description, 0, MaxDescriptionChars)
	case Service:
		f.id(p, "serviceId", data.ServiceID)
		f.text(p, "name", data.Name, 1, MaxNameChars)
		f.text(p, "description", data.Description, 0, MaxDescriptionChars)
	}
}

// attribute finds what is wrong with the id or the source of an event. They
// travel in headers and are printed in logs, so control characters, which
// CloudEvents forbids as well, are refused.
func (f *findings) attribute(p place, name, value string) {
	switch {
	case value == "":
		f.add(p, name, name+" is empty", wantAttribute)
	case len(value) > MaxAttributeBytes:
		f.add(p, name, fmt.Sprintf("%s is %d bytes long", name, len(value)), wantAttribute)
	case printableASCII(value):
	case !utf8.ValidString(value):
		f.add(p, name, name+" is not valid UTF-8", wantAttribute)
	case strings.ContainsFunc(value, isControl):
		f.add(p, name, name+" is "+quote(value)+", with a control character", wantAttribute)
	}
}

// backfill finds what is wrong with the id of a backfill.
func (f *findings) backfill(p place, id string) {
	switch {
	case len(id) > MaxBackfillBytes:
		f.add(p, "backfill", fmt.Sprintf("backfill is %d bytes long", len(id)), wantBackfill)
	case !printableASCII(id) || strings.IndexByte(id, ' ') >= 0:
		f.add(p, "backfill", "backfill is "+quote(id), wantBackfill)
	}
}

// CheckBackfill reports why an id cannot name a backfill: people type it into
// commands, and it travels in headers, so it has 1 to MaxBackfillBytes
// printable ASCII characters without blanks. It returns nil for a usable id.
func CheckBackfill(id string) error {
	if id == "" {
		return errors.New("backfill is empty: want " + wantBackfill)
	}
	var f findings
	f.backfill(place{element: -1, count: -1}, id)
	if fault := f.first(); fault != nil {
		return errors.New(fault.Problem + ": want " + fault.Want)
	}
	return nil
}

// printableASCII spares the usual text the two tests behind it.
func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7F && r <= 0x9F }

// id finds what CheckID finds.
func (f *findings) id(p place, name, id string) {
	if err := CheckID(id); err != nil {
		problem, _, _ := strings.Cut(err.Error(), ":")
		f.add(p, name, name+" "+problem, wantID)
	}
}

// text finds a text that is not of low to high characters.
func (f *findings) text(p place, name, text string, low, high int) {
	if len(text) >= low && len(text) <= high && utf8.ValidString(text) {
		return
	}
	want := fmt.Sprintf("a text of %d to %d characters", low, high)
	switch chars := utf8.RuneCountInString(text); {
	case !utf8.ValidString(text):
		f.add(p, name, name+" is not valid UTF-8", want)
	case chars < low:
		f.add(p, name, name+" is empty", want)
	case chars > high:
		f.add(p, name, fmt.Sprintf("%s is %d characters long", name, chars), want)
	}
}

func (f *findings) count(p place, c Count) {
	f.id(p, "accountId", c.AccountID)
	f.id(p, "serviceId", c.ServiceID)
	if c.UnitCount < 0 || c.UnitCount > MaxUnits {
		f.add(p, "unitCount", "unitCount is "+c.UnitCount.String(), wantUnits)
	}
}

func (f *findings) snapshot(p place, s Snapshot) {
	if s.AccountID != "" {
		f.id(p, "accountId", s.AccountID)
	}
	if s.SnapshotID != "" {
		f.id(p, "snapshotId", s.SnapshotID)
	}
	f.parts(p, s)
	if len(s.Counts) > MaxCounts {
		f.add(p, "counts", fmt.Sprintf("counts has %d entries", len(s.Counts)), "at most 10000: send the rest as further parts")
		return
	}
	seen := make(map[[2]string]int, len(s.Counts))
	for i, c := range s.Counts {
		at := p.inCount(i)
		f.count(at, c)
		if s.AccountID != "" && c.AccountID != s.AccountID {
			f.add(at, "accountId", fmt.Sprintf("accountId is %s in a snapshot of account %s", quote(c.AccountID), quote(s.AccountID)),
				"the snapshot's own account in every entry, or no accountId beside counts")
		}
		key := [2]string{c.AccountID, c.ServiceID}
		if first, ok := seen[key]; ok {
			f.add(at, "", fmt.Sprintf("account %s and service %s are counted twice, first in entry %d", quote(key[0]), quote(key[1]), first),
				"one figure for each account and service")
			continue
		}
		seen[key] = i
	}
}

// parts finds parts that do not make a whole: none of the three members, a
// snapshotId alone, or all three.
func (f *findings) parts(p place, s Snapshot) {
	switch {
	case s.Part == 0 && s.Parts == 0:
	case s.Parts == 0:
		f.add(p, "parts", fmt.Sprintf("part is %d and parts is missing", s.Part), wantParts)
	case s.Parts < 0 || s.Parts > MaxParts:
		f.add(p, "parts", fmt.Sprintf("parts is %d", s.Parts), wantPart)
	case s.Part == 0:
		f.add(p, "part", fmt.Sprintf("parts is %d and part is missing", s.Parts), wantParts)
	case s.Part < 0 || s.Part > s.Parts:
		f.add(p, "part", fmt.Sprintf("part is %d of %d", s.Part, s.Parts), wantParts)
	}
	if s.Parts != 0 && s.SnapshotID == "" {
		f.add(p, "snapshotId", fmt.Sprintf("parts is %d and snapshotId is missing", s.Parts), wantParts)
	}
}
