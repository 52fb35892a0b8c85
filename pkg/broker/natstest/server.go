//go:build unix

package natstest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	pollEvery = 50 * time.Millisecond
	// stopWait bounds a stop in good order; nats-server itself needs less.
	stopWait = 20 * time.Second
	// logShown is how much of the end of a log an error shows, in bytes.
	logShown = 4 << 10
)

// Server is one nats-server process.
type Server struct {
	name, binary, runDir, dir string
	client, cluster, monitor  int // ports
	environment               []string
	config                    string // path
	tls                       bool

	mu   sync.Mutex
	cmd  *exec.Cmd // nil: never started
	done chan struct{}
}

// Addr is host and port for clients.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.client) }

// URL is the address for clients.
func (s *Server) URL() string {
	if s.tls {
		return "tls://" + s.Addr()
	}
	return "nats://" + s.Addr()
}

// Name is the server's name in its cluster: n1, n2, n3.
func (s *Server) Name() string { return s.name }

// Log is the path of the server's log, which goes on when it is started again.
func (s *Server) Log() string { return filepath.Join(s.runDir, s.name+".log") }

// DataDir is where JetStream keeps the server's data. Removing it while the
// server is down is the loss of a disk.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// Start starts the server again on the same ports and data and returns when it
// takes connections. Cluster.Ready waits for JetStream.
func (s *Server) Start(ctx context.Context) error {
	if err := s.launch(); err != nil {
		return err
	}
	return s.listening(ctx)
}

func (s *Server) launch() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running() {
		return fmt.Errorf("start %s: it runs already", s.name)
	}
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	defer func() { _ = log.Close() }()                  // the process has its own
	cmd := exec.Command(s.binary, "--config", s.config) //nolint:gosec,noctx // built by Build or named by the test; it lives until Close
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), s.environment...)
	// Not of the terminal's group: an interrupt is for the test, which ends
	// its servers, or leaves that to the watchdog.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	if err := os.WriteFile(s.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", s.name, err), cmd.Process.Kill(), cmd.Wait())
	}
	done := make(chan struct{})
	s.cmd, s.done = cmd, done
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		_ = os.Remove(s.pidFile())
		close(done)
	}()
	return nil
}

func (s *Server) pidFile() string { return filepath.Join(s.runDir, s.name+".pid") }

// Running says whether the process is there; a paused one is.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running()
}

func (s *Server) running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Kill ends the process without a chance to write anything, and waits for it.
func (s *Server) Kill() error {
	done, err := s.signal("kill", syscall.SIGKILL)
	if err == nil {
		<-done
	}
	return err
}

// Stop ends the server in good order, and waits for it.
func (s *Server) Stop() error {
	done, err := s.signal("stop", syscall.SIGTERM)
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-time.After(stopWait):
		return errors.Join(s.trouble("stop", fmt.Errorf("it still runs after %v", stopWait)), s.Kill())
	}
}

// Pause makes the process stand still with its connections open, as a machine
// that hangs.
func (s *Server) Pause() error {
	_, err := s.signal("pause", syscall.SIGSTOP)
	return err
}

// Resume lets a paused process go on.
func (s *Server) Resume() error {
	_, err := s.signal("resume", syscall.SIGCONT)
	return err
}

func (s *Server) signal(what string, signal syscall.Signal) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		return nil, fmt.Errorf("%s %s: it does not run", what, s.name)
	}
	if err := s.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%s %s: %w", what, s.name, err)
	}
	return s.done, nil
}

// listening waits until the server takes connections, which it does once its
// own store is recovered.
func (s *Server) listening(ctx context.Context) error {
	return s.poll(ctx, "start", func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// ready waits until the server says that it is healthy and, in a cluster, that
// JetStream has a leader and all peers.
func (s *Server) ready(ctx context.Context, servers int) error {
	return s.poll(ctx, "wait for JetStream of", func() error {
		if _, err := s.get(ctx, "/healthz"); err != nil {
			return err
		}
		if servers == 1 {
			return nil
		}
		body, err := s.get(ctx, "/jsz")
		if err != nil {
			return err
		}
		var is struct {
			Meta struct {
				Leader string `json:"leader"`
				Size   int    `json:"cluster_size"`
			} `json:"meta_cluster"`
		}
		if err := json.Unmarshal(body, &is); err != nil {
			return err
		}
		if is.Meta.Leader == "" || is.Meta.Size != servers {
			return fmt.Errorf("the leader is %q, the cluster has %d servers, want %d", is.Meta.Leader, is.Meta.Size, servers)
		}
		return nil
	})
}

// get asks the server's monitoring.
func (s *Server) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // a paused server never answers
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", s.monitor, path), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Close = true // a kept connection would outlive the test
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return body, err
}

// poll repeats until there is no error, the process ends, or ctx does.
func (s *Server) poll(ctx context.Context, what string, try func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	var last error
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // an error of the end of ctx says nothing of the server
			last = err
		}
		select {
		case <-tick.C:
		case <-done:
			return s.trouble(what, errors.New("the process has ended"))
		case <-ctx.Done():
			return s.trouble(what, fmt.Errorf("%w: %w", ctx.Err(), cmp.Or(last, err)))
		}
	}
}

// trouble shows the end of the log with an error.
func (s *Server) trouble(what string, err error) error {
	log, readErr := os.ReadFile(s.Log())
	if readErr != nil {
		log = []byte(readErr.Error())
	}
	if len(log) > logShown {
		log = log[len(log)-logShown:]
	}
	return fmt.Errorf("%s %s: %w; its log ends:\n%s", what, s.name, err, strings.TrimSpace(string(log)))
}

// configure writes the configuration of a server that trusts everybody.
func (s *Server) configure(c Config, routes []string) error {
	text := fmt.Sprintf(`server_name: %s
listen: "%s"
http: "127.0.0.1:%d"
jetstream { store_dir: %q, sync_interval: %s, max_file_store: 8GB, max_memory_store: 64MB }
`, s.name, s.Addr(), s.monitor, s.DataDir(), c.Sync)
	if c.Servers > 1 {
		text += fmt.Sprintf("cluster { name: test, no_advertise: true, listen: \"127.0.0.1:%d\", routes: [%s] }\n", s.cluster, strings.Join(routes, ", "))
	}
	s.config = filepath.Join(s.dir, "nats.conf")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", s.name, err)
	}
	return nil
}

// watchdog ends the servers when this process dies without doing so: its
// standard input ends then.
type watchdog struct {
	cmd  *exec.Cmd
	hold io.Closer
}

func watch(dir string) (*watchdog, error) {
	const script = `cat >/dev/null; for f in "$0"/*.pid; do [ -f "$f" ] && kill -9 "$(cat "$f")"; done; :`
	cmd := exec.Command("sh", "-c", script, dir) //nolint:gosec,noctx // the script is ours; it lives until Close
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("watch over nats-server: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("watch over nats-server: %w", err)
	}
	return &watchdog{cmd: cmd, hold: hold}, nil
}

func (w *watchdog) end() {
	if w == nil {
		return
	}
	_ = w.hold.Close()
	_ = w.cmd.Wait()
}
