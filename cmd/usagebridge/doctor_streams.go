package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

// eventsHorizon is how long a publisher may go on repeating an event and have
// it stored once.
const eventsHorizon = 30 * time.Minute

// peerLag is how many operations a follower may be behind in passing.
const peerLag = 1000

func streamChecks() []check {
	return []check{
		{
			id: "streams.present", title: "streams and buckets", needs: needStreams,
			why:   "A worker never makes a stream: what needs a missing one fails until somebody has run init.",
			judge: judgePresent,
		},
		{
			id: "streams.settings", title: "stream settings", needs: needTopology,
			why:   "Retention, limits and denied deletes are what keeps figures from being lost or stored twice.",
			judge: judgeSettings,
		},
		{
			id: "streams.room", title: "room in streams", needs: needTopology,
			why:   "A stream at its bound refuses to store more: publishing fails, or figures cannot be recorded.",
			judge: judgeRoom,
		},
		{
			id: "streams.replicas", title: "replicas", needs: needTopology,
			why:   "A stream with one replica is gone with its server, and one whose followers lag has no spare either.",
			judge: judgeReplicas,
		},
		{
			id: "streams.retention", title: "retention", needs: needTopology,
			why:   "The log must keep events for as long as they may come late: statements and replays fold it again.",
			judge: judgeRetention,
		},
		{
			id: "streams.duplicates", title: "duplicate window", needs: needTopology,
			why:   "A publisher that repeats an event later than this has it stored twice, which costs room and a fold each time.",
			judge: judgeDuplicates,
		},
	}
}

// needStreams is for what can be missing as a whole.
func needStreams(e *evidence) string {
	if reason := needServer(e); reason != "" {
		return reason
	}
	if e.nats.AccountErr != nil {
		return "JetStream does not answer"
	}
	return ""
}

func initCommand(vendor string) string { return "`usagebridge init --vendor " + vendor + "`" }

func judgePresent(e *evidence) []symptom {
	var found []symptom
	for _, vendor := range e.nats.Orphans {
		found = append(found, symptom{
			verdict: stepFailed, object: broker.EventsStream(vendor), observed: "the vendor has a ledger, and its log of events is gone",
			mend: "restore the stream from a backup; " + initCommand(vendor) + " (same --partitions) makes an empty one, and its events are lost",
		})
	}
	for n := range e.nats.Streams {
		if s := &e.nats.Streams[n]; s.Missing {
			found = append(found, symptom{verdict: stepFailed, object: s.Name, observed: s.Kind + " is missing", mend: initCommand(s.Vendor)})
		}
	}
	if err := e.nats.TopologyErr; err != nil && len(e.nats.Orphans) == 0 {
		mend := "see the permissions and the servers above"
		if e.vendor != "" && len(e.nats.Vendors) == 0 {
			mend = initCommand(e.vendor) + ", or look for the right name with `usagebridge vendors ls`"
		}
		found = append(found, symptom{verdict: stepFailed, observed: err.Error(), mend: mend})
	}
	if len(found) == 0 && len(e.nats.Vendors) == 0 {
		return one(stepFailed, "`usagebridge init --vendor NAME`", "no vendor is set up")
	}
	return orFine(found, "%d, of %s", len(e.nats.Streams), plural(len(e.nats.Vendors), "vendor", "vendors"))
}

func judgeSettings(e *evidence) []symptom {
	var found []symptom
	good := 0
	for n := range e.nats.Streams {
		s := &e.nats.Streams[n]
		if !s.Missing && len(s.Differences) == 0 {
			good++
		}
		found = append(found, drifted(s.Kind, s.Name, s.Vendor, s.Differences)...)
	}
	for _, v := range e.nats.Vendors {
		found = append(found, drifted("consumers", broker.EventsStream(v.Name), v.Name, v.Consumers)...)
	}
	return orFine(found, "%s as init makes them", plural(good, "stream and its consumers are", "streams and their consumers are"))
}

// drifted says in one symptom what init mends, and in another what it does not.
func drifted(kind, name, vendor string, all []broker.Difference) []symptom {
	var mendable, not []string
	for _, d := range all {
		if d.Mendable {
			mendable = append(mendable, d.Text)
		} else {
			not = append(not, d.Text)
		}
	}
	var found []symptom
	if len(mendable) > 0 {
		found = append(found, symptom{verdict: stepFailed, object: name, observed: listed(mendable, 4), mend: initCommand(vendor)})
	}
	if len(not) > 0 {
		found = append(found, symptom{verdict: stepFailed, object: name, observed: listed(not, 4), mend: editCommand(kind, name, not)})
	}
	return found
}

// editCommand is how a person changes what init leaves alone.
func editCommand(kind, name string, differences []string) string {
	for _, d := range differences {
		for _, fixed := range []string{"subjects ", "subject_transform ", "partitions "} {
			if strings.HasPrefix(d, fixed) {
				return "it decides where entries are and can only be set when a stream is made: set up another vendor, or restore the stream"
			}
		}
	}
	switch kind {
	case "bucket":
		return "init leaves it, as changing it may lose data; find out who changed it, then `nats stream edit KV_" + name + "`"
	case "consumers":
		return "init leaves it; stop the workers, then `nats consumer edit " + name + "` for each partition named"
	}
	return "init leaves it, as changing it may lose data; find out who changed it, then `nats stream edit " + name + "`"
}

