package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
)

// The doctor first gathers all evidence and then judges it. Judging asks
// nobody and nothing: the same evidence has the same findings.

// severities are the verdicts, the worst first. A failed check says that figures
// are not delivered or can be lost, a warning that it will not go well for ever
// or not in bad weather; what could not be looked at is skipped.
var severities = []verdict{stepFailed, stepWarning, stepSkipped, stepOK}

// check is one thing that somebody could have wrong.
type check struct {
	id    string // stable: alerts and scripts name it
	title string
	why   string // it matters, in one sentence
	needs need
	judge func(*evidence) []symptom
}

// area is what a check is about.
func (c *check) area() string {
	area, _, _ := strings.Cut(c.id, ".")
	return area
}

// need says why a check cannot be made, or "".
type need func(*evidence) string

// symptom is what one check found about one object, or about everything.
type symptom struct {
	verdict  verdict
	object   string // such as a stream; empty: all of them
	observed string
	mend     string // command or setting; empty if there is nothing to mend
}

// evidence is everything that is judged.
type evidence struct {
	now       time.Time
	vendor    string // the only one to look at; empty: all
	offline   bool   // no partner is called
	config    Config
	configErr error
	given     int // variables that are set

	store    broker.StoreFacts
	storeErr error // the store key cannot be read
	own      bool  // the server was started for the doctor, so no worker can be on it
	disk     diskFacts
	files    []fileFacts
	// clientCertificateEnds is when our own certificate for NATS does; zero:
	// there is none.
	clientCertificateEnds time.Time

	natsErr error
	nats    *broker.Inspection // nil: not looked at

	stopped      map[string]stop // vendors that are not folded
	integrations []status.Integration
	recordsErr   error // the two above could not be read

	keyset    keysetFacts
	statement keyFacts
	sync      []syncView
	syncErr   error
	hosts     []hostFacts
}

// report is what the doctor says.
type report struct {
	Verdict  verdict         `json:"verdict"` // the worst of all
	At       time.Time       `json:"at"`
	Version  string          `json:"version"`
	Counts   map[verdict]int `json:"counts"` // of findings
	Findings []reported      `json:"findings"`
}

// reported is a finding as people and programs see it.
type reported struct {
	ID       string  `json:"id"`
	Title    string  `json:"title"`
	Object   string  `json:"object,omitempty"`
	Verdict  verdict `json:"verdict"`
	Observed string  `json:"observed"`
	Why      string  `json:"why"`
	Mend     string  `json:"mend,omitempty"`

	area string
}

// diagnose makes the checks.
func diagnose(e *evidence, all []check) report {
	r := report{Verdict: stepOK, At: e.now, Version: version(), Counts: map[verdict]int{}}
	for _, v := range severities {
		r.Counts[v] = 0
	}
	for _, c := range all {
		for _, f := range c.findings(e) {
			r.Counts[f.verdict]++
			r.Findings = append(r.Findings, reported{
				ID: c.id, Title: c.title, Object: printable(f.object), Verdict: f.verdict,
				Observed: printable(strings.ReplaceAll(f.observed, "\n", "; ")), Why: c.why, Mend: printable(f.mend), area: c.area(),
			})
		}
	}
	switch {
	case r.Counts[stepFailed] > 0:
		r.Verdict = stepFailed
	case r.Counts[stepWarning] > 0:
		r.Verdict = stepWarning
	}
	return r
}

func (c *check) findings(e *evidence) []symptom {
	if c.needs != nil {
		if reason := c.needs(e); reason != "" {
			return []symptom{{verdict: stepSkipped, observed: reason}}
		}
	}
	return c.judge(e)
}

// one is a single symptom about everything.
func one(v verdict, mend, format string, args ...any) []symptom {
	return []symptom{{verdict: v, observed: fmt.Sprintf(format, args...), mend: mend}}
}

// orFine is what was found, or that there was nothing to find.
func orFine(found []symptom, format string, args ...any) []symptom {
	if len(found) > 0 {
		return found
	}
	return one(stepOK, "", format, args...)
}

// What checks need.

func needConfig(e *evidence) string {
	if e.configErr != nil {
		return "the configuration is not valid"
	}
	return ""
}

// needServer is for what any NATS server shows.
func needServer(e *evidence) string {
	if reason := needConfig(e); reason != "" {
		return reason
	}
	if e.nats == nil {
		return "NATS was not reached"
	}
	return ""
}

// needTopology is for what Init has made.
func needTopology(e *evidence) string {
	if reason := needServer(e); reason != "" {
		return reason
	}
	switch {
	case e.nats.AccountErr != nil:
		return "JetStream does not answer"
	case len(e.nats.Vendors) == 0:
		return "no vendor is set up"
	}
	return ""
}

func needIntegrations(e *evidence) string {
	if reason := needTopology(e); reason != "" {
		return reason
	}
	switch {
	case e.recordsErr != nil:
		return "the integrations cannot be read"
	case len(e.integrations) == 0:
		return "no integration has been added"
	}
	return ""
}

func needPartner(e *evidence) string {
	if reason := needIntegrations(e); reason != "" {
		return reason
	}
	if e.offline {
		return "--offline was given"
	}
	return ""
}

// checks lists all of them in the order in which they are reported. Each area
// stands on those before it.
func checks() []check {
	return slices.Concat(localChecks(), serverChecks(), streamChecks(), vendorChecks(), integrationChecks())
}
