package event

import (
	"crypto/sha256"
	"encoding/binary"
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
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8])
}
