package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// How old the oldest event that no worker has acknowledged may be. Folding
// takes less than a second.
const (
	lagWarning = time.Minute
	lagFailing = 15 * time.Minute
)

func vendorChecks() []check {
	return []check{
		{
			id: "workers.alive", title: "workers", needs: needTopology,
			why:   "Without a worker events wait in the log and the partner hears nothing.",
			judge: judgeWorkers,
		},
		{
			id: "workers.lease", title: "lease and timeout", needs: needTopology,
			why:   "No call may outlive its lease, or another worker could send a newer figure before the older one arrives.",
			judge: judgeLease,
		},
		{
			id: "workers.partitions", title: "partitions", needs: needTopology,
			why:   "The events and calls of integrations in a partition that no worker has stand still.",
			judge: judgePartitions,
		},
		{
			id: "vendors.folded", title: "folding", needs: needTopology,
			why:   "The events of a stopped vendor wait in its log, and are dropped unfolded once they are older than it keeps them.",
			judge: judgeFolded,
		},
		{
			id: "vendors.lag", title: "backlog", needs: needTopology,
			why:   "What is not folded is on no invoice, and an event that outlives the log is lost.",
			judge: judgeLag,
		},
		{
			id: "vendors.redelivered", title: "redeliveries", needs: needTopology,
			why:   "Events that are delivered again and again mean that a worker dies or cannot write, and near the limit no more are delivered.",
			judge: judgeRedelivered,
		},
		{
			id: "vendors.ledger", title: "ledger format", needs: needTopology,
			why:   "A worker does not start on a partition of the ledger that it cannot read, so as to send no wrong figure.",
			judge: judgeLedger,
		},
		{
			id: "vendors.dead_letters", title: "dead letters", needs: needTopology,
			why:   "Each is an event or a figure that will reach no invoice unless a person mends and replays it.",
			judge: judgeLetters,
		},
		{
			id: "vendors.activity", title: "last activity", needs: needTopology,
			why:   "A vendor that has gone quiet may have stopped publishing.",
			judge: judgeActivity,
		},
	}
}

func judgeWorkers(e *evidence) []symptom {
	mend := "`usagebridge run`, wherever the worker belongs"
	switch {
	case e.nats.MembersErr != nil:
		return one(stepFailed, mend, "%v", e.nats.MembersErr)
	case len(e.nats.Members) > 0:
		return one(stepOK, "", "%d: %s", len(e.nats.Members), listed(e.nats.Members, 4))
	case e.own:
		return one(stepWarning, mend, "none: the store was not open when the doctor came")
	}
	return one(stepFailed, mend, "none is alive")
}

func judgeLease(e *evidence) []symptom {
	ttl, call := e.nats.LeaseTTL, e.config.PartnerTimeout
	if ttl == 0 {
		return one(stepSkipped, "", "the bucket of leases cannot be read")
	}
	text := fmt.Sprintf("leases last %v, calls up to %v", ttl, call)
	mend := fmt.Sprintf("set %s_PARTNER_TIMEOUT to %v or less", envPrefix, ttl*4/5)
	switch {
	case call >= ttl:
		return one(stepFailed, mend, "%s: no call could ever begin", text)
	case call > ttl*4/5:
		return one(stepWarning, mend, "%s: little time is left to begin one", text)
	}
	return one(stepOK, "", "%s", text)
}

func judgePartitions(e *evidence) []symptom {
	if len(e.nats.Members) == 0 {
		return one(stepSkipped, "", "no worker is alive to have them")
	}
	var found []symptom
	all := 0
	for _, v := range e.nats.Vendors {
		all += len(v.Partitions)
		var without []string
		for _, p := range v.Partitions {
			if v.Owners[p.Partition] == "" {
				without = append(without, strconv.Itoa(p.Partition))
			}
		}
		if len(without) > 0 && v.Err == nil {
			found = append(found, symptom{
				verdict: stepWarning, object: v.Name, observed: "no worker has " + listed(without, 8),
				mend: fmt.Sprintf("look again after %v: if it is still so, see the workers' logs for \"partition\" and start another", 2*e.nats.LeaseTTL),
			})
		}
	}
	return orFine(found, "each of %d has a worker", all)
}

func judgeFolded(e *evidence) []symptom {
	if e.recordsErr != nil {
		return one(stepSkipped, "", "the records of vendors cannot be read")
	}
	var found []symptom
	for _, v := range e.nats.Vendors {
		if s, stopped := e.stopped[v.Name]; stopped {
			found = append(found, symptom{
				verdict: stepWarning, object: v.Name, observed: fmt.Sprintf("stopped %s by %s: %s", ago(s.At, e.now), s.By, s.Why),
				mend: fmt.Sprintf("once that is mended: `usagebridge vendors resume %s --why …`", v.Name),
			})
		}
	}
	return orFine(found, "no vendor is stopped")
}

func judgeLag(e *evidence) []symptom {
	var found []symptom
	var waiting uint64
	for n := range e.nats.Vendors {
		v := &e.nats.Vendors[n]
		if v.Err != nil {
			found = append(found, symptom{verdict: stepFailed, object: v.Name, observed: v.Err.Error(), mend: "mend the streams and the permissions above first"})
			continue
		}
		behind, oldest := backlogOf(v)
		waiting += behind
		if oldest.IsZero() {
			continue
		}
		if f, bad := judgeAge(e, v.Name, behind, e.now.Sub(oldest)); bad {
			found = append(found, f)
		}
	}
	return orFine(found, "%s", plural(int(waiting), "event waits", "events wait"))
}

