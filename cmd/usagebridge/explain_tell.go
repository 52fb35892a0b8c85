package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// tell puts the explanation into sentences.
func (x *explanation) tell() {
	x.Sentences = nil
	if x.Snapshot != nil {
		x.say("%s", x.partVerdict())
	} else {
		x.say("%s", x.verdict())
	}
	x.tellReplay()
	if x.Disposition == ledger.Dead || x.Fault != nil {
		x.tellFault()
	}
	if x.Disposition != "" && !x.Certain {
		switch {
		case x.Fault != nil && x.Disposition == ledger.Dead:
		case x.ReachesBack:
			x.say("The ledger no longer remembers this event; this is what folding its log again gives.")
		default:
			x.say("This is so as far as the log can tell: the ledger no longer remembers the event, and the log no longer reaches back to its beginning.")
		}
	}
	if x.Snapshot != nil {
		x.tellStanding()
		return
	}
	x.tellPeople()
	x.tellDelivery()
	x.tellNow()
}

func (x *explanation) say(format string, args ...any) {
	x.Sentences = append(x.Sentences, fmt.Sprintf(format, args...))
}

// verdict is the sentence that begins with the disposition.
func (x *explanation) verdict() string {
	switch x.Disposition {
	case ledger.Applied:
		if x.Before == nil {
			return "applied: it became the desired value of its key, which had none that is known."
		}
		return "applied: it became the desired value of its key, in place of " + x.Before.String() + "."
	case ledger.Duplicate:
		if x.Before == nil {
			return "duplicate: the same event had come before, so it changed nothing."
		}
		return "duplicate: the same event had come before, so it changed nothing; the desired value was " + x.Before.String() + "."
	case ledger.Superseded:
		switch {
		case x.barred && x.Undone != nil:
			return "superseded: its backfill had been undone before it was folded, so it changed nothing."
		case x.barred && x.Approval != nil:
			return "superseded: its figure had been refused before it was folded, so it changed nothing."
		case x.Before == nil:
			return "superseded: a newer event was there first, so it changed nothing."
		}
		return "superseded: " + x.Before.String() + " was there first and is newer, so it changed nothing."
	case ledger.Unchanged:
		return "unchanged: it is newer than what was there, but the partner already had this value, so no call was made."
	case ledger.Dead:
		return "dead: it can never be applied."
	}
	if x.waits != nil {
		return "not folded yet: it stands in the log. " + x.waits.sentence()
	}
	return "not folded yet: it stands in the log, and no worker has taken it."
}

// sentence says why nothing is folded.
func (s *stop) sentence() string {
	return fmt.Sprintf("Nothing of this vendor is folded since it was stopped %s.", strings.TrimSuffix((&deed{By: s.By, Why: s.Why, At: s.At}).String(), "."))
}

func (f *figure) String() string {
	if f.Unfounded {
		return f.Value + ", for which no event stands: all that did were taken back"
	}
	text := fmt.Sprintf("%s at %s", f.Value, instant(f.Time))
	switch {
	case f.Snapshot != "":
		return text + " (snapshot " + f.Snapshot + ", which did not name the key, arrival " + f.Arrival + ")"
	case f.EventID == "":
		return text + " (arrival " + f.Arrival + ", no longer in the log)"
	}
	return text + " (event " + eventName(f.EventID, f.Source) + ", arrival " + f.Arrival + ")"
}

// tellReplay names the original of a replay, and the replays of an original.
func (x *explanation) tellReplay() {
	if o := x.Original; o != nil {
		text := "It is a replay of " + o.Place
		switch {
		case o.EventID == "" && o.Stored.IsZero():
			text += ", which the log no longer has"
		default:
			if o.EventID != x.EventID || o.Source != x.Source {
				text += ", event " + or(eventName(o.EventID, o.Source), "without an id")
			}
			text += ", stored on " + instant(o.Stored)
			if o.Fault != "" {
				text += ", which was dead: " + o.Fault
			}
		}
		x.say("%s.", strings.TrimSuffix(text, "."))
	}
	if len(x.ReplayedAs) > 0 {
		x.say("It was replayed as %s.", strings.Join(x.ReplayedAs, ", "))
	}
	if x.Revived {
		x.say("Its figure had failed, and by the replay it was sent again.")
	}
}

// tellFault says what is wrong and what would be right.
func (x *explanation) tellFault() {
	f := x.Fault
	if f == nil {
		return
	}
	if x.Disposition != ledger.Dead {
		x.say("Then its figure was given up (%s): %s", f.Reason, f.Problem)
	} else {
		fault := event.Fault{Reason: f.Reason, Pointer: f.Pointer, Problem: f.Problem, Want: f.Want}
		x.say("The reason is %s", fault.Error())
	}
	switch {
	case x.DeadLetter != "":
		x.say("Dead letter %s keeps it; see `usagebridge dlq show %s`.", x.DeadLetter, x.DeadLetter)
	case len(x.ReplayedAs) > 0:
		x.say("Its dead letter went when it was replayed.")
	case x.Dropped != nil:
		x.say("Its dead letter was dropped %s.", strings.TrimSuffix(x.Dropped.String(), "."))
	default:
		x.say("No dead letter is stored for it: no worker has taken it yet, or the letter has gone.")
	}
}

