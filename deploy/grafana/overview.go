package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

var overview = board{
	name:  "overview",
	title: "usagebridge: overview",
	description: "Are numbers arriving, how late, what is stuck and why, and will it be there before the billing cut-off? " +
		"Begin here; a panel's i says what is normal and where to look next.",
	span:      "now-6h",
	variables: []cog.Builder[dashboard.VariableModel]{chooseSource(), chooseMany("vendor", "Vendor", "usagebridge_partition_owned")},
	rows: []row{
		{"Right now", 4, overviewNow},
		{"Are numbers arriving?", 8, overviewArriving},
		{"How late are they?", 8, overviewLate},
		{"What is stuck, and why?", 8, overviewStuck},
		{"Will it be there before the billing cut-off?", 8, overviewCutoff},
		{"What does the partner answer?", 8, overviewPartner},
		{"Do the workers have what they need?", 7, overviewWorkers},
	},
}

const unscraped = "no worker is scraped"

var overviewNow = []panel{
	{
		kind: number, width: 3, title: "In time, last hour", unit: share, levels: below(0.95, 0.99), empty: "nothing was sent",
		asks:   "Which share of the figures was accepted by the partner within 60 seconds of when it could take them?",
		normal: "99 % or more: that is the objective. Figures that are not accepted yet are not counted: they are below, under What is stuck.",
		next:   "How late are they?, then What does the partner answer?",
		queries: []query{{expr: `sum(rate(usagebridge_ready_delivery_lag_seconds_bucket{vendor=~"$vendor", le=~"60([.]0)?"}[1h]))` +
			` / (sum(rate(usagebridge_ready_delivery_lag_seconds_count{vendor=~"$vendor"}[1h])) > 0)`}},
	},
	{
		kind: number, width: 3, title: "Error budget, 30 days", unit: share, levels: below(0, 0.25), empty: "nothing was sent",
		asks:   "Which share of the 1 % that may be late in 30 days is left?",
		normal: "More than 25 %. Below 0 the objective is missed. A Prometheus that keeps less than 30 days tells of what it keeps.",
		next:   "Burn rate of the error budget: is it still being spent?",
		queries: []query{{expr: `1 - (1 - sum(rate(usagebridge_ready_delivery_lag_seconds_bucket{vendor=~"$vendor", le=~"60([.]0)?"}[30d]))` +
			` / (sum(rate(usagebridge_ready_delivery_lag_seconds_count{vendor=~"$vendor"}[30d])) > 0)) / 0.01`}},
	},
	{
		kind: number, width: 3, title: "Spare before cut-off", unit: seconds, levels: below(0, 4*3600), empty: "no cut-off is set",
		asks:   "How much time is left between sending everything that can be sent and the vendor's billing cut-off?",
		normal: "Hours. Red: at this rate some integration is not done in time. What is held does not move at all and is not in it.",
		next:   "Will it be there before the billing cut-off?; `usagebridge capacity` reckons with other rates.",
		queries: []query{{expr: `min(min by (vendor) (usagebridge_cutoff_remaining_seconds{vendor=~"$vendor"})` +
			` - max by (vendor) (usagebridge_time_to_drain_seconds{vendor=~"$vendor"}))`}},
	},
	{
		kind: number, width: 3, title: "Waiting for a person", unit: count, levels: above(1, warn), empty: unscraped,
		asks:    "To how many integrations is nothing sent until somebody does something: tokens refused, paused, flooded, or refused as an anomaly?",
		normal:  "0.",
		next:    "Integrations to which nothing is sent; `usagebridge integrations ls` and `usagebridge integrations show V/O` say what to do.",
		queries: []query{{expr: `sum(usagebridge_partner_gate_closed{vendor=~"$vendor", reason=~"unauthorized|anomaly|flooded|paused"})`}},
	},
	{
		kind: number, width: 3, title: "Vendors stopped", unit: count, levels: above(1, bad), empty: unscraped, open: &deadLetters,
		asks:    "For how many vendors is nothing folded, because too many events are dead or by an operator's word?",
		normal:  "0. Events of a stopped vendor wait in the log, and nobody is told but you.",
		next:    "The board of dead letters; `usagebridge vendors show V`, and `usagebridge vendors resume V` once the publisher is mended.",
		queries: []query{{expr: `sum(max by (vendor) (usagebridge_vendor_stopped{vendor=~"$vendor"}))`}},
	},
	{
		kind: number, width: 3, title: "Dead letters", unit: count, levels: []level{{color: good}, {1, warn}, {100, bad}}, empty: unscraped, open: &deadLetters,
		asks:    "How many events or figures can never be applied or delivered as they are, and have not been replayed or dropped?",
		normal:  "0. Each may be a wrong invoice.",
		next:    "The board of dead letters; `usagebridge dlq ls`.",
		queries: []query{{expr: `sum(max by (vendor) (usagebridge_dead_letters{vendor=~"$vendor"}))`}},
	},
	{
		kind: number, width: 3, title: "Partitions unowned", unit: count, levels: above(1, bad), empty: unscraped, open: &nats,
		asks:    "How many partitions does no worker work on?",
		normal:  "0, but for seconds while workers come and go. The integrations of such a partition stand still.",
		next:    "Partitions by worker; `usagebridge doctor`.",
		queries: []query{{expr: `sum(max by (vendor) (usagebridge_partitions{vendor=~"$vendor"})) - sum(usagebridge_partition_owned{vendor=~"$vendor"})`}},
	},
	{
		kind: number, width: 3, title: "Doctor: errors", unit: count, levels: above(1, bad), empty: unscraped, open: &nats,
		asks:    "How many checks of the installation by `usagebridge doctor` fail?",
		normal:  "0. Workers look every 5 minutes.",
		next:    "The board of NATS lists them; `usagebridge doctor` says what mends each.",
		queries: []query{{expr: `count(max by (check) (usagebridge_doctor_findings{severity="error"})) or 0 * max(usagebridge_workers)`}},
	},
}

