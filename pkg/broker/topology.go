package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Names of the objects that all vendors share. The buckets are to be opened
// with OpenBucket, or with any key-value client.
const (
	StreamDeadLetters  = "DEADLETTERS"
	StreamSyncLog      = "SYNCLOG"
	StreamStatus       = "STATUS"
	StreamAudit        = "AUDIT"
	StreamRequests     = "REQUESTS" // events that ask for an integration
	BucketIntegrations = "INTEGRATIONS"
	BucketVendors      = "VENDORS"     // what operators said of a vendor: rules, and whether it is folded
	BucketDecisions    = "DECISIONS"   // what operators said of figures: released, refused, reverted
	BucketReplays      = "REPLAYS"     // replays of dead letters: what to do, and how far they are
	BucketOnboardings  = "ONBOARDINGS" // organizations that are brought to the platform: what was asked for, and how far it is
	BucketLeases       = "LEASES"
)

const (
	ledgerPrefix    = "LEDGER_"
	bucketPrefix    = "KV_"  // of the stream behind a bucket
	subjectPrefix   = "$KV." // of the subjects of a bucket
	metaPartitions  = "usagebridge.partitions"
	maxVendorLength = 64

	defaultPartitions = 16
	maxPartitions     = 256

	day = 24 * time.Hour
	// maxEvent leaves 64 KiB of the server's 1 MiB for what a dead letter
	// adds to its event.
	maxEvent   = 960 << 10
	maxRequest = 64 << 10 // of an event that asks for an integration
	// duplicateWindow is how long a publisher's Nats-Msg-Id is remembered.
	duplicateWindow = 30 * time.Minute
	// leaseMarker is how long an expired lease can be seen to have expired.
	leaseMarker = time.Minute

	maxAckPending = 10_000
)

// eventsPrefix begins the name of every vendor's log.
var eventsPrefix = event.Stream("")

// ErrNoVendor says that Init has not been run for the vendor.
var ErrNoVendor = errors.New("vendor is not set up")

// InitConfig says what to create. Zero values leave what exists as it is.
type InitConfig struct {
	// Vendor is an id of 1 to 64 characters of A-Z a-z 0-9 - _, since it
	// becomes part of stream names. "member" is taken.
	Vendor string
	// Partitions, 1 to 256, is fixed once the vendor exists. Default 16.
	Partitions int
	// Replicas is 1, or 3 on a cluster, for the vendor's streams and at least
	// as many for the shared ones. It can be raised later, never lowered.
	// Default: what exists has; 1 when nothing exists.
	Replicas int
	// Progress, if not nil, is told while copies are being filled: of the
	// stream how many copies, of how many, have all that the leader has.
	Progress func(stream string, current, replicas int)
	// LeaseTTL, 1 s to 1 min, is how long the leases of all vendors' workers
	// live without being renewed. It can be raised at any time, and lowered
	// while no worker runs: a worker reads it when it starts. Default: what the
	// store has; 15 s for a new one.
	LeaseTTL time.Duration
	// MaxBytes bounds the vendor's log; beyond it, publishing is refused.
	// 0: no bound.
	MaxBytes int64
}

// InitReport says what Init found and did, in the order of the design.
type InitReport struct {
	Objects []Object
}

// Object is one object of the topology.
type Object struct {
	Kind string // stream, bucket or consumers
	Name string
	// State is one of created, updated (safe changes were made), unchanged
	// and drifted (something differs that Init does not change).
	State string
	// Differences says what was changed, or what differs: "max_age is 1h, want 840h".
	Differences []string
}

// The states of an object.
const (
	Created   = "created"
	Updated   = "updated"
	Unchanged = "unchanged"
	Drifted   = "drifted"
)

// Drifted lists the objects that are not as they should be.
func (r InitReport) Drifted() []Object {
	return slices.DeleteFunc(slices.Clone(r.Objects), func(o Object) bool { return o.State != Drifted })
}

