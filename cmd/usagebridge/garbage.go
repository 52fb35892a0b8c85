package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage may lie beside what is in use before it is collected. The
// default of the language, as much again, is too little for a small worker,
// which would collect many times a second while it catches up, and too much
// for one that keeps a million keys.
const (
	leastGarbage = 64 << 20
	someGarbage  = 128 << 20 // up to which there may be twice of what is in use
	mostPercent  = 1000
)

// paceCollector keeps the garbage within these bounds from now on. An operator
// who sets GOGC is obeyed; GOMEMLIMIT goes on top.
func paceCollector() {
	if os.Getenv("GOGC") == "" {
		afterCollection(0)
	}
}

// afterCollection paces the collector for what is in use now, and again after
// each collection. percent is the present pace.
func afterCollection(percent int) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if p := collectorPercent(live[0].Value.Uint64()); p != percent {
		percent = p
		debug.SetGCPercent(percent)
	}
	// Something that nobody uses: when it is collected, a collection was there.
	type marker struct{ _ [16]byte }
	runtime.AddCleanup(&marker{}, afterCollection, percent)
}

// collectorPercent is the GOGC that lets the garbage grow as far as it may
// beside so many bytes in use.
func collectorPercent(live uint64) int {
	live = max(live, 1<<20)
	garbage := max(leastGarbage, min(2*live, someGarbage), live/2)
	return int(min(100*garbage/live, mostPercent))
}

// A worker that took over many keys at once gives back what reading them has
// left behind. Nothing else would for a long time: it has no reason to collect.
const (
	tidyEvery = 2 * time.Second
	manyKeys  = 100_000 // more than before
)

// tidyAfterTakeOver does so whenever the number of keys has grown much and grows
// no longer, until ctx ends.
func tidyAfterTakeOver(ctx context.Context, keys func() int, tidy func()) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for tidied, before := 0, 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := keys()
		if now == before && now >= tidied+manyKeys {
			tidy()
			tidied = now
		}
		before, tidied = now, min(tidied, now)
	}
}
