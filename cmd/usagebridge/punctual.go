package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// punctual is a transport that sends no request whose time is over. A process
// that was stopped while it dialled (a signal, a frozen container) goes on
// where it was, before any timer can end the call, and by then another worker
// may have sent a newer figure. A request whose body cannot be read is never
// complete, and so the partner never acts on it.
type punctual struct{ http.RoundTripper }

// RoundTrip makes the call, unless its deadline passes before the body leaves.
func (t punctual) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline, limited := r.Context().Deadline()
	if !limited || r.Body == nil {
		return t.RoundTripper.RoundTrip(r)
	}
	guarded := r.Clone(r.Context())
	guarded.Body = punctualBody{r.Body, deadline}
	if again := r.GetBody; again != nil {
		guarded.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			return punctualBody{body, deadline}, err
		}
	}
	return t.RoundTripper.RoundTrip(guarded)
}

// CloseIdleConnections closes the connections that wait for a next call.
func (t punctual) CloseIdleConnections() {
	(&http.Client{Transport: t.RoundTripper}).CloseIdleConnections()
}

// punctualBody can be read until its deadline, by the clock and not by a timer.
type punctualBody struct {
	io.ReadCloser
	deadline time.Time
}

// Read reads on while there is time.
func (b punctualBody) Read(p []byte) (int, error) {
	// Without its monotonic reading the time goes on while a machine sleeps.
	if now := time.Now(); now.After(b.deadline) || now.Round(0).After(b.deadline.Round(0)) {
		return 0, fmt.Errorf("request not sent: %w", context.DeadlineExceeded)
	}
	return b.ReadCloser.Read(p)
}
