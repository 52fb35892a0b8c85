package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// LeaseTTL is how long a lease lives without being renewed (design, section
// "Ownership") in a store for which nobody has said otherwise.
const LeaseTTL = 15 * time.Second

// What Init takes for the life of leases.
const (
	minLeaseTTL = time.Second
	maxLeaseTTL = time.Minute
)

// memberToken stands where a vendor's name stands in the key of a lease.
const memberToken = "member"

var (
	// ErrLeased says that another worker has the lease; the error names it.
	ErrLeased = errors.New("already leased")
	// ErrLeaseLost says that a lease expired or was taken over.
	ErrLeaseLost = errors.New("lease lost")
)

// Lease is the right to work on one partition, or a worker's sign of life.
// It saves two workers from working in vain; it is no proof of being alone.
// A Lease must be used by one goroutine at a time.
type Lease struct {
	bucket   jetstream.KeyValue
	key      string
	holder   holder
	note     func() json.RawMessage // nil: there is none
	revision uint64
}

// holder is the content of a lease. Instance tells a worker from its
// predecessor of the same name.
type holder struct {
	Worker   string    `json:"worker"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`
	// Note is what a worker tells the others of itself.
	Note json.RawMessage `json:"note,omitempty"`
}

// Lease takes the lease of a partition. If another worker has it, or this one
// before it was restarted, the error wraps ErrLeased.
func (b *Broker) Lease(ctx context.Context, vendor string, partition int, worker string) (*Lease, error) {
	return b.lease(ctx, event.Escape(vendor)+"."+strconv.Itoa(partition), worker, nil)
}

// Member takes the lease that shows a worker to be alive. note, unless it is
// nil, is asked now and with each renewal for what the worker tells the others
// of itself, as JSON; see [Broker.Notes].
func (b *Broker) Member(ctx context.Context, worker string, note func() json.RawMessage) (*Lease, error) {
	return b.lease(ctx, memberToken+"."+event.Escape(worker), worker, note)
}

func (b *Broker) lease(ctx context.Context, key, worker string, note func() json.RawMessage) (*Lease, error) {
	bucket, err := b.bucket(ctx, BucketLeases)
	if err != nil {
		return nil, err
	}
	instance := nuid.Next()
	if before, unanswered := b.doubtful.LoadAndDelete(key); unanswered {
		instance, _ = before.(string)
	}
	l := &Lease{bucket: bucket, key: key, note: note, holder: holder{Worker: worker, Instance: instance, Since: time.Now().UTC()}}
	data, err := l.content()
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", key, err)
	}
	l.revision, err = bucket.Create(ctx, key, data)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) && !stale(err) {
		b.doubt(ctx, l)
		return nil, fmt.Errorf("lease %s: %w", key, err)
	}
	owner := "another worker"
	if now, at, err := l.current(ctx); err == nil {
		if now.Instance == instance { // it was taken when no answer came
			l.revision = at
			return l, l.Renew(ctx)
		}
		owner = fmt.Sprintf("worker %s since %s", now.Worker, now.Since.Format(time.RFC3339))
	}
	return nil, fmt.Errorf("lease %s: %w by %s", key, ErrLeased, owner)
}

// content is the lease as it is stored.
func (l *Lease) content() ([]byte, error) {
	if l.note != nil {
		l.holder.Note = l.note()
	}
	return json.Marshal(l.holder)
}

// doubt sees to a lease of which nobody knows whether it was taken: the next
// taking finds it, or, where there will be none, it is given back.
func (b *Broker) doubt(ctx context.Context, l *Lease) {
	if ctx.Err() == nil {
		b.doubtful.Store(l.key, l.holder.Instance)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), doubtTimeout)
	defer cancel()
	if now, at, err := l.current(ctx); err == nil && now.Instance == l.holder.Instance {
		l.revision = at
		_ = l.Release(ctx) // or it ends by itself
	}
}

// doubtTimeout bounds how long a worker that stops looks for a lease that it may
// have.
const doubtTimeout = time.Second

func stale(err error) bool { return errors.Is(staleOr(err), ErrStale) }

// current is who has the lease now.
func (l *Lease) current(ctx context.Context) (holder, uint64, error) {
	e, err := l.bucket.Get(ctx, l.key)
	if err != nil {
		return holder{}, 0, err
	}
	var h holder
	err = json.Unmarshal(e.Value(), &h)
	return h, e.Revision(), err
}

// Renew gives the lease its full time again. An error that wraps ErrLeaseLost
// is final; after any other the lease runs on and Renew may be repeated.
func (l *Lease) Renew(ctx context.Context) error {
	data, err := l.content()
	if err != nil {
		return fmt.Errorf("renew lease %s: %w", l.key, err)
	}
	revision, err := l.bucket.Update(ctx, l.key, data, l.revision)
	if stale(err) {
		// The answer to the last renewal may have been lost, not the lease.
		now, at, readErr := l.current(ctx)
		switch {
		case readErr == nil && now.Instance == l.holder.Instance:
			revision, err = l.bucket.Update(ctx, l.key, data, at)
		case readErr != nil && !errors.Is(readErr, jetstream.ErrKeyNotFound):
			return fmt.Errorf("renew lease %s: see whose it is: %w", l.key, readErr)
		}
	}
	switch {
	case stale(err):
		return fmt.Errorf("renew lease %s: %w", l.key, ErrLeaseLost)
	case err != nil:
		return fmt.Errorf("renew lease %s: %w", l.key, err)
	}
	l.revision = revision
	return nil
}

