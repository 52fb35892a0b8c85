package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// Jobs keeps jobs by their id and changes one by compare-and-set: change may be
// called more than once, and its error ends it and comes back.
type Jobs interface {
	Update(ctx context.Context, id string, change func(*Job) error) (Job, error)
}

// Queue is where dead letters lie.
type Queue interface {
	// Next is the first letter of an integration behind a place in
	// DEADLETTERS; ok is false when there is none. Given a reason, letters of
	// others may be passed over.
	Next(ctx context.Context, vendor, organization string, reason event.Reason, after uint64) (l StoredLetter, ok bool, err error)
	// Drop removes the letter at a place. One that is gone is no error.
	Drop(ctx context.Context, sequence uint64) error
}

// Log takes events.
type Log interface {
	// Publish returns when the message is stored. A message whose id the log
	// remembers is not stored again, which is no error. An error that trying
	// again does not mend has a method Permanent that returns true.
	Publish(ctx context.Context, m event.Message, id string) error
}

// RunnerConfig is what a Runner stands on.
type RunnerConfig struct {
	ID    string // differs from that of every other runner, also of those before a restart
	Jobs  Jobs
	Queue Queue
	Log   Log
	Judge Judge   // without an Edit: that is the job's
	Rate  float64 // calls per second and integration; 0: no limit
}

// Runner replays the letters of jobs. For each letter, in the order of
// DEADLETTERS within its integration: it is judged again; if it would fail
// again it is left; else its event is published under an id made of job and
// letter, and when the log has it the letter is dropped.
//
// A runner may be lost, paused or replaced between any two of these steps. The
// letter is then either still there, or replayed and dropped; one that was
// published and not dropped is published once more under the same id, which the
// log knows for its duplicate window (30 minutes) and does not store again. If
// the job rests for longer than that in just this moment, the log has the event
// twice, with the arrival of the one original: the fold knows it by its id and
// source, or finds a newer figure, so no figure changes; a key that has failed
// again meanwhile is tried once more. A figure that the partner refuses again is
// parked again, in a letter of its own, even while this one is still there.
//
// It does not wait and try again by itself: an error ends Run, and the next Run
// goes on where the record says.
type Runner struct{ config RunnerConfig }

// NewRunner makes a runner, which may run several jobs at once.
func NewRunner(c RunnerConfig) *Runner { return &Runner{c} }

const (
	// inHand bounds the letters that one job holds in memory, each of at most
	// 1 MiB, and its work on the log.
	inHand = 16
	// saveEvery and saveAfter are when progress is stored: after some time, or
	// after so many letters.
	saveEvery = time.Second
	saveAfter = 100
	// saveLast bounds storing the progress once more after an error.
	saveLast = 5 * time.Second
	// maxTrouble cuts what an error says in the record.
	maxTrouble = 300
)

// Run works on a job until it is done, or no longer to run, or has another
// runner, which are no errors; the job as it was stored last comes back. When
// ctx ends the letters in hand are finished and the job is given back for
// another runner.
func (r *Runner) Run(ctx context.Context, id string) (Job, error) {
	job, err := r.config.Jobs.Update(ctx, id, func(j *Job) error {
		return j.take(r.config.ID, PaceOf(r.config.Rate, j.Share), time.Now())
	})
	if errors.Is(err, ErrTaken) || errors.Is(err, ErrNotRunning) {
		return job, nil
	}
	if err != nil {
		return job, fmt.Errorf("take replay %s: %w", id, err)
	}
	w := &work{config: r.config, task: job, job: job, progress: job.clone(), kick: make(chan struct{}, 1)}
	if len(job.Edit) > 0 {
		if w.config.Judge.Edit, err = ParseEdit(job.Edit); err != nil {
			return job, fmt.Errorf("replay %s: %w", id, err)
		}
	}
	err = w.run(ctx)
	if errors.Is(err, ErrTaken) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("replay %s: %w", id, err)
	}
	return w.job, err
}

// work is one run of a job.
type work struct {
	config RunnerConfig
	task   Job // as it was taken: what there is to do
	kick   chan struct{}

	mu       sync.Mutex
	job      Job // as stored last
	progress Progress
	unsaved  int
}

// run replays the parts at the same time, each at its own pace. Letters in hand
// outlive ctx, but not the loss of the job to another runner.
func (w *work) run(ctx context.Context) error {
	doing, lost := context.WithCancelCause(context.WithoutCancel(ctx))
	defer lost(nil)
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(doing, stop)

	parts, hands := errgroup.Group{}, make(chan struct{}, inHand)
	for i := range w.progress.Parts {
		if !w.progress.Parts[i].Finished {
			parts.Go(func() error {
				err := w.part(waiting, doing, hands, i)
				if err != nil {
					stop() // the others finish what they have in hand
				}
				return err
			})
		}
	}
	over := make(chan error, 1)
	go func() { over <- parts.Wait() }()

	err := w.keep(ctx, over, stop, lost)
	if errors.Is(err, ErrTaken) {
		return err
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLast)
	defer cancel()
	return errors.Join(err, w.give(last, err))
}

