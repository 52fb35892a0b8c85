package deadletter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestPeopleChangeOnlyJobsThatHaveNotEnded(t *testing.T) {
	deeds := map[string]func(*Job) error{
		"pause": (*Job).Pause, "resume": (*Job).Resume, "cancel": func(j *Job) error { return j.Cancel(noon) },
	}
	results := map[string]JobState{"pause": Paused, "resume": Running, "cancel": Cancelled}
	for _, from := range []JobState{Running, Paused, Cancelled, Done} {
		for _, deed := range slices.Sorted(maps.Keys(deeds)) {
			j := Job{State: from}
			err := deeds[deed](&j)
			if from == Cancelled || from == Done {
				if !errors.Is(err, ErrEnded) || j.State != from || !j.Ended.IsZero() {
					t.Errorf("%s of a job that is %s: %s, %v; want it refused", deed, from, j.State, err)
				}
				continue
			}
			if err != nil || j.State != results[deed] || j.Ended.IsZero() != (deed != "cancel") {
				t.Errorf("%s of a job that is %s: %s, ended %v, %v; want %s", deed, from, j.State, j.Ended, err, results[deed])
			}
		}
	}
}

func TestAJobIsTakenOnlyWhenItShouldRunAndNobodyRunsIt(t *testing.T) {
	tests := []struct {
		name      string
		job       Job
		want      error
		takeovers int
	}{
		{"a new one", Job{State: Running}, nil, 0},
		{"one whose runner lives", Job{State: Running, Runner: "b", Beat: noon.Add(-beatLost + 1)}, ErrTaken, 0},
		{"one whose runner is lost", Job{State: Running, Runner: "b", Beat: noon.Add(-beatLost)}, nil, 1},
		{"its own", Job{State: Running, Runner: "a", Beat: noon}, nil, 0},
		{"one that rests", Job{State: Paused}, ErrNotRunning, 0},
		{"one that is done", Job{State: Done}, ErrNotRunning, 0},
		{"one that is cancelled", Job{State: Cancelled}, ErrNotRunning, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := tt.job
			err := j.take("a", 2, noon)
			if !errors.Is(err, tt.want) || j.Takeovers != tt.takeovers {
				t.Fatalf("got %v and %d take-overs, want %v and %d", err, j.Takeovers, tt.want, tt.takeovers)
			}
			if err == nil && (j.Runner != "a" || !j.Live(noon) || j.Pace != 2 || !j.Started.Equal(noon)) {
				t.Errorf("taken it is %+v, want it run by a at 2 a second since noon", j)
			}
		})
	}
}

func TestARunnerKeepsAJobThatIsSlowerThanItsBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 3 {
			w.park("o", event.ReasonInvalid, figure("o", fmt.Sprint(i)))
		}
		id := w.begin(Filter{}, 0, 100).ID
		over := make(chan Job)
		go func() {
			j, _ := (&site{world: w}).runner("slow", 1.0/60).Run(t.Context(), id) // its state says whether it failed
			over <- j
		}()
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case j := <-over:
				if j.State != Done || j.Replayed != 3 {
					t.Errorf("the job is %s with %d replayed, want it done, with 3", j.State, j.Replayed)
				}
				return
			case now := <-ticker.C:
				if j := w.job(id); j.Runner != "" && now.Sub(j.Beat) > beatEvery+saveEvery {
					t.Fatalf("the last beat is %v old, want at most %v", now.Sub(j.Beat), beatEvery+saveEvery)
				}
			}
		}
	})
}

func TestAJobSaysHowLongItTakes(t *testing.T) {
	j := Job{State: Running, Pace: 2, Letters: 30, Progress: Progress{Parts: []Part{
		{Letters: 20, Done: 10}, {Letters: 8, Done: 1}, {Letters: 100, Done: 2, Finished: true},
	}}}
	if got, want := j.Remaining(), 5*time.Second; got != want {
		t.Errorf("remaining %v, want %v: as long as the longest part", got, want)
	}
	j.Pace = 0
	if got := j.Remaining(); got != 0 {
		t.Errorf("remaining %v without a pace, want 0", got)
	}
	if got := j.Took(noon); got != 0 {
		t.Errorf("a job that nobody took has taken %v, want 0", got)
	}
	j.Started = noon.Add(-time.Minute)
	if got := j.Took(noon); got != time.Minute {
		t.Errorf("took %v, want 1m", got)
	}
	j.State, j.Ended, j.Replayed, j.Left = Done, noon.Add(-time.Second), 12, map[Obstacle]int{Refused: 2, NoOriginal: 1}
	if got := j.Took(noon); got != 59*time.Second || j.Remaining() != 0 {
		t.Errorf("took %v and %v remain, want 59s and 0", got, j.Remaining())
	}
	if j.Kept() != 3 || j.Gone() != 15 {
		t.Errorf("%d left and %d gone, want 3 and 15", j.Kept(), j.Gone())
	}
}

func TestAJobHasAShortIDThatSortsByTime(t *testing.T) {
	id := newJobID(time.Date(2026, 11, 21, 6, 55, 0, 0, time.UTC))
	if want := regexp.MustCompile(`^r-20261121-0655-[0-9a-f]{4}$`); !want.MatchString(id) {
		t.Errorf("got %q, want %s", id, want)
	}
	if later := newJobID(noon.AddDate(1, 0, 0)); later <= id {
		t.Errorf("%q does not come behind %q", later, id)
	}
}

func TestAJobOfTooManyIntegrationsIsRefusedBeforeItIsStored(t *testing.T) {
	p := &Plan{Letters: 20_000}
	for i := range 20_000 {
		p.Parts = append(p.Parts, Part{Vendor: "acme", Organization: fmt.Sprintf("msp-%05d", i), Letters: 1})
	}
	if _, err := NewJob(p, nil, "a", "w", noon); !errors.Is(err, ErrTooMany) || !strings.Contains(err.Error(), "20000 integrations") {
		t.Errorf("got %v, want %v", err, ErrTooMany)
	}
	p.Parts = p.Parts[:5000]
	if _, err := NewJob(p, nil, "a", "w", noon); err != nil {
		t.Errorf("5000 integrations: %v", err)
	}
}

func TestAJobReplaysWhatItsEditMakesOfTheLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.park("o", event.ReasonInvalid, strings.Replace(figure("o", "1"), "7}", "-7}", 1))
		w.park("o", event.ReasonInvalid, strings.Replace(figure("o", "2"), "7}", "-8}", 1))
		edit, err := ParseEdit([]byte(`[{"op":"test","path":"/data/unitCount","value":-7},{"op":"replace","path":"/data/unitCount","value":7}]`))
		if err != nil {
			t.Fatal(err)
		}
		judge := w.judge()
		judge.Edit = edit
		plan, err := NewPlan(t.Context(), w.each, judge, PlanConfig{Share: 100, Now: noon})
		if err != nil || plan.Published() != 1 || plan.Left[EditFails] != 1 {
			t.Fatalf("got %d to publish, left %v, %v; want 1 and 1 that the edit does not fit", plan.Published(), plan.Left, err)
		}
		job, err := NewJob(plan, edit, "a", "w", noon)
		if err != nil {
			t.Fatal(err)
		}
		w.put(job)
		j, err := (&site{world: w}).runner("w", 0).Run(context.Background(), job.ID)
		if err != nil || j.Replayed != 1 || j.Left[EditFails] != 1 || len(w.letters) != 1 || w.letters[0].Sequence != 2 {
			t.Errorf("%d replayed, left %v, there %v, %v; want the first replayed, the second there", j.Replayed, j.Left, w.letters, err)
		}
	})
}
