package oemapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// newRawPlatform is a platform that reads a request and then does with the
// connection what it wants. It stays open until the test ends unless serve closes it.
func newRawPlatform(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	done := make(chan struct{})
	handlers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			handlers.Go(func() {
				defer conn.Close()
				request, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				serve(conn)
				<-done
			})
		}
	})
	t.Cleanup(func() {
		close(done)
		_ = listener.Close()
		handlers.Wait()
	})
	return "http://" + listener.Addr().String()
}

func says(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

func saysAndCloses(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text); _ = conn.Close() }
}

func TestBrokenPlatformsGiveNoAnswer(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	const half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"integrations\":["
	for _, c := range []struct {
		name, address, message string
		status                 int
		timeout                bool
	}{
		{"never answers", newRawPlatform(t, says("")), "timed out after 500ms", 0, true},
		{"stops within the headers", newRawPlatform(t, says("HTTP/1.1 200 OK\r\nX-Slow: ")), "timed out", 0, true},
		{"stops within the body", newRawPlatform(t, says(half)), "timed out", 200, true},
		{"closes within the body", newRawPlatform(t, saysAndCloses(half)), "the answer broke off: unexpected EOF", 200, false},
		{"speaks no HTTP", newRawPlatform(t, saysAndCloses("220 mail ready\r\n")), "malformed HTTP", 0, false},
		{"closes after reading", newRawPlatform(t, saysAndCloses("")), "EOF", 0, false},
		{"listens nowhere", "http://" + closed.Addr().String(), "refused", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := newClientOf(t, c.address, func(config *Config) {
				if c.timeout {
					config.Timeout = 500 * time.Millisecond
				}
			})
			_, result, err := list(t, client)
			e := failure(t, err)
			if e.Class() != Network || !e.Temporary() || e.StatusCode() != c.status || result.StatusCode != c.status {
				t.Errorf("got %v (class %s, status %d and %d), want %s with status %d", e, e.Class(), e.StatusCode(), result.StatusCode, Network, c.status)
			}
			if !strings.Contains(e.Message(), c.message) || result.Message != e.Message() || result.Duration <= 0 || result.Duration > 4*time.Second {
				t.Errorf("got message %q and %+v, want both to contain %q, and the time of a short call", e.Message(), result, c.message)
			}
			if got := errors.Is(err, context.DeadlineExceeded); got != c.timeout {
				t.Errorf("got deadline exceeded %t, want %t", got, c.timeout)
			}
		})
	}
}

func TestARefusalWhoseBodyBreaksOffIsStillARefusal(t *testing.T) {
	address := newRawPlatform(t, saysAndCloses("HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n{\"message\":\"half"))
	_, _, err := list(t, newClientOf(t, address, nil))
	if e := failure(t, err); e.Class() != Forbidden || e.StatusCode() != 403 {
		t.Errorf("got %v (class %s), want %s", e, e.Class(), Forbidden)
	}
}

func TestAnEndlessBodyIsLeft(t *testing.T) {
	for status, want := range map[int]Class{200: Unexpected, 503: Unavailable} {
		client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("x", 4096)); err != nil {
					return
				}
			}
		})
		_, result, err := list(t, client)
		if e := failure(t, err); e.Class() != want || len(e.Message()) > maxMessageBytes || result.Duration > 4*time.Second {
			t.Errorf("%d: got class %s, %d bytes of message after %s, want %s at once", status, e.Class(), len(e.Message()), result.Duration, want)
		}
	}
}

func TestSwitchingProtocolsDoesNotHang(t *testing.T) {
	address := newRawPlatform(t, says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
	_, result, err := list(t, newClientOf(t, address, nil))
	if e := failure(t, err); e.Class() != Unexpected || result.Duration > 4*time.Second {
		t.Errorf("got class %s after %s, want %s at once", e.Class(), result.Duration, Unexpected)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		t.Errorf("the redirect was followed to %s with %q", r.URL, body)
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		_, _, err := list(t, newClient(t, answer(status, "moved to "+elsewhere.URL, "Location", elsewhere.URL+"/?key=s3cret")))
		e := failure(t, err)
		if e.Class() != Unexpected || !strings.Contains(e.Error(), "redirects are not followed") || strings.Contains(e.Error(), elsewhere.URL) {
			t.Errorf("%d: got %v (class %s), want %s without the address", status, e, e.Class(), Unexpected)
		}
	}
}

func TestTheCallersWishIsNoFailureOfThePlatform(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		end    func(context.Context) (context.Context, context.CancelFunc)
		want   error
	}{
		"a cancel before the answer": {"", context.WithCancel, context.Canceled},
		"a cancel within the answer": {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", context.WithCancel, context.Canceled},
		"a deadline of his own": {"", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 50*time.Millisecond)
		}, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := c.end(t.Context())
			defer cancel()
			address := newRawPlatform(t, func(conn net.Conn) {
				_, _ = io.WriteString(conn, c.answer)
				if errors.Is(c.want, context.Canceled) {
					cancel()
				}
			})
			_, _, err := newClientOf(t, address, nil).Integrations(ctx, NewSecret(oemToken))
			e := failure(t, err)
			if e.Class() != Cancelled || e.Temporary() || e.Permanent() || !errors.Is(err, c.want) || e.Error() != "list integrations: cancelled by the caller" {
				t.Errorf("got %v (class %s), want %s by %v", e, e.Class(), Cancelled, c.want)
			}
		})
	}
}

func TestACallIsMadeOnceAndNotAgain(t *testing.T) {
	var calls int
	client := newClientOf(t, "http://platform.test/api", func(c *Config) {
		c.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			calls++
			return nil, fmt.Errorf("call %d failed", calls)
		})
	})
	_, _, err := list(t, client)
	if e := failure(t, err); calls != 1 || e.Class() != Network || e.Message() != "call 1 failed" {
		t.Errorf("got %v after %d calls, want the failure of the first and no other", e, calls)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
