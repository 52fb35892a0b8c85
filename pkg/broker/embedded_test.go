package broker

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEmbeddedServerKeepsItsDataOverARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, key := range []string{"", "a store key"} {
		t.Run("with the key "+key, func(t *testing.T) {
			dir := dir + key
			start := func() (*Embedded, *Broker) {
				e, err := StartEmbedded(EmbeddedConfig{StoreDir: dir, Listen: "127.0.0.1:0", StoreKey: key})
				if err != nil {
					t.Fatalf("start: %v", err)
				}
				return e, connect(t, e.ClientURL())
			}
			e, b := start()
			initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 4})
			publishCounts(t, b, "o", 3)
			b.conn.Close()
			e.Close()
			e, b = start()
			defer e.Close()
			defer b.conn.Close()
			v, err := b.Vendor(t.Context(), "acme")
			if err != nil || v.Messages != 3 || v.Partitions != 4 {
				t.Errorf("after the restart: %+v, %v; want 3 messages in 4 partitions", v, err)
			}
			if mode, err := os.Stat(dir); err != nil || mode.Mode().Perm() != 0o700 {
				t.Errorf("store directory has mode %v, %v; want 0700", mode.Mode(), err)
			}
		})
	}
}

func TestStoreDirectoryHasOneServerAtATime(t *testing.T) {
	dir := t.TempDir()
	if url, running, err := FindEmbedded(dir); url != "" || running || err != nil {
		t.Errorf("found %q, %v, %v in an empty directory; want nothing", url, running, err)
	}
	e := startServer(t, dir, "127.0.0.1:0")
	_, err := StartEmbedded(EmbeddedConfig{StoreDir: dir, Listen: "127.0.0.1:0"})
	wantError(t, err, dir, "usagebridge is running there", e.ClientURL())
	if url, running, err := FindEmbedded(dir); url != e.ClientURL() || !running || err != nil {
		t.Errorf("found %q, %v, %v; want %q", url, running, err, e.ClientURL())
	}
	left, err := os.ReadFile(filepath.Join(dir, serverFile))
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	e.Close() // twice is once
	if _, running, err := FindEmbedded(dir); running || err != nil {
		t.Errorf("found a server after Close: %v, %v", running, err)
	}
	if err := os.WriteFile(filepath.Join(dir, serverFile), left, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, running, err := FindEmbedded(dir); running || err != nil {
		t.Errorf("found a server that was killed: %v, %v", running, err)
	}
	startServer(t, dir, "127.0.0.1:0")
}

func TestWrongStoreKeyIsRefusedAndTheStoreStaysIntact(t *testing.T) {
	dir := t.TempDir()
	plain, encrypted := filepath.Join(dir, "plain"), filepath.Join(dir, "encrypted")
	start := func(dir, key string) error {
		e, err := StartEmbedded(EmbeddedConfig{StoreDir: dir, Listen: "127.0.0.1:0", StoreKey: key, SyncInterval: time.Minute})
		if err != nil {
			return err
		}
		defer e.Close()
		b := connect(t, e.ClientURL())
		defer b.conn.Close()
		initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 1})
		publishCounts(t, b, "o", 1)
		return nil
	}
	for dir, key := range map[string]string{plain: "", encrypted: "right"} {
		if err := start(dir, key); err != nil {
			t.Fatal(err)
		}
	}
	before := files(t, dir)
	wantError(t, start(plain, "right"), plain, "without a store key")
	wantError(t, start(encrypted, "wrong"), encrypted, "another store key")
	wantError(t, start(encrypted, ""), encrypted, "no store key is given")
	if err := os.Rename(filepath.Join(plain, keyFile), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	wantError(t, start(plain, ""), plain, keyFile)
	if err := os.Rename(filepath.Join(dir, "moved"), filepath.Join(plain, keyFile)); err != nil {
		t.Fatal(err)
	}
	after := files(t, dir)
	for path, content := range before {
		if after[path] != content {
			t.Errorf("%s was changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files after, %d before", len(after), len(before))
	}
	e, err := StartEmbedded(EmbeddedConfig{StoreDir: encrypted, Listen: "127.0.0.1:0", StoreKey: "right"})
	if err != nil {
		t.Fatalf("start with the right key: %v", err)
	}
	defer e.Close()
	b := connect(t, e.ClientURL())
	defer b.conn.Close()
	if v, err := b.Vendor(t.Context(), "acme"); err != nil || v.Messages != 1 {
		t.Errorf("with the right key: %+v, %v; want 1 message", v, err)
	}
	for path, content := range after {
		if strings.Contains(content, "right") || strings.HasPrefix(path, encrypted) && strings.Contains(content, "body 0") {
			t.Errorf("%s holds what is secret", path)
		}
	}
}

// files is the content of every file below a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == lockFile {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEmbeddedConfigIsChecked(t *testing.T) {
	busy := startServer(t, t.TempDir(), "127.0.0.1:0")
	for _, test := range []struct {
		name string
		c    EmbeddedConfig
		want []string
	}{
		{"no directory", EmbeddedConfig{}, []string{"store directory", "USAGEBRIDGE_STORE_DIR"}},
		{"no port", EmbeddedConfig{StoreDir: "x", Listen: "localhost"}, []string{"localhost", "host:port"}},
		{"a port that is no number", EmbeddedConfig{StoreDir: "x", Listen: "localhost:http"}, []string{"http", "1 to 65535"}},
		{"every interface", EmbeddedConfig{StoreDir: "x", Listen: ":4222"}, []string{"not a loopback address", "USAGEBRIDGE_NATS_URL"}},
		{"a public interface", EmbeddedConfig{StoreDir: "x", Listen: "192.0.2.1:4222"}, []string{"192.0.2.1", "not a loopback address"}},
		{
			"a port that is taken", EmbeddedConfig{StoreDir: t.TempDir(), Listen: strings.TrimPrefix(busy.ClientURL(), "nats://")},
			[]string{"start the embedded NATS server", "in use"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := StartEmbedded(test.c)
			wantError(t, err, test.want...)
		})
	}
}

