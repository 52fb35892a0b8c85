//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// patience bounds what must come to an end once all is well.
const patience = 60 * time.Second

// outcome is what a run came to.
type outcome struct {
	schedule   *schedule
	dir        string
	took       time.Duration
	settled    time.Duration // from the end of the storm until nothing changed
	events     int
	calls      int
	letters    int
	violations []violation
}

// run plays a schedule at a site of its own in dir and checks what became of
// it. The error is of the harness: it says nothing of the program.
func run(ctx context.Context, dir string, bins binaries, s *schedule) (outcome, error) {
	o := outcome{schedule: s, dir: dir}
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := openSite(ctx, dir, bins, s)
	if err != nil {
		return o, err
	}
	defer w.close()
	defer w.keep(s)
	p := &play{site: w, schedule: s, began: time.Now(), grace: &gates{}}
	p.press = &press{js: w.js, began: p.began, day: p.began.UTC().Truncate(time.Minute).Add(-24 * time.Hour)}
	w.began = p.began
	for _, organization := range organizations {
		if organization != orgLate {
			p.human.Store(organization, true)
		}
	}
	var people sync.WaitGroup
	defer people.Wait()
	defer cancel()
	people.Go(func() { p.playHuman(ctx) })
	if err := p.storm(ctx); err != nil {
		return o, err
	}
	calm := time.Now()
	unsettled := p.settle(ctx)
	o.settled = time.Since(calm)
	for _, slot := range w.workers {
		slot.end()
	}
	o.violations, err = p.check(ctx, &o)
	if unsettled != "" {
		o.violations = append([]violation{{what: fmt.Sprintf("not at rest %v after all faults had ended: %s", patience, unsettled)}}, o.violations...)
	}
	o.took = time.Since(began)
	return o, err
}

// play is a schedule being played.
type play struct {
	*site

	schedule *schedule
	began    time.Time
	press    *press
	human    sync.Map // organization: the person at the partner maps it
	full     sync.Map // stream: its configuration before it was filled
	grace    *gates
}

// storm publishes and does all deeds, and ends every fault.
func (p *play) storm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	var deeds sync.WaitGroup
	published := make(chan error, 1)
	go func() { published <- p.press.publish(ctx, p.schedule.posts) }()
	var mu sync.Mutex
	var failed []error
	for _, d := range p.schedule.deeds {
		deeds.Go(func() {
			wait(ctx, time.Until(p.began.Add(d.at)))
			p.note("%v", d)
			if err := p.do(ctx, d); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, fmt.Errorf("%v: %w", d, err))
			}
		})
	}
	deeds.Wait()
	wait(ctx, time.Until(p.began.Add(p.schedule.storm)))
	if err := p.heal(ctx); err != nil {
		failed = append(failed, err)
	}
	failed = append(failed, <-published)
	p.note("published")
	return errors.Join(failed...)
}

// playHuman is the person who maps whatever is posted, every now and then.
func (p *play) playHuman(ctx context.Context) {
	for wait(ctx, 50*time.Millisecond) {
		p.human.Range(func(organization, _ any) bool {
			integration := name(fmt.Sprint(organization))
			// An error: it is too early, the vendor has not asked for it.
			_ = p.partner.Map(integration, sandbox.All(), sandbox.All())
			_ = p.partner.Finish(integration)
			return true
		})
	}
}

// heal ends every fault.
func (p *play) heal(ctx context.Context) error {
	p.note("all is well")
	if err := p.partner.SetFaults(*calmPlan()); err != nil {
		return err
	}
	for _, s := range p.workers {
		for _, r := range slices.Concat(s.nats, []*relay{s.out}) {
			r.set(weather{})
		}
		s.signal(syscall.SIGCONT)
		s.mu.Lock()
		running := s.running()
		s.mu.Unlock()
		if !running {
			if err := p.launch(s, 0); err != nil {
				return err
			}
		}
	}
	for _, s := range p.cluster.Servers() {
		if !s.Running() {
			if err := s.Start(ctx); err != nil {
				return err
			}
		}
		_ = s.Resume() // it was not paused, most likely
	}
	return p.cluster.Ready(ctx)
}

