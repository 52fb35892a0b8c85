package ledger

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// codecVersion is written into every stored entry. A reader refuses what it
// does not know: guessing at figures makes wrong invoices.
const codecVersion = 1

type wireEntry struct {
	Version   int            `json:"v"`
	State     State          `json:"state"`
	Reason    HoldReason     `json:"reason"`
	Seen      []wireSeen     `json:"seen"`
	Delivered *wireDelivered `json:"delivered"`
	Attempts  int            `json:"attempts"`
	Next      int64          `json:"next"`
	Since     int64          `json:"since"`
	Answer    *wireAnswer    `json:"answer"`
	Snapshots []wireSnapshot `json:"snapshots"`
	Register  *wireRegister  `json:"register"`
}

type wireSnapshot struct {
	Time     int64      `json:"t"`
	Arrival  uint64     `json:"a"`
	Event    string     `json:"e"`
	Name     string     `json:"name"`
	Backfill string     `json:"b,omitempty"`
	Of       int        `json:"of"`
	Parts    []wirePart `json:"parts,omitempty"`
	Since    int64      `json:"since"`
	Done     int64      `json:"done,omitempty"`
	Lost     bool       `json:"lost,omitempty"`
	Keys     int        `json:"keys,omitempty"`
	Zeros    int        `json:"zeros,omitempty"`
	Waits    bool       `json:"waits,omitempty"`
}

type wirePart struct {
	Number  int    `json:"n"`
	Arrival uint64 `json:"a"`
	Content string `json:"c"`
}

type wireRegister struct {
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	Reverted int64  `json:"reverted,omitempty"`
}

type wireSeen struct {
	Time        int64       `json:"t"`
	Arrival     uint64      `json:"a"`
	Units       int64       `json:"u"`
	Properties  string      `json:"p"`
	Event       string      `json:"e"`
	Disposition Disposition `json:"d"`
	Backfill    string      `json:"b"`
	Waits       Wait        `json:"w"`
}

type wireDelivered struct {
	Time       int64  `json:"t"`
	Arrival    uint64 `json:"a"`
	Units      int64  `json:"u"`
	Properties string `json:"p"`
	At         int64  `json:"at"`
	RequestID  string `json:"r"`
	Generation int    `json:"g"`
	Unbuilt    bool   `json:"nb"`
}

type wireAnswer struct {
	At      int64  `json:"at"`
	Status  int    `json:"s"`
	Message string `json:"m"`
}