// backlogOf sums up what waits in a vendor's partitions.
func backlogOf(v *broker.VendorFacts) (behind uint64, oldest time.Time) {
	for _, p := range v.Partitions {
		behind += p.Pending + uint64(max(p.AckPending, 0))
		if !p.Oldest.IsZero() && (oldest.IsZero() || p.Oldest.Before(oldest)) {
			oldest = p.Oldest
		}
	}
	return behind, oldest
}

func judgeAge(e *evidence, vendor string, behind uint64, age time.Duration) (f symptom, bad bool) {
	_, stopped := e.stopped[vendor]
	f = symptom{
		object:   vendor,
		observed: fmt.Sprintf("%s, the oldest for %v", plural(int(behind), "event waits", "events wait"), age.Round(time.Second)),
		mend:     "see the workers' logs and metrics; more workers share a vendor's partitions, up to their number",
	}
	switch {
	case stopped:
		f.mend = fmt.Sprintf("`usagebridge vendors resume %s --why …`", vendor)
	case len(e.nats.Members) == 0:
		f.mend = "`usagebridge run`, wherever the worker belongs"
	}
	keep := keptFor(e, vendor)
	switch {
	case keep > 0 && float64(age) > nearlyFull*float64(keep):
		f.verdict = stepFailed
		f.observed += fmt.Sprintf(": the log keeps events for %s alone", span(keep))
	case age > lagFailing && !stopped:
		f.verdict = stepFailed
	case age > lagWarning:
		f.verdict = stepWarning
	}
	return f, f.verdict != ""
}

// keptFor is how long the log of a vendor keeps its events.
func keptFor(e *evidence, vendor string) time.Duration {
	at := slices.IndexFunc(e.nats.Streams, func(s broker.StreamFacts) bool { return s.Name == broker.EventsStream(vendor) })
	if at < 0 {
		return 0
	}
	return e.nats.Streams[at].MaxAge
}

func judgeRedelivered(e *evidence) []symptom {
	var found []symptom
	for _, v := range e.nats.Vendors {
		redelivered := 0
		var near []string
		for _, p := range v.Partitions {
			redelivered += p.Redelivered
			if p.MaxAckPending > 0 && float64(p.AckPending) >= nearlyFull*float64(p.MaxAckPending) {
				near = append(near, fmt.Sprintf("p%d (%d of %d)", p.Partition, p.AckPending, p.MaxAckPending))
			}
		}
		if len(near) > 0 {
			found = append(found, symptom{
				verdict: stepFailed, object: v.Name, observed: "nearly as many events are delivered and not acknowledged as may be: " + listed(near, 4),
				mend: "see the workers' logs for what keeps them from writing to the ledger",
			})
		}
		if redelivered > 0 {
			found = append(found, symptom{
				verdict: stepWarning, object: v.Name, observed: plural(redelivered, "event was", "events were") + " delivered more than once and still not acknowledged",
				mend: "after a restart it passes within a minute: look again; else see the workers' logs",
			})
		}
	}
	return orFine(found, "none")
}

func judgeLedger(e *evidence) []symptom {
	var found []symptom
	for _, v := range e.nats.Vendors {
		if v.LedgerErr != nil {
			found = append(found, symptom{
				verdict: stepFailed, object: v.Name, observed: v.LedgerErr.Error(),
				mend: "run the version that wrote it, or a newer one (this is " + version() + ")",
			})
		}
	}
	switch {
	case e.syncErr == nil || len(found) > 0:
	case e.recordsErr != nil || missing(e):
		return one(stepSkipped, "", "streams are missing or cannot be read")
	case errors.Is(e.syncErr, context.DeadlineExceeded):
		return one(stepWarning, "look at it by vendor, with --vendor", "the ledgers could not be read within %v", ledgerPatience)
	default:
		return one(stepFailed, "run the version that wrote it, or a newer one (this is "+version()+")", "%v", e.syncErr)
	}
	return orFine(found, "readable")
}

// missing says that init has something to make.
func missing(e *evidence) bool {
	return slices.ContainsFunc(e.nats.Streams, func(s broker.StreamFacts) bool { return s.Missing })
}

func judgeLetters(e *evidence) []symptom {
	var found []symptom
	for _, v := range e.nats.Vendors {
		if v.DeadLetters > 0 {
			found = append(found, symptom{
				verdict: stepWarning, object: v.Name, observed: plural(int(v.DeadLetters), "dead letter", "dead letters"),
				mend: fmt.Sprintf("`usagebridge dlq ls --vendor %s`; they are kept for 90 days", v.Name),
			})
		}
	}
	return orFine(found, "none")
}

func judgeActivity(e *evidence) []symptom {
	found := make([]symptom, 0, len(e.nats.Vendors))
	for n := range e.nats.Vendors {
		v := &e.nats.Vendors[n]
		received := time.Time{}
		for at := range e.nats.Streams {
			if s := &e.nats.Streams[at]; s.Name == broker.EventsStream(v.Name) {
				received = s.Last
			}
		}
		found = append(found, symptom{verdict: stepOK, object: v.Name, observed: fmt.Sprintf("event received %s, ledger written %s, partner called %s",
			ago(received, e.now), ago(v.LastFold, e.now), ago(v.LastCall, e.now))})
	}
	return found
}
