package worker

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// tableEntry is the entry of key number n as it is after a few days: four
// figures, the newest delivered.
func tableEntry(n int) ledger.Entry {
	at := time.Unix(1_800_000_000, 0).UnixNano()
	e := ledger.Entry{
		Key:   ledger.CountKey(fmt.Sprintf("msp-%04d", n/10_000), fmt.Sprintf("account-%05d", n%10_000/10), fmt.Sprintf("service-%02d", n%10)),
		State: ledger.Synced, Revision: uint64(n + 1),
	}
	for i := range 4 {
		e.Seen = append(e.Seen, ledger.Seen{
			Version: ledger.Version{Time: at - int64(i)*int64(time.Hour), Arrival: uint64(1_000_000 - i*100_000 + n)},
			Value:   ledger.Value{Units: int64(n%1000+i) * 1_000_000}, Event: uint64(n)*0x9e3779b97f4a7c15 + uint64(i), Disposition: ledger.Applied,
		})
	}
	e.Delivered = ledger.Delivered{
		Version: e.Seen[0].Version, Value: e.Seen[0].Value, At: at, Receipt: ledger.Receipt{RequestID: fmt.Sprintf("0198a6a0-0000-7000-8000-%012d", n)},
	}
	e.Answer = ledger.Answer{At: at, Status: 201}
	return e
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkTable puts keys into a table; bytes/key is what they keep in memory.
func BenchmarkTable(b *testing.B) {
	before := heapInUse()
	t := newTable()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		t.put(tableEntry(n))
		n++
	}
	b.ReportMetric(float64(heapInUse()-before)/float64(n), "bytes/key")
	runtime.KeepAlive(t)
}
