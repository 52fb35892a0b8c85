package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// frozen is a context whose deadline has passed and whose timer has not run
// yet, as in a process that was stopped and goes on.
type frozen struct{ context.Context }

// Deadline is over.
func (frozen) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

func TestARequestWhoseTimeIsOverIsNotSent(t *testing.T) {
	var taken atomic.Int32
	// A partner acts on what it has read to its end: the header alone, which
	// may have left before the body was asked for, is no call.
	partner := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			taken.Add(1)
		}
	}))
	defer partner.Close()
	transport := punctual{&http.Transport{}}
	defer transport.CloseIdleConnections()
	call := func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, partner.URL, strings.NewReader(`{"unitCount":5}`))
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
	inTime, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := call(inTime); err != nil || taken.Load() != 1 {
		t.Fatalf("a call in time: got error %v and %d calls, want none and 1", err, taken.Load())
	}
	// The connection of the first call is idle: nothing is dialled.
	if err := call(frozen{t.Context()}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that is late: got error %v, want %v", err, context.DeadlineExceeded)
	}
	if got := taken.Load(); got != 1 {
		t.Errorf("calls that the partner took: got %d, want only the one in time", got)
	}
}
