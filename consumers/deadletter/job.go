package deadletter

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// JobState says what is wanted of a job, and whether it is over.
type JobState string

// The states of a job.
const (
	// Running: a runner works on it, or the next one that is free takes it. A
	// person moves in by starting or resuming it.
	Running JobState = "running"
	// Paused: a person wants it to rest; it goes on where it was.
	Paused JobState = "paused"
	// Cancelled: a person has ended it. What was not replayed is still there.
	Cancelled JobState = "cancelled"
	// Done: its runner has looked at every letter.
	Done JobState = "done"
)

const (
	// beatEvery is how often a runner shows that it lives.
	beatEvery = 2 * time.Second
	// beatLost is after how long without a beat another runner may take a job.
	// It has to exceed beatEvery by more than the clocks of two workers differ;
	// two runners of one job cost time and harm nothing.
	beatLost = 10 * time.Second
	// maxRecord keeps the record of a job below what a bucket takes.
	maxRecord = 900 << 10
)

var (
	// ErrTaken says that another runner works on the job.
	ErrTaken = errors.New("another runner has the replay")
	// ErrNotRunning says that nobody wants the job to run now.
	ErrNotRunning = errors.New("the replay is not to run")
	// ErrEnded says that the job is done or cancelled.
	ErrEnded = errors.New("the replay has ended")
	// ErrTooMany says that the letters are of more integrations than one job
	// can keep track of.
	ErrTooMany = errors.New("letters of too many integrations for one replay")
)

// Job is a replay as it is kept: what is to be replayed, at which pace, and how
// far it is. Whoever works on it changes it by compare-and-set.
type Job struct {
	ID string `json:"id"`
	// Filter and Upto choose the letters: those that match, up to that place
	// in DEADLETTERS. Letters that are parked later are none of this job's.
	Filter Filter `json:"filter"`
	Upto   uint64 `json:"upto"`
	// Edit is the JSON Patch applied to each letter; empty: none.
	Edit  json.RawMessage `json:"edit,omitempty"`
	Share int             `json:"share"` // percent of an integration's rate, 1 to 100

	// Letters and Superseded are what the plan counted.
	Letters    int       `json:"letters"`
	Superseded int       `json:"superseded"`
	Actor      string    `json:"actor"`
	Why        string    `json:"why"`
	Created    time.Time `json:"created"`

	State   JobState  `json:"state"`
	Started time.Time `json:"started,omitzero"` // when the first runner took it
	Ended   time.Time `json:"ended,omitzero"`

	// Runner works on the job if Beat is recent; empty: nobody.
	Runner    string    `json:"runner,omitempty"`
	Beat      time.Time `json:"beat,omitzero"`
	Takeovers int       `json:"takeovers,omitempty"` // from runners that were lost
	// Pace is in letters per second and integration, as the runner reckons.
	Pace    float64 `json:"pace,omitempty"`
	Trouble string  `json:"trouble,omitempty"` // what the last attempt stumbled over

	Progress
}

// Progress is how far a job is.
type Progress struct {
	Replayed int `json:"replayed"`
	// Left counts the letters that were looked at and stay where they are.
	Left  map[Obstacle]int `json:"left,omitempty"`
	Parts []Part           `json:"parts"`
}

// Part is what a job has to do for one integration. Each has a pace and a
// cursor of its own.
type Part struct {
	Vendor       string `json:"vendor"`
	Organization string `json:"organization"`
	Letters      int    `json:"letters"`        // as planned
	Done         int    `json:"done,omitempty"` // replayed or left
	// Cursor is the place in DEADLETTERS up to which all is done.
	Cursor   uint64 `json:"cursor,omitempty"`
	Finished bool   `json:"finished,omitempty"`
}

func (p *Progress) clone() Progress {
	c := *p
	c.Left, c.Parts = maps.Clone(p.Left), slices.Clone(p.Parts)
	return c
}

