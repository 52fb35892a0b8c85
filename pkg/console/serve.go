package console

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// What a client may cost. A publisher that is merely slow meets none of them.
const (
	readHeaderTime = 10 * time.Second
	readTime       = 30 * time.Second // headers and body
	writeTime      = time.Minute      // from the headers to the end of the answer
	idleTime       = 2 * time.Minute  // between two requests
	maxHeaderBytes = 64 << 10
	shutdownTime   = 5 * time.Second
)

// Serve answers on the listener, which it closes, until ctx ends. It then
// takes no further connection, waits up to 5 seconds for requests in flight
// and returns nil, or an error when it had to cut some of them off: their
// contexts have ended by then. When the listener breaks it returns at once.
func (c *Console) Serve(ctx context.Context, listener net.Listener) error {
	// Requests outlive ctx: what is being published is still answered for.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server := &http.Server{
		Handler:           c.handler,
		ReadHeaderTimeout: readHeaderTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          slog.NewLogLogger(c.config.Logger.Handler(), slog.LevelWarn),
	}
	broken := make(chan error, 1)
	go func() { broken <- server.Serve(listener) }()
	select {
	case err := <-broken:
		_ = server.Close() // connections that are left; the listener is gone
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(requests, shutdownTime)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		_ = server.Close() // the error that counts is that of Shutdown
		err = fmt.Errorf("stop serving HTTP on %s: requests were cut off after %v: %w", listener.Addr(), shutdownTime, err)
	}
	<-broken //nolint:errcheck // the accept loop has ended, as it was told to
	return err
}
