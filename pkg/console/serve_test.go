package console_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/console"
	"github.com/usagebridge/usagebridge/pkg/event"
)

// pipes is a listener whose connections are in memory, so that a server runs
// in virtual time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// serve runs Serve; the functions end its context and wait for its error.
func serve(t *testing.T, c *console.Console, l net.Listener) (stop func(), wait func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, l) }()
	return cancel, func() error { return <-served }
}

// held is a Publish that says when it is called and waits to be released.
type held struct{ called, release chan struct{} }

func (h held) publish(ctx context.Context, _ *event.Event) (console.Receipt, error) {
	close(h.called)
	select {
	case <-h.release:
		return console.Receipt{Stream: "EVENTS_acme", Sequence: 1}, nil
	case <-ctx.Done():
		return console.Receipt{}, ctx.Err()
	}
}

func newHeld() (held, *bench) {
	h := held{make(chan struct{}), make(chan struct{})}
	return h, newBench(func(b *bench) { b.config.Publish = h.publish })
}

func TestAStopWaitsForRequestsInFlight(t *testing.T) {
	h, b := newHeld()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	stop, wait := serve(t, b.console, listener)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	status := make(chan string, 1)
	go func() {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+listener.Addr().String()+"/ingest/v1/events", strings.NewReader(count("1", 1)))
		if err != nil {
			status <- err.Error()
			return
		}
		request.Header.Set("Content-Type", event.ContentTypeStructured)
		answer, err := client.Do(request)
		if err != nil {
			status <- err.Error()
			return
		}
		defer func() { _ = answer.Body.Close() }()
		_, _ = io.Copy(io.Discard, answer.Body)
		status <- answer.Status
	}()
	<-h.called
	stop()
	close(h.release)
	if got := <-status; got != "202 Accepted" {
		t.Errorf("the request in flight got %q, want 202 Accepted", got)
	}
	if err := wait(); err != nil {
		t.Errorf("Serve returned %v, want nil", err)
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the listener still takes connections after Serve returned")
	}
}

func TestAStopCutsRequestsOffAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, b := newHeld()
		listener := newPipes()
		stop, wait := serve(t, b.console, listener)
		conn := listener.dial()
		defer func() { _ = conn.Close() }()
		go func() {
			body := count("1", 1)
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://pipes/ingest/v1/events", strings.NewReader(body))
			r.Header.Set("Content-Type", event.ContentTypeStructured)
			_ = r.Write(conn)
		}()
		<-h.called
		stop()
		began := time.Now()
		err := wait()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut off after 5s") {
			t.Errorf("Serve returned %v, want that requests were cut off after 5s", err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the stop took %v, want 5s", took)
		}
		synctest.Wait() // the handler ends because its context has ended
	})
}

func TestAClientThatDawdlesIsCutOff(t *testing.T) {
	for _, test := range []struct {
		name, sent string
		after      time.Duration
	}{
		{"in its headers", "GET /livez HTTP/1.1\r\nHost: pi", 10 * time.Second},
		{"in its body", "POST /ingest/v1/events HTTP/1.1\r\nHost: pipes\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", 30 * time.Second},
		{"between two requests", "GET /livez HTTP/1.1\r\nHost: pipes\r\n\r\n", 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, listener := newBench(), newPipes()
				stop, wait := serve(t, b.console, listener)
				conn := listener.dial()
				began := time.Now()
				go func() { _, _ = io.WriteString(conn, test.sent) }()
				_, _ = io.Copy(io.Discard, conn) // until the server closes
				// A server that refuses lingers up to half a second for the client to read.
				if took := time.Since(began); took < test.after || took > test.after+time.Second {
					t.Errorf("cut off after %v, want %v", took, test.after)
				}
				_ = conn.Close()
				stop()
				if err := wait(); err != nil {
					t.Errorf("Serve returned %v, want nil", err)
				}
			})
		})
	}
}

func TestHeadersOfMoreThan64KiBAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, listener := newBench(), newPipes()
		stop, wait := serve(t, b.console, listener)
		conn := listener.dial()
		go func() {
			_, _ = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: pipes\r\nX-Long: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
		}()
		line, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(line, "HTTP/1.1 431 ") {
			t.Errorf("answer begins %q (%v), want 431", line, err)
		}
		_ = conn.Close()
		stop()
		if err := wait(); err != nil {
			t.Errorf("Serve returned %v, want nil", err)
		}
	})
}

func TestServeReportsABrokenListener(t *testing.T) {
	b, listener := newBench(), newPipes()
	_, wait := serve(t, b.console, listener)
	_ = listener.Close()
	if err := wait(); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "serve HTTP on pipes") {
		t.Errorf("Serve returned %v, want which listener is closed", err)
	}
}
