package publisher

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// refusals hands permission violations, which a server reports only to the
// connection's error handler, to the calls that wait for that subject.
type refusals struct {
	inboxPrefix string // of this connection's inboxes
	mu          sync.Mutex
	expected    map[string]*denial
	inbox       atomic.Pointer[publishError] // why no answer can arrive; nil while answers do
}

// denial is shared by all calls in flight on one subject. err is set before
// told is closed.
type denial struct {
	calls int
	told  chan struct{}
	err   error
}

// chaining guards the step between reading a connection's error handler and
// replacing it, for publishers made at the same time.
var chaining sync.Mutex

// listen puts a handler before that of nc.
func listen(nc *nats.Conn) *refusals {
	r := &refusals{inboxPrefix: nats.InboxPrefix, expected: map[string]*denial{}}
	if custom := nc.Opts.InboxPrefix; custom != "" {
		r.inboxPrefix = custom + "."
	}
	chaining.Lock()
	defer chaining.Unlock()
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if !r.take(err) && next != nil {
			next(nc, sub, err)
		}
	})
	return r
}

// take reports whether a waiting call will return err, so that nobody else
// needs to hear of it.
func (r *refusals) take(err error) bool {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	text := err.Error()
	if inbox, ok := quoted(text, "Subscription to "); ok && strings.HasPrefix(inbox, r.inboxPrefix) {
		r.inbox.Store(&publishError{ErrInboxDenied, fmt.Sprintf("no acknowledgement can arrive: this NATS user may not subscribe to %s: permit its inbox, or connect with the inbox prefix that is permitted (nats.CustomInboxPrefix)", inbox)})
		return false
	}
	subject, ok := quoted(text, "Publish to ")
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.expected[subject]
	if d == nil {
		return false
	}
	d.err = &publishError{ErrDenied, fmt.Sprintf("this NATS user may not publish on %s: a vendor's user may publish below its own vendor only", subject)}
	close(d.told)
	delete(r.expected, subject)
	return true
}

// quoted is the "…" that follows the words in text.
func quoted(text, words string) (string, bool) {
	_, rest, found := strings.Cut(text, words+`"`)
	if !found {
		return "", false
	}
	inner, _, found := strings.Cut(rest, `"`)
	return inner, found
}

// expect must precede the first attempt on subject, forget follow the last.
func (r *refusals) expect(subject string) *denial {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.expected[subject]
	if d == nil {
		d = &denial{told: make(chan struct{})}
		r.expected[subject] = d
	}
	d.calls++
	return d
}

func (r *refusals) forget(subject string, d *denial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.calls--
	if d.calls == 0 && r.expected[subject] == d {
		delete(r.expected, subject)
	}
}

// heard notes that answers arrive: an earlier inbox refusal is over.
func (r *refusals) heard() {
	if r.inbox.Load() != nil {
		r.inbox.Store(nil)
	}
}

// inboxDenied says why no answer can arrive, or nil.
func (r *refusals) inboxDenied() error {
	if p := r.inbox.Load(); p != nil {
		return p
	}
	return nil
}
