package vendorapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// newRawPartner is a partner that does with a connection what it wants. read
// says whether it reads the request first. The connection stays open until the
// test ends unless serve closes it.
func newRawPartner(t *testing.T, read bool, serve func(net.Conn)) string {
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
				if read {
					request, err := http.ReadRequest(bufio.NewReader(conn))
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, request.Body)
				}
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

// resetsEarly leaves most of the request unread. With nothing read at all it
// would be up to timing whether the client ever held the connection.
func resetsEarly(conn net.Conn) {
	_, _ = conn.Read(make([]byte, 1))
	resets(conn)
}

func resets(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

func TestBrokenPartnersGiveNoAnswer(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	untrusted := httptest.NewUnstartedServer(answer(201, ""))
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	hugeHeader := "HTTP/1.1 201 Created\r\nX-Huge: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\nContent-Length: 0\r\n\r\n"
	cases := []struct {
		name, address, message string
		sent, timeout          bool
	}{
		{"never answers", newRawPartner(t, true, says("")), "timed out after 500ms", true, true},
		{"stops within the headers", newRawPartner(t, true, says("HTTP/1.1 201 Created\r\nX-Slow: ")), "timed out", true, true},
		{"sends huge headers", newRawPartner(t, true, says(hugeHeader)), "headers exceeded", true, false},
		{"speaks no HTTP", newRawPartner(t, true, saysAndCloses("220 mail ready\r\n")), "malformed HTTP", true, false},
		{"resets before reading", newRawPartner(t, false, resetsEarly), "", true, false},
		{"resets after reading", newRawPartner(t, true, resets), "reset", true, false},
		{"closes after reading", newRawPartner(t, true, saysAndCloses("")), "EOF", true, false},
		{"listens nowhere", "http://" + closed.Addr().String(), "refused", false, false},
		{"has an untrusted certificate", untrusted.URL, "certificate", false, false},
		{"speaks no TLS", strings.Replace(newRawPartner(t, true, says("HTTP/1.1 400\r\n\r\n")), "http:", "https:", 1), "", false, false},
		{"has no name", "http://nobody.invalid", "nobody.invalid", false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := newClientOf(t, c.address, func(config *Config) {
				config.Transport = withoutNames()
				if c.timeout {
					config.Timeout = 500 * time.Millisecond
				}
			})
			result, err := client.PostCount(t.Context(), aCount)
			e := failure(t, err)
			if e.Class() != Network || !e.Temporary() || e.StatusCode() != 0 || result.StatusCode != 0 {
				t.Errorf("got %v (class %s, status %d), want %s without a status", e, e.Class(), e.StatusCode(), Network)
			}
			if !strings.Contains(e.Message(), c.message) || result.Message != e.Message() {
				t.Errorf("got message %q and %q, want both to contain %q", e.Message(), result.Message, c.message)
			}
			if e.Sent() != c.sent || e.Unknown() != c.sent {
				t.Errorf("got sent %t unknown %t, want %t", e.Sent(), e.Unknown(), c.sent)
			}
			if got := errors.Is(err, context.DeadlineExceeded); got != c.timeout {
				t.Errorf("got deadline exceeded %t, want %t", got, c.timeout)
			}
		})
	}
}

// withoutNames is our transport on a machine whose name server is down.
func withoutNames() *http.Transport {
	transport := NewTransport(1)
	transport.Proxy = nil
	dialer := net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("name server is down")
	}}}
	transport.DialContext = dialer.DialContext
	return transport
}

func TestABodyThatCannotBeReadChangesNothing(t *testing.T) {
	const cut = "HTTP/1.1 %d X\r\nContent-Length: 100\r\n\r\n{\"message\":\"half"
	const badChunk = "HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
	for name, serve := range map[string]func(text string) func(net.Conn){"cut": saysAndCloses, "stalled": says} {
		for _, format := range []string{cut, badChunk} {
			for status, want := range map[int]Class{201: "", 404: NotFound, 503: Unavailable} {
				address := newRawPartner(t, true, serve(fmt.Sprintf(format, status)))
				client := newClientOf(t, address, func(c *Config) { c.Timeout = 500 * time.Millisecond })
				result, err := client.PostCount(t.Context(), aCount)
				if result.StatusCode != status {
					t.Errorf("%s body, %d: got status %d", name, status, result.StatusCode)
				}
				if want == "" && err != nil {
					t.Errorf("%s body, %d: got error %v, want a success", name, status, err)
				}
				if want != "" && failure(t, err).Class() != want {
					t.Errorf("%s body, %d: got error %v, want class %s", name, status, err, want)
				}
			}
		}
	}
}

