package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// The planted tokens have what JSON, URLs and shells escape.
const (
	plantedVendor  = `pl4nted"vendor<&>\token/one+`
	plantedPartner = `pl4nted"partner<&>\token/one=`
	renewedPartner = `pl4nted"partner<&>\token/two`
	plantedOEM     = `pl4nted"oem<&>\token?three`
)

// spellings are the ways in which a secret may be written down.
func spellings(secret string) map[string]string {
	var unescaped bytes.Buffer
	encoder := json.NewEncoder(&unescaped)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(secret)
	escaped, _ := json.Marshal(secret)
	inner, _ := json.Marshal(strings.Trim(string(escaped), `"`))
	ways := map[string]string{
		"in clear":           secret,
		"in JSON":            strings.Trim(string(escaped), `"`),
		"in JSON, not HTML":  strings.Trim(strings.TrimSpace(unescaped.String()), `"`),
		"in JSON in JSON":    strings.Trim(string(inner), `"`),
		"in hexadecimal":     hex.EncodeToString([]byte(secret)),
		"as a query":         url.QueryEscape(secret),
		"as a path of a URL": url.PathEscape(secret),
	}
	// Base64 of a text that has the secret somewhere in it: what is the same whatever stands around.
	for shift, name := range []string{"in base64", "in base64, one further", "in base64, two further"} {
		text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
		text = text[(8*shift+5)/6 : len(text)-1]
		ways[name] = text
		ways[name+" for URLs"] = strings.NewReplacer("+", "-", "/", "_").Replace(text)
	}
	return ways
}

// revealed says which secrets stand in a text, and how.
func revealed(text []byte, secrets ...string) (found []string) {
	for _, secret := range secrets {
		for way, spelling := range spellings(secret) {
			if bytes.Contains(text, []byte(spelling)) {
				found = append(found, secret+" "+way)
			}
		}
	}
	return found
}

func TestASecretIsFoundHoweverItIsWritten(t *testing.T) {
	const secret = plantedPartner
	for _, text := range []string{
		secret, `{"a":"` + spellings(secret)["in JSON"] + `"}`, hex.EncodeToString([]byte("x" + secret)),
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte("vendor:" + secret)),
		base64.URLEncoding.EncodeToString([]byte("a:" + secret + "!")), base64.RawStdEncoding.EncodeToString([]byte("xx" + secret + "yy")),
		url.QueryEscape(secret),
	} {
		if len(revealed([]byte(text), secret)) == 0 {
			t.Errorf("%q is not found in %q", secret, text)
		}
	}
	if found := revealed([]byte(plantedVendor), secret); len(found) > 0 {
		t.Errorf("got %q found in another secret", found)
	}
}

