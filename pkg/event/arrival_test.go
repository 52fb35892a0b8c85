package event_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestAnArrivalIsReadAsItIsWrittenAndKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seq, index := rapid.Uint64Range(1, 1e16-1).Draw(t, "sequence"), rapid.IntRange(0, event.MaxBatch-1).Draw(t, "index")
		a := event.ArrivalAt(seq, index)
		got, err := event.ParseArrival(a.String())
		if err != nil || got != a || got.Sequence() != seq || got.Index() != index {
			t.Fatalf("%d, %d is written %s and read as %s, %v", seq, index, a, got, err)
		}
		if later := event.ArrivalAt(seq+1, 0); later <= a {
			t.Fatalf("arrival %s is not before %s", a, later)
		}
	})
}

func TestAnArrivalHasOneSpelling(t *testing.T) {
	for _, text := range []string{"", "0", "-1", "+1", "01", "1-", "1-0", "1-01", "1-1000", "1--1", "1-1-1", "x", " 1", "10000000000000000", "1e3"} {
		if got, err := event.ParseArrival(text); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%q: got %s, %v, want an error with what would be right", text, got, err)
		}
	}
}

func TestAnIndexOutsideOfABatchIsAProgrammersMistake(t *testing.T) {
	for _, index := range []int{-1, event.MaxBatch} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("index %d: got an arrival, want a panic", index)
				}
			}()
			event.ArrivalAt(1, index)
		}()
	}
}
