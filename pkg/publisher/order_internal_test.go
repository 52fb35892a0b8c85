package publisher

import (
	"testing"
	"testing/synctest"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestEventsThatTouchACommonKeyWaitForEachOther(t *testing.T) {
	of := func(organization string, data event.Data) scope {
		return scopeOf(&event.Event{Vendor: "acme", Organization: organization, Data: data})
	}
	figure := func(account, service string) scope {
		return of("o", event.Count{AccountID: account, ServiceID: service})
	}
	whole, one := of("o", event.Snapshot{}), of("o", event.Snapshot{AccountID: "a"})
	for _, test := range []struct {
		name   string
		first  scope
		second scope
		waits  bool
	}{
		{"one key twice", figure("a", "s"), figure("a", "s"), true},
		{"two services", figure("a", "s"), figure("a", "t"), false},
		{"two accounts", figure("a", "s"), figure("b", "s"), false},
		{"ids with dots that would join to the same text", figure("a.b", "s"), figure("a", "b.s"), false},
		{"a snapshot behind a count", figure("a", "s"), whole, true},
		{"a count behind a snapshot", whole, figure("a", "s"), true},
		{"an account's snapshot behind its count", figure("a", "s"), one, true},
		{"an account's snapshot behind another's count", figure("b", "s"), one, false},
		{"another account's count behind an account's snapshot", one, figure("b", "s"), false},
		{"a snapshot behind an account's snapshot", one, whole, true},
		{"a snapshot of another organization", whole, of("p", event.Snapshot{}), false},
		{"two versions of an account", of("o", event.Account{AccountID: "a"}), of("o", event.Account{AccountID: "a"}), true},
		{"an account and a service of one id", of("o", event.Account{AccountID: "a"}), of("o", event.Service{ServiceID: "a"}), false},
		{"a service and a snapshot", of("o", event.Service{ServiceID: "a"}), whole, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, held := newOrder(), false
				o.hold(test.first)
				go func() {
					o.hold(test.second)
					held = true
				}()
				synctest.Wait()
				if held == test.waits {
					t.Errorf("held while the first is in flight: got %v, want %v", held, !test.waits)
				}
				o.let(test.first)
				synctest.Wait()
				if !held {
					t.Error("the second still waits when the first is done")
				}
				o.let(test.second)
				if len(o.held) != 0 || len(o.within) != 0 {
					t.Errorf("left behind: %v, %v", o.held, o.within)
				}
			})
		})
	}
}
