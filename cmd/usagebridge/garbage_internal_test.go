package main

import "testing"

func TestGarbageIsBoundedByBytesForASmallHeapAndByShareForALargeOne(t *testing.T) {
	for _, c := range []struct {
		live    uint64
		percent int
	}{
		{0, mostPercent},
		{4 << 20, mostPercent},
		{16 << 20, 400},
		{48 << 20, 200},
		{96 << 20, 100},
		{192 << 20, 50},
		{4 << 30, 50},
	} {
		if got := collectorPercent(c.live); got != c.percent {
			t.Errorf("with %d bytes in use: got %d%%, want %d%%", c.live, got, c.percent)
		}
	}
}
