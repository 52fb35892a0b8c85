package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// keyExplanation is where a key stands, why, and how it came there.
type keyExplanation struct {
	Integration string `json:"integration"`
	keyView

	From         *keyFigure       `json:"desired_from,omitempty"`   // what the desired value comes from
	DeliveredOf  *keyFigure       `json:"delivered_from,omitempty"` // what the partner's comes from
	Approval     *approvalAccount `json:"approval,omitempty"`       // what the key waits for
	Missing      []string         `json:"missing_catalog,omitempty"`
	DeadLetter   string           `json:"dead_letter,omitempty"` // its id
	LetterGone   bool             `json:"dead_letter_gone,omitempty"`
	ReachesBack  bool             `json:"log_reaches_back"`
	Figures      []keyFigure      `json:"figures"`                 // newest first
	OlderFigures int              `json:"older_figures,omitempty"` // that are not listed
	NotFolded    int              `json:"not_folded,omitempty"`    // events that no worker has taken yet

	Sentences []string `json:"sentences"`
}

// keyFigure is one figure of a key, or one repeat of it.
type keyFigure struct {
	figure

	Place       string             `json:"place,omitempty"`
	Stored      time.Time          `json:"stored,omitzero"`
	Disposition ledger.Disposition `json:"disposition"` // empty: not folded yet
	Certain     bool               `json:"certain"`
	ReplayOf    string             `json:"replay_of,omitempty"`
	ReplayedAs  []string           `json:"replayed_as,omitempty"`
	Backfill    string             `json:"backfill,omitempty"`
	Undone      *decision          `json:"undone,omitempty"`
	Approval    *approvalAccount   `json:"approval,omitempty"`
	Desired     bool               `json:"desired,omitempty"`
	Delivered   bool               `json:"delivered,omitempty"`

	seen ledger.Seen // version, value and event
}

// is says whether the figure is s, not merely one of the same time and arrival:
// an edited replay shares them with its original. A figure whose event nobody
// remembers is known by its value.
func (f *keyFigure) is(s ledger.Seen) bool {
	return f.seen.Version == s.Version && f.seen.Value == s.Value && (s.Event == 0 || f.seen.Event == s.Event)
}

// explainKey answers a question about a key.
func (a *app) explainKey(ctx context.Context, q question) (*keyExplanation, error) {
	vendor, err := a.knownVendor(ctx, q.vendor)
	if err != nil {
		return nil, err
	}
	s, err := a.search(ctx, vendor)
	if err != nil {
		return nil, err
	}
	key := q.ledgerKey()
	h, err := s.history(ctx, key)
	if err != nil {
		return nil, err
	}
	named := slices.ContainsFunc(h.log, func(o occurrence) bool {
		return slices.ContainsFunc(o.operations, func(op ledger.Operation) bool { return op.Key == key })
	})
	if h.stored == nil && !named {
		return nil, fmt.Errorf("%s is unknown: the ledger has no figure of it, and no event in the log names it", key)
	}
	letter := ""
	if h.stored != nil && h.stored.State == ledger.Failed {
		if letter, err = s.failure(ctx, key); err != nil {
			return nil, err
		}
	}
	return h.explainKey(letter, q.figures), nil
}

// failure is the newest dead letter of a key's figure, empty when it has gone.
func (s *search) failure(ctx context.Context, key ledger.Key) (id string, err error) {
	name := strings.TrimPrefix(key.String(), key.Organization+"/")
	f := broker.LetterFilter{Vendor: s.vendor.Name, Organization: key.Organization}
	err = s.app.broker.Letters(ctx, f, func(l broker.StoredLetter) error {
		if ofCall(l.Fault.Reason) && deadletter.KeyOf(&l.Letter) == name {
			id = l.ID
		}
		return nil
	})
	return id, err
}