// Release ends the lease, so that another worker need not wait for it to
// expire. A lease that is lost already is released.
func (l *Lease) Release(ctx context.Context) error {
	err := l.bucket.Delete(ctx, l.key, jetstream.LastRevision(l.revision))
	if stale(err) {
		// Here, too, the answer to the last renewal may have been lost.
		if now, at, readErr := l.current(ctx); readErr == nil && now.Instance == l.holder.Instance {
			err = l.bucket.Delete(ctx, l.key, jetstream.LastRevision(at))
		}
	}
	if err != nil && !stale(err) {
		return fmt.Errorf("release lease %s: %w", l.key, err)
	}
	return nil
}

// LeaseTTL is how long leases live in this store without being renewed.
func (b *Broker) LeaseTTL(ctx context.Context) (time.Duration, error) {
	s, err := b.js.Stream(ctx, bucketPrefix+BucketLeases)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, fmt.Errorf("bucket %s is missing: run `usagebridge init`: %w", BucketLeases, jetstream.ErrBucketNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("look up how long leases live: %w", err)
	}
	return s.CachedInfo().Config.MaxAge, nil
}

// futureLeaseTTL is how long leases are to live: as wished, else as they do,
// else the default. A worker that runs goes by what it read when it started, so
// it must not be left with leases that end earlier.
func (b *Broker) futureLeaseTTL(ctx context.Context, wish time.Duration) (time.Duration, error) {
	now, err := b.LeaseTTL(ctx)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound):
		return cmp.Or(wish, LeaseTTL), nil
	case err != nil:
		return 0, err
	case wish == 0 || wish >= now:
		return max(wish, now), nil
	}
	holding := map[string]bool{}
	err = b.holders(ctx, "*", func(_ string, h holder) error {
		holding[h.Worker] = true
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("look for workers that run: %w", err)
	}
	if len(holding) > 0 {
		return 0, fmt.Errorf("leases live %v and are to live %v: the workers that run now would rely on them too long: stop these first, or choose %v or more: %s",
			now, wish, now, strings.Join(slices.Sorted(maps.Keys(holding)), ", "))
	}
	return wish, nil
}

// LeaseWatch takes what WatchLeases sees. Its methods must return at once.
type LeaseWatch struct {
	// Held is told of every lease and of every renewal. An empty vendor means a
	// worker's sign of life.
	Held func(vendor string, partition int, worker string)
	// Gone is told of a lease that was released or has expired. The worker is
	// named if the vendor is not.
	Gone func(vendor string, partition int, worker string)
	// Complete is told once Held has been told of all leases that there are, and
	// again after every lost connection.
	Complete func()
}

// WatchLeases follows all leases until ctx ends. It starts again after a lost
// connection, and then tells what has gone meanwhile.
func (b *Broker) WatchLeases(ctx context.Context, w LeaseWatch) error {
	bucket, err := OpenBucket[holder](ctx, b, BucketLeases)
	if err != nil {
		return err
	}
	return bucket.watch(ctx, func(key string, h *holder) error {
		first, last, _ := strings.Cut(key, ".")
		vendor, worker, partition := first, "", 0
		var err error
		if first == memberToken {
			vendor = ""
			worker, err = event.Unescape(last)
		} else {
			partition, err = strconv.Atoi(last)
		}
		switch {
		case err != nil:
			b.log.Warn("a lease that is none of ours", "key", key, "err", err)
		case h == nil:
			w.Gone(vendor, partition, worker)
		default:
			w.Held(vendor, partition, h.Worker)
		}
		return nil
	}, w.Complete)
}

// Owners says which worker has which partition of the vendor.
func (b *Broker) Owners(ctx context.Context, vendor string) (map[int]string, error) {
	owners := map[int]string{}
	err := b.holders(ctx, event.Escape(vendor), func(token string, h holder) error {
		partition, err := strconv.Atoi(token)
		owners[partition] = h.Worker
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list owners of %s: %w", vendor, err)
	}
	return owners, nil
}

// Members lists the workers that are alive, by name.
func (b *Broker) Members(ctx context.Context) ([]string, error) {
	notes, err := b.Notes(ctx)
	return slices.Sorted(maps.Keys(notes)), err
}

// Notes is what each worker that is alive tells of itself, by name; nil for one
// that tells nothing, such as one of an older version.
func (b *Broker) Notes(ctx context.Context) (map[string]json.RawMessage, error) {
	notes := map[string]json.RawMessage{}
	err := b.holders(ctx, memberToken, func(_ string, h holder) error {
		notes[h.Worker] = h.Note
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	return notes, nil
}

func (b *Broker) holders(ctx context.Context, first string, yield func(token string, h holder) error) error {
	prefix := subjectPrefix + BucketLeases + "." + first + "."
	all := reading{stream: bucketPrefix + BucketLeases, filters: []string{prefix + "*"}, newest: true, keys: true}
	return b.read(ctx, all, func(m *nats.Msg, _ *nats.MsgMetadata) error {
		if deleted(m.Header) {
			return nil
		}
		var h holder
		if err := json.Unmarshal(m.Data, &h); err != nil {
			return fmt.Errorf("lease %s: %w", m.Subject, err)
		}
		return yield(strings.TrimPrefix(m.Subject, prefix), h)
	})
}
