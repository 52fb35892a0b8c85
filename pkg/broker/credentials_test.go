package broker

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
)

func TestWhoIsRefusedIsToldWhatToSet(t *testing.T) {
	cluster := startCluster(t)
	secrets := cluster.Secrets()
	stranger := filepath.Join(t.TempDir(), "stranger.nk")
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	writeTest(t, stranger, string(seed), 0o600)
	for _, test := range []struct {
		name string
		c    Config
		want []string
	}{
		{"nobody", Config{CAFile: secrets.CA}, []string{"Authorization Violation", settingNKey, settingCreds}},
		{"a stranger", Config{CAFile: secrets.CA, NKeyFile: stranger}, []string{"Authorization Violation", "knows no user", stranger}},
		{"who trusts others", Config{NKeyFile: secrets.Worker}, []string{"certificate signed by unknown authority", settingCA}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.c.URL = cluster.URL()
			_, err := Connect(t.Context(), test.c)
			wantError(t, err, test.want...)
			if err != nil && strings.Contains(err.Error(), string(seed)) {
				t.Errorf("error %q shows the seed", err)
			}
		})
	}
	t.Run("who wants TLS where there is none", func(t *testing.T) {
		url := startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL()
		_, err := Connect(t.Context(), Config{URL: url, CAFile: secrets.CA})
		wantError(t, err, "secure connection", settingCA)
	})
	t.Run("who shows a certificate as well is let in", func(t *testing.T) {
		b, err := Connect(t.Context(), Config{URL: cluster.URL(), CAFile: secrets.CA, CertFile: secrets.Cert, KeyFile: secrets.Key, NKeyFile: secrets.Worker})
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	})
}

func writeTest(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestCredentialsThatCannotBeUsedAreNamedAtOnce(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		writeTest(t, path, text, mode)
		return path
	}
	const secret = "SUsomethingsecret"
	text, open := file("text", secret+"\n", 0o600), file("open", secret, 0o644)
	for _, test := range []struct {
		name string
		c    Config
		want []string
	}{
		{"files that are missing", Config{NKeyFile: dir + "/no", CAFile: dir + "/nope"}, []string{settingNKey, `no" does not exist`, settingCA, `nope" does not exist`}},
		{"a directory", Config{CAFile: dir}, []string{settingCA, "not a regular file"}},
		{"no seed", Config{NKeyFile: text}, []string{settingNKey, "no seed of a user's nkey", "SU"}},
		{"a seed for everybody", Config{NKeyFile: open}, []string{settingNKey, "mode 0644", "chmod 600"}},
		{"a seed that its user calls exposed", Config{NKeyFile: text, Exposed: func(fs.FileInfo) bool { return true }}, []string{settingNKey, "mode 0600"}},
		{"a seed that its user calls safe", Config{NKeyFile: open, Exposed: func(fs.FileInfo) bool { return false }}, []string{settingNKey, "no seed"}},
		{"no certificate", Config{CAFile: text}, []string{settingCA, "holds no certificate"}},
		{"two ways at once", Config{NKeyFile: text, CredsFile: text}, []string{settingCreds, settingNKey, "want one of them"}},
		{"half a pair", Config{CertFile: text}, []string{settingCert, settingKey, "want both"}},
		{"no pair", Config{CertFile: text, KeyFile: text}, []string{settingKey, "is not the key of the certificate"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.c.URL = "nats://127.0.0.1:1"
			_, err := Connect(t.Context(), test.c)
			wantError(t, err, test.want...)
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("error %q shows what is in the file", err)
			}
		})
	}
}