func judgeRoom(e *evidence) []symptom {
	var found []symptom
	bounded := 0
	for n := range e.nats.Streams {
		s := &e.nats.Streams[n]
		if !s.Refuses || s.MaxBytes == 0 {
			continue // nothing is refused, or the account's limit is what counts
		}
		bounded++
		share := float64(s.Bytes) / float64(s.MaxBytes)
		v := fullness(share)
		if v == stepOK {
			continue
		}
		mend := fmt.Sprintf("`nats stream edit %s --max-bytes %d`", streamOf(s), 2*s.MaxBytes)
		if s.Name == broker.EventsStream(s.Vendor) {
			mend = fmt.Sprintf("`usagebridge init --vendor %s --max-bytes %d`, if the disk has that much", s.Vendor, 2*s.MaxBytes)
		}
		found = append(found, symptom{
			verdict: v, object: s.Name, mend: mend,
			observed: fmt.Sprintf("%s of %s used (%.0f %%)", byteSize(s.Bytes), byteSize(s.MaxBytes), 100*share),
		})
	}
	if bounded == 0 {
		return one(stepOK, "", "no stream that would refuse has a bound of its own")
	}
	return orFine(found, "%s below %.0f %%", plural(bounded, "bounded stream is", "bounded streams are"), 100*nearlyFull)
}

func streamOf(s *broker.StreamFacts) string {
	if s.Kind == "bucket" {
		return "KV_" + s.Name
	}
	return s.Name
}

func judgeReplicas(e *evidence) []symptom {
	var single []string
	var found []symptom
	present, clustered := 0, false
	for n := range e.nats.Streams {
		s := &e.nats.Streams[n]
		if s.Missing {
			continue
		}
		present++
		if s.Cluster == "" {
			continue
		}
		clustered = true
		if s.Replicas == 1 {
			single = append(single, s.Name)
		}
		if f, bad := judgePeers(s); bad {
			found = append(found, f)
		}
	}
	if !clustered {
		return one(stepOK, "", "1 of everything, on a single server")
	}
	if len(single) > 0 {
		found = append(found, symptom{
			verdict: stepWarning, observed: fmt.Sprintf("1 replica, on a cluster, of %s", listed(single, 4)),
			mend: "for each vendor: `usagebridge init --vendor " + e.nats.Streams[0].Vendor + " --replicas 3`",
		})
	}
	return orFine(found, "%s with a leader and followers that are up to date", plural(present, "stream", "streams"))
}

// judgePeers judges the servers that have a stream.
func judgePeers(s *broker.StreamFacts) (f symptom, bad bool) {
	f = symptom{object: s.Name, mend: "bring the servers named back; `nats server report jetstream` shows how they stand"}
	if s.Leader == "" {
		f.verdict, f.observed = stepFailed, "it has no leader: nothing can be stored or read"
		return f, true
	}
	var offline, behind []string
	for _, p := range s.Peers {
		switch {
		case p.Offline:
			offline = append(offline, p.Name)
		case !p.Current || p.Lag > peerLag:
			behind = append(behind, fmt.Sprintf("%s (%d behind)", p.Name, p.Lag))
		}
	}
	var parts []string
	if len(offline) > 0 {
		parts = append(parts, "offline: "+strings.Join(offline, ", "))
	}
	if len(behind) > 0 {
		parts = append(parts, "not up to date: "+strings.Join(behind, ", "))
	}
	if len(parts) == 0 {
		return f, false
	}
	f.verdict, f.observed = stepWarning, strings.Join(parts, "; ")
	if 2*len(offline) >= s.Replicas {
		f.verdict = stepFailed // no majority is left
	}
	return f, true
}

func judgeRetention(e *evidence) []symptom {
	var found []symptom
	shortest := time.Duration(0)
	for n := range e.nats.Streams {
		s := &e.nats.Streams[n]
		if s.Missing || s.MaxAge == 0 || s.Name != broker.EventsStream(s.Vendor) {
			continue
		}
		if shortest == 0 || s.MaxAge < shortest {
			shortest = s.MaxAge
		}
		if late := e.config.TooOld; late == 0 || late > s.MaxAge {
			word := "without limit"
			if late > 0 {
				word = "up to " + span(late)
			}
			found = append(found, symptom{
				verdict: stepWarning, object: s.Name,
				observed: fmt.Sprintf("events may come late %s (TOO_OLD), and the log keeps them for %s", word, span(s.MaxAge)),
				mend:     fmt.Sprintf("set %s_TOO_OLD to %s or less", envPrefix, durationSetting(s.MaxAge)),
			})
		}
	}
	return orFine(found, "events are kept for %s and may be late by %s", span(shortest), span(e.config.TooOld))
}

func judgeDuplicates(e *evidence) []symptom {
	var found []symptom
	for n := range e.nats.Streams {
		s := &e.nats.Streams[n]
		if !s.Missing && s.Name == broker.EventsStream(s.Vendor) && s.Duplicates < eventsHorizon {
			found = append(found, symptom{
				verdict: stepWarning, object: s.Name, observed: fmt.Sprintf("a repeat is known for %s", span(s.Duplicates)), mend: initCommand(s.Vendor),
			})
		}
	}
	return orFine(found, "repeats are known for at least %s", span(eventsHorizon))
}
