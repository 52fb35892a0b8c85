package worker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// backlog says of every message but the log's last few that thousands wait
// behind it.
type backlog struct {
	worker.Source
	last uint64
}

func (b backlog) Receive(ctx context.Context) ([]event.Message, error) {
	batch, err := b.Source.Receive(ctx)
	for i := range batch {
		if batch[i].Sequence+50 <= b.last {
			batch[i].Pending = 5000
		}
	}
	return batch, err
}

// callsForABacklog is how many counts are sent for ten figures of each of
// fifty keys, while every write of the ledger takes the time given.
func callsForABacklog(t *testing.T, lagWait, write time.Duration) (calls int) {
	inBubble(t, func(t *testing.T, w *world) {
		w.catalog("a", "s")
		for i := range 50 {
			w.send(fmt.Sprint("account", i), time.Now(), event.Account{AccountID: fmt.Sprint("a", i), Name: "A"})
		}
		stop := w.start()
		settle(time.Minute)
		stop()
		catalog := w.partner.accepted()
		var last uint64
		for round := range 10 {
			for i := range 50 {
				last = w.count(fmt.Sprint(round, "-", i), time.Now(), fmt.Sprint("a", i), "s", int64(round+1))
			}
		}
		defer w.start(func(c *worker.Config) {
			c.LagWait = lagWait
			source, store := c.Backend.Source, c.Backend.Store
			c.Backend.Source = func(ctx context.Context, vendor string, partition int) (worker.Source, error) {
				s, err := source(ctx, vendor, partition)
				return backlog{s, last}, err
			}
			c.Backend.Store = func(vendor string) worker.Store { return slowStore{store(vendor), w, write} }
		})()
		settle(5 * time.Minute)
		calls = w.partner.accepted() - catalog
	})
	return calls
}

func TestWhileAPartitionLagsOnlyTheNewestFiguresAreSent(t *testing.T) {
	if got := callsForABacklog(t, time.Minute, time.Second); got != 50 {
		t.Errorf("calls for 500 figures of 50 keys: got %d, want 50: folding goes first", got)
	}
}

func TestAPartitionThatDoesNotCatchUpKeepsNothingBackForLong(t *testing.T) {
	if got := callsForABacklog(t, 2*time.Second, time.Second); got <= 60 || got > 500 {
		t.Errorf("calls for 500 figures of 50 keys: got %d, want more than 60: the lanes may wait 2 s and the fold takes 10 s", got)
	}
}
