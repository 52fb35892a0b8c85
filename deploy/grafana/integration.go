package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

var integration = board{
	name:  "integration",
	title: "usagebridge: one integration",
	description: "How far behind is one vendor with one organization, is it alone, and what does its vendor suffer from? " +
		"Only the integrations that are furthest behind have a series of their own: the rest is for commands, and they are listed.",
	span: "now-24h",
	variables: []cog.Builder[dashboard.VariableModel]{
		chooseSource(),
		chooseOne("vendor", "Vendor", "usagebridge_partition_owned"),
		chooseOne("organization", "Organization", `usagebridge_integration_behind_age_seconds{vendor="$vendor"}`),
	},
	rows: []row{
		{"How far behind is $vendor/$organization?", 4, integrationNow},
		{"Since when, and who else?", 9, integrationBehind},
		{"What a metric cannot show, and the command that does", 11, integrationCommands},
		{"What holds the integrations of $vendor?", 8, integrationHolds},
		{"Can $vendor be sent?", 8, integrationSending},
	},
}

const (
	notBehind  = "not among the furthest behind"
	noneBehind = "none is behind"
)

var integrationNow = []panel{
	{
		kind: number, width: 6, title: "Oldest figure it lacks", unit: seconds, levels: []level{{color: good}, {60, "yellow"}, {3600, warn}, {86400, bad}}, empty: notBehind,
		asks:    "How old is the oldest figure that the partner does not have as desired?",
		normal:  "Not among the furthest behind, or seconds. Absent is good news only while no list is full (beside).",
		next:    "`usagebridge sync status --integration $vendor/$organization --keys 5` and `usagebridge integrations show $vendor/$organization`: which figure, and why.",
		queries: []query{{expr: `max(usagebridge_integration_behind_age_seconds{vendor="$vendor", organization="$organization"})`}},
	},
	{
		kind: number, width: 6, title: "Its place among those behind", unit: count, levels: []level{{color: bad}, {4, warn}, {11, good}}, empty: notBehind,
		asks:   "Is it the furthest behind of the vendor (1), or one of many?",
		normal: "Absent. One of many with about the same age: the cause is the vendor's or the partner's, not its own.",
		next:   "Furthest behind, and what holds the integrations of the vendor.",
		queries: []query{{expr: `count(max by (organization) (usagebridge_integration_behind_age_seconds{vendor="$vendor"})` +
			` >= scalar(max(usagebridge_integration_behind_age_seconds{vendor="$vendor", organization="$organization"})))`}},
	},
	{
		kind: number, width: 6, title: "Longest list of a worker", unit: count, levels: above(100, warn), empty: noneBehind,
		asks:    "How many integrations, of all vendors, does the worker show that shows most? Is what is not shown really not behind?",
		normal:  "Few. At `USAGEBRIDGE_METRICS_ORGANIZATIONS` (100) a list is full: others are behind unseen, by less.",
		next:    "`usagebridge sync status` has all of them.",
		queries: []query{{expr: `max(count by (instance) (usagebridge_integration_behind_age_seconds))`}},
	},
	{
		kind: number, width: 6, title: "Time left to the cut-off", unit: seconds, levels: below(3600, 86400), empty: "no cut-off is set",
		asks:    "How long until the vendor's next billing cut-off?",
		normal:  "More than the integration is behind by anything that can be mended.",
		next:    "Can the vendor be sent?; `usagebridge capacity`.",
		queries: []query{{expr: `min(usagebridge_cutoff_remaining_seconds{vendor="$vendor"})`}},
	},
}

var integrationBehind = []panel{
	{
		kind: lines, width: 14, title: "Age of the oldest figure", unit: seconds, log: true, empty: notBehind,
		asks:   "Since when is it behind, and is it alone?",
		normal: "No line of its own. A climb of one second a second means that nothing moves; teeth mean that it is sent, and late.",
		next:   "The same climb in the vendor's line: what holds its integrations. Its own alone: the commands below.",
		queries: []query{
			{`max by (organization) (usagebridge_integration_behind_age_seconds{vendor="$vendor", organization="$organization"})`, "{{organization}}"},
			{`max by (vendor) (usagebridge_oldest_dirty_age_seconds{vendor="$vendor"})`, "the oldest of {{vendor}}"},
		},
	},
	{
		kind: rows, width: 10, title: "Furthest behind", unit: seconds, levels: []level{{color: good}, {60, "yellow"}, {3600, warn}, {86400, bad}}, empty: noneBehind,
		follow:  "/d/usagebridge-integration?var-vendor=${__data.fields.vendor}&var-organization=${__data.fields.organization}&${__url_time_range}",
		asks:    "Which integrations of the vendor are furthest behind? Choose one to see it.",
		normal:  "None, or those that are known to be held.",
		next:    "The one on top; `usagebridge sync status --vendor $vendor` says the reason of each.",
		queries: []query{{`topk(20, max by (vendor, organization) (usagebridge_integration_behind_age_seconds{vendor="$vendor"}))`, "behind"}},
	},
}

