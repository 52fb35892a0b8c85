package broker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// idleExpiry is how long a pull for a single message waits where there is
	// none; a heartbeat tells that it is not lost.
	idleExpiry    = 30 * time.Second
	idleHeartbeat = 2 * time.Second
	// busyExpiry is how long a pull waits for more where there are messages,
	// and so the longest time that draining takes.
	busyExpiry = 500 * time.Millisecond
	// pullGrace is how much later than its expiry a pull is given up.
	pullGrace = time.Second
)

// puller asks the server for messages of one consumer, one pull at a time. It
// speaks JetStream's pull protocol (ADR-13) itself because the client's own
// consumers cannot end without leaving a pull behind: what the server sends to
// that comes a second time to the next owner. An idle pull is for one message,
// and a busy one ends soon, so that it can be waited for.
type puller struct {
	broker  *Broker
	subject string // of requests
	inbox   string // what comes to it ends with the number of its pull
	sub     *nats.Subscription
	take    func(*nats.Msg) // a message has come
	room    func() int      // how many may be asked for now; it waits, and is 0 at the end
	failed  func(error)     // something went wrong; pulling goes on after a while
	bytes   int             // of one pull
	reading bool            // nothing is acknowledged, and so nothing lost at the end

	stop  chan struct{} // no more pulls
	ended chan struct{} // nothing will come any more

	mu        sync.Mutex
	reply     string // address of the present pull
	pulls     int
	batch     int // messages that it asks for
	bytesLeft int // that it may still have: when none are left the server says nothing
	got       int // that it has had
	fault     error
	over      chan struct{} // the present pull has ended
	alive     chan struct{} // there was a heartbeat
}

