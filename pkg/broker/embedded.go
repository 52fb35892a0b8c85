package broker

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	defaultListen = "127.0.0.1:4222"

	// Files in the store directory, beside the server's own "jetstream".
	lockFile   = "usagebridge.lock"
	keyFile    = "store.key.hmac"
	serverFile = "server.json"

	// lockWait lets FindEmbedded look at the lock, and a predecessor finish.
	lockWait = time.Second
	// readyWait bounds the wait for the listener. The store is recovered
	// before that, in Start, however long it takes.
	readyWait = 10 * time.Second
)

// EmbeddedConfig says where the embedded server keeps its data and listens.
type EmbeddedConfig struct {
	// StoreDir is made with mode 0700 if it is missing.
	StoreDir string
	// Listen is a loopback address, since the embedded server asks nobody for
	// a password; port 0 or -1 takes any free one. Default 127.0.0.1:4222.
	Listen string
	// StoreKey encrypts the store at rest. It must be the same for the whole
	// life of a store directory. Empty: no encryption.
	StoreKey string
	// SyncInterval is how long an acknowledged write may stay unsynced. The
	// default, 0, syncs before every acknowledgement; anything else may lose
	// events in a power cut and is for tests.
	SyncInterval time.Duration
	// Logger takes the server's own log; nil: nowhere.
	Logger *slog.Logger
}

// Embedded is a nats-server inside this process.
type Embedded struct {
	server *server.Server
	lock   *flock.Flock
	dir    string
	close  sync.Once
}

// running is the content of server.json.
type running struct {
	URL string `json:"url"`
	PID int    `json:"pid"`
}

// StartEmbedded starts a JetStream server on the store directory. It refuses,
// without touching the store, when another process has it open and when the
// store key is not the one that the store was made with: a server with the
// wrong key sees no streams, and whoever then creates them destroys the data.
func StartEmbedded(c EmbeddedConfig) (*Embedded, error) {
	options, err := serverOptions(c)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	lock, err := lockStore(c.StoreDir)
	if err != nil {
		return nil, err
	}
	e := &Embedded{lock: lock, dir: c.StoreDir}
	if err := checkStoreKey(c.StoreDir, c.StoreKey); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	if err := e.start(options, c.Logger); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func serverOptions(c EmbeddedConfig) (*server.Options, error) {
	if c.StoreDir == "" {
		return nil, errors.New("the embedded NATS server needs a store directory (USAGEBRIDGE_STORE_DIR)")
	}
	listen := c.Listen
	if listen == "" {
		listen = defaultListen
	}
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("listen address %q of the embedded NATS server: %w: want host:port", listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < -1 || port > 65535 {
		return nil, fmt.Errorf("listen address %q of the embedded NATS server: port %q: want 1 to 65535, or 0 for any", listen, portText)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("listen address %q of the embedded NATS server is not a loopback address: it asks for no password; "+
			"run a NATS server of your own and set USAGEBRIDGE_NATS_URL", listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	options := &server.Options{
		ServerName:             "usagebridge",
		Host:                   host,
		Port:                   port,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               c.StoreDir,
		SyncAlways:             c.SyncInterval == 0,
		SyncInterval:           c.SyncInterval,
		JetStreamKey:           c.StoreKey,
		DisableJetStreamBanner: true,
	}
	if c.StoreKey != "" {
		options.JetStreamCipher = server.AES
	}
	return options, nil
}

func lockStore(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	locked, err := lock.TryLockContext(ctx, lockWait/20)
	if locked {
		return lock, nil
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, errors.Join(fmt.Errorf("lock store directory %s: %w", dir, err), lock.Close())
	}
	owner := "usagebridge is running there"
	if r, err := readRunning(dir); err == nil {
		owner = fmt.Sprintf("usagebridge is running there as process %d, its NATS server at %s", r.PID, r.URL)
	}
	return nil, errors.Join(fmt.Errorf("store directory %s is in use: %s: stop it, or use another directory", dir, owner), lock.Close())
}

// checkStoreKey compares the key with the record of the one that the store
// was made with, and makes the record for a new store.
func checkStoreKey(dir, key string) error {
	path := filepath.Join(dir, keyFile)
	record := keyRecord(key)
	known, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, "jetstream")); err == nil {
			return fmt.Errorf("store directory %s holds data but not %s, the record of its store key: put the file back from a backup, or use another directory", dir, keyFile)
		}
		return writeFile(path, []byte(record))
	case err != nil:
		return fmt.Errorf("read the record of the store key: %w", err)
	case hmac.Equal(known, []byte(record)):
		return nil
	case string(known) == keyRecord(""):
		return fmt.Errorf("store directory %s was made without a store key, and one is given now: run without it", dir)
	case key == "":
		return fmt.Errorf("store directory %s is encrypted, and no store key is given: give the key that it was made with", dir)
	}
	return fmt.Errorf("store directory %s is encrypted with another store key: give the key that it was made with", dir)
}

// keyRecord tells keys apart without telling what they are.
func keyRecord(key string) string {
	if key == "" {
		return "no key\n"
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("usagebridge store key, record 1"))
	return hex.EncodeToString(mac.Sum(nil)) + "\n"
}

// writeFile replaces a file so that after a crash it is there as a whole or
// not at all.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (e *Embedded) start(options *server.Options, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	e.server = s
	out := &serverLog{log: log}
	s.SetLogger(out, false, false)
	s.Start()
	if fatal := out.fatal(); fatal != nil {
		return fmt.Errorf("start the embedded NATS server on %s: %w", e.dir, fatal)
	}
	if !s.ReadyForConnections(readyWait) {
		return errors.Join(fmt.Errorf("the embedded NATS server on %s is not ready after %v", e.dir, readyWait), out.fatal())
	}
	data, err := json.Marshal(running{URL: s.ClientURL(), PID: os.Getpid()})
	if err != nil {
		return fmt.Errorf("describe the embedded NATS server: %w", err)
	}
	return writeFile(filepath.Join(e.dir, serverFile), data)
}