// Vendor is one vendor that is set up.
type Vendor struct {
	Name       string
	Partitions int
	Replicas   int
	Created    time.Time
	Messages   uint64 // in the log
	Bytes      uint64 // of the log
}

// EventsStream is the name of a vendor's log.
func EventsStream(vendor string) string { return event.Stream(vendor) }

// LedgerBucket is the name of the key-value bucket with a vendor's ledger.
func LedgerBucket(vendor string) string { return ledgerPrefix + event.Escape(vendor) }

// Init creates whatever is missing for the vendor and reports the rest. It
// can be run again at any time: data is never touched, a setting is changed
// only where that cannot lose anything (more replicas, more room), and a
// different number of partitions is refused.
func (b *Broker) Init(ctx context.Context, c InitConfig) (InitReport, error) {
	if err := c.check(); err != nil {
		return InitReport{}, err
	}
	known, err := b.Vendor(ctx, c.Vendor)
	switch {
	case errors.Is(err, ErrNoVendor):
		c.Partitions = cmp.Or(c.Partitions, defaultPartitions)
	case err != nil:
		return InitReport{}, err
	case c.Partitions != 0 && c.Partitions != known.Partitions:
		return InitReport{}, fmt.Errorf("vendor %s has %d partitions, and %d are asked for: the number is fixed when a vendor is set up, "+
			"because it decides where each integration's entries are: leave it out, or set up another vendor", c.Vendor, known.Partitions, c.Partitions)
	default:
		c.Partitions = known.Partitions
	}
	if c.Replicas, err = b.replicas(ctx, c, known.Replicas); err != nil {
		return InitReport{}, err
	}
	if c.LeaseTTL, err = b.futureLeaseTTL(ctx, c.LeaseTTL); err != nil {
		return InitReport{}, err
	}
	var report InitReport
	for _, o := range b.objects(c) {
		object, err := b.ensureStream(ctx, o, c.Replicas)
		if err != nil {
			return report, err
		}
		report.Objects = append(report.Objects, object)
	}
	consumers, err := b.ensureConsumers(ctx, c)
	if err != nil {
		return report, err
	}
	report.Objects = append(report.Objects, consumers)
	return report, b.awaitReplicas(ctx, c)
}

func (c InitConfig) check() error {
	var errs []error
	if c.Vendor == "" || len(c.Vendor) > maxVendorLength || event.Escape(c.Vendor) != c.Vendor {
		errs = append(errs, fmt.Errorf("vendor %q: want 1 to %d characters of A-Z a-z 0-9 - _, since it becomes part of stream names", c.Vendor, maxVendorLength))
	}
	if c.Vendor == memberToken {
		errs = append(errs, fmt.Errorf("vendor %q: the name is taken by the list of workers: choose another", c.Vendor))
	}
	if c.Partitions < 0 || c.Partitions > maxPartitions {
		errs = append(errs, fmt.Errorf("%d partitions: want 1 to %d, or 0 for the default", c.Partitions, maxPartitions))
	}
	if c.Replicas != 0 && c.Replicas != 1 && c.Replicas != 3 {
		errs = append(errs, fmt.Errorf("%d replicas: want 1 or 3", c.Replicas))
	}
	if c.LeaseTTL != 0 && (c.LeaseTTL < minLeaseTTL || c.LeaseTTL > maxLeaseTTL) {
		errs = append(errs, fmt.Errorf("leases of %v: want %v to %v, or 0 for the default", c.LeaseTTL, minLeaseTTL, maxLeaseTTL))
	}
	if c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("a bound of %d bytes: want a positive number, or 0 for none", c.MaxBytes))
	}
	return errors.Join(errs...)
}

// object is one stream as it should be.
type object struct {
	kind, name string // as shown
	want       jetstream.StreamConfig
}

func stream(c jetstream.StreamConfig) object {
	return object{kind: "stream", name: c.Name, want: c}
}

