//go:build unix

package main

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// workerScenarios are about workers and what they own.
func workerScenarios() []scenario {
	return []scenario{
		{
			title:   "A worker dies",
			alerts:  []string{"UsagebridgeWorkerDown ticket"},
			provoke: killWorkers(1), mend: startWorkers(1),
		},
		{
			title:   "A worker dies again and again",
			alerts:  []string{"UsagebridgeWorkerRestarting ticket"},
			span:    20 * time.Second, // it has to start, be seen and die three times
			provoke: crashLoop, mend: endCrashLoop,
		},
		{
			title:   "Workers freeze again and again",
			alerts:  []string{"UsagebridgeLeaseFlapping ticket"},
			span:    27 * time.Second, // a lease has to end once within each window
			provoke: beginFreezing, sustain: freeze, mend: endFreezing,
		},
		{
			title:   "A part of the ledger cannot be read",
			alerts:  []string{"UsagebridgePartitionsWithoutOwner page", "UsagebridgePartitionFaults page"},
			provoke: spoilLedger, mend: mendLedger,
		},
		{
			title:   "No worker is left",
			alerts:  []string{"UsagebridgeNoWorkers page"},
			provoke: killWorkers(0, 1), mend: startWorkers(0, 1),
		},
	}
}

func killWorkers(which ...int) func(context.Context, *stage) error {
	return func(_ context.Context, s *stage) error {
		for _, i := range which {
			s.tell("%s is killed.", s.workers[i].name)
			s.workers[i].kill()
		}
		return nil
	}
}

func startWorkers(which ...int) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		// Before their leases have ended they count as alive.
		if !wait(ctx, leaseTTL) {
			return ctx.Err()
		}
		if err := s.look(ctx, "doctor", "--offline"); err != nil {
			return err
		}
		for _, i := range which {
			s.tell("%s is started again.", s.workers[i].name)
			if err := s.start(i); err != nil {
				return err
			}
		}
		return nil
	}
}

func crashLoop(ctx context.Context, s *stage) error {
	s.tell("worker-2 is killed and started again, four times.")
	for range 4 {
		s.workers[1].kill()
		if err := s.start(1); err != nil {
			return err
		}
		// Long enough to be scraped.
		if !wait(ctx, 2500*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

func endCrashLoop(ctx context.Context, s *stage) error {
	s.tell("What killed it is mended.")
	return s.look(ctx, "doctor", "--offline")
}

func beginFreezing(_ context.Context, s *stage) error {
	s.tell("worker-1 and worker-2 stand still in turns (SIGSTOP), each time for longer than a lease lasts.")
	return nil
}

// freeze freezes the next worker until its lease has ended, and lets it find out.
func freeze(ctx context.Context, s *stage) error {
	p := s.workers[s.frozen%len(s.workers)]
	s.frozen++
	_ = p.signal(syscall.SIGSTOP)
	whole := wait(ctx, leaseTTL+500*time.Millisecond)
	_ = p.signal(syscall.SIGCONT)
	if !whole || !wait(ctx, 1500*time.Millisecond) {
		return ctx.Err()
	}
	return nil
}

func endFreezing(ctx context.Context, s *stage) error {
	s.tell("The machine has enough processors again.")
	return s.look(ctx, "doctor", "--offline")
}

// spoiled is an entry of acme/msp-1 that a worker has to read.
const spoiled = "msp-1.count.a-1.s-1"

func spoilLedger(ctx context.Context, s *stage) error {
	s.tell("Somebody writes what is no entry over one in the ledger, and the workers are restarted.")
	bucket, err := s.js.KeyValue(ctx, "LEDGER_"+vendor)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	key, value, err := s.find(ctx, bucket, spoiled)
	if err != nil {
		return err
	}
	s.saved = saved{key, value}
	if _, err := bucket.Put(ctx, key, []byte("{")); err != nil {
		return fmt.Errorf("spoil the ledger: %w", err)
	}
	return s.restart()
}

func mendLedger(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "doctor", "--offline"); err != nil {
		return err
	}
	s.tell("The entry is restored from the backup.")
	bucket, err := s.js.KeyValue(ctx, "LEDGER_"+vendor)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	if _, err := bucket.Put(ctx, s.saved.key, s.saved.value); err != nil {
		return fmt.Errorf("restore the ledger: %w", err)
	}
	return nil
}
