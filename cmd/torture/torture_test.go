//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A few schedules that never change, so that what can break them does not wait
// for make torture. No worker's clock jumps here: building one takes a minute.
func TestTheInvariantsHoldInAFewSchedules(t *testing.T) {
	t.Parallel()
	server, err := natstest.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bins := binaries{server: server, worker: filepath.Join(t.TempDir(), "usagebridge")}
	if err := goBuild(t.Context(), bins.worker); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		seed  uint64
		nodes int
	}{{1, 1}, {2, 1}, {3, 3}} {
		t.Run(fmt.Sprintf("seed %d on %d", c.seed, c.nodes), func(t *testing.T) {
			t.Parallel()
			s := draw(c.seed, c.nodes)
			for _, v := range playOne(t, bins, s) {
				t.Errorf("%v", v)
			}
			if t.Failed() {
				t.Logf("%v", s)
			}
		})
	}
}

// playOne plays a schedule in a directory of its own.
func playOne(t *testing.T, bins binaries, s *schedule) []violation {
	t.Helper()
	dir := filepath.Join(t.TempDir(), fmt.Sprint("seed-", s.seed))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o, err := run(t.Context(), dir, bins, s)
	if err != nil {
		t.Fatal(err)
	}
	return o.violations
}

func TestWrongUseIsSaid(t *testing.T) {
	for _, o := range []options{{nodes: 2, repeat: 1}, {nodes: 1}} {
		var said strings.Builder
		if got := torture(t.Context(), o, io.Discard, &said); got != codeUse || !strings.Contains(said.String(), "want 1 or 3 servers") {
			t.Errorf("%+v: exit code %d, %q; want %d and what would be right", o, got, said.String(), codeUse)
		}
	}
}

func TestASessionEndsWhenItShould(t *testing.T) {
	ago := time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		session session
		want    bool
	}{
		"time is left":              {session{options: options{minutes: 2}, began: ago}, true},
		"no time is left":           {session{options: options{minutes: 0.5}, began: ago}, false},
		"runs are left":             {session{options: options{runs: 2, repeat: 3}, began: ago, runs: 5}, true},
		"no runs are left":          {session{options: options{runs: 2, repeat: 3}, began: ago, runs: 6}, false},
		"a violation":               {session{options: options{runs: 2, repeat: 1}, bad: 1}, false},
		"a violation, and to go on": {session{options: options{runs: 2, repeat: 1, goOn: true}, bad: 1}, true},
	} {
		if got := c.session.more(); got != c.want {
			t.Errorf("%s: another schedule: %t, want %t", name, got, c.want)
		}
	}
}

func TestAViolationIsToldWithItsScheduleAndHowToRepeatIt(t *testing.T) {
	var out strings.Builder
	s := session{options: options{nodes: 3}, out: &out}
	s.tell(outcome{schedule: draw(7, 3), dir: "/kept", violations: []violation{{"it is wrong", []string{"published 7"}}}})
	for _, want := range []string{
		"seed 7: ", "VIOLATION it is wrong", "published 7", "partner faults", "kept in /kept", "make torture SEED=7 RUNS=1 NODES=3",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in what is told:\n%s", want, out.String())
		}
	}
	if s.bad != 1 {
		t.Errorf("schedules with violations: got %d, want 1", s.bad)
	}
}
