package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// world is everything outside of a runner: letters, log, ledger and jobs.
type world struct {
	mu       sync.Mutex
	letters  []StoredLetter // by place
	log      map[string]time.Time
	order    []string // ids of the log
	entries  map[ledger.Key]ledger.Entry
	jobs     map[string][]byte // as JSON, as a bucket keeps them
	problems []string
	held     int // letters read and neither dropped nor judged as staying
	most     int
}

func newWorld() *world {
	return &world{log: map[string]time.Time{}, entries: map[ledger.Key]ledger.Entry{}, jobs: map[string][]byte{}}
}

// park adds a letter of an organization with a figure for an account.
func (w *world) park(organization string, reason event.Reason, body string) StoredLetter {
	at := uint64(len(w.letters) + 1)
	l := StoredLetter{Sequence: at, Letter: event.Letter{
		Vendor: "acme", Organization: organization, Fault: event.Fault{Reason: reason, Problem: "it was wrong"},
		Original: event.Message{
			Subject: "usage.v1.acme." + event.Escape(organization) + ".count.a.s", Stream: "EVENTS_acme", Sequence: 100 + at,
			Data: []byte(body), Stored: noon,
		},
		Parked: noon,
	}}
	w.letters = append(w.letters, l)
	return l
}

// figure is an event that can be applied, under an id.
func figure(organization, id string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"//s","type":"usage.count.v1","time":"2026-11-20T11:00:00Z",`+
		`"data":{"vendorId":"acme","organizationId":%q,"accountId":"a","serviceId":"s","unitCount":7}}`, id, organization)
}

// count is the meaning of a count: one key gets one figure.
func count(e *event.Event) ([]ledger.Operation, error) {
	c, ok := e.Data.(event.Count)
	if !ok {
		return nil, &event.Fault{Reason: event.ReasonUnknownType, Problem: "this version does not fold " + e.Type}
	}
	return []ledger.Operation{{
		Key:     ledger.CountKey(e.Organization, c.AccountID, c.ServiceID),
		Version: ledger.Version{Time: e.Time.UnixNano(), Arrival: uint64(e.Arrival)},
		Value:   ledger.Value{Units: int64(c.UnitCount)},
		Event:   e.Digest(),
	}}, nil
}

// begin stores a job for all letters that are there now.
func (w *world) begin(f Filter, rate float64, share int) Job {
	plan, err := NewPlan(context.Background(), w.each, w.judge(), PlanConfig{Filter: f, Rate: rate, Share: share, Now: noon})
	if err != nil {
		panic(err)
	}
	j, err := NewJob(plan, nil, "someone", "a reason", time.Now())
	if err != nil {
		panic(err)
	}
	w.put(j)
	return j
}

func (w *world) judge() *Judge { return &Judge{Ledger: w, Meaning: count} }

func (w *world) each(_ context.Context, _ Filter, yield func(StoredLetter) error) error {
	for _, l := range w.letters {
		if err := yield(l); err != nil {
			return err
		}
	}
	return nil
}

// Entry is of every vendor.
func (w *world) Entry(_ context.Context, _ string, key ledger.Key) (ledger.Entry, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.entries[key]
	return e, ok, nil
}

func (w *world) put(j Job) {
	record, err := json.Marshal(j)
	if err != nil {
		panic(err)
	}
	w.jobs[j.ID] = record
}

func (w *world) job(id string) Job {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.read(id)
}

func (w *world) read(id string) Job {
	var j Job
	if err := json.Unmarshal(w.jobs[id], &j); err != nil {
		panic(err)
	}
	return j
}

// change is what a person does to the job.
func (w *world) change(id string, change func(*Job) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.read(id)
	if err := change(&j); err != nil {
		return err
	}
	w.put(j)
	return nil
}

func (w *world) times(l StoredLetter) (n int) {
	for _, id := range w.order {
		if strings.HasSuffix(id, "/"+l.Place()) {
			n++
		}
	}
	return n
}

func (w *world) find(sequence uint64) int {
	return slices.IndexFunc(w.letters, func(l StoredLetter) bool { return l.Sequence == sequence })
}

// fault is what happens to one call of a runner to the world.
type fault int

const (
	failsBefore fault = iota + 1 // an error, and nothing is done
	failsAfter                   // an error, and it is done all the same
	diesBefore                   // the process ends
	diesAfter
	stalls // the process stands still for longer than a beat may take
)

var errFault = errors.New("the network is gone")

// site is the world as one process sees it.
type site struct {
	*world

	faults map[int]fault // by number of the call

	calls  int
	dead   bool
	frozen time.Time
	cost   time.Duration // of each call to the log
}

// call does something in the world, or what a fault makes of it.
func (s *site) call(ctx context.Context, do func() error) error {
	s.mu.Lock()
	f := s.faults[s.calls]
	s.calls++
	if f == stalls {
		s.frozen = time.Now().Add(3 * beatLost / 2)
	}
	wait := time.Until(s.frozen)
	s.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || f == failsBefore || f == diesBefore {
		s.dead = s.dead || f == diesBefore
		return errFault
	}
	err := do()
	if f == failsAfter || f == diesAfter {
		s.dead = f == diesAfter
		return errFault
	}
	return err
}

// Update changes a job.
func (s *site) Update(ctx context.Context, id string, change func(*Job) error) (j Job, err error) {
	err = s.call(ctx, func() error {
		j = s.read(id)
		if err := change(&j); err != nil {
			return err
		}
		s.put(j)
		j = s.read(id)
		return nil
	})
	return j, err
}

// Next finds a letter.
func (s *site) Next(ctx context.Context, vendor, organization string, _ event.Reason, after uint64) (found StoredLetter, ok bool, err error) {
	err = s.call(ctx, func() error {
		for _, l := range s.letters {
			if !ok && l.Sequence > after && l.Vendor == vendor && l.Organization == organization {
				found, ok = l, true
				s.held++
				s.most = max(s.most, s.held)
			}
		}
		return nil
	})
	return found, ok, err
}

// Drop removes a letter, which the log must have.
func (s *site) Drop(ctx context.Context, sequence uint64) error {
	return s.call(ctx, func() error {
		at := s.find(sequence)
		s.held--
		if at < 0 {
			return nil
		}
		if n := s.times(s.letters[at]); n == 0 {
			s.problems = append(s.problems, fmt.Sprintf("letter %d was dropped and never published", sequence))
		}
		s.letters = slices.Delete(s.letters, at, at+1)
		return nil
	})
}

type refusalError struct{ error }

func (refusalError) Permanent() bool { return true }

// Publish stores a message under its id.
func (s *site) Publish(ctx context.Context, m event.Message, id string) error {
	if s.cost > 0 {
		<-time.After(s.cost)
	}
	return s.call(ctx, func() error {
		if strings.Contains(string(m.Data), "too large") {
			s.held--
			return refusalError{errors.New("maximum payload exceeded")}
		}
		if _, duplicate := s.log[id]; !duplicate {
			s.log[id] = time.Now()
			s.order = append(s.order, id)
		}
		return nil
	})
}

func (s *site) runner(id string, rate float64) *Runner {
	return NewRunner(RunnerConfig{ID: id, Jobs: s, Queue: s, Log: s, Judge: *s.judge(), Rate: rate})
}

// supervise runs the job whenever it is free, as a worker's process does.
func (s *site) supervise(ctx context.Context, id, runner string) {
	r := s.runner(runner, 0)
	for ctx.Err() == nil {
		s.mu.Lock()
		j, dead := s.read(id), s.dead
		s.mu.Unlock()
		if dead {
			return
		}
		if j.Free(time.Now()) || j.Runner == runner {
			_, _ = r.Run(ctx, id) // an error is tried again
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// script is one story of a job: what happens to whom, and when.
type script struct {
	bodies    []string // of letters: good, bad, other or large
	processes []process
	people    []deed
}

type process struct {
	begins, ends time.Duration // gracefully
	faults       map[int]fault
}

type deed struct {
	at    time.Duration
	pause bool
}

func drawScript(t *rapid.T) script {
	s := script{bodies: rapid.SliceOfN(rapid.SampledFrom([]string{"good", "good", "good", "bad", "other", "too large"}), 1, 60).Draw(t, "letters")}
	moment := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond
	})
	for range rapid.IntRange(1, 4).Draw(t, "processes") {
		p := process{begins: moment.Draw(t, "begins"), faults: map[int]fault{}}
		p.ends = p.begins + moment.Draw(t, "lasts")
		for range rapid.IntRange(0, 4).Draw(t, "faults") {
			p.faults[rapid.IntRange(0, 150).Draw(t, "call")] = fault(rapid.IntRange(int(failsBefore), int(stalls)).Draw(t, "fault"))
		}
		s.processes = append(s.processes, p)
	}
	for range rapid.IntRange(0, 3).Draw(t, "deeds") {
		s.people = append(s.people, deed{at: moment.Draw(t, "at"), pause: rapid.Bool().Draw(t, "pause")})
	}
	return s
}

// furnish parks the letters and begins the job that replays them.
func (s *script) furnish() (w *world, id string) {
	w = newWorld()
	for i, body := range s.bodies {
		organization := fmt.Sprint("o", i%3)
		reason := event.ReasonInvalid
		text := figure(organization, fmt.Sprint("e", i))
		switch body {
		case "bad":
			text = "not JSON"
		case "other":
			reason = event.ReasonTooOld
		case "too large":
			text = figure(organization, fmt.Sprint("too large ", i))
		}
		w.park(organization, reason, text)
	}
	id = w.begin(Filter{Reason: event.ReasonInvalid}, 0, 1).ID
	w.park("o1", event.ReasonInvalid, figure("o1", "later")) // not of the job
	s.bodies = append(s.bodies, "other")
	return w, id
}

// play runs the script and says what is wrong with how it ends.
func (s *script) play() []string {
	w, id := s.furnish()
	before := slices.Clone(w.letters)
	var all sync.WaitGroup
	for i, p := range s.processes {
		all.Go(func() {
			<-time.After(p.begins)
			ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(p.ends-p.begins))
			defer cancel()
			(&site{world: w, faults: p.faults}).supervise(ctx, id, fmt.Sprint("worker-", i))
		})
	}
	for _, d := range s.people {
		all.Go(func() {
			<-time.After(d.at)
			_ = w.change(id, func(j *Job) error { // over: a person is told so
				if d.pause {
					return j.Pause()
				}
				return j.Resume()
			})
		})
	}
	all.Wait()
	_ = w.change(id, (*Job).Resume) // over: all the better
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go (&site{world: w}).supervise(ctx, id, "the last")
	for w.job(id).State != Done && ctx.Err() == nil {
		<-time.After(time.Second)
	}
	cancel()
	return slices.Concat(w.problems, s.judge(w, before, w.job(id)))
}

// judge compares the end with what it must be, whatever happened before.
func (s *script) judge(w *world, before []StoredLetter, j Job) (problems []string) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if j.State != Done || j.Runner != "" {
		complain("the job is %s, run by %q; want done, by nobody", j.State, j.Runner)
	}
	left, good := map[Obstacle]int{}, 0
	for i, l := range before {
		published, there := w.times(l), w.find(l.Sequence) >= 0
		replayed := s.bodies[i] == "good"
		switch s.bodies[i] {
		case "good":
			good++
		case "bad":
			left[Obstacle(event.ReasonMalformed)]++
		case "too large":
			left[Refused]++
		}
		if replayed && (published != 1 || there) || !replayed && (published != 0 || !there) {
			complain("letter %d (%s) was published %d times, and is there: %v", l.Sequence, s.bodies[i], published, there)
		}
	}
	if got, want := fmt.Sprint(j.Left), fmt.Sprint(left); got != want {
		complain("left is %s, want %s", got, want)
	}
	if j.Replayed+j.Gone() != good || j.Takeovers == 0 && len(s.processes) == 0 && j.Gone() != 0 {
		complain("%d replayed and %d gone, want %d together", j.Replayed, j.Gone(), good)
	}
	return problems
}

func TestEachLetterIsReplayedOnceOrStillThereWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(rt)
		var problems []string
		synctest.Test(t, func(*testing.T) { problems = s.play() })
		if len(problems) > 0 {
			rt.Fatalf("%s", strings.Join(problems, "\n"))
		}
	})
}

func TestAJobThatNothingDisturbsCountsExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script{bodies: []string{"good", "bad", "good", "other", "too large", "good"}}
		w, id := s.furnish()
		before := slices.Clone(w.letters)
		j, err := (&site{world: w}).runner("w", 0).Run(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if problems := slices.Concat(w.problems, s.judge(w, before, j)); len(problems) > 0 {
			t.Error(strings.Join(problems, "\n"))
		}
		if j.Replayed != 3 || j.Kept() != 2 || j.Gone() != 0 || j.Letters != 5 {
			t.Errorf("got %d replayed, %d left, %d gone of %d; want 3, 2, 0 of 5", j.Replayed, j.Kept(), j.Gone(), j.Letters)
		}
	})
}

func TestIntegrationsDoNotWaitForOneAnothersPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 100 {
			w.park("crowded", event.ReasonInvalid, figure("crowded", fmt.Sprint("c", i)))
		}
		for i := range 40 {
			organization := fmt.Sprint("o", i)
			w.park(organization, event.ReasonInvalid, figure(organization, "1"))
			w.park(organization, event.ReasonInvalid, figure(organization, "2"))
		}
		begun := time.Now()
		j, err := (&site{world: w}).runner("w", 40).Run(t.Context(), w.begin(Filter{}, 40, 25).ID)
		if err != nil || j.Replayed != 180 {
			t.Fatalf("got %d replayed, %v; want 180", j.Replayed, err)
		}
		// A quarter of 40 a second: 100 letters take 9.9 s, two take 0.1 s.
		for _, id := range w.order {
			after := w.log[id].Sub(begun)
			place, err := event.ParseArrival(id[strings.LastIndexByte(id, '/')+1:])
			if err != nil {
				t.Fatal(err)
			}
			n := place.Sequence() - 101 // from 0
			want := time.Duration(n) * 100 * time.Millisecond
			if n >= 100 {
				want = time.Duration(n%2) * 100 * time.Millisecond
			}
			if after < want || after > want+10*time.Millisecond {
				t.Errorf("letter %d was published after %v, want %v", n, after, want)
			}
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("the job took %v, want about 9.9s", took)
		}
	})
}

func TestAJobHoldsFewLettersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 300 {
			organization := fmt.Sprint("o", i)
			w.park(organization, event.ReasonInvalid, figure(organization, "1"))
		}
		if j, err := (&site{world: w, cost: time.Second}).runner("w", 0).Run(t.Context(), w.begin(Filter{}, 0, 100).ID); err != nil || j.Replayed != 300 {
			t.Fatalf("got %d replayed, %v; want 300", j.Replayed, err)
		}
		if w.most > inHand || w.most < 2 {
			t.Errorf("held %d letters at once, want some, and at most %d", w.most, inHand)
		}
	})
}

func TestAPausedJobRestsSoonAndGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 100 {
			w.park("o", event.ReasonInvalid, figure("o", fmt.Sprint(i)))
		}
		id := w.begin(Filter{}, 10, 100).ID
		begun := time.Now()
		time.AfterFunc(3*time.Second, func() { _ = w.change(id, (*Job).Pause) })
		r := (&site{world: w}).runner("w", 10)
		j, err := r.Run(t.Context(), id)
		if err != nil || j.State != Paused || j.Runner != "" || time.Since(begun) > 3*time.Second+2*saveEvery {
			t.Fatalf("after %v the job is %s, run by %q, %v; want it paused, run by nobody", time.Since(begun), j.State, j.Runner, err)
		}
		if j.Replayed != 100-len(w.letters) || j.Replayed != len(w.order) {
			t.Errorf("%d replayed, %d published, %d still there; want them to agree", j.Replayed, len(w.order), len(w.letters))
		}
		if j, err := r.Run(t.Context(), id); err != nil || j.State != Paused {
			t.Errorf("a paused job ran: %s, %v", j.State, err)
		}
		if err := w.change(id, (*Job).Resume); err != nil {
			t.Fatal(err)
		}
		if j, err = r.Run(t.Context(), id); err != nil || j.Replayed != 100 || len(w.order) != 100 || j.Takeovers != 0 {
			t.Errorf("%d replayed, %d published, %d take-overs, %v; want 100, 100, 0", j.Replayed, len(w.order), j.Takeovers, err)
		}
	})
}

func TestARunnerThatIsReplacedStopsAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 100 {
			w.park("o", event.ReasonInvalid, figure("o", fmt.Sprint(i)))
		}
		id := w.begin(Filter{}, 10, 100).ID
		time.AfterFunc(2500*time.Millisecond, func() {
			_ = w.change(id, func(j *Job) error { j.Runner, j.Replayed = "another", 7; return nil })
		})
		begun := time.Now()
		if _, err := (&site{world: w}).runner("w", 10).Run(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 2500*time.Millisecond+saveEvery {
			t.Errorf("it stopped after %v, want within a second of being replaced", took)
		}
		if j := w.job(id); j.Runner != "another" || j.Replayed != 7 {
			t.Errorf("the job is run by %q and has %d replayed; want another's, and 7", j.Runner, j.Replayed)
		}
	})
}

func TestAGracefulStopGivesTheJobBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 100 {
			w.park("o", event.ReasonInvalid, figure("o", fmt.Sprint(i)))
		}
		id := w.begin(Filter{}, 10, 100).ID
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		j, err := (&site{world: w, cost: 50 * time.Millisecond}).runner("w", 10).Run(ctx, id)
		if err != nil || !j.Free(time.Now()) || j.Replayed != len(w.order) || j.Replayed != 100-len(w.letters) {
			t.Errorf("free: %v, %d replayed, %d published, %d still there, %v; want it free, and the figures to agree",
				j.Free(time.Now()), j.Replayed, len(w.order), len(w.letters), err)
		}
	})
}

func TestAnErrorIsOnRecordUntilTheJobGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.park("o", event.ReasonInvalid, figure("o", "1"))
		id := w.begin(Filter{}, 0, 100).ID
		s := &site{world: w, faults: map[int]fault{2: failsAfter}} // take, read, publish
		r := s.runner("w", 0)
		if _, err := r.Run(t.Context(), id); !errors.Is(err, errFault) {
			t.Fatalf("got %v, want %v", err, errFault)
		}
		if j := w.job(id); !strings.Contains(j.Trouble, errFault.Error()) || j.Runner != "w" {
			t.Errorf("trouble is %q and the runner %q; want the error, and the same runner", j.Trouble, j.Runner)
		}
		if j, err := r.Run(t.Context(), id); err != nil || j.Trouble != "" || j.Replayed != 1 || len(w.order) != 1 || len(w.letters) != 0 {
			t.Errorf("got trouble %q, %d replayed, published %v, %d still there, %v; want none, 1, once, 0", j.Trouble, j.Replayed, w.order, len(w.letters), err)
		}
	})
}

// decoded is the event of a letter as a replay has it.
func decoded(t *testing.T, l *event.Letter) *event.Event {
	t.Helper()
	m, err := l.Replay()
	if err != nil {
		t.Fatal(err)
	}
	m.Sequence = 0
	r := event.Decode(m, event.Limits{})
	if len(r) != 1 || r[0].Event == nil {
		t.Fatalf("the letter's event cannot be read: %+v", r)
	}
	return r[0].Event
}
