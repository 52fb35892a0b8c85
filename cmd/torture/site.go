//go:build unix

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// How the workers are set: as in production, but for times that fit into
// seconds.
const (
	callTimeout = 800 * time.Millisecond
	partnerRate = 20 // calls per second and integration
	concurrency = 4  // calls under way for each integration
	probeMin    = 200 * time.Millisecond
	probeMax    = 800 * time.Millisecond
)

// site is everything that a run is about: servers, workers and the partner.
type site struct {
	dir     string
	began   time.Time
	bins    binaries
	cluster *natstest.Cluster
	partner *sandbox.Sandbox
	front   *turnstile
	conn    *nats.Conn
	js      jetstream.JetStream
	broker  *broker.Broker
	env     []string

	mu      sync.Mutex
	workers []*workerSlot
	journal []string // what was done, with the times at which it was
}

// binaries are the programs that a run starts.
type binaries struct {
	worker  string
	jumping string // a worker whose wall clock can be made to jump; "": there is none
	server  string
}

// workerSlot is one place at which a worker runs, after each death another.
type workerSlot struct {
	number int
	nats   []*relay // to each server
	out    *relay   // to the partner

	mu    sync.Mutex
	lives int
	cmd   *exec.Cmd
	done  chan struct{}
}

// turnstile notes every request to the partner when it arrives, before the
// partner thinks about it.
type turnstile struct {
	next http.Handler

	mu       sync.Mutex
	whose    map[string]string // integration by token
	arrivals []arrival
}

type arrival struct {
	at           time.Time
	organization string
	call         string
}

// ServeHTTP notes the request and lets it in.
func (t *turnstile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	t.mu.Lock()
	t.arrivals = append(t.arrivals, arrival{time.Now(), t.whose[token], r.Method + " " + r.URL.Path})
	t.mu.Unlock()
	t.next.ServeHTTP(w, r)
}

func (t *turnstile) know(in sandbox.Integration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, organization, _ := strings.Cut(in.Name, "/")
	t.whose[base64.StdEncoding.EncodeToString([]byte(in.VendorToken+":"+in.PartnerToken))] = organization
}

// openSite starts the servers and the partner, and sets everything up.
func openSite(ctx context.Context, dir string, bins binaries, s *schedule) (*site, error) {
	w := &site{dir: dir, bins: bins, began: time.Now(), partner: sandbox.New(sandbox.Config{Human: sandbox.HumanAPI})}
	var err error
	if w.cluster, err = natstest.Start(ctx, natstest.Config{Dir: dir, Servers: s.nodes, Binary: bins.server}); err != nil {
		return nil, err
	}
	w.front = &turnstile{next: w.partner.Handler(), whose: map[string]string{}}
	server := httptest.NewServer(w.front)
	stop := func() {
		w.partner.Close()
		server.Close()
	}
	if err := w.furnish(ctx, s, server.Listener.Addr().String()); err != nil {
		stop()
		w.close()
		return nil, err
	}
	context.AfterFunc(ctx, stop)
	return w, nil
}

// furnish connects, runs init, adds the integrations and starts the workers.
func (w *site) furnish(ctx context.Context, s *schedule, partner string) error {
	w.env = append(os.Environ(),
		"USAGEBRIDGE_STORE_DIR="+filepath.Join(w.dir, "store"), "USAGEBRIDGE_LISTEN=127.0.0.1:0",
		fmt.Sprint("USAGEBRIDGE_PARTNER_RATE=", partnerRate), fmt.Sprint("USAGEBRIDGE_PARTNER_CONCURRENCY=", concurrency),
		fmt.Sprint("USAGEBRIDGE_PARTNER_TIMEOUT=", callTimeout), fmt.Sprint("USAGEBRIDGE_PROBE_MIN=", probeMin), fmt.Sprint("USAGEBRIDGE_PROBE_MAX=", probeMax),
		"USAGEBRIDGE_RETRY_MIN=50ms", "USAGEBRIDGE_RETRY_MAX=500ms", "USAGEBRIDGE_LINGER=20ms", "USAGEBRIDGE_FOLD_WAIT=20ms",
		"USAGEBRIDGE_FLOOD_LIMIT=0", "USAGEBRIDGE_DEAD_LETTER_SHARE=0", "USAGEBRIDGE_SNAPSHOT_ZERO_SHARE=0", "USAGEBRIDGE_SNAPSHOT_ZERO_KEYS=0",
		"USAGEBRIDGE_LOG_LEVEL=info", "USAGEBRIDGE_LOG_FORMAT=json")
	if err := w.connect(ctx); err != nil {
		return err
	}
	// A young cluster may not know yet that all its servers can hold a stream.
	if err := w.insist(ctx, "init", "--vendor", vendor, "--partitions", fmt.Sprint(partitions), "--replicas", fmt.Sprint(s.nodes),
		"--lease-ttl", leaseTTL.String()); err != nil {
		return err
	}
	if err := w.hurry(ctx); err != nil {
		return err
	}
	// The master key is made by the first command that needs it.
	if err := w.addIntegration(ctx, organizations[0]); err != nil {
		return err
	}
	var adding errgroup.Group
	for _, organization := range organizations[1:] {
		adding.Go(func() error { return w.addIntegration(ctx, organization) })
	}
	if err := adding.Wait(); err != nil {
		return err
	}
	for i := range s.workers {
		if err := w.addWorker(ctx, i, partner); err != nil {
			return err
		}
	}
	return nil
}

