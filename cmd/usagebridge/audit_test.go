package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestActionsAreListedNewestFirstHoweverManyThereAre(t *testing.T) {
	a := letterApp(t)
	const actions = 2*actionsTogether + 3
	for i := range actions {
		done := action{Actor: "ann", Action: "paused", Integration: "acme/msp-1", Object: fmt.Sprint(i), At: noon.Add(time.Duration(i) * time.Second)}
		if i%100 == 7 {
			done.Actor = "bob smith"
		}
		if err := a.audit(t.Context(), done); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.broker.Append(t.Context(), "audit.v1."+event.Escape("odd"), nil, []byte("no action"), "odd"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		choice auditChoice
		want   []int // the first, the last and how many
		note   string
	}{
		{"all", auditChoice{}, []int{actions - 1, 0, actions}, ""},
		{"the newest", auditChoice{limit: 100}, []int{actions - 1, actions - 100, 100}, "the newest 100 are listed"},
		{"just all", auditChoice{limit: actions}, []int{actions - 1, 0, actions}, ""},
		{"of one person", auditChoice{actor: "bob smith"}, []int{207, 7, 3}, ""},
		{"the newest of one person", auditChoice{actor: "bob smith", limit: 2}, []int{207, 107, 2}, "the newest 2 are listed"},
		{"since then", auditChoice{since: noon.Add(200 * time.Second)}, []int{actions - 1, 200, actions - 200}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, stdout, stderr := talker()
			if err := c.listActions(t.Context(), a, &tt.choice); err != nil || !strings.Contains(stderr.String(), tt.note) || tt.note == "" && stderr.Len() > 0 {
				t.Errorf("got %v, and it said %q; want %q", err, stderr, tt.note)
			}
			if lines := strings.Count(stdout.String(), "\n") - 1; lines != tt.want[2] {
				t.Errorf("got %d lines, want %d", lines, tt.want[2])
			}
			stdout.Reset()
			c.json = true
			var list []action
			if err := errors.Join(c.listActions(t.Context(), a, &tt.choice), json.Unmarshal(stdout.Bytes(), &list)); err != nil || len(list) == 0 {
				t.Fatalf("got %d actions, %v", len(list), err)
			}
			for i := 1; i < len(list); i++ {
				if list[i].At.After(list[i-1].At) {
					t.Errorf("action %s is listed behind the older %s", list[i].Object, list[i-1].Object)
				}
			}
			if got, want := fmt.Sprint(list[0].Object, list[len(list)-1].Object, len(list)), fmt.Sprint(fmt.Sprint(tt.want[0]), fmt.Sprint(tt.want[1]), tt.want[2]); got != want {
				t.Errorf("got %s (first, last, how many), want %s", got, want)
			}
		})
	}
}

func TestAnActionIsChosenByWhatItWasDoneTo(t *testing.T) {
	drop := action{Actor: "ann", Action: "dead letters dropped", Vendor: "acme", Objects: []string{"EVENTS_acme/1", "EVENTS_acme/2"}, At: noon}
	pause := action{Actor: "worker w", Action: "paused", Integration: "acme/msp/1", At: noon}
	for _, tt := range []struct {
		choice      auditChoice
		drop, pause bool
	}{
		{auditChoice{}, true, true},
		{auditChoice{vendor: "acme"}, true, true},
		{auditChoice{vendor: "acm"}, false, false},
		{auditChoice{actor: "worker w"}, false, true},
		{auditChoice{actor: "worker"}, false, false},
		{auditChoice{action: "Dropped"}, true, false},
		{auditChoice{object: "EVENTS_acme/2"}, true, false},
		{auditChoice{object: "EVENTS_acme/"}, false, false},
		{auditChoice{object: "acme/msp/1"}, false, true},
		{auditChoice{object: "acme/msp/1", actor: "ann"}, false, false},
		{auditChoice{since: noon}, true, true},
		{auditChoice{since: noon.Add(1)}, false, false},
	} {
		if got := tt.choice.match(&drop); got != tt.drop {
			t.Errorf("%+v: the drop is chosen: %v, want %v", tt.choice, got, tt.drop)
		}
		if got := tt.choice.match(&pause); got != tt.pause {
			t.Errorf("%+v: the pause is chosen: %v, want %v", tt.choice, got, tt.pause)
		}
	}
	if got, want := drop.what(), "acme EVENTS_acme/1 and 1 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := pause.what(), "acme/msp/1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
