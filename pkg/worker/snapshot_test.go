package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/worker"
)

// figure is one count of a snapshot.
func figure(account, service string, units int64) event.Count {
	return event.Count{AccountID: account, ServiceID: service, UnitCount: event.Units(units) * event.UnitsScale}
}

// parts cuts the counts of a snapshot into so many parts.
func parts(id string, counts []event.Count, n int) []event.Snapshot {
	var list []event.Snapshot
	for i := range n {
		list = append(list, event.Snapshot{
			Counts: counts[i*len(counts)/n : (i+1)*len(counts)/n], Part: i + 1, Parts: n, SnapshotID: id,
		})
	}
	return list
}

func (w *world) snapshot(at time.Time, part event.Snapshot) {
	w.send(fmt.Sprintf("%s/%d", part.SnapshotID, part.Part), at, part)
}

func TestASnapshotInPartsTwiceOutOfOrderAndLateEndsRight(t *testing.T) {
	const accounts, services, lost = 200, 110, 7
	inBubble(t, func(t *testing.T, w *world) {
		registry := prometheus.NewRegistry()
		stop := w.start(func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })
		defer stop()
		start := time.Now()
		var named []event.Count
		for s := range services {
			w.send(fmt.Sprint("service ", s), start, event.Service{ServiceID: fmt.Sprint("s", s), Name: "S"})
		}
		for a := range accounts {
			account := fmt.Sprint("a", a)
			w.send("account "+account, start, event.Account{AccountID: account, Name: "A"})
			for s := range services {
				service := fmt.Sprint("s", s)
				w.count(fmt.Sprint("c", a, "-", s), start, account, service, 1)
				if s < 100 {
					named = append(named, figure(account, service, int64(2+a+s)))
				}
			}
		}
		settle(10 * time.Minute)

		at := start.Add(time.Minute)
		all := parts("month", named, 20)
		random := rand.New(rand.NewPCG(1, 2))
		for range 2 {
			for _, i := range random.Perm(len(all)) {
				if i != lost {
					w.snapshot(at, all[i])
				}
			}
		}
		settle(10 * time.Minute)
		if got := w.partner.units("a3", "s105"); got != 1 {
			t.Fatalf("unnamed key while a part is missing: got %d units at the partner, want 1", got)
		}
		if size := len(ledger.AppendEntry(nil, entryOf(w, ledger.ScopeKey(organization, "")))); size > 8<<10 {
			t.Errorf("what is kept of 19 parts with 19000 counts takes %d bytes, want no more than 8192", size)
		}
		w.count("later", at.Add(time.Minute), "a3", "s105", 77)   // newer than the snapshot
		w.count("between", at.Add(-time.Second), "a3", "s106", 5) // older
		settle(time.Hour)
		w.snapshot(at, all[lost])
		settle(10 * time.Minute)
		w.count("late", at.Add(-time.Second), "a3", "new", 5) // older, of a key that nobody knew
		settle(time.Minute)

		for a := range accounts {
			for s := range services {
				want := int64(2 + a + s)
				switch {
				case a == 3 && s == 105:
					want = 77
				case s >= 100:
					want = 0
				}
				if got := w.partner.units(fmt.Sprint("a", a), fmt.Sprint("s", s)); got != want {
					t.Fatalf("a%d/s%d: got %d units at the partner, want %d", a, s, got, want)
				}
			}
		}
		if e := w.entry(ledger.CountKey(organization, "a3", "new")); len(e.Seen) == 0 || e.Seen[0].Value.Units != 0 {
			t.Errorf("a late figure of an unnamed key: got %+v, want 0 desired", e.Seen)
		}
		want := `
			# HELP usagebridge_snapshots_total Snapshots that ended: complete, complete with zeros that wait for approval, incomplete.
			# TYPE usagebridge_snapshots_total counter
			usagebridge_snapshots_total{result="approval",vendor="acme"} 0
			usagebridge_snapshots_total{result="complete",vendor="acme"} 1
			usagebridge_snapshots_total{result="incomplete",vendor="acme"} 0
		`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "usagebridge_snapshots_total"); err != nil {
			t.Error(err)
		}
	})
}