func (w *site) connect(ctx context.Context) (err error) {
	w.conn, err = nats.Connect(w.cluster.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.Name("torture"))
	if err != nil {
		return fmt.Errorf("connect to the servers: %w", err)
	}
	if w.js, err = jetstream.New(w.conn); err != nil {
		return fmt.Errorf("connect to the servers: %w", err)
	}
	w.broker, err = broker.Connect(ctx, broker.Config{URL: w.cluster.URL(), Name: "torture"})
	return err
}

// hurry lets the messages of a dead worker come again as soon as its leases
// have ended: else every kill would cost a run the time that production waits.
func (w *site) hurry(ctx context.Context) error {
	stream, err := w.js.Stream(ctx, broker.EventsStream(vendor))
	if err != nil {
		return fmt.Errorf("shorten ack_wait: %w", err)
	}
	for p := range partitions {
		consumer, err := stream.Consumer(ctx, fmt.Sprint("p", p))
		if err != nil {
			return fmt.Errorf("shorten ack_wait: %w", err)
		}
		config := consumer.CachedInfo().Config
		if config.AckWait <= leaseTTL {
			continue
		}
		config.AckWait = leaseTTL
		if _, err := stream.UpdateConsumer(ctx, config); err != nil {
			return fmt.Errorf("shorten ack_wait: %w", err)
		}
	}
	return nil
}

func name(organization string) string { return vendor + "/" + organization }

func (w *site) addIntegration(ctx context.Context, organization string) error {
	made, err := w.partner.AddIntegration(sandbox.Integration{Name: name(organization)})
	if err != nil {
		return err
	}
	flags, err := w.tokens(organization, made)
	if err != nil {
		return err
	}
	// By a name that is no loopback address, so that the worker goes there by
	// its proxy, which is its own relay.
	_, err = w.command(ctx, append([]string{"integrations", "add", name(organization), "--api-url", "http://partner.test/api"}, flags...)...)
	return err
}

// tokens writes an integration's tokens to files and gives the flags that name
// them.
func (w *site) tokens(organization string, in sandbox.Integration) ([]string, error) {
	w.front.know(in)
	var flags []string
	for kind, token := range map[string]string{"vendor": in.VendorToken, "partner": in.PartnerToken} {
		path := filepath.Join(w.dir, organization+"."+kind)
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			return nil, fmt.Errorf("write tokens: %w", err)
		}
		flags = append(flags, "--"+kind+"-token-file", path)
	}
	return flags, nil
}

// command runs a command as an operator does, who sees the servers in any
// weather.
func (w *site) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.bins.worker, args...) //nolint:gosec // our own program
	cmd.Env = slices.Concat(w.env, []string{"USAGEBRIDGE_NATS_URL=" + w.cluster.URL()})
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("usagebridge %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// insist runs a command until it succeeds: the servers may be away.
func (w *site) insist(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		try, cancelTry := context.WithTimeout(ctx, 10*time.Second)
		_, err := w.command(try, args...)
		cancelTry()
		if err == nil || strings.Contains(err.Error(), nothingReplayed) {
			return err
		}
		w.note("again: %v", err)
		if !wait(ctx, 200*time.Millisecond) {
			return err
		}
	}
}

