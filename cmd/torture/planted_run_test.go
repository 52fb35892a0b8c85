//go:build unix && torturefaults

package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
)

// tries is how many schedules a planted fault may survive.
const tries = 4

// TestEveryPlantedFaultIsFound plays the directed schedules of each fault
// against the program as it is, which must pass, and with the fault, which
// must not.
func TestEveryPlantedFaultIsFound(t *testing.T) {
	t.Parallel()
	server, err := natstest.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "usagebridge")
	if err := goBuild(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for _, f := range plantedFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			flag, err := overlay(t.Context(), dir, f.edits...)
			if err != nil {
				t.Fatal(err)
			}
			bad := filepath.Join(dir, "usagebridge")
			if err := goBuild(t.Context(), bad, flag); err != nil {
				t.Fatal(err)
			}
			if v := playOne(t, binaries{worker: good, server: server}, f.schedule(1)); len(v) > 0 {
				t.Fatalf("without the fault: %v", v)
			}
			for seed := range uint64(tries) {
				if v := playOne(t, binaries{worker: bad, server: server}, f.schedule(seed+1)); len(v) > 0 {
					t.Logf("found with seed %d: %v", seed+1, v[0])
					return
				}
			}
			t.Errorf("no violation in %d schedules, want one", tries)
		})
	}
}

// schedule is the directed schedule of a fault.
func (f *planted) schedule(seed uint64) *schedule {
	s := draw(seed, 1)
	s.workers, s.deeds = 2, []deed{{kind: partnerPlan, plan: calmPlan()}, {at: 2 * time.Second, kind: mapLate, name: orgLate}}
	s.deeds = append(s.deeds, f.deeds...)
	if len(f.rounds) > 0 {
		s.posts = slices.DeleteFunc(s.posts, func(p post) bool { return p.at > time.Second })
	}
	for i, at := range f.rounds {
		for _, organization := range organizations {
			s.posts = append(s.posts, round(i, at, organization))
		}
	}
	return s
}

// round is a batch with a figure of every key.
func round(number int, at time.Duration, organization string) post {
	p := post{at: at}
	for _, account := range accounts {
		for _, service := range services {
			p.notes = append(p.notes, note{
				id: fmt.Sprint("round", number, organization, account, service), source: source, organization: organization, typ: "usage.count.v1",
				second: (200 + number) * minute, account: account, service: service, units: fmt.Sprint(10_000 + number),
			})
		}
	}
	return p
}
