//go:build unix

package natstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTheDeployedFilesAreWhole asks nats-server itself, as their comments tell
// operators to.
func TestTheDeployedFilesAreWhole(t *testing.T) {
	binary, err := Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deploy, err := deployDir()
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := makeSecrets(filepath.Join(t.TempDir(), "secrets"))
	if err != nil {
		t.Fatal(err)
	}
	environment := append([]string{
		"NATS_SERVER_NAME=n1", "NATS_LISTEN=0.0.0.0:4222", "NATS_ADVERTISE=n1.example:4222", "NATS_MONITOR=127.0.0.1:8222", "NATS_CLUSTER_LISTEN=0.0.0.0:6222",
		"NATS_ROUTES=[nats://n1.example:6222, nats://n2.example:6222, nats://n3.example:6222]", "NATS_STORE_DIR=" + t.TempDir(),
	}, secrets.environment...)
	check := func(file string, environment []string) (string, error) {
		cmd := exec.CommandContext(t.Context(), binary, "-t", "-c", filepath.Join(deploy, file))
		cmd.Env = environment
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, file := range []string{"nats.conf", "cluster.conf"} {
		if out, err := check(file, environment); err != nil {
			t.Errorf("%s: %v: %s", file, err, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(deploy, "cluster.conf"))
	if err != nil {
		t.Fatal(err)
	}
	auth, err := os.ReadFile(filepath.Join(deploy, "auth.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for i, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.Contains(string(text)+string(auth), "\n#   "+name+" ") {
			t.Errorf("no comment of deploy/nats says what %s is", name)
		}
		out, err := check("cluster.conf", slices.Delete(slices.Clone(environment), i, i+1))
		if err == nil || !strings.Contains(out, name) {
			t.Errorf("without %s: got %v and %q, want the variable named", name, err, out)
		}
	}
}
