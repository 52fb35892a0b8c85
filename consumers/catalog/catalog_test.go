package catalog_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/consumers/catalog"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestAnAccountAndAServiceGiveTheirKeysTheirProperties(t *testing.T) {
	base := event.Event{ID: "1", Source: "//test", Time: time.Unix(5, 0), Vendor: "acme", Organization: "msp-1", Arrival: event.ArrivalAt(9, 0)}
	account, service := base, base
	account.Data = event.Account{AccountID: "a", Name: "Ä & Co <1>", ExternalID: "x"}
	service.Data = event.Service{ServiceID: "s", Name: "Backup"}
	tests := []struct {
		name    string
		meaning func(*event.Event) ([]ledger.Operation, error)
		event   event.Event
		key     ledger.Key
		value   string
	}{
		{"account", catalog.Account, account, ledger.AccountKey("msp-1", "a"), `{"name":"Ä & Co <1>","externalId":"x"}`},
		{"service", catalog.Service, service, ledger.ServiceKey("msp-1", "s"), `{"name":"Backup"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.meaning(&test.event)
			if err != nil {
				t.Fatal(err)
			}
			want := ledger.Operation{
				Key: test.key, Version: ledger.Version{Time: 5e9, Arrival: uint64(event.ArrivalAt(9, 0))},
				Value: ledger.Value{Properties: test.value}, Event: test.event.Digest(),
			}
			if len(got) != 1 || got[0] != want {
				t.Errorf("operations: got %+v, want only %+v", got, want)
			}
		})
	}
}

func TestDataOfAnotherTypeIsAnError(t *testing.T) {
	if _, err := catalog.Account(&event.Event{Data: event.Service{}}); err == nil {
		t.Error("a service taken for an account: got no error")
	}
	if _, err := catalog.Service(&event.Event{Data: event.Count{}}); err == nil {
		t.Error("a count taken for a service: got no error")
	}
}

func TestPropertiesSurviveTheLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := catalog.Properties{
			Name:        rapid.String().Draw(t, "name"),
			ExternalID:  rapid.String().Draw(t, "external id"),
			Description: rapid.String().Draw(t, "description"),
		}
		value, err := want.Value()
		if err != nil {
			t.Fatal(err)
		}
		got, err := catalog.ParseProperties(value)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("properties: got %+v, want %+v", got, want)
		}
	})
}

func TestABrokenValueIsAnError(t *testing.T) {
	if _, err := catalog.ParseProperties(ledger.Value{Properties: "{"}); err == nil {
		t.Error("got no error")
	}
}