// Every command that has to do with secrets is used, and none of them, nor the log, nor the store or an
// export of it has a token in clear.
func TestNoTokenIsWrittenAnywhere(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t, sandbox.Plan{})
	if _, err := s.app.broker.Init(t.Context(), broker.InitConfig{Vendor: "acme", LeaseTTL: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "USAGEBRIDGE_PARTNER_TIMEOUT=1s")
	planted := sandbox.Integration{Name: "acme/p", VendorToken: plantedVendor, PartnerToken: plantedPartner}
	if _, err := s.partner.AddIntegration(planted); err != nil {
		t.Fatal(err)
	}
	m, err := s.app.integration(t.Context(), "acme", "m")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	vendor, partner := file("vendor", plantedVendor+"\n"), file("partner", plantedPartner)
	renewed, oem := file("renewed", renewedPartner), file("oem", plantedOEM)
	export := filepath.Join(dir, "store.tar")
	u := &used{s: s}
	u.run(2, "integrations", "add", "acme/p", "--api-url", m.APIURL, "--vendor-token-file", vendor, "--partner-token-file", dir)
	u.run(2, "integrations", "add", "acme/p", "--api-url", "no address", "--vendor-token-file", vendor, "--partner-token-file", partner)
	u.run(0, "integrations", "add", "acme/p", "--api-url", m.APIURL, "--vendor-token-file", vendor, "--partner-token-file", partner, "--oem-token-file", oem)
	u.run(2, "integrations", "add", "acme/p", "--api-url", m.APIURL, "--vendor-token-file", vendor, "--partner-token-file", partner)
	u.run(2, "integrations", "add", "acme/q", "--api-url", m.APIURL, "--vendor-token-file", vendor, "--partner-token-file", partner)
	stop := u.worker()
	u.run(0, "publish", file("services.csv", "id,name\ns,S\n"), "--integration", "acme/p", "--kind", "services")
	u.run(0, "publish", file("accounts.csv", "id,name\na,A\n"), "--integration", "acme/p", "--kind", "accounts")
	u.run(0, "publish", file("counts.csv", "account,service,unitCount\na,s,1\n"), "--integration", "acme/p")
	eventuallyTrue(t, time.Minute, "the count is delivered", func() bool {
		_, ok := s.partner.Value("acme/p", "a", "s")
		return ok
	})
	u.run(0, "integrations", "test", "acme/p", "--json")
	u.run(0, "integrations", "credentials", "set", "acme/p", "--vendor-token-file", vendor, "--partner-token-file", renewed)
	eventuallyTrue(t, time.Minute, "the partner has refused the new token", func() bool {
		for _, call := range s.partner.Tape() {
			if call.Status == 401 {
				return true
			}
		}
		return false
	})
	u.run(1, "integrations", "test", "acme/p")
	u.run(0, "keys", "rotate", "--settle", "0s")
	for _, args := range [][]string{
		{"keys", "ls"}, {"audit", "ls"}, {"integrations", "ls"}, {"integrations", "show", "acme/p"}, {"integrations", "mapping", "acme/p"},
		{"sync", "log"}, {"sync", "status"}, {"sync", "preview", "--integration", "acme/p"}, {"explain", "--integration", "acme/p", "--key", "a/s"},
		{"config"}, {"doctor"}, {"vendors", "ls"}, {"dlq", "ls"},
	} {
		u.run(-1, args...)
		u.run(-1, append(args, "--json")...)
	}
	stop()
	u.run(0, "store", "export", "--output", export)
	u.read(export)
	u.readAll(s.app.config.StoreDir)
	secrets := []string{plantedVendor, plantedPartner, renewedPartner, plantedOEM}
	for name, text := range u.written {
		if found := revealed(text, secrets...); len(found) > 0 {
			t.Errorf("%s has %q", name, found)
		}
	}
	if len(u.written) < 50 {
		t.Errorf("got %d texts looked at, want the files of the store and all output", len(u.written))
	}
}

// used is everything that was written while the program was used.
type used struct {
	s       *crashSite
	written map[string][]byte
}

func (u *used) note(name string, text []byte) {
	if u.written == nil {
		u.written = map[string][]byte{}
	}
	u.written[name] = append(u.written[name], text...)
}

// run uses a command, which must end with the code; -1: any.
func (u *used) run(code int, args ...string) {
	u.s.t.Helper()
	cmd := u.command(args)
	output, err := cmd.CombinedOutput()
	u.note(strings.Join(args, " "), output)
	if got := cmd.ProcessState.ExitCode(); code >= 0 && got != code {
		u.s.t.Errorf("%q ended with %d and error %v, want %d:\n%s", args, got, err, code, output)
	}
}

func (u *used) command(args []string) *exec.Cmd {
	u.s.t.Helper()
	path, err := exec.LookPath("usagebridge")
	if err != nil {
		u.s.t.Fatal(err)
	}
	cmd := exec.CommandContext(u.s.t.Context(), path, args...)
	cmd.Env = append(slices.Clone(u.s.env), "USAGEBRIDGE_LOG_LEVEL=debug", "USAGEBRIDGE_LOG_FORMAT=json", "USAGEBRIDGE_TOO_OLD=0")
	return cmd
}

// worker runs a worker until stop is called, and keeps its log.
func (u *used) worker() (stop func()) {
	u.s.t.Helper()
	log := &logged{}
	cmd := u.command([]string{"run"})
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		u.s.t.Fatal(err)
	}
	return func() {
		u.s.t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			u.s.t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			u.s.t.Errorf("the worker ended with %v", err)
		}
		u.note("the worker's log", []byte(log.String()))
	}
}

func (u *used) read(path string) {
	u.s.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		u.s.t.Fatal(err)
	}
	u.note(path, data)
}

func (u *used) readAll(dir string) {
	u.s.t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			u.read(path)
		}
		return err
	})
	if err != nil {
		u.s.t.Fatal(err)
	}
}