func TestServerLogIsAtTheRightLevel(t *testing.T) {
	var out bytes.Buffer
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	l.Noticef("notice %d", 1)
	l.Debugf("debug")
	l.Tracef("trace")
	l.Warnf("warn %d", 2)
	l.Errorf("error %d", 3)
	l.Fatalf("fatal %d", 4)
	got := out.String()
	for _, want := range []string{`level=WARN msg="nats server" text="warn 2"`, `level=ERROR msg="nats server" text="error 3"`, `text="fatal 4"`} {
		if !strings.Contains(got, want) {
			t.Errorf("log %q, want %q in it", got, want)
		}
	}
	if strings.Contains(got, "notice") || strings.Contains(got, "trace") {
		t.Errorf("log %q, want no notices at level info", got)
	}
	if err := l.fatal(); err == nil || err.Error() != "fatal 4" {
		t.Errorf("fatal is %v, want fatal 4", err)
	}
}

func TestPasswordsAreNeverShown(t *testing.T) {
	for address, want := range map[string]string{
		"nats://user:secret@127.0.0.1:1":               "nats://127.0.0.1:1",
		"nats://secret@127.0.0.1:1":                    "nats://127.0.0.1:1",
		"user:secret@127.0.0.1:1":                      "nats://127.0.0.1:1",
		"nats://a:sec%zzret@127.0.0.1:1":               "nats://127.0.0.1:1",
		"tls://a:secret@127.0.0.1:1, b:secret@[::1]:1": "tls://127.0.0.1:1,nats://[::1]:1",
	} {
		_, err := Connect(within(t, 5*time.Second), Config{URL: address})
		wantError(t, err, "connect to NATS at "+want)
		if strings.Contains(err.Error(), "sec") {
			t.Errorf("error %q shows the password", err)
		}
	}
}
