package publisher_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/publisher"
)

// A billing system publishes one figure; the repeat of it is recognised.
func Example() {
	url, stop := exampleServer()
	defer stop()

	nc, err := nats.Connect(url) // with nats.UserCredentials("acme.creds") in production
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	p, err := publisher.New(nc, publisher.Config{Vendor: "acme", Source: "//billing.acme.example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 2 {
		ack, err := p.Count(ctx, publisher.Count{
			ID: "invoice-line-4711", Time: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
			Organization: "msp-0042", Account: "a-17", Service: "backup", Units: "42.5",
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(ack.EventID, ack.Stream, ack.Sequence, ack.Duplicate)
	}
	// Output:
	// invoice-line-4711 EVENTS_acme 1 false
	// invoice-line-4711 EVENTS_acme 1 true
}

// exampleServer stands in for the NATS server of the platform and for
// usagebridge init --vendor acme.
func exampleServer() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "publisher-example")
	if err != nil {
		panic(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true})
	if err != nil {
		panic(err)
	}
	s.Start()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		panic(err)
	}
	_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{
		Name: "EVENTS_acme", Subjects: []string{"usage.v1.acme.*.>", "catalog.v1.acme.*.>"},
	})
	if err != nil {
		panic(err)
	}
	return s.ClientURL(), func() {
		s.Shutdown()
		s.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
}
