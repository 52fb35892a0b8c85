//go:build unix

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// The site that every schedule is about.
const (
	vendor     = "acme"
	source     = "//billing"
	partitions = 3
	leaseTTL   = 2 * time.Second
	storm      = 5 * time.Second // of a drawn schedule
)

// The integrations, each with a life of its own.
const (
	orgPlain  = "plain"
	orgLocked = "locked" // its tokens are revoked for a while
	orgPaused = "paused" // an operator pauses it for a while
	orgReset  = "reset"  // the partner may lose its catalog
	orgLate   = "late"   // nobody maps it for a long time
)

var organizations = []string{orgPlain, orgLocked, orgPaused, orgReset, orgLate}

// Accounts and services of each. The last services have figures of a kind.
var (
	accounts = []string{"a0", "a1", "a2"}
	services = []string{"s0", "s1", "s2", "s3"}
)

const (
	serviceConflict = "s-conflict" // one id, two figures
	serviceTwins    = "s-twins"    // one id of two sources: two events
	serviceRefused  = "s-refused"  // the partner refuses every figure for good
)

func allServices() []string {
	return append(slices.Clone(services), serviceConflict, serviceTwins, serviceRefused)
}

// post is one message that is published.
type post struct {
	at        time.Duration
	publisher int
	notes     []note // one event, or a batch
	messageID string // Nats-Msg-Id; "": none
}

// note is an event before its time is known.
type note struct {
	id, source, organization, typ string

	second   int // when it was true, in seconds since a day before the run
	account  string
	service  string
	units    string
	counts   []snapshotLine
	part, of int
	snapshot string
	broken   string // the way in which it is; "": it is not
}

// The ways in which an event may be broken. What can be mended is, by the
// patch, before it is replayed.
const (
	brokenNoVersion = "no specversion"
	brokenVersion   = "specversion 0.9"
	brokenType      = "unknown type"
	brokenVendor    = "another vendor"
	brokenNegative  = "negative units"
	brokenBytes     = "no JSON"
	brokenOld       = "too old"
	brokenAhead     = "too far ahead"
)

var breaks = []string{brokenNoVersion, brokenVersion, brokenType, brokenVendor, brokenNegative, brokenBytes, brokenOld, brokenAhead}

// patches mend what dead letters of a reason have.
var patches = map[string]string{
	"malformed":        `[{"op":"add","path":"/specversion","value":"1.0"}]`,
	"invalid":          `[{"op":"replace","path":"/specversion","value":"1.0"}]`,
	"unknown_type":     `[{"op":"replace","path":"/type","value":"usage.count.v1"}]`,
	"subject_mismatch": `[{"op":"replace","path":"/data/vendorId","value":"` + vendor + `"}]`,
}

// deed is one thing that is done to the site.
type deed struct {
	at, lasts time.Duration
	kind      string
	target    int           // which worker or server
	weather   weather       // of a link
	plan      *sandbox.Plan // of the partner
	name      string        // of a stream, an integration or a reason
}

// The kinds of deed.
const (
	killWorker   = "kill worker"        // and start another after lasts
	stopWorker   = "pause worker"       // SIGSTOP, SIGCONT after lasts
	endWorker    = "end worker"         // SIGTERM, start another after lasts
	rollWorkers  = "roll workers"       // each in turn
	jumpWorker   = "clock jump"         // restart one whose clock jumps by lasts at once
	killServer   = "kill server"        // and start it again after lasts
	stopServer   = "end server"         // in good order, and start it again after lasts
	pauseServer  = "pause server"       // SIGSTOP, SIGCONT after lasts
	stutter      = "stutter server"     // SIGSTOP and SIGCONT in turns, as behind a slow disk
	stepDown     = "step down"          // the leader of name
	linkNATS     = "weather to nats"    // between a worker and the servers
	linkPartner  = "weather to partner" // between a worker and the partner
	fullStream   = "full stream"        // name takes no writes
	partnerPlan  = "partner faults"
	revokeTokens = "revoke tokens" // new ones after lasts
	pauseOrg     = "pause integration"
	resetOrg     = "reset integration"
	mapLate      = "map late integration"
	replay       = "replay"
)

