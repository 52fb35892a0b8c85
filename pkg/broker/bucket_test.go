package broker

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

type record struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func openRecords(t *testing.T, b *Broker) *Bucket[record] {
	t.Helper()
	bucket, err := OpenBucket[record](t.Context(), b, BucketIntegrations)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

func create(t *testing.T, bucket *Bucket[record], key string, r record) {
	t.Helper()
	if err := bucket.Create(t.Context(), key, r); err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
}

func TestRecordsAreCreatedChangedAndDeleted(t *testing.T) {
	bucket := openRecords(t, open(t, 1))
	key := IntegrationKey("acme", "o 1/ü")
	if _, _, err := bucket.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want %v", err, ErrNotFound)
	}
	if _, err := bucket.Update(t.Context(), key, func(*record) error { return nil }); !errors.Is(err, ErrNotFound) {
		t.Errorf("update gave %v, want %v", err, ErrNotFound)
	}
	create(t, bucket, key, record{Name: "a"})
	if err := bucket.Create(t.Context(), key, record{}); !errors.Is(err, ErrExists) {
		t.Errorf("second create gave %v, want %v", err, ErrExists)
	}
	if got, revision, err := bucket.Get(t.Context(), key); err != nil || got.Name != "a" || revision == 0 {
		t.Errorf("got %+v at %d, %v; want a", got, revision, err)
	}
	if got, err := bucket.Update(t.Context(), key, func(r *record) error { r.Count = 7; return nil }); err != nil || got != (record{"a", 7}) {
		t.Errorf("update gave %+v, %v; want a, 7", got, err)
	}
	no := errors.New("no")
	if _, err := bucket.Update(t.Context(), key, func(r *record) error { r.Count = 8; return no }); !errors.Is(err, no) {
		t.Errorf("got %v, want %v", err, no)
	}
	create(t, bucket, "acme.other", record{Name: "b"})
	want := map[string]record{key: {"a", 7}, "acme.other": {Name: "b"}}
	if got, err := bucket.All(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("all is %v, %v; want %v", got, err, want)
	}
	for range 2 {
		if err := bucket.Delete(t.Context(), key); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, _, err := bucket.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v of a deleted record, want %v", err, ErrNotFound)
	}
	create(t, bucket, key, record{Name: "again"})
}

func TestNoUpdateIsLost(t *testing.T) {
	bucket := openRecords(t, open(t, 1))
	create(t, bucket, "k", record{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if _, err := bucket.Update(t.Context(), "k", func(r *record) error { r.Count++; return nil }); err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got, _, err := bucket.Get(t.Context(), "k"); err != nil || got.Count != 80 {
		t.Errorf("got %+v, %v; want 80", got, err)
	}
}

func TestRecordThatCannotBeReadIsAnError(t *testing.T) {
	b := open(t, 1)
	bucket := openRecords(t, b)
	if err := rawPublish(t, b, bucket.prefix()+"k", nil, []byte("{")); err != nil {
		t.Fatal(err)
	}
	_, _, err := bucket.Get(t.Context(), "k")
	wantError(t, err, "read k in bucket INTEGRATIONS")
	_, err = bucket.All(t.Context())
	wantError(t, err, "read bucket INTEGRATIONS", "k")
	wantError(t, bucket.Watch(t.Context(), func(string, *record) error { return nil }), "watch bucket INTEGRATIONS", "k")
	_, err = OpenBucket[record](t.Context(), b, "NOTHING")
	wantError(t, err, "bucket NOTHING is missing")
}

// watch starts a Watch whose every yield comes out of the channel as text.
func watch(t *testing.T, bucket *Bucket[record]) (seen <-chan string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		ended <- bucket.Watch(ctx, func(key string, r *record) error {
			if r == nil {
				out <- key + " gone"
			} else {
				out <- fmt.Sprint(key, " ", r.Count)
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v, want %v", err, context.Canceled)
		}
	})
	return out
}

func wantSeen(t *testing.T, seen <-chan string, want ...string) {
	t.Helper()
	open := map[string]bool{}
	for _, w := range want {
		open[w] = true
	}
	for len(open) > 0 {
		select {
		case got := <-seen:
			if !open[got] {
				t.Errorf("saw %q, want one of %v", got, open)
			}
			delete(open, got)
		case <-time.After(20 * time.Second):
			t.Fatalf("waited 20 s in vain for %v", open)
		}
	}
}

func TestWatchSeesEveryRecordAndEveryChange(t *testing.T) {
	bucket := openRecords(t, open(t, 1))
	create(t, bucket, "a", record{Count: 1})
	create(t, bucket, "b", record{Count: 2})
	create(t, bucket, "c", record{Count: 3})
	if err := bucket.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	seen := watch(t, bucket)
	wantSeen(t, seen, "a 1", "b 2")
	if _, err := bucket.Update(t.Context(), "a", func(r *record) error { r.Count = 5; return nil }); err != nil {
		t.Fatal(err)
	}
	wantSeen(t, seen, "a 5")
	if err := bucket.Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	wantSeen(t, seen, "b gone")
	enough := errors.New("enough")
	if err := bucket.Watch(t.Context(), func(string, *record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
}

// Regression: a watch that was begun anew while the server went away waited for
// five seconds for an answer, and did not see what operators said meanwhile.
func TestAQuestionToAServerThatGoesAwayEndsAtOnce(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	e := startServer(t, dir, address)
	b := connect(t, e.ClientURL())
	asking, done := b.whileConnected(t.Context())
	defer done()
	began := time.Now()
	e.Close()
	<-asking.Done()
	if cause := context.Cause(asking); !errors.Is(cause, errDisconnected) || time.Since(began) > requestTimeout/2 {
		t.Errorf("a question that nobody can answer ended after %v with %v, want %v at once", time.Since(began), cause, errDisconnected)
	}
	if err := causeOr(asking, context.Canceled); !errors.Is(err, errDisconnected) {
		t.Errorf("its error: got %v, want %v", err, errDisconnected)
	}
}

func TestWatchSurvivesARestartOfTheServer(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	e := startServer(t, dir, address)
	b := connect(t, e.ClientURL())
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 1})
	bucket := openRecords(t, b)
	create(t, bucket, "a", record{Count: 1})
	create(t, bucket, "b", record{Count: 2})
	seen := watch(t, bucket)
	wantSeen(t, seen, "a 1", "b 2")
	e.Close()
	e = startServer(t, dir, address)
	other := connect(t, e.ClientURL())
	stream, err := other.stream(t.Context(), bucketPrefix+BucketIntegrations)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is left of b, not even a mark.
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(bucket.prefix()+"b")); err != nil {
		t.Fatal(err)
	}
	wantSeen(t, seen, "a 1", "b gone")
	reconnected(t, b)
	create(t, bucket, "c", record{Count: 3})
	wantSeen(t, seen, "c 3")
}
