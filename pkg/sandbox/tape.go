package sandbox

import (
	"slices"
	"time"
)

// Record is one request to the partner's side, written in the moment it was judged.
// Sequence order is therefore the order in which values took effect, and Time never
// decreases with it as long as Config.Now does not.
type Record struct {
	// Sequence counts from 1 without gaps.
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// Integration is empty when the token is none of any integration, and in the OEM-API,
	// where a request is about an Organization; that one is empty when the request was not let in.
	Integration  string    `json:"integration"`
	Organization string    `json:"organization,omitempty"`
	Operation    Operation `json:"operation"`
	// Account and Service are the vendor's ids as far as the request names them.
	Account string `json:"account,omitempty"`
	Service string `json:"service,omitempty"`
	// Batch holds the ids of the accounts or services that one request posts together; one
	// alone is Account or Service instead.
	Batch []string `json:"batch,omitempty"`
	// Value is the unit count exactly as sent, empty when it was no JSON number.
	Value string `json:"value,omitempty"`
	// NoBuild says that a count asked to leave the billing view as it is.
	NoBuild bool `json:"noBuild,omitempty"`
	// Status is what was answered; 0 when the connection was torn instead.
	Status int `json:"status"`
	// Accepted says that the request took effect, whatever the client was told.
	Accepted  bool   `json:"accepted"`
	RequestID string `json:"requestId"`
	// Fault is the name of the rule that hit the request.
	Fault string `json:"fault,omitempty"`
	// Message is the answer's, or why there was none.
	Message string `json:"message,omitempty"`
}

// Accepted is one value that the partner took for a key.
type Accepted struct {
	// Sequence is that of the tape's record.
	Sequence uint64
	Time     time.Time
	// Value is the JSON number exactly as sent.
	Value string
	// Epoch is how often the integration had been reset before.
	Epoch int
}

// chunkSize bounds how many records are copied while the lock is held.
const chunkSize = 4096

// tape keeps records in chunks, so that growing never copies what is there.
type tape struct {
	limit   uint64     // 0: none
	chunks  [][]Record // all full but the last
	dropped uint64     // records before the first chunk
	last    uint64     // sequence of the newest record
}

func (t *tape) next() uint64 { return t.last + 1 }

func (t *tape) add(r Record) {
	t.last++
	r.Sequence = t.last
	if n := len(t.chunks); n == 0 || len(t.chunks[n-1]) == chunkSize {
		t.chunks = append(t.chunks, make([]Record, 0, chunkSize))
	}
	newest := &t.chunks[len(t.chunks)-1]
	*newest = append(*newest, r)
	if t.limit > 0 && t.last-t.dropped >= t.limit+chunkSize {
		t.chunks = slices.Delete(t.chunks, 0, 1)
		t.dropped += chunkSize
	}
}

// after copies records with a sequence above seq, at most to the end of one chunk;
// nothing means there are none yet.
func (t *tape) after(seq uint64) []Record {
	oldest := t.dropped
	if t.limit > 0 && t.last > t.limit {
		oldest = t.last - t.limit
	}
	seq = max(seq, oldest)
	if seq >= t.last {
		return nil
	}
	at := seq - t.dropped
	return slices.Clone(t.chunks[at/chunkSize][at%chunkSize:])
}

// Tape returns the records kept, oldest first.
func (s *Sandbox) Tape() []Record { return s.TapeAfter(0) }

// TapeAfter returns the records kept with a sequence above seq, oldest first.
func (s *Sandbox) TapeAfter(seq uint64) []Record {
	var all []Record
	for {
		part := s.tapeChunk(seq)
		if len(part) == 0 {
			return all
		}
		all = append(all, part...)
		seq = part[len(part)-1].Sequence
	}
}

func (s *Sandbox) tapeChunk(after uint64) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tape.after(after)
}

// History returns every value that was ever accepted for a key, in order, across resets.
func (s *Sandbox) History(integration, account, service string) []Accepted {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.byName[integration]; in != nil {
		if f := in.figures[key{account, service}]; f != nil {
			return slices.Clone(f.accepted)
		}
	}
	return nil
}

// Value returns the last accepted value of a key as it was sent, and false when there is
// none since the last reset.
func (s *Sandbox) Value(integration, account, service string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.byName[integration]; in != nil {
		if v, ok := in.value(key{account, service}); ok {
			return v, true
		}
	}
	return "", false
}

// Billed returns the value of a key that the billing view shows, and false when it shows
// none. It is older than [Sandbox.Value] while all newer counts came with no_build=true.
func (s *Sandbox) Billed(integration, account, service string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.byName[integration]; in != nil {
		if v, ok := in.billed(key{account, service}); ok {
			return v, true
		}
	}
	return "", false
}