func entryOf(w *world, key ledger.Key) *ledger.Entry {
	e := w.entry(key)
	return &e
}

// known gives n accounts a count of one service each.
func (w *world) known(n int, units int64) (counts []event.Count) {
	w.send("service", time.Now(), event.Service{ServiceID: "s", Name: "S"})
	for a := range n {
		account := fmt.Sprintf("a%03d", a)
		w.send("account "+account, time.Now(), event.Account{AccountID: account, Name: "A"})
		w.count("c"+account, time.Now(), account, "s", units)
		counts = append(counts, figure(account, "s", units+1))
	}
	settle(time.Minute)
	return counts
}

func (w *world) waiting() (keys []string) {
	w.t.Helper()
	err := w.store.Load(context.Background(), 0, func(e ledger.Entry) error {
		if e.State == ledger.Held && e.Reason == ledger.Approval {
			keys = append(keys, e.Key.Account)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

func TestTooManyZerosWaitForAWordWhichMayComeWhileNoWorkerRuns(t *testing.T) {
	tests := []struct {
		name  string
		words map[bool]bool // no verdict when empty
		while bool          // the worker is down when the word comes
		want  int64
	}{
		{"none", nil, false, 5},
		{"released", map[bool]bool{true: true}, false, 0},
		{"refused", map[bool]bool{false: true}, false, 5},
		{"released while down", map[bool]bool{true: true}, true, 0},
		{"refused while down", map[bool]bool{false: true}, true, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				rules := &ledger.Rules{ZeroShare: 0.2}
				running, stop := w.run()
				running.SetRules(vendor, rules)
				counts := w.known(10, 5)
				w.snapshot(time.Now(), event.Snapshot{Counts: counts[:7], SnapshotID: "m", Part: 1, Parts: 1})
				settle(time.Minute)
				if got, want := w.waiting(), []string{"a007", "a008", "a009"}; !slices.Equal(got, want) {
					t.Fatalf("held for approval: got %v, want %v", got, want)
				}
				if got := w.partner.units("a006", "s"); got != 6 {
					t.Errorf("a figure that the snapshot named: got %d, want 6", got)
				}
				w.count("newer", time.Now(), "a009", "s", 9) // an honest figure needs no word
				settle(time.Minute)
				if got := w.partner.units("a009", "s"); got != 9 {
					t.Errorf("a newer figure of a key that was held: got %d, want 9", got)
				}
				told := *rules
				for released := range tt.words {
					id := w.entry(ledger.ScopeKey(organization, "")).Snapshots[0].Event
					told.Verdicts = map[uint64]bool{id: released}
				}
				if tt.while {
					stop()
					running, stop = w.run(func(c *worker.Config) { c.ID = "w2" })
				}
				defer stop()
				running.SetRules(vendor, &told)
				settle(time.Minute)
				for _, account := range []string{"a007", "a008"} {
					if got := w.partner.units(account, "s"); got != tt.want {
						t.Errorf("%s: got %d units at the partner, want %d", account, got, tt.want)
					}
				}
				if got := len(w.waiting()); (got == 0) != (len(tt.words) > 0) {
					t.Errorf("keys held for approval: got %d; word given: %t", got, len(tt.words) > 0)
				}
				if got := w.partner.units("a009", "s"); got != 9 {
					t.Errorf("a newer figure afterwards: got %d, want 9", got)
				}
			})
		})
	}
}

func TestZerosComeEvenIfTheWorkerDiesBetweenTheSnapshotAndTheReview(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := w.start()
		counts := w.known(10, 5)
		part := event.Snapshot{Counts: counts[:5], SnapshotID: "m", Part: 1, Parts: 1}
		written := false
		w.store.FailWith(func(entries []ledger.Entry) (bool, error) {
			if written {
				return false, errors.New("down")
			}
			written = slices.ContainsFunc(entries, func(e ledger.Entry) bool { return e.Key.Kind == ledger.Scope })
			return written, nil
		})
		w.snapshot(time.Now(), part)
		settle(time.Minute)
		stop()
		if e := w.entry(ledger.CountKey(organization, "a009", "s")); e.Seen[0].Value.Units == 0 {
			t.Fatal("the zero is there before the crash: the test shows nothing")
		}
		w.store.FailWith(nil)
		defer w.start(func(c *worker.Config) { c.ID = "w2" })()
		settle(time.Minute)
		if got := w.partner.units("a009", "s"); got != 0 {
			t.Errorf("unnamed key after the crash: got %d units at the partner, want 0", got)
		}
	})
}

