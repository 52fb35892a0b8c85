package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// tellWorkers says what the workers need.
func (p *capacityPlan) tellWorkers() {
	n := p.d.Workers
	load, missing := p.load(p.spread, n), p.load(p.survived, n-1)
	p.add("workers", "workers", "workers", float64(n))
	p.add("cores", "processor that all workers use at the peak", "cores", p.busy(1, p.spread.Partition, float64(p.d.Partitions*p.d.Vendors)))
	p.add("worker-busy", "busiest worker at the peak", "%", 100*load)
	p.add("worker-busy-one-missing", "the same with one worker missing", "%", 100*missing)
	p.add("partitions", "partitions of a vendor", "partitions", float64(p.d.Partitions))
	p.add("partition-share", "busiest partition, of all events (19 of 20 draws are below)", "%", 100*p.spread.PartitionHigh)
	limit := p.partitionLimit(p.spread.PartitionHigh)
	busiest := p.d.Events * p.spread.PartitionHigh
	p.add("partition-events", "events of the busiest partition", "events/s", busiest)
	p.add("partition-limit", "events that one partition folds", "events/s", limit)
	p.add("memory", "memory of the largest worker, every partition lagging", "bytes", p.need(p.spread, n))
	p.add("memory-one-missing", "the same with one worker missing", "bytes", p.need(p.survived, n-1))
	if n == 1 {
		p.say("workers", max(load, mostBusy+0.01), fmt.Sprintf("one worker is %s busy at the peak; when it dies, nothing works until another one is started", percent(load)))
	} else {
		p.say("workers", max(load, missing*mostBusy), fmt.Sprintf("%d workers of %s cores are at most %s busy at the peak, and %s when one is missing", n, trimmed(p.d.Cores), percent(load), percent(missing)))
	}
	p.say("memory", p.need(p.survived, n-1)/float64(p.d.Memory), fmt.Sprintf("the largest worker needs %s, and %s when one is missing; each has %s",
		bytesText(p.need(p.spread, n)), bytesText(p.need(p.survived, n-1)), bytesText(float64(p.d.Memory))))
	p.say("partitions", max(busiest/limit, float64(n)/float64(p.d.Partitions*p.d.Vendors)), fmt.Sprintf("%d partitions a vendor: the busiest has %s events/s of the %s that one partition folds; at most %d workers can share them",
		p.d.Partitions, count(busiest), count(limit), p.d.Partitions*p.d.Vendors))
}

// tellStore says what NATS needs.
func (p *capacityPlan) tellStore() {
	event, entry, call := p.storedBytes()
	_, calls := p.behind()
	keys := float64(p.d.Integrations) * float64(p.d.Keys)
	events := p.d.Mean * keptEvents.Seconds() * event
	p.add("nats-cores", "processor of a NATS server that leads every stream", "cores", p.serverCores(p.spread.Partition))
	p.add("storage-events", "35 days of events, each copy", "bytes", events)
	p.add("storage-ledger", "ledger, each copy, before compaction up to twice", "bytes", 2*keys*entry)
	history := min(syncLogBound/call/calls, keptCalls.Seconds())
	p.add("storage-synclog", "sync log, each copy", "bytes", min(history*calls*call, syncLogBound))
	p.add("synclog-history", "time that the sync log reaches back", "s", history)
	in, out := p.storeLimits()
	each := p.d.Events / float64(p.d.Vendors)
	p.add("publish-limit", "events that one log takes, measured with one copy", "events/s", in)
	p.add("fetch-limit", "events that one log hands out", "events/s", out)
	how := "flushed later"
	if p.d.Sync {
		how = "each on the disk first"
	}
	if math.IsInf(in, 1) {
		p.say("publish", 1, "how many events a log takes with sync_interval: always is not in these costs (row publish-synced)")
	} else {
		text := fmt.Sprintf("a server like the measured one takes %s events/s (%s); %s/s come at the peak", count(in), how, count(p.d.Events))
		if p.d.Replicas > 1 {
			text += "; that was measured with one copy, and three take longer"
		}
		p.say("publish", p.d.Events/in, text)
	}
	p.say("fetch", each/out, fmt.Sprintf("a server hands out %s events/s of one vendor's log; %s/s are needed", count(out), count(each)))
	p.say("storage", mostBusy, fmt.Sprintf("%s %s: without `init --max-bytes` only the disk is the bound; with it publishing is refused beyond it, so give each vendor at least %s",
		bytesText(events+2*keys*entry+syncLogBound), copies(p.d.Replicas), bytesText(1.3*events/float64(p.d.Vendors))))
	p.say("synclog", mostBusy*3600/max(history, 1), fmt.Sprintf("the sync log is bounded to 1 GiB: it reaches back %s at the peak (`sync log`, `statement` of the past)", timeText(history)))
}

