// Package broker is everything that knows NATS: the embedded server, the
// streams and consumers and their creation, the source of a partition's
// messages, the ledger in a key-value bucket, dead letters, the sync log,
// records with compare-and-set, and leases.
//
// It deliberately does not know what an event means, what a partner answers,
// or when anything is to be sent. It never creates or alters a stream outside
// Init, and it never trusts a lease: what keeps two workers from overwriting
// each other is the revision of each ledger entry.
package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// requestTimeout bounds one request to the server when the caller's
	// context has no deadline.
	requestTimeout = 5 * time.Second
	// drainTimeout bounds Close: what was published is flushed for this long.
	drainTimeout = 10 * time.Second
	// maxBatches bounds the atomic batches in flight: the server refuses more
	// than 50 a stream, and other processes write to the same streams.
	maxBatches = 32
	// asyncPending bounds the pipelined publishes that wait for their
	// acknowledgement.
	asyncPending = 4000
)

// Config says how to reach a NATS server.
type Config struct {
	// URL is one address or several, separated by commas. A user and password
	// in it are used and never shown.
	URL string
	// CredsFile is the path of a NATS credentials file; empty: none.
	CredsFile string
	// NKeyFile is the path of a file with the seed of a user's nkey (SU…),
	// mode 0600; empty: none. Not together with CredsFile.
	NKeyFile string
	// CAFile is the path of the certificates, in PEM, of the authorities that
	// may have signed the server's; with it, nothing is said without TLS.
	// Empty: those of the system, if the server wants TLS.
	CAFile string
	// CertFile and KeyFile are the paths of a client certificate and its key,
	// in PEM, for a server that asks for one; both or none.
	CertFile, KeyFile string
	// Exposed says whether others than those who should may use the file of a
	// seed or a key; nil: who is not its owner may have no right to it at all.
	Exposed func(fs.FileInfo) bool
	// Name is shown in the server's list of connections.
	Name string
	// Logger takes disconnects and the server's asynchronous errors, which
	// have no caller to go to; nil: nowhere.
	Logger *slog.Logger
}

// Broker is a connection to JetStream. It is safe for concurrent use.
type Broker struct {
	conn     *nats.Conn
	js       jetstream.JetStream
	log      *slog.Logger
	closed   chan struct{}
	batches  chan struct{} // one token per atomic batch in flight
	waiting  sync.Map      // subject of a request → context.CancelCauseFunc, for deny
	streams  sync.Map      // name → jetstream.Stream
	doubtful sync.Map      // key of a lease whose taking was not answered → the instance that may have it
	scans    scans         // of ledgers, that wait for further partitions
}

// Connect connects to NATS once and from then on reconnects for ever. An
// error means that the first connection could not be made.
func Connect(ctx context.Context, c Config) (*Broker, error) {
	b := &Broker{
		log:     c.Logger,
		closed:  make(chan struct{}),
		batches: make(chan struct{}, maxBatches),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", publicURL(c.URL), err)
	}
	credentials, err := c.credentials()
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", publicURL(c.URL), err)
	}
	options := append(b.options(c), credentials...)
	if deadline, ok := ctx.Deadline(); ok {
		options = append(options, nats.Timeout(max(time.Until(deadline), time.Millisecond)))
	}
	conn, err := nats.Connect(c.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", publicURL(c.URL), c.refusedBy(withoutURL(err)))
	}
	b.conn = conn
	b.js, err = jetstream.New(conn,
		jetstream.WithDefaultTimeout(requestTimeout),
		jetstream.WithPublishAsyncTimeout(requestTimeout),
		jetstream.WithPublishAsyncMaxPending(asyncPending))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("use JetStream at %s: %w", publicURL(c.URL), err)
	}
	return b, nil
}

func (b *Broker) options(c Config) []nats.Option {
	return []nats.Option{
		nats.Name(c.Name),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // else a server that is being given new users ends it
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.PingInterval(20 * time.Second),
		nats.DrainTimeout(drainTimeout),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			if errors.Is(err, nats.ErrPermissionViolation) {
				b.deny(err)
			}
			b.log.Error("nats reported an error", "subject", subject, "err", err)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: Close
				b.log.Warn("nats disconnected", "err", withoutURL(err))
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			b.log.Info("nats reconnected", "server", publicURL(conn.ConnectedUrl()))
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
	}
}

// Conn is the connection itself, for what has no method here: an HTTP ingest
// that publishes, a health check that asks whether it is up.
func (b *Broker) Conn() *nats.Conn { return b.conn }

// Close flushes what was published, up to 10 s, and closes the connection.
// Sources and watches must have been ended before.
func (b *Broker) Close() {
	if err := b.conn.Drain(); err != nil {
		b.conn.Close() // not connected: there is nobody to drain to
	}
	select {
	case <-b.closed:
	case <-time.After(drainTimeout + time.Second):
		b.conn.Close()
		<-b.closed
	}
}

// stream is the handle of a stream, looked up once. A stream's name never
// comes to mean another kind of stream, so the handle does not go stale.
func (b *Broker) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if known, ok := b.streams.Load(name); ok {
		if s, isStream := known.(jetstream.Stream); isStream {
			return s, nil
		}
	}
	s, err := b.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s is missing: run `usagebridge init`: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", name, err)
	}
	b.streams.Store(name, s)
	return s, nil
}

// last is the newest message on a subject (wildcards allowed), or nil. The
// stream's leader answers, since the streams made by Init allow no direct
// reads: a follower may lag, and a stale ledger entry would put an older
// figure over a newer one.
func (b *Broker) last(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	s, err := b.stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil // the absence of a message is no error
	}
	return m, err
}

// limited gives the context a deadline if it has none.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, requestTimeout)
}

// publicURL is a server address, or several, without users, passwords and
// tokens.
func publicURL(addresses string) string {
	list := strings.Split(addresses, ",")
	for i, a := range list {
		a = strings.TrimSpace(a)
		if at := strings.LastIndexByte(a, '@'); at >= 0 {
			scheme, _, found := strings.Cut(a, "://")
			if !found {
				scheme = "nats"
			}
			a = scheme + "://" + a[at+1:]
		}
		list[i] = a
	}
	return strings.Join(list, ",")
}

// withoutURL takes the address out of a parse error: it may hold a password.
func withoutURL(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		return parse.Err
	}
	return err
}