// pull is the request, as the server has it.
type pull struct {
	Batch     int           `json:"batch"`
	MaxBytes  int           `json:"max_bytes,omitempty"`
	Expires   time.Duration `json:"expires"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
}

func (b *Broker) newPuller(stream, consumer string, bytes int) (*puller, error) {
	p := &puller{
		broker: b, subject: "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer, inbox: b.conn.NewInbox(), bytes: bytes,
		stop: make(chan struct{}), ended: make(chan struct{}), over: make(chan struct{}, 1), alive: make(chan struct{}, 1),
	}
	var err error
	if p.sub, err = b.conn.Subscribe(p.inbox+".*", p.receive); err != nil {
		return nil, err
	}
	// The room of the source bounds what can lie here, not the client.
	return p, p.sub.SetPendingLimits(-1, -1)
}

// run pulls until stop is closed.
func (p *puller) run() {
	defer close(p.ended)
	defer p.leave()
	status := p.broker.conn.StatusChanged(nats.CONNECTED)
	defer p.broker.conn.RemoveStatusListener(status)
	for busy := p.reading; ; {
		room := p.room()
		if room == 0 {
			return
		}
		request := pull{Batch: room, MaxBytes: p.bytes, Expires: busyExpiry}
		if !busy {
			request = pull{Batch: 1, Expires: idleExpiry, Heartbeat: idleHeartbeat}
		}
		got, err := p.pull(request, status)
		if errors.Is(err, errStopped) {
			return
		}
		if busy = got > 0; err == nil {
			continue
		}
		p.failed(err)
		select {
		case <-time.After(lastRetry):
		case <-p.stop:
			return
		}
	}
}

// leaveTimeout bounds how long what is on the way is waited for at the end.
const leaveTimeout = 2 * time.Second

// leave ends the subscription. What the server has sent by then still comes:
// dropped, it would come again only after the acknowledgement timeout.
func (p *puller) leave() {
	if p.reading || !p.broker.conn.IsConnected() {
		_ = p.sub.Unsubscribe() // a closed connection has no subscriptions
		return
	}
	closed := p.sub.StatusChanged(nats.SubscriptionClosed)
	if err := p.sub.Drain(); err != nil {
		_ = p.sub.Unsubscribe() // there is no connection, and nothing on the way
		return
	}
	select {
	case <-closed:
	case <-time.After(leaveTimeout):
	}
}

var (
	errStopped = errors.New("stopped")
	errNoPulse = errors.New("neither messages nor heartbeats come")
)

// pull makes one request and waits for its end. An idle one is left soon after
// the puller is to stop, unless a message comes first.
func (p *puller) pull(request pull, status <-chan nats.Status) (got int, err error) {
	data, err := json.Marshal(request)
	if err != nil {
		return 0, fmt.Errorf("ask for messages: %w", err)
	}
	if err := p.broker.conn.PublishRequest(p.subject, p.begin(request), data); err != nil {
		return 0, fmt.Errorf("ask for messages: %w", err)
	}
	stop, patience := p.stop, 2*request.Heartbeat
	if request.Heartbeat == 0 {
		patience = request.Expires + pullGrace
		if !p.reading {
			stop = nil
		}
	}
	pulse := time.NewTimer(patience)
	defer pulse.Stop()
	var left <-chan time.Time
	for {
		select {
		case <-p.over:
			return p.result(nil)
		case <-p.alive:
			pulse.Reset(patience)
		case <-status: // there was a new connection: the server has forgotten the pull
			return p.result(nil)
		case <-pulse.C:
			return p.result(errNoPulse)
		case <-stop:
			if p.reading {
				return p.result(errStopped)
			}
			// Where messages flow the next one is on its way to this pull: left
			// now, it would be lost between the server and us.
			stop, left = nil, time.After(busyExpiry)
		case <-left:
			return p.result(errStopped)
		}
	}
}

// begin gives the address of a new pull.
func (p *puller) begin(request pull) (reply string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulls++
	p.reply = p.inbox + "." + strconv.Itoa(p.pulls)
	p.batch, p.got, p.fault = request.Batch, 0, nil
	if p.bytesLeft = request.MaxBytes; request.MaxBytes == 0 {
		p.bytesLeft = math.MaxInt
	}
	for _, c := range []chan struct{}{p.over, p.alive} {
		select {
		case <-c:
		default:
		}
	}
	return p.reply
}

func (p *puller) result(fault error) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got, cmp.Or(fault, p.fault)
}

// receive takes what comes to the inbox: a message, which has the subject under
// which it is stored, or word of a pull, which has that pull's address.
func (p *puller) receive(m *nats.Msg) {
	word := strings.HasPrefix(m.Subject, p.inbox)
	if !word {
		p.take(m)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !word:
		p.got++
		if p.bytesLeft -= m.Size(); p.bytesLeft <= 0 {
			p.batch = p.got
		}
	case m.Subject != p.reply: // of one that was given up
		return
	default:
		over, fault := verdictOf(m.Header.Get("Status"), m.Header.Get("Description"))
		if !over {
			signal(p.alive)
			return
		}
		p.fault = fault
		// In a cluster this may overtake messages of the pull. It says how many
		// will not come.
		missing, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			missing = p.batch
		}
		p.batch -= missing
	}
	if p.got >= p.batch {
		signal(p.over)
	}
}

// verdictOf says what a status means for the pull: whether it has ended, and
// whether something is wrong.
func verdictOf(status, description string) (over bool, fault error) {
	lower := strings.ToLower(description)
	switch {
	case status == "100":
		return false, nil
	case status == "404", status == "408", strings.Contains(lower, "batch completed"), strings.Contains(lower, "exceeds maxbytes"):
		return true, nil
	case status == "503":
		return true, nats.ErrNoResponders
	case strings.Contains(lower, "consumer deleted"):
		return true, jetstream.ErrConsumerDeleted
	case status == "400":
		return true, fmt.Errorf("%w: %s", jetstream.ErrBadRequest, description)
	}
	return true, fmt.Errorf("the server says %s %s", status, description)
}