func (d deed) String() string {
	text := fmt.Sprintf("%6.2fs %s", d.at.Seconds(), d.kind)
	if d.lasts != 0 {
		text += fmt.Sprintf(" for %.2fs", d.lasts.Seconds())
	}
	switch d.kind {
	case killWorker, stopWorker, endWorker, jumpWorker, killServer, stopServer, pauseServer, stutter:
		text += fmt.Sprintf(" #%d", d.target)
	case linkNATS, linkPartner:
		text += fmt.Sprintf(" #%d %+v", d.target, d.weather)
	case partnerPlan:
		plan, err := json.Marshal(d.plan)
		if err != nil {
			panic(err) // a plan marshals
		}
		text += " " + string(plan)
	}
	if d.name != "" {
		text += " " + d.name
	}
	return text
}

// schedule is everything that will be done in a run. It follows from the seed
// and the number of servers alone; when it happens in the life of the program
// does not.
type schedule struct {
	seed    uint64
	nodes   int
	workers int
	storm   time.Duration // how long things are published and go wrong
	posts   []post
	deeds   []deed
}

func (s *schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d servers, %d workers, %d messages\n", s.seed, s.nodes, s.workers, len(s.posts))
	for _, d := range s.deeds {
		fmt.Fprintln(&b, " ", d)
	}
	return b.String()
}

// drawer draws a schedule.
type drawer struct {
	*rand.Rand

	schedule *schedule
	units    int // of the last figure: every figure has its own
	lastID   int
}

// draw makes the schedule of a seed.
func draw(seed uint64, nodes int) *schedule {
	d := &drawer{Rand: rand.New(rand.NewPCG(seed, uint64(nodes))), schedule: &schedule{seed: seed, nodes: nodes, workers: 2, storm: storm}} //nolint:gosec // a seed is to be known
	if d.chance(0.3) {
		d.schedule.workers = 3
	}
	d.drawPosts()
	d.drawDeeds()
	slices.SortStableFunc(d.schedule.posts, func(a, b post) int { return cmp.Compare(a.at, b.at) })
	return d.schedule
}

func (d *drawer) chance(p float64) bool { return d.Float64() < p }

// between is a time in a range.
func (d *drawer) between(from, to time.Duration) time.Duration {
	return from + time.Duration(d.Int64N(int64(to-from)))
}

func (d *drawer) id() string {
	d.lastID++
	return fmt.Sprint("e", d.lastID)
}

// fresh is a figure that nothing else has: by it a call shows what it carries.
func (d *drawer) fresh() string {
	d.units++
	if d.units%5 == 0 {
		return fmt.Sprintf("%d.5", d.units)
	}
	return fmt.Sprint(d.units)
}

func (d *drawer) post(at time.Duration, notes ...note) *post {
	p := post{at: at, publisher: d.IntN(2), notes: notes}
	if d.chance(0.7) {
		p.messageID = notes[0].source + "/" + notes[0].id
	}
	d.schedule.posts = append(d.schedule.posts, p)
	return &d.schedule.posts[len(d.schedule.posts)-1]
}

// drawPosts draws what is published: catalogs, and then figures in an order
// that is not that of their times.
func (d *drawer) drawPosts() {
	for _, organization := range organizations {
		d.drawCatalog(organization)
		for _, account := range accounts {
			for _, service := range services {
				d.drawFigures(organization, account, service)
			}
		}
		d.drawSnapshots(organization)
		d.drawOddities(organization)
	}
	d.drawBatches()
	slices.SortStableFunc(d.schedule.posts, func(a, b post) int { return cmp.Compare(a.at, b.at) })
}

func (d *drawer) drawCatalog(organization string) {
	for _, account := range accounts {
		d.post(d.between(0, time.Second/2), note{id: d.id(), source: source, organization: organization, typ: "catalog.account.v1", account: account})
	}
	for _, service := range allServices() {
		d.post(d.between(0, time.Second/2), note{id: d.id(), source: source, organization: organization, typ: "catalog.service.v1", service: service})
	}
}

// minute leaves room, between whole minutes, for snapshots.
const minute = 60

// drawFigures draws the figures of one key: most come in the order of their
// times, some late, some twice, some broken, some of one time.
func (d *drawer) drawFigures(organization, account, service string) {
	count := 3 + d.IntN(4)
	for i := range count {
		n := note{
			id: d.id(), source: source, organization: organization, typ: "usage.count.v1",
			second: (10 + i) * minute, account: account, service: service, units: d.fresh(),
		}
		at := time.Duration(float64(storm) * (float64(i) + d.Float64()) / float64(count))
		if d.chance(0.2) {
			at = d.between(0, storm) // late, or early
		}
		switch {
		case d.chance(0.1):
			d.drawBroken(n, at)
		case d.chance(0.12):
			d.drawTie(n, at)
		default:
			p := *d.post(at, n)
			d.drawCopies(p)
		}
	}
}