// wait waits; false: ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// note writes down what was done.
func (w *site) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.journal = append(w.journal, fmt.Sprintf("%7.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

func (w *site) addWorker(ctx context.Context, number int, partner string) error {
	slot := &workerSlot{number: number}
	w.workers = append(w.workers, slot)
	for i := range w.cluster.Servers() {
		r, err := newRelay(ctx, w.cluster.Server(i).Addr(), false)
		if err != nil {
			return err
		}
		slot.nats = append(slot.nats, r)
	}
	var err error
	if slot.out, err = newRelay(ctx, partner, true); err != nil {
		return err
	}
	return w.launch(slot, 0)
}

// launch starts a worker in the slot; jump, if any, is by how much its wall
// clock jumps a second after.
func (w *site) launch(s *workerSlot, jump time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running() {
		return fmt.Errorf("worker %d runs already", s.number)
	}
	s.lives++
	id := fmt.Sprintf("w%d-%d", s.number, s.lives)
	log, err := os.OpenFile(filepath.Join(w.dir, id+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own
	path := w.bins.worker
	var urls, extra []string
	for _, r := range s.nats {
		urls = append(urls, "nats://"+r.addr())
	}
	if jump != 0 && w.bins.jumping != "" {
		path, extra = w.bins.jumping, []string{
			fmt.Sprint(clockAt, "=", time.Now().Add(time.Second).UnixNano()), fmt.Sprint(clockBy, "=", jump.Nanoseconds()),
		}
	}
	cmd := exec.Command(path, "run") //nolint:gosec,noctx // our own; it lives until the run ends
	cmd.Env = slices.Concat(w.env, extra, []string{
		"USAGEBRIDGE_NATS_URL=" + strings.Join(urls, ","), "USAGEBRIDGE_WORKER_ID=" + id, "HTTP_PROXY=http://" + s.out.addr(), "NO_PROXY=",
	})
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	// The watchdog of the servers ends whatever has its number in a file here.
	pid := filepath.Join(w.dir, id+".pid")
	if err := os.WriteFile(pid, fmt.Append(nil, cmd.Process.Pid), 0o600); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	done := make(chan struct{})
	s.cmd, s.done = cmd, done
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		_ = os.Remove(pid)
		close(done)
	}()
	return nil
}

func (s *workerSlot) running() bool {
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

// signal sends a signal to the worker, if there is one, and gives what is
// closed when it ends.
func (s *workerSlot) signal(sig syscall.Signal) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	_ = s.cmd.Process.Signal(sig) // it may be gone by now
	return s.done
}

// end ends the worker in good order, or not if that takes too long.
func (s *workerSlot) end() {
	done := s.signal(syscall.SIGTERM)
	_ = s.signal(syscall.SIGCONT)
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		<-s.signal(syscall.SIGKILL)
	}
}

// close ends every process and connection.
func (w *site) close() {
	for _, s := range w.workers {
		<-s.signal(syscall.SIGKILL)
		for _, r := range slices.Concat(s.nats, []*relay{s.out}) {
			if r != nil {
				r.end()
			}
		}
	}
	if w.conn != nil {
		w.conn.Close()
	}
	if w.broker != nil {
		w.broker.Conn().Close()
	}
	w.cluster.Close()
}

// messages reads a stream of events.
func (w *site) messages(ctx context.Context, stream string) ([]stored, error) {
	s, err := w.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", stream, err)
	}
	var all []stored
	state := s.CachedInfo().State
	for sequence := state.FirstSeq; sequence <= state.LastSeq && state.Msgs > 0; sequence++ {
		m, err := s.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s at %d: %w", stream, sequence, err)
		}
		_, subject, _ := strings.Cut(m.Subject, ".") // without the partition
		all = append(all, stored{sequence: sequence, at: m.Time, subject: subject, body: m.Data})
	}
	return all, nil
}

// running lists the replays that are not done.
func (w *site) running(ctx context.Context) ([]string, error) {
	bucket, err := broker.OpenBucket[json.RawMessage](ctx, w.broker, broker.BucketReplays)
	if err != nil {
		return nil, err
	}
	all, err := bucket.All(ctx)
	if err != nil {
		return nil, err
	}
	var open []string
	for id, record := range all {
		var job struct {
			State string `json:"state"`
		}
		if err := json.Unmarshal(record, &job); err != nil || job.State == "running" {
			open = append(open, id)
		}
	}
	return open, nil
}

// keep writes the schedule, the journal and the tape beside the logs.
func (w *site) keep(s *schedule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	write := func(file string, text func(io.Writer)) {
		f, err := os.Create(filepath.Join(w.dir, file))
		if err != nil {
			return // what is kept is for people; the verdict does not need it
		}
		text(f)
		_ = f.Close()
	}
	write("schedule.txt", func(f io.Writer) { say(f, "%v", s) })
	write("journal.txt", func(f io.Writer) { say(f, "%s\n", strings.Join(w.journal, "\n")) })
	write("tape.ndjson", func(f io.Writer) {
		out := json.NewEncoder(f)
		for _, r := range w.partner.Tape() {
			_ = out.Encode(r)
		}
	})
}
