package main

import (
	"net/http/httptest"
	"testing"

	"github.com/usagebridge/usagebridge/consumers/catalog"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

func TestEveryClassOfFailureHasAMeaningForALane(t *testing.T) {
	for _, class := range vendorapi.Classes() {
		if classes[class] == "" {
			t.Errorf("class %s means nothing to a lane", class)
		}
	}
}

func TestAnIntegrationIsLedFromItsCatalogToItsCounts(t *testing.T) {
	for _, dialect := range []vendorapi.Dialect{vendorapi.MSPCentric, vendorapi.Gradient} {
		t.Run(string(dialect), func(t *testing.T) { lead(t, dialect) })
	}
}

// lead takes an integration of the dialect from nothing to its first count.
func lead(t *testing.T, dialect vendorapi.Dialect) {
	t.Helper()
	played := sandbox.New(sandbox.Config{
		Human:        sandbox.HumanAPI,
		Integrations: []sandbox.Integration{{Name: "acme/m", Dialect: sandbox.Dialect(dialect), VendorToken: "v-token", PartnerToken: "p-token"}},
	})
	defer played.Close()
	server := httptest.NewServer(played.Handler())
	defer server.Close()
	client, err := vendorapi.New(vendorapi.Config{
		BaseURL: server.URL + "/api", Dialect: dialect, Credentials: vendorapi.NewCredentials("v-token", "p-token"), Transport: server.Client().Transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	p := partner{client: client}
	properties, err := catalog.Properties{Name: "Miller & Söhne", ExternalID: "x-1"}.Value()
	if err != nil {
		t.Fatal(err)
	}
	send := func(key ledger.Key, value ledger.Value, want delivery.Class) {
		t.Helper()
		got := p.Send(t.Context(), delivery.Task{Key: key, Figure: ledger.Seen{Value: value}})
		if got.Class != want || got.At.IsZero() {
			t.Errorf("%s: got %s (%d %s) at %v, want %s", key, got.Class, got.Status, got.Message, got.At, want)
		}
	}
	count := ledger.CountKey("m", "a 1", "s/[1]")
	units := ledger.Value{Units: 42_500_000}
	send(ledger.AccountKey("m", "a 1"), properties, delivery.Accepted)
	send(ledger.ServiceKey("m", "s/[1]"), properties, delivery.Accepted)
	send(count, units, delivery.NotReady)
	if got := p.SetMapping(t.Context()); got.Class != delivery.Accepted || got.Observed != "mapping" {
		t.Errorf("mapping: got %s with status %q, want accepted with mapping", got.Class, got.Observed)
	}
	if err := played.Map("acme/m", sandbox.All(), sandbox.All()); err != nil {
		t.Fatal(err)
	}
	if err := played.Finish("acme/m"); err != nil {
		t.Fatal(err)
	}
	send(count, units, delivery.Accepted)
	send(ledger.CountKey("m", "unknown", "s/[1]"), units, delivery.NotFound)
	send(ledger.AccountKey("m", "broken"), ledger.Value{Properties: "{"}, delivery.Rejected)
	if got, _ := played.Value("acme/m", "a 1", "s/[1]"); got != "42.5" {
		t.Errorf("value at the partner: got %s, want 42.5", got)
	}
}