// drawCopies publishes an event again, with its message id or without.
func (d *drawer) drawCopies(p post) {
	if d.chance(0.15) {
		p.at += d.between(0, time.Second)
		d.schedule.posts = append(d.schedule.posts, p)
	}
	if d.chance(0.15) {
		p.at += d.between(0, time.Second)
		p.messageID = fmt.Sprint("again-", d.id())
		d.schedule.posts = append(d.schedule.posts, p)
	}
}

// drawTie publishes another figure of the same time soon after. Neither comes
// twice: while a repeat is known and its original is still to be delivered
// anew, nobody can know that it is the older one.
func (d *drawer) drawTie(n note, at time.Duration) {
	d.post(at, n)
	n.id, n.units = d.id(), d.fresh()
	d.post(at+d.between(0, time.Second), n)
}

// drawBroken publishes a broken event, and mostly a good one of its time after
// it, which a replay of the broken one must not replace.
func (d *drawer) drawBroken(n note, at time.Duration) {
	n.broken = breaks[d.IntN(len(breaks))]
	d.post(at, n)
	if d.chance(0.7) {
		n.id, n.units, n.broken = d.id(), d.fresh(), ""
		d.post(at+d.between(100*time.Millisecond, time.Second), n)
	}
}

// drawSnapshots draws two snapshots of the organization and one of an account,
// in parts that come in any order, and maybe not all of them.
func (d *drawer) drawSnapshots(organization string) {
	for i := range 3 {
		account := ""
		if i == 2 {
			account = accounts[d.IntN(len(accounts))]
		}
		var lines []snapshotLine
		for _, a := range accounts {
			for _, s := range services {
				if (account == "" || account == a) && d.chance(0.7) {
					lines = append(lines, snapshotLine{a, s, json.Number(d.fresh())})
				}
			}
		}
		d.drawParts(note{
			source: source, organization: organization, typ: "usage.snapshot.v1",
			second: (10+d.IntN(4))*minute + 20 + i, account: account, snapshot: fmt.Sprint("snapshot-", organization, i),
		}, lines)
	}
}

func (d *drawer) drawParts(n note, lines []snapshotLine) {
	n.of = 1 + d.IntN(3)
	missing := -1
	if d.chance(0.2) {
		missing = d.IntN(n.of)
	}
	begun := d.between(time.Second, storm-time.Second)
	for i := range n.of {
		part := n
		part.id, part.part = d.id(), i+1
		part.counts = lines[len(lines)*i/n.of : len(lines)*(i+1)/n.of]
		at := begun + d.between(0, time.Second)
		if i == missing {
			continue
		}
		p := *d.post(at, part)
		d.drawCopies(p)
	}
}

// drawOddities draws an id that is used twice, which makes the second event
// dead, an id that two sources use, which does not, and figures that the
// partner refuses. They are newer than every snapshot.
func (d *drawer) drawOddities(organization string) {
	n := note{
		id: d.id(), source: source, organization: organization, typ: "usage.count.v1",
		second: 100 * minute, account: accounts[0], service: serviceConflict, units: d.fresh(),
	}
	at := d.between(time.Second, storm-time.Second)
	d.post(at, n).messageID = ""
	n.units = d.fresh()
	d.post(at+d.between(50*time.Millisecond, time.Second), n).messageID = ""

	n.id, n.service, n.units = d.id(), serviceTwins, d.fresh()
	at = d.between(time.Second, storm-time.Second)
	d.post(at, n)
	n.source, n.second, n.units = "//another", n.second+minute, d.fresh()
	d.post(at+d.between(50*time.Millisecond, time.Second), n)

	n.id, n.source, n.service, n.units = d.id(), source, serviceRefused, d.fresh()
	d.post(d.between(time.Second, storm-time.Second), n)
}

// drawBatches puts some neighbours of one integration and publisher into one
// message.
func (d *drawer) drawBatches() {
	var posts []post
	for i := 0; i < len(d.schedule.posts); i++ {
		p := d.schedule.posts[i]
		for d.chance(0.3) && i+1 < len(d.schedule.posts) && p.joins(d.schedule.posts[i+1]) {
			i++
			p.notes = append(slices.Clone(p.notes), d.schedule.posts[i].notes...)
			p.messageID = ""
		}
		posts = append(posts, p)
	}
	d.schedule.posts = posts
}

// joins says whether the events of two posts can be one batch.
func (p post) joins(q post) bool {
	return p.notes[0].organization == q.notes[0].organization && p.notes[len(p.notes)-1].broken != brokenBytes && q.notes[0].broken != brokenBytes
}
