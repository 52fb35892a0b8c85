package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
)

// builtInCosts is what "usagebridge bench --json" printed on two cores of a
// virtual machine that other programs used as well: rather too high than too
// low. deploy/capacity.md says how to measure one's own.
//
//go:embed capacity_costs.json
var builtInCosts []byte

// What the benchmark does not measure, because the server and the worker share
// its process or because it does not depend on the machine. deploy/capacity.md
// says how each was found.
const (
	// natsShare is the part of an event's processor time that the server
	// takes. The remainder is the worker's.
	natsShare = 0.62
	// workerBase is the resident memory of a worker without keys, garbage
	// included.
	workerBase = 86 << 20
	// laneBytes is what an integration takes beside its keys: a lane, its
	// calls under way and their connections.
	laneBytes = 64 << 10
	// storedEvent is what an event takes in the log beside its body: subject
	// and the server's own, and a header with the event's id.
	storedEvent = 92 + 108
	// storedRecord is what an entry of the ledger, or a line of the sync log,
	// takes beside its content.
	storedRecord = 110
)

// capacityCosts is what things cost on one kind of machine.
type capacityCosts struct {
	Source    string  `json:"source"`
	CPUs      int     `json:"cpus"`
	Event     float64 `json:"event_us"`          // processor time of an event, its write apart
	Write     float64 `json:"write_us"`          // of an entry that is written
	Call      float64 `json:"call_us"`           // of a call, recorded
	NATSShare float64 `json:"nats_share"`        // of the processor time of events
	Publish   float64 `json:"publish_per_s"`     // events a second that one server stores in one log
	Fetch     float64 `json:"fetch_per_s"`       // events a second that one server hands out of one log
	Synced    float64 `json:"synced_share"`      // of the fold's speed that is left with sync_interval: always
	Published float64 `json:"published_share"`   // the same of publishing; 0: not measured
	Key       float64 `json:"key_bytes"`         // memory of a key
	Load      float64 `json:"load_us"`           // time to load a key at a take-over
	Idle      float64 `json:"idle_us_partition"` // processor time that a second costs in an idle partition
}

// loadCosts reads the costs of a file that the benchmark has written; without
// a name the built-in ones.
func loadCosts(path string) (capacityCosts, error) {
	if path == "" {
		return readCosts(builtInCosts, "built in")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return capacityCosts{}, usagef("--costs: %w: want a file that `usagebridge bench --json` has written", err)
	}
	costs, err := readCosts(data, path)
	if err != nil {
		return capacityCosts{}, usagef("--costs %s: %w", path, err)
	}
	return costs, nil
}

// readCosts derives the costs from a report.
func readCosts(data []byte, source string) (c capacityCosts, err error) {
	var report benchReport
	if err := json.Unmarshal(data, &report); err != nil {
		return c, fmt.Errorf("want what `usagebridge bench --json` prints: %w", err)
	}
	rows, missing := map[string]benchRow{}, []string{}
	for _, id := range []string{"publish", "fetch", "fold", "fold-synced", "http", "calls", "idle", "cost-few", "cost-spread", "take-over", "memory"} {
		row := report.row(id)
		if row == nil || row.Figure <= 0 {
			missing = append(missing, id)
			continue
		}
		rows[id] = *row
	}
	if len(missing) > 0 {
		return c, fmt.Errorf("no row %s: want the whole report of `usagebridge bench --json`", strings.Join(missing, ", "))
	}
	for id, ok := range map[string]bool{
		"cost-few": rows["cost-few"].Writes > 0, "cost-spread": rows["cost-spread"].Writes > rows["cost-few"].Writes,
		"calls": rows["calls"].CPU > 0, "take-over": rows["take-over"].Keys > 0, "memory": rows["memory"].Keys > 0,
	} {
		if !ok {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return c, fmt.Errorf("row %s lacks cpu_us, keys or writes_per_event, or its figures contradict another row's: measure again with this version", missing[0])
	}
	return deriveCosts(&report, rows, source), nil
}

// deriveCosts solves the rows for the single costs. Two loads that differ in
// how many entries are written for an event tell the event from the write.
func deriveCosts(report *benchReport, rows map[string]benchRow, source string) capacityCosts {
	few, spread := rows["cost-few"], rows["cost-spread"]
	c := capacityCosts{
		Source: source, CPUs: report.CPUs, NATSShare: natsShare,
		Publish: rows["publish"].Figure, Fetch: rows["fetch"].Figure,
		Synced: min(rows["fold-synced"].Figure/rows["fold"].Figure, 1),
		Load:   1e6 * rows["take-over"].Figure / float64(rows["take-over"].Keys),
		Idle:   1e4 * rows["idle"].Figure / float64(max(report.Load.Partitions, 1)),
	}
	c.Write = max((spread.Figure-few.Figure)/(spread.Writes-few.Writes), 0)
	c.Event = max(few.Figure-c.Write*few.Writes, 1)
	c.Key = max(rows["memory"].Figure-workerBase/float64(rows["memory"].Keys), 100)
	// The partner's half of the bare exchange is not ours.
	c.Call = max(rows["calls"].CPU-rows["http"].CPU/2, 1)
	if synced := report.row("publish-synced"); synced != nil {
		c.Published = min(synced.Figure/c.Publish, 1)
	}
	return c
}

// fold is the processor time of an event, in µs, of the worker and the server,
// when so many entries are written for each.
func (c *capacityCosts) fold(writes float64) float64 { return c.Event + c.Write*writes }

// significant rounds to so many digits: the model knows no more.
func significant(x float64, digits int) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	unit := math.Pow(10, float64(digits)-1-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*unit) / unit
}