// explainKey says where the key stands. letter is the id of the dead letter of
// its figure, and limit how many figures to list; 0: all.
func (h *history) explainKey(letter string, limit int) *keyExplanation {
	x := &keyExplanation{Integration: h.integration, ReachesBack: h.reachesBack, DeadLetter: letter}
	x.Key = h.key.String()
	for _, key := range h.missing {
		x.Missing = append(x.Missing, strings.TrimPrefix(key.String(), key.Organization+"/"))
	}
	steps := h.refold().steps
	x.Figures = h.figures(steps)
	if h.stored != nil {
		x.keyView = viewKey(h.stored, h.gate, h.catalog)
		x.LetterGone = h.stored.State == ledger.Failed && letter == ""
		if desired, ok := h.stored.Desired(); ok {
			x.From = sourceOf(desired, x.Figures)
			x.Approval = h.awaited(desired)
			if desired.Unfounded() {
				x.From = &keyFigure{figure: *h.name(&desired, steps)}
			}
		}
		if delivered, ok := h.delivered(); ok {
			x.DeliveredOf = sourceOf(delivered, x.Figures)
		}
	}
	for i := range x.Figures {
		if x.Figures[i].Disposition == "" {
			x.NotFolded++
		}
	}
	if limit > 0 && len(x.Figures) > limit {
		x.OlderFigures = len(x.Figures) - limit
		x.Figures = x.Figures[:limit]
	}
	x.tell(h)
	return x
}

// sourceOf is where the figure comes from: the event, not a repeat of it.
func sourceOf(s ledger.Seen, figures []keyFigure) *keyFigure {
	var best *keyFigure
	for i := range figures {
		if f := &figures[i]; f.is(s) && (best == nil || f.Stored.Before(best.Stored)) {
			best = f
		}
	}
	if best == nil {
		return nil
	}
	f := *best
	return &f
}

// figures lists what the log has of the key, and what only the ledger still
// knows, the newest first.
func (h *history) figures(steps []step) []keyFigure {
	list := []keyFigure{}
	known := map[uint64]bool{}
	for i := range steps {
		known[steps[i].operation.Event] = true
		list = append(list, h.figure(&steps[i], steps))
	}
	if h.stored != nil {
		for i := range h.stored.Seen {
			s := &h.stored.Seen[i]
			if known[s.Event] || s.Unfounded() {
				continue
			}
			f := keyFigure{figure: *h.name(s, steps), Disposition: s.Disposition, Certain: true, seen: *s}
			f.mark(h)
			list = append(list, f)
		}
	}
	slices.SortStableFunc(list, func(a, b keyFigure) int {
		return cmp.Or(b.seen.Version.Compare(a.seen.Version), b.Stored.Compare(a.Stored))
	})
	return list
}

// figure shows one step.
func (h *history) figure(s *step, steps []step) keyFigure {
	op, o := s.operation, &s.occurrence
	is := ledger.Seen{Version: op.Version, Value: op.Value, Event: op.Event}
	f := keyFigure{
		figure: *h.name(&is, steps), Stored: o.message.Stored, Disposition: s.disposition, Backfill: op.Backfill,
		Undone: h.undone(ledger.BackfillDigest(op.Backfill)), seen: is,
	}
	f.EventID, f.Source = o.id, o.source
	if o.event != nil {
		f.Place, f.ReplayOf = o.place(), o.event.ReplayOf
		f.ReplayedAs = h.replays(o)
	}
	remembered, ok := h.remembered(op)
	switch {
	case h.dead[o.place()]:
		f.Disposition, f.Certain = ledger.Dead, true
	case ok:
		f.Disposition, f.Certain = remembered, true
	case s.zeroedBy == "" && h.pending(op):
		f.Disposition = ""
	}
	switch {
	case s.zeroedBy != "":
		f.Approval = h.vanished(is.Event, s.zeroedBy)
	case f.Disposition != ledger.Dead && f.Disposition != ledger.Duplicate:
		f.Approval = h.jump(op, steps)
	}
	f.mark(h)
	return f
}