// bucket is the stream of a key-value bucket, as clients expect it. Direct
// reads stay off: they may come from a follower that lags.
func bucket(name string, history int64, change func(*jetstream.StreamConfig)) object {
	c := jetstream.StreamConfig{
		Name:              bucketPrefix + name,
		Subjects:          []string{subjectPrefix + name + ".>"},
		MaxMsgsPerSubject: history,
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		DenyDelete:        true,
	}
	if change != nil {
		change(&c)
	}
	return object{kind: "bucket", name: name, want: c}
}

// objects lists every stream and bucket, as the table in the design has them.
func (b *Broker) objects(c InitConfig) []object {
	v := c.Vendor
	events := jetstream.StreamConfig{
		Name:     EventsStream(v),
		Subjects: []string{"usage.v1." + v + ".*.>", "catalog.v1." + v + ".*.>"},
		SubjectTransform: &jetstream.SubjectTransformConfig{
			Source:      "*.v1.*.*.>",
			Destination: fmt.Sprintf("{{partition(%d,2,3)}}.{{wildcard(1)}}.v1.{{wildcard(2)}}.{{wildcard(3)}}.>", c.Partitions),
		},
		Metadata:   map[string]string{metaPartitions: strconv.Itoa(c.Partitions)},
		Discard:    jetstream.DiscardNew,
		MaxAge:     35 * day,
		MaxBytes:   c.MaxBytes,
		MaxMsgSize: maxEvent,
		Duplicates: duplicateWindow,
		DenyDelete: true,
		DenyPurge:  true,
	}
	atomic := func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = true }
	ttl := cmp.Or(c.LeaseTTL, LeaseTTL)
	lease := func(c *jetstream.StreamConfig) {
		c.MaxAge = ttl
		c.Duplicates = min(ttl, 2*time.Minute)
		c.AllowMsgTTL = true
		c.SubjectDeleteMarkerTTL = leaseMarker
	}
	return []object{
		stream(events),
		bucket(LedgerBucket(v), 1, atomic),
		bucket(BucketIntegrations, 10, nil),
		bucket(BucketVendors, 10, nil),
		bucket(BucketDecisions, 1, nil),
		bucket(BucketReplays, 1, nil),
		bucket(BucketOnboardings, 1, nil),
		stream(jetstream.StreamConfig{Name: StreamDeadLetters, Subjects: []string{"deadletter.v1.*.*.*.*.*"}, MaxAge: 90 * day}),
		stream(jetstream.StreamConfig{
			Name: StreamSyncLog, Subjects: []string{"synclog.v1.*.*.*"}, MaxAge: 30 * day, MaxBytes: 1 << 30,
			Discard: jetstream.DiscardOld, AllowAtomicPublish: true,
		}),
		stream(jetstream.StreamConfig{Name: StreamStatus, Subjects: []string{"status.v1.*.*"}, MaxAge: 365 * day}),
		stream(jetstream.StreamConfig{
			Name: StreamRequests, Subjects: []string{event.FamilyIntegration + ".v1.*.*.requested"}, MaxAge: 35 * day, MaxMsgSize: maxRequest,
			Discard: jetstream.DiscardNew, Duplicates: duplicateWindow, DenyDelete: true, DenyPurge: true,
		}),
		stream(jetstream.StreamConfig{Name: StreamAudit, Subjects: []string{"audit.v1.*"}, DenyDelete: true, DenyPurge: true}),
		bucket(BucketLeases, 1, lease),
	}
}