// settle replays what can be mended and waits until nothing changes any more,
// or says what still does.
func (p *play) settle(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if why := p.rest(ctx); why != "" {
		return why
	}
	p.note("at rest; replaying what can be mended")
	for reason := range patches {
		if err := p.replay(ctx, reason); err != nil {
			return err.Error()
		}
	}
	why := p.rest(ctx)
	p.note("at rest")
	return why
}

// calmFor is how long nothing may change for a site to be at rest: longer than
// any wait between two tries.
const calmFor = 600 * time.Millisecond

// rest waits until nothing is left to do and no call is made for a while.
func (p *play) rest(ctx context.Context) (why string) {
	var calm time.Time
	calls := -1
	for {
		now := p.unfinished(ctx)
		if made := len(p.partner.Tape()); now != "" || made != calls {
			calls, calm = made, time.Now()
		} else if time.Since(calm) > calmFor {
			return ""
		}
		if now != "" && ctx.Err() == nil { // else it may say no more than that the time is up
			why = now
		}
		if !wait(ctx, 50*time.Millisecond) {
			return why
		}
	}
}

// unfinished says what is left to do; "": nothing.
func (p *play) unfinished(ctx context.Context) string {
	stream, err := p.js.Stream(ctx, broker.EventsStream(vendor))
	if err != nil {
		return err.Error()
	}
	for i := range partitions {
		c, err := stream.Consumer(ctx, fmt.Sprint("p", i))
		if err != nil {
			return err.Error()
		}
		if info := c.CachedInfo(); info.NumPending > 0 || info.NumAckPending > 0 {
			return fmt.Sprintf("partition %d: %d messages are to be delivered and %d to be acknowledged", i, info.NumPending, info.NumAckPending)
		}
	}
	open, err := p.running(ctx)
	if err != nil {
		return err.Error()
	}
	if len(open) > 0 {
		return fmt.Sprintf("replays %v run", open)
	}
	return p.unsettled(ctx)
}

// unsettled names a key that is neither delivered nor refused.
func (p *play) unsettled(ctx context.Context) (why string) {
	for i := range partitions {
		err := p.broker.Ledger(vendor).Load(ctx, i, func(e ledger.Entry) error {
			if e.Key.Kind.Figure() && e.State != ledger.Synced && e.State != ledger.Failed {
				why = fmt.Sprintf("%v is %s %s, %d attempts, last answer %d %q", e.Key, e.State, e.Reason, e.Attempts, e.Answer.Status, e.Answer.Message)
			}
			return nil
		})
		if err != nil {
			return err.Error()
		}
	}
	return why
}

// do does a deed and undoes it when its time is over.
func (p *play) do(ctx context.Context, d deed) error {
	switch d.kind {
	case killWorker, stopWorker, endWorker, jumpWorker, rollWorkers:
		return p.doWorker(ctx, d)
	case killServer, stopServer, pauseServer, stutter:
		return p.doServer(ctx, d)
	case linkNATS:
		return p.doLink(ctx, d, p.workers[d.target].nats)
	case linkPartner:
		return p.doLink(ctx, d, []*relay{p.workers[d.target].out})
	case stepDown:
		p.stepDown(ctx, d.name)
		return nil
	case fullStream:
		return p.fill(ctx, d)
	default:
		return p.doPartner(ctx, d)
	}
}

func (p *play) doLink(ctx context.Context, d deed, links []*relay) error {
	for _, r := range links {
		r.set(d.weather)
	}
	wait(ctx, d.lasts)
	for _, r := range links {
		r.set(weather{})
	}
	return nil
}

