package broker

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestTheWorkerThatHasAnIntegrationAnswersForIt(t *testing.T) {
	server := startServer(t, t.TempDir(), "127.0.0.1:0")
	asking := connect(t, server.ClientURL())
	if _, err := asking.AskLane(t.Context(), "acme", "msp 1"); !errors.Is(err, ErrNoLane) {
		t.Errorf("without any worker: got %v, want %v", err, ErrNoLane)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, has := range []string{"msp 1", "msp.2"} {
		b := connect(t, server.ClientURL())
		go func() {
			ended <- b.AnswerLanes(ctx, func(vendor, organization string) []byte {
				if vendor != "acme" || organization != has {
					return nil
				}
				return []byte("this is " + has)
			})
		}()
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, name := range []string{"msp 1", "msp.2"} {
		got, err := asking.AskLane(t.Context(), "acme", name)
		for errors.Is(err, ErrNoLane) && time.Now().Before(deadline) { // a subscription begins when it begins
			got, err = asking.AskLane(t.Context(), "acme", name)
		}
		if want := "this is " + name; err != nil || string(got) != want {
			t.Errorf("lane of %s: got %q and %v, want %q", name, got, err, want)
		}
	}
	if _, err := asking.AskLane(t.Context(), "acme", "unknown"); !errors.Is(err, ErrNoLane) {
		t.Errorf("an integration that nobody has: got %v, want %v", err, ErrNoLane)
	}
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Errorf("answering ended with %v, want no error", err)
		}
	}
}