// tellCalls says what the partner must take.
func (p *capacityPlan) tellCalls() {
	never, calls := p.behind()
	allowed := p.ceiling() * float64(p.d.Integrations)
	p.add("calls", "calls to the partner", "calls/s", calls)
	p.add("calls-allowed", "calls that the limits allow", "calls/s", allowed)
	p.add("calls-per-event", "calls for an event", "calls", calls/p.d.Events)
	p.add("integrations-behind", "integrations that would never catch up", "integrations", float64(never))
	text := fmt.Sprintf("%s/s × %d integrations allow %s/s; %s/s are needed", count(p.ceiling()), p.d.Integrations, count(allowed), count(calls))
	largest := p.calls() * p.size(integrationWeights(p.d.Integrations, p.d.Skew)[0]) / p.ceiling()
	if never > 0 {
		text += fmt.Sprintf("; %d integrations change more keys than they may call for and never catch up: raise their rate, or LINGER", never)
	}
	p.say("calls", largest, text)
}

// tellDrains simulates both outages.
func (p *capacityPlan) tellDrains() {
	l, outage := p.draw(), timeText(p.d.Outage)
	for _, c := range []struct {
		id, whose string
		ofPartner bool
	}{{"drain-partner", "partner", true}, {"drain-bridge", "bridge", false}} {
		r := p.drain(l, p.d.Workers, c.ofPartner)
		p.add(c.id, "after "+outage+" without the "+c.whose+": until every figure is there", "s", r.All)
		if !c.ofPartner {
			p.add(c.id+"-fold", "of that until the log is folded", "s", r.Fold)
		}
		p.add(c.id+"-formula", "the same by formula", "s", r.Formula)
		p.add(c.id+"-keys", "keys that have changed by then", "keys", r.Keys)
		p.add(c.id+"-calls", "calls made until then", "calls", r.Calls)
		text := fmt.Sprintf("after %s without the %s every figure is right again in %s, with %s calls for %s changed keys", outage, c.whose, timeText(r.All), count(r.Calls), count(r.Keys))
		if math.IsInf(r.All, 1) {
			text = fmt.Sprintf("after %s without the %s the backlog never ends: as much comes as can be done", outage, c.whose)
		}
		p.say(c.id, mostBusy*r.All/max(p.d.Outage, 1), text)
	}
}