// AppendEntry appends the stored form of the entry to dst: one line of JSON,
// so that an operator can read it with any KV client. The key is not in it:
// it is the name under which the store keeps the entry. Empty members are
// left out. Texts are UTF-8: what is not comes back as U+FFFD.
func AppendEntry(dst []byte, e *Entry) []byte {
	dst = append(dst, `{"v":`...)
	dst = strconv.AppendInt(dst, codecVersion, 10)
	dst = appendText(dst, `,"state":`, string(e.State))
	dst = appendText(dst, `,"reason":`, string(e.Reason))
	dst = append(dst, `,"seen":[`...)
	for i, s := range e.Seen {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFigure(append(dst, '{'), s.Version, s.Value)
		dst = appendDigest(append(dst, `,"e":`...), s.Event)
		dst = appendText(dst, `,"d":`, string(s.Disposition))
		if s.Backfill != 0 {
			dst = appendDigest(append(dst, `,"b":`...), s.Backfill)
		}
		dst = appendInt(dst, `,"w":`, int64(s.Waits))
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	if d := e.Delivered; d.At != 0 {
		dst = appendFigure(append(dst, `,"delivered":{`...), d.Version, d.Value)
		dst = appendInt(dst, `,"at":`, d.At)
		dst = appendText(dst, `,"r":`, d.RequestID)
		dst = appendInt(dst, `,"g":`, int64(d.Generation))
		if d.Unbuilt {
			dst = append(dst, `,"nb":true`...)
		}
		dst = append(dst, '}')
	}
	dst = appendInt(dst, `,"attempts":`, int64(e.Attempts))
	dst = appendInt(dst, `,"next":`, e.Next)
	dst = appendInt(dst, `,"since":`, e.Since)
	if a := e.Answer; a.At != 0 {
		dst = strconv.AppendInt(append(dst, `,"answer":{"at":`...), a.At, 10)
		dst = appendInt(dst, `,"s":`, int64(a.Status))
		dst = appendText(dst, `,"m":`, a.Message)
		dst = append(dst, '}')
	}
	if len(e.Snapshots) > 0 {
		dst = appendJSON(append(dst, `,"snapshots":`...), wireSnapshots(e.Snapshots))
	}
	if e.Register != nil {
		dst = appendJSON(append(dst, `,"register":`...), wireRegister(*e.Register))
	}
	return append(dst, '}')
}

func appendDigest(dst []byte, digest uint64) []byte {
	dst = strconv.AppendUint(append(dst, '"'), digest, 16)
	return append(dst, '"')
}

func appendJSON(dst []byte, value any) []byte {
	encoded, err := json.Marshal(value)
	if err != nil {
		panic("ledger: a value that JSON cannot hold: " + err.Error())
	}
	return append(dst, encoded...)
}

func wireSnapshots(list []Snapshot) []wireSnapshot {
	all := make([]wireSnapshot, len(list))
	for i, s := range list {
		all[i] = wireSnapshot{
			Time: s.Time, Arrival: s.Arrival, Event: strconv.FormatUint(s.Event, 16), Name: s.Name, Backfill: s.Backfill,
			Of: s.Of, Since: s.Since, Done: s.Done, Lost: s.Lost, Keys: s.Keys, Zeros: s.Zeros, Waits: s.Waits,
		}
		for _, part := range s.Parts {
			all[i].Parts = append(all[i].Parts, wirePart{part.Number, part.Arrival, strconv.FormatUint(part.Content, 16)})
		}
	}
	return all
}

func appendFigure(dst []byte, v Version, value Value) []byte {
	dst = strconv.AppendInt(append(dst, `"t":`...), v.Time, 10)
	dst = strconv.AppendUint(append(dst, `,"a":`...), v.Arrival, 10)
	dst = appendInt(dst, `,"u":`, value.Units)
	return appendText(dst, `,"p":`, value.Properties)
}

func appendInt(dst []byte, name string, n int64) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, name...), n, 10)
}

