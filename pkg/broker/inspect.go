package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Inspection is what NATS shows of itself at one time, for somebody to judge.
// Taking it changes nothing. What could not be seen has an error of its own:
// half a picture is worth more than none.
type Inspection struct {
	// Address is that of the server connected to, without passwords.
	Address string
	// RoundTrip is the time of one ping to it.
	RoundTrip time.Duration
	Servers   []ServerFacts
	// Syncs is how each server syncs its disk. It takes the rights of the
	// system account: empty where this user has none.
	Syncs []SyncFacts

	Account    AccountFacts
	AccountErr error

	Rights    Rights
	RightsErr error
	Inbox     string // a subject on which answers come

	// Streams are those that Init makes, in its order: the shared ones once,
	// and those of every vendor.
	Streams []StreamFacts
	Vendors []VendorFacts
	// Orphans are the vendors that have a ledger and no log any more.
	Orphans []string
	// TopologyErr says why streams and vendors are not all there.
	TopologyErr error

	// Members are the workers that are alive, by name.
	Members    []string
	MembersErr error
	// Notes is what each of them tells of itself, as [Broker.Notes] has it.
	Notes map[string]json.RawMessage
	// LeaseTTL is how long a lease lives without being renewed; 0: not known.
	LeaseTTL time.Duration
	Clocks   []ClockFacts
}

// AccountFacts is what the account uses of JetStream and what it may use. A
// limit of 0 or less is none.
type AccountFacts struct {
	Storage, MaxStorage     int64 // bytes
	Streams, MaxStreams     int
	Consumers, MaxConsumers int
}

// ClockFacts is how far the clock of a server is ahead of ours, negative when
// it is behind, and by how much that may be wrong.
type ClockFacts struct {
	Server        string
	Ahead, Within time.Duration
}

// Inspect looks at the servers, at what Init makes, and at the workers. vendor
// chooses one vendor; empty: all of them. It takes at most a few requests per
// stream and partition, each limited in time; ctx bounds all of it.
func (b *Broker) Inspect(ctx context.Context, vendor string) *Inspection {
	i := &Inspection{Address: publicURL(b.conn.ConnectedUrl())}
	i.RoundTrip, _ = b.conn.RTT() // what fails here fails below with a word
	i.Servers = b.inspectServers(ctx)
	i.Inbox = b.conn.NewInbox()
	b.inspectSystem(ctx, i)
	i.Account, i.AccountErr = b.inspectAccount(ctx)
	if i.AccountErr != nil {
		i.TopologyErr = i.AccountErr
		return i
	}
	i.LeaseTTL, _ = b.LeaseTTL(ctx) // a missing bucket is found with the others
	i.TopologyErr = b.inspectTopology(ctx, i, vendor)
	i.Notes, i.MembersErr = b.Notes(ctx)
	i.Members = slices.Sorted(maps.Keys(i.Notes))
	return i
}

func (b *Broker) inspectAccount(ctx context.Context) (AccountFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := b.js.AccountInfo(ctx)
	if err != nil {
		return AccountFacts{}, fmt.Errorf("ask JetStream for the account: %w", err)
	}
	return AccountFacts{
		Storage: int64(info.Store), MaxStorage: info.Limits.MaxStore,
		Streams: info.Streams, MaxStreams: info.Limits.MaxStreams,
		Consumers: info.Consumers, MaxConsumers: info.Limits.MaxConsumers,
	}, nil
}

// inspectTopology looks at every stream and consumer of the vendors.
func (b *Broker) inspectTopology(ctx context.Context, i *Inspection, vendor string) error {
	names, err := b.inspectVendorNames(ctx, i, vendor)
	if err != nil {
		return err
	}
	if vendor != "" {
		names = []string{vendor}
	}
	seen := map[string]bool{}
	var errs []error
	for _, name := range names {
		v, err := b.Vendor(ctx, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, o := range b.objects(InitConfig{Vendor: v.Name, Partitions: v.Partitions, LeaseTTL: i.LeaseTTL}) {
			if seen[o.want.Name] {
				continue
			}
			seen[o.want.Name] = true
			s, err := b.inspectStream(ctx, o, v.Name, i)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			i.Streams = append(i.Streams, s)
		}
		i.Vendors = append(i.Vendors, b.inspectVendor(ctx, v, i.LeaseTTL))
	}
	return errors.Join(errs...)
}

// inspectVendorNames lists the vendors that have a log, and notes those that
// have nothing but a ledger.
func (b *Broker) inspectVendorNames(ctx context.Context, i *Inspection, only string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var names, ledgers []string
	logs := map[string]bool{}
	list := b.js.StreamNames(ctx)
	for name := range list.Name() {
		if vendor, ok := strings.CutPrefix(name, eventsPrefix); ok {
			names, logs[vendor] = append(names, vendor), true
		}
		if vendor, ok := strings.CutPrefix(name, bucketPrefix+ledgerPrefix); ok {
			ledgers = append(ledgers, vendor)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	for _, vendor := range ledgers {
		if !logs[vendor] && (only == "" || only == vendor) {
			i.Orphans = append(i.Orphans, vendor)
		}
	}
	if len(i.Orphans) > 0 && only == i.Orphans[0] {
		return nil, noVendor(only)
	}
	return names, nil
}

// notFound says that the server has no stream of the name.
func notFound(err error) bool { return errors.Is(err, jetstream.ErrStreamNotFound) }
