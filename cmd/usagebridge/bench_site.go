package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// benchSite is an embedded NATS server with vendors whose logs are full of
// events: what the rows of a benchmark share.
type benchSite struct {
	*app

	load    benchLoad
	vendors int
	keys    int // different ones that the last load published had
}

// benchLoad is what is published for one row.
type benchLoad struct {
	Events       int     `json:"events"`
	Keys         int     `json:"keys"`
	Integrations int     `json:"integrations"`
	Duplicates   float64 `json:"duplicates"`  // share of events that repeat an earlier one, id and all
	EventBytes   int     `json:"event_bytes"` // size of a message's body
	Partitions   int     `json:"partitions"`
	Each         bool    `json:"-"` // one event of each key, and none twice
	Active       int     `json:"-"` // keys that have events, spread over all; 0: all have
}

// openBenchSite starts a server on a directory of its own. sync is its
// sync_interval; 0 is always.
func openBenchSite(ctx context.Context, dir string, config Config, sync time.Duration, load benchLoad) (*benchSite, error) {
	log := slog.New(slog.DiscardHandler)
	server, err := broker.StartEmbedded(broker.EmbeddedConfig{StoreDir: dir, Listen: "127.0.0.1:0", SyncInterval: sync, Logger: log})
	if err != nil {
		return nil, err
	}
	config.StoreDir, config.NATSURL, config.MasterKeyset = dir, server.ClientURL(), ""
	a := &app{config: config, log: log, embedded: server}
	if a.broker, err = broker.Connect(ctx, broker.Config{URL: server.ClientURL(), Name: "usagebridge bench", Logger: log}); err != nil {
		a.close()
		return nil, err
	}
	return &benchSite{app: a, load: load}, nil
}

// vendor sets up a vendor of its own.
func (s *benchSite) vendor(ctx context.Context) (string, error) {
	s.vendors++
	name := s.name()
	_, err := s.broker.Init(ctx, broker.InitConfig{Vendor: name, Partitions: s.load.Partitions})
	return name, err
}

// name is the name of the last vendor.
func (s *benchSite) name() string { return "bench" + strconv.Itoa(s.vendors) }

// messages makes the events of the load, in the order of publishing: figures of
// Zipf-distributed keys whose times rise, and repeats among them. It says how
// many different keys they have.
func (l *benchLoad) messages(vendor string, yield func(subject string, data []byte) error) (keys int, err error) {
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same load every time
	active := cmp.Or(l.Active, l.Keys)
	zipf := rand.NewZipf(random, 1.1, 8, uint64(active-1))
	type message struct {
		subject string
		data    []byte
	}
	var recent [1024]message
	seen := map[int]struct{}{}
	begun := time.Now().Add(-time.Hour)
	for i := range l.Events {
		var m message
		if i > 0 && random.Float64() < l.Duplicates {
			m = recent[random.IntN(min(i, len(recent)))]
		} else {
			key := i
			if !l.Each {
				key = int(zipf.Uint64()) * (l.Keys / active)
			}
			seen[key] = struct{}{}
			e := l.event(vendor, key, i, begun)
			m = message{e.Subject().String(), e.Structured()}
		}
		recent[i%len(recent)] = m
		if err := yield(m.subject, m.data); err != nil {
			return 0, err
		}
	}
	return len(seen), nil
}

// key is key number n of the load.
func (l *benchLoad) key(n int) ledger.Key {
	each := max(l.Keys/l.Integrations, 1)
	n, organization := n%each, n/each
	return ledger.CountKey(fmt.Sprintf("msp-%04d", organization), fmt.Sprintf("account-%05d", n/benchServices), fmt.Sprintf("service-%02d", n%benchServices))
}

// event is number i of the load, a figure of the key.
func (l *benchLoad) event(vendor string, key, i int, begun time.Time) *event.Event {
	k := l.key(key)
	e := &event.Event{
		ID: fmt.Sprintf("%08d", i), Source: "//billing.example.com/usage", Type: event.TypeCount, Time: begun.Add(time.Duration(i) * time.Microsecond),
		Vendor: vendor, Organization: k.Organization,
		Data: event.Count{AccountID: k.Account, ServiceID: k.Service, UnitCount: event.Units(i%100_000+1) * event.UnitsScale},
	}
	if room := l.EventBytes - len(e.Structured()); room > 0 {
		e.ID = fmt.Sprintf("%0*d", 8+room, i)
	}
	return e
}

// benchServices is how many services an account uses.
const benchServices = 10

// publish stores the load in the vendor's log and says how long it took.
func (s *benchSite) publish(ctx context.Context, vendor string) (time.Duration, error) {
	js, err := jetstream.New(s.broker.Conn(), jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		return 0, err
	}
	// Making the events must not be measured, and keeping them all would leave
	// the next row a heap full of them.
	var took time.Duration
	messages := make([]*nats.Msg, 0, benchChunk)
	send := func() error {
		started := time.Now()
		for _, m := range messages {
			if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(10*time.Second)); err != nil {
				return err
			}
		}
		select {
		case <-js.PublishAsyncComplete():
		case <-ctx.Done():
			return ctx.Err()
		}
		took += time.Since(started)
		messages = messages[:0]
		return nil
	}
	s.keys, err = s.load.messages(vendor, func(subject string, data []byte) error {
		messages = append(messages, &nats.Msg{Subject: subject, Data: data})
		if len(messages) < benchChunk {
			return nil
		}
		return send()
	})
	return took, errors.Join(err, send())
}

// benchChunk is how many messages are made before they are published.
const benchChunk = 20_000

// loaded sets up a vendor of its own whose log has the load, and says how long
// publishing that took.
func (s *benchSite) loaded(ctx context.Context) (vendor string, took time.Duration, err error) {
	if vendor, err = s.vendor(ctx); err != nil {
		return "", 0, err
	}
	took, err = s.publish(ctx, vendor)
	return vendor, took, err
}

// fetchAndAck reads the vendor's log with all its consumers at once, the
// fastest way that the client library has, and acknowledges every message.
func (s *benchSite) fetchAndAck(ctx context.Context, vendor string) (time.Duration, error) {
	js, err := jetstream.New(s.broker.Conn())
	if err != nil {
		return 0, err
	}
	var acked atomic.Int64
	var failed atomic.Pointer[error]
	done := make(chan struct{})
	var consuming []jetstream.ConsumeContext
	defer func() {
		for _, c := range consuming {
			c.Stop()
		}
	}()
	started := time.Now()
	for p := range s.load.Partitions {
		consumer, err := js.Consumer(ctx, broker.EventsStream(vendor), "p"+strconv.Itoa(p))
		if err != nil {
			return 0, err
		}
		consume, err := consumer.Consume(func(m jetstream.Msg) {
			if err := m.Ack(); err != nil {
				failed.Store(&err)
			}
			if acked.Add(1) == int64(s.load.Events) {
				close(done)
			}
		}, jetstream.PullMaxMessages(1000))
		if err != nil {
			return 0, err
		}
		consuming = append(consuming, consume)
	}
	select {
	case <-done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := s.broker.Conn().FlushTimeout(10 * time.Second); err != nil {
		return 0, err
	}
	took := time.Since(started)
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return took, nil
}
