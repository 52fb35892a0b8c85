package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

// replaySite is a store with dead letters, and no worker but the replayers
// that a test starts.
func replaySite(t *testing.T) *app {
	t.Helper()
	config, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.StoreDir, config.NATSListen, config.NATSURL = filepath.Join(t.TempDir(), "store"), "127.0.0.1:-1", ""
	config.PartnerRate = 100
	a, err := openApp(t.Context(), config, newLogger(t.Output(), "warn", "text"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	if _, err := a.broker.Init(t.Context(), broker.InitConfig{Vendor: "acme", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	return a
}

// parkFigures parks one letter for each account from 0 to n-1 of some
// organizations, as if its time had been too far ahead once.
func parkFigures(t *testing.T, a *app, n, organizations int) {
	t.Helper()
	letters := make([]event.Letter, n)
	for i := range letters {
		e := event.Event{
			ID: fmt.Sprint(i), Source: "//test", Type: event.TypeCount, Time: time.Now().Add(-time.Hour), Vendor: "acme",
			Organization: fmt.Sprint("o", i%organizations), Data: event.Count{AccountID: fmt.Sprint("a", i), ServiceID: "s"},
		}
		letters[i] = event.Letter{
			Vendor: "acme", Organization: e.Organization, Fault: event.Fault{Reason: event.ReasonTooFarAhead, Problem: "time is in the future"},
			Original: event.Message{Subject: e.Subject().String(), Data: e.Structured(), Stream: broker.EventsStream("acme"), Sequence: uint64(i + 1)},
			Parked:   time.Now(),
		}
	}
	if err := a.broker.Park(t.Context(), letters); err != nil {
		t.Fatal(err)
	}
}

// replayUntil lets a replayer run until the job is as it should be.
func replayUntil(t *testing.T, a *app, id string, enough func(*deadletter.Job) bool) (j deadletter.Job) {
	t.Helper()
	bucket, err := a.replays(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- (&engine{app: a}).replays(ctx) }()
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for ; !enough(&j); <-ticker.C {
		if j, _, err = bucket.Get(ctx, id); err != nil {
			t.Fatalf("the replay is %+v, and then: %v", j, err)
		}
	}
	cancel()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	if j, _, err = bucket.Get(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return j
}

func TestAReplayGoesOnInAnotherWorkerAndPublishesEachEventOnce(t *testing.T) {
	const letters = 300
	a := replaySite(t)
	parkFigures(t, a, letters, 3)
	plan, err := deadletter.NewPlan(t.Context(), a.lettersToReplay, a.judge(nil), deadletter.PlanConfig{Share: 100, Rate: 100, Now: time.Now()})
	if err != nil || plan.Outcomes[deadletter.Applies] != letters {
		t.Fatalf("the plan is %+v, %v; want all letters to apply", plan, err)
	}
	job, err := deadletter.NewJob(plan, nil, "someone", "a reason", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := a.replays(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Create(t.Context(), job.ID, job); err != nil {
		t.Fatal(err)
	}
	j := replayUntil(t, a, job.ID, func(j *deadletter.Job) bool { return j.Replayed > 0 })
	if j.State != deadletter.Running || j.Runner != "" || j.Replayed == letters {
		t.Errorf("after a graceful stop the replay is %s, run by %q, with %d of %d replayed; want it free and in between", j.State, j.Runner, j.Replayed, letters)
	}
	j = replayUntil(t, a, job.ID, func(j *deadletter.Job) bool { return j.State == deadletter.Done })
	if j.Replayed != letters || j.Kept() != 0 || j.Gone() != 0 || j.Takeovers != 0 {
		t.Errorf("%d replayed, %d left, %d gone, %d take-overs; want %d, 0, 0, 0", j.Replayed, j.Kept(), j.Gone(), j.Takeovers, letters)
	}
	seen := map[string]int{}
	err = a.broker.ReadLog(t.Context(), "acme", []string{"usage.v1.>"}, func(m event.Message) error {
		m.Sequence = 0 // the originals are made up: some come later than their replays
		for _, r := range event.Decode(m, event.Limits{}) {
			if r.Event == nil || r.Event.ReplayOf == "" {
				t.Errorf("%s is no replay: %v", m.Data, r.Fault)
				continue
			}
			seen[r.Event.ID]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range letters {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("event %d is %d times in the log, want once", i, n)
		}
	}
	err = a.broker.Letters(t.Context(), broker.LetterFilter{}, func(l broker.StoredLetter) error {
		t.Errorf("letter %s is still there", l.ID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAReplayIsOnRecordWithItsFilterAndItsFigures(t *testing.T) {
	a := replaySite(t)
	parkFigures(t, a, 4, 2)
	t.Setenv("USAGEBRIDGE_NATS_URL", a.embedded.ClientURL())
	t.Setenv("USAGEBRIDGE_STORE_DIR", a.config.StoreDir)
	var stdout, stderr strings.Builder
	command := func(args ...string) {
		t.Helper()
		stdout.Reset()
		stderr.Reset()
		if code := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); code != exitDone {
			t.Fatalf("%v ended with %d: %s", args, code, stderr.String())
		}
	}
	command("dlq", "replay", "--integration", "acme/o1", "--yes", "--why", "they are right now", "--detach", "--json")
	var job deadletter.Job
	if err := json.Unmarshal([]byte(stdout.String()), &job); err != nil {
		t.Fatalf("%v: %s", err, stdout.String())
	}
	command("dlq", "replays", "pause", job.ID, "--why", "lunch")
	bucket, err := broker.OpenBucket[deadletter.Job](t.Context(), a.broker, broker.BucketReplays)
	if err != nil {
		t.Fatal(err)
	}
	if j, _, err := bucket.Get(t.Context(), job.ID); err != nil || j.State != deadletter.Paused || j.Letters != 2 {
		t.Errorf("stored is %+v, %v; want it paused, of 2 letters", j, err)
	}
	var got []string
	for _, done := range audited(t, a) {
		got = append(got, strings.Join([]string{done.Action, done.Integration, done.Object, done.Why, done.Detail}, "|"))
	}
	want := []string{
		fmt.Sprintf("replayed|acme/o1|%s|they are right now|filter vendor=acme organization=o1; 2 letters", job.ID),
		fmt.Sprintf("replay paused||%s|lunch|was running; 0 of 2 letters replayed", job.ID),
	}
	if !slices.Equal(got, want) {
		t.Errorf("on record %q\nwant      %q", got, want)
	}
}