// NewJob is a job that does what the plan says. An error wraps ErrTooMany.
func NewJob(p *Plan, edit *Edit, actor, why string, now time.Time) (Job, error) {
	j := Job{
		ID: newJobID(now), Filter: p.Filter, Upto: p.Upto, Share: p.Share,
		Letters: p.Letters, Superseded: p.Outcomes[Superseded],
		Actor: actor, Why: why, Created: now.UTC(), State: Running,
		Progress: Progress{Parts: slices.Clone(p.Parts)},
	}
	if edit != nil {
		j.Edit = edit.Patch()
	}
	record, err := json.Marshal(j)
	if err != nil {
		return Job{}, fmt.Errorf("encode the replay: %w", err)
	}
	if len(record) > maxRecord {
		return Job{}, fmt.Errorf("%w: %d integrations make a record of %d bytes: want at most %d: choose fewer by vendor or integration, or a shorter edit",
			ErrTooMany, len(j.Parts), len(record), maxRecord)
	}
	return j, nil
}

// newJobID is short enough to be typed, and sorts by time.
func newJobID(now time.Time) string {
	var tail [2]byte
	_, _ = rand.Read(tail[:]) // it never fails
	return "r-" + now.UTC().Format("20060102-1504") + "-" + hex.EncodeToString(tail[:])
}

// Live says whether a runner works on the job.
func (j *Job) Live(now time.Time) bool {
	return j.Runner != "" && now.Sub(j.Beat) < beatLost
}

// Free says whether the job should run and no runner works on it.
func (j *Job) Free(now time.Time) bool { return j.State == Running && !j.Live(now) }

// Over says whether the job has ended, one way or the other.
func (j *Job) Over() bool { return j.State == Done || j.State == Cancelled }

// take makes the runner the one that works on the job.
func (j *Job) take(runner string, pace float64, now time.Time) error {
	switch {
	case j.State != Running:
		return ErrNotRunning
	case j.Runner != runner && j.Live(now):
		return ErrTaken
	case j.Runner != runner && j.Runner != "":
		j.Takeovers++
	}
	j.Runner, j.Beat, j.Pace, j.Trouble = runner, now.UTC(), pace, ""
	if j.Started.IsZero() {
		j.Started = j.Beat
	}
	return nil
}

// Pause makes a job that runs rest. Its runner stops within about a second,
// when the letters that it has in hand are done.
func (j *Job) Pause() error {
	if j.Over() {
		return j.ended()
	}
	j.State = Paused
	return nil
}

// Resume makes a job that rests go on.
func (j *Job) Resume() error {
	if j.Over() {
		return j.ended()
	}
	j.State = Running
	return nil
}

// Cancel ends a job for good: what it has not replayed stays a dead letter.
func (j *Job) Cancel(now time.Time) error {
	if j.Over() {
		return j.ended()
	}
	j.State, j.Ended = Cancelled, now.UTC()
	return nil
}

func (j *Job) ended() error { return fmt.Errorf("%w: it is %s", ErrEnded, j.State) }

// Kept is how many letters were looked at and stay where they are.
func (p *Progress) Kept() int {
	n := 0
	for _, left := range p.Left {
		n += left
	}
	return n
}

// Gone is how many of the planned letters a job that is done did not find:
// somebody has dropped or replayed them meanwhile. After a take-over it has
// those, too, which the lost runner replayed in its last moment and could not
// count any more.
func (j *Job) Gone() int {
	if j.State != Done {
		return 0
	}
	return max(0, j.Letters-j.Replayed-j.Kept())
}

// Remaining is about how long the job still takes at its pace: as long as the
// integration with the most letters. It is 0 when nobody has set a pace yet.
func (j *Job) Remaining() time.Duration {
	if j.Pace <= 0 || j.Over() {
		return 0
	}
	most := 0
	for _, p := range j.Parts {
		if !p.Finished {
			most = max(most, p.Letters-p.Done)
		}
	}
	return lasts(most, j.Pace)
}

// Took is how long the job has taken from its first runner on, pauses included.
func (j *Job) Took(now time.Time) time.Duration {
	switch {
	case j.Started.IsZero():
		return 0
	case !j.Ended.IsZero():
		return j.Ended.Sub(j.Started)
	}
	return now.Sub(j.Started)
}

// lasts is how long so many letters take at a pace in letters per second.
func lasts(letters int, pace float64) time.Duration {
	return time.Duration(float64(letters) / pace * float64(time.Second))
}
