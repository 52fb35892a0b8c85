package broker

import (
	"testing"
	"time"
)

func TestTheBacklogIsWhatNobodyHasAcknowledged(t *testing.T) {
	b := open(t, 4)
	for _, organization := range []string{"m1", "m2", "m3"} {
		if err := b.Append(t.Context(), "usage.v1.acme."+organization+".snapshot", nil, []byte("{}"), ""); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want uint64) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second) // the server counts a moment later
		for {
			got, err := b.Backlog(t.Context(), "acme")
			if err == nil && got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("backlog %s: got %d and %v, want %d", when, got, err, want)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	check("before anybody reads", 3)
	s, err := b.Source(t.Context(), "acme", Partition("acme", "m1", 4), SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	batch, err := s.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check("of what was received only", 3)
	if err := s.Ack(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	check("of what was acknowledged", 3-uint64(len(batch)))
	if _, err := b.Backlog(t.Context(), "nobody"); err == nil {
		t.Error("backlog of a vendor that is not set up: got no error")
	}
}
