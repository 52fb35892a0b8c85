package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

const (
	// maxReplays is how many replays a worker works on at once; further ones
	// wait, or another worker takes them.
	maxReplays = 4
	// replayLook is how often a worker looks for a replay that nobody runs.
	replayLook = time.Second
	// replayRetry bounds the wait before a replay goes on after an error, and
	// replayRewatch is the wait after a record that cannot be read.
	replayRetry   = 30 * time.Second
	replayRewatch = 10 * time.Second
)

// replayer runs the replays of dead letters in a worker's process.
type replayer struct {
	app    *app
	bucket *broker.Bucket[deadletter.Job]
	runner *deadletter.Runner

	mu      sync.Mutex
	jobs    map[string]deadletter.Job // as the bucket has them
	working map[string]bool
	running sync.WaitGroup
}

// replays works on replays until ctx ends, which is no error. Nothing that goes
// wrong here ends the worker: figures are delivered all the same.
func (e *engine) replays(ctx context.Context) error {
	bucket, err := e.app.replays(ctx)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		e.app.log.Warn("replays of dead letters cannot be run", "try", "usagebridge init --vendor NAME", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	r := &replayer{
		app: e.app, bucket: bucket, jobs: map[string]deadletter.Job{}, working: map[string]bool{},
		runner: deadletter.NewRunner(deadletter.RunnerConfig{
			ID:    runnerID(e.app.config.WorkerID),
			Jobs:  bucket,
			Queue: letterQueue{e.app.broker},
			Log:   eventLog{e.app.broker},
			Judge: *e.app.judge(nil),
			Rate:  e.app.config.PartnerRate,
		}),
	}
	r.running.Go(func() { r.watch(ctx) })
	ticker := time.NewTicker(replayLook)
	defer ticker.Stop()
	for {
		r.begin(ctx)
		select {
		case <-ctx.Done():
			r.running.Wait()
			return nil
		case <-ticker.C:
		}
	}
}

// runnerID differs from that of the same worker before a restart.
func runnerID(worker string) string {
	return worker + "/" + strconv.FormatUint(rand.Uint64(), 36) //nolint:gosec // no secret
}

// watch keeps r.jobs equal to the bucket.
func (r *replayer) watch(ctx context.Context) {
	for {
		err := r.bucket.Watch(ctx, func(id string, j *deadletter.Job) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if j == nil {
				delete(r.jobs, id)
			} else {
				r.jobs[id] = *j
			}
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		r.app.log.Error("replays cannot be watched", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(replayRewatch):
		}
	}
}

// begin takes replays that should run and that nobody runs, the oldest first.
func (r *replayer) begin(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, id := range slices.Sorted(maps.Keys(r.jobs)) {
		j := r.jobs[id]
		if !j.Free(now) || r.working[id] || len(r.working) == maxReplays || ctx.Err() != nil {
			continue
		}
		r.working[id] = true
		r.running.Go(func() {
			r.work(ctx, id)
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.working, id)
		})
	}
}

// work runs one replay until it is done, or another worker has it, or nobody
// wants it any longer. It goes on after every error.
func (r *replayer) work(ctx context.Context, id string) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.MaxElapsedTime = time.Second, replayRetry, 0
	log := r.app.log.With("replay", id)
	log.Info("replay taken")
	job := deadletter.Job{}
	_ = backoff.RetryNotify(func() (err error) {
		if job, err = r.runner.Run(ctx, id); errors.Is(err, broker.ErrNotFound) {
			err = backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(wait, ctx), func(err error, wait time.Duration) {
		log.Error("replay interrupted, trying again", "wait_seconds", wait.Seconds(), "err", err)
	})
	log.Info("replay let go", "state", string(job.State), "replayed", job.Replayed, "left", job.Kept(), "letters", job.Letters)
	r.mu.Lock()
	defer r.mu.Unlock()
	// Sooner than the watch tells, or it would be taken again at once. It is read
	// with the lock held: what the watch has told or will tell is not undone.
	if j, _, err := r.bucket.Get(ctx, id); err == nil {
		r.jobs[id] = j
	}
}

func (a *app) replays(ctx context.Context) (*broker.Bucket[deadletter.Job], error) {
	bucket, err := broker.OpenBucket[deadletter.Job](ctx, a.broker, broker.BucketReplays)
	if err != nil {
		return nil, fmt.Errorf("open the replays (is anything set up? run `usagebridge init --vendor NAME`): %w", err)
	}
	return bucket, nil
}

// judge judges dead letters as this process would judge their events now.
func (a *app) judge(edit *deadletter.Edit) *deadletter.Judge {
	known := meanings()
	return &deadletter.Judge{
		Ledger: &storedLedger{broker: a.broker, partitions: map[string]int{}},
		Limits: a.config.limits(),
		Meaning: func(e *event.Event) ([]ledger.Operation, error) {
			meaning := known[e.Type]
			if meaning == nil {
				return nil, &event.Fault{Reason: event.ReasonUnknownType, Problem: "this version does not fold " + e.Type}
			}
			return meaning(e)
		},
		Edit: edit,
	}
}

// letterQueue is DEADLETTERS (deadletter.Queue).
type letterQueue struct{ broker *broker.Broker }

// Next is the next letter of an integration.
func (q letterQueue) Next(ctx context.Context, vendor, organization string, reason event.Reason, after uint64) (deadletter.StoredLetter, bool, error) {
	l, ok, err := q.broker.NextLetter(ctx, vendor, organization, reason, after)
	return deadletter.StoredLetter{Letter: l.Letter, Sequence: l.Sequence}, ok, err
}

// Drop removes a letter.
func (q letterQueue) Drop(ctx context.Context, sequence uint64) error {
	return q.broker.DropLetter(ctx, sequence)
}

// eventLog is the vendors' logs (deadletter.Log).
type eventLog struct{ broker *broker.Broker }

// Publish stores an event once more.
func (l eventLog) Publish(ctx context.Context, m event.Message, id string) error {
	_, err := l.broker.Republish(ctx, m, id)
	return err
}

// storedLedger looks up entries of all vendors (deadletter.Ledger).
type storedLedger struct {
	broker     *broker.Broker
	mu         sync.Mutex
	partitions map[string]int // by vendor; it never changes
}

// Entry is what is stored of a key. A vendor that is not set up has nothing.
func (s *storedLedger) Entry(ctx context.Context, vendor string, key ledger.Key) (ledger.Entry, bool, error) {
	partitions, err := s.partitionsOf(ctx, vendor)
	if errors.Is(err, broker.ErrNoVendor) {
		return ledger.Entry{}, false, nil
	}
	if err != nil {
		return ledger.Entry{}, false, err
	}
	return s.broker.Ledger(vendor).Read(ctx, broker.Partition(vendor, key.Organization, partitions), key)
}

func (s *storedLedger) partitionsOf(ctx context.Context, vendor string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.partitions[vendor]; n > 0 {
		return n, nil
	}
	v, err := s.broker.Vendor(ctx, vendor)
	if err != nil {
		return 0, err
	}
	s.partitions[vendor] = v.Partitions
	return v.Partitions, nil
}
