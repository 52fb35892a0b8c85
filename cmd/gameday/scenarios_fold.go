//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// foldScenarios are about events that are not folded.
func foldScenarios() []scenario {
	return []scenario{
		{
			title:   "Most of what a billing system publishes is broken",
			alerts:  []string{"UsagebridgeVendorStopped page"},
			provoke: publishBroken, mend: resumeVendor,
		},
		{
			title: "The ledger takes no more writes",
			alerts: []string{
				"UsagebridgeConsumerStalled page", "UsagebridgeBacklogOld ticket", "UsagebridgeRetentionInDanger page", "UsagebridgeLedgerWriteConflicts ticket",
			},
			provoke: fillLedger, sustain: moreFigures("msp-2"), mend: emptyLedger,
		},
	}
}

// ledgerStream is the stream of the vendor's ledger.
const ledgerStream = "KV_LEDGER_" + vendor

// broken is how many events stop the vendor, half of the last 1000, and a few
// that are left in the log: more than 500 of those would stop it again.
const broken = 700

func publishBroken(ctx context.Context, s *stage) error {
	s.tell("The billing system publishes %d events that are no JSON.", broken)
	subject := "usage.v1." + vendor + ".msp-1.count.a-1.s-1"
	for i := range broken {
		if _, err := s.js.PublishAsync(subject, fmt.Appendf(nil, "{%d", i)); err != nil {
			return fmt.Errorf("publish what is broken: %w", err)
		}
	}
	select {
	case <-s.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return fmt.Errorf("publish what is broken: not acknowledged within %v", patience)
	}
}

func resumeVendor(ctx context.Context, s *stage) error {
	for _, args := range [][]string{{"vendors", "show", vendor}, {"dlq", "ls"}} {
		if err := s.look(ctx, args...); err != nil {
			return err
		}
	}
	s.tell("The billing system has been mended. What it published before cannot be.")
	return each(
		func() error { return s.run(ctx, "vendors", "resume", vendor, "--why", "the billing system is mended") },
		func() error {
			return s.run(ctx, "dlq", "drop", "--vendor", vendor, "--reason", "malformed", "--yes", "--why", "published again")
		},
		func() error { return s.look(ctx, "vendors", "show", vendor) },
	)
}

func fillLedger(ctx context.Context, s *stage) error {
	s.tell("The stream %s may hold no more than it does (as on a full disk), and figures are published.", ledgerStream)
	err := s.edit(ctx, ledgerStream, func(c *jetstream.StreamConfig, i *jetstream.StreamInfo) { c.MaxBytes = int64(i.State.Bytes) + 1 })
	if err != nil {
		return err
	}
	return s.figures(ctx, "msp-1", 40, time.Now())
}

func emptyLedger(ctx context.Context, s *stage) error {
	for _, args := range [][]string{{"vendors", "show", vendor}, {"doctor", "--offline"}} {
		if err := s.look(ctx, args...); err != nil {
			return err
		}
	}
	s.tell("`nats stream edit %s --max-bytes=-1`", ledgerStream)
	return s.edit(ctx, ledgerStream, func(c *jetstream.StreamConfig, _ *jetstream.StreamInfo) { c.MaxBytes = -1 })
}

// eventsStream is the vendor's log.
var eventsStream = broker.EventsStream(vendor)
