package delivery_test

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/delivery"
)

// BenchmarkCalls sends a thousand counts through a lane to a partner that
// answers at once: what is measured is the lane alone.
func BenchmarkCalls(b *testing.B) {
	r := newRig(b, b.Errorf, delivery.Config{Linger: -1, Concurrency: 64})
	defer r.stop(nil)
	r.lane.SetLink(r.good())
	keys := r.counts(1000)
	accepted := make(chan struct{}, len(keys))
	r.script(func(delivery.Task) delivery.Answer {
		accepted <- struct{}{}
		return delivery.Answer{Class: delivery.Accepted, Status: 201}
	})
	b.ReportAllocs()
	units := int64(0)
	for b.Loop() {
		units++
		r.set(units*1_000_000, keys...)
		for range keys {
			<-accepted
		}
		r.drop()
	}
}

// drop forgets the tape and the outcomes, which would grow without end.
func (r *rig) drop() {
	r.partner.mu.Lock()
	r.tape = nil
	r.partner.mu.Unlock()
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.outcomes = nil
}