var integrationCommands = []panel{{
	kind: markdown, width: columns, title: "Commands for $vendor/$organization",
	asks:   "What must be asked of the ledger itself, since labels of metrics name no account, no figure and not every organization?",
	normal: "The metrics say that something is wrong; these commands say what, and for whom.",
	next:   "The runbook has one heading for each alert.",
	content: "Metrics carry an organization only here, and only while it is among the furthest behind. " +
		"Status, gates, calls and dead letters are counted per vendor; a single integration's are in the ledger:\n\n" +
		"| question | command |\n| --- | --- |\n" +
		"| Status, gates, what a person must do now | `usagebridge integrations show $vendor/$organization` |\n" +
		"| Where does the way to the partner break? | `usagebridge integrations test $vendor/$organization` |\n" +
		"| What is not delivered, since when, why | `usagebridge sync status --integration $vendor/$organization --keys 20` |\n" +
		"| What would be sent next, and is not | `usagebridge sync preview --integration $vendor/$organization` |\n" +
		"| Its calls, with the partner's answers | `usagebridge sync log --follow --integration $vendor/$organization` |\n" +
		"| What nobody has mapped yet | `usagebridge integrations mapping $vendor/$organization` |\n" +
		"| Where one figure comes from, why it is held | `usagebridge explain --integration $vendor/$organization --key ACCOUNT/SERVICE` |\n" +
		"| Its dead letters | `usagebridge dlq ls --integration $vendor/$organization` |\n" +
		"| Does the partner have what we posted? | `usagebridge sync drift --integration $vendor/$organization` |\n",
}}

var integrationHolds = []panel{
	{
		kind: stacked, width: 8, title: "Integrations to which nothing is sent", unit: count,
		asks:    "How many integrations of the vendor are closed as a whole, and why?",
		normal:  "integration_not_ready while MSPs set up; 0 of anything else.",
		next:    "Whether this one is among them: `usagebridge integrations show $vendor/$organization`.",
		queries: []query{{`sum by (reason) (usagebridge_partner_gate_closed{vendor="$vendor"})`, "{{reason}}"}},
	},
	{
		kind: lines, width: 8, title: "Oldest hold, by reason", unit: seconds, log: true,
		asks:    "Is one of the vendor's holds as old as this integration is behind?",
		normal:  "Nothing, or days for integration_not_ready and unmapped. Integrations that have nothing to send are not counted.",
		next:    "unmapped: `usagebridge integrations mapping $vendor/$organization`; others: the runbook.",
		queries: []query{{`max by (reason) (usagebridge_oldest_hold_age_seconds{vendor="$vendor"})`, "{{reason}}"}},
	},
	{
		kind: stacked, width: 8, title: "Figures the partner lacks, by state", unit: count,
		asks:    "What do the vendor's figures wait for?",
		normal:  "dirty, coming and going. held: not mapped, or awaiting approval; retrying: no usable answer; failed: refused for good.",
		next:    "`usagebridge sync preview --integration $vendor/$organization`.",
		queries: []query{{`sum by (state) (usagebridge_ledger_keys{vendor="$vendor", state=~"dirty|retrying|held|failed"})`, "{{state}}"}},
	},
}

var integrationSending = []panel{
	{
		kind: lines, width: 6, title: "Time to drain", unit: seconds, log: true, empty: "nothing to send",
		asks:    "How long does the slowest integration of the vendor take to send what it can send?",
		normal:  "Seconds; minutes after a burst; far below the time left to the cut-off.",
		next:    "Lowest rate: was it lowered by the partner?",
		queries: []query{{`max by (vendor) (usagebridge_time_to_drain_seconds{vendor="$vendor"})`, "{{vendor}}"}},
	},
	{
		kind: lines, width: 6, title: "Lowest rate of an integration", unit: requests, empty: "no limit is set",
		asks:    "How many calls a second may the slowest integration of the vendor make?",
		normal:  "What `PARTNER_RATE` says (50). Lower: the partner has answered 429.",
		next:    "`usagebridge sync log --follow --integration $vendor/$organization`.",
		queries: []query{{`min by (vendor) (usagebridge_partner_rate_limit{vendor="$vendor"} > 0)`, "{{vendor}}"}},
	},
	{
		kind: stacked, width: 6, title: "Calls, by class of answer", unit: requests,
		paints:  []paint{{"2xx", good}, {"3xx", "blue"}, {"4xx", warn}, {"5xx", bad}, {"none", "purple"}},
		asks:    "What does the partner say to the vendor's calls?",
		normal:  "2xx. If others get 2xx, the fault is this integration's: its tokens, its mapping, its address.",
		next:    "`usagebridge integrations test $vendor/$organization`.",
		queries: []query{{`sum by (code_class) (rate(usagebridge_partner_requests_total{vendor="$vendor"}[$__rate_interval]))`, "{{code_class}}"}},
	},
	{
		kind: stacked, width: 6, title: "Changes of status", unit: count,
		asks:    "Did integrations of the vendor change their status at the partner, and into which? In each hour before.",
		normal:  "Few. Many at once that leave connected: the partner has lost or changed something.",
		next:    "`usagebridge integrations show $vendor/$organization` has each change with its cause.",
		queries: []query{{`sum by (from, to) (increase(usagebridge_integration_transitions_total{vendor="$vendor"}[1h])) > 0`, "{{from}} to {{to}}"}},
		empty:   "no change",
	},
}
