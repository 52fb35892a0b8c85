//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// vendor is the one that everything happens to.
const vendor = "acme"

// How the workers are set: as in production, but for times that fit into
// seconds.
var settings = []string{
	"PARTNER_TIMEOUT=2s", "RETRY_MIN=200ms", "RETRY_MAX=5s", "PROBE_MIN=1s", "PROBE_MAX=2s", "LINGER=50ms", "FOLD_WAIT=50ms",
	fmt.Sprint("FLOOD_LIMIT=", floodLimit), "LOG_FORMAT=json",
}

const (
	leaseTTL   = 5 * time.Second
	floodLimit = 20
	partitions = 4
	// patience bounds how long the world may take to do what it always does.
	patience = 30 * time.Second
)

// setting is what kind of world a scenario needs.
type setting struct {
	servers int    // 1 or 3
	sync    string // sync_interval of the one server, which tells it to the workers; "": always, and it tells nobody
}

var usual = setting{servers: 1}

// world is everything that alerts are about: servers, partner and workers.
type world struct {
	setting

	dir     string
	program string
	env     []string             // of every process of usagebridge
	ready   map[string]time.Time // since when an integration takes figures

	url     string // of the servers
	cluster *natstest.Cluster
	loose   *looseServer // instead of a cluster
	conn    *nats.Conn
	js      jetstream.JetStream
	partner *sandbox.Sandbox
	server  *http.Server
	address string // of the partner's API
	workers []*process
	listen  []string // of each worker

	count  int   // of the last figure
	frozen int   // how often a worker was frozen
	saved  saved // what of the ledger was spoiled
}

// saved is an entry of the ledger as it was.
type saved struct {
	key   string
	value []byte
}

// find finds an entry of the ledger by what follows the partition in its key.
func (w *world) find(ctx context.Context, bucket jetstream.KeyValue, key string) (string, []byte, error) {
	for p := range partitions {
		e, err := bucket.Get(ctx, fmt.Sprint(p, ".", key))
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("find %s in the ledger: %w", key, err)
		}
		return e.Key(), e.Value(), nil
	}
	return "", nil, fmt.Errorf("find %s in the ledger: it is in no partition", key)
}

// openWorld starts servers, partner and workers, with integrations that work.
func openWorld(ctx context.Context, dir string, s setting, bins binaries, instances []instance) (w *world, err error) {
	w = &world{setting: s, dir: dir, program: bins.program, ready: map[string]time.Time{}, count: 100}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := w.openServers(ctx, bins.server); err != nil {
		return w, err
	}
	if w.conn, err = nats.Connect(w.url, nats.MaxReconnects(-1), nats.Name("gameday")); err != nil {
		return w, fmt.Errorf("connect to the servers: %w", err)
	}
	if w.js, err = jetstream.New(w.conn); err != nil {
		return w, fmt.Errorf("connect to the servers: %w", err)
	}
	if err := w.openPartner(ctx); err != nil {
		return w, err
	}
	w.env = with(os.Environ(), append(slices.Clone(settings), "STORE_DIR="+filepath.Join(dir, "store"), "NATS_URL="+w.url)...)
	if err := w.do(ctx, "init", "--vendor", vendor, "--partitions", fmt.Sprint(partitions), "--lease-ttl", leaseTTL.String()); err != nil {
		return w, err
	}
	for i, at := range instances {
		w.workers = append(w.workers, &process{name: at.name, path: w.program, args: []string{"run"}, dir: dir, watched: true})
		w.listen = append(w.listen, at.address)
		if err := w.start(i); err != nil {
			return w, err
		}
	}
	for _, organization := range []string{"msp-1", "msp-2", "msp-3"} {
		if err := w.onboard(ctx, organization); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) openServers(ctx context.Context, binary string) (err error) {
	if w.sync != "" {
		if w.loose, err = startLoose(ctx, w.dir, binary, w.sync); err == nil {
			w.url = w.loose.url
		}
		return err
	}
	if w.cluster, err = natstest.Start(ctx, natstest.Config{Dir: w.dir, Servers: w.servers, Binary: binary}); err == nil {
		w.url = w.cluster.URL()
	}
	return err
}

// openPartner serves the partner.
func (w *world) openPartner(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serve the partner: %w", err)
	}
	w.partner = sandbox.New(sandbox.Config{Human: sandbox.HumanAPI})
	w.server = &http.Server{Handler: w.partner.Handler(), ReadHeaderTimeout: patience}
	w.address = "http://" + l.Addr().String() + "/api"
	go func() { _ = w.server.Serve(l) }() // until close
	return nil
}

// start starts a worker, with further settings.
func (w *world) start(i int, settings ...string) error {
	id := w.workers[i].name
	return w.workers[i].start(with(w.env, append(slices.Clone(settings), "LISTEN="+w.listen[i], "WORKER_ID="+id)...))
}

