package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// ServerFacts is one server that the configuration names or that the cluster
// has made known.
type ServerFacts struct {
	Address string // without passwords
	Name    string
	Version string // such as 2.15.2
	Cluster string // empty: it is in none
	// CertificateEnds is when its TLS certificate does; zero: it uses none.
	CertificateEnds time.Time
	Err             error // why it could not be asked
}

// SyncFacts is how a server writes to its disk.
type SyncFacts struct {
	Server string
	// Interval is how long an acknowledged write may stay unsynced; 0: it is
	// synced before it is acknowledged.
	Interval time.Duration
}

// Rights is what this connection's user may do. Empty lists allow everything.
type Rights struct {
	User, Account      string
	Publish, Subscribe SubjectRights
}

// SubjectRights are subjects, wildcards allowed, that are allowed and denied.
type SubjectRights struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny"`
}

// serverLook bounds the look at one server of several, and the wait for the
// answers of all.
const serverLook = 2 * time.Second

// Permits says whether messages on the subject pass.
func (r SubjectRights) Permits(subject string) bool {
	covered := func(pattern string) bool {
		pattern, _, _ = strings.Cut(pattern, " ") // a queue group behind it
		return covers(pattern, subject)
	}
	return (len(r.Allow) == 0 || slices.ContainsFunc(r.Allow, covered)) && !slices.ContainsFunc(r.Deny, covered)
}

// covers says whether everything on the subject, which may have wildcards
// itself, matches the pattern.
func covers(pattern, subject string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(subject, ".")
	for at, token := range want {
		switch {
		case token == ">":
			return len(have) > at
		case at >= len(have), have[at] == ">":
			return false
		case token != "*" && token != have[at]:
			return false
		}
	}
	return len(want) == len(have)
}

// inspectServers asks every known server for its version, on a connection of
// its own: a cluster in the middle of an upgrade has several.
func (b *Broker) inspectServers(ctx context.Context) []ServerFacts {
	var all []ServerFacts
	for _, address := range b.conn.Servers() {
		if ctx.Err() != nil {
			break
		}
		all = append(all, b.inspectServer(address))
	}
	// The same server may be known by several addresses.
	slices.SortStableFunc(all, func(a, b ServerFacts) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b ServerFacts) bool { return a.Name != "" && a.Name == b.Name })
}

func (b *Broker) inspectServer(address string) ServerFacts {
	conn, err := b.sibling(address, nil)
	if err != nil {
		return ServerFacts{Address: publicURL(address), Err: withoutURL(err)}
	}
	defer conn.Close()
	f := ServerFacts{
		Address: publicURL(address), Name: conn.ConnectedServerName(),
		Version: conn.ConnectedServerVersion(), Cluster: conn.ConnectedClusterName(),
	}
	if state, err := conn.TLSConnectionState(); err == nil && len(state.PeerCertificates) > 0 {
		f.CertificateEnds = state.PeerCertificates[0].NotAfter
	}
	return f
}

// sibling connects to one server as this connection is connected, without its
// handlers: what one looks at may fail, and is no news for the log. refused, if
// not nil, is told of what the server does not permit.
func (b *Broker) sibling(address string, refused func(error)) (*nats.Conn, error) {
	options := b.conn.Opts
	options.Url, options.Servers = b.withUser(address), nil
	options.AllowReconnect, options.RetryOnFailedConnect, options.IgnoreDiscoveredServers = false, false, true
	options.Timeout = serverLook
	options.AsyncErrorCB = func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if refused != nil && errors.Is(err, nats.ErrPermissionViolation) {
			refused(err)
		}
	}
	options.ClosedCB, options.DisconnectedErrCB, options.ReconnectedCB = nil, nil, nil
	options.DiscoveredServersCB, options.ReconnectErrCB = nil, nil
	return options.Connect()
}

// withUser puts the user of the address that we are connected to into another
// server's, which the client gives without.
func (b *Broker) withUser(address string) string {
	known, err := url.Parse(b.conn.ConnectedUrl())
	if err != nil || known.User == nil {
		return address
	}
	other, err := url.Parse(address)
	if err != nil {
		return address
	}
	other.User = known.User
	return other.String()
}

// inspectSystem asks what only servers can say, on a connection of its own: a
// question that is not permitted is no news for the log.
func (b *Broker) inspectSystem(ctx context.Context, i *Inspection) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := b.sibling(b.conn.ConnectedUrl(), cancel)
	if err != nil {
		i.RightsErr = fmt.Errorf("connect to ask for permissions: %w", withoutURL(err))
		return
	}
	defer conn.Close()
	if i.Rights, i.RightsErr = askRights(ctx, conn); i.RightsErr == nil && i.Rights.Publish.Permits(syncQuestion) {
		i.Syncs = askSyncs(conn)
	}
}