// ClientURL is the address to connect to.
func (e *Embedded) ClientURL() string { return e.server.ClientURL() }

// Close stops the server, waits until its files are closed and gives the
// directory free. Whoever uses the server must have drained and closed its
// connections before.
func (e *Embedded) Close() {
	e.close.Do(func() {
		if e.server != nil {
			e.server.Shutdown()
			e.server.WaitForShutdown()
		}
		_ = os.Remove(filepath.Join(e.dir, serverFile)) // FindEmbedded goes by the lock
		_ = e.lock.Close()
	})
}

// FindEmbedded is the address of the embedded server that another process
// runs on the store directory; running is false when there is none.
func FindEmbedded(storeDir string) (url string, running bool, err error) {
	r, err := readRunning(storeDir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	lock := flock.New(filepath.Join(storeDir, lockFile), flock.SetPermissions(0o600))
	free, err := lock.TryRLock()
	if err := errors.Join(err, lock.Close()); err != nil {
		return "", false, fmt.Errorf("look at the lock of store directory %s: %w", storeDir, err)
	}
	if free { // its process died without removing server.json
		return "", false, nil
	}
	return r.URL, true, nil
}

// StoreExists says whether an embedded server has ever used the directory.
func StoreExists(storeDir string) bool {
	_, err := os.Stat(filepath.Join(storeDir, keyFile))
	return err == nil
}

func readRunning(dir string) (running, error) {
	var r running
	data, err := os.ReadFile(filepath.Join(dir, serverFile))
	if err != nil {
		return r, fmt.Errorf("look for an embedded NATS server: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", filepath.Join(dir, serverFile), err)
	}
	return r, nil
}

// serverLog writes the server's log into slog. The server's notices are this
// program's debug lines.
type serverLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	died error
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.died
}

func (l *serverLog) write(level slog.Level, format string, args []any) {
	if ctx := context.Background(); l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nats server", "text", fmt.Sprintf(format, args...))
	}
}

func (l *serverLog) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.write(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.write(slog.LevelError, format, v) }

// Fatalf is what the server says before it gives up: it becomes the error of
// StartEmbedded.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	l.died = fmt.Errorf(format, v...)
	l.mu.Unlock()
	l.write(slog.LevelError, format, v)
}