var overviewArriving = []panel{
	{
		kind: lines, width: 6, title: "Events received", unit: events,
		asks:    "How many messages a second does each vendor publish, as far as they are folded?",
		normal:  "The vendor's own rhythm. 0 where yesterday was something: the publisher is silent, or the vendor is stopped, or nobody owns its partitions.",
		next:    "Messages not folded yet: if they grow, the fault is here; if they are 0, it is at the publisher.",
		queries: []query{{`sum by (vendor) (rate(usagebridge_events_received_total{vendor=~"$vendor"}[$__rate_interval]))`, "{{vendor}}"}},
	},
	{
		kind: stacked, width: 6, title: "What became of them", unit: events,
		paints:  []paint{{"applied", good}, {"duplicate", "blue"}, {"superseded", "purple"}, {"unchanged", "semi-dark-green"}, {"dead", bad}},
		asks:    "What were the events: news, repeats, too late, without a change, or dead?",
		normal:  "Mostly applied and unchanged. Many duplicates: a publisher sends again; superseded: it sends out of order; dead: it sends nonsense.",
		next:    "`usagebridge explain EVENT-ID` for one; the board of dead letters.",
		queries: []query{{`sum by (disposition) (rate(usagebridge_events_total{vendor=~"$vendor"}[$__rate_interval]))`, "{{disposition}}"}},
	},
	{
		kind: lines, width: 6, title: "Messages not folded yet", unit: count, open: &nats,
		asks:    "How many messages lie in the log and are not acknowledged?",
		normal:  "Near 0, or falling after a burst. Growing: the workers or NATS cannot keep up, or a vendor is stopped. Those of a partition without a worker are not counted.",
		next:    "Vendors stopped; the board of NATS (fold duration, conflicts); `usagebridge doctor`.",
		queries: []query{{`sum by (vendor) (usagebridge_consumer_pending{vendor=~"$vendor"})`, "{{vendor}}"}},
	},
	{
		kind: stacked, width: 6, title: "Answers of HTTP ingest", unit: requests,
		paints:  []paint{{"2xx", good}, {"3xx", "blue"}, {"4xx", warn}, {"5xx", bad}},
		asks:    "Are events taken from publishers that use HTTP instead of NATS? Of all vendors: the request does not say whose it is before it is read.",
		normal:  "2xx, or nothing if nobody uses it. 4xx: a publisher sends what is not valid, and is told; 5xx: NATS does not take it.",
		next:    "The answer (problem+json) has all that is wrong; `usagebridge schemas validate FILE` says the same.",
		queries: []query{{`sum by (code_class) (rate(usagebridge_http_requests_total{route=~"/ingest/.*"}[$__rate_interval]))`, "{{code_class}}"}},
	},
}

