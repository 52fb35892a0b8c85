package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

var nats = board{
	name:  "nats",
	title: "usagebridge: NATS and partitions",
	description: "Is there room in the streams, is what they keep young enough, does the fold keep up, and do partitions always have a worker? " +
		"What only the servers know (disks, elections, connections) is for the metrics of NATS itself.",
	span: "now-6h",
	variables: []cog.Builder[dashboard.VariableModel]{
		chooseSource(),
		chooseMany("vendor", "Vendor", "usagebridge_partition_owned"),
		chooseMany("stream", "Stream", "usagebridge_stream_bytes"),
	},
	rows: []row{
		{"Right now", 4, natsNow},
		{"Is there room, and for how long?", 8, natsRoom},
		{"Does the fold keep up?", 8, natsFold},
		{"Does every partition have a worker?", 8, natsLeases},
		{"What does the doctor find?", 9, natsDoctor},
	},
}

const unlimited = "no limit is set"

var natsNow = []panel{
	{
		kind: number, width: 4, title: "Fullest stream", unit: share, levels: []level{{color: good}, {0.7, warn}, {0.9, bad}}, empty: unlimited,
		asks:   "Which share of its limit has the stream that is nearest to it?",
		normal: "Below 70 %. A full stream of events takes nothing more: publishers are refused, and their figures exist nowhere else.",
		next:   "Share of the limit, by stream; `usagebridge doctor` says what mends it.",
		queries: []query{{expr: `max(max by (stream) (usagebridge_stream_bytes{stream=~"$stream"})` +
			` / (max by (stream) (usagebridge_stream_limit_bytes{stream=~"$stream"}) > 0))`}},
	},
	{
		kind: number, width: 4, title: "Not folded yet", unit: count, empty: unscraped,
		asks:    "How many messages lie in the log and are not acknowledged?",
		normal:  "Near 0, or falling after a burst. What is many depends on the vendor: judge it by the slope below.",
		next:    "Does the fold keep up?",
		queries: []query{{expr: `sum(usagebridge_consumer_pending{vendor=~"$vendor"})`}},
	},
	{
		kind: number, width: 4, title: "Partitions unowned", unit: count, levels: above(1, bad), empty: unscraped,
		asks:    "How many partitions does no worker work on?",
		normal:  "0, but for seconds while workers come and go.",
		next:    "Does every partition have a worker?",
		queries: []query{{expr: `sum(max by (vendor) (usagebridge_partitions{vendor=~"$vendor"})) - sum(usagebridge_partition_owned{vendor=~"$vendor"})`}},
	},
	{
		kind: number, width: 4, title: "Partition faults", unit: count, levels: above(1, bad), empty: unscraped,
		asks:    "How many partitions can a worker not work on although nobody else does?",
		normal:  "0.",
		next:    "The logs of the worker say what it could not read; `usagebridge doctor`.",
		queries: []query{{expr: `sum(usagebridge_partition_faults{vendor=~"$vendor"})`}},
	},
	{
		kind: number, width: 4, title: "Doctor: errors", unit: count, levels: above(1, bad), empty: unscraped,
		asks:    "How many checks of `usagebridge doctor` fail?",
		normal:  "0.",
		next:    "What does the doctor find?",
		queries: []query{{expr: `count(max by (check) (usagebridge_doctor_findings{severity="error"})) or 0 * max(usagebridge_workers)`}},
	},
	{
		kind: number, width: 4, title: "Doctor: warnings", unit: count, levels: above(1, warn), empty: unscraped,
		asks:    "How many checks of `usagebridge doctor` warn?",
		normal:  "0. A warning hurts on a bad day: one replica, or a disk that is not synced.",
		next:    "What does the doctor find?",
		queries: []query{{expr: `count(max by (check) (usagebridge_doctor_findings{severity="warning"})) or 0 * max(usagebridge_workers)`}},
	},
}

