package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

var deadLetters = board{
	name:  "deadletters",
	title: "usagebridge: dead letters",
	description: "Which events can never be applied, which figures never delivered, why, and from whom? Has a flood stopped a vendor or an integration? " +
		"Each dead letter may be a wrong invoice until it is replayed or dropped.",
	span:      "now-24h",
	variables: []cog.Builder[dashboard.VariableModel]{chooseSource(), chooseMany("vendor", "Vendor", "usagebridge_partition_owned")},
	rows: []row{
		{"Right now", 4, lettersNow},
		{"Why do they die, and whose are they?", 8, lettersWhy},
		{"Do they become fewer?", 8, lettersStanding},
		{"Has a flood stopped something?", 8, lettersFloods},
		{"What to do", 8, lettersCommands},
	},
}

var lettersNow = []panel{
	{
		kind: number, width: 4, title: "Standing now", unit: count, levels: []level{{color: good}, {1, warn}, {100, bad}}, empty: unscraped,
		asks:    "How many dead letters have been neither replayed nor dropped?",
		normal:  "0.",
		next:    "`usagebridge dlq ls` groups them by what is wrong.",
		queries: []query{{expr: `sum(max by (vendor) (usagebridge_dead_letters{vendor=~"$vendor"}))`}},
	},
	{
		kind: number, width: 4, title: "Parked in this time", unit: count, levels: above(1, warn), empty: unscraped,
		asks:    "How many dead letters came in the time that this board shows? An estimate: counters are read now and then.",
		normal:  "0.",
		next:    "Why do they die?",
		queries: []query{{expr: `round(sum(increase(usagebridge_dead_letters_total{vendor=~"$vendor"}[$__range])))`}},
	},
	{
		kind: number, width: 4, title: "Dead among events, 15 min", unit: share, levels: []level{{color: good}, {0.05, warn}, {0.5, bad}}, empty: "no events",
		asks:   "Which share of the events folded in the last 15 minutes was dead?",
		normal: "Near 0. Beyond 50 % of a vendor's last 1000 events (`DEAD_LETTER_SHARE`) its events are not folded any more.",
		next:   "Share by vendor; mend the publisher before the vendor stops.",
		queries: []query{{expr: `sum(rate(usagebridge_events_total{vendor=~"$vendor", disposition="dead"}[15m]))` +
			` / (sum(rate(usagebridge_events_total{vendor=~"$vendor"}[15m])) > 0)`}},
	},
	{
		kind: number, width: 4, title: "Vendors stopped", unit: count, levels: above(1, bad), empty: unscraped,
		asks:    "For how many vendors is nothing folded?",
		normal:  "0.",
		next:    "`usagebridge vendors show V`, and `usagebridge vendors resume V` once the publisher is mended.",
		queries: []query{{expr: `sum(max by (vendor) (usagebridge_vendor_stopped{vendor=~"$vendor"}))`}},
	},
	{
		kind: number, width: 4, title: "Floods in this time", unit: count, levels: above(1, bad), empty: unscraped,
		asks:    "How often was an integration paused, because so many figures in a row were refused for good?",
		normal:  "0.",
		next:    "Has a flood stopped something?",
		queries: []query{{expr: `round(sum(increase(usagebridge_integration_floods_total{vendor=~"$vendor"}[$__range])))`}},
	},
	{
		kind: number, width: 4, title: "Figures refused for good", unit: count, levels: above(1, warn), empty: unscraped,
		asks:    "For how many keys has the partner refused the newest figure for good? It has an older one, or none.",
		normal:  "0. A newer event starts afresh.",
		next:    "`usagebridge dlq ls --reason rejected`, then `usagebridge dlq show ID`.",
		queries: []query{{expr: `sum(usagebridge_ledger_keys{vendor=~"$vendor", state="failed"})`}},
	},
}

var lettersWhy = []panel{
	{
		kind: stacked, width: 9, title: "Parked in 5 minutes, by reason", unit: count,
		asks:    "Why do events and figures die?",
		normal:  "Nothing. malformed, invalid, unknown_type, subject_mismatch, too_far_ahead, too_old, conflicting_duplicate: the publisher. rejected, undeliverable: the partner.",
		next:    "`usagebridge dlq ls`, then `usagebridge dlq show ID`: what is wrong, and what would be right.",
		queries: []query{{`sum by (reason) (increase(usagebridge_dead_letters_total{vendor=~"$vendor"}[5m])) > 0`, "{{reason}}"}},
		empty:   "none",
	},
	{
		kind: lines, width: 7, title: "Share of dead events, by vendor", unit: share, levels: []level{{color: good}, {0.5, bad}}, empty: "no events",
		asks:   "Whose events die, and how near is the vendor to being stopped?",
		normal: "Near 0. The mark is the default of `DEAD_LETTER_SHARE`, which looks at the last 1000 events, not at time.",
		next:   "The publisher of that vendor; `usagebridge dlq ls --filter vendor=V`.",
		queries: []query{{`sum by (vendor) (rate(usagebridge_events_total{vendor=~"$vendor", disposition="dead"}[15m]))` +
			` / (sum by (vendor) (rate(usagebridge_events_total{vendor=~"$vendor"}[15m])) > 0)`, "{{vendor}}"}},
	},
	{
		kind: rows, width: 8, title: "Parked, by vendor and reason", unit: count, empty: "none", levels: above(1, warn),
		asks:    "How many came from each vendor for each reason in the time that this board shows?",
		normal:  "An empty table.",
		next:    "`usagebridge dlq ls --filter vendor=V --reason R`.",
		queries: []query{{`round(sum by (vendor, reason) (increase(usagebridge_dead_letters_total{vendor=~"$vendor"}[$__range]))) > 0`, "letters"}},
	},
}

