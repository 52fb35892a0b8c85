//go:build unix

package main

import (
	"context"
	"net/http"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// partnerScenarios are about what keeps figures from the partner.
func partnerScenarios() []scenario {
	return []scenario{
		{
			title:   "The vendor's token is revoked",
			alerts:  []string{"UsagebridgeIntegrationUnauthorized ticket", "UsagebridgeIntegrationUnauthorized page"},
			provoke: revokeTokens, mend: replaceTokens,
		},
		{
			title:   "Nobody finishes the set-up at the MSP",
			alerts:  []string{"UsagebridgeIntegrationNotReady ticket"},
			provoke: addUnmapped, mend: finishMapping,
		},
		{
			title:   "A service is not mapped",
			alerts:  []string{"UsagebridgeFiguresUnmapped ticket"},
			provoke: unmapService, mend: mapService,
		},
		{
			title:   "The partner finds an integration's figures odd",
			alerts:  []string{"UsagebridgeIntegrationAnomaly ticket"},
			provoke: beginAnomaly, mend: endAnomaly,
		},
		{
			title:   "The partner is down",
			alerts:  []string{"UsagebridgePartnerUnavailable ticket", "UsagebridgePartnerUnavailable page", "UsagebridgeDeliveryStalled page"},
			provoke: breakPartner, mend: mendPartner,
		},
		{
			title:   "The partner wants fewer calls",
			alerts:  []string{"UsagebridgePartnerThrottling ticket"},
			provoke: throttle, sustain: moreFigures("msp-1"), mend: mendPartner,
		},
		{
			title:  "The partner refuses every figure",
			alerts: []string{"UsagebridgeIntegrationFlooded page"},
			span:   60 * time.Second, // it must not be over before anybody has looked
			provoke: func(ctx context.Context, s *stage) error {
				return s.refuse(ctx, floodLimit+10)
			},
			mend: endFlood,
		},
		{
			title:   "An integration is paused and forgotten",
			alerts:  []string{"UsagebridgeIntegrationPaused ticket"},
			provoke: pause, mend: unpause,
		},
	}
}

func revokeTokens(ctx context.Context, s *stage) error {
	s.tell("The partner refuses the tokens of acme/msp-1 and acme/msp-2 with 401, and figures are published for both.")
	for _, organization := range []string{"msp-1", "msp-2"} {
		if err := s.partner.RevokeTokens(name(organization)); err != nil {
			return err
		}
		if err := s.figures(ctx, organization, 3, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func replaceTokens(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "integrations", "ls"); err != nil {
		return err
	}
	s.tell("The partner gives new tokens.")
	for _, organization := range []string{"msp-1", "msp-2"} {
		made, err := s.partner.IssueTokens(name(organization))
		if err != nil {
			return err
		}
		flags, err := s.tokens(organization, made)
		if err != nil {
			return err
		}
		if err := s.run(ctx, append([]string{"integrations", "credentials", "set", name(organization), "--why", "the old ones were revoked"}, flags...)...); err != nil {
			return err
		}
	}
	return nil
}

func addUnmapped(ctx context.Context, s *stage) error {
	s.tell("acme/msp-4 is added, its catalog and figures are published, and nobody maps anything.")
	return each(
		func() error { return s.add(ctx, "msp-4") },
		func() error { return s.figures(ctx, "msp-4", 3, time.Now()) },
	)
}

func finishMapping(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "integrations", "show", name("msp-4")); err != nil {
		return err
	}
	s.tell("The person at the MSP maps accounts and services and finishes the review. The next probe finds it.")
	return s.mapped(ctx, "msp-4")
}

func unmapService(ctx context.Context, s *stage) error {
	s.tell("The person at the MSP takes the mapping of the service s-2 back in acme/msp-1, and a figure for it is published.")
	if err := s.partner.Unmap(name("msp-1"), sandbox.Only(), sandbox.Only("s-2")); err != nil {
		return err
	}
	return s.figures(ctx, "msp-1", 2, time.Now())
}

func mapService(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "integrations", "mapping", name("msp-1")); err != nil {
		return err
	}
	s.tell("The person at the MSP maps the service. The next probe finds it.")
	return s.partner.Map(name("msp-1"), sandbox.Only(), sandbox.Only("s-2"))
}

func beginAnomaly(ctx context.Context, s *stage) error {
	s.tell("The partner answers every figure of acme/msp-1 with 403, and figures are published.")
	if err := s.partner.SetAnomaly(name("msp-1"), true); err != nil {
		return err
	}
	return s.figures(ctx, "msp-1", 3, time.Now())
}

func endAnomaly(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "integrations", "show", name("msp-1")); err != nil {
		return err
	}
	s.tell("The partner lifts the block.")
	if err := s.partner.SetAnomaly(name("msp-1"), false); err != nil {
		return err
	}
	return s.run(ctx, "integrations", "resync", name("msp-1"), "--why", "the partner has lifted the block")
}