// tellTimes says how fast things are when nothing is wrong, and when a worker dies.
func (p *capacityPlan) tellTimes() {
	keys := p.spread.WorkerHigh * float64(p.d.Integrations) * float64(p.d.Keys)
	each := keys / float64(max(p.d.Workers-1, 1))
	if p.d.Workers == 1 {
		each = keys
	}
	over := p.d.LeaseTTL + each*p.c.Load/1e6
	typical, most := p.latency(p.spread.Partition)
	p.add("take-over", "after a worker's death, until its partitions go on", "s", over)
	p.add("latency", "from an event to the partner's answer, typically", "s", typical)
	p.add("latency-most", "the same, 999 of 1000", "s", most)
	p.say("take-over", mostBusy*over/60, fmt.Sprintf("when a worker dies, its partitions go on within %s (lease %s, then %s keys to load for each survivor)", timeText(over), timeText(p.d.LeaseTTL), count(each)))
	if math.IsInf(typical, 1) {
		p.say("latency", math.Inf(1), "the delay grows without end: more calls are needed than the limits allow")
		return
	}
	p.say("latency", mostBusy*most/5, fmt.Sprintf("a change is at the partner after %s, 999 of 1000 within %s (LINGER %s)", timeText(typical), timeText(most), timeText(p.d.Linger)))
}

// tellHeadroom says by what factor events may grow until the first limit.
func (p *capacityPlan) tellHeadroom() {
	in, out := p.storeLimits()
	largest := p.calls() * p.size(integrationWeights(p.d.Integrations, p.d.Skew)[0])
	room, first := math.Inf(1), ""
	for _, limit := range []struct {
		name   string
		factor float64
	}{
		{"the workers' processors", 1 / p.load(p.spread, p.d.Workers)},
		{"the busiest partition", p.partitionLimit(p.spread.PartitionHigh) / (p.d.Events * p.spread.PartitionHigh)},
		{"what a log takes", in / p.d.Events},
		{"what a log hands out", out * float64(p.d.Vendors) / p.d.Events},
		{"the rate limit of the largest integration", p.ceiling() / largest},
	} {
		if limit.factor < room {
			room, first = limit.factor, limit.name
		}
	}
	p.add("headroom", "events at the first limit, of those at the peak", "×", room)
	p.say("headroom", 1/room, fmt.Sprintf("the first limit is %s, at %s times the peak", first, strconv.FormatFloat(significant(room, 2), 'f', -1, 64)))
}

func copies(n int) string {
	if n == 1 {
		return "in one copy"
	}
	return fmt.Sprintf("in each of %d copies", n)
}

// figure is the row's figure for people.
func (r *capacityRow) figure() string {
	if r.Figure == nil {
		return "without end"
	}
	switch x := *r.Figure; r.Unit {
	case "s":
		return timeText(x)
	case "bytes":
		return bytesText(x)
	case "%", "×":
		return strconv.FormatFloat(significant(x, 2), 'f', -1, 64) + " " + r.Unit
	default:
		return count(x) + " " + r.Unit
	}
}

// count is a number with two digits that mean something and, above a thousand,
// with its thousands apart.
func count(x float64) string {
	if math.IsInf(x, 0) {
		return "any number of"
	}
	if x < 1000 {
		return strconv.FormatFloat(significant(x, 3), 'f', -1, 64)
	}
	text := strconv.FormatFloat(significant(x, 3), 'f', 0, 64)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func percent(share float64) string {
	return strconv.FormatFloat(significant(100*share, 2), 'f', -1, 64) + " %"
}

// timeText is a duration in seconds for people.
func timeText(seconds float64) string {
	if math.IsInf(seconds, 0) || seconds > 1e9 {
		return "without end"
	}
	d := time.Duration(significant(seconds, 3) * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return strconv.FormatFloat(significant(d.Hours()/24, 3), 'f', -1, 64) + " days"
	case d >= time.Minute:
		return wholeUnits(d.Round(time.Second))
	}
	return d.Round(time.Millisecond).String()
}

// wholeUnits is 4h instead of 4h0m0s.
func wholeUnits(d time.Duration) string {
	var text strings.Builder
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / unit.size; n > 0 {
			text.WriteString(strconv.Itoa(int(n)) + unit.name)
			d %= unit.size
		}
	}
	return text.String()
}

// bytesText is a size for people, in binary units.
func bytesText(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for ; n >= 1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	return strconv.FormatFloat(significant(n, 3), 'f', -1, 64) + " " + units[i]
}
