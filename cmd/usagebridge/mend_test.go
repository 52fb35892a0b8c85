package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// repair is a crash site with events that are broken in six ways, half of all.
type repair struct {
	*crashSite

	begun   time.Time
	want    map[string]map[string]string // the newest figure of every key, once all is mended
	written map[string]int               // broken events, by way
}

// ways are what may be wrong with an event: the reason of its dead letter, and
// the JSON Patch that mends it, where one is needed.
var ways = []struct{ reason, patch string }{
	{"malformed", `[{"op":"add","path":"/specversion","value":"1.0"}]`},
	{"invalid", `[{"op":"replace","path":"/specversion","value":"1.0"}]`},
	{"unknown_type", `[{"op":"replace","path":"/type","value":"usage.count.v1"}]`},
	{"subject_mismatch", `[{"op":"replace","path":"/data/vendorId","value":"acme"}]`},
	{"conflicting_duplicate", `[{"op":"replace","path":"/source","value":"//mended"}]`},
	{"too_old", ""},
}

const (
	mendKeys   = crashAccounts * crashServices
	mendRounds = 40
	mendBroken = mendKeys * mendRounds / 2
)

// mendable is the event of a key and a round: every second one is broken.
func (m *repair) mendable(key, round int) (subject string, body []byte) {
	account, service := fmt.Sprint("a", key%crashAccounts), fmt.Sprint("s", key/crashAccounts)
	e := event.Event{
		ID: fmt.Sprint(key, "-", round), Source: "//test", Type: event.TypeCount, Time: m.begun.Add(time.Duration(round) * time.Minute),
		Vendor: "acme", Organization: "m",
		Data: event.Count{AccountID: account, ServiceID: service, UnitCount: event.Units(round+1) * event.UnitsScale},
	}
	way := ""
	if (key+round)%2 == 0 {
		if way = ways[(key/2+round/2)%len(ways)].reason; way == "conflicting_duplicate" && round == 0 {
			way = "malformed" // there is none before it to conflict with
		}
		m.written[way]++
	}
	switch way {
	case "too_old":
		e.Time = e.Time.Add(-100 * 24 * time.Hour)
	case "conflicting_duplicate":
		e.ID = fmt.Sprint(key, "-", round-1)
	}
	m.expect(account, service, e.Time, round+1)
	subject, body = e.Subject().String(), e.Structured()
	replace := func(old, by string) { body = bytes.Replace(body, []byte(old), []byte(by), 1) }
	switch way {
	case "malformed":
		replace(`"specversion":"1.0",`, ``)
	case "invalid":
		replace(`"1.0"`, `"0.9"`)
	case "unknown_type":
		replace(event.TypeCount, "usage.count.v0")
	case "subject_mismatch":
		replace(`"vendorId":"acme"`, `"vendorId":"acme-old"`)
	}
	return subject, body
}

// expect notes a figure: rounds come in the order of their times, except that
// what is too old is older than everything else.
func (m *repair) expect(account, service string, at time.Time, units int) {
	if m.want[account] == nil {
		m.want[account] = map[string]string{}
	}
	if old := at.Before(m.begun); !old || m.want[account][service] == "" {
		m.want[account][service] = fmt.Sprint(units)
	}
}

func (m *repair) publishAll() {
	m.t.Helper()
	js, err := jetstream.New(m.app.broker.Conn())
	if err != nil {
		m.t.Fatal(err)
	}
	send := func(subject string, body []byte) {
		if _, err := js.PublishAsync(subject, body); err != nil {
			m.t.Fatal(err)
		}
		if js.PublishAsyncPending() > 500 {
			<-js.PublishAsyncComplete()
		}
	}
	catalog := func(typ string, data event.Data) {
		e := event.Event{ID: fmt.Sprint(data), Source: "//test", Type: typ, Time: m.begun, Vendor: "acme", Organization: "m", Data: data}
		send(e.Subject().String(), e.Structured())
	}
	for a := range crashAccounts {
		catalog(event.TypeAccount, event.Account{AccountID: fmt.Sprint("a", a), Name: "A"})
	}
	for s := range crashServices {
		catalog(event.TypeService, event.Service{ServiceID: fmt.Sprint("s", s), Name: "S"})
	}
	for round := range mendRounds {
		for key := range mendKeys {
			send(m.mendable(key, round))
		}
	}
	<-js.PublishAsyncComplete()
}