// mark says whether the figure is the one that is desired, or the partner's.
func (f *keyFigure) mark(h *history) {
	if h.stored == nil || f.Disposition == "" || f.Disposition == ledger.Duplicate || f.Disposition == ledger.Dead {
		return
	}
	desired, ok := h.stored.Desired()
	f.Desired = ok && f.is(desired)
	delivered, ok := h.delivered()
	f.Delivered = ok && f.is(delivered)
}

// vanished says what a person has to say, or has said, of the zeros of a
// snapshot; nil if nobody had to.
func (h *history) vanished(snapshot uint64, name string) *approvalAccount {
	a := &approvalAccount{ID: approvalName(snapshot), Snapshot: name, Decision: h.verdict(snapshot)}
	if h.stored != nil {
		a.Waits = slices.ContainsFunc(h.stored.Seen, func(s ledger.Seen) bool { return s.Event == snapshot && s.Waits == ledger.Vanished })
	}
	if !a.Waits && a.Decision == nil {
		return nil
	}
	return a
}

// awaited is what the desired figure waits for; nil if it does not.
func (h *history) awaited(desired ledger.Seen) *approvalAccount {
	if desired.Waits == ledger.NoWait {
		return nil
	}
	id := ledger.ApprovalID(h.key, desired)
	a := &approvalAccount{ID: approvalName(id), Waits: true, To: valueText(h.key.Kind, desired.Value), From: former(h.stored), Decision: h.verdict(id)}
	if desired.Waits == ledger.Jumped && h.record != nil {
		a.Factor = h.record.Jump[h.key.Service]
	}
	for _, keeper := range h.keepers {
		for _, s := range keeper.Snapshots {
			if desired.Waits == ledger.Vanished && s.Event == desired.Event {
				a.Snapshot = s.Name
			}
		}
	}
	if desired.Waits == ledger.Vanished {
		a.Snapshot = or(a.Snapshot, "of "+instant(moment(desired.Time)))
	}
	return a
}

// tell puts the explanation into sentences.
func (x *keyExplanation) tell(h *history) {
	if h.stored == nil {
		x.say("not folded yet: %s it, and no worker has taken what the log has.", plural(x.NotFolded, "event names", "events name"))
		x.tellStopped(h)
		return
	}
	for _, sentence := range x.why(h) {
		x.say("%s", sentence)
	}
	x.tellDesired()
	x.tellDelivered()
	if x.NotFolded > 0 {
		x.say("%s not folded yet: no worker has taken what the log has.", plural(x.NotFolded, "event that names it is", "events that name it are"))
		x.tellStopped(h)
	}
	if !x.ReachesBack {
		x.say("The log no longer reaches back to its beginning: figures before are shown as far as the ledger remembers them.")
	}
}

// tellStopped says who has stopped the vendor, if anybody has.
func (x *keyExplanation) tellStopped(h *history) {
	if h.record != nil && h.record.Stopped != nil {
		x.say("%s", h.record.Stopped.sentence())
	}
}

func (x *keyExplanation) say(format string, args ...any) {
	x.Sentences = append(x.Sentences, fmt.Sprintf(format, args...))
}

// why says what keeps the partner from having the desired value.
func (x *keyExplanation) why(h *history) []string {
	since := ""
	if !x.Since.IsZero() {
		since = ", since " + instant(x.Since)
	}
	switch x.State {
	case ledger.Synced:
		return []string{"synced: the partner has what is desired."}
	case ledger.Retrying:
		return []string{fmt.Sprintf("retrying%s: %s, the last answer was: %s. The next attempt is due on %s.",
			since, plural(x.Attempts, "call was without success", "calls were without success"), or(x.Answer, "none"), instant(x.Next))}
	case ledger.Failed:
		list := []string{fmt.Sprintf("failed%s: its figure was given up after %s, the last answer was: %s. A newer figure starts afresh.",
			since, plural(x.Attempts, "call", "calls"), or(x.Answer, "none"))}
		if x.LetterGone {
			return append(list, "Its dead letter has gone.")
		}
		return append(list, fmt.Sprintf("Dead letter %s keeps it; see `usagebridge dlq show %s`.", x.DeadLetter, x.DeadLetter))
	case ledger.Held:
		return x.whyHeld(h, since)
	case ledger.Dirty, ledger.Sending:
	}
	if x.Answer != "" && x.Attempts > 0 {
		return []string{fmt.Sprintf("%s%s: it is to be sent; the last answer was: %s.", x.State, since, x.Answer)}
	}
	return []string{fmt.Sprintf("%s%s: it is to be sent.", x.State, since)}
}