const (
	// rightsQuestion is answered to every account.
	rightsQuestion = "$SYS.REQ.USER.INFO"
	// syncQuestion is answered to the system account alone.
	syncQuestion = "$SYS.REQ.SERVER.PING.VARZ"
)

// askSyncs asks all servers how they sync. Each one answers for itself: the
// end is when no more answers come.
func askSyncs(conn *nats.Conn) []SyncFacts {
	inbox := conn.NewInbox()
	answers, err := conn.SubscribeSync(inbox)
	if err == nil {
		err = conn.PublishRequest(syncQuestion, inbox, nil)
	}
	var all []SyncFacts
	for wait := serverLook; err == nil; wait = serverLook / 4 {
		var m *nats.Msg
		if m, err = answers.NextMsg(wait); err != nil {
			break
		}
		if len(m.Data) == 0 {
			break // nobody answers: not the system account
		}
		if s, ok := parseSync(m.Data); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b SyncFacts) int { return strings.Compare(a.Server, b.Server) })
	return all
}

// parseSync reads the answer of a server that has JetStream.
func parseSync(data []byte) (SyncFacts, bool) {
	var answer struct {
		Server struct {
			Name string `json:"name"`
		} `json:"server"`
		Data struct {
			JetStream struct {
				Config *struct {
					SyncInterval time.Duration `json:"sync_interval"`
					SyncAlways   bool          `json:"sync_always"`
				} `json:"config"`
			} `json:"jetstream"`
		} `json:"data"`
	}
	config := &answer.Data.JetStream.Config
	if json.Unmarshal(data, &answer) != nil || *config == nil {
		return SyncFacts{}, false
	}
	s := SyncFacts{Server: answer.Server.Name, Interval: (*config).SyncInterval}
	if (*config).SyncAlways {
		s.Interval = 0
	}
	return s, true
}

// askRights asks the server what it lets this user do.
func askRights(ctx context.Context, conn *nats.Conn) (Rights, error) {
	ctx, cancel := context.WithTimeout(ctx, serverLook)
	defer cancel()
	m, err := conn.RequestWithContext(ctx, rightsQuestion, nil)
	if err != nil {
		return Rights{}, fmt.Errorf("ask %s for permissions: %w", rightsQuestion, cmp.Or(context.Cause(ctx), err))
	}
	var answer struct {
		Data struct {
			User        string `json:"user"`
			Account     string `json:"account"`
			Permissions struct {
				Publish   SubjectRights `json:"publish"`
				Subscribe SubjectRights `json:"subscribe"`
			} `json:"permissions"`
		} `json:"data"`
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return Rights{}, fmt.Errorf("read permissions: %w", err)
	}
	if answer.Error != nil {
		return Rights{}, errors.New("ask for permissions: " + answer.Error.Description)
	}
	d := answer.Data
	return Rights{User: d.User, Account: d.Account, Publish: d.Permissions.Publish, Subscribe: d.Permissions.Subscribe}, nil
}

// Needs lists the subjects that a worker and its commands publish and
// subscribe to, one example of each kind, for the vendors given. Answers on
// inboxes come on top.
func Needs(vendors []string) (publish, subscribe []string) {
	publish = []string{
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
		"$JS.API.STREAM.INFO." + StreamDeadLetters, "$JS.API.STREAM.MSG.GET." + StreamDeadLetters, "$JS.API.STREAM.MSG.DELETE." + StreamDeadLetters,
		"$JS.API.CONSUMER.CREATE." + StreamDeadLetters + ".x.y", "$JS.API.CONSUMER.DELETE." + StreamDeadLetters + ".x",
		"$JS.API.CONSUMER.MSG.NEXT." + StreamDeadLetters + ".x",
		"deadletter.v1.v.o.r.s.1", "synclog.v1.v.o.k", "status.v1.v.o", "audit.v1.a",
		"hint.v1.v.o", lanePrefix + "v.o",
	}
	for _, bucket := range []string{BucketIntegrations, BucketVendors, BucketDecisions, BucketReplays, BucketOnboardings, BucketLeases} {
		publish = append(publish, subjectPrefix+bucket+".k.k")
	}
	for _, v := range vendors {
		publish = append(publish,
			"usage.v1."+v+".o.count.a.s", "catalog.v1."+v+".o.account.a",
			"$JS.API.CONSUMER.LIST."+EventsStream(v), "$JS.API.CONSUMER.INFO."+EventsStream(v)+"."+consumerName(0),
			"$JS.ACK."+EventsStream(v)+"."+consumerName(0)+".1.1.1.1.0",
			subjectPrefix+LedgerBucket(v)+".0.o.count.a.s")
	}
	return publish, []string{hintSubjects, lanePrefix + "*.*"}
}
