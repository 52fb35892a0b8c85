package broker

import (
	"context"
	"slices"
	"testing"
	"time"
)

func TestAHintReachesEveryWorkerThatListens(t *testing.T) {
	server := startServer(t, t.TempDir(), "127.0.0.1:0")
	sender := connect(t, server.ClientURL())
	heard := make(chan Hint, 10)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 {
		listener := connect(t, server.ClientURL())
		go func() { ended <- listener.Hints(ctx, func(h Hint) { heard <- h }) }()
	}
	want := Hint{Vendor: "acme", Organization: "msp 1.x", Accounts: []string{"a", "b 2"}}
	deadline := time.After(10 * time.Second)
	// A subscription begins when it begins: hints are sent until both heard one.
	for got := 0; got < 2; {
		if err := sender.Conn().Publish("hint.v1.acme.x", []byte("{")); err != nil {
			t.Fatal(err)
		}
		if err := sender.PublishHint(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		select {
		case h := <-heard:
			if h.Vendor != want.Vendor || h.Organization != want.Organization || !slices.Equal(h.Accounts, want.Accounts) {
				t.Fatalf("hint: got %+v, want %+v", h, want)
			}
			got++
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatal("no hint was heard")
		}
	}
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Errorf("listening ended with %v, want no error", err)
		}
	}
}
