package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestAWorkerWaitsForWhatPassesAndForNothingElse(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("open bucket: %w", context.DeadlineExceeded), true},
		{nats.ErrTimeout, true},
		{nats.ErrNoResponders, true},
		{&jetstream.APIError{Code: 503, ErrorCode: 10008}, true},
		{&jetstream.APIError{Code: 500}, false},
		{jetstream.ErrJetStreamNotEnabled, false},
		{errors.New("no integration can be used"), false},
		{usagef("wrong keyset"), false},
	} {
		if got := passing(c.err); got != c.want {
			t.Errorf("%v passes: got %t, want %t", c.err, got, c.want)
		}
	}
}