var overviewLate = []panel{
	{
		kind: lines, width: 6, title: "Accepted within 60 seconds, by hour", unit: share, zoom: true, empty: "nothing was sent",
		levels: []level{{color: bad}, {0.99, good}},
		asks:   "Which share of the figures of the hour before was accepted within 60 seconds of when the integration could take them?",
		normal: "Above the mark of 99 %.",
		next:   "Time to acceptance, and what the partner answers.",
		queries: []query{{`sum by (vendor) (rate(usagebridge_ready_delivery_lag_seconds_bucket{vendor=~"$vendor", le=~"60([.]0)?"}[1h]))` +
			` / (sum by (vendor) (rate(usagebridge_ready_delivery_lag_seconds_count{vendor=~"$vendor"}[1h])) > 0)`, "{{vendor}}"}},
	},
	{
		kind: lines, width: 6, title: "Burn rate of the error budget", unit: count, empty: "nothing was sent",
		levels:  []level{{color: good}, {1, "yellow"}, {6, warn}, {14.4, bad}},
		asks:    "How many times faster than 30 days would allow is the budget of late figures being spent?",
		normal:  "Below 1. At 6 it is gone in 5 days, at 14.4 in 2: both lines above a mark mean that it goes on.",
		next:    "The runbook; then What is stuck, and why?",
		queries: []query{burn("5m"), burn("1h"), burn("6h")},
	},
	{
		kind: lines, width: 6, title: "Time to acceptance", unit: seconds, log: true, empty: "nothing was sent", levels: []level{{color: good}, {60, bad}},
		asks:   "How long do figures take from when the integration could take them, and from the event's own time?",
		normal: "Half below 2 s, 99 of 100 below the mark of 60 s. That from the event's time may be weeks: it has backfills, what was not mapped and what was not ready.",
		next:   "If ready and event differ: what was held. If both are high: calls to the partner, and the fold.",
		queries: []query{
			{`histogram_quantile(0.5, sum by (le) (rate(usagebridge_ready_delivery_lag_seconds_bucket{vendor=~"$vendor"}[$__rate_interval])))`, "half, since ready"},
			{`histogram_quantile(0.99, sum by (le) (rate(usagebridge_ready_delivery_lag_seconds_bucket{vendor=~"$vendor"}[$__rate_interval])))`, "99 %, since ready"},
			{`histogram_quantile(0.99, sum by (le) (rate(usagebridge_delivery_lag_seconds_bucket{vendor=~"$vendor"}[$__rate_interval])))`, "99 %, since the event"},
		},
	},
	{
		kind: lines, width: 6, title: "Oldest figure the partner lacks", unit: seconds, log: true, open: &integration,
		asks:    "How old is the oldest figure that the partner does not have as desired, for whatever reason?",
		normal:  "Seconds; weeks if something is held (not mapped, not ready). A straight climb without a hold beside it: something is stuck.",
		next:    "Oldest hold, by reason: if it is as old, that is the reason. `usagebridge sync status` names integration and figure.",
		queries: []query{{`max by (vendor) (usagebridge_oldest_dirty_age_seconds{vendor=~"$vendor"})`, "{{vendor}}"}},
	},
}

// burn is how fast the budget is spent over a window.
func burn(window string) query {
	return query{`(1 - sum(rate(usagebridge_ready_delivery_lag_seconds_bucket{vendor=~"$vendor", le=~"60([.]0)?"}[` + window + `]))` +
		` / (sum(rate(usagebridge_ready_delivery_lag_seconds_count{vendor=~"$vendor"}[` + window + `])) > 0)) / 0.01`, window}
}

