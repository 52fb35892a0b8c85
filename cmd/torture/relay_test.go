//go:build unix

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// far is a server that keeps what it is sent, and answers each piece with it.
func far(t *testing.T) (addr string, got chan string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got = make(chan string, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buffer := make([]byte, 100)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						got <- "end"
						return
					}
					got <- string(buffer[:n])
					if _, err := conn.Write(buffer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

type farSide struct {
	*relay

	t    *testing.T
	conn net.Conn
	got  chan string
}

func throughRelay(t *testing.T, tears bool) *farSide {
	t.Helper()
	addr, got := far(t)
	r, err := newRelay(t.Context(), addr, tears)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &farSide{relay: r, t: t, conn: conn, got: got}
	s.send("hello")
	s.hears("hello")
	s.reads("hello")
	return s
}

func (s *farSide) send(text string) {
	s.t.Helper()
	if _, err := s.conn.Write([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// hears says that the far side gets the text soon; "": nothing for a while.
func (s *farSide) hears(want string) {
	s.t.Helper()
	patience := 5 * time.Second
	if want == "" {
		patience = 50 * time.Millisecond
	}
	got := ""
	select {
	case got = <-s.got:
	case <-time.After(patience):
	}
	if got != want {
		s.t.Errorf("the far side got %q, want %q", got, want)
	}
}

// reads says that this side gets the text soon; "": nothing for a while.
func (s *farSide) reads(want string) {
	s.t.Helper()
	patience := 5 * time.Second
	if want == "" {
		patience = 50 * time.Millisecond
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	buffer := make([]byte, len(want)+1)
	n, err := s.conn.Read(buffer)
	if got := string(buffer[:n]); got != want || want == "" && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestAStalledRelayKeepsWhatItIsGiven(t *testing.T) {
	t.Parallel()
	s := throughRelay(t, false)
	s.set(weather{StallOut: true})
	s.send("out")
	s.hears("")
	s.set(weather{StallIn: true})
	s.hears("out")
	s.reads("")
	s.set(weather{})
	s.reads("out")
}

func TestADelayIsOnEitherWay(t *testing.T) {
	t.Parallel()
	s := throughRelay(t, false)
	s.set(weather{Delay: 100 * time.Millisecond})
	began := time.Now()
	s.send("late")
	s.reads("late")
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("there and back took %v, want 200ms or more", took)
	}
}

func TestARelayThatIsDownTearsAndRefuses(t *testing.T) {
	t.Parallel()
	s := throughRelay(t, false)
	s.set(weather{Down: true})
	s.hears("end")
	if _, err := s.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on, want it torn")
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.addr())
	if err != nil {
		return // refused, as well
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a new connection is let in, want it torn")
	}
}

// What a sender who has gone away had sent must not reach the partner later.
func TestARelayToThePartnerDropsWhatAGoneSenderHadSent(t *testing.T) {
	t.Parallel()
	s := throughRelay(t, true)
	s.set(weather{StallOut: true})
	s.send("old")
	if err := s.conn.Close(); err != nil {
		t.Fatal(err)
	}
	s.hears("end")
	s.set(weather{})
	s.hears("")
}

// A worker that is frozen cannot go away, and what it had sent is as old.
func TestARelayToThePartnerDropsWhatWasHeldBackForTooLong(t *testing.T) {
	t.Parallel()
	s := throughRelay(t, true)
	s.set(weather{StallOut: true})
	s.send("old")
	s.hears("end")
	s.set(weather{})
	s.hears("")
}

// Servers get what a dead worker had sent, as from a network that was slow.
func TestARelayToServersDeliversWhatAGoneSenderHadSent(t *testing.T) {
	t.Parallel()
	s := throughRelay(t, false)
	s.set(weather{StallOut: true})
	s.send("old")
	if err := s.conn.Close(); err != nil {
		t.Fatal(err)
	}
	s.hears("")
	s.set(weather{})
	s.hears("old")
}
