package broker

import (
	"errors"
	"testing"
	"time"
)

func TestADrainedSourceGivesWhatItHasFetchedOnce(t *testing.T) {
	b := open(t, 1)
	const all = 3000
	publishCounts(t, b, "o", all)
	s := openSource(t, b, SourceConfig{MaxBatch: 100, MaxWait: time.Hour})
	eventually(t, "a batch is there", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.ripe() })
	var got []string
	s.Drain()
	s.Drain() // twice is once
	for {
		batch, err := s.Receive(within(t, 20*time.Second))
		if errors.Is(err, ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Ack(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		got = append(got, bodies(batch)...)
	}
	if len(got) < 100 || len(got) >= all {
		t.Errorf("got %d messages in all, want those that were fetched: at least 100, less than %d", len(got), all)
	}
	s.Close()
	seen := map[string]bool{}
	for _, body := range got {
		seen[body] = true
	}
	next := openSource(t, b, SourceConfig{MaxBatch: 100})
	defer next.Close()
	for _, m := range receive(t, next, all-len(got)) {
		if seen[string(m.Data)] {
			t.Fatalf("%s came again, though it was acknowledged", m.Data)
		}
	}
}