func appendText(dst []byte, name, text string) []byte {
	if text == "" {
		return dst
	}
	dst = append(dst, name...)
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(text)
			if err != nil {
				panic("ledger: a string that JSON cannot hold: " + err.Error())
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}

// ParseEntry reads the stored form of the entry of key. The revision is the
// store's to set. It refuses what AppendEntry cannot have written of a sound
// entry: an unknown state, reason or disposition, or figures out of order.
func ParseEntry(key Key, data []byte) (Entry, error) {
	if key.Kind.Figure() {
		if e, ok := scanEntry(key, data); ok {
			return e, nil
		}
	}
	return parseEntry(key, data)
}

// parseEntry reads every form of an entry, and says what is wrong with one.
func parseEntry(key Key, data []byte) (Entry, error) {
	var w wireEntry
	if err := json.Unmarshal(data, &w); err != nil {
		return Entry{}, fmt.Errorf("entry %s: %w", key, err)
	}
	if w.Version != codecVersion {
		return Entry{}, fmt.Errorf("entry %s has format %d: this version reads format %d", key, w.Version, codecVersion)
	}
	e := Entry{Key: key, State: w.State, Reason: w.Reason, Attempts: w.Attempts, Next: w.Next, Since: w.Since}
	e.Seen = make([]Seen, len(w.Seen))
	var digests digestReader
	for i, s := range w.Seen {
		e.Seen[i] = Seen{
			Version:     Version{Time: s.Time, Arrival: s.Arrival},
			Value:       Value{Units: s.Units, Properties: s.Properties},
			Event:       digests.read(s.Event),
			Disposition: s.Disposition,
			Waits:       s.Waits,
		}
		if s.Backfill != "" {
			e.Seen[i].Backfill = digests.read(s.Backfill)
		}
	}
	e.Snapshots = digests.snapshots(w.Snapshots)
	e.Register = (*Register)(w.Register)
	if digests.bad != "" {
		return Entry{}, fmt.Errorf("entry %s: event digest %q is no hexadecimal number", key, digests.bad)
	}
	if d := w.Delivered; d != nil {
		e.Delivered = Delivered{
			Version: Version{Time: d.Time, Arrival: d.Arrival},
			Receipt: Receipt{RequestID: d.RequestID, Generation: d.Generation, Unbuilt: d.Unbuilt},
			Value:   Value{Units: d.Units, Properties: d.Properties},
			At:      d.At,
		}
	}
	if a := w.Answer; a != nil {
		e.Answer = Answer{At: a.At, Status: a.Status, Message: a.Message}
	}
	if fault := e.fault(); fault != "" {
		return Entry{}, fmt.Errorf("entry %s %s", key, fault)
	}
	if e.State == Sending {
		e.State = Dirty
	}
	return e, nil
}

// digestReader reads digests and keeps the first that is none.
type digestReader struct{ bad string }

func (r *digestReader) read(text string) uint64 {
	digest, err := strconv.ParseUint(text, 16, 64)
	if err != nil && r.bad == "" {
		r.bad = text
	}
	return digest
}

func (r *digestReader) snapshots(list []wireSnapshot) []Snapshot {
	var all []Snapshot
	for _, w := range list {
		s := Snapshot{
			Version: Version{Time: w.Time, Arrival: w.Arrival}, Event: r.read(w.Event), Name: w.Name, Backfill: w.Backfill,
			Of: w.Of, Since: w.Since, Done: w.Done, Lost: w.Lost, Keys: w.Keys, Zeros: w.Zeros, Waits: w.Waits,
		}
		for _, part := range w.Parts {
			s.Parts = append(s.Parts, SeenPart{Number: part.Number, Arrival: part.Arrival, Content: r.read(part.Content)})
		}
		all = append(all, s)
	}
	return all
}

// fault says what makes the entry unsound, or nothing.
func (e *Entry) fault() string {
	switch {
	case !e.Key.Kind.Figure():
		return e.keeperFault()
	case len(e.Seen) == 0:
		return "has no figure"
	case !slices.Contains(States(), e.State):
		return fmt.Sprintf("has the unknown state %q", e.State)
	case e.State == Held && !slices.Contains(HoldReasons(), e.Reason):
		return fmt.Sprintf("is held for the unknown reason %q", e.Reason)
	case e.State != Held && e.Reason != "":
		return fmt.Sprintf("is %s and yet has the reason %q for a hold", e.State, e.Reason)
	}
	for i, s := range e.Seen {
		if !slices.Contains(Dispositions(), s.Disposition) {
			return fmt.Sprintf("remembers an event with the unknown disposition %q", s.Disposition)
		}
		if s.Waits > Jumped {
			return fmt.Sprintf("has a figure that waits for the unknown reason %d", s.Waits)
		}
		if i > 0 && s.Version.Compare(e.Seen[i-1].Version) > 0 {
			return fmt.Sprintf("remembers a newer figure behind an older one (place %d)", i)
		}
	}
	return ""
}

// keeperFault says what makes an entry that has no figures unsound.
func (e *Entry) keeperFault() string {
	switch {
	case len(e.Seen) > 0 || e.State != "":
		return "has a figure or a state, where none belongs"
	case e.Key.Kind == Backfill && e.Register == nil:
		return "has no register"
	}
	return ""
}
