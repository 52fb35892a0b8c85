//go:build unix

// Package natstest runs real nats-server processes for tests: one, or three as
// a JetStream cluster, built from this module, on free ports of the loopback,
// to be killed, paused and started again in the middle of what is tested.
//
// It deliberately knows nothing of streams, of what they are for, or of the
// clients: what a test needs of those it makes itself.
package natstest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// startTries is how often Start chooses ports before it gives up: between
// finding a port free and listening on it another process may take it.
const startTries = 3

// Config says what to start.
type Config struct {
	// Dir keeps data, logs and configurations, one directory each server. It
	// must exist.
	Dir string
	// Servers is 1 or 3.
	Servers int
	// Binary is the path of nats-server; empty: Build makes it.
	Binary string
	// Secure starts the servers with the very files of deploy/nats: TLS,
	// nkeys and permissions. It needs 3 servers.
	Secure bool
	// Sync is JetStream's sync_interval: "always", which is the default and
	// what a store of events needs, or a duration such as 1m.
	Sync string
}

// Cluster is what Start has started. Its methods are for one goroutine at a
// time, those of different servers for as many.
type Cluster struct {
	servers  []*Server
	secrets  *Secrets // nil unless Secure
	watchdog *watchdog
	closing  sync.Once
}

// Build builds nats-server in the version that this module names into the
// user's cache directory and gives its path. Processes that build at the same
// time wait for each other; what is up to date is not built again.
func Build(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "usagebridge-natstest")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("build nats-server: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return "", fmt.Errorf("build nats-server: wait for another process: %w", err)
	}
	defer func() { _ = lock.Close() }()
	path := filepath.Join(dir, "nats-server")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/nats-io/nats-server/v2") //nolint:gosec // the path is ours
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")                                     // flags such as -race are for the tests alone
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return path, nil
}

// Start starts the servers and returns when JetStream is ready on all of them.
func Start(ctx context.Context, c Config) (*Cluster, error) {
	if c.Servers != 1 && c.Servers != 3 {
		return nil, fmt.Errorf("start nats-server: %d servers: want 1 or 3", c.Servers)
	}
	if c.Secure && c.Servers != 3 {
		return nil, errors.New("start nats-server: deploy/nats/cluster.conf, which Secure uses, is for 3 servers")
	}
	c.Sync = cmp.Or(c.Sync, "always")
	if c.Binary == "" {
		path, err := Build(ctx)
		if err != nil {
			return nil, err
		}
		c.Binary = path
	}
	for try := 1; ; try++ {
		cluster, err := start(ctx, c)
		if err == nil {
			return cluster, nil
		}
		cluster.Close()
		if try == startTries || !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

// start gives a cluster to be closed even with an error.
func start(ctx context.Context, c Config) (*Cluster, error) {
	cluster := &Cluster{}
	if c.Secure {
		secrets, err := makeSecrets(filepath.Join(c.Dir, "secrets"))
		if err != nil {
			return cluster, err
		}
		cluster.secrets = secrets
	}
	var err error
	if cluster.servers, err = plan(ctx, c, cluster.secrets); err != nil {
		return cluster, err
	}
	if cluster.watchdog, err = watch(c.Dir); err != nil {
		return cluster, err
	}
	for _, s := range cluster.servers {
		if err := s.launch(); err != nil {
			return cluster, err
		}
	}
	for _, s := range cluster.servers {
		if err := s.listening(ctx); err != nil {
			return cluster, err
		}
	}
	return cluster, cluster.Ready(ctx)
}

// plan chooses ports and writes the configuration of each server.
func plan(ctx context.Context, c Config, secrets *Secrets) ([]*Server, error) {
	ports, err := freePorts(ctx, 3*c.Servers)
	if err != nil {
		return nil, err
	}
	var routes []string
	for i := range c.Servers {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[3*i+1]))
	}
	var servers []*Server
	for i := range c.Servers {
		s := &Server{
			name: fmt.Sprintf("n%d", i+1), binary: c.Binary, runDir: c.Dir,
			dir:    filepath.Join(c.Dir, fmt.Sprintf("n%d", i+1)),
			client: ports[3*i], cluster: ports[3*i+1], monitor: ports[3*i+2],
			tls: c.Secure,
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return nil, fmt.Errorf("start %s: %w", s.name, err)
		}
		switch {
		case c.Secure:
			err = s.configureSecurely(c, routes, secrets)
		default:
			err = s.configure(c, routes)
		}
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// freePorts finds ports below those that systems give to outgoing connections:
// a server that is down for a while must find its own port free again.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range 100 * n {
		port := 10_000 + rand.IntN(22_000) //nolint:gosec // a port is no secret
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil || slices.Contains(ports, port) {
			continue
		}
		if err := l.Close(); err != nil {
			continue
		}
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports from 10000 to 31999: found %d", n, len(ports))
}

// URL is the addresses of all servers, separated by commas.
func (c *Cluster) URL() string {
	var all []string
	for _, s := range c.servers {
		all = append(all, s.URL())
	}
	return strings.Join(all, ",")
}

// Server is the i-th server, from 0.
func (c *Cluster) Server(i int) *Server { return c.servers[i] }

// Servers are all servers.
func (c *Cluster) Servers() []*Server { return slices.Clone(c.servers) }

// Secrets are the certificates and nkeys of a cluster started with Secure, or
// nil.
func (c *Cluster) Secrets() *Secrets { return c.secrets }

// Ready waits until JetStream is ready on every server that runs: the leader
// is known, every stream and consumer is caught up.
func (c *Cluster) Ready(ctx context.Context) error {
	for _, s := range c.servers {
		if !s.Running() {
			continue
		}
		if err := s.ready(ctx, len(c.servers)); err != nil {
			return err
		}
	}
	return nil
}

// Close ends all servers, as a power cut would, and leaves their directories.
func (c *Cluster) Close() {
	c.closing.Do(func() {
		for _, s := range c.servers {
			_ = s.Kill() // an error: it was not running
		}
		c.watchdog.end()
	})
}
