package ledger

import (
	"encoding/binary"
	"slices"

	"github.com/google/uuid"
)

// Packed is the entry of a figure in a form for memory: a tenth of the size of
// an Entry, and without pointers that the garbage collector would follow, since
// a worker keeps a million of them. It never leaves the process: what is stored
// is the form of AppendEntry.
//
// It is a header of fixed size with what is looked for among all entries, then
// the generation, and the rest as Pack writes it.
type Packed string

const (
	packedSince = 1
	packedAt    = packedSince + 8
	packedFlags = packedAt + 8
	packedRest  = packedFlags + 1
)

// The flags of a packed entry.
const (
	packedUnbuilt  = 1 << iota
	packedKnown    // what was delivered is one of the remembered figures
	packedAnswer   // there is an answer ...
	packedSameTime // ... and it came when the value was taken
	packedRetries  // there are attempts, or a next one
	packedUUID     // the request id is a UUID, as most are, and kept as 16 bytes
)

// The marks of a packed figure, beside its disposition and its wait.
const (
	packedBackfill   = 1 << 6
	packedProperties = 1 << 7
)

// Pack packs the entry, in scratch, which it grows and gives back for the next.
func (e *Entry) Pack(scratch []byte) (p Packed, room []byte) {
	b := scratch[:0]
	b = append(b, byte(1+slices.Index(packedStates, e.State))|byte(1+slices.Index(packedReasons, e.Reason))<<4)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Since))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Delivered.At))
	at, flags := e.packedFlags()
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(e.Delivered.Generation))
	b = binary.AppendUvarint(b, e.Revision)
	b = binary.AppendUvarint(b, uint64(len(e.Seen)))
	var before Version
	for _, s := range e.Seen {
		b = packVersion(b, s.Version, before)
		b = binary.LittleEndian.AppendUint64(b, s.Event)
		marks := byte(1+slices.Index(packedDispositions, s.Disposition)) | byte(s.Waits)<<3
		if s.Backfill != 0 {
			marks |= packedBackfill
		}
		if s.Value.Properties != "" {
			marks |= packedProperties
		}
		b = append(b, marks)
		if s.Backfill != 0 {
			b = binary.LittleEndian.AppendUint64(b, s.Backfill)
		}
		b = binary.AppendVarint(b, s.Value.Units)
		if s.Value.Properties != "" {
			b = packText(b, s.Value.Properties)
		}
		before = s.Version
	}
	if d := &e.Delivered; d.At != 0 {
		if flags&packedKnown != 0 {
			b = binary.AppendUvarint(b, uint64(at))
		} else {
			b = packVersion(b, d.Version, before)
			b = binary.AppendVarint(b, d.Value.Units)
			b = packText(b, d.Value.Properties)
		}
		var short bool
		if b, short = packUUID(b, d.RequestID); short {
			b[packedFlags] |= packedUUID
		} else {
			b = packText(b, d.RequestID)
		}
	}
	if flags&packedRetries != 0 {
		b = binary.AppendVarint(b, int64(e.Attempts))
		b = binary.AppendVarint(b, e.Next)
	}
	if flags&packedAnswer != 0 {
		if flags&packedSameTime == 0 {
			b = binary.AppendVarint(b, e.Answer.At)
		}
		b = binary.AppendVarint(b, int64(e.Answer.Status))
		b = packText(b, e.Answer.Message)
	}
	return Packed(b), b
}

var (
	packedStates       = States()
	packedReasons      = HoldReasons()
	packedDispositions = Dispositions()
)

// packedFlags says what the entry has, and which of its figures was delivered.
func (e *Entry) packedFlags() (delivered int, flags byte) {
	delivered = -1
	if e.Delivered.At != 0 {
		delivered = slices.IndexFunc(e.Seen, func(s Seen) bool { return s.Version == e.Delivered.Version && s.Value == e.Delivered.Value })
	}
	if e.Delivered.Unbuilt {
		flags |= packedUnbuilt
	}
	if delivered >= 0 {
		flags |= packedKnown
	}
	if e.Answer != (Answer{}) {
		flags |= packedAnswer
	}
	if e.Answer.At == e.Delivered.At {
		flags |= packedSameTime
	}
	if e.Attempts != 0 || e.Next != 0 {
		flags |= packedRetries
	}
	return delivered, flags
}

// packUUID appends the 16 bytes of a UUID. It is not ok for a text that would not
// come back as it is, such as one in capitals.
func packUUID(b []byte, text string) (packed []byte, ok bool) {
	const form = "00000000-0000-0000-0000-000000000000"
	if len(text) != len(form) {
		return b, false
	}
	n, high := len(b), true
	for i := range len(form) {
		c := text[i]
		var digit byte
		switch {
		case form[i] == '-':
			if c != '-' {
				return b[:n], false
			}
			continue
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		default:
			return b[:n], false
		}
		if high {
			b = append(b, digit<<4)
		} else {
			b[len(b)-1] |= digit
		}
		high = !high
	}
	return b, true
}

