//go:build unix

package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// process starts a worker that can be sent signals, with so many calls per
// second at most (0: no limit).
func (s *crashSite) process(rate int) *exec.Cmd {
	s.t.Helper()
	path, err := exec.LookPath("usagebridge")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), path, "run")
	cmd.Env = append(slices.Clone(s.env), fmt.Sprint("USAGEBRIDGE_PARTNER_RATE=", rate))
	cmd.Stderr = s.t.Output()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// publishRound publishes one figure for every key: the number of the round.
func (s *crashSite) publishRound(p *publisher.Publisher, begun time.Time, round int) {
	s.t.Helper()
	var events []*event.Event
	add := func(data event.Data) {
		events = append(events, &event.Event{Organization: "m", Time: begun.Add(time.Duration(round) * time.Minute), Data: data})
	}
	for a := range crashAccounts {
		add(event.Account{AccountID: fmt.Sprint("a", a), Name: "A"})
		for v := range crashServices {
			add(event.Service{ServiceID: fmt.Sprint("s", v), Name: "S"})
			add(event.Count{AccountID: fmt.Sprint("a", a), ServiceID: fmt.Sprint("s", v), UnitCount: event.Units(round) * event.UnitsScale})
		}
	}
	if _, err := p.PublishAll(s.t.Context(), publisher.Records(slices.Values(events)), func(publisher.Result) {}); err != nil {
		s.t.Fatal(err)
	}
}

// holding counts the keys that have the figure at the partner.
func (s *crashSite) holding(figure string) (n int) {
	report, _ := s.partner.ReportOf("acme/m")
	for _, services := range report.Counts {
		for _, value := range services {
			if value.String() == figure {
				n++
			}
		}
	}
	return n
}

func TestAWorkerThatWasFrozenSendsNothingOldWhenItGoesOn(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	p, err := publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now().Add(-time.Hour)
	s.publishRound(p, begun, 1)
	frozen := s.process(50) // when it wakes the next call is long due
	eventuallyTrue(t, time.Minute, "the first worker is at work", func() bool { return s.holding("1") >= 20 })
	if err := frozen.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.publishRound(p, begun, 2)
	s.process(0) // takes over once the lease has ended
	const keys = crashAccounts * crashServices
	eventuallyTrue(t, time.Minute, "the second worker has delivered everything", func() bool { return s.holding("2") == keys })
	if err := frozen.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// Nothing can be waited for: what it would send, it sends within moments.
	deadline, tick := time.After(3*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for woken := true; woken && s.holding("1") == 0; {
		select {
		case <-tick.C:
		case <-deadline:
			woken = false
		}
	}
	s.checkOrder()
}
