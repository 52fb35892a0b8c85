//go:build unix

package main

import (
	"context"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// figureScenarios are about figures that are late, or dead.
func figureScenarios() []scenario {
	return []scenario{
		{
			title: "Figures are late",
			alerts: []string{
				"UsagebridgeFiguresLate page 1h", "UsagebridgeFiguresLate page 6h", "UsagebridgeFiguresLate ticket 3d",
			},
			prepare: longReady, provoke: publishLate, sustain: lateFigures, mend: publishInTime,
		},
		{
			title:   "An account is not published",
			alerts:  []string{"UsagebridgeFiguresOld ticket"},
			provoke: forgetAccount, mend: publishAccount,
		},
		{
			title:   "There is more to send than time before the cut-off",
			alerts:  []string{"UsagebridgeCutoffInDanger page"},
			provoke: cutoffNear, mend: sendFaster, after: removeCutoff,
		},
		{
			title:   "A figure waits, and the cut-off comes",
			alerts:  []string{"UsagebridgeFiguresBehindBeforeCutoff ticket", "UsagebridgeFiguresBehindBeforeCutoff page"},
			provoke: waitForCutoff, mend: sendBeforeCutoff, after: removeCutoff,
		},
		{
			title:   "The partner refuses some figures",
			alerts:  []string{"UsagebridgeDeadLettersRising ticket", "UsagebridgeDeadLettersLeft ticket"},
			span:    15 * time.Second, // somebody has to see them rise before it is over
			provoke: func(ctx context.Context, s *stage) error { return s.refuse(ctx, floodLimit-5) },
			mend:    replayLetters,
		},
	}
}

// longReady waits until the integration has been ready for longer than a figure
// may take: before that none can be late.
func longReady(ctx context.Context, s *stage) error {
	if !wait(ctx, time.Until(s.ready["msp-3"].Add(65*time.Second))) {
		return ctx.Err()
	}
	return nil
}

func publishLate(_ context.Context, s *stage) error {
	s.tell("The billing system publishes figures of acme/msp-3 two minutes after they were true, again and again.")
	return nil
}

func lateFigures(ctx context.Context, s *stage) error {
	return s.figures(ctx, "msp-3", 12, time.Now().Add(-2*time.Minute))
}

func publishInTime(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "sync", "status"); err != nil {
		return err
	}
	s.tell("The billing system publishes in time again.")
	return s.figures(ctx, "msp-3", 12, time.Now())
}

func forgetAccount(ctx context.Context, s *stage) error {
	s.tell("The billing system publishes a figure of acme/msp-2 for the account a-99, which it has not published.")
	if err := s.write("counts.csv", "account,service,unitCount", "a-99,s-1,7"); err != nil {
		return err
	}
	return s.do(ctx, "publish", "counts.csv", "--integration", name("msp-2"))
}

func publishAccount(ctx context.Context, s *stage) error {
	for _, args := range [][]string{{"sync", "status"}, {"explain", "--integration", name("msp-2"), "--key", "a-99/s-1"}} {
		if err := s.look(ctx, args...); err != nil {
			return err
		}
	}
	if err := s.write("accounts.csv", "id,name", "a-99,Name of a-99"); err != nil {
		return err
	}
	if err := s.run(ctx, "publish", "accounts.csv", "--integration", name("msp-2"), "--kind", "accounts"); err != nil {
		return err
	}
	s.tell("The person at the MSP maps the new account.")
	return s.eventually(ctx, func() error {
		return s.partner.Map(name("msp-2"), sandbox.Only("a-99"), sandbox.Only())
	})
}

// setCutoff sets the vendor's cut-off.
func (s *stage) setCutoff(ctx context.Context, at time.Time) error {
	at = at.UTC()
	return s.run(ctx, "vendors", "cutoff", vendor, "--day", at.Format("2"), "--at", at.Format("15:04"), "--zone", "UTC", "--why", "the partner bills then")
}

func removeCutoff(ctx context.Context, s *stage) error {
	return s.do(ctx, "vendors", "cutoff", vendor, "--off", "--why", "the game is over")
}

func cutoffNear(ctx context.Context, s *stage) error {
	s.tell("The workers may make two calls a second for each integration (USAGEBRIDGE_PARTNER_RATE=2), 400 figures are published, and the cut-off is two minutes away.")
	return each(
		func() error { return s.restart("PARTNER_RATE=2") },
		func() error { return s.figures(ctx, "msp-2", catalogSize*catalogSize, time.Now()) },
		func() error { return s.setCutoff(ctx, time.Now().Add(2*time.Minute)) },
	)
}

func sendFaster(ctx context.Context, s *stage) error {
	for _, args := range [][]string{{"vendors", "show", vendor}, {"sync", "status"}} {
		if err := s.look(ctx, args...); err != nil {
			return err
		}
	}
	s.tell("The partner allows more: the workers are restarted with USAGEBRIDGE_PARTNER_RATE=50.")
	return s.restart("PARTNER_RATE=50")
}

func waitForCutoff(ctx context.Context, s *stage) error {
	return each(
		func() error { return s.setCutoff(ctx, time.Now().Add(2*time.Hour)) },
		func() error { return pause(ctx, s) },
	)
}

func sendBeforeCutoff(ctx context.Context, s *stage) error {
	return each(
		func() error { return s.look(ctx, "sync", "status") },
		func() error { return unpause(ctx, s) },
	)
}

func replayLetters(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "dlq", "ls"); err != nil {
		return err
	}
	s.tell("The partner has mended what refused the figures.")
	s.partner.ClearFaults()
	return s.replay(ctx)
}