var natsRoom = []panel{
	{
		kind: lines, width: 6, title: "Size, share of the limit", unit: share, levels: []level{{color: good}, {0.7, warn}, {0.9, bad}}, empty: unlimited,
		asks:   "How full is each stream and bucket that has a limit?",
		normal: "Below the first mark (70 %). Streams of calls (SYNCLOG) drop their oldest when full; those of events refuse what is new.",
		next:   "Share when the retention is reached: does it still grow? `usagebridge capacity` reckons what is needed.",
		queries: []query{{`max by (stream) (usagebridge_stream_bytes{stream=~"$stream"})` +
			` / (max by (stream) (usagebridge_stream_limit_bytes{stream=~"$stream"}) > 0)`, "{{stream}}"}},
	},
	{
		kind: lines, width: 6, title: "Share when the retention is reached", unit: share, levels: []level{{color: good}, {1, bad}}, empty: "no stream has both limits",
		asks: "Will a stream fit when it is as old as it may become, if it goes on as it did so far? Size times age allowed by age; what is younger than an hour counts as an hour old.",
		normal: "Below the mark. Above it the stream is full before its oldest message leaves; early on this swings, " +
			"and one busy day at the beginning weighs much.",
		next: "Give the stream more room, or keep less: `usagebridge capacity`.",
		queries: []query{{`max by (stream) (usagebridge_stream_bytes{stream=~"$stream"})` +
			` * (max by (stream) (usagebridge_stream_max_age_seconds{stream=~"$stream"}) > 0)` +
			` / clamp_min(max by (stream) (usagebridge_stream_oldest_age_seconds{stream=~"$stream"}), 3600)` +
			` / (max by (stream) (usagebridge_stream_limit_bytes{stream=~"$stream"}) > 0)`, "{{stream}}"}},
	},
	{
		kind: lines, width: 6, title: "Size", unit: octets,
		asks:    "How large is each stream and bucket?",
		normal:  "Growing until the retention is reached, flat from then on. A ledger grows with its keys, not with its events.",
		next:    "Room on the disks of the NATS servers.",
		queries: []query{{`max by (stream) (usagebridge_stream_bytes{stream=~"$stream"})`, "{{stream}}"}},
	},
	{
		kind: lines, width: 6, title: "Oldest message, share of the retention", unit: share, empty: "no stream has a retention",
		asks: "How old is the oldest message of each stream, against the age at which it leaves?",
		normal: "Climbing to 100 % and staying there: full history. A fall: messages left early, or the stream was made anew. " +
			"Messages not folded yet must be young: what leaves before it is folded is lost.",
		next: "Messages not folded yet; `usagebridge doctor` (streams.retention).",
		queries: []query{{`max by (stream) (usagebridge_stream_oldest_age_seconds{stream=~"$stream", stream!="KV_LEASES"})` +
			` / (max by (stream) (usagebridge_stream_max_age_seconds{stream=~"$stream"}) > 0)`, "{{stream}}"}},
	},
}

var natsFold = []panel{
	{
		kind: lines, width: 6, title: "Messages not folded yet", unit: count,
		asks:    "Does the backlog of each vendor grow or fall?",
		normal:  "Near 0, or falling after a burst. Those of a partition without a worker are not counted.",
		next:    "Duration of a fold; a stopped vendor (the board of dead letters) grows by all that is published.",
		queries: []query{{`sum by (vendor) (usagebridge_consumer_pending{vendor=~"$vendor"})`, "{{vendor}}"}},
	},
	{
		kind: lines, width: 6, title: "Duration of a fold", unit: seconds, log: true, empty: "nothing was folded",
		asks:   "How long from taking a batch to its record being confirmed by NATS? Of all vendors together.",
		normal: "Milliseconds; tens of them with `sync_interval: always`. Seconds: the disks of NATS are slow, or it elects a leader.",
		next:   "The metrics and disks of the NATS servers; `usagebridge bench` for what they can do.",
		queries: []query{
			{`histogram_quantile(0.5, sum by (le) (rate(usagebridge_fold_duration_seconds_bucket[$__rate_interval])))`, "half"},
			{`histogram_quantile(0.99, sum by (le) (rate(usagebridge_fold_duration_seconds_bucket[$__rate_interval])))`, "99 %"},
		},
	},
	{
		kind: lines, width: 6, title: "Messages folded together", unit: count, empty: "nothing was folded",
		asks:   "How large are the batches? Of all vendors together.",
		normal: "Small when little happens. At `FOLD_BATCH` (500) and beyond: a backlog is being worked off.",
		next:   "Messages not folded yet.",
		queries: []query{
			{`histogram_quantile(0.5, sum by (le) (rate(usagebridge_fold_batch_size_bucket[$__rate_interval])))`, "half"},
			{`histogram_quantile(0.99, sum by (le) (rate(usagebridge_fold_batch_size_bucket[$__rate_interval])))`, "99 %"},
		},
	},
	{
		kind: lines, width: 6, title: "Ledger writes in conflict", unit: count,
		asks:    "How many writes to the ledger were not confirmed and folded again, in 5 minutes?",
		normal:  "0; a few when a partition changes its worker. Many, for long: two write the same partition, or NATS does not answer.",
		next:    "Leases lost, and hand-overs; `usagebridge doctor`.",
		queries: []query{{`sum by (vendor) (increase(usagebridge_ledger_write_conflicts_total{vendor=~"$vendor"}[5m]))`, "{{vendor}}"}},
	},
}