// keep stores the progress now and then until all parts have ended.
func (w *work) keep(ctx context.Context, over <-chan error, stop func(), lost context.CancelCauseFunc) error {
	ctx = context.WithoutCancel(ctx)
	ticker := time.NewTicker(saveEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-over:
			return err
		case <-ticker.C:
		case <-w.kick:
		}
		if !w.due() {
			continue
		}
		err := w.save(ctx, nil)
		switch {
		case err != nil:
			lost(err)
			return errors.Join(err, unlessLost(<-over))
		case w.job.State != Running:
			stop()
		}
	}
}

// unlessLost drops what a part says whose work was taken away.
func unlessLost(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// due says whether there is something to store, if only that the runner lives.
func (w *work) due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsaved > 0 || time.Since(w.job.Beat) >= beatEvery-saveEvery/2
}

// save stores the progress, unless the job has another runner. change may add
// what else is to be stored.
func (w *work) save(ctx context.Context, change func(*Job)) error {
	w.mu.Lock()
	progress, saved := w.progress.clone(), w.unsaved
	w.mu.Unlock()
	stored, err := w.config.Jobs.Update(ctx, w.task.ID, func(j *Job) error {
		if j.Runner != w.config.ID {
			return ErrTaken
		}
		j.Progress, j.Beat = progress.clone(), time.Now().UTC()
		if change != nil {
			change(j)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store the progress: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.job, w.unsaved = stored, w.unsaved-saved
	return nil
}

// give stores the last progress and gives the job back. After an error it
// stays this runner's, which is about to try again.
func (w *work) give(ctx context.Context, trouble error) error {
	return w.save(ctx, func(j *Job) {
		if trouble != nil {
			j.Trouble = cut(trouble.Error(), maxTrouble)
			return
		}
		j.Runner = ""
		for _, p := range j.Parts {
			if !p.Finished {
				return
			}
		}
		if j.State != Cancelled {
			j.State, j.Ended = Done, j.Beat
		}
	})
}

// cut shortens a text to at most n bytes.
func cut(text string, n int) string {
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "")
	}
	return text
}

// part replays the letters of one integration one by one: waiting is over when
// no further one is to be begun, doing when not even that in hand is to be
// finished.
func (w *work) part(waiting, doing context.Context, hands chan struct{}, i int) error {
	pace := rate.NewLimiter(rate.Limit(w.task.Pace), 1)
	for {
		if pace.Wait(waiting) != nil {
			return nil //nolint:nilerr // told to stop
		}
		select {
		case hands <- struct{}{}:
		case <-waiting.Done():
			return nil
		}
		more, err := w.step(waiting, doing, i)
		<-hands
		if err != nil || !more {
			return err
		}
	}
}

// step replays the next letter of the part. more is false when there is none.
func (w *work) step(waiting, doing context.Context, i int) (more bool, err error) {
	w.mu.Lock()
	part := w.progress.Parts[i]
	w.mu.Unlock()
	for waiting.Err() == nil {
		l, ok, err := w.config.Queue.Next(doing, part.Vendor, part.Organization, w.task.Filter.Reason, part.Cursor)
		if err != nil {
			return false, fmt.Errorf("read the letters of %s/%s: %w", part.Vendor, part.Organization, err)
		}
		if !ok || l.Sequence > w.task.Upto {
			w.note(func(p *Progress) { p.Parts[i].Finished = true })
			return false, nil
		}
		part.Cursor = l.Sequence
		// Letters whose integration cannot be told lie together.
		if l.Vendor == part.Vendor && l.Organization == part.Organization && w.task.Filter.Match(&l.Letter) {
			return true, w.replay(doing, i, &l)
		}
		w.note(func(p *Progress) { p.Parts[i].Cursor = l.Sequence })
	}
	return true, nil
}

// replay does with one letter what is to be done.
func (w *work) replay(ctx context.Context, i int, l *StoredLetter) error {
	ruling, err := w.config.Judge.Judge(ctx, &l.Letter, time.Now())
	if err != nil {
		return fmt.Errorf("judge dead letter %s: %w", l.Place(), err)
	}
	if ruling.Outcome == Left {
		w.leave(i, l, ruling.Obstacle)
		return nil
	}
	err = w.config.Log.Publish(ctx, ruling.Message, "replay/"+w.task.ID+"/"+l.Place())
	switch {
	case permanent(err):
		w.leave(i, l, Refused)
		return nil
	case err != nil:
		return fmt.Errorf("publish dead letter %s again: %w", l.Place(), err)
	}
	if err := w.config.Queue.Drop(ctx, l.Sequence); err != nil {
		return fmt.Errorf("drop dead letter %s, whose event is published: %w", l.Place(), err)
	}
	w.note(func(p *Progress) {
		p.Replayed++
		p.Parts[i].Done++
		p.Parts[i].Cursor = l.Sequence
	})
	return nil
}

func (w *work) leave(i int, l *StoredLetter, why Obstacle) {
	w.note(func(p *Progress) {
		if p.Left == nil {
			p.Left = map[Obstacle]int{}
		}
		p.Left[why]++
		p.Parts[i].Done++
		p.Parts[i].Cursor = l.Sequence
	})
}

// note changes the progress, and has it stored when that is due.
func (w *work) note(change func(*Progress)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.progress)
	if w.unsaved++; w.unsaved >= saveAfter {
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

// permanent says that trying again does not mend the error.
func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}