func TestASnapshotWhosePartsDoNotComeIsGivenUpAndSetsNothingToZero(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.start(func(c *worker.Config) { c.SnapshotPatience = time.Hour })()
		counts := w.known(10, 5)
		at := time.Now()
		for i := range 20 {
			w.snapshot(at, parts(fmt.Sprint("m", i), counts[:4], 2)[0])
		}
		settle(time.Minute)
		if got := len(w.entry(ledger.ScopeKey(organization, "")).Snapshots); got > 12 {
			t.Errorf("snapshots remembered: got %d, want at most 8 that are open and 4 that were given up", got)
		}
		settle(2 * time.Hour)
		for _, s := range w.entry(ledger.ScopeKey(organization, "")).Snapshots {
			if !s.Lost || len(s.Parts) != 0 {
				t.Errorf("snapshot %s after its time: got %+v, want it given up", s.Name, s)
			}
		}
		if got := w.partner.units("a009", "s"); got != 5 {
			t.Errorf("unnamed key: got %d units at the partner, want 5", got)
		}
		if got := w.partner.units("a001", "s"); got != 6 {
			t.Errorf("key that a part named: got %d units at the partner, want 6", got)
		}
		// The whole snapshot, sent again, counts.
		for _, part := range parts("m19", counts[:4], 2) {
			w.snapshot(at, part)
		}
		settle(time.Minute)
		if got := w.partner.units("a009", "s"); got != 0 {
			t.Errorf("unnamed key after the whole snapshot was sent again: got %d, want 0", got)
		}
	})
}

func TestABackfillIsUndoneWhereNothingNewerCame(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		running, stop := w.run()
		defer stop()
		w.known(3, 5)
		start := time.Now()
		backfill := func(e *event.Event) { e.Backfill = "fix-7" }
		for day := range 6 { // more than an entry remembers of one fate
			for _, account := range []string{"a000", "a001", "new"} {
				w.send(fmt.Sprint("b", day, account), start.Add(time.Duration(day)*time.Second), figure(account, "s", int64(100+day)), backfill)
			}
		}
		w.send("account new", start, event.Account{AccountID: "new", Name: "A"})
		w.count("newer", start.Add(time.Minute), "a001", "s", 9)
		settle(time.Minute)
		if got := w.partner.units("a000", "s"); got != 105 {
			t.Fatalf("before the revert: got %d units at the partner, want 105", got)
		}
		running.SetRules(vendor, &ledger.Rules{Reverted: map[uint64]bool{ledger.BackfillDigest("fix-7"): true}})
		settle(time.Minute)
		calls := w.partner.accepted()
		settle(time.Hour)
		if got := w.partner.accepted(); got != calls {
			t.Errorf("calls while nothing happens after the revert: got %d, want none", got-calls)
		}
		for account, want := range map[string]int64{"a000": 5, "a001": 9, "a002": 5, "new": 0} {
			if got := w.partner.units(account, "s"); got != want {
				t.Errorf("%s after the revert: got %d units at the partner, want %d", account, got, want)
			}
		}
		w.send("b-late", start.Add(time.Hour), figure("a000", "s", 500), backfill)
		settle(time.Minute)
		if got := w.partner.units("a000", "s"); got != 5 {
			t.Errorf("a late event of the backfill: got %d units at the partner, want 5", got)
		}
		if e := w.entry(ledger.BackfillKey(organization, "fix-7")); e.Register == nil || e.Register.Reverted == 0 {
			t.Errorf("register of the backfill: got %+v, want it reverted", e.Register)
		}
	})
}

func TestAFigureThatJumpsWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		running, stop := w.run()
		defer stop()
		rules := &ledger.Rules{Jump: map[string]float64{"s": 10}}
		running.SetRules(vendor, rules)
		w.known(2, 5)
		w.count("high", time.Now(), "a000", "s", 51)
		w.count("fair", time.Now(), "a001", "s", 50)
		settle(time.Minute)
		if got, want := w.waiting(), []string{"a000"}; !slices.Equal(got, want) {
			t.Fatalf("held for approval: got %v, want %v", got, want)
		}
		key := ledger.CountKey(organization, "a000", "s")
		id := ledger.ApprovalID(key, w.entry(key).Seen[0])
		released := *rules
		released.Verdicts = map[uint64]bool{id: true}
		running.SetRules(vendor, &released)
		settle(time.Minute)
		if got := w.partner.units("a000", "s"); got != 51 {
			t.Errorf("after the release: got %d units at the partner, want 51", got)
		}
	})
}

func TestAFloodOfDeadEventsStopsTheFoldUntilSomebodyResumesIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var floods []worker.Flood
		running, stop := w.run(func(c *worker.Config) {
			c.DeadShare = 0.5
			c.Flooded = func(_ string, f worker.Flood) { floods = append(floods, f) }
		})
		defer stop()
		w.known(1, 5)
		for range 3000 {
			w.publish("usage.v1.acme.msp-1.count.a000.s", []byte("garbage"))
		}
		w.count("after", time.Now().Add(time.Minute), "a000", "s", 8)
		settle(time.Minute)
		if got := len(w.letterReasons()); got != 501 {
			t.Errorf("dead letters before the fold stops: got %d, want 501, one more than half of a thousand", got)
		}
		if len(floods) != 1 || floods[0].Dead != 501 || !running.Stopped(vendor) {
			t.Errorf("floods told: got %+v, stopped %t; want one with 501 dead", floods, running.Stopped(vendor))
		}
		running.SetStopped(vendor, true) // what the record says, when it comes back
		settle(time.Hour)
		if got := len(w.letterReasons()); got != 501 {
			t.Errorf("dead letters an hour later: got %d, want 501", got)
		}
		for range 6 { // each time until the next 501
			running.SetStopped(vendor, false)
			settle(time.Minute)
		}
		if got, want := len(w.letterReasons()), 3000; got != want {
			t.Errorf("dead letters in the end: got %d, want %d", got, want)
		}
		if got := w.partner.units("a000", "s"); got != 8 {
			t.Errorf("the good event behind the flood: got %d units at the partner, want 8", got)
		}
		if got := w.unacked(); len(got) != 0 {
			t.Errorf("messages not acked: got %d, want none", len(got))
		}
	})
}

func TestARevertThatComesWhileItsBackfillIsRecordedIsCarriedOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		running, stop := w.run()
		defer stop()
		w.known(1, 5)
		told := false
		w.store.FailWith(func(entries []ledger.Entry) (bool, error) {
			for _, e := range entries {
				if !told && len(e.Seen) > 0 && e.Seen[0].Backfill != 0 {
					told = true
					running.SetRules(vendor, &ledger.Rules{Reverted: map[uint64]bool{ledger.BackfillDigest("fix-7"): true}})
				}
			}
			return true, nil
		})
		w.send("b1", time.Now(), figure("a000", "s", 500), func(e *event.Event) { e.Backfill = "fix-7" })
		settle(time.Hour)
		if got := w.partner.units("a000", "s"); !told || got != 5 {
			t.Errorf("after the revert: got %d units at the partner, want 5; the revert was told: %t", got, told)
		}
	})
}