// command runs a command of the program as a person would.
func (s *crashSite) command(args ...string) string {
	s.t.Helper()
	path, err := exec.LookPath("usagebridge")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), path, args...)
	cmd.Env = s.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("usagebridge %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// letters counts the dead letters by reason.
func (m *repair) letters() map[string]int {
	m.t.Helper()
	counts := map[string]int{}
	err := m.app.broker.Letters(m.t.Context(), broker.LetterFilter{}, func(l broker.StoredLetter) error {
		counts[string(l.Fault.Reason)]++
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return counts
}

// replays counts in the log how often each original was replayed.
func (m *repair) replays() map[string]int {
	m.t.Helper()
	counts := map[string]int{}
	err := m.app.broker.ReadLog(m.t.Context(), "acme", []string{"usage.v1.acme.m.>"}, func(msg event.Message) error {
		for _, r := range event.Decode(msg, event.Limits{}) {
			if r.Event != nil && r.Event.ReplayOf != "" {
				counts[r.Event.ReplayOf]++
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return counts
}

// replay begins the replay of letters with a reason, and returns its job's id.
func (m *repair) replay(way int, more ...string) string {
	m.t.Helper()
	args := append([]string{"dlq", "replay", "--filter", "reason=" + ways[way].reason, "--yes", "--why", "test", "--share", "100", "--detach"}, more...)
	if patch := ways[way].patch; patch != "" {
		path := filepath.Join(m.t.TempDir(), "patch.json")
		if err := os.WriteFile(path, []byte(patch), 0o600); err != nil {
			m.t.Fatal(err)
		}
		args = append(args, "--edit="+path)
	}
	before := m.jobs()
	m.command(args...)
	for id := range m.jobs() {
		if _, known := before[id]; !known {
			return id
		}
	}
	m.t.Fatal("no replay was begun")
	return ""
}

func (m *repair) jobs() map[string]deadletter.Job {
	m.t.Helper()
	bucket, err := broker.OpenBucket[deadletter.Job](m.t.Context(), m.app.broker, broker.BucketReplays)
	if err != nil {
		m.t.Fatal(err)
	}
	jobs, err := bucket.All(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return jobs
}

func (m *repair) awaitJob(id string, within time.Duration, what string, condition func(deadletter.Job) bool) {
	m.t.Helper()
	eventuallyTrue(m.t, within, fmt.Sprintf("replay %s %s; it is %+v", id, what, m.jobs()[id]), func() bool { return condition(m.jobs()[id]) })
}

func done(j deadletter.Job) bool { return j.State == deadletter.Done }

// check says that each letter was replayed once or is still there.
func (m *repair) check(when string) {
	m.t.Helper()
	replays, left := m.replays(), m.letters()
	for original, n := range replays {
		if n != 1 {
			m.t.Errorf("%s: the event at %s was replayed %d times, want once", when, original, n)
		}
	}
	if len(replays)+total(left) != mendBroken {
		m.t.Errorf("%s: %d events replayed and %d letters left (%v), want %d together; replays %+v", when, len(replays), total(left), left, mendBroken, m.jobs())
	}
}

func TestTenThousandBrokenEventsAreMendedAndReplayedThroughCancelAndKill(t *testing.T) {
	t.Parallel()
	m := &repair{
		crashSite: newCrashSite(t, sandbox.Plan{}), begun: time.Now().Add(-2 * time.Hour).UTC().Truncate(time.Second),
		want: map[string]map[string]string{}, written: map[string]int{},
	}
	m.env = append(m.env, "USAGEBRIDGE_DEAD_LETTER_SHARE=0")
	kill := m.worker()
	m.publishAll()
	eventuallyTrue(t, 2*time.Minute, "every broken event is a dead letter", func() bool { return total(m.letters()) == mendBroken })
	if got := m.letters(); !maps.Equal(got, m.written) || len(got) != len(ways) {
		t.Fatalf("dead letters by reason: got %v, want %v", got, m.written)
	}

	var plan struct {
		Letters int `json:"letters"`
	}
	if err := json.Unmarshal([]byte(m.command("dlq", "replay", "--reason", "malformed", "--plan", "--json")), &plan); err != nil {
		t.Fatal(err)
	}
	if plan.Letters != m.written["malformed"] {
		t.Errorf("letters in the plan: got %d, want %d", plan.Letters, m.written["malformed"])
	}
	if got := m.replays(); len(got) != 0 {
		t.Errorf("replayed by a plan: got %d events, want none", len(got))
	}

	m.awaitJob(m.replay(0, "--limit", "300"), time.Minute, "is done", done) // in part
	m.check("after a partial replay")
	if got, want := len(m.replays()), 300; got != want {
		t.Errorf("events after a partial replay: got %d, want %d", got, want)
	}

	cancelled := m.replay(1)
	m.awaitJob(cancelled, time.Minute, "is half done", func(j deadletter.Job) bool { return j.Replayed > m.written["invalid"]/2 })
	m.command("dlq", "replays", "cancel", cancelled, "--why", "test")
	eventuallyTrue(t, time.Minute, "the cancelled replay rests", func() bool {
		before := len(m.replays())
		<-time.After(300 * time.Millisecond)
		return len(m.replays()) == before
	})
	m.check("after a cancelled replay")
	if m.letters()["invalid"] == 0 {
		t.Fatal("the cancelled replay was done before it was cancelled: the test shows nothing")
	}

	killed := m.replay(2)
	for range 2 {
		begun := m.jobs()[killed].Replayed
		m.awaitJob(killed, time.Minute, "makes progress", func(j deadletter.Job) bool { return j.Replayed > begun+100 })
		kill()
		kill = m.worker()
	}
	m.awaitJob(killed, time.Minute, "is done", done)
	m.check("after a replay whose worker was killed twice")
	if got := m.letters()["unknown_type"]; got != 0 {
		t.Errorf("letters left by the replay whose worker was killed: got %d, want none", got)
	}

	kill()
	m.env = append(m.env, "USAGEBRIDGE_TOO_OLD=0")
	kill = m.worker()
	defer kill()
	var jobs []string
	for way := range ways {
		if m.letters()[ways[way].reason] > 0 {
			jobs = append(jobs, m.replay(way))
		}
	}
	for _, id := range jobs {
		m.awaitJob(id, time.Minute, "is done", done)
	}
	m.check("in the end")
	if got := m.letters(); len(got) != 0 {
		t.Errorf("dead letters in the end: got %v, want none", got)
	}
	eventuallyTrue(t, time.Minute, "every key has the figure that it would have had", func() bool { return m.wrong() == "" })
	if problem := m.wrong(); problem != "" {
		t.Error(problem)
	}
	m.checkTape()
}

// wrong names a key at which the partner has another figure than it should.
func (m *repair) wrong() string {
	report, _ := m.partner.ReportOf("acme/m")
	for account, services := range m.want {
		for service, want := range services {
			value, ok := report.Counts[account][service]
			if !ok || value.String() != want {
				return fmt.Sprintf("%s/%s: got %v units at the partner, want %s", account, service, value, want)
			}
		}
	}
	return ""
}

// checkTape says that no older figure followed a newer one. Rounds that were
// too old are older than the others; they count below zero.
func (m *repair) checkTape() {
	m.t.Helper()
	for key := range mendKeys {
		account, service := fmt.Sprint("a", key%crashAccounts), fmt.Sprint("s", key/crashAccounts)
		var rounds []int
		for _, accepted := range m.partner.History("acme/m", account, service) {
			var units int
			if _, err := fmt.Sscan(accepted.Value, &units); err != nil {
				m.t.Fatal(err)
			}
			round := units - 1
			if (key+round)%2 == 0 && ways[(key/2+round/2)%len(ways)].reason == "too_old" {
				round -= mendRounds
			}
			rounds = append(rounds, round)
		}
		if !slices.IsSorted(rounds) {
			m.t.Errorf("%s/%s: the partner took rounds %v: an older figure after a newer one", account, service, rounds)
		}
	}
}
