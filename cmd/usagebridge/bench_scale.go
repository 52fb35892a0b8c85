package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// seed writes a ledger in which the partner has every key of the load, each
// with four figures behind it, as after a few days.
func (s *benchSite) seed(ctx context.Context, vendor string) error {
	store := s.broker.Ledger(vendor)
	waiting := map[int][]ledger.Entry{}
	yesterday := time.Now().Add(-24 * time.Hour)
	for n := range s.load.Keys {
		e := benchEntry(s.load.key(n), n, yesterday)
		p := broker.Partition(vendor, e.Key.Organization, s.load.Partitions)
		if waiting[p] = append(waiting[p], e); len(waiting[p]) < 1000 {
			continue
		}
		if err := store.Write(ctx, p, waiting[p]); err != nil {
			return err
		}
		delete(waiting, p)
	}
	for p, rest := range waiting {
		if err := store.Write(ctx, p, rest); err != nil {
			return err
		}
	}
	return nil
}

// benchEntry is the entry of key number n as it is after a few days, the last of
// which ended then.
func benchEntry(key ledger.Key, n int, then time.Time) ledger.Entry {
	at := then.UnixNano()
	e := ledger.Entry{Key: key, State: ledger.Synced}
	for i := range 4 {
		e.Seen = append(e.Seen, ledger.Seen{
			Version: ledger.Version{Time: at - int64(i)*int64(time.Hour), Arrival: uint64(1_000_000 - i*100_000 + n)},
			Value:   ledger.Value{Units: int64(n%1000+i) * 1_000_000}, Event: uint64(n)*0x9e3779b97f4a7c15 + uint64(i), Disposition: ledger.Applied,
		})
	}
	e.Delivered = ledger.Delivered{
		Version: e.Seen[0].Version, Value: e.Seen[0].Value, At: at + int64(time.Second),
		Receipt: ledger.Receipt{RequestID: fmt.Sprintf("0198a6a0-0000-7000-8000-%012d", n)},
	}
	e.Answer = ledger.Answer{At: e.Delivered.At, Status: http.StatusCreated}
	return e
}

// settled is a server with the ledger of so many keys that need nothing.
func (b *bench) settled(ctx context.Context, keys int) (*benchSite, error) {
	load := b.options.load
	load.Keys, load.Integrations = keys, max(keys/10_000, 10)
	s, err := b.site(ctx, lazySync, load)
	if err != nil {
		return nil, err
	}
	vendor, err := s.vendor(ctx)
	if err == nil {
		err = s.seed(ctx, vendor)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// idle measures what a worker takes that has nothing to do.
func (b *bench) idle(ctx context.Context) error {
	s, err := b.settled(ctx, b.options.idleKeys)
	if err != nil {
		return err
	}
	defer s.close()
	w, err := s.employ(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = w.end() }()
	if err := w.owns(ctx, s.load.Partitions); err != nil {
		return err
	}
	pause := time.NewTimer(b.options.idleFor / 4) // the collector and others come to rest
	defer pause.Stop()
	<-pause.C
	before, err := w.read(ctx, "process_cpu_seconds_total")
	if err != nil {
		return err
	}
	began := time.Now()
	pause.Reset(b.options.idleFor)
	<-pause.C
	after, err := w.read(ctx, "process_cpu_seconds_total")
	if err != nil {
		return err
	}
	b.report.add(benchRow{
		ID: "idle", What: fmt.Sprintf("processor of an idle worker with %d partitions and %d keys", s.load.Partitions, s.load.Keys),
		Figure: 100 * (after - before) / time.Since(began).Seconds(), Unit: "% of a core", Mark: 1, AtMost: true,
	})
	return w.end()
}

// takeOver measures how long a worker process takes to own many keys, and the
// memory that it has then.
func (b *bench) takeOver(ctx context.Context) error {
	keys := b.options.manyKeys
	s, err := b.settled(ctx, keys)
	if err != nil {
		return err
	}
	defer s.close()
	started := time.Now()
	w, err := s.employ(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = w.end() }()
	if err := w.owns(ctx, s.load.Partitions); err != nil {
		return err
	}
	took := time.Since(started)
	rest := time.NewTimer(3 * tidyEvery) // until it has given back what reading left behind
	defer rest.Stop()
	<-rest.C
	resident, err := w.read(ctx, "process_resident_memory_bytes")
	if err != nil {
		return err
	}
	used, err := w.read(ctx, "process_cpu_seconds_total")
	if err != nil {
		return err
	}
	b.report.add(benchRow{ID: "take-over", What: fmt.Sprintf("take-over of %d keys, from the start of the process", keys), Figure: took.Seconds(), Unit: "s", Mark: 5, AtMost: true, Keys: keys, CPU: used * 1e6 / float64(keys)})
	b.report.add(benchRow{ID: "memory", What: "resident memory of that worker, whole process", Figure: resident / float64(keys), Unit: "bytes/key", Mark: 400, AtMost: true, Keys: keys})
	return w.end()
}

// benchWorker is a worker in a process of its own.
type benchWorker struct {
	cmd *exec.Cmd
	url string // of its metrics
	end func() error
}

// employ starts "usagebridge run" on the site's server.
func (s *benchSite) employ(ctx context.Context) (*benchWorker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	listener, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String() // it is free again in a moment
	if err := listener.Close(); err != nil {
		return nil, err
	}
	w := &benchWorker{cmd: exec.CommandContext(ctx, self, "run"), url: "http://" + address + "/metrics"} //nolint:gosec // this very program
	w.cmd.Args[0] = "usagebridge"
	w.cmd.Env = append(os.Environ(), envPrefix+"_NATS_URL="+s.config.NATSURL, envPrefix+"_STORE_DIR="+s.config.StoreDir,
		envPrefix+"_LISTEN="+address, envPrefix+"_WORKER_ID=bench", envPrefix+"_LOG_LEVEL=error")
	w.cmd.Stderr = os.Stderr
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	ended := false
	w.end = func() error {
		if ended {
			return nil
		}
		ended = true
		return errors.Join(w.cmd.Process.Signal(os.Interrupt), w.cmd.Wait())
	}
	return w, nil
}

// owns waits until the worker has that many partitions, and their keys.
func (w *benchWorker) owns(ctx context.Context, partitions int) error {
	return until(ctx, "the worker owns every partition", func() bool {
		n, err := w.read(ctx, "usagebridge_partition_owned")
		return err == nil && int(n) >= partitions
	})
}

// read is the sum of the series of a metric.
func (w *benchWorker) read(ctx context.Context, metric string) (sum float64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	lines, found := bufio.NewScanner(response.Body), false
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), metric)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", metric, err)
		}
		sum, found = sum+value, true
	}
	if !found {
		return 0, fmt.Errorf("the worker has no metric %s (on this platform)", metric)
	}
	return sum, lines.Err()
}