// torn stores the entries of one kind of a write with a scope, and fails.
type torn struct {
	worker.Store
	scopes bool // those of scopes, else those of counts
	armed  *bool
}

func (s torn) Write(ctx context.Context, partition int, entries []ledger.Entry) error {
	isScope := func(e ledger.Entry) bool { return e.Key.Kind == ledger.Scope }
	if !*s.armed || !slices.ContainsFunc(entries, isScope) && s.scopes {
		return s.Store.Write(ctx, partition, entries)
	}
	*s.armed = false
	some := slices.DeleteFunc(slices.Clone(entries), func(e ledger.Entry) bool { return isScope(e) != s.scopes })
	if err := s.Store.Write(ctx, partition, some); err != nil {
		return err
	}
	return errors.New("the second batch timed out")
}

func TestAWriteThatIsTornBetweenASnapshotAndItsFiguresChangesNothing(t *testing.T) {
	for name, scopes := range map[string]bool{"the snapshot is stored": true, "its figures are": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				armed := false
				defer w.start(func(c *worker.Config) {
					c.Backend.Store = func(string) worker.Store { return torn{noting{w.store, w}, scopes, &armed} }
				})()
				counts := w.known(4, 5)
				armed = true
				for _, part := range parts("m", counts, 2) {
					w.snapshot(time.Now(), part)
				}
				settle(time.Hour)
				for _, c := range counts {
					if got := w.partner.units(c.AccountID, "s"); armed || got != 6 {
						t.Errorf("%s: got %d units at the partner, want 6 as the snapshot names it; a write was torn: %t", c.AccountID, got, !armed)
					}
				}
				if got := w.letterReasons(); len(got) > 0 {
					t.Errorf("dead letters: got %v, want none", got)
				}
			})
		})
	}
}

func TestFiguresOfAScopeAreStoredBeforeItKnowsThatItsSnapshotIsComplete(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.start()()
		counts := w.known(4, 5)
		var order []string
		w.store.FailWith(func(entries []ledger.Entry) (bool, error) {
			for _, e := range entries {
				order = append(order, e.Key.Kind.String())
			}
			return false, nil
		})
		w.snapshot(time.Now(), event.Snapshot{Counts: counts, SnapshotID: "m", Part: 1, Parts: 1})
		settle(time.Millisecond * 500)
		if at := slices.Index(order, "scope"); at != len(counts) || slices.Contains(order[:at], "scope") {
			t.Errorf("order of writes: got %v, want the %d counts, then the scope", order, len(counts))
		}
	})
}

// refusing has the partner refuse every count.
func (w *world) refusing() {
	w.partner.mu.Lock()
	defer w.partner.mu.Unlock()
	w.partner.answers = func(t delivery.Task) delivery.Answer {
		if t.Key.Kind == ledger.Count {
			return delivery.Answer{Class: delivery.Rejected, Status: 422, Message: "no"}
		}
		return delivery.Answer{Class: delivery.Accepted, Status: 201}
	}
}

// forgetful is a log that no longer has anything.
type forgetful struct{ *world }

func (forgetful) Message(context.Context, string, uint64) (event.Message, error) {
	return event.Message{}, errors.New("no message found")
}