func packVersion(b []byte, v, before Version) []byte {
	b = binary.AppendVarint(b, v.Time-before.Time)
	return binary.AppendVarint(b, int64(v.Arrival-before.Arrival))
}

func packText(b []byte, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// State is the entry's state.
func (p Packed) State() State { return nth(packedStates, p[0]&15) }

// Since is the entry's Since.
func (p Packed) Since() int64 { return int64(p.fixed(packedSince)) }

// DeliveredAt is when the partner last took a value, nanoseconds since 1970
// UTC; 0: never.
func (p Packed) DeliveredAt() int64 { return int64(p.fixed(packedAt)) }

// Unbuilt says that the partner took the last value without a rebuild.
func (p Packed) Unbuilt() bool { return p[packedFlags]&packedUnbuilt != 0 }

// PostedIn is the entry's PostedIn.
func (p Packed) PostedIn(generation int) bool {
	r := packedReader{text: string(p[packedRest:])}
	return p.DeliveredAt() != 0 && int(r.unsigned()) >= generation
}

func (p Packed) fixed(at int) uint64 {
	r := packedReader{text: string(p[at:])}
	return r.fixed()
}

// nth is number n of the list, counted from 1; nothing for 0.
func nth[T ~string](list []T, n byte) T {
	if n == 0 {
		return ""
	}
	return list[n-1]
}

// Unpack is the entry of the key that was packed.
func (p Packed) Unpack(key Key) Entry {
	flags := p[packedFlags]
	r := packedReader{text: string(p[packedRest:])}
	e := Entry{Key: key, State: p.State(), Reason: nth(packedReasons, p[0]>>4), Since: p.Since()}
	e.Delivered.At, e.Delivered.Unbuilt = p.DeliveredAt(), p.Unbuilt()
	e.Delivered.Generation = int(r.unsigned())
	e.Revision = r.unsigned()
	e.Seen = make([]Seen, r.unsigned())
	var before Version
	for i := range e.Seen {
		s := &e.Seen[i]
		s.Version = r.version(before)
		s.Event = r.fixed()
		marks := r.octet()
		s.Disposition, s.Waits = nth(packedDispositions, marks&7), Wait(marks>>3&7)
		if marks&packedBackfill != 0 {
			s.Backfill = r.fixed()
		}
		s.Value.Units = r.signed()
		if marks&packedProperties != 0 {
			s.Value.Properties = r.string()
		}
		before = s.Version
	}
	if d := &e.Delivered; d.At != 0 {
		if flags&packedKnown != 0 {
			s := &e.Seen[r.unsigned()]
			d.Version, d.Value = s.Version, s.Value
		} else {
			d.Version = r.version(before)
			d.Value = Value{Units: r.signed(), Properties: r.string()}
		}
		if flags&packedUUID != 0 {
			id := uuid.UUID([]byte(r.text[:len(uuid.UUID{})]))
			r.text = r.text[len(id):]
			d.RequestID = id.String()
		} else {
			d.RequestID = r.string()
		}
	}
	if flags&packedRetries != 0 {
		e.Attempts, e.Next = int(r.signed()), r.signed()
	}
	if flags&packedAnswer != 0 {
		e.Answer.At = e.Delivered.At
		if flags&packedSameTime == 0 {
			e.Answer.At = r.signed()
		}
		e.Answer.Status, e.Answer.Message = int(r.signed()), r.string()
	}
	return e
}

// packedReader reads what Pack wrote, and nothing else: it checks nothing. The
// texts that it gives are parts of the packed one.
type packedReader struct{ text string }

func (r *packedReader) octet() byte {
	b := r.text[0]
	r.text = r.text[1:]
	return b
}

func (r *packedReader) fixed() uint64 {
	var n uint64
	for i := range 8 {
		n |= uint64(r.text[i]) << (8 * i)
	}
	r.text = r.text[8:]
	return n
}

func (r *packedReader) unsigned() uint64 {
	var n uint64
	for shift := 0; ; shift += 7 {
		b := r.octet()
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (r *packedReader) signed() int64 {
	n := r.unsigned()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *packedReader) version(before Version) Version {
	return Version{Time: before.Time + r.signed(), Arrival: before.Arrival + uint64(r.signed())}
}

func (r *packedReader) string() string {
	n := r.unsigned()
	s := r.text[:n]
	r.text = r.text[n:]
	return s
}