func TestAnEndlessBodyIsLeft(t *testing.T) {
	client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 4096)); err != nil {
				return
			}
		}
	})
	result, err := client.PostCount(t.Context(), aCount)
	if err != nil || len(result.Message) != maxMessageBytes || result.Duration > 4*time.Second {
		t.Errorf("got %d bytes of message after %s, error %v; want %d at once", len(result.Message), result.Duration, err, maxMessageBytes)
	}
}

func TestSwitchingProtocolsDoesNotHang(t *testing.T) {
	address := newRawPartner(t, true, says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
	result, err := newClientOf(t, address, nil).PostCount(t.Context(), aCount)
	if e := failure(t, err); e.Class() != Unexpected || result.Duration > 4*time.Second {
		t.Errorf("got class %s after %s, want %s at once", e.Class(), result.Duration, Unexpected)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed to %s with %q", r.URL, r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		client := newClient(t, answer(status, "moved to "+elsewhere.URL, "Location", elsewhere.URL+"/?key=s3cret"))
		_, err := client.PostCount(t.Context(), aCount)
		e := failure(t, err)
		if e.Class() != Unexpected || !e.Permanent() || !strings.Contains(e.Error(), "redirects are not followed") || strings.Contains(e.Error(), "s3cret") {
			t.Errorf("%d: got %v (class %s), want %s without the address", status, e, e.Class(), Unexpected)
		}
	}
}

func TestTheCallersEndIsNoAttempt(t *testing.T) {
	arrived := make(chan struct{}, 8)
	client := newClient(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server would not see the client go
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	before, cancelBefore := context.WithCancel(t.Context())
	cancelBefore()
	during, cancelDuring := context.WithCancelCause(t.Context())
	late, cancelLate := context.WithTimeout(t.Context(), time.Second)
	defer cancelLate()
	go func() {
		<-arrived
		cancelDuring(errors.New("shutting down with " + vendorToken))
	}()
	cases := []struct {
		name string
		ctx  context.Context
		sent bool
		want error
	}{
		{"before the call", before, false, context.Canceled},
		{"during the call", during, true, context.Canceled},
		{"by a deadline of its own", late, true, context.DeadlineExceeded},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := client.PostCount(c.ctx, aCount)
			e := failure(t, err)
			if e.Class() != Cancelled || e.Temporary() || e.Permanent() || e.Sent() != c.sent || !errors.Is(err, c.want) {
				t.Errorf("got %v (class %s, sent %t), want %s, sent %t, %v", e, e.Class(), e.Sent(), Cancelled, c.sent, c.want)
			}
			if want := "post count: cancelled by the caller"; e.Error() != want {
				t.Errorf("got %q, want %q", e, want)
			}
		})
	}
}

func TestOneClientServesManyCallsAtOnce(t *testing.T) {
	var mutex sync.Mutex
	addresses := map[string]bool{}
	client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		addresses[r.RemoteAddr] = true
		mutex.Unlock()
		w.Header().Set("X-Request-Id", strings.Split(r.URL.Path, "/")[4])
		w.WriteHeader(http.StatusCreated)
	})
	const callers, calls = 8, 25
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for call := range calls {
				service := fmt.Sprintf("s-%d-%d", caller, call)
				result, err := client.PostCount(t.Context(), Count{AccountID: "a", ServiceID: service, Units: "1"})
				if err != nil || result.RequestID != service {
					t.Errorf("got answer %q and error %v, want %q", result.RequestID, err, service)
				}
			}
		})
	}
	group.Wait()
	if got := len(addresses); got > callers*2 {
		t.Errorf("got %d connections for %d callers, want them to be kept and used again", got, callers)
	}
}
