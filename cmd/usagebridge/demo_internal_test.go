package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// startDemo runs `usagebridge demo` with a temporary directory that is the
// test's own.
func startDemo(ctx context.Context, t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	var out, talk bytes.Buffer
	code = run(ctx, append([]string{"demo"}, args...), strings.NewReader(""), &out, &talk)
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: got %q (%v), want nothing", left, err)
	}
	return code, out.String(), talk.String()
}

func TestADemoShowsEveryFigureRight(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	code, stdout, stderr := startDemo(t.Context(), t, "--events", "2000", "--seed", "42", "--json")
	if code != exitDone {
		t.Fatalf("got exit code %d, want %d\n%s\n%s", code, exitDone, stdout, stderr)
	}
	var report demoReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("standard output is not JSON: %v\n%s", err, stdout)
	}
	plan := newDemoPlan(42, 2000, time.Now())
	if report.Seed != 42 || report.Published != plan.want.published() || total(report.DeadLetters) != plan.want.deadLetters() {
		t.Errorf("got seed %d, %d published, %d dead, want 42, %d, %d", report.Seed, report.Published, total(report.DeadLetters), plan.want.published(), plan.want.deadLetters())
	}
	if report.Calls == 0 || report.Calls > report.Published/2 {
		t.Errorf("got %d calls for %d events, want some, and fewer than half", report.Calls, report.Published)
	}
	for _, i := range report.Integrations {
		var way []string
		for _, step := range i.Steps {
			way = append(way, string(step.Status))
		}
		if got := strings.Join(way, " "); got != "inactive mapping connected" {
			t.Errorf("%s: got the way %q, want inactive mapping connected", i.Integration, got)
		}
	}
	if report.HeldAtMost == 0 {
		t.Error("no figure was held before the mapping")
	}
	goleak.VerifyNone(t, ignore)
}

func TestAnInterruptedDemoStopsAndLeavesNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	ctx, interrupt := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer interrupt()
	began := time.Now()
	code, stdout, _ := startDemo(ctx, t, "--events", "50000")
	if code != exitFailed || stdout != "" {
		t.Errorf("got exit code %d and output %q, want %d and none", code, stdout, exitFailed)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("stopping took %v", took)
	}
	goleak.VerifyNone(t, ignore)
}

func TestADemoRefusesASizeThatItCannotShow(t *testing.T) {
	code, _, stderr := startDemo(t.Context(), t, "--events", "3")
	if want := "--events 3: want 200 to 500000"; code != exitUsage || !strings.Contains(stderr, want) {
		t.Errorf("got exit code %d and %q, want %d and %q", code, stderr, exitUsage, want)
	}
}

func TestTheReportSaysWhatFailed(t *testing.T) {
	r := demoReport{Seed: 7, Size: 2000, Checks: []demoCheck{
		{Claim: "all is well", OK: true, Figures: "1,000 figures"},
		{Claim: "all is right", Figures: "2 figures", Problems: []string{"o / a / s: the partner has 1, want 2"}},
	}}
	var out bytes.Buffer
	if err := r.write(&out, palette{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"✓ all is well\n", "✗ all is right\n", "the partner has 1, want 2\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant a line with %q", out.String(), want)
		}
	}
	if err := r.verdict(); err == nil || !strings.Contains(err.Error(), "usagebridge demo --events 2000 --seed 7") {
		t.Errorf("got verdict %v, want the command that repeats it", err)
	}
	if r.OK = true; r.verdict() != nil {
		t.Errorf("got verdict %v, want nil", r.verdict())
	}
	full := &reportWriter{to: brokenPipe{}}
	if full.line("x"); !errors.Is(full.err, os.ErrClosed) {
		t.Errorf("got %v, want %v", full.err, os.ErrClosed)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestThousandsAreSetApart(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1: "-1", -123456: "-123,456"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, want %s", n, got, want)
		}
	}
}
