//go:build unix

package main

import (
	"context"
	"errors"
	"os/exec"
	"time"
)

// scenario is what provokes some alerts, and what ends them.
type scenario struct {
	title   string
	alerts  []string          // ids of their rules
	where   map[string]string // labels of the alerts that are meant; none: any
	setting setting           // the world it needs, usual if there is nothing in it
	// span is what the longest time of its alerts is scaled down to, usualSpan if 0.
	span time.Duration

	prepare func(context.Context, *stage) error // nil: nothing
	provoke func(context.Context, *stage) error
	sustain func(context.Context, *stage) error // again and again until all fire; nil: nothing
	mend    func(context.Context, *stage) error // as the runbook says
	after   func(context.Context, *stage) error // puts the world in order for the next one; nil: nothing
}

func (s *scenario) about(labels map[string]string) bool { return matches(labels, s.where) }

// stage is a world in which a scenario is played, and the chapter that tells it.
type stage struct {
	*world

	chapter *chapter
}

// tell adds what was done to the world to the transcript.
func (s *stage) tell(format string, args ...any) { s.chapter.note(format, args...) }

// run runs a command of the runbook and shows it.
func (s *stage) run(ctx context.Context, args ...string) error {
	out, err := s.command(ctx, args...)
	s.chapter.command(args, out)
	return err
}

// look runs a command of the runbook whose exit code is its verdict.
func (s *stage) look(ctx context.Context, args ...string) error {
	err := s.run(ctx, args...)
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return nil
	}
	return err
}

// each does one after the other, until one fails.
func each(all ...func() error) error {
	for _, do := range all {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}