var natsLeases = []panel{
	{
		kind: stacked, width: 6, title: "Partitions by worker", unit: count,
		asks:    "Which worker works on how many partitions?",
		normal:  "Evenly shared, and the stack as high as the vendors have partitions.",
		next:    "Partition faults; the logs of a worker that has fewer than its share.",
		queries: []query{{`sum by (instance) (usagebridge_partition_owned{vendor=~"$vendor"})`, "{{instance}}"}},
	},
	{
		kind: stacked, width: 6, title: "Leases lost", unit: count,
		asks:    "How many leases were lost while the partition was being worked on, in 5 minutes?",
		normal:  "0. A lease is lost when its renewal is not answered in time: NATS, the network, or a worker that was frozen.",
		next:    "Duration of a fold at that time; the logs of that worker and of NATS.",
		queries: []query{{`sum by (vendor, instance) (increase(usagebridge_lease_lost_total{vendor=~"$vendor"}[5m]))`, "{{vendor}} at {{instance}}"}},
	},
	{
		kind: stacked, width: 6, title: "Hand-overs", unit: count,
		asks:    "How many partitions did workers begin to hand over to others, in 5 minutes?",
		normal:  "0, and some when a worker joins. Always some: workers come and go, or do not agree who is alive.",
		next:    "Workers, on the overview; restarts of workers.",
		queries: []query{{`sum by (instance) (increase(usagebridge_partition_handovers_total{vendor=~"$vendor"}[5m]))`, "{{instance}}"}},
	},
	{
		kind: lines, width: 6, title: "Time to take over", unit: seconds, log: true, empty: "none was taken over", levels: []level{{color: good}, {20, bad}},
		asks:   "For how long was a partition without a worker before one had its lease? Of all vendors together.",
		normal: "Milliseconds after a hand-over or a stop; up to the 15 s of a lease after a kill. Above the mark of 20 s: NATS was not there.",
		next:   "Leases lost; `usagebridge doctor`.",
		queries: []query{
			{`histogram_quantile(0.5, sum by (le) (rate(usagebridge_partition_takeover_seconds_bucket[$__rate_interval])))`, "half"},
			{`histogram_quantile(0.99, sum by (le) (rate(usagebridge_partition_takeover_seconds_bucket[$__rate_interval])))`, "99 %"},
		},
	},
}

var natsDoctor = []panel{
	{
		kind: rows, width: 12, title: "Findings", unit: count, empty: "nothing", levels: above(1, warn),
		asks:    "Which checks of `usagebridge doctor` find something wrong with the installation, and with how many objects?",
		normal:  "Nothing. Vendors and integrations have panels of their own. Workers look every 5 minutes, so a finding outlives its cause by as much.",
		next:    "`usagebridge doctor` says for each what is wrong, why it matters, and what mends it.",
		queries: []query{{`max by (check, severity) (usagebridge_doctor_findings)`, "objects"}},
	},
	{
		kind: timeline, width: 12, title: "Findings over time", unit: count, empty: "nothing", levels: above(1, warn),
		asks:    "Since when does a check find something?",
		normal:  "Nothing. A bar shows with how many objects; a gap is well, or nobody looked.",
		next:    "What was changed at that time? `usagebridge audit ls`.",
		queries: []query{{`max by (check, severity) (usagebridge_doctor_findings)`, "{{check}} ({{severity}})"}},
	},
}
