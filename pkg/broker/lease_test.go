package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// openLeases gives a broker whose leases expire after a second.
func openLeases(t *testing.T) *Broker {
	t.Helper()
	b := blank(t)
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 4, LeaseTTL: time.Second})
	return b
}

func lease(t *testing.T, b *Broker, partition int, worker string) *Lease {
	t.Helper()
	l, err := b.Lease(t.Context(), "acme", partition, worker)
	if err != nil {
		t.Fatalf("lease: %v", err)
	}
	return l
}

func wantOwners(t *testing.T, b *Broker, want map[int]string) {
	t.Helper()
	if got, err := b.Owners(t.Context(), "acme"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("owners are %v, %v; want %v", got, err, want)
	}
}

func wantLeaseTTL(t *testing.T, b *Broker, want time.Duration) {
	t.Helper()
	if got, err := b.LeaseTTL(t.Context()); err != nil || got != want {
		t.Errorf("leases live %v, %v; want %v", got, err, want)
	}
}

func TestPartitionHasOneOwner(t *testing.T) {
	b := open(t, 4)
	one := lease(t, b, 1, "w one")
	lease(t, b, 2, "w2")
	for _, worker := range []string{"w2", "w one"} { // its own namesake too: it may be alive still
		_, err := b.Lease(t.Context(), "acme", 1, worker)
		if !errors.Is(err, ErrLeased) {
			t.Errorf("%s got %v, want %v", worker, err, ErrLeased)
		}
		wantError(t, err, "acme.1", "worker w one since")
	}
	wantOwners(t, b, map[int]string{1: "w one", 2: "w2"})
	for range 3 {
		if err := one.Renew(t.Context()); err != nil {
			t.Errorf("renew: %v", err)
		}
	}
	for range 2 {
		if err := one.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	wantOwners(t, b, map[int]string{2: "w2"})
	next := lease(t, b, 1, "w3")
	if err := one.Renew(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renew of a released lease: %v, want %v", err, ErrLeaseLost)
	}
	if err := one.Release(t.Context()); err != nil {
		t.Errorf("release of a lost lease: %v", err)
	}
	if err := next.Renew(t.Context()); err != nil {
		t.Errorf("the former owner's release ended the new lease: %v", err)
	}
	wantLeaseTTL(t, b, LeaseTTL)
}

func TestLeaseExpiresWithoutRenewal(t *testing.T) {
	b := openLeases(t)
	kept, left := lease(t, b, 0, "keeper"), lease(t, b, 1, "leaver")
	gone := make(chan struct{})
	bucket, err := OpenBucket[holder](t.Context(), b, BucketLeases)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = bucket.Watch(t.Context(), func(key string, h *holder) error {
			if key == "acme.1" && h == nil {
				close(gone)
				return errEnough
			}
			return nil
		})
	}()
	start := time.Now()
	for renewing := true; renewing; {
		select {
		case <-gone:
			renewing = false
		case <-time.After(200 * time.Millisecond):
			if err := kept.Renew(t.Context()); err != nil {
				t.Fatalf("renew: %v", err)
			}
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("the lease did not expire")
		}
	}
	wantOwners(t, b, map[int]string{0: "keeper"})
	if err := left.Renew(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renew of an expired lease: %v, want %v", err, ErrLeaseLost)
	}
	lease(t, b, 1, "next")
	if err := left.Renew(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renew of another's lease: %v, want %v", err, ErrLeaseLost)
	}
}

func TestLostAnswerToARenewalLosesNoLease(t *testing.T) {
	b := open(t, 4)
	l := lease(t, b, 0, "w")
	before := l.revision
	if err := l.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.revision = before // as if the answer had not come
	if err := l.Renew(t.Context()); err != nil {
		t.Errorf("renew: %v", err)
	}
}

func TestLivingWorkersAreListed(t *testing.T) {
	b := open(t, 4)
	for _, worker := range []string{"w.2", "w 1"} {
		if _, err := b.Member(t.Context(), worker, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := b.Members(t.Context()); err != nil || !reflect.DeepEqual(got, []string{"w 1", "w.2"}) {
		t.Errorf("members are %q, %v; want w 1 and w.2", got, err)
	}
	_, err := b.Member(t.Context(), "w 1", nil)
	if !errors.Is(err, ErrLeased) {
		t.Errorf("got %v, want %v: two workers of one name", err, ErrLeased)
	}
	if err := operator(b).js.DeleteStream(t.Context(), bucketPrefix+BucketLeases); err != nil {
		t.Fatal(err)
	}
	_, err = b.Lease(t.Context(), "acme", 0, "w")
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("got %v, want %v", err, jetstream.ErrBucketNotFound)
	}
	wantError(t, err, "bucket LEASES is missing", "usagebridge init")
}

func TestAWorkerTellsTheOthersOfItselfWithEachRenewal(t *testing.T) {
	b := open(t, 4)
	told := json.RawMessage(`{"keys":1}`)
	member, err := b.Member(t.Context(), "w 1", func() json.RawMessage { return told })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Member(t.Context(), "silent", nil); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		notes, err := b.Notes(t.Context())
		if err != nil || len(notes) != 2 || string(notes["w 1"]) != want || notes["silent"] != nil {
			t.Errorf("got notes %q and error %v, want %s from w 1 and nothing from silent", notes, err, want)
		}
	}
	expect(`{"keys":1}`)
	told = json.RawMessage(`{"keys":2}`)
	if err := member.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(`{"keys":2}`)
}

