package main

import (
	"context"
	"fmt"
	"time"
)

// How long an embedded store may refuse to work before the process ends, and
// how often it is asked.
const (
	stuckPatience = time.Minute
	stuckLook     = 5 * time.Second
)

// endWhenStuck ends, with the cause, when ready has not been nil for a minute.
// A server that has met a full disk writes no more until it is started again,
// even when there is room: inside this process only a restart mends that, and
// whoever keeps the process running will see to it.
func endWhenStuck(ctx context.Context, ready func() error) error {
	tick := time.NewTicker(stuckLook)
	defer tick.Stop()
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := ready()
		switch {
		case err == nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= stuckPatience:
			return fmt.Errorf("the embedded store has not worked for %v, ending so that a restart can mend it: %w", stuckPatience, err)
		}
	}
}