func (b *Broker) ensureStream(ctx context.Context, o object, replicas int) (Object, error) {
	result := Object{Kind: o.kind, Name: o.name, State: Unchanged}
	s, err := b.js.Stream(ctx, o.want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		o.want.Replicas = cmp.Or(replicas, 1)
		if err := b.ask(ctx, apiCreate+o.want.Name, o.want, &jetstream.StreamInfo{}); err != nil {
			return result, fmt.Errorf("create %s %s: %w", o.kind, o.name, tooFewServers(err))
		}
		result.State = Created
		return result, nil
	}
	if err != nil {
		return result, fmt.Errorf("look up %s %s: %w", o.kind, o.name, err)
	}
	is := s.CachedInfo().Config
	o.want.Replicas = max(replicas, is.Replicas) // another vendor may want more of what they share
	var changed []string
	next := is
	for _, set := range settings {
		have, want := set.show(is), set.show(o.want)
		if have == want || (set.ignore != nil && set.ignore(is, o.want)) {
			continue
		}
		if set.safe != nil && set.safe(is, o.want) {
			set.apply(&next, o.want)
			changed = append(changed, fmt.Sprintf("%s was %s, is %s", set.name, have, want))
			continue
		}
		result.Differences = append(result.Differences, fmt.Sprintf("%s is %s, want %s", set.name, have, want))
	}
	if len(changed) > 0 {
		if err := b.ask(ctx, apiUpdate+next.Name, next, &jetstream.StreamInfo{}); err != nil {
			return result, fmt.Errorf("update %s %s (%s): %w", o.kind, o.name, strings.Join(changed, ", "), tooFewServers(err))
		}
		b.streams.Delete(o.want.Name)
		result.State = Updated
	}
	if len(result.Differences) > 0 {
		result.State = Drifted
	}
	result.Differences = append(changed, result.Differences...)
	return result, nil
}

// setting is one property of a stream that Init compares. It is changed only
// if safe says that the change cannot lose anything.
type setting struct {
	name   string
	show   func(jetstream.StreamConfig) string
	ignore func(is, want jetstream.StreamConfig) bool
	safe   func(is, want jetstream.StreamConfig) bool
	apply  func(to *jetstream.StreamConfig, want jetstream.StreamConfig)
}

func flag(name string, f func(*jetstream.StreamConfig) *bool, safe bool) setting {
	s := setting{name: name, show: func(c jetstream.StreamConfig) string { return strconv.FormatBool(*f(&c)) }}
	if safe {
		s.safe = func(_, _ jetstream.StreamConfig) bool { return true }
		s.apply = func(to *jetstream.StreamConfig, want jetstream.StreamConfig) { *f(to) = *f(&want) }
	}
	return s
}

