package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestAStatusThatIsReadInTheOEMAPILetsCountsGoLongBeforeTheNextProbe(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	s.app.config.ProbeMin, s.app.config.ProbeMax = time.Hour, time.Hour
	s.knowsOEM()
	s.serve()
	p, err := publisher.New(s.app.broker.Conn(), publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []event.Data{
		event.Account{AccountID: "a", Name: "A"}, event.Service{ServiceID: "s", Name: "S"},
		event.Count{AccountID: "a", ServiceID: "s", UnitCount: event.UnitsScale},
	} {
		if _, err := p.Publish(t.Context(), &event.Event{Organization: "m", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyTrue(t, time.Minute, "the count goes", func() bool {
		_, ok := s.partner.Value("acme/m", "a", "s")
		return ok
	})
	eventuallyTrue(t, time.Minute, "the integration is connected", func() bool {
		i, err := s.app.integration(t.Context(), "acme", "m")
		return err == nil && i.Status == status.Connected
	})
}

// knowsOEM gives the worker what it needs to poll the partner.
func (s *crashSite) knowsOEM() {
	s.t.Helper()
	i, err := s.app.integration(s.t.Context(), "acme", "m")
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := s.partner.OEMToken("acme/m")
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := s.app.vault(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	partnerToken, err := keys.Open(i.PartnerToken, i.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	vendorToken, err := keys.Open(i.VendorToken, i.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	err = statusRecordsOf(s).Update(s.t.Context(), "acme", "m", func(i *status.Integration) error {
		in, _, err := s.app.setCredentials(s.t.Context(), i, newIntegration{
			vendorToken: vendorToken.Reveal(), partnerToken: partnerToken.Reveal(), oemToken: token,
		})
		if in != status.CredentialsReplaced {
			s.t.Errorf("the same partner token is taken for %s, want %s", in, status.CredentialsReplaced)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	client := s.partner.OEM()
	secret := filepath.Join(s.t.TempDir(), "oem.secret")
	if err := os.WriteFile(secret, []byte(client.ClientSecret), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.app.config.OEMAPIURL, s.app.config.OEMPoll = i.APIURL, 50*time.Millisecond
	s.app.config.OEMClientID, s.app.config.OEMClientSecretFile = client.ClientID, secret
}

func statusRecordsOf(s *crashSite) statusRecords {
	s.t.Helper()
	bucket, err := s.app.integrations(context.WithoutCancel(s.t.Context()))
	if err != nil {
		s.t.Fatal(err)
	}
	return statusRecords{bucket}
}

func TestTheRightIntegrationIsFoundInAList(t *testing.T) {
	one, two := oemapi.Integration{ID: "1", Status: "mapping"}, oemapi.Integration{ID: "2", Status: "pending"}
	tests := map[string]struct {
		list []oemapi.Integration
		id   string
		want string // "": none
	}{
		"by its id":               {[]oemapi.Integration{one, two}, "2", "2"},
		"the only one":            {[]oemapi.Integration{one}, "", "1"},
		"several, no id known":    {[]oemapi.Integration{one, two}, "", ""},
		"the only one is another": {[]oemapi.Integration{one}, "2", ""},
		"none":                    {nil, "", ""},
	}
	for name, test := range tests {
		got, ok := which(test.list, test.id)
		if got.ID != test.want || ok != (test.want != "") {
			t.Errorf("%s: got %q and %t, want %q", name, got.ID, ok, test.want)
		}
	}
}
