//go:build !race

package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// TestASnapshotOfTwentyThousandCountsEndsRight plays it over the real broker:
// 20 parts, twice, in any order, one of them lost and sent again after a
// restart of the worker.
func TestASnapshotOfTwentyThousandCountsEndsRight(t *testing.T) {
	t.Parallel()
	const accounts, services, named, parts = 200, 110, 100, 20
	s := newCrashSite(t, sandbox.Plan{})
	s.env = append(s.env, "USAGEBRIDGE_SNAPSHOT_ZERO_KEYS=0")
	kill := s.worker()
	js, err := jetstream.New(s.app.broker.Conn())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now().Add(-time.Hour).UTC()
	send := func(id, typ string, at time.Time, data event.Data) {
		e := event.Event{ID: id, Source: "//test", Type: typ, Time: at, Vendor: "acme", Organization: "m", Data: data}
		if _, err := js.Publish(context.WithoutCancel(t.Context()), e.Subject().String(), e.Structured()); err != nil {
			t.Fatal(err)
		}
	}
	list := make([]event.Snapshot, parts)
	for i := range list {
		list[i] = event.Snapshot{SnapshotID: "month", Part: i + 1, Parts: parts}
	}
	for v := range services {
		send(fmt.Sprint("s", v), event.TypeService, begun, event.Service{ServiceID: fmt.Sprint("s", v), Name: "S"})
	}
	first := event.Snapshot{SnapshotID: "before", Part: 1, Parts: 3}
	for a := range accounts {
		account := fmt.Sprint("a", a)
		send(account, event.TypeAccount, begun, event.Account{AccountID: account, Name: "A"})
		for v := range services {
			count := event.Count{AccountID: account, ServiceID: fmt.Sprint("s", v), UnitCount: event.UnitsScale}
			if first.Counts = append(first.Counts, count); len(first.Counts) == 8000 || a == accounts-1 && v == services-1 {
				send(fmt.Sprint("before/", first.Part), event.TypeSnapshot, begun, first)
				first.Part, first.Counts = first.Part+1, nil
			}
			if v < named {
				part := &list[(a*named+v)*parts/(accounts*named)]
				count.UnitCount = event.Units(2+a+v) * event.UnitsScale
				part.Counts = append(part.Counts, count)
			}
		}
	}
	for _, i := range []int{19, 3, 11, 0, 1, 2, 18, 17, 16, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 3, 19, 0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18} {
		send(fmt.Sprint("month/", i), event.TypeSnapshot, begun.Add(time.Minute), list[i])
	}
	units := func(account, service int) string {
		report, _ := s.partner.ReportOf("acme/m")
		value := report.Counts[fmt.Sprint("a", account)][fmt.Sprint("s", service)]
		return value.String()
	}
	eventuallyTrue(t, 2*time.Minute, "a part's figure reaches the partner", func() bool { return units(199, 99) == "300" })
	eventuallyTrue(t, time.Minute, "an unnamed key keeps its figure while a part is missing", func() bool { return units(199, 105) == "1" })
	kill()
	kill = s.worker()
	defer kill()
	send("month/7", event.TypeSnapshot, begun.Add(time.Minute), list[7])
	wrong := ""
	eventuallyTrue(t, 2*time.Minute, "every key has its figure or 0: "+wrong, func() bool {
		report, _ := s.partner.ReportOf("acme/m")
		for a := range accounts {
			for v := range services {
				want := "0"
				if v < named {
					want = fmt.Sprint(2 + a + v)
				}
				if value := report.Counts[fmt.Sprint("a", a)][fmt.Sprint("s", v)]; value.String() != want {
					wrong = fmt.Sprintf("a%d/s%d has %v, want %s", a, v, value, want)
					return false
				}
			}
		}
		return true
	})
}
