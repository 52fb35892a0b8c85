//go:build unix

// Gameday provokes every alert of deploy/prometheus for real: a Prometheus that
// scrapes two workers, a partner, nats-servers, and somebody who breaks them. It
// sees each alert fire, does what the runbook says with the program's own
// commands, and sees it resolve. An alert that no scenario provokes fails it.
//
// Nobody waits for a day: it works on a copy of the rules in which all times are
// scaled down, of each alert by a factor of its own, so that its longest time is
// about ten seconds. It deliberately judges no rule: whether a bound is the right
// one is for the tests of the rules and for whoever is paged.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
)

// options are the flags.
type options struct {
	prometheus string
	rules      string
	only       string
	transcript string
	boards     string
	draw       string
	dir        string
	program    string
	keep       bool
	list       bool
}

func main() {
	var o options
	flag.StringVar(&o.prometheus, "prometheus", "prometheus", "the Prometheus to start: a path, or a name in PATH")
	flag.StringVar(&o.rules, "rules", "deploy/prometheus/usagebridge.rules.yaml", "the rules whose alerts are provoked")
	flag.StringVar(&o.only, "only", "", "only scenarios of which an alert fits this regular expression")
	flag.StringVar(&o.transcript, "transcript", "", "Markdown file for what was done and seen")
	flag.StringVar(&o.boards, "boards", "deploy/grafana", "directory of the program that writes the boards and asks their queries, which it does at the end; empty: none")
	flag.StringVar(&o.draw, "draw", "", "directory for a page of each board with what it shows at the end; empty: none")
	flag.StringVar(&o.dir, "dir", "", "directory of everything that is started (default: a temporary one)")
	flag.StringVar(&o.program, "program", "", "usagebridge, if it is built already")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory of a good run, too")
	flag.BoolVar(&o.list, "list", false, "list the scenarios and the scaled rules, and start nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := gameday(ctx, o, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	codeGood  = iota
	codeAlert // an alert did not fire or did not resolve, or has no scenario
	codeUse
	codeBroken // the harness could not do its work
)

// gameday provokes what is to be provoked, and gives the exit code.
func gameday(ctx context.Context, o options, stdout, stderr io.Writer) int {
	g := &session{options: o, out: stdout}
	if err := g.plan(); err != nil {
		say(stderr, "gameday: %v\n", err)
		return codeUse
	}
	if o.list {
		return codeGood
	}
	err := g.run(ctx)
	switch {
	case ctx.Err() != nil:
		say(stderr, "gameday: interrupted\n")
		return codeBroken
	case err != nil:
		say(stderr, "gameday: %v\nkept in %s\n", err, g.dir)
		return codeBroken
	case g.bad > 0:
		say(stderr, "gameday: %d alerts did not do what they should; kept in %s\n", g.bad, g.dir)
		return codeAlert
	}
	if !o.keep {
		_ = os.RemoveAll(g.dir)
	}
	return codeGood
}

// say writes to a terminal or a file: nobody can be told that it failed.
func say(to io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(to, format, args...) }

// binaries are the programs that are started.
type binaries struct{ program, server, prometheus string }

// build builds and finds what is started.
func (g *session) build(ctx context.Context) (b binaries, err error) {
	if b.prometheus, err = exec.LookPath(g.options.prometheus); err != nil {
		return b, fmt.Errorf("%w: want -prometheus PATH, or Prometheus in PATH", err)
	}
	if b.server, err = natstest.Build(ctx); err != nil {
		return b, err
	}
	if b.program = g.program; b.program != "" {
		b.program, err = filepath.Abs(b.program)
		return b, err
	}
	b.program = filepath.Join(g.dir, "usagebridge")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.program, "./cmd/usagebridge") //nolint:gosec // our own program
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return b, fmt.Errorf("build usagebridge: %w: %s", err, out)
	}
	return b, nil
}

// chosen says whether the scenario is to be played.
func (g *session) chosen(s *scenario) bool {
	return slices.ContainsFunc(s.alerts, g.pattern.MatchString)
}

// plan reads the rules, holds the scenarios against them and scales them down.
func (g *session) plan() (err error) {
	if g.pattern, err = regexp.Compile(g.only); err != nil {
		return fmt.Errorf("-only %q: %w", g.only, err)
	}
	rules, err := readRules(g.rules)
	if err != nil {
		return err
	}
	ids, err := rules.alerts()
	if err != nil {
		return err
	}
	if err := unmatched(ids, scenarios()); err != nil {
		return err
	}
	spans := map[string]time.Duration{}
	for _, s := range scenarios() {
		for _, id := range s.alerts {
			if s.span > 0 {
				spans[id] = s.span
			}
		}
		if g.chosen(&s) {
			g.scenarios = append(g.scenarios, s)
		}
	}
	if len(g.scenarios) == 0 {
		return fmt.Errorf("-only %q: no alert fits; there are %q", g.only, ids)
	}
	var told []scaling
	if g.scaled, told, err = rules.scaledDown(usualSpan, spans); err != nil {
		return err
	}
	say(g.out, "%d alerts in %s; all times of the rules are scaled down:\n", len(ids), g.rules)
	for _, s := range told {
		say(g.out, "  %v\n", s)
	}
	return nil
}
