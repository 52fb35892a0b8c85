package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// StreamFacts is a stream, or the stream behind a bucket.
type StreamFacts struct {
	Kind, Name string // as Init reports them
	stream     string
	Vendor     string // the vendor it belongs to, or the first that shares it
	Missing    bool   // then nothing else is known

	Differences []Difference
	Replicas    int
	Cluster     string // empty: a single server
	Leader      string // the server's name; empty in a cluster: there is none
	Peers       []PeerFacts

	Bytes, MaxBytes uint64 // MaxBytes 0: no bound
	Refuses         bool   // when it is full publishing is refused, instead of dropping the oldest
	MaxAge          time.Duration
	Duplicates      time.Duration // the duplicate window
	First, Last     time.Time     // of the oldest and of the newest message; zero: none
}

// StreamName is the name of the stream itself: a bucket's has a prefix.
func (f *StreamFacts) StreamName() string { return f.stream }

// PeerFacts is one follower of a replicated stream.
type PeerFacts struct {
	Name             string
	Current, Offline bool
	Lag              uint64 // operations behind the leader
}

// Difference is a setting that is not as Init would make it.
type Difference struct {
	Text string // such as "max_age is 1h0m0s, want 840h0m0s"
	// Mendable says that running Init again changes it; anything else may lose
	// data and is a person's decision.
	Mendable bool
}

// VendorFacts is what the consumers and the ledger of a vendor show.
type VendorFacts struct {
	Name       string
	Created    time.Time
	Partitions []PartitionFacts
	Consumers  []Difference // of consumers, missing ones included
	Owners     map[int]string
	// LastFold is when the ledger was last written to, LastCall when a call to
	// the partner was last recorded. Zero: never, or longer ago than is kept.
	LastFold, LastCall time.Time
	DeadLetters        uint64
	// LedgerErr says that the newest entry of the ledger cannot be read.
	LedgerErr error
	Err       error // why the rest is not all there
}

// PartitionFacts is one partition's consumer.
type PartitionFacts struct {
	Partition     int
	Pending       uint64 // stored and not yet delivered to a worker
	AckPending    int    // delivered and not yet acknowledged
	MaxAckPending int    // at so many nothing more is delivered
	Redelivered   int    // of those, delivered more than once
	// Oldest is when the oldest message that no worker has acknowledged was
	// stored; zero: there is none.
	Oldest time.Time
}

func (b *Broker) inspectStream(ctx context.Context, o object, vendor string, i *Inspection) (StreamFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	f := StreamFacts{Kind: o.kind, Name: o.name, Vendor: vendor, stream: o.want.Name}
	asked := time.Now()
	s, err := b.js.Stream(ctx, o.want.Name)
	if notFound(err) {
		f.Missing = true
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("look up %s %s: %w", o.kind, o.name, err)
	}
	info := s.CachedInfo()
	i.noteClock(info, b.conn.ConnectedServerName(), asked, time.Now())
	f.Differences = drift(info.Config, o.want)
	f.Replicas, f.MaxAge, f.Duplicates = info.Config.Replicas, info.Config.MaxAge, info.Config.Duplicates
	f.Bytes, f.MaxBytes = info.State.Bytes, uint64(max(info.Config.MaxBytes, 0))
	f.Refuses = info.Config.Discard == jetstream.DiscardNew
	if info.State.Msgs > 0 {
		f.First, f.Last = info.State.FirstTime, info.State.LastTime
	}
	if c := info.Cluster; c != nil && c.Name != "" {
		f.Cluster, f.Leader = c.Name, c.Leader
		for _, p := range c.Replicas {
			f.Peers = append(f.Peers, PeerFacts{Name: p.Name, Current: p.Current, Offline: p.Offline, Lag: p.Lag})
		}
	}
	return f, nil
}

// drift compares as Init does, and changes nothing. How many replicas there
// are to be is said to Init: they stay as they are.
func drift(is, want jetstream.StreamConfig) []Difference {
	want.Replicas = is.Replicas
	var all []Difference
	for _, set := range settings {
		have, wish := set.show(is), set.show(want)
		if have == wish || (set.ignore != nil && set.ignore(is, want)) {
			continue
		}
		all = append(all, Difference{
			Text:     fmt.Sprintf("%s is %s, want %s", set.name, have, wish),
			Mendable: set.safe != nil && set.safe(is, want),
		})
	}
	return all
}

// noteClock takes the server's time from its answer. It was taken somewhere
// between asking and hearing, so half the way there is what may be wrong; of
// several answers of a server the quickest is the best.
func (i *Inspection) noteClock(info *jetstream.StreamInfo, server string, asked, heard time.Time) {
	if info.TimeStamp.IsZero() {
		return
	}
	if info.Cluster != nil && info.Cluster.Leader != "" {
		server = info.Cluster.Leader
	}
	within := heard.Sub(asked) / 2
	now := ClockFacts{Server: server, Ahead: info.TimeStamp.Sub(asked.Add(within)), Within: within}
	at := slices.IndexFunc(i.Clocks, func(c ClockFacts) bool { return c.Server == server })
	switch {
	case at < 0:
		i.Clocks = append(i.Clocks, now)
	case within < i.Clocks[at].Within:
		i.Clocks[at] = now
	}
}

