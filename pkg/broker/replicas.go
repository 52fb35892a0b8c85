package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// JetStream's numbers for more copies than there are servers for.
const (
	codeNoPeers     jetstream.ErrorCode = 10005
	codeNoResources jetstream.ErrorCode = 10023
	codeNotACluster jetstream.ErrorCode = 10074
)

// replicaPoll is how often copies that are being filled are looked at.
const replicaPoll = 250 * time.Millisecond

// replicas is how many copies the vendor's streams are to have. Fewer than
// there are would be a step back that nobody notices before a disk is lost.
func (b *Broker) replicas(ctx context.Context, c InitConfig, known int) (int, error) {
	if c.Replicas != 0 && c.Replicas < known {
		return 0, fmt.Errorf("vendor %s has %d replicas, and %d is asked for: init never takes copies away: leave it out, "+
			"or change the streams with a NATS client if they are to go", c.Vendor, known, c.Replicas)
	}
	if c.Replicas > 1 && b.conn.ConnectedClusterName() == "" {
		return 0, errNoCluster(b, c.Replicas)
	}
	if c.Replicas != 0 || known != 0 {
		return max(c.Replicas, known), nil
	}
	shared, err := b.js.Stream(ctx, bucketPrefix+BucketIntegrations)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up bucket %s: %w", BucketIntegrations, err)
	}
	return shared.CachedInfo().Config.Replicas, nil
}

func errNoCluster(b *Broker, replicas int) error {
	return fmt.Errorf("%d replicas are asked for, and the NATS server at %s is in no cluster: want %d servers with a cluster block each "+
		"(deploy/nats/cluster.conf), or 1 replica", replicas, publicURL(b.conn.ConnectedUrl()), replicas)
}

// tooFewServers says what is missing when a stream cannot have its copies.
func tooFewServers(err error) error {
	switch errorCode(err) {
	case codeNoPeers, codeNoResources, codeNotACluster:
		return fmt.Errorf("%w: each copy needs a server of its own with JetStream and enough room (max_file_store): see that all servers of the cluster are up", err)
	}
	return err
}

// awaitReplicas waits until every copy of every stream, and of what the
// consumers have acknowledged, has all that its leader has: before that, the
// loss of one server may still be the loss of data.
func (b *Broker) awaitReplicas(ctx context.Context, c InitConfig) error {
	if c.Replicas <= 1 {
		return nil
	}
	for _, o := range b.objects(c) {
		told, consumers := -1, 0
		if o.want.Name == EventsStream(c.Vendor) {
			consumers = c.Partitions
		}
		for {
			current, want, err := b.copies(ctx, o.want.Name, consumers)
			if err != nil {
				return fmt.Errorf("wait for the replicas of %s %s: %w", o.kind, o.name, err)
			}
			if c.Progress != nil && current != told && (current < want || told >= 0) {
				c.Progress(o.want.Name, current, want)
			}
			if told = current; current >= want {
				break
			}
			if err := pause(ctx, replicaPoll); err != nil {
				return fmt.Errorf("wait for the replicas of %s %s, %d of %d are current (run init again to wait on): %w", o.kind, o.name, current, want, err)
			}
		}
	}
	return nil
}

// copies is how many copies of the stream and of all its durable consumers
// are current, the leader's included: the fewest of any. A consumer without a
// leader is not listed, so their number has to be known.
func (b *Broker) copies(ctx context.Context, name string, consumers int) (current, want int, err error) {
	request, cancel := limited(ctx)
	defer cancel()
	s, err := b.js.Stream(request, name)
	if err != nil {
		return 0, 0, err
	}
	info := s.CachedInfo()
	want = info.Config.Replicas
	current = currentIn(info.Cluster)
	list := s.ListConsumers(request)
	for consumer := range list.Info() {
		if consumer.Config.Durable != "" {
			current = min(current, currentIn(consumer.Cluster))
			consumers--
		}
	}
	if consumers > 0 {
		current = 0
	}
	return current, want, list.Err()
}

// currentIn counts the leader and the followers that have what it has.
func currentIn(cluster *jetstream.ClusterInfo) int {
	if cluster == nil || cluster.Leader == "" {
		return 0
	}
	n := 1
	for _, peer := range cluster.Replicas {
		if peer.Current && !peer.Offline {
			n++
		}
	}
	return n
}