func breakPartner(ctx context.Context, s *stage) error {
	s.tell("The partner answers everything with 503, and figures of every integration are published.")
	err := s.partner.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{{Probability: 1, Effect: sandbox.StatusBefore, Status: http.StatusServiceUnavailable}}})
	if err != nil {
		return err
	}
	for organization := range s.ready {
		if err := s.figures(ctx, organization, 10, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func mendPartner(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "integrations", "test", name("msp-1")); err != nil {
		return err
	}
	s.tell("The partner is well again.")
	s.partner.ClearFaults()
	return nil
}

func throttle(ctx context.Context, s *stage) error {
	s.tell("The partner answers every call of acme/msp-1 with 429 and Retry-After: 5, while figures are published.")
	err := s.partner.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{{
		Integration: name("msp-1"), Probability: 1, Effect: sandbox.StatusBefore, Status: http.StatusTooManyRequests, RetryAfter: 5 * time.Second,
	}}})
	if err != nil {
		return err
	}
	return s.figures(ctx, "msp-1", 10, time.Now())
}

// moreFigures publishes a few figures now and then.
func moreFigures(organization string) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error { return s.figures(ctx, organization, 3, time.Now()) }
}

// refuse has the partner refuse the counts of acme/msp-1 and publishes n.
func (s *stage) refuse(ctx context.Context, n int) error {
	s.tell("The partner answers counts of acme/msp-1 with 422, and %d are published.", n)
	err := s.partner.SetFaults(sandbox.Plan{Rules: []sandbox.Rule{{
		Integration: name("msp-1"), Operation: sandbox.OperationCount, Probability: 1, Effect: sandbox.StatusBefore,
		Status: http.StatusUnprocessableEntity, Message: "unitCount is not billable",
	}}})
	if err != nil {
		return err
	}
	return s.figures(ctx, "msp-1", n, time.Now())
}

func endFlood(ctx context.Context, s *stage) error {
	for _, args := range [][]string{{"integrations", "show", name("msp-1")}, {"dlq", "ls"}} {
		if err := s.look(ctx, args...); err != nil {
			return err
		}
	}
	s.tell("The partner has mended what refused the figures.")
	s.partner.ClearFaults()
	return each(
		func() error {
			return s.run(ctx, "integrations", "resume", name("msp-1"), "--why", "the partner has mended it")
		},
		func() error { return s.replay(ctx) },
	)
}

// replay replays what acme/msp-1 was refused.
func (s *stage) replay(ctx context.Context) error {
	return s.run(ctx, "dlq", "replay", "--integration", name("msp-1"), "--reason", "rejected", "--yes", "--why", "the partner has mended it")
}

func pause(ctx context.Context, s *stage) error {
	if err := s.run(ctx, "integrations", "pause", name("msp-1"), "--why", "the MSP asked for it"); err != nil {
		return err
	}
	s.tell("Figures are published.")
	return s.figures(ctx, "msp-1", 3, time.Now())
}

func unpause(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "integrations", "show", name("msp-1")); err != nil {
		return err
	}
	return s.run(ctx, "integrations", "resume", name("msp-1"), "--why", "the MSP is ready")
}