var settings = []setting{
	{name: "subjects", show: func(c jetstream.StreamConfig) string { return strings.Join(c.Subjects, " ") }},
	{name: "subject_transform", show: func(c jetstream.StreamConfig) string {
		if c.SubjectTransform == nil {
			return "none"
		}
		return c.SubjectTransform.Source + " → " + c.SubjectTransform.Destination
	}},
	{name: "partitions", show: func(c jetstream.StreamConfig) string { return c.Metadata[metaPartitions] }},
	{name: "retention", show: func(c jetstream.StreamConfig) string { return c.Retention.String() }},
	{name: "storage", show: func(c jetstream.StreamConfig) string { return c.Storage.String() }},
	{name: "discard", show: func(c jetstream.StreamConfig) string { return c.Discard.String() }},
	{
		name: "replicas", show: func(c jetstream.StreamConfig) string { return strconv.Itoa(c.Replicas) },
		safe:  func(is, want jetstream.StreamConfig) bool { return want.Replicas > is.Replicas },
		apply: func(to *jetstream.StreamConfig, want jetstream.StreamConfig) { to.Replicas = want.Replicas },
	},
	{
		name: "max_age", show: func(c jetstream.StreamConfig) string { return c.MaxAge.String() },
		safe: func(is, want jetstream.StreamConfig) bool {
			// Leases are not kept, and Init has seen that nobody holds one.
			return is.MaxAge != 0 && (want.MaxAge == 0 || want.MaxAge > is.MaxAge || is.Name == bucketPrefix+BucketLeases)
		},
		apply: func(to *jetstream.StreamConfig, want jetstream.StreamConfig) { to.MaxAge = want.MaxAge },
	},
	{
		name: "max_bytes", show: func(c jetstream.StreamConfig) string { return strconv.FormatInt(max(c.MaxBytes, 0), 10) },
		// Without a wish, a bound that somebody set is his own.
		ignore: func(_, want jetstream.StreamConfig) bool { return want.MaxBytes <= 0 },
		safe: func(is, want jetstream.StreamConfig) bool {
			return is.Discard == jetstream.DiscardNew || is.MaxBytes > 0 && want.MaxBytes > is.MaxBytes
		},
		apply: func(to *jetstream.StreamConfig, want jetstream.StreamConfig) { to.MaxBytes = want.MaxBytes },
	},
	{name: "max_msgs", show: func(c jetstream.StreamConfig) string { return strconv.FormatInt(max(c.MaxMsgs, 0), 10) }},
	{name: "max_msgs_per_subject", show: func(c jetstream.StreamConfig) string {
		return strconv.FormatInt(max(c.MaxMsgsPerSubject, 0), 10)
	}},
	{name: "max_msg_size", show: func(c jetstream.StreamConfig) string { return strconv.Itoa(int(max(c.MaxMsgSize, 0))) }},
	{
		name: "duplicate_window", show: func(c jetstream.StreamConfig) string { return c.Duplicates.String() },
		ignore: func(_, want jetstream.StreamConfig) bool { return want.Duplicates == 0 },
		safe:   func(_, _ jetstream.StreamConfig) bool { return true },
		apply:  func(to *jetstream.StreamConfig, want jetstream.StreamConfig) { to.Duplicates = want.Duplicates },
	},
	flag("allow_rollup_hdrs", func(c *jetstream.StreamConfig) *bool { return &c.AllowRollup }, false),
	flag("allow_msg_ttl", func(c *jetstream.StreamConfig) *bool { return &c.AllowMsgTTL }, false),
	flag("allow_msg_schedules", func(c *jetstream.StreamConfig) *bool { return &c.AllowMsgSchedules }, false),
	flag("deny_delete", func(c *jetstream.StreamConfig) *bool { return &c.DenyDelete }, false),
	flag("deny_purge", func(c *jetstream.StreamConfig) *bool { return &c.DenyPurge }, false),
	flag("allow_direct", func(c *jetstream.StreamConfig) *bool { return &c.AllowDirect }, true),
	flag("allow_atomic", func(c *jetstream.StreamConfig) *bool { return &c.AllowAtomicPublish }, true),
}

func consumerName(partition int) string { return "p" + strconv.Itoa(partition) }

// consumerConfig is the consumer of a partition. The messages of a dead worker
// stay away as long as its leases do: Init sets the time that these have.
func consumerConfig(partition int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       consumerName(partition),
		FilterSubject: strconv.Itoa(partition) + ".>",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       LeaseTTL,
		MaxDeliver:    -1,
		MaxAckPending: maxAckPending,
	}
}

func (b *Broker) ensureConsumers(ctx context.Context, c InitConfig) (Object, error) {
	result := Object{
		Kind:  "consumers",
		Name:  fmt.Sprintf("%s p0…p%d", EventsStream(c.Vendor), c.Partitions-1),
		State: Unchanged,
	}
	s, err := b.js.Stream(ctx, EventsStream(c.Vendor))
	if err != nil {
		return result, fmt.Errorf("look up stream %s: %w", EventsStream(c.Vendor), err)
	}
	var changed []string
	known := map[string]jetstream.ConsumerConfig{}
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		known[info.Name] = info.Config
	}
	if err := list.Err(); err != nil {
		return result, fmt.Errorf("list consumers of %s: %w", EventsStream(c.Vendor), err)
	}
	for p := range c.Partitions {
		want := consumerConfig(p)
		want.AckWait = ackWait(c.LeaseTTL)
		if is, ok := known[want.Durable]; ok {
			change, err := setAckWait(ctx, s, is, want.AckWait)
			if err != nil {
				return result, err
			}
			if change != "" {
				changed = append(changed, change)
				is.AckWait = want.AckWait
			}
			result.Differences = append(result.Differences, differences(is, want)...)
			continue
		}
		if _, err := s.CreateConsumer(ctx, want); err != nil {
			return result, fmt.Errorf("create consumer %s of %s: %w", want.Durable, EventsStream(c.Vendor), err)
		}
		result.State = Created
	}
	if len(changed) > 0 {
		result.State = Updated
	}
	if len(result.Differences) > 0 {
		result.State = Drifted
	}
	result.Differences = append(changed, result.Differences...)
	return result, nil
}

