package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Outcome is what a replay of a letter would come to, as the ledger is now.
type Outcome string

// The outcomes. All but Left are published.
const (
	// Applies: at least one key gets a newer figure.
	Applies Outcome = "applies"
	// Requeued: the figure is still the desired one of a key that has failed,
	// and is sent again.
	Requeued Outcome = "requeued"
	// Superseded: every key has a newer figure, in the ledger or, in a plan, by
	// another letter of the same replay. This letter changes nothing in the end.
	Superseded Outcome = "superseded"
	// Known: the ledger has this very event already, and its key has not
	// failed. The replay changes nothing.
	Known Outcome = "known"
	// Left: it would fail again, and stays where it is; an Obstacle says why.
	Left Outcome = "left"
)

// Outcomes lists every outcome.
func Outcomes() []Outcome { return []Outcome{Applies, Requeued, Superseded, Known, Left} }

// Obstacle is why a letter stays where it is: a dead-letter reason of the event
// contract, or one of the further ones here.
type Obstacle string

// The obstacles that are no dead-letter reason.
const (
	// NoOriginal: the letter lacks the event's bytes or its place in the log.
	NoOriginal Obstacle = "no_original"
	// EditFails: the edit cannot be applied to the event.
	EditFails Obstacle = "edit_fails"
	// Refused: the log does not take the message, and never will.
	Refused Obstacle = "refused"
)

// Ledger looks up what is stored of a key; ok is false when nothing is.
type Ledger interface {
	Entry(ctx context.Context, vendor string, key ledger.Key) (e ledger.Entry, ok bool, err error)
}

// Judge says what a replay of a letter would come to. It is safe for
// concurrent use if its parts are.
type Judge struct {
	Ledger Ledger
	Limits event.Limits // of today: they count from now, not from when the event first came
	// Meaning is what an event does to the ledger. An event.Fault as its error
	// gives the reason; any other error means that the event is invalid.
	Meaning func(*event.Event) ([]ledger.Operation, error)
	Edit    *Edit // nil: none
}

// Ruling is what a Judge says of a letter.
type Ruling struct {
	Outcome  Outcome
	Obstacle Obstacle // when it is Left
	Problem  string   // when it is Left: what is in the way
	// Message is what to publish; nothing in it is to be used when it is Left.
	Message event.Message
	Keys    []ledger.Key // that the event concerns, as far as it could be read
	// Before and After are the event as a document, when it was edited.
	Before, After []byte

	news   []placed // figures that the ledger would take, or send again
	beyond bool     // it may do something to keys that it does not name
}

// placed is the place of a figure among those of its key.
type placed struct {
	key     ledger.Key
	version ledger.Version
}

func (r Ruling) left(why Obstacle, problem string) Ruling {
	r.Outcome, r.Obstacle, r.Problem, r.news = Left, why, problem, nil
	return r
}

// Judge judges a letter as a worker would that received it now. The only
// errors are those of the ledger.
func (j *Judge) Judge(ctx context.Context, l *event.Letter, now time.Time) (Ruling, error) {
	r, fault := j.message(l)
	if fault != nil {
		return *fault, nil
	}
	r.Message.Stored, r.Message.Sequence = now.UTC(), 0
	results := event.Decode(r.Message, j.Limits)
	if len(results) != 1 {
		return r.left(Obstacle(event.ReasonInvalid), fmt.Sprintf("it has %d events: want one", len(results))), nil
	}
	if f := results[0].Fault; f != nil {
		return r.left(Obstacle(f.Reason), f.Error()), nil
	}
	e := results[0].Event
	operations, err := j.Meaning(e)
	if err != nil {
		return r.left(obstacleOf(err), err.Error()), nil
	}
	return j.hold(ctx, r, e.Vendor, operations, now)
}

// message is what would be published, or the ruling that nothing can be.
func (j *Judge) message(l *event.Letter) (r Ruling, fault *Ruling) {
	give := func(why Obstacle, problem string) (Ruling, *Ruling) {
		left := r.left(why, problem)
		return r, &left
	}
	var err error
	if j.Edit == nil {
		r.Message, err = l.Replay()
	} else {
		if r.Before, r.After, err = j.Edit.apply(l); err != nil {
			return give(EditFails, err.Error())
		}
		r.After = l.Renamed(r.After)
		r.Message, _, err = l.Edited(r.After)
	}
	if _, isFault := errors.AsType[*event.Fault](err); err != nil && !isFault {
		return give(NoOriginal, err.Error()) // the bytes, or where they were in the log
	}
	if err != nil {
		return give(obstacleOf(err), err.Error())
	}
	return r, nil
}

// obstacleOf is the reason of a fault; any other error means invalid.
func obstacleOf(err error) Obstacle {
	if fault, ok := errors.AsType[*event.Fault](err); ok {
		return Obstacle(fault.Reason)
	}
	return Obstacle(event.ReasonInvalid)
}

// hold holds what the event does against the ledger.
func (j *Judge) hold(ctx context.Context, r Ruling, vendor string, operations []ledger.Operation, now time.Time) (Ruling, error) {
	fates := map[Outcome]bool{}
	for _, op := range operations {
		figure := op.Key.Kind.Figure()
		if figure {
			r.Keys = append(r.Keys, op.Key)
		} else {
			r.beyond = true // a snapshot does something to keys that it does not name, too
		}
		e, _, err := j.Ledger.Entry(ctx, vendor, op.Key)
		if err != nil {
			return r, fmt.Errorf("look up %s of %s: %w", op.Key, vendor, err)
		}
		if err := e.Contradicts(op, now); err != nil {
			return r.left(Obstacle(event.ReasonConflict), fmt.Sprintf("the ledger has %s otherwise: %v", op.Key, err)), nil
		}
		if !figure {
			continue
		}
		fate := fateOf(&e, &op)
		fates[fate] = true
		if fate == Requeued || fate == Applies {
			r.news = append(r.news, placed{op.Key, op.Version})
		}
	}
	switch {
	case fates[Requeued]:
		r.Outcome = Requeued
	case fates[Applies]:
		r.Outcome = Applies
	case fates[Known]:
		r.Outcome = Known
	case r.beyond:
		r.Outcome = Applies
	default:
		r.Outcome = Superseded
	}
	return r, nil
}

// fateOf is what would become of one figure of an event.
func fateOf(e *ledger.Entry, op *ledger.Operation) Outcome {
	desired, has := e.Desired()
	switch {
	case has && is(desired, op) && e.State == ledger.Failed:
		return Requeued
	case slices.ContainsFunc(e.Seen, func(s ledger.Seen) bool { return is(s, op) }):
		return Known
	case !has || op.Version.Compare(desired.Version) >= 0:
		return Applies
	}
	return Superseded
}

// is says whether the ledger has just this figure: of the same event, or of the
// snapshot from which the letter's figure was taken.
func is(s ledger.Seen, op *ledger.Operation) bool {
	return s.Event == op.Event || s.Version == op.Version && s.Value == op.Value
}
