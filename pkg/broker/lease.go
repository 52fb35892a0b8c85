package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// LeaseTTL is how long a lease lives without being renewed (design, section
// "Ownership"). Owners renew it three times as often.
const LeaseTTL = 15 * time.Second

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
	revision uint64
}

// holder is the content of a lease. Instance tells a worker from its
// predecessor of the same name.
type holder struct {
	Worker   string    `json:"worker"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`
}

// Lease takes the lease of a partition. If another worker has it, or this one
// before it was restarted, the error wraps ErrLeased.
func (b *Broker) Lease(ctx context.Context, vendor string, partition int, worker string) (*Lease, error) {
	return b.lease(ctx, event.Escape(vendor)+"."+strconv.Itoa(partition), worker)
}

// Member takes the lease that shows a worker to be alive.
func (b *Broker) Member(ctx context.Context, worker string) (*Lease, error) {
	return b.lease(ctx, memberToken+"."+event.Escape(worker), worker)
}

func (b *Broker) lease(ctx context.Context, key, worker string) (*Lease, error) {
	bucket, err := b.bucket(ctx, BucketLeases)
	if err != nil {
		return nil, err
	}
	l := &Lease{bucket: bucket, key: key, holder: holder{Worker: worker, Instance: nuid.Next(), Since: time.Now().UTC()}}
	data, err := json.Marshal(l.holder)
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", key, err)
	}
	l.revision, err = bucket.Create(ctx, key, data)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) && !stale(err) {
		return nil, fmt.Errorf("lease %s: %w", key, err)
	}
	owner := "another worker"
	if now, _, err := l.current(ctx); err == nil {
		owner = fmt.Sprintf("worker %s since %s", now.Worker, now.Since.Format(time.RFC3339))
	}
	return nil, fmt.Errorf("lease %s: %w by %s", key, ErrLeased, owner)
}

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
	data, err := json.Marshal(l.holder)
	if err != nil {
		return fmt.Errorf("renew lease %s: %w", l.key, err)
	}
	revision, err := l.bucket.Update(ctx, l.key, data, l.revision)
	if stale(err) {
		// The answer to the last renewal may have been lost, not the lease.
		if now, at, readErr := l.current(ctx); readErr == nil && now.Instance == l.holder.Instance {
			revision, err = l.bucket.Update(ctx, l.key, data, at)
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
	if err != nil && !stale(err) {
		return fmt.Errorf("release lease %s: %w", l.key, err)
	}
	return nil
}

// LeaseTTL is how long a lease of this broker lives without being renewed.
func (b *Broker) LeaseTTL() time.Duration { return b.leaseTTL }

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
	var workers []string
	err := b.holders(ctx, memberToken, func(_ string, h holder) error {
		workers = append(workers, h.Worker)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	slices.Sort(workers)
	return workers, nil
}

func (b *Broker) holders(ctx context.Context, first string, yield func(token string, h holder) error) error {
	prefix := subjectPrefix + BucketLeases + "." + first + "."
	all := reading{stream: bucketPrefix + BucketLeases, filters: []string{prefix + "*"}, newest: true, keys: true}
	return b.read(ctx, all, func(m jetstream.Msg, _ *jetstream.MsgMetadata) error {
		if deleted(m.Headers()) {
			return nil
		}
		var h holder
		if err := json.Unmarshal(m.Data(), &h); err != nil {
			return fmt.Errorf("lease %s: %w", m.Subject(), err)
		}
		return yield(strings.TrimPrefix(m.Subject(), prefix), h)
	})
}
