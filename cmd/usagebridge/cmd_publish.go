package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

// shownRefusals is how many refused lines a person gets to see.
const shownRefusals = 20

// The formats and kinds of a file.
const (
	formatCSV    = "csv"
	formatNDJSON = "ndjson"

	kindCounts   = "counts"
	kindAccounts = "accounts"
	kindServices = "services"
)

func (c *cli) publishCommand() *cobra.Command {
	var f filing
	cmd := &cobra.Command{
		Use:   "publish FILE|- --integration VENDOR/ORGANIZATION",
		Short: "Publish the events of a file: CSV, or NDJSON of CloudEvents",
		Long: `Publishes a file line by line, each line checked before it is sent, until the
server has acknowledged every event. Lines that are no valid event are left out
and listed on stderr, the first 20; --json lists all of them, --refused FILE
writes them as NDJSON. With --atomic the whole file is read into memory and
checked first, and one wrong line keeps everything from being sent.

NDJSON: one CloudEvents envelope on each line, as the event contract has it.
CSV, by --kind, with a header row:
  counts    account,service,unitCount[,time]
  accounts  id,name[,externalId][,description]
  services  id,name[,description]

The id of a CSV row is made of what the row says: source, time, ids and figures;
rows that say the same in one file are numbered. Publishing the same file again
with the same times is therefore harmless: each row is a duplicate. It also means
that a figure that was corrected cannot be set back under its old time: give the
row, or the file with --time, a later one. Rows without a time are true at --time,
or at the moment publish was started, which makes each run a new statement.

With --snapshot, a CSV of counts is all that its organization uses, or with
--account all that this account uses: what it does not name becomes 0. It is read
into memory and sent only if every row is right, in parts of --part-size rows;
until the last part is there, nothing becomes 0. A file with a header row alone
says that nothing is used. A snapshot that was sent in part is sent again with the
same --time and --snapshot-id; a corrected file is another snapshot and needs
another id.

With --backfill ID every event belongs to that backfill, which is looked at,
approved and undone as a whole.

Duplicates are events whose source and id the server has seen within its window.
It drops them without looking at their content: give changed content a new id.

Exit codes: 0 everything was sent, 1 delivery failed, 2 nothing was sent because
the input is wrong, 3 some lines were refused and the others sent.`,
		Example: `  usagebridge publish november.csv --integration acme/msp-0042 --time 2026-11-30T23:59:59Z
  usagebridge publish accounts.csv --integration acme/msp-0042 --kind accounts
  usagebridge publish everything.csv --integration acme/msp-0042 --snapshot
  usagebridge publish october.csv --integration acme/msp-0042 --time 2026-10-31T23:59:59Z --backfill october-prices
  billing-export | usagebridge publish - --integration acme/msp-0042 --format ndjson`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.path = args[0]
			return c.publishFile(cmd.Context(), &f)
		},
	}
	flags := cmd.Flags()
	c.integrationFlag(cmd, &f.integration, "vendor/organization the events are of")
	flags.StringVar(&f.kind, "kind", "", "what the rows of a CSV are: counts, accounts or services (default counts)")
	flags.StringVar(&f.format, "format", "", "csv or ndjson (default: by the file's name, else by its first bytes)")
	flags.StringVar(&f.source, "source", "", "CloudEvents source of CSV rows (default "+defaultSource+")")
	flags.StringVar(&f.at, "time", "", "when CSV rows without a time were true, RFC 3339 (default: now)")
	flags.BoolVar(&f.atomic, "atomic", false, "send nothing if one line is wrong")
	flags.StringVar(&f.refusedPath, "refused", "", "file for all refused lines, as NDJSON")
	f.furtherFlags(cmd)
	return cmd
}

// defaultSource is the CloudEvents source of CSV rows: always the same, so that
// the same file has the same ids.
const defaultSource = "//usagebridge/publish"

// filing is one file to be published.
type filing struct {
	path, integration, kind, format, source, at, refusedPath string

	backfill, account, snapshotID string // empty: none

	snapshot bool
	partSize int

	atomic               bool
	vendor, organization string
	time                 time.Time // of CSV rows without one
}