var overviewStuck = []panel{
	{
		kind: stacked, width: 6, title: "Figures the partner lacks, by state", unit: count,
		paints: []paint{{"dirty", "blue"}, {"retrying", warn}, {"held", "yellow"}, {"failed", bad}},
		asks:   "How many keys are not as desired at the partner, and in which stored state?",
		normal: "dirty comes and goes: to be sent, also to integrations that are closed as a whole or lack an account. " +
			"held: a single figure that is not mapped or awaits approval; retrying: no usable answer; failed: refused for good.",
		next:    "dirty that stays: the panel beside this one. retrying: what the partner answers. failed: the board of dead letters.",
		queries: []query{{`sum by (state) (usagebridge_ledger_keys{vendor=~"$vendor", state=~"dirty|retrying|held|failed"})`, "{{state}}"}},
	},
	{
		kind: stacked, width: 6, title: "Integrations to which nothing is sent", unit: count, open: &integration,
		paints: []paint{{"unauthorized", bad}, {"anomaly", "dark-red"}, {"flooded", "purple"}, {"unavailable", warn}, {"throttled", "yellow"},
			{"paused", "blue"}, {"integration_not_ready", "light-blue"}},
		asks:    "How many integrations are closed as a whole, and for which reason?",
		normal:  "integration_not_ready while MSPs set up. throttled and unavailable pass by themselves; unauthorized, anomaly, flooded and paused need a person.",
		next:    "The board of one integration; `usagebridge integrations show V/O`.",
		queries: []query{{`sum by (reason) (usagebridge_partner_gate_closed{vendor=~"$vendor"})`, "{{reason}}"}},
	},
	{
		kind: lines, width: 6, title: "Oldest hold, by reason", unit: seconds, log: true,
		asks:    "For how long has the oldest hold of each reason lasted?",
		normal:  "Nothing, or days for integration_not_ready and unmapped: the MSP has not finished. Hours of unauthorized are hours without a figure. Integrations that have nothing to send are not counted.",
		next:    "unmapped: `usagebridge integrations mapping V/O`. unauthorized: `usagebridge integrations credentials set V/O`. Others: the runbook.",
		queries: []query{{`max by (reason) (usagebridge_oldest_hold_age_seconds{vendor=~"$vendor"})`, "{{reason}}"}},
	},
	{
		kind: stacked, width: 6, title: "Integrations, by status", unit: count,
		paints:  []paint{{"connected", good}, {"pending", "yellow"}, {"mapping", "blue"}, {"inactive", "gray"}, {"other", warn}},
		asks:    "Where do the integrations stand at the partner?",
		normal:  "Mostly connected. Many that leave connected at once: the partner has lost or changed something.",
		next:    "`usagebridge integrations ls`; each change with its cause is in `usagebridge integrations show V/O`.",
		queries: []query{{`sum by (status) (usagebridge_integration_status{vendor=~"$vendor"})`, "{{status}}"}},
	},
}

var overviewCutoff = []panel{
	{
		kind: lines, width: 8, title: "Time needed, and time left", unit: seconds, log: true, empty: "nothing to send, no cut-off set",
		asks:   "Does sending what can be sent take longer than the time that is left to the billing cut-off?",
		normal: "What a vendor needs is far below what it has left. Where the lines meet, the invoice will lack figures.",
		next:   "Is the rate the limit (beside)? Then `usagebridge capacity`, and ask the partner for more. Held figures first need their cause mended.",
		queries: []query{
			{`max by (vendor) (usagebridge_time_to_drain_seconds{vendor=~"$vendor"})`, "{{vendor}} needs"},
			{`min by (vendor) (usagebridge_cutoff_remaining_seconds{vendor=~"$vendor"})`, "{{vendor}} has left"},
		},
	},
	{
		kind: lines, width: 8, title: "Figures to be sent", unit: count,
		asks:    "How many figures are to be sent, those of closed integrations included, and do they become fewer?",
		normal:  "Near 0, or a falling slope after a burst. A flat line: they are held, or the drain does not drain.",
		next:    "Integrations to which nothing is sent; lowest rate; calls to the partner. `usagebridge sync status` counts what is held and why.",
		queries: []query{{`sum by (vendor) (usagebridge_ledger_keys{vendor=~"$vendor", state=~"dirty|retrying"})`, "{{vendor}}"}},
	},
	{
		kind: lines, width: 8, title: "Lowest rate of an integration", unit: requests, empty: "no limit is set",
		asks:    "How many calls a second may the slowest integration of each vendor make now?",
		normal:  "What `PARTNER_RATE` says (50). Lower: the partner has answered 429; the rate halves each time, and recovers slowly.",
		next:    "Calls by class of answer; integrations throttled under What is stuck. `usagebridge sync log --follow` shows the answers.",
		queries: []query{{`min by (vendor) (usagebridge_partner_rate_limit{vendor=~"$vendor"} > 0)`, "{{vendor}}"}},
	},
}

