//go:build unix

package publisher_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/publisher"
)

// TestAVendorPublishesWithWhatItIsPermittedInTheCluster holds the vendor's user
// of deploy/nats/auth.conf against what a publisher needs, and against what it
// must not get.
func TestAVendorPublishesWithWhatItIsPermittedInTheCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cluster, err := natstest.Start(ctx, natstest.Config{Dir: t.TempDir(), Servers: 3, Secure: true, Sync: "1m"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	boss := connectSecurely(t, cluster, cluster.Secrets().Operator)
	js, err := jetstream.New(boss)
	if err != nil {
		t.Fatal(err)
	}
	for _, vendor := range []string{"acme", "other"} {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{
			Name: "EVENTS_" + vendor, Subjects: []string{"usage.v1." + vendor + ".*.>", "catalog.v1." + vendor + ".*.>"}, Replicas: 3,
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	nc := connectSecurely(t, cluster, cluster.Secrets().Acme, nats.CustomInboxPrefix("_INBOX_acme"))
	own, err := publisher.New(nc, publisher.Config{Vendor: "acme", Source: "//test"})
	if err != nil {
		t.Fatal(err)
	}
	if ack, err := own.Count(ctx, count("a-17", "42")); err != nil || ack.Stream != "EVENTS_acme" {
		t.Errorf("its own event: got %+v, %v; want it stored in EVENTS_acme", ack, err)
	}
	account := event.Event{Organization: "o", Data: event.Account{AccountID: "a", Name: "A"}}
	if _, err := own.Publish(ctx, &account); err != nil {
		t.Errorf("its own catalog: %v", err)
	}

	if err := nc.Publish(event.RequestSubject("acme", "o"), []byte("{}")); err != nil {
		t.Errorf("its own request for an integration: %v", err)
	}
	if err := errors.Join(nc.FlushTimeout(10*time.Second), nc.LastError()); err != nil {
		t.Errorf("its own request for an integration: %v", err)
	}

	foreign, err := publisher.New(nc, publisher.Config{Vendor: "other", Source: "//test"})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = foreign.Count(ctx, count("a-17", "42"))
	wantError(t, err, publisher.ErrDenied, "may not publish on usage.v1.other.")
	if took := time.Since(began); took > publisher.DefaultAckTimeout {
		t.Errorf("the refusal took %v, want it before the acknowledgement is given up (%v)", took, publisher.DefaultAckTimeout)
	}

	wrong := connectSecurely(t, cluster, cluster.Secrets().Acme)
	deaf, err := publisher.New(wrong, publisher.Config{Vendor: "acme", Source: "//test", AckTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = deaf.Count(ctx, count("a-18", "42"))
	wantError(t, err, publisher.ErrInboxDenied, "CustomInboxPrefix")

	denied := make(chan error, 10)
	spy := connectSecurely(t, cluster, cluster.Secrets().Acme, nats.CustomInboxPrefix("_INBOX_acme"),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	for _, subject := range []string{"usage.v1.acme.>", "_INBOX.>", "$KV.>", "$JS.EVENT.>", ">"} {
		if _, err := spy.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		wantDenied(t, denied, "listen on "+subject)
	}
	for _, subject := range []string{"$JS.API.STREAM.NAMES", "$JS.API.STREAM.PURGE.EVENTS_acme", "$KV.INTEGRATIONS.acme.o", "$JS.ACK.x", "audit.v1.me", "hint.v1.acme.o", event.RequestSubject("other", "o"), "integration.v1.acme.o.made"} {
		if err := spy.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		wantDenied(t, denied, "publish on "+subject)
	}
}

func wantDenied(t *testing.T, denied <-chan error, what string) {
	t.Helper()
	select {
	case err := <-denied:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("to %s: got %v, want %v", what, err, nats.ErrPermissionViolation)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("a vendor may %s", what)
	}
}

func connectSecurely(t *testing.T, cluster *natstest.Cluster, seed string, options ...nats.Option) *nats.Conn {
	t.Helper()
	key, err := nats.NkeyOptionFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	options = append([]nats.Option{
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // of refusals each test asks itself
	}, append(options, key, nats.RootCAs(cluster.Secrets().CA))...)
	nc, err := nats.Connect(cluster.URL(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