// furtherFlags are those of backfills and snapshots.
func (f *filing) furtherFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.backfill, "backfill", "", "id of the backfill that every event belongs to")
	flags.BoolVar(&f.snapshot, "snapshot", false, "the CSV is all that is used: what it does not name becomes 0")
	flags.StringVar(&f.account, "account", "", "with --snapshot: of this account only")
	flags.StringVar(&f.snapshotID, "snapshot-id", "", "with --snapshot: its id (default: a new one)")
	flags.IntVar(&f.partSize, "part-size", publisher.DefaultPartSize, fmt.Sprintf("with --snapshot: rows in one part, 1 to %d", event.MaxCounts))
}

// parse checks what the flags say by themselves.
func (f *filing) parse() error {
	if f.integration == "" {
		return usagef("--integration is missing: want vendor/organization, such as acme/msp-0042")
	}
	var errs []error
	var err error
	if f.vendor, f.organization, err = parseIntegration(f.integration); err != nil {
		errs = append(errs, fmt.Errorf("--%w", err))
	}
	switch f.format {
	case "", formatCSV, formatNDJSON:
	default:
		errs = append(errs, fmt.Errorf("--format %q: want csv or ndjson", f.format))
	}
	switch f.kind {
	case "", kindCounts, kindAccounts, kindServices:
	default:
		errs = append(errs, fmt.Errorf("--kind %q: want counts, accounts or services", f.kind))
	}
	if f.at != "" {
		if f.time, err = time.Parse(time.RFC3339, f.at); err != nil {
			errs = append(errs, fmt.Errorf("--time %q: want a time such as 2026-11-30T23:59:59Z", f.at))
		}
	}
	if f.backfill != "" {
		if err := event.CheckBackfill(f.backfill); err != nil {
			errs = append(errs, fmt.Errorf("--%w", err))
		}
	}
	errs = append(errs, f.parseSnapshot())
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

// parseSnapshot checks the flags of a snapshot.
func (f *filing) parseSnapshot() error {
	if !f.snapshot {
		if f.account != "" || f.snapshotID != "" || f.partSize != publisher.DefaultPartSize {
			return errors.New("--account, --snapshot-id and --part-size are for a snapshot: want --snapshot with them")
		}
		return nil
	}
	var errs []error
	if f.kind != "" && f.kind != kindCounts || f.format == formatNDJSON {
		errs = append(errs, errors.New("--snapshot is for a CSV of counts: want neither another --kind nor NDJSON, whose events say themselves what they are"))
	}
	if f.partSize < 1 || f.partSize > event.MaxCounts {
		errs = append(errs, fmt.Errorf("--part-size %d: want 1 to %d", f.partSize, event.MaxCounts))
	}
	for _, given := range []struct{ flag, id string }{{"account", f.account}, {"snapshot-id", f.snapshotID}} {
		if err := event.CheckID(given.id); given.id != "" && err != nil {
			errs = append(errs, fmt.Errorf("--%s %w", given.flag, err))
		}
	}
	return errors.Join(errs...)
}

// settle finds the format where no flag names it, and refuses flags that mean
// nothing in it: an NDJSON event says itself what it is.
func (f *filing) settle(content *bufio.Reader) error {
	switch strings.ToLower(filepath.Ext(f.path)) {
	case ".csv":
		f.format = or(f.format, formatCSV)
	case ".ndjson", ".jsonl", ".json":
		f.format = or(f.format, formatNDJSON)
	}
	if f.format == "" {
		f.format = guessFormat(content)
	}
	if f.format == formatNDJSON && (f.kind != "" || f.source != "" || f.at != "") {
		return usagef("--kind, --source and --time are for CSV: events in NDJSON say it themselves")
	}
	if f.format == formatNDJSON && f.snapshot {
		return usagef("--snapshot is for a CSV of counts: events in NDJSON say themselves what they are")
	}
	f.kind = or(f.kind, kindCounts)
	f.source = or(f.source, defaultSource)
	if f.time.IsZero() {
		f.time = time.Now()
	}
	f.time = f.time.UTC()
	return nil
}

func or(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}

// guessFormat goes by the first byte that is no blank.
func guessFormat(content *bufio.Reader) string {
	head, _ := content.Peek(512) // fewer at the end of a short file
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	if len(head) > 0 && (head[0] == '{' || head[0] == '[') {
		return formatNDJSON
	}
	return formatCSV
}

// records reads the file. Reading it twice gives the same events.
func (f *filing) records(r io.Reader) iter.Seq[publisher.Record] {
	if f.format == formatNDJSON {
		return f.ofIntegration(publisher.ReadEvents(r))
	}
	defaults := f.defaults()
	switch f.kind {
	case kindAccounts:
		return named(publisher.ReadAccounts(r, defaults))
	case kindServices:
		return named(publisher.ReadServices(r, defaults))
	}
	return named(publisher.ReadCounts(r, defaults))
}

func (f *filing) defaults() publisher.Defaults {
	return publisher.Defaults{Vendor: f.vendor, Organization: f.organization, Source: f.source, Time: f.time, Backfill: f.backfill}
}

// ofIntegration refuses events of another integration or another backfill.
func (f *filing) ofIntegration(records iter.Seq[publisher.Record]) iter.Seq[publisher.Record] {
	return func(yield func(publisher.Record) bool) {
		for r := range records {
			if r.Event != nil {
				if wrong := f.foreign(r.Event); wrong != nil {
					wrong.Line = r.Number
					r.Event, r.Err = nil, wrong
				} else if f.backfill != "" {
					r.Event.Backfill = f.backfill
				}
			}
			if !yield(r) {
				return
			}
		}
	}
}

// foreign is why an event does not belong to what is published; nil if it does.
func (f *filing) foreign(e *event.Event) *publisher.LineError {
	switch {
	case e.Vendor != f.vendor || e.Organization != f.organization:
		return &publisher.LineError{Problem: fmt.Sprintf("is an event of %q", e.Vendor+"/"+e.Organization), Want: fmt.Sprintf("%q, as --integration says", f.integration)}
	case f.backfill != "" && e.Backfill != "" && e.Backfill != f.backfill:
		return &publisher.LineError{Problem: fmt.Sprintf("belongs to backfill %q", e.Backfill), Want: fmt.Sprintf("%q, as --backfill says, or none", f.backfill)}
	}
	return nil
}

// named gives each row an id made of what it says, so that publishing a file
// again repeats its events. Rows that say the same are numbered: of two figures
// with one time the later row wins, also when an equal row came before both.
func named(records iter.Seq[publisher.Record]) iter.Seq[publisher.Record] {
	return func(yield func(publisher.Record) bool) {
		seen := map[[16]byte]int{}
		for r := range records {
			if r.Event != nil {
				r.Event.ID = ""
				sum := [16]byte(sumOf(r.Event))
				seen[sum]++
				r.Event.ID = "csv-" + hex.EncodeToString(sum[:])
				if n := seen[sum]; n > 1 {
					r.Event.ID = fmt.Sprintf("%s-%d", r.Event.ID, n)
				}
			}
			if !yield(r) {
				return
			}
		}
	}
}

func sumOf(e *event.Event) []byte {
	sum := sha256.Sum256(e.Structured())
	return sum[:16]
}

// publishFile publishes what f names and says what became of it.
func (c *cli) publishFile(ctx context.Context, f *filing) error {
	if err := f.parse(); err != nil {
		return err
	}
	input := io.NopCloser(c.stdin)
	if f.path != "-" {
		file, err := os.Open(f.path)
		if err != nil {
			return usageError{err}
		}
		input = file
	}
	defer func() { _ = input.Close() }()
	content := bufio.NewReader(input)
	if err := f.settle(content); err != nil {
		return err
	}
	refused, err := newRefusedLines(f.refusedPath, c.json)
	if err != nil {
		return err
	}
	err = c.send(ctx, f, content, refused)
	return errors.Join(err, refused.close())
}

// send checks the whole file first if it must, then sends it.
func (c *cli) send(ctx context.Context, f *filing, content io.Reader, refused *refusedLines) error {
	if f.snapshot {
		return c.sendSnapshot(ctx, f, content, refused)
	}
	if f.atomic {
		whole, err := io.ReadAll(content)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
		if err := c.checkAll(f.records(bytes.NewReader(whole)), refused); err != nil {
			return err
		}
		content = bytes.NewReader(whole)
	}
	return c.deliver(ctx, f, f.records(content), refused, nil)
}

// checkAll reads a whole file; one wrong line is an error.
func (c *cli) checkAll(records iter.Seq[publisher.Record], refused *refusedLines) error {
	lines := 0
	for r := range records {
		lines++
		if r.Err != nil {
			refused.add(r.Number, r.Err)
		}
	}
	if refused.total == 0 {
		return nil
	}
	return errors.Join(c.report(publishReport{Refused: refused.total}, refused),
		usagef("nothing was sent: %s of %d", plural(refused.total, "wrong line", "wrong lines"), lines))
}

// sendSnapshot sends all rows of a file as the parts of one snapshot.
func (c *cli) sendSnapshot(ctx context.Context, f *filing, content io.Reader, refused *refusedLines) error {
	var figures []publisher.Figure
	if err := c.checkAll(f.figures(content, &figures), refused); err != nil {
		return err
	}
	parts, err := publisher.Snapshot{
		Organization: f.organization, Account: f.account, Figures: figures, SnapshotID: f.snapshotID, Time: f.time,
	}.Split(f.partSize)
	if err != nil {
		return usageError{err}
	}
	for _, part := range parts {
		part.Source, part.Backfill = f.source, f.backfill
	}
	f.snapshotID = parts[0].Data.(event.Snapshot).SnapshotID //nolint:errcheck // Split makes nothing else
	return c.deliver(ctx, f, publisher.Records(slices.Values(parts)), refused,
		&snapshotReport{ID: f.snapshotID, Account: f.account, Time: f.time, Parts: len(parts), Counts: len(figures)})
}

// figures reads the rows of a snapshot into all; those that no snapshot can
// have are refused.
func (f *filing) figures(r io.Reader, all *[]publisher.Figure) iter.Seq[publisher.Record] {
	return func(yield func(publisher.Record) bool) {
		lines := map[[2]string]int{}
		for r := range publisher.ReadCounts(r, f.defaults()) {
			if r.Err == nil {
				count := r.Event.Data.(event.Count) //nolint:errcheck // ReadCounts yields nothing else
				key := [2]string{count.AccountID, count.ServiceID}
				if wrong := f.misfit(r.Event.Time, count, lines[key]); wrong != nil {
					wrong.Line = r.Number
					r = publisher.Record{Number: r.Number, Err: wrong}
				} else {
					lines[key] = r.Number
					*all = append(*all, publisher.Figure{Account: count.AccountID, Service: count.ServiceID, Units: count.UnitCount.String()})
				}
			}
			if !yield(r) {
				return
			}
		}
	}
}

// misfit is why a row cannot be part of the snapshot; nil if it can. The key
// stood on line before, 0 for none.
func (f *filing) misfit(at time.Time, count event.Count, before int) *publisher.LineError {
	switch {
	case before != 0:
		return &publisher.LineError{Problem: fmt.Sprintf("counts the same account and service as line %d", before), Want: "one figure for each"}
	case f.account != "" && count.AccountID != f.account:
		return &publisher.LineError{Column: "account", Value: count.AccountID, Problem: "is another account", Want: fmt.Sprintf("%q, as --account says", f.account)}
	case !at.Equal(f.time):
		return &publisher.LineError{
			Column: "time", Value: at.Format(time.RFC3339Nano), Problem: "is not the time of the snapshot",
			Want: f.time.Format(time.RFC3339Nano) + " or no time: a snapshot has one, --time",
		}
	}
	return nil
}

// deliver sends the events to where they belong.
func (c *cli) deliver(ctx context.Context, f *filing, records iter.Seq[publisher.Record], refused *refusedLines, snapshot *snapshotReport) error {
	return c.withApp(ctx, func(ctx context.Context, a *app) error {
		if err := c.checkTarget(ctx, a, f); err != nil {
			return err
		}
		return c.transmit(ctx, a, f, records, refused, snapshot)
	})
}

// checkTarget tells early that nothing can take the events, and that nobody
// will deliver them. On a server of somebody else's this user may only publish.
func (c *cli) checkTarget(ctx context.Context, a *app, f *filing) error {
	if a.config.NATSURL != "" {
		return nil
	}
	if _, err := a.broker.Vendor(ctx, f.vendor); err != nil {
		return err
	}
	_, err := a.integration(ctx, f.vendor, f.organization)
	if errors.Is(err, broker.ErrNotFound) {
		c.say("note: integration %s has not been added; its figures are kept until it is", printable(f.integration))
		return nil
	}
	return err
}

func (c *cli) transmit(ctx context.Context, a *app, f *filing, records iter.Seq[publisher.Record], refused *refusedLines, snapshot *snapshotReport) error {
	m := &meter{started: time.Now()}
	p, err := publisher.New(a.broker.Conn(), publisher.Config{
		Vendor: f.vendor, Source: f.source, OnRetry: func(publisher.Retry) { m.retries.Add(1) },
	})
	if err != nil {
		return err
	}
	report := publishReport{Snapshot: snapshot}
	var failure error
	stop := m.show(c.stderr)
	_, _ = p.PublishAll(ctx, records, func(r publisher.Result) {
		switch {
		case r.Err == nil:
			report.Sent++
			m.sent.Add(1)
			if r.Ack.Duplicate {
				report.Duplicates++
			}
		case snapshot == nil && isRefusal(r):
			m.refused.Add(1)
			refused.add(r.Number, r.Err)
		default:
			report.NotAcknowledged++
			if failure == nil {
				failure = r.Err
			}
		}
	})
	stop()
	report.Refused = refused.total
	report.Seconds = time.Since(m.started).Seconds()
	if report.NotAcknowledged > 0 {
		c.say("%s", f.again())
	}
	return errors.Join(c.report(report, refused), report.verdict(failure))
}

// isRefusal tells a line that is wrong from an event that could not be
// delivered: a wrong one never got as far as an attempt, or is too large.
func isRefusal(r publisher.Result) bool {
	var line *publisher.LineError
	var fault *event.Fault
	return r.Event == nil || errors.As(r.Err, &line) || errors.As(r.Err, &fault) || errors.Is(r.Err, publisher.ErrTooLarge)
}

// again says what it takes to publish the file once more without harm.
func (f *filing) again() string {
	if f.format == formatNDJSON {
		return "Publishing the same file again is harmless: its events keep their ids."
	}
	again := "--time " + f.time.Format(time.RFC3339Nano)
	if f.source != defaultSource {
		again += " --source " + f.source
	}
	if f.snapshot {
		return "Publishing the same file again is harmless with " + again + " --snapshot-id " + f.snapshotID + ": the parts then have the same ids."
	}
	return "Publishing the same file again is harmless with " + again + ": the rows then have the same ids."
}

// publishReport is what became of a file.
type publishReport struct {
	Sent            int           `json:"sent"` // acknowledged, duplicates included
	Duplicates      int           `json:"duplicates"`
	Refused         int           `json:"refused"`
	NotAcknowledged int           `json:"not_acknowledged"`
	Seconds         float64       `json:"seconds"`
	Lines           []refusedLine `json:"refused_lines"`

	Snapshot *snapshotReport `json:"snapshot,omitempty"` // whose parts the events are
}

// snapshotReport is a file that was published as one snapshot.
type snapshotReport struct {
	ID      string    `json:"id"`
	Account string    `json:"account,omitempty"` // empty: the whole organization
	Time    time.Time `json:"time"`
	Parts   int       `json:"parts"`
	Counts  int       `json:"counts"`
}

// refusedLine is a line that is no event that can be published.
type refusedLine struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

// verdict is how the command ends.
func (r publishReport) verdict(failure error) error {
	switch {
	case r.NotAcknowledged > 0:
		return fmt.Errorf("%d events were acknowledged, %d were not: %w", r.Sent, r.NotAcknowledged, failure)
	case r.Refused > 0 && r.Sent == 0:
		return usagef("nothing was sent: %s wrong", plural(r.Refused, "line is", "lines are"))
	case r.Refused > 0:
		return partlyf("%s refused, the others were sent", plural(r.Refused, "line was", "lines were"))
	}
	return nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// report lists refused lines and the sums: as JSON, or for a person.
func (c *cli) report(r publishReport, refused *refusedLines) error {
	if c.json {
		r.Lines = refused.all
		return c.printJSON(r)
	}
	for _, text := range refused.first {
		c.say("%s", text)
	}
	if more := refused.total - len(refused.first); more > 0 {
		c.say("… and %d more", more)
	}
	if s := r.Snapshot; s != nil {
		of := "the organization"
		if s.Account != "" {
			of = "account " + printable(s.Account)
		}
		c.say("snapshot %s of %s at %s: %s in %s", printable(s.ID), of, s.Time.Format(time.RFC3339Nano),
			plural(s.Counts, "figure", "figures"), plural(s.Parts, "part", "parts"))
		if r.Duplicates > 0 {
			c.say("note: parts of this id were there already; if the file has changed since, publish it with another --snapshot-id")
		}
	}
	c.say("%d sent, %d of them duplicates, %d refused, %.1f s", r.Sent, r.Duplicates, r.Refused, r.Seconds)
	return nil
}

// refusedLines keeps what is to be told of refused lines: few for a person, all
// of them when somebody wants them.
type refusedLines struct {
	total int
	first []string
	keep  bool
	all   []refusedLine
	file  *os.File // nil: none
	err   error    // the first of writing the file
}

func newRefusedLines(path string, keep bool) (*refusedLines, error) {
	l := &refusedLines{keep: keep, all: []refusedLine{}}
	if path == "" {
		return l, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, usagef("--refused: %w", err)
	}
	l.file = file
	return l, nil
}

func (l *refusedLines) add(number int, err error) {
	l.total++
	text := printable(err.Error())
	var line *publisher.LineError
	if reason := strings.TrimPrefix(text, fmt.Sprintf("line %d", number)); errors.As(err, &line) {
		text = strings.TrimLeft(reason, ":, ")
	}
	if len(l.first) < shownRefusals {
		l.first = append(l.first, fmt.Sprintf("line %d: %s", number, text))
	}
	refused := refusedLine{Line: number, Reason: text}
	if l.keep {
		l.all = append(l.all, refused)
	}
	if l.file != nil && l.err == nil {
		l.err = json.NewEncoder(l.file).Encode(refused)
	}
}

func (l *refusedLines) close() error {
	if l.file == nil {
		return nil
	}
	if err := errors.Join(l.err, l.file.Close()); err != nil {
		return fmt.Errorf("write the refused lines: %w", err)
	}
	return nil
}

// meter shows how far publishing has come.
type meter struct {
	started                time.Time
	sent, refused, retries atomic.Int64
}

// show writes one live line to a terminal, or a plain line every few seconds
// to anything else, until stop is called.
func (m *meter) show(to io.Writer) (stop func()) {
	live := isTerminal(to)
	interval, begin, end := 5*time.Second, "", "\n"
	if live {
		interval, begin, end = 200*time.Millisecond, "\r\x1b[K", ""
	}
	done := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				if live {
					_, _ = io.WriteString(to, begin)
				}
				return
			case <-ticker.C:
				_, _ = io.WriteString(to, begin+m.line(time.Now())+end)
			}
		}
	})
	return func() {
		close(done)
		showing.Wait()
	}
}

func (m *meter) line(now time.Time) string {
	sent := m.sent.Load()
	text := fmt.Sprintf("%d sent, %.0f/s", sent, float64(sent)/now.Sub(m.started).Seconds())
	if refused := m.refused.Load(); refused > 0 {
		text += fmt.Sprintf(", %d refused", refused)
	}
	if retries := m.retries.Load(); retries > 0 {
		text += fmt.Sprintf(", %d attempts repeated", retries)
	}
	return text
}
