// Package deadletter says which dead letters a person means, and plans and
// runs their replay.
//
// It deliberately knows neither where letters are kept nor how an event is
// published again.
package deadletter

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Filter chooses dead letters. Zero fields choose everything; all that are set
// must hold. It is stored with a replay, so its times are points in time.
type Filter struct {
	Vendor       string       `json:"vendor,omitempty"`
	Organization string       `json:"organization,omitempty"`
	Reason       event.Reason `json:"reason,omitempty"`
	Fingerprint  string       `json:"fingerprint,omitempty"` // as event.Letter.Fingerprint writes it
	// Key is a key as KeyOf writes it. A * at its end stands for any rest.
	Key     string   `json:"key,omitempty"`
	EventID string   `json:"event_id,omitempty"`
	IDs     []string `json:"ids,omitempty"` // as event.Letter.Place writes them; one of them must be the letter's
	// Since and Until bound when the letter was parked: at or after, and before.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Text is to be found in the problem, the partner's answer, the event's id,
	// the key or the body, in upper or lower case.
	Text string `json:"text,omitempty"`
}

// IsZero reports whether the filter chooses every letter.
func (f Filter) IsZero() bool {
	return f.Vendor == "" && f.Organization == "" && f.Reason == "" && f.Fingerprint == "" && f.Key == "" && f.EventID == "" &&
		len(f.IDs) == 0 && f.Since.IsZero() && f.Until.IsZero() && f.Text == ""
}

// Match reports whether the filter chooses the letter. What is dear to find
// out comes last.
func (f Filter) Match(l *event.Letter) bool {
	switch {
	case f.Vendor != "" && f.Vendor != l.Vendor,
		f.Organization != "" && f.Organization != l.Organization,
		f.Reason != "" && f.Reason != l.Fault.Reason,
		!f.Since.IsZero() && l.Parked.Before(f.Since),
		!f.Until.IsZero() && !l.Parked.Before(f.Until),
		len(f.IDs) > 0 && !slices.Contains(f.IDs, l.Place()),
		f.Key != "" && !matchKey(f.Key, KeyOf(l)),
		f.Fingerprint != "" && f.Fingerprint != l.Fingerprint():
		return false
	}
	if f.EventID != "" {
		if id, _ := Identity(l); id != f.EventID {
			return false
		}
	}
	return f.Text == "" || matchText(f.Text, l)
}

func matchKey(pattern, key string) bool {
	if prefix, open := strings.CutSuffix(pattern, "*"); open {
		return strings.HasPrefix(key, prefix)
	}
	return pattern == key
}

func matchText(text string, l *event.Letter) bool {
	text = strings.ToLower(text)
	id, _ := Identity(l)
	for _, place := range []string{l.Fault.Problem, l.Answer, id, KeyOf(l)} {
		if strings.Contains(strings.ToLower(place), text) {
			return true
		}
	}
	return bytes.Contains(bytes.ToLower(l.Original.Data), []byte(text))
}

// The names of the terms, in the order in which String writes them.
const (
	termVendor       = "vendor"
	termIntegration  = "integration"
	termOrganization = "organization"
	termReason       = "reason"
	termFingerprint  = "fingerprint"
	termKey          = "key"
	termEvent        = "event"
	termID           = "id"
	termSince        = "since"
	termUntil        = "until"
	termText         = "text"
)

// TermNames lists the names of all terms that ParseFilter knows.
func TermNames() []string {
	return []string{
		termVendor, termIntegration, termOrganization, termReason, termFingerprint,
		termKey, termEvent, termID, termSince, termUntil, termText,
	}
}

// ParseFilter reads terms NAME=VALUE, such as reason=invalid. Each name may
// come once, but for id: a letter then has one of the ids. An integration is
// vendor and organization in one, and may stand beside either as long as both
// say the same. since and until are times of RFC 3339, or say how long before
// now, such as 2h or 7d. The error joins everything that is wrong.
func ParseFilter(terms []string, now time.Time) (Filter, error) {
	p := filterParser{now: now, seen: map[string]bool{}}
	for _, term := range terms {
		p.take(term)
	}
	f := &p.filter
	f.Vendor = p.agree(termVendor, f.Vendor, p.vendor)
	f.Organization = p.agree(termOrganization, f.Organization, p.organization)
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		p.fail("since %s is not before until %s: no letter is parked in between", moment(f.Since), moment(f.Until))
	}
	slices.Sort(f.IDs)
	f.IDs = slices.Compact(f.IDs)
	if err := errors.Join(p.errs...); err != nil {
		return Filter{}, err
	}
	return *f, nil
}

type filterParser struct {
	filter               Filter
	vendor, organization string // of the integration
	now                  time.Time
	seen                 map[string]bool
	errs                 []error
}

