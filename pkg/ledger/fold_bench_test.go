package ledger_test

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// BenchmarkFold folds counts of a thousand keys, each newer than the one
// before; Apply is the part of it that no rule and no snapshot can change.
func BenchmarkFold(b *testing.B) {
	const keys = 1000
	ops := make([][]ledger.Operation, keys)
	for i := range ops {
		ops[i] = figureAt(1, 1, 1)
		ops[i][0].Key = count(i, i%10)
	}
	next := func(i int) []ledger.Operation {
		list := ops[i%keys]
		list[0].Time, list[0].Arrival, list[0].Event, list[0].Value.Units = int64(i), uint64(i), uint64(i), int64(i)
		return list
	}
	b.Run("Apply", func(b *testing.B) {
		s := ledger.Shelf{}
		for i := range b.N {
			op := next(i)[0]
			e := s.Entry(op.Key)
			folded, _, _ := e.Apply(op, now)
			s.Put(folded)
		}
	})
	b.Run("Fold", func(b *testing.B) {
		s, rules := ledger.Shelf{}, &ledger.Rules{}
		for i := range b.N {
			_, _ = ledger.Fold(s, next(i), rules, now)
		}
	})
}