func TestTheLifeOfLeasesIsAPropertyOfTheStore(t *testing.T) {
	b := open(t, 4)
	again := func(c InitConfig, want time.Duration, drift string) {
		t.Helper()
		c.Vendor = "acme"
		for _, o := range initVendor(t, b, c).Drifted() {
			t.Errorf("%s: %s drifted: %v", drift, o.Name, o.Differences)
		}
		wantLeaseTTL(t, b, want)
		s, err := b.js.Stream(t.Context(), EventsStream("acme"))
		if err != nil {
			t.Fatal(err)
		}
		consumer, err := s.Consumer(t.Context(), "p3")
		if err != nil {
			t.Fatal(err)
		}
		if got := consumer.CachedInfo().Config.AckWait; got != max(want, LeaseTTL) {
			t.Errorf("%s: messages of a dead worker stay away for %v, want %v: as long as its leases live, and as a busy one may take", drift, got, max(want, LeaseTTL))
		}
	}
	again(InitConfig{LeaseTTL: 2 * time.Second}, 2*time.Second, "shortened while no worker runs")
	again(InitConfig{}, 2*time.Second, "left as it is")
	member, err := b.Member(t.Context(), "w one", nil)
	if err != nil {
		t.Fatal(err)
	}
	again(InitConfig{LeaseTTL: 20 * time.Second}, 20*time.Second, "lengthened while a worker runs")
	_, err = b.Init(t.Context(), InitConfig{Vendor: "acme", LeaseTTL: time.Second})
	wantError(t, err, "leases live 20s and are to live 1s", "stop these first", "w one")
	wantLeaseTTL(t, b, 20*time.Second)
	if err := member.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	again(InitConfig{LeaseTTL: time.Second}, time.Second, "shortened after the worker has stopped")
}

func TestALeaseThatNobodyCouldUseIsRefused(t *testing.T) {
	for _, ttl := range []time.Duration{-time.Second, time.Millisecond, time.Hour} {
		wantError(t, InitConfig{Vendor: "acme", LeaseTTL: ttl}.check(), "leases of "+ttl.String()+": want 1s to 1m0s")
	}
}

func TestALostAnswerToARenewalLeavesNoLeaseBehind(t *testing.T) {
	b := open(t, 4)
	l := lease(t, b, 0, "w")
	before := l.revision
	if err := l.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.revision = before // as if the answer had not come
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	wantOwners(t, b, map[int]string{})
}

// seen collects what a watch of the leases tells.
func seen(t *testing.T, b *Broker) (next func() string) {
	t.Helper()
	told := make(chan string, 100)
	tell := func(how string) func(string, int, string) {
		return func(vendor string, partition int, worker string) {
			told <- fmt.Sprintf("%s %s.%d %s", how, vendor, partition, worker)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.WatchLeases(ctx, LeaseWatch{Held: tell("held"), Gone: tell("gone"), Complete: func() { told <- "complete" }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v, want %v", err, context.Canceled)
		}
	})
	return func() string {
		select {
		case what := <-told:
			return what
		case <-time.After(20 * time.Second):
			return "nothing"
		}
	}
}

func TestAWatchOfTheLeasesSeesThemComeAndGo(t *testing.T) {
	b := openLeases(t)
	first := lease(t, b, 1, "w one")
	next := seen(t, b)
	want := func(what string) {
		t.Helper()
		if got := next(); got != what {
			t.Errorf("seen: got %q, want %q", got, what)
		}
	}
	want("held acme.1 w one")
	want("complete")
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("gone acme.1 ")
	if _, err := b.Member(t.Context(), "w.2", nil); err != nil {
		t.Fatal(err)
	}
	want("held .0 w.2")
	want("gone .0 w.2") // it expires
	lease(t, b, 3, "w.2")
	want("held acme.3 w.2")
	want("gone acme.3 ")
}

// Regression: a worker whose taking was stored and not answered was locked out of
// its own lease until that expired.
func TestALeaseWhoseTakingWasNotAnsweredIsFoundByTheNextOne(t *testing.T) {
	b := open(t, 4)
	unanswered := lease(t, b, 2, "w")
	b.doubt(t.Context(), unanswered)
	if again := lease(t, b, 2, "w"); again.holder.Instance != unanswered.holder.Instance {
		t.Errorf("got a lease of instance %s, want the one that was taken, %s", again.holder.Instance, unanswered.holder.Instance)
	}
	if _, err := b.Lease(t.Context(), "acme", 2, "w"); !errors.Is(err, ErrLeased) {
		t.Errorf("a second one of the same name: got %v, want %v", err, ErrLeased)
	}

	stopped, stop := context.WithCancel(t.Context())
	left := lease(t, b, 3, "w")
	stop()
	b.doubt(stopped, left)
	lease(t, b, 3, "another")
}