// doWorker does something to a worker. Two deeds may be about one worker at
// the same time: the one that finds it gone leaves it to the other.
func (p *play) doWorker(ctx context.Context, d deed) error {
	s := p.workers[d.target]
	switch d.kind {
	case stopWorker:
		s.signal(syscall.SIGSTOP)
		wait(ctx, d.lasts)
		s.signal(syscall.SIGCONT)
		return nil
	case rollWorkers:
		for _, s := range p.workers {
			s.end()
			p.relaunch(s, 0)
		}
		return nil
	case killWorker:
		<-s.signal(syscall.SIGKILL)
		wait(ctx, d.lasts)
	case endWorker:
		s.end()
		wait(ctx, d.lasts)
	case jumpWorker:
		<-s.signal(syscall.SIGKILL)
		p.relaunch(s, d.lasts)
		return nil
	}
	p.relaunch(s, 0)
	return nil
}

func (p *play) relaunch(s *workerSlot, jump time.Duration) {
	if err := p.launch(s, jump); err != nil {
		p.note("%v", err)
	}
}

func (p *play) doServer(ctx context.Context, d deed) error {
	s := p.cluster.Server(d.target)
	switch d.kind {
	case killServer:
		p.tolerate(s.Kill())
	case stopServer:
		_ = s.Resume() // one that stands still cannot end
		p.tolerate(s.Stop())
	case pauseServer:
		p.tolerate(s.Pause())
		wait(ctx, d.lasts)
		p.tolerate(s.Resume())
		return nil
	case stutter:
		for end := time.Now().Add(d.lasts); time.Now().Before(end) && ctx.Err() == nil; {
			p.tolerate(s.Pause())
			wait(ctx, 80*time.Millisecond)
			p.tolerate(s.Resume())
			wait(ctx, 20*time.Millisecond)
		}
		return nil
	}
	wait(ctx, d.lasts)
	p.tolerate(s.Start(ctx))
	return nil
}

// tolerate notes an error that two deeds about one server may cause.
func (p *play) tolerate(err error) {
	if err != nil {
		p.note("%v", err)
	}
}