func (b *Broker) inspectVendor(ctx context.Context, v Vendor, leases time.Duration) VendorFacts {
	f := VendorFacts{Name: v.Name, Created: v.Created}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	note(b.inspectPartitions(ctx, v, leases, &f))
	var err error
	f.Owners, err = b.Owners(ctx, v.Name)
	note(err)
	f.LedgerErr = b.inspectLedger(ctx, v.Name, &f)
	f.LastCall, err = b.lastTime(ctx, StreamSyncLog, "synclog.v1."+v.Name+".*.*")
	note(err)
	f.DeadLetters, err = b.countLetters(ctx, v.Name)
	note(err)
	f.Err = errors.Join(errs...)
	return f
}

func (b *Broker) inspectPartitions(ctx context.Context, v Vendor, leases time.Duration, f *VendorFacts) error {
	request, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := b.js.Stream(request, EventsStream(v.Name))
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", EventsStream(v.Name), err)
	}
	known := map[string]*jetstream.ConsumerInfo{}
	list := s.ListConsumers(request)
	for info := range list.Info() {
		known[info.Name] = info
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("list consumers of %s: %w", EventsStream(v.Name), err)
	}
	for p := range v.Partitions {
		want := consumerConfig(p)
		info := known[want.Durable]
		if info == nil {
			f.Consumers = append(f.Consumers, Difference{Text: want.Durable + ": is missing", Mendable: true})
			continue
		}
		f.Consumers = append(f.Consumers, consumerDrift(info.Config, want, leases)...)
		facts := PartitionFacts{
			Partition: p, Pending: info.NumPending, AckPending: info.NumAckPending,
			MaxAckPending: info.Config.MaxAckPending, Redelivered: info.NumRedelivered,
		}
		if pending(info) > 0 {
			if facts.Oldest, err = oldest(ctx, s, info); err != nil {
				return fmt.Errorf("find the oldest message of %s %s: %w", EventsStream(v.Name), want.Durable, err)
			}
		}
		f.Partitions = append(f.Partitions, facts)
	}
	return nil
}

// consumerDrift compares as Init does: a consumer waits for acknowledgements as
// long as leases live, and nothing but that is set anew.
func consumerDrift(is, want jetstream.ConsumerConfig, leases time.Duration) []Difference {
	var all []Difference
	if want.AckWait = ackWait(leases); is.AckWait != want.AckWait {
		all = append(all, Difference{Text: fmt.Sprintf("%s: ack_wait is %v, want %v", want.Durable, is.AckWait, want.AckWait), Mendable: true})
		is.AckWait = want.AckWait
	}
	for _, text := range differences(is, want) {
		all = append(all, Difference{Text: text})
	}
	return all
}

// oldest is when the first message behind what was acknowledged was stored.
func oldest(ctx context.Context, s jetstream.Stream, info *jetstream.ConsumerInfo) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := s.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(info.Config.FilterSubject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil // acknowledged, or dropped for its age, in between
	}
	if err != nil {
		return time.Time{}, err
	}
	return m.Time, nil
}

// inspectLedger reads the newest entry: a worker that is too old for it would
// stop at the first one it cannot read.
func (b *Broker) inspectLedger(ctx context.Context, vendor string, f *VendorFacts) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s := b.Ledger(vendor)
	m, err := b.last(ctx, s.stream, s.prefix+">")
	if notFound(err) || err == nil && m == nil {
		return nil // that it is missing is found with the others
	}
	if err != nil {
		return err
	}
	f.LastFold = m.Time
	if deleted(m.Header) {
		return nil
	}
	_, key, err := ParseLedgerKey(strings.TrimPrefix(m.Subject, s.prefix))
	if err == nil {
		_, err = ledger.ParseEntry(key, m.Data)
	}
	return err
}

func (b *Broker) lastTime(ctx context.Context, stream, subject string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := b.last(ctx, stream, subject)
	if err != nil || m == nil {
		return time.Time{}, err
	}
	return m.Time, nil
}

func (b *Broker) countLetters(ctx context.Context, vendor string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := b.stream(ctx, StreamDeadLetters)
	if err != nil {
		return 0, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter("deadletter.v1."+vendor+".>"))
	if err != nil {
		return 0, fmt.Errorf("count the dead letters of %s: %w", vendor, err)
	}
	var letters uint64
	for _, n := range info.State.Subjects {
		letters += n
	}
	return letters, nil
}