func TestEveryRefusedFigureHasALetterThatBringsItBack(t *testing.T) {
	for name, gone := range map[string]bool{"of a snapshot": false, "whose event the log has lost": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				defer w.start(func(c *worker.Config) {
					if gone {
						c.Backend.Records = forgetful{w}
					}
				})()
				counts := w.known(5, 5)
				w.refusing()
				w.snapshot(time.Now(), event.Snapshot{Counts: counts[:3], SnapshotID: "m", Part: 1, Parts: 1})
				settle(time.Minute)
				letters := slices.Collect(maps.Values(w.letters))
				if len(letters) != 5 { // three figures and two zeros
					t.Fatalf("letters: got %v, want 5", w.letterReasons())
				}
				w.partner.mu.Lock()
				w.partner.answers = nil
				w.partner.mu.Unlock()
				for _, l := range letters {
					m, err := l.Replay()
					if err != nil {
						t.Fatal(err)
					}
					w.publish(m.Subject, m.Data)
				}
				settle(time.Minute)
				for i, c := range counts {
					want := int64(6)
					if i >= 3 {
						want = 0
					}
					if got := w.partner.units(c.AccountID, "s"); got != want {
						t.Errorf("%s after the replay: got %d units at the partner, want %d", c.AccountID, got, want)
					}
				}
			})
		})
	}
}

func TestARefusedAccountWhoseEventTheLogHasLostKeepsItsProperties(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.start(func(c *worker.Config) {
			c.Backend.Records = forgetful{w}
			c.Meanings[event.TypeAccount] = func(e *event.Event) ([]ledger.Operation, error) {
				ops, err := meaning(e)
				ops[0].Value.Properties = `{"name":"A & Co","externalId":"x-1"}`
				return ops, err
			}
		})()
		w.partner.answers = func(delivery.Task) delivery.Answer {
			return delivery.Answer{Class: delivery.Rejected, Status: 422, Message: "no"}
		}
		w.send("account", time.Now(), event.Account{AccountID: "a", Name: "A & Co", ExternalID: "x-1"})
		settle(time.Minute)
		for _, l := range w.letters {
			results := event.Decode(l.Original, event.Limits{})
			if want := (event.Account{AccountID: "a", Name: "A & Co", ExternalID: "x-1"}); results[0].Event == nil || results[0].Event.Data != want {
				t.Errorf("letter: got %s, want an event with %+v", l.Original.Data, want)
			}
		}
		if len(w.letters) != 1 {
			t.Errorf("letters: got %v, want one", w.letterReasons())
		}
	})
}

func TestTheLetterOfAnEditedReplayHasTheEditedFigure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.start()()
		w.known(1, 5)
		w.refusing()
		at := time.Now()
		sequence := w.count("x", at, "a000", "s", 9)
		settle(time.Minute)
		clear(w.letters)
		w.send("x2", at, figure("a000", "s", 7), func(e *event.Event) { e.ReplayOf = fmt.Sprint(sequence) })
		settle(time.Minute)
		for _, l := range w.letters {
			if !strings.Contains(string(l.Original.Data), `"unitCount":7`) {
				t.Errorf("letter: got %s, want the figure 7", l.Original.Data)
			}
		}
		if len(w.letters) != 1 {
			t.Errorf("letters: got %v, want one", w.letterReasons())
		}
	})
}

func TestSnapshotsAreCountedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		registry := prometheus.NewRegistry()
		at := time.Now()
		for i := range 3 {
			w.snapshot(at.Add(time.Duration(i)*time.Second), event.Snapshot{SnapshotID: fmt.Sprint("m", i), Part: 1, Parts: 1})
		}
		for i := range 9 { // one more than are kept open
			w.snapshot(at.Add(time.Duration(i)*time.Second), event.Snapshot{SnapshotID: fmt.Sprint("n", i), Part: 1, Parts: 2})
		}
		defer w.start(func(c *worker.Config) { c.Metrics = worker.NewMetrics(registry) })()
		settle(time.Minute)
		want := `
			# HELP usagebridge_snapshots_total Snapshots that ended: complete, complete with zeros that wait for approval, incomplete.
			# TYPE usagebridge_snapshots_total counter
			usagebridge_snapshots_total{result="approval",vendor="acme"} 0
			usagebridge_snapshots_total{result="complete",vendor="acme"} 3
			usagebridge_snapshots_total{result="incomplete",vendor="acme"} 1
		`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "usagebridge_snapshots_total"); err != nil {
			t.Error(err)
		}
	})
}