// stepDown makes a leader step down. Nobody may be there to do so.
func (p *play) stepDown(ctx context.Context, name string) {
	subject := "$JS.API.META.LEADER.STEPDOWN"
	stream, consumer, of := strings.Cut(name, "/")
	switch {
	case of:
		subject = "$JS.API.CONSUMER.LEADER.STEPDOWN." + stream + "." + consumer
	case name != "META":
		subject = "$JS.API.STREAM.LEADER.STEPDOWN." + stream
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answer, err := p.conn.RequestWithContext(ctx, subject, nil)
	if err != nil {
		p.note("step down %s: %v", name, err)
		return
	}
	p.note("step down %s: %s", name, answer.Data)
}

// fill makes a stream refuse every write, as when its space is used up, and
// then gives it room again.
func (p *play) fill(ctx context.Context, d deed) error {
	had, err := p.bound(ctx, d.name, 1, jetstream.DiscardNew)
	if err != nil {
		p.note("%v", err) // the servers are away: they refuse writes, too
		return nil
	}
	// Another deed may have filled it already.
	if before, filled := p.full.LoadOrStore(d.name, had); filled {
		had, _ = before.(jetstream.StreamConfig)
	}
	wait(ctx, d.lasts)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err = p.bound(ctx, d.name, had.MaxBytes, had.Discard); err == nil || !wait(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// bound sets how many bytes a stream takes and gives what it was.
func (p *play) bound(ctx context.Context, name string, bytes int64, discard jetstream.DiscardPolicy) (had jetstream.StreamConfig, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := p.js.Stream(ctx, name)
	if err != nil {
		return had, fmt.Errorf("bound %s: %w", name, err)
	}
	had = s.CachedInfo().Config
	next := had
	next.MaxBytes, next.Discard = bytes, discard
	if _, err := p.js.UpdateStream(ctx, next); err != nil {
		return had, fmt.Errorf("bound %s: %w", name, err)
	}
	return had, nil
}

// resetPatience bounds how long a reset waits for the first accepted counts.
const resetPatience = 2 * time.Second

// reset has the partner lose an integration's catalog, once it has accepted a
// count of each account: what was lost before that, nobody can tell from what
// is not mapped yet.
func (p *play) reset(ctx context.Context, organization string) error {
	deadline := time.NewTimer(resetPatience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		report, _ := p.partner.ReportOf(name(organization))
		if !slices.ContainsFunc(accounts, func(account string) bool { return len(report.Counts[account][services[0]]) == 0 }) {
			return p.partner.Reset(name(organization))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-deadline.C:
			p.note("reset of %s left out: not every account has a count", organization)
			return nil
		case <-tick.C:
		}
	}
}

// doPartner does something at the partner or as an operator.
func (p *play) doPartner(ctx context.Context, d deed) error {
	switch d.kind {
	case partnerPlan:
		return p.partner.SetFaults(*d.plan)
	case resetOrg:
		return p.reset(ctx, d.name)
	case mapLate:
		p.grace.mapped(d.name, time.Now())
		p.human.Store(d.name, true)
		return nil
	case replay:
		return p.replay(ctx, d.name)
	case revokeTokens:
		return p.relock(ctx, d)
	case pauseOrg:
		if err := p.insist(ctx, "integrations", "pause", name(d.name), "--why", "torture"); err != nil {
			return err
		}
		from := time.Now()
		wait(ctx, d.lasts)
		p.grace.paused(d.name, from, time.Now())
		return p.insist(ctx, "integrations", "resume", name(d.name), "--why", "torture")
	}
	return fmt.Errorf("a deed of a kind that nobody knows: %q", d.kind)
}

// relock takes an integration's tokens away for a while.
func (p *play) relock(ctx context.Context, d deed) error {
	if err := p.partner.RevokeTokens(name(d.name)); err != nil {
		return err
	}
	from := time.Now()
	wait(ctx, d.lasts)
	issued, err := p.partner.IssueTokens(name(d.name))
	if err != nil {
		return err
	}
	p.grace.locked(d.name, from, time.Now())
	flags, err := p.tokens(d.name, issued)
	if err != nil {
		return err
	}
	return p.insist(ctx, append([]string{"integrations", "credentials", "set", name(d.name), "--why", "torture"}, flags...)...)
}

// nothingReplayed is what the program says when every letter would be dead
// again.
const nothingReplayed = "nothing replayed"

// replay begins the replay of the dead letters of a reason, mended.
func (p *play) replay(ctx context.Context, reason string) error {
	path := filepath.Join(p.dir, reason+".patch.json")
	if err := os.WriteFile(path, []byte(patches[reason]), 0o600); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	err := p.insist(ctx, "dlq", "replay", "--reason", reason, "--edit="+path, "--yes", "--why", "torture", "--share", "100", "--detach")
	if err != nil && strings.Contains(err.Error(), nothingReplayed) {
		return nil // what is left of them cannot be mended
	}
	return err
}

// calm says whether nothing was done to a process or a link, in a time and for
// as long before as a lease takes to end.
func (p *play) calm(from, to time.Time) bool {
	for _, d := range p.schedule.deeds {
		switch d.kind {
		case partnerPlan, revokeTokens, pauseOrg, resetOrg, mapLate, replay:
			continue
		}
		begun := p.began.Add(d.at)
		if begun.Before(to) && begun.Add(max(d.lasts, 0)+2*leaseTTL).After(from) {
			return false
		}
	}
	return true
}

// takeovers finds, in what the workers said, when the partition of each
// integration was taken.
func (p *play) takeovers() (map[string][]time.Time, error) {
	logs, err := filepath.Glob(filepath.Join(p.dir, "w*.log"))
	if err != nil {
		return nil, err
	}
	byPartition := map[int][]time.Time{}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read what a worker said: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			var said struct {
				At        time.Time `json:"time"`
				What      string    `json:"msg"`
				Partition int       `json:"partition"`
			}
			if json.Unmarshal([]byte(line), &said) == nil && said.What == "partition taken" {
				byPartition[said.Partition] = append(byPartition[said.Partition], said.At)
			}
		}
	}
	if len(byPartition) == 0 {
		return nil, fmt.Errorf("no worker says in %s that it has taken a partition", p.dir)
	}
	taken := map[string][]time.Time{}
	for _, organization := range organizations {
		taken[organization] = byPartition[broker.Partition(vendor, organization, partitions)]
	}
	return taken, nil
}