// restart ends every worker in good order, one after the other, and starts it
// again with further settings.
func (w *world) restart(settings ...string) error {
	for i := range w.workers {
		w.workers[i].end()
		if err := w.start(i, settings...); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything.
func (w *world) close() {
	for _, p := range w.workers {
		_ = p.signal(syscall.SIGCONT)
		p.kill()
	}
	if w.partner != nil {
		w.partner.Close()
		_ = w.server.Close()
	}
	if w.conn != nil {
		w.conn.Close()
	}
	if w.cluster != nil {
		w.cluster.Close()
	}
	if w.loose != nil {
		w.loose.process.kill()
	}
}

// command runs the program as an operator does, and gives what it printed.
func (w *world) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.program, args...) //nolint:gosec // our own program
	cmd.Dir, cmd.Env = w.dir, w.env
	out, err := cmd.CombinedOutput()
	text := strings.ReplaceAll(string(out), w.dir+"/", "")
	if err != nil {
		err = fmt.Errorf("usagebridge %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(text))
	}
	return text, err
}

func (w *world) do(ctx context.Context, args ...string) error {
	_, err := w.command(ctx, args...)
	return err
}

func name(organization string) string { return vendor + "/" + organization }

// onboard adds an integration, publishes its catalog, maps it as the person at
// the MSP does, and waits until the partner has its first figures.
func (w *world) onboard(ctx context.Context, organization string) error {
	if err := w.add(ctx, organization); err != nil {
		return err
	}
	if err := w.mapped(ctx, organization); err != nil {
		return err
	}
	if err := w.figures(ctx, organization, 5, time.Now()); err != nil {
		return err
	}
	if err := w.snapshot(ctx, organization); err != nil {
		return err
	}
	return w.delivered(ctx, organization)
}

// snapshot publishes all counts of the last account, of which nothing else is known.
func (w *world) snapshot(ctx context.Context, organization string) error {
	const file = "snapshot.ndjson"
	account := ids("a")[catalogSize-1]
	event := fmt.Sprintf(`{"specversion":"1.0","id":"snapshot-%d","source":"//gameday","type":"usage.snapshot.v1","time":%q,`+
		`"data":{"vendorId":%q,"organizationId":%q,"accountId":%q,"counts":[{"accountId":%[5]q,"serviceId":"s-1","unitCount":1}]}}`,
		time.Now().UnixNano(), time.Now().UTC().Format(time.RFC3339Nano), vendor, organization, account)
	if err := w.write(file, event); err != nil {
		return err
	}
	return w.do(ctx, "publish", file, "--integration", name(organization))
}

// add adds an integration and publishes its catalog.
func (w *world) add(ctx context.Context, organization string) error {
	made, err := w.partner.AddIntegration(sandbox.Integration{Name: name(organization)})
	if err != nil {
		return err
	}
	flags, err := w.tokens(organization, made)
	if err != nil {
		return err
	}
	if err := w.do(ctx, append([]string{"integrations", "add", name(organization), "--api-url", w.address}, flags...)...); err != nil {
		return err
	}
	for kind, ids := range map[string][]string{"accounts": ids("a"), "services": ids("s")} {
		file := kind + ".csv"
		rows := []string{"id,name"}
		for _, id := range ids {
			rows = append(rows, id+",Name of "+id)
		}
		if err := w.write(file, rows...); err != nil {
			return err
		}
		if err := w.do(ctx, "publish", file, "--integration", name(organization), "--kind", kind); err != nil {
			return err
		}
	}
	return nil
}

// catalogSize is how many accounts and services an integration has.
const catalogSize = 20

// ids are those of the accounts (a) or services (s) of every integration.
func ids(kind string) (all []string) {
	for i := range catalogSize {
		all = append(all, fmt.Sprintf("%s-%d", kind, i+1))
	}
	return all
}

// tokens writes an integration's tokens to files and gives the flags that name
// them.
func (w *world) tokens(organization string, in sandbox.Integration) (flags []string, err error) {
	for _, t := range []struct{ kind, token string }{{"vendor", in.VendorToken}, {"partner", in.PartnerToken}} {
		file := organization + "." + t.kind + ".token"
		if err := w.write(file, t.token); err != nil {
			return nil, err
		}
		flags = append(flags, "--"+t.kind+"-token-file", file)
	}
	return flags, nil
}

// write writes a file for a command.
func (w *world) write(file string, lines ...string) error {
	if err := os.WriteFile(filepath.Join(w.dir, file), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// mapped maps the whole catalog as the person at the MSP does, as soon as it is
// there.
func (w *world) mapped(ctx context.Context, organization string) error {
	err := w.eventually(ctx, func() error {
		return errors.Join(w.partner.Map(name(organization), sandbox.Only(ids("a")...), sandbox.Only(ids("s")...)), w.partner.Finish(name(organization)))
	})
	w.ready[organization] = time.Now()
	return err
}

// figures publishes that many figures, each with a number of its own, that were
// true at that time.
func (w *world) figures(ctx context.Context, organization string, n int, at time.Time) error {
	file := "counts.csv"
	if err := w.write(file, w.rows(n)...); err != nil {
		return err
	}
	return w.do(ctx, "publish", file, "--integration", name(organization), "--time", at.UTC().Format(time.RFC3339Nano))
}

// rows are a CSV of n figures.
func (w *world) rows(n int) []string {
	rows := []string{"account,service,unitCount"}
	for i := range n {
		w.count++
		rows = append(rows, fmt.Sprintf("a-%d,s-%d,%d", i/catalogSize%catalogSize+1, i%catalogSize+1, w.count))
	}
	return rows
}

// delivered waits until the partner has the figure that was published last of
// the first key.
func (w *world) delivered(ctx context.Context, organization string) error {
	return w.eventually(ctx, func() error {
		if _, ok := w.partner.Value(name(organization), "a-1", "s-1"); !ok {
			return fmt.Errorf("the partner has no figure of %s", name(organization))
		}
		return nil
	})
}

// eventually repeats until there is no error, or patience ends.
func (w *world) eventually(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try()
		if err == nil || !wait(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// edit changes a stream's configuration behind usagebridge's back.
func (w *world) edit(ctx context.Context, stream string, change func(*jetstream.StreamConfig, *jetstream.StreamInfo)) error {
	s, err := w.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("edit %s: %w", stream, err)
	}
	info := s.CachedInfo()
	config := info.Config
	change(&config, info)
	if _, err := w.js.UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("edit %s: %w", stream, err)
	}
	return nil
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
