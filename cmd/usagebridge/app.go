package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.opentelemetry.io/otel/trace"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// app is the world that a command works in: the configuration, a connection
// to NATS, and a server of its own when nobody else runs one.
type app struct {
	config   Config
	log      *slog.Logger
	embedded *broker.Embedded // nil when the server is somebody else's
	broker   *broker.Broker
	tracer   trace.Tracer // nil: tracing is off
}

// openApp connects to the NATS server that the configuration names, or to the
// embedded server of the store directory, which it starts unless another
// process has done so.
func openApp(ctx context.Context, c Config, log *slog.Logger) (*app, error) {
	a := &app{config: c, log: log}
	url := c.NATSURL
	if url == "" {
		var err error
		if url, err = a.findOrStart(); err != nil {
			return nil, err
		}
	}
	connection := broker.Config{URL: url, Name: "usagebridge " + c.WorkerID, Logger: log, Exposed: vault.Exposed}
	if c.NATSURL != "" { // the embedded server asks nobody, and has no TLS
		connection.CredsFile, connection.NKeyFile = c.NATSCreds, c.NATSNKey
		connection.CAFile, connection.CertFile, connection.KeyFile = c.NATSCA, c.NATSCert, c.NATSKey
	}
	b, err := broker.Connect(ctx, connection)
	if err != nil {
		a.close()
		return nil, err
	}
	a.broker = b
	return a, nil
}

// checkWorld refuses to make an empty store where somebody only wants to look:
// most likely the worker is not running, or the variable points elsewhere.
func (c *Config) checkWorld() error {
	if c.NATSURL != "" || broker.StoreExists(c.StoreDir) {
		return nil
	}
	_, running, err := broker.FindEmbedded(devDir(c.StoreDir))
	if err != nil || running {
		return err
	}
	return fmt.Errorf("nothing is running on %s and nothing was ever set up there: start `usagebridge dev`, run `usagebridge init --vendor NAME`, "+
		"or set %s_NATS_URL or %s_STORE_DIR", c.StoreDir, envPrefix, envPrefix)
}

// findOrStart finds the server that another process runs on the store
// directory, or on that of dev, and starts one when there is none.
func (a *app) findOrStart() (url string, err error) {
	url, running, err := a.config.adoptRunning()
	if err != nil {
		return "", err
	}
	if running {
		return url, a.config.readSandbox()
	}
	return a.startEmbedded()
}

// adoptRunning takes the store directory on which another process runs the server:
// the configured one, or that of dev.
func (c *Config) adoptRunning() (url string, running bool, err error) {
	for _, dir := range []string{c.StoreDir, devDir(c.StoreDir)} {
		if url, running, err = broker.FindEmbedded(dir); err != nil {
			return "", false, err
		}
		if running {
			c.StoreDir = dir
			return url, true, nil
		}
	}
	return "", false, nil
}

// startEmbedded starts the server of the store directory in this process.
func (a *app) startEmbedded() (url string, err error) {
	key := ""
	if a.config.StoreKeyFile != "" {
		if key, err = readSecretFile(a.config.StoreKeyFile); err != nil {
			return "", usagef("%s_STORE_KEY_FILE: %w", envPrefix, err)
		}
	}
	a.embedded, err = broker.StartEmbedded(broker.EmbeddedConfig{
		StoreDir: a.config.StoreDir,
		Listen:   a.config.NATSListen,
		StoreKey: key,
		Logger:   a.log,
	})
	if err != nil {
		return "", err
	}
	return a.embedded.ClientURL(), nil
}

func (a *app) close() {
	if a.broker != nil {
		a.broker.Close()
	}
	if a.embedded != nil {
		a.embedded.Close()
	}
}

func (a *app) integrations(ctx context.Context) (*broker.Bucket[status.Integration], error) {
	bucket, err := broker.OpenBucket[status.Integration](ctx, a.broker, broker.BucketIntegrations)
	if err != nil {
		return nil, fmt.Errorf("open the integrations (is anything set up? run `usagebridge init --vendor NAME`): %w", err)
	}
	return bucket, nil
}

// statusRecords keeps integrations in their bucket (status.Records).
type statusRecords struct {
	bucket changeable[status.Integration]
}

// Update changes one record by compare-and-set.
func (r statusRecords) Update(ctx context.Context, vendor, organization string, change func(*status.Integration) error) error {
	_, err := changePatiently(ctx, r.bucket, broker.IntegrationKey(vendor, organization), change)
	return err
}

// changeable is a bucket, as far as its records are changed.
type changeable[T any] interface {
	Update(ctx context.Context, key string, change func(*T) error) (T, error)
}

// recordTime is for how long it is tried to record what is told once: an answer of
// the partner that may be the last for days, a token that the platform shows and
// never again.
const recordTime = 30 * time.Second

// changePatiently changes a record by compare-and-set, and tries again when NATS does
// not answer. An error of change ends it.
func changePatiently[T any](ctx context.Context, bucket changeable[T], key string, change func(*T) error) (T, error) {
	wait := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(recordTime))
	return backoff.RetryWithData(func() (T, error) {
		var unwanted error
		stored, err := bucket.Update(ctx, key, func(record *T) error {
			unwanted = change(record)
			return unwanted
		})
		if unwanted != nil || errors.Is(err, broker.ErrNotFound) {
			err = backoff.Permanent(err)
		}
		return stored, err
	}, backoff.WithContext(wait, ctx))
}

// statusLog keeps transitions in the STATUS stream (status.Log).
type statusLog struct{ broker *broker.Broker }

// Append adds one transition.
func (l statusLog) Append(ctx context.Context, vendor, organization, id string, cloudEvent []byte) error {
	return l.broker.Append(ctx, broker.StatusSubject(vendor, organization), nil, cloudEvent, id)
}

// readSecretFile reads a secret from a file, without the line end that editors
// put behind it.
func readSecretFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("file %q does not exist", path)
	}
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("file %q is empty", path)
	}
	return secret, nil
}