// tellPeople says what people have said of the event's figure.
func (x *explanation) tellPeople() {
	if x.Backfill != "" && x.Disposition != ledger.Dead {
		if x.Undone == nil {
			x.say("It belongs to backfill %s.", x.Backfill)
		} else {
			x.say("It belongs to backfill %s, which was undone %s. It counts as if it had never been.", x.Backfill, x.Undone.deed())
		}
	}
	if x.Approval != nil {
		for _, sentence := range x.Approval.sentences(x.Integration) {
			x.say("%s", sentence)
		}
	}
}

// deed says who has decided, when and why.
func (d *decision) deed() string {
	return strings.TrimSuffix((&deed{By: d.By, Why: d.Why, At: d.At}).String(), ".")
}

// sentences say what jumped and what is to be done, or was.
func (a *approvalAccount) sentences(integration string) []string {
	what := "Its figure is " + a.To
	switch {
	case a.Snapshot != "":
		what = "It is a zero of snapshot " + a.Snapshot + ", which did not name the key"
	case a.From != "":
		what = fmt.Sprintf("Its figure jumped from %s to %s", a.From, a.To)
	}
	if a.Factor > 0 {
		what += fmt.Sprintf(" (the service may change by a factor of %g)", a.Factor)
	}
	switch d := a.Decision; {
	case d == nil:
		return []string{
			what + ": it waits for approval " + a.ID + ".",
			fmt.Sprintf("`usagebridge approvals release %s --integration %s --why …` sends it, `refuse` takes it back.", a.ID, integration),
		}
	case a.Waits:
		return []string{fmt.Sprintf("%s, and was %s %s. No worker has carried that out yet.", what, d.Verdict, d.deed())}
	case d.Verdict == refused:
		return []string{fmt.Sprintf("%s, and was refused %s. It counts as if it had never been.", what, d.deed())}
	default:
		return []string{fmt.Sprintf("%s, and was %s %s.", what, d.Verdict, d.deed())}
	}
}

func (x *explanation) tellDelivery() {
	if x.Disposition != ledger.Applied && x.Disposition != ledger.Unchanged {
		return
	}
	failures := ""
	if x.Failures > 0 {
		failures = fmt.Sprintf(" %s without success before or since, the last: %s.", plural(x.Failures, "call was", "calls were"), x.Failure)
	}
	switch {
	case x.Accepted != nil:
		request := ""
		if x.Accepted.RequestID != "" {
			request = " (request " + x.Accepted.RequestID + ")"
		}
		x.say("The partner accepted %s on %s%s.%s", x.Accepted.Value, instant(x.Accepted.At), request, failures)
	case x.Disposition == ledger.Unchanged:
		x.say("The sync log no longer has the call by which the partner got it.")
	case x.After != nil || x.Undone != nil:
		x.say("No accepted call with this figure is in the sync log.%s", failures)
	default:
		x.say("The partner has not accepted it.%s", failures)
	}
	if x.After != nil {
		x.say("Later %s took its place.", x.After)
	}
}

func (x *explanation) tellNow() {
	k := x.Now
	if k == nil {
		return
	}
	has := "nothing yet"
	if k.Delivered != "" {
		has = k.Delivered + " since " + instant(k.At)
	}
	x.say("The key is now %s: desired is %s, the partner has %s.", k.why(), k.Desired, has)
}

const (
	lineIndent = "  "
	// lineNarrow is the width below which lines are not broken any further.
	lineNarrow = 40
)

// lineWidth is how wide lines may be: on a terminal as wide as it is. Anything
// else gets every sentence in one line, to be searched.
func lineWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok && isTerminal(w) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return max(width, lineNarrow)
		}
	}
	return math.MaxInt
}

// paragraph breaks a sentence into lines of at most so many columns. What has
// no blanks and what is in backquotes stays in one piece: it is there to be
// copied.
func paragraph(sentence string, width int) string {
	var b strings.Builder
	at := 0
	for i, piece := range pieces(sentence) {
		length := utf8.RuneCountInString(piece)
		switch {
		case i == 0:
			b.WriteString(lineIndent)
			at = len(lineIndent)
		case at+1+length > width:
			b.WriteString("\n" + lineIndent + lineIndent)
			at = 2 * len(lineIndent)
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(piece)
		at += length
	}
	return b.String() + "\n"
}

// pieces are the words of a sentence; what is in backquotes is one.
func pieces(sentence string) (list []string) {
	quoted := false
	for word := range strings.SplitSeq(sentence, " ") {
		if quoted {
			list[len(list)-1] += " " + word
		} else {
			list = append(list, word)
		}
		if strings.Count(word, "`")%2 == 1 {
			quoted = !quoted
		}
	}
	return list
}
