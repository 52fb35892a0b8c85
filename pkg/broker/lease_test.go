package broker

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// openLeases gives a broker whose leases expire after a second.
func openLeases(t *testing.T) *Broker {
	t.Helper()
	b := connect(t, startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL())
	b.leaseTTL = time.Second
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 4})
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
	if b.LeaseTTL() != LeaseTTL {
		t.Errorf("leases live %v, want %v", b.LeaseTTL(), LeaseTTL)
	}
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
		if _, err := b.Member(t.Context(), worker); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := b.Members(t.Context()); err != nil || !reflect.DeepEqual(got, []string{"w 1", "w.2"}) {
		t.Errorf("members are %q, %v; want w 1 and w.2", got, err)
	}
	_, err := b.Member(t.Context(), "w 1")
	if !errors.Is(err, ErrLeased) {
		t.Errorf("got %v, want %v: two workers of one name", err, ErrLeased)
	}
	if err := b.js.DeleteStream(t.Context(), bucketPrefix+BucketLeases); err != nil {
		t.Fatal(err)
	}
	_, err = b.Lease(t.Context(), "acme", 0, "w")
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("got %v, want %v", err, jetstream.ErrBucketNotFound)
	}
	wantError(t, err, "bucket LEASES is missing", "usagebridge init")
}
