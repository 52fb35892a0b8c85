package event

import (
	"fmt"
	"strconv"
	"strings"
)

// Arrival is a position in the log: the stream sequence of the message and,
// in a batch, the index of the event in it. Greater is later.
type Arrival uint64

// MaxBatch is the largest number of events in one batch (event contract).
const MaxBatch = 1000

// batchBits leaves room for MaxBatch indices below the sequence.
const batchBits = 10

// ArrivalAt is the arrival of event index (0 for a message that is no batch)
// of the message at stream sequence seq. It panics when index is outside
// 0..MaxBatch-1, which no decoded message has.
func ArrivalAt(seq uint64, index int) Arrival {
	if index < 0 || index >= MaxBatch {
		panic(fmt.Sprintf("event: batch index %d outside 0..%d", index, MaxBatch-1))
	}
	return Arrival(seq<<batchBits | uint64(index))
}

// Sequence is the stream sequence of the message.
func (a Arrival) Sequence() uint64 { return uint64(a) >> batchBits }

// Index is the place in the batch, 0 for a message that is no batch.
func (a Arrival) Index() int { return int(a & (1<<batchBits - 1)) }

// String writes seq, or seq-index for a later event of a batch.
func (a Arrival) String() string {
	if a.Index() == 0 {
		return strconv.FormatUint(a.Sequence(), 10)
	}
	return fmt.Sprintf("%d-%d", a.Sequence(), a.Index())
}

// maxSequenceDigits bounds the sequence that ParseArrival reads: sixteen
// digits are less than the 2^54 that fit an Arrival, and more than any stream
// will see.
const maxSequenceDigits = 16

// ParseArrival reads what Arrival.String writes: "seq", or "seq-index" for a
// later event of a batch. The sequence is 1 to 9999999999999999, the index 1
// to MaxBatch-1; zeros in front, signs and an index of 0 are refused, so that
// an arrival has one spelling.
func ParseArrival(text string) (Arrival, error) {
	seqText, indexText, batch := strings.Cut(text, "-")
	seq, ok := parsePositive(seqText, maxSequenceDigits)
	if !ok {
		return 0, fmt.Errorf("arrival %s: want a stream sequence such as 4711, or 4711-3 for event 3 of a batch", quote(text))
	}
	if !batch {
		return ArrivalAt(seq, 0), nil
	}
	index, ok := parsePositive(indexText, 3)
	if !ok || index >= MaxBatch {
		return 0, fmt.Errorf("arrival %s: the place in the batch is %s: want 1 to %d", quote(text), quote(indexText), MaxBatch-1)
	}
	return ArrivalAt(seq, int(index)), nil
}

// parsePositive reads a decimal of at most digits digits, without a sign or a
// zero in front.
func parsePositive(text string, digits int) (uint64, bool) {
	if text == "" || len(text) > digits || text[0] == '0' {
		return 0, false
	}
	var n uint64
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		n = n*10 + uint64(text[i]-'0')
	}
	return n, true
}
