//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// weather is what a relay does to what it carries.
type weather struct {
	// Down tears every connection and lets none in.
	Down bool
	// StallOut and StallIn hold back what clients send, and what they are
	// sent, as a network does that loses every packet: nothing is lost, and
	// all of it comes at once when the weather clears.
	StallOut, StallIn bool
	// Delay is added on either way.
	Delay time.Duration
}

// relay carries TCP connections to a target, in whatever weather.
type relay struct {
	target   string
	listener net.Listener
	// tears drops what is held back when either end closes, and what has been
	// held back for longer than a sender waits: one that is frozen cannot close.
	// A partner that acts on a request whose sender has gone away puts an older
	// figure over a newer one, and no sender can prevent that: it is not to be
	// blamed.
	tears bool
	lines sync.WaitGroup

	mu      sync.Mutex
	now     weather
	changed chan struct{} // closed when now changes
	open    map[*line]struct{}
	ended   bool
}

// line is one connection: both its ends.
type line struct {
	client, server net.Conn
	closed         chan struct{}
	close          sync.Once
}

// newRelay listens on a free port of the loopback.
func newRelay(ctx context.Context, target string, tears bool) (*relay, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", target, err)
	}
	r := &relay{target: target, listener: l, tears: tears, changed: make(chan struct{}), open: map[*line]struct{}{}}
	r.lines.Go(r.accept)
	return r, nil
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// set changes the weather.
func (r *relay) set(w weather) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = w
	close(r.changed)
	r.changed = make(chan struct{})
	if w.Down {
		r.tearAll()
	}
}

// tearAll is called with the lock held.
func (r *relay) tearAll() {
	for l := range r.open {
		l.tear()
	}
}

// end tears everything and takes no more.
func (r *relay) end() {
	r.mu.Lock()
	r.ended = true
	r.tearAll()
	r.mu.Unlock()
	_ = r.listener.Close()
	r.lines.Wait()
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			r.lines.Go(func() { r.carry(client) })
		}
	}
}

// carry runs one connection until it is closed.
func (r *relay) carry(client net.Conn) {
	server, err := net.DialTimeout("tcp", r.target, time.Second) //nolint:noctx // the time is short
	if err != nil {
		_ = client.Close()
		return
	}
	l := &line{client: client, server: server, closed: make(chan struct{})}
	r.mu.Lock()
	if r.now.Down || r.ended {
		r.mu.Unlock()
		l.tear()
		return
	}
	r.open[l] = struct{}{}
	r.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { r.pump(l, client, server, func(w weather) bool { return w.StallOut }) })
	pumps.Go(func() { r.pump(l, server, client, func(w weather) bool { return w.StallIn }) })
	pumps.Wait()
	l.tear()
	r.mu.Lock()
	delete(r.open, l)
	r.mu.Unlock()
}

// tear ends both ends at once, as a reset does.
func (l *line) tear() {
	l.close.Do(func() {
		close(l.closed)
		for _, c := range []net.Conn{l.client, l.server} {
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
			_ = c.Close()
		}
	})
}

// chunk is what was read at one time.
type chunk struct {
	data []byte
	read time.Time
}

// pump carries one way. It reads on while it holds back, so that it learns of
// the end of a connection at once.
func (r *relay) pump(l *line, from, to net.Conn, stalls func(weather) bool) {
	chunks := make(chan chunk, 256)
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		defer close(chunks)
		for {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				select {
				case chunks <- chunk{buffer[:n], time.Now()}:
				case <-l.closed:
					return
				}
			}
			if err != nil {
				if r.tears {
					l.tear()
				}
				return
			}
		}
	})
	for c := range chunks {
		if !r.pass(l, c.read, stalls) {
			break
		}
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	l.tear()
}

// pass waits until what was read then may go on; false: the line is closed, or to be.
func (r *relay) pass(l *line, read time.Time, stalls func(weather) bool) bool {
	for {
		r.mu.Lock()
		now, changed := r.now, r.changed
		r.mu.Unlock()
		var due, stale <-chan time.Time // never, while it stalls
		switch {
		case r.tears && time.Since(read) > callTimeout:
			return false
		case stalls(now) && r.tears:
			stale = time.After(time.Until(read.Add(callTimeout)))
		case !stalls(now):
			wait := time.Until(read.Add(now.Delay))
			if wait <= 0 {
				return true
			}
			due = time.After(wait)
		}
		select {
		case <-due:
			return true
		case <-stale:
			return false
		case <-changed:
		case <-l.closed:
			return false
		}
	}
}
