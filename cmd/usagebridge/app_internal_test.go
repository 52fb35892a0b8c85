package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
)

// brokenBucket fails as often as it is told, before it works.
type brokenBucket struct {
	failures []error
	tried    int
	record   status.Integration
}

func (b *brokenBucket) Update(_ context.Context, _ string, change func(*status.Integration) error) (status.Integration, error) {
	b.tried++
	if b.tried <= len(b.failures) && b.failures[b.tried-1] != nil {
		return b.record, b.failures[b.tried-1]
	}
	err := change(&b.record)
	return b.record, err
}

func TestWhatWasLearntOfAnIntegrationIsRecordedOnceTheStoreAnswersAgain(t *testing.T) {
	away, missing, unwanted := errors.New("no answer"), fmt.Errorf("acme.msp-1: %w", broker.ErrNotFound), errors.New("unwanted")
	for _, c := range []struct {
		name     string
		failures []error
		change   error
		tried    int
		want     error
	}{
		{"the store answers", nil, nil, 1, nil},
		{"the store is away for a moment", []error{away, away, away}, nil, 4, nil},
		{"there is no such integration", []error{missing}, nil, 1, missing},
		{"it does not concern the integration", nil, unwanted, 1, unwanted},
	} {
		synctest.Test(t, func(t *testing.T) {
			bucket := &brokenBucket{failures: c.failures}
			err := statusRecords{bucket}.Update(t.Context(), "acme", "msp-1", func(i *status.Integration) error {
				i.Status = status.Connected
				return c.change
			})
			if !errors.Is(err, c.want) || bucket.tried != c.tried {
				t.Errorf("%s: got %v after %d tries, want %v after %d", c.name, err, bucket.tried, c.want, c.tried)
			}
		})
	}
}

func TestAStoreThatStaysAwayDoesNotHoldTheStatusForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("no answer")
		bucket := &brokenBucket{failures: make([]error, 1000)}
		for i := range bucket.failures {
			bucket.failures[i] = away
		}
		began := time.Now()
		err := statusRecords{bucket}.Update(t.Context(), "acme", "msp-1", func(*status.Integration) error { return nil })
		if took := time.Since(began); !errors.Is(err, away) || took > recordTime {
			t.Errorf("got %v after %v, want %v within %v", err, took, away, recordTime)
		}
	})
}
