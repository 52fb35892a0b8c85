package main

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
)

func TestGarbageIsBoundedByBytesForASmallHeapAndByShareForALargeOne(t *testing.T) {
	for _, c := range []struct {
		live    uint64
		percent int
	}{
		{0, mostPercent},
		{4 << 20, mostPercent},
		{16 << 20, 400},
		{64 << 20, 200},
		{128 << 20, 100},
		{256 << 20, 50},
		{4 << 30, 50},
	} {
		if got := collectorPercent(c.live); got != c.percent {
			t.Errorf("with %d bytes in use: got %d%%, want %d%%", c.live, got, c.percent)
		}
	}
}

func TestWhatATakeOverLeavesBehindIsGivenBackOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		course := []int{0, 50_000, 400_000, 900_000, 1_000_000, 1_000_000, 1_000_000, 1_010_000, 1_010_000, 0, 0, 150_000, 150_000, 150_000}
		ctx, stop := context.WithCancel(t.Context())
		at, tidied := 0, []int{}
		tidyAfterTakeOver(ctx, func() int {
			if at == len(course) {
				stop()
				return 0
			}
			at++
			return course[at-1]
		}, func() { tidied = append(tidied, at-1) })
		if want := []int{5, 12}; !slices.Equal(tidied, want) {
			t.Errorf("tidied at looks %v, want %v", tidied, want)
		}
	})
}
