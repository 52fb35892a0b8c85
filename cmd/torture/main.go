//go:build unix

// Torture plays random schedules of faults against real processes: servers and
// workers that are killed, stopped and cut off, a partner that fails in every
// way, publishers that repeat and reorder. After each it waits until all is
// quiet and checks the design's invariants against a model of its own.
//
// It deliberately shares no code with what it judges: neither how events are
// decoded nor how they are folded. Of the broker it uses what reads dead letters
// and the ledger's states, the latter only to see when all is quiet. It needs no
// rights: a full disk is played by a stream that takes no more bytes, a slow one
// by a server that is stopped and continued in turns.
//
// A schedule follows from its seed alone. When the faults hit the program does
// not: a failure that depends on a moment may need its seed several times.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
)

// options are the flags.
type options struct {
	seed    uint64
	runs    int
	repeat  int
	minutes float64
	nodes   int
	dir     string
	keep    bool
	goOn    bool
	worker  string
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the first schedule; the next has the next number")
	flag.IntVar(&o.runs, "runs", 0, "how many schedules; 0: as many as fit into -minutes")
	flag.IntVar(&o.repeat, "repeat", 1, "how often each schedule is played: what it does to the program depends on moments")
	flag.Float64Var(&o.minutes, "minutes", 1, "how long to begin new schedules, if -runs is 0")
	flag.IntVar(&o.nodes, "nodes", 1, "servers: 1, or 3 as a cluster")
	flag.StringVar(&o.dir, "dir", "", "directory of the runs (default: a temporary one)")
	flag.StringVar(&o.worker, "worker", "", "the program, if it is built already")
	flag.BoolVar(&o.goOn, "go-on", false, "go on after a violation")
	flag.BoolVar(&o.keep, "keep", false, "keep the directories of good runs, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := torture(ctx, o, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	codeGood = iota
	codeViolation
	codeUse
	codeBroken // the harness could not do its work
)

// torture runs schedules until one fails, and gives the exit code.
func torture(ctx context.Context, o options, stdout, stderr io.Writer) int {
	if o.nodes != 1 && o.nodes != 3 || o.repeat < 1 || flag.NArg() > 0 {
		say(stderr, "-nodes %d -repeat %d %v: want 1 or 3 servers, 1 time or more, and no arguments\n", o.nodes, o.repeat, flag.Args())
		return codeUse
	}
	dir, err := os.MkdirTemp(o.dir, "torture-")
	if err != nil {
		say(stderr, "%v\n", err)
		return codeBroken
	}
	t := session{options: o, dir: dir, began: time.Now(), out: stdout}
	if t.bins, err = build(ctx, dir, o.worker); err == nil {
		err = t.run(ctx)
	}
	switch {
	case err != nil:
		say(stderr, "%v\n", err)
		return codeBroken
	case t.bad > 0:
		return codeViolation
	}
	if !o.keep {
		_ = os.RemoveAll(dir)
	}
	return codeGood
}

// say writes to a terminal or a log: nobody can be told that it failed.
func say(to io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(to, format, args...) }

// session is one schedule after the other.
type session struct {
	options

	dir   string
	bins  binaries
	began time.Time
	out   io.Writer

	runs, bad, events, calls int
}

// more says whether another schedule is to be run.
func (t *session) more() bool {
	switch {
	case t.bad > 0 && !t.goOn:
		return false
	case t.options.runs > 0:
		return t.runs < t.options.runs*t.repeat
	}
	return time.Since(t.began).Minutes() < t.minutes
}

// run runs schedules while there is to be more. An error is of the harness.
func (t *session) run(ctx context.Context) error {
	for ; t.more(); t.runs++ {
		s := draw(t.seed+uint64(t.runs/t.repeat), t.nodes)
		dir := filepath.Join(t.dir, fmt.Sprintf("seed-%d-%d", s.seed, t.runs%t.repeat+1))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		o, err := run(ctx, dir, t.bins, s)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			return fmt.Errorf("seed %d: the harness failed: %w\n%vkept in %s", s.seed, err, s, dir)
		}
		t.tell(o)
		if len(o.violations) == 0 && !t.keep {
			_ = os.RemoveAll(dir)
		}
	}
	say(t.out, "%d schedules, %d events, %d calls, %d schedules with violations, %.0fs\n",
		t.runs, t.events, t.calls, t.bad, time.Since(t.began).Seconds())
	return nil
}

// tell says what a run came to, and all about it if that is bad.
func (t *session) tell(o outcome) {
	t.events, t.calls = t.events+o.events, t.calls+o.calls
	say(t.out, "seed %d: %d events, %d calls, %d letters, at rest %.1fs after the storm, %d violations, %.1fs\n",
		o.schedule.seed, o.events, o.calls, o.letters, o.settled.Seconds(), len(o.violations), o.took.Seconds())
	if len(o.violations) == 0 {
		return
	}
	t.bad++
	for _, v := range o.violations {
		say(t.out, "VIOLATION %v\n", v)
	}
	say(t.out, "%vkept in %s\nagain: make torture SEED=%d RUNS=1 NODES=%d, with ARGS='-repeat 10' if that finds nothing\n", o.schedule, o.dir, o.schedule.seed, t.nodes)
}

// build builds what a run starts.
func build(ctx context.Context, dir, worker string) (b binaries, err error) {
	if b.server, err = natstest.Build(ctx); err != nil || worker != "" {
		b.worker = worker
		return b, err
	}
	b.worker, b.jumping = filepath.Join(dir, "usagebridge"), filepath.Join(dir, "usagebridge-jumping")
	if err := goBuild(ctx, b.worker); err != nil {
		return b, err
	}
	goroot, err := goEnv(ctx, "GOROOT")
	if err != nil {
		return b, err
	}
	edited, err := overlay(ctx, dir, clockEdits(goroot)...)
	if err != nil {
		return b, err
	}
	return b, goBuild(ctx, b.jumping, edited)
}

// program is the package of the worker.
const program = "github.com/usagebridge/usagebridge/cmd/usagebridge"

// goBuild builds the program, with flags, into a file.
func goBuild(ctx context.Context, path string, flags ...string) error {
	args := append(append([]string{"build", "-o", path}, flags...), program)
	build := exec.CommandContext(ctx, "go", args...)              //nolint:gosec // a build of our own program
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=") // flags such as -race are for the tests alone
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w: %s", err, out)
	}
	return nil
}
