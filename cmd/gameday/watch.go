//go:build unix

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// watch looks at the alerts of a scenario.
type watch struct {
	prometheus *prometheus
	scenario   *scenario
	chapter    *chapter

	began           time.Time // of the provocation, or of the mending
	last            map[string]seenRule
	loud            []string
	fired, resolved map[string]time.Duration
}

// until looks, and does what is to be done again and again, until all alerts are
// as wanted or the time has passed.
func (a *watch) until(ctx context.Context, sustain func() error, most time.Duration, done func() bool) (bool, error) {
	deadline := time.Now().Add(most)
	for {
		if sustain != nil {
			if err := sustain(); err != nil {
				return false, err
			}
		}
		var err error
		if a.last, err = a.prometheus.rules(ctx); err != nil {
			return false, err
		}
		if done() {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		if !wait(ctx, look) {
			return false, ctx.Err()
		}
	}
}

// firings are the alerts of a rule that fire and are what the scenario is about.
func (a *watch) firings(id string) (all []firing) {
	for _, f := range a.last[id].Alerts {
		if f.State == "firing" && a.scenario.about(f.Labels) {
			all = append(all, f)
		}
	}
	return all
}

func (a *watch) allFired() bool {
	for _, id := range a.scenario.alerts {
		if _, seen := a.fired[id]; seen {
			continue
		}
		if now := a.firings(id); len(now) > 0 {
			a.fired[id] = time.Since(a.began)
			a.chapter.fired(id, a.fired[id], now[0])
		}
	}
	return len(a.fired) == len(a.scenario.alerts)
}

// allQuiet: none fires. An alert that fired and does no more has resolved.
func (a *watch) allQuiet() bool {
	a.loud = nil
	for _, id := range a.scenario.alerts {
		if len(a.firings(id)) > 0 {
			a.loud = append(a.loud, id)
			continue
		}
		_, hasFired := a.fired[id]
		if _, seen := a.resolved[id]; hasFired && !seen {
			a.resolved[id] = time.Since(a.began)
			a.chapter.note("**%s** resolved %.0f s later.", id, a.resolved[id].Seconds())
		}
	}
	return len(a.loud) == 0
}

// trouble says what Prometheus says against a rule.
func (a *watch) trouble(id string) string {
	r, ok := a.last[id]
	switch {
	case !ok:
		return "; Prometheus does not have it"
	case r.LastError != "":
		return "; Prometheus: " + r.LastError
	case len(r.Alerts) > 0:
		return fmt.Sprintf("; it is %s with %v", r.Alerts[0].State, r.Alerts[0].Labels)
	}
	return ""
}

// matches says whether the labels have all of the wanted ones.
func matches(labels, wanted map[string]string) bool {
	return !slices.ContainsFunc(slices.Collect(maps.Keys(wanted)), func(name string) bool { return labels[name] != wanted[name] })
}