// ackWait is how long a consumer waits for acknowledgements: as long as leases
// live, since a dead worker's messages are to come again when its leases do not
// hold any longer; but not less than a busy worker may take for what it has
// fetched, or it would get the same messages again and again.
func ackWait(leases time.Duration) time.Duration { return max(leases, LeaseTTL) }

// setAckWait has a consumer wait that long for acknowledgements, which loses
// nothing, and says what it changed, if anything.
func setAckWait(ctx context.Context, s jetstream.Stream, is jetstream.ConsumerConfig, wait time.Duration) (change string, err error) {
	if is.AckWait == wait {
		return "", nil
	}
	change = fmt.Sprintf("%s: ack_wait was %v, is %v", is.Durable, is.AckWait, wait)
	is.AckWait = wait
	if _, err := s.UpdateConsumer(ctx, is); err != nil {
		return "", fmt.Errorf("update consumer %s (%s): %w", is.Durable, change, err)
	}
	return change, nil
}

func differences(is, want jetstream.ConsumerConfig) []string {
	var all []string
	differ := func(name string, have, wish any) {
		if have != wish {
			all = append(all, fmt.Sprintf("%s: %s is %v, want %v", want.Durable, name, have, wish))
		}
	}
	differ("filter_subject", is.FilterSubject, want.FilterSubject)
	differ("ack_policy", is.AckPolicy, want.AckPolicy)
	differ("ack_wait", is.AckWait, want.AckWait)
	differ("max_deliver", is.MaxDeliver, want.MaxDeliver)
	differ("max_ack_pending", is.MaxAckPending, want.MaxAckPending)
	return all
}

// Vendor is the vendor as it was set up, or an error that wraps ErrNoVendor.
func (b *Broker) Vendor(ctx context.Context, name string) (Vendor, error) {
	if event.Escape(name) != name || name == "" {
		return Vendor{}, noVendor(name)
	}
	s, err := b.js.Stream(ctx, EventsStream(name))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Vendor{}, noVendor(name)
	}
	if err != nil {
		return Vendor{}, fmt.Errorf("look up vendor %s: %w", name, err)
	}
	return vendorOf(s.CachedInfo())
}

func noVendor(name string) error {
	return fmt.Errorf("%w: %q: run `usagebridge init --vendor %s`", ErrNoVendor, name, name)
}

// Vendors lists the vendors that are set up, by name.
func (b *Broker) Vendors(ctx context.Context) ([]Vendor, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	var all []Vendor
	list := b.js.ListStreams(ctx, jetstream.WithStreamListSubject("usage.v1.*.*.>"))
	for info := range list.Info() {
		if !strings.HasPrefix(info.Config.Name, eventsPrefix) {
			continue
		}
		v, err := vendorOf(info)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list vendors: %w", err)
	}
	slices.SortFunc(all, func(a, b Vendor) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func vendorOf(info *jetstream.StreamInfo) (Vendor, error) {
	partitions, err := strconv.Atoi(info.Config.Metadata[metaPartitions])
	if err != nil || partitions < 1 || partitions > maxPartitions {
		return Vendor{}, fmt.Errorf("stream %s: metadata %s is %q: want 1 to %d: it was not made by `usagebridge init`",
			info.Config.Name, metaPartitions, info.Config.Metadata[metaPartitions], maxPartitions)
	}
	return Vendor{
		Name:       strings.TrimPrefix(info.Config.Name, eventsPrefix),
		Partitions: partitions,
		Replicas:   info.Config.Replicas,
		Created:    info.Created,
		Messages:   info.State.Msgs,
		Bytes:      info.State.Bytes,
	}, nil
}
