package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// sandboxFile is a file with the text, and its path.
func sandboxFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheSandboxKnowsTheVendorsAndPSAsOfItsFiles(t *testing.T) {
	o := sandboxOptions{
		human: "api", oemID: "me", oemSecretFile: sandboxFile(t, "s3cret\n"), publicURL: "https://sandbox.example", linkLifetime: time.Minute,
		vendorsFile: sandboxFile(t, `[{"name":"Big Corp","type":"external","token":"t"},{"name":"Old","type":"credentials","credentialLabels":["API key"]}]`),
		psasFile: sandboxFile(t, `[{"id":"p","name":"P","currency":"EUR","services":[{"id":"s","name":"S","price":1.50}],
			"companies":[{"id":"c","name":"C","contract":"Gold","lines":[{"service":"s","units":3}]}]}]`),
		informFile: sandboxFile(t, "http://127.0.0.1:8080/inform/v1/{vendor}/inf0rm\n"),
	}
	got, err := o.config()
	if err != nil {
		t.Fatal(err)
	}
	if got.OEM.ClientID != "me" || got.OEM.ClientSecret != "s3cret" || got.PublicURL != o.publicURL || got.LinkLifetime != time.Minute || !strings.HasSuffix(got.Inform.URL, "/{vendor}/inf0rm") {
		t.Errorf("got %+v; want the OEM client, the URLs and the lifetime of the flags", got)
	}
	played := sandbox.New(got)
	if vendors := played.Vendors(); len(vendors) != 2 || vendors[0].ID != "vendor-big-corp" || vendors[0].Token != "t" || vendors[1].CredentialLabels[0] != "API key" {
		t.Errorf("got vendors %v; want the two of the file", vendors)
	}
	if psas := played.PSAs(); len(psas) != 1 || psas[0].Services[0].Price != "1.50" || psas[0].Companies[0].Lines[0].Units != "3" {
		t.Errorf("got PSAs %+v; want the one of the file", psas)
	}
}

func TestAllThatIsWrongWithTheSandboxsFilesIsSaidAtOnceAndNoSecret(t *testing.T) {
	o := sandboxOptions{
		human: "api", oemSecretFile: sandboxFile(t, ""), informFile: filepath.Join(t.TempDir(), "none"),
		vendorsFile: sandboxFile(t, `[{"name":"a","tipe":"external"}]`), psasFile: sandboxFile(t, `{}`), faultFile: "none.json",
	}
	_, err := o.config()
	for _, want := range []string{"--oem-client-secret-file", "is empty", "--inform-url-file", "does not exist", "--vendors", `unknown field "tipe"`, "--psas", "--faults"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v; want it to mention %s", err, want)
		}
	}
	o = sandboxOptions{human: "api", informFile: sandboxFile(t, "http://example.com/inf0rm"), vendorsFile: sandboxFile(t, `[{"name":"a","type":"oauth"}]`)}
	_, err = o.config()
	if err == nil || !strings.Contains(err.Error(), "no loopback address") || !strings.Contains(err.Error(), `type "oauth"`) || strings.Contains(err.Error(), "inf0rm") {
		t.Errorf("got error %v; want the address and the type refused, and no secret in it", err)
	}
}
