package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// leastServer is the oldest nats-server to trust: before, streams that keep the
// newest messages of a subject could stall their writers and, after a restart,
// answer from a stale index.
var leastServer = [3]int{2, 15, 2}

// How far a clock may be off.
const (
	clockWarning = time.Second
	clockFailing = 5 * time.Second
)

func serverChecks() []check {
	return []check{
		{
			id: "nats.reachable", title: "reachable", needs: needConfig,
			why:   "Events come from NATS and the ledger is kept there: without it nothing is folded and nothing is sent.",
			judge: judgeReachable,
		},
		{
			id: "nats.version", title: "server version", needs: needServer,
			why:   "Older servers stall writers of a ledger and may answer from a stale index, which shows older figures as newer.",
			judge: judgeVersion,
		},
		{
			id: "nats.jetstream", title: "JetStream", needs: needServer,
			why:   "At the limits of its account NATS refuses new events and every write to the ledger.",
			judge: judgeAccount,
		},
		{
			id: "nats.rights", title: "permissions", needs: needServer,
			why:   "What a user may not publish or read fails at the time when it is needed, and not at start.",
			judge: judgeRights,
		},
		{
			id: "nats.sync", title: "disk sync", needs: needServer,
			why:   "A server that syncs now and then loses, in a power cut, events that their publisher was told are safe.",
			judge: judgeSync,
		},
		{
			id: "nats.certificates", title: "NATS certificates", needs: needServer,
			why:   "A connection over TLS that is lost after a certificate has ended never comes back.",
			judge: judgeServerCertificates,
		},
		{
			id: "nats.clock", title: "clocks", needs: needTopology,
			why:   "An event is dead if its time is too far from that of its arrival, and the server's clock says when it arrived.",
			judge: judgeClock,
		},
	}
}

func judgeReachable(e *evidence) []symptom {
	switch {
	case e.natsErr == nil:
		return one(stepOK, "", "%s, round trip %s", e.nats.Address, briefly(e.nats.RoundTrip))
	case e.config.NATSURL == "" && !e.store.Exists:
		return one(stepSkipped, "", "there is no store to start the embedded server on")
	case e.config.NATSURL == "" && (e.storeErr != nil || e.store.KeyErr != nil):
		return one(stepSkipped, "", "the embedded server was not started: it would refuse the store key")
	case e.config.NATSURL == "":
		return one(stepFailed, "end the process that has the store or the address, or set USAGEBRIDGE_STORE_DIR or USAGEBRIDGE_NATS_LISTEN", "%v", e.natsErr)
	}
	return one(stepFailed, "start the server, or set "+envPrefix+"_NATS_URL (and the credentials) to one that runs and can be reached from here", "%v", e.natsErr)
}

func judgeVersion(e *evidence) []symptom {
	least := fmt.Sprintf("%d.%d.%d", leastServer[0], leastServer[1], leastServer[2])
	var found []symptom
	var good []string
	for _, s := range e.nats.Servers {
		f := symptom{object: cmp.Or(s.Name, s.Address)}
		older, known := olderServer(s.Version)
		switch {
		case s.Err != nil:
			f.verdict, f.observed = stepWarning, fmt.Sprintf("%s could not be asked: %v", s.Address, s.Err)
			f.mend = "start the server, or take its address out of " + envPrefix + "_NATS_URL and of the cluster"
		case !known:
			f.verdict, f.observed, f.mend = stepWarning, fmt.Sprintf("version %q says nothing", s.Version), "run a released nats-server, "+least+" or newer"
		case older:
			f.verdict, f.observed, f.mend = stepFailed, "nats-server "+s.Version, "upgrade nats-server to "+least+" or newer, one server after the other"
		default:
			good = append(good, s.Version)
			continue
		}
		found = append(found, f)
	}
	return orFine(found, "%s on %s", strings.Join(distinct(good), ", "), plural(len(good), "server", "servers"))
}

// olderServer says whether a version lies below the least one.
func olderServer(version string) (older, known bool) {
	released, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.Split(released, ".")
	if len(parts) != len(leastServer) {
		return false, false
	}
	order := 0
	for at, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return false, false
		}
		order = cmp.Or(order, cmp.Compare(n, leastServer[at]))
	}
	return order < 0, true
}

func judgeAccount(e *evidence) []symptom {
	if err := e.nats.AccountErr; err != nil {
		return one(stepFailed, "enable JetStream on the server (`jetstream {}` in its configuration) and for this account", "%v", err)
	}
	a := e.nats.Account
	var found []symptom
	judge := func(what string, used, most int64, usedText, mostText, mend string) {
		if most <= 0 {
			return
		}
		if v := fullness(float64(used) / float64(most)); v != stepOK {
			found = append(found, symptom{verdict: v, object: what, observed: usedText + " of " + mostText + " used", mend: mend})
		}
	}
	judge("storage", a.Storage, a.MaxStorage, byteSize(uint64(a.Storage)), byteSize(uint64(max(a.MaxStorage, 0))),
		"raise the account's max_storage or the server's max_file_store")
	judge("streams", int64(a.Streams), int64(a.MaxStreams), strconv.Itoa(a.Streams), strconv.Itoa(a.MaxStreams), "raise the account's max_streams")
	judge("consumers", int64(a.Consumers), int64(a.MaxConsumers), strconv.Itoa(a.Consumers), strconv.Itoa(a.MaxConsumers), "raise the account's max_consumers")
	limit := "no limit"
	if a.MaxStorage > 0 {
		limit = byteSize(uint64(a.MaxStorage)) + " allowed"
	}
	return orFine(found, "%s, %s stored, %s", plural(a.Streams, "stream", "streams"), byteSize(uint64(a.Storage)), limit)
}

