package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
)

// stopTeller says once of each vendor of a replay that it is stopped: what is
// replayed waits in its log, and nothing of it shows.
type stopTeller struct {
	cli  *cli
	app  *app
	told map[string]bool // by vendor
}

func newStopTeller(c *cli, a *app) *stopTeller {
	return &stopTeller{cli: c, app: a, told: map[string]bool{}}
}

// tell looks at the vendors of a replay's parts. before is called before
// something is said.
func (t *stopTeller) tell(ctx context.Context, parts []deadletter.Part, before func()) error {
	records, err := t.app.vendorRecords(ctx)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil // set up by an older version: nothing can be stopped
	}
	if err != nil {
		return err
	}
	vendors := map[string]bool{}
	for _, part := range parts {
		vendors[part.Vendor] = true
	}
	for _, vendor := range slices.Sorted(maps.Keys(vendors)) {
		stopped := records[vendor].Stopped
		if stopped == nil || t.told[vendor] {
			continue
		}
		t.told[vendor] = true
		before()
		t.cli.say("vendor %s is stopped (%s): its events are not folded, replayed ones neither, until `usagebridge vendors resume %s --why …`",
			printable(vendor), printable(cut(stopped.Why, 200)), printable(vendor))
	}
	return nil
}
