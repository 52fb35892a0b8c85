//go:build unix

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

const (
	// usualSpan is what the longest time of an alert is scaled down to.
	usualSpan = 10 * time.Second
	// fireWait bounds how long an alert may take to fire, resolveWait to resolve:
	// a worker looks at NATS every 30 s.
	fireWait    = 60 * time.Second
	resolveWait = 120 * time.Second
	// look is how often Prometheus is asked.
	look = 500 * time.Millisecond
)

// session is one run.
type session struct {
	options

	out       io.Writer
	pattern   *regexp.Regexp
	scenarios []scenario
	scaled    *ruleFile

	bins       binaries
	instances  []instance
	prometheus *prometheus
	world      *world // nil: none is open
	worlds     int
	report     transcript
	bad        int
	began      time.Time
}

// run plays the scenarios. An error is of the harness.
func (g *session) run(ctx context.Context) (err error) {
	if g.dir, err = os.MkdirTemp(g.dir, "gameday-"); err != nil {
		return err
	}
	if g.bins, err = g.build(ctx); err != nil {
		return err
	}
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return err
	}
	for i, port := range ports {
		g.instances = append(g.instances, instance{fmt.Sprint("worker-", i+1), fmt.Sprint("127.0.0.1:", port)})
	}
	rules := filepath.Join(g.dir, "rules.yaml")
	if err := g.scaled.write(rules); err != nil {
		return err
	}
	if g.prometheus, err = startPrometheus(ctx, g.bins.prometheus, g.dir, rules, g.instances); err != nil {
		return err
	}
	defer g.prometheus.close()
	g.began = time.Now()
	defer g.leave()
	for i := range g.scenarios {
		s := &g.scenarios[i]
		err := g.play(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			say(g.out, "BAD   %v: it could not be played: %v\n", s.alerts, err)
			g.bad += len(s.alerts)
			g.leave() // who knows what it is like there
		}
	}
	if err := g.askBoards(ctx); err != nil {
		return err
	}
	return g.report.write(g.transcript)
}

// leave closes the world that is open, if any.
func (g *session) leave() {
	if g.world != nil {
		g.world.close()
		g.world = nil
	}
}

// enter gives a world of that kind: the one that is open, or a fresh one.
func (g *session) enter(ctx context.Context, s setting) error {
	if g.world != nil && g.world.setting == s {
		return nil
	}
	g.leave()
	g.worlds++
	dir := filepath.Join(g.dir, fmt.Sprint("world-", g.worlds))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w, err := openWorld(ctx, dir, s, g.bins, g.instances)
	if err == nil {
		g.world = w
	}
	return err
}

// play plays a scenario and tells what became of its alerts.
func (g *session) play(ctx context.Context, s *scenario) error {
	if err := g.enter(ctx, cmp.Or(s.setting, usual)); err != nil {
		return err
	}
	st := &stage{world: g.world, chapter: g.report.chapter(s)}
	a := &watch{prometheus: g.prometheus, scenario: s, chapter: st.chapter, fired: map[string]time.Duration{}, resolved: map[string]time.Duration{}}
	quiet, err := a.until(ctx, nil, resolveWait, a.allQuiet)
	if err != nil {
		return err
	}
	if !quiet {
		st.chapter.note("Before anything was done it fired already: %v", a.loud)
		g.tell(s, a, "fires although nothing was done")
		return nil
	}
	if s.prepare != nil {
		if err := s.prepare(ctx, st); err != nil {
			return err
		}
	}
	a.began = time.Now()
	if err := s.provoke(ctx, st); err != nil {
		return err
	}
	sustain := func() error {
		if s.sustain == nil {
			return nil
		}
		return s.sustain(ctx, st)
	}
	fired, err := a.until(ctx, sustain, fireWait, a.allFired)
	if err != nil {
		return err
	}
	a.began = time.Now()
	if err := s.mend(ctx, st); err != nil {
		return err
	}
	resolved, err := a.until(ctx, nil, resolveWait, a.allQuiet)
	if err != nil {
		return err
	}
	if s.after != nil {
		if err := s.after(ctx, st); err != nil {
			return err
		}
	}
	switch {
	case !fired:
		g.tell(s, a, fmt.Sprintf("did not fire within %v", fireWait))
	case !resolved:
		g.tell(s, a, fmt.Sprintf("did not resolve within %v", resolveWait))
	default:
		g.tell(s, a, "")
	}
	return nil
}

// tell writes a line for every alert of the scenario.
func (g *session) tell(s *scenario, a *watch, wrong string) {
	for _, id := range s.alerts {
		fired, hasFired := a.fired[id]
		resolved, hasResolved := a.resolved[id]
		trouble := a.trouble(id)
		for _, label := range slices.Sorted(maps.Keys(s.where)) {
			id += " " + s.where[label]
		}
		switch {
		case hasFired && hasResolved:
			say(g.out, "ok    %-62s fired after %4.1f s, resolved after %4.1f s\n", id, fired.Seconds(), resolved.Seconds())
		case hasFired:
			say(g.out, "BAD   %-62s fired after %4.1f s, %s\n", id, fired.Seconds(), wrong)
			g.bad++
		default:
			say(g.out, "BAD   %-62s %s%s\n", id, wrong, trouble)
			g.bad++
		}
	}
}

// askBoards has the program of the boards ask all their queries, while there is
// a cut-off and something waits for it.
func (g *session) askBoards(ctx context.Context) error {
	if g.boards == "" || g.world == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(g.boards, "main.go")); err != nil {
		say(g.out, "boards: not asked: %v\n", err)
		return nil
	}
	if err := waitForCutoff(ctx, &stage{world: g.world, chapter: &chapter{}}); err != nil {
		return err
	}
	if !wait(ctx, usualSpan) { // until it is scraped, and every partition has a worker again
		return ctx.Err()
	}
	args := []string{"run", ".", "-ask", g.prometheus.url, "-range", max(time.Since(g.began).Round(time.Second), time.Minute).String(), "-vendor", vendor, "-organization", "msp-1"}
	if g.only == "" {
		args = append(args, "-strict") // whatever can be shown was shown
	}
	if g.draw != "" {
		draw, err := filepath.Abs(g.draw)
		if err != nil {
			return err
		}
		args = append(args, "-draw", draw)
	}
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // ours
	cmd.Dir = g.boards
	out, err := cmd.CombinedOutput()
	say(g.out, "boards:\n%s", out)
	if err != nil {
		say(g.out, "BAD   boards: %v\n", err)
		g.bad++
	}
	return nil
}