func (p *filterParser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

// agree is what two terms say of one field.
func (p *filterParser) agree(name, own, integration string) string {
	switch {
	case own == "":
		return integration
	case integration != "" && integration != own:
		p.fail("%s %q and integration %q contradict each other: give one of them", name, own, p.vendor+"/"+p.organization)
	}
	return own
}

func (p *filterParser) take(term string) {
	name, value, found := strings.Cut(term, "=")
	known := slices.Contains(TermNames(), name)
	switch {
	case !found:
		p.fail("filter %q: want NAME=VALUE with a name of %s", term, strings.Join(TermNames(), ", "))
	case !known:
		p.fail("filter %q: %q is no name: want one of %s", term, name, strings.Join(TermNames(), ", "))
	case p.seen[name] && name != termID:
		p.fail("filter %q: %s is given more than once: all terms must hold, and a letter has one", term, name)
	case value == "":
		p.fail("filter %q: the value is empty: leave the term out to choose every letter", term)
	default:
		p.seen[name] = true
		if err := p.set(name, value); err != nil {
			p.fail("filter %q: %w", term, err)
		}
	}
}

func (p *filterParser) set(name, value string) (err error) {
	f := &p.filter
	switch name {
	case termVendor:
		f.Vendor, err = value, event.CheckID(value)
	case termOrganization:
		f.Organization, err = value, event.CheckID(value)
	case termIntegration:
		p.vendor, p.organization, err = cutIntegration(value)
	case termReason:
		f.Reason, err = parseReason(value)
	case termFingerprint:
		f.Fingerprint, err = value, checkFingerprint(value)
	case termKey:
		f.Key, err = value, checkKey(value)
	case termEvent:
		f.EventID = value
	case termID:
		f.IDs, err = append(f.IDs, value), checkPlace(value)
	case termSince:
		f.Since, err = ParseMoment(value, p.now)
	case termUntil:
		f.Until, err = ParseMoment(value, p.now)
	case termText:
		f.Text = value
	}
	return err
}

// cutIntegration reads vendor/organization; the organization may have slashes.
func cutIntegration(value string) (vendor, organization string, err error) {
	vendor, organization, found := strings.Cut(value, "/")
	if !found || event.CheckID(vendor) != nil || event.CheckID(organization) != nil {
		return "", "", errors.New("want vendor/organization, such as acme/msp-0042")
	}
	return vendor, organization, nil
}

func parseReason(value string) (event.Reason, error) {
	reasons := event.Reasons()
	if !slices.Contains(reasons, event.Reason(value)) {
		names := make([]string, len(reasons))
		for i, r := range reasons {
			names[i] = string(r)
		}
		return "", fmt.Errorf("want one of %s", strings.Join(names, ", "))
	}
	return event.Reason(value), nil
}

func checkFingerprint(value string) error {
	if !event.IsFingerprint(value) {
		return errors.New("want 8 hex digits in lower case, as `usagebridge dlq ls` shows them")
	}
	return nil
}

func checkPlace(value string) error {
	stream, spot, _ := strings.Cut(value, "/")
	arrival, figure, ofMany := strings.Cut(spot, "_")
	if _, err := event.ParseArrival(arrival); err != nil || event.CheckID(stream) != nil || ofMany && !event.IsFingerprint(figure) {
		return errors.New("want the id as `usagebridge dlq ls --each` shows it, such as EVENTS_acme/4711, EVENTS_acme/4711-3 or EVENTS_acme/4711_0a1b2c3d")
	}
	return nil
}

// day is what no unit of package time is.
const day = 24 * time.Hour

// ParseMoment reads a point in time as people give it: a time (RFC 3339), or
// how long before now, such as 2h or 7d. It is not before 1970; the error says
// what would be right.
func ParseMoment(value string, now time.Time) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		var age time.Duration
		age, err = parseAge(value)
		t = now.Add(-age)
	}
	if t = t.UTC(); err != nil || t.Year() < 1970 {
		return time.Time{}, errors.New("want a time such as 2026-11-20T12:00:00Z, or how long ago, such as 2h or 7d")
	}
	return t, nil
}

func parseAge(value string) (time.Duration, error) {
	if days, found := strings.CutSuffix(value, "d"); found {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * day, err
	}
	age, err := time.ParseDuration(value)
	if age < 0 {
		return 0, errors.New("is in the future")
	}
	return age, err
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// Terms writes the filter as ParseFilter reads it, always in the same order.
func (f Filter) Terms() []string {
	var terms []string
	add := func(name, value string) {
		if value != "" {
			terms = append(terms, name+"="+value)
		}
	}
	add(termVendor, f.Vendor)
	add(termOrganization, f.Organization)
	add(termReason, string(f.Reason))
	add(termFingerprint, f.Fingerprint)
	add(termKey, f.Key)
	add(termEvent, f.EventID)
	for _, id := range slices.Sorted(slices.Values(f.IDs)) {
		add(termID, id)
	}
	if !f.Since.IsZero() {
		add(termSince, moment(f.Since))
	}
	if !f.Until.IsZero() {
		add(termUntil, moment(f.Until))
	}
	add(termText, f.Text)
	return terms
}

// String writes the terms with a blank between them, a value in quotes where
// it would not be clear otherwise. SplitTerms reads it back.
func (f Filter) String() string {
	terms := f.Terms()
	for i, term := range terms {
		name, value, _ := strings.Cut(term, "=")
		if quoted := strconv.Quote(value); strings.Contains(value, " ") || quoted[1:len(quoted)-1] != value {
			terms[i] = name + "=" + quoted
		}
	}
	return strings.Join(terms, " ")
}

// SplitTerms cuts what Filter.String writes into the terms that ParseFilter
// reads.
func SplitTerms(text string) ([]string, error) {
	var terms []string
	for rest := strings.TrimLeft(text, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		name, value, found := strings.Cut(rest, "=")
		if quoted, err := strconv.QuotedPrefix(value); found && err == nil {
			plain, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, fmt.Errorf("filter %q: %w", rest, err)
			}
			terms, rest = append(terms, name+"="+plain), value[len(quoted):]
			if rest != "" && rest[0] != ' ' {
				return nil, fmt.Errorf("filter %q: want a blank behind the quotes", value)
			}
			continue
		}
		var term string
		term, rest, _ = strings.Cut(rest, " ")
		terms = append(terms, term)
	}
	return terms, nil
}