// whyHeld says what a held key waits for, and who can do something about it.
func (x *keyExplanation) whyHeld(h *history, since string) []string {
	head := "held" + since + ", " + string(x.Reason) + ": "
	name := x.Integration
	switch x.Reason {
	case ledger.Approval:
		if x.Approval == nil {
			return []string{head + "a person must approve its figure."}
		}
		return append([]string{head + "a person must approve its figure."}, x.Approval.sentences(name)...)
	case ledger.Unmapped:
		return []string{head + "the partner does not know where to bill it (" + or(x.Answer, "404") + "). Someone at the MSP must map it; it is probed now and then.",
			fmt.Sprintf("`usagebridge integrations mapping %s` lists what is not mapped.", name)}
	case ledger.AwaitingCatalog:
		return []string{head + "the partner does not have " + strings.Join(x.Missing, " nor ") + " yet. Publish what is missing, if nobody has."}
	case ledger.Paused:
		why := "no reason given"
		if h.owner != nil {
			why = or(h.owner.PausedWhy, why)
		}
		return []string{fmt.Sprintf("%sthe integration is paused (%s). `usagebridge integrations resume %s` sends it.", head, why, name)}
	case ledger.Unauthorized:
		return []string{fmt.Sprintf("%sthe partner refuses the tokens of the integration; see `usagebridge integrations show %s`.", head, name)}
	case ledger.IntegrationNotReady:
		if h.owner == nil {
			return []string{head + "nobody has added the integration; see `usagebridge integrations add --help`."}
		}
		return []string{fmt.Sprintf("%sthe status of the integration is %s; see `usagebridge integrations show %s`.", head, h.owner.Status, name)}
	case ledger.Anomaly:
	}
	return []string{fmt.Sprintf("%sthe partner refuses every call of the integration; see `usagebridge integrations show %s`.", head, name)}
}

// tellDesired says what is desired, and what that comes from.
func (x *keyExplanation) tellDesired() {
	switch f := x.From; {
	case f == nil:
		x.say("Desired is %s, true at %s. The log no longer has what it comes from.", x.Desired, instant(x.Time))
	case f.Unfounded:
		x.say("Desired is %s: no event stands for another value, since all that did were taken back.", x.Desired)
	default:
		x.say("Desired is %s, true at %s: %s.", x.Desired, instant(f.Time), f.source())
	}
}

// source says what a figure comes from.
func (f *keyFigure) source() string {
	text := "event " + or(eventName(f.EventID, f.Source), "that the log no longer has")
	if f.Snapshot != "" {
		text = "zeroed by snapshot " + f.Snapshot + ", which did not name the key and whose last part is event " +
			or(eventName(f.EventID, f.Source), "that the log no longer has")
	}
	if f.Place != "" {
		text += ", stored as " + f.Place + " on " + instant(f.Stored)
	}
	if f.Backfill != "" {
		text += ", of backfill " + f.Backfill
	}
	if f.ReplayOf != "" {
		stream, _, _ := strings.Cut(f.Place, "/")
		text += ", a replay of dead letter " + stream + "/" + f.ReplayOf
	}
	if len(f.ReplayedAs) > 0 {
		text += ", replayed as " + strings.Join(f.ReplayedAs, ", ")
	}
	return text
}

