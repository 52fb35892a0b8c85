package event

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// Stream is the name of the stream that holds a vendor's events.
func Stream(vendor string) string { return "EVENTS_" + Escape(vendor) }

// FamilyOf is the family of a subject by its first token, "usage" for what is
// neither, so that a label made of it has two values only.
func FamilyOf(subject string) string {
	if strings.HasPrefix(subject, FamilyCatalog+".") {
		return FamilyCatalog
	}
	return FamilyUsage
}

// OrganizationOf is the organization that a subject names even if the rest of
// it is wrong: the fourth token, unescaped as far as it can be.
func OrganizationOf(subject string) string {
	tokens := strings.SplitN(subject, ".", 5)
	if len(tokens) < 4 {
		return ""
	}
	if id, err := Unescape(tokens[3]); err == nil {
		return id
	}
	return tokens[3]
}

// Digest stands for the event's source and id where they are remembered: the
// first 8 bytes of the SHA-256 of both, with a zero byte between them.
func (e *Event) Digest() uint64 {
	var small [256]byte
	b := append(small[:0], e.Source...)
	b = append(b, 0)
	b = append(b, e.ID...)
	return digest(b)
}

// snapshotDomain begins what SnapshotDigest and ContentDigest are made of. No
// source begins with a zero byte, so that no event has the digest of a snapshot.
const snapshotDomain = "\x00snapshot"

// SnapshotDigest stands for the whole snapshot that the event is a part of: it
// is the same for all parts. A snapshot is known by its source, integration,
// account if it is of one, and its snapshotId; without one, the event is the
// whole, and known by its id. The digest of an event whose data is no Snapshot
// is its Digest.
func (e *Event) SnapshotDigest() uint64 {
	s, ok := e.Data.(Snapshot)
	if !ok {
		return e.Digest()
	}
	b := []byte(snapshotDomain)
	for _, text := range [...]string{e.Source, e.Vendor, e.Organization, s.AccountID} {
		b = appendSized(b, text)
	}
	if s.SnapshotID != "" {
		b = appendSized(append(b, 's'), s.SnapshotID)
	} else {
		b = appendSized(append(b, 'e'), e.ID)
	}
	return digest(b)
}

// ContentDigest stands for what one message of a snapshot says: its account,
// its part and parts, and its counts in whatever order. Two messages that
// claim to be the same part and differ in it contradict each other.
func (s Snapshot) ContentDigest() uint64 {
	b := appendSized([]byte(snapshotDomain), s.AccountID)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Part))
	b = binary.BigEndian.AppendUint64(b, uint64(s.Parts))
	counts := slices.SortedFunc(slices.Values(s.Counts), func(x, y Count) int {
		return cmp.Or(cmp.Compare(x.AccountID, y.AccountID), cmp.Compare(x.ServiceID, y.ServiceID), cmp.Compare(x.UnitCount, y.UnitCount))
	})
	for _, c := range counts {
		b = appendSized(appendSized(b, c.AccountID), c.ServiceID)
		b = binary.BigEndian.AppendUint64(b, uint64(c.UnitCount))
	}
	return digest(b)
}

// appendSized appends a text behind its length, so that no two lists of texts
// are the same bytes: an id may have any character, a zero byte too.
func appendSized(dst []byte, text string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(text)))
	return append(dst, text...)
}

func digest(b []byte) uint64 {
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8])
}
