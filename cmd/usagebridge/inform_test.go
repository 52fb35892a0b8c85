package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestTheInformWebhookMakesAHeldCountGoLongBeforeTheNextProbe(t *testing.T) {
	t.Parallel()
	for name, who := range map[string]string{
		"named by our id":         `"vendorOrganizationId":"m"`,
		"named by the platform's": `"integrationId":"int-1"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hint(t, who)
		})
	}
}

// hint sends a hint about the organization that who names.
func hint(t *testing.T, who string) {
	t.Helper()
	s := newCrashSite(t, sandbox.Plan{})
	secret := filepath.Join(t.TempDir(), "inform.secret")
	if err := os.WriteFile(secret, []byte("inf0rm-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.app.config.InformSecretFile = secret
	s.app.config.ProbeMin, s.app.config.ProbeMax = time.Hour, time.Hour
	address := s.serve()

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
	status := func() sandbox.Status {
		report, _ := s.partner.ReportOf("acme/m")
		return report.Status
	}
	eventuallyTrue(t, time.Minute, "the person has mapped", func() bool { return status() == sandbox.Pending })

	if got := s.informs(address, "wrong", who); got != http.StatusNotFound {
		t.Errorf("a wrong secret: got %d, want 404", got)
	}
	if got := status(); got != sandbox.Pending {
		t.Errorf("status after a wrong secret: got %s, want pending: no count may have gone", got)
	}
	if got := s.informs(address, "inf0rm-secret", who); got != http.StatusAccepted {
		t.Errorf("the right secret: got %d, want 202", got)
	}
	eventuallyTrue(t, time.Minute, "the count goes", func() bool { return status() == sandbox.Connected })
}

// serve runs a worker in this process and gives the address of its listener.
func (s *crashSite) serve() string {
	s.t.Helper()
	registry := newRegistry()
	e, err := newEngine(s.t.Context(), s.app, registry)
	if err != nil {
		s.t.Fatal(err)
	}
	listener, err := listen(s.t.Context(), "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(s.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.runWith(ctx, listener, registry) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Errorf("worker ended with %v, want no error", err)
		}
	})
	return listener.Addr().String()
}

// informs sends an Inform message about the account a, and gives the answer.
func (s *crashSite) informs(address, secret, who string) int {
	s.t.Helper()
	body := `{"module":"alerts","eventType":"config_upate","payload":{"isIntegrationActive":"pending","accounts":["a"],` + who + `}}`
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+address+"/inform/v1/acme/"+secret, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	client := &http.Client{}
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}