// tellDelivered says what the partner has, and since when.
func (x *keyExplanation) tellDelivered() {
	if x.Delivered == "" {
		x.say("The partner has nothing yet.")
		return
	}
	text := fmt.Sprintf("The partner has %s since %s", x.Delivered, instant(x.At))
	if x.RequestID != "" {
		text += " (request " + x.RequestID + ")"
	}
	if f := x.DeliveredOf; f != nil && (x.From == nil || !f.is(x.From.seen)) {
		from := "from "
		if f.Snapshot != "" {
			from = "" // what it says begins with another word
		}
		text += ", " + from + f.source()
	}
	x.say("%s.", text)
}

func (c *cli) showKeyExplanation(x *keyExplanation) error {
	if c.json {
		return c.printJSON(x)
	}
	var b strings.Builder
	width := lineWidth(c.stdout)
	b.WriteString("key " + printable(x.Key) + "\n")
	b.WriteString(paragraph(printable("integration "+x.Integration), width) + "\n")
	for _, sentence := range x.Sentences {
		b.WriteString(paragraph(printable(sentence), width))
	}
	if len(x.Figures) > 0 {
		b.WriteString("\n")
	}
	if _, err := fmt.Fprint(c.stdout, b.String()); err != nil || len(x.Figures) == 0 {
		return err
	}
	rows := make([][]string, len(x.Figures))
	for i := range x.Figures {
		rows[i] = x.Figures[i].row()
	}
	if err := c.table([]string{"TRUE AT", "VALUE", "BECAME", "EVENT", "STORED AS", "NOTES"}, rows); err != nil {
		return err
	}
	if slices.ContainsFunc(x.Figures, func(f keyFigure) bool { return f.refolded() }) {
		c.say("%s: the ledger no longer remembers it; this is what folding its log again gives", refoldedNote)
	}
	if x.OlderFigures > 0 {
		c.say("%s not listed: see --figures", plural(x.OlderFigures, "older figure", "older figures"))
	}
	return nil
}

// row is the figure as a line of the table.
func (f *keyFigure) row() []string {
	_, arrival, _ := strings.Cut(f.Place, "/")
	return []string{
		f.Time.UTC().Format(time.RFC3339), printable(cut(f.Value, 24)), or(string(f.Disposition), "not folded"),
		or(printable(cut(f.EventID, 20)), "-"), or(arrival, "-"), printable(strings.Join(f.notes(), ", ")),
	}
}

// notes say what is particular about the figure.
func (f *keyFigure) notes() (list []string) {
	add := func(when bool, note string) {
		if when {
			list = append(list, note)
		}
	}
	add(f.Desired, "desired")
	add(f.Delivered, "partner has it")
	add(f.Snapshot != "", "zeroed by snapshot "+f.Snapshot)
	add(f.Backfill != "" && f.Undone == nil, "backfill "+f.Backfill)
	add(f.Backfill != "" && f.Undone != nil, "backfill "+f.Backfill+" (undone)")
	add(f.ReplayOf != "", "replay of "+f.ReplayOf)
	if a := f.Approval; a != nil {
		add(a.Waits && f.Desired, "waits for approval") // one below another is not sent whatever is said
		add(!a.Waits && a.Decision != nil, string(judgmentOf(a.Decision)))
	}
	add(f.refolded(), refoldedNote)
	return list
}

// refoldedNote marks figures of which the ledger knows nothing any more.
const refoldedNote = "refolded"

// refolded says that the log alone tells what became of the figure, and that
// nobody has taken it back, which would say why.
func (f *keyFigure) refolded() bool {
	return !f.Certain && f.Disposition != "" && f.Undone == nil && (f.Approval == nil || judgmentOf(f.Approval.Decision) != refused)
}

func judgmentOf(d *decision) judgment {
	if d == nil {
		return ""
	}
	return d.Verdict
}