// fullness judges the used share of what is bounded.
func fullness(share float64) verdict {
	switch {
	case share >= asFull:
		return stepFailed
	case share >= nearlyFull:
		return stepWarning
	}
	return stepOK
}

func judgeRights(e *evidence) []symptom {
	if e.nats.RightsErr != nil {
		return one(stepSkipped, "", "this user may not ask what it may do: %v", e.nats.RightsErr)
	}
	r := e.nats.Rights
	names := make([]string, len(e.nats.Vendors))
	for at, v := range e.nats.Vendors {
		names[at] = v.Name
	}
	publish, subscribe := broker.Needs(names)
	var found []symptom
	judge := func(word string, rights broker.SubjectRights, subjects []string) {
		var missing []string
		for _, s := range subjects {
			if !rights.Permits(s) {
				missing = append(missing, s)
			}
		}
		if len(missing) > 0 {
			found = append(found, symptom{
				verdict: stepFailed, object: word, observed: fmt.Sprintf("user %s may not %s %s", cmp.Or(r.User, "(none)"), word, listed(missing, 3)),
				mend: "give the user the permissions of a worker as deploy/nats has them",
			})
		}
	}
	judge("publish to", r.Publish, append(publish, e.nats.Inbox))
	judge("subscribe to", r.Subscribe, append(subscribe, e.nats.Inbox))
	return orFine(found, "user %s of account %s may do all that a worker does", cmp.Or(r.User, "(none)"), cmp.Or(r.Account, "(none)"))
}

func judgeSync(e *evidence) []symptom {
	if e.config.NATSURL == "" {
		return one(stepOK, "", "always (embedded server)")
	}
	if len(e.nats.Syncs) == 0 {
		return one(stepSkipped, "", "only the system account sees it: let `sync_interval: always` stand under jetstream in every server's configuration")
	}
	replicated := true
	for _, s := range e.nats.Streams {
		replicated = replicated && (s.Missing || s.Replicas > 1)
	}
	var found []symptom
	for _, s := range e.nats.Syncs {
		if s.Interval == 0 {
			continue
		}
		f := symptom{
			verdict: stepWarning, object: s.Server, observed: fmt.Sprintf("acknowledged writes stay unsynced for up to %v", s.Interval),
			mend: "set `sync_interval: always` under jetstream in the server's configuration, and restart it",
		}
		if !replicated {
			f.verdict = stepFailed // nobody else has a copy
		}
		found = append(found, f)
	}
	return orFine(found, "always on %s", plural(len(e.nats.Syncs), "server", "servers"))
}

func judgeServerCertificates(e *evidence) []symptom {
	var found []symptom
	var soonest time.Time
	judge := func(object string, ends time.Time, mend string) {
		if ends.IsZero() {
			return
		}
		if soonest.IsZero() || ends.Before(soonest) {
			soonest = ends
		}
		if left := ends.Sub(e.now); left < certificateSoon {
			v := stepWarning
			if left <= 0 {
				v = stepFailed
			}
			found = append(found, symptom{verdict: v, object: object, observed: certificateText(ends, left), mend: mend})
		}
	}
	for _, s := range e.nats.Servers {
		judge(cmp.Or(s.Name, s.Address), s.CertificateEnds, "give the server a new certificate, and reload it with `nats-server --signal reload`")
	}
	judge("our own", e.clientCertificateEnds, "put a new certificate where "+envPrefix+"_NATS_CERT says, and restart the workers one by one")
	if soonest.IsZero() {
		return one(stepSkipped, "", "no TLS is used on the way to NATS")
	}
	return orFine(found, "good until %s at least", soonest.UTC().Format(time.DateOnly))
}

func certificateText(ends time.Time, left time.Duration) string {
	if left <= 0 {
		return "the certificate ended on " + ends.UTC().Format(time.DateOnly)
	}
	return fmt.Sprintf("the certificate ends on %s, in %s", ends.UTC().Format(time.DateOnly), plural(int(left.Hours()/24), "day", "days"))
}

func judgeClock(e *evidence) []symptom {
	var found []symptom
	worst := time.Duration(0)
	for _, c := range e.nats.Clocks {
		// What the way there and back may explain is not held against it.
		off := max(c.Ahead.Abs()-c.Within, 0)
		worst = max(worst, off)
		if off <= clockWarning {
			continue
		}
		word := "ahead of"
		if c.Ahead < 0 {
			word = "behind"
		}
		f := symptom{
			verdict: stepWarning, object: c.Server, observed: fmt.Sprintf("%s %s this machine's clock (± %s)", briefly(c.Ahead.Abs()), word, briefly(c.Within)),
			mend: "let chrony or systemd-timesyncd keep the time on both machines; `timedatectl` says whether it does",
		}
		if off > clockFailing {
			f.verdict = stepFailed
		}
		found = append(found, f)
	}
	if len(e.nats.Clocks) == 0 {
		return one(stepSkipped, "", "no server has told its time")
	}
	return orFine(found, "%s within %s of this machine's", plural(len(e.nats.Clocks), "server is", "servers are"), max(clockLimit(worst), 100*time.Millisecond))
}

// clockLimit rounds up what a clock is off by.
func clockLimit(off time.Duration) time.Duration {
	return (off + 100*time.Millisecond - 1).Truncate(100 * time.Millisecond)
}

// distinct drops repeats and keeps the order.
func distinct(list []string) []string {
	seen := map[string]bool{}
	var kept []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			kept = append(kept, s)
		}
	}
	return kept
}

// listed names the first most of a list and says how many more there are.
func listed(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
