package broker

import (
	"errors"
	"testing"
	"time"
)

// On a cluster the first request for messages may reach the server of a new
// consumer before the consumer is there. The client waits for an answer that
// does not come; a worker that loads a ledger so would never begin.
func TestAReaderWhoseRequestWasLostIsNotWaitedForForEver(t *testing.T) {
	b := openEmbedded(t, 1)
	publishCounts(t, b, "o", 3)
	all := reading{stream: EventsStream("acme"), filters: []string{"0.>"}}
	open, err := b.openReader(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	defer open.close()
	if err := open.puller.sub.Unsubscribe(); err != nil { // from now on nothing comes
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, _, err := open.next(readIdle)
		if err != nil && !errors.Is(err, errIdle) {
			if !interrupted(err) {
				t.Errorf("got %v, want an error after which another reader is opened", err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %v after 20 s, want another reader to be opened", err)
		}
	}
}