var overviewPartner = []panel{
	{
		kind: stacked, width: 8, title: "Calls, by class of answer", unit: requests,
		paints:  []paint{{"2xx", good}, {"3xx", "blue"}, {"4xx", warn}, {"5xx", bad}, {"none", "purple"}},
		asks:    "What does the partner say to our calls? none: no answer at all.",
		normal:  "2xx. Some 4xx while integrations are not ready or not mapped. 5xx and none: the partner, or the way there, is ill.",
		next:    "`usagebridge sync log --follow` has each call with its answer; `usagebridge integrations test V/O` finds where the way breaks.",
		queries: []query{{`sum by (code_class) (rate(usagebridge_partner_requests_total{vendor=~"$vendor"}[$__rate_interval]))`, "{{code_class}}"}},
	},
	{
		kind: lines, width: 8, title: "Calls without a usable answer", unit: share, empty: "no calls", levels: []level{{color: good}, {0.05, bad}},
		asks:   "Which share of the calls of each vendor must be made again: timeouts, resets, 5xx?",
		normal: "Below the mark of 5 %.",
		next:   "All vendors alike: the partner or the network. One alone: its integrations, with `usagebridge integrations test V/O`.",
		queries: []query{{`sum by (vendor) (rate(usagebridge_retries_total{vendor=~"$vendor"}[$__rate_interval]))` +
			` / (sum by (vendor) (rate(usagebridge_partner_requests_total{vendor=~"$vendor"}[$__rate_interval])) > 0)`, "{{vendor}}"}},
	},
	{
		kind: lines, width: 8, title: "Duration of calls", unit: seconds, log: true, empty: "no calls",
		asks:   "How long does the partner take to answer, by kind of call? Of all vendors together.",
		normal: "Well below `PARTNER_TIMEOUT` (10 s). When it doubles, the same concurrency makes half as many calls.",
		next:   "Figures to be sent: do they still become fewer?",
		queries: []query{
			{`histogram_quantile(0.5, sum by (le, operation) (rate(usagebridge_partner_request_duration_seconds_bucket[$__rate_interval])))`, "half, {{operation}}"},
			{`histogram_quantile(0.99, sum by (le, operation) (rate(usagebridge_partner_request_duration_seconds_bucket[$__rate_interval])))`, "99 %, {{operation}}"},
		},
	},
}

var overviewWorkers = []panel{
	{
		kind: lines, width: 6, title: "Workers", unit: count,
		asks:   "How many workers are alive, by their own word and by Prometheus'?",
		normal: "Both lines agree. More alive than scraped: Prometheus does not know one. More scraped than alive: one has lost NATS.",
		next:   "`usagebridge doctor` lists workers and what they lack; the logs of the one that differs.",
		queries: []query{
			{`max(usagebridge_workers)`, "alive, as the workers see"},
			{`sum(up{job="usagebridge"})`, "scraped"},
		},
	},
	{
		kind: stacked, width: 6, title: "Partitions by worker", unit: count,
		asks:    "Which worker works on how many partitions?",
		normal:  "Evenly shared, and the stack as high as the vendors have partitions. It dips when a worker is killed, for the 15 seconds of a lease and a little more.",
		next:    "The board of NATS: leases lost, hand-overs, take-overs, partition faults.",
		queries: []query{{`sum by (instance) (usagebridge_partition_owned{vendor=~"$vendor"})`, "{{instance}}"}},
	},
	{
		kind: lines, width: 6, title: "CPU by worker", unit: count,
		asks:    "How many cores does each worker use?",
		normal:  "Almost none when nothing happens. As many as it may have, for long: it is the limit.",
		next:    "`usagebridge capacity` says how many workers the load needs.",
		queries: []query{{`rate(process_cpu_seconds_total{job="usagebridge"}[$__rate_interval])`, "{{instance}}"}},
	},
	{
		kind: lines, width: 6, title: "Memory by worker", unit: octets,
		asks:    "How much memory does each worker hold?",
		normal:  "Some 250 bytes for each key of its partitions, and a hundred MiB; more after it took over another's partitions.",
		next:    "Partitions by worker; `usagebridge capacity`.",
		queries: []query{{`process_resident_memory_bytes{job="usagebridge"}`, "{{instance}}"}},
	},
}
