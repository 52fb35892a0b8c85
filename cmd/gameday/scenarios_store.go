//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// storeScenarios are about NATS and what is kept there.
func storeScenarios() []scenario {
	return []scenario{
		{
			title:   "A log of events fills up",
			alerts:  []string{"UsagebridgeStreamNearlyFull ticket", "UsagebridgeStreamNearlyFull page"},
			where:   map[string]string{"stream": "EVENTS_" + small},
			provoke: fillLog, mend: enlargeLog,
		},
		{
			title:   "Somebody has edited a stream",
			alerts:  []string{"UsagebridgeDurabilityUnsafe page"},
			where:   map[string]string{"check": "streams.settings"},
			provoke: shortenWindow, mend: restoreWindow,
		},
		{
			title:   "The statement key is readable for everybody",
			alerts:  []string{"UsagebridgeDoctorFinding ticket"},
			provoke: exposeKey, mend: hideKey,
		},
		{
			title:   "One copy of everything, on a cluster of three",
			alerts:  []string{"UsagebridgeDurabilityUnsafe ticket"},
			where:   map[string]string{"check": "streams.replicas"},
			setting: setting{servers: 3},
			provoke: func(_ context.Context, s *stage) error {
				s.tell("A cluster of three servers, set up by `usagebridge init` without --replicas.")
				return nil
			},
			mend: replicate,
		},
		{
			title:   "A server does not sync its disk",
			alerts:  []string{"UsagebridgeDurabilityUnsafe page"},
			where:   map[string]string{"check": "nats.sync"},
			setting: setting{servers: 1, sync: "2m"},
			provoke: func(_ context.Context, s *stage) error {
				s.tell("A single server with `sync_interval: 2m`, whose system account lets the workers ask for it.")
				return nil
			},
			mend: syncAlways,
		},
	}
}

// small is a vendor whose log is small.
const small = "globex"

func fillLog(ctx context.Context, s *stage) error {
	if err := s.run(ctx, "init", "--vendor", small, "--partitions", "1", "--max-bytes", "200000"); err != nil {
		return err
	}
	s.tell("Its billing system publishes until the log takes no more.")
	for {
		if err := s.write("counts.csv", s.rows(200)...); err != nil {
			return err
		}
		out, err := s.command(ctx, "publish", "counts.csv", "--integration", small+"/msp-1", "--time", time.Now().UTC().Format(time.RFC3339Nano))
		if err != nil && ctx.Err() == nil {
			s.chapter.command([]string{"publish", "counts.csv", "--integration", small + "/msp-1"}, out)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func enlargeLog(ctx context.Context, s *stage) error {
	return each(
		func() error { return s.look(ctx, "doctor", "--offline", "--vendor", small) },
		func() error { return s.run(ctx, "init", "--vendor", small, "--max-bytes", "400000") },
		func() error { return s.look(ctx, "publish", "counts.csv", "--integration", small+"/msp-1") },
	)
}

func shortenWindow(ctx context.Context, s *stage) error {
	s.tell("`nats stream edit %s --dupe-window=1m`, and the workers are restarted: they look at once then, else every 5 minutes.", eventsStream)
	err := s.edit(ctx, eventsStream, func(c *jetstream.StreamConfig, _ *jetstream.StreamInfo) { c.Duplicates = time.Minute })
	if err != nil {
		return err
	}
	return s.restart()
}

func restoreWindow(ctx context.Context, s *stage) error {
	return each(
		func() error { return s.look(ctx, "doctor", "--offline") },
		func() error { return s.run(ctx, "init", "--vendor", vendor) },
		func() error { return s.look(ctx, "doctor", "--offline") },
		func() error { return s.lookAgain() },
	)
}

// lookAgain has the workers look at what the doctor looks at: they do it when
// they start, and every 5 minutes.
func (s *stage) lookAgain() error {
	s.tell("The workers look again within 5 minutes; here they are restarted, and look at once.")
	return s.restart()
}

func exposeKey(ctx context.Context, s *stage) error {
	s.tell("Somebody copies the key that signs statements and leaves it readable for everybody. The workers are restarted and look at once.")
	if err := s.look(ctx, "statement", "key"); err != nil {
		return err
	}
	if err := os.Chmod(s.statementKey(), 0o644); err != nil { //nolint:gosec // that is what is wrong
		return err
	}
	return s.restart()
}

func (s *stage) statementKey() string { return filepath.Join(s.dir, "store", "statement-key.pem") }

func hideKey(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "doctor", "--offline"); err != nil {
		return err
	}
	s.tell("`chmod 600 statement-key.pem`")
	if err := os.Chmod(s.statementKey(), 0o600); err != nil {
		return err
	}
	return s.lookAgain()
}

func syncAlways(ctx context.Context, s *stage) error {
	if err := s.look(ctx, "doctor", "--offline"); err != nil {
		return err
	}
	s.tell("`sync_interval: always` is set in the server's configuration, and the server is restarted.")
	if err := s.loose.restart(ctx, "always"); err != nil {
		return err
	}
	return each(
		func() error { return s.look(ctx, "doctor", "--offline") },
		func() error { return s.lookAgain() },
	)
}

func replicate(ctx context.Context, s *stage) error {
	return each(
		func() error { return s.look(ctx, "doctor", "--offline") },
		func() error { return s.run(ctx, "init", "--vendor", vendor, "--replicas", "3") },
		func() error { return s.eventually(ctx, func() error { return s.do(ctx, "doctor", "--offline") }) }, // followers catch up
		func() error { return s.lookAgain() },
	)
}
