package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// fillPartitions writes so many entries to each of the partitions in the range.
func fillPartitions(t *testing.T, s *LedgerStore, from, to, each int) {
	t.Helper()
	for p := from; p < to; p++ {
		written := make([]ledger.Entry, each)
		for i := range written {
			written[i] = ledger.Entry{Key: ledger.Key{Organization: fmt.Sprintf("o%d", p), Account: fmt.Sprintf("a%d", i), Kind: ledger.Account}, State: ledger.Synced, Seen: []ledger.Seen{{Version: ledger.Version{Time: 1, Arrival: 1}, Event: 7, Disposition: ledger.Applied}}}
		}
		if err := s.Write(t.Context(), p, written); err != nil {
			t.Fatal(err)
		}
	}
}

// loadAll loads the partitions at the same time and counts what comes.
func loadAll(ctx func(int) context.Context, s *LedgerStore, partitions int, yield func(int, ledger.Entry) error) (counts []int, errs []error) {
	counts, errs = make([]int, partitions), make([]error, partitions)
	var all sync.WaitGroup
	for p := range partitions {
		all.Go(func() {
			errs[p] = s.LoadTogether(ctx(p), p, func(e ledger.Entry) error {
				if want := fmt.Sprintf("o%d", p); e.Key.Organization != want || e.Revision == 0 {
					return fmt.Errorf("partition %d has %+v", p, e)
				}
				counts[p]++
				return yield(p, e)
			})
		})
	}
	all.Wait()
	return counts, errs
}

func fine(int, ledger.Entry) error { return nil }

// consumersMade is how many consumers the ledger's stream has had.
func consumersMade(t *testing.T, b *Broker, s *LedgerStore) func() int {
	t.Helper()
	made := 0
	sub, err := b.conn.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.CREATED." + s.stream + ".>")
	if err != nil {
		t.Fatal(err)
	}
	return func() int {
		defer func() { _ = sub.Unsubscribe() }()
		for {
			if _, err := sub.NextMsg(200 * time.Millisecond); err != nil {
				return made
			}
			made++
		}
	}
}

func TestPartitionsThatAreLoadedTogetherAreReadOnce(t *testing.T) {
	const each = 300
	b := open(t, scanWorth+2)
	s := b.Ledger("acme")
	fillPartitions(t, s, 0, scanWorth+2, each)
	for partitions, consumers := range map[int]int{scanWorth: 1, scanWorth - 1: scanWorth - 1} {
		made := consumersMade(t, b, s)
		counts, errs := loadAll(func(int) context.Context { return t.Context() }, s, partitions, fine)
		for p := range partitions {
			if counts[p] != each || errs[p] != nil {
				t.Errorf("%d partitions: partition %d has %d entries, %v; want %d", partitions, p, counts[p], errs[p], each)
			}
		}
		if n := made(); n != consumers {
			t.Errorf("%d partitions were read with %d consumers, want %d", partitions, n, consumers)
		}
	}
}

func TestAFaultInOnePartitionIsNotTheOthers(t *testing.T) {
	const each, partitions = 300, scanWorth
	b := open(t, partitions)
	s := b.Ledger("acme")
	fillPartitions(t, s, 0, partitions, each)
	if _, err := b.js.Publish(t.Context(), s.prefix+"1.o1.account.bad", []byte("{")); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	refused := errors.New("refused")
	counts, errs := loadAll(func(p int) context.Context {
		if p == 2 {
			return gone
		}
		return t.Context()
	}, s, partitions, func(p int, _ ledger.Entry) error {
		switch p {
		case 2:
			cancel()
		case 3:
			return refused
		}
		return nil
	})
	wantError(t, errs[1], "partition 1", "bad")
	if !errors.Is(errs[2], context.Canceled) {
		t.Errorf("the partition that is not wanted any longer: got %v, want that it was cancelled", errs[2])
	}
	if !errors.Is(errs[3], refused) || counts[3] != 1 {
		t.Errorf("the partition whose entry was refused: %d entries, %v", counts[3], errs[3])
	}
	for _, p := range []int{0, 4, 5} {
		if counts[p] != each || errs[p] != nil {
			t.Errorf("partition %d has %d entries, %v; want %d", p, counts[p], errs[p], each)
		}
	}
}

func TestAScanEndsWhenNobodyWantsIt(t *testing.T) {
	b := open(t, scanWorth)
	s := b.Ledger("acme")
	fillPartitions(t, s, 0, scanWorth, 10)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	counts, errs := loadAll(func(int) context.Context { return gone }, s, scanWorth, fine)
	for p, err := range errs {
		if !errors.Is(err, context.Canceled) || counts[p] > 10 {
			t.Errorf("partition %d: got %v, want that it was cancelled", p, err)
		}
	}
}

// A partition that is asked for twice in the same moment is read for itself.
func TestAPartitionIsLoadedTogetherTwice(t *testing.T) {
	b := open(t, 1)
	s := b.Ledger("acme")
	fillPartitions(t, s, 0, 1, 10)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			n := 0
			if err := s.LoadTogether(t.Context(), 0, func(ledger.Entry) error { n++; return nil }); err != nil || n != 10 {
				t.Errorf("got %d entries, %v; want 10", n, err)
			}
		})
	}
	both.Wait()
}

// What is written while all is read comes as it is in the end. The first
// partition has more entries than may wait, so that the reader has to.
func TestEntriesWrittenDuringAScanComeNewest(t *testing.T) {
	const many = scanChunk*scanChunks + readMessages + 1000
	b := open(t, scanWorth)
	s := b.Ledger("acme")
	fillPartitions(t, s, 0, 1, many)
	fillPartitions(t, s, 1, scanWorth, 10)
	newest := make([]ledger.Entry, scanWorth)
	changed := func(p int) ledger.Key {
		return ledger.Key{Organization: fmt.Sprintf("o%d", p), Account: "a9", Kind: ledger.Account}
	}
	var once sync.Once
	counts, errs := loadAll(func(int) context.Context { return t.Context() }, s, scanWorth, func(p int, e ledger.Entry) error {
		if p == 0 {
			once.Do(func() {
				for p := range scanWorth {
					before, _, err := s.Read(t.Context(), p, changed(p))
					before.State = ledger.Dirty
					if err = errors.Join(err, s.Write(t.Context(), p, []ledger.Entry{before})); err != nil {
						t.Error(err)
					}
				}
			})
		}
		if e.Key == changed(p) {
			newest[p] = e
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for p := range scanWorth {
		stored, _, err := s.Read(t.Context(), p, changed(p))
		if err != nil || newest[p].Revision != stored.Revision || newest[p].State != ledger.Dirty {
			t.Errorf("partition %d: loaded %v at %d, stored at %d, %v", p, newest[p].State, newest[p].Revision, stored.Revision, err)
		}
		if p > 0 && counts[p] < 10 {
			t.Errorf("partition %d has %d entries, want 10", p, counts[p])
		}
	}
}
