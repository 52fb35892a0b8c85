//go:build unix

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ruleFile is a file of rules for Prometheus, as far as it is used here.
type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name     string `yaml:"name"`
	Interval string `yaml:"interval,omitempty"`
	Rules    []rule `yaml:"rules"`
}

// rule is an alert, or a record.
type rule struct {
	Record        string            `yaml:"record,omitempty"`
	Alert         string            `yaml:"alert,omitempty"`
	Expr          string            `yaml:"expr"`
	For           string            `yaml:"for,omitempty"`
	KeepFiringFor string            `yaml:"keep_firing_for,omitempty"`
	Labels        map[string]string `yaml:"labels,omitempty"`
	Annotations   map[string]string `yaml:"annotations,omitempty"`
}

// id tells an alert's rules apart: its name and its labels' values, in the order
// of their names, such as "UsagebridgeFiguresLate page 1h".
func ruleID(alert string, labels map[string]string) string {
	words := []string{alert}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, labels[name])
	}
	return strings.Join(words, " ")
}

// readRules reads a file of rules. A field that Prometheus knows and this
// program does not is an error: it would be lost in the copy.
func readRules(path string) (*ruleFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	var f ruleFile
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); err != nil {
		return nil, fmt.Errorf("read the rules in %s: %w", path, err)
	}
	return &f, nil
}

// alerts lists the ids of the alerts. Two rules of the same name and labels are
// an error: neither Alertmanager nor whoever is paged can tell them apart.
func (f *ruleFile) alerts() (ids []string, err error) {
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			id := ruleID(r.Alert, r.Labels)
			if slices.Contains(ids, id) {
				return nil, fmt.Errorf("two rules are %q: want a label that tells them apart", id)
			}
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// unmatched says which alerts no scenario provokes, and which scenarios provoke
// an alert that is not there.
func unmatched(ids []string, all []scenario) error {
	var errs []error
	provoked := map[string]string{}
	for i := range all {
		for _, id := range all[i].alerts {
			switch {
			case provoked[id] != "" && len(all[i].where) == 0:
				errs = append(errs, fmt.Errorf("%s: two scenarios provoke it, %q and %q; want labels that tell its alerts apart", id, provoked[id], all[i].title))
			case !slices.Contains(ids, id):
				errs = append(errs, fmt.Errorf("%s: there is no such alert, and the scenario %q provokes it", id, all[i].title))
			}
			provoked[id] = all[i].title
		}
	}
	for _, id := range ids {
		if provoked[id] == "" {
			errs = append(errs, fmt.Errorf("%s: no scenario provokes it; add one to cmd/gameday", id))
		}
	}
	return errors.Join(errs...)
}

// scaling is by how much the times of an alert were scaled down.
type scaling struct {
	id      string // of the alert; "records" are all records
	longest time.Duration
	factor  float64
}

func (s scaling) String() string {
	return fmt.Sprintf("%-45s longest time %7s, times %.3g", s.id, shortly(s.longest), s.factor)
}

// shortly writes a duration with the largest unit that it is a multiple of.
func shortly(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit && d%u.unit == 0 {
			return fmt.Sprint(int(d/u.unit), u.name)
		}
	}
	return d.String()
}

// records is the name under which the factor of all records is told.
const records = "records"

// scaledDown is a copy of the rules in which the longest time of every alert is
// the target, or what spans says for it, and no alert's times are ever longer
// than they were. Records share one factor, and their bounds stay: how late is
// late is measured by the worker, not by the rules.
func (f *ruleFile) scaledDown(target time.Duration, spans map[string]time.Duration) (*ruleFile, []scaling, error) {
	var told []scaling
	common := scaling{id: records}
	for _, g := range f.Groups {
		for i := range g.Rules {
			if g.Rules[i].Record != "" {
				common.longest = max(common.longest, longest(g.Rules[i].Expr))
			}
		}
	}
	common.factor = factorOf(common.longest, target)
	told = append(told, common)
	out := &ruleFile{}
	for _, g := range f.Groups {
		copied := ruleGroup{Name: g.Name, Interval: "1s"}
		for i := range g.Rules {
			r := g.Rules[i]
			if r.Record != "" {
				r.Expr = scaled(r.Expr, common.factor, false)
				copied.Rules = append(copied.Rules, r)
				continue
			}
			s, err := r.scaleDown(target, spans)
			if err != nil {
				return nil, nil, err
			}
			told = append(told, s)
			copied.Rules = append(copied.Rules, r)
		}
		out.Groups = append(out.Groups, copied)
	}
	return out, told, nil
}

// scaleDown scales the times of an alert.
func (r *rule) scaleDown(target time.Duration, spans map[string]time.Duration) (scaling, error) {
	s := scaling{id: ruleID(r.Alert, r.Labels), longest: longest(r.Expr)}
	for _, text := range []string{r.For, r.KeepFiringFor} {
		if text == "" {
			continue
		}
		d, err := parseDuration(text)
		if err != nil {
			return s, fmt.Errorf("%s: %w", s.id, err)
		}
		s.longest = max(s.longest, d)
	}
	s.factor = factorOf(s.longest, cmp.Or(spans[s.id], target))
	r.Expr = scaled(r.Expr, s.factor, true)
	if r.For != "" {
		r.For = scaledDuration(r.For, s.factor, stepFloor)
	}
	if r.KeepFiringFor != "" {
		r.KeepFiringFor = scaledDuration(r.KeepFiringFor, s.factor, stepFloor)
	}
	return s, nil
}

func factorOf(longest, target time.Duration) float64 {
	if longest <= target {
		return 1
	}
	return target.Seconds() / longest.Seconds()
}

func (f *ruleFile) write(path string) error {
	text, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	return nil
}
