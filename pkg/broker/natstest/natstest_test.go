//go:build unix

package natstest_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, c natstest.Config) *natstest.Cluster {
	t.Helper()
	c.Dir = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cluster, err := natstest.Start(ctx, c)
	if err != nil {
		t.Fatalf("start %d servers: %v", c.Servers, err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

func TestAClusterLosesAServerAndGetsItBack(t *testing.T) {
	cluster := start(t, natstest.Config{Servers: 3, Sync: "1m"})
	// Not to the third, which is paused: a client notices that only after minutes.
	conn, err := nats.Connect(cluster.Server(0).URL()+","+cluster.Server(1).URL(), nats.IgnoreDiscoveredServers(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3}); err != nil {
		t.Fatalf("a stream of three replicas: %v", err)
	}
	publish := func(when string) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // an answer may be lost with its server
			_, err := js.Publish(ctx, "s", nil)
			cancel()
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("publish %s: %v", when, err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for i, s := range cluster.Servers() {
		end := []func() error{s.Kill, s.Stop, s.Pause}[i]
		again := []func() error{func() error { return s.Start(ctx) }, func() error { return s.Start(ctx) }, s.Resume}[i]
		if err := end(); err != nil {
			t.Fatal(err)
		}
		publish("with two servers of three, without " + s.Name())
		if err := again(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		publish("with three servers again")
	}
}

func TestCloseEndsTheServersAndKeepsTheirFiles(t *testing.T) {
	cluster := start(t, natstest.Config{Servers: 1})
	s := cluster.Server(0)
	cluster.Close()
	cluster.Close()
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr()); err == nil {
		_ = conn.Close()
		t.Errorf("%s still takes connections", s.Name())
	}
	for _, path := range []string{s.Log(), s.DataDir()} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("after Close: %v", err)
		}
	}
	if err := s.Pause(); err == nil {
		t.Error("a server that is gone was paused")
	}
}

func TestTheDeployedFilesAreWhatTheServerTakes(t *testing.T) {
	cluster := start(t, natstest.Config{Servers: 3, Secure: true})
	secrets := cluster.Secrets()
	if _, err := nats.Connect(cluster.URL(), nats.RootCAs(secrets.CA)); err == nil {
		t.Error("somebody without an nkey was let in")
	}
	key, err := nats.NkeyOptionFromSeed(secrets.Operator)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nats.Connect(cluster.URL(), key); err == nil {
		t.Error("a certificate was taken that no known authority has signed")
	}
	conn, err := nats.Connect(cluster.URL(), nats.RootCAs(secrets.CA), key)
	if err != nil {
		t.Fatalf("connect as the operator: %v", err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"status.v1.>"}, Replicas: 3}); err != nil {
		t.Errorf("the operator makes a stream of three replicas: %v", err)
	}
}