var lettersStanding = []panel{
	{
		kind: lines, width: 8, title: "Standing, by vendor", unit: count,
		asks:    "Are dead letters worked off, or do they pile up?",
		normal:  "0, or falling while a replay runs.",
		next:    "`usagebridge dlq replays ls`: how far replays are. They expire with the stream, after 90 days.",
		queries: []query{{`max by (vendor) (usagebridge_dead_letters{vendor=~"$vendor"})`, "{{vendor}}"}},
	},
	{
		kind: lines, width: 8, title: "Figures refused for good, by vendor", unit: count,
		asks:    "For how many keys does the partner have an older figure than we do, for good?",
		normal:  "0.",
		next:    "`usagebridge dlq replay --filter reason=rejected --plan`: what a replay would do, before it is done.",
		queries: []query{{`sum by (vendor) (usagebridge_ledger_keys{vendor=~"$vendor", state="failed"})`, "{{vendor}}"}},
	},
	{
		kind: stacked, width: 8, title: "Snapshots that ended, by hour", unit: count,
		asks:    "Did snapshots end whole? incomplete: zeros of missing parts never come. With zeros for approval: a person must look.",
		normal:  "complete, or nothing if nobody publishes snapshots.",
		next:    "`usagebridge snapshots ls --vendor V`; `usagebridge approvals ls`.",
		queries: []query{{`sum by (result) (increase(usagebridge_snapshots_total{vendor=~"$vendor"}[1h])) > 0`, "{{result}}"}},
		empty:   "none ended",
	},
}

var lettersFloods = []panel{
	{
		kind: timeline, width: 8, title: "Is the vendor folded?", unit: "none", words: []word{{"0", "folded", good}, {"1", "stopped", bad}},
		asks:    "Since when are a vendor's events not folded?",
		normal:  "Green throughout. While red, events wait in the log; deliveries go on.",
		next:    "`usagebridge audit ls` says who or what stopped it; `usagebridge vendors resume V --why TEXT` ends it.",
		queries: []query{{`max by (vendor) (usagebridge_vendor_stopped{vendor=~"$vendor"})`, "{{vendor}}"}},
	},
	{
		kind: lines, width: 8, title: "Integrations paused", unit: count,
		asks:    "How many integrations are paused: by a flood of figures refused for good, or by an operator?",
		normal:  "0. A flood is flooded for a moment, then paused until somebody resumes it.",
		next:    "`usagebridge audit ls` says who or what paused it, `usagebridge dlq ls --reason rejected` why; mend the cause, then `usagebridge integrations resume V/O`.",
		queries: []query{{`sum by (vendor, reason) (usagebridge_partner_gate_closed{vendor=~"$vendor", reason=~"flooded|paused"})`, "{{vendor}}: {{reason}}"}},
	},
	{
		kind: stacked, width: 8, title: "Floods, by hour", unit: count,
		asks:    "When did floods begin?",
		normal:  "Nothing. A flood right after a resume: the cause was not mended.",
		next:    "What was deployed then, here, at the publisher or at the partner?",
		queries: []query{{`sum by (vendor) (increase(usagebridge_integration_floods_total{vendor=~"$vendor"}[1h]))`, "{{vendor}}"}},
	},
}

var lettersCommands = []panel{{
	kind: markdown, width: columns, title: "Commands for dead letters",
	asks:   "Which commands show a dead letter and mend it?",
	normal: "Look, plan, replay; drop only what is known to be worthless.",
	next:   "The runbook.",
	content: "| step | command |\n| --- | --- |\n" +
		"| What is wrong, grouped | `usagebridge dlq ls` |\n" +
		"| One letter: the event, what is wrong, what would be right | `usagebridge dlq show ID` |\n" +
		"| What a replay would do | `usagebridge dlq replay --filter reason=rejected --plan` |\n" +
		"| Replay them, mended by a JSON Patch | `usagebridge dlq replay --filter fingerprint=F --edit=fix.json --yes --why TEXT` |\n" +
		"| How far it is | `usagebridge dlq replays ls` |\n" +
		"| Fold a stopped vendor again | `usagebridge vendors resume V --why TEXT` |\n" +
		"| Send to a flooded integration again | `usagebridge integrations resume V/O --why TEXT` |\n",
}}
