//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// looseServer is a nats-server that tells the workers how it syncs its disk: its
// system account exports the question, and theirs imports it. Without that the
// doctor in a worker cannot know.
type looseServer struct {
	process *process
	dir     string
	port    int
	url     string
}

// startLoose starts a server with that sync_interval.
func startLoose(ctx context.Context, dir, binary, sync string) (*looseServer, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	s := &looseServer{dir: dir, port: ports[0], url: fmt.Sprintf("nats://worker:worker@127.0.0.1:%d", ports[0])}
	s.process = &process{name: "nats", path: binary, dir: dir, args: []string{"--config", s.config()}}
	if err := s.start(ctx, sync); err != nil {
		s.process.kill()
		return nil, err
	}
	return s, nil
}

func (s *looseServer) config() string { return filepath.Join(s.dir, "nats.conf") }

func (s *looseServer) restart(ctx context.Context, sync string) error {
	s.process.end()
	return s.start(ctx, sync)
}

// start starts the server and waits until it takes connections.
func (s *looseServer) start(ctx context.Context, sync string) error {
	text := fmt.Sprintf(`server_name: n1
listen: "127.0.0.1:%d"
jetstream { store_dir: %q, sync_interval: %s }
accounts {
  SYS { exports: [ { service: "$SYS.REQ.SERVER.PING.VARZ", response_type: stream } ] }
  USAGEBRIDGE {
    jetstream: enabled
    users: [ { user: worker, password: worker } ]
    imports: [ { service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ" } } ]
  }
}
system_account: SYS
`, s.port, filepath.Join(s.dir, "data"), sync)
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("start a server: %w", err)
	}
	if err := s.process.start(os.Environ()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprint("127.0.0.1:", s.port))
		if err == nil {
			return conn.Close()
		}
		if !wait(ctx, 50*time.Millisecond) {
			return fmt.Errorf("start a server: %w: %s", err, s.process.logEnd())
		}
	}
}
