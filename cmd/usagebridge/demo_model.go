package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// demoKey names one figure at the partner.
type demoKey struct{ organization, account, service string }

func (k demoKey) String() string {
	return printable(k.organization + " / " + k.account + " / " + k.service)
}

// sentFigure is one figure as the demo publishes it. Of two for one key the
// one with the greater order is stored later.
type sentFigure struct {
	key   demoKey
	id    string
	time  time.Time
	order int
	units event.Units
}

// demoFigure is what must become of one key.
type demoFigure struct {
	newest sentFigure
	// ranks orders the values of the key from the oldest figure to the newest.
	// Figures that follow one another with the same value share a rank.
	ranks map[event.Units]int
}

// newestFigures is the demo's own idea of what the partner must hold in the
// end. It is written from the event contract alone and shares nothing with
// the ledger: the greatest time wins, on a tie the later arrival, and an event
// that was seen before does not count again.
func newestFigures(sent []sentFigure) map[demoKey]demoFigure {
	first := map[string]sentFigure{}
	for _, f := range sent {
		if known, ok := first[f.id]; !ok || f.order < known.order {
			first[f.id] = f
		}
	}
	byKey := map[demoKey][]sentFigure{}
	for _, f := range first {
		byKey[f.key] = append(byKey[f.key], f)
	}
	figures := make(map[demoKey]demoFigure, len(byKey))
	for key, list := range byKey {
		slices.SortFunc(list, byTimeAndOrder)
		ranks := make(map[event.Units]int, len(list))
		rank := 0
		for i, f := range list {
			if i > 0 && f.units != list[i-1].units {
				rank++
			}
			ranks[f.units] = rank
		}
		figures[key] = demoFigure{newest: list[len(list)-1], ranks: ranks}
	}
	return figures
}

func byTimeAndOrder(a, b sentFigure) int {
	return cmp.Or(a.time.Compare(b.time), cmp.Compare(a.order, b.order))
}
